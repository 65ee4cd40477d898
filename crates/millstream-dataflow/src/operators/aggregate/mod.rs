//! Aggregate: GROUP BY and DISTINCT, at a cost proportional to the groups that a change touches.
//!
//! ```sql
//! SELECT word, count(*), max(ts) FROM lines GROUP BY word
//! ```
//! ```text
//!   delta ─▶ keys and arguments ─▶ dense local groups ─▶ slots (KeyIndex) ─▶ old states (SlotRecords, RowLog)
//!                                        │                                      │
//!                                        └────▶ accumulators: merge old, add new ◀┘
//!                                                 │ new state           │ value ─▶ - old row, + new row
//! ```
//! **In**: any schema. **Out**: the group columns, then one column per aggregate.
//! **Append-only input**: any aggregate whose partial states merge; the input may hold partial states already (`pre_aggregate.rs`).
//! **DISTINCT**: `count`, `sum` and `avg` see only the rows at which a value comes or goes (`distinct.rs`).
//! **Input with retractions**: count, sum and average (see `additive.rs`), minimum and maximum (`extremes.rs`); a group has a hidden row
//! count, vanishes at zero and may not go below. A global aggregate (no group columns) has one row from the first epoch on, which never
//! vanishes. DISTINCT is an aggregate without functions; over append-only input its groups need no numbers: a key is new or it is not.
//! **Changelog** (`Emit::Changes`): the old row of a group goes, the new one comes, if they differ. **Append-only output**
//! (`Emit::OnClose`): a group's row goes out once, when the bound of the bucket column has passed it, in the order of the buckets.
//! **State**: per group one row: key columns, then with retractions the row count (`Int64`), then the state columns of each function; the
//! values of minima and maxima over input with retractions, and those of calls with DISTINCT. **Dropped**: whole buckets below the bound;
//! groups that are final in the epoch that brings them are never stored. With `state_ttl` also groups that had no row for so long by the
//! epoch clock: their rows are taken back, in the order of keys, after the changes of the epoch. A group that comes again begins anew.
//! Rows that come below the bound of an earlier epoch are counted as dropped. **Errors**: what arguments report; a negative row count.

mod additive;
pub(crate) mod call;
mod distinct;
mod extremes;
mod groups;
pub(crate) mod interner;
pub(crate) mod pre_aggregate;
mod states;
#[cfg(test)]
mod tests;

use crate::bucket::{BucketColumn, BucketKey, Floor};
use crate::columns::{describe_row, evaluate, make_batch, take_columns};
use crate::error::{DataflowError, Result};
use crate::key_index::EncodedKeys;
use crate::operator::{Operator, Saved, StateStats, StepContext};
use crate::operators::registry::BuildContext;
use crate::zset::{check_columns, expand};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::kernels::cmp::distinct;
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use async_trait::async_trait;
use call::{Arguments, Call, NewRows};
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::physical_plan::PhysicalExpr;
use distinct::{Crossings, DistinctValues};
use extremes::Extremes;
use groups::Groups;
use interner::{Interner, Numbered, PartKeys};
use millstream_plan::compile::compile_all;
use millstream_plan::functions::{extreme_aggregate, without_distinct};
use millstream_plan::graph::{Emit, Node, Op};
use millstream_types::delta::{Delta, DeltaBatch, Weights};
use millstream_types::row_key::{RowKeyEncoder, canonical_floats};
use std::borrow::Cow;
use std::sync::Arc;

const FORMAT: u32 = 2;

/// The operator.
pub(crate) struct Aggregate {
    schema: SchemaRef,
    group: Vec<Arc<dyn PhysicalExpr>>,
    calls: Vec<Call>,
    retracting: bool,
    emit: Emit,
    /// Numbers the groups of a delta.
    interner: Interner,
    /// The input holds partial states, from this column on.
    states_first: Option<usize>,
    groups: Groups,
    /// With retractions, by call: the values of a minimum or maximum.
    extremes: Vec<Option<Extremes>>,
    /// Values of the calls with DISTINCT, by argument.
    distinct: Vec<DistinctValues>,
    touched_keys: u64,
    dropped_rows: u64,
}

