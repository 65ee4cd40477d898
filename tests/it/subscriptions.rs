//! Subscriptions: many subscribers of one view share its changes, a slow one is cut off, one can begin in the past.

use crate::support::block_on;
use crate::support::output::{rows, sorted};
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use millstream::{Change, Engine, Output, Subscription};
use std::sync::Arc;

const SUBSCRIBERS: usize = 2_000;

async fn engine(history: &str) -> Engine {
    let engine = Engine::builder().manual().build().await.expect("an engine");
    let view = "AS SELECT k, count(*) AS n FROM numbers GROUP BY k";
    for statement in ["CREATE STREAM numbers (k BIGINT)".to_string(), format!("CREATE MATERIALIZED VIEW per_key {history} {view}")] {
        engine.sql(&statement).await.expect("a definition");
    }
    engine
}

/// One epoch with these keys.
async fn epoch(engine: &Engine, keys: &[i64]) {
    let source = engine.memory_source("numbers").expect("a memory stream");
    let column: ArrayRef = Arc::new(Int64Array::from(keys.to_vec()));
    let batch = RecordBatch::try_new(source.schema(), vec![column]).expect("a batch");
    drop(source.push(batch).await.expect("a push"));
    assert!(engine.run_epoch().await.expect("an epoch").is_some());
}

async fn subscribe(engine: &Engine, sql: &str) -> Result<Subscription, String> {
    match engine.sql(sql).await.map_err(|error| error.to_string())?.output {
        Output::Changes(subscription) => Ok(subscription),
        _ => Err("no subscription".to_string()),
    }
}

/// The changes through the next mark of progress.
async fn through_mark(subscription: &mut Subscription) -> Vec<Change> {
    let mut changes = Vec::new();
    loop {
        let change = subscription.next().await.expect("the subscription goes on").expect("no error");
        if change.progress {
            return changes;
        }
        changes.push(change);
    }
}

/// All changes to the end, as lines of a change log.
async fn to_the_end(mut subscription: Subscription) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some(change) = subscription.next().await {
        lines.extend(rows(&[change.expect("no error").log_rows().expect("rows")]).expect("a text form"));
    }
    sorted(lines)
}

#[test]
fn thousands_of_subscribers_share_the_changes_of_a_view() {
    block_on(async {
        let engine = engine("").await;
        epoch(&engine, &[1, 2]).await;
        let mut subscribers = Vec::with_capacity(SUBSCRIBERS);
        for _ in 0..SUBSCRIBERS {
            subscribers.push(engine.subscribe("SELECT * FROM per_key").await.expect("a subscription"));
        }
        for subscriber in &mut subscribers {
            let snapshot = through_mark(subscriber).await;
            assert!(snapshot.iter().all(|change| change.snapshot));
            assert_eq!(snapshot.iter().map(|change| change.batch.num_rows()).sum::<usize>(), 2);
        }
        for key in 0..10 {
            epoch(&engine, &[key]).await;
            let mut first: Option<Vec<Change>> = None;
            for subscriber in &mut subscribers {
                let changes = through_mark(subscriber).await;
                let shared = first.get_or_insert_with(|| changes.clone());
                assert_eq!(changes.len(), shared.len());
                for (own, shared) in changes.iter().zip(shared) {
                    assert!(Arc::ptr_eq(own.batch.column(0), shared.batch.column(0)), "the rows are one allocation");
                }
            }
        }
    });
}

#[test]
fn a_slow_subscriber_is_cut_off_and_delays_nobody() {
    block_on(async {
        let engine = engine("").await;
        let mut slow = engine.subscribe("SELECT * FROM per_key").await.expect("a subscription");
        let mut quick = engine.subscribe("SELECT * FROM per_key").await.expect("a subscription");
        through_mark(&mut quick).await;
        for _ in 0..1_100 {
            epoch(&engine, &[7]).await;
            assert!(!through_mark(&mut quick).await.is_empty());
        }
        let error = slow.next().await.expect("an error").expect_err("it fell behind");
        assert!(error.to_string().contains("fell more than 1024 epochs or 64 MB behind and was cut off"), "{error}");
        assert!(slow.next().await.is_none());
        epoch(&engine, &[7]).await;
        assert!(!through_mark(&mut quick).await.is_empty());
    });
}

#[test]
fn a_subscription_begins_in_the_past_and_ends_where_it_is_told() {
    block_on(async {
        let engine = engine("WITH (history = 5)").await;
        let created = engine.epoch().0;
        for key in [1, 2, 1, 3] {
            epoch(&engine, &[key]).await;
        }
        let at = |sql: &str| sql.replace("{2}", &(created + 2).to_string()).replace("{3}", &(created + 3).to_string());
        let shown = |lines: Vec<String>| -> Vec<String> {
            let offset = |line: &String| {
                let (epoch, rest) = line.split_once('|').expect("an epoch");
                format!("{}|{rest}", epoch.parse::<u64>().expect("a number") - created)
            };
            sorted(lines.iter().map(offset).collect())
        };
        let ended = subscribe(&engine, &at("SUBSCRIBE TO per_key AS OF EPOCH {2} UP TO EPOCH {3}")).await.expect("a subscription");
        assert_eq!(shown(to_the_end(ended).await), ["2|+I|1|1", "2|+I|2|1", "2|=|NULL|NULL", "3|+I|1|2", "3|-D|1|1"]);
        let query = at("SUBSCRIBE TO (SELECT n, count(*) AS keys FROM per_key GROUP BY n) AS OF EPOCH {2} UP TO EPOCH {3}");
        let ended = subscribe(&engine, &query).await.expect("a subscription");
        assert_eq!(shown(to_the_end(ended).await), ["2|+I|1|2", "2|=|NULL|NULL", "3|+I|1|1", "3|+I|2|1", "3|-D|1|2"]);

        let going_on = at("SUBSCRIBE TO per_key WITH (snapshot = false, progress = true) AS OF EPOCH {3}");
        let mut going_on = subscribe(&engine, &going_on).await.expect("a subscription");
        assert_eq!(through_mark(&mut going_on).await.len(), 1, "what came after epoch 3 and before the subscription");
        epoch(&engine, &[9]).await;
        assert_eq!(through_mark(&mut going_on).await.len(), 1);

        let error = |sql: &str| {
            let (engine, sql) = (engine.clone(), at(sql));
            async move { subscribe(&engine, &sql).await.expect_err("it cannot begin there") }
        };
        assert!(error("SUBSCRIBE TO per_key AS OF EPOCH 900").await.contains("epoch 900 has not come yet"));
        assert!(error("SUBSCRIBE TO numbers AS OF EPOCH {2}").await.contains("only materialized views have a history"));
        for key in 0..5 {
            epoch(&engine, &[key]).await;
        }
        let gone = error("SUBSCRIBE TO per_key AS OF EPOCH {2}").await;
        assert!(gone.contains("are not kept any more: its history begins with epoch"), "{gone}");
    });
}

#[test]
fn a_subscription_ends_with_its_view() {
    block_on(async {
        let engine = engine("").await;
        let mut subscription = engine.subscribe("SELECT * FROM per_key").await.expect("a subscription");
        through_mark(&mut subscription).await;
        engine.sql("DROP MATERIALIZED VIEW per_key").await.expect("a definition");
        let error = subscription.next().await.expect("an error").expect_err("the view is gone");
        assert_eq!(error.to_string(), "\"per_key\" was dropped");
    });
}
