//! What the user of a session may do: looked at before each statement, with the users and privileges of this moment.
//!
//! | statement | role | privileges |
//! | --- | --- | --- |
//! | SELECT, SUBSCRIBE, COPY TO STDOUT, cursors, EXPLAIN of them | reader | SELECT on each relation that is named |
//! | SHOW CREATE | reader | SELECT on it |
//! | SHOW QUERIES | reader | SELECT on `millstream.queries` |
//! | DESCRIBE, other SHOW, transactions, settings of the session | reader | none |
//! | ALTER USER of oneself, the password alone | reader | none |
//! | INSERT into tables and streams, COPY FROM STDIN | writer | INSERT; SELECT on what its query names |
//! | UPDATE | writer | UPDATE and SELECT |
//! | DELETE | writer | DELETE; SELECT with WHERE |
//! | TRUNCATE | writer | TRUNCATE |
//! | everything else; whatever names files | admin | none |
//!
//! A subscription is looked at again whenever users or privileges change (`lasting.rs`).
//!
//! An UPDATE needs SELECT because an expression that fails shows the value it failed on. **Errors**: [`EngineError::Denied`].

use super::{Session, is_client_setting, is_harmless};
use crate::access::{Scope, UserDef, UserLimits, UserOrigin};
use crate::catalog::Catalog;
use crate::catalog::object::ObjectKind;
use crate::catalog::resolve::{Named, Resolver, object_name, quoted_if_needed};
use crate::error::{EngineError, Result};
use crate::session::contents::NamesOnly;
use millstream_sql::Statement;
use millstream_sql::statement::{AlterUser, CopySource, CopyTarget, Explain, ShowWhat, Subscribe, SubscribeSource};
use millstream_types::{Privilege, Role};
use sqlparser::ast::{self, FromTable, ObjectName, ObjectNamePart, Query, TableFactor, TableWithJoins};
use std::sync::Arc;

/// Who a session belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SessionUser {
    /// The program that runs the engine: it may do everything.
    #[default]
    Owner,
    /// Whoever came while there were no users: they may do everything until there are some.
    Anybody,
    /// A user.
    Named(Arc<str>),
}

/// What the user of a session may do now.
pub(super) struct Rights {
    user: UserDef,
    /// The user has every privilege that the role can use.
    has_all: bool,
    catalog: Arc<Catalog>,
}

impl Session {
    /// Who the session belongs to.
    pub fn user(&self) -> &SessionUser {
        &self.user
    }

    /// Limits of the session's user.
    pub fn user_limits(&self) -> UserLimits {
        match &self.user {
            SessionUser::Named(name) => self.engine.user(name).map(|(user, _)| user.limits).unwrap_or_default(),
            _ => UserLimits::default(),
        }
    }

    /// Refuses a statement that the session's user may not run.
    ///
    /// # Errors
    /// [`EngineError::Denied`]; or that a name does not exist.
    pub fn authorize(&self, statement: &Statement) -> Result<()> {
        match self.rights()? {
            None => Ok(()),
            Some(rights) => self.check(&rights, statement),
        }
    }

    /// Refuses rows for a relation.
    pub(super) fn authorize_insert(&self, target: &str) -> Result<()> {
        match self.rights()? {
            None => Ok(()),
            Some(rights) => rights.insert_into(target),
        }
    }

    /// Whether users and privileges of others may be seen: by admins.
    pub(super) fn sees_everybody(&self) -> Result<bool> {
        Ok(self.rights()?.is_none())
    }

    /// `None`: everything.
    pub(super) fn rights(&self) -> Result<Option<Rights>> {
        let name = match &self.user {
            SessionUser::Owner => return Ok(None),
            SessionUser::Anybody if self.engine.has_users() => {
                return Err(EngineError::denied(
                    "there are users by now, and this session belongs to none of them",
                    "Connect again, as a user.",
                ));
            }
            SessionUser::Anybody => return Ok(None),
            SessionUser::Named(name) => name,
        };
        let user = self.engine.user(name).filter(|_| self.engine.shared().access_watch.gone(name) == self.gone_before);
        match user {
            None => Err(EngineError::denied(format!("user \"{name}\" does not exist any more"), "Connect again, as a user.")),
            Some((user, _)) if user.role == Role::Admin => Ok(None),
            Some((user, origin)) => {
                let catalog = self.engine.shared().catalog.read().clone();
                Ok(Some(Rights { user, has_all: origin == UserOrigin::Brought, catalog }))
            }
        }
    }

