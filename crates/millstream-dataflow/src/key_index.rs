//! From keys to slots: the hash index of keyed state.
//!
//! A slot is a small number that stands for one key: dense, reused after removal. Keys are equal when their canonical row
//! encodings are; a single column of at most eight bytes per value is kept as `u64` bits instead, which makes it twice as fast.
//!
//! ```text
//!   keys (columns) ─encode─▶ EncodedKeys ─find─▶ slot     slots: 0 1 2 3 ..   free: [2]
//! ```

use crate::error::Result;
use crate::slot_table::{SlotTable, mix};
use arrow::array::{Array, ArrayData, ArrayRef, make_array};
use arrow::buffer::{Buffer, NullBuffer};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::row::Rows;
use millstream_types::row_key::{RowKeyEncoder, canonical_floats};
use xxhash_rust::xxh3::xxh3_64;

/// One of so many slots must go for a pass over the whole table to be worth it.
const SWEEP: usize = 8;
/// Keys whose entries are read ahead together: few enough to be in the cache still when they are looked at.
const AHEAD: usize = 1024;

/// Keys of a batch, ready to be looked up.
pub(crate) enum EncodedKeys {
    /// No columns: all rows have the one key.
    Unit,
    /// Bits of one narrow column; `None` is NULL.
    Fixed(Vec<Option<u64>>),
    /// Row encodings, and the hash of each.
    Rows(Rows, Vec<u64>),
}

impl EncodedKeys {
    /// The key group of row `row`. It follows from bits of the hash that tables do not look at, so keys of one group are spread in them.
    pub(crate) fn key_group(&self, row: usize) -> u8 {
        let hash = match self {
            EncodedKeys::Unit => 0,
            EncodedKeys::Fixed(values) => values[row].map_or(0, mix),
            EncodedKeys::Rows(_, hashes) => hashes[row],
        };
        (hash >> 40) as u8
    }
}

/// The index.
#[derive(Debug)]
pub(crate) struct KeyIndex {
    kind: Kind,
    free: Vec<u32>,
    /// Slots handed out so far, free ones included.
    slots: u32,
}

#[derive(Debug)]
enum Kind {
    Unit(Option<u32>),
    /// Tags of the table are the bits.
    Fixed {
        data_type: DataType,
        table: SlotTable,
        null: Option<u32>,
        bits: Vec<u64>,
    },
    /// Tags of the table are hashes.
    Rows {
        types: Vec<DataType>,
        encoder: RowKeyEncoder,
        table: SlotTable,
        keys: KeyBytes,
    },
}

/// The bytes of keys by slot in one arena.
#[derive(Debug, Default)]
struct KeyBytes {
    arena: Vec<u8>,
    spans: Vec<(usize, u32)>,
    dead: usize,
}

impl KeyIndex {
    /// An index of keys with these column types.
    pub(crate) fn new(types: &[DataType]) -> Result<Self> {
        let kind = match types {
            [] => Kind::Unit(None),
            [only] if matches!(only.primitive_width(), Some(1 | 2 | 4 | 8)) => {
                Kind::Fixed { data_type: only.clone(), table: SlotTable::default(), null: None, bits: Vec::new() }
            }
            _ => Kind::Rows {
                types: types.to_vec(),
                encoder: RowKeyEncoder::new(types.iter().cloned())?,
                table: SlotTable::default(),
                keys: KeyBytes::default(),
            },
        };
        Ok(Self { kind, free: Vec::new(), slots: 0 })
    }

    /// Number of keys.
    pub(crate) fn len(&self) -> usize {
        self.slots as usize - self.free.len()
    }

    /// The keys of each row of `columns`.
    pub(crate) fn encode(&self, columns: &[ArrayRef]) -> Result<EncodedKeys> {
        Ok(match &self.kind {
            Kind::Unit(_) => EncodedKeys::Unit,
            Kind::Fixed { .. } => EncodedKeys::Fixed(fixed_bits(&canonical_floats(&columns[0])?)),
            Kind::Rows { encoder, .. } => {
                let rows = encoder.encode(columns)?;
                let hashes = rows.iter().map(|row| xxh3_64(row.as_ref())).collect();
                EncodedKeys::Rows(rows, hashes)
            }
        })
    }