/// The groups of a delta.
struct Touched {
    keys: Vec<ArrayRef>,
    count: usize,
    parts: Vec<Part>,
}

/// Rows of a delta with the local group of each.
struct Part {
    batch: RecordBatch,
    groups: Vec<usize>,
    weights: Weights,
}

/// New states by local group; the values are there when they came without states.
struct Updated {
    states: Vec<ArrayRef>,
    values: Option<Vec<ArrayRef>>,
    /// Groups that have rows.
    alive: Option<BooleanArray>,
}

impl Aggregate {
    pub(crate) fn new(node: &Node, context: &BuildContext<'_>) -> Result<Self> {
        let Op::Aggregate { group, aggregates, states, retracting, emit, bucket, state_ttl_micros } = &node.op else {
            return Err(DataflowError::internal("expected an aggregate"));
        };
        let input = context.input(node, 0);
        let group = compile_all(group, &input.df_schema, context.state)?;
        let key_types: Vec<DataType> = group.iter().map(|expr| expr.data_type(&input.schema)).collect::<datafusion::common::Result<_>>()?;
        let rows = states.as_ref().map_or(&input.df_schema, |states| &states.rows);
        let mut calls = Vec::with_capacity(aggregates.len());
        // Which calls have DISTINCT, by their argument.
        let mut distinct_calls: Vec<(Expr, Vec<usize>)> = Vec::new();
        // Groups that expire take their values along: those are part of the state of a group then.
        let values_apart = states.is_none() && state_ttl_micros.is_none();
        for (place, expr) in aggregates.iter().enumerate() {
            let Some(plain) = without_distinct(expr, rows).filter(|_| values_apart) else {
                calls.push(Call::new(expr, rows, rows.inner(), context.state)?);
                continue;
            };
            let argument = &plain.params.args[0];
            match distinct_calls.iter_mut().find(|(other, _)| other == argument) {
                Some((_, places)) => places.push(place),
                None => distinct_calls.push((argument.clone(), vec![place])),
            }
            calls.push(Call::new(&Expr::AggregateFunction(plain), rows, rows.inner(), context.state)?);
        }
        let mut state_types = Vec::new();
        let mut extremes = Vec::new();
        if *retracting {
            for (call, expr) in calls.iter().zip(aggregates) {
                let is_extreme = extreme_aggregate(expr, rows);
                if !is_extreme {
                    additive::check(call)?;
                }
                extremes.push(is_extreme.then(|| Extremes::new(call, &key_types)).transpose()?);
            }
            state_types.push(DataType::Int64);
        }
        state_types.extend(calls.iter().flat_map(|call| call.state_types.iter().cloned()));
        let bucket = match bucket {
            Some(bucket) => {
                let data_type = key_types.get(bucket.column).ok_or_else(|| DataflowError::internal("the bucket is not a group column"))?;
                Some(BucketColumn::new(bucket.column, Arc::clone(&bucket.bound), data_type)?)
            }
            None if *emit == Emit::OnClose => return Err(DataflowError::internal("groups can only close by a bucket column")),
            None => None,
        };
        if state_ttl_micros.is_some() && (*retracting || *emit == Emit::OnClose) {
            return Err(DataflowError::internal("only groups over append-only input expire, and only while they are open"));
        }
        if states.is_some() && *retracting {
            return Err(DataflowError::internal("partial states cannot take rows back"));
        }
        Ok(Self {
            schema: Arc::clone(&node.schema),
            group,
            calls,
            retracting: *retracting,
            emit: *emit,
            interner: Interner::new(&key_types)?,
            states_first: states.as_ref().map(|states| states.first),
            distinct: distinct_calls
                .into_iter()
                .map(|(argument, places)| DistinctValues::new(places, &key_types, &argument.get_type(rows)?, bucket.is_some()))
                .collect::<Result<_>>()?,
            groups: Groups::new(&key_types, &state_types, bucket, *state_ttl_micros)?,
            extremes,
            touched_keys: 0,
            dropped_rows: 0,
        })
    }

