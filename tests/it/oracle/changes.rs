//! Random tables and how they change: a walk that keeps the live rows, and the model of what the edge accepts.

use super::values::{BASE_MICROS, Column, Row, Type, Value};
use rand::Rng;
use rand::rngs::SmallRng;

/// What a stream may do to its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Rows only come.
    AppendOnly,
    /// Rows only come, and those behind the watermark are late.
    Watermarked,
    /// `+` and `-` of full rows.
    Bag,
    /// `u` and `d` by the first column.
    Upsert,
}

/// The delay of a watermarked stream.
pub(super) const DELAY_MICROS: i64 = 15_000_000;

/// A stream.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) columns: Vec<Column>,
}

/// One pushed row: its op (empty without an op column) and its values.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Change {
    pub(super) op: &'static str,
    pub(super) row: Row,
}

impl Table {
    /// A random table.
    pub(super) fn generate(rng: &mut SmallRng, index: usize) -> Self {
        let kind = [Kind::AppendOnly, Kind::Watermarked, Kind::Bag, Kind::Upsert][rng.random_range(0..4)];
        let name = |column: usize| format!("t{index}_{}", (b'a' + column as u8) as char);
        let mut columns = vec![Column { name: name(0), kind: Type::Int }];
        for column in 1..rng.random_range(2..=5) {
            columns.push(Column { name: name(column), kind: Type::COLUMNS[rng.random_range(0..Type::COLUMNS.len())] });
        }
        if kind == Kind::Watermarked {
            columns.push(Column { name: format!("t{index}_ts"), kind: Type::Time });
        }
        Table { name: format!("t{index}"), kind, columns }
    }

    /// The statement that creates it.
    pub(super) fn definition(&self) -> String {
        let mut parts: Vec<String> = self.columns.iter().map(|column| format!("{} {}", column.name, column.kind.sql())).collect();
        let mut options = String::new();
        match self.kind {
            Kind::AppendOnly => {}
            Kind::Watermarked => {
                let time = &self.columns[self.columns.len() - 1].name;
                let last = parts.len() - 1;
                parts[last] += " NOT NULL";
                parts.push(format!("WATERMARK FOR {time} AS {time} - INTERVAL '{} seconds'", DELAY_MICROS / 1_000_000));
            }
            Kind::Bag | Kind::Upsert => {
                if self.kind == Kind::Upsert {
                    parts[0] += " NOT NULL";
                    parts.push(format!("PRIMARY KEY ({})", self.columns[0].name));
                }
                options = ", op_column = 'op'".into();
            }
        }
        format!("CREATE STREAM {} ({}) WITH (connector = 'memory'{options})", self.name, parts.join(", "))
    }

    /// Columns of a pushed batch.
    pub(super) fn pushed_columns(&self) -> Vec<Column> {
        let mut columns = self.columns.clone();
        if matches!(self.kind, Kind::Bag | Kind::Upsert) {
            columns.push(Column { name: "op".into(), kind: Type::Text });
        }
        columns
    }

    /// The changes of one epoch.
    pub(super) fn changes(&self, rng: &mut SmallRng, epoch: usize, live: &Live) -> Vec<Change> {
        let mut live = live.clone();
        let mut changes = Vec::new();
        for _ in 0..rng.random_range(1..=8) {
            let change = self.change(rng, epoch, &live);
            live.apply(self, std::slice::from_ref(&change));
            // A row that comes twice, and one that comes and goes within the epoch.
            if self.kind == Kind::Bag && rng.random_ratio(1, 8) {
                changes.push(Change { op: "+", row: change.row.clone() });
                changes.push(Change { op: "-", row: change.row.clone() });
            } else if self.kind != Kind::Upsert && change.op != "-" && rng.random_ratio(1, 6) {
                live.apply(self, std::slice::from_ref(&change));
                changes.push(change.clone());
            }
            changes.push(change);
        }
        changes
    }

    fn change(&self, rng: &mut SmallRng, epoch: usize, live: &Live) -> Change {
        let delete = !live.rows.is_empty() && rng.random_ratio(2, 5);
        let any_live = |rng: &mut SmallRng| live.rows[rng.random_range(0..live.rows.len())].clone();
        match self.kind {
            Kind::Bag if delete => Change { op: "-", row: any_live(rng) },
            Kind::Bag => Change { op: "+", row: self.row(rng) },
            Kind::Upsert if delete => Change { op: "d", row: any_live(rng) },
            Kind::Upsert => {
                let mut row = self.row(rng);
                row[0] = Value::random_known(rng, Type::Int);
                Change { op: "u", row }
            }
            Kind::AppendOnly => Change { op: "", row: self.row(rng) },
            Kind::Watermarked => {
                let mut row = self.row(rng);
                let last = row.len() - 1;
                // Time goes on by ten seconds an epoch; rows are up to half a minute behind and a little ahead.
                row[last] = Value::Time(BASE_MICROS + (epoch as i64 * 10 - rng.random_range(-5..30)).max(0) * 1_000_000);
                Change { op: "", row }
            }
        }
    }

    fn row(&self, rng: &mut SmallRng) -> Row {
        self.columns.iter().map(|column| Value::random(rng, column.kind)).collect()
    }
}

/// The rows that the edge has accepted, as they stand.
#[derive(Clone, Debug, Default)]
pub(super) struct Live {
    pub(super) rows: Vec<Row>,
    /// Largest event time of an accepted row.
    newest: Option<i64>,
}

impl Live {
    /// One epoch: what is late is decided by the watermark at its start.
    pub(super) fn apply_epoch(&mut self, table: &Table, changes: &[Change]) {
        if table.kind != Kind::Watermarked {
            return self.apply(table, changes);
        }
        let watermark = self.watermark();
        let times: Vec<i64> = changes.iter().map(|change| time_of(&change.row)).collect();
        for (change, time) in changes.iter().zip(times) {
            if watermark.is_none_or(|watermark| time >= watermark) {
                self.rows.push(change.row.clone());
                self.newest = self.newest.max(Some(time));
            }
        }
    }

    /// Event time below which input counts as complete.
    pub(super) fn watermark(&self) -> Option<i64> {
        self.newest.map(|newest| newest - DELAY_MICROS)
    }

    fn apply(&mut self, table: &Table, changes: &[Change]) {
        for Change { op, row } in changes {
            match (table.kind, *op) {
                (Kind::Bag, "-") => {
                    let identity = identity(row);
                    // A deletion of a row that is not there is a bad row.
                    if let Some(at) = self.rows.iter().position(|live| self::identity(live) == identity) {
                        self.rows.swap_remove(at);
                    }
                }
                (Kind::Upsert, op) => {
                    self.rows.retain(|live| live[0] != row[0]);
                    if op != "d" {
                        self.rows.push(row.clone());
                    }
                }
                _ => self.rows.push(row.clone()),
            }
        }
    }
}

fn time_of(row: &Row) -> i64 {
    match row.last() {
        Some(Value::Time(time)) => *time,
        other => unreachable!("the last column of a watermarked table is a time, not {other:?}"),
    }
}

fn identity(row: &Row) -> Vec<String> {
    row.iter().map(Value::identity).collect()
}
