//! Joins. With a side that does not change, a join is linear in the other: every row is looked up, no state is kept
//! ([`Op::StaticJoin`]). A join of two changing sides keeps the rows of both ([`Op::Join`]). Lookups as of the epoch before are in
//! `lookup_join.rs`.
//!
//! **What watermarks do.** A condition that holds a column of one side against a bounded expression of the other,
//! ```text
//!   l.window_end = r.window_end        l.ts >= r.ts - INTERVAL '5 minutes'
//! ```
//! says that every pair with a *later* right row has at least that bound on the left. So left rows below it are dropped, and if the left
//! column has a bound of its own too, the smaller of the two bounds the column of the result. Where equal keys come in the same epoch on
//! both sides, nothing is ever corrected, and even an outer join is append-only.
//!
//! An ASOF join is bounded likewise by what its versions say, see `versions.rs`.
//!
//! **Existence.** A semi, anti or mark join without a further condition asks only whether a key is there, so the side that is asked goes
//! through a DISTINCT first: a key with many rows then costs as much as one with a single row.

use crate::bound::Bound;
use crate::canonical::{
    as_column, canonical_text, column_at, columns_of, has_subquery, is_volatile, reads_clock, rebase, rebase_with, unique_fields,
};
use crate::emit::come_at_once;
use crate::error::{PlanError, Result};
use crate::graph::{Keep, NodeId, Op, Properties, Strategy};
use crate::nodes::temporal_filter::clock_above;
use crate::nodes::versions::Holds;
use crate::state_ttl;
use crate::translate::{NewNode, Part, Translator};
use crate::watermark::expression_bound;
use arrow::datatypes::FieldRef;
use datafusion::common::{Column, DFSchema, DFSchemaRef, JoinType, NullEquality};
use datafusion::logical_expr::expr::Between;
use datafusion::logical_expr::logical_plan::builder::build_join_schema;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Join, LogicalPlan, Operator};
use std::collections::HashMap;
use std::sync::Arc;

