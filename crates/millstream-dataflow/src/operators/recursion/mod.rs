//! Recursion: recursive queries, at a cost proportional to what follows from a change.
//!
//! ```sql
//! WITH RECURSIVE reach AS (SELECT a, b FROM edges UNION SELECT r.a, e.b FROM reach r JOIN edges e ON r.b = e.a) SELECT * FROM reach
//! ```
//! ```text
//!   round 0   the change of the start                                  ─▶ out
//!   round 1   the term: what that brings, and what the changes of the other inputs bring for all rows so far   ─▶ out
//!   round 2   the term: what round 1 brings                            ─▶ out
//!   ..        until a round brings nothing
//! ```
//! The recursive term is a dataflow of its own, which is stepped once per round. Its operators keep what they need of the result so
//! far, so a change of another input meets all of it in round 1, and is not seen again.
//!
//! **In**: the start, then what the term reads beside the result. **Out**: the query's columns. **Changelog**: with UNION ALL the sum of
//! the changes of all rounds. With UNION inputs are append-only, a row comes out once, and rows that are there already are not followed.
//! **State**: what the operators of the term keep (`term/<n>/..`), and with UNION the rows of the result (`result`). **Dropped**: never.
//! **Errors**: those of the term; a recursion that does not end in a million rounds, as UNION ALL over a cycle.

#[cfg(test)]
mod tests;

use crate::columns::{make_batch, take_rows};
use crate::dataflow::{Dataflow, DataflowContext, EpochInput, OperatorState};
use crate::error::{DataflowError, Result};
use crate::key_index::KeyIndex;
use crate::operator::{Operator, Saved, StateStats, StepContext};
use crate::operators::registry::BuildContext;
use crate::zset::check_columns;
use arrow::array::{RecordBatch, UInt32Array};
use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use millstream_plan::graph::{Node, Op};
use millstream_plan::{term_column, term_input};
use millstream_types::delta::{Delta, DeltaBatch, consolidate, num_rows};
use millstream_types::row_key::types_of;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

const FORMAT: u32 = 1;
const CHECKPOINT_ROWS: usize = 64 * 1024;
/// Beyond this many rounds the recursion is taken to have no end.
const ROUNDS_MAX: usize = if cfg!(test) { 1_500 } else { 1_000_000 };

/// The operator.
pub(crate) struct Recursion {
    name: String,
    schema: SchemaRef,
    term: Dataflow,
    /// By input: columns under the names by which the term reads them. The first one is the result.
    inputs: Vec<SchemaRef>,
    /// With UNION: the rows of the result.
    known: Option<Known>,
    retracting: bool,
    /// Memory for what the rounds of an epoch have added; the dataflow counts it when the step is done.
    growth: MemoryReservation,
}

/// Rows that are there, each once.
struct Known {
    index: KeyIndex,
    /// Their slots, in the order in which they came.
    slots: Vec<u32>,
}

/// An operator of the term in a checkpoint; its rows are among the groups of the recursion.
#[derive(Serialize, Deserialize)]
struct SavedOperator {
    fingerprint: u64,
    ordinal: u32,
    name: String,
    format: u32,
    groups: Vec<String>,
    detail: serde_json::Value,
}

impl Recursion {
    pub(crate) fn new(node: &Node, context: &BuildContext<'_>) -> Result<Self> {
        let Op::Recursion { name, term, distinct } = &node.op else { return Err(DataflowError::internal("expected a recursion")) };
        let schema = Arc::clone(&node.schema);
        let others = node.inputs.iter().skip(1).map(|input| &context.graph.node(*input).schema);
        let known = if *distinct { Some(Known { index: KeyIndex::new(&types_of(schema.fields()))?, slots: vec![] }) } else { None };
        Ok(Self {
            name: name.clone(),
            term: Dataflow::nested(term.as_ref().clone(), DataflowContext::new(context.state.as_ref().clone()))?,
            inputs: [&schema].into_iter().chain(others).map(by_place).collect(),
            known,
            retracting: !node.properties.append_only,
            growth: MemoryConsumer::new(format!("Recursion {name}")).register(&context.state.runtime_env().memory_pool),
            schema,
        })
    }

    /// A change as the term reads input `input`.
    fn as_input(&self, input: usize, delta: &[DeltaBatch]) -> Result<Delta> {
        let renamed =
            |part: &DeltaBatch| Ok(part.with_batch(make_batch(&self.inputs[input], part.batch.columns().to_vec(), part.num_rows())?));
        delta.iter().filter(|part| part.num_rows() > 0).map(renamed).collect()
    }

    /// What is to be followed of the start's change, or of what a round brought: with the columns of the result, what cancels out left out,
    /// and, with UNION, what is there already.
    fn fresh(&mut self, delta: &[DeltaBatch]) -> Result<Delta> {
        let shaped = |part: &DeltaBatch| Ok(part.with_batch(make_batch(&self.schema, part.batch.columns().to_vec(), part.num_rows())?));
        let delta = delta.iter().filter(|part| part.num_rows() > 0).map(shaped).collect::<Result<Delta>>()?;
        match &mut self.known {
            Some(known) => delta.iter().filter_map(|part| known.admit(part).transpose()).collect(),
            None if self.retracting => Ok(consolidate(&self.schema, &delta)?.into_iter().filter(|part| part.num_rows() > 0).collect()),
            None => Ok(delta),
        }
    }

    /// Bytes of all that is kept.
    fn bytes(&self) -> usize {
        let term: usize = self.term.operator_stats().iter().map(|stats| stats.state_bytes).sum();
        term + self.known.as_ref().map_or(0, |known| known.index.bytes() + 4 * known.slots.capacity())
    }
}

