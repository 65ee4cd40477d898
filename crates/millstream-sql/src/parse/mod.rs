//! From text to statements.
//!
//! Our own statements are read by hand, with sqlparser's methods for names, types, expressions and queries. Everything else
//! goes to DataFusion's parser unchanged. A statement is read from tokens, never from text; see the `tokens` module for
//! what happens to them first.

mod access;
mod alter;
mod columns;
mod copy;
mod create;
mod cursor;
mod external_table;
mod insert;
mod options;
mod prepare;
mod query;
mod session;
mod show;
mod sink;
mod stream;
mod subscribe;
mod types;
mod view;

#[cfg(test)]
mod tests;

use datafusion::sql::parser::{DFParserBuilder, Statement as DfStatement};
use sqlparser::ast::{self, Expr, Ident, ObjectName, Query};
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan};

use crate::dialect::DIALECT;
use crate::error::{Position, Result, ScriptError, SqlError};
use crate::split::{LineOffsets, Split, split};
use crate::statement::{QueryStatement, Statement};
use crate::tokens::{self, QueryEnd, Tokens, are_words, is_word};

pub(crate) use types::normalize_type;

/// How deep a statement may nest before it is refused.
const RECURSION_LIMIT: usize = 200;

/// The words a statement may start with, for suggestions.
const LEADING_WORDS: [&str; 40] = [
    "ALTER",
    "ANALYZE",
    "BEGIN",
    "CANCEL",
    "CHECKPOINT",
    "CLOSE",
    "COMMIT",
    "COPY",
    "CREATE",
    "DEALLOCATE",
    "DECLARE",
    "DELETE",
    "DESCRIBE",
    "DISCARD",
    "DROP",
    "EXECUTE",
    "EXPLAIN",
    "FETCH",
    "FROM",
    "GRANT",
    "INSERT",
    "MOVE",
    "PAUSE",
    "PREPARE",
    "REFRESH",
    "RESET",
    "RESUME",
    "REVOKE",
    "ROLLBACK",
    "SELECT",
    "SET",
    "SHOW",
    "START",
    "STOP",
    "SUBSCRIBE",
    "TRUNCATE",
    "UPDATE",
    "USE",
    "VALUES",
    "WITH",
];

/// Parses exactly one statement; a `;` after it is allowed.
///
/// # Errors
/// Text that is no statement, or more than one.
pub fn parse_statement(text: &str) -> Result<Statement> {
    let mut parser = StatementParser::new(text)?;
    let statement = parser.statement()?;
    while parser.eat_token(&Token::SemiColon) {}
    if !parser.at_end() {
        return Err(parser.unexpected("the end of the statement"));
    }
    Ok(statement)
}

/// Parses one expression.
///
/// # Errors
/// Text that is no expression.
pub fn parse_expression(text: &str) -> Result<Expr> {
    let mut parser = StatementParser::new(text)?;
    let expr = parser.run(Parser::parse_expr)?;
    if parser.at_end() { Ok(expr) } else { Err(parser.unexpected("the end of the expression")) }
}

/// Parses one query without `EMIT`.
///
/// # Errors
/// Text that is no query.
pub fn parse_query(text: &str) -> Result<Box<Query>> {
    let mut parser = StatementParser::new(text)?;
    let query = parser.query(QueryEnd::Emit)?;
    if parser.at_end() { Ok(query) } else { Err(parser.unexpected("the end of the query")) }
}

/// The statements of a script, parsed one by one, so that the first run before the last are read.
///
/// The iterator ends after an error.
#[derive(Clone, Debug)]
pub struct Script<'a> {
    split: Split<'a>,
    next: usize,
    is_broken: bool,
}

/// A statement and where it stands in its script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptStatement<'a> {
    /// The statement.
    pub statement: Statement,
    /// Its text, without the `;`.
    pub text: &'a str,
    /// The line of the script on which it starts, from 1.
    pub first_line: u64,
    /// The column at which it starts, from 1.
    pub first_column: u64,
    /// The byte at which it starts.
    pub offset: usize,
}

