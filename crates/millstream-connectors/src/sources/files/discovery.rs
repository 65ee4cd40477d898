//! Lists the place and tells new, grown, touched and replaced files apart. Runs on a blocking thread.

use super::config::{FilesConfig, Location, OnChange};
use super::storage::{FoundFile, Storage, quoted};
use super::taken::{PathHash, TakenFile, TakenSet, etag_hash};
use crate::error::{ConnectorError, Result};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::io;
use std::path::Path;

/// How many files are looked up under one lock, so that a plan never waits for a whole listing.
const LOOKUP_CHUNK: usize = 1_024;

/// What a complete listing found.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Files that were never taken.
    pub new: Vec<FoundFile>,
    /// Taken files with bytes after those that were read.
    pub grown: Vec<(FoundFile, TakenFile)>,
    /// Taken files whose content is not what it was.
    pub replaced: Vec<FoundFile>,
    /// All files there are.
    pub count: usize,
}

/// Whether a name is left alone: hidden, or still being written.
fn is_skipped(name: &str) -> bool {
    name.starts_with(['.', '_']) || name.ends_with(".tmp") || name.ends_with(".inprogress")
}

/// Checks that the place exists.
pub(crate) fn check_exists(location: &Location, owner: &str) -> Result<()> {
    if !location.storage.is_local() || Path::new(&location.base).exists() {
        return Ok(());
    }
    let hint = match &location.pattern {
        Some(_) => format!("Create the directory \"{}\" or correct the option path.", location.base),
        None => "Create the directory or correct the option path; relative paths start at the working directory.".to_string(),
    };
    Err(ConnectorError::invalid(format!("path \"{}\" of {owner} does not exist", location.written), hint))
}

/// All files there are now, in no particular order.
pub(crate) fn list(location: &Location, recursive: bool) -> Result<Vec<FoundFile>> {
    let failed = |error: io::Error| ConnectorError::unavailable("listing", quoted(&location.written), error);
    match (&location.storage, &location.pattern) {
        (Storage::Local(_), None) => {
            let mut found = Vec::new();
            let metadata = std::fs::metadata(&location.base).map_err(failed)?;
            if metadata.is_file() {
                found.push(Storage::found_local(&location.base, &metadata).map_err(failed)?);
            } else {
                list_directory(location.base.trim_end_matches('/'), recursive, &mut found).map_err(failed)?;
            }
            Ok(found)
        }
        (Storage::Local(_), Some(pattern)) => list_glob(pattern, recursive),
        (storage @ Storage::Object { root, .. }, pattern) => {
            let deep = recursive || pattern.is_some();
            let mut found = storage.list_objects(&location.base, deep).map_err(failed)?;
            let compiled = pattern.as_deref().map(compile).transpose()?;
            found.retain(|file| {
                let relative = file.path[root.len()..].trim_start_matches('/');
                let below = relative.strip_prefix(&location.base).unwrap_or(relative);
                let matches = compiled.as_ref().is_none_or(|pattern| pattern.matches_with(relative, MATCH));
                matches && !below.split('/').any(is_skipped)
            });
            // A prefix may also be the name of a single object.
            if found.is_empty()
                && pattern.is_none()
                && !location.base.is_empty()
                && let Some(file) = storage.stat(&format!("{root}/{}", location.base))?
            {
                found.push(file);
            }
            Ok(found)
        }
    }
}

const MATCH: glob::MatchOptions =
    glob::MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

fn compile(pattern: &str) -> Result<glob::Pattern> {
    glob::Pattern::new(pattern).map_err(|error| ConnectorError::invalid(format!("path \"{pattern}\" is no glob: {}", error.msg), ""))
}

fn list_directory(directory: &str, recursive: bool, found: &mut Vec<FoundFile>) -> io::Result<()> {
    let prefix = if directory.is_empty() { "/" } else { directory };
    for entry in std::fs::read_dir(prefix)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("the file name {name:?} in \"{prefix}\" is not UTF-8")));
        };
        if is_skipped(name) {
            continue;
        }
        let path = format!("{directory}/{name}");
        push_path(&path, recursive, true, found)?;
    }
    Ok(())
}

