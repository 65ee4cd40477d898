//! The groups of an aggregate: which there are, their states, and when they close or expire.

use super::states::States;
use crate::bucket::{BucketColumn, BucketKey, Buckets, Floor};
use crate::columns::{make_batch, owned, take_columns};
use crate::deadlines::Deadlines;
use crate::error::{DataflowError, Result};
use crate::key_index::{EncodedKeys, KeyIndex};
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use std::sync::Arc;

/// Groups of a batch of a checkpoint at most.
const CHECKPOINT_ROWS: usize = 16 * 1024;
/// Name of the column that says in a checkpoint when a group was last touched: microseconds since 1970.
const TOUCHED: &str = "__touched";
/// When a slot that has no group was touched.
const FREE: i64 = i64::MAX;

/// Keys and states by slot.
pub(crate) struct Groups {
    pub(crate) index: KeyIndex,
    /// Key columns, then state columns.
    schema: SchemaRef,
    keys: usize,
    states: States,
    /// The group column that closes groups, and the groups by its value.
    pub(crate) bucket: Option<(BucketColumn, Buckets)>,
    expiry: Option<Expiry>,
}

/// When groups expire.
struct Expiry {
    ttl: i64,
    /// The clock of the epoch that is running.
    clock: i64,
    /// By slot.
    touched: Vec<i64>,
    deadlines: Deadlines,
}

impl Expiry {
    fn touch(&mut self, slot: u32, clock: i64) {
        if self.touched.len() <= slot as usize {
            self.touched.resize(slot as usize + 1, FREE);
        }
        self.touched[slot as usize] = clock;
        self.deadlines.schedule(slot, clock.saturating_add(self.ttl));
    }
}

impl Groups {
    /// No groups yet, with these types of key and state columns.
    pub(crate) fn new(key_types: &[DataType], state_types: &[DataType], bucket: Option<BucketColumn>, ttl: Option<i64>) -> Result<Self> {
        let field = |(index, data_type): (usize, &DataType)| Field::new(format!("c{index}"), data_type.clone(), true);
        let fields: Vec<Field> = key_types.iter().chain(state_types).enumerate().map(field).collect();
        let schema = Arc::new(Schema::new(fields));
        Ok(Self {
            index: KeyIndex::new(key_types)?,
            states: States::new(state_types),
            schema,
            keys: key_types.len(),
            bucket: bucket.map(|column| (column, Buckets::default())),
            expiry: ttl.map(|ttl| Expiry { ttl, clock: 0, touched: vec![], deadlines: Deadlines::default() }),
        })
    }

