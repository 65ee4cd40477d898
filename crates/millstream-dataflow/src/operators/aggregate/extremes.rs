//! `min` and `max` over input with retractions: the values of every group, in order, each with how often it is there.
//!
//! ```text
//!   group ─▶ slot ─▶ its values in order: the first is the extreme (`max` encodes values in descending order)
//! ```
//! A change costs a search for each of its rows. NULLs are no values. The extreme of a group is also a column of its state, so
//! that what a group's row was before is there without a search.

use super::Part;
use super::call::Call;
use crate::columns::{describe_row, take_columns};
use crate::error::{DataflowError, Result};
use crate::key_index::KeyIndex;
use crate::ordered::{self, Entry, Ordered, Size};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{SortOptions, cast, take};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};
use std::sync::Arc;

const CHECKPOINT_ROWS: usize = 64 * 1024;

/// The values of one call.
pub(crate) struct Extremes {
    index: KeyIndex,
    encoder: RowConverter,
    /// By the slot of the group.
    values: Vec<Ordered>,
    size: Size,
    schema: SchemaRef,
}

/// The rows of a part that have a value.
struct Encoded {
    rows: Rows,
    counts: BooleanArray,
}

impl Extremes {
    /// No values yet.
    pub(crate) fn new(call: &Call, key_types: &[DataType]) -> Result<Self> {
        let [value_type] = call.state_types.as_slice() else {
            return Err(DataflowError::internal(format!("the state of {} is not its value", call.function())));
        };
        let options = SortOptions { descending: call.function() == "max", nulls_first: false };
        let field = |(index, data_type): (usize, &DataType)| Field::new(format!("c{index}"), data_type.clone(), true);
        let mut fields: Vec<Field> = key_types.iter().chain([value_type]).enumerate().map(field).collect();
        fields.push(Field::new("__weight", DataType::Int64, false));
        Ok(Self {
            index: KeyIndex::new(key_types)?,
            encoder: RowConverter::new(vec![SortField::new_with_options(value_type.clone(), options)])?,
            values: vec![],
            size: Size::default(),
            schema: Arc::new(Schema::new(fields)),
        })
    }

