//! What the pipeline has handed to a subscriber and the subscriber has not taken yet.
//!
//! The changes of an epoch are one shared value, however many subscribers there are. The pipeline never waits: a subscriber that is further
//! behind than [`EPOCHS_MAX`] epochs or [`BYTES_MAX`] bytes is cut off, and what waited for it is given up at once.
//!
//! | side | type | its end |
//! | --- | --- | --- |
//! | the pipeline's | [`Feed`] | dropping it: everything has come; [`Feed::fail`]: the query failed |
//! | the subscriber's | [`Tap`] | dropping it: nobody listens any more |

use crate::error::{EngineError, Result};
use arrow::array::RecordBatch;
use millstream_types::{Delta, Epoch, Weights};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::Notify;

/// Epochs a subscriber may fall behind before it is cut off.
const EPOCHS_MAX: usize = 1_024;
/// Bytes a subscriber may fall behind before it is cut off; one epoch may have more.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// The changes of a query in one epoch.
#[derive(Debug)]
pub(crate) struct EpochChanges {
    pub(crate) epoch: Epoch,
    pub(crate) parts: Vec<(RecordBatch, Weights)>,
    /// They are the rows that the query had when the subscription began.
    pub(crate) snapshot: bool,
    bytes: usize,
}

impl EpochChanges {
    pub(crate) fn new(epoch: Epoch, changes: Delta, snapshot: bool) -> Arc<Self> {
        let bytes = changes.iter().map(|part| part.batch.get_array_memory_size()).sum();
        let parts = changes.into_iter().map(|part| (part.batch, part.weights)).collect();
        Arc::new(Self { epoch, parts, snapshot, bytes })
    }
}

/// What became of changes that were handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// They wait for the subscriber.
    Waits,
    /// There is no subscriber any more, or it was too far behind.
    Ended,
}

#[derive(Debug, Default)]
struct Waiting {
    changes: VecDeque<Arc<EpochChanges>>,
    bytes: usize,
    end: Option<Option<EngineError>>,
    has_left: bool,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    more: Notify,
}

/// The pipeline's side.
#[derive(Debug)]
pub(crate) struct Feed(Arc<Queue>);

/// The subscriber's side.
#[derive(Debug)]
pub(crate) struct Tap(Arc<Queue>);

/// The two sides of an empty queue.
pub(crate) fn queue() -> (Feed, Tap) {
    let queue = Arc::new(Queue::default());
    (Feed(Arc::clone(&queue)), Tap(queue))
}

impl Feed {
    /// Hands over the changes of an epoch, or cuts the subscriber off.
    pub(crate) fn push(&self, changes: &Arc<EpochChanges>) -> Pushed {
        let mut waiting = self.0.waiting.lock();
        if waiting.has_left || waiting.end.is_some() {
            return Pushed::Ended;
        }
        let is_full = waiting.changes.len() >= EPOCHS_MAX || waiting.bytes.saturating_add(changes.bytes) > BYTES_MAX;
        if is_full && !waiting.changes.is_empty() {
            let error = too_slow();
            *waiting = Waiting { end: Some(Some(error)), ..Waiting::default() };
            drop(waiting);
            self.0.more.notify_one();
            return Pushed::Ended;
        }
        waiting.add(changes);
        drop(waiting);
        self.0.more.notify_one();
        Pushed::Waits
    }

    /// Hands over what the subscriber begins with, however much it is.
    pub(crate) fn begin(&self, changes: &Arc<EpochChanges>) {
        self.0.waiting.lock().add(changes);
        self.0.more.notify_one();
    }

    /// Ends the subscription with an error, after what waits.
    pub(crate) fn fail(&self, error: EngineError) {
        self.0.waiting.lock().end.get_or_insert(Some(error));
        self.0.more.notify_one();
    }

    /// Nobody listens any more.
    pub(crate) fn is_ended(&self) -> bool {
        let waiting = self.0.waiting.lock();
        waiting.has_left || waiting.end.is_some()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.0.waiting.lock().end.get_or_insert(None);
        self.0.more.notify_one();
    }
}

