//! The ends of partitions: what window functions that look back need to go on from the last row.
//!
//! ```text
//!   partition   a b c d │ x y        x, y stand behind d: their places, totals and earlier values follow from what is kept of a .. d
//!   partition   a b x c │            x stands in between: the plan is run for the whole partition, and its end is made anew
//! ```
//! Of a key are kept the number of its rows, the order of the last one, and per call the states of an aggregate, the first value or
//! the last place; of the last rows that calls look back at, their slots. All of it follows from the stored rows, so a checkpoint has
//! none of it; a restart makes it again.
//!
//! Where calls look ahead as well, new rows change the results of some before them. There are no calls then ([`Tails::of_reach`]): only the
//! slots of the last rows are kept, for the plan to be run with, as long as no two of them tie.

use super::rows::KeyedRows;
use crate::columns::{evaluate, make_batch, take_rows};
use crate::error::{DataflowError, Result};
use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array, UInt64Array, new_null_array};
use arrow::compute::{SortOptions, concat_batches, interleave};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::{DFSchemaRef, ScalarValue};
use datafusion::execution::SessionState;
use datafusion::logical_expr::SortExpr;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::physical_expr::aggregate::{AggregateFunctionExpr, LoweredAggregateBuilder};
use datafusion::physical_plan::PhysicalExpr;
use millstream_plan::compile::{compile, compile_all, with_checked_arithmetic};
use millstream_plan::graph::{Ranking, Reach, Tail, TailFunction};
use millstream_types::delta::DeltaBatch;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// The ends of all keys.
pub(super) struct Tails {
    input: SchemaRef,
    output: SchemaRef,
    with_calls: SchemaRef,
    order: Vec<Arc<dyn PhysicalExpr>>,
    /// The order as bytes, by how many of its keys; the last one is the whole.
    encoders: Vec<(usize, RowConverter)>,
    calls: Vec<Call>,
    outputs: Vec<Arc<dyn PhysicalExpr>>,
    /// How many of the last rows are kept.
    back: usize,
    /// The plan is run with the last rows, so that the order of these must be one.
    untied: bool,
    /// By slot of the key.
    ends: Vec<Option<Box<End>>>,
    known: usize,
}

struct Call {
    function: Function,
    /// Which encoder has its ORDER BY.
    order: usize,
    changes_ties: bool,
    data_type: DataType,
}

enum Function {
    Ranking(Ranking),
    Lag { value: Arc<dyn PhysicalExpr>, back: usize },
    First { value: Arc<dyn PhysicalExpr> },
    Aggregate { call: Arc<AggregateFunctionExpr>, arguments: Vec<Arc<dyn PhysicalExpr>>, by_value: bool, back: Option<usize> },
}

/// The end of a key.
#[derive(Clone, Debug)]
struct End {
    count: u64,
    /// By encoder: the last row.
    last: Vec<Box<[u8]>>,
    /// Slots of the last rows, oldest first.
    recent: Vec<u32>,
    /// How many of the last rows do not tie with the one before them.
    untied: u64,
    /// By call.
    states: Vec<CallState>,
}

#[derive(Clone, Debug)]
enum CallState {
    /// Nothing but the number of rows, or the last ones.
    None,
    Place(u64),
    First(ScalarValue),
    Aggregate(Vec<ScalarValue>),
}

/// Rows by key, in order.
pub(super) struct Sorted {
    rows: RecordBatch,
    /// By encoder.
    encoded: Vec<Rows>,
    /// By row: its place in `encoded`.
    places: Vec<usize>,
    pub(super) segments: Vec<(u32, Range<usize>)>,
}

/// The rows before those of a batch, by segment.
struct Before {
    rows: RecordBatch,
    segments: Vec<Range<usize>>,
}

