//! Rows that sides of several joins keep together, of one query or of many.
//!
//! ```text
//!   join of query a ─ SharedRows ─┐
//!   join of query b ─ SharedRows ─┼─▶ Cell: one arrangement ◀─ weak ─ SharedArrangements, one per pipeline
//!   join of query c ─ SharedRows ─┘
//! ```
//! **Who shares**: sides with equal [`rows_of_side`](millstream_plan::sharing::rows_of_side) that hold equal rows when they come together:
//! a query begins alone, and compares when it has caught up. After that all get the same changes. Rows under one description may differ
//! (of a stream that retains little, a later query has seen less); each content then has a cell of its own. The last side to go takes it
//! along.
//!
//! **An epoch**: the first side to step applies the change, for all of them; the others find it done. So a side sees the rows of the
//! *new* version, where a side of its own would be one change behind. A side that is alone goes on as with rows of its own.
//! [`SharedArrangements::end_epoch`] says that everybody has stepped. Until then a cell knows the change it has taken, so that
//! a query which is left out of the epoch gets the rows as they were before.
//!
//! **Access**: queries step one after the other. A join has the arrangement in its own hands while it steps, by exchange for an empty one.
//!
//! **Errors**: when a change cannot be applied, the rows are lost for all sides, and each gets that error.

use super::arrangement::{Arrangement, Part};
use super::keys::JoinKeys;
use crate::bucket::Floor;
use crate::chains::NONE;
use crate::error::{DataflowError, Result};
use crate::zset::{with_weights, without_weights};
use arrow::array::{BooleanArray, RecordBatch};
use arrow::datatypes::DataType;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use millstream_plan::bound::BoundContext;
use millstream_types::Epoch;
use millstream_types::delta::{Delta, DeltaBatch, consolidate};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

/// The arrangements that the queries of a pipeline may share. A clone is the same one.
#[derive(Clone)]
pub struct SharedArrangements {
    pool: Arc<dyn MemoryPool>,
    /// By number, which grows and stays the same from one checkpoint to the next.
    cells: Arc<Mutex<BTreeMap<u64, Weak<Cell>>>>,
}

/// What rows are kept, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RowsKey {
    /// Equal for equal rows by equal keys.
    pub(super) rows: String,
    pub(super) key_types: Vec<DataType>,
    pub(super) column_types: Vec<DataType>,
    /// Rows may be taken back.
    pub(super) retracting: bool,
    /// They are those of one shard: its place and the number of shards.
    pub(super) shard: Option<(usize, usize)>,
}

struct Cell {
    number: u64,
    key: RowsKey,
    content: Mutex<Content>,
}

struct Content {
    /// An empty one while a side steps.
    arrangement: Arrangement,
    /// The sides, in the order in which they came.
    holders: Vec<u64>,
    next_holder: u64,
    /// The change of the running epoch, once it is in.
    applied: Option<Applied>,
    /// Why the rows are lost.
    failure: Option<Arc<DataflowError>>,
    reservation: MemoryReservation,
}

struct Applied {
    epoch: Epoch,
    /// What went in: without rows that match nothing.
    change: Delta,
    first_new: u32,
}

/// A side's hold of rows that it shares.
pub(super) struct SharedRows {
    cell: Arc<Cell>,
    holder: u64,
}

/// The rows have the change of the epoch already.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ahead {
    /// Slots from this one on came with it, or [`NONE`] where slots do not tell.
    pub(super) first_new: u32,
}

impl SharedArrangements {
    /// None yet. Their memory is taken from `pool`.
    pub fn new(pool: Arc<dyn MemoryPool>) -> Self {
        Self { pool, cells: Arc::default() }
    }

    /// Every query has stepped: the change of the epoch is that of the rows from now on.
    pub fn end_epoch(&self) {
        for cell in self.living() {
            cell.content.lock().applied = None;
        }
    }

    /// Whether some query holds the rows with this number.
    pub fn has(&self, number: u64) -> bool {
        self.find(number).is_some()
    }

    fn find(&self, number: u64) -> Option<Arc<Cell>> {
        self.cells.lock().get(&number).and_then(Weak::upgrade)
    }

    fn living(&self) -> Vec<Arc<Cell>> {
        self.cells.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// Puts rows of a side together with equal ones of others. `keys`: those of the side.
    pub(super) fn share(&self, key: &RowsKey, rows: Arrangement) -> Result<SharedRows> {
        let mut own = None;
        for cell in self.living().into_iter().filter(|cell| cell.key == *key) {
            let content = cell.content.lock();
            if content.failure.is_some() || content.arrangement.len() != rows.len() {
                continue;
            }
            let own = match own {
                Some(own) => own,
                None => *own.insert(rows.content()?),
            };
            if content.arrangement.content()? == own {
                drop(content);
                return Ok(SharedRows::of(cell));
            }
        }
        let number = self.cells.lock().last_key_value().map_or(1, |(last, _)| last + 1);
        self.put(number, key, rows)
    }

    /// Holds on to the rows with a number from a checkpoint, if some side has brought them back.
    pub(super) fn restored(&self, number: u64, key: &RowsKey) -> Result<Option<SharedRows>> {
        match self.find(number) {
            Some(cell) if cell.key != *key => Err(DataflowError::mismatch(format!("shared rows {number} are those of another join"))),
            cell => Ok(cell.map(SharedRows::of)),
        }
    }

    /// Makes rows known under a number that nobody has.
    pub(super) fn put(&self, number: u64, key: &RowsKey, arrangement: Arrangement) -> Result<SharedRows> {
        let mut reservation = MemoryConsumer::new("shared rows of joins").register(&self.pool);
        reserve(&mut reservation, &arrangement)?;
        let content = Content { arrangement, holders: vec![], next_holder: 0, applied: None, failure: None, reservation };
        let cell = Arc::new(Cell { number, key: key.clone(), content: Mutex::new(content) });
        let mut cells = self.cells.lock();
        // The greatest number stays, so that none comes twice.
        let last = cells.last_key_value().map_or(number, |(last, _)| number.max(*last));
        cells.retain(|number, cell| *number == last || cell.strong_count() > 0);
        cells.insert(number, Arc::downgrade(&cell));
        Ok(SharedRows::of(cell))
    }
}

impl std::fmt::Debug for SharedArrangements {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedArrangements").field("numbers", &self.cells.lock().keys().collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

impl SharedRows {
    fn of(cell: Arc<Cell>) -> Self {
        let mut content = cell.content.lock();
        let holder = content.next_holder;
        content.next_holder += 1;
        content.holders.push(holder);
        drop(content);
        Self { cell, holder }
    }

