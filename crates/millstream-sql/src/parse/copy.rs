//! `COPY (query) TO 'file' STORED AS PARQUET OPTIONS (..)`, and PostgreSQL's `COPY .. TO STDOUT (FORMAT csv, ..)` and
//! `COPY t FROM STDIN`, whose options may also be written as words, as before PostgreSQL 9: `COPY t FROM STDIN CSV HEADER`.

use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::StatementParser;
use crate::error::{Result, SqlError};
use crate::statement::{Copy, CopyFrom, CopySource, CopyTarget, OptionList, Statement};
use crate::tokens::QueryEnd;

impl StatementParser<'_> {
    pub(super) fn copy(&mut self) -> Result<Statement> {
        self.expect(&["copy"])?;
        let source = if self.eat_token(&Token::LParen) {
            let source = if self.is("subscribe") {
                CopySource::Subscribe(self.subscribe()?)
            } else {
                CopySource::Query(self.query(QueryEnd::Emit)?)
            };
            self.expect_token(&Token::RParen)?;
            source
        } else {
            let name = self.name()?;
            let columns = if self.is_token(&Token::LParen) { self.ident_list()? } else { Vec::new() };
            if self.is("from") {
                return self.copy_from(name, columns);
            }
            match columns.as_slice() {
                [] => CopySource::Relation(name),
                columns => {
                    let columns: Vec<String> = columns.iter().map(ToString::to_string).collect();
                    CopySource::Query(super::parse_query(&format!("SELECT {} FROM {name}", columns.join(", ")))?)
                }
            }
        };
        self.expect(&["to"])?;
        let target = if self.eat(&["stdout"]) { CopyTarget::Stdout } else { CopyTarget::File(self.string()?) };
        if matches!(source, CopySource::Subscribe(_)) && target != CopyTarget::Stdout {
            return Err(SqlError::new("a subscription is copied to STDOUT only")
                .with_hint("Write `CREATE SINK k FROM view WITH (connector = 'files', ...)` for files that grow."));
        }
        let mut copy = Copy { source, target, format: None, partitioned_by: Vec::new(), options: OptionList::new() };
        while !self.at_statement_end() {
            let span = self.span();
            if self.eat(&["stored", "as"]) {
                let format = self.option_value("format")?;
                set_format(&mut copy, &format).map_err(|error| error.at(span))?;
            } else if self.eat(&["partitioned", "by"]) || self.eat(&["partition", "by"]) {
                let columns = self.ident_list()?;
                copy.partitioned_by.extend(columns.into_iter().map(|column| column.value));
            } else if self.eat(&["options"]) || self.is("with") || self.is_token(&Token::LParen) {
                self.eat(&["with"]);
                for (key, value) in self.copy_options()? {
                    if key == "format" {
                        set_format(&mut copy, &value).map_err(|error| error.at(span))?;
                    } else {
                        copy.options.push((key, value));
                    }
                }
            } else if let Some((key, value)) = (copy.target == CopyTarget::Stdout).then(|| self.copy_word()).transpose()?.flatten() {
                if key == "format" {
                    set_format(&mut copy, &value).map_err(|error| error.at(span))?;
                } else {
                    copy.options.push((key, value));
                }
            } else {
                return Err(self.unexpected("STORED AS, PARTITIONED BY, OPTIONS or the end of the statement"));
            }
        }
        Ok(Statement::Copy(copy))
    }

    fn copy_from(&mut self, target: sqlparser::ast::ObjectName, columns: Vec<sqlparser::ast::Ident>) -> Result<Statement> {
        self.expect(&["from"])?;
        let span = self.span();
        if !self.eat(&["stdin"]) {
            return Err(SqlError::new("COPY takes rows FROM STDIN only, which a client sends")
                .with_hint("Declare files as a stream, `CREATE STREAM s WITH (connector = 'files', path = '...')`, and select from it.")
                .at(span));
        }
        let mut options = OptionList::new();
        while !self.at_statement_end() {
            if self.eat(&["with"]) && !self.is_token(&Token::LParen) {
                continue;
            }
            let span = self.span();
            if self.is_token(&Token::LParen) {
                options.extend(self.copy_options()?);
            } else if let Some(option) = self.copy_word()? {
                options.push(option);
            } else {
                return Err(self.unexpected("WITH or the end of the statement"));
            }
            let twice = options.iter().enumerate().find(|(at, (key, _))| options[..*at].iter().any(|(other, _)| other == key));
            if let Some((_, (key, _))) = twice {
                return Err(SqlError::new(format!("option \"{key}\" is given twice")).with_hint("Keep one of them.").at(span));
            }
        }
        Ok(Statement::CopyFrom(CopyFrom { target, columns, options }))
    }

    /// An option that is written as a word: `CSV`, `HEADER`, `DELIMITER AS ';'`.
    fn copy_word(&mut self) -> Result<Option<(String, String)>> {
        for format in ["csv", "binary", "text"] {
            if self.eat(&[format]) {
                return Ok(Some(("format".to_owned(), format.to_owned())));
            }
        }
        if self.eat(&["header"]) {
            return Ok(Some(("header".to_owned(), "true".to_owned())));
        }
        for key in ["delimiter", "delimiters", "null", "quote", "escape", "encoding"] {
            if self.eat(&[key]) {
                self.eat(&["as"]);
                return Ok(Some((key.trim_end_matches('s').to_owned(), self.string()?)));
            }
        }
        Ok(None)
    }

    /// An option list in which a key may stand alone: `(FORMAT csv, HEADER)`.
    fn copy_options(&mut self) -> Result<OptionList> {
        self.expect_token(&Token::LParen)?;
        let mut options = OptionList::new();
        while !self.eat_token(&Token::RParen) {
            let key = self.option_key()?;
            self.eat_token(&Token::Eq);
            let value = if self.is_token(&Token::Comma) || self.is_token(&Token::RParen) {
                "true".to_owned()
            } else if self.is_token(&Token::LParen) {
                // A list of columns, as in `FORCE_QUOTE (a, b)`.
                self.run(|parser| parser.parse_parenthesized(|parser| parser.parse_comma_separated(Parser::parse_identifier)))?
                    .iter()
                    .map(|ident| ident.value.clone())
                    .collect::<Vec<_>>()
                    .join(",")
            } else {
                self.option_value(&key)?
            };
            options.push((key, value));
            if !self.eat_token(&Token::Comma) && !self.is_token(&Token::RParen) {
                return Err(self.unexpected("\",\" or \")\" after an option"));
            }
        }
        Ok(options)
    }
}

fn set_format(copy: &mut Copy, format: &str) -> Result<()> {
    if copy.format.is_some() {
        return Err(SqlError::new("the format of COPY is given twice").with_hint("Keep STORED AS or FORMAT."));
    }
    copy.format = Some(format.to_uppercase());
    Ok(())
}
