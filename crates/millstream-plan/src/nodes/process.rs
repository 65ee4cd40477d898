//! PROCESS: a stateful function over an append-only relation.
//!
//! Timers in event time wait for a bound of the input: that of the first ORDER BY key, or, where that has none, of the first column that
//! follows a watermark. The result has no bounds: what a function returns, and when, only it knows.

use crate::bound::Bound;
use crate::canonical::{canonical_text, canonical_texts, has_subquery, is_volatile, reads_clock, rebase};
use crate::error::{PlanError, Result};
use crate::explain::node_label;
use crate::graph::{Node, NodeId, Op, Properties, Strategy};
use crate::process::{ProcessNode, ProcessResult};
use crate::translate::{NewNode, Translator};
use crate::watermark::expression_bound;
use arrow::datatypes::DataType;
use datafusion::logical_expr::{Expr, Extension, SortExpr};
use std::sync::Arc;

impl Translator<'_> {
    /// The operator of a PROCESS.
    pub(crate) fn process(&mut self, extension: &Extension) -> Result<NodeId> {
        let Some(process) = extension.node.as_any().downcast_ref::<ProcessNode>() else {
            return Err(PlanError::internal("expected a stateful function"));
        };
        let refused =
            |problem: String, remedy: &str| PlanError::Process { function: process.call.name.clone(), problem, remedy: remedy.into() };
        let exprs = process.key.iter().chain(process.order.iter().map(|key| &key.expr));
        if let Some(expr) = exprs.into_iter().find(|expr| is_volatile(expr) || reads_clock(expr) || has_subquery(expr)) {
            return Err(refused(format!("{expr} is no function of the row"), "PARTITION BY and ORDER BY take expressions of columns."));
        }
        let part = self.translate(&process.input, None)?;
        let input = self.node(part)?;
        // The function finds columns by name, and a shared node may have got other names.
        let input = self.with_names(input, process.input.schema())?;
        let below = self.get(input);
        if !below.properties.append_only {
            let problem =
                format!("its input takes rows back ({}); a stateful function cannot take back what it did with them", node_label(below));
            return Err(refused(problem, "Put PROCESS over an append-only stream, or over a materialized view with EMIT ON WINDOW CLOSE."));
        }
        let (from, to) = (process.input.schema(), Arc::clone(&below.df_schema));
        let key = process.key.iter().map(|expr| rebase(expr, from, &to)).collect::<Result<Vec<Expr>>>()?;
        let order = process
            .order
            .iter()
            .map(|sort| Ok(SortExpr { expr: rebase(&sort.expr, from, &to)?, ..sort.clone() }))
            .collect::<Result<Vec<SortExpr>>>()?;
        let event_time = self.event_time(below, &order);
        if process.call.declaration.has_event_timer() && event_time.is_none() {
            return Err(refused(
                "it sets timers in event time, and its input has none".into(),
                "Declare a WATERMARK on the stream's time column, and keep that column in the relation.",
            ));
        }
        let nondeterminism = format!("what \"{}\" returns depends on epochs, on their clock and on the order of rows", process.call.name);
        let keys = canonical_texts(&key, &to)?;
        let sorted = order.iter().map(|sort| Ok(format!("{} {} {}", canonical_text(&sort.expr, &to)?, sort.asc, sort.nulls_first)));
        let sorted = sorted.collect::<Result<Vec<_>>>()?.join(", ");
        let bound = event_time.as_ref().map(|bound| bound.canonical()).unwrap_or_default();
        let ProcessNode { call, state_ttl_micros, result, .. } = process;
        let text = format!("{} by {keys} order {sorted} time {bound} ttl {state_ttl_micros:?} {result:?}", call.canonical());
        let mut inputs = vec![input];
        if let Some(initial) = &process.initial {
            if !self.is_constant(initial)? {
                return Err(refused(
                    "its initial state changes".into(),
                    "Initial state is read once: take it from an external table, a file or VALUES.",
                ));
            }
            inputs.push(self.constant(initial)?);
        }
        let columns = extension.node.schema().fields().len();
        let properties = Properties {
            append_only: *result == ProcessResult::Rows,
            bounds: vec![None; columns],
            keys: match result {
                ProcessResult::Rows => vec![],
                ProcessResult::State => vec![(0..key.len()).collect()],
            },
            clock_dependent: state_ttl_micros.is_some() || call.declaration.has_clock_timer(),
            nondeterminism: Some(nondeterminism),
        };
        Ok(self.push(NewNode {
            op: Op::Process { call: call.clone(), key, order, event_time, state_ttl_micros: *state_ttl_micros, result: *result },
            inputs,
            df_schema: Arc::clone(extension.node.schema()),
            properties,
            strategy: Strategy::Delta,
            fallback_reason: None,
            text,
        }))
    }

    fn event_time(&self, below: &Node, order: &[SortExpr]) -> Option<Arc<Bound>> {
        let is_time = |data_type: &DataType| matches!(data_type, DataType::Timestamp(_, _));
        let follows = |bound: &Arc<Bound>| !bound.is_epoch() && !bound.follows_clock();
        let first = order.first().filter(|sort| sort.asc).and_then(|sort| expression_bound(&sort.expr, below, self.state));
        let columns = below.schema.fields().iter().zip(&below.properties.bounds);
        let timed = columns.filter(|(field, _)| is_time(field.data_type())).filter_map(|(_, bound)| bound.clone());
        first.into_iter().chain(timed).find(follows)
    }
}
