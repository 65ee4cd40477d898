//! The first rows of an order: `ORDER BY .. LIMIT`, `LIMIT` alone, and `row_number`, `rank` or `dense_rank` cut off at a number; and all
//! but the first ones, `OFFSET` alone.
//!
//! ```text
//!   Filter: place <= 3                                            TopN: by auction, first 3 by price DESC
//!     Window: row_number() OVER (PARTITION BY auction ..)   ─►      input
//! ```
//! The cut is a conjunction of comparisons of the number with constants; other conditions stay above. The number is only maintained
//! where it is read: without it, rows that merely move up are not handed out again.
//!
//! Ties are broken by all columns, so that the choice does not depend on how rows arrived; without ORDER BY that is the whole order.
//!
//! **Bounds** of partition columns pass: a change in a partition stays there. Where rows come only when the bound of a partition column has
//! passed them, each partition comes as a whole and once, and so does what is shown of it.

use crate::bound::Bound;
use crate::canonical::{
    all_columns, as_column, canonical_text, canonical_texts, columns_of, has_subquery, is_volatile, reads_clock, rebase,
};
use crate::emit::is_final;
use crate::error::Result;
use crate::graph::{Bucket, NodeId, Op, Properties, Ranking, Strategy};
use crate::nodes::map::below_projections;
use crate::nodes::ordered::contains_sort;
use crate::nodes::passed_through;
use crate::translate::{NewNode, Part, Translator, preferred_column};
use crate::watermark::expression_bound;
use arrow::datatypes::{DataType, Field};
use datafusion::common::{DFSchema, DFSchemaRef, ScalarValue};
use datafusion::logical_expr::expr::{Sort as SortExpr, WindowFunctionParams};
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{
    BinaryExpr, Expr, FetchType, Filter, LogicalPlan, Operator, Projection, SkipType, Window, WindowFunctionDefinition,
};
use std::sync::Arc;

/// What is shown of which order.
struct Top {
    partition: Vec<Expr>,
    order: Vec<SortExpr>,
    ranking: Ranking,
    skip: u64,
    fetch: u64,
    rest: bool,
    numbered: bool,
}

