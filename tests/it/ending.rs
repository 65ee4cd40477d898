//! A run ends when its streams have ended and their last rows are in files, whatever epoch came last and whether a restart lay between.

use crate::support::instance::START;
use millstream::{Clock, Engine, EngineBuilder, ManualClock, Stop};
use std::sync::Arc;
use std::time::Duration;

/// A bounded stream into files that roll once an hour. The clock stands still: nothing but the pipeline itself wakes it.
struct Run {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
}

impl Run {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory for temporary files");
        std::fs::create_dir(dir.path().join("in")).expect("the directory can be written");
        std::fs::write(dir.path().join("in/a.csv"), "a\n1\n2\n").expect("the directory can be written");
        Self { dir, clock: Arc::new(ManualClock::new(START)) }
    }

    fn builder(&self) -> EngineBuilder {
        Engine::builder().clock(Arc::clone(&self.clock) as Arc<dyn Clock>).state_dir(self.dir.path().join("state"))
    }

    async fn define(&self, engine: &Engine) {
        let path = self.dir.path().display();
        let file = format!(
            "CREATE STREAM words (a BIGINT) WITH (connector = 'files', path = '{path}/in/', format = 'csv', bounded = 'true');
             CREATE SINK copy AS SELECT a FROM words WITH (connector = 'parquet', path = '{path}/out/', roll_interval = '1 hour')"
        );
        engine.apply_pipeline_file(&file, None).await.expect("a pipeline file");
    }

    fn parquet_files(&self) -> usize {
        crate::slt::content::files(self.dir.path(), "out/*.parquet").len()
    }
}

async fn ends(engine: &Engine) {
    engine.start().await.expect("the clock starts");
    let ended = tokio::time::timeout(Duration::from_secs(30), engine.await_termination()).await;
    ended.expect("the run ends").expect("without an error");
    engine.stop(Stop::Finish).await.expect("a clean stop");
}

/// Nothing is due after the epoch with the last rows, which is also the one that ends the stream.
#[tokio::test]
async fn a_run_ends_after_its_last_rows() {
    let run = Run::new();
    let engine = run.builder().build().await.expect("an engine");
    run.define(&engine).await;
    ends(&engine).await;
    assert_eq!(run.parquet_files(), 1);
}

/// All rows are committed and wait for a roll when the process dies; the roll is the last epoch of the next run, whether it is due or
/// not.
#[tokio::test]
async fn a_run_whose_last_epoch_is_a_roll_ends() {
    for pause in [Duration::ZERO, Duration::from_secs(7_200)] {
        let run = Run::new();
        let first = run.builder().manual().build().await.expect("an engine");
        run.define(&first).await;
        while first.run_epoch().await.expect("an epoch").is_some() {}
        first.stop(Stop::Now).await.expect("a stop");
        assert_eq!(run.parquet_files(), 0, "the rows wait for the roll");

        run.clock.advance(pause);
        ends(&run.builder().build().await.expect("the engine recovers")).await;
        assert_eq!(run.parquet_files(), 1);
    }
}
