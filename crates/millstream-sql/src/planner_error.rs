//! DataFusion's planning errors in our words: a column or function that does not exist, types that do not go together.
//!
//! DataFusion knows the place of some errors. For the others the name it complains about is looked up in the query, so that
//! a misspelled column is shown with a caret wherever it stands.

use std::collections::BTreeSet;

use datafusion::common::{Column, SchemaError};
use datafusion::error::DataFusionError;
use millstream_types::suggest::nearest;
use sqlparser::ast::Query;
use sqlparser::tokenizer::Location;

use crate::error::{Position, SqlError, lower_first};
use crate::other_names::written_here;
use crate::place::place_of_name;

/// Names that are listed when none is near.
const LISTED_MAX: usize = 20;

/// What DataFusion's phases put before a message.
const PREFIXES: [&str; 9] = [
    "Error during planning: ",
    "Schema error: ",
    "This feature is not implemented: ",
    "SQL error: ",
    "Execution error: ",
    "Internal error: ",
    "Invalid argument error: ",
    "Arrow error: ",
    "External error: ",
];

/// Arrow's types as SQL writes them.
const TYPES: [(&str, &str); 27] = [
    ("Timestamp(µs, \"+00:00\")", "TIMESTAMPTZ"),
    ("Timestamp(µs)", "TIMESTAMP"),
    ("Timestamp(ns)", "TIMESTAMP(9)"),
    ("Timestamp(ms)", "TIMESTAMP(3)"),
    ("Timestamp(s)", "TIMESTAMP(0)"),
    ("Interval(MonthDayNano)", "INTERVAL"),
    ("Time64(ns)", "TIME"),
    ("Time64(µs)", "TIME"),
    ("Decimal128", "DECIMAL"),
    ("Decimal256", "DECIMAL"),
    ("LargeUtf8", "VARCHAR"),
    ("Utf8View", "VARCHAR"),
    ("Utf8", "VARCHAR"),
    ("LargeBinary", "BYTEA"),
    ("BinaryView", "BYTEA"),
    ("UInt64", "BIGINT UNSIGNED"),
    ("UInt32", "INTEGER UNSIGNED"),
    ("UInt16", "SMALLINT UNSIGNED"),
    ("UInt8", "TINYINT UNSIGNED"),
    ("Int64", "BIGINT"),
    ("Int32", "INTEGER"),
    ("Int16", "SMALLINT"),
    ("Int8", "TINYINT"),
    ("Float64", "DOUBLE"),
    ("Float32", "REAL"),
    ("Boolean", "BOOLEAN"),
    ("Date32", "DATE"),
];

/// An error in our words, and the name that it is about.
struct Translated {
    message: String,
    hint: Option<String>,
    name: Option<String>,
}

impl SqlError {
    /// An error of DataFusion's planner or of its type checks. `query` is what was planned: places count within the text it
    /// was parsed from. DataFusion tells places only with the parser option `collect_spans`.
    pub fn from_planner(error: &DataFusionError, query: Option<&Query>) -> Self {
        // A planner that goes on after the first mistake collects several; one at a time is mended.
        let error = error.iter().next().unwrap_or(error);
        let Translated { message, hint, name } = match error.find_root() {
            DataFusionError::SchemaError(schema, _) => translated_schema(schema),
            root => translated_text(&root.strip_backtrace()),
        };
        let mut result = SqlError { message, hint, start: None, end: None };
        if let Some(span) = error.diagnostic().and_then(|diagnostic| diagnostic.span) {
            let position = |line, column| Position::from_location(Location { line, column });
            result.start = position(span.start.line, span.start.column);
            result.end = position(span.end.line, span.end.column);
        }
        if let (None, Some(name), Some(query)) = (result.start, name, query)
            && let Some(span) = place_of_name(query, &name)
        {
            result = result.at(span);
        }
        result
    }

