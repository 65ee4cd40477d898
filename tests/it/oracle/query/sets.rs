//! Set operations, recursion, first rows.

use super::{Grammar, Query, names, node};
use crate::oracle::values::{Column, Type};
use rand::Rng;

impl Grammar<'_> {
    /// What follows from pairs of numbers, round by round. Those of UNION ALL end after two rounds.
    pub(super) fn recursion(&mut self, depth: usize) -> Query {
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

    pub(super) fn set_operation(&mut self, depth: usize) -> Query {
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

    pub(super) fn union(&mut self, depth: usize) -> Query {
        let (kind, keyword) = self.pick(&[("union", "UNION"), ("union all", "UNION ALL")]);
        self.two_of_one_type(depth, kind, keyword)
    }

    pub(super) fn two_of_one_type(&mut self, depth: usize, kind: &'static str, keyword: &str) -> Query {
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

    pub(super) fn top(&mut self, depth: usize) -> Query {
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
}
