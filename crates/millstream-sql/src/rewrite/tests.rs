//! Tests of the rewrites, as text before and after.

use sqlparser::ast::ObjectName;

use super::*;
use crate::parse::parse_query;

fn is_stream(name: &ObjectName) -> bool {
    ["bids", "asks"].contains(&name.to_string().as_str())
}

fn version_time(name: &ObjectName) -> VersionTime {
    match name.to_string().as_str() {
        "bids" => VersionTime::Column("ts".into()),
        "accounts" => VersionTime::Changes { time: "since".into(), key: vec!["id".into()] },
        "holdings" => VersionTime::Unkeyed,
        _ => VersionTime::Unknown,
    }
}

fn try_rewrite(sql: &str) -> Result<String> {
    let mut query = parse_query(sql).unwrap_or_else(|error| panic!("{}", error.render(sql, None, 1)));
    let context = RewriteContext { is_stream: &is_stream, shows_hidden_columns: mentions_hidden(&query), version_time: &version_time };
    rewrite_query(&mut query, &context)?;
    Ok(query.to_string())
}

fn rewrite(sql: &str) -> String {
    try_rewrite(sql).unwrap_or_else(|error| panic!("{}", error.render(sql, None, 1)))
}

const TUMBLED: &str = "(SELECT *, window_start + INTERVAL '10 seconds' AS window_end, \
    window_start + INTERVAL '10 seconds' - INTERVAL '1 microsecond' AS window_time FROM \
    (SELECT *, date_bin(INTERVAL '10 seconds', ts) AS window_start FROM bids))";

#[test]
fn tumble() {
    for sql in [
        "SELECT * FROM TUMBLE(bids, ts, INTERVAL '10 seconds')",
        "SELECT * FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '10' SECOND))",
        "SELECT * FROM TUMBLE(bids, ts, size => INTERVAL '10 seconds')",
        "SELECT * FROM TABLE(TUMBLE(DATA => TABLE bids, TIMECOL => DESCRIPTOR(ts), SIZE => INTERVAL '10' SECONDS))",
        "SELECT * FROM tumble(bids, ts, '10s', time_zone => 'UTC')",
    ] {
        assert_eq!(rewrite(sql), format!("SELECT * FROM {TUMBLED} AS bids"), "{sql}");
    }
    assert_eq!(
        rewrite("SELECT w.a FROM TUMBLE(bids, ts, INTERVAL '10 seconds') AS w (a, b) JOIN x ON true"),
        format!("SELECT w.a FROM {TUMBLED} AS w (a, b) JOIN x ON true")
    );
    assert_eq!(
        rewrite("SELECT 1 FROM TUMBLE((SELECT * FROM bids WHERE a = 1), ts, INTERVAL '10 seconds')"),
        format!("SELECT 1 FROM {}", TUMBLED.replace("FROM bids", "FROM (SELECT * FROM bids WHERE a = 1)"))
    );
    assert!(
        rewrite("SELECT 1 FROM TUMBLE(bids, ts, INTERVAL '1 hour', INTERVAL '75 minutes')")
            .contains("tumble_start(ts, INTERVAL '1 hour', INTERVAL '15 minutes', 'UTC')")
    );
    assert!(
        rewrite("SELECT 1 FROM TUMBLE(bids, ts, INTERVAL '1 day', TIMESTAMP '2000-01-01 06:00:00')")
            .contains("tumble_start(ts, INTERVAL '1 day', INTERVAL '6 hours', 'UTC')")
    );
    let monthly = rewrite("SELECT 1 FROM TUMBLE(bids, ts, INTERVAL '1 month')");
    assert!(monthly.contains("tumble_start(ts, INTERVAL '1 month', INTERVAL '0 seconds', 'UTC') AS window_start"), "{monthly}");
    assert!(monthly.contains("window_end(window_start, INTERVAL '1 month', 'UTC') AS window_end"), "{monthly}");
    assert!(
        rewrite("SELECT 1 FROM TUMBLE(bids, ts, INTERVAL '1 day', time_zone => 'Europe/Berlin')")
            .contains("tumble_start(ts, INTERVAL '1 day', INTERVAL '0 seconds', 'Europe/Berlin')")
    );
}

