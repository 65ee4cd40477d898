//! Carries out one script on one engine.

use super::content;
use super::script::{Record, Script};
use crate::support::{self, input, instance::Instance, output};
use millstream::EngineError;
use millstream_types::Classified;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How the rows that a script pushes are cut into epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Where the script says `epoch`.
    AsWritten,
    /// All rows in one, at the end.
    OneEpoch,
    /// Each row in its own.
    RowByRow,
}

/// Contents of the materialized views at the end of a run.
pub(super) type Views = BTreeMap<String, Vec<String>>;

/// What a run found out.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) failures: Vec<String>,
    /// Expectations that were not met, as they should stand in the file.
    pub(super) replacements: Vec<(Range<usize>, Vec<String>)>,
    pub(super) views: Views,
}

/// One run of a script.
pub(super) struct Run<'a> {
    script: &'a Script,
    cut: Cut,
    /// Start the engine anew after every epoch.
    restarts: bool,
    dir: tempfile::TempDir,
    outcome: Outcome,
    /// Pushes that no epoch has taken yet, by stream.
    queued: BTreeMap<String, usize>,
    /// Rows kept for the end, by stream and named columns.
    held_back: BTreeMap<(String, Vec<String>), Vec<String>>,
    ended: BTreeSet<String>,
    /// Materialized views and their queries.
    views: BTreeMap<String, Option<String>>,
    epochs: usize,
    files_written: u64,
}

/// The name of a query's result, and why a step failed.
type StepResult = Result<(), String>;

impl<'a> Run<'a> {
    pub(super) fn new(script: &'a Script, cut: Cut, restarts: bool) -> Self {
        Self {
            script,
            cut,
            restarts,
            dir: support::scratch_dir(),
            outcome: Outcome::default(),
            queued: BTreeMap::new(),
            held_back: BTreeMap::new(),
            ended: BTreeSet::new(),
            views: BTreeMap::new(),
            epochs: 0,
            files_written: 0,
        }
    }

    /// Runs all records; a step that cannot be carried out ends the run.
    pub(super) async fn execute(mut self) -> Outcome {
        let durable = self.restarts
            || self.script.has_mode("durable")
            || self.script.records.iter().any(|record| ["restart", "crash"].contains(&record.command.as_str()));
        let state_dir = self.dir.path().join(".state");
        let mut instance = match Instance::start(durable.then_some(state_dir.as_path())).await {
            Ok(instance) => instance,
            Err(error) => {
                self.fail(1, &format!("the engine did not start: {}", describe(&error)));
                return self.outcome;
            }
        };
        for record in &self.script.records {
            if let Err(problem) = self.step(&mut instance, record).await {
                self.fail(record.line, &format!("`{} {}`: {problem}", record.command, record.argument));
                return self.outcome;
            }
        }
        if let Err(problem) = self.finish(&mut instance).await {
            self.fail(0, &problem);
        }
        self.outcome
    }

    fn fail(&mut self, line: usize, problem: &str) {
        let path = self.script.path.strip_prefix(support::root()).unwrap_or(&self.script.path).display();
        let mode = match (self.cut, self.restarts) {
            (Cut::AsWritten, false) => "",
            (Cut::AsWritten, true) => " (restarted after every epoch)",
            (Cut::OneEpoch, _) => " (all rows in one epoch)",
            (Cut::RowByRow, _) => " (one row per epoch)",
        };
        self.outcome.failures.push(format!("{path}:{line}{mode}: {problem}"));
    }

    async fn step(&mut self, instance: &mut Instance, record: &Record) -> StepResult {
        let recut = self.cut != Cut::AsWritten;
        match record.command.as_str() {
            "statement" => self.statement(instance, record).await,
            "script" => self.statements(instance, &self.expand(&record.text())).await,
            "push" => self.push(instance, record).await,
            "file" => self.file(record),
            "remove" => fs::remove_file(self.dir.path().join(&record.argument)).map_err(|error| error.to_string()),
            "end" => self.end(instance, &record.argument),
            "user" => {
                instance.become_user(&record.argument);
                Ok(())
            }
            "clock" => {
                instance.advance(duration(&record.argument)?);
                Ok(())
            }
            // What follows depends on the cut into epochs.
            "epoch" | "drain" | "query" | "subscribe" | "changes" | "console" | "files" | "content" | "restart" | "crash" | "stop"
                if recut =>
            {
                Ok(())
            }
            "epoch" => self.epoch(instance, &record.argument).await,
            "drain" => {
                instance.drain().await.map_err(|error| describe(&error))?;
                self.queued.clear();
                Ok(())
            }
            "query" => self.query(instance, record).await,
            "subscribe" => instance.subscribe(&record.argument, &self.expand(&record.text())).await.map_err(|error| describe(&error)),
            "changes" => {
                let found = instance.changes(&record.argument).await.map_err(|error| describe(&error))?;
                let found = found.ok_or_else(|| format!("no subscription \"{}\"", record.argument))?;
                self.compare(record, found)
            }
            "console" => self.compare(record, instance.console()),
            "files" => self.files(record),
            "content" => self.content(record),
            "restart" => instance.restart().await.map_err(|error| describe(&error)),
            "crash" => instance.crash().await.map_err(|error| describe(&error)),
            "stop" => instance.stop().await.map_err(|error| describe(&error)),
            other => Err(format!("there is no command `{other}`; tests/README.md lists them")),
        }
    }

