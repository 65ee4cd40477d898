//! The sources: one folder (or file) per connector, plus what several of them share.

pub(crate) mod columns;
pub mod files;
pub mod generator;
pub mod history;
pub mod memory;
pub mod nexmark;
pub(crate) mod pace;
pub(crate) mod position;
pub(crate) mod random;
pub mod rate;
pub(crate) mod received;
pub(crate) mod schedule;
pub mod socket;
pub mod stdin;
pub mod timer;
