//! Joins: on equal columns, with the nearest row or version, with what is at rest, and by what there is on the other side.

use super::{Closing, Grammar, Query, names, node};
use crate::oracle::changes::{Kind, Table};
use crate::oracle::values::{Column, Type};
use rand::Rng;

impl Grammar<'_> {
    pub(super) fn join(&mut self, depth: usize) -> Query {
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
    pub(super) fn asof_join(&mut self, depth: usize) -> Query {
        let (left, right) = (self.query(depth), self.query(depth.min(1)));
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
    pub(super) fn asof_times(&mut self, closing: bool) -> Option<Query> {
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
    pub(super) fn version_join(&mut self, depth: usize) -> Query {
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
    pub(super) fn version_times(&mut self, closing: bool) -> Option<Query> {
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
    pub(super) fn versions(&mut self, kind: &'static str, left: Query, right: &Table, [key, time]: [String; 2]) -> Query {
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
    pub(super) fn self_join(&mut self) -> Query {
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
    pub(super) fn further_condition(&mut self, left: &[Column], right: &[Column]) -> String {
        if self.rng.random() {
            return String::new();
        }
        match self.equal_columns(left, right) {
            Some((a, b)) => format!(" AND l.{a} {} r.{b}", self.pick(&["<", ">=", "<>"])),
            None => String::new(),
        }
    }

    pub(super) fn static_join(&mut self, depth: usize) -> Query {
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

    pub(super) fn exists(&mut self, depth: usize) -> Query {
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
    pub(super) fn mark(&mut self, depth: usize) -> Query {
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

    /// IN as a value. The batch answer counts: matches, rows, NULLs.
    pub(super) fn membership(&mut self, depth: usize) -> Query {
        let (part, other) = (self.query(depth), self.query(depth.min(1)));
        let (l, r) = (exact(&part.columns), exact(&other.columns));
        if part.is_single_row() || other.is_single_row() {
            return part;
        }
        let Some((a, b)) = self.equal_columns(&l, &r) else { return part };
        let not = self.pick(&["", "NOT "]);
        let found = self.name();
        let mut columns = part.columns.clone();
        columns.truncate(4);
        let own = columns.iter().map(|column| format!("l.{}", column.name)).collect::<Vec<_>>().join(", ");
        columns.push(Column { name: found.clone(), kind: Type::Bool });
        let mut query = node("membership", vec![part, other], columns, |parts| {
            format!("SELECT {own}, l.{a} {not}IN (SELECT {b} FROM ({}) AS r) AS {found} FROM ({}) AS l", parts[1], parts[0])
        });
        let [left, right] = query.parts.as_slice() else { return query };
        query.batch_sql = format!(
            "SELECT {own}, {not}CASE WHEN m.{b} IS NOT NULL THEN true \
             WHEN (l.{a} IS NULL AND n.number > 0) OR n.nulls > 0 THEN CAST(NULL AS BOOLEAN) ELSE false END AS {found} \
             FROM ({}) AS l LEFT JOIN (SELECT DISTINCT {b} FROM ({right}) AS d WHERE {b} IS NOT NULL) AS m ON l.{a} = m.{b} \
             CROSS JOIN (SELECT count(*) AS number, count(*) - count({b}) AS nulls FROM ({right}) AS c) AS n",
            left.batch_sql,
            right = right.batch_sql
        );
        query
    }

    /// The first value of an order for each row outside. The batch answer numbers the rows.
    pub(super) fn first_value(&mut self, depth: usize) -> Query {
        let (part, other) = (self.query(depth), self.query(depth.min(1)));
        let (l, r) = (exact(&part.columns), exact(&other.columns));
        if part.is_single_row() || other.is_single_row() {
            return part;
        }
        let Some((a, b)) = self.equal_columns(&l, &r) else { return part };
        let (value, key) = (self.pick(&r), self.pick(&r).name);
        let direction = self.pick(&["", " DESC", " NULLS FIRST", " DESC NULLS LAST"]);
        let found = self.name();
        let mut columns = part.columns.clone();
        columns.truncate(4);
        let own = columns.iter().map(|column| format!("l.{}", column.name)).collect::<Vec<_>>().join(", ");
        columns.push(Column { name: found.clone(), kind: value.kind });
        let value = value.name;
        let mut query = node("first value", vec![part, other], columns, |parts| {
            format!(
                "SELECT {own}, (SELECT {value} FROM ({}) AS r WHERE r.{b} = l.{a} ORDER BY {key}{direction} LIMIT 1) AS {found} FROM ({}) AS l",
                parts[1], parts[0]
            )
        });
        let [left, right] = query.parts.as_slice() else { return query };
        query.batch_sql = format!(
            "SELECT {own}, m.value AS {found} FROM ({}) AS l LEFT JOIN (SELECT {b} AS match, {value} AS value, \
             row_number() OVER (PARTITION BY {b} ORDER BY {key}{direction}, {value} NULLS LAST) AS place FROM ({}) AS n) AS m \
             ON l.{a} = m.match AND m.place = 1",
            left.batch_sql, right.batch_sql
        );
        query
    }

    pub(super) fn in_subquery(&mut self, depth: usize) -> Query {
        let (part, other) = (self.query(depth), self.query(depth.min(1)));
        let Some((a, b)) = self.equal_columns(&part.columns, &other.columns) else { return part };
        let (kind, not) = self.pick(&[("in", ""), ("not in", "NOT ")]);
        let columns = part.columns.clone();
        node(kind, vec![part, other], columns, |parts| {
            format!("SELECT * FROM ({}) AS q WHERE {a} {not}IN (SELECT {b} FROM ({}) AS s)", parts[0], parts[1])
        })
    }
}

/// The columns whose values are equal only if they are the same.
fn exact(columns: &[Column]) -> Vec<Column> {
    columns.iter().filter(|column| matches!(column.kind, Type::Int | Type::Text | Type::Time)).cloned().collect()
}
