//! The rows of one side of a join, by key.
//!
//! ```text
//!   KeyIndex: key ─▶ chain: first, last          chain ─▶ slot ⇄ slot ⇄ slot        oldest first
//!   RowLog:  slot ─▶ row            by slot: weight, sum of the weights of its matches
//! ```
//! Rows that may be taken back are found by their canonical encoding; then equal rows share a slot. Rows of append-only input have a
//! slot each. A row that goes leaves its chain at once, and the rest of the state at the end of the epoch, when the result no longer
//! needs it.

use crate::bucket::{BucketColumn, BucketKey, Buckets, Floor};
use crate::chains::{Chains, Ends, Link};
use crate::columns::{describe_row, evaluate, make_batch, take_rows};
use crate::error::{DataflowError, Result};
use crate::key_index::{EncodedKeys, KeyIndex};
use crate::operators::join::expiry::Expiry;
use crate::operators::join::keys::{JoinKeys, KeyColumns};
use crate::operators::join::row_weights::RowWeights;
use crate::row_log::RowLog;
use crate::zset::{with_weights, without_weights};
use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array, new_null_array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use datafusion::physical_plan::PhysicalExpr;
use millstream_plan::bound::BoundContext;
use millstream_types::delta::DeltaBatch;
use millstream_types::row_key::{RowKeyEncoder, types_of};
use std::sync::Arc;

/// Chunks of state are merged up to this many rows.
const CHUNK_ROWS: usize = 256 * 1024;
/// Name of the column that carries sums of matches in a checkpoint.
const MATCHES: &str = "__matches";
/// Name of the column that says in a checkpoint when the key of a row was last touched: microseconds since 1970.
const TOUCHED: &str = "__touched";

/// How long rows are kept.
pub(super) enum Kept {
    Forever,
    Never,
    /// Until they have a match.
    Unmatched,
    /// While the value is not below the column's bound.
    Until {
        value: Arc<dyn PhysicalExpr>,
        column: Box<BucketColumn>,
        buckets: Buckets,
        /// The column's values are rounded up to multiples of this, so that a bucket holds more than one instant.
        granule: i64,
        /// A row without a value matches nothing.
        null_matches_nothing: bool,
    },
}

/// A part of a side's change.
pub(super) struct Part {
    pub(super) delta: DeltaBatch,
    pub(super) keys: KeyColumns,
    pub(super) encoded: EncodedKeys,
    buckets: Option<Vec<BucketKey>>,
    /// By row: sum of the weights of the rows that it matches, if the result depends on it.
    pub(super) matches: Vec<i64>,
}

/// A row's weight and matches before the epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    pub(super) slot: u32,
    pub(super) weight: i64,
    pub(super) matches: i64,
}

/// The rows of one side.
pub(super) struct Arrangement {
    schema: SchemaRef,
    index: KeyIndex,
    /// The key NULL.
    null: EncodedKeys,
    chains: Chains,
    log: RowLog,
    weights: RowWeights,
    /// Empty unless matches are counted.
    matches: Vec<i64>,
    counted: bool,
    /// Finds rows that may be taken back.
    rows: Option<KeyIndex>,
    /// Slots without a row, if `rows` does not keep them.
    free: Vec<u32>,
    kept: Kept,
    /// When keys go that nothing touches.
    expiry: Option<Expiry>,
    touched: Vec<Before>,
    is_touched: Vec<bool>,
    leaving: Vec<u32>,
}

impl Kept {
    /// Rows go when `value` of type `data_type` is below the bound of `column`.
    pub(super) fn until(value: Arc<dyn PhysicalExpr>, column: BucketColumn, data_type: &DataType, null_matches_nothing: bool) -> Self {
        // A second of event time.
        let granule = match data_type {
            DataType::Timestamp(TimeUnit::Millisecond, _) => 1_000,
            DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000_000,
            DataType::Timestamp(TimeUnit::Nanosecond, _) => 1_000_000_000,
            _ => 1,
        };
        Kept::Until { value, column: Box::new(column), buckets: Buckets::default(), granule, null_matches_nothing }
    }

