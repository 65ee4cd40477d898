//! Who may connect, and what they may do.
//!
//! | role | may |
//! | --- | --- |
//! | reader | SELECT, SUBSCRIBE, SHOW, EXPLAIN |
//! | writer | also INSERT, UPDATE, DELETE, TRUNCATE, COPY FROM STDIN |
//! | admin | everything: definitions, settings, files and hosts that statements name |
//!
//! Passwords are kept as SCRAM-SHA-256 verifiers in the form PostgreSQL has for them, tokens as SHA-256 hashes: neither file nor memory has
//! anything to log in with.

use crate::error::{RequestError, ServerError, codes};
use crate::scram::Verifier;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use millstream_sql::Statement;
use millstream_sql::statement::{CopySource, CopyTarget, Emit, Explain, Subscribe, SubscribeSource};
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use sqlparser::ast::{self, ObjectName, ObjectNamePart, visit_relations};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// What a user may do; each role includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Read relations.
    Reader,
    /// Change tables and push rows into streams.
    Writer,
    /// Everything.
    Admin,
}

impl Role {
    fn word(self) -> &'static str {
        match self {
            Role::Reader => "reader",
            Role::Writer => "writer",
            Role::Admin => "admin",
        }
    }
}

/// A user as the users file has one.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserEntry {
    /// The name.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// The verifier of the password for the PostgreSQL protocol and Arrow Flight SQL: `SCRAM-SHA-256$4096:salt$stored:server`.
    #[serde(default)]
    pub password: Option<String>,
    /// SHA-256 hashes, in hexadecimal, of tokens for HTTP and Arrow Flight SQL.
    #[serde(default)]
    pub tokens: Vec<String>,
}

impl UserEntry {
    /// A user without credentials.
    pub fn new(name: impl Into<String>, role: Role) -> Self {
        Self { name: name.into(), role, password: None, tokens: Vec::new() }
    }

    /// The same user with a password.
    #[must_use]
    pub fn with_password(mut self, password: &str) -> Self {
        self.password = Some(Verifier::of(password).to_string());
        self
    }

    /// The same user with a token.
    #[must_use]
    pub fn with_token(mut self, token: &str) -> Self {
        self.tokens.push(hash(token));
        self
    }
}

/// A token that nobody can guess.
pub fn new_token() -> String {
    let bytes: [u8; 24] = crate::scram::random();
    format!("ms_{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// A client that is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    /// The name.
    pub(crate) name: String,
    /// What they may do.
    pub(crate) role: Role,
}

/// Everybody who may connect.
#[derive(Debug, Default)]
pub(crate) struct Users {
    by_name: BTreeMap<String, (Role, Option<Verifier>)>,
    by_token: BTreeMap<String, User>,
}

impl Users {
    /// The users of a file.
    ///
    /// # Errors
    /// A name that is there twice, or a credential in the wrong form.
    pub(crate) fn new(entries: &[UserEntry]) -> Result<Self, ServerError> {
        let mut users = Self::default();
        for entry in entries {
            let wrong = |what: &str, hint: &str| Err(ServerError::configuration(format!("user \"{}\" {what}", entry.name), hint));
            let verifier = match &entry.password {
                None => None,
                Some(text) => match Verifier::parse(text) {
                    Some(verifier) => Some(verifier),
                    None => return wrong("has a password in the wrong form", "`millstream user NAME` makes an entry of the file."),
                },
            };
            for token in &entry.tokens {
                if token.len() != 64 || !token.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return wrong("has a token that is no SHA-256 hash", "`millstream user NAME` makes an entry of the file.");
                }
                let user = User { name: entry.name.clone(), role: entry.role };
                if users.by_token.insert(token.to_lowercase(), user).is_some() {
                    return wrong("has the token of another user", "Give each user tokens of their own.");
                }
            }
            if users.by_name.insert(entry.name.clone(), (entry.role, verifier)).is_some() {
                return wrong("is there twice", "Keep one entry.");
            }
        }
        Ok(users)
    }

    /// All names, and who may do everything.
    pub(crate) fn names(&self) -> Vec<(String, bool)> {
        self.by_name.iter().map(|(name, (role, _))| (name.clone(), *role == Role::Admin)).collect()
    }

    /// Everybody may do everything.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The user of a name, with the verifier of the password if there is one.
    pub(crate) fn named(&self, name: &str) -> Option<(User, Option<&Verifier>)> {
        let (role, verifier) = self.by_name.get(name)?;
        Some((User { name: name.to_string(), role: *role }, verifier.as_ref()))
    }

    /// The user of a token. The token's hash is what is looked up, so that the time it takes tells nothing about tokens.
    pub(crate) fn with_token(&self, token: &str) -> Option<User> {
        self.by_token.get(&hash(token)).cloned()
    }
}

