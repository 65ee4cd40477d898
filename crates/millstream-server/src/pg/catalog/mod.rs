//! `pg_catalog` and `information_schema`: what clients ask to find out what there is.
//!
//! Such queries (psql's `\d`, a driver's list of tables) are planned by themselves, in a DataFusion session whose tables have columns but
//! no rows: names come live from the engine's catalog, the tables of `pg_catalog` from `datafusion-pg-catalog`, whose parser also turns
//! PostgreSQL's spelling (`'v'::regclass`, `OPERATOR(pg_catalog.~)`) into DataFusion's. Everything else goes to the engine.

mod batches;
mod functions;
mod keys;
mod relations;
mod simplify;

use super::names;
use super::values::types::Column;
use crate::error::{RequestError, codes};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, SchemaProvider, TableProvider};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{LogicalPlan, TableType};
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_pg_catalog::setup_pg_catalog;
use datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use futures::future::BoxFuture;
use keys::Known;
use millstream_engine::catalog::resolve::SYSTEM_SCHEMA;
use millstream_engine::system_tables::SYSTEM_TABLES;
use millstream_engine::{CatalogEntry, Engine, EngineError};
use millstream_sql::visit::{any_expr, each_expr, each_expr_mut, each_relation};
use relations::Relations;
use sqlparser::ast::{self, Expr, ObjectName, ObjectNamePart};
use std::collections::HashSet;
use std::sync::Arc;

/// What `current_database()` says.
pub(crate) const DATABASE: &str = "millstream";
/// The schema of the catalog itself.
const PG_CATALOG: &str = "pg_catalog";
/// The schema of the engine's catalog.
const PUBLIC: &str = "public";

/// The version clients are told: the one whose catalog is imitated.
pub(crate) fn server_version() -> String {
    format!("15.0 (Millstream {})", env!("CARGO_PKG_VERSION"))
}

/// A relation of a schema, being looked for.
type Found = BoxFuture<'static, DataFusionResult<Option<Arc<dyn TableProvider>>>>;

/// The catalog queries of all connections.
pub(crate) struct PgCatalog {
    context: SessionContext,
    parser: PostgresCompatibilityParser,
    /// Functions that the engine does not have.
    own_functions: HashSet<String>,
}

/// A query over the catalog, as it is planned.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CatalogQuery(ast::Statement);

impl PgCatalog {
    /// The catalog of an engine.
    ///
    /// # Errors
    /// When a table of `pg_catalog` cannot be made.
    pub(crate) fn new(engine: &Engine) -> Result<Self, EngineError> {
        let config = SessionConfig::new().with_information_schema(true).with_default_catalog_and_schema(DATABASE, PUBLIC);
        let context = SessionContext::new_with_config(config.with_create_default_catalog_and_schema(false).with_target_partitions(1));
        let catalog = MemoryCatalogProvider::new();
        for schema in [PUBLIC, SYSTEM_SCHEMA] {
            let tables = EngineSchema { engine: engine.clone(), is_system: schema == SYSTEM_SCHEMA };
            catalog.register_schema(schema, Arc::new(tables)).map_err(EngineError::from)?;
        }
        context.register_catalog(DATABASE, Arc::new(catalog));
        setup_pg_catalog(&context, DATABASE, EmptyContextProvider).map_err(|error| EngineError::from(*error))?;
        let known = Arc::new(Known::default());
        if let Some(catalog) = context.catalog(DATABASE)
            && let Some(inner) = catalog.schema(PG_CATALOG)
        {
            let completed = Relations::new(inner, engine, Arc::clone(&known));
            catalog.register_schema(PG_CATALOG, Arc::new(completed)).map_err(EngineError::from)?;
        }
        functions::of_known(&known).into_iter().for_each(|function| context.register_udf(function));
        for function in functions::all() {
            // What is answered there in earnest stays.
            let is_known = context.state().scalar_functions().contains_key(function.name());
            if !is_known || function.name() == "version" {
                context.register_udf(function);
            }
        }
        let of_engine = engine.session_context().state();
        let of_context = context.state();
        let own_functions = of_context.scalar_functions().keys().filter(|name| !of_engine.scalar_functions().contains_key(*name)).cloned();
        let own_functions = own_functions.chain(["version".to_string()]).collect();
        Ok(Self { context, parser: PostgresCompatibilityParser::new(), own_functions })
    }