    fn buckets(&self, batch: &RecordBatch) -> Result<Option<Vec<BucketKey>>> {
        let Kept::Until { value, column, granule, .. } = self else { return Ok(None) };
        let mut keys = column.keys(&evaluate(value, batch)?)?;
        if *granule > 1 {
            for key in &mut keys {
                if let BucketKey::Int(value) = key {
                    let rest = value.rem_euclid(*granule);
                    *value = if rest == 0 { *value } else { value.saturating_add(granule - rest) };
                }
            }
        }
        Ok(Some(keys))
    }

    /// Whether no later row of the other side makes a difference to a row of this bucket with these matches.
    fn passed(&self, bucket: Option<&BucketKey>, matches: i64) -> bool {
        match (self, bucket) {
            (Kept::Never, _) => true,
            (Kept::Unmatched, _) => matches > 0,
            (Kept::Until { null_matches_nothing, .. }, Some(BucketKey::Null)) if *null_matches_nothing => true,
            (Kept::Until { column, .. }, Some(bucket)) => column.floor.passed(bucket),
            _ => false,
        }
    }
}

impl Arrangement {
    /// No rows yet. With `retracting` rows may be taken back; with `counted` the matches of each row are summed up; with `expiry` keys go
    /// that nothing touches.
    pub(super) fn new(
        schema: &SchemaRef,
        keys: &JoinKeys,
        (retracting, counted): (bool, bool),
        kept: Kept,
        expiry: Option<Expiry>,
    ) -> Result<Self> {
        let index = KeyIndex::new(keys.types())?;
        let nulls: Vec<ArrayRef> = keys.types().iter().map(|data_type| new_null_array(data_type, 1)).collect();
        Ok(Self {
            schema: Arc::clone(schema),
            null: index.encode(&nulls)?,
            index,
            chains: Chains::default(),
            log: RowLog::new(Arc::clone(schema), CHUNK_ROWS),
            weights: RowWeights::default(),
            matches: vec![],
            counted,
            rows: if retracting || expiry.is_some() { Some(KeyIndex::new(&types_of(schema.fields()))?) } else { None },
            free: vec![],
            kept,
            expiry,
            touched: vec![],
            is_touched: vec![],
            leaving: vec![],
        })
    }

    /// One like this without rows, whose rows stay until they are taken back.
    pub(super) fn emptied(&self, keys: &JoinKeys) -> Result<Self> {
        Self::new(&self.schema, keys, (self.rows.is_some(), false), Kept::Forever, None)
    }

    /// A change as if it were rows, with weights of any sign.
    pub(super) fn of_change(&self, parts: &[Part], keys: &JoinKeys) -> Result<Self> {
        let mut change = Self::new(&self.schema, keys, (false, false), Kept::Forever, None)?;
        for part in parts {
            let mut slots = Vec::with_capacity(part.delta.num_rows());
            for row in 0..part.delta.num_rows() {
                slots.push(change.insert(part, row, None, part.delta.weights.value(row)));
            }
            change.log.append(&part.delta.batch, &slots)?;
        }
        Ok(change)
    }

    /// Columns of the rows.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// A part of the side's change, with its keys.
    pub(super) fn part(&self, delta: DeltaBatch, keys: &JoinKeys) -> Result<Part> {
        let keys = keys.evaluate(&delta.batch)?;
        let encoded = self.index.encode(&keys.columns)?;
        let buckets = self.kept.buckets(&delta.batch)?;
        let matches = if self.counted { vec![0; delta.num_rows()] } else { vec![] };
        Ok(Part { delta, keys, encoded, buckets, matches })
    }

