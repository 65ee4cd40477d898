//! Settings of PostgreSQL clients: kept per session, shown again by SHOW, and without effect on the pipeline.
//!
//! Clients set them unasked when they connect (`SET datestyle = ..`) and read some back. What a session does with one of them, its
//! caller decides: the query service heeds `statement_timeout`.

use parking_lot::Mutex;
use std::collections::BTreeMap;

/// Name and value without SET, sorted.
const VARIABLES: &[(&str, &str)] = &[
    ("application_name", ""),
    ("bytea_output", "hex"),
    ("client_encoding", "UTF8"),
    ("client_min_messages", "notice"),
    ("datestyle", "ISO, YMD"),
    ("default_tablespace", ""),
    ("default_transaction_deferrable", "off"),
    ("default_transaction_isolation", "repeatable read"),
    ("default_transaction_read_only", "off"),
    ("escape_string_warning", "on"),
    ("extra_float_digits", "1"),
    ("geqo", "off"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
    ("integer_datetimes", "on"),
    ("intervalstyle", "postgres"),
    ("is_superuser", "off"),
    ("jit", "off"),
    ("lc_collate", "C"),
    ("lc_ctype", "C.UTF-8"),
    ("lc_messages", "C"),
    ("lc_monetary", "C"),
    ("lc_numeric", "C"),
    ("lc_time", "C"),
    ("lock_timeout", "0"),
    ("max_identifier_length", "63"),
    ("row_security", "on"),
    ("search_path", "public"),
    ("server_encoding", "UTF8"),
    ("standard_conforming_strings", "on"),
    ("statement_timeout", "0"),
    ("synchronous_commit", "on"),
    ("timezone", "UTC"),
    ("transaction", ""),
    ("transaction_isolation", "repeatable read"),
    ("transaction_read_only", "off"),
    ("xmloption", "content"),
];

/// The settings of a session.
#[derive(Debug, Default)]
pub(crate) struct Variables {
    values: Mutex<BTreeMap<&'static str, String>>,
}

impl Variables {
    /// Sets one. `false`: there is none of this name.
    pub(crate) fn set(&self, name: &str, value: &str) -> bool {
        match known(name) {
            Some((name, _)) => {
                self.values.lock().insert(name, value.to_string());
                true
            }
            None => false,
        }
    }

    /// Back to the value without SET; all of them without a name. `false`: there is none of this name.
    pub(crate) fn reset(&self, name: Option<&str>) -> bool {
        match name.map(known) {
            None => {
                self.values.lock().clear();
                true
            }
            Some(Some((name, _))) => {
                self.values.lock().remove(name);
                true
            }
            Some(None) => false,
        }
    }

    /// The value of one; `None` when there is none of this name.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        let (name, default) = known(name)?;
        Some(self.values.lock().get(name).cloned().unwrap_or_else(|| default.to_string()))
    }
}

/// The value of such a setting before any SET.
pub fn client_setting_default(name: &str) -> Option<&'static str> {
    known(name).map(|(_, default)| default)
}

/// Whether a setting of this name belongs to a session of a PostgreSQL client, and not to the pipeline.
pub fn is_client_setting(name: &str) -> bool {
    known(name).is_some()
}

fn known(name: &str) -> Option<(&'static str, &'static str)> {
    VARIABLES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_kept_until_reset() {
        let variables = Variables::default();
        assert!(VARIABLES.is_sorted());
        assert_eq!(variables.get("TimeZone").as_deref(), Some("UTC"));
        assert!(variables.set("timezone", "Europe/Berlin") && !variables.set("trigger", "1s"));
        assert_eq!(variables.get("timezone").as_deref(), Some("Europe/Berlin"));
        assert!(variables.reset(Some("timezone")) && !variables.reset(Some("nosuch")));
        assert_eq!(variables.get("timezone").as_deref(), Some("UTC"));
    }
}
