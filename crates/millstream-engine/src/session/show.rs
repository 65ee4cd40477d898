//! SHOW and DESCRIBE: the catalog, settings and functions as rows.

use super::contents::NamesOnly;
use super::{Session, text_result};
use crate::catalog::object::ObjectKind;
use crate::catalog::resolve::{Resolver, object_name};
use crate::error::{EngineError, Result};
use crate::result::StatementResult;
use crate::system_tables;
use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use millstream_sql::statement::{Show, ShowWhat};
use sqlparser::ast::ObjectName;
use std::sync::Arc;

impl Session {
    pub(super) async fn show(&self, show: Show) -> Result<StatementResult> {
        let shared = self.engine.shared();
        let batch = match &show.what {
            ShowWhat::Streams => system_tables::catalog_rows(shared, |kind| matches!(kind, ObjectKind::Stream(_)))?,
            ShowWhat::Tables => {
                let relation = |kind: &ObjectKind| !matches!(kind, ObjectKind::Sink(_));
                system_tables::catalog_rows(shared, relation)?
            }
            ShowWhat::Views => {
                system_tables::catalog_rows(shared, |kind| matches!(kind, ObjectKind::View(_) | ObjectKind::MaterializedView(_)))?
            }
            ShowWhat::MaterializedViews => system_tables::catalog_rows(shared, |kind| matches!(kind, ObjectKind::MaterializedView(_)))?,
            ShowWhat::Sinks => system_tables::catalog_rows(shared, |kind| matches!(kind, ObjectKind::Sink(_)))?,
            ShowWhat::Queries => return self.execute_internal("SELECT * FROM millstream.queries").await,
            ShowWhat::Users => self.users()?,
            ShowWhat::Grants(user) => self.grants(user.as_ref())?,
            ShowWhat::All => return self.execute_internal("SELECT name, value, doc FROM millstream.settings").await,
            ShowWhat::Functions => {
                let mut names: Vec<String> = shared.base.scalar_functions().keys().cloned().collect();
                names.extend(shared.base.aggregate_functions().keys().cloned());
                names.extend(shared.base.window_functions().keys().cloned());
                names.extend(shared.stateful_functions.names().map(str::to_string));
                names.sort();
                names.dedup();
                return text_result("SHOW", "function", names);
            }
            ShowWhat::Connectors => {
                use millstream_connectors::registry::{SINKS, SOURCES};
                let mut rows: Vec<(String, &str, &str)> =
                    SOURCES.iter().map(|kind| (kind.name.to_string(), "source", kind.description)).collect();
                rows.extend(SINKS.iter().map(|kind| (kind.name.to_string(), "sink", kind.description)));
                let columns: Vec<(&str, ArrayRef)> = vec![
                    ("connector", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.0)))),
                    ("kind", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1)))),
                    ("description", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.2)))),
                ];
                RecordBatch::try_from_iter(columns)?
            }
            ShowWhat::Columns(name) => return self.describe(name).await,
            ShowWhat::Variable(name) => {
                let settings = shared.settings.read();
                let value = match (settings.get(name), name.as_str()) {
                    (Some(value), _) => value,
                    // What a transaction reads is of the epoch it began with.
                    (None, "epoch") => match self.pinned() {
                        Some((_, snapshot)) => snapshot.epoch.to_string(),
                        None => shared.committed.borrow().epoch.to_string(),
                    },
                    (None, "server_version") => format!("15.0 (Millstream {})", env!("CARGO_PKG_VERSION")),
                    (None, "server_version_num") => "150000".to_string(),
                    (None, _) => match self.variables.get(name) {
                        Some(value) => value,
                        None => {
                            return Err(EngineError::invalid(format!("unknown setting \"{name}\""), "SHOW ALL lists the options."));
                        }
                    },
                };
                drop(settings);
                return text_result("SHOW", name, [value]);
            }
        };
        let batch = match &show.like {
            None => batch,
            Some(pattern) => {
                let names = batch.column(0);
                let mask = arrow::compute::kernels::comparison::like(names, &StringArray::new_scalar(pattern.as_str()))?;
                arrow::compute::filter_record_batch(&batch, &mask)?
            }
        };
        Ok(StatementResult::batch("SHOW", batch))
    }

    async fn execute_internal(&self, sql: &str) -> Result<StatementResult> {
        let query = millstream_sql::parse_query(sql)?;
        let mut result = self.select(&query, &[]).await?;
        result.tag = "SHOW".into();
        Ok(result)
    }

    pub(super) async fn describe(&self, name: &ObjectName) -> Result<StatementResult> {
        let name = object_name(name);
        let catalog = self.engine.shared().catalog.read().clone();
        let object = catalog.require(&name)?;
        let mut notes: std::collections::HashMap<String, String> = std::collections::HashMap::new();
        let schema = match &object.kind {
            ObjectKind::Stream(def) => {
                use crate::catalog::object::ColumnOrigin;
                for column in &def.columns {
                    let note = match &column.origin {
                        ColumnOrigin::Physical => continue,
                        ColumnOrigin::Computed(expr) => format!("AS {expr}"),
                        ColumnOrigin::Proctime => "AS PROCTIME()".to_string(),
                        ColumnOrigin::Metadata(key) => format!("METADATA FROM '{key}'"),
                    };
                    notes.insert(column.field.name().clone(), note);
                }
                if let Some((column, delay)) = &def.watermark {
                    let note = format!("WATERMARK, {} late at most", humantime::format_duration(*delay));
                    notes.entry(column.clone()).and_modify(|text| *text = format!("{text}; {note}")).or_insert(note);
                }
                def.schema()
            }
            ObjectKind::Table(def) => Arc::clone(&def.schema),
            ObjectKind::ExternalTable(def) => Arc::clone(&def.schema),
            ObjectKind::MaterializedView(def) => Arc::clone(&def.schema),
            ObjectKind::View(_) => {
                let query = crate::pipeline::ddl::select_all(&ObjectName::from(vec![sqlparser::ast::Ident::with_quote('"', &name)]))?;
                let resolved =
                    Resolver { catalog: &catalog, base: &self.engine.shared().base, contents: &NamesOnly { shared: self.engine.shared() } }
                        .plan(&query)
                        .await?;
                Arc::new(resolved.plan.schema().as_arrow().clone())
            }
            ObjectKind::Sink(def) => match def.queries.first() {
                Some(query) => Arc::clone(&query.schema),
                None => return Err(EngineError::invalid(format!("sink \"{name}\" has no query yet"), "")),
            },
        };
        let fields = schema.fields();
        let types = fields.iter().map(|field| crate::sql_types::sql_type(field.data_type()));
        let nullable = fields.iter().map(|field| if field.is_nullable() { "YES" } else { "NO" });
        let notes = fields.iter().map(|field| notes.get(field.name()).cloned().unwrap_or_default());
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(fields.iter().map(|field| field.name()))),
            Arc::new(StringArray::from_iter_values(types)),
            Arc::new(StringArray::from_iter_values(nullable)),
            Arc::new(StringArray::from_iter_values(notes)),
        ];
        Ok(StatementResult::batch("DESCRIBE", RecordBatch::try_new(describe_columns(), columns)?))
    }
}

/// The columns of what DESCRIBE gives.
pub(super) fn describe_columns() -> SchemaRef {
    let text = |name| Field::new(name, DataType::Utf8, false);
    Arc::new(Schema::new(vec![text("column"), text("type"), text("nullable"), text("note")]))
}
