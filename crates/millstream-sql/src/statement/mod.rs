//! The statements, one struct each.
//!
//! Names stay [`ObjectName`]s and types stay sqlparser's [`DataType`]s: what they mean is the catalog's business. Queries are
//! plain sqlparser queries, not yet rewritten (see [`crate::rewrite`]). Option keys are lower case, option values are text.
//!
//! `Display` writes the canonical form: keywords in capitals, unquoted words in lower case, one space, no comments. It parses
//! to the same statement again, so two texts mean the same statement when their canonical texts are equal.

mod access;
mod display;

use std::time::Duration;

use datafusion::sql::parser::{CopyToSource, CopyToStatement, CreateExternalTable as DfCreateExternalTable, Statement as DfStatement};
use sqlparser::ast::{self, DataType, Expr, Ident, ObjectName, OrderByExpr, Query, Value};

use crate::tokens::asof_join::spelled;

pub use access::{AlterUser, CreateUser, DropUser, Grant, GrantOn, HIDDEN, Password, PasswordChange, UserOptions};

/// `key = value` pairs of `WITH (...)` in the order written; keys in lower case.
pub type OptionList = Vec<(String, String)>;

/// One parsed statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// `CREATE STREAM`.
    CreateStream(CreateStream),
    /// `CREATE TABLE`.
    CreateTable(CreateTable),
    /// `CREATE EXTERNAL TABLE`: a table at rest.
    CreateExternalTable(CreateExternalTable),
    /// `CREATE VIEW`.
    CreateView(CreateView),
    /// `CREATE MATERIALIZED VIEW`.
    CreateMaterializedView(CreateMaterializedView),
    /// `CREATE SINK`.
    CreateSink(CreateSink),
    /// `CREATE FUNCTION`: a macro over an expression.
    CreateFunction(CreateFunction),
    /// `INSERT INTO`.
    InsertInto(InsertInto),
    /// `UPDATE`.
    Update(Box<ast::Statement>),
    /// `DELETE`.
    Delete(Box<ast::Statement>),
    /// `TRUNCATE`.
    Truncate(Box<ast::Statement>),
    /// `DROP`.
    Drop(Drop),
    /// `SHOW`.
    Show(Show),
    /// `DESCRIBE x`.
    Describe(ObjectName),
    /// `SHOW CREATE x`.
    ShowCreate(ObjectName),
    /// `SET name = value`.
    Set(Set),
    /// `RESET name`, or all options of the session.
    Reset(Option<String>),
    /// `EXPLAIN`.
    Explain(Explain),
    /// `SELECT` and everything else that is a query.
    Query(QueryStatement),
    /// `SUBSCRIBE`.
    Subscribe(Subscribe),
    /// `COPY .. TO`.
    Copy(Copy),
    /// `COPY .. FROM STDIN`.
    CopyFrom(CopyFrom),
    /// `DECLARE name CURSOR FOR ..`.
    DeclareCursor(DeclareCursor),
    /// `FETCH n FROM name`, `MOVE n FROM name`.
    Fetch(Fetch),
    /// `CLOSE name`, or all cursors.
    CloseCursor(Option<Ident>),
    /// `CHECKPOINT`.
    Checkpoint,
    /// `START | STOP | PAUSE | RESUME PIPELINE`.
    Pipeline(PipelineAction),
    /// `ALTER`.
    Alter(Alter),
    /// `REFRESH TABLE x`.
    RefreshTable(ObjectName),
    /// `CANCEL QUERY id`.
    CancelQuery(String),
    /// `CREATE USER`.
    CreateUser(CreateUser),
    /// `ALTER USER`.
    AlterUser(AlterUser),
    /// `DROP USER`.
    DropUser(DropUser),
    /// `GRANT` and `REVOKE`.
    Grant(Grant),
    /// `PREPARE`.
    Prepare(Prepare),
    /// `EXECUTE`.
    Execute(Box<ast::Statement>),
    /// `DEALLOCATE`.
    Deallocate(Box<ast::Statement>),
    /// `BEGIN`, `START TRANSACTION`.
    Begin,
    /// `COMMIT`, `END`.
    Commit,
    /// `ROLLBACK`, `ABORT`.
    Rollback,
    /// Everything else DataFusion's parser knows.
    Other(Box<DfStatement>),
}

