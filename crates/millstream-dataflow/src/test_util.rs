//! Helpers of this crate's tests: graphs by hand, batches from rows of numbers, relations as maps, and a runner that restores a copy
//! of the dataflow now and then and demands that both go on alike.

use crate::dataflow::{Dataflow, DataflowContext, EpochInput, Parallelism};
use crate::error::Result;
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use datafusion::common::DFSchema;
use datafusion::execution::SessionState;
use datafusion::prelude::SessionContext;
use millstream_plan::bound::{Bound, BoundContext};
use millstream_plan::graph::{Graph, Node, NodeId, Op, Properties, Strategy};
use millstream_types::delta::{Delta, DeltaBatch, Weights};
use millstream_types::{Epoch, EventTime};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// A row: every value as a number. Strings are written as text around it, floats as thousandths, booleans as 0 and 1.
pub(crate) type Row = Vec<Option<i64>>;
/// A relation.
pub(crate) type Bag = BTreeMap<Row, i64>;

pub(crate) const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

pub(crate) fn schema(fields: &[(&str, DataType)]) -> SchemaRef {
    Arc::new(Schema::new(fields.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true)).collect::<Vec<_>>()))
}

pub(crate) fn batch(schema: &SchemaRef, rows: &[Row]) -> RecordBatch {
    let columns = schema.fields().iter().enumerate().map(|(index, field)| -> ArrayRef {
        let values = rows.iter().map(|row| row[index]);
        match field.data_type() {
            DataType::Int64 => Arc::new(Int64Array::from_iter(values)),
            DataType::Float64 => Arc::new(Float64Array::from_iter(values.map(|value| value.map(|value| value as f64 / 1000.0)))),
            DataType::Boolean => Arc::new(BooleanArray::from_iter(values.map(|value| value.map(|value| value != 0)))),
            DataType::Utf8View => {
                Arc::new(StringViewArray::from_iter(values.map(|value| value.map(|value| format!("the name of number {value}")))))
            }
            other if *other == TIMESTAMP => Arc::new(TimestampMicrosecondArray::from_iter(values)),
            other => panic!("no test values of type {other}"),
        }
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect()).unwrap()
}

pub(crate) fn rows(batch: &RecordBatch) -> Vec<Row> {
    let value = |column: &ArrayRef, row: usize| match column.data_type() {
        _ if column.is_null(row) => None,
        DataType::Int64 => Some(column.as_primitive::<Int64Type>().value(row)),
        DataType::Float64 => Some((column.as_primitive::<Float64Type>().value(row) * 1000.0).round() as i64),
        DataType::Boolean => Some(i64::from(column.as_boolean().value(row))),
        DataType::Utf8View => Some(column.as_string_view().value(row).rsplit(' ').next().unwrap().parse().unwrap()),
        other if *other == TIMESTAMP => Some(column.as_primitive::<TimestampMicrosecondType>().value(row)),
        // Of a list, how long it is.
        DataType::List(_) => Some(column.as_list::<i32>().value(row).len() as i64),
        other => panic!("no test values of type {other}"),
    };
    (0..batch.num_rows()).map(|row| batch.columns().iter().map(|column| value(column, row)).collect()).collect()
}

/// Rows with weights in order.
pub(crate) fn listed(delta: &[DeltaBatch]) -> Vec<(Row, i64)> {
    delta
        .iter()
        .flat_map(|part| rows(&part.batch).into_iter().enumerate().map(|(index, row)| (row, part.weights.value(index))).collect::<Vec<_>>())
        .collect()
}

pub(crate) fn add(bag: &mut Bag, delta: &[DeltaBatch]) {
    for (row, weight) in listed(delta) {
        let sum = bag.entry(row).or_default();
        *sum += weight;
    }
    bag.retain(|_, weight| *weight != 0);
}

pub(crate) fn bag(rows: impl IntoIterator<Item = Row>) -> Bag {
    let mut bag = Bag::new();
    for row in rows {
        *bag.entry(row).or_default() += 1;
    }
    bag
}

/// The rows of a relation, repeated by weight.
pub(crate) fn expanded(bag: &Bag) -> Vec<Row> {
    bag.iter().flat_map(|(row, weight)| std::iter::repeat_n(row.clone(), usize::try_from(*weight).unwrap())).collect()
}

/// A random change: new rows from `make`, and, if `retracting`, some of `current` taken back. Cut into batches at random.
pub(crate) fn random_delta(
    rng: &mut SmallRng,
    schema: &SchemaRef,
    current: &Bag,
    retracting: bool,
    make: impl Fn(&mut SmallRng) -> Row,
) -> Delta {
    let mut changes: Vec<(Row, i64)> = Vec::new();
    for _ in 0..rng.random_range(0..12) {
        changes.push((make(rng), if retracting { rng.random_range(1..3) } else { 1 }));
    }
    if retracting {
        let mut left = current.clone();
        for _ in 0..rng.random_range(0..8) {
            let Some((row, weight)) = left.iter().nth(rng.random_range(0..left.len().max(1))).map(|(row, weight)| (row.clone(), *weight))
            else {
                break;
            };
            let taken = rng.random_range(1..=weight);
            changes.push((row.clone(), -taken));
            left.remove(&row);
        }
        // A row that comes and goes within the epoch.
        if rng.random_bool(0.2) {
            let row = make(rng);
            changes.extend([(row.clone(), 1), (row, -1)]);
        }
    }
    let mut delta = Vec::new();
    let mut rest = changes.as_slice();
    while !rest.is_empty() {
        let (part, tail) = rest.split_at(rng.random_range(1..=rest.len()));
        let part_rows: Vec<Row> = part.iter().map(|(row, _)| row.clone()).collect();
        let batch = batch(schema, &part_rows);
        delta.push(match retracting {
            true => DeltaBatch::weighted(batch, Int64Array::from_iter_values(part.iter().map(|(_, weight)| *weight))),
            false => DeltaBatch::insertions(batch),
        });
        rest = tail;
    }
    delta
}

pub(crate) fn rng(seed: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed)
}