    /// The query that a statement is, if it asks for what the catalog knows.
    pub(crate) fn recognize(&self, text: &str) -> Option<CatalogQuery> {
        if !might_be_catalog(text) {
            return None;
        }
        let mut statements = self.parser.parse(text).ok()?;
        let (Some(statement @ ast::Statement::Query(_)), 0) = (statements.pop(), statements.len()) else { return None };
        let mut relations = 0;
        let mut of_catalog = 0;
        each_relation(&statement, &mut |name| {
            relations += 1;
            of_catalog += usize::from(is_catalog_relation(name));
        });
        // Some queries over the catalog, those about policies say, are known to the parser to have no rows.
        let is_replaced = || text.contains("FROM pg_catalog.");
        let is_catalog = of_catalog > 0 || (relations == 0 && (self.calls_own_function(&statement) || is_replaced()));
        if !is_catalog {
            return None;
        }
        let mut statement = statement;
        simplify::simplify(&mut statement);
        if let ast::Statement::Query(query) = &mut statement {
            names::make_distinct(query);
        }
        Some(CatalogQuery(statement))
    }

    /// Whether a query calls a function that only the catalog has.
    fn calls_own_function(&self, statement: &ast::Statement) -> bool {
        any_expr(statement, &mut |expr| match expr {
            Expr::Function(function) => match function.name.0.last() {
                Some(ObjectNamePart::Identifier(ident)) => self.own_functions.contains(&ident.value.to_lowercase()),
                _ => false,
            },
            _ => false,
        })
    }

    /// The plan of a query, with the types of its parameters and its columns.
    ///
    /// # Errors
    /// When it cannot be planned.
    pub(crate) async fn plan(&self, query: &CatalogQuery) -> Result<LogicalPlan, RequestError> {
        let statement = DfStatement::Statement(Box::new(query.0.clone()));
        self.context.state().statement_to_plan(statement).await.map_err(|error| EngineError::from(error).into())
    }

    /// The types of a query's parameters, and its columns. `given` are the types that the client names.
    ///
    /// # Errors
    /// When it cannot be planned.
    pub(crate) async fn describe(
        &self,
        query: &CatalogQuery,
        given: &[Option<DataType>],
    ) -> Result<(Vec<DataType>, SchemaRef), RequestError> {
        let plan = self.plan(query).await?;
        let mut types: Vec<Option<DataType>> = given.to_vec();
        for (index, element) in query.lists() {
            if types.len() <= index {
                types.resize(index + 1, None);
            }
            types[index].get_or_insert_with(|| DataType::new_list(element, true));
        }
        for (name, data_type) in plan.get_parameter_types().map_err(EngineError::from)? {
            let Some(index) = millstream_sql::parameters::index(&name) else { continue };
            if types.len() <= index {
                types.resize(index + 1, None);
            }
            if types[index].is_none() {
                types[index] = data_type.filter(|data_type| *data_type != DataType::Null);
            }
        }
        let types = types.into_iter().map(|data_type| data_type.unwrap_or(DataType::Utf8)).collect();
        let optimized = self.context.state().optimize(&plan).unwrap_or(plan);
        Ok((types, Arc::new(optimized.schema().as_arrow().clone())))
    }

    /// Runs a query without parameters.
    ///
    /// # Errors
    /// When it fails.
    pub(crate) async fn run(&self, query: &CatalogQuery) -> Result<SendableRecordBatchStream, RequestError> {
        let plan = self.plan(query).await?;
        let frame = DataFrame::new(self.context.state(), plan);
        frame.execute_stream().await.map_err(|error| EngineError::from(error).into())
    }
}

impl CatalogQuery {
    /// The parameters that are lists: those that are cast to arrays, of `oid`s mostly (`$1::oid[]`), and those that something is looked
    /// for in (`= ANY($1)`), of texts mostly.
    fn lists(&self) -> Vec<(usize, DataType)> {
        let mut found = Vec::new();
        each_expr(&self.0, &mut |expr| {
            found.extend(cast_to_array(expr).map(|index| (index, DataType::Int32)));
            found.extend(simplify::searched(expr).map(|index| (index, DataType::Utf8)));
        });
        found
    }

    /// The same query with values in place of its parameters.
    ///
    /// # Errors
    /// A placeholder that is no parameter.
    pub(crate) fn bound(&self, values: &[Expr]) -> Result<Self, RequestError> {
        let mut statement = self.0.clone();
        // An array has its type already, and `oid[]` is none that DataFusion casts to.
        each_expr_mut(&mut statement, &mut |expr| {
            if let Some(index) = cast_to_array(expr)
                && let Some(value) = values.get(index)
            {
                *expr = value.clone();
            }
        });
        millstream_sql::parameters::replace(&mut statement, &mut |index| values.get(index).cloned())?;
        Ok(Self(statement))
    }
}

