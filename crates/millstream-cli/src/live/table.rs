//! The rows of a live query as they are now: sorted by their columns from left to right, with what the last epoch changed.
//!
//! Rows are kept by their canonical encoding, whose bytes order like the values, so the table is always sorted. A row
//! that came in the last epoch is compared with the most similar row that went in it: the cells that differ stand out.

use crate::numbers;
use crate::output::Style;
use crate::output::cells::{CellFormatter, right_aligned};
use crate::output::table::{self, Drawing, Grid, Lines};
use crate::terminal::cut;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use millstream_types::row_key::{RowKeyEncoder, types_of};
use millstream_types::{Epoch, Weights};
use std::collections::BTreeMap;

/// Rows that went in one epoch and are compared with those that came; more are not worth the time.
const COMPARED_MAX: usize = 200;

struct Row {
    count: i64,
    cells: Vec<Option<String>>,
}

/// The current rows of a live query.
pub(crate) struct LiveTable {
    schema: SchemaRef,
    encoder: RowKeyEncoder,
    rows: BTreeMap<Vec<u8>, Row>,
    /// The epoch whose changes are marked.
    marked_epoch: Epoch,
    came: BTreeMap<Vec<u8>, ()>,
    went: Vec<Vec<Option<String>>>,
    newest: Epoch,
}

impl LiveTable {
    /// A table without rows.
    ///
    /// # Errors
    /// When a column's type cannot be ordered (none of SQL's).
    pub(crate) fn new(schema: SchemaRef) -> Result<Self, ArrowError> {
        let encoder = RowKeyEncoder::new(types_of(schema.fields()))?;
        Ok(Self {
            schema,
            encoder,
            rows: BTreeMap::new(),
            marked_epoch: Epoch::ZERO,
            came: BTreeMap::new(),
            went: Vec::new(),
            newest: Epoch::ZERO,
        })
    }

    /// Applies changes of an epoch. Those of the first snapshot are not marked.
    ///
    /// # Errors
    /// When a value cannot be shown.
    pub(crate) fn apply(&mut self, epoch: Epoch, batch: &RecordBatch, weights: &Weights, snapshot: bool) -> Result<(), ArrowError> {
        self.newest = self.newest.max(epoch);
        if batch.num_rows() == 0 {
            return Ok(());
        }
        if epoch != self.marked_epoch {
            self.marked_epoch = epoch;
            self.came.clear();
            self.went.clear();
        }
        let columns: Vec<ArrayRef> = batch.columns().to_vec();
        let keys = self.encoder.encode(&columns)?;
        let formatter = CellFormatter::new(batch)?;
        for index in 0..batch.num_rows() {
            let weight = weights.value(index);
            let key = keys.row(index).as_ref().to_vec();
            let row = match self.rows.entry(key.clone()) {
                std::collections::btree_map::Entry::Occupied(found) => found.into_mut(),
                std::collections::btree_map::Entry::Vacant(place) => place.insert(Row { count: 0, cells: formatter.row(index)? }),
            };
            row.count += weight;
            if row.count == 0 {
                if let Some(row) = self.rows.remove(&key) {
                    self.came.remove(&key);
                    self.went.push(row.cells);
                }
            } else if weight > 0 && !snapshot {
                self.came.insert(key, ());
            }
        }
        Ok(())
    }

