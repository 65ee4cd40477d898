//! Pushes become epochs, one each.

use super::MemorySource;
use crate::conformance::{self, limits, read_range, source_context, start_clock};
use crate::source::{EpochLimits, Push, ReadRequest, Source};
use arrow::array::{ArrayRef, AsArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, StringViewArray};
use arrow::datatypes::{DataType, Int64Type};
use millstream_types::{Classified, Offset};
use serde_json::Value;
use std::sync::Arc;

fn source(options: &[(&str, &str)]) -> MemorySource {
    let mut context = source_context(&[("id", DataType::Int64), ("name", DataType::Utf8View)], options, &start_clock());
    context.metadata = vec![("offset".into(), "at".into())];
    MemorySource::new(&mut context).unwrap()
}

fn rows(ids: &[i64]) -> RecordBatch {
    let names: ArrayRef = Arc::new(StringViewArray::from_iter_values(ids.iter().map(|id| format!("name {id}"))));
    RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(ids.to_vec())) as ArrayRef), ("name", names)]).unwrap()
}

async fn opened(options: &[(&str, &str)]) -> (MemorySource, Arc<dyn Push>) {
    let mut source = source(options);
    source.open(None, &[]).await.unwrap();
    let pusher = source.pusher().unwrap();
    (source, pusher)
}

#[tokio::test]
async fn conforms() {
    let clock = start_clock();
    let feed = async |source: &mut dyn Source| {
        source.pusher().unwrap().push(rows(&[1, 2, 3, 4, 5]), Value::Null).await.unwrap();
    };
    conformance::source(|| Box::new(source(&[])), &clock, feed).await;
}

#[tokio::test]
async fn a_push_is_an_epoch_never_split_nor_merged() {
    let (mut source, pusher) = opened(&[]).await;
    assert_eq!(pusher.push(rows(&[1, 2, 3]), Value::Null).await.unwrap(), Offset::row(3));
    assert_eq!(pusher.push(rows(&[]), Value::Null).await.unwrap(), Offset::row(3));
    assert_eq!(pusher.push(rows(&[4]), Value::Null).await.unwrap(), Offset::row(4));
    assert_eq!(source.backlog().await.unwrap().rows, Some(4));
    let tight = EpochLimits { max_rows: Some(1), max_bytes: 1, ..limits(conformance::START) };
    let mut lengths = Vec::new();
    while let Some(ranges) = source.plan(&tight).await.unwrap() {
        assert_eq!(ranges.len(), 1);
        lengths.push(ranges[0].range.end.row - ranges[0].range.start.row);
        let read = read_range(&source.reader(), &ranges[0], &ReadRequest::default()).await;
        assert_eq!(read.offsets.len() as u64, ranges[0].range.end.row - ranges[0].range.start.row);
        if let Some(at) = read.batch.column_by_name("at") {
            assert_eq!(at.as_primitive::<Int64Type>().value(0), ranges[0].range.start.row as i64);
        }
    }
    assert_eq!(lengths, [3, 0, 1]);
}

#[tokio::test]
async fn a_full_buffer_makes_pushes_wait_until_rows_are_acknowledged() {
    let (mut source, pusher) = opened(&[("buffer_rows", "3")]).await;
    // More than the buffer holds, but it is empty.
    pusher.push(rows(&[1, 2, 3, 4]), Value::Null).await.unwrap();
    let waiting = tokio::spawn({
        let pusher = Arc::clone(&pusher);
        async move { pusher.push(rows(&[5]), Value::Null).await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    let ranges = source.plan(&limits(conformance::START)).await.unwrap().unwrap();
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished(), "planned rows still take room");
    source.acknowledge(&ranges).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), Offset::row(5));
    let error = source.reader().read(ranges[0].clone(), ReadRequest::default()).await.err().unwrap();
    assert_eq!(error.to_string(), "rows 0 to 4 of stream \"s\" are not in its buffer: they were acknowledged before");
}

