//! Functions that clients call to look at the catalog, and that `datafusion-pg-catalog` does not have.
//!
//! Most have one answer here: there are no comments, no indexes, no definitions of functions, and everything is visible.

use super::server_version;
use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility};
use datafusion::scalar::ScalarValue;
use postgres_types::Type;
use std::hash::{Hash, Hasher};

/// The answer to a call, from its arguments as texts.
type Answer = fn(&[Option<&str>]) -> ScalarValue;

/// Name, type of the result, answer.
const FUNCTIONS: &[(&str, DataType, Answer)] = &[
    ("col_description", DataType::Utf8, no_text),
    ("current_setting", DataType::Utf8, setting),
    ("inet_client_addr", DataType::Utf8, no_text),
    ("inet_server_addr", DataType::Utf8, no_text),
    ("inet_server_port", DataType::Int32, |_| ScalarValue::Int32(None)),
    ("json_build_object", DataType::Utf8, no_text),
    ("obj_description", DataType::Utf8, no_text),
    ("pg_collation_is_visible", DataType::Boolean, yes),
    ("pg_function_is_visible", DataType::Boolean, yes),
    ("pg_get_function_arguments", DataType::Utf8, no_text),
    ("pg_get_function_identity_arguments", DataType::Utf8, no_text),
    ("pg_get_function_result", DataType::Utf8, no_text),
    ("pg_get_functiondef", DataType::Utf8, no_text),
    ("pg_get_indexdef", DataType::Utf8, no_text),
    ("pg_get_ruledef", DataType::Utf8, no_text),
    ("pg_get_serial_sequence", DataType::Utf8, no_text),
    ("pg_get_triggerdef", DataType::Utf8, no_text),
    ("pg_get_viewdef", DataType::Utf8, no_text),
    ("pg_is_in_recovery", DataType::Boolean, |_| ScalarValue::Boolean(Some(false))),
    ("pg_my_temp_schema", DataType::Int32, |_| ScalarValue::Int32(Some(0))),
    ("pg_opclass_is_visible", DataType::Boolean, yes),
    ("pg_operator_is_visible", DataType::Boolean, yes),
    ("pg_type_is_visible", DataType::Boolean, yes),
    ("set_config", DataType::Utf8, |arguments| ScalarValue::Utf8(arguments.get(1).copied().flatten().map(str::to_string))),
    ("shobj_description", DataType::Utf8, no_text),
    ("to_regtype", DataType::Int32, regtype),
    ("version", DataType::Utf8, |_| ScalarValue::Utf8(Some(format!("PostgreSQL {}, spoken by a streaming engine", server_version())))),
];

/// The functions.
pub(super) fn all() -> impl Iterator<Item = ScalarUDF> {
    FUNCTIONS.iter().map(|(name, returns, answer)| {
        let signature = Signature::one_of(vec![TypeSignature::VariadicAny, TypeSignature::Nullary], Volatility::Stable);
        ScalarUDF::new_from_impl(CatalogFunction { name, returns: returns.clone(), answer: *answer, signature })
    })
}

fn no_text(_: &[Option<&str>]) -> ScalarValue {
    ScalarValue::Utf8(None)
}

fn yes(_: &[Option<&str>]) -> ScalarValue {
    ScalarValue::Boolean(Some(true))
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
