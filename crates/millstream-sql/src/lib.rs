//! The SQL dialect of Millstream: from text to statements, and from a query in our dialect to one DataFusion plans.
//!
//! The crate knows the grammar and nothing else: no catalog, no types of columns, no execution. It does
//! three things, in this order:
//!
//! 1. [`split`] cuts a script into statements with the tokenizer, so that a `;` in a string is no end, and
//!    [`variables`] puts in the values of `:name` and `${NAME}`.
//! 2. [`parse_statement`] and [`parse_script`] turn one statement into a [`Statement`]. The queries inside are
//!    ordinary `sqlparser` queries; what DataFusion knows already is left to its own parser.
//! 3. [`rewrite::rewrite_query`] turns the parts of a query that DataFusion does not know (window table functions,
//!    group windows) into plain SQL, and refuses what it would silently get wrong.
//!
//! ```
//! use millstream_sql::{Statement, parse_statement};
//!
//! let statement = parse_statement("create view v as select a from t -- all of it").expect("valid SQL");
//! assert!(matches!(statement, Statement::CreateView(_)));
//! assert_eq!(statement.canonical_text(), "CREATE VIEW v AS SELECT a FROM t");
//! ```

pub mod depth;
pub mod dialect;
pub mod error;
pub mod literal;
mod other_names;
pub mod parameters;
pub mod parse;
pub mod place;
mod planner_error;
pub mod rewrite;
pub mod secrets;
pub mod split;
pub mod statement;
mod tokens;
pub mod variables;
pub mod visit;

pub use dialect::{DIALECT, MillstreamDialect};
pub use error::{Position, ScriptError, SqlError};
pub use parse::{Script, ScriptStatement, parse_expression, parse_query, parse_script, parse_statement};
pub use planner_error::sql_types;
pub use rewrite::{RewriteContext, VersionTime, rewrite_query};
pub use statement::Statement;
