//! What a look from outside finds in the directory of a file sink, without owning it: for `millstream state verify`.
//!
//! It reads the manifest, lists the directory and asks the file system for the size of each file; contents are not read.

use super::manifest::{ManifestFile, read_all};
use super::{naming, ownership};
use crate::error::Result;
use millstream_types::Epoch;
use std::collections::HashSet;
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
    let mut written: Vec<Written> = Vec::new();
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
            written.push(Written { name: file.name.clone(), by: Some(entry.epoch), first: file.first_epoch, last: file.last_epoch });
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
    if entries.iter().all(|entry| entry.version.is_none()) {
        let listed: HashSet<String> = written.iter().map(|file| file.name.clone()).collect();
        ownership::walk(root, &mut |path, name| {
            let name_in_root = path.strip_prefix(root).unwrap_or(path).display().to_string();
            if let Some((first, last)) = naming::epochs_in(name, sink, pipeline).filter(|_| !listed.contains(&name_in_root)) {
                written.push(Written { name: name_in_root, by: None, first, last });
            }
            Ok(true)
        })?;
        found.problems.extend(doubled(written));
    }
    Ok(Some(found))
}

/// A file that is there.
#[derive(Debug)]
struct Written {
    name: String,
    /// The epoch that committed it, if the manifest lists it.
    by: Option<Epoch>,
    first: Epoch,
    last: Epoch,
}

impl Written {
    fn directory(&self) -> Option<&Path> {
        Path::new(&self.name).parent()
    }

    /// Files of one commit share epochs. Of those that are not listed, the names tell: they differ in nothing but the part.
    fn is_of_one_commit(&self, other: &Written) -> bool {
        match (self.by, other.by) {
            (Some(one), Some(other)) => one == other,
            _ => (self.first, self.last) == (other.first, other.last),
        }
    }
}

/// The files of a directory hold epochs one after the other: those that do not hold rows twice.
fn doubled(mut written: Vec<Written>) -> Vec<String> {
    written.sort_by(|one, other| (one.directory(), one.first, one.last).cmp(&(other.directory(), other.first, other.last)));
    let mut problems = Vec::new();
    for pair in written.windows(2) {
        let [one, other] = pair else { continue };
        if one.directory() == other.directory() && other.first <= one.last && !one.is_of_one_commit(other) {
            problems.push(format!(
                "rows of the epochs {} to {} are in \"{}\" and again in \"{}\": the first is of an epoch that the log has lost; move it away",
                other.first, one.last, one.name, other.name
            ));
        }
    }
    problems
}
