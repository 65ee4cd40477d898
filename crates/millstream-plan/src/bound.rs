//! Bounds: what a watermark promises about a column, as a function that is evaluated when the watermark has moved.
//!
//! A bound `b` of a column promises that no future change (insertion or retraction) carries a smaller value there. A row
//! whose value is below `b` is final. Bounds are monotone functions of the watermarks of streams, of the epoch number and
//! of the epoch clock.

use crate::error::Result;
use arrow::array::{Array, ListArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::physical_plan::PhysicalExpr;
use millstream_types::{Epoch, EventTime};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What bounds are evaluated from, at the end of an epoch.
#[derive(Clone, Debug)]
pub struct BoundContext {
    /// Watermark of each stream that has one, by name, after the epoch's rows (`W_end`). `MAX` when the stream has ended.
    pub watermarks: BTreeMap<String, EventTime>,
    /// Streams that have ended: everything of them is final.
    pub closed: BTreeSet<String>,
    /// The epoch.
    pub epoch: Epoch,
    /// The reading of the epoch clock.
    pub clock: EventTime,
}

/// The value of a bound.
#[derive(Clone, Debug, PartialEq)]
pub enum BoundValue {
    /// Nothing is final.
    Unknown,
    /// Values below this one are final. Of the column's type.
    Below(ScalarValue),
    /// Everything is final.
    All,
}

/// A monotone function of watermarks, epoch and clock.
#[derive(Clone, Debug)]
pub enum Bound {
    /// The watermark of a stream's event-time column.
    Watermark {
        /// The stream.
        stream: String,
    },
    /// The hidden column `_epoch` of a stream: the next epoch.
    Epoch {
        /// The stream.
        stream: String,
    },
    /// `_epoch_time` and `PROCTIME()` columns: one microsecond after the clock.
    Clock {
        /// The stream.
        stream: String,
    },
    /// A monotone expression of a bounded column.
    Map {
        /// The expression.
        expr: Arc<dyn PhysicalExpr>,
        /// Schema of the batch it is evaluated on: the bounded column alone.
        schema: SchemaRef,
        /// Text of the expression for EXPLAIN and fingerprints.
        text: String,
        /// Bound of that column.
        input: Arc<Bound>,
    },
    /// The same instants or numbers in a column of another type: microseconds of another time zone, a coarser unit.
    Typed {
        /// The column's type.
        data_type: DataType,
        /// The bound.
        input: Arc<Bound>,
    },
    /// Least element of a list-valued bound: `UNNEST` of the windows a row belongs to.
    FirstElement(Arc<Bound>),
    /// The least of several: union, join keys.
    Min(Vec<Arc<Bound>>),
    /// The greatest of several.
    Max(Vec<Arc<Bound>>),
}

impl Bound {
    /// The bound's value.
    ///
    /// # Errors
    /// If the expression of a [`Bound::Map`] fails on the value of its input.
    pub fn evaluate(&self, context: &BoundContext) -> Result<BoundValue> {
        match self {
            Bound::Watermark { stream } => {
                let value = context.watermarks.get(stream).copied().unwrap_or(EventTime::MIN);
                Ok(match value {
                    _ if context.closed.contains(stream) => BoundValue::All,
                    EventTime::MAX => BoundValue::All,
                    EventTime::MIN => BoundValue::Unknown,
                    EventTime(micros) => BoundValue::Below(ScalarValue::TimestampMicrosecond(Some(micros), None)),
                })
            }
            Bound::Epoch { stream } if context.closed.contains(stream) => Ok(BoundValue::All),
            Bound::Epoch { .. } => {
                let next = i64::try_from(context.epoch.0).unwrap_or(i64::MAX).saturating_add(1);
                Ok(BoundValue::Below(ScalarValue::Int64(Some(next))))
            }
            Bound::Clock { stream } if context.closed.contains(stream) => Ok(BoundValue::All),
            Bound::Clock { .. } => Ok(match context.clock {
                EventTime::MIN => BoundValue::Unknown,
                EventTime(micros) => BoundValue::Below(ScalarValue::TimestampMicrosecond(Some(micros.saturating_add(1)), None)),
            }),
            Bound::Map { expr, schema, input, .. } => match input.evaluate(context)? {
                BoundValue::Below(value) => match evaluate_at(expr, schema, &value)? {
                    value if value.is_null() => Ok(BoundValue::Unknown),
                    value => Ok(BoundValue::Below(value)),
                },
                other => Ok(other),
            },
            Bound::Typed { data_type, input } => match input.evaluate(context)? {
                BoundValue::Below(value) => Ok(BoundValue::Below(retype(&value, data_type)?)),
                other => Ok(other),
            },
            Bound::FirstElement(input) => match input.evaluate(context)? {
                BoundValue::Below(ScalarValue::List(list)) => Ok(first_element(&list)?.map_or(BoundValue::Unknown, BoundValue::Below)),
                BoundValue::Below(_) => Ok(BoundValue::Unknown),
                other => Ok(other),
            },
            Bound::Min(inputs) => fold(inputs, context, BoundValue::All, Ordering::Less),
            Bound::Max(inputs) => fold(inputs, context, BoundValue::Unknown, Ordering::Greater),
        }
    }

    /// What `EXPLAIN` says after "bounded by".
    pub fn describe(&self) -> String {
        let list = |name: &str, inputs: &[Arc<Bound>]| {
            let parts: BTreeSet<String> = inputs.iter().map(|input| input.describe()).collect();
            if parts.len() == 1 {
                parts.into_iter().collect()
            } else {
                format!("{name}({})", parts.into_iter().collect::<Vec<_>>().join(", "))
            }
        };
        match self {
            Bound::Watermark { stream } => format!("watermark of {stream}"),
            Bound::Epoch { stream } => format!("epoch of {stream}"),
            Bound::Clock { stream } => format!("clock of {stream}"),
            Bound::Map { input, .. } | Bound::Typed { input, .. } | Bound::FirstElement(input) => input.describe(),
            Bound::Min(inputs) => list("min", inputs),
            Bound::Max(inputs) => list("max", inputs),
        }
    }

    /// A text that is equal for equal bounds and stable across runs, for fingerprints.
    pub fn canonical(&self) -> String {
        let list = |inputs: &[Arc<Bound>]| inputs.iter().map(|input| input.canonical()).collect::<Vec<_>>().join(", ");
        match self {
            Bound::Watermark { .. } | Bound::Epoch { .. } | Bound::Clock { .. } => self.describe(),
            Bound::Map { text, input, .. } => format!("map({text}, {})", input.canonical()),
            Bound::Typed { data_type, input } => format!("typed({data_type}, {})", input.canonical()),
            Bound::FirstElement(input) => format!("first({})", input.canonical()),
            Bound::Min(inputs) => format!("min({})", list(inputs)),
            Bound::Max(inputs) => format!("max({})", list(inputs)),
        }
    }

    /// The streams whose watermark, epoch or clock the bound follows.
    pub fn streams(&self) -> BTreeSet<String> {
        match self {
            Bound::Watermark { stream } | Bound::Epoch { stream } | Bound::Clock { stream } => BTreeSet::from([stream.clone()]),
            Bound::Map { input, .. } | Bound::Typed { input, .. } | Bound::FirstElement(input) => input.streams(),
            Bound::Min(inputs) | Bound::Max(inputs) => inputs.iter().flat_map(|input| input.streams()).collect(),
        }
    }

    /// Whether the bound follows the epoch number alone: what it bounds is final at the end of the very epoch that brought it.
    pub fn is_epoch(&self) -> bool {
        match self {
            Bound::Epoch { .. } => true,
            Bound::Typed { input, .. } => input.is_epoch(),
            Bound::Min(inputs) | Bound::Max(inputs) => inputs.iter().all(|input| input.is_epoch()),
            Bound::Watermark { .. } | Bound::Clock { .. } | Bound::Map { .. } | Bound::FirstElement(_) => false,
        }
    }

    /// Whether the bound follows the clock somewhere: then time alone can make rows final.
    pub fn follows_clock(&self) -> bool {
        match self {
            Bound::Clock { .. } => true,
            Bound::Watermark { .. } | Bound::Epoch { .. } => false,
            Bound::Map { input, .. } | Bound::Typed { input, .. } | Bound::FirstElement(input) => input.follows_clock(),
            Bound::Min(inputs) | Bound::Max(inputs) => inputs.iter().any(|input| input.follows_clock()),
        }
    }
}

impl BoundValue {
    /// Whether a column value is final: smaller than the bound. NULL never is, unless everything is.
    ///
    /// # Errors
    /// If the two cannot be compared, which means that the bound was derived for another type.
    pub fn is_final(&self, value: &ScalarValue) -> Result<bool> {
        match self {
            BoundValue::Unknown => Ok(false),
            BoundValue::All => Ok(true),
            BoundValue::Below(_) if value.is_null() => Ok(false),
            BoundValue::Below(bound) => Ok(value.try_cmp(&retype(bound, &value.data_type())?)? == Ordering::Less),
        }
    }
}

/// Least (`Less`) or greatest (`Greater`) value; `start` is the neutral element.
fn fold(inputs: &[Arc<Bound>], context: &BoundContext, start: BoundValue, keep: Ordering) -> Result<BoundValue> {
    let mut result: Option<BoundValue> = None;
    for input in inputs {
        let value = input.evaluate(context)?;
        let replace = match &result {
            None => true,
            Some(current) => compare(&value, current)? == keep,
        };
        if replace {
            result = Some(value);
        }
    }
    Ok(result.unwrap_or(start))
}

/// `Unknown` is less than every value, `All` greater.
fn compare(a: &BoundValue, b: &BoundValue) -> Result<Ordering> {
    let rank = |value: &BoundValue| match value {
        BoundValue::Unknown => 0,
        BoundValue::Below(_) => 1,
        BoundValue::All => 2,
    };
    match (a, b) {
        (BoundValue::Below(a), BoundValue::Below(b)) => Ok(a.try_cmp(&retype(b, &a.data_type())?)?),
        _ => Ok(rank(a).cmp(&rank(b))),
    }
}

/// The value of `expr` where the only column of `schema` has this value.
fn evaluate_at(expr: &Arc<dyn PhysicalExpr>, schema: &SchemaRef, value: &ScalarValue) -> Result<ScalarValue> {
    let batch = RecordBatch::try_new(Arc::clone(schema), vec![retype(value, schema.field(0).data_type())?.to_array()?])?;
    let result = expr.evaluate(&batch)?.into_array(1)?;
    Ok(ScalarValue::try_from_array(&result, 0)?)
}

fn first_element(list: &ListArray) -> Result<Option<ScalarValue>> {
    if list.is_empty() || list.is_null(0) || list.value_length(0) == 0 {
        return Ok(None);
    }
    let value = ScalarValue::try_from_array(&list.value(0), 0)?;
    Ok((!value.is_null()).then_some(value))
}

/// The value in another type. Timestamps stay the same instant whatever the zone, rounded down to the unit: a smaller bound
/// promises less.
fn retype(value: &ScalarValue, data_type: &DataType) -> Result<ScalarValue> {
    if &value.data_type() == data_type {
        return Ok(value.clone());
    }
    if let (Some(nanos), DataType::Timestamp(unit, zone)) = (instant_nanos(value), data_type) {
        let count = i64::try_from(nanos.div_euclid(unit_nanos(unit))).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX });
        let (count, zone) = (Some(count), zone.clone());
        return Ok(match unit {
            TimeUnit::Second => ScalarValue::TimestampSecond(count, zone),
            TimeUnit::Millisecond => ScalarValue::TimestampMillisecond(count, zone),
            TimeUnit::Microsecond => ScalarValue::TimestampMicrosecond(count, zone),
            TimeUnit::Nanosecond => ScalarValue::TimestampNanosecond(count, zone),
        });
    }
    Ok(value.cast_to(data_type)?)
}

