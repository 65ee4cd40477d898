//! A pipeline file as the comparison needs it: its definitions in three forms, and the queries that are compared.
//!
//! | form | streams | materialized views and queries of sinks |
//! |---|---|---|
//! | read | read whole from their sources: no event time, no key, changes as plain rows | left out |
//! | incremental | memory streams with the declared event time, key and policies | materialized views |
//! | batch | as incremental | plain views, which DataFusion runs as a whole over what the streams accepted |
//!
//! Nothing is written: the query of a sink becomes a view with the sink's name. `EMIT PERIODIC` is left out, since what it holds
//! back is not the query's answer.

use super::input::Input;
use super::stream_form;
use crate::failure::Failure;
use crate::repoint::SetOption;
use crate::script::Script;
use millstream_engine::catalog::resolve::{fold, object_name};
use millstream_sql::Statement;
use millstream_sql::statement::{ColumnDef, CreateMaterializedView, CreateStream, CreateView, Emit, InsertInto, SinkSource};
use millstream_sql::visit::{Walk, walk};
use millstream_types::suggest::nearest;
use sqlparser::ast::{Expr, Ident, ObjectName, Query};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

/// Functions whose value is another one in every epoch, so that no batch over all rows has it.
/// `proctime` is that of a lookup: `FOR SYSTEM_TIME AS OF PROCTIME()`.
const CLOCK_FUNCTIONS: [&str; 8] =
    ["current_date", "current_time", "current_timestamp", "localtime", "localtimestamp", "now", "proctime", "today"];

/// A statement and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    /// The statement.
    pub(super) statement: Statement,
    /// As it is written.
    pub(super) text: String,
    /// The line it begins on.
    pub(super) line: u64,
}

/// A query that is compared.
#[derive(Debug, Clone)]
pub(super) struct Checked {
    /// The name of its view, which is that of the materialized view or sink of the file.
    pub(super) name: String,
    /// Why it has no batch form.
    pub(super) skipped: Option<String>,
}

/// A pipeline whose queries are compared.
#[derive(Debug)]
pub(super) struct Pipeline {
    /// The file; `None` for queries that the program brings along.
    pub(super) name: Option<String>,
    /// What it defines, queries of sinks as materialized views.
    definitions: Vec<Placed>,
    /// Rows that are inserted into tables and streams.
    inserts: Vec<Placed>,
    /// The queries.
    pub(super) checked: Vec<Checked>,
}

impl Pipeline {
    /// Takes a script apart; options of its streams are replaced by `set`.
    ///
    /// # Errors
    /// A script failure for a statement that does not parse, or that no pipeline file holds.
    pub(super) fn new(script: &Script, set: &[SetOption]) -> Result<Self, Failure> {
        let mut pipeline = Self { name: script.name.clone(), definitions: Vec::new(), inserts: Vec::new(), checked: Vec::new() };
        let mut sinks: BTreeMap<String, (Vec<Ident>, usize)> = BTreeMap::new();
        for parsed in millstream_sql::parse_script(&script.text) {
            let parsed = parsed.map_err(|error| Failure::script(error.render(&script.text, script.name.as_deref())))?;
            let mut placed = Placed { statement: parsed.statement, text: parsed.text.to_string(), line: parsed.first_line };
            match &mut placed.statement {
                // They show results at the end; what they show is compared.
                Statement::Query(_)
                | Statement::Copy(_)
                | Statement::Show(_)
                | Statement::Describe(_)
                | Statement::Explain(_)
                | Statement::ShowCreate(_) => continue,
                Statement::CreateStream(stream) => {
                    stream_form::replace_options(stream, set);
                    pipeline.definitions.push(placed);
                }
                Statement::CreateMaterializedView(view) => {
                    view.emit = without_period(view.emit);
                    pipeline.checked.push(Checked { name: object_name(&view.name), skipped: None });
                    pipeline.definitions.push(placed);
                }
                Statement::CreateSink(sink) => {
                    let columns = names(&sink.columns);
                    let (query, emit) = match sink.source.take() {
                        None => {
                            sinks.insert(object_name(&sink.name), (columns, 0));
                            continue;
                        }
                        Some(SinkSource::Query { query, emit }) => (query, emit),
                        Some(SinkSource::From { name, emit }) => (select_all(&name)?, emit),
                    };
                    let name = sink.name.clone();
                    pipeline.add_view(placed, name, columns, query, emit);
                }
                Statement::InsertInto(insert) => match sinks.get_mut(&object_name(&insert.target)) {
                    Some((columns, count)) => {
                        *count += 1;
                        let name = match &insert.query_name {
                            Some(name) => name.clone(),
                            None => Ident::with_quote('"', format!("{}_{count}", object_name(&insert.target))),
                        };
                        let columns = if insert.columns.is_empty() { columns.clone() } else { insert.columns.clone() };
                        let InsertInto { source, emit, .. } = insert.clone();
                        pipeline.add_view(placed, ObjectName::from(vec![name]), columns, source, emit);
                    }
                    None => pipeline.inserts.push(placed),
                },
                _ => pipeline.definitions.push(placed),
            }
        }
        pipeline.find_clock_readers();
        Ok(pipeline)
    }

