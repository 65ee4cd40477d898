//! `CREATE SINK`.
//!
//! The clauses may come in any order. After `AS SELECT ..` an ORDER BY belongs to the query, unless another clause of the
//! sink stands between them.

use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::StatementParser;
use crate::error::{Result, SqlError};
use crate::statement::{ColumnKind, CreateSink, Emit, SinkSource, Statement};
use crate::tokens::QueryEnd;

impl StatementParser<'_> {
    pub(super) fn create_sink(&mut self, or_replace: bool) -> Result<Statement> {
        let if_not_exists = self.if_not_exists();
        let name = self.name()?;
        let elements = self.elements()?;
        if let Some(span) = elements.watermark_span {
            return Err(SqlError::new(format!("sink {name} has a WATERMARK")).with_hint("Event time is declared on the stream.").at(span));
        }
        if let Some(column) = elements.columns.iter().find(|column| column.kind != ColumnKind::Physical) {
            return Err(SqlError::new(format!("column \"{}\" of sink {name} is computed", column.name.value))
                .with_hint("A sink writes what its query gives: compute the column in the SELECT.")
                .at(column.name.span));
        }
        let mut sink = CreateSink {
            or_replace,
            if_not_exists,
            name,
            columns: elements.columns,
            primary_key: elements.primary_key,
            partition_by: Vec::new(),
            order_by: Vec::new(),
            source: None,
            options: Vec::new(),
        };
        let mut emit = Emit::None;
        while !self.at_statement_end() {
            let span = self.span();
            let twice = |what: &str| SqlError::new(format!("{what} is given twice")).at(span);
            if self.is("from") || self.is("as") {
                if sink.source.is_some() {
                    return Err(twice("the source of the sink"));
                }
                sink.source = Some(if self.eat(&["from"]) {
                    SinkSource::From { name: self.name()?, emit: Emit::None }
                } else {
                    self.expect(&["as"])?;
                    SinkSource::Query { query: self.query(QueryEnd::Sink)?, emit: Emit::None }
                });
            } else if self.is("emit") {
                if emit != Emit::None {
                    return Err(twice("EMIT"));
                }
                emit = self.emit()?;
            } else if self.eat(&["primary", "key"]) {
                if !sink.primary_key.is_empty() {
                    return Err(twice("PRIMARY KEY"));
                }
                sink.primary_key = self.ident_list()?;
                self.eat(&["not", "enforced"]);
            } else if self.eat(&["partitioned", "by"]) || self.eat(&["partition", "by"]) {
                if !sink.partition_by.is_empty() {
                    return Err(twice("PARTITIONED BY"));
                }
                sink.partition_by = self.ident_list()?;
            } else if self.eat(&["order", "by"]) {
                if !sink.order_by.is_empty() {
                    return Err(twice("ORDER BY"));
                }
                let is_enclosed = self.eat_token(&Token::LParen);
                sink.order_by = self.run(|parser| parser.parse_comma_separated(Parser::parse_order_by_expr))?;
                if is_enclosed {
                    self.expect_token(&Token::RParen)?;
                }
            } else if self.is("with") && sink.options.is_empty() {
                sink.options = self.with_options()?;
            } else {
                return Err(self
                    .unexpected("FROM, AS, EMIT, PRIMARY KEY, PARTITIONED BY, ORDER BY or WITH")
                    .with_hint("A sink is written `CREATE SINK k AS SELECT ... EMIT ... WITH (connector = 'parquet', path = '...')`."));
            }
        }
        match (&mut sink.source, emit) {
            (_, Emit::Changes { limit: Some(_) }) => {
                return Err(SqlError::new(format!("sink {} has EMIT CHANGES LIMIT, which ends a live query", sink.name))
                    .with_hint("Leave LIMIT out, or put it into the query."));
            }
            (Some(SinkSource::From { emit: of_source, .. } | SinkSource::Query { emit: of_source, .. }), emit) => *of_source = emit,
            (None, Emit::None) => {}
            (None, _) => {
                return Err(SqlError::new(format!("sink {} has EMIT but nothing to emit", sink.name))
                    .with_hint("EMIT belongs to the query: `INSERT INTO sink SELECT ... EMIT ...`."));
            }
        }
        Ok(Statement::CreateSink(sink))
    }
}
