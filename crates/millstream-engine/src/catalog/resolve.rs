//! From a query's text to a DataFusion plan: resolves the names a query reads, views included.
//!
//! A query is planned in one of two ways. **Continuous**: streams, tables and materialized views are placeholders that the
//! incremental planner turns into inputs, and at-rest tables are their pinned content. **Batch**: every relation is its content
//! after one epoch, taken together, so that a query sees one consistent state.

use super::Catalog;
use super::object::{ObjectKind, Shown, StreamDef, StreamShape, version_fields, versions_of};
use crate::error::{EngineError, Result};
use crate::sql_types::ast_type;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider, SchemaProvider, Session,
    TableProvider,
};
use datafusion::common::TableReference;
use datafusion::datasource::{TableType, ViewTable};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{self, Expr, LogicalPlan};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::sql::parser::Statement as DfStatement;
use millstream_plan::relation::{Relation, RelationKind, Relations};
use millstream_sql::rewrite::{LOOKUP_SCHEMA, RewriteContext, VERSIONS_SCHEMA, VersionTime, mentions_hidden, rewrite_query};
use millstream_sql::visit::each_relation;
use sqlparser::ast::{self, ObjectName, Query};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// The name of the schema with the system tables.
pub const SYSTEM_SCHEMA: &str = "millstream";

/// What gives content to names.
#[async_trait]
pub trait Contents: Send + Sync {
    /// The provider of a stream, table, materialized view or sink. `shown`: what is seen of a stream.
    ///
    /// # Errors
    /// When its content cannot be had.
    async fn provider(&self, name: &str, kind: &ObjectKind, shown: Shown) -> Result<Arc<dyn TableProvider>>;

    /// The rows of the files that a path in quotes stands for.
    ///
    /// # Errors
    /// When there are none, or they cannot be read.
    async fn files(&self, path: &str) -> Result<Arc<dyn TableProvider>>;

    /// The provider of a system table.
    fn system_table(&self, name: &str) -> Option<Arc<dyn TableProvider>>;
}

/// A planned query.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The plan as DataFusion's SQL planner made it, not optimized.
    pub plan: LogicalPlan,
    /// The session it was planned in, with the relations it reads.
    pub state: SessionState,
    /// Names of catalog objects it reads, through views.
    pub reads: BTreeSet<String>,
    /// The same as relations of a dataflow: where only the versions of a stream are read, these.
    pub relations: BTreeSet<String>,
    /// Paths of files it reads, through views.
    pub files: BTreeSet<String>,
}

/// What a query names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Objects of the catalog.
    pub objects: BTreeSet<String>,
    /// System tables.
    pub system: BTreeSet<String>,
    /// Paths of files.
    pub files: BTreeSet<String>,
    /// Nothing that is made later can be meant by one of the names.
    pub is_settled: bool,
}

impl Default for Named {
    fn default() -> Self {
        Self { objects: BTreeSet::new(), system: BTreeSet::new(), files: BTreeSet::new(), is_settled: true }
    }
}

/// A query in DataFusion's words.
struct Rewritten {
    statement: DfStatement,
    references: Vec<TableReference>,
    /// Names in single quotes.
    paths: BTreeSet<String>,
    /// It names hidden columns of streams.
    hidden: bool,
}

/// What a query reads.
#[derive(Debug, Default)]
struct Reads {
    objects: BTreeSet<String>,
    relations: BTreeSet<String>,
    files: BTreeSet<String>,
}

/// Plans queries over a catalog.
pub struct Resolver<'a> {
    /// The names.
    pub catalog: &'a Catalog,
    /// The session without tables.
    pub base: &'a SessionState,
    /// The content of names.
    pub contents: &'a dyn Contents,
}

