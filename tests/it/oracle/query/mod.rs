//! Random queries from a typed grammar. A query is a tree whose every node is a complete SELECT with columns of its own, so that
//! any part of a failing query can be tried by itself.
//!
//! Excluded are queries whose answer is not determined: LIMIT and `row_number` are ordered by all columns, no volatile functions,
//! sums of floats only over values that are exact.

mod aggregates;
mod closed;
mod expressions;
mod joins;
mod sets;
mod windows;

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
    "closed highest",
    "closed join",
    "closed places",
    "closed rank",
    "closed session",
    "closed set",
    "distinct",
    "distinct on",
    "except",
    "except all",
    "exists",
    "filter",
    "first value",
    "frame",
    "full join",
    "global",
    "in",
    "inner join",
    "intersect",
    "intersect all",
    "left join",
    "mark",
    "membership",
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
        let closed = match self.rng.random_range(0..27) {
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
            24..26 => self.closed_highest(),
            26 => self.closed_set(),
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
        match self.rng.random_range(0..46) {
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
            33 => self.membership(below),
            34..36 => self.clock(below),
            36..38 => self.recursion(below),
            38..40 => self.running(below),
            40..42 => self.set_operation(below),
            42..44 => self.version_join(below),
            44 => self.first_value(below),
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
