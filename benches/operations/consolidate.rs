//! Consolidation of a delta: half of the rows cancel.

use crate::support;
use arrow::array::Int64Array;
use criterion::{BenchmarkId, Criterion, Throughput};
use millstream_types::DeltaBatch;
use millstream_types::delta::consolidate;
use std::hint::black_box;

pub(crate) fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("types/consolidate");
    for count in [1_000, 10_000, 100_000] {
        let batch = support::rows(1, count, count as i64);
        let taken_back = batch.slice(0, count / 2);
        let minus: Int64Array = std::iter::repeat_n(Some(-1), count / 2).collect();
        let delta = vec![DeltaBatch::insertions(batch), DeltaBatch::weighted(taken_back, minus)];
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| consolidate(&support::schema(), black_box(&delta)).expect("the schemas agree"));
        });
    }
    group.finish();
}
