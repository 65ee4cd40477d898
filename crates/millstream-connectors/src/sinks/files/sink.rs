//! The committer: stages rows, rolls files, publishes them, and gets back to where it was.
//!
//! Everything an epoch changes is remembered in [`Undo`] until the epoch is published, so that `abort` is exact; files in the making are
//! shared, not copied.

use super::buffer::OpenFile;
use super::config::Config;
use super::draft::{DRAFTS_MAX, Draft};
use super::format::FileFormat;
use super::layout::Layout;
use super::manifest::ManifestLog;
use super::part::{Encoder, Part};
use super::publish::{Detail, detail_of, part_paths, remove_if_there, version_path};
use super::roll::{self, Cause, FileJob};
use super::{changelog, hit, ownership, partition, state_error, version};
use crate::error::{ConnectorError, Result};
use crate::sink::{CommittedFile, SinkCheckpoint, SinkCommit, SinkEpoch, SinkMode, SinkStatus, TransactionalSink};
use arrow::array::RecordBatch;
use async_trait::async_trait;
use millstream_state::durable_put;
use millstream_types::{DeltaBatch, Epoch, EventTime};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A result that waits to be written as a version.
#[derive(Debug, Clone)]
pub(super) struct PendingResult {
    pub(super) rows: Vec<RecordBatch>,
    pub(super) first_epoch: Epoch,
    /// The clock of the first change since the last version.
    pub(super) since: EventTime,
}

/// What the running epoch changed.
#[derive(Debug, Default)]
pub(super) struct Undo {
    epoch: Option<Epoch>,
    /// Partitions as they were; `None` for new ones.
    files: HashMap<String, Option<OpenFile>>,
    pending: Option<Option<PendingResult>>,
    new_parts: Vec<Part>,
    rolled_parts: Vec<Part>,
    temporaries: Vec<PathBuf>,
    rows: u64,
    last_epoch: Epoch,
}

/// A sink of rolling files.
#[derive(Debug)]
pub struct FileSink {
    pub(super) config: Config,
    pub(super) layout: Arc<Layout>,
    pub(super) format: FileFormat,
    pub(super) encoder: Arc<Encoder>,
    pub(super) durable: bool,
    pub(super) open: BTreeMap<String, OpenFile>,
    pub(super) pending: Option<PendingResult>,
    pub(super) undo: Undo,
    pub(super) manifest: Option<ManifestLog>,
    pub(super) retired: VecDeque<Vec<PathBuf>>,
    pub(super) last_epoch: Epoch,
    /// Its marker was not there when it was opened.
    has_new_home: bool,
    /// And yet the log has files in it: somebody removed everything.
    pub(super) replayed_into_new_home: bool,
    /// Files that are written ahead, by partition.
    drafts: BTreeMap<String, Draft>,
    drafts_begun: u64,
}

impl FileSink {
    pub(crate) fn new(config: Config, layout: Layout, format: FileFormat, scratch: Option<PathBuf>) -> Result<FileSink> {
        let encoding = format.encoding(&config, &layout)?;
        let layout = Arc::new(layout);
        let durable = scratch.is_some();
        Ok(FileSink {
            encoder: Arc::new(Encoder::new(encoding, Arc::clone(&layout), scratch)),
            config,
            layout,
            format,
            durable,
            open: BTreeMap::new(),
            pending: None,
            undo: Undo::default(),
            manifest: None,
            retired: VecDeque::from([Vec::new()]),
            last_epoch: Epoch::ZERO,
            has_new_home: false,
            replayed_into_new_home: false,
            drafts: BTreeMap::new(),
            drafts_begun: 0,
        })
    }

    /// An epoch begins, if it has not: the one before it was committed, whether or not `publish` was called for it.
    fn begin(&mut self, epoch: SinkEpoch) {
        if self.undo.epoch != Some(epoch.epoch) {
            self.promote();
            self.undo = Undo { epoch: Some(epoch.epoch), last_epoch: self.last_epoch, ..Undo::default() };
            self.last_epoch = epoch.epoch;
            self.open.values_mut().for_each(OpenFile::settle);
        }
    }

