//! An aggregate over append-only input: epochs of a thousand rows into ten thousand and into a million groups.

use crate::support::{self, Bench};
use criterion::{BenchmarkId, Criterion, Throughput};

const VIEW: &str = "CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS n, sum(v) AS total, max(v) AS most FROM s GROUP BY k";
const ROWS: usize = 1_000;

pub(crate) fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("dataflow/aggregate");
    group.throughput(Throughput::Elements(ROWS as u64));
    for groups in [10_000, 1_000_000] {
        let epochs: Vec<_> = (0..16).map(|seed| support::rows(seed, ROWS, groups)).collect();
        let mut bench = None;
        group.bench_function(BenchmarkId::new("append_only", groups), |bencher| {
            let bench = bench.get_or_insert_with(|| {
                let bench = Bench::start(None, &[support::STREAM, VIEW]);
                bench.epoch(support::rows(99, usize::try_from(groups).unwrap_or(usize::MAX), groups));
                bench
            });
            let mut next = epochs.iter().cycle();
            bencher.iter(|| bench.epoch(next.next().expect("a cycle has no end").clone()));
        });
    }
    group.finish();
}
