//! `after_read`: what becomes of a file whose rows are safe.

use super::super::config::{AfterRead, FilesConfig};
use super::super::slice::FileSlice;
use super::super::storage::{Storage, quoted};
use crate::error::{ConnectorError, Result};

/// Deletes or archives a file that is read to its end; one that changed since is left, since something in it may be unread.
pub(super) fn put_away(config: &FilesConfig, slice: &FileSlice) -> Result<()> {
    let storage = &config.location.storage;
    let Some(now) = storage.stat(&slice.path)? else { return Ok(()) };
    let read_whole = !config.can_grow(&slice.path) || slice.byte_end.is_none_or(|end| end >= now.size);
    if !slice.same_version(&now) || !read_whole {
        return Ok(());
    }
    match &config.after_read {
        AfterRead::Keep => Ok(()),
        AfterRead::Delete => {
            storage.remove(&slice.path).map_err(|error| ConnectorError::unavailable("deleting file", quoted(&slice.path), error))
        }
        AfterRead::Archive(target) => {
            let root = match storage {
                Storage::Local(_) => config.location.base.clone(),
                Storage::Object { root, .. } => format!("{root}/{}", config.location.base),
            };
            let relative = slice.path.strip_prefix(root.trim_end_matches('/')).unwrap_or(&slice.path).trim_start_matches('/');
            let relative = if relative.is_empty() { slice.path.rsplit('/').next().unwrap_or(&slice.path) } else { relative };
            let target = format!("{target}/{relative}");
            storage.archive(&slice.path, &target).map_err(|error| ConnectorError::unavailable("archiving file", quoted(&slice.path), error))
        }
    }
}
