//! ASOF joins: from all spellings to the one that sqlparser reads, `ASOF JOIN r MATCH_CONDITION (..) [ON .. | USING ..]`.
//!
//! ```text
//!   ASOF JOIN r MATCH_CONDITION (c) ON k             as it is
//!   ASOF LEFT JOIN r MATCH_CONDITION (c) ON k        ASOF JOIN r MATCH_CONDITION (asof_left(c)) ON k
//!   ASOF JOIN r ON k AND c                           ASOF JOIN r MATCH_CONDITION (asof_on()) ON k AND c
//!   ASOF LEFT JOIN r ON k AND c                      ASOF JOIN r MATCH_CONDITION (asof_left()) ON k AND c
//! ```
//! The calls carry what sqlparser's tree has no place for. [`spelled`] brings back the left side where a statement is printed.

use sqlparser::tokenizer::{Span, Token, TokenWithSpan, Tokenizer};

use super::{are_words, is_token, is_word};
use crate::dialect::DIALECT;
use crate::error::{Result, SqlError};
use crate::split::LineOffsets;

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

/// The printed text of a statement with its ASOF joins as people write them.
pub(crate) fn spelled(text: String) -> String {
    if ![ASOF_LEFT, ASOF_ON].iter().any(|call| text.contains(call)) {
        return text;
    }
    let Ok(mut tokens) = Tokenizer::new(&DIALECT, &text).tokenize_with_location() else { return text };
    tokens.retain(|token| !matches!(token.token, Token::Whitespace(_)));
    for token in &mut tokens {
        if let Token::Word(word) = &mut token.token
            && word.quote_style.is_none()
        {
            word.value.make_ascii_lowercase();
        }
    }
    let offsets = LineOffsets::new(&text);
    let start = |index: usize| offsets.byte(tokens[index].span.start);
    let end = |index: usize| offsets.byte(tokens[index].span.end);
    // Stretches of the text and what stands for them.
    let mut edits: Vec<(std::ops::Range<usize>, &str)> = vec![];
    // By depth of parentheses: the last ASOF.
    let mut joins: Vec<Option<usize>> = vec![None];
    for index in 0..tokens.len() {
        match tokens[index].token {
            Token::LParen => joins.push(None),
            Token::RParen if joins.len() > 1 => drop(joins.pop()),
            _ if is_word(tokens.get(index), "asof") => *joins.last_mut().expect("the outermost stays") = Some(index),
            _ => {}
        }
        let call = [(ASOF_LEFT, true), (ASOF_ON, false)].into_iter().find(|(call, _)| is_word(tokens.get(index + 2), call));
        let (Some((_, is_left)), true) = (call, is_word(tokens.get(index), "match_condition")) else { continue };
        let (Some(Some(asof)), Some(close)) = (joins.last(), closing(&tokens, index + 3)) else { continue };
        if is_left {
            edits.push((end(*asof)..end(*asof), " LEFT"));
        }
        if close == index + 4 {
            // The condition is in ON or USING: nothing stays, nor the space before.
            edits.push((end(index - 1)..end(close + 1), ""));
        } else {
            edits.push((start(index + 2)..end(index + 3), ""));
            edits.push((start(close)..end(close), ""));
        }
    }
    edits.sort_by_key(|(range, _)| range.start);
    let mut spelled = String::with_capacity(text.len());
    let mut from = 0;
    for (range, replacement) in edits {
        spelled.push_str(&text[from..range.start]);
        spelled.push_str(replacement);
        from = range.end;
    }
    spelled.push_str(&text[from..]);
    spelled
}

#[cfg(test)]
mod tests {
    use super::spelled;
    use crate::parse::parse_query;
    use crate::tokens::tokenize;

    #[test]
    fn statements_are_printed_as_people_write_them() {
        for sql in [
            "SELECT 1 FROM l ASOF JOIN r MATCH_CONDITION (l.t >= r.t) ON l.k = r.k",
            "SELECT 1 FROM l ASOF LEFT JOIN r AS x MATCH_CONDITION (l.t >= x.t) ON l.k = x.k",
            "SELECT 'asof_left()', \"ö\" FROM l ASOF JOIN r ON l.k = r.k AND l.t >= r.t WHERE a = 'it''s'",
            "SELECT 1 FROM l ASOF LEFT JOIN (SELECT 1 FROM x ASOF LEFT JOIN y USING(k, t) ASOF JOIN z ON y.t > z.t) AS r USING(k, t)",
        ] {
            let printed = parse_query(sql).expect("parses").to_string();
            assert_eq!(spelled(printed), sql);
        }
    }

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
