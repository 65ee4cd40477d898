//! The running list of committed files: `_millstream/manifest-<n>`, one JSON line per epoch that added files.
//!
//! Lines are only ever appended, and a manifest file is followed by another one every 1,000 files, so that an epoch costs the same with
//! ten files and with a million. A reader that wants exactly the committed files reads these instead of listing the directory:
//! [`read_manifest`].

use super::{hit, io_error, state_error};
use crate::error::{ConnectorError, Result};
use crate::sink::CommittedFile;
use millstream_state::durable_put;
use millstream_types::Epoch;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Files that became visible with one epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ManifestEntry {
    /// The epoch that committed them.
    pub epoch: Epoch,
    /// The version directory they make up, in `complete` mode.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub version: Option<String>,
    /// The files.
    pub files: Vec<ManifestFile>,
}

/// A committed file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Name relative to the sink's directory.
    pub name: String,
    /// Rows in it.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// CRC-32 of its bytes.
    pub crc32: u32,
    /// First epoch whose rows it holds.
    pub first_epoch: Epoch,
    /// Last epoch whose rows it holds.
    pub last_epoch: Epoch,
    /// Smallest and largest event time in it, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub event_time: Option<(i64, i64)>,
}

impl From<&CommittedFile> for ManifestFile {
    fn from(file: &CommittedFile) -> Self {
        ManifestFile {
            name: file.name.clone(),
            rows: file.rows,
            bytes: file.bytes,
            crc32: file.crc32,
            first_epoch: file.first_epoch,
            last_epoch: file.last_epoch,
            event_time: file.event_time,
        }
    }
}

/// The committed files of the sink that owns the directory `path`, by epoch.
///
/// # Errors
/// When there is no manifest or it is damaged.
pub fn read_manifest(path: &Path) -> Result<Vec<ManifestEntry>> {
    read_all(&path.join(super::ownership::HOME))
}

/// Files per manifest file.
const FILES_PER_SEGMENT: usize = 1000;

/// The manifest as its sink sees it.
#[derive(Debug)]
pub(crate) struct ManifestLog {
    home: PathBuf,
    segment: u64,
    files: usize,
    pub(crate) last_epoch: Option<Epoch>,
    durable: bool,
}

impl ManifestLog {
    /// Opens the manifest in `home`; a line that a crash tore is cut off.
    pub(crate) fn open(home: &Path, durable: bool) -> Result<ManifestLog> {
        let mut log = ManifestLog { home: home.to_path_buf(), segment: 0, files: 0, last_epoch: None, durable };
        let segments = segments(home)?;
        if let Some(last) = segments.last() {
            log.segment = *last;
            let path = segment_path(home, *last);
            let text = std::fs::read(&path).map_err(io_error("reading", &path))?;
            let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            if whole < text.len() {
                let file = OpenOptions::new().write(true).open(&path).map_err(io_error("opening", &path))?;
                file.set_len(whole as u64).map_err(io_error("truncating", &path))?;
            }
            if durable {
                // Lines that a writer had not synced when it died count from now on.
                File::open(&path).and_then(|file| file.sync_all()).map_err(io_error("syncing", &path))?;
            }
            let entries = parse(&path, &text[..whole])?;
            log.files = entries.iter().map(|entry| entry.files.len()).sum();
            log.last_epoch = entries.last().map(|entry| entry.epoch);
        }
        // The last one may be new and empty, or hold nothing but a torn line.
        if log.last_epoch.is_none() && segments.len() > 1 {
            let path = segment_path(home, segments[segments.len() - 2]);
            let entries = parse(&path, &std::fs::read(&path).map_err(io_error("reading", &path))?)?;
            log.last_epoch = entries.last().map(|entry| entry.epoch);
        }
        Ok(log)
    }

