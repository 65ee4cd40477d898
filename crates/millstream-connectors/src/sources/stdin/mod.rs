//! `stdin`: lines of text, JSON or CSV from standard input, for pipes.
//!
//! ```sql
//! CREATE STREAM log (line VARCHAR) WITH (connector = 'stdin');      -- tail -f app.log | millstream run count.sql
//! ```
//! The stream ends with its input. `available` takes everything up to there, `once` the first lines that come; both wait for
//! them. What is buffered is bounded by `buffer_bytes`; when it is as much, nothing is read and the writer of the pipe blocks.
//! An unfinished last line counts.
//!
//! **Guarantee**: not replayable. The engine stores accepted rows; lines stay readable until acknowledged.
//! **Metadata columns**: `offset` (BIGINT, line number from 0), `partition` (VARCHAR, empty), `timestamp` (arrival by the epoch clock).
//!
//! | option | default | meaning |
//! |---|---|---|
//! | `format` | text | `text`, `json`, `csv`, `raw`, with their options; CSV begins with a header unless `header = false` |
//! | `max_row_bytes` | 1 MiB | a longer line is a bad row |
//! | `buffer_bytes` | 64 MB | what may wait |
//! | `bounded` | true | it always is |

mod source;
#[cfg(test)]
mod tests;

pub use source::StdinSource;

pub(crate) use super::received::metadata;

use crate::error::Result;
use crate::source::{Source, SourceContext};

/// Builds the source of standard input for the registry.
///
/// # Errors
/// When an option has no legal value or a column a type that the format cannot hold.
pub fn create(context: &mut SourceContext) -> Result<Box<dyn Source>> {
    Ok(Box::new(StdinSource::new(context, Box::new(std::io::stdin()))?))
}
