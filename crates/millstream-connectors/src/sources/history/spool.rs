//! Writing the spool: two passes over the source, then a manifest that says it is complete.

use super::HistoryOptions;
use super::bucket::{TimedBadRow, internal, paths, spool_schema, spooled, unavailable};
use crate::error::{ConnectorError, Result};
use crate::source::{EpochLimits, ReadRequest, Source, SourceBatch};
use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit, TimestampMicrosecondType};
use arrow::ipc::writer::StreamWriter;
use futures::StreamExt;
use millstream_types::{EventTime, PartitionRange};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

/// Rows of a bucket, about.
const BUCKET_ROWS: u64 = 1 << 18;
/// Buckets at most, since all of them are open while the spool is written.
const BUCKETS_MAX: u64 = 256;
/// Event times are counted by the second to find where buckets begin.
const COUNTED_MICROS: i64 = 1_000_000;
const BATCH_ROWS: usize = 65_536;
const MANIFEST: &str = "manifest.json";

/// What a complete spool holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// Rows of each bucket, bad ones counted, in the order of event time.
    pub bucket_rows: Vec<u64>,
    /// Bounds it was written under.
    pub from: Option<EventTime>,
    /// See `from`.
    pub to: Option<EventTime>,
}

/// The manifest of a complete spool.
///
/// # Errors
/// When there is one that cannot be read.
pub(super) fn manifest(directory: &Path) -> Result<Option<Manifest>> {
    let path = directory.join(MANIFEST);
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| ConnectorError::Corrupt {
            place: format!("\"{}\"", path.display()),
            problem: format!("is no manifest of a history: {error}"),
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unavailable("reading", &path, error)),
    }
}

/// Reads everything a source has, twice, and writes it to `directory` in buckets of event time.
///
/// # Errors
/// When the source fails, or the directory cannot be written.
pub(super) async fn write(
    source: &mut dyn Source,
    columns: &SchemaRef,
    time_index: usize,
    directory: &Path,
    options: &HistoryOptions,
) -> Result<Manifest> {
    if directory.exists() {
        // What an interrupted start left behind.
        fs::remove_dir_all(directory).map_err(|error| unavailable("removing", directory, error))?;
    }
    fs::create_dir_all(directory).map_err(|error| unavailable("creating", directory, error))?;
    let ranges = everything(source).await?;
    let starts = bucket_starts(&*source, &ranges, time_index, options).await?;
    let mut writer = Buckets::new(directory, spool_schema(columns), starts);
    let reader = source.reader();
    let mut newest = None;
    let mut arrival = 0_u64;
    for range in &ranges {
        let request = ReadRequest { projection: None, batch_size: BATCH_ROWS, ..ReadRequest::default() };
        let mut batches = reader.read(range.clone(), request).await?;
        while let Some(batch) = batches.next().await {
            writer.add(batch?, time_index, options, &mut newest, &mut arrival)?;
        }
    }
    let manifest = Manifest { bucket_rows: writer.finish()?, from: options.from, to: options.to };
    let path = directory.join(MANIFEST);
    let bytes = serde_json::to_vec(&manifest).map_err(|error| ConnectorError::internal("describing the sorted history", error))?;
    let written = File::create(&path).and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()));
    written.map_err(|error| unavailable("writing", &path, error))?;
    Ok(manifest)
}

/// Every range up to the end as it is now.
async fn everything(source: &mut dyn Source) -> Result<Vec<PartitionRange>> {
    source.mark_end().await?;
    let limits = EpochLimits { max_rows: None, max_bytes: u64::MAX, max_files: u64::MAX, clock: EventTime(0), draining: true, until: None };
    let mut ranges = Vec::new();
    while let Some(more) = source.plan(&limits).await? {
        ranges.extend(more);
    }
    Ok(ranges)
}

/// The first event times of buckets of about equal size.
async fn bucket_starts(source: &dyn Source, ranges: &[PartitionRange], time_index: usize, options: &HistoryOptions) -> Result<Vec<i64>> {
    let mut counts: BTreeMap<i64, u64> = BTreeMap::new();
    let mut total = 0;
    let reader = source.reader();
    for range in ranges {
        let request = ReadRequest { projection: Some(vec![time_index]), batch_size: BATCH_ROWS, ..ReadRequest::default() };
        let mut batches = reader.read(range.clone(), request).await?;
        while let Some(batch) = batches.next().await {
            let batch = batch?.batch;
            for time in event_times(&batch, 0)?.into_iter().flatten().filter(|time| options.holds(*time)) {
                *counts.entry(time.div_euclid(COUNTED_MICROS)).or_default() += 1;
                total += 1;
            }
        }
    }
    let wanted = BUCKET_ROWS.max(total / BUCKETS_MAX);
    let mut starts = vec![i64::MIN];
    let mut rows = 0;
    for (second, count) in counts {
        if rows >= wanted {
            starts.push(second.saturating_mul(COUNTED_MICROS));
            rows = 0;
        }
        rows += count;
    }
    Ok(starts)
}

/// The event times of a batch in microseconds.
fn event_times(batch: &RecordBatch, index: usize) -> Result<Vec<Option<i64>>> {
    let micros = cast(batch.column(index), &DataType::Timestamp(TimeUnit::Microsecond, None)).map_err(internal)?;
    Ok(micros.as_primitive::<TimestampMicrosecondType>().iter().collect())
}

