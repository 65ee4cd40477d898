//! The vocabulary of Millstream: what an epoch, an offset, a weighted batch and an error kind are.
//!
//! Every other crate depends on this one; it knows neither DataFusion, nor files, nor the network, and never
//! reads a wall clock: time arrives through [`Clock`].

pub mod access;
pub mod clock;
pub mod cores;
pub mod delta;
pub mod epoch;
pub mod error;
pub mod event_time;
pub mod offset;
pub mod options;
pub mod reach;
pub mod row_key;
pub mod suggest;

pub use access::{Privilege, Role};
pub use clock::{Clock, ManualClock};
pub use cores::cores;
pub use delta::{Delta, DeltaBatch, Weights};
pub use epoch::Epoch;
pub use error::{Classified, ErrorKind};
pub use event_time::EventTime;
pub use offset::{Offset, OffsetRange, PartitionRange};
pub use options::{OptionError, Options};
pub use reach::Reach;
