//! The cost of an epoch itself: one row into a materialized view, in memory and with a state directory, on a young pipeline and
//! on one that has run for many epochs. It must not grow.

use crate::support::{self, Bench};
use criterion::{BenchmarkId, Criterion};

/// Epochs that the old pipeline has behind it.
const HISTORY: u64 = 2_000;

const VIEW: &str = "CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS n FROM s GROUP BY k";

pub(crate) fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("engine/epoch");
    let one = support::rows(1, 1, 10);
    for (name, durable, history) in [("memory", false, 0), ("memory_old", false, HISTORY), ("durable", true, 0)] {
        let dir = tempfile::tempdir().expect("the temporary directory can be written");
        let state_dir = dir.path().join("state");
        let mut bench = None;
        group.bench_function(BenchmarkId::new(name, 1), |bencher| {
            // Made at the first use, so that a filter on the command line skips it.
            let bench = bench.get_or_insert_with(|| {
                let bench = Bench::start(durable.then_some(state_dir.as_path()), &[support::STREAM, VIEW]);
                (0..history).for_each(|_| bench.epoch(one.clone()));
                bench
            });
            bencher.iter(|| bench.epoch(one.clone()));
        });
    }
    group.finish();
}
