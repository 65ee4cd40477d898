//! Reading checkpoints: the newest valid one, and what was damaged on the way to it.

use super::manifest::{MANIFEST, MANIFEST_FORMAT, Manifest, SEGMENTS, SegmentEntry, list};
use crate::error::{Result, StateError};
use crate::{document, durable_put, failpoint, ipc};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use millstream_types::Epoch;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Take};
use std::path::{Path, PathBuf};

/// A checkpoint to read from. Segments may be read from several threads.
#[derive(Debug, Clone)]
pub struct CheckpointReader {
    path: PathBuf,
    manifest: Manifest,
}

/// A checkpoint that cannot be used.
#[derive(Debug)]
pub struct Damaged {
    /// Its epoch.
    pub epoch: Epoch,
    /// Its directory.
    pub path: PathBuf,
    /// What is wrong with it.
    pub error: StateError,
}

/// What recovery finds.
#[derive(Debug)]
pub struct Recovered {
    /// The newest valid checkpoint; `None` at a first start.
    pub checkpoint: Option<CheckpointReader>,
    /// Newer ones that cannot be used, newest first.
    pub damaged: Vec<Damaged>,
}

impl Recovered {
    /// Renames the damaged checkpoints to `damaged-<epoch>`, so that they count as generations no more. Recovery calls it when it is
    /// done.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn set_damaged_aside(&self) -> Result<()> {
        self.damaged.iter().try_for_each(|damaged| set_aside(&damaged.path))
    }
}

impl CheckpointReader {
    /// Finds the newest checkpoint in `directory` whose manifest and segments are all as they were written.
    ///
    /// # Errors
    /// [`StateError::NoValidCheckpoint`] when there are some and all are damaged; I/O errors.
    pub fn newest_valid(directory: &Path) -> Result<Recovered> {
        let found = list(directory)?;
        let count = found.len();
        let mut damaged: Vec<Damaged> = Vec::new();
        for (epoch, path) in found {
            let opened = CheckpointReader::open(&path).and_then(|reader| reader.verify().map(|()| reader));
            match opened {
                Ok(reader) => return Ok(Recovered { checkpoint: Some(reader), damaged }),
                // A format of a newer build is no damage to step over.
                Err(error @ StateError::NewerFormat { .. }) => return Err(error),
                Err(error) => damaged.push(Damaged { epoch, path, error }),
            }
        }
        match damaged.first() {
            None => Ok(Recovered { checkpoint: None, damaged }),
            Some(newest) => Err(StateError::NoValidCheckpoint {
                path: directory.to_path_buf(),
                count,
                newest: newest.epoch,
                problem: newest.error.to_string(),
            }),
        }
    }

    /// Opens the checkpoint in the directory `path`; its segments are not verified yet.
    ///
    /// # Errors
    /// [`StateError::Corrupt`] when the manifest is damaged, [`StateError::NewerFormat`], I/O errors.
    pub fn open(path: &Path) -> Result<CheckpointReader> {
        let file = path.join(MANIFEST);
        let manifest: Manifest = document::read(&file)?;
        if manifest.format > MANIFEST_FORMAT {
            return Err(StateError::NewerFormat { path: file, part: "manifest", found: manifest.format, supported: MANIFEST_FORMAT });
        }
        Ok(CheckpointReader { path: path.to_path_buf(), manifest })
    }

    /// Compares every segment with its length and checksum.
    ///
    /// # Errors
    /// [`StateError::Corrupt`] for the first that differs.
    pub fn verify(&self) -> Result<()> {
        let mut buffer = vec![0; 1 << 20];
        for entry in &self.manifest.segments {
            let path = self.segment_path(entry);
            let mut segment = open_segment(&path, entry)?;
            let mut hasher = crc32fast::Hasher::new();
            let mut bytes = 0;
            loop {
                let read = segment.read(&mut buffer).map_err(StateError::io("reading", &path))?;
                if read == 0 {
                    break;
                }
                hasher.update(&buffer[..read]);
                bytes += read as u64;
            }
            check(&path, entry, bytes, hasher.finalize())?;
        }
        Ok(())
    }

    /// The epoch after which this is the state.
    pub fn epoch(&self) -> Epoch {
        self.manifest.epoch
    }