    /// Splits state columns by call; the row count, if there is one, is left out.
    fn by_call<'a>(&self, states: &'a [ArrayRef]) -> Vec<&'a [ArrayRef]> {
        call::split_states(&self.calls, &states[usize::from(self.retracting)..])
    }

    /// Rows with their keys. Rows of groups that were dropped in an earlier epoch are left out.
    fn with_keys(&mut self, delta: &[DeltaBatch]) -> Result<(Vec<Part>, Vec<PartKeys>)> {
        let mut parts = Vec::with_capacity(delta.len());
        let mut keys = Vec::with_capacity(delta.len());
        for part in delta.iter().filter(|part| part.num_rows() > 0) {
            // Without retractions weights are multiplicities.
            let (batch, weights) = match &part.weights {
                Weights::I64(_) if !self.retracting => (expand(part.batch.schema_ref(), part)?, Weights::Ones),
                weights => (part.batch.clone(), weights.clone()),
            };
            let columns = self.group.iter().map(|expr| Ok(canonical_floats(&evaluate(expr, &batch)?)?));
            let mut columns: Vec<ArrayRef> = columns.collect::<Result<_>>()?;
            let mut part = DeltaBatch { batch, weights };
            if !self.groups.none_passed(&columns)
                && let Some(buckets) = self.groups.bucket_keys(&columns)?
            {
                let floor = self.groups.floor();
                let mask = BooleanArray::from_iter(buckets.iter().map(|key| Some(!floor.passed(key))));
                let late = mask.len() - mask.true_count();
                if late > 0 {
                    self.dropped_rows += late as u64;
                    tracing::warn!(rows = late, "rows below the bound were dropped");
                    part = part.filter(&mask)?;
                    columns = columns.iter().map(|column| arrow::compute::filter(column, &mask)).collect::<std::result::Result<_, _>>()?;
                }
            }
            let rows = part.num_rows();
            if rows > 0 {
                parts.push(Part { batch: part.batch, groups: vec![], weights: part.weights });
                keys.push((columns, rows));
            }
        }
        Ok((parts, keys))
    }

    /// Numbers the groups of rows with these keys.
    fn number(&mut self, mut parts: Vec<Part>, keys: &[PartKeys]) -> Result<Touched> {
        let Numbered { keys, count, rows } = self.interner.number(keys)?;
        for (part, groups) in parts.iter_mut().zip(rows) {
            part.groups = groups;
        }
        Ok(Touched { keys, count, parts })
    }

    /// New states without retractions: old states and new rows through the accumulators. With `final_only` just the values.
    fn merge(
        &self,
        touched: &Touched,
        old: &[ArrayRef],
        present: &[usize],
        crossings: &[Option<Crossings>],
        final_only: bool,
    ) -> Result<Updated> {
        if touched.count == 0 {
            return Ok(Updated { states: vec![], values: None, alive: None });
        }
        let old = if present.is_empty() { vec![] } else { self.by_call(old) };
        // Known groups get the first numbers, since their old states come first (see `call.rs`).
        let numbers = (present.last().is_some_and(|last| last + 1 > present.len())).then(|| {
            let mut numbers = vec![usize::MAX; touched.count];
            present.iter().enumerate().for_each(|(number, group)| numbers[*group] = number);
            let new = numbers.iter_mut().filter(|number| **number == usize::MAX);
            new.enumerate().for_each(|(index, number)| *number = present.len() + index);
            numbers
        });
        let known: Vec<usize> = (0..present.len()).collect();
        let mut reached = present.len();
        let parts: Vec<NewRows<'_>> = touched
            .parts
            .iter()
            .enumerate()
            .map(|(place, part)| {
                let groups: Cow<'_, [usize]> = match &numbers {
                    Some(numbers) => part.groups.iter().map(|group| numbers[*group]).collect(),
                    None => part.groups.as_slice().into(),
                };
                reached = groups.iter().fold(reached, |reached, group| reached.max(group + 1));
                let masks = crossings.iter().map(|crossings| crossings.as_ref().map(|crossings| crossings.plus[place].clone())).collect();
                NewRows { batch: &part.batch, groups, reached, states_first: self.states_first, masks }
            })
            .collect();
        let (mut states, mut values) = call::accumulate(&self.calls, &old, &known, &parts, touched.count, final_only)?;
        if let Some(numbers) = numbers {
            let order = UInt32Array::from_iter_values(numbers.iter().map(|number| *number as u32));
            states = take_columns(&states, &order)?;
            values = take_columns(&values, &order)?;
        }
        Ok(Updated { states, values: final_only.then_some(values), alive: None })
    }

    /// New states with retractions: old state plus inserted rows minus rows taken back.
    fn add_up(&mut self, touched: &Touched, old: &[ArrayRef], rows: &[Option<u32>], crossings: &[Option<Crossings>]) -> Result<Updated> {
        if touched.count == 0 {
            return Ok(Updated { states: vec![], values: None, alive: None });
        }
        let known = rows.iter().any(Option::is_some);
        let old = if known { additive::spread(old, rows)? } else { vec![] };
        let mut counts: Vec<i64> = match old.first() {
            Some(counts) => counts.as_primitive::<Int64Type>().iter().map(|count| count.unwrap_or(0)).collect(),
            None => vec![0; touched.count],
        };
        for part in &touched.parts {
            for (row, group) in part.groups.iter().enumerate() {
                let sum = counts[*group].checked_add(part.weights.value(row));
                counts[*group] = sum.ok_or_else(|| DataflowError::internal("the row count of a group exceeds 64 bits"))?;
            }
        }
        if let Some(group) = counts.iter().position(|count| *count < 0) {
            let row = describe_row(&self.schema, &touched.keys, group);
            return Err(DataflowError::NegativeWeight { relation: String::new(), row, weight: counts[group] });
        }
        let (plus, minus) = (by_sign(&touched.parts, 1)?, by_sign(&touched.parts, -1)?);
        let contributions = |parts: &[Part], call: &Call, masks: Option<&[BooleanArray]>| -> Result<Option<Vec<ArrayRef>>> {
            if parts.is_empty() {
                return Ok(None);
            }
            let arguments = parts
                .iter()
                .enumerate()
                .map(|(place, part)| Ok((call.arguments(&part.batch)?.masked(masks.map(|masks| &masks[place])), part.groups.as_slice())));
            let arguments = arguments.collect::<Result<Vec<(Arguments, &[usize])>>>()?;
            additive::contribution(call, &arguments, touched.count).map(Some)
        };
        let old = if known { call::split_states(&self.calls, &old[1..]) } else { vec![] };
        let alive = BooleanArray::from_iter(counts.iter().map(|count| Some(*count > 0 || self.interner.is_unit())));
        let mut states: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(counts))];
        for (index, (call, extremes)) in self.calls.iter().zip(&mut self.extremes).enumerate() {
            if let Some(extremes) = extremes {
                states.push(extremes.update(call, &touched.keys, touched.count, &touched.parts)?);
                continue;
            }
            let (plus, minus) = match &crossings[index] {
                Some(Crossings { plus, minus }) => {
                    (contributions(&touched.parts, call, Some(plus))?, contributions(&touched.parts, call, Some(minus))?)
                }
                None => (contributions(&plus, call, None)?, contributions(&minus, call, None)?),
            };
            let old = old.get(index).copied();
            states.extend(additive::combine(call, old, plus.as_deref(), minus.as_deref(), touched.count)?);
        }
        Ok(Updated { states, values: None, alive: Some(alive) })
    }

    /// The aggregates' values for `count` states.
    fn values(&self, states: &[ArrayRef], count: usize) -> Result<Vec<ArrayRef>> {
        self.calls.iter().zip(self.by_call(states)).map(|(call, state)| call.values(state, count)).collect()
    }

    /// Output rows from keys and values.
    fn output(&self, keys: &[ArrayRef], values: &[ArrayRef], rows: &[u32]) -> Result<RecordBatch> {
        let columns: Vec<ArrayRef> = keys.iter().chain(values).cloned().collect();
        let all = columns.first().is_some_and(|column| column.len() == rows.len());
        // As many rows as there are, in ascending order: all of them.
        let columns = if all { columns } else { take_columns(&columns, &UInt32Array::from(rows.to_vec()))? };
        make_batch(&self.schema, columns, rows.len())
    }

    /// `- old row`, `+ new row` of each touched group that differs.
    fn changes(&self, touched: &Touched, slots: &[Option<u32>], old: &[ArrayRef], updated: &Updated) -> Result<Delta> {
        if touched.count == 0 {
            return Ok(vec![]);
        }
        let present: Vec<u32> = (0..touched.count as u32).filter(|group| slots[*group as usize].is_some()).collect();
        let alive = |group: u32| updated.alive.as_ref().is_none_or(|alive| alive.value(group as usize));
        let values = match &updated.values {
            Some(values) => values.clone(),
            None => self.values(&updated.states, touched.count)?,
        };
        let mut delta = Vec::with_capacity(2);
        // By group: its row stays as it is.
        let mut unchanged = vec![false; touched.count];
        if !present.is_empty() {
            let old_values = self.values(old, present.len())?;
            let indices = UInt32Array::from(present.clone());
            let new_values = take_columns(&values, &indices)?;
            let same = same_rows(&old_values, &new_values, present.len())?;
            let mut gone = Vec::new();
            for (row, group) in present.iter().enumerate() {
                if same[row] && alive(*group) {
                    unchanged[*group as usize] = true;
                } else {
                    gone.push(row as u32);
                }
            }
            if !gone.is_empty() {
                let old_keys = take_columns(&touched.keys, &indices)?;
                let batch = self.output(&old_keys, &old_values, &gone)?;
                delta.push(DeltaBatch::weighted(batch, Int64Array::from_value(-1, gone.len())));
            }
        }
        let new: Vec<u32> = (0..touched.count as u32).filter(|group| alive(*group) && !unchanged[*group as usize]).collect();
        if !new.is_empty() {
            delta.push(DeltaBatch::insertions(self.output(&touched.keys, &values, &new)?));
        }
        Ok(delta)
    }

    /// The rows of closed groups, in the order of their buckets: those at rest (`slots`) and those of this epoch (`groups`).
    fn closed_rows(&self, slots: &[u32], touched: &Touched, updated: &Updated, groups: &[u32]) -> Result<Delta> {
        let mut batches = Vec::with_capacity(2);
        if !slots.is_empty() {
            let (keys, states) = (self.groups.keys(slots)?, self.groups.states(slots)?);
            let all: Vec<u32> = (0..slots.len() as u32).collect();
            batches.push(self.output(&keys, &self.values(&states, slots.len())?, &all)?);
        }
        if !groups.is_empty() {
            let batch = match &updated.values {
                Some(values) => self.output(&touched.keys, values, groups)?,
                None => {
                    let indices = UInt32Array::from(groups.to_vec());
                    let keys = take_columns(&touched.keys, &indices)?;
                    let values = self.values(&take_columns(&updated.states, &indices)?, groups.len())?;
                    self.output(&keys, &values, &(0..groups.len() as u32).collect::<Vec<_>>())?
                }
            };
            batches.push(batch);
        }
        if batches.is_empty() {
            return Ok(vec![]);
        }
        let all = arrow::compute::concat_batches(&self.schema, &batches)?;
        let keys = self.groups.bucket_keys(all.columns())?.unwrap_or_default();
        if keys.is_sorted() {
            return Ok(vec![DeltaBatch::insertions(all)]);
        }
        let mut order: Vec<u32> = (0..all.num_rows() as u32).collect();
        order.sort_by(|a, b| keys[*a as usize].cmp(&keys[*b as usize]));
        Ok(vec![DeltaBatch::insertions(all).take(&UInt32Array::from(order))?])
    }

    /// Whether a group is a key and no more, which comes once: DISTINCT over append-only input.
    fn only_new_keys(&self) -> bool {
        self.calls.is_empty() && !self.retracting && self.emit == Emit::Changes && !self.interner.is_unit()
    }

    /// The keys that are new, and closes what the floor has passed: what [`apply`](Self::apply) does, for [keys
    /// alone](Self::only_new_keys).
    fn admit(&mut self, keys: &[PartKeys], floor: Floor) -> Result<Delta> {
        let mut delta = vec![];
        for (columns, rows) in keys {
            self.touched_keys += *rows as u64;
            if let Some(new) = self.groups.admit(columns, *rows)? {
                delta.push(DeltaBatch::insertions(make_batch(&self.schema, new.columns().to_vec(), new.num_rows())?));
            }
        }
        let closed = self.groups.pop_passed(floor);
        self.groups.forget(&closed)?;
        Ok(delta)
    }

    /// Applies the change of the touched groups and closes what the floor has passed.
    fn apply(&mut self, touched: &Touched, floor: Floor) -> Result<Delta> {
        let encoded = if touched.count > 0 { self.groups.index.encode(&touched.keys)? } else { EncodedKeys::Unit };
        let slots = self.groups.index.find_all(&encoded, touched.count);
        let present: Vec<usize> = (0..touched.count).filter(|group| slots[*group].is_some()).collect();
        let old_slots: Vec<u32> = slots.iter().copied().flatten().collect();
        let buckets = if touched.count > 0 { self.groups.bucket_keys(&touched.keys)? } else { None };
        let closing = |group: u32| buckets.as_ref().is_some_and(|keys| floor.passed(&keys[group as usize]));
        self.touched_keys += touched.count as u64;

        let old = if present.is_empty() { vec![] } else { self.groups.states(&old_slots)? };
        let crossings = self.crossings(touched, buckets.as_deref())?;
        let all_closing = touched.count > 0 && (0..touched.count as u32).all(&closing);
        let updated = if self.retracting {
            let mut next = 0u32..;
            let rows: Vec<Option<u32>> = slots.iter().map(|slot| slot.and_then(|_| next.next())).collect();
            self.add_up(touched, &old, &rows, &crossings)?
        } else {
            self.merge(touched, &old, &present, &crossings, all_closing)?
        };
        let alive = |group: u32| updated.alive.as_ref().is_none_or(|alive| alive.value(group as usize));

        let delta = match self.emit {
            Emit::Changes => self.changes(touched, &slots, &old, &updated)?,
            Emit::OnClose => vec![],
        };

        // Groups that stay are written; closing ones leave with their bucket, so only vanished ones are taken out of it.
        let kept: Vec<u32> = (0..touched.count as u32).filter(|group| alive(*group) && !closing(*group)).collect();
        let vanished: Vec<u32> = (0..touched.count as u32).filter(|group| !alive(*group) && !closing(*group)).collect();
        if !vanished.is_empty() {
            let (slots, keys): (Vec<u32>, Vec<BucketKey>) = vanished
                .iter()
                .filter_map(|group| slots[*group as usize].map(|slot| (slot, *group)))
                .map(|(slot, group)| (slot, buckets.as_ref().map_or(BucketKey::Null, |keys| keys[group as usize].clone())))
                .unzip();
            self.groups.remove(&slots, Some(&keys))?;
        }
        if !kept.is_empty() {
            let (states, kept_slots) = if kept.len() == touched.count {
                (updated.states.clone(), slots.clone())
            } else {
                let kept_slots = kept.iter().map(|group| slots[*group as usize]).collect();
                (take_columns(&updated.states, &UInt32Array::from(kept.clone()))?, kept_slots)
            };
            self.groups.write(states, &kept, &kept_slots, &encoded, buckets.as_deref())?;
        }

        let mut delta = delta;
        let closed = self.groups.pop_passed(floor.clone());
        if self.emit == Emit::OnClose {
            let touched_slots: std::collections::HashSet<u32> =
                (0..touched.count as u32).filter(|group| closing(*group)).filter_map(|group| slots[group as usize]).collect();
            let at_rest: Vec<u32> = closed.iter().copied().filter(|slot| !touched_slots.contains(slot)).collect();
            let now: Vec<u32> = (0..touched.count as u32).filter(|group| closing(*group) && alive(*group)).collect();
            delta = self.closed_rows(&at_rest, touched, &updated, &now)?;
        }
        self.forget_values(&closed, touched, &closing)?;
        self.distinct.iter_mut().for_each(|distinct| distinct.drop_passed(&floor));
        self.groups.forget(&closed)?;
        Ok(delta)
    }

    /// By call with DISTINCT: the rows at which its values come and go.
    fn crossings(&mut self, touched: &Touched, buckets: Option<&[BucketKey]>) -> Result<Vec<Option<Crossings>>> {
        let mut crossings = vec![None; self.calls.len()];
        if touched.count > 0 {
            for distinct in &mut self.distinct {
                for (call, found) in distinct.update(&self.calls, &touched.keys, buckets, &touched.parts)? {
                    crossings[call] = Some(found);
                }
            }
        }
        Ok(crossings)
    }

    /// Forgets the values of groups that close: those at rest and those of this epoch.
    fn forget_values(&mut self, slots: &[u32], touched: &Touched, closing: &dyn Fn(u32) -> bool) -> Result<()> {
        if self.extremes.iter().all(Option::is_none) {
            return Ok(());
        }
        let now: Vec<u32> = (0..touched.count as u32).filter(|group| closing(*group)).collect();
        let mut closed = Vec::with_capacity(2);
        if !now.is_empty() {
            closed.push(take_columns(&touched.keys, &UInt32Array::from(now))?);
        }
        if !slots.is_empty() {
            closed.push(self.groups.keys(slots)?);
        }
        self.extremes.iter_mut().flatten().try_for_each(|extremes| closed.iter().try_for_each(|keys| extremes.forget(keys)))
    }

    /// Takes the rows of expired groups back and drops the groups.
    fn expire(&mut self, clock: i64) -> Result<Option<DeltaBatch>> {
        let slots = self.groups.pop_expired(clock)?;
        if slots.is_empty() {
            return Ok(None);
        }
        let (keys, states) = (self.groups.keys(&slots)?, self.groups.states(&slots)?);
        let all: Vec<u32> = (0..slots.len() as u32).collect();
        let batch = self.output(&keys, &self.values(&states, slots.len())?, &all)?;
        let buckets = self.groups.bucket_keys(&keys)?;
        self.groups.remove(&slots, buckets.as_deref())?;
        Ok(Some(DeltaBatch::weighted(batch, Int64Array::from_value(-1, slots.len()))))
    }
}