impl Resolver<'_> {
    /// Plans a query as it was written.
    ///
    /// # Errors
    /// When it uses what is not supported, or names that do not exist.
    pub async fn plan(&self, query: &Query) -> Result<Resolved> {
        self.plan_with(query, &[]).await
    }

    /// As [`Resolver::plan`], for a query with parameters of these types.
    ///
    /// # Errors
    /// As [`Resolver::plan`].
    pub async fn plan_with(&self, query: &Query, parameters: &[DataType]) -> Result<Resolved> {
        let mut reads = Reads::default();
        let (plan, state) = self.plan_in(query, parameters, &mut reads, 0).await?;
        Ok(Resolved { plan, state, reads: reads.objects, relations: reads.relations, files: reads.files })
    }

    async fn plan_in(
        &self,
        query: &Query,
        parameters: &[DataType],
        reads: &mut Reads,
        depth: usize,
    ) -> Result<(LogicalPlan, SessionState)> {
        check_depth(depth)?;
        let written = query;
        let Rewritten { statement, references, paths, hidden } = self.rewritten(query)?;
        let mut tables: Tables = HashMap::new();
        let mut system: Tables = HashMap::new();
        let mut lookups: Tables = HashMap::new();
        let mut versions: Tables = HashMap::new();
        for reference in references {
            let name = reference.table().to_string();
            match reference.schema() {
                Some(SYSTEM_SCHEMA) => {
                    if let Some(provider) = self.contents.system_table(&name) {
                        system.insert(name, provider);
                    }
                    continue;
                }
                Some("information_schema") => continue,
                _ => {}
            }
            let is_lookup = reference.schema() == Some(LOOKUP_SCHEMA);
            let is_version = reference.schema() == Some(VERSIONS_SCHEMA);
            if !is_lookup && !is_version && paths.contains(&name) && self.catalog.get(&name).is_none() {
                tables.insert(name.clone(), self.contents.files(&name).await?);
                reads.files.insert(name);
                continue;
            }
            let object = match self.catalog.lookup(&name) {
                Ok(found) => found,
                // `FROM generate_series(1, 3)` names a function.
                Err(_) if !is_lookup && !is_version && self.base.table_functions().contains_key(&name) => continue,
                Err(error) => return Err(error.at_relation(written, &name)),
            };
            if is_lookup {
                check_lookup(&object.kind, &name).map_err(|error| error.at_relation(written, &name))?;
            }
            if is_version {
                check_versions(&object.kind, &name).map_err(|error| error.at_relation(written, &name))?;
            }
            if hidden {
                check_ingest_columns(&object.kind, &name).map_err(|error| error.at_relation(written, &name))?;
            }
            reads.objects.insert(object.name.clone());
            reads.relations.insert(if is_version { versions_of(&object.name) } else { object.name.clone() });
            let shown = match hidden {
                _ if is_version => Shown::Versions,
                true => Shown::WithHidden,
                false => Shown::Declared,
            };
            let provider: Arc<dyn TableProvider> = match &object.kind {
                ObjectKind::View(view) => {
                    let (plan, _) = Box::pin(self.plan_in(&view.query, &[], reads, depth + 1)).await?;
                    let plan = rename_columns(plan, &view.columns, &view.name)?;
                    Arc::new(ViewTable::new(plan, None))
                }
                kind => self.contents.provider(&object.name, kind, shown).await?,
            };
            let known = match (is_lookup, is_version) {
                (true, _) => &mut lookups,
                (_, true) => &mut versions,
                _ => &mut tables,
            };
            known.insert(name, provider);
        }
        let state = with_tables(self.base, tables, [(SYSTEM_SCHEMA, system), (LOOKUP_SCHEMA, lookups), (VERSIONS_SCHEMA, versions)])?;
        let statement = with_parameters(statement, parameters)?;
        let plan = match state.statement_to_plan(statement).await.map_err(|error| EngineError::in_query(error, written))? {
            LogicalPlan::Statement(logical_expr::Statement::Prepare(prepare)) => Arc::unwrap_or_clone(prepare.input),
            plan => plan,
        };
        Ok((plan, state))
    }

    /// A query as DataFusion plans it, and the relations it names.
    fn rewritten(&self, query: &Query) -> Result<Rewritten> {
        let mut query = query.clone();
        let hidden = mentions_hidden(&query);
        let is_stream = |name: &ObjectName| {
            let name = object_name(name);
            self.catalog.get(&name).is_some_and(|object| matches!(object.kind, ObjectKind::Stream(_)))
        };
        let version_time = |name: &ObjectName| match self.catalog.lookup(&object_name(name)) {
            Ok(object) => version_time(&object.kind),
            Err(_) => VersionTime::Unknown,
        };
        rewrite_query(&mut query, &RewriteContext { is_stream: &is_stream, shows_hidden_columns: hidden, version_time: &version_time })?;
        let paths = quoted_names(&query);
        let statement = DfStatement::Statement(Box::new(ast::Statement::Query(Box::new(query))));
        let references = self.base.resolve_table_references(&statement)?;
        Ok(Rewritten { statement, references, paths, hidden })
    }

    /// What a query reads: what it names, and what the views among that read.
    ///
    /// # Errors
    /// When it uses what is not supported, or names that do not exist.
    pub fn reads(&self, query: &Query) -> Result<Named> {
        let mut reads = Named::default();
        self.add_reads(query, &mut reads, 0)?;
        Ok(reads)
    }

    fn add_reads(&self, query: &Query, reads: &mut Named, depth: usize) -> Result<()> {
        check_depth(depth)?;
        let direct = self.direct_reads(query)?;
        reads.system.extend(direct.system);
        reads.files.extend(direct.files);
        reads.is_settled &= direct.is_settled;
        for name in direct.objects {
            let is_new = reads.objects.insert(name.clone());
            if let Some(ObjectKind::View(view)) = self.catalog.get(&name).filter(|_| is_new).map(|object| &object.kind) {
                self.add_reads(&view.query, reads, depth + 1)?;
            }
        }
        Ok(())
    }

    /// What a query names itself, without what views read. Names are told apart exactly as [`Resolver::plan`] does it.
    ///
    /// # Errors
    /// When it uses what is not supported, or names that do not exist.
    pub fn direct_reads(&self, query: &Query) -> Result<Named> {
        let Rewritten { references, paths, .. } = self.rewritten(query)?;
        let mut reads = Named::default();
        for reference in references {
            let name = reference.table().to_string();
            let is_lookup = match reference.schema() {
                Some(SYSTEM_SCHEMA) => {
                    reads.system.insert(name);
                    continue;
                }
                // Has nothing but the relations of the query itself.
                Some("information_schema") => continue,
                schema => schema == Some(LOOKUP_SCHEMA),
            };
            if !is_lookup && paths.contains(&name) && self.catalog.get(&name).is_none() {
                reads.files.insert(name);
                continue;
            }
            match self.catalog.lookup(&name) {
                Ok(object) => {
                    reads.is_settled &= object.name == name;
                    reads.objects.insert(object.name.clone());
                }
                Err(_) if !is_lookup && self.base.table_functions().contains_key(&name) => reads.is_settled = false,
                Err(error) => return Err(error.at_relation(query, &name)),
            }
        }
        Ok(reads)
    }
}

