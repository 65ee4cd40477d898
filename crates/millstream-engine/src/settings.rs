//! `SET name = value`: the options of a pipeline and of a session, each with its default and its documentation.

use crate::error::{EngineError, Result};
use crate::memory::parse_limit;
use millstream_dataflow::Parallelism;
use millstream_plan::FloatSum;
use millstream_types::cores;
use millstream_types::options::{parse_bytes, parse_duration};
use millstream_types::suggest::nearest;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// When epochs start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// At least this far apart when caught up; back to back with a backlog.
    Interval(Duration),
    /// Everything that is there at the start, in normal epochs, then stop.
    Available,
    /// Everything that is there at the start, in one epoch, then stop.
    Once,
}

impl Default for Trigger {
    fn default() -> Self {
        Trigger::Interval(Duration::from_millis(100))
    }
}

impl FromStr for Trigger {
    type Err = EngineError;

    fn from_str(text: &str) -> Result<Self> {
        match text.trim().to_lowercase().as_str() {
            "available" | "available_now" => Ok(Trigger::Available),
            "once" => Ok(Trigger::Once),
            other => parse_duration(other).map(Trigger::Interval).ok_or_else(|| {
                EngineError::invalid(
                    format!("trigger is '{text}', not an interval, 'available' or 'once'"),
                    "Write for example SET trigger = '100ms'.",
                )
            }),
        }
    }
}

impl std::fmt::Display for Trigger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trigger::Interval(interval) => write!(f, "{}", humantime::format_duration(*interval)),
            Trigger::Available => f.write_str("available"),
            Trigger::Once => f.write_str("once"),
        }
    }
}

/// What happens when a query fails on an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnQueryFailure {
    /// The pipeline stops; nothing of the epoch is committed.
    Stop,
    /// The query and its dependents are marked FAILED; the epoch is committed without them.
    Isolate,
}

/// What CREATE does about state that nothing bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnboundedState {
    /// Nothing.
    Allow,
    /// A notice names it.
    Warn,
    /// An error names it.
    Refuse,
}

/// One option, as `SHOW ALL` lists it.
#[derive(Debug, Clone)]
pub struct SettingInfo {
    /// Its name.
    pub name: &'static str,
    /// The value in force.
    pub value: String,
    /// The value without SET.
    pub default: &'static str,
    /// What it does.
    pub doc: &'static str,
}

/// An operator has no more shards than key groups.
const SHARDS_MAX: usize = 256;

/// Name, default and documentation of every option.
const SETTINGS: &[(&str, &str, &str)] = &[
    (
        "backpressure",
        "false",
        "'true' takes rows of sockets, standard input and memory streams only as fast as they are processed; an option of a stream overrules it.",
    ),
    (
        "checkpoint_interval",
        "10s",
        "Least time between two checkpoints of operator state; '0' makes one after every epoch. One that takes longer than a second, or has so much state that it will, comes when nine times as long has passed since the last.",
    ),
    (
        "clock_resolution",
        "1s",
        "How often, at most, queries that depend on the clock alone (now(), processing-time windows) are brought up to date.",
    ),
    (
        "dead_letter_limit",
        "1 GB",
        "How much of the refused rows is kept in the state directory; the oldest go first and are counted. In memory: 10,000 rows.",
    ),
    (
        "float_sum",
        "fast",
        "How sum and avg of floats take rows back: 'fast' subtracts them, which leaves rounding errors behind; 'exact' adds up the group's rows again. Set before the first query.",
    ),
    ("fallback", "recompute", "'error' refuses queries with an operator that can only be recomputed as a whole; 'recompute' runs them."),
    (
        "memory_limit",
        "60%",
        "How much memory operators, views and tables take at most: a size, or a share of that of the machine or its control group. A query that needs more fails and says which operator. A quarter of it may go to statements that read.",
    ),
    (
        "on_query_failure",
        "stop",
        "'stop' ends the pipeline when a query fails on an epoch; 'isolate' takes only that query and its dependents out.",
    ),
    (
        "parallel_rows",
        "16384",
        "From how many rows of a change on the cores share the work of an operator with state by key. Set before the first query.",
    ),
    (
        "parallelism",
        "1",
        "Into how many shards, each with keys of its own, such an operator is divided then: 'auto' is the number of cores, '1' divides nothing. Set before the first query.",
    ),
    ("trigger", "100ms", "Least distance between epoch starts, or 'available' or 'once' to process what is there and stop."),
    ("unbounded_state", "warn", "What CREATE does about operator state that no watermark bounds: 'allow', 'warn' or 'refuse'."),
];

