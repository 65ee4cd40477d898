//! The operators, one file each; `registry.rs` lists them.

mod aggregate;
mod constant;
mod fragment;
mod input;
mod join;
mod key_exprs;
mod map;
mod process;
mod recompute;
mod recursion;
pub(crate) mod registry;
mod session_window;
mod sharded;
mod static_join;
mod temporal_filter;
mod top_n;
mod touched_keys;
mod union;
mod unnest;
mod window_close;

pub use join::shared::SharedArrangements;

#[cfg(test)]
mod tests;
