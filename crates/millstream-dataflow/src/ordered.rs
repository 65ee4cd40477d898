//! The rows of one partition, or the values of one group, in their order, each with how often it is there.
//!
//! An entry is the encoding of the sort keys followed by that of the whole row, so its bytes order like the rows, ties by all columns. A
//! value is an entry without sort keys. The first entry lies where the partition does, since most partitions have no other: among millions
//! of them that is one memory access and no allocation. A few are a sorted vector, more a tree.

use crate::error::{DataflowError, Result};
use crate::short_bytes::ShortBytes;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Beyond this many entries inserting into a vector moves too much.
const FEW_MAX: usize = 64;

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

/// An entry with its weight.
type Weighted = (Entry, i64);

/// How much there is in some partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) entries: usize,
    /// Memory beside the partitions themselves.
    pub(crate) bytes: usize,
}

/// The entries with their weights.
#[derive(Debug, Default)]
pub(crate) enum Ordered {
    #[default]
    Empty,
    One(Weighted),
    Few(Vec<Weighted>),
    Many(BTreeMap<Entry, i64>),
}

impl Ordered {
    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        match self {
            Ordered::Many(entries) => entries.len(),
            few => few.slice().len(),
        }
    }

    /// The entries, unless they are in a tree.
    fn slice(&self) -> &[Weighted] {
        match self {
            Ordered::Empty | Ordered::Many(_) => &[],
            Ordered::One(entry) => std::slice::from_ref(entry),
            Ordered::Few(entries) => entries,
        }
    }

    /// The entries in ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Entry, i64)> {
        let tree = if let Ordered::Many(entries) = self { Some(entries) } else { None };
        let few = self.slice().iter().map(|(entry, weight)| (entry, *weight));
        few.chain(tree.into_iter().flatten().map(|(entry, weight)| (entry, *weight)))
    }

    /// The smallest entry.
    pub(crate) fn first(&self) -> Option<&Entry> {
        match self {
            Ordered::Many(entries) => entries.first_key_value().map(|(entry, _)| entry),
            few => few.slice().first().map(|(entry, _)| entry),
        }
    }

    /// The greatest entry.
    pub(crate) fn last(&self) -> Option<&Entry> {
        match self {
            Ordered::Many(entries) => entries.last_key_value().map(|(entry, _)| entry),
            few => few.slice().last().map(|(entry, _)| entry),
        }
    }

    /// Adds to the weight of a row, and what comes of it to `size`. A weight that would be negative is the inner error, and nothing
    /// changes.
    pub(crate) fn change(&mut self, bytes: &[u8], key_len: u32, weight: i64, size: &mut Size) -> Result<std::result::Result<(), i64>> {
        let place = self.find(bytes);
        let old = place.map_or(0, |(_, weight)| weight);
        let new = old.checked_add(weight).ok_or_else(|| DataflowError::internal("the multiplicity of a row exceeds 64 bits"))?;
        if new < 0 {
            return Ok(Err(new));
        }
        match place {
            Ok((place, _)) if new == 0 => {
                size.entries -= 1;
                size.bytes -= self.room() + ShortBytes::allocated(bytes.len());
                self.remove(place, bytes);
                size.bytes += self.room();
            }
            Ok((place, _)) => match self {
                Ordered::Empty => {}
                Ordered::One((_, weight)) => *weight = new,
                Ordered::Few(entries) => entries[place].1 = new,
                Ordered::Many(entries) => entries.get_mut(bytes).into_iter().for_each(|weight| *weight = new),
            },
            Err(_) if new == 0 => {}
            Err(place) => {
                size.entries += 1;
                size.bytes -= self.room();
                self.insert(place, (Entry { bytes: ShortBytes::from(bytes), key_len }, new));
                size.bytes += self.room() + ShortBytes::allocated(bytes.len());
            }
        }
        Ok(Ok(()))
    }

    /// Where an entry is, with its weight, or where it belongs. The place does not matter in a tree.
    fn find(&self, bytes: &[u8]) -> std::result::Result<(usize, i64), usize> {
        if let Ordered::Many(entries) = self {
            return entries.get(bytes).map(|weight| (0, *weight)).ok_or(0);
        }
        let entries = self.slice();
        entries.binary_search_by(|(entry, _)| (*entry.bytes).cmp(bytes)).map(|place| (place, entries[place].1))
    }

    fn insert(&mut self, place: usize, entry: Weighted) {
        match self {
            Ordered::Empty => *self = Ordered::One(entry),
            Ordered::One(_) => {
                let Ordered::One(one) = std::mem::take(self) else { return };
                let mut entries = Vec::with_capacity(2);
                entries.push(one);
                entries.insert(place, entry);
                *self = Ordered::Few(entries);
            }
            Ordered::Few(entries) => {
                if entries.len() < 4 {
                    entries.reserve_exact(1);
                }
                entries.insert(place, entry);
                if entries.len() > FEW_MAX {
                    *self = Ordered::Many(std::mem::take(entries).into_iter().collect());
                }
            }
            Ordered::Many(entries) => {
                entries.insert(entry.0, entry.1);
            }
        }
    }

    fn remove(&mut self, place: usize, bytes: &[u8]) {
        match self {
            Ordered::Empty | Ordered::One(_) => *self = Ordered::Empty,
            Ordered::Few(entries) => {
                entries.remove(place);
                if entries.len() == 1 {
                    *self = entries.pop().map_or(Ordered::Empty, Ordered::One);
                }
            }
            Ordered::Many(entries) => {
                entries.remove(bytes);
                if entries.is_empty() {
                    *self = Ordered::Empty;
                }
            }
        }
    }

    /// Takes all entries out, and away from `size`.
    pub(crate) fn clear(&mut self, size: &mut Size) {
        size.entries -= self.len();
        size.bytes -= self.room() + self.iter().map(|(entry, _)| ShortBytes::allocated(entry.bytes.len())).sum::<usize>();
        *self = Ordered::Empty;
    }

    /// Memory that entries lie in, beside this value itself and long bytes.
    fn room(&self) -> usize {
        size_of::<Weighted>()
            * match self {
                Ordered::Empty | Ordered::One(_) => 0,
                Ordered::Few(entries) => entries.capacity(),
                Ordered::Many(entries) => entries.len(),
            }
    }
}

