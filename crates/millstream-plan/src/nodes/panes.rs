//! Panes: rows are aggregated before they are spread over the windows they belong to.
//!
//! A row belongs to `size / slide` hop windows, and all rows of a *pane*, between two neighbouring borders of windows, belong to the
//! same ones. So the rows of an epoch are aggregated by pane, and what is spread over windows and merged into the groups is a
//! partial state per pane and key, not a row:
//!
//! ```text
//!   Map: hop_starts(ts) ─▶ Unnest ─▶ Map ─▶ Aggregate                                                rows
//!   PreAggregate: tumble_start(ts, pane) ─▶ Map: hop_starts(pane) ─▶ Unnest ─▶ Map ─▶ Aggregate      partial states
//! ```
//! Done for append-only input whose group expressions and conditions each read either the window or the row, and whose arguments read
//! the row alone. The order of rows in a group is not kept, so functions that depend on it are left as they are.

use super::aggregate::ORDER_SENSITIVE;
use super::map::substitute;
use crate::canonical::{all_columns, canonical_texts, column_at, columns_of, is_volatile, rebase, unique_fields};
use crate::error::Result;
use crate::functions::windows::pane;
use crate::graph::{NodeId, Op, PartialStates, Properties, Strategy};
use crate::leaf::InputLeaf;
use crate::translate::{NewNode, Translator};
use crate::watermark::expression_bound;
use arrow::datatypes::Field;
use datafusion::common::{Column, DFSchema, DFSchemaRef, UnnestOptions};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Unnest};
use datafusion::physical_expr::aggregate::LoweredAggregateBuilder;
use std::sync::Arc;

/// The input of an aggregate, by panes.
pub(crate) struct Panes {
    /// Group columns, then partial states.
    pub(crate) node: NodeId,
    /// The group columns.
    pub(crate) group: Vec<Expr>,
    /// The calls over the rows that the states were made of.
    pub(crate) aggregates: Vec<Expr>,
    /// Where the states are.
    pub(crate) states: PartialStates,
}

/// An expression above the windows.
enum Reads {
    /// It reads the window's start or end alone.
    Window(Expr),
    /// It reads the row alone; the expression over the row.
    Row(Expr),
}

/// `Map: hop_starts(ts) ─▶ Unnest ─▶ Map`, found below an aggregate.
struct Spread {
    unnest: Unnest,
    /// Columns of the unnested rows.
    schema: DFSchemaRef,
    /// Which of them is the window.
    window: usize,
    /// What each of them is in terms of the rows below; the window's is not looked at.
    below: Vec<Expr>,
    /// The rows below.
    rows: NodeId,
    /// Conditions on them.
    predicates: Vec<Expr>,
    /// The call that lists the windows of a row.
    windows: ScalarFunction,
    /// The pane of a row.
    pane: ScalarFunction,
    /// Conditions above the windows.
    conditions: Vec<Expr>,
    /// The columns above the windows.
    columns: Vec<Expr>,
}

impl Spread {
    fn reads(&self, expr: &Expr) -> Result<Option<Reads>> {
        let columns = columns_of(expr, &self.schema)?;
        Ok(match (columns.contains(&self.window), columns.len()) {
            (true, 1) => Some(Reads::Window(expr.clone())),
            (true, _) => None,
            (false, _) => Some(Reads::Row(substitute(expr, &self.schema, &self.below)?)),
        })
    }
}