/// A query whose parameters have these types.
fn with_parameters(query: DfStatement, parameters: &[DataType]) -> Result<DfStatement> {
    let DfStatement::Statement(statement) = query else { return Ok(query) };
    if parameters.is_empty() {
        return Ok(DfStatement::Statement(statement));
    }
    let data_types = parameters.iter().map(ast_type).collect::<Result<_>>()?;
    let prepare = ast::Statement::Prepare { name: ast::Ident::new("query"), data_types, statement };
    Ok(DfStatement::Statement(Box::new(prepare)))
}

/// Refuses views over views without end.
fn check_depth(depth: usize) -> Result<()> {
    match depth {
        0..=64 => Ok(()),
        _ => Err(EngineError::invalid("views are nested more than 64 levels deep", "")),
    }
}

/// From when the rows of an object hold.
fn version_time(kind: &ObjectKind) -> VersionTime {
    match kind {
        ObjectKind::Stream(def) => match (&def.watermark, &def.shape) {
            (_, StreamShape::Bag { .. }) => VersionTime::Unkeyed,
            (None, _) => VersionTime::Unknown,
            (Some((column, _)), StreamShape::Append) => VersionTime::Column(column.clone()),
            (Some((column, _)), StreamShape::Upsert { key, .. }) => VersionTime::Changes { time: column.clone(), key: key.clone() },
        },
        _ => VersionTime::Unknown,
    }
}

