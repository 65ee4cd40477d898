//! Values of parameters as literals with their type, which then stand in the statement.
//!
//! Every value goes through its text: `CAST('2024-05-01' AS DATE)`. A binary value is turned into text first. What a client sends is
//! always the content of one string literal, never part of the statement's grammar.

use super::types::{element_type, parameter_type};
use super::{numeric, text};
use arrow::datatypes::DataType;
use bytes::{Buf, Bytes};
use millstream_engine::sql_types::{ast_type, sql_type};
use postgres_types::Type;
use sqlparser::ast::{Array, CastKind, Expr, Value};

/// Days from 1970-01-01 to 2000-01-01.
const EPOCH_DAYS: i64 = 10_957;

/// Why a value cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadParameter(String);

/// The literal of a value. `kind` is the type the client sends, `wanted` what the statement takes there.
///
/// # Errors
/// When the bytes are no value of the type.
pub(crate) fn literal(value: Option<&Bytes>, binary: bool, kind: &Type, wanted: &DataType) -> Result<Expr, BadParameter> {
    let Some(value) = value else { return cast(Expr::value(Value::Null), wanted) };
    // What the client says the value is counts; the statement was planned with it.
    let target = parameter_type(kind).unwrap_or_else(|| wanted.clone());
    if let Some(element) = element_type(kind) {
        let DataType::List(item) = &target else { return Err(BadParameter(format!("a parameter cannot be of type {kind}"))) };
        let elements = if binary { binary_elements(value, &element)? } else { text_elements(utf8(value)?)? };
        let element_literal = |element: Option<String>| match element {
            None => cast(Expr::value(Value::Null), item.data_type()),
            Some(text) => text_literal(text, item.data_type()),
        };
        let elem = elements.into_iter().map(element_literal).collect::<Result<Vec<Expr>, _>>()?;
        return cast(Expr::Array(Array { elem, named: true }), &target);
    }
    let text = if binary { binary_text(value, kind)? } else { utf8(value)?.to_string() };
    text_literal(text, &target)
}

/// The literal of a value's text.
///
/// # Errors
/// When the text is no value of the type in a form that is checked here.
pub(crate) fn text_literal(text: String, target: &DataType) -> Result<Expr, BadParameter> {
    if matches!(target, DataType::Binary | DataType::BinaryView | DataType::LargeBinary) {
        let hex = match text.strip_prefix("\\x") {
            Some(hex) if hex.len() % 2 == 0 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) => hex.to_string(),
            Some(_) => return Err(BadParameter(format!("invalid hexadecimal digits in the bytea '{text}'"))),
            None => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
        };
        return Ok(Expr::value(Value::HexStringLiteral(hex)));
    }
    let text = match target {
        DataType::Date32 | DataType::Time64(_) | DataType::Timestamp(_, None) => without_zone(&text).to_string(),
        _ => text,
    };
    let literal = Expr::value(Value::SingleQuotedString(text));
    match target {
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => Ok(literal),
        target => cast(literal, target),
    }
}

/// A date or time without the zone behind it. PostgreSQL ignores the zone where the type has none; drivers send it all the same.
fn without_zone(text: &str) -> &str {
    let text = text.trim_end();
    if let Some(utc) = text.strip_suffix(['Z', 'z']) {
        return utc.trim_end();
    }
    // A sign that is followed by nothing but an offset; those of a date have no time or blank before them.
    let Some(at) = text.rfind(['+', '-']) else { return text };
    let (before, offset) = (&text[..at], &text[at + 1..]);
    let is_offset = (1..=8).contains(&offset.len()) && offset.bytes().all(|byte| byte.is_ascii_digit() || byte == b':');
    match is_offset && (before.contains(':') || before.ends_with(' ')) {
        true => before.trim_end(),
        false => text,
    }
}

/// `CAST(expr AS type)`.
///
/// # Errors
/// When the dialect has no name for the type.
pub(crate) fn cast(operand: Expr, target: &DataType) -> Result<Expr, BadParameter> {
    match ast_type(target) {
        Ok(data_type) => Ok(Expr::Cast { kind: CastKind::Cast, expr: Box::new(operand), data_type, array: false, format: None }),
        Err(_) => Err(BadParameter(format!("a parameter cannot be of type {}", sql_type(target)))),
    }
}

fn utf8(value: &[u8]) -> Result<&str, BadParameter> {
    std::str::from_utf8(value).map_err(|_| BadParameter("a parameter is no valid UTF-8".into()))
}

