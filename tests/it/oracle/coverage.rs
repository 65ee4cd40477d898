//! Which pairs of query constructs the cases went through.

use super::case::{Case, Ran};
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
    /// Cases in which operators were divided.
    divided: usize,
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

    /// Counts what a case has shown.
    pub(super) fn count_ran(&mut self, ran: &Ran) {
        self.shared += usize::from(ran.shared);
        self.divided += usize::from(ran.divided);
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
        assert!(self.divided > 0, "no case has operators that are divided");
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} cases with {} queries, {} with shared rows, {} with shards; constructs and what stood below them:",
            self.cases, self.queries, self.shared, self.divided
        )?;
        for kind in KINDS {
            let below: Vec<String> =
                self.pairs.iter().filter(|((upper, _), _)| upper == kind).map(|((_, below), count)| format!("{below} {count}")).collect();
            writeln!(f, "  {kind:<14} {}", below.join(", "))?;
        }
        Ok(())
    }
}
