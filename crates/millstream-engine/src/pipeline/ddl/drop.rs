//! `DROP`: refuses what others read, or takes them along.

use super::super::Pipeline;
use crate::catalog::object::ObjectKind;
use crate::catalog::resolve::object_name;
use crate::error::{EngineError, Result};
use crate::notice::Notice;
use millstream_sql::statement::Drop;
use millstream_sql::visit::each_relation;
use sqlparser::ast::Query;
use std::collections::BTreeSet;

impl Pipeline {
    pub(super) async fn drop_objects(&mut self, drop: &Drop) -> Result<Vec<Notice>> {
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

    pub(super) async fn drop_one(&mut self, name: &str, cascade: bool) -> Result<()> {
        if self.catalog.get(name).is_some_and(|object| object.is_adopted()) {
            return Err(EngineError::invalid(
                format!("table \"{name}\" belongs to the DataFusion session that the engine was built over"),
                "Deregister it there; it is adopted again with every start.",
            ));
        }
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
        self.end_live_over(name);
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
}

/// Names of all relations in the text of a query.
fn names_in(query: &Query) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    each_relation(query, &mut |name| {
        names.insert(object_name(name));
    });
    names
}
