//! What a look from outside finds in the directory of a file sink, without owning it: for `millstream state verify`.
//!
//! It reads the manifest and asks the file system for the size of each file; contents are not read.

use super::manifest::{ManifestEntry, ManifestFile, read_all};
use super::ownership;
use crate::error::Result;
use millstream_types::Epoch;
use std::collections::HashMap;
use std::path::Path;

/// What was found.
#[derive(Debug, Default)]
pub struct Inspection {
    /// Published files that are there.
    pub files: u64,
    /// Rows in them.
    pub rows: u64,
    /// Published files that somebody has removed.
    pub removed: u64,
    /// What is wrong, each with what to do.
    pub problems: Vec<String>,
}

/// Compares the directory of a sink of a pipeline with its manifest, and with the newest epoch of the log. `None`: it is not the sink's.
///
/// # Errors
/// When marker or manifest are damaged or cannot be read.
pub fn inspect(root: &Path, sink: &str, pipeline: &str, newest: Epoch) -> Result<Option<Inspection>> {
    let Some(home) = ownership::home_of(root, sink, pipeline)? else { return Ok(None) };
    let mut found = Inspection::default();
    let mut entries = read_all(&home)?;
    if entries.last().is_some_and(|entry| entry.version.is_some()) {
        // Earlier versions go by themselves. One that is ahead does not hide the one before.
        let ahead = entries.iter().rev().take_while(|entry| entry.epoch > newest).count();
        let older = entries.len().saturating_sub(ahead + 1);
        entries.drain(..older);
    }
    let mut ahead: Vec<&ManifestFile> = Vec::new();
    let mut last_of: HashMap<&Path, (&ManifestEntry, &ManifestFile)> = HashMap::new();
    for entry in &entries {
        for file in &entry.files {
            let Ok(metadata) = std::fs::metadata(root.join(&file.name)) else {
                found.removed += 1;
                continue;
            };
            found.files += 1;
            found.rows += file.rows;
            if metadata.len() != file.bytes {
                found.problems.push(format!(
                    "\"{}\" has {} bytes, and {} were committed: bring it back from a copy",
                    file.name,
                    metadata.len(),
                    file.bytes
                ));
            }
            if entry.epoch > newest {
                ahead.push(file);
            }
            // The files of a directory hold epochs one after the other; those of one commit may share them.
            let directory = Path::new(&file.name).parent().unwrap_or(root);
            if let Some((before, earlier)) = last_of.get(directory)
                && before.epoch < entry.epoch
                && earlier.last_epoch >= file.first_epoch
            {
                found.problems.push(format!(
                    "rows of the epochs {} to {} are in \"{}\" and again in \"{}\": the first is of an epoch that the log has lost; move it away",
                    file.first_epoch, earlier.last_epoch, earlier.name, file.name
                ));
            }
            last_of.insert(directory, (entry, file));
        }
    }
    if let Some(last) = entries.last().filter(|_| !ahead.is_empty()) {
        found.problems.push(format!(
            "{} is ahead of the log, by epoch {} where the log ends with {newest}: bring back the log that has these epochs, or move the files \
             away, so that the epochs write their rows again",
            ahead.iter().map(|file| format!("\"{}\"", file.name)).collect::<Vec<_>>().join(", "),
            last.epoch
        ));
    }
    Ok(Some(found))
}
