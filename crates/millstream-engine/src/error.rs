//! The engine's error: whatever went wrong below it, with what to do and where it stands in the statement.

use datafusion::error::DataFusionError;
use millstream_connectors::ConnectorError;
use millstream_dataflow::DataflowError;
use millstream_plan::PlanError;
use millstream_sql::{Position, SqlError, sql_types};
use millstream_state::StateError;
use millstream_types::{Classified, ErrorKind, OptionError};
use std::sync::Arc;

/// The result type of this crate.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;

/// What can go wrong in the engine. Cheap to clone, because every waiter of a stopped pipeline gets the error that stopped it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// The statement does not parse or uses something that is not supported.
    #[error("{0}")]
    Sql(Arc<SqlError>),
    /// The query cannot be maintained incrementally as asked.
    #[error("{}", sql_types(&.0.to_string()))]
    Plan(Arc<PlanError>),
    /// An operator failed.
    #[error("query \"{query}\" failed in epoch {epoch}: {}", sql_types(&source.to_string()))]
    Query {
        /// The query: name of its view or sink.
        query: String,
        /// The epoch that could not be processed.
        epoch: u64,
        /// The cause.
        source: Arc<DataflowError>,
    },
    /// An operator could not be built or restored.
    #[error("{}", sql_types(&.0.to_string()))]
    Dataflow(Arc<DataflowError>),
    /// A source or sink failed.
    #[error("{}", connector_message(owner, source))]
    Connector {
        /// `stream "s"` or `sink "k"`.
        owner: String,
        /// The cause.
        source: Arc<ConnectorError>,
    },
    /// The state directory failed.
    #[error("{0}")]
    State(Arc<StateError>),
    /// DataFusion failed while running a query; what it refuses to plan is [`Sql`](Self::Sql).
    #[error("{}", datafusion_message(.0))]
    DataFusion(Arc<DataFusionError>),
    /// An option is unknown, missing or out of range.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// A statement that parses but cannot be carried out.
    #[error("{message}")]
    Invalid {
        /// What is wrong and where.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The user may not do this.
    #[error("{message}")]
    Denied {
        /// Who may not do what.
        message: String,
        /// What would let them.
        hint: Option<String>,
    },
    /// A statement asks for more than its user may have.
    #[error("{message}")]
    Limit {
        /// What is too much.
        message: String,
        /// What to do.
        hint: String,
    },
    /// A row that a stream's policy does not let pass, or too many rows that could not be decoded.
    #[error("{message}")]
    BadRows {
        /// Stream, counts and the first reasons.
        message: String,
        /// What to do.
        hint: String,
    },
    /// What the state directory says cannot be.
    #[error("{0}")]
    Corrupt(String),
    /// The pipeline has stopped.
    #[error("the pipeline has stopped{}", .0.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default())]
    Stopped(Option<String>),
    /// A bug.
    #[error("internal error: {0}")]
    Internal(String),
}

impl EngineError {
    /// A statement that cannot be carried out; an empty hint is none.
    pub fn invalid(message: impl Into<String>, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        Self::Invalid { message: message.into(), hint: (!hint.is_empty()).then_some(hint) }
    }

    /// What the user of a session may not do; an empty hint is none.
    pub fn denied(message: impl Into<String>, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        Self::Denied { message: message.into(), hint: (!hint.is_empty()).then_some(hint) }
    }

    /// A connector's error, with the object it belongs to (`stream "s"`).
    pub fn connector(owner: impl Into<String>, source: ConnectorError) -> Self {
        match source {
            ConnectorError::Option(option) => Self::Option(option),
            ConnectorError::Refused { message, hint } => Self::denied(message, hint),
            source => Self::Connector { owner: owner.into(), source: Arc::new(source) },
        }
    }

    /// DataFusion's error about a query: with its place, where it is the query that is wrong.
    pub(crate) fn in_query(error: DataFusionError, query: &sqlparser::ast::Query) -> Self {
        let error = match own_error(error) {
            Ok(own) => return own.into(),
            Err(error) => error,
        };
        match SqlError::is_planner_error(&error) {
            true => SqlError::from_planner(&error, Some(query)).into(),
            false => Self::DataFusion(Arc::new(error)),
        }
    }

    /// As [`in_query`](Self::in_query), for an error of the incremental planner.
    pub(crate) fn in_plan(error: PlanError, query: &sqlparser::ast::Query) -> Self {
        match error {
            PlanError::Query(error) => Self::in_query(*error, query),
            PlanError::Lookup { ref relation, .. } => {
                let relation = relation.clone();
                Self::invalid(error.to_string(), error.hint().unwrap_or_default()).at_relation(query, &relation)
            }
            error => error.into(),
        }
    }

    /// The same error at the place where `query` names a relation.
    #[must_use]
    pub(crate) fn at_relation(self, query: &sqlparser::ast::Query, relation: &str) -> Self {
        match (&self, millstream_sql::place::place_of_relation(query, relation)) {
            (Self::Invalid { message, hint }, Some(span)) => {
                SqlError { message: message.clone(), hint: hint.clone(), start: None, end: None }.at(span).into()
            }
            _ => self,
        }
    }

    /// Line and column within the statement (from 1), where known.
    pub fn position(&self) -> Option<(u64, u64)> {
        match self {
            Self::Sql(error) => error.start.map(|start| (start.line, start.column)),
            _ => None,
        }
    }

