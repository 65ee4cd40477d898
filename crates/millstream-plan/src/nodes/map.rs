//! Projections and filters: one [`Op::Map`] for a chain of them.
//!
//! Two maps are fused by putting the expressions of the lower one into the upper one, unless an expression that costs something
//! would then be evaluated twice, or a volatile one at another place.

use crate::canonical::{all_columns, as_column, canonical_texts, has_subquery, is_volatile, needs_of, reads_clock, rebase};
use crate::error::{PlanError, Result};
use crate::graph::{NodeId, Op, Properties, Strategy};
use crate::nodes::temporal_filter::{clock_inside, timed};
use crate::translate::{NewNode, Part, Translator};
use crate::watermark::expression_bound;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, Filter, LogicalPlan, Projection};
use std::sync::Arc;

/// Why an expression cannot be maintained row by row.
fn obstacle<'e>(exprs: impl IntoIterator<Item = &'e Expr>) -> Option<&'static str> {
    exprs.into_iter().find_map(|expr| match expr {
        expr if reads_clock(expr) => Some("now() changes with the clock"),
        expr if has_subquery(expr) => Some("an expression contains a query"),
        _ => None,
    })
}

impl Translator<'_> {
    /// `SELECT` list.
    pub(crate) fn projection(&mut self, plan: &LogicalPlan, projection: &Projection, demand: Option<usize>) -> Result<Part> {
        if let LogicalPlan::Filter(filter) = projection.input.as_ref()
            && let Some(node) = self.ranked(filter, Some(projection), demand)?
        {
            return Ok(Part::Node(node));
        }
        if let Some(plan) = clock_inside(projection)? {
            return self.translate(&plan, demand);
        }
        let input_schema = projection.input.schema();
        let below = demand.and_then(|column| projection.expr.get(column)).and_then(|expr| passed_through(expr, input_schema));
        let obstacle = obstacle(&projection.expr);
        let child = self.translate(&projection.input, if obstacle.is_some() { None } else { below })?;
        if let Some(reason) = obstacle {
            return self.fragment(plan, vec![child], Some(reason.into()));
        }
        self.project(plan, projection, child, demand)
    }

    /// A projection without obstacles over its translated input.
    pub(crate) fn project(&mut self, plan: &LogicalPlan, projection: &Projection, child: Part, demand: Option<usize>) -> Result<Part> {
        let input_schema = projection.input.schema();
        let child = if child.is_local() { self.projected(plan, projection, child, demand)? } else { child };
        let Part::Node(input) = child else {
            return if child.is_local() { Ok(child) } else { self.fragment(plan, vec![child], None) };
        };
        let to = Arc::clone(&self.get(input).df_schema);
        let exprs = projection.expr.iter().map(|expr| rebase(expr, input_schema, &to)).collect::<Result<Vec<_>>>()?;
        self.map(input, vec![], Some(exprs), &projection.schema).map(Part::Node)
    }

    /// `WHERE` and `HAVING`. Conditions on the clock (`temporal_filter.rs`) and with queries are split off, so that the others reduce
    /// what is kept or recomputed.
    pub(crate) fn filter(&mut self, plan: &LogicalPlan, filter: &Filter, demand: Option<usize>) -> Result<Part> {
        if let Some(node) = self.ranked(filter, None, demand)? {
            return Ok(Part::Node(node));
        }
        let needs = needs_of(plan);
        let child = self.translate(&filter.input, if needs.clock || needs.subquery { None } else { demand })?;
        let reason = obstacle([&filter.predicate]);
        let (difficult, plain): (Vec<Expr>, Vec<Expr>) =
            split_conjunction_owned(filter.predicate.clone()).into_iter().partition(|expr| obstacle([expr]).is_some());
        let (timed, difficult) = timed(difficult, filter.input.schema());
        let cut = (child.is_local() && reason.is_some()) || (!timed.is_empty() && !child.is_open()) || child.is_keyless();
        let child = if cut { Part::Node(self.node(child)?) } else { child };
        let Part::Node(input) = child else { return self.passing(plan, child, reason) };
        let whole = timed.is_empty() && difficult.is_empty();
        let input = match if whole { Some(filter.predicate.clone()) } else { conjunction(plain) } {
            None => input,
            Some(predicate) => {
                let to = Arc::clone(&self.get(input).df_schema);
                let predicate = rebase(&predicate, filter.input.schema(), &to)?;
                self.map(input, vec![predicate], None, &to)?
            }
        };
        let input = self.temporal_filter(input, timed, filter.input.schema())?;
        match (obstacle(&difficult), conjunction(difficult)) {
            (Some(reason), Some(predicate)) => {
                let rest = LogicalPlan::Filter(Filter::new(predicate, Arc::clone(&filter.input)));
                self.fragment(&rest, vec![Part::Node(input)], Some(reason.into()))
            }
            _ => Ok(Part::Node(input)),
        }
    }

    /// A map over `input`, whose expressions are over the input's `df_schema`; fused with it if that is a map too.
    pub(crate) fn map(
        &mut self,
        input: NodeId,
        predicates: Vec<Expr>,
        exprs: Option<Vec<Expr>>,
        df_schema: &DFSchemaRef,
    ) -> Result<NodeId> {
        let below = self.get(input);
        if predicates.is_empty() && exprs.as_ref().is_none_or(|exprs| is_identity(exprs, &below.df_schema)) {
            return Ok(input);
        }
        let volatile = predicates.iter().chain(exprs.iter().flatten()).find(|expr| is_volatile(expr));
        if let (Some(expr), false) = (volatile, below.properties.append_only) {
            return Err(PlanError::VolatileOverRetractions { expression: expr.to_string() });
        }
        if let Some((inner, predicates, exprs)) = self.fused(input, &predicates, exprs.as_deref())? {
            return self.map(inner, predicates, exprs, df_schema);
        }
        let note = volatile.map(|expr| format!("{expr} is evaluated when a row arrives"));
        let properties = self.map_properties(input, exprs.as_deref(), note);
        let schema = &below.df_schema;
        let text = match &exprs {
            None => format!("where {}", canonical_texts(&predicates, schema)?),
            Some(exprs) => format!("where {} select {}", canonical_texts(&predicates, schema)?, canonical_texts(exprs, schema)?),
        };
        let df_schema = if exprs.is_none() { Arc::clone(schema) } else { Arc::clone(df_schema) };
        Ok(self.push(NewNode {
            op: Op::Map { predicates, exprs },
            inputs: vec![input],
            df_schema,
            properties,
            strategy: Strategy::Delta,
            fallback_reason: None,
            text,
        }))
    }

    /// The map over the input of the map `input` that does the work of both.
    #[expect(clippy::type_complexity, reason = "the arguments of map(), used once")]
    fn fused(&self, input: NodeId, predicates: &[Expr], exprs: Option<&[Expr]>) -> Result<Option<(NodeId, Vec<Expr>, Option<Vec<Expr>>)>> {
        let below = self.get(input);
        let Op::Map { predicates: below_predicates, exprs: below_exprs } = &below.op else { return Ok(None) };
        let inner = below.inputs[0];
        let inner_schema = Arc::clone(&self.get(inner).df_schema);
        let replacements = below_exprs.clone().unwrap_or_else(|| all_columns(&inner_schema));
        let upper = || predicates.iter().chain(exprs.unwrap_or_default());
        for (index, replacement) in replacements.iter().enumerate() {
            if as_column(replacement, &inner_schema).is_some() || matches!(replacement, Expr::Literal(..)) {
                continue;
            }
            let uses: usize = upper().map(|expr| count_uses(expr, index, &below.df_schema)).sum();
            let uses = if exprs.is_none() { uses + 1 } else { uses };
            if uses > 1 || is_volatile(replacement) {
                return Ok(None);
            }
        }
        let replace = |expr: &Expr| substitute(expr, &below.df_schema, &replacements);
        let mut fused_predicates = below_predicates.clone();
        for predicate in predicates {
            fused_predicates.push(replace(predicate)?);
        }
        let fused_exprs = match exprs {
            Some(exprs) => Some(exprs.iter().map(replace).collect::<Result<Vec<_>>>()?),
            None => below_exprs.clone(),
        };
        Ok(Some((inner, fused_predicates, fused_exprs)))
    }

    fn map_properties(&self, input: NodeId, exprs: Option<&[Expr]>, note: Option<String>) -> Properties {
        let below = self.get(input);
        let Some(exprs) = exprs else {
            return Properties { nondeterminism: note, clock_dependent: false, ..below.properties.clone() };
        };
        let place = |column: &usize| exprs.iter().position(|expr| as_column(expr, &below.df_schema) == Some(*column));
        Properties {
            append_only: below.properties.append_only,
            bounds: exprs.iter().map(|expr| expression_bound(expr, below, self.state)).collect(),
            keys: below.properties.keys.iter().filter_map(|key| key.iter().map(place).collect()).collect(),
            clock_dependent: false,
            nondeterminism: note,
        }
    }
}

