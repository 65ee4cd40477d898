//! Parameters of prepared statements: `$1`, `$2`, ....
//!
//! A parameter stands for one value. Before a statement is planned every parameter is replaced by an expression (a literal with its
//! type), so that whatever takes an expression takes a parameter, and a definition that the catalog keeps has none:
//!
//! ```
//! use millstream_sql::{parse_expression, parse_statement};
//!
//! let mut statement = parse_statement("SELECT a FROM t WHERE b = $1 AND c > $1").expect("a statement");
//! assert_eq!(statement.parameter_count()?, 1);
//! let seven = parse_expression("CAST('7' AS BIGINT)").expect("an expression");
//! statement.replace_parameters(&mut |_| Some(seven.clone()))?;
//! assert_eq!(statement.to_string(), "SELECT a FROM t WHERE b = CAST('7' AS BIGINT) AND c > CAST('7' AS BIGINT)");
//! # Ok::<(), millstream_sql::SqlError>(())
//! ```

use crate::error::{Result, SqlError};
use crate::statement::{CopySource, Explain, Statement, Subscribe, SubscribeSource};
use crate::visit::{Node, WalkMut, walk_mut};
use datafusion::sql::parser::Statement as DfStatement;
use sqlparser::ast::{Expr, Value};
use std::ops::ControlFlow;

/// Parameters are numbered from 1 to this, as in PostgreSQL.
const PARAMETERS_MAX: usize = 65_535;

/// Gives the expression for a parameter, by its index from 0; `None` leaves it as it is.
pub type Replacement<'a> = dyn FnMut(usize) -> Option<Expr> + 'a;

impl Statement {
    /// The number of the highest parameter; 0 without parameters.
    ///
    /// # Errors
    /// A placeholder that is no parameter, such as `?`.
    pub fn parameter_count(&self) -> Result<usize> {
        let mut count = 0;
        self.clone().replace_parameters(&mut |index| {
            count = count.max(index + 1);
            None
        })?;
        Ok(count)
    }

    /// Replaces parameters by expressions.
    ///
    /// # Errors
    /// As [`Statement::parameter_count`].
    pub fn replace_parameters(&mut self, replacement: &mut Replacement<'_>) -> Result<()> {
        match self {
            Statement::Update(statement)
            | Statement::Delete(statement)
            | Statement::Truncate(statement)
            | Statement::Execute(statement)
            | Statement::Deallocate(statement) => replace(&mut **statement, replacement),
            Statement::Other(statement) => match statement.as_mut() {
                DfStatement::Statement(statement) => replace(&mut **statement, replacement),
                _ => Ok(()),
            },
            // They take their values with EXECUTE.
            Statement::Prepare(_) => Ok(()),
            Statement::Explain(Explain { statement, .. }) => statement.replace_parameters(replacement),
            Statement::Copy(copy) => match &mut copy.source {
                CopySource::Query(query) | CopySource::Subscribe(Subscribe { source: SubscribeSource::Query(query), .. }) => {
                    replace(&mut **query, replacement)
                }
                _ => Ok(()),
            },
            other => match other.query_mut() {
                Some(query) => replace(query, replacement),
                None => Ok(()),
            },
        }
    }
}

/// Replaces the parameters in a part of a statement.
///
/// # Errors
/// A placeholder that is no parameter.
pub fn replace(part: &mut dyn Node, replacement: &mut Replacement<'_>) -> Result<()> {
    let mut replacer = Replacer { replacement, result: Ok(()) };
    let _ = walk_mut(part, &mut replacer);
    replacer.result
}

/// Replaces parameters up to the first placeholder that is none.
struct Replacer<'a, 'r> {
    replacement: &'a mut Replacement<'r>,
    result: Result<()>,
}

impl WalkMut for Replacer<'_, '_> {
    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let Expr::Value(value) = expr else { return ControlFlow::Continue(()) };
        let Value::Placeholder(name) = &value.value else { return ControlFlow::Continue(()) };
        let Some(index) = index(name) else {
            self.result = Err(SqlError::new(format!("\"{name}\" is no parameter"))
                .with_hint("Parameters are written $1, $2 and so on, and take their values from the client.")
                .at(value.span));
            return ControlFlow::Break(());
        };
        if let Some(replaced) = (self.replacement)(index) {
            *expr = replaced;
        }
        ControlFlow::Continue(())
    }
}

/// The index of a parameter by its name: `$1` is 0.
pub fn index(name: &str) -> Option<usize> {
    let number: usize = name.strip_prefix('$')?.parse().ok()?;
    (1..=PARAMETERS_MAX).contains(&number).then(|| number - 1)
}

#[cfg(test)]
mod tests {
    use crate::{parse_expression, parse_statement};

    fn bound(sql: &str) -> String {
        let mut statement = parse_statement(sql).unwrap();
        statement.replace_parameters(&mut |index| Some(parse_expression(&format!("'p{}'", index + 1)).unwrap())).unwrap();
        statement.to_string()
    }

    #[test]
    fn every_statement_with_an_expression_takes_parameters() {
        assert_eq!(bound("INSERT INTO t VALUES ($1, $2), ($1, 3)"), "INSERT INTO t VALUES ('p1', 'p2'), ('p1', 3)");
        assert_eq!(bound("UPDATE t SET a = $2 WHERE b = $1"), "UPDATE t SET a = 'p2' WHERE b = 'p1'");
        assert_eq!(bound("DELETE FROM t WHERE b IN ($1, $2)"), "DELETE FROM t WHERE b IN ('p1', 'p2')");
        assert_eq!(bound("SELECT a FROM t LIMIT $1"), "SELECT a FROM t LIMIT 'p1'");
        assert_eq!(bound("SUBSCRIBE TO (SELECT a FROM t WHERE b = $1)"), "SUBSCRIBE TO (SELECT a FROM t WHERE b = 'p1')");
        assert_eq!(bound("EXPLAIN SELECT $1"), "EXPLAIN SELECT 'p1'");
        assert_eq!(bound("DECLARE c CURSOR FOR SELECT $1"), "DECLARE c CURSOR FOR SELECT 'p1'");
        assert_eq!(bound("EXECUTE p($1)"), "EXECUTE p('p1')");
        assert_eq!(bound("PREPARE p AS SELECT $1"), "PREPARE p AS SELECT $1");
        assert_eq!(bound("SELECT a FROM t WHERE b = (SELECT max(c) FROM u WHERE d > $1)"), {
            "SELECT a FROM t WHERE b = (SELECT max(c) FROM u WHERE d > 'p1')"
        });
    }

    #[test]
    fn counts_by_the_highest_number() {
        assert_eq!(parse_statement("SELECT $3, $1").unwrap().parameter_count(), Ok(3));
        assert_eq!(parse_statement("SHOW TABLES").unwrap().parameter_count(), Ok(0));
        let error = parse_statement("SELECT ?").unwrap().parameter_count().unwrap_err();
        assert_eq!(error.message, "\"?\" is no parameter");
    }
}
