//! A session: carries out statements one by one over the engine's shared catalog.

mod change;
mod insert;
mod transaction;

use crate::catalog::object::ObjectKind;
use crate::catalog::resolve::{Contents, Placeholder, Resolved, Resolver, object_name};
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::pipeline::Shared;
use crate::pipeline::command::Command;
use crate::pipeline::live::LiveRequest;
use crate::pipeline::snapshot::{Content, Snapshot, SnapshotRequest};
use crate::result::{Output, Rows, StatementResult};
use crate::settings::SettingInfo;
use crate::{file_relation, stream_scan, system_tables};
use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::datasource::{MemTable, ViewTable};
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::prelude::{CsvReadOptions, DataFrame, JsonReadOptions, ParquetReadOptions, SessionContext};
use futures::Stream;
use millstream_sql::statement::{
    AlterAction, CopySource, Emit, ExplainMode, PipelineAction, QueryStatement, Show, ShowWhat, Subscribe, SubscribeSource,
};
use millstream_sql::{ScriptError, Statement, parse_script, parse_statement};
use millstream_types::Epoch;
use parking_lot::Mutex;
use sqlparser::ast::{ObjectName, Query};
use std::sync::Arc;
use transaction::{Transaction, accepted_harmlessly};

/// A session over an engine. Cheap to clone, and a clone is the same session; sessions do not see each other.
#[derive(Debug, Clone)]
pub struct Session {
    engine: Engine,
    transaction: Arc<Mutex<Option<Transaction>>>,
}

/// Where a statement of a script stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptPosition {
    /// Name of the script, if it has one.
    pub name: Option<String>,
    /// Line of its first word, from 1.
    pub line: u64,
    /// Its text.
    pub text: String,
}

/// A script that stopped at a failing statement.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{error}")]
pub struct ScriptFailure {
    /// Where.
    pub position: ScriptPosition,
    /// Why.
    pub error: EngineError,
}

impl ScriptFailure {
    /// The failure as a person reads it, with file, line and caret.
    pub fn render(&self) -> String {
        self.error.render(&self.position.text, self.position.name.as_deref(), self.position.line)
    }
}

/// Relations of a batch query: the content of a snapshot.
struct BatchContents<'a> {
    shared: &'a Shared,
    snapshot: &'a Snapshot,
}

#[async_trait]
impl Contents for BatchContents<'_> {
    async fn provider(&self, name: &str, kind: &ObjectKind, hidden: bool) -> Result<Arc<dyn TableProvider>> {
        if let ObjectKind::ExternalTable(def) = kind
            && !self.snapshot.relations.contains_key(name)
        {
            return Ok(Arc::clone(&def.provider));
        }
        let base = &self.shared.base;
        match self.snapshot.relations.get(name) {
            Some(Content::Rows(schema, rows)) => Ok(Arc::new(MemTable::try_new(Arc::clone(schema), vec![rows.to_vec()])?)),
            Some(Content::Stream(runtime, history)) => stream_scan::accepted(runtime, history.clone(), hidden, base),
            Some(Content::UntouchedStream(runtime)) => stream_scan::untouched(&runtime.def, hidden, base, &self.shared.clock).await,
            Some(Content::Sink { schema, format, files, buffered }) => sink_rows(base, name, schema, format, files, buffered).await,
            None => match kind {
                ObjectKind::Sink(_) => {
                    Err(EngineError::invalid(format!("sink \"{name}\" has no query yet"), "INSERT INTO it ... SELECT first."))
                }
                _ => Err(EngineError::invalid(format!("\"{name}\" cannot be read"), "")),
            },
        }
    }

    async fn files(&self, path: &str) -> Result<Arc<dyn TableProvider>> {
        file_relation::provider(path, &self.shared.base, &self.shared.clock).await
    }

    fn system_table(&self, name: &str) -> Option<Arc<dyn TableProvider>> {
        system_tables::provider(name, self.shared, self.snapshot)
    }
}

