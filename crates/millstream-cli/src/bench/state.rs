//! `millstream bench state`: what an epoch costs when there is much state. Every query is filled with as many keys as asked for; then
//! epochs of 1,000 rows touch a thousand of them. The cost should follow the change, not the state. In memory it shows what the operators
//! do, with a directory what an epoch of a durable pipeline costs.

use super::{named, quantile, temporary_under};
use crate::args::StateBenchArgs;
use crate::engine_setup;
use crate::failure::DONE;
use crate::numbers;
use crate::output::table::{Drawing, Grid, Lines, draw};
use crate::settings::Settings;
use crate::terminal::Terminal;
use anyhow::Context;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
use millstream_engine::{Engine, Pushed, Stop, Stopwatch};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

/// Rows of an epoch that fills the state.
const FILL_ROWS: i64 = 100_000;
/// Rows of an epoch that is measured, each of another key.
const TOUCHED: i64 = 1_000;
/// Epochs before the first one that counts.
const WARM_UP: i64 = 10;

/// A query, and the streams that are filled with a row per key.
struct Case {
    name: &'static str,
    query: &'static str,
    filled: &'static str,
}

/// Rows go to `s`; the join finds its matches in `other`.
const CASES: [Case; 6] = [
    Case { name: "aggregate", query: "SELECT k, count(*) AS n, sum(v) AS total FROM s GROUP BY k", filled: "s" },
    Case { name: "extremes", query: "SELECT k, min(v) AS least, max(v) AS most FROM changes GROUP BY k", filled: "changes" },
    Case { name: "distinct", query: "SELECT DISTINCT k FROM s", filled: "s" },
    Case { name: "join", query: "SELECT s.k, s.v, other.v AS w FROM s JOIN other ON s.k = other.k", filled: "other" },
    Case {
        name: "top-3",
        query: "SELECT k, v FROM (SELECT *, row_number() OVER (PARTITION BY k ORDER BY v DESC) AS n FROM s) WHERE n <= 3",
        filled: "s",
    },
    Case { name: "first-100", query: "SELECT k, v FROM changes ORDER BY v DESC, k LIMIT 100", filled: "changes" },
];

/// What was measured of a case.
struct Measured {
    filled: Duration,
    times: Vec<Duration>,
    state_bytes: u64,
}

/// Runs the benchmark.
///
/// # Errors
/// When an epoch fails.
pub(crate) async fn state(args: StateBenchArgs, settings: &Settings) -> anyhow::Result<u8> {
    let which = format!("The queries are {}.", CASES.each_ref().map(|case| case.name).join(", "));
    let cases = named(&CASES, &args.queries, |case| case.name, &which)?;
    let header = ["touching 1,000 keys", "keys", "filled in s", "p50 ms", "p99 ms", "state", "bytes per key", "times the first"];
    let mut right = vec![true; header.len()];
    right[0] = false;
    let mut grid = Grid::new(header.map(String::from).to_vec(), right);
    for case in cases {
        let mut first = None;
        for keys in &args.keys {
            let keys = i64::try_from(*keys)?.max(TOUCHED);
            let Measured { filled, times, state_bytes } = measure(case, keys, &args, settings).await?;
            let p50 = quantile(&times, 50).as_secs_f64() * 1e3;
            let first = *first.get_or_insert(p50);
            grid.rows.push(
                [
                    case.name.to_string(),
                    numbers::short(keys as f64),
                    format!("{:.2}", filled.as_secs_f64()),
                    format!("{p50:.3}"),
                    format!("{:.3}", quantile(&times, 99).as_secs_f64() * 1e3),
                    numbers::bytes(state_bytes),
                    format!("{:.1}", state_bytes as f64 / keys as f64),
                    format!("{:.2}", p50 / first),
                ]
                .map(Some)
                .to_vec(),
            );
        }
    }
    let terminal = Terminal::stdout();
    let lines = if terminal.is_terminal { Lines::Box } else { Lines::Ascii };
    let text = draw(&grid, Drawing { lines, width: None, null: "", color: terminal.color, marks: None }).text;
    writeln!(std::io::stdout().lock(), "{}", text.trim_end())?;
    Ok(DONE)
}

async fn measure(case: &Case, keys: i64, args: &StateBenchArgs, settings: &Settings) -> anyhow::Result<Measured> {
    let dir = args.dir.as_deref().map(temporary_under).transpose()?;
    let mut builder = engine_setup::builder(settings).manual();
    if let Some(dir) = &dir {
        builder = builder.state_dir(dir.path().join("state"));
    }
    let engine = engine_setup::build(builder).await?;
    let stream =
        |name: &str| format!("CREATE STREAM {name} (k BIGINT NOT NULL, v BIGINT NOT NULL) WITH (connector = 'memory', retention = '1 ms')");
    let changes =
        "CREATE STREAM changes (k BIGINT NOT NULL, v BIGINT NOT NULL) WITH (connector = 'memory', op_column = 'op', retention = '1 ms')";
    let sink = format!("CREATE SINK result AS {} WITH (connector = 'blackhole', mode = 'changelog')", case.query);
    // A checkpoint of all state belongs to no epoch that is measured.
    let set = ["SET unbounded_state = 'allow'", "SET checkpoint_interval = '1 day'"];
    for statement in set.into_iter().chain([stream("s").as_str(), &stream("other"), changes, &sink]) {
        engine.sql(statement).await.map_err(|error| anyhow::anyhow!(error.render(statement, None, 1)))?;
    }
    let with_op = case.filled == "changes";
    let watch = Stopwatch::start();
    for from in (0..keys).step_by(usize::try_from(FILL_ROWS)?) {
        let filled: Vec<i64> = (from..keys.min(from + FILL_ROWS)).collect();
        step(&engine, case.filled, rows(&filled, 0, with_op)?).await?;
    }
    let filled = watch.elapsed();
    let touched = if with_op { "changes" } else { "s" };
    let mut times = Vec::new();
    for epoch in 0..i64::try_from(args.epochs)? + WARM_UP {
        // Keys all over the state: neighbouring rows are far apart.
        let touching: Vec<i64> = (0..TOUCHED).map(|row| (row * (keys / TOUCHED) + epoch * 7_919) % keys).collect();
        let batch = rows(&touching, epoch + 1, with_op)?;
        let watch = Stopwatch::start();
        step(&engine, touched, batch).await?;
        if epoch >= WARM_UP {
            times.push(watch.elapsed());
        }
    }
    let state_bytes = engine.report().await?.state_bytes;
    engine.stop(Stop::Now).await?;
    Ok(Measured { filled, times, state_bytes })
}

async fn step(engine: &Engine, stream: &str, batch: RecordBatch) -> anyhow::Result<()> {
    let _queued: Pushed = engine.memory_source(stream)?.push(batch).await?;
    engine.run_epoch().await?.context("the epoch did not run")?;
    Ok(())
}

/// A row of each key whose value nobody had before.
fn rows(keys: &[i64], number: i64, with_op: bool) -> anyhow::Result<RecordBatch> {
    let values = keys.iter().map(|key| key.wrapping_mul(31) % 1_000 + number);
    let mut columns: Vec<(&str, ArrayRef)> =
        vec![("k", Arc::new(Int64Array::from_iter_values(keys.iter().copied()))), ("v", Arc::new(Int64Array::from_iter_values(values)))];
    if with_op {
        columns.push(("op", Arc::new(StringViewArray::from_iter_values(keys.iter().map(|_| "+")))));
    }
    Ok(RecordBatch::try_from_iter(columns)?)
}
