//! The log as its owner sees it.

use super::reader::{Bound, Extent, Extents, Frames, newest_epoch};
use super::segment::{PendingSync, SEGMENT_HEADER_BYTES, SegmentName, SegmentWriter, Synced};
use crate::durable_put;
use crate::error::{Result, StateError};
use crate::failpoint;
use crate::log::frame::KIND_END;
use crate::state_dir::StateDir;
use millstream_types::Epoch;
use std::path::PathBuf;

/// Sizes of a log.
#[derive(Debug, Clone, Copy)]
pub struct LogOptions {
    /// A segment that reaches this size is followed by another one.
    pub segment_bytes: u64,
    /// Bytes of zeros written ahead, so that syncing a small frame changes no file metadata.
    pub preallocate_bytes: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions { segment_bytes: 64 << 20, preallocate_bytes: 1 << 20 }
    }
}

/// Where a frame was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Number of the segment.
    pub segment: u64,
    /// Where the frame starts in it.
    pub offset: u64,
}

/// The log of an open state directory. One owner, no locks.
#[derive(Debug)]
pub struct Log {
    directory: PathBuf,
    options: LogOptions,
    writer: u64,
    /// Earlier segments, with the newest epoch where it is known.
    earlier: Vec<(Extent, Option<Epoch>)>,
    void: Vec<SegmentName>,
    current: SegmentWriter,
    poisoned: bool,
}

impl Log {
    /// Opens the log and starts a new segment. What earlier writers left is read with [`frames`](Self::frames).
    ///
    /// # Errors
    /// [`StateError::Corrupt`] when segments are missing; I/O errors.
    pub fn open(state: &StateDir, options: LogOptions) -> Result<Log> {
        let directory = state.log_path();
        let extents = Extents::of(&directory)?;
        let name = SegmentName { writer: state.writer(), number: extents.next_number() };
        let current = SegmentWriter::create(&directory, name, options.preallocate_bytes)?;
        Ok(Log {
            directory,
            options,
            writer: state.writer(),
            earlier: extents.valid.into_iter().map(|extent| (extent, None)).collect(),
            void: extents.void,
            current,
            poisoned: false,
        })
    }

    /// Appends a frame whose payload is the concatenation of `parts`. It is durable after the next [`sync`](Self::sync).
    /// Kinds are the caller's, from 0 to 254.
    ///
    /// # Errors
    /// When the payload is larger than [`MAX_PAYLOAD_BYTES`](super::MAX_PAYLOAD_BYTES) or the disk refuses; the log is as before then.
    pub fn append(&mut self, kind: u8, epoch: Epoch, parts: &[&[u8]]) -> Result<Position> {
        debug_assert_ne!(kind, KIND_END, "kind 255 ends a segment");
        self.check_poisoned()?;
        if self.current.end >= self.options.segment_bytes {
            self.roll()?;
        }
        let offset = self.current.append(kind, epoch, parts)?;
        Ok(Position { segment: self.current.name.number, offset })
    }

    /// Makes every appended frame durable.
    ///
    /// # Errors
    /// When the sync fails. The log takes no more frames then: what of it reached the disk is not known. Restart to recover.
    pub fn sync(&mut self) -> Result<()> {
        self.check_poisoned()?;
        failpoint::hit("log.sync.before")?;
        if let Err(error) = self.current.sync() {
            self.poisoned = true;
            return Err(error);
        }
        failpoint::hit("log.sync.after")
    }

    /// As [`sync`](Self::sync), on a thread of the caller's: it runs what this gives and hands the outcome to [`synced`](Self::synced), and
    /// nothing else is done with the log in between.
    ///
    /// # Errors
    /// When the log takes no more frames.
    pub fn pending_sync(&self) -> Result<PendingSync> {
        self.check_poisoned()?;
        failpoint::hit("log.sync.before")?;
        Ok(self.current.pending_sync())
    }

    /// Ends what [`pending_sync`](Self::pending_sync) began: every appended frame is durable.
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    pub fn synced(&mut self, outcome: Result<Synced>) -> Result<()> {
        let synced = outcome.inspect_err(|_| self.poisoned = true)?;
        self.current.synced(&synced);
        failpoint::hit("log.sync.after")
    }

    /// Takes back the frames appended since the last [`sync`](Self::sync): their epoch failed.
    ///
    /// # Errors
    /// When the disk refuses; the log takes no more frames then, since a frame that was taken back might count.
    pub fn discard_unsynced(&mut self) -> Result<()> {
        self.check_poisoned()?;
        self.current.discard_unsynced().inspect_err(|_| self.poisoned = true)
    }

    /// Every frame that counts, of earlier writers and of this one, in order.
    ///
    /// # Errors
    /// Reading one may fail; opening them does not.
    pub fn frames(&self) -> Result<Frames> {
        let mut extents: Vec<Extent> = self.earlier.iter().map(|(extent, _)| *extent).collect();
        extents.push(Extent { name: self.current.name, bound: Bound::Length(self.current.end) });
        Ok(Frames::new(self.directory.clone(), extents))
    }

    /// Deletes whole segments, from the oldest, as long as all their frames belong to epochs before `epoch`. Returns how many.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn drop_before(&mut self, epoch: Epoch) -> Result<usize> {
        let mut dropped = 0;
        for name in std::mem::take(&mut self.void) {
            let path = name.path(&self.directory);
            std::fs::remove_file(&path).map_err(StateError::io("removing", &path))?;
        }
        while let Some((extent, known)) = self.earlier.first_mut() {
            let newest = match *known {
                Some(newest) => newest,
                None => *known.insert(newest_epoch(&self.directory, *extent)?),
            };
            if newest >= epoch {
                break;
            }
            let path = extent.name.path(&self.directory);
            std::fs::remove_file(&path).map_err(StateError::io("removing", &path))?;
            self.earlier.remove(0);
            dropped += 1;
            if dropped == 1 {
                failpoint::hit("log.drop.after_first")?;
            }
        }
        if dropped > 0 {
            durable_put::sync_dir(&self.directory)?;
        }
        Ok(dropped)
    }

    /// Bytes of frames in the current segment, for the decision whether a checkpoint is due.
    pub fn current_segment_bytes(&self) -> u64 {
        self.current.end - SEGMENT_HEADER_BYTES
    }

    /// Number of segments on disk that count.
    pub fn segments(&self) -> usize {
        self.earlier.len() + 1
    }

    /// Syncs and ends the log. Later damage to any frame is noticed then, to the last one too.
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    pub fn close(mut self) -> Result<()> {
        self.check_poisoned()?;
        self.current.finish()
    }

    fn roll(&mut self) -> Result<()> {
        failpoint::hit("log.roll.before")?;
        if let Err(error) = self.current.finish() {
            self.poisoned = true;
            return Err(error);
        }
        failpoint::hit("log.roll.after_end")?;
        let name = SegmentName { writer: self.writer, number: self.current.name.number + 1 };
        let next = SegmentWriter::create(&self.directory, name, self.options.preallocate_bytes).inspect_err(|_| self.poisoned = true)?;
        failpoint::hit("log.roll.after_create")?;
        let finished = std::mem::replace(&mut self.current, next);
        self.earlier.push((Extent { name: finished.name, bound: Bound::EndFrame }, Some(finished.newest_epoch)));
        Ok(())
    }

    fn check_poisoned(&self) -> Result<()> {
        if self.poisoned { Err(StateError::Poisoned { path: self.current.path.clone() }) } else { Ok(()) }
    }
}