/// A file sink: its committed files, and rows that are in none yet.
async fn sink_rows(
    base: &SessionState,
    name: &str,
    schema: &SchemaRef,
    format: &str,
    files: &[String],
    buffered: &[RecordBatch],
) -> Result<Arc<dyn TableProvider>> {
    let context = SessionContext::new_with_state(base.clone());
    let schema = buffered.first().map_or_else(|| Arc::clone(schema), RecordBatch::schema);
    let waiting = context.read_table(Arc::new(MemTable::try_new(Arc::clone(&schema), vec![buffered.to_vec()])?))?;
    if files.is_empty() {
        return Ok(Arc::new(ViewTable::new(waiting.into_unoptimized_plan(), None)));
    }
    let paths: Vec<String> = files.to_vec();
    let written: DataFrame = match format {
        "parquet" => context.read_parquet(paths, ParquetReadOptions::default()).await?,
        "csv" => context.read_csv(paths, CsvReadOptions::default().schema(&schema)).await?,
        "json" => context.read_json(paths, JsonReadOptions::default().schema(&schema)).await?,
        "arrow" => context.read_arrow(paths, Default::default()).await?,
        other => {
            return Err(EngineError::invalid(
                format!("sink \"{name}\" writes {other} files, which SELECT cannot read"),
                "Read the view that feeds it instead.",
            ));
        }
    };
    if buffered.is_empty() {
        return Ok(Arc::new(ViewTable::new(written.into_unoptimized_plan(), None)));
    }
    let written = written.into_unoptimized_plan();
    let both = LogicalPlanBuilder::from(written).union(waiting.into_unoptimized_plan())?.build()?;
    Ok(Arc::new(ViewTable::new(both, None)))
}

/// Relations without content: to find out which ones a query reads.
struct NamesOnly<'a> {
    shared: &'a Shared,
}

#[async_trait]
impl Contents for NamesOnly<'_> {
    async fn provider(&self, _name: &str, kind: &ObjectKind, hidden: bool) -> Result<Arc<dyn TableProvider>> {
        Ok(match kind {
            ObjectKind::Stream(def) => Arc::new(Placeholder::new(if hidden { def.schema_with_hidden() } else { def.schema() })),
            ObjectKind::Table(def) => Arc::new(Placeholder::new(Arc::clone(&def.schema))),
            ObjectKind::MaterializedView(def) => Arc::new(Placeholder::new(Arc::clone(&def.schema))),
            ObjectKind::ExternalTable(def) => Arc::clone(&def.provider),
            ObjectKind::Sink(def) => match def.queries.first() {
                Some(query) => Arc::new(Placeholder::new(Arc::clone(&query.schema))),
                None => Arc::new(Placeholder::new(Arc::new(arrow::datatypes::Schema::empty()))),
            },
            ObjectKind::View(_) => return Err(EngineError::Internal("views are expanded by the resolver".into())),
        })
    }

    async fn files(&self, path: &str) -> Result<Arc<dyn TableProvider>> {
        file_relation::provider(path, &self.shared.base, &self.shared.clock).await
    }

    fn system_table(&self, _name: &str) -> Option<Arc<dyn TableProvider>> {
        None
    }
}