impl Translator<'_> {
    /// Translates a join node.
    pub(crate) fn join(&mut self, plan: &LogicalPlan, join: &Join, demand: Option<usize>) -> Result<Part> {
        if let Some(part) = self.lookup_join(join, demand)? {
            return Ok(part);
        }
        let conditions = || join.on.iter().flat_map(|(left, right)| [left, right]).chain(&join.filter);
        if let Some(filter) = clock_above(join)? {
            return self.filter(&LogicalPlan::Filter(filter.clone()), &filter, demand);
        }
        if conditions().any(reads_clock) {
            return self.fallback(plan, "now() changes with the clock");
        }
        if conditions().any(has_subquery) {
            return self.fallback(plan, "an expression contains a query");
        }
        let (left_constant, right_constant) = (self.is_constant(&join.left)?, self.is_constant(&join.right)?);
        let mirrored = left_constant && !right_constant;
        let join_type = if mirrored { join.join_type.swap() } else { join.join_type };
        let linear = match join_type {
            JoinType::Inner | JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => true,
            JoinType::Right | JoinType::Full | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => false,
        };
        if !linear || !(left_constant || right_constant) || (mirrored && join.null_aware) {
            return self.changing_join(plan, join, [left_constant, right_constant], demand);
        }
        let (changing_plan, constant_plan) = if mirrored { (&join.right, &join.left) } else { (&join.left, &join.right) };
        let both_sides = matches!(join_type, JoinType::Inner | JoinType::Left);
        let first_changing = if mirrored && both_sides { join.left.schema().fields().len() } else { 0 };
        let demand = demand.and_then(|column| column.checked_sub(first_changing));
        let demand = demand.filter(|column| *column < changing_plan.schema().fields().len());
        let changing = self.translate(changing_plan, demand)?;
        let constant = self.translate(constant_plan, None)?;
        if changing.is_open() {
            let children = if mirrored { vec![constant, changing] } else { vec![changing, constant] };
            return self.fragment(plan, children, None);
        }
        let (changing, constant) = (self.node(changing)?, self.node(constant)?);
        let on = join.on.iter().map(|(left, right)| if mirrored { (right, left) } else { (left, right) }).collect();
        let sides = Sides { left: changing, right: constant, left_plan: changing_plan, right_plan: constant_plan };
        let node = self.static_join(join, join_type, on, &sides, mirrored)?;
        Ok(Part::Node(if mirrored { self.restore_order(join, join_type, node)? } else { node }))
    }

    fn static_join(&mut self, join: &Join, join_type: JoinType, on: Vec<(&Expr, &Expr)>, sides: &Sides, mirrored: bool) -> Result<NodeId> {
        let conditions = self.conditions(join, on, sides)?;
        let text = format!("{join_type} {}", conditions.text(self, sides)?);
        let df_schema = sides.joined(join, join_type, mirrored)?;
        let left = self.get(sides.left);
        let mut bounds = left.properties.bounds.clone();
        bounds.resize(df_schema.fields().len(), None);
        let one_row_each = matches!(join_type, JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark);
        let properties = Properties {
            append_only: left.properties.append_only,
            bounds,
            keys: if one_row_each { left.properties.keys.clone() } else { vec![] },
            clock_dependent: false,
            nondeterminism: None,
        };
        let Conditions { on, filter, filter_schema, null_equals_null, null_aware } = conditions;
        Ok(self.push(NewNode {
            op: Op::StaticJoin { join_type, on, filter, filter_schema, null_equals_null, null_aware },
            inputs: vec![sides.left, sides.right],
            df_schema,
            properties,
            strategy: Strategy::Delta,
            fallback_reason: None,
            text,
        }))
    }

    /// The columns of a mirrored join in the order of the original one.
    pub(super) fn restore_order(&mut self, join: &Join, join_type: JoinType, node: NodeId) -> Result<NodeId> {
        if !matches!(join_type, JoinType::Inner | JoinType::Left) {
            return Ok(node);
        }
        let schema = Arc::clone(&self.get(node).df_schema);
        let (changing, constant) = (join.right.schema().fields().len(), join.left.schema().fields().len());
        let exprs = (changing..changing + constant).chain(0..changing).map(|index| column_at(&schema, index)).collect();
        self.map(node, vec![], Some(exprs), &join.schema)
    }

    /// A join whose sides both keep their rows.
    fn changing_join(&mut self, plan: &LogicalPlan, join: &Join, constant: [bool; 2], demand: Option<usize>) -> Result<Part> {
        if join.null_aware && (join.on.len() != 1 || join.join_type != JoinType::LeftAnti) {
            return self.fallback(plan, "NOT IN with further conditions");
        }
        if let Some(expr) = join.on.iter().flat_map(|(l, r)| [l, r]).chain(&join.filter).find(|expr| is_volatile(expr)) {
            return Err(PlanError::VolatileOverRetractions { expression: expr.to_string() });
        }
        let (left_demand, right_demand) = if join.null_aware { (None, None) } else { demands(join, demand) };
        let left = self.translate(&join.left, left_demand)?;
        let right = self.translate(&join.right, right_demand)?;
        if left.is_open() || right.is_open() {
            return self.fragment(plan, vec![left, right], None);
        }
        let (left, right) = (self.node(left)?, self.node(right)?);
        let mut sides = Sides { left, right, left_plan: &join.left, right_plan: &join.right };
        let on = join.on.iter().map(|(left, right)| (left, right)).collect();
        let mut conditions = self.conditions(join, on, &sides)?;
        let constant = [constant[0] || self.is_leaf_at_rest(&join.left), constant[1] || self.is_leaf_at_rest(&join.right)];
        let state_ttl_micros = self.join_ttl(&sides, &conditions, constant);
        match join.join_type {
            // The keys of a DISTINCT would go by themselves.
            _ if state_ttl_micros.iter().any(Option::is_some) => {}
            JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark if !constant[1] => {
                let keys = conditions.on.iter().map(|(_, key)| key.clone()).collect();
                if let Some(distinct) = self.distinct_keys(sides.right, keys, &conditions)? {
                    sides.right = distinct;
                    let schema = Arc::clone(&self.get(distinct).df_schema);
                    conditions.on.iter_mut().enumerate().for_each(|(index, (_, key))| *key = column_at(&schema, index));
                }
            }
            JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark if !constant[0] => {
                let keys = conditions.on.iter().map(|(key, _)| key.clone()).collect();
                if let Some(distinct) = self.distinct_keys(sides.left, keys, &conditions)? {
                    sides.left = distinct;
                    let schema = Arc::clone(&self.get(distinct).df_schema);
                    conditions.on.iter_mut().enumerate().for_each(|(index, (key, _))| *key = column_at(&schema, index));
                }
            }
            _ => {}
        }
        Ok(Part::Node(self.join_node(join, sides, conditions, constant, state_ttl_micros)?))
    }

    /// By side: how long the rows of a key stay that nothing touches, under `state_ttl`. Rows that only come stay so long, unless they
    /// come from groups that go by themselves; those of tables and keyed streams stay as long as they are there.
    fn join_ttl(&self, sides: &Sides, conditions: &Conditions, constant: [bool; 2]) -> [Option<i64>; 2] {
        let has_keys = !conditions.on.is_empty() && !conditions.null_aware && constant == [false, false];
        let ttl = self.state_ttl_micros.filter(|_| has_keys);
        [sides.left, sides.right].map(|side| ttl.filter(|_| self.grows(side)))
    }

    /// The distinct values of `keys`, where the join asks for nothing else and rows may share them.
    fn distinct_keys(&mut self, input: NodeId, keys: Vec<Expr>, conditions: &Conditions) -> Result<Option<NodeId>> {
        let node = self.get(input);
        let columns: Vec<Option<usize>> = keys.iter().map(|key| as_column(key, &node.df_schema)).collect();
        let identified = node.properties.keys.iter().any(|key| key.iter().all(|column| columns.contains(&Some(*column))));
        if conditions.filter.is_some() || keys.is_empty() || identified {
            return Ok(None);
        }
        let fields = keys.iter().map(|key| Ok(key.to_field(&node.df_schema)?.1)).collect::<Result<Vec<_>>>()?;
        let schema = Arc::new(DFSchema::new_with_metadata(unique_fields(fields.iter()), Default::default())?);
        self.aggregate_node(input, keys, vec![], &schema, None, None).map(Some)
    }

    fn join_node(
        &mut self,
        join: &Join,
        sides: Sides,
        conditions: Conditions,
        constant: [bool; 2],
        state_ttl_micros: [Option<i64>; 2],
    ) -> Result<NodeId> {
        let join_type = join.join_type;
        let (left, right) = (self.get(sides.left), self.get(sides.right));
        // Rows that leave are joined once more, so that none of either side may be dropped before; they may lie below all bounds.
        let expires = state_ttl_micros.iter().any(Option::is_some);
        let mut lower = match conditions.null_aware || expires {
            true => [vec![], vec![]],
            false => self.lower_bounds(&sides, &conditions)?,
        };
        let is_asof = matches!(join_type, JoinType::Inner | JoinType::Left) && !conditions.null_aware && !expires;
        if let Some(Holds { left_time, bound, until }) = self.holds(sides.left, sides.right, &conditions).filter(|_| is_asof) {
            if let (Some(value), Some(bound)) = (until, expression_bound(&left_time, left, self.state)) {
                lower[1].push(Lower { value, bound });
            }
            lower[0].push(Lower { value: left_time, bound });
        }
        let asks_for_existence = match join_type {
            _ if expires => [false, false],
            JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => [right.properties.append_only, false],
            JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => [false, left.properties.append_only],
            JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => [false, false],
        };
        let keep = |own: usize| match (constant[1 - own], lower[own].first()) {
            (true, _) => Keep::Never,
            (false, Some(Lower { value, bound })) if !constant[own] => Keep::Until { value: value.clone(), bound: Arc::clone(bound) },
            (false, _) if asks_for_existence[own] => Keep::Unmatched,
            (false, _) => Keep::Forever,
        };
        let keep = [keep(0), keep(1)];
        // The bound of a side's column in the result. Rows of a constant side never change by themselves.
        let bound_of = |own: usize, column: usize| -> Option<Arc<Bound>> {
            let node = if own == 0 { left } else { right };
            let own_bound = node.properties.bounds[column].clone();
            let by_other = lower[own].iter().find(|lower| as_column(&lower.value, &node.df_schema) == Some(column));
            let by_other = by_other.map(|lower| Arc::clone(&lower.bound));
            match constant {
                _ if constant[own] => by_other,
                _ if constant[1 - own] => own_bound,
                _ => Some(least(own_bound?, by_other?)),
            }
        };
        let side = |own: usize| {
            let columns = if own == 0 { left.schema.fields().len() } else { right.schema.fields().len() };
            (0..columns).map(move |column| (own, column))
        };
        let mut bounds: Vec<Option<Arc<Bound>>> = match join_type {
            JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => {
                side(0).chain(side(1)).map(|(own, column)| bound_of(own, column)).collect()
            }
            JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => side(0).map(|(own, column)| bound_of(own, column)).collect(),
            JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => side(1).map(|(own, column)| bound_of(own, column)).collect(),
        };
        bounds.resize(join.schema.fields().len(), None);
        let (left_keys, right_keys) = (&left.properties.keys, &right.properties.keys);
        let width = left.schema.fields().len();
        let keys = match join_type {
            JoinType::Inner | JoinType::Left | JoinType::Right => left_keys
                .iter()
                .flat_map(|l| right_keys.iter().map(|r| l.iter().copied().chain(r.iter().map(|column| column + width)).collect()))
                .collect(),
            JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => left_keys.clone(),
            JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => right_keys.clone(),
            JoinType::Full => vec![],
        };
        let monotone = matches!(join_type, JoinType::Inner | JoinType::LeftSemi | JoinType::RightSemi);
        let at_once = || !conditions.null_aware && come_at_once(self, sides.left, sides.right, &conditions.on);
        let append_only = !expires && left.properties.append_only && right.properties.append_only && (monotone || at_once());
        let nondeterminism = expires.then(|| state_ttl::note("rows"));
        let properties = Properties { append_only, bounds, keys, clock_dependent: expires, nondeterminism };
        let mut one_copy =
            !expires && join_type == JoinType::Inner && sides.left == sides.right && conditions.same_keys(&left.df_schema)?;
        one_copy &= match &keep {
            [Keep::Forever, Keep::Forever] => true,
            [Keep::Until { value: l, bound: l_bound }, Keep::Until { value: r, bound: r_bound }] => {
                canonical_text(l, &left.df_schema)? == canonical_text(r, &right.df_schema)? && l_bound.canonical() == r_bound.canonical()
            }
            _ => false,
        };
        let ttl = if expires { format!(" ttl {state_ttl_micros:?}") } else { String::new() };
        let text = format!("{join_type} {}{ttl}", conditions.text(self, &sides)?);
        let Conditions { on, filter, filter_schema, null_equals_null, null_aware } = conditions;
        Ok(self.push(NewNode {
            op: Op::Join {
                join_type,
                on,
                filter,
                filter_schema,
                null_equals_null,
                null_aware,
                keep: Box::new(keep),
                one_copy,
                lookup: false,
                state_ttl_micros,
            },
            inputs: vec![sides.left, sides.right],
            df_schema: Arc::clone(&join.schema),
            properties,
            strategy: Strategy::Delta,
            fallback_reason: None,
            text,
        }))
    }

    /// The conditions of a join over the nodes of its sides.
    pub(super) fn conditions(&self, join: &Join, on: Vec<(&Expr, &Expr)>, sides: &Sides) -> Result<Conditions> {
        let (left_schema, right_schema) = (&self.get(sides.left).df_schema, &self.get(sides.right).df_schema);
        let on = on
            .into_iter()
            .map(|(l, r)| Ok((rebase(l, sides.left_plan.schema(), left_schema)?, rebase(r, sides.right_plan.schema(), right_schema)?)))
            .collect::<Result<Vec<_>>>()?;
        let filter_schema = Arc::new(side_by_side(left_schema, right_schema)?);
        let filter = join
            .filter
            .as_ref()
            .map(|filter| {
                rebase_with(filter, |column: &Column| {
                    let place = sides.left_plan.schema().maybe_index_of_column(column);
                    let place = place.or_else(|| {
                        let place = sides.right_plan.schema().maybe_index_of_column(column)?;
                        Some(left_schema.fields().len() + place)
                    });
                    let place =
                        place.ok_or_else(|| PlanError::internal(format!("join condition reads {column}, which neither side has")))?;
                    Ok(column_at(&filter_schema, place))
                })
            })
            .transpose()?;
        let null_equals_null = join.null_equality == NullEquality::NullEqualsNull;
        Ok(Conditions { on, filter, filter_schema, null_equals_null, null_aware: join.null_aware })
    }

    /// Per side: expressions over its columns that have at least a bound of the other side in all pairs with later rows of that.
    /// Equal keys come first.
    fn lower_bounds(&self, sides: &Sides, conditions: &Conditions) -> Result<[Vec<Lower>; 2]> {
        let nodes = [self.get(sides.left), self.get(sides.right)];
        let mut result = [vec![], vec![]];
        let mut add = |own: usize, mut value: Expr, mut least: Expr| loop {
            if let Some(bound) = expression_bound(&least, nodes[1 - own], self.state) {
                result[own].push(Lower { value: value.clone(), bound });
            }
            // value + c >= least is value >= least - c.
            let Expr::BinaryExpr(BinaryExpr { left, op, right }) = value else { break };
            let inverse = match (op, right.as_ref()) {
                (Operator::Plus, Expr::Literal(..)) => Operator::Minus,
                (Operator::Minus, Expr::Literal(..)) => Operator::Plus,
                _ => break,
            };
            least = Expr::BinaryExpr(BinaryExpr { left: Box::new(least), op: inverse, right });
            value = *left;
        };
        for (left, right) in &conditions.on {
            add(0, left.clone(), right.clone());
            add(1, right.clone(), left.clone());
        }
        for (greater, least) in conditions.filter.iter().flat_map(order_conditions) {
            if let (Some((own, value)), Some((other, least))) =
                (one_sided(&greater, conditions, &nodes)?, one_sided(&least, conditions, &nodes)?)
                && own != other
            {
                add(own, value, least);
            }
        }
        Ok(result)
    }
}

