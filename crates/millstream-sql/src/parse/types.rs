//! Data types of other engines, in the words of ours.

use sqlparser::ast::{DataType, ObjectName, TimezoneInfo};

/// Turns synonyms into the canonical type: `TIMESTAMP_LTZ(n)` into `TIMESTAMP(n) WITH TIME ZONE`, `JSON` and `STRING` into
/// `VARCHAR`, `BYTES` into `BYTEA`; also inside arrays.
pub(crate) fn normalize_type(data_type: &mut DataType) {
    match data_type {
        DataType::Custom(name, modifiers) => {
            let precision = || modifiers.first().and_then(|digits| digits.parse().ok());
            match single_word(name).as_deref() {
                Some("timestamp_ltz") => *data_type = DataType::Timestamp(precision(), TimezoneInfo::WithTimeZone),
                Some("jsonb") => *data_type = DataType::Varchar(None),
                _ => {}
            }
        }
        DataType::Timestamp(_, zone) if *zone == TimezoneInfo::Tz => *zone = TimezoneInfo::WithTimeZone,
        DataType::Timestamp(_, zone) if *zone == TimezoneInfo::WithoutTimeZone => *zone = TimezoneInfo::None,
        DataType::TimestampNtz(precision) => *data_type = DataType::Timestamp(*precision, TimezoneInfo::None),
        DataType::JSON | DataType::JSONB | DataType::Text | DataType::String(None) => *data_type = DataType::Varchar(None),
        DataType::Bytes(_) => *data_type = DataType::Bytea,
        DataType::Array(element) => match element {
            sqlparser::ast::ArrayElemTypeDef::AngleBracket(inner)
            | sqlparser::ast::ArrayElemTypeDef::SquareBracket(inner, _)
            | sqlparser::ast::ArrayElemTypeDef::Parenthesis(inner) => normalize_type(inner),
            sqlparser::ast::ArrayElemTypeDef::None => {}
        },
        DataType::Struct(fields, _) => fields.iter_mut().for_each(|field| normalize_type(&mut field.field_type)),
        _ => {}
    }
}

/// The name in lower case if it has one part.
fn single_word(name: &ObjectName) -> Option<String> {
    match name.0.as_slice() {
        [part] => part.as_ident().map(|ident| ident.value.to_lowercase()),
        _ => None,
    }
}
