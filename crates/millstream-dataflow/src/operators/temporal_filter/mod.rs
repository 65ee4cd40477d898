//! TemporalFilter: rows enter and leave by the clock, at a cost proportional to the rows that do.
//!
//! ```sql
//! SELECT * FROM bids WHERE ts > now() - INTERVAL '1 hour'
//! SELECT * FROM offers WHERE now() BETWEEN starts_at AND ends_at
//! ```
//! ```text
//!   a row comes ──▶ enters ─────────────▶ leaves          instants follow from the row: kept in an ordered queue
//!                   + row                 - row           the clock pops what it has passed
//! ```
//! Whether a row is shown at an instant depends on the row alone, so the filter is linear: what comes while it would be shown passes at
//! once, what goes likewise, and only what has an instant still ahead is kept.
//!
//! **In**: any schema. **Out**: the same rows. **Changelog**: weights pass; what leaves, then what enters, then the input's changes.
//! **Append-only output**: over append-only input, if no row ever leaves. **State**: rows with an instant ahead (`rows`: the columns,
//! `__inside`, `__next`: the instant in microseconds, `__weight`; in the order of the queue). **Dropped**: when a row has left, or has
//! entered and stays: state is bounded by how far the instants of rows lie ahead of the clock. **Due**: at the next instant.
//! **Errors**: what the conditions report; a waiting row whose weight becomes negative.

#[cfg(test)]
mod tests;
mod turns;

use crate::bucket::{BucketKey, Buckets, Floor};
use crate::columns::{describe_row, make_batch, owned, take_rows};
use crate::error::{DataflowError, Result};
use crate::key_index::KeyIndex;
use crate::operator::{Operator, Saved, StateStats, StepContext};
use crate::operators::registry::BuildContext;
use crate::row_log::RowLog;
use crate::zset::{check_columns, with_weights, without_weights};
use arrow::array::{AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use async_trait::async_trait;
use millstream_plan::graph::{Node, Op};
use millstream_types::EventTime;
use millstream_types::delta::{Delta, DeltaBatch, consolidate};
use millstream_types::row_key::types_of;
use std::sync::Arc;
use turns::{Conditions, NEVER};

const FORMAT: u32 = 1;
const CHUNK_ROWS: usize = 256 * 1024;
const CHECKPOINT_ROWS: usize = 64 * 1024;

/// The operator.
pub(crate) struct TemporalFilter {
    schema: SchemaRef,
    conditions: Conditions,
    /// Finds rows that may be taken back; `None` for append-only input.
    index: Option<KeyIndex>,
    log: RowLog,
    /// By slot.
    waiting: Vec<Waiting>,
    /// Slots by their next instant.
    queue: Buckets,
    /// Slots without an index.
    free: Vec<u32>,
    touched_keys: u64,
}

/// A row with an instant ahead.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    weight: i64,
    /// Whether it is shown.
    inside: bool,
    /// When that may change.
    next: i64,
}

const FREE: Waiting = Waiting { weight: 0, inside: false, next: NEVER };

impl TemporalFilter {
    pub(crate) fn new(node: &Node, context: &BuildContext<'_>) -> Result<Self> {
        let Op::TemporalFilter { rising, falling } = &node.op else { return Err(DataflowError::internal("expected a temporal filter")) };
        let input = context.input(node, 0);
        let schema = Arc::clone(&node.schema);
        let append_only = input.properties.append_only;
        Ok(Self {
            conditions: Conditions::new(rising, falling, input, context.state)?,
            index: if append_only { None } else { Some(KeyIndex::new(&types_of(schema.fields()))?) },
            log: RowLog::new(Arc::clone(&schema), CHUNK_ROWS),
            waiting: vec![],
            queue: Buckets::default(),
            free: vec![],
            touched_keys: 0,
            schema,
        })
    }

    /// A slot gets an instant.
    fn enqueue(&mut self, slot: u32, waiting: Waiting) {
        if self.waiting.len() <= slot as usize {
            self.waiting.resize(slot as usize + 1, FREE);
        }
        self.waiting[slot as usize] = waiting;
        self.queue.insert(&BucketKey::Int(waiting.next), slot);
    }

