//! From PROCESS after FROM to its node in the plan.
//!
//! The dialect hands it over in one form, whatever was written:
//!
//! ```text
//! TABLE(__process('name', __partitioned((SELECT * FROM relation), key, .. ORDER BY ..), arg => literal, ..,
//!                 initial => (SELECT * FROM t), state_ttl => <microseconds>, result => 'state'))
//! ```

use super::function::{Arguments, RESERVED, StatefulFunctions};
use super::node::{ProcessCall, ProcessNode, ProcessResult};
use crate::compile::compile;
use crate::error::{PlanError, Result};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, SortExpr};
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArguments, ObjectName, TableFactor, Value,
};
use millstream_types::suggest::nearest;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The name of the function that the dialect writes.
const FUNCTION: &str = "__process";

/// Plans PROCESS with the functions of an engine.
#[derive(Debug)]
pub struct ProcessPlanner {
    functions: StatefulFunctions,
    /// Evaluates arguments.
    state: SessionState,
}

impl ProcessPlanner {
    /// A planner that knows these functions.
    pub fn new(functions: StatefulFunctions) -> Self {
        Self { functions, state: SessionStateBuilder::new().build() }
    }
}

impl RelationPlanner for ProcessPlanner {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> datafusion::common::Result<RelationPlanning> {
        let TableFactor::TableFunction { expr: SqlExpr::Function(function), .. } = &relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        if !is_named(&function.name, FUNCTION) {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        }
        let plan = self.plan(function, context)?.into_plan();
        let TableFactor::TableFunction { alias, .. } = relation else { return Err(malformed().into()) };
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

impl ProcessPlanner {
    fn plan(&self, function: &Function, context: &mut dyn RelationPlannerContext) -> Result<ProcessNode> {
        let parts = Parts::of(function)?;
        let name = parts.name.to_lowercase();
        let Some(function) = self.functions.get(&name) else { return Err(self.unknown(&parts.name)) };
        let refused = |problem: String, remedy: String| PlanError::Process { function: name.clone(), problem, remedy };

        let input = context.plan(derived(parts.relation)?)?;
        let schema = Arc::clone(input.schema());
        let key = parts.keys.iter().map(|key| context.sql_to_expr((*key).clone(), &schema)).collect::<datafusion::common::Result<_>>()?;
        let order = parts
            .order
            .iter()
            .map(|(expr, asc, nulls_first)| Ok(SortExpr::new(context.sql_to_expr((*expr).clone(), &schema)?, *asc, *nulls_first)))
            .collect::<datafusion::common::Result<_>>()?;

        let (mut arguments, mut initial, mut state_ttl_micros, mut result) = (BTreeMap::new(), None, None, ProcessResult::Rows);
        for (argument, value) in parts.named {
            match argument.as_str() {
                "initial" => initial = Some(value),
                "state_ttl" => match self.constant(value, context)? {
                    Some(ScalarValue::Int64(Some(micros))) => state_ttl_micros = Some(micros),
                    _ => return Err(malformed()),
                },
                "result" => {
                    let text = self.constant(value, context)?;
                    result = match text.as_ref().and_then(|text| text.try_as_str().flatten()) {
                        Some("rows") => ProcessResult::Rows,
                        Some("state") => ProcessResult::State,
                        _ => return Err(refused(format!("result is {value}"), "Write result => 'rows' or result => 'state'.".into())),
                    }
                }
                _ if function.arguments().contains(&argument.as_str()) => match self.constant(value, context)? {
                    Some(value) => {
                        arguments.insert(argument, value);
                    }
                    None => {
                        let problem = format!("argument \"{argument}\" is {value}, which is no constant");
                        return Err(refused(problem, "Arguments are read once, when the query is made; columns come as rows.".into()));
                    }
                },
                _ => {
                    let known: Vec<&str> = function.arguments().iter().copied().chain(RESERVED).collect();
                    let remedy = match nearest(&argument, known.iter().copied()) {
                        Some(near) => format!("Did you mean {near}?"),
                        None => format!("Its arguments are {}.", known.join(", ")),
                    };
                    return Err(refused(format!("it has no argument \"{argument}\""), remedy));
                }
            }
        }
        let arguments = Arguments::new(arguments);
        let declaration = function.declare(schema.as_arrow(), &arguments).map_err(|error| refused(error.to_string(), String::new()))?;
        let call = ProcessCall { name: name.clone(), function: Arc::clone(function), arguments, declaration };
        let node = ProcessNode::try_new(call, input, key, order, state_ttl_micros, result)?;
        match initial {
            None => Ok(node),
            Some(relation) => {
                let plan = context.plan(derived(relation)?)?;
                let initial = fitted(plan, &node)?;
                Ok(node.with_initial(initial))
            }
        }
    }

