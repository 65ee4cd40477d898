//! The accepted rows of a stream, epoch by epoch, as the source edge judged them: for back-fill, for SELECT, and for derived
//! streams that are made later.
//!
//! | stream | its rows come from |
//! | --- | --- |
//! | of a source that replays | the source again, with the ranges, clock and watermark of each epoch |
//! | of any other source, and what is derived from it | the rows that `retention` keeps |
//! | derived from a source that replays | the rows of its base, through its query and its own edge |

use super::derived::{Derivation, DerivedPlan};
use super::record::HistoryEntry;
use super::retained::{Retained, RetainedRows};
use super::sources::read_accepted;
use super::{Pipeline, StreamRuntime};
use crate::catalog::object::{StreamDef, StreamShape, stream_of, versioned_stream};
use crate::edge::{Accepted, Edge, EdgeEpoch};
use crate::error::{EngineError, Result};
use datafusion::execution::SessionState;
use millstream_connectors::registry;
use millstream_connectors::source::{EpochLimits, Reader, SourceContext};
use millstream_types::{Clock, Delta, Epoch, EventTime, Options, PartitionRange};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Epochs into which a source that nobody has drained yet is cut at most.
const UNTOUCHED_EPOCHS: usize = 100_000;

/// Where the accepted rows of a stream are. Rows are read only when a [`Cursor`] asks for them.
#[derive(Debug, Clone)]
pub struct AcceptedRows {
    def: Arc<StreamDef>,
    kept: Kept,
}

#[derive(Debug, Clone)]
enum Kept {
    Ranges { reader: Option<Arc<dyn Reader>>, history: Vec<Arc<HistoryEntry>> },
    Rows(RetainedRows),
    Derived { plan: DerivedPlan, history: Vec<Arc<HistoryEntry>>, base: Box<AcceptedRows> },
}

impl AcceptedRows {
    /// Those of a stream; `base`: of the stream it is derived from, where that can be read again.
    pub fn of(runtime: &StreamRuntime, base: Option<AcceptedRows>) -> Self {
        let kept = match (&runtime.derived, base) {
            (Some(plan), Some(base)) => Kept::Derived { plan: plan.clone(), history: runtime.history.clone(), base: Box::new(base) },
            _ if runtime.replayable => Kept::Ranges { reader: runtime.reader.clone(), history: runtime.history.clone() },
            _ => Kept::Rows(runtime.retained.clone()),
        };
        Self { def: Arc::clone(&runtime.def), kept }
    }

    /// Everything the source of a stream has now.
    ///
    /// # Errors
    /// When the source cannot be opened or listed.
    pub async fn of_source(def: Arc<StreamDef>, state: &SessionState, clock: &Arc<dyn Clock>) -> Result<Self> {
        let (reader, history) = everything(&def, state, clock).await?;
        Ok(Self { def, kept: Kept::Ranges { reader: Some(reader), history } })
    }

    /// The stream.
    pub fn def(&self) -> &Arc<StreamDef> {
        &self.def
    }

    /// The same stream with everything its source has now: the source is opened a second time.
    ///
    /// # Errors
    /// When the source cannot be opened or listed.
    pub async fn untouched(&self, state: &SessionState, clock: &Arc<dyn Clock>) -> Result<Self> {
        let kept = match &self.kept {
            Kept::Derived { plan, base, .. } => {
                let base = Box::pin(base.untouched(state, clock)).await?;
                let epochs = match &base.kept {
                    Kept::Ranges { history, .. } | Kept::Derived { history, .. } => history.as_slice(),
                    Kept::Rows(_) => &[],
                };
                let own = |entry: &Arc<HistoryEntry>| Arc::new(HistoryEntry { ranges: Vec::new(), ..entry.as_ref().clone() });
                Kept::Derived { plan: plan.clone(), history: epochs.iter().map(own).collect(), base: Box::new(base) }
            }
            _ => return Self::of_source(Arc::clone(&self.def), state, clock).await,
        };
        Ok(Self { def: Arc::clone(&self.def), kept })
    }

