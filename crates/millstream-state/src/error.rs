//! What can go wrong with durable state.

use crate::state_dir::InstanceInfo;
use millstream_types::{Classified, Epoch, ErrorKind};
use std::path::{Path, PathBuf};

/// The result type of this crate.
pub type Result<T, E = StateError> = std::result::Result<T, E>;

/// What can go wrong with durable state.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system refused.
    #[error("{action} \"{}\" failed", path.display())]
    Io {
        /// What was tried, as a gerund: `reading`, `syncing`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A newer build wrote this.
    #[error("\"{}\" has {part} format {found}, and this build reads formats up to {supported}", path.display())]
    NewerFormat {
        /// The state directory.
        path: PathBuf,
        /// Which of the formats.
        part: &'static str,
        /// The version found.
        found: u32,
        /// The newest version this build reads.
        supported: u32,
    },
    /// The directory holds other things.
    #[error("\"{}\" is not empty and not a state directory", path.display())]
    NotAStateDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// Another instance runs on the directory.
    #[error("state directory \"{}\" is in use by {}", path.display(), describe(holder.as_deref()))]
    Live {
        /// The state directory.
        path: PathBuf,
        /// Who uses it, where that can be read.
        holder: Option<Box<InstanceInfo>>,
    },
    /// Another instance took the directory over.
    #[error("state directory \"{}\" was taken over by {}", path.display(), describe(by.as_deref()))]
    Fenced {
        /// The state directory.
        path: PathBuf,
        /// Who took it, where that can be read.
        by: Option<Box<InstanceInfo>>,
    },
    /// Stored bytes are not what was written.
    #[error("\"{}\"{} is damaged: {problem}", path.display(), at(*offset))]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: Option<u64>,
        /// What is wrong.
        problem: String,
    },
    /// A sync failed earlier; what the operating system kept of the file is not known.
    #[error("log \"{}\" takes no more frames after a failed sync", path.display())]
    Poisoned {
        /// The segment.
        path: PathBuf,
    },
    /// A frame or document is larger than the format allows.
    #[error("{what} has {bytes} bytes, more than the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: String,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Something that is written once is there already.
    #[error("\"{}\" exists already", path.display())]
    Exists {
        /// The file or directory.
        path: PathBuf,
    },
    /// A name that the state does not hold.
    #[error("{what} \"{name}\" is not in \"{}\"", path.display())]
    NotFound {
        /// What was looked for: `segment`, `table content`.
        what: &'static str,
        /// Its name.
        name: String,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Every checkpoint that is there is damaged.
    #[error("all {count} checkpoints of \"{}\" are damaged, the newest one (epoch {newest}): {problem}", path.display())]
    NoValidCheckpoint {
        /// The checkpoint directory.
        path: PathBuf,
        /// How many there are.
        count: usize,
        /// The newest one's epoch.
        newest: Epoch,
        /// What is wrong with it.
        problem: String,
    },
    /// A specification of fail points that cannot be read.
    #[error("fail point specification \"{text}\" {problem}")]
    FailpointSpec {
        /// The part that is wrong.
        text: String,
        /// Why.
        problem: String,
    },
    /// A test asked for this error.
    #[error("fail point \"{name}\" was asked to fail")]
    Injected {
        /// Name of the fail point.
        name: String,
    },
    /// Arrow could not encode or decode batches.
    #[error("{context}")]
    Arrow {
        /// What was being done.
        context: String,
        /// The cause.
        #[source]
        source: arrow::error::ArrowError,
    },
    /// A value could not be written as JSON.
    #[error("{context}")]
    Json {
        /// What was being done.
        context: String,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
}

impl StateError {
    /// For `map_err` on file operations.
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> StateError {
        let path = path.as_ref().to_path_buf();
        move |source| StateError::Io { action, path, source }
    }

    /// Damage in a file.
    pub(crate) fn corrupt(path: impl AsRef<Path>, offset: Option<u64>, problem: impl Into<String>) -> StateError {
        StateError::Corrupt { path: path.as_ref().to_path_buf(), offset, problem: problem.into() }
    }

    /// For what Arrow wrote to a file: where it is the file system that refused, the error names the file.
    pub(crate) fn writing(self, path: &Path) -> StateError {
        match self {
            StateError::Arrow { source: arrow::error::ArrowError::IoError(_, source), .. } => StateError::io("writing", path)(source),
            other => other,
        }
    }

    /// For `map_err` on Arrow operations.
    pub(crate) fn arrow(context: impl Into<String>) -> impl FnOnce(arrow::error::ArrowError) -> StateError {
        let context = context.into();
        move |source| StateError::Arrow { context, source }
    }
}

impl Classified for StateError {
    fn kind(&self) -> ErrorKind {
        match self {
            StateError::Io { .. } | StateError::Poisoned { .. } | StateError::Injected { .. } => ErrorKind::Unavailable,
            StateError::NewerFormat { .. }
            | StateError::NotAStateDirectory { .. }
            | StateError::Live { .. }
            | StateError::Fenced { .. }
            | StateError::TooLarge { .. }
            | StateError::FailpointSpec { .. } => ErrorKind::Invalid,
            StateError::Corrupt { .. } | StateError::NoValidCheckpoint { .. } | StateError::NotFound { .. } => ErrorKind::Corrupt,
            StateError::Exists { .. } | StateError::Arrow { .. } | StateError::Json { .. } => ErrorKind::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(
            match self {
                StateError::NewerFormat { .. } => "Use a build at least as new as the one that wrote the state directory.",
                StateError::NotAStateDirectory { .. } => "Give --state-dir an empty or new directory.",
                StateError::Live { .. } => "Stop the other instance, or start with --takeover if it no longer answers.",
                StateError::Fenced { .. } => "Only one instance may run on a state directory; this one has published nothing since.",
                StateError::Poisoned { .. } => "Check the disk, then restart: recovery keeps every committed epoch.",
                StateError::Corrupt { .. } | StateError::NoValidCheckpoint { .. } => {
                    "Nothing was deleted. Restore the state directory from a copy, or start with a new one to process the input again."
                }
                StateError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                    "Free space on its disk, and start again: what was committed is kept, and what was not is done again."
                }
                _ => return None,
            }
            .to_string(),
        )
    }
}

fn describe(instance: Option<&InstanceInfo>) -> String {
    match instance {
        Some(instance) => instance.to_string(),
        None => "another instance".to_string(),
    }
}

fn at(offset: Option<u64>) -> String {
    offset.map(|offset| format!(" at offset {offset}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_with_the_file() {
        let full = arrow::error::ArrowError::from(std::io::Error::from(std::io::ErrorKind::StorageFull));
        let error = StateError::arrow("writing batches as Arrow IPC failed")(full).writing(Path::new("state/checkpoint/1.tmp"));
        assert_eq!(error.to_string(), "writing \"state/checkpoint/1.tmp\" failed");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.hint().is_some_and(|hint| hint.starts_with("Free space on its disk")));
    }
}
