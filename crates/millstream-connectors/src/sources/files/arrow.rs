//! Arrow IPC: the file format (Feather 2) and the stream format.
//!
//! The block lengths of a file are checked against its size before anything is read, since the reader allocates what they say.

use super::columnar::ColumnarFile;
use super::inspect::Group;
use super::reader::{Emit, Shared};
use super::slice::FileSlice;
use super::storage::{FoundFile, ReadSeek, Storage, quoted};
use crate::error::{ConnectorError, Result};
use crate::source::ReadRequest;
use ::arrow::array::RecordBatch;
use ::arrow::datatypes::{Schema, SchemaRef};
use ::arrow::error::ArrowError;
use ::arrow::ipc::reader::{FileReader, StreamReader};
use ::arrow::ipc::{root_as_footer, root_as_message};
use std::io::{BufReader, Read, SeekFrom};

const MAGIC: &[u8; 6] = b"ARROW1";
/// Larger metadata of a message is taken as damage.
const METADATA_MAX: u64 = 64 << 20;
const CONTINUATION: [u8; 4] = [0xFF; 4];

fn damaged(path: &str, problem: impl std::fmt::Display) -> ConnectorError {
    let hint = Some(super::DAMAGED_HINT.to_string());
    ConnectorError::Data { place: quoted(path), problem: format!("is no valid Arrow file: {problem}"), hint }
}

fn arrow_error(path: &str, error: ArrowError) -> ConnectorError {
    match error {
        ArrowError::IoError(_, error) => super::text::read_error(path, error),
        other => damaged(path, super::library_message(&other)),
    }
}

/// What a walk over the messages of a file found.
#[derive(Debug)]
pub(crate) struct Layout {
    /// The file format, as opposed to the stream format.
    pub is_file: bool,
    /// One per record batch.
    pub groups: Vec<Group>,
}

/// Walks over the messages without reading their bodies.
pub(crate) fn layout(storage: &Storage, file: &FoundFile) -> Result<Layout> {
    let path = &file.path;
    let mut reader = storage.open(path, file.size, 0).map_err(|error| super::text::read_error(path, error))?;
    let mut head = [0; 8];
    let start = reader.read(&mut head).map_err(|error| super::text::read_error(path, error))?;
    let is_file = start >= 6 && head[..6] == MAGIC[..];
    let walked = match is_file {
        true => walk_file(reader.as_mut(), file.size),
        false => walk_stream(reader.as_mut(), file.size),
    };
    match walked {
        Ok(Ok(groups)) => Ok(Layout { is_file, groups }),
        Ok(Err(problem)) => Err(damaged(path, problem)),
        Err(error) => Err(super::text::read_error(path, error)),
    }
}