    /// The running epoch is committed: forgets how to undo it. Parts of rolled files go at once, unless a checkpoint refers to them.
    fn promote(&mut self) {
        let undo = std::mem::take(&mut self.undo);
        for data in undo.rolled_parts.iter().filter_map(Part::peek) {
            if data.synced.load(Ordering::Relaxed) {
                self.retired.back_mut().into_iter().for_each(|generation| generation.extend(part_paths(data)));
            } else {
                // What cannot be removed now is found when the sink is opened again.
                part_paths(data).iter().for_each(|path| drop(std::fs::remove_file(path)));
            }
        }
    }

    async fn take_rows(&mut self, epoch: SinkEpoch, changes: &[DeltaBatch]) -> Result<()> {
        self.begin(epoch);
        if changes.is_empty() {
            return Ok(());
        }
        let batches = match self.layout.mode {
            SinkMode::Changelog => changelog::rows(&self.layout, epoch.epoch, changes)?,
            SinkMode::Append | SinkMode::Complete | SinkMode::Upsert => {
                changes.iter().map(|change| self.insertions(change)).collect::<Result<_>>()?
            }
        };
        self.undo.rows += batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>();
        if self.layout.mode == SinkMode::Complete {
            self.undo.pending.get_or_insert_with(|| self.pending.clone());
            let (first_epoch, since) =
                self.pending.as_ref().map_or((epoch.epoch, epoch.clock), |pending| (pending.first_epoch, pending.since));
            self.pending = Some(PendingResult { rows: batches, first_epoch, since });
            return Ok(());
        }
        for batch in batches.iter().filter(|batch| batch.num_rows() > 0) {
            for rows in partition::split(&self.layout, batch)? {
                let file = match self.open.get_mut(&rows.directory) {
                    Some(file) => {
                        self.undo.files.entry(rows.directory.clone()).or_insert_with(|| Some(file.clone()));
                        file
                    }
                    None => {
                        self.undo.files.entry(rows.directory.clone()).or_insert(None);
                        self.open.entry(rows.directory.clone()).or_insert_with(|| OpenFile::new(rows.values.clone(), epoch))
                    }
                };
                let parts = file.parts.len();
                let pushed = file.push(epoch.epoch, rows.rows, &self.encoder).await;
                self.undo.new_parts.extend_from_slice(&file.parts[parts..]);
                pushed?;
            }
        }
        Ok(())
    }

    /// The rows of a change that only adds.
    fn insertions(&self, change: &DeltaBatch) -> Result<RecordBatch> {
        let expanded = change.expanded().map_err(|error| {
            let context =
                format!("sink \"{}\" has mode '{}' and got a row that takes another one back", self.layout.sink, self.layout.mode);
            ConnectorError::internal(context, error)
        })?;
        self.layout.output_rows(&expanded)
    }

    /// Decides which partitions are rolled now.
    async fn decide(&mut self, epoch: SinkEpoch) -> Result<Vec<(String, Cause)>> {
        let mut rolled = Vec::new();
        for (directory, file) in &mut self.open {
            file.measure().await?;
            rolled.extend(roll::cause(file, epoch, &self.config).map(|cause| (directory.clone(), cause)));
        }
        let open = self.open.len() - rolled.len();
        if open > self.config.max_open_partitions {
            let mut others: Vec<(Epoch, &String)> = self
                .open
                .iter()
                .filter(|(directory, _)| !rolled.iter().any(|(other, _)| other == *directory))
                .map(|(directory, file)| (file.last_epoch, directory))
                .collect();
            others.sort_unstable();
            let least_recent = others[..open - self.config.max_open_partitions].iter();
            let least_recent: Vec<_> = least_recent.map(|(_, directory)| ((*directory).clone(), Cause::Partitions)).collect();
            rolled.extend(least_recent);
            rolled.sort_unstable();
        }
        Ok(rolled)
    }

    /// Takes a partition's rows out, to be written to files.
    fn take_out(&mut self, directory: &str) -> Option<OpenFile> {
        let file = self.open.remove(directory)?;
        self.undo.files.entry(directory.to_string()).or_insert_with(|| Some(file.clone()));
        self.undo.rolled_parts.extend_from_slice(&file.parts);
        Some(file)
    }

