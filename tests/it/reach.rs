//! A limited reach holds for every way that a statement can name a file or a host, also when a link comes later.

use crate::support::{self, instance::within};
use millstream::reach::{Allowed, HostPattern};
use millstream::{Engine, EngineError, ManualClock, Reach, Stop};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

async fn engine(root: &Path) -> Engine {
    let root = fs::canonicalize(root).expect("the directory exists");
    let host = HostPattern::parse("127.0.0.1:7").expect("a host");
    let allowed = Allowed { closed: vec![root.join("state")], roots: vec![root], hosts: vec![host] };
    let clock = Arc::new(ManualClock::new(support::instance::START));
    Engine::builder().clock(clock).manual().reach(Reach::limited(allowed)).build().await.expect("an engine in memory starts")
}

async fn run(engine: &Engine, sql: &str) -> Result<usize, EngineError> {
    let result = within(engine.sql(sql)).await?;
    Ok(result.collect().await?.iter().map(arrow::array::RecordBatch::num_rows).sum())
}

#[test]
fn statements_reach_what_is_allowed() {
    support::block_on(async {
        let directory = support::scratch_dir();
        let (root, outside) = (directory.path().join("data"), directory.path().join("outside"));
        fs::create_dir_all(root.join("in")).unwrap();
        fs::create_dir_all(&outside).unwrap();
        fs::write(root.join("in/a.csv"), "n\n1\n2\n").unwrap();
        fs::write(outside.join("secret.csv"), "n\n7\n").unwrap();
        symlink(&outside, root.join("link")).unwrap();
        let engine = engine(&root).await;
        let (inside, outside) = (root.display().to_string(), outside.display().to_string());

        assert_eq!(run(&engine, &format!("SELECT * FROM '{inside}/in/a.csv'")).await.unwrap(), 2);
        run(&engine, &format!("COPY (SELECT 1 AS n) TO '{inside}/out.parquet'")).await.unwrap();
        assert_eq!(run(&engine, &format!("SELECT * FROM '{inside}/out.parquet'")).await.unwrap(), 1);
        let external = |name: &str, at: &str| {
            format!("CREATE EXTERNAL TABLE {name} (n BIGINT) STORED AS CSV LOCATION '{at}' OPTIONS ('format.has_header' 'true')")
        };
        run(&engine, &external("e", &format!("{inside}/in/"))).await.unwrap();
        assert_eq!(run(&engine, "SELECT * FROM e").await.unwrap(), 2);
        let stream =
            |name: &str, at: &str| format!("CREATE STREAM {name} (n BIGINT) WITH (connector = 'files', path = '{at}', format = 'csv')");
        run(&engine, &stream("s", &format!("{inside}/in/"))).await.unwrap();
        run(&engine, &format!("CREATE SINK k AS SELECT n FROM s WITH (connector = 'csv', path = '{inside}/sink')")).await.unwrap();

        for at in [
            outside.as_str(),
            &format!("{inside}/link"),
            &format!("{inside}/../outside"),
            &format!("{inside}/state"),
            "/etc",
            &format!("file://{outside}"),
        ] {
            for sql in [
                format!("SELECT * FROM '{at}/secret.csv'"),
                format!("COPY (SELECT 1 AS n) TO '{at}/x.parquet'"),
                external("f", &format!("{at}/secret.csv")),
                stream("t", at),
                format!("CREATE SINK l AS SELECT n FROM s WITH (connector = 'csv', path = '{at}/new')"),
            ] {
                let error = run(&engine, &sql).await.unwrap_err();
                assert!(matches!(error, EngineError::Denied { .. }), "{sql}: {error}");
                assert!(error.to_string().contains("outside of the directories"), "{sql}: {error}");
            }
        }
        let socket = "CREATE STREAM h (line VARCHAR) WITH (connector = 'socket', host = '127.0.0.1', port = 22)";
        assert!(run(&engine, socket).await.unwrap_err().to_string().contains("which statements may not reach"));
        let listening = "CREATE STREAM h (line VARCHAR) WITH (connector = 'socket', listen = true, port = 8)";
        assert!(run(&engine, listening).await.unwrap_err().to_string().contains("which statements may not reach"));
        within(engine.stop(Stop::Finish)).await.unwrap();
    });
}

#[test]
fn links_that_come_later_lead_nowhere() {
    support::block_on(async {
        let directory = support::scratch_dir();
        let (root, outside) = (directory.path().join("data"), directory.path().join("outside"));
        fs::create_dir_all(root.join("in")).unwrap();
        fs::create_dir_all(root.join("at_rest")).unwrap();
        fs::create_dir_all(&outside).unwrap();
        fs::write(outside.join("secret.csv"), "n\n7\n").unwrap();
        fs::write(root.join("at_rest/a.csv"), "n\n1\n").unwrap();
        let engine = engine(&root).await;
        let inside = root.display();
        run(
            &engine,
            &format!("CREATE EXTERNAL TABLE e (n BIGINT) STORED AS CSV LOCATION '{inside}/at_rest/' OPTIONS ('format.has_header' 'true')"),
        )
        .await
        .unwrap();
        run(
            &engine,
            &format!("CREATE STREAM s (n BIGINT) WITH (connector = 'files', path = '{inside}/in', format = 'csv', settle = '0s')"),
        )
        .await
        .unwrap();
        run(&engine, "CREATE STREAM m (n BIGINT)").await.unwrap();
        run(&engine, &format!("CREATE SINK k AS SELECT n FROM m WITH (connector = 'csv', path = '{inside}/sink')")).await.unwrap();
        run(&engine, "CREATE MATERIALIZED VIEW v AS SELECT n FROM s").await.unwrap();

        fs::remove_file(root.join("at_rest/a.csv")).unwrap();
        symlink(outside.join("secret.csv"), root.join("at_rest/a.csv")).unwrap();
        let error = run(&engine, "SELECT * FROM e").await.unwrap_err();
        assert!(error.to_string().contains("outside of the directories"), "{error}");

        // A sink whose directory has become a link writes nothing there.
        run(&engine, "INSERT INTO m VALUES (1)").await.unwrap();
        fs::rename(root.join("sink"), root.join("sink.old")).unwrap();
        symlink(&outside, root.join("sink")).unwrap();
        let error = within(engine.checkpoint()).await.unwrap_err();
        assert!(error.to_string().contains("outside of the directories"), "{error}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "nothing was written");
    });
}

#[test]
fn a_source_does_not_follow_a_link_out() {
    support::block_on(async {
        let directory = support::scratch_dir();
        let (root, outside) = (directory.path().join("data"), directory.path().join("outside"));
        fs::create_dir_all(root.join("in")).unwrap();
        fs::create_dir_all(&outside).unwrap();
        fs::write(outside.join("secret.csv"), "n\n7\n").unwrap();
        let engine = engine(&root).await;
        let inside = root.display();
        run(
            &engine,
            &format!("CREATE STREAM s (n BIGINT) WITH (connector = 'files', path = '{inside}/in', format = 'csv', settle = '0s')"),
        )
        .await
        .unwrap();
        run(&engine, "CREATE MATERIALIZED VIEW v AS SELECT n FROM s").await.unwrap();
        symlink(outside.join("secret.csv"), root.join("in/a.csv")).unwrap();
        let error = within(engine.drain()).await.unwrap_err();
        let shown = error.render("", None, 1);
        assert!(shown.contains("outside of the directories"), "{shown}");
    });
}