pub(crate) fn state() -> SessionState {
    SessionContext::new().state()
}

/// Makes graphs node by node.
#[derive(Default)]
pub(crate) struct GraphBuilder {
    nodes: Vec<Node>,
}

impl GraphBuilder {
    pub(crate) fn add(&mut self, op: Op, inputs: &[NodeId], schema: &SchemaRef, append_only: bool) -> NodeId {
        let id = NodeId(self.nodes.len());
        self.nodes.push(Node {
            id,
            op,
            inputs: inputs.to_vec(),
            df_schema: Arc::new(DFSchema::try_from(Arc::clone(schema)).unwrap()),
            schema: Arc::clone(schema),
            properties: Properties {
                append_only,
                bounds: vec![None; schema.fields().len()],
                keys: vec![],
                clock_dependent: false,
                nondeterminism: None,
            },
            strategy: Strategy::Delta,
            fallback_reason: None,
            fingerprint: id.0 as u64 + 100,
        });
        id
    }

    pub(crate) fn input(&mut self, relation: &str, schema: &SchemaRef, append_only: bool) -> NodeId {
        let columns = schema.fields().iter().map(|field| field.name().clone()).collect();
        self.add(Op::Input { relation: relation.into(), columns }, &[], schema, append_only)
    }

    pub(crate) fn finish(self, output: NodeId) -> Graph {
        Graph { nodes: self.nodes, output }
    }
}

pub(crate) fn watermark_bound() -> Arc<Bound> {
    Arc::new(Bound::Watermark { stream: "t".into() })
}