    /// Adds the files of an epoch, once.
    pub(crate) fn append(&mut self, entry: &ManifestEntry) -> Result<()> {
        if self.last_epoch.is_some_and(|last| last >= entry.epoch) {
            return Ok(());
        }
        hit("sink.manifest.before_append")?;
        if self.files >= FILES_PER_SEGMENT {
            self.segment += 1;
            self.files = 0;
        }
        let path = segment_path(&self.home, self.segment);
        let is_new = !path.exists();
        let mut line = serde_json::to_vec(entry).map_err(|error| ConnectorError::internal("writing a manifest line failed", error))?;
        line.push(b'\n');
        let mut file: File = OpenOptions::new().append(true).create(true).open(&path).map_err(io_error("opening", &path))?;
        file.write_all(&line).map_err(io_error("writing", &path))?;
        if self.durable {
            file.sync_data().map_err(io_error("syncing", &path))?;
            if is_new {
                durable_put::sync_dir(&self.home).map_err(state_error(&self.home))?;
            }
        }
        self.files += entry.files.len();
        self.last_epoch = Some(entry.epoch);
        Ok(())
    }

    /// Takes out what epochs after `newest` added, and returns it.
    pub(crate) fn cut_after(&mut self, newest: Epoch) -> Result<Vec<ManifestEntry>> {
        let mut cut = Vec::new();
        for segment in segments(&self.home)?.into_iter().rev() {
            let path = segment_path(&self.home, segment);
            let text = std::fs::read(&path).map_err(io_error("reading", &path))?;
            // Epochs ascend.
            let (mut keep, mut beyond) = (0, Vec::new());
            for line in text.split_inclusive(|byte| *byte == b'\n') {
                beyond.extend(parse(&path, line)?.into_iter().filter(|entry| entry.epoch > newest));
                if beyond.is_empty() {
                    keep += line.len() as u64;
                }
            }
            if keep == 0 {
                std::fs::remove_file(&path).map_err(io_error("removing", &path))?;
            } else if !beyond.is_empty() {
                let file = OpenOptions::new().write(true).open(&path).map_err(io_error("opening", &path))?;
                file.set_len(keep).map_err(io_error("truncating", &path))?;
                file.sync_all().map_err(io_error("syncing", &path))?;
            }
            beyond.append(&mut cut);
            cut = beyond;
            if keep > 0 {
                break;
            }
        }
        if self.durable {
            durable_put::sync_dir(&self.home).map_err(state_error(&self.home))?;
        }
        *self = ManifestLog::open(&self.home, self.durable)?;
        Ok(cut)
    }

    /// Everything in it.
    pub(crate) fn entries(&self) -> Result<Vec<ManifestEntry>> {
        read_all(&self.home)
    }
}

/// Everything in the manifest in `home`.
pub(super) fn read_all(home: &Path) -> Result<Vec<ManifestEntry>> {
    let mut entries = Vec::new();
    for segment in segments(home)? {
        let path = segment_path(home, segment);
        let text = std::fs::read(&path).map_err(io_error("reading", &path))?;
        // A torn last line is an epoch that is being published right now.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        entries.extend(parse(&path, &text[..whole])?);
    }
    Ok(entries)
}

fn segments(home: &Path) -> Result<Vec<u64>> {
    let mut numbers: Vec<u64> = Vec::new();
    for entry in std::fs::read_dir(home).map_err(io_error("listing", home))? {
        let name = entry.map_err(io_error("listing", home))?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.strip_prefix("manifest-")).and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn segment_path(home: &Path, segment: u64) -> PathBuf {
    home.join(format!("manifest-{segment}"))
}

fn parse(path: &Path, text: &[u8]) -> Result<Vec<ManifestEntry>> {
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .enumerate()
        .map(|(index, line)| {
            serde_json::from_slice(line).map_err(|error| ConnectorError::Corrupt {
                place: format!("\"{}\"", path.display()),
                problem: format!("has a damaged line {} ({error})", index + 1),
            })
        })
        .collect()
}
