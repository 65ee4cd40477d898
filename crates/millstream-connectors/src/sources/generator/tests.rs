//! Rows are a function of the seed and their number, and follow their rules.

use super::GeneratorSource;
use crate::conformance::{self, RangeRows, START, limits, read_range, source_context, start_clock};
use crate::error::ConnectorError;
use crate::source::{EpochLimits, ReadRequest, Source};
use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Date32Type, Decimal128Type, Float64Type, Int16Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use millstream_types::{Clock, ManualClock};
use std::sync::Arc;
use std::time::Duration;

const TIME: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

fn every_type() -> Vec<(&'static str, DataType)> {
    vec![
        ("small", DataType::Int16),
        ("big", DataType::Int64),
        ("ratio", DataType::Float64),
        ("price", DataType::Decimal128(10, 2)),
        ("flag", DataType::Boolean),
        ("name", DataType::Utf8View),
        ("ts", TIME),
        ("day", DataType::Date32),
    ]
}

fn generator(columns: &[(&str, DataType)], options: &[(&str, &str)], clock: &Arc<ManualClock>) -> Result<GeneratorSource, ConnectorError> {
    let mut context = source_context(columns, options, clock);
    context.metadata = vec![("n".into(), "n".into())];
    let source = GeneratorSource::new(&mut context)?;
    context.options.finish()?;
    Ok(source)
}

/// All rows of a generator with `row_limit`.
async fn rows(columns: &[(&str, DataType)], options: &[(&str, &str)]) -> RangeRows {
    let clock = start_clock();
    let mut source = generator(columns, options, &clock).unwrap();
    source.open(None, &[]).await.unwrap();
    source.mark_end().await.unwrap();
    let ranges = source.plan(&EpochLimits { draining: true, ..limits(clock.now()) }).await.unwrap().unwrap();
    assert!(source.backlog().await.unwrap().ended);
    read_range(&source.reader(), &ranges[0], &ReadRequest { projection: None, batch_size: 1_000, ..ReadRequest::default() }).await
}

#[tokio::test]
async fn conforms_with_every_type_and_corrupt_rows() {
    let clock = start_clock();
    let options = [("rows_per_second", "50..500 over 2s"), ("corrupt_share", "0.2"), ("big.nulls", "0.3"), ("ts.disorder", "1 second")];
    conformance::source(|| Box::new(generator(&every_type(), &options, &clock).unwrap()), &clock, async |_: &mut dyn Source| {}).await;
}

#[tokio::test]
async fn defaults_are_sensible() {
    let rows = rows(&every_type(), &[("row_limit", "2000")]).await.batch;
    assert_eq!(rows.num_rows(), 2_000);
    let small = rows.column(0).as_primitive::<Int16Type>();
    assert!(small.iter().flatten().all(|value| (0..1_000).contains(&value)));
    assert!(rows.column(2).as_primitive::<Float64Type>().iter().flatten().all(|value| (0.0..1.0).contains(&value)));
    assert!(rows.column(3).as_primitive::<Decimal128Type>().iter().flatten().all(|value| (0..=10_000).contains(&value)));
    let trues = rows.column(4).as_boolean().true_count();
    assert!((900..1_100).contains(&trues), "{trues}");
    assert!(rows.column(5).as_string_view().iter().flatten().all(|name| name.starts_with("name-")));
    let times = rows.column(6).as_primitive::<TimestampMicrosecondType>();
    assert_eq!((times.value(0), times.value(1)), (START.0, START.0 + 10_000));
    assert_eq!(rows.column(7).as_primitive::<Date32Type>().value(0), 10_957);
    assert_eq!(rows.column_by_name("n").unwrap().as_primitive::<Int64Type>().value(1_999), 1_999);
}

#[tokio::test]
async fn a_column_does_not_depend_on_the_others_but_on_the_seed() {
    let alone = rows(&[("big", DataType::Int64)], &[("row_limit", "100")]).await.batch;
    let among = rows(&every_type(), &[("row_limit", "100")]).await.batch;
    assert_eq!(alone.column(0), among.column(1));
    let other = rows(&[("big", DataType::Int64)], &[("row_limit", "100"), ("seed", "7")]).await.batch;
    assert_ne!(alone.column(0), other.column(0));
}