/// The text of a binary value.
///
/// # Errors
/// When the bytes are none of the type.
pub(crate) fn binary_text(value: &[u8], kind: &Type) -> Result<String, BadParameter> {
    if let Some(element) = element_type(kind) {
        return Ok(array_text(&binary_elements(&Bytes::copy_from_slice(value), &element)?));
    }
    let wrong = || BadParameter(format!("{} bytes are no binary value of type {kind}", value.len()));
    let fixed = |size: usize| if value.len() == size { Ok(value) } else { Err(wrong()) };
    let mut out = String::new();
    match *kind {
        Type::BOOL => return Ok(if fixed(1)?.get_u8() == 0 { "false" } else { "true" }.into()),
        Type::INT2 => return Ok(fixed(2)?.get_i16().to_string()),
        Type::INT4 => return Ok(fixed(4)?.get_i32().to_string()),
        Type::INT8 => return Ok(fixed(8)?.get_i64().to_string()),
        Type::OID => return Ok(fixed(4)?.get_u32().to_string()),
        Type::FLOAT4 => text::float(&format!("{:?}", fixed(4)?.get_f32()), &mut out),
        Type::FLOAT8 => text::float(&format!("{:?}", fixed(8)?.get_f64()), &mut out),
        Type::NUMERIC => return numeric::read_binary(value).ok_or_else(wrong),
        Type::BYTEA => text::bytea(value, &mut out),
        Type::DATE => text::date(i64::from(fixed(4)?.get_i32()) + EPOCH_DAYS, &mut out),
        Type::TIME => {
            let microseconds = fixed(8)?.get_i64();
            if !(0..86_400_000_000).contains(&microseconds) {
                return Err(wrong());
            }
            text::time(microseconds, &mut out);
        }
        Type::TIMESTAMP | Type::TIMESTAMPTZ => {
            let since_2000 = fixed(8)?.get_i64();
            let since_1970 = since_2000.checked_add(EPOCH_DAYS * 86_400_000_000).ok_or_else(wrong)?;
            text::timestamp(since_1970, *kind == Type::TIMESTAMPTZ, &mut out);
        }
        Type::INTERVAL => {
            let mut body = fixed(16)?;
            let (microseconds, days, months) = (body.get_i64(), body.get_i32(), body.get_i32());
            let (seconds, rest) = (microseconds / 1_000_000, (microseconds % 1_000_000).abs());
            let sign = if microseconds < 0 && seconds == 0 { "-" } else { "" };
            return Ok(format!("{months} months {days} days {sign}{seconds}.{rest:06} seconds"));
        }
        Type::UUID => {
            let hex: String = fixed(16)?.iter().map(|byte| format!("{byte:02x}")).collect();
            return Ok(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]));
        }
        Type::JSONB => {
            // A version number comes before the text.
            let body = value.strip_prefix(&[1]).ok_or_else(wrong)?;
            return Ok(utf8(body)?.to_string());
        }
        // All others are sent as text: text, varchar, json, name, unknown.
        _ => return Ok(utf8(value)?.to_string()),
    }
    Ok(out)
}

/// The elements of a binary array of one dimension.
fn binary_elements(value: &Bytes, element: &Type) -> Result<Vec<Option<String>>, BadParameter> {
    let wrong = || BadParameter(format!("{} bytes are no binary array of type {element}", value.len()));
    let mut body = value.clone();
    if body.len() < 12 {
        return Err(wrong());
    }
    let dimensions = body.get_i32();
    body.advance(8);
    match dimensions {
        0 => return Ok(Vec::new()),
        1 => {}
        _ => return Err(BadParameter("arrays of several dimensions cannot be parameters".into())),
    }
    if body.len() < 8 {
        return Err(wrong());
    }
    let count = usize::try_from(body.get_i32()).map_err(|_| wrong())?;
    body.advance(4);
    if count > body.len() / 4 {
        return Err(wrong());
    }
    let mut elements = Vec::with_capacity(count);
    for _ in 0..count {
        if body.len() < 4 {
            return Err(wrong());
        }
        let length = body.get_i32();
        elements.push(match usize::try_from(length) {
            Err(_) if length == -1 => None,
            Ok(length) if length <= body.len() => Some(binary_text(&body.split_to(length), element)?),
            _ => return Err(wrong()),
        });
    }
    if body.is_empty() { Ok(elements) } else { Err(wrong()) }
}

