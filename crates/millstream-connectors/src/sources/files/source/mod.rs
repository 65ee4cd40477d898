//! Plans epochs: which files, in which order, how much of each; remembers what was taken.

mod first_start;
mod put_away;
mod waiting;

use super::ahead::AHEAD_FILES;
use super::config::{AfterRead, FilesConfig, OnChange, OnMissing, StartFrom};
use super::discovery::{self, Scan};
use super::inspect::{Budget, Outcome, Resume, inspect};
use super::metadata;
use super::reader::{FilesReader, Shared};
use super::slice::{FileSlice, FirstStart, FixedFile, RangeDetail};
use super::storage::{FoundFile, quoted};
use super::taken::{PathHash, TakenFile, TakenSegments, TakenSet, etag_hash};
use crate::error::{ConnectorError, Result};
use crate::formats::{Decoder, Format};
use crate::source::{Backlog, EpochLimits, Reader, Source, SourceContext, SourceProperties};
use ::arrow::datatypes::Field;
use async_trait::async_trait;
use millstream_types::{Clock, EventTime, Offset, PartitionRange, suggest};
use parking_lot::Mutex;
use put_away::put_away;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use waiting::{Waiting, WaitingKey};

/// A place with more files than this is listed while epochs go on; a smaller one when it is asked for, which makes tests exact.
const BACKGROUND_FILES: usize = 10_000;
/// So many files are looked at without a thread, if they are being decoded.
const FEW: usize = 4;

/// What [`Source::position`] keeps.
#[derive(Debug, Serialize, Deserialize)]
struct Position {
    next_sequence: u64,
    taken: TakenSegments,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resume: Option<Resume>,
    /// Hashes of the files of the first start that are unread.
    #[serde(default)]
    initial: Vec<String>,
    /// `bounded`: the files that are unread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fixed: Option<Vec<FixedFile>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_start: Option<FirstStart>,
}

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct FilesSource {
    stream: String,
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    wake: Arc<Notify>,
    event_time: Option<String>,
    taken: Arc<Mutex<TakenSet>>,
    waiting: BTreeMap<WaitingKey, Waiting>,
    keys: HashMap<String, i64>,
    resume: Option<Resume>,
    next_sequence: u64,
    /// Unread files of the first start, and the smallest event time each may hold once its footer was read.
    initial: HashMap<PathHash, Option<i64>>,
    /// To be noted in the next range.
    first_start: Option<FirstStart>,
    generation: u32,
    last_listing: Option<EventTime>,
    listing: Option<JoinHandle<Result<Scan>>>,
    listing_clock: EventTime,
    files_listed: usize,
    /// `bounded`: files that came after the first start were counted and named in the log.
    late_files_reported: bool,
}

impl FilesSource {
    pub(crate) fn new(context: &mut SourceContext) -> Result<Self> {
        let config = FilesConfig::take(&mut context.options)?;
        Self::with_config(context, config)
    }

    /// A source of these options.
    pub(crate) fn with_config(context: &SourceContext, config: FilesConfig) -> Result<Self> {
        if config.format.format.is_text() {
            // Columns that directory names may give are decoded as text, too, so any type that a format takes will do.
            let schema = &context.schema;
            let only_text = matches!(config.format.format, Format::Text | Format::Raw);
            if !only_text || schema.fields().len() == 1 {
                Decoder::new(Arc::clone(schema), None, &config.format)?;
            }
        }
        let known = metadata();
        let mut columns = Vec::with_capacity(context.metadata.len());
        for (key, name) in &context.metadata {
            let Some((_, data_type)) = known.iter().find(|(known, _)| known == key) else {
                let near = suggest::nearest(key, known.iter().map(|(key, _)| *key));
                let hint = match near {
                    Some(near) => format!("Did you mean \"{near}\"?"),
                    None => format!("Known keys: {}.", known.iter().map(|(key, _)| *key).collect::<Vec<_>>().join(", ")),
                };
                return Err(ConnectorError::invalid(format!("the connector files has no metadata \"{key}\""), hint));
            };
            columns.push((key.clone(), Field::new(name, data_type.clone(), false)));
        }
        Ok(Self {
            stream: context.stream.clone(),
            event_time: context.event_time.clone(),
            clock: Arc::clone(&context.clock),
            shared: Arc::new(Shared::new(config, Arc::clone(&context.schema), columns)),
            wake: Arc::new(Notify::new()),
            taken: Arc::default(),
            waiting: BTreeMap::new(),
            keys: HashMap::new(),
            resume: None,
            next_sequence: 0,
            initial: HashMap::new(),
            first_start: None,
            generation: 0,
            last_listing: None,
            listing: None,
            listing_clock: EventTime::MIN,
            files_listed: 0,
            late_files_reported: false,
        })
    }

