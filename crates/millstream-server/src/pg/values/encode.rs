//! Rows of Arrow batches as values of PostgreSQL, text or binary.
//!
//! **In**: the columns of a batch, in the types of [`super::types::normal_columns`]. **Out**: per value its length (`i32`, -1 for NULL) and
//! its bytes, which is how `DataRow` and binary COPY take them.

use super::types::{data_type, field_type, normal_array, normal_columns};
use super::{numeric, text};
use arrow::array::*;
use arrow::datatypes::{DataType, TimeUnit};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::{BufMut, BytesMut};
use postgres_types::Type;
use std::fmt::Write;

/// Days from 1970-01-01 to 2000-01-01, where PostgreSQL counts from.
const EPOCH_DAYS: i32 = 10_957;
/// The same in microseconds.
const EPOCH_MICROSECONDS: i64 = 10_957 * 86_400_000_000;

/// The values of a batch, to be written row by row.
pub(crate) struct BatchEncoder {
    columns: Vec<(Values, bool)>,
    rows: usize,
}

impl BatchEncoder {
    /// The values of a batch. `binary` says for each column whether it is wanted in binary.
    ///
    /// # Errors
    /// When a value has no form in PostgreSQL, such as a time that is out of range.
    pub(crate) fn new(batch: &RecordBatch, binary: impl Fn(usize) -> bool) -> Result<Self, ArrowError> {
        let columns = normal_columns(batch)?.into_iter().enumerate();
        let columns = columns.map(|(index, array)| Ok((Values::new(array)?, binary(index))));
        Ok(Self { columns: columns.collect::<Result<_, ArrowError>>()?, rows: batch.num_rows() })
    }

    /// How many rows there are.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// How many columns.
    pub(crate) fn columns(&self) -> usize {
        self.columns.len()
    }

    /// Writes a row: each value with its length.
    ///
    /// # Errors
    /// When a value cannot be shown.
    pub(crate) fn row(&self, row: usize, out: &mut BytesMut) -> Result<(), ArrowError> {
        self.columns.iter().try_for_each(|(values, binary)| values.sized(row, *binary, out))
    }

    /// The text of one value; `None` for NULL.
    ///
    /// # Errors
    /// As [`BatchEncoder::row`].
    pub(crate) fn text(&self, row: usize, column: usize, out: &mut String) -> Result<bool, ArrowError> {
        match self.columns.get(column) {
            Some((values, _)) if !values.is_null(row) => values.text(row, out).map(|()| true),
            _ => Ok(false),
        }
    }
}

/// The values of a column.
enum Values {
    Null,
    Boolean(BooleanArray),
    Int16(Int16Array),
    Int32(Int32Array),
    Int64(Int64Array),
    Float32(Float32Array),
    Float64(Float64Array),
    Decimal128(Decimal128Array, i8),
    Decimal256(Decimal256Array, i8),
    Utf8(StringArray),
    Utf8View(StringViewArray),
    Binary(BinaryArray),
    Date(Date32Array),
    Time(Time64MicrosecondArray),
    Timestamp(TimestampMicrosecondArray, bool),
    Interval(IntervalMonthDayNanoArray),
    Duration(DurationMicrosecondArray),
    List { lists: ListArray, values: Box<Values>, element: Type },
    Struct { nulls: StructArray, fields: Vec<(Values, Type)> },
    Other(ArrayRef),
}

