//! What a catalog holds: streams, tables, views, sinks, each with the statement that made it.

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use millstream_connectors::sink::SinkMode;
pub use millstream_sql::rewrite::{DELETED_COLUMN, POSITION_COLUMN};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Hidden column of every stream: the epoch that brought the row (Int64).
pub const EPOCH_COLUMN: &str = "_epoch";
/// Hidden column of every stream: the epoch clock when the row came (Timestamp µs).
pub const EPOCH_TIME_COLUMN: &str = "_epoch_time";

/// An object of the catalog.
#[derive(Debug, Clone)]
pub struct Object {
    /// Its name, folded unless it was quoted.
    pub name: String,
    /// The statement that made it, in canonical form: equal text means equal definition.
    pub sql: String,
    /// What it is.
    pub kind: ObjectKind,
}

/// What an object is.
#[derive(Debug, Clone)]
pub enum ObjectKind {
    /// An unbounded relation fed by one source.
    Stream(Arc<StreamDef>),
    /// Rows inserted by hand, maintained like a stream with retractions.
    Table(Arc<TableDef>),
    /// Files at rest, read through DataFusion.
    ExternalTable(Arc<ExternalTableDef>),
    /// A named query.
    View(Arc<ViewDef>),
    /// A maintained, queryable query.
    MaterializedView(Arc<QueryDef>),
    /// Where a query's changes go.
    Sink(Arc<SinkDef>),
}

impl Object {
    /// It comes from the program that embeds the engine, not from a statement.
    pub fn is_adopted(&self) -> bool {
        matches!(&self.kind, ObjectKind::ExternalTable(def) if def.adopted)
    }
}

impl ObjectKind {
    /// The word for it in messages and DROP.
    pub fn word(&self) -> &'static str {
        match self {
            ObjectKind::Stream(_) => "stream",
            ObjectKind::Table(_) | ObjectKind::ExternalTable(_) => "table",
            ObjectKind::View(_) => "view",
            ObjectKind::MaterializedView(_) => "materialized view",
            ObjectKind::Sink(_) => "sink",
        }
    }
}

/// Where a stream's column comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum ColumnOrigin {
    /// Decoded from the input.
    Physical,
    /// A deterministic expression over the other columns.
    Computed(Box<sqlparser::ast::Expr>),
    /// `PROCTIME()`: the epoch clock at arrival.
    Proctime,
    /// Told by the connector, under this key.
    Metadata(String),
}

/// A column of a stream.
#[derive(Debug, Clone)]
pub struct StreamColumn {
    /// Name, type and nullability.
    pub field: Field,
    /// Where it comes from.
    pub origin: ColumnOrigin,
}

/// How a changelog stream's rows change the relation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamShape {
    /// Every row is added.
    Append,
    /// The last row per key counts; with `op_column`, deletes are told by it.
    Upsert {
        /// Key columns.
        key: Vec<String>,
        /// Name of the op field in the input.
        op_column: Option<String>,
    },
    /// Full rows are added and taken away, as the op field says.
    Bag {
        /// Name of the op field in the input.
        op_column: String,
        /// Keep row weights and refuse to take away what is not there.
        verify: bool,
    },
}

/// What happens to rows that do not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowPolicy {
    /// Counted and dropped.
    Skip,
    /// Counted and kept for `millstream.dead_letters`.
    DeadLetter,
    /// The pipeline stops.
    Fail,
    /// (future rows only) The row counts, the watermark does not move.
    Flow,
}

