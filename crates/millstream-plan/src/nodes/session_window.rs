//! SESSION followed by GROUP BY of its key and the session: one [`Op::SessionWindow`].
//!
//! ```text
//!   Aggregate: bidder, window_start, window_end: count(*)             Map: the group columns as asked for
//!     Projection, Filter on group columns                     ─►        SessionWindow: by bidder: count(*)
//!       Window: session_start(ts, gap) OVER (PARTITION BY bidder ..)      input
//!         input
//! ```
//! Projections between the two are put into the expressions above them, so that what is left of the Window's columns is seen.
//! Group columns and conditions may be any functions of key and session; the key columns and one edge of the session must be group
//! columns as they are, for they make a group a session. Aggregates may read anything but the session's edges, which move.
//! Everything else that is done with a session stays a Window over the functions' own definition.
//!
//! **Bounds.** A row that comes or goes at `t` or later changes a session only if that ends at `t` or later, before as well as after it. So
//! the bound of the time is a bound of `window_end`, also of a Window. `window_start` has none: a session may be any length.

use crate::bound::Bound;
use crate::canonical::{canonical_text, canonical_texts, column_at, has_subquery, is_volatile, reads_clock, rebase, rebase_with};
use crate::error::{PlanError, Result};
use crate::functions::session_window::{Edge, gap_micros, is_session_function};
use crate::graph::{Bucket, Emit, NodeId, Op, Properties, Strategy};
use crate::nodes::aggregate::Verdict;
use crate::nodes::map::{below_projections, substitute};
use crate::nodes::passed_through;
use crate::translate::{NewNode, Part, Translator};
use crate::watermark::expression_bound;
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DFSchemaRef, ScalarValue};
use datafusion::logical_expr::expr::WindowFunctionParams;
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan, Window, WindowFunctionDefinition};
use std::sync::Arc;

/// Whether an aggregate stands on a SESSION, so that the two may become one operator.
pub(crate) fn groups_sessions(aggregate: &Aggregate) -> bool {
    find(aggregate).is_ok_and(|found| found.is_some())
}

/// A Window of session functions below an aggregate, and the aggregate's expressions over its columns.
struct Found<'p> {
    window: &'p Window,
    session: Session,
    group: Vec<Expr>,
    aggregates: Vec<Expr>,
    /// Conditions between the two.
    predicates: Vec<Expr>,
}

/// What the functions of a Window say, over its input.
#[derive(Clone, Debug, PartialEq)]
struct Session {
    key: Vec<Expr>,
    time: Expr,
    gap_micros: i64,
}

fn find(aggregate: &Aggregate) -> Result<Option<Found<'_>>> {
    let own = aggregate.group_expr.iter().chain(&aggregate.aggr_expr);
    let mut exprs: Vec<Expr> = own.map(|expr| expr.clone().unalias_nested().data).collect();
    let mut plan = aggregate.input.as_ref();
    loop {
        let Some(below) = below_projections(plan, &mut exprs)? else { return Ok(None) };
        match below {
            LogicalPlan::Filter(filter) => {
                exprs.extend(split_conjunction_owned(filter.predicate.clone()));
                plan = &filter.input;
            }
            LogicalPlan::Window(window) => {
                let Some(session) = session_of(window) else { return Ok(None) };
                let predicates = exprs.split_off(aggregate.group_expr.len() + aggregate.aggr_expr.len());
                let aggregates = exprs.split_off(aggregate.group_expr.len());
                return Ok(Some(Found { window, session, group: exprs, aggregates, predicates }));
            }
            _ => return Ok(None),
        }
    }
}

/// The session that all functions of a Window are about, if they are.
fn session_of(window: &Window) -> Option<Session> {
    let mut sessions = window.window_expr.iter().map(|expr| Some(session_call(expr, &window.input)?.1));
    let first = sessions.next()??;
    sessions.all(|session| session.as_ref() == Some(&first)).then_some(first)
}

