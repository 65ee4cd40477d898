//! SESSION windows: rows of a key that follow each other within a gap.
//!
//! ```sql
//! FROM SESSION(bids PARTITION BY bidder, ts, INTERVAL '10 seconds')
//! -- becomes
//! FROM (SELECT *, window_end - INTERVAL '1 microsecond' AS window_time
//!       FROM (SELECT *, session_start(ts, INTERVAL '10 seconds') OVER (PARTITION BY bidder ORDER BY ts) AS window_start,
//!                       session_end(ts, INTERVAL '10 seconds') OVER (PARTITION BY bidder ORDER BY ts) AS window_end
//!             FROM bids)) AS bids
//! ```
//! A row that comes more than the gap after the row before it starts a session; its end is its last row plus the gap. Unlike the
//! other windows a session is no function of its row, so its functions are window functions, which a batch runs as they are and
//! the planner of continuous queries knows by name.
//!
//! Also read: several keys in parentheses or after the gap (`SESSION(t, ts, gap, a, b)`), no key at all, Flink's
//! `TABLE(SESSION(TABLE t PARTITION BY k, DESCRIPTOR(ts), INTERVAL '10' SECOND))` and its older form with the keys in a
//! second DESCRIPTOR, and named arguments. `GROUP BY SESSION(ts, gap)` and `session_window(ts, gap)` are in `group_window.rs`.

use sqlparser::ast::{Expr, FunctionArg, FunctionArgExpr, Query, Spanned, TableAlias, TableFactor};
use sqlparser::tokenizer::Span;

use super::window::{interval_text, parse_time};
use super::window_tvf::{Call, relation_factor};
use super::{argument_order, derived, plain_call, template, unnamed_argument};
use crate::dialect::PARTITIONED_ARGUMENT;
use crate::error::{Result, SqlError};
use crate::literal::{WindowLength, parse_interval};

const USAGE: &str = "Write `SESSION(relation PARTITION BY key, ts, gap)`; the key may be left out or be a list in parentheses.";
const GROUP_USAGE: &str = "Write `GROUP BY key, SESSION(ts, gap)`.";

/// A session window, checked.
#[derive(Clone, Debug)]
pub(super) struct SessionWindow {
    /// The time column.
    time: Expr,
    gap: WindowLength,
    /// What sessions are apart by; none: all rows are of one key.
    keys: Vec<Expr>,
}

impl SessionWindow {
    fn new(time: &Expr, gap: &Expr, keys: Vec<Expr>) -> Result<Self> {
        let time = parse_time(time, "SESSION")?;
        let length = parse_interval(gap)?;
        let example = "Give a length above zero in days or shorter units, for example INTERVAL '10 minutes'.";
        if !length.is_positive() {
            return Err(SqlError::new(format!("the gap of SESSION is {}, which is not positive", interval_text(length)))
                .with_hint(example)
                .at(gap.span()));
        }
        if length.fixed_micros().is_none() {
            return Err(SqlError::new(format!("the gap {} of SESSION has no fixed length", interval_text(length)))
                .with_hint(example)
                .at(gap.span()));
        }
        Ok(Self { time, gap: length, keys })
    }

    /// The window of `GROUP BY SESSION(ts, gap)` or `session_window(ts, gap)`, without keys as yet.
    pub(super) fn of_group(args: &[FunctionArg], word: &str, span: Span) -> Result<Self> {
        match args {
            [time, gap] => match (unnamed_argument(time), unnamed_argument(gap)) {
                (Some(time), Some(gap)) => Self::new(time, gap, vec![]),
                _ => Err(SqlError::new(format!("{word} in GROUP BY takes no named arguments")).with_hint(GROUP_USAGE).at(span)),
            },
            _ => Err(SqlError::new(format!("{word} in GROUP BY takes a time column and a gap")).with_hint(GROUP_USAGE).at(span)),
        }
    }

    /// The same with keys.
    pub(super) fn with_keys(self, keys: Vec<Expr>) -> Self {
        Self { keys, ..self }
    }