pub(crate) fn epoch_input(epoch: u64, deltas: &[(&str, Delta)], watermark: i64) -> EpochInput {
    EpochInput {
        epoch: Epoch(epoch),
        deltas: deltas.iter().map(|(name, delta)| (name.to_string(), delta.clone())).collect::<HashMap<_, _>>(),
        bounds: BoundContext {
            watermarks: BTreeMap::from([("t".to_string(), EventTime(watermark))]),
            closed: BTreeSet::new(),
            epoch: Epoch(epoch),
            clock: EventTime(epoch as i64),
        },
        clock: EventTime(epoch as i64),
    }
}

/// How operators are divided in tests: after a few rows.
pub(crate) const DIVIDED: Parallelism = Parallelism { shards: 2, from_rows: 4 };

/// A dataflow and, from the first random restore on, its restored copy. Beside it the same with shards, if it has operators that are
/// divided, which must change alike.
pub(crate) struct Runner {
    pub(crate) flow: Dataflow,
    whole: Restored,
    divided: Option<(Dataflow, Restored)>,
    epoch: u64,
    restore_rng: SmallRng,
}

/// The restored copy of a dataflow.
struct Restored {
    graph: Graph,
    context: DataflowContext,
    copy: Option<Dataflow>,
}

impl Restored {
    /// The copy must return the same rows in the same order.
    async fn step(&mut self, input: &EpochInput, output: &Delta) {
        if let Some(copy) = &mut self.copy {
            assert_eq!(listed(&copy.step(input).await.unwrap()), listed(output), "epoch {} of the restored dataflow", input.epoch.0);
        }
    }

    async fn restore(&mut self, flow: &mut Dataflow) {
        let mut copy = Dataflow::new(self.graph.clone(), self.context.clone()).unwrap();
        copy.restore(flow.checkpoint().unwrap()).await.unwrap();
        self.copy = Some(copy);
    }
}

impl Runner {
    pub(crate) fn new(graph: Graph) -> Self {
        Self::with_state(graph, state())
    }

    pub(crate) fn with_state(graph: Graph, state: SessionState) -> Self {
        let make = |parallelism| {
            let context = DataflowContext { state: state.clone(), parallelism };
            let flow = Dataflow::new(graph.clone(), context.clone()).unwrap();
            (flow, Restored { graph: graph.clone(), context, copy: None })
        };
        let (flow, whole) = make(Parallelism::NONE);
        let by_key = |node: &Node| matches!(node.op, Op::Aggregate { .. } | Op::Join { .. } | Op::TopN { .. });
        let divided = graph.nodes.iter().any(by_key).then(|| make(DIVIDED));
        Self { flow, whole, divided, epoch: 0, restore_rng: rng(7) }
    }

    /// Goes on with restored copies.
    pub(crate) async fn restart(&mut self) {
        let divided = self.divided.iter_mut().map(|(flow, copy)| (flow, copy));
        for (flow, copy) in std::iter::once((&mut self.flow, &mut self.whole)).chain(divided) {
            copy.restore(flow).await;
            *flow = copy.copy.take().unwrap();
        }
    }

    /// Runs one epoch.
    pub(crate) async fn step(&mut self, deltas: &[(&str, Delta)], watermark: i64) -> Result<Delta> {
        self.epoch += 1;
        let input = epoch_input(self.epoch, deltas, watermark);
        let output = self.flow.step(&input).await?;
        self.whole.step(&input, &output).await;
        let change = |delta: &Delta| {
            let mut change = Bag::new();
            add(&mut change, delta);
            change
        };
        if let Some((flow, restored)) = &mut self.divided {
            let divided = flow.step(&input).await.unwrap();
            assert_eq!(change(&divided), change(&output), "epoch {} with shards", self.epoch);
            restored.step(&input, &divided).await;
        }
        if self.restore_rng.random_bool(0.25) {
            self.whole.restore(&mut self.flow).await;
            if let Some((flow, restored)) = &mut self.divided {
                restored.restore(flow).await;
            }
        }
        Ok(output)
    }
}

/// Whether all batches of a change are append-only.
pub(crate) fn append_only(delta: &[DeltaBatch]) -> bool {
    delta.iter().all(|part| part.weights == Weights::Ones)
}
