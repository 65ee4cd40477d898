//! Hive partitions: `k=v/` directories whose names hold the values of the partition columns, which the files then lack.

use super::arrow_error;
use super::layout::{Layout, rows_of};
use crate::error::Result;
use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{take, take_record_batch};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use millstream_types::row_key::{RowKeyEncoder, types_of};
use std::collections::HashMap;
use std::sync::Arc;

/// What Hive writes for NULL.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// Rows of one partition.
#[derive(Debug)]
pub(crate) struct PartitionRows {
    /// `k=v/l=w`, empty without partition columns.
    pub(crate) directory: String,
    /// The values of the partition columns, one row each.
    pub(crate) values: Vec<ArrayRef>,
    /// The rows, with the columns of the file.
    pub(crate) rows: RecordBatch,
}

/// Divides rows of the sink by partition; partitions are in the order of their first rows.
pub(crate) fn split(layout: &Layout, batch: &RecordBatch) -> Result<Vec<PartitionRows>> {
    if layout.partition_columns.is_empty() {
        return Ok(vec![PartitionRows { directory: String::new(), values: Vec::new(), rows: layout.file_rows(batch)? }]);
    }
    let failed = || arrow_error("dividing rows into partitions failed");
    let columns: Vec<ArrayRef> = layout.partition_columns.iter().map(|column| Arc::clone(batch.column(*column))).collect();
    let fields = layout.partition_columns.iter().map(|column| &layout.output.fields()[*column]);
    let keys = RowKeyEncoder::new(types_of(fields)).map_err(failed())?.encode(&columns).map_err(failed())?;
    let mut groups: Vec<Vec<u32>> = Vec::new();
    let mut numbers: HashMap<Vec<u8>, usize> = HashMap::new();
    for (row, key) in keys.iter().enumerate() {
        let number = match numbers.get(key.as_ref()) {
            Some(number) => *number,
            None => {
                numbers.insert(key.as_ref().to_vec(), groups.len());
                groups.push(Vec::new());
                groups.len() - 1
            }
        };
        groups[number].push(row as u32);
    }
    let file_rows = layout.file_rows(batch)?;
    let single = groups.len() == 1;
    groups
        .into_iter()
        .map(|indices| {
            let first = UInt32Array::from(vec![indices[0]]);
            let values: Vec<ArrayRef> =
                columns.iter().map(|column| take(column, &first, None)).collect::<Result<_, _>>().map_err(failed())?;
            let rows = match single {
                true => file_rows.clone(),
                false => take_record_batch(&file_rows, &UInt32Array::from(indices)).map_err(failed())?,
            };
            Ok(PartitionRows { directory: directory(layout, &values)?, values, rows })
        })
        .collect()
}

/// The rows of a file as rows of the sink, with the values of its partition.
pub(crate) fn with_values(layout: &Layout, rows: &RecordBatch, values: &[ArrayRef]) -> Result<RecordBatch> {
    if values.is_empty() {
        return Ok(rows.clone());
    }
    let zeros = UInt32Array::from_value(0, rows.num_rows());
    let mut columns: Vec<Option<ArrayRef>> = vec![None; layout.output.fields().len()];
    for (column, position) in rows.columns().iter().zip(&layout.file_columns) {
        columns[*position] = Some(Arc::clone(column));
    }
    for (value, position) in values.iter().zip(&layout.partition_columns) {
        columns[*position] = Some(take(value, &zeros, None).map_err(arrow_error("repeating the values of a partition failed"))?);
    }
    rows_of(&layout.output, columns.into_iter().flatten().collect(), rows.num_rows())
}

fn directory(layout: &Layout, values: &[ArrayRef]) -> Result<String> {
    let options =
        FormatOptions::new().with_timestamp_format(Some("%Y-%m-%dT%H:%M:%S%.f")).with_timestamp_tz_format(Some("%Y-%m-%dT%H:%M:%S%.f%:z"));
    let mut directory = String::new();
    for (value, column) in values.iter().zip(&layout.partition_columns) {
        if !directory.is_empty() {
            directory.push('/');
        }
        escape(layout.output.field(*column).name(), &mut directory);
        directory.push('=');
        if value.is_null(0) {
            directory.push_str(NULL);
        } else {
            let text = ArrayFormatter::try_new(value.as_ref(), &options).and_then(|formatter| formatter.value(0).try_to_string());
            escape(&text.map_err(arrow_error("naming a partition failed"))?, &mut directory);
        }
    }
    Ok(directory)
}

/// Escapes what Hive escapes: control characters and what means something in paths, URLs or globs.
fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        if c.is_ascii_control() || "\"#%'*/:=?\\{}[]^".contains(c) {
            out.push_str(&format!("%{:02X}", c as u32));
        } else {
            out.push(c);
        }
    }
}
