//! Rows that belong together: all of them fit, or none are taken and the first that does not is named.
//!
//! This is how rows of a request are decoded (HTTP, Arrow Flight SQL, `COPY .. FROM STDIN`), by the decoders and conversions of the
//! sources: what is a bad row there refuses the request here. **In**: bytes of lines, texts, or Arrow batches. **Out**: batches of the
//! declared columns. **Errors**: a [`Refusal`].

use super::column::{Column, Token};
use super::exact::{conversion_by_value, convert, misfit};
use super::{Decoder, FormatOptions, LineBatch, LineSplitter, TimestampFormat, restore_nested, shorten, sql_type};
use crate::error::ConnectorError;
use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions as DisplayOptions};
use std::fmt;
use std::sync::Arc;

/// Rows that are turned into one batch.
const BATCH_ROWS: usize = 8_192;

/// Why rows were not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The first row that does not fit, from 1; `None` where no single row is at fault.
    pub row: Option<u64>,
    /// The line it begins in, from 1, where rows are lines.
    pub line: Option<u64>,
    /// Names column, value and expected type.
    pub reason: String,
}

impl Refusal {
    fn of_all(reason: impl Into<String>) -> Self {
        Self { row: None, line: None, reason: reason.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.row, self.line) {
            (Some(row), Some(line)) => write!(f, "row {row} (line {line}): {}", self.reason),
            (Some(row), None) => write!(f, "row {row}: {}", self.reason),
            (None, Some(line)) => write!(f, "line {line}: {}", self.reason),
            (None, None) => f.write_str(&self.reason),
        }
    }
}

impl std::error::Error for Refusal {}

impl From<ConnectorError> for Refusal {
    fn from(error: ConnectorError) -> Self {
        Self::of_all(error.to_string())
    }
}

/// Decodes `body`, whose rows are lines. Of CSV with a header its first line is that.
///
/// # Errors
/// The first row that does not fit, or a header that does not.
pub fn decode_lines(schema: &SchemaRef, options: &FormatOptions, body: &[u8]) -> Result<Vec<RecordBatch>, Refusal> {
    let mut lines = LineBatch::default();
    let mut splitter = LineSplitter::new(options.split_options());
    splitter.push(body, &mut lines);
    splitter.finish(&mut lines);
    decode(schema, options, &lines, true)
}

/// Decodes rows that were cut apart already; their lines mean nothing to who wrote them.
///
/// # Errors
/// The first row that does not fit.
pub fn decode_rows(schema: &SchemaRef, options: &FormatOptions, rows: &LineBatch) -> Result<Vec<RecordBatch>, Refusal> {
    decode(schema, options, rows, false)
}

fn decode(schema: &SchemaRef, options: &FormatOptions, lines: &LineBatch, with_lines: bool) -> Result<Vec<RecordBatch>, Refusal> {
    let mut decoder = Decoder::new(Arc::clone(schema), None, options)?;
    let mut rows = lines.lines.as_slice();
    if let (true, Some((header, rest))) = (decoder.needs_header(), rows.split_first()) {
        decoder.set_header(header.of(&lines.bytes));
        if let Some(problem) = decoder.header_problem() {
            return Err(Refusal { row: None, line: Some(header.number), reason: problem.to_string() });
        }
        rows = rest;
    }
    let mut batches = Vec::with_capacity(rows.len().div_ceil(BATCH_ROWS));
    for (part, chunk) in rows.chunks(BATCH_ROWS).enumerate() {
        let decoded = decoder.decode_lines(&lines.bytes, chunk)?;
        if let Some(bad) = decoded.bad.into_iter().next() {
            let row = (part * BATCH_ROWS + bad.index) as u64 + 1;
            return Err(Refusal { row: Some(row), line: with_lines.then_some(bad.line), reason: bad.reason });
        }
        batches.push(decoded.batch);
    }
    Ok(batches)
}

/// Texts as a column, by the rules of CSV fields: a list or struct has no text.
///
/// # Errors
/// The first text that is no value of the type, or a type that has no text.
pub fn text_column<'a>(field: &FieldRef, texts: impl IntoIterator<Item = Option<&'a str>>) -> Result<ArrayRef, Refusal> {
    let mut column = Column::new(field, "text")?;
    for (row, text) in texts.into_iter().enumerate() {
        match text {
            None => column.push_null(),
            Some(text) => column.push(Token::Text, text, &TimestampFormat::Iso).map_err(|misfit| Refusal {
                row: Some(row as u64 + 1),
                line: None,
                reason: misfit.reason(field.name(), text, field.data_type()),
            })?,
        }
    }
    Ok(column.finish()?)
}

