//! The dataflow of a query: operators over weighted batches, with state, run one epoch at a time.
//!
//! [`Dataflow`] runs a [`Graph`](millstream_plan::graph::Graph): [`step`](Dataflow::step) takes the changes of an epoch's inputs and
//! returns the change of the result. [`ViewStore`] adds these changes up to the content of a materialized view.
//!
//! ```text
//!   input deltas ──▶ Input ──▶ Map ──▶ Aggregate ──▶ output delta ──▶ ViewStore, sinks
//!                                        │ state: KeyIndex + SlotRecords or RowLog + buckets
//! ```
//!
//! Operators never do I/O and never read a clock: their output is a function of state, delta and
//! [`EpochInput`]. State leaves through [`Dataflow::checkpoint`] as record batches and comes back through
//! [`Dataflow::restore`]; a restored dataflow continues byte for byte like the one that was saved.

mod bucket;
mod chains;
mod columns;
mod dataflow;
mod deadlines;
mod divide;
mod error;
mod key_index;
mod operator;
mod operators;
mod ordered;
mod row_log;
mod short_bytes;
mod slot_records;
mod slot_table;
#[cfg(test)]
mod test_util;
mod view;
mod zset;

pub use columns::{data_bytes, owned};
pub use dataflow::{Dataflow, DataflowContext, EpochInput, OperatorState, OperatorStats, Parallelism};
pub use error::{DataflowError, Result};
pub use operators::SharedArrangements;
pub use view::ViewStore;
