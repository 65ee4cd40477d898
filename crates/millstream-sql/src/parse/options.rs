//! Option lists: `WITH (connector = 'files', 'path' = '/in', max_rows = 10)`.
//!
//! A key is a word, words joined by dots, or a string as Flink writes it; keys are folded to lower case. A value is a string,
//! a number, a word or an interval and is kept as text. The `=` may be missing, as in DataFusion's `OPTIONS ('k' 'v')`.

use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::StatementParser;
use crate::error::{Result, SqlError};
use crate::literal::parse_interval;
use crate::statement::OptionList;

impl StatementParser<'_> {
    /// `WITH (...)`, if it follows.
    pub(super) fn with_options(&mut self) -> Result<OptionList> {
        if self.eat(&["with"]) { self.option_list() } else { Ok(OptionList::new()) }
    }

    /// `(key = value, ...)`.
    pub(super) fn option_list(&mut self) -> Result<OptionList> {
        self.expect_token(&Token::LParen)?;
        let mut options = OptionList::new();
        while !self.eat_token(&Token::RParen) {
            let span = self.span();
            let key = self.option_key()?;
            self.eat_token(&Token::Eq);
            let value = self.option_value(&key)?;
            if options.iter().any(|(other, _)| *other == key) {
                return Err(SqlError::new(format!("option \"{key}\" is given twice")).with_hint("Keep one of them.").at(span));
            }
            options.push((key, value));
            if !self.eat_token(&Token::Comma) && !self.is_token(&Token::RParen) {
                return Err(self.unexpected("\",\" or \")\" after an option").with_hint("Options are written `key = 'value', ...`."));
            }
        }
        Ok(options)
    }

    /// A key in lower case.
    pub(super) fn option_key(&mut self) -> Result<String> {
        let mut key = String::new();
        loop {
            match self.peek().map(|token| token.token.clone()) {
                Some(Token::Word(word)) => key.push_str(&word.value),
                Some(Token::SingleQuotedString(text) | Token::DoubleQuotedString(text)) if key.is_empty() => {
                    self.parser.advance_token();
                    return Ok(text.to_lowercase());
                }
                _ => return Err(self.unexpected("the name of an option")),
            }
            self.parser.advance_token();
            if !self.eat_token(&Token::Period) {
                return Ok(key.to_lowercase());
            }
            key.push('.');
        }
    }

    /// A value as text.
    pub(super) fn option_value(&mut self, key: &str) -> Result<String> {
        let expected = format!("a value of option \"{key}\"");
        if self.is("interval") {
            let expr = self.run(Parser::parse_expr)?;
            return parse_interval(&expr).map(|length| length.to_sql().trim_start_matches("INTERVAL '").trim_end_matches('\'').to_owned());
        }
        let sign = if self.eat_token(&Token::Minus) { "-" } else { "" };
        let Some(TokenWithSpan { token, .. }) = self.peek().cloned() else { return Err(self.unexpected(&expected)) };
        let value = match token {
            Token::Number(number, _) => format!("{sign}{number}"),
            Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) if sign.is_empty() => text,
            Token::DollarQuotedString(text) if sign.is_empty() => text.value,
            Token::Word(word) if sign.is_empty() && !word.value.eq_ignore_ascii_case("null") => word.value,
            _ => return Err(self.unexpected(&expected).with_hint(format!("Write `{key} = 'value'`."))),
        };
        self.parser.advance_token();
        Ok(value)
    }
}
