//! ASOF joins: from all spellings to the one that sqlparser reads, `ASOF JOIN r MATCH_CONDITION (..) [ON .. | USING ..]`.
//!
//! ```text
//!   ASOF JOIN r MATCH_CONDITION (c) ON k             as it is
//!   ASOF LEFT JOIN r MATCH_CONDITION (c) ON k        ASOF JOIN r MATCH_CONDITION (asof_left(c)) ON k
//!   ASOF JOIN r ON k AND c                           ASOF JOIN r MATCH_CONDITION (asof_on()) ON k AND c
//!   ASOF LEFT JOIN r ON k AND c                      ASOF JOIN r MATCH_CONDITION (asof_left()) ON k AND c
//! ```
//! The calls carry what sqlparser's tree has no place for. The right side is what they mean in the text that a catalog keeps,
//! which is read again.

use sqlparser::tokenizer::{Span, Token, TokenWithSpan};

use super::{are_words, is_token, is_word};
use crate::error::{Result, SqlError};

/// The call around the condition of a left join; without an argument the condition is in ON or USING.
pub(crate) const ASOF_LEFT: &str = "asof_left";
/// The call that says that the condition of an inner join is in ON or USING.
pub(crate) const ASOF_ON: &str = "asof_on";

/// What to write, for hints.
pub(crate) const USAGE: &str = "Write `l ASOF [LEFT] JOIN r MATCH_CONDITION (l.ts >= r.ts) ON l.k = r.k`, or \
     `l ASOF [LEFT] JOIN r ON l.k = r.k AND l.ts >= r.ts`.";

/// Tokens to put in before the token at an index.
struct Insertion {
    before: usize,
    tokens: Vec<TokenWithSpan>,
}

/// Brings every ASOF join of a statement into the form that sqlparser reads.
pub(super) fn normalize(tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    let mut dropped = vec![];
    let mut insertions: Vec<Insertion> = vec![];
    for index in 0..tokens.len() {
        let Some((is_left, join)) = join_at(&tokens, index)? else { continue };
        dropped.extend(index + 1..join);
        let span = tokens[index].span;
        let condition = condition_at(&tokens, join + 1).ok_or_else(|| no_condition(span))?;
        let word = |word: &str| TokenWithSpan::new(Token::make_word(word, None), span);
        let token = |token: Token| TokenWithSpan::new(token, span);
        match (is_word(tokens.get(condition), "match_condition"), is_left) {
            (true, false) => {}
            (true, true) => {
                let close = closing(&tokens, condition + 1).ok_or_else(|| no_condition(span))?;
                insertions.push(Insertion { before: condition + 2, tokens: vec![word(ASOF_LEFT), token(Token::LParen)] });
                insertions.push(Insertion { before: close, tokens: vec![token(Token::RParen)] });
            }
            (false, _) => {
                let call = if is_left { ASOF_LEFT } else { ASOF_ON };
                let parts = [word(call), token(Token::LParen), token(Token::RParen)];
                let mut inserted = vec![word("match_condition"), token(Token::LParen)];
                inserted.extend(parts);
                inserted.push(token(Token::RParen));
                insertions.push(Insertion { before: condition, tokens: inserted });
            }
        }
    }
    if dropped.is_empty() && insertions.is_empty() {
        return Ok(tokens);
    }
    insertions.sort_by_key(|insertion| insertion.before);
    let mut insertions = insertions.into_iter().peekable();
    let mut out = Vec::with_capacity(tokens.len() + 8);
    for (index, token) in tokens.into_iter().enumerate() {
        while let Some(insertion) = insertions.next_if(|insertion| insertion.before <= index) {
            out.extend(insertion.tokens);
        }
        if !dropped.contains(&index) {
            out.push(token);
        }
    }
    out.extend(insertions.flat_map(|insertion| insertion.tokens));
    Ok(out)
}

