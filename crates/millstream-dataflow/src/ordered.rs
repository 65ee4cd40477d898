//! The rows of one partition, or the values of one group, in their order, each with how often it is there.
//!
//! An entry is the encoding of the sort keys followed by that of the whole row, so its bytes order like the rows, ties by all columns. A
//! value is an entry without sort keys. A few entries are a sorted vector, more a tree.

use crate::error::{DataflowError, Result};
use crate::short_bytes::ShortBytes;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Beyond this many entries inserting into a vector moves too much.
const SMALL_MAX: usize = 64;

/// A row's place in the order and the row.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) bytes: ShortBytes,
    /// How many of the bytes are sort keys.
    pub(crate) key_len: u32,
}

impl Entry {
    /// The sort keys: equal for ties.
    pub(crate) fn key(&self) -> &[u8] {
        &self.bytes[..self.key_len as usize]
    }

    /// Memory of one of `len` bytes with its weight.
    pub(crate) fn memory(len: usize) -> usize {
        size_of::<(Self, i64)>() + ShortBytes::allocated(len)
    }

    /// The row.
    pub(crate) fn row(&self) -> &[u8] {
        &self.bytes[self.key_len as usize..]
    }
}

// Where the sort keys end follows from the bytes.
impl Borrow<[u8]> for Entry {
    fn borrow(&self) -> &[u8] {
        &self.bytes
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        *self.bytes == *other.bytes
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (*self.bytes).cmp(&*other.bytes)
    }
}

/// What a change of a row's weight did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    Added,
    Removed,
    Kept,
}

/// The entries with their weights.
#[derive(Debug)]
pub(crate) enum Ordered {
    Small(Vec<(Entry, i64)>),
    Large(BTreeMap<Entry, i64>),
}

impl Default for Ordered {
    fn default() -> Self {
        Ordered::Small(vec![])
    }
}

impl Ordered {
    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        match self {
            Ordered::Small(entries) => entries.len(),
            Ordered::Large(entries) => entries.len(),
        }
    }

    /// The entries in ascending order.
    pub(crate) fn iter(&self) -> Box<dyn Iterator<Item = (&Entry, i64)> + '_> {
        match self {
            Ordered::Small(entries) => Box::new(entries.iter().map(|(entry, weight)| (entry, *weight))),
            Ordered::Large(entries) => Box::new(entries.iter().map(|(entry, weight)| (entry, *weight))),
        }
    }

    /// The smallest entry.
    pub(crate) fn first(&self) -> Option<&Entry> {
        match self {
            Ordered::Small(entries) => entries.first().map(|(entry, _)| entry),
            Ordered::Large(entries) => entries.first_key_value().map(|(entry, _)| entry),
        }
    }

    /// The greatest entry.
    pub(crate) fn last(&self) -> Option<&Entry> {
        match self {
            Ordered::Small(entries) => entries.last().map(|(entry, _)| entry),
            Ordered::Large(entries) => entries.last_key_value().map(|(entry, _)| entry),
        }
    }

    /// Adds to the weight of a row. A weight that would be negative is the inner error, and nothing changes.
    pub(crate) fn change(&mut self, bytes: &[u8], key_len: u32, weight: i64) -> Result<std::result::Result<Changed, i64>> {
        let found = match self {
            Ordered::Small(entries) => entries.binary_search_by(|(entry, _)| (*entry.bytes).cmp(bytes)),
            // The place does not matter in a tree.
            Ordered::Large(entries) => entries.contains_key(bytes).then_some(0).ok_or(0),
        };
        let old = match (&*self, found) {
            (_, Err(_)) => 0,
            (Ordered::Small(entries), Ok(place)) => entries[place].1,
            (Ordered::Large(entries), Ok(_)) => entries[bytes],
        };
        let new = old.checked_add(weight).ok_or_else(|| DataflowError::internal("the multiplicity of a row exceeds 64 bits"))?;
        if new < 0 {
            return Ok(Err(new));
        }
        let entry = || Entry { bytes: ShortBytes::from(bytes), key_len };
        Ok(Ok(match (self, found) {
            (_, Err(_)) if new == 0 => Changed::Kept,
            (Ordered::Small(entries), Ok(place)) if new == 0 => {
                entries.remove(place);
                Changed::Removed
            }
            (Ordered::Small(entries), Ok(place)) => {
                entries[place].1 = new;
                Changed::Kept
            }
            (ordered @ Ordered::Small(_), Err(place)) => {
                ordered.insert_small(place, entry(), new);
                Changed::Added
            }
            (ordered @ Ordered::Large(_), Ok(_)) if new == 0 => {
                ordered.remove_large(bytes);
                Changed::Removed
            }
            (Ordered::Large(entries), found) => {
                entries.insert(entry(), new);
                if found.is_ok() { Changed::Kept } else { Changed::Added }
            }
        }))
    }

    fn insert_small(&mut self, place: usize, entry: Entry, weight: i64) {
        let Ordered::Small(entries) = self else { return };
        // Most partitions have one or two entries.
        if entries.len() < 4 {
            entries.reserve_exact(1);
        }
        entries.insert(place, (entry, weight));
        if entries.len() > SMALL_MAX {
            *self = Ordered::Large(std::mem::take(entries).into_iter().collect());
        }
    }

    fn remove_large(&mut self, bytes: &[u8]) {
        let Ordered::Large(entries) = self else { return };
        entries.remove(bytes);
        if entries.is_empty() {
            *self = Ordered::default();
        }
    }
}