    fn add_view(&mut self, mut placed: Placed, name: ObjectName, columns: Vec<Ident>, query: Box<Query>, emit: Emit) {
        self.checked.push(Checked { name: object_name(&name), skipped: None });
        placed.statement = Statement::CreateMaterializedView(CreateMaterializedView {
            or_replace: false,
            if_not_exists: false,
            name,
            columns,
            options: Vec::new(),
            query,
            emit: without_period(emit),
        });
        self.definitions.push(placed);
    }

    /// Marks queries whose result follows the clock, through views too.
    fn find_clock_readers(&mut self) {
        let mut readers: BTreeMap<String, String> = BTreeMap::new();
        for placed in &self.definitions {
            let (name, query, options) = match &placed.statement {
                Statement::CreateView(view) => (object_name(&view.name), &view.query, &[][..]),
                Statement::CreateMaterializedView(view) => (object_name(&view.name), &view.query, view.options.as_slice()),
                _ => continue,
            };
            let mentioned = Mentioned::of(query);
            let function = CLOCK_FUNCTIONS.iter().find(|function| mentioned.functions.contains(**function));
            let function = function.map(|function| format!("it reads {function}(), which has another value in every epoch"));
            let expires = options.iter().any(|(option, _)| option.eq_ignore_ascii_case("state_ttl"));
            let expires = expires.then(|| "state_ttl removes groups by the clock".to_string());
            let read = || mentioned.names.iter().find_map(|name| readers.get(name).cloned());
            let Some(reason) = function.or(expires).or_else(read) else { continue };
            if let Some(checked) = self.checked.iter_mut().find(|checked| checked.name == name) {
                checked.skipped = Some(reason.clone());
            }
            readers.insert(name, reason);
        }
    }

    /// The length of the longest name.
    pub(super) fn width(&self) -> usize {
        self.checked.iter().map(|checked| checked.name.chars().count()).max().unwrap_or(0)
    }

    /// Keeps only these queries in the comparison.
    ///
    /// # Errors
    /// A usage error for a name that is none of them.
    pub(super) fn choose(&mut self, names: &[String]) -> Result<(), Failure> {
        if names.is_empty() {
            return Ok(());
        }
        let known = || self.checked.iter().map(|checked| checked.name.as_str());
        if let Some(unknown) = names.iter().find(|name| !known().any(|known| known == name.as_str())) {
            let hint = match nearest(unknown, known()) {
                Some(near) => format!("Did you mean \"{near}\"?"),
                None => format!("Its queries are {}.", known().collect::<Vec<_>>().join(", ")),
            };
            let file = self.name.as_deref().unwrap_or("the script");
            return Err(Failure::usage(format!("{file} has no view and no sink \"{unknown}\"\nhint: {hint}")));
        }
        self.checked.retain(|checked| names.contains(&checked.name));
        Ok(())
    }

