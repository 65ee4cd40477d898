//! What there is: catalogs, schemas, relations, keys, and what the server can do.
//!
//! One catalog, `millstream`, with the schemas `public` (everything that was made) and `millstream` (system tables). The types of
//! relations are TABLE, STREAM, VIEW, MATERIALIZED VIEW, SINK and SYSTEM TABLE.

use super::session::FlightSession;
use super::statement::{describe, read};
use crate::error::RequestError;
use crate::pg::DATABASE;
use crate::service::Service;
use arrow::array::{Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::{
    GetTablesBuilder, SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder,
};
use arrow_flight::sql::{
    Command, CommandGetPrimaryKeys, CommandGetTables, Nullable, Searchable, SqlInfo, SqlSupportedCaseSensitivity, SqlSupportedTransaction,
    XdbcDataType, XdbcDatetimeSubcode,
};
use millstream_engine::CatalogEntry;
use millstream_engine::catalog::resolve::SYSTEM_SCHEMA;
use millstream_engine::system_tables::SYSTEM_TABLES;
use std::sync::Arc;

/// The one catalog.
pub(super) const CATALOG: &str = DATABASE;
/// The schema of everything that was made.
pub(super) const SCHEMA: &str = "public";

const TABLE_TYPES: [&str; 6] = ["MATERIALIZED VIEW", "SINK", "STREAM", "SYSTEM TABLE", "TABLE", "VIEW"];

/// What is the same for the server's whole life.
pub(super) struct Facts {
    server: SqlInfoData,
    types: XdbcTypeInfoData,
}

impl Facts {
    /// What this server is and can do.
    ///
    /// # Errors
    /// When the rows cannot be built.
    pub(super) fn new() -> Result<Self, FlightError> {
        Ok(Self { server: server()?, types: types()? })
    }
}

/// The rows that a command of the catalog asks for; `None` for other commands.
///
/// # Errors
/// When a view's columns cannot be found out, or a pattern is wrong.
pub(super) async fn rows(
    service: &Arc<Service>,
    session: &FlightSession,
    facts: &Facts,
    command: Command,
) -> Result<Option<RecordBatch>, RequestError> {
    Ok(Some(match command {
        Command::CommandGetCatalogs(command) => {
            let mut builder = command.into_builder();
            builder.append(CATALOG);
            builder.build().map_err(wrong)?
        }
        Command::CommandGetDbSchemas(command) => {
            let mut builder = command.into_builder();
            builder.append(CATALOG, SYSTEM_SCHEMA);
            builder.append(CATALOG, SCHEMA);
            builder.build().map_err(wrong)?
        }
        Command::CommandGetTables(command) => tables(service, session, command).await?,
        Command::CommandGetTableTypes(command) => {
            let mut builder = command.into_builder();
            TABLE_TYPES.iter().for_each(|name| builder.append(name));
            builder.build().map_err(wrong)?
        }
        Command::CommandGetSqlInfo(command) => command.into_builder(&facts.server).build().map_err(wrong)?,
        Command::CommandGetXdbcTypeInfo(command) => command.into_builder(&facts.types).build().map_err(wrong)?,
        Command::CommandGetPrimaryKeys(command) => primary_keys(service, &command)?,
        // There are no foreign keys.
        Command::CommandGetExportedKeys(_) | Command::CommandGetImportedKeys(_) | Command::CommandGetCrossReference(_) => {
            RecordBatch::new_empty(foreign_keys())
        }
        _ => return Ok(None),
    }))
}

fn wrong(error: FlightError) -> RequestError {
    RequestError::new("22023", format!("the catalog cannot be listed: {error}"), "")
}

fn table_type(entry: &CatalogEntry) -> &'static str {
    match entry.kind {
        "table" => "TABLE",
        "stream" => "STREAM",
        "view" => "VIEW",
        "materialized view" => "MATERIALIZED VIEW",
        _ => "SINK",
    }
}

