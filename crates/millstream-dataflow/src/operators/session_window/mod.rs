//! SESSION windows with the aggregates of their rows, at a cost proportional to the rows that come and the sessions they touch.
//!
//! ```sql
//! SELECT bidder, window_start, window_end, count(*) FROM SESSION(bids PARTITION BY bidder, ts, INTERVAL '10 seconds')
//! GROUP BY bidder, window_start, window_end
//! ```
//! ```text
//!   of a key:   [--- a ---]     [-- b --]           two sessions at rest
//!                        . . .  .                   rows that come
//!               [--------- a + b -------]           - a, - b, + one with the states of both and of the rows
//! ```
//! **In**: append-only rows of any schema with a time. **Out**: the key columns, `window_start` (the first row), `window_end` (the last row
//! plus the gap), then one column per aggregate. Rows without a time are a session with NULL edges, per key.
//! **Changelog** (`Emit::Changes`): the rows of sessions that were extended or merged go, the row of what became of them comes, unless
//! they are equal. **Append-only output** (`Emit::OnClose`): a session's row goes out once, when the bound has passed its end, in the
//! order of ends, starts and keys.
//!
//! **Step**: the rows are numbered by key and sorted by time within their key; a sweep over them and the key's sessions gives what becomes
//! of both; then old states and new rows go through the accumulators at once, as in Aggregate.
//! **State**: per session one row: key columns, `window_start`, `window_end`, the state columns of each function; and in memory per key
//! its sessions in order. **Dropped**: sessions whose end is below the bound, since a row that could still join them would be late; those
//! that are so when they come are never stored. Rows below the bound of an earlier epoch are counted as dropped.
//! **Errors**: what arguments report; a session whose end is out of range.

mod intervals;
#[cfg(test)]
mod tests;

use crate::bucket::{BucketColumn, BucketKey, Floor};
use crate::columns::{evaluate, make_batch, take_columns};
use crate::deadlines::Deadlines;
use crate::error::{DataflowError, Result};
use crate::key_index::{EncodedKeys, KeyIndex};
use crate::operator::{Operator, Saved, StateStats, StepContext};
use crate::operators::aggregate::call::{Call, NewRows, accumulate, split_states};
use crate::operators::aggregate::interner::{Interner, Numbered};
use crate::operators::aggregate::same_rows;
use crate::operators::registry::BuildContext;
use crate::row_log::RowLog;
use crate::zset::{check_columns, expand};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, PrimitiveArray, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use async_trait::async_trait;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::PhysicalExpr;
use intervals::{Interval, Intervals, NULL_TIME};
use millstream_plan::compile::{compile, compile_all};
use millstream_plan::functions::session_window::end_of;
use millstream_plan::graph::{Emit, Node, Op};
use millstream_types::delta::{Delta, DeltaBatch, Weights};
use millstream_types::row_key::{RowKeyEncoder, canonical_floats};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

const FORMAT: u32 = 1;
/// Chunks of state are merged up to this many sessions.
const CHUNK_ROWS: usize = 256 * 1024;
/// The end of a slot that is free.
const FREE: i64 = i64::MIN;

/// The operator.
pub(crate) struct SessionWindow {
    schema: SchemaRef,
    key: Vec<Arc<dyn PhysicalExpr>>,
    time: Arc<dyn PhysicalExpr>,
    /// Type of the time and of both edges.
    time_type: DataType,
    gap: i64,
    calls: Vec<Call>,
    emit: Emit,
    /// Numbers the keys of a delta.
    interner: Interner,
    /// Orders closed sessions; `None` without a key.
    key_order: Option<RowKeyEncoder>,
    /// Keys that have sessions, and the sessions by the key's slot.
    keys: KeyIndex,
    sessions: Vec<Intervals>,
    /// Keys, edges and states by the session's slot.
    log: RowLog,
    /// By the session's slot: the slot of its key, and its end.
    owners: Vec<u32>,
    ends: Vec<i64>,
    free: Vec<u32>,
    bucket: Option<BucketColumn>,
    deadlines: Deadlines,
    interval_bytes: usize,
    touched_keys: u64,
    dropped_rows: u64,
}

