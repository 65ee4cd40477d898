//! `min` and `max` over input with retractions: the values of every group, in order, each with how often it is there.
//!
//! ```text
//!   entry = encoded group ++ encoded value      the first entry with a group's encoding has its minimum, or its maximum: `max`
//!                                               encodes values in descending order
//! ```
//! A change costs a search for each of its rows. NULLs are no values. The extreme of a group is also its state column in the groups' log,
//! so that what a group's row was before is there without a search.

use super::Part;
use super::call::Call;
use crate::columns::describe_row;
use crate::error::{DataflowError, Result};
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{SortOptions, cast, take};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

/// What an entry takes beside its bytes: itself, its share of the tree's nodes, and the head of its allocation.
const ENTRY_BYTES: usize = 2 * size_of::<(Box<[u8]>, i64)>() + 16;
const CHECKPOINT_ROWS: usize = 64 * 1024;

/// The values of one call.
pub(crate) struct Extremes {
    /// Encodes the group columns; `None` without any.
    groups: Option<RowConverter>,
    values: RowConverter,
    /// Encodes both in one.
    whole: RowConverter,
    entries: BTreeMap<Box<[u8]>, i64>,
    entry_bytes: usize,
    schema: SchemaRef,
}

impl Extremes {
    /// Whether a call is one of these.
    pub(crate) fn is_extreme(call: &Call) -> bool {
        matches!(call.function(), "min" | "max")
            && matches!(call.state_types.as_slice(), [value] if !value.is_nested() && !value.is_floating())
    }

    /// No values yet.
    pub(crate) fn new(call: &Call, key_types: &[DataType]) -> Result<Self> {
        let [value_type] = call.state_types.as_slice() else {
            return Err(DataflowError::internal(format!("the state of {} is not its value", call.function())));
        };
        let options = SortOptions { descending: call.function() == "max", nulls_first: false };
        let value = SortField::new_with_options(value_type.clone(), options);
        let keys: Vec<SortField> = key_types.iter().cloned().map(SortField::new).collect();
        let whole = keys.iter().cloned().chain([value.clone()]).collect();
        let field = |(index, data_type): (usize, &DataType)| Field::new(format!("c{index}"), data_type.clone(), true);
        let mut fields: Vec<Field> = key_types.iter().chain([value_type]).enumerate().map(field).collect();
        fields.push(Field::new("__weight", DataType::Int64, false));
        Ok(Self {
            groups: if keys.is_empty() { None } else { Some(RowConverter::new(keys)?) },
            values: RowConverter::new(vec![value])?,
            whole: RowConverter::new(whole)?,
            entries: BTreeMap::new(),
            entry_bytes: 0,
            schema: Arc::new(Schema::new(fields)),
        })
    }

