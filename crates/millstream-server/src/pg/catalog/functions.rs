//! Functions that clients call to look at the catalog, and that `datafusion-pg-catalog` does not have.
//!
//! Most have one answer here: there are no comments, no definitions of functions, and everything is visible.

use super::keys::Known;
use super::server_version;
use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility};
use datafusion::scalar::ScalarValue;
use postgres_types::Type;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The answer to a call, from its arguments as texts.
type Answer = Arc<dyn Fn(&[Option<&str>]) -> ScalarValue + Send + Sync>;

/// What names a relation, `"public"."Orders"` say, without schema and quotes.
pub(super) const RELATION_NAME: &str = "relation_name";

/// What a call without state answers.
type Fixed = fn(&[Option<&str>]) -> ScalarValue;

/// Name, type of the result, answer.
const FUNCTIONS: &[(&str, DataType, Fixed)] = &[
    ("col_description", DataType::Utf8, no_text),
    ("current_setting", DataType::Utf8, setting),
    ("inet_client_addr", DataType::Utf8, no_text),
    ("inet_server_addr", DataType::Utf8, no_text),
    ("inet_server_port", DataType::Int32, |_| ScalarValue::Int32(None)),
    ("json_build_object", DataType::Utf8, no_text),
    ("obj_description", DataType::Utf8, no_text),
    ("pg_char_to_encoding", DataType::Int32, |_| ScalarValue::Int32(Some(6))),
    ("pg_collation_is_visible", DataType::Boolean, yes),
    ("pg_conversion_is_visible", DataType::Boolean, yes),
    ("pg_database_size", DataType::Int64, |_| ScalarValue::Int64(Some(0))),
    ("pg_function_is_visible", DataType::Boolean, yes),
    ("pg_get_function_arguments", DataType::Utf8, no_text),
    ("pg_get_function_identity_arguments", DataType::Utf8, no_text),
    ("pg_get_function_result", DataType::Utf8, no_text),
    ("pg_get_function_sqlbody", DataType::Utf8, no_text),
    ("pg_get_functiondef", DataType::Utf8, no_text),
    ("pg_get_ruledef", DataType::Utf8, no_text),
    ("pg_get_serial_sequence", DataType::Utf8, no_text),
    ("pg_get_triggerdef", DataType::Utf8, no_text),
    ("pg_is_other_temp_schema", DataType::Boolean, |_| ScalarValue::Boolean(Some(false))),
    ("pg_is_in_recovery", DataType::Boolean, |_| ScalarValue::Boolean(Some(false))),
    ("pg_my_temp_schema", DataType::Int32, |_| ScalarValue::Int32(Some(0))),
    ("pg_indexes_size", DataType::Int64, |_| ScalarValue::Int64(Some(0))),
    ("pg_opclass_is_visible", DataType::Boolean, yes),
    ("pg_operator_is_visible", DataType::Boolean, yes),
    ("pg_opfamily_is_visible", DataType::Boolean, yes),
    ("pg_size_pretty", DataType::Utf8, size),
    ("pg_statistics_obj_is_visible", DataType::Boolean, yes),
    ("pg_table_size", DataType::Int64, |_| ScalarValue::Int64(Some(0))),
    ("pg_tablespace_location", DataType::Utf8, no_text),
    ("pg_tablespace_size", DataType::Int64, |_| ScalarValue::Int64(Some(0))),
    ("pg_ts_config_is_visible", DataType::Boolean, yes),
    ("pg_ts_dict_is_visible", DataType::Boolean, yes),
    ("pg_ts_parser_is_visible", DataType::Boolean, yes),
    ("pg_ts_template_is_visible", DataType::Boolean, yes),
    ("pg_type_is_visible", DataType::Boolean, yes),
    (RELATION_NAME, DataType::Utf8, relation_name),
    ("set_config", DataType::Utf8, |arguments| ScalarValue::Utf8(arguments.get(1).copied().flatten().map(str::to_string))),
    ("shobj_description", DataType::Utf8, no_text),
    ("to_regtype", DataType::Int32, regtype),
    ("version", DataType::Utf8, |_| ScalarValue::Utf8(Some(format!("PostgreSQL {}, spoken by a streaming engine", server_version())))),
];

/// The functions.
pub(super) fn all() -> impl Iterator<Item = ScalarUDF> {
    FUNCTIONS.iter().map(|(name, returns, answer)| function(name, returns.clone(), Arc::new(*answer), Volatility::Stable))
}

