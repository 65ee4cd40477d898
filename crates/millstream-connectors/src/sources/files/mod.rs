//! The `files` source: a directory, a glob or an object-store prefix whose files are taken once each.
//!
//! ```sql
//! CREATE STREAM orders (id BIGINT, amount DECIMAL(12, 2), ts TIMESTAMP, file VARCHAR METADATA FROM 'path')
//! WITH (connector = 'files', path = 'in/orders', format = 'csv');
//! ```
//!
//! **Replayable**: a logged range names its files with size, time, etag and a checksum, and yields the same rows again; a file that
//! changed in between is [`Corrupt`](crate::ConnectorError::Corrupt). **Order**: modification time, then name, or `order = 'name'`.
//! A file belongs to the epoch that first sees it complete: names that start with `.` or `_` or end in `.tmp` or
//! `.inprogress` are left alone, local text files that appear while the stream runs must stand still for `settle`, and Parquet files
//! need a footer. **Memory**: one batch in the making and two in flight per range, whatever the size of the file; the same again of
//! the Parquet file that comes next.
//!
//! | file | for |
//! | --- | --- |
//! | `config.rs` | the options |
//! | `discovery.rs` | what is there, what is new, what changed |
//! | `at_rest.rs` | the files that a query names by their path |
//! | `taken.rs` | the exact set of taken files |
//! | `source/` | planning epochs, positions, `after_read` |
//! | `inspect.rs` | how much of a file an epoch takes |
//! | `slice.rs` | a part of a file as the log knows it |
//! | `reader.rs`, `text.rs`, `parquet.rs`, `arrow.rs`, `avro.rs` | reading ranges |
//! | `ahead.rs` | decoding the file that comes next |
//! | `storage.rs` | local files and object stores |

mod ahead;
mod arrow;
mod assemble;
mod at_rest;
mod avro;
mod columnar;
mod config;
mod discovery;
mod infer;
mod inspect;
mod parquet;
mod reader;
mod slice;
mod source;
mod storage;
mod taken;
mod text;

#[cfg(all(test, feature = "object-store-cloud"))]
mod http_tests;
#[cfg(test)]
mod tests;

pub use at_rest::{FilesAtRest, check_footers, files_at_rest};
pub use infer::{infer, infer_schema};

use crate::error::Result;
use crate::source::{Source, SourceContext};
use ::arrow::datatypes::{DataType, TimeUnit};

/// The metadata columns it offers.
pub fn metadata() -> Vec<(&'static str, DataType)> {
    vec![
        ("modified_at", DataType::Timestamp(TimeUnit::Microsecond, None)),
        ("name", DataType::Utf8View),
        ("path", DataType::Utf8View),
        ("row_number", DataType::Int64),
        ("size", DataType::Int64),
    ]
}

/// What to do about a file that cannot be read at all.
pub(crate) const DAMAGED_HINT: &str = "The file is damaged or cut short; replace it or take it away.";

/// The message of Arrow, Parquet or Avro without the names of the errors it is wrapped in.
pub(crate) fn library_message(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    let mut text = text.as_str();
    while let Some((head, rest)) = text.split_once(": ")
        && head.len() <= 40
        && (head.ends_with("error") || head == "EOF")
    {
        text = rest;
    }
    text.lines().next().unwrap_or_default().to_string()
}

/// Builds the source of a stream; takes the options it knows.
///
/// # Errors
/// When an option is missing or malformed, or a column cannot be decoded from the format.
pub fn create(context: &mut SourceContext) -> Result<Box<dyn Source>> {
    Ok(Box::new(source::FilesSource::new(context)?))
}
