//! The history file, which never takes statements that may hold a secret.

use reedline::{FileBackedHistory, History, HistoryItem, HistoryItemId, HistorySessionId, Result, SearchQuery};
use std::path::Path;

/// Statements that are remembered unless the configuration says otherwise.
pub(crate) const SIZE: usize = 10_000;

/// Words that mark a statement as holding a secret.
const SECRET_WORDS: [&str; 7] = ["secret", "password", "passwd", "token", "credential", "access_key", "api_key"];

/// Whether a statement may hold a secret, or is not meant to be remembered (it starts with a blank).
pub(crate) fn is_private(statement: &str) -> bool {
    let lower = statement.to_lowercase();
    statement.starts_with(' ') || SECRET_WORDS.iter().any(|word| lower.contains(word))
}

/// A history that forgets private statements at once.
pub(crate) struct CarefulHistory(FileBackedHistory);

impl CarefulHistory {
    /// A history in `file`, or in memory only.
    ///
    /// # Errors
    /// When the file cannot be made or read.
    pub(crate) fn open(size: usize, file: Option<&Path>) -> Result<Self> {
        let Some(file) = file else { return FileBackedHistory::new(size).map(Self) };
        if let Some(directory) = file.parent() {
            std::fs::create_dir_all(directory)?;
        }
        FileBackedHistory::with_file(size, file.to_path_buf()).map(Self)
    }
}

impl History for CarefulHistory {
    fn save(&mut self, item: HistoryItem) -> Result<HistoryItem> {
        if is_private(&item.command_line) { Ok(item) } else { self.0.save(item) }
    }

    fn load(&self, id: HistoryItemId) -> Result<HistoryItem> {
        self.0.load(id)
    }

    fn count(&self, query: SearchQuery) -> Result<i64> {
        self.0.count(query)
    }

    fn search(&self, query: SearchQuery) -> Result<Vec<HistoryItem>> {
        self.0.search(query)
    }

    fn update(&mut self, id: HistoryItemId, updater: &dyn Fn(HistoryItem) -> HistoryItem) -> Result<()> {
        self.0.update(id, updater)
    }

    fn clear(&mut self) -> Result<()> {
        self.0.clear()
    }

    fn delete(&mut self, id: HistoryItemId) -> Result<()> {
        self.0.delete(id)
    }

    fn sync(&mut self) -> std::io::Result<()> {
        self.0.sync()
    }

    fn session(&self) -> Option<HistorySessionId> {
        self.0.session()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_remembered() {
        assert!(is_private("CREATE SECRET s (key 'x')"));
        assert!(is_private("CREATE STREAM s WITH (aws_access_key_id = 'x')"));
        assert!(is_private(" SELECT 1;"));
        assert!(!is_private("SELECT * FROM bids;"));
    }
}
