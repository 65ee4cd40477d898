//! Making committed files visible, writing lost ones again, and removing what no commit names.

use super::buffer::OpenFile;
use super::manifest::ManifestEntry;
use super::part::{Blob, PartData};
use super::sink::FileSink;
use super::{hit, io_error, naming, ownership, state_error, version};
use crate::error::{ConnectorError, Result};
use crate::sink::{CommittedFile, SinkCommit, SinkEpoch, SinkMode};
use millstream_state::durable_put;
use millstream_types::Epoch;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the commit record keeps of an epoch, besides the files.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Detail {
    pub(super) epoch: Epoch,
    /// Why each partition was rolled.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub(super) rolled: BTreeMap<String, String>,
    /// The directory of the version, in `complete` mode.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) version: Option<String>,
}

impl FileSink {
    /// Renames the files of a commit to their names, turns the pointer, and lists them in the manifest. Each step may have been done.
    pub(super) fn make_visible(&mut self, commit: &SinkCommit, detail: &Detail) -> Result<()> {
        let root = &self.config.path;
        let mut directories: BTreeSet<PathBuf> = BTreeSet::new();
        let is_published = self.is_published(detail.epoch);
        let was_removed = |name: &str| is_published && !root.join(name).exists();
        if !self.is_superseded(detail)? {
            for file in &commit.files {
                if was_removed(&file.name) && !root.join(&file.temporary).exists() {
                    continue;
                }
                hit("sink.publish.before_rename")?;
                if publish_file(root, file)? {
                    hit("sink.publish.after_rename")?;
                }
                // Also of files that have their names already: whoever gave them may have died before this.
                directories.extend(root.join(&file.name).parent().map(Path::to_path_buf));
            }
        }
        if self.durable {
            for directory in &directories {
                durable_put::sync_dir(directory).map_err(state_error(directory))?;
            }
        }
        if detail.version.as_ref().is_some_and(|version| !was_removed(version)) {
            version::turn_to(root, detail.epoch, self.layout.writer, self.config.keep_versions, self.durable)?;
        }
        let entry =
            ManifestEntry { epoch: detail.epoch, version: detail.version.clone(), files: commit.files.iter().map(Into::into).collect() };
        self.manifest()?.append(&entry)
    }

    /// Whether every file of a committed epoch has had its name, durably: one that is missing was removed by somebody.
    pub(super) fn is_published(&self, epoch: Epoch) -> bool {
        // The manifest is written last.
        self.replayed_into_new_home || self.manifest.as_ref().and_then(|manifest| manifest.last_epoch).is_some_and(|last| last >= epoch)
    }

    /// Whether a later version is current: this one may be gone.
    pub(super) fn is_superseded(&self, detail: &Detail) -> Result<bool> {
        match detail.version {
            Some(_) => Ok(version::current(&self.config.path)?.is_some_and(|current| current > detail.epoch)),
            None => Ok(false),
        }
    }

    /// Writes again, byte for byte, the files of a record whose publication was interrupted and that are not there.
    pub(super) async fn rewrite_missing(
        &mut self,
        epoch: SinkEpoch,
        commit: &SinkCommit,
        files: &BTreeMap<String, OpenFile>,
    ) -> Result<()> {
        let root = self.config.path.clone();
        let missing: HashMap<&str, &CommittedFile> = commit
            .files
            .iter()
            .filter(|file| !root.join(&file.name).exists() && !has_size(&root.join(&file.temporary), file.bytes))
            .map(|file| (file.name.as_str(), file))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let mut jobs = Vec::new();
        for (directory, file) in files {
            for mut job in self.jobs(directory, file, epoch.clock).await? {
                if let Some(file) = missing.get(job.name.as_str()) {
                    job.temporary.clone_from(&file.temporary);
                    jobs.push(job);
                }
            }
        }
        let written = self.write(jobs).await?;
        for file in missing.values() {
            let same = written.iter().any(|other| other.name == file.name && (other.bytes, other.crc32) == (file.bytes, file.crc32));
            if !same {
                return Err(ConnectorError::Corrupt {
                    place: format!("\"{}\"", root.join(&file.name).display()),
                    problem: format!("is missing and cannot be written again as it was committed in epoch {}", epoch.epoch),
                });
            }
        }
        Ok(())
    }