/// The rows of a batch that go to one bucket.
#[derive(Debug, Default)]
struct Part {
    rows: Vec<u32>,
    times: Vec<i64>,
    arrivals: Vec<u64>,
}

/// The buckets while they are written.
struct Buckets<'a> {
    directory: &'a Path,
    schema: SchemaRef,
    starts: Vec<i64>,
    rows: Vec<u64>,
    files: Vec<Option<StreamWriter<BufWriter<File>>>>,
    bad: Vec<Option<BufWriter<File>>>,
}

impl<'a> Buckets<'a> {
    fn new(directory: &'a Path, schema: SchemaRef, starts: Vec<i64>) -> Self {
        let count = starts.len();
        let (files, bad) = ((0..count).map(|_| None).collect(), (0..count).map(|_| None).collect());
        Self { directory, schema, starts, rows: vec![0; count], files, bad }
    }

    fn bucket_of(&self, time: i64) -> usize {
        self.starts.partition_point(|start| *start <= time).saturating_sub(1)
    }

    /// Adds what a source handed out. `newest` is the event time of the last row that had one, `arrival` the number of rows before. A
    /// bad row counts where the row before it does.
    fn add(
        &mut self,
        batch: SourceBatch,
        time_index: usize,
        options: &HistoryOptions,
        newest: &mut Option<i64>,
        arrival: &mut u64,
    ) -> Result<()> {
        // Of what comes before the first event time nothing is known.
        let holds = |newest: Option<i64>| newest.map_or(options.from.is_none(), |time| options.holds(time));
        let times = event_times(&batch.batch, time_index)?;
        let mut bad = batch.bad.into_iter().peekable();
        let mut by_bucket: BTreeMap<usize, Part> = BTreeMap::new();
        for (index, time) in times.into_iter().enumerate() {
            let row = batch.rows.as_ref().map_or(batch.first_row + index as u64, |rows| rows[index]);
            while let Some(before) = bad.next_if(|bad| bad.offset.row < row && bad.offset.sequence == batch.sequence) {
                if holds(*newest) {
                    self.add_bad(newest.unwrap_or(0), *arrival, before)?;
                }
                *arrival += 1;
            }
            // A row without event time is refused at the edge; it stands where it came.
            let time = time.or(*newest);
            *newest = time;
            if holds(time) {
                let time = time.unwrap_or(0);
                let part = by_bucket.entry(self.bucket_of(time)).or_default();
                part.rows.push(index as u32);
                part.times.push(time);
                part.arrivals.push(*arrival);
            }
            *arrival += 1;
        }
        for rest in bad {
            if holds(*newest) {
                self.add_bad(newest.unwrap_or(0), *arrival, rest)?;
            }
            *arrival += 1;
        }
        for (bucket, Part { rows, times, arrivals }) in by_bucket {
            self.rows[bucket] += rows.len() as u64;
            let part = take_record_batch(&batch.batch, &UInt32Array::from(rows)).map_err(internal)?;
            let part = spooled(&part, &self.schema, times, arrivals)?;
            let path = paths(self.directory, bucket).0;
            let writer = match &mut self.files[bucket] {
                Some(writer) => writer,
                empty => {
                    let file = File::create(&path).map_err(|error| unavailable("writing", &path, error))?;
                    empty.insert(StreamWriter::try_new(BufWriter::new(file), &self.schema).map_err(internal)?)
                }
            };
            writer.write(&part).map_err(|error| write_error(&path, error))?;
        }
        Ok(())
    }

    fn add_bad(&mut self, time: i64, arrival: u64, row: crate::source::BadRow) -> Result<()> {
        let bucket = self.bucket_of(time);
        let path = paths(self.directory, bucket).1;
        let failed = |error| unavailable("writing", &path, error);
        let file = match &mut self.bad[bucket] {
            Some(file) => file,
            empty => empty.insert(BufWriter::new(File::create(&path).map_err(failed)?)),
        };
        let line = serde_json::to_string(&TimedBadRow { time, arrival, row })
            .map_err(|error| ConnectorError::internal("keeping a bad row of the history", error))?;
        writeln!(file, "{line}").map_err(failed)?;
        self.rows[bucket] += 1;
        Ok(())
    }

    /// Closes and syncs all files; gives the rows of each bucket.
    fn finish(self) -> Result<Vec<u64>> {
        for (index, writer) in self.files.into_iter().enumerate() {
            let path = paths(self.directory, index).0;
            let Some(writer) = writer else { continue };
            let file = writer.into_inner().map_err(|error| write_error(&path, error))?;
            let synced = file.into_inner().map_err(std::io::IntoInnerError::into_error).and_then(|file| file.sync_all());
            synced.map_err(|error| unavailable("writing", &path, error))?;
        }
        for (index, file) in self.bad.into_iter().enumerate() {
            let path = paths(self.directory, index).1;
            let Some(file) = file else { continue };
            let synced = file.into_inner().map_err(std::io::IntoInnerError::into_error).and_then(|file| file.sync_all());
            synced.map_err(|error| unavailable("writing", &path, error))?;
        }
        Ok(self.rows)
    }
}

fn write_error(path: &Path, error: arrow::error::ArrowError) -> ConnectorError {
    match error {
        arrow::error::ArrowError::IoError(_, error) => unavailable("writing", path, error),
        other => internal(other),
    }
}
