//! Small helpers over columns and batches that several operators share.

use crate::divide;
use crate::error::{DataflowError, Result};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{cast, concat_batches, take};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::PhysicalExpr;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A batch of `rows` rows; columns of another type than the schema's are cast.
pub(crate) fn make_batch(schema: &SchemaRef, mut columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    for (column, field) in columns.iter_mut().zip(schema.fields()) {
        if column.data_type() != field.data_type() {
            *column = cast(column, field.data_type())?;
        }
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

/// The values of `expr` for the rows of `batch`.
pub(crate) fn evaluate(expr: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<ArrayRef> {
    match divide::pieces(expr, batch) {
        0 | 1 => Ok(expr.evaluate(batch)?.into_array(batch.num_rows())?),
        pieces => divide::evaluate(expr, batch, pieces),
    }
}

/// Rows `indices` of each column.
pub(crate) fn take_columns(columns: &[ArrayRef], indices: &UInt32Array) -> Result<Vec<ArrayRef>> {
    columns.iter().map(|column| Ok(take(column, indices, None)?)).collect()
}

/// Rows `indices` of a batch, which may have no columns.
pub(crate) fn take_rows(batch: &RecordBatch, indices: &UInt32Array) -> Result<RecordBatch> {
    let columns = take_columns(batch.columns(), indices)?;
    let options = RecordBatchOptions::new().with_row_count(Some(indices.len()));
    Ok(RecordBatch::try_new_with_options(batch.schema(), columns, &options)?)
}

/// Copies what a batch shares with others (slices of larger arrays, string buffers), so that storing it keeps nothing else alive.
///
/// # Errors
/// When columns cannot be copied, for want of memory or offsets of strings.
pub fn owned(batch: &RecordBatch) -> Result<RecordBatch> {
    let columns = batch.columns().iter().map(owned_array).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(batch.schema(), columns, &options)?)
}

fn owned_array(array: &ArrayRef) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::Utf8View if !array.as_string_view().data_buffers().is_empty() => return Ok(Arc::new(array.as_string_view().gc())),
        DataType::BinaryView if !array.as_binary_view().data_buffers().is_empty() => return Ok(Arc::new(array.as_binary_view().gc())),
        _ => {}
    }
    // Twice the size and a little leaves room for the padding of ordinary allocations.
    let pinned = array.get_buffer_memory_size();
    let used = match array.data_type() {
        DataType::Utf8View | DataType::BinaryView => array.len() * 17,
        _ => array.to_data().get_slice_memory_size().unwrap_or(pinned),
    };
    if pinned <= 2 * used + 512 {
        return Ok(Arc::clone(array));
    }
    Ok(take(array, &UInt32Array::from_iter_values(0..array.len() as u32), None)?)
}

/// Bytes of a batch's values, however much room there is around them: what its rows take beside many others.
pub fn data_bytes(batch: &RecordBatch) -> usize {
    let bytes = |array: &ArrayRef| match array.data_type() {
        DataType::Utf8View => 16 * array.len() + array.as_string_view().total_buffer_bytes_used(),
        DataType::BinaryView => 16 * array.len() + array.as_binary_view().total_buffer_bytes_used(),
        _ => array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_buffer_memory_size()),
    };
    batch.columns().iter().map(bytes).sum()
}

/// All batches as one that shares nothing with them.
pub(crate) fn concat_owned(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<RecordBatch> {
    owned(&concat_batches(schema, batches)?)
}

/// `column = value` pairs of a row, for error messages.
pub(crate) fn describe_row(names: &SchemaRef, columns: &[ArrayRef], row: usize) -> String {
    let options = FormatOptions::default().with_null("NULL");
    let pairs = names.fields().iter().zip(columns).map(|(field, column)| {
        let value = match ArrayFormatter::try_new(column.as_ref(), &options) {
            Ok(formatter) => formatter.value(row).to_string(),
            Err(_) => "?".to_string(),
        };
        format!("{} = {value}", field.name())
    });
    pairs.collect::<Vec<_>>().join(", ")
}

/// Expressions over only those columns of a batch that they read.
#[derive(Clone, Debug)]
pub(crate) struct Narrowed {
    /// Which columns of the wide batch.
    pub(crate) columns: Vec<usize>,
    /// Schema of the narrow batch.
    pub(crate) schema: SchemaRef,
    /// The expressions over it.
    pub(crate) exprs: Vec<Arc<dyn PhysicalExpr>>,
}

impl Narrowed {
    /// Rewrites `exprs`, which read batches of `schema`.
    pub(crate) fn new(exprs: &[Arc<dyn PhysicalExpr>], schema: &SchemaRef) -> Result<Self> {
        let columns: Vec<usize> = exprs
            .iter()
            .flat_map(datafusion::physical_expr::utils::collect_columns)
            .map(|column| column.index())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let exprs = exprs
            .iter()
            .map(|expr| {
                let renumbered = Arc::clone(expr).transform_up(|node| {
                    let Some(column) = node.downcast_ref::<Column>() else { return Ok(Transformed::no(node)) };
                    let index = columns.binary_search(&column.index()).expect("all columns were collected");
                    Ok(Transformed::yes(Arc::new(Column::new(column.name(), index)) as Arc<dyn PhysicalExpr>))
                });
                Ok::<_, DataflowError>(renumbered?.data)
            })
            .collect::<Result<Vec<_>>>()?;
        let schema = Arc::new(schema.project(&columns)?);
        Ok(Self { columns, schema, exprs })
    }
}