    /// Memory in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.entry_bytes + self.entries.len() * ENTRY_BYTES
    }

    /// Adds the rows of a change, whose groups have these keys, and gives the extreme of each group; NULL for one without values.
    pub(crate) fn update(&mut self, call: &Call, keys: &[ArrayRef], count: usize, parts: &[Part]) -> Result<ArrayRef> {
        let groups = self.encoded(keys)?;
        let value_type = &call.state_types[0];
        let mut negative: BTreeSet<Box<[u8]>> = BTreeSet::new();
        let mut entry = Vec::new();
        for part in parts {
            let arguments = call.arguments(&part.batch)?;
            let [values] = arguments.values.as_slice() else {
                return Err(DataflowError::internal(format!("{} has one argument", call.function())));
            };
            let values = if values.data_type() == value_type { Arc::clone(values) } else { cast(values, value_type)? };
            let rows = self.values.convert_columns(std::slice::from_ref(&values))?;
            let counts = |row: usize| arguments.filter.as_ref().is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            for row in (0..rows.num_rows()).filter(|row| values.is_valid(*row) && counts(*row)) {
                entry.clear();
                entry.extend_from_slice(prefix(groups.as_ref(), part.groups[row]));
                entry.extend_from_slice(rows.row(row).as_ref());
                if self.add(&entry, part.weights.value(row))? < 0 {
                    negative.insert(entry.as_slice().into());
                } else {
                    negative.remove(entry.as_slice());
                }
            }
        }
        if let Some(entry) = negative.first() {
            let weight = self.entries.get(entry).copied().unwrap_or_default();
            let columns = self.whole.convert_rows([self.whole.parser().parse(entry)])?;
            let row = describe_row(&self.schema, &columns, 0);
            return Err(DataflowError::NegativeWeight { relation: String::new(), row, weight });
        }
        self.extremes(groups.as_ref(), count)
    }

    /// Adds to the weight of an entry and gives the new one.
    fn add(&mut self, entry: &[u8], weight: i64) -> Result<i64> {
        let Some(old) = self.entries.get_mut(entry) else {
            self.entries.insert(entry.into(), weight);
            self.entry_bytes += entry.len();
            return Ok(weight);
        };
        *old = old.checked_add(weight).ok_or_else(|| DataflowError::internal("the multiplicity of a value exceeds 64 bits"))?;
        let new = *old;
        if new == 0 {
            self.entries.remove(entry);
            self.entry_bytes -= entry.len();
        }
        Ok(new)
    }

    fn extremes(&self, groups: Option<&Rows>, count: usize) -> Result<ArrayRef> {
        let parser = self.values.parser();
        let mut found = Vec::with_capacity(count);
        let mut places: Vec<Option<u32>> = Vec::with_capacity(count);
        for group in 0..count {
            let prefix = prefix(groups, group);
            let value = self.of_group(prefix).next().map(|entry| parser.parse(&entry[prefix.len()..]));
            places.push(value.map(|value| {
                found.push(value);
                (found.len() - 1) as u32
            }));
        }
        let values = self.values.convert_rows(found)?;
        Ok(take(&values[0], &UInt32Array::from(places), None)?)
    }

    /// Entries of a group, in order.
    fn of_group<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        self.entries.range::<[u8], _>(from).map(|(entry, _)| entry.as_ref()).take_while(move |entry| entry.starts_with(prefix))
    }

    /// Forgets whole groups.
    pub(crate) fn forget(&mut self, keys: &[ArrayRef]) -> Result<()> {
        let Some(groups) = self.encoded(keys)? else { return Ok(()) };
        for row in &groups {
            let entries: Vec<Box<[u8]>> = self.of_group(row.as_ref()).map(Box::from).collect();
            for entry in entries {
                self.entries.remove(&entry);
                self.entry_bytes -= entry.len();
            }
        }
        Ok(())
    }

    fn encoded(&self, keys: &[ArrayRef]) -> Result<Option<Rows>> {
        self.groups.as_ref().map(|groups| groups.convert_columns(keys)).transpose().map_err(DataflowError::from)
    }

    /// The entries as batches: group columns, value, weight.
    pub(crate) fn checkpoint(&self) -> Result<Vec<RecordBatch>> {
        let parser = self.whole.parser();
        let entries: Vec<(&[u8], i64)> = self.entries.iter().map(|(entry, weight)| (entry.as_ref(), *weight)).collect();
        let batches = entries.chunks(CHECKPOINT_ROWS).map(|chunk| {
            let mut columns = self.whole.convert_rows(chunk.iter().map(|(entry, _)| parser.parse(entry)))?;
            columns.push(Arc::new(Int64Array::from_iter_values(chunk.iter().map(|(_, weight)| *weight))));
            Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
        });
        batches.collect()
    }

    /// The columns of [`checkpoint`](Self::checkpoint).
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Loads the batches of a checkpoint.
    pub(crate) fn restore(&mut self, batches: &[RecordBatch]) -> Result<()> {
        for batch in batches {
            let (weights, columns) =
                batch.columns().split_last().ok_or_else(|| DataflowError::mismatch("the values of min or max have no columns"))?;
            let rows = self.whole.convert_columns(columns)?;
            for (row, weight) in rows.iter().zip(weights.as_primitive::<Int64Type>().values()) {
                self.add(row.as_ref(), *weight)?;
            }
        }
        Ok(())
    }
}

/// The encoding of a group; nothing where there is just one.
fn prefix(groups: Option<&Rows>, group: usize) -> &[u8] {
    groups.map_or(&[], |groups| groups.row(group).data())
}
