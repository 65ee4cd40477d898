//! Kept relations: the sum of all changes of an input.
//!
//! A [`ZSet`] holds rows with positive weights. Append-only relations are a list of batches; others find their rows again by the
//! canonical encoding of the whole row, or of a key, and weight zero removes a row. The rows come out in the order in which they were
//! inserted, also after a checkpoint.

use crate::columns::{concat_owned, describe_row, owned, take_rows};
use crate::error::{DataflowError, Result};
use crate::key_index::KeyIndex;
use crate::row_log::RowLog;
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use millstream_types::delta::{DeltaBatch, Weights, consolidate};
use millstream_types::row_key::RowKeyEncoder;
use std::collections::HashMap;
use std::sync::Arc;

/// Chunks of a list are merged up to this many rows.
const LIST_CHUNK_ROWS: usize = 64 * 1024;
/// Chunks of an indexed relation stay smaller: a change makes the chunk it touches be filtered again at the next read.
const INDEXED_CHUNK_ROWS: usize = 16 * 1024;
/// How many chunks of similar size are merged.
const FAN: usize = 8;
/// Name of the column that carries weights in a checkpoint.
const WEIGHT: &str = "__weight";

/// A kept relation.
#[derive(Debug)]
pub(crate) struct ZSet {
    schema: SchemaRef,
    store: Store,
    snapshot: Option<Arc<Vec<RecordBatch>>>,
}

#[derive(Debug)]
enum Store {
    List(ChunkList),
    Indexed(Box<Indexed>),
}

/// Batches that are only appended to; small ones at the end are merged in tiers.
#[derive(Debug, Default)]
struct ChunkList {
    chunks: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Indexed {
    /// Columns that identify a row.
    identity: Vec<usize>,
    /// At most one row per identity.
    unique: bool,
    index: KeyIndex,
    log: RowLog,
    /// By slot.
    weights: Vec<i64>,
    /// Rows as readers see them, by version of their chunk.
    visible: HashMap<u64, RecordBatch>,
}

impl ZSet {
    /// An empty relation. With `append_only` a retraction is an error. A `key` must identify rows: then no two rows share it.
    pub(crate) fn new(schema: SchemaRef, append_only: bool, key: Option<Vec<usize>>) -> Result<Self> {
        let store = if append_only {
            Store::List(ChunkList::default())
        } else {
            let unique = key.is_some();
            let identity = key.unwrap_or_else(|| (0..schema.fields().len()).collect());
            let types: Vec<DataType> = identity.iter().map(|column| schema.field(*column).data_type().clone()).collect();
            Store::Indexed(Box::new(Indexed {
                identity,
                unique,
                index: KeyIndex::new(&types)?,
                log: RowLog::new(Arc::clone(&schema), INDEXED_CHUNK_ROWS),
                weights: vec![],
                visible: HashMap::new(),
            }))
        };
        Ok(Self { schema, store, snapshot: None })
    }

    /// Columns of the relation.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Adds a change.
    pub(crate) fn apply(&mut self, delta: &[DeltaBatch]) -> Result<()> {
        if delta.iter().all(|batch| batch.num_rows() == 0) {
            return Ok(());
        }
        self.snapshot = None;
        match &mut self.store {
            Store::List(list) => {
                for part in delta {
                    list.push(&self.schema, &expand(&self.schema, part)?)?;
                }
                Ok(())
            }
            Store::Indexed(indexed) => indexed.apply(&self.schema, delta),
        }
    }

    /// Whether all rows that a change takes away are there, with all their values and so often. Append-only relations lose none.
    pub(crate) fn holds_retracted(&self, delta: &[DeltaBatch]) -> Result<bool> {
        let taken = consolidate(&self.schema, delta)?;
        match &self.store {
            Store::Indexed(indexed) => indexed.holds_retracted(&taken),
            Store::List(_) => Ok(taken.iter().all(|part| (0..part.num_rows()).all(|row| part.weights.value(row) >= 0))),
        }
    }

