//! The node families: which operator each kind of plan node becomes, and when it is recomputed instead.

mod aggregate;
pub(crate) mod fragment;
mod grouping_sets;
mod join;
mod keyed;
mod lookup_join;
mod map;
mod ordered;
mod panes;
mod process;
mod reach;
pub(crate) mod recursion;
mod scan;
mod session_window;
mod tail;
mod temporal_filter;
mod top_n;
mod union;
mod unnest;
mod versions;
mod window;

pub(crate) use map::passed_through;
pub(crate) use session_window::groups_sessions;
