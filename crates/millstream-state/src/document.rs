//! Small JSON documents with a checksum: `{"crc32":"89abcdef","body":{...}}`, readable with any editor.

use crate::error::{Result, StateError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::path::Path;

#[derive(Serialize)]
struct Outgoing<'a> {
    crc32: String,
    body: &'a RawValue,
}

#[derive(Deserialize)]
struct Incoming {
    crc32: String,
    body: Box<RawValue>,
}

/// The bytes of a document.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    let json = |source| StateError::Json { context: "writing a document failed".into(), source };
    let body = serde_json::value::to_raw_value(value).map_err(json)?;
    let document = Outgoing { crc32: checksum(body.get()), body: &body };
    let mut bytes = serde_json::to_vec(&document).map_err(json)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The value in the bytes of the document at `path`.
pub(crate) fn decode<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T> {
    let incoming: Incoming =
        serde_json::from_slice(bytes).map_err(|error| StateError::corrupt(path, None, format!("not a document ({error})")))?;
    let found = checksum(incoming.body.get());
    if found != incoming.crc32 {
        return Err(StateError::corrupt(path, None, format!("checksum {found}, expected {}", incoming.crc32)));
    }
    serde_json::from_str(incoming.body.get()).map_err(|error| StateError::corrupt(path, None, format!("unexpected content ({error})")))
}

/// The value of the document at `path`.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    decode(path, &std::fs::read(path).map_err(StateError::io("reading", path))?)
}

fn checksum(body: &str) -> String {
    format!("{:08x}", crc32fast::hash(body.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_byte_is_noticed() {
        let bytes = encode(&vec![1, 2, 3]).unwrap();
        let path = Path::new("document");
        assert_eq!(decode::<Vec<i32>>(path, &bytes).unwrap(), [1, 2, 3]);
        // The last byte is the newline, which carries nothing.
        for index in 0..bytes.len() - 1 {
            let mut damaged = bytes.clone();
            damaged[index] ^= 1;
            assert!(decode::<Vec<i32>>(path, &damaged).is_err(), "byte {index}");
        }
    }
}