/// The parameter that an expression casts to an array.
fn cast_to_array(expr: &Expr) -> Option<usize> {
    let Expr::Cast { expr: operand, data_type: ast::DataType::Array(_), .. } = expr else { return None };
    let Expr::Value(value) = operand.as_ref() else { return None };
    match &value.value {
        ast::Value::Placeholder(name) => millstream_sql::parameters::index(name),
        _ => None,
    }
}

/// Words without which a statement asks nothing of the catalog; a quick look before it is parsed.
const WORDS: &[&str] = &[
    "pg_",
    "information_schema",
    "version",
    "current_",
    "session_user",
    "regclass",
    "regtype",
    "has_",
    "quote_ident",
    "inet_",
    "set_config",
    "obj_description",
];

fn might_be_catalog(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    WORDS.iter().any(|word| lower.contains(word))
}

fn is_catalog_relation(name: &ObjectName) -> bool {
    let parts: Vec<String> = name.0.iter().filter_map(ObjectNamePart::as_ident).map(|ident| ident.value.to_lowercase()).collect();
    match parts.as_slice() {
        [.., schema, _] => schema == "pg_catalog" || schema == "information_schema",
        [name] => name == "pg_get_keywords",
        [] => false,
    }
}

/// The relations of the engine, without their rows.
#[derive(Clone)]
struct EngineSchema {
    engine: Engine,
    is_system: bool,
}

impl std::fmt::Debug for EngineSchema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineSchema").field("is_system", &self.is_system).finish_non_exhaustive()
    }
}

impl EngineSchema {
    fn entry(&self, name: &str) -> Option<CatalogEntry> {
        self.engine.catalog().into_iter().find(|entry| entry.name == name && is_relation(entry))
    }

    /// The columns of what the catalog has no columns of: views that are not kept, system tables.
    async fn columns(&self, name: &str) -> SchemaRef {
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        let relation = if self.is_system { format!("{SYSTEM_SCHEMA}.{quoted}") } else { quoted };
        let Ok(statement) = millstream_sql::parse_statement(&format!("SELECT * FROM {relation}")) else { return Arc::new(Schema::empty()) };
        // A view over what is gone is still there, with columns nobody knows.
        let described = self.engine.session().describe_statement(&statement, &[]).await;
        described.ok().and_then(|described| described.columns).unwrap_or_else(|| Arc::new(Schema::empty()))
    }

    fn find(self, name: String) -> Found {
        Box::pin(async move {
            let (schema, table_type) = match (self.is_system, self.entry(&name)) {
                (true, _) if SYSTEM_TABLES.contains(&name.as_str()) => (self.columns(&name).await, TableType::View),
                (false, Some(entry)) => match entry.kind {
                    "view" => (self.columns(&name).await, TableType::View),
                    "materialized view" => (entry.schema, TableType::View),
                    _ => (entry.schema, TableType::Base),
                },
                _ => return Ok(None),
            };
            Ok(Some(Arc::new(WithoutRows { schema, table_type }) as _))
        })
    }
}

/// A sink is none: its rows are elsewhere.
fn is_relation(entry: &CatalogEntry) -> bool {
    entry.kind != "sink"
}

impl SchemaProvider for EngineSchema {
    fn table_names(&self) -> Vec<String> {
        match self.is_system {
            true => SYSTEM_TABLES.iter().map(ToString::to_string).collect(),
            false => self.engine.catalog().into_iter().filter(is_relation).map(|entry| entry.name).collect(),
        }
    }

    // Written as `async_trait` would, but with a future that is made elsewhere; see `flight/rpc.rs`.
    fn table<'a, 'n, 'f>(&'a self, name: &'n str) -> Found
    where
        'a: 'f,
        'n: 'f,
        Self: 'f,
    {
        self.clone().find(name.to_string())
    }

    fn table_exist(&self, name: &str) -> bool {
        if self.is_system { SYSTEM_TABLES.contains(&name) } else { self.entry(name).is_some() }
    }
}

/// A relation that has a place in the catalog; its rows are the engine's.
#[derive(Debug)]
struct WithoutRows {
    schema: SchemaRef,
    table_type: TableType,
}

#[async_trait]
impl TableProvider for WithoutRows {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        self.table_type
    }

    async fn scan(
        &self,
        _state: &dyn datafusion::catalog::Session,
        _projection: Option<&Vec<usize>>,
        _filters: &[datafusion::logical_expr::Expr],
        _limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn datafusion::physical_plan::ExecutionPlan>> {
        let error = RequestError::new(
            codes::NOT_SUPPORTED,
            "a query reads either the catalog (pg_catalog, information_schema) or relations, not both",
            "",
        );
        Err(DataFusionError::Plan(error.message))
    }
}
