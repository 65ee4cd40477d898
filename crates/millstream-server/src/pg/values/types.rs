//! Arrow types as types of PostgreSQL, and the few Arrow types that values are encoded from.
//!
//! | Arrow | PostgreSQL |
//! | --- | --- |
//! | Int8, UInt8, Int16; UInt16, Int32; UInt32, Int64; UInt64 | int2; int4; int8; numeric |
//! | Float16, Float32; Float64; Decimal | float4; float8; numeric |
//! | Utf8 and its kin; Binary and its kin | text; bytea |
//! | Timestamp without and with a zone, Date, Time | timestamp, timestamptz, date, time |
//! | Interval, Duration | interval |
//! | List | array of the element's type |
//! | Struct; all others | record; text |
//!
//! Nanoseconds are cut to microseconds, PostgreSQL's resolution.

use crate::pg::names::shown;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, IntervalUnit, Schema, TimeUnit};
use arrow::error::ArrowError;
use postgres_types::Type;
use std::sync::Arc;

/// What `datafusion-pg-catalog` marks columns of type `oid`, `regtype` and the like with.
const OID_ALIAS: &str = "pg.oid_alias";
/// What it marks columns of type `"char"` with.
const CHAR: &str = "pg.char";

/// A column as clients see it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Column {
    /// Its name.
    pub(crate) name: String,
    /// Its type.
    pub(crate) kind: Type,
    /// Precision and scale of a `numeric`, as PostgreSQL packs them; -1 for none.
    pub(crate) modifier: i32,
}

/// The columns of a schema.
pub(crate) fn columns(schema: &Schema) -> Vec<Column> {
    let modifier = |field: &Field| match field.data_type() {
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            ((i32::from(*precision) << 16) | (i32::from(*scale) & 0x7ff)) + 4
        }
        _ => -1,
    };
    let column = |field: &Arc<Field>| Column { name: shown(field.name()).to_string(), kind: field_type(field), modifier: modifier(field) };
    schema.fields().iter().map(column).collect()
}

/// The type of a column.
pub(crate) fn field_type(field: &Field) -> Type {
    // A cast to text keeps the mark and is a text all the same.
    if let Some(kind) = field.metadata().get(OID_ALIAS).filter(|_| field.data_type().is_integer()) {
        return match kind.as_str() {
            "regclass" => Type::REGCLASS,
            "regtype" => Type::REGTYPE,
            "regproc" => Type::REGPROC,
            "regnamespace" => Type::REGNAMESPACE,
            "regrole" => Type::REGROLE,
            _ => Type::OID,
        };
    }
    if field.metadata().contains_key(CHAR) && *field.data_type() == DataType::Utf8 {
        return Type::CHAR;
    }
    data_type(field.data_type())
}

/// The type of values.
pub(crate) fn data_type(arrow: &DataType) -> Type {
    match arrow {
        DataType::Boolean => Type::BOOL,
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => Type::INT2,
        DataType::UInt16 | DataType::Int32 => Type::INT4,
        DataType::UInt32 | DataType::Int64 => Type::INT8,
        DataType::UInt64 | DataType::Decimal32(..) | DataType::Decimal64(..) => Type::NUMERIC,
        DataType::Decimal128(..) | DataType::Decimal256(..) => Type::NUMERIC,
        DataType::Float16 | DataType::Float32 => Type::FLOAT4,
        DataType::Float64 => Type::FLOAT8,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => Type::BYTEA,
        DataType::Date32 | DataType::Date64 => Type::DATE,
        DataType::Time32(_) | DataType::Time64(_) => Type::TIME,
        DataType::Timestamp(_, None) => Type::TIMESTAMP,
        DataType::Timestamp(_, Some(_)) => Type::TIMESTAMPTZ,
        DataType::Interval(_) | DataType::Duration(_) => Type::INTERVAL,
        DataType::Dictionary(_, value) => data_type(value),
        DataType::RunEndEncoded(_, value) => data_type(value.data_type()),
        DataType::Struct(_) => Type::RECORD,
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => array_of(&data_type(item.data_type())),
        _ => Type::TEXT,
    }
}