fn session_call(expr: &Expr, input: &LogicalPlan) -> Option<(Edge, Session)> {
    let call = match expr {
        Expr::Alias(alias) => return session_call(&alias.expr, input),
        Expr::WindowFunction(call) => call,
        _ => return None,
    };
    let WindowFunctionDefinition::WindowUDF(function) = &call.fun else { return None };
    let edge = is_session_function(function)?;
    let WindowFunctionParams { args, partition_by, order_by, filter: None, null_treatment: None, distinct: false, .. } = &call.params
    else {
        return None;
    };
    let [time, Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(gap)), _)] = args.as_slice() else { return None };
    let time = time.clone().unalias_nested().data;
    // Sorted by anything else, the functions see other sessions.
    let [order] = order_by.as_slice() else { return None };
    let ordered = order.asc && is_time(&order.expr, &time, input);
    let gap_micros = gap_micros(*gap).ok()?;
    ordered.then(|| (edge, Session { key: partition_by.clone(), time, gap_micros }))
}

/// Whether `time` is what `order` says, perhaps in microseconds. The optimizer may have put the conversion below, into `input`.
fn is_time(order: &Expr, time: &Expr, input: &LogicalPlan) -> bool {
    if order == time || matches!(time, Expr::Cast(cast) if *order == *cast.expr) {
        return true;
    }
    let LogicalPlan::Projection(projection) = input else { return false };
    let exprs: Vec<Expr> = projection.expr.iter().map(|expr| expr.clone().unalias_nested().data).collect();
    let below = |expr| substitute(expr, &projection.schema, &exprs);
    matches!((below(order), below(time)), (Ok(order), Ok(time)) if is_time(&order, &time, &projection.input))
}

