//! `GROUP BY` and `DISTINCT`.
//!
//! Over rows that are never taken back, every aggregate is maintained by merging partial states, except those that need their whole
//! input in order. Over rows that may be taken back, only additive ones ([`additive_aggregate`]), `min` and `max`
//! ([`extreme_aggregate`]) and those of distinct values ([`distinct_aggregate`]) are. The others are run again: for
//! the touched groups (`keyed.rs`), or as a whole where there is nothing to group by.
//! A group column with a bound is the *bucket*: groups below the bound are final and their state is dropped.

use crate::bound::Bound;
use crate::canonical::{as_column, canonical_texts, has_subquery, is_volatile, reads_clock, rebase};
use crate::error::{PlanError, Result};
use crate::functions::{additive_aggregate, distinct_aggregate, extreme_aggregate, is_float_sum};
use crate::graph::{Bucket, Emit, NodeId, Op, Properties, Strategy};
use crate::nodes::keyed::Partition;
use crate::state_ttl;
use crate::translate::{FloatSum, NewNode, Part, Translator, preferred_column};
use crate::watermark::{expression_bound, monotone_column};
use datafusion::common::DFSchemaRef;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan};
use std::sync::Arc;

/// Aggregates whose result depends on the order of their input.
pub(crate) const ORDER_SENSITIVE: [&str; 6] = ["any_value", "array_agg", "first_value", "last_value", "nth_value", "string_agg"];

/// Whether aggregate calls have an incremental form.
pub(crate) enum Verdict {
    /// They have.
    Delta {
        /// Why the result is not a function of the rows alone.
        nondeterminism: Option<String>,
    },
    /// They have not, for this reason.
    Recompute(String),
}

