//! Statements that change the catalog. Several of them (a pipeline file) make one epoch; either all take effect or none.

use super::command::FailedStatement;
use super::epoch::EpochWork;
use super::held::Held;
use super::query::{QueryState, Target, epoch_input};
use super::record::CatalogChange;
use super::sinks::SinkState;
use super::sources::SourceState;
use super::{Pipeline, StreamRuntime, TableState};
use crate::catalog::Catalog;
use crate::catalog::object::{Backfill, ExternalTableDef, Object, ObjectKind, QueryDef, Refresh, SinkDef, StreamDef, StreamShape, ViewDef};
use crate::catalog::resolve::{
    Contents, ContinuousRelations, Placeholder, Resolved, Resolver, fold, object_name, rename_columns, stream_relation,
};
use crate::edge::{Edge, EdgeEpoch};
use crate::error::{EngineError, Result};
use crate::notice::Notice;
use crate::settings::UnboundedState;
use crate::statements;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::prelude::SessionContext;
use millstream_connectors::registry;
use millstream_connectors::sink::{Sink, SinkContext, SinkMode};
use millstream_connectors::sinks::callback::CallbackSink;
use millstream_connectors::sinks::console::ConsoleSink;
use millstream_connectors::source::SourceContext;
use millstream_connectors::sources::history::HistorySource;
use millstream_dataflow::{Dataflow, DataflowContext, ViewStore};
use millstream_plan::explain::{explain, unbounded_nodes};
use millstream_plan::graph::Graph;
use millstream_plan::graph::Op;
use millstream_plan::optimize::{optimize, session_state_for_continuous};
use millstream_plan::relation::{Relation, RelationKind};
use millstream_plan::{EmitClause, Fallback, PlanOptions};
use millstream_sql::Statement;
use millstream_sql::statement::{
    CreateExternalTable, CreateMaterializedView, CreateSink, CreateStream, CreateTable, CreateView, Drop, Emit, InsertInto, SinkSource,
};
use millstream_types::{Delta, Options, delta};
use sqlparser::ast::{self, ObjectName, Query};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// A planned continuous query.
pub(super) struct Planned {
    pub(super) graph: Arc<Graph>,
    pub(super) schema: SchemaRef,
    pub(super) reads: BTreeSet<String>,
    pub(super) at_rest: BTreeSet<String>,
    pub(super) state: datafusion::execution::SessionState,
    pub(super) notices: Vec<String>,
}

/// What names mean in a continuous query.
struct ContinuousContents<'a> {
    pipeline: &'a Pipeline,
}

#[async_trait]
impl Contents for ContinuousContents<'_> {
    async fn provider(&self, name: &str, kind: &ObjectKind, hidden: bool) -> Result<Arc<dyn TableProvider>> {
        Ok(match kind {
            ObjectKind::Stream(def) => Arc::new(Placeholder::new(if hidden { def.schema_with_hidden() } else { def.schema() })),
            ObjectKind::Table(def) => Arc::new(Placeholder::new(Arc::clone(&def.schema))),
            ObjectKind::MaterializedView(def) => Arc::new(Placeholder::new(Arc::clone(&def.schema))),
            ObjectKind::ExternalTable(def) if def.refresh == Refresh::Track => Arc::new(Placeholder::new(Arc::clone(&def.schema))),
            ObjectKind::ExternalTable(def) => match self.pipeline.pinned.get(name) {
                Some(pinned) => Arc::clone(pinned),
                None => Arc::clone(&def.provider),
            },
            ObjectKind::Sink(_) => {
                return Err(EngineError::invalid(
                    format!("\"{name}\" is a sink; a continuous query cannot read it"),
                    "Read the view or stream that feeds it, or declare its directory as a table.",
                ));
            }
            ObjectKind::View(_) => return Err(EngineError::Internal("views are expanded by the resolver".into())),
        })
    }

    async fn files(&self, path: &str) -> Result<Arc<dyn TableProvider>> {
        match self.pipeline.pinned.get(path) {
            Some(pinned) => Ok(Arc::clone(pinned)),
            None => self.pipeline.file_table(path).await,
        }
    }

    fn system_table(&self, _name: &str) -> Option<Arc<dyn TableProvider>> {
        None
    }
}

