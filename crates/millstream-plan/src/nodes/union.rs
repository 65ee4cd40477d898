//! `UNION ALL`: the changes of all inputs. (`UNION` is this below a DISTINCT.)

use crate::bound::Bound;
use crate::error::Result;
use crate::graph::{Node, NodeId, Op, Properties, Strategy};
use crate::translate::{NewNode, Part, Translator};
use datafusion::common::DFSchemaRef;
use datafusion::logical_expr::{LogicalPlan, Union};
use std::sync::Arc;

impl Translator<'_> {
    /// Translates a union node.
    pub(crate) fn union(&mut self, plan: &LogicalPlan, union: &Union, demand: Option<usize>) -> Result<Part> {
        let children = union.inputs.iter().map(|input| self.translate(input, demand)).collect::<Result<Vec<_>>>()?;
        if children.iter().any(Part::is_open) {
            return self.fragment(plan, children, None);
        }
        let inputs = children.into_iter().map(|child| self.node(child)).collect::<Result<Vec<_>>>()?;
        Ok(Part::Node(self.union_of(inputs, &union.schema)))
    }

    /// A union of nodes with columns of compatible types.
    pub(crate) fn union_of(&mut self, inputs: Vec<NodeId>, df_schema: &DFSchemaRef) -> NodeId {
        let nodes: Vec<&Node> = inputs.iter().map(|input| self.get(*input)).collect();
        // Constants come with the first step and never again.
        let changing: Vec<&Node> = nodes.iter().copied().filter(|node| !matches!(node.op, Op::Constant { .. })).collect();
        let bound = |column: usize| -> Option<Arc<Bound>> {
            let data_type = df_schema.field(column).data_type();
            let mut bounds = changing
                .iter()
                .map(|node| (node.schema.field(column).data_type() == data_type).then(|| node.properties.bounds[column].clone()).flatten())
                .collect::<Option<Vec<_>>>()?;
            bounds.dedup_by_key(|bound| bound.canonical());
            match bounds.len() {
                0 => None,
                1 => bounds.pop(),
                _ => Some(Arc::new(Bound::Min(bounds))),
            }
        };
        let properties = Properties {
            append_only: nodes.iter().all(|node| node.properties.append_only),
            bounds: (0..df_schema.fields().len()).map(bound).collect(),
            keys: vec![],
            clock_dependent: false,
            nondeterminism: None,
        };
        self.push(NewNode {
            op: Op::Union,
            inputs,
            df_schema: Arc::clone(df_schema),
            properties,
            strategy: Strategy::Delta,
            fallback_reason: None,
            text: String::new(),
        })
    }
}
