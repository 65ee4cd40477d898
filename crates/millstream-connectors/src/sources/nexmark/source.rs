//! One table of the benchmark as a source.

use super::model::Events;
use super::tables::{self, NexmarkTable, schema_of};
use super::{DEFAULT_BASE_TIME_US, DEFAULT_EVENTS_PER_SECOND};
use crate::error::{ConnectorError, Result};
use crate::source::{Backlog, EpochLimits, ReadRequest, Reader, Source, SourceBatch, SourceContext, SourceProperties};
use crate::sources::columns::{SourceColumns, batch_of, batch_size};
use crate::sources::pace::{PACE_EXPECTED, Pace};
use crate::sources::schedule::{Schedule, Share};
use arrow::array::{Array, ArrayRef, Int64Array};
use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::DataType;
use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use millstream_types::{OptionError, Options, PartitionRange, suggest};
use std::sync::Arc;
use tokio::sync::Notify;

/// A source of persons, auctions or bids. See the module's documentation.
#[derive(Debug)]
pub struct NexmarkSource {
    schedule: Schedule,
    rows: Arc<Rows>,
}

/// What makes rows out of their numbers.
#[derive(Debug)]
struct Rows {
    table: NexmarkTable,
    share: Share,
    events: Events,
    columns: SourceColumns,
    /// For every declared column the index of the table's column.
    indices: Vec<usize>,
}

/// Takes the option `table`.
pub(super) fn take_table(options: &mut Options) -> Result<NexmarkTable> {
    let choices = NexmarkTable::ALL.map(|table| (table.name(), table));
    match options.choice("table", &choices)? {
        Some(table) => Ok(table),
        None => Err(OptionError::Missing { owner: options.owner().into(), name: "table".into() }.into()),
    }
}

impl NexmarkSource {
    /// A source that has not started.
    ///
    /// # Errors
    /// When an option has no legal value or a declared column is none of the table's.
    pub fn new(context: &mut SourceContext) -> Result<Self> {
        let options = &mut context.options;
        let table = take_table(options)?;
        let wrong = |owner: &str, name: &str, value: String, expected: &str| OptionError::Value {
            owner: owner.into(),
            name: name.into(),
            value,
            expected: expected.into(),
        };
        let pace = match options.take("events_per_second") {
            None => Pace::Constant(DEFAULT_EVENTS_PER_SECOND),
            Some(text) => match Pace::parse(&text, 1e6 / DEFAULT_EVENTS_PER_SECOND) {
                Some(pace) => pace,
                None => return Err(wrong(options.owner(), "events_per_second", text, PACE_EXPECTED).into()),
            },
        };
        let base_time_us = match options.take("base_time") {
            None => DEFAULT_BASE_TIME_US,
            Some(text) => match string_to_timestamp_nanos(text.trim()) {
                Ok(nanos) => nanos.div_euclid(1_000),
                Err(_) => return Err(wrong(options.owner(), "base_time", text, "a timestamp such as '2015-07-15T00:00:00Z'").into()),
            },
        };
        let limit = options.parse::<u64>("event_limit", "a number of events")?;
        let seed = options.parse::<u64>("seed", "a whole number")?.unwrap_or(0);
        if options.boolean("bounded")? == Some(true) && limit.is_none() {
            return Err(OptionError::Missing { owner: options.owner().into(), name: "event_limit".into() }.into());
        }
        let rows = Rows {
            table,
            share: table.share(),
            events: Events::new(seed, base_time_us, pace),
            indices: match_columns(context, table)?,
            columns: SourceColumns::new("nexmark", context)?,
        };
        let schedule = Schedule::new(&context.stream, &context.clock, pace, table.share(), limit, table.row_bytes());
        Ok(Self { schedule, rows: Arc::new(rows) })
    }
}

