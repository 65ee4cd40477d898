//! Fits a pushed batch to the columns of its stream: by name, and cast only where no value changes.

use crate::error::{ConnectorError, Result};
use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, can_cast_types, cast_with_options};
use arrow::datatypes::{DataType, SchemaRef};
use millstream_types::suggest;
use std::sync::Arc;

/// The batch with exactly the columns of `schema`, in its order.
///
/// # Errors
/// `Invalid` when a column is missing, unknown, has a type that does not fit, or holds NULL where none may be.
pub(super) fn conform(stream: &str, schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch> {
    let pushed = batch.schema();
    let mut used = vec![false; pushed.fields().len()];
    let mut columns = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let index = find(&pushed, field.name()).ok_or_else(|| {
            let names: Vec<&str> = pushed.fields().iter().map(|field| field.name().as_str()).collect();
            ConnectorError::invalid(
                format!("rows pushed to stream \"{stream}\" lack its column \"{}\"", field.name()),
                match suggest::nearest(field.name(), names.iter().copied()) {
                    Some(name) => format!("Is it the pushed column \"{name}\"?"),
                    None => format!("The pushed columns are {}.", names.join(", ")),
                },
            )
        })?;
        used[index] = true;
        let column = cast_exactly(stream, field.name(), batch.column(index), field.data_type())?;
        if !field.is_nullable() && column.null_count() > 0 {
            return Err(ConnectorError::invalid(
                format!("rows pushed to stream \"{stream}\" hold NULL in the NOT NULL column \"{}\"", field.name()),
                "",
            ));
        }
        columns.push(column);
    }
    if let Some(extra) = used.iter().position(|used| !used) {
        return Err(ConnectorError::invalid(
            format!("stream \"{stream}\" has no column \"{}\"", pushed.field(extra).name()),
            format!("Its columns are {}.", schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ")),
        ));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .map_err(|error| ConnectorError::internal("fitting pushed rows to their stream", error))
}

/// The column of that name: as spelled, else the only one that differs in case.
fn find(schema: &SchemaRef, name: &str) -> Option<usize> {
    schema.fields().iter().position(|field| field.name() == name).or_else(|| {
        let mut alike = schema.fields().iter().enumerate().filter(|(_, field)| field.name().eq_ignore_ascii_case(name));
        match (alike.next(), alike.next()) {
            (Some((index, _)), None) => Some(index),
            _ => None,
        }
    })
}

/// Casts there and back again: what comes back equal has lost nothing.
fn cast_exactly(stream: &str, name: &str, column: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let from = column.data_type();
    if from == to {
        return Ok(Arc::clone(column));
    }
    let mismatch = |problem: &str| {
        ConnectorError::invalid(
            format!("column \"{name}\" pushed to stream \"{stream}\" has type {from}, and {problem} {to}"),
            "Cast it before it is pushed.",
        )
    };
    if !(same_family(from, to) && can_cast_types(from, to)) {
        return Err(mismatch("its stream's is"));
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let cast = cast_with_options(column, to, &options).map_err(|_| mismatch("a value does not fit"))?;
    if *from != DataType::Null {
        let back = cast_with_options(&cast, from, &options).map_err(|_| mismatch("a value does not fit"))?;
        if back.as_ref() != column.as_ref() {
            return Err(mismatch("a value would change as"));
        }
    }
    Ok(cast)
}

/// Whether values of one type may stand for values of the other at all: numbers do not become text, nor text times.
fn same_family(from: &DataType, to: &DataType) -> bool {
    use DataType::{Binary, BinaryView, Date32, Date64, FixedSizeBinary, LargeBinary, LargeUtf8, Null, Timestamp, Utf8, Utf8View};
    match (from, to) {
        (Null, _) => true,
        (DataType::Dictionary(_, values), to) => values.as_ref() == to || same_family(values, to),
        (Utf8 | LargeUtf8 | Utf8View, to) => matches!(to, Utf8 | LargeUtf8 | Utf8View),
        (Binary | LargeBinary | BinaryView | FixedSizeBinary(_), to) => matches!(to, Binary | LargeBinary | BinaryView),
        (Timestamp(..) | Date32 | Date64, to) => matches!(to, Timestamp(..) | Date32 | Date64),
        (DataType::Time32(_) | DataType::Time64(_), to) => matches!(to, DataType::Time32(_) | DataType::Time64(_)),
        (from, to) if from.is_numeric() => to.is_numeric(),
        (from, to) => from.is_nested() && to.is_nested(),
    }
}