/// The name in checkpoints of the values of a call.
fn values_of(call: usize) -> String {
    format!("values {call}")
}

/// The name in checkpoints of the distinct values of an argument.
fn distinct_values_of(argument: usize) -> String {
    format!("distinct values {argument}")
}

/// Rows of one sign, repeated by the size of their weight.
fn by_sign(parts: &[Part], sign: i64) -> Result<Vec<Part>> {
    let mut result = Vec::with_capacity(parts.len());
    for part in parts {
        let Weights::I64(weights) = &part.weights else {
            if sign > 0 {
                result.push(Part { batch: part.batch.clone(), groups: part.groups.clone(), weights: Weights::Ones });
            }
            continue;
        };
        let mut indices = Vec::with_capacity(weights.len());
        for (row, weight) in weights.values().iter().enumerate().filter(|(_, weight)| weight.signum() == sign) {
            indices.extend(std::iter::repeat_n(row as u32, weight.unsigned_abs() as usize));
        }
        if !indices.is_empty() {
            let groups = indices.iter().map(|row| part.groups[*row as usize]).collect();
            let batch = crate::columns::take_rows(&part.batch, &UInt32Array::from(indices))?;
            result.push(Part { batch, groups, weights: Weights::Ones });
        }
    }
    Ok(result)
}

