//! Files that appear whole or not at all, survive a power cut, and are never replaced.
//!
//! Write a temporary file, fsync it, give it its name without replacing (`RENAME_NOREPLACE`, else a hard link), fsync the
//! directory. After a failed fsync the temporary file is removed: the kernel may have dropped the dirty pages, a second fsync would
//! lie.

use crate::error::{Result, StateError};
use crate::failpoint;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What became of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The name is new and durable.
    Created,
    /// The name was taken; what it names was left alone.
    Exists,
}

/// Durably creates `path` with `bytes` unless it exists.
///
/// # Errors
/// When the file system refuses.
pub fn put_new(path: &Path, bytes: &[u8]) -> Result<Put> {
    if path.symlink_metadata().is_ok() {
        return Ok(Put::Exists);
    }
    let (temporary, mut file) = create_temporary(path)?;
    let written = file
        .write_all(bytes)
        .map_err(StateError::io("writing", &temporary))
        .and_then(|()| file.sync_all().map_err(StateError::io("syncing", &temporary)))
        .and_then(|()| failpoint::hit("durable_put.after_temp"))
        .and_then(|()| publish(&temporary, path));
    match written {
        Ok(Put::Created) => Ok(Put::Created),
        other => {
            let _ = std::fs::remove_file(&temporary);
            other
        }
    }
}

/// Gives the synced file or directory `from` the name `to` in the same file system, durably, without replacing anything.
/// When the name is taken, `from` stays.
///
/// # Errors
/// When the file system refuses.
pub fn publish(from: &Path, to: &Path) -> Result<Put> {
    match rename_noreplace(from, to) {
        Ok(()) => {
            failpoint::hit("durable_put.after_link")?;
            sync_parent(to)?;
            Ok(Put::Created)
        }
        Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty) => Ok(Put::Exists),
        Err(error) => Err(StateError::Io { action: "creating", path: to.to_path_buf(), source: error }),
    }
}

/// Renames without replacing. Not durable before the directory is synced.
///
/// # Errors
/// `AlreadyExists` when the name is taken; otherwise what the file system says.
pub fn rename_noreplace(from: &Path, to: &Path) -> std::io::Result<()> {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use nix::errno::Errno;
        use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
        match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
            Ok(()) => return Ok(()),
            // The file system does not know the flag.
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if from.is_dir() {
        if to.symlink_metadata().is_ok() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        // A directory that is not empty is never replaced by rename(2).
        return std::fs::rename(from, to);
    }
    std::fs::hard_link(from, to)?;
    std::fs::remove_file(from)
}

/// Makes the names in a directory durable.
///
/// # Errors
/// When the file system refuses.
pub fn sync_dir(path: &Path) -> Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let directory = File::open(path).map_err(StateError::io("opening", path))?;
    directory.sync_all().map_err(StateError::io("syncing", path))
}

/// Makes the name of `path` durable.
///
/// # Errors
/// When the file system refuses.
pub fn sync_parent(path: &Path) -> Result<()> {
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Creates a directory with its parents, durably.
///
/// # Errors
/// When the file system refuses.
pub fn create_dir(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let mut missing = vec![path];
    while let Some(parent) = missing.last().and_then(|path| path.parent()) {
        if parent.as_os_str().is_empty() || parent.is_dir() {
            break;
        }
        missing.push(parent);
    }
    std::fs::create_dir_all(path).map_err(StateError::io("creating", path))?;
    for created in missing.into_iter().rev() {
        sync_parent(created)?;
    }
    Ok(())
}

/// A new hidden file next to `path`.
pub(crate) fn create_temporary(path: &Path) -> Result<(PathBuf, File)> {
    // Distinct within the process; names left behind by another one are skipped.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_file_name(format!(".{name}.{}-{number}.tmp", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).open(&temporary) {
            Ok(file) => return Ok((temporary, file)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(StateError::Io { action: "creating", path: temporary, source: error }),
        }
    }
}

/// Whether a directory entry is one of our temporary names.
pub(crate) fn is_temporary(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(".tmp")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_replaces() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        assert_eq!(put_new(&path, b"one").unwrap(), Put::Created);
        assert_eq!(put_new(&path, b"two").unwrap(), Put::Exists);
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        let other = directory.path().join("b");
        std::fs::write(&other, b"three").unwrap();
        assert_eq!(publish(&other, &path).unwrap(), Put::Exists);
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2, "no temporary file is left");
    }

    #[test]
    fn one_of_many_wins() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let created: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|n| {
                    scope.spawn({
                        let path = &path;
                        move || put_new(path, &[n; 10]).unwrap()
                    })
                })
                .collect();
            threads.into_iter().filter_map(|thread| (thread.join().unwrap() == Put::Created).then_some(())).count()
        });
        assert_eq!(created, 1);
        assert_eq!(std::fs::read(&path).unwrap().len(), 10);
    }
}
