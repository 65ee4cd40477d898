//! Text formats: finding record boundaries for planning, and reading slices.

use super::assemble::{Assembler, RowNumbers, partition_keys};
use super::config::FilesConfig;
use super::reader::{Emit, Shared};
use super::slice::FileSlice;
use super::storage::quoted;
use crate::error::{ConnectorError, Result};
use crate::formats::{Decoder, Format, LineBatch, LineSplitter, header_fits, split_csv_record};
use crate::source::{BadRow, ReadRequest, RowPlaces, SourceBatch};
use ::arrow::datatypes::Schema;
use millstream_types::Offset;
use std::io::{self, Read};
use std::sync::Arc;

const CHUNK_BYTES: usize = 256 << 10;
/// Lines are decoded once this much has been cut.
const BATCH_BYTES: usize = 8 << 20;

/// Turns a failed read into the error a person can act on.
pub(crate) fn read_error(path: &str, error: io::Error) -> ConnectorError {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput => ConnectorError::Data {
            place: quoted(path),
            problem: format!("cannot be read: {error}"),
            hint: Some(super::DAMAGED_HINT.into()),
        },
        _ => ConnectorError::unavailable("reading file", quoted(path), error),
    }
}

/// The decompressed bytes of a file from `start` on.
fn open(config: &FilesConfig, path: &str, size: u64, start: u64) -> Result<Box<dyn Read + Send>> {
    let storage = &config.location.storage;
    let failed = |error| read_error(path, error);
    match config.compression(path) {
        None => Ok(Box::new(storage.open(path, size, start).map_err(failed)?)),
        Some(compression) => {
            let raw = storage.open(path, size, 0).map_err(failed)?;
            let mut reader = compression.reader(Box::new(raw), size, config.max_decompressed_bytes).map_err(failed)?;
            io::copy(&mut reader.by_ref().take(start), &mut io::sink()).map_err(failed)?;
            Ok(reader)
        }
    }
}

/// Fills as much of the buffer as there is.
fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Where a part of a text file may start and how far it may go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    /// First byte, decompressed; a record's start.
    pub start: u64,
    /// Its line number.
    pub line: u64,
    /// Bytes of an uncompressed file to look at; `None` for all of a compressed one.
    pub end: Option<u64>,
    pub max_rows: u64,
    pub max_bytes: u64,
    /// Whether an unterminated last line is a record.
    pub take_tail: bool,
}

/// What a span holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scanned {
    pub rows: u64,
    /// Offset after the last record.
    pub end: u64,
    /// Line number there.
    pub line: u64,
    /// Nothing follows.
    pub at_end: bool,
}

/// Counts whole records until a limit is reached; at least one, where there is one.
pub(crate) fn scan(shared: &Shared, path: &str, size: u64, span: Span) -> Result<Scanned> {
    let config = &shared.config;
    let mut reader = open(config, path, size, span.start)?;
    let mut left = span.end.map_or(u64::MAX, |end| end.saturating_sub(span.start));
    let mut splitter = LineSplitter::resume(config.format.split_options(), span.start, span.line);
    let mut header = span.start == 0 && Header::of(shared, path, size)?.is_some_and(|header| header.fits);
    let mut scanned = Scanned { rows: 0, end: span.start, line: span.line, at_end: false };
    let mut lines = LineBatch::default();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut ended = false;
    loop {
        lines.clear();
        if !ended {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let count = fill(reader.as_mut(), &mut buffer[..wanted]).map_err(|error| read_error(path, error))?;
            left -= count as u64;
            ended = count == 0;
            splitter.push(&buffer[..count], &mut lines);
            if ended && span.take_tail {
                splitter.finish(&mut lines);
            }
        }
        for line in &lines.lines {
            let full = scanned.rows >= span.max_rows || scanned.end - span.start >= span.max_bytes;
            if full && scanned.rows > 0 {
                return Ok(scanned);
            }
            if !std::mem::take(&mut header) {
                scanned.rows += 1;
            }
            scanned.end = line.next_offset;
            scanned.line = line.next_number;
        }
        if ended {
            // What follows the last record are blank lines and comments only, or a tail that is left for later.
            scanned.end = splitter.offset();
            scanned.line = splitter.line();
            scanned.at_end = !splitter.has_partial();
            return Ok(scanned);
        }
    }
}

fn has_header(config: &FilesConfig) -> bool {
    config.format.format == Format::Csv && config.format.header
}

/// The first record of a CSV file that is to have a header.
#[derive(Debug)]
struct Header {
    line: Vec<u8>,
    names: Option<Vec<String>>,
    /// It names columns of the stream. If not, it is the first of the bad rows: it may be data of a file without a header.
    fits: bool,
}

impl Header {
    /// The header of a file; `None` for files that have none.
    fn of(shared: &Shared, path: &str, size: u64) -> Result<Option<Self>> {
        let config = &shared.config;
        let Some(line) = (if has_header(config) { header_line(config, path, size)? } else { None }) else { return Ok(None) };
        let names = std::str::from_utf8(&line).ok().and_then(|line| split_csv_record(line, &config.format));
        let mut header = Self { line, names, fits: false };
        let own = own_columns(shared, path, Some(&header));
        let own: Vec<_> = own.iter().map(|index| Arc::clone(&shared.schema.fields()[*index])).collect();
        header.fits = header_fits(&Arc::new(Schema::new(own)), &config.format, &header.line)?;
        Ok(Some(header))
    }
}

