//! State that a watermark bounds does not grow: over 1,000 windows every operator holds as much as it did after the first 100.

use crate::support::instance::START;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use millstream::{Clock, Engine, ManualClock, Stop};
use std::sync::Arc;

const SECOND: i64 = 1_000_000;
/// A window, and the event time that an epoch brings.
const WINDOW: i64 = 10 * SECOND;
/// Rows of an epoch, each of another key.
const KEYS: i64 = 50;

/// Queries by what bounds them.
const QUERIES: [(&str, &str); 8] = [
    (
        "tumble",
        "SELECT window_start, k, count(*) AS n FROM TUMBLE(s, ts, INTERVAL '10 seconds') GROUP BY window_start, k EMIT ON WINDOW CLOSE",
    ),
    (
        "hop",
        "SELECT window_start, k, sum(v) AS v FROM HOP(s, ts, INTERVAL '10 seconds', INTERVAL '30 seconds') GROUP BY window_start, k
         EMIT ON WINDOW CLOSE",
    ),
    (
        "session",
        "SELECT window_start, window_end, k, count(*) AS n FROM SESSION(s PARTITION BY k, ts, INTERVAL '4 seconds')
         GROUP BY window_start, window_end, k EMIT ON WINDOW CLOSE",
    ),
    (
        "interval join",
        "SELECT s.k, s.v, o.v AS w FROM s JOIN o ON s.k = o.k AND o.ts BETWEEN s.ts - INTERVAL '5 seconds' AND s.ts + INTERVAL '5 seconds'",
    ),
    (
        "window join",
        "SELECT a.k, a.window_start, b.v FROM TUMBLE(s, ts, INTERVAL '10 seconds') a JOIN TUMBLE(o, ts, INTERVAL '10 seconds') b ON a.k = b.k AND a.window_start = b.window_start",
    ),
    (
        "deduplication",
        "SELECT window_start, k, v FROM (SELECT *, row_number() OVER (PARTITION BY window_start, k ORDER BY ts) AS n
         FROM TUMBLE(s, ts, INTERVAL '10 seconds')) WHERE n = 1 EMIT ON WINDOW CLOSE",
    ),
    ("versions of keys", "SELECT s.k, s.v, u.v AS w FROM s JOIN u FOR SYSTEM_TIME AS OF s.ts ON s.k = u.k"),
    ("distinct", "SELECT DISTINCT window_start, k FROM TUMBLE(s, ts, INTERVAL '10 seconds') EMIT ON WINDOW CLOSE"),
];

/// Rows of the window: every key twice, two seconds apart.
async fn push(engine: &Engine, stream: &str, window: i64) {
    let source = engine.memory_source(stream).expect("a memory stream");
    let keys = (0..2 * KEYS).map(|row| row % KEYS);
    let times = (0..2 * KEYS).map(|row| window * WINDOW + row / KEYS * 2 * SECOND);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(keys.clone())),
        Arc::new(Int64Array::from_iter_values(keys.map(|key| key * window))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(times)),
    ];
    let batch = RecordBatch::try_new(source.schema(), columns).expect("a batch");
    drop(source.push(batch).await.expect("a push"));
}

/// The state of a query's operators after the 100th window and the most there was from then to the 1,000th.
async fn states(query: &str) -> (u64, u64) {
    let clock = Arc::new(ManualClock::new(START));
    let engine = Engine::builder().clock(clock as Arc<dyn Clock>).manual().build().await.expect("an engine");
    for stream in ["s", "o"] {
        let columns = "k BIGINT NOT NULL, v BIGINT NOT NULL, ts TIMESTAMP NOT NULL, WATERMARK FOR ts AS ts - INTERVAL '5 seconds'";
        let sql = format!("CREATE STREAM {stream} ({columns}) WITH (connector = 'memory', retention = '1 ms')");
        engine.sql(&sql).await.expect("a stream");
    }
    // Every key changes in every window, so that the row before a change is not below the watermark yet.
    let columns = "k BIGINT, v BIGINT NOT NULL, ts TIMESTAMP, PRIMARY KEY (k), WATERMARK FOR ts AS ts - INTERVAL '15 seconds'";
    engine.sql(&format!("CREATE STREAM u ({columns}) WITH (connector = 'memory', retention = '1 ms')")).await.expect("a stream");
    let (select, emit) = query.split_once("EMIT").map_or((query, String::new()), |(select, emit)| (select, format!("EMIT{emit}")));
    engine.sql(&format!("CREATE SINK k AS {select} {emit} WITH (connector = 'blackhole')")).await.expect("a sink");
    let (mut first, mut most) = (0, 0);
    for window in 0..1_000 {
        push(&engine, "s", window).await;
        push(&engine, "o", window).await;
        push(&engine, "u", window).await;
        engine.run_epoch().await.expect("an epoch");
        if window % 100 == 99 {
            let bytes = engine.report().await.expect("a report").state_bytes;
            if window == 99 {
                first = bytes;
            }
            most = most.max(bytes);
        }
    }
    engine.stop(Stop::Now).await.expect("a stop");
    (first, most)
}

#[tokio::test]
async fn bounded_state_is_as_large_after_1000_windows_as_after_100() {
    for (name, query) in QUERIES {
        let (first, most) = states(query).await;
        println!("{name}: {first} bytes after 100 windows, {most} at most up to 1,000");
        assert!(first > 0, "{name} keeps nothing");
        assert!(most * 10 <= first * 12, "{name} keeps {first} bytes after 100 windows, and {most} later");
    }
}
