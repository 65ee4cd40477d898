//! File formats, and what a format must be able to do: encode parts, and join them into a file without encoding them again.

use super::config::{Compression, Config};
use super::layout::Layout;
use super::part::{Blob, Output};
use super::{arrow_ipc, csv, json, parquet, text};
use crate::error::{ConnectorError, Result};
use arrow::array::RecordBatch;
use std::fmt::Debug;
use std::io::Write;
use std::sync::Arc;

/// The format of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// Apache Parquet.
    Parquet,
    /// Separated values.
    Csv,
    /// One JSON object per line.
    Json,
    /// Arrow IPC files.
    Arrow,
    /// One text column, a line per row.
    Text,
}

impl FileFormat {
    /// All of them with their names.
    pub(crate) const CHOICES: &[(&'static str, FileFormat)] = &[
        ("arrow", FileFormat::Arrow),
        ("csv", FileFormat::Csv),
        ("json", FileFormat::Json),
        ("parquet", FileFormat::Parquet),
        ("text", FileFormat::Text),
    ];

    /// Its name in `format = '...'`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            FileFormat::Parquet => "parquet",
            FileFormat::Csv => "csv",
            FileFormat::Json => "json",
            FileFormat::Arrow => "arrow",
            FileFormat::Text => "text",
        }
    }

    /// What file names end in.
    pub(crate) fn extension(self, compression: Compression) -> String {
        let plain = match self {
            FileFormat::Parquet => return "parquet".into(),
            FileFormat::Arrow => return "arrow".into(),
            FileFormat::Csv => "csv",
            FileFormat::Json => "json",
            FileFormat::Text => "txt",
        };
        match compression {
            Compression::Gzip(_) => format!("{plain}.gz"),
            Compression::Zstd(_) => format!("{plain}.zst"),
            _ => plain.into(),
        }
    }

    /// The encoder of a sink's files.
    ///
    /// # Errors
    /// `Invalid` when the format cannot hold a column.
    pub(crate) fn encoding(self, config: &Config, layout: &Layout) -> Result<Arc<dyn Encoding>> {
        Ok(match self {
            FileFormat::Parquet => Arc::new(parquet::ParquetEncoding::new(config, layout)?),
            FileFormat::Csv => Arc::new(csv::CsvEncoding::new(config, layout)?),
            FileFormat::Json => Arc::new(json::JsonEncoding::new(config, layout)?),
            FileFormat::Arrow => Arc::new(arrow_ipc::ArrowEncoding::new(config, layout)),
            FileFormat::Text => Arc::new(text::TextEncoding::new(config, layout)?),
        })
    }
}

/// What a part keeps until its file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// The encoded rows, which can be decoded for SELECT on the sink.
    Encoded,
    /// The encoded rows, and the rows beside them: the format does not give back the same values.
    EncodedAndRows,
    /// The rows only: the file is encoded in one go.
    Rows,
}

/// Facts that go into a file, where the format has a place for them.
pub(crate) type Facts = [(&'static str, String)];

/// Encodes files of one format. Called on threads where blocking is allowed; the same rows always give the same bytes.
pub(crate) trait Encoding: Debug + Send + Sync {
    /// What a part keeps. Files with an order keep rows.
    fn keep(&self) -> Keep;

    /// Encodes the rows of one part.
    ///
    /// # Errors
    /// When the format cannot hold a value.
    fn encode(&self, rows: &[RecordBatch]) -> Result<Vec<u8>>;

    /// Encodes the rows of one part into `out`, without holding all of its bytes where that can be avoided.
    ///
    /// # Errors
    /// As [`encode`](Self::encode); when `out` refuses.
    fn encode_into(&self, rows: &[RecordBatch], out: &mut (dyn Write + Send)) -> Result<()> {
        let bytes = self.encode(rows)?;
        out.write_all(&bytes).map_err(|error| ConnectorError::unavailable("writing", "a part of a file", error))
    }

    /// Decodes what [`encode`](Self::encode) made; called for [`Keep::Encoded`] only.
    ///
    /// # Errors
    /// When the bytes are damaged.
    fn decode(&self, part: &Blob) -> Result<Vec<RecordBatch>>;

    /// Writes a file of encoded parts, none being a file without rows.
    ///
    /// # Errors
    /// When the disk refuses or a part is damaged.
    fn join(&self, parts: &[Blob], facts: &Facts, out: &mut Output) -> Result<()>;

    /// Whether files are put together part by part, through [`begin`](Self::begin).
    fn joins_parts(&self) -> bool {
        false
    }

    /// Begins a file whose parts come one by one. It ends up with the same bytes as one that [`join`](Self::join) writes.
    ///
    /// # Errors
    /// When the disk refuses; where [`joins_parts`](Self::joins_parts) says no.
    fn begin(&self, out: Output) -> Result<Box<dyn Joiner>> {
        Err(ConnectorError::internal("beginning a file part by part", std::io::Error::other(format!("{} cannot", out.place()))))
    }

    /// Writes a file of rows, cut into parts of `part_rows`.
    ///
    /// # Errors
    /// As `encode` and `join`.
    fn write_rows(&self, rows: &[RecordBatch], part_rows: usize, facts: &Facts, out: &mut Output) -> Result<()> {
        let parts: Vec<Blob> =
            chunks(rows, part_rows).iter().map(|chunk| Ok(Blob::Memory(self.encode(chunk)?.into()))).collect::<Result<_>>()?;
        self.join(&parts, facts, out)
    }
}

/// A file that is put together part by part.
pub(crate) trait Joiner: Send + Sync {
    /// Adds the next part.
    ///
    /// # Errors
    /// When the disk refuses or the part is damaged.
    fn append(&mut self, part: &Blob) -> Result<()>;

    /// Ends the file and gives back what it was written to.
    ///
    /// # Errors
    /// When the disk refuses.
    fn finish(self: Box<Self>, facts: &Facts) -> Result<Output>;
}

/// Cuts batches into groups of exactly `rows` rows; the last one may have fewer.
pub(crate) fn chunks(batches: &[RecordBatch], rows: usize) -> Vec<Vec<RecordBatch>> {
    let mut chunks: Vec<Vec<RecordBatch>> = Vec::new();
    let mut room = 0;
    for batch in batches {
        let mut at = 0;
        while at < batch.num_rows() {
            if room == 0 {
                chunks.push(Vec::new());
                room = rows;
            }
            let take = room.min(batch.num_rows() - at);
            if let Some(chunk) = chunks.last_mut() {
                chunk.push(batch.slice(at, take));
            }
            at += take;
            room -= take;
        }
    }
    chunks
}

/// Compresses lines of text. Compressed parts are complete members, whose concatenation is again a compressed file.
pub(crate) fn compress(lines: Vec<u8>, compression: Compression) -> std::io::Result<Vec<u8>> {
    match compression {
        Compression::Gzip(level) => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
            encoder.write_all(&lines)?;
            encoder.finish()
        }
        Compression::Zstd(level) => zstd::stream::encode_all(lines.as_slice(), level),
        _ => Ok(lines),
    }
}

/// Writes parts one after the other.
pub(crate) fn concatenate(parts: &[Blob], out: &mut Output) -> Result<()> {
    parts.iter().try_for_each(|part| part.copy_to(out))
}
