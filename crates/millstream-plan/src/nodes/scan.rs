//! Leaves of the graph: changes of streams, tables and views, and constants.

use crate::canonical::{column_at, is_volatile};
use crate::error::{PlanError, Result};
use crate::graph::{NodeId, Op, Properties, Strategy};
use crate::nodes::lookup_join::misplaced;
use crate::relation::Relation;
use crate::translate::{NewNode, Part, Translator};
use crate::watermark::column_bound;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::{LogicalPlan, TableScan};
use std::collections::BTreeSet;
use std::sync::Arc;

impl Translator<'_> {
    /// A scan: the columns it reads, then its filters, then its limit.
    pub(crate) fn scan(&mut self, plan: &LogicalPlan, scan: &TableScan) -> Result<Part> {
        let Some(relation) = self.relation(scan)? else {
            let name = scan.table_name.table().to_string();
            return self.work_table(plan, &name);
        };
        if relation.lookup && !self.looking_up {
            return Err(misplaced(&relation.name));
        }
        if scan.fetch.is_some() {
            // The limit becomes a node of its own, which chooses rows deterministically.
            let unlimited = LogicalPlan::TableScan(TableScan { fetch: None, ..scan.clone() });
            return self.limited(unlimited, scan.fetch);
        }
        // Filters may read columns that the scan does not hand out.
        let mut fields: Vec<_> = scan.projected_schema.iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field))).collect();
        for column in scan.filters.iter().flat_map(|filter| filter.column_refs()) {
            if !fields.iter().any(|(_, field)| field.name() == &column.name) {
                let schema = scan.source.schema();
                let field = schema.field_with_name(&column.name)?;
                fields.push((Some(scan.table_name.clone()), Arc::new(field.clone())));
            }
        }
        let wide = fields.len() > scan.projected_schema.fields().len();
        let df_schema =
            if wide { Arc::new(DFSchema::new_with_metadata(fields, Default::default())?) } else { Arc::clone(&scan.projected_schema) };
        let input = self.input(&relation, df_schema)?;
        if scan.filters.is_empty() {
            return Ok(Part::Node(input));
        }
        let to = Arc::clone(&self.get(input).df_schema);
        let predicates = scan
            .filters
            .iter()
            .map(|filter| {
                crate::canonical::rebase_with(filter, |column: &Column| {
                    match to.fields().iter().position(|field| field.name() == &column.name) {
                        Some(index) => Ok(column_at(&to, index)),
                        None => Err(PlanError::UnknownColumn { relation: relation.name.clone(), column: column.name.clone() }),
                    }
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let exprs = wide.then(|| (0..scan.projected_schema.fields().len()).map(|index| column_at(&to, index)).collect());
        self.map(input, predicates, exprs, &scan.projected_schema).map(Part::Node)
    }

    fn input(&mut self, relation: &Relation, df_schema: datafusion::common::DFSchemaRef) -> Result<NodeId> {
        let columns: Vec<String> = df_schema.fields().iter().map(|field| field.name().clone()).collect();
        if let Some(column) = columns.iter().find(|column| relation.schema.field_with_name(column).is_err()) {
            return Err(PlanError::UnknownColumn { relation: relation.name.clone(), column: column.clone() });
        }
        let place = |name: &String| columns.iter().position(|column| column == name);
        let properties = Properties {
            append_only: relation.append_only,
            bounds: df_schema.fields().iter().map(|field| column_bound(relation, field.name(), field.data_type())).collect(),
            keys: relation.keys.iter().filter_map(|key| key.iter().map(place).collect()).collect(),
            clock_dependent: false,
            nondeterminism: None,
        };
        let text = format!("{}({})", relation.name, columns.join(", "));
        Ok(self.push(NewNode {
            op: Op::Input { relation: relation.name.clone(), columns },
            inputs: vec![],
            df_schema,
            properties,
            strategy: Strategy::Delta,
            fallback_reason: None,
            text,
        }))
    }

    /// A plan over at-rest tables only.
    pub(crate) fn constant(&mut self, plan: &LogicalPlan) -> Result<NodeId> {
        let mut names = BTreeSet::new();
        let mut volatile = false;
        let mut scans = vec![];
        plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node {
                scans.push(scan.clone());
            }
            volatile |= node.expressions().iter().any(is_volatile);
            Ok(TreeNodeRecursion::Continue)
        })?;
        for scan in scans {
            // The working tables of recursions inside the constant are not in the catalog.
            if let Ok(Some(relation)) = self.relation(&scan) {
                names.insert(relation.name);
            }
        }
        let columns = plan.schema().fields().len();
        let properties = Properties {
            append_only: true,
            bounds: vec![None; columns],
            keys: vec![],
            clock_dependent: false,
            nondeterminism: volatile.then(|| "a volatile function is evaluated once, when the query starts".into()),
        };
        Ok(self.push(NewNode {
            text: plan.display_indent().to_string(),
            op: Op::Constant { plan: Arc::new(plan.clone()), tables: names.into_iter().collect() },
            inputs: vec![],
            df_schema: Arc::clone(plan.schema()),
            properties,
            strategy: Strategy::Delta,
            fallback_reason: None,
        }))
    }
}
