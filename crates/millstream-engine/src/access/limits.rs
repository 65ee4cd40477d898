//! What a user's statements may take: memory, rows, time, bytes of text, connections.
//!
//! A user without a limit has the server's; of both the smaller counts.

use crate::error::Result;
use millstream_sql::statement::OptionList;
use millstream_types::Options;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Limits of one user; `None` is no limit of the user's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserLimits {
    /// Bytes of memory that one statement may take.
    pub memory: Option<u64>,
    /// Rows that one statement may give.
    pub rows: Option<u64>,
    /// How long one statement may run.
    pub statement_timeout: Option<Duration>,
    /// Bytes of the text of one statement.
    pub statement_bytes: Option<u64>,
    /// Connections at a time.
    pub connections: Option<u64>,
}

/// Names of all limits, sorted.
pub const LIMITS: [&str; 5] = ["connections", "memory", "rows", "statement_bytes", "statement_timeout"];

impl UserLimits {
    /// These limits with some given anew; `'none'` takes one away.
    ///
    /// # Errors
    /// An unknown name, or a value that is none.
    pub fn changed(mut self, owner: &str, given: &OptionList) -> Result<Self> {
        let none = |value: &str| matches!(value.to_lowercase().as_str(), "none" | "default");
        let mut values = Vec::new();
        for (name, value) in given {
            match name.as_str() {
                _ if !none(value) => values.push((name.clone(), value.clone())),
                "memory" => self.memory = None,
                "rows" => self.rows = None,
                "statement_timeout" => self.statement_timeout = None,
                "statement_bytes" => self.statement_bytes = None,
                "connections" => self.connections = None,
                // Refused below with what is known.
                _ => values.push((name.clone(), value.clone())),
            }
        }
        let mut options = Options::new(owner, values);
        self.memory = options.bytes("memory")?.or(self.memory);
        self.rows = options.parse("rows", "a number of rows")?.or(self.rows);
        self.statement_timeout = options.duration("statement_timeout")?.or(self.statement_timeout);
        self.statement_bytes = options.bytes("statement_bytes")?.or(self.statement_bytes);
        self.connections = options.parse("connections", "a number of connections")?.or(self.connections);
        options.finish()?;
        Ok(self)
    }

    /// Of each limit the smaller one.
    #[must_use]
    pub fn or_less(self, other: Self) -> Self {
        fn least<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
            a.into_iter().chain(b).min()
        }
        Self {
            memory: least(self.memory, other.memory),
            rows: least(self.rows, other.rows),
            statement_timeout: least(self.statement_timeout, other.statement_timeout),
            statement_bytes: least(self.statement_bytes, other.statement_bytes),
            connections: least(self.connections, other.connections),
        }
    }

    /// The limits that are there, as they are shown.
    pub fn shown(&self) -> String {
        let bytes = |bytes: u64| bytesize::ByteSize(bytes).display().si().to_string();
        let shown = [
            self.connections.map(|count| format!("connections = {count}")),
            self.memory.map(|size| format!("memory = '{}'", bytes(size))),
            self.rows.map(|count| format!("rows = {count}")),
            self.statement_bytes.map(|size| format!("statement_bytes = '{}'", bytes(size))),
            self.statement_timeout.map(|time| format!("statement_timeout = '{}'", humantime::format_duration(time))),
        ];
        shown.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(values: &[(&str, &str)]) -> OptionList {
        values.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn limits_are_given_and_taken_away() {
        let limits = UserLimits::default().changed("user \"a\"", &list(&[("memory", "1 MB"), ("rows", "5")])).unwrap();
        assert_eq!(limits.shown(), "memory = '1.0 MB', rows = 5");
        let limits = limits.changed("user \"a\"", &list(&[("rows", "none"), ("statement_timeout", "2s")])).unwrap();
        assert_eq!(limits.shown(), "memory = '1.0 MB', statement_timeout = '2s'");
        let error = limits.changed("user \"a\"", &list(&[("row", "none")])).unwrap_err();
        assert_eq!(error.to_string(), "unknown option \"row\" of user \"a\"");
        assert!(limits.changed("user \"a\"", &list(&[("connections", "many")])).is_err());
        let other = UserLimits { memory: Some(10), connections: Some(2), ..UserLimits::default() };
        assert_eq!(limits.or_less(other).shown(), "connections = 2, memory = '10 B', statement_timeout = '2s'");
    }
}