async fn tables(service: &Arc<Service>, session: &FlightSession, command: CommandGetTables) -> Result<RecordBatch, RequestError> {
    let with_columns = command.include_schema;
    let mut builder: GetTablesBuilder = command.into_builder();
    let nothing = Schema::empty();
    for entry in service.engine.catalog() {
        // A view's columns follow from its query.
        if with_columns && entry.kind == "view" {
            let name = entry.name.replace('"', "\"\"");
            let schema = columns(service, session, &format!("SELECT * FROM \"{name}\"")).await;
            builder.append(CATALOG, SCHEMA, &entry.name, table_type(&entry), &schema).map_err(wrong)?;
        } else {
            builder.append(CATALOG, SCHEMA, &entry.name, table_type(&entry), &entry.schema).map_err(wrong)?;
        }
    }
    for name in SYSTEM_TABLES {
        if with_columns {
            let schema = columns(service, session, &format!("SELECT * FROM {SYSTEM_SCHEMA}.{name}")).await;
            builder.append(CATALOG, SYSTEM_SCHEMA, name, "SYSTEM TABLE", &schema).map_err(wrong)?;
        } else {
            builder.append(CATALOG, SYSTEM_SCHEMA, name, "SYSTEM TABLE", &nothing).map_err(wrong)?;
        }
    }
    builder.build().map_err(wrong)
}

/// The columns of a query; none where it cannot be planned any more, which must not hide everything else.
async fn columns(service: &Arc<Service>, session: &FlightSession, query: &str) -> SchemaRef {
    let described = match read(service, query) {
        Ok(parsed) => describe(service, session, &parsed, Vec::new()).await,
        Err(error) => Err(error),
    };
    described.ok().and_then(|described| described.columns).unwrap_or_else(|| Arc::new(Schema::empty()))
}

fn primary_keys(service: &Service, command: &CommandGetPrimaryKeys) -> Result<RecordBatch, RequestError> {
    let is_here = command.catalog.as_ref().is_none_or(|catalog| catalog == CATALOG)
        && command.db_schema.as_ref().is_none_or(|schema| schema == SCHEMA);
    let entry = service.engine.catalog().into_iter().find(|entry| is_here && entry.name == command.table);
    let key = entry.map(|entry| entry.key).unwrap_or_default();
    let all = |text: &str| Arc::new(StringArray::from_iter_values(key.iter().map(|_| text)));
    let fields = vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_name", DataType::Utf8, true),
        Field::new("key_sequence", DataType::Int32, false),
    ];
    Ok(RecordBatch::try_new(
        Arc::new(Schema::new(fields)),
        vec![
            all(CATALOG),
            all(SCHEMA),
            all(&command.table),
            Arc::new(StringArray::from_iter_values(&key)),
            all(&format!("{}_pkey", command.table)),
            Arc::new(Int32Array::from_iter_values((1..).take(key.len()))),
        ],
    )?)
}

fn foreign_keys() -> SchemaRef {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    let mut fields = Vec::new();
    for side in ["pk", "fk"] {
        fields.extend([
            text(&format!("{side}_catalog_name"), true),
            text(&format!("{side}_db_schema_name"), true),
            text(&format!("{side}_table_name"), false),
            text(&format!("{side}_column_name"), false),
        ]);
    }
    fields.extend([
        Field::new("key_sequence", DataType::Int32, false),
        text("fk_key_name", true),
        text("pk_key_name", true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]);
    Arc::new(Schema::new(fields))
}

fn server() -> Result<SqlInfoData, FlightError> {
    let mut facts = SqlInfoDataBuilder::new();
    facts.append(SqlInfo::FlightSqlServerName, "Millstream");
    facts.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    facts.append(SqlInfo::FlightSqlServerArrowVersion, arrow::ARROW_VERSION);
    facts.append(SqlInfo::FlightSqlServerReadOnly, false);
    facts.append(SqlInfo::FlightSqlServerSql, true);
    facts.append(SqlInfo::FlightSqlServerSubstrait, false);
    // BEGIN and COMMIT are statements; drivers that were told more would put every statement into a transaction, which takes no DDL.
    facts.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32);
    facts.append(SqlInfo::FlightSqlServerCancel, true);
    facts.append(SqlInfo::FlightSqlServerBulkIngestion, true);
    facts.append(SqlInfo::FlightSqlServerIngestTransactionsSupported, false);
    facts.append(SqlInfo::FlightSqlServerStatementTimeout, 0_i32);
    facts.append(SqlInfo::FlightSqlServerTransactionTimeout, 0_i32);
    facts.append(SqlInfo::SqlDdlCatalog, false);
    facts.append(SqlInfo::SqlDdlSchema, false);
    facts.append(SqlInfo::SqlDdlTable, true);
    facts.append(SqlInfo::SqlIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32);
    facts.append(SqlInfo::SqlQuotedIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityCaseInsensitive as i32);
    facts.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    facts.append(SqlInfo::SqlAllTablesAreSelectable, true);
    facts.append(SqlInfo::SqlCatalogTerm, "database");
    facts.append(SqlInfo::SqlSchemaTerm, "schema");
    facts.append(SqlInfo::SqlSupportsColumnAliasing, true);
    facts.append(SqlInfo::SqlSupportsNonNullableColumns, true);
    facts.build()
}

