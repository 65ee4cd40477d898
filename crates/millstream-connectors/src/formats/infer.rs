//! Finds columns and types: from stored schemas, or from the first rows of CSV and JSON.
//!
//! Types are the narrowest of BOOLEAN, BIGINT, DOUBLE, DATE, TIMESTAMP, VARCHAR that hold every value seen; numbers beyond BIGINT and
//! columns without a value are VARCHAR in CSV. JSON objects become structs, arrays lists. Everything is nullable.

use super::column::Token;
use super::csv::split_record;
use super::scalar::{parse_boolean, parse_date, parse_f64, parse_integer};
use super::timestamp::TimestampFormat;
use super::{Format, FormatOptions, LineBatch};
use crate::error::{ConnectorError, Result};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use serde_json::Value;
use std::sync::Arc;

/// The columns of a Parquet, Arrow or Avro file with Millstream's types: text as views, dictionaries resolved, times in microseconds
/// (nanoseconds stay, since they may not fit).
pub fn stored_schema(stored: &Schema) -> SchemaRef {
    Arc::new(Schema::new(stored.fields().iter().map(|field| stored_field(field)).collect::<Vec<_>>()))
}

fn stored_field(field: &Field) -> Field {
    Field::new(field.name(), stored_type(field.data_type()), true)
}

fn stored_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Null => DataType::Utf8View,
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Dictionary(_, value) => stored_type(value),
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => DataType::Decimal128(*precision, *scale),
        DataType::Time32(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(unit, zone) => {
            let unit = if *unit == TimeUnit::Nanosecond { TimeUnit::Nanosecond } else { TimeUnit::Microsecond };
            DataType::Timestamp(unit, zone.as_ref().map(|_| "UTC".into()))
        }
        DataType::List(item) | DataType::LargeList(item) => DataType::List(Arc::new(stored_field(item))),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(|field| Arc::new(stored_field(field))).collect::<Fields>()),
        other => other.clone(),
    }
}

/// What the values of a column have in common so far.
#[derive(Debug, Clone, PartialEq)]
enum Shape {
    /// No value yet.
    Unknown,
    Boolean,
    Integer,
    Float,
    Date,
    Timestamp,
    ZonedTimestamp,
    Text,
    List(Box<Shape>),
    Struct(Vec<(String, Shape)>),
}

impl Shape {
    fn join(self, other: Shape) -> Shape {
        match (self, other) {
            (Shape::Unknown, shape) | (shape, Shape::Unknown) => shape,
            (left, right) if left == right => left,
            (Shape::Integer, Shape::Float) | (Shape::Float, Shape::Integer) => Shape::Float,
            (Shape::Date, Shape::Timestamp) | (Shape::Timestamp, Shape::Date) => Shape::Timestamp,
            (Shape::ZonedTimestamp, Shape::Timestamp | Shape::Date) | (Shape::Timestamp | Shape::Date, Shape::ZonedTimestamp) => {
                Shape::ZonedTimestamp
            }
            (Shape::List(left), Shape::List(right)) => Shape::List(Box::new(left.join(*right))),
            (Shape::Struct(mut fields), Shape::Struct(more)) => {
                for (name, shape) in more {
                    match fields.iter_mut().find(|(known, _)| *known == name) {
                        Some((_, known)) => *known = std::mem::replace(known, Shape::Unknown).join(shape),
                        None => fields.push((name, shape)),
                    }
                }
                Shape::Struct(fields)
            }
            // A VARCHAR takes objects and arrays as text, but numbers beside strings make bad rows, which then say so.
            _ => Shape::Text,
        }
    }

    fn data_type(&self) -> DataType {
        match self {
            Shape::Boolean => DataType::Boolean,
            Shape::Integer => DataType::Int64,
            Shape::Float => DataType::Float64,
            Shape::Date => DataType::Date32,
            Shape::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Shape::ZonedTimestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Shape::Unknown | Shape::Text => DataType::Utf8View,
            Shape::List(item) => DataType::List(Arc::new(Field::new("item", item.data_type(), true))),
            Shape::Struct(fields) => {
                DataType::Struct(fields.iter().map(|(name, shape)| Arc::new(Field::new(name, shape.data_type(), true))).collect::<Fields>())
            }
        }
    }
}

