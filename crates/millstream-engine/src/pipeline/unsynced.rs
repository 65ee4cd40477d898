//! Epochs that share a sync of the log.
//!
//! While a backlog is worked off, the record of an epoch that nobody waits for need not be synced by itself: the next epoch follows at
//! once, and one sync makes both durable. Until then nothing of the epoch is told to anybody. It is in no reader's sight and in no
//! figure, and its input is not acknowledged; a crash takes it back, and recovery reads its ranges again.
//!
//! ```text
//!   epoch 7: append ─┐                         epoch 9: append, sync ─▶ 7, 8 and 9 are told of
//!   epoch 8: append ─┴─▶ wait for company ────────────┘
//! ```
//! An epoch waits [`SHARED_SYNC`] at most, and only while the next one is at hand: the pipeline syncs before it waits for input, answers a
//! statement, or makes a checkpoint. What has an effect outside never waits: files that become visible, delivered rows, changes of
//! tables, acknowledged inserts, definitions.

use super::record::CommitRecord;
use super::sources::{AssembleRequest, Assembled};
use super::{Committed, Pipeline, SinkState};
use crate::error::{EngineError, Result};
use crate::progress::PhaseTimes;
use crate::stopwatch::Stopwatch;
use millstream_state::failpoint;
use std::time::Duration;

/// How long a record may wait for others.
const SHARED_SYNC: Duration = Duration::from_millis(10);

/// An epoch whose record is in the log, durable or not.
#[derive(Debug)]
pub(super) struct Appended {
    pub(super) record: CommitRecord,
    pub(super) assembled: Assembled,
    pub(super) phases: PhaseTimes,
    /// When its second half began.
    pub(super) started: Stopwatch,
}

/// Epochs that are not durable yet, oldest first.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    epochs: Vec<Appended>,
    /// When the first of them was appended.
    since: Option<Stopwatch>,
}

impl Unsynced {
    /// Adds an epoch that waits.
    pub(super) fn push(&mut self, epoch: Appended) {
        self.since.get_or_insert_with(Stopwatch::start);
        self.epochs.push(epoch);
    }

    fn is_full(&self) -> bool {
        self.since.as_ref().is_some_and(|since| since.elapsed() >= SHARED_SYNC)
    }
}

impl Pipeline {
    /// Whether an epoch's record may wait for the next one's, if that follows at once. `attached`: rows travel in it.
    pub(super) fn may_wait(&self, record: &CommitRecord, attached: bool, assembled: &Assembled) -> bool {
        let CommitRecord { tables, sinks, catalog, inserts, failed, .. } = record;
        let rolls = sinks.values().any(|commit| !commit.files.is_empty() || !commit.cause.is_empty());
        let tells_nobody = tables.is_empty() && !rolls && catalog.is_empty() && inserts.is_empty() && failed.is_empty();
        self.durability.is_some()
            && tells_nobody
            && !attached
            && assembled.states.is_none()
            && self.live.is_empty()
            && !self.sinks.values().any(SinkState::is_delivered)
            && !self.unsynced.is_full()
    }

    /// Makes every appended record durable, and assembles the next epoch meanwhile if it is asked for.
    pub(super) async fn sync_log(&mut self, next: Option<AssembleRequest>) -> Result<()> {
        let Some(durability) = &mut self.durability else { return Ok(()) };
        match (next, &mut self.sources) {
            (Some(request), Some(sources)) => {
                let sync = durability.log.pending_sync()?;
                let syncing = tokio::task::spawn_blocking(move || sync.run());
                self.ready = Some(sources.assemble(request).await);
                let synced = syncing.await.map_err(|error| EngineError::Internal(format!("syncing the log failed: {error}")))?;
                durability.log.synced(synced)?;
            }
            _ => durability.log.sync()?,
        }
        failpoint::hit("commit.after_sync")?;
        durability.dir.check_fenced()?;
        Ok(())
    }

    /// Makes the epochs that wait for company durable, and tells of them.
    pub(super) async fn sync_waiting(&mut self) -> Result<()> {
        if self.unsynced.epochs.is_empty() {
            return Ok(());
        }
        self.sync_log(None).await?;
        self.tell_of_waiting().await?;
        self.publish_content().await;
        Ok(())
    }

    /// Tells of the epochs that waited and are durable now. Their content is published with the newest one's.
    pub(super) async fn tell_of_waiting(&mut self) -> Result<()> {
        for epoch in std::mem::take(&mut self.unsynced).epochs {
            self.acknowledge(&epoch.assembled.streams).await?;
            self.tell_of(&epoch);
        }
        Ok(())
    }

    /// Counts a durable epoch, and wakes up whoever waits for it.
    pub(super) fn tell_of(&mut self, epoch: &Appended) {
        let Appended { record, assembled, phases, started } = epoch;
        self.report(record, assembled, (*phases, started.elapsed() + assembled.plan_time + assembled.read_time));
        self.shared.inserts.carried_out(record.epoch, &record.inserts);
        self.shared.committed.send_modify(|committed| advance(committed, record));
    }
}

fn advance(committed: &mut Committed, record: &CommitRecord) {
    committed.epoch = record.epoch;
    for (name, stream) in &record.streams {
        if let Some(range) = stream.ranges.iter().rev().find(|range| range.partition.is_empty()) {
            committed.offsets.insert(name.clone(), range.range.end);
        }
    }
}
