//! The only test binary of the workspace that goes through the whole engine: scripts, oracle, crashes, examples, documents.

mod adopted;
mod backpressure;
mod checkpoints;
mod crash;
mod ending;
mod examples;
mod flat_state;
mod insert_keys;
mod oracle;
mod pipeline_file;
mod reach;
mod reference;
mod refresh;
mod slt;
mod subscriptions;
mod support;
mod takeover;