    /// Skips all queries for one reason.
    pub(super) fn skip_all(&mut self, reason: &str) {
        self.checked.iter_mut().for_each(|checked| checked.skipped = Some(reason.to_string()));
    }

    /// The streams that a source feeds, not another stream.
    pub(super) fn sources(&self) -> impl Iterator<Item = (&Placed, &CreateStream)> {
        self.definitions.iter().filter_map(|placed| match &placed.statement {
            Statement::CreateStream(stream) if stream.as_select.is_none() => Some((placed, stream)),
            _ => None,
        })
    }

    /// Names of streams that derived streams read; their rows can only come.
    pub(super) fn bases(&self) -> BTreeSet<String> {
        let derived = self.definitions.iter().filter_map(|placed| match &placed.statement {
            Statement::CreateStream(CreateStream { as_select: Some(query), .. }) => Some(query),
            _ => None,
        });
        derived.flat_map(|query| Mentioned::of(query).names).collect()
    }

    /// What is needed to read the streams: everything that INSERT may read, and the streams as their sources have them.
    pub(super) fn read_form(&self) -> Vec<Placed> {
        let reads_relations =
            self.inserts.iter().any(|placed| matches!(&placed.statement, Statement::InsertInto(insert) if !insert.is_values()));
        let needed = self.definitions.iter().filter_map(|placed| {
            let statement = match &placed.statement {
                Statement::CreateStream(stream) if stream.as_select.is_none() => Statement::CreateStream(stream_form::read(stream)),
                Statement::CreateView(_) | Statement::CreateMaterializedView(_) | Statement::CreateStream(_) if !reads_relations => {
                    return None;
                }
                other => plain_view(other),
            };
            Some(Placed { statement, ..placed.clone() })
        });
        needed.collect()
    }

    /// The rows that are inserted, in order.
    pub(super) fn inserts(&self) -> &[Placed] {
        &self.inserts
    }

    /// The rows that are inserted into tables. Those of streams are part of the input.
    pub(super) fn table_inserts(&self) -> impl Iterator<Item = &Placed> {
        let streams: BTreeSet<String> = self.sources().map(|(_, stream)| object_name(&stream.name)).collect();
        self.inserts.iter().filter(move |placed| match &placed.statement {
            Statement::InsertInto(insert) => !streams.contains(&object_name(&insert.target)),
            _ => true,
        })
    }

    /// The definitions with streams that are fed.
    pub(super) fn incremental_form(&self, inputs: &[Input]) -> Vec<Placed> {
        let fed = |placed: &Placed| {
            let statement = match &placed.statement {
                Statement::CreateStream(stream) => {
                    let name = object_name(&stream.name);
                    match inputs.iter().find(|input| input.name == name) {
                        Some(input) => Statement::CreateStream(stream_form::fed(stream, &input.rows.schema(), input.deletes())),
                        None => placed.statement.clone(),
                    }
                }
                other => other.clone(),
            };
            Placed { statement, ..placed.clone() }
        };
        self.definitions.iter().map(fed).collect()
    }

    /// [`Pipeline::incremental_form`] with plain views, without what the incremental engine refused.
    pub(super) fn batch_form(incremental: &[Placed], refused: &BTreeSet<String>) -> Vec<Placed> {
        let kept = incremental.iter().filter(
            |placed| !matches!(&placed.statement, Statement::CreateMaterializedView(view) if refused.contains(&object_name(&view.name))),
        );
        kept.map(|placed| Placed { statement: plain_view(&placed.statement), ..placed.clone() }).collect()
    }
}

/// A materialized view as a plain one; other statements as they are.
fn plain_view(statement: &Statement) -> Statement {
    match statement {
        Statement::CreateMaterializedView(view) => Statement::CreateView(CreateView {
            or_replace: view.or_replace,
            if_not_exists: view.if_not_exists,
            name: view.name.clone(),
            columns: view.columns.clone(),
            query: view.query.clone(),
        }),
        other => other.clone(),
    }
}