impl Translator<'_> {
    /// `DISTINCT` that the optimizer left: an aggregate without aggregate functions.
    pub(crate) fn distinct(&mut self, plan: &LogicalPlan, input: &Arc<LogicalPlan>, demand: Option<usize>) -> Result<Part> {
        let group = crate::canonical::all_columns(input.schema());
        let aggregate = Aggregate::try_new_with_schema(Arc::clone(input), group, vec![], Arc::clone(plan.schema()))?;
        let plan = LogicalPlan::Aggregate(aggregate.clone());
        self.aggregate(&plan, &aggregate, demand)
    }

    /// Translates an aggregate node.
    pub(crate) fn aggregate(&mut self, plan: &LogicalPlan, aggregate: &Aggregate, demand: Option<usize>) -> Result<Part> {
        let obstacle = aggregate.group_expr.iter().chain(&aggregate.aggr_expr).find_map(|expr| match expr {
            expr if reads_clock(expr) => Some("now() changes with the clock"),
            expr if has_subquery(expr) => Some("an expression contains a query"),
            _ => None,
        });
        if let Some(reason) = obstacle {
            return self.fallback(plan, reason);
        }
        if let [Expr::GroupingSet(sets)] = aggregate.group_expr.as_slice() {
            return self.grouping_sets(plan, aggregate, sets);
        }
        if let Some(node) = self.session_window(aggregate, demand)? {
            return Ok(Part::Node(node));
        }
        if let Some(column) = demand.filter(|column| *column < aggregate.group_expr.len())
            && let Some(part) = self.final_aggregate(plan, aggregate, column)?
        {
            return Ok(part);
        }
        let child = self.translate(&aggregate.input, None)?;
        if child.is_open() {
            return self.fragment(plan, vec![child], None);
        }
        // A fragment takes rows back, so the verdict can be had before it becomes an operator that keeps its output.
        if let Part::Fragment(_) = child {
            let schema = aggregate.input.schema();
            let calls = aggregate.aggr_expr.iter().map(|expr| rebase(expr, schema, schema)).collect::<Result<Vec<_>>>()?;
            // Where the fragment has the rows of a touched group at hand, their extremes need no state of their own.
            let column = |expr: &Expr| as_column(&expr.clone().unalias_nested().data, schema);
            let at_hand = aggregate.group_expr.iter().any(|expr| column(expr).is_some_and(|column| child.is_by(column)));
            let extreme = calls.iter().find(|call| at_hand && !additive_aggregate(call, schema));
            let verdict = extreme.map_or_else(|| self.verdict(&calls, false, schema), cannot_take_back);
            if let Verdict::Recompute(reason) = verdict {
                return self.by_group(plan, aggregate, child, None, &reason);
            }
        }
        let input = self.node(child)?;
        let (group, calls) = self.aggregate_exprs(aggregate, input)?;
        match self.verdict_over(input, &group, &calls)? {
            Verdict::Recompute(reason) => self.by_group(plan, aggregate, Part::Node(input), None, &reason),
            Verdict::Delta { nondeterminism } => {
                let node = self.aggregate_node(input, group, calls, &aggregate.schema, None, nondeterminism)?;
                Ok(Part::Node(node))
            }
        }
    }

    /// An aggregate that is run again for the touched groups.
    pub(crate) fn by_group(
        &mut self,
        plan: &LogicalPlan,
        aggregate: &Aggregate,
        child: Part,
        demand: Option<usize>,
        reason: &str,
    ) -> Result<Part> {
        let group = aggregate.group_expr.iter().map(|expr| expr.clone().unalias_nested().data);
        let by: Vec<(Expr, usize)> = group.enumerate().map(|(column, expr)| (expr, column)).collect();
        let unique = Some(vec![(0..by.len()).collect()]);
        let part = self.by_key(plan, child, Partition { by, unique, demand }, reason)?;
        let note = aggregate.aggr_expr.iter().find_map(|expr| match expr.clone().unalias_nested().data {
            Expr::AggregateFunction(call) => order_note(&call),
            _ => None,
        });
        Ok(match note {
            Some(note) => Self::note(part, &note),
            None => part,
        })
    }

    /// An aggregate that hands out each group once, when the bound of group column `column` has passed it; `None` if there is no
    /// such bound.
    fn final_aggregate(&mut self, plan: &LogicalPlan, aggregate: &Aggregate, column: usize) -> Result<Option<Part>> {
        // What proves this aggregate's groups final should also make the rows below it final, if it can.
        let below = monotone_column(&aggregate.group_expr[column].clone().unalias_nested().data, aggregate.input.schema());
        let part = self.translate(&aggregate.input, below)?;
        let Some(input) = self.maintained(part)? else { return Ok(None) };
        let (group, calls) = self.aggregate_exprs(aggregate, input)?;
        let Some(bound) = expression_bound(&group[column], self.get(input), self.state) else { return Ok(None) };
        match self.verdict_over(input, &group, &calls)? {
            Verdict::Recompute(reason) => self.by_group(plan, aggregate, Part::Node(input), Some(column), &reason).map(Some),
            Verdict::Delta { nondeterminism } => {
                let bucket = Bucket { column, bound };
                let node = self.aggregate_node(input, group, calls, &aggregate.schema, Some(bucket), nondeterminism)?;
                Ok(Some(Part::Node(node)))
            }
        }
    }

    /// Group expressions and calls over the columns of `input`.
    fn aggregate_exprs(&self, aggregate: &Aggregate, input: NodeId) -> Result<(Vec<Expr>, Vec<Expr>)> {
        let (from, to) = (aggregate.input.schema(), &self.get(input).df_schema);
        let rebased = |exprs: &[Expr]| exprs.iter().map(|expr| rebase(expr, from, to)).collect::<Result<Vec<_>>>();
        Ok((rebased(&aggregate.group_expr)?, rebased(&aggregate.aggr_expr)?))
    }

    /// Whether calls over `input` have an incremental form.
    pub(crate) fn verdict_over(&self, input: NodeId, group: &[Expr], calls: &[Expr]) -> Result<Verdict> {
        let node = self.get(input);
        let append_only = node.properties.append_only;
        if let Some(expr) = group.iter().chain(calls).find(|expr| is_volatile(expr)) {
            return if append_only {
                Ok(Verdict::Delta { nondeterminism: Some(format!("{expr} is evaluated when a row arrives")) })
            } else {
                Err(PlanError::VolatileOverRetractions { expression: expr.to_string() })
            };
        }
        Ok(self.verdict(calls, append_only, &node.df_schema))
    }

    /// Whether calls over rows of `schema` have an incremental form.
    fn verdict(&self, calls: &[Expr], append_only: bool, schema: &datafusion::common::DFSchema) -> Verdict {
        let inexact = |expr: &&Expr| !append_only && self.float_sum == FloatSum::Exact && is_float_sum(expr, schema);
        if let Some(expr) = calls.iter().find(inexact) {
            return Verdict::Recompute(format!("float_sum = 'exact': {expr} is added up again where rows are taken back"));
        }
        verdict(calls, append_only, schema)
    }

    /// The operator. With `final_bucket` it hands out closed groups only.
    pub(crate) fn aggregate_node(
        &mut self,
        input: NodeId,
        group: Vec<Expr>,
        aggregates: Vec<Expr>,
        df_schema: &DFSchemaRef,
        final_bucket: Option<Bucket>,
        nondeterminism: Option<String>,
    ) -> Result<NodeId> {
        let panes = self.panes(input, &group, &aggregates, df_schema)?;
        let (input, group, aggregates, states) = match panes {
            Some(panes) => (panes.node, panes.group, panes.aggregates, Some(panes.states)),
            None => (input, group, aggregates, None),
        };
        let below = self.get(input);
        let retracting = !below.properties.append_only;
        let mut bounds: Vec<Option<Arc<Bound>>> = group.iter().map(|expr| expression_bound(expr, below, self.state)).collect();
        let names = df_schema.fields().iter().take(group.len()).map(|field| field.name().as_str());
        let emit = if final_bucket.is_some() { Emit::OnClose } else { Emit::Changes };
        let bucket = match final_bucket {
            Some(bucket) => {
                // Rows are held back until the bucket closes; by then the other bounds may have passed them.
                bounds.iter_mut().enumerate().filter(|(index, _)| *index != bucket.column).for_each(|(_, bound)| *bound = None);
                Some(bucket)
            }
            None => {
                let column = preferred_column(&bounds, names);
                column.and_then(|column| Some(Bucket { column, bound: bounds[column].clone()? }))
            }
        };
        let per_epoch = bucket.as_ref().is_some_and(|bucket| bucket.bound.is_epoch());
        let state_ttl_micros = self.state_ttl_micros.filter(|_| emit == Emit::Changes && !per_epoch && !retracting && !group.is_empty());
        if state_ttl_micros.is_some() {
            // A row that is taken back later may lie below the other bounds.
            let kept = bucket.as_ref().map(|bucket| bucket.column);
            bounds.iter_mut().enumerate().filter(|(index, _)| Some(*index) != kept).for_each(|(_, bound)| *bound = None);
        }
        let nondeterminism = match state_ttl_micros {
            Some(_) => Some(state_ttl::note("groups")),
            None => nondeterminism,
        };
        let distinct = aggregates.is_empty() && !retracting && !group.is_empty() && state_ttl_micros.is_none();
        let append_only = emit == Emit::OnClose || per_epoch || distinct;
        bounds.resize(df_schema.fields().len(), None);
        let properties = Properties {
            append_only,
            bounds,
            keys: vec![(0..group.len()).collect()],
            clock_dependent: state_ttl_micros.is_some(),
            nondeterminism,
        };
        let (schema, rows) = (&below.df_schema, states.as_ref().map_or(&below.df_schema, |states| &states.rows));
        let (group_text, call_text) = (canonical_texts(&group, schema)?, canonical_texts(&aggregates, rows)?);
        let of_states = if states.is_some() { " of states" } else { "" };
        let ttl = state_ttl_micros.map(|micros| format!(" ttl {micros}")).unwrap_or_default();
        let text = format!("group {group_text} aggregate {call_text}{of_states} retracting {retracting} emit {emit:?}{ttl}");
        Ok(self.push(NewNode {
            op: Op::Aggregate { group, aggregates, states, retracting, emit, bucket, state_ttl_micros },
            inputs: vec![input],
            df_schema: Arc::clone(df_schema),
            properties,
            strategy: Strategy::Delta,
            fallback_reason: None,
            text,
        }))
    }
}

