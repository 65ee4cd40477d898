//! The generator as a source.

use super::column::{Column, Start};
use super::config;
use crate::error::{ConnectorError, Result};
use crate::source::{Backlog, BadRow, EpochLimits, ReadRequest, Reader, Source, SourceBatch, SourceContext, SourceProperties};
use crate::sources::columns::{SourceColumns, batch_of, batch_size};
use crate::sources::pace::{PACE_EXPECTED, Pace};
use crate::sources::position::stored;
use crate::sources::random::{Noise, to_unit};
use crate::sources::schedule::{Position, Schedule, Share};
use arrow::array::{ArrayRef, BooleanArray, Int64Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::filter_record_batch;
use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use millstream_types::{Offset, OptionError, PartitionRange};
use std::sync::Arc;
use tokio::sync::Notify;

/// Event times of an unlimited generator are a millisecond apart.
const UNLIMITED_SPACING_US: f64 = 1_000.0;
/// Usual size of a generated string.
const STRING_BYTES: usize = 16;
/// The pace where none is given.
const DEFAULT_ROWS_PER_SECOND: f64 = 100.0;

/// A source of seeded rows. See the module's documentation.
#[derive(Debug)]
pub struct GeneratorSource {
    schedule: Schedule,
    rows: Arc<Rows>,
}

/// What makes rows out of numbers.
#[derive(Debug)]
struct Rows {
    stream: String,
    columns: SourceColumns,
    rules: Vec<Column>,
    pace: Pace,
    row_bytes: u64,
    corrupt_share: f64,
    corrupt: Noise,
}

impl GeneratorSource {
    /// A generator that has not started.
    ///
    /// # Errors
    /// When an option has no legal value or a column a type without a rule.
    pub fn new(context: &mut SourceContext) -> Result<Self> {
        let stream = context.stream.clone();
        let options = &mut context.options;
        let wrong = |owner: &str, name: &str, value: &str, expected: &str| OptionError::Value {
            owner: owner.into(),
            name: name.into(),
            value: value.into(),
            expected: expected.into(),
        };
        let pace = match options.take("rows_per_second") {
            Some(text) => {
                Pace::parse(&text, UNLIMITED_SPACING_US).ok_or_else(|| wrong(options.owner(), "rows_per_second", &text, PACE_EXPECTED))?
            }
            None => Pace::Constant(DEFAULT_ROWS_PER_SECOND),
        };
        let limit = options.parse::<u64>("row_limit", "a number of rows")?;
        if options.boolean("bounded")? == Some(true) && limit.is_none() {
            return Err(OptionError::Missing { owner: options.owner().into(), name: "row_limit".into() }.into());
        }
        let seed = options.parse::<u64>("seed", "a whole number")?.unwrap_or(0);
        let corrupt_share = options.parse::<f64>("corrupt_share", "a share between 0 and 1")?.unwrap_or(0.0);
        if !(0.0..=1.0).contains(&corrupt_share) {
            return Err(wrong(options.owner(), "corrupt_share", &corrupt_share.to_string(), "a share between 0 and 1").into());
        }
        let mut rules = Vec::with_capacity(context.schema.fields().len());
        for field in context.schema.fields() {
            rules.push(config::column(options, &stream, field, seed)?);
        }
        let row_bytes: u64 =
            context.schema.fields().iter().map(|field| field.data_type().primitive_width().unwrap_or(STRING_BYTES) as u64).sum();
        let columns = SourceColumns::new("generator", context)?;
        let schedule = Schedule::new(&stream, &context.clock, pace, Share::ALL, limit, row_bytes);
        let corrupt = Noise::new(seed, "\0corrupt");
        Ok(Self { schedule, rows: Arc::new(Rows { stream, columns, rules, pace, row_bytes, corrupt_share, corrupt }) })
    }
}

#[async_trait]
impl Source for GeneratorSource {
    fn properties(&self) -> SourceProperties {
        self.schedule.properties()
    }

    async fn open(&mut self, position: Option<serde_json::Value>, replayed: &[PartitionRange]) -> Result<()> {
        self.schedule.open(position.as_ref(), replayed)
    }

    fn wake(&self) -> Arc<Notify> {
        self.schedule.wake()
    }

    async fn backlog(&mut self) -> Result<Backlog> {
        Ok(self.schedule.backlog())
    }

    async fn mark_end(&mut self) -> Result<()> {
        self.schedule.mark_end("row_limit")
    }

    async fn plan(&mut self, limits: &EpochLimits) -> Result<Option<Vec<PartitionRange>>> {
        Ok(self.schedule.plan(limits))
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(GeneratorReader { rows: Arc::clone(&self.rows) })
    }

    async fn acknowledge(&mut self, _ranges: &[PartitionRange]) -> Result<()> {
        Ok(())
    }

    fn position(&self) -> serde_json::Value {
        self.schedule.position()
    }
}

#[derive(Debug)]
struct GeneratorReader {
    rows: Arc<Rows>,
}

#[async_trait]
impl Reader for GeneratorReader {
    async fn read(&self, range: PartitionRange, request: ReadRequest) -> Result<BoxStream<'static, Result<SourceBatch>>> {
        let Position { start_us, .. } = stored(&self.rows.stream, &range.detail)?;
        let (start, end, step) = (range.range.start.row, range.range.end.row, batch_size(request.batch_size));
        let rows = Arc::clone(&self.rows);
        let selected = rows.columns.selected(request.projection.as_deref());
        let starts = (start..end).step_by(step as usize);
        Ok(stream::iter(starts).map(move |first| rows.batch(&selected, start_us, first, (end - first).min(step) as usize)).boxed())
    }
}