impl Tails {
    pub(super) fn new(tail: &Tail, input: &SchemaRef, output: &SchemaRef, state: &SessionState) -> Result<Self> {
        let mut lengths: Vec<usize> = tail.calls.iter().map(|call| call.order).chain([tail.order.len()]).collect();
        lengths.sort_unstable();
        lengths.dedup();
        let (order, encoders) = orders(&tail.order, &lengths, &tail.input, state)?;
        let calls = tail.calls.iter().map(|call| {
            let function = match &call.function {
                TailFunction::Ranking(ranking) => Function::Ranking(*ranking),
                TailFunction::Lag { value, back } => Function::Lag { value: compile(value, &tail.input, state)?, back: *back as usize },
                TailFunction::First { value } => Function::First { value: compile(value, &tail.input, state)? },
                TailFunction::Aggregate { call, by_value, back } => {
                    let context = PhysicalPlanningContext::default();
                    let schema = tail.input.inner();
                    let lowered = LoweredAggregateBuilder::new(call, &tail.input, schema, state.execution_props(), &context).build()?;
                    let arguments = lowered.aggregate.expressions();
                    let arguments = arguments.into_iter().map(with_checked_arithmetic).collect::<datafusion::common::Result<Vec<_>>>()?;
                    Function::Aggregate { call: lowered.aggregate, arguments, by_value: *by_value, back: back.map(|back| back as usize) }
                }
            };
            let order = lengths.binary_search(&call.order).map_err(|_| DataflowError::internal("a call has an order of its own"))?;
            Ok(Call { function, order, changes_ties: call.changes_ties(), data_type: call.data_type.clone() })
        });
        Ok(Self {
            calls: calls.collect::<Result<_>>()?,
            outputs: compile_all(&tail.outputs, &tail.with_calls, state)?,
            with_calls: nullable(tail.with_calls.inner()),
            input: Arc::clone(input),
            output: Arc::clone(output),
            order,
            encoders,
            back: tail.back() as usize,
            untied: false,
            ends: vec![],
            known: 0,
        })
    }

    /// For a plan that is run with the last rows.
    pub(super) fn of_reach(reach: &Reach, input: &SchemaRef, output: &SchemaRef, state: &SessionState) -> Result<Self> {
        let (order, encoders) = orders(&reach.order, &[reach.order.len()], &reach.input, state)?;
        Ok(Self {
            calls: vec![],
            outputs: vec![],
            with_calls: Arc::clone(input),
            input: Arc::clone(input),
            output: Arc::clone(output),
            order,
            encoders,
            back: (reach.back + reach.ahead) as usize,
            untied: true,
            ends: vec![],
            known: 0,
        })
    }

    /// Whether the results of new rows are those of a plan that is run with the last rows.
    pub(super) fn runs_plan(&self) -> bool {
        self.untied
    }

    /// The new rows that stand behind all others of their key, if they all do. `stored` does not have them yet.
    pub(super) fn behind(&self, parts: &[(DeltaBatch, Vec<u32>)], stored: &KeyedRows) -> Result<(Sorted, Vec<(usize, usize)>)> {
        let (mut all, mut places, mut keys) = (vec![], vec![], vec![]);
        let mut goes: HashMap<u32, bool> = HashMap::new();
        for (index, (part, of_rows)) in parts.iter().enumerate() {
            let (mut rows, mut repeats) = (vec![], false);
            for (row, key) in of_rows.iter().enumerate() {
                let weight = part.weights.value(row);
                *goes.entry(*key).or_default() |= weight < 0;
                repeats |= weight != 1;
                rows.extend(std::iter::repeat_n(row, usize::try_from(weight).unwrap_or(0).max(1)));
            }
            keys.extend(rows.iter().map(|row| of_rows[*row]));
            places.extend(rows.iter().map(|row| (index, *row)));
            let indices = || UInt32Array::from_iter_values(rows.iter().map(|row| *row as u32));
            all.push(if repeats { take_rows(&part.batch, &indices())? } else { part.batch.clone() });
        }
        let all = concat_batches(&self.input, &all)?;
        let sorted = self.sorted(all, &keys)?;
        let is_behind = |(key, range): &(u32, Range<usize>)| {
            let end = self.ends.get(*key as usize).and_then(Option::as_ref);
            !goes[key]
                && (!self.untied || sorted.untied(range) == range.len())
                && match end {
                    None => stored.len_of(*key) == 0,
                    Some(end) => self.follows(&sorted, range.start, end),
                }
        };
        let kept: Vec<(u32, Range<usize>)> = sorted.segments.iter().filter(|segment| is_behind(segment)).cloned().collect();
        let Sorted { rows, encoded, places: order, .. } = sorted;
        let picked: Vec<usize> = kept.iter().flat_map(|(_, range)| range.clone()).collect();
        let mut first = 0;
        let segments = kept.into_iter().map(|(key, range)| {
            first += range.len();
            (key, first - range.len()..first)
        });
        let segments = segments.collect();
        let rows = take_rows(&rows, &UInt32Array::from_iter_values(picked.iter().map(|row| *row as u32)))?;
        let order: Vec<usize> = picked.into_iter().map(|row| order[row]).collect();
        let origins = order.iter().map(|place| places[*place]).collect();
        Ok((Sorted { rows, encoded, places: order, segments }, origins))
    }

