//! `socket`: lines of text, JSON or CSV over TCP, as a client or as a server.
//!
//! ```sql
//! CREATE STREAM words (line VARCHAR) WITH (connector = 'socket', host = 'localhost', port = '9999');
//! CREATE STREAM events (id BIGINT, at TIMESTAMP) WITH (connector = 'socket', listen = 'true', port = '9000', format = 'json');
//! ```
//! ```text
//!   client   connects to host:port, again after 0.1 s, 0.2 s, ... 10 s when it is refused or lost; one partition ""
//!   server   listens on host:port; every connection is a partition "1", "2", ..., dropped when it is closed and read
//! ```
//! Lines that wait are bounded by `buffer_bytes`; when they are as many, nothing more is read from any peer until an epoch is
//! durable, and TCP slows the peers down. An unfinished line counts when its peer ends the connection properly; when
//! the connection breaks it is dropped with a warning in the log.
//!
//! **Guarantee**: not replayable, as TCP cannot be read again. The engine stores accepted rows; lines stay readable until
//! acknowledged. **Metadata columns**: `offset` (BIGINT, line number from 0 within the partition), `partition` (VARCHAR), `timestamp`
//! (arrival by the epoch clock).
//!
//! | option | default | meaning |
//! |---|---|---|
//! | `host` | required; 127.0.0.1 to listen | name or address |
//! | `port` | required | 0 listens on any free port |
//! | `listen` | false | wait for connections instead of making one |
//! | `max_connections` | 1,024 | with `listen`: more wait until one closes |
//! | `format` | text | `text`, `json`, `csv`, `raw`, with their options; CSV has no header unless `header = true` |
//! | `max_row_bytes` | 1 MiB | a longer line is a bad row |
//! | `buffer_bytes` | 64 MB | what may wait |
//! | `bounded` | false | the stream ends when its peer does; with `listen` when the last connection closes |

mod connection;
mod source;
#[cfg(test)]
mod tests;

pub use source::SocketSource;

pub(crate) use super::received::metadata;

use super::received::infer_columns;
use crate::error::Result;
use crate::source::{Source, SourceContext};
use arrow::datatypes::SchemaRef;
use futures::FutureExt;
use futures::future::BoxFuture;
use millstream_types::Options;

/// Builds a socket source for the registry.
///
/// # Errors
/// When an option has no legal value or a column a type that the format cannot hold.
pub fn create(context: &mut SourceContext) -> Result<Box<dyn Source>> {
    Ok(Box::new(SocketSource::new(context)?))
}

/// The columns of a stream of lines that declares none.
pub(crate) fn infer(options: &mut Options) -> BoxFuture<'_, Result<SchemaRef>> {
    std::future::ready(infer_columns(options)).boxed()
}
