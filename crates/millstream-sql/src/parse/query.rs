//! Queries and the `EMIT` clause after them.

use sqlparser::ast::{Query, SetExpr};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::{StatementParser, sub_parser};
use crate::error::{Result, SqlError};
use crate::literal::parse_duration;
use crate::statement::Emit;
use crate::tokens::{QueryEnd, clause_start};

/// Words that may follow in a query, for suggestions.
const QUERY_WORDS: [&str; 18] = [
    "FROM",
    "WHERE",
    "GROUP",
    "HAVING",
    "WINDOW",
    "QUALIFY",
    "ORDER",
    "LIMIT",
    "OFFSET",
    "UNION",
    "INTERSECT",
    "EXCEPT",
    "JOIN",
    "LEFT",
    "RIGHT",
    "FULL",
    "CROSS",
    "EMIT",
];

const EMIT_HINT: &str = "Write EMIT ON WINDOW CLOSE, EMIT CHANGES [LIMIT n] or EMIT PERIODIC INTERVAL '1 minute'.";

impl StatementParser<'_> {
    /// A query up to the clauses that may follow it.
    pub(super) fn query(&mut self, end: QueryEnd) -> Result<Box<Query>> {
        let start = self.parser.index();
        let cut = clause_start(&self.tokens, start, end);
        let cut = self.tokens[start..cut].iter().position(|token| token.token == Token::SemiColon).map_or(cut, |offset| start + offset);
        if start == cut {
            return Err(self.unexpected("a query"));
        }
        let end = self.tokens.get(cut).map_or(self.end, |token| token.span.start);
        let mut parser = sub_parser(self.tokens[start..cut].to_vec());
        let query = parser.parse_query().map_err(|error| self.suggest(SqlError::from_parser(error, end), &QUERY_WORDS))?;
        let rest = parser.peek_token();
        if rest.token != Token::EOF {
            return Err(self.suggest(self.unexpected_token("the end of the query", &rest), &QUERY_WORDS));
        }
        while self.parser.index() < cut {
            self.parser.advance_token();
        }
        if matches!(*query.body, SetExpr::Insert(_)) {
            return Err(SqlError::new("INSERT stands after WITH").with_hint("Write `INSERT INTO target WITH name AS (...) SELECT ...`."));
        }
        if !matches!(*query.body, SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_)) {
            return Ok(query);
        }
        Err(SqlError::new("a query that changes rows is not supported")
            .with_hint("Write the UPDATE, DELETE or MERGE as a statement of its own."))
    }

    /// An `EMIT` clause, if one follows.
    pub(super) fn emit(&mut self) -> Result<Emit> {
        if !self.eat(&["emit"]) {
            return Ok(Emit::None);
        }
        if self.eat(&["final"]) {
            if self.is("on") {
                return Err(SqlError::new("EMIT FINAL takes no column")
                    .with_hint("Write EMIT ON WINDOW CLOSE; the bounded column is found from the query.")
                    .at(self.span()));
            }
            return Ok(Emit::OnWindowClose);
        }
        if self.eat(&["on", "window", "close"]) {
            return Ok(Emit::OnWindowClose);
        }
        if self.eat(&["changes"]) {
            let limit = if self.eat(&["limit"]) { Some(self.number()?) } else { None };
            return Ok(Emit::Changes { limit });
        }
        if self.eat(&["periodic"]) {
            let span = self.span();
            let expr = self.run(Parser::parse_expr)?;
            let period = parse_duration(&expr).map_err(|error| error.at(span))?;
            if period.is_zero() {
                return Err(SqlError::new("the period of EMIT PERIODIC is zero").with_hint("EMIT CHANGES emits every change.").at(span));
            }
            return Ok(Emit::Periodic(period));
        }
        Err(self.unexpected("ON WINDOW CLOSE, CHANGES or PERIODIC after EMIT").with_hint(EMIT_HINT))
    }
}