#[test]
fn hop_and_cumulate() {
    assert_eq!(
        rewrite("SELECT * FROM HOP(bids, ts, INTERVAL '5 seconds', INTERVAL '10 seconds')"),
        "SELECT * FROM (SELECT *, window_start + INTERVAL '10 seconds' AS window_end, \
         window_start + INTERVAL '10 seconds' - INTERVAL '1 microsecond' AS window_time FROM \
         (SELECT *, unnest(hop_starts(ts, INTERVAL '5 seconds', INTERVAL '10 seconds', INTERVAL '0 seconds', 'UTC')) AS window_start \
         FROM bids)) AS bids"
    );
    assert!(
        rewrite("SELECT * FROM HOP(bids, ts, size => INTERVAL '5 seconds', slide => INTERVAL '10 seconds')")
            .contains("hop_starts(ts, INTERVAL '10 seconds', INTERVAL '5 seconds', INTERVAL '0 seconds', 'UTC')")
    );
    assert_eq!(
        rewrite("SELECT * FROM CUMULATE(bids, ts, INTERVAL '1 hour', INTERVAL '1 day')"),
        "SELECT * FROM (SELECT *, window_end - INTERVAL '1 microsecond' AS window_time FROM \
         (SELECT *, date_bin(INTERVAL '1 day', ts) AS window_start, \
         unnest(cumulate_ends(ts, INTERVAL '1 hour', INTERVAL '1 day', INTERVAL '0 seconds', 'UTC')) AS window_end FROM bids)) AS bids"
    );
}

#[test]
fn windows_that_are_wrong() {
    for (call, message, hint) in [
        (
            "HOP(bids, ts, INTERVAL '10 seconds', INTERVAL '5 seconds')",
            "the slide '10 seconds' of HOP is longer than its size '5 seconds'",
            "write `HOP(bids, ts, INTERVAL '5 seconds', INTERVAL '10 seconds')`",
        ),
        (
            "CUMULATE(bids, ts, INTERVAL '7 minutes', INTERVAL '1 hour')",
            "the size of CUMULATE is '1 hour', no multiple of its step '7 minutes'",
            "",
        ),
        ("TUMBLE(bids, ts, INTERVAL '0 seconds')", "the size of TUMBLE is '0 seconds', which is not positive", ""),
        ("TUMBLE(bids, ts)", "TUMBLE has no size", "Write `TUMBLE(relation, ts, size"),
        ("TUMBLE(bids, ts, INTERVAL '1 month 3 days')", "the length '1 month 3 days' of TUMBLE mixes months with shorter units", ""),
        ("TUMBLE(bids, ts + 1, INTERVAL '1 day')", "the time of TUMBLE is ts + 1, which is not a column", ""),
        ("TUMBLE(1, ts, INTERVAL '1 day')", "the first argument of TUMBLE is 1, which is not a relation", ""),
        ("TUMBLE(bids, ts, price)", "price is not an interval", ""),
        ("TUMBLE(bids, ts, slide => INTERVAL '1 day')", "TUMBLE has no argument \"slide\"", ""),
        ("TUMBLE(bids, ts, INTERVAL '1 day', size => INTERVAL '1 day')", "argument \"size\" of TUMBLE is given twice", ""),
        ("TUMBLE(bids PARTITION BY a, ts, INTERVAL '1 day')", "TUMBLE takes no PARTITION BY", ""),
        ("HOP(bids, ts, INTERVAL '1 day', INTERVAL '1 month')", "slide and size of HOP are not both months", ""),
        ("SESSION(bids PARTITION BY (a, b), ts, INTERVAL '0 days')", "the gap of SESSION is '0 seconds', which is not positive", ""),
        ("SESSION(bids, ts, INTERVAL '-5 seconds')", "the gap of SESSION is '-5 seconds', which is not positive", ""),
        ("SESSION(bids, ts, INTERVAL '1 month')", "the gap '1 month' of SESSION has no fixed length", "days or shorter units"),
        ("SESSION(bids PARTITION BY a, ts)", "SESSION has no gap", "Write `SESSION(relation PARTITION BY key, ts, gap)`"),
        ("SESSION(bids PARTITION BY a, INTERVAL '5 seconds')", "SESSION has no gap", ""),
        ("SESSION(bids PARTITION BY a)", "SESSION has no time column", ""),
        ("SESSION(bids, ts + 1, INTERVAL '5 seconds')", "the time of SESSION is ts + 1, which is not a column", ""),
        ("SESSION(bids PARTITION BY a, ts, INTERVAL '5 seconds', b)", "the key of SESSION is given twice", ""),
        ("SESSION(bids, ts, slide => INTERVAL '5 seconds')", "SESSION has no argument \"slide\"", ""),
        ("SESSION(bids, ts, INTERVAL '5 seconds', gap => '1s')", "argument \"gap\" of SESSION is given twice", ""),
        ("SESSION(1, ts, INTERVAL '5 seconds')", "the first argument of SESSION is 1, which is not a relation", ""),
    ] {
        let error = try_rewrite(&format!("SELECT * FROM {call}")).expect_err(call);
        assert_eq!(error.message, message, "{call}");
        assert!(error.start.is_some(), "{call} has no place");
        assert!(error.hint.as_deref().is_some_and(|text| text.contains(hint)), "{call}: {:?}", error.hint);
    }
}

