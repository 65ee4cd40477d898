//! Ticks follow the clock and nothing else.

use super::TimerSource;
use crate::conformance::{self, START, limits, read_range, source_context, start_clock};
use crate::source::{EpochLimits, ReadRequest, Source};
use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int32Type, TimeUnit, TimestampMicrosecondType};
use millstream_types::{Clock, ManualClock};
use std::sync::Arc;
use std::time::Duration;

const TIME: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

fn timer(options: &[(&str, &str)], clock: &Arc<ManualClock>) -> TimerSource {
    TimerSource::new(&mut source_context(&[("tick", DataType::Int32), ("ts", TIME)], options, clock)).unwrap()
}

#[tokio::test]
async fn conforms() {
    let clock = start_clock();
    conformance::source(|| Box::new(timer(&[("interval", "100ms")], &clock)), &clock, async |_: &mut dyn Source| {}).await;
}

#[tokio::test]
async fn ticks_lie_at_multiples_of_the_interval() {
    let clock = start_clock();
    clock.advance(Duration::from_secs(2));
    let mut source = timer(&[("interval", "5s")], &clock);
    source.open(None, &[]).await.unwrap();
    assert_eq!(source.backlog().await.unwrap().next_due, Some(START.plus(Duration::from_secs(5))));
    clock.advance_to(START.plus(Duration::from_millis(4_999)));
    assert_eq!(source.plan(&limits(clock.now())).await.unwrap(), None);
    clock.advance_to(START.plus(Duration::from_secs(15)));
    let ranges = source.plan(&limits(clock.now())).await.unwrap().unwrap();
    let rows = read_range(&source.reader(), &ranges[0], &ReadRequest::default()).await;
    assert_eq!(rows.batch.column(0).as_primitive::<Int32Type>().values(), &[1, 2, 3]);
    let seconds: Vec<i64> =
        rows.batch.column(1).as_primitive::<TimestampMicrosecondType>().values().iter().map(|time| (time - START.0) / 1_000_000).collect();
    assert_eq!(seconds, [5, 10, 15]);
    assert_eq!(source.plan(&limits(clock.now())).await.unwrap(), None);
}

#[tokio::test]
async fn a_limit_ends_the_stream_and_draining_takes_what_is_due() {
    let clock = start_clock();
    let mut source = timer(&[("interval", "1s"), ("row_limit", "4")], &clock);
    source.open(None, &[]).await.unwrap();
    assert!(source.properties().bounded);
    clock.advance(Duration::from_secs(2));
    source.mark_end().await.unwrap();
    clock.advance(Duration::from_secs(20));
    let draining = EpochLimits { draining: true, ..limits(clock.now()) };
    assert_eq!(source.plan(&draining).await.unwrap().unwrap()[0].range.end.row, 2);
    assert_eq!(source.plan(&draining).await.unwrap(), None);
    assert_eq!(source.plan(&limits(clock.now())).await.unwrap().unwrap()[0].range.end.row, 4);
    assert!(source.backlog().await.unwrap().ended);
}

#[test]
fn columns_and_options_are_checked() {
    let clock = start_clock();
    let refused = |column: DataType, options: &[(&str, &str)]| {
        TimerSource::new(&mut source_context(&[("c", column)], options, &clock)).unwrap_err().to_string()
    };
    assert_eq!(refused(DataType::Int64, &[]), "stream \"s\" needs the option \"interval\"");
    assert_eq!(refused(DataType::Int64, &[("interval", "0")]), "interval of stream \"s\" is shorter than a millisecond");
    assert_eq!(refused(DataType::Utf8View, &[("interval", "1s")]), "column \"c\" of timer stream \"s\" has type Utf8View");
}
