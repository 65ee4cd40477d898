//! What a manifest says, and how names become file names.

use crate::error::{Result, StateError};
use millstream_types::Epoch;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// 1 had a file for each segment.
pub(crate) const MANIFEST_FORMAT: u32 = 2;
pub(crate) const MANIFEST: &str = "manifest";
pub(crate) const SEGMENTS: &str = "segments";
/// The file of the segments that only one checkpoint has; no name of a segment becomes it.
pub(crate) const PACK: &str = "pack";

/// One segment of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentEntry {
    /// Its name, as the caller gave it.
    pub name: String,
    /// Name of its file in `segments/`.
    pub file: String,
    /// Where it begins in the file.
    #[serde(default)]
    pub offset: u64,
    /// Its size.
    pub bytes: u64,
    /// CRC-32 of its bytes.
    pub crc32: u32,
    /// Rows in it.
    pub rows: u64,
}

/// What a checkpoint consists of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the manifest's own format.
    pub format: u32,
    /// The state is that after this epoch.
    pub epoch: Epoch,
    /// Number of the writer that made it.
    pub writer: u64,
    /// Segments, in the order they were written.
    pub segments: Vec<SegmentEntry>,
    /// Facts of the caller.
    pub detail: serde_json::Value,
}

impl Manifest {
    /// Sum of the sizes of all segments.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }
}

/// The checkpoints in a directory, newest first.
pub(crate) fn list(directory: &Path) -> Result<Vec<(Epoch, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(StateError::io("listing", directory))? {
        let entry = entry.map_err(StateError::io("listing", directory))?;
        if let Some(epoch) = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok()) {
            found.push((Epoch(epoch), entry.path()));
        }
    }
    found.sort_unstable_by(|left, right| right.cmp(left));
    Ok(found)
}

/// A file name for any name: what is not a letter, digit, `_`, `-` or `.` becomes `%` and two hexadecimal digits per byte.
pub(crate) fn file_name_of(name: &str) -> String {
    let mut file = String::with_capacity(name.len());
    for (index, byte) in name.bytes().enumerate() {
        if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' || (byte == b'.' && index > 0) {
            file.push(char::from(byte));
        } else {
            file.push_str(&format!("%{byte:02X}"));
        }
    }
    // File systems end at 255 bytes; a hash keeps long names apart.
    if file.len() > 180 {
        file.truncate(150);
        file.push_str(&format!("~{:016x}", xxhash_rust::xxh3::xxh3_64(name.as_bytes())));
    }
    file
}
