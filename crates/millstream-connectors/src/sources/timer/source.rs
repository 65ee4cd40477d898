//! Ticks as a function of the clock.

use crate::error::{ConnectorError, Result};
use crate::source::{Backlog, EpochLimits, ReadRequest, Reader, Source, SourceBatch, SourceContext, SourceProperties, single_partition};
use crate::sources::columns::{SourceColumns, batch_of, batch_size};
use crate::sources::position::stored;
use arrow::array::{ArrayRef, Int64Array, TimestampMicrosecondArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, TimeUnit};
use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use millstream_types::{Clock, EventTime, Offset, OptionError, PartitionRange};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::Notify;

/// Ticks handed out in one epoch at most, where the engine sets no limit: a timer that was down for long catches up in steps.
const MAX_TICKS_PER_EPOCH: u64 = 100_000;

/// A source of ticks. See the module's documentation.
#[derive(Debug)]
pub struct TimerSource {
    stream: String,
    columns: SourceColumns,
    clock: Arc<dyn Clock>,
    wake: Arc<Notify>,
    interval_us: i64,
    limit: Option<u64>,
    position: Position,
    mark: Option<u64>,
}

/// What a checkpoint keeps, and every range: the time of tick 1 (row 0), in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Position {
    first_us: i64,
    next: u64,
}

impl TimerSource {
    /// A timer that has not started.
    ///
    /// # Errors
    /// When an option has no legal value or a column neither an integer nor a timestamp type.
    pub fn new(context: &mut SourceContext) -> Result<Self> {
        let interval = context
            .options
            .duration("interval")?
            .ok_or_else(|| OptionError::Missing { owner: context.options.owner().to_string(), name: "interval".into() })?;
        let limit = context.options.parse::<u64>("row_limit", "a number of rows")?;
        let bounded = context.options.boolean("bounded")?.unwrap_or(false);
        if bounded && limit.is_none() {
            return Err(ConnectorError::invalid(
                format!("stream \"{}\" is declared bounded, but a timer does not end", context.stream),
                "Set row_limit.",
            ));
        }
        let interval_us = i64::try_from(interval.as_micros()).ok().filter(|interval| *interval >= 1_000).ok_or_else(|| {
            ConnectorError::invalid(
                format!("interval of stream \"{}\" is shorter than a millisecond", context.stream),
                "Epoch clocks differ by 1 ms at least.",
            )
        })?;
        if let Some(field) = context.schema.fields().iter().find(|field| !is_supported(field.data_type())) {
            return Err(ConnectorError::invalid(
                format!("column \"{}\" of timer stream \"{}\" has type {}", field.name(), context.stream, field.data_type()),
                "A timer fills integer columns with the tick's number and timestamp columns with its time; compute the others AS an expression.",
            ));
        }
        Ok(Self {
            stream: context.stream.clone(),
            columns: SourceColumns::new("timer", context)?,
            clock: Arc::clone(&context.clock),
            wake: Arc::new(Notify::new()),
            interval_us,
            limit,
            position: Position::default(),
            mark: None,
        })
    }

    /// Ticks that are due at `time`, from the first one.
    fn due(&self, time: EventTime) -> u64 {
        let elapsed = time.0.saturating_sub(self.position.first_us);
        let due = if elapsed < 0 { 0 } else { (elapsed / self.interval_us) as u64 + 1 };
        due.min(self.limit.unwrap_or(u64::MAX))
    }
}

fn is_supported(data_type: &DataType) -> bool {
    data_type.is_integer() || matches!(data_type, DataType::Timestamp(..))
}

/// The first multiple of the interval after `time`.
fn first_tick(time: EventTime, interval_us: i64) -> i64 {
    (time.0.div_euclid(interval_us) + 1).saturating_mul(interval_us)
}

#[async_trait]
impl Source for TimerSource {
    fn properties(&self) -> SourceProperties {
        SourceProperties { replayable: true, bounded: self.limit.is_some() }
    }

    async fn open(&mut self, position: Option<serde_json::Value>, replayed: &[PartitionRange]) -> Result<()> {
        let mut start: Position = match (&position, replayed.first()) {
            (Some(value), _) => stored(&self.stream, value)?,
            (None, Some(range)) => stored(&self.stream, &range.detail)?,
            (None, None) => Position { first_us: first_tick(self.clock.now(), self.interval_us), next: 0 },
        };
        start.next = replayed.iter().map(|range| range.range.end.row).fold(start.next, u64::max);
        self.position = start;
        Ok(())
    }