    /// Whether an error is about the query, as opposed to the rows it meets.
    pub fn is_planner_error(error: &DataFusionError) -> bool {
        let error = error.iter().next().unwrap_or(error);
        matches!(
            error.find_root(),
            DataFusionError::Plan(_)
                | DataFusionError::SchemaError(..)
                | DataFusionError::NotImplemented(_)
                | DataFusionError::SQL(..)
                | DataFusionError::Configuration(_)
        )
    }
}

fn translated_schema(error: &SchemaError) -> Translated {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let name = written(field);
            let message = format!("column \"{name}\" does not exist");
            Translated { message, hint: column_hint(field, valid_fields), name: Some(field.name.clone()) }
        }
        SchemaError::AmbiguousReference { field } => Translated {
            message: format!("column \"{}\" is ambiguous: more than one relation has it", field.name),
            hint: Some(format!("Write its relation before it, for example t.{}.", field.name)),
            name: Some(field.name.clone()),
        },
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => Translated {
            message: format!("column \"{name}\" appears twice in the result"),
            hint: Some("Give one of them another name with AS.".into()),
            name: Some(name.clone()),
        },
    }
}

fn written(column: &Column) -> String {
    match &column.relation {
        Some(relation) => format!("{}.{}", relation.table(), column.name),
        None => column.name.clone(),
    }
}

/// What to write in place of a column that is not there.
fn column_hint(field: &Column, valid: &[Column]) -> Option<String> {
    let in_scope = |column: &&Column| match (&field.relation, &column.relation) {
        (Some(asked), Some(there)) => asked.table() == there.table(),
        _ => true,
    };
    let names: BTreeSet<&str> = valid.iter().filter(in_scope).map(|column| column.name.as_str()).collect();
    if let Some(near) = nearest(&field.name, names.iter().copied()) {
        let qualified = field.relation.as_ref().map(|relation| format!("{}.", relation.table())).unwrap_or_default();
        return Some(match near.eq_ignore_ascii_case(&field.name) {
            true => format!("Write {qualified}\"{near}\" with the quotes: names without them are taken in lower case."),
            false => format!("Did you mean \"{qualified}{near}\"?"),
        });
    }
    let relations: BTreeSet<&str> = valid.iter().filter_map(|column| column.relation.as_ref()).map(|relation| relation.table()).collect();
    if let (true, Some(relation)) = (names.is_empty(), &field.relation) {
        let asked = relation.table();
        return match nearest(asked, relations.iter().copied()) {
            Some(near) => Some(format!("Did you mean \"{near}.{}\"?", field.name)),
            None if relations.is_empty() => None,
            None => Some(format!("The FROM clause has no \"{asked}\"; it has {}.", listed(relations.iter().copied()))),
        };
    }
    (!names.is_empty()).then(|| format!("The columns are {}.", listed(names.iter().copied())))
}

fn listed<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(LISTED_MAX);
    let list = names.take(LISTED_MAX).map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{list} and {more} more") } else { list }
}

