//! Fencing: writer numbers, given out put-if-absent. The highest one owns the state directory.

use crate::document;
use crate::durable_put::{Put, put_new};
use crate::error::{Result, StateError};
use crate::state_dir::InstanceInfo;
use std::path::Path;

/// Takes the next writer number; from then on every earlier writer is fenced.
pub(crate) fn take(directory: &Path, instance: &InstanceInfo) -> Result<u64> {
    let mut number = highest(directory)? + 1;
    let bytes = document::encode(instance)?;
    while put_new(&directory.join(number.to_string()), &bytes)? == Put::Exists {
        number += 1;
    }
    Ok(number)
}

/// The highest number given out, 0 if none was.
pub(crate) fn highest(directory: &Path) -> Result<u64> {
    let entries = std::fs::read_dir(directory).map_err(StateError::io("listing", directory))?;
    let mut highest = 0;
    for entry in entries {
        let entry = entry.map_err(StateError::io("listing", directory))?;
        if let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok()) {
            highest = highest.max(number);
        }
    }
    Ok(highest)
}

/// Who took the number after `number`, if somebody did. One system call when nobody did.
pub(crate) fn successor(directory: &Path, number: u64) -> Result<Option<Option<InstanceInfo>>> {
    let path = directory.join((number + 1).to_string());
    match path.symlink_metadata() {
        Ok(_) => Ok(Some(document::read(&path).ok())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StateError::Io { action: "reading", path, source: error }),
    }
}
