//! A run ends when its streams have ended, also where an earlier run has found that out and was stopped before its last files.

use crate::support::instance::START;
use millstream::{Clock, Engine, ManualClock, Stop};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn parquet_files(dir: &Path) -> usize {
    crate::slt::content::files(dir, "out/*.parquet").len()
}

/// All rows are committed and wait for a roll when the process dies; the roll is then the last epoch of the next run.
#[tokio::test]
async fn a_run_whose_last_epoch_is_a_roll_ends() {
    let dir = tempfile::tempdir().expect("a directory for temporary files");
    let path = dir.path().display();
    std::fs::create_dir(dir.path().join("in")).expect("the directory can be written");
    std::fs::write(dir.path().join("in/a.csv"), "a\n1\n2\n").expect("the directory can be written");
    let clock = Arc::new(ManualClock::new(START));
    let builder = || Engine::builder().clock(Arc::clone(&clock) as Arc<dyn Clock>).state_dir(dir.path().join("state"));

    let first = builder().manual().build().await.expect("an engine");
    for statement in [
        format!("CREATE STREAM words (a BIGINT) WITH (connector = 'files', path = '{path}/in/', format = 'csv', bounded = 'true')"),
        format!("CREATE SINK copy AS SELECT a FROM words WITH (connector = 'parquet', path = '{path}/out/', roll_interval = '1 hour')"),
    ] {
        first.sql(&statement).await.expect("a definition");
    }
    while first.run_epoch().await.expect("an epoch").is_some() {}
    first.stop(Stop::Now).await.expect("a stop");
    assert_eq!(parquet_files(dir.path()), 0, "the rows wait for the roll");

    clock.advance(Duration::from_secs(7_200));
    let second = builder().build().await.expect("the engine recovers");
    second.start().await.expect("the clock starts");
    let ended = tokio::time::timeout(Duration::from_secs(60), second.await_termination()).await;
    ended.expect("the run ends").expect("without an error");
    assert_eq!(parquet_files(dir.path()), 1);
    second.stop(Stop::Finish).await.expect("a clean stop");
}
