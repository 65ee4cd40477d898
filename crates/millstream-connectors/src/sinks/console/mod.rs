//! `console`: prints the first rows of every epoch.
//!
//! ```sql
//! CREATE SINK show FROM totals WITH (connector = 'console');
//! ```
//! ```text
//! -------- epoch 12, time 2026-03-01T12:00:05Z --------
//! +----+-------+-------+
//! | op | word  | total |
//! +----+-------+-------+
//! | -U | to    | 1     |
//! | +U | to    | 2     |
//! +----+-------+-------+
//! … 40 more rows
//! ```
//! In `changelog` (the default) and `upsert` mode the column `op` says what happened to a row: `+I` it came, `-D` it went, and where the
//! sink has a PRIMARY KEY `-U` and `+U` are the old and the new row of a key. `append` and `complete` print rows alone. An epoch without
//! changes prints nothing. Epochs are printed after their commit, so what is seen is durable.
//!
//! **Guarantee**: at least once; the epoch's number tells a repetition after a crash.
//!
//! | option | default | meaning |
//! |---|---|---|
//! | `limit` | 10 | rows per epoch |
//! | `format` | table | `table`, or `lines` such as `+I[to, 1]` |

mod render;
mod sink;
#[cfg(test)]
mod tests;

pub use sink::{ConsoleSink, ConsoleWriter};

use crate::error::Result;
use crate::sink::{Sink, SinkContext};
use parking_lot::Mutex;
use std::sync::Arc;

/// Builds a sink to standard output for the registry.
///
/// # Errors
/// When an option has no legal value.
pub fn create(context: &mut SinkContext) -> Result<Sink> {
    let writer: ConsoleWriter = Arc::new(Mutex::new(std::io::stdout()));
    Ok(Sink::Delivered(Box::new(ConsoleSink::new(context, writer)?)))
}