    /// Whether a row stands behind the end of its key and leaves its last row as it is.
    fn follows(&self, sorted: &Sorted, row: usize, end: &End) -> bool {
        let whole = self.encoders.len() - 1;
        if self.untied && end.untied < end.count.min(self.back as u64) {
            return false;
        }
        let ties = |call: &Call| call.changes_ties && sorted.bytes(call.order, row) == end.last[call.order].as_ref();
        sorted.bytes(whole, row) > end.last[whole].as_ref() && !self.calls.iter().any(ties)
    }

    /// Rows by key, keys in the order of their first row, the rows of a key in its order.
    fn sorted(&self, rows: RecordBatch, keys: &[u32]) -> Result<Sorted> {
        let columns = self.order.iter().map(|expr| evaluate(expr, &rows)).collect::<Result<Vec<_>>>()?;
        let encoded: Vec<Rows> = self
            .encoders
            .iter()
            .map(|(length, encoder)| encoder.convert_columns(&columns[..*length]))
            .collect::<std::result::Result<_, _>>()?;
        let mut first: HashMap<u32, usize> = HashMap::new();
        for (row, key) in keys.iter().enumerate() {
            first.entry(*key).or_insert(row);
        }
        let whole = &encoded[encoded.len() - 1];
        let mut places: Vec<usize> = (0..keys.len()).collect();
        places.sort_by(|a, b| first[&keys[*a]].cmp(&first[&keys[*b]]).then_with(|| whole.row(*a).cmp(&whole.row(*b))));
        let mut segments: Vec<(u32, Range<usize>)> = vec![];
        for (row, place) in places.iter().enumerate() {
            match segments.last_mut() {
                Some((key, range)) if *key == keys[*place] => range.end = row + 1,
                _ => segments.push((keys[*place], row..row + 1)),
            }
        }
        let rows = take_rows(&rows, &UInt32Array::from_iter_values(places.iter().map(|place| *place as u32)))?;
        Ok(Sorted { rows, encoded, places, segments })
    }

    /// Moves the ends on by rows behind them, which have these slots; returns the results of the rows.
    pub(super) fn advance(&mut self, sorted: &Sorted, slots: &[u32], stored: &KeyedRows) -> Result<RecordBatch> {
        let mut ends: Vec<End> = sorted.segments.iter().map(|(key, _)| self.take_end(*key)).collect();
        let before = self.before(&ends, stored)?;
        let mut columns = sorted.rows.columns().to_vec();
        for (index, call) in self.calls.iter().enumerate() {
            columns.push(values(index, call, sorted, &mut ends, &before)?);
        }
        self.put_ends(sorted, slots, ends);
        let rows = make_batch(&self.with_calls, columns, sorted.rows.num_rows())?;
        let outputs = self.outputs.iter().map(|output| evaluate(output, &rows)).collect::<Result<Vec<_>>>()?;
        make_batch(&self.output, outputs, rows.num_rows())
    }

    /// The last rows of the keys of new rows, which are to stand behind these.
    pub(super) fn last_rows(&self, sorted: &Sorted, stored: &KeyedRows) -> Result<RecordBatch> {
        let ends = sorted.segments.iter().filter_map(|(key, _)| self.ends.get(*key as usize)?.as_ref());
        let slots: Vec<u32> = ends.flat_map(|end| &end.recent).copied().collect();
        stored.gather(&slots)
    }