/// Arrow batches with each value exactly as it was, in the types of the columns of `schema`. Columns that it does not have are left as
/// they are, and those that the batches do not have are not added: who inserts the rows knows more about both.
///
/// # Errors
/// The first value that does not fit, or a column whose type does not.
pub fn exact_batches(batches: &[RecordBatch], schema: &Schema) -> Result<Vec<RecordBatch>, Refusal> {
    let mut first_row = 0;
    let mut converted = Vec::with_capacity(batches.len());
    for batch in batches {
        let mut fields = Vec::with_capacity(batch.num_columns());
        let mut columns = Vec::with_capacity(batch.num_columns());
        for (sent, array) in batch.schema().fields().iter().zip(batch.columns()) {
            let (array, field) = match schema.field_with_name(sent.name()) {
                Ok(field) => (exact_column(array, field, first_row)?, field.clone()),
                Err(_) => (Arc::clone(array), sent.as_ref().clone()),
            };
            columns.push(array);
            fields.push(field);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options);
        let batch = batch.map_err(|error| ConnectorError::internal("assembling converted rows", error))?;
        first_row += batch.num_rows();
        converted.push(batch);
    }
    Ok(converted)
}

fn exact_column(array: &ArrayRef, field: &Field, first_row: usize) -> Result<ArrayRef, Refusal> {
    let how = conversion_by_value(array.data_type(), field.data_type()).ok_or_else(|| {
        let (name, sent, wanted) = (field.name(), sql_type(array.data_type()), sql_type(field.data_type()));
        Refusal::of_all(format!("column \"{name}\" is sent as {sent}, which cannot become {wanted} without loss"))
    })?;
    let (column, bad) = convert(array, &how, field)?;
    if let Some(row) = bad.and_then(|bad| bad.set_indices().next()) {
        let options = DisplayOptions::default().with_null("NULL");
        let shown =
            ArrayFormatter::try_new(array.as_ref(), &options).map_or_else(|_| "?".to_string(), |shown| shown.value(row).to_string());
        let reason = misfit(array, &how, row).reason(field.name(), &shorten(&shown), field.data_type());
        return Err(Refusal { row: Some((first_row + row) as u64 + 1), line: None, reason });
    }
    Ok(restore_nested(column, field.data_type())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::Format;
    use arrow::array::*;
    use arrow::datatypes::{DataType, Fields, Int32Type, IntervalUnit, TimeUnit, i256};
    use arrow::util::pretty::pretty_format_batches;

    fn one(data_type: &DataType) -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("v", data_type.clone(), true)]))
    }

    fn options(format: Format) -> FormatOptions {
        FormatOptions { known_fields_only: true, ..FormatOptions::new(format) }
    }

    fn shown(rows: Result<Vec<RecordBatch>, Refusal>) -> String {
        let cell = |batches: Vec<RecordBatch>| {
            let table = pretty_format_batches(&batches).unwrap().to_string();
            table
                .lines()
                .skip(3)
                .filter(|line| line.starts_with('|'))
                .map(|line| line.trim_matches(['|', ' ']))
                .collect::<Vec<_>>()
                .join(" ")
        };
        rows.map_or_else(|refusal| refusal.to_string(), cell)
    }

    fn of_json(data_type: &DataType, value: &str) -> String {
        shown(decode_lines(&one(data_type), &options(Format::Json), format!("{{\"v\":{value}}}\n").as_bytes()))
    }

    fn of_csv(data_type: &DataType, value: &str) -> String {
        shown(decode_lines(&one(data_type), &options(Format::Csv), format!("v\n{value}\n").as_bytes()))
    }

    fn micros(zone: Option<&str>) -> DataType {
        DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into))
    }

    /// A type, a JSON value that it takes, how that is shown, and values with the reasons why they are not taken.
    type Case = (DataType, &'static str, &'static str, Vec<(&'static str, &'static str)>);

    /// For every type of a column: a JSON value that it takes, how it is shown, and JSON values that it does not take, with the reason.
    fn cases() -> Vec<Case> {
        use DataType::*;
        let not = |value, what| (value, what);
        let point = Struct(Fields::from(vec![Field::new("x", Int32, true)]));
        let interval = Interval(IntervalUnit::MonthDayNano);
        vec![
            (Boolean, "true", "true", vec![not("1", "'1' is not a valid BOOLEAN"), not("\"true\"", "'true' is not a valid BOOLEAN")]),
            (Int8, "-128", "-128", vec![not("128", "'128' is out of range for TINYINT"), not("1.0", "'1.0' is not a valid TINYINT")]),
            (Int16, "7", "7", vec![not("-32769", "'-32769' is out of range for SMALLINT")]),
            (
                Int32,
                "7",
                "7",
                vec![not("2147483648", "'2147483648' is out of range for INTEGER"), not("true", "'true' is not a valid INTEGER")],
            ),
            (
                Int64,
                "9223372036854775807",
                "9223372036854775807",
                vec![
                    not("9223372036854775808", "'9223372036854775808' is out of range for BIGINT"),
                    not("9.5", "'9.5' is not a valid BIGINT"),
                    not("1e2", "'1e2' is not a valid BIGINT"),
                    not("\"12\"", "'12' is not a valid BIGINT"),
                ],
            ),
            (UInt8, "255", "255", vec![not("-1", "'-1' is out of range for TINYINT UNSIGNED")]),
            (UInt16, "1", "1", vec![not("65536", "'65536' is out of range for SMALLINT UNSIGNED")]),
            (UInt32, "1", "1", vec![not("4294967296", "'4294967296' is out of range for INTEGER UNSIGNED")]),
            (UInt64, "18446744073709551615", "18446744073709551615", vec![not("-1", "'-1' is out of range for BIGINT UNSIGNED")]),
            (Float32, "1.5", "1.5", vec![not("1e39", "'1e39' is out of range for REAL")]),
            (Float64, "1e3", "1000.0", vec![not("1e309", "'1e309' is out of range for DOUBLE"), not("\"1\"", "'1' is not a valid DOUBLE")]),
            (
                Decimal128(6, 2),
                "1.5",
                "1.50",
                vec![
                    not("1.234", "'1.234' has more decimal places than DECIMAL(6, 2) keeps"),
                    not("12345", "'12345' is out of range for DECIMAL(6, 2)"),
                    not("\"1.5\"", "'1.5' is not a valid DECIMAL(6, 2)"),
                ],
            ),
            (
                Decimal256(50, 2),
                "123456789012345678901234567890123456789012345678.5",
                "123456789012345678901234567890123456789012345678.50",
                vec![not("0.001", "'0.001' has more decimal places than DECIMAL(50, 2) keeps")],
            ),
            (Utf8, "\"a\"", "a", vec![not("5", "'5' is not a valid VARCHAR")]),
            (Utf8View, "\"a\"", "a", vec![not("true", "'true' is not a valid VARCHAR")]),
            (Binary, "\"00ff\"", "00ff", vec![not("\"0g\"", "'0g' is not a valid BYTEA"), not("\"abc\"", "'abc' is not a valid BYTEA")]),
            (
                Date32,
                "\"2024-02-29\"",
                "2024-02-29",
                vec![not("\"2023-02-29\"", "'2023-02-29' is not a valid DATE"), not("5", "'5' is not a valid DATE")],
            ),
            (
                Time64(TimeUnit::Microsecond),
                "\"10:30:00.5\"",
                "10:30:00.500",
                vec![
                    not("\"10:30:00.0000001\"", "'10:30:00.0000001' has more decimal places than TIME keeps"),
                    not("\"25:00\"", "'25:00' is not a valid TIME"),
                ],
            ),
            (
                micros(None),
                "\"2024-05-01T12:00:00\"",
                "2024-05-01T12:00:00",
                vec![
                    not("1714557600", "'1714557600' is not a valid TIMESTAMP"),
                    not("\"2024-05-01T12:00:00.0000001\"", "'2024-05-01T12:00:00.0000001' has more decimal places than TIMESTAMP keeps"),
                ],
            ),
            (
                micros(Some("UTC")),
                "\"2024-05-01T12:00:00+02:00\"",
                "2024-05-01T10:00:00Z",
                vec![not("\"yesterday\"", "'yesterday' is not a valid TIMESTAMP WITH TIME ZONE")],
            ),
            (
                interval,
                "\"1 day 2 hours\"",
                "1 days 2 hours",
                vec![not("5", "'5' is not a valid INTERVAL"), not("\"soon\"", "'soon' is not a valid INTERVAL")],
            ),
            (
                DataType::new_list(Int64, true),
                "[1,null]",
                "[1, ]",
                vec![not("[9.5]", "'9.5' is not a valid BIGINT"), not("5", "'5' is not a valid BIGINT[]")],
            ),
            (
                point,
                "{\"x\":1}",
                "{x: 1}",
                vec![not("{\"x\":1.5}", "'1.5' is not a valid INTEGER"), not("{\"y\":1}", "the field \"y\" is no column")],
            ),
        ]
    }

    #[test]
    fn json_and_csv_take_each_type_exactly_or_not_at_all() {
        for (data_type, value, expected, wrong) in cases() {
            assert_eq!(of_json(&data_type, value).replace(' ', ""), expected.replace(' ', ""), "{data_type} {value}");
            let nested = matches!(data_type, DataType::List(_) | DataType::Struct(_));
            if !nested {
                assert_eq!(of_csv(&data_type, value.trim_matches('"')), expected, "{data_type} {value}");
            }
            for (value, reason) in wrong {
                let refused = of_json(&data_type, value);
                assert!(refused.starts_with("row 1 (line 1): ") && refused.ends_with(reason), "{data_type} {value}: {refused}");
                // What is text in CSV is quoted or not, and any text is a VARCHAR.
                let is_text = matches!(data_type, DataType::Utf8 | DataType::Utf8View);
                let quoted = value.starts_with('"')
                    && matches!(reason.split_once("' is not a valid "), Some((text, _)) if text.len() + 1 == value.len());
                let any_form =
                    is_text || nested || quoted && !matches!(data_type, DataType::Date32 | DataType::Binary | DataType::Interval(_));
                if !any_form && (data_type != DataType::Boolean) {
                    let refused = of_csv(&data_type, value.trim_matches('"'));
                    let reads_numbers = matches!(data_type, DataType::Interval(_)) && value == "5";
                    assert!(reads_numbers || refused.ends_with(reason), "{data_type} {value} in CSV: {refused}");
                }
            }
        }
    }

    #[test]
    fn the_first_row_that_does_not_fit_is_named() {
        let schema: SchemaRef =
            Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false), Field::new("word", DataType::Utf8View, true)]));
        let json = |body: &str| shown(decode_lines(&schema, &options(Format::Json), body.as_bytes()));
        assert_eq!(json("{\"id\":1,\"word\":\"a\"}\n\n{\"word\":\"b\",\"id\":2}\n"), "1  | a 2  | b");
        assert_eq!(json("{\"id\":1}\n\n\n{\"id\":2.5}\n{\"id\":3.5}\n"), "row 2 (line 4): column \"id\": '2.5' is not a valid BIGINT");
        assert_eq!(json("{\"id\":1,\"wrd\":\"a\"}"), "row 1 (line 1): the field \"wrd\" is no column");
        assert_eq!(json("{\"word\":\"a\"}"), "row 1 (line 1): column \"id\": the row has no such field, and the column is BIGINT NOT NULL");
        assert_eq!(json("[1]"), "row 1 (line 1): the row is not a JSON object");
        let csv = |body: &str| shown(decode_lines(&schema, &options(Format::Csv), body.as_bytes()));
        assert_eq!(csv("word,id\n\"a\nb\",1\n\"\",2\nc,x\n"), "row 3 (line 5): column \"id\": 'x' is not a valid BIGINT");
        assert_eq!(csv("word,m\n"), "line 1: the header has \"m\", which is no column");
        assert_eq!(csv("word\n"), "line 1: the header has no column \"id\", which is NOT NULL");
        assert_eq!(csv("id\n1,2\n"), "row 1 (line 2): the row has 2 fields, the header has 1");
        assert_eq!((csv("word,id\n"), csv(""), json("")), (String::new(), String::new(), String::new()));
        let many: String =
            (0..20_000).map(|n| format!("{{\"id\":{}}}\n", if n == 19_000 { "1.5".into() } else { n.to_string() })).collect();
        assert!(json(&many).starts_with("row 19001 (line 19001): "));
    }

    fn sent(array: impl Array + 'static, data_type: &DataType) -> String {
        let batch = |array: ArrayRef| RecordBatch::try_from_iter_with_nullable([("v", array, true)]).unwrap();
        let fits = batch(new_null_array(array.data_type(), 2));
        shown(exact_batches(&[fits, batch(Arc::new(array))], &one(data_type)).map(|batches| batches[1..].to_vec()))
    }

    #[test]
    fn arrow_values_arrive_as_they_were_sent() {
        use DataType::*;
        let decimal = |value, precision, scale| Decimal128Array::from(vec![value]).with_precision_and_scale(precision, scale).unwrap();
        assert_eq!(sent(Int64Array::from(vec![7]), &Int32), "7");
        assert_eq!(sent(Int64Array::from(vec![1 << 40]), &Int32), "row 3: column \"v\": '1099511627776' is out of range for INTEGER");
        assert_eq!(sent(Float64Array::from(vec![9.0]), &Int64), "9");
        assert_eq!(sent(Float64Array::from(vec![1.0, 9.5]), &Int64), "row 4: column \"v\": '9.5' is not a valid BIGINT");
        assert_eq!(sent(Float64Array::from(vec![1.25]), &Decimal128(6, 2)), "1.25");
        assert_eq!(sent(Float64Array::from(vec![1.255]), &Decimal128(6, 2)), "row 3: column \"v\": '1.255' is not a valid DECIMAL(6, 2)");
        assert_eq!(sent(Float64Array::from(vec![1e300]), &Float32), "row 3: column \"v\": '1e300' is out of range for REAL");
        assert_eq!(sent(Float64Array::from(vec![f64::INFINITY]), &Float32), "inf");
        assert_eq!(sent(decimal(150, 10, 2), &Decimal128(6, 1)), "1.5");
        assert_eq!(sent(decimal(151, 10, 2), &Decimal128(6, 1)), "row 3: column \"v\": '1.51' is not a valid DECIMAL(6, 1)");
        let wide = Decimal256Array::from(vec![i256::from_i128(5)]).with_precision_and_scale(50, 2).unwrap();
        assert_eq!(sent(wide, &Decimal128(6, 2)), "0.05");
        assert_eq!(sent(TimestampNanosecondArray::from(vec![5_000]), &micros(None)), "1970-01-01T00:00:00.000005");
        let reason = "row 3: column \"v\": '1970-01-01T00:00:00.000005001' has more decimal places than TIMESTAMP keeps";
        assert_eq!(sent(TimestampNanosecondArray::from(vec![5_001]), &micros(None)), reason);
        let berlin = TimestampMillisecondArray::from(vec![5]).with_timezone("Europe/Berlin");
        assert_eq!(sent(berlin, &micros(Some("UTC"))), "1970-01-01T00:00:00.005Z");
        assert_eq!(sent(Date64Array::from(vec![86_400_000]), &Date32), "1970-01-02");
        assert!(sent(Date64Array::from(vec![86_400_001]), &Date32).ends_with("is not a valid DATE"));
        let text = "column \"v\" is sent as VARCHAR, which cannot become BIGINT without loss";
        assert_eq!(sent(StringArray::from(vec!["12"]), &Int64), text);
        assert_eq!(
            sent(BinaryArray::from(vec![&b"\xff"[..]]), &Utf8View),
            "column \"v\" is sent as BYTEA, which cannot become VARCHAR without loss"
        );
        let words: DictionaryArray<Int32Type> = vec![Some("a"), None].into_iter().collect();
        assert_eq!(sent(words, &Utf8View), "a ");
        assert_eq!(sent(DurationSecondArray::from(vec![5]), &Interval(IntervalUnit::MonthDayNano)), "5.000000000 secs");
        let lists = ListArray::from_iter_primitive::<arrow::datatypes::Float64Type, _, _>([Some(vec![Some(1.0), Some(2.5)])]);
        assert_eq!(sent(lists, &DataType::new_list(Int64, true)), "row 3: column \"v\": '[1.0, 2.5]' is not a valid BIGINT[]");
    }

    #[test]
    fn texts_are_values_or_refused() {
        let column = |data_type: DataType, texts: &[Option<&str>]| {
            let column = text_column(&Arc::new(Field::new("v", data_type, true)), texts.iter().copied());
            column.map_or_else(|refusal| refusal.to_string(), |column| format!("{} values, {} NULLs", column.len(), column.null_count()))
        };
        assert_eq!(column(DataType::Int64, &[Some("1"), None]), "2 values, 1 NULLs");
        assert_eq!(column(DataType::Int64, &[Some("1"), Some("1.5")]), "row 2: column \"v\": '1.5' is not a valid BIGINT");
        assert_eq!(
            column(DataType::Decimal128(6, 2), &[Some("1.234")]),
            "row 1: column \"v\": '1.234' has more decimal places than DECIMAL(6, 2) keeps"
        );
    }
}