/// The input column that an output column is the same as, up to a strictly monotone function.
pub(crate) fn passed_through(expr: &Expr, schema: &DFSchema) -> Option<usize> {
    crate::watermark::strictly_monotone_column(&expr.clone().unalias_nested().data, schema)
}

fn is_identity(exprs: &[Expr], schema: &DFSchema) -> bool {
    exprs.len() == schema.fields().len() && exprs.iter().enumerate().all(|(index, expr)| as_column(expr, schema) == Some(index))
}

fn count_uses(expr: &Expr, index: usize, schema: &DFSchema) -> usize {
    let counts = expr.column_refs_counts();
    counts.into_iter().filter(|(column, _)| schema.maybe_index_of_column(column) == Some(index)).map(|(_, count)| count).sum()
}

/// Moves expressions over the columns of a plan below the projections and aliases on top of it, and gives the plan they are over then.
/// `None` if a projection cannot be put into them.
pub(super) fn below_projections<'p>(mut plan: &'p LogicalPlan, exprs: &mut [Expr]) -> Result<Option<&'p LogicalPlan>> {
    loop {
        let (replacements, input) = match plan {
            LogicalPlan::Projection(projection) => {
                if projection.expr.iter().any(is_volatile) || obstacle(&projection.expr).is_some() {
                    return Ok(None);
                }
                let stripped = projection.expr.iter().map(|expr| expr.clone().unalias_nested().data);
                (stripped.collect(), projection.input.as_ref())
            }
            LogicalPlan::SubqueryAlias(alias) => (all_columns(alias.input.schema()), alias.input.as_ref()),
            other => return Ok(Some(other)),
        };
        for expr in exprs.iter_mut() {
            *expr = substitute(expr, plan.schema(), &replacements)?;
        }
        plan = input;
    }
}

/// The expression with every column replaced by the expression in its place.
pub(crate) fn substitute(expr: &Expr, schema: &DFSchema, replacements: &[Expr]) -> Result<Expr> {
    let replaced = expr.clone().transform_up(|node| match &node {
        Expr::Column(column) => Ok(Transformed::yes(replacements[schema.index_of_column(column)?].clone())),
        _ => Ok(Transformed::no(node)),
    });
    Ok(replaced.data()?)
}