    /// The waiting result, divided into partitions; one without rows where it is empty.
    async fn take_result(&mut self, epoch: SinkEpoch) -> Result<BTreeMap<String, OpenFile>> {
        let mut files = BTreeMap::new();
        let Some(pending) = self.pending.take() else { return Ok(files) };
        self.undo.pending.get_or_insert_with(|| Some(pending.clone()));
        let begin = SinkEpoch { epoch: pending.first_epoch, ..epoch };
        for batch in pending.rows.iter().filter(|batch| batch.num_rows() > 0) {
            for rows in partition::split(&self.layout, batch)? {
                let file: &mut OpenFile = files.entry(rows.directory).or_insert_with(|| OpenFile::new(rows.values, begin));
                let parts = file.parts.len();
                let pushed = file.push(epoch.epoch, rows.rows, &self.encoder).await;
                self.undo.new_parts.extend_from_slice(&file.parts[parts..]);
                pushed?;
            }
        }
        if files.is_empty() {
            let mut empty = OpenFile::new(Vec::new(), begin);
            empty.last_epoch = epoch.epoch;
            files.insert(String::new(), empty);
        }
        self.undo.rolled_parts.extend(files.values().flat_map(|file| file.parts.iter().cloned()));
        Ok(files)
    }

    /// Writes ahead what will be rolled later. A failure is left to the roll, which writes the whole file.
    async fn write_ahead(&mut self) {
        if !self.encoder.encoding.joins_parts() {
            return;
        }
        let few = self.open.len() <= DRAFTS_MAX;
        for (directory, file) in self.open.iter().filter(|(_, file)| few && !file.settled_parts().is_empty()) {
            let draft = match self.drafts.remove(directory) {
                Some(draft) => Ok(draft),
                None => {
                    self.drafts_begun += 1;
                    Draft::begin(&self.config, &self.encoder, directory, self.drafts_begun)
                }
            };
            let Ok(mut draft) = draft else { continue };
            match draft.advance(file, &self.config, self.durable).await {
                Ok(()) => drop(self.drafts.insert(directory.clone(), draft)),
                Err(error) => {
                    tracing::warn!(sink = %self.layout.sink, %error, "a file could not be written ahead");
                    draft.discard().await;
                }
            }
        }
        let abandoned: Vec<String> = self.drafts.keys().filter(|directory| !few || !self.open.contains_key(*directory)).cloned().collect();
        for directory in abandoned {
            if let Some(draft) = self.drafts.remove(&directory) {
                draft.discard().await;
            }
        }
    }

    /// Lets the first file of a partition go on from its draft, if there is one.
    async fn use_draft(&mut self, directory: &str, jobs: &mut [FileJob]) {
        let (Some(draft), Some(job)) = (self.drafts.remove(directory), jobs.first_mut()) else { return };
        let temporary = draft.temporary.clone();
        job.beginning = draft.finish(&job.parts).await;
        if job.beginning.is_some() {
            job.temporary = temporary;
        }
    }

    fn result_is_due(&self, epoch: SinkEpoch) -> Option<Cause> {
        let pending = self.pending.as_ref()?;
        if epoch.roll {
            Some(Cause::End)
        } else {
            (epoch.clock >= pending.since.plus(self.config.roll_interval)).then_some(Cause::Interval)
        }
    }

    pub(super) async fn jobs(&self, directory: &str, file: &OpenFile, clock: EventTime) -> Result<Vec<FileJob>> {
        roll::jobs(&self.layout, &self.config, directory, file, clock).await
    }

