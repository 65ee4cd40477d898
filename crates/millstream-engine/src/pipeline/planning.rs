//! From the text of a continuous query to its graph: what names mean, what the planner has to know of them, and EXPLAIN.

use super::Pipeline;
use super::change_history::EPOCHS;
use super::ddl::select_all;
use crate::catalog::object::{Backfill, ObjectKind, QueryForm, Refresh, Shown, versioned_stream};
use crate::catalog::resolve::{
    Contents, ContinuousRelations, Placeholder, Resolved, Resolver, object_name, rename_columns, stream_relation, versions_relation,
};
use crate::error::{EngineError, Result};
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use millstream_dataflow::{Dataflow, DataflowContext};
use millstream_plan::explain::explain;
use millstream_plan::graph::Graph;
use millstream_plan::optimize::{optimize, session_state_for_continuous, with_whole_groups};
use millstream_plan::relation::{Relation, RelationKind};
use millstream_plan::{EmitClause, Fallback, PlanOptions};
use millstream_sql::Statement;
use millstream_sql::statement::{CreateSink, Emit, SinkSource};
use millstream_types::Options;
use sqlparser::ast::Query;
use std::collections::{BTreeSet, HashMap};
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
    async fn provider(&self, name: &str, kind: &ObjectKind, shown: Shown) -> Result<Arc<dyn TableProvider>> {
        Ok(match kind {
            ObjectKind::Stream(def) => Arc::new(Placeholder::new(def.shown(shown))),
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
    pub(super) async fn resolve(&self, query: &Query) -> Result<Resolved> {
        let contents = ContinuousContents { pipeline: self };
        Resolver { catalog: &self.catalog, base: &self.shared.base, contents: &contents }.plan(query).await
    }

    /// Plans a continuous query; loads the at-rest tables it reads.
    pub(super) async fn plan_continuous(&mut self, query: &Query, columns: &[String], name: &str, form: QueryForm) -> Result<Planned> {
        self.pin_tables(query).await?;
        let Resolved { plan, state, relations: reads, files, .. } = self.resolve(query).await?;
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
            emit: if form.on_close { EmitClause::OnWindowClose } else { EmitClause::None },
            fallback: if self.settings.allow_fallback()? { Fallback::Recompute } else { Fallback::Error },
            state_ttl: form.state_ttl,
            float_sum: self.settings.float_sum()?,
        };
        let mut state = session_state_for_continuous(&state);
        if form.state_ttl.is_some() {
            state = with_whole_groups(&state);
        }
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

    /// The operators of a planned query, without state.
    pub(super) fn new_dataflow(&self, planned: &Planned) -> Result<Dataflow> {
        let context = DataflowContext { state: planned.state.clone(), parallelism: self.settings.parallelism()? };
        Ok(Dataflow::new(planned.graph.as_ref().clone(), context)?)
    }

    fn relation_of(&self, name: &str) -> Option<Relation> {
        if let Some(stream) = versioned_stream(name) {
            return self.catalog.stream(stream).ok().map(|def| versions_relation(def));
        }
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

    /// `EXPLAIN INCREMENTAL` of a query or of a statement that makes one.
    pub(super) async fn explain(&mut self, statement: &Statement) -> Result<String> {
        let mut state_ttl = None;
        let (query, emit) = match statement {
            Statement::CreateMaterializedView(create) => {
                state_ttl = view_options(&object_name(&create.name), create.options.clone())?.state_ttl;
                (create.query.clone(), create.emit)
            }
            Statement::CreateSink(CreateSink { name, source: Some(source), options, .. }) => {
                let mut options = Options::new(format!("sink \"{}\"", object_name(name)), options.clone());
                state_ttl = state_ttl_option(&mut options)?;
                match source {
                    SinkSource::Query { query, emit } => (query.clone(), *emit),
                    SinkSource::From { name, emit } => (select_all(name)?, *emit),
                }
            }
            Statement::Query(query) => (query.query.clone(), query.emit),
            Statement::InsertInto(insert) => {
                state_ttl = self.catalog.get(&object_name(&insert.target)).and_then(|object| match &object.kind {
                    ObjectKind::Sink(sink) => sink.state_ttl,
                    _ => None,
                });
                (insert.source.clone(), insert.emit)
            }
            other => return Err(EngineError::invalid(format!("EXPLAIN INCREMENTAL explains queries, not: {other}"), "")),
        };
        let Emission { on_close, .. } = emission(emit, "query")?;
        let planned = self.plan_continuous(&query, &[], "query", QueryForm { on_close, state_ttl }).await?;
        Ok(explain(&planned.graph))
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
        lookup: false,
        versions_of: None,
    }
}

/// The options of a materialized view.
pub(super) struct ViewOptions {
    /// Which rows from before it counts.
    pub(super) backfill: Backfill,
    /// How long untouched groups stay.
    pub(super) state_ttl: Option<Duration>,
    /// Of how many epochs its changes are kept.
    pub(super) history: u64,
}

/// Takes the options of a materialized view.
pub(super) fn view_options(name: &str, options: Vec<(String, String)>) -> Result<ViewOptions> {
    let mut options = Options::new(format!("materialized view \"{name}\""), options);
    let choices = [("all", Backfill::All), ("retained", Backfill::Retained), ("none", Backfill::None)];
    let backfill = options.choice("backfill", &choices)?.unwrap_or(Backfill::All);
    let state_ttl = state_ttl_option(&mut options)?;
    let history = options.parse("history", "a number of epochs")?.unwrap_or(EPOCHS);
    options.finish()?;
    Ok(ViewOptions { backfill, state_ttl, history })
}

/// Takes `state_ttl`.
pub(crate) fn state_ttl_option(options: &mut Options) -> Result<Option<Duration>> {
    match options.duration("state_ttl")? {
        Some(Duration::ZERO) => Err(EngineError::invalid(
            format!("state_ttl of {} is zero", options.owner()),
            "Give the time for which a group is kept that nothing touches, for example '1 hour'.",
        )),
        other => Ok(other),
    }
}

/// What an EMIT clause asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Emission {
    /// Only rows that can no longer change.
    pub(super) on_close: bool,
    /// Hold changes and hand them out at most that often.
    pub(super) period: Option<Duration>,
}

pub(super) fn emission(emit: Emit, name: &str) -> Result<Emission> {
    match emit {
        Emit::None | Emit::Changes { limit: None } => Ok(Emission { on_close: false, period: None }),
        Emit::OnWindowClose => Ok(Emission { on_close: true, period: None }),
        Emit::Periodic(period) => Ok(Emission { on_close: false, period: Some(period) }),
        Emit::Changes { limit: Some(_) } => {
            Err(EngineError::invalid(format!("EMIT CHANGES LIMIT belongs to a SELECT, not to \"{name}\""), ""))
        }
    }
}
