//! What can go wrong in a source or a sink.

use millstream_types::{Classified, Epoch, ErrorKind, OptionError};

/// The result type of this crate.
pub type Result<T, E = ConnectorError> = std::result::Result<T, E>;

/// What can go wrong in a source or a sink.
#[derive(Debug, thiserror::Error)]
pub enum ConnectorError {
    /// An option is unknown, missing or out of range.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// Something in the definition cannot work; `hint` says what to write instead.
    #[error("{message}")]
    Invalid {
        /// What is wrong and where.
        message: String,
        /// What to do, if there is something to say.
        hint: Option<String>,
    },
    /// A file or host that statements may not reach.
    #[error("{message}")]
    Refused {
        /// What names what.
        message: String,
        /// What would allow it.
        hint: String,
    },
    /// A file or peer cannot be reached; `place` is its path or address.
    #[error("{action} {place} failed")]
    Unavailable {
        /// What was tried, as a gerund: `reading`, `connecting to`.
        action: &'static str,
        /// Path or address.
        place: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Input that cannot be read at all, as opposed to single bad rows.
    #[error("{place} {problem}")]
    Data {
        /// File (and position) or peer.
        place: String,
        /// What is wrong with it.
        problem: String,
        /// What to do, if there is something to say.
        hint: Option<String>,
    },
    /// Something that was read or written before is not what it was.
    #[error("{place} {problem}")]
    Corrupt {
        /// File or record.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A sink has published epochs that the log does not have: they would be written a second time.
    #[error(
        "{place} holds output of epoch {last}, and the log ends with epoch {newest}: its last records are damaged, or it is an older copy"
    )]
    OutputAhead {
        /// Directory of the sink.
        place: String,
        /// The newest epoch of the log.
        newest: Epoch,
        /// The newest epoch of the output, at least.
        last: Epoch,
        /// Names of the output, relative to the directory.
        files: String,
    },
    /// A failure inside Arrow or Parquet that should not happen.
    #[error("{context}")]
    Internal {
        /// What was being done.
        context: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl ConnectorError {
    /// An error of the definition.
    pub fn invalid(message: impl Into<String>, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        Self::Invalid { message: message.into(), hint: (!hint.is_empty()).then_some(hint) }
    }

    /// Something outside did not answer.
    pub fn unavailable(
        action: &'static str,
        place: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Unavailable { action, place: place.into(), source: source.into() }
    }

    /// A bug, or a library that failed where it must not.
    pub fn internal(context: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal { context: context.into(), source: source.into() }
    }
}

impl Classified for ConnectorError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Option(_) | Self::Invalid { .. } | Self::Refused { .. } => ErrorKind::Invalid,
            Self::Unavailable { .. } => ErrorKind::Unavailable,
            Self::Data { .. } => ErrorKind::Data,
            Self::Corrupt { .. } | Self::OutputAhead { .. } => ErrorKind::Corrupt,
            Self::Internal { .. } => ErrorKind::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Option(error) => error.hint(),
            Self::Invalid { hint, .. } | Self::Data { hint, .. } => hint.clone(),
            Self::Refused { hint, .. } => Some(hint.clone()),
            Self::Unavailable { source, .. } if is_disk_full(source.as_ref()) => {
                Some("Free space on its disk, and start again: what was committed is kept, and what was not is done again.".into())
            }
            Self::OutputAhead { files, newest, .. } => Some(format!(
                "Nothing was changed. Bring back the log that has these epochs. If there is none, move {files} out of the directory, and start \
                 again: the epochs after {newest} run again and write their rows again."
            )),
            _ => None,
        }
    }
}

fn is_disk_full(source: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    source.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::StorageFull)
}
