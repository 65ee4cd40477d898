//! Columnar builders that take one value at a time and refuse what does not fit exactly.
//!
//! A row that turns out bad half-way is not rolled back: every column is padded to the same length with
//! [`Column::pad`], and the decoder filters the bad rows out of the finished batch. That keeps the good path free of copies.

use super::scalar::{
    Misfit, parse_boolean, parse_date, parse_decimal, parse_f32, parse_f64, parse_hex, parse_integer, parse_interval, parse_time,
    parse_wide_decimal,
};
use super::timestamp::TimestampFormat;
use crate::error::{ConnectorError, Result};
use arrow::array::{
    ArrayRef, BinaryBuilder, BinaryViewBuilder, BooleanBuilder, ListArray, NullBufferBuilder, PrimitiveArray, StringBuilder,
    StringViewBuilder, StructArray,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::IntervalMonthDayNano;
use arrow::datatypes::{
    ArrowNativeType, ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Decimal256Type, FieldRef, Fields, Float32Type, Float64Type,
    Int8Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNanoType, IntervalUnit, Time64MicrosecondType, Time64NanosecondType,
    TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type, i256,
};
use std::sync::Arc;

/// Where a token comes from, which decides what it may mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    /// A CSV field or a part of a path: untyped text.
    Text,
    /// A JSON string.
    JsonString,
    /// A JSON number.
    JsonNumber,
    /// `true` or `false` in JSON.
    JsonBoolean,
}

/// Values and validity of a fixed-width column.
#[derive(Debug)]
pub(crate) struct Values<N> {
    values: Vec<N>,
    nulls: NullBufferBuilder,
}

impl<N: ArrowNativeType> Values<N> {
    fn new() -> Self {
        Self { values: Vec::new(), nulls: NullBufferBuilder::new(0) }
    }

    fn push(&mut self, value: N) {
        self.values.push(value);
        self.nulls.append_non_null();
    }

    fn push_null(&mut self) {
        self.values.push(N::default());
        self.nulls.append_null();
    }

    fn finish<T: ArrowPrimitiveType<Native = N>>(&mut self, data_type: &DataType) -> ArrayRef {
        let values = ScalarBuffer::from(std::mem::take(&mut self.values));
        Arc::new(PrimitiveArray::<T>::new(values, self.nulls.finish()).with_data_type(data_type.clone()))
    }
}

/// The values of one column so far.
#[derive(Debug)]
pub(crate) enum Builder {
    Boolean(BooleanBuilder),
    Int8(Values<i8>),
    Int16(Values<i16>),
    Int32(Values<i32>),
    Int64(Values<i64>),
    UInt8(Values<u8>),
    UInt16(Values<u16>),
    UInt32(Values<u32>),
    UInt64(Values<u64>),
    Float32(Values<f32>),
    Float64(Values<f64>),
    Decimal(Values<i128>, u8, i8),
    WideDecimal(Values<i256>, u8, i8),
    Date(Values<i32>),
    Time(Values<i64>, TimeUnit),
    Timestamp(Values<i64>, TimeUnit),
    Interval(Values<IntervalMonthDayNano>),
    TextView(StringViewBuilder),
    Text(StringBuilder),
    Binary(BinaryBuilder),
    BinaryView(BinaryViewBuilder),
    List { item: FieldRef, offsets: Vec<i32>, nulls: NullBufferBuilder, child: Box<Column> },
    Struct { fields: Fields, children: Vec<Column>, nulls: NullBufferBuilder, rows: usize },
}

/// A column under construction.
#[derive(Debug)]
pub(crate) struct Column {
    pub field: FieldRef,
    pub builder: Builder,
}

