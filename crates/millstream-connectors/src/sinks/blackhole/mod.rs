//! `blackhole`: counts rows and forgets them, for measuring everything before the sink.
//!
//! ```sql
//! CREATE SINK nothing FROM totals WITH (connector = 'blackhole');
//! ```
//! **Guarantee**: transactional. The number of rows is in every commit record and checkpoint, so that it is exact across restarts.

mod sink;
#[cfg(test)]
mod tests;

pub use sink::BlackholeSink;

use crate::error::Result;
use crate::sink::{Sink, SinkContext};

/// Builds a blackhole for the registry.
///
/// # Errors
/// Never.
pub fn create(_context: &mut SinkContext) -> Result<Sink> {
    Ok(Sink::Transactional(Box::new(BlackholeSink::default())))
}
