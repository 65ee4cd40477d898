//! From an optimized `LogicalPlan` to a dataflow graph that maintains it incrementally.
//!
//! ```text
//! SQL -> LogicalPlan -> optimize -> plan -> Graph -> millstream-dataflow
//! ```
//! [`optimize`](optimize::optimize) runs DataFusion's analyzer and a curated optimizer, [`plan`] translates the
//! result node by node into a [`Graph`](graph::Graph): operators with expressions, strategies and properties, but without any code
//! that runs them. Whatever has no incremental form becomes a plan that is recomputed over its inputs, so that every query works;
//! [`explain`](explain::explain) says which and why.
//!
//! The crate also holds what planner and operators share: [bounds](bound), [leaves](leaf) of plans that are run again and again,
//! [compiled expressions](compile), and the [functions] that Millstream adds to DataFusion's.
//!
//! This crate reads no clock, no files and no network; it does not know SQL text.

pub mod bound;
mod canonical;
pub mod compile;
mod emit;
pub mod error;
pub mod explain;
mod fast_time;
pub mod first_values;
pub mod functions;
pub mod graph;
pub mod leaf;
pub mod multisets;
mod nodes;
mod one_row_queries;
pub mod optimize;
pub mod process;
pub mod relation;
pub mod sharing;
mod state_ttl;
pub mod subquery_values;
pub mod temporal;
pub mod translate;
mod watermark;

pub use error::PlanError;
pub use nodes::recursion::{term_column, term_input};
pub use translate::{EmitClause, Fallback, FloatSum, PlanOptions, Planned, plan};

#[cfg(test)]
mod tests;