impl Column {
    /// An empty column for `field`; `format` is named when its type cannot be decoded.
    pub(crate) fn new(field: &FieldRef, format: &str) -> Result<Self> {
        let builder = match field.data_type() {
            DataType::Boolean => Builder::Boolean(BooleanBuilder::new()),
            DataType::Int8 => Builder::Int8(Values::new()),
            DataType::Int16 => Builder::Int16(Values::new()),
            DataType::Int32 => Builder::Int32(Values::new()),
            DataType::Int64 => Builder::Int64(Values::new()),
            DataType::UInt8 => Builder::UInt8(Values::new()),
            DataType::UInt16 => Builder::UInt16(Values::new()),
            DataType::UInt32 => Builder::UInt32(Values::new()),
            DataType::UInt64 => Builder::UInt64(Values::new()),
            DataType::Float32 => Builder::Float32(Values::new()),
            DataType::Float64 => Builder::Float64(Values::new()),
            DataType::Decimal128(precision, scale) => Builder::Decimal(Values::new(), *precision, *scale),
            DataType::Decimal256(precision, scale) => Builder::WideDecimal(Values::new(), *precision, *scale),
            DataType::Date32 => Builder::Date(Values::new()),
            DataType::Time64(unit) => Builder::Time(Values::new(), *unit),
            DataType::Timestamp(unit, _) => Builder::Timestamp(Values::new(), *unit),
            DataType::Interval(IntervalUnit::MonthDayNano) => Builder::Interval(Values::new()),
            // Deduplication is off and blocks are large: a view into a block is as cheap as it gets.
            DataType::Utf8View => Builder::TextView(StringViewBuilder::new().with_fixed_block_size(256 * 1024)),
            DataType::Utf8 => Builder::Text(StringBuilder::new()),
            DataType::Binary => Builder::Binary(BinaryBuilder::new()),
            DataType::BinaryView => Builder::BinaryView(BinaryViewBuilder::new()),
            DataType::List(item) => Builder::List {
                item: Arc::clone(item),
                offsets: vec![0],
                nulls: NullBufferBuilder::new(0),
                child: Box::new(Column::new(item, format)?),
            },
            DataType::Struct(fields) => Builder::Struct {
                fields: fields.clone(),
                children: fields.iter().map(|field| Column::new(field, format)).collect::<Result<_>>()?,
                nulls: NullBufferBuilder::new(0),
                rows: 0,
            },
            other => {
                return Err(ConnectorError::invalid(
                    format!("column \"{}\" has type {}, which the format {format} cannot decode", field.name(), super::sql_type(other)),
                    "Declare the column as VARCHAR and cast it in the query.",
                ));
            }
        };
        Ok(Self { field: Arc::clone(field), builder })
    }

    /// Values so far.
    pub(crate) fn len(&self) -> usize {
        match &self.builder {
            Builder::Boolean(values) => arrow::array::ArrayBuilder::len(values),
            Builder::Int8(values) => values.values.len(),
            Builder::Int16(values) => values.values.len(),
            Builder::Int32(values) | Builder::Date(values) => values.values.len(),
            Builder::Int64(values) | Builder::Time(values, _) | Builder::Timestamp(values, _) => values.values.len(),
            Builder::UInt8(values) => values.values.len(),
            Builder::UInt16(values) => values.values.len(),
            Builder::UInt32(values) => values.values.len(),
            Builder::UInt64(values) => values.values.len(),
            Builder::Float32(values) => values.values.len(),
            Builder::Float64(values) => values.values.len(),
            Builder::Decimal(values, _, _) => values.values.len(),
            Builder::WideDecimal(values, _, _) => values.values.len(),
            Builder::Interval(values) => values.values.len(),
            Builder::TextView(values) => arrow::array::ArrayBuilder::len(values),
            Builder::Text(values) => arrow::array::ArrayBuilder::len(values),
            Builder::Binary(values) => arrow::array::ArrayBuilder::len(values),
            Builder::BinaryView(values) => arrow::array::ArrayBuilder::len(values),
            Builder::List { offsets, .. } => offsets.len() - 1,
            Builder::Struct { rows, .. } => *rows,
        }
    }

    /// Appends NULL whether or not the column allows it; callers check.
    pub(crate) fn push_null(&mut self) {
        match &mut self.builder {
            Builder::Boolean(values) => values.append_null(),
            Builder::Int8(values) => values.push_null(),
            Builder::Int16(values) => values.push_null(),
            Builder::Int32(values) | Builder::Date(values) => values.push_null(),
            Builder::Int64(values) | Builder::Time(values, _) | Builder::Timestamp(values, _) => values.push_null(),
            Builder::UInt8(values) => values.push_null(),
            Builder::UInt16(values) => values.push_null(),
            Builder::UInt32(values) => values.push_null(),
            Builder::UInt64(values) => values.push_null(),
            Builder::Float32(values) => values.push_null(),
            Builder::Float64(values) => values.push_null(),
            Builder::Decimal(values, _, _) => values.push_null(),
            Builder::WideDecimal(values, _, _) => values.push_null(),
            Builder::Interval(values) => values.push_null(),
            Builder::TextView(values) => values.append_null(),
            Builder::Text(values) => values.append_null(),
            Builder::Binary(values) => values.append_null(),
            Builder::BinaryView(values) => values.append_null(),
            Builder::List { offsets, nulls, .. } => {
                offsets.push(offsets.last().copied().unwrap_or(0));
                nulls.append_null();
            }
            Builder::Struct { children, nulls, rows, .. } => {
                for child in children {
                    child.push_null();
                }
                nulls.append_null();
                *rows += 1;
            }
        }
    }

