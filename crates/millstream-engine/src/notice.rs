//! Notices: what a statement has to tell although it succeeded.

use parking_lot::Mutex;
use std::sync::Arc;

/// How much a notice matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Good to know.
    Notice,
    /// Probably not what was meant.
    Warning,
}

/// Something a statement has to tell although it succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// How much it matters.
    pub severity: Severity,
    /// What is so.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Notice {
    /// Good to know; an empty hint is none.
    pub fn info(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Severity::Notice, message.into(), hint.into())
    }

    /// Probably not what was meant; an empty hint is none.
    pub fn warning(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Severity::Warning, message.into(), hint.into())
    }

    fn new(severity: Severity, message: String, hint: String) -> Self {
        Self { severity, message, hint: (!hint.is_empty()).then_some(hint) }
    }
}

impl std::fmt::Display for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.severity {
            Severity::Notice => "notice: ",
            Severity::Warning => "warning: ",
        })?;
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Notices that a query has when its rows have been read.
#[derive(Debug, Clone, Default)]
pub struct LateNotices(Arc<Mutex<Vec<Notice>>>);

impl LateNotices {
    pub(crate) fn push(&self, notice: Notice) {
        self.0.lock().push(notice);
    }

    /// Those that have come since the last call.
    pub fn take(&self) -> Vec<Notice> {
        std::mem::take(&mut *self.0.lock())
    }
}
