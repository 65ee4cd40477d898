//! WindowClose: holds rows back until a bound says that they are final.
//!
//! ```sql
//! SELECT ... EMIT ON WINDOW CLOSE
//! ```
//! ```text
//!   rows by window_end     12:05   12:10   12:15          bound 12:12
//!                          ─────── ───────                these go out, once, in this order
//! ```
//! **In**: any schema with the bounded column. **Out**: the same rows, append-only: each row whose weight is positive when the bound
//! passes its value, as often as that weight says. **State**: the pending rows with their weights (`pending`: columns, `__weight`, in
//! the order in which they will close) and the bound so far; dropped when handed out. Rows that come below the bound are counted
//! as dropped. **Errors**: a pending row whose weight becomes negative.

use crate::bucket::{BucketColumn, Buckets, Floor};
use crate::columns::{describe_row, make_batch, owned, take_rows};
use crate::error::{DataflowError, Result};
use crate::key_index::KeyIndex;
use crate::operator::{Operator, Saved, StateStats, StepContext};
use crate::operators::registry::BuildContext;
use crate::row_log::RowLog;
use crate::zset::{with_weights, without_weights};
use arrow::array::{BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use millstream_plan::graph::{Bucket, Node};
use millstream_types::delta::{Delta, DeltaBatch, Weights, concat, consolidate};
use millstream_types::row_key::types_of;
use std::sync::Arc;

const FORMAT: u32 = 1;
const CHUNK_ROWS: usize = 256 * 1024;
const CHECKPOINT_ROWS: usize = 64 * 1024;

/// The operator.
pub(crate) struct WindowClose {
    schema: SchemaRef,
    bucket: BucketColumn,
    /// Finds rows that may be taken back; `None` for append-only input.
    index: Option<KeyIndex>,
    log: RowLog,
    weights: Vec<i64>,
    buckets: Buckets,
    /// Slots without an index.
    free: Vec<u32>,
    dropped_rows: u64,
    touched_keys: u64,
}

impl WindowClose {
    pub(crate) fn new(node: &Node, bucket: &Bucket, context: &BuildContext<'_>) -> Result<Self> {
        let schema = Arc::clone(&node.schema);
        let retracting = !context.input(node, 0).properties.append_only;
        Ok(Self {
            bucket: BucketColumn::new(bucket.column, Arc::clone(&bucket.bound), schema.field(bucket.column).data_type())?,
            index: if retracting { Some(KeyIndex::new(&types_of(schema.fields()))?) } else { None },
            log: RowLog::new(Arc::clone(&schema), CHUNK_ROWS),
            weights: vec![],
            buckets: Buckets::default(),
            free: vec![],
            dropped_rows: 0,
            touched_keys: 0,
            schema,
        })
    }

    /// The input without the rows that are below the old bound.
    fn admit(&mut self, delta: &[DeltaBatch]) -> Result<Delta> {
        let mut admitted = Vec::with_capacity(delta.len());
        for part in delta {
            let keys = self.bucket.keys(part.batch.column(self.bucket.column))?;
            let mask = BooleanArray::from_iter(keys.iter().map(|key| Some(!self.bucket.floor.passed(key))));
            let kept = mask.true_count();
            if kept == part.num_rows() {
                admitted.push(part.clone());
            } else {
                self.dropped_rows += (part.num_rows() - kept) as u64;
                tracing::warn!(rows = part.num_rows() - kept, "rows below the bound were dropped");
                if kept > 0 {
                    admitted.push(part.filter(&mask)?);
                }
            }
        }
        Ok(admitted)
    }

    /// Adds rows to the pending ones. Append-only rows that are final already never enter the state, they are returned.
    fn store(&mut self, delta: &[DeltaBatch], floor: &Floor) -> Result<Delta> {
        let mut direct = Vec::new();
        for part in &consolidate(&self.schema, delta)? {
            let keys = self.bucket.keys(part.batch.column(self.bucket.column))?;
            let encoded = self.index.as_ref().map(|index| index.encode(part.batch.columns())).transpose()?;
            let (mut rows, mut slots, mut removed) = (Vec::new(), Vec::new(), Vec::new());
            let mut passing = Vec::new();
            for (row, key) in keys.iter().enumerate() {
                let weight = part.weights.value(row);
                let found = match (&self.index, &encoded) {
                    (Some(index), Some(encoded)) => index.find(encoded, row),
                    _ => None,
                };
                let new = found.map_or(0, |slot| self.weights[slot as usize]).checked_add(weight);
                let new = new.ok_or_else(|| DataflowError::internal("the multiplicity of a row exceeds 64 bits"))?;
                if new < 0 {
                    let row = describe_row(&self.schema, part.batch.columns(), row);
                    return Err(DataflowError::NegativeWeight { relation: String::new(), row, weight: new });
                }
                match found {
                    Some(slot) if new == 0 => {
                        self.weights[slot as usize] = 0;
                        self.buckets.remove(key, slot);
                        if let Some(index) = &mut self.index {
                            index.remove(slot);
                        }
                        removed.push(slot);
                    }
                    Some(slot) => self.weights[slot as usize] = new,
                    None if new == 0 => {}
                    None if self.index.is_none() && floor.passed(key) => passing.push(row as u32),
                    None => {
                        let slot = match (&mut self.index, &encoded) {
                            (Some(index), Some(encoded)) => index.insert(encoded, row),
                            _ => self.free.pop().unwrap_or(self.weights.len() as u32),
                        };
                        self.weights.resize(self.weights.len().max(slot as usize + 1), 0);
                        self.weights[slot as usize] = new;
                        self.buckets.insert(key, slot);
                        rows.push(row as u32);
                        slots.push(slot);
                    }
                }
            }
            self.touched_keys += keys.len() as u64;
            self.log.remove(&removed)?;
            self.log.append(&take_rows(&part.batch, &UInt32Array::from(rows))?, &slots)?;
            if passing.len() == part.num_rows() {
                direct.push(part.clone());
            } else if !passing.is_empty() {
                direct.push(part.take(&UInt32Array::from(passing))?);
            }
        }
        Ok(direct)
    }

    /// Takes the pending rows out that are final now.
    fn close(&mut self, floor: &Floor) -> Result<Option<DeltaBatch>> {
        let slots = self.buckets.pop_passed(floor);
        if slots.is_empty() {
            return Ok(None);
        }
        let columns = self.log.gather(&slots, 0..self.schema.fields().len())?;
        let weights = Int64Array::from_iter_values(slots.iter().map(|slot| self.weights[*slot as usize]));
        self.log.remove(&slots)?;
        match &mut self.index {
            Some(index) => index.remove_all(&slots),
            None => self.free.extend_from_slice(&slots),
        }
        let batch = make_batch(&self.schema, columns, slots.len())?;
        let batch = owned(&batch)?;
        let ones = weights.values().iter().all(|weight| *weight == 1);
        Ok(Some(DeltaBatch { batch, weights: if ones { Weights::Ones } else { Weights::I64(weights) } }))
    }

    /// One batch ordered by bucket; rows of a bucket keep their order.
    fn ordered(&self, parts: Delta) -> Result<Delta> {
        if parts.is_empty() {
            return Ok(parts);
        }
        let all = concat(&self.schema, &parts)?;
        let keys = self.bucket.keys(all.batch.column(self.bucket.column))?;
        if keys.is_sorted() {
            return Ok(vec![all]);
        }
        let mut order: Vec<u32> = (0..all.num_rows() as u32).collect();
        order.sort_by(|a, b| keys[*a as usize].cmp(&keys[*b as usize]));
        Ok(vec![all.take(&UInt32Array::from(order))?])
    }
}

#[async_trait]
impl Operator for WindowClose {
    fn needs_step(&self, context: &StepContext<'_>) -> Result<bool> {
        Ok(self.log.len() > 0 && self.buckets.any_passed(&self.bucket.read(context.bounds)?))
    }

    async fn step(&mut self, inputs: &[&[DeltaBatch]], context: &StepContext<'_>) -> Result<Delta> {
        let floor = self.bucket.read(context.bounds)?;
        let admitted = self.admit(inputs[0])?;
        let direct = self.store(&admitted, &floor)?;
        let mut parts: Delta = self.close(&floor)?.into_iter().collect();
        parts.extend(direct.into_iter().filter(|part| part.num_rows() > 0));
        self.bucket.floor = floor;
        self.ordered(parts)
    }

    fn checkpoint(&mut self) -> Result<Option<Saved>> {
        let slots = self.buckets.ordered();
        let mut batches: Vec<RecordBatch> = Vec::new();
        for slots in slots.chunks(CHECKPOINT_ROWS) {
            let batch = make_batch(&self.schema, self.log.gather(slots, 0..self.schema.fields().len())?, slots.len())?;
            let weights = Int64Array::from_iter_values(slots.iter().map(|slot| self.weights[*slot as usize]));
            batches.push(with_weights(&owned(&batch)?, weights)?);
        }
        let detail = serde_json::json!({ "floor": self.bucket.floor });
        Ok(Some(Saved { format: FORMAT, groups: vec![("pending".into(), batches)], detail }))
    }

    fn restore(&mut self, saved: &Saved) -> Result<()> {
        saved.expect_format(FORMAT)?;
        self.bucket.floor = saved.detail("floor")?;
        let pending = saved.group("pending").iter().map(|batch| without_weights(&self.schema, batch)).collect::<Result<Vec<_>>>()?;
        self.store(&pending, &Floor::Unknown)?;
        Ok(())
    }

    fn stats(&self) -> StateStats {
        StateStats {
            rows: self.log.len(),
            bytes: self.log.bytes() + self.index.as_ref().map_or(0, KeyIndex::bytes) + self.buckets.bytes() + 8 * self.weights.capacity(),
            touched_keys: self.touched_keys,
            dropped_rows: self.dropped_rows,
            ..StateStats::default()
        }
    }
}
