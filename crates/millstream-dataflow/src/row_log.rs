//! The row log: rows of state in columnar chunks, found by slot.
//!
//! A slot has at most one row; appending a row for a slot makes its older one dead. Chunks are immutable. Small chunks at the end are
//! merged in tiers of eight, so that a million epochs of one row leave a few dozen chunks, and a chunk that is more than half dead is
//! rewritten: the amortised cost of an append is a small constant per row.
//!
//! ```text
//!   order:  [65536] [4096] [512] [512] [8] [1] [1]      oldest first; merges keep it
//!   locations: slot ─▶ (chunk, row)
//! ```
//! A row is live while its slot's location is the row: chunks do not say it again, so that a row dies without a look at its chunk.

use crate::columns::{concat_owned, owned};
use crate::error::{DataflowError, Result};
use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{filter_record_batch, interleave, take};
use arrow::datatypes::SchemaRef;

/// How many chunks of a tier are merged; also the ratio between tiers.
const FAN: usize = 8;
/// Chunks of at least this many rows are rewritten alone when more than half of them is dead.
const REWRITE_ROWS: usize = 256;
/// Rows of a piece of a checkpoint at most.
const PIECE_ROWS: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq)]
struct Location {
    chunk: u32,
    row: u32,
}

const NOWHERE: Location = Location { chunk: u32::MAX, row: u32::MAX };

#[derive(Debug)]
struct Chunk {
    batch: RecordBatch,
    /// By row: the slot whose row it is, or was.
    slots: Vec<u32>,
    live: usize,
    bytes: usize,
    version: u64,
}

/// A chunk, to be read.
pub(crate) struct ChunkRows<'a> {
    chunk: &'a Chunk,
    id: u32,
    locations: &'a [Location],
}

impl<'a> ChunkRows<'a> {
    /// Stands for one content.
    pub(crate) fn version(&self) -> u64 {
        self.chunk.version
    }

    /// Its rows, dead ones included.
    pub(crate) fn batch(&self) -> &'a RecordBatch {
        &self.chunk.batch
    }

    /// Whether no row is dead.
    fn is_whole(&self) -> bool {
        self.chunk.live == self.chunk.slots.len()
    }

    /// By row: its slot, if the row is live.
    pub(crate) fn slots(&self) -> impl Iterator<Item = Option<u32>> {
        let all = self.is_whole();
        let is_live = move |row: usize, slot: u32| all || self.locations[slot as usize] == Location { chunk: self.id, row: row as u32 };
        self.chunk.slots.iter().enumerate().map(move |(row, slot)| is_live(row, *slot).then_some(*slot))
    }

    /// The live rows with their slots.
    fn live(&self) -> Result<(RecordBatch, Vec<u32>)> {
        if self.is_whole() {
            return Ok((self.batch().clone(), self.chunk.slots.clone()));
        }
        let mask = BooleanArray::from_iter(self.slots().map(|slot| Some(slot.is_some())));
        Ok((filter_record_batch(self.batch(), &mask)?, self.slots().flatten().collect()))
    }
}

/// The log.
#[derive(Debug)]
pub(crate) struct RowLog {
    schema: SchemaRef,
    chunks: Vec<Option<Chunk>>,
    free: Vec<u32>,
    order: Vec<u32>,
    locations: Vec<Location>,
    max_chunk_rows: usize,
    live: usize,
    bytes: usize,
    /// Chunks that lost their last row or more than half of them since `settle`.
    sparse: Vec<u32>,
    versions: u64,
}

impl RowLog {
    /// An empty log whose chunks do not grow beyond `max_chunk_rows` by merging.
    pub(crate) fn new(schema: SchemaRef, max_chunk_rows: usize) -> Self {
        Self {
            schema,
            chunks: vec![],
            free: vec![],
            order: vec![],
            locations: vec![],
            max_chunk_rows,
            live: 0,
            bytes: 0,
            sparse: vec![],
            versions: 0,
        }
    }

