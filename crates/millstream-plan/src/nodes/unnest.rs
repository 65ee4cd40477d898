//! `UNNEST`: all rows made of a row share its weight, so it is linear.

use crate::bound::Bound;
use crate::error::Result;
use crate::graph::{NodeId, Op, Properties, Strategy};
use crate::leaf::InputLeaf;
use crate::translate::{NewNode, Part, Translator};
use datafusion::logical_expr::{LogicalPlan, Unnest};
use std::sync::Arc;

impl Translator<'_> {
    /// Translates an unnest node.
    pub(crate) fn unnest(&mut self, plan: &LogicalPlan, unnest: &Unnest, demand: Option<usize>) -> Result<Part> {
        let demand = demand.and_then(|column| unnest.dependency_indices.get(column).copied());
        let child = self.translate(&unnest.input, demand)?;
        if child.is_open() {
            return self.fragment(plan, vec![child], None);
        }
        let input = self.node(child)?;
        Ok(Part::Node(self.unnest_node(input, unnest)))
    }

    /// The operator over a node with the columns of the plan's input.
    pub(crate) fn unnest_node(&mut self, input: NodeId, unnest: &Unnest) -> NodeId {
        let below = self.get(input);
        let bound = |source: &usize| -> Option<Arc<Bound>> {
            let bound = below.properties.bounds.get(*source)?.clone()?;
            match unnest.list_type_columns.iter().find(|(column, _)| column == source) {
                Some((_, list)) => (list.depth == 1).then(|| Arc::new(Bound::FirstElement(bound))),
                None => (!unnest.struct_type_columns.contains(source)).then_some(bound),
            }
        };
        let properties = Properties {
            append_only: below.properties.append_only,
            bounds: unnest.dependency_indices.iter().map(bound).collect(),
            keys: vec![],
            clock_dependent: false,
            nondeterminism: None,
        };
        let lists: Vec<String> = unnest.list_type_columns.iter().map(|(column, list)| format!("#{column} depth {}", list.depth)).collect();
        let text = format!("lists {lists:?} structs {:?} nulls {}", unnest.struct_type_columns, unnest.options.preserve_nulls());
        let leaf = InputLeaf { index: 0, schema: Arc::clone(unnest.input.schema()), fingerprint: below.fingerprint };
        let plan = LogicalPlan::Unnest(Unnest { input: Arc::new(leaf.into_plan()), ..unnest.clone() });
        self.push(NewNode {
            op: Op::Unnest { plan: Arc::new(plan) },
            inputs: vec![input],
            df_schema: Arc::clone(&unnest.schema),
            properties,
            strategy: Strategy::Delta,
            fallback_reason: None,
            text,
        })
    }
}
