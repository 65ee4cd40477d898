//! Notices: what a statement has to tell although it succeeded.

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
