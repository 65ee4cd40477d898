//! Segment files: creation, appending, reading with the judgement of what an invalid frame means.

use super::frame::{Frame, HEADER_BYTES, Header, KIND_END, MAGIC, MAX_PAYLOAD_BYTES, Place, u32_at, u64_at};
use crate::durable_put::{self, Put};
use crate::error::{Result, StateError};
use crate::failpoint;
use millstream_types::Epoch;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes before the first frame: magic "MSLOGSEG", version, writer, segment number, zeros, CRC-32.
pub(crate) const SEGMENT_HEADER_BYTES: u64 = 64;
const SEGMENT_MAGIC: [u8; 8] = *b"MSLOGSEG";
const SEGMENT_VERSION: u32 = 1;

/// The name of a segment: `<writer>-<number>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SegmentName {
    pub(crate) writer: u64,
    pub(crate) number: u64,
}

impl SegmentName {
    pub(crate) fn parse(name: &str) -> Option<SegmentName> {
        let (writer, number) = name.split_once('-')?;
        let parsed = SegmentName { writer: writer.parse().ok()?, number: number.parse().ok()? };
        // "+1-01" parses as well, but we never write it.
        (parsed.to_string() == name).then_some(parsed)
    }

    pub(crate) fn path(self, directory: &Path) -> PathBuf {
        directory.join(self.to_string())
    }
}

impl std::fmt::Display for SegmentName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.writer, self.number)
    }
}

/// A segment that is being written.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    pub(crate) name: SegmentName,
    pub(crate) path: PathBuf,
    file: Arc<File>,
    /// Where the next frame goes.
    pub(crate) end: u64,
    /// Up to where the file is filled with frames or zeros.
    allocated: u64,
    /// Up to where it is known to be durable.
    durable: u64,
    preallocate: u64,
    pub(crate) newest_epoch: Epoch,
}

impl SegmentWriter {
    /// Durably creates an empty segment.
    pub(crate) fn create(directory: &Path, name: SegmentName, preallocate: u64) -> Result<SegmentWriter> {
        let path = name.path(directory);
        let (temporary, file) = durable_put::create_temporary(&path)?;
        let mut header = [0; SEGMENT_HEADER_BYTES as usize];
        header[0..8].copy_from_slice(&SEGMENT_MAGIC);
        header[8..12].copy_from_slice(&SEGMENT_VERSION.to_le_bytes());
        header[16..24].copy_from_slice(&name.writer.to_le_bytes());
        header[24..32].copy_from_slice(&name.number.to_le_bytes());
        let checksum = crc32fast::hash(&header[0..60]);
        header[60..64].copy_from_slice(&checksum.to_le_bytes());
        let mut segment = SegmentWriter {
            name,
            path: path.clone(),
            file: Arc::new(file),
            end: SEGMENT_HEADER_BYTES,
            allocated: SEGMENT_HEADER_BYTES,
            durable: SEGMENT_HEADER_BYTES,
            preallocate,
            newest_epoch: Epoch::ZERO,
        };
        segment.file.write_all_at(&header, 0).map_err(StateError::io("writing", &temporary))?;
        segment.allocate(SEGMENT_HEADER_BYTES)?;
        segment.file.sync_all().map_err(StateError::io("syncing", &temporary))?;
        match durable_put::publish(&temporary, &path)? {
            Put::Created => Ok(segment),
            Put::Exists => Err(StateError::Exists { path }),
        }
    }

    /// Appends a frame; durable after [`sync`](Self::sync). When writing fails the segment is as before.
    pub(crate) fn append(&mut self, kind: u8, epoch: Epoch, parts: &[&[u8]]) -> Result<u64> {
        let length: u64 = parts.iter().map(|part| part.len() as u64).sum();
        if length > MAX_PAYLOAD_BYTES {
            return Err(StateError::TooLarge { what: format!("the record of epoch {epoch}"), bytes: length, limit: MAX_PAYLOAD_BYTES });
        }
        let mut hasher = crc32fast::Hasher::new();
        parts.iter().for_each(|part| hasher.update(part));
        let offset = self.end;
        let place = Place { writer: self.name.writer, segment: self.name.number, offset };
        let header = Header { kind, length, epoch, durable: self.durable, payload_crc32: hasher.finalize() }.encode(place);
        let written = StateError::io("writing", &self.path);
        if failpoint::is_due("log.append.torn") {
            let half: Vec<u8> = header.iter().chain(parts.iter().copied().flatten()).copied().collect();
            self.file.write_all_at(&half[..half.len() / 2], offset).map_err(written)?;
            failpoint::hit("log.append.torn")?;
        } else {
            failpoint::hit("log.append.torn")?;
            self.write(offset, &header, parts).map_err(written)?;
        }
        self.end = offset + HEADER_BYTES as u64 + length;
        self.newest_epoch = self.newest_epoch.max(epoch);
        // Only a matter of speed: a disk too full for zeros may have taken the frame.
        let _ = self.allocate(self.end);
        Ok(offset)
    }

