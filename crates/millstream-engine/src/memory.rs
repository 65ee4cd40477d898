//! The memory of an engine: one pool with a limit that can be changed while it runs (`SET memory_limit`).
//!
//! ```text
//!   operators, views, tables ──────────────────► pool: memory_limit ──► pool of an adopted session
//!   statements that read ──► pool: a quarter ─────┘
//!     └ one of a limited user ──► pool: its limit, below that
//! ```
//! A query that would exceed the limit fails with an error that names the operator; what is there already stays, also when the limit is
//! lowered below it. Statements that read have a quarter at most, so that they do not crowd out the continuous queries; what DataFusion can
//! do on disk it does there. **In**: what is asked for. **Errors**: `ResourcesExhausted`, naming who asked for how much.

use crate::error::{EngineError, Result};
use datafusion::common::DataFusionError;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation, human_readable_size};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SessionState, SessionStateBuilder};
use millstream_types::options::parse_bytes;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// The share of the limit that statements which read may take together.
const READING_SHARE: usize = 4;

/// The pools of an engine.
#[derive(Debug, Clone)]
pub struct EngineMemory {
    all: Arc<LimitedPool>,
    reading: Arc<LimitedPool>,
}

impl EngineMemory {
    /// Pools that take at most `limit` bytes from `below`.
    pub fn new(below: Arc<dyn MemoryPool>, limit: usize) -> Self {
        let all = Arc::new(LimitedPool::new("memory_limit", below, limit));
        let reading = LimitedPool::new("a quarter of memory_limit", Arc::clone(&all) as _, limit / READING_SHARE);
        Self { all, reading: Arc::new(reading) }
    }

    /// Changes the limit; it counts from the next growth on.
    pub fn set_limit(&self, limit: usize) {
        self.all.set_limit(limit);
        self.reading.set_limit(limit / READING_SHARE);
    }

    /// The same session, its memory taken from the engine's.
    ///
    /// # Errors
    /// When the session's environment cannot be built again.
    pub fn charge(&self, state: SessionState) -> Result<SessionState> {
        Self::with_pool(state, &self.all)
    }

    /// The same session for statements that read.
    ///
    /// # Errors
    /// As [`EngineMemory::charge`].
    pub fn charge_reading(&self, state: SessionState) -> Result<SessionState> {
        Self::with_pool(state, &self.reading)
    }

    /// The session for statements that read, for one statement that may take so much.
    ///
    /// # Errors
    /// As [`EngineMemory::charge`].
    pub fn charge_statement(&self, state: SessionState, limit: u64) -> Result<SessionState> {
        let runtime = self.statement_runtime(state.runtime_env(), limit)?;
        Ok(SessionStateBuilder::new_from_existing(state).with_runtime_env(runtime).build())
    }

    /// The environment of statements that read, for one statement that may take so much.
    ///
    /// # Errors
    /// As [`EngineMemory::charge`].
    pub fn statement_runtime(&self, reading: &Arc<RuntimeEnv>, limit: u64) -> Result<Arc<RuntimeEnv>> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let pool = LimitedPool::new("the limit of this statement", Arc::clone(&self.reading) as _, limit);
        Ok(RuntimeEnvBuilder::from_runtime_env(reading).with_memory_pool(Arc::new(pool)).build_arc()?)
    }

    fn with_pool(state: SessionState, pool: &Arc<LimitedPool>) -> Result<SessionState> {
        let runtime = RuntimeEnvBuilder::from_runtime_env(state.runtime_env()).with_memory_pool(Arc::clone(pool) as _).build_arc()?;
        Ok(SessionStateBuilder::new_from_existing(state).with_runtime_env(runtime).build())
    }
}

/// A pool over another one with a limit of its own.
#[derive(Debug)]
struct LimitedPool {
    name: &'static str,
    below: Arc<dyn MemoryPool>,
    limit: AtomicUsize,
    reserved: AtomicUsize,
}

impl LimitedPool {
    fn new(name: &'static str, below: Arc<dyn MemoryPool>, limit: usize) -> Self {
        Self { name, below, limit: AtomicUsize::new(limit), reserved: AtomicUsize::new(0) }
    }

    fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }
}

impl std::fmt::Display for LimitedPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}(used: {}, limit: {})", self.name(), human_readable_size(self.reserved()), human_readable_size(self.limit()))
    }
}