impl Values {
    fn new(array: ArrayRef) -> Result<Self, ArrowError> {
        Ok(match array.data_type() {
            DataType::Null => Values::Null,
            DataType::Boolean => Values::Boolean(array.as_boolean().clone()),
            DataType::Int16 => Values::Int16(array.as_primitive().clone()),
            DataType::Int32 => Values::Int32(array.as_primitive().clone()),
            DataType::Int64 => Values::Int64(array.as_primitive().clone()),
            DataType::Float32 => Values::Float32(array.as_primitive().clone()),
            DataType::Float64 => Values::Float64(array.as_primitive().clone()),
            DataType::Decimal128(_, scale) => Values::Decimal128(array.as_primitive().clone(), *scale),
            DataType::Decimal256(_, scale) => Values::Decimal256(array.as_primitive().clone(), *scale),
            DataType::Utf8 => Values::Utf8(array.as_string().clone()),
            DataType::Utf8View => Values::Utf8View(array.as_string_view().clone()),
            DataType::Binary => Values::Binary(array.as_binary().clone()),
            DataType::Date32 => Values::Date(array.as_primitive().clone()),
            DataType::Time64(TimeUnit::Microsecond) => Values::Time(array.as_primitive().clone()),
            DataType::Timestamp(TimeUnit::Microsecond, zone) => Values::Timestamp(array.as_primitive().clone(), zone.is_some()),
            DataType::Interval(_) => Values::Interval(array.as_primitive().clone()),
            DataType::Duration(TimeUnit::Microsecond) => Values::Duration(array.as_primitive().clone()),
            DataType::List(item) => {
                let lists = array.as_list::<i32>().clone();
                let values = Box::new(Values::new(normal_array(lists.values())?)?);
                Values::List { lists, values, element: data_type(item.data_type()) }
            }
            DataType::Struct(fields) => {
                let nulls = array.as_struct().clone();
                let parts = nulls.columns().iter().zip(fields);
                let parts = parts.map(|(column, field)| Ok((Values::new(normal_array(column)?)?, field_type(field))));
                let fields = parts.collect::<Result<_, ArrowError>>()?;
                Values::Struct { nulls, fields }
            }
            _ => Values::Other(array),
        })
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Values::Null => true,
            Values::Boolean(array) => array.is_null(row),
            Values::Int16(array) => array.is_null(row),
            Values::Int32(array) => array.is_null(row),
            Values::Int64(array) => array.is_null(row),
            Values::Float32(array) => array.is_null(row),
            Values::Float64(array) => array.is_null(row),
            Values::Decimal128(array, _) => array.is_null(row),
            Values::Decimal256(array, _) => array.is_null(row),
            Values::Utf8(array) => array.is_null(row),
            Values::Utf8View(array) => array.is_null(row),
            Values::Binary(array) => array.is_null(row),
            Values::Date(array) => array.is_null(row),
            Values::Time(array) => array.is_null(row),
            Values::Timestamp(array, _) => array.is_null(row),
            Values::Interval(array) => array.is_null(row),
            Values::Duration(array) => array.is_null(row),
            Values::List { lists, .. } => lists.is_null(row),
            Values::Struct { nulls, .. } => nulls.is_null(row),
            Values::Other(array) => array.is_null(row),
        }
    }

    /// Length and bytes of a value.
    fn sized(&self, row: usize, binary: bool, out: &mut BytesMut) -> Result<(), ArrowError> {
        if self.is_null(row) {
            out.put_i32(-1);
            return Ok(());
        }
        let start = out.len();
        out.put_i32(0);
        if binary {
            self.binary(row, out)?;
        } else if let Some(text) = self.str(row) {
            out.put_slice(text.as_bytes());
        } else {
            let mut text = String::new();
            self.text(row, &mut text)?;
            out.put_slice(text.as_bytes());
        }
        let length =
            i32::try_from(out.len() - start - 4).map_err(|_| ArrowError::InvalidArgumentError("a value is larger than 2 GiB".into()))?;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    fn str(&self, row: usize) -> Option<&str> {
        match self {
            Values::Utf8(array) => Some(array.value(row)),
            Values::Utf8View(array) => Some(array.value(row)),
            _ => None,
        }
    }

    fn binary(&self, row: usize, out: &mut BytesMut) -> Result<(), ArrowError> {
        match self {
            Values::Boolean(array) => out.put_u8(u8::from(array.value(row))),
            Values::Int16(array) => out.put_i16(array.value(row)),
            Values::Int32(array) => out.put_i32(array.value(row)),
            Values::Int64(array) => out.put_i64(array.value(row)),
            Values::Float32(array) => out.put_f32(array.value(row)),
            Values::Float64(array) => out.put_f64(array.value(row)),
            Values::Decimal128(array, scale) => numeric::write_binary(&array.value(row).to_string(), *scale, out),
            Values::Decimal256(array, scale) => numeric::write_binary(&array.value(row).to_string(), *scale, out),
            Values::Binary(array) => out.put_slice(array.value(row)),
            Values::Date(array) => out.put_i32(array.value(row).saturating_sub(EPOCH_DAYS)),
            Values::Time(array) => out.put_i64(array.value(row)),
            Values::Timestamp(array, _) => out.put_i64(array.value(row).saturating_sub(EPOCH_MICROSECONDS)),
            Values::Interval(array) => {
                let value = array.value(row);
                out.put_i64(value.nanoseconds / 1_000);
                out.put_i32(value.days);
                out.put_i32(value.months);
            }
            Values::Duration(array) => {
                out.put_i64(array.value(row));
                out.put_i32(0);
                out.put_i32(0);
            }
            Values::List { lists, values, element } => {
                let (start, end) = bounds(lists, row);
                let has_nulls = (start..end).any(|index| values.is_null(index));
                out.put_i32(i32::from(end > start));
                out.put_i32(i32::from(has_nulls));
                out.put_u32(element.oid());
                if end > start {
                    out.put_i32(i32::try_from(end - start).unwrap_or(i32::MAX));
                    out.put_i32(1);
                }
                return (start..end).try_for_each(|index| values.sized(index, true, out));
            }
            Values::Struct { fields, .. } => {
                out.put_i32(i32::try_from(fields.len()).unwrap_or(i32::MAX));
                for (values, kind) in fields {
                    out.put_u32(kind.oid());
                    values.sized(row, true, out)?;
                }
            }
            Values::Null | Values::Utf8(_) | Values::Utf8View(_) | Values::Other(_) => {
                let mut text = String::new();
                self.text(row, &mut text)?;
                out.put_slice(text.as_bytes());
            }
        }
        Ok(())
    }

    fn text(&self, row: usize, out: &mut String) -> Result<(), ArrowError> {
        match self {
            Values::Null => {}
            Values::Boolean(array) => out.push(if array.value(row) { 't' } else { 'f' }),
            Values::Int16(array) => number(array.value(row), out),
            Values::Int32(array) => number(array.value(row), out),
            Values::Int64(array) => number(array.value(row), out),
            Values::Float32(array) => text::float(&format!("{:?}", array.value(row)), out),
            Values::Float64(array) => text::float(&format!("{:?}", array.value(row)), out),
            Values::Decimal128(array, scale) => out.push_str(&numeric::text(&array.value(row).to_string(), *scale)),
            Values::Decimal256(array, scale) => out.push_str(&numeric::text(&array.value(row).to_string(), *scale)),
            Values::Utf8(array) => out.push_str(array.value(row)),
            Values::Utf8View(array) => out.push_str(array.value(row)),
            Values::Binary(array) => text::bytea(array.value(row), out),
            Values::Date(array) => text::date(i64::from(array.value(row)), out),
            Values::Time(array) => text::time(array.value(row), out),
            Values::Timestamp(array, utc) => text::timestamp(array.value(row), *utc, out),
            Values::Interval(array) => {
                let value = array.value(row);
                text::interval(value.months, value.days, value.nanoseconds / 1_000, out);
            }
            Values::Duration(array) => text::interval(0, 0, array.value(row), out),
            Values::List { lists, values, .. } => {
                let (start, end) = bounds(lists, row);
                out.push('{');
                for index in start..end {
                    if index > start {
                        out.push(',');
                    }
                    if values.is_null(index) {
                        out.push_str("NULL");
                        continue;
                    }
                    let mut element = String::new();
                    values.text(index, &mut element)?;
                    match **values {
                        // Arrays of arrays nest without quotes.
                        Values::List { .. } => out.push_str(&element),
                        _ => quoted_element(&element, out),
                    }
                }
                out.push('}');
            }
            Values::Struct { fields, .. } => {
                out.push('(');
                for (index, (values, _)) in fields.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    if !values.is_null(row) {
                        let mut part = String::new();
                        values.text(row, &mut part)?;
                        quoted_part(&part, out);
                    }
                }
                out.push(')');
            }
            Values::Other(array) => {
                let options = FormatOptions::default();
                let shown = ArrayFormatter::try_new(array.as_ref(), &options)?.value(row).try_to_string()?;
                out.push_str(&shown);
            }
        }
        Ok(())
    }
}

