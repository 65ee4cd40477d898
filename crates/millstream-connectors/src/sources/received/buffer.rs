//! The bounded buffer, and the receivers that fill it.

use crate::formats::{Format, FormatOptions, LineBatch, LineSplitter, SplitOptions, header_fits};
use crate::source::{Backlog, EpochLimits};
use arrow::datatypes::SchemaRef;
use millstream_types::{Clock, EventTime, Offset, OffsetRange, PartitionRange};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tokio::sync::Notify;

/// Lines that arrived together.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) first_row: u64,
    pub(super) arrived: EventTime,
    pub(super) peer: Arc<str>,
    /// The CSV header of the connection they came by.
    pub(super) header: Option<Arc<[u8]>>,
    pub(super) lines: Arc<LineBatch>,
}

impl Segment {
    pub(super) fn end_row(&self) -> u64 {
        self.first_row + self.lines.lines.len() as u64
    }

    fn bytes(&self) -> u64 {
        // What the text and the index of its lines take.
        (self.lines.bytes.len() + self.lines.lines.len() * size_of::<crate::formats::Line>()) as u64
    }
}

#[derive(Debug, Default)]
struct Partition {
    segments: VecDeque<Segment>,
    next_row: u64,
    planned_row: u64,
    mark: Option<u64>,
    closed: bool,
}

impl Partition {
    /// Where a range that starts at the planned row may end at most.
    fn limit(&self, draining: bool) -> u64 {
        match self.mark {
            Some(mark) if draining => mark.min(self.next_row),
            _ => self.next_row,
        }
    }

    /// The end of a range of at most `rows` rows and about `bytes` bytes, at least one row, and the bytes it takes.
    fn cut(&self, draining: bool, rows: u64, bytes: u64) -> (u64, u64) {
        let last = self.limit(draining).min(self.planned_row.saturating_add(rows));
        let (mut end, mut taken) = (self.planned_row, 0);
        let unplanned = self.segments.partition_point(|segment| segment.end_row() <= self.planned_row);
        for segment in self.segments.range(unplanned..) {
            let skip = end.saturating_sub(segment.first_row) as usize;
            for line in &segment.lines.lines[skip..] {
                let length = (line.end - line.start) as u64 + 1;
                if end >= last || (taken > 0 && taken + length > bytes) {
                    return (end, taken);
                }
                taken += length;
                end += 1;
            }
        }
        (end, taken)
    }
}

#[derive(Debug, Default)]
struct State {
    /// By age: names of connections are numbers.
    partitions: BTreeMap<(u64, String), Partition>,
    bytes: u64,
    ended: bool,
    marked: bool,
}

/// Lines of all partitions of a source, from arrival to acknowledgement.
#[derive(Debug)]
pub(crate) struct LineBuffer {
    clock: Arc<dyn Clock>,
    limit_bytes: u64,
    state: Mutex<State>,
    wake: Arc<Notify>,
    room: Notify,
    /// Notified beside `wake`, which belongs to the engine.
    arrived: Notify,
}

fn key(name: &str) -> (u64, String) {
    (name.parse().unwrap_or(0), name.to_string())
}

impl LineBuffer {
    /// An empty buffer that holds about `limit_bytes` bytes.
    pub(crate) fn new(clock: Arc<dyn Clock>, limit_bytes: u64) -> Self {
        Self {
            clock,
            limit_bytes: limit_bytes.max(1),
            state: Mutex::default(),
            wake: Arc::new(Notify::new()),
            room: Notify::new(),
            arrived: Notify::new(),
        }
    }

    /// Notified when lines arrive or the input ends.
    pub(crate) fn wake(&self) -> Arc<Notify> {
        Arc::clone(&self.wake)
    }

    /// Makes a partition known whose next line has offset `row`.
    pub(crate) fn start_partition(&self, name: &str, row: u64) {
        let mut state = self.state.lock();
        let marked = state.marked;
        let partition = state.partitions.entry(key(name)).or_default();
        partition.next_row = partition.next_row.max(row);
        partition.planned_row = partition.planned_row.max(row);
        partition.closed = false;
        if marked && partition.mark.is_none() {
            // It came after the end was marked.
            partition.mark = Some(partition.next_row);
        }
    }

