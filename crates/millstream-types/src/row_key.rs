//! Row identity: one canonical byte encoding for keys, DISTINCT, consolidation and comparison.
//!
//! Two rows are the same when their encodings are equal: NULL = NULL, -0.0 = 0.0, and all NaN are one value. The encoding
//! is arrow-row's after floats were made canonical, so bytes also order like the values.

use arrow::array::{Array, ArrayRef, AsArray, Float16Array, Float32Array, Float64Array};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Field, FieldRef, Float16Type, Float32Type, Float64Type};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use std::sync::Arc;

/// Encodes rows of fixed column types into canonical, memcmp-ordered bytes.
#[derive(Debug)]
pub struct RowKeyEncoder {
    converter: RowConverter,
    has_floats: bool,
}

impl RowKeyEncoder {
    /// An encoder for columns of these types.
    ///
    /// # Errors
    /// When arrow-row does not support a type (none of SQL's).
    pub fn new(types: impl IntoIterator<Item = DataType>) -> Result<Self, ArrowError> {
        let types: Vec<DataType> = types.into_iter().collect();
        let has_floats = types.iter().any(contains_float);
        Ok(Self { converter: RowConverter::new(types.into_iter().map(SortField::new).collect())?, has_floats })
    }

    /// The encodings of all rows of `columns`, which have the encoder's types.
    ///
    /// # Errors
    /// When a column has another type.
    pub fn encode(&self, columns: &[ArrayRef]) -> Result<Rows, ArrowError> {
        if !self.has_floats {
            return self.converter.convert_columns(columns);
        }
        let canonical = columns.iter().map(canonical_floats).collect::<Result<Vec<_>, _>>()?;
        self.converter.convert_columns(&canonical)
    }

    /// The columns of rows that were stored as bytes.
    ///
    /// # Errors
    /// When the bytes come from another encoder.
    pub fn decode_bytes<'a>(&self, rows: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>, ArrowError> {
        let parser = self.converter.parser();
        self.converter.convert_rows(rows.into_iter().map(|row| parser.parse(row)))
    }

    /// The columns that encoded `rows`, with canonical floats.
    ///
    /// # Errors
    /// When the rows come from another encoder.
    pub fn decode<'a>(&self, rows: impl IntoIterator<Item = arrow::row::Row<'a>>) -> Result<Vec<ArrayRef>, ArrowError> {
        self.converter.convert_rows(rows)
    }
}

fn contains_float(data_type: &DataType) -> bool {
    match data_type {
        DataType::Float16 | DataType::Float32 | DataType::Float64 => true,
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) | DataType::Map(field, _) => {
            contains_float(field.data_type())
        }
        DataType::Struct(fields) => fields.iter().any(|field| contains_float(field.data_type())),
        DataType::Dictionary(_, values) => contains_float(values),
        _ => false,
    }
}

/// The array with -0.0 as 0.0 and every NaN as the one quiet NaN, in nested values too; other arrays as they are.
///
/// # Errors
/// When a nested array cannot be rebuilt (does not happen for arrays that arrow made).
pub fn canonical_floats(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    if !contains_float(array.data_type()) {
        return Ok(Arc::clone(array));
    }
    Ok(match array.data_type() {
        DataType::Float64 => {
            let canonical: Float64Array = array.as_primitive::<Float64Type>().unary(|x| if x.is_nan() { f64::NAN } else { x + 0.0 });
            Arc::new(canonical)
        }
        DataType::Float32 => {
            let canonical: Float32Array = array.as_primitive::<Float32Type>().unary(|x| if x.is_nan() { f32::NAN } else { x + 0.0 });
            Arc::new(canonical)
        }
        DataType::Float16 => {
            type F16 = <Float16Type as ArrowPrimitiveType>::Native;
            let canonical: Float16Array = array.as_primitive::<Float16Type>().unary(|x| if x.is_nan() { F16::NAN } else { x + F16::ZERO });
            Arc::new(canonical)
        }
        _ => {
            let data = array.to_data();
            let children = data
                .child_data()
                .iter()
                .map(|child| canonical_floats(&arrow::array::make_array(child.clone())).map(|array| array.to_data()))
                .collect::<Result<Vec<_>, _>>()?;
            arrow::array::make_array(data.into_builder().child_data(children).build()?)
        }
    })
}

/// A field list as arrow-row sees it: used to build encoders from schemas.
pub fn types_of<'a>(fields: impl IntoIterator<Item = &'a FieldRef>) -> Vec<DataType> {
    fields.into_iter().map(|field: &Arc<Field>| field.data_type().clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_and_nan_have_one_encoding() {
        let encoder = RowKeyEncoder::new([DataType::Float64]).unwrap();
        let column: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN]));
        let rows = encoder.encode(&[column]).unwrap();
        assert_eq!(rows.row(0), rows.row(1));
        assert_eq!(rows.row(2), rows.row(3));
        assert_ne!(rows.row(0), rows.row(2));
    }
}
