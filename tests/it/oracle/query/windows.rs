//! Window functions, and windows of time over any relation.

use super::{Grammar, Query, names, node};
use crate::oracle::values::{Column, Type};
use rand::Rng;

impl Grammar<'_> {
    /// Functions that look back in the order of time, in which rows come as a rule.
    pub(super) fn running(&mut self, depth: usize) -> Query {
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

    pub(super) fn rank(&mut self, depth: usize) -> Query {
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

    pub(super) fn window_sum(&mut self, depth: usize) -> Query {
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
    pub(super) fn frame(&mut self, depth: usize) -> Query {
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

    /// TUMBLE over any relation with a time that is not NULL.
    pub(super) fn tumble(&mut self, depth: usize) -> Query {
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

    /// SESSION over any relation with a time that is not NULL, grouped by its key and the session.
    pub(super) fn session(&mut self, depth: usize) -> Query {
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

    pub(super) fn total_order(&mut self, columns: &[Column]) -> String {
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
    pub(super) fn partition(&mut self, columns: &[Column]) -> Option<String> {
        let of: Vec<&Column> = columns.iter().filter(|column| !matches!(column.kind, Type::Float | Type::Quotient)).collect();
        if of.is_empty() { None } else { Some(self.pick(&of).name.clone()) }
    }
}

/// The rows of `text` with the number of their session, in plain SQL.
pub(super) fn numbered_sessions(text: &str, key: &str, time: &str, gap: &str) -> String {
    let over = format!("OVER (PARTITION BY {key} ORDER BY {time})");
    format!(
        "SELECT *, sum(fresh) {over} AS session FROM \
         (SELECT *, CASE WHEN {time} > lag({time}) {over} + {gap} THEN 1 ELSE 0 END AS fresh FROM ({text}) AS t) AS f"
    )
}