impl Pipeline {
    /// Carries out statements as one epoch.
    pub(super) async fn ddl(&mut self, statements: Vec<Statement>) -> Result<Result<Vec<Notice>, FailedStatement>> {
        self.settle().await?;
        let before = (self.catalog.clone(), self.settings.clone());
        let mut initial = BTreeMap::new();
        let mut notices = Vec::new();
        for (index, statement) in statements.iter().enumerate() {
            match self.define(statement, &mut initial).await {
                Ok(more) => notices.extend(more),
                Err(error) => {
                    self.undo(before).await;
                    return Ok(Err(FailedStatement { index, error }));
                }
            }
        }
        for statement in &statements {
            self.pending_catalog.push(CatalogChange::Statement { sql: statement.canonical_text() });
        }
        self.publish_catalog();
        let queries_changed = !initial.is_empty();
        self.run_epoch_with(EpochWork { initial, ..EpochWork::default() }).await?;
        if queries_changed && self.durability.is_some() {
            // Recovery then never has to fill a query back a second time.
            self.checkpoint().await?;
        }
        self.backlog = true;
        Ok(Ok(notices))
    }

    /// Takes a failed set of statements back.
    async fn undo(&mut self, (catalog, settings): (Catalog, crate::settings::Settings)) {
        let keep = |name: &str| catalog.get(name).is_some();
        let queries: BTreeSet<String> = catalog
            .objects()
            .iter()
            .flat_map(|object| match &object.kind {
                ObjectKind::MaterializedView(def) => vec![def.name.clone()],
                ObjectKind::Sink(def) => def.queries.iter().map(|query| query.name.clone()).collect(),
                _ => Vec::new(),
            })
            .collect();
        self.queries.retain(|query| queries.contains(&query.def.name));
        self.sinks.retain(|name, _| keep(name));
        self.tables.retain(|name, _| keep(name));
        self.streams.retain(|name, _| keep(name));
        let gone: Vec<String> =
            self.sources.as_ref().map_or_else(Vec::new, |sources| sources.order.iter().filter(|name| !keep(name)).cloned().collect());
        for name in gone {
            self.remove_source(&name).await;
        }
        self.catalog = catalog;
        self.settings = settings;
        self.update_readers();
    }

    /// Carries out one statement, without the epoch. Back-filled changes of new queries go into `initial`.
    pub(super) async fn define(&mut self, statement: &Statement, initial: &mut BTreeMap<String, Delta>) -> Result<Vec<Notice>> {
        let sql = statement.canonical_text();
        match statement {
            Statement::CreateStream(create) => self.create_stream(create, sql).await,
            Statement::CreateTable(create) => self.create_table(create, sql).await,
            Statement::CreateExternalTable(create) => self.create_external_table(create, sql).await,
            Statement::CreateView(create) => self.create_view(create, sql).await,
            Statement::CreateMaterializedView(create) => self.create_materialized_view(create, sql, initial).await,
            Statement::CreateSink(create) => self.create_sink(create, sql, initial).await,
            Statement::InsertInto(insert) => self.attach(insert, initial).await,
            Statement::Drop(drop) => self.drop_objects(drop).await,
            Statement::Set(set) => {
                self.settings.set(&set.name, &set.value)?;
                Ok(Vec::new())
            }
            Statement::Reset(name) => {
                self.settings.reset(name.as_deref().unwrap_or("all"))?;
                Ok(Vec::new())
            }
            Statement::RefreshTable(name) => {
                self.refresh_table(&object_name(name)).await?;
                Ok(Vec::new())
            }
            other => Err(EngineError::invalid(format!("this statement is not supported here: {other}"), "")),
        }
    }

    /// Whether the name is free. `true`: it exists and `IF NOT EXISTS` says to leave it.
    async fn claim(&mut self, name: &str, if_not_exists: bool, or_replace: bool, notices: &mut Vec<Notice>) -> Result<bool> {
        let Some(existing) = self.catalog.get(name) else { return Ok(false) };
        let word = existing.kind.word();
        if if_not_exists {
            notices.push(Notice::info(format!("{word} \"{name}\" exists already, skipping"), ""));
            return Ok(true);
        }
        if or_replace {
            self.drop_one(name, false).await?;
            return Ok(false);
        }
        Err(EngineError::invalid(
            format!("{word} \"{name}\" exists already"),
            "Choose another name, DROP it first, or write CREATE OR REPLACE or CREATE ... IF NOT EXISTS.",
        ))
    }

