//! What is kept of a stream whose source cannot replay: the rows of its newest epochs, as they were accepted.
//!
//! ```text
//!   oldest                                                        newest
//!   [ 256 epochs in one batch ][ 256 epochs in one batch ][ 1 ][ 1 ][ 1 ]      (an epoch of many rows stays by itself)
//! ```
//! Epochs may have one row each. A batch of one row takes a hundred times the room of its values, so that small epochs are joined, with
//! columns for epoch and clock after the weights; what counts against the stream's retention are the bytes of the values. Joined epochs are
//! dropped together, and joined only if that makes no difference: they are short beside the retention. A checkpoint has the same batches.

use super::StreamRuntime;
use super::epoch::{has_rows, unweighted, weighted_batches};
use crate::error::{EngineError, Result};
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt64Array};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, UInt64Type};
use millstream_dataflow::{data_bytes, owned};
use millstream_types::{Delta, DeltaBatch, Epoch, EventTime};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Rows of a batch in a checkpoint, about.
const PACK_ROWS: usize = 64 * 1024;

/// Epochs that are joined.
const JOINED: usize = 256;

/// What joined epochs are of the retention at most, in bytes and in time: one in so many.
const JOINED_PART: u32 = 16;

/// The rows of one epoch.
#[derive(Debug, Clone)]
pub struct Retained {
    /// The epoch.
    pub epoch: Epoch,
    /// Its clock.
    pub clock: EventTime,
    /// The accepted rows.
    pub rows: Delta,
    /// The changes that make versions of a keyed stream; none where nobody read them then.
    pub versions: Delta,
}

impl Retained {
    fn bytes(&self) -> u64 {
        bytes_of(&self.rows) + bytes_of(&self.versions)
    }
}

/// Changes without what their batches share with others, or have room for.
pub(super) fn compacted(changes: &Delta) -> Delta {
    let compact = |part: &DeltaBatch| match owned(&part.batch) {
        Ok(batch) => DeltaBatch { batch, weights: part.weights.clone() },
        // As they are, they are right as well.
        Err(_) => part.clone(),
    };
    changes.iter().map(compact).collect()
}

/// Bytes of the values of changes.
pub(super) fn bytes_of(changes: &Delta) -> u64 {
    changes.iter().map(|part| data_bytes(&part.batch) as u64).sum()
}

/// The two kinds of rows that are kept of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// The accepted rows.
    Rows,
    /// The changes that make versions.
    Versions,
}

impl Group {
    fn of(self, retained: &Retained) -> &Delta {
        match self {
            Group::Rows => &retained.rows,
            Group::Versions => &retained.versions,
        }
    }
}

/// Small epochs that follow each other.
#[derive(Debug)]
struct Joined {
    last: Epoch,
    last_without_versions: Option<Epoch>,
    rows: Vec<RecordBatch>,
    versions: Vec<RecordBatch>,
}

#[derive(Debug, Clone)]
enum Rows {
    One(Retained),
    Joined(Arc<Joined>),
}

/// One epoch, or several that are joined.
#[derive(Debug, Clone)]
struct Entry {
    first: Epoch,
    last_clock: EventTime,
    epochs: usize,
    bytes: u64,
    rows: Rows,
}

/// The rows of the newest epochs of a stream, oldest first. A clone costs an entry per batch, not per row.
#[derive(Debug, Clone, Default)]
pub struct RetainedRows {
    entries: VecDeque<Entry>,
    epochs: usize,
    bytes: u64,
    /// Entries at the end that were not looked at yet, to be joined.
    loose: usize,
    /// Epochs before it are skipped.
    from: Epoch,
}

impl RetainedRows {
    /// How many epochs are kept.
    pub(super) fn len(&self) -> usize {
        self.epochs
    }

    /// The oldest epoch.
    pub fn first_epoch(&self) -> Option<Epoch> {
        self.entries.front().map(|entry| entry.first)
    }

    /// The newest epoch of which no versions are kept.
    pub fn last_without_versions(&self) -> Option<Epoch> {
        self.entries.iter().rev().find_map(|entry| match &entry.rows {
            Rows::One(kept) => kept.versions.is_empty().then_some(kept.epoch),
            Rows::Joined(joined) => joined.last_without_versions,
        })
    }