/// Options of a stream that the engine reads itself; the rest belongs to the connector.
#[derive(Debug, Clone)]
pub struct StreamOptions {
    /// Rows that cannot be decoded.
    pub on_error: RowPolicy,
    /// Columns that no query reads are decoded and judged as well.
    pub validate_all: bool,
    /// Bad rows that stop the pipeline, per epoch: a fixed number, or 1 % but at least 100.
    pub max_bad_rows: Option<u64>,
    /// Rows below the watermark.
    pub on_late: RowPolicy,
    /// How far after the epoch clock an event time may lie; `None` does not look.
    pub max_future: Option<Duration>,
    /// Rows that lie further.
    pub on_future: RowPolicy,
    /// After this long without rows a partition no longer holds the watermark back.
    pub idle_timeout: Option<Duration>,
    /// Bounds of an epoch.
    pub max_rows_per_epoch: Option<u64>,
    /// Bounds of an epoch.
    pub max_bytes_per_epoch: u64,
    /// Bounds of an epoch.
    pub max_files_per_epoch: u64,
    /// Rate limit.
    pub max_rows_per_second: Option<u64>,
    /// Rows are taken as fast as they are processed; `None`: as the pipeline's setting says.
    pub backpressure: Option<bool>,
    /// Bytes of accepted rows that are kept of a source that cannot replay.
    pub retention_bytes: u64,
    /// Age up to which they are kept.
    pub retention_time: Duration,
}

/// A stream.
#[derive(Debug, Clone)]
pub struct StreamDef {
    /// Its name.
    pub name: String,
    /// Its columns, as declared.
    pub columns: Vec<StreamColumn>,
    /// The event-time column and the delay of its watermark.
    pub watermark: Option<(String, Duration)>,
    /// How rows change the relation.
    pub shape: StreamShape,
    /// Connector name.
    pub connector: String,
    /// Options for the connector.
    pub connector_options: BTreeMap<String, String>,
    /// Options for the engine.
    pub options: StreamOptions,
    /// For a derived stream: the source query (projection, filter, UNNEST over one stream) that runs at the edge.
    pub derived: Option<Arc<DerivedDef>>,
}

/// A derived stream's definition.
#[derive(Debug, Clone)]
pub struct DerivedDef {
    /// The stream it reads.
    pub base: String,
    /// The query, rewritten.
    pub query: Box<sqlparser::ast::Query>,
}

/// What a query sees of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// The declared columns.
    Declared,
    /// The hidden ingest columns, too.
    WithHidden,
    /// The changes of a stream with PRIMARY KEY, each of which makes or ends a version.
    Versions,
}

impl StreamDef {
    /// The columns that a query sees.
    pub fn shown(&self, shown: Shown) -> SchemaRef {
        match shown {
            Shown::Declared => self.schema(),
            Shown::WithHidden => self.schema_with_hidden(),
            Shown::Versions => self.versions_schema(),
        }
    }

    /// The columns of its changes: those of its rows, the place of a change within its epoch, and whether it is a deletion.
    pub fn versions_schema(&self) -> SchemaRef {
        let mut fields: Vec<Field> = self.schema_with_hidden().fields().iter().map(|field| field.as_ref().clone()).collect();
        fields.extend(version_fields());
        Arc::new(Schema::new(fields))
    }

    /// The columns users see.
    pub fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.columns.iter().map(|column| column.field.clone()).collect::<Vec<_>>()))
    }

    /// The columns with the hidden ingest columns after them.
    pub fn schema_with_hidden(&self) -> SchemaRef {
        let mut fields: Vec<Field> = self.columns.iter().map(|column| column.field.clone()).collect();
        fields.extend(ingest_fields());
        Arc::new(Schema::new(fields))
    }

    /// Names of the columns that carry the epoch clock.
    pub fn clock_columns(&self) -> Vec<String> {
        let proctime = self.columns.iter().filter(|column| column.origin == ColumnOrigin::Proctime);
        proctime.map(|column| column.field.name().clone()).chain([EPOCH_TIME_COLUMN.to_string()]).collect()
    }
}

/// The hidden columns of every stream.
pub fn ingest_fields() -> [Field; 2] {
    [
        Field::new(EPOCH_COLUMN, DataType::Int64, false),
        Field::new(EPOCH_TIME_COLUMN, DataType::Timestamp(TimeUnit::Microsecond, None), false),
    ]
}

/// The further hidden columns of changes.
pub fn version_fields() -> [Field; 2] {
    [Field::new(POSITION_COLUMN, DataType::Int64, false), Field::new(DELETED_COLUMN, DataType::Boolean, false)]
}