#[test]
fn group_windows() {
    let tumbled = format!("FROM {TUMBLED} AS bids");
    assert_eq!(
        rewrite(
            "SELECT k, TUMBLE_START(ts, INTERVAL '10' SECOND), TUMBLE_END(ts, INTERVAL '10' SECOND) AS e, count(*) FROM bids WHERE a > 1 \
             GROUP BY k, TUMBLE(ts, INTERVAL '10' SECOND) ORDER BY TUMBLE_ROWTIME(ts, INTERVAL '10' SECOND)"
        ),
        format!(
            "SELECT k, window_start AS window_start, window_end AS e, count(*) {tumbled} WHERE a > 1 \
             GROUP BY k, window_start, window_end ORDER BY window_time"
        )
    );
    assert_eq!(
        rewrite("SELECT window.start, window.end AS e, window, count(*) FROM bids GROUP BY window(ts, '10 seconds')"),
        format!(
            "SELECT window_start, window_end AS e, named_struct('start', window_start, 'end', window_end) AS window, count(*) {tumbled} \
             GROUP BY window_start, window_end"
        )
    );
    let hop = rewrite("SELECT count(*) FROM bids b GROUP BY window(b.ts, '10 seconds', '5 seconds')");
    assert!(hop.contains("hop_starts(b.ts, INTERVAL '5 seconds', INTERVAL '10 seconds', INTERVAL '0 seconds', 'UTC')"), "{hop}");
    assert!(hop.contains("FROM bids b)) AS b GROUP BY window_start, window_end"), "{hop}");
    assert_eq!(
        rewrite("SELECT TUMBLE_END(ts, '1 minute') FROM a JOIN b ON a.k = b.k GROUP BY TUMBLE(ts, '1 minute')"),
        "SELECT date_bin(INTERVAL '1 minute', ts) + INTERVAL '1 minute' AS window_end FROM a JOIN b ON a.k = b.k \
         GROUP BY date_bin(INTERVAL '1 minute', ts)"
    );
    for (sql, message) in [
        ("SELECT 1 FROM a, b GROUP BY HOP(ts, '1 minute', '2 minutes')", "GROUP BY HOP over a join is not supported"),
        ("SELECT 1 FROM a GROUP BY TUMBLE(ts, '1 minute'), TUMBLE(ts, '2 minutes')", "GROUP BY has two windows"),
        (
            "SELECT TUMBLE_START(ts, '2 minutes') FROM a GROUP BY TUMBLE(ts, '1 minute')",
            "the arguments of TUMBLE_START differ from those of TUMBLE in GROUP BY",
        ),
        ("SELECT 1 FROM a, b GROUP BY SESSION(ts, '1 minute')", "GROUP BY SESSION over a join is not supported"),
        (
            "SELECT 1 FROM a GROUP BY session_window(ts, '1 minute', '2 minutes')",
            "SESSION_WINDOW in GROUP BY takes a time column and a gap",
        ),
        ("SELECT lower(x) AS k FROM a GROUP BY k, SESSION(ts, '1 minute')", "the key \"k\" of SESSION is named in the SELECT list"),
        ("SELECT count(*) FROM a GROUP BY ROLLUP(k), SESSION(ts, '1 minute')", "SESSION stands beside grouping sets"),
        ("SELECT SESSION_END(ts, '1 minute') FROM a GROUP BY 1, SESSION(ts, '1 minute')", "the key 1 of SESSION is no column"),
    ] {
        assert_eq!(try_rewrite(sql).expect_err(sql).message, message);
    }
}

fn sessions(partition: &str, from: &str) -> String {
    let call = |edge: &str| format!("session_{edge}(ts, INTERVAL '10 seconds') OVER ({partition}ORDER BY ts) AS window_{edge}");
    format!(
        "(SELECT *, window_end - INTERVAL '1 microsecond' AS window_time FROM (SELECT *, {}, {} FROM {from}))",
        call("start"),
        call("end")
    )
}