    /// The slot of row `row`, if its key is known.
    pub(crate) fn find(&self, keys: &EncodedKeys, row: usize) -> Option<u32> {
        match (&self.kind, keys) {
            (Kind::Unit(slot), _) => *slot,
            (Kind::Fixed { table, null, .. }, EncodedKeys::Fixed(values)) => match values[row] {
                Some(value) => table.find(value, |_| true),
                None => *null,
            },
            (Kind::Rows { table, keys: stored, .. }, EncodedKeys::Rows(rows, hashes)) => {
                table.find(hashes[row], |slot| stored.get(slot) == rows.row(row).as_ref())
            }
            _ => unreachable!("keys were encoded by this index"),
        }
    }

    /// The slot of the key of row `row`, a new one if it is not known yet, and whether it is new.
    pub(crate) fn find_or_insert(&mut self, keys: &EncodedKeys, row: usize) -> (u32, bool) {
        let next = self.next_slot();
        let found = match (&mut self.kind, keys) {
            (Kind::Unit(slot), _) => put(slot, next),
            (Kind::Fixed { table, null, bits, .. }, EncodedKeys::Fixed(values)) => match values[row] {
                Some(value) => {
                    let found = table.find_or_insert(value, |_| true, next);
                    if found.is_none() {
                        set(bits, next, value);
                    }
                    found
                }
                None => put(null, next),
            },
            (Kind::Rows { table, keys: stored, .. }, EncodedKeys::Rows(rows, hashes)) => {
                let key = rows.row(row);
                let found = table.find_or_insert(hashes[row], |slot| stored.get(slot) == key.as_ref(), next);
                if found.is_none() {
                    stored.set(next, key.as_ref());
                }
                found
            }
            _ => unreachable!("keys were encoded by this index"),
        };
        match found {
            Some(slot) => (slot, false),
            None => {
                self.hand_out(next);
                (next, true)
            }
        }
    }

    /// The slots of the first `count` rows, `None` where a key is not known.
    ///
    /// As [`find`](Self::find) row by row, but in steps of which each does one kind of memory access for all rows: the accesses of a
    /// step overlap, where those of a row would wait for each other. In an index of millions of keys that is most of the time.
    pub(crate) fn find_all(&self, keys: &EncodedKeys, count: usize) -> Vec<Option<u32>> {
        let mut found = Vec::with_capacity(count);
        for block in (0..count).step_by(AHEAD).map(|from| from..count.min(from + AHEAD)) {
            self.read_ahead(keys, block.start, count);
            let (Kind::Rows { table, keys: stored, .. }, EncodedKeys::Rows(rows, hashes)) = (&self.kind, keys) else {
                found.extend(block.map(|row| self.find(keys, row)));
                continue;
            };
            let likely: Vec<Option<u32>> = hashes[block.clone()].iter().map(|hash| table.find(*hash, |_| true)).collect();
            let spans: Vec<(usize, u32)> = likely.iter().map(|slot| slot.map_or((0, 0), |slot| stored.spans[slot as usize])).collect();
            found.extend(block.zip(likely.into_iter().zip(spans)).map(|(row, (slot, (start, len)))| {
                let slot = slot?;
                match &stored.arena[start..start + len as usize] == rows.row(row).as_ref() {
                    true => Some(slot),
                    // Two keys have the same hash.
                    false => self.find(keys, row),
                }
            }));
        }
        found
    }

    /// For whoever looks up one row of `count` after the other: now and then asks memory for what the next look-ups begin with, all at
    /// once.
    pub(crate) fn read_ahead(&self, keys: &EncodedKeys, row: usize, count: usize) {
        if !row.is_multiple_of(AHEAD) {
            return;
        }
        let rows = row..count.min(row + AHEAD);
        match (&self.kind, keys) {
            (Kind::Fixed { table, .. }, EncodedKeys::Fixed(values)) => table.fetch(values[rows].iter().copied().flatten()),
            (Kind::Rows { table, .. }, EncodedKeys::Rows(_, hashes)) => table.fetch(hashes[rows].iter().copied()),
            _ => {}
        }
    }

