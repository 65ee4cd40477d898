//! What an operator is.

use crate::error::{DataflowError, Result};
use crate::operators::SharedArrangements;
use arrow::array::RecordBatch;
use async_trait::async_trait;
use datafusion::execution::TaskContext;
use millstream_plan::bound::BoundContext;
use millstream_types::EventTime;
use millstream_types::delta::{Delta, DeltaBatch};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// What an operator may know about the epoch besides its input.
pub(crate) struct StepContext<'a> {
    /// Changes of the relations, for inputs.
    pub(crate) deltas: &'a HashMap<String, Delta>,
    /// Watermarks and clock at the epoch's end, for bounds.
    pub(crate) bounds: &'a BoundContext,
    /// Whether this is the dataflow's first epoch: constants and rows over empty input are handed out.
    pub(crate) first: bool,
    /// For DataFusion plans.
    pub(crate) task: &'a Arc<TaskContext>,
}

/// An operator's state in a checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Saved {
    /// Version of the operator's layout.
    pub(crate) format: u32,
    /// Rows by what they are.
    pub(crate) groups: Vec<(String, Vec<RecordBatch>)>,
    /// Everything that is not rows.
    pub(crate) detail: serde_json::Value,
}

impl Saved {
    /// Refuses state of another format.
    pub(crate) fn expect_format(&self, format: u32) -> Result<()> {
        if self.format == format {
            return Ok(());
        }
        Err(DataflowError::mismatch(format!("it has format {}, this version reads {format}", self.format)))
    }

    /// The batches of a group; none if it was empty.
    pub(crate) fn group(&self, name: &str) -> &[RecordBatch] {
        self.groups.iter().find(|(group, _)| group == name).map_or(&[], |(_, batches)| batches.as_slice())
    }

    /// A value of the detail.
    pub(crate) fn detail<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T> {
        let value = self.detail.get(name).cloned().unwrap_or_default();
        serde_json::from_value(value).map_err(|error| DataflowError::mismatch(format!("its detail \"{name}\" cannot be read: {error}")))
    }
}

/// Counters of an operator.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StateStats {
    /// Rows it keeps.
    pub(crate) rows: usize,
    /// Their memory with indexes.
    pub(crate) bytes: usize,
    /// Rows and bytes beyond that of state that it shares with others and is the first to have: the others do not count them.
    pub(crate) shared: (usize, usize),
    /// How many other operators share state with it.
    pub(crate) shared_with: usize,
    /// Into how many shards it is divided; zero if it is not.
    pub(crate) shards: usize,
    /// Keys looked up since the start of the process.
    pub(crate) touched_keys: u64,
    /// Rows of state that were computed again because their key was touched, since the start of the process.
    pub(crate) read_rows: u64,
    /// Rows below the bound that came too late and were ignored, since the start of the process.
    pub(crate) dropped_rows: u64,
}

/// A node of a running dataflow.
///
/// Per epoch: `needs_step` if no input changed, then `step` at most once, with the complete change of every input. `step` is a pure
/// function of state, input and context. After an error the operator is undefined. `checkpoint` and `restore` happen between epochs;
/// `restore` and `load_constant` only on a new operator, in this order.
#[async_trait]
pub(crate) trait Operator: Send + Sync {
    /// Whether the operator has something to do although no input changed: a bound has passed state, or the first epoch has come.
    fn needs_step(&self, context: &StepContext<'_>) -> Result<bool> {
        let _ = context;
        Ok(false)
    }

    /// The reading of the clock at which it has something to do without a change of its inputs, if it knows.
    fn next_due(&self) -> Option<EventTime> {
        None
    }

    /// Takes the changes of the inputs and returns the change of the output.
    async fn step(&mut self, inputs: &[&[DeltaBatch]], context: &StepContext<'_>) -> Result<Delta>;

    /// The state, `None` if the operator has none.
    fn checkpoint(&mut self) -> Result<Option<Saved>> {
        Ok(None)
    }

    /// Takes state back.
    fn restore(&mut self, saved: &Saved) -> Result<()> {
        let _ = saved;
        Err(DataflowError::mismatch("the operator has no state"))
    }

    /// Fills an input that is constant again after a restart. Nothing is handed out.
    fn load_constant(&mut self, input: usize, delta: &[DeltaBatch]) -> Result<()> {
        let _ = (input, delta);
        Ok(())
    }

    /// How it shares state with operators of other queries, if it may.
    fn sharing(&mut self) -> Option<&mut dyn Sharing> {
        None
    }

    /// Counters.
    fn stats(&self) -> StateStats {
        StateStats::default()
    }
}

/// State that operators of several queries have together. Each begins alone; between epochs it comes together with others whose state is
/// equal.
pub(crate) trait Sharing {
    /// Shares what equals the state of others.
    fn share(&mut self, arrangements: &SharedArrangements) -> Result<()>;

    /// Goes on alone, with the state of before the running epoch, which the operator has not stepped in. `false`: that is lost.
    fn part(&mut self) -> Result<bool>;

    /// Lets go of what is shared. The operator is undefined afterwards.
    fn let_go(&mut self);

    /// As [`Operator::checkpoint`], and the numbers of the groups that are shared: their rows are left out if they are `written` already.
    fn checkpoint(&mut self, written: &mut BTreeSet<u64>) -> Result<(Saved, BTreeMap<String, u64>)>;

    /// Takes back what [`checkpoint`](Self::checkpoint) gave. Shared rows are in `saved` unless another operator has brought them back.
    fn restore(&mut self, saved: &Saved, numbers: &BTreeMap<String, u64>, arrangements: &SharedArrangements) -> Result<()>;
}
