//! Tables of `pg_catalog` that tell more here than `datafusion-pg-catalog` knows: types with their precision, primary keys, views, roles.
//!
//! | table | what is added |
//! | --- | --- |
//! | `pg_class` | the indexes of primary keys, and which tables have one |
//! | `pg_attribute` | precision and scale, types of arrays, columns of keys are not NULL; the columns of indexes |
//! | `pg_index`, `pg_constraint` | primary keys |
//! | `pg_views`, `pg_matviews` | views with their definitions |
//! | `pg_roles` | users |
//! | `pg_settings` | limits that drivers ask for |
//! | `information_schema.table_constraints`, `.key_column_usage`, `.constraint_column_usage`, `.referential_constraints` | primary keys |
//!
//! A table is computed when it is read: the rows that the inner catalog has are taken and completed from the engine's catalog.

use super::batches::{Given, list_type, lists, oids, replaced, retyped, rows, texts};
use super::keys::{Key, Known, key_name};
use super::{DATABASE, EngineSchema, Found, PUBLIC, is_relation};
use crate::pg::values::types::{columns, type_size};
use arrow::array::{ArrayRef, AsArray, BooleanArray, Int16Array, Int32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int16Type, Int32Type, Schema, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{MemTable, SchemaProvider, TableProvider};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::SessionContext;
use millstream_engine::catalog::resolve::SYSTEM_SCHEMA;
use millstream_engine::{CatalogEntry, Engine};
use millstream_types::Role;
use std::collections::HashMap;
use std::sync::Arc;

/// The number of the role that owns everything.
const OWNER: i32 = 10;
/// The access method of indexes: btree.
const BTREE: i32 = 403;
/// Columns that an index may have in PostgreSQL.
const KEY_COLUMNS: &str = "32";
/// What the names of `information_schema`'s tables are prefixed with here; DataFusion has a schema of that name of its own.
pub(super) const INFORMATION: &str = "information_schema_";
/// Its tables that are here.
pub(super) const INFORMATION_TABLES: &[&str] =
    &["table_constraints", "key_column_usage", "constraint_column_usage", "referential_constraints"];

/// `pg_catalog`, completed.
pub(super) struct Relations {
    shared: Arc<Shared>,
}

struct Shared {
    inner: Arc<dyn SchemaProvider>,
    engine: Engine,
    known: Arc<Known>,
}

impl std::fmt::Debug for Relations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relations").finish_non_exhaustive()
    }
}

impl Relations {
    pub(super) fn new(inner: Arc<dyn SchemaProvider>, engine: &Engine, known: Arc<Known>) -> Self {
        Self { shared: Arc::new(Shared { inner, engine: engine.clone(), known }) }
    }
}

impl Shared {
    fn find(self: Arc<Self>, name: String) -> Found {
        Box::pin(async move {
            let lower = name.to_ascii_lowercase();
            if let Some(table) = lower.strip_prefix(INFORMATION).filter(|table| INFORMATION_TABLES.contains(table)) {
                let batch = information(table, &self.engine.catalog())?;
                return Ok(Some(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?) as _));
            }
            let Some(inner) = self.inner.table(&name).await? else { return Ok(None) };
            let Some(table) = Completed::of(&lower) else { return Ok(Some(inner)) };
            let schema = table.schema(&inner.schema());
            let stream = Completion { table, schema: Arc::clone(&schema), inner, shared: self };
            Ok(Some(Arc::new(StreamingTable::try_new(schema, vec![Arc::new(stream)])?) as _))
        })
    }
}

impl SchemaProvider for Relations {
    fn table_names(&self) -> Vec<String> {
        self.shared.inner.table_names()
    }

    // Written as `async_trait` would, but with a future that is made elsewhere; see `flight/rpc.rs`.
    fn table<'a, 'n, 'f>(&'a self, name: &'n str) -> Found
    where
        'a: 'f,
        'n: 'f,
        Self: 'f,
    {
        Arc::clone(&self.shared).find(name.to_string())
    }

    fn table_exist(&self, name: &str) -> bool {
        self.shared.inner.table_exist(name)
            || name.to_ascii_lowercase().strip_prefix(INFORMATION).is_some_and(|table| INFORMATION_TABLES.contains(&table))
    }
}