/// The options in force. Checked when set.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// From outside: flags, environment, configuration, the embedding program. Never stored.
    given: BTreeMap<&'static str, String>,
    /// By SET, which overrules what is given: part of the catalog.
    values: BTreeMap<&'static str, String>,
}

impl Settings {
    /// Sets an option.
    ///
    /// # Errors
    /// When the option is unknown or the value is not legal; nothing changes then.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let name = name.to_lowercase();
        let Some((known, _, _)) = SETTINGS.iter().find(|(known, _, _)| *known == name) else {
            // They belong to a session; a pipeline file may say them, and they change nothing.
            if crate::session::is_client_setting(&name) {
                return Ok(());
            }
            let hint = match nearest(&name, SETTINGS.iter().map(|(known, _, _)| *known)) {
                Some(near) => format!("Did you mean \"{near}\"?"),
                None => "SHOW ALL lists the options.".to_string(),
            };
            return Err(EngineError::invalid(format!("unknown setting \"{name}\""), hint));
        };
        let before = self.values.insert(known, value.to_string());
        let checked = self.check();
        if checked.is_err() {
            match before {
                Some(value) => self.values.insert(known, value),
                None => self.values.remove(known),
            };
        }
        checked
    }

    /// Takes over an option from outside.
    ///
    /// # Errors
    /// As [`Settings::set`].
    pub fn give(&mut self, name: &str, value: &str) -> Result<()> {
        let by_set = std::mem::take(&mut self.values);
        let checked = self.set(name, value);
        let given = std::mem::replace(&mut self.values, by_set);
        checked.map(|()| self.given.extend(given))
    }

    /// Back to what was given from outside, or to the default.
    ///
    /// # Errors
    /// When the option is unknown.
    pub fn reset(&mut self, name: &str) -> Result<()> {
        if name.eq_ignore_ascii_case("all") {
            self.values.clear();
            return Ok(());
        }
        match SETTINGS.iter().find(|(known, _, _)| known.eq_ignore_ascii_case(name)) {
            Some((known, ..)) => {
                self.values.remove(known);
                Ok(())
            }
            None => self.set(name, ""),
        }
    }

    /// The value of an option; `None` when there is no such option.
    pub fn get(&self, name: &str) -> Option<String> {
        SETTINGS.iter().find(|(known, _, _)| known.eq_ignore_ascii_case(name)).map(|(known, _, _)| self.text(known).to_string())
    }

    /// Every option with its value.
    pub fn list(&self) -> Vec<SettingInfo> {
        SETTINGS.iter().map(|(name, default, doc)| SettingInfo { name, value: self.text(name).to_string(), default, doc }).collect()
    }

    /// Options that SET has changed.
    pub fn changed(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.values.iter().map(|(name, value)| (*name, value.as_str()))
    }

    fn text(&self, name: &str) -> &str {
        let default = SETTINGS.iter().find(|(known, _, _)| *known == name).map_or("", |(_, default, _)| *default);
        self.values.get(name).or_else(|| self.given.get(name)).map_or(default, String::as_str)
    }

    fn check(&self) -> Result<()> {
        self.trigger()?;
        self.backpressure()?;
        self.duration("checkpoint_interval")?;
        self.duration("clock_resolution")?;
        self.dead_letter_limit()?;
        self.on_query_failure()?;
        self.unbounded_state()?;
        self.allow_fallback()?;
        self.float_sum()?;
        self.memory_limit()?;
        self.parallelism()?;
        Ok(())
    }

    fn duration(&self, name: &'static str) -> Result<Duration> {
        parse_duration(self.text(name)).ok_or_else(|| {
            EngineError::invalid(
                format!("setting \"{name}\" is '{}', not a duration", self.text(name)),
                format!("Write for example SET {name} = '10 seconds'."),
            )
        })
    }

    fn choice<T: Copy>(&self, name: &'static str, choices: &[(&str, T)]) -> Result<T> {
        let text = self.text(name);
        choices.iter().find(|(choice, _)| choice.eq_ignore_ascii_case(text)).map(|(_, value)| *value).ok_or_else(|| {
            let list = choices.iter().map(|(choice, _)| format!("'{choice}'")).collect::<Vec<_>>().join(", ");
            EngineError::invalid(format!("setting \"{name}\" is '{text}'"), format!("Choose one of {list}."))
        })
    }

    /// When epochs start.
    ///
    /// # Errors
    /// Never after [`Settings::set`] accepted the value; the same holds for the other typed readers.
    pub fn trigger(&self) -> Result<Trigger> {
        self.text("trigger").parse()
    }

    /// Least time between checkpoints.
    ///
    /// # Errors
    /// As [`Settings::trigger`].
    pub fn checkpoint_interval(&self) -> Result<Duration> {
        self.duration("checkpoint_interval")
    }

    /// How often clock-dependent queries are due.
    ///
    /// # Errors
    /// As [`Settings::trigger`].
    pub fn clock_resolution(&self) -> Result<Duration> {
        self.duration("clock_resolution")
    }

    /// Whether push sources are slowed down to the rate at which rows are processed.
    ///
    /// # Errors
    /// As [`Settings::trigger`].
    pub fn backpressure(&self) -> Result<bool> {
        self.choice("backpressure", &[("false", false), ("true", true), ("off", false), ("on", true)])
    }

    /// Bytes of refused rows that are kept in a state directory.
    ///
    /// # Errors
    /// As [`Settings::trigger`].
    pub fn dead_letter_limit(&self) -> Result<u64> {
        let text = self.text("dead_letter_limit");
        parse_bytes(text).ok_or_else(|| {
            EngineError::invalid(
                format!("setting \"dead_letter_limit\" is '{text}', not a size"),
                "Write for example SET dead_letter_limit = '100 MB'.",
            )
        })
    }

    /// What happens when a query fails.
    ///
    /// # Errors
    /// As [`Settings::trigger`].
    pub fn on_query_failure(&self) -> Result<OnQueryFailure> {
        self.choice("on_query_failure", &[("stop", OnQueryFailure::Stop), ("isolate", OnQueryFailure::Isolate)])
    }

    /// What CREATE does about unbounded state.
    ///
    /// # Errors
    /// As [`Settings::trigger`].
    pub fn unbounded_state(&self) -> Result<UnboundedState> {
        let choices = [("allow", UnboundedState::Allow), ("warn", UnboundedState::Warn), ("refuse", UnboundedState::Refuse)];
        self.choice("unbounded_state", &choices)
    }

    /// How float totals take rows back.
    ///
    /// # Errors
    /// As [`Settings::trigger`].
    pub fn float_sum(&self) -> Result<FloatSum> {
        self.choice("float_sum", &[("fast", FloatSum::Fast), ("exact", FloatSum::Exact)])
    }

    /// How far operators are divided.
    ///
    /// # Errors
    /// As [`Settings::trigger`].
    pub fn parallelism(&self) -> Result<Parallelism> {
        let number = |name: &'static str, range: RangeInclusive<usize>| {
            let number = self.text(name).parse().ok().filter(|number| range.contains(number));
            number.ok_or_else(|| {
                EngineError::invalid(
                    format!("setting \"{name}\" is '{}', not a number from {} to {}", self.text(name), range.start(), range.end()),
                    format!("Write for example SET {name} = '{}'.", if name == "parallelism" { 4 } else { 100_000 }),
                )
            })
        };
        let shards = match self.text("parallelism") {
            auto if auto.eq_ignore_ascii_case("auto") => cores().min(SHARDS_MAX),
            _ => number("parallelism", 1..=SHARDS_MAX)?,
        };
        Ok(Parallelism { shards, from_rows: number("parallel_rows", 1..=1_000_000_000)? })
    }

    /// Bytes that state and snapshots may take.
    ///
    /// # Errors
    /// As [`Settings::trigger`].
    pub fn memory_limit(&self) -> Result<usize> {
        parse_limit(self.text("memory_limit"))
    }

    /// Whether operators may be recomputed as a whole.
    ///
    /// # Errors
    /// As [`Settings::trigger`].
    pub fn allow_fallback(&self) -> Result<bool> {
        self.choice("fallback", &[("recompute", true), ("error", false)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_unknown_names_and_illegal_values() {
        let mut settings = Settings::default();
        assert_eq!(settings.set("triger", "1s").unwrap_err().to_string(), "unknown setting \"triger\"");
        assert!(settings.set("trigger", "soon").is_err());
        assert_eq!(settings.trigger().unwrap(), Trigger::Interval(Duration::from_millis(100)));
        settings.set("trigger", "2 seconds").unwrap();
        assert_eq!(settings.trigger().unwrap(), Trigger::Interval(Duration::from_secs(2)));
    }

    #[test]
    fn set_overrules_what_is_given_and_only_that_is_kept() {
        let mut settings = Settings::default();
        settings.give("trigger", "available").unwrap();
        assert!(settings.give("trigger", "soon").is_err());
        assert_eq!((settings.trigger().unwrap(), settings.changed().count()), (Trigger::Available, 0));
        settings.set("trigger", "1s").unwrap();
        assert_eq!(settings.changed().collect::<Vec<_>>(), [("trigger", "1s")]);
        settings.reset("trigger").unwrap();
        assert_eq!(settings.trigger().unwrap(), Trigger::Available);
    }
}
