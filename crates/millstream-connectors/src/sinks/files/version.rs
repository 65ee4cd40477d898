//! Versions of a `complete` sink: `v-<epoch>/` directories and the symbolic link `current`, which is replaced by a rename.

use super::publish::remove_if_there;
use super::{hit, io_error, state_error};
use crate::error::{ConnectorError, Result};
use millstream_state::durable_put;
use millstream_types::Epoch;
use std::path::Path;

/// The link to the current version.
pub(crate) const POINTER: &str = "current";

/// The directory of a version.
pub(crate) fn directory(epoch: Epoch) -> String {
    format!("v-{epoch}")
}

/// The epoch of a version's directory name.
pub(crate) fn epoch_of(name: &str) -> Option<Epoch> {
    name.strip_prefix("v-")?.parse().ok().map(Epoch)
}

/// The version that readers see.
pub(crate) fn current(root: &Path) -> Result<Option<Epoch>> {
    let pointer = root.join(POINTER);
    match std::fs::read_link(&pointer) {
        Ok(target) => Ok(target.to_str().and_then(epoch_of)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => Err(ConnectorError::invalid(
            format!("\"{}\" is not a symbolic link, so that it cannot point to the current version", pointer.display()),
            "Choose another path for the sink, or remove it.",
        )),
        Err(error) => Err(io_error("reading", &pointer)(error)),
    }
}

/// Whether anything is in the directory of a version.
pub(crate) fn has_files(root: &Path, epoch: Epoch) -> bool {
    std::fs::read_dir(root.join(directory(epoch))).is_ok_and(|mut entries| entries.next().is_some())
}

/// Makes a version the current one, unless a later one is, and removes all but the newest `keep`.
pub(crate) fn turn_to(root: &Path, epoch: Epoch, writer: u64, keep: usize, durable: bool) -> Result<()> {
    if current(root)?.is_none_or(|current| current < epoch) {
        point_to(root, epoch, writer)?;
    }
    if durable {
        durable_put::sync_dir(root).map_err(state_error(root))?;
    }
    remove_old(root, keep)
}

/// Makes an earlier version the current one, or none where none is left.
pub(crate) fn turn_back(root: &Path, epoch: Option<Epoch>, writer: u64, durable: bool) -> Result<()> {
    match epoch {
        Some(epoch) => point_to(root, epoch, writer)?,
        None => remove_if_there(&root.join(POINTER))?,
    }
    if durable {
        durable_put::sync_dir(root).map_err(state_error(root))?;
    }
    Ok(())
}

fn point_to(root: &Path, epoch: Epoch, writer: u64) -> Result<()> {
    let pointer = root.join(POINTER);
    let temporary = root.join(format!(".{POINTER}.{writer}.tmp"));
    remove_if_there(&temporary)?;
    std::os::unix::fs::symlink(directory(epoch), &temporary).map_err(io_error("creating", &temporary))?;
    hit("sink.pointer.before_rename")?;
    std::fs::rename(&temporary, &pointer).map_err(io_error("creating", &pointer))
}

fn remove_old(root: &Path, keep: usize) -> Result<()> {
    let Some(current) = current(root)? else { return Ok(()) };
    let mut versions = Vec::new();
    for entry in std::fs::read_dir(root).map_err(io_error("listing", root))? {
        let entry = entry.map_err(io_error("listing", root))?;
        // A later one is being written.
        versions.extend(entry.file_name().to_str().and_then(epoch_of).filter(|epoch| *epoch <= current));
    }
    versions.sort_unstable();
    let old = versions.len().saturating_sub(keep);
    for epoch in &versions[..old] {
        let path = root.join(directory(*epoch));
        std::fs::remove_dir_all(&path).map_err(io_error("removing", &path))?;
    }
    Ok(())
}
