//! Expressions and conditions, and what consists of nothing else.

use super::{Grammar, Query, node};
use crate::oracle::values::{Column, Type};
use rand::Rng;

impl Grammar<'_> {
    pub(super) fn filter(&mut self, depth: usize) -> Query {
        let part = self.query(depth);
        let condition = self.condition(&part.columns, 2);
        let columns = part.columns.clone();
        node("filter", vec![part], columns, |parts| format!("SELECT * FROM ({}) AS q WHERE {condition}", parts[0]))
    }

    pub(super) fn project(&mut self, depth: usize) -> Query {
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

    /// Conditions on the clock, which goes on by seven seconds an epoch.
    pub(super) fn clock(&mut self, depth: usize) -> Query {
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

    pub(super) fn scalar(&mut self, depth: usize) -> Query {
        let (part, other) = (self.query(depth), self.query(depth.min(1)));
        let no_floats: Vec<Column> = part.columns.iter().filter(|column| column.kind != Type::Float).cloned().collect();
        let Some((a, b)) = self.equal_columns(&no_floats, &other.columns) else { return part };
        let columns = part.columns.clone();
        node("scalar", vec![part, other], columns, |parts| {
            format!("SELECT * FROM ({}) AS q WHERE {a} >= (SELECT max({b}) FROM ({}) AS s)", parts[0], parts[1])
        })
    }

    /// A scalar expression over columns.
    pub(super) fn expression(&mut self, columns: &[Column], depth: usize) -> (String, Type) {
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
    pub(super) fn condition(&mut self, columns: &[Column], depth: usize) -> String {
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
