//! The payload of a frame: a JSON header and named groups of batches.
//!
//! ```text
//!   "MSP1" | header length u32 | header (JSON) | groups u32 | per group: name length u32 | name | stream length u64 | Arrow IPC stream
//! ```
//!
//! What the header says is the caller's: the commit record belongs to the engine.

use super::frame::{u32_at, u64_at};
use crate::error::{Result, StateError};
use crate::ipc::{self, Compression};
use arrow::array::RecordBatch;
use std::path::Path;

const MAGIC: [u8; 4] = *b"MSP1";

/// A JSON header and named groups of batches.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FramePayload {
    /// JSON text.
    pub header: Vec<u8>,
    /// Groups; the batches of one share a schema. A group without batches keeps its name only.
    pub attachments: Vec<(String, Vec<RecordBatch>)>,
}

impl FramePayload {
    /// A payload without rows.
    pub fn new(header: Vec<u8>) -> Self {
        FramePayload { header, attachments: Vec::new() }
    }

    /// The bytes of the payload.
    ///
    /// # Errors
    /// When the batches of a group differ in schema.
    pub fn encode(&self, compression: Compression) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.header.len() + 64);
        bytes.extend_from_slice(&MAGIC);
        put_u32(&mut bytes, self.header.len(), "a record's header")?;
        bytes.extend_from_slice(&self.header);
        put_u32(&mut bytes, self.attachments.len(), "a record's list of groups")?;
        for (name, batches) in &self.attachments {
            put_u32(&mut bytes, name.len(), "a group's name")?;
            bytes.extend_from_slice(name.as_bytes());
            let at = bytes.len();
            bytes.extend_from_slice(&[0; 8]);
            if let Some(first) = batches.first() {
                ipc::write_stream(&mut bytes, &first.schema(), batches, compression)?;
            }
            let length = (bytes.len() - at - 8) as u64;
            bytes[at..at + 8].copy_from_slice(&length.to_le_bytes());
        }
        Ok(bytes)
    }

    /// The payload in `bytes`.
    ///
    /// # Errors
    /// [`StateError::Corrupt`] when they are not one; cannot happen to frames that passed their checksum.
    pub fn decode(bytes: &[u8]) -> Result<FramePayload> {
        let mut rest = Rest { bytes, at: 0 };
        if rest.take(4)? != MAGIC {
            return Err(rest.damaged("not a record"));
        }
        let length = rest.length_u32()?;
        let header = rest.take(length)?.to_vec();
        let count = rest.length_u32()?;
        let mut attachments = Vec::new();
        for _ in 0..count {
            let length = rest.length_u32()?;
            let name = String::from_utf8(rest.take(length)?.to_vec()).map_err(|_| rest.damaged("a group's name is not UTF-8"))?;
            let length = rest.length_u64()?;
            let stream = rest.take(length)?;
            let batches = if stream.is_empty() { Vec::new() } else { ipc::read_stream(stream)?.1 };
            attachments.push((name, batches));
        }
        if rest.at != bytes.len() {
            return Err(rest.damaged("bytes follow the record"));
        }
        Ok(FramePayload { header, attachments })
    }
}

fn put_u32(bytes: &mut Vec<u8>, value: usize, what: &str) -> Result<()> {
    let limit = u64::from(u32::MAX);
    let value = u32::try_from(value).map_err(|_| StateError::TooLarge { what: what.to_string(), bytes: value as u64, limit })?;
    bytes.extend_from_slice(&value.to_le_bytes());
    Ok(())
}

struct Rest<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        let Some(end) = end else { return Err(self.damaged("ends early")) };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn length_u32(&mut self) -> Result<usize> {
        Ok(u32_at(self.take(4)?, 0) as usize)
    }

    fn length_u64(&mut self) -> Result<usize> {
        let length = u64_at(self.take(8)?, 0);
        usize::try_from(length).map_err(|_| self.damaged("ends early"))
    }

    fn damaged(&self, problem: &str) -> StateError {
        StateError::corrupt(Path::new("record"), Some(self.at as u64), problem)
    }
}
