//! An engine over a DataFusion session: its tables, functions and object stores, across restarts.

use arrow::array::{Int64Array, RecordBatch};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use datafusion::object_store::memory::InMemory;
use datafusion::object_store::{ObjectStore, ObjectStoreExt};
use datafusion::prelude::SessionContext;
use millstream::{Engine, Stop};
use std::path::Path;
use std::sync::Arc;

async fn context(prices: &str) -> SessionContext {
    let context = SessionContext::new();
    let ids = Arc::new(Int64Array::from(vec![1, 2]));
    let names = Arc::new(arrow::array::StringArray::from(vec!["red", "blue"]));
    let batch = RecordBatch::try_from_iter([("id", ids as _), ("colour", names as _)]).expect("a batch");
    context.register_batch("colours", batch).expect("a table");
    let bigint = arrow::datatypes::DataType::Int64;
    let twice = create_udf(
        "twice",
        vec![bigint.clone()],
        bigint,
        Volatility::Immutable,
        Arc::new(|arguments| {
            let array = ColumnarValue::values_to_arrays(arguments)?;
            Ok(ColumnarValue::Array(Arc::new(arrow::compute::kernels::numeric::add(&array[0], &array[0])?)))
        }),
    );
    context.register_udf(twice);
    let store = Arc::new(InMemory::new());
    store.put(&"prices.csv".into(), prices.to_string().into()).await.expect("an object");
    let url = ObjectStoreUrl::parse("shop://prices").expect("a URL");
    context.register_object_store(url.as_ref(), store as Arc<dyn ObjectStore>);
    context
}

async fn rows(engine: &Engine, sql: &str) -> Vec<String> {
    let batches = engine.sql(sql).await.expect("a query").collect().await.expect("its rows");
    crate::support::output::rows(&batches).expect("every SQL type has a text form")
}

async fn open(dir: &Path, prices: &str) -> Engine {
    Engine::from_session(context(prices).await).manual().state_dir(dir.join("state")).build().await.expect("an engine")
}

#[tokio::test]
async fn tables_functions_and_stores_of_a_session_are_known() {
    let dir = tempfile::tempdir().expect("a directory for temporary files");
    let engine = open(dir.path(), "id,price\n1,10\n2,20\n").await;
    let file = "CREATE EXTERNAL TABLE prices (id BIGINT, price BIGINT) STORED AS CSV LOCATION 'shop://prices/prices.csv'
                  OPTIONS ('format.has_header' 'true');
                CREATE STREAM sales (id BIGINT);
                CREATE MATERIALIZED VIEW named AS SELECT s.id, c.colour, twice(p.price) AS price
                  FROM sales s JOIN colours c USING (id) JOIN prices p USING (id);";
    engine.apply_pipeline_file(file, None).await.expect("a pipeline");
    engine.sql("INSERT INTO sales VALUES (2)").await.expect("a row");
    assert_eq!(rows(&engine, "SELECT * FROM named").await, ["2|blue|40"]);
    assert_eq!(rows(&engine, "SELECT twice(id) AS n FROM colours ORDER BY n").await, ["2", "4"]);
    let error = engine.sql("DROP TABLE colours").await.expect_err("it is not the engine's").to_string();
    assert!(error.contains("belongs to the DataFusion session"), "{error}");
    engine.stop(Stop::Finish).await.expect("a clean stop");

    // The pinned content stays although the program brings another one; the same file changes nothing.
    let again = open(dir.path(), "id,price\n1,1\n2,2\n").await;
    again.apply_pipeline_file(file, None).await.expect("the same pipeline");
    again.sql("INSERT INTO sales VALUES (1)").await.expect("a row");
    assert_eq!(rows(&again, "SELECT * FROM named ORDER BY id").await, ["1|red|20", "2|blue|40"]);
    assert_eq!(rows(&again, "SELECT price FROM prices ORDER BY price").await, ["1", "2"]);
    again.stop(Stop::Finish).await.expect("a clean stop");
}
