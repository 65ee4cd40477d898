//! What is kept of all keys of a PROCESS: the row of state by slot, and when each key is due.
//!
//! ```text
//!   key ─KeyIndex─▶ slot ─▶ RowLog: key columns, state columns
//!                     └───▶ Marks: last touched, timer in event time, timer by the clock ─▶ Deadlines, one per kind
//! ```

use crate::columns::make_batch;
use crate::deadlines::Deadlines;
use crate::error::{DataflowError, Result};
use crate::key_index::KeyIndex;
use crate::row_log::RowLog;
use crate::zset::check_columns;
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use millstream_plan::process::{KeyState, Moment};
use millstream_types::EventTime;
use std::sync::Arc;

/// Chunks of state are merged up to this many keys.
const CHUNK_ROWS: usize = 256 * 1024;
/// The time of a timer that is not set.
const NEVER: i64 = i64::MAX;

/// Columns of a checkpoint beside key and state: microseconds since 1970, timers that are not set are NULL.
const MARKS: [&str; 3] = ["__touched", "__event_timer", "__clock_timer"];

/// A key that an epoch calls for: what it was, and what it becomes.
#[derive(Debug)]
pub(super) struct Work {
    /// Its values.
    pub(super) key: Vec<ScalarValue>,
    /// Where it is kept, if it has been.
    pub(super) slot: Option<u32>,
    /// Its row of state before the epoch.
    pub(super) before: Option<Vec<ScalarValue>>,
    /// Its state and timers now.
    pub(super) state: KeyState,
    /// When its rows or its state last changed, by the epoch clock.
    pub(super) touched: i64,
}

#[derive(Clone, Copy, Debug)]
struct Marks {
    touched: i64,
    event_timer: i64,
    clock_timer: i64,
}

const FREE: Marks = Marks { touched: NEVER, event_timer: NEVER, clock_timer: NEVER };

/// The keys.
#[derive(Debug)]
pub(super) struct KeyStates {
    /// Number of key columns.
    width: usize,
    pub(super) index: KeyIndex,
    log: RowLog,
    /// By slot.
    marks: Vec<Marks>,
    ttl: Option<i64>,
    event_timers: Deadlines,
    clock_timers: Deadlines,
    expiries: Deadlines,
}

impl KeyStates {
    /// No keys; `schema` has the key columns, then those of the state. Keys go when untouched for `ttl` microseconds.
    pub(super) fn new(schema: SchemaRef, width: usize, ttl: Option<i64>) -> Result<Self> {
        let key_types: Vec<DataType> = schema.fields().iter().take(width).map(|field| field.data_type().clone()).collect();
        Ok(Self {
            width,
            index: KeyIndex::new(&key_types)?,
            log: RowLog::new(schema, CHUNK_ROWS),
            marks: vec![],
            ttl,
            event_timers: Deadlines::default(),
            clock_timers: Deadlines::default(),
            expiries: Deadlines::default(),
        })
    }

    /// Number of keys.
    pub(super) fn len(&self) -> usize {
        self.log.len()
    }

    /// Memory in bytes.
    pub(super) fn bytes(&self) -> usize {
        let queues = self.event_timers.bytes() + self.clock_timers.bytes() + self.expiries.bytes();
        self.index.bytes() + self.log.bytes() + self.marks.capacity() * size_of::<Marks>() + queues
    }

    /// The keys of these slots with their state.
    pub(super) fn read(&self, slots: &[u32]) -> Result<Vec<Work>> {
        let columns = self.log.gather(slots, 0..self.log.schema().fields().len())?;
        let row = |(row, slot): (usize, &u32)| {
            let mut key =
                columns.iter().map(|column| ScalarValue::try_from_array(column, row)).collect::<datafusion::common::Result<Vec<_>>>()?;
            let values = key.split_off(self.width);
            let marks = self.marks[*slot as usize];
            let timer = |time: i64| Some(EventTime(time)).filter(|_| time != NEVER);
            let state =
                KeyState { row: Some(values.clone()), event_timer: timer(marks.event_timer), clock_timer: timer(marks.clock_timer) };
            Ok(Work { key, slot: Some(*slot), before: Some(values), state, touched: marks.touched })
        };
        slots.iter().enumerate().map(row).collect()
    }

