//! Fragments: pieces of plan without an incremental form. They are recomputed as a whole, except those that are
//! local to keys (`keyed.rs`).
//!
//! While a fragment grows, its leaves are numbered by the nodes that feed them; when it becomes an operator, by the places
//! of those nodes among its inputs. A fragment inside a recursive query reads the working table of that query and is *open* until
//! the recursion encloses it: it cannot become an operator of its own.

use crate::canonical::{is_volatile, needs_of};
use crate::error::{PlanError, Result};
use crate::graph::{NodeId, Op, Strategy};
use crate::leaf::InputLeaf;
use crate::nodes::keyed::Local;
use crate::translate::{NewNode, Part, Translator, no_properties};
use datafusion::common::DFSchemaRef;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::logical_expr::{LogicalPlan, Subquery};
use itertools::Itertools;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A piece of plan over [`InputLeaf`]s.
#[derive(Clone, Debug)]
pub(crate) struct Fragment {
    pub(super) plan: LogicalPlan,
    pub(super) inputs: BTreeSet<NodeId>,
    pub(super) reasons: Vec<String>,
    pub(super) clock_dependent: bool,
    pub(super) nondeterminism: Option<String>,
    /// Recursive queries whose working tables it reads.
    pub(super) open: BTreeSet<String>,
    /// Its keys, if it has one input whose rows meet only within keys.
    pub(super) local: Option<Local>,
}

impl Part {
    /// Whether the part must stay a fragment.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Part::Fragment(fragment) if !fragment.open.is_empty())
    }
}

impl Translator<'_> {
    /// Makes a plan node a fragment over its inputs, which come translated. Queries inside its expressions join it.
    pub(crate) fn fragment(&mut self, plan: &LogicalPlan, children: Vec<Part>, reason: Option<String>) -> Result<Part> {
        if let Some(expr) = plan.expressions().iter().find(|expr| is_volatile(expr)) {
            return Err(PlanError::VolatileOverRetractions { expression: expr.to_string() });
        }
        let mut result = Fragment {
            plan: plan.clone(),
            inputs: BTreeSet::new(),
            reasons: vec![],
            clock_dependent: needs_of(plan).clock,
            nondeterminism: None,
            open: BTreeSet::new(),
            local: None,
        };
        let schemas: Vec<DFSchemaRef> = plan.inputs().iter().map(|input| Arc::clone(input.schema())).collect();
        let mut inputs = vec![];
        for (child, schema) in children.into_iter().zip_eq(schemas) {
            inputs.push(self.attach(child, schema, &mut result)?);
        }
        result.reasons.extend(reason.filter(|reason| !result.reasons.contains(reason)));
        let mut inputs = inputs.into_iter();
        let rebuilt = plan
            .clone()
            .map_children(|child| Ok(inputs.next().map_or(Transformed::no(child), Transformed::yes)))?
            .data
            .map_subqueries(|query| match query {
                LogicalPlan::Subquery(query) => {
                    let part = self.translate(&query.subquery, None)?;
                    let inner = self.attach(part, Arc::clone(query.subquery.schema()), &mut result)?;
                    Ok(Transformed::yes(LogicalPlan::Subquery(Subquery { subquery: Arc::new(inner), ..query })))
                }
                other => Ok(Transformed::no(other)),
            })?
            .data;
        result.plan = rebuilt;
        Ok(Part::Fragment(Box::new(result)))
    }

    /// The plan that reads a part, which joins the fragment `into`. What is local to keys does not: it stays an operator of its own.
    fn attach(&mut self, part: Part, schema: DFSchemaRef, into: &mut Fragment) -> Result<LogicalPlan> {
        let part = if part.is_local() { Part::Node(self.node(part)?) } else { part };
        Ok(match part {
            Part::Node(node) => {
                into.inputs.insert(node);
                InputLeaf { index: node.0, schema, fingerprint: self.get(node).fingerprint }.into_plan()
            }
            Part::Fragment(fragment) => {
                let fragment = *fragment;
                into.inputs.extend(fragment.inputs);
                into.open.extend(fragment.open);
                into.clock_dependent |= fragment.clock_dependent;
                into.nondeterminism = into.nondeterminism.take().or(fragment.nondeterminism);
                for reason in fragment.reasons {
                    if !into.reasons.contains(&reason) {
                        into.reasons.push(reason);
                    }
                }
                fragment.plan
            }
        })
    }

    /// Notes that a fragment's result depends on more than its input.
    pub(crate) fn note(part: Part, note: &str) -> Part {
        match part {
            Part::Fragment(mut fragment) => {
                fragment.nondeterminism.get_or_insert_with(|| note.into());
                Part::Fragment(fragment)
            }
            node => node,
        }
    }

    /// A scan of the working table of an enclosing recursion.
    pub(crate) fn work_table(&mut self, plan: &LogicalPlan, name: &str) -> Result<Part> {
        match self.fragment(plan, vec![], None)? {
            Part::Fragment(mut fragment) => {
                fragment.open.insert(name.into());
                Ok(Part::Fragment(fragment))
            }
            node => Ok(node),
        }
    }

    /// The operator that runs a fragment again: for touched keys if it is local to keys, or else as a whole.
    pub(crate) fn enclose(&mut self, mut fragment: Fragment) -> Result<NodeId> {
        if let Some(name) = fragment.open.first() {
            return Err(PlanError::internal(format!("a part of recursive query \"{name}\" was cut off")));
        }
        let inputs: Vec<NodeId> = std::mem::take(&mut fragment.inputs).into_iter().collect();
        let place = |node: usize| inputs.iter().position(|input| input.0 == node);
        let plan = fragment
            .plan
            .clone()
            .transform_up_with_subqueries(|node| {
                let LogicalPlan::Extension(extension) = &node else { return Ok(Transformed::no(node)) };
                let Some(leaf) = extension.node.as_any().downcast_ref::<InputLeaf>() else { return Ok(Transformed::no(node)) };
                let Some(index) = place(leaf.index) else {
                    return Err(PlanError::internal(format!("leaf {} is not an input", leaf.index)).into());
                };
                Ok(Transformed::yes(InputLeaf { index, ..leaf.clone() }.into_plan()))
            })
            .data()?;
        if let (Some(local), [input]) = (fragment.local.take(), inputs.as_slice()) {
            return self.touched_keys(plan, *input, fragment, local);
        }
        self.recomputed(plan, inputs, fragment)
    }

    /// The operator that runs all of a fragment again. `plan` reads leaves by the places of `inputs`.
    pub(super) fn recomputed(&mut self, plan: LogicalPlan, inputs: Vec<NodeId>, fragment: Fragment) -> Result<NodeId> {
        let df_schema = Arc::clone(plan.schema());
        let mut properties = no_properties(df_schema.fields().len());
        properties.clock_dependent = fragment.clock_dependent;
        properties.nondeterminism = fragment.nondeterminism;
        let text = plan.display_indent().to_string();
        Ok(self.push(NewNode {
            op: Op::Recompute { plan: Arc::new(plan) },
            inputs,
            df_schema,
            properties,
            strategy: Strategy::Recompute,
            fallback_reason: (!fragment.reasons.is_empty()).then(|| fragment.reasons.join("; ")),
            text,
        }))
    }
}
