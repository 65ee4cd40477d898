//! What Parquet, Arrow and Avro files have in common: columns by name, converted exactly, bad rows taken out.

use super::assemble::{Assembler, RowNumbers, check_spelling};
use super::reader::Shared;
use super::slice::FileSlice;
use super::storage::quoted;
use crate::error::{ConnectorError, Result};
use crate::formats::exact::{BadMask, Conversion, conversion, convert, misfit};
use crate::formats::{RAW_BYTES_MAX, restore_nested, shorten, sql_type};
use crate::source::{BadRow, ReadRequest, RowPlaces, SourceBatch};
use ::arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use ::arrow::buffer::BooleanBuffer;
use ::arrow::compute::filter;
use ::arrow::datatypes::{FieldRef, Schema};
use ::arrow::util::display::{ArrayFormatter, FormatOptions};
use millstream_types::Offset;
use std::sync::Arc;

/// Turns the stored batches of one file into batches of the declared columns.
#[derive(Debug)]
pub(crate) struct ColumnarFile {
    assembler: Assembler,
    /// For each decoded column: the declared field and how to get there.
    columns: Vec<(FieldRef, Conversion)>,
    /// Indices of the stored columns to read, in the order of `columns`.
    pub stored: Vec<usize>,
    path: Arc<str>,
    sequence: u64,
}

impl ColumnarFile {
    /// Matches the file's columns to the declared ones.
    ///
    /// # Errors
    /// `Data` when a column is missing, misspelled or of a type that would lose something; names column and both types.
    pub(crate) fn new(shared: &Shared, slice: &FileSlice, request: &ReadRequest, stored: &Schema) -> Result<Self> {
        let names: Vec<String> = stored.fields().iter().map(|field| field.name().clone()).collect();
        check_spelling(shared, &slice.path, &names)?;
        let (assembler, decoded) = Assembler::new(shared, slice, request, |name| stored.index_of(name).is_ok())?;
        let mut columns = Vec::with_capacity(decoded.len());
        let mut indices = Vec::with_capacity(decoded.len());
        for index in decoded {
            let field = &shared.schema.fields()[index];
            // `has` above found it.
            let Some((at, found)) = stored.column_with_name(field.name()) else { continue };
            let how = conversion(found.data_type(), field.data_type()).ok_or_else(|| ConnectorError::Data {
                place: quoted(&slice.path),
                problem: format!(
                    "stores column \"{}\" as {}, which cannot become the declared {} without loss",
                    field.name(),
                    sql_type(found.data_type()),
                    sql_type(field.data_type())
                ),
                hint: Some(format!("Declare the column as {} and cast it in the query.", sql_type(found.data_type()))),
            })?;
            columns.push((Arc::clone(field), how));
            indices.push(at);
        }
        Ok(Self { assembler, columns, stored: indices, path: slice.path.as_str().into(), sequence: slice.sequence })
    }

    /// Whether no row can be bad, given which stored columns have no NULLs.
    pub(crate) fn takes_all_rows(&self, without_nulls: impl Fn(&str) -> bool) -> bool {
        self.columns.iter().all(|(field, how)| matches!(how, Conversion::Same) && (field.is_nullable() || without_nulls(field.name())))
    }

    /// Converts stored columns (one per entry of `stored`, in its order) of consecutive rows from `first_row`.
    pub(crate) fn convert(&self, arrays: &[ArrayRef], rows: usize, first_row: u64, bytes: u64) -> Result<SourceBatch> {
        let mut converted = Vec::with_capacity(arrays.len());
        let mut masks: Vec<BadMask> = Vec::with_capacity(arrays.len());
        for (array, (field, how)) in arrays.iter().zip(&self.columns) {
            let (column, mask) = convert(array, how, field)?;
            converted.push(column);
            masks.push(mask);
        }
        let mut bad = Vec::new();
        let mut kept = None;
        let mut count = rows;
        if let Some(all) = masks.iter().flatten().cloned().reduce(|left, right| &left | &right) {
            for row in all.set_indices() {
                bad.push(self.bad_row(arrays, &masks, row, first_row));
            }
            let keep: BooleanBuffer = !&all;
            kept = Some(keep.set_indices().map(|row| first_row + row as u64).collect::<Vec<_>>());
            count = keep.count_set_bits();
            let keep = BooleanArray::new(keep, None);
            for column in &mut converted {
                *column =
                    filter(column.as_ref(), &keep).map_err(|error| ConnectorError::internal("taking bad rows out of a batch", error))?;
            }
        }
        for (column, (field, _)) in converted.iter_mut().zip(&self.columns) {
            *column = restore_nested(Arc::clone(column), field.data_type())?;
        }
        let batch = self.assembler.build(&converted, count, RowNumbers { first: first_row, kept: kept.as_deref() })?;
        let places = RowPlaces { path: Arc::clone(&self.path), first_row: 0, lines: Arc::new([]) };
        Ok(SourceBatch { batch, sequence: self.sequence, rows: kept, first_row, bad, places: Some(places), bytes, event_times: None })
    }

    fn bad_row(&self, arrays: &[ArrayRef], masks: &[BadMask], row: usize, first_row: u64) -> BadRow {
        let options = FormatOptions::default().with_null("NULL");
        let shown = |array: &ArrayRef| match ArrayFormatter::try_new(array.as_ref(), &options) {
            Ok(formatter) => formatter.value(row).to_string(),
            Err(_) => "?".to_string(),
        };
        let culprit = masks.iter().position(|mask| mask.as_ref().is_some_and(|mask| mask.value(row)));
        let reason = culprit.map_or_else(String::new, |at| {
            let (field, how) = &self.columns[at];
            misfit(&arrays[at], how, row).reason(field.name(), &shown(&arrays[at]), field.data_type())
        });
        let mut raw = String::new();
        for (array, (field, _)) in arrays.iter().zip(&self.columns) {
            if raw.len() > RAW_BYTES_MAX {
                break;
            }
            let separator = if raw.is_empty() { "" } else { ", " };
            raw.push_str(&format!("{separator}{}={}", field.name(), shorten(&shown(array))));
        }
        BadRow {
            offset: Offset { sequence: self.sequence, row: first_row + row as u64 },
            place: format!("{}:{}", self.path, first_row + row as u64 + 1),
            reason,
            raw,
        }
    }

    /// Converts a whole stored batch, in parts of at most `batch_rows`, skipping rows outside `wanted`.
    pub(crate) fn convert_parts(
        &self,
        batch: &RecordBatch,
        batch_row: u64,
        wanted: std::ops::Range<u64>,
        batch_rows: usize,
        emit: &mut super::reader::Emit<'_>,
    ) -> Result<bool> {
        let from = wanted.start.max(batch_row);
        let to = wanted.end.min(batch_row + batch.num_rows() as u64);
        let bytes_per_row = batch.get_array_memory_size() as u64 / (batch.num_rows() as u64).max(1);
        let mut at = from;
        while at < to {
            let rows = (to - at).min(batch_rows.max(1) as u64);
            let part = batch.slice((at - batch_row) as usize, rows as usize);
            if !emit(Ok(self.convert(part.columns(), rows as usize, at, bytes_per_row * rows)?)) {
                return Ok(false);
            }
            at += rows;
        }
        Ok(true)
    }
}
