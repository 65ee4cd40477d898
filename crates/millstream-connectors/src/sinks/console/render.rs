//! Changes as text.

use crate::sink::SinkEpoch;
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow::util::pretty::pretty_format_batches_with_options;
use millstream_types::row_key::{RowKeyEncoder, types_of};
use millstream_types::{DeltaBatch, delta};
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

/// How rows look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// A table with a frame.
    Table,
    /// A line per row.
    Lines,
}

/// What is printed of every epoch.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) schema: SchemaRef,
    /// Columns of the primary key.
    pub(super) key: Vec<usize>,
    /// Whether rows get an `op`.
    pub(super) ops: bool,
    pub(super) limit: usize,
    pub(super) style: Style,
}

/// Which changes a key has in an epoch.
#[derive(Debug, Clone, Copy, Default)]
struct KeyChanges {
    came: bool,
    went: bool,
}

/// The text of an epoch; empty where nothing changed.
pub(super) fn render(layout: &Layout, epoch: SinkEpoch, changes: &[DeltaBatch]) -> Result<String, ArrowError> {
    let all = delta::concat(&layout.schema, changes)?;
    let weight = |row: usize| all.weights.value(row);
    let total: u64 = (0..all.num_rows()).map(|row| weight(row).unsigned_abs()).sum();
    if total == 0 {
        return Ok(String::new());
    }
    let keyed = layout.ops && !layout.key.is_empty() && !delta::is_append_only(changes);
    let (order, updates) = if keyed { by_key(layout, &all)? } else { ((0..all.num_rows() as u32).collect(), Vec::new()) };
    let mut rows: Vec<u32> = Vec::new();
    let mut ops: Vec<&'static str> = Vec::new();
    for row in order {
        let update = updates.get(row as usize).copied().unwrap_or(false);
        let op = match (weight(row as usize) > 0, update) {
            (true, false) => "+I",
            (true, true) => "+U",
            (false, false) => "-D",
            (false, true) => "-U",
        };
        let times = weight(row as usize).unsigned_abs().min((layout.limit.saturating_sub(rows.len())) as u64) as usize;
        rows.extend(std::iter::repeat_n(row, times));
        ops.extend(std::iter::repeat_n(op, times));
        if rows.len() >= layout.limit {
            break;
        }
    }
    let indices = UInt32Array::from(rows);
    let columns = all.batch.columns().iter().map(|column| take(column, &indices, None)).collect::<Result<Vec<_>, _>>()?;
    let mut text = format!("-------- epoch {}, time {} --------\n", epoch.epoch, epoch.clock);
    match layout.style {
        Style::Table => write_table(&mut text, layout, columns, &ops)?,
        Style::Lines => write_lines(&mut text, &columns, &ops)?,
    }
    let hidden = total - ops.len() as u64;
    if hidden > 0 {
        text.push_str(&format!("… {hidden} more row{}\n", if hidden == 1 { "" } else { "s" }));
    }
    Ok(text)
}

/// The order in which a key's old row stands before its new one, and which rows are such updates.
fn by_key(layout: &Layout, all: &DeltaBatch) -> Result<(Vec<u32>, Vec<bool>), ArrowError> {
    let columns: Vec<ArrayRef> = layout.key.iter().map(|index| Arc::clone(all.batch.column(*index))).collect();
    let encoder = RowKeyEncoder::new(types_of(layout.schema.project(&layout.key)?.fields()))?;
    let keys = encoder.encode(&columns)?;
    let mut numbers: HashMap<&[u8], usize> = HashMap::new();
    let mut changes: Vec<KeyChanges> = Vec::new();
    let mut key_of: Vec<usize> = Vec::with_capacity(all.num_rows());
    for row in 0..all.num_rows() {
        let number = *numbers.entry(keys.row(row).data()).or_insert(changes.len());
        if number == changes.len() {
            changes.push(KeyChanges::default());
        }
        let change = &mut changes[number];
        if all.weights.value(row) > 0 {
            change.came = true
        } else {
            change.went = true
        }
        key_of.push(number);
    }
    let mut order: Vec<u32> = (0..all.num_rows() as u32).collect();
    order.sort_by_key(|row| (key_of[*row as usize], all.weights.value(*row as usize) > 0));
    let updates = key_of.iter().map(|number| changes[*number].came && changes[*number].went).collect();
    Ok((order, updates))
}

fn display_options() -> FormatOptions<'static> {
    FormatOptions::new().with_null("NULL").with_display_error(true)
}

fn write_table(text: &mut String, layout: &Layout, columns: Vec<ArrayRef>, ops: &[&str]) -> Result<(), ArrowError> {
    let mut fields: Vec<Field> = Vec::with_capacity(columns.len() + 1);
    let mut shown: Vec<ArrayRef> = Vec::with_capacity(columns.len() + 1);
    if layout.ops {
        fields.push(Field::new("op", DataType::Utf8, false));
        shown.push(Arc::new(StringArray::from(ops.to_vec())));
    }
    // A delta may hold NULLs where the declared column does not say so yet.
    fields.extend(layout.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)));
    shown.extend(columns);
    let options = RecordBatchOptions::new().with_row_count(Some(ops.len()));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), shown, &options)?;
    writeln!(text, "{}", pretty_format_batches_with_options(&[batch], &display_options())?)
        .map_err(|error| ArrowError::ExternalError(Box::new(error)))
}

fn write_lines(text: &mut String, columns: &[ArrayRef], ops: &[&str]) -> Result<(), ArrowError> {
    let options = display_options();
    let formatters = columns.iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options)).collect::<Result<Vec<_>, _>>()?;
    for (row, op) in ops.iter().enumerate() {
        let values: Vec<String> = formatters.iter().map(|formatter| formatter.value(row).to_string()).collect();
        text.push_str(&format!("{op}[{}]\n", values.join(", ")));
    }
    Ok(())
}
