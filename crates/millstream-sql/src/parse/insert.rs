//! `INSERT INTO target [AS name] [(columns)] query [EMIT ..]`.

use sqlparser::tokenizer::Token;

use super::{StatementParser, is_word};
use crate::error::{Result, SqlError};
use crate::statement::{Emit, InsertInto, Statement};
use crate::tokens::{QueryEnd, are_words};

impl StatementParser<'_> {
    pub(super) fn insert(&mut self) -> Result<Statement> {
        self.expect(&["insert"])?;
        if self.is("overwrite") {
            return Err(SqlError::new("INSERT OVERWRITE is not supported")
                .with_hint("A sink that holds the whole result is one with `mode = 'complete'`.")
                .at(self.span()));
        }
        self.expect(&["into"])?;
        // A table could be called `table`.
        if self.is("table") && self.tokens.get(self.parser.index() + 1).is_none_or(|token| token.token != Token::LParen) {
            self.parser.advance_token();
        }
        let target = self.name()?;
        let query_name = if self.eat(&["as"]) { Some(self.ident()?) } else { None };
        let columns = if self.starts_column_list() { self.ident_list()? } else { Vec::new() };
        let rest = self.parser.index()..self.tokens.len();
        if let Some(at) = rest.into_iter().find(|&at| are_words(&self.tokens, at, &["on", "conflict"])) {
            return Err(SqlError::new("INSERT ... ON CONFLICT is not supported")
                .with_hint("A key that the table has already is an error; UPDATE its row, or DELETE it before in the same transaction.")
                .at(self.tokens[at].span));
        }
        let source = self.query(QueryEnd::Emit)?;
        let emit = self.emit()?;
        let insert = InsertInto { target, query_name, columns, source, emit };
        if insert.is_values() && (insert.emit != Emit::None || insert.query_name.is_some()) {
            return Err(SqlError::new("INSERT ... VALUES runs once and takes neither a query name nor EMIT")
                .with_hint("Only `INSERT INTO sink SELECT ...` is a continuous query."));
        }
        if matches!(insert.emit, Emit::Changes { limit: Some(_) }) {
            return Err(SqlError::new("INSERT takes no EMIT CHANGES LIMIT, which ends a live query")
                .with_hint("Leave LIMIT out, or put it into the query."));
        }
        Ok(Statement::InsertInto(insert))
    }

    /// True before `(a, b)`, false before `(SELECT ..)`.
    fn starts_column_list(&self) -> bool {
        let index = self.parser.index();
        let next = self.tokens.get(index + 1);
        self.is_token(&Token::LParen)
            && matches!(next.map(|token| &token.token), Some(Token::Word(_)))
            && !["select", "with", "values", "from"].iter().any(|word| is_word(next, word))
    }
}
