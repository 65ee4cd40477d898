//! Reads the rules of the columns from the options.

use super::alias_table::{AliasTable, MAX_OUTCOMES};
use super::column::{Column, Integers, Rule, spell_all};
use crate::error::{ConnectorError, Result};
use crate::sources::random::Noise;
use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Decimal128Type, Field};
use millstream_types::{OptionError, Options};
use std::sync::Arc;

/// Strings of so few values are made once and shared.
const MAX_SHARED_NAMES: u64 = 1 << 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Random,
    Sequence,
    Zipf,
    Normal,
    Choice,
    Timestamp,
}

const RANDOM: (&str, Kind) = ("random", Kind::Random);
const SEQUENCE: (&str, Kind) = ("sequence", Kind::Sequence);
const ZIPF: (&str, Kind) = ("zipf", Kind::Zipf);
const NORMAL: (&str, Kind) = ("normal", Kind::Normal);
const CHOICE: (&str, Kind) = ("choice", Kind::Choice);
const TIMESTAMP: (&str, Kind) = ("timestamp", Kind::Timestamp);

/// The options whose names start with a column's name.
struct ColumnOptions<'a> {
    options: &'a mut Options,
    column: String,
}

impl ColumnOptions<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.column)
    }

    fn has(&self, name: &str) -> bool {
        self.options.peek(&self.key(name)).is_some()
    }

    fn text(&mut self, name: &str) -> Option<String> {
        let key = self.key(name);
        self.options.take(&key)
    }

    fn number<T: std::str::FromStr>(&mut self, name: &str, expected: &str) -> Result<Option<T>> {
        let key = self.key(name);
        Ok(self.options.parse(&key, expected)?)
    }

    fn finite(&mut self, name: &str) -> Result<Option<f64>> {
        match self.number::<f64>(name, "a number")? {
            Some(value) if !value.is_finite() => Err(self.wrong(name, &value.to_string(), "a finite number")),
            value => Ok(value),
        }
    }

    fn share(&mut self, name: &str) -> Result<Option<f64>> {
        match self.number::<f64>(name, "a share between 0 and 1")? {
            Some(value) if !(0.0..=1.0).contains(&value) => Err(self.wrong(name, &value.to_string(), "a share between 0 and 1")),
            value => Ok(value),
        }
    }

    fn duration_us(&mut self, name: &str) -> Result<Option<i64>> {
        let key = self.key(name);
        Ok(self.options.duration(&key)?.map(|value| i64::try_from(value.as_micros()).unwrap_or(i64::MAX)))
    }

    fn time_us(&mut self, name: &str) -> Result<Option<i64>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match string_to_timestamp_nanos(text.trim()) {
            Ok(nanos) => Ok(Some(nanos.div_euclid(1_000))),
            Err(_) => Err(self.wrong(name, &text, "a timestamp such as '2024-01-01T00:00:00Z'")),
        }
    }

    fn wrong(&self, name: &str, value: &str, expected: &str) -> ConnectorError {
        OptionError::Value { owner: self.options.owner().into(), name: self.key(name), value: value.into(), expected: expected.into() }
            .into()
    }

    fn kind(&mut self, legal: &[(&str, Kind)], default: Kind) -> Result<Kind> {
        let default = if self.has("choices") { Kind::Choice } else { default };
        let key = self.key("kind");
        Ok(self.options.choice(&key, legal)?.unwrap_or(default))
    }

    /// The integer rule of a kind, within the range of the column's type.
    fn integers(&mut self, kind: Kind, type_min: i64, type_max: i64) -> Result<Integers> {
        let min = self.number::<i64>("min", "an integer")?.unwrap_or(0);
        if kind == Kind::Sequence {
            let step = self.number::<i64>("step", "an integer")?.unwrap_or(1);
            let max = self.number::<i64>("max", "an integer")?;
            let cycle = match max {
                Some(max) if max < min => return Err(self.wrong("max", &max.to_string(), "at least the minimum")),
                // A cycle over all 64-bit integers is none.
                Some(max) => u64::try_from(i128::from(max) - i128::from(min) + 1).ok(),
                None => None,
            };
            return Ok(Integers::Sequence { min, step, cycle });
        }
        let max = self.number::<i64>("max", "an integer")?.unwrap_or_else(|| min.saturating_add(999).min(type_max));
        if max < min || min < type_min || max > type_max {
            return Err(self.wrong("max", &max.to_string(), &format!("between the minimum {} and {type_max}", min.max(type_min))));
        }
        let count = i128::from(max) - i128::from(min) + 1;
        match kind {
            Kind::Zipf => {
                let exponent = self.finite("exponent")?.unwrap_or(1.0);
                let outcomes = u64::try_from(count).ok().filter(|count| *count <= MAX_OUTCOMES).ok_or_else(|| {
                    self.wrong("max", &max.to_string(), &format!("at most {} above the minimum, as zipf keeps a table", MAX_OUTCOMES - 1))
                })?;
                Ok(Integers::Zipf { min, table: Arc::new(AliasTable::zipf(outcomes, exponent)) })
            }
            // 2^64 values wrap to 0, which stands for all of them.
            _ => Ok(Integers::Uniform { min, span: count as u64 }),
        }
    }

    fn choice(&mut self, data_type: &DataType) -> Result<Rule> {
        let key = self.key("choices");
        let text = self.options.require(&key)?;
        let texts: Vec<&str> = text.split(',').map(str::trim).collect();
        let strings: ArrayRef = Arc::new(StringArray::from(texts.clone()));
        let values = cast_with_options(&strings, data_type, &CastOptions { safe: false, ..CastOptions::default() })
            .map_err(|_| self.wrong("choices", &text, &format!("a list of {data_type} values separated by commas")))?;
        let weights = match self.text("weights") {
            None => vec![1.0; texts.len()],
            Some(text) => {
                let weights: Option<Vec<f64>> = text
                    .split(',')
                    .map(|weight| weight.trim().parse().ok().filter(|weight: &f64| weight.is_finite() && *weight >= 0.0))
                    .collect();
                weights
                    .filter(|weights| weights.len() == texts.len() && weights.iter().any(|weight| *weight > 0.0))
                    .ok_or_else(|| self.wrong("weights", &text, "one weight per choice"))?
            }
        };
        Ok(Rule::Choice { values, table: Arc::new(AliasTable::new(&weights)) })
    }

    fn fractions(&mut self) -> Result<Rule> {
        Ok(match self.kind(&[RANDOM, SEQUENCE, NORMAL, CHOICE], Kind::Random)? {
            Kind::Sequence => Rule::FractionSequence { min: self.finite("min")?.unwrap_or(0.0), step: self.finite("step")?.unwrap_or(1.0) },
            Kind::Normal => Rule::Normal { mean: self.finite("mean")?.unwrap_or(0.0), stddev: self.finite("stddev")?.unwrap_or(1.0) },
            Kind::Choice => self.choice(&DataType::Float64)?,
            _ => {
                let min = self.finite("min")?.unwrap_or(0.0);
                let max = self.finite("max")?.unwrap_or(min + 1.0);
                if max < min {
                    return Err(self.wrong("max", &max.to_string(), "at least the minimum"));
                }
                Rule::Fractions { min, max }
            }
        })
    }

    fn decimals(&mut self, data_type: &DataType) -> Result<Rule> {
        let DataType::Decimal128(precision, _) = *data_type else { return self.choice(data_type) };
        if self.kind(&[RANDOM, CHOICE], Kind::Random)? == Kind::Choice {
            return self.choice(data_type);
        }
        let largest = 10i128.checked_pow(u32::from(precision)).map_or(i64::MAX, |bound| i64::try_from(bound - 1).unwrap_or(i64::MAX));
        let min = self.unscaled("min", "0", data_type)?.unwrap_or(0);
        let max = self.unscaled("max", "100", data_type)?.unwrap_or(largest);
        if max < min {
            return Err(self.wrong("max", &max.to_string(), "at least the minimum"));
        }
        Ok(Rule::Decimals(Integers::Uniform { min, span: (i128::from(max) - i128::from(min) + 1) as u64 }))
    }

    /// The unscaled value of a decimal option; `None` where the default does not fit the type.
    fn unscaled(&mut self, name: &str, default: &str, data_type: &DataType) -> Result<Option<i64>> {
        let given = self.text(name);
        let text: ArrayRef = Arc::new(StringArray::from(vec![given.as_deref().unwrap_or(default).trim()]));
        let value = cast_with_options(&text, data_type, &CastOptions { safe: false, ..CastOptions::default() })
            .ok()
            .and_then(|value| i64::try_from(value.as_primitive::<Decimal128Type>().value(0)).ok());
        match (value, given) {
            (None, Some(given)) => Err(self.wrong(name, &given, &format!("a {data_type} below 2^63 units of its last digit"))),
            (value, _) => Ok(value),
        }
    }

    fn times(&mut self) -> Result<Rule> {
        if self.kind(&[TIMESTAMP, RANDOM], Kind::Timestamp)? == Kind::Random {
            let min = self.time_us("min")?.unwrap_or(0);
            // A day, where nothing else is said.
            let max = self.time_us("max")?.unwrap_or_else(|| min.saturating_add(86_399_999_999));
            if max < min {
                return Err(self.wrong("max", &max.to_string(), "at least the minimum"));
            }
            return Ok(Rule::Times(Integers::Uniform { min, span: (i128::from(max) - i128::from(min) + 1) as u64 }));
        }
        Ok(Rule::EventTimes {
            start_us: self.time_us("start")?,
            step_us: self.duration_us("step")?.map(|step| step as f64),
            disorder_us: self.duration_us("disorder")?.unwrap_or(0).min(i64::MAX / 4) as u64,
        })
    }

    fn names(&mut self, column: &str) -> Result<Rule> {
        let kind = self.kind(&[RANDOM, SEQUENCE, ZIPF, CHOICE], Kind::Random)?;
        if kind == Kind::Choice {
            return self.choice(&DataType::Utf8View);
        }
        let prefix = self.text("prefix").unwrap_or_else(|| format!("{column}-"));
        let integers = self.integers(kind, i64::MIN, i64::MAX)?;
        let few = match &integers {
            Integers::Uniform { min, span } => Some((*min, *span)),
            Integers::Zipf { min, table } => Some((*min, table.len())),
            Integers::Sequence { .. } => None,
        };
        let names =
            few.filter(|(_, count)| (1..=MAX_SHARED_NAMES).contains(count)).map(|(min, count)| (min, spell_all(&prefix, min, count)));
        Ok(Rule::Names { integers, prefix, names })
    }
}