impl ScriptStatement<'_> {
    /// An error in this statement (of planning, say) with its place counted within the script.
    pub fn locate(&self, error: SqlError) -> SqlError {
        error.shifted(Position { line: self.first_line, column: self.first_column })
    }
}

/// The statements of `script`. Collect it into a `Result<Vec<_>, _>` to have all or the first error.
pub fn parse_script(script: &str) -> Script<'_> {
    Script { split: split(script), next: 0, is_broken: false }
}

impl<'a> Iterator for Script<'a> {
    type Item = Result<ScriptStatement<'a>, ScriptError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_broken {
            return None;
        }
        let statement_index = self.next;
        let Some(text) = self.split.statements.get(statement_index) else {
            return self.split.error.take().map(|error| Err(ScriptError { error, statement_index }));
        };
        self.next += 1;
        Some(match parse_statement(text.text) {
            Ok(statement) => Ok(ScriptStatement {
                statement,
                text: text.text,
                first_line: text.start.line,
                first_column: text.start.column,
                offset: text.offset,
            }),
            Err(error) => {
                self.is_broken = true;
                Err(ScriptError { error: error.shifted(text.start), statement_index })
            }
        })
    }
}

/// Reads one statement from its tokens.
pub(crate) struct StatementParser<'t> {
    text: &'t str,
    tokens: Vec<TokenWithSpan>,
    end: Location,
    parser: Parser<'static>,
}

impl<'t> StatementParser<'t> {
    fn new(text: &'t str) -> Result<Self> {
        let Tokens { list, end } = tokens::tokenize(text)?;
        let parser = sub_parser(list.clone());
        Ok(StatementParser { text, tokens: list, end, parser })
    }

    /// One statement from here to the end of the text.
    fn statement(&mut self) -> Result<Statement> {
        let first = match self.peek() {
            Some(TokenWithSpan { token: Token::Word(word), .. }) if word.quote_style.is_none() => word.value.clone(),
            Some(TokenWithSpan { token: Token::LParen, .. }) => "select".to_owned(),
            Some(TokenWithSpan { token: Token::SemiColon, .. }) | None => {
                return Err(SqlError::new("there is no statement").at(self.span()));
            }
            Some(_) => return Err(self.unexpected("a statement")),
        };
        match first.as_str() {
            "create" => self.create(),
            "insert" => self.insert(),
            "select" | "with" | "values" | "from" | "table" => self.query_statement(),
            "drop" => self.drop(),
            "show" => self.show(),
            "describe" | "desc" => self.describe(),
            "set" => self.set(),
            "reset" => self.reset(),
            "explain" => self.explain(),
            "subscribe" => self.subscribe().map(Statement::Subscribe),
            "copy" => self.copy(),
            "declare" => self.declare_cursor(),
            "fetch" | "move" => self.fetch(),
            "close" => self.close_cursor(),
            "prepare" => self.prepare(),
            "alter" => self.alter(),
            "grant" => self.grant(false),
            "revoke" => self.grant(true),
            "checkpoint" | "pause" | "resume" | "stop" | "refresh" | "cancel" => self.control(),
            "start" if self.are(&["start", "pipeline"]) => self.control(),
            "begin" if self.are(&["begin", "statement"]) => Err(self.statement_set()),
            "execute" if self.are(&["execute", "statement"]) => Err(self.statement_set()),
            "commit" | "end" => self.transaction_end(Statement::Commit),
            "rollback" | "abort" => self.transaction_end(Statement::Rollback),
            _ => self.datafusion_statement(),
        }
    }

    fn query_statement(&mut self) -> Result<Statement> {
        let query = self.query(QueryEnd::Emit)?;
        let emit = self.emit()?;
        Ok(Statement::Query(QueryStatement { query, emit }))
    }