    /// Repairs whatever a bad row left behind, so that the column has exactly `rows` values.
    pub(crate) fn pad(&mut self, rows: usize) {
        match &mut self.builder {
            Builder::List { offsets, nulls, child, .. } => {
                let elements = child.extent();
                child.pad(elements);
                while offsets.len() <= rows {
                    offsets.push(elements as i32);
                    nulls.append_null();
                }
            }
            Builder::Struct { children, nulls, rows: length, .. } => {
                for child in children {
                    child.pad(rows);
                }
                while *length < rows {
                    nulls.append_null();
                    *length += 1;
                }
            }
            _ => {
                while self.len() < rows {
                    self.push_null();
                }
            }
        }
    }

    /// The largest number of values any part of the column has.
    fn extent(&self) -> usize {
        match &self.builder {
            Builder::Struct { children, rows, .. } => children.iter().map(Column::extent).max().unwrap_or(0).max(*rows),
            _ => self.len(),
        }
    }

    /// Appends one scalar value.
    #[inline]
    pub(crate) fn push(&mut self, token: Token, text: &str, timestamps: &TimestampFormat) -> Result<(), Misfit> {
        macro_rules! integer {
            ($values:expr, $native:ty) => {{
                require(matches!(token, Token::Text | Token::JsonNumber))?;
                $values.push(<$native>::try_from(parse_integer(text.as_bytes())?).map_err(|_| Misfit::Range)?);
            }};
        }
        match &mut self.builder {
            Builder::TextView(values) => {
                require(matches!(token, Token::Text | Token::JsonString))?;
                values.append_value(text);
            }
            Builder::Int64(values) => integer!(values, i64),
            Builder::Int32(values) => integer!(values, i32),
            Builder::Int16(values) => integer!(values, i16),
            Builder::Int8(values) => integer!(values, i8),
            Builder::UInt8(values) => integer!(values, u8),
            Builder::UInt16(values) => integer!(values, u16),
            Builder::UInt32(values) => integer!(values, u32),
            Builder::UInt64(values) => integer!(values, u64),
            Builder::Float64(values) => {
                require(matches!(token, Token::Text | Token::JsonNumber))?;
                values.push(parse_f64(text, token == Token::Text)?);
            }
            Builder::Float32(values) => {
                require(matches!(token, Token::Text | Token::JsonNumber))?;
                values.push(parse_f32(text, token == Token::Text)?);
            }
            Builder::Decimal(values, precision, scale) => {
                require(matches!(token, Token::Text | Token::JsonNumber))?;
                values.push(parse_decimal(text.as_bytes(), *precision, *scale)?);
            }
            Builder::WideDecimal(values, precision, scale) => {
                require(matches!(token, Token::Text | Token::JsonNumber))?;
                values.push(parse_wide_decimal(text.as_bytes(), *precision, *scale)?);
            }
            Builder::Interval(values) => {
                require(matches!(token, Token::Text | Token::JsonString))?;
                values.push(parse_interval(text)?);
            }
            Builder::Timestamp(values, unit) => {
                require(token == Token::Text || (token == Token::JsonNumber) == timestamps.is_number() && token != Token::JsonBoolean)?;
                values.push(timestamps.value(text, *unit)?);
            }
            Builder::Boolean(values) => {
                require(matches!(token, Token::Text | Token::JsonBoolean))?;
                values.append_value(parse_boolean(text)?);
            }
            Builder::Date(values) => {
                require(matches!(token, Token::Text | Token::JsonString))?;
                values.push(parse_date(text.as_bytes())?);
            }
            Builder::Time(values, unit) => {
                require(matches!(token, Token::Text | Token::JsonString))?;
                let nanos = parse_time(text.as_bytes())?;
                match unit {
                    TimeUnit::Nanosecond => values.push(nanos),
                    _ if nanos % 1_000 == 0 => values.push(nanos / 1_000),
                    _ => return Err(Misfit::Scale),
                }
            }
            Builder::Text(values) => {
                require(matches!(token, Token::Text | Token::JsonString))?;
                values.append_value(text);
            }
            Builder::Binary(values) => {
                require(matches!(token, Token::Text | Token::JsonString))?;
                values.append_value(parse_hex(text.as_bytes())?);
            }
            Builder::BinaryView(values) => {
                require(matches!(token, Token::Text | Token::JsonString))?;
                values.append_value(parse_hex(text.as_bytes())?);
            }
            Builder::List { .. } | Builder::Struct { .. } => return Err(Misfit::Form),
        }
        Ok(())
    }

    /// Appends bytes as they are; only for BYTEA columns of the formats `text` and `raw`.
    pub(crate) fn push_bytes(&mut self, bytes: &[u8]) -> Result<(), Misfit> {
        match &mut self.builder {
            Builder::Binary(values) => values.append_value(bytes),
            Builder::BinaryView(values) => values.append_value(bytes),
            _ => return Err(Misfit::Form),
        }
        Ok(())
    }

