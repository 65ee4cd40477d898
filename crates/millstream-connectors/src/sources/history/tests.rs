//! Rows come in the order of event time, in slices, every one of them once, also over a restart.

use super::{HistoryOptions, HistorySource};
use crate::conformance::{limits, read_range, source_context, start_clock};
use crate::source::{EpochLimits, ReadRequest, Source};
use crate::sources::files;
use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use millstream_types::{EventTime, PartitionRange};
use std::fs;
use std::path::Path;

const COLUMNS: [(&str, DataType); 2] = [("n", DataType::Int64), ("ts", DataType::Timestamp(TimeUnit::Microsecond, None))];

fn second(seconds: i64) -> EventTime {
    EventTime(946_684_800_000_000 + seconds * 1_000_000)
}

/// Three files that overlap in time; one row cannot be decoded and one has no event time.
fn history(dir: &Path) {
    let line = |n: &str, seconds: i64| format!("{n},2000-01-01T00:00:{seconds:02}Z\n");
    let (a, b) = (line("7", 7) + &line("1", 1) + "x,2000-01-01T00:00:59Z\n", line("0", 0) + "2,\n" + &line("9", 9));
    for (name, content) in [("a.csv", a), ("b.csv", b), ("c.csv", line("3", 3) + &line("10", 1))] {
        fs::write(dir.join(name), format!("n,ts\n{content}")).unwrap();
    }
}

fn source(dir: &Path, from: Option<EventTime>, to: Option<EventTime>) -> HistorySource {
    let path = dir.join("in").to_str().unwrap().to_string();
    let context = || {
        let mut context = source_context(&COLUMNS, &[("path", &path), ("format", "csv"), ("order", "name")], &start_clock());
        context.event_time = Some("ts".into());
        context
    };
    let inner = files::create(&mut context()).unwrap();
    let options = HistoryOptions { directory: dir.join("spool"), from, to, closes: true };
    HistorySource::new(inner, "files", &context(), options).unwrap()
}

async fn slice(source: &mut HistorySource, until: i64) -> Option<(PartitionRange, Vec<String>)> {
    let limits = EpochLimits { until: Some(second(until)), ..limits(second(0)) };
    let range = source.plan(&limits).await.unwrap()?.remove(0);
    let rows = rows(source, &range).await;
    Some((range, rows))
}

/// The numbers of the rows of a range, in the order of their positions; bad rows as `!place`.
async fn rows(source: &HistorySource, range: &PartitionRange) -> Vec<String> {
    let read =
        read_range(&source.reader(), range, &ReadRequest { projection: Some(vec![0]), batch_size: 2, ..ReadRequest::default() }).await;
    let numbers = read.batch.column(0).as_primitive::<Int64Type>().values();
    let mut rows: Vec<(u64, String)> = read.offsets.iter().zip(numbers).map(|(offset, n)| (offset.row, n.to_string())).collect();
    rows.extend(read.bad.iter().map(|bad| (bad.offset.row, format!("!{}", bad.place.rsplit('/').next().unwrap()))));
    rows.sort();
    assert_eq!(rows.iter().map(|row| row.0).collect::<Vec<_>>(), (range.range.start.row..range.range.end.row).collect::<Vec<_>>());
    rows.into_iter().map(|row| row.1).collect()
}

#[tokio::test]
async fn slices_come_in_order_and_hold_every_row_once() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("in")).unwrap();
    history(&dir.path().join("in"));
    let mut source = source(dir.path(), None, None);
    source.open(None, &[]).await.unwrap();
    assert_eq!(source.backlog().await.unwrap().next_event_time, Some(second(0)));
    // The row without event time stays behind row 0, which came before it; the bad row behind row 1.
    assert_eq!(slice(&mut source, 2).await.unwrap().1, ["0", "2", "1", "!a.csv:4", "10"]);
    assert_eq!(source.backlog().await.unwrap().next_event_time, Some(second(3)));
    assert_eq!(slice(&mut source, 3).await, None);
    let (range, rows_then) = slice(&mut source, 8).await.unwrap();
    assert_eq!(rows_then, ["3", "7"]);
    // Another instance goes on where this one stopped, and reads the logged range again; new files do not count.
    let position = source.position();
    fs::write(dir.path().join("in/d.csv"), "n,ts\n4,2000-01-01T00:00:04Z\n").unwrap();
    let mut source = self::source(dir.path(), None, None);
    source.open(Some(position), std::slice::from_ref(&range)).await.unwrap();
    assert_eq!(rows(&source, &range).await, rows_then);
    assert!(!source.backlog().await.unwrap().ended);
    assert_eq!(slice(&mut source, 60).await.unwrap().1, ["9"]);
    let backlog = source.backlog().await.unwrap();
    assert_eq!((backlog.ended, backlog.rows, backlog.next_event_time), (true, Some(0), None));
}

#[tokio::test]
async fn rows_outside_the_bounds_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("in")).unwrap();
    history(&dir.path().join("in"));
    let mut source = source(dir.path(), Some(second(1)), Some(second(7)));
    source.open(None, &[]).await.unwrap();
    let rows = slice(&mut source, 60).await.unwrap().1;
    // What has no event time counts where the row before it does: behind "1" the bad line, and not "2" behind "0".
    assert_eq!(rows, ["1", "!a.csv:4", "10", "3"]);
    // Other bounds would be another history.
    let position = source.position();
    let mut source = self::source(dir.path(), None, None);
    let error = source.open(Some(position), &[]).await.unwrap_err();
    assert!(error.to_string().contains("other bounds"), "{error}");
}

#[tokio::test]
async fn a_stream_needs_event_time_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("in")).unwrap();
    let path = dir.path().join("in").to_str().unwrap().to_string();
    let context = || source_context(&COLUMNS, &[("path", &path), ("format", "csv")], &start_clock());
    let inner = files::create(&mut context()).unwrap();
    let options = HistoryOptions { directory: dir.path().join("spool"), from: None, to: None, closes: true };
    assert!(HistorySource::new(inner, "files", &context(), options).is_err());
}
