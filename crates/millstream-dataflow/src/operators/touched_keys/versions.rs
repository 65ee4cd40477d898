//! Versions that can no longer change: of each key, the rows before the last one below the bound.
//!
//! Later rows come above the bound, so they stand behind that last row, and no row before it gets another next one. What is forgotten
//! is not taken back: it stays in the result, of which the operator keeps only what it may have to compare. A key is looked at when it
//! is touched; until then it keeps what was above the bound then.

use super::TouchedKeys;
use crate::bucket::{BucketColumn, BucketKey, Floor};
use crate::error::{DataflowError, Result};
use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use millstream_plan::bound::BoundContext;
use millstream_plan::graph::Versions;
use millstream_types::delta::DeltaBatch;
use std::collections::HashMap;
use std::sync::Arc;

/// Up to where versions are final.
#[derive(Debug)]
pub(super) struct Horizon {
    /// The time of the input rows.
    time: BucketColumn,
    /// The output column with the same time.
    output: usize,
}

/// Rows with their keys and times.
struct Timed {
    batch: RecordBatch,
    keys: Vec<u32>,
    times: Vec<BucketKey>,
}

impl Timed {
    /// The rows that are not before the last one of their key; all keys are in `last`.
    fn kept(self, last: &HashMap<u32, BucketKey>) -> Result<(DeltaBatch, Vec<u32>)> {
        let keeps: Vec<bool> = self.keys.iter().zip(&self.times).map(|(key, time)| last.get(key).is_none_or(|last| time >= last)).collect();
        let keys = self.keys.iter().zip(&keeps).filter(|(_, keep)| **keep).map(|(key, _)| *key).collect();
        Ok((DeltaBatch::insertions(filter_record_batch(&self.batch, &BooleanArray::from(keeps))?), keys))
    }
}

impl Horizon {
    pub(super) fn new(versions: &Versions, input: &SchemaRef) -> Result<Self> {
        let data_type = input.field(versions.input_time).data_type();
        Ok(Self { time: BucketColumn::new(versions.input_time, Arc::clone(&versions.bound), data_type)?, output: versions.time })
    }
}

impl TouchedKeys {
    /// Forgets the versions of touched keys that are final.
    pub(super) fn forget_versions(&mut self, keys: &[u32], bounds: &BoundContext) -> Result<()> {
        let Some(horizon) = &mut self.horizon else { return Ok(()) };
        let floor = horizon.time.read(bounds)?;
        horizon.time.floor = floor.clone();
        if floor == Floor::Unknown || keys.is_empty() {
            return Ok(());
        }
        let column = horizon.time.column;
        let mut rows = vec![];
        let mut last: HashMap<u32, BucketKey> = HashMap::new();
        for batch in self.rows.of(keys)? {
            let times = horizon.time.keys(batch.column(column))?;
            let columns = self.keys.of_input(&batch)?;
            let (keys, _) = self.keys.insert(&columns, batch.num_rows())?;
            for (key, time) in keys.iter().zip(&times).filter(|(_, time)| floor.passed(time) && **time != BucketKey::Null) {
                match last.get_mut(key) {
                    Some(known) => {
                        if *known < *time {
                            *known = time.clone();
                        }
                    }
                    None => {
                        last.insert(*key, time.clone());
                    }
                }
            }
            rows.push(Timed { batch, keys, times });
        }
        let is_final = |timed: &Timed, row: usize| last.get(&timed.keys[row]).is_some_and(|last| timed.times[row] < *last);
        let mut pruned: Vec<u32> =
            rows.iter().flat_map(|timed| (0..timed.keys.len()).filter(|row| is_final(timed, *row)).map(|row| timed.keys[row])).collect();
        pruned.sort_unstable();
        pruned.dedup();
        if pruned.is_empty() {
            return Ok(());
        }
        let output = horizon.output;
        let Some(results) = &mut self.results else { return Err(DataflowError::internal("versions are not handed out on close")) };
        let mut kept = vec![];
        for batch in results.of(&pruned)? {
            let times = horizon.time.keys(batch.column(output))?;
            let keys = self.keys.of_results(&batch)?;
            kept.push(Timed { batch, keys, times }.kept(&last)?);
        }
        results.remove(&pruned)?;
        for (part, keys) in kept {
            results.apply(&part, &keys)?;
        }
        let rows = rows.into_iter().map(|timed| timed.of(&pruned)?.kept(&last)).collect::<Result<Vec<_>>>()?;
        self.rows.remove(&pruned)?;
        for (part, keys) in rows {
            self.rows.apply(&part, &keys)?;
        }
        Ok(())
    }
}

impl Timed {
    /// The rows of some keys, which are sorted.
    fn of(self, wanted: &[u32]) -> Result<Timed> {
        let of_them: Vec<bool> = self.keys.iter().map(|key| wanted.binary_search(key).is_ok()).collect();
        let picked = |row: &usize| of_them[*row];
        let keys = (0..self.keys.len()).filter(picked).map(|row| self.keys[row]).collect();
        let times = (0..self.keys.len()).filter(picked).map(|row| self.times[row].clone()).collect();
        Ok(Timed { batch: filter_record_batch(&self.batch, &BooleanArray::from(of_them.clone()))?, keys, times })
    }
}
