//! Inserts that must not be carried out twice: those of pipeline files, and those that came with a key.
//!
//! ```text
//!   insert ──► reserve ──► rows and note together ──► COMMIT, one record with both ──► carried out
//!                 └─ the same key again: waits for what becomes of the first
//! ```
//! A note travels with the rows it stands for: with a change of a table in its command, with rows of a memory stream in the detail of
//! their range. So the epoch that commits the rows commits the note, whoever else's rows it has. Of keys the newest [`KEYS_MAX`] are
//! remembered, in checkpoints as one segment.

use crate::error::{EngineError, Result};
use arrow::array::{AsArray, RecordBatch, UInt64Array};
use arrow::datatypes::UInt64Type;
use millstream_types::{Epoch, PartitionRange};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// Keys that are remembered.
pub const KEYS_MAX: usize = 100_000;

/// What a commit record says of an insert, so that it is not carried out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InsertNote {
    /// `INSERT INTO` of a pipeline file.
    FromFile {
        /// Position of the statement in the file.
        position: u64,
        /// Hash of its canonical text.
        hash: u64,
    },
    /// Rows that came with a key.
    Keyed {
        /// Hash of the relation and the key.
        hash: u64,
    },
}

impl InsertNote {
    /// The note of rows for a relation that came with a key.
    pub fn keyed(target: &str, key: &str) -> Self {
        Self::Keyed { hash: xxhash_rust::xxh3::xxh3_64(format!("{target}\0{key}").as_bytes()) }
    }

    /// The hash of the relation and the key, if it came with one.
    pub fn key(self) -> Option<u64> {
        match self {
            Self::FromFile { .. } => None,
            Self::Keyed { hash } => Some(hash),
        }
    }

    /// As the detail of the range that the rows are read by.
    pub fn detail(note: Option<Self>) -> serde_json::Value {
        note.and_then(|note| serde_json::to_value(note).ok()).unwrap_or_default()
    }

    /// What [`InsertNote::detail`] put there.
    pub fn of_range(range: &PartitionRange) -> Option<Self> {
        Self::deserialize(&range.detail).ok()
    }
}

/// All inserts that were carried out.
#[derive(Debug, Default)]
pub struct Inserts {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    from_files: BTreeSet<(u64, u64)>,
    keys: HashMap<u64, Epoch>,
    /// Hashes of the keys, oldest first.
    by_age: VecDeque<u64>,
    /// Keys of rows that are on their way into a stream.
    reserved: HashMap<u64, String>,
}

/// What [`Inserts::reserve`] found.
#[derive(Debug)]
pub enum Reserved {
    /// Nothing: the insert may go on.
    New(Reservation),
    /// Rows with this key are on their way.
    UnderWay,
    /// Rows with this key were committed by this epoch.
    CarriedOut(Epoch),
}

/// A key whose rows are about to be queued. Dropped before they are, it is free again.
#[derive(Debug)]
pub struct Reservation {
    inserts: Arc<Inserts>,
    hash: Option<u64>,
}

impl Reservation {
    /// The rows are queued: the key stays taken until they are committed.
    pub fn queued(mut self) {
        self.hash = None;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(hash) = self.hash {
            self.inserts.known.lock().reserved.remove(&hash);
        }
    }
}

impl Inserts {
    /// The epoch that carried an insert with a key out.
    pub fn epoch_of(&self, note: InsertNote) -> Option<Epoch> {
        self.known.lock().keys.get(&note.key()?).copied()
    }

    /// Whether an insert of a pipeline file was carried out.
    pub fn is_from_file(&self, position: u64, hash: u64) -> bool {
        self.known.lock().from_files.contains(&(position, hash))
    }

    /// Takes a key for rows of a stream, unless somebody else has.
    pub fn reserve(self: &Arc<Self>, hash: u64, stream: &str) -> Reserved {
        let mut known = self.known.lock();
        if let Some(epoch) = known.keys.get(&hash) {
            return Reserved::CarriedOut(*epoch);
        }
        if known.reserved.contains_key(&hash) {
            return Reserved::UnderWay;
        }
        known.reserved.insert(hash, stream.to_string());
        Reserved::New(Reservation { inserts: Arc::clone(self), hash: Some(hash) })
    }

    /// Rows of a stream that were not committed never will be.
    pub fn forget_stream(&self, stream: &str) {
        self.known.lock().reserved.retain(|_, other| other != stream);
    }

    /// An epoch with these notes is committed.
    pub fn carried_out(&self, epoch: Epoch, notes: &[InsertNote]) {
        if notes.is_empty() {
            return;
        }
        let mut known = self.known.lock();
        for note in notes {
            match *note {
                InsertNote::FromFile { position, hash } => {
                    known.from_files.insert((position, hash));
                }
                InsertNote::Keyed { hash } => known.remember(hash, epoch),
            }
        }
    }

    /// Inserts of pipeline files, for a checkpoint.
    pub fn from_files(&self) -> Vec<(u64, u64)> {
        self.known.lock().from_files.iter().copied().collect()
    }

