//! The exact set of files that were taken, and how far each was read.
//!
//! A path is known by the first 16 bytes of its XXH3 hash; a million files take some 100 MB of memory and 60 MB of
//! checkpoint. Changes are appended to a log that is sealed in segments, so that a checkpoint encodes what is new only; later
//! entries overrule earlier ones, and the log is rewritten when it holds mostly overruled ones.

use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// Entries of a segment.
const SEGMENT_ENTRIES: usize = 4_096;

/// A path, as it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PathHash(pub u128);

impl PathHash {
    pub(crate) fn of(path: &str) -> Self {
        Self(xxh3_128(path.as_bytes()))
    }
}

/// What is known about a taken file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TakenFile {
    /// Size when it was looked at last.
    pub size: u64,
    /// Modification time then, microseconds since 1970.
    pub modified: i64,
    /// Hash of its etag, 0 without one.
    pub etag: u64,
    /// Bytes read of it; equal to `size` unless it grows or is being read in parts.
    pub offset: u64,
    /// Rows read of it.
    pub rows: u64,
    /// Line number after them; 0 when it was never counted.
    pub line: u64,
    /// Checksum of what was read, see [`super::storage::Storage::checksum`]; 0 when it was never taken.
    pub check: u32,
    /// No further part is planned.
    pub complete: bool,
}