/// The rule of a column, from its options or its type.
///
/// # Errors
/// When an option has no legal value or the type has no rule.
pub(super) fn column(options: &mut Options, stream: &str, field: &Field, seed: u64) -> Result<Column> {
    let name = field.name().to_lowercase();
    let noise = Noise::new(seed, &name);
    let mut own = ColumnOptions { options, column: name };
    let data_type = field.data_type();
    let rule = match data_type {
        DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64 => {
            let (min, max) = integer_range(data_type);
            match own.kind(&[RANDOM, SEQUENCE, ZIPF, CHOICE], Kind::Random)? {
                Kind::Choice => own.choice(data_type)?,
                kind => Rule::Integers(own.integers(kind, min, max)?),
            }
        }
        DataType::Float32 | DataType::Float64 => own.fractions()?,
        DataType::Decimal128(..) | DataType::Decimal256(..) => own.decimals(data_type)?,
        DataType::Boolean => match own.kind(&[RANDOM, CHOICE], Kind::Random)? {
            Kind::Choice => own.choice(data_type)?,
            _ => Rule::Booleans { share: own.share("share")?.unwrap_or(0.5) },
        },
        DataType::Utf8View | DataType::Utf8 | DataType::LargeUtf8 => own.names(field.name())?,
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 if own.has("choices") => {
            own.kind(&[CHOICE], Kind::Choice)?;
            own.choice(data_type)?
        }
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => own.times()?,
        other => {
            return Err(ConnectorError::invalid(
                format!("column \"{}\" of generator stream \"{stream}\" has type {other}, for which there is no rule", field.name()),
                "Compute it AS an expression over the metadata column n.",
            ));
        }
    };
    let nulls = own.share("nulls")?.unwrap_or(0.0);
    if nulls > 0.0 && !field.is_nullable() {
        return Err(own.wrong("nulls", &nulls.to_string(), "0, as the column is NOT NULL"));
    }
    Ok(Column { name: field.name().clone(), data_type: data_type.clone(), rule, nulls, noise })
}

/// The values of an integer type, as far as 64 signed bits hold them.
fn integer_range(data_type: &DataType) -> (i64, i64) {
    match data_type {
        DataType::Int8 => (i8::MIN.into(), i8::MAX.into()),
        DataType::Int16 => (i16::MIN.into(), i16::MAX.into()),
        DataType::Int32 => (i32::MIN.into(), i32::MAX.into()),
        DataType::UInt8 => (0, u8::MAX.into()),
        DataType::UInt16 => (0, u16::MAX.into()),
        DataType::UInt32 => (0, u32::MAX.into()),
        DataType::UInt64 => (0, i64::MAX),
        _ => (i64::MIN, i64::MAX),
    }
}
