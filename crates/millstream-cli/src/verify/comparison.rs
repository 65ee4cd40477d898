//! One cut of one pipeline: the incremental engine and the batch engine get the same changes in the same epochs, then every query is
//! compared.
//!
//! ```text
//!                   ┌─► incremental engine: materialized views ──► SELECT * FROM v ──┐
//!   epoch by epoch ─┤     the same numbers, the same clock                           ├─ the same rows?
//!                   └─► batch engine: streams alone ──► DataFusion runs v as a whole ┘
//! ```
//! Both edges judge the same rows with the same watermark, so both accept the same rows with the same ingest columns: the batch is
//! one over the accepted input, whatever was late in this cut, and processing time is data to it. That the edge loses nothing is looked
//! at apart: where no row was late or bad, an append-only stream must hold exactly what it was fed.

use super::cuts::{EpochParts, Length};
use super::difference::{DifferingRow, difference};
use super::engine::{self, tick};
use super::feed::Feed;
use super::input::{Input, Shape, execute, quoted, view_name};
use super::pipeline::{Checked, Pipeline, Placed};
use crate::args::Cut;
use crate::output::cells::CellFormatter;
use crate::script::rendered;
use crate::settings::Settings;
use arrow::array::RecordBatch;
use millstream_engine::{Engine, EngineError, Stop};
use millstream_types::ManualClock;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How the input is handed out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Handing {
    /// The cut.
    pub(super) cut: Cut,
    /// Rows of each stream.
    pub(super) rows_max: usize,
    /// What random choices begin with.
    pub(super) seed: u64,
    /// Leave a row out of every incremental result.
    pub(super) plant_difference: bool,
}

impl Handing {
    /// How many rows of an input are taken.
    fn rows_of(&self, input: &Input) -> usize {
        let all = input.rows.num_rows();
        if self.cut == Cut::Row && input.comes_first { all } else { all.min(self.rows_max) }
    }
}

/// What became of one query.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Both have the same rows; so many.
    Agrees(usize),
    /// They differ in these rows.
    Differs(Vec<DifferingRow>),
    /// The engine does not take the query.
    Refused(String),
    /// The pipeline stopped, or the batch failed.
    Failed(String),
}

/// What a cut came to.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// Epochs with input.
    pub(super) epochs: usize,
    /// Changes that were fed.
    pub(super) changes: usize,
    /// Deletions among them.
    pub(super) deletions: usize,
    /// Rows that were late.
    pub(super) late: u64,
    /// Rows that did not fit.
    pub(super) bad: u64,
    /// Rows that were left out because of `rows_max`.
    pub(super) left_out: usize,
    /// Verdicts by query.
    pub(super) verdicts: BTreeMap<String, Verdict>,
    /// What is wrong with the accepted rows of a stream.
    pub(super) input_problems: Vec<String>,
}

/// An engine with its clock.
struct Running {
    engine: Engine,
    clock: Arc<ManualClock>,
}

/// Runs one cut.
///
/// # Errors
/// A script failure for a definition that is wrong; what the engine refuses or fails at is a verdict.
pub(super) async fn compare(pipeline: &Pipeline, inputs: &[Input], handing: Handing, settings: &Settings) -> anyhow::Result<Compared> {
    let feeds = inputs.iter().map(|input| Feed::new(input, handing.rows_of(input), handing.seed)).collect::<anyhow::Result<Vec<_>>>()?;
    let definitions = pipeline.incremental_form(inputs);
    let mut compared = Compared::default();
    for (input, feed) in inputs.iter().zip(&feeds) {
        let rows = handing.rows_of(input);
        compared.changes += feed.len();
        compared.deletions += feed.len() - rows;
        compared.left_out += input.rows.num_rows() - rows;
    }
    let (incremental, refused) = set_up(pipeline, &definitions, settings).await?;
    let names: BTreeSet<String> = refused.keys().cloned().collect();
    let (batch, also_refused) = set_up(pipeline, &Pipeline::batch_form(&definitions, &names), settings).await?;
    compared.verdicts.extend(refused.into_iter().chain(also_refused));
    let lengths: Vec<Length> = feeds.iter().map(|feed| Length { changes: feed.len(), comes_first: feed.input.comes_first }).collect();
    let epochs = handing.cut.epochs(&lengths, handing.seed);
    compared.epochs = epochs.len();
    let failure = match run(&incremental, &feeds, &epochs).await? {
        Ok(()) => run(&batch, &feeds, &epochs).await?.err().map(|error| format!("batch: {}", error.render("", None, 1))),
        Err(error) => Some(error.render("", None, 1)),
    };
    if failure.is_none() {
        check_input(&batch.engine, &feeds, &mut compared).await?;
    }
    for checked in pipeline.checked.iter().filter(|checked| checked.skipped.is_none()) {
        if compared.verdicts.contains_key(&checked.name) {
            continue;
        }
        let verdict = match &failure {
            Some(message) => Verdict::Failed(message.clone()),
            None => verdict(checked, &incremental.engine, &batch.engine, handing.plant_difference).await?,
        };
        compared.verdicts.insert(checked.name.clone(), verdict);
    }
    // A pipeline that has failed cannot be stopped a second time.
    let _ = incremental.engine.stop(Stop::Now).await;
    let _ = batch.engine.stop(Stop::Now).await;
    Ok(compared)
}

