//! The queries in standard form with their validation parameters, each in a file of its own.

use crate::bench::named;
use crate::failure::Failure;

/// A query of the benchmark.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Query {
    /// `q1` to `q22`.
    pub(crate) name: &'static str,
    /// The file: a comment, then the query.
    text: &'static str,
}

macro_rules! queries {
    ($($name:literal),* $(,)?) => {
        &[$(Query { name: $name, text: include_str!(concat!("queries/", $name, ".sql")) }),*]
    };
}

/// All queries.
pub(crate) const ALL: &[Query] = queries![
    "q1", "q2", "q3", "q4", "q5", "q6", "q7", "q8", "q9", "q10", "q11", "q12", "q13", "q14", "q15", "q16", "q17", "q18", "q19", "q20",
    "q21", "q22",
];

/// The queries with these names; all of them for none.
///
/// # Errors
/// A usage error for an unknown name.
pub(crate) fn chosen(names: &[String]) -> Result<Vec<&'static Query>, Failure> {
    named(ALL, names, |query| query.name, "The queries are q1 to q22.")
}

impl Query {
    /// The query without its comment.
    pub(crate) fn sql(&self) -> String {
        let lines = self.text.lines().filter(|line| !line.trim_start().starts_with("--"));
        lines.collect::<Vec<_>>().join("\n").trim().to_string()
    }

    /// Whether the query reads this table. No column has a table's name.
    pub(crate) fn reads(&self, table: &str) -> bool {
        self.sql().split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_query_parses() {
        for query in ALL {
            millstream_sql::parse_query(&query.sql())
                .unwrap_or_else(|error| panic!("{}: {}", query.name, error.render(&query.sql(), None, 1)));
            assert!(query.text.starts_with(&format!("-- {},", query.name)), "{}", query.name);
        }
    }

    #[test]
    fn names_are_checked_and_tables_found() {
        assert_eq!(chosen(&["Q1".into(), " q22".into()]).unwrap().len(), 2);
        assert!(chosen(&["q23".into()]).unwrap_err().message.contains("Did you mean"));
        assert!(ALL[0].reads("lineitem") && !ALL[0].reads("orders"));
        assert!(ALL[1].reads("part") && ALL[1].reads("partsupp") && !ALL[10].reads("part"));
    }
}