/// By row: all columns have the same value (NULL equals NULL, floats by their bits).
pub(crate) fn same_rows(old: &[ArrayRef], new: &[ArrayRef], count: usize) -> Result<Vec<bool>> {
    let mut same = vec![true; count];
    for (old, new) in old.iter().zip(new) {
        if old.data_type().is_nested() {
            let encoder = RowKeyEncoder::new([old.data_type().clone()])?;
            let (old, new) = (encoder.encode(std::slice::from_ref(old))?, encoder.encode(std::slice::from_ref(new))?);
            for (row, same) in same.iter_mut().enumerate() {
                *same &= old.row(row) == new.row(row);
            }
        } else {
            let differs = distinct(old, new)?;
            for (row, same) in same.iter_mut().enumerate() {
                *same &= !differs.value(row);
            }
        }
    }
    Ok(same)
}

#[async_trait]
impl Operator for Aggregate {
    fn needs_step(&self, context: &StepContext<'_>) -> Result<bool> {
        if context.first && self.interner.is_unit() {
            return Ok(true);
        }
        if self.groups.any_expired(context.bounds.clock.0) {
            return Ok(true);
        }
        match &self.groups.bucket {
            Some((column, _)) if self.groups.len() > 0 => Ok(self.groups.any_passed(&column.read(context.bounds)?)),
            _ => Ok(false),
        }
    }