impl Statement {
    /// The canonical text; equal for statements that differ in white space, comments and capitals alone.
    pub fn canonical_text(&self) -> String {
        spelled(self.to_string())
    }

    /// The query inside, if the statement has exactly one.
    pub fn query(&self) -> Option<&Query> {
        match self {
            Statement::CreateStream(stream) => stream.as_select.as_deref(),
            Statement::CreateTable(table) => table.as_select.as_deref(),
            Statement::CreateView(view) => Some(&view.query),
            Statement::CreateMaterializedView(view) => Some(&view.query),
            Statement::CreateSink(CreateSink { source: Some(SinkSource::Query { query, .. }), .. }) => Some(query),
            Statement::InsertInto(insert) => Some(&insert.source),
            Statement::Query(query) => Some(&query.query),
            Statement::Subscribe(Subscribe { source: SubscribeSource::Query(query), .. }) => Some(query),
            Statement::Explain(explain) => explain.statement.query(),
            Statement::DeclareCursor(declare) => declare.statement.query(),
            _ => None,
        }
    }

    /// [`Statement::query`], to be changed in place, for example by [`crate::rewrite_query`].
    pub fn query_mut(&mut self) -> Option<&mut Query> {
        match self {
            Statement::CreateStream(stream) => stream.as_select.as_deref_mut(),
            Statement::CreateTable(table) => table.as_select.as_deref_mut(),
            Statement::CreateView(view) => Some(&mut view.query),
            Statement::CreateMaterializedView(view) => Some(&mut view.query),
            Statement::CreateSink(CreateSink { source: Some(SinkSource::Query { query, .. }), .. }) => Some(query),
            Statement::InsertInto(insert) => Some(&mut insert.source),
            Statement::Query(query) => Some(&mut query.query),
            Statement::Subscribe(Subscribe { source: SubscribeSource::Query(query), .. }) => Some(query),
            Statement::Explain(explain) => explain.statement.query_mut(),
            Statement::DeclareCursor(declare) => declare.statement.query_mut(),
            _ => None,
        }
    }

    /// The options of the statement's `WITH` clause, to be changed in place, for example by
    /// [`crate::variables::expand_options`].
    pub fn options_mut(&mut self) -> Option<&mut OptionList> {
        match self {
            Statement::CreateStream(stream) => Some(&mut stream.options),
            Statement::CreateTable(table) => Some(&mut table.options),
            Statement::CreateExternalTable(table) => Some(&mut table.options),
            Statement::CreateMaterializedView(view) => Some(&mut view.options),
            Statement::CreateSink(sink) => Some(&mut sink.options),
            Statement::Alter(Alter { action: AlterAction::Set(options), .. }) => Some(options),
            Statement::Explain(explain) => explain.statement.options_mut(),
            _ => None,
        }
    }
}

/// A column of a stream, a table or a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnDef {
    /// The column's name.
    pub name: Ident,
    /// The declared type; a computed column may do without.
    pub data_type: Option<DataType>,
    /// `NOT NULL` was given.
    pub not_null: bool,
    /// Where the values come from.
    pub kind: ColumnKind,
}

/// Where the values of a column come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// From the row itself.
    Physical,
    /// `AS expr`.
    Computed(Box<Expr>),
    /// `METADATA [FROM 'key']`: what the connector knows about the row. Without a key the column's name.
    Metadata(String),
}

/// `WATERMARK FOR column AS column - delay`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// The event-time column.
    pub column: Ident,
    /// How late rows may be.
    pub delay: Duration,
}

