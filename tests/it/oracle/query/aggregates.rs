//! GROUP BY, aggregates of all rows, DISTINCT.

use super::{Grammar, Query, names, node};
use crate::oracle::values::{Column, Type};
use rand::Rng;

impl Grammar<'_> {
    pub(super) fn aggregate(&mut self, depth: usize) -> Query {
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

    pub(super) fn global(&mut self, depth: usize) -> Query {
        let part = self.query(depth);
        let (mut columns, mut items) = (Vec::new(), Vec::new());
        let minimums = self.aggregates(&part, &mut columns, &mut items);
        let mut query = node("global", vec![part], columns, |parts| format!("SELECT {} FROM ({}) AS q", items.join(", "), parts[0]));
        query.minimums = minimums;
        query
    }

    /// One to three aggregates; the places of `min`.
    pub(super) fn aggregates(&mut self, part: &Query, columns: &mut Vec<Column>, items: &mut Vec<String>) -> Vec<usize> {
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

    pub(super) fn distinct(&mut self, depth: usize) -> Query {
        let part = self.query(depth);
        let count = self.rng.random_range(1..=part.columns.len().min(2));
        let columns = part.columns[..count].to_vec();
        let list = names(&columns);
        node("distinct", vec![part], columns, |parts| format!("SELECT DISTINCT {list} FROM ({}) AS q", parts[0]))
    }

    /// The first row of each key, straight over a table.
    pub(super) fn distinct_on(&mut self) -> Query {
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
}
