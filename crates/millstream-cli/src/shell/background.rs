//! What happens while the user types: failures and bad rows, told above the prompt.

use crate::terminal::escape_keeping_lines;
use millstream_engine::Engine;
use std::collections::BTreeMap;
use std::sync::mpsc::SyncSender;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;

/// How often the user is told at most.
const INTERVAL: Duration = Duration::from_secs(1);

/// Tells until the call is dropped or the engine is gone.
pub(crate) async fn tell(engine: Engine, printer: SyncSender<String>) {
    let mut epochs = engine.progress().subscribe();
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told = engine.progress().errors().len();
    let mut bad: BTreeMap<String, u64> = BTreeMap::new();
    // The prompt's queue is short: what does not fit is lost, and the system tables still have it.
    let say = |text: String| drop(printer.try_send(escape_keeping_lines(&text).into_owned()));
    loop {
        tokio::select! {
            epoch = epochs.recv() => match epoch {
                Ok(epoch) => {
                    for source in epoch.sources.iter().filter(|source| source.rows_bad > 0) {
                        *bad.entry(source.stream.clone()).or_default() += source.rows_bad;
                    }
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            _ = ticks.tick() => {
                let errors = engine.progress().errors();
                for (epoch, query, message) in errors.iter().skip(told) {
                    let what = if query.is_empty() { "the pipeline has stopped".to_string() } else { format!("query \"{query}\" failed") };
                    say(format!("error: {what} in epoch {epoch}: {message}"));
                }
                told = errors.len();
                for (stream, rows) in std::mem::take(&mut bad) {
                    say(format!("warning: stream \"{stream}\": {rows} bad rows; SELECT * FROM millstream.dead_letters shows them"));
                }
            }
        }
    }
}
