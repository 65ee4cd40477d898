//! Rolling: when rows become files, which rows go into which file, and writing one.

use super::buffer::OpenFile;
use super::config::Config;
use super::draft::Beginning;
use super::format::{Encoding, Keep};
use super::layout::Layout;
use super::naming::{self, NameParts};
use super::part::{Blob, Encoder, Output, Part, PartData, event_time_range};
use super::{arrow_error, hit};
use crate::error::Result;
use crate::sink::{CommittedFile, SinkEpoch};
use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{SortColumn, SortOptions, concat_batches, lexsort_to_indices, take_record_batch};
use millstream_types::Epoch;
use std::path::Path;
use std::sync::Arc;

/// Why a file is rolled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    End,
    Interval,
    Partitions,
    Rows,
    Size,
}

impl Cause {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Cause::End => "end",
            Cause::Interval => "interval",
            Cause::Partitions => "partitions",
            Cause::Rows => "rows",
            Cause::Size => "size",
        }
    }
}

/// Decides whether a file is rolled in this epoch.
pub(crate) fn cause(file: &OpenFile, epoch: SinkEpoch, config: &Config) -> Option<Cause> {
    if file.rows == 0 {
        None
    } else if epoch.roll {
        Some(Cause::End)
    } else if epoch.clock >= file.opened.plus(config.roll_interval) {
        Some(Cause::Interval)
    } else if config.roll_rows.is_some_and(|rows| file.rows >= rows) {
        Some(Cause::Rows)
    } else if file.size() >= config.roll_size {
        Some(Cause::Size)
    } else {
        None
    }
}

/// A file to be written.
#[derive(Debug)]
pub(crate) struct FileJob {
    /// Relative to the sink's directory.
    pub(crate) name: String,
    pub(crate) temporary: String,
    first_epoch: Epoch,
    last_epoch: Epoch,
    pub(crate) parts: Vec<Arc<PartData>>,
    tail: Vec<RecordBatch>,
    /// What was written of it ahead, under the temporary name.
    pub(crate) beginning: Option<Beginning>,
}

/// Divides the rows of a partition into files of at most `roll_size` bytes and `roll_rows` rows, as far as parts allow.
pub(crate) async fn jobs(
    layout: &Layout,
    config: &Config,
    directory: &str,
    file: &OpenFile,
    clock: millstream_types::EventTime,
) -> Result<Vec<FileJob>> {
    let (first_epoch, last_epoch) = (file.first_epoch, file.last_epoch);
    let new_job = |part: usize| {
        let parts = NameParts { sink: &layout.sink, pipeline: &layout.pipeline, first_epoch, last_epoch, clock, part };
        let name = layout.names.name(parts);
        let temporary = naming::temporary(&name, &layout.sink, &layout.pipeline, layout.writer);
        FileJob {
            name: join(directory, &name),
            temporary: join(directory, &temporary),
            first_epoch,
            last_epoch,
            parts: Vec::new(),
            tail: Vec::new(),
            beginning: None,
        }
    };
    let limit_rows = config.roll_rows.unwrap_or(u64::MAX);
    let mut jobs = vec![new_job(0)];
    let (mut bytes, mut rows) = (0, 0);
    for part in &file.parts {
        let data = Part::data(part).await?;
        if rows > 0 && (bytes + data.size() > config.roll_size || rows + data.rows > limit_rows) {
            jobs.push(new_job(jobs.len()));
            (bytes, rows) = (0, 0);
        }
        bytes += data.size();
        rows += data.rows;
        if let Some(job) = jobs.last_mut() {
            job.parts.push(data);
        }
    }
    if rows > 0 && file.tail_rows > 0 && rows + file.tail_rows as u64 > limit_rows {
        jobs.push(new_job(jobs.len()));
    }
    if let Some(job) = jobs.last_mut() {
        job.tail.clone_from(&file.tail);
    }
    Ok(jobs)
}

pub(crate) fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_string() } else { format!("{directory}/{name}") }
}

/// Writes a file under its temporary name, on a thread where blocking is allowed.
pub(crate) fn write(mut job: FileJob, root: &Path, encoder: &Encoder, sync: bool) -> Result<CommittedFile> {
    let layout = &encoder.layout;
    let encoding = encoder.encoding.as_ref();
    let facts = [
        ("pipeline", layout.pipeline.clone()),
        ("sink", layout.sink.clone()),
        ("first_epoch", job.first_epoch.to_string()),
        ("last_epoch", job.last_epoch.to_string()),
    ];
    let path = root.join(&job.temporary);
    let out = if let Some(Beginning { mut joiner, parts }) = job.beginning.take() {
        blobs(&job, parts, encoding)?.iter().try_for_each(|blob| joiner.append(blob))?;
        joiner.finish(&facts)?
    } else if encoding.keep() == Keep::Rows {
        let mut out = Output::create(&path)?;
        let mut rows = Vec::new();
        for part in &job.parts {
            rows.extend(part.decode(encoding)?);
        }
        rows.extend(job.tail.iter().cloned());
        let rows = if layout.order.is_empty() { rows } else { sorted(layout, &rows)? };
        encoding.write_rows(&rows, layout.part_rows, &facts, &mut out)?;
        out
    } else {
        let mut out = Output::create(&path)?;
        encoding.join(&blobs(&job, 0, encoding)?, &facts, &mut out)?;
        out
    };
    let (bytes, crc32) = out.finish(sync)?;
    hit("sink.file.after_write")?;
    let ranges = job.parts.iter().filter_map(|part| part.event_time).chain(event_time_range(layout, &job.tail)?);
    Ok(CommittedFile {
        name: job.name,
        temporary: job.temporary,
        rows: job.parts.iter().map(|part| part.rows).sum::<u64>() + job.tail.iter().map(|batch| batch.num_rows() as u64).sum::<u64>(),
        bytes,
        crc32,
        first_epoch: job.first_epoch,
        last_epoch: job.last_epoch,
        event_time: ranges.reduce(|all, one| (all.0.min(one.0), all.1.max(one.1))),
    })
}

/// The encoded parts of a file from one on, and its tail.
fn blobs(job: &FileJob, from: usize, encoding: &dyn Encoding) -> Result<Vec<Blob>> {
    let mut blobs: Vec<Blob> = job.parts[from..].iter().filter_map(|part| part.encoded.clone()).collect();
    if !job.tail.is_empty() {
        blobs.push(Blob::Memory(encoding.encode(&job.tail)?.into()));
    }
    Ok(blobs)
}

/// The rows in the order of ORDER BY; equal ones in the order of arrival. NULLs come last, first when descending, as in PostgreSQL.
fn sorted(layout: &Layout, rows: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
    let failed = || arrow_error("ordering the rows of a file failed");
    let all = concat_batches(&layout.file, rows).map_err(failed())?;
    let mut columns: Vec<SortColumn> = layout
        .order
        .iter()
        .map(|(column, descending)| SortColumn {
            values: Arc::clone(all.column(*column)),
            options: Some(SortOptions { descending: *descending, nulls_first: *descending }),
        })
        .collect();
    let arrival: ArrayRef = Arc::new(UInt32Array::from_iter_values(0..all.num_rows() as u32));
    columns.push(SortColumn { values: arrival, options: None });
    let indices = lexsort_to_indices(&columns, None).map_err(failed())?;
    Ok(vec![take_record_batch(&all, &indices).map_err(failed())?])
}
