//! Rows of state by key.
//!
//! The keys are slots that somebody else gives out. Content comes out in one order, that of the log, whether it is the content of
//! some keys or of all: what depends on the order of rows does not depend on which other keys are read with them.

use crate::chains::{Chains, NONE};
use crate::columns::{describe_row, make_batch, take_rows};
use crate::error::{DataflowError, Result};
use crate::key_index::KeyIndex;
use crate::row_log::RowLog;
use crate::zset::{with_weights, without_weights};
use arrow::array::{RecordBatch, UInt32Array};
use arrow::datatypes::SchemaRef;
use millstream_types::delta::DeltaBatch;
use millstream_types::row_key::types_of;
use std::sync::Arc;

/// Chunks of state are merged up to this many rows.
const CHUNK_ROWS: usize = 256 * 1024;
/// Rows are gathered in batches of this size.
const GATHER_ROWS: usize = 64 * 1024;

/// The rows.
#[derive(Debug)]
pub(super) struct KeyedRows {
    log: RowLog,
    chains: Chains,
    /// By slot of the row.
    weights: Vec<i64>,
    /// Finds rows that may be taken back; then equal rows share a slot.
    identity: Option<KeyIndex>,
    /// Slots without a row, if `identity` does not keep them.
    free: Vec<u32>,
}

impl KeyedRows {
    /// No rows yet. With `retracting` they may be taken back one by one.
    pub(super) fn new(schema: &SchemaRef, retracting: bool) -> Result<Self> {
        Ok(Self {
            log: RowLog::new(Arc::clone(schema), CHUNK_ROWS),
            chains: Chains::default(),
            weights: vec![],
            identity: if retracting { Some(KeyIndex::new(&types_of(schema.fields()))?) } else { None },
            free: vec![],
        })
    }

    /// Columns of the rows.
    pub(super) fn schema(&self) -> &SchemaRef {
        self.log.schema()
    }

    /// Number of distinct rows; of rows, if they are never taken back.
    pub(super) fn len(&self) -> usize {
        self.log.len()
    }

    /// Number of rows of a key, counted as by [`len`](Self::len).
    pub(super) fn len_of(&self, key: u32) -> usize {
        self.chains.len(key)
    }