impl Translator<'_> {
    /// The operator for an aggregate that groups by the key and the session of a SESSION below it; `None` if it does not, or if what it
    /// computes cannot be maintained session by session.
    pub(crate) fn session_window(&mut self, aggregate: &Aggregate, demand: Option<usize>) -> Result<Option<NodeId>> {
        let Some(found) = find(aggregate)? else { return Ok(None) };
        let mut exprs = found.group.iter().chain(&found.aggregates).chain(&found.predicates).chain(&found.session.key);
        if exprs.any(|expr| is_volatile(expr) || reads_clock(expr) || has_subquery(expr)) {
            return Ok(None);
        }
        let from = found.window.input.schema();
        let Part::Node(input) = self.translate(&found.window.input, None)? else { return Ok(None) };
        let below = self.get(input);
        if !below.properties.append_only {
            return Ok(None);
        }
        let to = Arc::clone(&below.df_schema);
        let key = found.session.key.iter().map(|expr| rebase(expr, from, &to)).collect::<Result<Vec<_>>>()?;
        let time = rebase(&found.session.time, from, &to)?;
        if !matches!(time.get_type(&to)?, DataType::Timestamp(TimeUnit::Microsecond, _)) {
            return Ok(None);
        }
        let columns = Columns::new(&found, &to)?;
        let (Some(aggregates), Some(group), Some(predicates)) = (
            columns.all(&found.aggregates, |expr| columns.over_input(expr))?,
            columns.all(&found.group, |expr| columns.over_output(expr, &key))?,
            columns.all(&found.predicates, |expr| columns.over_output(expr, &key))?,
        ) else {
            return Ok(None);
        };
        let whole = |place: usize| group.iter().position(|expr| *expr == placeholder(place));
        if !(0..key.len()).all(|place| whole(place).is_some()) || (whole(key.len()).is_none() && whole(key.len() + 1).is_none()) {
            return Ok(None);
        }
        let nondeterminism = match self.verdict_over(input, &key, &aggregates)? {
            Verdict::Delta { nondeterminism } => nondeterminism,
            Verdict::Recompute(_) => return Ok(None),
        };
        let names: Vec<Option<String>> =
            (0..key.len()).map(|place| whole(place).map(|index| aggregate.schema.field(index).name().clone())).collect();
        let out = output_schema(&key, &time, &to, &names, aggregate)?;
        let located = |exprs: Vec<Expr>| exprs.iter().map(|expr| located(expr, &out)).collect::<Result<Vec<_>>>();
        let (mut exprs, predicates) = (located(group)?, located(predicates)?);
        let end = key.len() + 1;
        let closing = demand.and_then(|column| exprs.get(column)).and_then(|expr| passed_through(expr, &out)) == Some(end);
        let session = Session { key, time, gap_micros: found.session.gap_micros };
        let node = self.session_node(input, session, aggregates, &out, closing, nondeterminism)?;
        exprs.extend((end + 1..out.fields().len()).map(|index| column_at(&out, index)));
        self.map(node, predicates, Some(exprs), &aggregate.schema).map(Some)
    }

    /// The columns of a Window, over its translated input, that are the end of a session, with their bounds.
    pub(crate) fn session_ends(&self, window: &Window, child: &Part) -> Result<Vec<(usize, Arc<Bound>)>> {
        let mut ends = vec![];
        let width = window.input.schema().fields().len();
        for (index, expr) in window.window_expr.iter().enumerate() {
            if let Some((Edge::End, session)) = session_call(expr, &window.input) {
                let bound = self.bound_of(&session.time, window.input.schema(), child)?;
                ends.extend(bound.map(|bound| (width + index, bound)));
            }
        }
        Ok(ends)
    }

    fn session_node(
        &mut self,
        input: NodeId,
        session: Session,
        aggregates: Vec<Expr>,
        df_schema: &DFSchemaRef,
        closing: bool,
        nondeterminism: Option<String>,
    ) -> Result<NodeId> {
        let below = self.get(input);
        let Session { key, time, gap_micros } = session;
        let (start, end) = (key.len(), key.len() + 1);
        let bound = expression_bound(&time, below, self.state);
        let emit = if closing && bound.is_some() { Emit::OnClose } else { Emit::Changes };
        let mut bounds = match emit {
            Emit::Changes => key.iter().map(|expr| expression_bound(expr, below, self.state)).collect(),
            // Sessions are held back until they close; by then the bounds of their keys may have passed them.
            Emit::OnClose => vec![None; key.len()],
        };
        bounds.extend([None, bound.clone()]);
        bounds.resize(df_schema.fields().len(), None);
        let properties = Properties {
            append_only: emit == Emit::OnClose,
            bounds,
            keys: [start, end].map(|edge| (0..key.len()).chain([edge]).collect()).to_vec(),
            clock_dependent: false,
            nondeterminism,
        };
        let schema = &below.df_schema;
        let (keys, time_text, calls) =
            (canonical_texts(&key, schema)?, canonical_text(&time, schema)?, canonical_texts(&aggregates, schema)?);
        let text = format!("key {keys} time {time_text} gap {gap_micros} aggregate {calls} emit {emit:?}");
        let bucket = bound.map(|bound| Bucket { column: end, bound });
        Ok(self.push(NewNode {
            op: Op::SessionWindow { key, time, gap_micros, aggregates, emit, bucket },
            inputs: vec![input],
            df_schema: Arc::clone(df_schema),
            properties,
            strategy: Strategy::Delta,
            fallback_reason: None,
            text,
        }))
    }
}

/// Moves expressions over the columns of the Window to the input of the operator, or to its output, whose columns are numbered as
/// placeholders until its schema is there.
struct Columns<'a> {
    window: &'a DFSchema,
    /// Columns of the operator's input; the Window has them first.
    input: &'a DFSchema,
    /// Which edge each further column of the Window is.
    edges: Vec<Edge>,
    keys: usize,
}

