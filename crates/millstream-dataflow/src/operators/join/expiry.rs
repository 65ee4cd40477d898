//! When the keys of a join expire: nothing has touched them for so long by the epoch clock.
//!
//! Each side knows when its keys were touched, by a change of either side, so that all rows of a key leave in the same epoch. There are no
//! pairs then of which one row is still there.

use crate::deadlines::Deadlines;

/// When a key that is not there was touched.
const FREE: i64 = i64::MAX;

/// The keys of one side.
#[derive(Debug)]
pub(super) struct Expiry {
    /// Microseconds.
    ttl: i64,
    /// By slot of the key: the clock, in microseconds since 1970.
    touched: Vec<i64>,
    deadlines: Deadlines,
}

impl Expiry {
    /// No keys yet; those that come go after `ttl` microseconds.
    pub(super) fn new(ttl: i64) -> Self {
        Self { ttl, touched: vec![], deadlines: Deadlines::default() }
    }

    /// A key was touched.
    pub(super) fn touch(&mut self, key: u32, clock: i64) {
        if self.touched.len() <= key as usize {
            self.touched.resize(key as usize + 1, FREE);
        }
        self.touched[key as usize] = clock;
        self.deadlines.schedule(key, clock.saturating_add(self.ttl));
    }

    /// When a key was touched last.
    pub(super) fn touched(&self, key: u32) -> i64 {
        self.touched[key as usize]
    }

    /// A key has no rows any more.
    pub(super) fn forget(&mut self, key: u32) {
        if let Some(touched) = self.touched.get_mut(key as usize) {
            *touched = FREE;
        }
    }

    /// Whether some key may have expired.
    pub(super) fn any_passed(&self, clock: i64) -> bool {
        self.deadlines.any_passed(|time| time <= clock)
    }

    /// The keys that have expired, in no order.
    pub(super) fn pop_passed(&mut self, clock: i64) -> Vec<u32> {
        let (touched, ttl) = (&self.touched, self.ttl);
        let end_of = |key: u32| Some(touched[key as usize]).filter(|touched| *touched != FREE).map(|touched| touched.saturating_add(ttl));
        self.deadlines.pop_passed(|time| time <= clock, end_of)
    }

    /// Memory in bytes.
    pub(super) fn bytes(&self) -> usize {
        8 * self.touched.capacity() + self.deadlines.bytes()
    }
}
