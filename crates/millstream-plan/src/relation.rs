//! What the planner asks the catalog about the relations of a query.

use crate::bound::Bound;
use arrow::datatypes::SchemaRef;
use datafusion::common::TableReference;
use std::collections::HashMap;
use std::sync::Arc;

/// What kind of relation a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RelationKind {
    /// Rows arrive from a source.
    Stream,
    /// Rows are inserted, updated and deleted by statements.
    Table,
    /// A materialized view: its changes come from another query.
    View,
    /// Does not change while the query runs.
    AtRest,
    /// The working table of a recursive query.
    Work,
}

/// A relation of the catalog.
#[derive(Clone, Debug)]
pub struct Relation {
    /// Its name in the catalog.
    pub name: String,
    /// What it is.
    pub kind: RelationKind,
    /// No row is ever taken back.
    pub append_only: bool,
    /// All columns, hidden ones included.
    pub schema: SchemaRef,
    /// The column that the stream's watermark bounds.
    pub event_time: Option<String>,
    /// Columns that hold the clock of a row's epoch: `PROCTIME()` columns and `_epoch_time`.
    pub clock_columns: Vec<String>,
    /// The column that holds the epoch of a row.
    pub epoch_column: Option<String>,
    /// Sets of columns whose values identify a row.
    pub keys: Vec<Vec<String>>,
    /// Bounds of a materialized view's columns, from the properties of its query's output.
    pub column_bounds: HashMap<String, Arc<Bound>>,
    /// The scan looks rows up in it as of the epoch before: `FOR SYSTEM_TIME AS OF PROCTIME()`.
    pub lookup: bool,
    /// The relation is the changes of this stream, whose watermark bounds their event time: `FOR SYSTEM_TIME AS OF s.ts`.
    pub versions_of: Option<String>,
}

impl Relation {
    /// A relation without event time, ingest columns and keys.
    pub fn new(name: impl Into<String>, kind: RelationKind, schema: SchemaRef) -> Self {
        Self {
            name: name.into(),
            kind,
            append_only: matches!(kind, RelationKind::Stream | RelationKind::AtRest),
            schema,
            event_time: None,
            clock_columns: vec![],
            epoch_column: None,
            keys: vec![],
            column_bounds: HashMap::new(),
            lookup: false,
            versions_of: None,
        }
    }
}

/// The catalog as the planner sees it.
pub trait Relations {
    /// The relation that a scan of `table` reads.
    fn relation(&self, table: &TableReference) -> Option<Relation>;
}
