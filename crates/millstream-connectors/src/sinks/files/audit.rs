//! The directory compared with the log: output of epochs that the log has lost, and files that somebody has removed.
//!
//! ```text
//!   the log ends with epoch 229
//!   manifest      229: raw-..-2-228-0.parquet        as it should be
//!                 231: raw-..-229-230-0.parquet      ahead: epoch 230 would run again, and its rows would be in two files
//!   not listed         raw-..-229-230-0.parquet      ahead as well: its writer died between the rename and the manifest line
//! ```
//! A file is ahead of the log by the epoch that *committed* it, which the manifest tells; the rows in it may be of earlier ones. Of a
//! file that is not listed only its default name speaks: rows that still wait to be written, by what recovery knows, are in it.
//!
//! Output ahead of the log is never touched: it may have been read. Once somebody has moved it away, its lines are taken out of the
//! manifest, and the epochs write their rows again. Files that are missing otherwise were taken by somebody, and stay away.

use super::manifest::ManifestEntry;
use super::sink::FileSink;
use super::{ownership, version};
use crate::error::{ConnectorError, Result};
use crate::sink::SinkMode;
use millstream_types::Epoch;
use std::collections::BTreeMap;
use std::path::Path;

/// Names in a message; the others are counted.
const NAMES: usize = 5;

impl FileSink {
    /// Refuses when files or a version of an epoch after `newest` are there.
    pub(super) fn refuse_output_ahead(&self, newest: Epoch) -> Result<()> {
        let root = &self.config.path;
        let mut ahead: BTreeMap<String, Epoch> = BTreeMap::new();
        if let Some(manifest) = self.manifest.as_ref().filter(|manifest| manifest.last_epoch.is_some_and(|last| last > newest)) {
            for entry in manifest.entries()?.into_iter().filter(|entry| entry.epoch > newest) {
                let there = entry.files.into_iter().filter(|file| root.join(&file.name).exists());
                ahead.extend(there.map(|file| (file.name, entry.epoch)));
            }
        }
        let layout = &self.layout;
        ownership::walk(root, &mut |path, name| {
            let Some((_, last)) = layout.names.epochs_of(name, &layout.sink, &layout.pipeline) else { return Ok(true) };
            let relative = path.strip_prefix(root).unwrap_or(path);
            let directory = relative.parent().and_then(Path::to_str).unwrap_or_default();
            // All rows of a partition that came before its waiting ones are in files, and no later ones.
            let waits = self.open.get(directory).is_some_and(|open| open.rows > 0 && last >= open.first_epoch);
            if last > newest || waits {
                ahead.entry(relative.display().to_string()).or_insert(last.max(newest.next()));
            }
            Ok(true)
        })?;
        if layout.mode == SinkMode::Complete
            && let Some(current) = version::current(root)?.filter(|current| *current > newest)
            && version::has_files(root, current)
        {
            ahead.insert(version::POINTER.into(), current);
        }
        let Some(last) = ahead.values().max() else { return Ok(()) };
        Err(ConnectorError::OutputAhead {
            place: format!("\"{}\"", root.display()),
            newest,
            last: *last,
            files: listed(ahead.keys().map(String::as_str), ahead.len()),
        })
    }

    /// Forgets output of lost epochs that was moved away: it is written again.
    pub(super) fn forget_output_ahead(&mut self) -> Result<()> {
        let newest = self.last_epoch;
        if self.manifest()?.last_epoch.is_none_or(|last| last <= newest) {
            return Ok(());
        }
        let forgotten = self.manifest()?.cut_after(newest)?;
        tracing::warn!(
            sink = %self.layout.sink,
            newest = newest.0,
            files = %list_of(&forgotten),
            "output of epochs that the log has lost was moved away; the epochs run again and write their rows again"
        );
        if self.layout.mode == SinkMode::Complete && version::current(&self.config.path)?.is_none_or(|current| current > newest) {
            let versions = self.manifest()?.entries()?;
            let root = &self.config.path;
            let before = versions.iter().rev().map(|entry| entry.epoch).find(|epoch| version::has_files(root, *epoch));
            version::turn_back(root, before, self.layout.writer, self.durable)?;
        }
        Ok(())
    }

    /// Tells which of the published files are gone.
    pub(super) fn report_removed(&self) {
        let Some(manifest) = &self.manifest else { return };
        let root = &self.config.path;
        if self.replayed_into_new_home {
            tracing::warn!(
                sink = %self.layout.sink,
                path = %root.display(),
                "the directory of a sink is new, although files were published in it: they were removed, or are elsewhere, and are not written again"
            );
            return;
        }
        let mut entries = match manifest.entries() {
            Ok(entries) => entries,
            // What it has of earlier files is of no use to what comes.
            Err(error) => {
                tracing::warn!(sink = %self.layout.sink, %error, "the manifest cannot be read, so that nobody knows which files were removed");
                return;
            }
        };
        if self.layout.mode == SinkMode::Complete {
            // Earlier versions go by themselves.
            let older = entries.len().saturating_sub(1);
            entries.drain(..older);
        }
        let mut removed = Vec::new();
        for entry in &mut entries {
            entry.files.retain(|file| !root.join(&file.name).exists());
            removed.append(&mut entry.files);
        }
        if !removed.is_empty() {
            let names = listed(removed.iter().map(|file| file.name.as_str()), removed.len());
            tracing::warn!(
                sink = %self.layout.sink,
                path = %root.display(),
                files = %names,
                "published files were removed by somebody; they are not written again"
            );
        }
    }
}

fn list_of(entries: &[ManifestEntry]) -> String {
    let files = || entries.iter().flat_map(|entry| &entry.files);
    listed(files().map(|file| file.name.as_str()), files().count())
}

/// `"a", "b" and 3 more`.
fn listed<'a>(names: impl Iterator<Item = &'a str>, count: usize) -> String {
    let shown: Vec<String> = names.take(NAMES).map(|name| format!("\"{name}\"")).collect();
    match count - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