/// An array as text, whose elements are all quoted: `{"1",NULL,"a b"}`.
fn array_text(elements: &[Option<String>]) -> String {
    let element = |element: &Option<String>| match element {
        None => "NULL".to_string(),
        Some(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
    };
    format!("{{{}}}", elements.iter().map(element).collect::<Vec<_>>().join(","))
}

/// The elements of an array as text: `{1,NULL,"a b"}`.
pub(crate) fn text_elements(text: &str) -> Result<Vec<Option<String>>, BadParameter> {
    let wrong = || BadParameter(format!("'{text}' is no array: it is written {{a,b}}"));
    let inner = text.trim().strip_prefix('{').and_then(|text| text.strip_suffix('}')).ok_or_else(wrong)?;
    if inner.trim().is_empty() {
        return Ok(Vec::new());
    }
    let mut elements = Vec::new();
    let mut chars = inner.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let mut element = String::new();
        if chars.next_if_eq(&'"').is_some() {
            loop {
                match chars.next().ok_or_else(wrong)? {
                    '"' => break,
                    '\\' => element.push(chars.next().ok_or_else(wrong)?),
                    c => element.push(c),
                }
            }
            while chars.next_if(|c| c.is_whitespace()).is_some() {}
            elements.push(Some(element));
        } else {
            while let Some(c) = chars.next_if(|c| *c != ',') {
                match c {
                    '{' | '}' => return Err(BadParameter("arrays of several dimensions cannot be parameters".into())),
                    '"' => return Err(wrong()),
                    '\\' => element.push(chars.next().ok_or_else(wrong)?),
                    c => element.push(c),
                }
            }
            let element = element.trim_end();
            if element.is_empty() {
                return Err(wrong());
            }
            elements.push((!element.eq_ignore_ascii_case("null")).then(|| element.to_string()));
        }
        match chars.next() {
            None => return Ok(elements),
            Some(',') => {}
            Some(_) => return Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &[u8], binary: bool, kind: &Type, wanted: &DataType) -> String {
        let literal = literal(Some(&Bytes::copy_from_slice(value)), binary, kind, wanted);
        literal.map_or_else(|error| error.to_string(), |expr| expr.to_string())
    }

    #[test]
    fn a_value_is_one_literal() {
        assert_eq!(shown(b"5", false, &Type::UNKNOWN, &DataType::Int64), "CAST('5' AS BIGINT)");
        assert_eq!(shown(b"x'); DROP TABLE t; --", false, &Type::UNKNOWN, &DataType::Utf8), "'x''); DROP TABLE t; --'");
        assert_eq!(shown(&7_i32.to_be_bytes(), true, &Type::INT4, &DataType::Int64), "CAST('7' AS INT)");
        assert_eq!(shown(&[0; 8], true, &Type::TIMESTAMPTZ, &DataType::Utf8), "CAST('2000-01-01 00:00:00+00' AS TIMESTAMPTZ)");
        assert_eq!(shown(&[1, 2], true, &Type::BYTEA, &DataType::Binary), "X'0102'");
        assert_eq!(shown(b"\\x0aff", false, &Type::BYTEA, &DataType::Binary), "X'0aff'");
        assert_eq!(shown(b"1.50", false, &Type::NUMERIC, &DataType::Decimal128(10, 2)), "CAST('1.50' AS DECIMAL(10,2))");
        assert_eq!(literal(None, false, &Type::INT8, &DataType::Int64).unwrap().to_string(), "CAST(NULL AS BIGINT)");
        assert_eq!(shown(&[1, 2], true, &Type::INT4, &DataType::Int32), "2 bytes are no binary value of type int4");
    }

    #[test]
    fn zones_of_types_without_one_are_ignored() {
        for (text, expected) in [
            ("2024-01-01 01:02:03.5+01", "2024-01-01 01:02:03.5"),
            ("2024-01-01 01:02:03-05:30", "2024-01-01 01:02:03"),
            ("2024-01-01T01:02:03Z", "2024-01-01T01:02:03"),
            ("2024-02-29 +01", "2024-02-29"),
            ("2024-02-29", "2024-02-29"),
            ("01:02:03+01", "01:02:03"),
            ("-4713-01-01", "-4713-01-01"),
            ("", ""),
        ] {
            assert_eq!(without_zone(text), expected, "{text}");
        }
        let timestamp = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None);
        assert_eq!(shown(b"2024-01-01 01:00:00+01", false, &Type::UNKNOWN, &timestamp), "CAST('2024-01-01 01:00:00' AS TIMESTAMP)");
    }

    #[test]
    fn arrays_are_taken_apart() {
        let list = DataType::new_list(DataType::Utf8, true);
        assert_eq!(
            shown(br#"{a,"b c",NULL,"NULL"}"#, false, &Type::TEXT_ARRAY, &list),
            "CAST(ARRAY['a', 'b c', CAST(NULL AS VARCHAR), 'NULL'] AS VARCHAR[])"
        );
        let mut body = Vec::new();
        for word in [1_i32, 0, 23, 2, 1, 4, 5, -1] {
            body.extend_from_slice(&word.to_be_bytes());
        }
        let list = DataType::new_list(DataType::Int32, true);
        assert_eq!(shown(&body, true, &Type::INT4_ARRAY, &list), "CAST(ARRAY[CAST('5' AS INT), CAST(NULL AS INT)] AS INT[])");
        for bad in ["", "{", "a", "{a", "{a,}", "{\"a}", "{{1},{2}}", "{a\"b}", "{\"a\"b}"] {
            assert!(text_elements(bad).is_err(), "{bad}");
        }
        assert_eq!(binary_text(&body, &Type::INT4_ARRAY).unwrap(), r#"{"5",NULL}"#);
        let elements = vec![Some("a\"b\\".to_string()), None, Some(String::new())];
        assert_eq!(text_elements(&array_text(&elements)).unwrap(), elements);
        for length in 0..body.len() {
            assert!(literal(Some(&Bytes::copy_from_slice(&body[..length])), true, &Type::INT4_ARRAY, &list).is_err());
        }
    }
}
