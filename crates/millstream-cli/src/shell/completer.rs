//! Completion by place: relations after FROM, columns of the relations in the statement, options inside WITH, settings
//! after SET, meta commands after a backslash.

use super::lexer::{Kind, Piece, pieces};
use super::meta;
use super::vocabulary::{CONNECTORS, KEYWORDS, OPTIONS, SharedVocabulary, TABLE_FUNCTIONS, TYPES, Vocabulary};
use crate::output::Format;
use reedline::{Completer, CompletionResult, Span, Suggestion};
use std::collections::BTreeSet;

/// Completes names and keywords.
pub(crate) struct SqlCompleter {
    vocabulary: SharedVocabulary,
}

impl SqlCompleter {
    /// A completer over the words of the catalog.
    pub(crate) fn new(vocabulary: SharedVocabulary) -> Self {
        Self { vocabulary }
    }
}

impl Completer for SqlCompleter {
    fn complete(&mut self, line: &str, position: usize) -> CompletionResult {
        let before = line.get(..position).unwrap_or(line);
        let candidates = self.vocabulary.with(|vocabulary| candidates(before, line, vocabulary));
        let suggestions: Vec<Suggestion> = candidates
            .into_iter()
            .map(|candidate| Suggestion {
                value: candidate.text,
                description: candidate.about,
                span: Span::new(candidate.start, before.len()),
                append_whitespace: candidate.space,
                ..Suggestion::default()
            })
            .collect();
        CompletionResult::fresh(suggestions)
    }
}

/// One proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    text: String,
    about: Option<String>,
    start: usize,
    space: bool,
}

/// Proposals that continue what stands before the cursor.
fn candidates(before: &str, line: &str, vocabulary: &Vocabulary) -> Vec<Candidate> {
    let pieces = pieces(before);
    let trimmed = before.trim_start();
    if trimmed.starts_with('\\') {
        return meta_candidates(before, vocabulary);
    }
    if let Some(last) = pieces.last().filter(|last| last.is_open) {
        return if last.kind == Kind::Text { string_candidates(before, last, &pieces) } else { Vec::new() };
    }
    let word_start = match pieces.last() {
        Some(piece) if matches!(piece.kind, Kind::Word | Kind::QuotedName) => piece.range.start,
        _ => before.len(),
    };
    let prefix = &before[word_start..];
    let earlier: Vec<&str> = pieces
        .iter()
        .filter(|piece| piece.range.end <= word_start && !matches!(piece.kind, Kind::Space | Kind::Comment))
        .map(|piece| &before[piece.range.clone()])
        .collect();
    let previous = earlier.last().copied().unwrap_or("").to_uppercase();
    let mut found = Found { prefix, start: word_start, candidates: Vec::new(), seen: BTreeSet::new() };

    if previous == "." {
        let owner = earlier.iter().rev().nth(1).copied().unwrap_or("").trim_matches('"');
        let relation = vocabulary.relation(owner).or_else(|| vocabulary.relation(&alias_target(line, owner)?));
        for (column, kind) in relation.into_iter().flat_map(|relation| &relation.columns) {
            found.add(&quoted(column), Some(kind), false);
        }
        return found.candidates;
    }
    if matches!(previous.as_str(), "SET" | "RESET") && earlier.len() == 1 || previous == "PIPELINE" {
        for (name, about) in &vocabulary.settings {
            found.add(name, Some(about), true);
        }
        return found.candidates;
    }
    if is_in_with_list(&earlier) {
        for option in OPTIONS {
            found.add(option, None, false);
        }
        return found.candidates;
    }
    let wants_relation = matches!(
        previous.as_str(),
        "FROM" | "JOIN" | "INTO" | "DESCRIBE" | "STREAM" | "TABLE" | "VIEW" | "SINK" | "SUBSCRIBE" | "TO" | "COPY" | "REFRESH"
    ) || previous == "("
        && earlier.iter().rev().nth(1).is_some_and(|word| TABLE_FUNCTIONS.contains(&word.to_uppercase().as_str()));
    if wants_relation {
        for relation in &vocabulary.relations {
            found.add(&quoted(&relation.name), Some(&relation.kind), false);
        }
        for function in TABLE_FUNCTIONS.iter().filter(|_| matches!(previous.as_str(), "FROM" | "JOIN")) {
            found.add_word(function, Some("function"), prefix);
        }
        if !found.candidates.is_empty() {
            return found.candidates;
        }
    }
    if prefix.is_empty() {
        return found.candidates;
    }
    for relation in vocabulary.relations.iter().filter(|relation| mentions(line, &relation.name)) {
        for (column, kind) in &relation.columns {
            found.add(&quoted(column), Some(&format!("{kind} of {}", relation.name)), false);
        }
    }
    for keyword in KEYWORDS.iter().chain(TYPES) {
        found.add_word(keyword, None, prefix);
    }
    for relation in &vocabulary.relations {
        found.add(&quoted(&relation.name), Some(&relation.kind), false);
    }
    for function in &vocabulary.functions {
        found.add(function, Some("function"), false);
    }
    for function in TABLE_FUNCTIONS {
        found.add_word(function, Some("function"), prefix);
    }
    found.candidates
}