#[test]
fn session() {
    for sql in [
        "SELECT * FROM SESSION(bids PARTITION BY k, ts, INTERVAL '10 seconds')",
        "SELECT * FROM SESSION(bids PARTITION BY (k), ts, '10s')",
        "SELECT * FROM SESSION(bids, ts, INTERVAL '10 seconds', k)",
        "SELECT * FROM session(bids PARTITION BY k, timecol => ts, gap => INTERVAL '10 seconds')",
        "SELECT * FROM TABLE(SESSION(TABLE bids PARTITION BY k, DESCRIPTOR(ts), INTERVAL '10' SECOND))",
        "SELECT * FROM TABLE(SESSION(DATA => TABLE bids PARTITION BY k, TIMECOL => DESCRIPTOR(ts), GAP => INTERVAL '10' SECONDS))",
        "SELECT * FROM TABLE(SESSION(TABLE bids, DESCRIPTOR(ts), DESCRIPTOR(k), INTERVAL '10' SECOND))",
    ] {
        assert_eq!(rewrite(sql), format!("SELECT * FROM {} AS bids", sessions("PARTITION BY k ", "bids")), "{sql}");
    }
    for sql in [
        "SELECT w.a FROM SESSION((SELECT * FROM bids WHERE a = 1) PARTITION BY (k, b.l), ts, INTERVAL '10 seconds') AS w",
        "SELECT w.a FROM SESSION((SELECT * FROM bids WHERE a = 1), ts, INTERVAL '10 seconds', k, b.l) AS w",
    ] {
        let inner = sessions("PARTITION BY k, b.l ", "(SELECT * FROM bids WHERE a = 1)");
        assert_eq!(rewrite(sql), format!("SELECT w.a FROM {inner} AS w"), "{sql}");
    }
    assert_eq!(
        rewrite("SELECT * FROM SESSION(bids, ts, INTERVAL '10 seconds')"),
        format!("SELECT * FROM {} AS bids", sessions("", "bids"))
    );
}

#[test]
fn process() {
    let of = |relation: &str, more: &str| format!("TABLE(__process('f', partitioned({relation}){more}))");
    for (sql, call, alias) in [
        ("PROCESS(F, TABLE s PARTITION BY (k))", of("(SELECT * FROM s), k", ""), "f"),
        ("PROCESS('f', s)", of("(SELECT * FROM s)", ""), "f"),
        ("TABLE(process(f, TABLE s PARTITION BY k ORDER BY (b DESC, c))) AS p", of("(SELECT * FROM s), k ORDER BY b DESC, c", ""), "p"),
        (
            "PROCESS(f, (SELECT a FROM s) PARTITION BY (a, b), N => 1, INITIAL => TABLE t, STATE_TTL => INTERVAL '2 seconds')",
            of("(SELECT a FROM s), a, b", ", n => 1, initial => (SELECT * FROM t), state_ttl => 2000000"),
            "f",
        ),
    ] {
        assert_eq!(rewrite(&format!("SELECT * FROM {sql}")), format!("SELECT * FROM {call} AS {alias}"), "{sql}");
    }
}

#[test]
fn sessions_in_group_by() {
    // What a session is depends on the rows, so WHERE comes before it.
    assert_eq!(
        rewrite(
            "SELECT k, SESSION_START(ts, INTERVAL '10' SECOND), SESSION_END(ts, INTERVAL '10' SECOND) AS e, count(*) FROM bids WHERE a > 1 \
             GROUP BY k, SESSION(ts, INTERVAL '10' SECOND) HAVING count(*) > 1"
        ),
        format!(
            "SELECT k, window_start AS window_start, window_end AS e, count(*) FROM {} AS bids GROUP BY k, window_start, window_end \
             HAVING count(*) > 1",
            sessions("PARTITION BY k ", "bids WHERE a > 1")
        )
    );
    assert_eq!(
        rewrite(
            "SELECT k, session_window.start, session_window, count(*) FROM bids GROUP BY session_window(ts, '10 seconds'), 1, lower(l)"
        ),
        format!(
            "SELECT k, window_start, named_struct('start', window_start, 'end', window_end) AS session_window, count(*) FROM {} AS bids \
             GROUP BY window_start, window_end, 1, lower(l)",
            sessions("PARTITION BY k, lower(l) ", "bids")
        )
    );
}