    /// The error as a person reads it: message, place with a caret, hint. `source` is the statement's text, `first_line`
    /// the line of the file it starts on. Of a file (`source_name`), an error without a place of its own is shown at its statement.
    pub fn render(&self, source: &str, source_name: Option<&str>, first_line: u64) -> String {
        let mut message = self.to_string();
        // The message of these is their cause's own, whose causes come next.
        let mut cause = match self {
            Self::State(error) => std::error::Error::source(error.as_ref()),
            Self::Plan(error) => std::error::Error::source(error.as_ref()),
            Self::Dataflow(error) => std::error::Error::source(error.as_ref()),
            error => std::error::Error::source(error),
        };
        while let Some(error) = cause {
            let text = error.to_string();
            let text = sql_types(undecorated(&text));
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            cause = error.source();
        }
        let (start, end) = match self {
            Self::Sql(error) if error.start.is_some() => (error.start, error.end),
            _ => source_name.and_then(|_| first_line_of(source)).unzip(),
        };
        SqlError { message, hint: self.hint(), start, end }.render(source, source_name, first_line)
    }
}

/// Where the first line of a statement stands in it.
fn first_line_of(statement: &str) -> Option<(Position, Position)> {
    let (index, line) = statement.split('\n').enumerate().find(|(_, line)| !line.trim().is_empty())?;
    let blanks = line.chars().take_while(|c| c.is_whitespace()).count() as u64;
    let (line_number, length) = (index as u64 + 1, line.trim_end().chars().count() as u64);
    Some((Position { line: line_number, column: blanks + 1 }, Position { line: line_number, column: length + 1 }))
}

/// A connector's message with the object it belongs to, which it may name itself.
fn connector_message(owner: &str, source: &ConnectorError) -> String {
    let message = source.to_string();
    if message.contains(owner) { message } else { format!("{owner}: {message}") }
}

/// An error of ours that went through DataFusion's planner.
fn own_error(error: DataFusionError) -> std::result::Result<PlanError, DataFusionError> {
    // Others keep what is wrapped around them: it has their place.
    if !matches!(error.find_root(), DataFusionError::External(inner) if inner.is::<PlanError>()) {
        return Err(error);
    }
    match error {
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => own_error(*inner),
        DataFusionError::External(inner) => inner.downcast::<PlanError>().map(|own| *own).map_err(DataFusionError::External),
        other => Err(other),
    }
}

/// DataFusion's message without its decorations.
fn datafusion_message(error: &DataFusionError) -> String {
    sql_types(undecorated(&error.strip_backtrace()))
}

/// What a message says, without where in DataFusion it comes from.
fn undecorated(mut text: &str) -> &str {
    for prefix in [
        "Execution error: ",
        "External error: ",
        "Arrow error: ",
        "Invalid argument error: ",
        "Optimizer rule 'simplify_expressions' failed\ncaused by\n",
    ] {
        text = text.strip_prefix(prefix).unwrap_or(text);
    }
    text.split("\ncaused by\n").last().unwrap_or(text).trim_end_matches('.')
}

impl Classified for EngineError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Sql(_) | Self::Option(_) | Self::Invalid { .. } | Self::Denied { .. } | Self::Limit { .. } => ErrorKind::Invalid,
            Self::Plan(error) => error.kind(),
            Self::Query { source, .. } | Self::Dataflow(source) => source.kind(),
            Self::Connector { source, .. } => source.kind(),
            Self::State(error) => error.kind(),
            Self::DataFusion(error) => match error.find_root() {
                DataFusionError::Internal(_) => ErrorKind::Internal,
                DataFusionError::Execution(_) | DataFusionError::ArrowError(..) => ErrorKind::Data,
                _ => ErrorKind::Invalid,
            },
            Self::BadRows { .. } => ErrorKind::Data,
            Self::Corrupt(_) => ErrorKind::Corrupt,
            Self::Stopped(_) => ErrorKind::Unavailable,
            Self::Internal(_) => ErrorKind::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Sql(error) => error.hint(),
            Self::Plan(error) => error.hint(),
            Self::Query { source, .. } | Self::Dataflow(source) => source.hint(),
            Self::Connector { source, .. } => source.hint(),
            Self::State(error) => error.hint(),
            Self::Option(error) => error.hint(),
            Self::Invalid { hint, .. } | Self::Denied { hint, .. } => hint.clone(),
            Self::BadRows { hint, .. } | Self::Limit { hint, .. } => Some(hint.clone()),
            _ => None,
        }
    }
}

impl From<SqlError> for EngineError {
    fn from(error: SqlError) -> Self {
        Self::Sql(Arc::new(error))
    }
}
impl From<PlanError> for EngineError {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Query(error) => (*error).into(),
            error => Self::Plan(Arc::new(error)),
        }
    }
}
impl From<StateError> for EngineError {
    fn from(error: StateError) -> Self {
        Self::State(Arc::new(error))
    }
}
impl From<DataflowError> for EngineError {
    fn from(error: DataflowError) -> Self {
        Self::Dataflow(Arc::new(error))
    }
}
impl From<DataFusionError> for EngineError {
    fn from(error: DataFusionError) -> Self {
        match SqlError::is_planner_error(&error) {
            true => SqlError::from_planner(&error, None).into(),
            false => Self::DataFusion(Arc::new(error)),
        }
    }
}
impl From<arrow::error::ArrowError> for EngineError {
    fn from(error: arrow::error::ArrowError) -> Self {
        DataFusionError::from(error).into()
    }
}