    /// `SELECT *, .. AS window_start, .. AS window_end, .. AS window_time FROM relation WHERE condition`.
    fn over(&self, relation: TableFactor, condition: Option<&Expr>) -> Query {
        let names: Vec<String> = (0..self.keys.len()).map(|index| format!("__key{index}")).collect();
        let partition = if names.is_empty() { String::new() } else { format!("PARTITION BY {} ", names.join(", ")) };
        let call = |function: &str| format!("{function}(__time, {}) OVER ({partition}ORDER BY __time)", self.gap.to_sql());
        let sql = format!(
            "SELECT *, window_end - INTERVAL '1 microsecond' AS window_time \
             FROM (SELECT *, {} AS window_start, {} AS window_end FROM __relation{})",
            call("session_start"),
            call("session_end"),
            if condition.is_some() { " WHERE __condition" } else { "" }
        );
        let mut expressions: Vec<(&str, &Expr)> = names.iter().map(String::as_str).zip(&self.keys).collect();
        expressions.push(("__time", &self.time));
        expressions.extend(condition.map(|condition| ("__condition", condition)));
        template(&sql, relation, &expressions)
    }

    /// The same as a table factor. Rows that do not meet the condition are of no session.
    pub(super) fn factor(&self, relation: TableFactor, condition: Option<&Expr>, alias: Option<TableAlias>) -> TableFactor {
        derived(self.over(relation, condition), alias)
    }
}

/// The derived table that a call of SESSION after FROM stands for.
pub(super) fn derived_table(call: &Call<'_>) -> Result<TableFactor> {
    let arguments = Arguments::read(call)?;
    let window = SessionWindow::new(arguments.time, arguments.gap, arguments.keys)?;
    let (relation, default_alias) = relation_factor(arguments.relation, "SESSION")?;
    Ok(window.factor(relation, None, call.alias.cloned().or(default_alias)))
}

/// The arguments of a call after FROM.
struct Arguments<'a> {
    relation: &'a Expr,
    time: &'a Expr,
    gap: &'a Expr,
    keys: Vec<Expr>,
}

impl<'a> Arguments<'a> {
    fn read(call: &Call<'a>) -> Result<Self> {
        let mut places: [Option<&'a Expr>; 3] = [None; 3];
        let mut keys: Vec<Expr> = Vec::new();
        let mut named = false;
        for argument in call.args {
            match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => {
                    if named {
                        return Err(SqlError::new("an argument of SESSION without a name follows one with a name")
                            .with_hint(USAGE)
                            .at(expr.span()));
                    }
                    match (places.iter().position(Option::is_none), descriptor(expr)) {
                        // Flink's older form: the keys stand in a DESCRIPTOR before the gap.
                        (Some(2) | None, Some(columns)) => keys.extend(columns),
                        (Some(place), _) => places[place] = Some(expr),
                        (None, None) => keys.push(expr.clone()),
                    }
                }
                FunctionArg::Named { name, arg: FunctionArgExpr::Expr(expr), .. } => {
                    named = true;
                    let place = match name.value.to_lowercase().as_str() {
                        "data" | "relation" | "table" => 0,
                        "timecol" | "time" | "ts" | "time_column" => 1,
                        "gap" => 2,
                        _ => {
                            return Err(SqlError::new(format!("SESSION has no argument \"{}\"", name.value))
                                .with_hint(USAGE)
                                .at(name.span));
                        }
                    };
                    if places[place].replace(expr).is_some() {
                        return Err(SqlError::new(format!("argument \"{}\" of SESSION is given twice", name.value))
                            .with_hint(USAGE)
                            .at(name.span));
                    }
                }
                other => return Err(SqlError::new(format!("SESSION takes no argument {other}")).with_hint(USAGE).at(call.span)),
            }
        }
        let required = |place: usize, what: &str| {
            places[place].ok_or_else(|| SqlError::new(format!("SESSION has no {what}")).with_hint(USAGE).at(call.span))
        };
        let mut relation = required(0, "relation")?;
        let time = required(1, "time column")?;
        let gap = required(2, "gap")?;
        if let Some((word, _, args)) = plain_call(relation)
            && word == PARTITIONED_ARGUMENT
        {
            if !argument_order(relation).is_empty() {
                return Err(SqlError::new("SESSION takes no ORDER BY: sessions are in the order of the time column")
                    .with_hint(USAGE)
                    .at(relation.span()));
            }
            let mut args = args.iter().filter_map(unnamed_argument);
            relation = args.next().ok_or_else(|| SqlError::new("SESSION has no relation").with_hint(USAGE).at(call.span))?;
            if !keys.is_empty() {
                return Err(SqlError::new("the key of SESSION is given twice").with_hint(USAGE).at(call.span));
            }
            keys = args.cloned().collect();
        }
        Ok(Self { relation, time, gap, keys })
    }
}

/// The columns of `DESCRIPTOR(a, b)`.
fn descriptor(expr: &Expr) -> Option<Vec<Expr>> {
    let (word, _, args) = plain_call(expr)?;
    (word == "descriptor").then(|| args.iter().filter_map(unnamed_argument).cloned().collect())
}