fn instant_nanos(value: &ScalarValue) -> Option<i128> {
    let (count, unit) = match value {
        ScalarValue::TimestampSecond(Some(count), _) => (*count, TimeUnit::Second),
        ScalarValue::TimestampMillisecond(Some(count), _) => (*count, TimeUnit::Millisecond),
        ScalarValue::TimestampMicrosecond(Some(count), _) => (*count, TimeUnit::Microsecond),
        ScalarValue::TimestampNanosecond(Some(count), _) => (*count, TimeUnit::Nanosecond),
        _ => return None,
    };
    Some(i128::from(count) * unit_nanos(&unit))
}

fn unit_nanos(unit: &TimeUnit) -> i128 {
    match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(watermarks: &[(&str, i64)]) -> BoundContext {
        BoundContext {
            watermarks: watermarks.iter().map(|(name, micros)| (name.to_string(), EventTime(*micros))).collect(),
            closed: BTreeSet::from(["done".to_string()]),
            epoch: Epoch(7),
            clock: EventTime(1_000),
        }
    }

    fn watermark(stream: &str) -> Arc<Bound> {
        Arc::new(Bound::Watermark { stream: stream.into() })
    }

    fn below(micros: i64) -> BoundValue {
        BoundValue::Below(ScalarValue::TimestampMicrosecond(Some(micros), None))
    }

    #[test]
    fn leaves() {
        let context = context(&[("a", 5), ("min", i64::MIN), ("max", i64::MAX)]);
        assert_eq!(watermark("a").evaluate(&context).unwrap(), below(5));
        assert_eq!(watermark("min").evaluate(&context).unwrap(), BoundValue::Unknown);
        assert_eq!(watermark("unseen").evaluate(&context).unwrap(), BoundValue::Unknown);
        assert_eq!(watermark("max").evaluate(&context).unwrap(), BoundValue::All);
        assert_eq!(watermark("done").evaluate(&context).unwrap(), BoundValue::All);
        let epoch = Bound::Epoch { stream: "a".into() };
        assert_eq!(epoch.evaluate(&context).unwrap(), BoundValue::Below(ScalarValue::Int64(Some(8))));
        assert_eq!(Bound::Clock { stream: "a".into() }.evaluate(&context).unwrap(), below(1_001));
        assert_eq!(Bound::Clock { stream: "done".into() }.evaluate(&context).unwrap(), BoundValue::All);
    }

    #[test]
    fn min_and_max() {
        let context = context(&[("a", 5), ("b", 9)]);
        let of = |names: &[&str]| names.iter().map(|name| watermark(name)).collect::<Vec<_>>();
        assert_eq!(Bound::Min(of(&["b", "a"])).evaluate(&context).unwrap(), below(5));
        assert_eq!(Bound::Min(of(&["b", "done"])).evaluate(&context).unwrap(), below(9));
        assert_eq!(Bound::Min(of(&["b", "unseen"])).evaluate(&context).unwrap(), BoundValue::Unknown);
        assert_eq!(Bound::Max(of(&["b", "unseen", "a"])).evaluate(&context).unwrap(), below(9));
        assert_eq!(Bound::Max(of(&["b", "done"])).evaluate(&context).unwrap(), BoundValue::All);
    }

    #[test]
    fn coarser_units_round_down() {
        let context = context(&[("a", -1_500)]);
        let bound = Bound::Typed { data_type: DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), input: watermark("a") };
        let expected = ScalarValue::TimestampMillisecond(Some(-2), Some("UTC".into()));
        assert_eq!(bound.evaluate(&context).unwrap(), BoundValue::Below(expected));
    }

    #[test]
    fn finality_of_values() {
        let value = |micros| ScalarValue::TimestampMicrosecond(micros, Some("UTC".into()));
        assert!(below(5).is_final(&value(Some(4))).unwrap());
        assert!(!below(5).is_final(&value(Some(5))).unwrap());
        assert!(!below(5).is_final(&value(None)).unwrap());
        assert!(BoundValue::All.is_final(&value(None)).unwrap());
    }
}
