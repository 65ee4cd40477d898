//! The interactive shell: reads statements and meta commands, executes them, shows what they give.
//!
//! Ctrl-C cancels the running statement, or drops what is being typed; Ctrl-D or `\q` leaves. A statement that fails ends
//! the input it came with, and nothing else. What happens in the background is told above the prompt.

mod background;
mod commands;
pub(crate) mod completer;
pub(crate) mod editor;
pub(crate) mod highlighter;
pub(crate) mod history;
pub(crate) mod lexer;
pub(crate) mod meta;
pub(crate) mod vocabulary;

use crate::failure::{DONE, Failure};
use crate::interrupt::{Interrupt, interruptible};
use crate::message;
use crate::numbers;
use crate::present::{Presenter, Shown, print_error};
use crate::script;
use crate::settings::{Settings, user_directory};
use crate::terminal::Terminal;
use editor::{Editor, Input};
use millstream_engine::{Engine, EngineError, Session, Stopwatch};
use millstream_sql::Statement;
use millstream_sql::statement::Emit;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use vocabulary::{Relation, SharedVocabulary, Vocabulary};

/// The shell's state.
pub(crate) struct Shell {
    engine: Engine,
    session: Session,
    presenter: Presenter,
    vocabulary: SharedVocabulary,
    functions: BTreeSet<String>,
    variables: BTreeMap<String, String>,
    timing: bool,
    last: Option<String>,
}

/// What comes after an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Read on.
    Continue,
    /// Leave.
    Quit,
}

/// Runs the shell until the user leaves.
///
/// # Errors
/// When the terminal cannot be read or written.
pub(crate) async fn run(
    engine: Engine,
    presenter: Presenter,
    settings: &Settings,
    variables: BTreeMap<String, String>,
) -> anyhow::Result<u8> {
    let vocabulary = SharedVocabulary::default();
    let color = Terminal::stdout().color;
    let mut editor = Editor::new(&vocabulary, color, settings.history_size.unwrap_or(history::SIZE), history_file(settings).as_deref())?;
    let background = tokio::spawn(background::tell(engine.clone(), editor.printer()));
    let session = engine.session();
    let functions = function_names(&engine);
    let mut shell =
        Shell { engine, session, presenter, vocabulary, functions, variables, timing: settings.timing.unwrap_or(false), last: None };
    if shell.presenter.talkative {
        shell.presenter.write(&format!("Millstream {}. \\? lists commands, \\h explains SQL, \\q leaves.\n", env!("CARGO_PKG_VERSION")))?;
    }
    shell.refresh();
    loop {
        let input = tokio::task::block_in_place(|| editor.read())?;
        let next = match input {
            Input::Cancelled => Next::Continue,
            Input::End => Next::Quit,
            Input::Text(text) if text.trim().is_empty() => Next::Continue,
            Input::Text(text) if meta::is_meta(&text) => commands::execute(&mut shell, &text).await?,
            Input::Text(text) => {
                shell.statements(&text, None).await?;
                Next::Continue
            }
        };
        shell.refresh();
        if next == Next::Quit {
            break;
        }
    }
    background.abort();
    // A pipeline that failed has been reported already.
    let _ = script::stop(&shell.engine).await;
    Ok(DONE)
}

/// Where the history is kept: the setting, else the user's state directory.
fn history_file(settings: &Settings) -> Option<PathBuf> {
    match &settings.history_file {
        Some(file) if file.as_os_str().is_empty() => None,
        Some(file) => Some(file.clone()),
        None => user_directory("XDG_STATE_HOME", ".local/state").map(|directory| directory.join("history")),
    }
}

fn function_names(engine: &Engine) -> BTreeSet<String> {
    let state = engine.session_context().state();
    state.scalar_functions().keys().chain(state.aggregate_functions().keys()).chain(state.window_functions().keys()).cloned().collect()
}

/// A statement whose rows go on until it is cancelled.
fn is_endless(statement: &Statement) -> bool {
    match statement {
        Statement::Query(query) => query.emit != Emit::None,
        Statement::Subscribe(_) => true,
        _ => false,
    }
}

impl Shell {
    /// Executes statements until one fails; `name` is the file they come from. `false` when one failed or was cancelled.
    ///
    /// # Errors
    /// When the output cannot be written, or the process was asked to end.
    pub(crate) async fn statements(&mut self, text: &str, name: Option<&str>) -> anyhow::Result<bool> {
        let text = millstream_sql::variables::substitute(text, &self.variables);
        for parsed in millstream_sql::parse_script(&text) {
            let parsed = match parsed {
                Ok(parsed) => parsed,
                Err(error) => {
                    print_error(&error.render(&text, name));
                    return Ok(false);
                }
            };
            let endless = is_endless(&parsed.statement);
            if name.is_none() && !endless {
                self.last = Some(parsed.text.to_string());
            }
            if !self.statement(parsed.statement, parsed.text, name, parsed.first_line, endless).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn statement(&mut self, statement: Statement, text: &str, name: Option<&str>, line: u64, endless: bool) -> anyhow::Result<bool> {
        let watch = Stopwatch::start();
        let (session, presenter) = (&self.session, &mut self.presenter);
        let work = async {
            match script::execute_aside(session, statement).await {
                Ok(result) => presenter.show(result).await,
                Err(error) => Err(error.into()),
            }
        };
        match interruptible(work).await? {
            Ok(Ok(shown)) => {
                self.tell_time(watch, shown);
                Ok(true)
            }
            Ok(Err(error)) => match error.downcast_ref::<EngineError>() {
                Some(engine) => {
                    print_error(&script::rendered(engine, text, name, line));
                    Ok(false)
                }
                None => Err(error),
            },
            Err(Interrupt::Int) => {
                // The terminal has echoed ^C.
                message::line(if endless { "" } else { "\ncancelled" });
                Ok(false)
            }
            Err(Interrupt::Term) => {
                script::stop(&self.engine).await?;
                Err(Failure::silent(Interrupt::Term.code()).into())
            }
        }
    }

    fn tell_time(&self, watch: Stopwatch, shown: Shown) {
        if !self.timing {
            return;
        }
        let elapsed = watch.elapsed();
        let mut text = format!("time: {}", numbers::duration(elapsed));
        if shown.rows > 0 {
            let rate = numbers::rate(shown.rows, elapsed).map_or(String::new(), |rate| format!(", {rate}"));
            text.push_str(&format!(" ({}{rate})", numbers::rows(usize::try_from(shown.rows).unwrap_or(usize::MAX))));
        }
        message::line(&text);
    }

    /// Tells the editor what the catalog holds now.
    fn refresh(&self) {
        let relations = self.engine.catalog().into_iter().map(|entry| Relation {
            columns: entry
                .schema
                .fields()
                .iter()
                .map(|field| (field.name().clone(), crate::output::cells::sql_type(field.data_type())))
                .collect(),
            kind: entry.kind.to_string(),
            name: entry.name,
        });
        let settings = self.session.settings().into_iter().map(|setting| (setting.name.to_string(), setting.doc.to_string()));
        self.vocabulary.replace(Vocabulary {
            relations: relations.collect(),
            functions: self.functions.clone(),
            settings: settings.collect(),
        });
    }
}
