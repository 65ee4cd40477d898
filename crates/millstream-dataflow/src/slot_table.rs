//! The hash table below [`KeyIndex`](crate::key_index::KeyIndex): from 64-bit tags to slots.
//!
//! ```text
//!   tag ─mix─▶ home ──▶ (tag, slot) (tag, slot) (tag, slot) ─ ─       open addressing, linear probing
//! ```
//! In a table of millions of entries a look-up is a wait for memory. Here an entry is one place in memory, not two, and that place follows
//! from the tag alone, so that [`fetch`](SlotTable::fetch) can ask for those of a whole batch at once, before the first is looked at.
//!
//! A tag may occur several times, with different slots. Removal moves entries back instead of leaving marks.

/// No slot: the entry is empty.
const EMPTY: u32 = u32::MAX;
/// Entries of the smallest table that has any.
const SMALLEST: usize = 16;

#[derive(Clone, Copy, Debug)]
struct Entry {
    tag: u64,
    slot: u32,
}

const NOTHING: Entry = Entry { tag: 0, slot: EMPTY };

/// The table.
#[derive(Debug, Default)]
pub(crate) struct SlotTable {
    /// A power of two, at most three quarters of them in use.
    entries: Vec<Entry>,
    len: usize,
}

impl SlotTable {
    /// Reads the homes of all tags, so that the accesses to memory overlap: a look-up that follows finds them in the cache.
    pub(crate) fn fetch(&self, tags: impl Iterator<Item = u64>) {
        if !self.entries.is_empty() {
            std::hint::black_box(tags.fold(0, |sum, tag| sum ^ self.entries[self.home(tag)].slot));
        }
    }

    /// The first slot with this tag that `is_it`.
    pub(crate) fn find(&self, tag: u64, is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        self.position(tag, is_it).map(|at| self.entries[at].slot)
    }

    /// The first slot with this tag that `is_it`; adds an entry with `slot` if there is none.
    pub(crate) fn find_or_insert(&mut self, tag: u64, mut is_it: impl FnMut(u32) -> bool, slot: u32) -> Option<u32> {
        self.reserve();
        let mask = self.entries.len() - 1;
        let mut at = self.home(tag);
        loop {
            let entry = &mut self.entries[at];
            if entry.slot == EMPTY {
                *entry = Entry { tag, slot };
                self.len += 1;
                return None;
            }
            if entry.tag == tag && is_it(entry.slot) {
                return Some(entry.slot);
            }
            at = (at + 1) & mask;
        }
    }

    /// Takes an entry out, if it is there.
    pub(crate) fn remove(&mut self, tag: u64, slot: u32) {
        let Some(mut hole) = self.position(tag, |other| other == slot) else { return };
        self.len -= 1;
        let mask = self.entries.len() - 1;
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let entry = self.entries[at];
            if entry.slot == EMPTY {
                break;
            }
            // An entry may not move in front of its home.
            let home = self.home(entry.tag);
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.entries[hole] = entry;
                hole = at;
            }
        }
        self.entries[hole] = NOTHING;
    }

    /// Keeps the entries whose slot stays; `stays` is by slot, of all slots.
    pub(crate) fn retain(&mut self, stays: &[bool]) {
        // Which entries are in use, and of slots that stay, is random. So every entry is copied, and overwritten by the next one unless it
        // stays: a processor that has to guess guesses wrong at every other one.
        let mut staying = vec![NOTHING; self.len + 1];
        let mut count = 0;
        for entry in &self.entries {
            staying[count] = *entry;
            let slot = (entry.slot as usize).min(stays.len() - 1);
            count += usize::from(stays[slot] & (entry.slot != EMPTY));
        }
        staying.truncate(count);
        // In place: what windows that close leave behind is filled again by the next ones.
        self.entries.fill(NOTHING);
        self.len = count;
        staying.into_iter().for_each(|entry| self.place(entry));
    }

    /// Gives memory back after most entries have gone.
    pub(crate) fn shrink(&mut self) {
        if self.entries.len() > 1024 && self.len * 8 < self.entries.len() {
            self.resize((self.len * 2).next_power_of_two().max(SMALLEST));
        }
    }

    /// Memory in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
    }

    /// Where an entry would be if there were no other.
    fn home(&self, tag: u64) -> usize {
        mix(tag) as usize & (self.entries.len() - 1)
    }

    fn position(&self, tag: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<usize> {
        if self.entries.is_empty() {
            return None;
        }
        let mask = self.entries.len() - 1;
        let mut at = self.home(tag);
        loop {
            let entry = self.entries[at];
            if entry.slot == EMPTY {
                return None;
            }
            if entry.tag == tag && is_it(entry.slot) {
                return Some(at);
            }
            at = (at + 1) & mask;
        }
    }

    /// Makes room for one more entry.
    fn reserve(&mut self) {
        if (self.len + 1) * 4 > self.entries.len() * 3 {
            self.resize((self.entries.len() * 2).max(SMALLEST));
        }
    }

    /// Puts an entry, which is counted already, into a place that is empty.
    fn place(&mut self, entry: Entry) {
        let mask = self.entries.len() - 1;
        let mut at = self.home(entry.tag);
        while self.entries[at].slot != EMPTY {
            at = (at + 1) & mask;
        }
        self.entries[at] = entry;
    }

    fn resize(&mut self, capacity: usize) {
        let old = std::mem::replace(&mut self.entries, vec![NOTHING; capacity]);
        old.into_iter().filter(|entry| entry.slot != EMPTY).for_each(|entry| self.place(entry));
    }
}