    /// A change of the side without what it takes back of rows that have expired.
    pub(super) fn without_expired(&self, delta: Vec<DeltaBatch>) -> Result<Vec<DeltaBatch>> {
        let Some(rows) = self.rows.as_ref().filter(|_| self.expiry.is_some()) else { return Ok(delta) };
        let of_part = |part: DeltaBatch| {
            let count = part.num_rows();
            if (0..count).all(|row| part.weights.value(row) > 0) {
                return Ok(part);
            }
            let identity = rows.encode(part.batch.columns())?;
            let there = |row: usize| rows.find(&identity, row).map_or(0, |slot| self.weights.get(slot));
            let weights = Int64Array::from_iter_values((0..count).map(|row| part.weights.value(row).max(-there(row))));
            let kept = BooleanArray::from_iter(weights.values().iter().map(|weight| Some(*weight != 0)));
            Ok(DeltaBatch::weighted(part.batch, weights).filter(&kept)?)
        };
        delta.into_iter().map(of_part).collect()
    }

    /// The key of a row of either side was touched, if it is here.
    pub(super) fn touch_key(&mut self, keys: &EncodedKeys, row: usize, clock: i64) {
        if let Some(expiry) = &mut self.expiry
            && let Some(key) = self.index.find(keys, row)
        {
            expiry.touch(key, clock);
        }
    }

    /// Whether keys go that nothing touches.
    pub(super) fn expires(&self) -> bool {
        self.expiry.is_some()
    }

    /// Whether some key may have expired.
    pub(super) fn any_expired(&self, clock: i64) -> bool {
        self.expiry.as_ref().is_some_and(|expiry| expiry.any_passed(clock))
    }

    /// The change that takes back all rows of keys that have expired, in the order of the keys.
    pub(super) fn expired(&mut self, clock: i64) -> Result<Option<DeltaBatch>> {
        let Some(expiry) = &mut self.expiry else { return Ok(None) };
        let mut keys = expiry.pop_passed(clock);
        if keys.is_empty() {
            return Ok(None);
        }
        keys.sort_unstable();
        let order = self.index.in_order(&keys)?;
        let mut slots = vec![];
        for place in order {
            slots.extend(self.chains.slots(&keys[place..=place]));
        }
        let batch = make_batch(&self.schema, self.log.gather(&slots, 0..self.schema.fields().len())?, slots.len())?;
        let weights = Int64Array::from_iter_values(slots.iter().map(|slot| -self.weights.get(*slot)));
        Ok(Some(DeltaBatch::weighted(batch, weights)))
    }

    /// By row of the other side: the ends of the chain of its key, if there is one.
    pub(super) fn ends_of_each(&self, keys: &EncodedKeys, count: usize) -> Vec<Option<Ends>> {
        self.index.find_all(keys, count).into_iter().map(|key| self.chains.ends(key?)).collect()
    }

    /// The ends of the chain of the key NULL, if there is one.
    pub(super) fn ends_of_null(&self) -> Option<Ends> {
        self.chains.ends(self.index.find(&self.null, 0)?)
    }

    /// Neighbours in chains, by slot.
    pub(super) fn links(&self) -> &[Link] {
        self.chains.links()
    }

    /// All slots with a row that has not left, oldest first.
    pub(super) fn slots(&self) -> Vec<u32> {
        let here = |slot: &u32| self.weights.get(*slot) != 0;
        self.log.chunks().flat_map(|chunk| chunk.slots().flatten().filter(here).collect::<Vec<_>>()).collect()
    }

    /// The slot that the next row gets, if rows that come later have greater ones: none goes, and each has its own.
    pub(super) fn next_slot(&self) -> Option<u32> {
        (self.rows.is_none() && self.free.is_empty()).then_some(self.weights.len() as u32)
    }

    /// What the rows are, whatever their order: equal for equal multisets.
    pub(super) fn content(&self) -> Result<u128> {
        let encoder = RowKeyEncoder::new(types_of(self.schema.fields()))?;
        let mut sum = 0u128;
        for (batch, slots) in self.log.live()? {
            let weight = |slot: u32| self.weights.get(slot) as u128;
            if batch.num_columns() == 0 {
                // Rows without columns are all equal.
                sum = slots.iter().fold(sum, |sum, slot| sum.wrapping_add(weight(*slot)));
                continue;
            }
            for (row, slot) in encoder.encode(batch.columns())?.iter().zip(&slots) {
                sum = sum.wrapping_add(xxhash_rust::xxh3::xxh3_128(row.as_ref()).wrapping_mul(weight(*slot)));
            }
        }
        Ok(sum)
    }

