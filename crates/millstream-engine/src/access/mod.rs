//! Users and what they may do.
//!
//! ```text
//!   role       which kinds of statements: reader < writer < admin            a ceiling
//!   privilege  with which relations: SELECT, INSERT, UPDATE, DELETE, TRUNCATE on one, or on a schema
//! ```
//! A user needs both: the role for the kind of statement, and a privilege on each relation that the statement names. Admins need no
//! privileges. Relations that a view reads need none either: who makes a view (an admin) decides what is seen through it.
//!
//! Users come from two places. `CREATE USER` makes entries of the catalog, which begin without privileges. The program that runs the
//! engine may bring further ones ([`crate::Engine::bring_users`]: the users file of `serve`); they have every privilege their role can
//! use, are changed only where they come from, and their names come first.
//!
//! Changes of the catalog's part travel in commit records as what they did ([`AccessChange`]), never as text, so that no record holds a
//! password; see `docs/decisions/0026-users-and-grants.md`. What is checked when stands in `session/authorize.rs`.

mod limits;
mod verifier;
mod watch;

pub use limits::{LIMITS, UserLimits};
pub use verifier::{Verifier, keyed, random, same};
pub use watch::AccessWatch;

use crate::catalog::resolve::SYSTEM_SCHEMA;
use millstream_types::{Privilege, Role};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The schema of everything that statements create.
pub const PUBLIC_SCHEMA: &str = "public";

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserDef {
    /// The name.
    pub name: String,
    /// Which kinds of statements they may run.
    pub role: Role,
    /// What their password is checked with; without it they cannot log in with one.
    #[serde(default)]
    pub password: Option<Verifier>,
    /// What their statements may take.
    #[serde(default)]
    pub limits: UserLimits,
}

/// What a privilege is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Everything in a schema, also what is made later.
    Schema(String),
    /// An object of the catalog.
    Object(String),
    /// A system table.
    System(String),
}

impl Scope {
    /// The schema it lies in.
    fn schema(&self) -> &str {
        match self {
            Scope::Schema(name) => name,
            Scope::Object(_) => PUBLIC_SCHEMA,
            Scope::System(_) => SYSTEM_SCHEMA,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Schema(name) => write!(f, "SCHEMA {name}"),
            Scope::Object(name) => f.write_str(name),
            Scope::System(name) => write!(f, "{SYSTEM_SCHEMA}.{name}"),
        }
    }
}

/// A privilege of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// The user.
    pub user: String,
    /// The privilege.
    pub privilege: Privilege,
    /// On what.
    pub on: Scope,
}

/// A change of users or of what they may do, as commit records have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessChange {
    /// A user as they are from now on.
    User(UserDef),
    /// The user is gone, with everything that was granted.
    UserDropped(String),
    /// A privilege came.
    Granted(Granted),
    /// A privilege went.
    Revoked(Granted),
}

/// The users of the catalog and what was granted, to them and to users from elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Access {
    users: BTreeMap<String, UserDef>,
    grants: BTreeMap<String, BTreeSet<(Scope, Privilege)>>,
}

impl Access {
    /// The user with this name.
    pub fn user(&self, name: &str) -> Option<&UserDef> {
        self.users.get(name)
    }

    /// All users, by name.
    pub fn users(&self) -> impl Iterator<Item = &UserDef> {
        self.users.values()
    }

    /// What was granted to a user.
    pub fn granted(&self, user: &str) -> impl Iterator<Item = &(Scope, Privilege)> {
        self.grants.get(user).into_iter().flatten()
    }

    /// Whether exactly this was granted.
    pub fn has(&self, grant: &Granted) -> bool {
        self.grants.get(&grant.user).is_some_and(|granted| granted.contains(&(grant.on.clone(), grant.privilege)))
    }

    /// Whether a user has a privilege on something: by itself, or by its schema.
    pub fn allows(&self, user: &str, privilege: Privilege, on: &Scope) -> bool {
        let Some(granted) = self.grants.get(user) else { return false };
        granted.contains(&(on.clone(), privilege)) || granted.contains(&(Scope::Schema(on.schema().to_string()), privilege))
    }

    /// Makes a change. Making it twice is making it once.
    pub fn apply(&mut self, change: &AccessChange) {
        match change {
            AccessChange::User(user) => drop(self.users.insert(user.name.clone(), user.clone())),
            AccessChange::UserDropped(name) => {
                self.users.remove(name);
                self.grants.remove(name);
            }
            AccessChange::Granted(grant) => {
                self.grants.entry(grant.user.clone()).or_default().insert((grant.on.clone(), grant.privilege));
            }
            AccessChange::Revoked(grant) => {
                if let Some(granted) = self.grants.get_mut(&grant.user) {
                    granted.remove(&(grant.on.clone(), grant.privilege));
                }
                self.grants.retain(|_, granted| !granted.is_empty());
            }
        }
    }

    /// Whether anybody has a privilege on exactly this.
    pub(crate) fn is_granted(&self, on: &Scope) -> bool {
        self.grants.values().flatten().any(|(other, _)| other == on)
    }

    /// An object is gone: who makes another one of its name does not get its privileges.
    pub(crate) fn forget_object(&mut self, name: &str) {
        let gone = Scope::Object(name.to_string());
        for granted in self.grants.values_mut() {
            granted.retain(|(on, _)| *on != gone);
        }
        self.grants.retain(|_, granted| !granted.is_empty());
    }
}

/// Where a user comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserOrigin {
    /// `CREATE USER`.
    Catalog,
    /// The program that runs the engine.
    Brought,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(user: &str, privilege: Privilege, on: Scope) -> Granted {
        Granted { user: user.into(), privilege, on }
    }

    #[test]
    fn privileges_hold_for_what_they_name() {
        let mut access = Access::default();
        let (t, u) = (Scope::Object("t".into()), Scope::Object("u".into()));
        access.apply(&AccessChange::Granted(grant("ada", Privilege::Select, t.clone())));
        access.apply(&AccessChange::Granted(grant("bob", Privilege::Select, Scope::Schema("public".into()))));
        assert!(access.allows("ada", Privilege::Select, &t) && !access.allows("ada", Privilege::Select, &u));
        assert!(!access.allows("ada", Privilege::Insert, &t) && !access.allows("eve", Privilege::Select, &t));
        assert!(access.allows("bob", Privilege::Select, &u) && !access.allows("bob", Privilege::Select, &Scope::System("epochs".into())));
        access.forget_object("t");
        assert!(!access.allows("ada", Privilege::Select, &t));
        access.apply(&AccessChange::Revoked(grant("bob", Privilege::Select, Scope::Schema("public".into()))));
        assert_eq!(access, Access::default());
    }

    #[test]
    fn changes_survive_being_written() {
        let user = UserDef { name: "ada".into(), role: Role::Writer, password: Some(Verifier::of("x")), limits: UserLimits::default() };
        let mut access = Access::default();
        access.apply(&AccessChange::User(user));
        access.apply(&AccessChange::Granted(grant("ada", Privilege::Truncate, Scope::System("epochs".into()))));
        let text = serde_json::to_string(&access).unwrap();
        assert_eq!(serde_json::from_str::<Access>(&text).unwrap(), access);
    }
}