struct Found<'a> {
    prefix: &'a str,
    start: usize,
    candidates: Vec<Candidate>,
    seen: BTreeSet<String>,
}

impl Found<'_> {
    fn add(&mut self, text: &str, about: Option<&str>, space: bool) {
        let matches = text.len() >= self.prefix.len() && text.is_char_boundary(self.prefix.len());
        if matches && text[..self.prefix.len()].eq_ignore_ascii_case(self.prefix) && self.seen.insert(text.to_lowercase()) {
            self.candidates.push(Candidate { text: text.into(), about: about.map(Into::into), start: self.start, space });
        }
    }

    /// A keyword, in the case the user types in.
    fn add_word(&mut self, word: &str, about: Option<&str>, typed: &str) {
        let lower = typed.chars().next().is_some_and(char::is_lowercase);
        self.add(&if lower { word.to_lowercase() } else { word.to_string() }, about, about.is_none());
    }
}

/// A name as it must be written: quoted when it would be folded or is no plain word.
fn quoted(name: &str) -> String {
    let plain = name.chars().next().is_some_and(|c| c.is_lowercase() || c == '_')
        && name.chars().all(|c| c.is_lowercase() || c.is_ascii_digit() || c == '_')
        && KEYWORDS.binary_search(&name.to_uppercase().as_str()).is_err();
    if plain { name.into() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// Whether the statement names the relation.
fn mentions(line: &str, relation: &str) -> bool {
    pieces(line).iter().any(|piece| {
        matches!(piece.kind, Kind::Word | Kind::QuotedName) && line[piece.range.clone()].trim_matches('"').eq_ignore_ascii_case(relation)
    })
}

/// The relation that `alias` stands for: the name before `AS alias` or `alias`.
fn alias_target(line: &str, alias: &str) -> Option<String> {
    let words: Vec<&str> = pieces(line)
        .into_iter()
        .filter(|piece| !matches!(piece.kind, Kind::Space | Kind::Comment))
        .map(|piece| &line[piece.range])
        .collect();
    let place = |keyword: &str| matches!(keyword.to_uppercase().as_str(), "FROM" | "JOIN" | ",");
    words
        .windows(4)
        .find_map(|window| match window {
            [before, name, as_word, word] if place(before) && as_word.eq_ignore_ascii_case("as") && word.eq_ignore_ascii_case(alias) => {
                Some(name.trim_matches('"').to_string())
            }
            [before, name, word, _] if place(before) && word.eq_ignore_ascii_case(alias) => Some(name.trim_matches('"').to_string()),
            _ => None,
        })
        .or_else(|| match words.as_slice() {
            [.., before, name, word] if place(before) && word.eq_ignore_ascii_case(alias) => Some(name.trim_matches('"').to_string()),
            _ => None,
        })
}

/// Whether the cursor stands where an option name of `WITH (` is expected.
fn is_in_with_list(earlier: &[&str]) -> bool {
    let at_name = earlier.last().is_some_and(|last| matches!(*last, "(" | ","));
    let mut depth = 0usize;
    for (index, word) in earlier.iter().enumerate().rev() {
        match *word {
            ")" => depth += 1,
            "(" if depth > 0 => depth -= 1,
            "(" => return at_name && index > 0 && earlier[index - 1].eq_ignore_ascii_case("with"),
            _ => {}
        }
    }
    false
}

/// Inside a string: connectors after `connector = '`.
fn string_candidates(before: &str, open: &Piece, pieces: &[Piece]) -> Vec<Candidate> {
    let words: Vec<&str> = pieces
        .iter()
        .filter(|piece| piece.range.end <= open.range.start && piece.kind != Kind::Space)
        .map(|piece| &before[piece.range.clone()])
        .collect();
    let start = open.range.start + 1;
    let mut found = Found { prefix: &before[start..], start, candidates: Vec::new(), seen: BTreeSet::new() };
    if let [.., name, "="] = words.as_slice() {
        let choices: &[&str] = match name.to_lowercase().as_str() {
            "connector" => CONNECTORS,
            "format" => &["arrow", "avro", "csv", "json", "parquet", "text"],
            "mode" => &["append", "changelog", "complete", "upsert"],
            "on_error" | "on_late" | "on_future" => &["dead_letter", "fail", "skip"],
            "trigger" => &["100ms", "1s", "available", "once"],
            _ => &[],
        };
        for choice in choices {
            found.add(choice, None, false);
        }
    }
    found.candidates
}

fn meta_candidates(before: &str, vocabulary: &Vocabulary) -> Vec<Candidate> {
    let start = before.len() - before.trim_start().len();
    let command = &before[start..];
    let Some((name, argument)) = command.split_once(char::is_whitespace) else {
        let mut found = Found { prefix: command, start, candidates: Vec::new(), seen: BTreeSet::new() };
        for (name, _, about) in meta::COMMANDS {
            found.add(name, Some(about), true);
        }
        return found.candidates;
    };
    let word_start = argument.rfind(char::is_whitespace).map_or(0, |index| index + 1);
    let prefix = &argument[word_start..];
    let mut found = Found { prefix, start: before.len() - prefix.len(), candidates: Vec::new(), seen: BTreeSet::new() };
    match name {
        "\\pset" if argument[..word_start].trim() == "format" => Format::ALL.iter().for_each(|(name, _)| found.add(name, None, false)),
        "\\pset" if argument[..word_start].trim().is_empty() => {
            meta::PSET.iter().for_each(|(name, about)| found.add(name, Some(about), true))
        }
        "\\h" => meta::topics().for_each(|topic| found.add(topic, None, false)),
        name if name.starts_with("\\d") => {
            for relation in &vocabulary.relations {
                found.add(&relation.name, Some(&relation.kind), false);
            }
        }
        _ => {}
    }
    found.candidates
}

#[cfg(test)]
mod tests {
    use super::super::vocabulary::Relation;
    use super::*;

    fn vocabulary() -> Vocabulary {
        Vocabulary {
            relations: vec![
                Relation {
                    name: "bids".into(),
                    kind: "stream".into(),
                    columns: vec![("auction".into(), "BIGINT".into()), ("Price".into(), "BIGINT".into())],
                },
                Relation { name: "big".into(), kind: "view".into(), columns: vec![("n".into(), "BIGINT".into())] },
            ],
            functions: ["count".to_string(), "coalesce".to_string()].into(),
            settings: vec![("trigger".into(), "when epochs start".into())],
        }
    }

    fn texts(before: &str) -> Vec<String> {
        candidates(before, before, &vocabulary()).into_iter().map(|candidate| candidate.text).collect()
    }

    #[test]
    fn completes_by_place() {
        assert_eq!(texts("SELECT * FROM bi"), ["bids", "big"]);
        assert_eq!(texts("SELECT * FROM TUMBLE(bi"), ["bids", "big"]);
        assert_eq!(texts("SELECT bids."), ["auction", "\"Price\""]);
        assert_eq!(texts("SET tr"), ["trigger"]);
        assert_eq!(texts("sel"), ["select"]);
        assert_eq!(texts("SELECT coal"), ["coalesce"]);
        assert_eq!(texts("CREATE STREAM s (a INT) WITH (connector = 'files', pa"), ["path"]);
        assert_eq!(texts("CREATE STREAM s (a INT) WITH (connector = 'so"), ["socket"]);
        assert_eq!(texts("\\pset format ma"), ["markdown"]);
        assert_eq!(texts("\\d bid"), ["bids"]);
        assert!(texts("SELECT 'bi").is_empty());
        assert!(texts("-- bi").is_empty());
    }

    #[test]
    fn columns_of_named_relations_come_first() {
        let line = "SELECT au FROM bids";
        let found = candidates("SELECT au", line, &vocabulary());
        assert_eq!(found[0].text, "auction");
        let line = "SELECT b.au FROM bids AS b";
        assert_eq!(candidates("SELECT b.au", line, &vocabulary())[0].text, "auction");
    }
}