    /// Whether some key may be due.
    pub(super) fn any_due(&self, now: &Moment) -> bool {
        self.event_timers.any_passed(|time| event_passed(now, time))
            || self.clock_timers.any_passed(|time| time <= now.clock.0)
            || self.expiries.any_passed(|time| time <= now.clock.0)
    }

    /// The slots that are due. They are looked at again when they have been put back.
    pub(super) fn pop_due(&mut self, now: &Moment) -> Vec<u32> {
        let (marks, ttl) = (&self.marks, self.ttl);
        let set = |time: i64| Some(time).filter(|time| *time != NEVER);
        let mut due = self.event_timers.pop_passed(|time| event_passed(now, time), |slot| set(marks[slot as usize].event_timer));
        due.extend(self.clock_timers.pop_passed(|time| time <= now.clock.0, |slot| set(marks[slot as usize].clock_timer)));
        due.extend(self.expiries.pop_passed(|time| time <= now.clock.0, |slot| expiry(marks[slot as usize], ttl)));
        due.sort_unstable();
        due.dedup();
        due
    }

    /// Whether a key that was last touched then has expired.
    pub(super) fn has_expired(&self, touched: i64, now: &Moment) -> bool {
        expiry(Marks { touched, ..FREE }, self.ttl).is_some_and(|time| time <= now.clock.0)
    }

    /// Puts back what became of keys. Keys without state go.
    pub(super) fn put(&mut self, work: &[Work]) -> Result<()> {
        let gone: Vec<u32> = work.iter().filter(|work| work.state.row.is_none()).filter_map(|work| work.slot).collect();
        gone.iter().for_each(|slot| self.marks[*slot as usize] = FREE);
        self.log.remove(&gone)?;
        if !gone.is_empty() {
            self.index.remove_all(&gone);
        }
        let changed: Vec<&Work> = work.iter().filter(|work| work.state.row.is_some() && work.state.row != work.before).collect();
        let rows = changed.iter().map(|work| work.key.iter().chain(work.state.row.iter().flatten()));
        let batch = rows_to_batch(self.log.schema(), rows, changed.len())?;
        let keys = self.index.encode(&batch.columns()[..self.width])?;
        let mut slots = Vec::with_capacity(changed.len());
        for (row, work) in changed.iter().enumerate() {
            let slot = match work.slot {
                Some(slot) => slot,
                None => self.index.insert(&keys, row),
            };
            slots.push(slot);
        }
        self.log.append(&batch, &slots)?;
        for (work, slot) in changed.iter().zip(&slots) {
            self.mark(*slot, work);
        }
        for work in work.iter().filter(|work| work.state.row.is_some() && work.state.row == work.before) {
            if let Some(slot) = work.slot {
                self.mark(slot, work);
            }
        }
        Ok(())
    }

    fn mark(&mut self, slot: u32, work: &Work) {
        let timer = |time: Option<EventTime>| time.map_or(NEVER, |time| time.0);
        let (event_timer, clock_timer) = (timer(work.state.event_timer), timer(work.state.clock_timer));
        self.set(slot, Marks { touched: work.touched, event_timer, clock_timer });
    }

    fn set(&mut self, slot: u32, marks: Marks) {
        if self.marks.len() <= slot as usize {
            self.marks.resize(slot as usize + 1, FREE);
        }
        self.marks[slot as usize] = marks;
        let queues = [
            (&mut self.event_timers, Some(marks.event_timer).filter(|time| *time != NEVER)),
            (&mut self.clock_timers, Some(marks.clock_timer).filter(|time| *time != NEVER)),
            (&mut self.expiries, expiry(marks, self.ttl)),
        ];
        for (queue, time) in queues {
            if let Some(time) = time {
                queue.schedule(slot, time);
            }
        }
    }