    /// Takes back every frame appended since the last sync.
    pub(crate) fn discard_unsynced(&mut self) -> Result<()> {
        if self.durable < self.end {
            let zeros = vec![0; (self.end - self.durable) as usize];
            self.file.write_all_at(&zeros, self.durable).map_err(StateError::io("writing", &self.path))?;
            self.end = self.durable;
        }
        Ok(())
    }

    fn write(&self, offset: u64, header: &[u8], parts: &[&[u8]]) -> std::io::Result<()> {
        const ONE_WRITE: usize = 256 * 1024;
        let total = header.len() + parts.iter().map(|part| part.len()).sum::<usize>();
        if total <= ONE_WRITE {
            let mut bytes = Vec::with_capacity(total);
            bytes.extend_from_slice(header);
            parts.iter().for_each(|part| bytes.extend_from_slice(part));
            return self.file.write_all_at(&bytes, offset);
        }
        self.file.write_all_at(header, offset)?;
        let mut at = offset + header.len() as u64;
        for part in parts {
            self.file.write_all_at(part, at)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    /// Fills the file with zeros ahead of `end`, so that a sync of a small frame changes no file metadata. Real zeros, not
    /// `fallocate`: unwritten extents would be converted, through the journal, by every sync.
    fn allocate(&mut self, end: u64) -> Result<()> {
        if end < self.allocated || self.preallocate == 0 {
            return Ok(());
        }
        let target = end + self.preallocate;
        let zeros = vec![0; (target - end) as usize];
        self.file.write_all_at(&zeros, end).map_err(StateError::io("writing", &self.path))?;
        self.allocated = target;
        Ok(())
    }

    /// Makes every appended frame durable.
    pub(crate) fn sync(&mut self) -> Result<()> {
        if self.durable < self.end {
            self.pending_sync().run()?;
            self.durable = self.end;
        }
        Ok(())
    }

    /// What [`sync`](Self::sync) has to do, for another thread.
    pub(crate) fn pending_sync(&self) -> PendingSync {
        PendingSync { file: Arc::clone(&self.file), path: self.path.clone(), end: self.end }
    }

    /// A pending sync is done.
    pub(crate) fn synced(&mut self, synced: &Synced) {
        self.durable = self.durable.max(synced.end);
    }

    /// Ends the segment: nothing follows in it.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.sync()?;
        self.append(KIND_END, self.newest_epoch, &[])?;
        // The preallocated zeros are not needed any more.
        self.file.set_len(self.end).map_err(StateError::io("truncating", &self.path))?;
        self.file.sync_all().map_err(StateError::io("syncing", &self.path))?;
        self.durable = self.end;
        Ok(())
    }
}

/// A sync that is still to be done. No frame is durable before it is; it may run on any thread.
#[derive(Debug)]
pub struct PendingSync {
    file: Arc<File>,
    path: PathBuf,
    end: u64,
}

impl PendingSync {
    /// Syncs.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn run(self) -> Result<Synced> {
        self.file.sync_data().map_err(StateError::io("syncing", &self.path))?;
        Ok(Synced { end: self.end })
    }
}

/// A sync that was done.
#[derive(Debug)]
pub struct Synced {
    end: u64,
}

/// What a segment reader meets.
#[derive(Debug)]
pub(crate) enum Step {
    Frame(Frame),
    /// The frame that ends a segment.
    End,
    /// Bytes at the reader's offset that are not a frame.
    Invalid,
}

/// Reads a segment frame by frame.
#[derive(Debug)]
pub(crate) struct SegmentReader {
    pub(crate) path: PathBuf,
    name: SegmentName,
    file: File,
    bytes: u64,
    /// Where the next frame starts.
    pub(crate) offset: u64,
    /// Newest epoch of a frame seen so far.
    pub(crate) newest_epoch: Epoch,
}

