//! Statement text as tokens: the form everything is parsed from.
//!
//! Tokens keep their place in the text, whitespace and comments are dropped, and unquoted words are folded to lower
//! case, so that two texts that mean the same give the same statement. Four things are settled here because
//! sqlparser's grammar has no place for them:
//!
//! - where a query ends and a clause of ours begins ([`clause_start`]): sqlparser takes `WITH (` after a table name as
//!   table hints and `PARTITION` as MySQL's partition selection;
//! - `FOR EPOCH BETWEEN a AND b` and `FOR SYSTEM_TIME BETWEEN a AND b`, which become table versions;
//! - ASOF joins, in the spellings of several engines, which become one (`asof_join.rs`);
//! - forms of other engines that are refused with the form to write instead.

pub(crate) mod asof_join;

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

use crate::dialect::DIALECT;
use crate::error::{Result, SqlError};

/// The function that carries the bounds of `FOR EPOCH BETWEEN` in a table version.
pub(crate) const EPOCH_BETWEEN: &str = "epoch_between";
/// The function that carries the bounds of `FOR SYSTEM_TIME BETWEEN` in a table version.
pub(crate) const EPOCH_TIME_BETWEEN: &str = "epoch_time_between";

/// The tokens of one statement without whitespace, and the place where they end.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    /// The tokens, words folded.
    pub(crate) list: Vec<TokenWithSpan>,
    /// The end of the last token.
    pub(crate) end: Location,
}

/// Cuts `text` into tokens.
pub(crate) fn tokenize(text: &str) -> Result<Tokens> {
    let tokens = Tokenizer::new(&DIALECT, text).tokenize_with_location().map_err(|error| SqlError::from_tokenizer(&error))?;
    let mut list: Vec<TokenWithSpan> = tokens.into_iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).collect();
    for token in &mut list {
        if let Token::Word(word) = &mut token.token
            && word.quote_style.is_none()
        {
            word.value = word.value.to_lowercase();
        }
    }
    crate::depth::check(&list)?;
    let end = list.last().map_or(Location::new(1, 1), |token| token.span.end);
    refuse_foreign_forms(&list)?;
    Ok(Tokens { list: asof_join::normalize(slices_to_versions(list)?)?, end })
}

/// True if `token` is the unquoted word `word` (given in lower case).
pub(crate) fn is_word(token: Option<&TokenWithSpan>, word: &str) -> bool {
    matches!(token.map(|token| &token.token), Some(Token::Word(found)) if found.quote_style.is_none() && found.value == word)
}

/// True if the tokens at `index` are these unquoted words.
pub(crate) fn are_words(tokens: &[TokenWithSpan], index: usize, words: &[&str]) -> bool {
    words.iter().enumerate().all(|(nth, word)| is_word(tokens.get(index + nth), word))
}

fn is_token(token: Option<&TokenWithSpan>, expected: &Token) -> bool {
    token.is_some_and(|token| token.token == *expected)
}

/// Which clauses may follow a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueryEnd {
    /// `EMIT` alone: SELECT and INSERT.
    Emit,
    /// `EMIT` and `WITH (options)`: views and streams.
    Options,
    /// Those, `PRIMARY KEY` and `PARTITIONED BY`: sinks.
    Sink,
}

/// The index of the first token at or after `from` that belongs to a clause after the query, or the number of tokens.
pub(crate) fn clause_start(tokens: &[TokenWithSpan], from: usize, end: QueryEnd) -> usize {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate().skip(from) {
        match token.token {
            Token::LParen | Token::LBracket | Token::LBrace => depth += 1,
            Token::RParen | Token::RBracket | Token::RBrace => {
                // A closing parenthesis of the surrounding text ends the query.
                let Some(outer) = depth.checked_sub(1) else { return index };
                depth = outer;
            }
            _ if depth > 0 || index == from => {}
            _ if starts_emit(tokens, index) => return index,
            _ if end == QueryEnd::Emit => {}
            _ if is_word(Some(token), "with") && is_token(tokens.get(index + 1), &Token::LParen) => return index,
            _ if end == QueryEnd::Options => {}
            _ if are_words(tokens, index, &["primary", "key"])
                || are_words(tokens, index, &["partitioned", "by"])
                || are_words(tokens, index, &["partition", "by"]) =>
            {
                return index;
            }
            _ => {}
        }
    }
    tokens.len()
}

