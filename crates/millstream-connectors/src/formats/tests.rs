//! Tests of the text formats: strictness, reasons, projection, limits.

use super::infer::infer_lines;
use super::*;
use arrow::array::AsArray;
use arrow::datatypes::{Field, Fields, TimeUnit};
use arrow::util::pretty::pretty_format_batches;
use millstream_types::Options;

fn schema(fields: &[(&str, DataType)]) -> SchemaRef {
    Arc::new(Schema::new(fields.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true)).collect::<Vec<_>>()))
}

fn options(pairs: &[(&str, &str)]) -> FormatOptions {
    let mut options = Options::new("stream \"s\"", pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())));
    let taken = FormatOptions::take(&mut options, None).unwrap();
    options.finish().unwrap();
    taken
}

fn lines(options: &FormatOptions, input: &[u8]) -> LineBatch {
    let mut batch = LineBatch::default();
    let mut splitter = LineSplitter::new(options.split_options());
    splitter.push(input, &mut batch);
    splitter.finish(&mut batch);
    batch
}

fn decode(schema: &SchemaRef, projection: Option<&[usize]>, pairs: &[(&str, &str)], input: &[u8]) -> DecodedRows {
    let options = options(pairs);
    let mut batch = lines(&options, input);
    let mut decoder = Decoder::new(Arc::clone(schema), projection, &options).unwrap();
    if decoder.needs_header() {
        let header = batch.lines.remove(0);
        decoder.set_header(header.of(&batch.bytes));
    }
    let rows = decoder.decode(&batch).unwrap();
    assert_eq!(rows.batch.num_rows() + rows.bad.len(), batch.lines.len());
    // The buffers are clean for the next batch.
    let again = decoder.decode(&batch).unwrap();
    assert_eq!(again.batch, rows.batch);
    assert_eq!(again.bad, rows.bad);
    rows
}

fn reasons(rows: &DecodedRows) -> Vec<String> {
    rows.bad.iter().map(|bad| format!("{}: {}", bad.line, bad.reason)).collect()
}

fn table(rows: &DecodedRows) -> String {
    pretty_format_batches(std::slice::from_ref(&rows.batch)).unwrap().to_string()
}

