//! What a caller should do about an error; the only thing error types of different crates share.

use std::fmt;

/// How to act on an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The statement or an option is wrong: fix it.
    Invalid,
    /// An input record is bad.
    Data,
    /// Something outside does not answer: retry.
    Unavailable,
    /// Stored bytes are damaged: restore.
    Corrupt,
    /// A bug in Millstream: report it.
    Internal,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ErrorKind::Invalid => "invalid",
            ErrorKind::Data => "bad data",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Corrupt => "corrupt",
            ErrorKind::Internal => "internal error",
        })
    }
}

/// An error that tells how to act on it.
pub trait Classified {
    /// How to act.
    fn kind(&self) -> ErrorKind;
    /// What to do, as one or more sentences, where there is something to say.
    fn hint(&self) -> Option<String> {
        None
    }
}