    /// A row of a change whose key would then be there more than once, by part and row; always `None` without a key.
    pub(crate) fn duplicate(&self, delta: &[DeltaBatch]) -> Result<Option<(usize, usize)>> {
        match &self.store {
            Store::Indexed(indexed) if indexed.unique => indexed.duplicate(&self.schema, delta),
            Store::Indexed(_) | Store::List(_) => Ok(None),
        }
    }

    /// The rows, each repeated by its weight. The result never changes; readers may keep it.
    pub(crate) fn snapshot(&mut self) -> Result<Arc<Vec<RecordBatch>>> {
        if let Some(snapshot) = &self.snapshot {
            return Ok(Arc::clone(snapshot));
        }
        let batches = match &mut self.store {
            Store::List(list) => list.chunks.clone(),
            Store::Indexed(indexed) => indexed.batches()?,
        };
        let snapshot = Arc::new(batches);
        self.snapshot = Some(Arc::clone(&snapshot));
        Ok(snapshot)
    }

    /// Number of distinct rows (of an append-only relation: of rows).
    pub(crate) fn rows(&self) -> usize {
        match &self.store {
            Store::List(list) => list.rows,
            Store::Indexed(indexed) => indexed.log.len(),
        }
    }

    /// Memory in bytes.
    pub(crate) fn bytes(&self) -> usize {
        match &self.store {
            Store::List(list) => list.bytes,
            Store::Indexed(indexed) => indexed.log.bytes() + indexed.index.bytes() + 8 * indexed.weights.capacity(),
        }
    }

    /// The rows with a last column `__weight: Int64`.
    pub(crate) fn checkpoint(&self) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        match &self.store {
            Store::List(list) => {
                for chunk in &list.chunks {
                    batches.push(with_weights(chunk, Int64Array::from_value(1, chunk.num_rows()))?);
                }
            }
            Store::Indexed(indexed) => {
                for (batch, slots) in indexed.log.live()? {
                    batches.push(with_weights(&batch, slots.iter().map(|slot| indexed.weights[*slot as usize]).collect())?);
                }
            }
        }
        Ok(batches)
    }

    /// Loads what [`checkpoint`](Self::checkpoint) returned into an empty relation: chunk by chunk, so that the batches of snapshots
    /// stay the same.
    pub(crate) fn restore(&mut self, batches: &[RecordBatch]) -> Result<()> {
        self.snapshot = None;
        for batch in batches {
            let part = without_weights(&self.schema, batch)?;
            match &mut self.store {
                Store::List(list) => list.add(owned(&part.batch)?),
                Store::Indexed(indexed) => indexed.load(&part)?,
            }
        }
        Ok(())
    }
}

