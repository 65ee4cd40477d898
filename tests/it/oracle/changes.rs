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
    /// The same with event time in the last column; changes behind the watermark are late.
    TimedBag,
    /// `u` and `d` by the first column.
    Upsert,
    /// The same with event time in the last column, so that each change makes or ends a version; those behind the watermark are late.
    Versioned,
}

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
        let kinds = [Kind::AppendOnly, Kind::Watermarked, Kind::Bag, Kind::TimedBag, Kind::Upsert, Kind::Versioned];
        let kind = kinds[rng.random_range(0..kinds.len())];
        let name = |column: usize| format!("t{index}_{}", (b'a' + column as u8) as char);
        let mut columns = vec![Column { name: name(0), kind: Type::Int }];
        for column in 1..rng.random_range(2..=5) {
            columns.push(Column { name: name(column), kind: Type::COLUMNS[rng.random_range(0..Type::COLUMNS.len())] });
        }
        if matches!(kind, Kind::Watermarked | Kind::TimedBag | Kind::Versioned) {
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
                parts.push(format!("WATERMARK FOR {time} AS {time} - INTERVAL '{} seconds'", self.delay_micros() / 1_000_000));
            }
            Kind::Bag | Kind::TimedBag | Kind::Upsert | Kind::Versioned => {
                if matches!(self.kind, Kind::Upsert | Kind::Versioned) {
                    parts[0] += " NOT NULL";
                    parts.push(format!("PRIMARY KEY ({})", self.columns[0].name));
                }
                if matches!(self.kind, Kind::TimedBag | Kind::Versioned) {
                    let time = &self.columns[self.columns.len() - 1].name;
                    parts.push(format!("WATERMARK FOR {time} AS {time} - INTERVAL '{} seconds'", self.delay_micros() / 1_000_000));
                }
                options = ", op_column = 'op'".into();
            }
        }
        format!("CREATE STREAM {} ({}) WITH (connector = 'memory'{options})", self.name, parts.join(", "))
    }

    /// How far its watermark is behind. Changes of keys are late by the row before them, too, so that they need more.
    fn delay_micros(&self) -> i64 {
        match self.kind {
            Kind::Versioned => 45_000_000,
            Kind::TimedBag => 25_000_000,
            _ => 15_000_000,
        }
    }

    /// Columns of a pushed batch.
    pub(super) fn pushed_columns(&self) -> Vec<Column> {
        let mut columns = self.columns.clone();
        if matches!(self.kind, Kind::Bag | Kind::TimedBag | Kind::Upsert | Kind::Versioned) {
            columns.push(Column { name: "op".into(), kind: Type::Text });
        }
        columns
    }

    /// The columns of [`Live::changes`].
    pub(super) fn change_columns(&self) -> Vec<Column> {
        let own = [("change_place", Type::Int), ("change_deletes", Type::Bool)];
        let own = own.into_iter().map(|(name, kind)| Column { name: name.into(), kind });
        self.columns.iter().cloned().chain(own).collect()
    }

    /// The changes of one epoch.
    pub(super) fn changes(&self, rng: &mut SmallRng, epoch: usize, live: &Live) -> Vec<Change> {
        let mut live = live.clone();
        let mut changes = Vec::new();
        for _ in 0..rng.random_range(1..=8) {
            let change = self.change(rng, epoch, &live);
            live.apply(self, std::slice::from_ref(&change));
            // A row that comes twice, and one that comes and goes within the epoch.
            if matches!(self.kind, Kind::Bag | Kind::TimedBag) && rng.random_ratio(1, 8) {
                changes.push(Change { op: "+", row: change.row.clone() });
                changes.push(Change { op: "-", row: change.row.clone() });
            } else if !matches!(self.kind, Kind::Upsert | Kind::Versioned) && change.op != "-" && rng.random_ratio(1, 6) {
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
            Kind::Bag | Kind::TimedBag if delete => Change { op: "-", row: any_live(rng) },
            Kind::Bag => Change { op: "+", row: self.row(rng) },
            Kind::TimedBag => {
                let mut row = self.row(rng);
                let last = row.len() - 1;
                row[last] = event_time(rng, epoch);
                Change { op: "+", row }
            }
            Kind::Upsert if delete => Change { op: "d", row: any_live(rng) },
            Kind::Upsert => {
                let mut row = self.row(rng);
                row[0] = Value::random_known(rng, Type::Int);
                Change { op: "u", row }
            }
            Kind::Versioned => {
                let mut row = if delete { any_live(rng) } else { self.row(rng) };
                let last = row.len() - 1;
                if !delete {
                    row[0] = Value::random_known(rng, Type::Int);
                }
                // Some deletions say when, the others are at the time of the row that they take away.
                row[last] = if delete && rng.random() { Value::Null } else { event_time(rng, epoch) };
                Change { op: if delete { "d" } else { "u" }, row }
            }
            Kind::AppendOnly => Change { op: "", row: self.row(rng) },
            Kind::Watermarked => {
                let mut row = self.row(rng);
                let last = row.len() - 1;
                row[last] = event_time(rng, epoch);
                Change { op: "", row }
            }
        }
    }

    fn row(&self, rng: &mut SmallRng) -> Row {
        self.columns.iter().map(|column| Value::random(rng, column.kind)).collect()
    }
}

