//! `millstream bench nexmark`: each query incrementally and, in the same process on the same files, as one DataFusion batch.
//!
//! ```text
//!   DIR/bid/000001.parquet ──┐  one file of each stream per epoch   ┌─► engine ──► Parquet sink ──┐
//!   DIR/auction/000001 ...   ├──────────────────────────────────────┤                             ├─ compared
//!   DIR/person/000001 ...  ──┘  all files at once                   └─► DataFusion ──► Parquet ───┘
//! ```
//! Both read the same columns of the same files and write Parquet with the same compression, dictionary and statistics. The
//! incremental run is durable: state directory, commit records, checkpoints. The ratio is batch time by incremental time.

mod batch;
mod compare;
mod cpu;
pub(crate) mod data;
mod incremental;
pub(crate) mod queries;
mod report;

use crate::args::NexmarkArgs;
use crate::failure::{DONE, FAILED, Failure};
use crate::memory;
use crate::message;
use crate::settings::Settings;
use anyhow::Context;
use queries::Query;
use report::{Agreement, Measurement};
use std::path::Path;

/// Runs the benchmark.
///
/// # Errors
/// When a query is unknown, the data cannot be generated, or results differ.
pub(crate) async fn nexmark(args: NexmarkArgs, settings: &Settings) -> anyhow::Result<u8> {
    let chosen = queries::chosen(&args.queries)?;
    let temporary = tempfile::tempdir().context("making a temporary directory")?;
    let data = args.dir.clone().unwrap_or_else(|| temporary.path().join("data"));
    let input = tokio::task::block_in_place(|| data::prepare(&data, args.events, args.epoch_rows))?;
    let mut measurements = Vec::new();
    for query in chosen {
        let scratch = temporary.path().join(query.name);
        let measured = measure(query, &input, &scratch, settings, &args).await;
        // Results are large; the next query needs their space.
        let _ = std::fs::remove_dir_all(&scratch);
        let measurement = measured.unwrap_or_else(|error| Measurement::failed(query.name, &error));
        if args.json {
            print_line(&serde_json::to_string(&measurement)?)?;
        } else {
            message::line(&measurement.line());
        }
        measurements.push(measurement);
    }
    if !args.json {
        print_line(report::table(&measurements).trim_end())?;
    }
    let wrong: Vec<&str> = measurements.iter().filter(|measurement| measurement.is_wrong()).map(|measurement| measurement.query).collect();
    if wrong.is_empty() {
        return Ok(DONE);
    }
    Err(Failure { code: FAILED, message: format!("failed or with differing results: {}", wrong.join(", ")) }.into())
}

fn print_line(text: &str) -> std::io::Result<()> {
    use std::io::Write;
    writeln!(std::io::stdout().lock(), "{text}")
}

/// The medians of as many rounds as were asked for. Batch goes first in every other one: the first run of a process pays for the memory
/// that the second one finds.
async fn measure(
    query: &Query,
    input: &data::Input,
    scratch: &Path,
    settings: &Settings,
    args: &NexmarkArgs,
) -> anyhow::Result<Measurement> {
    let mut rounds = Vec::new();
    for round in 0..args.repeat {
        let scratch = scratch.join(round.to_string());
        std::fs::create_dir_all(&scratch)?;
        rounds.push(measure_once(query, input, &scratch, settings, (round % 2 == 1, !args.no_compare)).await?);
        let _ = std::fs::remove_dir_all(&scratch);
    }
    report::median(rounds).context("no round was run")
}

async fn measure_once(
    query: &Query,
    input: &data::Input,
    scratch: &Path,
    settings: &Settings,
    (batch_first, compare): (bool, bool),
) -> anyhow::Result<Measurement> {
    let (sink, file) = (scratch.join("incremental"), scratch.join("batch.parquet"));
    let in_batch = async || -> anyhow::Result<(f64, f64)> {
        let cpu = cpu::seconds();
        let seconds = batch::run(query, input, &file, settings).await.context("batch")?;
        Ok((seconds, cpu::seconds() - cpu))
    };
    let before = if query.has_batch_form && batch_first { Some(in_batch().await?) } else { None };
    memory::reset_peak();
    let cpu = cpu::seconds();
    let incremental = incremental::run(query, input, &sink, &scratch.join("state"), settings).await.context("incremental")?;
    let peak_bytes = memory::peak_bytes();
    let incremental_cpu_seconds = cpu::seconds() - cpu;
    let output = incremental.output;
    let mut measurement = Measurement { incremental_cpu_seconds, ..Measurement::incremental(query, input, incremental, peak_bytes) };
    let batch = if query.has_batch_form && !batch_first { Some(in_batch().await?) } else { before };
    let Some((seconds, cpu_seconds)) = batch else { return Ok(measurement) };
    measurement.batch_cpu_seconds = Some(cpu_seconds);
    measurement.batch_seconds = Some(seconds);
    if compare {
        let agree = tokio::task::block_in_place(|| compare::agree(&sink, &file, output)).context("comparing")?;
        measurement.agreement = if agree { Agreement::Yes } else { Agreement::No };
    }
    Ok(measurement)
}
