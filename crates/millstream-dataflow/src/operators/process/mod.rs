//! PROCESS: calls a stateful function for every key that has rows or is due.
//!
//! ```sql
//! SELECT customer, total FROM PROCESS(running_total, TABLE orders PARTITION BY (customer) ORDER BY ts, state_ttl => INTERVAL '1 hour')
//! ```
//! ```text
//!   1. keys with rows, in the order of keys:     call(rows)
//!   2. keys that are due, in the order of keys:  call(event timer), call(clock timer), call(expired) and remove
//! ```
//! **In**: append-only rows of any schema; input 1, if there is one, is constant: initial state. **Out**: the key columns, then the columns
//! of the rows that the function returns: append-only, in the order of the calls. With `result => 'state'` the key columns, then those of
//! the state: a key's old row goes, its new one comes, once per epoch.
//!
//! **Step**: the rows are sorted by key once and cut into slices; the states of their keys are gathered at once; after the calls, what
//! changed is written back as one batch. A timer in event time is due when the watermark at the end of the epoch has passed it, so after
//! the rows of the epoch; a timer by the clock and `state_ttl` when the epoch clock has reached them. A timer that is set again during a
//! call is due in the next epoch at the earliest.
//! **State**: per key one row: key and state columns, when it was last touched (rows came, or the function changed it), its timers.
//! **Dropped**: by the function, or when untouched for `state_ttl`, after a last call.
//! **Errors**: what the function reports, with its name and the key; initial state with a key twice.

mod rows;
mod states;
#[cfg(test)]
mod tests;

