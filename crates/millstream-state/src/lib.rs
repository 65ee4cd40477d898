//! Everything durable of a pipeline, under one local state directory.
//!
//! ```text
//!   <state-dir>/
//!     FORMAT                 format versions; a newer one is refused
//!     ID                     what the pipeline is called in the files of its sinks
//!     lock                   flock: held while an instance is live
//!     writer/<n>             fencing: created put-if-absent at start, the highest n owns the directory
//!     log/<writer>-<seq>     checksummed frames: commit records                           (Log)
//!     log/<writer>.seal      where a predecessor's frames end; later ones are void
//!     checkpoint/<epoch>/    manifest and segments/                                       (CheckpointWriter, CheckpointReader)
//!     tables/<hash>.arrow    content of at-rest tables, named by its hash                 (BlobStore)
//!     deadletter/<hash>.arrow  rows that streams have refused, named by their hash        (BlobStore)
//!     parts/<sink>/          row groups of files that are not rolled yet                  (owned by sinks)
//! ```
//!
//! The crate knows bytes, frames, batches and fsync; it knows neither SQL, nor operators, nor what a commit record says.
//! All of it is synchronous (`std::fs`): callers run it where blocking is allowed. Nothing here reads a clock.
//!
//! ```
//! use millstream_state::{InstanceInfo, Log, LogOptions, OpenOptions, StateDir};
//! use millstream_types::{Epoch, EventTime};
//!
//! # let directory = tempfile::tempdir().unwrap();
//! let instance = InstanceInfo { host: "a".into(), pid: 1, started: EventTime(0) };
//! let state = StateDir::open(directory.path().join("state"), OpenOptions { takeover: false, instance })?;
//! let mut log = Log::open(&state, LogOptions::default())?;
//! log.append(1, Epoch(1), &[b"what epoch 1 did"])?;
//! log.sync()?;
//! state.check_fenced()?;
//! let frames: Vec<_> = log.frames()?.collect::<Result<_, _>>()?;
//! assert_eq!(frames[0].payload, b"what epoch 1 did");
//! # Ok::<(), millstream_state::StateError>(())
//! ```

pub mod blob;
pub mod checkpoint;
mod document;
pub mod durable_put;
mod encode_ahead;
pub mod error;
pub mod failpoint;
pub mod ipc;
pub mod log;
pub mod state_dir;
mod writer_number;

pub use blob::{BlobRef, BlobStore};
pub use checkpoint::{CheckpointReader, CheckpointWriter, Manifest, Recovered};
pub use error::{Result, StateError};
pub use ipc::Compression;
pub use log::{Frame, FramePayload, Log, LogOptions, LogReader, PendingSync, Synced};
pub use state_dir::{InstanceInfo, OpenOptions, StateDir};