    /// A slot for the key of row `row`, which is not known yet.
    pub(crate) fn insert(&mut self, keys: &EncodedKeys, row: usize) -> u32 {
        self.find_or_insert(keys, row).0
    }

    /// The slot of the next new key.
    fn next_slot(&self) -> u32 {
        self.free.last().copied().unwrap_or(self.slots)
    }

    /// The [next](Self::next_slot) slot is in use now.
    fn hand_out(&mut self, slot: u32) {
        if self.free.pop().is_none() {
            self.slots = slot + 1;
        }
    }

    /// All slots that are in use, in their order.
    pub(crate) fn slots(&self) -> Vec<u32> {
        let mut used = vec![true; self.slots as usize];
        self.free.iter().for_each(|slot| used[*slot as usize] = false);
        (0..self.slots).filter(|slot| used[*slot as usize]).collect()
    }

    /// The key columns of slots that are in use.
    pub(crate) fn decode(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        match &self.kind {
            Kind::Unit(_) => Ok(vec![]),
            Kind::Fixed { data_type, null, bits, .. } => {
                let known = |slot: &u32| (Some(*slot) != *null).then(|| bits[*slot as usize]);
                Ok(vec![from_bits(data_type, slots.iter().map(known))?])
            }
            Kind::Rows { types, encoder, keys, .. } => {
                let columns = encoder.decode_bytes(slots.iter().map(|slot| keys.get(*slot)))?;
                // Values of dictionaries come back without them.
                let typed = |(column, data_type): (ArrayRef, &DataType)| match column.data_type() == data_type {
                    true => Ok(column),
                    false => Ok(cast(&column, data_type)?),
                };
                columns.into_iter().zip(types).map(typed).collect()
            }
        }
    }

    /// The places of slots that are in use, in the order of their keys.
    pub(crate) fn in_order(&self, slots: &[u32]) -> Result<Vec<usize>> {
        let mut order: Vec<usize> = (0..slots.len()).collect();
        match &self.kind {
            Kind::Unit(_) => {}
            Kind::Fixed { data_type, .. } => {
                let keys = RowKeyEncoder::new([data_type.clone()])?.encode(&self.decode(slots)?)?;
                order.sort_unstable_by(|a, b| keys.row(*a).cmp(&keys.row(*b)));
            }
            Kind::Rows { keys, .. } => order.sort_unstable_by_key(|place| keys.get(slots[*place])),
        }
        Ok(order)
    }

    /// Forgets the key of a slot, which may then be used for another one.
    pub(crate) fn remove(&mut self, slot: u32) {
        match &mut self.kind {
            Kind::Unit(only) => *only = None,
            Kind::Fixed { null, .. } if *null == Some(slot) => *null = None,
            Kind::Fixed { table, bits, .. } => table.remove(bits[slot as usize], slot),
            Kind::Rows { table, keys, .. } => {
                table.remove(xxh3_64(keys.get(slot)), slot);
                keys.remove(slot);
            }
        }
        self.free.push(slot);
    }

    /// Forgets the keys of many slots, and gives memory back.
    pub(crate) fn remove_all(&mut self, gone: &[u32]) {
        if gone.len() < self.slots as usize / SWEEP {
            gone.iter().for_each(|slot| self.remove(*slot));
            return self.shrink();
        }
        // A pass over the table, in the order in which it lies in memory, instead of a search for each.
        let mut stays = vec![true; self.slots as usize];
        gone.iter().for_each(|slot| stays[*slot as usize] = false);
        match &mut self.kind {
            Kind::Unit(only) => *only = only.filter(|slot| stays[*slot as usize]),
            Kind::Fixed { table, null, .. } => {
                *null = null.filter(|slot| stays[*slot as usize]);
                table.retain(&stays);
            }
            Kind::Rows { table, keys, .. } => {
                table.retain(&stays);
                gone.iter().for_each(|slot| keys.remove(*slot));
            }
        }
        self.free.extend_from_slice(gone);
        self.shrink();
    }

    /// Gives memory back after most keys have gone.
    pub(crate) fn shrink(&mut self) {
        match &mut self.kind {
            Kind::Unit(_) => {}
            Kind::Fixed { table, .. } => table.shrink(),
            Kind::Rows { table, keys, .. } => {
                table.shrink();
                keys.compact();
            }
        }
    }