fn number(value: impl std::fmt::Display, out: &mut String) {
    // Writing to a string does not fail.
    let _ = write!(out, "{value}");
}

fn bounds(lists: &ListArray, row: usize) -> (usize, usize) {
    let offsets = lists.value_offsets();
    let at = |index: usize| usize::try_from(offsets[index]).unwrap_or(0);
    (at(row), at(row + 1))
}

/// An element of an array, in quotes where it would read as something else.
fn quoted_element(text: &str, out: &mut String) {
    let special = |c: char| matches!(c, '{' | '}' | ',' | '"' | '\\') || c.is_whitespace();
    if !text.is_empty() && !text.contains(special) && !text.eq_ignore_ascii_case("null") {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

/// A part of a record, likewise.
fn quoted_part(text: &str, out: &mut String) {
    let special = |c: char| matches!(c, '(' | ')' | ',' | '"' | '\\') || c.is_whitespace();
    if !text.is_empty() && !text.contains(special) {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push(c);
        }
        out.push(c);
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{Field, Int32Type};
    use std::sync::Arc;

    fn texts(array: ArrayRef) -> Vec<Option<String>> {
        let batch = RecordBatch::try_from_iter_with_nullable([("c", array, true)]).unwrap();
        let encoder = BatchEncoder::new(&batch, |_| false).unwrap();
        let text = |row| {
            let mut out = String::new();
            encoder.text(row, 0, &mut out).unwrap().then_some(out)
        };
        (0..encoder.rows()).map(text).collect()
    }

    fn binary(array: ArrayRef) -> Vec<u8> {
        let batch = RecordBatch::try_from_iter_with_nullable([("c", array, true)]).unwrap();
        let mut out = BytesMut::new();
        BatchEncoder::new(&batch, |_| true).unwrap().row(0, &mut out).unwrap();
        out.to_vec()
    }

    #[test]
    fn values_of_every_kind_have_a_text() {
        let some = |text: &str| Some(text.to_string());
        assert_eq!(texts(Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]))), [some("t"), some("f"), None]);
        assert_eq!(texts(Arc::new(UInt64Array::from(vec![u64::MAX]))), [some("18446744073709551615")]);
        assert_eq!(
            texts(Arc::new(TimestampNanosecondArray::from(vec![1_500_001_999]).with_timezone("UTC"))),
            [some("1970-01-01 00:00:01.500001+00")]
        );
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
        assert_eq!(texts(Arc::new(lists)), [some("{1,NULL}"), None, some("{}")]);
        let mut words = ListBuilder::new(StringBuilder::new());
        words.append_value(["a b", "", "null", "x\"y\\", "plain"].map(Some));
        assert_eq!(texts(Arc::new(words.finish())), [some(r#"{"a b","","null","x\"y\\",plain}"#)]);
        let number: ArrayRef = Arc::new(Int32Array::from(vec![1]));
        let word: ArrayRef = Arc::new(StringArray::from(vec!["x, \"y\""]));
        let fields =
            vec![(Arc::new(Field::new("n", DataType::Int32, true)), number), (Arc::new(Field::new("w", DataType::Utf8, true)), word)];
        assert_eq!(texts(Arc::new(StructArray::from(fields))), [some(r#"(1,"x, ""y""")"#)]);
        let dictionary: DictionaryArray<Int32Type> = ["a", "b", "a"].into_iter().collect();
        assert_eq!(texts(Arc::new(dictionary)), [some("a"), some("b"), some("a")]);
    }

    #[test]
    fn binary_forms_are_those_of_postgresql() {
        assert_eq!(binary(Arc::new(Int64Array::from(vec![7]))), [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!(binary(Arc::new(Int64Array::from(vec![None]))), [0xff, 0xff, 0xff, 0xff]);
        assert_eq!(binary(Arc::new(Date32Array::from(vec![EPOCH_DAYS + 1]))), [0, 0, 0, 4, 0, 0, 0, 1]);
        assert_eq!(binary(Arc::new(TimestampMicrosecondArray::from(vec![EPOCH_MICROSECONDS])))[4..], [0; 8]);
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(5)])]);
        let expected = [0, 0, 0, 28, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 23, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 5];
        assert_eq!(binary(Arc::new(lists)), expected);
    }
}