    /// No more lines will come for the partition; it is dropped once all it has was planned.
    pub(crate) fn close_partition(&self, name: &str) {
        if let Some(partition) = self.state.lock().partitions.get_mut(&key(name)) {
            partition.closed = true;
        }
        self.forget_closed();
        self.announce();
    }

    /// No more lines will come at all.
    pub(crate) fn end(&self) {
        self.state.lock().ended = true;
        self.announce();
    }

    fn announce(&self) {
        self.wake.notify_one();
        self.arrived.notify_waiters();
    }

    fn forget_closed(&self) {
        self.state.lock().partitions.retain(|_, partition| !(partition.closed && partition.segments.is_empty()));
    }

    fn append(&self, name: &str, peer: &Arc<str>, header: &Option<Arc<[u8]>>, lines: LineBatch) {
        if lines.lines.is_empty() {
            return;
        }
        {
            let mut state = self.state.lock();
            let State { partitions, bytes, .. } = &mut *state;
            let partition = partitions.entry(key(name)).or_default();
            let segment = Segment {
                first_row: partition.next_row,
                arrived: self.clock.now(),
                peer: Arc::clone(peer),
                header: header.clone(),
                lines: Arc::new(lines),
            };
            *bytes += segment.bytes();
            partition.next_row = segment.end_row();
            partition.segments.push_back(segment);
        }
        self.announce();
    }

    /// Waits until lines can be planned or the input has ended.
    pub(crate) async fn wait_for_lines(&self) {
        loop {
            let mut arrived = std::pin::pin!(self.arrived.notified());
            arrived.as_mut().enable();
            {
                let state = self.state.lock();
                if state.ended || state.partitions.values().any(|partition| partition.planned_row < partition.next_row) {
                    return;
                }
            }
            arrived.await;
        }
    }

    /// Waits until there is room for more.
    async fn wait_for_room(&self) {
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            // Registered before looking, so that room made in between is not missed.
            room.as_mut().enable();
            if self.state.lock().bytes < self.limit_bytes {
                return;
            }
            room.await;
        }
    }

    /// What waits. A partition that is not among `latest` any more was dropped.
    pub(crate) fn backlog(&self) -> Backlog {
        let state = self.state.lock();
        let open = state.partitions.iter().filter(|(_, partition)| !partition.closed || partition.planned_row < partition.next_row);
        let rows = state.partitions.values().map(|partition| partition.next_row - partition.planned_row).sum();
        Backlog {
            rows: Some(rows),
            latest: open.map(|((_, name), partition)| (name.clone(), Offset::row(partition.next_row))).collect(),
            ended: state.ended && rows == 0,
            ..Backlog::default()
        }
    }

    /// Notes how far `available` goes.
    pub(crate) fn mark_end(&self) {
        let mut state = self.state.lock();
        state.marked = true;
        for partition in state.partitions.values_mut() {
            partition.mark = Some(partition.next_row);
        }
    }

    /// Cuts the next epoch's ranges. Partitions share the limits: those with little give what they leave to the others.
    pub(crate) fn plan(&self, limits: &EpochLimits) -> Option<Vec<PartitionRange>> {
        let mut state = self.state.lock();
        let waiting = |partition: &Partition| partition.limit(limits.draining).saturating_sub(partition.planned_row);
        let mut order: Vec<(u64, (u64, String))> =
            state.partitions.iter().map(|(key, partition)| (waiting(partition), key.clone())).filter(|(rows, _)| *rows > 0).collect();
        order.sort();
        let (mut rows_left, mut bytes_left) = (limits.max_rows.unwrap_or(u64::MAX).max(1), limits.max_bytes.max(1));
        let mut ranges = Vec::with_capacity(order.len());
        let mut others = order.len() as u64;
        for (_, key) in order {
            if rows_left == 0 || bytes_left == 0 {
                break;
            }
            let Some(partition) = state.partitions.get_mut(&key) else { continue };
            let start = partition.planned_row;
            let (end, bytes) = partition.cut(limits.draining, (rows_left / others).max(1), bytes_left / others);
            partition.planned_row = end;
            rows_left = rows_left.saturating_sub(end - start);
            bytes_left = bytes_left.saturating_sub(bytes);
            others -= 1;
            let range = OffsetRange { start: Offset::row(start), end: Offset::row(end) };
            ranges.push((key.0, PartitionRange { partition: key.1, range, detail: serde_json::Value::Null }));
        }
        ranges.sort_by_key(|(number, _)| *number);
        let ranges: Vec<PartitionRange> = ranges.into_iter().map(|(_, range)| range).collect();
        (!ranges.is_empty()).then_some(ranges)
    }

    /// Forgets lines whose epoch is durable.
    pub(crate) fn acknowledge(&self, ranges: &[PartitionRange]) {
        {
            let mut state = self.state.lock();
            let State { partitions, bytes, .. } = &mut *state;
            for range in ranges {
                let Some(partition) = partitions.get_mut(&key(&range.partition)) else { continue };
                let end = range.range.end.row.min(partition.planned_row);
                while partition.segments.front().is_some_and(|segment| segment.end_row() <= end) {
                    *bytes -= partition.segments.pop_front().map_or(0, |segment| segment.bytes());
                }
            }
        }
        self.forget_closed();
        self.room.notify_waiters();
    }

    /// How far a partition was planned.
    pub(crate) fn planned_row(&self, name: &str) -> u64 {
        self.state.lock().partitions.get(&key(name)).map_or(0, |partition| partition.planned_row)
    }

    /// The segments that hold lines of a range; `None` when some of it is not there any more.
    pub(super) fn segments(&self, range: &PartitionRange) -> Option<Vec<Segment>> {
        let (start, end) = (range.range.start.row, range.range.end.row);
        let state = self.state.lock();
        let partition = state.partitions.get(&key(&range.partition))?;
        let found: Vec<Segment> =
            partition.segments.iter().filter(|segment| segment.first_row < end && segment.end_row() > start).cloned().collect();
        let rows: u64 = found.iter().map(|segment| segment.end_row().min(end) - segment.first_row.max(start)).sum();
        (rows == end.saturating_sub(start)).then_some(found)
    }
}

