//! Standard input by a reader in its place.

use super::StdinSource;
use crate::conformance::{limits, read_range, source_context, start_clock};
use crate::source::{EpochLimits, ReadRequest, Source};
use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int64Type};
use millstream_types::Clock;
use std::io::Cursor;

#[tokio::test]
async fn reads_csv_with_a_header_to_its_end() {
    let clock = start_clock();
    let mut context = source_context(&[("id", DataType::Int64), ("name", DataType::Utf8View)], &[("format", "csv")], &clock);
    let input = Cursor::new("name,id\none,1\nbroken,x\nthree,3");
    let mut source = StdinSource::new(&mut context, Box::new(input)).unwrap();
    assert!(source.properties().bounded);
    source.open(None, &[]).await.unwrap();
    let draining = EpochLimits { draining: true, ..limits(clock.now()) };
    let (mut ids, mut bad) = (Vec::new(), Vec::new());
    while let Some(ranges) = source.plan(&draining).await.unwrap() {
        let rows = read_range(&source.reader(), &ranges[0], &ReadRequest::default()).await;
        ids.extend(rows.batch.column(0).as_primitive::<Int64Type>().values().to_vec());
        bad.extend(rows.bad);
    }
    assert_eq!(ids, [1, 3]);
    assert_eq!((bad.len(), bad[0].offset.row, bad[0].place.as_str()), (1, 1, "standard input line 3"));
    assert!(source.backlog().await.unwrap().ended);
    assert_eq!(source.position(), serde_json::json!(3));
}

#[tokio::test]
async fn an_empty_input_ends_at_once() {
    let clock = start_clock();
    let mut context = source_context(&[("line", DataType::Utf8View)], &[], &clock);
    let mut source = StdinSource::new(&mut context, Box::new(std::io::empty())).unwrap();
    source.open(None, &[]).await.unwrap();
    source.wake().notified().await;
    assert!(source.backlog().await.unwrap().ended);
    assert_eq!(source.plan(&EpochLimits { draining: true, ..limits(clock.now()) }).await.unwrap(), None);
}

#[test]
fn formats_without_lines_are_refused() {
    let mut context = source_context(&[("line", DataType::Utf8View)], &[("format", "parquet")], &start_clock());
    let error = StdinSource::new(&mut context, Box::new(std::io::empty())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "option \"format\" of stream \"s\" is 'parquet', not one of 'text', 'json', 'csv', 'raw': rows arrive as lines"
    );
}
