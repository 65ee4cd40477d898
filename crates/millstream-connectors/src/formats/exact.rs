//! Exact conversion of Arrow columns to the declared types: those of Parquet, Arrow and Avro files, and of batches that clients send.
//!
//! A pair of types that cannot lose anything, or loses something for single values only (BIGINT to INTEGER out of range, nanoseconds
//! that are not whole microseconds), is converted, and the values that do not fit make bad rows. Of a file, a pair that would lose
//! something for most values (DOUBLE to BIGINT, VARCHAR to TIMESTAMP) is refused when it is opened. Rows that a client sends are there
//! as a whole: between numbers, and between times, each value is looked at whether it comes back ([`conversion_by_value`]).

use super::Misfit;
use crate::error::{ConnectorError, Result};
use ::arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray, StructArray, new_null_array};
use ::arrow::buffer::{BooleanBuffer, NullBuffer};
use ::arrow::compute::kernels::cmp::not_distinct;
use ::arrow::compute::{CastOptions, cast_with_options};
use ::arrow::datatypes::{DataType, Field, Float64Type, Int64Type, IntervalUnit, TimeUnit};
use std::sync::Arc;

/// How a stored column becomes a declared one.
#[derive(Debug, Clone)]
pub(crate) enum Conversion {
    /// Nothing to do.
    Same,
    /// All values are NULL.
    Nulls,
    /// Arrow's cast; what becomes NULL did not fit.
    Cast,
    /// First to this type, which loses nothing, then on.
    Via(DataType, Box<Conversion>),
    /// Timestamps and times in a unit that is so many times as long.
    Coarser(i64),
    /// To the nearest number of REAL or DOUBLE; what is finite stays so.
    Nearest,
    /// Arrow's cast; a value that does not come back from it as it was did not fit.
    RoundTrip,
    List(Box<Conversion>),
    /// For each declared field: the stored one and how, or nothing.
    Struct(Vec<Option<(usize, Conversion)>>),
}

/// Rows whose value did not fit; set bits are bad.
pub(crate) type BadMask = Option<BooleanBuffer>;

/// How to get from one type to the other; `None` when it would lose something.
pub(crate) fn conversion(from: &DataType, to: &DataType) -> Option<Conversion> {
    between(from, to, false)
}

/// As [`conversion`], with pairs that keep some values and lose others: every value is tried.
pub(crate) fn conversion_by_value(from: &DataType, to: &DataType) -> Option<Conversion> {
    between(from, to, true)
}

fn between(from: &DataType, to: &DataType, by_value: bool) -> Option<Conversion> {
    use DataType::*;
    let conversion = |from: &DataType, to: &DataType| between(from, to, by_value);
    if from == to {
        return Some(Conversion::Same);
    }
    let integer = |data_type: &DataType| data_type.is_integer();
    let text = |data_type: &DataType| matches!(data_type, Utf8 | LargeUtf8 | Utf8View);
    let binary = |data_type: &DataType| matches!(data_type, Binary | LargeBinary | BinaryView);
    match (from, to) {
        (Null, _) => Some(Conversion::Nulls),
        (Dictionary(_, value), _) => Some(Conversion::Via(value.as_ref().clone(), Box::new(conversion(value, to)?))),
        (from, to) if text(from) && text(to) => Some(Conversion::Cast),
        (from, to) if binary(from) && binary(to) => Some(Conversion::Cast),
        (FixedSizeBinary(_), to) if binary(to) => {
            Some(Conversion::Via(Binary, Box::new(if *to == Binary { Conversion::Same } else { Conversion::Cast })))
        }
        (from, to) if integer(from) && integer(to) => Some(Conversion::Cast),
        (from, Decimal128(_, scale)) if integer(from) && *scale >= 0 => Some(Conversion::Cast),
        (Int8 | Int16 | UInt8 | UInt16 | Float16, Float32 | Float64) => Some(Conversion::Cast),
        (Int32 | UInt32 | Float32, Float64) => Some(Conversion::Cast),
        (
            Decimal32(_, from_scale) | Decimal64(_, from_scale) | Decimal128(_, from_scale) | Decimal256(_, from_scale),
            Decimal128(_, to_scale),
        ) if to_scale >= from_scale => Some(Conversion::Cast),
        (Decimal32(_, 0) | Decimal64(_, 0) | Decimal128(_, 0), to) if integer(to) => Some(Conversion::Cast),
        (Timestamp(TimeUnit::Nanosecond, _), Timestamp(TimeUnit::Microsecond, _)) => Some(Conversion::Coarser(1_000)),
        (Timestamp(from_unit, _), Timestamp(to_unit, _)) if unit_rank(from_unit) <= unit_rank(to_unit) => Some(Conversion::Cast),
        (Time64(TimeUnit::Nanosecond), Time64(TimeUnit::Microsecond)) => Some(Conversion::Coarser(1_000)),
        (Time32(_), Time64(_)) | (Time64(TimeUnit::Microsecond), Time64(TimeUnit::Nanosecond)) => Some(Conversion::Cast),
        (LargeList(item), List(_)) => {
            let list = List(Arc::clone(item));
            let rest = conversion(&list, to)?;
            Some(Conversion::Via(list, Box::new(rest)))
        }
        (List(from_item), List(to_item)) => Some(Conversion::List(Box::new(conversion(from_item.data_type(), to_item.data_type())?))),
        (Struct(from_fields), Struct(to_fields)) => {
            let fields = to_fields.iter().map(|field| match from_fields.find(field.name()) {
                Some((index, stored)) => conversion(stored.data_type(), field.data_type()).map(|how| Some((index, how))),
                None => field.is_nullable().then_some(None),
            });
            fields.collect::<Option<Vec<_>>>().map(Conversion::Struct)
        }
        (FixedSizeList(item, _), List(_)) => {
            let list = List(Arc::clone(item));
            let rest = conversion(&list, to)?;
            Some(Conversion::Via(list, Box::new(rest)))
        }
        (Duration(_) | Interval(_), Interval(IntervalUnit::MonthDayNano)) => Some(Conversion::Cast),
        // As a literal for such a column is read.
        (from, Float32 | Float64) if by_value && from.is_numeric() => Some(Conversion::Nearest),
        (from, to) if by_value && from.is_numeric() && to.is_numeric() => Some(Conversion::RoundTrip),
        (Timestamp(from_unit, _), Timestamp(to_unit, _)) if by_value => {
            let steps = unit_rank(from_unit).saturating_sub(unit_rank(to_unit));
            Some(Conversion::Coarser(1_000_i64.pow(u32::from(steps))))
        }
        (Date32 | Date64 | Timestamp(..), Date32 | Timestamp(..)) if by_value => Some(Conversion::RoundTrip),
        _ => None,
    }
}

