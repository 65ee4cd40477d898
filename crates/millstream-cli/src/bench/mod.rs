//! `millstream bench`: what the engine costs on this machine.

mod epoch;
mod nexmark;

pub(crate) use epoch::epoch;
pub(crate) use nexmark::nexmark;
