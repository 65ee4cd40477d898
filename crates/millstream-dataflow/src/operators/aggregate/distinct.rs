//! `count(DISTINCT x)`, `sum(DISTINCT x)`, `avg(DISTINCT x)`: which values a group has, and how often.
//!
//! ```text
//!   row ─▶ (group, value) ─▶ slot ─▶ a weight per call       a weight that comes up from 0: the value is new to its call
//!                                                            one that goes down to 0: the value has gone
//! ```
//! The plain function then sees the rows at which a value comes or goes, and no others: a filter hides them. Calls with the same
//! argument share the values, each with its own weights, since their FILTERs differ. NULLs are no values.

use super::Part;
use super::call::Call;
use crate::bucket::{BucketKey, Buckets, Floor};
use crate::columns::{describe_row, take_columns};
use crate::error::{DataflowError, Result};
use crate::key_index::KeyIndex;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, Int64Array, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use std::sync::Arc;

const CHECKPOINT_ROWS: usize = 64 * 1024;

/// The values of calls with one argument.
pub(crate) struct DistinctValues {
    /// Which of the aggregate's calls.
    calls: Vec<usize>,
    /// Group columns and value.
    index: KeyIndex,
    /// Of each slot one weight per call.
    weights: Vec<i64>,
    /// By slot, during a step: it is among the changed ones.
    seen: Vec<bool>,
    buckets: Option<Buckets>,
    schema: SchemaRef,
}

/// The rows at which values come to a call and go from it, by part.
#[derive(Clone, Debug, Default)]
pub(crate) struct Crossings {
    pub(crate) plus: Vec<BooleanArray>,
    pub(crate) minus: Vec<BooleanArray>,
}

/// A value whose weights changed, for the comparison at the end of the step.
struct Changed {
    slot: u32,
    part: usize,
    row: usize,
}

impl DistinctValues {
    /// No values yet, of groups with these keys.
    pub(crate) fn new(calls: Vec<usize>, key_types: &[DataType], value_type: &DataType, has_bucket: bool) -> Result<Self> {
        let types: Vec<DataType> = key_types.iter().chain([value_type]).cloned().collect();
        let mut fields: Vec<Field> =
            types.iter().enumerate().map(|(place, data_type)| Field::new(format!("c{place}"), data_type.clone(), true)).collect();
        fields.extend(calls.iter().map(|call| Field::new(format!("weight {call}"), DataType::Int64, false)));
        let buckets = has_bucket.then(Buckets::default);
        Ok(Self { calls, index: KeyIndex::new(&types)?, weights: vec![], seen: vec![], buckets, schema: Arc::new(Schema::new(fields)) })
    }