#[test]
fn hidden_columns_stay_hidden() {
    let hidden = "EXCLUDE (_epoch, _epoch_time)";
    for (sql, expected) in [
        ("SELECT * FROM bids", "SELECT * FROM bids".to_owned()),
        ("SELECT * FROM bids WHERE _epoch = 1", format!("SELECT * {hidden} FROM bids WHERE _epoch = 1")),
        ("SELECT b.*, v.* FROM bids b, v WHERE b._epoch = 1", format!("SELECT b.* {hidden}, v.* FROM bids b, v WHERE b._epoch = 1")),
        (
            "SELECT * FROM bids JOIN asks USING (_epoch)",
            "SELECT bids.* EXCLUDE (_epoch, _epoch_time), asks.* EXCLUDE (_epoch, _epoch_time) FROM bids JOIN asks USING(_epoch)"
                .to_owned(),
        ),
        (
            "SELECT * FROM bids JOIN v USING (k) WHERE _epoch > 1",
            format!("SELECT bids.* {hidden}, v.* EXCLUDE (k) FROM bids JOIN v USING(k) WHERE _epoch > 1"),
        ),
        (
            "WITH bids AS (SELECT * FROM bids WHERE _epoch = 1) SELECT * FROM bids",
            format!("WITH bids AS (SELECT * {hidden} FROM bids WHERE _epoch = 1) SELECT * FROM bids"),
        ),
        (
            "SELECT * EXCLUDE (a) FROM bids WHERE _epoch = 1",
            "SELECT * EXCLUDE (a, _epoch, _epoch_time) FROM bids WHERE _epoch = 1".to_owned(),
        ),
        ("FROM bids |> WHERE _epoch = 1", format!("SELECT * {hidden} FROM bids |> WHERE _epoch = 1")),
        (
            "SELECT * FROM bids FOR EPOCH BETWEEN 3 AND 5",
            format!("SELECT * {hidden} FROM (SELECT * FROM bids WHERE _epoch BETWEEN 3 AND 5) AS bids"),
        ),
        ("SELECT *, _epoch FROM TUMBLE(bids, ts, INTERVAL '10 seconds')", format!("SELECT * {hidden}, _epoch FROM {TUMBLED} AS bids")),
        ("SELECT count(*) FROM bids GROUP BY _epoch", "SELECT count(*) FROM bids GROUP BY _epoch".to_owned()),
    ] {
        assert_eq!(rewrite(sql), expected, "{sql}");
    }
    assert!(try_rewrite("SELECT * FROM bids NATURAL JOIN asks WHERE _epoch = 1").is_err());
    assert!(!mentions_hidden(&parse_query("SELECT '_epoch' FROM bids").expect("query")));
}

#[test]
fn traps_are_errors() {
    for (sql, message) in [
        ("SELECT * FROM t TABLESAMPLE BERNOULLI (10)", "TABLESAMPLE is not supported"),
        ("SELECT * FROM t FOR SYSTEM_TIME AS OF TIMESTAMP '2000-01-01'", "FOR SYSTEM_TIME AS OF after \"t\" names no known version"),
        ("SELECT * FROM (SELECT * FROM t WITH (NOLOCK))", "table hints after \"t\" are not supported"),
        ("SELECT * FROM t PIVOT (sum(a) FOR m IN (1, 2))", "PIVOT is not supported"),
        ("SELECT a FROM t EXCEPT ALL BY NAME SELECT a FROM u", "EXCEPT ALL BY NAME is not supported"),
        ("SELECT 1 UNION (SELECT a FROM t INTERSECT BY NAME SELECT a FROM u)", "INTERSECT BY NAME is not supported"),
        ("SELECT a FROM t PREWHERE a = 1", "PREWHERE is not supported"),
        ("SELECT a FROM t GROUP BY a WITH ROLLUP", "GROUP BY ... WITH ROLLUP is not supported"),
        ("SELECT a INTO x FROM t", "SELECT INTO x is not supported"),
        ("SELECT a FROM t WHERE b = :x", "variable \"x\" is not set"),
    ] {
        assert_eq!(try_rewrite(sql).expect_err(sql).message, message, "{sql}");
    }
    let error = try_rewrite("SELECT *\nFROM t TABLESAMPLE BERNOULLI (10)").expect_err("a sample");
    assert_eq!(error.start, Some(crate::Position { line: 2, column: 6 }));
}