/// The rows of a delta.
struct Rows {
    batches: Vec<RecordBatch>,
    /// By part and row.
    times: Vec<Vec<i64>>,
    numbered: Numbered,
}

/// What became of some sessions and rows.
struct Touched {
    /// The key's number in the delta.
    key: u32,
    start: i64,
    last: i64,
    end: i64,
    /// The sessions that it replaces: a range of the old ones.
    old: Range<usize>,
    /// Where its state is kept; `None` if it is final already.
    slot: Option<u32>,
}

/// All that became of a delta.
#[derive(Default)]
struct Changed {
    touched: Vec<Touched>,
    /// The sessions that were replaced.
    old: Vec<Interval>,
    /// By part and row: its session, an index of `touched`.
    groups: Vec<Vec<usize>>,
    /// Slots of replaced sessions that are not used again.
    freed: Vec<u32>,
}

impl SessionWindow {
    pub(crate) fn new(node: &Node, context: &BuildContext<'_>) -> Result<Self> {
        let Op::SessionWindow { key, time, gap_micros, aggregates, emit, bucket } = &node.op else {
            return Err(DataflowError::internal("expected sessions"));
        };
        let input = context.input(node, 0);
        let key = compile_all(key, &input.df_schema, context.state)?;
        let key_types = key.iter().map(|expr| expr.data_type(&input.schema)).collect::<datafusion::common::Result<Vec<_>>>()?;
        let time = compile(time, &input.df_schema, context.state)?;
        let time_type = time.data_type(&input.schema)?;
        let compiled = |expr: &Expr| Call::new(expr, &input.df_schema, &input.schema, context.state);
        let calls = aggregates.iter().map(compiled).collect::<Result<Vec<_>>>()?;
        let states = calls.iter().flat_map(|call| call.state_types.iter());
        let types = key_types.iter().chain([&time_type, &time_type]).chain(states);
        let fields: Vec<Field> = types.enumerate().map(|(index, t)| Field::new(format!("c{index}"), t.clone(), true)).collect();
        let bucket = bucket.as_ref().map(|bucket| BucketColumn::new(bucket.column, Arc::clone(&bucket.bound), &time_type)).transpose()?;
        if bucket.is_none() && *emit == Emit::OnClose {
            return Err(DataflowError::internal("sessions can only close by a bound of their end"));
        }
        Ok(Self {
            schema: Arc::clone(&node.schema),
            key,
            time,
            time_type,
            gap: *gap_micros,
            calls,
            emit: *emit,
            interner: Interner::new(&key_types)?,
            key_order: if key_types.is_empty() { None } else { Some(RowKeyEncoder::new(key_types.iter().cloned())?) },
            keys: KeyIndex::new(&key_types)?,
            sessions: vec![],
            log: RowLog::new(Arc::new(Schema::new(fields)), CHUNK_ROWS),
            owners: vec![],
            ends: vec![],
            free: vec![],
            bucket,
            deadlines: Deadlines::default(),
            interval_bytes: 0,
            touched_keys: 0,
            dropped_rows: 0,
        })
    }

    /// Keys and times of the rows. Rows below the bound of an earlier epoch are left out.
    fn read(&mut self, delta: &[DeltaBatch]) -> Result<Rows> {
        let (mut batches, mut times, mut keys) = (vec![], vec![], vec![]);
        for part in delta.iter().filter(|part| part.num_rows() > 0) {
            let mut batch = match &part.weights {
                Weights::Ones => part.batch.clone(),
                // Without retractions weights are multiplicities.
                Weights::I64(_) => expand(part.batch.schema_ref(), part)?,
            };
            let mut time = evaluate(&self.time, &batch)?;
            if let Some(bucket) = &self.bucket
                && !bucket.none_passed(&time)
            {
                let mask = BooleanArray::from_iter(self.micros(&time)?.into_iter().map(|time| Some(!passed(&bucket.floor, time))));
                let late = mask.len() - mask.true_count();
                if late > 0 {
                    self.dropped_rows += late as u64;
                    tracing::warn!(rows = late, "rows below the bound were dropped");
                    batch = arrow::compute::filter_record_batch(&batch, &mask)?;
                    time = arrow::compute::filter(&time, &mask)?;
                }
            }
            if batch.num_rows() > 0 {
                let columns = self.key.iter().map(|expr| Ok(canonical_floats(&evaluate(expr, &batch)?)?)).collect::<Result<Vec<_>>>()?;
                times.push(self.micros(&time)?);
                keys.push((columns, batch.num_rows()));
                batches.push(batch);
            }
        }
        let numbered = self.interner.number(&keys)?;
        Ok(Rows { batches, times, numbered })
    }

