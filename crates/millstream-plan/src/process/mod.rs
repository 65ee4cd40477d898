//! Stateful functions: code of the host program that is called key by key, with state that the engine keeps for it.
//!
//! ```sql
//! SELECT customer, total FROM PROCESS(running_total, TABLE orders PARTITION BY (customer) ORDER BY ts, state_ttl => INTERVAL '1 hour')
//! ```
//! ```text
//!   rows of the epoch ─ by key, in order ─► StatefulFunction::call ─► rows of the key
//!                                             │ ▲
//!                              state, timers  ▼ │  one row per key, checkpointed with everything else
//! ```
//! A [`StatefulFunction`] declares the columns of its state and of its rows ([`Declaration`]), and is called with a [`KeyCall`]: the
//! new rows of one key, its state, the clock. It may be called once more when a timer of the key is due, or, with `state_ttl`, before
//! the state of a key is dropped that nothing has touched. Only keys with rows or a due timer are called.
//!
//! What it returns depends on how rows were cut into epochs, on their order and on the clock. So there is no batch query that
//! gives the same rows, and PROCESS exists in continuous queries only. The same epochs always give the same rows, a restart included,
//! as long as the function is a function of its call: it must not read clocks or keep anything outside of its state.
//!
//! | file | what |
//! |---|---|
//! | `function` | the trait, what a function declares, its arguments, the registry |
//! | `call` | what a call sees and does |
//! | `node` | PROCESS in a logical plan |
//! | `relation` | from SQL to that node |

mod call;
mod function;
mod node;
mod relation;

pub use call::{Cause, Emitted, KeyCall, KeyState, Moment};
pub use function::{Arguments, Declaration, FunctionError, StatefulFunction, StatefulFunctions};
pub use node::{ProcessCall, ProcessNode, ProcessResult};
pub use relation::ProcessPlanner;

/// A value of a key, of state or of a row.
pub use datafusion::common::ScalarValue;
