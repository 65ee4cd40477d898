//! `SHOW`, `DESCRIBE` and `EXPLAIN`.

use sqlparser::tokenizer::Token;

use super::prepare::STATEMENTS_OF_STATEMENTS;
use super::{StatementParser, is_word};
use crate::error::{Result, SqlError};
use crate::statement::{Explain, ExplainMode, Show, ShowWhat, Statement};

impl StatementParser<'_> {
    pub(super) fn show(&mut self) -> Result<Statement> {
        self.expect(&["show"])?;
        if self.eat(&["create"]) {
            self.eat_object_kind();
            return Ok(Statement::ShowCreate(self.name()?));
        }
        let what = if self.eat(&["streams"]) || self.eat(&["sources"]) {
            ShowWhat::Streams
        } else if self.eat(&["tables"]) {
            ShowWhat::Tables
        } else if self.eat(&["views"]) {
            ShowWhat::Views
        } else if self.eat(&["materialized", "views"]) {
            ShowWhat::MaterializedViews
        } else if self.eat(&["sinks"]) {
            ShowWhat::Sinks
        } else if self.eat(&["queries"]) {
            ShowWhat::Queries
        } else if self.eat(&["functions"]) {
            ShowWhat::Functions
        } else if self.eat(&["connectors"]) {
            ShowWhat::Connectors
        } else if self.eat(&["users"]) {
            ShowWhat::Users
        } else if self.eat(&["grants"]) {
            let of_user = self.eat(&["for"]) || self.eat(&["to"]);
            ShowWhat::Grants(if of_user { Some(self.ident()?) } else { None })
        } else if self.eat(&["all"]) {
            ShowWhat::All
        } else if self.eat(&["columns"]) {
            if !self.eat(&["from"]) {
                self.expect(&["in"])?;
            }
            ShowWhat::Columns(self.name()?)
        } else if self.eat(&["time", "zone"]) {
            ShowWhat::Variable("timezone".to_owned())
        } else if self.eat(&["transaction", "isolation", "level"]) {
            ShowWhat::Variable("transaction_isolation".to_owned())
        } else {
            ShowWhat::Variable(self.option_key().map_err(|error| {
                error.with_hint("SHOW takes STREAMS, TABLES, VIEWS, SINKS, QUERIES, FUNCTIONS, CONNECTORS, USERS, GRANTS, ALL, or the name of an option.")
            })?)
        };
        let like = if self.eat(&["like"]) { Some(self.string()?) } else { None };
        Ok(Statement::Show(Show { what, like }))
    }

    /// `TABLE`, `MATERIALIZED VIEW` and so on before a name; the kind is known from the name.
    fn eat_object_kind(&mut self) {
        let is_last = self.tokens.get(self.parser.index() + 1).is_none_or(|token| token.token == Token::SemiColon);
        if is_last || self.eat(&["materialized", "view"]) || self.eat(&["external", "table"]) {
            return;
        }
        for kind in ["stream", "source", "table", "view", "sink", "function"] {
            if self.eat(&[kind]) {
                return;
            }
        }
    }

    pub(super) fn describe(&mut self) -> Result<Statement> {
        self.parser.advance_token();
        self.eat_object_kind();
        Ok(Statement::Describe(self.name()?))
    }

    pub(super) fn explain(&mut self) -> Result<Statement> {
        let start = self.parser.index();
        self.expect(&["explain"])?;
        let mut mode = ExplainMode::Logical;
        if self.is_token(&Token::LParen) && !self.parenthesis_opens_query() {
            self.expect_token(&Token::LParen)?;
            loop {
                if self.eat(&["analyze"]) {
                    mode = ExplainMode::Analyze;
                } else if self.eat(&["incremental"]) {
                    mode = ExplainMode::Incremental;
                } else if self.eat(&["verbose"]) {
                    mode = if mode == ExplainMode::Logical { ExplainMode::Verbose } else { mode };
                } else {
                    return Err(self.unexpected("ANALYZE, INCREMENTAL or VERBOSE"));
                }
                if !self.eat_token(&Token::Comma) {
                    break;
                }
            }
            self.expect_token(&Token::RParen)?;
        } else if self.eat(&["incremental"]) {
            mode = ExplainMode::Incremental;
        } else if self.eat(&["analyze"]) {
            mode = ExplainMode::Analyze;
            self.eat(&["verbose"]);
        } else if self.eat(&["verbose"]) {
            mode = ExplainMode::Verbose;
        } else if self.is("format") {
            // DataFusion's choice of formats.
            let tokens = self.tokens[start..].to_vec();
            return Ok(Statement::Other(Box::new(self.datafusion_parse(tokens, &[])?)));
        } else {
            // Flink's words for the same.
            self.eat(&["plan", "for"]);
        }
        let span = self.span();
        // Looked at before it is read, however many stand in each other.
        if let Some(word) = STATEMENTS_OF_STATEMENTS.iter().find(|word| self.is(word)) {
            return Err(no_plan(&word.to_uppercase()).at(span));
        }
        let statement = self.statement()?;
        match statement {
            Statement::Query(_)
            | Statement::CreateMaterializedView(_)
            | Statement::CreateView(_)
            | Statement::CreateSink(_)
            | Statement::CreateStream(_)
            | Statement::CreateTable(_)
            | Statement::InsertInto(_)
            | Statement::Subscribe(_)
            | Statement::Execute(_)
            | Statement::Update(_)
            | Statement::Delete(_)
            | Statement::Other(_)
            | Statement::Copy(_) => Ok(Statement::Explain(Explain { mode, statement: Box::new(statement) })),
            other => {
                let text = other.to_string();
                let word = text.split(' ').next().unwrap_or_default();
                Err(no_plan(word).at(span))
            }
        }
    }

    fn parenthesis_opens_query(&self) -> bool {
        let next = self.tokens.get(self.parser.index() + 1);
        next.is_some_and(|token| token.token == Token::LParen)
            || ["select", "with", "values", "from", "table"].iter().any(|word| is_word(next, word))
    }
}

fn no_plan(word: &str) -> SqlError {
    SqlError::new(format!("{word} has no plan to explain"))
        .with_hint("EXPLAIN takes a query, INSERT, SUBSCRIBE, COPY, or CREATE of a view or sink.")
}