    /// Takes out the oldest epoch that is not skipped.
    ///
    /// # Errors
    /// When joined epochs do not come apart.
    pub fn pop_front(&mut self) -> Result<Option<Retained>> {
        while let Some(entry) = self.take_front() {
            match entry.rows {
                Rows::One(kept) if kept.epoch >= self.from => return Ok(Some(kept)),
                Rows::Joined(joined) if joined.last >= self.from => {
                    let epochs = epochs_of(joined.rows.clone(), joined.versions.clone())?;
                    epochs.into_iter().rev().for_each(|kept| self.put(kept, VecDeque::push_front));
                }
                Rows::One(_) | Rows::Joined(_) => {}
            }
        }
        Ok(None)
    }

    /// Leaves out what lies before an epoch.
    pub fn skip_to(&mut self, epoch: Epoch) {
        self.from = self.from.max(epoch);
    }

    /// All of it as batches for a checkpoint.
    ///
    /// # Errors
    /// When batches cannot be joined.
    pub fn batches(&self, group: Group) -> Result<Vec<RecordBatch>> {
        let mut parts = Vec::new();
        for entry in &self.entries {
            match &entry.rows {
                Rows::One(kept) => parts.extend(marked_batches(kept, group)?),
                Rows::Joined(joined) if group == Group::Rows => parts.extend_from_slice(&joined.rows),
                Rows::Joined(joined) => parts.extend_from_slice(&joined.versions),
            }
        }
        pack(parts)
    }

    fn push(&mut self, retained: Retained, retention: (u64, Duration)) {
        self.put(retained, VecDeque::push_back);
        self.loose += 1;
        if self.loose >= JOINED {
            self.loose = 0;
            self.join_newest(retention);
        }
    }

    fn put(&mut self, retained: Retained, put: impl Fn(&mut VecDeque<Entry>, Entry)) {
        let (first, last_clock, bytes) = (retained.epoch, retained.clock, retained.bytes());
        self.epochs += 1;
        self.bytes += bytes;
        put(&mut self.entries, Entry { first, last_clock, epochs: 1, bytes, rows: Rows::One(retained) });
    }

    fn take_front(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.epochs -= entry.epochs;
        self.bytes -= entry.bytes;
        Some(entry)
    }

    /// Joins the newest epochs, if they are small and close together.
    fn join_newest(&mut self, (bytes_max, time_max): (u64, Duration)) {
        let at = self.entries.len().saturating_sub(JOINED);
        let (Some(oldest), Some(newest)) = (self.entries.get(at), self.entries.back()) else { return };
        let (first, last_clock) = (oldest.first, newest.last_clock);
        let bytes: u64 = self.entries.range(at..).map(|entry| entry.bytes).sum();
        if bytes > bytes_max / u64::from(JOINED_PART) || oldest.last_clock.plus(time_max / JOINED_PART) < last_clock {
            return;
        }
        let ones: Vec<&Retained> = self
            .entries
            .range(at..)
            .filter_map(|entry| match &entry.rows {
                Rows::One(kept) => Some(kept),
                Rows::Joined(_) => None,
            })
            .collect();
        let batches = |group: Group| -> Result<Vec<RecordBatch>> {
            let parts = ones.iter().map(|kept| marked_batches(kept, group)).collect::<Result<Vec<_>>>()?;
            pack(parts.into_iter().flatten().collect())
        };
        // Epochs that cannot be joined are kept as they are.
        let (Ok(rows), Ok(versions), Some(last)) = (batches(Group::Rows), batches(Group::Versions), ones.last()) else { return };
        let last_without_versions = ones.iter().rev().find(|kept| kept.versions.is_empty()).map(|kept| kept.epoch);
        let joined = Joined { last: last.epoch, last_without_versions, rows, versions };
        let epochs = ones.len();
        self.entries.truncate(at);
        self.entries.push_back(Entry { first, last_clock, epochs, bytes, rows: Rows::Joined(Arc::new(joined)) });
    }

    /// Drops what goes beyond the retention; whether it did. The newest epochs stay, whatever they take.
    fn drop_beyond(&mut self, (bytes_max, time_max): (u64, Duration), clock: EventTime) -> bool {
        let mut dropped = false;
        while self.entries.len() > 1 {
            let too_old = |entry: &Entry| entry.last_clock.plus(time_max) < clock;
            if self.bytes <= bytes_max && !self.entries.front().is_some_and(too_old) {
                break;
            }
            dropped |= self.take_front().is_some();
        }
        dropped
    }
}

/// The rows of an epoch with its marks.
fn marked_batches(kept: &Retained, group: Group) -> Result<Vec<RecordBatch>> {
    weighted_batches(group.of(kept))?.iter().map(|batch| marked(batch, kept)).collect()
}