    /// What the checkpoint consists of.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Whether there is a segment of this name.
    pub fn has_segment(&self, name: &str) -> bool {
        self.manifest.segments.iter().any(|segment| segment.name == name)
    }

    /// Schema and batches of a segment, verified.
    ///
    /// # Errors
    /// [`StateError::NotFound`], [`StateError::Corrupt`], I/O errors.
    pub fn read_segment(&self, name: &str) -> Result<(SchemaRef, Vec<RecordBatch>)> {
        let (path, entry) = self.locate(name)?;
        let mut bytes = Vec::new();
        open_segment(&path, entry)?.read_to_end(&mut bytes).map_err(StateError::io("reading", &path))?;
        check(&path, entry, bytes.len() as u64, crc32fast::hash(&bytes))?;
        ipc::read_stream(bytes.as_slice())
    }

    pub(crate) fn locate(&self, name: &str) -> Result<(PathBuf, &SegmentEntry)> {
        match self.manifest.segments.iter().find(|segment| segment.name == name) {
            Some(entry) => Ok((self.segment_path(entry), entry)),
            None => Err(StateError::NotFound { what: "segment", name: name.to_string(), path: self.path.clone() }),
        }
    }

    fn segment_path(&self, entry: &SegmentEntry) -> PathBuf {
        self.path.join(SEGMENTS).join(&entry.file)
    }
}

/// The bytes of a segment, from its place in the file on.
fn open_segment(path: &Path, entry: &SegmentEntry) -> Result<Take<File>> {
    let mut file = File::open(path).map_err(StateError::io("opening", path))?;
    file.seek(SeekFrom::Start(entry.offset)).map_err(StateError::io("reading", path))?;
    Ok(file.take(entry.bytes))
}

fn check(path: &Path, entry: &SegmentEntry, bytes: u64, crc32: u32) -> Result<()> {
    if bytes != entry.bytes {
        return Err(StateError::corrupt(path, None, format!("it has {bytes} bytes, the manifest says {}", entry.bytes)));
    }
    if crc32 != entry.crc32 {
        return Err(StateError::corrupt(path, None, format!("it has the checksum {crc32:08x}, the manifest says {:08x}", entry.crc32)));
    }
    Ok(())
}

/// Removes all checkpoints but the newest `generations`, and what unfinished ones of writers up to `writer` left. Returns the epoch of
/// the oldest one kept: log frames up to it are not needed any more.
///
/// # Errors
/// When the file system refuses.
pub fn remove_older_than(directory: &Path, generations: usize, writer: u64) -> Result<Option<Epoch>> {
    let found = list(directory)?;
    let oldest_kept = found.get(generations.saturating_sub(1)).or(found.last()).map(|(epoch, _)| *epoch);
    for (index, (epoch, path)) in found.iter().skip(generations).enumerate() {
        // It goes at once, under a name that the next writer cleans up however far the removal gets.
        let removed = path.with_file_name(format!(".{epoch}.{writer}.tmp"));
        std::fs::rename(path, &removed).map_err(StateError::io("removing", path))?;
        failpoint::hit("checkpoint.remove.after_rename")?;
        std::fs::remove_dir_all(&removed).map_err(StateError::io("removing", &removed))?;
        if index == 0 {
            failpoint::hit("checkpoint.remove.after_first")?;
        }
    }
    for entry in std::fs::read_dir(directory).map_err(StateError::io("listing", directory))? {
        let entry = entry.map_err(StateError::io("listing", directory))?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let unfinished = name
            .strip_prefix('.')
            .and_then(|name| name.strip_suffix(".tmp"))
            .and_then(|name| name.rsplit_once('.'))
            .and_then(|(_, by)| by.parse::<u64>().ok())
            .is_some_and(|by| by < writer);
        if unfinished {
            std::fs::remove_dir_all(entry.path()).map_err(StateError::io("removing", entry.path()))?;
        }
    }
    Ok(oldest_kept)
}

/// Takes a damaged checkpoint out of the way without deleting it.
pub(crate) fn set_aside(path: &Path) -> Result<()> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let aside = path.with_file_name(format!("damaged-{name}"));
    if aside.exists() {
        std::fs::remove_dir_all(&aside).map_err(StateError::io("removing", &aside))?;
    }
    std::fs::rename(path, &aside).map_err(StateError::io("renaming", path))?;
    durable_put::sync_parent(&aside)
}