    /// Times as numbers.
    fn micros(&self, times: &ArrayRef) -> Result<Vec<i64>> {
        let times = times.as_primitive_opt::<TimestampMicrosecondType>();
        let times = times.ok_or_else(|| DataflowError::internal("the time of a session is not in microseconds"))?;
        Ok(match times.nulls() {
            None => times.values().to_vec(),
            Some(_) => times.iter().map(|time| time.unwrap_or(NULL_TIME)).collect(),
        })
    }

    /// The inverse of [`micros`](Self::micros).
    fn times(&self, micros: impl Iterator<Item = i64>) -> ArrayRef {
        let times = micros.map(|time| (time != NULL_TIME).then_some(time));
        Arc::new(PrimitiveArray::<TimestampMicrosecondType>::from_iter(times).with_data_type(self.time_type.clone()))
    }

    /// Finds out what becomes of the sessions. The sessions at rest are replaced at once, their states are not.
    fn sweep(&mut self, rows: &Rows, floor: &Floor) -> Result<Changed> {
        let mut changed = Changed { groups: rows.times.iter().map(|times| vec![0; times.len()]).collect(), ..Changed::default() };
        if rows.batches.is_empty() {
            return Ok(changed);
        }
        let Numbered { keys, count, rows: numbers } = &rows.numbered;
        let encoded = if keys.is_empty() { EncodedKeys::Unit } else { self.keys.encode(keys)? };
        let sorted = sort(numbers, &rows.times, *count);
        let mut times = vec![];
        for key in 0..*count {
            let of_key = &sorted.rows[sorted.starts[key]..sorted.starts[key + 1]];
            times.clear();
            times.extend(of_key.iter().map(|row| row.time));
            let known = self.keys.find(&encoded, key);
            let mut intervals = known.map(|slot| std::mem::take(&mut self.sessions[slot as usize])).unwrap_or_default();
            self.interval_bytes -= intervals.bytes();
            let first = changed.touched.len();
            let gap = self.gap;
            intervals.add(&times, gap, |merged| -> Result<Option<u32>> {
                let end = if merged.last == NULL_TIME { NULL_TIME } else { end_of(merged.last, gap)? };
                let mut slots = merged.old.iter().map(|old| old.slot);
                let slot = match passed(floor, end) {
                    true => None,
                    false => Some(slots.next().unwrap_or_else(|| {
                        self.free.pop().unwrap_or_else(|| {
                            self.ends.push(FREE);
                            self.owners.push(0);
                            self.ends.len() as u32 - 1
                        })
                    })),
                };
                changed.freed.extend(slots);
                for row in &of_key[merged.rows] {
                    changed.groups[row.part as usize][row.row as usize] = changed.touched.len();
                }
                let old = changed.old.len()..changed.old.len() + merged.old.len();
                changed.old.extend(merged.old);
                changed.touched.push(Touched { key: key as u32, start: merged.start, last: merged.last, end, old, slot });
                Ok(slot)
            })?;
            let owner = match known {
                Some(slot) if intervals.as_slice().is_empty() => {
                    self.keys.remove(slot);
                    continue;
                }
                Some(slot) => slot,
                None if intervals.as_slice().is_empty() => continue,
                None => self.keys.insert(&encoded, key),
            };
            for slot in changed.touched[first..].iter().filter_map(|touched| touched.slot) {
                self.owners[slot as usize] = owner;
            }
            self.put(owner, intervals);
        }
        self.touched_keys += changed.touched.len() as u64;
        Ok(changed)
    }

