//! When checkpoints are made. What is computed does not depend on it; how long a start takes does.

use crate::support::{self, instance};
use millstream::{Engine, ManualClock, Stop};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

async fn open(dir: &Path, clock: &Arc<ManualClock>) -> Engine {
    Engine::builder().clock(Arc::clone(clock) as _).manual().state_dir(dir).build().await.expect("the directory can be opened")
}

async fn line(engine: &Engine, query: &str) -> String {
    let batches = engine.sql(query).await.expect("a query").collect().await.expect("its rows");
    let value = |column| arrow::util::display::array_value_to_string(batches[0].column(column), 0).expect("a value");
    (0..batches[0].num_columns()).map(value).collect::<Vec<_>>().join(" ")
}

/// The checkpoints in a state directory, oldest first.
fn checkpoints(dir: &Path) -> Vec<u64> {
    let entries = std::fs::read_dir(dir.join("checkpoint")).expect("a directory of checkpoints");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().parse());
    let mut epochs: Vec<u64> = names.filter_map(Result::ok).collect();
    epochs.sort_unstable();
    epochs
}

#[test]
fn a_view_that_is_soon_filled_back_again_needs_none() {
    support::block_on(async {
        let dir = tempfile::tempdir().expect("a directory for temporary files");
        let clock = Arc::new(ManualClock::new(instance::START));
        let engine = open(dir.path(), &clock).await;
        engine.sql("CREATE STREAM s (a BIGINT)").await.expect("a stream");
        engine.sql("INSERT INTO s VALUES (1), (2)").await.expect("rows");
        let before = checkpoints(dir.path());
        engine.sql("CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n, sum(a) AS a FROM s").await.expect("a view");
        engine.sql("CREATE MATERIALIZED VIEW most AS SELECT max(a) AS a FROM total").await.expect("a view over the view");
        engine.sql("INSERT INTO s VALUES (3)").await.expect("a row");
        assert_eq!(checkpoints(dir.path()), before);
        engine.stop(Stop::Now).await.expect("an end without a checkpoint");

        let engine = open(dir.path(), &clock).await;
        assert_eq!(line(&engine, "SELECT n, a FROM total").await, "3 6");
        assert_eq!(line(&engine, "SELECT a FROM most").await, "6");
    });
}

#[test]
fn a_view_over_files_does_not_need_them_twice() {
    support::block_on(async {
        let dir = tempfile::tempdir().expect("a directory for temporary files");
        let (state, input) = (dir.path().join("state"), dir.path().join("in"));
        std::fs::create_dir(&input).expect("a directory for input");
        std::fs::write(input.join("a.csv"), "a\n1\n2\n").expect("input");
        let clock = Arc::new(ManualClock::new(instance::START));
        let engine = open(&state, &clock).await;
        let options =
            format!("connector = 'files', path = '{}/', format = 'csv', settle = '0s', discovery_interval = '0s'", input.display());
        engine.sql(&format!("CREATE STREAM s (a BIGINT) WITH ({options})")).await.expect("a stream");
        engine.sql("CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM s").await.expect("a view");
        engine.drain().await.expect("the file is read");
        engine.sql("CREATE MATERIALIZED VIEW total AS SELECT sum(a) AS a FROM s").await.expect("a view over what was read");
        std::fs::remove_file(input.join("a.csv")).expect("input that was read can go");
        engine.stop(Stop::Now).await.expect("an end without a checkpoint");
        assert_eq!(line(&open(&state, &clock).await, "SELECT a FROM total").await, "3");
    });
}

#[test]
fn a_pipeline_that_is_killed_again_and_again_gets_on() {
    support::block_on(async {
        let dir = tempfile::tempdir().expect("a directory for temporary files");
        let clock = Arc::new(ManualClock::new(instance::START));
        let engine = open(dir.path(), &clock).await;
        engine.sql("SET checkpoint_interval = '10s'").await.expect("an interval");
        engine.sql("CREATE STREAM s (a BIGINT)").await.expect("a stream");
        engine.sql("CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n FROM s").await.expect("a view");
        engine.stop(Stop::Now).await.expect("an end without a checkpoint");
        for life in 1..=6 {
            // Each life is shorter than the interval.
            clock.advance(Duration::from_secs(4));
            let engine = open(dir.path(), &clock).await;
            engine.sql("INSERT INTO s VALUES (1)").await.expect("a row");
            assert_eq!(line(&engine, "SELECT n FROM total").await, life.to_string());
            engine.stop(Stop::Now).await.expect("an end without a checkpoint");
        }
        // Epochs 4 to 9 had rows: the first made the first checkpoint, 12 seconds later came the next.
        assert_eq!(checkpoints(dir.path()), [4, 7]);
    });
}
