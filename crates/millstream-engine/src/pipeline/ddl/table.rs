//! `CREATE TABLE` and `CREATE EXTERNAL TABLE`: rows inserted by hand, and files at rest.

use super::super::{Pipeline, TableState};
use crate::catalog::object::{ExternalTableDef, Object, ObjectKind, Refresh};
use crate::catalog::resolve::object_name;
use crate::error::{EngineError, Result};
use crate::guard::guarded;
use crate::notice::Notice;
use crate::statements;
use datafusion::prelude::SessionContext;
use millstream_connectors::reach;
use millstream_connectors::sources::files::check_footers;
use millstream_sql::statement::{CreateExternalTable, CreateTable};
use sqlparser::ast::{self, ObjectName};
use std::sync::Arc;

impl Pipeline {
    pub(super) async fn create_table(&mut self, create: &CreateTable, sql: String) -> Result<Vec<Notice>> {
        let mut notices = Vec::new();
        if create.as_select.is_some() {
            return Err(EngineError::invalid(
                "CREATE TABLE ... AS SELECT is not supported",
                "Create the table with its columns, then INSERT INTO it ... SELECT; or CREATE MATERIALIZED VIEW for a maintained result.",
            ));
        }
        let name = object_name(&create.name);
        if self.claim(&name, create.if_not_exists, create.or_replace, &mut notices).await? {
            return Ok(notices);
        }
        let def = Arc::new(statements::create_table::define(create, &self.shared.base)?);
        let rows = self.table_store(&def)?;
        // A change that was computed from a table of the same name before is void.
        let changed = if self.recovering() { self.epoch } else { self.epoch.next() };
        self.tables.insert(name.clone(), TableState { rows, def: Arc::clone(&def), changed });
        self.catalog.put(Object { name, sql, kind: ObjectKind::Table(def) });
        Ok(notices)
    }

    pub(super) async fn create_external_table(&mut self, create: &CreateExternalTable, sql: String) -> Result<Vec<Notice>> {
        let mut notices = Vec::new();
        let name = object_name(&create.definition.name);
        let mut definition = create.definition.clone();
        let refresh = refresh_option(&name, &create.options)?;
        definition.options.retain(|(key, _)| !key.eq_ignore_ascii_case("refresh"));
        if self.claim(&name, create.definition.if_not_exists, create.definition.or_replace, &mut notices).await? {
            return Ok(notices);
        }
        let owner = format!("table \"{name}\"");
        for location in &mut definition.locations {
            *location = self.given.expanded(&owner, location)?;
            reach::check(&self.given.reach, &owner, location).map_err(|error| EngineError::connector(owner.clone(), error))?;
            if definition.file_type.eq_ignore_ascii_case("parquet") {
                check_footers(location).await.map_err(|error| EngineError::connector(owner.clone(), error))?;
            }
        }
        for (key, value) in &mut definition.options {
            if let ast::Value::SingleQuotedString(text) = value {
                *text = self.given.expanded(&owner, text)?;
                let option = (key.to_lowercase(), text.clone());
                reach::check_options(&self.given.reach, &owner, [(&option.0, &option.1)])
                    .map_err(|error| EngineError::connector(owner.clone(), error))?;
            }
        }
        let context = SessionContext::new_with_state(self.shared.base.clone());
        definition.or_replace = true;
        definition.name = ObjectName::from(vec![ast::Ident::with_quote('"', &name)]);
        let statement = datafusion::sql::parser::Statement::CreateExternalTable(definition);
        let defined = async {
            let plan = context.state().statement_to_plan(statement).await?;
            Ok(context.execute_logical_plan(plan).await?)
        };
        guarded(&owner, Box::pin(defined)).await?;
        let provider = context.table_provider(datafusion::common::TableReference::bare(name.clone())).await?;
        let def = Arc::new(ExternalTableDef { name: name.clone(), schema: provider.schema(), refresh, adopted: false, provider });
        if refresh == Refresh::Track {
            self.track(&def).await?;
        }
        self.catalog.put(Object { name, sql, kind: ObjectKind::ExternalTable(def) });
        Ok(notices)
    }
}

/// The option `refresh` of an at-rest table.
fn refresh_option(table: &str, options: &[(String, String)]) -> Result<Refresh> {
    let Some((_, refresh)) = options.iter().find(|(key, _)| key == "refresh") else { return Ok(Refresh::Static) };
    match refresh.as_str() {
        "static" => Ok(Refresh::Static),
        "track" => Ok(Refresh::Track),
        "every epoch" => Ok(Refresh::EveryEpoch),
        other => millstream_types::options::parse_duration(other).filter(|interval| !interval.is_zero()).map(Refresh::Interval).ok_or_else(
            || {
                EngineError::invalid(
                    format!("option \"refresh\" of table \"{table}\" is '{other}'"),
                    "Write 'static', an interval such as '10 minutes', 'every epoch' or 'track'.",
                )
            },
        ),
    }
}
