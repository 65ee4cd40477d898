//! Looks at a file just before it is planned: is it whole, is it what the listing saw, and how much of it fits into the epoch?

use super::config::{FilesConfig, OnChange};
use super::parquet::NotParquet;
use super::reader::Shared;
use super::slice::FileSlice;
use super::storage::{FoundFile, quoted};
use super::taken::TakenFile;
use super::text::{Span, read_error, scan};
use super::{arrow, avro, parquet};
use crate::error::{ConnectorError, Result};
use crate::formats::Format;
use serde::{Deserialize, Serialize};
use std::io::{Read, SeekFrom};

/// A part of a file that is read as a whole: a row group, a record batch, a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group {
    pub rows: u64,
    pub bytes: u64,
}

/// Where the next part of a file starts that is taken in parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resume {
    pub path: String,
    pub size: u64,
    pub modified: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    pub check: u32,
    pub checked: u64,
    pub sequence: u64,
    pub row: u64,
    pub row_base: u64,
    pub offset: u64,
    pub line: u64,
}

/// What is asked about a file.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    /// The file as listed.
    pub file: FoundFile,
    /// It goes on where an earlier epoch stopped.
    pub resume: Option<Resume>,
    /// It was taken and has grown.
    pub grown: Option<TakenFile>,
    /// It was there when the stream started.
    pub at_start: bool,
    /// It stood still between two listings.
    pub stable: bool,
    /// Nothing more is to be expected: draining, bounded.
    pub settled_by_decree: bool,
}

/// What the epoch has left.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    pub rows: u64,
    pub bytes: u64,
    /// Whole files only, unless rows are limited.
    pub whole_files: bool,
    /// Nothing was taken yet, so something must be.
    pub first: bool,
}

/// The answer.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The file is gone.
    Missing,
    /// It is not complete yet.
    Wait,
    /// It does not fit beside what was taken already.
    NextEpoch,
    /// Take this; the encoded bytes count against the budget.
    Take(Box<FileSlice>, u64),
}

/// Decides about one file.
pub(crate) fn inspect(shared: &Shared, candidate: &Candidate, budget: Budget) -> Result<Outcome> {
    let config = &shared.config;
    let path = &candidate.file.path;
    let Some(now) = config.location.storage.stat(path)? else { return Ok(Outcome::Missing) };
    if let Some(resume) = &candidate.resume {
        check_resumed(config, resume, &now)?;
    }
    let started = candidate.resume.is_some() || candidate.grown.is_some();
    let growing = config.can_grow(path) && config.on_change(path) == OnChange::Append;
    let changed = !now.same_version(&candidate.file);
    if changed && !started && !candidate.settled_by_decree && !candidate.stable && !candidate.at_start {
        return Ok(Outcome::Wait);
    }
    if config.format.format.is_text() {
        return inspect_text(shared, candidate, &now, growing, budget);
    }
    let groups = match groups(shared, &now) {
        Ok(groups) => groups,
        Err(NotParquet::Incomplete(_)) if !candidate.settled_by_decree && (changed || !candidate.stable) => return Ok(Outcome::Wait),
        Err(NotParquet::Incomplete(problem)) => {
            let hint = "Remove the file, or write it under a name that ends in .tmp and rename it when it is complete.";
            return Err(ConnectorError::Data { place: quoted(path), problem: problem.into(), hint: Some(hint.into()) });
        }
        Err(NotParquet::Failed(error)) => return Err(error),
    };
    inspect_groups(config, candidate, &now, &groups, budget)
}

/// A file that is read in parts must not change under way, except by growing where that is allowed.
fn check_resumed(config: &FilesConfig, resume: &Resume, now: &FoundFile) -> Result<()> {
    let same = resume.size == now.size && resume.modified == now.modified && resume.etag == now.etag;
    if same || resume.check != 0 && now.size >= resume.checked && resume.etag.is_none() {
        let grows = config.can_grow(&resume.path) && config.on_change(&resume.path) == OnChange::Append;
        let allowed = same || now.size == resume.size || grows;
        let unchanged = same || config.location.storage.checksum(&now.path, resume.checked).is_ok_and(|check| check == resume.check);
        if allowed && unchanged {
            return Ok(());
        }
    }
    Err(ConnectorError::Corrupt {
        place: quoted(&resume.path),
        problem: format!("changed while it was being read: it had {} bytes and has {}", resume.size, now.size),
    })
}