    /// Keys with their epochs, oldest first, for a checkpoint; `None` if there are none.
    ///
    /// # Errors
    /// When the columns make no batch.
    pub fn keys(&self) -> Result<Option<RecordBatch>> {
        let known = self.known.lock();
        if known.by_age.is_empty() {
            return Ok(None);
        }
        let hashes = UInt64Array::from_iter_values(known.by_age.iter().copied());
        let epochs = UInt64Array::from_iter_values(known.by_age.iter().map(|hash| known.keys.get(hash).map_or(0, |epoch| epoch.0)));
        let columns: [(&str, arrow::array::ArrayRef); 2] = [("hash", Arc::new(hashes)), ("epoch", Arc::new(epochs))];
        Ok(Some(RecordBatch::try_from_iter(columns)?))
    }

    /// What a checkpoint has.
    ///
    /// # Errors
    /// [`EngineError::Corrupt`] when the columns are others.
    pub fn restore(&self, from_files: &[(u64, u64)], keys: &[RecordBatch]) -> Result<()> {
        let mut restored = Known { from_files: from_files.iter().copied().collect(), ..Known::default() };
        for batch in keys {
            let column = |name: &str| {
                let column = batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<UInt64Type>());
                column.ok_or_else(|| EngineError::Corrupt(format!("the keys of inserts have no column \"{name}\" of numbers")))
            };
            for (hash, epoch) in column("hash")?.values().iter().zip(column("epoch")?.values()) {
                restored.remember(*hash, Epoch(*epoch));
            }
        }
        *self.known.lock() = restored;
        Ok(())
    }
}

impl Known {
    fn remember(&mut self, hash: u64, epoch: Epoch) {
        self.reserved.remove(&hash);
        if self.keys.insert(hash, epoch).is_none() {
            self.by_age.push_back(hash);
        }
        if self.by_age.len() > KEYS_MAX {
            self.by_age.pop_front().map(|oldest| self.keys.remove(&oldest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_new(reserved: &Reserved) -> bool {
        matches!(reserved, Reserved::New(_))
    }

    #[test]
    fn a_key_is_taken_from_its_reservation_to_the_end() {
        let inserts = Arc::new(Inserts::default());
        let first = inserts.reserve(7, "s");
        assert!(is_new(&first));
        assert!(matches!(inserts.reserve(7, "s"), Reserved::UnderWay));
        drop(first);
        let Reserved::New(second) = inserts.reserve(7, "s") else { panic!("rows that were never queued hold nothing") };
        second.queued();
        assert!(matches!(inserts.reserve(7, "s"), Reserved::UnderWay), "queued rows may be committed at any time");
        inserts.carried_out(Epoch(3), &[InsertNote::Keyed { hash: 7 }]);
        assert!(matches!(inserts.reserve(7, "s"), Reserved::CarriedOut(Epoch(3))));
    }

    #[test]
    fn rows_of_a_dropped_stream_hold_no_key() {
        let inserts = Arc::new(Inserts::default());
        if let Reserved::New(reservation) = inserts.reserve(7, "s") {
            reservation.queued();
        }
        inserts.forget_stream("t");
        assert!(!is_new(&inserts.reserve(7, "s")));
        inserts.forget_stream("s");
        assert!(is_new(&inserts.reserve(7, "s")));
    }

    #[test]
    fn the_oldest_keys_are_forgotten_and_the_others_survive_a_checkpoint() {
        let inserts = Inserts::default();
        for hash in 0..=KEYS_MAX as u64 {
            inserts.carried_out(Epoch(hash + 1), &[InsertNote::Keyed { hash }]);
        }
        inserts.carried_out(Epoch(1), &[InsertNote::FromFile { position: 2, hash: 5 }]);
        let restored = Inserts::default();
        restored.restore(&inserts.from_files(), &[inserts.keys().unwrap().unwrap()]).unwrap();
        let epoch_of = |hash| restored.epoch_of(InsertNote::Keyed { hash });
        assert_eq!(epoch_of(0), None);
        assert_eq!(epoch_of(1), Some(Epoch(2)));
        assert_eq!(epoch_of(KEYS_MAX as u64), Some(Epoch(KEYS_MAX as u64 + 1)));
        assert!(restored.is_from_file(2, 5) && !restored.is_from_file(2, 6));
    }

    #[test]
    fn a_note_is_read_from_its_range_again() {
        let note = InsertNote::keyed("orders", "a");
        assert_ne!(note, InsertNote::keyed("orders", "b"));
        let range = |detail| PartitionRange { partition: String::new(), range: Default::default(), detail };
        assert_eq!(InsertNote::of_range(&range(InsertNote::detail(Some(note)))), Some(note));
        assert_eq!(InsertNote::of_range(&range(InsertNote::detail(None))), None);
        assert_eq!(InsertNote::of_range(&range(serde_json::json!({ "path": "a.csv" }))), None);
    }
}