    /// Memory in bytes.
    pub(crate) fn bytes(&self) -> usize {
        4 * self.free.capacity()
            + match &self.kind {
                Kind::Unit(_) => 0,
                Kind::Fixed { table: index, bits, .. } => index.bytes() + 8 * bits.capacity(),
                Kind::Rows { table: index, keys, .. } => {
                    index.bytes() + keys.arena.capacity() + size_of::<(usize, u32)>() * keys.spans.capacity()
                }
            }
    }
}

impl KeyBytes {
    fn get(&self, slot: u32) -> &[u8] {
        let (start, len) = self.spans[slot as usize];
        &self.arena[start..start + len as usize]
    }

    fn set(&mut self, slot: u32, bytes: &[u8]) {
        if self.spans.len() <= slot as usize {
            self.spans.resize(slot as usize + 1, (0, 0));
        }
        self.spans[slot as usize] = (self.arena.len(), bytes.len() as u32);
        self.arena.extend_from_slice(bytes);
    }

    fn remove(&mut self, slot: u32) {
        let span = &mut self.spans[slot as usize];
        self.dead += span.1 as usize;
        *span = (0, 0);
    }

    /// Rewrites the arena once more than half of it is dead.
    fn compact(&mut self) {
        if self.dead < 4096 || self.dead * 2 < self.arena.len() {
            return;
        }
        let mut live = Vec::with_capacity(self.arena.len() - self.dead);
        for (start, len) in self.spans.iter_mut().filter(|(_, len)| *len > 0) {
            let moved = live.len();
            live.extend_from_slice(&self.arena[*start..*start + *len as usize]);
            *start = moved;
        }
        // What has been once may well be again: windows that close make room for others of their size.
        let room = (live.len() * 3 / 2).max(self.arena.len() / 2);
        self.arena.clear();
        self.arena.extend_from_slice(&live);
        if self.arena.capacity() > 2 * room {
            self.arena.shrink_to(room);
        }
        self.dead = 0;
    }
}

/// The slot that is there; puts `next` there if there is none.
fn put(slot: &mut Option<u32>, next: u32) -> Option<u32> {
    let found = *slot;
    slot.get_or_insert(next);
    found
}

fn set(bits: &mut Vec<u64>, slot: u32, value: u64) {
    if bits.len() <= slot as usize {
        bits.resize(slot as usize + 1, 0);
    }
    bits[slot as usize] = value;
}

fn fixed_bits(column: &ArrayRef) -> Vec<Option<u64>> {
    let data = column.to_data();
    macro_rules! bits {
        ($t:ty) => {{
            let values = &data.buffer::<$t>(0)[..column.len()];
            match column.nulls() {
                None => values.iter().map(|value| Some(u64::from(*value))).collect(),
                Some(nulls) => values.iter().zip(nulls).map(|(value, valid)| valid.then_some(u64::from(*value))).collect(),
            }
        }};
    }
    match column.data_type().primitive_width() {
        Some(1) => bits!(u8),
        Some(2) => bits!(u16),
        Some(4) => bits!(u32),
        _ => bits!(u64),
    }
}