impl Translator<'_> {
    /// The input of an aggregate by panes, where that is possible. `names` are those of its columns, group columns first.
    pub(crate) fn panes(&mut self, input: NodeId, group: &[Expr], calls: &[Expr], names: &DFSchema) -> Result<Option<Panes>> {
        let depends_on_order = |expr: &Expr| match expr {
            Expr::AggregateFunction(call) => ORDER_SENSITIVE.contains(&call.func.name()) || !call.params.order_by.is_empty(),
            _ => true,
        };
        if calls.iter().any(depends_on_order) || group.iter().chain(calls).any(is_volatile) {
            return Ok(None);
        }
        let Some(mut spread) = self.spread_below(input)? else { return Ok(None) };
        let above = &self.get(input).df_schema;
        let mut group_reads = Vec::with_capacity(group.len());
        for expr in group {
            let Some(reads) = spread.reads(&substitute(expr, above, &spread.columns)?)? else { return Ok(None) };
            group_reads.push(reads);
        }
        let mut aggregates = Vec::with_capacity(calls.len());
        for call in calls {
            let Some(Reads::Row(call)) = spread.reads(&substitute(call, above, &spread.columns)?)? else { return Ok(None) };
            aggregates.push(call);
        }
        let mut conditions = vec![];
        for condition in std::mem::take(&mut spread.conditions) {
            match spread.reads(&condition)? {
                Some(Reads::Window(condition)) => conditions.push(condition),
                Some(Reads::Row(condition)) => spread.predicates.push(condition),
                None => return Ok(None),
            }
        }
        let names: Vec<&str> = names.fields().iter().take(group.len()).map(|field| field.name().as_str()).collect();
        self.by_pane(spread, &group_reads, &names, conditions, aggregates).map(Some)
    }

    /// Looks for rows that are spread over windows.
    fn spread_below(&self, input: NodeId) -> Result<Option<Spread>> {
        let node = self.get(input);
        let (unnest_node, conditions, exprs) = match &node.op {
            Op::Unnest { .. } => (input, vec![], None),
            Op::Map { predicates, exprs } => (node.inputs[0], predicates.clone(), exprs.clone()),
            _ => return Ok(None),
        };
        let unnest_node = self.get(unnest_node);
        let Op::Unnest { plan } = &unnest_node.op else { return Ok(None) };
        let LogicalPlan::Unnest(unnest) = plan.as_ref() else { return Ok(None) };
        let [(list, depth)] = unnest.list_type_columns.as_slice() else { return Ok(None) };
        if depth.depth != 1 || !unnest.struct_type_columns.is_empty() || !unnest_node.properties.append_only {
            return Ok(None);
        }
        let map = self.get(unnest_node.inputs[0]);
        let Op::Map { predicates, exprs: Some(below) } = &map.op else { return Ok(None) };
        let Some(Expr::ScalarFunction(windows)) = below.get(*list) else { return Ok(None) };
        let (Some(pane), Some(window)) = (pane(windows), unnest.dependency_indices.iter().position(|source| source == list)) else {
            return Ok(None);
        };
        if predicates.iter().chain(below).chain(&conditions).chain(exprs.iter().flatten()).any(is_volatile) {
            return Ok(None);
        }
        Ok(Some(Spread {
            unnest: unnest.clone(),
            schema: Arc::clone(&unnest_node.df_schema),
            window,
            below: unnest.dependency_indices.iter().map(|source| below[*source].clone()).collect(),
            rows: map.inputs[0],
            predicates: predicates.clone(),
            windows: windows.clone(),
            pane,
            conditions,
            columns: exprs.unwrap_or_else(|| all_columns(&unnest_node.df_schema)),
        }))
    }

    fn by_pane(&mut self, spread: Spread, group: &[Reads], names: &[&str], conditions: Vec<Expr>, aggregates: Vec<Expr>) -> Result<Panes> {
        let rows_schema = Arc::clone(&self.get(spread.rows).df_schema);
        let rows = self.map(spread.rows, spread.predicates, None, &rows_schema)?;
        let to = Arc::clone(&self.get(rows).df_schema);
        let rebased = |expr: &Expr| rebase(expr, &rows_schema, &to);

        // Pane and keys, then states.
        let mut keys = vec![rebased(&Expr::ScalarFunction(spread.pane))?];
        for reads in group {
            if let Reads::Row(expr) = reads {
                keys.push(rebased(expr)?);
            }
        }
        let aggregates = aggregates.iter().map(rebased).collect::<Result<Vec<_>>>()?;
        let states_first = keys.len();
        let states = self.pre_aggregate(rows, keys, aggregates.clone())?;

        // The windows of each pane.
        let states_schema = Arc::clone(&self.get(states).df_schema);
        let mut windows = spread.windows;
        windows.args[0] = column_at(&states_schema, 0);
        let mut listed = all_columns(&states_schema);
        listed[0] = Expr::ScalarFunction(windows);
        let list_field = listed[0].to_field(&states_schema)?.1.as_ref().clone().with_name(WINDOW);
        let fields = std::iter::once(Arc::new(list_field)).chain(states_schema.fields().iter().skip(1).cloned());
        let listed_schema = schema_of(fields.map(|field| field.as_ref().clone()).collect())?;
        let window_name = listed_schema.field(0).name().clone();
        let listed = self.map(states, vec![], Some(listed), &listed_schema)?;
        let leaf = InputLeaf { index: 0, schema: listed_schema, fingerprint: self.get(listed).fingerprint };
        let options = UnnestOptions { recursions: vec![], ..spread.unnest.options.clone() };
        let unnest = Unnest::try_new(Arc::new(leaf.into_plan()), vec![Column::new_unqualified(window_name)], options)?;
        let unnested = self.unnest_node(listed, &unnest);

        // The group columns in their order, then the states.
        let unnested_schema = Arc::clone(&self.get(unnested).df_schema);
        let window = column_at(&unnested_schema, 0);
        let mut exprs = Vec::with_capacity(group.len() + unnested_schema.fields().len() - states_first);
        let mut key = 1;
        for reads in group {
            exprs.push(match reads {
                Reads::Window(expr) => substitute(expr, &spread.schema, &vec![window.clone(); spread.schema.fields().len()])?,
                Reads::Row(_) => {
                    key += 1;
                    column_at(&unnested_schema, key - 1)
                }
            });
        }
        exprs.extend((states_first..unnested_schema.fields().len()).map(|state| column_at(&unnested_schema, state)));
        let on_window = vec![window; spread.schema.fields().len()];
        let conditions = conditions.iter().map(|expr| substitute(expr, &spread.schema, &on_window)).collect::<Result<Vec<_>>>()?;
        let fields = exprs.iter().enumerate().map(|(index, expr)| {
            let field = expr.to_field(&unnested_schema)?.1;
            let name = names.get(index).map_or(field.name().as_str(), |name| *name);
            Ok(field.as_ref().clone().with_name(name))
        });
        let schema = schema_of(fields.collect::<Result<Vec<_>>>()?)?;
        let node = self.map(unnested, conditions, Some(exprs), &schema)?;
        let mut columns = all_columns(&self.get(node).df_schema);
        columns.truncate(group.len());
        Ok(Panes { node, group: columns, aggregates, states: PartialStates { rows: to, first: group.len() } })
    }

    /// The partial states of an epoch's rows. The first key is the pane.
    fn pre_aggregate(&mut self, rows: NodeId, keys: Vec<Expr>, aggregates: Vec<Expr>) -> Result<NodeId> {
        let below = self.get(rows);
        let mut fields = Vec::with_capacity(keys.len() + aggregates.len());
        for (index, key) in keys.iter().enumerate() {
            let name = match key {
                _ if index == 0 => "pane",
                Expr::Column(column) => &column.name,
                _ => "key",
            };
            fields.push(key.to_field(&below.df_schema)?.1.as_ref().clone().with_name(name));
        }
        let context = PhysicalPlanningContext::default();
        for (index, call) in aggregates.iter().enumerate() {
            let props = self.state.execution_props();
            let lowered = LoweredAggregateBuilder::new(call, &below.df_schema, &below.schema, props, &context).build()?;
            for (part, field) in lowered.aggregate.state_fields()?.iter().enumerate() {
                fields.push(Field::new(format!("state{index}_{part}"), field.data_type().clone(), true));
            }
        }
        let mut bounds: Vec<_> = keys.iter().map(|key| expression_bound(key, below, self.state)).collect();
        bounds.resize(fields.len(), None);
        let properties = Properties { append_only: true, bounds, keys: vec![], clock_dependent: false, nondeterminism: None };
        let schema = &below.df_schema;
        let text = format!("group {} aggregate {}", canonical_texts(&keys, schema)?, canonical_texts(&aggregates, schema)?);
        Ok(self.push(NewNode {
            op: Op::PreAggregate { group: keys, aggregates },
            inputs: vec![rows],
            df_schema: schema_of(fields)?,
            properties,
            strategy: Strategy::Delta,
            fallback_reason: None,
            text,
        }))
    }
}

/// The name of the windows' column while they are being unnested.
const WINDOW: &str = "window";

fn schema_of(fields: Vec<Field>) -> Result<DFSchemaRef> {
    let fields: Vec<_> = fields.into_iter().map(Arc::new).collect();
    Ok(Arc::new(DFSchema::new_with_metadata(unique_fields(fields.iter()), Default::default())?))
}
