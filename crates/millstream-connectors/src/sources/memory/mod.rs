//! `memory`: rows pushed by the embedding program or by `INSERT INTO` a stream.
//!
//! ```sql
//! CREATE STREAM words (word VARCHAR);                        -- the same as WITH (connector = 'memory')
//! INSERT INTO words VALUES ('to'), ('be');                   -- one push
//! ```
//! One push is one epoch's rows of the stream: it is never split nor merged with another, and an epoch takes at most one.
//! Offsets count rows from 0. Columns are matched by name; a type that differs is cast where every value survives exactly,
//! else the push is refused as a whole. While more than `buffer_rows` rows or `buffer_bytes` bytes are not acknowledged, a
//! push waits; one that is larger than the whole buffer waits for it to be empty.
//!
//! **Guarantee**: not replayable. The engine stores accepted rows itself; pushed rows stay readable until acknowledged.
//! **Metadata columns**: `offset` (BIGINT), `timestamp` (when the push came, by the epoch clock).
//!
//! | option | default | meaning |
//! |---|---|---|
//! | `buffer_rows` | 1,000,000 | rows that may wait |
//! | `buffer_bytes` | 64 MB | bytes that may wait |
//! | `bounded` | false | the stream is known to end |

mod conform;
mod source;
#[cfg(test)]
mod tests;

pub use source::MemorySource;

use crate::error::Result;
use crate::registry::timestamp_type;
use crate::source::{Source, SourceContext};
use arrow::datatypes::DataType;

/// Rows that may wait by default.
pub const DEFAULT_BUFFER_ROWS: u64 = 1_000_000;
/// Bytes that may wait by default.
pub const DEFAULT_BUFFER_BYTES: u64 = 64_000_000;

/// Builds a memory source for the registry.
///
/// # Errors
/// When an option has no legal value.
pub fn create(context: &mut SourceContext) -> Result<Box<dyn Source>> {
    Ok(Box::new(MemorySource::new(context)?))
}

/// The metadata columns of a memory stream.
pub(crate) fn metadata() -> Vec<(&'static str, DataType)> {
    vec![("offset", DataType::Int64), ("timestamp", timestamp_type())]
}
