//! Joins. With a side that does not change, a join is linear in the other: every row is looked up, no state is kept. Joins of two
//! changing sides are recomputed.

use crate::canonical::{canonical_text, column_at, columns_of, has_subquery, reads_clock, rebase, rebase_with, unique_fields};
use crate::error::{PlanError, Result};
use crate::graph::{NodeId, Op, Properties, Strategy};
use crate::translate::{NewNode, Part, Translator};
use datafusion::common::{Column, DFSchema, DFSchemaRef, JoinType, NullEquality};
use datafusion::logical_expr::logical_plan::builder::build_join_schema;
use datafusion::logical_expr::{Expr, Join, LogicalPlan};
use std::sync::Arc;

impl Translator<'_> {
    /// Translates a join node.
    pub(crate) fn join(&mut self, plan: &LogicalPlan, join: &Join, demand: Option<usize>) -> Result<Part> {
        let conditions = || join.on.iter().flat_map(|(left, right)| [left, right]).chain(&join.filter);
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
            let reason = if left_constant || right_constant {
                format!("{} join that depends on all rows of an input at rest", join.join_type)
            } else {
                "joins of changing inputs are recomputed".to_string()
            };
            return self.fallback(plan, &reason);
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
        let sides = Sides { changing, constant, changing_plan, constant_plan, mirrored };
        let node = self.static_join(join, join_type, on, &sides)?;
        Ok(Part::Node(if mirrored { self.restore_order(join, join_type, node)? } else { node }))
    }

    fn static_join(&mut self, join: &Join, join_type: JoinType, on: Vec<(&Expr, &Expr)>, sides: &Sides) -> Result<NodeId> {
        let (left, right) = (self.get(sides.changing), self.get(sides.constant));
        let (left_schema, right_schema) = (Arc::clone(&left.df_schema), Arc::clone(&right.df_schema));
        let on = on
            .into_iter()
            .map(|(l, r)| {
                Ok((rebase(l, sides.changing_plan.schema(), &left_schema)?, rebase(r, sides.constant_plan.schema(), &right_schema)?))
            })
            .collect::<Result<Vec<_>>>()?;
        let filter_schema = Arc::new(side_by_side(&left_schema, &right_schema)?);
        let filter = join
            .filter
            .as_ref()
            .map(|filter| {
                rebase_with(filter, |column: &Column| {
                    let place = sides.changing_plan.schema().maybe_index_of_column(column);
                    let place = place.or_else(|| {
                        let place = sides.constant_plan.schema().maybe_index_of_column(column)?;
                        Some(left_schema.fields().len() + place)
                    });
                    let place =
                        place.ok_or_else(|| PlanError::internal(format!("join condition reads {column}, which neither side has")))?;
                    Ok(column_at(&filter_schema, place))
                })
            })
            .transpose()?;
        let df_schema = match sides.mirrored {
            false => Arc::clone(&join.schema),
            true => Arc::new(build_join_schema(sides.changing_plan.schema(), sides.constant_plan.schema(), &join_type)?),
        };
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
        let mut text = format!("{join_type} nulls {:?} null aware {}", join.null_equality, join.null_aware);
        for (l, r) in &on {
            text.push_str(&format!(" on {} = {}", canonical_text(l, &left_schema)?, canonical_text(r, &right_schema)?));
        }
        if let Some(filter) = &filter {
            text.push_str(&format!(" where {}", canonical_text(filter, &filter_schema)?));
            debug_assert!(columns_of(filter, &filter_schema).is_ok(), "the condition was moved to the schema of both sides");
        }
        Ok(self.push(NewNode {
            op: Op::StaticJoin {
                join_type,
                on,
                filter,
                filter_schema,
                null_equals_null: join.null_equality == NullEquality::NullEqualsNull,
                null_aware: join.null_aware,
            },
            inputs: vec![sides.changing, sides.constant],
            df_schema,
            properties,
            strategy: Strategy::Delta,
            fallback_reason: None,
            text,
        }))
    }

    /// The columns of a mirrored join in the order of the original one.
    fn restore_order(&mut self, join: &Join, join_type: JoinType, node: NodeId) -> Result<NodeId> {
        if !matches!(join_type, JoinType::Inner | JoinType::Left) {
            return Ok(node);
        }
        let schema = Arc::clone(&self.get(node).df_schema);
        let (changing, constant) = (join.right.schema().fields().len(), join.left.schema().fields().len());
        let exprs = (changing..changing + constant).chain(0..changing).map(|index| column_at(&schema, index)).collect();
        self.map(node, vec![], Some(exprs), &join.schema)
    }
}

/// The inputs of a join, the changing one first.
struct Sides<'p> {
    changing: NodeId,
    constant: NodeId,
    changing_plan: &'p LogicalPlan,
    constant_plan: &'p LogicalPlan,
    /// Whether the changing side is the right one of the query.
    mirrored: bool,
}

/// Columns of the left, then of the right, under names that are unique even when both sides are the same node.
fn side_by_side(left: &DFSchemaRef, right: &DFSchemaRef) -> Result<DFSchema> {
    Ok(DFSchema::new_with_metadata(unique_fields(left.fields().iter().chain(right.fields())), Default::default())?)
}
