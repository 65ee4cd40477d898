//! What a statement takes and gives before it runs: types of its parameters and columns of its result.
//!
//! ```text
//!   INSERT INTO t (a, b) VALUES ($1, $2)          parameters: the types of t.a and t.b     result: none
//!   SELECT n + 1 AS m FROM v WHERE word = $1      parameters: the type of v.word           result: m BIGINT
//! ```
//! Types that the client names are taken. Others follow from a cast, from the column that a value is inserted into or from what it is
//! compared with, as DataFusion infers it; what nothing decides is VARCHAR, as in PostgreSQL. With all types known the statement is planned
//! again with typed NULLs in place of its parameters, which gives the columns of its result.

use super::Session;
use super::contents::{BatchContents, NamesOnly};
use super::parameter_types::{Written, parameter, written};
use super::show::describe_columns;
use crate::catalog::cache::CatalogCache;
use crate::catalog::resolve::{Resolved, Resolver, SYSTEM_SCHEMA, fold, object_name};
use crate::error::Result;
use crate::pipeline::command::Command;
use crate::pipeline::snapshot::SnapshotRequest;
use crate::result::Output;
use crate::sql_types::ast_type;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use millstream_sql::statement::{CopySource, CopyTarget, Emit, Explain, ExplainMode, SubscribeSource};
use millstream_sql::{Statement, parse_query};
use sqlparser::ast::{self, AssignmentTarget, Expr, Query, SelectItem, SetExpr};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a statement takes and gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// The types of `$1`, `$2`, ....
    pub parameters: Vec<DataType>,
    /// Its columns, if it gives rows.
    pub columns: Option<SchemaRef>,
}

/// What queries take and give, by their text and the types that the client names.
#[derive(Debug)]
pub struct Descriptions {
    found: CatalogCache<(String, Vec<Option<DataType>>), Described>,
}

impl Default for Descriptions {
    fn default() -> Self {
        Self { found: CatalogCache::new(256) }
    }
}

impl Session {
    /// What a statement takes and gives. `given` are the types of parameters that the client names.
    ///
    /// # Errors
    /// When the statement would fail already for what it names.
    pub async fn describe_statement(&self, statement: &Statement, given: &[Option<DataType>]) -> Result<Described> {
        self.authorize(statement)?;
        let (session, statement, given) = (self.clone(), statement.clone(), given.to_vec());
        self.engine.readers().run(async move { session.describe_here(&statement, &given).await }).await
    }

    async fn describe_here(&self, statement: &Statement, given: &[Option<DataType>]) -> Result<Described> {
        // A transaction sees the catalog of its beginning.
        let query = match statement {
            Statement::Query(query) if !self.in_transaction() => query,
            _ => return self.describe_anew(statement, given).await,
        };
        let shared = self.engine.shared();
        let catalog = shared.catalog.read().clone();
        let key = (statement.to_string(), given.to_vec());
        if let Some(described) = shared.descriptions.found.get(&catalog, &key) {
            return Ok(described);
        }
        let described = self.describe_anew(statement, given).await?;
        let reads = Resolver { catalog: &catalog, base: &shared.base, contents: &NamesOnly { shared } }.reads(&query.query)?;
        // Files change without anybody's statement.
        if reads.is_settled && reads.files.is_empty() {
            let objects = reads.objects.iter().filter_map(|name| catalog.get(name).cloned()).collect();
            shared.descriptions.found.put(key, described.clone(), objects);
        }
        Ok(described)
    }

    async fn describe_anew(&self, statement: &Statement, given: &[Option<DataType>]) -> Result<Described> {
        let count = statement.parameter_count()?.max(given.len());
        let mut types: Vec<Option<DataType>> = given.to_vec();
        types.resize(count, None);
        if types.iter().any(Option::is_none) {
            let mut partly = statement.clone();
            partly.replace_parameters(&mut |index| types[index].as_ref().and_then(|data_type| typed_null(data_type).ok()))?;
            let mut lists = BTreeSet::new();
            for (index, written) in written_in(&mut partly) {
                let data_type = match written {
                    Written::Type(name) => self.type_of(&name).await,
                    Written::Count => Some(DataType::Int64),
                    Written::ListOfInferred => {
                        lists.insert(index);
                        None
                    }
                };
                if let (Some(slot @ None), Some(data_type)) = (types.get_mut(index), data_type) {
                    *slot = Some(data_type);
                }
            }
            for (index, data_type) in self.inferred(&partly).await {
                if let Some(slot @ None) = types.get_mut(index) {
                    *slot = Some(if lists.contains(&index) { DataType::new_list(data_type, true) } else { data_type });
                }
            }
        }
        let parameters: Vec<DataType> = types.into_iter().map(|data_type| data_type.unwrap_or(DataType::Utf8)).collect();
        let mut typed = statement.clone();
        let nulls = parameters.iter().map(typed_null).collect::<Result<Vec<Expr>>>()?;
        typed.replace_parameters(&mut |index| nulls.get(index).cloned())?;
        let columns = self.result_columns(&typed).await?;
        Ok(Described { parameters, columns })
    }

