//! Lookups as of the epoch before: `JOIN x FOR SYSTEM_TIME AS OF PROCTIME()`.
//!
//! ```text
//!   s (append-only) ─▶ LookupJoin ─▶ append-only
//!   x ── its rows by key ──┘   only what was there before the epoch
//! ```
//! Each row on the left meets the rows that `x` had after the epoch before its own, once. What has come out stays when `x` changes, so
//! the result is not the answer of a batch query, but no row on the left is kept. What stands on the right may be any plan over
//! relations that are read like this, which is maintained as ever, and tables at rest.
//!
//! **Refused**: rows on the left that can be taken back (the row that takes one back would meet another version of `x`), joins that
//! would hand out rows of `x` by themselves, conditions that read the clock, and `x` anywhere else.

use crate::canonical::{as_column, has_subquery, is_volatile, reads_clock};
use crate::error::{PlanError, Result};
use crate::graph::{Keep, NodeId, Op, Properties, Strategy};
use crate::nodes::join::{Conditions, Sides};
use crate::relation::RelationKind;
use crate::translate::{NewNode, Part, Translator};
use datafusion::common::JoinType;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::{Join, LogicalPlan};

impl Translator<'_> {
    /// The relation in which a plan looks rows up, if that is all it reads beside tables at rest.
    fn looked_up(&self, plan: &LogicalPlan) -> Result<Option<String>> {
        let mut scans = vec![];
        plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node {
                scans.push(scan.clone());
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        let mut found = None;
        for scan in scans {
            match self.relation(&scan)? {
                Some(relation) if relation.lookup => found = found.or(Some(relation.name)),
                Some(relation) if relation.kind == RelationKind::AtRest => {}
                _ => return Ok(None),
            }
        }
        Ok(found)
    }

    /// A join with a relation that is read as of the epoch before; `None` for any other join.
    pub(super) fn lookup_join(&mut self, join: &Join, demand: Option<usize>) -> Result<Option<Part>> {
        if self.looking_up {
            return Ok(None);
        }
        let (left, right) = (self.looked_up(&join.left)?, self.looked_up(&join.right)?);
        let (mirrored, relation) = match (left, right) {
            (None, Some(relation)) => (false, relation),
            (Some(relation), None) => (true, relation),
            // Scans refuse to be read like this outside of a join.
            _ => return Ok(None),
        };
        let refused = |reason: &str, remedy: &str| {
            Err(PlanError::Lookup { relation: relation.clone(), reason: reason.into(), remedy: remedy.into() })
        };
        match join.join_type {
            JoinType::Inner => {}
            JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark if !mirrored => {}
            _ if mirrored => return Err(misplaced(&relation)),
            kind => return refused(&format!("in a {} join", kind.to_string().to_uppercase()), "Write JOIN or LEFT JOIN."),
        }
        let mut conditions = join.on.iter().flat_map(|(left, right)| [left, right]).chain(&join.filter);
        if conditions.clone().any(|expr| reads_clock(expr) || has_subquery(expr)) {
            return refused("under a condition that reads the clock or contains a query", "Put the condition into a WHERE above the join.");
        }
        if let Some(expr) = conditions.find(|expr| is_volatile(expr)) {
            return Err(PlanError::VolatileOverRetractions { expression: expr.to_string() });
        }
        let (stream_plan, relation_plan) = if mirrored { (&join.right, &join.left) } else { (&join.left, &join.right) };
        let first = if mirrored { join.left.schema().fields().len() } else { 0 };
        let demand = demand.and_then(|column| column.checked_sub(first)).filter(|column| *column < stream_plan.schema().fields().len());
        let stream = self.translate(stream_plan, demand)?;
        self.looking_up = true;
        let rows = self.translate(relation_plan, None).and_then(|part| self.node(part));
        self.looking_up = false;
        let rows = rows?;
        if stream.is_open() {
            return refused("inside a recursive query", "Join outside of it.");
        }
        let stream = self.node(stream)?;
        if !self.get(stream).properties.append_only {
            let remedy = format!(
                "Look rows up where they arrive, before they are aggregated or joined. A join with \"{relation}\" itself, without \
                 FOR SYSTEM_TIME, follows both sides."
            );
            return refused("for rows that may be taken back", &remedy);
        }
        let sides = Sides { left: stream, right: rows, left_plan: stream_plan, right_plan: relation_plan };
        let on = join.on.iter().map(|(left, right)| if mirrored { (right, left) } else { (left, right) }).collect();
        let conditions = self.conditions(join, on, &sides)?;
        let node = self.lookup_node(join, &sides, conditions, &relation, mirrored)?;
        Ok(Some(Part::Node(if mirrored { self.restore_order(join, JoinType::Inner, node)? } else { node })))
    }

    fn lookup_node(&mut self, join: &Join, sides: &Sides, conditions: Conditions, relation: &str, mirrored: bool) -> Result<NodeId> {
        let join_type = join.join_type;
        let text = format!("{join_type} {}", conditions.text(self, sides)?);
        let df_schema = sides.joined(join, join_type, mirrored)?;
        let (left, right) = (self.get(sides.left), self.get(sides.right));
        let mut bounds = left.properties.bounds.clone();
        bounds.resize(df_schema.fields().len(), None);
        let one_row_each = match join_type {
            JoinType::Inner | JoinType::Left => {
                let of_key = |expr| as_column(expr, &right.df_schema);
                let columns: Vec<Option<usize>> = conditions.on.iter().map(|(_, key)| of_key(key)).collect();
                right.properties.keys.iter().any(|key| key.iter().all(|column| columns.contains(&Some(*column))))
            }
            _ => true,
        };
        let properties = Properties {
            append_only: true,
            bounds,
            keys: if one_row_each { left.properties.keys.clone() } else { vec![] },
            clock_dependent: false,
            nondeterminism: Some(format!("rows are looked up in \"{relation}\" as of the epoch before, and stay when it changes")),
        };
        let Conditions { on, filter, filter_schema, null_equals_null, null_aware } = conditions;
        let keep = Box::new([Keep::Never, Keep::Forever]);
        Ok(self.push(NewNode {
            op: Op::Join {
                join_type,
                on,
                filter,
                filter_schema,
                null_equals_null,
                null_aware,
                keep,
                one_copy: false,
                lookup: true,
                state_ttl_micros: [None; 2],
            },
            inputs: vec![sides.left, sides.right],
            df_schema,
            properties,
            strategy: Strategy::Delta,
            fallback_reason: None,
            text,
        }))
    }
}

/// A relation that is read as of the epoch before at another place than the right side of a join.
pub(super) fn misplaced(relation: &str) -> PlanError {
    PlanError::Lookup {
        relation: relation.into(),
        reason: "there".into(),
        remedy: format!(
            "Write it after JOIN or LEFT JOIN, or in EXISTS, NOT EXISTS or IN: `FROM s JOIN {relation} FOR SYSTEM_TIME AS OF PROCTIME() ON ...`, \
             where s is append-only."
        ),
    }
}
