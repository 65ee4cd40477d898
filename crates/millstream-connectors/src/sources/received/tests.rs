//! The buffer is bounded, fair and forgets what is acknowledged.

use super::{LineBuffer, LineReceiver};
use crate::conformance::{START, limits, start_clock};
use crate::formats::SplitOptions;
use crate::source::EpochLimits;
use std::sync::Arc;

fn buffer(bytes: u64) -> Arc<LineBuffer> {
    Arc::new(LineBuffer::new(start_clock(), bytes))
}

fn receiver(buffer: &Arc<LineBuffer>, partition: &str) -> LineReceiver {
    buffer.start_partition(partition, 0);
    LineReceiver::new(buffer, partition, "peer", SplitOptions::default(), None)
}

fn spans(buffer: &LineBuffer, limits: &EpochLimits) -> Vec<(String, u64, u64)> {
    let ranges = buffer.plan(limits).unwrap_or_default();
    ranges.into_iter().map(|range| (range.partition, range.range.start.row, range.range.end.row)).collect()
}

#[tokio::test]
async fn partitions_share_the_limits() {
    let buffer = buffer(1_000_000);
    let (mut busy, mut quiet) = (receiver(&buffer, "1"), receiver(&buffer, "2"));
    busy.receive("x\n".repeat(100).as_bytes()).await;
    quiet.receive(b"a\nb\nunfinished").await;
    let ten = EpochLimits { max_rows: Some(10), ..limits(START) };
    assert_eq!(spans(&buffer, &ten), [("1".into(), 0, 8), ("2".into(), 0, 2)]);
    assert_eq!(spans(&buffer, &ten), [("1".into(), 8, 18)]);
    let bytes = EpochLimits { max_bytes: 20, ..limits(START) };
    assert_eq!(spans(&buffer, &bytes), [("1".into(), 18, 28)]);
    quiet.finish();
    assert_eq!(spans(&buffer, &limits(START)), [("1".into(), 28, 100), ("2".into(), 2, 3)]);
}

#[tokio::test]
async fn a_full_buffer_holds_the_receiver_up_until_rows_are_acknowledged() {
    let buffer = buffer(10);
    let mut receiver = receiver(&buffer, "");
    let waiting = tokio::spawn(async move { receiver.receive(b"a line\nanother line\n").await });
    buffer.wait_for_lines().await;
    tokio::task::yield_now().await;
    let ranges = buffer.plan(&limits(START)).unwrap();
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    buffer.acknowledge(&ranges);
    waiting.await.unwrap();
}

#[tokio::test]
async fn a_closed_partition_is_dropped_when_it_is_read() {
    let buffer = buffer(1_000_000);
    let mut first = receiver(&buffer, "1");
    receiver(&buffer, "2");
    first.receive(b"a\n").await;
    buffer.close_partition("1");
    buffer.close_partition("2");
    let names = |buffer: &LineBuffer| buffer.backlog().latest.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(&buffer), ["1"]);
    let ranges = buffer.plan(&limits(START)).unwrap();
    assert!(names(&buffer).is_empty());
    assert!(buffer.segments(&ranges[0]).is_some(), "its rows stay readable until acknowledged");
    buffer.acknowledge(&ranges);
    assert!(buffer.segments(&ranges[0]).is_none());
}

#[tokio::test]
async fn the_mark_bounds_old_and_new_partitions() {
    let buffer = buffer(1_000_000);
    let mut first = receiver(&buffer, "1");
    first.receive(b"a\n").await;
    buffer.mark_end();
    first.receive(b"b\n").await;
    receiver(&buffer, "2").receive(b"c\n").await;
    let draining = EpochLimits { draining: true, ..limits(START) };
    assert_eq!(spans(&buffer, &draining), [("1".into(), 0, 1)]);
    assert!(spans(&buffer, &draining).is_empty());
    assert_eq!(spans(&buffer, &limits(START)), [("1".into(), 1, 2), ("2".into(), 0, 1)]);
}
