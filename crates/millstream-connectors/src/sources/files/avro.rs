//! Avro object container files.
//!
//! Block lengths and the markers between blocks are checked when an epoch is planned; a file that ends inside a block is
//! refused. Blocks are decoded one by one, each into one batch, and must hold exactly the rows they announce. Reading from
//! the middle goes straight to the block with the first row.

use super::columnar::ColumnarFile;
use super::inspect::Group;
use super::reader::{Emit, Shared};
use super::slice::FileSlice;
use super::storage::{FoundFile, ReadSeek, Storage, quoted};
use crate::error::{ConnectorError, Result};
use crate::source::ReadRequest;
use ::arrow::datatypes::SchemaRef;
use ::arrow::error::ArrowError;
use arrow_avro::reader::{Reader, ReaderBuilder};
use std::io::{BufReader, Cursor, Read, SeekFrom};

const MAGIC: &[u8; 4] = b"Obj\x01";
/// A larger header is taken as damage.
const HEADER_MAX: u64 = 16 << 20;
/// A block that announces more rows is taken as damage.
const BLOCK_ROWS_MAX: u64 = u32::MAX as u64;

fn damaged(path: &str, problem: impl std::fmt::Display) -> ConnectorError {
    let hint = Some(super::DAMAGED_HINT.to_string());
    ConnectorError::Data { place: quoted(path), problem: format!("is no valid Avro file: {problem}"), hint }
}

fn avro_error(path: &str, error: ArrowError) -> ConnectorError {
    match error {
        ArrowError::IoError(_, error) => super::text::read_error(path, error),
        other => damaged(path, super::library_message(&other)),
    }
}

/// Where header and blocks lie.
#[derive(Debug)]
pub(crate) struct Layout {
    header_bytes: u64,
    /// Offset of each block.
    offsets: Vec<u64>,
    /// Rows and bytes of each block.
    pub groups: Vec<Group>,
}

/// Counts the bytes that were read.
struct Counted<'a> {
    reader: BufReader<&'a mut dyn ReadSeek>,
    position: u64,
    size: u64,
}

impl Counted<'_> {
    fn byte(&mut self) -> std::io::Result<u8> {
        let mut byte = [0];
        self.reader.read_exact(&mut byte)?;
        self.position += 1;
        Ok(byte[0])
    }

    /// A zigzag variable-length integer.
    fn long(&mut self) -> std::io::Result<i64> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "a number is too long"))
    }

    /// The marker that ends the header and every block.
    fn marker(&mut self) -> std::io::Result<[u8; 16]> {
        let mut marker = [0; 16];
        self.reader.read_exact(&mut marker)?;
        self.position += 16;
        Ok(marker)
    }

    /// Passes over `length` bytes, which must be there.
    fn skip(&mut self, length: i64) -> std::io::Result<()> {
        let end = u64::try_from(length).ok().and_then(|length| self.position.checked_add(length)).filter(|end| *end <= self.size);
        let Some(end) = end else { return Err(std::io::ErrorKind::UnexpectedEof.into()) };
        self.reader.seek_relative(length)?;
        self.position = end;
        Ok(())
    }
}

/// Walks over the blocks without reading them.
pub(crate) fn layout(storage: &Storage, file: &FoundFile) -> Result<Layout> {
    let mut reader = storage.open(&file.path, file.size, 0).map_err(|error| super::text::read_error(&file.path, error))?;
    walk(reader.as_mut(), file.size).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => damaged(&file.path, "it is cut short"),
        std::io::ErrorKind::InvalidData => damaged(&file.path, error),
        _ => super::text::read_error(&file.path, error),
    })
}

fn walk(reader: &mut dyn ReadSeek, size: u64) -> std::io::Result<Layout> {
    let invalid = |problem: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, problem.to_string());
    let mut input = Counted { reader: BufReader::new(reader), position: 0, size };
    for expected in MAGIC {
        if input.byte()? != *expected {
            return Err(invalid("it does not start with the magic bytes Obj1"));
        }
    }
    loop {
        let mut entries = input.long()?;
        if entries == 0 {
            break;
        }
        if entries < 0 {
            input.long()?;
            entries = entries.checked_neg().ok_or_else(|| invalid("its header is damaged"))?;
        }
        for _ in 0..entries {
            for _ in 0..2 {
                let length = input.long()?;
                input.skip(length)?;
            }
            if input.position > HEADER_MAX {
                return Err(invalid("its header is too long"));
            }
        }
    }
    let marker = input.marker()?;
    let mut layout = Layout { header_bytes: input.position, offsets: Vec::new(), groups: Vec::new() };
    while input.position < size {
        let start = input.position;
        let (rows, bytes) = (input.long()?, input.long()?);
        input.skip(bytes)?;
        if input.marker()? != marker {
            return Err(invalid(&format!("the block at byte {start} does not end with the file's marker")));
        }
        layout.offsets.push(start);
        let rows = u64::try_from(rows).ok().filter(|rows| *rows <= BLOCK_ROWS_MAX && (*rows > 0 || bytes == 0));
        let rows = rows.ok_or_else(|| invalid(&format!("the block at byte {start} announces a number of rows that it cannot hold")))?;
        layout.groups.push(Group { rows, bytes: input.position - start });
    }
    Ok(layout)
}