    /// Writes files beside each other, under their temporary names, and makes those names durable.
    pub(super) async fn write(&mut self, jobs: Vec<FileJob>) -> Result<Vec<CommittedFile>> {
        let root = self.config.path.clone();
        self.undo.temporaries.extend(jobs.iter().map(|job| root.join(&job.temporary)));
        let directories: BTreeSet<PathBuf> =
            jobs.iter().filter_map(|job| root.join(&job.temporary).parent().map(Path::to_path_buf)).collect();
        for directory in &directories {
            // A link that somebody has put there since the sink was made must not lead files elsewhere.
            crate::reach::check_path(&self.config.reach, &format!("sink \"{}\"", self.layout.sink), directory)?;
            durable_put::create_dir(directory).map_err(state_error(directory))?;
        }
        let mut tasks = Vec::with_capacity(jobs.len());
        for job in jobs {
            let closed = |error| ConnectorError::internal("the encoder is gone", error);
            let permit = Arc::clone(self.encoder.permits()).acquire_owned().await.map_err(closed)?;
            let (root, encoder, durable) = (root.clone(), Arc::clone(&self.encoder), self.durable);
            tasks.push(tokio::task::spawn_blocking(move || {
                let written = roll::write(job, &root, &encoder, durable);
                drop(permit);
                written
            }));
        }
        // All of them, also when one failed: nothing may be written any more when `abort` removes the files.
        let mut written = Vec::with_capacity(tasks.len());
        for task in tasks {
            written.push(task.await.unwrap_or_else(|error| Err(ConnectorError::internal("a thread that wrote a file ended early", error))));
        }
        let files = written.into_iter().collect::<Result<Vec<_>>>()?;
        if self.durable {
            for directory in &directories {
                durable_put::sync_dir(directory).map_err(state_error(directory))?;
            }
        }
        Ok(files)
    }

    pub(super) fn manifest(&mut self) -> Result<&mut ManifestLog> {
        self.manifest
            .as_mut()
            .ok_or_else(|| ConnectorError::internal("a file sink is used before it is open", std::io::Error::other("not open")))
    }
}

#[async_trait]
impl TransactionalSink for FileSink {
    async fn open(&mut self, state: Option<SinkCheckpoint>) -> Result<()> {
        let claimed = ownership::claim(&self.config, &self.layout, self.format, self.durable)?;
        self.has_new_home = claimed.is_new;
        self.manifest = Some(ManifestLog::open(&claimed.home, self.durable)?);
        if let Some(scratch) = self.encoder.scratch() {
            durable_put::create_dir(scratch).map_err(state_error(scratch))?;
        }
        if let Some(state) = state {
            self.restore(state)?;
        }
        self.adopt_unreferenced_parts()
    }

    async fn stage(&mut self, epoch: SinkEpoch, changes: &[DeltaBatch]) -> Result<()> {
        self.take_rows(epoch, changes).await
    }

    async fn prepare(&mut self, epoch: SinkEpoch) -> Result<SinkCommit> {
        self.begin(epoch);
        let mut detail = Detail { epoch: epoch.epoch, ..Detail::default() };
        let mut jobs = Vec::new();
        if self.layout.mode == SinkMode::Complete {
            if let Some(cause) = self.result_is_due(epoch) {
                let version = version::directory(epoch.epoch);
                for (directory, file) in self.take_result(epoch).await? {
                    jobs.extend(self.jobs(&version_path(&version, &directory), &file, epoch.clock).await?);
                    detail.rolled.insert(directory, cause.name().to_string());
                }
                detail.version = Some(version);
            }
        } else {
            for (directory, cause) in self.decide(epoch).await? {
                if let Some(file) = self.take_out(&directory) {
                    let mut files = self.jobs(&directory, &file, epoch.clock).await?;
                    self.use_draft(&directory, &mut files).await;
                    jobs.extend(files);
                    detail.rolled.insert(directory, cause.name().to_string());
                }
            }
        }
        let causes: BTreeSet<&str> = detail.rolled.values().map(String::as_str).collect();
        let cause = causes.into_iter().collect::<Vec<_>>().join(", ");
        let files = if jobs.is_empty() { Vec::new() } else { self.write(jobs).await? };
        if self.layout.mode != SinkMode::Complete {
            self.write_ahead().await;
        }
        let detail = serde_json::to_value(&detail).map_err(|error| ConnectorError::internal("describing a commit failed", error))?;
        Ok(SinkCommit { rows: self.undo.rows, files, cause, detail })
    }

    async fn publish(&mut self, commit: &SinkCommit) -> Result<()> {
        if commit.files.is_empty() && commit.detail.is_null() {
            return Ok(());
        }
        let detail = detail_of(commit)?;
        if !commit.files.is_empty() {
            self.make_visible(commit, &detail)?;
        }
        if self.undo.epoch == Some(detail.epoch) {
            self.promote();
        }
        Ok(())
    }