    /// The finished array; the column is empty again afterwards.
    pub(crate) fn finish(&mut self) -> Result<ArrayRef> {
        let data_type = self.field.data_type();
        Ok(match &mut self.builder {
            Builder::Boolean(values) => Arc::new(values.finish()),
            Builder::Int8(values) => values.finish::<Int8Type>(data_type),
            Builder::Int16(values) => values.finish::<Int16Type>(data_type),
            Builder::Int32(values) => values.finish::<Int32Type>(data_type),
            Builder::Int64(values) => values.finish::<Int64Type>(data_type),
            Builder::UInt8(values) => values.finish::<UInt8Type>(data_type),
            Builder::UInt16(values) => values.finish::<UInt16Type>(data_type),
            Builder::UInt32(values) => values.finish::<UInt32Type>(data_type),
            Builder::UInt64(values) => values.finish::<UInt64Type>(data_type),
            Builder::Float32(values) => values.finish::<Float32Type>(data_type),
            Builder::Float64(values) => values.finish::<Float64Type>(data_type),
            Builder::Decimal(values, _, _) => values.finish::<Decimal128Type>(data_type),
            Builder::WideDecimal(values, _, _) => values.finish::<Decimal256Type>(data_type),
            Builder::Interval(values) => values.finish::<IntervalMonthDayNanoType>(data_type),
            Builder::Date(values) => values.finish::<Date32Type>(data_type),
            Builder::Time(values, TimeUnit::Nanosecond) => values.finish::<Time64NanosecondType>(data_type),
            Builder::Time(values, _) => values.finish::<Time64MicrosecondType>(data_type),
            Builder::Timestamp(values, TimeUnit::Second) => values.finish::<TimestampSecondType>(data_type),
            Builder::Timestamp(values, TimeUnit::Millisecond) => values.finish::<TimestampMillisecondType>(data_type),
            Builder::Timestamp(values, TimeUnit::Microsecond) => values.finish::<TimestampMicrosecondType>(data_type),
            Builder::Timestamp(values, TimeUnit::Nanosecond) => values.finish::<TimestampNanosecondType>(data_type),
            Builder::TextView(values) => Arc::new(values.finish()),
            Builder::Text(values) => Arc::new(values.finish()),
            Builder::Binary(values) => Arc::new(values.finish()),
            Builder::BinaryView(values) => Arc::new(values.finish()),
            Builder::List { item, offsets, nulls, child } => {
                let offsets = OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(offsets, vec![0])));
                // Elements of bad rows may be NULL where the item is declared NOT NULL; they are filtered out with their row.
                let child = child.finish()?;
                let item = Arc::new(relax(item, child.data_type()));
                let list = ListArray::try_new(item, offsets, child, nulls.finish());
                Arc::new(list.map_err(|error| ConnectorError::internal("building a list column", error))?)
            }
            Builder::Struct { fields, children, nulls, rows } => {
                let arrays = children.iter_mut().map(Column::finish).collect::<Result<Vec<_>>>()?;
                let relaxed: Fields = fields.iter().zip(&arrays).map(|(field, array)| Arc::new(relax(field, array.data_type()))).collect();
                let built = StructArray::try_new_with_length(relaxed, arrays, nulls.finish(), *rows);
                *rows = 0;
                Arc::new(built.map_err(|error| ConnectorError::internal("building a struct column", error))?)
            }
        })
    }
}

fn relax(field: &FieldRef, data_type: &DataType) -> arrow::datatypes::Field {
    field.as_ref().clone().with_data_type(data_type.clone()).with_nullable(true)
}

#[inline]
fn require(fits: bool) -> Result<(), Misfit> {
    if fits { Ok(()) } else { Err(Misfit::Form) }
}

/// Gives `array` exactly the declared type, where only the nullability of nested fields differs.
pub(crate) fn restore_nested(array: ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    if array.data_type() == data_type {
        return Ok(array);
    }
    let internal = |error| ConnectorError::internal("restoring the declared type of a nested column", error);
    use arrow::array::{Array, AsArray};
    match data_type {
        DataType::List(item) => {
            let list = array.as_list::<i32>();
            let child = restore_nested(Arc::clone(list.values()), item.data_type())?;
            Ok(Arc::new(ListArray::try_new(Arc::clone(item), list.offsets().clone(), child, list.nulls().cloned()).map_err(internal)?))
        }
        DataType::Struct(fields) => {
            let parts = array.as_struct();
            let columns = fields.iter().zip(parts.columns());
            let columns = columns.map(|(field, column)| restore_nested(Arc::clone(column), field.data_type())).collect::<Result<_>>()?;
            let built = StructArray::try_new_with_length(fields.clone(), columns, parts.nulls().cloned(), parts.len());
            Ok(Arc::new(built.map_err(internal)?))
        }
        _ => Ok(array),
    }
}