/// Few large batches of many, in the same order.
fn pack(batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
    let (mut packs, mut parts, mut count) = (Vec::new(), Vec::<RecordBatch>::new(), 0);
    for batch in batches {
        if count >= PACK_ROWS || parts.first().is_some_and(|first| first.schema() != batch.schema()) {
            packs.push(concat_batches(&parts[0].schema(), &parts)?);
            (parts, count) = (Vec::new(), 0);
        }
        count += batch.num_rows();
        parts.push(batch);
    }
    if let Some(first) = parts.first() {
        packs.push(concat_batches(&first.schema(), &parts)?);
    }
    Ok(packs)
}

/// A batch with the epoch and the clock it belongs to.
fn marked(batch: &RecordBatch, kept: &Retained) -> Result<RecordBatch> {
    let mut fields = batch.schema().fields().to_vec();
    let mut columns = batch.columns().to_vec();
    let marks: [(&str, ArrayRef); 2] = [
        ("__epoch", Arc::new(UInt64Array::from_value(kept.epoch.0, batch.num_rows()))),
        ("__clock", Arc::new(Int64Array::from_value(kept.clock.0, batch.num_rows()))),
    ];
    for (name, column) in marks {
        fields.push(Arc::new(Field::new(name, column.data_type().clone(), false)));
        columns.push(column);
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// The epochs, oldest first, of what [`RetainedRows::batches`] gave of each kind.
pub(super) fn epochs_of(rows: Vec<RecordBatch>, versions: Vec<RecordBatch>) -> Result<Vec<Retained>> {
    // An epoch may have rows without versions, and changes that come to nothing.
    let mut retained: BTreeMap<Epoch, Retained> = BTreeMap::new();
    for (group, batches) in [(Group::Rows, rows), (Group::Versions, versions)] {
        for (epoch, (clock, rows)) in unpack(batches)? {
            let new = || Retained { epoch, clock, rows: Delta::new(), versions: Delta::new() };
            let kept = retained.entry(epoch).or_insert_with(new);
            *(if group == Group::Versions { &mut kept.versions } else { &mut kept.rows }) = rows;
        }
    }
    Ok(retained.into_values().collect())
}

/// The rows by epoch, with the epoch's clock.
fn unpack(batches: Vec<RecordBatch>) -> Result<BTreeMap<Epoch, (EventTime, Delta)>> {
    let mut unpacked: BTreeMap<Epoch, (EventTime, Delta)> = BTreeMap::new();
    for mut batch in batches {
        let mut mark = |data_type: &DataType| match batch.num_columns().checked_sub(1) {
            Some(last) if batch.column(last).data_type() == data_type => Ok(batch.remove_column(last)),
            _ => Err(EngineError::Corrupt("kept rows do not say which epoch they are of".into())),
        };
        let (clocks, epochs) = (mark(&DataType::Int64)?, mark(&DataType::UInt64)?);
        let (clocks, epochs) = (clocks.as_primitive::<Int64Type>(), epochs.as_primitive::<UInt64Type>());
        let mut from = 0;
        for run in epochs.values().chunk_by(|left, right| left == right) {
            // Not a slice: it would keep the rows of all epochs for as long as one of them is kept.
            let rows = owned(&batch.slice(from, run.len())).map_err(|error| EngineError::Dataflow(Arc::new(error)))?;
            let (_, kept) = unpacked.entry(Epoch(run[0])).or_insert_with(|| (EventTime(clocks.value(from)), Delta::new()));
            kept.extend(unweighted(vec![rows])?);
            from += run.len();
        }
    }
    Ok(unpacked)
}

impl StreamRuntime {
    /// Keeps rows of a source that cannot replay, within the stream's retention.
    pub(super) fn retain(&mut self, retained: Retained) {
        if !has_rows(&retained.rows) && !has_rows(&retained.versions) {
            return;
        }
        let clock = retained.clock;
        let retention = (self.def.options.retention_bytes, self.def.options.retention_time);
        let kept = Retained { rows: compacted(&retained.rows), versions: compacted(&retained.versions), ..retained };
        self.retained.push(kept, retention);
        self.retention_cut |= self.retained.drop_beyond(retention, clock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(epoch: u64, values: &[i64]) -> Retained {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let batch = RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(values.to_vec()))]).unwrap();
        let rows = if values.is_empty() { Delta::new() } else { [DeltaBatch::insertions(batch)].into_iter().collect() };
        Retained { epoch: Epoch(epoch), clock: EventTime(10 * epoch as i64), rows, versions: Delta::new() }
    }

    const RETENTION: (u64, Duration) = (64 << 20, Duration::from_secs(600));

    /// What memory the batches really take, without the structures around them.
    fn allocated(retained: &RetainedRows) -> usize {
        let of = |entry: &Entry| match &entry.rows {
            Rows::One(kept) => kept.rows.iter().map(|part| part.batch.get_array_memory_size()).sum::<usize>(),
            Rows::Joined(joined) => joined.rows.iter().map(RecordBatch::get_array_memory_size).sum(),
        };
        retained.entries.iter().map(of).sum()
    }

    #[test]
    fn many_epochs_are_one_batch_and_come_apart_again() {
        let mut epochs: Vec<Retained> = (1..=500).map(|epoch| kept(epoch, &[epoch as i64, 7])).collect();
        epochs[9].rows = epochs[9].rows.iter().map(DeltaBatch::negated).collect();
        let mut retained = RetainedRows::default();
        epochs.iter().for_each(|epoch| retained.push(epoch.clone(), RETENTION));
        assert_eq!((retained.len(), retained.entries.len()), (500, 1 + 500 - JOINED));
        assert_eq!(retained.last_without_versions(), Some(Epoch(500)));
        let batches = retained.batches(Group::Rows).unwrap();
        assert_eq!(batches.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [1000]);
        assert!(retained.batches(Group::Versions).unwrap().is_empty());
        let same = |found: &[Retained], expected: &[Retained]| {
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                assert_eq!((found.epoch, found.clock), (expected.epoch, expected.clock));
                assert_eq!(weighted_batches(&found.rows).unwrap(), weighted_batches(&expected.rows).unwrap());
            }
        };
        same(&epochs_of(batches, Vec::new()).unwrap(), &epochs);
        let mut from = retained.clone();
        from.skip_to(Epoch(100));
        let rest: Vec<Retained> = std::iter::from_fn(|| from.pop_front().unwrap()).collect();
        same(&rest, &epochs[99..]);
        assert_eq!((from.len(), from.bytes), (0, 0));
        assert_eq!(retained.bytes, 500 * 2 * 8, "what was read is still kept");
    }

    #[test]
    fn the_bytes_of_the_values_count() {
        let mut retained = RetainedRows::default();
        let mut rows = Vec::with_capacity(8192);
        for epoch in 1..=20_000u64 {
            rows.clear();
            rows.push(epoch as i64);
            let mut roomy = kept(epoch, &[]);
            let buffer = arrow::buffer::MutableBuffer::with_capacity(64 * 1024);
            let mut values = arrow::array::PrimitiveBuilder::<Int64Type>::new_from_buffer(buffer, None);
            values.append_slice(&rows);
            let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
            roomy.rows = vec![DeltaBatch::insertions(RecordBatch::try_new(schema, vec![Arc::new(values.finish())]).unwrap())];
            roomy.rows = compacted(&roomy.rows);
            retained.push(roomy, RETENTION);
            assert!(!retained.drop_beyond(RETENTION, EventTime(10 * epoch as i64)));
        }
        assert_eq!((retained.len(), retained.bytes), (20_000, 160_000));
        // A value has a weight, an epoch and a clock with it.
        assert!(allocated(&retained) < 5 * 160_000, "{} bytes", allocated(&retained));
    }

    #[test]
    fn what_goes_beyond_the_retention_is_dropped() {
        let mut retained = RetainedRows::default();
        let retention = (16 * 1000, Duration::from_secs(3600));
        let mut dropped = 0;
        for epoch in 1..=5_000 {
            retained.push(kept(epoch, &[1]), retention);
            dropped += usize::from(retained.drop_beyond(retention, EventTime(10 * epoch as i64)));
        }
        assert!(dropped > 0);
        assert!((1_600..=2_000).contains(&retained.len()), "{} epochs", retained.len());
        // By time, and epochs that are far apart are dropped one by one.
        let (minute, mut retained) = (60_000_000, RetainedRows::default());
        for epoch in 1..=2_000u64 {
            let clock = EventTime(epoch as i64 * minute);
            retained.push(Retained { clock, ..kept(epoch, &[1]) }, RETENTION);
            retained.drop_beyond(RETENTION, clock);
        }
        assert_eq!((retained.len(), retained.first_epoch()), (11, Some(Epoch(1990))));
        // The newest stays, however large it is.
        assert!(retained.drop_beyond((0, Duration::ZERO), EventTime(i64::MAX / 2)));
        assert_eq!(retained.len(), 1);
    }
}
