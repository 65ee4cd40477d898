//! `EMIT PERIODIC`: changes of a query that wait for the end of the period.
//!
//! ```text
//!   period 1 min      12:00:00  +a      out: +a        nothing was handed out in the minute before
//!                     12:00:20  -a +b   held
//!                     12:00:40  -b +c   held
//!                     12:01:00          out: -a +c     consolidated; an epoch runs for it even if no row comes
//! ```
//! What is held is state of the query: it is in checkpoints, and neither its view nor its sink nor whoever reads the view knows it yet.
//! When all streams have ended it is handed out at once.

use crate::error::Result;
use arrow::datatypes::SchemaRef;
use millstream_types::{Delta, EventTime, delta};
use std::time::Duration;

/// Below this number of rows held changes are not worth consolidating early.
const FEW_ROWS: usize = 8_192;

/// The held changes of one query.
#[derive(Debug, Default)]
pub struct Held {
    /// The changes.
    pub changes: Delta,
    /// Clock of the epoch that handed out last.
    pub emitted: Option<EventTime>,
    /// Rows that were left after the changes were last consolidated.
    consolidated: usize,
}

impl Held {
    /// When what is held is to be handed out; `None` when nothing is.
    pub fn due(&self, period: Duration) -> Option<EventTime> {
        if self.changes.is_empty() {
            return None;
        }
        Some(self.emitted.map_or(EventTime::MIN, |emitted| emitted.plus(period)))
    }

    /// Takes an epoch's changes and gives what is to be handed out in it. `ended`: nothing comes after it.
    ///
    /// # Errors
    /// When the changes cannot be consolidated.
    pub fn release(&mut self, changes: Delta, schema: &SchemaRef, period: Duration, (clock, ended): (EventTime, bool)) -> Result<Delta> {
        self.changes.extend(changes);
        let rows = delta::num_rows(&self.changes);
        let due = ended || self.due(period).is_some_and(|due| due <= clock);
        if due || rows > 2 * self.consolidated + FEW_ROWS {
            self.changes = delta::consolidate(schema, &self.changes)?;
            self.consolidated = delta::num_rows(&self.changes);
        }
        if !due || self.changes.is_empty() {
            return Ok(Delta::new());
        }
        self.consolidated = 0;
        self.emitted = Some(clock);
        Ok(std::mem::take(&mut self.changes))
    }
}
