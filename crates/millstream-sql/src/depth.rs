//! How deep a statement's tree is at most, found out from its tokens before there is a tree.
//!
//! Parentheses are not the only way to be deep: `1 + 1 + 1 ...` is a tree as deep as it has operators, and so are chains of casts, of AND
//! and OR, of UNION and JOIN. Whoever walks such a tree (a planner, or the code that frees it) needs stack for each level, and a stack that
//! overflows ends the process. Long lists, as in VALUES and IN, are wide and may be as long as they like.
//!
//! The bound is an upper one: in each pair of parentheses, the operators between two commas, plus the deepest parentheses among them.

use crate::error::{Result, SqlError};
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan};

/// Levels that a tree may have. The stacks of the program's threads are made for it.
pub const DEPTH_MAX: usize = 1_000;

/// What is known of the text between an opening parenthesis and its closing one.
#[derive(Default)]
struct Level {
    /// UNION, JOIN and the like; commas do not end them.
    chained: usize,
    /// AND and OR since the last comma.
    logical: usize,
    /// Other operators since the last of those.
    operators: usize,
    /// The most of these between two of those.
    operators_max: usize,
    /// The deepest parentheses since the last comma.
    inner: usize,
    /// The deepest between two commas so far.
    deepest: usize,
}

impl Level {
    fn logical(&mut self) {
        self.operators_max = self.operators_max.max(self.operators);
        self.operators = 0;
        self.logical += 1;
    }

    fn comma(&mut self) {
        self.logical();
        self.deepest = self.deepest.max(self.logical + self.operators_max + self.inner);
        *self = Level { chained: self.chained, deepest: self.deepest, ..Level::default() };
    }

    fn depth(&mut self) -> usize {
        self.comma();
        self.deepest + self.chained
    }
}

/// Refuses tokens whose tree might be too deep.
///
/// # Errors
/// With the place where it gets too deep.
pub(crate) fn check(tokens: &[TokenWithSpan]) -> Result<()> {
    let mut levels = vec![Level::default()];
    for token in tokens {
        let Some(level) = levels.last_mut() else { return Ok(()) };
        match &token.token {
            Token::LParen | Token::LBracket | Token::LBrace => levels.push(Level::default()),
            Token::RParen | Token::RBracket | Token::RBrace => {
                let depth = level.depth() + 1;
                if levels.len() > 1 {
                    levels.pop();
                }
                if let Some(outer) = levels.last_mut() {
                    outer.inner = outer.inner.max(depth);
                }
            }
            Token::Comma => level.comma(),
            Token::SemiColon => *level = Level::default(),
            Token::Word(word) if word.quote_style.is_none() => match word.keyword {
                Keyword::AND | Keyword::OR | Keyword::XOR | Keyword::NOT => level.logical(),
                Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::MINUS | Keyword::JOIN | Keyword::APPLY => {
                    level.chained += 1
                }
                Keyword::IS | Keyword::LIKE | Keyword::ILIKE | Keyword::SIMILAR | Keyword::BETWEEN | Keyword::IN | Keyword::COLLATE => {
                    level.operators += 1;
                }
                Keyword::CASE | Keyword::AT | Keyword::EXPLAIN | Keyword::INTERVAL | Keyword::DIV => level.operators += 1,
                _ => {}
            },
            Token::Whitespace(_)
            | Token::Word(_)
            | Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::Period
            | Token::Placeholder(_) => {}
            Token::DoubleQuotedString(_)
            | Token::NationalStringLiteral(_)
            | Token::HexStringLiteral(_)
            | Token::EscapedStringLiteral(_) => {}
            // Operators, whatever they are.
            _ => level.operators += 1,
        }
        let reached = levels.last().map_or(0, |level| (level.chained + level.logical + level.operators).max(level.inner));
        if reached.max(levels.len()) > DEPTH_MAX {
            return Err(too_deep().at(token.span));
        }
    }
    let depth = levels.iter_mut().map(|level| level.depth() + 1).sum::<usize>();
    if depth > DEPTH_MAX + 1 { Err(too_deep()) } else { Ok(()) }
}

/// As the parser does before it reads a statement; for text that another parser reads.
///
/// # Errors
/// When a tree of the text might be too deep.
pub fn check_text(text: &str) -> Result<()> {
    match sqlparser::tokenizer::Tokenizer::new(&crate::dialect::DIALECT, text).tokenize_with_location() {
        Ok(tokens) => check(&tokens),
        // The other parser says what is wrong with it.
        Err(_) => Ok(()),
    }
}

fn too_deep() -> SqlError {
    SqlError::new(format!("the statement is nested too deeply: more than {DEPTH_MAX} levels"))
        .with_hint("Write `a IN (..)` for many comparisons with OR, and lists of VALUES for many rows.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_fine(text: &str) -> bool {
        check_text(text).is_ok()
    }

    #[test]
    fn chains_are_bounded_and_lists_are_not() {
        let many = |item: &str, between: &str, count: usize| vec![item; count].join(between);
        for (item, between) in [("1", "+"), ("true", " AND "), ("a=1", " OR "), ("SELECT 1", " UNION ALL "), ("a", " || ")] {
            assert!(is_fine(&format!("SELECT {}", many(item, between, 400))), "{between}");
            assert!(!is_fine(&format!("SELECT {}", many(item, between, 5_000))), "{between}");
        }
        assert!(!is_fine(&format!("SELECT 1{}", "::int".repeat(2_000))));
        assert!(!is_fine(&format!("SELECT {}", "(1+".repeat(2_000))));
        assert!(!is_fine(&format!("SELECT {}", "NOT ".repeat(2_000))));
        assert!(!is_fine(&format!("SELECT 1 FROM t{}", " JOIN t USING (a)".repeat(2_000))));
        assert!(is_fine(&format!("SELECT 1 WHERE a IN ({})", many("1", ",", 100_000))));
        assert!(is_fine(&format!("INSERT INTO t VALUES {}", many("(1, -2 + 3, now())", ",", 20_000))));
        assert!(is_fine(&format!("SELECT {}", many("a = 1 AND b < 2", " OR ", 300))));
        assert!(is_fine(&"SELECT 1 + 1; ".repeat(5_000)));
    }
}
