//! Colours for SQL while it is typed.

use super::lexer::{Kind, pieces};
use super::vocabulary::{KEYWORDS, SharedVocabulary, TABLE_FUNCTIONS, TYPES};
use reedline::{Color, Highlighter, StyledText};

/// Colours keywords, strings, numbers, comments and known names.
pub(crate) struct SqlHighlighter {
    vocabulary: SharedVocabulary,
    color: bool,
}

impl SqlHighlighter {
    /// A highlighter; without colours it leaves the text as it is.
    pub(crate) fn new(vocabulary: SharedVocabulary, color: bool) -> Self {
        Self { vocabulary, color }
    }
}

/// Whether a sorted list of upper-case words holds this word.
fn holds(sorted: &[&str], word: &str) -> bool {
    sorted.binary_search(&word.to_uppercase().as_str()).is_ok()
}

impl Highlighter for SqlHighlighter {
    fn highlight(&self, line: &str, _cursor: usize) -> StyledText {
        let plain = Color::Default.normal();
        let mut styled = StyledText::new();
        if !self.color || line.trim_start().starts_with(['\\', '.']) {
            styled.push((plain, line.to_string()));
            return styled;
        }
        for piece in pieces(line) {
            let text = &line[piece.range];
            let style = match piece.kind {
                Kind::Word if holds(KEYWORDS, text) => Color::Blue.bold(),
                Kind::Word if holds(TYPES, text) => Color::Cyan.normal(),
                Kind::Word if holds(TABLE_FUNCTIONS, text) => Color::Magenta.normal(),
                Kind::Word if self.vocabulary.with(|known| known.functions.contains(&text.to_lowercase())) => Color::Magenta.normal(),
                Kind::Word | Kind::QuotedName if self.vocabulary.with(|known| known.relation(text.trim_matches('"')).is_some()) => {
                    plain.underline()
                }
                Kind::Text => Color::Green.normal(),
                Kind::Number => Color::Yellow.normal(),
                Kind::Comment => Color::DarkGray.italic(),
                Kind::Word | Kind::QuotedName | Kind::Space | Kind::Symbol => plain,
            };
            styled.push((style, text.to_string()));
        }
        styled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_for_the_search() {
        for list in [KEYWORDS, TYPES, TABLE_FUNCTIONS] {
            assert!(list.is_sorted());
        }
    }

    #[test]
    fn the_text_stays_what_it_is() {
        let highlighter = SqlHighlighter::new(SharedVocabulary::default(), true);
        let line = "SELECT 'it''s', 1 FROM \"T\" -- c";
        assert_eq!(highlighter.highlight(line, 0).raw_string(), line);
        assert!(highlighter.highlight(line, 0).buffer.len() > 5);
    }
}
