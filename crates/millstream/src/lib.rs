//! SQL over streams, exactly once into Parquet: the crate to embed.
//!
//! ```
//! use arrow::array::{Int64Array, RecordBatch};
//! use std::sync::Arc;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = millstream::Engine::builder().build().await?;
//! engine.sql("CREATE STREAM events (customer BIGINT)").await?;
//! engine.sql("CREATE MATERIALIZED VIEW per_customer AS SELECT customer, count(*) AS n FROM events GROUP BY customer").await?;
//!
//! let input = engine.memory_source("events")?;
//! let column = Arc::new(Int64Array::from(vec![1, 2, 1]));
//! let pushed = input.push(RecordBatch::try_new(input.schema(), vec![column])?).await?; // one epoch's rows
//! pushed.committed().await?;
//!
//! let rows = engine.sql("SELECT * FROM per_customer ORDER BY n DESC").await?.collect().await?;
//! assert_eq!(arrow::util::pretty::pretty_format_batches(&rows)?.to_string(), "\
//! +----------+---+
//! | customer | n |
//! +----------+---+
//! | 1        | 2 |
//! | 2        | 1 |
//! +----------+---+");
//!
//! let mut changes = engine.subscribe("SELECT * FROM per_customer").await?;
//! let first = changes.next().await.expect("the view has rows")?;
//! assert!(first.snapshot);
//! engine.stop(millstream::Stop::Drain).await?;
//! # Ok(())
//! # }
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(run()).unwrap();
//! ```
//!
//! [`stateful`] is for code that is called key by key, with state: `FROM PROCESS(name, TABLE t PARTITION BY (key))`.
//!
//! There is no global state: two engines in one process are independent. To extend the engine, implement
//! [`source::Source`] or [`sink::DeliveredSink`], or register functions, tables and object stores with a DataFusion session and hand it
//! to [`Engine::from_session`].

pub mod stateful;

pub use millstream_connectors::sinks::callback::Callback;
pub use millstream_connectors::{sink, source};
pub use millstream_engine::{
    CatalogEntry, Change, Engine, EngineBuilder, EngineError, EpochProgress, MemorySource, Notice, Output, PipelineFile, Progress, Pushed,
    Rows, RunReport, ScriptFailure, ScriptPosition, Session, SessionUser, SettingInfo, Severity, StatementResult, Stop, Subscription,
    SystemClock, Trigger, access,
};
pub use millstream_types::{Clock, Delta, DeltaBatch, Epoch, EventTime, ManualClock, Reach, Weights, reach};

/// Compiles and runs the Rust of the guide.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide/embedding.md")]
struct Guide;
