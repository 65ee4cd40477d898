//! `CREATE SINK` and `INSERT INTO` a sink: where the changes of queries go.

use super::super::Pipeline;
use super::super::planning::{Emission, Planned, emission};
use super::super::query::Target;
use super::super::sinks::SinkState;
use super::select_all;
use crate::catalog::object::{Backfill, Object, ObjectKind, QueryDef, QueryForm, SinkDef};
use crate::catalog::resolve::{fold, object_name};
use crate::error::{EngineError, Result};
use crate::notice::Notice;
use crate::statements;
use arrow::datatypes::SchemaRef;
use millstream_connectors::registry;
use millstream_connectors::sink::{Sink, SinkContext, SinkMode};
use millstream_connectors::sinks::callback::CallbackSink;
use millstream_connectors::sinks::console::ConsoleSink;
use millstream_sql::Statement;
use millstream_sql::statement::{CreateSink, Emit, InsertInto, SinkSource};
use millstream_types::{Delta, Options};
use sqlparser::ast::{self, Query};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Pipeline {
    pub(super) async fn create_sink(
        &mut self,
        create: &CreateSink,
        sql: String,
        initial: &mut BTreeMap<String, Delta>,
    ) -> Result<Vec<Notice>> {
        let mut notices = Vec::new();
        let name = object_name(&create.name);
        if self.claim(&name, false, create.or_replace, &mut notices).await? {
            return Ok(notices);
        }
        let mut def = statements::create_sink::define(create, &self.given)?;
        let source: Option<(Box<Query>, Emit)> = match &create.source {
            None => None,
            Some(SinkSource::Query { query, emit }) => Some((query.clone(), *emit)),
            Some(SinkSource::From { name, emit }) => Some((select_all(name)?, *emit)),
        };
        if let Some((query, emit)) = source {
            let query_def = self.attach_query(&def, format!("{name}_1"), query, emit, sql.as_str(), None, initial, &mut notices).await?;
            def.queries.push(query_def);
        } else if def.connector != "callback" {
            // Without a query the connector is not built yet; at least its name must be right.
            registry::sink_kind(&def.connector).map_err(|error| EngineError::connector(format!("sink \"{name}\""), error))?;
        }
        self.catalog.put(Object { name, sql, kind: ObjectKind::Sink(Arc::new(def)) });
        Ok(notices)
    }

    /// `INSERT INTO sink SELECT`: attaches a continuous query.
    pub(super) async fn attach(&mut self, insert: &InsertInto, initial: &mut BTreeMap<String, Delta>) -> Result<Vec<Notice>> {
        let name = object_name(&insert.target);
        let object = Arc::clone(self.catalog.require(&name)?);
        let ObjectKind::Sink(def) = &object.kind else {
            return Err(EngineError::Internal(format!("\"{name}\" is not a sink")));
        };
        let query_name = match &insert.query_name {
            Some(ident) => fold(ident),
            None => (1..)
                .map(|n| format!("{name}_{n}"))
                .find(|candidate| !self.queries.iter().any(|query| query.def.name == *candidate))
                .unwrap_or_default(),
        };
        let mut notices = Vec::new();
        let mut def = def.as_ref().clone();
        // Stored with its name, so that a restart gives it the same one.
        let named = InsertInto { query_name: Some(ast::Ident::with_quote('"', &query_name)), ..insert.clone() };
        let insert_sql = Statement::InsertInto(named).canonical_text();
        let query = self
            .attach_query(&def, query_name, insert.source.clone(), insert.emit, &object.sql, Some(insert_sql), initial, &mut notices)
            .await?;
        def.queries.push(query);
        self.catalog.put(Object { name, sql: object.sql.clone(), kind: ObjectKind::Sink(Arc::new(def)) });
        Ok(notices)
    }

    #[expect(clippy::too_many_arguments, reason = "one caller each for CREATE SINK and INSERT INTO, nothing to group")]
    async fn attach_query(
        &mut self,
        sink: &SinkDef,
        name: String,
        query: Box<Query>,
        emit: Emit,
        sink_sql: &str,
        insert_sql: Option<String>,
        initial: &mut BTreeMap<String, Delta>,
        notices: &mut Vec<Notice>,
    ) -> Result<Arc<QueryDef>> {
        let Emission { on_close, period } = emission(emit, &name)?;
        let form = QueryForm { on_close, state_ttl: sink.state_ttl };
        let planned = self.plan_continuous(&query, &sink.columns, &name, form).await?;
        let properties = &planned.graph.output_node().properties;
        if sink.mode == SinkMode::Append && !properties.append_only {
            return Err(append_refusal(sink, &planned, sink_sql));
        }
        if !sink.queries.is_empty() && matches!(sink.mode, SinkMode::Complete | SinkMode::Upsert) {
            return Err(EngineError::invalid(
                format!("sink \"{}\" in {} mode takes one query and has \"{}\"", sink.name, sink.mode, sink.queries[0].name),
                "Create a second sink.",
            ));
        }
        if let Some(reserved) =
            planned.schema.fields().iter().find(|field| sink.mode == SinkMode::Changelog && is_changelog_name(sink, field.name()))
        {
            return Err(EngineError::invalid(
                format!(
                    "column \"{}\" of the query is also the name of a column that changelog sink \"{}\" adds",
                    reserved.name(),
                    sink.name
                ),
                "Rename it, or set op_name or epoch_name in the sink's options.",
            ));
        }
        if let Some(existing) = self.sinks.get(&sink.name) {
            if existing.schema.fields().len() != planned.schema.fields().len()
                || existing.schema.fields().iter().zip(planned.schema.fields()).any(|(a, b)| a.data_type() != b.data_type())
            {
                return Err(EngineError::invalid(
                    format!("query \"{name}\" has other columns than sink \"{}\"", sink.name),
                    format!("The sink takes ({}).", columns_text(&existing.schema)),
                ));
            }
        } else {
            self.add_sink(sink, &planned).await?;
        }
        let def = Arc::new(QueryDef {
            name,
            columns: sink.columns.clone(),
            query,
            form,
            period,
            backfill: Backfill::All,
            history: 0,
            schema: Arc::clone(&planned.schema),
            insert_sql,
        });
        let append_only = planned.graph.output_node().properties.append_only;
        let result = (sink.mode == SinkMode::Complete).then(|| self.store(&def.name, &def.schema, append_only)).transpose()?;
        let target = Target::Sink { sink: sink.name.clone(), result };
        self.add_query(Arc::clone(&def), planned, target, initial, notices).await?;
        Ok(def)
    }

    async fn add_sink(&mut self, def: &SinkDef, planned: &Planned) -> Result<()> {
        let event_time = planned.graph.output_node().properties.bounds.iter().enumerate().find_map(|(index, bound)| {
            let timestamp = matches!(planned.schema.field(index).data_type(), arrow::datatypes::DataType::Timestamp(..));
            (bound.is_some() && timestamp).then_some(index)
        });
        let owner = format!("sink \"{}\"", def.name);
        let context = SinkContext {
            sink: def.name.clone(),
            schema: Arc::clone(&planned.schema),
            partition_by: def.partition_by.clone(),
            order_by: def.order_by.clone(),
            key: def.key.clone(),
            mode: def.mode,
            event_time,
            pipeline: self.pipeline_id.clone(),
            writer: self.durability.as_ref().map_or(0, |durability| durability.dir.writer()),
            scratch: self.durability.as_ref().map(|durability| durability.dir.parts_path(&def.name)).transpose()?,
            options: Options::new(&owner, def.options.clone()).within(self.given.reach.clone()),
        };
        let sink = match self.callbacks.get(&def.name) {
            Some(callback) if def.connector == "callback" => Sink::Delivered(Box::new(CallbackSink::from_callback(Arc::clone(callback)))),
            _ if def.connector == "callback" => {
                return Err(EngineError::invalid(
                    format!("no callback is registered for sink \"{}\"", def.name),
                    "Call Engine::on_epoch before the sink is created.",
                ));
            }
            _ => self.create_sink_connector(&def.connector, context).map_err(|error| EngineError::connector(&owner, error))?,
        };
        let mut state = SinkState::new(Arc::new(def.clone()), Arc::clone(&planned.schema), sink);
        let recovered = self.recovered_sink(&def.name)?;
        state.open(recovered).await?;
        if self.durability.is_some() && !self.recovering() {
            // One of this name may have been here, in epochs that the log has lost with its definition.
            state.check_published(self.epoch).await?;
            state.remove_orphans().await?;
        }
        self.sinks.insert(def.name.clone(), state);
        Ok(())
    }

    /// Builds a sink; console sinks write where the engine was told to.
    fn create_sink_connector(&self, connector: &str, mut context: SinkContext) -> millstream_connectors::error::Result<Sink> {
        match &self.console {
            Some(console) if registry::sink_kind(connector)?.name == "console" => {
                let sink = ConsoleSink::new(&mut context, Arc::clone(console) as _)?;
                context.options.finish()?;
                Ok(Sink::Delivered(Box::new(sink)))
            }
            _ => registry::create_sink(connector, context),
        }
    }
}