    /// Frees slots that are in no bucket any more.
    fn forget(&mut self, slots: &[u32]) -> Result<()> {
        slots.iter().for_each(|slot| self.waiting[*slot as usize] = FREE);
        match &mut self.index {
            Some(index) => index.remove_all(slots),
            None => self.free.extend_from_slice(slots),
        }
        self.log.remove(slots)
    }

    /// Looks at the rows whose instant the clock has passed again.
    fn pass(&mut self, now: i64) -> Result<Delta> {
        let due = self.queue.pop_passed(&passed(now));
        if due.is_empty() {
            return Ok(vec![]);
        }
        let batch = make_batch(&self.schema, self.log.gather(&due, 0..self.schema.fields().len())?, due.len())?;
        let lives = self.conditions.lives(&batch, now)?;
        let (mut leaving, mut entering, mut done) = (vec![], vec![], vec![]);
        for (row, slot) in due.iter().enumerate() {
            let was = self.waiting[*slot as usize];
            match (was.inside, lives.inside[row]) {
                (true, false) => leaving.push((row as u32, -was.weight)),
                (false, true) => entering.push((row as u32, was.weight)),
                _ => {}
            }
            match lives.next[row] {
                NEVER => done.push(*slot),
                next => self.enqueue(*slot, Waiting { inside: lives.inside[row], next, ..was }),
            }
        }
        self.forget(&done)?;
        let parts = [leaving, entering].into_iter().filter(|rows| !rows.is_empty());
        parts.map(|rows| picked(&batch, &rows)).collect()
    }

    /// Takes a part of the input's change; returns what of it is shown.
    fn take(&mut self, part: &DeltaBatch, now: i64) -> Result<Option<DeltaBatch>> {
        let lives = self.conditions.lives(&part.batch, now)?;
        let encoded = self.index.as_ref().map(|index| index.encode(part.batch.columns())).transpose()?;
        let (mut rows, mut slots, mut removed) = (vec![], vec![], vec![]);
        for row in 0..part.num_rows() {
            let weight = part.weights.value(row);
            let (inside, next) = (lives.inside[row], lives.next[row]);
            if next == NEVER || weight == 0 {
                continue;
            }
            self.touched_keys += 1;
            let found = match (&self.index, &encoded) {
                (Some(index), Some(encoded)) => index.find(encoded, row),
                _ => None,
            };
            let old = found.map_or(0, |slot| self.waiting[slot as usize].weight);
            let new = old.checked_add(weight).ok_or_else(|| DataflowError::internal("the multiplicity of a row exceeds 64 bits"))?;
            if new < 0 {
                let row = describe_row(&self.schema, part.batch.columns(), row);
                return Err(DataflowError::NegativeWeight { relation: String::new(), row, weight: new });
            }
            match found {
                Some(slot) if new == 0 => {
                    self.queue.remove(&BucketKey::Int(self.waiting[slot as usize].next), slot);
                    removed.push(slot);
                }
                Some(slot) => self.waiting[slot as usize].weight = new,
                None => {
                    let slot = match (&mut self.index, &encoded) {
                        (Some(index), Some(encoded)) => index.insert(encoded, row),
                        _ => self.free.pop().unwrap_or(self.waiting.len() as u32),
                    };
                    self.enqueue(slot, Waiting { weight: new, inside, next });
                    rows.push(row as u32);
                    slots.push(slot);
                }
            }
        }
        self.forget(&removed)?;
        self.log.append(&take_rows(&part.batch, &UInt32Array::from(rows))?, &slots)?;
        let shown = BooleanArray::from(lives.inside);
        Ok(match shown.true_count() {
            0 => None,
            count if count == shown.len() => Some(part.clone()),
            _ => Some(part.filter(&shown)?),
        })
    }
}

/// What the clock has passed at `now`: instants up to it.
fn passed(now: i64) -> Floor {
    Floor::Below(BucketKey::Int(now.saturating_add(1)))
}

/// Rows of a batch with new weights.
fn picked(batch: &RecordBatch, rows: &[(u32, i64)]) -> Result<DeltaBatch> {
    let picked = owned(&take_rows(batch, &UInt32Array::from_iter_values(rows.iter().map(|(row, _)| *row)))?)?;
    if rows.iter().all(|(_, weight)| *weight == 1) {
        return Ok(DeltaBatch::insertions(picked));
    }
    Ok(DeltaBatch::weighted(picked, Int64Array::from_iter_values(rows.iter().map(|(_, weight)| *weight))))
}