impl Translator<'_> {
    /// The operator for a limit, or a sort with one; `None` where its places are no constants, or what stands below is recomputed.
    pub(crate) fn limit_node(&mut self, plan: &LogicalPlan) -> Result<Option<NodeId>> {
        match plan {
            LogicalPlan::Limit(limit) => match (limit.get_skip_type()?, limit.get_fetch_type()?) {
                (SkipType::Literal(skip), FetchType::Literal(Some(fetch))) => {
                    self.first_rows(&limit.input, skip, skip.saturating_add(fetch), false)
                }
                // What is left of all rows when the first ones are taken away.
                (SkipType::Literal(skip), FetchType::Literal(None)) if !is_cut(&limit.input) => {
                    self.first_rows(&limit.input, 0, skip, true)
                }
                _ => Ok(None),
            },
            LogicalPlan::Sort(sort) if sort.fetch.is_some() => self.first_rows(plan, 0, usize::MAX, false),
            _ => Ok(None),
        }
    }

    /// The rows of an ordered plan from place `skip` to before `end`, or, as `rest`, all others. What lies between a limit and its sort is
    /// done afterwards.
    fn first_rows(&mut self, plan: &LogicalPlan, skip: usize, end: usize, rest: bool) -> Result<Option<NodeId>> {
        let (order, end, input) = match plan {
            LogicalPlan::Projection(projection) if contains_sort(plan) => {
                if has_obstacle(&projection.expr) {
                    return Ok(None);
                }
                let Some(node) = self.first_rows(&projection.input, skip, end, rest)? else { return Ok(None) };
                let (from, to) = (projection.input.schema(), Arc::clone(&self.get(node).df_schema));
                let exprs = projection.expr.iter().map(|expr| rebase(expr, from, &to)).collect::<Result<Vec<_>>>()?;
                return self.map(node, vec![], Some(exprs), &projection.schema).map(Some);
            }
            LogicalPlan::SubqueryAlias(alias) if contains_sort(plan) => return self.first_rows(&alias.input, skip, end, rest),
            LogicalPlan::Sort(sort) => (sort.expr.as_slice(), end.min(sort.fetch.unwrap_or(usize::MAX)), sort.input.as_ref()),
            other => (&[][..], end, other),
        };
        if has_obstacle(order.iter().map(|key| &key.expr)) {
            return Ok(None);
        }
        let part = self.translate(input, None)?;
        let Some(node) = self.maintained(part)? else { return Ok(None) };
        let to = Arc::clone(&self.get(node).df_schema);
        let top = Top {
            partition: vec![],
            order: rebased_order(order, input.schema(), &to)?,
            ranking: Ranking::RowNumber,
            skip: skip as u64,
            fetch: end.saturating_sub(skip) as u64,
            rest,
            numbered: false,
        };
        self.top_node(node, top, to, None).map(Some)
    }

    /// The operator for a filter that cuts the numbers of a ranking off, with the projection above it; `None` if it is no such filter.
    pub(crate) fn ranked(&mut self, filter: &Filter, above: Option<&Projection>, demand: Option<usize>) -> Result<Option<NodeId>> {
        let mut exprs = match above {
            Some(projection) => projection.expr.iter().map(|expr| expr.clone().unalias_nested().data).collect(),
            None => all_columns(filter.input.schema()),
        };
        let columns = exprs.len();
        exprs.extend(split_conjunction_owned(filter.predicate.clone()));
        if has_obstacle(&exprs) {
            return Ok(None);
        }
        let Some(LogicalPlan::Window(window)) = below_projections(&filter.input, &mut exprs)? else { return Ok(None) };
        let predicates = exprs.split_off(columns);
        let Some((ranking, params)) = ranking(window) else { return Ok(None) };
        if has_obstacle(params.partition_by.iter().chain(params.order_by.iter().map(|key| &key.expr))) {
            return Ok(None);
        }
        let (number, ranked) = (window.schema.fields().len() - 1, &window.schema);
        let mut cut = Cut::default();
        let rest: Vec<Expr> = predicates.into_iter().filter(|predicate| !cut.take(predicate, number, ranked)).collect();
        let Some(last) = cut.last else { return Ok(None) };
        let mut numbered = false;
        for expr in exprs.iter().chain(&rest) {
            numbered |= columns_of(expr, ranked)?.contains(&number);
        }
        let from = window.input.schema();
        let is_partition = |column: &usize| params.partition_by.iter().any(|expr| as_column(expr, from) == Some(*column));
        let demand = demand.and_then(|column| passed_through(&exprs[column], ranked)).filter(is_partition);
        let Part::Node(node) = self.translate(&window.input, demand)? else { return Ok(None) };
        let to = Arc::clone(&self.get(node).df_schema);
        let top = Top {
            partition: params.partition_by.iter().map(|expr| rebase(expr, from, &to)).collect::<Result<Vec<_>>>()?,
            order: rebased_order(&params.order_by, from, &to)?,
            ranking,
            skip: cut.first - 1,
            fetch: (last + 1).saturating_sub(cut.first),
            rest: false,
            numbered,
        };
        let out = if numbered { with_number(&to, ranking, window)? } else { to };
        let node = self.top_node(node, top, Arc::clone(&out), demand)?;
        let rebased = |exprs: &[Expr]| exprs.iter().map(|expr| rebase(expr, ranked, &out)).collect::<Result<Vec<_>>>();
        let df_schema = above.map_or_else(|| filter.input.schema(), |projection| &projection.schema);
        self.map(node, rebased(&rest)?, Some(rebased(&exprs)?), df_schema).map(Some)
    }

    fn top_node(&mut self, input: NodeId, top: Top, df_schema: DFSchemaRef, demand: Option<usize>) -> Result<NodeId> {
        let below = self.get(input);
        let Top { partition, order, ranking, skip, fetch, rest, numbered } = top;
        let schema = &below.df_schema;
        let partition_bounds: Vec<Option<Arc<Bound>>> = partition.iter().map(|expr| expression_bound(expr, below, self.state)).collect();
        let place = |column: usize| partition.iter().position(|expr| as_column(expr, schema) == Some(column));
        // Rows that come when they are final come with all others of their partition.
        let whole = demand.filter(|column| is_final(self, input, *column)).and_then(place);
        let names: Vec<String> = partition.iter().map(|expr| expr.schema_name().to_string()).collect();
        let bucket = whole.or_else(|| preferred_column(&partition_bounds, names.iter().map(String::as_str)));
        let bucket = bucket.and_then(|column| Some(Bucket { column, bound: partition_bounds[column].clone()? }));
        let width = schema.fields().len();
        let mut bounds: Vec<Option<Arc<Bound>>> =
            (0..width).map(|column| place(column).and_then(|place| partition_bounds[place].clone())).collect();
        bounds.resize(df_schema.fields().len(), None);
        let columns = partition.iter().map(|expr| as_column(expr, schema)).collect::<Option<Vec<usize>>>();
        let mut keys = below.properties.keys.clone();
        if let (Some(columns), Ranking::RowNumber) = (columns, ranking) {
            if fetch == 1 && !rest {
                keys.push(columns);
            } else if numbered {
                keys.push(columns.into_iter().chain([width]).collect());
            }
        }
        let properties = Properties { append_only: whole.is_some(), bounds, keys, clock_dependent: false, nondeterminism: None };
        let mut sort_keys = vec![];
        for key in &order {
            sort_keys.push(format!("{} asc {} nulls first {}", canonical_text(&key.expr, schema)?, key.asc, key.nulls_first));
        }
        let text = format!(
            "partition {} order {} {ranking:?} skip {skip} fetch {fetch}{} numbered {numbered}",
            canonical_texts(&partition, schema)?,
            sort_keys.join(", "),
            if rest { " rest" } else { "" }
        );
        Ok(self.push(NewNode {
            op: Op::TopN { partition, order, ranking, skip, fetch, rest, numbered, bucket },
            inputs: vec![input],
            df_schema,
            properties,
            strategy: Strategy::Delta,
            fallback_reason: None,
            text,
        }))
    }
}