    /// `statement ok | error TEXT | notice TEXT`.
    async fn statement(&mut self, instance: &mut Instance, record: &Record) -> StepResult {
        let sql = self.expand(&record.text());
        let (wanted, text) = record.argument.split_once(' ').unwrap_or((&record.argument, ""));
        let result = support::instance::within(instance.session().execute(&sql)).await;
        match (wanted, result) {
            ("ok", Ok(result)) => {
                self.note_view(&sql);
                drop(result);
                Ok(())
            }
            ("notice", Ok(result)) => {
                self.note_view(&sql);
                let notices: Vec<String> = result.notices.iter().map(|notice| notice.message.clone()).collect();
                if notices.iter().any(|notice| notice.contains(text)) { Ok(()) } else { Err(format!("the notices are {notices:?}")) }
            }
            ("ok" | "notice", Err(error)) => Err(describe(&error)),
            ("error", Ok(_)) => Err("the statement succeeded".into()),
            ("error", Err(error)) => {
                let shown = describe(&error);
                if !shown.contains(text) {
                    return Err(format!("the error is another one: {shown}"));
                }
                if record.expected.is_some() {
                    let rendered = error.render(&sql, None, 1);
                    self.compare(record, rendered.trim_end().lines().map(str::to_string).collect())?;
                }
                Ok(())
            }
            _ => Err("write `statement ok`, `statement error TEXT` or `statement notice TEXT`".into()),
        }
    }

    /// `script`: several statements; the folders they read from are made, and input is processed before a SELECT.
    async fn statements(&mut self, instance: &mut Instance, text: &str) -> StepResult {
        for folder in text.split('\'').skip(1).step_by(2).filter(|text| text.starts_with('/') && text.contains("/data/")) {
            fs::create_dir_all(folder).map_err(|error| error.to_string())?;
        }
        for statement in millstream_sql::split::split(text).statements {
            if statement.text.to_uppercase().starts_with("SELECT") && !statement.text.to_uppercase().contains("EMIT CHANGES") {
                instance.drain().await.map_err(|error| describe(&error))?;
            }
            let result = support::instance::within(instance.session().execute(statement.text)).await;
            drop(result.map_err(|error| format!("{}\n{}", describe(&error), statement.text))?);
            self.note_view(statement.text);
        }
        Ok(())
    }

    /// Remembers a materialized view, to be compared at the end of the run.
    fn note_view(&mut self, sql: &str) {
        let words: Vec<&str> = sql.split_whitespace().collect();
        let upper: Vec<String> = words.iter().map(|word| word.to_uppercase()).collect();
        let upper: Vec<&str> = upper.iter().map(String::as_str).collect();
        let name_at = match upper.as_slice() {
            ["CREATE", "MATERIALIZED", "VIEW", "IF", "NOT", "EXISTS", ..] => 6,
            ["CREATE", "MATERIALIZED", "VIEW", ..] => 3,
            ["DROP", "MATERIALIZED", "VIEW", "IF", "EXISTS", ..] => return drop(self.views.remove(words[5])),
            ["DROP", "MATERIALIZED", "VIEW", ..] => return drop(self.views.remove(words[3])),
            _ => return,
        };
        let lower = sql.to_lowercase();
        let query = [" as select ", " as\nselect ", " as with ", " as\nwith "]
            .iter()
            .filter_map(|start| lower.find(start))
            .min()
            .map(|at| sql[at + 4..].trim_end_matches(';').to_string())
            .filter(|query| !query.to_uppercase().contains("EMIT "));
        self.views.insert(words[name_at].to_string(), query);
    }