/// Whether an ASOF join starts at `index`, and if so whether it is a left join and where its JOIN is.
fn join_at(tokens: &[TokenWithSpan], index: usize) -> Result<Option<(bool, usize)>> {
    let is_name = index > 0 && (is_word(tokens.get(index - 1), "as") || is_token(tokens.get(index - 1), &Token::Period));
    if is_name {
        return Ok(None);
    }
    for (words, is_left) in [
        (["asof", "join"].as_slice(), false),
        (&["asof", "inner", "join"], false),
        (&["asof", "left", "join"], true),
        (&["asof", "left", "outer", "join"], true),
    ] {
        if are_words(tokens, index, words) {
            return Ok(Some((is_left, index + words.len() - 1)));
        }
    }
    for kind in ["right", "full", "semi", "anti", "cross", "natural"] {
        if are_words(tokens, index, &["asof", kind, "join"]) || are_words(tokens, index, &["asof", kind, "outer", "join"]) {
            let span = Span::new(tokens[index].span.start, tokens[index + 1].span.end);
            return Err(SqlError::new(format!("ASOF {} JOIN is not supported", kind.to_uppercase()))
                .with_hint(format!("An ASOF join is an inner or a left join. {USAGE}"))
                .at(span));
        }
    }
    Ok(None)
}

/// Where the condition of the join whose relation starts at `from` begins: at MATCH_CONDITION, ON or USING.
fn condition_at(tokens: &[TokenWithSpan], from: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate().skip(from) {
        match token.token {
            Token::LParen | Token::LBracket | Token::LBrace => depth += 1,
            Token::RParen | Token::RBracket | Token::RBrace => depth = depth.checked_sub(1)?,
            Token::SemiColon | Token::Comma if depth == 0 => return None,
            _ if depth > 0 => {}
            _ if ["match_condition", "on", "using"].iter().any(|word| is_word(Some(token), word)) => return Some(index),
            _ if ["join", "where", "group", "order", "limit", "union"].iter().any(|word| is_word(Some(token), word)) => return None,
            _ => {}
        }
    }
    None
}

/// The index of the parenthesis that closes the one at `open`.
fn closing(tokens: &[TokenWithSpan], open: usize) -> Option<usize> {
    if !is_token(tokens.get(open), &Token::LParen) {
        return None;
    }
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen if depth == 1 => return Some(index),
            Token::RParen => depth -= 1,
            _ => {}
        }
    }
    None
}

fn no_condition(span: Span) -> SqlError {
    SqlError::new("an ASOF JOIN needs a condition").with_hint(USAGE).at(span)
}

#[cfg(test)]
mod tests {
    use crate::tokens::tokenize;

    #[test]
    fn all_spellings_become_one() {
        let text = |sql: &str| tokenize(sql).map(|t| t.list.iter().map(|token| token.token.to_string()).collect::<Vec<_>>().join(" "));
        for (sql, expected) in [
            ("l ASOF JOIN r MATCH_CONDITION (l.t >= r.t) ON a", "l asof join r match_condition ( l . t >= r . t ) on a"),
            ("l ASOF INNER JOIN r USING (k, t)", "l asof join r match_condition ( asof_on ( ) ) using ( k , t )"),
            (
                "l ASOF LEFT JOIN (SELECT a FROM x ASOF JOIN y ON c) AS r ON d",
                "l asof join ( select a from x asof join y match_condition ( asof_on ( ) ) on c ) as r match_condition ( asof_left ( ) ) on d",
            ),
            ("l ASOF LEFT OUTER JOIN r MATCH_CONDITION ((l.t) > r.t)", "l asof join r match_condition ( asof_left ( ( l . t ) > r . t ) )"),
            ("SELECT asof FROM t AS asof JOIN r ON c", "select asof from t as asof join r on c"),
        ] {
            let once = text(sql).expect("tokens");
            assert_eq!(once, expected, "{sql}");
            assert_eq!(text(&once).expect("tokens"), expected, "read again: {sql}");
        }
        assert_eq!(text("l ASOF FULL JOIN r ON c").expect_err("full").message, "ASOF FULL JOIN is not supported");
        assert_eq!(text("l ASOF JOIN r WHERE c ON d").expect_err("none").message, "an ASOF JOIN needs a condition");
    }
}
