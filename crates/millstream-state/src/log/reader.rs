//! Reading the log: every frame that counts, in order.

use super::frame::Frame;
use super::seal::Listing;
use super::segment::{SegmentName, SegmentReader, Step};
use crate::error::{Result, StateError};
use millstream_types::Epoch;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

/// How far a segment counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    /// To this length, sealed.
    Length(u64),
    /// To its end frame: its writer went on to another segment.
    EndFrame,
    /// To the last valid frame: its writer is live or was never sealed.
    Tail,
}

/// A segment that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) name: SegmentName,
    pub(crate) bound: Bound,
}

/// Segments that count, in order, and those that are void.
#[derive(Debug, Default)]
pub(crate) struct Extents {
    pub(crate) valid: Vec<Extent>,
    pub(crate) void: Vec<SegmentName>,
}

impl Extents {
    /// Judges the segments of a log directory.
    pub(crate) fn of(directory: &Path) -> Result<Extents> {
        let listing = Listing::read(directory)?;
        let newest_writer = listing.segments.keys().next_back().copied();
        let mut extents = Extents::default();
        for (&writer, numbers) in &listing.segments {
            let seal = listing.seals.get(&writer);
            if seal.is_none() && newest_writer != Some(writer) {
                let problem = format!("the seal of writer {writer} is missing, although a later writer has segments");
                return Err(StateError::corrupt(directory, None, problem));
            }
            for (index, &number) in numbers.iter().enumerate() {
                let name = SegmentName { writer, number };
                let bound = match seal {
                    Some(seal) if seal.segment.is_none_or(|last| number > last) => {
                        extents.void.push(name);
                        continue;
                    }
                    Some(seal) if seal.segment == Some(number) => Bound::Length(seal.valid_length),
                    Some(_) => Bound::EndFrame,
                    None if index + 1 < numbers.len() => Bound::EndFrame,
                    None => Bound::Tail,
                };
                extents.valid.push(Extent { name, bound });
            }
        }
        let missing = |number: u64| StateError::corrupt(directory, None, format!("segment {number} of the log is missing"));
        for pair in extents.valid.windows(2) {
            if pair[0].name.number + 1 != pair[1].name.number {
                return Err(missing(pair[0].name.number + 1));
            }
        }
        let newest = extents.valid.last().map_or(0, |extent| extent.name.number);
        match listing.seals.values().filter_map(|seal| seal.segment).max() {
            Some(sealed) if sealed > newest => Err(missing(sealed)),
            _ => Ok(extents),
        }
    }

    /// The number that the next segment gets.
    pub(crate) fn next_number(&self) -> u64 {
        self.valid.last().map_or(1, |extent| extent.name.number + 1)
    }
}

/// Newest epoch of a segment's frames.
pub(crate) fn newest_epoch(directory: &Path, extent: Extent) -> Result<Epoch> {
    let end = if let Bound::Length(length) = extent.bound { length } else { u64::MAX };
    SegmentReader::open(directory, extent.name)?.newest_epoch_below(end)
}

/// Reads a log without owning its state directory, for tools.
#[derive(Debug)]
pub struct LogReader;

impl LogReader {
    /// Every frame that counts in the log of the state directory at `path`, in order.
    ///
    /// # Errors
    /// When segments or seals are missing.
    pub fn open(path: impl AsRef<Path>) -> Result<Frames> {
        let directory = path.as_ref().join("log");
        let extents = Extents::of(&directory)?;
        Ok(Frames::new(directory, extents.valid))
    }
}

/// Iterates over frames. After an error it ends.
#[derive(Debug)]
pub struct Frames {
    directory: PathBuf,
    extents: VecDeque<Extent>,
    current: Option<(SegmentReader, Bound)>,
}

impl Frames {
    pub(crate) fn new(directory: PathBuf, extents: Vec<Extent>) -> Frames {
        Frames { directory, extents: extents.into(), current: None }
    }

    fn advance(&mut self) -> Result<Option<Frame>> {
        loop {
            let Some((reader, bound)) = &mut self.current else {
                let Some(extent) = self.extents.pop_front() else { return Ok(None) };
                self.current = Some((SegmentReader::open(&self.directory, extent.name)?, extent.bound));
                continue;
            };
            let damaged = |problem: &str| Err(StateError::corrupt(&reader.path, Some(reader.offset), problem));
            if let Bound::Length(length) = *bound {
                if reader.offset == length {
                    self.current = None;
                    continue;
                }
                if reader.offset > length {
                    return damaged("a frame crosses the sealed length");
                }
            }
            match (reader.step()?, *bound) {
                (Step::Frame(frame), _) => return Ok(Some(frame)),
                (Step::End, Bound::Length(length)) if reader.offset != length => {
                    return Err(StateError::corrupt(&reader.path, Some(reader.offset), "ends before its sealed length"));
                }
                (Step::End, _) => self.current = None,
                (Step::Invalid, Bound::Tail) => {
                    if let Some(damage) = reader.damage()? {
                        return Err(damage);
                    }
                    self.current = None;
                }
                (Step::Invalid, _) => return Err(StateError::corrupt(&reader.path, Some(reader.offset), "not a frame")),
            }
        }
    }
}

impl Iterator for Frames {
    type Item = Result<Frame>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance();
        if next.is_err() {
            self.current = None;
            self.extents.clear();
        }
        next.transpose()
    }
}