    async fn step(&mut self, inputs: &[&[DeltaBatch]], context: &StepContext<'_>) -> Result<Delta> {
        let floor = match &self.groups.bucket {
            Some((column, _)) => column.read(context.bounds)?,
            None => Floor::Unknown,
        };
        let (parts, keys) = self.with_keys(inputs[0])?;
        if parts.is_empty() && self.interner.is_unit() && !context.first {
            return Ok(vec![]);
        }
        let clock = context.bounds.clock.0;
        self.groups.set_clock(clock);
        let mut delta = if self.only_new_keys() {
            self.admit(&keys, floor)?
        } else {
            let touched = self.number(parts, &keys)?;
            self.apply(&touched, floor)?
        };
        delta.extend(self.expire(clock)?);
        Ok(delta)
    }

    fn checkpoint(&mut self) -> Result<Option<Saved>> {
        let functions: Vec<&str> = self.calls.iter().map(Call::function).collect();
        let detail = serde_json::json!({ "floor": self.groups.floor(), "functions": functions });
        let mut groups = vec![("groups".to_string(), self.groups.checkpoint()?)];
        for (index, extremes) in self.extremes.iter().enumerate() {
            groups
                .extend(extremes.as_ref().map(|extremes| Ok::<_, DataflowError>((values_of(index), extremes.checkpoint()?))).transpose()?);
        }
        for (index, distinct) in self.distinct.iter().enumerate() {
            groups.push((distinct_values_of(index), distinct.checkpoint()?));
        }
        Ok(Some(Saved { format: FORMAT, groups, detail }))
    }

