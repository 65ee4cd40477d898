//! Random queries from a typed grammar. A query is a tree whose every node is a complete SELECT with columns of its own, so that
//! any part of a failing query can be tried by itself.
//!
//! Excluded are queries whose answer is not determined: LIMIT and `row_number` are ordered by all columns, no volatile functions,
//! sums of floats only over values that are exact.

use super::changes::{Kind, Table};
use super::values::{Column, Type};
use rand::Rng;
use rand::rngs::SmallRng;

/// Names of the constructs.
pub(super) const KINDS: &[&str] = &[
    "aggregate",
    "asof join",
    "asof times",
    "band join",
    "clock",
    "closed",
    "closed join",
    "closed places",
    "closed rank",
    "closed session",
    "distinct",
    "distinct on",
    "except",
    "except all",
    "exists",
    "filter",
    "frame",
    "full join",
    "global",
    "in",
    "inner join",
    "intersect",
    "intersect all",
    "left join",
    "mark",
    "not exists",
    "not in",
    "project",
    "rank",
    "recursion",
    "right join",
    "running",
    "scalar",
    "scan",
    "self join",
    "session",
    "static join",
    "top",
    "tumble",
    "union",
    "union all",
    "version join",
    "version times",
    "window sum",
];

/// A query and what is known about it.
#[derive(Clone, Debug)]
pub(super) struct Query {
    /// As the engine gets it.
    pub(super) sql: String,
    /// The same for DataFusion, without window functions of the dialect.
    pub(super) batch_sql: String,
    pub(super) columns: Vec<Column>,
    /// Its topmost construct.
    pub(super) kind: &'static str,
    /// The queries below.
    pub(super) parts: Vec<Query>,
    /// Number of leading group columns, for an aggregate.
    pub(super) groups: usize,
    /// Which columns are a `min`.
    pub(super) minimums: Vec<usize>,
    /// `EMIT ON WINDOW CLOSE`: when rows come out.
    pub(super) closes: Option<Closing>,
}

/// What makes a row final.
#[derive(Clone, Debug)]
pub(super) struct Closing {
    /// The tables whose watermarks close, each with seconds that are added to its watermark. The least counts.
    pub(super) watermarks: Vec<(usize, i64)>,
    /// The column that they have to pass.
    pub(super) column: String,
    /// Whether reaching it is enough: the end of a window.
    pub(super) inclusive: bool,
}

impl Query {
    /// Whether it is an aggregate without GROUP BY, or something on top of one.
    fn is_single_row(&self) -> bool {
        self.kind == "global" || (self.parts.len() == 1 && self.parts[0].is_single_row())
    }
}

/// Makes queries over tables.
pub(super) struct Grammar<'a> {
    rng: &'a mut SmallRng,
    tables: &'a [Table],
    names: usize,
}

impl<'a> Grammar<'a> {
    pub(super) fn new(rng: &'a mut SmallRng, tables: &'a [Table]) -> Self {
        Self { rng, tables, names: 0 }
    }

    /// A query of a view: of at most `depth` constructs above the tables, or one that emits on window close.
    pub(super) fn view(&mut self, depth: usize) -> Query {
        let closed = match self.rng.random_range(0..24) {
            0..2 => self.closed(),
            2..4 => self.closed_join(),
            4 => self.band_join(true),
            12..14 => {
                let closing = self.rng.random();
                self.asof_times(closing)
            }
            14..17 => {
                let closing = self.rng.random();
                self.version_times(closing)
            }
            // Straight over a table, where a row that goes often was the least of its group.
            5..8 => Some(self.aggregate(0)),
            8 => self.closed_places(),
            9 => self.closed_session(),
            10 => Some(self.session(0)),
            11 => self.closed_rank(),
            _ => None,
        };
        closed.unwrap_or_else(|| self.query(depth))
    }

    /// A relation of at most `depth` constructs above the tables.
    fn query(&mut self, depth: usize) -> Query {
        if depth == 0 {
            return self.scan();
        }
        let below = depth - 1;
        match self.rng.random_range(0..45) {
            0..2 => self.filter(below),
            2..4 => self.project(below),
            4..8 => self.aggregate(below),
            8 => self.global(below),
            9 => self.distinct(below),
            10..13 => self.join(below),
            13 => self.static_join(below),
            14 => self.exists(below),
            15 => self.in_subquery(below),
            16 => self.scalar(below),
            17 => self.set_operation(below),
            18 => self.union(below),
            19 => self.top(below),
            20 => self.rank(below),
            21 => self.window_sum(below),
            22..24 => self.tumble(below),
            24 => self.mark(below),
            25 => self.self_join(),
            26 => self.band_join(false).unwrap_or_else(|| self.self_join()),
            27..29 => self.frame(below),
            29 => self.distinct_on(),
            30 => self.session(below),
            31..33 => self.asof_join(below),
            33 => self.set_operation(below),
            34..36 => self.clock(below),
            36..38 => self.recursion(below),
            38..40 => self.running(below),
            40..42 => self.set_operation(below),
            42..44 => self.version_join(below),
            _ => self.join(below),
        }
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("c{}", self.names)
    }

    fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.rng.random_range(0..choices.len())].clone()
    }

    fn scan(&mut self) -> Query {
        let table = self.pick(self.tables);
        self.scan_of(&table)
    }

    fn scan_of(&mut self, table: &Table) -> Query {
        let mut columns = Vec::new();
        let mut items = Vec::new();
        for column in &table.columns {
            let name = self.name();
            items.push(format!("{} AS {name}", column.name));
            columns.push(Column { name, kind: column.kind });
        }
        let sql = format!("SELECT {} FROM {}", items.join(", "), table.name);
        node("scan", vec![], columns, |_| sql.clone())
    }

    fn filter(&mut self, depth: usize) -> Query {
        let part = self.query(depth);
        let condition = self.condition(&part.columns, 2);
        let columns = part.columns.clone();
        node("filter", vec![part], columns, |parts| format!("SELECT * FROM ({}) AS q WHERE {condition}", parts[0]))
    }

    /// Functions that look back in the order of time, in which rows come as a rule.
    fn running(&mut self, depth: usize) -> Query {
        let part = self.query(depth);
        let find = |kind: Type| part.columns.iter().find(|column| column.kind == kind).map(|column| column.name.clone());
        let (Some(time), Some(of)) = (find(Type::Time), find(Type::Int)) else { return part };
        let Some(partition) = self.partition(&part.columns) else { return part };
        let rest = self.total_order(&part.columns);
        let by = if self.rng.random_ratio(1, 4) { String::new() } else { format!("PARTITION BY {partition} ") };
        let by_place = format!("{by}ORDER BY {time}, {rest}");
        let by_value = format!("{by}ORDER BY {time}");
        let choices = [
            format!("CAST(row_number() OVER ({by_place}) AS BIGINT)"),
            format!("lag({of}, 2) OVER ({by_place})"),
            format!("sum({of}) OVER ({by_place} ROWS UNBOUNDED PRECEDING)"),
            format!("max({of}) OVER ({by_place} ROWS 2 PRECEDING)"),
            format!("first_value({of}) OVER ({by_place})"),
            format!("CAST(rank() OVER ({by_value}) AS BIGINT)"),
            format!("CAST(dense_rank() OVER ({by_value}) AS BIGINT)"),
            format!("count(*) OVER ({by_value})"),
            format!("sum({of}) OVER ({by_value})"),
        ];
        let mut columns = part.columns.clone();
        let mut items = Vec::new();
        for _ in 0..self.rng.random_range(1..=3) {
            let (call, name) = (self.pick(&choices), self.name());
            items.push(format!("{call} AS {name}"));
            columns.push(Column { name, kind: Type::Int });
        }
        node("running", vec![part], columns, |parts| format!("SELECT *, {} FROM ({}) AS q", items.join(", "), parts[0]))
    }

    /// What follows from pairs of numbers, round by round. Those of UNION ALL end after two rounds.
    fn recursion(&mut self, depth: usize) -> Query {
        let (part, other) = (self.query(depth.min(2)), self.query(depth.min(1)));
        let integers = |query: &Query| -> Vec<String> {
            query.columns.iter().filter(|column| column.kind == Type::Int).map(|column| column.name.clone()).collect()
        };
        let (own, others) = (integers(&part), integers(&other));
        if own.is_empty() || others.is_empty() {
            return part;
        }
        let ([a, b], [c, d]) = ([self.pick(&own), self.pick(&own)], [self.pick(&others), self.pick(&others)]);
        let [r, x, y, z] = [self.name(), self.name(), self.name(), self.name()];
        let columns: Vec<Column> = [&x, &y, &z].into_iter().map(|name| Column { name: name.clone(), kind: Type::Int }).collect();
        let (union, step, condition) = self.pick(&[("UNION", "0", ""), ("UNION ALL", "1", " WHERE r.z < 2")]);
        let form = self.rng.random_range(0..4);
        let pair = if c == d { c.clone() } else { format!("{c}, {d}") };
        node("recursion", vec![part, other], columns, |parts| {
            // Every pair once: paths multiply from round to round.
            let (start, edges) = (parts[0], format!("SELECT DISTINCT {pair} FROM ({}) AS p", parts[1]));
            let term = match form {
                0 | 1 => format!("SELECT r.x, e.{d}, r.z + {step} FROM {r} AS r JOIN ({edges}) AS e ON r.y = e.{c}{condition}"),
                2 => format!("SELECT r.y, r.x, r.z + {step} FROM {r} AS r{condition}"),
                _ => {
                    let and = if condition.is_empty() { String::new() } else { format!(" AND{}", &condition[6..]) };
                    format!("SELECT r.x, r.x, r.z + {step} FROM {r} AS r WHERE r.y IN (SELECT {c} FROM ({edges}) AS e){and}")
                }
            };
            let start = format!("SELECT {a} AS x, {b} AS y, CAST(0 AS BIGINT) AS z FROM ({start}) AS q");
            format!("SELECT x AS {x}, y AS {y}, z AS {z} FROM (WITH RECURSIVE {r} AS ({start} {union} {term}) SELECT * FROM {r}) AS q")
        })
    }

    /// Conditions on the clock, which goes on by seven seconds an epoch.
    fn clock(&mut self, depth: usize) -> Query {
        let part = self.query(depth);
        let Some(time) = part.columns.iter().find(|column| column.kind == Type::Time).map(|column| column.name.clone()) else {
            return part;
        };
        let seconds = self.rng.random_range(0..8) * 5;
        let other = self.condition(&part.columns, 1);
        let condition = self.pick(&[
            format!("{time} > now() - INTERVAL '{seconds} seconds'"),
            format!("{time} + INTERVAL '{seconds} seconds' >= now() AND {other}"),
            format!("{time} <= now()"),
            format!("now() BETWEEN {time} AND {time} + INTERVAL '{seconds} seconds'"),
            format!("date_trunc('minute', now()) <= {time} OR {other}"),
            format!("date_bin(INTERVAL '20 seconds', now()) > {time}"),
        ]);
        let columns = part.columns.clone();
        node("clock", vec![part], columns, |parts| format!("SELECT * FROM ({}) AS q WHERE {condition}", parts[0]))
    }

    fn project(&mut self, depth: usize) -> Query {
        let part = self.query(depth);
        let mut columns = Vec::new();
        let mut items = Vec::new();
        for _ in 0..self.rng.random_range(1..=4) {
            let (text, kind) = self.expression(&part.columns, 2);
            let name = self.name();
            items.push(format!("{text} AS {name}"));
            columns.push(Column { name, kind });
        }
        node("project", vec![part], columns, |parts| format!("SELECT {} FROM ({}) AS q", items.join(", "), parts[0]))
    }

    fn aggregate(&mut self, depth: usize) -> Query {
        let part = self.query(depth);
        let mut columns = Vec::new();
        let mut items = Vec::new();
        let mut keys = Vec::new();
        for _ in 0..self.rng.random_range(1..=2) {
            let column = self.pick(&part.columns);
            let name = self.name();
            items.push(format!("{} AS {name}", column.name));
            keys.push(column.name);
            columns.push(Column { name, kind: column.kind });
        }
        let groups = columns.len();
        let minimums = self.aggregates(&part, &mut columns, &mut items);
        let having = if self.rng.random_ratio(1, 5) { " HAVING count(*) > 1" } else { "" };
        let keys = keys.join(", ");
        let mut query = node("aggregate", vec![part], columns, |parts| {
            format!("SELECT {} FROM ({}) AS q GROUP BY {keys}{having}", items.join(", "), parts[0])
        });
        query.groups = groups;
        query.minimums = minimums;
        query
    }

    fn global(&mut self, depth: usize) -> Query {
        let part = self.query(depth);
        let (mut columns, mut items) = (Vec::new(), Vec::new());
        let minimums = self.aggregates(&part, &mut columns, &mut items);
        let mut query = node("global", vec![part], columns, |parts| format!("SELECT {} FROM ({}) AS q", items.join(", "), parts[0]));
        query.minimums = minimums;
        query
    }

    /// One to three aggregates; the places of `min`.
    fn aggregates(&mut self, part: &Query, columns: &mut Vec<Column>, items: &mut Vec<String>) -> Vec<usize> {
        let (input, of_table) = (&part.columns, part.kind == "scan");
        let mut minimums = Vec::new();
        for _ in 0..self.rng.random_range(1..=3) {
            let column = self.pick(input);
            let of = &column.name;
            let is_float = matches!(column.kind, Type::Float | Type::Quotient);
            let mut choices: Vec<(String, Type)> = vec![("count(*)".into(), Type::Int), (format!("count({of})"), Type::Int)];
            // DataFusion counts minus zero and zero as two, where groups take them for one.
            if !is_float {
                choices.push((format!("count(DISTINCT {of})"), Type::Int));
            }
            match column.kind {
                Type::Int | Type::Float | Type::Decimal => {
                    choices.push((format!("sum({of})"), column.kind));
                    choices.push((format!("sum({of})"), column.kind));
                    if column.kind != Type::Decimal {
                        choices.push((format!("avg({of})"), Type::Quotient));
                    }
                }
                Type::Bool => choices.push((format!("bool_or({of})"), Type::Bool)),
                _ => {}
            }
            // DataFusion's grouped max and min of floats depend on where a NaN stands among the rows, its ungrouped ones do not.
            if column.kind != Type::Bool && !is_float {
                choices.push((format!("max({of})"), column.kind));
                choices.push((format!("min({of})"), column.kind));
                choices.push((format!("min({of})"), column.kind));
            }
            match column.kind {
                Type::Int => {
                    choices.push((format!("median({of})"), Type::Quotient));
                    choices.push((format!("array_to_string(array_agg({of} ORDER BY {of} DESC), '+', 'null')"), Type::Text));
                }
                Type::Text => choices.push((format!("string_agg({of}, '+' ORDER BY {of})"), Type::Text)),
                _ => {}
            }
            // Rows are told apart by all of their columns. Over a projection two of them may be one, and DataFusion 55.2 panics on an
            // ORDER BY that names a column twice.
            if of_table && self.rng.random_ratio(1, 3) {
                let order = self.total_order(input);
                let call = self.pick(&["first_value", "last_value", "nth_value"]);
                let place = if call == "nth_value" { ", 2" } else { "" };
                choices = vec![(format!("{call}({of}{place} ORDER BY {order})"), column.kind)];
            }
            let (mut text, kind) = self.pick(&choices);
            if text.starts_with("min") {
                minimums.push(columns.len());
            }
            if self.rng.random_ratio(1, 6) && !text.starts_with("array_to_string") {
                text = format!("{text} FILTER (WHERE {})", self.condition(input, 1));
            }
            let name = self.name();
            items.push(format!("{text} AS {name}"));
            columns.push(Column { name, kind });
        }
        minimums
    }

    fn distinct(&mut self, depth: usize) -> Query {
        let part = self.query(depth);
        let count = self.rng.random_range(1..=part.columns.len().min(2));
        let columns = part.columns[..count].to_vec();
        let list = names(&columns);
        node("distinct", vec![part], columns, |parts| format!("SELECT DISTINCT {list} FROM ({}) AS q", parts[0]))
    }

    fn join(&mut self, depth: usize) -> Query {
        let (left, right) = (self.query(depth), self.query(depth.min(1)));
        // DataFusion 55.2 takes the columns of a single row for constant even where an outer join pads them with NULLs, and then sorts
        // wrongly.
        let outer = !left.is_single_row() && !right.is_single_row();
        let (kind, keyword) = self.pick(&[
            ("inner join", "JOIN"),
            ("inner join", "JOIN"),
            ("left join", "LEFT JOIN"),
            ("right join", "RIGHT JOIN"),
            ("full join", "FULL JOIN"),
        ]);
        let (kind, keyword) = if outer { (kind, keyword) } else { ("inner join", "JOIN") };
        let on = match self.equal_columns(&left.columns, &right.columns) {
            Some((a, b)) => format!("l.{a} = r.{b}{}", self.further_condition(&left.columns, &right.columns)),
            None if kind == "inner join" => "true".into(),
            None => "1 = 0".into(),
        };
        let mut columns = left.columns.clone();
        columns.extend(right.columns.iter().cloned());
        columns.truncate(5);
        let list = names(&columns);
        node(kind, vec![left, right], columns, |parts| {
            format!("SELECT {list} FROM ({}) AS l {keyword} ({}) AS r ON {on}", parts[0], parts[1])
        })
    }

    /// The nearest row on the right. The batch answer aggregates all candidates, in SQL that has nothing to do with neighbours. Of the
    /// right side only what the nearest rows have in common is handed out.
    fn asof_join(&mut self, depth: usize) -> Query {
        let (left, right) = (self.query(depth), self.query(depth.min(1)));
        let exact = |columns: &[Column]| -> Vec<Column> {
            columns.iter().filter(|column| matches!(column.kind, Type::Int | Type::Text | Type::Time)).cloned().collect()
        };
        let (l, r) = (exact(&left.columns), exact(&right.columns));
        if left.is_single_row() || right.is_single_row() {
            return left;
        }
        let Some((time, right_time)) = self.equal_columns(&l, &r) else { return left };
        let key = if self.rng.random_ratio(4, 5) { self.equal_columns(&l, &r) } else { None };
        let on = key.map_or("true".to_string(), |(a, b)| format!("l.{a} = r.{b}"));
        let (op, nearest) = self.pick(&[(">=", "max"), (">", "max"), ("<=", "min"), ("<", "min")]);
        let (outer, keeps_all) = if self.rng.random() { ("LEFT ", true) } else { ("", false) };
        let found = self.name();
        let kind = right.columns.iter().find(|column| column.name == right_time).map_or(Type::Int, |column| column.kind);
        let mut columns = left.columns.clone();
        columns.truncate(4);
        let own = names(&columns);
        let all = left.columns.iter().map(|column| format!("l.{}", column.name)).collect::<Vec<_>>().join(", ");
        columns.push(Column { name: found.clone(), kind });
        // All three spellings.
        let condition = match (on.as_str(), self.rng.random()) {
            ("true", _) => format!("MATCH_CONDITION (l.{time} {op} r.{right_time})"),
            (_, true) => format!("MATCH_CONDITION (l.{time} {op} r.{right_time}) ON {on}"),
            (_, false) => format!("ON l.{time} {op} r.{right_time} AND {on}"),
        };
        let mut query = node("asof join", vec![left, right], columns, |parts| {
            format!("SELECT {own}, r.{right_time} AS {found} FROM ({}) AS l ASOF {outer}JOIN ({}) AS r {condition}", parts[0], parts[1])
        });
        let [left, right] = query.parts.as_slice() else { return query };
        let kept = if keeps_all { String::new() } else { format!(" WHERE {found} IS NOT NULL") };
        query.batch_sql = format!(
            "SELECT {own}, {found} FROM (SELECT {all}, {nearest}(r.{right_time}) AS {found} \
             FROM (SELECT *, row_number() OVER () AS place FROM ({}) AS n) AS l LEFT JOIN ({}) AS r \
             ON {on} AND l.{time} {op} r.{right_time} GROUP BY l.place, {all}) AS q{kept}",
            left.batch_sql, right.batch_sql
        );
        query
    }

    /// Watermarked streams joined with the nearest time, so that versions and rows are dropped; with `closing` each row once it is final.
    fn asof_times(&mut self, closing: bool) -> Option<Query> {
        let [left, right] = [self.watermarked()?, self.watermarked()?];
        let (l, r) = (self.tables[left].clone(), self.tables[right].clone());
        let (left_time, right_time) = (&l.columns.last()?.name, &r.columns.last()?.name);
        let (left_key, right_key) = (&l.columns[0].name, &r.columns[0].name);
        let op = self.pick(&[">=", ">"]);
        let (outer, keeps_all) = if self.rng.random() { ("LEFT ", true) } else { ("", false) };
        let [time, key, found] = [self.name(), self.name(), self.name()];
        let sql = format!(
            "SELECT l.{left_time} AS {time}, l.{left_key} AS {key}, r.{right_time} AS {found} FROM {} AS l ASOF {outer}JOIN {} AS r \
             MATCH_CONDITION (l.{left_time} {op} r.{right_time}) ON l.{left_key} = r.{right_key}",
            l.name, r.name
        );
        let columns = vec![
            Column { name: time.clone(), kind: Type::Time },
            Column { name: key.clone(), kind: Type::Int },
            Column { name: found.clone(), kind: Type::Time },
        ];
        let mut query = node("asof times", vec![], columns, |_| sql.clone());
        let kept = if keeps_all { String::new() } else { format!(" WHERE {found} IS NOT NULL") };
        query.batch_sql = format!(
            "SELECT {time}, {key}, {found} FROM (SELECT l.{left_time} AS {time}, l.{left_key} AS {key}, max(r.{right_time}) AS {found} \
             FROM (SELECT *, row_number() OVER () AS place FROM {}) AS l LEFT JOIN {} AS r \
             ON l.{left_key} = r.{right_key} AND l.{left_time} {op} r.{right_time} GROUP BY l.place, l.{left_time}, l.{left_key}) AS q{kept}",
            l.name, r.name
        );
        if closing {
            query.sql += " EMIT ON WINDOW CLOSE";
            query.closes = Some(Closing { watermarks: vec![(left, 0), (right, 0)], column: time, inclusive: false });
        }
        Some(query)
    }

    /// The version of a key at a time of the left row; changes of keys make and end versions.
    fn version_join(&mut self, depth: usize) -> Query {
        let Some(right) = self.of_kind(Kind::Versioned) else { return self.query(depth) };
        let right = self.tables[right].clone();
        let mut left = self.query(depth);
        let has = |query: &Query, kind: Type| query.columns.iter().any(|column| column.kind == kind);
        if left.is_single_row() || !has(&left, Type::Int) || !has(&left, Type::Time) {
            left = self.scan_of(&right);
        }
        let of =
            |kind: Type| left.columns.iter().filter(|column| column.kind == kind).map(|column| column.name.clone()).collect::<Vec<_>>();
        let (keys, times) = (of(Type::Int), of(Type::Time));
        let (key, time) = (self.pick(&keys), self.pick(&times));
        self.versions("version join", left, &right, [key, time])
    }

    /// A watermarked stream joined with versions, so that both are dropped; with `closing` each row once it is final.
    fn version_times(&mut self, closing: bool) -> Option<Query> {
        let (left, right) = (self.watermarked()?, self.of_kind(Kind::Versioned)?);
        let (l, r) = (self.tables[left].clone(), self.tables[right].clone());
        let [key, time] = [self.name(), self.name()];
        let columns = vec![Column { name: time.clone(), kind: Type::Time }, Column { name: key.clone(), kind: Type::Int }];
        let text = format!("SELECT {} AS {time}, {} AS {key} FROM {}", l.columns.last()?.name, l.columns[0].name, l.name);
        let scan = node("scan", vec![], columns, |_| text.clone());
        let mut query = self.versions("version times", scan, &r, [key, time.clone()]);
        if closing {
            query.sql += " EMIT ON WINDOW CLOSE";
            query.closes = Some(Closing { watermarks: vec![(left, 0), (right, 0)], column: time, inclusive: false });
        }
        Some(query)
    }

    /// The batch answer takes the last of all changes before the left time, in SQL that has nothing to do with neighbours.
    fn versions(&mut self, kind: &'static str, left: Query, right: &Table, [key, time]: [String; 2]) -> Query {
        let value = self.pick(&right.columns);
        let right_time = right.columns.last().map(|column| column.name.clone()).unwrap_or_default();
        let right_key = &right.columns[0].name;
        let outer = if self.rng.random() { "LEFT " } else { "" };
        let filtered = self.rng.random_ratio(1, 3);
        let further = if filtered { format!(" AND r.{} IS NOT NULL", value.name) } else { String::new() };
        let [found, at] = [self.name(), self.name()];
        let mut columns = left.columns.clone();
        columns.truncate(3);
        let own = names(&columns);
        let all = left.columns.iter().map(|column| format!("l.{}", column.name)).collect::<Vec<_>>().join(", ");
        columns.push(Column { name: found.clone(), kind: value.kind });
        columns.push(Column { name: at.clone(), kind: Type::Time });
        let mut query = node(kind, vec![left], columns, |parts| {
            let own = own.split(", ").map(|column| format!("l.{column}")).collect::<Vec<_>>().join(", ");
            format!(
                "SELECT {own}, r.{} AS {found}, r.{right_time} AS {at} FROM ({}) AS l {outer}JOIN {} FOR SYSTEM_TIME AS OF l.{time} AS r \
                 ON l.{key} = r.{right_key}{further}",
                value.name, parts[0], right.name
            )
        });
        let holds = if filtered { format!("NOT change_deletes AND {found} IS NOT NULL") } else { "NOT change_deletes".into() };
        let kept = if outer.is_empty() { format!(" AND {holds}") } else { String::new() };
        query.batch_sql = format!(
            "SELECT {own}, CASE WHEN {holds} THEN {found} END AS {found}, CASE WHEN {holds} THEN {at} END AS {at} \
             FROM (SELECT {all}, r.{} AS {found}, r.{right_time} AS {at}, r.change_deletes, \
             row_number() OVER (PARTITION BY l.place ORDER BY r.{right_time} DESC, r.change_place DESC) AS newest \
             FROM (SELECT *, row_number() OVER () AS place FROM ({}) AS n) AS l LEFT JOIN {}_changes AS r \
             ON l.{key} = r.{right_key} AND l.{time} >= r.{right_time}) AS q WHERE newest = 1{kept}",
            value.name, query.parts[0].batch_sql, right.name
        );
        query
    }

    /// A table joined with itself, on the same column as a rule.
    fn self_join(&mut self) -> Query {
        let table = self.pick(self.tables);
        let (left, right) = (self.scan_of(&table), self.scan_of(&table));
        let (a, b) = match self.rng.random_ratio(3, 4) {
            true => (left.columns[0].name.clone(), right.columns[0].name.clone()),
            false => self.equal_columns(&left.columns, &right.columns).expect("a table has the types of itself"),
        };
        let further = self.further_condition(&left.columns, &right.columns);
        let keyword = self.pick(&["JOIN", "JOIN", "JOIN", "LEFT JOIN", "FULL JOIN"]);
        let last = |query: &Query| query.columns[query.columns.len() - 1].clone();
        let columns = vec![left.columns[0].clone(), last(&left), last(&right)];
        let list = names(&columns);
        node("self join", vec![left, right], columns, |parts| {
            format!("SELECT {list} FROM ({}) AS l {keyword} ({}) AS r ON l.{a} = r.{b}{further}", parts[0], parts[1])
        })
    }

    /// A comparison of both sides beyond the equal keys, or nothing.
    fn further_condition(&mut self, left: &[Column], right: &[Column]) -> String {
        if self.rng.random() {
            return String::new();
        }
        match self.equal_columns(left, right) {
            Some((a, b)) => format!(" AND l.{a} {} r.{b}", self.pick(&["<", ">=", "<>"])),
            None => String::new(),
        }
    }

    /// Watermarked streams joined on a range of their times, so that rows are dropped; with `closing` each row once it is final.
    fn band_join(&mut self, closing: bool) -> Option<Query> {
        let [left, right] = [self.watermarked()?, self.watermarked()?];
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
    fn closed_join(&mut self) -> Option<Query> {
        let [left, right] = [self.watermarked()?, self.watermarked()?];
        let (l, r) = (self.tables[left].clone(), self.tables[right].clone());
        let side = |table: &Table, aggregate: Option<&str>, batch: bool| {
            let (time, key) = (&table.columns.last().expect("a time").name, &table.columns[0].name);
            let end = format!("date_bin(INTERVAL '10 seconds', {time}, CAST('1970-01-01T00:00:00' AS TIMESTAMP)) + INTERVAL '10 seconds'");
            let rows = match batch {
                true => format!("(SELECT *, {end} AS window_end FROM {}) AS w", table.name),
                false => format!("TUMBLE({}, {time}, INTERVAL '10 seconds')", table.name),
            };
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
            let (a, b) = (side(&l, of_left, batch), side(&r, of_right, batch));
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

    /// The number of a table with a watermark.
    fn watermarked(&mut self) -> Option<usize> {
        self.of_kind(Kind::Watermarked)
    }

    fn of_kind(&mut self, kind: Kind) -> Option<usize> {
        let of: Vec<usize> = (0..self.tables.len()).filter(|table| self.tables[*table].kind == kind).collect();
        if of.is_empty() { None } else { Some(self.pick(&of)) }
    }

    fn equal_columns(&mut self, left: &[Column], right: &[Column]) -> Option<(String, String)> {
        let comparable = |kind: Type| kind != Type::Quotient;
        let pairs: Vec<(String, String)> = left
            .iter()
            .flat_map(|a| right.iter().filter(move |b| a.kind == b.kind && comparable(a.kind)).map(|b| (a.name.clone(), b.name.clone())))
            .collect();
        if pairs.is_empty() { None } else { Some(self.pick(&pairs)) }
    }

    fn static_join(&mut self, depth: usize) -> Query {
        let part = self.query(depth);
        let (key, label) = (self.name(), self.name());
        let Some(column) = part.columns.iter().find(|column| column.kind == Type::Int).cloned() else { return part };
        let left = if self.rng.random() { "LEFT " } else { "" };
        let mut columns = part.columns.clone();
        columns.truncate(4);
        columns.push(Column { name: label.clone(), kind: Type::Text });
        let list = names(&columns);
        let values = format!("(VALUES (0, 'zero'), (1, 'one'), (1, 'uno'), (3, NULL)) AS v ({key}, {label})");
        node("static join", vec![part], columns, |parts| {
            format!("SELECT {list} FROM ({}) AS q {left}JOIN {values} ON q.{} = v.{key}", parts[0], column.name)
        })
    }

    fn exists(&mut self, depth: usize) -> Query {
        let (part, other) = (self.query(depth), self.query(depth.min(1)));
        let Some((a, b)) = self.equal_columns(&part.columns, &other.columns) else { return part };
        let (kind, not) = self.pick(&[("exists", ""), ("not exists", "NOT ")]);
        let further = self.further_condition(&part.columns, &other.columns);
        let columns = part.columns.clone();
        node(kind, vec![part, other], columns, |parts| {
            format!("SELECT * FROM ({}) AS l WHERE {not}EXISTS (SELECT 1 FROM ({}) AS r WHERE r.{b} = l.{a}{further})", parts[0], parts[1])
        })
    }

    /// EXISTS as one of two alternatives.
    fn mark(&mut self, depth: usize) -> Query {
        let (part, other) = (self.query(depth), self.query(depth.min(1)));
        let Some((a, b)) = self.equal_columns(&part.columns, &other.columns) else { return part };
        let not = self.pick(&["", "NOT "]);
        let further = self.further_condition(&part.columns, &other.columns);
        let condition = self.condition(&part.columns, 1);
        let columns = part.columns.clone();
        node("mark", vec![part, other], columns, |parts| {
            format!(
                "SELECT * FROM ({}) AS l WHERE {condition} OR {not}EXISTS (SELECT 1 FROM ({}) AS r WHERE r.{b} = l.{a}{further})",
                parts[0], parts[1]
            )
        })
    }

    fn in_subquery(&mut self, depth: usize) -> Query {
        let (part, other) = (self.query(depth), self.query(depth.min(1)));
        let Some((a, b)) = self.equal_columns(&part.columns, &other.columns) else { return part };
        let (kind, not) = self.pick(&[("in", ""), ("not in", "NOT ")]);
        let columns = part.columns.clone();
        node(kind, vec![part, other], columns, |parts| {
            format!("SELECT * FROM ({}) AS q WHERE {a} {not}IN (SELECT {b} FROM ({}) AS s)", parts[0], parts[1])
        })
    }

    fn scalar(&mut self, depth: usize) -> Query {
        let (part, other) = (self.query(depth), self.query(depth.min(1)));
        let no_floats: Vec<Column> = part.columns.iter().filter(|column| column.kind != Type::Float).cloned().collect();
        let Some((a, b)) = self.equal_columns(&no_floats, &other.columns) else { return part };
        let columns = part.columns.clone();
        node("scalar", vec![part, other], columns, |parts| {
            format!("SELECT * FROM ({}) AS q WHERE {a} >= (SELECT max({b}) FROM ({}) AS s)", parts[0], parts[1])
        })
    }

    fn set_operation(&mut self, depth: usize) -> Query {
        let (kind, keyword) = self.pick(&[
            ("intersect", "INTERSECT"),
            ("except", "EXCEPT"),
            ("intersect all", "INTERSECT ALL"),
            ("except all", "EXCEPT ALL"),
        ]);
        let mut query = self.two_of_one_type(depth, kind, keyword);
        let Some(distinct) = keyword.strip_suffix(" ALL").filter(|_| query.kind == kind) else { return query };
        let middle = format!(" {keyword} ");
        if matches!(query.columns[0].kind, Type::Float | Type::Quotient) {
            // DataFusion tells 0.0 and -0.0 apart in some of the operators that count, and in others not.
            query.kind = if distinct == "EXCEPT" { "except" } else { "intersect" };
            for text in [&mut query.sql, &mut query.batch_sql] {
                *text = text.replace(&middle, &format!(" {distinct} "));
            }
        } else if let Some((left, right)) = query.batch_sql.split_once(&middle) {
            // DataFusion counts wrong: equal rows are told apart by a number, then all are different.
            let x = &query.columns[0].name;
            let side = |text: &str| format!("SELECT {x}, row_number() OVER (PARTITION BY {x}) AS nth FROM ({text}) AS n");
            query.batch_sql = format!("SELECT {x} FROM ({} {distinct} {}) AS d", side(left), side(right));
        }
        query
    }

    fn union(&mut self, depth: usize) -> Query {
        let (kind, keyword) = self.pick(&[("union", "UNION"), ("union all", "UNION ALL")]);
        self.two_of_one_type(depth, kind, keyword)
    }

    fn two_of_one_type(&mut self, depth: usize, kind: &'static str, keyword: &str) -> Query {
        let (left, right) = (self.query(depth), self.query(depth.min(1)));
        let Some((a, b)) = self.equal_columns(&left.columns, &right.columns) else { return left };
        let column = left.columns.iter().find(|column| column.name == a).expect("it was just picked").clone();
        let name = self.name();
        let of = column.kind.sql();
        let columns = vec![Column { name: name.clone(), kind: column.kind }];
        // Sums of decimals are wider than the columns they come from.
        let cast = |name: &str| {
            if column.kind == Type::Decimal { "CAST(".to_string() + name + " AS DECIMAL(30, 2))" } else { format!("CAST({name} AS {of})") }
        };
        let (a, b) = (cast(&a), cast(&b));
        node(kind, vec![left, right], columns, |parts| {
            format!("SELECT {a} AS {name} FROM ({}) AS l {keyword} SELECT {b} AS {name} FROM ({}) AS r", parts[0], parts[1])
        })
    }

    fn top(&mut self, depth: usize) -> Query {
        let part = self.query(depth);
        let columns = part.columns.clone();
        let order = self.total_order(&columns);
        let limit = self.rng.random_range(1..=3);
        let offset = usize::from(self.rng.random_ratio(1, 4));
        let list = names(&columns);
        let mut query = node("top", vec![part], columns, |parts| {
            format!("SELECT * FROM (SELECT * FROM ({}) AS q ORDER BY {order} LIMIT {limit} OFFSET {offset}) AS p", parts[0])
        });
        // DataFusion 55.2 pushes a LIMIT below a RIGHT JOIN that its order needs; a count of rows it cannot push.
        query.batch_sql = format!(
            "SELECT {list} FROM (SELECT *, row_number() OVER (ORDER BY {order}) AS place FROM ({}) AS q) AS p WHERE place > {offset} AND place <= {}",
            query.parts[0].batch_sql,
            limit + offset
        );
        query
    }

    fn total_order(&mut self, columns: &[Column]) -> String {
        let mut items = Vec::new();
        for column in columns {
            let direction = self.pick(&["", " DESC", " NULLS FIRST"]);
            // Minus zero plus zero is zero: the two are one value, and which one came first must not decide.
            let zero = if matches!(column.kind, Type::Float | Type::Quotient) { " + CAST('0' AS DOUBLE)" } else { "" };
            items.push(format!("{}{zero}{direction}", column.name));
        }
        items.join(", ")
    }

    /// A column to partition by. DataFusion's windows keep minus zero apart from zero, where groups do not.
    fn partition(&mut self, columns: &[Column]) -> Option<String> {
        let of: Vec<&Column> = columns.iter().filter(|column| !matches!(column.kind, Type::Float | Type::Quotient)).collect();
        if of.is_empty() { None } else { Some(self.pick(&of).name.clone()) }
    }

    fn rank(&mut self, depth: usize) -> Query {
        let part = self.query(depth);
        let name = self.name();
        let function = self.pick(&["row_number", "rank", "dense_rank"]);
        // Ties have one rank, but each row has its own number.
        let order = match function {
            "row_number" => self.total_order(&part.columns),
            _ => {
                let some = self.rng.random_range(1..=part.columns.len());
                self.total_order(&part.columns[..some])
            }
        };
        let partition = match self.rng.random_ratio(4, 5) {
            true => self.partition(&part.columns),
            false => Some(String::new()),
        };
        let Some(partition) = partition else { return part };
        let partition = if partition.is_empty() { partition } else { format!("PARTITION BY {partition} ") };
        let cut = self.pick(&["place <= 2", "place < 4", "place = 1", "place BETWEEN 2 AND 3"]);
        let further = if self.rng.random_ratio(1, 4) { format!(" AND {}", self.condition(&part.columns, 1)) } else { String::new() };
        let mut columns = part.columns.clone();
        let mut list = names(&part.columns);
        if self.rng.random() {
            columns.push(Column { name: name.clone(), kind: Type::Int });
            // The type of a rank is unsigned.
            list = format!("{list}, CAST(place AS BIGINT) AS {name}");
        }
        node("rank", vec![part], columns, |parts| {
            format!(
                "SELECT {list} FROM (SELECT *, {function}() OVER ({partition}ORDER BY {order}) AS place FROM ({}) AS q) AS p \
                 WHERE {cut}{further}",
                parts[0]
            )
        })
    }

    fn window_sum(&mut self, depth: usize) -> Query {
        let part = self.query(depth);
        let Some(column) = part.columns.iter().find(|column| matches!(column.kind, Type::Int | Type::Float)).cloned() else { return part };
        let name = self.name();
        let order = self.total_order(&part.columns);
        let Some(partition) = self.partition(&part.columns) else { return part };
        let call = self.pick(&[
            format!("sum({}) OVER (PARTITION BY {partition} ORDER BY {order})", column.name),
            format!("sum({}) OVER (PARTITION BY {partition})", column.name),
            format!("lag({}) OVER (PARTITION BY {partition} ORDER BY {order})", column.name),
        ]);
        let mut columns = part.columns.clone();
        columns.push(Column { name: name.clone(), kind: column.kind });
        node("window sum", vec![part], columns, |parts| format!("SELECT *, {call} AS {name} FROM ({}) AS q", parts[0]))
    }

    /// Functions over frames, by place and by value, of one window or of two.
    fn frame(&mut self, depth: usize) -> Query {
        let part = self.query(depth);
        let Some(column) = part.columns.iter().find(|column| column.kind == Type::Int).cloned() else { return part };
        let (Some(partition), Some(other)) = (self.partition(&part.columns), self.partition(&part.columns)) else { return part };
        let order = self.total_order(&part.columns);
        let of = &column.name;
        let by_value = format!("PARTITION BY {partition} ORDER BY {of}");
        let partition = self.pick(&[&partition, &partition, &other]).clone();
        let alike = [
            format!("count(*) OVER ({by_value} RANGE BETWEEN 1 PRECEDING AND CURRENT ROW)"),
            format!("sum({of}) OVER ({by_value})"),
            format!("max({of}) OVER (PARTITION BY {partition})"),
            format!("count(*) OVER (PARTITION BY {partition}, {of} % 2)"),
            format!("CAST(dense_rank() OVER ({by_value}) AS BIGINT)"),
        ];
        let by_place = [
            format!("sum({of}) OVER (PARTITION BY {partition} ORDER BY {order} ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING)"),
            format!("min({of}) OVER (PARTITION BY {partition} ORDER BY {order} ROWS 1 PRECEDING)"),
            format!("lead({of}, 2, 0) OVER (PARTITION BY {partition} ORDER BY {order})"),
            format!("first_value({of}) OVER (PARTITION BY {partition} ORDER BY {order})"),
            format!("CAST(ntile(2) OVER (PARTITION BY {partition} ORDER BY {order}) AS BIGINT)"),
        ];
        // Two calls by place could number equal rows in different orders.
        let first = if self.rng.random() { self.pick(&alike) } else { self.pick(&by_place) };
        let calls = if self.rng.random() { vec![first] } else { vec![first, self.pick(&alike)] };
        let mut columns = part.columns.clone();
        columns.truncate(3);
        let list = names(&columns);
        let mut items = String::new();
        for call in calls {
            let name = self.name();
            items += &format!(", {call} AS {name}");
            columns.push(Column { name, kind: Type::Int });
        }
        node("frame", vec![part], columns, |parts| format!("SELECT {list}{items} FROM ({}) AS q", parts[0]))
    }

    /// The first row of each key, straight over a table.
    fn distinct_on(&mut self) -> Query {
        // See the aggregates on why it stands over a table.
        let part = if self.rng.random() { self.scan() } else { self.filter(0) };
        let columns = part.columns.clone();
        let list = names(&columns);
        let Some(key) = self.partition(&columns) else { return part };
        let others: Vec<Column> = columns.iter().filter(|column| column.name != key).cloned().collect();
        let order = self.total_order(&others);
        node("distinct on", vec![part], columns, |parts| {
            format!("SELECT DISTINCT ON ({key}) {list} FROM ({}) AS q ORDER BY {key}, {order}", parts[0])
        })
    }

    /// TUMBLE over any relation with a time that is not NULL.
    fn tumble(&mut self, depth: usize) -> Query {
        let part = self.query(depth);
        let Some(time) = part.columns.iter().find(|column| column.kind == Type::Time).map(|column| column.name.clone()) else {
            return part;
        };
        let (start, n) = (self.name(), self.name());
        let columns = vec![Column { name: start.clone(), kind: Type::Time }, Column { name: n.clone(), kind: Type::Int }];
        let mut query = node("tumble", vec![part], columns, |_| String::new());
        let known = |text: &str| format!("SELECT * FROM ({text}) AS k WHERE {time} IS NOT NULL");
        query.sql = format!(
            "SELECT window_start AS {start}, count(*) AS {n} FROM TUMBLE(({}), {time}, INTERVAL '10 seconds') GROUP BY window_start",
            known(&query.parts[0].sql)
        );
        let bin = format!("date_bin(INTERVAL '10 seconds', {time}, CAST('1970-01-01T00:00:00' AS TIMESTAMP))");
        query.batch_sql =
            format!("SELECT {bin} AS {start}, count(*) AS {n} FROM ({}) AS q GROUP BY {bin}", known(&query.parts[0].batch_sql));
        query.groups = 1;
        query
    }

    /// The first groups of each window of a watermarked stream, once.
    fn closed_rank(&mut self) -> Option<Query> {
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
    fn closed(&mut self) -> Option<Query> {
        let at = self.watermarked()?;
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
        query.sql = format!(
            "SELECT window_end AS e, {key} AS k, count(*) AS n, min({key}) AS m FROM TUMBLE({}, {time}, INTERVAL '10 seconds') \
             GROUP BY window_end, {key} EMIT ON WINDOW CLOSE",
            table.name
        );
        let end = format!("date_bin(INTERVAL '10 seconds', {time}, CAST('1970-01-01T00:00:00' AS TIMESTAMP)) + INTERVAL '10 seconds'");
        query.batch_sql =
            format!("SELECT {end} AS e, {key} AS k, count(*) AS n, min({key}) AS m FROM {} GROUP BY {end}, {key}", table.name);
        query.groups = 2;
        query.closes = Some(Closing { watermarks: vec![(at, 0)], column: "e".into(), inclusive: true });
        Some(query)
    }

    /// The first rows of each window, or of each key in it, once the window is final.
    fn closed_places(&mut self) -> Option<Query> {
        let at = self.watermarked()?;
        let table = self.tables[at].clone();
        let (time, key) = (&table.columns.last()?.name, &table.columns[0].name);
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
        query.sql = format!("{} EMIT ON WINDOW CLOSE", text(&format!("TUMBLE({}, {time}, INTERVAL '10 seconds')", table.name)));
        let end = format!("date_bin(INTERVAL '10 seconds', {time}, CAST('1970-01-01T00:00:00' AS TIMESTAMP)) + INTERVAL '10 seconds'");
        query.batch_sql = text(&format!("(SELECT *, {end} AS window_end FROM {}) AS w", table.name));
        query.closes = Some(Closing { watermarks: vec![(at, 0)], column: "e".into(), inclusive: true });
        Some(query)
    }

    /// SESSION over any relation with a time that is not NULL, grouped by its key and the session.
    fn session(&mut self, depth: usize) -> Query {
        let part = self.query(depth);
        let Some(time) = part.columns.iter().find(|column| column.kind == Type::Time).map(|column| column.name.clone()) else {
            return part;
        };
        let Some(key) = self.partition(&part.columns) else { return part };
        let key = part.columns.iter().find(|column| column.name == key).expect("it was just picked").clone();
        let columns: Vec<Column> =
            [key.kind, Type::Time, Type::Time, Type::Int].into_iter().map(|kind| Column { name: self.name(), kind }).collect();
        let gap = format!("INTERVAL '{} seconds'", self.pick(&[4, 10, 17]));
        let having = if self.rng.random_ratio(1, 4) { " HAVING count(*) > 1" } else { "" };
        let [k, start, end, n] = [0, 1, 2, 3].map(|index| columns[index].name.clone());
        let mut query = node("session", vec![part], columns, |_| String::new());
        let known = |text: &str| format!("SELECT * FROM ({text}) AS k WHERE {time} IS NOT NULL");
        let key = &key.name;
        query.sql = format!(
            "SELECT {key} AS {k}, window_start AS {start}, window_end AS {end}, count(*) AS {n} \
             FROM SESSION(({}) PARTITION BY {key}, {time}, {gap}) GROUP BY {key}, window_start, window_end{having}",
            known(&query.parts[0].sql)
        );
        query.batch_sql = format!(
            "SELECT {key} AS {k}, min({time}) AS {start}, max({time}) + {gap} AS {end}, count(*) AS {n} \
             FROM ({}) AS q GROUP BY {key}, session{having}",
            numbered_sessions(&known(&query.parts[0].batch_sql), key, &time, &gap)
        );
        query
    }

    /// Sessions of a watermarked stream, each once.
    fn closed_session(&mut self) -> Option<Query> {
        let at = self.watermarked()?;
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

    /// A scalar expression over columns.
    fn expression(&mut self, columns: &[Column], depth: usize) -> (String, Type) {
        let column = self.pick(columns);
        let name = &column.name;
        if depth == 0 {
            return (name.clone(), column.kind);
        }
        let choice = self.rng.random_range(0..6);
        match (column.kind, choice) {
            (Type::Int, 0) => (format!("{name} + 1"), Type::Int),
            (Type::Int, 1) => (format!("abs({name})"), Type::Int),
            (Type::Int, 2) => (format!("coalesce({name}, 0)"), Type::Int),
            (Type::Float, 0) => (format!("{name} * CAST('0.5' AS DOUBLE)"), Type::Float),
            (Type::Float, 1) => (format!("-{name}"), Type::Float),
            (Type::Text, 0) => (format!("upper({name})"), Type::Text),
            (Type::Text, 1) => (format!("{name} || 'x'"), Type::Text),
            (Type::Text, 2) => (format!("coalesce({name}, 'none')"), Type::Text),
            (Type::Time, 0) => (format!("{name} + INTERVAL '5 seconds'"), Type::Time),
            (Type::Bool, 0) => (format!("NOT {name}"), Type::Bool),
            (_, 3) => {
                let condition = self.condition(columns, 1);
                (format!("CASE WHEN {condition} THEN {name} END"), column.kind)
            }
            (_, 4) => (self.condition(columns, 1), Type::Bool),
            _ => (name.clone(), column.kind),
        }
    }

    /// A truth value over columns.
    fn condition(&mut self, columns: &[Column], depth: usize) -> String {
        if depth > 1 && self.rng.random_ratio(1, 3) {
            let (a, b) = (self.condition(columns, depth - 1), self.condition(columns, depth - 1));
            return self.pick(&[format!("({a} AND {b})"), format!("({a} OR {b})"), format!("NOT ({a})")]);
        }
        let column = self.pick(columns);
        let name = &column.name;
        let literal = match column.kind {
            Type::Int => self.rng.random_range(-1..=3).to_string(),
            Type::Float | Type::Quotient => "CAST('0.25' AS DOUBLE)".into(),
            Type::Text => "'b'".into(),
            Type::Bool => "true".into(),
            Type::Decimal => "CAST('1.25' AS DECIMAL(10, 2))".into(),
            Type::Time => "CAST('2000-01-01T00:00:25' AS TIMESTAMP)".into(),
            Type::Date => "CAST('2000-01-02' AS DATE)".into(),
        };
        self.pick(&[
            format!("({name} >= {literal})"),
            format!("({name} < {literal})"),
            format!("({name} = {literal})"),
            format!("({name} <> {literal})"),
            format!("({name} IS NULL)"),
            format!("({name} IS NOT NULL)"),
            format!("({name} IN ({literal}, {literal}))"),
        ])
    }
}

/// The rows of `text` with the number of their session, in plain SQL.
fn numbered_sessions(text: &str, key: &str, time: &str, gap: &str) -> String {
    let over = format!("OVER (PARTITION BY {key} ORDER BY {time})");
    format!(
        "SELECT *, sum(fresh) {over} AS session FROM \
         (SELECT *, CASE WHEN {time} > lag({time}) {over} + {gap} THEN 1 ELSE 0 END AS fresh FROM ({text}) AS t) AS f"
    )
}

fn names(columns: &[Column]) -> String {
    columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>().join(", ")
}

/// A query whose two texts differ only in the texts of its parts.
fn node(kind: &'static str, parts: Vec<Query>, columns: Vec<Column>, text: impl Fn(&[&str]) -> String) -> Query {
    let own: Vec<&str> = parts.iter().map(|part| part.sql.as_str()).collect();
    let batch: Vec<&str> = parts.iter().map(|part| part.batch_sql.as_str()).collect();
    let (sql, batch_sql) = (text(&own), text(&batch));
    Query { sql, batch_sql, columns, kind, parts, groups: 0, minimums: vec![], closes: None }
}
