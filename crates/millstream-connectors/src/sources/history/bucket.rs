//! A bucket of the spool: neighbouring event times, sorted when it is read.

use crate::error::{ConnectorError, Result};
use crate::source::{BadRow, SourceBatch};
use arrow::array::{AsArray, Int64Array, RecordBatch, UInt64Array};
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, UInt64Type};
use arrow::ipc::reader::StreamReader;
use millstream_types::Offset;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A row that could not be decoded, with the event time of the row before it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct TimedBadRow {
    pub time: i64,
    pub arrival: u64,
    #[serde(flatten)]
    pub row: BadRow,
}

/// Where the rows and the bad rows of bucket `index` lie.
pub(super) fn paths(directory: &Path, index: usize) -> (PathBuf, PathBuf) {
    (directory.join(format!("{index:05}.arrows")), directory.join(format!("{index:05}.bad")))
}

/// The columns of a spool file: those of the stream, then event time and place in the order of arrival.
pub(super) fn spool_schema(columns: &SchemaRef) -> SchemaRef {
    let mut fields: Vec<_> = columns.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("__time", DataType::Int64, false)));
    fields.push(Arc::new(Field::new("__arrival", DataType::UInt64, false)));
    Arc::new(Schema::new(fields))
}

/// A batch with its event times and places.
pub(super) fn spooled(batch: &RecordBatch, schema: &SchemaRef, times: Vec<i64>, arrivals: Vec<u64>) -> Result<RecordBatch> {
    let mut columns = batch.columns().to_vec();
    columns.push(Arc::new(Int64Array::from(times)));
    columns.push(Arc::new(UInt64Array::from(arrivals)));
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(internal)
}

pub(super) fn internal(error: arrow::error::ArrowError) -> ConnectorError {
    ConnectorError::internal("sorting history", error)
}

/// The rows of a bucket in the order of event time. Positions count good and bad rows together.
#[derive(Debug)]
pub(super) struct Bucket {
    rows: RecordBatch,
    times: Vec<i64>,
    /// Position of each good row; empty without bad rows, where it is the row's index.
    positions: Vec<u64>,
    bad: Vec<(u64, TimedBadRow)>,
}

impl Bucket {
    /// Reads and sorts bucket `index`.
    ///
    /// # Errors
    /// When it cannot be read, or does not hold what was written.
    pub(super) fn load(directory: &Path, index: usize, columns: &SchemaRef) -> Result<Self> {
        let (rows_path, bad_path) = paths(directory, index);
        let damaged = |path: &Path, problem: String| ConnectorError::Corrupt {
            place: format!("\"{}\"", path.display()),
            problem: format!("is no sorted history any more: {problem}"),
        };
        let schema = spool_schema(columns);
        let mut batches = Vec::new();
        if rows_path.exists() {
            let file = File::open(&rows_path).map_err(|error| unavailable("reading", &rows_path, error))?;
            let reader = StreamReader::try_new_buffered(file, None).map_err(|error| damaged(&rows_path, error.to_string()))?;
            for batch in reader {
                batches.push(batch.map_err(|error| damaged(&rows_path, error.to_string()))?);
            }
        }
        let all = concat_batches(&schema, &batches).map_err(|error| damaged(&rows_path, error.to_string()))?;
        let (time_at, arrival_at) = (all.num_columns() - 2, all.num_columns() - 1);
        let keys = [time_at, arrival_at].map(|at| SortColumn { values: Arc::clone(all.column(at)), options: None });
        let order = lexsort_to_indices(&keys, None).map_err(internal)?;
        let sorted = take_record_batch(&all, &order).map_err(internal)?;
        let times: Vec<i64> = sorted.column(time_at).as_primitive::<Int64Type>().values().to_vec();
        let arrivals = sorted.column(arrival_at).as_primitive::<UInt64Type>().values().to_vec();
        let mut bad_rows: Vec<TimedBadRow> = Vec::new();
        if bad_path.exists() {
            let file = File::open(&bad_path).map_err(|error| unavailable("reading", &bad_path, error))?;
            for line in BufReader::new(file).lines() {
                let line = line.map_err(|error| unavailable("reading", &bad_path, error))?;
                bad_rows.push(serde_json::from_str(&line).map_err(|error| damaged(&bad_path, error.to_string()))?);
            }
        }
        bad_rows.sort_by_key(|bad| (bad.time, bad.arrival));
        let mut positions = Vec::new();
        let mut bad = Vec::with_capacity(bad_rows.len());
        if !bad_rows.is_empty() {
            let mut next = 0;
            let mut waiting = bad_rows.into_iter().peekable();
            for key in times.iter().zip(&arrivals) {
                while let Some(before) = waiting.next_if(|bad| (&bad.time, &bad.arrival) < key) {
                    bad.push((next, before));
                    next += 1;
                }
                positions.push(next);
                next += 1;
            }
            for rest in waiting {
                bad.push((next, rest));
                next += 1;
            }
        }
        let kept: Vec<usize> = (0..time_at).collect();
        Ok(Self { rows: sorted.project(&kept).map_err(internal)?, times, positions, bad })
    }