    /// Key, state and marks of all keys.
    pub(super) fn checkpoint(&mut self) -> Result<Vec<RecordBatch>> {
        let fields = self.log.schema().fields().iter().cloned();
        let fields: Vec<Arc<Field>> = fields.chain(MARKS.iter().map(|name| Arc::new(Field::new(*name, DataType::Int64, true)))).collect();
        let schema = Arc::new(Schema::new(fields));
        let rows = self.log.checkpoint()?;
        let with_marks = |(batch, slots): (RecordBatch, Vec<u32>)| {
            let marks = slots.iter().map(|slot| self.marks[*slot as usize]);
            let timer = |time: i64| Some(time).filter(|time| *time != NEVER);
            let columns: [Int64Array; 3] = [
                marks.clone().map(|marks| Some(marks.touched)).collect(),
                marks.clone().map(|marks| timer(marks.event_timer)).collect(),
                marks.map(|marks| timer(marks.clock_timer)).collect(),
            ];
            let mut all = batch.columns().to_vec();
            all.extend(columns.into_iter().map(|column| Arc::new(column) as ArrayRef));
            make_batch(&schema, all, slots.len())
        };
        rows.into_iter().map(with_marks).collect()
    }

    /// Takes back what [`checkpoint`](Self::checkpoint) gave.
    pub(super) fn restore(&mut self, batches: &[RecordBatch]) -> Result<()> {
        let schema = Arc::clone(self.log.schema());
        for batch in batches {
            check_columns(&schema, batch, MARKS.len())?;
            let mut columns = batch.columns().to_vec();
            let marks = columns.split_off(schema.fields().len());
            let marks = marks.iter().map(|column| column.as_primitive_opt::<Int64Type>()).collect::<Option<Vec<_>>>();
            let marks = marks.ok_or_else(|| DataflowError::mismatch("the times of keys are no integers"))?;
            let value = |column: usize, row: usize| if marks[column].is_null(row) { NEVER } else { marks[column].value(row) };
            let rows = make_batch(&schema, columns, batch.num_rows())?;
            let keys = self.index.encode(&rows.columns()[..self.width])?;
            let mut slots = Vec::with_capacity(rows.num_rows());
            for row in 0..rows.num_rows() {
                if self.index.find(&keys, row).is_some() {
                    return Err(DataflowError::mismatch("a key occurs twice"));
                }
                let slot = self.index.insert(&keys, row);
                self.set(slot, Marks { touched: value(0, row), event_timer: value(1, row), clock_timer: value(2, row) });
                slots.push(slot);
            }
            self.log.append_chunk(&rows, &slots)?;
        }
        Ok(())
    }
}

/// Whether the watermark has passed a time. All times have passed when the input has ended.
pub(super) fn event_passed(now: &Moment, time: i64) -> bool {
    now.watermark.is_some_and(|watermark| watermark == EventTime::MAX || time < watermark.0)
}

fn expiry(marks: Marks, ttl: Option<i64>) -> Option<i64> {
    ttl.filter(|_| marks.touched != NEVER).map(|ttl| marks.touched.saturating_add(ttl))
}

/// Rows of values as a batch.
pub(super) fn rows_to_batch<'v, R>(schema: &SchemaRef, rows: impl Iterator<Item = R>, count: usize) -> Result<RecordBatch>
where
    R: Iterator<Item = &'v ScalarValue>,
{
    if count == 0 {
        return Ok(RecordBatch::new_empty(Arc::clone(schema)));
    }
    let mut columns: Vec<Vec<ScalarValue>> = schema.fields().iter().map(|_| Vec::with_capacity(count)).collect();
    for row in rows {
        columns.iter_mut().zip(row).for_each(|(column, value)| column.push(value.clone()));
    }
    let arrays = columns.into_iter().map(ScalarValue::iter_to_array).collect::<datafusion::common::Result<Vec<ArrayRef>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)?)
}