    /// Moves the ends on by rows behind them, whose results are known.
    pub(super) fn pass(&mut self, sorted: &Sorted, slots: &[u32]) {
        let ends: Vec<End> = sorted.segments.iter().map(|(key, _)| self.take_end(*key)).collect();
        self.put_ends(sorted, slots, ends);
    }

    /// Puts ends behind rows.
    fn put_ends(&mut self, sorted: &Sorted, slots: &[u32], ends: Vec<End>) {
        for ((key, range), mut end) in sorted.segments.iter().zip(ends) {
            let untied = sorted.untied(range) as u64;
            end.untied = if untied == range.len() as u64 { end.untied + untied } else { untied };
            end.count += range.len() as u64;
            end.last = (0..self.encoders.len()).map(|encoder| sorted.bytes(encoder, range.end - 1).into()).collect();
            end.recent.extend_from_slice(&slots[range.clone()]);
            let surplus = end.recent.len().saturating_sub(self.back);
            end.recent.drain(..surplus);
            end.recent.shrink_to(self.back);
            self.put_end(*key, Some(end));
        }
    }

    /// Makes the ends of keys from their stored rows.
    pub(super) fn rebuild(&mut self, keys: &[u32], stored: &KeyedRows) -> Result<()> {
        for key in keys {
            self.put_end(*key, None);
            let slots = stored.slots_of(*key);
            if slots.is_empty() {
                continue;
            }
            let sorted = self.sorted(stored.gather(&slots)?, &vec![*key; slots.len()])?;
            let slots: Vec<u32> = sorted.places.iter().map(|place| slots[*place]).collect();
            let mut end = self.take_end(*key);
            for (index, call) in self.calls.iter().enumerate() {
                end.states[index] = final_state(call, &sorted)?;
            }
            self.put_ends(&sorted, &slots, vec![end]);
        }
        Ok(())
    }

    /// Forgets the end of a key.
    pub(super) fn forget(&mut self, key: u32) {
        self.put_end(key, None);
    }

    /// Memory in bytes, roughly.
    pub(super) fn bytes(&self) -> usize {
        let order: usize = self.encoders.iter().map(|(length, _)| size_of::<Box<[u8]>>() + 16 * length).sum();
        let states = self.calls.len() * (size_of::<CallState>() + 2 * size_of::<ScalarValue>());
        self.ends.capacity() * size_of::<usize>() + self.known * (size_of::<End>() + order + states + 4 * self.back)
    }

    fn take_end(&mut self, key: u32) -> End {
        let known = self.ends.get_mut(key as usize).and_then(Option::take);
        self.known -= usize::from(known.is_some());
        known.map_or_else(
            || End { count: 0, last: vec![], recent: vec![], untied: 0, states: vec![CallState::None; self.calls.len()] },
            |end| *end,
        )
    }

    fn put_end(&mut self, key: u32, end: Option<End>) {
        if self.ends.len() <= key as usize {
            self.ends.resize(key as usize + 1, None);
        }
        self.known += usize::from(end.is_some());
        let old = std::mem::replace(&mut self.ends[key as usize], end.map(Box::new));
        self.known -= usize::from(old.is_some());
    }

    /// The last rows of ends.
    fn before(&self, ends: &[End], stored: &KeyedRows) -> Result<Before> {
        let slots: Vec<u32> = ends.iter().flat_map(|end| &end.recent).copied().collect();
        let mut first = 0;
        let segments = ends.iter().map(|end| {
            first += end.recent.len();
            first - end.recent.len()..first
        });
        Ok(Before { segments: segments.collect(), rows: stored.gather(&slots)? })
    }
}

impl Sorted {
    /// The rows.
    pub(super) fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    /// The order of a row.
    fn bytes(&self, encoder: usize, row: usize) -> &[u8] {
        self.encoded[encoder].row(self.places[row]).data()
    }

