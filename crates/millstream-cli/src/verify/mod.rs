//! `millstream verify`: the queries of a pipeline incrementally and as one DataFusion batch over the same bounded input, compared.
//!
//! The input of every stream is read once, then handed out under several cuts into epochs (everything in one, one row each, random
//! sizes), each to a fresh engine in memory; nothing is written. `comparison.rs` says what is compared with what.
//!
//! | file | for |
//! | --- | --- |
//! | `pipeline.rs`, `stream_form.rs` | what a file defines, as it is read, fed and run as a batch |
//! | `input.rs`, `feed.rs`, `cuts.rs` | the rows of the streams; deletions among them; how they are cut |
//! | `engine.rs`, `comparison.rs`, `difference.rs` | the two engines, and how their results differ |
//! | `report.rs` | what is printed, and the exit code |
//! | `nexmark.rs`, `tpch.rs` | the queries that the program brings along |

mod comparison;
mod cuts;
mod difference;
mod engine;
mod feed;
mod input;
mod nexmark;
mod pipeline;
mod report;
mod stream_form;
mod tpch;

use crate::args::{Cut, FeedingArgs, GlobalArgs, Suite, VerifyArgs};
use crate::failure::{Failure, USAGE};
use crate::pipeline_file;
use crate::settings::Settings;
use comparison::{Handing, compare};
use input::Input;
use pipeline::Pipeline;
use report::Report;
use std::path::Path;

/// Rows of each stream that a cut of one row per epoch takes unless told otherwise.
const ROW_CUT_ROWS_MAX: u64 = 2_000;

/// Compares the queries of files, or of a benchmark.
///
/// # Errors
/// A usage error for unknown names, a script failure for a file that is wrong, a failure when results differ.
pub(crate) async fn verify(args: VerifyArgs, global: &GlobalArgs, settings: &Settings) -> anyhow::Result<u8> {
    let mut report = Report::new(global.quiet);
    match &args.suite {
        Some(Suite::Tpch(args)) => tpch::verify(args, &mut report, settings).await?,
        Some(Suite::Nexmark(args)) => nexmark::verify(args, &mut report, settings).await?,
        None => {
            for file in &args.files {
                let name = file.display().to_string();
                if args.files.len() > 1 {
                    report.heading(&name)?;
                }
                match verify_file(file, &args, &mut report, settings).await {
                    Ok(()) => {}
                    // One file's mistakes do not keep the others from being compared; wrong usage does.
                    Err(error) if args.files.len() > 1 && !is_usage(&error) => report.broken(&name, &error),
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(report.finish()?)
}

fn is_usage(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Failure>().is_some_and(|failure| failure.code == USAGE)
}

async fn verify_file(file: &Path, args: &VerifyArgs, report: &mut Report, settings: &Settings) -> anyhow::Result<()> {
    let script = pipeline_file::read(file, &args.variables, &args.set)?;
    let mut pipeline = Pipeline::new(&script, &args.set)?;
    pipeline.choose(&args.queries)?;
    let endless = pipeline.sources().find_map(|(_, stream)| input::endless(stream));
    let inputs = match endless {
        Some(reason) => {
            pipeline.skip_all(&reason);
            Vec::new()
        }
        None => input::read(&pipeline, args.feeding.deletions, args.feeding.rows_max, settings).await?,
    };
    verify_pipeline(&pipeline, &inputs, &args.feeding, report, settings, pipeline.width()).await
}

/// Compares the queries of one pipeline under all cuts; `width` is that of the longest name.
async fn verify_pipeline(
    pipeline: &Pipeline,
    inputs: &[Input],
    feeding: &FeedingArgs,
    report: &mut Report,
    settings: &Settings,
    width: usize,
) -> anyhow::Result<()> {
    for checked in &pipeline.checked {
        if let Some(reason) = &checked.skipped {
            report.skipped(&checked.name, width, reason)?;
        }
    }
    let compared_names = || pipeline.checked.iter().filter(|checked| checked.skipped.is_none()).map(|checked| checked.name.as_str());
    if compared_names().next().is_none() {
        return Ok(());
    }
    for &cut in &feeding.cuts {
        let rows_max = feeding.rows_max.or((cut == Cut::Row).then_some(ROW_CUT_ROWS_MAX));
        let rows_max = rows_max.map_or(usize::MAX, |rows| usize::try_from(rows).unwrap_or(usize::MAX));
        let handing = Handing { cut, rows_max, seed: feeding.seed, plant_difference: feeding.plant_difference };
        let compared = compare(pipeline, inputs, handing, settings).await?;
        if compared.left_out > 0 && feeding.rows_max.is_none() {
            report.limited(cut, ROW_CUT_ROWS_MAX);
        }
        report.compared(compared_names(), width, cut, &compared)?;
    }
    Ok(())
}
