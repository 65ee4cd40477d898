//! Makes a failing case smaller: fewer queries, epochs and rows, then parts of the query in place of the whole.

use super::case::{Case, Mismatch};
use crate::support;

/// Runs that a shrinking may take; each takes a fraction of a second.
const RUNS_MAX: usize = 300;

/// The smallest failing case that was found, and its mismatch.
pub(super) fn shrink(case: Case, mismatch: Mismatch) -> (Case, Mismatch) {
    let mut shrinker = Shrinker { case, mismatch, runs: 0 };
    shrinker.only_failing_query();
    shrinker.only_epochs_up_to_failure();
    loop {
        let before = shrinker.runs;
        let progress = shrinker.without_restart() | shrinker.without_shards() | shrinker.fewer_rows() | shrinker.smaller_query();
        if !progress || shrinker.runs >= RUNS_MAX || shrinker.runs == before {
            return (shrinker.case, shrinker.mismatch);
        }
    }
}

struct Shrinker {
    case: Case,
    mismatch: Mismatch,
    runs: usize,
}

impl Shrinker {
    /// Takes a smaller case if it fails, too.
    fn try_case(&mut self, case: Case) -> bool {
        if self.runs >= RUNS_MAX || case.epochs.is_empty() {
            return false;
        }
        self.runs += 1;
        match support::block_on(case.run()) {
            Ok(_) => false,
            Err(mismatch) => {
                (self.case, self.mismatch) = (case, mismatch);
                true
            }
        }
    }

    fn only_failing_query(&mut self) {
        let mut case = self.case.clone();
        case.queries = vec![case.queries[self.mismatch.query].clone()];
        self.try_case(case);
    }

    fn only_epochs_up_to_failure(&mut self) {
        let mut case = self.case.clone();
        case.epochs.truncate(self.mismatch.epoch + 1);
        self.try_case(case);
    }

    fn without_restart(&mut self) -> bool {
        let mut case = self.case.clone();
        case.restart_after.take().is_some() && self.try_case(case)
    }

    fn without_shards(&mut self) -> bool {
        let mut case = self.case.clone();
        case.shards.take().is_some() && self.try_case(case)
    }

    /// Whole epochs first, then pushes, then rows.
    fn fewer_rows(&mut self) -> bool {
        let mut progress = false;
        for epoch in (0..self.case.epochs.len()).rev() {
            let mut case = self.case.clone();
            case.epochs.remove(epoch);
            progress |= case.restart_after.is_none() && self.try_case(case);
        }
        for epoch in (0..self.case.epochs.len()).rev() {
            for push in (0..self.case.epochs[epoch].len()).rev() {
                let mut case = self.case.clone();
                case.epochs[epoch].remove(push);
                progress |= !case.epochs[epoch].is_empty() && self.try_case(case);
            }
        }
        for epoch in (0..self.case.epochs.len()).rev() {
            for push in (0..self.case.epochs[epoch].len()).rev() {
                for row in (0..self.case.epochs[epoch][push].1.len()).rev() {
                    let mut case = self.case.clone();
                    let rows = &mut case.epochs[epoch][push].1;
                    rows.remove(row);
                    progress |= !rows.is_empty() && self.try_case(case);
                }
            }
        }
        progress
    }

    /// A part of the query in place of the whole.
    fn smaller_query(&mut self) -> bool {
        let [query] = self.case.queries.as_slice() else { return false };
        query.parts.clone().into_iter().any(|part| {
            let mut case = self.case.clone();
            case.queries = vec![part];
            self.try_case(case)
        })
    }
}
