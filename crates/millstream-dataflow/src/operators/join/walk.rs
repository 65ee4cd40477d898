//! The walk from a change's rows to the rows of the other side with the same key.
//!
//! All rows of a change advance together, one step of their chains at a time, so that the memory accesses of a step overlap; a walk
//! along one chain after the other takes four times as long. Pairs come in chunks of bounded size, whatever the keys.

use super::PAIRS;
use crate::chains::{Ends, Link};

/// Pairs of a row of the change and a row of state (its slot).
#[derive(Debug, Default)]
pub(super) struct Pairs {
    pub(super) rows: Vec<u32>,
    pub(super) slots: Vec<u32>,
}

/// Where the rows of a change stand in their chains.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Row, the slot it has reached, and the last one of its chain.
    open: Vec<(u32, u32, u32)>,
    /// How far the current step has come: entries read, and entries kept for the next step at the front of `open`.
    read: usize,
    kept: usize,
    /// Rows that meet all of `all`, whatever their key.
    wide: Vec<u32>,
    all: Vec<u32>,
    /// Next pair of those: a place in `wide`, a place in `all`.
    next: (usize, usize),
}

impl Pairs {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Leaves out the pairs with slots from `first` on.
    pub(super) fn keep_below(&mut self, first: u32) {
        let mut kept = 0;
        for pair in 0..self.slots.len() {
            if self.slots[pair] < first {
                (self.rows[kept], self.slots[kept]) = (self.rows[pair], self.slots[pair]);
                kept += 1;
            }
        }
        self.rows.truncate(kept);
        self.slots.truncate(kept);
    }

    fn push(&mut self, row: u32, slot: u32) {
        self.rows.push(row);
        self.slots.push(slot);
    }
}

impl Walk {
    /// Starts row `row` at a chain.
    pub(super) fn start(&mut self, row: usize, Ends { first, last, .. }: Ends) {
        self.open.push((row as u32, first, last));
    }

    /// Lets `rows` meet all slots of `all`.
    pub(super) fn start_wide(&mut self, rows: Vec<u32>, all: Vec<u32>) {
        (self.wide, self.all) = (rows, all);
    }

    /// Replaces `pairs` by the next ones; `false` when there are none.
    pub(super) fn fill(&mut self, links: &[Link], pairs: &mut Pairs) -> bool {
        pairs.rows.clear();
        pairs.slots.clear();
        while pairs.len() < PAIRS {
            if self.read == self.open.len() {
                self.open.truncate(self.kept);
                (self.read, self.kept) = (0, 0);
                if self.open.is_empty() {
                    break;
                }
            }
            let (row, slot, last) = self.open[self.read];
            self.read += 1;
            pairs.push(row, slot);
            // Mostly a chain has one row, and its link need not be read.
            if slot != last {
                self.open[self.kept] = (row, links[slot as usize].next, last);
                self.kept += 1;
            }
        }
        while pairs.len() < PAIRS && self.next.0 < self.wide.len() && !self.all.is_empty() {
            pairs.push(self.wide[self.next.0], self.all[self.next.1]);
            self.next.1 += 1;
            if self.next.1 == self.all.len() {
                self.next = (self.next.0 + 1, 0);
            }
        }
        !pairs.rows.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chains::NONE;

    #[test]
    fn chains_advance_together_and_chunks_are_bounded() {
        let link = |next| Link { next, previous: NONE, key: 0 };
        // 0 ─▶ 2 ─▶ 3, and 1 alone.
        let links = [link(2), link(NONE), link(3), link(NONE)];
        let mut walk = Walk::default();
        let ends = |first, last, len| Ends { first, last, len };
        walk.start(7, ends(0, 3, 3));
        walk.start(8, ends(1, 1, 1));
        walk.start_wide(vec![9], vec![1, 3]);
        let mut pairs = Pairs::default();
        assert!(walk.fill(&links, &mut pairs));
        assert_eq!(pairs.rows, [7, 8, 7, 7, 9, 9]);
        assert_eq!(pairs.slots, [0, 1, 2, 3, 1, 3]);
        assert!(!walk.fill(&links, &mut pairs));

        let mut walk = Walk::default();
        (0..PAIRS).for_each(|row| walk.start(row, ends(0, 3, 3)));
        let mut sizes = vec![];
        while walk.fill(&links, &mut pairs) {
            sizes.push(pairs.len());
        }
        assert_eq!(sizes, [PAIRS; 3]);
    }
}