/// Reads of each of these partitions what a change of it will read first. The accesses to memory overlap here; in the work on one
/// partition after the other each would be waited for.
pub(crate) fn read_ahead<'s>(partitions: &[Ordered], slots: impl Iterator<Item = &'s u32>) {
    let small = |slot: &u32| match partitions.get(*slot as usize) {
        Some(Ordered::Small(entries)) => entries.as_slice(),
        _ => &[],
    };
    let entries: Vec<&[(Entry, i64)]> = slots.map(small).collect();
    std::hint::black_box(entries.iter().filter_map(|entries| entries.first()).fold(0, |sum, (_, weight)| sum ^ weight));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::rng;
    use rand::Rng;

    #[test]
    fn random_changes_agree_with_a_map() {
        let mut rng = rng(1);
        let mut ordered = Ordered::default();
        let mut model: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
        for step in 0..4000 {
            // It grows into a tree, and empties now and then.
            let low = if step % 1000 < 700 { 1 } else { -9 };
            let (bytes, weight) = (vec![rng.random_range(0..120u8), 7], rng.random_range(low..3));
            let left = model.get(&bytes).copied().unwrap_or(0) + weight;
            let found = ordered.change(&bytes, 1, weight).unwrap();
            if left < 0 {
                assert_eq!(found, Err(left));
                continue;
            }
            let known = model.contains_key(&bytes);
            let expected = match (known, left) {
                (true, 0) => Changed::Removed,
                (false, 1..) => Changed::Added,
                _ => Changed::Kept,
            };
            assert_eq!(found, Ok(expected));
            model.insert(bytes.clone(), left);
            model.retain(|_, weight| *weight > 0);
            assert_eq!(ordered.len(), model.len());
            let entries: Vec<(Vec<u8>, i64)> = ordered.iter().map(|(entry, weight)| (entry.bytes.to_vec(), weight)).collect();
            assert_eq!(entries, model.clone().into_iter().collect::<Vec<_>>());
            assert_eq!(ordered.first().map(|entry| entry.bytes.to_vec()), model.keys().next().cloned());
            assert_eq!(
                ordered.last().map(|entry| (entry.key().to_vec(), entry.row().to_vec())),
                model.keys().last().map(|b| (b[..1].to_vec(), b[1..].to_vec()))
            );
        }
    }
}
