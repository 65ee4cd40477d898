//! The oracle: random queries over random changes, compared after every epoch with DataFusion's batch answer.
//!
//! ```text
//!   seed ─► schema ─► changes, cut into epochs ─────► engine, one materialized view per query ─► rows of the view
//!              └────► queries (typed grammar) ─┬───►                                              │ equal as multisets?
//!                                              └───► fresh DataFusion over the accepted rows ──► rows of the batch
//! ```
//! A query that joins has a twin, another query over the same join, which is made half-way: the two share the rows that joins keep.
//! The batch side is a plain `SessionContext` with DataFusion's own functions: nothing of the engine takes part in it. Late rows,
//! deletions of rows that are not there and the meaning of keys are modelled in [`changes`], independently of the engine.
//!
//! A failure is shrunk and printed as a script that goes to `tests/slt/regressions`. `ORACLE_CASES` sets how many cases run,
//! `ORACLE_SEED` runs a single one. The comparison itself is tested with planted bugs: see [`planted`].

mod case;
mod changes;
mod compare;
mod coverage;
mod planted;
mod query;
mod shrink;
mod values;

use crate::support;
use case::Case;
use coverage::Coverage;

/// Cases in CI; a nightly run takes more.
const CASES: u64 = 150;
/// The first seed; the number is arbitrary and stays, so that failures can be told from new ones.
const FIRST_SEED: u64 = 1;
/// Tests run side by side, each with its share of the cases.
const SHARES: u64 = 2;

#[test]
fn views_equal_batch_answers_even_seeds() {
    run_share(0);
}

#[test]
fn views_equal_batch_answers_odd_seeds() {
    run_share(1);
}

fn run_share(share: u64) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap_or_else(|_| panic!("{name} is no number")));
    let (first, count) = match number("ORACLE_SEED") {
        Some(seed) => (seed, 1),
        None => (FIRST_SEED, number("ORACLE_CASES").unwrap_or(CASES)),
    };
    let mut coverage = Coverage::default();
    for seed in (first..first + count).filter(|seed| seed % SHARES == share) {
        let case = Case::generate(seed);
        coverage.count(&case);
        match support::block_on(case.run()) {
            Ok(ran) => coverage.count_ran(&ran),
            Err(mismatch) => {
                let (case, mismatch) = shrink::shrink(case, mismatch);
                panic!("seed {seed}: {mismatch}\n\nreplay it with ORACLE_SEED={seed}; as a script:\n\n{}", case.to_script());
            }
        }
    }
    println!("{coverage}");
    if count >= CASES {
        coverage.assert_complete();
    }
}