/// Functions whose answers come from what the tables of the catalog said; `datafusion-pg-catalog` has some of them with no answer.
pub(super) fn of_known(known: &Arc<Known>) -> [ScalarUDF; 3] {
    type Asked = fn(&Known, &[Option<&str>]) -> ScalarValue;
    let asked: [(&'static str, Asked); 3] = [
        ("pg_get_constraintdef", Known::constraint_definition),
        ("pg_get_indexdef", Known::index_definition),
        ("pg_get_viewdef", Known::view_definition),
    ];
    asked.map(|(name, answer)| {
        let known = Arc::clone(known);
        // What is known is not known before the statement runs.
        function(name, DataType::Utf8, Arc::new(move |arguments| answer(&known, arguments)), Volatility::Volatile)
    })
}

fn function(name: &'static str, returns: DataType, answer: Answer, volatility: Volatility) -> ScalarUDF {
    let signature = Signature::one_of(vec![TypeSignature::VariadicAny, TypeSignature::Nullary], volatility);
    ScalarUDF::new_from_impl(CatalogFunction { name, returns, answer, signature })
}

fn no_text(_: &[Option<&str>]) -> ScalarValue {
    ScalarValue::Utf8(None)
}

fn yes(_: &[Option<&str>]) -> ScalarValue {
    ScalarValue::Boolean(Some(true))
}

/// A number of bytes, as people read it.
fn size(arguments: &[Option<&str>]) -> ScalarValue {
    let bytes: Option<f64> = arguments.first().copied().flatten().and_then(|text| text.trim().parse().ok());
    ScalarValue::Utf8(bytes.map(|bytes| {
        let units = ["bytes", "kB", "MB", "GB", "TB"];
        let (mut value, mut unit) = (bytes, 0);
        while value.abs() >= 10_240.0 && unit + 1 < units.len() {
            value /= 1024.0;
            unit += 1;
        }
        format!("{value:.0} {}", units[unit])
    }))
}

/// The last part of a name, folded unless it is quoted.
fn relation_name(arguments: &[Option<&str>]) -> ScalarValue {
    ScalarValue::Utf8(arguments.first().copied().flatten().map(|text| {
        let (mut last, mut is_quoted) = (String::new(), false);
        let mut chars = text.trim().chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '"' if is_quoted && chars.next_if_eq(&'"').is_some() => last.push('"'),
                '"' => is_quoted = !is_quoted,
                '.' if !is_quoted => last.clear(),
                c if !is_quoted && c.is_whitespace() => {}
                c if is_quoted => last.push(c),
                c => last.extend(c.to_lowercase()),
            }
        }
        last
    }))
}

/// A setting as it is before any SET.
fn setting(arguments: &[Option<&str>]) -> ScalarValue {
    let name = arguments.first().copied().flatten().unwrap_or_default();
    ScalarValue::Utf8(match name.to_lowercase().as_str() {
        "server_version" => Some(server_version()),
        "server_version_num" => Some("150000".into()),
        name => millstream_engine::session::client_setting_default(name).map(str::to_string),
    })
}

/// The number of a type by its name, in PostgreSQL's spelling or in SQL's.
fn regtype(arguments: &[Option<&str>]) -> ScalarValue {
    let name = arguments.first().copied().flatten().unwrap_or_default().trim().to_lowercase();
    let kind = match name.strip_prefix("pg_catalog.").unwrap_or(&name) {
        "bool" | "boolean" => Type::BOOL,
        "bytea" => Type::BYTEA,
        "int2" | "smallint" => Type::INT2,
        "int4" | "int" | "integer" => Type::INT4,
        "int8" | "bigint" => Type::INT8,
        "float4" | "real" => Type::FLOAT4,
        "float8" | "double precision" => Type::FLOAT8,
        "numeric" | "decimal" => Type::NUMERIC,
        "text" => Type::TEXT,
        "varchar" | "character varying" => Type::VARCHAR,
        "date" => Type::DATE,
        "time" | "time without time zone" => Type::TIME,
        "timestamp" | "timestamp without time zone" => Type::TIMESTAMP,
        "timestamptz" | "timestamp with time zone" => Type::TIMESTAMPTZ,
        "interval" => Type::INTERVAL,
        "oid" => Type::OID,
        _ => return ScalarValue::Int32(None),
    };
    ScalarValue::Int32(i32::try_from(kind.oid()).ok())
}

struct CatalogFunction {
    name: &'static str,
    returns: DataType,
    answer: Answer,
    signature: Signature,
}

impl std::fmt::Debug for CatalogFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CatalogFunction").field("name", &self.name).finish_non_exhaustive()
    }
}

// There is one of each name.
impl PartialEq for CatalogFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for CatalogFunction {}

impl Hash for CatalogFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for CatalogFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.returns.clone())
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let are_scalar = call.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if are_scalar { 1 } else { call.number_rows };
        let columns = call.args.iter().map(|argument| Ok(cast(&argument.to_array(rows)?, &DataType::Utf8)?));
        let columns = columns.collect::<Result<Vec<ArrayRef>>>()?;
        let answers = (0..rows).map(|row| {
            let text = |column: &'_ ArrayRef| column.is_valid(row).then(|| column.as_string::<i32>().value(row).to_string());
            let texts: Vec<Option<String>> = columns.iter().map(text).collect();
            (self.answer)(&texts.iter().map(Option::as_deref).collect::<Vec<_>>())
        });
        let mut answers: Vec<ScalarValue> = answers.collect();
        match (are_scalar, answers.pop()) {
            (true, Some(answer)) => Ok(ColumnarValue::Scalar(answer)),
            (_, Some(last)) => Ok(ColumnarValue::Array(ScalarValue::iter_to_array(answers.into_iter().chain([last]))?)),
            (_, None) => Ok(ColumnarValue::Array(datafusion::arrow::array::new_empty_array(&self.returns))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: ScalarValue) -> String {
        match value {
            ScalarValue::Utf8(Some(text)) => text,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn names_and_sizes_read_as_those_of_postgresql() {
        for (given, name) in [("Accounts", "accounts"), ("public.t", "t"), (r#""public" . "A.b""#, "A.b"), (r#""a""b""#, "a\"b")] {
            assert_eq!(text(relation_name(&[Some(given)])), name);
        }
        for (given, shown) in [("0", "0 bytes"), ("10239", "10239 bytes"), ("10240", "10 kB"), ("104857600", "100 MB")] {
            assert_eq!(text(size(&[Some(given)])), shown);
        }
    }
}
