//! Fragments by key: pieces of plan in which rows meet only when they agree in some columns of the input.
//!
//! ```text
//!   Filter place <= 3                        keys pass rows by
//!     Window PARTITION BY item, day          item, day
//!       Aggregate BY item, day, shop         item, day, shop  ─▶  together: item, day
//!         input
//! ```
//! A fragment over one input is *local* to keys if its result is the union, over all values of the keys, of its results over the rows
//! with these values. An aggregate is local to its GROUP BY, a window to its PARTITION BY, filters and projections to anything. What is
//! local to some columns is local to fewer of them, too, so a chain of such nodes is local to the keys that they share, as long
//! as these pass through as columns. When a chain shares none, it is cut. A local fragment becomes an [`Op::TouchedKeys`].

use crate::bound::Bound;
use crate::canonical::{as_column, canonical_texts, column_at, is_volatile, rebase};
use crate::error::Result;
use crate::graph::{Bucket, Emit, FragmentKey, Node, NodeId, Op, Properties, Strategy};
use crate::leaf::InputLeaf;
use crate::nodes::fragment::Fragment;
use crate::nodes::reach::reach_of;
use crate::nodes::tail::tail_of;
use crate::nodes::versions::versions_of;
use crate::translate::{NewNode, Part, Translator, preferred_column};
use crate::watermark::{bound_over, expression_bound};
use datafusion::common::DFSchemaRef;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::{Expr, LogicalPlan, Projection};
use std::sync::Arc;

/// What a fragment is local to, and what follows for its columns.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    /// None for one partition of all rows that go on from its end.
    keys: Vec<FragmentKey>,
    /// By column.
    bounds: Vec<Option<Arc<Bound>>>,
    /// Sets of columns whose values identify a row.
    unique: Vec<Vec<usize>>,
    /// The key whose bound should make results final.
    demand: Option<usize>,
}

/// How a node keeps rows of different keys apart.
pub(crate) struct Partition {
    /// The columns that its rows have to share, over the plan's input, each with the output column that has its value.
    pub(crate) by: Vec<(Expr, usize)>,
    /// Sets of columns that identify its rows; `None` if they are those of its input.
    pub(crate) unique: Option<Vec<Vec<usize>>>,
    /// The output column by whose bound rows should become final.
    pub(crate) demand: Option<usize>,
}

impl Part {
    /// Whether it is a fragment that is local to keys.
    pub(crate) fn is_local(&self) -> bool {
        self.local().is_some()
    }

    /// Whether it is one of a single partition of all rows, which goes on from its end as long as nothing filters it.
    pub(crate) fn is_keyless(&self) -> bool {
        self.local().is_some_and(|local| local.keys.is_empty())
    }

    fn local(&self) -> Option<&Local> {
        match self {
            Part::Fragment(fragment) => fragment.local.as_ref(),
            Part::Node(_) => None,
        }
    }

    /// A local fragment, some columns of which have bounds that follow from what it computes.
    pub(crate) fn with_bounds(self, bounds: Vec<(usize, Arc<Bound>)>) -> Part {
        let Part::Fragment(mut fragment) = self else { return self };
        if let Some(local) = &mut fragment.local {
            for (column, bound) in bounds {
                local.bounds[column] = Some(bound);
            }
        }
        Part::Fragment(fragment)
    }

    /// Whether a fragment is run by touched values of its column `column`.
    pub(crate) fn is_by(&self, column: usize) -> bool {
        self.local().is_some_and(|local| local.keys.iter().any(|key| key.column == column))
    }
}