/// Whether the sort of an ordered plan has a limit of its own.
fn is_cut(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => is_cut(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => is_cut(&alias.input),
        LogicalPlan::Sort(sort) => sort.fetch.is_some(),
        _ => false,
    }
}

fn has_obstacle<'e>(exprs: impl IntoIterator<Item = &'e Expr>) -> bool {
    exprs.into_iter().any(|expr| is_volatile(expr) || reads_clock(expr) || has_subquery(expr))
}

fn rebased_order(order: &[SortExpr], from: &DFSchema, to: &DFSchema) -> Result<Vec<SortExpr>> {
    order.iter().map(|key| Ok(SortExpr::new(rebase(&key.expr, from, to)?, key.asc, key.nulls_first))).collect()
}

/// The ranking that a Window computes, if that is all it does.
fn ranking(window: &Window) -> Option<(Ranking, &WindowFunctionParams)> {
    let [expr] = window.window_expr.as_slice() else { return None };
    let mut expr = expr;
    while let Expr::Alias(alias) = expr {
        expr = &alias.expr;
    }
    let Expr::WindowFunction(call) = expr else { return None };
    let WindowFunctionDefinition::WindowUDF(function) = &call.fun else { return None };
    let ranking = match function.name() {
        "row_number" => Ranking::RowNumber,
        "rank" => Ranking::Rank,
        "dense_rank" => Ranking::DenseRank,
        _ => return None,
    };
    let plain = call.params.filter.is_none() && call.params.null_treatment.is_none() && !call.params.distinct;
    plain.then_some((ranking, &call.params))
}

/// The columns of the input and the number.
fn with_number(input: &DFSchema, ranking: Ranking, window: &Window) -> Result<DFSchemaRef> {
    let named = window.schema.field(window.schema.fields().len() - 1);
    let name = if input.fields().iter().any(|field| field.name() == ranking.name()) { named.name().as_str() } else { ranking.name() };
    let mut fields: Vec<_> = input.iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field))).collect();
    fields.push((None, Arc::new(Field::new(name, DataType::UInt64, false))));
    Ok(Arc::new(DFSchema::new_with_metadata(fields, Default::default())?))
}

/// The numbers that comparisons with constants leave.
struct Cut {
    first: u64,
    last: Option<u64>,
}

impl Default for Cut {
    fn default() -> Self {
        Self { first: 1, last: None }
    }
}

impl Cut {
    /// Takes a condition on column `number` in; false if it is another one.
    fn take(&mut self, predicate: &Expr, number: usize, schema: &DFSchema) -> bool {
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) = predicate else { return false };
        let is_number = |expr: &Expr| as_column(uncast(expr), schema) == Some(number);
        let (op, value) = match (is_number(left), is_number(right)) {
            (true, false) => (*op, integer(right)),
            (false, true) => (op.swap().unwrap_or(*op), integer(left)),
            _ => return false,
        };
        let Some(value) = value else { return false };
        // No number is below 1, so an empty range may as well end at zero.
        let at = |value: i128| u64::try_from(value.max(0)).unwrap_or(u64::MAX);
        let (first, last) = match op {
            Operator::Eq => (Some(value), Some(value)),
            Operator::Lt => (None, Some(value - 1)),
            Operator::LtEq => (None, Some(value)),
            Operator::Gt => (Some(value + 1), None),
            Operator::GtEq => (Some(value), None),
            _ => return false,
        };
        self.first = self.first.max(first.map_or(1, at));
        self.last = match (self.last, last.map(at)) {
            (Some(old), Some(new)) => Some(old.min(new)),
            (old, new) => old.or(new),
        };
        true
    }
}

/// The number may have been made a signed one to be compared.
fn uncast(expr: &Expr) -> &Expr {
    match expr {
        Expr::Cast(cast) if cast.field.data_type().is_integer() => &cast.expr,
        other => other,
    }
}

fn integer(expr: &Expr) -> Option<i128> {
    let Expr::Literal(value, _) = expr else { return None };
    Some(match value {
        ScalarValue::Int8(value) => i128::from((*value)?),
        ScalarValue::Int16(value) => i128::from((*value)?),
        ScalarValue::Int32(value) => i128::from((*value)?),
        ScalarValue::Int64(value) => i128::from((*value)?),
        ScalarValue::UInt8(value) => i128::from((*value)?),
        ScalarValue::UInt16(value) => i128::from((*value)?),
        ScalarValue::UInt32(value) => i128::from((*value)?),
        ScalarValue::UInt64(value) => i128::from((*value)?),
        _ => return None,
    })
}
