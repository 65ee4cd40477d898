//! What is kept of a stream whose source cannot replay: the rows of its newest epochs, as they were accepted.
//!
//! In a checkpoint the rows of many epochs are one batch, with columns for epoch and clock after the weights: epochs may have one row each.

use super::StreamRuntime;
use super::epoch::{has_rows, unweighted, weighted_batches};
use crate::error::{EngineError, Result};
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt64Array};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, UInt64Type};
use millstream_dataflow::owned;
use millstream_types::{Delta, Epoch, EventTime};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Rows of a batch in a checkpoint, about.
const PACK_ROWS: usize = 64 * 1024;

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
        self.rows.iter().chain(&self.versions).map(|part| part.batch.get_array_memory_size() as u64).sum()
    }
}

/// What is kept of several epochs, oldest first, as batches for a checkpoint. `rows` gives the rows that are meant of each.
pub(super) fn pack<'a>(retained: impl IntoIterator<Item = &'a Retained>, rows: impl Fn(&Retained) -> &Delta) -> Result<Vec<RecordBatch>> {
    let (mut packs, mut parts, mut count) = (Vec::new(), Vec::<RecordBatch>::new(), 0);
    for kept in retained {
        for batch in weighted_batches(rows(kept))? {
            let marked = marked(&batch, kept)?;
            if count >= PACK_ROWS || parts.first().is_some_and(|first| first.schema() != marked.schema()) {
                packs.push(concat_batches(&parts[0].schema(), &parts)?);
                (parts, count) = (Vec::new(), 0);
            }
            count += marked.num_rows();
            parts.push(marked);
        }
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

/// The rows by epoch, with the epoch's clock, of what [`pack`] made.
pub(super) fn unpack(batches: Vec<RecordBatch>) -> Result<BTreeMap<Epoch, (EventTime, Delta)>> {
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
        self.retained_bytes += retained.bytes();
        self.retained.push_back(retained);
        while self.retained.len() > 1 {
            let Some(oldest) = self.retained.front() else { break };
            let too_old = oldest.clock.plus(self.def.options.retention_time) < clock;
            if self.retained_bytes <= self.def.options.retention_bytes && !too_old {
                break;
            }
            if let Some(oldest) = self.retained.pop_front() {
                self.retained_bytes = self.retained_bytes.saturating_sub(oldest.bytes());
                self.retention_cut = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_types::DeltaBatch;

    fn kept(epoch: u64, values: &[i64]) -> Retained {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let batch = RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(values.to_vec()))]).unwrap();
        let rows = if values.is_empty() { Delta::new() } else { [DeltaBatch::insertions(batch)].into_iter().collect() };
        Retained { epoch: Epoch(epoch), clock: EventTime(10 * epoch as i64), rows, versions: Delta::new() }
    }

    #[test]
    fn many_epochs_are_one_batch_and_come_apart_again() {
        let mut retained: Vec<Retained> = (1..=500).map(|epoch| kept(epoch, &[epoch as i64, 7])).collect();
        retained[3] = kept(4, &[]);
        retained[9].rows = retained[9].rows.iter().map(DeltaBatch::negated).collect();
        let packs = pack(&retained, |kept| &kept.rows).unwrap();
        assert_eq!(packs.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [998]);
        let unpacked = unpack(packs).unwrap();
        assert_eq!(unpacked.len(), 499, "epochs without rows are not kept");
        for kept in retained.iter().filter(|kept| !kept.rows.is_empty()) {
            let (clock, rows) = &unpacked[&kept.epoch];
            assert_eq!((*clock, weighted_batches(rows).unwrap()), (kept.clock, weighted_batches(&kept.rows).unwrap()));
        }
        assert!(pack(&retained, |kept| &kept.versions).unwrap().is_empty());
    }
}
