//! Pipeline files: several statements that take effect in one epoch.

use crate::support;
use crate::support::instance::Instance;

#[test]
fn a_view_over_a_view_of_the_same_file_counts_history() {
    support::block_on(async {
        let instance = Instance::start(None).await.expect("an engine");
        let run = async |sql: &str| instance.rows(sql).await.expect("a statement");
        run("CREATE STREAM visits (name VARCHAR)").await;
        run("CREATE MATERIALIZED VIEW first AS SELECT count(*) AS n FROM visits").await;
        run("INSERT INTO visits VALUES ('a'), ('b'), ('a')").await;
        let file = "CREATE STREAM visits (name VARCHAR);
                    CREATE MATERIALIZED VIEW first AS SELECT count(*) AS n FROM visits;
                    CREATE MATERIALIZED VIEW by_name AS SELECT name, count(*) AS n FROM visits GROUP BY name;
                    CREATE MATERIALIZED VIEW most AS SELECT max(n) AS n FROM by_name;";
        instance.engine().apply_pipeline_file(file, None).await.expect("a pipeline file");
        run("INSERT INTO visits VALUES ('b'), ('b')").await;
        assert_eq!(instance.lines("SELECT n FROM by_name ORDER BY name").await.expect("rows"), ["2", "3"]);
        assert_eq!(instance.lines("SELECT n FROM most").await.expect("rows"), ["3"]);
    });
}