#[async_trait]
impl Operator for TemporalFilter {
    fn needs_step(&self, context: &StepContext<'_>) -> Result<bool> {
        Ok(self.queue.any_passed(&passed(context.bounds.clock.0)))
    }

    fn next_due(&self) -> Option<EventTime> {
        match self.queue.first()? {
            BucketKey::Int(next) => Some(EventTime(*next)),
            BucketKey::Bytes(_) | BucketKey::Null => None,
        }
    }

    async fn step(&mut self, inputs: &[&[DeltaBatch]], context: &StepContext<'_>) -> Result<Delta> {
        let now = context.bounds.clock.0;
        // What was kept comes first, so that a row that is taken back now is looked for where it is by now.
        let mut output = self.pass(now)?;
        match &self.index {
            None => {
                for part in inputs[0] {
                    output.extend(self.take(part, now)?);
                }
            }
            Some(_) => {
                for part in &consolidate(&self.schema, inputs[0])? {
                    output.extend(self.take(part, now)?);
                }
            }
        }
        if let Some(index) = &mut self.index {
            index.shrink();
        }
        Ok(output)
    }

    fn checkpoint(&mut self) -> Result<Option<Saved>> {
        let slots = self.queue.ordered();
        let mut batches = vec![];
        for slots in slots.chunks(CHECKPOINT_ROWS) {
            let waiting = || slots.iter().map(|slot| self.waiting[*slot as usize]);
            let mut columns = self.log.gather(slots, 0..self.schema.fields().len())?;
            columns.push(Arc::new(waiting().map(|waiting| Some(waiting.inside)).collect::<BooleanArray>()));
            columns.push(Arc::new(Int64Array::from_iter_values(waiting().map(|waiting| waiting.next))));
            let batch = make_batch(&saved_schema(&self.schema), columns, slots.len())?;
            batches.push(with_weights(&owned(&batch)?, Int64Array::from_iter_values(waiting().map(|waiting| waiting.weight)))?);
        }
        Ok(Some(Saved { format: FORMAT, groups: vec![("rows".into(), batches)], detail: serde_json::Value::Null }))
    }

    fn restore(&mut self, saved: &Saved) -> Result<()> {
        saved.expect_format(FORMAT)?;
        let saved_schema = saved_schema(&self.schema);
        let width = self.schema.fields().len();
        for batch in saved.group("rows") {
            check_columns(&saved_schema, batch, 1)?;
            let part = without_weights(&saved_schema, batch)?;
            let (inside, next) = (part.batch.column(width).as_boolean(), part.batch.column(width + 1).as_primitive::<Int64Type>());
            let rows = make_batch(&self.schema, part.batch.columns()[..width].to_vec(), part.num_rows())?;
            let encoded = self.index.as_ref().map(|index| index.encode(rows.columns())).transpose()?;
            let mut slots = Vec::with_capacity(part.num_rows());
            for row in 0..part.num_rows() {
                let slot = match (&mut self.index, &encoded) {
                    (Some(index), Some(encoded)) if index.find(encoded, row).is_some() => {
                        return Err(DataflowError::mismatch("a row occurs twice"));
                    }
                    (Some(index), Some(encoded)) => index.insert(encoded, row),
                    _ => self.waiting.len() as u32,
                };
                self.enqueue(slot, Waiting { weight: part.weights.value(row), inside: inside.value(row), next: next.value(row) });
                slots.push(slot);
            }
            self.log.append_chunk(&rows, &slots)?;
        }
        Ok(())
    }

    fn stats(&self) -> StateStats {
        StateStats {
            rows: self.log.len(),
            bytes: self.log.bytes()
                + self.index.as_ref().map_or(0, KeyIndex::bytes)
                + self.queue.bytes()
                + size_of::<Waiting>() * self.waiting.capacity(),
            touched_keys: self.touched_keys,
            ..StateStats::default()
        }
    }
}

fn saved_schema(schema: &SchemaRef) -> SchemaRef {
    let mut fields = schema.fields().to_vec();
    fields.push(Arc::new(Field::new("__inside", DataType::Boolean, false)));
    fields.push(Arc::new(Field::new("__next", DataType::Int64, false)));
    Arc::new(Schema::new(fields))
}
