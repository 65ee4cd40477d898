//! The changes that a stream is fed with: its rows in order, and deletions of earlier ones among them.

use super::input::{Input, Shape};
use super::stream_form::OP_COLUMN;
use arrow::array::{ArrayRef, RecordBatch, StringViewArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Field, Schema};
use millstream_types::row_key::{RowKeyEncoder, types_of};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// A change: a row of the input comes, or goes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Change {
    row: u32,
    deletes: bool,
}

/// The changes of a stream.
#[derive(Debug)]
pub(super) struct Feed<'a> {
    /// The stream and its rows.
    pub(super) input: &'a Input,
    changes: Vec<Change>,
}

impl<'a> Feed<'a> {
    /// The changes of the first `rows_max` rows. The same seed makes the same changes.
    ///
    /// # Errors
    /// When a key column does not exist.
    pub(super) fn new(input: &'a Input, rows_max: usize, seed: u64) -> anyhow::Result<Self> {
        let count = input.rows.num_rows().min(rows_max);
        let mut changes = Vec::with_capacity(count);
        let mut present = Present::new(input)?;
        let mut random = SmallRng::seed_from_u64(seed ^ xxhash_rust::xxh3::xxh3_64(input.name.as_bytes()));
        for row in 0..count as u32 {
            changes.push(Change { row, deletes: false });
            if input.deletes() {
                present.insert(row);
                if random.random_bool(input.deletions) {
                    let index = random.random_range(0..present.rows.len());
                    changes.push(Change { row: present.remove(index), deletes: true });
                }
            }
        }
        Ok(Self { input, changes })
    }

    /// How many changes there are.
    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    /// Some changes as rows for the stream, with their op where rows are deleted.
    ///
    /// # Errors
    /// When Arrow refuses the columns, which would be a bug.
    pub(super) fn rows(&self, range: Range<usize>) -> anyhow::Result<RecordBatch> {
        let changes = &self.changes[range];
        let rows = take_record_batch(&self.input.rows, &UInt32Array::from_iter_values(changes.iter().map(|change| change.row)))?;
        if !self.input.deletes() {
            return Ok(rows);
        }
        let ops = StringViewArray::from_iter_values(changes.iter().map(|change| if change.deletes { "-D" } else { "+I" }));
        let mut fields: Vec<Arc<Field>> = rows.schema().fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new(OP_COLUMN, arrow::datatypes::DataType::Utf8View, false)));
        let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
        columns.push(Arc::new(ops));
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }

    /// The rows of an append-only input that are there after all changes.
    ///
    /// # Errors
    /// When Arrow refuses the columns, which would be a bug.
    pub(super) fn remaining(&self) -> anyhow::Result<RecordBatch> {
        let mut there = vec![false; self.input.rows.num_rows()];
        self.changes.iter().for_each(|change| there[change.row as usize] = !change.deletes);
        let rows = (0..there.len() as u32).filter(|row| there[*row as usize]);
        Ok(take_record_batch(&self.input.rows, &UInt32Array::from_iter_values(rows))?)
    }
}

/// The rows that can be deleted.
#[derive(Debug)]
struct Present {
    rows: Vec<u32>,
    /// For keyed streams: the key of every row of the input, and the place in `rows` of the row that has a key now.
    keys: Option<(arrow::row::Rows, HashMap<Vec<u8>, usize>)>,
}

impl Present {
    fn new(input: &Input) -> anyhow::Result<Self> {
        let keys = match &input.shape {
            Shape::Keyed(key) => {
                let schema = input.rows.schema();
                let indices = key.iter().map(|name| schema.index_of(name)).collect::<Result<Vec<_>, _>>()?;
                let keys = input.rows.project(&indices)?;
                let encoder = RowKeyEncoder::new(types_of(keys.schema().fields()))?;
                Some((encoder.encode(keys.columns())?, HashMap::new()))
            }
            Shape::Append | Shape::Changelog => None,
        };
        Ok(Self { rows: Vec::new(), keys })
    }

    fn insert(&mut self, row: u32) {
        let place = self.rows.len();
        if let Some((keys, places)) = &mut self.keys {
            let key = keys.row(row as usize).data().to_vec();
            if let Some(&place) = places.get(&key) {
                self.rows[place] = row;
                return;
            }
            places.insert(key, place);
        }
        self.rows.push(row);
    }

    /// Takes the row out of the place and gives it.
    fn remove(&mut self, place: usize) -> u32 {
        let row = self.rows.swap_remove(place);
        if let Some((keys, places)) = &mut self.keys {
            places.remove(keys.row(row as usize).data());
            if let Some(moved) = self.rows.get(place) {
                places.insert(keys.row(*moved as usize).data().to_vec(), place);
            }
        }
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use std::collections::BTreeMap;

    fn input(shape: Shape, deletions: f64) -> Input {
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values((0..200).map(|n| n % 7)));
        Input { name: "s".into(), rows: RecordBatch::try_from_iter([("a", values)]).unwrap(), shape, deletions, comes_first: false }
    }

    #[test]
    fn rows_come_in_order_and_none_goes_twice() {
        let input = input(Shape::Append, 0.4);
        let feed = Feed::new(&input, 150, 1).unwrap();
        let come: Vec<u32> = feed.changes.iter().filter(|change| !change.deletes).map(|change| change.row).collect();
        assert_eq!(come, (0..150).collect::<Vec<_>>());
        let mut there = std::collections::BTreeSet::new();
        for change in &feed.changes {
            assert!(if change.deletes { there.remove(&change.row) } else { there.insert(change.row) });
        }
        assert!((30..90).contains(&(feed.len() - 150)), "{} deletions", feed.len() - 150);
        assert_eq!(feed.remaining().unwrap().num_rows(), there.len());
        assert_eq!(feed.changes, Feed::new(&input, 150, 1).unwrap().changes);
        let ops = feed.rows(0..10).unwrap().column(1).as_string_view().iter().flatten().map(str::to_string).collect::<Vec<_>>();
        assert!(ops.contains(&"+I".to_string()), "{ops:?}");
    }

    #[test]
    fn of_a_key_the_last_row_goes() {
        let input = input(Shape::Keyed(vec!["a".into()]), 0.5);
        let feed = Feed::new(&input, usize::MAX, 2).unwrap();
        let mut last: BTreeMap<i64, u32> = BTreeMap::new();
        for change in &feed.changes {
            let key = input.rows.column(0).as_primitive::<Int64Type>().value(change.row as usize);
            if change.deletes {
                assert_eq!(last.remove(&key), Some(change.row));
            } else {
                last.insert(key, change.row);
            }
        }
    }

    #[test]
    fn without_deletions_the_rows_are_as_they_were() {
        let input = input(Shape::Append, 0.0);
        let feed = Feed::new(&input, 10, 0).unwrap();
        assert_eq!(feed.rows(2..5).unwrap(), input.rows.slice(2, 3));
    }
}
