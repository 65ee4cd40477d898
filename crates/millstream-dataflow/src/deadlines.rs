//! When slots of state are due: by their end, looked at when a bound or the clock comes near.
//!
//! The end of a session moves whenever a row comes, mostly later; so does the time-out of a group or key. So a slot stays where it was
//! put; when its turn comes, it is put to where its end is by then. Only an end that moves back is put there at once. Ends share a
//! bucket with those of the same second, so that buckets are few.

use std::collections::BTreeMap;

const BUCKET_MICROS: i64 = 1_000_000;
const NOT_QUEUED: i64 = i64::MIN;

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    buckets: BTreeMap<i64, Vec<u32>>,
    /// By slot: the bucket in which it waits.
    queued: Vec<i64>,
}

impl Deadlines {
    /// Makes sure that a slot is looked at when `end` passes.
    pub(crate) fn schedule(&mut self, slot: u32, end: i64) {
        let bucket = end.div_euclid(BUCKET_MICROS);
        if self.queued.len() <= slot as usize {
            self.queued.resize(slot as usize + 1, NOT_QUEUED);
        }
        let queued = &mut self.queued[slot as usize];
        if *queued != NOT_QUEUED && *queued <= bucket {
            return;
        }
        *queued = bucket;
        self.buckets.entry(bucket).or_default().push(slot);
    }

    /// Whether there may be something to close, where `passed` says whether a time has passed.
    pub(crate) fn any_passed(&self, passed: impl Fn(i64) -> bool) -> bool {
        self.buckets.keys().next().is_some_and(|bucket| passed(bucket.saturating_mul(BUCKET_MICROS)))
    }

    /// The slots whose end has passed. `end_of` gives the end of a slot, `None` if it is free.
    pub(crate) fn pop_passed(&mut self, passed: impl Fn(i64) -> bool, end_of: impl Fn(u32) -> Option<i64>) -> Vec<u32> {
        let mut closed = vec![];
        let mut open = vec![];
        while let Some(entry) = self.buckets.first_entry() {
            if !passed(entry.key().saturating_mul(BUCKET_MICROS)) {
                break;
            }
            let (bucket, slots) = entry.remove_entry();
            for slot in slots {
                // It was put elsewhere in the meantime.
                if self.queued[slot as usize] != bucket {
                    continue;
                }
                self.queued[slot as usize] = NOT_QUEUED;
                match end_of(slot) {
                    Some(end) if passed(end) => closed.push(slot),
                    Some(end) => open.push((slot, end)),
                    None => {}
                }
            }
        }
        for (slot, end) in open {
            self.schedule(slot, end);
        }
        closed
    }

    /// Memory in bytes, not counting the tree's own nodes.
    pub(crate) fn bytes(&self) -> usize {
        // Every slot waits in one bucket as a rule.
        self.queued.capacity() * (size_of::<i64>() + 2 * size_of::<u32>()) + self.buckets.len() * (8 + size_of::<Vec<u32>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_move_on_until_their_end_passes() {
        let mut deadlines = Deadlines::default();
        let mut ends = [3_500_000, 3_600_000, 90_000_000];
        for (slot, end) in ends.iter().enumerate() {
            deadlines.schedule(slot as u32, *end);
        }
        let below = |floor: i64| move |end: i64| end < floor;
        assert!(!deadlines.any_passed(below(3_000_000)));
        assert!(deadlines.any_passed(below(3_550_000)));
        ends[1] = 7_000_000;
        deadlines.schedule(1, ends[1]);
        let end_of = |ends: [i64; 3]| move |slot: u32| Some(ends[slot as usize]);
        assert!(deadlines.pop_passed(below(3_500_000), end_of(ends)).is_empty());
        assert_eq!(deadlines.pop_passed(below(3_500_001), end_of(ends)), [0]);
        // Slot 0 is used again; slot 2 is freed, used for an earlier end, and freed.
        ends[0] = 5_000_000;
        deadlines.schedule(0, ends[0]);
        deadlines.schedule(2, 6_000_000);
        let without_two = |slot: u32| (slot != 2).then_some(ends[slot as usize]);
        assert_eq!(deadlines.pop_passed(below(7_000_000), without_two), [0]);
        assert_eq!(deadlines.pop_passed(|_| true, end_of(ends)), [1]);
        assert!(!deadlines.any_passed(|_| true));
    }
}