    fn put(&mut self, owner: u32, intervals: Intervals) {
        self.interval_bytes += intervals.bytes();
        if self.sessions.len() <= owner as usize {
            self.sessions.resize_with(owner as usize + 1, Intervals::default);
        }
        self.sessions[owner as usize] = intervals;
    }

    /// Key and edge columns of sessions.
    fn labels(&self, touched: &[Touched], keys: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        let mut columns = take_columns(keys, &UInt32Array::from_iter_values(touched.iter().map(|touched| touched.key)))?;
        columns.push(self.times(touched.iter().map(|touched| touched.start)));
        columns.push(self.times(touched.iter().map(|touched| touched.end)));
        Ok(columns)
    }

    /// The aggregates' values for `count` states.
    fn values(&self, states: &[ArrayRef], count: usize) -> Result<Vec<ArrayRef>> {
        self.calls.iter().zip(split_states(&self.calls, states)).map(|(call, state)| call.values(state, count)).collect()
    }

    /// Applies the rows to the state. Returns the change of the result without what was final at rest.
    fn apply(&mut self, rows: &Rows, mut changed: Changed) -> Result<(Delta, Option<RecordBatch>)> {
        let parts = in_order(&mut changed, rows);
        let Changed { touched, old, freed, .. } = &changed;
        if touched.is_empty() {
            return Ok((vec![], None));
        }
        let width = self.key.len() + 2;
        let old_slots: Vec<u32> = old.iter().map(|old| old.slot).collect();
        let stored = if old.is_empty() { vec![] } else { self.log.gather(&old_slots, 0..self.log.schema().fields().len())? };
        let old_states = stored.get(width..).unwrap_or_default();
        let known: Vec<usize> = touched.iter().enumerate().flat_map(|(group, touched)| touched.old.clone().map(move |_| group)).collect();
        let by_call = if old.is_empty() { vec![] } else { split_states(&self.calls, old_states) };
        let all_final = touched.iter().all(|touched| touched.slot.is_none());
        let (states, values) = accumulate(&self.calls, &by_call, &known, &parts, touched.len(), all_final)?;
        let labels = self.labels(touched, &rows.numbered.keys)?;

        let (mut delta, mut closed) = (vec![], None);
        match self.emit {
            Emit::Changes => {
                let values = if all_final { values } else { self.values(&states, touched.len())? };
                delta = self.changes(&changed, &stored, &labels, &values)?;
            }
            Emit::OnClose => {
                let now: Vec<u32> = (0..touched.len() as u32).filter(|index| touched[*index as usize].slot.is_none()).collect();
                if !now.is_empty() {
                    let indices = UInt32Array::from(now);
                    let values = match all_final {
                        true => values,
                        false => self.values(&take_columns(&states, &indices)?, indices.len())?,
                    };
                    let mut columns = take_columns(&labels, &indices)?;
                    columns.extend(values);
                    closed = Some(make_batch(&self.schema, columns, indices.len())?);
                }
            }
        }

        // Sessions that go leave the log before their successors come.
        for slot in freed {
            self.ends[*slot as usize] = FREE;
        }
        self.log.remove(freed)?;
        self.free.extend(freed);
        let kept: Vec<u32> = (0..touched.len() as u32).filter(|index| touched[*index as usize].slot.is_some()).collect();
        if !kept.is_empty() {
            let mut columns = labels;
            columns.extend(states);
            if kept.len() < touched.len() {
                columns = take_columns(&columns, &UInt32Array::from(kept.clone()))?;
            }
            let slots: Vec<u32> = touched.iter().filter_map(|touched| touched.slot).collect();
            self.log.append(&make_batch(self.log.schema(), columns, kept.len())?, &slots)?;
            for touched in touched {
                if let Some(slot) = touched.slot {
                    self.ends[slot as usize] = touched.end;
                    if self.bucket.is_some() {
                        self.deadlines.schedule(slot, touched.end);
                    }
                }
            }
        }
        Ok((delta, closed))
    }