    /// Good and bad rows.
    pub(super) fn len(&self) -> u64 {
        (self.times.len() + self.bad.len()) as u64
    }

    /// The event time at a position.
    pub(super) fn time_at(&self, position: u64) -> Option<i64> {
        match self.good_index(position) {
            Ok(index) => self.times.get(index).copied(),
            Err(_) => self.bad.iter().find(|(at, _)| *at == position).map(|(_, bad)| bad.time),
        }
    }

    /// The first position at or after `until`.
    pub(super) fn position_of(&self, until: i64) -> u64 {
        let good = self.times.partition_point(|time| *time < until) as u64;
        let bad = self.bad.partition_point(|(_, bad)| bad.time < until) as u64;
        good + bad
    }

    /// Index of the good row at a position, or of the first one after it.
    fn good_index(&self, position: u64) -> Result<usize, usize> {
        if self.positions.is_empty() {
            return Ok(usize::try_from(position).unwrap_or(usize::MAX));
        }
        self.positions.binary_search(&position)
    }

    /// The rows at some positions; `first` is the position of the bucket's first row in the whole history.
    pub(super) fn read(&self, range: Range<u64>, first: u64, batch_rows: usize) -> Vec<SourceBatch> {
        let index = |position| self.good_index(position).unwrap_or_else(|next| next).min(self.times.len());
        let (from, to) = (index(range.start), index(range.end));
        let bad = self.bad.iter().filter(|(at, _)| range.contains(at));
        let mut bad: Vec<_> = bad.map(|(at, bad)| BadRow { offset: Offset::row(first + at), ..bad.row.clone() }).collect();
        let mut batches = Vec::new();
        let mut at = from;
        while at < to || !bad.is_empty() {
            let count = (to - at).min(batch_rows.max(1));
            let batch = self.rows.slice(at, count);
            let bytes = batch.get_array_memory_size() as u64 * count as u64 / self.times.len().max(1) as u64;
            let rows = match self.positions.get(at..at + count) {
                Some(positions) if !self.positions.is_empty() => positions.iter().map(|position| first + position).collect(),
                _ => (at..at + count).map(|row| first + row as u64).collect(),
            };
            batches.push(SourceBatch {
                batch,
                sequence: 0,
                rows: Some(rows),
                first_row: first + range.start,
                bad: std::mem::take(&mut bad),
                places: None,
                bytes,
                event_times: None,
            });
            at += count;
        }
        batches
    }
}

pub(super) fn unavailable(action: &'static str, path: &Path, error: std::io::Error) -> ConnectorError {
    ConnectorError::unavailable(action, format!("\"{}\"", path.display()), error)
}