/// `CREATE STREAM`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateStream {
    /// `OR REPLACE` was given.
    pub or_replace: bool,
    /// `IF NOT EXISTS` was given.
    pub if_not_exists: bool,
    /// The stream's name.
    pub name: ObjectName,
    /// The columns; empty when the schema is inferred.
    pub columns: Vec<ColumnDef>,
    /// Event time.
    pub watermark: Option<Watermark>,
    /// The key; a stream with a key is an upsert stream. Empty without.
    pub primary_key: Vec<Ident>,
    /// `APPEND ONLY` was given.
    pub append_only: bool,
    /// The connector's options.
    pub options: OptionList,
    /// The query of a derived stream.
    pub as_select: Option<Box<Query>>,
}

/// `CREATE TABLE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateTable {
    /// `OR REPLACE` was given.
    pub or_replace: bool,
    /// `IF NOT EXISTS` was given.
    pub if_not_exists: bool,
    /// The table's name.
    pub name: ObjectName,
    /// The columns; empty with `AS SELECT` alone.
    pub columns: Vec<ColumnDef>,
    /// The key; empty without.
    pub primary_key: Vec<Ident>,
    /// Options other than `connector`, which makes a stream.
    pub options: OptionList,
    /// `AS SELECT`: one snapshot.
    pub as_select: Option<Box<Query>>,
}

/// `CREATE EXTERNAL TABLE`: DataFusion's statement, and its options as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateExternalTable {
    /// The statement as DataFusion takes it.
    pub definition: DfCreateExternalTable,
    /// The options with lower-case keys; the same as in `definition`.
    pub options: OptionList,
}

/// `CREATE VIEW`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateView {
    /// `OR REPLACE` was given.
    pub or_replace: bool,
    /// `IF NOT EXISTS` was given.
    pub if_not_exists: bool,
    /// The view's name.
    pub name: ObjectName,
    /// New names of the columns, or none.
    pub columns: Vec<Ident>,
    /// The query.
    pub query: Box<Query>,
}

/// `CREATE MATERIALIZED VIEW`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateMaterializedView {
    /// `OR REPLACE` was given.
    pub or_replace: bool,
    /// `IF NOT EXISTS` was given.
    pub if_not_exists: bool,
    /// The view's name.
    pub name: ObjectName,
    /// New names of the columns, or none.
    pub columns: Vec<Ident>,
    /// The options of `WITH (...)`.
    pub options: OptionList,
    /// The query.
    pub query: Box<Query>,
    /// When rows appear.
    pub emit: Emit,
}

/// `CREATE SINK`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateSink {
    /// `OR REPLACE` was given.
    pub or_replace: bool,
    /// `IF NOT EXISTS` was given.
    pub if_not_exists: bool,
    /// The sink's name.
    pub name: ObjectName,
    /// The columns; empty when they follow from the source.
    pub columns: Vec<ColumnDef>,
    /// The key of an upsert sink; empty without.
    pub primary_key: Vec<Ident>,
    /// The columns files are laid out by.
    pub partition_by: Vec<Ident>,
    /// The order of rows within a file.
    pub order_by: Vec<OrderByExpr>,
    /// What is written; without, `INSERT INTO` attaches queries.
    pub source: Option<SinkSource>,
    /// The connector's options.
    pub options: OptionList,
}

/// What a sink writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkSource {
    /// `FROM name`.
    From {
        /// The view, table or stream.
        name: ObjectName,
        /// When rows appear.
        emit: Emit,
    },
    /// `AS query`.
    Query {
        /// The query.
        query: Box<Query>,
        /// When rows appear.
        emit: Emit,
    },
}

/// `CREATE FUNCTION f(a INT) RETURNS INT AS $$ a + 1 $$`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateFunction {
    /// `OR REPLACE` was given.
    pub or_replace: bool,
    /// `IF NOT EXISTS` was given.
    pub if_not_exists: bool,
    /// The function's name.
    pub name: ObjectName,
    /// Names and types of the arguments.
    pub arguments: Vec<(Ident, DataType)>,
    /// The type of the result.
    pub returns: DataType,
    /// The expression over the arguments.
    pub body: Box<Expr>,
}