/// The hash of an etag as [`TakenFile`] keeps it.
pub(crate) fn etag_hash(etag: Option<&str>) -> u64 {
    etag.map_or(0, |etag| xxh3_64(etag.as_bytes()).max(1))
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(crate) struct TakenSet {
    files: HashMap<PathHash, (TakenFile, u32)>,
    sealed: Vec<String>,
    sealed_entries: usize,
    open: Vec<PathHash>,
}

/// The durable form: segments of hex text.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct TakenSegments(Vec<String>);

impl TakenSet {
    pub(crate) fn get(&self, path: PathHash) -> Option<&TakenFile> {
        self.files.get(&path).map(|(file, _)| file)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    /// As [`get`](Self::get), and notes that listing `generation` has seen the file.
    pub(crate) fn see(&mut self, path: PathHash, generation: u32) -> Option<TakenFile> {
        let (file, seen) = self.files.get_mut(&path)?;
        *seen = generation;
        Some(*file)
    }

    pub(crate) fn insert(&mut self, path: PathHash, file: TakenFile) {
        match self.files.entry(path) {
            Entry::Occupied(mut entry) => entry.get_mut().0 = file,
            Entry::Vacant(entry) => {
                entry.insert((file, 0));
            }
        }
        self.note(path);
    }

    /// Forgets the files that the complete listing `generation` has not seen: should they come back, they are new.
    pub(crate) fn forget_unseen(&mut self, generation: u32) -> Vec<PathHash> {
        let gone: Vec<_> =
            self.files.iter().filter(|(_, (file, seen))| *seen != generation && file.complete).map(|(path, _)| *path).collect();
        for path in &gone {
            self.files.remove(path);
            self.note(*path);
        }
        gone
    }

    fn note(&mut self, path: PathHash) {
        self.open.push(path);
        if self.open.len() >= SEGMENT_ENTRIES {
            self.sealed.push(self.encode(&self.open));
            self.sealed_entries += self.open.len();
            self.open.clear();
        }
        if self.sealed_entries > 2 * self.files.len() + 4 * SEGMENT_ENTRIES {
            let mut all: Vec<_> = self.files.keys().copied().collect();
            all.sort_unstable();
            self.sealed = all.chunks(SEGMENT_ENTRIES).map(|chunk| self.encode(chunk)).collect();
            self.sealed_entries = all.len();
            self.open.clear();
        }
    }

    pub(crate) fn segments(&self) -> TakenSegments {
        let mut segments = self.sealed.clone();
        if !self.open.is_empty() {
            segments.push(self.encode(&self.open));
        }
        TakenSegments(segments)
    }

    /// Restores a set; `None` when a segment is damaged.
    pub(crate) fn restore(segments: TakenSegments) -> Option<Self> {
        let mut set = Self::default();
        let mut last = Vec::new();
        for segment in &segments.0 {
            last = set.decode(segment)?;
            set.sealed_entries += last.len();
        }
        set.sealed = segments.0;
        // The last segment goes on growing, so that a set is written the same whether or not it was restored in between.
        if last.len() < SEGMENT_ENTRIES {
            set.sealed.pop();
            set.sealed_entries -= last.len();
            set.open = last;
        }
        Some(set)
    }

    /// `hash` or `hash size modified etag offset rows line check complete`, all in hex, entries separated by `;`.
    fn encode(&self, paths: &[PathHash]) -> String {
        use std::fmt::Write;
        let mut text = String::with_capacity(paths.len() * 64);
        for path in paths {
            let written = match self.get(*path) {
                Some(file) if file.offset == file.size && file.complete => write!(
                    text,
                    "{:x} {:x} {:x} {:x} {:x} {:x} {:x};",
                    path.0, file.size, file.modified as u64, file.etag, file.rows, file.line, file.check
                ),
                Some(file) => write!(
                    text,
                    "{:x} {:x} {:x} {:x} {:x} {:x} {:x} {:x} {:x};",
                    path.0,
                    file.size,
                    file.modified as u64,
                    file.etag,
                    file.rows,
                    file.line,
                    file.check,
                    file.offset,
                    u8::from(file.complete)
                ),
                None => write!(text, "{:x};", path.0),
            };
            debug_assert!(written.is_ok(), "writing to a string does not fail");
        }
        text
    }

    /// Takes the entries of a segment over; their paths, in order.
    fn decode(&mut self, segment: &str) -> Option<Vec<PathHash>> {
        let mut paths = Vec::new();
        for entry in segment.split_terminator(';') {
            let mut parts = entry.split(' ');
            let path = PathHash(u128::from_str_radix(parts.next()?, 16).ok()?);
            let numbers = parts.map(|part| u64::from_str_radix(part, 16).ok()).collect::<Option<Vec<_>>>()?;
            match numbers[..] {
                [] => {
                    self.files.remove(&path);
                }
                [size, modified, etag, rows, line, check, ref rest @ ..] => {
                    let (offset, complete) = match rest {
                        [] => (size, true),
                        [offset, complete] => (*offset, *complete == 1),
                        _ => return None,
                    };
                    let check = u32::try_from(check).ok()?;
                    let file = TakenFile { size, modified: modified as i64, etag, offset, rows, line, check, complete };
                    self.files.insert(path, (file, 0));
                }
                _ => return None,
            }
            paths.push(path);
        }
        Some(paths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_sealing_changing_and_forgetting() {
        let mut set = TakenSet::default();
        let file = |n: u64| TakenFile {
            size: n,
            modified: -(n as i64),
            etag: n,
            offset: n / 2,
            rows: 3,
            line: 4,
            check: 5,
            complete: !n.is_multiple_of(3),
        };
        for n in 0..20_000 {
            set.insert(PathHash::of(&format!("f{}", n % 9_000)), file(n));
        }
        for n in 0..9_000 {
            if n % 2 == 0 {
                set.see(PathHash::of(&format!("f{n}")), 1);
            }
        }
        let gone = set.forget_unseen(1).len();
        assert!(gone > 0);
        let restored = TakenSet::restore(serde_json::from_str(&serde_json::to_string(&set.segments()).unwrap()).unwrap()).unwrap();
        assert_eq!(restored.len(), set.len());
        assert!(set.files.iter().all(|(path, (file, _))| restored.get(*path) == Some(file)));
        assert!(TakenSet::restore(TakenSegments(vec!["xyz;".into()])).is_none());
    }
}
