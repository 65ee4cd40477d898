//! Stateful functions: code of the host program that SQL calls key by key, with state that the engine keeps, checkpoints and drops.
//!
//! ```
//! use arrow::array::AsArray;
//! use arrow::datatypes::{DataType, Field, Int64Type, Schema};
//! use millstream::stateful::{Arguments, Cause, Declaration, FunctionError, KeyCall, ScalarValue, StatefulFunction};
//!
//! /// The total of `amount` per key, after each row; "closed" when a key has been silent for as long as state_ttl says.
//! struct RunningTotal;
//!
//! impl StatefulFunction for RunningTotal {
//!     fn declare(&self, input: &Schema, _: &Arguments) -> Result<Declaration, FunctionError> {
//!         input.field_with_name("amount")?;
//!         let state = vec![Field::new("total", DataType::Int64, false)];
//!         let output = vec![Field::new("total", DataType::Int64, false), Field::new("closed", DataType::Boolean, false)];
//!         Ok(Declaration::new(state, output))
//!     }
//!
//!     fn call(&self, call: &mut KeyCall<'_>) -> Result<(), FunctionError> {
//!         let mut total = match call.state() {
//!             Some([ScalarValue::Int64(Some(total))]) => *total,
//!             _ => 0,
//!         };
//!         if call.cause() == Cause::Expired {
//!             return call.emit([ScalarValue::from(total), ScalarValue::from(true)]);
//!         }
//!         let rows = call.rows().clone();
//!         let amounts = rows.column_by_name("amount").ok_or("no column \"amount\"")?.as_primitive::<Int64Type>();
//!         for amount in amounts.iter().flatten() {
//!             total += amount;
//!             call.emit([ScalarValue::from(total), ScalarValue::from(false)])?;
//!         }
//!         call.update([ScalarValue::from(total)])
//!     }
//! }
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = millstream::Engine::builder().stateful_function("running_total", RunningTotal).build().await?;
//! engine.sql("CREATE STREAM orders (customer VARCHAR, amount BIGINT)").await?;
//! engine.sql("CREATE MATERIALIZED VIEW totals AS
//!     SELECT customer, total FROM PROCESS(running_total, TABLE orders PARTITION BY (customer), state_ttl => INTERVAL '1 hour')").await?;
//! # let input = engine.memory_source("orders")?;
//! # let (names, amounts) = (arrow::array::StringViewArray::from(vec!["ann", "bob", "ann"]), arrow::array::Int64Array::from(vec![1, 2, 3]));
//! # let batch = arrow::array::RecordBatch::try_new(input.schema(), vec![std::sync::Arc::new(names), std::sync::Arc::new(amounts)])?;
//! # input.push(batch).await?.committed().await?;
//! # let rows = engine.sql("SELECT * FROM totals ORDER BY 1, 2").await?.collect().await?;
//! # assert_eq!(arrow::util::pretty::pretty_format_batches(&rows)?.to_string(), "\
//! # +----------+-------+
//! # | customer | total |
//! # +----------+-------+
//! # | ann      | 1     |
//! # | ann      | 4     |
//! # | bob      | 2     |
//! # +----------+-------+");
//! # Ok(())
//! # }
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(run()).unwrap();
//! ```

pub use millstream_engine::process::{
    Arguments, Cause, Declaration, Emitted, FunctionError, KeyCall, KeyState, Moment, ScalarValue, StatefulFunction,
};