/// `INSERT INTO target [AS name] [(columns)] query [EMIT ..]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InsertInto {
    /// The sink, table or stream.
    pub target: ObjectName,
    /// The name of the continuous query that a sink gets.
    pub query_name: Option<Ident>,
    /// The columns; empty for all.
    pub columns: Vec<Ident>,
    /// The query, or `VALUES`.
    pub source: Box<Query>,
    /// When rows appear.
    pub emit: Emit,
}

impl InsertInto {
    /// True if the rows are given in the statement: `VALUES (..)`.
    pub fn is_values(&self) -> bool {
        self.source.with.is_none() && matches!(*self.source.body, ast::SetExpr::Values(_))
    }
}

/// When the rows of a continuous query appear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Emit {
    /// Nothing was said.
    #[default]
    None,
    /// `ON WINDOW CLOSE`: once, when they are final.
    OnWindowClose,
    /// `CHANGES`: every change.
    Changes {
        /// Stop after so many rows.
        limit: Option<u64>,
    },
    /// `PERIODIC INTERVAL '..'`: changes, consolidated, at most that often.
    Periodic(Duration),
}

/// A query on its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryStatement {
    /// The query.
    pub query: Box<Query>,
    /// When rows appear; [`Emit::None`] is a snapshot.
    pub emit: Emit,
}

/// The kinds of objects a statement names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    /// A stream.
    Stream,
    /// A table.
    Table,
    /// A view that is not kept.
    View,
    /// A view that is kept.
    MaterializedView,
    /// A sink.
    Sink,
    /// A query attached to a sink.
    Query,
    /// A function.
    Function,
    /// The pipeline itself.
    Pipeline,
}

impl ObjectKind {
    /// The keywords: `MATERIALIZED VIEW`.
    pub fn sql(self) -> &'static str {
        match self {
            ObjectKind::Stream => "STREAM",
            ObjectKind::Table => "TABLE",
            ObjectKind::View => "VIEW",
            ObjectKind::MaterializedView => "MATERIALIZED VIEW",
            ObjectKind::Sink => "SINK",
            ObjectKind::Query => "QUERY",
            ObjectKind::Function => "FUNCTION",
            ObjectKind::Pipeline => "PIPELINE",
        }
    }
}

/// `DROP kind [IF EXISTS] names [CASCADE]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drop {
    /// The kind of the objects.
    pub kind: ObjectKind,
    /// `IF EXISTS` was given.
    pub if_exists: bool,
    /// The objects.
    pub names: Vec<ObjectName>,
    /// `CASCADE` was given.
    pub cascade: bool,
}

/// `SHOW what [LIKE pattern]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Show {
    /// What to show.
    pub what: ShowWhat,
    /// Only names that match.
    pub like: Option<String>,
}

/// What `SHOW` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShowWhat {
    /// All streams.
    Streams,
    /// All tables.
    Tables,
    /// All views, kept or not.
    Views,
    /// All views that are kept.
    MaterializedViews,
    /// All sinks.
    Sinks,
    /// All running queries.
    Queries,
    /// All functions.
    Functions,
    /// All connectors.
    Connectors,
    /// All users.
    Users,
    /// What users may do; of one user.
    Grants(Option<Ident>),
    /// Every option with its value.
    All,
    /// The columns of a relation.
    Columns(ObjectName),
    /// One option.
    Variable(String),
}

/// `SET name = value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// The option, in lower case; dots included.
    pub name: String,
    /// The value as text; a list is joined by `, `.
    pub value: String,
}

/// What `EXPLAIN` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExplainMode {
    /// The plan.
    Logical,
    /// How the query is maintained: strategies, state, bounds.
    Incremental,
    /// The plan with what happened when it ran.
    Analyze,
    /// The plan after every step.
    Verbose,
}

/// `EXPLAIN [INCREMENTAL | ANALYZE | VERBOSE] statement`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explain {
    /// What to tell.
    pub mode: ExplainMode,
    /// What is explained; its `EMIT` is in it.
    pub statement: Box<Statement>,
}