fn translated_text(text: &str) -> Translated {
    let text = without_prefixes(text);
    let plain = |message: String, hint: Option<String>| Translated { message, hint, name: None };
    if let Some(name) = between(text, "Invalid function '", "'") {
        // DataFusion names the nearest function however far it is.
        let near = between(text, "Did you mean '", "'").and_then(|near| nearest(name, [near]));
        let hint = match (written_here(name), near) {
            (Some(here), _) => format!("Write {here}."),
            (None, Some(near)) => format!("Did you mean \"{near}\"?"),
            (None, None) => "SHOW FUNCTIONS lists them.".into(),
        };
        return Translated { message: format!("function \"{name}\" does not exist"), hint: Some(hint), name: Some(name.to_string()) };
    }
    if let Some(call) = between(text, "No function matches the given name and argument types '", "'.") {
        // Windows are written with functions that nobody has asked for by name.
        if let Some((_, time)) = call.strip_prefix("date_bin(").and_then(|call| call.split_once(", "))
            && !time.starts_with("Timestamp")
        {
            let time = time.split([',', ')']).next().unwrap_or(time);
            return plain(
                format!("the time column of TUMBLE, HOP, CUMULATE or date_bin has type {}, not TIMESTAMP", sql_types(time)),
                Some("Compute the time in a subquery, for example with to_timestamp.".into()),
            );
        }
        if let Some(time) = call.strip_prefix("session_").and_then(|call| between(call, "(", ",")) {
            return plain(
                format!("the time column of SESSION has type {}, not TIMESTAMP", sql_types(time)),
                Some("Compute the time in a subquery, for example with to_timestamp.".into()),
            );
        }
        let candidates = text.split_once("Candidate functions:").map_or("", |(_, list)| list);
        let candidates: Vec<&str> = candidates.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let more = if candidates.len() > 6 { ", ..." } else { "" };
        let forms = sql_types(&candidates[..candidates.len().min(6)].join(", "));
        return Translated {
            message: format!("function {} does not exist", sql_types(call)),
            hint: (!forms.is_empty()).then(|| format!("There is {forms}{more}. CAST the arguments to what it takes.")),
            name: call.split_once('(').map(|(name, _)| name.to_string()),
        };
    }
    if let Some(column) = between(text, "column \"", "\" must appear in the GROUP BY clause") {
        let column = column.rsplit("column \"").next().unwrap_or(column);
        return Translated {
            message: format!("column \"{column}\" must appear in the GROUP BY clause or in an aggregate function"),
            hint: Some(format!("Add it to GROUP BY, or take one value of each group, for example max({column}).")),
            name: Some(column.rsplit('.').next().unwrap_or(column).to_string()),
        };
    }
    if let Some(operation) = between(text, "Cannot coerce arithmetic expression ", " to valid types") {
        return plain(
            format!("the operation {} does not exist", sql_types(operation)),
            Some("CAST one side to the type of the other.".into()),
        );
    }
    if let Some((_, operation)) = text.split_once("Cannot infer common argument type for ") {
        let operation = operation.lines().next().unwrap_or(operation).trim_end_matches('.');
        let operation = ["comparison operation ", "logical boolean operation ", "regex operation ", "string operation "]
            .iter()
            .find_map(|kind| operation.strip_prefix(kind))
            .unwrap_or(operation);
        return plain(
            format!("the operation {} does not exist", sql_types(operation)),
            Some("CAST one side to the type of the other.".into()),
        );
    }
    if text.starts_with("Correlated scalar subquery must be aggregated") {
        return plain(
            "a scalar query that depends on the row outside may have more than one row".into(),
            Some("Take one of them: an aggregate such as max(..), or ORDER BY .. LIMIT 1.".into()),
        );
    }
    let no_plan = text.strip_prefix("Physical plan does not support logical expression ");
    if no_plan.is_some_and(|expr| {
        ["Exists(", "InSubquery(", "ScalarSubquery(", "OuterReferenceColumn("].iter().any(|kind| expr.starts_with(kind))
    }) {
        return plain(
            "a query in an expression, which depends on the row outside, cannot be computed as a join".into(),
            Some(
                "Compare its columns with those of the row by = in its WHERE, without LIMIT or OFFSET above that; or write a join.".into(),
            ),
        );
    }
    if text.contains("subquery can only be used in") {
        return plain(
            "a query in an expression cannot be computed here".into(),
            Some("Give the expression a name in the select list of a subquery, and use the name here.".into()),
        );
    }
    // DataFusion asks for a bug report where the query alone is wrong.
    let text = text.split("\nThis issue was likely caused by a bug").next().unwrap_or(text);
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let rest: Vec<&str> = rest.lines().map(str::trim).filter(|line| !line.is_empty() && *line != "caused by").collect();
    plain(sql_types(&lower_first(first)), (!rest.is_empty()).then(|| rest.join("\n")))
}

fn without_prefixes(text: &str) -> &str {
    // The innermost message is the one that was written for this error.
    let mut text = text.rsplit("\ncaused by\n").next().unwrap_or(text).trim();
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)) {
        text = rest;
    }
    text
}

