//! Windows before 1970, around clock changes, by the calendar, and with every optional argument.

use super::*;
use arrow::array::AsArray;
use chrono::NaiveDateTime;
use datafusion::common::config::ConfigOptions;

fn micros(text: &str) -> i64 {
    let format = if text.len() > 16 { "%Y-%m-%d %H:%M:%S%.f" } else { "%Y-%m-%d %H:%M" };
    NaiveDateTime::parse_from_str(text, format).unwrap().and_utc().timestamp_micros()
}

fn text(micros: i64) -> String {
    let time = chrono::DateTime::from_timestamp_micros(micros).unwrap().format("%Y-%m-%d %H:%M:%S%.f").to_string();
    time.strip_suffix(":00").map(Into::into).unwrap_or(time)
}

fn interval(text: &str) -> ScalarValue {
    ScalarValue::Utf8(Some(text.into())).cast_to(&DataType::Interval(IntervalUnit::MonthDayNano)).unwrap()
}

fn zone(name: Option<&str>) -> ScalarValue {
    ScalarValue::Utf8(name.map(Into::into))
}

fn try_call(function: &ScalarUDF, times: &[Option<i64>], rest: &[ScalarValue]) -> Result<ArrayRef> {
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times.to_vec()));
    let fields: Vec<FieldRef> = std::iter::once(times.data_type().clone())
        .chain(rest.iter().map(|value| value.data_type()))
        .map(|data_type| Arc::new(Field::new("", data_type, true)))
        .collect();
    let types: Vec<DataType> = fields.iter().map(|field| field.data_type().clone()).collect();
    function.inner().coerce_types(&types)?;
    let return_field = Arc::new(Field::new("", function.return_type(&types)?, true));
    let args = std::iter::once(ColumnarValue::Array(Arc::clone(&times))).chain(rest.iter().cloned().map(ColumnarValue::Scalar)).collect();
    let config_options = Arc::new(ConfigOptions::default());
    let result = function.invoke_with_args(ScalarFunctionArgs {
        args,
        arg_fields: fields,
        number_rows: times.len(),
        return_field,
        config_options,
    })?;
    result.into_array(times.len())
}

fn single(function: &ScalarUDF, time: &str, rest: &[ScalarValue]) -> String {
    let result = try_call(function, &[Some(micros(time))], rest).unwrap();
    text(result.as_primitive::<TimestampMicrosecondType>().value(0))
}

fn list(function: &ScalarUDF, time: &str, rest: &[ScalarValue]) -> Vec<String> {
    let result = try_call(function, &[Some(micros(time))], rest).unwrap();
    result.as_list::<i32>().value(0).as_primitive::<TimestampMicrosecondType>().values().iter().map(|value| text(*value)).collect()
}

#[test]
fn tumble_before_1970_and_nulls() {
    let result = try_call(&tumble_start(), &[Some(-1), None, Some(0), Some(-10_000_000)], &[interval("10 seconds")]).unwrap();
    let expected = TimestampMicrosecondArray::from(vec![Some(-10_000_000), None, Some(0), Some(-10_000_000)]);
    assert_eq!(result.as_ref(), &expected);
}

#[test]
fn tumble_with_offset() {
    let rest = [interval("1 hour"), interval("15 minutes")];
    assert_eq!(single(&tumble_start(), "2024-05-01 10:10", &rest), "2024-05-01 09:15");
    assert_eq!(single(&tumble_start(), "2024-05-01 10:15", &rest), "2024-05-01 10:15");
}

#[test]
fn hop_windows_hold_their_row() {
    let rest = [interval("5 minutes"), interval("10 minutes")];
    assert_eq!(list(&hop_starts(), "2024-05-01 12:07", &rest), ["2024-05-01 12:00", "2024-05-01 12:05"]);
    assert_eq!(list(&hop_starts(), "2024-05-01 12:05", &rest), ["2024-05-01 12:00", "2024-05-01 12:05"]);
    assert_eq!(list(&hop_starts(), "1969-12-31 23:59", &rest), ["1969-12-31 23:50", "1969-12-31 23:55"]);
    // The size need not be a multiple of the slide.
    let rest = [interval("4 minutes"), interval("10 minutes")];
    assert_eq!(list(&hop_starts(), "2024-05-01 12:01", &rest), ["2024-05-01 11:52", "2024-05-01 11:56", "2024-05-01 12:00"]);
    assert_eq!(list(&hop_starts(), "2024-05-01 12:02", &rest), ["2024-05-01 11:56", "2024-05-01 12:00"]);
}

#[test]
fn hop_with_gaps() {
    let rest = [interval("10 minutes"), interval("4 minutes")];
    assert_eq!(list(&hop_starts(), "2024-05-01 12:03", &rest), ["2024-05-01 12:00"]);
    assert!(list(&hop_starts(), "2024-05-01 12:04", &rest).is_empty());
    assert_eq!(list(&first_open_hop(), "2024-05-01 12:04", &rest), ["2024-05-01 12:10"]);
    assert_eq!(list(&first_open_hop(), "2024-05-01 12:03", &rest), ["2024-05-01 12:00"]);
}

