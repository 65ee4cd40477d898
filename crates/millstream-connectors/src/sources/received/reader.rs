//! Decodes buffered lines.

use super::buffer::{LineBuffer, Segment};
use crate::error::{ConnectorError, Result};
use crate::formats::{Decoder, FormatOptions, LineBatch};
use crate::source::{BadRow, ReadRequest, Reader, SourceBatch};
use crate::sources::columns::{SourceColumns, batch_of, batch_size};
use arrow::array::{ArrayRef, Int64Array, StringViewArray, TimestampMicrosecondArray};
use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use millstream_types::{EventTime, Offset, PartitionRange};
use std::sync::Arc;

/// Reads planned ranges of a [`LineBuffer`].
#[derive(Debug, Clone)]
pub(crate) struct LineReader {
    /// Name of the stream, for messages.
    pub(crate) stream: String,
    /// Where the lines are.
    pub(crate) buffer: Arc<LineBuffer>,
    /// What to make of them.
    pub(crate) columns: SourceColumns,
    /// How to decode them.
    pub(crate) format: FormatOptions,
}

/// Lines to decode together: those of one header, at most a batch of them.
#[derive(Debug, Default)]
struct Group {
    first_row: u64,
    header: Option<Arc<[u8]>>,
    lines: LineBatch,
    arrived: Vec<EventTime>,
    peers: Vec<Arc<str>>,
}

#[async_trait]
impl Reader for LineReader {
    async fn read(&self, range: PartitionRange, request: ReadRequest) -> Result<BoxStream<'static, Result<SourceBatch>>> {
        let segments = self.buffer.segments(&range).ok_or_else(|| ConnectorError::Corrupt {
            place: format!("lines {} to {} of stream \"{}\"", range.range.start.row, range.range.end.row, self.stream),
            problem: "are not in its buffer: they were acknowledged before".into(),
        })?;
        let groups = group(&segments, &range, batch_size(request.batch_size) as usize);
        let reader = self.clone();
        let selected = self.columns.selected(request.projection.as_deref());
        Ok(stream::iter(groups).map(move |group| reader.decode(&group, &range.partition, &selected)).boxed())
    }
}

/// Puts lines that arrived one by one together, so that a batch is worth its columns.
fn group(segments: &[Segment], range: &PartitionRange, batch_rows: usize) -> Vec<Group> {
    let (start, end) = (range.range.start.row, range.range.end.row);
    let mut groups: Vec<Group> = Vec::new();
    for segment in segments {
        let (first, last) = (segment.first_row.max(start), segment.end_row().min(end));
        for row in first..last {
            let fits =
                groups.last().is_some_and(|group| group.lines.lines.len() < batch_rows && same_header(&group.header, &segment.header));
            if !fits {
                groups.push(Group { first_row: row, header: segment.header.clone(), ..Group::default() });
            }
            let Some(group) = groups.last_mut() else { continue };
            let line = segment.lines.lines[(row - segment.first_row) as usize];
            let moved = group.lines.bytes.len();
            group.lines.bytes.extend_from_slice(line.of(&segment.lines.bytes));
            group.lines.bytes.push(b'\n');
            group.lines.lines.push(crate::formats::Line { start: moved, end: moved + (line.end - line.start), ..line });
            group.arrived.push(segment.arrived);
            group.peers.push(Arc::clone(&segment.peer));
        }
    }
    groups
}

fn same_header(left: &Option<Arc<[u8]>>, right: &Option<Arc<[u8]>>) -> bool {
    match (left, right) {
        (Some(left), Some(right)) => Arc::ptr_eq(left, right) || left == right,
        (None, None) => true,
        _ => false,
    }
}

impl LineReader {
    fn decode(&self, group: &Group, partition: &str, selected: &[usize]) -> Result<SourceBatch> {
        let mut decoder = Decoder::new(Arc::clone(&self.columns.schema), Some(selected), &self.format)?;
        if let (true, Some(header)) = (decoder.needs_header(), &group.header) {
            decoder.set_header(header);
        }
        let decoded = decoder.decode(&group.lines)?;
        let rows = decoded.batch.num_rows();
        let kept = |index: usize| decoded.kept.as_ref().map_or(index, |kept| kept[index] as usize);
        let mut arrays: Vec<ArrayRef> = decoded.batch.columns().to_vec();
        for (key, _) in &self.columns.metadata {
            arrays.push(match key.as_str() {
                "partition" => Arc::new(StringViewArray::from_iter_values(std::iter::repeat_n(partition, rows))),
                "timestamp" => Arc::new(TimestampMicrosecondArray::from_iter_values((0..rows).map(|index| group.arrived[kept(index)].0))),
                _ => Arc::new(Int64Array::from_iter_values((0..rows).map(|index| (group.first_row + kept(index) as u64) as i64))),
            });
        }
        let bad = decoded.bad.into_iter().map(|bad| BadRow {
            offset: Offset::row(group.first_row + bad.index as u64),
            place: format!("{} line {}", group.peers[bad.index], bad.line),
            reason: bad.reason,
            raw: bad.raw,
        });
        Ok(SourceBatch {
            batch: batch_of(&self.columns.output_schema(selected), arrays, rows, "decoding received lines")?,
            sequence: 0,
            rows: decoded.kept.map(|kept| kept.into_iter().map(|index| group.first_row + u64::from(index)).collect()),
            first_row: group.first_row,
            bad: bad.collect(),
            places: None,
            bytes: group.lines.bytes.len() as u64,
            event_times: None,
        })
    }
}