/// Finds the table's column for every declared one.
fn match_columns(context: &SourceContext, table: NexmarkTable) -> Result<Vec<usize>> {
    let schema = schema_of(table);
    let mut indices = Vec::with_capacity(context.schema.fields().len());
    for field in context.schema.fields() {
        let Some((index, own)) = schema.fields().iter().enumerate().find(|(_, own)| own.name().eq_ignore_ascii_case(field.name())) else {
            let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            return Err(ConnectorError::invalid(
                format!("stream \"{}\" declares the column \"{}\", which Nexmark's {} has not", context.stream, field.name(), table.name()),
                match suggest::nearest(field.name(), names.iter().copied()) {
                    Some(name) => format!("Did you mean \"{name}\"?"),
                    None => format!("Its columns are {}.", names.join(", ")),
                },
            ));
        };
        if !converts(own.data_type(), field.data_type()) {
            return Err(ConnectorError::invalid(
                format!(
                    "column \"{}\" of stream \"{}\" is declared {}, but Nexmark's is {}",
                    field.name(),
                    context.stream,
                    field.data_type(),
                    own.data_type()
                ),
                "Leave out the column list, or cast in the query.",
            ));
        }
        indices.push(index);
    }
    Ok(indices)
}

/// Whether every value of a table's column has an equal one of the declared type.
fn converts(own: &DataType, declared: &DataType) -> bool {
    own == declared
        || match own {
            DataType::Utf8View => declared.is_string(),
            DataType::Timestamp(..) => matches!(declared, DataType::Timestamp(..)),
            _ => matches!(declared, DataType::UInt64),
        }
}

#[async_trait]
impl Source for NexmarkSource {
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
        self.schedule.mark_end("event_limit")
    }

    async fn plan(&mut self, limits: &EpochLimits) -> Result<Option<Vec<PartitionRange>>> {
        Ok(self.schedule.plan(limits))
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(NexmarkReader { rows: Arc::clone(&self.rows) })
    }

    async fn acknowledge(&mut self, _ranges: &[PartitionRange]) -> Result<()> {
        Ok(())
    }

    fn position(&self) -> serde_json::Value {
        self.schedule.position()
    }
}

#[derive(Debug)]
struct NexmarkReader {
    rows: Arc<Rows>,
}

#[async_trait]
impl Reader for NexmarkReader {
    async fn read(&self, range: PartitionRange, request: ReadRequest) -> Result<BoxStream<'static, Result<SourceBatch>>> {
        let (start, end, step) = (range.range.start.row, range.range.end.row, batch_size(request.batch_size));
        let rows = Arc::clone(&self.rows);
        let selected = rows.columns.selected(request.projection.as_deref());
        let starts = (start..end).step_by(step as usize);
        Ok(stream::iter(starts).map(move |first| rows.batch(&selected, first, (end - first).min(step))).boxed())
    }
}

impl Rows {
    fn batch(&self, selected: &[usize], first: u64, rows: u64) -> Result<SourceBatch> {
        let numbers: Vec<u64> = (first..first + rows).map(|row| self.share.event_of(row)).collect();
        let mut arrays = Vec::with_capacity(selected.len() + self.columns.metadata.len());
        for index in selected {
            let own = tables::column(&self.events, self.table, self.indices[*index], &numbers)?;
            let declared = self.columns.schema.field(*index).data_type();
            arrays.push(match own.data_type() == declared {
                true => own,
                false => cast_with_options(&own, declared, &CastOptions { safe: false, ..CastOptions::default() })
                    .map_err(|error| ConnectorError::internal("converting Nexmark events", error))?,
            });
        }
        for _ in &self.columns.metadata {
            let events: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers.iter().map(|n| *n as i64)));
            arrays.push(events);
        }
        let batch = batch_of(&self.columns.output_schema(selected), arrays, numbers.len(), "generating Nexmark events")?;
        Ok(SourceBatch {
            batch,
            sequence: 0,
            rows: None,
            first_row: first,
            bad: Vec::new(),
            places: None,
            bytes: rows * self.table.row_bytes(),
            event_times: None,
        })
    }
}