    async fn create_stream(&mut self, create: &CreateStream, sql: String) -> Result<Vec<Notice>> {
        let mut notices = Vec::new();
        let name = object_name(&create.name);
        if self.claim(&name, create.if_not_exists, create.or_replace, &mut notices).await? {
            return Ok(notices);
        }
        let mut derived_flow = None;
        let derived = match &create.as_select {
            None => None,
            Some(query) => {
                let planned = self.plan_continuous(query, &[], &name, false).await?;
                let mut reads = planned.reads.iter();
                let (Some(base), None) = (reads.next().cloned(), reads.next()) else {
                    return Err(EngineError::invalid(format!("derived stream \"{name}\" must read exactly one stream"), ""));
                };
                let linear =
                    planned.graph.nodes.iter().all(|node| matches!(node.op, Op::Input { .. } | Op::Map { .. } | Op::Unnest { .. }));
                if !linear || !self.catalog.stream(&base).is_ok_and(|base| base.shape == StreamShape::Append) {
                    return Err(EngineError::invalid(
                        format!("derived stream \"{name}\" must be a projection, filter or UNNEST over one append-only stream"),
                        "Use CREATE VIEW or CREATE MATERIALIZED VIEW for anything else.",
                    ));
                }
                derived_flow = Some(Dataflow::new(planned.graph.as_ref().clone(), DataflowContext { state: planned.state.clone() })?);
                Some((base, planned.schema))
            }
        };
        let def = Arc::new(statements::create_stream::define(create, &self.given, derived, &self.shared.base).await?);
        self.add_stream(&def, derived_flow).await?;
        if def.watermark.is_none() && def.shape == StreamShape::Append && def.connector != "memory" {
            tracing::debug!(stream = %def.name, "stream has no watermark");
        }
        self.catalog.put(Object { name: def.name.clone(), sql, kind: ObjectKind::Stream(def) });
        Ok(notices)
    }

    /// Creates and opens a stream's source.
    async fn add_stream(&mut self, def: &Arc<StreamDef>, derived: Option<Dataflow>) -> Result<()> {
        let name = def.name.clone();
        let owner = format!("stream \"{name}\"");
        let edge = Edge::new(Arc::clone(def), &self.shared.base)?;
        let mut state =
            SourceState { def: Arc::clone(def), edge, source: None, reader: None, derived, replayable: true, budget: None, ended: false };
        if def.derived.is_none() {
            let context = self.source_context(def, &state.edge);
            let fail = |error| EngineError::connector(&owner, error);
            let mut source = match self.history.clone() {
                None => registry::create_source(&def.connector, context).map_err(fail)?,
                Some(history) => {
                    if def.shape != StreamShape::Append {
                        return Err(EngineError::invalid(
                            format!("rows of {owner} change earlier ones, so that they cannot be put in the order of event time"),
                            "Replay it with --order arrival.",
                        ));
                    }
                    let inner = registry::create_source(&def.connector, context).map_err(fail)?;
                    let context = self.source_context(def, &state.edge);
                    Box::new(HistorySource::new(inner, &def.connector, &context, history.options).map_err(fail)?)
                }
            };
            let (position, ranges) = self.recovered_position(&name);
            source.open(position, &ranges).await.map_err(fail)?;
            state.replayable = source.properties().replayable;
            state.reader = Some(source.reader());
            if let Some(pusher) = source.pusher() {
                self.shared.pushers.write().insert(name.clone(), pusher);
            }
            let (wake, own) = (source.wake(), Arc::clone(&self.wake));
            let forward = tokio::spawn(async move {
                loop {
                    wake.notified().await;
                    own.notify_one();
                }
            });
            self.wakers.insert(name.clone(), forward);
            state.source = Some(source);
        }
        let runtime = StreamRuntime {
            def: Arc::clone(def),
            reader: state.reader.clone(),
            replayable: state.replayable,
            history: Vec::new(),
            history_segments_kept: 0,
            retained: Default::default(),
            retained_bytes: 0,
            retention_cut: false,
            watermark: (millstream_types::EventTime::MIN, false),
            totals: Default::default(),
        };
        self.streams.insert(name.clone(), runtime);
        let sources = self.sources.as_mut().ok_or_else(|| EngineError::Internal("sources are away".into()))?;
        sources.streams.insert(name.clone(), state);
        sources.order.push(name);
        self.update_readers();
        Ok(())
    }

    fn source_context(&self, def: &Arc<StreamDef>, edge: &Edge) -> SourceContext {
        SourceContext {
            stream: def.name.clone(),
            schema: edge.decode_schema(),
            metadata: edge.metadata(),
            event_time: def.watermark.as_ref().map(|(column, _)| column.clone()),
            options: Options::new(format!("stream \"{}\"", def.name), def.connector_options.clone()),
            clock: Arc::clone(&self.shared.clock),
        }
    }