/// Takes what one connection sends.
#[derive(Debug)]
pub(crate) struct LineReceiver {
    buffer: Arc<LineBuffer>,
    partition: String,
    peer: Arc<str>,
    splitter: LineSplitter,
    expected: Option<ExpectedHeader>,
    header: Option<Arc<[u8]>>,
}

/// What the first line of a connection is to be.
#[derive(Debug, Clone)]
pub(crate) struct ExpectedHeader {
    /// The columns of the stream.
    pub(crate) schema: SchemaRef,
    /// The format of its lines.
    pub(crate) format: FormatOptions,
}

impl ExpectedHeader {
    /// For CSV with a header.
    pub(crate) fn of(schema: &SchemaRef, format: &FormatOptions) -> Option<Self> {
        (format.header && format.format == Format::Csv).then(|| Self { schema: Arc::clone(schema), format: format.clone() })
    }
}

impl LineReceiver {
    /// A receiver for a new connection of `peer`; where one is `expected`, its first line is a CSV header.
    pub(crate) fn new(
        buffer: &Arc<LineBuffer>,
        partition: &str,
        peer: &str,
        options: SplitOptions,
        expected: Option<ExpectedHeader>,
    ) -> Self {
        Self {
            buffer: Arc::clone(buffer),
            partition: partition.to_string(),
            peer: peer.into(),
            splitter: LineSplitter::new(options),
            expected,
            header: None,
        }
    }

    /// Buffers the lines that a chunk completes, then waits until the buffer has room: read from the peer only after that.
    pub(crate) async fn receive(&mut self, chunk: &[u8]) {
        let mut lines = LineBatch::default();
        self.splitter.push(chunk, &mut lines);
        self.append(lines);
        self.buffer.wait_for_room().await;
    }

    /// The peer has ended its input: an unfinished line is the last one.
    pub(crate) fn finish(&mut self) {
        let mut lines = LineBatch::default();
        self.splitter.finish(&mut lines);
        self.append(lines);
    }

    /// Whether a line has begun and not ended.
    pub(crate) fn has_partial(&self) -> bool {
        self.splitter.has_partial()
    }

    fn append(&mut self, mut lines: LineBatch) {
        if let Some(first) = lines.lines.first().copied()
            && let Some(ExpectedHeader { schema, format }) = self.expected.take()
        {
            let header = first.of(&lines.bytes);
            self.header = Some(header.into());
            // A line that is no header stays the first of the bad rows: it may be data.
            if header_fits(&schema, &format, header).unwrap_or(true) {
                lines.lines.remove(0);
            }
        }
        self.buffer.append(&self.partition, &self.peer, &self.header, lines);
    }
}
