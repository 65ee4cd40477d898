//! `CREATE USER`, `ALTER USER`, `DROP USER`, `GRANT` and `REVOKE`.

use millstream_types::{Privilege, Role};
use sqlparser::ast::Ident;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::StatementParser;
use crate::error::{Result, SqlError};
use crate::statement::{AlterUser, CreateUser, DropUser, Grant, GrantOn, Password, PasswordChange, Statement, UserOptions};

impl StatementParser<'_> {
    /// `[IF NOT EXISTS] name [WITH] options`.
    pub(super) fn create_user(&mut self) -> Result<Statement> {
        let if_not_exists = self.if_not_exists();
        let name = self.ident()?;
        Ok(Statement::CreateUser(CreateUser { if_not_exists, name, options: self.user_options()? }))
    }

    /// `name [WITH] options`.
    pub(super) fn alter_user(&mut self) -> Result<Statement> {
        let name = self.ident()?;
        let span = self.span();
        let options = self.user_options()?;
        if options == UserOptions::default() {
            return Err(SqlError::new("ALTER USER changes nothing").with_hint(USER_HINT).at(span));
        }
        Ok(Statement::AlterUser(AlterUser { name, options }))
    }

    /// `[IF EXISTS] names`.
    pub(super) fn drop_user(&mut self) -> Result<Statement> {
        let if_exists = self.eat(&["if", "exists"]);
        Ok(Statement::DropUser(DropUser { if_exists, names: self.users()? }))
    }

    fn users(&mut self) -> Result<Vec<Ident>> {
        let mut names = vec![self.ident()?];
        while self.eat_token(&Token::Comma) {
            names.push(self.ident()?);
        }
        Ok(names)
    }

    fn user_options(&mut self) -> Result<UserOptions> {
        let mut options = UserOptions::default();
        self.eat(&["with"]);
        while !self.at_statement_end() {
            let span = self.span();
            let twice = |what: &str| SqlError::new(format!("{what} is given twice")).with_hint("Keep one of them.").at(span);
            if self.eat(&["login"]) {
                continue;
            }
            self.eat(&["encrypted"]);
            if self.eat(&["password"]) {
                if options.password != PasswordChange::Keep {
                    return Err(twice("PASSWORD"));
                }
                options.password = self.password()?;
            } else if self.eat(&["role"]) {
                let word = self.span();
                // A name without quotes, or in them.
                let role = self.option_value("role")?;
                let role = role.parse::<Role>().map_err(|()| {
                    SqlError::new(format!("role \"{role}\" does not exist")).with_hint("The roles are reader, writer and admin.").at(word)
                })?;
                if options.role.replace(role).is_some() {
                    return Err(twice("ROLE"));
                }
            } else if self.eat(&["limits"]) {
                for (key, value) in self.option_list()? {
                    if options.limits.iter().any(|(other, _)| *other == key) {
                        return Err(twice(&format!("limit \"{key}\"")));
                    }
                    options.limits.push((key, value));
                }
            } else if self.eat(&["connection", "limit"]) {
                if options.limits.iter().any(|(key, _)| key == "connections") {
                    return Err(twice("limit \"connections\""));
                }
                options.limits.push(("connections".to_owned(), self.number()?.to_string()));
            } else {
                return Err(self.unexpected("PASSWORD, ROLE, LIMITS or the end of the statement").with_hint(USER_HINT));
            }
        }
        Ok(options)
    }

    /// `'..'` or `NULL`. What stands there instead is not repeated in the error: it may be the password.
    fn password(&mut self) -> Result<PasswordChange> {
        if self.eat(&["null"]) {
            return Ok(PasswordChange::Remove);
        }
        match self.peek() {
            Some(TokenWithSpan { token: Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text), .. }) if !text.is_empty() => {
                let password = Password::new(text.clone());
                self.parser.advance_token();
                Ok(PasswordChange::Set(password))
            }
            _ => Err(SqlError::new("expected a password in single quotes after PASSWORD")
                .with_hint("Write PASSWORD '..', or PASSWORD NULL for a user without one.")
                .at(self.span())),
        }
    }

    /// `GRANT` and `REVOKE`.
    pub(super) fn grant(&mut self, revokes: bool) -> Result<Statement> {
        self.parser.advance_token();
        let privileges = self.privileges()?;
        self.expect(&["on"])?;
        let on = self.granted_on()?;
        self.expect(&[if revokes { "from" } else { "to" }])?;
        let users = self.users()?;
        if self.are(&["with", "grant"]) {
            let error =
                SqlError::new("WITH GRANT OPTION is not supported").with_hint("Admins alone grant; make the user one with ALTER USER.");
            return Err(error.at(self.span()));
        }
        if revokes {
            let _ = self.eat(&["restrict"]) || self.eat(&["cascade"]);
        }
        Ok(Statement::Grant(Grant { revokes, privileges, on, users }))
    }

    fn privileges(&mut self) -> Result<Vec<Privilege>> {
        if self.eat(&["all"]) {
            self.eat(&["privileges"]);
            return Ok(Privilege::ALL.to_vec());
        }
        let mut privileges = Vec::new();
        loop {
            let Some(privilege) = Privilege::ALL.into_iter().find(|privilege| self.eat(&[&privilege.word().to_lowercase()])) else {
                let hint = "Roles are given by ALTER USER name ROLE ..; privileges are GRANT SELECT ON view TO name.";
                return Err(self.unexpected("SELECT, INSERT, UPDATE, DELETE, TRUNCATE or ALL").with_hint(hint));
            };
            privileges.push(privilege);
            if !self.eat_token(&Token::Comma) {
                privileges.sort_unstable();
                privileges.dedup();
                return Ok(privileges);
            }
        }
    }

    fn granted_on(&mut self) -> Result<GrantOn> {
        if self.are(&["all", "tables"]) {
            let hint = "Write ON SCHEMA public: that is all its relations, also those that are made later.";
            return Err(SqlError::new("ALL TABLES IN SCHEMA is not supported").with_hint(hint).at(self.span()));
        }
        if self.eat(&["schema"]) {
            return Ok(GrantOn::Schemas(self.users()?));
        }
        let kind_follows = |parser: &Self, words: &[&str]| {
            let next = parser.tokens.get(parser.parser.index() + words.len());
            parser.are(words)
                && matches!(next.map(|token| &token.token), Some(Token::Word(word)) if word.value != "to" && word.value != "from")
        };
        for words in [&["materialized", "view"][..], &["external", "table"], &["stream"], &["table"], &["view"], &["sink"]] {
            if kind_follows(self, words) && self.eat(words) {
                break;
            }
        }
        let mut names = vec![self.name()?];
        while self.eat_token(&Token::Comma) {
            names.push(self.name()?);
        }
        Ok(GrantOn::Objects(names))
    }
}

const USER_HINT: &str = "CREATE USER name PASSWORD '..' ROLE reader LIMITS (rows = 100000, statement_timeout = '30s').";
