//! The weights of the rows of one side of a join, by slot. Mostly each row is there once, and then nobody has to look.

/// Weights by slot; zero where there is no row.
#[derive(Debug, Default)]
pub(super) struct RowWeights {
    weights: Vec<i64>,
    /// Slots with another weight than zero or one.
    unusual: usize,
}

fn is_unusual(weight: i64) -> bool {
    weight != 0 && weight != 1
}

impl RowWeights {
    /// Slots so far.
    pub(super) fn len(&self) -> usize {
        self.weights.len()
    }

    /// The weight of a slot's row.
    pub(super) fn get(&self, slot: u32) -> i64 {
        self.weights[slot as usize]
    }

    /// Sets the weight of a slot, which may be new.
    pub(super) fn set(&mut self, slot: u32, weight: i64) {
        let at = slot as usize;
        if self.weights.len() <= at {
            self.weights.resize(at + 1, 0);
        }
        let before = std::mem::replace(&mut self.weights[at], weight);
        self.unusual = self.unusual + usize::from(is_unusual(weight)) - usize::from(is_unusual(before));
    }

    /// Whether each of these rows, all of which are there, is there once.
    pub(super) fn are_ones(&self, slots: &[u32]) -> bool {
        self.unusual == 0 || slots.iter().all(|slot| self.get(*slot) == 1)
    }

    /// Memory in bytes.
    pub(super) fn bytes(&self) -> usize {
        8 * self.weights.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_are_there_more_than_once_are_counted() {
        let mut weights = RowWeights::default();
        (0..3).for_each(|slot| weights.set(slot, 1));
        assert!(weights.are_ones(&[0, 1, 2]));
        weights.set(1, 2);
        assert!(!weights.are_ones(&[0, 1]) && weights.are_ones(&[0, 2]));
        weights.set(1, -1);
        weights.set(4, 0);
        assert!(!weights.are_ones(&[1]) && !weights.are_ones(&[4]));
        weights.set(1, 1);
        assert!(weights.are_ones(&[0, 1, 2]));
        assert_eq!((weights.len(), weights.get(3)), (5, 0));
    }
}
