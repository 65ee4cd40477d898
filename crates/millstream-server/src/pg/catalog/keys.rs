//! Primary keys and definitions, by the numbers that clients know relations by.
//!
//! A primary key `PRIMARY KEY (a, b)` of table `t` is, as in PostgreSQL, a constraint and an index, both called `t_pkey`. Their numbers
//! follow from the table's. What is known here is what the catalog's tables said when they were read last: clients read them first, and
//! then ask `pg_get_indexdef` and its like about a number.

use super::PUBLIC;
use datafusion::scalar::ScalarValue;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;

/// From a table's number to that of the index of its key.
const INDEX: i32 = 1_000_000_000;
/// From a table's number to that of the constraint of its key.
const CONSTRAINT: i32 = 1_100_000_000;

/// A primary key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    /// The number of the table.
    pub(super) relation: i32,
    /// The number of the schema.
    pub(super) namespace: i32,
    /// The table.
    pub(super) table: String,
    /// The columns, in the order of the key.
    pub(super) columns: Vec<String>,
    /// Their places in the table, from 1.
    pub(super) places: Vec<i16>,
}

impl Key {
    pub(super) fn name(&self) -> String {
        key_name(&self.table)
    }

    pub(super) fn index(&self) -> i32 {
        self.relation.saturating_add(INDEX)
    }

    pub(super) fn constraint(&self) -> i32 {
        self.relation.saturating_add(CONSTRAINT)
    }

    fn columns_text(&self) -> String {
        self.columns.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", ")
    }

    fn constraint_definition(&self) -> String {
        format!("PRIMARY KEY ({})", self.columns_text())
    }

    fn index_definition(&self) -> String {
        let (name, table) = (quoted(&self.name()), quoted(&self.table));
        format!("CREATE UNIQUE INDEX {name} ON {PUBLIC}.{table} USING btree ({})", self.columns_text())
    }
}

/// The name of the constraint and index of a table's primary key.
pub(super) fn key_name(table: &str) -> String {
    format!("{table}_pkey")
}

/// A name as it stands in SQL.
fn quoted(name: &str) -> String {
    let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    match plain && !name.starts_with(|c: char| c.is_ascii_digit()) && !name.is_empty() {
        true => name.to_string(),
        false => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

/// What was read last.
#[derive(Debug, Default)]
pub(super) struct Known {
    keys: RwLock<HashMap<i32, Arc<Key>>>,
    /// The queries of views.
    views: RwLock<HashMap<i32, String>>,
}

impl Known {
    pub(super) fn note(&self, keys: &[Arc<Key>], views: HashMap<i32, String>) {
        *self.keys.write() = keys.iter().flat_map(|key| [(key.index(), Arc::clone(key)), (key.constraint(), Arc::clone(key))]).collect();
        *self.views.write() = views;
    }

    fn key(&self, arguments: &[Option<&str>]) -> Option<Arc<Key>> {
        self.keys.read().get(&number(arguments)?).cloned()
    }

    /// `pg_get_indexdef(index [, column, pretty])`: the whole, or the name of one of its columns.
    pub(super) fn index_definition(&self, arguments: &[Option<&str>]) -> ScalarValue {
        let column = arguments.get(1).copied().flatten().and_then(|text| text.parse::<usize>().ok()).unwrap_or(0);
        ScalarValue::Utf8(self.key(arguments).and_then(|key| match column {
            0 => Some(key.index_definition()),
            column => key.columns.get(column - 1).map(|column| quoted(column)),
        }))
    }

    /// `pg_get_constraintdef(constraint [, pretty])`.
    pub(super) fn constraint_definition(&self, arguments: &[Option<&str>]) -> ScalarValue {
        ScalarValue::Utf8(self.key(arguments).map(|key| key.constraint_definition()))
    }

    /// `pg_get_viewdef(view [, pretty])`.
    pub(super) fn view_definition(&self, arguments: &[Option<&str>]) -> ScalarValue {
        ScalarValue::Utf8(number(arguments).and_then(|view| self.views.read().get(&view).cloned()))
    }
}

fn number(arguments: &[Option<&str>]) -> Option<i32> {
    arguments.first().copied().flatten()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_those_of_postgresql() {
        let known = Known::default();
        let columns = vec!["b".to_string(), "A b".to_string()];
        let key = Key { relation: 16_400, namespace: 2_200, table: "pairs".into(), columns, places: vec![2, 1] };
        let (index, constraint) = (key.index().to_string(), key.constraint().to_string());
        known.note(&[Arc::new(key)], HashMap::from([(7, "SELECT 1".to_string())]));
        let text = |value: ScalarValue| match value {
            ScalarValue::Utf8(text) => text,
            other => panic!("{other:?}"),
        };
        let whole = "CREATE UNIQUE INDEX pairs_pkey ON public.pairs USING btree (b, \"A b\")";
        assert_eq!(text(known.index_definition(&[Some(&index)])).as_deref(), Some(whole));
        assert_eq!(text(known.index_definition(&[Some(&index), Some("2"), Some("false")])).as_deref(), Some("\"A b\""));
        assert_eq!(text(known.index_definition(&[Some(&index), Some("3"), None])), None);
        assert_eq!(text(known.constraint_definition(&[Some(&constraint)])).as_deref(), Some("PRIMARY KEY (b, \"A b\")"));
        assert_eq!(text(known.constraint_definition(&[None])), None);
        assert_eq!(text(known.view_definition(&[Some("7"), Some("true")])).as_deref(), Some("SELECT 1"));
    }
}
