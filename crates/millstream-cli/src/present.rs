//! Shows the results of statements: rows, changes, tags and notices.
//!
//! Results go to standard output (or the file of `\o`), everything else to standard error.

use crate::interrupt::AsideStream;
use crate::live;
use crate::numbers;
use crate::output::{Printed, RowWriter, Style, pager};
use crate::settings::{Live, Settings};
use crate::terminal::{Terminal, escape_keeping_lines};
use crate::{failure, message};
use millstream_engine::{Notice, Output, Rows, StatementResult};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Where results go.
enum Target {
    Stdout,
    File(BufWriter<File>),
}

/// How results are shown and where they go.
pub(crate) struct Presenter {
    /// The style; its width follows the window.
    pub(crate) style: Style,
    /// The format was asked for, not chosen by where the output goes.
    pub(crate) format_is_chosen: bool,
    /// How live queries are shown on a terminal.
    pub(crate) live: Live,
    /// Long results go through a pager.
    pub(crate) pager: bool,
    /// Tags such as `CREATE STREAM` and notices are shown.
    pub(crate) talkative: bool,
    /// A person sits at the terminal: results come with row counts, tags go to standard output.
    pub(crate) interactive: bool,
    target: Target,
}

/// What a statement gave, for `\timing`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Rows of the result.
    pub(crate) rows: u64,
}

impl Presenter {
    /// A presenter for standard output as the settings say; `format` is the flag's.
    pub(crate) fn new(settings: &Settings, format: Option<crate::output::Format>, quiet: bool, interactive: bool) -> Self {
        let terminal = Terminal::stdout();
        let mut style = Style::for_output(terminal, format.or(settings.format));
        if let Some(null) = &settings.null {
            style.null.clone_from(null);
        }
        if let Some(expanded) = settings.expanded {
            style.expanded = expanded;
        }
        let format_is_chosen = format.or(settings.format).is_some();
        let pager = settings.pager.unwrap_or(interactive) && terminal.is_terminal;
        Self {
            style,
            format_is_chosen,
            live: settings.live.unwrap_or(Live::Table),
            pager,
            talkative: !quiet,
            interactive,
            target: Target::Stdout,
        }
    }

    /// Sends results to a file from now on, or to standard output again.
    ///
    /// # Errors
    /// When the file cannot be made, or the last one not be written.
    pub(crate) fn redirect(&mut self, path: Option<&Path>) -> anyhow::Result<()> {
        let target = match path {
            Some(path) => Target::File(BufWriter::new(File::create(path)?)),
            None => Target::Stdout,
        };
        if let Target::File(mut file) = std::mem::replace(&mut self.target, target) {
            file.flush()?;
        }
        Ok(())
    }

    /// The style for the next result: the window may have changed, and a file takes everything as it is.
    pub(crate) fn current_style(&self) -> Style {
        let mut style = self.style.clone();
        match self.target {
            Target::Stdout => style.width = Terminal::stdout().width,
            Target::File(_) => {
                style.width = None;
                style.color = false;
                style.escape = false;
            }
        }
        style
    }

    /// Writes text to where results go.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write(&mut self, text: &str) -> std::io::Result<()> {
        match &mut self.target {
            Target::Stdout => {
                let mut stdout = std::io::stdout().lock();
                stdout.write_all(text.as_bytes())?;
                stdout.flush()
            }
            Target::File(file) => {
                file.write_all(text.as_bytes())?;
                file.flush()
            }
        }
    }

    /// Shows a result to its end: a live query runs until it ends or the caller drops the call.
    ///
    /// # Errors
    /// When the query fails or the output cannot be written.
    pub(crate) async fn show(&mut self, result: StatementResult) -> anyhow::Result<Shown> {
        for notice in &result.notices {
            self.notice(notice);
        }
        match result.output {
            Output::None => {
                self.tag(&result.tag)?;
                Ok(Shown::default())
            }
            Output::Rows(rows) => self.rows(rows).await,
            Output::Changes(subscription) => {
                let rows = live::show(self, subscription).await?;
                Ok(Shown { rows })
            }
        }
    }

    /// Shows a notice on standard error.
    pub(crate) fn notice(&self, notice: &Notice) {
        if self.talkative {
            message::line(&escape_keeping_lines(&notice.to_string()));
        }
    }

    /// Shows what was done: to a person on standard output, else on standard error.
    fn tag(&mut self, tag: &str) -> anyhow::Result<()> {
        if self.interactive {
            self.write(&format!("{tag}\n"))?;
        }
        Ok(())
    }

    async fn rows(&mut self, rows: Rows) -> anyhow::Result<Shown> {
        let late = rows.late_notices();
        let style = self.current_style();
        let for_people = style.format.is_for_people();
        let mut writer = RowWriter::new(style, rows.schema());
        let mut stream = AsideStream::new(rows.into_stream());
        let mut buffer = Vec::new();
        while let Some(batch) = stream.next().await {
            writer.write(&mut buffer, &batch?)?;
            if !buffer.is_empty() && !self.pages() {
                let text = String::from_utf8_lossy(&buffer).into_owned();
                self.write(&text)?;
                buffer.clear();
            }
        }
        let printed: Printed = writer.finish(&mut buffer)?;
        if self.interactive && for_people {
            writeln!(buffer, "({})", numbers::rows(printed.rows))?;
        }
        let text = String::from_utf8_lossy(&buffer).into_owned();
        let too_long = self.pages() && Terminal::stdout().height.is_some_and(|height| text.lines().count() >= height);
        if !(too_long && pager::show(&text)) {
            self.write(&text)?;
        }
        if let Some(cut) = printed.notice.filter(|_| self.talkative) {
            message::line(&format!("notice: {cut}"));
        }
        for notice in late.take() {
            self.notice(&notice);
        }
        Ok(Shown { rows: printed.rows as u64 })
    }

    fn pages(&self) -> bool {
        self.pager && self.interactive && matches!(self.target, Target::Stdout)
    }

    /// Whether results go to a terminal now.
    pub(crate) fn is_on_terminal(&self) -> bool {
        matches!(self.target, Target::Stdout) && Terminal::stdout().is_terminal
    }
}

/// Prints an error of a statement on standard error.
pub(crate) fn print_error(rendered: &str) {
    failure::print_error(&escape_keeping_lines(rendered));
}
