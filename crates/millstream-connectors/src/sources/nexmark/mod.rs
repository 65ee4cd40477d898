//! `nexmark`: the persons, auctions and bids of the Nexmark benchmark.
//!
//! ```sql
//! CREATE STREAM bid WITH (connector = 'nexmark', table = 'bid', event_limit = '1000000', events_per_second = 'unlimited');
//! ```
//! ```text
//!   event    0        1 2 3      4 ... 49   50       51 52 53   54 ... 99   100 ...
//!            person   auctions   bids       person   auctions   bids
//! ```
//! Of 50 events one is a person, 3 are auctions and 46 are bids; a stream carries those of one `table`, and the three streams share
//! the numbering. Each event is a function of the seed and its number. Half of the bids go to the hot auction, the
//! first one of the newest hundred; three of four bidders and sellers are hot in the same way; the others are spread over
//! the 1,000 newest persons and 100 newest auctions, and a few refer to ones that do not exist yet. Ids start at 1000,
//! categories at 10. Event `n` happens `n / events_per_second` after `base_time`, and an auction expires about 1,666 events
//! later on average.
//!
//! **Guarantee**: replayable. **Metadata columns**: `n` (BIGINT), the number of the event.
//!
//! | option | default | meaning |
//! |---|---|---|
//! | `table` | required | `person`, `auction` or `bid` |
//! | `events_per_second` | 10,000 | of all three tables; `'unlimited'` keeps the times of 10,000; ramps as for the generator |
//! | `event_limit` | none | events of all three tables, after which the stream ends; under `available` all are there at once |
//! | `base_time` | 2015-07-15T00:00:00Z | time of event 0 |
//! | `seed` | 0 | another seed gives other events |
//!
//! **Reference**: P. Tucker, K. Tufte, V. Papadimos, D. Maier, "NEXMark: a benchmark for queries over data streams" (2002), with the
//! parameters of its Apache Beam version.

mod model;
mod source;
mod tables;
#[cfg(test)]
mod tests;
mod words;

pub use source::NexmarkSource;
pub use tables::{NexmarkTable, schema_of};

use crate::error::Result;
use crate::source::{Source, SourceContext};
use crate::sources::pace::Pace;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::FutureExt;
use futures::future::BoxFuture;
use millstream_types::Options;

/// Events per second where nothing else is said; fixes the distance between event times.
pub const DEFAULT_EVENTS_PER_SECOND: f64 = 10_000.0;
/// 2015-07-15T00:00:00Z in microseconds: the time of event 0 where nothing else is said.
pub const DEFAULT_BASE_TIME_US: i64 = 1_436_918_400_000_000;

/// Builds a Nexmark source for the registry.
///
/// # Errors
/// When an option has no legal value or a declared column is none of the table's.
pub fn create(context: &mut SourceContext) -> Result<Box<dyn Source>> {
    Ok(Box::new(NexmarkSource::new(context)?))
}

/// The columns of a stream that declares none: those of its `table`.
pub(crate) fn infer(options: &mut Options) -> BoxFuture<'_, Result<SchemaRef>> {
    std::future::ready(source::take_table(options).map(schema_of)).boxed()
}

/// The rows of `table` among the `count` events from number `first_event`, with the default seed, pace and base time.
/// The schema is [`schema_of`] the table.
///
/// # Errors
/// When Arrow refuses the columns, which would be a bug.
pub fn generate(table: NexmarkTable, first_event: u64, count: u64) -> Result<RecordBatch> {
    let events = model::Events::new(0, DEFAULT_BASE_TIME_US, Pace::Constant(DEFAULT_EVENTS_PER_SECOND));
    tables::rows_among(&events, table, first_event, count)
}
