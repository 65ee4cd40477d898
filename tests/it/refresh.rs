//! `refresh = '<interval>'`: epochs go on while the next version of a table is being read, and see it when it is there.

use crate::support::{self, instance::START};
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use async_trait::async_trait;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::object_store::memory::InMemory;
use datafusion::object_store::path::Path;
use datafusion::object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};
use datafusion::prelude::SessionContext;
use futures::stream::BoxStream;
use millstream::{Clock, Engine, ManualClock, Stop};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A store whose objects cannot be read while its gate is closed.
#[derive(Debug)]
struct Gated {
    objects: InMemory,
    open: watch::Sender<bool>,
}

impl std::fmt::Display for Gated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("gated")
    }
}

#[async_trait]
impl ObjectStore for Gated {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.objects.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.open.subscribe().wait_for(|open| *open).await.expect("the gate stands");
        self.objects.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.objects.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}

async fn order(engine: &Engine, id: i64) {
    let source = engine.memory_source("orders").expect("a memory stream");
    let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![id])), Arc::new(Int64Array::from(vec![1]))];
    let pushed = source.push(RecordBatch::try_new(source.schema(), columns).expect("a batch")).await.expect("a push");
    support::instance::within(pushed.committed()).await.expect("a commit");
}

async fn rows(engine: &Engine) -> Vec<String> {
    let batches = engine.sql("SELECT id, price FROM priced ORDER BY id").await.expect("a query").collect().await.expect("its rows");
    support::output::rows(&batches).expect("every SQL type has a text form")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn epochs_do_not_wait_for_the_next_version() {
    let dir = tempfile::tempdir().expect("a directory for temporary files");
    let clock = Arc::new(ManualClock::new(START));
    let store = Arc::new(Gated { objects: InMemory::new(), open: watch::Sender::new(true) });
    let put = async |content: &'static str| store.put(&"prices.csv".into(), content.into()).await.expect("an object");
    let build = || {
        let context = SessionContext::new();
        let url = ObjectStoreUrl::parse("gated://prices").expect("a URL");
        context.register_object_store(url.as_ref(), Arc::clone(&store) as Arc<dyn ObjectStore>);
        let builder = Engine::from_session(context).clock(Arc::clone(&clock) as Arc<dyn Clock>).option("trigger", "1ms");
        builder.state_dir(dir.path().join("state")).build()
    };
    put("item,price\n1,10\n").await;
    let engine = build().await.expect("an engine");
    let file = "CREATE EXTERNAL TABLE prices (item BIGINT, price BIGINT) STORED AS CSV LOCATION 'gated://prices/prices.csv'
                  OPTIONS ('format.has_header' 'true', refresh '1 hour');
                CREATE STREAM orders (id BIGINT, item BIGINT);
                CREATE MATERIALIZED VIEW priced AS SELECT o.id, p.price FROM orders o JOIN prices p USING (item);";
    engine.apply_pipeline_file(file, None).await.expect("a pipeline");
    engine.start().await.expect("the clock starts");
    order(&engine, 1).await;

    // The interval is over, and the next version cannot be read yet: rows meet the one in force.
    put("item,price\n1,20\n").await;
    store.open.send_replace(false);
    clock.advance(Duration::from_secs(3_601));
    order(&engine, 2).await;
    order(&engine, 3).await;
    assert_eq!(rows(&engine).await, ["1|10", "2|10", "3|10"]);

    // Once it has been read, the next epoch sees it; what was handed out stays as it is.
    store.open.send_replace(true);
    let mut id = 4;
    loop {
        order(&engine, id).await;
        let rows = rows(&engine).await;
        assert_eq!(&rows[..3], ["1|10", "2|10", "3|10"]);
        if rows.last().is_some_and(|row| row.ends_with("|20")) {
            break;
        }
        assert!(id < 100_000, "the new version never came");
        id += 1;
    }
    let before = rows(&engine).await;
    engine.stop(Stop::Now).await.expect("a stop");

    // Recovery joins every epoch with the version it saw, whatever the file holds now.
    put("item,price\n1,30\n").await;
    let again = build().await.expect("the engine recovers");
    assert_eq!(rows(&again).await, before);
    again.stop(Stop::Finish).await.expect("a clean stop");
}

/// Every version is stored before it is used; what no checkpoint and no record that recovery may need names any more is removed.
#[tokio::test]
async fn stored_versions_go_with_what_names_them() {
    let dir = tempfile::tempdir().expect("a directory for temporary files");
    let clock = Arc::new(ManualClock::new(START));
    let path = dir.path().join("prices.csv");
    let price = |price: i64| std::fs::write(&path, format!("item,price\n1,{price}\n")).expect("the directory can be written");
    let build = || {
        let builder = Engine::builder().clock(Arc::clone(&clock) as Arc<dyn Clock>).manual().option("checkpoint_interval", "100 days");
        builder.state_dir(dir.path().join("state")).build()
    };
    price(0);
    let engine = build().await.expect("an engine");
    let file = format!(
        "CREATE EXTERNAL TABLE prices (item BIGINT, price BIGINT) STORED AS CSV LOCATION '{}'
           OPTIONS ('format.has_header' 'true', refresh '1 hour');
         CREATE STREAM orders (id BIGINT, item BIGINT);
         CREATE MATERIALIZED VIEW priced AS SELECT o.id, p.price FROM orders o JOIN prices p USING (item);",
        path.display()
    );
    engine.apply_pipeline_file(&file, None).await.expect("a pipeline");
    for id in 1..=8 {
        price(id * 10);
        clock.advance(Duration::from_secs(3_600));
        engine.sql(&format!("INSERT INTO orders VALUES ({id}, 1)")).await.expect("a row");
        if id % 2 == 0 {
            engine.checkpoint().await.expect("a checkpoint");
        }
    }
    let stored = std::fs::read_dir(dir.path().join("state/tables")).expect("a directory").count();
    assert_eq!(stored, 3, "those of the last two checkpoints, and the one between them");
    let before = rows(&engine).await;
    assert_eq!(before.len(), 8);
    engine.stop(Stop::Now).await.expect("a stop");

    // Also when the newest checkpoint is damaged, everything that is needed is there.
    let newest = crate::slt::content::files(dir.path(), "state/checkpoint/*/manifest").pop().expect("a checkpoint");
    std::fs::write(&newest, "damaged").expect("the directory can be written");
    let again = build().await.expect("the engine recovers");
    assert_eq!(rows(&again).await, before);
    again.stop(Stop::Finish).await.expect("a clean stop");
}
