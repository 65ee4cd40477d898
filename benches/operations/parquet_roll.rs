//! A Parquet file per epoch: encoding, syncing, renaming.

use crate::support::{self, Bench};
use criterion::{BenchmarkId, Criterion, Throughput};

pub(crate) fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("connectors/parquet_roll");
    for count in [1_000, 100_000] {
        let dir = tempfile::tempdir().expect("the temporary directory can be written");
        let sink = format!(
            "CREATE SINK k AS SELECT k, v FROM s WITH (connector = 'parquet', path = '{}/out/', roll_interval = '0s')",
            dir.path().display()
        );
        let batch = support::rows(1, count, 1_000);
        let mut bench = None;
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            let bench = bench.get_or_insert_with(|| Bench::start(None, &[support::STREAM, &sink]));
            bencher.iter(|| bench.epoch(batch.clone()));
        });
    }
    group.finish();
}
