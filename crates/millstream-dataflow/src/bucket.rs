//! Buckets: state ordered by the column that a bound closes.
//!
//! A bound promises that no future change carries a smaller value in the bucket column, so everything below it is final and
//! leaves whole buckets at a time. Bucket values are kept as ordered keys: `i64` for numbers and times, canonical row bytes
//! for other types. NULL is final only when everything is.

use crate::error::Result;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::min;
use arrow::datatypes::*;
use datafusion::common::ScalarValue;
use millstream_plan::bound::{Bound, BoundContext, BoundValue};
use millstream_types::row_key::RowKeyEncoder;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// An ordered value of a bucket column. The order of variants matters: NULL is greatest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum BucketKey {
    /// Integers, dates, times.
    Int(i64),
    /// Row encoding of any other value.
    Bytes(Vec<u8>),
    /// NULL.
    Null,
}

/// Up to where everything is final.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Floor {
    /// Nothing is.
    Unknown,
    /// Keys below this one.
    Below(BucketKey),
    /// Everything, NULL too.
    All,
}

impl Floor {
    /// Whether a key is final.
    pub(crate) fn passed(&self, key: &BucketKey) -> bool {
        match self {
            Floor::Unknown => false,
            Floor::Below(floor) => key < floor && *key != BucketKey::Null,
            Floor::All => true,
        }
    }
}

/// The bucket column of an operator: reads its bound and its values.
#[derive(Debug)]
pub(crate) struct BucketColumn {
    /// Which column of the operator's output (of an aggregate: of its groups).
    pub(crate) column: usize,
    bound: Arc<Bound>,
    data_type: DataType,
    encoder: RowKeyEncoder,
    /// Where the bound was when state was last dropped; part of the state.
    pub(crate) floor: Floor,
}

impl BucketColumn {
    /// A column of type `data_type`, bounded by `bound`.
    pub(crate) fn new(column: usize, bound: Arc<Bound>, data_type: &DataType) -> Result<Self> {
        let encoder = RowKeyEncoder::new([data_type.clone()])?;
        Ok(Self { column, bound, data_type: data_type.clone(), encoder, floor: Floor::Unknown })
    }

    /// The bound at the end of the epoch; never lower than before.
    pub(crate) fn read(&self, context: &BoundContext) -> Result<Floor> {
        let floor = match self.bound.evaluate(context)? {
            BoundValue::Unknown => Floor::Unknown,
            BoundValue::All => Floor::All,
            BoundValue::Below(value) if value.is_null() => Floor::Unknown,
            BoundValue::Below(value) => Floor::Below(self.key_of(&value)?),
        };
        Ok(floor.max(self.floor.clone()))
    }

    fn key_of(&self, value: &ScalarValue) -> Result<BucketKey> {
        let value = match (value.data_type(), &self.data_type) {
            (found, wanted) if found == *wanted => value.to_array()?,
            // The same instant whatever the zone; a cast would take a value without zone for local time.
            (DataType::Timestamp(found, _), DataType::Timestamp(wanted, _)) if found == *wanted => value.to_array()?,
            _ => value.cast_to(&self.data_type)?.to_array()?,
        };
        Ok(self.keys(&value)?.swap_remove(0))
    }

    /// Whether no value is final already, as far as that can be seen at a glance.
    pub(crate) fn none_passed(&self, values: &ArrayRef) -> bool {
        let least = match values.data_type() {
            DataType::Timestamp(TimeUnit::Microsecond, _) => min(values.as_primitive::<TimestampMicrosecondType>()),
            DataType::Int64 => min(values.as_primitive::<Int64Type>()),
            _ => None,
        };
        match (&self.floor, least) {
            (Floor::Unknown, _) => true,
            (Floor::Below(BucketKey::Int(floor)), Some(least)) => least >= *floor,
            _ => false,
        }
    }

    /// Which values are not final already; `None` when none is.
    pub(crate) fn open(&self, values: &ArrayRef) -> Result<Option<BooleanArray>> {
        if self.none_passed(values) {
            return Ok(None);
        }
        let mask = BooleanArray::from_iter(self.keys(values)?.iter().map(|key| Some(!self.floor.passed(key))));
        Ok((mask.true_count() < mask.len()).then_some(mask))
    }

    /// The keys of a column's values.
    pub(crate) fn keys(&self, values: &ArrayRef) -> Result<Vec<BucketKey>> {
        if let Some(keys) = integer_keys(values) {
            return Ok(keys);
        }
        let rows = self.encoder.encode(std::slice::from_ref(values))?;
        let keys = rows.iter().enumerate().map(|(index, row)| match values.is_null(index) {
            true => BucketKey::Null,
            false => BucketKey::Bytes(row.as_ref().to_vec()),
        });
        Ok(keys.collect())
    }
}

