//! `millstream bench epoch`: what an epoch itself costs. One row is pushed and one epoch run, many times over.
//!
//! Three pipelines: a view in memory, the same view with a state directory (one sync per epoch), and a sink that writes a Parquet file
//! per epoch into one directory. The first and the last tenth of the epochs are shown beside each other: the cost must not grow with
//! the history. A fourth line is the floor under the durable ones: appending 1 kB to a file and syncing it.

use super::{quantile, temporary_under};
use crate::args::EpochArgs;
use crate::engine_setup;
use crate::failure::DONE;
use crate::numbers;
use crate::output::table::{Drawing, Grid, Lines, draw};
use crate::settings::Settings;
use crate::terminal::Terminal;
use anyhow::Context;
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use millstream_engine::{Stop, Stopwatch};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const STREAM: &str = "CREATE STREAM s (k BIGINT, v BIGINT) WITH (connector = 'memory', retention = '1 ms')";
const VIEW: &str = "CREATE MATERIALIZED VIEW totals AS SELECT k, count(*) AS n, sum(v) AS total FROM s GROUP BY k";
/// Different keys among the rows.
const KEYS: i64 = 100;

/// Runs the benchmark.
///
/// # Errors
/// When an epoch fails or the directory cannot be written.
pub(crate) async fn epoch(args: EpochArgs, settings: &Settings) -> anyhow::Result<u8> {
    let dir = match &args.dir {
        Some(dir) => temporary_under(dir)?,
        None => tempfile::tempdir().context("making a temporary directory")?,
    };
    let sink = format!(
        "CREATE SINK files AS SELECT k, v FROM s WITH (connector = 'parquet', path = '{}', roll_interval = '0s')",
        dir.path().join("files").display()
    );
    let rows = vec![
        row("view, in memory", pipeline(VIEW, None, args.epochs, settings).await?),
        row("view, durable", pipeline(VIEW, Some(&dir.path().join("view")), args.epochs, settings).await?),
        row("a file per epoch, durable", pipeline(&sink, Some(&dir.path().join("sink")), args.epochs, settings).await?),
        row("append and sync alone", tokio::task::block_in_place(|| appends(&dir.path().join("floor"), args.epochs))?),
    ];
    let terminal = Terminal::stdout();
    let header = ["one row per epoch", "epochs", "p50 ms", "p99 ms", "max ms", "p50 of the first tenth", "of the last"];
    let mut right = vec![true; header.len()];
    right[0] = false;
    let mut grid = Grid::new(header.map(String::from).to_vec(), right);
    grid.rows = rows;
    let lines = if terminal.is_terminal { Lines::Box } else { Lines::Ascii };
    let text = draw(&grid, Drawing { lines, width: None, null: "", color: terminal.color, marks: None }).text;
    writeln!(std::io::stdout().lock(), "{}", text.trim_end())?;
    Ok(DONE)
}

/// Times of the epochs of a pipeline that one statement makes over the stream, from the push of a row to the end of its epoch.
async fn pipeline(statement: &str, state_dir: Option<&Path>, epochs: u64, settings: &Settings) -> anyhow::Result<Vec<Duration>> {
    let mut builder = engine_setup::builder(settings).manual();
    if let Some(dir) = state_dir {
        builder = builder.state_dir(dir);
    }
    let engine = engine_setup::build(builder).await?;
    for statement in [STREAM, statement] {
        engine.sql(statement).await.map_err(|error| anyhow::anyhow!(error.render(statement, None, 1)))?;
    }
    let source = engine.memory_source("s")?;
    let mut times = Vec::new();
    for number in 0..i64::try_from(epochs)? {
        let columns: [(&str, ArrayRef); 2] =
            [("k", Arc::new(Int64Array::from(vec![number % KEYS]))), ("v", Arc::new(Int64Array::from(vec![number])))];
        let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))?;
        let watch = Stopwatch::start();
        let _queued = source.push(batch).await?;
        engine.run_epoch().await?.context("the epoch did not run")?;
        times.push(watch.elapsed());
    }
    engine.stop(Stop::Now).await?;
    Ok(times)
}

fn appends(path: &Path, count: u64) -> anyhow::Result<Vec<Duration>> {
    let mut file = std::fs::File::create(path)?;
    let bytes = [b'x'; 1024];
    let mut times = Vec::new();
    for _ in 0..count {
        let watch = Stopwatch::start();
        file.write_all(&bytes)?;
        file.sync_data()?;
        times.push(watch.elapsed());
    }
    Ok(times)
}

fn row(name: &str, times: Vec<Duration>) -> Vec<Option<String>> {
    let tenth = (times.len() / 10).max(1);
    let (first, last) = (quantile(&times[..tenth], 50), quantile(&times[times.len() - tenth..], 50));
    let figures = [quantile(&times, 50), quantile(&times, 99), quantile(&times, 100), first, last];
    let mut cells = vec![Some(name.to_string()), Some(numbers::short(times.len() as f64))];
    cells.extend(figures.map(|time| Some(format!("{:.3}", time.as_secs_f64() * 1e3))));
    cells
}
