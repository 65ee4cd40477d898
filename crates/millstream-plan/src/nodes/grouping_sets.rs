//! `GROUPING SETS`, `ROLLUP`, `CUBE`: each row is copied once per set, with the keys that the set leaves out set to NULL and the
//! set's number beside them; then it is an ordinary aggregate over the copies.
//!
//! ```text
//!            +- Map set 0 -+
//!   input ---+- Map set 1 -+- Union -- Aggregate by keys and set --+
//!        \   +- Map set 2 -+                                       +- Union
//!         +-- Aggregate without keys -- Map (the empty set) -------+
//! ```
//! The empty set is apart, because it has a row even when there is no input.

use crate::canonical::{all_columns, column_at, is_volatile, rebase, unique_fields};
use crate::error::{PlanError, Result};
use crate::graph::NodeId;
use crate::leaf::InputLeaf;
use crate::nodes::aggregate::Verdict;
use crate::translate::{Part, Translator};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{DFSchema, DFSchemaRef, ScalarValue, TableReference};
use datafusion::logical_expr::{Aggregate, Expr, GroupingSet, LogicalPlan};
use std::collections::HashMap;
use std::sync::Arc;

/// One set: which keys it keeps, and its number.
struct Set {
    kept: Vec<bool>,
    id: u64,
}

impl Translator<'_> {
    /// Translates an aggregate with grouping sets.
    pub(crate) fn grouping_sets(&mut self, plan: &LogicalPlan, aggregate: &Aggregate, sets: &GroupingSet) -> Result<Part> {
        let child = self.translate(&aggregate.input, None)?;
        if matches!(child, Part::Fragment(_)) && !child.is_local() {
            return self.fragment(plan, vec![child], Some("grouping sets over a recomputed input".into()));
        }
        let input = self.node(child)?;
        let (from, below) = (aggregate.input.schema(), Arc::clone(&self.get(input).df_schema));
        let keys: Vec<Expr> = sets.distinct_expr().into_iter().cloned().collect();
        let sets = enumerate(sets, &keys);
        let keys = keys.iter().map(|key| rebase(key, from, &below)).collect::<Result<Vec<_>>>()?;
        let calls = aggregate.aggr_expr.iter().map(|call| rebase(call, from, &below)).collect::<Result<Vec<_>>>()?;
        let verdict = self.verdict_over(input, &keys, &calls)?;
        if keys.iter().any(is_volatile) {
            return self.fragment(plan, vec![Part::Node(input)], Some("a grouping key is volatile".into()));
        }
        let out = &aggregate.schema;
        let mut parts = vec![];
        let (empty, keyed): (Vec<Set>, Vec<Set>) = sets.into_iter().partition(|set| !set.kept.contains(&true));
        if !keyed.is_empty() {
            let copies = keyed.iter().map(|set| self.copy_for(set, input, &keys, out)).collect::<Result<Vec<_>>>()?;
            let schema = Arc::clone(&self.get(copies[0]).df_schema);
            let copies = if copies.len() == 1 { copies[0] } else { self.union_of(copies, &schema) };
            let copied = Arc::clone(&self.get(copies).df_schema);
            let group = (below.fields().len()..copied.fields().len()).map(|index| column_at(&copied, index)).collect();
            // The copies begin with the input's columns.
            let calls = calls.iter().map(|call| rebase(call, &below, &copied)).collect::<Result<Vec<_>>>()?;
            parts.push(self.grouped(copies, group, calls, out, &verdict)?);
        }
        for set in empty {
            parts.push(self.total(&set, input, &keys, &calls, out, &verdict)?);
        }
        Ok(Part::Node(if parts.len() == 1 { parts[0] } else { self.union_of(parts, out) }))
    }

    /// An aggregate without grouping sets.
    fn grouped(&mut self, input: NodeId, group: Vec<Expr>, calls: Vec<Expr>, out: &DFSchemaRef, verdict: &Verdict) -> Result<NodeId> {
        match verdict {
            Verdict::Delta { nondeterminism } => self.aggregate_node(input, group, calls, out, None, nondeterminism.clone()),
            Verdict::Recompute(reason) => {
                let below = self.get(input);
                let leaf = InputLeaf { index: input.0, schema: Arc::clone(&below.df_schema), fingerprint: below.fingerprint };
                let aggregate = Aggregate::try_new_with_schema(Arc::new(leaf.into_plan()), group, calls, Arc::clone(out))?;
                let plan = LogicalPlan::Aggregate(aggregate.clone());
                let part = self.by_group(&plan, &aggregate, Part::Node(input), None, reason)?;
                self.node(part)
            }
        }
    }

    /// The input's columns, then the keys of one set, then its number.
    fn copy_for(&mut self, set: &Set, input: NodeId, keys: &[Expr], out: &DFSchemaRef) -> Result<NodeId> {
        let below = Arc::clone(&self.get(input).df_schema);
        let mut exprs = all_columns(&below);
        exprs.extend(set_exprs(set, keys, out)?);
        let fields = unique_fields(below.fields().iter().chain(out.fields().iter().take(keys.len() + 1)));
        let df_schema = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
        self.map(input, vec![], Some(exprs), &df_schema)
    }

    /// The empty set: an aggregate over everything, with NULL keys.
    fn total(&mut self, set: &Set, input: NodeId, keys: &[Expr], calls: &[Expr], out: &DFSchemaRef, verdict: &Verdict) -> Result<NodeId> {
        let fields: Vec<(Option<TableReference>, FieldRef)> =
            out.iter().skip(keys.len() + 1).map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field))).collect();
        if calls.is_empty() {
            return Err(PlanError::Unsupported {
                what: "an empty grouping set without aggregate functions".into(),
                remedy: "Add count(*) to the SELECT list.".into(),
            });
        }
        let df_schema = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
        let total = self.grouped(input, vec![], calls.to_vec(), &df_schema, verdict)?;
        let total_schema = Arc::clone(&self.get(total).df_schema);
        let mut exprs = set_exprs(set, keys, out)?;
        exprs.extend(all_columns(&total_schema));
        self.map(total, vec![], Some(exprs), out)
    }
}