    fn restore(&mut self, saved: &Saved) -> Result<()> {
        saved.expect_format(FORMAT)?;
        let functions: Vec<String> = saved.detail("functions")?;
        if functions.iter().map(String::as_str).ne(self.calls.iter().map(Call::function)) {
            return Err(DataflowError::mismatch(format!("it is of the functions {}", functions.join(", "))));
        }
        let floor: Floor = saved.detail("floor")?;
        if let Some((column, _)) = &mut self.groups.bucket {
            column.floor = floor;
        }
        let batches = saved.group("groups");
        for batch in batches {
            check_columns(self.groups.schema(), batch, usize::from(self.groups.expires()))?;
        }
        self.groups.restore(batches)?;
        for (index, extremes) in self.extremes.iter_mut().enumerate() {
            let Some(extremes) = extremes else { continue };
            let batches = saved.group(&values_of(index));
            batches.iter().try_for_each(|batch| check_columns(extremes.schema(), batch, 0))?;
            extremes.restore(batches)?;
        }
        for (index, distinct) in self.distinct.iter_mut().enumerate() {
            for batch in saved.group(&distinct_values_of(index)) {
                check_columns(distinct.schema(), batch, 0)?;
                distinct.restore(batch, self.groups.bucket_keys(batch.columns())?.as_deref())?;
            }
        }
        Ok(())
    }

    fn stats(&self) -> StateStats {
        StateStats {
            rows: self.groups.len(),
            bytes: self.groups.bytes()
                + self.extremes.iter().flatten().map(Extremes::bytes).sum::<usize>()
                + self.distinct.iter().map(DistinctValues::bytes).sum::<usize>(),
            touched_keys: self.touched_keys,
            dropped_rows: self.dropped_rows,
            ..StateStats::default()
        }
    }
}
