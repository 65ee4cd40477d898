//! The queries, in the dialect, each in a file of its own.

use crate::bench::named;
use crate::failure::Failure;
use serde::Serialize;

/// How a query's result is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OutputMode {
    /// The query only appends.
    Append,
    /// Rows are written when their window closes.
    Final,
    /// Every change is written, with `op` and `epoch`.
    Changelog,
}

/// A query of the benchmark.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Query {
    /// `q0` and so on; `tumble` and `hop` are plain windowed counts beside them.
    pub(crate) name: &'static str,
    /// The file: comments, then the query.
    pub(crate) text: &'static str,
    /// How its result is written.
    pub(crate) output: OutputMode,
    /// It means something as a batch query.
    pub(crate) has_batch_form: bool,
}

macro_rules! queries {
    ($($name:literal: $output:ident),* $(,)?) => {
        &[$(Query {
            name: $name,
            text: include_str!(concat!("queries/", $name, ".sql")),
            output: OutputMode::$output,
            has_batch_form: !matches!($name.as_bytes(), b"q12"),
        }),*]
    };
}

/// All queries.
pub(crate) const ALL: &[Query] = queries! {
    "q0": Append, "q1": Append, "q2": Append, "q3": Append, "q4": Changelog, "q5": Final, "q6": Changelog, "q7": Final, "q8": Append,
    "q9": Changelog, "q10": Append, "q11": Final, "q12": Final, "q13": Append, "q14": Append, "q15": Changelog, "q16": Changelog,
    "q17": Changelog, "q18": Changelog, "q19": Changelog, "q20": Append, "q21": Append, "q22": Append, "tumble": Final, "hop": Final,
};

/// The queries with these names; all of them for none.
///
/// # Errors
/// A usage error for an unknown name.
pub(crate) fn chosen(names: &[String]) -> Result<Vec<&'static Query>, Failure> {
    named(ALL, names, |query| query.name, "The queries are q0 to q22, tumble and hop.")
}

impl OutputMode {
    /// Its name, as the files and the table say it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            OutputMode::Append => "append",
            OutputMode::Final => "final",
            OutputMode::Changelog => "changelog",
        }
    }
}

impl Query {
    /// The query without its comments.
    pub(crate) fn sql(&self) -> String {
        let lines = self.text.lines().filter(|line| !line.trim_start().starts_with("--"));
        lines.collect::<Vec<_>>().join("\n").trim().to_string()
    }

    /// Whether the query reads this table: its name stands after FROM or JOIN, or as the first argument of a window function.
    pub(crate) fn reads(&self, table: &str) -> bool {
        let sql = self.sql();
        let words: Vec<&str> = sql.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty()).collect();
        let place = |word: &str| matches!(word, "FROM" | "JOIN" | "TUMBLE" | "HOP" | "SESSION");
        words.windows(2).any(|pair| place(pair[0]) && pair[1] == table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_query_parses_and_its_file_says_how_it_is_written() {
        for query in ALL {
            millstream_sql::parse_query(&query.sql())
                .unwrap_or_else(|error| panic!("{}: {}", query.name, error.render(&query.sql(), None, 1)));
            assert!(query.text.contains(&format!("-- output: {}\n", query.output.name())), "{}", query.name);
            assert!(query.text.starts_with(&format!("-- {},", query.name)), "{}", query.name);
            assert_eq!(query.has_batch_form, !query.text.contains("-- batch: none"), "{}", query.name);
        }
    }

    #[test]
    fn names_are_checked() {
        assert_eq!(chosen(&["q0".into(), "Q22".into()]).unwrap().len(), 2);
        assert!(chosen(&["q99".into()]).is_err());
        assert!(ALL[3].reads("auction") && ALL[3].reads("person") && !ALL[3].reads("bid"));
        assert!(ALL[0].reads("bid") && !ALL[0].reads("auction"));
        assert!(ALL[5].reads("bid") && ALL[11].reads("bid") && ALL[13].reads("side_input"));
    }
}
