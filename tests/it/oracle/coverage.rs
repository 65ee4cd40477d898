//! Which pairs of query constructs the cases went through.

use super::case::Case;
use super::query::{KINDS, Query};
use std::collections::BTreeMap;
use std::fmt;

/// Counts of (construct, construct below it).
#[derive(Debug, Default)]
pub(super) struct Coverage {
    pairs: BTreeMap<(&'static str, &'static str), usize>,
    cases: usize,
    /// Cases in which joins of two queries shared rows.
    shared: usize,
    queries: usize,
}

impl Coverage {
    /// Counts the constructs of a case.
    pub(super) fn count(&mut self, case: &Case) {
        self.cases += 1;
        self.queries += case.queries.len();
        for query in &case.queries {
            self.count_query(query);
        }
    }

    /// Counts a case in which joins of two queries shared rows.
    pub(super) fn count_shared(&mut self, shared: bool) {
        self.shared += usize::from(shared);
    }

    fn count_query(&mut self, query: &Query) {
        if query.parts.is_empty() {
            *self.pairs.entry((query.kind, "stream")).or_default() += 1;
        }
        for part in &query.parts {
            *self.pairs.entry((query.kind, part.kind)).or_default() += 1;
            self.count_query(part);
        }
    }

    /// Every construct has occurred.
    pub(super) fn assert_complete(&self) {
        let missing: Vec<_> = KINDS.iter().filter(|kind| !self.pairs.keys().any(|(upper, _)| upper == *kind)).collect();
        assert!(missing.is_empty(), "constructs that no case has: {missing:?}");
        assert!(self.shared > 0, "no case has joins that share rows");
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} cases with {} queries, {} with shared rows; constructs and what stood below them:",
            self.cases, self.queries, self.shared
        )?;
        for kind in KINDS {
            let below: Vec<String> =
                self.pairs.iter().filter(|((upper, _), _)| upper == kind).map(|((_, below), count)| format!("{below} {count}")).collect();
            writeln!(f, "  {kind:<14} {}", below.join(", "))?;
        }
        Ok(())
    }
}