    /// `push STREAM [(columns)]` and its rows.
    async fn push(&mut self, instance: &mut Instance, record: &Record) -> StepResult {
        let (stream, columns) = record.argument.split_once(' ').unwrap_or((&record.argument, ""));
        let stream = stream.to_string();
        let columns: Vec<&str> = columns.trim_matches(['(', ')']).split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        match self.cut {
            Cut::AsWritten => {
                *self.queued.entry(stream.clone()).or_default() += 1;
                push_rows(instance, &stream, &columns, &record.body).await
            }
            Cut::OneEpoch => {
                let columns = columns.iter().map(ToString::to_string).collect();
                self.held_back.entry((stream, columns)).or_default().extend(record.body.iter().cloned());
                Ok(())
            }
            Cut::RowByRow => {
                for row in &record.body {
                    push_rows(instance, &stream, &columns, std::slice::from_ref(row)).await?;
                    instance.epoch().await.map_err(|error| describe(&error))?;
                }
                Ok(())
            }
        }
    }

    /// `end STREAM`: nothing more will come.
    fn end(&mut self, instance: &Instance, stream: &str) -> StepResult {
        if self.cut == Cut::OneEpoch {
            self.ended.insert(stream.to_string());
            return Ok(());
        }
        instance.engine().memory_source(stream).map_err(|error| describe(&error))?.end();
        Ok(())
    }

    /// `epoch`, `epoch 3`, `epoch none`, `epoch error TEXT`.
    async fn epoch(&mut self, instance: &mut Instance, argument: &str) -> StepResult {
        if let Some(text) = argument.strip_prefix("error") {
            return match instance.epoch().await {
                Ok(_) => Err("the epoch was committed".into()),
                Err(error) if describe(&error).contains(text.trim()) => Ok(()),
                Err(error) => Err(format!("the error is another one: {}", describe(&error))),
            };
        }
        if argument == "none" {
            return match instance.epoch().await {
                Ok(None) => Ok(()),
                Ok(Some(epoch)) => Err(format!("epoch {epoch} was due")),
                Err(error) => Err(describe(&error)),
            };
        }
        let count = if argument.is_empty() { 1 } else { argument.parse().map_err(|_| "write `epoch NUMBER`")? };
        for _ in 0..count {
            if instance.epoch().await.map_err(|error| describe(&error))?.is_none() {
                return Err("no epoch was due".into());
            }
            self.queued.values_mut().for_each(|count| *count = count.saturating_sub(1));
            self.epochs += 1;
            // Rows that were pushed and not taken live in memory only, as with any source that cannot repeat them.
            if self.restarts && self.queued.values().all(|count| *count == 0) {
                let again = if self.epochs.is_multiple_of(2) { instance.crash().await } else { instance.restart().await };
                again.map_err(|error| format!("the engine did not start again: {}", describe(&error)))?;
            }
        }
        Ok(())
    }

    async fn query(&mut self, instance: &Instance, record: &Record) -> StepResult {
        let found = instance.lines(&self.expand(&record.text())).await.map_err(|error| describe(&error))?;
        self.compare(record, if record.argument == "rowsort" { output::sorted(found) } else { found })
    }

    /// `file PATH [append]` and its lines; the clock of the file system stands at one second per file, so that order is known.
    fn file(&mut self, record: &Record) -> StepResult {
        let (path, append) = match record.argument.split_once(' ') {
            Some((path, "append")) => (path, true),
            _ => (record.argument.as_str(), false),
        };
        let path = self.dir.path().join(path);
        self.files_written += 1;
        write_file(&path, append, &record.body, self.files_written).map_err(|error| error.to_string())
    }

    /// `files GLOB`: names only; the restarts of the second run make other files of the same rows.
    fn files(&mut self, record: &Record) -> StepResult {
        if self.restarts {
            return Ok(());
        }
        let found = content::files(self.dir.path(), &record.argument);
        let names = found.iter().map(|path| without_pipeline(&path.strip_prefix(self.dir.path()).unwrap_or(path).to_string_lossy()));
        self.compare(record, names.collect())
    }

    /// `content GLOB [ordered]`: the rows of all files that match.
    fn content(&mut self, record: &Record) -> StepResult {
        let (pattern, ordered) = match record.argument.split_once(' ') {
            Some((pattern, "ordered")) => (pattern, true),
            _ => (record.argument.as_str(), false),
        };
        let mut rows = Vec::new();
        for path in content::files(self.dir.path(), pattern) {
            rows.extend(content::rows(&path)?);
        }
        self.compare(record, if ordered { rows } else { output::sorted(rows) })
    }

