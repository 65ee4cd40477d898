//! Decodes the Parquet file that comes next while the engine works on the one before, so that a backlog keeps all cores busy
//! although an epoch waits for its commit.
//!
//! This is a guess and nothing depends on it: what was decoded is used if it is the very version of the file that was planned, read
//! with the same request; otherwise it is thrown away and the file is decoded as if nothing had been. Errors are thrown away too, and met
//! again by the ordinary reading.
//! **Memory**: two batches of one file beside those of the range that is read.

use super::parquet;
use super::reader::{Emit, Shared};
use super::slice::FileSlice;
use super::storage::FoundFile;
use crate::error::Result;
use crate::source::{ExpectedTimes, ReadRequest, SourceBatch};
use millstream_types::EventTime;
use std::sync::Arc;
use tokio::sync::mpsc::{Receiver, channel};

/// Batches that wait until the file is asked for.
const BATCHES_AHEAD: usize = 2;

/// A file that is being decoded before anybody asked for it.
#[derive(Debug)]
pub(crate) struct Ahead {
    file: FoundFile,
    request: ReadRequest,
    batches: Receiver<Result<SourceBatch>>,
}

impl Ahead {
    /// Begins to decode a whole file for a request like this one. On one core there is nothing to gain.
    pub(crate) fn start(shared: &Arc<Shared>, file: FoundFile, request: &ReadRequest) -> Option<Self> {
        if std::thread::available_parallelism().map_or(1, usize::from) == 1 {
            return None;
        }
        // Which event times will be expected is not known yet: all are taken, and judged when the file is asked for.
        let any = |times: ExpectedTimes| ExpectedTimes { first: EventTime::MIN, last: EventTime::MAX, ..times };
        let request = ReadRequest { event_times: request.event_times.map(any), ..request.clone() };
        let (sender, batches) = channel(BATCHES_AHEAD);
        let (shared, slice, reading) = (Arc::clone(shared), FileSlice::whole(&file), request.clone());
        tokio::task::spawn_blocking(move || {
            let mut emit = |batch| sender.blocking_send(batch).is_ok();
            if let Err(error) = parquet::read(&shared, &slice, &reading, 1, &mut emit) {
                emit(Err(error));
            }
        });
        Some(Self { file, request, batches })
    }

    /// Whether it is this version of this file.
    pub(crate) fn is_of(&self, slice: &FileSlice) -> bool {
        self.file.path == slice.path && slice.same_version(&self.file)
    }

    fn answers(&self, slice: &FileSlice, request: &ReadRequest) -> bool {
        let column = |request: &ReadRequest| request.event_times.map(|times| times.column);
        let same = self.request.projection == request.projection && self.request.batch_size == request.batch_size;
        self.is_of(slice) && slice.start_row == 0 && slice.last && same && column(&self.request) == column(request)
    }

    /// Hands out what was decoded of a slice, as far as it answers the request. The first row that is left to read, or `None` when
    /// nobody wants more.
    pub(crate) fn hand_out(mut self, slice: &FileSlice, request: &ReadRequest, emit: &mut Emit<'_>) -> Option<u64> {
        let mut row = slice.start_row;
        if !self.answers(slice, request) {
            return Some(row);
        }
        while let Some(Ok(mut batch)) = self.batches.blocking_recv() {
            let expected = match (batch.event_times, request.event_times) {
                (Some((oldest, newest)), Some(times)) => oldest >= times.first && newest <= times.last,
                _ => true,
            };
            if !expected {
                break;
            }
            row = batch.first_row + (batch.batch.num_rows() + batch.bad.len()) as u64;
            batch.sequence = slice.sequence;
            batch.bad.iter_mut().for_each(|bad| bad.offset.sequence = slice.sequence);
            if !emit(Ok(batch)) {
                return None;
            }
        }
        Some(row)
    }
}
