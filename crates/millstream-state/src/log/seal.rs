//! Seals: where the frames of an earlier writer end.
//!
//! A new writer first takes its number, which fences its predecessors, then looks how far their logs are valid and records it
//! put-if-absent. A predecessor that was about to commit either had synced its frame before the look, and the frame counts, or finds the
//! new number after its sync, and publishes nothing. Frames that appear behind a seal are void.

use super::segment::{SegmentName, SegmentReader, Step};
use crate::durable_put::{Put, put_new};
use crate::error::{Result, StateError};
use crate::{document, durable_put};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What counts of a writer's segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seal {
    /// The writer whose frames it bounds.
    pub(crate) writer: u64,
    /// The writer that sealed it.
    pub(crate) sealed_by: u64,
    /// Its last segment that counts; `None` if it wrote nothing.
    pub(crate) segment: Option<u64>,
    /// Bytes of that segment that count.
    pub(crate) valid_length: u64,
}

/// Segments and seals of a log directory.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Segment numbers per writer, ascending.
    pub(crate) segments: BTreeMap<u64, Vec<u64>>,
    pub(crate) seals: BTreeMap<u64, Seal>,
}

impl Listing {
    pub(crate) fn read(directory: &Path) -> Result<Listing> {
        let mut listing = Listing::default();
        for entry in std::fs::read_dir(directory).map_err(StateError::io("listing", directory))? {
            let entry = entry.map_err(StateError::io("listing", directory))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if let Some(segment) = SegmentName::parse(name) {
                listing.segments.entry(segment.writer).or_default().push(segment.number);
            } else if let Some(writer) = name.strip_suffix(".seal").and_then(|writer| writer.parse().ok()) {
                let seal: Seal = document::read(&entry.path())?;
                listing.seals.insert(writer, seal);
            }
        }
        listing.segments.values_mut().for_each(|numbers| numbers.sort_unstable());
        Ok(listing)
    }
}

/// Seals every writer before `writer` that has no seal yet, and removes temporary files of dead writers.
pub(crate) fn seal_predecessors(directory: &Path, writer: u64) -> Result<()> {
    let listing = Listing::read(directory)?;
    for predecessor in 1..writer {
        if listing.seals.contains_key(&predecessor) {
            continue;
        }
        let last = listing.segments.get(&predecessor).and_then(|numbers| numbers.last()).copied();
        let valid_length = match last {
            Some(number) => valid_length(directory, SegmentName { writer: predecessor, number })?,
            None => 0,
        };
        let seal = Seal { writer: predecessor, sealed_by: writer, segment: last, valid_length };
        // Whoever comes first decides; every reader obeys what is there.
        let _: Put = put_new(&path(directory, predecessor), &document::encode(&seal)?)?;
    }
    for entry in std::fs::read_dir(directory).map_err(StateError::io("listing", directory))? {
        let entry = entry.map_err(StateError::io("listing", directory))?;
        if entry.file_name().to_str().is_some_and(durable_put::is_temporary) {
            // May belong to a writer that is still alive; it is fenced and fails then.
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(())
}

fn path(directory: &Path, writer: u64) -> PathBuf {
    directory.join(format!("{writer}.seal"))
}

/// Bytes of a writer's last segment that are valid frames.
fn valid_length(directory: &Path, name: SegmentName) -> Result<u64> {
    let mut reader = SegmentReader::open(directory, name)?;
    // Frames that are only in the page cache are about to count: a power cut must not take them away behind the seal.
    reader.sync()?;
    loop {
        match reader.step()? {
            Step::Frame(_) => {}
            Step::End => return Ok(reader.offset),
            Step::Invalid => {
                if let Some(damage) = reader.damage()? {
                    return Err(damage);
                }
                if reader.has_torn_tail()? {
                    tracing::info!(segment = %name, valid_length = reader.offset, "log ends in a frame that was never synced");
                }
                return Ok(reader.offset);
            }
        }
    }
}
