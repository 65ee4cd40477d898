//! The files of the first start: which of them are taken, and how they hold the watermark back while they are unread.

use super::super::config::StartFrom;
use super::super::discovery::{self, Scan};
use super::super::parquet;
use super::super::slice::{FirstStart, FixedFile};
use super::super::storage::FoundFile;
use super::super::taken::PathHash;
use super::{FilesSource, replaced_entry};
use crate::error::Result;
use crate::formats::Format;
use millstream_types::EventTime;

/// Footers that one look at the backlog reads.
const FOOTERS_PER_LOOK: usize = 1_000;

impl FilesSource {
    /// The smallest event time that unread files of the first start may hold.
    pub(super) async fn min_unread_event_time(&mut self) -> Result<Option<EventTime>> {
        let Some(column) = self.event_time.clone().filter(|_| self.config().hold_watermark && !self.initial.is_empty()) else {
            return Ok(None);
        };
        if self.config().format.format != Format::Parquet {
            return Ok(Some(EventTime::MIN));
        }
        let unread: Vec<FoundFile> = self
            .waiting
            .values()
            .map(|waiting| &waiting.file)
            .filter(|file| matches!(self.initial.get(&PathHash::of(&file.path)), Some(None)))
            .take(FOOTERS_PER_LOOK)
            .cloned()
            .collect();
        if !unread.is_empty() {
            let minima = self.blocking("reading footers in", move |shared| {
                let minimum = |file: &FoundFile| {
                    let metadata = parquet::load(&shared.config.location.storage, file).ok()?;
                    let minimum = parquet::min_timestamp(&metadata, &column);
                    shared.keep_footer(file, metadata);
                    minimum
                };
                // A file that does not say may hold anything; planning reports what is wrong with it.
                unread.iter().map(|file| (PathHash::of(&file.path), minimum(file).unwrap_or(i64::MIN))).collect::<Vec<_>>()
            });
            self.initial.extend(minima.await?.into_iter().map(|(hash, minimum)| (hash, Some(minimum))));
        }
        let minimum = self.initial.values().map(|minimum| minimum.unwrap_or(i64::MIN)).min();
        Ok(minimum.filter(|minimum| *minimum != i64::MAX).map(EventTime))
    }

    /// Says which files a bounded stream leaves unread because they came after its first start.
    pub(super) async fn report_late_files(&self) -> Result<()> {
        let found = self.blocking("listing", |shared| discovery::list(&shared.config.location, shared.config.recursive)).await??;
        let taken = self.taken.lock();
        let mut late = found.iter().filter(|file| taken.get(PathHash::of(&file.path)).is_none());
        if let Some(first) = late.next() {
            tracing::warn!(
                stream = self.stream,
                files = 1 + late.count(),
                first = first.path,
                "files of a bounded stream came too late and are not read"
            );
        }
        Ok(())
    }

    /// What a first start notes, and what it takes.
    pub(super) fn first_listing(&mut self, scan: Scan, now: EventTime) -> Result<()> {
        let mut first_start = FirstStart::default();
        if self.config().start_from == StartFrom::Latest {
            first_start.skipped = Some(scan.new.iter().map(FixedFile::from).collect());
            self.skip_files(&scan.new);
        } else {
            if self.config().bounded {
                first_start.fixed = Some(scan.new.iter().map(FixedFile::from).collect());
            }
            self.merge(scan, now, true)?;
            self.initial = self.waiting.values().map(|waiting| (PathHash::of(&waiting.file.path), None)).collect();
        }
        if first_start != FirstStart::default() {
            self.first_start = Some(first_start);
        }
        Ok(())
    }

    pub(super) fn skip_files(&mut self, files: &[FoundFile]) {
        let mut taken = self.taken.lock();
        for file in files {
            taken.insert(PathHash::of(&file.path), replaced_entry(file, true));
            taken.see(PathHash::of(&file.path), self.generation);
        }
    }
}
