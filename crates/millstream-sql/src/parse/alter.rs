//! `ALTER kind name PAUSE | RESUME | SET (..) | RESET (..) | RENAME TO ..`.

use sqlparser::tokenizer::Token;

use super::StatementParser;
use crate::error::{Result, SqlError};
use crate::statement::{Alter, AlterAction, ObjectKind, OptionList, Statement};

impl StatementParser<'_> {
    pub(super) fn alter(&mut self) -> Result<Statement> {
        let start = self.parser.index();
        self.expect(&["alter"])?;
        if self.eat(&["user"]) {
            return self.alter_user();
        }
        let Some(kind) = self.object_kind() else {
            let choices = ["STREAM", "TABLE", "VIEW", "MATERIALIZED", "SINK", "QUERY", "PIPELINE", "USER"];
            let tokens = self.tokens[start..].to_vec();
            return Ok(Statement::Other(Box::new(self.datafusion_parse(tokens, &choices)?)));
        };
        let name = if kind == ObjectKind::Pipeline { None } else { Some(self.name()?) };
        let action = if self.eat(&["pause"]) || self.eat(&["suspend"]) {
            AlterAction::Pause
        } else if self.eat(&["resume"]) {
            AlterAction::Resume
        } else if self.eat(&["set"]) {
            AlterAction::Set(self.altered_options()?)
        } else if self.eat(&["reset"]) {
            AlterAction::Reset(self.reset_keys()?)
        } else if name.is_some() && self.eat(&["rename", "to"]) {
            AlterAction::Rename(self.name()?)
        } else {
            let hint = format!("Write `ALTER {} ... PAUSE`, `RESUME`, `SET (key = 'value')` or `RESET (key)`.", kind.sql());
            return Err(SqlError { hint: Some(hint), ..self.unexpected("PAUSE, RESUME, SET, RESET or RENAME TO") });
        };
        Ok(Statement::Alter(Alter { kind, name, action }))
    }

    /// `(key = value, ...)`, or one `key = value`.
    fn altered_options(&mut self) -> Result<OptionList> {
        if self.is_token(&Token::LParen) {
            return self.option_list();
        }
        let key = self.option_key()?;
        if !self.eat_token(&Token::Eq) {
            self.expect(&["to"])?;
        }
        let value = self.option_value(&key)?;
        Ok(vec![(key, value)])
    }

    fn reset_keys(&mut self) -> Result<Vec<String>> {
        if !self.eat_token(&Token::LParen) {
            return Ok(vec![self.option_key()?]);
        }
        let mut keys = vec![self.option_key()?];
        while self.eat_token(&Token::Comma) {
            keys.push(self.option_key()?);
        }
        self.expect_token(&Token::RParen)?;
        Ok(keys)
    }
}
