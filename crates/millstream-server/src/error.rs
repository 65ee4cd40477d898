//! Errors as clients see them: a SQLSTATE, a message, what to do, and the place in the statement.
//!
//! The codes are PostgreSQL's, for every protocol alike, so that a program tells a wrong name from a lost server in one way.
//! **Reference**: PostgreSQL documentation, appendix A.

use millstream_engine::EngineError;
use millstream_sql::SqlError;
use millstream_types::{Classified, ErrorKind};

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The configuration is not safe or not right.
    #[error("{message}")]
    Configuration {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: String,
    },
}

impl ServerError {
    pub(crate) fn configuration(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Configuration { message: message.into(), hint: hint.into() }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Listen { .. } => Some("Choose another address, or stop what listens there."),
            Self::Configuration { hint, .. } => (!hint.is_empty()).then_some(hint),
        }
    }
}

/// An error of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestError {
    /// The SQLSTATE.
    pub(crate) code: &'static str,
    /// What is wrong.
    pub(crate) message: String,
    /// What to do.
    pub(crate) hint: Option<String>,
    /// Line and column in the statement, from 1.
    pub(crate) place: Option<(u64, u64)>,
}

/// Codes that a request gets for reasons of its own.
pub(crate) mod codes {
    pub(crate) const PROTOCOL: &str = "08P01";
    pub(crate) const NOT_SUPPORTED: &str = "0A000";
    pub(crate) const BAD_VALUE: &str = "22P02";
    pub(crate) const WRONG_PARAMETERS: &str = "08P01";
    pub(crate) const NO_STATEMENT: &str = "26000";
    pub(crate) const NO_CURSOR: &str = "34000";
    pub(crate) const DUPLICATE_CURSOR: &str = "42P03";
    pub(crate) const DUPLICATE_STATEMENT: &str = "42P05";
    pub(crate) const BAD_AUTHORIZATION: &str = "28000";
    pub(crate) const BAD_PASSWORD: &str = "28P01";
    pub(crate) const NO_PRIVILEGE: &str = "42501";
    pub(crate) const CANCELED: &str = "57014";
    pub(crate) const SHUTDOWN: &str = "57P01";
    pub(crate) const TOO_MANY_CONNECTIONS: &str = "53300";
    pub(crate) const TOO_LARGE: &str = "54000";
    pub(crate) const BAD_COPY: &str = "22P04";
    pub(crate) const SYNTAX: &str = "42601";
}

impl RequestError {
    pub(crate) fn new(code: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        Self { code, message: message.into(), hint: (!hint.is_empty()).then_some(hint), place: None }
    }

    /// The place as an index into `text`, in characters from 1, as PostgreSQL counts; `offset` is where the statement begins in it.
    pub(crate) fn position(&self, text: &str, offset: usize) -> Option<usize> {
        let (line, column) = self.place?;
        let statement = text.get(offset..)?;
        let before = text[..offset].chars().count();
        let lines: usize =
            statement.split('\n').take(usize::try_from(line).ok()?.checked_sub(1)?).map(|line| line.chars().count() + 1).sum();
        Some(before + lines + usize::try_from(column).ok()?)
    }
}

impl From<EngineError> for RequestError {
    fn from(error: EngineError) -> Self {
        let message = match &error {
            // Its message is its cause's own.
            EngineError::State(_) | EngineError::Plan(_) | EngineError::Dataflow(_) => error.to_string(),
            error => {
                let mut message = error.to_string();
                let mut cause = std::error::Error::source(error);
                while let Some(source) = cause {
                    let text = source.to_string();
                    if !message.contains(&text) {
                        message.push_str(": ");
                        message.push_str(&text);
                    }
                    cause = source.source();
                }
                message
            }
        };
        Self { code: code_of(&error, &message), hint: error.hint(), place: error.position(), message }
    }
}

impl From<SqlError> for RequestError {
    fn from(error: SqlError) -> Self {
        EngineError::from(error).into()
    }
}

impl From<arrow::error::ArrowError> for RequestError {
    fn from(error: arrow::error::ArrowError) -> Self {
        EngineError::from(error).into()
    }
}

