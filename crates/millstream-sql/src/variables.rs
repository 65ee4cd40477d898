//! Variables: `:name`, `:'name'` and `:"name"` in scripts as in psql, and `${NAME}` in option values.
//!
//! `:name` becomes the value as it stands, `:'name'` a string literal and `:"name"` a quoted identifier. A name that is
//! not set is left alone, since `a[1:n]` is a slice; where it cannot stand the parser names it. Nothing is replaced
//! inside strings, comments and dollar quotes, and `::` stays a cast.
//!
//! `${NAME}` is expanded by the caller in the values of options only, after parsing, so that a statement's text, which the
//! catalog stores, holds the reference and not the secret.

use std::collections::BTreeMap;

use sqlparser::tokenizer::{Token, Tokenizer};

use crate::dialect::DIALECT;
use crate::error::{Result, SqlError};
use crate::split::LineOffsets;

/// Puts the values of `variables` into `script`.
pub fn substitute(script: &str, variables: &BTreeMap<String, String>) -> String {
    if variables.is_empty() || !script.contains(':') {
        return script.to_owned();
    }
    let mut tokens = Vec::new();
    // An unterminated quote is reported when the statement is parsed; what stands before it is replaced.
    let _ = Tokenizer::new(&DIALECT, script).tokenize_with_location_into_buf(&mut tokens);
    let offsets = LineOffsets::new(script);
    let mut out = String::with_capacity(script.len());
    let mut copied = 0;
    for pair in tokens.windows(2) {
        let [colon, name] = pair else { continue };
        if colon.token != Token::Colon || colon.span.end != name.span.start {
            continue;
        }
        let value = match &name.token {
            Token::Word(word) if word.quote_style.is_none() => variables.get(&word.value).cloned(),
            Token::Word(word) => variables.get(&word.value).map(|value| format!("\"{}\"", value.replace('"', "\"\""))),
            Token::SingleQuotedString(name) => variables.get(name).map(|value| format!("'{}'", value.replace('\'', "''"))),
            _ => None,
        };
        if let Some(value) = value {
            out.push_str(&script[copied..offsets.byte(colon.span.start)]);
            out.push_str(&value);
            copied = offsets.byte(name.span.end);
        }
    }
    out.push_str(&script[copied..]);
    out
}

/// Replaces every `${NAME}` in an option's value by `lookup(NAME)`; `$${` stands for `${` itself.
///
/// # Errors
/// A name that is not set, and a `${` without its `}`.
pub fn expand_env(value: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String> {
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = rest.find("${") {
        if at > 0 && rest[..at].ends_with('$') {
            out.push_str(&rest[..at]);
            out.push('{');
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let Some((name, tail)) = rest[at + 2..].split_once('}') else {
            return Err(
                SqlError::new("\"${\" has no closing \"}\" in an option value").with_hint("Write `$${` for the two characters themselves.")
            );
        };
        let Some(found) = lookup(name) else {
            return Err(SqlError::new(format!("environment variable \"{name}\" is not set"))
                .with_hint(format!("Set it before the start, or write the value in place of `${{{name}}}`.")));
        };
        out.push_str(&found);
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}

/// [`expand_env`] for every value of an option list; the error names the option.
///
/// # Errors
/// As [`expand_env`].
pub fn expand_options(options: &mut [(String, String)], lookup: &dyn Fn(&str) -> Option<String>) -> Result<()> {
    for (key, value) in options {
        *value =
            expand_env(value, lookup).map_err(|error| SqlError { message: format!("option \"{key}\": {}", error.message), ..error })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn substitutes_as_psql_does() {
        let variables = BTreeMap::from([("dir".to_owned(), "it's".to_owned()), ("n".to_owned(), "5".to_owned())]);
        assert_eq!(
            substitute("SELECT :n, :'dir', :\"dir\", a::int, ':n', x[1:m] -- :n\nFROM t$$:n$$", &variables),
            "SELECT 5, 'it''s', \"it's\", a::int, ':n', x[1:m] -- :n\nFROM t$$:n$$"
        );
        assert_eq!(substitute("SELECT : n", &variables), "SELECT : n");
        assert_eq!(substitute("LIMIT :n; SELECT 'open :n", &variables), "LIMIT 5; SELECT 'open :n");
    }

    #[test]
    fn expands_the_environment() {
        let lookup = |name: &str| (name == "HOST").then(|| "db".to_owned());
        assert_eq!(expand_env("${HOST}:5432/$${HOST}/$x", &lookup), Ok("db:5432/${HOST}/$x".to_owned()));
        assert_eq!(expand_env("${PORT}", &lookup).expect_err("not set").message, "environment variable \"PORT\" is not set");
        assert!(expand_env("${HOST", &lookup).is_err());
        let mut options = vec![("path".to_owned(), "${NO}".to_owned())];
        let error = expand_options(&mut options, &lookup).expect_err("not set");
        assert_eq!(error.message, "option \"path\": environment variable \"NO\" is not set");
    }
}
