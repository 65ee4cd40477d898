//! Benches of single operations, named `<crate>/<operation>/<rows>`.
//!
//! ```text
//! cargo bench -p millstream-benches                                  all
//! cargo bench -p millstream-benches -- consolidate                   some
//! cargo bench -p millstream-benches -- --save-baseline before        to compare with: --baseline before
//! ```
//! Data is seeded. A claim about speed gives the command, the numbers before and after, and the machine.

mod aggregate;
mod consolidate;
mod epoch;
mod parquet_roll;
mod support;

use criterion::{Criterion, criterion_group, criterion_main};

fn all(criterion: &mut Criterion) {
    consolidate::benches(criterion);
    epoch::benches(criterion);
    aggregate::benches(criterion);
    parquet_roll::benches(criterion);
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = all
}
criterion_main!(benches);
