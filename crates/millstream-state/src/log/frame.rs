//! The bytes of one frame.
//!
//! ```text
//!   offset  bytes
//!        0      4  magic "MSF1"
//!        4      1  kind, chosen by the writer of the payload; 255 ends a segment
//!        5      3  zero
//!        8      8  length of the payload
//!       16      8  epoch
//!       24      8  offset up to which the segment was durable when this frame was appended
//!       32      4  CRC-32 of the payload
//!       36      4  CRC-32 of bytes 0..36, then writer, segment number and offset of the frame
//!       40      …  payload
//! ```
//!
//! All integers are little-endian. The header's own checksum makes its length trustworthy before a byte of payload is read, and ties
//! the frame to its place: bytes of another segment that appear in this one are not frames.

use millstream_types::Epoch;

/// Bytes before the payload.
pub(crate) const HEADER_BYTES: usize = 40;

/// Largest payload of one frame: 1 GiB. An epoch's rows are bounded far below.
pub const MAX_PAYLOAD_BYTES: u64 = 1 << 30;

/// Kind of the frame that ends a segment.
pub(crate) const KIND_END: u8 = 255;

pub(crate) const MAGIC: [u8; 4] = *b"MSF1";

/// A frame read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is, as given to `append`.
    pub kind: u8,
    /// The epoch it belongs to.
    pub epoch: Epoch,
    /// Its bytes.
    pub payload: Vec<u8>,
    /// Number of the writer that appended it.
    pub writer: u64,
    /// Number of its segment.
    pub segment: u64,
    /// Where it starts in the segment.
    pub offset: u64,
}

/// Where a frame lies; part of its checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) writer: u64,
    pub(crate) segment: u64,
    pub(crate) offset: u64,
}

/// The fields of a frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: u8,
    pub(crate) length: u64,
    pub(crate) epoch: Epoch,
    pub(crate) durable: u64,
    pub(crate) payload_crc32: u32,
}

impl Header {
    pub(crate) fn encode(&self, place: Place) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4] = self.kind;
        bytes[8..16].copy_from_slice(&self.length.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.epoch.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.durable.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.payload_crc32.to_le_bytes());
        let checksum = checksum(&bytes[0..36], place);
        bytes[36..40].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The header in `bytes`, if they are one that belongs to `place` and is within the limits.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES], place: Place) -> Option<Header> {
        if bytes[0..4] != MAGIC || u32_at(bytes, 36) != checksum(&bytes[0..36], place) {
            return None;
        }
        let header = Header {
            kind: bytes[4],
            length: u64_at(bytes, 8),
            epoch: Epoch(u64_at(bytes, 16)),
            durable: u64_at(bytes, 24),
            payload_crc32: u32_at(bytes, 32),
        };
        (header.length <= MAX_PAYLOAD_BYTES).then_some(header)
    }
}

fn checksum(header: &[u8], place: Place) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(&place.writer.to_le_bytes());
    hasher.update(&place.segment.to_le_bytes());
    hasher.update(&place.offset.to_le_bytes());
    hasher.finalize()
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("the range has four bytes"))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("the range has eight bytes"))
}