    /// Number of groups.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// Memory in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let expiry = self.expiry.as_ref().map_or(0, |expiry| 8 * expiry.touched.capacity() + expiry.deadlines.bytes());
        self.index.bytes() + self.states.bytes() + self.bucket.as_ref().map_or(0, |(_, buckets)| buckets.bytes()) + expiry
    }

    /// Up to where groups were dropped.
    pub(crate) fn floor(&self) -> Floor {
        self.bucket.as_ref().map_or(Floor::Unknown, |(column, _)| column.floor.clone())
    }

    /// Whether groups lie below `floor`.
    pub(crate) fn any_passed(&self, floor: &Floor) -> bool {
        self.bucket.as_ref().is_some_and(|(_, buckets)| buckets.any_passed(floor))
    }

    /// Values of the bucket column in key columns; `None` without a bucket.
    pub(crate) fn bucket_keys(&self, keys: &[ArrayRef]) -> Result<Option<Vec<BucketKey>>> {
        self.bucket.as_ref().map(|(column, _)| column.keys(&keys[column.column])).transpose()
    }

    /// Whether no row with these keys is final already, as far as that can be seen at a glance.
    pub(crate) fn none_passed(&self, keys: &[ArrayRef]) -> bool {
        self.bucket.as_ref().is_none_or(|(column, _)| column.none_passed(&keys[column.column]))
    }

    /// Key columns of these slots.
    pub(crate) fn keys(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        self.index.decode(slots)
    }

    /// State columns of these slots.
    pub(crate) fn states(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        self.states.gather(slots)
    }

    /// Writes the states of groups. `rows[i]` is the row in `encoded` and `buckets` of row `i` of `states`; `slots[i]` its slot if the
    /// group is known. Returns the number of new groups.
    pub(crate) fn write(
        &mut self,
        states: Vec<ArrayRef>,
        rows: &[u32],
        slots: &[Option<u32>],
        encoded: &EncodedKeys,
        buckets: Option<&[BucketKey]>,
    ) -> Result<usize> {
        let mut new = 0;
        let mut places = Vec::with_capacity(rows.len());
        for (&row, slot) in rows.iter().zip(slots) {
            let slot = match slot {
                Some(slot) => *slot,
                None => {
                    let slot = self.index.insert(encoded, row as usize);
                    if let (Some((_, tree)), Some(keys)) = (&mut self.bucket, buckets) {
                        tree.insert(&keys[row as usize], slot);
                    }
                    new += 1;
                    slot
                }
            };
            if let Some(expiry) = &mut self.expiry {
                expiry.touch(slot, expiry.clock);
            }
            places.push(slot);
        }
        self.states.write(states, &places)?;
        Ok(new)
    }

    /// Where a group has no state: the keys that are new among those of `count` rows, and there from now on.
    pub(crate) fn admit(&mut self, keys: &[ArrayRef], count: usize) -> Result<Option<RecordBatch>> {
        let encoded = self.index.encode(keys)?;
        let buckets = self.bucket_keys(keys)?;
        let mut rows = Vec::with_capacity(count);
        for row in 0..count {
            self.index.read_ahead(&encoded, row, count);
            let (slot, new) = self.index.find_or_insert(&encoded, row);
            if let Some(expiry) = &mut self.expiry {
                expiry.touch(slot, expiry.clock);
            }
            if new {
                if let (Some((_, tree)), Some(buckets)) = (&mut self.bucket, &buckets) {
                    tree.insert(&buckets[row], slot);
                }
                rows.push(row as u32);
            }
        }
        let new = rows.len();
        if new == 0 {
            return Ok(None);
        }
        let columns = if new == count { keys.to_vec() } else { take_columns(keys, &UInt32Array::from(rows))? };
        Ok(Some(make_batch(&self.schema, columns, new)?))
    }

    /// Removes groups that have vanished; `keys` are their bucket values.
    pub(crate) fn remove(&mut self, slots: &[u32], keys: Option<&[BucketKey]>) -> Result<()> {
        if let (Some((_, tree)), Some(keys)) = (&mut self.bucket, keys) {
            for (slot, key) in slots.iter().zip(keys) {
                tree.remove(key, *slot);
            }
        }
        self.forget(slots)
    }

    /// Takes the closed groups out of the buckets, in ascending order of the bucket, and remembers the floor. Their rows stay until
    /// [`forget`](Self::forget).
    pub(crate) fn pop_passed(&mut self, floor: Floor) -> Vec<u32> {
        let Some((column, buckets)) = &mut self.bucket else { return vec![] };
        let slots = buckets.pop_passed(&floor);
        column.floor = floor;
        slots
    }

    /// Removes groups that are in no bucket any more.
    pub(crate) fn forget(&mut self, slots: &[u32]) -> Result<()> {
        if slots.is_empty() {
            return Ok(());
        }
        if let Some(expiry) = &mut self.expiry {
            slots.iter().for_each(|slot| expiry.touched[*slot as usize] = FREE);
        }
        self.index.remove_all(slots);
        self.states.remove(slots)
    }

    /// Whether groups expire.
    pub(crate) fn expires(&self) -> bool {
        self.expiry.is_some()
    }

    /// The clock of the epoch: groups that are written from now on were touched then.
    pub(crate) fn set_clock(&mut self, clock: i64) {
        if let Some(expiry) = &mut self.expiry {
            expiry.clock = clock;
        }
    }

    /// Whether some group may have expired.
    pub(crate) fn any_expired(&self, clock: i64) -> bool {
        self.expiry.as_ref().is_some_and(|expiry| expiry.deadlines.any_passed(|time| time <= clock))
    }

    /// The groups that have expired, in the order of their keys. They stay until [`remove`](Self::remove).
    pub(crate) fn pop_expired(&mut self, clock: i64) -> Result<Vec<u32>> {
        let Some(Expiry { ttl, touched, deadlines, .. }) = &mut self.expiry else { return Ok(vec![]) };
        let end_of =
            |slot: u32| Some(touched[slot as usize]).filter(|touched| *touched != FREE).map(|touched| touched.saturating_add(*ttl));
        let mut slots = deadlines.pop_passed(|time| time <= clock, end_of);
        slots.sort_unstable();
        Ok(self.index.in_order(&slots)?.into_iter().map(|place| slots[place]).collect())
    }

    /// All rows; with buckets in the order in which they close.
    pub(crate) fn checkpoint(&mut self) -> Result<Vec<RecordBatch>> {
        if let (None, States::Log(log)) = (&self.bucket, &mut self.states) {
            let pieces = log.checkpoint()?;
            return pieces.into_iter().map(|(states, slots)| self.saved(states.columns(), &slots)).collect();
        }
        let slots = self.bucket.as_ref().map_or_else(|| self.index.slots(), |(_, buckets)| buckets.ordered());
        slots.chunks(CHECKPOINT_ROWS).map(|slots| owned(&self.saved(&self.states(slots)?, slots)?)).collect()
    }

    /// Groups with these states as rows of a checkpoint. Where they expire, a last column says when they were touched.
    fn saved(&self, states: &[ArrayRef], slots: &[u32]) -> Result<RecordBatch> {
        let mut columns = self.keys(slots)?;
        columns.extend_from_slice(states);
        let Some(expiry) = &self.expiry else { return make_batch(&self.schema, columns, slots.len()) };
        let mut fields = self.schema.fields().to_vec();
        fields.push(Arc::new(Field::new(TOUCHED, DataType::Int64, false)));
        columns.push(Arc::new(Int64Array::from_iter_values(slots.iter().map(|slot| expiry.touched[*slot as usize]))));
        make_batch(&Arc::new(Schema::new(fields)), columns, slots.len())
    }

    /// Loads rows of a checkpoint.
    pub(crate) fn restore(&mut self, batches: &[RecordBatch]) -> Result<()> {
        for batch in batches {
            let mut columns = batch.columns().to_vec();
            let touched = if self.expires() { columns.pop() } else { None };
            let batch = make_batch(&self.schema, columns, batch.num_rows())?;
            let keys = &batch.columns()[..self.keys];
            let encoded = self.index.encode(keys)?;
            let buckets = self.bucket_keys(keys)?;
            let rows: Vec<u32> = (0..batch.num_rows() as u32).collect();
            if rows.iter().any(|row| self.index.find(&encoded, *row as usize).is_some()) {
                return Err(DataflowError::mismatch("a group occurs twice"));
            }
            self.write(batch.columns()[self.keys..].to_vec(), &rows, &vec![None; rows.len()], &encoded, buckets.as_deref())?;
            if let Some(touched) = touched {
                let touched = touched.as_primitive_opt::<Int64Type>();
                let touched = touched.ok_or_else(|| DataflowError::mismatch("the times of groups are no integers"))?;
                let slots = self.index.find_all(&encoded, rows.len());
                for (slot, touched) in slots.into_iter().zip(touched.values()) {
                    if let (Some(expiry), Some(slot)) = (&mut self.expiry, slot) {
                        expiry.touch(slot, *touched);
                    }
                }
            }
        }
        Ok(())
    }

    /// Columns of the state.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }
}