fn every_type() -> SchemaRef {
    schema(&[
        ("i", DataType::Int64),
        ("t", DataType::Int8),
        ("u", DataType::UInt64),
        ("d", DataType::Decimal128(9, 2)),
        ("f", DataType::Float64),
        ("b", DataType::Boolean),
        ("day", DataType::Date32),
        ("at", DataType::Time64(TimeUnit::Microsecond)),
        ("ts", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        ("s", DataType::Utf8View),
        ("x", DataType::Binary),
    ])
}

#[test]
fn csv_reads_every_type() {
    let input = b"i,t,u,d,f,b,day,at,ts,s,x\n\
        -9223372036854775808,127,18446744073709551615,1.5,1e3,true,2024-02-29,10:30,2024-05-01T12:00:00+02:00,\"a \"\"b\"\", c\",\\xff00\n\
        ,,,,,,,,,,\n\
        0,0,0,-0.25,-0.5,F,1969-12-31,23:59:59.5,1970-01-01,\"\",00\n";
    let rows = decode(&every_type(), None, &[("format", "csv")], input);
    assert_eq!(reasons(&rows), [""; 0]);
    let expected = "\
+----------------------+-----+----------------------+-------+--------+-------+------------+--------------+----------------------+----------+------+
| i                    | t   | u                    | d     | f      | b     | day        | at           | ts                   | s        | x    |
+----------------------+-----+----------------------+-------+--------+-------+------------+--------------+----------------------+----------+------+
| -9223372036854775808 | 127 | 18446744073709551615 | 1.50  | 1000.0 | true  | 2024-02-29 | 10:30:00     | 2024-05-01T10:00:00Z | a \"b\", c | ff00 |
|                      |     |                      |       |        |       |            |              |                      |          |      |
| 0                    | 0   | 0                    | -0.25 | -0.5   | false | 1969-12-31 | 23:59:59.500 | 1970-01-01T00:00:00Z |          | 00   |
+----------------------+-----+----------------------+-------+--------+-------+------------+--------------+----------------------+----------+------+";
    assert_eq!(table(&rows), expected);
    // An empty quoted text is no NULL.
    assert!(!rows.batch["s"].is_null(2) && rows.batch["s"].is_null(1));
}

#[test]
fn csv_refuses_what_does_not_fit() {
    let schema = schema(&[
        ("i", DataType::Int64),
        ("t", DataType::Int8),
        ("d", DataType::Decimal128(4, 2)),
        ("ts", DataType::Timestamp(TimeUnit::Microsecond, None)),
    ]);
    let input = b"i,t,d,ts\n9.5,1,1,\n1,128,1,\n1,1,1.234,\n1,1,100,\n1,1,1,1714557600\n1,1\n 1,1,1,\n99999999999999999999,1,1,\n1,\xff,1,\n5,6,7,\n";
    let rows = decode(&schema, None, &[("format", "csv")], input);
    assert_eq!(
        reasons(&rows),
        [
            "2: column \"i\": '9.5' is not a valid BIGINT",
            "3: column \"t\": '128' is out of range for TINYINT",
            "4: column \"d\": '1.234' has more decimal places than DECIMAL(4, 2) keeps",
            "5: column \"d\": '100' is out of range for DECIMAL(4, 2)",
            "6: column \"ts\": '1714557600' is not a valid TIMESTAMP",
            "7: the row has 2 fields, the header has 4",
            "8: column \"i\": ' 1' is not a valid BIGINT",
            "9: column \"i\": '99999999999999999999' is out of range for BIGINT",
            "10: the row is not valid UTF-8 at byte 2",
        ]
    );
    // What comes after bad rows is not shifted.
    assert_eq!(rows.batch["i"].as_primitive::<arrow::datatypes::Int64Type>().values().to_vec(), [5]);
    assert_eq!(rows.bad[1].raw, "1,128,1,");
    let rows = decode(&schema, None, &[("format", "csv")], b"i,t,d,ts\n1,1,1,\"x\n1,2,1,\n");
    assert_eq!(reasons(&rows), ["2: a quoted field has no end: its quote opens in line 2, which is left out alone"]);
    assert_eq!(rows.batch["t"].as_primitive::<arrow::datatypes::Int8Type>().values().to_vec(), [2], "the next line is a row");
}

#[test]
fn csv_checks_the_header() {
    let two = schema(&[("userId", DataType::Int64), ("name", DataType::Utf8View)]);
    let bad = |input: &[u8]| reasons(&decode(&two, None, &[("format", "csv")], input));
    assert_eq!(bad(b"name,extra,userId\nx,y,1\n"), [""; 0]);
    assert_eq!(bad(b"userId\n1\n"), [""; 0]);
    assert_eq!(bad(b"user_id,name\n1,x\n"), ["2: the header has no column \"userId\", but \"user_id\"; names must match exactly"]);
    assert!(bad(b"1,x\n2,y\n")[0].contains("the first line is no header of this stream: it has \"1\", \"x\""));
    let mut fields: Vec<Field> = two.fields().iter().map(|field| field.as_ref().clone()).collect();
    fields[0] = fields[0].clone().with_nullable(false);
    let strict: SchemaRef = Arc::new(Schema::new(fields));
    let rows = decode(&strict, None, &[("format", "csv")], b"name,userid2\nx,1\n");
    assert_eq!(reasons(&rows), ["2: the header has no column \"userId\", which is NOT NULL (it has \"userid2\")"]);
    let rows = decode(&strict, None, &[("format", "csv")], b"name,userId\nx,\ny,2\n");
    assert_eq!(reasons(&rows), ["2: column \"userId\": NULL in a NOT NULL column of type BIGINT"]);
    assert_eq!(rows.kept, Some(vec![1]));
}

#[test]
fn csv_has_options() {
    let two = schema(&[("a", DataType::Int64), ("b", DataType::Utf8View)]);
    let pairs = [("format", "csv"), ("header", "false"), ("delimiter", "\\t"), ("quote", "'"), ("null", "NA"), ("comment", "#")];
    let rows = decode(&two, None, &pairs, b"1\t'x\ty'\n# no\n\nNA\tNA\n2\t'NA'\n3\t\n");
    assert_eq!(reasons(&rows), [""; 0]);
    let b = rows.batch["b"].as_string_view();
    assert_eq!(b.iter().collect::<Vec<_>>(), [Some("x\ty"), None, Some("NA"), Some("")]);
    let only_b = decode(&two, Some(&[1]), &pairs, b"not a number\tx\n");
    assert_eq!((only_b.batch.num_columns(), only_b.batch.num_rows()), (1, 1));
    let none = decode(&two, Some(&[]), &pairs, b"1\tx\n2\ty\n");
    assert_eq!((none.batch.num_columns(), none.batch.num_rows()), (0, 2));
}

#[test]
fn json_reads_every_type() {
    let input = br#"{"i":-9223372036854775808,"t":127,"u":18446744073709551615,"d":1.5,"f":1e3,"b":true,"day":"2024-02-29","at":"10:30","ts":"2024-05-01T12:00:00+02:00","s":"a \"b\"","x":"ff00"}
{"x":null,"s":{"k":[1, 2]},"other":1}

{}
"#;
    let rows = decode(&every_type(), None, &[("format", "json")], input);
    assert_eq!(reasons(&rows), [""; 0]);
    assert_eq!(rows.unknown_fields, 1);
    assert_eq!(rows.batch["s"].as_string_view().iter().collect::<Vec<_>>(), [Some("a \"b\""), Some("{\"k\":[1, 2]}"), None]);
    assert_eq!(rows.batch["d"].as_primitive::<arrow::datatypes::Decimal128Type>().value(0), 150);
}

#[test]
fn json_refuses_what_does_not_fit() {
    let schema = schema(&[("userId", DataType::Int64), ("d", DataType::Decimal128(4, 2)), ("s", DataType::Utf8View)]);
    let input = br#"{"userId":9.5}
{"userId":"1"}
{"userId":1,"userId":2}
{"userid":1}
{"d":1.001}
{"s":5}
[1]
{"s":"x"
{"userId":1e2}
{"userId":1} x
{"userId":true}
{"s":"\ud800"}
{"userId":5,"d":null,"s":"fine"}
"#;
    let rows = decode(&schema, None, &[("format", "json")], input);
    assert_eq!(
        reasons(&rows),
        [
            "1: column \"userId\": '9.5' is not a valid BIGINT",
            "2: column \"userId\": '1' is not a valid BIGINT",
            "3: the field \"userId\" appears twice",
            "4: column \"userId\": the row has no such field, but \"userid\"; names must match exactly",
            "5: column \"d\": '1.001' has more decimal places than DECIMAL(4, 2) keeps",
            "6: column \"s\": '5' is not a valid VARCHAR",
            "7: the row is not a JSON object",
            "8: the row is not valid JSON at byte 8: expected a comma or a closing brace",
            "9: column \"userId\": '1e2' is not a valid BIGINT",
            "10: the row is not valid JSON at byte 13: text after the end of the object",
            "11: column \"userId\": 'true' is not a valid BIGINT",
            "12: the row is not valid JSON at byte 6: lone surrogate in a string",
        ]
    );
    assert_eq!(rows.kept, Some(vec![12]));
}

#[test]
fn json_reads_nested_values() {
    let point = Fields::from(vec![Field::new("x", DataType::Int32, false), Field::new("tag", DataType::Utf8View, true)]);
    let list = DataType::List(Arc::new(Field::new("item", DataType::Struct(point.clone()), true)));
    let schema = schema(&[("p", DataType::Struct(point)), ("ps", list)]);
    let input = br#"{"p":{"x":1,"tag":"a","more":0},"ps":[{"x":2},null,{"tag":"c","x":3}]}
{"p":{"x":1.5},"ps":[]}
{"p":{"tag":"a"},"ps":[]}
{"p":null,"ps":[{"x":4},{"x":"5"}]}
{"ps":[]}
"#;
    let rows = decode(&schema, None, &[("format", "json")], input);
    assert_eq!(
        reasons(&rows),
        [
            "2: column \"p.x\": '1.5' is not a valid INTEGER",
            "3: column \"p.x\": NULL in a NOT NULL column of type INTEGER",
            "4: column \"ps.[].x\": '5' is not a valid INTEGER",
        ]
    );
    assert_eq!(rows.batch.schema(), schema);
    let expected = "\
+------------------+-------------------------------------+
| p                | ps                                  |
+------------------+-------------------------------------+
| {x: 1, tag: a}   | [{x: 2, tag: }, , {x: 3, tag: c}]   |
|                  | []                                  |
+------------------+-------------------------------------+";
    let squeeze = |text: &str| text.replace(['-', ' '], "");
    assert_eq!(squeeze(&table(&rows)), squeeze(expected));
}

#[test]
fn json_reads_epoch_times() {
    let ts = schema(&[("ts", DataType::Timestamp(TimeUnit::Microsecond, None))]);
    let rows = decode(&ts, None, &[("format", "json"), ("timestamp_format", "epoch_ms")], b"{\"ts\":1}\n{\"ts\":\"1\"}\n{\"ts\":1.5}\n");
    assert_eq!(reasons(&rows), ["2: column \"ts\": '1' is not a valid TIMESTAMP"]);
    let values = rows.batch["ts"].as_primitive::<arrow::datatypes::TimestampMicrosecondType>().values().to_vec();
    assert_eq!(values, [1_000, 1_500]);
    assert_eq!(reasons(&decode(&ts, None, &[("format", "json")], b"{\"ts\":1}\n")), ["1: column \"ts\": '1' is not a valid TIMESTAMP"]);
}

#[test]
fn text_takes_lines_as_they_are() {
    let line = schema(&[("line", DataType::Utf8View)]);
    let rows = decode(&line, None, &[("format", "text"), ("max_row_bytes", "5")], b"a,b\r\n\ntoo long\n\xff\nlast");
    assert_eq!(
        reasons(&rows),
        ["3: the row has 8 bytes, more than the limit \"max_row_bytes\" allows", "4: the row is not valid UTF-8 at byte 0"]
    );
    assert_eq!(rows.batch["line"].as_string_view().iter().flatten().collect::<Vec<_>>(), ["a,b", "", "last"]);
    let raw = schema(&[("line", DataType::Binary)]);
    let rows = decode(&raw, None, &[("format", "raw")], b"\xff\xfe\n");
    assert_eq!(rows.batch["line"].as_binary::<i32>().value(0), b"\xff\xfe");
    let options = FormatOptions::new(Format::Text);
    let two = self::schema(&[("a", DataType::Utf8View), ("b", DataType::Utf8View)]);
    assert_eq!(Decoder::new(two, None, &options).unwrap_err().to_string(), "the format text needs exactly one column, found 2");
}

#[test]
fn options_are_checked() {
    let take = |pairs: &[(&str, &str)]| {
        let mut options = Options::new("stream \"s\"", pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())));
        FormatOptions::take(&mut options, None)
            .map(|_| ())
            .map_err(|error| error.to_string())
            .and_then(|()| options.finish().map_err(|error| error.to_string()))
    };
    assert_eq!(take(&[]).unwrap_err(), "stream \"s\" needs the option \"format\"");
    assert_eq!(take(&[("format", "json"), ("header", "true")]).unwrap_err(), "unknown option \"header\" of stream \"s\"");
    assert!(take(&[("format", "csv"), ("timestamp_format", "%!")]).unwrap_err().contains("not 'iso', 'epoch_s'"));
    assert!(take(&[("format", "csv"), ("delimiter", "::")]).unwrap_err().contains("not a single character"));
}

#[test]
fn types_are_inferred() {
    let infer = |pairs: &[(&str, &str)], input: &[u8]| {
        let options = options(pairs);
        let schema = infer_lines(&options, &lines(&options, input), "here").unwrap();
        schema.fields().iter().map(|field| format!("{} {}", field.name(), sql_type(field.data_type()))).collect::<Vec<_>>().join(", ")
    };
    let csv = b"a,b,c,d,e,f\n1,1,true,2024-01-01,x,2024-01-01T00:00:00Z\n2,1.5,false,2024-01-01 10:00:00,,\n";
    assert_eq!(infer(&[("format", "csv")], csv), "a BIGINT, b DOUBLE, c BOOLEAN, d TIMESTAMP, e VARCHAR, f TIMESTAMP WITH TIME ZONE");
    let json = br#"{"a":1,"n":{"x":[1,2.5]},"s":"1"}
{"a":null,"t":"2024-01-01T00:00:00"}
"#;
    assert_eq!(infer(&[("format", "json")], json), "a BIGINT, n STRUCT<x DOUBLE[]>, s VARCHAR, t TIMESTAMP");
}
