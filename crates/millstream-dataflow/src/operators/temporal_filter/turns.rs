//! When conditions on the clock turn for a row.
//!
//! A condition turns once, so the instant is found by bisection: the condition itself is evaluated at instants between now and
//! the end of the year 9999, for all rows of a batch at a time. Nothing needs to be known about it but the direction, and the instant is
//! right to the microsecond whatever it computes with. For the common comparison of a time with the clock plus or minus a fixed length,
//! the distance between the two sides now is also the distance to the instant: three evaluations confirm it, and the search is over.
//!
//! An evaluation far ahead may fail (nanoseconds end in the year 2262, an addition overflows). Then the search stops short of it, and
//! what has not turned by there is looked at again then.

use crate::columns::{Narrowed, evaluate, take_columns};
use crate::error::{DataflowError, Result};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::prep_null_mask_filter;
use arrow::datatypes::{
    DataType, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use datafusion::common::DFSchema;
use datafusion::common::cast::as_boolean_array;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use datafusion::physical_plan::PhysicalExpr;
use millstream_plan::compile::compile_all;
use millstream_plan::graph::Node;
use millstream_plan::temporal::over_clock;
use std::sync::Arc;

/// Stands for an instant that does not come.
pub(super) const NEVER: i64 = i64::MAX;
/// 9999-12-31T23:59:59.999999, the last instant that is looked at.
const LATEST: i64 = 253_402_300_799_999_999;
/// 2262-01-01T00:00:00, shortly before a count of nanoseconds overflows.
const LATEST_NANOS: i64 = 9_214_646_400_000_000;

/// What becomes of the rows of a batch.
pub(super) struct Lives {
    /// By row: whether it is shown now.
    pub(super) inside: Vec<bool>,
    /// By row: the first instant from now at which that may change, or [`NEVER`].
    pub(super) next: Vec<i64>,
}

/// All conditions.
pub(super) struct Conditions {
    rising: Vec<Condition>,
    falling: Vec<Condition>,
    /// Number of columns of the input; the next one is the clock.
    width: usize,
}

struct Condition {
    rises: bool,
    truth: Narrowed,
    /// Both sides of a comparison of times.
    sides: Option<Narrowed>,
}

/// The instants at which rows turn.
struct Turns {
    at: Vec<i64>,
    /// Whether they are the instants themselves; otherwise some are only looked at again then.
    exact: bool,
}

/// The clock, the same for all rows or one reading for each.
enum Clocks<'a> {
    One(i64),
    Each(&'a [i64]),
}

impl Conditions {
    pub(super) fn new(rising: &[Expr], falling: &[Expr], input: &Node, state: &SessionState) -> Result<Self> {
        let all = |exprs: &[Expr], rises: bool| -> Result<Vec<Condition>> {
            let (exprs, schema) = over_clock(exprs, &input.df_schema)?;
            exprs.iter().map(|expr| Condition::new(expr, rises, &schema, state)).collect()
        };
        Ok(Self { rising: all(rising, true)?, falling: all(falling, false)?, width: input.schema.fields().len() })
    }

    /// What becomes of rows, seen from `now`.
    pub(super) fn lives(&self, batch: &RecordBatch, now: i64) -> Result<Lives> {
        let rows = batch.num_rows();
        let mut alive = BooleanArray::from(vec![true; rows]);
        for condition in &self.falling {
            alive = arrow::compute::and(&alive, &self.truth(condition, batch, &Clocks::One(now))?)?;
        }
        let mut lives = Lives { inside: alive.values().iter().collect(), next: vec![NEVER; rows] };
        let mut enter = vec![now; rows];
        let mut exact = true;
        for condition in &self.rising {
            let truth = self.truth(condition, batch, &Clocks::One(now))?;
            let ahead: Vec<u32> = (0..rows).filter(|row| alive.value(*row) && !truth.value(*row)).map(|row| row as u32).collect();
            let turns = self.turns(condition, batch, ahead.clone(), now)?;
            exact &= turns.exact;
            for (row, at) in ahead.into_iter().zip(turns.at) {
                lives.inside[row as usize] = false;
                enter[row as usize] = enter[row as usize].max(at);
            }
        }
        let mut leave = vec![NEVER; rows];
        for condition in &self.falling {
            let ahead: Vec<u32> = (0..rows).filter(|row| alive.value(*row) && enter[*row] != NEVER).map(|row| row as u32).collect();
            let turns = self.turns(condition, batch, ahead.clone(), now)?;
            exact &= turns.exact;
            for (row, at) in ahead.into_iter().zip(turns.at) {
                leave[row as usize] = leave[row as usize].min(at);
            }
        }
        for row in 0..rows {
            lives.next[row] = match (alive.value(row), lives.inside[row]) {
                (false, _) => NEVER,
                (true, true) => leave[row],
                // It would leave before it enters.
                (true, false) if exact && leave[row] <= enter[row] => NEVER,
                (true, false) => enter[row],
            };
        }
        Ok(lives)
    }

    /// When a condition turns for rows for which it has not turned by `now`.
    fn turns(&self, condition: &Condition, batch: &RecordBatch, rows: Vec<u32>, now: i64) -> Result<Turns> {
        let count = rows.len();
        if count == 0 || now >= LATEST {
            return Ok(Turns { at: vec![NEVER; count], exact: true });
        }
        let batch = picked(batch, rows)?;
        let (horizon, turned) = self.horizon(condition, &batch, now)?;
        let exact = horizon == LATEST;
        let mut at = vec![if exact { NEVER } else { horizon }; count];
        let open: Vec<u32> = (0..count as u32).filter(|row| turned.value(*row as usize) == condition.rises).collect();
        let batch = if open.len() == count { batch } else { picked(&batch, open.clone())? };
        // It has not turned at `low`, and has at `high`.
        let (mut low, mut high) = (vec![now; open.len()], vec![horizon; open.len()]);
        self.guess(condition, &batch, now, &mut low, &mut high)?;
        self.bisect(condition, &batch, &mut low, &mut high)?;
        open.into_iter().zip(high).for_each(|(row, instant)| at[row as usize] = instant);
        Ok(Turns { at, exact })
    }

    /// The farthest instant at which the condition can be evaluated, and its values there.
    fn horizon(&self, condition: &Condition, batch: &RecordBatch, now: i64) -> Result<(i64, BooleanArray)> {
        // Two years, twelve days, an hour, four seconds, and the next microsecond.
        let near = [46, 40, 32, 22, 0].map(|bits| now.saturating_add(1 << bits));
        let mut failure = None;
        for instant in [LATEST, LATEST_NANOS].into_iter().chain(near).filter(|instant| *instant > now) {
            match self.truth(condition, batch, &Clocks::One(instant)) {
                Ok(truth) => return Ok((instant, truth)),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| DataflowError::internal("there is no instant to look at")))
    }

    /// Narrows the search to what the distance of both sides says, where that is true.
    fn guess(&self, condition: &Condition, batch: &RecordBatch, now: i64, low: &mut [i64], high: &mut [i64]) -> Result<()> {
        let Some(sides) = &condition.sides else { return Ok(()) };
        let input = self.input(sides, batch, &Clocks::One(now))?;
        let times = sides.exprs.iter().map(|side| Ok(micros(&evaluate(side, &input)?))).collect::<Result<Vec<_>>>()?;
        let [left, right] = times.as_slice() else { return Ok(()) };
        let distance = |row: usize| left.get(row).copied().flatten().zip(right.get(row).copied().flatten()).map(|(a, b)| a.abs_diff(b));
        let near: Vec<i64> = (0..low.len())
            .map(|row| distance(row).and_then(|distance| now.checked_add_unsigned(distance)).unwrap_or(now))
            .zip(low.iter().zip(high.iter()))
            .map(|(guess, (low, high))| guess.clamp(*low, *high))
            .collect();
        for offset in [-1, 0, 1] {
            let at: Vec<i64> =
                near.iter().zip(low.iter().zip(high.iter())).map(|(at, (low, high))| (at + offset).clamp(*low, *high)).collect();
            self.probe(condition, batch, &at, low, high)?;
        }
        Ok(())
    }

    fn bisect(&self, condition: &Condition, batch: &RecordBatch, low: &mut [i64], high: &mut [i64]) -> Result<()> {
        let open: Vec<u32> = (0..low.len()).filter(|row| high[*row] - low[*row] > 1).map(|row| row as u32).collect();
        if open.is_empty() {
            return Ok(());
        }
        let batch = picked(batch, open.clone())?;
        let of_open = |all: &[i64]| open.iter().map(|row| all[*row as usize]).collect::<Vec<_>>();
        let (mut lows, mut highs) = (of_open(low), of_open(high));
        while lows.iter().zip(&highs).any(|(low, high)| high - low > 1) {
            let middle: Vec<i64> = lows.iter().zip(&highs).map(|(low, high)| low + (high - low) / 2).collect();
            self.probe(condition, &batch, &middle, &mut lows, &mut highs)?;
        }
        for (place, row) in open.into_iter().enumerate() {
            (low[row as usize], high[row as usize]) = (lows[place], highs[place]);
        }
        Ok(())
    }

    /// Evaluates the condition at an instant of each row, between what is known.
    fn probe(&self, condition: &Condition, batch: &RecordBatch, at: &[i64], low: &mut [i64], high: &mut [i64]) -> Result<()> {
        let truth = self.truth(condition, batch, &Clocks::Each(at))?;
        for (row, at) in at.iter().enumerate() {
            match truth.value(row) == condition.rises {
                true => high[row] = *at,
                false => low[row] = *at,
            }
        }
        Ok(())
    }

    /// The condition at the reading of the clock; NULL is false.
    fn truth(&self, condition: &Condition, batch: &RecordBatch, clocks: &Clocks<'_>) -> Result<BooleanArray> {
        let input = self.input(&condition.truth, batch, clocks)?;
        let values = evaluate(&condition.truth.exprs[0], &input)?;
        let values = as_boolean_array(&values)?;
        Ok(if values.null_count() > 0 { prep_null_mask_filter(values) } else { values.clone() })
    }

    /// The columns that expressions read, the clock among them.
    fn input(&self, narrowed: &Narrowed, batch: &RecordBatch, clocks: &Clocks<'_>) -> Result<RecordBatch> {
        let clock = || -> ArrayRef {
            let readings = match clocks {
                Clocks::One(reading) => TimestampMicrosecondArray::from_value(*reading, batch.num_rows()),
                Clocks::Each(readings) => TimestampMicrosecondArray::from(readings.to_vec()),
            };
            Arc::new(readings.with_timezone("UTC"))
        };
        let column = |column: &usize| if *column == self.width { clock() } else { Arc::clone(batch.column(*column)) };
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&narrowed.schema), narrowed.columns.iter().map(column).collect(), &options)?)
    }
}

