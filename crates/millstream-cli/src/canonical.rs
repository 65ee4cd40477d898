//! Rows as canonical bytes: equal bytes mean equal rows, however and in whatever order they were computed.
//!
//! Text is text however it is stored, small integers are `BIGINT`, and floating-point values count to twelve digits, since the last
//! ones of a sum depend on the order of its rows. The rest is the engine's own row identity (NULL = NULL, one zero, one NaN).

use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Schema};
use arrow::row::Rows;
use millstream_types::row_key::RowKeyEncoder;
use std::sync::Arc;

/// Makes columns of fixed types comparable.
#[derive(Debug)]
pub(crate) struct Canonical {
    types: Vec<DataType>,
    encoder: RowKeyEncoder,
}

impl Canonical {
    /// For results with these columns; others are cast to them.
    ///
    /// # Errors
    /// When a type has no order (none of SQL's).
    pub(crate) fn new(schema: &Schema) -> anyhow::Result<Self> {
        let types: Vec<DataType> = schema.fields().iter().map(|field| common(field.data_type())).collect();
        let encoder = RowKeyEncoder::new(types.clone())?;
        Ok(Self { types, encoder })
    }

    /// The columns in common types, with floating-point values rounded.
    ///
    /// # Errors
    /// When there are more or fewer columns, or one cannot be cast.
    pub(crate) fn columns(&self, columns: &[ArrayRef]) -> anyhow::Result<Vec<ArrayRef>> {
        anyhow::ensure!(columns.len() == self.types.len(), "the results have {} and {} columns", columns.len(), self.types.len());
        columns.iter().zip(&self.types).map(|(column, data_type)| Ok(rounded(&cast(column, data_type)?))).collect()
    }

    /// The bytes of the rows of [`Canonical::columns`].
    ///
    /// # Errors
    /// When the columns are others.
    pub(crate) fn encode(&self, columns: &[ArrayRef]) -> anyhow::Result<Rows> {
        Ok(self.encoder.encode(columns)?)
    }
}

/// One type for each kind of text and for small integers.
fn common(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Float32 => DataType::Float64,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => DataType::Int64,
        other => other.clone(),
    }
}

fn rounded(column: &ArrayRef) -> ArrayRef {
    if column.data_type() != &DataType::Float64 {
        return Arc::clone(column);
    }
    let rounded: Float64Array = column.as_primitive::<Float64Type>().unary(|value| format!("{value:.11e}").parse().unwrap_or(value));
    Arc::new(rounded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int32Array, Int64Array, RecordBatch, StringArray, StringViewArray};

    #[test]
    fn the_last_digits_of_sums_do_not_count() {
        let column: ArrayRef = Arc::new(Float64Array::from(vec![0.1 + 0.2]));
        assert_eq!(rounded(&column).as_primitive::<Float64Type>().value(0), 0.3);
    }

    #[test]
    fn types_that_hold_the_same_values_are_one() {
        let view: ArrayRef = Arc::new(StringViewArray::from(vec!["a"]));
        let plain: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
        let (wide, narrow): (ArrayRef, ArrayRef) = (Arc::new(Int64Array::from(vec![1])), Arc::new(Int32Array::from(vec![1])));
        let one = RecordBatch::try_from_iter([("s", view), ("n", wide)]).unwrap();
        let other = RecordBatch::try_from_iter([("s", plain), ("n", narrow)]).unwrap();
        let canonical = Canonical::new(&one.schema()).unwrap();
        let bytes = |batch: &RecordBatch| canonical.encode(&canonical.columns(batch.columns()).unwrap()).unwrap().row(0).owned();
        assert_eq!(bytes(&one), bytes(&other));
        assert!(canonical.columns(&one.columns()[..1]).is_err());
    }
}