/// The keys of a set, NULL where it leaves one out, and its number, in the output's types.
fn set_exprs(set: &Set, keys: &[Expr], out: &DFSchemaRef) -> Result<Vec<Expr>> {
    let mut exprs = vec![];
    for (index, (key, kept)) in keys.iter().zip(&set.kept).enumerate() {
        exprs.push(if *kept { key.clone() } else { Expr::Literal(ScalarValue::try_from(out.field(index).data_type())?, None) });
    }
    let number = match out.field(keys.len()).data_type() {
        DataType::UInt8 => ScalarValue::UInt8(u8::try_from(set.id).ok()),
        DataType::UInt16 => ScalarValue::UInt16(u16::try_from(set.id).ok()),
        DataType::UInt32 => ScalarValue::UInt32(u32::try_from(set.id).ok()),
        _ => ScalarValue::UInt64(Some(set.id)),
    };
    exprs.push(Expr::Literal(number, None));
    Ok(exprs)
}

/// All sets, with the numbers DataFusion's `__grouping_id` gives them: a bit per key that is left out, the first key highest, and
/// above them how often the same set came before.
fn enumerate(sets: &GroupingSet, keys: &[Expr]) -> Vec<Set> {
    let masks: Vec<Vec<bool>> = match sets {
        GroupingSet::Rollup(_) => (0..=keys.len()).rev().map(|kept| (0..keys.len()).map(|index| index < kept).collect()).collect(),
        GroupingSet::Cube(_) => {
            (0..1_u64 << keys.len()).map(|mask| (0..keys.len()).map(|index| mask >> index & 1 == 0).collect()).collect()
        }
        GroupingSet::GroupingSets(sets) => sets.iter().map(|set| keys.iter().map(|key| set.contains(key)).collect()).collect(),
    };
    let mut seen: HashMap<Vec<bool>, u64> = HashMap::new();
    masks
        .into_iter()
        .map(|kept| {
            let ordinal = seen.entry(kept.clone()).or_insert(0);
            let id = kept.iter().fold(0, |id, kept| id << 1 | u64::from(!kept)) | *ordinal << kept.len();
            *ordinal += 1;
            Set { kept, id }
        })
        .collect()
}