/// What stands between the first `open` and the next `close`.
fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(open)?;
    rest.split_once(close).map(|(inner, _)| inner)
}

/// The text with Arrow's names of types replaced by those of SQL, and its constants (`Int64(1)`) by what they are.
pub fn sql_types(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut in_word = false;
    while let Some(next) = rest.chars().next() {
        // A quote before it: a value that happens to be called so.
        let known = TYPES
            .iter()
            .filter(|_| !in_word && !out.ends_with('\''))
            .find(|(arrow, _)| rest.strip_prefix(arrow).is_some_and(|after| !after.starts_with(|c: char| c.is_alphanumeric() || c == '_')));
        if let Some((arrow, sql)) = known {
            let constant = rest[arrow.len()..].strip_prefix('(').and_then(|inner| inner.split_once(')'));
            if let Some((value, after)) = constant.filter(|(value, _)| value.parse::<f64>().is_ok() && !arrow.starts_with("Decimal")) {
                out.push_str(value);
                rest = after;
                in_word = true;
                continue;
            }
            out.push_str(sql);
            rest = &rest[arrow.len()..];
            in_word = true;
            continue;
        }
        out.push(next);
        in_word = next.is_alphanumeric() || next == '_';
        rest = &rest[next.len_utf8()..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse_query;

    fn missing(field: &str, valid: &[&str]) -> SqlError {
        let valid_fields = valid.iter().map(|name| Column::from_qualified_name_ignore_case(*name)).collect();
        let field = Box::new(Column::from_qualified_name_ignore_case(field));
        let error = DataFusionError::SchemaError(Box::new(SchemaError::FieldNotFound { field, valid_fields }), Box::new(None));
        SqlError::from_planner(&error, Some(&parse_query("SELECT 1 FROM t\nWHERE pric > 5").expect("parses")))
    }

    #[test]
    fn a_missing_column_is_placed_and_the_nearest_is_named() {
        let error = missing("pric", &["t.price", "t.ts"]);
        assert_eq!(error.message, "column \"pric\" does not exist");
        assert_eq!(error.hint.as_deref(), Some("Did you mean \"price\"?"));
        assert_eq!((error.start, error.end), (Some(Position { line: 2, column: 7 }), Some(Position { line: 2, column: 11 })));
        assert_eq!(missing("velocity", &["t.price", "t.ts"]).hint.as_deref(), Some("The columns are \"price\", \"ts\"."));
        assert_eq!(missing("u.price", &["t.price"]).hint.as_deref(), Some("Did you mean \"t.price\"?"));
    }

    #[test]
    fn functions_and_types_are_said_in_sql() {
        let plan = |text: &str| SqlError::from_planner(&DataFusionError::Plan(text.into()), None);
        assert_eq!(plan("Invalid function 'sume'.\nDid you mean 'sum'?").message, "function \"sume\" does not exist");
        let error = plan(
            "Function 'upper' expects 1 arguments but received 2. No function matches the given name and argument types \
             'upper(Int64, Utf8View)'. You might need to add explicit type casts.\n\tCandidate functions:\n\tupper(String)",
        );
        assert_eq!(error.message, "function upper(BIGINT, VARCHAR) does not exist");
        assert_eq!(error.hint.as_deref(), Some("There is upper(String). CAST the arguments to what it takes."));
        let error = plan("Cannot coerce arithmetic expression Int64 + Timestamp(µs) to valid types");
        assert_eq!(error.message, "the operation BIGINT + TIMESTAMP does not exist");
        let cast = "Cannot cast string 'Int64' to value of Int64 type, Int64(1) + Utf8(\"a\") is Decimal128(20, 2)";
        let said = "Cannot cast string 'Int64' to value of BIGINT type, 1 + VARCHAR(\"a\") is DECIMAL(20, 2)";
        assert_eq!(sql_types(cast), said);
        assert_eq!(plan("UNION queries have different number of columns").message, "UNION queries have different number of columns");
    }
}