/// A batch with its weights as a last column.
pub(crate) fn with_weights(batch: &RecordBatch, weights: Int64Array) -> Result<RecordBatch> {
    let mut fields = batch.schema().fields().to_vec();
    fields.push(Arc::new(Field::new(WEIGHT, DataType::Int64, false)));
    let mut columns = batch.columns().to_vec();
    columns.push(Arc::new(weights));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// The inverse of [`with_weights`].
pub(crate) fn without_weights(schema: &SchemaRef, batch: &RecordBatch) -> Result<DeltaBatch> {
    check_columns(schema, batch, 1)?;
    let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
    let weights = columns.pop().and_then(|column| column.as_primitive_opt::<Int64Type>().cloned());
    let weights = weights.ok_or_else(|| DataflowError::mismatch("the last column is not a weight"))?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let batch = RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?;
    if weights.values().iter().all(|weight| *weight == 1) {
        return Ok(DeltaBatch::insertions(batch));
    }
    Ok(DeltaBatch::weighted(batch, weights))
}

/// Whether a saved batch has the columns of `schema` and `extra` more.
pub(crate) fn check_columns(schema: &SchemaRef, batch: &RecordBatch, extra: usize) -> Result<()> {
    let types = |schema: &Schema| schema.fields().iter().map(|field| field.data_type().clone()).collect::<Vec<_>>();
    let (expected, mut found) = (types(schema), types(batch.schema_ref()));
    found.truncate(found.len().saturating_sub(extra));
    if expected == found && batch.num_columns() == expected.len() + extra {
        return Ok(());
    }
    let list = |types: &[DataType]| types.iter().map(|t| t.to_string()).collect::<Vec<_>>().join(", ");
    Err(DataflowError::mismatch(format!("its columns are ({}), the query needs ({})", list(&found), list(&expected))))
}

/// The rows of a batch repeated by weight.
pub(crate) fn expand(schema: &SchemaRef, part: &DeltaBatch) -> Result<RecordBatch> {
    if let Weights::I64(weights) = &part.weights
        && let Some(row) = weights.values().iter().position(|weight| *weight < 0)
    {
        let weight = weights.value(row);
        return Err(DataflowError::NegativeWeight {
            relation: String::new(),
            row: describe_row(schema, part.batch.columns(), row),
            weight,
        });
    }
    Ok(part.expanded()?)
}

/// The columns that identify the rows of a change.
fn identity_of(identity: &[usize], part: &DeltaBatch) -> Vec<ArrayRef> {
    identity.iter().map(|column| Arc::clone(part.batch.column(*column))).collect()
}

impl ChunkList {
    fn push(&mut self, schema: &SchemaRef, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.add(owned(batch)?);
        while let Some(count) = self.mergeable() {
            let run = self.chunks.split_off(self.chunks.len() - count);
            for chunk in &run {
                self.rows -= chunk.num_rows();
                self.bytes -= chunk.get_array_memory_size();
            }
            self.add(concat_owned(schema, &run)?);
        }
        Ok(())
    }

    fn add(&mut self, batch: RecordBatch) {
        self.rows += batch.num_rows();
        self.bytes += batch.get_array_memory_size();
        self.chunks.push(batch);
    }

    fn mergeable(&self) -> Option<usize> {
        let tier = self.chunks.last()?.num_rows().ilog(FAN);
        let (mut count, mut rows) = (0, 0);
        for chunk in self.chunks.iter().rev() {
            if chunk.num_rows().ilog(FAN) > tier || rows + chunk.num_rows() > LIST_CHUNK_ROWS {
                break;
            }
            count += 1;
            rows += chunk.num_rows();
        }
        (count >= FAN).then_some(count)
    }
}

impl Indexed {
    fn apply(&mut self, schema: &SchemaRef, delta: &[DeltaBatch]) -> Result<()> {
        // Cancelling changes go first; retractions come before insertions, so a replaced row leaves before its successor comes.
        for part in &consolidate(schema, delta)? {
            self.apply_part(schema, part)?;
        }
        self.index.shrink();
        Ok(())
    }

    fn holds_retracted(&self, delta: &[DeltaBatch]) -> Result<bool> {
        for part in delta {
            let keys = self.index.encode(&identity_of(&self.identity, part))?;
            let (mut rows, mut slots) = (Vec::new(), Vec::new());
            for row in (0..part.num_rows()).filter(|row| part.weights.value(*row) < 0) {
                match self.index.find(&keys, row) {
                    Some(slot) if self.weights[slot as usize] + part.weights.value(row) >= 0 => {
                        rows.push(row as u32);
                        slots.push(slot);
                    }
                    _ => return Ok(false),
                }
            }
            if !self.unique || rows.is_empty() {
                continue;
            }
            // The key is the same; the other values may not be.
            let rows = take_rows(&part.batch, &UInt32Array::from(rows))?;
            let kept = self.log.gather(&slots, 0..rows.num_columns())?;
            let encoder = RowKeyEncoder::new(self.log.schema().fields().iter().map(|field| field.data_type().clone()))?;
            let (kept, taken) = (encoder.encode(&kept)?, encoder.encode(rows.columns())?);
            if kept.iter().ne(taken.iter()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn duplicate(&self, schema: &Schema, delta: &[DeltaBatch]) -> Result<Option<(usize, usize)>> {
        let types: Vec<DataType> = self.identity.iter().map(|column| schema.field(*column).data_type().clone()).collect();
        let mut changed = KeyIndex::new(&types)?;
        // By slot of `changed`: how many rows have the key afterwards, and one that comes.
        let mut counts: Vec<(i64, Option<(usize, usize)>)> = Vec::new();
        for (nth, part) in delta.iter().enumerate() {
            let keys = self.index.encode(&identity_of(&self.identity, part))?;
            for row in 0..part.num_rows() {
                let slot = changed.find(&keys, row).unwrap_or_else(|| {
                    let there = self.index.find(&keys, row).map_or(0, |slot| self.weights[slot as usize]);
                    counts.push((there, None));
                    changed.insert(&keys, row)
                });
                let (count, comes) = &mut counts[slot as usize];
                let weight = part.weights.value(row);
                *count += weight;
                if weight > 0 {
                    *comes = Some((nth, row));
                }
            }
        }
        Ok(counts.into_iter().find(|(count, _)| *count > 1).and_then(|(_, comes)| comes))
    }

    fn apply_part(&mut self, schema: &SchemaRef, part: &DeltaBatch) -> Result<()> {
        let keys = self.index.encode(&identity_of(&self.identity, part))?;
        let (mut inserted, mut slots, mut removed) = (Vec::new(), Vec::new(), Vec::new());
        for row in 0..part.num_rows() {
            let weight = part.weights.value(row);
            if weight == 0 {
                continue;
            }
            let found = self.index.find(&keys, row);
            let old = found.map_or(0, |slot| self.weights[slot as usize]);
            let new = old.checked_add(weight).ok_or_else(|| DataflowError::internal("the multiplicity of a row exceeds 64 bits"))?;
            if new < 0 {
                let row = describe_row(schema, part.batch.columns(), row);
                return Err(DataflowError::NegativeWeight { relation: String::new(), row, weight: new });
            }
            if self.unique && new > 1 {
                let row = describe_row(schema, part.batch.columns(), row);
                return Err(DataflowError::internal(format!("the key of the row ({row}) is there already")));
            }
            match found {
                Some(slot) if new == 0 => {
                    self.weights[slot as usize] = 0;
                    self.index.remove(slot);
                    removed.push(slot);
                }
                Some(slot) => {
                    self.weights[slot as usize] = new;
                    self.log.touch(slot);
                }
                None => {
                    let slot = self.index.insert(&keys, row);
                    if self.weights.len() <= slot as usize {
                        self.weights.resize(slot as usize + 1, 0);
                    }
                    self.weights[slot as usize] = new;
                    inserted.push(row as u32);
                    slots.push(slot);
                }
            }
        }
        // A removed slot may have been given to a new row of this batch: old rows leave first.
        self.log.remove(&removed)?;
        self.log.append(&take_rows(&part.batch, &UInt32Array::from(inserted))?, &slots)
    }

    /// Adds distinct rows of a checkpoint as one chunk.
    fn load(&mut self, part: &DeltaBatch) -> Result<()> {
        let keys = self.index.encode(&identity_of(&self.identity, part))?;
        let mut slots = Vec::with_capacity(part.num_rows());
        for row in 0..part.num_rows() {
            if self.index.find(&keys, row).is_some() || part.weights.value(row) < 1 {
                return Err(DataflowError::mismatch("a row occurs twice"));
            }
            let slot = self.index.insert(&keys, row);
            self.weights.resize(self.weights.len().max(slot as usize + 1), 0);
            self.weights[slot as usize] = part.weights.value(row);
            slots.push(slot);
        }
        self.log.append_chunk(&part.batch, &slots)
    }

    fn batches(&mut self) -> Result<Vec<RecordBatch>> {
        let mut visible = HashMap::new();
        let mut batches = Vec::new();
        for chunk in self.log.chunks() {
            let batch = match self.visible.remove(&chunk.version()) {
                Some(batch) => batch,
                None => {
                    let counts: Vec<i64> = chunk.slots().map(|slot| slot.map_or(0, |slot| self.weights[slot as usize])).collect();
                    if counts.iter().all(|count| *count == 1) {
                        chunk.batch().clone()
                    } else {
                        let repeated = |(row, count): (usize, &i64)| std::iter::repeat_n(row as u32, *count as usize);
                        take_rows(chunk.batch(), &UInt32Array::from_iter_values(counts.iter().enumerate().flat_map(repeated)))?
                    }
                }
            };
            visible.insert(chunk.version(), batch.clone());
            batches.push(batch);
        }
        self.visible = visible;
        Ok(batches)
    }
}
