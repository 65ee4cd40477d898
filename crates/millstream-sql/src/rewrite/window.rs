//! What the window functions have in common: how long, from where, in which time zone.
//!
//! A window of fixed length in UTC is `date_bin`, which the optimizer knows. Months, days in a time zone, and offsets need
//! functions of ours. An origin is an offset from 1970-01-01.

use sqlparser::ast::{Expr, Ident, Spanned, TableFactor, TypedString, Value, ValueWithSpan};
use sqlparser::tokenizer::Span;

use super::{derived, template, template_expr};
use crate::error::{Result, SqlError};
use crate::literal::{WindowLength, parse_interval, parse_timestamp};
use crate::visit::each_expr_mut;

/// The kinds of windows that become plain SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WindowKind {
    Tumble,
    Hop,
    Cumulate,
}

impl WindowKind {
    pub(super) fn sql(self) -> &'static str {
        match self {
            WindowKind::Tumble => "TUMBLE",
            WindowKind::Hop => "HOP",
            WindowKind::Cumulate => "CUMULATE",
        }
    }

    /// The name of the argument beside `size`.
    pub(super) fn step_name(self) -> &'static str {
        if self == WindowKind::Cumulate { "step" } else { "slide" }
    }
}

/// One window function, checked.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) kind: WindowKind,
    /// The time column.
    pub(super) time: Expr,
    pub(super) size: WindowLength,
    /// The slide of HOP, the step of CUMULATE; the size of TUMBLE.
    pub(super) step: WindowLength,
    pub(super) offset: WindowLength,
    /// A time zone other than UTC.
    pub(super) zone: Option<String>,
}

impl Window {
    /// Checks lengths and offset against each other. `span` is where the function stands.
    pub(super) fn checked(self, span: Span) -> Result<Self> {
        let name = self.kind.sql();
        if !self.size.is_positive() || !self.step.is_positive() {
            let (what, length) = if self.size.is_positive() { (self.kind.step_name(), self.step) } else { ("size", self.size) };
            return Err(SqlError::new(format!("the {what} of {name} is {}, which is not positive", interval_text(length)))
                .with_hint("Write a length above zero, for example INTERVAL '10 seconds'.")
                .at(span));
        }
        for length in [self.size, self.step] {
            if length.months != 0 && (length.days != 0 || length.micros != 0) {
                return Err(SqlError::new(format!("the length {} of {name} mixes months with shorter units", interval_text(length)))
                    .with_hint("A window is either whole months or a length in days and below.")
                    .at(span));
            }
        }
        if (self.size.months == 0) != (self.step.months == 0) {
            return Err(SqlError::new(format!("{} and size of {name} are not both months", self.kind.step_name()))
                .with_hint("Give both in months or years, or both in days and shorter units.")
                .at(span));
        }
        if self.offset.months != 0 && self.size.months == 0 {
            return Err(SqlError::new(format!("the offset {} of {name} is in months", interval_text(self.offset)))
                .with_hint("Give the offset in the units of the window.")
                .at(span));
        }
        if self.kind == WindowKind::Cumulate && !divides(self.step, self.size) {
            return Err(SqlError::new(format!(
                "the size of CUMULATE is {}, no multiple of its step {}",
                interval_text(self.size),
                interval_text(self.step)
            ))
            .with_hint("A window grows by the step until it has the size: write CUMULATE(relation, ts, step, size).")
            .at(span));
        }
        Ok(self)
    }

    /// True if every window has the same length and `date_bin` finds its start.
    fn is_fixed(&self) -> bool {
        self.zone.is_none() && self.size.months == 0
    }

    fn zone_sql(&self) -> String {
        format!("'{}'", self.zone.as_deref().unwrap_or("UTC").replace('\'', "''"))
    }

    /// The start of the TUMBLE window of `size` that `time` is in.
    fn tumble_start(&self, time: &str) -> String {
        let size = self.size.to_sql();
        let offset = match self.size.fixed_micros().zip(self.offset.fixed_micros()).filter(|_| self.is_fixed()) {
            // Offsets that differ by whole windows are the same.
            Some((size, offset)) => WindowLength { micros: offset.rem_euclid(size), ..WindowLength::default() },
            None => self.offset,
        };
        // With an origin `date_bin` would turn the time into nanoseconds.
        if self.is_fixed() && offset == WindowLength::default() {
            return format!("date_bin({size}, {time})");
        }
        format!("tumble_start({time}, {size}, {}, {})", offset.to_sql(), self.zone_sql())
    }

    fn end_of(&self, start: &str) -> String {
        let size = self.size.to_sql();
        if self.is_fixed() { format!("{start} + {size}") } else { format!("window_end({start}, {size}, {})", self.zone_sql()) }
    }