/// A table that is completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Completed {
    Class,
    Attribute,
    Index,
    Constraint,
    Views,
    MaterializedViews,
    Roles,
    Settings,
}

impl Completed {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "pg_class" => Completed::Class,
            "pg_attribute" => Completed::Attribute,
            "pg_index" => Completed::Index,
            "pg_constraint" => Completed::Constraint,
            "pg_views" => Completed::Views,
            "pg_matviews" => Completed::MaterializedViews,
            "pg_roles" => Completed::Roles,
            "pg_settings" => Completed::Settings,
            _ => return None,
        })
    }

    fn schema(self, inner: &SchemaRef) -> SchemaRef {
        let list = |names: &'static [&'static str]| names.iter().map(|name| (*name, list_type())).collect::<Vec<_>>();
        match self {
            Completed::Index => {
                // No index is over an expression or a part of a table: these two say so by NULL.
                let mut types = vec![("indexprs", DataType::Utf8), ("indpred", DataType::Utf8)];
                types.extend(list(&["indkey", "indoption", "indcollation", "indclass"]));
                retyped(inner, &types)
            }
            Completed::Constraint => retyped(inner, &list(&["conkey", "confkey"])),
            _ => Arc::clone(inner),
        }
    }
}

/// The rows of a table, when they are asked for.
struct Completion {
    table: Completed,
    schema: SchemaRef,
    inner: Arc<dyn TableProvider>,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Completion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Completion").field("table", &self.table).finish_non_exhaustive()
    }
}