/// `None` for types that are kept as row bytes; the type alone decides, so that all batches of a column agree.
fn integer_keys(values: &ArrayRef) -> Option<Vec<BucketKey>> {
    fn convert<T: ArrowPrimitiveType>(values: &ArrayRef) -> Option<Vec<BucketKey>>
    where
        i64: From<T::Native>,
    {
        let keys = values.as_primitive::<T>().iter().map(|value| value.map_or(BucketKey::Null, |value| BucketKey::Int(value.into())));
        Some(keys.collect())
    }
    match values.data_type() {
        DataType::Int8 => convert::<Int8Type>(values),
        DataType::Int16 => convert::<Int16Type>(values),
        DataType::Int32 => convert::<Int32Type>(values),
        DataType::Int64 => convert::<Int64Type>(values),
        DataType::UInt8 => convert::<UInt8Type>(values),
        DataType::UInt16 => convert::<UInt16Type>(values),
        DataType::UInt32 => convert::<UInt32Type>(values),
        DataType::Date32 => convert::<Date32Type>(values),
        DataType::Date64 => convert::<Date64Type>(values),
        DataType::Time32(TimeUnit::Second) => convert::<Time32SecondType>(values),
        DataType::Time32(TimeUnit::Millisecond) => convert::<Time32MillisecondType>(values),
        DataType::Time64(TimeUnit::Microsecond) => convert::<Time64MicrosecondType>(values),
        DataType::Time64(TimeUnit::Nanosecond) => convert::<Time64NanosecondType>(values),
        DataType::Timestamp(TimeUnit::Second, _) => convert::<TimestampSecondType>(values),
        DataType::Timestamp(TimeUnit::Millisecond, _) => convert::<TimestampMillisecondType>(values),
        DataType::Timestamp(TimeUnit::Microsecond, _) => convert::<TimestampMicrosecondType>(values),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => convert::<TimestampNanosecondType>(values),
        _ => None,
    }
}

/// Slots by bucket. Within a bucket they are in order of insertion, except that a removed slot's place is taken by the last one.
#[derive(Debug, Default)]
pub(crate) struct Buckets {
    /// Which of `buckets`.
    numbers: BTreeMap<BucketKey, u32>,
    buckets: Vec<Vec<u32>>,
    /// Of `buckets`: those that are in no use.
    free: Vec<u32>,
    /// Where a slot was put last; the next one mostly belongs there, too.
    last: Option<(BucketKey, u32)>,
    /// By slot: its place in its bucket.
    places: Vec<u32>,
}

impl Buckets {
    /// Adds a slot that is in no bucket.
    pub(crate) fn insert(&mut self, key: &BucketKey, slot: u32) {
        let number = match &self.last {
            Some((last, number)) if last == key => *number,
            _ => self.number_of(key),
        };
        if self.places.len() <= slot as usize {
            self.places.resize(slot as usize + 1, u32::MAX);
        }
        let bucket = &mut self.buckets[number as usize];
        self.places[slot as usize] = bucket.len() as u32;
        bucket.push(slot);
    }

    fn number_of(&mut self, key: &BucketKey) -> u32 {
        let number = *self.numbers.entry(key.clone()).or_insert_with(|| {
            self.free.pop().unwrap_or_else(|| {
                self.buckets.push(Vec::new());
                self.buckets.len() as u32 - 1
            })
        });
        self.last = Some((key.clone(), number));
        number
    }

    /// Takes a slot out of its bucket.
    pub(crate) fn remove(&mut self, key: &BucketKey, slot: u32) {
        let Some(&number) = self.numbers.get(key) else { return };
        let bucket = &mut self.buckets[number as usize];
        let place = self.places[slot as usize] as usize;
        bucket.swap_remove(place);
        if let Some(moved) = bucket.get(place) {
            self.places[*moved as usize] = place as u32;
        }
        if bucket.is_empty() {
            self.numbers.remove(key);
            self.take(number);
        }
    }

    /// The slots of a bucket that is gone.
    fn take(&mut self, number: u32) -> Vec<u32> {
        self.last = None;
        self.free.push(number);
        std::mem::take(&mut self.buckets[number as usize])
    }

    /// The bucket that closes first.
    pub(crate) fn first(&self) -> Option<&BucketKey> {
        self.numbers.keys().next()
    }

    /// Whether a bucket is final.
    pub(crate) fn any_passed(&self, floor: &Floor) -> bool {
        self.first().is_some_and(|key| floor.passed(key))
    }

    /// Removes the final buckets and returns their slots, bucket by bucket in ascending order.
    pub(crate) fn pop_passed(&mut self, floor: &Floor) -> Vec<u32> {
        let mut popped = Vec::new();
        while let Some(entry) = self.numbers.first_entry() {
            if !floor.passed(entry.key()) {
                break;
            }
            let number = entry.remove();
            let slots = self.take(number);
            // Mostly there is one.
            if popped.is_empty() { popped = slots } else { popped.extend_from_slice(&slots) }
        }
        popped
    }

    /// All slots, in the order in which buckets close; a checkpoint keeps it.
    pub(crate) fn ordered(&self) -> Vec<u32> {
        self.numbers.values().flat_map(|number| &self.buckets[*number as usize]).copied().collect()
    }

    /// Memory in bytes, not counting the tree's own nodes.
    pub(crate) fn bytes(&self) -> usize {
        let buckets = self.buckets.capacity() * size_of::<Vec<u32>>() + self.numbers.len() * size_of::<(BucketKey, u32)>();
        4 * (self.places.capacity() * 2 + self.free.capacity()) + buckets
    }
}