    /// `SELECT *, .. AS window_start, .. AS window_end, .. AS window_time FROM relation`.
    pub(super) fn over(&self, relation: TableFactor) -> sqlparser::ast::Query {
        let lists = || format!("{}, {}, {}, {}", self.step.to_sql(), self.size.to_sql(), self.offset.to_sql(), self.zone_sql());
        let end = self.end_of("window_start");
        let sql = match self.kind {
            WindowKind::Tumble => format!(
                "SELECT *, {end} AS window_end, {end} - INTERVAL '1 microsecond' AS window_time \
                 FROM (SELECT *, {} AS window_start FROM __relation)",
                self.tumble_start("__time")
            ),
            WindowKind::Hop => format!(
                "SELECT *, {end} AS window_end, {end} - INTERVAL '1 microsecond' AS window_time \
                 FROM (SELECT *, unnest(hop_starts(__time, {})) AS window_start FROM __relation)",
                lists()
            ),
            WindowKind::Cumulate => format!(
                "SELECT *, window_end - INTERVAL '1 microsecond' AS window_time \
                 FROM (SELECT *, {} AS window_start, unnest(cumulate_ends(__time, {})) AS window_end FROM __relation)",
                self.tumble_start("__time"),
                lists()
            ),
        };
        template(&sql, relation, &[("__time", &self.time)])
    }

    /// The same as a table factor.
    pub(super) fn factor(&self, relation: TableFactor, alias: Option<sqlparser::ast::TableAlias>) -> TableFactor {
        derived(self.over(relation), alias)
    }

    /// Start, end and time of a TUMBLE window as expressions over the time column.
    pub(super) fn expressions(&self) -> [Expr; 3] {
        let fill = |sql: &str| {
            let mut expr = template_expr(sql);
            each_expr_mut(&mut expr, &mut |expr| {
                if matches!(expr, Expr::Identifier(ident) if ident.value == "__time") {
                    *expr = self.time.clone();
                }
            });
            expr
        };
        let start = self.tumble_start("__time");
        let end = self.end_of(&start);
        [fill(&start), fill(&end), fill(&format!("{end} - INTERVAL '1 microsecond'"))]
    }
}

/// True if `size` is a multiple of `step`.
fn divides(step: WindowLength, size: WindowLength) -> bool {
    match (step.fixed_micros(), size.fixed_micros()) {
        (Some(step), Some(size)) => size % step == 0,
        _ => size.months % step.months.max(1) == 0,
    }
}

/// True if `slide` is longer than `size`.
pub(super) fn is_longer(slide: WindowLength, size: WindowLength) -> bool {
    match (slide.fixed_micros(), size.fixed_micros()) {
        (Some(slide), Some(size)) => slide > size,
        _ => slide.months > size.months,
    }
}

/// The interval in quotes: `'10 seconds'`.
pub(super) fn interval_text(length: WindowLength) -> String {
    length.to_sql().trim_start_matches("INTERVAL ").to_owned()
}

/// An offset as an interval, or an origin as a timestamp.
pub(super) fn parse_offset(expr: &Expr) -> Result<WindowLength> {
    let text = match expr {
        Expr::TypedString(TypedString { value: ValueWithSpan { value: Value::SingleQuotedString(text), .. }, .. }) => Some(text),
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) => Some(text),
        _ => None,
    };
    if let Some(micros) = text.and_then(|text| parse_timestamp(text)) {
        return Ok(WindowLength { micros, ..WindowLength::default() });
    }
    parse_interval(expr).map_err(|error| {
        SqlError { hint: None, ..error }
            .with_hint("An offset is an interval, INTERVAL '1 hour'; an origin is a timestamp, TIMESTAMP '2000-01-01 00:00:00'.")
            .at(expr.span())
    })
}

/// A time zone literal; `None` for UTC.
pub(super) fn parse_zone(expr: &Expr) -> Result<Option<String>> {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(zone), .. }) => {
            let is_utc = ["utc", "z", "+00:00", "etc/utc"].iter().any(|utc| zone.eq_ignore_ascii_case(utc));
            Ok((!is_utc).then(|| zone.clone()))
        }
        _ => Err(SqlError::new(format!("the time zone {expr} is not a string"))
            .with_hint("Write `time_zone => 'Europe/Berlin'`.")
            .at(expr.span())),
    }
}

/// A column as the time argument: `ts`, `b.ts` or `DESCRIPTOR(ts)`.
pub(super) fn parse_time(expr: &Expr, function: &str) -> Result<Expr> {
    match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => Ok(expr.clone()),
        Expr::Nested(inner) => parse_time(inner, function),
        _ => {
            if let Some((name, _, [argument])) = super::plain_call(expr)
                && name == "descriptor"
                && let Some(column) = super::unnamed_argument(argument)
            {
                return parse_time(column, function);
            }
            Err(SqlError::new(format!("the time of {function} is {expr}, which is not a column"))
                .with_hint(
                    "Name the event-time column; compute it in a subquery where it is not one: `(SELECT *, to_timestamp(s) AS ts FROM t)`.",
                )
                .at(expr.span()))
        }
    }
}

/// A column of the windowed relation.
pub(super) fn window_column(name: &str, qualifier: Option<&Ident>) -> Expr {
    match qualifier {
        Some(qualifier) => Expr::CompoundIdentifier(vec![qualifier.clone(), Ident::new(name)]),
        None => Expr::Identifier(Ident::new(name)),
    }
}