    fn check(&self, rights: &Rights, statement: &Statement) -> Result<()> {
        match statement {
            Statement::Query(query) => self.check_reads(rights, &query.query),
            Statement::Subscribe(subscribe) => self.check_subscription(rights, subscribe),
            Statement::Show(show) => match &show.what {
                ShowWhat::Queries => rights.require(Privilege::Select, &Scope::System("queries".into())),
                _ => Ok(()),
            },
            Statement::ShowCreate(name) => rights.read(name),
            Statement::Describe(_) => Ok(()),
            Statement::Begin | Statement::Commit | Statement::Rollback => Ok(()),
            // What they name was looked at when it was prepared or declared, and is when it runs.
            Statement::Fetch(_) | Statement::CloseCursor(_) | Statement::Prepare(_) | Statement::Execute(_) | Statement::Deallocate(_) => {
                Ok(())
            }
            Statement::DeclareCursor(cursor) => self.check(rights, &cursor.statement),
            Statement::Explain(Explain { statement, .. }) => match statement.as_ref() {
                Statement::Query(_)
                | Statement::Subscribe(_)
                | Statement::InsertInto(_)
                | Statement::Update(_)
                | Statement::Delete(_)
                | Statement::Copy(_) => self.check(rights, statement),
                _ => rights.role(Role::Admin, "explain definitions"),
            },
            Statement::Copy(copy) if copy.target == CopyTarget::Stdout => match &copy.source {
                CopySource::Relation(name) => rights.read(name),
                CopySource::Query(query) => self.check_reads(rights, query),
                CopySource::Subscribe(subscribe) => self.check_subscription(rights, subscribe),
            },
            Statement::Copy(_) => rights.role(Role::Admin, "write files"),
            Statement::InsertInto(insert) => {
                rights.insert_into(&object_name(&insert.target))?;
                self.check_reads(rights, &insert.source)
            }
            Statement::CopyFrom(copy) => rights.insert_into(&object_name(&copy.target)),
            Statement::Update(statement) => self.check_update(rights, statement),
            Statement::Delete(statement) => self.check_delete(rights, statement),
            Statement::Truncate(statement) => {
                rights.role(Role::Writer, "change rows")?;
                let ast::Statement::Truncate(truncate) = statement.as_ref() else { return Ok(()) };
                truncate.table_names.iter().try_for_each(|table| rights.change(Privilege::Truncate, &object_name(&table.name)))
            }
            Statement::Set(set) if is_client_setting(&set.name) => Ok(()),
            Statement::Reset(Some(name)) if is_client_setting(name) => Ok(()),
            Statement::Set(_) | Statement::Reset(_) => rights.role(Role::Admin, "change settings of the pipeline"),
            Statement::AlterUser(AlterUser { name, options })
                if options.is_password_only() && crate::catalog::resolve::fold(name) == rights.user.name =>
            {
                Ok(())
            }
            Statement::CreateUser(_) | Statement::AlterUser(_) | Statement::DropUser(_) | Statement::Grant(_) => {
                rights.role(Role::Admin, "change users")
            }
            other if is_harmless(other) => Ok(()),
            _ => rights.role(Role::Admin, "change definitions or steer the pipeline"),
        }
    }

    fn check_subscription(&self, rights: &Rights, subscribe: &Subscribe) -> Result<()> {
        match &subscribe.source {
            SubscribeSource::Name(name) => rights.read(name),
            SubscribeSource::Query(query) => self.check_reads(rights, query),
        }
    }

    /// Each relation that a query names, itself and not through a view.
    fn check_reads(&self, rights: &Rights, query: &Query) -> Result<()> {
        let shared = self.engine.shared();
        let resolver = Resolver { catalog: &rights.catalog, base: &shared.base, contents: &NamesOnly { shared } };
        let Named { objects, system, files, .. } = resolver.direct_reads(query)?;
        if !files.is_empty() {
            return rights.role(Role::Admin, "read files");
        }
        let scopes = objects.into_iter().map(Scope::Object).chain(system.into_iter().map(Scope::System));
        scopes.into_iter().try_for_each(|scope| rights.require(Privilege::Select, &scope))
    }