use crate::columns::{describe_row, make_batch};
use crate::error::{DataflowError, Result};
use crate::operator::{Operator, Saved, StateStats, StepContext};
use crate::operators::registry::BuildContext;
use crate::zset::{check_columns, expand};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{SortOptions, cast, concat_batches};
use arrow::datatypes::{DataType, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::common::ScalarValue;
use millstream_plan::bound::{Bound, BoundValue};
use millstream_plan::compile::{compile, compile_all};
use millstream_plan::graph::{Node, Op};
use millstream_plan::process::{Cause, Emitted, KeyCall, KeyState, Moment, ProcessCall, ProcessResult};
use millstream_types::EventTime;
use millstream_types::delta::{Delta, DeltaBatch, num_rows};
use rows::{Sorted, Sorter};
use states::{KeyStates, Work, event_passed, rows_to_batch};
use std::collections::BTreeSet;
use std::sync::Arc;

const FORMAT: u32 = 1;

/// The operator.
pub(crate) struct Process {
    schema: SchemaRef,
    input: SchemaRef,
    call: ProcessCall,
    result: ProcessResult,
    /// The key columns.
    key_schema: SchemaRef,
    sorter: Sorter,
    event_time: Option<Arc<Bound>>,
    states: KeyStates,
    touched_keys: u64,
}

/// The calls of an epoch.
#[derive(Default)]
struct Calls {
    work: Vec<Work>,
    emitted: Emitted,
    /// By row that was returned: whose it is, an index of `work`.
    owners: Vec<u32>,
}

impl Process {
    pub(crate) fn new(node: &Node, context: &BuildContext<'_>) -> Result<Self> {
        let Op::Process { call, key, order, event_time, state_ttl_micros, result } = &node.op else {
            return Err(DataflowError::internal("expected a stateful function"));
        };
        let input = context.input(node, 0);
        let key_fields: Vec<_> = node.schema.fields().iter().take(key.len()).cloned().collect();
        let key_types: Vec<DataType> = key_fields.iter().map(|field| field.data_type().clone()).collect();
        let order = order.iter().map(|sort| {
            let options = SortOptions { descending: !sort.asc, nulls_first: sort.nulls_first };
            Ok((compile(&sort.expr, &input.df_schema, context.state)?, options))
        });
        let order = order.collect::<Result<Vec<_>>>()?;
        let compiled = compile_all(key, &input.df_schema, context.state)?;
        let own = key_fields.iter().chain(call.declaration.state().fields()).cloned().collect::<Vec<_>>();
        Ok(Self {
            schema: Arc::clone(&node.schema),
            input: Arc::clone(&input.schema),
            call: call.clone(),
            result: *result,
            key_schema: Arc::new(Schema::new(key_fields)),
            sorter: Sorter::new(compiled, &key_types, order, &input.schema)?,
            event_time: event_time.clone(),
            states: KeyStates::new(Arc::new(Schema::new(own)), key.len(), *state_ttl_micros)?,
            touched_keys: 0,
        })
    }

    fn moment(&self, context: &StepContext<'_>) -> Result<Moment> {
        let watermark = match &self.event_time {
            None => None,
            Some(bound) => match bound.evaluate(context.bounds)? {
                BoundValue::Unknown => None,
                BoundValue::All => Some(EventTime::MAX),
                BoundValue::Below(value) => micros(&value)?,
            },
        };
        Ok(Moment { clock: context.bounds.clock, watermark })
    }

    /// Takes initial state in.
    fn load(&mut self, delta: &[DeltaBatch], now: &Moment) -> Result<Vec<Work>> {
        let schema = Arc::new(Schema::new(
            self.key_schema.fields().iter().chain(self.call.declaration.state().fields()).cloned().collect::<Vec<_>>(),
        ));
        let width = self.key_schema.fields().len();
        let mut work = vec![];
        let mut seen = BTreeSet::new();
        for part in delta {
            let batch = expand(part.batch.schema_ref(), part)?;
            check_columns(&schema, &batch, 0)?;
            let batch = RecordBatch::try_new(Arc::clone(&schema), batch.columns().to_vec())
                .map_err(|error| self.failed(&[], format!("its initial state does not fit: {error}").into()))?;
            let keys = self.sorter.encode_keys(&batch.columns()[..width])?;
            for row in 0..batch.num_rows() {
                let mut key = scalars(batch.columns(), row)?;
                let values = key.split_off(width);
                if !seen.insert(keys.as_ref().map(|keys| keys.row(row).as_ref().to_vec())) {
                    return Err(self.failed(&key, "its initial state has the key twice".into()));
                }
                let state = KeyState { row: Some(values), ..KeyState::default() };
                work.push(Work { key, slot: None, before: None, state, touched: now.clock.0 });
            }
        }
        self.states.put(&work)?;
        Ok(work)
    }

    /// Calls the function for the keys with rows.
    fn call_rows(&mut self, sorted: &Sorted, now: &Moment, calls: &mut Calls) -> Result<()> {
        let encoded = self.states.index.encode(&sorted.keys)?;
        let slots = self.states.index.find_all(&encoded, sorted.ranges.len());
        let known: Vec<u32> = slots.iter().flatten().copied().collect();
        let mut known = self.states.read(&known)?.into_iter();
        for (number, (range, slot)) in sorted.ranges.iter().zip(&slots).enumerate() {
            let found = slot.and_then(|_| known.next());
            let mut work = match found {
                Some(work) => work,
                None => {
                    let key = scalars(&sorted.keys, number)?;
                    Work { key, slot: None, before: None, state: KeyState::default(), touched: now.clock.0 }
                }
            };
            work.touched = now.clock.0;
            let rows = sorted.rows.slice(range.start, range.len());
            calls.work.push(work);
            self.call(calls, number, Cause::Rows, rows, now)?;
        }
        self.touched_keys += sorted.ranges.len() as u64;
        Ok(())
    }

    /// Calls the function for the keys that are due, those among them that had rows too.
    fn call_due(&mut self, now: &Moment, calls: &mut Calls) -> Result<()> {
        let with_rows: BTreeSet<u32> = calls.work.iter().filter_map(|work| work.slot).collect();
        let slots: Vec<u32> = self.states.pop_due(now).into_iter().filter(|slot| !with_rows.contains(slot)).collect();
        self.touched_keys += slots.len() as u64;
        // Their slots say nothing about the order of keys, and a restart gives them others.
        let mut read: Vec<Option<Work>> = self.states.read(&slots)?.into_iter().map(Some).collect();
        let order = self.key_order(read.iter().flatten())?;
        calls.work.extend(order.into_iter().filter_map(|place| read[place].take()));
        let due: Vec<usize> = (0..calls.work.len()).filter(|index| self.is_due(&calls.work[*index], now)).collect();
        let order = self.key_order(due.iter().map(|index| &calls.work[*index]))?;
        let due: Vec<usize> = order.into_iter().map(|place| due[place]).collect();
        for index in due {
            // Timers that a call sets again are for a later epoch.
            let (event, clock) = self.due_timers(&calls.work[index], now);
            if let Some(time) = event {
                calls.work[index].state.event_timer = None;
                self.time_out(calls, index, Cause::EventTimer(time), now)?;
            }
            // The call before may have set it anew, or removed it.
            if let Some(time) = clock.filter(|time| calls.work[index].state.clock_timer == Some(*time)) {
                calls.work[index].state.clock_timer = None;
                self.time_out(calls, index, Cause::ClockTimer(time), now)?;
            }
            let work = &calls.work[index];
            if work.state.row.is_some() && self.states.has_expired(work.touched, now) {
                self.time_out(calls, index, Cause::Expired, now)?;
                calls.work[index].state = KeyState::default();
            }
        }
        Ok(())
    }

    /// The places of keys in the order of their values.
    fn key_order<'w>(&self, work: impl Iterator<Item = &'w Work> + Clone) -> Result<Vec<usize>> {
        let count = work.clone().count();
        let mut order: Vec<usize> = (0..count).collect();
        let keys = rows_to_batch(&self.key_schema, work.map(|work| work.key.iter()), count)?;
        if let Some(keys) = self.sorter.encode_keys(keys.columns())? {
            order.sort_unstable_by(|a, b| keys.row(*a).cmp(&keys.row(*b)));
        }
        Ok(order)
    }

    fn due_timers(&self, work: &Work, now: &Moment) -> (Option<EventTime>, Option<EventTime>) {
        let event = work.state.event_timer.filter(|time| event_passed(now, time.0));
        (event, work.state.clock_timer.filter(|time| *time <= now.clock))
    }

    fn is_due(&self, work: &Work, now: &Moment) -> bool {
        let (event, clock) = self.due_timers(work, now);
        work.state.row.is_some() && (event.is_some() || clock.is_some() || self.states.has_expired(work.touched, now))
    }

    fn time_out(&self, calls: &mut Calls, index: usize, cause: Cause, now: &Moment) -> Result<()> {
        let none = RecordBatch::new_empty(Arc::clone(&self.input));
        self.call(calls, index, cause, none, now)
    }

    fn call(&self, calls: &mut Calls, index: usize, cause: Cause, rows: RecordBatch, now: &Moment) -> Result<()> {
        let Calls { work, emitted, owners } = calls;
        let Work { key, state, touched, .. } = &mut work[index];
        let mut call = KeyCall::new(&self.call.declaration, &self.call.arguments, *now, cause, key, rows, state, emitted);
        let result = self.call.function.call(&mut call);
        let changed = call.has_changed_state();
        result.map_err(|error| self.failed(key, error))?;
        if changed {
            *touched = now.clock.0;
        }
        if state.row.is_none() {
            *state = KeyState::default();
        }
        owners.resize(emitted.num_rows(), index as u32);
        Ok(())
    }

    fn failed(&self, key: &[ScalarValue], source: millstream_plan::process::FunctionError) -> DataflowError {
        let arrays: datafusion::common::Result<Vec<ArrayRef>> = key.iter().map(ScalarValue::to_array).collect();
        let key = arrays.map(|arrays| describe_row(&self.key_schema, &arrays, 0)).unwrap_or_default();
        DataflowError::Function { operator: String::new(), function: self.call.name.clone(), key, source }
    }

    /// The rows that the calls returned, with their keys.
    fn returned(&self, calls: Calls) -> Result<Delta> {
        let Calls { work, emitted, owners } = calls;
        if owners.is_empty() {
            return Ok(vec![]);
        }
        let own = self.call.declaration.output();
        let rows = concat_batches(own, &emitted.into_batches(own)?)?;
        // Only the keys that have rows are made columns.
        let mut used: Vec<u32> = owners.clone();
        used.sort_unstable();
        used.dedup();
        let keys = rows_to_batch(&self.key_schema, used.iter().map(|index| work[*index as usize].key.iter()), used.len())?;
        let places = owners.iter().map(|owner| used.binary_search(owner).map(|place| place as u32));
        let places: UInt32Array = places.map(std::result::Result::ok).collect();
        let mut columns = crate::columns::take_columns(keys.columns(), &places)?;
        columns.extend(rows.columns().iter().cloned());
        Ok(vec![DeltaBatch::insertions(make_batch(&self.schema, columns, owners.len())?)])
    }

    /// What became of the state of keys.
    fn changes(&self, work: &[Work]) -> Result<Delta> {
        let changed: Vec<&Work> = work.iter().filter(|work| work.state.row != work.before).collect();
        let mut delta = Delta::new();
        let before: Vec<_> = changed.iter().filter_map(|work| Some((&work.key, work.before.as_ref()?))).collect();
        let after: Vec<_> = changed.iter().filter_map(|work| Some((&work.key, work.state.row.as_ref()?))).collect();
        for (rows, weight) in [(before, -1), (after, 1)] {
            if !rows.is_empty() {
                let count = rows.len();
                let batch = rows_to_batch(&self.schema, rows.into_iter().map(|(key, row)| key.iter().chain(row)), count)?;
                delta.push(match weight {
                    1 => DeltaBatch::insertions(batch),
                    _ => DeltaBatch::weighted(batch, Int64Array::from_value(weight, count)),
                });
            }
        }
        Ok(delta)
    }
}