    /// Weight of a slot's row.
    pub(super) fn weight(&self, slot: u32) -> i64 {
        self.weights.get(slot)
    }

    /// Whether the rows of all these slots are there once.
    pub(super) fn are_ones(&self, slots: &[u32]) -> bool {
        self.weights.are_ones(slots)
    }

    /// Columns of the rows of slots.
    pub(super) fn gather(&self, slots: &[u32], columns: impl IntoIterator<Item = usize>) -> Result<Vec<ArrayRef>> {
        self.log.gather(slots, columns)
    }

    /// Weight and matches of a slot's row.
    pub(super) fn now(&self, slot: u32) -> (i64, i64) {
        (self.weights.get(slot), self.matches[slot as usize])
    }

    /// Adds to the matches of a row.
    pub(super) fn add_matches(&mut self, slot: u32, weight: i64) -> Result<()> {
        self.touch(slot);
        let matches = &mut self.matches[slot as usize];
        *matches = matches.checked_add(weight).ok_or_else(too_many)?;
        Ok(())
    }

    /// Rows whose weight or matches have changed in this epoch, as they were before, in the order of their first change.
    pub(super) fn touched(&self) -> &[Before] {
        &self.touched
    }

    fn touch(&mut self, slot: u32) {
        let at = slot as usize;
        if self.counted && !self.is_touched[at] {
            self.is_touched[at] = true;
            self.touched.push(Before { slot, weight: self.weights.get(slot), matches: self.matches[at] });
        }
    }

    /// Whether a row of a change stays out of the state, because no later row of the other side makes a difference to it.
    fn stays_out(&self, part: &Part, row: usize, nulls_match: bool) -> bool {
        let bucket = part.buckets.as_ref().map(|buckets| &buckets[row]);
        let matches = part.matches.get(row).copied().unwrap_or(0);
        (!nulls_match && part.keys.is_null(row)) || self.kept.passed(bucket, matches)
    }

    /// Adds a part of the side's change. Returns the rows that stayed out of the state.
    pub(super) fn apply(&mut self, part: &Part, nulls_match: bool) -> Result<Vec<u32>> {
        let batch = &part.delta.batch;
        let identity = self.rows.as_ref().map(|rows| rows.encode(batch.columns())).transpose()?;
        let known = match (&self.rows, &identity) {
            (Some(rows), Some(identity)) => self.known(rows, identity, batch.num_rows()),
            _ => vec![],
        };
        let count = batch.num_rows();
        let (mut out, mut new, mut slots) = (Vec::new(), Vec::with_capacity(count), Vec::with_capacity(count));
        for row in 0..count {
            self.index.read_ahead(&part.encoded, row, count);
            let weight = part.delta.weights.value(row);
            if self.stays_out(part, row, nulls_match) {
                out.push(row as u32);
                continue;
            }
            let found = match (&self.rows, &identity) {
                // An equal row of this part may have come just now.
                (Some(rows), Some(identity)) => known[row].or_else(|| rows.find(identity, row)),
                _ => None,
            };
            let sum = found.map_or(0, |slot| self.weights.get(slot)).checked_add(weight).ok_or_else(too_many)?;
            if sum < 0 {
                let row = describe_row(&self.schema, batch.columns(), row);
                return Err(DataflowError::NegativeWeight { relation: String::new(), row, weight: sum });
            }
            match found {
                Some(slot) => {
                    self.touch(slot);
                    self.weights.set(slot, sum);
                    if sum == 0 {
                        self.unlink(slot);
                        self.leaving.push(slot);
                        if let (Kept::Until { buckets, .. }, Some(keys)) = (&mut self.kept, &part.buckets) {
                            buckets.remove(&keys[row], slot);
                        }
                    }
                }
                None if sum == 0 => {}
                None => {
                    let slot = self.insert(part, row, identity.as_ref(), sum);
                    if self.counted {
                        self.is_touched[slot as usize] = true;
                        self.touched.push(Before { slot, weight: 0, matches: part.matches[row] });
                    }
                    new.push(row as u32);
                    slots.push(slot);
                }
            }
        }
        let rows = if new.len() == count { batch.clone() } else { take_rows(batch, &UInt32Array::from(new))? };
        self.log.append(&rows, &slots)?;
        Ok(out)
    }

