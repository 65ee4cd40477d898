//! Rows of one partition that wait for their file: encoded parts, then a tail of rows that do not fill a part yet.

use super::arrow_error;
use super::format::chunks;
use super::layout::Layout;
use super::part::{Encoder, Part};
use super::partition;
use super::state_error;
use crate::error::Result;
use crate::sink::SinkEpoch;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use millstream_state::ipc;
use millstream_types::{Epoch, EventTime};
use std::path::Path;
use std::sync::Arc;

/// A file in the making. Cloning it is cheap: rows and parts are shared.
#[derive(Debug, Clone)]
pub(crate) struct OpenFile {
    /// The partition's values, one row each.
    pub(crate) values: Vec<ArrayRef>,
    pub(crate) first_epoch: Epoch,
    pub(crate) last_epoch: Epoch,
    /// The clock of the epoch of its first row.
    pub(crate) opened: EventTime,
    pub(crate) rows: u64,
    pub(crate) parts: Vec<Part>,
    pub(crate) tail: Vec<RecordBatch>,
    pub(crate) tail_rows: usize,
    /// Parts that were there before this epoch; the roll measures these.
    settled: usize,
    measured: Measured,
}

/// What is known of the size of the first parts of a file.
#[derive(Debug, Clone, Copy, Default)]
struct Measured {
    parts: usize,
    rows: u64,
    bytes: u64,
}

/// The size of so many of the newest parts is estimated; a constant, so that files are cut alike on all machines.
const ESTIMATED_PARTS: usize = 8;
/// More batches than this, and small ones, are copied into one.
const TAIL_BATCHES: usize = 64;

impl OpenFile {
    pub(crate) fn new(values: Vec<ArrayRef>, epoch: SinkEpoch) -> OpenFile {
        OpenFile {
            values,
            first_epoch: epoch.epoch,
            last_epoch: epoch.epoch,
            opened: epoch.clock,
            rows: 0,
            parts: Vec::new(),
            tail: Vec::new(),
            tail_rows: 0,
            settled: 0,
            measured: Measured::default(),
        }
    }

    /// A file as a checkpoint describes it.
    pub(crate) fn restored(values: Vec<ArrayRef>, first: Epoch, last: Epoch, opened: EventTime, parts: Vec<Part>) -> OpenFile {
        let rows = parts.iter().map(|part| part.rows).sum();
        let begin = SinkEpoch { epoch: first, clock: opened, roll: false };
        OpenFile { last_epoch: last, rows, settled: parts.len(), parts, ..OpenFile::new(values, begin) }
    }

    /// Adds rows with the file's columns; full parts start to be encoded.
    pub(crate) async fn push(&mut self, epoch: Epoch, rows: RecordBatch, encoder: &Arc<Encoder>) -> Result<()> {
        let layout = &encoder.layout;
        self.last_epoch = epoch;
        self.rows += rows.num_rows() as u64;
        self.tail_rows += rows.num_rows();
        if self.tail_rows < layout.part_rows {
            // What waits for long should not hold on to the batch it was filtered from.
            self.tail.push(ipc::compact(&rows).map_err(state_error(Path::new("rows in memory")))?);
            return self.merge_small_batches(layout);
        }
        self.tail.push(rows);
        let mut full = chunks(&self.tail, layout.part_rows);
        self.tail_rows %= layout.part_rows;
        self.tail = if self.tail_rows > 0 { full.pop().unwrap_or_default() } else { Vec::new() };
        for chunk in full {
            self.parts.push(encoder.start(chunk).await?);
        }
        for batch in &mut self.tail {
            *batch = ipc::compact(batch).map_err(state_error(Path::new("rows in memory")))?;
        }
        Ok(())
    }

    fn merge_small_batches(&mut self, layout: &Layout) -> Result<()> {
        if self.tail.len() > TAIL_BATCHES && self.tail_rows / self.tail.len() < 1024 {
            self.tail = vec![concat_batches(&layout.file, &self.tail).map_err(arrow_error("merging rows that wait for a file failed"))?];
        }
        Ok(())
    }

    /// An epoch begins: what is there now is measured when it ends.
    pub(crate) fn settle(&mut self) {
        self.settled = self.parts.len();
    }

    /// The parts that were there before this epoch.
    pub(crate) fn settled_parts(&self) -> &[Part] {
        &self.parts[..self.settled]
    }

    /// Measures the parts that were there before this epoch, but for the last [`ESTIMATED_PARTS`], which may still be encoded: waiting
    /// for them would stop the pipeline. The first one is always measured.
    pub(crate) async fn measure(&mut self) -> Result<()> {
        let done = self.settled.saturating_sub(ESTIMATED_PARTS).max(self.settled.min(1));
        for part in self.parts.iter().take(done).skip(self.measured.parts) {
            self.measured.bytes += part.data().await?.size();
            self.measured.rows += part.rows;
            self.measured.parts += 1;
        }
        Ok(())
    }

    /// Bytes of the parts that were there before this epoch: as measured, and for the rest as many a row.
    pub(crate) fn size(&self) -> u64 {
        let Measured { parts, rows, bytes } = self.measured;
        let others: u64 = self.settled_parts().iter().skip(parts).map(|part| part.rows).sum();
        bytes + (u128::from(bytes) * u128::from(others) / u128::from(rows.max(1))) as u64
    }

    /// Bytes in memory.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let tail: usize = self.tail.iter().map(RecordBatch::get_array_memory_size).sum();
        let in_memory = |part: &Part| match part.peek() {
            Some(data) => data.blobs().filter(|blob| blob.path().is_none()).map(super::part::Blob::len).sum(),
            None => 0,
        };
        tail as u64 + self.parts.iter().map(in_memory).sum::<u64>()
    }

    /// The rows as SELECT on the sink sees them.
    pub(crate) async fn select(&self, encoder: &Encoder) -> Result<Vec<RecordBatch>> {
        let mut rows = Vec::new();
        for part in &self.parts {
            rows.extend(part.data().await?.decode(encoder.encoding.as_ref())?);
        }
        rows.extend(self.tail.iter().cloned());
        rows.iter().map(|batch| partition::with_values(&encoder.layout, batch, &self.values)).collect()
    }
}