    fn config(&self) -> &FilesConfig {
        &self.shared.config
    }

    /// Runs something that blocks; a panic in it is an error.
    async fn blocking<T: Send + 'static>(&self, action: &'static str, work: impl FnOnce(&Shared) -> T + Send + 'static) -> Result<T> {
        let shared = Arc::clone(&self.shared);
        let place = quoted(&self.config().location.written);
        tokio::task::spawn_blocking(move || work(&shared)).await.map_err(|error| ConnectorError::unavailable(action, place, error))
    }

    /// Notes that a slice is part of an epoch.
    fn apply(&mut self, slice: &FileSlice) {
        let hash = PathHash::of(&slice.path);
        let file = TakenFile {
            size: slice.size,
            modified: slice.modified,
            etag: etag_hash(slice.etag.as_deref()),
            offset: if self.config().can_grow(&slice.path) { slice.byte_end.unwrap_or(slice.size) } else { slice.size },
            rows: slice.row_base + slice.end_row.unwrap_or(0),
            line: slice.next_line.unwrap_or(0),
            check: slice.check,
            complete: slice.last,
        };
        {
            let mut taken = self.taken.lock();
            taken.insert(hash, file);
            taken.see(hash, self.generation);
        }
        self.next_sequence = if slice.last { slice.sequence + 1 } else { slice.sequence };
        self.resume = (!slice.last).then(|| Resume {
            path: slice.path.clone(),
            size: slice.size,
            modified: slice.modified,
            etag: slice.etag.clone(),
            check: slice.check,
            checked: slice.checked,
            sequence: slice.sequence,
            row: slice.end_row.unwrap_or(slice.start_row),
            row_base: slice.row_base,
            offset: slice.byte_end.unwrap_or(0),
            line: slice.next_line.unwrap_or(slice.line),
        });
        if slice.last {
            self.initial.remove(&hash);
        }
        self.forget_waiting(&slice.path);
    }

    /// Lists the place when it is time to, or always where `force` is set.
    async fn discover(&mut self, now: EventTime, force: bool) -> Result<()> {
        if self.config().bounded {
            return Ok(());
        }
        if let Some(listing) = self.listing.take_if(|listing| force || listing.is_finished()) {
            let place = quoted(&self.config().location.written);
            let scan = listing.await.map_err(|error| ConnectorError::unavailable("listing", place, error))??;
            self.merge(scan, self.listing_clock, false)?;
        }
        let due = self.last_listing.is_none_or(|last| now >= last.plus(self.config().discovery_interval));
        if self.listing.is_some() || !force && !due {
            return Ok(());
        }
        self.generation = self.generation.wrapping_add(1).max(1);
        self.last_listing = Some(now);
        self.listing_clock = now;
        let (shared, taken, generation) = (Arc::clone(&self.shared), Arc::clone(&self.taken), self.generation);
        if force || self.files_listed <= BACKGROUND_FILES {
            let scan = self.blocking("listing", move |shared| discovery::scan(&shared.config, &taken, generation)).await??;
            return self.merge(scan, now, false);
        }
        let wake = Arc::clone(&self.wake);
        self.listing = Some(tokio::task::spawn_blocking(move || {
            let scan = discovery::scan(&shared.config, &taken, generation);
            wake.notify_one();
            scan
        }));
        Ok(())
    }

    fn merge(&mut self, scan: Scan, now: EventTime, at_start: bool) -> Result<()> {
        self.files_listed = scan.count;
        for file in scan.new {
            let too_old = matches!(self.config().start_from, StartFrom::Time(time) if file.modified < time);
            // A plan may have taken it since the listing began.
            if !too_old && self.taken.lock().get(PathHash::of(&file.path)).is_none() {
                self.add_waiting(file, None, at_start, now);
            }
        }
        for (file, known) in scan.grown {
            if self.taken.lock().get(PathHash::of(&file.path)) == Some(&known) {
                self.add_waiting(file, Some(known), at_start, now);
            }
        }
        for file in scan.replaced {
            match self.config().on_change(&file.path) {
                OnChange::Reread => {
                    self.taken.lock().insert(PathHash::of(&file.path), replaced_entry(&file, false));
                    self.add_waiting(file, None, at_start, now);
                }
                OnChange::Warn => {
                    tracing::warn!(stream = self.stream, path = file.path, "taken file changed; its new content is not read");
                    let mut taken = self.taken.lock();
                    taken.insert(PathHash::of(&file.path), replaced_entry(&file, true));
                    taken.see(PathHash::of(&file.path), self.generation);
                }
                chosen => {
                    let problem = match chosen {
                        OnChange::Append => "was taken and has changed in other ways than growing",
                        _ => "was taken and has changed since",
                    };
                    return Err(ConnectorError::Data {
                        place: quoted(&file.path),
                        problem: problem.into(),
                        hint: Some("Set on_change = 'reread' to read it again as new rows, or 'warn' to leave it.".into()),
                    });
                }
            }
        }
        Ok(())
    }

    fn missing(&mut self, path: &str) -> Result<()> {
        if self.config().on_missing == OnMissing::Fail {
            return Err(ConnectorError::Data {
                place: quoted(path),
                problem: "was there when the place was listed and vanished before it was read".into(),
                hint: Some("Put it back, or set on_missing = 'skip'.".into()),
            });
        }
        tracing::warn!(stream = self.stream, path, "file vanished before it was read");
        self.forget_waiting(path);
        self.initial.remove(&PathHash::of(path));
        if let Some(resume) = self.resume.take_if(|resume| resume.path == path) {
            self.next_sequence = resume.sequence + 1;
            self.taken.lock().insert(PathHash::of(path), replaced_entry(&FoundFile::from(&resume), true));
        }
        Ok(())
    }

    async fn take_outcomes(&mut self, limits: &EpochLimits, detail: &mut RangeDetail) -> Result<()> {
        let config = self.config();
        let files = limits.max_files.min(config.max_files_per_epoch.unwrap_or(u64::MAX)).max(1);
        let candidates = self.candidates(limits.draining, usize::try_from(files).unwrap_or(usize::MAX));
        if candidates.is_empty() {
            return Ok(());
        }
        let mut budget = Budget {
            rows: limits.max_rows.unwrap_or(u64::MAX),
            bytes: limits.max_bytes,
            whole_files: config.max_files_per_epoch.is_some(),
            first: true,
        };
        let at_hand = candidates.len() <= FEW && config.location.storage.is_local() && self.shared.is_far_ahead();
        let look = move |shared: &Shared| {
            let mut outcomes = Vec::with_capacity(candidates.len());
            for candidate in candidates {
                let outcome = inspect(shared, &candidate, budget);
                let mut ended = outcome.is_err() || matches!(&outcome, Ok(Outcome::NextEpoch));
                if let Ok(Outcome::Take(slice, bytes)) = &outcome {
                    budget.first = false;
                    budget.bytes = budget.bytes.saturating_sub(*bytes);
                    if budget.rows != u64::MAX {
                        budget.rows = budget.rows.saturating_sub(slice.rows().unwrap_or(0));
                    }
                    ended = !slice.last || budget.rows == 0 || budget.bytes == 0 && !budget.whole_files;
                }
                outcomes.push((candidate.file.path, outcome));
                if ended {
                    break;
                }
            }
            outcomes
        };
        // What is being decoded was read already: to look at it takes less time than to be woken up by another thread.
        let outcomes = if at_hand { look(&self.shared) } else { self.blocking("looking at files in", look).await? };
        for (path, outcome) in outcomes {
            // What came before a failure is taken; the failure comes back with the next plan.
            match outcome {
                Err(_) | Ok(Outcome::Missing) if !detail.files.is_empty() => break,
                Err(error) => return Err(error),
                Ok(Outcome::Missing) => self.missing(&path)?,
                Ok(Outcome::NextEpoch) => break,
                Ok(Outcome::Wait) => {
                    let key = self.keys.get(&path).map(|order| (*order, path.clone()));
                    if let Some(waiting) = key.and_then(|key| self.waiting.get_mut(&key)) {
                        waiting.looked_at = true;
                    }
                }
                Ok(Outcome::Take(mut slice, _)) => {
                    // A slice that goes on keeps the sequence that the file was given.
                    if slice.start_row == 0 {
                        slice.sequence = self.next_sequence;
                    }
                    self.apply(&slice);
                    detail.files.push(*slice);
                }
            }
        }
        Ok(())
    }

    fn position_value(&self) -> Position {
        let mut initial: Vec<_> = self.initial.keys().copied().collect();
        initial.sort_unstable();
        Position {
            next_sequence: self.next_sequence,
            taken: self.taken.lock().segments(),
            resume: self.resume.clone(),
            initial: initial.iter().map(|hash| format!("{:x}", hash.0)).collect(),
            fixed: self.config().bounded.then(|| self.waiting.values().map(|waiting| FixedFile::from(&waiting.file)).collect()),
            first_start: self.first_start.clone(),
        }
    }
}

