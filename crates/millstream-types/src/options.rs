//! `WITH (...)` options: typed access, and no option is ever ignored.
//!
//! A reader takes each option it knows; [`Options::finish`] then refuses what is left over and suggests the nearest
//! name that was asked for. Values are text, as written in SQL; durations are `'10 seconds'`, `'100ms'`, sizes `'128 MB'`.

use crate::error::{Classified, ErrorKind};
use crate::reach::Reach;
use crate::suggest::nearest;
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::time::Duration;

/// An option that is unknown, missing or out of its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// No reader asked for this option.
    #[error("unknown option \"{name}\" of {owner}")]
    Unknown {
        /// The object the options belong to.
        owner: String,
        /// The option.
        name: String,
        /// The nearest known one.
        suggestion: Option<String>,
        /// All known ones.
        known: Vec<String>,
    },
    /// A required option is absent.
    #[error("{owner} needs the option \"{name}\"")]
    Missing {
        /// The object the options belong to.
        owner: String,
        /// The option.
        name: String,
    },
    /// The value does not fit the option.
    #[error("option \"{name}\" of {owner} is '{value}', not {expected}")]
    Value {
        /// The object the options belong to.
        owner: String,
        /// The option.
        name: String,
        /// What was given.
        value: String,
        /// What is legal.
        expected: String,
    },
}

impl Classified for OptionError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn hint(&self) -> Option<String> {
        match self {
            OptionError::Unknown { suggestion: Some(name), .. } => Some(format!("Did you mean \"{name}\"?")),
            OptionError::Unknown { known, .. } if !known.is_empty() => Some(format!("Known options: {}.", known.join(", "))),
            OptionError::Missing { name, .. } => Some(format!("Add {name} = '...' to the WITH list.")),
            _ => None,
        }
    }
}

/// The options of one object, consumed one by one.
#[derive(Debug, Clone)]
pub struct Options {
    owner: String,
    values: BTreeMap<String, String>,
    reach: Reach,
    asked: BTreeSet<String>,
}

impl Options {
    /// Options of `owner`, which names the object in errors, for instance `stream "bids"`. Keys are lower case.
    pub fn new(owner: impl Into<String>, values: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { owner: owner.into(), values: values.into_iter().collect(), reach: Reach::default(), asked: BTreeSet::new() }
    }

    /// The same options, of an object that reaches no further than this.
    #[must_use]
    pub fn within(mut self, reach: Reach) -> Self {
        self.reach = reach;
        self
    }

    /// Which files and hosts the object may name.
    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// The object these options belong to, as errors name it.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Gives an option a value unless it has one.
    pub fn set_default(&mut self, name: &str, value: impl Into<String>) {
        self.values.entry(name.to_string()).or_insert_with(|| value.into());
    }

    /// Takes the text of an option.
    pub fn take(&mut self, name: &str) -> Option<String> {
        self.asked.insert(name.to_string());
        self.values.remove(name)
    }

    /// Looks at an option without taking it.
    pub fn peek(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Takes an option that must be there.
    ///
    /// # Errors
    /// [`OptionError::Missing`].
    pub fn require(&mut self, name: &str) -> Result<String, OptionError> {
        self.take(name).ok_or_else(|| OptionError::Missing { owner: self.owner.clone(), name: name.to_string() })
    }

    /// Takes and parses an option; `expected` says what a legal value is, for instance `a port number`.
    ///
    /// # Errors
    /// [`OptionError::Value`] when it does not parse.
    pub fn parse<T: FromStr>(&mut self, name: &str, expected: &str) -> Result<Option<T>, OptionError> {
        self.take_with(name, expected, |value| value.trim().parse().ok())
    }

    /// Takes a truth value: `true/false`, `on/off`, `yes/no`, `1/0`.
    ///
    /// # Errors
    /// [`OptionError::Value`] for anything else.
    pub fn boolean(&mut self, name: &str) -> Result<Option<bool>, OptionError> {
        self.take_with(name, "true or false", |value| match value.trim().to_lowercase().as_str() {
            "true" | "on" | "yes" | "1" => Some(true),
            "false" | "off" | "no" | "0" => Some(false),
            _ => None,
        })
    }

    /// Takes a duration such as `'100ms'`, `'10 seconds'`, `'1 hour 30 minutes'`; a bare `0` is zero.
    ///
    /// # Errors
    /// [`OptionError::Value`] when it is not a duration.
    pub fn duration(&mut self, name: &str) -> Result<Option<Duration>, OptionError> {
        self.take_with(name, "a duration such as '10 seconds'", parse_duration)
    }

    /// Takes a size in bytes such as `'128 MB'` (10^6) or `'64 MiB'` (2^20).
    ///
    /// # Errors
    /// [`OptionError::Value`] when it is not a size.
    pub fn bytes(&mut self, name: &str) -> Result<Option<u64>, OptionError> {
        self.take_with(name, "a size such as '128 MB'", parse_bytes)
    }

    /// Takes an option with a fixed set of choices.
    ///
    /// # Errors
    /// [`OptionError::Value`] that lists the choices.
    pub fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Result<Option<T>, OptionError> {
        let expected = format!("one of {}", choices.iter().map(|(text, _)| format!("'{text}'")).collect::<Vec<_>>().join(", "));
        self.take_with(name, &expected, |value| {
            choices.iter().find(|(text, _)| text.eq_ignore_ascii_case(value.trim())).map(|(_, choice)| *choice)
        })
    }

    fn take_with<T>(&mut self, name: &str, expected: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, OptionError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match parse(&value) {
            Some(parsed) => Ok(Some(parsed)),
            None => Err(OptionError::Value { owner: self.owner.clone(), name: name.into(), value, expected: expected.into() }),
        }
    }

    /// Refuses whatever nobody asked for.
    ///
    /// # Errors
    /// [`OptionError::Unknown`] for the first option left, with the nearest known name.
    pub fn finish(self) -> Result<(), OptionError> {
        match self.values.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(OptionError::Unknown {
                suggestion: nearest(&name, self.asked.iter().map(String::as_str)).map(str::to_string),
                known: self.asked.into_iter().collect(),
                owner: self.owner,
                name,
            }),
        }
    }
}

/// Parses `'128 MB'` (10^6), `'64 MiB'` (2^20), `'4096'`.
pub fn parse_bytes(text: &str) -> Option<u64> {
    bytesize::ByteSize::from_str(text.trim()).ok().map(|size| size.as_u64())
}

/// Parses `'100ms'`, `'10 seconds'`, `'1 hour 30 minutes'`, `'0'`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if text == "0" {
        return Some(Duration::ZERO);
    }
    humantime::parse_duration(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Options {
        Options::new("stream \"s\"", pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())))
    }

    #[test]
    fn reads_typed_values() {
        let mut options = options(&[("interval", "1 second 500ms"), ("size", "2 MB"), ("strict", "off")]);
        assert_eq!(options.duration("interval").unwrap(), Some(Duration::from_millis(1500)));
        assert_eq!(options.bytes("size").unwrap(), Some(2_000_000));
        assert_eq!(options.boolean("strict").unwrap(), Some(false));
        options.finish().unwrap();
    }

    #[test]
    fn refuses_what_nobody_reads() {
        let mut options = options(&[("fromat", "csv")]);
        assert_eq!(options.take("format"), None);
        let error = options.finish().unwrap_err();
        assert_eq!(error.to_string(), "unknown option \"fromat\" of stream \"s\"");
        assert_eq!(error.hint().unwrap(), "Did you mean \"format\"?");
    }
}