/// Whether calls over rows of `schema` have an incremental form.
fn verdict(calls: &[Expr], append_only: bool, schema: &datafusion::common::DFSchema) -> Verdict {
    let mut nondeterminism = None;
    for expr in calls {
        let Expr::AggregateFunction(call) = expr else {
            return Verdict::Recompute(format!("{expr} is not an aggregate function"));
        };
        if append_only {
            if needs_order(call) {
                return Verdict::Recompute(format!("{} needs its whole input in order", call.func.name()));
            }
        } else if !additive_aggregate(expr, schema) && !extreme_aggregate(expr, schema) && !distinct_aggregate(expr, schema) {
            return cannot_take_back(expr);
        }
        nondeterminism = nondeterminism.or_else(|| order_note(call));
    }
    Verdict::Delta { nondeterminism }
}

fn cannot_take_back(expr: &Expr) -> Verdict {
    let name = match expr {
        Expr::AggregateFunction(call) if call.params.distinct => format!("{}(DISTINCT)", call.func.name()),
        Expr::AggregateFunction(call) => call.func.name().to_string(),
        other => other.to_string(),
    };
    Verdict::Recompute(format!("{name} cannot take rows back"))
}

/// Whether the result of an aggregate function depends on the order of its input.
pub(crate) fn is_order_sensitive(name: &str) -> bool {
    ORDER_SENSITIVE.contains(&name)
}

/// Why the result of a call is not a function of its rows alone, if it is not.
fn order_note(call: &AggregateFunction) -> Option<String> {
    let name = call.func.name();
    // Values that tie are equal where the value itself is among the keys.
    let orders_itself = call.params.args.first().is_some_and(|value| call.params.order_by.iter().any(|key| key.expr == *value));
    (is_order_sensitive(name) && !orders_itself).then(|| match call.params.order_by.is_empty() {
        true => format!("{name} without ORDER BY depends on the order in which rows arrive"),
        false => format!("ties in the ORDER BY of {name} depend on the order in which rows arrive"),
    })
}

/// Whether an accumulator must see its input sorted, so that states of parts cannot be merged.
fn needs_order(call: &AggregateFunction) -> bool {
    !call.params.order_by.is_empty()
        && !call.func.supports_within_group_clause()
        && call.func.order_sensitivity() == AggregateOrderSensitivity::HardRequirement
}