impl From<&Resume> for FoundFile {
    fn from(resume: &Resume) -> Self {
        Self { path: resume.path.clone(), size: resume.size, modified: resume.modified, etag: resume.etag.clone() }
    }
}

/// The entry of a file whose content is not read (or, where not `complete`, will be read as a new one).
fn replaced_entry(file: &FoundFile, complete: bool) -> TakenFile {
    TakenFile {
        size: file.size,
        modified: file.modified,
        etag: etag_hash(file.etag.as_deref()),
        offset: file.size,
        rows: 0,
        line: 0,
        check: 0,
        complete,
    }
}

#[async_trait]
impl Source for FilesSource {
    fn properties(&self) -> SourceProperties {
        SourceProperties { replayable: true, bounded: self.config().bounded }
    }

    async fn open(&mut self, position: Option<serde_json::Value>, replayed: &[PartitionRange]) -> Result<()> {
        let owner = format!("stream \"{}\"", self.stream);
        self.blocking("looking for", move |shared| discovery::check_exists(&shared.config.location, &owner)).await??;
        let damaged = |problem: String| ConnectorError::Corrupt { place: format!("the position of stream \"{}\"", self.stream), problem };
        let first = position.is_none() && replayed.is_empty();
        let mut fixed = None;
        if let Some(position) = position {
            let position: Position = serde_json::from_value(position).map_err(|error| damaged(format!("is damaged: {error}")))?;
            let hashes = position.initial.iter().map(|text| u128::from_str_radix(text, 16).map(|hash| (PathHash(hash), None)));
            let initial = hashes.collect::<Result<_, _>>().map_err(|error| damaged(format!("is damaged: {error}")))?;
            let taken = TakenSet::restore(position.taken).ok_or_else(|| damaged("is damaged: a segment of taken files".into()))?;
            *self.taken.lock() = taken;
            self.next_sequence = position.next_sequence;
            self.resume = position.resume;
            self.initial = initial;
            self.first_start = position.first_start;
            fixed = position.fixed;
        }
        let unknown_initial =
            !first && self.initial.is_empty() && replayed.first().is_some_and(|range| range.range.start == Offset::default());
        for range in replayed {
            let detail = RangeDetail::of(range)?;
            if let Some(noted) = detail.first_start {
                self.first_start = None;
                let skipped: Vec<_> = noted.skipped.iter().flatten().map(FoundFile::from).collect();
                self.skip_files(&skipped);
                fixed = fixed.or(noted.fixed);
            }
            for slice in &detail.files {
                self.apply(slice);
            }
        }
        let now = self.clock.now();
        self.last_listing = Some(now);
        self.listing_clock = now;
        match (self.config().bounded, fixed) {
            (true, Some(fixed)) => {
                for file in &fixed {
                    if self.taken.lock().get(PathHash::of(&file.path)).is_none() {
                        self.add_waiting(FoundFile::from(file), None, true, now);
                    }
                }
            }
            _ => {
                self.generation = 1;
                let taken = Arc::clone(&self.taken);
                let scan = self.blocking("listing", move |shared| discovery::scan(&shared.config, &taken, 1)).await??;
                if first {
                    self.first_listing(scan, now)?;
                } else {
                    self.merge(scan, now, true)?;
                    if unknown_initial {
                        // The first start was lost before a checkpoint: rather hold the watermark back too long.
                        self.initial = self.waiting.values().map(|waiting| (PathHash::of(&waiting.file.path), None)).collect();
                    }
                }
            }
        }
        Ok(())
    }

