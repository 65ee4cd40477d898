//! Chains: which rows of state have a key, as lists linked through the slots of the rows.
//!
//! ```text
//!   slot of the key ─▶ first, last, length          slot ⇄ slot ⇄ slot        oldest first
//! ```

/// No slot.
pub(crate) const NONE: u32 = u32::MAX;

/// A row's neighbours in its chain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) next: u32,
    pub(crate) previous: u32,
    /// Slot of the key.
    pub(crate) key: u32,
}

/// A chain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    pub(crate) first: u32,
    pub(crate) last: u32,
    pub(crate) len: u32,
}

const EMPTY: Ends = Ends { first: NONE, last: NONE, len: 0 };

/// The chains of all keys.
#[derive(Debug, Default)]
pub(crate) struct Chains {
    /// By slot of the key.
    ends: Vec<Ends>,
    /// By slot of the row.
    links: Vec<Link>,
}

impl Chains {
    /// The chain of a key, if it has rows.
    pub(crate) fn ends(&self, key: u32) -> Option<Ends> {
        self.ends.get(key as usize).copied().filter(|ends| ends.len > 0)
    }

    /// Number of rows of a key.
    pub(crate) fn len(&self, key: u32) -> usize {
        self.ends(key).map_or(0, |ends| ends.len as usize)
    }

    /// Neighbours by slot of the row.
    pub(crate) fn links(&self) -> &[Link] {
        &self.links
    }

    /// Adds a row, which is in no chain, to the end of its key's.
    pub(crate) fn push(&mut self, key: u32, slot: u32) {
        if self.ends.len() <= key as usize {
            self.ends.resize(key as usize + 1, EMPTY);
        }
        if self.links.len() <= slot as usize {
            self.links.resize(slot as usize + 1, Link { next: NONE, previous: NONE, key: NONE });
        }
        let ends = &mut self.ends[key as usize];
        let last = std::mem::replace(&mut ends.last, slot);
        ends.len += 1;
        match last {
            NONE => ends.first = slot,
            last => self.links[last as usize].next = slot,
        }
        self.links[slot as usize] = Link { next: NONE, previous: last, key };
    }

    /// Takes a row out of its chain. Returns the key if that was its last row.
    pub(crate) fn unlink(&mut self, slot: u32) -> Option<u32> {
        let Link { next, previous, key } = self.links[slot as usize];
        let ends = &mut self.ends[key as usize];
        ends.len -= 1;
        match previous {
            NONE => ends.first = next,
            previous => self.links[previous as usize].next = next,
        }
        match next {
            NONE => ends.last = previous,
            next => self.links[next as usize].previous = previous,
        }
        (ends.len == 0).then_some(key)
    }

    /// The rows of distinct keys; those of each key oldest first.
    pub(crate) fn slots(&self, keys: &[u32]) -> Vec<u32> {
        let mut slots = Vec::with_capacity(keys.iter().map(|key| self.len(*key)).sum());
        let mut open: Vec<(u32, u32)> = keys.iter().filter_map(|key| self.ends(*key)).map(|ends| (ends.first, ends.last)).collect();
        // All chains advance together, so that the memory accesses of a step overlap.
        while !open.is_empty() {
            slots.extend(open.iter().map(|(slot, _)| *slot));
            open.retain(|(slot, last)| slot != last);
            open.iter_mut().for_each(|(slot, _)| *slot = self.links[*slot as usize].next);
        }
        slots
    }

    /// Memory in bytes.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Ends>() * self.ends.capacity() + size_of::<Link>() * self.links.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_leave_from_any_place() {
        let mut chains = Chains::default();
        [(0, 5), (0, 1), (2, 0), (0, 3)].into_iter().for_each(|(key, slot)| chains.push(key, slot));
        assert_eq!(chains.slots(&[0]), [5, 1, 3]);
        assert_eq!(chains.slots(&[2, 1, 0]), [0, 5, 1, 3]);
        assert_eq!(chains.unlink(1), None);
        assert_eq!(chains.slots(&[0]), [5, 3]);
        assert_eq!(chains.unlink(5), None);
        assert_eq!(chains.ends(0).map(|ends| (ends.first, ends.last, ends.len)), Some((3, 3, 1)));
        assert_eq!(chains.unlink(3), Some(0));
        assert!(chains.ends(0).is_none());
        chains.push(0, 4);
        assert_eq!(chains.slots(&[0, 2]), [4, 0]);
        assert!(chains.ends(9).is_none());
        assert_eq!(chains.len(9), 0);
    }
}
