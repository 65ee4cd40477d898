//! The values of one generated column.

use super::alias_table::AliasTable;
use crate::error::{ConnectorError, Result};
use crate::sources::pace::Pace;
use crate::sources::random::{Noise, mix, scale, to_unit};
use arrow::array::{
    Array, ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int64Array, StringViewArray, StringViewBuilder,
    TimestampMicrosecondArray, UInt32Array, make_array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::{CastOptions, cast_with_options, take};
use arrow::datatypes::DataType;
use std::fmt::Write;
use std::sync::Arc;

/// A rule that gives integers.
#[derive(Debug, Clone)]
pub(super) enum Integers {
    /// `min + (n * step) mod cycle`; without a cycle it goes on for ever.
    Sequence { min: i64, step: i64, cycle: Option<u64> },
    /// Evenly from `min` up; `span` values, 0 standing for all 2^64.
    Uniform { min: i64, span: u64 },
    /// By rank from `min` up.
    Zipf { min: i64, table: Arc<AliasTable> },
}

/// The rule of a column.
#[derive(Debug, Clone)]
pub(super) enum Rule {
    /// Integers of any width.
    Integers(Integers),
    /// Decimals by their unscaled value.
    Decimals(Integers),
    /// Points in time or days, drawn evenly (microseconds).
    Times(Integers),
    /// Strings: a prefix and an integer; `names` holds all of them where they are few, starting with the one of `min`.
    Names { integers: Integers, prefix: String, names: Option<(i64, StringViewArray)> },
    /// Fractions drawn evenly from `[min, max)`.
    Fractions { min: f64, max: f64 },
    /// `min + n * step`.
    FractionSequence { min: f64, step: f64 },
    /// Normally distributed fractions.
    Normal { mean: f64, stddev: f64 },
    /// True with this chance.
    Booleans { share: f64 },
    /// One of these values.
    Choice { values: ArrayRef, table: Arc<AliasTable> },
    /// Event times: `start` (or that of the stream) plus `n` steps (or the pace's), up to `disorder_us` earlier.
    EventTimes { start_us: Option<i64>, step_us: Option<f64>, disorder_us: u64 },
}

/// A generated column.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) data_type: DataType,
    pub(super) rule: Rule,
    pub(super) nulls: f64,
    pub(super) noise: Noise,
}

/// What a column's values depend on besides their number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    pub(super) start_us: i64,
    pub(super) pace: Pace,
}

impl Integers {
    fn value(&self, noise: Noise, n: u64) -> i64 {
        match self {
            Integers::Sequence { min, step, cycle } => {
                let offset = i128::from(n) * i128::from(*step);
                let offset = cycle.map_or(offset, |cycle| offset.rem_euclid(i128::from(cycle)));
                i64::try_from(i128::from(*min) + offset).unwrap_or(if *step < 0 { i64::MIN } else { i64::MAX })
            }
            Integers::Uniform { min, span: 0 } => min.wrapping_add(noise.bits(n) as i64),
            Integers::Uniform { min, span } => min.wrapping_add(scale(noise.bits(n), *span) as i64),
            Integers::Zipf { min, table } => min + i64::from(table.draw(noise.bits(n))),
        }
    }

    fn values(&self, noise: Noise, first: u64, rows: usize) -> Vec<i64> {
        let numbers = first..first + rows as u64;
        // One loop per rule, so that the compiler can unroll it.
        match self {
            Integers::Sequence { min, step, cycle: None } if numbers.end < 1 << 40 && step.unsigned_abs() < 1 << 20 => {
                numbers.map(|n| min.saturating_add(n as i64 * step)).collect()
            }
            Integers::Uniform { min, span } if *span != 0 => {
                numbers.map(|n| min.wrapping_add(scale(noise.bits(n), *span) as i64)).collect()
            }
            Integers::Zipf { min, table } => numbers.map(|n| min + i64::from(table.draw(noise.bits(n)))).collect(),
            _ => numbers.map(|n| self.value(noise, n)).collect(),
        }
    }
}