fn unit_rank(unit: &TimeUnit) -> u8 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 1,
        TimeUnit::Microsecond => 2,
        TimeUnit::Nanosecond => 3,
    }
}

fn internal(error: arrow::error::ArrowError) -> ConnectorError {
    ConnectorError::internal("converting a stored column to its declared type", error)
}

/// Converts a column; the mask says which rows did not fit. NULLs where the column is NOT NULL count as such.
pub(crate) fn convert(array: &ArrayRef, how: &Conversion, field: &Field) -> Result<(ArrayRef, BadMask)> {
    let (converted, bad) = convert_values(array, how, field.data_type())?;
    if field.is_nullable() || converted.null_count() == 0 {
        return Ok((converted, bad));
    }
    let nulls = converted.nulls().map(|nulls| !nulls.inner());
    Ok((converted, union(bad, nulls)))
}

fn union(left: BadMask, right: BadMask) -> BadMask {
    match (left, right) {
        (Some(left), Some(right)) => Some(&left | &right),
        (left, right) => left.or(right),
    }
}

fn convert_values(array: &ArrayRef, how: &Conversion, to: &DataType) -> Result<(ArrayRef, BadMask)> {
    let options = CastOptions { safe: true, ..CastOptions::default() };
    match how {
        Conversion::Same => Ok((Arc::clone(array), None)),
        Conversion::Nulls => Ok((new_null_array(to, array.len()), None)),
        Conversion::Cast => {
            let cast = match (array.data_type(), to) {
                // The instant stays; only the label of the zone differs (a time without zone is UTC).
                (DataType::Timestamp(unit, _), DataType::Timestamp(to_unit, zone)) => {
                    let utc = cast_with_options(array, &DataType::Int64, &options).map_err(internal)?;
                    let plain = cast_with_options(&utc, &DataType::Timestamp(*unit, None), &options).map_err(internal)?;
                    let plain = cast_with_options(&plain, &DataType::Timestamp(*to_unit, None), &options).map_err(internal)?;
                    relabel(&plain, zone.as_deref(), *to_unit)?
                }
                _ => cast_with_options(array, to, &options).map_err(internal)?,
            };
            let bad = lost(array, &cast);
            Ok((cast, bad))
        }
        Conversion::Via(middle, rest) => {
            let cast = cast_with_options(array, middle, &options).map_err(internal)?;
            let bad = lost(array, &cast);
            let (converted, more) = convert_values(&cast, rest, to)?;
            Ok((converted, union(bad, more)))
        }
        Conversion::Coarser(times) => {
            let counts = cast_with_options(array, &DataType::Int64, &options).map_err(internal)?;
            let counts = counts.as_primitive::<Int64Type>();
            let whole: BooleanBuffer = counts.values().iter().map(|value| value % times == 0).collect();
            let coarse: Int64Array = counts.unary(|value| value.div_euclid(*times));
            let valid = counts.nulls().map_or_else(|| BooleanBuffer::new_set(counts.len()), |nulls| nulls.inner().clone());
            let bad = &valid & &!&whole;
            let converted = match to {
                DataType::Timestamp(unit, zone) => relabel(&(Arc::new(coarse) as ArrayRef), zone.as_deref(), *unit)?,
                other => cast_with_options(&coarse, other, &options).map_err(internal)?,
            };
            let bad = (bad.count_set_bits() > 0).then_some(bad);
            Ok((converted, bad))
        }
        Conversion::Nearest => {
            let cast = cast_with_options(array, to, &options).map_err(internal)?;
            let infinite = |array: &ArrayRef| -> Result<BooleanBuffer> {
                let doubles = cast_with_options(array, &DataType::Float64, &options).map_err(internal)?;
                Ok(doubles.as_primitive::<Float64Type>().iter().map(|value| value.is_some_and(f64::is_infinite)).collect())
            };
            let bad = &infinite(&cast)? & &!&infinite(array)?;
            let bad = (bad.count_set_bits() > 0).then_some(bad);
            let lost = lost(array, &cast);
            Ok((cast, union(bad, lost)))
        }
        Conversion::RoundTrip => {
            let cast = cast_with_options(array, to, &options).map_err(internal)?;
            let back = cast_with_options(&cast, array.data_type(), &options).map_err(internal)?;
            let same = not_distinct(&back, array).map_err(internal)?;
            let bad = !same.values();
            Ok((cast, (bad.count_set_bits() > 0).then_some(bad)))
        }
        Conversion::List(item_conversion) => {
            let DataType::List(item) = to else { return Ok((Arc::clone(array), None)) };
            let list = array.as_list::<i32>();
            let (child, child_bad) = convert(list.values(), item_conversion, item)?;
            // A NULL list may still cover elements; only lists that are there can be bad.
            let bad = child_bad.map(|child_bad| {
                (0..list.len())
                    .map(|row| {
                        let range = list.value_offsets()[row] as usize..list.value_offsets()[row + 1] as usize;
                        list.is_valid(row) && range.into_iter().any(|element| child_bad.value(element))
                    })
                    .collect::<BooleanBuffer>()
            });
            // Bad elements of a NOT NULL item are NULL until their row is filtered out.
            let relaxed = Arc::new(item.as_ref().clone().with_nullable(item.is_nullable() || child.null_count() > 0));
            let built = ListArray::try_new(relaxed, list.offsets().clone(), child, list.nulls().cloned()).map_err(internal)?;
            Ok((Arc::new(built), bad.filter(|bad| bad.count_set_bits() > 0)))
        }
        Conversion::Struct(parts) => {
            let DataType::Struct(fields) = to else { return Ok((Arc::clone(array), None)) };
            let stored = array.as_struct();
            let mut bad: BadMask = None;
            let mut columns = Vec::with_capacity(fields.len());
            let mut relaxed = Vec::with_capacity(fields.len());
            for (field, part) in fields.iter().zip(parts) {
                let column = match part {
                    None => new_null_array(field.data_type(), stored.len()),
                    Some((index, how)) => {
                        let (column, more) = convert(stored.column(*index), how, field)?;
                        bad = union(bad, more);
                        column
                    }
                };
                relaxed.push(Arc::new(field.as_ref().clone().with_nullable(field.is_nullable() || column.null_count() > 0)));
                columns.push(column);
            }
            let relaxed: Vec<_> = relaxed
                .iter()
                .zip(&columns)
                .map(|(field, column)| Arc::new(field.as_ref().clone().with_data_type(column.data_type().clone())))
                .collect();
            if let (Some(mask), Some(nulls)) = (&bad, stored.nulls()) {
                // Fields of a NULL struct mean nothing.
                bad = Some(mask & nulls.inner());
            }
            let built = StructArray::try_new_with_length(relaxed.into(), columns, stored.nulls().cloned(), stored.len());
            Ok((Arc::new(built.map_err(internal)?), bad.filter(|bad| bad.count_set_bits() > 0)))
        }
    }
}