#[tokio::test]
async fn columns_go_by_name_and_types_are_cast_where_exact() {
    let (mut source, pusher) = opened(&[]).await;
    let names: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
    let ids: ArrayRef = Arc::new(Float64Array::from(vec![1.0, 2.0]));
    pusher.push(RecordBatch::try_from_iter([("NAME", Arc::clone(&names)), ("id", ids)]).unwrap(), Value::Null).await.unwrap();
    let ranges = source.plan(&limits(conformance::START)).await.unwrap().unwrap();
    let read =
        read_range(&source.reader(), &ranges[0], &ReadRequest { projection: Some(vec![0]), batch_size: 1, ..ReadRequest::default() }).await;
    assert_eq!(read.batch.column(0).as_primitive::<Int64Type>().values(), &[1, 2]);

    let refused = [
        (
            vec![("name", Arc::clone(&names)), ("id", Arc::new(Float64Array::from(vec![1.0, 9.5])) as ArrayRef)],
            "column \"id\" pushed to stream \"s\" has type Float64, and a value would change as Int64",
        ),
        (
            vec![("name", Arc::clone(&names)), ("id", Arc::clone(&names))],
            "column \"id\" pushed to stream \"s\" has type Utf8, and its stream's is Int64",
        ),
        (vec![("name", Arc::clone(&names))], "rows pushed to stream \"s\" lack its column \"id\""),
        (
            vec![("name", Arc::clone(&names)), ("id", Arc::new(Int32Array::from(vec![1, 2])) as ArrayRef), ("x", Arc::clone(&names))],
            "stream \"s\" has no column \"x\"",
        ),
    ];
    for (columns, message) in refused {
        let error = pusher.push(RecordBatch::try_from_iter(columns).unwrap(), Value::Null).await.unwrap_err();
        assert_eq!(error.to_string(), message);
        assert!(error.hint().is_some());
    }
    assert_eq!(source.backlog().await.unwrap().rows, Some(0), "a refused push leaves nothing");
}

#[tokio::test]
async fn an_ended_stream_refuses_pushes_and_stays_ended() {
    let (mut source, pusher) = opened(&[]).await;
    pusher.push(rows(&[1]), Value::Null).await.unwrap();
    pusher.end();
    assert!(!source.backlog().await.unwrap().ended, "the queued row comes first");
    assert_eq!(pusher.push(rows(&[2]), Value::Null).await.unwrap_err().to_string(), "stream \"s\" has ended and takes no more rows");
    source.plan(&limits(conformance::START)).await.unwrap().unwrap();
    assert!(source.backlog().await.unwrap().ended);
    let mut again = self::source(&[]);
    again.open(Some(source.position()), &[]).await.unwrap();
    assert!(again.backlog().await.unwrap().ended);
}

#[tokio::test]
async fn draining_stops_at_the_mark() {
    let (mut source, pusher) = opened(&[]).await;
    pusher.push(rows(&[1]), Value::Null).await.unwrap();
    source.mark_end().await.unwrap();
    pusher.push(rows(&[2]), Value::Null).await.unwrap();
    let draining = EpochLimits { draining: true, ..limits(conformance::START) };
    assert!(source.plan(&draining).await.unwrap().is_some());
    assert!(source.plan(&draining).await.unwrap().is_none());
    assert!(source.plan(&limits(conformance::START)).await.unwrap().is_some());
}

#[tokio::test]
async fn a_dropped_source_frees_waiting_pushes() {
    let (source, pusher) = opened(&[("buffer_rows", "1")]).await;
    pusher.push(rows(&[1]), Value::Null).await.unwrap();
    let waiting = tokio::spawn({
        let pusher = Arc::clone(&pusher);
        async move { pusher.push(rows(&[2]), Value::Null).await }
    });
    tokio::task::yield_now().await;
    drop(source);
    assert_eq!(waiting.await.unwrap().unwrap_err().to_string(), "stream \"s\" is stopped and takes no more rows");
}