    /// The number that the rows have in checkpoints.
    pub(super) fn number(&self) -> u64 {
        self.cell.number
    }

    /// Takes the rows for a step in exchange for those of `own`, which are none. If others share them, they have the change `parts` of
    /// the epoch afterwards; else it is for the caller to apply.
    pub(super) fn take(&self, own: &mut Arrangement, parts: &[Part], bounds: &BoundContext) -> Result<Option<Ahead>> {
        let mut content = self.cell.content.lock();
        let content = &mut *content;
        if let Some(failure) = &content.failure {
            return Err(DataflowError::Shared(Arc::clone(failure)));
        }
        let applied = content.applied.take().filter(|applied| applied.epoch == bounds.epoch);
        content.applied = match applied {
            None if !parts.is_empty() && content.holders.len() > 1 => {
                let applied = apply(&mut content.arrangement, parts, bounds);
                Some(applied.map_err(|error| {
                    let error = Arc::new(error.at("Join"));
                    content.failure = Some(Arc::clone(&error));
                    DataflowError::Shared(error)
                })?)
            }
            applied => applied,
        };
        std::mem::swap(&mut content.arrangement, own);
        Ok(content.applied.as_ref().map(|applied| Ahead { first_new: applied.first_new }))
    }

    /// Gives back what [`take`](Self::take) took.
    pub(super) fn put_back(&self, own: &mut Arrangement) -> Result<()> {
        let mut content = self.cell.content.lock();
        let content = &mut *content;
        std::mem::swap(&mut content.arrangement, own);
        reserve(&mut content.reservation, &content.arrangement)
    }

    /// The rows for a checkpoint.
    pub(super) fn checkpoint(&self) -> Result<Vec<RecordBatch>> {
        self.cell.content.lock().arrangement.checkpoint()
    }

    /// A copy of the rows as they were before the running epoch; `None` if they are lost.
    pub(super) fn before_epoch(&self, keys: &JoinKeys) -> Result<Option<Arrangement>> {
        let mut content = self.cell.content.lock();
        if content.failure.is_some() {
            return Ok(None);
        }
        let mut copy = content.arrangement.emptied(keys)?;
        let mut batches = content.arrangement.checkpoint()?;
        if let Some(applied) = &content.applied {
            let schema = content.arrangement.schema();
            let mut rows = batches.iter().map(|batch| without_weights(schema, batch)).collect::<Result<Delta>>()?;
            rows.extend(applied.change.iter().map(DeltaBatch::negated));
            let rows = consolidate(schema, &rows)?;
            batches = rows.into_iter().map(|part| saved(part, self.cell.key.retracting)).collect::<Result<_>>()?;
        }
        copy.restore(&batches, Floor::Unknown, keys)?;
        Ok(Some(copy))
    }

    /// Rows, and bytes, for the first of the sides; the others would count them again.
    pub(super) fn size(&self) -> (usize, usize) {
        let content = self.cell.content.lock();
        match content.holders.first() == Some(&self.holder) {
            true => (content.arrangement.len(), content.arrangement.bytes()),
            false => (0, 0),
        }
    }

    /// How many other sides share the rows.
    pub(super) fn others(&self) -> usize {
        self.cell.content.lock().holders.len() - 1
    }
}

impl Drop for SharedRows {
    fn drop(&mut self) {
        self.cell.content.lock().holders.retain(|holder| *holder != self.holder);
    }
}

fn apply(rows: &mut Arrangement, parts: &[Part], bounds: &BoundContext) -> Result<Applied> {
    let first_new = rows.next_slot().unwrap_or(NONE);
    let mut change = Delta::with_capacity(parts.len());
    for part in parts {
        let out = rows.apply(part, false)?;
        change.push(match out.is_empty() {
            true => part.delta.clone(),
            false => {
                let mut kept = vec![true; part.delta.num_rows()];
                out.iter().for_each(|row| kept[*row as usize] = false);
                part.delta.filter(&BooleanArray::from(kept))?
            }
        });
    }
    rows.settle(bounds)?;
    Ok(Applied { epoch: bounds.epoch, change, first_new })
}

/// Rows as a checkpoint has them. Those that are not taken back each count once.
fn saved(part: DeltaBatch, retracting: bool) -> Result<RecordBatch> {
    let part = if retracting { part } else { DeltaBatch::insertions(part.expanded()?) };
    with_weights(&part.batch, part.weights.to_array(part.num_rows()))
}

fn reserve(reservation: &mut MemoryReservation, rows: &Arrangement) -> Result<()> {
    let bytes = rows.bytes();
    let reserved = reservation.try_resize(bytes);
    reserved.map_err(|source| DataflowError::Memory { operator: String::new(), bytes, source: Box::new(source) })
}