/// Reads of each of these partitions what a change of it will read first. The accesses to memory overlap here; in the work on one
/// partition after the other each would be waited for.
pub(crate) fn read_ahead<'s>(partitions: &[Ordered], slots: impl Iterator<Item = &'s u32>) {
    let entries: Vec<&[Weighted]> = slots.filter_map(|slot| partitions.get(*slot as usize)).map(Ordered::slice).collect();
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
        let mut size = Size::default();
        let mut model: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
        for step in 0..4000 {
            // It grows into a tree, and empties now and then.
            let low = if step % 1000 < 700 { 1 } else { -9 };
            let len = if step % 3 == 0 { 40 } else { 2 };
            let (bytes, weight) = (vec![rng.random_range(0..120u8); len], rng.random_range(low..3));
            let left = model.get(&bytes).copied().unwrap_or(0) + weight;
            let found = ordered.change(&bytes, 1, weight, &mut size).unwrap();
            if left < 0 {
                assert_eq!(found, Err(left));
                continue;
            }
            assert_eq!(found, Ok(()));
            model.insert(bytes.clone(), left);
            model.retain(|_, weight| *weight > 0);
            assert_eq!((ordered.len(), size.entries), (model.len(), model.len()));
            let entries: Vec<(Vec<u8>, i64)> = ordered.iter().map(|(entry, weight)| (entry.bytes.to_vec(), weight)).collect();
            assert_eq!(entries, model.clone().into_iter().collect::<Vec<_>>());
            assert_eq!(ordered.first().map(|entry| entry.bytes.to_vec()), model.keys().next().cloned());
            assert_eq!(
                ordered.last().map(|entry| (entry.key().to_vec(), entry.row().to_vec())),
                model.keys().last().map(|b| (b[..1].to_vec(), b[1..].to_vec()))
            );
        }
        let mut rest = Size { entries: 1, bytes: 100 };
        rest.entries += size.entries;
        rest.bytes += size.bytes;
        ordered.clear(&mut rest);
        assert_eq!((ordered.len(), rest), (0, Size { entries: 1, bytes: 100 }));
    }

    #[test]
    fn a_single_entry_takes_no_more_room_than_itself() {
        assert_eq!(size_of::<Ordered>(), size_of::<Weighted>());
        let mut size = Size::default();
        let mut ordered = Ordered::default();
        for (byte, weight, bytes) in [(2, 1, 0), (1, 1, 2), (1, -1, 0), (2, 3, 0), (3, 1, 2), (4, 1, 3), (2, -4, 3), (3, -1, 0)] {
            ordered.change(&[byte], 1, weight, &mut size).unwrap().unwrap();
            assert_eq!(size.bytes, bytes * size_of::<Weighted>(), "{byte}");
        }
        assert_eq!(ordered.iter().map(|(entry, weight)| (entry.bytes.to_vec(), weight)).collect::<Vec<_>>(), [(vec![4], 1)]);
    }
}
