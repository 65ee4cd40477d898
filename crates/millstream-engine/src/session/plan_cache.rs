//! Plans of queries that were asked before: whoever asks again, with the same parameters or others, waits for no planning.
//!
//! ```text
//!   text + types of parameters ──► optimized plan over placeholders ──► values and the snapshot's rows put in ──► physical plan
//!                                   └─ kept while the objects it reads stay as they are
//! ```
//! Kept are plans over relations that hold rows (tables, materialized views, tracked tables, and views of them) whose functions give the
//! same for the same arguments at any time. What else a query may name or call is planned each time, and that is remembered too.

use super::Session;
use super::snapshot_table::{SnapshotTable, SnapshotTables};
use crate::catalog::Catalog;
use crate::catalog::cache::CatalogCache;
use crate::catalog::object::{ObjectKind, Refresh};
use crate::catalog::resolve::{Named, Resolver};
use crate::error::Result;
use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::datasource::DefaultTableSource;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use millstream_plan::process::ProcessNode;
use sqlparser::ast::Query;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Plans that are kept.
const PLANS: usize = 256;
/// Texts that are longer are not worth their memory.
const TEXT_BYTES: usize = 16 * 1024;

/// What a plan is found by: the query's text and the types of its parameters.
type Key = (String, Vec<DataType>);

/// The plans that an engine keeps for all its sessions. `None`: the query has to be planned each time.
#[derive(Debug)]
pub struct PlanCache {
    plans: CatalogCache<Key, Option<Arc<KeptPlan>>>,
}

impl Default for PlanCache {
    fn default() -> Self {
        Self { plans: CatalogCache::new(PLANS) }
    }
}

/// A plan without values and rows.
#[derive(Debug)]
pub(super) struct KeptPlan {
    /// Optimized.
    plan: LogicalPlan,
    /// The types that its parameters have in it.
    parameters: HashMap<String, DataType>,
    /// The objects it reads, views and what they read included.
    pub(super) reads: BTreeSet<String>,
}

impl KeptPlan {
    /// The plan with these values for its parameters.
    ///
    /// # Errors
    /// When a value is none of the type that the plan takes.
    pub(super) fn with_values(&self, values: Vec<ScalarValue>) -> datafusion::error::Result<LogicalPlan> {
        if values.is_empty() {
            return Ok(self.plan.clone());
        }
        let fitting = |(index, value): (usize, ScalarValue)| match self.parameters.get(&format!("${}", index + 1)) {
            Some(data_type) => value.cast_to(data_type),
            None => Ok(value),
        };
        let values = values.into_iter().enumerate().map(fitting).collect::<datafusion::error::Result<Vec<_>>>()?;
        self.plan.clone().replace_params_with_values(&ParamValues::from(values))
    }
}

impl Session {
    /// The plan of a query with parameters of these types, if there is one that can be used again.
    pub(super) async fn kept_plan(&self, catalog: &Arc<Catalog>, query: &Query, parameters: Vec<DataType>) -> Option<Arc<KeptPlan>> {
        let shared = self.engine.shared();
        let key = (query.to_string(), parameters);
        if key.0.len() > TEXT_BYTES {
            return None;
        }
        if let Some(kept) = shared.plans.plans.get(catalog, &key) {
            return kept;
        }
        // What is wrong with a query is told by the planning that is done each time.
        let resolver = Resolver { catalog, base: &shared.base, contents: &SnapshotTables };
        let reads = resolver.reads(query).ok()?;
        if !reads.is_settled {
            return None;
        }
        let objects = reads.objects.iter().filter_map(|name| catalog.get(name).cloned()).collect();
        let kept = match is_of_rows(catalog, &reads) {
            true => self.plan_to_keep(catalog, query, &key.1, reads.objects).await.unwrap_or(None).map(Arc::new),
            false => None,
        };
        shared.plans.plans.put(key, kept.clone(), objects);
        kept
    }

    async fn plan_to_keep(
        &self,
        catalog: &Arc<Catalog>,
        query: &Query,
        parameters: &[DataType],
        reads: BTreeSet<String>,
    ) -> Result<Option<KeptPlan>> {
        let resolver = Resolver { catalog, base: &self.engine.shared().reading, contents: &SnapshotTables };
        let resolved = resolver.plan_with(query, parameters).await?;
        let plan = &resolved.plan;
        if ProcessNode::find(plan)?.is_some() || !is_over_snapshots(plan)? || !is_timeless(plan)? || has_open_limit(plan)? {
            return Ok(None);
        }
        let types = resolved.plan.get_parameter_types()?;
        let parameters = types.into_iter().filter_map(|(name, data_type)| Some((name, data_type?))).collect();
        let plan = resolved.state.optimize(&resolved.plan)?;
        Ok(Some(KeptPlan { plan, parameters, reads }))
    }
}

/// Whether a query reads nothing but what a snapshot has the rows of.
fn is_of_rows(catalog: &Catalog, reads: &Named) -> bool {
    let holds_rows = |name: &String| match catalog.get(name).map(|object| &object.kind) {
        Some(ObjectKind::Table(_) | ObjectKind::MaterializedView(_) | ObjectKind::View(_)) => true,
        Some(ObjectKind::ExternalTable(def)) => def.refresh == Refresh::Track,
        _ => false,
    };
    reads.system.is_empty() && reads.files.is_empty() && !reads.objects.is_empty() && reads.objects.iter().all(holds_rows)
}

/// Whether a plan, views included, calls no function that depends on when it is called.
fn is_timeless(plan: &LogicalPlan) -> Result<bool> {
    let mut is_timeless = true;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                let volatility = match expr {
                    Expr::ScalarFunction(call) => call.func.signature().volatility,
                    Expr::AggregateFunction(call) => call.func.signature().volatility,
                    Expr::WindowFunction(call) => call.fun.signature().volatility,
                    Expr::HigherOrderFunction(call) => call.func.signature().volatility,
                    Expr::ScalarVariable(..) => Volatility::Volatile,
                    _ => Volatility::Immutable,
                };
                is_timeless &= volatility == Volatility::Immutable;
                Ok(if is_timeless { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
            })
        })
    })?;
    Ok(is_timeless)
}

/// Whether a parameter says how many rows are wanted. A plan that may give none has another form, which the optimizer chooses.
fn has_open_limit(plan: &LogicalPlan) -> Result<bool> {
    let mut is_open = false;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Limit(limit) = node {
            is_open |= [&limit.skip, &limit.fetch].into_iter().flatten().any(|expr| expr.exists(is_parameter).unwrap_or(true));
        }
        Ok(if is_open { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(is_open)
}

fn is_parameter(expr: &Expr) -> datafusion::error::Result<bool> {
    Ok(matches!(expr, Expr::Placeholder(_)))
}

/// Whether all rows of a plan come from the snapshot, or are written in the query.
fn is_over_snapshots(plan: &LogicalPlan) -> Result<bool> {
    let mut all = true;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            let source = scan.source.downcast_ref::<DefaultTableSource>();
            all &= source.is_some_and(|source| source.table_provider.downcast_ref::<SnapshotTable>().is_some());
        }
        Ok(if all { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(all)
}