    /// The type that a name of a type stands for.
    async fn type_of(&self, name: &ast::DataType) -> Option<DataType> {
        let query = parse_query(&format!("SELECT CAST(NULL AS {name}) AS value")).ok()?;
        self.query_columns(&query).await.ok().map(|schema| schema.field(0).data_type().clone())
    }

    /// The types that parameters get from where they stand.
    async fn inferred(&self, statement: &Statement) -> Vec<(usize, DataType)> {
        let mut types = Vec::new();
        match statement {
            Statement::InsertInto(insert) => {
                if let Ok(schema) = self.insert_schema(&object_name(&insert.target)) {
                    let columns: Vec<String> = match insert.columns.as_slice() {
                        [] => schema.fields().iter().map(|field| field.name().clone()).collect(),
                        columns => columns.iter().map(fold).collect(),
                    };
                    for row in rows_of(&insert.source) {
                        for (expr, column) in row.into_iter().zip(&columns) {
                            if let (Some(index), Ok(field)) = (parameter(expr), schema.field_with_name(column)) {
                                types.push((index, field.data_type().clone()));
                            }
                        }
                    }
                }
                types.extend(self.inferred_in_query(&insert.source).await);
            }
            Statement::Update(update) => {
                let ast::Statement::Update(update) = update.as_ref() else { return types };
                let table = update.table.to_string();
                let schema = object_name_of(&update.table).and_then(|name| self.insert_schema(&name).ok());
                for assignment in &update.assignments {
                    let AssignmentTarget::ColumnName(column) = &assignment.target else { continue };
                    let field = schema.as_ref().and_then(|schema| schema.field_with_name(&object_name(column)).ok());
                    if let (Some(index), Some(field)) = (parameter(&assignment.value), field) {
                        types.push((index, field.data_type().clone()));
                    }
                }
                let values = update.assignments.iter().map(|assignment| assignment.value.to_string()).collect::<Vec<_>>().join(", ");
                let condition = update.selection.as_ref().map(|condition| format!(" WHERE {condition}")).unwrap_or_default();
                if let Ok(query) = parse_query(&format!("SELECT {values} FROM {table}{condition}")) {
                    types.extend(self.inferred_in_query(&query).await);
                }
            }
            Statement::Delete(delete) => {
                let ast::Statement::Delete(delete) = delete.as_ref() else { return types };
                let (ast::FromTable::WithFromKeyword(from) | ast::FromTable::WithoutKeyword(from)) = &delete.from;
                if let (Some(table), Some(condition)) = (from.first(), &delete.selection)
                    && let Ok(query) = parse_query(&format!("SELECT 1 FROM {table} WHERE {condition}"))
                {
                    types.extend(self.inferred_in_query(&query).await);
                }
            }
            Statement::Explain(explain) => return Box::pin(self.inferred(&explain.statement)).await,
            other => {
                if let Some(query) = other.query() {
                    types.extend(self.inferred_in_query(query).await);
                }
            }
        }
        types
    }

    async fn inferred_in_query(&self, query: &Query) -> Vec<(usize, DataType)> {
        let Ok(resolved) = self.plan_shape(query).await else { return Vec::new() };
        let Ok(inferred) = resolved.plan.get_parameter_types() else { return Vec::new() };
        let known = |(name, data_type): (String, Option<DataType>)| {
            // A NULL beside a parameter says nothing.
            let data_type = data_type.filter(|data_type| *data_type != DataType::Null)?;
            Some((millstream_sql::parameters::index(&name)?, data_type))
        };
        inferred.into_iter().filter_map(known).collect()
    }

