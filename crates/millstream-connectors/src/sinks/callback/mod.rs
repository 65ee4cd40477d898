//! `callback`: hands the changes of every committed epoch to a function of the embedding program.
//!
//! ```
//! use millstream_connectors::sinks::callback::CallbackSink;
//!
//! let sink = CallbackSink::new(|epoch, changes| async move {
//!     for change in changes {
//!         println!("epoch {}: {} changed rows", epoch.epoch, change.num_rows());
//!     }
//!     Ok(())
//! });
//! # drop(sink);
//! ```
//! **Guarantee**: at least once and in order. After a crash an epoch may be handed over again, with the same number and changes: a
//! function that remembers the last number it has seen is exactly once. An error is retried and, in the end, stops the query.
//! There is no `connector = 'callback'`: a function cannot be written in SQL.

mod sink;
#[cfg(test)]
mod tests;

pub use sink::{Callback, CallbackSink};