/// The parts of a Parquet, Arrow or Avro file.
fn groups(shared: &Shared, file: &FoundFile) -> Result<Vec<Group>, NotParquet> {
    let storage = &shared.config.location.storage;
    match shared.config.format.format {
        Format::Parquet => {
            let metadata = match shared.footer(file) {
                Some(metadata) => metadata,
                None => parquet::load(storage, file)?,
            };
            let groups = parquet::groups(&metadata);
            shared.keep_footer(file, metadata);
            Ok(groups)
        }
        _ if file.size == 0 => Err(NotParquet::Incomplete("is empty")),
        Format::Avro => avro::layout(storage, file).map(|layout| layout.groups).map_err(NotParquet::Failed),
        _ => arrow::layout(storage, file).map(|layout| layout.groups).map_err(NotParquet::Failed),
    }
}

fn slice_of(candidate: &Candidate, now: &FoundFile) -> FileSlice {
    let whole = FileSlice { line: 1, ..FileSlice::whole(now) };
    match &candidate.resume {
        None => whole,
        Some(resume) => FileSlice {
            sequence: resume.sequence,
            start_row: resume.row,
            row_base: resume.row_base,
            byte_start: resume.offset,
            line: resume.line,
            ..whole
        },
    }
}

fn seal(config: &FilesConfig, slice: &mut FileSlice, checked: u64) -> Result<()> {
    let storage = &config.location.storage;
    if storage.is_local() {
        slice.checked = checked;
        slice.check = storage.checksum(&slice.path, checked).map_err(|error| read_error(&slice.path, error))?;
    }
    Ok(())
}

fn inspect_groups(config: &FilesConfig, candidate: &Candidate, now: &FoundFile, groups: &[Group], budget: Budget) -> Result<Outcome> {
    let total: u64 = groups.iter().map(|group| group.rows).sum();
    let mut slice = slice_of(candidate, now);
    slice.line = 0;
    let start = slice.start_row;
    let mut taken = 0_u64;
    let mut bytes = 0_u64;
    let mut row = 0;
    for group in groups {
        let group_end = row + group.rows;
        if group_end > start {
            let from = row.max(start);
            let cost = group.bytes.saturating_mul(group_end - from) / group.rows.max(1);
            let over_bytes = !budget.whole_files && bytes.saturating_add(cost) > budget.bytes;
            let over_rows = taken + (group_end - from) > budget.rows;
            if over_rows || over_bytes && taken > 0 {
                if taken == 0 {
                    // One row group is more than the epoch may have: cut it, which costs decoding its beginning again.
                    taken = budget.rows.max(1).min(group_end - from);
                    bytes = bytes.saturating_add(cost);
                }
                break;
            }
            taken += group_end - from;
            bytes = bytes.saturating_add(cost);
        }
        row = group_end;
    }
    let end = start + taken;
    let whole = end >= total;
    if !budget.first && (!whole || !budget.whole_files && bytes > budget.bytes) {
        return Ok(Outcome::NextEpoch);
    }
    slice.end_row = Some(end);
    slice.last = whole;
    seal(config, &mut slice, now.size)?;
    Ok(Outcome::Take(Box::new(slice), bytes))
}

