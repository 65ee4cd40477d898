//! Tables of the catalog as batches: some columns are given, all others have the value that says nothing.

use arrow::array::{ArrayRef, BooleanArray, ListBuilder, RecordBatch, StringArray, new_null_array};
use arrow::array::{Float64Array, Int16Array, Int16Builder, Int32Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use std::sync::Arc;

/// A column by its name.
pub(super) type Given<'a> = (&'a str, ArrayRef);

/// Rows with the given columns.
///
/// # Errors
/// When a given column is of another length, or of a type that cannot become the schema's.
pub(super) fn rows(schema: &SchemaRef, count: usize, given: &[Given<'_>]) -> Result<RecordBatch, ArrowError> {
    let column = |field: &Arc<Field>| match given.iter().find(|(name, _)| name == field.name()) {
        Some((_, array)) => cast(array, field.data_type()),
        None => Ok(nothing(field, count)),
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<ArrayRef>, _>>()?;
    RecordBatch::try_new(Arc::clone(schema), columns)
}

/// The same rows with other values in the given columns.
///
/// # Errors
/// As [`rows`].
pub(super) fn replaced(batch: &RecordBatch, schema: &SchemaRef, given: &[Given<'_>]) -> Result<RecordBatch, ArrowError> {
    let column = |(field, present): (&Arc<Field>, &ArrayRef)| match given.iter().find(|(name, _)| name == field.name()) {
        Some((_, array)) => cast(array, field.data_type()),
        None => Ok(Arc::clone(present)),
    };
    let columns = schema.fields().iter().zip(batch.columns()).map(column).collect::<Result<Vec<ArrayRef>, _>>()?;
    RecordBatch::try_new(Arc::clone(schema), columns)
}

/// The same columns, some of them with another type.
pub(super) fn retyped(schema: &Schema, types: &[(&str, DataType)]) -> SchemaRef {
    let field = |field: &Arc<Field>| match types.iter().find(|(name, _)| name == field.name()) {
        Some((_, data_type)) => Arc::new(Field::new(field.name(), data_type.clone(), true)),
        None => Arc::clone(field),
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

/// NULL where it may be, else zero, false or an empty text.
fn nothing(field: &Field, count: usize) -> ArrayRef {
    match field.data_type() {
        data_type if field.is_nullable() => new_null_array(data_type, count),
        DataType::Boolean => Arc::new(BooleanArray::from(vec![false; count])),
        DataType::Int16 => Arc::new(Int16Array::from_value(0, count)),
        DataType::Int32 => Arc::new(Int32Array::from_value(0, count)),
        DataType::Float64 => Arc::new(Float64Array::from_value(0.0, count)),
        DataType::Utf8 => Arc::new(StringArray::from(vec![""; count])),
        // There is none such among the columns that may not be NULL; were there one, the batch would be refused.
        data_type => new_null_array(data_type, count),
    }
}

/// Texts.
pub(super) fn texts<T: AsRef<str>>(values: impl IntoIterator<Item = T>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

/// Numbers of objects.
pub(super) fn oids(values: impl IntoIterator<Item = i32>) -> ArrayRef {
    Arc::new(Int32Array::from_iter_values(values))
}

/// Lists of small numbers, as those of columns.
pub(super) fn lists(values: impl IntoIterator<Item = Vec<i16>>) -> ArrayRef {
    let mut lists = ListBuilder::new(Int16Builder::new());
    for value in values {
        lists.values().append_slice(&value);
        lists.append(true);
    }
    Arc::new(lists.finish())
}

/// The type of [`lists`].
pub(super) fn list_type() -> DataType {
    DataType::new_list(DataType::Int16, true)
}