    async fn abort(&mut self, epoch: SinkEpoch) -> Result<()> {
        if self.undo.epoch != Some(epoch.epoch) {
            return Ok(());
        }
        let undo = std::mem::take(&mut self.undo);
        self.last_epoch = undo.last_epoch;
        for (directory, before) in undo.files {
            match before {
                Some(file) => self.open.insert(directory, file),
                None => self.open.remove(&directory),
            };
        }
        if let Some(before) = undo.pending {
            self.pending = before;
        }
        for part in undo.new_parts {
            // One that could not be encoded left nothing that is worth a second error.
            if let Ok(data) = part.data().await {
                part_paths(&data).into_iter().try_for_each(|path| remove_if_there(&path))?;
            }
        }
        undo.temporaries.iter().try_for_each(|path| remove_if_there(path))
    }

    async fn replay(&mut self, epoch: SinkEpoch, changes: &[DeltaBatch], commit: &SinkCommit) -> Result<()> {
        hit("sink.replay")?;
        self.take_rows(epoch, changes).await?;
        if commit.files.is_empty() {
            self.promote();
            return Ok(());
        }
        let detail = detail_of(commit)?;
        let mut files = BTreeMap::new();
        match &detail.version {
            Some(version) => {
                for (directory, file) in self.take_result(epoch).await? {
                    files.insert(version_path(version, &directory), file);
                }
            }
            None => {
                for directory in detail.rolled.keys() {
                    files.extend(self.take_out(directory).map(|file| (directory.clone(), file)));
                }
            }
        }
        self.replayed_into_new_home |= self.has_new_home;
        if !self.is_superseded(&detail)? && !self.is_published(detail.epoch) {
            self.rewrite_missing(epoch, commit, &files).await?;
        }
        self.make_visible(commit, &detail)?;
        // Rolled parts retire with their paths, which are known once they are encoded.
        for part in &self.undo.rolled_parts {
            part.data().await?;
        }
        self.promote();
        Ok(())
    }

    async fn check_published(&mut self, newest: Epoch) -> Result<()> {
        self.last_epoch = self.last_epoch.max(newest);
        self.refuse_output_ahead(newest)
    }

    async fn remove_orphans(&mut self) -> Result<()> {
        self.forget_output_ahead()?;
        self.remove_leftovers()?;
        self.report_removed();
        Ok(())
    }

    fn next_roll(&self) -> Option<EventTime> {
        if self.config.roll_interval.is_zero() {
            return None;
        }
        let files = self.open.values().filter(|file| file.rows > 0).map(|file| file.opened);
        files.chain(self.pending.as_ref().map(|pending| pending.since)).min().map(|opened| opened.plus(self.config.roll_interval))
    }

    async fn checkpoint(&mut self) -> Result<SinkCheckpoint> {
        self.save().await
    }

    async fn buffered(&self) -> Result<Vec<RecordBatch>> {
        let mut rows = Vec::new();
        for file in self.open.values() {
            rows.extend(file.select(&self.encoder).await?);
        }
        rows.extend(self.pending.iter().flat_map(|pending| pending.rows.iter().cloned()));
        Ok(rows)
    }

    fn committed_files(&self) -> Option<Vec<String>> {
        if self.pending.is_some() {
            // A complete sink's waiting result takes the place of the version on disk.
            return Some(Vec::new());
        }
        let entries = match self.manifest.as_ref()?.entries() {
            Ok(entries) => entries,
            Err(error) => {
                tracing::error!(sink = %self.layout.sink, %error, "the manifest cannot be read");
                return None;
            }
        };
        let path = |name: &str| self.config.path.join(name).display().to_string();
        let files = match self.layout.mode {
            SinkMode::Complete => entries.last().map(|entry| entry.files.iter().map(|file| path(&file.name)).collect()).unwrap_or_default(),
            _ => entries.iter().flat_map(|entry| &entry.files).map(|file| path(&file.name)).collect(),
        };
        Some(files)
    }

    fn status(&self) -> SinkStatus {
        let pending = self.pending.iter().flat_map(|pending| &pending.rows);
        SinkStatus {
            buffered_rows: self.open.values().map(|file| file.rows).sum::<u64>()
                + pending.clone().map(|batch| batch.num_rows() as u64).sum::<u64>(),
            buffered_bytes: self.open.values().map(OpenFile::memory_bytes).sum::<u64>()
                + pending.map(|batch| batch.get_array_memory_size() as u64).sum::<u64>(),
            next_roll: self.next_roll(),
        }
    }
}