    /// Removes temporary files that no record names, once every record was replayed.
    pub(super) fn remove_leftovers(&mut self) -> Result<()> {
        let layout = Arc::clone(&self.layout);
        ownership::walk(&self.config.path, &mut |path, name| {
            // A higher number is a writer that has fenced this one.
            if naming::writer_of_temporary(name, &layout.sink, &layout.pipeline).is_some_and(|writer| writer <= layout.writer) {
                remove_if_there(path)?;
            }
            Ok(true)
        })?;
        if self.layout.mode == SinkMode::Complete {
            self.remove_unfinished_versions()?;
        }
        Ok(())
    }

    /// Directories of versions that were never published and hold nothing any more.
    fn remove_unfinished_versions(&self) -> Result<()> {
        let root = &self.config.path;
        for entry in std::fs::read_dir(root).map_err(io_error("listing", root))? {
            let entry = entry.map_err(io_error("listing", root))?;
            if entry.file_name().to_str().and_then(version::epoch_of).is_some_and(|epoch| epoch > self.last_epoch) {
                remove_empty_directories(&entry.path())?;
            }
        }
        Ok(())
    }
}

pub(super) fn detail_of(commit: &SinkCommit) -> Result<Detail> {
    serde_json::from_value(commit.detail.clone()).map_err(|error| ConnectorError::Corrupt {
        place: "the commit record of a file sink".into(),
        problem: format!("cannot be read ({error})"),
    })
}

pub(super) fn version_path(version: &str, directory: &str) -> String {
    if directory.is_empty() { version.to_string() } else { format!("{version}/{directory}") }
}

pub(super) fn part_paths(data: &PartData) -> Vec<PathBuf> {
    data.blobs().filter_map(Blob::path).map(Path::to_path_buf).collect()
}

/// Removes a directory and those in it as far as they are empty.
fn remove_empty_directories(path: &Path) -> Result<()> {
    for entry in std::fs::read_dir(path).map_err(io_error("listing", path))? {
        let entry = entry.map_err(io_error("listing", path))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty_directories(&entry.path())?;
        }
    }
    match std::fs::remove_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::DirectoryNotEmpty => Err(io_error("removing", path)(error)),
        _ => Ok(()),
    }
}

pub(super) fn has_size(path: &Path, bytes: u64) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.len() == bytes)
}

pub(super) fn remove_if_there(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io_error("removing", path)(error)),
        _ => Ok(()),
    }
}

/// Gives a file its name, without replacing one; whether it did. A file that has its name already is left alone.
fn publish_file(root: &Path, file: &CommittedFile) -> Result<bool> {
    let (temporary, path) = (root.join(&file.temporary), root.join(&file.name));
    let corrupt = |problem: String| Err(ConnectorError::Corrupt { place: format!("\"{}\"", path.display()), problem });
    match durable_put::rename_noreplace(&temporary, &path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let there = std::fs::read(&path).map_err(io_error("reading", &path))?;
            if crc32fast::hash(&there) != file.crc32 {
                return corrupt("exists with other content: another pipeline writes to the directory, or this one lost its state".into());
            }
            remove_if_there(&temporary)?;
            Ok(true)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => match std::fs::metadata(&path) {
            Ok(metadata) if metadata.len() == file.bytes => Ok(false),
            Ok(metadata) => corrupt(format!("has {} bytes, and {} were committed", metadata.len(), file.bytes)),
            Err(_) => corrupt("was committed and is missing, under its temporary name too".into()),
        },
        Err(error) => Err(io_error("renaming", &temporary)(error)),
    }
}