/// Adds a file, or the files of a directory (only where `recursive`); whatever vanishes meanwhile is left out.
fn push_path(path: &str, recursive: bool, below: bool, found: &mut Vec<FoundFile>) -> io::Result<()> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => found.push(Storage::found_local(path, &metadata)?),
        Ok(metadata) if metadata.is_dir() && (recursive || !below) => match list_directory(path, recursive, found) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        },
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

fn list_glob(pattern: &str, recursive: bool) -> Result<Vec<FoundFile>> {
    compile(pattern)?;
    let failed = |error: io::Error| ConnectorError::unavailable("listing", quoted(pattern), error);
    let paths = glob::glob_with(pattern, MATCH)
        .map_err(|error| ConnectorError::invalid(format!("path \"{pattern}\" is no glob: {}", error.msg), ""))?;
    let mut found = Vec::new();
    for path in paths {
        let path = path.map_err(|error| failed(error.into()))?;
        let Some(text) = path.to_str() else {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidData, format!("the path {path:?} is not UTF-8"))));
        };
        if path.file_name().and_then(|name| name.to_str()).is_some_and(is_skipped) {
            continue;
        }
        push_path(text, recursive, false, &mut found).map_err(failed)?;
    }
    // A file may match itself and lie in a directory that matches.
    let mut seen = HashSet::with_capacity(found.len());
    found.retain(|file| seen.insert(PathHash::of(&file.path)));
    Ok(found)
}

/// Lists and compares with what was taken; forgets taken files that are gone.
pub(crate) fn scan(config: &FilesConfig, taken: &Mutex<TakenSet>, generation: u32) -> Result<Scan> {
    let found = list(&config.location, config.recursive)?;
    let mut scan = Scan { count: found.len(), ..Scan::default() };
    let mut differing = Vec::new();
    let mut rest = found.into_iter();
    loop {
        let chunk: Vec<_> = rest.by_ref().take(LOOKUP_CHUNK).map(|file| (PathHash::of(&file.path), file)).collect();
        if chunk.is_empty() {
            break;
        }
        let mut taken = taken.lock();
        for (hash, file) in chunk {
            match taken.see(hash, generation) {
                None => scan.new.push(file),
                // It is being read in parts; the next part looks at it itself.
                Some(known) if !known.complete => {}
                Some(known) if is_same(&known, &file) && known.offset >= known.size => {}
                Some(known) => differing.push((hash, file, known)),
            }
        }
    }
    taken.lock().forget_unseen(generation);
    for (hash, file, known) in differing {
        // Whether what was read is still what it was; a file that was passed over at the first start was never looked at.
        let verified = match (known.etag, known.check) {
            (1.., _) => known.etag == etag_hash(file.etag.as_deref()),
            (_, 0) => true,
            (_, check) => config.location.storage.checksum(&file.path, known.offset).is_ok_and(|now| now == check),
        };
        let unchanged = verified && file.size == known.size && known.offset >= known.size;
        let grown = config.on_change(&file.path) == OnChange::Append && config.can_grow(&file.path);
        if unchanged {
            // Only touched.
            let mut taken = taken.lock();
            taken.insert(hash, TakenFile { modified: file.modified, etag: etag_hash(file.etag.as_deref()), ..known });
            taken.see(hash, generation);
        } else if grown && verified && file.size > known.offset {
            scan.grown.push((file, known));
        } else if grown && verified && file.size == known.offset {
            let mut taken = taken.lock();
            taken.insert(hash, TakenFile { size: file.size, modified: file.modified, ..known });
        } else {
            scan.replaced.push(file);
        }
    }
    Ok(scan)
}

fn is_same(known: &TakenFile, file: &FoundFile) -> bool {
    known.size == file.size && known.modified == file.modified && known.etag == etag_hash(file.etag.as_deref())
}
