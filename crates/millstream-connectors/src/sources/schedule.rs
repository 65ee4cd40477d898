//! Plans the epochs of a stream whose rows are a function of their number: which rows are due when.
//!
//! A generated stream carries a share of numbered events (all of them, or the bids among Nexmark's events). Events become
//! due by the pace and the epoch clock, counted from the clock's reading at the first start, which every range and
//! checkpoint keeps: a stream that was down for a while has as many rows as if it had not been.

use super::pace::Pace;
use super::position::stored;
use crate::error::{ConnectorError, Result};
use crate::source::{Backlog, EpochLimits, SourceProperties, single_partition};
use millstream_types::{Clock, EventTime, Offset, PartitionRange};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::Notify;

/// Rows of one epoch at most, where the engine sets no limit.
const MAX_ROWS_PER_EPOCH: u64 = 1_000_000;

/// Which of the numbered events a stream carries: `count` of every `of`, from the `first` one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    /// Position of the first one in each group.
    pub first: u64,
    /// How many of each group.
    pub count: u64,
    /// Size of a group.
    pub of: u64,
}

impl Share {
    /// Every event.
    pub(crate) const ALL: Share = Share { first: 0, count: 1, of: 1 };

    /// The stream's rows among the first `events` events.
    pub(crate) fn rows_before(self, events: u64) -> u64 {
        (events / self.of).saturating_mul(self.count).saturating_add((events % self.of).saturating_sub(self.first).min(self.count))
    }

    /// The number of the event that is row `row` of the stream.
    #[inline]
    pub(crate) fn event_of(self, row: u64) -> u64 {
        (row / self.count) * self.of + self.first + row % self.count
    }
}

/// Where a generated stream stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// The clock at the first start, in microseconds.
    pub start_us: i64,
    /// The next row.
    pub next: u64,
}

/// The planning half of a generated source.
#[derive(Debug)]
pub(crate) struct Schedule {
    stream: String,
    clock: Arc<dyn Clock>,
    pace: Pace,
    share: Share,
    limit_rows: Option<u64>,
    row_bytes: u64,
    position: Position,
    wake: Arc<Notify>,
}

impl Schedule {
    /// A schedule of `pace` that ends after `limit_events` events; `row_bytes` is the usual size of a row.
    pub(crate) fn new(stream: &str, clock: &Arc<dyn Clock>, pace: Pace, share: Share, limit_events: Option<u64>, row_bytes: u64) -> Self {
        Self {
            stream: stream.to_string(),
            clock: Arc::clone(clock),
            pace,
            share,
            limit_rows: limit_events.map(|events| share.rows_before(events)),
            row_bytes: row_bytes.max(1),
            position: Position::default(),
            wake: Arc::new(Notify::new()),
        }
    }

    pub(crate) fn properties(&self) -> SourceProperties {
        SourceProperties { replayable: true, bounded: self.limit_rows.is_some() }
    }

    pub(crate) fn open(&mut self, position: Option<&serde_json::Value>, replayed: &[PartitionRange]) -> Result<()> {
        let mut start: Position = match (position, replayed.first()) {
            (Some(value), _) => stored(&self.stream, value)?,
            (None, Some(range)) => stored(&self.stream, &range.detail)?,
            (None, None) => Position { start_us: self.clock.now().0, next: 0 },
        };
        start.next = replayed.iter().map(|range| range.range.end.row).fold(start.next, u64::max);
        self.position = start;
        Ok(())
    }

    pub(crate) fn wake(&self) -> Arc<Notify> {
        Arc::clone(&self.wake)
    }

    fn due(&self, clock: EventTime) -> u64 {
        let events = self.pace.due(clock.0.saturating_sub(self.position.start_us));
        self.share.rows_before(events).min(self.limit_rows.unwrap_or(u64::MAX))
    }

    pub(crate) fn backlog(&self) -> Backlog {
        let next = self.position.next;
        let due = self.due(self.clock.now()).max(next);
        let ended = self.limit_rows.is_some_and(|limit| next >= limit);
        let unlimited = matches!(self.pace, Pace::Unlimited { .. });
        let known = !unlimited || self.limit_rows.is_some();
        // A row is due when its event and all before it are; one microsecond covers rounding.
        let next_due = match unlimited {
            true => self.clock.now(),
            false => EventTime(self.position.start_us.saturating_add(self.pace.time_of(self.share.event_of(next) + 1)).saturating_add(1)),
        };
        Backlog {
            rows: known.then(|| due - next),
            latest: if known { vec![(String::new(), Offset::row(due))] } else { Vec::new() },
            ended,
            next_due: (!ended).then_some(next_due),
            ..Backlog::default()
        }
    }

    /// All rows up to the limit are there at once for `available` and `once`, whatever the pace.
    pub(crate) fn mark_end(&self, limit_option: &str) -> Result<()> {
        match self.limit_rows {
            Some(_) => Ok(()),
            None => Err(ConnectorError::invalid(
                format!("stream \"{}\" is generated without end, so that what is available now cannot be read to its end", self.stream),
                format!("Set {limit_option} in its WITH list, or use another trigger."),
            )),
        }
    }

    pub(crate) fn plan(&mut self, limits: &EpochLimits) -> Option<Vec<PartitionRange>> {
        let start = self.position.next;
        let due = match (limits.draining, self.limit_rows) {
            (true, Some(limit)) => limit,
            _ => self.due(limits.clock),
        };
        let most = limits.max_rows.unwrap_or(MAX_ROWS_PER_EPOCH).min(limits.max_bytes / self.row_bytes).max(1);
        let end = due.min(start.saturating_add(most));
        if end <= start {
            return None;
        }
        let detail = serde_json::json!(self.position);
        self.position.next = end;
        Some(vec![PartitionRange { detail, ..single_partition(Offset::row(start), Offset::row(end)) }])
    }

    pub(crate) fn position(&self) -> serde_json::Value {
        serde_json::json!(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_number_their_rows_without_gaps() {
        for share in
            [Share::ALL, Share { first: 0, count: 1, of: 50 }, Share { first: 1, count: 3, of: 50 }, Share { first: 4, count: 46, of: 50 }]
        {
            for row in 0..300 {
                let event = share.event_of(row);
                assert_eq!(share.rows_before(event), row);
                assert_eq!(share.rows_before(event + 1), row + 1);
            }
        }
        assert_eq!(Share { first: 4, count: 46, of: 50 }.rows_before(u64::MAX), u64::MAX / 50 * 46 + 11);
    }
}
