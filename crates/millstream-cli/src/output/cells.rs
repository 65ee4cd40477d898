//! Arrow values as text.

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, DurationFormat, FormatOptions};

/// Timestamps as people and PostgreSQL write them; fractions only where there are some.
const TIMESTAMP: &str = "%Y-%m-%d %H:%M:%S%.f";
const TIMESTAMP_WITH_ZONE: &str = "%Y-%m-%d %H:%M:%S%.f%:z";

fn options<'a>() -> FormatOptions<'a> {
    FormatOptions::new()
        .with_display_error(false)
        .with_null("NULL")
        .with_timestamp_format(Some(TIMESTAMP))
        .with_timestamp_tz_format(Some(TIMESTAMP_WITH_ZONE))
        .with_duration_format(DurationFormat::Pretty)
}

/// Formats the cells of one batch.
pub(crate) struct CellFormatter<'a> {
    columns: Vec<(ArrayFormatter<'a>, &'a dyn Array)>,
}

impl<'a> CellFormatter<'a> {
    /// A formatter of the batch's columns.
    ///
    /// # Errors
    /// When a column has a type that cannot be shown (none of SQL's).
    pub(crate) fn new(batch: &'a RecordBatch) -> Result<Self, ArrowError> {
        let options = options();
        let columns = batch
            .columns()
            .iter()
            .map(|column| Ok((ArrayFormatter::try_new(column.as_ref(), &options)?, column.as_ref())))
            .collect::<Result<_, ArrowError>>()?;
        Ok(Self { columns })
    }

    /// The text of a cell; `None` is NULL.
    ///
    /// # Errors
    /// When the value cannot be shown, such as a timestamp outside the calendar.
    pub(crate) fn cell(&self, row: usize, column: usize) -> Result<Option<String>, ArrowError> {
        let (formatter, array) = &self.columns[column];
        if array.is_null(row) || matches!(array.data_type(), DataType::Null) {
            return Ok(None);
        }
        formatter.value(row).try_to_string().map(Some)
    }

    /// The texts of a row.
    ///
    /// # Errors
    /// When a value cannot be shown.
    pub(crate) fn row(&self, row: usize) -> Result<Vec<Option<String>>, ArrowError> {
        (0..self.columns.len()).map(|column| self.cell(row, column)).collect()
    }
}

/// Whether a column's values are set to the right.
pub(crate) fn is_right_aligned(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_right_aligned(values),
        other => other.is_numeric(),
    }
}

/// Per column: its values are set to the right.
pub(crate) fn right_aligned(schema: &Schema) -> Vec<bool> {
    schema.fields().iter().map(|field| is_right_aligned(field.data_type())).collect()
}

/// The SQL name of a type, as `\d` and headers show it.
pub(crate) fn sql_type(data_type: &DataType) -> String {
    use arrow::datatypes::{IntervalUnit, TimeUnit};
    match data_type {
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int8 => "TINYINT".into(),
        DataType::Int16 => "SMALLINT".into(),
        DataType::Int32 => "INTEGER".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::UInt8 => "TINYINT UNSIGNED".into(),
        DataType::UInt16 => "SMALLINT UNSIGNED".into(),
        DataType::UInt32 => "INTEGER UNSIGNED".into(),
        DataType::UInt64 => "BIGINT UNSIGNED".into(),
        DataType::Float16 | DataType::Float32 => "REAL".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => "BYTEA".into(),
        DataType::Date32 | DataType::Date64 => "DATE".into(),
        DataType::Time32(_) | DataType::Time64(_) => "TIME".into(),
        DataType::Timestamp(TimeUnit::Microsecond, None) => "TIMESTAMP".into(),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => "TIMESTAMPTZ".into(),
        DataType::Timestamp(unit, zone) => {
            let digits = match unit {
                TimeUnit::Second => 0,
                TimeUnit::Millisecond => 3,
                TimeUnit::Microsecond => 6,
                TimeUnit::Nanosecond => 9,
            };
            format!("TIMESTAMP{}({digits})", if zone.is_some() { "TZ" } else { "" })
        }
        DataType::Interval(IntervalUnit::YearMonth | IntervalUnit::DayTime | IntervalUnit::MonthDayNano) => "INTERVAL".into(),
        DataType::List(field) | DataType::LargeList(field) | DataType::ListView(field) | DataType::LargeListView(field) => {
            format!("{}[]", sql_type(field.data_type()))
        }
        DataType::FixedSizeList(field, length) => format!("{}[{length}]", sql_type(field.data_type())),
        DataType::Struct(fields) => {
            let fields: Vec<String> = fields.iter().map(|field| format!("{} {}", field.name(), sql_type(field.data_type()))).collect();
            format!("STRUCT<{}>", fields.join(", "))
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => {
                format!("MAP<{}, {}>", sql_type(fields[0].data_type()), sql_type(fields[1].data_type()))
            }
            _ => "MAP".into(),
        },
        DataType::Dictionary(_, values) => sql_type(values),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Decimal128Array, Float64Array, StringViewArray, TimestampMicrosecondArray};
    use std::sync::Arc;

    #[test]
    fn values_read_like_sql() {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("ts", Arc::new(TimestampMicrosecondArray::from(vec![Some(1_500_000), None]))),
            ("tz", Arc::new(TimestampMicrosecondArray::from(vec![0, 1]).with_timezone("UTC"))),
            ("f", Arc::new(Float64Array::from(vec![1.5, f64::NAN]))),
            ("d", Arc::new(Decimal128Array::from(vec![150, -7]).with_precision_and_scale(10, 2).unwrap())),
            ("s", Arc::new(StringViewArray::from(vec![Some(""), None]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let formatter = CellFormatter::new(&batch).unwrap();
        let row: Vec<String> = formatter.row(0).unwrap().into_iter().map(Option::unwrap).collect();
        assert_eq!(row, ["1970-01-01 00:00:01.500", "1970-01-01 00:00:00+00:00", "1.5", "1.50", ""]);
        assert_eq!(formatter.cell(1, 0).unwrap(), None);
        assert_eq!(formatter.cell(1, 3).unwrap().as_deref(), Some("-0.07"));
        assert_eq!(right_aligned(&batch.schema()), [false, false, true, true, false]);
        assert_eq!(sql_type(batch.column(0).data_type()), "TIMESTAMP");
        assert_eq!(sql_type(batch.column(1).data_type()), "TIMESTAMPTZ");
    }
}