/// The inputs of a join.
pub(super) struct Sides<'p> {
    pub(super) left: NodeId,
    pub(super) right: NodeId,
    pub(super) left_plan: &'p LogicalPlan,
    pub(super) right_plan: &'p LogicalPlan,
}

impl Sides<'_> {
    /// The columns of a join of these sides; of one that is `mirrored` they are not those of the join as it was planned.
    pub(super) fn joined(&self, join: &Join, join_type: JoinType, mirrored: bool) -> Result<DFSchemaRef> {
        Ok(match mirrored {
            false => Arc::clone(&join.schema),
            true => Arc::new(build_join_schema(self.left_plan.schema(), self.right_plan.schema(), &join_type)?),
        })
    }
}

/// The conditions of a join over the columns of its inputs' nodes.
pub(super) struct Conditions {
    pub(super) on: Vec<(Expr, Expr)>,
    pub(super) filter: Option<Expr>,
    pub(super) filter_schema: DFSchemaRef,
    pub(super) null_equals_null: bool,
    pub(super) null_aware: bool,
}

/// In all pairs with later rows of the other side, `value` is not below `bound`.
struct Lower {
    value: Expr,
    bound: Arc<Bound>,
}

impl Conditions {
    /// Equal for equal conditions whatever the columns are called.
    pub(super) fn text(&self, translator: &Translator, sides: &Sides) -> Result<String> {
        let (left, right) = (&translator.get(sides.left).df_schema, &translator.get(sides.right).df_schema);
        let nulls = if self.null_equals_null { NullEquality::NullEqualsNull } else { NullEquality::NullEqualsNothing };
        let mut text = format!("nulls {nulls:?} null aware {}", self.null_aware);
        for (l, r) in &self.on {
            text.push_str(&format!(" on {} = {}", canonical_text(l, left)?, canonical_text(r, right)?));
        }
        if let Some(filter) = &self.filter {
            text.push_str(&format!(" where {}", canonical_text(filter, &self.filter_schema)?));
            debug_assert!(columns_of(filter, &self.filter_schema).is_ok(), "the condition was moved to the schema of both sides");
        }
        Ok(text)
    }