    /// Compares what was found with what the record expects, and remembers the difference.
    fn compare(&mut self, record: &Record, found: Vec<String>) -> StepResult {
        let Some(expected) = &record.expected else { return Err("nothing is expected: add a line `----`".into()) };
        let dir = self.dir.path().to_string_lossy().into_owned();
        let found: Vec<String> = found.iter().map(|line| line.replace(&dir, "{dir}").trim_end().to_string()).collect();
        if found == expected.lines {
            return Ok(());
        }
        self.outcome.replacements.push((expected.place.clone(), found.clone()));
        if !support::blessing() {
            self.fail(record.line, &format!("other rows\n{}", output::difference(&expected.lines, &found)));
        }
        Ok(())
    }

    /// Pushes what was held back, then reads all views; the run as written also compares them with batch queries.
    async fn finish(&mut self, instance: &mut Instance) -> StepResult {
        if self.cut != Cut::AsWritten {
            for ((stream, columns), rows) in std::mem::take(&mut self.held_back) {
                let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
                push_rows(instance, &stream, &columns, &rows).await?;
            }
            for stream in &self.ended {
                instance.engine().memory_source(stream).map_err(|error| describe(&error))?.end();
            }
            instance.drain().await.map_err(|error| describe(&error))?;
        }
        if !self.script.has_mode("recut") {
            return Ok(());
        }
        for (view, query) in &self.views {
            let rows = instance.lines(&format!("SELECT * FROM {view}")).await.map_err(|error| describe(&error))?;
            let rows = output::sorted(rows);
            if let Some(query) = query.as_ref().filter(|_| self.cut == Cut::AsWritten && !self.script.has_mode("no-batch")) {
                let batch = instance.lines(query).await.map_err(|error| format!("as a batch, {query}: {}", describe(&error)))?;
                let batch = output::sorted(batch);
                if batch != rows {
                    let difference = output::difference(&batch, &rows);
                    return Err(format!("view \"{view}\" (+) differs from its query run as a batch (-)\n{difference}"));
                }
            }
            self.outcome.views.insert(view.clone(), rows);
        }
        Ok(())
    }

    /// `{dir}` is the script's own directory.
    fn expand(&self, text: &str) -> String {
        text.replace("{dir}", &self.dir.path().to_string_lossy())
    }
}

/// A file name in which the eight digits of the pipeline, which differ from run to run, are `PIPELINE`.
fn without_pipeline(name: &str) -> String {
    let is_pipeline = |part: &&str| part.len() == 8 && part.chars().all(|c| c.is_ascii_hexdigit());
    name.split('-').map(|part| if is_pipeline(&part) { "PIPELINE" } else { part }).collect::<Vec<_>>().join("-")
}

/// Says how two runs of a script differ.
pub(super) fn disagreement(script: &Script, cut: Cut, written: &Views, other: &Views) -> String {
    let mut text = format!("{}: the final views differ when cut as {cut:?} (+)\n", script.path.display());
    for (view, rows) in written {
        let found = other.get(view).cloned().unwrap_or_default();
        if found != *rows {
            text += &format!("  view {view}\n{}", output::difference(rows, &found));
        }
    }
    text
}

/// Message and hint, as one line.
fn describe(error: &EngineError) -> String {
    match error.hint() {
        Some(hint) => format!("{error} ({hint})"),
        None => error.to_string(),
    }
}

/// Pushes rows whose values stand in the order of `columns`, or of the stream's columns where none are named.
async fn push_rows(instance: &Instance, stream: &str, columns: &[&str], rows: &[String]) -> StepResult {
    let mut schema = instance.engine().memory_source(stream).map_err(|error| describe(&error))?.schema();
    if !columns.is_empty() {
        let order = columns.iter().map(|name| schema.index_of(name)).collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
        schema = Arc::new(schema.project(&order).map_err(|error| error.to_string())?);
    }
    let batch = input::batch(&schema, rows)?;
    instance.push(stream, batch).await.map_err(|error| describe(&error))
}

fn duration(text: &str) -> Result<Duration, String> {
    millstream_types::options::parse_duration(text).ok_or_else(|| format!("`{text}` is not a duration"))
}

/// A line `\` stands for an empty one.
fn write_file(path: &Path, append: bool, lines: &[String], number: u64) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file: File = OpenOptions::new().create(true).write(true).append(append).truncate(!append).open(path)?;
    for line in lines {
        writeln!(file, "{}", if line == "\\" { "" } else { line })?;
    }
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(946_684_800 + number))
}