/// Starts an engine with the definitions and the rows of tables. Views that are refused do not stop the others.
async fn set_up(pipeline: &Pipeline, definitions: &[Placed], settings: &Settings) -> anyhow::Result<(Running, BTreeMap<String, Verdict>)> {
    let (engine, clock) = engine::start(settings).await?;
    let mut refused = BTreeMap::new();
    let file = pipeline.name.as_deref();
    for placed in definitions {
        match view_name(&placed.statement) {
            Some(name) => {
                if let Err(error) = engine.session().execute_parsed(placed.statement.clone()).await {
                    refused.insert(name, Verdict::Refused(rendered(&error, &placed.text, file, placed.line)));
                }
            }
            None => execute(&engine, placed, file).await?,
        }
    }
    for placed in pipeline.table_inserts() {
        execute(&engine, placed, file).await?;
    }
    Ok((Running { engine, clock }, refused))
}

/// Feeds an engine epoch by epoch, then ends the streams. The inner error stopped the pipeline.
async fn run(running: &Running, feeds: &[Feed<'_>], epochs: &[EpochParts]) -> anyhow::Result<Result<(), EngineError>> {
    let engine = &running.engine;
    let sources = feeds.iter().map(|feed| engine.memory_source(&feed.input.name)).collect::<Result<Vec<_>, _>>()?;
    for epoch in epochs {
        tick(&running.clock);
        for (stream, range) in epoch {
            let _queued = sources[*stream].push(feeds[*stream].rows(range.clone())?).await?;
        }
        if let Err(error) = engine.run_epoch().await {
            return Ok(Err(error));
        }
    }
    tick(&running.clock);
    sources.iter().for_each(millstream_engine::MemorySource::end);
    loop {
        match engine.run_epoch().await {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        }
    }
}

/// Looks at what the streams accepted, apart from any query.
async fn check_input(batch: &Engine, feeds: &[Feed<'_>], compared: &mut Compared) -> anyhow::Result<()> {
    for feed in feeds {
        let name = &feed.input.name;
        let text = name.replace('\'', "''");
        let sql = format!("SELECT rows_in, rows_used, rows_bad, rows_late FROM millstream.sources WHERE stream = '{text}'");
        let counts = counts(&select(batch, &sql).await?);
        let [rows_in, used, bad, late] = counts;
        compared.late += late;
        compared.bad += bad;
        if rows_in != feed.len() as u64 || used + bad + late != rows_in {
            compared.input_problems.push(format!(
                "stream \"{name}\" was fed {} changes and counts {rows_in} rows, {used} used, {bad} bad, {late} late",
                feed.len()
            ));
        } else if bad == 0 && late == 0 && feed.input.shape == Shape::Append {
            let expected = feed.remaining()?;
            let columns: Vec<String> = expected.schema().fields().iter().map(|field| quoted(field.name())).collect();
            if columns.is_empty() {
                continue;
            }
            let found = select(batch, &format!("SELECT {} FROM {}", columns.join(", "), quoted(name))).await?;
            if let Some(row) = difference(&[expected], &found)?.first() {
                compared.input_problems.push(format!(
                    "stream \"{name}\" was fed {} times a row that it holds {} times: {}",
                    row.expected, row.found, row.text
                ));
            }
        }
    }
    Ok(())
}

/// The four counts of the first row.
fn counts(batches: &[RecordBatch]) -> [u64; 4] {
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
    let Some(batch) = batches.iter().find(|batch| batch.num_rows() > 0) else { return [0; 4] };
    std::array::from_fn(|column| u64::try_from(batch.column(column).as_primitive::<Int64Type>().value(0)).unwrap_or(0))
}

async fn select(engine: &Engine, sql: &str) -> Result<Vec<RecordBatch>, EngineError> {
    engine.sql(sql).await?.collect().await
}

async fn verdict(checked: &Checked, incremental: &Engine, batch: &Engine, plant: bool) -> anyhow::Result<Verdict> {
    let name = checked.name.replace('\'', "''");
    let failed = select(incremental, &format!("SELECT error FROM millstream.queries WHERE query = '{name}' AND state = 'FAILED'")).await?;
    if let Some(row) = failed.iter().find(|part| part.num_rows() > 0) {
        return Ok(Verdict::Failed(CellFormatter::new(row)?.cell(0, 0)?.unwrap_or_default()));
    }
    let sql = format!("SELECT * FROM {}", quoted(&checked.name));
    let expected = match select(batch, &sql).await {
        Ok(rows) => rows,
        Err(error) => return Ok(Verdict::Failed(format!("batch: {}", error.render(&sql, None, 1)))),
    };
    let mut found = match select(incremental, &sql).await {
        Ok(rows) => rows,
        Err(error) => return Ok(Verdict::Failed(error.render(&sql, None, 1))),
    };
    if plant && let Some(first) = found.iter_mut().find(|part| part.num_rows() > 0) {
        *first = first.slice(1, first.num_rows() - 1);
    }
    let rows = difference(&expected, &found)?;
    Ok(if rows.is_empty() { Verdict::Agrees(expected.iter().map(RecordBatch::num_rows).sum()) } else { Verdict::Differs(rows) })
}