impl Condition {
    fn new(expr: &Expr, rises: bool, schema: &DFSchema, state: &SessionState) -> Result<Self> {
        // Not every producer keeps to NOT NULL as strictly as a batch does.
        let input: SchemaRef = nullable(schema.inner());
        let narrowed = |exprs: &[Expr]| Narrowed::new(&compile_all(exprs, schema, state)?, &input);
        let sides = match expr {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq, right }) => {
                let sides = compile_all(&[left.as_ref().clone(), right.as_ref().clone()], schema, state)?;
                let is_time = |side: &Arc<dyn PhysicalExpr>| {
                    side.data_type(&input).is_ok_and(|data_type| matches!(data_type, DataType::Timestamp(..)))
                };
                if sides.iter().all(is_time) { Some(Narrowed::new(&sides, &input)?) } else { None }
            }
            _ => None,
        };
        Ok(Self { rises, truth: narrowed(std::slice::from_ref(expr))?, sides })
    }
}

fn nullable(schema: &SchemaRef) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect::<Vec<_>>()))
}

/// Rows of a batch, which may have no columns.
fn picked(batch: &RecordBatch, rows: Vec<u32>) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    let columns = take_columns(batch.columns(), &UInt32Array::from(rows))?;
    Ok(RecordBatch::try_new_with_options(batch.schema(), columns, &options)?)
}

/// Times in microseconds; none for another type.
fn micros(times: &ArrayRef) -> Vec<Option<i64>> {
    match times.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => scaled(times.as_primitive::<TimestampSecondType>().iter(), 1_000_000),
        DataType::Timestamp(TimeUnit::Millisecond, _) => scaled(times.as_primitive::<TimestampMillisecondType>().iter(), 1_000),
        DataType::Timestamp(TimeUnit::Microsecond, _) => times.as_primitive::<TimestampMicrosecondType>().iter().collect(),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            times.as_primitive::<TimestampNanosecondType>().iter().map(|time| time.map(|nanos| nanos.div_euclid(1_000))).collect()
        }
        _ => vec![],
    }
}

fn scaled(times: impl Iterator<Item = Option<i64>>, factor: i64) -> Vec<Option<i64>> {
    times.map(|time| time.and_then(|time| time.checked_mul(factor))).collect()
}
