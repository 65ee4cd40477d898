//! Formats: bytes to Arrow batches of a declared schema, strictly, row by row.
//!
//! ```text
//!   bytes ── compression ──► chunks ── LineSplitter ──► LineBatch ── Decoder ──► DecodedRows { batch, kept, bad }
//! ```
//!
//! A row either fits its declared types exactly or becomes a [`DecodedBad`] whose reason names column, value and
//! expected type. Memory is bounded by [`FormatOptions::max_row_bytes`], the nesting depth and the batch size, whatever the input holds.
//!
//! ```
//! use millstream_connectors::formats::{Decoder, FormatOptions, LineBatch, LineSplitter};
//! use millstream_types::Options;
//! use arrow::datatypes::{DataType, Field, Schema};
//! use std::sync::Arc;
//!
//! let schema = Arc::new(Schema::new(vec![Field::new("amount", DataType::Int64, true)]));
//! let mut with = Options::new("stream \"s\"", [("format".to_string(), "json".to_string())]);
//! let options = FormatOptions::take(&mut with, None)?;
//! let mut lines = LineBatch::default();
//! let mut splitter = LineSplitter::new(options.split_options());
//! splitter.push(b"{\"amount\": 7}\n{\"amount\": 9.5}\n", &mut lines);
//! let rows = Decoder::new(schema, None, &options)?.decode(&lines)?;
//! assert_eq!((rows.batch.num_rows(), rows.bad.len()), (1, 1));
//! assert_eq!(rows.bad[0].reason, "column \"amount\": '9.5' is not a valid BIGINT");
//! # Ok::<(), millstream_connectors::ConnectorError>(())
//! ```

pub mod all_or_nothing;
pub(crate) mod column;
pub mod compression;
mod csv;
pub(crate) mod exact;
pub mod infer;
mod json;
mod json_scan;
pub mod lines;
mod options;
mod scalar;
mod text;
mod timestamp;

#[cfg(test)]
mod tests;

pub(crate) use column::restore_nested;
pub use compression::Compression;
pub(crate) use csv::same_but_spelling;
pub use lines::{Line, LineBatch, LineSplitter, SplitOptions};
pub use options::{DEFAULT_MAX_ROW_BYTES, Format, FormatOptions};
pub use scalar::sql_type;
pub(crate) use scalar::{Misfit, shorten};
pub use timestamp::TimestampFormat;

use crate::error::{ConnectorError, Result};
use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use std::sync::Arc;

/// How much of a bad row is kept.
pub const RAW_BYTES_MAX: usize = 64 << 10;
/// Deepest nesting of a JSON value.
pub const NESTING_MAX: usize = 64;

/// A row that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodedBad {
    /// Index of its line in the batch of lines.
    pub index: usize,
    /// Line number in the input, from 1.
    pub line: u64,
    /// Names column, value and expected type.
    pub reason: String,
    /// The line, cut after 64 KiB.
    pub raw: String,
}

/// What became of a batch of lines: every line is either in `batch` or in `bad`.
#[derive(Debug, Clone)]
pub struct DecodedRows {
    /// The rows that fit, in order; the projected columns of the schema.
    pub batch: RecordBatch,
    /// The line index of each row; `None` when all lines fit.
    pub kept: Option<Vec<u32>>,
    /// The rows that do not.
    pub bad: Vec<DecodedBad>,
    /// Fields that no column asked for.
    pub unknown_fields: u64,
}

/// Decodes lines of one format to one schema. Cheap to build; keeps buffers between batches.
#[derive(Debug)]
pub struct Decoder {
    inner: Inner,
    output: SchemaRef,
    has_not_null: bool,
}

#[derive(Debug)]
enum Inner {
    Csv(csv::CsvDecoder),
    Json(json::JsonDecoder),
    Text(text::TextDecoder),
}