/// True if an `EMIT` clause starts at `index`, as opposed to a column of that name.
fn starts_emit(tokens: &[TokenWithSpan], index: usize) -> bool {
    if !is_word(tokens.get(index), "emit") {
        return false;
    }
    let continues_expression = |token: &TokenWithSpan| match &token.token {
        Token::Word(word) => {
            word.quote_style.is_none()
                && matches!(
                    word.keyword,
                    Keyword::AS
                        | Keyword::SELECT
                        | Keyword::DISTINCT
                        | Keyword::WHERE
                        | Keyword::AND
                        | Keyword::OR
                        | Keyword::NOT
                        | Keyword::BY
                        | Keyword::ON
                        | Keyword::HAVING
                        | Keyword::FROM
                        | Keyword::JOIN
                        | Keyword::IN
                        | Keyword::WHEN
                        | Keyword::THEN
                        | Keyword::ELSE
                        | Keyword::CASE
                        | Keyword::BETWEEN
                        | Keyword::LIKE
                        | Keyword::LIMIT
                )
        }
        Token::RParen | Token::RBracket | Token::RBrace | Token::Mul => false,
        Token::Number(..) | Token::SingleQuotedString(_) | Token::DoubleQuotedString(_) | Token::Placeholder(_) => false,
        _ => true,
    };
    if index == 0 || continues_expression(&tokens[index - 1]) {
        return false;
    }
    match tokens.get(index + 1).map(|token| &token.token) {
        None => true,
        Some(Token::Word(next)) => {
            !matches!(
                next.keyword,
                Keyword::AS
                    | Keyword::FROM
                    | Keyword::WHERE
                    | Keyword::GROUP
                    | Keyword::ORDER
                    | Keyword::LIMIT
                    | Keyword::JOIN
                    | Keyword::LEFT
                    | Keyword::RIGHT
                    | Keyword::FULL
                    | Keyword::INNER
                    | Keyword::CROSS
                    | Keyword::UNION
                    | Keyword::USING
            ) && (next.keyword != Keyword::ON || is_word(tokens.get(index + 2), "window"))
        }
        Some(_) => false,
    }
}

