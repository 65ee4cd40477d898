//! Documents as scripts: their `sql` blocks are executed in order, their `slt` blocks checked.
//!
//! A block opened with `sql ignore` is text only. Paths below `'data/` and `'out/` lead to a directory of the test's own, whose
//! folders exist; those below `'sql-examples/` to the repository.

use super::runner::{Cut, Run};
use super::script::Script;
use crate::support;
use std::path::Path;

/// Runs the blocks of one document; what went wrong.
pub(crate) async fn run(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).expect("the document can be read");
    let script = Script::parse_as(path, &text, &blocks(&text));
    let outcome = Run::new(&script, Cut::AsWritten, false).execute().await;
    if support::blessing() && !outcome.replacements.is_empty() {
        script.rewrite(outcome.replacements).expect("the document can be written");
    }
    outcome.failures
}

/// The document with everything but its blocks blanked out, line by line, so that line numbers stay.
fn blocks(text: &str) -> String {
    enum Within {
        Text,
        Sql,
        Script,
        Other,
    }
    let mut within = Within::Text;
    let mut lines = Vec::new();
    for line in text.lines() {
        let fence = line.trim_start().strip_prefix("```");
        let (next, shown) = match (&within, fence) {
            (Within::Text, Some("sql")) => (Within::Sql, "script".to_string()),
            (Within::Text, Some("slt")) => (Within::Script, String::new()),
            (Within::Text, Some(_)) => (Within::Other, String::new()),
            (_, Some(_)) => (Within::Text, String::new()),
            // An empty line would end the record.
            (Within::Sql, None) => (Within::Sql, if line.trim().is_empty() { "--".into() } else { paths(line) }),
            (Within::Script, None) => (Within::Script, paths(line)),
            (Within::Text, None) => (Within::Text, String::new()),
            (Within::Other, None) => (Within::Other, String::new()),
        };
        within = next;
        lines.push(shown);
    }
    lines.join("\n")
}

fn paths(line: &str) -> String {
    let examples = format!("'{}/", support::root().join("sql-examples").display());
    line.replace("'data/", "'{dir}/data/").replace("'out/", "'{dir}/out/").replace("'sql-examples/", &examples)
}

#[cfg(test)]
mod tests {
    use super::blocks;

    #[test]
    fn keeps_lines_where_they_are() {
        let text = "# A\n\n```sql\nSELECT 1;\n\nSELECT 2;\n```\nb\n```text\nc\n```\n```slt\nepoch\n```";
        assert_eq!(blocks(text), "\n\nscript\nSELECT 1;\n--\nSELECT 2;\n\n\n\n\n\n\nepoch\n");
    }
}