impl MemoryPool for LimitedPool {
    fn name(&self) -> &str {
        self.name
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.below.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.below.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.reserved.fetch_add(additional, Ordering::Relaxed);
        self.below.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.reserved.fetch_sub(shrink, Ordering::Relaxed);
        self.below.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> datafusion::error::Result<()> {
        let limit = self.limit();
        let fits = |reserved: usize| reserved.checked_add(additional).filter(|sum| *sum <= limit);
        if let Err(reserved) = self.reserved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{} has {} and asks for {} more; {} of {} = {} are taken",
                reservation.consumer().name(),
                human_readable_size(reservation.size()),
                human_readable_size(additional),
                human_readable_size(reserved),
                self.name,
                human_readable_size(limit),
            )));
        }
        self.below.try_grow(reservation, additional).inspect_err(|_| {
            self.reserved.fetch_sub(additional, Ordering::Relaxed);
        })
    }

    fn reserved(&self) -> usize {
        self.reserved.load(Ordering::Relaxed)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.limit())
    }
}

/// The bytes that a limit stands for: a size, or a share of the machine's (or the control group's) memory such as `60%`.
///
/// # Errors
/// When it is neither.
pub fn parse_limit(text: &str) -> Result<usize> {
    let refused = || {
        EngineError::invalid(
            format!("setting \"memory_limit\" is '{text}', neither a size nor a share of the memory"),
            "Write for example SET memory_limit = '4 GB' or SET memory_limit = '60%'.",
        )
    };
    let bytes = match text.trim().strip_suffix('%') {
        None => parse_bytes(text).ok_or_else(refused)?,
        Some(percent) => {
            let percent: u64 = percent.trim().parse().ok().filter(|percent| (1..=100).contains(percent)).ok_or_else(refused)?;
            *TOTAL.get_or_init(total_memory) / 100 * percent
        }
    };
    Ok(usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// Limits are parsed with every change of the catalog or of a setting; the operating system is asked once.
static TOTAL: OnceLock<u64> = OnceLock::new();

/// Memory of the machine, or of the control group where that is less.
fn total_memory() -> u64 {
    let system = System::new_with_specifics(RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram()));
    let group = system.cgroup_limits().map(|limits| limits.total_memory).filter(|bytes| *bytes > 0);
    group.map_or(system.total_memory(), |group| group.min(system.total_memory()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::execution::memory_pool::{GreedyMemoryPool, UnboundedMemoryPool};

    #[test]
    fn a_limit_can_be_lowered_below_what_is_there() {
        let limited = Arc::new(LimitedPool::new("memory_limit", Arc::new(UnboundedMemoryPool::default()), 100));
        let pool: Arc<dyn MemoryPool> = Arc::clone(&limited) as _;
        let reservation = MemoryConsumer::new("view \"v\"").register(&pool);
        reservation.try_grow(80).unwrap();
        limited.set_limit(50);
        let error = reservation.try_grow(1).unwrap_err();
        assert!(
            error.to_string().contains("view \"v\" has 80.0 B and asks for 1.0 B more; 80.0 B of memory_limit = 50.0 B are taken"),
            "{error}"
        );
        reservation.shrink(40);
        reservation.try_grow(10).unwrap();
        drop(reservation);
        assert_eq!(pool.reserved(), 0);
    }

    #[test]
    fn the_pool_below_has_its_say() {
        let pool: Arc<dyn MemoryPool> = Arc::new(LimitedPool::new("memory_limit", Arc::new(GreedyMemoryPool::new(10)), 100));
        let reservation = MemoryConsumer::new("sort").register(&pool);
        assert!(reservation.try_grow(20).is_err());
        assert_eq!(pool.reserved(), 0);
    }

    #[test]
    fn limits_are_sizes_or_shares() {
        assert_eq!(parse_limit("2 MB").unwrap(), 2_000_000);
        let (half, all) = (parse_limit("50%").unwrap(), parse_limit("100 %").unwrap());
        assert!(half > 0 && all >= 2 * half - 2, "{half} of {all}");
        for wrong in ["0%", "101%", "much", "%"] {
            assert!(parse_limit(wrong).is_err(), "{wrong}");
        }
    }
}
