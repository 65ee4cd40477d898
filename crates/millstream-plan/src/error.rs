//! Planning errors: what a query asks for that cannot be maintained, and how to write it instead.

use datafusion::error::DataFusionError;
use millstream_types::{Classified, ErrorKind};
use thiserror::Error;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, PlanError>;

/// Why a query has no dataflow.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The query engine refused an expression or a plan.
    #[error("{}", first_line(.0))]
    Query(#[source] Box<DataFusionError>),
    /// A scan of something the catalog does not know.
    #[error("relation \"{name}\" is not in the catalog")]
    UnknownRelation {
        /// The name in the plan.
        name: String,
    },
    /// A relation lost a column that the plan reads.
    #[error("relation \"{relation}\" has no column \"{column}\"")]
    UnknownColumn {
        /// The relation.
        relation: String,
        /// The column.
        column: String,
    },
    /// A volatile function over rows that may be taken back: the retraction would compute another value.
    #[error("volatile expression {expression} reads rows that may be taken back")]
    VolatileOverRetractions {
        /// The expression.
        expression: String,
    },
    /// `EMIT ON WINDOW CLOSE` where no watermark bounds an output column.
    #[error("emit on window close: no output column is bounded by a watermark; the columns are {}", quoted(.columns))]
    NoBound {
        /// The output columns.
        columns: Vec<String>,
        /// What would bound them: sentences.
        remedies: Vec<String>,
    },
    /// `SET fallback = 'error'` and a node that has no incremental form.
    #[error("{node} would be recomputed as a whole: {reason}")]
    FallbackRefused {
        /// The node.
        node: String,
        /// Why it has no better strategy.
        reason: String,
    },
    /// A lookup as of the epoch before, where none is possible.
    #[error("rows cannot be looked up in \"{relation}\" FOR SYSTEM_TIME AS OF PROCTIME() {reason}")]
    Lookup {
        /// The relation in which rows would be looked up.
        relation: String,
        /// Where or why not.
        reason: String,
        /// What to write instead.
        remedy: String,
    },
    /// Something a continuous query cannot contain.
    #[error("{what} cannot be part of a continuous query")]
    Unsupported {
        /// What it is.
        what: String,
        /// What to write instead.
        remedy: String,
    },
    /// A PROCESS that cannot be carried out.
    #[error("stateful function \"{function}\": {problem}")]
    Process {
        /// The function.
        function: String,
        /// What is wrong.
        problem: String,
        /// What to do about it.
        remedy: String,
    },
    /// `state_ttl` where it would not do what it says.
    #[error("state_ttl: {problem}")]
    StateTtl {
        /// Why not.
        problem: String,
        /// What to do about it.
        remedy: String,
    },
    /// An assumption about plans that does not hold: a bug.
    #[error("planning: {0}")]
    Internal(String),
}

impl PlanError {
    /// An [`Internal`](Self::Internal) error.
    pub fn internal(what: impl Into<String>) -> Self {
        Self::Internal(what.into())
    }
}

impl From<DataFusionError> for PlanError {
    fn from(error: DataFusionError) -> Self {
        Self::Query(Box::new(error))
    }
}

impl From<arrow::error::ArrowError> for PlanError {
    fn from(error: arrow::error::ArrowError) -> Self {
        DataFusionError::from(error).into()
    }
}

impl From<PlanError> for DataFusionError {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Query(error) => *error,
            other => DataFusionError::External(Box::new(other)),
        }
    }
}

impl Classified for PlanError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Query(error) => query_kind(error),
            Self::Internal(_) => ErrorKind::Internal,
            _ => ErrorKind::Invalid,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::VolatileOverRetractions { .. } => Some(
                "Call it where the row arrives: in a computed column of the stream, or in a projection directly above an append-only stream.".into(),
            ),
            Self::NoBound { remedies, .. } if !remedies.is_empty() => Some(remedies.join(" ")),
            Self::NoBound { .. } => {
                Some("Group by a window of a stream whose event-time column has a WATERMARK, and select the window column.".into())
            }
            Self::FallbackRefused { .. } => Some("SET fallback = 'recompute' allows it; EXPLAIN INCREMENTAL shows its cost.".into()),
            Self::Process { remedy, .. } | Self::StateTtl { remedy, .. } if !remedy.is_empty() => Some(remedy.clone()),
            Self::Unsupported { remedy, .. } | Self::Lookup { remedy, .. } if !remedy.is_empty() => Some(remedy.clone()),
            _ => None,
        }
    }
}

fn query_kind(error: &DataFusionError) -> ErrorKind {
    match error.find_root() {
        DataFusionError::ArrowError(..) | DataFusionError::Execution(_) => ErrorKind::Data,
        DataFusionError::ResourcesExhausted(_) | DataFusionError::IoError(_) | DataFusionError::ObjectStore(_) => ErrorKind::Unavailable,
        DataFusionError::Internal(_) | DataFusionError::ExecutionJoin(_) => ErrorKind::Internal,
        _ => ErrorKind::Invalid,
    }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

/// The message of the innermost error, without the names of DataFusion's phases and rules around it.
fn first_line(error: &DataFusionError) -> String {
    let message = error.find_root().message().into_owned();
    let message = message.split(DataFusionError::BACK_TRACE_SEP).next().unwrap_or_default();
    message.lines().next().unwrap_or_default().trim_end_matches('.').to_string()
}
