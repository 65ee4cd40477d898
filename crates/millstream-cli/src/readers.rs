//! The threads on which a server carries out statements that read: as many as there are cores, ranked below those that run epochs, so that
//! readers, however many, take what ingestion leaves.

use crate::STACK_SIZE;
use std::io;
use thread_priority::{NormalThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy};
use tokio::runtime::{Builder, Handle, Runtime};

/// Of 0 to 99, where the others have 50: nice 10.
const PRIORITY: u8 = 22;

/// The threads; they end with it, whatever they are doing.
#[derive(Debug)]
pub(crate) struct Readers {
    runtime: Option<Runtime>,
}

impl Readers {
    /// Starts them.
    ///
    /// # Errors
    /// When the operating system has no threads to give.
    pub(crate) fn start(threads: usize) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("reader")
            .thread_stack_size(STACK_SIZE)
            .on_thread_start(rank_below)
            .enable_all()
            .build()?;
        Ok(Self { runtime: Some(runtime) })
    }

    /// What spawns tasks there.
    pub(crate) fn handle(&self) -> Option<Handle> {
        self.runtime.as_ref().map(|runtime| runtime.handle().clone())
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        // Nobody waits for a statement that still computes.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Ranks the current thread below others. Where that is not allowed it competes as an equal.
fn rank_below() {
    let priority = ThreadPriorityValue::try_from(PRIORITY).map(ThreadPriority::Crossplatform);
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Other);
    let ranked = priority.map_err(|error| error.to_string()).and_then(|priority| {
        let thread = thread_priority::thread_native_id();
        thread_priority::set_thread_priority_and_policy(thread, priority, policy).map_err(|error| format!("{error:?}"))
    });
    if let Err(error) = ranked {
        tracing::debug!(%error, "statements that read run with the priority of epochs");
    }
}