impl Session {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine, transaction: Arc::default() }
    }

    /// The engine of this session.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Every option with its value.
    pub fn settings(&self) -> Vec<SettingInfo> {
        self.engine.shared().settings.read().list()
    }

    /// Carries out one statement.
    ///
    /// # Errors
    /// When it does not parse, cannot be carried out or fails; the catalog is as before then.
    pub async fn execute(&self, statement: &str) -> Result<StatementResult> {
        self.execute_parsed(parse_statement(statement)?).await
    }

    /// Carries out the statements of a script one by one, until one fails.
    pub fn execute_script<'a>(
        &'a self,
        script: &'a str,
        name: Option<&'a str>,
    ) -> impl Stream<Item = Result<(ScriptPosition, StatementResult), ScriptFailure>> + 'a {
        futures::stream::unfold(Some(parse_script(script)), move |state| async move {
            let mut statements = state?;
            let parsed = match statements.next()? {
                Ok(parsed) => parsed,
                Err(error) => return Some((Err(script_failure(script, name, error)), None)),
            };
            let position = ScriptPosition { name: name.map(str::to_string), line: parsed.first_line, text: parsed.text.to_string() };
            match self.execute_parsed(parsed.statement).await {
                Ok(result) => Some((Ok((position, result)), Some(statements))),
                Err(error) => Some((Err(ScriptFailure { position, error }), None)),
            }
        })
    }

    /// Carries out a statement that has been parsed.
    ///
    /// # Errors
    /// As [`Session::execute`].
    pub async fn execute_parsed(&self, statement: Statement) -> Result<StatementResult> {
        self.check_transaction(&statement)?;
        let tag = tag_of(&statement);
        match statement {
            Statement::Query(query) => self.query(query).await,
            Statement::Subscribe(subscribe) => self.subscribe_statement(subscribe).await,
            Statement::InsertInto(insert) => self.insert(insert, None).await,
            Statement::Update(_) | Statement::Delete(_) | Statement::Truncate(_) => self.change(&statement, None).await,
            Statement::Begin => self.begin().await,
            Statement::Commit => self.commit().await,
            Statement::Rollback => Ok(self.rollback()),
            Statement::Show(show) => self.show(show).await,
            Statement::Describe(name) => self.describe(&name).await,
            Statement::ShowCreate(name) => {
                let name = object_name(&name);
                let catalog = self.engine.shared().catalog.read().clone();
                let object = catalog.require(&name)?;
                text_result("SHOW CREATE", "statement", [object.sql.clone()])
            }
            Statement::Explain(explain) => match explain.mode {
                ExplainMode::Incremental => {
                    let text = self.engine.request(|answer| Command::Explain { statement: explain.statement, answer }).await?;
                    text_result("EXPLAIN", "plan", text.lines().map(str::to_string))
                }
                mode => self.explain_batch(mode, *explain.statement).await,
            },
            Statement::Copy(copy) => {
                let Some(statement) = copy.to_datafusion() else {
                    return Err(EngineError::invalid("COPY to standard output needs a client connection", "Write COPY (query) TO 'file'."));
                };
                let query = match &copy.source {
                    CopySource::Query(query) => query.clone(),
                    CopySource::Relation(name) => crate::pipeline::ddl::select_all(name)?,
                    CopySource::Subscribe(_) => return Err(EngineError::Internal("a subscription is no file".into())),
                };
                let resolved = self.plan(&query).await?;
                let statement = datafusion::sql::parser::Statement::CopyTo(statement);
                let plan = resolved.state.statement_to_plan(statement).await?;
                let frame = DataFrame::new(resolved.state, plan);
                Ok(StatementResult {
                    tag: "COPY".into(),
                    notices: Vec::new(),
                    output: Output::Rows(Rows::new(frame.execute_stream().await?)),
                })
            }
            Statement::Checkpoint => {
                self.engine.checkpoint().await?;
                Ok(StatementResult::done(tag, Vec::new()))
            }
            Statement::Pipeline(action) => {
                match action {
                    PipelineAction::Start => self.engine.start().await?,
                    PipelineAction::Stop => self.engine.stop(crate::Stop::Finish).await?,
                    PipelineAction::Pause => self.engine.request(|answer| Command::Pause { pause: true, answer }).await?,
                    PipelineAction::Resume => self.engine.request(|answer| Command::Pause { pause: false, answer }).await?,
                }
                Ok(StatementResult::done(tag, Vec::new()))
            }
            Statement::Alter(alter) if alter.name.is_none() => match alter.action {
                AlterAction::Set(options) => {
                    let sets =
                        options.into_iter().map(|(name, value)| Statement::Set(millstream_sql::statement::Set { name, value })).collect();
                    let notices = self.engine.ddl(sets).await?;
                    Ok(StatementResult::done(tag, notices))
                }
                AlterAction::Pause | AlterAction::Resume => {
                    let pause = alter.action == AlterAction::Pause;
                    self.engine.request(|answer| Command::Pause { pause, answer }).await?;
                    Ok(StatementResult::done(tag, Vec::new()))
                }
                _ => Err(unsupported(&tag)),
            },
            Statement::CreateStream(_)
            | Statement::CreateTable(_)
            | Statement::CreateExternalTable(_)
            | Statement::CreateView(_)
            | Statement::CreateMaterializedView(_)
            | Statement::CreateSink(_)
            | Statement::Drop(_)
            | Statement::Set(_)
            | Statement::Reset(_)
            | Statement::RefreshTable(_) => {
                let notices = self.engine.ddl(vec![statement]).await?;
                Ok(StatementResult::done(tag, notices))
            }
            other if accepted_harmlessly(&other) => Ok(StatementResult::done(tag, Vec::new())),
            _ => Err(unsupported(&tag)),
        }
    }

    async fn query(&self, statement: QueryStatement) -> Result<StatementResult> {
        let request = LiveRequest { query: statement.query, on_close: false, snapshot: true, progress: false, limit: None, up_to: None };
        let request = match statement.emit {
            Emit::None => return self.select(&request.query).await,
            Emit::Changes { limit } => LiveRequest { limit, ..request },
            Emit::OnWindowClose => LiveRequest { on_close: true, ..request },
            Emit::Periodic(_) => return Err(EngineError::invalid("EMIT PERIODIC is not in this build", "Write EMIT CHANGES.")),
        };
        let subscription = self.engine.request(|answer| Command::Subscribe { request, answer }).await?;
        Ok(StatementResult { tag: "SELECT".into(), notices: Vec::new(), output: Output::Changes(subscription) })
    }

    async fn subscribe_statement(&self, subscribe: Subscribe) -> Result<StatementResult> {
        if subscribe.as_of.is_some() {
            return Err(EngineError::invalid(
                "SUBSCRIBE ... AS OF EPOCH is not in this build",
                "Leave it out to begin with the present rows.",
            ));
        }
        let query = match &subscribe.source {
            SubscribeSource::Name(name) => crate::pipeline::ddl::select_all(name)?,
            SubscribeSource::Query(query) => query.clone(),
        };
        let request = LiveRequest {
            query,
            on_close: false,
            snapshot: subscribe.snapshot,
            progress: subscribe.progress,
            limit: None,
            up_to: subscribe.up_to.map(Epoch),
        };
        let subscription = self.engine.request(|answer| Command::Subscribe { request, answer }).await?;
        Ok(StatementResult { tag: "SUBSCRIBE".into(), notices: Vec::new(), output: Output::Changes(subscription) })
    }

    /// Plans a batch query over one consistent snapshot.
    pub(crate) async fn plan(&self, query: &Query) -> Result<Resolved> {
        self.plan_at(query).await.map(|(resolved, _)| resolved)
    }

    /// As [`Session::plan`], with the epoch of the snapshot.
    async fn plan_at(&self, query: &Query) -> Result<(Resolved, Epoch)> {
        let shared = self.engine.shared();
        if let Some((catalog, snapshot)) = self.pinned() {
            let contents = BatchContents { shared, snapshot: &snapshot };
            let resolved = Resolver { catalog: &catalog, base: &shared.base, contents: &contents }.plan(query).await?;
            return Ok((resolved, snapshot.epoch));
        }
        let catalog = shared.catalog.read().clone();
        let figures = query.to_string().contains(crate::catalog::resolve::SYSTEM_SCHEMA);
        let names = match (Resolver { catalog: &catalog, base: &shared.base, contents: &NamesOnly { shared } }).plan(query).await {
            Ok(resolved) => resolved.reads,
            // A system table has no columns yet; whatever else is wrong shows again below.
            Err(_) if figures => catalog.objects().iter().map(|object| object.name.clone()).collect(),
            Err(error) => return Err(error),
        };
        let request = SnapshotRequest { names, figures };
        let snapshot = self.engine.request(|answer| Command::Snapshot { request, answer }).await?;
        let contents = BatchContents { shared, snapshot: &snapshot };
        let resolved = Resolver { catalog: &catalog, base: &shared.base, contents: &contents }.plan(query).await?;
        Ok((resolved, snapshot.epoch))
    }

    async fn select(&self, query: &Query) -> Result<StatementResult> {
        let resolved = self.plan(query).await?;
        let frame = DataFrame::new(resolved.state, resolved.plan);
        let rows = frame.execute_stream().await.map_err(|error| EngineError::in_query(error, query))?;
        Ok(StatementResult { tag: "SELECT".into(), notices: Vec::new(), output: Output::Rows(Rows::new(rows)) })
    }

    async fn explain_batch(&self, mode: ExplainMode, statement: Statement) -> Result<StatementResult> {
        let Some(query) = statement.query() else {
            return Err(EngineError::invalid(
                format!("EXPLAIN explains queries, not: {statement}"),
                "EXPLAIN INCREMENTAL explains statements that make queries.",
            ));
        };
        let resolved = self.plan(query).await?;
        let frame = DataFrame::new(resolved.state, resolved.plan).explain(mode == ExplainMode::Verbose, mode == ExplainMode::Analyze)?;
        Ok(StatementResult { tag: "EXPLAIN".into(), notices: Vec::new(), output: Output::Rows(Rows::new(frame.execute_stream().await?)) })
    }

    async fn show(&self, show: Show) -> Result<StatementResult> {
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
            ShowWhat::All => return self.execute_internal("SELECT name, value, doc FROM millstream.settings").await,
            ShowWhat::Functions => {
                let mut names: Vec<String> = shared.base.scalar_functions().keys().cloned().collect();
                names.extend(shared.base.aggregate_functions().keys().cloned());
                names.extend(shared.base.window_functions().keys().cloned());
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
                    (None, "epoch") => shared.committed.borrow().epoch.to_string(),
                    (None, "server_version") => format!("15.0 (Millstream {})", env!("CARGO_PKG_VERSION")),
                    (None, _) => {
                        return Err(EngineError::invalid(format!("unknown setting \"{name}\""), "SHOW ALL lists the options."));
                    }
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
        let mut result = self.select(&query).await?;
        result.tag = "SHOW".into();
        Ok(result)
    }

    async fn describe(&self, name: &ObjectName) -> Result<StatementResult> {
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
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("column", Arc::new(StringArray::from_iter_values(fields.iter().map(|field| field.name())))),
            ("type", Arc::new(StringArray::from_iter_values(fields.iter().map(|field| crate::sql_types::sql_type(field.data_type()))))),
            (
                "nullable",
                Arc::new(StringArray::from_iter_values(fields.iter().map(|field| if field.is_nullable() { "YES" } else { "NO" }))),
            ),
            (
                "note",
                Arc::new(StringArray::from_iter_values(fields.iter().map(|field| notes.get(field.name()).cloned().unwrap_or_default()))),
            ),
        ];
        Ok(StatementResult::batch("DESCRIBE", RecordBatch::try_from_iter(columns)?))
    }
}

