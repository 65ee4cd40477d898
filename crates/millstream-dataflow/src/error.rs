//! Errors of a running dataflow. After any of them the dataflow is in an undefined state: drop it or restore it.

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use millstream_plan::error::PlanError;
use millstream_plan::process::FunctionError;
use millstream_types::{Classified, ErrorKind};
use std::sync::Arc;
use thiserror::Error;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, DataflowError>;

/// Why an epoch could not be computed or state not be loaded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataflowError {
    /// A change takes a row away that is not there.
    #[error("relation \"{relation}\" would hold the row ({row}) {weight} times")]
    NegativeWeight {
        /// The operator or view that keeps the rows.
        relation: String,
        /// The row, as `column = value` pairs.
        row: String,
        /// How often the row would be there.
        weight: i64,
    },
    /// An expression or a plan failed on the rows of this epoch.
    #[error("operator \"{operator}\" failed{}: {}", on_row(.row), first_line(.source))]
    Expression {
        /// The operator.
        operator: String,
        /// `column = value` pairs of the first row it failed on, where that is known.
        row: Option<String>,
        /// What went wrong.
        source: Box<DataFusionError>,
    },
    /// A stateful function failed.
    #[error("stateful function \"{function}\" failed{}: {source}", for_key(.key))]
    Function {
        /// The operator.
        operator: String,
        /// The function.
        function: String,
        /// The key, as `column = value` pairs; empty without PARTITION BY.
        key: String,
        /// What the function says.
        source: FunctionError,
    },
    /// A recursive query went on and on.
    #[error("recursive query \"{name}\" has not come to an end after {rounds} rounds")]
    EndlessRecursion {
        /// The name of the query.
        name: String,
        /// How often its term was followed.
        rounds: usize,
    },
    /// The memory pool has no room for an operator's state.
    #[error("operator \"{operator}\" needs {bytes} bytes of state, which exceeds the memory limit")]
    Memory {
        /// The operator.
        operator: String,
        /// How much state it has.
        bytes: usize,
        /// What the pool says.
        #[source]
        source: Box<DataFusionError>,
    },
    /// Rows that several queries share are lost: the error that each of them gets.
    #[error("{0}")]
    Shared(Arc<DataflowError>),
    /// Saved state does not fit the query.
    #[error("saved state of operator \"{operator}\" does not fit: {reason}")]
    StateMismatch {
        /// The operator.
        operator: String,
        /// What differs.
        reason: String,
    },
    /// An assumption about the graph or about state that does not hold: a bug.
    #[error("operator \"{operator}\": {what}")]
    Internal {
        /// The operator.
        operator: String,
        /// What is wrong.
        what: String,
    },
}

impl DataflowError {
    /// An [`Internal`](Self::Internal) error of the operator that [`at`](Self::at) names.
    pub(crate) fn internal(what: impl Into<String>) -> Self {
        Self::Internal { operator: String::new(), what: what.into() }
    }

    /// A [`StateMismatch`](Self::StateMismatch) of the operator that [`at`](Self::at) names.
    pub(crate) fn mismatch(reason: impl Into<String>) -> Self {
        Self::StateMismatch { operator: String::new(), reason: reason.into() }
    }

    /// Names the operator where none is named yet.
    #[must_use]
    pub(crate) fn at(mut self, name: &str) -> Self {
        match &mut self {
            Self::NegativeWeight { relation: operator, .. }
            | Self::Expression { operator, .. }
            | Self::Function { operator, .. }
            | Self::Memory { operator, .. }
            | Self::StateMismatch { operator, .. }
            | Self::Internal { operator, .. } => {
                if operator.is_empty() {
                    *operator = name.to_string();
                }
            }
            Self::EndlessRecursion { .. } | Self::Shared(_) => {}
        }
        self
    }
}

impl From<DataFusionError> for DataflowError {
    fn from(source: DataFusionError) -> Self {
        Self::Expression { operator: String::new(), row: None, source: Box::new(source) }
    }
}

impl From<ArrowError> for DataflowError {
    fn from(source: ArrowError) -> Self {
        DataFusionError::from(source).into()
    }
}

impl From<PlanError> for DataflowError {
    fn from(source: PlanError) -> Self {
        DataFusionError::from(source).into()
    }
}

impl Classified for DataflowError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NegativeWeight { .. } | Self::Function { .. } | Self::EndlessRecursion { .. } => ErrorKind::Data,
            Self::Expression { source, .. } => match source.find_root() {
                DataFusionError::ArrowError(..) | DataFusionError::Execution(_) => ErrorKind::Data,
                DataFusionError::ResourcesExhausted(_) | DataFusionError::IoError(_) | DataFusionError::ObjectStore(_) => {
                    ErrorKind::Unavailable
                }
                DataFusionError::Internal(_) => ErrorKind::Internal,
                _ => ErrorKind::Invalid,
            },
            Self::Shared(error) => error.kind(),
            Self::Memory { .. } => ErrorKind::Unavailable,
            Self::StateMismatch { .. } => ErrorKind::Corrupt,
            Self::Internal { .. } => ErrorKind::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NegativeWeight { .. } => {
                Some("The input takes a row back that it never inserted; look for a delete without its insert.".into())
            }
            Self::EndlessRecursion { .. } => Some(
                "Rows that lead back to themselves have no end under UNION ALL; UNION follows each row once. A condition on a depth column ends it, too."
                    .into(),
            ),
            Self::Memory { .. } => Some(
                "EXPLAIN INCREMENTAL names what bounds the state of each operator. Add a WATERMARK and group by its window, or raise memory_limit."
                    .into(),
            ),
            Self::StateMismatch { .. } => {
                Some("The query or the engine's state format has changed since the checkpoint; rebuild the query from its inputs.".into())
            }
            Self::Function { .. } => Some("Nothing of the epoch is kept. It is run again with the same rows after a restart, or when the query is resumed.".into()),
            Self::Shared(error) => error.hint(),
            Self::Expression { .. } | Self::Internal { .. } => None,
        }
    }
}

fn on_row(row: &Option<String>) -> String {
    row.as_ref().map_or_else(String::new, |row| format!(" on the row ({row})"))
}

fn for_key(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!(" for {key}") }
}

/// DataFusion appends a back trace and advice for its own developers to some messages.
fn first_line(error: &DataFusionError) -> String {
    let message = match error.find_root() {
        // Whose error it is tells a user nothing.
        DataFusionError::ArrowError(error, _) => error.to_string(),
        _ => error.strip_backtrace(),
    };
    message.lines().next().unwrap_or_default().trim_end_matches('.').to_string()
}