    /// The slots of rows that are there. What a change of them reads first is read here for all, so that the accesses to memory overlap.
    fn known(&self, rows: &KeyIndex, identity: &EncodedKeys, count: usize) -> Vec<Option<u32>> {
        let known = rows.find_all(identity, count);
        let ahead = |slot: &u32| self.weights.get(*slot) ^ i64::from(self.chains.links()[*slot as usize].key);
        std::hint::black_box(known.iter().flatten().map(ahead).fold(0, |sum, read| sum ^ read));
        known
    }

    /// A slot for a new row of this weight, linked to the end of its chain.
    fn insert(&mut self, part: &Part, row: usize, identity: Option<&EncodedKeys>, weight: i64) -> u32 {
        let slot = match (&mut self.rows, identity) {
            (Some(rows), Some(identity)) => rows.insert(identity, row),
            _ => self.free.pop().unwrap_or(self.weights.len() as u32),
        };
        let at = slot as usize;
        self.weights.set(slot, weight);
        if self.counted {
            if self.matches.len() <= at {
                self.matches.resize(at + 1, 0);
                self.is_touched.resize(at + 1, false);
            }
            self.matches[at] = part.matches[row];
        }
        let (key, _) = self.index.find_or_insert(&part.encoded, row);
        self.chains.push(key, slot);
        if let (Kept::Until { buckets, .. }, Some(keys)) = (&mut self.kept, &part.buckets) {
            buckets.insert(&keys[row], slot);
        }
        slot
    }

    /// Takes a row out of its chain.
    fn unlink(&mut self, slot: u32) {
        if let Some(key) = self.chains.unlink(slot) {
            self.index.remove(key);
            if let Some(expiry) = &mut self.expiry {
                expiry.forget(key);
            }
        }
    }

    /// Forgets keys without rows.
    fn forget_keys(&mut self, keys: &[u32]) {
        self.index.remove_all(keys);
        if let Some(expiry) = &mut self.expiry {
            keys.iter().for_each(|key| expiry.forget(*key));
        }
    }

    /// Whether rows are below the bound.
    pub(super) fn any_passed(&self, context: &BoundContext) -> Result<bool> {
        match &self.kept {
            Kept::Until { column, buckets, .. } if self.log.len() > 0 => Ok(buckets.any_passed(&column.read(context)?)),
            _ => Ok(false),
        }
    }

    /// Ends the epoch: forgets the rows that have left, and those below the bound.
    pub(super) fn settle(&mut self, context: &BoundContext) -> Result<()> {
        let mut gone = std::mem::take(&mut self.leaving);
        for Before { slot, .. } in std::mem::take(&mut self.touched) {
            let at = slot as usize;
            self.is_touched[at] = false;
            if matches!(self.kept, Kept::Unmatched) && self.weights.get(slot) != 0 && self.matches[at] > 0 {
                self.weights.set(slot, 0);
                self.unlink(slot);
                gone.push(slot);
            }
        }
        if let Kept::Until { column, buckets, .. } = &mut self.kept {
            let floor = column.read(context)?;
            let dropped = buckets.pop_passed(&floor);
            column.floor = floor;
            let keys: Vec<u32> = dropped.iter().filter_map(|slot| self.chains.unlink(*slot)).collect();
            self.forget_keys(&keys);
            gone.extend(dropped);
        }
        if gone.is_empty() {
            return Ok(());
        }
        match &mut self.rows {
            Some(rows) => rows.remove_all(&gone),
            None => self.free.extend_from_slice(&gone),
        }
        self.index.shrink();
        self.log.remove(&gone)
    }

    /// Where the bound was when rows were last dropped.
    pub(super) fn floor(&self) -> Floor {
        match &self.kept {
            Kept::Until { column, .. } => column.floor.clone(),
            Kept::Forever | Kept::Never | Kept::Unmatched => Floor::Unknown,
        }
    }

