//! `CREATE USER`, `ALTER USER`, `DROP USER`, `GRANT`, `REVOKE`: turned into changes of users and privileges.
//!
//! A password has become its verifier before a statement comes here. Wherever there are users there is an admin among them: the first one
//! must be one, and the last one stays one.

use super::super::Pipeline;
use crate::access::{Access, AccessChange, Granted, PUBLIC_SCHEMA, Scope, UserDef, UserLimits, Verifier};
use crate::catalog::resolve::{SYSTEM_SCHEMA, fold, object_name};
use crate::error::{EngineError, Result};
use crate::notice::Notice;
use crate::system_tables::SYSTEM_TABLES;
use millstream_sql::Statement;
use millstream_sql::statement::{AlterUser, CreateUser, DropUser, Grant, GrantOn, PasswordChange};
use millstream_types::{Privilege, Role};
use sqlparser::ast::{Ident, ObjectName, ObjectNamePart};

/// Names that mean something else in PostgreSQL.
const RESERVED: [&str; 4] = ["public", "none", "current_user", "session_user"];

impl Pipeline {
    /// The changes that a statement about users makes, after making them; `None` for any other statement.
    pub(super) fn change_access(&mut self, statement: &Statement, notices: &mut Vec<Notice>) -> Result<Option<Vec<AccessChange>>> {
        let changes = match statement {
            Statement::CreateUser(create) => self.create_user(create, notices)?,
            Statement::AlterUser(alter) => self.alter_user(alter)?,
            Statement::DropUser(drop) => self.drop_user(drop, notices)?,
            Statement::Grant(grant) => self.grant(grant, notices)?,
            _ => return Ok(None),
        };
        let mut after = self.catalog.access.as_ref().clone();
        changes.iter().for_each(|change| after.apply(change));
        self.check_admins(&after)?;
        self.catalog.access = after.into();
        Ok(Some(changes))
    }

    fn create_user(&self, create: &CreateUser, notices: &mut Vec<Notice>) -> Result<Vec<AccessChange>> {
        let name = fold(&create.name);
        if name.is_empty() || name.chars().any(char::is_control) || RESERVED.contains(&name.as_str()) {
            return Err(EngineError::invalid(format!("a user cannot be called \"{name}\""), "Choose another name."));
        }
        self.refuse_brought(&name)?;
        if self.catalog.access.user(&name).is_some() {
            if create.if_not_exists {
                notices.push(Notice::info(format!("user \"{name}\" exists already, skipping"), ""));
                return Ok(Vec::new());
            }
            return Err(EngineError::invalid(format!("user \"{name}\" exists already"), "ALTER USER changes a user."));
        }
        let options = &create.options;
        let user = UserDef {
            role: options.role.unwrap_or(Role::Reader),
            password: verifier(&options.password, None)?,
            limits: UserLimits::default().changed(&format!("user \"{name}\""), &options.limits)?,
            name: name.clone(),
        };
        if user.password.is_none() {
            let hint = format!("ALTER USER {name} PASSWORD '..' gives one.");
            notices.push(Notice::info(format!("user \"{name}\" has no password and cannot log in"), hint));
        }
        if user.role != Role::Admin && self.catalog.access.granted(&name).next().is_none() {
            let hint = format!("GRANT SELECT ON SCHEMA {PUBLIC_SCHEMA} TO {name}, or on single relations.");
            notices.push(Notice::info(format!("user \"{name}\" may not read anything yet"), hint));
        }
        Ok(vec![AccessChange::User(user)])
    }

    fn alter_user(&self, alter: &AlterUser) -> Result<Vec<AccessChange>> {
        let name = fold(&alter.name);
        self.refuse_brought(&name)?;
        let Some(user) = self.catalog.access.user(&name) else { return Err(self.unknown_user(&name)) };
        let options = &alter.options;
        Ok(vec![AccessChange::User(UserDef {
            role: options.role.unwrap_or(user.role),
            password: verifier(&options.password, user.password.clone())?,
            limits: user.limits.changed(&format!("user \"{name}\""), &options.limits)?,
            name,
        })])
    }

    fn drop_user(&self, drop: &DropUser, notices: &mut Vec<Notice>) -> Result<Vec<AccessChange>> {
        let mut changes = Vec::new();
        for name in &drop.names {
            let name = fold(name);
            self.refuse_brought(&name)?;
            match self.catalog.access.user(&name) {
                Some(_) => changes.push(AccessChange::UserDropped(name)),
                None if drop.if_exists => notices.push(Notice::info(format!("user \"{name}\" does not exist, skipping"), "")),
                None => return Err(self.unknown_user(&name)),
            }
        }
        Ok(changes)
    }

    fn grant(&self, grant: &Grant, notices: &mut Vec<Notice>) -> Result<Vec<AccessChange>> {
        let scopes = match &grant.on {
            GrantOn::Schemas(schemas) => schemas.iter().map(schema_scope).collect::<Result<Vec<_>>>()?,
            GrantOn::Objects(names) => names.iter().map(|name| self.scope(name)).collect::<Result<Vec<_>>>()?,
        };
        let mut changes = Vec::new();
        for user in &grant.users {
            let user = fold(user);
            let brought = self.shared.brought_users.read().get(&user).map(|user| user.role);
            let own = self.catalog.access.user(&user).map(|user| user.role);
            let Some(role) = brought.or(own) else { return Err(self.unknown_user(&user)) };
            if !grant.revokes && (role == Role::Admin || brought.is_some()) {
                let why = if role == Role::Admin { "is an admin" } else { "comes with the privileges of its role" };
                notices.push(Notice::info(format!("user \"{user}\" {why} and needs no GRANT"), ""));
            }
            for on in &scopes {
                for privilege in &grant.privileges {
                    if !grant.revokes && privilege.role() > role {
                        if grant.privileges == Privilege::ALL {
                            continue;
                        }
                        return Err(EngineError::invalid(
                            format!("user \"{user}\" is a {role} and cannot use {privilege}"),
                            format!("ALTER USER {user} ROLE {} first.", privilege.role()),
                        ));
                    }
                    let granted = Granted { user: user.clone(), privilege: *privilege, on: on.clone() };
                    match grant.revokes {
                        true => changes.push(AccessChange::Revoked(granted)),
                        false => changes.push(AccessChange::Granted(granted)),
                    }
                }
            }
        }
        if grant.revokes {
            self.tell_what_stays(&changes, notices);
        }
        Ok(changes)
    }