impl Waiting {
    fn add(&mut self, changes: &Arc<EpochChanges>) {
        // What a subscriber begins with is there anyway: only what comes after it counts.
        self.bytes += if changes.snapshot { 0 } else { changes.bytes };
        self.changes.push_back(Arc::clone(changes));
    }
}

impl Tap {
    /// The next changes; `None` when there will be none. Whoever stops waiting loses nothing.
    pub(crate) async fn next(&mut self) -> Option<Result<Arc<EpochChanges>>> {
        loop {
            // A permit that was given before is kept, so that nothing is missed between the look and the wait.
            if let Some(next) = self.present() {
                return next;
            }
            self.0.more.notified().await;
        }
    }

    /// What is there now: changes, an error or the end.
    fn present(&mut self) -> Option<Option<Result<Arc<EpochChanges>>>> {
        let mut waiting = self.0.waiting.lock();
        if let Some(changes) = waiting.changes.pop_front() {
            waiting.bytes = waiting.bytes.saturating_sub(if changes.snapshot { 0 } else { changes.bytes });
            return Some(Some(Ok(changes)));
        }
        waiting.end.as_mut().map(|error| error.take().map(Err))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting.lock();
        waiting.has_left = true;
        waiting.changes.clear();
    }
}

/// The error of a subscriber that fell behind.
fn too_slow() -> EngineError {
    EngineError::invalid(
        format!("the subscriber fell more than {EPOCHS_MAX} epochs or {} MB behind and was cut off", BYTES_MAX / (1024 * 1024)),
        "Read faster, or select fewer changes, and subscribe again; SUBSCRIBE TO v AS OF EPOCH n goes on after epoch n.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn changes(epoch: u64) -> Arc<EpochChanges> {
        EpochChanges::new(Epoch(epoch), Vec::new(), false)
    }

    fn large(epoch: u64) -> Arc<EpochChanges> {
        Arc::new(EpochChanges { epoch: Epoch(epoch), parts: Vec::new(), snapshot: false, bytes: BYTES_MAX + 1 })
    }

    fn taken(tap: &mut Tap) -> Option<Option<std::result::Result<u64, String>>> {
        tap.next().now_or_never().map(|next| next.map(|next| next.map(|changes| changes.epoch.0).map_err(|error| error.to_string())))
    }

    #[test]
    fn changes_come_in_order_and_then_the_end() {
        let (feed, mut tap) = queue();
        assert_eq!(taken(&mut tap), None);
        assert_eq!([feed.push(&changes(1)), feed.push(&changes(2))], [Pushed::Waits; 2]);
        drop(feed);
        assert_eq!([taken(&mut tap), taken(&mut tap), taken(&mut tap)], [Some(Some(Ok(1))), Some(Some(Ok(2))), Some(None)]);
    }

    #[test]
    fn who_falls_behind_is_cut_off_and_costs_nothing_more() {
        let (feed, mut tap) = queue();
        for epoch in 0..EPOCHS_MAX as u64 {
            assert_eq!(feed.push(&changes(epoch)), Pushed::Waits);
        }
        let one_more = changes(9);
        assert_eq!((feed.push(&one_more), feed.is_ended()), (Pushed::Ended, true));
        assert_eq!(Arc::strong_count(&one_more), 1);
        let error = "the subscriber fell more than 1024 epochs or 64 MB behind and was cut off";
        assert_eq!((taken(&mut tap), taken(&mut tap)), (Some(Some(Err(error.into()))), Some(None)));

        let (feed, _tap) = queue();
        assert_eq!(
            [feed.push(&large(1)), feed.push(&changes(2))],
            [Pushed::Waits, Pushed::Ended],
            "one epoch may be larger than the limit"
        );
    }

    #[test]
    fn who_has_left_is_noticed() {
        let (feed, tap) = queue();
        drop(tap);
        assert_eq!(feed.push(&changes(1)), Pushed::Ended);
        let (feed, mut tap) = queue();
        feed.fail(EngineError::invalid("broken", ""));
        assert_eq!(taken(&mut tap), Some(Some(Err("broken".into()))));
    }
}
