//! TPC-H: its 22 queries and its eight tables, for `millstream verify tpch`.
//!
//! Orders and lines of orders arrive in the order of their keys, as they would from a shop; the other large tables are streams as well,
//! so that every side of every join changes. Nations and regions lie at rest.

pub(crate) mod data;
pub(crate) mod queries;
