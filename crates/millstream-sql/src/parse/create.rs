//! `CREATE`: which kind of object, and functions.

use sqlparser::ast::DataType;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::{StatementParser, normalize_type};
use crate::error::{Result, SqlError};
use crate::statement::{CreateFunction, Statement};

/// The kinds of objects that can be created, for suggestions.
const KINDS: [&str; 10] = ["STREAM", "TABLE", "VIEW", "MATERIALIZED", "SINK", "EXTERNAL", "FUNCTION", "SCHEMA", "SOURCE", "USER"];

impl StatementParser<'_> {
    /// `CREATE ..`.
    pub(super) fn create(&mut self) -> Result<Statement> {
        let start = self.parser.index();
        self.expect(&["create"])?;
        let or_replace = self.eat(&["or", "replace"]);
        if self.eat(&["stream"]) || self.eat(&["source"]) {
            return self.create_stream(or_replace);
        }
        if self.eat(&["streaming", "table"]) {
            return self.create_streaming_table(or_replace);
        }
        if self.are(&["external", "table"]) || self.are(&["unbounded", "external", "table"]) {
            return self.create_external_table(start);
        }
        if self.eat(&["temp", "table"]) || self.eat(&["temporary", "table"]) || self.eat(&["table"]) {
            return self.create_table(or_replace);
        }
        if self.eat(&["materialized", "view"]) || self.eat(&["materialized", "table"]) {
            return self.create_materialized_view(or_replace);
        }
        if self.eat(&["temp", "view"]) || self.eat(&["temporary", "view"]) || self.eat(&["view"]) {
            return self.create_view(or_replace);
        }
        if self.eat(&["sink"]) {
            return self.create_sink(or_replace);
        }
        if self.eat(&["function"]) {
            return self.create_function(or_replace);
        }
        if self.eat(&["user"]) {
            return self.create_user();
        }
        if self.is("role") {
            let hint = "CREATE USER name ROLE reader, writer or admin gives a user one of the three roles.";
            return Err(SqlError::new("roles cannot be created").with_hint(hint).at(self.span()));
        }
        if self.is("secret") {
            return Err(SqlError::new("CREATE SECRET is not in this build")
                .with_hint("Take the value from the environment: `password = '${DB_PASSWORD}'`.")
                .at(self.span()));
        }
        let word = self.span();
        let tokens = self.tokens[start..].to_vec();
        let statement = self.datafusion_parse(tokens, &KINDS).map_err(|error| {
            // sqlparser's message lists a hundred kinds; ours are ten.
            let near = millstream_types::suggest::nearest(self.source(word), KINDS);
            match near {
                Some(near) if !KINDS.iter().any(|kind| kind.eq_ignore_ascii_case(self.source(word))) => {
                    SqlError::new(format!("cannot create a \"{}\"", self.source(word))).with_hint(format!("Did you mean {near}?")).at(word)
                }
                _ => error,
            }
        })?;
        Ok(Statement::Other(Box::new(statement)))
    }

    /// `f(a INT, ...) RETURNS type [LANGUAGE SQL] AS $$ expr $$ | RETURN expr`.
    fn create_function(&mut self, or_replace: bool) -> Result<Statement> {
        let if_not_exists = self.if_not_exists();
        let name = self.name()?;
        self.expect_token(&Token::LParen)?;
        let mut arguments = Vec::new();
        while !self.eat_token(&Token::RParen) {
            let argument = self.ident()?;
            arguments.push((argument, self.data_type()?));
            if !self.eat_token(&Token::Comma) && !self.is_token(&Token::RParen) {
                return Err(self.unexpected("\",\" or \")\" after an argument"));
            }
        }
        self.expect(&["returns"])?;
        let returns = self.data_type()?;
        loop {
            if self.eat(&["language"]) {
                let span = self.span();
                let language = self.ident()?;
                if !language.value.eq_ignore_ascii_case("sql") {
                    return Err(SqlError::new(format!("functions in language \"{}\" are not supported", language.value))
                        .with_hint("A function is an SQL expression: `CREATE FUNCTION f(a BIGINT) RETURNS BIGINT RETURN a + 1`.")
                        .at(span));
                }
            } else if !self.eat(&["immutable"]) {
                break;
            }
        }
        let body = if self.eat(&["return"]) {
            self.run(Parser::parse_expr)?
        } else {
            self.expect(&["as"])?;
            let span = self.span();
            let text = match self.peek().map(|token| token.token.clone()) {
                Some(Token::DollarQuotedString(text)) => {
                    self.parser.advance_token();
                    text.value
                }
                _ => self.string()?,
            };
            let expression = text.trim().trim_end_matches(';');
            let expression = match expression.get(..6) {
                Some(select) if select.eq_ignore_ascii_case("select") => &expression[6..],
                _ => expression,
            };
            super::parse_expression(expression).map_err(|error| {
                SqlError { message: format!("in the body of function {name}: {}", error.message), start: None, end: None, ..error }.at(span)
            })?
        };
        Ok(Statement::CreateFunction(CreateFunction { or_replace, if_not_exists, name, arguments, returns, body: Box::new(body) }))
    }

    fn data_type(&mut self) -> Result<DataType> {
        let mut data_type = self.run(Parser::parse_data_type)?;
        normalize_type(&mut data_type);
        Ok(data_type)
    }
}