fn inspect_text(shared: &Shared, candidate: &Candidate, now: &FoundFile, growing: bool, budget: Budget) -> Result<Outcome> {
    let config = &shared.config;
    let mut slice = slice_of(candidate, now);
    let compressed = config.compression(&now.path).is_some();
    // While draining only what the listing saw counts; otherwise everything there is.
    let size = if candidate.settled_by_decree && growing { now.size.min(candidate.file.size) } else { now.size };
    if let Some(known) = &candidate.grown {
        slice.byte_start = known.offset;
        let prefix = Span { start: 0, line: 1, end: Some(known.offset), max_rows: u64::MAX, max_bytes: u64::MAX, take_tail: true };
        let before = scan(shared, &now.path, now.size, prefix)?;
        slice.row_base = before.rows;
        slice.line = before.line;
    }
    if !compressed && slice.byte_start >= size && candidate.grown.is_some() {
        return Ok(Outcome::Wait);
    }
    if candidate.grown.is_some() && slice.byte_start > 0 && continues_line(config, now, slice.byte_start)? {
        return Err(ConnectorError::Data {
            place: quoted(&now.path),
            problem: format!("goes on inside its last line (byte {}), which was already taken as a row", slice.byte_start),
            hint: Some("End every line with a line end before the file is read, or set on_change = 'reread'.".into()),
        });
    }
    let remaining = if compressed { size } else { size.saturating_sub(slice.byte_start) };
    // An unterminated last line may still be in the writing.
    let tail_may_grow = !compressed && growing && (size < now.size || !(candidate.settled_by_decree || candidate.stable));
    let hold_tail = tail_may_grow && remaining > 0 && !ends_with_newline(config, now, size)?;
    let over_bytes = !budget.whole_files && remaining > budget.bytes;
    if over_bytes && !budget.first {
        return Ok(Outcome::NextEpoch);
    }
    if over_bytes || hold_tail || budget.rows != u64::MAX || candidate.grown.is_some() || candidate.resume.is_some() {
        let span = Span {
            start: slice.byte_start,
            line: slice.line,
            end: (!compressed).then_some(size),
            max_rows: budget.rows.max(1),
            max_bytes: if budget.whole_files { u64::MAX } else { budget.bytes.max(1) },
            take_tail: !hold_tail,
        };
        let scanned = scan(shared, &now.path, now.size, span)?;
        if scanned.rows == 0 && hold_tail {
            return Ok(Outcome::Wait);
        }
        let at_end = scanned.at_end || hold_tail && scanned.end < size && is_tail(config, now, scanned.end, size)?;
        if !at_end && !budget.first {
            return Ok(Outcome::NextEpoch);
        }
        slice.end_row = Some(slice.start_row + scanned.rows);
        slice.byte_end = Some(scanned.end);
        slice.next_line = Some(scanned.line);
        slice.last = at_end;
    } else if !compressed {
        slice.byte_end = Some(size);
        slice.end_row = (size == 0).then_some(slice.start_row);
    }
    let checked = if compressed { now.size } else { slice.byte_end.unwrap_or(size) };
    seal(config, &mut slice, checked)?;
    let cost = if compressed { remaining } else { slice.byte_end.unwrap_or(size) - slice.byte_start };
    Ok(Outcome::Take(Box::new(slice), cost))
}

/// Whether the bytes after `at` belong to a line that begins before it.
fn continues_line(config: &FilesConfig, file: &FoundFile, at: u64) -> Result<bool> {
    let failed = |error| read_error(&file.path, error);
    let mut reader = config.location.storage.open(&file.path, file.size, at - 1).map_err(failed)?;
    let mut around = [0; 2];
    reader.read_exact(&mut around).map_err(failed)?;
    Ok(around[0] != b'\n' && !matches!(around[1], b'\n' | b'\r'))
}

fn ends_with_newline(config: &FilesConfig, file: &FoundFile, size: u64) -> Result<bool> {
    let failed = |error| read_error(&file.path, error);
    let mut reader = config.location.storage.open(&file.path, file.size, size - 1).map_err(failed)?;
    let mut last = [0];
    reader.read_exact(&mut last).map_err(failed)?;
    Ok(last[0] == b'\n')
}

/// Whether only an unterminated line follows.
fn is_tail(config: &FilesConfig, file: &FoundFile, from: u64, size: u64) -> Result<bool> {
    let failed = |error| read_error(&file.path, error);
    let mut reader = config.location.storage.open(&file.path, file.size, 0).map_err(failed)?;
    reader.seek(SeekFrom::Start(from)).map_err(failed)?;
    let mut left = size - from;
    let mut buffer = vec![0; 64 << 10];
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        reader.read_exact(&mut buffer[..wanted]).map_err(failed)?;
        if memchr::memchr(b'\n', &buffer[..wanted]).is_some() {
            return Ok(false);
        }
        left -= wanted as u64;
    }
    Ok(true)
}