#[tokio::test]
async fn rules_do_what_they_say() {
    let columns = [
        ("id", DataType::Int64),
        ("turn", DataType::Int16),
        ("user", DataType::Utf8View),
        ("kind", DataType::Utf8View),
        ("ts", TIME),
        ("x", DataType::Float64),
    ];
    let options = [
        ("row_limit", "5000"),
        ("rows_per_second", "unlimited"),
        ("id.kind", "sequence"),
        ("id.min", "100"),
        ("id.step", "-2"),
        ("turn.kind", "sequence"),
        ("turn.min", "5"),
        ("turn.max", "7"),
        ("user.kind", "zipf"),
        ("user.min", "1"),
        ("user.max", "50"),
        ("user.prefix", "u"),
        ("kind.choices", "warm, cold"),
        ("kind.weights", "3,1"),
        ("ts.start", "2024-01-01T00:00:00Z"),
        ("ts.step", "1s"),
        ("ts.disorder", "5 seconds"),
        ("x.kind", "normal"),
        ("x.mean", "20"),
        ("x.stddev", "5"),
    ];
    let rows = rows(&columns, &options).await.batch;
    assert_eq!(&rows.column(0).as_primitive::<Int64Type>().values()[..3], &[100, 98, 96]);
    assert_eq!(&rows.column(1).as_primitive::<Int16Type>().values()[..5], &[5, 6, 7, 5, 6]);
    let users = rows.column(2).as_string_view();
    let first = users.iter().flatten().filter(|user| *user == "u1").count();
    let second = users.iter().flatten().filter(|user| *user == "u2").count();
    assert!(first > second && first > 900, "{first} {second}");
    let warm = rows.column(3).as_string_view().iter().flatten().filter(|kind| *kind == "warm").count();
    assert!((3_600..3_900).contains(&warm), "{warm}");
    let times = rows.column(4).as_primitive::<TimestampMicrosecondType>();
    let start = 1_704_067_200_000_000i64;
    let mut out_of_order = 0;
    for (n, time) in times.values().iter().enumerate() {
        let due = start + n as i64 * 1_000_000;
        assert!((due - 5_000_000..=due).contains(time), "row {n}");
        out_of_order += usize::from(n > 0 && times.value(n - 1) > *time);
    }
    assert!(out_of_order > 1_000);
    let values = rows.column(5).as_primitive::<Float64Type>();
    let mean = values.values().iter().sum::<f64>() / 5_000.0;
    let deviation = (values.values().iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 5_000.0).sqrt();
    assert!((mean - 20.0).abs() < 0.3 && (deviation - 5.0).abs() < 0.3, "{mean} {deviation}");
}

#[tokio::test]
async fn shares_of_nulls_and_corrupt_rows_hold() {
    let rows = rows(&[("a", DataType::Int64)], &[("row_limit", "10000"), ("a.nulls", "0.25"), ("corrupt_share", "0.1")]).await;
    assert!((900..1_100).contains(&rows.bad.len()), "{}", rows.bad.len());
    assert_eq!(rows.bad.len() + rows.batch.num_rows(), 10_000);
    let nulls = rows.batch.column(0).null_count() as f64 / rows.batch.num_rows() as f64;
    assert!((nulls - 0.25).abs() < 0.02, "{nulls}");
}

#[tokio::test]
async fn rows_come_due_by_the_clock() {
    let clock = start_clock();
    let mut source = generator(&[("a", DataType::Int64)], &[("rows_per_second", "100")], &clock).unwrap();
    source.open(None, &[]).await.unwrap();
    assert_eq!(source.plan(&limits(clock.now())).await.unwrap(), None);
    assert_eq!(source.backlog().await.unwrap().next_due, Some(START.plus(Duration::from_micros(10_001))));
    clock.advance(Duration::from_millis(2_500));
    let some = EpochLimits { max_rows: Some(200), ..limits(clock.now()) };
    assert_eq!(source.plan(&some).await.unwrap().unwrap()[0].range.end.row, 200);
    assert_eq!(source.plan(&some).await.unwrap().unwrap()[0].range.end.row, 250);
    assert!(source.mark_end().await.is_err(), "it has no end");
    // A restart after an hour makes up for it.
    clock.advance(Duration::from_secs(3_600));
    let mut restarted = generator(&[("a", DataType::Int64)], &[("rows_per_second", "100")], &clock).unwrap();
    restarted.open(Some(source.position()), &[]).await.unwrap();
    assert_eq!(restarted.backlog().await.unwrap().rows, Some(360_000));
}

#[test]
fn options_are_checked() {
    let clock = start_clock();
    let columns = [("small", DataType::Int16), ("name", DataType::Utf8View), ("day", DataType::Date32)];
    let refused = |options: &[(&str, &str)]| generator(&columns, options, &clock).unwrap_err().to_string();
    assert_eq!(refused(&[("small.max", "40000")]), "option \"small.max\" of stream \"s\" is '40000', not between the minimum 0 and 32767");
    assert_eq!(
        refused(&[("small.kind", "normal")]),
        "option \"small.kind\" of stream \"s\" is 'normal', not one of 'random', 'sequence', 'zipf', 'choice'"
    );
    assert_eq!(refused(&[("small.disorder", "5s")]), "unknown option \"small.disorder\" of stream \"s\"");
    assert_eq!(refused(&[("nmae.kind", "zipf")]), "unknown option \"nmae.kind\" of stream \"s\"");
    assert_eq!(
        refused(&[("small.choices", "1,x")]),
        "option \"small.choices\" of stream \"s\" is '1,x', not a list of Int16 values separated by commas"
    );
    assert_eq!(
        refused(&[("name.choices", "a,b"), ("name.weights", "1")]),
        "option \"name.weights\" of stream \"s\" is '1', not one weight per choice"
    );
    assert_eq!(
        refused(&[("rows_per_second", "fast")]),
        "option \"rows_per_second\" of stream \"s\" is 'fast', not a rate such as '100', '100..10000 over 60s' or 'unlimited'"
    );
    assert_eq!(refused(&[("bounded", "true")]), "stream \"s\" needs the option \"row_limit\"");
    let list = DataType::new_list(DataType::Int64, true);
    let error = generator(&[("tags", list)], &[], &clock).unwrap_err().to_string();
    assert!(error.starts_with("column \"tags\" of generator stream \"s\" has type List"), "{error}");
}