impl Translator<'_> {
    /// A plan node without an incremental form, whose rows meet only within a partition, over its translated input. It joins a
    /// fragment below that is local to some of the same columns. If there is nothing to partition by, it is recomputed.
    pub(crate) fn by_key(&mut self, plan: &LogicalPlan, child: Part, partition: Partition, reason: &str) -> Result<Part> {
        let inputs = plan.inputs();
        let (Some(from), false) = (inputs.first().map(|input| Arc::clone(input.schema())), child.is_open()) else {
            return self.fragment(plan, vec![child], Some(reason.into()));
        };
        let place = |column: usize| partition.by.iter().find(|(expr, _)| as_column(expr, &from) == Some(column)).map(|(_, place)| *place);
        let child = match child.local() {
            Some(local) if !local.keys.iter().any(|key| place(key.column).is_some()) => Part::Node(self.node(child)?),
            _ => child,
        };
        let mut bounds = vec![None; plan.schema().fields().len()];
        let mut keys = vec![];
        match (&child, child.local()) {
            (Part::Node(node), _) => {
                let below = self.get(*node);
                for (expr, column) in &partition.by {
                    let expr = rebase(expr, &from, &below.df_schema)?;
                    if expr.column_refs().is_empty() || is_volatile(&expr) {
                        continue;
                    }
                    bounds[*column] = expression_bound(&expr, below, self.state);
                    keys.push(FragmentKey { expr, column: *column });
                }
            }
            (Part::Fragment(_), Some(local)) => {
                for key in &local.keys {
                    if let Some(column) = place(key.column) {
                        bounds[column] = local.bounds[key.column].clone();
                        keys.push(FragmentKey { expr: key.expr.clone(), column });
                    }
                }
            }
            (Part::Fragment(_), None) => {}
        }
        if keys.is_empty() {
            return self.fragment(plan, vec![child], Some(reason.into()));
        }
        let unique = partition.unique.unwrap_or_else(|| self.unique_of(&child));
        let demand = partition.demand.and_then(|column| keys.iter().position(|key| key.column == column));
        self.grow(plan, child, Some(reason), Local { keys, bounds, unique, demand })
    }

    /// A plan node whose rows all meet, over its translated input: one partition without keys where rows that come go on from its end,
    /// and else recomputed.
    pub(crate) fn by_no_key(&mut self, plan: &LogicalPlan, child: Part, reason: &str) -> Result<Part> {
        let below = match &child {
            Part::Node(node) => {
                let leaf = |schema: &DFSchemaRef| InputLeaf { index: 0, schema: Arc::clone(schema), fingerprint: 0 }.into_plan();
                plan.inputs().first().map(|input| (*node, leaf(input.schema())))
            }
            Part::Fragment(fragment) => match (&fragment.local, fragment.inputs.iter().collect::<Vec<_>>().as_slice()) {
                (Some(local), [node]) if local.keys.is_empty() => Some((**node, fragment.plan.clone())),
                _ => None,
            },
        };
        if let Some((node, below)) = below {
            let mut below = Some(below);
            let whole = plan.clone().map_children(|child| Ok(below.take().map_or(Transformed::no(child), Transformed::yes)))?.data;
            if goes_on_from_its_end(&whole, self.get(node)) {
                let (bounds, unique) = (vec![None; plan.schema().fields().len()], self.unique_of(&child));
                return self.grow(plan, child, Some(reason), Local { keys: vec![], bounds, unique, demand: None });
            }
        }
        // What is below is run again with it.
        let child = match child {
            Part::Fragment(fragment) if fragment.local.as_ref().is_some_and(|local| local.keys.is_empty()) => {
                Part::Fragment(Box::new(Fragment { local: None, ..*fragment }))
            }
            child => child,
        };
        self.by_key(plan, child, Partition { by: vec![], unique: None, demand: None }, reason)
    }

    /// The operator of a part, unless it is recomputed as a whole.
    pub(crate) fn maintained(&mut self, part: Part) -> Result<Option<NodeId>> {
        match part {
            Part::Fragment(fragment) if fragment.local.is_none() => Ok(None),
            part => self.node(part).map(Some),
        }
    }

    /// The bound of an expression over the columns of a part, which are those of `schema`.
    pub(crate) fn bound_of(&self, expr: &Expr, schema: &DFSchemaRef, part: &Part) -> Result<Option<Arc<Bound>>> {
        Ok(match part {
            Part::Node(node) => {
                let node = self.get(*node);
                expression_bound(&rebase(expr, schema, &node.df_schema)?, node, self.state)
            }
            Part::Fragment(fragment) => fragment.local.as_ref().and_then(|local| bound_over(expr, schema, &local.bounds, self.state)),
        })
    }

    /// Sets of columns that identify a part's rows.
    pub(crate) fn unique_of(&self, part: &Part) -> Vec<Vec<usize>> {
        match part {
            Part::Node(node) => self.get(*node).properties.keys.clone(),
            Part::Fragment(fragment) => fragment.local.as_ref().map_or(vec![], |local| local.unique.clone()),
        }
    }

    /// A plan node over a part as a local fragment.
    fn grow(&mut self, plan: &LogicalPlan, child: Part, reason: Option<&str>, local: Local) -> Result<Part> {
        let child = match child {
            Part::Fragment(fragment) => Part::Fragment(Box::new(Fragment { local: None, ..*fragment })),
            node => node,
        };
        Ok(match self.fragment(plan, vec![child], reason.map(Into::into))? {
            Part::Fragment(fragment) => Part::Fragment(Box::new(Fragment { local: Some(local), ..*fragment })),
            node => node,
        })
    }

    /// A plan node that keeps columns, keys and rows apart as they are, over a part that is no operator: a filter, an alias.
    pub(crate) fn passing(&mut self, plan: &LogicalPlan, child: Part, reason: Option<&str>) -> Result<Part> {
        match child.local().cloned() {
            Some(local) => self.grow(plan, child, reason, local),
            None => self.fragment(plan, vec![child], reason.map(Into::into)),
        }
    }

    /// A projection as part of the local fragment below, if all keys are among its columns; otherwise the part comes back as an operator.
    pub(crate) fn projected(&mut self, plan: &LogicalPlan, projection: &Projection, child: Part, demand: Option<usize>) -> Result<Part> {
        let Some(local) = child.local() else { return Ok(child) };
        let from = projection.input.schema();
        let place = |column: usize| projection.expr.iter().position(|expr| as_column(expr, from) == Some(column));
        let mut keys = vec![];
        for (index, key) in local.keys.iter().enumerate() {
            // The demanded column must be the key itself, not something made of it.
            let column = match demand {
                Some(demand) if local.demand == Some(index) => {
                    Some(demand).filter(|demand| as_column(&projection.expr[*demand], from) == Some(key.column))
                }
                _ => place(key.column),
            };
            keys.extend(column.map(|column| FragmentKey { expr: key.expr.clone(), column }));
        }
        if keys.len() < local.keys.len() {
            return Ok(Part::Node(self.node(child)?));
        }
        let unaliased = projection.expr.iter().map(|expr| expr.clone().unalias_nested().data);
        let bounds = unaliased.map(|expr| bound_over(&expr, from, &local.bounds, self.state)).collect();
        let unique = local.unique.iter().filter_map(|set| set.iter().map(|column| place(*column)).collect()).collect();
        let local = Local { keys, bounds, unique, demand: local.demand };
        self.grow(plan, child, None, local)
    }

    /// The operator of a local fragment. `plan` reads leaf 0.
    pub(crate) fn touched_keys(&mut self, plan: LogicalPlan, input: NodeId, fragment: Fragment, local: Local) -> Result<NodeId> {
        if local.keys.is_empty() && !goes_on_from_its_end(&plan, self.get(input)) {
            return self.recomputed(plan, vec![input], fragment);
        }
        let Local { keys, mut bounds, unique, demand } = local;
        let bucket_of = |column: usize| bounds[column].clone().map(|bound| Bucket { column, bound });
        let on_close = demand.and_then(|key| bucket_of(keys[key].column));
        let emit = if on_close.is_some() { Emit::OnClose } else { Emit::Changes };
        let df_schema: DFSchemaRef = Arc::clone(plan.schema());
        let bucket = on_close.or_else(|| {
            let of_key = |column: usize| keys.iter().any(|key| key.column == column);
            let of_keys: Vec<_> = bounds.iter().enumerate().map(|(column, bound)| bound.clone().filter(|_| of_key(column))).collect();
            preferred_column(&of_keys, df_schema.fields().iter().map(|field| field.name().as_str())).and_then(bucket_of)
        });
        if let (Emit::OnClose, Some(bucket)) = (emit, &bucket) {
            // Results are held back until the bucket closes; by then the other bounds may have passed them.
            bounds.iter_mut().enumerate().filter(|(column, _)| *column != bucket.column).for_each(|(_, bound)| *bound = None);
        }
        let versions = if emit == Emit::Changes { versions_of(&plan, self.get(input)) } else { None };
        let tail = if emit == Emit::Changes && versions.is_none() { tail_of(&plan, self.get(input), &keys) } else { None };
        let reach =
            if emit == Emit::Changes && versions.is_none() && tail.is_none() { reach_of(&plan, self.get(input), &keys) } else { None };
        let append_only = emit == Emit::OnClose || bucket.as_ref().is_some_and(|bucket| bucket.bound.is_epoch());
        let nondeterminism = fragment.nondeterminism;
        let properties = Properties { append_only, bounds, keys: unique, clock_dependent: false, nondeterminism };
        let by = canonical_texts(keys.iter().map(|key| &key.expr), &self.get(input).df_schema)?;
        let columns: Vec<usize> = keys.iter().map(|key| key.column).collect();
        let text = format!("{} by {by} in {columns:?} emit {emit:?}", plan.display_indent());
        Ok(self.push(NewNode {
            op: Op::TouchedKeys { plan: Arc::new(plan), keys, emit, bucket, versions, tail, reach },
            inputs: vec![input],
            df_schema,
            properties,
            strategy: Strategy::TouchedKeys,
            fallback_reason: (!fragment.reasons.is_empty()).then(|| fragment.reasons.join("; ")),
            text,
        }))
    }
}

/// Whether all rows can be one partition: rows that come behind the others do not cost all of it.
fn goes_on_from_its_end(plan: &LogicalPlan, input: &Node) -> bool {
    tail_of(plan, input, &[]).is_some() || reach_of(plan, input, &[]).is_some()
}

/// The columns of a plan as a partition.
pub(crate) fn by_columns(schema: &DFSchemaRef, columns: &[usize]) -> Vec<(Expr, usize)> {
    columns.iter().map(|column| (column_at(schema, *column), *column)).collect()
}
