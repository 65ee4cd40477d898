//! `CREATE VIEW` and `CREATE MATERIALIZED VIEW`.

use sqlparser::tokenizer::Token;

use super::StatementParser;
use crate::error::{Result, SqlError};
use crate::statement::{CreateMaterializedView, CreateView, Emit, Statement};
use crate::tokens::QueryEnd;

impl StatementParser<'_> {
    pub(super) fn create_view(&mut self, or_replace: bool) -> Result<Statement> {
        let if_not_exists = self.if_not_exists();
        let name = self.name()?;
        let columns = if self.is_token(&Token::LParen) { self.ident_list()? } else { Vec::new() };
        self.expect(&["as"])?;
        let query = self.query(QueryEnd::Options)?;
        let span = self.span();
        if self.emit()? != Emit::None {
            return Err(SqlError::new(format!("view {name} is not kept and takes no EMIT"))
                .with_hint(format!("Write `CREATE MATERIALIZED VIEW {name} AS SELECT ... EMIT ...`."))
                .at(span));
        }
        Ok(Statement::CreateView(CreateView { or_replace, if_not_exists, name, columns, query }))
    }

    pub(super) fn create_materialized_view(&mut self, or_replace: bool) -> Result<Statement> {
        let if_not_exists = self.if_not_exists();
        let name = self.name()?;
        let columns = if self.is_token(&Token::LParen) { self.ident_list()? } else { Vec::new() };
        let mut options = self.with_options()?;
        self.expect(&["as"])?;
        let query = self.query(QueryEnd::Options)?;
        let emit = self.emit()?;
        if options.is_empty() {
            options = self.with_options()?;
        }
        if !self.at_statement_end() {
            return Err(self.unexpected("the end of the statement"));
        }
        if matches!(emit, Emit::Changes { limit: Some(_) }) {
            return Err(SqlError::new(format!("materialized view {name} has EMIT CHANGES LIMIT, which ends a live query"))
                .with_hint("Leave LIMIT out, or put it into the query."));
        }
        Ok(Statement::CreateMaterializedView(CreateMaterializedView { or_replace, if_not_exists, name, columns, options, query, emit }))
    }
}