    /// `- old rows`, `+ new row` of each session that differs. `stored`: the rows of the old sessions.
    fn changes(&self, changed: &Changed, stored: &[ArrayRef], labels: &[ArrayRef], values: &[ArrayRef]) -> Result<Delta> {
        let Changed { touched, old, .. } = changed;
        let mut delta = Vec::with_capacity(2);
        let mut unchanged = vec![false; touched.len()];
        if !old.is_empty() {
            let (old_labels, old_states) = stored.split_at(self.key.len() + 2);
            let old_values = self.values(old_states, old.len())?;
            let mut kept = vec![false; old.len()];
            // The same rows between the same edges may give the same values.
            let same_edges = |touched: &Touched| match &old[touched.old.clone()] {
                [old] if (old.start, old.last) == (touched.start, touched.last) => Some(touched.old.start as u32),
                _ => None,
            };
            let pairs = touched.iter().enumerate().filter_map(|(new, touched)| Some((same_edges(touched)?, new as u32)));
            let (before, after): (Vec<u32>, Vec<u32>) = pairs.unzip();
            let same = same_rows(
                &take_columns(&old_values, &UInt32Array::from(before.clone()))?,
                &take_columns(values, &UInt32Array::from(after.clone()))?,
                before.len(),
            )?;
            for ((before, after), same) in before.into_iter().zip(after).zip(same) {
                kept[before as usize] = same;
                unchanged[after as usize] = same;
            }
            let gone: Vec<u32> = (0..old.len() as u32).filter(|row| !kept[*row as usize]).collect();
            if !gone.is_empty() {
                let columns: Vec<ArrayRef> = old_labels.iter().chain(&old_values).cloned().collect();
                let batch = make_batch(&self.schema, take_columns(&columns, &UInt32Array::from(gone.clone()))?, gone.len())?;
                delta.push(DeltaBatch::weighted(batch, Int64Array::from_value(-1, gone.len())));
            }
        }
        let new: Vec<u32> = (0..touched.len() as u32).filter(|index| !unchanged[*index as usize]).collect();
        if !new.is_empty() {
            let mut columns: Vec<ArrayRef> = labels.iter().chain(values).cloned().collect();
            if new.len() < touched.len() {
                columns = take_columns(&columns, &UInt32Array::from(new.clone()))?;
            }
            delta.push(DeltaBatch::insertions(make_batch(&self.schema, columns, new.len())?));
        }
        Ok(delta)
    }

    /// Drops the sessions that `floor` has passed; their rows, if they are to go out.
    fn close(&mut self, floor: &Floor) -> Result<Option<RecordBatch>> {
        let ends = &self.ends;
        let end_of = |slot: u32| Some(ends[slot as usize]).filter(|end| *end != FREE);
        let slots = self.deadlines.pop_passed(|end| passed(floor, end), end_of);
        if slots.is_empty() {
            return Ok(None);
        }
        let mut closed = None;
        if self.emit == Emit::OnClose {
            let mut columns = self.log.gather(&slots, 0..self.log.schema().fields().len())?;
            let states = columns.split_off(self.key.len() + 2);
            columns.extend(self.values(&states, slots.len())?);
            closed = Some(make_batch(&self.schema, columns, slots.len())?);
        }
        for slot in &slots {
            self.ends[*slot as usize] = FREE;
        }
        let owners: BTreeSet<u32> = slots.iter().map(|slot| self.owners[*slot as usize]).collect();
        for owner in owners {
            let mut intervals = std::mem::take(&mut self.sessions[owner as usize]);
            self.interval_bytes -= intervals.bytes();
            intervals.retain(|interval| self.ends[interval.slot as usize] != FREE);
            if intervals.as_slice().is_empty() {
                self.keys.remove(owner);
            } else {
                self.put(owner, intervals);
            }
        }
        self.keys.shrink();
        self.log.remove(&slots)?;
        self.free.extend(slots);
        Ok(closed)
    }

