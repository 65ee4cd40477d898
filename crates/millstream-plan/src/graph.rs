//! The dataflow graph: what each operator does, with which strategy, and what is known about its output.
//!
//! A graph belongs to one query. Nodes are in topological order and hash-consed: equal subplans are one node. The graph
//! is a description; `millstream-dataflow` builds the operators that run it. Expressions stay DataFusion logical expressions over
//! the `DFSchema` of the node's input, and are compiled once when operators are built.

use crate::bound::Bound;
use crate::process::{ProcessCall, ProcessResult};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::DFSchemaRef;
use datafusion::logical_expr::{Expr, JoinType, LogicalPlan, SortExpr};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Index of a node in [`Graph::nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub usize);

/// The dataflow of one query.
#[derive(Clone, Debug)]
pub struct Graph {
    /// The nodes; inputs come before their consumers.
    pub nodes: Vec<Node>,
    /// The node whose delta is the query's change.
    pub output: NodeId,
}

/// How a node is maintained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Cost proportional to the delta.
    Delta,
    /// Recomputes the keys that the delta touches.
    TouchedKeys,
    /// Keeps its inputs, runs the whole query again and subtracts.
    Recompute,
}

/// One operator.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its place in the graph.
    pub id: NodeId,
    /// What it does.
    pub op: Op,
    /// Where its deltas come from.
    pub inputs: Vec<NodeId>,
    /// Output columns with the qualifiers that expressions above refer to.
    pub df_schema: DFSchemaRef,
    /// Output columns as batches carry them; same order and types as `df_schema`.
    pub schema: SchemaRef,
    /// What is known about the output.
    pub properties: Properties,
    /// How it is maintained.
    pub strategy: Strategy,
    /// Why not a better strategy, where there would be one.
    pub fallback_reason: Option<String>,
    /// Stable identity: operator, canonical expressions and input fingerprints. State of a checkpoint is found by it.
    pub fingerprint: u64,
}

/// What is known about a node's output.
#[derive(Clone, Debug)]
pub struct Properties {
    /// No row is ever taken back.
    pub append_only: bool,
    /// Per output column: a value below which no future change can fall.
    pub bounds: Vec<Option<Arc<Bound>>>,
    /// Sets of output columns whose values identify a row.
    pub keys: Vec<Vec<usize>>,
    /// The node reads `now()`: its result changes with the clock alone.
    pub clock_dependent: bool,
    /// Why the result is not a pure function of the accepted input (volatile function, processing-time lookup, ties), if so.
    pub nondeterminism: Option<String>,
}

/// When an aggregate hands out its groups, and an [`Op::TouchedKeys`] the results of its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emit {
    /// Every epoch: the old row of each touched group goes, the new one comes.
    Changes,
    /// Once, when the bound of the bucket column has passed the group.
    OnClose,
}

/// A key of an [`Op::TouchedKeys`].
#[derive(Clone, Debug)]
pub struct FragmentKey {
    /// Its value, over the input.
    pub expr: Expr,
    /// The output column with this value.
    pub column: usize,
}

/// The group column by which state is dropped: groups whose value lies below the bound can never change again.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Index into the aggregate's group columns, or the partition columns of a top-n (for other operators: into their output columns).
    pub column: usize,
    /// The bound of that column, evaluated at the end of each epoch.
    pub bound: Arc<Bound>,
}

/// What a ranking counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ranking {
    /// Every row: `row_number`, LIMIT.
    RowNumber,
    /// Ties have the number of the first of them: `rank`.
    Rank,
    /// The same, without gaps: `dense_rank`.
    DenseRank,
}

impl Ranking {
    /// The name of the function.
    pub fn name(self) -> &'static str {
        match self {
            Ranking::RowNumber => "row_number",
            Ranking::Rank => "rank",
            Ranking::DenseRank => "dense_rank",
        }
    }
}

/// How long one side of a [`Op::Join`] keeps its rows.
#[derive(Clone, Debug)]
pub enum Keep {
    /// Until they are taken back.
    Forever,
    /// Not at all: no later row of the other side can come.
    Never,
    /// Until they have a match, which stays: the join asks for no more.
    Unmatched,
    /// While `value`, an expression over the side's own columns, is not below `bound`: every pair with a later row of the other side has
    /// at least that value.
    Until {
        /// What is compared with the bound.
        value: Expr,
        /// A bound of the other side.
        bound: Arc<Bound>,
    },
}

/// What an [`Op::Aggregate`] over states needs to know about the [`Op::PreAggregate`] that made them.
#[derive(Clone, Debug)]
pub struct PartialStates {
    /// Columns of the rows that the aggregate calls are over.
    pub rows: DFSchemaRef,
    /// Index of the first state column of the input; all of them follow, in the order of the calls.
    pub first: usize,
}

/// Rows that know the time of the next row of their key.
#[derive(Clone, Debug)]
pub struct Versions {
    /// The column of the input with their time.
    pub input_time: usize,
    /// The bound above which rows come.
    pub bound: Arc<Bound>,
    /// The output column with their time.
    pub time: usize,
    /// The output column with the time of the next one, NULL for the last.
    pub next: usize,
}

/// Window functions that look back only: see [`Op::TouchedKeys`].
#[derive(Clone, Debug)]
pub struct Tail {
    /// The columns of the input, named by their places: what orders and calls are over.
    pub input: DFSchemaRef,
    /// The order of the rows of a key; those of all calls begin it.
    pub order: Vec<SortExpr>,
    /// The calls.
    pub calls: Vec<TailCall>,
    /// The columns of the input, then one per call: what `outputs` are over.
    pub with_calls: DFSchemaRef,
    /// The columns of the result.
    pub outputs: Vec<Expr>,
}

/// Window functions that see a fixed number of rows before and behind their own: see [`Op::TouchedKeys`].
#[derive(Clone, Debug)]
pub struct Reach {
    /// The columns of the input, named by their places: what `order` is over.
    pub input: DFSchemaRef,
    /// The order of the rows of a key, the same for all calls.
    pub order: Vec<SortExpr>,
    /// How many rows before a row decide its result.
    pub back: u64,
    /// How many rows behind a row decide its result; at least one.
    pub ahead: u64,
}

/// A window function that looks back only.
#[derive(Clone, Debug)]
pub struct TailCall {
    /// What it computes.
    pub function: TailFunction,
    /// How many keys of [`Tail::order`] are its ORDER BY.
    pub order: usize,
    /// Type of its value.
    pub data_type: DataType,
}

/// What a window function that looks back only computes.
#[derive(Clone, Debug)]
pub enum TailFunction {
    /// The place of the row.
    Ranking(Ranking),
    /// The value `back` rows before.
    Lag {
        /// The value.
        value: Expr,
        /// At least one.
        back: u64,
    },
    /// The value of the first row of the partition.
    First {
        /// The value.
        value: Expr,
    },
    /// An aggregate up to the current row.
    Aggregate {
        /// The call, an aggregate function.
        call: Expr,
        /// Rows that tie with the current one count, too.
        by_value: bool,
        /// How many rows before the current one count; `None`: all.
        back: Option<u64>,
    },
}

/// What a node does.
#[derive(Clone, Debug)]
pub enum Op {
    /// The change of a stream, table or materialized view in this epoch. Columns are taken by name.
    Input {
        /// Name of the relation in the catalog.
        relation: String,
        /// Names of the columns, in output order.
        columns: Vec<String>,
    },
    /// A relation that does not change: a plan over at-rest tables only, run once. Its rows are a delta of the first step.
    Constant {
        /// The plan.
        plan: Arc<LogicalPlan>,
        /// Catalog names of the at-rest tables it reads.
        tables: Vec<String>,
    },
    /// Keeps rows for which all `predicates` are true, then evaluates `exprs` (`None`: all columns as they are). Weights pass.
    Map {
        /// Conjunction over the input.
        predicates: Vec<Expr>,
        /// Output expressions over the input, aliases stripped.
        exprs: Option<Vec<Expr>>,
    },
    /// Keeps rows while conditions on the clock are true: each turns once, at an instant that follows from the row. The conditions read the
    /// clock by its functions; [`over_clock`](crate::temporal::over_clock) makes a column of it.
    TemporalFilter {
        /// Conditions over the input that become true, and stay so.
        rising: Vec<Expr>,
        /// Conditions over the input that become false, and stay so.
        falling: Vec<Expr>,
    },
    /// `UNNEST`: `plan` is a `LogicalPlan::Unnest` over an [`InputLeaf`](crate::leaf::InputLeaf). Weights pass to all rows made of a row.
    Unnest {
        /// The plan.
        plan: Arc<LogicalPlan>,
    },
    /// Bag union; inputs are cast to the output schema.
    Union,
    /// Groups and aggregates; without aggregates it is DISTINCT.
    Aggregate {
        /// Group expressions over the input. No grouping sets (they are expanded below).
        group: Vec<Expr>,
        /// Aggregate function calls over the input, aliases stripped. Order: as in the output after the group columns.
        aggregates: Vec<Expr>,
        /// The input holds partial states instead of rows.
        states: Option<PartialStates>,
        /// Input may take rows back: all aggregates are additive (count, sum, avg) and groups keep a row count.
        retracting: bool,
        /// When groups are handed out.
        emit: Emit,
        /// How state is dropped.
        bucket: Option<Bucket>,
        /// How long a group stays that nothing touches, by the epoch clock: its row is taken back then. The input is append-only.
        state_ttl_micros: Option<i64>,
    },
    /// Aggregates the rows of one epoch by themselves: the group columns, then the state columns of each aggregate. Keeps nothing.
    PreAggregate {
        /// Group expressions over the input.
        group: Vec<Expr>,
        /// Aggregate function calls over the input.
        aggregates: Vec<Expr>,
    },
    /// SESSION, grouped by its key and the session. The input is append-only. Output: the keys, `window_start`, `window_end`, then one
    /// column per aggregate.
    SessionWindow {
        /// What sessions are apart by, over the input.
        key: Vec<Expr>,
        /// The time, over the input: `Timestamp(µs)`.
        time: Expr,
        /// A row more than this after the one before it starts a session.
        gap_micros: i64,
        /// Aggregate function calls over the input, aliases stripped.
        aggregates: Vec<Expr>,
        /// When sessions are handed out.
        emit: Emit,
        /// How state is dropped: by `window_end`, whose bound is that of the time.
        bucket: Option<Bucket>,
    },
    /// PROCESS: a stateful function, key by key. Input 0 is append-only; input 1, if there is one, is [`Op::Constant`]: state to begin
    /// with, the key columns before the columns of the state. Output: the key columns, then those of the rows or of the state.
    Process {
        /// The function, its arguments, its columns.
        call: ProcessCall,
        /// What rows are apart by, over the input; none: all rows are of one key.
        key: Vec<Expr>,
        /// The order in which a call gets its rows, over the input.
        order: Vec<SortExpr>,
        /// The bound that timers in event time wait for.
        event_time: Option<Arc<Bound>>,
        /// How long a key stays that nothing touches, by the epoch clock.
        state_ttl_micros: Option<i64>,
        /// What comes out. The state of keys is a changelog, rows are append-only.
        result: ProcessResult,
    },
    /// Join of a changing left input (0) with a right input (1) that is [`Op::Constant`].
    /// Linear: Inner, Left, LeftSemi, LeftAnti, LeftMark; a plan with the constant on the left is mirrored by the planner
    /// with a `Map` above that restores column order.
    StaticJoin {
        /// Kind; the changing side is the left one.
        join_type: JoinType,
        /// Equi keys: (left expression, right expression).
        on: Vec<(Expr, Expr)>,
        /// Residual condition over left columns, then right columns.
        filter: Option<Expr>,
        /// Schema `filter` is resolved against.
        filter_schema: DFSchemaRef,
        /// NULL keys match each other (set operations).
        null_equals_null: bool,
        /// `NOT IN`: a NULL on the right keeps nothing, an empty right keeps all.
        null_aware: bool,
    },
    /// Join of two changing inputs, the left (0) and the right (1) one. Both may be the same node.
    Join {
        /// Kind.
        join_type: JoinType,
        /// Equi keys: (left expression, right expression).
        on: Vec<(Expr, Expr)>,
        /// Residual condition over left columns, then right columns.
        filter: Option<Expr>,
        /// Schema `filter` is resolved against.
        filter_schema: DFSchemaRef,
        /// NULL keys match each other (set operations).
        null_equals_null: bool,
        /// `NOT IN`: as in [`Op::StaticJoin`]. There is one key.
        null_aware: bool,
        /// How long the rows of the left and of the right side are kept.
        keep: Box<[Keep; 2]>,
        /// Both inputs are the same node under the same key, and one copy of its rows serves both sides.
        one_copy: bool,
        /// `FOR SYSTEM_TIME AS OF PROCTIME()`: rows of the append-only left input are looked up among the right rows of the epoch
        /// before, once; changes of the right input give no result. Inner, Left, LeftSemi, LeftAnti, LeftMark; `keep` is never and forever.
        lookup: bool,
        /// By side: how long the rows of a key stay that no change of either side touches, by the epoch clock; they are taken back then.
        /// There are keys, and `keep` is forever for both sides.
        state_ttl_micros: [Option<i64>; 2],
    },
    /// The first rows of an order, per partition. Output: the input's columns, and the number if `numbered`.
    TopN {
        /// What rows are apart by, over the input; none: all rows are of one partition.
        partition: Vec<Expr>,
        /// Sort keys over the input; ties are in the order of all columns.
        order: Vec<SortExpr>,
        /// What is counted.
        ranking: Ranking,
        /// Numbers that are left out at the beginning.
        skip: u64,
        /// How many numbers follow.
        fetch: u64,
        /// All rows but these: OFFSET without LIMIT. There is one partition then, nothing is skipped and not numbered.
        rest: bool,
        /// The number is the last column: UInt64.
        numbered: bool,
        /// How state is dropped: by a partition column.
        bucket: Option<Bucket>,
    },
    /// A recursive query. Input 0 is where it starts; the others are what the recursive term reads beside the result. Output: the start
    /// and what follows from it, round by round.
    Recursion {
        /// The name of the query.
        name: String,
        /// The recursive term, over inputs named by [`term_input`](crate::term_input) with columns named by
        /// [`term_column`](crate::term_column).
        term: Arc<Graph>,
        /// UNION: a row that is there already is not followed again; inputs are append-only then. Otherwise UNION ALL.
        distinct: bool,
    },
    /// Any plan: inputs are kept, the plan is run again when one changed, the difference is handed out.
    /// Leaves are [`InputLeaf`](crate::leaf::InputLeaf)s numbered as `inputs`.
    Recompute {
        /// The plan.
        plan: Arc<LogicalPlan>,
    },
    /// Any plan over one [`InputLeaf`](crate::leaf::InputLeaf) in which rows of different keys do not meet: the input is kept by key, the
    /// plan is run again for the keys that a change touches, the difference is handed out.
    TouchedKeys {
        /// The plan.
        plan: Arc<LogicalPlan>,
        /// The keys; none only with a `tail` or `reach`: all rows are of one key then.
        keys: Vec<FragmentKey>,
        /// When the results of a key are handed out.
        emit: Emit,
        /// How state is dropped: by the column of a key.
        bucket: Option<Bucket>,
        /// The plan tells rows the time of the next of their key: what was before the last row of a key below a bound is dropped.
        versions: Option<Versions>,
        /// The plan is nothing but window functions that look back: rows that come behind all others of their key are computed from the end
        /// of the key, without the plan.
        tail: Option<Tail>,
        /// The plan is nothing but window functions that see a fixed number of rows around their own: of a key behind which rows come, the
        /// plan is run for its last rows. Never with a `tail`.
        reach: Option<Reach>,
    },
    /// Holds rows back until the bound of `bucket.column` (an output column) has passed them; output is append-only.
    WindowClose {
        /// Which column decides.
        bucket: Bucket,
    },
}

impl Op {
    /// The name `EXPLAIN INCREMENTAL` shows.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input { .. } => "Input",
            Op::Constant { .. } => "Constant",
            Op::Map { .. } => "Map",
            Op::TemporalFilter { .. } => "TemporalFilter",
            Op::Unnest { .. } => "Unnest",
            Op::Union => "Union",
            Op::Aggregate { aggregates, .. } if aggregates.is_empty() => "Distinct",
            Op::Aggregate { .. } => "Aggregate",
            Op::PreAggregate { .. } => "PreAggregate",
            Op::SessionWindow { .. } => "SessionWindow",
            Op::Process { .. } => "Process",
            Op::StaticJoin { .. } => "StaticJoin",
            Op::Join { lookup: false, .. } => "Join",
            Op::Join { lookup: true, .. } => "LookupJoin",
            Op::TopN { .. } => "TopN",
            Op::Recursion { .. } => "Recursion",
            Op::Recompute { .. } => "Recompute",
            Op::TouchedKeys { .. } => "TouchedKeys",
            Op::WindowClose { .. } => "WindowClose",
        }
    }
}

impl Graph {
    /// The node with this id.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// The output node.
    pub fn output_node(&self) -> &Node {
        self.node(self.output)
    }

    /// Whether a node has to be run now and then because the clock alone may change its result, and it does not know when.
    pub fn polls_clock(&self) -> bool {
        self.nodes.iter().any(|node| node.properties.clock_dependent && !matches!(node.op, Op::TemporalFilter { .. }))
    }

    /// The relations in which rows are looked up as of the epoch before.
    pub fn looked_up(&self) -> BTreeSet<&str> {
        let lookups = self.nodes.iter().filter(|node| matches!(node.op, Op::Join { lookup: true, .. }));
        let mut open: Vec<NodeId> = lookups.map(|node| node.inputs[1]).collect();
        let mut found = BTreeSet::new();
        while let Some(id) = open.pop() {
            let node = self.node(id);
            if let Op::Input { relation, .. } = &node.op {
                found.insert(relation.as_str());
            }
            open.extend(&node.inputs);
        }
        found
    }
}