/// The type of arrays; an array of arrays has the type of its elements' array.
fn array_of(element: &Type) -> Type {
    match *element {
        Type::BOOL => Type::BOOL_ARRAY,
        Type::INT2 => Type::INT2_ARRAY,
        Type::INT4 => Type::INT4_ARRAY,
        Type::INT8 => Type::INT8_ARRAY,
        Type::NUMERIC => Type::NUMERIC_ARRAY,
        Type::FLOAT4 => Type::FLOAT4_ARRAY,
        Type::FLOAT8 => Type::FLOAT8_ARRAY,
        Type::BYTEA => Type::BYTEA_ARRAY,
        Type::DATE => Type::DATE_ARRAY,
        Type::TIME => Type::TIME_ARRAY,
        Type::TIMESTAMP => Type::TIMESTAMP_ARRAY,
        Type::TIMESTAMPTZ => Type::TIMESTAMPTZ_ARRAY,
        Type::INTERVAL => Type::INTERVAL_ARRAY,
        Type::RECORD => Type::RECORD_ARRAY,
        _ => Type::TEXT_ARRAY,
    }
}

/// The Arrow type of a parameter whose type the client names; `None` for types that say nothing about it.
pub(crate) fn parameter_type(kind: &Type) -> Option<DataType> {
    Some(match *kind {
        Type::BOOL => DataType::Boolean,
        Type::INT2 => DataType::Int16,
        Type::INT4 => DataType::Int32,
        Type::INT8 | Type::OID => DataType::Int64,
        Type::FLOAT4 => DataType::Float32,
        Type::FLOAT8 => DataType::Float64,
        Type::BYTEA => DataType::Binary,
        Type::DATE => DataType::Date32,
        Type::TIME => DataType::Time64(TimeUnit::Microsecond),
        Type::TIMESTAMP => DataType::Timestamp(TimeUnit::Microsecond, None),
        Type::TIMESTAMPTZ => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Type::INTERVAL => DataType::Interval(IntervalUnit::MonthDayNano),
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::JSON | Type::JSONB | Type::UUID => DataType::Utf8,
        _ => match element_type(kind) {
            Some(element) => DataType::List(Arc::new(Field::new_list_field(parameter_type(&element)?, true))),
            // Of `numeric` neither precision nor scale is known.
            None => return None,
        },
    })
}

/// The type of an array's elements.
pub(crate) fn element_type(kind: &Type) -> Option<Type> {
    match kind.kind() {
        postgres_types::Kind::Array(element) => Some(element.clone()),
        _ => None,
    }
}

/// Bytes that a value takes in memory, or a negative number where values differ (`pg_type.typlen`).
pub(crate) fn type_size(kind: &Type) -> i16 {
    match *kind {
        Type::BOOL | Type::CHAR => 1,
        Type::INT2 => 2,
        Type::INT4 | Type::FLOAT4 | Type::DATE | Type::OID | Type::REGCLASS | Type::REGTYPE | Type::REGPROC => 4,
        Type::REGNAMESPACE | Type::REGROLE => 4,
        Type::INT8 | Type::FLOAT8 | Type::TIME | Type::TIMESTAMP | Type::TIMESTAMPTZ => 8,
        Type::INTERVAL => 16,
        _ => -1,
    }
}

/// The type that values of a type are encoded from.
fn normal(arrow: &DataType) -> DataType {
    let list = |item: &Arc<Field>| DataType::List(Arc::new(item.as_ref().clone().with_data_type(normal(item.data_type()))));
    match arrow {
        DataType::Int8 | DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => DataType::Decimal128(*precision, *scale),
        DataType::Float16 => DataType::Float32,
        DataType::LargeUtf8 => DataType::Utf8View,
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Date64 => DataType::Date32,
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::Interval(_) => DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::Duration(_) => DataType::Duration(TimeUnit::Microsecond),
        DataType::Dictionary(_, value) => normal(value),
        DataType::RunEndEncoded(_, value) => normal(value.data_type()),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => list(item),
        DataType::ListView(item) | DataType::LargeListView(item) => list(item),
        other => other.clone(),
    }
}

/// The columns of a batch in the types that values are encoded from.
///
/// # Errors
/// When a value does not fit, such as a number of nanoseconds out of range.
pub(crate) fn normal_columns(batch: &RecordBatch) -> Result<Vec<ArrayRef>, ArrowError> {
    batch.columns().iter().map(normal_array).collect()
}

/// As [`normal_columns`], for one.
///
/// # Errors
/// As [`normal_columns`].
pub(crate) fn normal_array(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let wanted = normal(array.data_type());
    if *array.data_type() == wanted {
        return Ok(Arc::clone(array));
    }
    let options = arrow::compute::CastOptions { safe: false, ..Default::default() };
    arrow::compute::cast_with_options(array, &wanted, &options)
}
