//! Puts the columns of a batch together: decoded ones, those that directory names give, missing ones, metadata.

use super::reader::Shared;
use super::slice::FileSlice;
use super::storage::quoted;
use crate::error::{ConnectorError, Result};
use crate::formats::{parse_scalar, same_but_spelling};
use crate::source::ReadRequest;
use ::arrow::array::{
    Array, ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, StringViewArray, TimestampMicrosecondArray, UInt32Array, new_null_array,
};
use ::arrow::compute::take;
use ::arrow::datatypes::{DataType, Schema, SchemaRef};
use std::sync::Arc;

/// What Hive writes for NULL.
const HIVE_NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// Where a column comes from.
#[derive(Debug)]
enum Origin {
    /// The n-th decoded column.
    Decoded(usize),
    /// One value for the whole file.
    Constant(ArrayRef),
    /// The file lacks it.
    Null(DataType),
    /// The metadata column `row_number`.
    RowNumber,
}

/// Row offsets of the rows of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowNumbers<'a> {
    pub first: u64,
    pub kept: Option<&'a [u64]>,
}

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct Assembler {
    output: SchemaRef,
    origins: Vec<Origin>,
    row_base: u64,
}

impl Assembler {
    /// The assembler of a slice, and the schema indices of the columns to decode, in order. `has` says which columns the file holds itself.
    pub(crate) fn new(shared: &Shared, slice: &FileSlice, request: &ReadRequest, has: impl Fn(&str) -> bool) -> Result<(Self, Vec<usize>)> {
        let fields = shared.schema.fields();
        let selected: Vec<usize> = match &request.projection {
            Some(indices) => indices.iter().copied().filter(|index| *index < fields.len()).collect(),
            None => (0..fields.len()).collect(),
        };
        let keys = partition_keys(&slice.path);
        let mut decoded = Vec::new();
        let mut origins = Vec::new();
        let mut output = Vec::new();
        for index in selected {
            let field = &fields[index];
            output.push(Arc::clone(field));
            if has(field.name()) {
                origins.push(Origin::Decoded(decoded.len()));
                decoded.push(index);
                continue;
            }
            match keys.iter().rev().find(|(key, _)| key == field.name()) {
                Some((_, value)) if value != HIVE_NULL => {
                    let array = parse_scalar(field, value, &shared.config.format.timestamp_format).map_err(|reason| {
                        let problem = format!("has a directory name that does not fit: {reason}");
                        ConnectorError::Data { place: quoted(&slice.path), problem, hint: None }
                    })?;
                    origins.push(Origin::Constant(array));
                }
                _ if field.is_nullable() => origins.push(Origin::Null(field.data_type().clone())),
                _ => {
                    let problem = format!("has no column \"{}\", which is NOT NULL", field.name());
                    let hint = "Declare the column without NOT NULL to read NULLs from files that lack it, or mend the file.";
                    return Err(ConnectorError::Data { place: quoted(&slice.path), problem, hint: Some(hint.into()) });
                }
            }
        }
        for (key, field) in &shared.metadata {
            output.push(Arc::new(field.clone()));
            let name = slice.path.rsplit('/').next().unwrap_or(&slice.path);
            origins.push(match key.as_str() {
                "path" => Origin::Constant(Arc::new(StringViewArray::from(vec![slice.path.as_str()]))),
                "name" => Origin::Constant(Arc::new(StringViewArray::from(vec![name]))),
                "size" => Origin::Constant(Arc::new(Int64Array::from(vec![i64::try_from(slice.size).unwrap_or(i64::MAX)]))),
                "modified_at" => Origin::Constant(Arc::new(TimestampMicrosecondArray::from(vec![slice.modified]))),
                _ => Origin::RowNumber,
            });
        }
        Ok((Self { output: Arc::new(Schema::new(output)), origins, row_base: slice.row_base }, decoded))
    }

    /// A batch of `rows` rows from the decoded columns.
    pub(crate) fn build(&self, decoded: &[ArrayRef], rows: usize, numbers: RowNumbers<'_>) -> Result<RecordBatch> {
        let internal = |error| ConnectorError::internal("putting the columns of a file together", error);
        let columns = self.origins.iter().map(|origin| {
            Ok(match origin {
                Origin::Decoded(index) => Arc::clone(&decoded[*index]),
                Origin::Constant(value) => take(value.as_ref(), &UInt32Array::from(vec![0; rows]), None).map_err(internal)?,
                Origin::Null(data_type) => new_null_array(data_type, rows),
                Origin::RowNumber => {
                    // Counted from 1 over the whole file, bad rows included, as a person counts.
                    let number = |row: u64| i64::try_from(self.row_base + row + 1).unwrap_or(i64::MAX);
                    let values: Vec<i64> = match numbers.kept {
                        Some(kept) => kept.iter().map(|row| number(*row)).collect(),
                        None => (0..rows as u64).map(|row| number(numbers.first + row)).collect(),
                    };
                    Arc::new(Int64Array::from(values)) as ArrayRef
                }
            })
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        debug_assert!(columns.iter().all(|column| column.len() == rows));
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.output), columns, &options).map_err(internal)
    }
}

/// The `key=value` directories of a path, percent-decoded.
pub(crate) fn partition_keys(path: &str) -> Vec<(String, String)> {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    parts.iter().filter_map(|part| part.split_once('=')).map(|(key, value)| (percent_decode(key), percent_decode(value))).collect()
}

fn percent_decode(text: &str) -> String {
    if !text.contains('%') {
        return text.to_string();
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digit = |index: usize| bytes.get(index).and_then(|byte| (*byte as char).to_digit(16));
        match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, _, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(decoded).unwrap_or_else(|_| text.to_string())
}

/// Refuses a file whose columns only differ from the declared ones in spelling; NULL for ever is nobody's intention.
pub(crate) fn check_spelling(shared: &Shared, path: &str, file_columns: &[String]) -> Result<()> {
    for field in shared.schema.fields() {
        if file_columns.iter().any(|name| name == field.name()) {
            continue;
        }
        let stranger = |name: &&String| shared.schema.index_of(name).is_err() && same_but_spelling(name, field.name());
        if let Some(near) = file_columns.iter().find(stranger) {
            return Err(ConnectorError::Data {
                place: quoted(path),
                problem: format!("has no column \"{}\", but \"{near}\"; names must match exactly", field.name()),
                hint: Some(format!("Declare the column as \"{near}\", with the quotes.")),
            });
        }
    }
    Ok(())
}
