//! The list of columns of a stream, a table or a sink, with watermark and key.

use std::time::Duration;

use sqlparser::ast::{ArrayElemTypeDef, BinaryOperator, DataType, Expr, Ident};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Span, Token};

use super::{StatementParser, normalize_type, sub_parser};
use crate::error::{Result, SqlError};
use crate::literal::parse_duration;
use crate::statement::{ColumnDef, ColumnKind, Watermark};

/// What stands between the parentheses after the name of a stream or a table.
#[derive(Debug, Default)]
pub(super) struct Elements {
    pub(super) columns: Vec<ColumnDef>,
    pub(super) watermark: Option<Watermark>,
    /// Where `WATERMARK` stands, for errors.
    pub(super) watermark_span: Option<Span>,
    pub(super) primary_key: Vec<Ident>,
    pub(super) append_only: bool,
}

const WATERMARK_HINT: &str = "Write `WATERMARK FOR ts AS ts - INTERVAL '5 seconds'`, or `WATERMARK FOR ts` when rows come in order.";

impl StatementParser<'_> {
    /// `(element, ...)`, or nothing.
    pub(super) fn elements(&mut self) -> Result<Elements> {
        let mut elements = Elements::default();
        if !self.eat_token(&Token::LParen) {
            return Ok(elements);
        }
        while !self.eat_token(&Token::RParen) {
            self.element(&mut elements)?;
            if !self.eat_token(&Token::Comma) && !self.is_token(&Token::RParen) {
                return Err(self.unexpected("\",\" or \")\" after a column"));
            }
        }
        Ok(elements)
    }

    fn element(&mut self, elements: &mut Elements) -> Result<()> {
        let span = self.span();
        if self.eat(&["watermark", "for"]) {
            if elements.watermark.is_some() {
                return Err(SqlError::new("WATERMARK is given twice").with_hint("A stream has one event-time column.").at(span));
            }
            elements.watermark = Some(self.watermark()?);
            elements.watermark_span = Some(span);
            return Ok(());
        }
        if self.eat(&["append", "only"]) {
            elements.append_only = true;
            return Ok(());
        }
        if self.eat(&["constraint"]) {
            self.ident()?;
            if !self.are(&["primary", "key"]) {
                return Err(self.unsupported_constraint(span));
            }
        }
        if self.eat(&["primary", "key"]) {
            let key = self.ident_list()?;
            self.eat(&["not", "enforced"]);
            return set_primary_key(elements, key, span);
        }
        let starts_constraint = self.are(&["foreign", "key"])
            || ["unique", "check"]
                .iter()
                .any(|word| self.is(word) && self.tokens.get(self.parser.index() + 1).is_some_and(|token| token.token == Token::LParen));
        if starts_constraint {
            return Err(self.unsupported_constraint(span));
        }
        let (column, is_key) = self.column()?;
        if elements.columns.iter().any(|other| other.name.value == column.name.value) {
            return Err(SqlError::new(format!("column \"{}\" is declared twice", column.name.value)).at(column.name.span));
        }
        if is_key {
            set_primary_key(elements, vec![column.name.clone()], span)?;
        }
        elements.columns.push(column);
        Ok(())
    }

    fn unsupported_constraint(&self, span: Span) -> SqlError {
        SqlError::new(format!("the constraint \"{}\" is not supported", self.source(span)))
            .with_hint("Constraints are NOT NULL and PRIMARY KEY (columns).")
            .at(span)
    }

    /// `column [AS column - interval]`, after `WATERMARK FOR`.
    pub(super) fn watermark(&mut self) -> Result<Watermark> {
        let column = self.ident()?;
        if !self.eat(&["as"]) {
            return Ok(Watermark { column, delay: Duration::ZERO });
        }
        let span = self.span();
        let expr = self.run(Parser::parse_expr)?;
        let is_column = |expr: &Expr| matches!(expr, Expr::Identifier(ident) if ident.value == column.value);
        let delay = match &expr {
            expr if is_column(expr) => Duration::ZERO,
            Expr::BinaryOp { left, op: BinaryOperator::Minus, right } if is_column(left) => {
                parse_duration(right).map_err(|error| error.at(span))?
            }
            _ => {
                return Err(SqlError::new(format!("the watermark of \"{}\" is not the column less an interval", column.value))
                    .with_hint(WATERMARK_HINT)
                    .at(span));
            }
        };
        Ok(Watermark { column, delay })
    }

    /// One column, and whether it is the key.
    fn column(&mut self) -> Result<(ColumnDef, bool)> {
        let name = self.ident()?;
        let mut column = ColumnDef { name, data_type: None, not_null: false, kind: ColumnKind::Physical };
        let mut is_key = false;
        let has_no_type = self.is("as") || self.is("metadata") || self.is_token(&Token::Comma) || self.is_token(&Token::RParen);
        if !has_no_type {
            let mut data_type = self.run(Parser::parse_data_type)?;
            if self.eat(&["array"]) {
                // `BIGINT ARRAY` is how the standard writes `BIGINT[]`.
                data_type = DataType::Array(ArrayElemTypeDef::SquareBracket(Box::new(data_type), None));
            }
            normalize_type(&mut data_type);
            column.data_type = Some(data_type);
        }
        loop {
            let span = self.span();
            if self.eat(&["not", "null"]) {
                column.not_null = true;
            } else if self.eat(&["null"]) || self.eat(&["virtual"]) || self.eat(&["stored"]) {
                // Says what is so anyway.
            } else if self.eat(&["comment"]) {
                self.string()?;
            } else if self.eat(&["primary", "key"]) {
                self.eat(&["not", "enforced"]);
                is_key = true;
            } else if self.eat(&["metadata"]) {
                let key = if self.eat(&["from"]) { self.string()? } else { column.name.value.clone() };
                self.set_kind(&mut column, ColumnKind::Metadata(key), span)?;
            } else if self.eat(&["as"]) || self.eat(&["generated", "always", "as"]) {
                let expr = self.computed_expression()?;
                self.set_kind(&mut column, ColumnKind::Computed(Box::new(expr)), span)?;
            } else if self.is("default") {
                return Err(SqlError::new(format!("column \"{}\" has a DEFAULT, which is not supported", column.name.value))
                    .with_hint("Give the value in INSERT, or make it a computed column: `name AS expression`.")
                    .at(span));
            } else if self.is_token(&Token::Comma) || self.is_token(&Token::RParen) {
                return Ok((column, is_key));
            } else {
                return Err(self
                    .unexpected(&format!("\",\" or \")\" after column \"{}\"", column.name.value))
                    .with_hint("After a column's type may stand NOT NULL, PRIMARY KEY, AS expression or METADATA FROM 'key'."));
            }
        }
    }

    fn set_kind(&self, column: &mut ColumnDef, kind: ColumnKind, span: Span) -> Result<()> {
        if column.kind != ColumnKind::Physical {
            return Err(SqlError::new(format!("column \"{}\" has two origins", column.name.value))
                .with_hint("A column is either computed (AS) or metadata (METADATA FROM).")
                .at(span));
        }
        column.kind = kind;
        Ok(())
    }

    /// The expression of a computed column. A `NOT NULL` after it belongs to the column, though sqlparser takes it as an
    /// operator.
    fn computed_expression(&mut self) -> Result<Expr> {
        let start = self.parser.index();
        let mut depth = 0_usize;
        let mut cut = start;
        while let Some(token) = self.tokens.get(cut) {
            match token.token {
                Token::LParen | Token::LBracket | Token::LBrace => depth += 1,
                Token::Comma if depth == 0 => break,
                Token::RParen | Token::RBracket | Token::RBrace => {
                    let Some(outer) = depth.checked_sub(1) else { break };
                    depth = outer;
                }
                _ => {}
            }
            cut += 1;
        }
        for (words, length) in [(&["not", "null"][..], 2), (&["stored"], 1), (&["virtual"], 1)] {
            if cut >= start + length && super::are_words(&self.tokens, cut - length, words) {
                cut -= length;
                break;
            }
        }
        if start == cut {
            return Err(self.unexpected("an expression"));
        }
        let end = self.tokens.get(cut).map_or(self.end, |token| token.span.start);
        let mut parser = sub_parser(self.tokens[start..cut].to_vec());
        let expr = parser.parse_expr().map_err(|error| self.own_words(SqlError::from_parser(error, end)))?;
        // What the expression did not take is read, and reported, as an option of the column.
        while self.parser.index() < start + parser.index() {
            self.parser.advance_token();
        }
        Ok(expr)
    }
}

fn set_primary_key(elements: &mut Elements, key: Vec<Ident>, span: Span) -> Result<()> {
    if !elements.primary_key.is_empty() {
        return Err(SqlError::new("PRIMARY KEY is given twice").with_hint("Write one `PRIMARY KEY (a, b)` over all its columns.").at(span));
    }
    elements.primary_key = key;
    Ok(())
}
