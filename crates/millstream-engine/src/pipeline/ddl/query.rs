//! What materialized views and sinks have in common: a continuous query that is built, filled back and run from then on.

use super::super::Pipeline;
use super::super::change_history::ChangeHistory;
use super::super::derived::Derivation;
use super::super::held::Held;
use super::super::planning::Planned;
use super::super::query::{QueryState, Target};
use crate::catalog::object::{QueryDef, versions_of};
use crate::error::{EngineError, Result};
use crate::notice::Notice;
use crate::settings::UnboundedState;
use millstream_plan::explain::unbounded_nodes;
use millstream_plan::graph::{Graph, Op};
use millstream_types::Delta;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

impl Pipeline {
    /// Builds the operators of a query, fills it back, and adds it.
    pub(super) async fn add_query(
        &mut self,
        def: Arc<QueryDef>,
        planned: Planned,
        target: Target,
        initial: &mut BTreeMap<String, Delta>,
        notices: &mut Vec<Notice>,
    ) -> Result<()> {
        self.check_state(&def.name, &planned.graph)?;
        if !self.recovering() && self.settings.unbounded_state()? == UnboundedState::Warn {
            notices.extend(planned.notices.iter().map(|message| Notice::info(format!("query \"{}\": {message}", def.name), "")));
        }
        let dataflow = self.new_dataflow(&planned)?;
        let clock_dependent = planned.graph.polls_clock() || planned.graph.nodes.iter().any(closes_by_clock);
        let name = def.name.clone();
        let backfill = def.backfill;
        let history = ChangeHistory::new(def.history);
        let mut query = QueryState {
            def,
            graph: planned.graph,
            dataflow,
            target,
            reads: planned.reads,
            at_rest: planned.at_rest,
            started: false,
            failed: None,
            clock_dependent,
            held: Held::default(),
            history,
        };
        if !self.restore_query(&mut query).await? {
            let changes = self.backfill(&mut query, backfill, initial).await?;
            query.dataflow.share(&self.arrangements)?;
            initial.insert(name, changes);
        }
        self.queries.push(query);
        self.update_readers();
        Ok(())
    }

    /// Refuses unbounded state where the settings say so.
    fn check_state(&self, name: &str, graph: &Graph) -> Result<()> {
        if self.recovering() || self.settings.unbounded_state()? != UnboundedState::Refuse {
            return Ok(());
        }
        let unbounded = unbounded_nodes(graph);
        if unbounded.is_empty() {
            return Ok(());
        }
        Err(EngineError::invalid(
            format!("query \"{name}\" keeps state that nothing bounds: {}", unbounded.join("; ")),
            "Bound it, or SET unbounded_state = 'allow'.",
        ))
    }

    /// Tells every stream which of its columns are read.
    pub(in crate::pipeline) fn update_readers(&mut self) {
        let mut needed: HashMap<String, BTreeSet<String>> = HashMap::new();
        let Some(sources) = &mut self.sources else { return };
        let queries = self.queries.iter().map(|query| &query.dataflow);
        let live = self.live.iter().map(|live| live.dataflow());
        let derived = sources.streams.values().filter_map(|stream| stream.derived.as_ref().map(Derivation::dataflow));
        for flow in queries.chain(live).chain(derived) {
            for (relation, columns) in flow.input_columns() {
                needed.entry(relation).or_default().extend(columns);
            }
        }
        for (name, stream) in &mut sources.streams {
            // Rows of sources that cannot replay are kept whole, because later readers may want other columns.
            stream.edge.keep_versions(needed.contains_key(&versions_of(name)));
            let columns = (stream.replayable && stream.derived.is_none()).then(|| needed.remove(name).unwrap_or_default());
            stream.edge.set_needed(columns);
        }
    }
}

/// A group or window that closes when the epoch clock passes, without new rows.
fn closes_by_clock(node: &millstream_plan::graph::Node) -> bool {
    use millstream_plan::graph::Emit as GraphEmit;
    let bucket = match &node.op {
        Op::Aggregate { bucket, emit: GraphEmit::OnClose, .. }
        | Op::SessionWindow { bucket, emit: GraphEmit::OnClose, .. }
        | Op::TouchedKeys { bucket, emit: GraphEmit::OnClose, .. } => bucket.as_ref(),
        Op::WindowClose { bucket } => Some(bucket),
        _ => None,
    };
    bucket.is_some_and(|bucket| bucket.bound.follows_clock())
}
