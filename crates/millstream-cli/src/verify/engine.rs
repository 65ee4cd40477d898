//! Engines for comparisons: in memory, with epochs that run only when they are told to, and a clock of their own.
//!
//! The clock begins in the year 2000 and moves one second per epoch, so that every run of a comparison is the same. A query that fails is
//! left behind alone, so that the others are compared.

use crate::engine_setup;
use crate::failure::Failure;
use crate::settings::Settings;
use millstream_engine::Engine;
use millstream_types::{Clock, EventTime, ManualClock};
use std::sync::Arc;
use std::time::Duration;

/// 2000-01-01T00:00:00Z.
const START: EventTime = EventTime(946_684_800_000_000);
/// How far apart epochs are.
const STEP: Duration = Duration::from_secs(1);

/// Starts an engine; gives its clock too.
///
/// # Errors
/// A usage error for illegal settings.
pub(super) async fn start(settings: &Settings) -> Result<(Engine, Arc<ManualClock>), Failure> {
    let clock = Arc::new(ManualClock::new(START));
    let builder =
        engine_setup::builder(settings).option("on_query_failure", "isolate").manual().clock(Arc::clone(&clock) as Arc<dyn Clock>);
    Ok((engine_setup::build(builder).await?, clock))
}

/// Moves the clock to the next epoch.
pub(super) fn tick(clock: &ManualClock) {
    clock.advance(STEP);
}
