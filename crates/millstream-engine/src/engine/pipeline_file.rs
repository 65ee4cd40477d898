//! Pipeline files: declarative, so that a second start with the same file changes nothing.

use super::Engine;
use crate::catalog::object::{Object, ObjectKind};
use crate::catalog::resolve::quoted_if_needed;
use crate::error::{EngineError, Result};
use crate::inserts::InsertNote;
use crate::notice::Notice;
use crate::pipeline::command::Command;
use crate::session::{ScriptFailure, ScriptPosition, script_failure};
use millstream_sql::{Statement, parse_script};
use std::collections::BTreeMap;

/// What [`Engine::apply_pipeline_file`] did, and what is left to run.
#[derive(Debug)]
pub struct PipelineFile {
    /// What the statements had to tell.
    pub notices: Vec<Notice>,
    /// SELECT, COPY, SHOW, DESCRIBE and EXPLAIN statements, in order.
    pub queries: Vec<(ScriptPosition, Statement)>,
    /// Number of statements that were new.
    pub added: usize,
}

impl Engine {
    /// Carries out a pipeline file. Its statements are declarative: what the catalog has already, word for word, is skipped;
    /// what is new is added, all of it in one epoch; what differs is refused. `INSERT ... VALUES` runs once in the life
    /// of a state directory.
    /// SELECT, COPY and SHOW statements are handed back, to be run after the input has been processed.
    ///
    /// # Errors
    /// At the first statement that does not parse or fit; nothing of the file has taken effect then.
    pub async fn apply_pipeline_file(&self, text: &str, name: Option<&str>) -> Result<PipelineFile, ScriptFailure> {
        self.apply_file(text, name, true).await
    }

    /// As [`Engine::apply_pipeline_file`], beside objects that the file does not define: clients of a server have made them.
    ///
    /// # Errors
    /// As [`Engine::apply_pipeline_file`].
    pub async fn apply_shared_pipeline_file(&self, text: &str, name: Option<&str>) -> Result<PipelineFile, ScriptFailure> {
        self.apply_file(text, name, false).await
    }

    async fn apply_file(&self, text: &str, name: Option<&str>, is_all: bool) -> Result<PipelineFile, ScriptFailure> {
        let mut definitions: Vec<(ScriptPosition, Statement)> = Vec::new();
        let mut inserts: Vec<(u64, ScriptPosition, Statement)> = Vec::new();
        let mut queries = Vec::new();
        for (position, parsed) in parse_script(text).enumerate() {
            let parsed = parsed.map_err(|error| script_failure(text, name, error))?;
            let place = ScriptPosition { name: name.map(str::to_string), line: parsed.first_line, text: parsed.text.to_string() };
            match parsed.statement {
                Statement::InsertInto(insert) if insert.is_values() || !self.targets_sink(&insert, &definitions) => {
                    inserts.push((position as u64, place, Statement::InsertInto(insert)));
                }
                statement @ (Statement::Query(_)
                | Statement::Copy(_)
                | Statement::Show(_)
                | Statement::Describe(_)
                | Statement::Explain(_)
                | Statement::ShowCreate(_)) => queries.push((place, statement)),
                statement => definitions.push((place, statement)),
            }
        }
        let mut notices = Vec::new();
        let new = self.new_definitions(&definitions, is_all)?;
        if !new.is_empty() {
            // They take effect together or not at all.
            let statements: Vec<Statement> = new.iter().map(|(_, statement)| statement.clone()).collect();
            let (index, error) = match self.request(|answer| Command::Ddl { statements, answer }).await {
                Ok(Ok(more)) => {
                    notices.extend(more);
                    (0, None)
                }
                Ok(Err(failed)) => (failed.index, Some(failed.error)),
                // The epoch that makes them take effect failed, not one of them.
                Err(error) => (0, Some(error)),
            };
            if let Some(error) = error {
                return Err(ScriptFailure { position: new[index].0.clone(), error });
            }
        }
        for (position, place, statement) in inserts {
            let hash = xxhash_rust::xxh3::xxh3_64(statement.canonical_text().as_bytes());
            if self.inner.shared.inserts.is_from_file(position, hash) {
                continue;
            }
            let Statement::InsertInto(insert) = statement else { continue };
            let result = self.session().insert(insert, Some(InsertNote::FromFile { position, hash })).await;
            let result = result.map_err(|error| ScriptFailure { position: place, error })?;
            notices.extend(result.notices);
        }
        Ok(PipelineFile { notices, queries, added: new.len() })
    }

    fn targets_sink(&self, insert: &millstream_sql::statement::InsertInto, definitions: &[(ScriptPosition, Statement)]) -> bool {
        let name = crate::catalog::resolve::object_name(&insert.target);
        let defined = definitions.iter().any(
            |(_, statement)| matches!(statement, Statement::CreateSink(sink) if crate::catalog::resolve::object_name(&sink.name) == name),
        );
        let known = self.inner.shared.catalog.read().get(&name).is_some_and(|object| matches!(object.kind, ObjectKind::Sink(_)));
        defined || known
    }

