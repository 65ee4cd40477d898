//! Expressions independent of names: columns by index, and what an expression needs beyond its input row.

use crate::error::Result;
use arrow::datatypes::FieldRef;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, DFSchema, TableReference};
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// The expression over `to` that means the same as `expr` over `from`: two schemas of the same columns with other qualifiers.
/// Aliases are stripped.
pub(crate) fn rebase(expr: &Expr, from: &DFSchema, to: &DFSchema) -> Result<Expr> {
    rebase_with(expr, |column| Ok(column_at(to, from.index_of_column(column)?)))
}

/// As [`rebase`] with any mapping of columns.
pub(crate) fn rebase_with(expr: &Expr, mut map: impl FnMut(&Column) -> Result<Expr>) -> Result<Expr> {
    let stripped = expr.clone().unalias_nested().data;
    let rebased = stripped.transform_up(|node| match &node {
        Expr::Column(column) => Ok(Transformed::yes(map(column)?)),
        _ => Ok(Transformed::no(node)),
    });
    Ok(rebased.data()?)
}

/// A reference to a column by its place.
pub(crate) fn column_at(schema: &DFSchema, index: usize) -> Expr {
    Expr::Column(Column::from(schema.qualified_field(index)))
}

/// References to all columns.
pub(crate) fn all_columns(schema: &DFSchema) -> Vec<Expr> {
    (0..schema.fields().len()).map(|index| column_at(schema, index)).collect()
}

/// The text of an expression with columns as `#index`: equal for equal expressions whatever the columns are called.
pub(crate) fn canonical_text(expr: &Expr, schema: &DFSchema) -> Result<String> {
    let by_index = rebase_with(expr, |column| Ok(Expr::Column(Column::new_unqualified(format!("#{}", schema.index_of_column(column)?)))))?;
    Ok(by_index.to_string())
}

/// Canonical texts, comma-separated.
pub(crate) fn canonical_texts<'a>(exprs: impl IntoIterator<Item = &'a Expr>, schema: &DFSchema) -> Result<String> {
    let texts = exprs.into_iter().map(|expr| canonical_text(expr, schema)).collect::<Result<Vec<_>>>()?;
    Ok(texts.join(", "))
}

/// Fields for a schema of columns from several places: a name that occurs twice gets its place as a suffix.
pub(crate) fn unique_fields<'f>(fields: impl Iterator<Item = &'f FieldRef> + Clone) -> Vec<(Option<TableReference>, FieldRef)> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    fields.clone().for_each(|field| *counts.entry(field.name()).or_insert(0) += 1);
    let unique = |(index, field): (usize, &'f FieldRef)| {
        let unique = if counts[field.name().as_str()] == 1 {
            Arc::clone(field)
        } else {
            Arc::new(field.as_ref().clone().with_name(format!("{}#{index}", field.name())))
        };
        (None, unique)
    };
    fields.enumerate().map(unique).collect()
}

/// Indices of the columns an expression reads.
pub(crate) fn columns_of(expr: &Expr, schema: &DFSchema) -> Result<BTreeSet<usize>> {
    expr.column_refs().into_iter().map(|column| Ok(schema.index_of_column(column)?)).collect()
}

/// If the expression is a column as it is: which.
pub(crate) fn as_column(expr: &Expr, schema: &DFSchema) -> Option<usize> {
    match expr {
        Expr::Column(column) => schema.maybe_index_of_column(column),
        Expr::Alias(alias) => as_column(&alias.expr, schema),
        _ => None,
    }
}

/// Whether the value changes with the clock alone: `now()` and its relatives.
pub(crate) fn reads_clock(expr: &Expr) -> bool {
    any(expr, |node| matches!(node, Expr::ScalarFunction(call) if call.func.signature().volatility == Volatility::Stable))
}

/// Whether each evaluation may give another value: `random()`, `uuid()`.
pub(crate) fn is_volatile(expr: &Expr) -> bool {
    expr.is_volatile()
}

/// Whether the expression contains a query.
pub(crate) fn has_subquery(expr: &Expr) -> bool {
    any(expr, |node| matches!(node, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_)))
}

/// What the expressions of a plan node (not of its inputs, but of its subqueries) need beyond their input.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Needs {
    /// See [`reads_clock`].
    pub(crate) clock: bool,
    /// See [`has_subquery`].
    pub(crate) subquery: bool,
}

/// The needs of one node.
pub(crate) fn needs_of(plan: &LogicalPlan) -> Needs {
    plan.expressions().iter().fold(Needs::default(), |needs, expr| Needs {
        clock: needs.clock || reads_clock(expr),
        subquery: needs.subquery || has_subquery(expr),
    })
}

fn any(expr: &Expr, test: impl Fn(&Expr) -> bool) -> bool {
    // The closure cannot fail, so neither can the traversal.
    expr.exists(|node| Ok(test(node))).unwrap_or(false)
}
