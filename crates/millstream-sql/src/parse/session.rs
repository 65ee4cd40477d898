//! `SET`, `RESET`, `DROP`, transactions, and the statements that steer the pipeline.

use sqlparser::tokenizer::{Span, Token};

use super::StatementParser;
use crate::error::{Result, SqlError};
use crate::statement::{Drop, ObjectKind, PipelineAction, Set, Statement};

impl StatementParser<'_> {
    /// `SET [SESSION | LOCAL] name = | TO value`.
    pub(super) fn set(&mut self) -> Result<Statement> {
        self.expect(&["set"])?;
        if !self.are(&["session", "="]) {
            let _ = self.eat(&["session"]) || self.eat(&["local"]);
        }
        if self.eat(&["time", "zone"]) {
            let value = self.set_value("timezone")?;
            return Ok(Statement::Set(Set { name: "timezone".to_owned(), value }));
        }
        if self.is("transaction") || self.are(&["characteristics", "as", "transaction"]) {
            let span = self.span();
            self.skip_to_end();
            let value = self.source(Span::new(span.start, self.end)).trim_end_matches([';', ' ']).to_lowercase();
            return Ok(Statement::Set(Set { name: "transaction".to_owned(), value }));
        }
        if self.eat(&["names"]) {
            let value = self.set_value("client_encoding")?;
            return Ok(Statement::Set(Set { name: "client_encoding".to_owned(), value }));
        }
        let name = self.option_key().map_err(|error| error.with_hint("Write `SET name = value`."))?;
        if !self.eat_token(&Token::Eq) && !self.eat(&["to"]) {
            return Err(self.unexpected("\"=\" or TO").with_hint(format!("Write `SET {name} = value`.")));
        }
        let value = self.set_value(&name)?;
        Ok(Statement::Set(Set { name, value }))
    }

    /// One value, or several joined by `, `. Words keep their capitals: `SET timezone = UTC`.
    fn set_value(&mut self, name: &str) -> Result<String> {
        let mut values = Vec::new();
        loop {
            let span = self.span();
            let is_word = matches!(self.peek().map(|token| &token.token), Some(Token::Word(word)) if word.quote_style.is_none());
            let value = self.option_value(name)?;
            let as_typed = is_word && value.eq_ignore_ascii_case(self.source(span));
            values.push(if as_typed { self.source(span).to_owned() } else { value });
            if !self.eat_token(&Token::Comma) {
                return Ok(values.join(", "));
            }
        }
    }

    pub(super) fn reset(&mut self) -> Result<Statement> {
        self.expect(&["reset"])?;
        if self.eat(&["all"]) {
            return Ok(Statement::Reset(None));
        }
        Ok(Statement::Reset(Some(self.option_key()?)))
    }

    pub(super) fn drop(&mut self) -> Result<Statement> {
        let start = self.parser.index();
        self.expect(&["drop"])?;
        if self.eat(&["user"]) {
            return self.drop_user();
        }
        let Some(kind) = self.object_kind() else {
            let choices = ["STREAM", "TABLE", "VIEW", "MATERIALIZED", "SINK", "FUNCTION", "SCHEMA", "USER"];
            let tokens = self.tokens[start..].to_vec();
            return Ok(Statement::Other(Box::new(self.datafusion_parse(tokens, &choices)?)));
        };
        let if_exists = self.eat(&["if", "exists"]);
        let mut names = vec![self.name()?];
        while self.eat_token(&Token::Comma) {
            names.push(self.name()?);
        }
        let cascade = self.eat(&["cascade"]);
        if !cascade {
            self.eat(&["restrict"]);
        }
        Ok(Statement::Drop(Drop { kind, if_exists, names, cascade }))
    }

    /// The keywords of a kind of object.
    pub(super) fn object_kind(&mut self) -> Option<ObjectKind> {
        let kinds: [(&[&str], ObjectKind); 12] = [
            (&["stream"], ObjectKind::Stream),
            (&["source"], ObjectKind::Stream),
            (&["streaming", "table"], ObjectKind::Stream),
            (&["external", "table"], ObjectKind::Table),
            (&["table"], ObjectKind::Table),
            (&["view"], ObjectKind::View),
            (&["materialized", "view"], ObjectKind::MaterializedView),
            (&["materialized", "table"], ObjectKind::MaterializedView),
            (&["sink"], ObjectKind::Sink),
            (&["query"], ObjectKind::Query),
            (&["function"], ObjectKind::Function),
            (&["pipeline"], ObjectKind::Pipeline),
        ];
        kinds.into_iter().find_map(|(words, kind)| self.eat(words).then_some(kind))
    }

    /// `CHECKPOINT`, `PAUSE PIPELINE`, `REFRESH TABLE x`, `CANCEL QUERY id`.
    pub(super) fn control(&mut self) -> Result<Statement> {
        if self.eat(&["checkpoint"]) {
            return Ok(Statement::Checkpoint);
        }
        if self.eat(&["refresh"]) {
            let _ = self.eat(&["external", "table"]) || self.eat(&["table"]);
            return Ok(Statement::RefreshTable(self.name()?));
        }
        if self.eat(&["cancel"]) {
            self.expect(&["query"])?;
            return Ok(Statement::CancelQuery(self.option_value("query")?));
        }
        let actions = [
            ("start", PipelineAction::Start),
            ("stop", PipelineAction::Stop),
            ("pause", PipelineAction::Pause),
            ("resume", PipelineAction::Resume),
        ];
        let action = actions.into_iter().find_map(|(word, action)| self.eat(&[word]).then_some((word, action)));
        let Some((word, action)) = action else { return Err(self.unexpected("a statement")) };
        let word = word.to_uppercase();
        let kind_is_pipeline = self.eat(&["pipeline"]);
        if !kind_is_pipeline {
            let hint = format!(
                "Write `{word} PIPELINE`; a single query is paused by `ALTER SINK name PAUSE` or `ALTER MATERIALIZED VIEW name PAUSE`."
            );
            return Err(self.unexpected("PIPELINE").with_hint(hint));
        }
        Ok(Statement::Pipeline(action))
    }

    /// `COMMIT`, `ROLLBACK` and their synonyms.
    pub(super) fn transaction_end(&mut self, statement: Statement) -> Result<Statement> {
        if self.are(&["rollback", "to"]) || self.are(&["commit", "prepared"]) || self.are(&["rollback", "prepared"]) {
            return self.datafusion_statement();
        }
        self.parser.advance_token();
        let _ = self.eat(&["transaction"]) || self.eat(&["work"]);
        if self.are(&["and"]) {
            return Err(SqlError::new("AND CHAIN is not supported").with_hint("Write BEGIN again.").at(self.span()));
        }
        Ok(statement)
    }
}
