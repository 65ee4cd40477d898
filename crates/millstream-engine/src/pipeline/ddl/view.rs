//! `CREATE VIEW`, a name for a query, and `CREATE MATERIALIZED VIEW`, a result that is kept up to date.

use super::super::Pipeline;
use super::super::planning::{Emission, ViewOptions, emission, view_options};
use super::super::query::Target;
use crate::catalog::object::{Object, ObjectKind, QueryDef, QueryForm, ViewDef};
use crate::catalog::resolve::{fold, object_name, rename_columns};
use crate::error::Result;
use crate::notice::Notice;
use millstream_sql::statement::{CreateMaterializedView, CreateView};
use millstream_types::Delta;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Pipeline {
    pub(super) async fn create_view(&mut self, create: &CreateView, sql: String) -> Result<Vec<Notice>> {
        let mut notices = Vec::new();
        let name = object_name(&create.name);
        if self.claim(&name, create.if_not_exists, create.or_replace, &mut notices).await? {
            return Ok(notices);
        }
        let columns: Vec<String> = create.columns.iter().map(fold).collect();
        // Planned now, so that mistakes show now and not when it is first read. Files it reads may be gone when it is recovered.
        if !self.recovering() {
            let resolved = self.resolve(&create.query).await?;
            rename_columns(resolved.plan, &columns, &name)?;
        }
        let def = ViewDef { name: name.clone(), columns, query: create.query.clone() };
        self.catalog.put(Object { name, sql, kind: ObjectKind::View(Arc::new(def)) });
        Ok(notices)
    }

    pub(super) async fn create_materialized_view(
        &mut self,
        create: &CreateMaterializedView,
        sql: String,
        initial: &mut BTreeMap<String, Delta>,
    ) -> Result<Vec<Notice>> {
        let mut notices = Vec::new();
        let name = object_name(&create.name);
        if self.claim(&name, create.if_not_exists, create.or_replace, &mut notices).await? {
            return Ok(notices);
        }
        let columns: Vec<String> = create.columns.iter().map(fold).collect();
        let Emission { on_close, period } = emission(create.emit, &name)?;
        let ViewOptions { backfill, state_ttl, history } = view_options(&name, create.options.clone())?;
        let form = QueryForm { on_close, state_ttl };
        let planned = self.plan_continuous(&create.query, &columns, &name, form).await?;
        let def = Arc::new(QueryDef {
            name: name.clone(),
            columns,
            query: create.query.clone(),
            form,
            period,
            backfill,
            history,
            schema: Arc::clone(&planned.schema),
            insert_sql: None,
        });
        let append_only = planned.graph.output_node().properties.append_only;
        let target = Target::View(self.store(&name, &def.schema, append_only)?);
        self.add_query(Arc::clone(&def), planned, target, initial, &mut notices).await?;
        self.catalog.put(Object { name, sql, kind: ObjectKind::MaterializedView(def) });
        Ok(notices)
    }
}
