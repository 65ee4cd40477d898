//! A session: carries out statements one by one over the engine's shared catalog.

mod access;
mod authorize;
mod bound;
mod change;
mod contents;
mod insert;
mod lasting;
mod literal_rows;
mod parameter_types;
pub(crate) mod plan_cache;
pub(crate) mod prepare;
mod read;
mod show;
mod snapshot_table;
mod transaction;
mod variables;

use crate::access::UserLimits;
use crate::catalog::resolve::object_name;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::guard::guarded;
use crate::pipeline::command::Command;
use crate::pipeline::live::LiveRequest;
use crate::result::{Output, Rows, StatementResult};
use crate::settings::SettingInfo;
use crate::spans::noting_failure;
use crate::subscription::Watched;
use arrow::array::{ArrayRef, RecordBatch, StringArray};
pub use authorize::SessionUser;
pub use bound::BoundValue;
use datafusion::prelude::DataFrame;
use futures::Stream;
pub use insert::Inserted;
use millstream_sql::statement::{
    AlterAction, CopySource, CopyTarget, Emit, ExplainMode, PipelineAction, QueryStatement, Subscribe, SubscribeSource,
};
use millstream_sql::{ScriptError, Statement, parse_script, parse_statement};
use millstream_types::Epoch;
use parking_lot::Mutex;
pub use prepare::Described;
use std::sync::Arc;
use tracing::field::Empty;
use transaction::Transaction;
pub use transaction::accepted_harmlessly as is_harmless;
use variables::Variables;
pub use variables::{client_setting_default, is_client_setting};

/// A session over an engine. Cheap to clone, and a clone is the same session; sessions do not see each other.
#[derive(Debug, Clone)]
pub struct Session {
    engine: Engine,
    user: SessionUser,
    /// How many users of this name were gone when it began: who has the name later is somebody else.
    gone_before: u64,
    /// Limits of all sessions of its kind.
    limits: UserLimits,
    transaction: Arc<Mutex<Option<Transaction>>>,
    variables: Arc<Variables>,
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

impl Session {
    pub(crate) fn new(engine: Engine, user: SessionUser) -> Self {
        let gone_before = match &user {
            SessionUser::Named(name) => engine.shared().access_watch.gone(name),
            SessionUser::Owner | SessionUser::Anybody => 0,
        };
        Self { engine, user, gone_before, limits: UserLimits::default(), transaction: Arc::default(), variables: Arc::default() }
    }

    /// The same session, held to these limits too, whoever it belongs to.
    #[must_use]
    pub fn within(mut self, limits: UserLimits) -> Self {
        self.limits = limits;
        self
    }

    /// The limits of its statements now: those of its user and its own.
    pub fn limits(&self) -> UserLimits {
        self.user_limits().or_less(self.limits)
    }

    /// The engine of this session.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Every option with its value.
    pub fn settings(&self) -> Vec<SettingInfo> {
        self.engine.shared().settings.read().list()
    }

    /// Whether BEGIN has opened a transaction that is not ended yet.
    pub fn in_transaction(&self) -> bool {
        self.transaction.lock().is_some()
    }