/// `SUBSCRIBE [TO] source [WITH (..)] [AS OF EPOCH n] [UP TO EPOCH n]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// What is followed.
    pub source: SubscribeSource,
    /// Begin with the present rows; on unless switched off.
    pub snapshot: bool,
    /// Add a row for every epoch, also where nothing changed.
    pub progress: bool,
    /// Begin after this epoch.
    pub as_of: Option<u64>,
    /// End with this epoch.
    pub up_to: Option<u64>,
}

/// What a subscription follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubscribeSource {
    /// A view, a table or a stream.
    Name(ObjectName),
    /// A query.
    Query(Box<Query>),
}

/// `COPY source TO target`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// The rows.
    pub source: CopySource,
    /// Where they go.
    pub target: CopyTarget,
    /// The format, in capitals: `PARQUET`.
    pub format: Option<String>,
    /// The columns files are laid out by.
    pub partitioned_by: Vec<String>,
    /// Options of the format; keys in lower case.
    pub options: OptionList,
}

impl Copy {
    /// DataFusion's statement for a copy of a table or a query to a file.
    pub fn to_datafusion(&self) -> Option<CopyToStatement> {
        let source = match &self.source {
            CopySource::Relation(name) => CopyToSource::Relation(name.clone()),
            CopySource::Query(query) => CopyToSource::Query(query.clone()),
            CopySource::Subscribe(_) => return None,
        };
        let CopyTarget::File(target) = &self.target else { return None };
        Some(CopyToStatement {
            source,
            target: target.clone(),
            partitioned_by: self.partitioned_by.clone(),
            stored_as: self.format.clone(),
            options: self.options.iter().map(|(key, value)| (key.clone(), Value::SingleQuotedString(value.clone()))).collect(),
        })
    }
}

/// What is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopySource {
    /// A table, view or stream.
    Relation(ObjectName),
    /// A query.
    Query(Box<Query>),
    /// The changes of a subscription.
    Subscribe(Subscribe),
}

/// Where a copy goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyTarget {
    /// A file or a directory.
    File(String),
    /// The client.
    Stdout,
}

/// `COPY target [(columns)] FROM STDIN [WITH (options)]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyFrom {
    /// The table or stream.
    pub target: ObjectName,
    /// The columns that rows have; empty for all.
    pub columns: Vec<Ident>,
    /// Options of the format; keys in lower case, `format` among them.
    pub options: OptionList,
}

/// `DECLARE name CURSOR FOR query | SUBSCRIBE ..`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclareCursor {
    /// The cursor's name.
    pub name: Ident,
    /// It outlives the transaction (`WITH HOLD`).
    pub hold: bool,
    /// A query or a subscription.
    pub statement: Box<Statement>,
}

/// `FETCH | MOVE [FORWARD] n | ALL FROM name [WITH (timeout = '1s')]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// The cursor's name.
    pub cursor: Ident,
    /// Rows at most; `None` for all that are left (of a subscription: all that are there).
    pub count: Option<u64>,
    /// How long to wait for the rows of a subscription.
    pub timeout: Option<Duration>,
    /// The rows are passed over, and not given (`MOVE`).
    pub moves: bool,
}

/// `PREPARE name AS statement`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepare {
    /// The name.
    pub name: Ident,
    /// What EXECUTE carries out, with its parameters.
    pub statement: Box<Statement>,
}

/// What happens to the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PipelineAction {
    /// Begin to run epochs.
    Start,
    /// Finish the running epoch and stop.
    Stop,
    /// Take no new input.
    Pause,
    /// Take input again.
    Resume,
}

/// `ALTER kind name action`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alter {
    /// The kind of the object.
    pub kind: ObjectKind,
    /// The object; `None` for the pipeline.
    pub name: Option<ObjectName>,
    /// What happens to it.
    pub action: AlterAction,
}

/// What `ALTER` does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlterAction {
    /// `PAUSE`.
    Pause,
    /// `RESUME`.
    Resume,
    /// `SET (key = value, ...)`.
    Set(OptionList),
    /// `RESET (key, ...)`.
    Reset(Vec<String>),
    /// `RENAME TO name`.
    Rename(ObjectName),
}