/// How the name of the relation of a stream's changes begins, in plans and in the input of epochs.
const VERSIONS_OF: &str = "versions of ";

/// The name of the relation of a stream's changes. No object of the catalog is called like this.
pub fn versions_of(stream: &str) -> String {
    format!("{VERSIONS_OF}{stream}")
}

/// The stream whose changes a relation is.
pub fn versioned_stream(relation: &str) -> Option<&str> {
    relation.strip_prefix(VERSIONS_OF)
}

/// The stream whose rows or changes a relation is, by name.
pub fn stream_of(relation: &str) -> &str {
    versioned_stream(relation).unwrap_or(relation)
}

/// A table of inserted rows.
#[derive(Debug, Clone)]
pub struct TableDef {
    /// Its name.
    pub name: String,
    /// Its columns.
    pub schema: SchemaRef,
    /// Key columns; empty for none.
    pub key: Vec<String>,
}

/// When a continuous query sees another content of an at-rest table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// After `REFRESH TABLE`.
    Static,
    /// At the first epoch after this time.
    Interval(Duration),
    /// At each epoch.
    EveryEpoch,
    /// Differences are changes that correct earlier results.
    Track,
}

/// Files at rest.
#[derive(Debug, Clone)]
pub struct ExternalTableDef {
    /// Its name.
    pub name: String,
    /// Its columns.
    pub schema: SchemaRef,
    /// When continuous queries see another content.
    pub refresh: Refresh,
    /// It comes from the DataFusion session that the engine was built over, with every start; no statement made it.
    pub adopted: bool,
    /// The DataFusion provider.
    pub provider: Arc<dyn datafusion::catalog::TableProvider>,
}

/// A lazy view.
#[derive(Debug, Clone)]
pub struct ViewDef {
    /// Its name.
    pub name: String,
    /// Column names given in the definition.
    pub columns: Vec<String>,
    /// The query, as written.
    pub query: Box<sqlparser::ast::Query>,
}

/// A continuous query.
#[derive(Debug, Clone)]
pub struct QueryDef {
    /// Name of its materialized view, or of the query into a sink.
    pub name: String,
    /// Column names given in the definition.
    pub columns: Vec<String>,
    /// The query, as written.
    pub query: Box<sqlparser::ast::Query>,
    /// What its statement asks for beside the query.
    pub form: QueryForm,
    /// Hold changes and emit them at most that often.
    pub period: Option<Duration>,
    /// `backfill` option.
    pub backfill: Backfill,
    /// Epochs whose changes are kept for subscriptions that begin in the past.
    pub history: u64,
    /// Output columns.
    pub schema: SchemaRef,
    /// The `INSERT INTO` that attached it to its sink, in canonical form.
    pub insert_sql: Option<String>,
}

/// What a statement asks for beside its query.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueryForm {
    /// Emit only rows that can no longer change.
    pub on_close: bool,
    /// How long a group stays that nothing touches, by the epoch clock.
    pub state_ttl: Option<Duration>,
}

/// Which rows from before its creation a query counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backfill {
    /// All accepted rows; refused when the source cannot give them any more.
    All,
    /// What is still retained.
    Retained,
    /// None.
    None,
}

/// A sink.
#[derive(Debug, Clone)]
pub struct SinkDef {
    /// Its name.
    pub name: String,
    /// Connector name.
    pub connector: String,
    /// What it does with changes.
    pub mode: SinkMode,
    /// How long its queries keep groups that nothing touches.
    pub state_ttl: Option<Duration>,
    /// Options for the connector.
    pub options: BTreeMap<String, String>,
    /// Columns of a PARTITIONED BY clause.
    pub partition_by: Vec<String>,
    /// Columns of an ORDER BY clause: (name, descending).
    pub order_by: Vec<(String, bool)>,
    /// Columns of a PRIMARY KEY clause.
    pub key: Vec<String>,
    /// Declared columns, if any.
    pub columns: Vec<String>,
    /// The queries that feed it.
    pub queries: Vec<Arc<QueryDef>>,
}
