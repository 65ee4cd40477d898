//! The buffer between the pushing program and the epoch loop.

use super::conform::conform;
use super::{DEFAULT_BUFFER_BYTES, DEFAULT_BUFFER_ROWS};
use crate::error::{ConnectorError, Result};
use crate::source::{
    Backlog, EpochLimits, Push, ReadRequest, Reader, Source, SourceBatch, SourceContext, SourceProperties, single_partition,
};
use crate::sources::columns::{SourceColumns, batch_of, batch_size};
use crate::sources::position::stored;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use millstream_types::{Clock, EventTime, Offset, PartitionRange};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::Notify;

/// A source whose rows are pushed to it. See the module's documentation.
#[derive(Debug)]
pub struct MemorySource {
    shared: Arc<Shared>,
    bounded: bool,
}

/// What the pusher, the source and its readers share.
#[derive(Debug)]
struct Shared {
    stream: String,
    columns: SourceColumns,
    clock: Arc<dyn Clock>,
    buffer_rows: u64,
    buffer_bytes: u64,
    queue: Mutex<Queue>,
    wake: Arc<Notify>,
    /// Notified when rows leave the buffer or the stream ends.
    room: Notify,
    /// Pushes that wait do so in the order they came.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Queue {
    /// Pushes that are not acknowledged, oldest first.
    pushes: VecDeque<Pushed>,
    /// How many of them are planned.
    planned: usize,
    /// How many of the others `available` still takes; `None` until the end was marked.
    until_mark: Option<usize>,
    next_row: u64,
    planned_row: u64,
    rows: u64,
    bytes: u64,
    ended: bool,
    stopped: bool,
}

#[derive(Debug, Clone)]
struct Pushed {
    first_row: u64,
    arrived: EventTime,
    batch: RecordBatch,
    bytes: u64,
    detail: serde_json::Value,
}

impl Pushed {
    fn end_row(&self) -> u64 {
        self.first_row + self.batch.num_rows() as u64
    }
}

/// What a checkpoint keeps: how far the stream was planned.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Position {
    row: u64,
    ended: bool,
}

impl MemorySource {
    /// A source with an empty buffer.
    ///
    /// # Errors
    /// When an option has no legal value.
    pub fn new(context: &mut SourceContext) -> Result<Self> {
        let options = &mut context.options;
        let buffer_rows = options.parse::<u64>("buffer_rows", "a number of rows")?.unwrap_or(DEFAULT_BUFFER_ROWS).max(1);
        let buffer_bytes = options.bytes("buffer_bytes")?.unwrap_or(DEFAULT_BUFFER_BYTES).max(1);
        let bounded = options.boolean("bounded")?.unwrap_or(false);
        let shared = Shared {
            stream: context.stream.clone(),
            columns: SourceColumns::new("memory", context)?,
            clock: Arc::clone(&context.clock),
            buffer_rows,
            buffer_bytes,
            queue: Mutex::default(),
            wake: Arc::new(Notify::new()),
            room: Notify::new(),
            turn: tokio::sync::Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared), bounded })
    }
}

#[async_trait]
impl Source for MemorySource {
    fn properties(&self) -> SourceProperties {
        SourceProperties { replayable: false, bounded: self.bounded }
    }

    async fn open(&mut self, position: Option<serde_json::Value>, replayed: &[PartitionRange]) -> Result<()> {
        let position: Position = match position {
            Some(value) => stored(&self.shared.stream, &value)?,
            None => Position::default(),
        };
        let start = replayed.iter().map(|range| range.range.end.row).fold(position.row, u64::max);
        let mut queue = self.shared.queue.lock();
        queue.stopped = false;
        queue.ended |= position.ended;
        if queue.planned == 0 && start > queue.planned_row {
            // Rows pushed before a recovered stream was opened come after those of its earlier life.
            let shift = start - queue.planned_row;
            queue.pushes.iter_mut().for_each(|push| push.first_row += shift);
            queue.planned_row += shift;
            queue.next_row += shift;
        }
        Ok(())
    }