    fn wake(&self) -> Arc<Notify> {
        Arc::clone(&self.wake)
    }

    async fn backlog(&mut self) -> Result<Backlog> {
        let due = self.due(self.clock.now());
        let ended = self.limit.is_some_and(|limit| self.position.next >= limit);
        let next_us = self.position.first_us.saturating_add(self.interval_us.saturating_mul(self.position.next as i64));
        Ok(Backlog {
            rows: Some(due.saturating_sub(self.position.next)),
            latest: vec![(String::new(), Offset::row(due))],
            ended,
            next_due: (!ended).then_some(EventTime(next_us)),
            ..Backlog::default()
        })
    }

    async fn mark_end(&mut self) -> Result<()> {
        self.mark = Some(self.due(self.clock.now()).max(self.position.next));
        Ok(())
    }

    async fn plan(&mut self, limits: &EpochLimits) -> Result<Option<Vec<PartitionRange>>> {
        let mut end = self.due(limits.clock);
        if let (true, Some(mark)) = (limits.draining, self.mark) {
            end = end.min(mark);
        }
        let start = self.position.next;
        end = end.min(start.saturating_add(limits.max_rows.unwrap_or(MAX_TICKS_PER_EPOCH).max(1)));
        if end <= start {
            return Ok(None);
        }
        self.position.next = end;
        let detail = serde_json::json!(Position { next: start, ..self.position });
        Ok(Some(vec![PartitionRange { detail, ..single_partition(Offset::row(start), Offset::row(end)) }]))
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(TimerReader { stream: self.stream.clone(), columns: self.columns.clone(), interval_us: self.interval_us })
    }

    async fn acknowledge(&mut self, _ranges: &[PartitionRange]) -> Result<()> {
        Ok(())
    }

    fn position(&self) -> serde_json::Value {
        serde_json::json!(self.position)
    }
}

#[derive(Debug)]
struct TimerReader {
    stream: String,
    columns: SourceColumns,
    interval_us: i64,
}

#[async_trait]
impl Reader for TimerReader {
    async fn read(&self, range: PartitionRange, request: ReadRequest) -> Result<BoxStream<'static, Result<SourceBatch>>> {
        let Position { first_us, .. } = stored(&self.stream, &range.detail)?;
        let (start, end, step) = (range.range.start.row, range.range.end.row, batch_size(request.batch_size));
        let (columns, interval_us) = (self.columns.clone(), self.interval_us);
        let selected = columns.selected(request.projection.as_deref());
        let starts = (start..end).step_by(step as usize);
        Ok(stream::iter(starts).map(move |row| ticks(&columns, &selected, first_us, interval_us, row, (end - row).min(step))).boxed())
    }
}

/// The rows of `rows` ticks from row `row` (tick `row + 1`).
fn ticks(columns: &SourceColumns, selected: &[usize], first_us: i64, interval_us: i64, row: u64, rows: u64) -> Result<SourceBatch> {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values((row..row + rows).map(|row| row as i64 + 1)));
    let time_of = |row: u64| first_us.saturating_add(interval_us.saturating_mul(row as i64));
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values((row..row + rows).map(time_of)));
    let mut arrays = Vec::with_capacity(selected.len() + columns.metadata.len());
    for index in selected {
        let data_type = columns.schema.field(*index).data_type();
        let values = if matches!(data_type, DataType::Timestamp(..)) { &times } else { &numbers };
        arrays.push(match data_type {
            DataType::Int64 | DataType::Timestamp(TimeUnit::Microsecond, None) => Arc::clone(values),
            other => cast_with_options(values, other, &CastOptions { safe: false, ..CastOptions::default() }).map_err(|error| {
                ConnectorError::Data {
                    place: format!("tick {}", row + rows),
                    problem: format!("does not fit column \"{}\": {error}", columns.schema.field(*index).name()),
                    hint: Some("Declare the column BIGINT.".into()),
                }
            })?,
        });
    }
    arrays.extend(columns.metadata.iter().map(|_| Arc::clone(&times)));
    Ok(SourceBatch {
        batch: batch_of(&columns.output_schema(selected), arrays, rows as usize, "writing ticks")?,
        sequence: 0,
        rows: None,
        first_row: row,
        bad: Vec::new(),
        places: None,
        bytes: rows * 16,
        event_times: None,
    })
}