/// The finalizer of splitmix64: spreads integers over all bits.
pub(crate) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use std::collections::BTreeSet;

    fn check(table: &SlotTable, model: &BTreeSet<(u64, u32)>) {
        assert_eq!(table.len, model.len());
        for (tag, slot) in model {
            assert_eq!(table.find(*tag, |other| other == *slot), Some(*slot));
        }
        let all = table.entries.iter().filter(|entry| entry.slot != EMPTY).map(|entry| (entry.tag, entry.slot));
        assert_eq!(all.collect::<BTreeSet<_>>(), *model);
    }

    #[test]
    fn it_is_a_set_of_tags_and_slots() {
        for seed in 0..40 {
            let mut rng = StdRng::seed_from_u64(seed);
            // Few tags collide a lot, and have several slots.
            let tags = [3, 40, 5_000][seed as usize % 3];
            let (mut table, mut model) = (SlotTable::default(), BTreeSet::new());
            for step in 0..3_000u32 {
                let tag = rng.random_range(0..tags);
                match rng.random_range(0..100) {
                    0..40 => {
                        assert_eq!(table.find_or_insert(tag, |_| false, step), None);
                        model.insert((tag, step));
                    }
                    40..60 => {
                        let there = model.range((tag, 0)..=(tag, u32::MAX)).next().is_some();
                        assert_eq!(table.find_or_insert(tag, |_| true, step).is_some(), there);
                        if !there {
                            model.insert((tag, step));
                        }
                    }
                    60..98 => {
                        let found = table.find(tag, |_| true);
                        assert_eq!(found.is_some(), model.range((tag, 0)..=(tag, u32::MAX)).next().is_some());
                        if let Some(slot) = found {
                            table.remove(tag, slot);
                            table.remove(tag, slot);
                            assert!(model.remove(&(tag, slot)));
                        }
                    }
                    _ => {
                        let part = rng.random_range(2..9);
                        table.retain(&(0..=step).map(|slot| slot % part != 0).collect::<Vec<_>>());
                        model.retain(|(_, slot)| slot % part != 0);
                        table.shrink();
                    }
                }
                if step % 250 == 0 {
                    check(&table, &model);
                }
            }
            table.fetch(0..tags);
            check(&table, &model);
        }
    }

    #[test]
    fn memory_is_given_back() {
        let mut table = SlotTable::default();
        assert_eq!((table.find(7, |_| true), table.bytes()), (None, 0));
        (0..100_000).for_each(|slot| assert_eq!(table.find_or_insert(u64::from(slot), |_| true, slot), None));
        let full = table.bytes();
        table.retain(&(0..100_000).map(|slot| slot < 100).collect::<Vec<_>>());
        table.shrink();
        assert!(table.bytes() * 100 < full);
        assert_eq!((0..200).filter(|tag| table.find(*tag, |_| true).is_some()).count(), 100);
    }
}