impl Decoder {
    /// A decoder for `schema`, handing out the columns of `projection` (ascending indices; `None` for all).
    ///
    /// # Errors
    /// When a column has a type that the format cannot hold, or the format has no lines.
    pub fn new(schema: SchemaRef, projection: Option<&[usize]>, options: &FormatOptions) -> Result<Self> {
        let selected: Vec<usize> = match projection {
            Some(indices) => indices.iter().copied().filter(|index| *index < schema.fields().len()).collect(),
            None => (0..schema.fields().len()).collect(),
        };
        let output = Arc::new(Schema::new(selected.iter().map(|index| Arc::clone(&schema.fields()[*index])).collect::<Vec<_>>()));
        let inner = match options.format {
            Format::Csv => Inner::Csv(csv::CsvDecoder::new(&schema, &selected, options)?),
            Format::Json => Inner::Json(json::JsonDecoder::new(&schema, &selected, options)?),
            Format::Text | Format::Raw => Inner::Text(text::TextDecoder::new(&schema, &selected, options)?),
            Format::Parquet | Format::Arrow | Format::Avro => {
                return Err(ConnectorError::invalid(
                    format!("the format {} is not made of lines", options.format.name()),
                    "Use it with the connector files, or choose csv, json, text or raw.",
                ));
            }
        };
        let has_not_null = output.fields().iter().any(|field| not_null_inside(field));
        Ok(Self { inner, output, has_not_null })
    }

    /// The columns of the batches.
    pub fn schema(&self) -> &SchemaRef {
        &self.output
    }

    /// Whether the next line must be given to [`set_header`](Self::set_header).
    pub fn needs_header(&self) -> bool {
        matches!(&self.inner, Inner::Csv(decoder) if decoder.needs_header())
    }

    /// Tells the decoder the CSV header. A header that lacks columns makes every later row a bad row with the difference as its reason.
    pub fn set_header(&mut self, line: &[u8]) {
        if let Inner::Csv(decoder) = &mut self.inner {
            decoder.set_header(line);
        }
    }

    /// Indices (into the whole schema) of the columns that the CSV header names; `None` where there is no header.
    pub fn header_columns(&self) -> Option<Vec<usize>> {
        match &self.inner {
            Inner::Csv(decoder) => decoder.header_columns(),
            _ => None,
        }
    }

    /// Why the CSV header does not fit.
    pub fn header_problem(&self) -> Option<&str> {
        match &self.inner {
            Inner::Csv(decoder) => decoder.header_problem(),
            _ => None,
        }
    }

    /// Decodes a batch of lines.
    ///
    /// # Errors
    /// Only for failures inside Arrow; bad rows are part of the answer.
    pub fn decode(&mut self, lines: &LineBatch) -> Result<DecodedRows> {
        self.decode_lines(&lines.bytes, &lines.lines)
    }

    /// Decodes some lines of `bytes`.
    ///
    /// # Errors
    /// Only for failures inside Arrow; bad rows are part of the answer.
    pub fn decode_lines(&mut self, bytes: &[u8], lines: &[Line]) -> Result<DecodedRows> {
        let mut rows = Rows { bad: Vec::new(), unknown_fields: 0 };
        let arrays = match &mut self.inner {
            Inner::Csv(decoder) => decoder.decode(bytes, lines, &mut rows)?,
            Inner::Json(decoder) => decoder.decode(bytes, lines, &mut rows)?,
            Inner::Text(decoder) => decoder.decode(bytes, lines, &mut rows)?,
        };
        self.assemble(arrays, lines.len(), rows)
    }

    fn assemble(&self, arrays: Vec<ArrayRef>, count: usize, rows: Rows) -> Result<DecodedRows> {
        let internal = |error| ConnectorError::internal("assembling decoded rows", error);
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        if rows.bad.is_empty() && !self.has_not_null {
            let batch = RecordBatch::try_new_with_options(Arc::clone(&self.output), arrays, &options).map_err(internal)?;
            return Ok(DecodedRows { batch, kept: None, bad: rows.bad, unknown_fields: rows.unknown_fields });
        }
        let relaxed = self.output.fields().iter().zip(&arrays);
        let relaxed = relaxed.map(|(field, array)| field.as_ref().clone().with_data_type(array.data_type().clone()).with_nullable(true));
        let relaxed = Arc::new(Schema::new(relaxed.collect::<Vec<_>>()));
        let mut batch = RecordBatch::try_new_with_options(relaxed, arrays, &options).map_err(internal)?;
        let mut kept = None;
        if !rows.bad.is_empty() {
            let mut keep = vec![true; count];
            for bad in &rows.bad {
                keep[bad.index] = false;
            }
            kept = Some((0..count as u32).filter(|index| keep[*index as usize]).collect::<Vec<_>>());
            batch = filter_record_batch(&batch, &BooleanArray::from(keep)).map_err(internal)?;
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let arrays = self.output.fields().iter().zip(batch.columns());
        let arrays = arrays.map(|(field, array)| column::restore_nested(Arc::clone(array), field.data_type())).collect::<Result<_>>()?;
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.output), arrays, &options).map_err(internal)?;
        Ok(DecodedRows { batch, kept, bad: rows.bad, unknown_fields: rows.unknown_fields })
    }
}