    fn check_update(&self, rights: &Rights, statement: &ast::Statement) -> Result<()> {
        rights.role(Role::Writer, "change rows")?;
        let ast::Statement::Update(update) = statement else { return Ok(()) };
        let name = target(&update.table)?;
        rights.change(Privilege::Update, &object_name(name))?;
        let values = update.assignments.iter().map(|assignment| format!("({})", assignment.value)).collect::<Vec<_>>().join(", ");
        let condition = update.selection.as_ref().map(|condition| format!(" WHERE {condition}")).unwrap_or_default();
        let query = millstream_sql::parse_query(&format!("SELECT {values} FROM {}{condition}", update.table))?;
        self.check_reads(rights, &query)
    }

    fn check_delete(&self, rights: &Rights, statement: &ast::Statement) -> Result<()> {
        rights.role(Role::Writer, "change rows")?;
        let ast::Statement::Delete(delete) = statement else { return Ok(()) };
        let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
        for table in from {
            rights.change(Privilege::Delete, &object_name(target(table)?))?;
            if let Some(condition) = &delete.selection {
                let query = millstream_sql::parse_query(&format!("SELECT 1 FROM {table} WHERE {condition}"))?;
                self.check_reads(rights, &query)?;
            }
        }
        Ok(())
    }
}

impl Rights {
    fn role(&self, needed: Role, what: &str) -> Result<()> {
        let UserDef { name, role, .. } = &self.user;
        if *role >= needed {
            return Ok(());
        }
        Err(EngineError::denied(
            format!("user \"{name}\" may not {what}: that takes the role {needed}"),
            format!("The user has the role {role}."),
        ))
    }

    fn require(&self, privilege: Privilege, on: &Scope) -> Result<()> {
        let name = &self.user.name;
        if self.has_all || self.catalog.access.allows(name, privilege, on) {
            return Ok(());
        }
        let verb = match privilege {
            Privilege::Select => "read",
            Privilege::Insert => "insert into",
            Privilege::Update => "update",
            Privilege::Delete => "delete from",
            Privilege::Truncate => "truncate",
        };
        let written = match on {
            Scope::Object(object) => ObjectName::from(vec![quoted_if_needed(object)]).to_string(),
            other => other.to_string(),
        };
        let grantee = quoted_if_needed(name);
        Err(EngineError::denied(
            format!("user \"{name}\" may not {verb} \"{on}\""),
            format!("An admin can GRANT {privilege} ON {written} TO {grantee}."),
        ))
    }

    /// A relation that is read by its name alone.
    fn read(&self, name: &ObjectName) -> Result<()> {
        match name.0.as_slice() {
            [ObjectNamePart::Identifier(ident)] if ident.quote_style == Some('\'') => self.role(Role::Admin, "read files"),
            [ObjectNamePart::Identifier(schema), _] if crate::catalog::resolve::fold(schema) == crate::catalog::resolve::SYSTEM_SCHEMA => {
                self.require(Privilege::Select, &Scope::System(object_name(name)))
            }
            _ => self.require(Privilege::Select, &Scope::Object(self.catalog.lookup(&object_name(name))?.name.clone())),
        }
    }

    fn change(&self, privilege: Privilege, target: &str) -> Result<()> {
        self.require(privilege, &Scope::Object(self.catalog.require(target)?.name.clone()))
    }

    fn insert_into(&self, target: &str) -> Result<()> {
        self.role(Role::Writer, "insert rows")?;
        // An INSERT INTO a sink is a continuous query.
        if matches!(self.catalog.require(target)?.kind, ObjectKind::Sink(_)) {
            self.role(Role::Admin, "change definitions or steer the pipeline")?;
        }
        self.change(Privilege::Insert, target)
    }
}

fn target(table: &TableWithJoins) -> Result<&ObjectName> {
    match &table.relation {
        TableFactor::Table { name, .. } => Ok(name),
        other => Err(EngineError::invalid(format!("\"{other}\" is no table that can be changed"), "Name one table.")),
    }
}

#[cfg(test)]
mod tests;