fn text_result(tag: &str, column: &str, values: impl IntoIterator<Item = String>) -> Result<StatementResult> {
    let values: Vec<String> = values.into_iter().collect();
    let array: ArrayRef = Arc::new(StringArray::from(values));
    Ok(StatementResult::batch(tag, RecordBatch::try_from_iter([(column, array)])?))
}

fn unsupported(tag: &str) -> EngineError {
    EngineError::invalid(format!("{tag} is not in this build"), "")
}

/// The words clients show for a statement.
fn tag_of(statement: &Statement) -> String {
    let text = statement.to_string();
    let words: Vec<&str> = text.split_whitespace().take(4).collect();
    let count = match words.as_slice() {
        ["CREATE", "OR", "REPLACE", ..] => return format!("CREATE {}", words.get(3).copied().unwrap_or_default()),
        ["CREATE" | "DROP", "MATERIALIZED" | "EXTERNAL", _, ..] => 3,
        ["CREATE" | "DROP" | "ALTER" | "REFRESH" | "START" | "STOP" | "PAUSE" | "RESUME" | "CANCEL", _, ..] => 2,
        _ => 1,
    };
    words.into_iter().take(count).collect::<Vec<_>>().join(" ").trim_end_matches(';').to_string()
}

pub(crate) fn script_failure(script: &str, name: Option<&str>, error: ScriptError) -> ScriptFailure {
    // Positions of a parse error count within the whole script.
    let position = ScriptPosition { name: name.map(str::to_string), line: 1, text: script.to_string() };
    ScriptFailure { position, error: error.error.into() }
}