fn without_period(emit: Emit) -> Emit {
    if matches!(emit, Emit::Periodic(_)) { Emit::None } else { emit }
}

fn names(columns: &[ColumnDef]) -> Vec<Ident> {
    columns.iter().map(|column| column.name.clone()).collect()
}

fn select_all(name: &ObjectName) -> Result<Box<Query>, Failure> {
    millstream_sql::parse_query(&format!("SELECT * FROM {name}")).map_err(|error| Failure::script(error.to_string()))
}

/// What a query mentions.
#[derive(Debug, Default)]
struct Mentioned {
    /// Functions that are called, in lower case.
    functions: BTreeSet<String>,
    /// Relations and everything else that is written as a name alone, as window functions take relations.
    names: BTreeSet<String>,
}

impl Mentioned {
    fn of(query: &Query) -> Self {
        let mut mentioned = Self::default();
        let _ = walk(query, &mut mentioned);
        mentioned
    }
}

impl Walk for Mentioned {
    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        self.names.insert(object_name(relation));
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(function) => drop(self.functions.insert(object_name(&function.name))),
            Expr::Identifier(ident) => drop(self.names.insert(fold(ident))),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipeline(text: &str) -> Pipeline {
        Pipeline::new(&Script { text: text.into(), name: None }, &[]).unwrap()
    }

    #[test]
    fn views_and_queries_of_sinks_are_compared() {
        let found = pipeline(
            "CREATE STREAM s (a INT); CREATE MATERIALIZED VIEW v AS SELECT a FROM s EMIT PERIODIC INTERVAL '1 second';
             CREATE SINK k FROM v WITH (connector = 'console'); CREATE SINK l (b INT) WITH (connector = 'console');
             INSERT INTO l SELECT a FROM s; INSERT INTO l AS named SELECT a + 1 FROM s; INSERT INTO s VALUES (1); SELECT * FROM v;",
        );
        let names: Vec<&str> = found.checked.iter().map(|checked| checked.name.as_str()).collect();
        assert_eq!(names, ["v", "k", "l_1", "named"]);
        let texts: Vec<String> = found.incremental_form(&[]).iter().map(|placed| placed.statement.to_string()).collect();
        assert_eq!(texts[1], "CREATE MATERIALIZED VIEW v AS SELECT a FROM s");
        assert_eq!(texts[2], "CREATE MATERIALIZED VIEW k AS SELECT * FROM v");
        assert_eq!(texts[3], "CREATE MATERIALIZED VIEW \"l_1\" (b) AS SELECT a FROM s");
        let batch = Pipeline::batch_form(&found.incremental_form(&[]), &["k".to_string()].into());
        assert_eq!(batch[1].statement.to_string(), "CREATE VIEW v AS SELECT a FROM s");
        assert_eq!((batch.len(), found.table_inserts().count(), found.inserts().len()), (4, 0, 1));
    }

    #[test]
    fn queries_that_read_the_clock_have_no_batch_form() {
        let mut found = pipeline(
            "CREATE STREAM s (a INT, ts TIMESTAMP); CREATE VIEW recent AS SELECT * FROM s WHERE ts > now();
             CREATE MATERIALIZED VIEW a AS SELECT count(*) AS n FROM recent;
             CREATE MATERIALIZED VIEW b AS SELECT count(*) AS now FROM s;
             CREATE MATERIALIZED VIEW c AS SELECT s.a FROM s JOIN b FOR SYSTEM_TIME AS OF PROCTIME() ON s.a = b.now;
             CREATE MATERIALIZED VIEW d WITH (state_ttl = '1 hour') AS SELECT a, count(*) AS n FROM s GROUP BY a;",
        );
        let skipped: Vec<bool> = found.checked.iter().map(|checked| checked.skipped.is_some()).collect();
        assert_eq!(skipped, [true, false, true, true]);
        assert!(found.choose(&["e".into()]).unwrap_err().message.contains("has no view"));
        found.choose(&["b".into()]).unwrap();
        assert_eq!(found.checked.len(), 1);
    }
}
