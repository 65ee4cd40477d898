//! Statements about users: passwords become verifiers here, before anything is kept; `SHOW USERS` and `SHOW GRANTS`.

use super::{Session, SessionUser};
use crate::access::{PUBLIC_SCHEMA, Scope, UserDef, UserOrigin, Verifier};
use crate::catalog::resolve::{SYSTEM_SCHEMA, fold};
use crate::error::Result;
use crate::result::StatementResult;
use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray};
use millstream_sql::Statement;
use millstream_sql::statement::{Password, PasswordChange};
use millstream_types::{Privilege, Role};
use sqlparser::ast::Ident;
use std::sync::Arc;

impl Session {
    pub(super) async fn change_users(&self, mut statement: Statement, tag: &str) -> Result<StatementResult> {
        if let Statement::CreateUser(millstream_sql::statement::CreateUser { options, .. })
        | Statement::AlterUser(millstream_sql::statement::AlterUser { options, .. }) = &mut statement
            && let PasswordChange::Set(password) = &mut options.password
            // A verifier is taken as it is, as PostgreSQL takes it: `\password` of psql sends one.
            && Verifier::parse(password.reveal()).is_none()
        {
            *password = Password::new(Verifier::of(password.reveal()).to_string());
        }
        let notices = self.engine.ddl(vec![statement]).await?;
        Ok(StatementResult::done(tag, notices))
    }

    /// The users; who is no admin sees only themselves.
    pub(super) fn users(&self) -> Result<RecordBatch> {
        let users = self.visible_users()?;
        let word = |origin: &UserOrigin| match origin {
            UserOrigin::Catalog => "sql",
            UserOrigin::Brought => "users file",
        };
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("name", Arc::new(StringArray::from_iter_values(users.iter().map(|(user, _)| &user.name)))),
            ("role", Arc::new(StringArray::from_iter_values(users.iter().map(|(user, _)| user.role.word())))),
            ("has_password", Arc::new(BooleanArray::from_iter(users.iter().map(|(user, _)| Some(user.password.is_some()))))),
            ("limits", Arc::new(StringArray::from_iter_values(users.iter().map(|(user, _)| user.limits.shown())))),
            ("made_by", Arc::new(StringArray::from_iter_values(users.iter().map(|(_, origin)| word(origin))))),
        ];
        Ok(RecordBatch::try_from_iter(columns)?)
    }

    /// What users may do with which relations.
    pub(super) fn grants(&self, of: Option<&Ident>) -> Result<RecordBatch> {
        let catalog = self.engine.shared().catalog.read().clone();
        let mut rows: Vec<(String, &str, String, &str)> = Vec::new();
        for (user, origin) in self.visible_users()? {
            if of.is_some_and(|of| fold(of) != user.name) {
                continue;
            }
            if user.role == Role::Admin || origin == UserOrigin::Brought {
                for schema in [PUBLIC_SCHEMA, SYSTEM_SCHEMA] {
                    let usable = Privilege::ALL.iter().filter(|privilege| privilege.role() <= user.role);
                    let usable = usable.filter(|privilege| schema == PUBLIC_SCHEMA || **privilege == Privilege::Select);
                    let on = Scope::Schema(schema.to_string()).to_string();
                    rows.extend(usable.map(|privilege| (user.name.clone(), privilege.word(), on.clone(), "role")));
                }
            }
            let granted = catalog.access.granted(&user.name);
            rows.extend(granted.map(|(on, privilege)| (user.name.clone(), privilege.word(), on.to_string(), "grant")));
        }
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("name", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.0)))),
            ("privilege", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1)))),
            ("on", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.2)))),
            ("by", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.3)))),
        ];
        Ok(RecordBatch::try_from_iter(columns)?)
    }

    fn visible_users(&self) -> Result<Vec<(UserDef, UserOrigin)>> {
        if !self.sees_everybody()? {
            let SessionUser::Named(name) = self.user() else { return Ok(Vec::new()) };
            return Ok(self.engine.user(name).into_iter().collect());
        }
        Ok(self.engine.users())
    }
}