    async fn remove_source(&mut self, name: &str) {
        if let Some(waker) = self.wakers.remove(name) {
            waker.abort();
        }
        self.shared.pushers.write().remove(name);
        if let Some(sources) = &mut self.sources {
            sources.order.retain(|other| other != name);
            if let Some(mut source) = sources.streams.remove(name).and_then(|stream| stream.source) {
                source.stop().await;
            }
        }
        self.streams.remove(name);
    }

    async fn create_table(&mut self, create: &CreateTable, sql: String) -> Result<Vec<Notice>> {
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
        let rows = ViewStore::new(&name, Arc::clone(&def.schema), false, None)?;
        // A change that was computed from a table of the same name before is void.
        let changed = if self.recovering() { self.epoch } else { self.epoch.next() };
        self.tables.insert(name.clone(), TableState { rows, def: Arc::clone(&def), changed });
        self.catalog.put(Object { name, sql, kind: ObjectKind::Table(def) });
        Ok(notices)
    }

    async fn create_external_table(&mut self, create: &CreateExternalTable, sql: String) -> Result<Vec<Notice>> {
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
        }
        for (_, value) in &mut definition.options {
            if let ast::Value::SingleQuotedString(text) = value {
                *text = self.given.expanded(&owner, text)?;
            }
        }
        let context = SessionContext::new_with_state(self.shared.base.clone());
        definition.or_replace = true;
        definition.name = ObjectName::from(vec![ast::Ident::with_quote('"', &name)]);
        let statement = datafusion::sql::parser::Statement::CreateExternalTable(definition);
        let plan = context.state().statement_to_plan(statement).await?;
        context.execute_logical_plan(plan).await?;
        let provider = context.table_provider(datafusion::common::TableReference::bare(name.clone())).await?;
        let def = Arc::new(ExternalTableDef { name: name.clone(), schema: provider.schema(), refresh, provider });
        if refresh == Refresh::Track {
            self.track(&def).await?;
        }
        self.catalog.put(Object { name, sql, kind: ObjectKind::ExternalTable(def) });
        Ok(notices)
    }

    async fn create_view(&mut self, create: &CreateView, sql: String) -> Result<Vec<Notice>> {
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

    async fn create_materialized_view(
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
        let backfill = backfill_option(&name, create.options.clone())?;
        let planned = self.plan_continuous(&create.query, &columns, &name, on_close).await?;
        let def = Arc::new(QueryDef {
            name: name.clone(),
            columns,
            query: create.query.clone(),
            on_close,
            period,
            backfill,
            schema: Arc::clone(&planned.schema),
            insert_sql: None,
        });
        let append_only = planned.graph.output_node().properties.append_only;
        let target = Target::View(ViewStore::new(&name, Arc::clone(&def.schema), append_only, None)?);
        self.add_query(Arc::clone(&def), planned, target, initial, &mut notices).await?;
        self.catalog.put(Object { name, sql, kind: ObjectKind::MaterializedView(def) });
        Ok(notices)
    }

    async fn create_sink(&mut self, create: &CreateSink, sql: String, initial: &mut BTreeMap<String, Delta>) -> Result<Vec<Notice>> {
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
    async fn attach(&mut self, insert: &InsertInto, initial: &mut BTreeMap<String, Delta>) -> Result<Vec<Notice>> {
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
        let planned = self.plan_continuous(&query, &sink.columns, &name, on_close).await?;
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
            on_close,
            period,
            backfill: Backfill::All,
            schema: Arc::clone(&planned.schema),
            insert_sql,
        });
        let append_only = planned.graph.output_node().properties.append_only;
        let result =
            (sink.mode == SinkMode::Complete).then(|| ViewStore::new(&def.name, Arc::clone(&def.schema), append_only, None)).transpose()?;
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
            options: Options::new(&owner, def.options.clone()),
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

    /// Builds the operators of a query, fills it back, and adds it.
    async fn add_query(
        &mut self,
        def: Arc<QueryDef>,
        planned: Planned,
        target: Target,
        initial: &mut BTreeMap<String, Delta>,
        notices: &mut Vec<Notice>,
    ) -> Result<()> {
        self.check_state(&def.name, &planned.graph)?;
        if !self.recovering() && self.settings.unbounded_state()? == UnboundedState::Warn {
            notices.extend(planned.notices.iter().map(|message| Notice::info(format!("query \"{}\": {message}", def.name), "")));
        }
        let dataflow = Dataflow::new(planned.graph.as_ref().clone(), DataflowContext { state: planned.state.clone() })?;
        let clock_dependent = planned.graph.nodes.iter().any(|node| node.properties.clock_dependent || closes_by_clock(node));
        let name = def.name.clone();
        let backfill = def.backfill;
        let mut query = QueryState {
            def,
            graph: planned.graph,
            dataflow,
            target,
            reads: planned.reads,
            at_rest: planned.at_rest,
            started: false,
            failed: None,
            clock_dependent,
            held: Held::default(),
        };
        if !self.restore_query(&mut query).await? {
            let changes = self.backfill(&mut query, backfill).await?;
            initial.insert(name, changes);
        }
        self.queries.push(query);
        self.update_readers();
        Ok(())
    }

    /// Runs a new query over everything accepted so far, as one change.
    async fn backfill(&mut self, query: &mut QueryState, backfill: Backfill) -> Result<Delta> {
        let ticks = self.history_of(&query.reads, backfill, &query.def.name).await?;
        self.shared.epoch_clock.set(self.clock.max(self.next_clock()));
        let watermarks = self.watermarks();
        let mut changes = Delta::new();
        let last = ticks.len().saturating_sub(1);
        for (index, (epoch, clock, deltas)) in ticks.into_iter().enumerate() {
            // Windows close at the end only, so that every row of history finds its window open.
            let none = BTreeMap::new();
            let input = epoch_input(epoch, clock, deltas, if index == last { &watermarks } else { &none });
            changes.extend(query.step(&input).await?);
        }
        if query.graph.output_node().properties.append_only {
            return Ok(changes);
        }
        Ok(delta::consolidate(&query.def.schema, &changes)?)
    }

    /// Everything accepted so far of relations, epoch by epoch; at least one tick.
    pub(super) async fn history_of(
        &mut self,
        reads: &BTreeSet<String>,
        backfill: Backfill,
        query: &str,
    ) -> Result<Vec<(millstream_types::Epoch, millstream_types::EventTime, HashMap<String, Delta>)>> {
        let mut ticks: BTreeMap<millstream_types::Epoch, (millstream_types::EventTime, HashMap<String, Delta>)> = BTreeMap::new();
        if backfill != Backfill::None {
            for name in reads {
                if self.catalog.stream(name).is_err() {
                    if let Some(rows) = self.snapshot_delta(name)? {
                        ticks.entry(self.epoch).or_insert_with(|| (self.clock, HashMap::new())).1.insert(name.clone(), rows);
                    }
                    continue;
                }
                for (epoch, clock, rows) in self.stream_history(name, backfill, query).await? {
                    ticks.entry(epoch).or_insert_with(|| (clock, HashMap::new())).1.insert(name.clone(), rows);
                }
            }
        }
        ticks.entry(self.epoch.next()).or_insert_with(|| (self.next_clock(), HashMap::new()));
        Ok(ticks.into_iter().map(|(epoch, (clock, deltas))| (epoch, clock, deltas)).collect())
    }

    async fn stream_history(
        &mut self,
        name: &str,
        backfill: Backfill,
        query: &str,
    ) -> Result<Vec<(millstream_types::Epoch, millstream_types::EventTime, Delta)>> {
        let Some(runtime) = self.streams.get(name).cloned() else { return Ok(Vec::new()) };
        if let Some(derived) = &runtime.def.derived {
            let base = Box::pin(self.stream_history(&derived.base, backfill, query)).await?;
            let planned = self.plan_continuous(&derived.query, &[], name, false).await?;
            let mut fresh = SourceState {
                def: Arc::clone(&runtime.def),
                edge: Edge::new(Arc::clone(&runtime.def), &self.shared.base)?,
                source: None,
                reader: None,
                derived: Some(Dataflow::new(planned.graph.as_ref().clone(), DataflowContext { state: planned.state })?),
                replayable: true,
                budget: None,
                ended: false,
            };
            let mut rows = Vec::new();
            for (epoch, clock, delta) in base {
                let edge_epoch = EdgeEpoch { epoch, clock, watermark_start: fresh.edge.watermark.current };
                let accepted = fresh.derive_accepted(&delta, edge_epoch).await?;
                if let Some((_, delay)) = &runtime.def.watermark {
                    fresh.edge.watermark.advance(*delay, clock, runtime.def.options.idle_timeout, None);
                }
                rows.push((epoch, clock, accepted.delta));
            }
            return Ok(rows);
        }
        if !runtime.replayable {
            if runtime.retention_cut && backfill == Backfill::All {
                return Err(EngineError::invalid(
                    format!("query \"{query}\" cannot count all rows of stream \"{name}\": the oldest are no longer retained"),
                    "Add WITH (backfill = 'retained') or 'none', or raise the stream's retention.",
                ));
            }
            return Ok(runtime.retained.into_iter().collect());
        }
        let Some(reader) = &runtime.reader else { return Ok(Vec::new()) };
        let mut edge = Edge::new(Arc::clone(&runtime.def), &self.shared.base)?;
        let mut rows = Vec::with_capacity(runtime.history.len());
        for entry in &runtime.history {
            let epoch = EdgeEpoch { epoch: entry.epoch, clock: entry.clock, watermark_start: entry.watermark_start };
            let accepted = super::sources::read_accepted(&mut edge, reader, &entry.ranges, epoch).await?;
            rows.push((entry.epoch, entry.clock, accepted.delta));
        }
        Ok(rows)
    }

    /// Refuses unbounded state where the settings say so.
    fn check_state(&self, name: &str, graph: &Graph) -> Result<()> {
        if self.recovering() || self.settings.unbounded_state()? != UnboundedState::Refuse {
            return Ok(());
        }
        let unbounded = unbounded_nodes(graph);
        if unbounded.is_empty() {
            return Ok(());
        }
        Err(EngineError::invalid(
            format!("query \"{name}\" keeps state that nothing bounds: {}", unbounded.join("; ")),
            "Bound it, or SET unbounded_state = 'allow'.",
        ))
    }

    pub(super) async fn resolve(&self, query: &Query) -> Result<Resolved> {
        let contents = ContinuousContents { pipeline: self };
        Resolver { catalog: &self.catalog, base: &self.shared.base, contents: &contents }.plan(query).await
    }

    /// Plans a continuous query; loads the at-rest tables it reads.
    pub(super) async fn plan_continuous(&mut self, query: &Query, columns: &[String], name: &str, on_close: bool) -> Result<Planned> {
        self.pin_tables(query).await?;
        let Resolved { plan, state, reads, files } = self.resolve(query).await?;
        let plan = rename_columns(plan, columns, name)?;
        let mut names = BTreeSet::new();
        if let Some(twice) = plan.schema().fields().iter().find(|field| !names.insert(field.name().clone())) {
            return Err(EngineError::invalid(
                format!("query \"{name}\" has two columns \"{}\"", twice.name()),
                "Give one of them another name with AS.",
            ));
        }
        let names: Vec<String> = plan.schema().fields().iter().map(|field| field.name().clone()).collect();
        let mut relations = ContinuousRelations::default();
        let mut streamed = BTreeSet::new();
        let mut at_rest = files.clone();
        for read in &reads {
            if let Some(relation) = self.relation_of(read) {
                match relation.kind {
                    RelationKind::AtRest => at_rest.insert(read.clone()),
                    _ => streamed.insert(read.clone()),
                };
                relations.put(relation);
            }
        }
        for path in &files {
            if let Some(table) = self.pinned.get(path) {
                relations.put(plain_relation(path, RelationKind::AtRest, &table.schema(), true, &[]));
            }
        }
        let options = PlanOptions {
            emit: if on_close { EmitClause::OnWindowClose } else { EmitClause::None },
            fallback: if self.settings.allow_fallback()? { Fallback::Recompute } else { Fallback::Error },
        };
        let state = session_state_for_continuous(&state);
        let plan = optimize(&plan, &state).map_err(|error| EngineError::in_plan(error, query))?;
        let planned = millstream_plan::plan(&plan, &relations, &state, &options);
        let millstream_plan::Planned { graph, notices } = planned.map_err(|error| EngineError::in_plan(error, query))?;
        self.check_refreshed(name, &graph)?;
        let output = graph.output_node();
        let fields: Vec<_> = output
            .schema
            .fields()
            .iter()
            .zip(names)
            .map(|(field, name)| field.as_ref().clone().with_name(name).with_metadata(HashMap::new()))
            .collect();
        Ok(Planned { schema: Arc::new(Schema::new(fields)), graph: Arc::new(graph), reads: streamed, at_rest, state, notices })
    }

    fn relation_of(&self, name: &str) -> Option<Relation> {
        let object = self.catalog.get(name)?;
        Some(match &object.kind {
            ObjectKind::Stream(def) => stream_relation(def),
            ObjectKind::Table(def) => plain_relation(name, RelationKind::Table, &def.schema, false, &def.key),
            ObjectKind::ExternalTable(def) if def.refresh == Refresh::Track => {
                plain_relation(name, RelationKind::Table, &def.schema, false, &[])
            }
            ObjectKind::ExternalTable(def) => plain_relation(name, RelationKind::AtRest, &def.schema, true, &[]),
            ObjectKind::MaterializedView(def) => {
                let query = self.queries.iter().find(|query| query.def.name == name)?;
                let properties = &query.graph.output_node().properties;
                let mut relation = plain_relation(name, RelationKind::View, &def.schema, properties.append_only, &[]);
                for (field, bound) in def.schema.fields().iter().zip(&properties.bounds) {
                    if let Some(bound) = bound {
                        relation.column_bounds.insert(field.name().clone(), Arc::clone(bound));
                    }
                }
                relation
            }
            ObjectKind::View(_) | ObjectKind::Sink(_) => return None,
        })
    }

    /// Tells every stream which of its columns are read.
    pub(super) fn update_readers(&mut self) {
        let mut needed: HashMap<String, BTreeSet<String>> = HashMap::new();
        let Some(sources) = &mut self.sources else { return };
        let queries = self.queries.iter().map(|query| &query.dataflow);
        let live = self.live.iter().map(|live| live.dataflow());
        let derived = sources.streams.values().filter_map(|stream| stream.derived.as_ref());
        for flow in queries.chain(live).chain(derived) {
            for (relation, columns) in flow.input_columns() {
                needed.entry(relation).or_default().extend(columns);
            }
        }
        for (name, stream) in &mut sources.streams {
            // Rows of sources that cannot replay are kept whole, because later readers may want other columns.
            let columns = (stream.replayable && stream.derived.is_none()).then(|| needed.remove(name).unwrap_or_default());
            stream.edge.set_needed(columns);
        }
    }

    async fn drop_objects(&mut self, drop: &Drop) -> Result<Vec<Notice>> {
        use millstream_sql::statement::ObjectKind as Kind;
        let mut notices = Vec::new();
        for name in &drop.names {
            let name = object_name(name);
            let Some(object) = self.catalog.get(&name) else {
                if drop.if_exists {
                    notices.push(Notice::info(format!("\"{name}\" does not exist, skipping"), ""));
                    continue;
                }
                return Err(self.catalog.unknown(&name));
            };
            let fits = match &object.kind {
                ObjectKind::Stream(_) => drop.kind == Kind::Stream,
                ObjectKind::Table(_) | ObjectKind::ExternalTable(_) => drop.kind == Kind::Table,
                ObjectKind::View(_) => drop.kind == Kind::View,
                ObjectKind::MaterializedView(_) => matches!(drop.kind, Kind::MaterializedView | Kind::View),
                ObjectKind::Sink(_) => drop.kind == Kind::Sink,
            };
            if !fits {
                let word = object.kind.word();
                return Err(EngineError::invalid(format!("\"{name}\" is a {word}"), format!("Write DROP {} {name}.", word.to_uppercase())));
            }
            self.drop_one(&name, drop.cascade).await?;
        }
        Ok(notices)
    }

    async fn drop_one(&mut self, name: &str, cascade: bool) -> Result<()> {
        let readers = self.dependents(name).await?;
        if let Some(reader) = readers.first() {
            if !cascade {
                return Err(EngineError::invalid(
                    format!("\"{name}\" is read by \"{reader}\""),
                    format!("Drop \"{reader}\" first, or add CASCADE to drop everything that reads it."),
                ));
            }
            for reader in readers {
                if self.catalog.get(&reader).is_some() {
                    Box::pin(self.drop_one(&reader, true)).await?;
                }
            }
        }
        let Some(object) = self.catalog.get(name).cloned() else { return Ok(()) };
        match &object.kind {
            ObjectKind::Stream(_) => self.remove_source(name).await,
            ObjectKind::Table(_) => drop(self.tables.remove(name)),
            ObjectKind::ExternalTable(_) => {
                self.unpin(name);
                self.tables.remove(name);
            }
            ObjectKind::View(_) => {}
            ObjectKind::MaterializedView(_) => self.queries.retain(|query| query.def.name != name),
            ObjectKind::Sink(def) => {
                self.queries.retain(|query| !def.queries.iter().any(|own| own.name == query.def.name));
                self.sinks.remove(name);
            }
        }
        self.catalog.remove(name);
        self.update_readers();
        Ok(())
    }

    /// Objects whose queries read `name`.
    async fn dependents(&self, name: &str) -> Result<Vec<String>> {
        let mut readers = Vec::new();
        for object in self.catalog.objects() {
            let queries: Vec<&Query> = match &object.kind {
                ObjectKind::View(def) => vec![&def.query],
                ObjectKind::MaterializedView(def) => vec![&def.query],
                ObjectKind::Sink(def) => def.queries.iter().map(|query| query.query.as_ref()).collect(),
                ObjectKind::Stream(def) => def.derived.iter().map(|derived| derived.query.as_ref()).collect(),
                _ => Vec::new(),
            };
            for query in queries {
                let reads = match self.resolve(query).await {
                    Ok(resolved) => resolved.reads.contains(name),
                    // What it reads cannot be looked at, for example because a file is gone: its text tells the names.
                    Err(_) => names_in(query).contains(name),
                };
                if object.name != name && reads {
                    readers.push(object.name.clone());
                    break;
                }
            }
        }
        Ok(readers)
    }

    /// `EXPLAIN INCREMENTAL` of a query or of a statement that makes one.
    pub(super) async fn explain(&mut self, statement: &Statement) -> Result<String> {
        let (query, emit) = match statement {
            Statement::CreateMaterializedView(create) => (create.query.clone(), create.emit),
            Statement::CreateSink(CreateSink { source: Some(SinkSource::Query { query, emit }), .. }) => (query.clone(), *emit),
            Statement::CreateSink(CreateSink { source: Some(SinkSource::From { name, emit }), .. }) => (select_all(name)?, *emit),
            Statement::Query(query) => (query.query.clone(), query.emit),
            Statement::InsertInto(insert) => (insert.source.clone(), insert.emit),
            other => return Err(EngineError::invalid(format!("EXPLAIN INCREMENTAL explains queries, not: {other}"), "")),
        };
        let Emission { on_close, .. } = emission(emit, "query")?;
        let planned = self.plan_continuous(&query, &[], "query", on_close).await?;
        Ok(explain(&planned.graph))
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

fn plain_relation(name: &str, kind: RelationKind, schema: &SchemaRef, append_only: bool, key: &[String]) -> Relation {
    Relation {
        name: name.to_string(),
        kind,
        append_only,
        schema: Arc::clone(schema),
        event_time: None,
        clock_columns: Vec::new(),
        epoch_column: None,
        keys: if key.is_empty() { Vec::new() } else { vec![key.to_vec()] },
        column_bounds: HashMap::new(),
    }
}

/// Names of all relations in the text of a query.
fn names_in(query: &Query) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let _ = ast::visit_relations(query, |name| {
        names.insert(object_name(name));
        std::ops::ControlFlow::<()>::Continue(())
    });
    names
}

/// `SELECT * FROM name`.
pub(crate) fn select_all(name: &ObjectName) -> Result<Box<Query>> {
    Ok(millstream_sql::parse_query(&format!("SELECT * FROM {name}"))?)
}

/// What an EMIT clause asks for.
#[derive(Debug, Clone, Copy)]
struct Emission {
    on_close: bool,
    period: Option<Duration>,
}

fn emission(emit: Emit, name: &str) -> Result<Emission> {
    match emit {
        Emit::None | Emit::Changes { limit: None } => Ok(Emission { on_close: false, period: None }),
        Emit::OnWindowClose => Ok(Emission { on_close: true, period: None }),
        Emit::Periodic(period) => Ok(Emission { on_close: false, period: Some(period) }),
        Emit::Changes { limit: Some(_) } => {
            Err(EngineError::invalid(format!("EMIT CHANGES LIMIT belongs to a SELECT, not to \"{name}\""), ""))
        }
    }
}

fn backfill_option(name: &str, options: Vec<(String, String)>) -> Result<Backfill> {
    let mut options = Options::new(format!("materialized view \"{name}\""), options);
    let choices = [("all", Backfill::All), ("retained", Backfill::Retained), ("none", Backfill::None)];
    let backfill = options.choice("backfill", &choices)?.unwrap_or(Backfill::All);
    options.finish()?;
    Ok(backfill)
}

fn is_changelog_name(sink: &SinkDef, column: &str) -> bool {
    let named = |option: &str, default: &str| sink.options.get(option).map_or(default == column, |name| name == column);
    matches!(sink.connector.as_str(), "files" | "filesystem" | "parquet" | "csv" | "json" | "arrow" | "text")
        && (named("op_name", "op") || named("epoch_name", "epoch"))
}

fn columns_text(schema: &SchemaRef) -> String {
    schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect::<Vec<_>>().join(", ")
}

/// A group or window that closes when the epoch clock passes, without new rows.
fn closes_by_clock(node: &millstream_plan::graph::Node) -> bool {
    use millstream_plan::graph::Emit as GraphEmit;
    let bucket = match &node.op {
        Op::Aggregate { bucket, emit: GraphEmit::OnClose, .. } | Op::SessionWindow { bucket, emit: GraphEmit::OnClose, .. } => {
            bucket.as_ref()
        }
        Op::WindowClose { bucket } => Some(bucket),
        _ => None,
    };
    bucket.is_some_and(|bucket| bucket.bound.follows_clock())
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