    /// Whether the keys of both sides are the same expressions over the one node.
    fn same_keys(&self, schema: &DFSchema) -> Result<bool> {
        for (left, right) in &self.on {
            if canonical_text(left, schema)? != canonical_text(right, schema)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The sides' columns by which a demanded column of the result is final: those of an equal key.
fn demands(join: &Join, demand: Option<usize>) -> (Option<usize>, Option<usize>) {
    let Some(demand) = demand else { return (None, None) };
    let (left, right) = (join.left.schema(), join.right.schema());
    let width = left.fields().len();
    let pairs = matches!(join.join_type, JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full);
    let of_right = matches!(join.join_type, JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark);
    let columns = join.on.iter().filter_map(|(l, r)| Some((as_column(l, left)?, as_column(r, right)?)));
    let found = columns.into_iter().find(|(l, r)| match (pairs, of_right) {
        (true, _) => *l == demand || *r + width == demand,
        (false, false) => *l == demand,
        (false, true) => *r == demand,
    });
    found.map_or((None, None), |(l, r)| (Some(l), Some(r)))
}

/// The conjuncts of a condition that order two expressions, as (greater or equal, least).
pub(super) fn order_conditions(filter: &Expr) -> Vec<(Expr, Expr)> {
    let mut result = vec![];
    for conjunct in split_conjunction(filter) {
        match conjunct {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let (left, right) = (left.as_ref().clone(), right.as_ref().clone());
                match op {
                    Operator::GtEq | Operator::Gt => result.push((left, right)),
                    Operator::LtEq | Operator::Lt => result.push((right, left)),
                    Operator::Eq => result.extend([(left.clone(), right.clone()), (right, left)]),
                    _ => {}
                }
            }
            Expr::Between(Between { expr, negated: false, low, high }) => {
                let expr = expr.as_ref().clone();
                result.extend([(expr.clone(), low.as_ref().clone()), (high.as_ref().clone(), expr)]);
            }
            _ => {}
        }
    }
    result
}

/// The side whose columns alone a part of the condition reads, and the expression over that side's node.
fn one_sided(expr: &Expr, conditions: &Conditions, nodes: &[&crate::graph::Node; 2]) -> Result<Option<(usize, Expr)>> {
    let schema = &conditions.filter_schema;
    let width = nodes[0].schema.fields().len();
    let columns = columns_of(expr, schema)?;
    let own = match (columns.first(), columns.last()) {
        (Some(_), Some(last)) if *last < width => 0,
        (Some(first), Some(_)) if *first >= width => 1,
        _ => return Ok(None),
    };
    let offset = own * width;
    let moved = rebase_with(expr, |column| Ok(column_at(&nodes[own].df_schema, schema.index_of_column(column)? - offset)))?;
    Ok(Some((own, moved)))
}

fn least(a: Arc<Bound>, b: Arc<Bound>) -> Arc<Bound> {
    if a.canonical() == b.canonical() { a } else { Arc::new(Bound::Min(vec![a, b])) }
}

/// Columns of the left, then of the right, under names that are unique even when both sides are the same node.
fn side_by_side(left: &DFSchemaRef, right: &DFSchemaRef) -> Result<DFSchema> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    left.fields().iter().chain(right.fields()).for_each(|field| *counts.entry(field.name()).or_insert(0) += 1);
    let fields = [("left", left), ("right", right)].into_iter().flat_map(|(side, schema)| {
        let named = |field: &FieldRef| match counts[field.name().as_str()] {
            1 => Arc::clone(field),
            _ => Arc::new(field.as_ref().clone().with_name(format!("{side}.{}", field.name()))),
        };
        schema.fields().iter().map(named).collect::<Vec<_>>()
    });
    let fields: Vec<FieldRef> = fields.collect();
    Ok(DFSchema::new_with_metadata(unique_fields(fields.iter()), Default::default())?)
}