    /// Reads them, oldest first. `columns`: the columns that are read; `None` for all.
    ///
    /// # Errors
    /// When an expression of a stream does not compile.
    pub fn cursor(&self, columns: Option<BTreeSet<String>>, state: &SessionState) -> Result<Cursor> {
        let from = match &self.kept {
            Kept::Ranges { reader, history } => Origin::Ranges {
                reader: reader.clone(),
                history: history.clone(),
                at: 0,
                edge: Box::new(Edge::new(Arc::clone(&self.def), state)?),
                columns,
            },
            Kept::Rows(rows) => Origin::Rows(rows.clone()),
            Kept::Derived { plan, history, base } => {
                let derivation = plan.start()?;
                let base = Box::new(base.cursor(Some(derivation.columns()), state)?);
                let edge = Box::new(Edge::new(Arc::clone(&self.def), state)?);
                Origin::Derived { derivation, history: history.clone(), at: 0, edge, base }
            }
        };
        Ok(Cursor { from, versions: false, left_out: LeftOut::default() })
    }

    /// Refuses versions that begin with what is not kept. `from`: the epoch from which all changes are wanted.
    ///
    /// # Errors
    /// When some of them are not kept.
    pub fn require_versions(&self, from: Epoch) -> Result<()> {
        let Kept::Rows(rows) = &self.kept else { return Ok(()) };
        match rows.last_without_versions().filter(|epoch| *epoch >= from) {
            None => Ok(()),
            Some(missing) => Err(EngineError::invalid(
                format!("the versions that stream \"{}\" had through epoch {missing} are not kept", self.def.name),
                "Rows of its source come once, so that versions are kept while a query reads them. A materialized view WITH (backfill = \
                 'retained') begins with those that are there; make it before the rows come.",
            )),
        }
    }

    /// Reads the changes of a keyed stream one by one, oldest first: those that are kept, see [`AcceptedRows::require_versions`].
    ///
    /// # Errors
    /// When an expression of a stream does not compile.
    pub fn versions(&self, state: &SessionState) -> Result<Cursor> {
        let mut cursor = self.cursor(None, state)?;
        cursor.versions = true;
        if let Origin::Ranges { edge, .. } | Origin::Derived { edge, .. } = &mut cursor.from {
            edge.keep_versions(true);
        }
        Ok(cursor)
    }
}

/// Reads accepted rows, epoch by epoch.
#[derive(Debug)]
pub struct Cursor {
    from: Origin,
    /// The changes of a keyed stream are read, not its rows.
    versions: bool,
    left_out: LeftOut,
}

/// The bad rows that a cursor has left out so far.
#[derive(Debug, Default)]
pub struct LeftOut {
    /// How many.
    pub rows: u64,
    /// Place and reason of the first.
    pub first: Option<String>,
}

#[derive(Debug)]
enum Origin {
    Ranges {
        reader: Option<Arc<dyn Reader>>,
        history: Vec<Arc<HistoryEntry>>,
        at: usize,
        edge: Box<Edge>,
        columns: Option<BTreeSet<String>>,
    },
    Rows(RetainedRows),
    Derived {
        derivation: Derivation,
        history: Vec<Arc<HistoryEntry>>,
        at: usize,
        edge: Box<Edge>,
        base: Box<Cursor>,
    },
}

impl Cursor {
    /// The rows of the next epoch that had any, with its number and clock; `None` after the last.
    ///
    /// # Errors
    /// When the source no longer has what the log names, or expressions fail.
    pub async fn next(&mut self) -> Result<Option<(Epoch, EventTime, Delta)>> {
        let versions = self.versions;
        let wanted = |accepted: Accepted| if versions { accepted.versions } else { accepted.delta };
        match &mut self.from {
            Origin::Rows(rows) => {
                let Some(Retained { epoch, clock, rows, versions: changes }) = rows.pop_front()? else { return Ok(None) };
                Ok(Some((epoch, clock, if versions { changes } else { rows })))
            }
            Origin::Ranges { reader, history, at, edge, columns } => {
                let (Some(reader), Some(entry)) = (reader, history.get(*at)) else { return Ok(None) };
                *at += 1;
                // Rows are judged by the columns that were judged then, and by those that are asked for now.
                let judged = match (columns.as_ref(), &entry.columns) {
                    (Some(columns), Some(judged)) => Some(columns.union(judged).cloned().collect()),
                    _ => None,
                };
                edge.set_needed(judged);
                let accepted = read_accepted(edge, reader, &entry.ranges, edge_epoch(entry)).await?;
                self.left_out.rows += accepted.rows_bad;
                if self.left_out.first.is_none() {
                    self.left_out.first = accepted.bad_examples.first().cloned();
                }
                Ok(Some((entry.epoch, entry.clock, wanted(accepted))))
            }
            Origin::Derived { derivation, history, at, edge, base } => {
                let Some(entry) = history.get(*at) else { return Ok(None) };
                *at += 1;
                base.skip_to(entry.epoch);
                let rows = match Box::pin(base.next()).await? {
                    Some((epoch, _, rows)) if epoch == entry.epoch => rows,
                    _ => {
                        let (stream, epoch) = (&edge.def().name, entry.epoch);
                        return Err(EngineError::Corrupt(format!("stream \"{stream}\" has rows of epoch {epoch}, which its base has not")));
                    }
                };
                let accepted = derivation.derive(edge, &rows, edge_epoch(entry)).await?;
                Ok(Some((entry.epoch, entry.clock, wanted(accepted))))
            }
        }
    }