/// Indices of the declared columns that a file holds itself. Directory names give the columns that the header does not; where
/// there is no header they always do.
fn own_columns(shared: &Shared, path: &str, header: Option<&Header>) -> Vec<usize> {
    let keys = partition_keys(path);
    let names = header.and_then(|header| header.names.as_ref());
    let from_path =
        |name: &str| keys.iter().any(|(key, _)| key == name) && names.is_none_or(|names| !names.iter().any(|known| known == name));
    let fields = shared.schema.fields();
    (0..fields.len()).filter(|index| !from_path(fields[*index].name())).collect()
}

/// The first record of a CSV file.
fn header_line(config: &FilesConfig, path: &str, size: u64) -> Result<Option<Vec<u8>>> {
    let mut reader = open(config, path, size, 0)?;
    let mut splitter = LineSplitter::new(config.format.split_options());
    let mut lines = LineBatch::default();
    let mut buffer = vec![0; 16 << 10];
    loop {
        let count = fill(reader.as_mut(), &mut buffer).map_err(|error| read_error(path, error))?;
        splitter.push(&buffer[..count], &mut lines);
        if count == 0 {
            splitter.finish(&mut lines);
        }
        if let Some(line) = lines.lines.first() {
            return Ok(Some(line.of(&lines.bytes).to_vec()));
        }
        if count == 0 {
            return Ok(None);
        }
    }
}

/// Reads a slice and hands out its batches.
pub(crate) fn read(shared: &Shared, slice: &FileSlice, request: &ReadRequest, emit: &mut Emit<'_>) -> Result<()> {
    let config = &shared.config;
    let header = Header::of(shared, &slice.path, slice.size)?;
    let own = own_columns(shared, &slice.path, header.as_ref());
    let fields = shared.schema.fields();
    let is_own = |name: &str| own.iter().any(|index| fields[*index].name() == name);
    let (assembler, decoded) = Assembler::new(shared, slice, request, is_own)?;
    let own_schema = Arc::new(Schema::new(own.iter().map(|index| Arc::clone(&fields[*index])).collect::<Vec<_>>()));
    let projection: Vec<usize> = decoded.iter().filter_map(|index| own.iter().position(|own| own == index)).collect();
    let mut decoder = Decoder::new(own_schema, Some(&projection), &config.format)?;
    if let Some(header) = &header {
        decoder.set_header(&header.line);
    }
    let path: Arc<str> = slice.path.as_str().into();

    let mut reader = open(config, &slice.path, slice.size, slice.byte_start)?;
    let mut left = slice.byte_end.map_or(u64::MAX, |end| end.saturating_sub(slice.byte_start));
    let mut splitter = LineSplitter::resume(config.format.split_options(), slice.byte_start, slice.line.max(1));
    let mut skip_header = slice.byte_start == 0 && header.is_some_and(|header| header.fits);
    let mut row = slice.start_row;
    let mut lines = LineBatch::default();
    let mut buffer = vec![0; CHUNK_BYTES];
    let batch_rows = request.batch_size.max(1);
    loop {
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let count = fill(reader.as_mut(), &mut buffer[..wanted]).map_err(|error| read_error(&slice.path, error))?;
        left -= count as u64;
        splitter.push(&buffer[..count], &mut lines);
        if count == 0 {
            splitter.finish(&mut lines);
        }
        if skip_header && !lines.lines.is_empty() {
            lines.lines.remove(0);
            skip_header = false;
        }
        if count > 0 && lines.lines.len() < batch_rows && lines.bytes.len() < BATCH_BYTES {
            continue;
        }
        // Parts of equal size, so that no small rest follows every full batch.
        let parts = lines.lines.len().div_ceil(batch_rows).max(1);
        let part_rows = lines.lines.len().div_ceil(parts).max(1);
        for part in lines.lines.chunks(part_rows) {
            let rows = decoder.decode_lines(&lines.bytes, part)?;
            let place = |line: u64| format!("{}:{line}", slice.path);
            let bad = rows.bad.into_iter().map(|bad| BadRow {
                offset: Offset { sequence: slice.sequence, row: row + bad.index as u64 },
                place: place(bad.line),
                reason: bad.reason,
                raw: bad.raw,
            });
            let bad: Vec<_> = bad.collect();
            let kept = rows.kept.map(|kept| kept.into_iter().map(|index| row + u64::from(index)).collect::<Vec<_>>());
            let numbers = RowNumbers { first: row, kept: kept.as_deref() };
            let batch = assembler.build(rows.batch.columns(), rows.batch.num_rows(), numbers)?;
            let bytes = part.iter().map(|line| (line.end - line.start) as u64 + 1).sum();
            let places = RowPlaces { path: Arc::clone(&path), first_row: row, lines: part.iter().map(|line| line.number).collect() };
            let places = Some(places);
            if !emit(Ok(SourceBatch { batch, sequence: slice.sequence, rows: kept, first_row: row, bad, places, bytes, event_times: None }))
            {
                return Ok(());
            }
            row += part.len() as u64;
        }
        lines.clear();
        if count == 0 {
            return Ok(());
        }
    }
}

/// The first records of a file, the header among them.
pub(crate) fn sample(
    config: &FilesConfig,
    file: &super::storage::FoundFile,
    max_rows: u64,
    max_bytes: u64,
    lines: &mut LineBatch,
) -> Result<()> {
    let mut reader = open(config, &file.path, file.size, 0)?;
    let mut splitter = LineSplitter::new(config.format.split_options());
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let count = fill(reader.as_mut(), &mut buffer).map_err(|error| read_error(&file.path, error))?;
        splitter.push(&buffer[..count], lines);
        if count == 0 {
            splitter.finish(lines);
        }
        let full = lines.lines.len() as u64 > max_rows || splitter.offset() > max_bytes && !lines.lines.is_empty();
        if count == 0 || full {
            lines.lines.truncate(usize::try_from(max_rows).unwrap_or(usize::MAX).saturating_add(1));
            return Ok(());
        }
    }
}