/// Why the value of a row did not fit.
pub(crate) fn misfit(array: &ArrayRef, how: &Conversion, row: usize) -> Misfit {
    match how {
        _ if array.is_null(row) => Misfit::Null,
        Conversion::Coarser(_) => Misfit::Scale,
        Conversion::Cast | Conversion::Nearest => Misfit::Range,
        Conversion::Via(_, rest) => misfit(array, rest, row),
        _ => Misfit::Form,
    }
}

/// Gives a count of `unit` since 1970 the declared zone, without moving the instant.
fn relabel(array: &ArrayRef, zone: Option<&str>, unit: TimeUnit) -> Result<ArrayRef> {
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let count = cast_with_options(array, &DataType::Int64, &options).map_err(internal)?;
    cast_with_options(&count, &DataType::Timestamp(unit, zone.map(Into::into)), &options).map_err(internal)
}

/// What was there before and is NULL now.
fn lost(before: &ArrayRef, after: &ArrayRef) -> BadMask {
    let before_nulls = before.logical_null_count();
    if after.null_count() <= before_nulls {
        return None;
    }
    let missing = after.nulls().map(|nulls: &NullBuffer| !nulls.inner())?;
    Some(match before.logical_nulls() {
        Some(nulls) => &missing & nulls.inner(),
        None => missing,
    })
}
