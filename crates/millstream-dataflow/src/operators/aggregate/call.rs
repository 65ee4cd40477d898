//! One aggregate function call: its arguments, its accumulators and its state columns.
//!
//! DataFusion's accumulators do the arithmetic. Reading one empties it, so every step makes fresh ones, merges the old state into them,
//! adds the new rows and takes the new state out; a value is the evaluation of a state.
//!
//! Accumulators rely on one thing: of `count` groups, each has had a row by the end of the call that says `count`. (While no value is NULL
//! they only remember the number of groups.) So groups are numbered by first occurrence, and a group without rows gets one that a
//! filter hides.

use crate::columns::evaluate;
use crate::error::{DataflowError, Result};
use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::common::cast::as_boolean_array;
use datafusion::execution::SessionState;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{EmitTo, Expr, GroupsAccumulator};
use datafusion::physical_expr::GroupsAccumulatorAdapter;
use datafusion::physical_expr::aggregate::{AggregateFunctionExpr, LoweredAggregateBuilder};
use datafusion::physical_plan::PhysicalExpr;
use millstream_plan::compile::with_checked_arithmetic;
use millstream_plan::functions::sum;
use std::borrow::Cow;
use std::sync::Arc;

/// A compiled call.
#[derive(Debug)]
pub(crate) struct Call {
    expr: Arc<AggregateFunctionExpr>,
    /// Arguments, then ORDER BY expressions.
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    filter: Option<Arc<dyn PhysicalExpr>>,
    /// Types of the state columns.
    pub(crate) state_types: Vec<DataType>,
    /// The state of a group without rows: one row per state column.
    pub(crate) empty_state: Vec<ArrayRef>,
    /// Arguments of one hidden row.
    nothing: Arguments,
    /// The only state column is the value.
    state_is_value: bool,
}

/// Arguments of a call for the rows of a batch.
#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) values: Vec<ArrayRef>,
    pub(crate) filter: Option<BooleanArray>,
}

impl Arguments {
    /// With another choice of rows, if one is given.
    pub(crate) fn masked(mut self, mask: Option<&BooleanArray>) -> Self {
        if let Some(mask) = mask {
            self.filter = Some(mask.clone());
        }
        self
    }
}

impl Call {
    /// Compiles `expr` over rows of `schema`.
    pub(crate) fn new(expr: &Expr, df_schema: &DFSchema, schema: &SchemaRef, state: &SessionState) -> Result<Self> {
        let context = PhysicalPlanningContext::default();
        let lowered = LoweredAggregateBuilder::new(expr, df_schema, schema, state.execution_props(), &context).build()?;
        let expr = lowered.aggregate;
        let sensitivity = expr.order_sensitivity();
        let order_bys = expr.order_bys().to_vec();
        let mut arguments = expr.expressions();
        arguments.extend(order_bys.iter().map(|order| Arc::clone(&order.expr)));
        let arguments = arguments.into_iter().map(with_checked_arithmetic).collect::<datafusion::common::Result<Vec<_>>>()?;
        // Such accumulators see one sorted run only; states of several runs do not merge. (WITHIN GROUP names an argument, not an order.)
        if sensitivity.hard_requires() && !order_bys.is_empty() && !expr.fun().supports_within_group_clause() {
            return Err(DataflowError::internal(format!("{} needs its whole input in order", expr.name())));
        }
        let state_types: Vec<DataType> = expr.state_fields()?.iter().map(|field| field.data_type().clone()).collect();
        let simple = matches!(expr.fun().name(), "count" | "min" | "max") && !expr.is_distinct();
        let state_is_value = simple && state_types.len() == 1 && state_types[0] == *expr.field().data_type();
        let filter = lowered.filter.map(with_checked_arithmetic).transpose()?;
        let types = arguments.iter().map(|argument| argument.data_type(schema));
        let values: Vec<ArrayRef> = types.map(|data_type| Ok(new_null_array(&data_type?, 1))).collect::<Result<_>>()?;
        let nothing = Arguments { values, filter: Some(BooleanArray::from(vec![false])) };
        let mut call = Self { expr, arguments, filter, state_types, empty_state: vec![], nothing, state_is_value };
        let mut accumulator = call.accumulator()?;
        call.update_nothing(accumulator.as_mut())?;
        call.empty_state = call.state(accumulator.as_mut(), 1)?;
        Ok(call)
    }

    /// The function's name.
    pub(crate) fn function(&self) -> &str {
        self.expr.fun().name()
    }

    /// Whether the state of rows can be subtracted: `count`, and Millstream's own `sum` and `avg`.
    pub(crate) fn is_sum(&self) -> bool {
        !self.expr.is_distinct() && self.expr.order_bys().is_empty() && (self.function() == "count" || sum::is_ours(self.expr.fun()))
    }

    /// Accumulators without any group.
    pub(crate) fn accumulator(&self) -> Result<Box<dyn GroupsAccumulator>> {
        if self.expr.groups_accumulator_supported() {
            return Ok(self.expr.create_groups_accumulator()?);
        }
        let expr = Arc::clone(&self.expr);
        Ok(Box::new(GroupsAccumulatorAdapter::new(move || expr.create_accumulator())))
    }