    /// A REVOKE takes back what was granted with the same words; a privilege on the schema stays.
    fn tell_what_stays(&self, changes: &[AccessChange], notices: &mut Vec<Notice>) {
        let mut after: Access = self.catalog.access.as_ref().clone();
        changes.iter().for_each(|change| after.apply(change));
        for change in changes {
            let AccessChange::Revoked(revoked) = change else { continue };
            let Granted { user, privilege, on } = revoked;
            if self.shared.brought_users.read().contains_key(user) {
                let message = format!("user \"{user}\" keeps {privilege} on {on}");
                notices.push(Notice::warning(message, "The user comes with the privileges of its role; change it where it comes from."));
            } else if after.allows(user, *privilege, on) {
                let hint = format!("REVOKE {privilege} ON {} FROM {user} takes that back.", Scope::Schema(on_schema(on)));
                notices.push(Notice::warning(format!("user \"{user}\" keeps {privilege} on {on} by its schema"), hint));
            }
        }
    }

    /// What a name stands for.
    fn scope(&self, name: &ObjectName) -> Result<Scope> {
        let last = object_name(name);
        if let [ObjectNamePart::Identifier(schema), _] = name.0.as_slice()
            && fold(schema) == SYSTEM_SCHEMA
        {
            return match SYSTEM_TABLES.contains(&last.as_str()) {
                true => Ok(Scope::System(last)),
                false => {
                    let near = millstream_types::suggest::nearest(&last, SYSTEM_TABLES.iter().copied());
                    let hint = near.map(|near| format!("Did you mean \"{SYSTEM_SCHEMA}.{near}\"?")).unwrap_or_default();
                    Err(EngineError::invalid(format!("relation \"{SYSTEM_SCHEMA}.{last}\" does not exist"), hint))
                }
            };
        }
        self.catalog.require(&last).map(|object| Scope::Object(object.name.clone()))
    }

    fn unknown_user(&self, name: &str) -> EngineError {
        let brought = self.shared.brought_users.read();
        let names = self.catalog.access.users().map(|user| user.name.as_str()).chain(brought.keys().map(String::as_str));
        let hint = match millstream_types::suggest::nearest(name, names) {
            Some(near) => format!("Did you mean \"{near}\"?"),
            None => "SHOW USERS lists them.".to_string(),
        };
        EngineError::invalid(format!("user \"{name}\" does not exist"), hint)
    }

    fn refuse_brought(&self, name: &str) -> Result<()> {
        match self.shared.brought_users.read().contains_key(name) {
            false => Ok(()),
            true => Err(EngineError::invalid(
                format!("user \"{name}\" is defined by the users file of the server"),
                "Change that file: the server reads it again.",
            )),
        }
    }

    /// Without an admin nobody could ever change users again.
    fn check_admins(&self, after: &Access) -> Result<()> {
        let has_admin = after.users().any(|user| user.role == Role::Admin && user.password.is_some())
            || self.shared.brought_users.read().values().any(|user| user.role == Role::Admin);
        if has_admin || (after.users().next().is_none() && self.catalog.access.users().next().is_none()) {
            return Ok(());
        }
        match self.catalog.access.users().next() {
            None => Err(EngineError::invalid(
                "the first user must be an admin with a password: from then on only users get in",
                "CREATE USER name PASSWORD '..' ROLE admin.",
            )),
            Some(_) => Err(EngineError::invalid(
                "no admin with a password would be left",
                "Make another user one first: ALTER USER name ROLE admin.",
            )),
        }
    }
}

fn on_schema(on: &Scope) -> String {
    match on {
        Scope::Schema(name) => name.clone(),
        Scope::Object(_) => PUBLIC_SCHEMA.to_string(),
        Scope::System(_) => SYSTEM_SCHEMA.to_string(),
    }
}

fn schema_scope(schema: &Ident) -> Result<Scope> {
    let name = fold(schema);
    match [PUBLIC_SCHEMA, SYSTEM_SCHEMA].contains(&name.as_str()) {
        true => Ok(Scope::Schema(name)),
        false => Err(EngineError::invalid(
            format!("schema \"{name}\" does not exist"),
            format!("The schemas are {PUBLIC_SCHEMA} (everything that is created) and {SYSTEM_SCHEMA} (the system tables)."),
        )),
    }
}

/// The verifier after a statement.
fn verifier(change: &PasswordChange, before: Option<Verifier>) -> Result<Option<Verifier>> {
    match change {
        PasswordChange::Keep => Ok(before),
        PasswordChange::Remove => Ok(None),
        PasswordChange::Set(password) => match Verifier::parse(password.reveal()) {
            Some(verifier) => Ok(Some(verifier)),
            None => Err(EngineError::Internal("a password has come this far".into())),
        },
    }
}