#[test]
fn first_open_hop_is_the_first_hop() {
    for (slide, size) in [("5 minutes", "10 minutes"), ("4 minutes", "10 minutes"), ("1 minute", "1 minute")] {
        for minute in 0..60 {
            let time = format!("1969-12-31 23:{minute:02}");
            let rest = [interval(slide), interval(size)];
            assert_eq!(list(&first_open_hop(), &time, &rest)[0], list(&hop_starts(), &time, &rest)[0], "{slide} {size} {time}");
        }
    }
}

#[test]
fn cumulating_windows() {
    let rest = [interval("2 minutes"), interval("6 minutes")];
    let ends = |time| list(&cumulate_ends(), time, &rest);
    assert_eq!(ends("2024-05-01 12:00"), ["2024-05-01 12:02", "2024-05-01 12:04", "2024-05-01 12:06"]);
    assert_eq!(ends("2024-05-01 12:04"), ["2024-05-01 12:06"]);
    assert_eq!(ends("1969-12-31 23:59"), ["1970-01-01 00:00"]);
    let error = try_call(&cumulate_ends(), &[Some(0)], &[interval("4 minutes"), interval("6 minutes")]).unwrap_err();
    assert!(error.to_string().contains("multiple of their step"), "{error}");
}

#[test]
fn local_days_around_clock_changes() {
    let rest = [interval("1 day"), interval("0 days"), zone(Some("Europe/Berlin"))];
    let start = |time| single(&tumble_start(), time, &rest);
    // Summer time begins on 2024-03-31: the local day has 23 hours.
    assert_eq!(start("2024-03-30 22:59"), "2024-03-29 23:00");
    assert_eq!(start("2024-03-30 23:00"), "2024-03-30 23:00");
    assert_eq!(start("2024-03-31 21:59"), "2024-03-30 23:00");
    assert_eq!(start("2024-03-31 22:00"), "2024-03-31 22:00");
    let end = |time| single(&window_end(), time, &[interval("1 day"), zone(Some("Europe/Berlin"))]);
    assert_eq!(end("2024-03-30 23:00"), "2024-03-31 22:00");
    // And ends on 2024-10-27: 25 hours.
    assert_eq!(end("2024-10-26 22:00"), "2024-10-27 23:00");
    assert_eq!(start("2024-10-27 22:59"), "2024-10-26 22:00");
}

#[test]
fn a_day_without_midnight() {
    let name = zone(Some("America/Sao_Paulo"));
    let rest = [interval("1 day"), interval("0 days"), name.clone()];
    assert_eq!(single(&tumble_start(), "2018-11-04 12:00", &rest), "2018-11-04 03:00");
    assert_eq!(single(&window_end(), "2018-11-04 03:00", &[interval("1 day"), name]), "2018-11-05 02:00");
}

#[test]
fn months() {
    let rest = [interval("1 month")];
    assert_eq!(single(&tumble_start(), "2024-02-29 23:59", &rest), "2024-02-01 00:00");
    assert_eq!(single(&tumble_start(), "1969-11-15 00:00", &[interval("3 months")]), "1969-10-01 00:00");
    assert_eq!(single(&window_end(), "2024-02-01 00:00", &rest), "2024-03-01 00:00");
    let hop = [interval("1 month"), interval("3 months")];
    assert_eq!(list(&hop_starts(), "2024-02-10 00:00", &hop), ["2023-12-01 00:00", "2024-01-01 00:00", "2024-02-01 00:00"]);
    assert_eq!(list(&first_open_hop(), "2024-02-10 00:00", &hop), ["2023-12-01 00:00"]);
    let cumulate = [interval("1 month"), interval("3 months")];
    assert_eq!(list(&cumulate_ends(), "2024-02-10 00:00", &cumulate), ["2024-03-01 00:00", "2024-04-01 00:00"]);
}

#[test]
fn local_hops() {
    let rest = [interval("1 day"), interval("2 days"), interval("0 days"), zone(Some("Europe/Berlin"))];
    assert_eq!(list(&hop_starts(), "2024-03-31 12:00", &rest), ["2024-03-29 23:00", "2024-03-30 23:00"]);
}

#[test]
fn refusals() {
    let message = |function: &ScalarUDF, rest: &[ScalarValue]| try_call(function, &[Some(0)], rest).unwrap_err().to_string();
    assert!(message(&tumble_start(), &[interval("0 seconds")]).contains("must be positive"));
    assert!(message(&tumble_start(), &[interval("-1 seconds")]).contains("must be positive"));
    assert!(message(&tumble_start(), &[interval("1 month 1 day")]).contains("not a mixture"));
    assert!(message(&tumble_start(), &[ScalarValue::Int64(Some(5))]).contains("needs an interval"));
    assert!(message(&tumble_start(), &[]).contains("tumble_start(ts, size"));
    let rest = [interval("1 day"), interval("0 days"), zone(Some("Europe/Berln"))];
    assert!(message(&tumble_start(), &rest).contains("unknown time zone \"Europe/Berln\""));
    assert!(message(&hop_starts(), &[interval("0.000001 seconds"), interval("1 day")]).contains("more than 100000 windows"));
}