    /// Evaluates arguments and FILTER.
    pub(crate) fn arguments(&self, batch: &RecordBatch) -> Result<Arguments> {
        let values = self.arguments.iter().map(|argument| evaluate(argument, batch)).collect::<Result<_>>()?;
        let filter = match &self.filter {
            Some(filter) => Some(as_boolean_array(&evaluate(filter, batch)?)?.clone()),
            None => None,
        };
        Ok(Arguments { values, filter })
    }

    /// Adds rows: row `i` belongs to group `groups[i]` of `count`.
    pub(crate) fn update(
        &self,
        accumulator: &mut dyn GroupsAccumulator,
        arguments: &Arguments,
        groups: &[usize],
        count: usize,
    ) -> Result<()> {
        Ok(accumulator.update_batch(&arguments.values, groups, arguments.filter.as_ref(), count)?)
    }

    /// Makes the only group, which has no rows.
    pub(crate) fn update_nothing(&self, accumulator: &mut dyn GroupsAccumulator) -> Result<()> {
        self.update(accumulator, &self.nothing, &[0], 1)
    }

    /// Adds states: row `i` of `state` belongs to group `groups[i]` of `count`.
    pub(crate) fn merge(&self, accumulator: &mut dyn GroupsAccumulator, state: &[ArrayRef], groups: &[usize], count: usize) -> Result<()> {
        Ok(accumulator.merge_batch(state, groups, count)?)
    }

    /// Takes the state of all groups out.
    pub(crate) fn state(&self, accumulator: &mut dyn GroupsAccumulator, count: usize) -> Result<Vec<ArrayRef>> {
        let mut state = accumulator.state(EmitTo::All)?;
        if state.len() != self.state_types.len() || state.iter().any(|column| column.len() != count) {
            return Err(DataflowError::internal(format!("{} returned a state of another shape than it declares", self.expr.name())));
        }
        for (column, data_type) in state.iter_mut().zip(&self.state_types) {
            if column.data_type() != data_type {
                *column = cast(column, data_type)?;
            }
        }
        Ok(state)
    }

    /// The values of `count` states.
    pub(crate) fn values(&self, state: &[ArrayRef], count: usize) -> Result<ArrayRef> {
        if self.state_is_value {
            return Ok(Arc::clone(&state[0]));
        }
        let groups: Vec<usize> = (0..count).collect();
        let mut accumulator = self.accumulator()?;
        self.merge(accumulator.as_mut(), state, &groups, count)?;
        Ok(accumulator.evaluate(EmitTo::All)?)
    }
}

/// New rows of a part with their groups.
pub(crate) struct NewRows<'a> {
    pub(crate) batch: &'a RecordBatch,
    /// By row: its group.
    pub(crate) groups: Cow<'a, [usize]>,
    /// How many groups have a state or a row by the end of this part.
    pub(crate) reached: usize,
    /// The batch holds partial states of the calls, from this column on.
    pub(crate) states_first: Option<usize>,
    /// By call: the rows that count, in place of its FILTER.
    pub(crate) masks: Vec<Option<BooleanArray>>,
}

/// Splits state columns by call.
pub(crate) fn split_states<'a>(calls: &[Call], states: &'a [ArrayRef]) -> Vec<&'a [ArrayRef]> {
    let mut rest = states;
    let mut parts = Vec::with_capacity(calls.len());
    for call in calls {
        let (part, tail) = rest.split_at(call.state_types.len());
        parts.push(part);
        rest = tail;
    }
    parts
}

/// Old states, by call, and new rows through the accumulators: the states of `count` groups, or with `final_only` their values. State `i`
/// belongs to group `known[i]`; these groups come first, in ascending order, and all others by their first row.
pub(crate) fn accumulate(
    calls: &[Call],
    old: &[&[ArrayRef]],
    known: &[usize],
    parts: &[NewRows<'_>],
    count: usize,
    final_only: bool,
) -> Result<(Vec<ArrayRef>, Vec<ArrayRef>)> {
    let (mut states, mut values) = (vec![], vec![]);
    let known_count = known.last().map_or(0, |last| last + 1);
    let mut states_before = 0;
    for (index, call) in calls.iter().enumerate() {
        let mut accumulator = call.accumulator()?;
        if let Some(old) = old.get(index) {
            call.merge(accumulator.as_mut(), old, known, known_count)?;
        }
        if parts.is_empty() && known.is_empty() {
            call.update_nothing(accumulator.as_mut())?;
        }
        for part in parts {
            match part.states_first {
                None => {
                    let arguments = call.arguments(part.batch)?.masked(part.masks.get(index).and_then(Option::as_ref));
                    call.update(accumulator.as_mut(), &arguments, &part.groups, part.reached)?;
                }
                Some(first) => {
                    let columns = &part.batch.columns()[first + states_before..][..call.state_types.len()];
                    call.merge(accumulator.as_mut(), columns, &part.groups, part.reached)?;
                }
            }
        }
        states_before += call.state_types.len();
        match final_only {
            true => values.push(accumulator.evaluate(EmitTo::All)?),
            false => states.extend(call.state(accumulator.as_mut(), count)?),
        }
    }
    Ok((states, values))
}