    /// The table as text that fits the window, with a line under it that says what is shown.
    pub(crate) fn draw(&self, style: &Style, height: Option<usize>) -> String {
        let header = self.schema.fields().iter().map(|field| field.name().clone()).collect();
        let mut grid = Grid::new(header, right_aligned(&self.schema));
        // Frame, header, rule, frame, the line under it, and one line for the prompt.
        let room = height.map_or(usize::MAX, |height| height.saturating_sub(6).max(1));
        let mut changed: Vec<Vec<bool>> = Vec::new();
        let mut total = 0u64;
        for (key, row) in &self.rows {
            let count = row.count.unsigned_abs();
            total += count;
            let marks = if self.came.contains_key(key) { self.changed_cells(&row.cells) } else { Vec::new() };
            for _ in 0..count.min((room - grid.rows.len().min(room)) as u64) {
                grid.rows.push(row.cells.clone());
                changed.push(marks.clone());
            }
        }
        let marks = |row: usize, column: usize| changed.get(row).and_then(|cells| cells.get(column)).copied().unwrap_or(false);
        let lines = if style.format == crate::output::Format::Table { Lines::Ascii } else { Lines::Box };
        let drawing = Drawing { lines, width: style.width, null: &style.null, color: style.color, marks: Some(&marks) };
        let drawn = table::draw(&grid, drawing);
        let shown = grid.rows.len() as u64;
        let rows = if shown < total {
            format!("first {} of {} rows", numbers::grouped(shown), numbers::grouped(total))
        } else {
            numbers::rows(usize::try_from(total).unwrap_or(usize::MAX))
        };
        let mut under = format!("epoch {}, {rows}, Ctrl-C ends", self.newest);
        if let Some(notice) = drawn.notice() {
            under = format!("{under}; {notice}");
        }
        let under = style.width.map_or(under.clone().into(), |width| cut(&under, width));
        format!("{}{under}\n", drawn.text)
    }

    /// Per cell of a row that came: it differs from the most similar row that went; all of it when none is similar.
    fn changed_cells(&self, cells: &[Option<String>]) -> Vec<bool> {
        let equal = |other: &Vec<Option<String>>| cells.iter().zip(other).filter(|(a, b)| a == b).count();
        let nearest = self.went.iter().take(COMPARED_MAX).max_by_key(|other| equal(other)).filter(|other| equal(other) > 0);
        match nearest {
            Some(other) => cells.iter().zip(other).map(|(a, b)| a != b).collect(),
            None => vec![true; cells.len()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::Terminal;
    use arrow::array::{Int64Array, StringViewArray};
    use std::sync::Arc;

    fn batch(rows: &[(&str, i64)]) -> RecordBatch {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("word", Arc::new(StringViewArray::from_iter_values(rows.iter().map(|(word, _)| *word)))),
            ("n", Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, n)| *n)))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn style(color: bool) -> Style {
        let terminal = Terminal { is_terminal: true, width: Some(40), height: Some(20), color };
        Style::for_output(terminal, None)
    }

    #[test]
    fn rows_are_sorted_and_updated_in_place() {
        let mut table = LiveTable::new(batch(&[]).schema()).unwrap();
        table.apply(Epoch(1), &batch(&[("b", 1), ("a", 9)]), &Weights::Ones, true).unwrap();
        let weights = Weights::I64(vec![-1, 1].into());
        table.apply(Epoch(2), &batch(&[("a", 9), ("a", 10)]), &weights, false).unwrap();
        let text = table.draw(&style(false), Some(20));
        assert_eq!(
            text,
            "┌──────┬────┐\n│ word │ n  │\n├──────┼────┤\n│ a    │ 10 │\n│ b    │  1 │\n└──────┴────┘\nepoch 2, 2 rows, Ctrl-C ends\n"
        );
        let text = table.draw(&style(true), Some(20));
        assert!(text.contains("\x1b[7m10\x1b[0m") && !text.contains("\x1b[7ma"), "{text:?}");
    }

    #[test]
    fn only_what_fits_is_drawn() {
        let mut table = LiveTable::new(batch(&[]).schema()).unwrap();
        let rows: Vec<(String, i64)> = (0..50).map(|index| (format!("w{index:02}"), index)).collect();
        let rows: Vec<(&str, i64)> = rows.iter().map(|(word, n)| (word.as_str(), *n)).collect();
        table.apply(Epoch(1), &batch(&rows), &Weights::Ones, false).unwrap();
        let text = table.draw(&style(false), Some(16));
        assert_eq!(text.lines().count(), 15);
        assert!(text.contains("first 10 of 50 rows"));
    }
}
