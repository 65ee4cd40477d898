//! The line editor: whole statements over several lines, history with Ctrl-R, completion, colours, hints.

use super::completer::SqlCompleter;
use super::highlighter::SqlHighlighter;
use super::history::CarefulHistory;
use super::meta::{is_meta, split_command};
use super::vocabulary::SharedVocabulary;
use reedline::{
    Color, ColumnarMenu, DefaultHinter, EditCommand, Emacs, ExternalPrinter, KeyCode, KeyModifiers, ListMenu, MenuBuilder, Prompt,
    PromptEditMode, PromptHistorySearch, PromptHistorySearchStatus, Reedline, ReedlineEvent, ReedlineMenu, Signal, ValidationResult,
    Validator, default_emacs_keybindings,
};
use std::borrow::Cow;
use std::path::Path;
use std::sync::mpsc::SyncSender;

const COMPLETION_MENU: &str = "completion";
const HISTORY_MENU: &str = "history";

/// What the user did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    /// Statements or a meta command.
    Text(String),
    /// Ctrl-C: what was typed is dropped.
    Cancelled,
    /// Ctrl-D on an empty line.
    End,
}

/// The editor.
pub(crate) struct Editor {
    reedline: Reedline,
    prompt: ShellPrompt,
    printer: SyncSender<String>,
}

impl Editor {
    /// An editor that completes from `vocabulary` and remembers in `history_file`, where one is given.
    ///
    /// # Errors
    /// When the history cannot be opened.
    pub(crate) fn new(
        vocabulary: &SharedVocabulary,
        color: bool,
        history_size: usize,
        history_file: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let mut keys = default_emacs_keybindings();
        let menu = |name: &str| ReedlineEvent::UntilFound(vec![ReedlineEvent::Menu(name.into()), ReedlineEvent::MenuNext]);
        keys.add_binding(KeyModifiers::NONE, KeyCode::Tab, menu(COMPLETION_MENU));
        keys.add_binding(KeyModifiers::SHIFT, KeyCode::BackTab, ReedlineEvent::MenuPrevious);
        keys.add_binding(KeyModifiers::ALT, KeyCode::Enter, ReedlineEvent::Edit(vec![EditCommand::InsertNewline]));
        keys.add_binding(KeyModifiers::CONTROL, KeyCode::Char('x'), menu(HISTORY_MENU));
        let printer = ExternalPrinter::default();
        let sender = printer.sender();
        let history = CarefulHistory::open(history_size, history_file)?;
        let completion_menu = ColumnarMenu::default().with_name(COMPLETION_MENU).with_columns(4).with_column_padding(2);
        let reedline = Reedline::create()
            .with_validator(Box::new(StatementValidator))
            .with_highlighter(Box::new(SqlHighlighter::new(vocabulary.clone(), color)))
            .with_completer(Box::new(SqlCompleter::new(vocabulary.clone())))
            .with_hinter(Box::new(DefaultHinter::default().with_style(Color::DarkGray.normal())))
            .with_history(Box::new(history))
            .with_menu(ReedlineMenu::EngineCompleter(Box::new(completion_menu)))
            .with_menu(ReedlineMenu::HistoryMenu(Box::new(ListMenu::default().with_name(HISTORY_MENU))))
            .with_edit_mode(Box::new(Emacs::new(keys)))
            .with_external_printer(printer)
            .with_ansi_colors(color)
            .with_partial_completions(true)
            .with_quick_completions(true)
            .use_bracketed_paste(true);
        Ok(Self { reedline, prompt: ShellPrompt, printer: sender })
    }

    /// Prints lines above the prompt while the user types.
    pub(crate) fn printer(&self) -> SyncSender<String> {
        self.printer.clone()
    }

    /// Waits for the next input, which goes on with what was `begun`; blocks the thread.
    ///
    /// # Errors
    /// When the terminal cannot be read.
    pub(crate) fn read(&mut self, begun: &str) -> anyhow::Result<Input> {
        if !begun.is_empty() {
            self.reedline.run_edit_commands(&[EditCommand::InsertString(begun.to_string())]);
        }
        let signal = self.reedline.read_line(&self.prompt)?;
        // A history file that cannot be written is no reason to refuse statements.
        let _ = self.reedline.sync_history();
        Ok(match signal {
            Signal::Success(text) | Signal::HostCommand(text) => Input::Text(text),
            Signal::CtrlD => Input::End,
            _ => Input::Cancelled,
        })
    }
}

struct StatementValidator;

impl Validator for StatementValidator {
    fn validate(&self, line: &str) -> ValidationResult {
        let is_complete = is_meta(line) || split_command(line).is_some() || millstream_sql::split::is_complete(line);
        if is_complete { ValidationResult::Complete } else { ValidationResult::Incomplete }
    }
}

struct ShellPrompt;

impl Prompt for ShellPrompt {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        Cow::Borrowed("millstream")
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_indicator(&self, _mode: PromptEditMode) -> Cow<'_, str> {
        Cow::Borrowed("> ")
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        Cow::Borrowed("       ...> ")
    }

    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> Cow<'_, str> {
        let state = match search.status {
            PromptHistorySearchStatus::Passing => "",
            PromptHistorySearchStatus::Failing => "nothing found, ",
        };
        Cow::Owned(format!("({state}search: {}) ", search.term))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_end_with_a_semicolon_and_commands_with_the_line() {
        let complete = |line| matches!(StatementValidator.validate(line), ValidationResult::Complete);
        assert!(complete("SELECT 1;") && complete("\\d bids") && complete("SELECT 1\n\\x") && complete(".tables") && complete(""));
        assert!(!complete("SELECT 1") && !complete("SELECT ';") && !complete("CREATE VIEW v AS\nSELECT 1"));
    }
}
