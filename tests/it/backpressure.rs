//! Back-pressure: rows of a push source wait when they come faster than they are processed. Processing time passes on a clock that
//! only the test moves, so that every rate is known.

use crate::support::{self, instance::START};
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use futures::FutureExt;
use millstream::{Clock, Engine, ManualClock};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// An engine in which processing an epoch takes as long as `cost` says: its callback moves the clock.
async fn engine(options: &str) -> (Engine, Arc<ManualClock>, Arc<Mutex<Duration>>) {
    let clock = Arc::new(ManualClock::new(START));
    let cost = Arc::new(Mutex::new(Duration::ZERO));
    let engine = Engine::builder().clock(Arc::clone(&clock) as Arc<dyn Clock>).manual().build().await.expect("an engine");
    let (moved, takes) = (Arc::clone(&clock), Arc::clone(&cost));
    let callback = move |_epoch, _changes| {
        moved.advance(*takes.lock());
        async { Ok(()) }.boxed()
    };
    engine.on_epoch("costly", Arc::new(callback)).await.expect("a callback");
    for statement in [
        format!("CREATE STREAM numbers (n BIGINT) WITH (connector = 'memory' {options})"),
        "CREATE SINK costly AS SELECT n FROM numbers WITH (connector = 'callback')".to_string(),
    ] {
        engine.sql(&statement).await.expect("a definition");
    }
    (engine, clock, cost)
}

async fn push(engine: &Engine, rows: usize) {
    let column: ArrayRef = Arc::new(Int64Array::from_value(1, rows));
    let source = engine.memory_source("numbers").expect("a memory stream");
    let batch = RecordBatch::try_new(source.schema(), vec![column]).expect("a batch");
    drop(source.push(batch).await.expect("a push"));
}

async fn rate(engine: &Engine) -> Vec<String> {
    let sql = "SELECT rate_limit FROM millstream.sources";
    let batches = engine.sql(sql).await.expect("a query").collect().await.expect("its rows");
    support::output::rows(&batches).expect("every SQL type has a text form")
}

#[tokio::test]
async fn rows_wait_until_the_processing_rate_allows_them() {
    let (engine, clock, cost) = engine(", backpressure = 'true'").await;
    assert_eq!(rate(&engine).await, ["NULL"]);
    *cost.lock() = Duration::from_millis(500);
    push(&engine, 1_000).await;
    assert!(engine.run_epoch().await.expect("an epoch").is_some());
    // The first epoch notes 1,000 rows in half a second.
    assert_eq!(rate(&engine).await, ["2000.0"]);

    *cost.lock() = Duration::from_secs(2);
    push(&engine, 1_000).await;
    assert!(engine.run_epoch().await.expect("an epoch").is_some());
    // 2,000 - 1.0 * (2,000 - 500).
    assert_eq!(rate(&engine).await, ["500.0"]);

    // A push is never split. The allowance was 200 - 1,000 rows, plus two seconds of 500; the next one overdraws it by 9,800.
    *cost.lock() = Duration::ZERO;
    push(&engine, 10_000).await;
    push(&engine, 10).await;
    assert!(engine.run_epoch().await.expect("an epoch").is_some());
    assert!(engine.run_epoch().await.expect("no epoch").is_none(), "the rows wait");
    clock.advance(Duration::from_secs(19));
    assert!(engine.run_epoch().await.expect("no epoch").is_none(), "the rows still wait");
    clock.advance(Duration::from_secs(1));
    assert!(engine.run_epoch().await.expect("an epoch").is_some());
}

#[tokio::test]
async fn without_the_option_nothing_waits() {
    let (engine, _, cost) = engine("").await;
    *cost.lock() = Duration::from_secs(10);
    for _ in 0..3 {
        push(&engine, 10_000).await;
        push(&engine, 10_000).await;
    }
    for _ in 0..6 {
        assert!(engine.run_epoch().await.expect("an epoch").is_some());
    }
    assert_eq!(rate(&engine).await, ["NULL"]);
    engine.sql("SET backpressure = 'true'").await.expect("a setting");
    assert_ne!(rate(&engine).await, ["NULL"]);
    engine
        .sql("CREATE STREAM ticks (n BIGINT) WITH (connector = 'timer', interval = '1s', backpressure = 'true')")
        .await
        .expect_err("a timer does not push");
}
