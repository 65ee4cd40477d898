//! Reads back what a source stored in a checkpoint or a logged range.

use crate::error::{ConnectorError, Result};
use serde::Deserialize;

/// The stored value of a stream.
///
/// # Errors
/// `Corrupt` when it is not what was stored.
pub(crate) fn stored<T: for<'a> Deserialize<'a>>(stream: &str, value: &serde_json::Value) -> Result<T> {
    T::deserialize(value).map_err(|error| ConnectorError::Corrupt {
        place: format!("stored position of stream \"{stream}\""),
        problem: format!("cannot be read: {error}"),
    })
}