impl SegmentReader {
    /// Opens a segment and checks its header. Segments appear whole, so a bad header is damage.
    pub(crate) fn open(directory: &Path, name: SegmentName) -> Result<SegmentReader> {
        let path = name.path(directory);
        let file = File::open(&path).map_err(StateError::io("opening", &path))?;
        let bytes = file.metadata().map_err(StateError::io("reading", &path))?.len();
        let damaged = |problem: &str| StateError::corrupt(&path, Some(0), problem);
        if bytes < SEGMENT_HEADER_BYTES {
            return Err(damaged("too short for a segment header"));
        }
        let mut header = [0; SEGMENT_HEADER_BYTES as usize];
        file.read_exact_at(&mut header, 0).map_err(StateError::io("reading", &path))?;
        if header[0..8] != SEGMENT_MAGIC || u32_at(&header, 60) != crc32fast::hash(&header[0..60]) {
            return Err(damaged("not a segment header"));
        }
        let version = u32_at(&header, 8);
        if version > SEGMENT_VERSION {
            return Err(StateError::NewerFormat { path, part: "log segment", found: version, supported: SEGMENT_VERSION });
        }
        if u64_at(&header, 16) != name.writer || u64_at(&header, 24) != name.number {
            return Err(damaged("the header of another segment"));
        }
        Ok(SegmentReader { path, name, file, bytes, offset: SEGMENT_HEADER_BYTES, newest_epoch: Epoch::ZERO })
    }

    /// Makes durable whatever the file holds.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(StateError::io("syncing", &self.path))
    }

    /// The next frame, payload checked.
    pub(crate) fn step(&mut self) -> Result<Step> {
        let Some(header) = self.header_at(self.offset)? else { return Ok(Step::Invalid) };
        let Some(payload) = self.payload_at(self.offset, &header)? else { return Ok(Step::Invalid) };
        let offset = self.offset;
        self.offset += HEADER_BYTES as u64 + header.length;
        if header.kind == KIND_END {
            return Ok(Step::End);
        }
        self.newest_epoch = self.newest_epoch.max(header.epoch);
        Ok(Step::Frame(Frame {
            kind: header.kind,
            epoch: header.epoch,
            payload,
            writer: self.name.writer,
            segment: self.name.number,
            offset,
        }))
    }

    /// Newest epoch of the frames below `end` from their headers alone.
    pub(crate) fn newest_epoch_below(mut self, end: u64) -> Result<Epoch> {
        while self.offset < end {
            let Some(header) = self.header_at(self.offset)? else { break };
            self.newest_epoch = self.newest_epoch.max(header.epoch);
            self.offset += HEADER_BYTES as u64 + header.length;
            if header.kind == KIND_END {
                break;
            }
        }
        Ok(self.newest_epoch)
    }

    /// After [`Step::Invalid`]: whether a frame behind the reader's offset proves that the bytes here had been durable.
    pub(crate) fn damage(&self) -> Result<Option<StateError>> {
        let from = self.offset + 1;
        let length = usize::try_from(self.bytes.saturating_sub(from)).unwrap_or(usize::MAX);
        let mut rest = vec![0; length];
        self.file.read_exact_at(&mut rest, from).map_err(StateError::io("reading", &self.path))?;
        let mut at = 0;
        while let Some(found) = rest[at..].iter().position(|byte| *byte == MAGIC[0]) {
            at += found;
            if rest[at..].starts_with(&MAGIC) {
                let offset = from + at as u64;
                if let Some(header) = self.header_at(offset)?
                    && header.durable > self.offset
                    && self.payload_at(offset, &header)?.is_some()
                {
                    let problem = format!("not a frame, although the frame at {offset} was appended after it");
                    return Ok(Some(StateError::corrupt(&self.path, Some(self.offset), problem)));
                }
            }
            at += 1;
        }
        Ok(None)
    }

    /// Whether anything but zeros follows the reader's offset.
    pub(crate) fn has_torn_tail(&self) -> Result<bool> {
        let mut at = self.offset;
        let mut buffer = vec![0; 64 * 1024];
        while at < self.bytes {
            let take = buffer.len().min((self.bytes - at) as usize);
            self.file.read_exact_at(&mut buffer[..take], at).map_err(StateError::io("reading", &self.path))?;
            if buffer[..take].iter().any(|byte| *byte != 0) {
                return Ok(true);
            }
            at += take as u64;
        }
        Ok(false)
    }

    fn header_at(&self, offset: u64) -> Result<Option<Header>> {
        let mut bytes = [0; HEADER_BYTES];
        if offset.saturating_add(HEADER_BYTES as u64) > self.bytes {
            return Ok(None);
        }
        self.file.read_exact_at(&mut bytes, offset).map_err(StateError::io("reading", &self.path))?;
        let place = Place { writer: self.name.writer, segment: self.name.number, offset };
        Ok(Header::decode(&bytes, place))
    }

    fn payload_at(&self, offset: u64, header: &Header) -> Result<Option<Vec<u8>>> {
        let start = offset + HEADER_BYTES as u64;
        // The length was checked against the limit; here against the file, before memory is taken for it.
        if start.saturating_add(header.length) > self.bytes {
            return Ok(None);
        }
        let mut payload = vec![0; header.length as usize];
        self.file.read_exact_at(&mut payload, start).map_err(StateError::io("reading", &self.path))?;
        Ok((crc32fast::hash(&payload) == header.payload_crc32).then_some(payload))
    }
}