fn is_changelog_name(sink: &SinkDef, column: &str) -> bool {
    let named = |option: &str, default: &str| sink.options.get(option).map_or(default == column, |name| name == column);
    matches!(sink.connector.as_str(), "files" | "filesystem" | "parquet" | "csv" | "json" | "arrow" | "text")
        && (named("op_name", "op") || named("epoch_name", "epoch"))
}

fn columns_text(schema: &SchemaRef) -> String {
    schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect::<Vec<_>>().join(", ")
}

/// Everybody's first error: a changing query into an append sink. Shows the statement three ways that work.
fn append_refusal(sink: &SinkDef, planned: &Planned, sql: &str) -> EngineError {
    let bounded = planned.graph.output_node().properties.bounds.iter().any(Option::is_some);
    let mut hint = String::from("Choose one of:");
    if bounded {
        hint.push_str(&format!("\n  rows that are final, once each:\n    {};", with_emit(sql)));
    }
    for (mode, meaning) in [("changelog", "every change, with op and epoch columns"), ("complete", "the whole result, whenever files roll")]
    {
        hint.push_str(&format!("\n  {meaning}:\n    {};", with_mode(sql, mode)));
    }
    if !bounded {
        hint.push_str("\nEMIT ON WINDOW CLOSE would need a WATERMARK on the stream and its time column or window in the result.");
    }
    EngineError::invalid(format!("sink \"{}\" appends, but the rows of its query change later", sink.name), hint)
}

/// The statement with `EMIT ON WINDOW CLOSE` before its options.
fn with_emit(sql: &str) -> String {
    match sql.rfind(" WITH (") {
        Some(at) => format!("{} EMIT ON WINDOW CLOSE{}", &sql[..at], &sql[at..]),
        None => format!("{sql} EMIT ON WINDOW CLOSE"),
    }
}

/// The statement with another mode among its options.
fn with_mode(sql: &str, mode: &str) -> String {
    match sql.rfind(" WITH (") {
        Some(at) => format!("{} WITH (mode = '{mode}', {}", &sql[..at], &sql[at + " WITH (".len()..]),
        None => format!("{sql} WITH (mode = '{mode}')"),
    }
}