impl PartitionStream for Completion {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (table, schema, inner, shared) = (self.table, Arc::clone(&self.schema), Arc::clone(&self.inner), Arc::clone(&self.shared));
        let rows = async move { shared.completed(table, &schema, inner).await };
        let batches = futures::stream::once(rows);
        let batches = futures::StreamExt::flat_map(batches, |rows| match rows {
            Ok(batches) => futures::stream::iter(batches.into_iter().map(Ok).collect::<Vec<_>>()),
            Err(error) => futures::stream::iter(vec![Err(error)]),
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

/// Relations by their numbers.
struct Numbered {
    /// The engine's own: number, schema's number, entry.
    entries: Vec<(i32, i32, CatalogEntry)>,
    /// The number of each relation of the engine and its system tables: name, whether it is a system table.
    names: HashMap<i32, (String, bool)>,
    keys: Vec<Arc<Key>>,
}

impl Shared {
    async fn completed(&self, table: Completed, schema: &SchemaRef, inner: Arc<dyn TableProvider>) -> Result<Vec<RecordBatch>> {
        match table {
            Completed::Class => {
                let batches = collected(inner).await?;
                let numbered = self.numbered(&batches).await?;
                classes(&batches, schema, &numbered.keys)
            }
            Completed::Attribute => {
                let numbered = self.numbered_now().await?;
                let columns = self.columns(&numbered).await?;
                attributes(&collected(inner).await?, schema, &columns, &numbered.keys)
            }
            Completed::Index => Ok(vec![indexes(schema, &self.numbered_now().await?.keys)?]),
            Completed::Constraint => Ok(vec![constraints(schema, &self.numbered_now().await?.keys)?]),
            Completed::Views => Ok(vec![views(schema, &self.engine.catalog(), "view", "viewname", "viewowner")?]),
            Completed::MaterializedViews => {
                Ok(vec![views(schema, &self.engine.catalog(), "materialized view", "matviewname", "matviewowner")?])
            }
            Completed::Roles => Ok(vec![roles(schema, &self.engine)?]),
            Completed::Settings => {
                let mut batches = collected(inner).await?;
                batches.push(rows(schema, 1, &[("name", texts(["max_index_keys"])), ("setting", texts([KEY_COLUMNS]))])?);
                Ok(batches)
            }
        }
    }

    async fn numbered_now(&self) -> Result<Numbered> {
        let classes = self.inner.table("pg_class").await?.ok_or_else(|| missing("pg_class"))?;
        self.numbered(&collected(classes).await?).await
    }

    /// The relations of the engine among the rows of `pg_class`.
    async fn numbered(&self, classes: &[RecordBatch]) -> Result<Numbered> {
        let namespaces = self.inner.table("pg_namespace").await?.ok_or_else(|| missing("pg_namespace"))?;
        let mut schemas: HashMap<i32, bool> = HashMap::new();
        for batch in &collected(namespaces).await? {
            let (oids, names) =
                (numbers(batch, "oid")?, column(batch, "nspname")?.as_string_opt::<i32>().ok_or_else(|| missing("nspname"))?);
            for row in 0..batch.num_rows() {
                match names.value(row) {
                    PUBLIC => drop(schemas.insert(oids.value(row), false)),
                    SYSTEM_SCHEMA => drop(schemas.insert(oids.value(row), true)),
                    _ => {}
                }
            }
        }
        let catalog: HashMap<String, CatalogEntry> =
            self.engine.catalog().into_iter().filter(is_relation).map(|entry| (entry.name.clone(), entry)).collect();
        let mut numbered = Numbered { entries: Vec::new(), names: HashMap::new(), keys: Vec::new() };
        for batch in classes {
            let (oids, namespaces) = (numbers(batch, "oid")?, numbers(batch, "relnamespace")?);
            let names = column(batch, "relname")?.as_string_opt::<i32>().ok_or_else(|| missing("relname"))?;
            for row in 0..batch.num_rows() {
                let (oid, namespace, name) = (oids.value(row), namespaces.value(row), names.value(row));
                let Some(&is_system) = schemas.get(&namespace) else { continue };
                numbered.names.insert(oid, (name.to_string(), is_system));
                if let (false, Some(entry)) = (is_system, catalog.get(name)) {
                    numbered.keys.extend(key(oid, namespace, entry).map(Arc::new));
                    numbered.entries.push((oid, namespace, entry.clone()));
                }
            }
        }
        let is_view = |entry: &CatalogEntry| matches!(entry.kind, "view" | "materialized view");
        let views = numbered.entries.iter().filter(|(.., entry)| is_view(entry));
        self.known.note(&numbered.keys, views.map(|(oid, _, entry)| (*oid, query_of(&entry.sql))).collect());
        Ok(numbered)
    }

    /// The columns of the engine's relations.
    async fn columns(&self, numbered: &Numbered) -> Result<HashMap<i32, SchemaRef>> {
        let mut schemas = HashMap::new();
        for (oid, (name, is_system)) in &numbered.names {
            let tables = EngineSchema { engine: self.engine.clone(), is_system: *is_system };
            if let Some(table) = tables.table(name).await? {
                schemas.insert(*oid, table.schema());
            }
        }
        Ok(schemas)
    }
}

fn key(relation: i32, namespace: i32, entry: &CatalogEntry) -> Option<Key> {
    let place = |column: &String| i16::try_from(entry.schema.index_of(column).ok()? + 1).ok();
    let places = entry.key.iter().map(place).collect::<Option<Vec<i16>>>()?;
    (!places.is_empty()).then(|| Key { relation, namespace, table: entry.name.clone(), columns: entry.key.clone(), places })
}

/// The query of `CREATE .. VIEW .. AS query`.
fn query_of(sql: &str) -> String {
    let query = millstream_sql::parse_statement(sql).ok().and_then(|statement| statement.query().map(ToString::to_string));
    query.unwrap_or_else(|| sql.to_string())
}

fn missing(name: &str) -> DataFusionError {
    DataFusionError::Internal(format!("the catalog's \"{name}\" is not as it was"))
}

async fn collected(table: Arc<dyn TableProvider>) -> Result<Vec<RecordBatch>> {
    SessionContext::new().read_table(table)?.collect().await
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| missing(name))
}

fn numbers<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a Int32Array> {
    column(batch, name)?.as_primitive_opt::<Int32Type>().ok_or_else(|| missing(name))
}

fn classes(batches: &[RecordBatch], schema: &SchemaRef, keys: &[Arc<Key>]) -> Result<Vec<RecordBatch>> {
    let mut completed = Vec::with_capacity(batches.len() + 1);
    for batch in batches {
        let has_key = numbers(batch, "oid")?.values().iter().map(|oid| Some(keys.iter().any(|key| key.relation == *oid)));
        let has_key: ArrayRef = Arc::new(has_key.collect::<BooleanArray>());
        let owners = oids(std::iter::repeat_n(OWNER, batch.num_rows()));
        completed.push(replaced(batch, schema, &[("relhasindex", has_key), ("relowner", owners)])?);
    }
    let same = |value: &'static str| texts(std::iter::repeat_n(value, keys.len()));
    let given: [Given<'_>; 12] = [
        ("oid", oids(keys.iter().map(|key| key.index()))),
        ("relname", texts(keys.iter().map(|key| key.name()))),
        ("relnamespace", oids(keys.iter().map(|key| key.namespace))),
        ("relowner", oids(keys.iter().map(|_| OWNER))),
        ("relam", oids(keys.iter().map(|_| BTREE))),
        ("relfilenode", oids(keys.iter().map(|key| key.index()))),
        ("relpersistence", same("p")),
        ("relkind", same("i")),
        ("relreplident", same("n")),
        ("relispopulated", Arc::new(BooleanArray::from(vec![true; keys.len()]))),
        ("relnatts", small(keys.iter().map(|key| key.places.len()))),
        ("relpages", oids(keys.iter().map(|_| 1))),
    ];
    completed.push(rows(schema, keys.len(), &given)?);
    Ok(completed)
}

fn small(values: impl Iterator<Item = usize>) -> ArrayRef {
    Arc::new(Int16Array::from_iter_values(values.map(|value| i16::try_from(value).unwrap_or(i16::MAX))))
}

fn attributes(
    batches: &[RecordBatch],
    schema: &SchemaRef,
    relations: &HashMap<i32, SchemaRef>,
    keys: &[Arc<Key>],
) -> Result<Vec<RecordBatch>> {
    let types: HashMap<i32, Vec<super::Column>> = relations.iter().map(|(oid, schema)| (*oid, columns(schema))).collect();
    let mut completed = Vec::with_capacity(batches.len());
    for batch in batches {
        let (relations, present) = (numbers(batch, "attrelid")?, numbers(batch, "atttypid")?);
        let places = column(batch, "attnum")?.as_primitive_opt::<Int16Type>().ok_or_else(|| missing("attnum"))?;
        let lengths = column(batch, "attlen")?.as_primitive_opt::<Int16Type>().ok_or_else(|| missing("attlen"))?;
        let not_null = column(batch, "attnotnull")?.as_boolean_opt().ok_or_else(|| missing("attnotnull"))?;
        let (mut kinds, mut modifiers, mut sizes, mut dimensions, mut fixed) = (vec![], vec![], vec![], vec![], vec![]);
        for row in 0..batch.num_rows() {
            let (relation, place) = (relations.value(row), places.value(row));
            let index = usize::try_from(place).unwrap_or(0).wrapping_sub(1);
            match types.get(&relation).and_then(|columns| columns.get(index)) {
                Some(column) => {
                    kinds.push(i32::try_from(column.kind.oid()).unwrap_or(0));
                    modifiers.push(column.modifier);
                    sizes.push(type_size(&column.kind));
                    dimensions.push(i32::from(matches!(column.kind.kind(), postgres_types::Kind::Array(_))));
                }
                None => {
                    kinds.push(present.value(row));
                    modifiers.push(-1);
                    sizes.push(lengths.value(row));
                    dimensions.push(0);
                }
            }
            fixed.push(not_null.value(row) || keys.iter().any(|key| key.relation == relation && key.places.contains(&place)));
        }
        let given: [Given<'_>; 5] = [
            ("atttypid", oids(kinds)),
            ("atttypmod", oids(modifiers)),
            ("attlen", Arc::new(Int16Array::from(sizes))),
            ("attndims", oids(dimensions)),
            ("attnotnull", Arc::new(BooleanArray::from(fixed))),
        ];
        completed.push(replaced(batch, schema, &given)?);
    }
    completed.push(index_columns(schema, &types, keys)?);
    Ok(completed)
}

/// The columns of the indexes of keys: those of their tables.
fn index_columns(schema: &SchemaRef, types: &HashMap<i32, Vec<super::Column>>, keys: &[Arc<Key>]) -> Result<RecordBatch> {
    let columns = keys.iter().flat_map(|key| {
        let of_table = types.get(&key.relation).map(Vec::as_slice).unwrap_or_default();
        (1..).zip(&key.places).filter_map(move |(place, column)| {
            let column = of_table.get(usize::try_from(*column).ok()?.checked_sub(1)?)?;
            Some((key.index(), place, column))
        })
    });
    let columns: Vec<(i32, i16, &super::Column)> = columns.collect();
    let yes: ArrayRef = Arc::new(BooleanArray::from(vec![true; columns.len()]));
    let given: [Given<'_>; 9] = [
        ("attrelid", oids(columns.iter().map(|(index, ..)| *index))),
        ("attname", texts(columns.iter().map(|(.., column)| &column.name))),
        ("atttypid", oids(columns.iter().map(|(.., column)| i32::try_from(column.kind.oid()).unwrap_or(0)))),
        ("attstattarget", oids(columns.iter().map(|_| -1))),
        ("attlen", Arc::new(Int16Array::from_iter_values(columns.iter().map(|(.., column)| type_size(&column.kind))))),
        ("attnum", Arc::new(Int16Array::from_iter_values(columns.iter().map(|(_, place, _)| *place)))),
        ("atttypmod", oids(columns.iter().map(|(.., column)| column.modifier))),
        ("attnotnull", Arc::clone(&yes)),
        ("attislocal", yes),
    ];
    Ok(rows(schema, columns.len(), &given)?)
}

fn indexes(schema: &SchemaRef, keys: &[Arc<Key>]) -> Result<RecordBatch> {
    let yes: ArrayRef = Arc::new(BooleanArray::from(vec![true; keys.len()]));
    let zeros = || lists(keys.iter().map(|key| vec![0; key.places.len()]));
    let given: [Given<'_>; 13] = [
        ("indexrelid", oids(keys.iter().map(|key| key.index()))),
        ("indrelid", oids(keys.iter().map(|key| key.relation))),
        ("indnatts", small(keys.iter().map(|key| key.places.len()))),
        ("indnkeyatts", small(keys.iter().map(|key| key.places.len()))),
        ("indisunique", Arc::clone(&yes)),
        ("indisprimary", Arc::clone(&yes)),
        ("indimmediate", Arc::clone(&yes)),
        ("indisvalid", Arc::clone(&yes)),
        ("indisready", Arc::clone(&yes)),
        ("indislive", yes),
        ("indkey", lists(keys.iter().map(|key| key.places.clone()))),
        ("indoption", zeros()),
        ("indclass", zeros()),
    ];
    Ok(rows(schema, keys.len(), &given)?)
}

fn constraints(schema: &SchemaRef, keys: &[Arc<Key>]) -> Result<RecordBatch> {
    let yes: ArrayRef = Arc::new(BooleanArray::from(vec![true; keys.len()]));
    let given: [Given<'_>; 10] = [
        ("oid", oids(keys.iter().map(|key| key.constraint()))),
        ("conname", texts(keys.iter().map(|key| key.name()))),
        ("connamespace", oids(keys.iter().map(|key| key.namespace))),
        ("contype", texts(keys.iter().map(|_| "p"))),
        ("convalidated", Arc::clone(&yes)),
        ("conrelid", oids(keys.iter().map(|key| key.relation))),
        ("conindid", oids(keys.iter().map(|key| key.index()))),
        ("conislocal", Arc::clone(&yes)),
        ("connoinherit", yes),
        ("conkey", lists(keys.iter().map(|key| key.places.clone()))),
    ];
    Ok(rows(schema, keys.len(), &given)?)
}

fn views(schema: &SchemaRef, catalog: &[CatalogEntry], kind: &str, name: &str, owner: &str) -> Result<RecordBatch> {
    let views: Vec<&CatalogEntry> = catalog.iter().filter(|entry| entry.kind == kind).collect();
    let given: [Given<'_>; 5] = [
        ("schemaname", texts(views.iter().map(|_| PUBLIC))),
        (name, texts(views.iter().map(|entry| &entry.name))),
        (owner, texts(views.iter().map(|_| "postgres"))),
        ("ispopulated", Arc::new(BooleanArray::from(vec![true; views.len()]))),
        ("definition", texts(views.iter().map(|entry| query_of(&entry.sql)))),
    ];
    Ok(rows(schema, views.len(), &given)?)
}

/// The role that owns everything, and the users.
fn roles(schema: &SchemaRef, engine: &Engine) -> Result<RecordBatch> {
    let users = engine.users().into_iter().map(|(user, _)| {
        let connections = user.limits.connections.map_or(-1, |most| i32::try_from(most).unwrap_or(i32::MAX));
        (user.name, user.role == Role::Admin, connections)
    });
    let owner = [("postgres".to_string(), true, -1)];
    let all: Vec<(String, bool, i32)> = owner.into_iter().chain(users.filter(|(name, ..)| name != "postgres")).collect();
    let all_of = |value: bool| -> ArrayRef { Arc::new(BooleanArray::from(vec![value; all.len()])) };
    let admin = || -> ArrayRef { Arc::new(BooleanArray::from(all.iter().map(|(_, admin, _)| *admin).collect::<Vec<bool>>())) };
    let given: [Given<'_>; 11] = [
        ("rolname", texts(all.iter().map(|(name, ..)| name))),
        ("rolsuper", admin()),
        ("rolinherit", all_of(true)),
        ("rolcreaterole", all_of(false)),
        ("rolcreatedb", all_of(false)),
        ("rolcanlogin", all_of(true)),
        ("rolreplication", all_of(false)),
        ("rolbypassrls", all_of(false)),
        ("rolconnlimit", oids(all.iter().map(|(.., connections)| *connections))),
        ("rolpassword", texts(all.iter().map(|_| "********"))),
        ("oid", oids((OWNER..).take(all.len()))),
    ];
    Ok(rows(schema, all.len(), &given)?)
}

/// A table of `information_schema` about primary keys.
fn information(table: &str, catalog: &[CatalogEntry]) -> Result<RecordBatch> {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let keyed: Vec<&CatalogEntry> = catalog.iter().filter(|entry| !entry.key.is_empty()).collect();
    // Constraints have a row each, or one for each of their columns.
    let columns: Vec<(&CatalogEntry, Option<(i32, &String)>)> = match table {
        "table_constraints" => keyed.into_iter().map(|entry| (entry, None)).collect(),
        "key_column_usage" | "constraint_column_usage" => {
            keyed.into_iter().flat_map(|entry| (1..).zip(&entry.key).map(move |column| (entry, Some(column)))).collect()
        }
        _ => Vec::new(),
    };
    let same = |value: &'static str| texts(columns.iter().map(|_| value));
    let places = columns.iter().filter_map(|(_, column)| column.map(|(place, _)| place));
    let names = columns.iter().filter_map(|(_, column)| column.map(|(_, name)| name));
    let given: [Given<'_>; 13] = [
        ("constraint_catalog", same(DATABASE)),
        ("constraint_schema", same(PUBLIC)),
        ("constraint_name", texts(columns.iter().map(|(entry, _)| key_name(&entry.name)))),
        ("table_catalog", same(DATABASE)),
        ("table_schema", same(PUBLIC)),
        ("table_name", texts(columns.iter().map(|(entry, _)| &entry.name))),
        ("constraint_type", same("PRIMARY KEY")),
        ("is_deferrable", same("NO")),
        ("initially_deferred", same("NO")),
        ("enforced", same("YES")),
        ("nulls_distinct", same("YES")),
        ("column_name", texts(names)),
        ("ordinal_position", oids(places)),
    ];
    let constraint = ["constraint_catalog", "constraint_schema", "constraint_name"];
    let of_table = ["table_catalog", "table_schema", "table_name"];
    let fields: Vec<Field> = match table {
        "table_constraints" => {
            let rest = ["constraint_type", "is_deferrable", "initially_deferred", "enforced", "nulls_distinct"];
            constraint.iter().chain(&of_table).chain(&rest).map(|name| text(name)).collect()
        }
        "key_column_usage" => {
            let names = constraint.iter().chain(&of_table).chain(&["column_name"]).map(|name| text(name));
            let numbers = ["ordinal_position", "position_in_unique_constraint"].map(|name| Field::new(name, DataType::Int32, true));
            names.chain(numbers).collect()
        }
        "constraint_column_usage" => of_table.iter().chain(&["column_name"]).chain(&constraint).map(|name| text(name)).collect(),
        _ => {
            let rest = ["unique_constraint_catalog", "unique_constraint_schema", "unique_constraint_name", "match_option"];
            constraint.iter().chain(&rest).chain(&["update_rule", "delete_rule"]).map(|name| text(name)).collect()
        }
    };
    Ok(rows(&Arc::new(Schema::new(fields)), columns.len(), &given)?)
}