    /// Closed sessions as one batch, in the order of their ends, starts and keys, which no layout of the state changes.
    fn in_closing_order(&self, closed: &[RecordBatch]) -> Result<Delta> {
        if closed.is_empty() {
            return Ok(vec![]);
        }
        let all = arrow::compute::concat_batches(&self.schema, closed)?;
        let width = self.key.len();
        let (starts, ends) = (self.micros(all.column(width))?, self.micros(all.column(width + 1))?);
        let keys = self.key_order.as_ref().map(|order| order.encode(&all.columns()[..width])).transpose()?;
        let mut order: Vec<u32> = (0..all.num_rows() as u32).collect();
        order.sort_unstable_by(|a, b| {
            let (a, b) = (*a as usize, *b as usize);
            let by_key = || keys.as_ref().map_or(std::cmp::Ordering::Equal, |keys| keys.row(a).cmp(&keys.row(b)));
            (ends[a], starts[a]).cmp(&(ends[b], starts[b])).then_with(by_key)
        });
        Ok(vec![DeltaBatch::insertions(all).take(&UInt32Array::from(order))?])
    }
}

/// Whether a session that ends then is final, or a row of that time late.
fn passed(floor: &Floor, time: i64) -> bool {
    floor.passed(&if time == NULL_TIME { BucketKey::Null } else { BucketKey::Int(time) })
}

/// A row of a delta and its time.
#[derive(Clone, Copy)]
struct TimedRow {
    time: i64,
    part: u32,
    row: u32,
}

/// Rows by key, and within a key by time.
struct Sorted {
    rows: Vec<TimedRow>,
    /// Where the rows of each key start, and where the last end.
    starts: Vec<usize>,
}

/// Puts the rows of each of `count` keys together, in one pass, and sorts them by time; mostly they are in that order.
fn sort(numbers: &[Vec<usize>], times: &[Vec<i64>], count: usize) -> Sorted {
    let mut starts = vec![0; count + 1];
    numbers.iter().flatten().for_each(|key| starts[key + 1] += 1);
    for key in 0..count {
        starts[key + 1] += starts[key];
    }
    let mut next = starts.clone();
    let mut rows = vec![TimedRow { time: 0, part: 0, row: 0 }; starts[count]];
    for (part, (numbers, times)) in numbers.iter().zip(times).enumerate() {
        for (row, (key, time)) in numbers.iter().zip(times).enumerate() {
            rows[next[*key]] = TimedRow { time: *time, part: part as u32, row: row as u32 };
            next[*key] += 1;
        }
    }
    for key in 0..count {
        let of_key = &mut rows[starts[key]..starts[key + 1]];
        if !of_key.is_sorted_by_key(|row| row.time) {
            of_key.sort_unstable_by_key(|row| row.time);
        }
    }
    Sorted { rows, starts }
}

/// Numbers the touched sessions as accumulators want them: first those that replace others, then by the first row of each. The rows of each
/// part with these numbers.
fn in_order<'r>(changed: &mut Changed, rows: &'r Rows) -> Vec<NewRows<'r>> {
    let mut numbers = vec![usize::MAX; changed.touched.len()];
    let mut next = 0;
    for (index, _) in changed.touched.iter().enumerate().filter(|(_, touched)| !touched.old.is_empty()) {
        numbers[index] = next;
        next += 1;
    }
    let mut parts = Vec::with_capacity(rows.batches.len());
    for (batch, mut groups) in rows.batches.iter().zip(std::mem::take(&mut changed.groups)) {
        for group in &mut groups {
            let number = &mut numbers[*group];
            if *number == usize::MAX {
                *number = next;
                next += 1;
            }
            *group = *number;
        }
        parts.push(NewRows { batch, groups: groups.into(), reached: next, states_first: None, masks: vec![] });
    }
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_unstable_by_key(|index| numbers[*index]);
    let mut touched: Vec<Option<Touched>> = std::mem::take(&mut changed.touched).into_iter().map(Some).collect();
    changed.touched = order.into_iter().filter_map(|index| touched[index].take()).collect();
    parts
}

#[async_trait]
impl Operator for SessionWindow {
    fn needs_step(&self, context: &StepContext<'_>) -> Result<bool> {
        match &self.bucket {
            Some(bucket) if self.log.len() > 0 => {
                let floor = bucket.read(context.bounds)?;
                Ok(self.deadlines.any_passed(|end| passed(&floor, end)))
            }
            _ => Ok(false),
        }
    }