    /// The columns of a statement without parameters.
    async fn result_columns(&self, statement: &Statement) -> Result<Option<SchemaRef>> {
        Ok(match statement {
            Statement::Query(query) => {
                let schema = self.query_columns(&query.query).await?;
                Some(if query.emit == Emit::None { schema } else { crate::change_log::log_schema(&schema) })
            }
            Statement::Subscribe(subscribe) => {
                let schema = match &subscribe.source {
                    SubscribeSource::Query(query) => self.query_columns(query).await?,
                    SubscribeSource::Name(name) => self.query_columns(crate::pipeline::ddl::select_all(name)?.as_ref()).await?,
                };
                Some(crate::change_log::log_schema(&schema))
            }
            Statement::Copy(copy) => {
                if let CopySource::Query(query) = &copy.source {
                    self.query_columns(query).await?;
                }
                // To a file: how many rows it got.
                let count = Field::new("count", DataType::UInt64, false);
                (copy.target != CopyTarget::Stdout).then(|| Arc::new(Schema::new(vec![count])))
            }
            Statement::DeclareCursor(declare) => {
                Box::pin(self.result_columns(&declare.statement)).await?;
                None
            }
            // These read what is known already and change nothing.
            Statement::Show(_) | Statement::ShowCreate(_) => match Box::pin(self.execute_parsed(statement.clone())).await?.output {
                Output::Rows(rows) => Some(rows.schema()),
                _ => None,
            },
            Statement::Describe(_) => Some(describe_columns()),
            Statement::Explain(Explain { mode: ExplainMode::Incremental, .. }) => {
                Some(Arc::new(Schema::new(vec![Field::new("plan", DataType::Utf8, false)])))
            }
            Statement::Explain(_) => {
                let text = |name| Field::new(name, DataType::Utf8, false);
                Some(Arc::new(Schema::new(vec![text("plan_type"), text("plan")])))
            }
            _ => None,
        })
    }

    async fn query_columns(&self, query: &Query) -> Result<SchemaRef> {
        let resolved = self.plan_shape(query).await?;
        Ok(Arc::new(resolved.plan.schema().as_arrow().clone()))
    }

    /// Plans a query over relations without content; system tables, whose columns are known with their rows only, have theirs.
    async fn plan_shape(&self, query: &Query) -> Result<Resolved> {
        let shared = self.engine.shared();
        let catalog = match self.pinned() {
            Some((catalog, _)) => catalog,
            None => shared.catalog.read().clone(),
        };
        let planned = Resolver { catalog: &catalog, base: &shared.base, contents: &NamesOnly { shared } }.plan(query).await;
        match planned {
            Err(_) if query.to_string().contains(SYSTEM_SCHEMA) => {
                let names: BTreeSet<String> = catalog.objects().iter().map(|object| object.name.clone()).collect();
                let request = SnapshotRequest { names, figures: true };
                let snapshot = self.engine.request(|answer| Command::Snapshot { request, answer }).await?;
                let contents = BatchContents { shared, snapshot: &snapshot };
                Resolver { catalog: &catalog, base: &shared.base, contents: &contents }.plan(query).await
            }
            planned => planned,
        }
    }
}

/// `CAST(NULL AS type)`.
fn typed_null(data_type: &DataType) -> Result<Expr> {
    let data_type = ast_type(data_type)?;
    let (kind, expr) = (ast::CastKind::Cast, Box::new(Expr::value(ast::Value::Null)));
    Ok(Expr::Cast { kind, expr, data_type, array: false, format: None })
}

/// The expressions of a VALUES list, or of the one row of a SELECT list.
fn rows_of(query: &Query) -> Vec<Vec<&Expr>> {
    match query.body.as_ref() {
        SetExpr::Values(values) => values.rows.iter().map(|row| row.content.iter().collect()).collect(),
        SetExpr::Select(select) => {
            // A wildcard shifts the columns after it.
            select.projection.iter().map(single).collect::<Option<Vec<&Expr>>>().into_iter().collect()
        }
        _ => Vec::new(),
    }
}

/// The expression of a SELECT list's item, unless it is a wildcard.
fn single(item: &SelectItem) -> Option<&Expr> {
    match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    }
}

/// What is written about the types of a statement's parameters.
fn written_in(statement: &mut Statement) -> Vec<(usize, Written)> {
    match statement {
        Statement::Update(statement) | Statement::Delete(statement) => written(&mut **statement),
        Statement::Explain(explain) => written_in(&mut explain.statement),
        other => other.query_mut().map(|query| written(query)).unwrap_or_default(),
    }
}

fn object_name_of(table: &ast::TableWithJoins) -> Option<String> {
    match &table.relation {
        ast::TableFactor::Table { name, .. } => Some(object_name(name)),
        _ => None,
    }
}
