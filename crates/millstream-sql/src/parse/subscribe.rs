//! `SUBSCRIBE [TO] view | (query) [WITH (snapshot = .., progress = ..)] [AS OF EPOCH n] [UP TO EPOCH n]`.

use sqlparser::tokenizer::Token;

use super::{StatementParser, is_word};
use crate::error::{Result, SqlError};
use crate::statement::{Subscribe, SubscribeSource};
use crate::tokens::QueryEnd;

impl StatementParser<'_> {
    pub(super) fn subscribe(&mut self) -> Result<Subscribe> {
        self.expect(&["subscribe"])?;
        self.eat(&["to"]);
        let next = self.tokens.get(self.parser.index() + 1);
        let source = if self.is_token(&Token::LParen) && !is_word(next, "snapshot") {
            self.expect_token(&Token::LParen)?;
            let query = self.query(QueryEnd::Emit)?;
            self.expect_token(&Token::RParen)?;
            SubscribeSource::Query(query)
        } else if self.is("select") || self.is("values") {
            return Err(SqlError::new("the query of SUBSCRIBE stands in parentheses")
                .with_hint("Write `SUBSCRIBE TO (SELECT ...)`.")
                .at(self.span()));
        } else {
            SubscribeSource::Name(self.name()?)
        };
        let mut subscribe = Subscribe { source, snapshot: true, progress: false, as_of: None, up_to: None };
        loop {
            let span = self.span();
            if self.is("with") {
                for (key, value) in self.with_options()? {
                    let flag = match value.to_lowercase().as_str() {
                        "true" | "on" | "1" => true,
                        "false" | "off" | "0" => false,
                        _ => {
                            return Err(SqlError::new(format!("option \"{key}\" of SUBSCRIBE is \"{value}\""))
                                .with_hint("It is true or false.")
                                .at(span));
                        }
                    };
                    match key.as_str() {
                        "snapshot" => subscribe.snapshot = flag,
                        "progress" => subscribe.progress = flag,
                        _ => {
                            return Err(SqlError::new(format!("SUBSCRIBE has no option \"{key}\""))
                                .with_hint("Options are snapshot and progress.")
                                .at(span));
                        }
                    }
                }
            } else if self.eat(&["as", "of", "epoch"]) {
                subscribe.as_of = Some(self.number()?);
            } else if self.eat(&["up", "to", "epoch"]) {
                subscribe.up_to = Some(self.number()?);
            } else {
                break;
            }
        }
        if let (Some(from), Some(to)) = (subscribe.as_of, subscribe.up_to)
            && from > to
        {
            return Err(SqlError::new(format!("the subscription ends at epoch {to}, before it begins at epoch {from}")));
        }
        Ok(subscribe)
    }
}
