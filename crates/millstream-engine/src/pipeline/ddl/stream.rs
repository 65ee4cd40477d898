//! `CREATE STREAM`: opens the source and puts the edge in front of it.

use super::super::derived::DerivedPlan;
use super::super::pressure::Pressure;
use super::super::sources::SourceState;
use super::super::{Pipeline, StreamRuntime};
use crate::catalog::object::{Object, ObjectKind, StreamDef, StreamShape};
use crate::catalog::resolve::object_name;
use crate::edge::Edge;
use crate::error::{EngineError, Result};
use crate::notice::Notice;
use crate::statements;
use millstream_connectors::registry;
use millstream_connectors::source::SourceContext;
use millstream_connectors::sources::history::HistorySource;
use millstream_sql::statement::CreateStream;
use millstream_types::Options;
use std::sync::Arc;

impl Pipeline {
    pub(super) async fn create_stream(&mut self, create: &CreateStream, sql: String) -> Result<Vec<Notice>> {
        let mut notices = Vec::new();
        let name = object_name(&create.name);
        if self.claim(&name, create.if_not_exists, create.or_replace, &mut notices).await? {
            return Ok(notices);
        }
        let (plan, derived) = match &create.as_select {
            None => (None, None),
            Some(query) => {
                let (plan, schema) = self.plan_derived(&name, query).await?;
                let derived = (plan.base().to_string(), schema);
                (Some(plan), Some(derived))
            }
        };
        let def = Arc::new(statements::create_stream::define(create, &self.given, derived, &self.shared.base).await?);
        self.add_stream(&def, plan).await?;
        if let Err(error) = self.derive_history(&name).await {
            self.remove_source(&name).await;
            return Err(error);
        }
        if def.watermark.is_none() && def.shape == StreamShape::Append && def.connector != "memory" {
            tracing::debug!(stream = %def.name, "stream has no watermark");
        }
        self.catalog.put(Object { name: def.name.clone(), sql, kind: ObjectKind::Stream(def) });
        Ok(notices)
    }

    /// Creates and opens a stream's source.
    async fn add_stream(&mut self, def: &Arc<StreamDef>, derived: Option<DerivedPlan>) -> Result<()> {
        let name = def.name.clone();
        let owner = format!("stream \"{name}\"");
        let edge = Edge::new(Arc::clone(def), &self.shared.base)?;
        let base = derived.as_ref().and_then(|plan| self.streams.get(plan.base()));
        let retention_cut = base.is_some_and(|base| base.retention_cut);
        let mut state = SourceState {
            def: Arc::clone(def),
            edge,
            source: None,
            reader: None,
            derived: derived.as_ref().map(DerivedPlan::start).transpose()?,
            replayable: base.is_none_or(|base| base.replayable),
            pressure: None,
            budget: None,
            ended: false,
        };
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
            state.replayable = source.properties().replayable;
            state.pressure = (!state.replayable).then(Pressure::default);
            check_backpressure(def, &state)?;
            let (position, ranges) = self.recovered_position(&name);
            source.open(position, &ranges).await.map_err(fail)?;
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
        check_backpressure(def, &state)?;
        let runtime = StreamRuntime {
            pressure: state.pressure.clone(),
            def: Arc::clone(def),
            reader: state.reader.clone(),
            derived,
            replayable: state.replayable,
            history: Vec::new(),
            history_segments_kept: 0,
            retained: Default::default(),
            retention_cut,
            watermark: (millstream_types::EventTime::MIN, false),
            watermark_before: (millstream_types::EventTime::MIN, false),
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
            options: Options::new(format!("stream \"{}\"", def.name), def.connector_options.clone()).within(self.given.reach.clone()),
            clock: Arc::clone(&self.shared.clock),
        }
    }

    pub(super) async fn remove_source(&mut self, name: &str) {
        if let Some(waker) = self.wakers.remove(name) {
            waker.abort();
        }
        self.shared.pushers.write().remove(name);
        self.shared.inserts.forget_stream(name);
        if let Some(sources) = &mut self.sources {
            sources.order.retain(|other| other != name);
            if let Some(mut source) = sources.streams.remove(name).and_then(|stream| stream.source) {
                source.stop().await;
            }
        }
        self.streams.remove(name);
    }
}

/// Only a source that is pushed to can be slowed down.
fn check_backpressure(def: &StreamDef, state: &SourceState) -> Result<()> {
    if def.options.backpressure != Some(true) || state.pressure.is_some() {
        return Ok(());
    }
    Err(EngineError::invalid(
        format!("option \"backpressure\" of stream \"{}\" has nothing to slow down: its rows wait until an epoch takes them", def.name),
        "Leave it out; max_rows_per_epoch and max_rows_per_second bound what an epoch takes.",
    ))
}