#[test]
fn normal_forms() {
    for (sql, expected) in [
        ("SELECT 1 FROM t WHERE a = ANY (SELECT b FROM u)", "SELECT 1 FROM t WHERE a IN (SELECT b FROM u)"),
        ("SELECT 1 FROM t WHERE a <> ALL (SELECT b FROM u)", "SELECT 1 FROM t WHERE a NOT IN (SELECT b FROM u)"),
        ("SELECT 1 FROM t WHERE a >= ALL (SELECT a FROM u)", "SELECT 1 FROM t WHERE a >= ALL(SELECT a AS __compared FROM u)"),
        ("SELECT a FROM t EXCEPT SELECT a FROM u", "SELECT a FROM t EXCEPT SELECT a FROM u"),
        ("SELECT a FROM t EXCEPT ALL SELECT a FROM u", "SELECT a FROM t EXCEPT ALL SELECT * FROM (SELECT a FROM u) AS __multiset"),
        (
            "SELECT 1 UNION (SELECT a FROM t INTERSECT ALL SELECT a FROM u)",
            "SELECT 1 UNION (SELECT a FROM t INTERSECT ALL SELECT * FROM (SELECT a FROM u) AS __multiset)",
        ),
        ("SELECT 1 FROM t WHERE a IS NOT DISTINCT FROM b AND c", "SELECT 1 FROM t WHERE (a IS NOT DISTINCT FROM b) AND c"),
        ("SELECT a FROM t FETCH FIRST 3 ROWS ONLY", "SELECT a FROM t LIMIT 3"),
        ("SELECT a FROM t MINUS SELECT b FROM u", "SELECT a FROM t EXCEPT SELECT b FROM u"),
        ("SELECT a::JSONB, CAST(b AS TIMESTAMP_LTZ(3)) FROM t", "SELECT a::VARCHAR, CAST(b AS TIMESTAMP(3) WITH TIME ZONE) FROM t"),
        (
            "SELECT t.k, u.tag FROM t CROSS JOIN UNNEST(t.tags) AS u(tag) WHERE u.tag > 'a' ORDER BY u.tag",
            "SELECT t.k, t.tag FROM (SELECT *, unnest(t.tags) AS tag FROM t WHERE t.tags IS NOT NULL) AS t WHERE t.tag > 'a' ORDER BY t.tag",
        ),
        (
            "SELECT tag FROM t AS x, UNNEST(tags) AS u(tag)",
            "SELECT tag FROM (SELECT *, unnest(tags) AS tag FROM t AS x WHERE tags IS NOT NULL) AS x",
        ),
        (
            "SELECT tag FROM t LEFT JOIN UNNEST(t.tags) AS tag ON true",
            "SELECT tag FROM (SELECT *, unnest(CASE WHEN array_length(t.tags) > 0 THEN t.tags ELSE make_array(NULL) END) AS tag FROM t) AS t",
        ),
    ] {
        assert_eq!(rewrite(sql), expected, "{sql}");
    }
}

