//! `EMIT ON WINDOW CLOSE`: queries over streams with watermarks, and when their rows come out.

use super::windows::numbered_sessions;
use super::{Closing, Grammar, Query, node};
use crate::oracle::changes::{Kind, Table};
use crate::oracle::values::{Column, Type};
use rand::Rng;

/// The rows of windows: as the dialect has them, and in plain SQL.
struct Rows {
    own: String,
    batch: String,
}

/// Windows that are 10 seconds long.
#[derive(Clone, Copy)]
enum Windows {
    /// Side by side.
    Tumble,
    /// Every 5 seconds.
    Hop,
    /// Growing by 5 seconds.
    Cumulate,
}

impl Windows {
    /// The rows of a table in these windows of its time.
    fn of(self, table: &Table) -> Rows {
        let (name, time) = (&table.name, &table.columns.last().expect("a time").name);
        let end = |seconds: u32| {
            format!(
                "date_bin(INTERVAL '{seconds} seconds', {time}, CAST('1970-01-01T00:00:00' AS TIMESTAMP)) + INTERVAL '{seconds} seconds'"
            )
        };
        let (short, long) = (end(5), end(10));
        let both = |first: &str, second: &str| {
            format!("(SELECT *, {first} AS window_end FROM {name} UNION ALL SELECT *, {second} AS window_end FROM {name}) AS w")
        };
        match self {
            Windows::Tumble => Rows {
                own: format!("TUMBLE({name}, {time}, INTERVAL '10 seconds')"),
                batch: format!("(SELECT *, {long} AS window_end FROM {name}) AS w"),
            },
            Windows::Hop => Rows {
                own: format!("HOP({name}, {time}, INTERVAL '5 seconds', INTERVAL '10 seconds')"),
                batch: both(&short, &format!("{short} + INTERVAL '5 seconds'")),
            },
            Windows::Cumulate => Rows {
                own: format!("CUMULATE({name}, {time}, INTERVAL '5 seconds', INTERVAL '10 seconds')"),
                batch: format!("{} WHERE window_end IS NOT NULL", both(&short, &format!("CASE WHEN {short} < {long} THEN {long} END"))),
            },
        }
    }
}