    /// How many of the last rows of a key do not tie with the one before them.
    fn untied(&self, range: &Range<usize>) -> usize {
        let whole = self.encoded.len() - 1;
        let ties = |row: &usize| *row > range.start && self.bytes(whole, *row) == self.bytes(whole, *row - 1);
        range.clone().rev().position(|row| ties(&row)).unwrap_or(range.len())
    }

    /// Stretches of rows that tie.
    fn ties(&self, encoder: usize, range: &Range<usize>) -> Vec<Range<usize>> {
        let mut ties: Vec<Range<usize>> = vec![];
        for row in range.clone() {
            match ties.last_mut() {
                Some(tie) if self.bytes(encoder, tie.start) == self.bytes(encoder, row) => tie.end = row + 1,
                _ => ties.push(row..row + 1),
            }
        }
        ties
    }
}

/// What rows are ordered by, and the order as bytes, by how many of its keys.
type Orders = (Vec<Arc<dyn PhysicalExpr>>, Vec<(usize, RowConverter)>);

fn orders(keys: &[SortExpr], lengths: &[usize], input: &DFSchemaRef, state: &SessionState) -> Result<Orders> {
    let exprs = keys.iter().map(|key| Ok(compile(&key.expr, input, state)?)).collect::<Result<Vec<_>>>()?;
    let encoder = |length: &usize| {
        let field = |(expr, key): (&Arc<dyn PhysicalExpr>, &SortExpr)| {
            let options = SortOptions { descending: !key.asc, nulls_first: key.nulls_first };
            Ok(SortField::new_with_options(expr.data_type(input.inner())?, options))
        };
        let fields = exprs.iter().zip(keys).take(*length).map(field).collect::<Result<Vec<_>>>()?;
        Ok((*length, RowConverter::new(fields)?))
    };
    let encoders = lengths.iter().map(encoder).collect::<Result<_>>()?;
    Ok((exprs, encoders))
}

/// The values of call number `index` for rows, whose ends are moved on.
fn values(index: usize, call: &Call, sorted: &Sorted, ends: &mut [End], before: &Before) -> Result<ArrayRef> {
    let segments = || sorted.segments.iter().map(|(_, range)| range);
    match &call.function {
        Function::Ranking(ranking) => {
            let mut places = Vec::with_capacity(sorted.rows.num_rows());
            for (range, end) in segments().zip(ends) {
                let mut place = match end.states[index] {
                    CallState::Place(place) => place,
                    _ => 0,
                };
                for row in range.clone() {
                    let number = end.count + (row - range.start) as u64 + 1;
                    let previous = if row > range.start {
                        Some(sorted.bytes(call.order, row - 1))
                    } else {
                        end.last.get(call.order).map(AsRef::as_ref)
                    };
                    let ties = previous == Some(sorted.bytes(call.order, row));
                    place = match ranking {
                        Ranking::RowNumber => number,
                        Ranking::Rank if !ties => number,
                        Ranking::DenseRank if !ties => place + 1,
                        Ranking::Rank | Ranking::DenseRank => place,
                    };
                    places.push(place);
                }
                end.states[index] = CallState::Place(place);
            }
            Ok(Arc::new(UInt64Array::from(places)))
        }
        Function::Lag { value, back } => {
            let (own, earlier) = (evaluate(value, &sorted.rows)?, evaluate(value, &before.rows)?);
            let nothing = new_null_array(own.data_type(), 1);
            let mut picked = Vec::with_capacity(own.len());
            for (range, known) in segments().zip(&before.segments) {
                picked.extend((0..range.len()).map(|row| match row.checked_sub(*back) {
                    Some(row) => (0, range.start + row),
                    None if back - row <= known.len() => (1, known.end - (back - row)),
                    None => (2, 0),
                }));
            }
            Ok(interleave(&[own.as_ref(), earlier.as_ref(), nothing.as_ref()], &picked)?)
        }
        Function::First { value } => {
            let own = evaluate(value, &sorted.rows)?;
            let mut firsts = Vec::with_capacity(own.len());
            for (range, end) in segments().zip(ends) {
                if matches!(end.states[index], CallState::None) {
                    end.states[index] = CallState::First(ScalarValue::try_from_array(&own, range.start)?);
                }
                let CallState::First(first) = &end.states[index] else { return Err(unexpected()) };
                firsts.extend(std::iter::repeat_n(first.clone(), range.len()));
            }
            scalars(firsts, &call.data_type)
        }
        Function::Aggregate { call: function, arguments, by_value, back: None } => {
            let arguments = arguments.iter().map(|argument| evaluate(argument, &sorted.rows)).collect::<Result<Vec<_>>>()?;
            let mut totals = Vec::with_capacity(sorted.rows.num_rows());
            for (range, end) in segments().zip(ends) {
                let mut accumulator = function.create_accumulator()?;
                match &end.states[index] {
                    CallState::None => {}
                    CallState::Aggregate(state) => {
                        let state = state.iter().map(|value| value.to_array()).collect::<datafusion::common::Result<Vec<_>>>()?;
                        accumulator.merge_batch(&state)?;
                    }
                    CallState::Place(_) | CallState::First(_) => return Err(unexpected()),
                }
                let steps = if *by_value { sorted.ties(call.order, range) } else { range.clone().map(|row| row..row + 1).collect() };
                for step in steps {
                    accumulator.update_batch(&sliced(&arguments, &step))?;
                    totals.extend(std::iter::repeat_n(accumulator.evaluate()?, step.len()));
                }
                end.states[index] = CallState::Aggregate(accumulator.state()?);
            }
            scalars(totals, &call.data_type)
        }
        Function::Aggregate { call: function, arguments, back: Some(back), .. } => {
            let of = |rows: &RecordBatch| arguments.iter().map(|argument| evaluate(argument, rows)).collect::<Result<Vec<_>>>();
            let (own, earlier) = (of(&sorted.rows)?, of(&before.rows)?);
            let mut totals = Vec::with_capacity(sorted.rows.num_rows());
            for (range, known) in segments().zip(&before.segments) {
                for row in range.clone() {
                    let mut accumulator = function.create_accumulator()?;
                    let missing = back.saturating_sub(row - range.start).min(known.len());
                    if missing > 0 {
                        accumulator.update_batch(&sliced(&earlier, &(known.end - missing..known.end)))?;
                    }
                    accumulator.update_batch(&sliced(&own, &(row.saturating_sub(*back).max(range.start)..row + 1)))?;
                    totals.push(accumulator.evaluate()?);
                }
            }
            scalars(totals, &call.data_type)
        }
    }
}

