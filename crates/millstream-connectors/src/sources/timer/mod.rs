//! `timer`: one row per tick of the epoch clock.
//!
//! ```sql
//! CREATE STREAM every_5s (tick BIGINT, ts TIMESTAMP) WITH (connector = 'timer', interval = '5s');
//! ```
//! ```text
//!   opened at 12:00:02        12:00:05     12:00:10     12:00:15
//!                             tick 1       tick 2       tick 3
//! ```
//! Ticks lie at multiples of `interval` since 1970-01-01T00:00:00Z; the first one is the first multiple after the source was
//! opened for the first time. Every integer column holds the number of the tick, from 1, and every timestamp column its time;
//! columns of other types are refused. Ticks that were missed while the pipeline was down are made up. `CROSS JOIN` a table to repeat
//! it at every tick.
//!
//! **Guarantee**: replayable; a range carries the time of the first tick. **Metadata columns**: `timestamp` (the tick's time).
//!
//! | option | default | meaning |
//! |---|---|---|
//! | `interval` | required | time between two ticks |
//! | `row_limit` | none | the stream ends after so many ticks |

mod source;
#[cfg(test)]
mod tests;

pub use source::TimerSource;

use crate::error::Result;
use crate::registry::timestamp_type;
use crate::source::{Source, SourceContext};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::FutureExt;
use futures::future::BoxFuture;
use millstream_types::Options;
use std::sync::Arc;

/// Builds a timer for the registry.
///
/// # Errors
/// When an option has no legal value or a column neither an integer nor a timestamp type.
pub fn create(context: &mut SourceContext) -> Result<Box<dyn Source>> {
    Ok(Box::new(TimerSource::new(context)?))
}

/// The columns of a timer that declares none: `tick BIGINT, ts TIMESTAMP`.
pub(crate) fn infer(_options: &mut Options) -> BoxFuture<'_, Result<SchemaRef>> {
    let schema = Schema::new(vec![Field::new("tick", DataType::Int64, false), Field::new("ts", timestamp_type(), false)]);
    std::future::ready(Ok(Arc::new(schema))).boxed()
}

/// The metadata columns of a timer.
pub(crate) fn metadata() -> Vec<(&'static str, DataType)> {
    vec![("timestamp", timestamp_type())]
}
