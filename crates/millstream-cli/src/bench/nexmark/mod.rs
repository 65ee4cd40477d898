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
        let measured = measure(query, &input, &scratch, settings, !args.no_compare).await;
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

async fn measure(query: &Query, input: &data::Input, scratch: &Path, settings: &Settings, compare: bool) -> anyhow::Result<Measurement> {
    std::fs::create_dir_all(scratch)?;
    let sink = scratch.join("incremental");
    memory::reset_peak();
    let cpu = cpu::seconds();
    let incremental = incremental::run(query, input, &sink, &scratch.join("state"), settings).await.context("incremental")?;
    let peak_bytes = memory::peak_bytes();
    let incremental_cpu_seconds = cpu::seconds() - cpu;
    let output = incremental.output;
    let mut measurement = Measurement { incremental_cpu_seconds, ..Measurement::incremental(query, input, incremental, peak_bytes) };
    if !query.has_batch_form {
        return Ok(measurement);
    }
    let file = scratch.join("batch.parquet");
    let cpu = cpu::seconds();
    let seconds = batch::run(query, input, &file, settings).await.context("batch")?;
    measurement.batch_cpu_seconds = Some(cpu::seconds() - cpu);
    measurement.batch_seconds = Some(seconds);
    if compare {
        let agree = tokio::task::block_in_place(|| compare::agree(&sink, &file, output)).context("comparing")?;
        measurement.agreement = if agree { Agreement::Yes } else { Agreement::No };
    }
    Ok(measurement)
}