    async fn step(&mut self, inputs: &[&[DeltaBatch]], context: &StepContext<'_>) -> Result<Delta> {
        let floor = match &self.bucket {
            Some(bucket) => bucket.read(context.bounds)?,
            None => Floor::Unknown,
        };
        let rows = self.read(inputs[0])?;
        let changed = self.sweep(&rows, &floor)?;
        let (mut delta, now) = self.apply(&rows, changed)?;
        let at_rest = self.close(&floor)?;
        if let Some(bucket) = &mut self.bucket {
            bucket.floor = floor;
        }
        let closed: Vec<RecordBatch> = at_rest.into_iter().chain(now).collect();
        delta.extend(self.in_closing_order(&closed)?);
        Ok(delta)
    }

    fn checkpoint(&mut self) -> Result<Option<Saved>> {
        let functions: Vec<&str> = self.calls.iter().map(Call::function).collect();
        let floor = self.bucket.as_ref().map_or(Floor::Unknown, |bucket| bucket.floor.clone());
        let detail = serde_json::json!({ "floor": floor, "functions": functions });
        let sessions = self.log.checkpoint()?.into_iter().map(|(batch, _)| batch).collect();
        Ok(Some(Saved { format: FORMAT, groups: vec![("sessions".into(), sessions)], detail }))
    }

    fn restore(&mut self, saved: &Saved) -> Result<()> {
        saved.expect_format(FORMAT)?;
        let functions: Vec<String> = saved.detail("functions")?;
        if functions.iter().map(String::as_str).ne(self.calls.iter().map(Call::function)) {
            return Err(DataflowError::mismatch(format!("it is of the functions {}", functions.join(", "))));
        }
        let floor: Floor = saved.detail("floor")?;
        let width = self.key.len();
        for batch in saved.group("sessions") {
            check_columns(self.log.schema(), batch, 0)?;
            let batch = make_batch(self.log.schema(), batch.columns().to_vec(), batch.num_rows())?;
            let (starts, ends) = (self.micros(batch.column(width))?, self.micros(batch.column(width + 1))?);
            let encoded = self.keys.encode(&batch.columns()[..width])?;
            let mut slots = Vec::with_capacity(batch.num_rows());
            for (row, (start, end)) in starts.into_iter().zip(ends).enumerate() {
                let slot = self.ends.len() as u32;
                let (owner, _) = self.keys.find_or_insert(&encoded, row);
                let mut intervals = self.sessions.get_mut(owner as usize).map(std::mem::take).unwrap_or_default();
                self.interval_bytes -= intervals.bytes();
                let last = if end == NULL_TIME { end } else { end - self.gap };
                intervals.push(Interval { start, last, slot });
                self.put(owner, intervals);
                self.ends.push(end);
                self.owners.push(owner);
                if self.bucket.is_some() {
                    self.deadlines.schedule(slot, end);
                }
                slots.push(slot);
            }
            self.log.append_chunk(&batch, &slots)?;
        }
        self.sessions.iter_mut().for_each(Intervals::sort);
        let overlaps = |pair: &[Interval]| pair[0].last >= pair[1].start;
        if self.sessions.iter().any(|sessions| sessions.as_slice().windows(2).any(overlaps)) {
            return Err(DataflowError::mismatch("sessions of a key overlap"));
        }
        if let Some(bucket) = &mut self.bucket {
            bucket.floor = floor;
        }
        Ok(())
    }

    fn stats(&self) -> StateStats {
        let by_slot = self.owners.capacity() * size_of::<u32>() + self.ends.capacity() * size_of::<i64>();
        let by_key = self.sessions.capacity() * size_of::<Intervals>() + self.interval_bytes;
        StateStats {
            rows: self.log.len(),
            bytes: self.keys.bytes() + self.log.bytes() + by_slot + by_key + 4 * self.free.capacity() + self.deadlines.bytes(),
            touched_keys: self.touched_keys,
            dropped_rows: self.dropped_rows,
            ..StateStats::default()
        }
    }
}
