//! Statements that change the catalog. Several of them (a pipeline file) make one epoch; either all take effect or none.
//!
//! | file | statements |
//! | --- | --- |
//! | `stream.rs` | `CREATE STREAM` |
//! | `table.rs` | `CREATE TABLE`, `CREATE EXTERNAL TABLE` |
//! | `view.rs` | `CREATE VIEW`, `CREATE MATERIALIZED VIEW` |
//! | `sink.rs` | `CREATE SINK`, `INSERT INTO` a sink |
//! | `query.rs` | what views and sinks have in common: a continuous query |
//! | `drop.rs` | `DROP` |
//! | `access.rs` | users, `GRANT`, `REVOKE` |
//!
//! `ALTER ... RESUME` is in `pipeline/resume.rs`.

mod access;
mod drop;
mod query;
mod sink;
mod stream;
mod table;
mod view;

use super::Pipeline;
use super::command::FailedStatement;
use super::epoch::EpochWork;
use super::record::CatalogChange;
use crate::catalog::Catalog;
use crate::catalog::object::{ObjectKind, versioned_stream};
use crate::catalog::resolve::object_name;
use crate::error::{EngineError, Result};
use crate::notice::Notice;
use crate::settings::Settings;
use crate::stopwatch::Stopwatch;
use millstream_sql::Statement;
use millstream_sql::statement::AlterAction;
use millstream_types::Delta;
use sqlparser::ast::{ObjectName, Query};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl Pipeline {
    /// Carries out statements as one epoch.
    pub(super) async fn ddl(&mut self, statements: Vec<Statement>) -> Result<Result<Vec<Notice>, FailedStatement>> {
        self.settle().await?;
        let watch = Stopwatch::start();
        let before = (self.catalog.clone(), self.settings.clone());
        let mut initial = BTreeMap::new();
        let mut notices = Vec::new();
        let mut changes = Vec::new();
        for (index, statement) in statements.iter().enumerate() {
            let defined = match self.change_access(statement, &mut notices) {
                Ok(Some(access)) => {
                    changes.extend(access.into_iter().map(|access| CatalogChange::Access { access }));
                    Ok(Vec::new())
                }
                Ok(None) => {
                    changes.push(CatalogChange::Statement { sql: statement.canonical_text() });
                    self.define(statement, &mut initial).await
                }
                Err(error) => Err(error),
            };
            match defined {
                Ok(more) => notices.extend(more),
                Err(error) => {
                    self.undo(before).await;
                    return Ok(Err(FailedStatement { index, error }));
                }
            }
        }
        self.pending_catalog.extend(changes);
        self.publish_catalog();
        let filled: Vec<String> = initial.keys().cloned().collect();
        let resumed = statements.iter().any(|statement| matches!(statement, Statement::Alter(_)));
        self.run_epoch_with(EpochWork { initial, ..EpochWork::default() }).await?;
        if !filled.is_empty() && self.filled_back(&filled, watch.elapsed(), resumed) {
            self.checkpoint().await?;
        }
        self.backlog = true;
        Ok(Ok(notices))
    }

    /// Takes a failed set of statements back.
    async fn undo(&mut self, (catalog, settings): (Catalog, Settings)) {
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
                self.change_settings(|settings| settings.set(&set.name, &set.value))?;
                Ok(Vec::new())
            }
            Statement::Reset(name) => {
                self.change_settings(|settings| settings.reset(name.as_deref().unwrap_or("all")))?;
                Ok(Vec::new())
            }
            Statement::Alter(alter) if alter.action == AlterAction::Resume && alter.name.is_some() => self.resume(alter, initial).await,
            Statement::RefreshTable(name) => {
                self.refresh_table(&object_name(name)).await?;
                Ok(Vec::new())
            }
            other => Err(EngineError::invalid(format!("this statement is not supported here: {other}"), "")),
        }
    }

    /// Queries keep the plan they were made with, so what decides about plans changes only before there are any.
    fn change_settings(&mut self, change: impl FnOnce(&mut Settings) -> Result<()>) -> Result<()> {
        let mut changed = self.settings.clone();
        change(&mut changed)?;
        let differs = [
            ("float_sum", "state", changed.float_sum()? != self.settings.float_sum()?),
            ("parallelism", "order of rows", changed.parallelism()?.shards != self.settings.parallelism()?.shards),
            ("parallel_rows", "order of rows", changed.parallelism()?.from_rows != self.settings.parallelism()?.from_rows),
        ];
        if let Some((name, what, _)) = differs.iter().find(|(_, _, differs)| *differs && !self.queries.is_empty()) {
            return Err(EngineError::invalid(
                format!("{name} cannot change while there are views and sinks: their {what} depends on it"),
                "SET it before the first CREATE MATERIALIZED VIEW or SINK, or DROP them first.",
            ));
        }
        self.settings = changed;
        Ok(())
    }

    /// Whether the name is free. `true`: it exists and `IF NOT EXISTS` says to leave it.
    async fn claim(&mut self, name: &str, if_not_exists: bool, or_replace: bool, notices: &mut Vec<Notice>) -> Result<bool> {
        if versioned_stream(name).is_some() {
            return Err(EngineError::invalid(format!("\"{name}\" is how the versions of a stream are called"), "Choose another name."));
        }
        let Some(existing) = self.catalog.get(name) else { return Ok(false) };
        let word = existing.kind.word();
        if if_not_exists {
            notices.push(Notice::info(format!("{word} \"{name}\" exists already, skipping"), ""));
            return Ok(true);
        }
        if or_replace {
            // Who could read what is replaced can read what comes instead.
            let access = Arc::clone(&self.catalog.access);
            self.drop_one(name, false).await?;
            self.catalog.access = access;
            return Ok(false);
        }
        Err(EngineError::invalid(
            format!("{word} \"{name}\" exists already"),
            "Choose another name, DROP it first, or write CREATE OR REPLACE or CREATE ... IF NOT EXISTS.",
        ))
    }
}

/// `SELECT * FROM name`.
pub(crate) fn select_all(name: &ObjectName) -> Result<Box<Query>> {
    Ok(millstream_sql::parse_query(&format!("SELECT * FROM {name}"))?)
}