type AvroReader = Reader<BufReader<Box<dyn Read + Send>>>;

/// A reader of the header and one block, or of no block.
fn decoder(path: &str, header: &[u8], block: Vec<u8>, rows: u64) -> Result<AvroReader> {
    let joined: Box<dyn Read + Send> = Box::new(Cursor::new(header.to_vec()).chain(Cursor::new(block)));
    let rows = usize::try_from(rows).unwrap_or(usize::MAX).max(1);
    let builder = ReaderBuilder::new().with_batch_size(rows).with_utf8_view(true);
    builder.build(BufReader::new(joined)).map_err(|error| avro_error(path, error))
}

/// The block with twice the number of rows at its start. arrow-avro's reader never returns from a block that has bytes left after
/// its last row; this way it takes them for another row, and where nothing is left it is at the end.
fn announcing_more(block: &[u8], rows: u64) -> Vec<u8> {
    let length = block.iter().take_while(|byte| **byte & 0x80 != 0).count() + 1;
    let mut bytes = Vec::with_capacity(block.len() + 1);
    let mut zigzag = rows * 4;
    while zigzag >= 0x80 {
        bytes.push((zigzag & 0x7F) as u8 | 0x80);
        zigzag >>= 7;
    }
    bytes.push(zigzag as u8);
    bytes.extend_from_slice(&block[length.min(block.len())..]);
    bytes
}

fn read_exactly(reader: &mut dyn ReadSeek, path: &str, from: u64, length: u64) -> Result<Vec<u8>> {
    let failed = |error| super::text::read_error(path, error);
    let mut bytes = Vec::new();
    reader.seek(SeekFrom::Start(from)).map_err(failed)?;
    reader.take(length).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// The columns of a file.
pub(crate) fn schema(storage: &Storage, file: &FoundFile) -> Result<SchemaRef> {
    let layout = layout(storage, file)?;
    let mut reader = storage.open(&file.path, file.size, 0).map_err(|error| super::text::read_error(&file.path, error))?;
    let header = read_exactly(reader.as_mut(), &file.path, 0, layout.header_bytes)?;
    Ok(decoder(&file.path, &header, Vec::new(), 1)?.schema())
}

/// Reads a slice and hands out its batches.
pub(crate) fn read(shared: &Shared, slice: &FileSlice, request: &ReadRequest, emit: &mut Emit<'_>) -> Result<()> {
    let storage = &shared.config.location.storage;
    let file = slice.file();
    let layout = layout(storage, &file)?;
    let total: u64 = layout.groups.iter().map(|group| group.rows).sum();
    let wanted = slice.start_row..slice.end_row.unwrap_or(total).min(total);
    let mut input = storage.open(&file.path, file.size, 0).map_err(|error| super::text::read_error(&file.path, error))?;
    let header = read_exactly(input.as_mut(), &file.path, 0, layout.header_bytes)?;
    let columnar = ColumnarFile::new(shared, slice, request, &decoder(&file.path, &header, Vec::new(), 1)?.schema())?;
    let mut row = 0;
    for (offset, group) in layout.offsets.iter().zip(&layout.groups) {
        if row >= wanted.end {
            break;
        }
        if row + group.rows > wanted.start && group.rows > 0 {
            let block = read_exactly(input.as_mut(), &file.path, *offset, group.bytes)?;
            let mut blocks = decoder(&file.path, &header, announcing_more(&block, group.rows), group.rows)?;
            let batch = blocks.next().transpose().map_err(|error| avro_error(&file.path, error))?;
            if blocks.next().is_some() {
                let problem = format!("the block at byte {offset} has more rows than the {} it announces", group.rows);
                return Err(damaged(&file.path, problem));
            }
            let found = batch.as_ref().map_or(0, |batch| batch.num_rows() as u64);
            let Some(batch) = batch.filter(|_| found == group.rows) else {
                let problem = format!("the block at byte {offset} has {found} rows, it announces {}", group.rows);
                return Err(damaged(&file.path, problem));
            };
            let selected = batch.project(&columnar.stored).map_err(|error| avro_error(&file.path, error))?;
            if !columnar.convert_parts(&selected, row, wanted.clone(), request.batch_size, emit)? {
                return Ok(());
            }
        }
        row += group.rows;
    }
    Ok(())
}
