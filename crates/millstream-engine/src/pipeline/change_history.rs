//! The changes of a materialized view in the newest epochs, for subscriptions that begin in the past.
//!
//! In: the view's change of each epoch. Out: the changes after an epoch, if they are all there. Dropped: what is older than so many epochs
//! (`history` of the view, [`EPOCHS`] unless told), and what goes beyond [`BYTES_MAX`]. Nothing of it is durable: after a restart it begins
//! with the newest checkpoint, since whose epochs are run again.

use super::retained::{bytes_of, compacted};
use crate::error::{EngineError, Result};
use millstream_types::{Delta, Epoch, EventTime};
use std::collections::VecDeque;

/// Epochs that are kept unless the view says otherwise.
pub const EPOCHS: u64 = 1_000;
/// Bytes that are kept at most.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// The changes of one epoch.
#[derive(Debug, Clone)]
pub struct Past {
    /// The epoch.
    pub epoch: Epoch,
    /// Its clock.
    pub clock: EventTime,
    /// The changes.
    pub changes: Delta,
}

/// The changes of the newest epochs.
#[derive(Debug)]
pub struct ChangeHistory {
    kept: u64,
    /// Changes of all later epochs are there; `None` before the first epoch.
    from: Option<Epoch>,
    newest: VecDeque<(Past, usize)>,
    bytes: usize,
}

impl ChangeHistory {
    /// An empty history that keeps so many epochs.
    pub fn new(kept: u64) -> Self {
        Self { kept, from: None, newest: VecDeque::new(), bytes: 0 }
    }

    /// Takes in the changes of an epoch.
    pub fn push(&mut self, epoch: Epoch, clock: EventTime, changes: &Delta) {
        let from = *self.from.get_or_insert(Epoch(epoch.0.saturating_sub(1)));
        if self.kept > 0 && !changes.is_empty() {
            let changes = compacted(changes);
            let bytes = bytes_of(&changes) as usize;
            self.newest.push_back((Past { epoch, clock, changes }, bytes));
            self.bytes += bytes;
        }
        let oldest = Epoch(epoch.0.saturating_sub(self.kept));
        self.from = Some(from.max(oldest));
        while let Some((past, bytes)) = self.newest.front() {
            if past.epoch > oldest && self.bytes <= BYTES_MAX {
                break;
            }
            self.from = self.from.max(Some(past.epoch));
            self.bytes -= bytes;
            self.newest.pop_front();
        }
    }

    /// The changes after an epoch. `now` is the newest epoch.
    ///
    /// # Errors
    /// When some of them are not there any more.
    pub fn since(&self, view: &str, epoch: Epoch, now: Epoch) -> Result<Vec<Past>> {
        let from = self.from.unwrap_or(now);
        if epoch < from {
            return Err(EngineError::invalid(
                format!(
                    "the changes of \"{view}\" after epoch {} are not kept any more: its history begins with epoch {}",
                    epoch.0, from.0
                ),
                "Leave AS OF EPOCH out to begin with the present rows; CREATE MATERIALIZED VIEW .. WITH (history = 5000) keeps more epochs.",
            ));
        }
        Ok(self.newest.iter().filter(|(past, _)| past.epoch > epoch).map(|(past, _)| past.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use millstream_types::DeltaBatch;
    use std::sync::Arc;

    fn rows(count: usize) -> Delta {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1; count]));
        vec![DeltaBatch::insertions(RecordBatch::try_from_iter([("n", column)]).unwrap())]
    }

    fn since(history: &ChangeHistory, epoch: u64, now: u64) -> Result<Vec<u64>> {
        Ok(history.since("v", Epoch(epoch), Epoch(now))?.iter().map(|past| past.epoch.0).collect())
    }

    #[test]
    fn keeps_the_newest_epochs() {
        let mut history = ChangeHistory::new(3);
        assert_eq!(since(&history, 7, 7).unwrap(), [0; 0]);
        assert!(since(&history, 6, 7).is_err());
        for epoch in 8..=10 {
            history.push(Epoch(epoch), EventTime(0), &if epoch == 9 { Delta::new() } else { rows(1) });
        }
        assert_eq!(since(&history, 7, 10).unwrap(), [8, 10]);
        assert_eq!(since(&history, 10, 10).unwrap(), [0; 0]);
        history.push(Epoch(11), EventTime(0), &rows(1));
        let error = since(&history, 7, 11).unwrap_err().to_string();
        assert_eq!(error, "the changes of \"v\" after epoch 7 are not kept any more: its history begins with epoch 8");
        assert_eq!(since(&history, 8, 11).unwrap(), [10, 11]);
    }

    #[test]
    fn keeps_no_more_than_its_bytes() {
        let mut history = ChangeHistory::new(1_000);
        for epoch in 1..=10 {
            history.push(Epoch(epoch), EventTime(0), &rows(BYTES_MAX / 8 / 4));
        }
        assert!(history.bytes <= BYTES_MAX);
        assert!(since(&history, 1, 10).is_err());
        assert_eq!(since(&history, 8, 10).unwrap(), [9, 10]);
        let mut none = ChangeHistory::new(0);
        none.push(Epoch(1), EventTime(0), &rows(1));
        assert_eq!((since(&none, 1, 1).unwrap().len(), since(&none, 0, 1).is_err()), (0, true));
    }
}