fn hash(token: &str) -> String {
    digest(&SHA256, token.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl User {
    /// Whoever comes, where there are no users.
    pub(crate) fn anybody(name: &str) -> Self {
        Self { name: name.to_string(), role: Role::Admin }
    }

    /// Refuses a statement that the user may not carry out.
    ///
    /// # Errors
    /// When the role is too low.
    pub(crate) fn authorize(&self, statement: &Statement) -> Result<(), RequestError> {
        let (needed, what) = needed(statement);
        self.require(needed, what)
    }

    /// Refuses what takes another role.
    ///
    /// # Errors
    /// When the role is too low.
    pub(crate) fn require(&self, needed: Role, what: &str) -> Result<(), RequestError> {
        if self.role >= needed {
            return Ok(());
        }
        Err(RequestError::new(
            codes::NO_PRIVILEGE,
            format!("user \"{}\" may not {what}: that takes the role {}", self.name, needed.word()),
            format!("The user has the role {}.", self.role.word()),
        ))
    }
}

/// The role that a statement takes, and what it does.
fn needed(statement: &Statement) -> (Role, &'static str) {
    if names_files(statement) {
        return (Role::Admin, "read files");
    }
    match statement {
        Statement::Query(query) if query.emit == Emit::None => (Role::Reader, "read"),
        Statement::Query(_) | Statement::Subscribe(_) => (Role::Reader, "subscribe"),
        Statement::Show(_) | Statement::ShowCreate(_) | Statement::Describe(_) => (Role::Reader, "look at definitions"),
        Statement::Begin | Statement::Commit | Statement::Rollback => (Role::Reader, "read"),
        Statement::DeclareCursor(cursor) => needed(&cursor.statement),
        Statement::Fetch(_) | Statement::CloseCursor(_) | Statement::Deallocate(_) => (Role::Reader, "read"),
        Statement::Explain(_) => (Role::Reader, "explain"),
        Statement::Copy(copy) if copy.target == CopyTarget::Stdout => (Role::Reader, "read"),
        Statement::Copy(_) => (Role::Admin, "write files"),
        Statement::InsertInto(_) | Statement::CopyFrom(_) => (Role::Writer, "insert rows"),
        Statement::Update(_) | Statement::Delete(_) | Statement::Truncate(_) => (Role::Writer, "change rows"),
        Statement::Set(set) if millstream_engine::session::is_client_setting(&set.name) => (Role::Reader, "set what is the session's"),
        Statement::Reset(Some(name)) if millstream_engine::session::is_client_setting(name) => (Role::Reader, "set what is the session's"),
        Statement::Set(_) | Statement::Reset(_) => (Role::Admin, "change settings of the pipeline"),
        other if millstream_engine::session::is_harmless(other) => (Role::Reader, "read"),
        _ => (Role::Admin, "change definitions or steer the pipeline"),
    }
}

/// Whether a statement reads files by their path.
fn names_files(statement: &Statement) -> bool {
    let is_path = |name: &ObjectName| match name.0.as_slice() {
        [ObjectNamePart::Identifier(ident)] => ident.quote_style == Some('\''),
        _ => false,
    };
    let in_query = |query: &ast::Query| {
        visit_relations(query, |name| if is_path(name) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }).is_break()
    };
    let in_statement = |statement: &ast::Statement| {
        visit_relations(statement, |name| if is_path(name) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }).is_break()
    };
    match statement {
        Statement::Update(statement) | Statement::Delete(statement) | Statement::Truncate(statement) => in_statement(statement),
        Statement::Explain(Explain { statement, .. }) => names_files(statement),
        Statement::DeclareCursor(cursor) => names_files(&cursor.statement),
        Statement::Copy(copy) => match &copy.source {
            CopySource::Query(query) | CopySource::Subscribe(Subscribe { source: SubscribeSource::Query(query), .. }) => in_query(query),
            CopySource::Relation(name) | CopySource::Subscribe(Subscribe { source: SubscribeSource::Name(name), .. }) => is_path(name),
        },
        Statement::Subscribe(Subscribe { source: SubscribeSource::Name(name), .. }) => is_path(name),
        other => other.query().is_some_and(in_query),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_take_the_role_they_need() {
        let may = |role: Role, sql: &str| User { name: "u".into(), role }.authorize(&millstream_sql::parse_statement(sql).unwrap()).is_ok();
        for (sql, role) in [
            ("SELECT 1", Role::Reader),
            ("SUBSCRIBE TO v", Role::Reader),
            ("COPY v TO STDOUT", Role::Reader),
            ("SHOW TABLES", Role::Reader),
            ("SET search_path = public", Role::Reader),
            ("BEGIN", Role::Reader),
            ("SAVEPOINT s", Role::Reader),
            ("DECLARE c CURSOR FOR SELECT 1", Role::Reader),
            ("EXPLAIN INCREMENTAL SELECT 1", Role::Reader),
            ("INSERT INTO t VALUES (1)", Role::Writer),
            ("COPY t FROM STDIN", Role::Writer),
            ("UPDATE t SET a = 1", Role::Writer),
            ("TRUNCATE TABLE t", Role::Writer),
            ("CREATE VIEW v AS SELECT 1", Role::Admin),
            ("DROP TABLE t", Role::Admin),
            ("SET trigger = '1s'", Role::Admin),
            ("RESET ALL", Role::Admin),
            ("CHECKPOINT", Role::Admin),
            ("STOP PIPELINE", Role::Admin),
            ("COPY v TO 'x.csv'", Role::Admin),
            ("SELECT * FROM '/etc/passwd'", Role::Admin),
            ("SELECT (SELECT max(a) FROM 'f.parquet')", Role::Admin),
            ("WITH x AS (SELECT * FROM 'f.csv') SELECT * FROM x", Role::Admin),
            ("INSERT INTO t SELECT * FROM 'f.csv'", Role::Admin),
            ("DELETE FROM t WHERE a IN (SELECT a FROM 'f.csv')", Role::Admin),
            ("EXPLAIN SELECT * FROM 'f.csv'", Role::Admin),
            ("COPY (SELECT * FROM 'f.csv') TO STDOUT", Role::Admin),
            ("SUBSCRIBE TO (SELECT * FROM 'f.csv')", Role::Admin),
        ] {
            for (other, word) in [(Role::Reader, "reader"), (Role::Writer, "writer"), (Role::Admin, "admin")] {
                assert_eq!(may(other, sql), other >= role, "{word}: {sql}");
            }
        }
    }

    #[test]
    fn wrong_entries_are_refused() {
        let entry = UserEntry::new("ada", Role::Admin).with_password("secret").with_token("t");
        let users = Users::new(std::slice::from_ref(&entry)).unwrap();
        assert_eq!(users.with_token("t").map(|user| user.name), Some("ada".into()));
        assert_eq!(users.with_token("T"), None);
        assert!(users.named("ada").is_some() && users.named("bob").is_none());
        assert!(Users::new(&[entry.clone(), entry.clone()]).is_err());
        assert!(Users::new(&[UserEntry { password: Some("secret".into()), ..entry.clone() }]).is_err());
        assert!(Users::new(&[UserEntry { tokens: vec!["t".into()], ..entry }]).is_err());
    }
}