#[test]
fn asof_joins() {
    let versions = |keys: &str, neighbour: &str| {
        format!("(SELECT *, {neighbour}(r.ts) OVER ({keys}ORDER BY r.ts) AS __next_1 FROM r WHERE r.ts IS NOT NULL) AS r")
    };
    for (op, neighbour, until) in [(">=", "lead", "<"), (">", "lead", "<="), ("<=", "lag", ">"), ("<", "lag", ">=")] {
        let versions = versions("PARTITION BY r.k ", neighbour);
        let on = format!("l.k = r.k AND l.ts {op} r.ts AND (__next_1 IS NULL OR l.ts {until} __next_1)");
        let expected = format!("SELECT l.a FROM l JOIN {versions} ON {on}");
        assert_eq!(rewrite(&format!("SELECT l.a FROM l ASOF JOIN r MATCH_CONDITION (l.ts {op} r.ts) ON l.k = r.k")), expected);
        assert_eq!(rewrite(&format!("SELECT l.a FROM l ASOF JOIN r ON l.ts {op} r.ts AND l.k = r.k")), expected);
        assert_eq!(
            rewrite(&format!("SELECT l.a FROM l ASOF LEFT JOIN r ON (l.k = r.k AND l.ts {op} r.ts)")),
            expected.replace("l JOIN", "l LEFT JOIN")
        );
    }
    let on = "l.ts >= r.ts AND (__next_1 IS NULL OR l.ts < __next_1)";
    for (sql, expected) in [
        // The right side may stand first, and the left one without its name.
        (
            "SELECT 1 FROM l ASOF JOIN r ON r.ts <= ts AND k = r.k",
            format!(
                "SELECT 1 FROM l JOIN {} ON k = r.k AND ts >= r.ts AND (__next_1 IS NULL OR ts < __next_1)",
                versions("PARTITION BY r.k ", "lead")
            ),
        ),
        ("SELECT 1 FROM l ASOF JOIN r MATCH_CONDITION (l.ts >= r.ts)", format!("SELECT 1 FROM l JOIN {} ON {on}", versions("", "lead"))),
        // The neighbour's time is not among the columns.
        (
            "SELECT *, r.* FROM l ASOF JOIN r ON l.ts >= r.ts",
            format!("SELECT * EXCLUDE (__next_1), r.* EXCLUDE (__next_1) FROM l JOIN {} ON {on}", versions("", "lead")),
        ),
        (
            "SELECT l.*, b.a FROM l ASOF JOIN (SELECT * FROM x ASOF JOIN r ON x.ts > r.ts) AS b ON l.ts < b.ts",
            "SELECT l.*, b.a FROM l JOIN (SELECT *, lag(b.ts) OVER (ORDER BY b.ts) AS __next_1 FROM (SELECT * EXCLUDE (__next_2) \
             FROM x JOIN (SELECT *, lead(r.ts) OVER (ORDER BY r.ts) AS __next_2 FROM r WHERE r.ts IS NOT NULL) AS r \
             ON x.ts > r.ts AND (__next_2 IS NULL OR x.ts <= __next_2)) AS b WHERE b.ts IS NOT NULL) \
             AS b ON l.ts < b.ts AND (__next_1 IS NULL OR l.ts >= __next_1)"
                .to_owned(),
        ),
        // The columns of USING are those of the left side.
        (
            "SELECT *, k, r.ts FROM l ASOF JOIN r USING (k, ts) WHERE ts > 1 AND k IN (SELECT k FROM x)",
            format!(
                "SELECT l.*, r.* EXCLUDE (k, ts, __next_1), l.k, r.ts FROM l JOIN {} ON l.k = r.k AND {on} \
                 WHERE l.ts > 1 AND l.k IN (SELECT k FROM x)",
                versions("PARTITION BY r.k ", "lead")
            ),
        ),
        (
            "SELECT k FROM l ASOF LEFT JOIN r MATCH_CONDITION (l.ts >= r.ts) USING (k)",
            format!("SELECT l.k FROM l LEFT JOIN {} ON l.k = r.k AND {on}", versions("PARTITION BY r.k ", "lead")),
        ),
        (
            "SELECT 1 FROM bids AS l ASOF JOIN TUMBLE(bids, ts, INTERVAL '10 seconds') AS r ON l.ts >= r.ts",
            format!(
                "SELECT 1 FROM bids AS l JOIN (SELECT *, lead(r.ts) OVER (ORDER BY r.ts) AS __next_1 FROM {TUMBLED} AS r WHERE r.ts IS NOT NULL) AS r ON {on}"
            ),
        ),
    ] {
        assert_eq!(rewrite(sql), expected, "{sql}");
    }
    for (sql, message) in [
        ("SELECT 1 FROM l ASOF JOIN r ON l.k = r.k", "an ASOF JOIN needs a comparison of times with >=, >, <= or <"),
        (
            "SELECT 1 FROM l ASOF JOIN r MATCH_CONDITION (l.ts >= r.ts) ON l.a < r.a",
            "l.a < r.a is a second comparison of times in one ASOF JOIN",
        ),
        ("SELECT 1 FROM l ASOF JOIN r MATCH_CONDITION (l.ts = r.ts) ON l.a = r.a", "l.ts = r.ts is no MATCH_CONDITION"),
        ("SELECT 1 FROM l ASOF JOIN r ON l.ts >= r.ts OR l.k = r.k", "l.ts >= r.ts OR l.k = r.k cannot be a condition of an ASOF JOIN"),
        ("SELECT 1 FROM l ASOF JOIN r ON ts >= time", "it is not clear which side of the ASOF JOIN the columns of ts >= time are of"),
        (
            "SELECT 1 FROM l ASOF JOIN r ON l.ts >= r.ts AND r.a = 1",
            "r.a = 1 does not compare a left and a right expression of the ASOF JOIN",
        ),
        ("SELECT 1 FROM a, b ASOF JOIN (x JOIN y ON true) ON a.ts >= x.ts", "the right side of an ASOF JOIN is a join in parentheses"),
        ("SELECT 1 FROM a JOIN b ON true ASOF JOIN r USING (k, ts)", "USING after an ASOF JOIN needs one named relation on each side"),
        (
            "SELECT * EXCLUDE (a) FROM l ASOF JOIN r USING (k, ts)",
            "* over an ASOF JOIN with USING needs a name for every relation, and no modifiers",
        ),
    ] {
        assert_eq!(try_rewrite(sql).expect_err(sql).message, message, "{sql}");
    }
    let error = try_rewrite("SELECT 1 FROM l ASOF JOIN r\nON l.ts >= r.ts AND r.a = 1").expect_err("a filter");
    assert_eq!(error.start, Some(crate::Position { line: 2, column: 21 }));
}

/// The versions that the changes of `accounts` make, as the rewrite puts them after FROM.
fn changes(name: &str, hidden: &str) -> String {
    format!(
        "(SELECT * EXCLUDE (__position, __deleted{hidden}) FROM (SELECT *, lead({name}.\"since\") \
         OVER (PARTITION BY {name}.\"id\" ORDER BY {name}.\"since\", _epoch, __position) AS __next_1 \
         FROM as_of_event_time.accounts AS {name}) WHERE NOT __deleted) AS {name}"
    )
}

