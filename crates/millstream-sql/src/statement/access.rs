//! Statements about users and what they may do.
//!
//! A password is shown nowhere: neither `Display` nor `Debug` of a statement has it. So the canonical text of a statement with a password
//! does not parse to the same statement again; what the engine keeps of it is the user, not the text.

use super::OptionList;
use super::display::{option_list, separated};
use millstream_types::{Privilege, Role};
use sqlparser::ast::{Ident, ObjectName};
use std::fmt::{self, Debug, Display, Formatter};

/// What stands where a password stood.
pub const HIDDEN: &str = "***";

/// A password, or the verifier of one.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// A password.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The password itself: not to be shown or logged.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl Debug for Password {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// What a statement says about a password.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PasswordChange {
    /// Nothing.
    #[default]
    Keep,
    /// `PASSWORD '..'`.
    Set(Password),
    /// `PASSWORD NULL`: there is none, and the user cannot log in with one.
    Remove,
}

/// What `CREATE USER` and `ALTER USER` say about a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserOptions {
    /// The password.
    pub password: PasswordChange,
    /// `ROLE`.
    pub role: Option<Role>,
    /// `LIMITS (..)`, and `CONNECTION LIMIT` as the limit `connections`.
    pub limits: OptionList,
}

impl UserOptions {
    /// Nothing is said but about the password.
    pub fn is_password_only(&self) -> bool {
        self.role.is_none() && self.limits.is_empty()
    }
}

impl Display for UserOptions {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.password {
            PasswordChange::Keep => {}
            PasswordChange::Set(_) => write!(f, " PASSWORD '{HIDDEN}'")?,
            PasswordChange::Remove => f.write_str(" PASSWORD NULL")?,
        }
        if let Some(role) = self.role {
            write!(f, " ROLE {role}")?;
        }
        if self.limits.is_empty() {
            return Ok(());
        }
        f.write_str(" LIMITS ")?;
        option_list(f, &self.limits)
    }
}

/// `CREATE USER name [WITH] [PASSWORD '..'] [ROLE reader | writer | admin] [LIMITS (..)]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateUser {
    /// `IF NOT EXISTS` was given.
    pub if_not_exists: bool,
    /// The user's name.
    pub name: Ident,
    /// The rest.
    pub options: UserOptions,
}

impl Display for CreateUser {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "CREATE USER {}{}{}", if self.if_not_exists { "IF NOT EXISTS " } else { "" }, self.name, self.options)
    }
}

/// `ALTER USER name [WITH] ..`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterUser {
    /// The user's name.
    pub name: Ident,
    /// What changes.
    pub options: UserOptions,
}

impl Display for AlterUser {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "ALTER USER {}{}", self.name, self.options)
    }
}

/// `DROP USER [IF EXISTS] names`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropUser {
    /// `IF EXISTS` was given.
    pub if_exists: bool,
    /// The users.
    pub names: Vec<Ident>,
}

impl Display for DropUser {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "DROP USER {}", if self.if_exists { "IF EXISTS " } else { "" })?;
        separated(f, &self.names)
    }
}

/// What a privilege is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrantOn {
    /// All relations of a schema, also later ones: `public` or `millstream`.
    Schemas(Vec<Ident>),
    /// Relations.
    Objects(Vec<ObjectName>),
}

/// `GRANT privileges ON .. TO users`, or `REVOKE privileges ON .. FROM users`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// It is a `REVOKE`.
    pub revokes: bool,
    /// Which privileges; all of them for `ALL`.
    pub privileges: Vec<Privilege>,
    /// On what.
    pub on: GrantOn,
    /// The users.
    pub users: Vec<Ident>,
}

impl Display for Grant {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(if self.revokes { "REVOKE " } else { "GRANT " })?;
        match self.privileges == Privilege::ALL {
            true => f.write_str("ALL")?,
            false => separated(f, &self.privileges)?,
        }
        match &self.on {
            GrantOn::Schemas(schemas) => {
                f.write_str(" ON SCHEMA ")?;
                separated(f, schemas)?;
            }
            GrantOn::Objects(objects) => {
                f.write_str(" ON ")?;
                separated(f, objects)?;
            }
        }
        f.write_str(if self.revokes { " FROM " } else { " TO " })?;
        separated(f, &self.users)
    }
}