    /// Memory in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let slots = self.values.capacity() * size_of::<Ordered>();
        self.index.bytes() + slots + self.size.bytes
    }

    /// Adds the rows of a change, whose groups have these keys, and gives the extreme of each group; NULL for one without values.
    pub(crate) fn update(&mut self, call: &Call, keys: &[ArrayRef], count: usize, parts: &[Part]) -> Result<ArrayRef> {
        let slots = self.slots(keys, count)?;
        let encoded = parts.iter().map(|part| self.encode(call, &part.batch)).collect::<Result<Vec<_>>>()?;
        // What comes first, so that no weight is negative only because of the order of rows.
        for comes in [true, false] {
            for (part, Encoded { rows, counts }) in parts.iter().zip(&encoded) {
                for row in (0..rows.num_rows()).filter(|row| counts.value(*row)) {
                    let weight = part.weights.value(row);
                    let group = part.groups[row];
                    if (weight > 0) == comes
                        && let Err(weight) = self.change(slots[group], rows.row(row).as_ref(), weight)?
                    {
                        let mut columns = take_columns(keys, &UInt32Array::from(vec![group as u32]))?;
                        columns.extend(self.encoder.convert_rows([rows.row(row)])?);
                        let row = describe_row(&self.schema, &columns, 0);
                        return Err(DataflowError::NegativeWeight { relation: String::new(), row, weight });
                    }
                }
            }
        }
        let extremes = self.extremes(&slots)?;
        slots.into_iter().for_each(|slot| self.forget_empty(slot));
        Ok(extremes)
    }

    fn encode(&self, call: &Call, batch: &RecordBatch) -> Result<Encoded> {
        let arguments = call.arguments(batch)?;
        let [values] = arguments.values.as_slice() else {
            return Err(DataflowError::internal(format!("{} has one argument", call.function())));
        };
        let value_type = &call.state_types[0];
        let values = if values.data_type() == value_type { Arc::clone(values) } else { cast(values, value_type)? };
        let filter = arguments.filter.as_ref();
        let counts = |row: usize| values.is_valid(row) && filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
        let counts = BooleanArray::from_iter((0..values.len()).map(|row| Some(counts(row))));
        Ok(Encoded { rows: self.encoder.convert_columns(std::slice::from_ref(&values))?, counts })
    }

    /// The slots of groups, new ones where they are not known.
    fn slots(&mut self, keys: &[ArrayRef], count: usize) -> Result<Vec<u32>> {
        let encoded = self.index.encode(keys)?;
        let known = self.index.find_all(&encoded, count);
        ordered::read_ahead(&self.values, known.iter().flatten());
        let find = |(group, known): (usize, Option<u32>)| known.unwrap_or_else(|| self.index.find_or_insert(&encoded, group).0);
        let slots: Vec<u32> = known.into_iter().enumerate().map(find).collect();
        let length = slots.iter().max().map_or(0, |last| *last as usize + 1);
        if self.values.len() < length {
            self.values.resize_with(length, Ordered::default);
        }
        Ok(slots)
    }

    /// Adds to the weight of a value. One that would be negative is the inner error.
    fn change(&mut self, slot: u32, value: &[u8], weight: i64) -> Result<std::result::Result<(), i64>> {
        self.values[slot as usize].change(value, 0, weight, &mut self.size)
    }

    fn extremes(&self, slots: &[u32]) -> Result<ArrayRef> {
        let parser = self.encoder.parser();
        let mut found = Vec::with_capacity(slots.len());
        let mut places: Vec<Option<u32>> = Vec::with_capacity(slots.len());
        for slot in slots {
            places.push(self.values[*slot as usize].first().map(|entry| {
                found.push(parser.parse(entry.row()));
                (found.len() - 1) as u32
            }));
        }
        let values = self.encoder.convert_rows(found)?;
        Ok(take(&values[0], &UInt32Array::from(places), None)?)
    }

    fn forget_empty(&mut self, slot: u32) {
        if self.values[slot as usize].len() == 0 {
            self.index.remove(slot);
        }
    }

    /// Forgets whole groups.
    pub(crate) fn forget(&mut self, keys: &[ArrayRef]) -> Result<()> {
        let Some(count) = keys.first().map(|column| column.len()) else { return Ok(()) };
        let encoded = self.index.encode(keys)?;
        let gone: Vec<u32> = self.index.find_all(&encoded, count).into_iter().flatten().collect();
        gone.iter().for_each(|slot| self.values[*slot as usize].clear(&mut self.size));
        self.index.remove_all(&gone);
        Ok(())
    }

    /// The values as batches: group columns, value, weight.
    pub(crate) fn checkpoint(&self) -> Result<Vec<RecordBatch>> {
        let parser = self.encoder.parser();
        let of_slot = |(slot, values): (usize, &Ordered)| -> Vec<(u32, Entry, i64)> {
            values.iter().map(|(entry, weight)| (slot as u32, entry.clone(), weight)).collect()
        };
        let mut batches = Vec::new();
        let mut rows: Vec<(u32, Entry, i64)> = Vec::new();
        let mut slots = self.values.iter().enumerate().peekable();
        while let Some(slot) = slots.next() {
            rows.extend(of_slot(slot));
            if rows.len() < CHECKPOINT_ROWS && slots.peek().is_some() || rows.is_empty() {
                continue;
            }
            let mut columns = self.index.decode(&rows.iter().map(|(slot, _, _)| *slot).collect::<Vec<_>>())?;
            columns.extend(self.encoder.convert_rows(rows.iter().map(|(_, entry, _)| parser.parse(entry.row())))?);
            columns.push(Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, _, weight)| *weight))));
            batches.push(RecordBatch::try_new(Arc::clone(&self.schema), columns)?);
            rows.clear();
        }
        Ok(batches)
    }

    /// The columns of [`checkpoint`](Self::checkpoint).
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Loads the batches of a checkpoint.
    pub(crate) fn restore(&mut self, batches: &[RecordBatch]) -> Result<()> {
        for batch in batches {
            let (keys, rest) = batch.columns().split_at(batch.num_columns() - 2);
            let slots = self.slots(keys, batch.num_rows())?;
            let rows = self.encoder.convert_columns(&rest[..1])?;
            let weights = rest[1].as_primitive::<Int64Type>();
            for (row, slot) in slots.into_iter().enumerate() {
                if self.change(slot, rows.row(row).as_ref(), weights.value(row))?.is_err() {
                    return Err(DataflowError::mismatch("a value has a negative weight"));
                }
            }
        }
        Ok(())
    }
}