/// Forms of other engines that we do not take, each with ours.
fn refuse_foreign_forms(tokens: &[TokenWithSpan]) -> Result<()> {
    for (index, token) in tokens.iter().enumerate() {
        let Token::Word(word) = &token.token else { continue };
        if word.quote_style.is_some() {
            continue;
        }
        let next_is_paren = is_token(tokens.get(index + 1), &Token::LParen);
        match word.value.as_str() {
            "mz_now" if next_is_paren => {
                return Err(SqlError::new("mz_now() is not known here")
                    .with_hint("Write now(), which is the epoch's clock: `WHERE ts > now() - INTERVAL '1 hour'`.")
                    .at(token.span));
            }
            "window" if is_token(tokens.get(index + 2), &Token::LParen) => {
                let form = ["tumbling", "hopping", "session"].into_iter().find(|form| is_word(tokens.get(index + 1), form));
                if let Some(form) = form {
                    let canonical = match form {
                        "tumbling" => "FROM TUMBLE(s, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end",
                        "hopping" => "FROM HOP(s, ts, INTERVAL '5 seconds', INTERVAL '10 seconds') GROUP BY window_start, window_end",
                        _ => "FROM SESSION(s PARTITION BY k, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end, k",
                    };
                    return Err(SqlError::new(format!("WINDOW {} (...) is not known here", form.to_uppercase()))
                        .with_hint(format!("Windows are table functions: `{canonical}`."))
                        .at(token.span));
                }
            }
            "format" if is_word(tokens.get(index + 2), "encode") => {
                return Err(SqlError::new("FORMAT ... ENCODE is not known here")
                    .with_hint("The format is an option: `WITH (connector = '...', format = 'json')`.")
                    .at(token.span));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Turns `FOR EPOCH [BETWEEN] ..` and `FOR SYSTEM_TIME BETWEEN ..` into a table version that sqlparser reads, and puts an
/// alias that stands before the version after it: sqlparser prints the alias first and reads it last.
fn slices_to_versions(tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    let starts_slice =
        |index: usize| are_words(&tokens, index, &["for", "epoch"]) || are_words(&tokens, index, &["for", "system_time", "between"]);
    let version_end = |index: usize| {
        let is_version = are_words(&tokens, index, &["for", "system_time", "as", "of"]);
        is_version.then(|| point_end(&tokens, index + 4)).flatten()
    };
    if !(0..tokens.len()).any(|index| starts_slice(index) || version_end(index).is_some()) {
        return Ok(tokens);
    }
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len() + 8);
    let mut index = 0;
    while index < tokens.len() {
        let is_slice = starts_slice(index);
        let version_end = version_end(index);
        if !is_slice && version_end.is_none() {
            out.push(tokens[index].clone());
            index += 1;
            continue;
        }
        let has_alias = out.len() > 2 && is_word(out.get(out.len() - 2), "as");
        let alias = if has_alias { out.split_off(out.len() - 2) } else { Vec::new() };
        match version_end {
            Some(end) => {
                out.extend_from_slice(&tokens[index..end]);
                index = end;
            }
            None => index = slice_to_version(&tokens, index, &mut out)?,
        }
        out.extend(alias);
    }
    Ok(out)
}

/// The index after the point in time of `FOR SYSTEM_TIME AS OF` that starts at `start`: a column or a call.
fn point_end(tokens: &[TokenWithSpan], start: usize) -> Option<usize> {
    let is_name = |index: usize| matches!(tokens.get(index).map(|token| &token.token), Some(Token::Word(_)));
    let mut end = is_name(start).then_some(start + 1)?;
    while is_token(tokens.get(end), &Token::Period) && is_name(end + 1) {
        end += 2;
    }
    if is_token(tokens.get(end), &Token::LParen) {
        let closing = tokens[end..].iter().position(|token| token.token == Token::RParen)?;
        end += closing + 1;
    }
    // `TIMESTAMP '..'` is neither.
    let is_literal = matches!(tokens.get(end).map(|token| &token.token), Some(Token::SingleQuotedString(_)));
    (!is_literal).then_some(end)
}

/// Writes the version for the slice at `index`, and gives the index after it.
fn slice_to_version(tokens: &[TokenWithSpan], index: usize, out: &mut Vec<TokenWithSpan>) -> Result<usize> {
    let span = tokens[index].span;
    let by_epoch = is_word(tokens.get(index + 1), "epoch");
    let has_range = is_word(tokens.get(index + 2), "between");
    let first_start = index + 2 + usize::from(has_range);
    let first_end = bound_end(tokens, first_start)?;
    let (second_start, second_end) = if has_range {
        if !is_word(tokens.get(first_end), "and") {
            let found = tokens.get(first_end).map_or(span, |token| token.span);
            return Err(SqlError::new("BETWEEN needs two bounds").with_hint("Write `FOR EPOCH BETWEEN 10 AND 20`.").at(found));
        }
        (first_end + 1, bound_end(tokens, first_end + 1)?)
    } else {
        (first_start, first_end)
    };
    for word in ["for", "system_time", "as", "of", if by_epoch { EPOCH_BETWEEN } else { EPOCH_TIME_BETWEEN }] {
        out.push(TokenWithSpan::new(Token::make_word(word, None), span));
    }
    out.push(TokenWithSpan::new(Token::LParen, span));
    out.extend_from_slice(&tokens[first_start..first_end]);
    out.push(TokenWithSpan::new(Token::Comma, span));
    out.extend_from_slice(&tokens[second_start..second_end]);
    out.push(TokenWithSpan::new(Token::RParen, span));
    Ok(second_end)
}

/// The index after the bound of a slice that starts at `start`: a literal, a parameter, or a typed literal.
fn bound_end(tokens: &[TokenWithSpan], start: usize) -> Result<usize> {
    let is_literal = |index: usize| {
        matches!(
            tokens.get(index).map(|token| &token.token),
            Some(Token::Number(..) | Token::SingleQuotedString(_) | Token::Placeholder(_))
        )
    };
    if is_literal(start) {
        return Ok(start + 1);
    }
    if ["timestamp", "timestamptz", "date"].iter().any(|word| is_word(tokens.get(start), word)) && is_literal(start + 1) {
        return Ok(start + 2);
    }
    let span = tokens.get(start).or(tokens.last()).map_or(sqlparser::tokenizer::Span::empty(), |token| token.span);
    Err(SqlError::new("the bounds of a slice are literals")
        .with_hint("Write `FOR EPOCH 10`, `FOR EPOCH BETWEEN 10 AND 20` or `FOR SYSTEM_TIME BETWEEN TIMESTAMP '..' AND TIMESTAMP '..'`.")
        .at(span))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str, end: QueryEnd) -> String {
        let tokens = tokenize(text).expect("tokens");
        let cut = clause_start(&tokens.list, 0, end);
        tokens.list[cut..].iter().map(|token| token.token.to_string()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn finds_the_end_of_a_query() {
        for (text, end, rest) in [
            ("SELECT * FROM t EMIT CHANGES", QueryEnd::Emit, "emit changes"),
            ("SELECT emit FROM t", QueryEnd::Emit, ""),
            ("SELECT a, emit, b.emit FROM t AS emit", QueryEnd::Emit, ""),
            ("SELECT * FROM a JOIN emit ON a.x = emit.x", QueryEnd::Emit, ""),
            ("SELECT * FROM t EMIT CHANGS", QueryEnd::Emit, "emit changs"),
            ("SELECT (SELECT 1 FROM t EMIT CHANGES)", QueryEnd::Emit, ""),
            ("SELECT 1 LIMIT 5 EMIT ON WINDOW CLOSE", QueryEnd::Emit, "emit on window close"),
            ("WITH (a)", QueryEnd::Sink, ""),
            ("SELECT * FROM t WITH (a = 'b')", QueryEnd::Options, "with ( a = 'b' )"),
            ("SELECT * FROM t PARTITION BY (a) WITH (b)", QueryEnd::Sink, "partition by ( a ) with ( b )"),
            ("SELECT sum(a) OVER (PARTITION BY b) FROM t", QueryEnd::Sink, ""),
            ("SELECT * FROM t PRIMARY KEY (a)", QueryEnd::Sink, "primary key ( a )"),
        ] {
            assert_eq!(cut(text, end), rest, "{text}");
        }
    }

    #[test]
    fn slices_become_versions() {
        let text = |sql: &str| tokenize(sql).map(|t| t.list.iter().map(|token| token.token.to_string()).collect::<Vec<_>>().join(" "));
        assert_eq!(
            text("SELECT * FROM s FOR EPOCH BETWEEN 1 AND 2 x").expect("tokens"),
            "select * from s for system_time as of epoch_between ( 1 , 2 ) x"
        );
        assert_eq!(text("FROM s FOR EPOCH $1").expect("tokens"), "from s for system_time as of epoch_between ( $1 , $1 )");
        assert_eq!(
            text("FROM s FOR SYSTEM_TIME BETWEEN TIMESTAMP '1' AND '2'").expect("tokens"),
            "from s for system_time as of epoch_time_between ( timestamp '1' , '2' )"
        );
        // An alias stands before the version where sqlparser prints it, and after it where sqlparser reads it.
        assert_eq!(text("FROM t AS x FOR SYSTEM_TIME AS OF s.ts ON c").expect("tokens"), "from t for system_time as of s . ts as x on c");
        assert_eq!(text("t AS x FOR SYSTEM_TIME AS OF f(1) ON c").expect("tokens"), "t for system_time as of f ( 1 ) as x on c");
        assert_eq!(text("FROM s FOR EPOCH x").expect_err("no literal").message, "the bounds of a slice are literals");
    }
}