    /// The definitions of a file that the catalog does not have yet. `is_all`: what the file does not define must not be there.
    fn new_definitions(
        &self,
        definitions: &[(ScriptPosition, Statement)],
        is_all: bool,
    ) -> Result<Vec<(ScriptPosition, Statement)>, ScriptFailure> {
        let catalog = self.inner.shared.catalog.read().clone();
        let fail = |position: &ScriptPosition, error| ScriptFailure { position: position.clone(), error };
        let mut new = Vec::new();
        let mut attached: BTreeMap<String, usize> = BTreeMap::new();
        let mut named = std::collections::BTreeSet::new();
        for (position, statement) in definitions {
            let Some(name) = defined_name(statement) else {
                match statement {
                    // An INSERT INTO a sink that is known already is matched by its place among the sink's queries.
                    Statement::InsertInto(insert) => {
                        let sink = crate::catalog::resolve::object_name(&insert.target);
                        let nth = attached.entry(sink.clone()).or_default();
                        *nth += 1;
                        let known = catalog.get(&sink).and_then(|object| match &object.kind {
                            ObjectKind::Sink(def) => {
                                def.queries.iter().filter_map(|query| query.insert_sql.as_ref()).nth(*nth - 1).cloned()
                            }
                            _ => None,
                        });
                        match known {
                            None => new.push((position.clone(), statement.clone())),
                            Some(sql) if same_insert(&sql, statement) => {}
                            Some(sql) => return Err(fail(position, differs(&format!("query {nth} of sink \"{sink}\""), &sql, statement))),
                        }
                    }
                    Statement::Set(set) => {
                        let now = self.inner.shared.settings.read().get(&set.name);
                        if now.as_deref() != Some(set.value.as_str()) {
                            new.push((position.clone(), statement.clone()));
                        }
                    }
                    Statement::CreateUser(_) | Statement::AlterUser(_) | Statement::DropUser(_) | Statement::Grant(_) => {
                        let message = "users and privileges are no part of a pipeline file";
                        let hint = "Run it once over a connection of an admin, or with `millstream --state-dir DIR -c`.";
                        return Err(fail(position, EngineError::invalid(message, hint)));
                    }
                    other => {
                        let message = format!("a pipeline file cannot hold this statement: {other}");
                        let hint = "It describes what should exist; use the shell for single actions.";
                        return Err(fail(position, EngineError::invalid(message, hint)));
                    }
                }
                continue;
            };
            named.insert(name.clone());
            match catalog.get(&name) {
                None => new.push((position.clone(), statement.clone())),
                Some(object) if object.sql == statement.canonical_text() => {}
                Some(object) => return Err(fail(position, differs(&format!("{} \"{name}\"", object.kind.word()), &object.sql, statement))),
            }
        }
        let others = catalog.objects().iter().filter(|object| is_all && !named.contains(&object.name) && !object.is_adopted());
        let others: Vec<_> = others.collect();
        if let Some(object) = others.first() {
            let file = definitions.first().and_then(|(position, _)| position.name.as_deref()).unwrap_or("the file");
            let more = if others.len() > 1 { format!(" and {} more", others.len() - 1) } else { String::new() };
            let what = format!("the {} \"{}\"{more}", object.kind.word(), object.name);
            let message = format!("the state directory has {what}, which {file} does not define");
            // What was made last can go first: nothing reads it.
            let drops: Vec<String> = others.iter().rev().map(|object| dropping(object)).collect();
            let hint = format!(
                "Put the definition back, or drop what is not wanted any more, with what it knows: millstream --state-dir DIR -c '{}'. \
                 Another state directory begins anew.",
                drops.join("; ")
            );
            // It stands nowhere in the file.
            let nowhere = ScriptPosition { name: None, line: 1, text: String::new() };
            return Err(fail(&nowhere, EngineError::invalid(message, hint)));
        }
        Ok(new)
    }
}

/// The statement that drops an object.
fn dropping(object: &Object) -> String {
    format!("DROP {} {}", object.kind.word().to_uppercase(), quoted_if_needed(&object.name))
}

/// The name a statement defines.
fn defined_name(statement: &Statement) -> Option<String> {
    let name = match statement {
        Statement::CreateStream(create) => &create.name,
        Statement::CreateTable(create) => &create.name,
        Statement::CreateExternalTable(create) => &create.definition.name,
        Statement::CreateView(create) => &create.name,
        Statement::CreateMaterializedView(create) => &create.name,
        Statement::CreateSink(create) => &create.name,
        _ => return None,
    };
    Some(crate::catalog::resolve::object_name(name))
}

/// Whether a stored INSERT INTO, which carries its query's name, says the same as one of a file, which may not.
fn same_insert(stored: &str, statement: &Statement) -> bool {
    let (Ok(Statement::InsertInto(mut stored)), Statement::InsertInto(given)) = (millstream_sql::parse_statement(stored), statement) else {
        return false;
    };
    if given.query_name.is_none() {
        stored.query_name = None;
    }
    Statement::InsertInto(stored).canonical_text() == statement.canonical_text()
}

fn differs(what: &str, stored: &str, statement: &Statement) -> EngineError {
    EngineError::invalid(
        format!("{what} differs from its definition in the state directory"),
        format!("There it is:\n  {stored}\nThe file says:\n  {statement}\nPut the definition back, or use another state directory."),
    )
}