/// Refuses to read when a row came where rows leave without anybody knowing it.
fn check_ingest_columns(kind: &ObjectKind, name: &str) -> Result<()> {
    match kind {
        ObjectKind::Stream(def) if matches!(def.shape, StreamShape::Bag { verify: false, .. }) => Err(EngineError::invalid(
            format!(
                "_epoch and _epoch_time of stream \"{name}\" cannot be read: with verify = 'false' nobody knows when a row came that leaves"
            ),
            "Leave out verify = 'false'. If the query reads them of another stream, put this one into a view.",
        )),
        _ => Ok(()),
    }
}

/// Refuses lookups as of the epoch before in what has no content of its own.
fn check_lookup(kind: &ObjectKind, name: &str) -> Result<()> {
    let (what, hint) = match kind {
        ObjectKind::Table(_) | ObjectKind::MaterializedView(_) | ObjectKind::ExternalTable(_) => return Ok(()),
        ObjectKind::Stream(_) => {
            ("stream", format!("Make its content a materialized view: `CREATE MATERIALIZED VIEW v AS SELECT * FROM {name}`."))
        }
        ObjectKind::View(_) => ("view", "Make it a materialized view, whose content is kept.".to_string()),
        ObjectKind::Sink(_) => ("sink", "Let a materialized view feed it, and look rows up there.".to_string()),
    };
    Err(EngineError::invalid(format!("rows cannot be looked up FOR SYSTEM_TIME AS OF PROCTIME() in {what} \"{name}\""), hint))
}

/// Refuses the versions of what has no changes of keys, and of a stream whose columns are called like those of its changes.
fn check_versions(kind: &ObjectKind, name: &str) -> Result<()> {
    let ObjectKind::Stream(def) = kind else {
        return Err(EngineError::invalid(format!("{} \"{name}\" has no versions", kind.word()), "Streams with PRIMARY KEY have some."));
    };
    if !matches!(def.shape, StreamShape::Upsert { .. }) || def.watermark.is_none() {
        return Err(EngineError::invalid(
            format!("stream \"{name}\" has no versions"),
            "Declare a PRIMARY KEY and a WATERMARK: each change of a key then is a version, from its event time on.",
        ));
    }
    let schema = def.schema();
    match version_fields().iter().find(|field| schema.index_of(field.name()).is_ok()) {
        Some(field) => Err(EngineError::invalid(
            format!("column \"{}\" of stream \"{name}\" is the name of a hidden column of its versions", field.name()),
            "Choose another name.",
        )),
        None => Ok(()),
    }
}

/// Gives the columns of a plan the names of a column list, if there is one.
///
/// # Errors
/// When the list has another length.
pub fn rename_columns(plan: LogicalPlan, columns: &[String], owner: &str) -> Result<LogicalPlan> {
    if columns.is_empty() {
        return Ok(plan);
    }
    let schema = plan.schema();
    if columns.len() != schema.fields().len() {
        let message = format!("\"{owner}\" lists {} columns but its query has {}", columns.len(), schema.fields().len());
        return Err(EngineError::invalid(message, ""));
    }
    let exprs: Vec<Expr> =
        schema.columns().into_iter().zip(columns).map(|(column, name)| Expr::Column(column).alias(name.as_str())).collect();
    Ok(datafusion::logical_expr::LogicalPlanBuilder::from(plan).project(exprs)?.build()?)
}

/// Relations whose names stand in single quotes: paths of files.
fn quoted_names(query: &Query) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    each_relation(query, &mut |name| {
        if let [ast::ObjectNamePart::Identifier(ident)] = name.0.as_slice()
            && ident.quote_style == Some('\'')
        {
            names.insert(ident.value.clone());
        }
    });
    names
}

