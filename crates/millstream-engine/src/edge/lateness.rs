//! The watermark of a stream: the largest event time seen, per partition, minus the declared delay.
//!
//! The stream's watermark is the least over its active partitions and never moves back. A partition without rows for
//! `idle_timeout` no longer holds it back; if all are idle it stays, or follows the clock minus the delay where `idle_timeout` is set.

use crate::error::Result;
use arrow::array::{AsArray, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use millstream_types::EventTime;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// What is known of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionState {
    /// Largest event time seen.
    pub newest: EventTime,
    /// Clock of the last epoch that brought rows.
    pub active_at: EventTime,
}

/// The watermark of a stream with what it is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatermarkState {
    /// The watermark after the last epoch.
    pub current: EventTime,
    /// Its partitions.
    pub partitions: BTreeMap<String, PartitionState>,
    /// The stream has ended: the watermark is infinite.
    pub closed: bool,
}

impl Default for WatermarkState {
    fn default() -> Self {
        Self { current: EventTime::MIN, partitions: BTreeMap::new(), closed: false }
    }
}

impl WatermarkState {
    /// A row with this event time was accepted.
    pub fn observe(&mut self, partition: &str, time: EventTime, clock: EventTime) {
        match self.partitions.get_mut(partition) {
            Some(state) => {
                state.newest = state.newest.max(time);
                state.active_at = clock;
            }
            None => {
                self.partitions.insert(partition.to_string(), PartitionState { newest: time, active_at: clock });
            }
        }
    }

    /// Rows came that do not move the watermark.
    pub fn touch(&mut self, partition: &str, clock: EventTime) {
        if let Some(state) = self.partitions.get_mut(partition) {
            state.active_at = clock;
        }
    }

    /// The watermark after an epoch: moves forward as far as delay, idle partitions and unread history allow.
    pub fn advance(&mut self, delay: Duration, clock: EventTime, idle_timeout: Option<Duration>, ceiling: Option<EventTime>) -> EventTime {
        if self.closed {
            self.current = EventTime::MAX;
            return self.current;
        }
        let idle = |state: &PartitionState| idle_timeout.is_some_and(|timeout| state.active_at.plus(timeout) <= clock);
        let active = self.partitions.values().filter(|state| !idle(state)).map(|state| state.newest).min();
        let reached = match (active, idle_timeout) {
            (Some(newest), _) => newest.minus(delay),
            (None, Some(_)) if !self.partitions.is_empty() => clock.minus(delay),
            (None, _) => EventTime::MIN,
        };
        let reached = ceiling.map_or(reached, |ceiling| reached.min(ceiling.minus(delay)));
        self.current = self.current.max(reached);
        self.current
    }
}

/// The event times of a batch in microseconds. NULLs have been refused before.
///
/// # Errors
/// When the column cannot be cast to microseconds.
pub(crate) fn event_times(rows: &RecordBatch, column: &str) -> Result<TimestampMicrosecondArray> {
    let Some(array) = rows.column_by_name(column) else {
        return Err(crate::error::EngineError::Internal(format!("the event-time column \"{column}\" was not read")));
    };
    if let DataType::Timestamp(TimeUnit::Microsecond, _) = array.data_type() {
        return Ok(array.as_primitive::<TimestampMicrosecondType>().clone());
    }
    let cast = arrow::compute::cast(array, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
    Ok(cast.as_primitive::<TimestampMicrosecondType>().clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_active_partition_decides() {
        let mut state = WatermarkState::default();
        let second = |n: i64| EventTime(n * 1_000_000);
        state.observe("a", second(100), second(1));
        state.observe("b", second(50), second(1));
        assert_eq!(state.advance(Duration::from_secs(5), second(1), None, None), second(45));
        state.observe("a", second(200), second(60));
        assert_eq!(state.advance(Duration::from_secs(5), second(60), Some(Duration::from_secs(30)), None), second(195));
        state.observe("b", second(60), second(61));
        assert_eq!(state.advance(Duration::from_secs(5), second(61), None, None), second(195));
    }
}
