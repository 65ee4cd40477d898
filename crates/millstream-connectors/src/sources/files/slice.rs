//! A part of a file that one epoch takes; what a logged range says about it.

use super::storage::FoundFile;
use crate::error::{ConnectorError, Result};
use millstream_types::{Offset, OffsetRange, PartitionRange};
use serde::{Deserialize, Serialize};

/// A file, or a part of it, in one epoch. All that is needed to read the same rows again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileSlice {
    /// First part of the offsets of its rows.
    pub sequence: u64,
    /// The file.
    pub path: String,
    /// Its size when it was planned.
    pub size: u64,
    /// Its modification time then, microseconds since 1970.
    pub modified: i64,
    /// Its etag then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// Checksum of the first `checked` bytes.
    pub check: u32,
    /// See `check`.
    pub checked: u64,
    /// First row, counted within the sequence.
    pub start_row: u64,
    /// Row after the last; `None` up to the end of the file or of `byte_end`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_row: Option<u64>,
    /// Rows of the file before the first row of the sequence (files that grew).
    #[serde(default)]
    pub row_base: u64,
    /// Text: where the first row starts, in decompressed bytes.
    #[serde(default)]
    pub byte_start: u64,
    /// Text: where the last row ends; `None` at the end of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub byte_end: Option<u64>,
    /// Text: line number of the first row, from 1.
    #[serde(default)]
    pub line: u64,
    /// Text: line number after the last row, where it was counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_line: Option<u64>,
    /// Nothing of the file, as it is now, comes after this part.
    pub last: bool,
}

impl FileSlice {
    /// All rows of a file whose layout is not looked at, before it has a sequence.
    pub(crate) fn whole(file: &FoundFile) -> Self {
        Self {
            sequence: 0,
            path: file.path.clone(),
            size: file.size,
            modified: file.modified,
            etag: file.etag.clone(),
            check: 0,
            checked: 0,
            start_row: 0,
            end_row: None,
            row_base: 0,
            byte_start: 0,
            byte_end: None,
            line: 0,
            next_line: None,
            last: true,
        }
    }

    /// The version of the file that was planned.
    pub(crate) fn file(&self) -> FoundFile {
        FoundFile { path: self.path.clone(), size: self.size, modified: self.modified, etag: self.etag.clone() }
    }

    /// Whether `now` still is the version that was planned.
    pub(crate) fn same_version(&self, now: &FoundFile) -> bool {
        self.size == now.size && self.modified == now.modified && self.etag == now.etag
    }

    /// The offset after it.
    pub(crate) fn end(&self) -> Offset {
        match (self.last, self.end_row) {
            (false, Some(row)) => Offset { sequence: self.sequence, row },
            _ => Offset { sequence: self.sequence + 1, row: 0 },
        }
    }

    /// Rows, where they were counted.
    pub(crate) fn rows(&self) -> Option<u64> {
        self.end_row.map(|end| end - self.start_row)
    }
}

/// What is noted once, in the first range of a stream, so that a second start before the first checkpoint decides the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FirstStart {
    /// `bounded`: all files there were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed: Option<Vec<FixedFile>>,
    /// `start_from = 'latest'`: the files to leave out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<Vec<FixedFile>>,
}

/// A file that was there at the first start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FixedFile {
    pub path: String,
    pub size: u64,
    pub modified: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
}

impl From<&FoundFile> for FixedFile {
    fn from(file: &FoundFile) -> Self {
        Self { path: file.path.clone(), size: file.size, modified: file.modified, etag: file.etag.clone() }
    }
}

impl From<&FixedFile> for FoundFile {
    fn from(file: &FixedFile) -> Self {
        Self { path: file.path.clone(), size: file.size, modified: file.modified, etag: file.etag.clone() }
    }
}

/// [`PartitionRange::detail`] of this source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RangeDetail {
    /// The files of the range, in order.
    pub files: Vec<FileSlice>,
    /// Only in the first range of a stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_start: Option<FirstStart>,
}

impl RangeDetail {
    /// The detail of a logged range.
    pub(crate) fn of(range: &PartitionRange) -> Result<Self> {
        serde_json::from_value(range.detail.clone()).map_err(|error| ConnectorError::Corrupt {
            place: format!("the logged range {} to {} of a files source", range.range.start, range.range.end),
            problem: format!("does not say which files it holds: {error}"),
        })
    }

    /// The range; `None` without files.
    pub(crate) fn into_range(self) -> Result<Option<PartitionRange>> {
        let (Some(first), Some(last)) = (self.files.first(), self.files.last()) else { return Ok(None) };
        let range = OffsetRange { start: Offset { sequence: first.sequence, row: first.start_row }, end: last.end() };
        let detail = serde_json::to_value(&self).map_err(|error| ConnectorError::internal("describing the files of an epoch", error))?;
        Ok(Some(PartitionRange { partition: String::new(), range, detail }))
    }
}