    /// Columns of the rows.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Number of slots that have a row.
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    /// Memory in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes + self.locations.capacity() * size_of::<Location>()
    }

    /// Appends row `i` of `batch` for `slots[i]`; slots are distinct.
    pub(crate) fn append(&mut self, batch: &RecordBatch, slots: &[u32]) -> Result<()> {
        self.append_chunk(batch, slots)?;
        self.settle()
    }

    /// As [`append`](Self::append), but the rows stay a chunk of their own for now.
    pub(crate) fn append_chunk(&mut self, batch: &RecordBatch, slots: &[u32]) -> Result<()> {
        if batch.num_rows() != slots.len() {
            return Err(DataflowError::internal(format!("{} rows for {} slots", batch.num_rows(), slots.len())));
        }
        if slots.is_empty() {
            return Ok(());
        }
        let length = slots.iter().max().map_or(0, |last| *last as usize + 1);
        if self.locations.len() < length {
            self.locations.resize(length, NOWHERE);
        }
        self.kill(slots);
        self.push(owned(batch)?, slots.to_vec());
        Ok(())
    }

    /// Forgets the rows of these slots.
    pub(crate) fn remove(&mut self, slots: &[u32]) -> Result<()> {
        self.kill(slots);
        self.settle()
    }

    /// Columns `columns` of the rows of `slots`, in their order.
    pub(crate) fn gather(&self, slots: &[u32], columns: impl IntoIterator<Item = usize>) -> Result<Vec<ArrayRef>> {
        let columns = columns.into_iter();
        let mut used: Vec<&RecordBatch> = Vec::new();
        // By chunk: its place in `used`.
        let mut places = vec![usize::MAX; self.chunks.len()];
        let mut rows: Vec<(usize, usize)> = Vec::with_capacity(slots.len());
        for (slot, Location { chunk, row }) in slots.iter().zip(self.locations(slots)) {
            let place = match places.get(chunk as usize).copied() {
                Some(usize::MAX) | None => {
                    let found = self.chunks.get(chunk as usize).and_then(Option::as_ref);
                    let found = found.ok_or_else(|| DataflowError::internal(format!("slot {slot} has no row")))?;
                    used.push(&found.batch);
                    places[chunk as usize] = used.len() - 1;
                    used.len() - 1
                }
                Some(place) => place,
            };
            rows.push((place, row as usize));
        }
        match used.as_slice() {
            [] => Ok(columns.map(|column| arrow::array::new_empty_array(self.schema.field(column).data_type())).collect()),
            [only] => {
                let indices = UInt32Array::from_iter_values(rows.iter().map(|(_, row)| *row as u32));
                columns.map(|column| Ok(take(only.column(column), &indices, None)?)).collect()
            }
            _ => columns
                .map(|column| {
                    let arrays: Vec<&dyn Array> = used.iter().map(|batch| batch.column(column).as_ref()).collect();
                    Ok(interleave(&arrays, &rows)?)
                })
                .collect(),
        }
    }

    /// Where the rows of slots are. In a loop of its own, so that the memory accesses overlap.
    fn locations(&self, slots: &[u32]) -> Vec<Location> {
        slots.iter().map(|slot| self.locations[*slot as usize]).collect()
    }

    /// Brings slots into the order of [`live`](Self::live), oldest first. It is also the quickest to gather.
    pub(crate) fn sort(&self, slots: &mut [u32]) {
        let mut places = vec![u32::MAX; self.chunks.len()];
        self.order.iter().enumerate().for_each(|(place, id)| places[*id as usize] = place as u32);
        slots.sort_unstable_by_key(|slot| {
            let Location { chunk, row } = self.locations[*slot as usize];
            (places.get(chunk as usize).copied().unwrap_or(u32::MAX), row)
        });
    }

    /// The live rows, oldest first, with their slots.
    pub(crate) fn live(&self) -> Result<Vec<(RecordBatch, Vec<u32>)>> {
        self.chunks().map(|chunk| chunk.live()).collect()
    }

    /// The chunks, oldest first.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = ChunkRows<'_>> {
        self.order.iter().filter_map(|id| self.chunk(*id))
    }

    fn chunk(&self, id: u32) -> Option<ChunkRows<'_>> {
        let chunk = self.chunks[id as usize].as_ref()?;
        Some(ChunkRows { chunk, id, locations: &self.locations })
    }

    /// Gives the chunk of a slot's row a new version: something beside the row has changed.
    pub(crate) fn touch(&mut self, slot: u32) {
        let location = self.locations.get(slot as usize).copied().unwrap_or(NOWHERE);
        self.versions += 1;
        if let Some(chunk) = self.chunks.get_mut(location.chunk as usize).and_then(Option::as_mut) {
            chunk.version = self.versions;
        }
    }

    fn push(&mut self, batch: RecordBatch, slots: Vec<u32>) {
        let id = self.free.pop().unwrap_or_else(|| {
            self.chunks.push(None);
            self.chunks.len() as u32 - 1
        });
        for (row, &slot) in slots.iter().enumerate() {
            self.locations[slot as usize] = Location { chunk: id, row: row as u32 };
        }
        let bytes = batch.get_array_memory_size() + 4 * slots.len();
        self.live += slots.len();
        self.bytes += bytes;
        self.order.push(id);
        let live = slots.len();
        self.versions += 1;
        self.chunks[id as usize] = Some(Chunk { batch, slots, live, bytes, version: self.versions });
    }

    /// The rows of these slots are no longer theirs.
    fn kill(&mut self, slots: &[u32]) {
        for (slot, location) in slots.iter().zip(self.locations(slots)) {
            let Some(chunk) = self.chunks.get_mut(location.chunk as usize).and_then(Option::as_mut) else { continue };
            self.locations[*slot as usize] = NOWHERE;
            chunk.live -= 1;
            self.live -= 1;
            self.versions += 1;
            chunk.version = self.versions;
            let rows = chunk.slots.len();
            // Queued once: when the last row dies, or on the way down past one half.
            if chunk.live == 0 || (rows >= REWRITE_ROWS && chunk.live == rows / 2 - 1) {
                self.sparse.push(location.chunk);
            }
        }
    }

    fn drop_chunk(&mut self, id: u32) {
        if let Some(chunk) = self.chunks[id as usize].take() {
            self.bytes -= chunk.bytes;
            self.free.push(id);
        }
    }

    /// The live rows, oldest first, with their slots, for a checkpoint. They share the memory of the chunks, which have no dead rows
    /// afterwards, and come in pieces that are encoded without much memory.
    pub(crate) fn checkpoint(&mut self) -> Result<Vec<(RecordBatch, Vec<u32>)>> {
        self.compact()?;
        let pieces = self.chunks().flat_map(|ChunkRows { chunk, .. }| {
            let piece = |(place, slots): (usize, &[u32])| (chunk.batch.slice(place * PIECE_ROWS, slots.len()), slots.to_vec());
            chunk.slots.chunks(PIECE_ROWS).enumerate().map(piece)
        });
        Ok(pieces.collect())
    }

    /// Gives up the memory of dead rows.
    pub(crate) fn compact(&mut self) -> Result<()> {
        for place in 0..self.order.len() {
            let id = self.order[place];
            if self.chunk(id).is_some_and(|chunk| !chunk.is_whole()) {
                self.rewrite(id)?;
            }
        }
        Ok(())
    }

    /// A chunk without its dead rows.
    fn rewrite(&mut self, id: u32) -> Result<()> {
        let Some((batch, slots)) = self.chunk(id).map(|chunk| chunk.live()).transpose()? else { return Ok(()) };
        let batch = owned(&batch)?;
        for (row, &slot) in slots.iter().enumerate() {
            self.locations[slot as usize].row = row as u32;
        }
        self.versions += 1;
        let bytes = batch.get_array_memory_size() + 4 * slots.len();
        let live = slots.len();
        let before = self.chunks[id as usize].replace(Chunk { batch, slots, live, bytes, version: self.versions });
        self.bytes = self.bytes + bytes - before.map_or(0, |chunk| chunk.bytes);
        Ok(())
    }

    /// Merges small chunks at the end, rewrites or drops sparse ones.
    fn settle(&mut self) -> Result<()> {
        let mut dropped = false;
        for id in std::mem::take(&mut self.sparse) {
            let Some(chunk) = self.chunks[id as usize].as_ref() else { continue };
            if chunk.live == 0 {
                self.drop_chunk(id);
                // The id must not be reused before `order` has forgotten it.
                self.free.pop();
                dropped = true;
            } else if chunk.slots.len() >= REWRITE_ROWS && chunk.live * 2 < chunk.slots.len() {
                self.rewrite(id)?;
            }
        }
        if dropped {
            let chunks = &self.chunks;
            self.order.retain(|id| chunks[*id as usize].is_some());
            self.free = (0..self.chunks.len() as u32).filter(|id| self.chunks[*id as usize].is_none()).rev().collect();
        }
        while let Some(count) = self.mergeable() {
            let ids = self.order.split_off(self.order.len() - count);
            let mut batches = Vec::with_capacity(count);
            let mut slots = Vec::new();
            for id in ids {
                if let Some((batch, live)) = self.chunk(id).map(|chunk| chunk.live()).transpose()? {
                    self.drop_chunk(id);
                    self.live -= live.len();
                    batches.push(batch);
                    slots.extend(live);
                }
            }
            let merged = concat_owned(&self.schema, &batches)?;
            self.push(merged, slots);
        }
        Ok(())
    }

    /// How many chunks at the end to merge: the run of chunks whose tier is not above the last one's, when it is long enough.
    fn mergeable(&self) -> Option<usize> {
        let live = |id: &u32| self.chunks[*id as usize].as_ref().map_or(0, |chunk| chunk.live);
        let tier = live(self.order.last()?).max(1).ilog(FAN);
        let (mut count, mut rows) = (0, 0);
        for id in self.order.iter().rev() {
            let next = live(id);
            if next.max(1).ilog(FAN) > tier || rows + next > self.max_chunk_rows {
                break;
            }
            count += 1;
            rows += next;
        }
        (count >= FAN).then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    #[test]
    fn random_appends_and_removals_agree_with_a_map() {
        let schema = Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, false)]));
        let mut rng = SmallRng::seed_from_u64(11);
        let mut log = RowLog::new(Arc::clone(&schema), 512);
        let mut model: BTreeMap<u32, i64> = BTreeMap::new();
        for step in 0..2000i64 {
            let count = if rng.random_bool(0.05) { 200 } else { rng.random_range(1..3) };
            let slots: std::collections::BTreeSet<u32> = (0..count).map(|_| rng.random_range(0..600)).collect();
            let slots: Vec<u32> = slots.into_iter().collect();
            if rng.random_bool(0.3) {
                let slots: Vec<u32> = slots.into_iter().filter(|slot| model.remove(slot).is_some()).collect();
                log.remove(&slots).unwrap();
            } else {
                let values = Int64Array::from_iter_values(slots.iter().map(|slot| step * 1000 + i64::from(*slot)));
                model.extend(slots.iter().copied().zip(values.values().iter().copied()));
                log.append(&RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(values)]).unwrap(), &slots).unwrap();
            }
            assert_eq!(log.len(), model.len());
            if step % 50 == 0 {
                let saved: Vec<u32> = log.checkpoint().unwrap().into_iter().flat_map(|(_, slots)| slots).collect();
                assert_eq!(saved.len(), model.len());
                assert!(log.chunks().all(|chunk| chunk.is_whole()));
            }
            let all: Vec<u32> = model.keys().copied().collect();
            let gathered = log.gather(&all, 0..1).unwrap();
            let expected: Vec<i64> = model.values().copied().collect();
            assert_eq!(gathered[0].as_primitive::<Int64Type>().values(), expected.as_slice());
            let in_order: Vec<u32> = log.live().unwrap().into_iter().flat_map(|(_, slots)| slots).collect();
            let mut sorted = all;
            log.sort(&mut sorted);
            assert_eq!(sorted, in_order);
            assert!(log.chunks().count() < 60, "{} chunks", log.chunks().count());
        }
    }

    #[test]
    fn a_checkpoint_has_the_live_rows_in_pieces() {
        let schema = Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, false)]));
        let mut log = RowLog::new(Arc::clone(&schema), 1 << 20);
        let count = 3 * PIECE_ROWS as u32;
        let values = Int64Array::from_iter_values((0..count).map(|slot| i64::from(slot) * 7));
        let slots: Vec<u32> = (0..count).collect();
        log.append(&RecordBatch::try_new(schema, vec![Arc::new(values)]).unwrap(), &slots).unwrap();
        log.remove(&[5, 20_000]).unwrap();
        let pieces = log.checkpoint().unwrap();
        assert_eq!(pieces.iter().map(|(batch, _)| batch.num_rows()).collect::<Vec<_>>(), [PIECE_ROWS, PIECE_ROWS, PIECE_ROWS - 2]);
        let mut saved = vec![];
        for (batch, slots) in &pieces {
            saved.extend_from_slice(slots);
            let values: Vec<i64> = slots.iter().map(|slot| i64::from(*slot) * 7).collect();
            assert_eq!(batch.column(0).as_primitive::<Int64Type>().values(), values.as_slice());
        }
        assert_eq!(saved, slots.into_iter().filter(|slot| ![5, 20_000].contains(slot)).collect::<Vec<_>>());
    }
}
