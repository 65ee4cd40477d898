//! One engine with epochs run by hand, and seeded rows.

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use millstream::{Clock, Engine, EventTime, ManualClock};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// The stream of [`rows`].
pub(crate) const STREAM: &str = "CREATE STREAM s (k BIGINT, v BIGINT) WITH (connector = 'memory', retention = '1 ms')";

/// An engine under measurement.
pub(crate) struct Bench {
    pub(crate) runtime: Runtime,
    pub(crate) engine: Engine,
    clock: Arc<ManualClock>,
}

impl Bench {
    /// An engine with some statements carried out; in memory without a state directory.
    pub(crate) fn start(state_dir: Option<&Path>, statements: &[&str]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime starts");
        let clock = Arc::new(ManualClock::new(EventTime(946_684_800_000_000)));
        let engine = runtime.block_on(async {
            let mut builder = Engine::builder().clock(Arc::clone(&clock) as Arc<dyn Clock>).manual();
            if let Some(dir) = state_dir {
                builder = builder.state_dir(dir);
            }
            let engine = builder.build().await.expect("an engine starts");
            for statement in statements {
                engine.sql(statement).await.expect("the statement is right");
            }
            engine
        });
        Self { runtime, engine, clock }
    }

    /// Pushes rows to the stream `s` and runs the epoch that takes them.
    pub(crate) fn epoch(&self, batch: RecordBatch) {
        self.clock.advance(Duration::from_millis(100));
        self.runtime.block_on(async {
            let _queued = self.engine.memory_source("s").expect("the stream exists").push(batch).await.expect("the rows fit");
            self.engine.run_epoch().await.expect("the epoch runs").expect("rows are there");
        });
    }
}

/// `count` rows with keys below `keys`.
pub(crate) fn rows(seed: u64, count: usize, keys: i64) -> RecordBatch {
    let mut rng = SmallRng::seed_from_u64(seed);
    let key: Int64Array = (0..count).map(|_| Some(rng.random_range(0..keys))).collect();
    let value: Int64Array = (0..count).map(|_| Some(rng.random_range(-1000..1000))).collect();
    RecordBatch::try_new(schema(), vec![Arc::new(key), Arc::new(value)]).expect("the arrays fit the schema")
}

/// The schema of [`rows`].
pub(crate) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("v", DataType::Int64, true)]))
}