impl Column {
    /// The values of `rows` rows from row `first`.
    ///
    /// # Errors
    /// `Data` when a sequence leaves the range of the column's type.
    pub(super) fn values(&self, start: Start, first: u64, rows: usize) -> Result<ArrayRef> {
        let noise = self.noise;
        let numbers = || first..first + rows as u64;
        let raw: ArrayRef = match &self.rule {
            Rule::Integers(rule) => Arc::new(Int64Array::from(rule.values(noise, first, rows))),
            Rule::Times(rule) => Arc::new(TimestampMicrosecondArray::from(rule.values(noise, first, rows))),
            Rule::Decimals(rule) => {
                let values = Decimal128Array::from_iter_values(rule.values(noise, first, rows).into_iter().map(i128::from));
                let DataType::Decimal128(precision, scale) = self.data_type else {
                    return Err(ConnectorError::internal("generating decimals", format!("column type {}", self.data_type)));
                };
                Arc::new(values.with_precision_and_scale(precision, scale).map_err(|error| self.failed(first, &error.to_string()))?)
            }
            Rule::Names { integers, prefix, names } => match names {
                Some((min, names)) => {
                    let indices = integers.values(noise, first, rows).into_iter().map(|value| (value - min) as u32);
                    take(names, &UInt32Array::from_iter_values(indices), None)
                        .map_err(|error| ConnectorError::internal("generating strings", error))?
                }
                None => Arc::new(spell(prefix, integers.values(noise, first, rows))),
            },
            Rule::Fractions { min, max } => {
                Arc::new(Float64Array::from_iter_values(numbers().map(|n| min + (max - min) * to_unit(noise.bits(n)))))
            }
            Rule::FractionSequence { min, step } => Arc::new(Float64Array::from_iter_values(numbers().map(|n| min + step * n as f64))),
            Rule::Normal { mean, stddev } => {
                Arc::new(Float64Array::from_iter_values(numbers().map(|n| mean + stddev * normal(noise.bits(n)))))
            }
            Rule::Booleans { share } => {
                Arc::new(BooleanArray::from(BooleanBuffer::collect_bool(rows, |index| to_unit(noise.bits(first + index as u64)) < *share)))
            }
            Rule::Choice { values, table } => {
                let indices = UInt32Array::from_iter_values(numbers().map(|n| table.draw(noise.bits(n))));
                take(values, &indices, None).map_err(|error| ConnectorError::internal("generating choices", error))?
            }
            Rule::EventTimes { start_us, step_us, disorder_us } => {
                let base = start_us.unwrap_or(start.start_us);
                let pace = step_us.map_or(start.pace, |spacing_us| Pace::Unlimited { spacing_us });
                let time = |n: u64| base.saturating_add(pace.time_of(n));
                Arc::new(match *disorder_us {
                    0 => TimestampMicrosecondArray::from_iter_values(numbers().map(time)),
                    bound => {
                        TimestampMicrosecondArray::from_iter_values(numbers().map(|n| time(n) - scale(noise.bits(n), bound + 1) as i64))
                    }
                })
            }
        };
        let typed = match raw.data_type() == &self.data_type {
            true => raw,
            false => cast_with_options(&raw, &self.data_type, &CastOptions { safe: false, ..CastOptions::default() })
                .map_err(|error| self.failed(first, &error.to_string()))?,
        };
        Ok(self.with_nulls(typed, first))
    }

    fn with_nulls(&self, values: ArrayRef, first: u64) -> ArrayRef {
        if self.nulls == 0.0 {
            return values;
        }
        let valid = BooleanBuffer::collect_bool(values.len(), |index| to_unit(mix(!self.noise.bits(first + index as u64))) >= self.nulls);
        let nulls = NullBuffer::union(values.nulls(), Some(&NullBuffer::new(valid)));
        match values.to_data().into_builder().nulls(nulls).build() {
            Ok(data) => make_array(data),
            // The same buffers with another validity of the same length always build.
            Err(_) => values,
        }
    }

    fn failed(&self, first: u64, problem: &str) -> ConnectorError {
        ConnectorError::Data {
            place: format!("column \"{}\" generated from row {first}", self.name),
            problem: format!("has a value that does not fit: {problem}"),
            hint: Some(format!("Choose a wider type or limit it by {}.max.", self.name)),
        }
    }
}

/// All strings of a rule with few values.
pub(super) fn spell_all(prefix: &str, min: i64, count: u64) -> StringViewArray {
    spell(prefix, (0..count as i64).map(|index| min + index))
}

fn spell(prefix: &str, values: impl IntoIterator<Item = i64>) -> StringViewArray {
    let values = values.into_iter();
    let mut builder = StringViewBuilder::with_capacity(values.size_hint().0);
    let mut text = String::from(prefix);
    for value in values {
        text.truncate(prefix.len());
        // Writing to a string does not fail.
        let _ = write!(text, "{value}");
        builder.append_value(&text);
    }
    builder.finish()
}

/// A normally distributed number (Box and Muller, 1958).
fn normal(bits: u64) -> f64 {
    let radius = (-2.0 * (1.0 - to_unit(bits)).ln()).sqrt();
    radius * (std::f64::consts::TAU * to_unit(mix(bits ^ u64::MAX))).cos()
}