    fn wake(&self) -> Arc<Notify> {
        Arc::clone(&self.shared.wake)
    }

    async fn backlog(&mut self) -> Result<Backlog> {
        let queue = self.shared.queue.lock();
        Ok(Backlog {
            rows: Some(queue.next_row - queue.planned_row),
            latest: vec![(String::new(), Offset::row(queue.next_row))],
            ended: queue.ended && queue.planned == queue.pushes.len(),
            ..Backlog::default()
        })
    }

    async fn mark_end(&mut self) -> Result<()> {
        let mut queue = self.shared.queue.lock();
        queue.until_mark = Some(queue.pushes.len() - queue.planned);
        Ok(())
    }

    async fn plan(&mut self, limits: &EpochLimits) -> Result<Option<Vec<PartitionRange>>> {
        let mut queue = self.shared.queue.lock();
        if limits.draining && queue.until_mark == Some(0) {
            return Ok(None);
        }
        let Some(push) = queue.pushes.get(queue.planned) else { return Ok(None) };
        let (start, end, detail) = (Offset::row(push.first_row), Offset::row(push.end_row()), push.detail.clone());
        queue.planned += 1;
        queue.planned_row = end.row;
        queue.until_mark = queue.until_mark.map(|left| left.saturating_sub(1));
        if queue.planned < queue.pushes.len() {
            self.shared.wake.notify_one();
        }
        Ok(Some(vec![PartitionRange { detail, ..single_partition(start, end) }]))
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(MemoryReader { shared: Arc::clone(&self.shared) })
    }

    async fn acknowledge(&mut self, ranges: &[PartitionRange]) -> Result<()> {
        let Some(end) = ranges.iter().map(|range| range.range.end.row).max() else { return Ok(()) };
        {
            let mut queue = self.shared.queue.lock();
            while queue.planned > 0 && queue.pushes.front().is_some_and(|push| push.end_row() <= end) {
                let push = queue.pushes.pop_front().expect("the front was just looked at");
                queue.planned -= 1;
                queue.rows -= push.batch.num_rows() as u64;
                queue.bytes -= push.bytes;
            }
        }
        self.shared.room.notify_waiters();
        Ok(())
    }

    fn position(&self) -> serde_json::Value {
        let queue = self.shared.queue.lock();
        let ended = queue.ended && queue.planned == queue.pushes.len();
        serde_json::json!(Position { row: queue.planned_row, ended })
    }

    fn pusher(&self) -> Option<Arc<dyn Push>> {
        Some(Arc::new(MemoryPusher { shared: Arc::clone(&self.shared) }))
    }

    async fn stop(&mut self) {
        self.shared.stop();
    }
}

impl Drop for MemorySource {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl Shared {
    /// Wakes pushes that wait, so that they fail instead of waiting for ever.
    fn stop(&self) {
        self.queue.lock().stopped = true;
        self.room.notify_waiters();
    }

