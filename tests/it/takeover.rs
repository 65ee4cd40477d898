//! An instance whose state directory was taken over says so, whatever it does next, and leaves what is there alone.

use millstream::{Engine, ManualClock, Stop};
use std::path::Path;
use std::sync::Arc;

async fn open(dir: &Path, takeover: bool) -> Engine {
    let clock = Arc::new(ManualClock::new(crate::support::instance::START));
    Engine::builder().clock(clock).manual().state_dir(dir).takeover(takeover).build().await.expect("the directory can be opened")
}

#[tokio::test]
async fn a_fenced_instance_neither_commits_nor_writes_checkpoints() {
    let dir = tempfile::tempdir().expect("a directory for temporary files");
    let first = open(dir.path(), false).await;
    first.sql("CREATE TABLE t (a BIGINT)").await.expect("a table");
    let second = open(dir.path(), true).await;
    second.sql("INSERT INTO t VALUES (1)").await.expect("the new instance goes on");
    let message = first.checkpoint().await.expect_err("the directory is another one's").to_string();
    assert!(message.contains("was taken over by process"), "{message}");
    let rows = second.sql("SELECT a FROM t").await.expect("a query").collect().await.expect("its rows");
    assert_eq!(rows.iter().map(|batch| batch.num_rows()).sum::<usize>(), 1);
    second.stop(Stop::Finish).await.expect("a clean stop");
}
