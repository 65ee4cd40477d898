//! Columns and values of the random tables: few values per type, so that keys collide and groups empty.

use arrow::array::TimestampMicrosecondArray;
use arrow::array::{ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use rand::Rng;
use rand::rngs::SmallRng;
use std::sync::Arc;

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Type {
    Int,
    /// Multiples of a quarter, so that sums are exact in whatever order they are taken.
    Float,
    /// A float that came out of a division: the same bits on both sides, but not to be summed.
    Quotient,
    Text,
    Bool,
    Decimal,
    Time,
    Date,
}

impl Type {
    /// Types of table columns.
    pub(super) const COLUMNS: [Type; 7] = [Type::Int, Type::Text, Type::Float, Type::Bool, Type::Decimal, Type::Time, Type::Date];

    /// The type's name in SQL.
    pub(super) fn sql(self) -> &'static str {
        match self {
            Type::Int => "BIGINT",
            Type::Float | Type::Quotient => "DOUBLE",
            Type::Text => "VARCHAR",
            Type::Bool => "BOOLEAN",
            Type::Decimal => "DECIMAL(10, 2)",
            Type::Time => "TIMESTAMP",
            Type::Date => "DATE",
        }
    }

    fn arrow(self) -> DataType {
        match self {
            Type::Int => DataType::Int64,
            Type::Float | Type::Quotient => DataType::Float64,
            Type::Text => DataType::Utf8View,
            Type::Bool => DataType::Boolean,
            Type::Decimal => DataType::Decimal128(10, 2),
            Type::Time => DataType::Timestamp(TimeUnit::Microsecond, None),
            Type::Date => DataType::Date32,
        }
    }
}

/// A column of a table or of a query.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Type,
}

/// 2000-01-01T00:00:00Z.
pub(super) const BASE_MICROS: i64 = 946_684_800_000_000;
const BASE_DAY: i32 = 10_957;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Int(i64),
    Float(f64),
    Text(&'static str),
    Bool(bool),
    /// In hundredths.
    Decimal(i128),
    /// Microseconds.
    Time(i64),
    /// Days.
    Date(i32),
}

/// One row.
pub(super) type Row = Vec<Value>;

impl Value {
    /// A value of the type, or NULL.
    pub(super) fn random(rng: &mut SmallRng, kind: Type) -> Value {
        if rng.random_ratio(1, 7) { Value::Null } else { Value::random_known(rng, kind) }
    }

    /// A value of the type that is not NULL.
    pub(super) fn random_known(rng: &mut SmallRng, kind: Type) -> Value {
        match kind {
            Type::Int if rng.random_ratio(1, 20) => Value::Int(1_000_000),
            Type::Int => Value::Int(rng.random_range(-2..=4)),
            Type::Float if rng.random_ratio(1, 25) => Value::Float([f64::NAN, f64::INFINITY, f64::NEG_INFINITY][rng.random_range(0..3)]),
            Type::Float | Type::Quotient => Value::Float([-1.5, -0.0, 0.0, 0.25, 2.0, 3.5, 100.0][rng.random_range(0..7)]),
            Type::Text => Value::Text(["a", "b", "c", "", "Ab", "long enough to live outside of the view"][rng.random_range(0..6)]),
            Type::Bool => Value::Bool(rng.random()),
            Type::Decimal => Value::Decimal(rng.random_range(-3..=3) * 125),
            Type::Time => Value::Time(BASE_MICROS + rng.random_range(0..12) * 5_000_000),
            Type::Date => Value::Date(BASE_DAY + rng.random_range(0..4)),
        }
    }

    /// As CSV of a script.
    pub(super) fn csv(&self) -> String {
        match self {
            Value::Null => "NULL".into(),
            Value::Int(value) => value.to_string(),
            Value::Float(value) => format!("{value:?}"),
            Value::Text(value) => format!("\"{value}\""),
            Value::Bool(value) => value.to_string(),
            Value::Decimal(value) => format!("{}{}.{:02}", if *value < 0 { "-" } else { "" }, value.abs() / 100, value.abs() % 100),
            Value::Time(value) => {
                let seconds = (value - BASE_MICROS) / 1_000_000;
                format!("2000-01-01 00:{:02}:{:02}", seconds / 60, seconds % 60)
            }
            Value::Date(value) => format!("2000-01-{:02}", value - BASE_DAY + 1),
        }
    }

    /// Something that is equal for equal values, to find a row again.
    pub(super) fn identity(&self) -> String {
        match self {
            // One zero.
            Value::Float(value) => format!("{:?}", value + 0.0),
            other => other.csv(),
        }
    }
}

/// The schema of columns.
pub(super) fn schema(columns: &[Column]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(|column| Field::new(&column.name, column.kind.arrow(), true)).collect::<Vec<_>>()))
}

/// Rows as a batch.
pub(super) fn batch(columns: &[Column], rows: &[Row]) -> RecordBatch {
    let arrays = columns.iter().enumerate().map(|(index, column)| array(column.kind, rows.iter().map(|row| &row[index]))).collect();
    RecordBatch::try_new(schema(columns), arrays).expect("the arrays have the types of the schema")
}

fn array<'a>(kind: Type, values: impl Iterator<Item = &'a Value>) -> ArrayRef {
    macro_rules! collect {
        ($array:ty, $variant:ident) => {
            values
                .map(|value| match value {
                    Value::$variant(value) => Some(*value),
                    _ => None,
                })
                .collect::<$array>()
        };
    }
    match kind {
        Type::Int => Arc::new(collect!(Int64Array, Int)),
        Type::Float | Type::Quotient => Arc::new(collect!(Float64Array, Float)),
        Type::Text => Arc::new(collect!(StringViewArray, Text)),
        Type::Bool => Arc::new(collect!(BooleanArray, Bool)),
        Type::Decimal => Arc::new(collect!(Decimal128Array, Decimal).with_precision_and_scale(10, 2).expect("ten digits are enough")),
        Type::Time => Arc::new(collect!(TimestampMicrosecondArray, Time)),
        Type::Date => Arc::new(collect!(Date32Array, Date)),
    }
}
