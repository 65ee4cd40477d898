//! PROCESS in a logical plan: an extension node over the relation, and over the initial state if there is one.

use super::function::{Arguments, Declaration, StatefulFunction};
use crate::error::{PlanError, Result};
use arrow::datatypes::{DataType, Field, FieldRef, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::logical_expr::{Expr, ExprSchemable, Extension, LogicalPlan, SortExpr, UserDefinedLogicalNodeCore};
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A function with its arguments and what it declares for them.
#[derive(Clone)]
pub struct ProcessCall {
    /// Its name in SQL.
    pub name: String,
    /// The code.
    pub function: Arc<dyn StatefulFunction>,
    /// The named arguments.
    pub arguments: Arguments,
    /// Columns of state and rows.
    pub declaration: Declaration,
}

impl fmt::Debug for ProcessCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessCall").field("name", &self.name).field("arguments", &self.arguments).finish_non_exhaustive()
    }
}

impl ProcessCall {
    /// A text that is equal for calls that keep and return the same, and stable across runs.
    pub(crate) fn canonical(&self) -> String {
        // Metadata of fields is no part of it: its order is another in every process.
        let columns = |schema: &SchemaRef| {
            let column = |field: &FieldRef| format!("{} {} {}", field.name(), field.data_type(), field.is_nullable());
            schema.fields().iter().map(column).collect::<Vec<_>>().join(", ")
        };
        let Declaration { state, output, event_timer, clock_timer } = &self.declaration;
        let (state, output) = (columns(state), columns(output));
        let Self { name, arguments, .. } = self;
        format!("{name}({}) state ({state}) output ({output}) timers {event_timer} {clock_timer}", arguments.describe())
    }

    /// Function and arguments as SQL writes them.
    pub(crate) fn describe(&self) -> String {
        let arguments = self.arguments.describe();
        if arguments.is_empty() { self.name.clone() } else { format!("{}({arguments})", self.name) }
    }
}

/// What comes out of a PROCESS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessResult {
    /// The rows that the function returns.
    Rows,
    /// `result => 'state'`: the state of all keys.
    State,
}

/// The node.
#[derive(Clone, Debug)]
pub struct ProcessNode {
    /// What is called.
    pub call: ProcessCall,
    /// The relation.
    pub input: Arc<LogicalPlan>,
    /// State to begin with: the key columns, then the columns of the state.
    pub initial: Option<Arc<LogicalPlan>>,
    /// PARTITION BY, over the input.
    pub key: Vec<Expr>,
    /// ORDER BY, over the input.
    pub order: Vec<SortExpr>,
    /// `state_ttl`.
    pub state_ttl_micros: Option<i64>,
    /// What comes out.
    pub result: ProcessResult,
    /// The key columns, then those of the rows or of the state.
    schema: DFSchemaRef,
}

impl ProcessNode {
    /// A node without initial state.
    ///
    /// # Errors
    /// When two columns of the result would have one name.
    pub fn try_new(
        call: ProcessCall,
        input: LogicalPlan,
        key: Vec<Expr>,
        order: Vec<SortExpr>,
        state_ttl_micros: Option<i64>,
        result: ProcessResult,
    ) -> Result<Self> {
        let own = match result {
            ProcessResult::Rows => call.declaration.output(),
            ProcessResult::State => call.declaration.state(),
        };
        let mut fields = key.iter().map(|expr| key_field(expr, input.schema())).collect::<Result<Vec<FieldRef>>>()?;
        fields.extend(own.fields().iter().cloned());
        let mut names = BTreeSet::new();
        if let Some(twice) = fields.iter().find(|field| !names.insert(field.name().as_str())) {
            return Err(PlanError::Process {
                function: call.name,
                problem: format!("its result would have two columns \"{}\"", twice.name()),
                remedy: "PROCESS puts the columns of PARTITION BY before those of the function: give the function's another name.".into(),
            });
        }
        let fields = fields.into_iter().map(|field| (None, field)).collect();
        let schema = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
        Ok(Self { call, input: Arc::new(input), initial: None, key, order, state_ttl_micros, result, schema })
    }

    /// The same with initial state.
    #[must_use]
    pub fn with_initial(self, initial: LogicalPlan) -> Self {
        Self { initial: Some(Arc::new(initial)), ..self }
    }

    /// Names and types of the columns that initial state has to have.
    pub fn initial_fields(&self) -> Vec<(String, DataType)> {
        let keys = self.schema.fields().iter().take(self.key.len());
        keys.chain(self.call.declaration.state().fields()).map(|field| (field.name().clone(), field.data_type().clone())).collect()
    }

    /// A plan that consists of it.
    pub fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }

    /// The function of the first PROCESS in a plan.
    ///
    /// # Errors
    /// None but those of the walk itself.
    pub fn find(plan: &LogicalPlan) -> Result<Option<String>> {
        let mut found = None;
        plan.apply_with_subqueries(|node| {
            if let LogicalPlan::Extension(extension) = node
                && let Some(process) = extension.node.as_any().downcast_ref::<ProcessNode>()
            {
                found = Some(process.call.name.clone());
                return Ok(TreeNodeRecursion::Stop);
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(found)
    }

    fn text(&self) -> String {
        let Self { call, key, order, state_ttl_micros, result, .. } = self;
        format!("{} by {key:?} order {order:?} ttl {state_ttl_micros:?} {result:?}", call.canonical())
    }
}

/// The column of a key: the name of the column that it is, or its text.
fn key_field(expr: &Expr, input: &DFSchema) -> Result<FieldRef> {
    let (_, field) = expr.to_field(input)?;
    Ok(Arc::new(Field::new(field.name(), field.data_type().clone(), field.is_nullable())))
}

impl PartialEq for ProcessNode {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text() && self.input == other.input && self.initial == other.initial
    }
}

impl Eq for ProcessNode {}

impl Hash for ProcessNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.text(), &self.input, &self.initial).hash(state);
    }
}

impl PartialOrd for ProcessNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for ProcessNode {
    fn name(&self) -> &str {
        "Process"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        std::iter::once(&self.input).chain(&self.initial).map(Arc::as_ref).collect()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.key.iter().chain(self.order.iter().map(|key| &key.expr)).cloned().collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Process: {}", self.call.describe())
    }

    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> datafusion::common::Result<Self> {
        let order = exprs.split_off(self.key.len());
        let order = order.into_iter().zip(&self.order).map(|(expr, key)| SortExpr { expr, ..key.clone() }).collect();
        let mut inputs = inputs.into_iter().map(Arc::new);
        let input = inputs.next().unwrap_or_else(|| Arc::clone(&self.input));
        Ok(Self { input, initial: inputs.next(), key: exprs, order, ..self.clone() })
    }
}
