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

use crate::connection::{Connection, Read};
use crate::failure::{DONE, Failure};
use crate::interrupt::{Interrupt, interruptible};
use crate::message;
use crate::numbers;
use crate::present::{Presenter, Shown, print_error};
use crate::script;
use crate::settings::{Settings, user_directory};
use crate::terminal::Terminal;
use editor::{Editor, Input};
use millstream_engine::{EngineError, Stopwatch};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use vocabulary::{Relation, SharedVocabulary, Vocabulary};

/// The shell's state.
pub(crate) struct Shell {
    connection: Connection,
    presenter: Presenter,
    vocabulary: SharedVocabulary,
    functions: BTreeSet<String>,
    settings: Vec<(String, String)>,
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
    connection: Connection,
    presenter: Presenter,
    settings: &Settings,
    variables: BTreeMap<String, String>,
) -> anyhow::Result<u8> {
    let vocabulary = SharedVocabulary::default();
    let color = Terminal::stdout().color;
    let mut editor = Editor::new(&vocabulary, color, settings.history_size.unwrap_or(history::SIZE), history_file(settings).as_deref())?;
    let background = connection.engine().map(|engine| tokio::spawn(background::tell(engine.clone(), editor.printer())));
    let (functions, options) = (connection.functions().await?, connection.settings().await?);
    let timing = settings.timing.unwrap_or(false);
    let mut shell = Shell { connection, presenter, vocabulary, functions, settings: options, variables, timing, last: None };
    if shell.presenter.talkative {
        shell.presenter.write(&format!("Millstream {}. \\? lists commands, \\h explains SQL, \\q leaves.\n", env!("CARGO_PKG_VERSION")))?;
    }
    shell.refresh().await;
    // A statement that is not finished, while a command is carried out.
    let mut begun = String::new();
    loop {
        let input = tokio::task::block_in_place(|| editor.read(&std::mem::take(&mut begun)))?;
        let next = match input {
            Input::Cancelled => Next::Continue,
            Input::End => Next::Quit,
            Input::Text(text) if text.trim().is_empty() => Next::Continue,
            Input::Text(text) if meta::is_meta(&text) => commands::execute(&mut shell, &text).await?,
            Input::Text(text) => match meta::split_command(&text) {
                None => {
                    shell.statements(&text, None).await?;
                    Next::Continue
                }
                Some((before, command)) => {
                    if millstream_sql::split::is_complete(before) {
                        shell.statements(before, None).await?;
                    } else {
                        begun = before.to_string();
                    }
                    commands::execute(&mut shell, command).await?
                }
            },
        };
        shell.refresh().await;
        if next == Next::Quit {
            break;
        }
    }
    if let Some(background) = background {
        background.abort();
    }
    if let Some(engine) = shell.connection.engine() {
        // A pipeline that failed has been reported already.
        let _ = script::stop(engine).await;
    }
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

impl Shell {
    /// Executes statements until one fails; `name` is the file they come from. `false` when one failed or was cancelled.
    ///
    /// # Errors
    /// When the output cannot be written, or the process was asked to end.
    pub(crate) async fn statements(&mut self, text: &str, name: Option<&str>) -> anyhow::Result<bool> {
        let text = millstream_sql::variables::substitute(text, &self.variables);
        for read in self.connection.read(&text) {
            let read = match read {
                Ok(read) => read,
                Err(error) => {
                    print_error(&error.render(&text, name));
                    return Ok(false);
                }
            };
            if name.is_none() && !read.is_endless() {
                self.last = Some(read.text.to_string());
            }
            if !self.statement(read, name).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn statement(&mut self, read: Read<'_>, name: Option<&str>) -> anyhow::Result<bool> {
        let watch = Stopwatch::start();
        let (text, line, endless) = (read.text, read.first_line, read.is_endless());
        let (connection, presenter) = (&self.connection, &mut self.presenter);
        let work = async {
            match connection.execute(read).await {
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
                if let Some(engine) = self.connection.engine() {
                    script::stop(engine).await?;
                }
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

    /// Tells the editor what the catalog holds now. A server that is gone is told of by the next statement.
    async fn refresh(&self) {
        let Ok(entries) = self.connection.catalog().await else { return };
        let relations = entries.into_iter().map(|entry| Relation {
            columns: entry
                .schema
                .fields()
                .iter()
                .map(|field| (field.name().clone(), crate::output::cells::sql_type(field.data_type())))
                .collect(),
            kind: entry.kind,
            name: entry.name,
        });
        self.vocabulary.replace(Vocabulary {
            relations: relations.collect(),
            functions: self.functions.clone(),
            settings: self.settings.to_vec(),
        });
    }
}
