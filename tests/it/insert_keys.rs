//! Rows that come with a key are inserted once, whoever else inserts and whenever the process dies.

use crate::support::{self, instance};
use arrow::array::{Int64Array, RecordBatch};
use millstream::{Engine, ManualClock, Stop};
use std::path::Path;
use std::sync::Arc;

async fn open(dir: &Path) -> Engine {
    let clock = Arc::new(ManualClock::new(instance::START));
    Engine::builder().clock(clock).manual().state_dir(dir).build().await.expect("the directory can be opened")
}

async fn define(engine: &Engine) {
    engine.sql("CREATE STREAM s (a BIGINT)").await.expect("a stream");
    engine.sql("CREATE TABLE t (a BIGINT)").await.expect("a table");
    engine.sql("CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM s").await.expect("a view");
}

fn rows(values: &[i64]) -> Vec<RecordBatch> {
    let column: arrow::array::ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
    vec![RecordBatch::try_from_iter([("a", column)]).expect("a batch")]
}

async fn values(engine: &Engine, relation: &str) -> Vec<i64> {
    let result = engine.sql(&format!("SELECT a FROM {relation} ORDER BY a")).await.expect("a query");
    let batches = result.collect().await.expect("its rows");
    let column = |batch: &RecordBatch| batch.column(0).as_any().downcast_ref::<Int64Array>().expect("BIGINT").values().to_vec();
    batches.iter().flat_map(column).collect()
}

#[test]
fn a_key_is_committed_by_the_epoch_that_takes_the_rows() {
    support::block_on_one_thread(async {
        let dir = tempfile::tempdir().expect("a directory for temporary files");
        let engine = open(dir.path()).await;
        define(&engine).await;
        let session = engine.session();
        // Somebody else's epoch is asked for before the insert asks for its own: it finds the rows, and commits them.
        let mut others = Box::pin(engine.run_epoch());
        assert!(futures::poll!(&mut others).is_pending());
        let mut inserting = Box::pin(session.insert_rows("s", rows(&[7]), Some("order-7")));
        assert!(futures::poll!(&mut inserting).is_pending());
        assert!(others.await.expect("an epoch").is_some());
        drop(inserting);
        engine.stop(Stop::Now).await.expect("an end without a checkpoint");

        let engine = open(dir.path()).await;
        let again = engine.session().insert_rows("s", rows(&[7]), Some("order-7")).await.expect("the client tries again");
        assert!(again.repeated && again.rows == 0);
        assert_eq!(values(&engine, "s").await, [7]);
    });
}

#[test]
fn of_requests_at_the_same_time_one_is_carried_out() {
    support::block_on_one_thread(async {
        let engine = Engine::builder().clock(Arc::new(ManualClock::new(instance::START))).manual().build().await.expect("an engine");
        define(&engine).await;
        let (one, other) = (engine.session(), engine.session());
        for relation in ["s", "t"] {
            let (first, second) =
                tokio::join!(one.insert_rows(relation, rows(&[1, 2]), Some("k")), other.insert_rows(relation, rows(&[1, 2]), Some("k")));
            let (first, second) = (first.expect("an insert"), second.expect("its repetition"));
            assert!(!first.repeated && second.repeated, "{relation}: {first:?} {second:?}");
            assert_eq!((first.rows, second.rows, second.epoch), (2, 0, first.epoch), "{relation}");
            // The epoch is that of the first, however many have come since.
            one.insert_rows(relation, rows(&[3]), Some("later")).await.expect("another insert");
            assert_eq!(one.insert_rows(relation, rows(&[1, 2]), Some("k")).await.expect("once more").epoch, first.epoch);
            assert_eq!(values(&engine, relation).await, [1, 2, 3], "{relation}");
        }
    });
}

#[test]
fn a_request_that_was_given_up_is_finished_before_its_repetition() {
    support::block_on_one_thread(async {
        let engine = Engine::builder().clock(Arc::new(ManualClock::new(instance::START))).manual().build().await.expect("an engine");
        define(&engine).await;
        let session = engine.session();
        for relation in ["s", "t"] {
            let mut given_up = Box::pin(session.insert_rows(relation, rows(&[5]), Some("k")));
            assert!(futures::poll!(&mut given_up).is_pending());
            drop(given_up);
            let again = session.insert_rows(relation, rows(&[5]), Some("k")).await.expect("the repetition");
            assert!(again.repeated, "{relation}");
            assert_eq!(values(&engine, relation).await, [5], "{relation}");
        }
    });
}

#[test]
fn keys_survive_checkpoints() {
    support::block_on_one_thread(async {
        let dir = tempfile::tempdir().expect("a directory for temporary files");
        let engine = open(dir.path()).await;
        define(&engine).await;
        let session = engine.session();
        let first = session.insert_rows("s", rows(&[1]), Some("k")).await.expect("an insert");
        engine.stop(Stop::Finish).await.expect("a clean stop");
        let engine = open(dir.path()).await;
        let again = engine.session().insert_rows("s", rows(&[1]), Some("k")).await.expect("the repetition");
        assert_eq!((again.repeated, again.epoch), (true, first.epoch));
        // The key counts for the relation it came with.
        assert!(!engine.session().insert_rows("t", rows(&[1]), Some("k")).await.expect("another relation").repeated);
    });
}