impl Known {
    /// The rows that are not there yet, which are from now on.
    fn admit(&mut self, part: &DeltaBatch) -> Result<Option<DeltaBatch>> {
        let keys = self.index.encode(part.batch.columns())?;
        let mut rows = vec![];
        for row in 0..part.num_rows() {
            if part.weights.value(row) <= 0 {
                return Err(DataflowError::internal("a recursive UNION cannot take rows back"));
            }
            if let (slot, true) = self.index.find_or_insert(&keys, row) {
                self.slots.push(slot);
                rows.push(row as u32);
            }
        }
        match rows.is_empty() {
            true => Ok(None),
            false => Ok(Some(DeltaBatch::insertions(take_rows(&part.batch, &UInt32Array::from(rows))?))),
        }
    }
}

/// The same columns, named by their places.
fn by_place(schema: &SchemaRef) -> SchemaRef {
    let named = |(index, field): (usize, &Arc<Field>)| field.as_ref().clone().with_name(term_column(index));
    Arc::new(Schema::new(schema.fields().iter().enumerate().map(named).collect::<Vec<_>>()))
}

#[async_trait]
impl Operator for Recursion {
    fn needs_step(&self, context: &StepContext<'_>) -> Result<bool> {
        Ok(context.first)
    }

    async fn step(&mut self, inputs: &[&[DeltaBatch]], context: &StepContext<'_>) -> Result<Delta> {
        let before = self.bytes();
        let mut others = HashMap::new();
        for (index, delta) in inputs.iter().enumerate().skip(1) {
            others.insert(term_input(index), self.as_input(index, delta)?);
        }
        let mut fresh = self.fresh(inputs[0])?;
        let (mut output, mut output_bytes) = (Delta::new(), 0);
        for round in 0.. {
            // The first round meets the changes of the other inputs, also without a new start.
            if fresh.is_empty() && round > 0 {
                break;
            }
            if round == ROUNDS_MAX {
                return Err(DataflowError::EndlessRecursion { name: self.name.clone(), rounds: ROUNDS_MAX });
            }
            let mut deltas = std::mem::take(&mut others);
            deltas.insert(term_input(0), self.as_input(0, &fresh)?);
            let change = self.term.step(&EpochInput::nested(deltas, context.bounds)).await?;
            output_bytes += fresh.iter().map(|part| part.batch.get_array_memory_size()).sum::<usize>();
            output.extend(fresh);
            fresh = self.fresh(&change)?;
            if round % 16 == 15 {
                let bytes = self.bytes().saturating_sub(before) + output_bytes;
                self.growth.try_resize(bytes).map_err(|source| DataflowError::Memory {
                    operator: String::new(),
                    bytes: before + bytes,
                    source: Box::new(source),
                })?;
            }
        }
        self.growth.free();
        Ok(if self.retracting && num_rows(&output) > 0 { consolidate(&self.schema, &output)? } else { output })
    }

    fn checkpoint(&mut self) -> Result<Option<Saved>> {
        let states = self.term.checkpoint()?;
        let (mut groups, mut operators) = (vec![], vec![]);
        for (place, state) in states.into_iter().enumerate() {
            let OperatorState { fingerprint, ordinal, name, format, groups: own, detail, .. } = state;
            let names = own.iter().map(|(name, _)| name.clone()).collect();
            groups.extend(own.into_iter().map(|(name, batches)| (format!("term/{place}/{name}"), batches)));
            operators.push(SavedOperator { fingerprint, ordinal, name, format, groups: names, detail });
        }
        if let Some(known) = &self.known {
            let decode = |slots: &[u32]| make_batch(&self.schema, known.index.decode(slots)?, slots.len());
            groups.push(("result".into(), known.slots.chunks(CHECKPOINT_ROWS).map(decode).collect::<Result<Vec<_>>>()?));
        }
        let operators = serde_json::to_value(operators).map_err(|error| DataflowError::internal(error.to_string()))?;
        Ok(Some(Saved { format: FORMAT, groups, detail: serde_json::json!({ "term": operators }) }))
    }

    fn restore(&mut self, saved: &Saved) -> Result<()> {
        saved.expect_format(FORMAT)?;
        let operators: Vec<SavedOperator> = saved.detail("term")?;
        let states = operators.into_iter().enumerate().map(|(place, operator)| {
            let SavedOperator { fingerprint, ordinal, name, format, groups, detail } = operator;
            let group = |name: String| {
                let batches = saved.group(&format!("term/{place}/{name}")).to_vec();
                (name, batches)
            };
            let groups = groups.into_iter().map(group).collect();
            OperatorState { fingerprint, ordinal, name, format, groups, shared: BTreeMap::new(), detail }
        });
        self.term.load(states.collect(), None)?;
        if let Some(known) = &mut self.known {
            for batch in saved.group("result") {
                check_columns(&self.schema, batch, 0)?;
                let rows: RecordBatch = make_batch(&self.schema, batch.columns().to_vec(), batch.num_rows())?;
                if known.admit(&DeltaBatch::insertions(rows))?.is_none_or(|admitted| admitted.num_rows() < batch.num_rows()) {
                    return Err(DataflowError::mismatch("a row occurs twice"));
                }
            }
        }
        Ok(())
    }

    fn stats(&self) -> StateStats {
        let term = self.term.operator_stats();
        StateStats {
            rows: term.iter().map(|stats| stats.state_rows).sum::<usize>() + self.known.as_ref().map_or(0, |known| known.slots.len()),
            bytes: self.bytes(),
            touched_keys: term.iter().map(|stats| stats.touched_keys).sum(),
            read_rows: term.iter().map(|stats| stats.read_rows).sum(),
            dropped_rows: term.iter().map(|stats| stats.dropped_rows).sum(),
            ..StateStats::default()
        }
    }
}