fn text_shape(text: &str, token: Token, timestamps: &TimestampFormat) -> Shape {
    if token == Token::Text {
        if parse_integer(text.as_bytes()).is_ok_and(|value| i64::try_from(value).is_ok()) && !(timestamps.is_number()) {
            return Shape::Integer;
        }
        if parse_integer(text.as_bytes()).is_err() && parse_f64(text, false).is_ok() {
            return Shape::Float;
        }
        if parse_boolean(text).is_ok() && text.len() > 1 {
            return Shape::Boolean;
        }
    }
    if parse_date(text.as_bytes()).is_ok() && *timestamps == TimestampFormat::Iso {
        return Shape::Date;
    }
    match (timestamps, timestamps.value(text, TimeUnit::Microsecond).is_ok()) {
        (TimestampFormat::Iso, true) => {
            let zoned = text.ends_with(['Z', 'z']) || text.get(19..).is_some_and(|rest| rest.contains(['+', '-']));
            if zoned { Shape::ZonedTimestamp } else { Shape::Timestamp }
        }
        (TimestampFormat::Pattern(_), true) => Shape::Timestamp,
        // Any number could be an epoch time, so that a name has to be declared to be one.
        _ if token == Token::Text && parse_integer(text.as_bytes()).is_ok_and(|value| i64::try_from(value).is_ok()) => Shape::Integer,
        _ => Shape::Text,
    }
}

fn json_shape(value: &Value, timestamps: &TimestampFormat) -> Shape {
    match value {
        Value::Null => Shape::Unknown,
        Value::Bool(_) => Shape::Boolean,
        Value::Number(number) if number.is_i64() => Shape::Integer,
        Value::Number(_) => Shape::Float,
        Value::String(text) => text_shape(text, Token::JsonString, timestamps),
        Value::Array(items) => {
            let joined = items.iter().map(|item| json_shape(item, timestamps)).fold(Shape::Unknown, Shape::join);
            Shape::List(Box::new(joined))
        }
        Value::Object(fields) => Shape::Struct(fields.iter().map(|(name, value)| (name.clone(), json_shape(value, timestamps))).collect()),
    }
}

/// The columns of the first lines of an input at `place`.
///
/// # Errors
/// When no row can be read, or columns have no or equal names.
pub fn infer_lines(options: &FormatOptions, lines: &LineBatch, place: &str) -> Result<SchemaRef> {
    let refused = |problem: String| ConnectorError::Data {
        place: place.to_string(),
        problem,
        hint: Some("Declare the columns in CREATE STREAM.".into()),
    };
    let texts = || lines.lines.iter().filter_map(|line| std::str::from_utf8(line.of(&lines.bytes)).ok());
    let columns = match options.format {
        Format::Text => vec![("line".to_string(), Shape::Text)],
        Format::Raw => return Ok(Arc::new(Schema::new(vec![Field::new("line", DataType::Binary, true)]))),
        Format::Csv => {
            let mut records = texts().filter_map(|text| split_record(text, options.delimiter, options.quote).ok()).peekable();
            let names: Vec<String> = match (options.header, records.peek()) {
                (_, None) => return Err(refused("has no rows that could tell the columns".into())),
                (true, Some(_)) => records.next().unwrap_or_default(),
                (false, Some(first)) => (1..=first.len()).map(|number| format!("column_{number}")).collect(),
            };
            let mut columns: Vec<_> = names.into_iter().map(|name| (name, Shape::Unknown)).collect();
            let width = columns.len();
            for record in records.filter(|record| record.len() == width) {
                for ((_, shape), text) in columns.iter_mut().zip(&record) {
                    if *text != options.null {
                        let seen = text_shape(text, Token::Text, &options.timestamp_format);
                        *shape = std::mem::replace(shape, Shape::Unknown).join(seen);
                    }
                }
            }
            columns
        }
        _ => {
            let rows = texts().filter_map(|text| serde_json::from_str::<Value>(text).ok());
            let shape = rows.filter(Value::is_object).map(|row| json_shape(&row, &options.timestamp_format));
            match shape.fold(Shape::Unknown, Shape::join) {
                Shape::Struct(fields) => fields,
                _ => return Err(refused("has no JSON object that could tell the columns".into())),
            }
        }
    };
    for (index, (name, _)) in columns.iter().enumerate() {
        if name.is_empty() || columns[..index].iter().any(|(other, _)| other == name) {
            return Err(refused(format!("names the column \"{name}\" twice or not at all")));
        }
    }
    let fields = columns.iter().map(|(name, shape)| Field::new(name, shape.data_type(), true));
    Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
}