impl<'a> Columns<'a> {
    fn new(found: &'a Found<'_>, input: &'a DFSchema) -> Result<Self> {
        let edges = found
            .window
            .window_expr
            .iter()
            .map(|expr| session_call(expr, &found.window.input).map(|(edge, _)| edge))
            .collect::<Option<Vec<_>>>();
        let edges = edges.ok_or_else(|| PlanError::internal("a window of sessions has another function"))?;
        Ok(Self { window: &found.window.schema, input, edges, keys: found.session.key.len() })
    }

    fn all(&self, exprs: &[Expr], one: impl Fn(&Expr) -> Result<Option<Expr>>) -> Result<Option<Vec<Expr>>> {
        exprs.iter().map(one).collect()
    }

    /// With columns of the input in place of the Window's, placeholders for the edges.
    fn rebased(&self, expr: &Expr) -> Result<Expr> {
        rebase_with(expr, |column| {
            let index = self.window.index_of_column(column)?;
            let width = self.input.fields().len();
            Ok(match self.edges.get(index.wrapping_sub(width)) {
                None => column_at(self.input, index),
                Some(Edge::Start) => placeholder(self.keys),
                Some(Edge::End) => placeholder(self.keys + 1),
            })
        })
    }

    /// Over the input; `None` if it reads an edge.
    fn over_input(&self, expr: &Expr) -> Result<Option<Expr>> {
        let expr = self.rebased(expr)?;
        let edge = expr.exists(|node| Ok(matches!(node, Expr::Column(column) if placeholder_index(column).is_some())))?;
        Ok((!edge).then_some(expr))
    }

    /// Over the output; `None` if it reads more than key and edges.
    fn over_output(&self, expr: &Expr, key: &[Expr]) -> Result<Option<Expr>> {
        let mut foreign = false;
        let moved = self.rebased(expr)?.transform_down(|node| {
            if let Some(place) = key.iter().position(|key| *key == node) {
                return Ok(Transformed::new(placeholder(place), true, TreeNodeRecursion::Jump));
            }
            foreign |= matches!(&node, Expr::Column(column) if placeholder_index(column).is_none());
            Ok(Transformed::no(node))
        });
        let moved = moved.data()?;
        Ok((!foreign).then_some(moved))
    }
}

/// Stands for an output column until the schema is known: no name of SQL has this qualifier.
fn placeholder(place: usize) -> Expr {
    Expr::Column(Column::new(Some("\u{0}session"), place.to_string()))
}

fn placeholder_index(column: &Column) -> Option<usize> {
    let relation = column.relation.as_ref()?;
    if relation.table() == "\u{0}session" { column.name.parse().ok() } else { None }
}

/// The expression with placeholders replaced by the columns of `schema`.
fn located(expr: &Expr, schema: &DFSchema) -> Result<Expr> {
    rebase_with(expr, |column| match placeholder_index(column) {
        Some(index) => Ok(column_at(schema, index)),
        None => Err(PlanError::internal(format!("column {column} is no column of the session"))),
    })
}

/// Keys, edges, aggregates. Names are those of the aggregate where it has the column as it is.
fn output_schema(key: &[Expr], time: &Expr, input: &DFSchema, names: &[Option<String>], aggregate: &Aggregate) -> Result<DFSchemaRef> {
    let mut fields: Vec<FieldRef> = vec![];
    for (expr, name) in key.iter().zip(names) {
        let (_, field) = expr.to_field(input)?;
        fields.push(match name {
            Some(name) => Arc::new(field.as_ref().clone().with_name(name.clone())),
            None => field,
        });
    }
    let (data_type, nullable) = (time.get_type(input)?, time.nullable(input)?);
    for name in ["window_start", "window_end"] {
        fields.push(Arc::new(Field::new(name, data_type.clone(), nullable)));
    }
    fields.extend(aggregate.schema.fields().iter().skip(aggregate.group_expr.len()).cloned());
    Ok(Arc::new(DFSchema::new_with_metadata(crate::canonical::unique_fields(fields.iter()), Default::default())?))
}