    fn statement_set(&self) -> SqlError {
        SqlError::new("statement sets are not needed here")
            .with_hint("Write each `INSERT INTO sink SELECT ...` as a statement of its own; they run together in one pipeline.")
            .at(self.span())
    }

    /// Gives the rest of the text to DataFusion's parser.
    fn datafusion_statement(&mut self) -> Result<Statement> {
        let start = self.parser.index();
        let statement = self.datafusion_parse(self.tokens[start..].to_vec(), &LEADING_WORDS)?;
        let statement = match statement {
            DfStatement::Statement(statement) => statement,
            other => return Ok(Statement::Other(Box::new(other))),
        };
        Ok(match *statement {
            ast::Statement::Update { .. } => Statement::Update(statement),
            ast::Statement::Delete { .. } => Statement::Delete(statement),
            ast::Statement::Truncate { .. } => Statement::Truncate(statement),
            ast::Statement::Execute { .. } => Statement::Execute(statement),
            ast::Statement::Deallocate { .. } => Statement::Deallocate(statement),
            ast::Statement::StartTransaction { .. } => Statement::Begin,
            _ => Statement::Other(Box::new(DfStatement::Statement(statement))),
        })
    }

    /// Parses `tokens`, which reach to the end of the text, with DataFusion's parser. `choices` are the words that could
    /// stand where the first unknown one does.
    fn datafusion_parse(&mut self, tokens: Vec<TokenWithSpan>, choices: &[&'static str]) -> Result<DfStatement> {
        let mut parser = DFParserBuilder::new(tokens)
            .with_dialect(&DIALECT)
            .with_recursion_limit(RECURSION_LIMIT)
            .build()
            .map_err(|error| SqlError::from_datafusion(error, self.end))?;
        let statement = parser.parse_statement().map_err(|error| self.suggest(SqlError::from_datafusion(error, self.end), choices))?;
        let rest = parser.parser.peek_token();
        if !matches!(rest.token, Token::EOF | Token::SemiColon) {
            return Err(self.unexpected_token("the end of the statement", &rest));
        }
        self.skip_to_end();
        Ok(statement)
    }

    /// Everything up to the `;` is read.
    fn skip_to_end(&mut self) {
        while !self.at_end() && self.peek().is_some_and(|token| token.token != Token::SemiColon) {
            self.parser.advance_token();
        }
    }

    // Looking at tokens. Words are given in lower case.

    fn peek(&self) -> Option<&TokenWithSpan> {
        self.tokens.get(self.parser.index())
    }

    fn at_end(&self) -> bool {
        self.parser.index() >= self.tokens.len()
    }

    /// The end of the statement: of the text, or a `;`.
    fn at_statement_end(&self) -> bool {
        self.peek().is_none_or(|token| token.token == Token::SemiColon)
    }

    fn is(&self, word: &str) -> bool {
        is_word(self.peek(), word)
    }

    fn are(&self, words: &[&str]) -> bool {
        are_words(&self.tokens, self.parser.index(), words)
    }

    fn is_token(&self, token: &Token) -> bool {
        self.peek().is_some_and(|found| found.token == *token)
    }

    fn eat(&mut self, words: &[&str]) -> bool {
        let found = self.are(words);
        if found {
            words.iter().for_each(|_| self.parser.advance_token());
        }
        found
    }

    fn eat_token(&mut self, token: &Token) -> bool {
        let found = self.is_token(token);
        if found {
            self.parser.advance_token();
        }
        found
    }

    fn expect(&mut self, words: &[&str]) -> Result<()> {
        if self.eat(words) { Ok(()) } else { Err(self.unexpected(&words.join(" ").to_uppercase())) }
    }

    fn expect_token(&mut self, token: &Token) -> Result<()> {
        if self.eat_token(token) { Ok(()) } else { Err(self.unexpected(&format!("\"{token}\""))) }
    }

    /// The span of the next token, or the end of the text.
    fn span(&self) -> Span {
        self.peek().map_or(Span::new(self.end, self.end), |token| token.span)
    }

    // Reading parts with sqlparser.

    fn run<T>(&mut self, parse: impl FnOnce(&mut Parser<'static>) -> Result<T, ParserError>) -> Result<T> {
        parse(&mut self.parser).map_err(|error| self.own_words(SqlError::from_parser(error, self.end)))
    }

    fn ident(&mut self) -> Result<Ident> {
        self.run(Parser::parse_identifier)
    }

    fn name(&mut self) -> Result<ObjectName> {
        self.run(|parser| parser.parse_object_name(false))
    }

    /// `(a, b)`.
    fn ident_list(&mut self) -> Result<Vec<Ident>> {
        self.expect_token(&Token::LParen)?;
        let idents = self.run(|parser| parser.parse_comma_separated(Parser::parse_identifier))?;
        self.expect_token(&Token::RParen)?;
        Ok(idents)
    }

    fn number(&mut self) -> Result<u64> {
        self.run(Parser::parse_literal_uint)
    }

    fn string(&mut self) -> Result<String> {
        self.run(Parser::parse_literal_string)
    }

    fn if_not_exists(&mut self) -> bool {
        self.eat(&["if", "not", "exists"])
    }

    // Errors.

    /// `expected .., found ..` at the next token.
    fn unexpected(&self, expected: &str) -> SqlError {
        match self.peek() {
            Some(token) => self.unexpected_token(expected, token),
            None => SqlError::new(format!("expected {expected}, found the end of the statement")).at(self.span()),
        }
    }

    fn unexpected_token(&self, expected: &str, token: &TokenWithSpan) -> SqlError {
        if token.token == Token::EOF {
            return SqlError::new(format!("expected {expected}, found the end of the statement")).at(Span::new(self.end, self.end));
        }
        SqlError::new(format!("expected {expected}, found \"{}\"", self.source(token.span))).at(token.span)
    }

    /// The text of a span as it was typed.
    fn source(&self, span: Span) -> &'t str {
        let offsets = LineOffsets::new(self.text);
        &self.text[offsets.byte(span.start)..offsets.byte(span.end)]
    }

    /// Puts the token as it was typed into sqlparser's message, which quotes the folded one.
    fn own_words(&self, mut error: SqlError) -> SqlError {
        if let Some(start) = error.start
            && let Some(token) = self.tokens.iter().find(|token| Position::from_location(token.span.start) == Some(start))
        {
            let typed = self.source(token.span);
            let folded = format!("found \"{}\"", typed.to_lowercase());
            if let Some(head) = error.message.strip_suffix(&folded) {
                error.message = format!("{head}found \"{typed}\"");
            }
            error.end = Position::from_location(token.span.end);
        }
        error
    }

    /// Adds the nearest of `choices` for the word an error points at.
    fn suggest(&self, error: SqlError, choices: &[&'static str]) -> SqlError {
        let error = self.own_words(error);
        let found = self.tokens.iter().find(|token| Position::from_location(token.span.start) == error.start);
        let near = found.and_then(|token| millstream_types::suggest::nearest(self.source(token.span), choices.iter().copied()));
        match near {
            Some(near) if error.hint.is_none() && !self.source_is(found, near) => error.with_hint(format!("Did you mean {near}?")),
            _ => error,
        }
    }

    fn source_is(&self, token: Option<&TokenWithSpan>, word: &str) -> bool {
        token.is_some_and(|token| self.source(token.span).eq_ignore_ascii_case(word))
    }
}

/// A sqlparser parser over `tokens`.
fn sub_parser(tokens: Vec<TokenWithSpan>) -> Parser<'static> {
    Parser::new(&DIALECT).with_recursion_limit(RECURSION_LIMIT).with_tokens_with_locations(tokens)
}