    /// The value of a setting of PostgreSQL clients, such as `statement_timeout`; `None` when there is none of this name.
    pub fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name)
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
        let span = self.span_of(&statement);
        noting_failure(span, self.carry_out(statement)).await
    }

    /// The span of a statement. Its text is not told: it has what clients would rather keep to themselves.
    fn span_of(&self, statement: &Statement) -> tracing::Span {
        let span = tracing::info_span!("statement", otel.name = Empty, user = Empty, otel.status_code = Empty);
        if !span.is_disabled() {
            span.record("otel.name", tag_of(statement));
            if let SessionUser::Named(name) = &self.user {
                span.record("user", name.as_ref());
            }
        }
        span
    }

    async fn carry_out(&self, statement: Statement) -> Result<StatementResult> {
        // Before rights are looked at, so that no change is missed in between.
        let right = self.right_to_follow(&statement).map(Watched::new);
        self.authorize(&statement)?;
        let mut result = guarded("the statement", Box::pin(self.dispatch(statement))).await?;
        if let Output::Changes(subscription) = &mut result.output {
            subscription.last_as_long_as(right);
        }
        Ok(result)
    }

    async fn dispatch(&self, statement: Statement) -> Result<StatementResult> {
        self.check_transaction(&statement)?;
        let tag = tag_of(&statement);
        if statement == Statement::Reset(None) {
            self.variables.reset(None);
        }
        if let Some(done) = self.savepoint(&statement) {
            return done;
        }
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
                    let hint = "Write COPY (query) TO 'file'; clients of `millstream serve` take rows from STDOUT.";
                    return Err(EngineError::invalid("COPY TO STDOUT needs a client that takes the rows", hint));
                };
                if let CopyTarget::File(target) = &copy.target {
                    let reach = crate::reach::of(&self.engine.shared().base);
                    millstream_connectors::reach::check(&reach, "COPY", target).map_err(|error| EngineError::connector("COPY", error))?;
                }
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
                    epoch: None,
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
            Statement::Alter(ref alter) if alter.action == AlterAction::Resume => {
                let notices = self.engine.ddl(vec![statement]).await?;
                Ok(StatementResult::done(tag, notices))
            }
            Statement::Set(ref set) if self.variables.set(&set.name, &set.value) => Ok(StatementResult::done(tag, Vec::new())),
            Statement::Reset(Some(ref name)) if self.variables.reset(Some(name)) => Ok(StatementResult::done(tag, Vec::new())),
            statement @ (Statement::CreateUser(_) | Statement::AlterUser(_) | Statement::DropUser(_) | Statement::Grant(_)) => {
                self.change_users(statement, &tag).await
            }
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
            Statement::CopyFrom(_) => Err(EngineError::invalid(
                "COPY FROM STDIN needs a client that sends the rows",
                "`millstream serve` takes them from psql and every other PostgreSQL client.",
            )),
            Statement::DeclareCursor(_)
            | Statement::Fetch(_)
            | Statement::CloseCursor(_)
            | Statement::Prepare(_)
            | Statement::Execute(_)
            | Statement::Deallocate(_) => Err(EngineError::invalid(
                format!("{tag} needs the session of a client"),
                "`millstream serve` has one for each connection over the PostgreSQL protocol and Arrow Flight SQL.",
            )),
            other if is_harmless(&other) => Ok(StatementResult::done(tag, Vec::new())),
            _ => Err(unsupported(&tag)),
        }
    }

    async fn query(&self, statement: QueryStatement) -> Result<StatementResult> {
        if statement.emit == Emit::None {
            return self.select(&statement.query, &[]).await;
        }
        let request = LiveRequest::new(statement.query, statement.emit);
        let subscription = self.engine.request(|answer| Command::Subscribe { request, answer }).await?;
        Ok(StatementResult { tag: "SELECT".into(), notices: Vec::new(), epoch: None, output: Output::Changes(subscription) })
    }

    async fn subscribe_statement(&self, subscribe: Subscribe) -> Result<StatementResult> {
        let query = match &subscribe.source {
            SubscribeSource::Name(name) => crate::pipeline::ddl::select_all(name)?,
            SubscribeSource::Query(query) => query.clone(),
        };
        let request = LiveRequest {
            snapshot: subscribe.snapshot,
            progress: subscribe.progress,
            as_of: subscribe.as_of.map(Epoch),
            up_to: subscribe.up_to.map(Epoch),
            ..LiveRequest::new(query, Emit::None)
        };
        let subscription = self.engine.request(|answer| Command::Subscribe { request, answer }).await?;
        Ok(StatementResult { tag: "SUBSCRIBE".into(), notices: Vec::new(), epoch: None, output: Output::Changes(subscription) })
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