/// The reverse of [`fixed_bits`].
fn from_bits(data_type: &DataType, bits: impl Iterator<Item = Option<u64>>) -> Result<ArrayRef> {
    let bits: Vec<Option<u64>> = bits.collect();
    macro_rules! column {
        ($t:ty) => {
            Buffer::from_vec(bits.iter().map(|bits| bits.unwrap_or_default() as $t).collect::<Vec<$t>>())
        };
    }
    let values = match data_type.primitive_width() {
        Some(1) => column!(u8),
        Some(2) => column!(u16),
        Some(4) => column!(u32),
        _ => column!(u64),
    };
    let nulls = NullBuffer::from_iter(bits.iter().map(Option::is_some));
    let data = ArrayData::builder(data_type.clone()).len(bits.len()).add_buffer(values).nulls(Some(nulls)).build()?;
    Ok(make_array(data))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{DictionaryArray, Float64Array, Int32Array, StringViewArray};
    use arrow::datatypes::Int32Type;
    use std::sync::Arc;

    fn slots(index: &mut KeyIndex, columns: &[ArrayRef]) -> Vec<u32> {
        let keys = index.encode(columns).unwrap();
        (0..columns[0].len()).map(|row| index.find_or_insert(&keys, row).0).collect()
    }

    #[test]
    fn fixed_keys_keep_null_and_fold_zero() {
        let mut index = KeyIndex::new(&[DataType::Float64]).unwrap();
        let column: ArrayRef = Arc::new(Float64Array::from(vec![Some(0.0), Some(-0.0), None, Some(f64::NAN), Some(-f64::NAN), None]));
        assert_eq!(slots(&mut index, &[column]), [0, 0, 1, 2, 2, 1]);
        let decoded = index.decode(&[2, 1, 0]).unwrap().remove(0);
        let expected: ArrayRef = Arc::new(Float64Array::from(vec![Some(f64::NAN), None, Some(0.0)]));
        assert_eq!(format!("{decoded:?}"), format!("{expected:?}"));
        index.remove(1);
        let column: ArrayRef = Arc::new(Float64Array::from(vec![Some(7.0), None]));
        assert_eq!(slots(&mut index, &[column]), [1, 3]);
        assert_eq!(index.len(), 4);
    }

    #[test]
    fn keys_of_dictionaries_have_their_type_again() {
        let words: DictionaryArray<Int32Type> = vec![Some("a"), None, Some("b"), Some("a")].into_iter().collect();
        let columns: Vec<ArrayRef> = vec![Arc::new(words)];
        let mut index = KeyIndex::new(&[columns[0].data_type().clone()]).unwrap();
        assert_eq!(slots(&mut index, &columns), [0, 1, 2, 0]);
        let decoded = index.decode(&[2, 1, 0]).unwrap();
        assert_eq!(decoded[0].data_type(), columns[0].data_type());
        assert_eq!(slots(&mut index, &decoded), [2, 1, 0]);
    }

    #[test]
    fn many_keys_leave_as_one_by_one() {
        let fixed: Vec<ArrayRef> = vec![Arc::new((0..1000).map(|n| (n != 500).then_some(n)).collect::<Int32Array>())];
        let rows: Vec<ArrayRef> = vec![Arc::clone(&fixed[0]), Arc::new(Int32Array::from_iter_values(0..1000))];
        for columns in [fixed, rows] {
            for step in [3, 100] {
                let types: Vec<DataType> = columns.iter().map(|column| column.data_type().clone()).collect();
                let (mut one_by_one, mut together) = (KeyIndex::new(&types).unwrap(), KeyIndex::new(&types).unwrap());
                let known = slots(&mut one_by_one, &columns);
                assert_eq!(slots(&mut together, &columns), known);
                let gone: Vec<u32> = (0..1000).step_by(step).rev().collect();
                gone.iter().for_each(|slot| one_by_one.remove(*slot));
                together.remove_all(&gone);
                let keys = together.encode(&columns).unwrap();
                assert_eq!((together.len(), together.find_all(&keys, 1000)), (one_by_one.len(), one_by_one.find_all(&keys, 1000)));
                // The slots are used again in the same order.
                assert_eq!(slots(&mut together, &columns), slots(&mut one_by_one, &columns));
            }
        }
    }

    #[test]
    fn row_keys_survive_compaction() {
        let mut index = KeyIndex::new(&[DataType::Int32, DataType::Utf8View]).unwrap();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from_iter_values(0..1000)),
            Arc::new(StringViewArray::from_iter_values((0..1000).map(|n| format!("a rather long key {n}")))),
        ];
        let before = slots(&mut index, &columns);
        for slot in (0..1000).filter(|slot| slot % 4 != 0) {
            index.remove(slot);
        }
        index.shrink();
        let keys = index.encode(&columns).unwrap();
        let all = index.find_all(&keys, before.len());
        for (row, slot) in before.into_iter().enumerate() {
            assert_eq!(index.find(&keys, row), (row % 4 == 0).then_some(slot));
            assert_eq!(all[row], (row % 4 == 0).then_some(slot));
        }
    }
}
