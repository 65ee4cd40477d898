//! Who may connect: the users file, and users of the catalog.
//!
//! A client proves who it is by SCRAM-SHA-256 over the PostgreSQL protocol, by a token or a password over HTTP and Arrow Flight SQL. What
//! it may do then is the engine's matter: each client has a session that belongs to it. Passwords are kept as SCRAM-SHA-256 verifiers in
//! the form PostgreSQL has for them, tokens as SHA-256 hashes: neither file nor memory has anything to log in with.

use crate::error::ServerError;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use millstream_engine::SessionUser;
use millstream_engine::access::{UserDef, UserLimits, Verifier, random};
use millstream_types::{Classified, Role};
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use std::collections::BTreeMap;

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
    /// What one statement may take, as `LIMITS` of CREATE USER has it.
    #[serde(default)]
    pub limits: BTreeMap<String, String>,
}

impl UserEntry {
    /// A user without credentials.
    pub fn new(name: impl Into<String>, role: Role) -> Self {
        Self { name: name.into(), role, password: None, tokens: Vec::new(), limits: BTreeMap::new() }
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
    let bytes: [u8; 24] = random();
    format!("ms_{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// A client that is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    /// The name.
    pub(crate) name: String,
    /// Whom its sessions belong to.
    pub(crate) session: SessionUser,
}

impl User {
    /// A user that has shown who they are.
    pub(crate) fn named(name: &str) -> Self {
        Self { name: name.to_string(), session: SessionUser::Named(name.into()) }
    }

    /// Whoever comes, where there are no users.
    pub(crate) fn anybody(name: &str) -> Self {
        Self { name: name.to_string(), session: SessionUser::Anybody }
    }
}

/// The users of the users file.
#[derive(Debug, Default)]
pub(crate) struct Users {
    by_name: BTreeMap<String, UserDef>,
    by_token: BTreeMap<String, String>,
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
            let password = match entry.password.as_deref().map(Verifier::parse) {
                None => None,
                Some(Some(verifier)) => Some(verifier),
                Some(None) => return wrong("has a password in the wrong form", "`millstream user NAME` makes an entry of the file."),
            };
            for token in &entry.tokens {
                if token.len() != 64 || !token.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return wrong("has a token that is no SHA-256 hash", "`millstream user NAME` makes an entry of the file.");
                }
                if users.by_token.insert(token.to_lowercase(), entry.name.clone()).is_some() {
                    return wrong("has the token of another user", "Give each user tokens of their own.");
                }
            }
            let limits = entry.limits.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
            let limits = UserLimits::default()
                .changed(&format!("user \"{}\"", entry.name), &limits)
                .map_err(|error| ServerError::configuration(error.to_string(), error.hint().unwrap_or_default()))?;
            let user = UserDef { name: entry.name.clone(), role: entry.role, password, limits };
            if users.by_name.insert(entry.name.clone(), user).is_some() {
                return wrong("is there twice", "Keep one entry.");
            }
        }
        Ok(users)
    }

    /// As the engine knows them.
    pub(crate) fn defs(&self) -> impl Iterator<Item = UserDef> {
        self.by_name.values().cloned()
    }

    /// The user of a token. The token's hash is what is looked up, so that the time it takes tells nothing about tokens.
    pub(crate) fn with_token(&self, token: &str) -> Option<User> {
        self.by_token.get(&hash(token)).map(|name| User::named(name))
    }
}

fn hash(token: &str) -> String {
    digest(&SHA256, token.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_entries_are_refused() {
        let entry = UserEntry::new("ada", Role::Admin).with_password("secret").with_token("t");
        let users = Users::new(std::slice::from_ref(&entry)).unwrap();
        assert_eq!(users.with_token("t").map(|user| user.name), Some("ada".into()));
        assert_eq!(users.with_token("T"), None);
        assert!(users.defs().any(|user| user.name == "ada" && user.password.is_some()));
        assert!(Users::new(&[entry.clone(), entry.clone()]).is_err());
        assert!(Users::new(&[UserEntry { password: Some("secret".into()), ..entry.clone() }]).is_err());
        assert!(Users::new(&[UserEntry { limits: [("row".into(), "1".into())].into(), ..entry.clone() }]).is_err());
        assert!(Users::new(&[UserEntry { tokens: vec!["t".into()], ..entry }]).is_err());
    }
}