#[test]
fn table_versions() {
    for (sql, expected) in [
        (
            "SELECT * FROM s JOIN t FOR SYSTEM_TIME AS OF PROCTIME() AS x ON s.k = x.k",
            "SELECT * FROM s JOIN as_of_proctime.t AS x ON s.k = x.k".to_owned(),
        ),
        (
            "SELECT 1 FROM s WHERE NOT EXISTS (SELECT 1 FROM t FOR SYSTEM_TIME AS OF proctime() WHERE t.k = s.k)",
            "SELECT 1 FROM s WHERE NOT EXISTS (SELECT 1 FROM as_of_proctime.t AS t WHERE t.k = s.k)".to_owned(),
        ),
        (
            "SELECT 1 FROM s LEFT JOIN bids FOR SYSTEM_TIME AS OF s.at AS b ON s.k = b.k",
            "SELECT 1 FROM s LEFT JOIN (SELECT *, lead(b.ts) OVER (PARTITION BY b.k ORDER BY b.ts) AS __next_1 FROM bids AS b WHERE b.ts IS NOT NULL) AS b \
             ON s.k = b.k AND s.at >= b.ts AND (__next_1 IS NULL OR s.at < __next_1)"
                .to_owned(),
        ),
        (
            "SELECT k FROM s JOIN bids FOR SYSTEM_TIME AS OF at USING (k)",
            "SELECT s.k FROM s JOIN (SELECT *, lead(bids.ts) OVER (PARTITION BY bids.k ORDER BY bids.ts) AS __next_1 FROM bids WHERE bids.ts IS NOT NULL) AS bids \
             ON s.k = bids.k AND at >= bids.ts AND (__next_1 IS NULL OR at < __next_1)"
                .to_owned(),
        ),
        // A stream with a key: its changes, and conditions beside the key.
        (
            "SELECT * FROM s LEFT JOIN accounts FOR SYSTEM_TIME AS OF s.ts AS a ON s.k = a.id AND a.name <> 'x'",
            format!(
                "SELECT * EXCLUDE (__next_1) FROM s LEFT JOIN {} ON s.k = a.id AND a.name <> 'x' AND s.ts >= a.\"since\" \
                 AND (__next_1 IS NULL OR s.ts < __next_1)",
                changes("a", ", _epoch, _epoch_time")
            ),
        ),
        (
            "SELECT id, accounts._epoch FROM s JOIN accounts FOR SYSTEM_TIME AS OF s.ts USING (id)",
            format!(
                "SELECT s.id, accounts._epoch FROM s JOIN {} ON s.id = accounts.id AND s.ts >= accounts.\"since\" \
                 AND (__next_1 IS NULL OR s.ts < __next_1)",
                changes("accounts", "")
            ),
        ),
    ] {
        assert_eq!(rewrite(sql), expected, "{sql}");
        // The text that a catalog keeps means the same.
        assert_eq!(rewrite(&parse_query(sql).expect("parses").to_string()), expected, "{sql}");
    }
    for (sql, message) in [
        (
            "SELECT 1 FROM s JOIN t FOR SYSTEM_TIME AS OF s.ts ON s.k = t.k",
            "relation \"t\" has no event time, so that its versions have no time",
        ),
        (
            "SELECT 1 FROM s JOIN accounts FOR SYSTEM_TIME AS OF s.ts AS a ON s.k = a.k AND s.id > a.id",
            "the join with a version has no equality for \"id\" of the PRIMARY KEY",
        ),
        (
            "SELECT 1 FROM s JOIN holdings FOR SYSTEM_TIME AS OF s.ts AS h ON s.k = h.k",
            "stream \"holdings\" takes rows away and has no key, so that none is known to be a version of another",
        ),
        ("SELECT 1 FROM bids FOR SYSTEM_TIME AS OF s.ts", "\"bids\" as of s.ts does not stand after JOIN or LEFT JOIN"),
        (
            "SELECT 1 FROM s FULL JOIN bids FOR SYSTEM_TIME AS OF s.ts ON s.k = bids.k",
            "\"bids\" as of s.ts does not stand after JOIN or LEFT JOIN",
        ),
        ("SELECT 1 FROM s JOIN bids FOR SYSTEM_TIME AS OF s.ts", "the join with \"bids\" as of s.ts has no key"),
        (
            "WITH t AS (SELECT 1) SELECT 1 FROM s JOIN t FOR SYSTEM_TIME AS OF PROCTIME() ON true",
            "\"t\" is a query of WITH, which has no versions",
        ),
    ] {
        assert_eq!(try_rewrite(sql).expect_err(sql).message, message, "{sql}");
    }
}