fn not_null_inside(field: &arrow::datatypes::Field) -> bool {
    !field.is_nullable()
        || match field.data_type() {
            // Built lists and structs have nullable children throughout, so nested columns are always restored.
            DataType::List(_) | DataType::Struct(_) => true,
            _ => false,
        }
}

/// What a decoder notes beside the columns.
#[derive(Debug)]
pub(crate) struct Rows {
    pub bad: Vec<DecodedBad>,
    pub unknown_fields: u64,
}

impl Rows {
    pub(crate) fn bad(&mut self, index: usize, line: &Line, bytes: &[u8], reason: String) {
        self.bad.push(DecodedBad { index, line: line.number, reason, raw: raw_text(line.of(bytes)) });
    }

    /// The text of a line, unless something is wrong with it before anyone looks into it: too long, or not UTF-8.
    #[inline]
    pub(crate) fn text<'a>(&mut self, index: usize, line: &Line, input: &Input<'a>) -> Option<&'a str> {
        if let Some(length) = line.oversized {
            let reason = format!("the row has {length} bytes, more than the limit \"max_row_bytes\" allows");
            self.bad(index, line, input.bytes, reason);
            return None;
        }
        if let Some(text) = input.text {
            return text.get(line.start - input.base..line.end - input.base);
        }
        match std::str::from_utf8(line.of(input.bytes)) {
            Ok(text) => Some(text),
            Err(error) => {
                let reason = format!("the row is not valid UTF-8 at byte {}", error.valid_up_to());
                self.bad(index, line, input.bytes, reason);
                None
            }
        }
    }
}

/// The bytes that some lines lie in, checked for UTF-8 in one go where they are all text.
#[derive(Debug)]
pub(crate) struct Input<'a> {
    pub bytes: &'a [u8],
    base: usize,
    text: Option<&'a str>,
}

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8], lines: &[Line]) -> Self {
        let base = lines.first().map_or(0, |line| line.start);
        let end = lines.last().map_or(base, |line| line.end);
        Self { bytes, base, text: std::str::from_utf8(&bytes[base..end]).ok() }
    }
}

/// The first 64 KiB of a row as text, invalid UTF-8 replaced.
pub(crate) fn raw_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(RAW_BYTES_MAX)]).into_owned()
}

/// An ISO 8601 text as microseconds since 1970 in UTC.
pub(crate) fn parse_timestamp_micros(text: &str) -> Option<i64> {
    TimestampFormat::Iso.value(text, arrow::datatypes::TimeUnit::Microsecond).ok()
}

/// The fields of a CSV record; `None` when it cannot be read.
pub(crate) fn split_csv_record(record: &str, options: &FormatOptions) -> Option<Vec<String>> {
    csv::split_record(record, options.delimiter, options.quote).ok()
}

/// Whether a line is a CSV header for these columns.
///
/// # Errors
/// When a column has a type that CSV cannot hold.
pub(crate) fn header_fits(schema: &SchemaRef, options: &FormatOptions, line: &[u8]) -> Result<bool> {
    let mut decoder = csv::CsvDecoder::new(schema, &[], options)?;
    decoder.set_header(line);
    Ok(decoder.header_columns().is_some())
}

/// A text as an array with one value of the field's type, or the reason why it is none.
pub(crate) fn parse_scalar(
    field: &arrow::datatypes::FieldRef,
    text: &str,
    timestamps: &TimestampFormat,
) -> std::result::Result<ArrayRef, String> {
    let mut column = column::Column::new(field, "a directory name").map_err(|error| error.to_string())?;
    column.push(column::Token::Text, text, timestamps).map_err(|misfit| misfit.reason(field.name(), text, field.data_type()))?;
    column.finish().map_err(|error| error.to_string())
}
