//! Files that were found and not taken: in which order they are taken, and when they may be.

use super::super::config::Order;
use super::super::inspect::Candidate;
use super::super::storage::FoundFile;
use super::super::taken::TakenFile;
use super::FilesSource;
use millstream_types::EventTime;
use std::time::Duration;

/// Least time for which a Parquet file without a footer is waited for.
const INCOMPLETE_WAIT: Duration = Duration::from_secs(2);

/// A file that was found and not taken.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub(super) file: FoundFile,
    pub(super) grown: Option<TakenFile>,
    /// When this version was listed first.
    pub(super) first_seen: EventTime,
    pub(super) at_start: bool,
    pub(super) stable: bool,
    /// It was looked at since the last listing and was not complete.
    pub(super) looked_at: bool,
}

/// Sorts the waiting files in the order in which they are taken.
pub(super) type WaitingKey = (i64, String);

impl FilesSource {
    pub(super) fn forget_waiting(&mut self, path: &str) {
        if let Some(modified) = self.keys.remove(path) {
            self.waiting.remove(&(modified, path.to_string()));
        }
    }

    pub(super) fn add_waiting(&mut self, file: FoundFile, grown: Option<TakenFile>, at_start: bool, now: EventTime) {
        let old_key = self.keys.get(&file.path).map(|modified| (*modified, file.path.clone()));
        let old = old_key.and_then(|key| self.waiting.remove(&key));
        let settle = match self.config().format.format.is_text() {
            true => self.config().settle,
            false => self.config().settle.max(INCOMPLETE_WAIT),
        };
        let same = old.as_ref().filter(|old| old.file.same_version(&file));
        let first_seen = same.map_or(now, |old| old.first_seen);
        let stable = same.is_some() && now > first_seen && now >= first_seen.plus(settle);
        let at_start = at_start || old.as_ref().is_some_and(|old| old.at_start);
        let order = if self.config().order == Order::Name { 0 } else { file.modified };
        self.keys.insert(file.path.clone(), order);
        let key = (order, file.path.clone());
        self.waiting.insert(key, Waiting { file, grown, first_seen, at_start, stable, looked_at: false });
    }

    pub(super) fn is_ready(&self, waiting: &Waiting, draining: bool) -> bool {
        let config = self.config();
        let by_decree = draining || config.bounded;
        let must_settle = config.format.format.is_text() && config.location.storage.is_local() && !config.settle.is_zero();
        by_decree || !waiting.looked_at && (waiting.at_start || waiting.stable || waiting.grown.is_some() || !must_settle)
    }

    /// The files to look at for the next epoch, in order.
    pub(super) fn candidates(&self, draining: bool, limit: usize) -> Vec<Candidate> {
        let settled_by_decree = draining || self.config().bounded;
        let resumed = self.resume.iter().map(|resume| Candidate {
            file: FoundFile { path: resume.path.clone(), size: resume.size, modified: resume.modified, etag: resume.etag.clone() },
            resume: Some(resume.clone()),
            grown: None,
            at_start: true,
            stable: false,
            settled_by_decree,
        });
        let waiting = self.waiting.values().filter(|waiting| self.is_ready(waiting, draining)).map(|waiting| Candidate {
            file: waiting.file.clone(),
            resume: None,
            grown: waiting.grown,
            at_start: waiting.at_start,
            stable: waiting.stable,
            settled_by_decree,
        });
        resumed.chain(waiting).take(limit).collect()
    }
}