    fn wake(&self) -> Arc<Notify> {
        Arc::clone(&self.wake)
    }

    async fn backlog(&mut self) -> Result<Backlog> {
        let now = self.clock.now();
        self.discover(now, false).await?;
        let ready = self.waiting.values().filter(|waiting| self.is_ready(waiting, false)).count() as u64;
        let files = ready + u64::from(self.resume.is_some());
        let bounded = self.config().bounded;
        if bounded && files == 0 && !self.late_files_reported {
            self.late_files_reported = true;
            self.report_late_files().await?;
        }
        let next_listing = self.last_listing.map(|last| last.plus(self.config().discovery_interval));
        Ok(Backlog {
            rows: None,
            files: Some(files),
            latest: vec![(String::new(), Offset { sequence: self.next_sequence + files, row: 0 })],
            ended: bounded && files == 0,
            next_due: next_listing.filter(|_| !bounded && self.listing.is_none()),
            min_unread_event_time: self.min_unread_event_time().await?,
            next_event_time: None,
            decoded: files > 0 && self.shared.is_far_ahead(),
        })
    }

    async fn mark_end(&mut self) -> Result<()> {
        let now = self.clock.now();
        self.discover(now, true).await
    }

    async fn plan(&mut self, limits: &EpochLimits) -> Result<Option<Vec<PartitionRange>>> {
        if !limits.draining {
            self.discover(limits.clock, false).await?;
        }
        let mut detail = RangeDetail { files: Vec::new(), first_start: None };
        self.take_outcomes(limits, &mut detail).await?;
        let whole =
            self.candidates(limits.draining, AHEAD_FILES).into_iter().take_while(|next| next.resume.is_none() && next.grown.is_none());
        self.shared.expect(whole.map(|next| next.file).collect());
        if !detail.files.is_empty() {
            detail.first_start = self.first_start.take();
        }
        Ok(detail.into_range()?.map(|range| vec![range]))
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(FilesReader::new(Arc::clone(&self.shared)))
    }

    async fn acknowledge(&mut self, ranges: &[PartitionRange]) -> Result<()> {
        if self.config().after_read == AfterRead::Keep {
            return Ok(());
        }
        let details = ranges.iter().map(RangeDetail::of).collect::<Result<Vec<_>>>()?;
        let slices: Vec<_> = details.into_iter().flat_map(|detail| detail.files).filter(|slice| slice.last).collect();
        self.blocking("cleaning up", move |shared| slices.iter().try_for_each(|slice| put_away(&shared.config, slice))).await?
    }

    fn position(&self) -> serde_json::Value {
        serde_json::to_value(self.position_value()).expect("strings and numbers have a JSON form")
    }

    async fn stop(&mut self) {
        if let Some(listing) = self.listing.take() {
            listing.abort();
        }
    }
}
