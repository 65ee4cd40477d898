//! PROCESS: a stateful function over a relation, key by key.
//!
//! ```sql
//! FROM PROCESS(running_total, TABLE orders PARTITION BY customer ORDER BY ts, step => 2,
//!              initial => TABLE t, state_ttl => INTERVAL '1 hour')
//! -- becomes
//! FROM TABLE(__process('running_total', partitioned((SELECT * FROM orders), customer ORDER BY ts), step => 2,
//!                      initial => (SELECT * FROM t), state_ttl => 3600000000)) AS running_total
//! ```
//! No plain SQL means the same, so the call stays a call, which the planner knows by name: checked, with relations as subqueries and
//! `state_ttl` in microseconds. The columns are qualified by the function's name unless there is an alias. Function names may also
//! stand in single quotes.

use sqlparser::ast::{Expr, FunctionArg, FunctionArgExpr, FunctionArgOperator, FunctionArgumentClause, Ident, Spanned, TableFactor, Value};

use super::window_tvf::{Call, relation_factor, relation_name};
use super::{alias, argument_order, plain_call, table, template, unnamed_argument};
use crate::dialect::{PARTITIONED_ARGUMENT, function_call};
use crate::error::{Result, SqlError};
use crate::literal::parse_duration;

const USAGE: &str = "Write `PROCESS(function, TABLE relation PARTITION BY (key) ORDER BY ts, argument => value, initial => TABLE t, \
                     state_ttl => INTERVAL '1 hour')`; all but the function and the relation may be left out.";

/// The name by which the planner knows the call.
const FUNCTION: &str = "__process";

/// The factor that a PROCESS after FROM stands for.
pub(super) fn factor(call: &Call<'_>) -> Result<TableFactor> {
    let wrong = |message: String| SqlError::new(message).with_hint(USAGE);
    let mut positional: Vec<&Expr> = vec![];
    let mut args: Vec<FunctionArg> = vec![];
    let mut names: Vec<String> = vec![];
    for argument in call.args {
        match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) if names.is_empty() => positional.push(expr),
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(expr), .. } => {
                let word = name.value.to_lowercase();
                if names.contains(&word) {
                    return Err(wrong(format!("argument \"{word}\" of PROCESS is given twice")).at(name.span));
                }
                let value = match word.as_str() {
                    "initial" => subquery(expr)?,
                    "state_ttl" => micros(expr)?,
                    _ => expr.clone(),
                };
                args.push(named(&word, value));
                names.push(word);
            }
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => {
                return Err(wrong("an argument of PROCESS without a name follows one with a name".into()).at(expr.span()));
            }
            other => return Err(wrong(format!("PROCESS takes no argument {other}")).at(call.span)),
        }
    }
    let (function, relation) = match positional.as_slice() {
        [function, relation] => (*function, *relation),
        [] => return Err(wrong("PROCESS has no function".into()).at(call.span)),
        [_] => return Err(wrong("PROCESS has no relation".into()).at(call.span)),
        [_, _, more, ..] => {
            return Err(wrong(format!("the argument {more} of PROCESS has no name")).at(more.span()));
        }
    };
    let name = match function {
        Expr::Identifier(ident) if ident.quote_style.is_none() => ident.value.to_lowercase(),
        Expr::Identifier(ident) => ident.value.clone(),
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(name) => name.clone(),
            _ => return Err(wrong(format!("the first argument of PROCESS is {function}, not the name of a function")).at(function.span())),
        },
        _ => return Err(wrong(format!("the first argument of PROCESS is {function}, not the name of a function")).at(function.span())),
    };
    let literal = Expr::Value(Value::SingleQuotedString(name.clone()).with_span(function.span()));
    let first = [FunctionArg::Unnamed(FunctionArgExpr::Expr(literal)), FunctionArg::Unnamed(FunctionArgExpr::Expr(partitioned(relation)?))];
    let args = first.into_iter().chain(args).collect();
    let expr = function_call(FUNCTION, args, vec![]);
    Ok(TableFactor::TableFunction { expr, alias: Some(call.alias.cloned().unwrap_or_else(|| alias(Ident::new(name)))) })
}

/// The relation with its keys and its order, as `partitioned((SELECT * FROM relation), key, .. ORDER BY ..)`.
fn partitioned(relation: &Expr) -> Result<Expr> {
    let order = argument_order(relation);
    let (relation, keys) = match plain_call(relation) {
        Some((word, _, args)) if word == PARTITIONED_ARGUMENT => {
            let mut args = args.iter().filter_map(unnamed_argument);
            let relation = args.next().ok_or_else(|| SqlError::new("PROCESS has no relation").with_hint(USAGE))?;
            (relation, args.cloned().collect())
        }
        _ => (relation, vec![]),
    };
    let expressions = std::iter::once(subquery(relation)?).chain(keys);
    let args = expressions.map(|expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))).collect();
    let clauses = if order.is_empty() { vec![] } else { vec![FunctionArgumentClause::OrderBy(order.to_vec())] };
    Ok(function_call(PARTITIONED_ARGUMENT, args, clauses))
}

/// `(SELECT * FROM relation)`, in which the columns keep the name of the relation as a qualifier.
fn subquery(relation: &Expr) -> Result<Expr> {
    if let Some(name) = relation_name(relation) {
        return Ok(Expr::Subquery(Box::new(template("SELECT * FROM __relation", table(name), &[]))));
    }
    match relation {
        Expr::Subquery(_) => Ok(relation.clone()),
        Expr::Nested(inner) => subquery(inner),
        _ => Err(relation_factor(relation, "PROCESS").err().unwrap_or_else(|| SqlError::new("PROCESS has no relation").with_hint(USAGE))),
    }
}

/// A length of time in microseconds.
fn micros(expr: &Expr) -> Result<Expr> {
    let duration = parse_duration(expr)?;
    let micros = i64::try_from(duration.as_micros()).ok().filter(|micros| *micros > 0);
    let micros = micros.ok_or_else(|| {
        SqlError::new(format!("state_ttl is {expr}, which is no length above zero"))
            .with_hint("Give the time for which a key is kept that nothing touches, for example INTERVAL '1 hour'.")
            .at(expr.span())
    })?;
    Ok(Expr::Value(Value::Number(micros.to_string(), false).with_span(expr.span())))
}

fn named(name: &str, value: Expr) -> FunctionArg {
    FunctionArg::Named { name: Ident::new(name), arg: FunctionArgExpr::Expr(value), operator: FunctionArgOperator::RightArrow }
}