/// The last part of a name, folded as SQL folds it.
pub fn object_name(name: &ObjectName) -> String {
    match name.0.last() {
        Some(ast::ObjectNamePart::Identifier(ident)) => fold(ident),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

/// An identifier as the catalog knows it: lower case unless quoted.
pub fn fold(ident: &ast::Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

/// A name as it has to be written.
pub(crate) fn quoted_if_needed(name: &str) -> ast::Ident {
    let is_plain =
        name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') && !name.starts_with(|c: char| c.is_ascii_digit());
    if is_plain { ast::Ident::new(name) } else { ast::Ident::with_quote('"', name) }
}

/// Relations by name.
type Tables = HashMap<String, Arc<dyn TableProvider>>;

/// The base session with tables in its default schema and in others.
///
/// # Errors
/// When a name is taken twice.
pub fn with_tables(base: &SessionState, tables: Tables, others: [(&str, Tables); 3]) -> Result<SessionState> {
    let options = &base.config_options().catalog;
    let catalog = MemoryCatalogProvider::new();
    for (schema_name, tables) in [(options.default_schema.as_str(), tables)].into_iter().chain(others) {
        let schema = MemorySchemaProvider::new();
        for (name, provider) in tables {
            schema.register_table(name, provider)?;
        }
        catalog.register_schema(schema_name, Arc::new(schema))?;
    }
    let list = MemoryCatalogProviderList::new();
    list.register_catalog(options.default_catalog.clone(), Arc::new(catalog));
    let mut state = base.clone();
    state.register_catalog_list(Arc::new(list));
    Ok(state)
}

/// A relation in a continuous query: a name with columns. Its rows come from the dataflow.
#[derive(Debug)]
pub struct Placeholder {
    schema: SchemaRef,
}

impl Placeholder {
    /// A placeholder with these columns.
    pub fn new(schema: SchemaRef) -> Self {
        Self { schema }
    }
}

#[async_trait]
impl TableProvider for Placeholder {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        _projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
        datafusion::common::internal_err!("a relation of a continuous query has no rows of its own")
    }
}

/// The relations of a continuous query, as the incremental planner asks for them.
#[derive(Debug, Default)]
pub struct ContinuousRelations {
    relations: BTreeMap<String, Relation>,
}

impl ContinuousRelations {
    /// Adds a relation.
    pub fn put(&mut self, relation: Relation) {
        self.relations.insert(relation.name.clone(), relation);
    }
}

impl Relations for ContinuousRelations {
    fn relation(&self, table: &TableReference) -> Option<Relation> {
        let name = match table.schema() {
            Some(VERSIONS_SCHEMA) => &versions_of(table.table()),
            _ => table.table(),
        };
        let found = self.relations.get(name);
        let found = found.or_else(|| self.relations.values().find(|relation| relation.name.eq_ignore_ascii_case(name)));
        let mut relation = found?.clone();
        // What does not change has one version.
        relation.lookup = table.schema() == Some(LOOKUP_SCHEMA) && relation.kind != RelationKind::AtRest;
        Some(relation)
    }
}

/// What the incremental planner has to know of a stream.
pub fn stream_relation(def: &StreamDef) -> Relation {
    use super::object::EPOCH_COLUMN;
    let append_only = def.shape == StreamShape::Append;
    Relation {
        name: def.name.clone(),
        kind: RelationKind::Stream,
        append_only,
        schema: def.schema_with_hidden(),
        event_time: def.watermark.as_ref().map(|(column, _)| column.clone()),
        clock_columns: if append_only { def.clock_columns() } else { Vec::new() },
        epoch_column: append_only.then(|| EPOCH_COLUMN.to_string()),
        keys: match &def.shape {
            StreamShape::Upsert { key, .. } => vec![key.clone()],
            _ => Vec::new(),
        },
        column_bounds: HashMap::new(),
        lookup: false,
        versions_of: None,
    }
}

/// What the incremental planner has to know of the changes of a stream: they only come, each with a time that is not below the watermark.
pub fn versions_relation(def: &StreamDef) -> Relation {
    use super::object::{EPOCH_COLUMN, EPOCH_TIME_COLUMN};
    Relation {
        name: versions_of(&def.name),
        append_only: true,
        schema: def.versions_schema(),
        // A deletion has the other columns of the row it takes away, PROCTIME() columns among them.
        clock_columns: vec![EPOCH_TIME_COLUMN.to_string()],
        epoch_column: Some(EPOCH_COLUMN.to_string()),
        keys: Vec::new(),
        versions_of: Some(def.name.clone()),
        ..stream_relation(def)
    }
}