/// Parts of messages and their codes; the first that fits counts.
const CODES: &[(&str, &str, &str)] = &[
    ("outside of the directories that statements may reach", "", "42501"),
    ("user \"", "\" does not exist", "42704"),
    ("user \"", "\" exists already", "42710"),
    ("relation \"", "does not exist", "42P01"),
    ("column \"", "does not exist", "42703"),
    ("has no column \"", "", "42703"),
    ("function ", "does not exist", "42883"),
    ("the operation ", "does not exist", "42883"),
    ("", "is ambiguous", "42702"),
    ("", "must appear in the GROUP BY", "42803"),
    ("", "appears twice in the result", "42701"),
    ("", "is given twice", "42701"),
    ("", "is assigned twice", "42701"),
    ("\" exists already", "", "42P07"),
    ("already has a row with the key", "", "23505"),
    ("must not be NULL", "", "23502"),
    ("the transaction was rolled back: ", "changed since BEGIN", "40001"),
    ("the table changes too often", "", "40001"),
    ("a transaction holds only", "", "25001"),
    ("unknown setting", "", "42704"),
    ("ivide by zero", "", "22012"),
    ("ivision by zero", "", "22012"),
    ("verflow", "", "22003"),
    ("does not fit", "", "22003"),
    ("is not a whole number", "", "22003"),
    ("cannot be represented", "", "22003"),
    ("Cannot cast string", "", "22P02"),
    ("Error parsing", "", "22P02"),
    ("Parser error", "", "22P02"),
    ("Resources exhausted", "", "53200"),
    ("is not in this build", "", "0A000"),
    ("is not supported", "", "0A000"),
    ("are not supported", "", "0A000"),
    ("gives ", " values for ", "42601"),
    ("pipeline is paused", "", "55000"),
    ("was cut off", "", "55000"),
];

fn code_of(error: &EngineError, message: &str) -> &'static str {
    let found = CODES.iter().find(|(start, rest, _)| match message.find(start) {
        Some(at) => message[at..].contains(rest),
        None => false,
    });
    match (found, error.kind()) {
        _ if matches!(error, EngineError::Denied { .. }) => codes::NO_PRIVILEGE,
        _ if matches!(error, EngineError::Limit { .. }) => codes::TOO_LARGE,
        (_, ErrorKind::Unavailable) => "57P03",
        (_, ErrorKind::Corrupt) => "XX001",
        (Some((_, _, code)), _) => code,
        (None, ErrorKind::Data) => "22000",
        (None, ErrorKind::Internal) => "XX000",
        (None, ErrorKind::Invalid) => match error {
            EngineError::Sql(_) => codes::SYNTAX,
            EngineError::Option(_) => "22023",
            _ => "42000",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_engine::Engine;

    #[tokio::test(flavor = "multi_thread")]
    async fn errors_have_the_codes_of_postgresql() {
        let engine = Engine::builder().manual().build().await.unwrap();
        let session = engine.session();
        session.execute("CREATE TABLE t (id BIGINT PRIMARY KEY, word VARCHAR NOT NULL)").await.unwrap();
        session.execute("INSERT INTO t VALUES (1, 'a')").await.unwrap();
        for (sql, code) in [
            ("SELEC 1", "42601"),
            ("SELECT 1 +", "42601"),
            ("SELECT * FROM nosuch", "42P01"),
            ("SELECT nosuch FROM t", "42703"),
            ("SELECT nosuch(1)", "42883"),
            ("SELECT upper(1, 2)", "42883"),
            ("SELECT id FROM t AS a JOIN t AS b ON true", "42702"),
            ("SELECT word, count(*) FROM t GROUP BY id", "42803"),
            ("INSERT INTO t VALUES (1, 'b')", "23505"),
            ("INSERT INTO t VALUES (2, NULL)", "23502"),
            ("INSERT INTO t (id, wrd) VALUES (2, 'x')", "42703"),
            ("INSERT INTO t VALUES (2)", "42601"),
            ("CREATE TABLE t (a BIGINT)", "42P07"),
            ("SET nosuch = 1", "42704"),
            ("SHOW nosuch", "42704"),
            ("SELECT 1 / 0", "22012"),
            ("SELECT 10 / (id - 1) FROM t", "22012"),
            ("SELECT 9223372036854775807 + id FROM t", "22003"),
            ("SELECT CAST(word AS BIGINT) FROM t", "22P02"),
        ] {
            let outcome = match session.execute(sql).await {
                Ok(result) => result.collect().await.map(drop),
                Err(error) => Err(error),
            };
            let error = RequestError::from(outcome.unwrap_err());
            assert_eq!(error.code, code, "{sql}: {}", error.message);
        }
    }

    #[test]
    fn positions_count_characters_of_the_whole_text() {
        let mut error = RequestError::new(codes::SYNTAX, "x", "");
        error.place = Some((2, 3));
        assert_eq!(error.position("é;ab\ncdef", "é;".len()), Some(2 + 3 + 3));
    }
}