/// Time goes on by ten seconds an epoch; rows are up to half a minute behind and a little ahead.
fn event_time(rng: &mut SmallRng, epoch: usize) -> Value {
    Value::Time(BASE_MICROS + (epoch as i64 * 10 - rng.random_range(-5..30)).max(0) * 1_000_000)
}

/// The rows that the edge has accepted, as they stand.
#[derive(Clone, Debug, Default)]
pub(super) struct Live {
    pub(super) rows: Vec<Row>,
    /// The accepted changes of a versioned stream in the order they came: the row, its place, and whether it is a deletion.
    pub(super) changes: Vec<Row>,
    /// Largest event time of an accepted row.
    newest: Option<i64>,
}

impl Live {
    /// One epoch: what is late is decided by the watermark at its start.
    pub(super) fn apply_epoch(&mut self, table: &Table, changes: &[Change]) {
        match table.kind {
            Kind::Watermarked | Kind::TimedBag => {}
            Kind::Versioned => return self.apply_versions(table, changes),
            _ => return self.apply(table, changes),
        }
        let watermark = self.watermark(table);
        let times: Vec<i64> = changes.iter().map(|change| time_of(&change.row)).collect();
        for (change, time) in changes.iter().zip(times) {
            if watermark.is_some_and(|watermark| time < watermark) {
                continue;
            }
            self.apply(table, std::slice::from_ref(change));
            if change.op != "-" {
                self.newest = self.newest.max(Some(time));
            }
        }
    }

    /// One epoch of changes by key: late by the row before a change as well as by the row after it.
    fn apply_versions(&mut self, table: &Table, changes: &[Change]) {
        let watermark = self.watermark(table);
        let is_late = |row: &Row| watermark.is_some_and(|watermark| time_of(row) < watermark);
        for Change { op, row } in changes {
            let before = self.rows.iter().position(|live| live[0] == row[0]);
            let is_delete = *op == "d";
            if before.is_some_and(|before| is_late(&self.rows[before])) || !is_delete && is_late(row) {
                continue;
            }
            let mut change = match before {
                Some(before) => self.rows.swap_remove(before),
                // A deletion of a key that is not there is a bad row.
                None if is_delete => continue,
                None => row.clone(),
            };
            let last = change.len() - 1;
            if !is_delete {
                self.newest = self.newest.max(Some(time_of(row)));
                self.rows.push(row.clone());
                change = row.clone();
            } else if row[last] != Value::Null && !is_late(row) {
                change[last] = row[last].clone();
            }
            change.extend([Value::Int(self.changes.len() as i64), Value::Bool(is_delete)]);
            self.changes.push(change);
        }
    }

    /// Event time below which input counts as complete.
    pub(super) fn watermark(&self, table: &Table) -> Option<i64> {
        self.newest.map(|newest| newest - table.delay_micros())
    }

    fn apply(&mut self, table: &Table, changes: &[Change]) {
        for Change { op, row } in changes {
            match (table.kind, *op) {
                (Kind::Bag | Kind::TimedBag, "-") => {
                    let identity = identity(row);
                    // A deletion of a row that is not there is a bad row.
                    if let Some(at) = self.rows.iter().position(|live| self::identity(live) == identity) {
                        self.rows.swap_remove(at);
                    }
                }
                (Kind::Upsert | Kind::Versioned, op) => {
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
