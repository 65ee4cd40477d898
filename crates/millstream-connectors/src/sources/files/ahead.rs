//! Decodes the Parquet files that come next while the engine works on the one before, so that a backlog keeps all cores busy
//! although an epoch waits for its commit: one file, or several small ones.
//!
//! This is a guess and nothing depends on it: what was decoded is used if it is the very version of the file that was planned, read
//! with the same request; otherwise it is thrown away and the file is decoded as if nothing had been. Errors are thrown away too, and met
//! again by the ordinary reading.
//! **Memory**: two batches of one file beside those of the range that is read; of several files as long as they are expected to take
//! no more than [`AHEAD_BYTES`] decoded.

use super::parquet;
use super::reader::Shared;
use super::slice::FileSlice;
use super::storage::FoundFile;
use crate::error::Result;
use crate::source::{ExpectedTimes, ReadRequest, SourceBatch};
use millstream_types::{EventTime, cores};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::mpsc::{Receiver, channel};

/// Batches that wait until the file is asked for.
const BATCHES_AHEAD: usize = 2;

/// Files that are decoded ahead at most.
pub(crate) const AHEAD_FILES: usize = 3;
/// What more than one of them may take in memory, guessed from the last file that was asked for.
const AHEAD_BYTES: usize = 16 << 20;

/// The files after the one that was asked for last.
#[derive(Debug, Default)]
pub(crate) struct ReadAhead {
    files: VecDeque<Ahead>,
    /// Decoded bytes of the last file that was handed out.
    file_bytes: Option<usize>,
}

impl ReadAhead {
    /// Whether a slice is being decoded.
    pub(crate) fn has(&self, slice: &FileSlice) -> bool {
        self.files.iter().any(|ahead| ahead.is_of(slice))
    }

    /// What is decoded of a slice, if it answers the request; the files before it will not be asked for any more.
    pub(crate) fn take(&mut self, slice: &FileSlice, request: &ReadRequest) -> Option<Decoded> {
        let at = self.files.iter().position(|ahead| ahead.is_of(slice));
        let passed = at.map_or(self.files.len(), |at| at + 1);
        self.files.drain(..passed).next_back().filter(|_| at.is_some())?.hand_out(slice, request)
    }

    /// Goes on with the files that are expected now, in their order.
    pub(crate) fn expect(&mut self, shared: &Arc<Shared>, next: &[FoundFile], request: &ReadRequest) {
        let as_expected =
            self.files.iter().zip(next).take_while(|(ahead, file)| ahead.file.same_version(file) && ahead.file.path == file.path).count();
        self.files.truncate(as_expected);
        let depth = self.file_bytes.map_or(1, |bytes| AHEAD_BYTES / bytes.max(1)).clamp(1, AHEAD_FILES);
        for file in next.iter().take(depth).skip(as_expected) {
            self.files.extend(Ahead::start(shared, file.clone(), request));
        }
    }

    /// Notes how much a file took decoded.
    pub(crate) fn learn(&mut self, file_bytes: usize) {
        self.file_bytes = Some(file_bytes);
    }

    /// Whether several files are being decoded, so that the next one will hardly be waited for.
    pub(crate) fn is_far(&self) -> bool {
        self.files.len() > 1
    }
}

/// A file that is being decoded before anybody asked for it.
#[derive(Debug)]
pub(crate) struct Ahead {
    file: FoundFile,
    request: ReadRequest,
    batches: Receiver<Result<SourceBatch>>,
}

impl Ahead {
    /// Begins to decode a whole file for a request like this one. On one core there is nothing to gain.
    fn start(shared: &Arc<Shared>, file: FoundFile, request: &ReadRequest) -> Option<Self> {
        if cores() == 1 {
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
    fn is_of(&self, slice: &FileSlice) -> bool {
        self.file.path == slice.path && slice.same_version(&self.file)
    }

    fn answers(&self, slice: &FileSlice, request: &ReadRequest) -> bool {
        let column = |request: &ReadRequest| request.event_times.map(|times| times.column);
        let same = self.request.projection == request.projection && self.request.batch_size == request.batch_size;
        self.is_of(slice) && slice.start_row == 0 && slice.last && same && column(&self.request) == column(request)
    }

    /// What was decoded of a slice, as far as it answers the request.
    fn hand_out(self, slice: &FileSlice, request: &ReadRequest) -> Option<Decoded> {
        self.answers(slice, request).then(|| Decoded {
            ahead: self,
            slice: slice.clone(),
            expected: request.event_times,
            left: slice.start_row,
        })
    }
}

/// The batches of a slice that was decoded ahead.
#[derive(Debug)]
pub(crate) struct Decoded {
    ahead: Ahead,
    slice: FileSlice,
    expected: Option<ExpectedTimes>,
    /// The first row that is left to read.
    left: u64,
}

impl Decoded {
    /// The next batch; `None` when all that there is of use has been handed out.
    pub(crate) async fn next(&mut self) -> Option<SourceBatch> {
        let decoded = self.ahead.batches.recv().await;
        self.take(decoded)
    }

    /// As [`Decoded::next`], on a thread that may wait.
    pub(crate) fn next_blocking(&mut self) -> Option<SourceBatch> {
        let decoded = self.ahead.batches.blocking_recv();
        self.take(decoded)
    }

    /// The slice.
    pub(crate) fn slice(&self) -> &FileSlice {
        &self.slice
    }

    /// What is left to read of the slice.
    pub(crate) fn left(&self) -> Option<FileSlice> {
        (self.slice.end_row != Some(self.left)).then(|| FileSlice { start_row: self.left, ..self.slice.clone() })
    }

    fn take(&mut self, decoded: Option<Result<SourceBatch>>) -> Option<SourceBatch> {
        let mut batch = decoded?.ok()?;
        let expected = match (batch.event_times, self.expected) {
            (Some((oldest, newest)), Some(times)) => oldest >= times.first && newest <= times.last,
            _ => true,
        };
        if !expected {
            // What follows would leave a gap.
            self.ahead.batches.close();
            while self.ahead.batches.try_recv().is_ok() {}
            return None;
        }
        self.left = batch.first_row + (batch.batch.num_rows() + batch.bad.len()) as u64;
        batch.sequence = self.slice.sequence;
        batch.bad.iter_mut().for_each(|bad| bad.offset.sequence = self.slice.sequence);
        Some(batch)
    }
}