    fn unknown(&self, name: &str) -> PlanError {
        let known: Vec<&str> = self.functions.names().collect();
        let remedy = match (nearest(name, known.iter().copied()), known.is_empty()) {
            (Some(near), _) => format!("Did you mean {near}?"),
            (None, true) => "Stateful functions are code: register it with EngineBuilder::stateful_function of the embedding API.".into(),
            (None, false) => format!("There are: {}.", known.join(", ")),
        };
        PlanError::Process { function: name.into(), problem: "it is not registered".into(), remedy }
    }

    /// The value of an expression without columns; `None` if it has some.
    fn constant(&self, expr: &SqlExpr, context: &mut dyn RelationPlannerContext) -> Result<Option<ScalarValue>> {
        let schema = DFSchema::empty();
        let expr = match context.sql_to_expr(expr.clone(), &schema) {
            Ok(expr) if expr.column_refs().is_empty() && !expr.is_volatile() => expr,
            _ => return Ok(None),
        };
        if let Expr::Literal(value, _) = expr {
            return Ok(Some(value));
        }
        let one_row = RecordBatchOptions::new().with_row_count(Some(1));
        let one_row = RecordBatch::try_new_with_options(Arc::clone(schema.inner()), vec![], &one_row)?;
        let array = compile(&expr, &schema, &self.state)?.evaluate(&one_row)?.into_array(1)?;
        Ok(Some(ScalarValue::try_from_array(&array, 0)?))
    }
}

/// What the dialect wrote, taken apart.
struct Parts<'a> {
    name: String,
    relation: &'a SqlExpr,
    keys: Vec<&'a SqlExpr>,
    /// Expression, ascending, NULL first.
    order: Vec<(&'a SqlExpr, bool, bool)>,
    named: Vec<(String, &'a SqlExpr)>,
}

impl<'a> Parts<'a> {
    fn of(function: &'a Function) -> Result<Self> {
        let FunctionArguments::List(list) = &function.args else { return Err(malformed()) };
        let mut positional = list.args.iter().filter_map(unnamed);
        let name = match positional.next() {
            Some(SqlExpr::Value(value)) => match &value.value {
                Value::SingleQuotedString(name) => name.clone(),
                _ => return Err(malformed()),
            },
            _ => return Err(malformed()),
        };
        let Some(SqlExpr::Function(partitioned)) = positional.next() else { return Err(malformed()) };
        let FunctionArguments::List(partition) = &partitioned.args else { return Err(malformed()) };
        let mut expressions = partition.args.iter().filter_map(unnamed);
        let relation = expressions.next().ok_or_else(malformed)?;
        let keys = expressions.collect();
        let sort_keys = partition.clauses.iter().filter_map(|clause| match clause {
            FunctionArgumentClause::OrderBy(keys) => Some(keys),
            _ => None,
        });
        let order = sort_keys.flatten().map(|key| {
            let asc = key.options.asc.unwrap_or(true);
            (&key.expr, asc, key.options.nulls_first.unwrap_or(!asc))
        });
        let order = order.collect();
        let named = list.args.iter().filter_map(|argument| match argument {
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(expr), .. } => Some((name.value.to_lowercase(), expr)),
            _ => None,
        });
        Ok(Self { name, relation, keys, order, named: named.collect() })
    }
}

fn unnamed(argument: &FunctionArg) -> Option<&SqlExpr> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}

fn is_named(name: &ObjectName, word: &str) -> bool {
    matches!(name.0.as_slice(), [part] if part.as_ident().is_some_and(|ident| ident.value == word))
}

/// The relation of a subquery.
fn derived(relation: &SqlExpr) -> Result<TableFactor> {
    let SqlExpr::Subquery(query) = relation else { return Err(malformed()) };
    Ok(TableFactor::Derived { lateral: false, subquery: query.clone(), alias: None, sample: None })
}

/// The columns of initial state in their order, by name.
fn fitted(plan: LogicalPlan, node: &ProcessNode) -> Result<LogicalPlan> {
    let schema = Arc::clone(plan.schema());
    let wanted = node.initial_fields();
    let exprs = wanted.iter().map(|(name, data_type)| {
        let index = schema.fields().iter().position(|field| field.name() == name).ok_or_else(|| {
            let names: Vec<String> = wanted.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            PlanError::Process {
                function: node.call.name.clone(),
                problem: format!("its initial state has no column \"{name}\""),
                remedy: format!("It needs the columns {}; a query in parentheses can name them so.", names.join(", ")),
            }
        })?;
        let column = Expr::Column(Column::from(schema.qualified_field(index)));
        Ok(datafusion::logical_expr::cast(column, data_type.clone()).alias(name))
    });
    let exprs = exprs.collect::<Result<Vec<Expr>>>()?;
    // A name of its own: the relation may have columns of the same names.
    Ok(LogicalPlanBuilder::from(plan).project(exprs)?.alias("__initial")?.build()?)
}

fn malformed() -> PlanError {
    PlanError::internal("PROCESS does not have the form that the dialect gives it")
}
