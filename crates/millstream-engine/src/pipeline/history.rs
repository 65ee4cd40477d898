//! The history of a stream in checkpoints: one row per epoch, in segments. A full segment never changes, so that the next checkpoint
//! takes it over without writing it again and a checkpoint costs the same however long the pipeline has run.
//!
//! | column | type | |
//! |---|---|---|
//! | `epoch` | `UInt64` | the epoch |
//! | `clock` | `Int64` | its clock, microseconds since 1970 |
//! | `watermark_start` | `Int64` | the watermark that decided what is late, microseconds since 1970 |
//! | `ranges` | `Utf8` | the ranges of its partitions as JSON |
//! | `columns` | `Utf8` | the columns by which rows were judged, as JSON; NULL for all |

use super::record::HistoryEntry;
use crate::error::{EngineError, Result};
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{Int64Type, UInt64Type};
use millstream_types::{Epoch, EventTime};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Entries of a full segment.
pub(super) const SEGMENT_ENTRIES: usize = 1_024;

/// The name of the segment of a stream's history that begins at entry `index * SEGMENT_ENTRIES`.
pub(super) fn segment_name(stream: &str, index: usize) -> String {
    format!("stream/{stream}/history/{index}")
}

/// The rows of a segment.
///
/// # Errors
/// When a range has no JSON form.
pub(super) fn encode(entries: &[Arc<HistoryEntry>]) -> Result<RecordBatch> {
    let ranges = entries.iter().map(|entry| serde_json::to_string(&entry.ranges).map_err(|error| EngineError::Internal(error.to_string())));
    let ranges = ranges.collect::<Result<Vec<String>>>()?;
    let judged = entries.iter().map(|entry| match &entry.columns {
        Some(columns) => serde_json::to_string(columns.as_ref()).map(Some).map_err(|error| EngineError::Internal(error.to_string())),
        None => Ok(None),
    });
    let judged = judged.collect::<Result<Vec<Option<String>>>>()?;
    let columns: [(&str, ArrayRef); 5] = [
        ("epoch", Arc::new(UInt64Array::from_iter_values(entries.iter().map(|entry| entry.epoch.0)))),
        ("clock", Arc::new(Int64Array::from_iter_values(entries.iter().map(|entry| entry.clock.0)))),
        ("watermark_start", Arc::new(Int64Array::from_iter_values(entries.iter().map(|entry| entry.watermark_start.0)))),
        ("ranges", Arc::new(StringArray::from(ranges))),
        ("columns", Arc::new(StringArray::from(judged))),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}

/// The entries of a segment that [`encode`] made.
///
/// # Errors
/// [`EngineError::Corrupt`] when the columns are others or a range cannot be read.
pub(super) fn decode(batches: &[RecordBatch]) -> Result<Vec<Arc<HistoryEntry>>> {
    let damaged = |problem: String| EngineError::Corrupt(format!("the history of a stream cannot be read: {problem}"));
    let mut entries = Vec::new();
    let mut last: Option<(String, Arc<BTreeSet<String>>)> = None;
    for batch in batches {
        let column = |name: &str| batch.column_by_name(name).ok_or_else(|| damaged(format!("it has no column \"{name}\"")));
        let missing = || damaged("a column has another type".into());
        let epochs = column("epoch")?.as_primitive_opt::<UInt64Type>().ok_or_else(missing)?;
        let clocks = column("clock")?.as_primitive_opt::<Int64Type>().ok_or_else(missing)?;
        let watermarks = column("watermark_start")?.as_primitive_opt::<Int64Type>().ok_or_else(missing)?;
        let ranges = column("ranges")?.as_string_opt::<i32>().ok_or_else(missing)?;
        // States of before this column was there judged by all columns.
        let judged = batch.column_by_name("columns").map(|column| column.as_string_opt::<i32>().ok_or_else(missing)).transpose()?;
        for row in 0..batch.num_rows() {
            let columns = match judged.filter(|judged| judged.is_valid(row)).map(|judged| judged.value(row)) {
                None => None,
                // Epochs beside each other mostly have the same: one copy serves them all.
                Some(text) => match last.as_ref().filter(|(known, _)| *known == text) {
                    Some((_, columns)) => Some(Arc::clone(columns)),
                    None => {
                        let columns: Arc<BTreeSet<String>> =
                            Arc::new(serde_json::from_str(text).map_err(|error| damaged(error.to_string()))?);
                        last = Some((text.to_string(), Arc::clone(&columns)));
                        Some(columns)
                    }
                },
            };
            entries.push(Arc::new(HistoryEntry {
                epoch: Epoch(epochs.value(row)),
                clock: EventTime(clocks.value(row)),
                watermark_start: EventTime(watermarks.value(row)),
                ranges: serde_json::from_str(ranges.value(row)).map_err(|error| damaged(error.to_string()))?,
                columns,
            }));
        }
    }
    Ok(entries)
}