fn scalars(columns: &[ArrayRef], row: usize) -> Result<Vec<ScalarValue>> {
    Ok(columns.iter().map(|column| ScalarValue::try_from_array(column, row)).collect::<datafusion::common::Result<_>>()?)
}

/// A bound as a time.
fn micros(value: &ScalarValue) -> Result<Option<EventTime>> {
    let array = value.to_array()?;
    // The same instant whatever the zone.
    let zone = match array.data_type() {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    let array = cast(&array, &DataType::Timestamp(TimeUnit::Microsecond, zone))?;
    match ScalarValue::try_from_array(&array, 0)? {
        ScalarValue::TimestampMicrosecond(time, _) => Ok(time.map(EventTime)),
        other => Err(DataflowError::internal(format!("a bound of the input is {other}, which is no time"))),
    }
}

#[async_trait]
impl Operator for Process {
    fn needs_step(&self, context: &StepContext<'_>) -> Result<bool> {
        Ok(self.states.len() > 0 && self.states.any_due(&self.moment(context)?))
    }

    async fn step(&mut self, inputs: &[&[DeltaBatch]], context: &StepContext<'_>) -> Result<Delta> {
        let now = self.moment(context)?;
        let mut delta = Delta::new();
        if let Some(initial) = inputs.get(1).filter(|initial| context.first && num_rows(initial) > 0) {
            let loaded = self.load(initial, &now)?;
            if self.result == ProcessResult::State {
                delta.extend(self.changes(&loaded)?);
            }
        }
        let mut calls = Calls::default();
        if num_rows(inputs[0]) > 0 {
            let sorted = self.sorter.sort(&self.input, inputs[0])?;
            self.call_rows(&sorted, &now, &mut calls)?;
        }
        self.call_due(&now, &mut calls)?;
        self.states.put(&calls.work)?;
        delta.extend(match self.result {
            ProcessResult::Rows => self.returned(calls)?,
            ProcessResult::State => self.changes(&calls.work)?,
        });
        Ok(delta)
    }

    fn checkpoint(&mut self) -> Result<Option<Saved>> {
        let detail = serde_json::json!({ "function": self.call.name });
        Ok(Some(Saved { format: FORMAT, groups: vec![("keys".into(), self.states.checkpoint()?)], detail }))
    }

    fn restore(&mut self, saved: &Saved) -> Result<()> {
        saved.expect_format(FORMAT)?;
        let function: String = saved.detail("function")?;
        if function != self.call.name {
            return Err(DataflowError::mismatch(format!("it is of the function \"{function}\"")));
        }
        self.states.restore(saved.group("keys"))
    }

    fn stats(&self) -> StateStats {
        StateStats { rows: self.states.len(), bytes: self.states.bytes(), touched_keys: self.touched_keys, ..StateStats::default() }
    }
}
