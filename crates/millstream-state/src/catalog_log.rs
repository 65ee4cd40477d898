//! The catalog: JSON documents in order, `catalog/<seq>` from 1, each created put-if-absent.

use crate::document;
use crate::durable_put::{Put, put_new};
use crate::error::{Result, StateError};
use crate::failpoint;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::PathBuf;

/// The entries of a catalog, append-only.
#[derive(Debug, Clone)]
pub struct CatalogLog {
    directory: PathBuf,
}

impl CatalogLog {
    pub(crate) fn new(directory: PathBuf) -> CatalogLog {
        CatalogLog { directory }
    }

    /// Durably adds entry `seq`, which must be the next one: the caller knows the sequence it has seen.
    ///
    /// # Errors
    /// [`StateError::Exists`] when another writer added that entry; I/O errors.
    pub fn append<T: Serialize>(&self, seq: u64, entry: &T) -> Result<()> {
        let path = self.directory.join(seq.to_string());
        let bytes = document::encode(entry)?;
        failpoint::hit("catalog.before_put")?;
        match put_new(&path, &bytes)? {
            Put::Created => Ok(()),
            Put::Exists => Err(StateError::Exists { path }),
        }
    }

    /// Numbers of all entries, ascending.
    ///
    /// # Errors
    /// [`StateError::Corrupt`] when one is missing in between; I/O errors.
    pub fn list(&self) -> Result<Vec<u64>> {
        let mut numbers: Vec<u64> = Vec::new();
        for entry in std::fs::read_dir(&self.directory).map_err(StateError::io("listing", &self.directory))? {
            let entry = entry.map_err(StateError::io("listing", &self.directory))?;
            numbers.extend(entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        for (index, number) in numbers.iter().enumerate() {
            let expected = index as u64 + 1;
            if *number != expected {
                return Err(StateError::corrupt(&self.directory, None, format!("catalog entry {expected} is missing")));
            }
        }
        Ok(numbers)
    }

    /// All entries with their numbers, in order.
    ///
    /// # Errors
    /// [`StateError::Corrupt`] when one is missing or damaged; I/O errors.
    pub fn read_all<T: DeserializeOwned>(&self) -> Result<Vec<(u64, T)>> {
        self.list()?.into_iter().map(|number| Ok((number, document::read(&self.directory.join(number.to_string()))?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_in_order_and_are_written_once() {
        let directory = tempfile::tempdir().unwrap();
        let catalog = CatalogLog::new(directory.path().to_path_buf());
        for seq in 1..=11 {
            catalog.append(seq, &format!("CREATE STREAM s{seq}")).unwrap();
        }
        assert!(matches!(catalog.append(4, &"other"), Err(StateError::Exists { .. })));
        let entries: Vec<(u64, String)> = catalog.read_all().unwrap();
        assert_eq!(entries.len(), 11);
        assert_eq!(entries[10], (11, "CREATE STREAM s11".to_string()));

        std::fs::remove_file(directory.path().join("3")).unwrap();
        let error = catalog.list().unwrap_err();
        assert!(error.to_string().ends_with("catalog entry 3 is missing"), "{error}");
    }

    #[test]
    fn a_damaged_entry_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let catalog = CatalogLog::new(directory.path().to_path_buf());
        catalog.append(1, &"CREATE STREAM s").unwrap();
        let path = directory.path().join("1");
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 4;
        bytes[last] ^= 0x20;
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(catalog.read_all::<String>(), Err(StateError::Corrupt { path: named, .. }) if named == path));
    }
}