fn types() -> Result<XdbcTypeInfoData, FlightError> {
    let plain = |name: &str, data_type: XdbcDataType, size: i32| XdbcTypeInfo {
        type_name: name.into(),
        data_type,
        sql_data_type: data_type,
        column_size: Some(size),
        nullable: Nullable::NullabilityNullable,
        searchable: Searchable::Full,
        local_type_name: Some(name.into()),
        ..XdbcTypeInfo::default()
    };
    let number = |name, data_type, size, radix| XdbcTypeInfo {
        unsigned_attribute: Some(false),
        num_prec_radix: Some(radix),
        ..plain(name, data_type, size)
    };
    let quoted = |name, data_type, size| XdbcTypeInfo {
        literal_prefix: Some("'".into()),
        literal_suffix: Some("'".into()),
        ..plain(name, data_type, size)
    };
    let mut builder = XdbcTypeInfoDataBuilder::new();
    builder.append(plain("BOOLEAN", XdbcDataType::XdbcBit, 1));
    builder.append(number("TINYINT", XdbcDataType::XdbcTinyint, 3, 10));
    builder.append(number("SMALLINT", XdbcDataType::XdbcSmallint, 5, 10));
    builder.append(number("INT", XdbcDataType::XdbcInteger, 10, 10));
    builder.append(number("BIGINT", XdbcDataType::XdbcBigint, 19, 10));
    builder.append(number("REAL", XdbcDataType::XdbcReal, 24, 2));
    builder.append(number("DOUBLE", XdbcDataType::XdbcDouble, 53, 2));
    builder.append(XdbcTypeInfo {
        create_params: Some(vec!["precision".into(), "scale".into()]),
        minimum_scale: Some(0),
        maximum_scale: Some(38),
        ..number("DECIMAL", XdbcDataType::XdbcDecimal, 38, 10)
    });
    builder.append(XdbcTypeInfo { case_sensitive: true, ..quoted("VARCHAR", XdbcDataType::XdbcVarchar, i32::MAX) });
    builder.append(quoted("BYTEA", XdbcDataType::XdbcVarbinary, i32::MAX));
    let moment = |name, data_type, size, code| XdbcTypeInfo {
        sql_data_type: XdbcDataType::XdbcDatetime,
        datetime_subcode: Some(code),
        ..quoted(name, data_type, size)
    };
    builder.append(moment("DATE", XdbcDataType::XdbcDate, 10, XdbcDatetimeSubcode::XdbcSubcodeYear));
    builder.append(moment("TIME", XdbcDataType::XdbcTime, 15, XdbcDatetimeSubcode::XdbcSubcodeTime));
    builder.append(moment("TIMESTAMP", XdbcDataType::XdbcTimestamp, 26, XdbcDatetimeSubcode::XdbcSubcodeTimestamp));
    builder.append(moment("TIMESTAMPTZ", XdbcDataType::XdbcTimestamp, 32, XdbcDatetimeSubcode::XdbcSubcodeTimestampWithTimezone));
    builder.append(quoted("INTERVAL", XdbcDataType::XdbcInterval, 49));
    builder.build()
}