    /// The rows, oldest first: columns, `__matches` if counted, `__touched` if keys expire, `__weight`.
    pub(super) fn checkpoint(&mut self) -> Result<Vec<RecordBatch>> {
        let batches = self.log.checkpoint()?.into_iter().map(|(batch, slots)| {
            let weights = slots.iter().map(|slot| self.weights.get(*slot)).collect();
            let mut columns = batch.columns().to_vec();
            if self.counted {
                columns.push(Arc::new(slots.iter().map(|slot| self.matches[*slot as usize]).collect::<Int64Array>()));
            }
            if let Some(expiry) = &self.expiry {
                let key = |slot: &u32| self.chains.links()[*slot as usize].key;
                columns.push(Arc::new(slots.iter().map(|slot| expiry.touched(key(slot))).collect::<Int64Array>()));
            }
            with_weights(&make_batch(&self.saved_schema(), columns, slots.len())?, weights)
        });
        batches.collect()
    }

    fn saved_schema(&self) -> SchemaRef {
        let mut fields = self.schema.fields().to_vec();
        if self.counted {
            fields.push(Arc::new(Field::new(MATCHES, DataType::Int64, false)));
        }
        if self.expiry.is_some() {
            fields.push(Arc::new(Field::new(TOUCHED, DataType::Int64, false)));
        }
        Arc::new(Schema::new(fields))
    }

    /// Loads what [`checkpoint`](Self::checkpoint) returned, chunk by chunk.
    pub(super) fn restore(&mut self, batches: &[RecordBatch], floor: Floor, keys: &JoinKeys) -> Result<()> {
        let saved = self.saved_schema();
        for batch in batches {
            let DeltaBatch { batch, weights } = without_weights(&saved, batch)?;
            let (columns, own) = batch.columns().split_at(self.schema.fields().len());
            let mut own = own.iter().map(|column| column.as_primitive::<Int64Type>().values().to_vec());
            let rows = make_batch(&self.schema, columns.to_vec(), batch.num_rows())?;
            let mut part = self.part(DeltaBatch { batch: rows, weights }, keys)?;
            if self.counted
                && let Some(matches) = own.next()
            {
                part.matches = matches;
            }
            let touched = own.next().unwrap_or_default();
            let identity = self.rows.as_ref().map(|rows| rows.encode(part.delta.batch.columns())).transpose()?;
            let mut slots = Vec::with_capacity(part.delta.num_rows());
            for row in 0..part.delta.num_rows() {
                if let (Some(rows), Some(identity)) = (&self.rows, &identity)
                    && rows.find(identity, row).is_some()
                {
                    return Err(DataflowError::mismatch("a row occurs twice"));
                }
                let slot = self.insert(&part, row, identity.as_ref(), part.delta.weights.value(row));
                if let (Some(expiry), Some(touched)) = (&mut self.expiry, touched.get(row)) {
                    expiry.touch(self.chains.links()[slot as usize].key, *touched);
                }
                slots.push(slot);
            }
            self.log.append_chunk(&part.delta.batch, &slots)?;
        }
        if let Kept::Until { column, .. } = &mut self.kept {
            column.floor = floor;
        }
        Ok(())
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.log.len()
    }

    /// Memory in bytes.
    pub(super) fn bytes(&self) -> usize {
        let buckets = match &self.kept {
            Kept::Until { buckets, .. } => buckets.bytes(),
            Kept::Forever | Kept::Never | Kept::Unmatched => 0,
        };
        let by_slot = self.weights.bytes() + 8 * self.matches.capacity() + self.is_touched.capacity() + 4 * self.free.capacity();
        let expiry = self.expiry.as_ref().map_or(0, Expiry::bytes);
        let rows = self.rows.as_ref().map_or(0, KeyIndex::bytes);
        self.index.bytes() + rows + self.chains.bytes() + self.log.bytes() + by_slot + buckets + expiry
    }
}

/// A sum or product of weights that has no 64 bits.
pub(super) fn too_many() -> DataflowError {
    DataflowError::internal("the multiplicity of a row exceeds 64 bits")
}
