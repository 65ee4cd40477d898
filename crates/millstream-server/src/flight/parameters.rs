//! Values of parameters: rows of Arrow batches as literals that then stand in the statement.
//!
//! A value keeps the type it is sent with: `CAST('5' AS BIGINT)`. It is always the content of one string literal, never part of the
//! statement's grammar. A column of type Null takes the type of its place.

use crate::error::{RequestError, codes};
use crate::pg::{cast, text_literal};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast as cast_array;
use arrow::datatypes::{DataType, DurationMicrosecondType, IntervalUnit, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use sqlparser::ast::{self, Expr, Value};
use std::sync::Arc;

/// The rows of batches as literals, one list per row.
///
/// # Errors
/// When a column is of a type that SQL has no literal for.
pub(super) fn literals(batches: &[RecordBatch], wanted: &[DataType]) -> Result<Vec<Vec<Expr>>, RequestError> {
    let mut rows = Vec::new();
    for batch in batches {
        let first = rows.len();
        rows.resize_with(first + batch.num_rows(), || Vec::with_capacity(batch.num_columns()));
        for (index, column) in batch.columns().iter().enumerate() {
            let target = sent_as(column.data_type()).or_else(|| wanted.get(index).cloned()).unwrap_or(DataType::Utf8);
            let literals = column_literals(column, &target).map_err(|message| {
                RequestError::new(codes::BAD_VALUE, format!("parameter ${}: {message}", index + 1), "Send it as text and CAST it.")
            })?;
            for (row, literal) in rows[first..].iter_mut().zip(literals) {
                row.push(literal);
            }
        }
    }
    Ok(rows)
}

/// The type that values of an Arrow type are in SQL; `None` for NULLs without one.
pub(super) fn sent_as(data_type: &DataType) -> Option<DataType> {
    Some(match data_type {
        DataType::Null => return None,
        DataType::Dictionary(_, value) => return sent_as(value),
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Float16 => DataType::Float32,
        DataType::Date64 => DataType::Date32,
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Duration(_) | DataType::Interval(_) => DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(*unit, Some(Arc::from("UTC"))),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            DataType::new_list(sent_as(item.data_type()).unwrap_or(DataType::Utf8), true)
        }
        other => other.clone(),
    })
}

fn column_literals(column: &dyn Array, target: &DataType) -> Result<Vec<Expr>, String> {
    let null = || cast(Expr::value(Value::Null), target).map_err(|error| error.to_string());
    if let DataType::List(item) = target {
        let list = cast_array(column, target).map_err(|error| error.to_string())?;
        let list = list.as_list::<i32>();
        let rows = (0..list.len()).map(|row| {
            if list.is_null(row) {
                return null();
            }
            let elem = column_literals(list.value(row).as_ref(), item.data_type())?;
            cast(Expr::Array(ast::Array { elem, named: true }), target).map_err(|error| error.to_string())
        });
        return rows.collect();
    }
    if let DataType::Struct(_) | DataType::Map(..) | DataType::Union(..) | DataType::RunEndEncoded(..) = column.data_type() {
        return Err(format!("a parameter cannot be of type {}", column.data_type()));
    }
    let as_sent = match (column.data_type(), target) {
        (DataType::Duration(_), _) => cast_array(column, &DataType::Duration(TimeUnit::Microsecond)),
        (DataType::Null | DataType::Interval(_), _) => Ok(arrow::array::make_array(column.to_data())),
        _ => cast_array(column, target),
    };
    let as_sent = as_sent.map_err(|error| error.to_string())?;
    let options = FormatOptions::new();
    let formatter = ArrayFormatter::try_new(as_sent.as_ref(), &options).map_err(|error| error.to_string())?;
    let rows = (0..as_sent.len()).map(|row| {
        if as_sent.is_null(row) || *as_sent.data_type() == DataType::Null {
            return null();
        }
        let text = match as_sent.data_type() {
            DataType::Duration(_) => duration(as_sent.as_primitive::<DurationMicrosecondType>().value(row)),
            DataType::Binary => {
                let hex: String = as_sent.as_binary::<i32>().value(row).iter().map(|byte| format!("{byte:02x}")).collect();
                return Ok(Expr::value(Value::HexStringLiteral(hex)));
            }
            _ => formatter.value(row).try_to_string().map_err(|error| error.to_string())?,
        };
        text_literal(text, target).map_err(|error| error.to_string())
    });
    rows.collect()
}

fn duration(microseconds: i64) -> String {
    let (seconds, rest) = (microseconds / 1_000_000, (microseconds % 1_000_000).abs());
    let sign = if microseconds < 0 && seconds == 0 { "-" } else { "" };
    format!("{sign}{seconds}.{rest:06} seconds")
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::*;

    fn shown(array: impl Array + 'static) -> String {
        let batch = RecordBatch::try_from_iter_with_nullable([("p", Arc::new(array) as ArrayRef, true)]).unwrap();
        let rows = literals(&[batch], &[DataType::Date32]);
        rows.map_or_else(|error| error.message, |rows| rows.iter().flatten().map(ToString::to_string).collect::<Vec<_>>().join(" | "))
    }

    #[test]
    fn values_keep_their_types() {
        assert_eq!(shown(Int64Array::from(vec![Some(5), None])), "CAST('5' AS BIGINT) | CAST(NULL AS BIGINT)");
        assert_eq!(shown(StringViewArray::from(vec!["x'); DROP TABLE t; --"])), "'x''); DROP TABLE t; --'");
        assert_eq!(shown(LargeStringArray::from(vec!["é"])), "'é'");
        assert_eq!(shown(NullArray::new(1)), "CAST(NULL AS DATE)");
        assert_eq!(shown(BinaryViewArray::from(vec![&b"\x00\xff"[..]])), "X'00ff'");
        let decimal = Decimal128Array::from(vec![150]).with_precision_and_scale(10, 2).unwrap();
        assert_eq!(shown(decimal), "CAST('1.50' AS DECIMAL(10,2))");
        assert_eq!(shown(TimestampMicrosecondArray::from(vec![5])), "CAST('1970-01-01T00:00:00.000005' AS TIMESTAMP)");
        assert_eq!(
            shown(TimestampMillisecondArray::from(vec![5]).with_timezone("Europe/Berlin")),
            "CAST('1970-01-01T00:00:00.005Z' AS TIMESTAMPTZ(3))"
        );
        assert_eq!(shown(Time32SecondArray::from(vec![61])), "CAST('00:01:01' AS TIME)");
        assert_eq!(shown(DurationMillisecondArray::from(vec![-1500])), "CAST('-1.500000 seconds' AS INTERVAL)");
        let words: DictionaryArray<arrow::datatypes::Int8Type> = vec![Some("a"), None].into_iter().collect();
        assert_eq!(shown(words), "'a' | CAST(NULL AS VARCHAR)");
    }

    #[test]
    fn lists_are_taken_apart_and_structures_refused() {
        let list = ListArray::from_iter_primitive::<arrow::datatypes::Int32Type, _, _>([Some(vec![Some(1), None]), None]);
        assert_eq!(shown(list), "CAST(ARRAY[CAST('1' AS INT), CAST(NULL AS INT)] AS INT[]) | CAST(NULL AS INT[])");
        let one: ArrayRef = Arc::new(Int32Array::from(vec![1]));
        let structure = StructArray::from(vec![(Arc::new(arrow::datatypes::Field::new("a", DataType::Int32, true)), one)]);
        assert!(shown(structure).starts_with("parameter $1: a parameter cannot be of type Struct"));
    }
}