    /// The bad rows so far of a source that is read again.
    pub fn left_out(&self) -> &LeftOut {
        &self.left_out
    }

    /// Leaves out what lies before an epoch, where that does not decide what later rows do: the others need every row.
    pub fn skip_to(&mut self, epoch: Epoch) {
        match &mut self.from {
            Origin::Rows(rows) => rows.skip_to(epoch),
            Origin::Ranges { history, at, edge, .. } | Origin::Derived { history, at, edge, .. } => {
                let appends = edge.def().shape == StreamShape::Append;
                while appends && history.get(*at).is_some_and(|entry| entry.epoch < epoch) {
                    *at += 1;
                }
            }
        }
    }
}

impl Pipeline {
    /// Reads a stream or its versions, as a dataflow names its relations. `columns`: those that are read, `None` for all; `from`: the
    /// epoch from which no version may be missing, `None` where those count that are kept.
    pub(super) fn accepted_of(&self, relation: &str, columns: Option<BTreeSet<String>>, from: Option<Epoch>) -> Result<Option<Cursor>> {
        let Some(rows) = self.accepted_rows(stream_of(relation)) else { return Ok(None) };
        if versioned_stream(relation).is_none() {
            return rows.cursor(columns, &self.shared.base).map(Some);
        }
        from.map_or(Ok(()), |from| rows.require_versions(from))?;
        rows.versions(&self.shared.base).map(Some)
    }
}

fn edge_epoch(entry: &HistoryEntry) -> EdgeEpoch {
    EdgeEpoch { epoch: entry.epoch, clock: entry.clock, watermark_start: entry.watermark_start }
}

/// Everything the source of a stream has now, cut as `available` cuts it.
async fn everything(
    def: &Arc<StreamDef>,
    state: &SessionState,
    clock: &Arc<dyn Clock>,
) -> Result<(Arc<dyn Reader>, Vec<Arc<HistoryEntry>>)> {
    let owner = format!("stream \"{}\"", def.name);
    let fail = |error| EngineError::connector(&owner, error);
    let edge = Edge::new(Arc::clone(def), state)?;
    let context = SourceContext {
        stream: def.name.clone(),
        schema: edge.decode_schema(),
        metadata: edge.metadata(),
        event_time: def.watermark.as_ref().map(|(column, _)| column.clone()),
        options: Options::new(&owner, def.connector_options.clone()).within(crate::reach::of(state)),
        clock: Arc::clone(clock),
    };
    let mut source = registry::create_source(&def.connector, context).map_err(fail)?;
    source.open(None, &[]).await.map_err(fail)?;
    source.mark_end().await.map_err(fail)?;
    let limits = EpochLimits { max_rows: None, max_bytes: u64::MAX, max_files: u64::MAX, clock: clock.now(), draining: true, until: None };
    let mut history = Vec::new();
    while let Some(ranges) = source.plan(&limits).await.map_err(fail)? {
        let empty = ranges.iter().all(|range: &PartitionRange| range.range.start == range.range.end);
        let (epoch, clock, watermark_start) = (Epoch(1), limits.clock, EventTime::MIN);
        history.push(Arc::new(HistoryEntry { epoch, clock, watermark_start, ranges, columns: None }));
        if empty || history.len() > UNTOUCHED_EPOCHS {
            break;
        }
    }
    Ok((source.reader(), history))
}