/// What a call needs of all rows of a key to go on behind them.
fn final_state(call: &Call, sorted: &Sorted) -> Result<CallState> {
    let all = 0..sorted.rows.num_rows();
    Ok(match &call.function {
        Function::Ranking(Ranking::RowNumber) | Function::Lag { .. } | Function::Aggregate { back: Some(_), .. } => CallState::None,
        Function::Ranking(Ranking::Rank) => CallState::Place(sorted.ties(call.order, &all).last().map_or(0, |last| last.start as u64 + 1)),
        Function::Ranking(Ranking::DenseRank) => CallState::Place(sorted.ties(call.order, &all).len() as u64),
        Function::First { value } => CallState::First(ScalarValue::try_from_array(&evaluate(value, &sorted.rows)?, 0)?),
        Function::Aggregate { call: function, arguments, back: None, .. } => {
            let mut accumulator = function.create_accumulator()?;
            let arguments = arguments.iter().map(|argument| evaluate(argument, &sorted.rows)).collect::<Result<Vec<_>>>()?;
            accumulator.update_batch(&arguments)?;
            CallState::Aggregate(accumulator.state()?)
        }
    })
}

fn sliced(columns: &[ArrayRef], range: &Range<usize>) -> Vec<ArrayRef> {
    columns.iter().map(|column| column.slice(range.start, range.len())).collect()
}

fn scalars(values: Vec<ScalarValue>, data_type: &DataType) -> Result<ArrayRef> {
    if values.is_empty() { Ok(new_null_array(data_type, 0)) } else { Ok(ScalarValue::iter_to_array(values)?) }
}

fn unexpected() -> DataflowError {
    DataflowError::internal("the end of a partition is that of another call")
}

fn nullable(schema: &SchemaRef) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect::<Vec<_>>()))
}
