//! What is kept of a stream whose source cannot replay: the rows of its newest epochs, as they were accepted.

use super::StreamRuntime;
use millstream_types::{Delta, Epoch, EventTime};

/// The rows of one epoch.
#[derive(Debug, Clone)]
pub struct Retained {
    /// The epoch.
    pub epoch: Epoch,
    /// Its clock.
    pub clock: EventTime,
    /// The accepted rows.
    pub rows: Delta,
    /// The changes that make versions of a keyed stream; none where nobody read them then.
    pub versions: Delta,
}

impl Retained {
    fn bytes(&self) -> u64 {
        self.rows.iter().chain(&self.versions).map(|part| part.batch.get_array_memory_size() as u64).sum()
    }
}

impl StreamRuntime {
    /// Keeps rows of a source that cannot replay, within the stream's retention.
    pub(super) fn retain(&mut self, retained: Retained) {
        if retained.rows.is_empty() && retained.versions.is_empty() {
            return;
        }
        let clock = retained.clock;
        self.retained_bytes += retained.bytes();
        self.retained.push_back(retained);
        while self.retained.len() > 1 {
            let Some(oldest) = self.retained.front() else { break };
            let too_old = oldest.clock.plus(self.def.options.retention_time) < clock;
            if self.retained_bytes <= self.def.options.retention_bytes && !too_old {
                break;
            }
            if let Some(oldest) = self.retained.pop_front() {
                self.retained_bytes = self.retained_bytes.saturating_sub(oldest.bytes());
                self.retention_cut = true;
            }
        }
    }
}