    /// Memory in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.log.bytes()
            + self.chains.bytes()
            + self.identity.as_ref().map_or(0, KeyIndex::bytes)
            + 8 * self.weights.capacity()
            + 4 * self.free.capacity()
    }

    /// Adds a change; row `i` has the key `keys[i]`. Returns the slots of the rows, [`NONE`] for those that are gone.
    pub(super) fn apply(&mut self, part: &DeltaBatch, keys: &[u32]) -> Result<Vec<u32>> {
        let identity = self.identity.as_ref().map(|rows| rows.encode(part.batch.columns())).transpose()?;
        let (mut new, mut slots, mut removed) = (Vec::with_capacity(keys.len()), Vec::with_capacity(keys.len()), Vec::new());
        let mut of_rows = vec![NONE; keys.len()];
        for (row, key) in keys.iter().enumerate() {
            let found = match (&self.identity, &identity) {
                (Some(rows), Some(identity)) => rows.find(identity, row),
                _ => None,
            };
            let old = found.map_or(0, |slot| self.weights[slot as usize]);
            let sum = old.checked_add(part.weights.value(row));
            let sum = sum.ok_or_else(|| DataflowError::internal("the multiplicity of a row exceeds 64 bits"))?;
            if sum < 0 {
                let row = describe_row(self.schema(), part.batch.columns(), row);
                return Err(DataflowError::NegativeWeight { relation: String::new(), row, weight: sum });
            }
            match found {
                Some(slot) if sum == 0 => {
                    self.forget(slot);
                    removed.push(slot);
                }
                Some(slot) => {
                    self.weights[slot as usize] = sum;
                    of_rows[row] = slot;
                }
                None if sum == 0 => {}
                None => {
                    let slot = match (&mut self.identity, &identity) {
                        (Some(rows), Some(identity)) => rows.insert(identity, row),
                        _ => self.free.pop().unwrap_or(self.weights.len() as u32),
                    };
                    self.weights.resize(self.weights.len().max(slot as usize + 1), 0);
                    self.weights[slot as usize] = sum;
                    self.chains.push(*key, slot);
                    new.push(row as u32);
                    slots.push(slot);
                    of_rows[row] = slot;
                }
            }
        }
        // A removed slot may have been given to a new row: old rows leave first.
        self.remove_slots(&removed)?;
        let rows = if new.len() == part.num_rows() { part.batch.clone() } else { take_rows(&part.batch, &UInt32Array::from(new))? };
        self.log.append(&rows, &slots)?;
        Ok(of_rows)
    }

    /// The slots of the rows of a key, repeated by weight.
    pub(super) fn slots_of(&self, key: u32) -> Vec<u32> {
        let slots = self.chains.slots(&[key]).into_iter();
        slots.flat_map(|slot| std::iter::repeat_n(slot, usize::try_from(self.weights[slot as usize]).unwrap_or(0))).collect()
    }

    /// The rows of slots, in their order.
    pub(super) fn gather(&self, slots: &[u32]) -> Result<RecordBatch> {
        make_batch(self.schema(), self.log.gather(slots, 0..self.schema().fields().len())?, slots.len())
    }

    /// Forgets all rows of distinct keys.
    pub(super) fn remove(&mut self, keys: &[u32]) -> Result<()> {
        let slots = self.chains.slots(keys);
        slots.iter().for_each(|slot| self.forget(*slot));
        self.remove_slots(&slots)
    }

    fn forget(&mut self, slot: u32) {
        self.weights[slot as usize] = 0;
        self.chains.unlink(slot);
        match &mut self.identity {
            Some(rows) => rows.remove(slot),
            None => self.free.push(slot),
        }
    }

    fn remove_slots(&mut self, slots: &[u32]) -> Result<()> {
        if slots.is_empty() {
            return Ok(());
        }
        if let Some(rows) = &mut self.identity {
            rows.shrink();
        }
        self.log.remove(slots)
    }

    /// The rows of distinct keys, repeated by weight.
    pub(super) fn of(&self, keys: &[u32]) -> Result<Vec<RecordBatch>> {
        let mut slots = self.chains.slots(keys);
        self.log.sort(&mut slots);
        if !slots.iter().all(|slot| self.weights[*slot as usize] == 1) {
            slots = slots.into_iter().flat_map(|slot| std::iter::repeat_n(slot, self.weights[slot as usize] as usize)).collect();
        }
        let columns = self.schema().fields().len();
        let batch = |slots: &[u32]| make_batch(self.schema(), self.log.gather(slots, 0..columns)?, slots.len());
        slots.chunks(GATHER_ROWS).map(batch).collect()
    }

    /// All rows, repeated by weight.
    pub(super) fn all(&self) -> Result<Vec<RecordBatch>> {
        let repeated = |(batch, slots): (RecordBatch, Vec<u32>)| {
            let weight = |slot: &u32| self.weights[*slot as usize];
            if slots.iter().all(|slot| weight(slot) == 1) {
                return Ok(batch);
            }
            let rows = slots.iter().enumerate().flat_map(|(row, slot)| std::iter::repeat_n(row as u32, weight(slot) as usize));
            take_rows(&batch, &UInt32Array::from_iter_values(rows))
        };
        self.log.live()?.into_iter().map(repeated).collect()
    }

    /// The rows with a last column `__weight`.
    pub(super) fn checkpoint(&mut self) -> Result<Vec<RecordBatch>> {
        self.log.compact()?;
        let weighted =
            |(batch, slots): (RecordBatch, Vec<u32>)| with_weights(&batch, slots.iter().map(|slot| self.weights[*slot as usize]).collect());
        self.log.live()?.into_iter().map(weighted).collect()
    }

    /// Loads what [`checkpoint`](Self::checkpoint) returned, chunk by chunk; `keys` gives the keys of a batch.
    pub(super) fn restore(&mut self, batches: &[RecordBatch], mut keys: impl FnMut(&RecordBatch) -> Result<Vec<u32>>) -> Result<()> {
        for batch in batches {
            let DeltaBatch { batch, weights } = without_weights(self.schema(), batch)?;
            let identity = self.identity.as_ref().map(|rows| rows.encode(batch.columns())).transpose()?;
            let mut slots = Vec::with_capacity(batch.num_rows());
            for (row, key) in keys(&batch)?.into_iter().enumerate() {
                let slot = match (&mut self.identity, &identity) {
                    (Some(rows), Some(identity)) if rows.find(identity, row).is_none() => rows.insert(identity, row),
                    (Some(_), _) => return Err(DataflowError::mismatch("a row occurs twice")),
                    (None, _) => self.weights.len() as u32,
                };
                if weights.value(row) < 1 {
                    return Err(DataflowError::mismatch("the weight of a row is not positive"));
                }
                self.weights.resize(self.weights.len().max(slot as usize + 1), 0);
                self.weights[slot as usize] = weights.value(row);
                self.chains.push(key, slot);
                slots.push(slot);
            }
            self.log.append_chunk(&batch, &slots)?;
        }
        Ok(())
    }
}