impl Grammar<'_> {
    /// The rows with the highest time of each window: rows joined with an aggregate of the same rows.
    pub(super) fn closed_highest(&mut self) -> Option<Query> {
        let at = self.timed()?;
        let table = self.tables[at].clone();
        let (time, key) = (&table.columns.last()?.name, &table.columns[0].name);
        let rows = self.windows().of(&table);
        let call = self.pick(&["max", "min"]);
        let text = |rows: &str| {
            format!(
                "SELECT a.window_end AS e, a.{key} AS k, a.{time} AS t, h.n AS n FROM (SELECT * FROM {rows}) AS a \
                 JOIN (SELECT window_end, {call}({time}) AS t, count(*) AS n FROM {rows} GROUP BY window_end) AS h \
                 ON a.window_end = h.window_end AND a.{time} = h.t"
            )
        };
        let mut query = node("closed highest", vec![], vec![], |_| String::new());
        query.columns = vec![
            Column { name: "e".into(), kind: Type::Time },
            Column { name: "k".into(), kind: Type::Int },
            Column { name: "t".into(), kind: Type::Time },
            Column { name: "n".into(), kind: Type::Int },
        ];
        query.sql = format!("{} EMIT ON WINDOW CLOSE", text(&rows.own));
        query.batch_sql = text(&rows.batch);
        query.closes = Some(Closing { watermarks: vec![(at, 0)], column: "e".into(), inclusive: true });
        Some(query)
    }

    /// Rows and keys in the windows of two streams, each once.
    pub(super) fn closed_set(&mut self) -> Option<Query> {
        let [left, right] = [self.timed()?, self.timed()?];
        let (l, r) = (self.tables[left].clone(), self.tables[right].clone());
        let windows = self.windows();
        let (left_rows, right_rows) = (windows.of(&l), windows.of(&r));
        let form = self.rng.random_range(0..4);
        let text = |batch: bool| {
            let side = |table: &Table, rows: &Rows| {
                let rows = if batch { &rows.batch } else { &rows.own };
                format!("SELECT window_end AS e, {} AS k FROM {rows}", table.columns[0].name)
            };
            let (a, b) = (side(&l, &left_rows), side(&r, &right_rows));
            match form {
                0 => format!("SELECT DISTINCT e, k FROM ({a}) AS a"),
                1 => format!("{a} UNION ALL {b}"),
                2 => format!("{a} UNION {b}"),
                _ => format!("{a} EXCEPT {b}"),
            }
        };
        let mut query = node("closed set", vec![], vec![], |_| String::new());
        query.columns = vec![Column { name: "e".into(), kind: Type::Time }, Column { name: "k".into(), kind: Type::Int }];
        query.sql = format!("{} EMIT ON WINDOW CLOSE", text(false));
        query.batch_sql = text(true);
        let watermarks = if form == 0 { vec![(left, 0)] } else { vec![(left, 0), (right, 0)] };
        query.closes = Some(Closing { watermarks, column: "e".into(), inclusive: true });
        Some(query)
    }

    /// Watermarked streams joined on a range of their times, so that rows are dropped; with `closing` each row once it is final.
    pub(super) fn band_join(&mut self, closing: bool) -> Option<Query> {
        let [left, right] = [self.timed()?, self.timed()?];
        let (l, r) = (self.tables[left].clone(), self.tables[right].clone());
        let (left_time, right_time) = (&l.columns.last()?.name, &r.columns.last()?.name);
        let (before, after) = (self.rng.random_range(0..3) * 5, self.rng.random_range(0..4) * 5);
        let keyword = self.pick(&["JOIN", "LEFT JOIN", "FULL JOIN", "RIGHT JOIN"]);
        let key = if self.rng.random() { format!("l.{} = r.{} AND ", l.columns[0].name, r.columns[0].name) } else { String::new() };
        let (times, keys) = ([self.name(), self.name()], [self.name(), self.name()]);
        // DataFusion has no plan for a full join without an equal key.
        let key =
            if key.is_empty() && keyword == "FULL JOIN" { format!("l.{} = r.{} AND ", l.columns[0].name, r.columns[0].name) } else { key };
        let sql = format!(
            "SELECT l.{left_time} AS {}, r.{right_time} AS {}, l.{} AS {}, r.{} AS {} FROM {} AS l {keyword} {} AS r ON {key}l.{left_time} \
             BETWEEN r.{right_time} - INTERVAL '{before} seconds' AND r.{right_time} + INTERVAL '{after} seconds'",
            times[0], times[1], l.columns[0].name, keys[0], r.columns[0].name, keys[1], l.name, r.name
        );
        let column = |name: &String, kind| Column { name: name.clone(), kind };
        let columns =
            vec![column(&times[0], Type::Time), column(&times[1], Type::Time), column(&keys[0], Type::Int), column(&keys[1], Type::Int)];
        let mut query = node("band join", vec![], columns, |_| sql.clone());
        if closing {
            query.sql += " EMIT ON WINDOW CLOSE";
            // The first column closes: a later right row meets left rows that are at most so much older.
            query.closes = Some(Closing { watermarks: vec![(left, 0), (right, -before)], column: times[0].clone(), inclusive: false });
        }
        Some(query)
    }

    /// Windows of watermarked streams beside each other, each row once it is final.
    pub(super) fn closed_join(&mut self) -> Option<Query> {
        let [left, right] = [self.timed()?, self.timed()?];
        let (l, r) = (self.tables[left].clone(), self.tables[right].clone());
        let windows = self.windows();
        let (left_rows, right_rows) = (windows.of(&l), windows.of(&r));
        let side = |table: &Table, rows: &Rows, aggregate: Option<&str>, batch: bool| {
            let (time, key) = (&table.columns.last().expect("a time").name, &table.columns[0].name);
            let rows = if batch { &rows.batch } else { &rows.own };
            match aggregate {
                Some(aggregate) => {
                    format!("SELECT window_end, {key} AS k, {aggregate}({key}) AS n FROM {rows} GROUP BY window_end, {key}")
                }
                None => format!("SELECT window_end, {key} AS k, {time} AS n FROM {rows}"),
            }
        };
        let choices = [None, Some("count"), Some("max")];
        let (of_left, of_right) = (self.pick(&choices), self.pick(&choices));
        let form = self.rng.random_range(0..5);
        let further = if of_left == of_right && self.rng.random() { " AND a.n <= b.n" } else { "" };
        let text = |batch: bool| {
            let (a, b) = (side(&l, &left_rows, of_left, batch), side(&r, &right_rows, of_right, batch));
            let on = format!("a.window_end = b.window_end AND a.k = b.k{further}");
            match form {
                0 => format!("SELECT a.window_end AS e, a.k AS k, a.n AS n, b.n AS m FROM ({a}) AS a JOIN ({b}) AS b ON {on}"),
                1 => format!("SELECT a.window_end AS e, a.k AS k, a.n AS n, b.n AS m FROM ({a}) AS a LEFT JOIN ({b}) AS b ON {on}"),
                2 => format!("SELECT a.window_end AS e, a.k AS k, a.n AS n, b.n AS m FROM ({a}) AS a FULL JOIN ({b}) AS b ON {on}"),
                3 => format!(
                    "SELECT a.window_end AS e, a.k AS k, a.n AS n, 1 AS m FROM ({a}) AS a WHERE EXISTS (SELECT 1 FROM ({b}) AS b WHERE {on})"
                ),
                _ => format!(
                    "SELECT a.window_end AS e, a.k AS k, a.n AS n, 1 AS m FROM ({a}) AS a WHERE NOT EXISTS (SELECT 1 FROM ({b}) AS b WHERE {on})"
                ),
            }
        };
        let mut query = node("closed join", vec![], vec![], |_| String::new());
        let kind = |aggregate: Option<&str>| if aggregate.is_some() { Type::Int } else { Type::Time };
        query.columns = vec![
            Column { name: "e".into(), kind: Type::Time },
            Column { name: "k".into(), kind: Type::Int },
            Column { name: "n".into(), kind: kind(of_left) },
            Column { name: "m".into(), kind: if form < 3 { kind(of_right) } else { Type::Int } },
        ];
        query.sql = format!("{} EMIT ON WINDOW CLOSE", text(false));
        query.batch_sql = text(true);
        query.closes = Some(Closing { watermarks: vec![(left, 0), (right, 0)], column: "e".into(), inclusive: true });
        Some(query)
    }

    /// The first groups of each window of a watermarked stream, once.
    pub(super) fn closed_rank(&mut self) -> Option<Query> {
        let closed = self.closed()?;
        let function = self.pick(&["row_number", "rank"]);
        let order = self.pick(&["n DESC, k", "n, k DESC", "k NULLS FIRST"]);
        let fetch = self.rng.random_range(1..=2);
        let text = |of: &str| {
            format!(
                "SELECT e, k, n, m FROM (SELECT *, {function}() OVER (PARTITION BY e ORDER BY {order}) AS place FROM ({of}) AS q) AS p \
                 WHERE place <= {fetch}"
            )
        };
        let below = closed.sql.trim_end_matches(" EMIT ON WINDOW CLOSE");
        let (sql, batch_sql) = (format!("{} EMIT ON WINDOW CLOSE", text(below)), text(&closed.batch_sql));
        Some(Query { sql, batch_sql, kind: "closed rank", groups: 0, ..closed })
    }

    /// An aggregate over windows of a watermarked stream that emits each window once.
    pub(super) fn closed(&mut self) -> Option<Query> {
        let at = self.timed()?;
        let table = self.tables[at].clone();
        let time = &table.columns.last()?.name;
        let key = &table.columns[0].name;
        let mut query = node("closed", vec![], vec![], |_| String::new());
        query.columns = vec![
            Column { name: "e".into(), kind: Type::Time },
            Column { name: "k".into(), kind: Type::Int },
            Column { name: "n".into(), kind: Type::Int },
            Column { name: "m".into(), kind: Type::Int },
        ];
        let rows = self.windows().of(&table);
        let second = format!("CAST(date_part('second', {time}) AS BIGINT)");
        let of = self.pick(&[
            format!("min({second})"),
            format!("max({second})"),
            format!("sum({second})"),
            format!("count(DISTINCT {second})"),
            format!("nth_value({second}, 2 ORDER BY {second})"),
        ]);
        let text =
            |rows: &str| format!("SELECT window_end AS e, {key} AS k, count(*) AS n, {of} AS m FROM {rows} GROUP BY window_end, {key}");
        query.sql = format!("{} EMIT ON WINDOW CLOSE", text(&rows.own));
        query.batch_sql = text(&rows.batch);
        query.groups = 2;
        query.closes = Some(Closing { watermarks: vec![(at, 0)], column: "e".into(), inclusive: true });
        Some(query)
    }

    /// The first rows of each window, or of each key in it, once the window is final.
    pub(super) fn closed_places(&mut self) -> Option<Query> {
        let at = self.timed()?;
        let table = self.tables[at].clone();
        let key = &table.columns[0].name;
        let partition = self.pick(&["window_end".to_string(), format!("window_end, {key}"), format!("{key}, window_end")]);
        let order = self.total_order(&table.columns);
        let form = self.rng.random_range(0..3);
        let text = |rows: &str| {
            let places = format!(
                "SELECT window_end, {key} AS k, CAST(row_number() OVER (PARTITION BY {partition} ORDER BY {order}) AS BIGINT) AS place, \
                 count(*) OVER (PARTITION BY window_end) AS total FROM {rows}"
            );
            match form {
                0 => format!("SELECT window_end AS e, k, place AS n, total AS m FROM ({places}) AS p"),
                1 => format!("SELECT window_end AS e, k, place AS n, total AS m FROM ({places}) AS p WHERE place <= 2"),
                _ => format!(
                    "SELECT window_end AS e, k, max(place) AS n, nth_value(place, 2 ORDER BY total, place) AS m FROM ({places}) AS p GROUP BY window_end, k"
                ),
            }
        };
        let mut query = node("closed places", vec![], vec![], |_| String::new());
        query.columns = vec![
            Column { name: "e".into(), kind: Type::Time },
            Column { name: "k".into(), kind: Type::Int },
            Column { name: "n".into(), kind: Type::Int },
            Column { name: "m".into(), kind: Type::Int },
        ];
        let rows = self.windows().of(&table);
        query.sql = format!("{} EMIT ON WINDOW CLOSE", text(&rows.own));
        query.batch_sql = text(&rows.batch);
        query.closes = Some(Closing { watermarks: vec![(at, 0)], column: "e".into(), inclusive: true });
        Some(query)
    }

    /// Sessions of a watermarked stream, each once.
    pub(super) fn closed_session(&mut self) -> Option<Query> {
        let at = self.timed()?;
        let table = self.tables[at].clone();
        let (time, key) = (&table.columns.last()?.name, &table.columns[0].name);
        let gap = format!("INTERVAL '{} seconds'", self.pick(&[3, 8]));
        let mut query = node("closed session", vec![], vec![], |_| String::new());
        query.columns = vec![
            Column { name: "e".into(), kind: Type::Time },
            Column { name: "k".into(), kind: Type::Int },
            Column { name: "n".into(), kind: Type::Int },
            Column { name: "first".into(), kind: Type::Time },
        ];
        query.sql = format!(
            "SELECT window_end AS e, {key} AS k, count(*) AS n, min({time}) AS first FROM SESSION({} PARTITION BY {key}, {time}, {gap}) \
             GROUP BY window_start, window_end, {key} EMIT ON WINDOW CLOSE",
            table.name
        );
        query.batch_sql = format!(
            "SELECT max({time}) + {gap} AS e, {key} AS k, count(*) AS n, min({time}) AS first FROM ({}) AS q GROUP BY {key}, session",
            numbered_sessions(&format!("SELECT * FROM {}", table.name), key, time, &gap)
        );
        query.closes = Some(Closing { watermarks: vec![(at, 0)], column: "e".into(), inclusive: false });
        Some(query)
    }

    /// The number of a table with a watermark, whether or not its rows may be taken back.
    fn timed(&mut self) -> Option<usize> {
        let is_timed = |table: &usize| matches!(self.tables[*table].kind, Kind::Watermarked | Kind::TimedBag | Kind::Versioned);
        let of: Vec<usize> = (0..self.tables.len()).filter(is_timed).collect();
        if of.is_empty() { None } else { Some(self.pick(&of)) }
    }

    /// Windows of one kind: where both sides of a join have others, rows may be final before both watermarks have passed them.
    fn windows(&mut self) -> Windows {
        self.pick(&[Windows::Hop, Windows::Cumulate, Windows::Tumble, Windows::Tumble])
    }

    /// The number of a table with a watermark whose rows only come.
    pub(super) fn watermarked(&mut self) -> Option<usize> {
        self.of_kind(Kind::Watermarked)
    }
}