fn read_vec(reader: &mut dyn ReadSeek, length: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == length { Ok(bytes) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
}

type Walk = std::io::Result<Result<Vec<Group>, String>>;

fn walk_file(reader: &mut dyn ReadSeek, size: u64) -> Walk {
    if size < 22 {
        return Ok(Err("it is too short".into()));
    }
    reader.seek(SeekFrom::Start(size - 10))?;
    let tail = read_vec(reader, 10)?;
    if tail[4..] != MAGIC[..] {
        return Ok(Err("it does not end with a footer".into()));
    }
    let footer_bytes = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
    if footer_bytes + 18 > size || footer_bytes > METADATA_MAX {
        return Ok(Err(format!("its footer would be {footer_bytes} bytes long")));
    }
    reader.seek(SeekFrom::Start(size - 10 - footer_bytes))?;
    let bytes = read_vec(reader, footer_bytes)?;
    let footer = match root_as_footer(&bytes) {
        Ok(footer) => footer,
        Err(error) => return Ok(Err(format!("its footer is damaged: {error}"))),
    };
    let mut groups = Vec::new();
    let batches = footer.recordBatches().into_iter().flatten().map(|block| (block, true));
    let dictionaries = footer.dictionaries().into_iter().flatten().map(|block| (block, false));
    for (block, is_batch) in dictionaries.chain(batches) {
        let inside = u64::try_from(block.offset())
            .ok()
            .zip(u64::try_from(block.metaDataLength()).ok())
            .zip(u64::try_from(block.bodyLength()).ok())
            .filter(|((at, meta), body)| at.checked_add(*meta).and_then(|end| end.checked_add(*body)).is_some_and(|end| end <= size));
        let Some(((at, meta_bytes), body)) = inside.filter(|((_, meta), _)| (8..=METADATA_MAX).contains(meta)) else {
            return Ok(Err("a block lies outside the file".into()));
        };
        reader.seek(SeekFrom::Start(at))?;
        let bytes = read_vec(reader, meta_bytes)?;
        let header = if bytes[..4] == CONTINUATION { 8 } else { 4 };
        let message = match root_as_message(&bytes[header..]) {
            Ok(message) => message,
            Err(error) => return Ok(Err(format!("a block is damaged: {error}"))),
        };
        if message.bodyLength() != block.bodyLength() {
            return Ok(Err("a block's length differs from the footer".into()));
        }
        if is_batch {
            let rows = message.header_as_record_batch().and_then(|batch| u64::try_from(batch.length()).ok());
            let Some(rows) = rows else { return Ok(Err("a block is no record batch".into())) };
            groups.push(Group { rows, bytes: body });
        }
    }
    Ok(Ok(groups))
}

fn walk_stream(reader: &mut dyn ReadSeek, size: u64) -> Walk {
    let mut groups = Vec::new();
    let mut at = 0_u64;
    let mut first = true;
    while at + 4 <= size {
        reader.seek(SeekFrom::Start(at))?;
        let mut length = read_vec(reader, 4)?;
        at += 4;
        if length == CONTINUATION {
            if at + 4 > size {
                return Ok(Err("it is cut short".into()));
            }
            length = read_vec(reader, 4)?;
            at += 4;
        }
        let meta_bytes = u64::from(u32::from_le_bytes([length[0], length[1], length[2], length[3]]));
        if meta_bytes == 0 {
            return Ok(Ok(groups));
        }
        if meta_bytes > METADATA_MAX || at + meta_bytes > size {
            return Ok(Err(if first {
                "it has neither the magic of a file nor a stream's schema".into()
            } else {
                "it is cut short".into()
            }));
        }
        let bytes = read_vec(reader, meta_bytes)?;
        let message = match root_as_message(&bytes) {
            Ok(message) => message,
            Err(error) => return Ok(Err(format!("a message is damaged: {error}"))),
        };
        at += meta_bytes;
        let end = u64::try_from(message.bodyLength()).ok().and_then(|body| at.checked_add(body)).filter(|end| *end <= size);
        let Some(end) = end else { return Ok(Err("it is cut short".into())) };
        if let Some(batch) = message.header_as_record_batch() {
            groups.push(Group { rows: u64::try_from(batch.length()).unwrap_or(0), bytes: end - at });
        }
        at = end;
        first = false;
    }
    if first || at != size {
        return Ok(Err("it is cut short".into()));
    }
    Ok(Ok(groups))
}

enum Batches {
    File(Box<FileReader<BufReader<Box<dyn ReadSeek>>>>),
    Stream(Box<StreamReader<BufReader<Box<dyn ReadSeek>>>>),
}

fn open(storage: &Storage, file: &FoundFile, is_file: bool, projection: Option<Vec<usize>>) -> Result<Batches> {
    let reader = storage.open(&file.path, file.size, 0).map_err(|error| super::text::read_error(&file.path, error))?;
    let reader = BufReader::new(reader);
    let failed = |error| arrow_error(&file.path, error);
    Ok(match is_file {
        true => Batches::File(Box::new(FileReader::try_new(reader, projection).map_err(failed)?)),
        false => Batches::Stream(Box::new(StreamReader::try_new(reader, projection).map_err(failed)?)),
    })
}

/// The columns of a file.
pub(crate) fn schema(storage: &Storage, file: &FoundFile) -> Result<SchemaRef> {
    let layout = layout(storage, file)?;
    Ok(match open(storage, file, layout.is_file, None)? {
        Batches::File(reader) => reader.schema(),
        Batches::Stream(reader) => reader.schema(),
    })
}

/// Reads a slice and hands out its batches.
pub(crate) fn read(shared: &Shared, slice: &FileSlice, request: &ReadRequest, emit: &mut Emit<'_>) -> Result<()> {
    let storage = &shared.config.location.storage;
    let file = slice.file();
    let layout = layout(storage, &file)?;
    let stored = match open(storage, &file, layout.is_file, None)? {
        Batches::File(reader) => reader.schema(),
        Batches::Stream(reader) => reader.schema(),
    };
    let columnar = ColumnarFile::new(shared, slice, request, &Schema::new(stored.fields().clone()))?;
    let wanted = slice.start_row..slice.end_row.unwrap_or(u64::MAX);
    let mut row = 0;
    let deliver = |batch: &RecordBatch, row: u64, emit: &mut Emit<'_>| -> Result<bool> {
        columnar.convert_parts(batch, row, wanted.clone(), request.batch_size, emit)
    };
    // Columns come in the order of the projection, which is that of the declared columns.
    match open(storage, &file, layout.is_file, Some(columnar.stored.clone()))? {
        Batches::File(mut reader) => {
            for (index, group) in layout.groups.iter().enumerate() {
                if row < wanted.end && row + group.rows > wanted.start {
                    reader.set_index(index).map_err(|error| arrow_error(&file.path, error))?;
                    let batch = reader.next().transpose().map_err(|error| arrow_error(&file.path, error))?;
                    let batch = batch.ok_or_else(|| damaged(&file.path, "a record batch is missing"))?;
                    if !deliver(&batch, row, emit)? {
                        return Ok(());
                    }
                }
                row += group.rows;
            }
        }
        Batches::Stream(reader) => {
            for batch in *reader {
                let batch = batch.map_err(|error| arrow_error(&file.path, error))?;
                if !deliver(&batch, row, emit)? {
                    return Ok(());
                }
                row += batch.num_rows() as u64;
            }
        }
    }
    Ok(())
}