    /// Memory in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.index.bytes() + 8 * self.weights.capacity() + self.seen.capacity() + self.buckets.as_ref().map_or(0, Buckets::bytes)
    }

    /// Adds the rows of a change, whose groups have these keys and buckets. Gives for each of its calls where values come and go.
    pub(crate) fn update(
        &mut self,
        calls: &[Call],
        keys: &[ArrayRef],
        buckets: Option<&[BucketKey]>,
        parts: &[Part],
    ) -> Result<Vec<(usize, Crossings)>> {
        let width = self.calls.len();
        let mut changed: Vec<Changed> = Vec::new();
        let mut before: Vec<i64> = Vec::new();
        for (place, part) in parts.iter().enumerate() {
            let arguments = self.calls.iter().map(|call| calls[*call].arguments(&part.batch)).collect::<Result<Vec<_>>>()?;
            let Some([values]) = arguments.first().map(|arguments| arguments.values.as_slice()) else {
                return Err(DataflowError::internal("a call with DISTINCT has one argument"));
            };
            let groups = UInt32Array::from_iter_values(part.groups.iter().map(|group| *group as u32));
            let mut columns = take_columns(keys, &groups)?;
            columns.push(Arc::clone(values));
            let encoded = self.index.encode(&columns)?;
            let counts =
                |call: usize, row: usize| arguments[call].filter.as_ref().is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            for row in (0..part.groups.len()).filter(|row| values.is_valid(*row)) {
                if (0..width).all(|call| !counts(call, row)) {
                    continue;
                }
                let (slot, _) = self.index.find_or_insert(&encoded, row);
                let first = slot as usize * width;
                if self.weights.len() < first + width {
                    self.weights.resize(first + width, 0);
                }
                if self.seen.len() <= slot as usize {
                    self.seen.resize(slot as usize + 1, false);
                }
                if !self.seen[slot as usize] {
                    changed.push(Changed { slot, part: place, row });
                    before.extend_from_slice(&self.weights[first..first + width]);
                    self.seen[slot as usize] = true;
                }
                let weight = part.weights.value(row);
                for call in (0..width).filter(|call| counts(*call, row)) {
                    let sum = self.weights[first + call].checked_add(weight);
                    self.weights[first + call] =
                        sum.ok_or_else(|| DataflowError::internal("the multiplicity of a value exceeds 64 bits"))?;
                }
            }
        }
        changed.iter().for_each(|changed| self.seen[changed.slot as usize] = false);
        self.crossings(&changed, &before, buckets, parts)
    }

    /// Compares weights with those before, takes values out that have gone, and puts new ones into their bucket.
    fn crossings(
        &mut self,
        changed: &[Changed],
        before: &[i64],
        buckets: Option<&[BucketKey]>,
        parts: &[Part],
    ) -> Result<Vec<(usize, Crossings)>> {
        let width = self.calls.len();
        let nothing = || -> Vec<BooleanBufferBuilder> { parts.iter().map(|part| builder(part.groups.len())).collect() };
        let mut plus: Vec<_> = (0..width).map(|_| nothing()).collect();
        let mut minus: Vec<_> = (0..width).map(|_| nothing()).collect();
        for (Changed { slot, part, row }, before) in changed.iter().zip(before.chunks(width)) {
            let now = &self.weights[*slot as usize * width..][..width];
            if let Some(weight) = now.iter().find(|weight| **weight < 0) {
                let columns = self.index.decode(&[*slot])?;
                let row = describe_row(&self.schema, &columns, 0);
                return Err(DataflowError::NegativeWeight { relation: String::new(), row, weight: *weight });
            }
            for (call, (before, now)) in before.iter().zip(now).enumerate() {
                match (*before > 0, *now > 0) {
                    (false, true) => plus[call][*part].set_bit(*row, true),
                    (true, false) => minus[call][*part].set_bit(*row, true),
                    _ => {}
                }
            }
            let (was, is) = (before.iter().any(|weight| *weight > 0), now.iter().any(|weight| *weight > 0));
            if let (Some(tree), Some(keys)) = (&mut self.buckets, buckets) {
                let key = &keys[parts[*part].groups[*row]];
                match (was, is) {
                    (false, true) => tree.insert(key, *slot),
                    (true, false) => tree.remove(key, *slot),
                    _ => {}
                }
            }
            if !is {
                self.index.remove(*slot);
            }
        }
        let finished = |builders: Vec<BooleanBufferBuilder>| -> Vec<BooleanArray> {
            builders.into_iter().map(|mut builder| BooleanArray::new(builder.finish(), None)).collect()
        };
        let crossings = plus.into_iter().zip(minus).map(|(plus, minus)| Crossings { plus: finished(plus), minus: finished(minus) });
        Ok(self.calls.iter().copied().zip(crossings).collect())
    }

    /// Forgets the groups whose bucket is final.
    pub(crate) fn drop_passed(&mut self, floor: &Floor) {
        let Some(buckets) = &mut self.buckets else { return };
        let gone = buckets.pop_passed(floor);
        if gone.is_empty() {
            return;
        }
        let width = self.calls.len();
        gone.iter().for_each(|slot| self.weights[*slot as usize * width..][..width].fill(0));
        self.index.remove_all(&gone);
    }

    /// The values as batches: group columns, value, a weight per call.
    pub(crate) fn checkpoint(&self) -> Result<Vec<RecordBatch>> {
        let width = self.calls.len();
        let used: Vec<u32> =
            (0..(self.weights.len() / width) as u32).filter(|slot| self.of(*slot).iter().any(|weight| *weight != 0)).collect();
        let batches = used.chunks(CHECKPOINT_ROWS).map(|slots| {
            let mut columns = self.index.decode(slots)?;
            for call in 0..width {
                columns.push(Arc::new(Int64Array::from_iter_values(slots.iter().map(|slot| self.of(*slot)[call]))));
            }
            Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
        });
        batches.collect()
    }

    fn of(&self, slot: u32) -> &[i64] {
        &self.weights[slot as usize * self.calls.len()..][..self.calls.len()]
    }

    /// The columns of [`checkpoint`](Self::checkpoint).
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Loads a batch of a checkpoint; `buckets` are those of its rows.
    pub(crate) fn restore(&mut self, batch: &RecordBatch, buckets: Option<&[BucketKey]>) -> Result<()> {
        let width = self.calls.len();
        let (columns, weights) = batch.columns().split_at(batch.num_columns() - width);
        let encoded = self.index.encode(columns)?;
        for row in 0..batch.num_rows() {
            let slot = self.index.insert(&encoded, row);
            let of_row = weights.iter().map(|column| column.as_primitive::<Int64Type>().value(row));
            self.weights.extend(of_row);
            if let (Some(tree), Some(keys)) = (&mut self.buckets, buckets) {
                tree.insert(&keys[row], slot);
            }
        }
        Ok(())
    }
}

fn builder(rows: usize) -> BooleanBufferBuilder {
    let mut builder = BooleanBufferBuilder::new(rows);
    builder.append_n(rows, false);
    builder
}