    /// Queues the rows, or gives them back while there is no room.
    fn offer(&self, batch: RecordBatch, bytes: u64, detail: &serde_json::Value) -> Result<std::result::Result<Offset, RecordBatch>> {
        let rows = batch.num_rows() as u64;
        let mut queue = self.queue.lock();
        if queue.ended || queue.stopped {
            let state = if queue.ended { "has ended" } else { "is stopped" };
            return Err(ConnectorError::invalid(format!("stream \"{}\" {state} and takes no more rows", self.stream), ""));
        }
        let fits = queue.rows + rows <= self.buffer_rows && queue.bytes + bytes <= self.buffer_bytes;
        if !fits && !queue.pushes.is_empty() {
            return Ok(Err(batch));
        }
        let pushed = Pushed { first_row: queue.next_row, arrived: self.clock.now(), batch, bytes, detail: detail.clone() };
        queue.next_row = pushed.end_row();
        queue.rows += rows;
        queue.bytes += bytes;
        queue.pushes.push_back(pushed);
        Ok(Ok(Offset::row(queue.next_row)))
    }
}

/// The entrance: checks rows and waits for room.
#[derive(Debug)]
struct MemoryPusher {
    shared: Arc<Shared>,
}

#[async_trait]
impl Push for MemoryPusher {
    async fn push(&self, batch: RecordBatch, detail: serde_json::Value) -> Result<Offset> {
        let mut batch = conform(&self.shared.stream, &self.shared.columns.schema, &batch)?;
        let bytes = batch.get_array_memory_size() as u64;
        let _turn = self.shared.turn.lock().await;
        loop {
            let mut room = std::pin::pin!(self.shared.room.notified());
            // Registered before looking, so that room made in between is not missed.
            room.as_mut().enable();
            match self.shared.offer(batch, bytes, &detail)? {
                Ok(offset) => {
                    self.shared.wake.notify_one();
                    return Ok(offset);
                }
                Err(refused) => batch = refused,
            }
            room.await;
        }
    }

    fn end(&self) {
        self.shared.queue.lock().ended = true;
        self.shared.room.notify_waiters();
        self.shared.wake.notify_one();
    }
}

#[derive(Debug)]
struct MemoryReader {
    shared: Arc<Shared>,
}

#[async_trait]
impl Reader for MemoryReader {
    async fn read(&self, range: PartitionRange, request: ReadRequest) -> Result<BoxStream<'static, Result<SourceBatch>>> {
        let (start, end) = (range.range.start.row, range.range.end.row);
        let pushes: Vec<Pushed> = {
            let queue = self.shared.queue.lock();
            queue.pushes.iter().filter(|push| push.first_row < end && push.end_row() > start).cloned().collect()
        };
        let found: u64 = pushes.iter().map(|push| push.end_row().min(end) - push.first_row.max(start)).sum();
        if found != end.saturating_sub(start) {
            return Err(ConnectorError::Corrupt {
                place: format!("rows {start} to {end} of stream \"{}\"", self.shared.stream),
                problem: "are not in its buffer: they were acknowledged before".into(),
            });
        }
        let step = batch_size(request.batch_size);
        let mut slices = Vec::new();
        for push in pushes {
            let last = push.end_row().min(end);
            let mut row = push.first_row.max(start);
            while row < last {
                let rows = (last - row).min(step);
                slices.push((push.clone(), row, rows));
                row += rows;
            }
        }
        let columns = self.shared.columns.clone();
        let selected = columns.selected(request.projection.as_deref());
        Ok(stream::iter(slices).map(move |(push, row, rows)| cut(&columns, &selected, &push, row, rows)).boxed())
    }
}

/// `rows` rows of a push from offset `row`, with the columns asked for.
fn cut(columns: &SourceColumns, selected: &[usize], push: &Pushed, row: u64, rows: u64) -> Result<SourceBatch> {
    let (offset, length) = ((row - push.first_row) as usize, rows as usize);
    let mut arrays: Vec<ArrayRef> = selected.iter().map(|index| push.batch.column(*index).slice(offset, length)).collect();
    for (key, _) in &columns.metadata {
        arrays.push(match key.as_str() {
            "timestamp" => Arc::new(TimestampMicrosecondArray::from_value(push.arrived.0, length)),
            _ => Arc::new(Int64Array::from_iter_values((row..row + rows).map(|row| row as i64))),
        });
    }
    Ok(SourceBatch {
        batch: batch_of(&columns.output_schema(selected), arrays, length, "reading pushed rows")?,
        sequence: 0,
        rows: None,
        first_row: row,
        bad: Vec::new(),
        places: None,
        bytes: push.bytes * rows / (push.batch.num_rows() as u64).max(1),
        event_times: None,
    })
}