impl Rows {
    fn batch(&self, selected: &[usize], start_us: i64, first: u64, rows: usize) -> Result<SourceBatch> {
        let start = Start { start_us, pace: self.pace };
        let mut arrays = Vec::with_capacity(selected.len() + self.columns.metadata.len());
        for index in selected {
            arrays.push(self.rules[*index].values(start, first, rows)?);
        }
        for _ in &self.columns.metadata {
            let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values((first..first + rows as u64).map(|n| n as i64)));
            arrays.push(numbers);
        }
        let batch = batch_of(&self.columns.output_schema(selected), arrays, rows, "generating rows")?;
        let whole = SourceBatch {
            batch,
            sequence: 0,
            rows: None,
            first_row: first,
            bad: Vec::new(),
            places: None,
            bytes: rows as u64 * self.row_bytes,
            event_times: None,
        };
        if self.corrupt_share > 0.0 { self.corrupted(whole) } else { Ok(whole) }
    }

    /// Takes the share of corrupt rows out of a batch.
    fn corrupted(&self, whole: SourceBatch) -> Result<SourceBatch> {
        let first = whole.first_row;
        let good = BooleanBuffer::collect_bool(whole.batch.num_rows(), |index| {
            to_unit(self.corrupt.bits(first + index as u64)) >= self.corrupt_share
        });
        let numbers = |keep: bool| good.iter().zip(first..).filter(move |(good, _)| *good == keep).map(|(_, row)| row);
        let bad = numbers(false)
            .map(|row| BadRow {
                offset: Offset::row(row),
                place: format!("row {row} of generator stream \"{}\"", self.stream),
                reason: "made corrupt by corrupt_share".into(),
                raw: format!("{{\"n\":{row},\"corrupt\":"),
            })
            .collect();
        let rows = numbers(true).collect();
        let batch = filter_record_batch(&whole.batch, &BooleanArray::from(good.clone()))
            .map_err(|error| ConnectorError::internal("taking out corrupt rows", error))?;
        Ok(SourceBatch { batch, rows: Some(rows), bad, ..whole })
    }
}
