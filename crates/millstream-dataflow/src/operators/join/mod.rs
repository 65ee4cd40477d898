//! Join: two changing inputs, at a cost proportional to their changes and the matches of these.
//!
//! ```sql
//! SELECT o.id, p.amount FROM orders o LEFT JOIN payments p ON o.id = p.order_id AND p.amount > o.minimum
//! ```
//! ```text
//!   change of the result  =  left change ⋈ old right rows  +  new left rows ⋈ right change
//!
//!   1  left change  ─walk─▶ right arrangement ─▶ residual condition ─▶ pairs
//!   2  left change  ──────▶ left arrangement
//!   3  right change ─walk─▶ left arrangement  ─▶ residual condition ─▶ pairs
//!   4  right change ──────▶ right arrangement
//! ```
//! **In**: 0 the left, 1 the right input, any schemas; both may be the same node, and then one arrangement can serve both. **Out**: left
//! columns, then right columns (inner and outer joins, NULLs where there is no match); the columns of one side (semi, anti), with the
//! mark (mark). Without keys every pair is a candidate. **Changelog**: weights of pairs multiply. Where the result depends on whether a row
//! has a match, each row's matches are counted: the sum of the weights of the rows that meet it under all conditions. A row whose sum
//! comes to zero or leaves it changes the result; so does a row whose own weight changes. Both are looked at when both
//! changes are in, so nothing comes and goes within an epoch. **NULL** keys match nothing, unless NULL equals NULL.
//! **Lookup** (`FOR SYSTEM_TIME AS OF PROCTIME()`): steps 1 and 4 only. A left row, which comes once and stays, meets the right rows of the
//! epoch before; a later change of these gives no result.
//! **Null-aware anti join** (`NOT IN`): rows with a NULL key match all rows of the other side, and the NULL rows of the other side match
//! every row.
//!
//! **Shared rows**: a side that keeps all rows of its relation and does not count their matches has them together with joins of other
//! queries (`shared.rs`). Such rows have the change of the epoch before any of these joins looks at them. If they are those of the right
//! side, the sides change places in the steps above. If both sides are shared, pairs of two changes would come twice:
//! `change of the result  =  left change ⋈ new right rows  +  new left rows ⋈ right change  -  left change ⋈ right change`.
//!
//! **State**: per side its rows with weights and sums of matches (`left`, `right`: columns, `__matches`, `__touched`, `__weight`).
//! **Dropped**: a row whose value is below the bound of the other side ([`Keep::Until`]), as no later row can match it. If such a row is
//! taken back later, its matches are looked up again. Nothing is kept of a side whose other side does not change, and a semi, anti or mark
//! join whose other side is append-only keeps rows until they have a match. **Expired** (`state_ttl`): the rows of a side with a key that
//! no change of either side has touched for so long by the epoch clock. They leave after the changes of the epoch, in the order of keys, as
//! if their input took them back; what it takes back of them later has no effect. **Memory** beyond that: pairs come in batches of at most
//! 65536 rows. **Errors**: a row that is taken back without being there; what the conditions report.

mod arrangement;
mod expiry;
pub(super) mod keys;
pub(super) mod residual;
mod row_weights;
pub(super) mod shared;
mod sharing;
#[cfg(test)]
mod sharing_tests;
#[cfg(test)]
mod tests;
mod walk;

use crate::bucket::BucketColumn;
use crate::chains::NONE;
use crate::columns::{make_batch, take_columns};
use crate::error::{DataflowError, Result};
use crate::operator::{Operator, Saved, Sharing, StateStats, StepContext};
use crate::operators::registry::BuildContext;
use arrangement::{Arrangement, Before, Kept, Part, too_many};
use arrow::array::{ArrayRef, BooleanArray, Int64Array, UInt32Array, new_null_array};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::common::JoinType;
use expiry::Expiry;
use keys::{JoinKeys, same_columns};
use millstream_plan::compile::compile;
use millstream_plan::graph::{Keep, Node, Op};
use millstream_types::delta::{Delta, DeltaBatch, Weights, consolidate};
use residual::{Residual, retain};
use sharing::{Common, Shares};
use std::sync::Arc;
use walk::{Pairs, Walk};

const FORMAT: u32 = 1;
/// Most pairs of rows that are looked at together.
pub(super) const PAIRS: usize = 64 * 1024;

/// The operator.
pub(crate) struct Join {
    schema: SchemaRef,
    schemas: [SchemaRef; 2],
    keys: [JoinKeys; 2],
    /// By side and column: the column of the other side with the same values, which are at hand there.
    same: [Vec<Option<usize>>; 2],
    residual: Option<Residual>,
    null_aware: bool,
    /// Left rows meet the right rows of the epoch before, and are done with.
    lookup: bool,
    /// Pairs are part of the result.
    hands_out_pairs: bool,
    /// By side: what its rows give depending on whether they have a match.
    presence: [Option<Presence>; 2],
    /// One for each side, or one for both. Of a side that shares its rows it is empty between steps.
    arrangements: Vec<Arrangement>,
    /// By side: the rows that it shares with others.
    shares: [Shares; 2],
    /// Keys go that nothing touches.
    expires: bool,
    touched_keys: u64,
}

/// What a row gives beyond its pairs.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Presence {
    /// Without a match: itself beside NULLs.
    Padded,
    /// With a match: itself.
    Semi,
    /// Without a match: itself.
    Anti,
    /// Itself and whether it has a match.
    Mark,
}

/// A row to hand out: its place among others, how often, and its mark.
#[derive(Clone, Copy, Debug)]
struct Entry {
    place: u32,
    weight: i64,
    mark: bool,
}

impl Presence {
    /// How often a row with this weight and sum of matches is in the result: with the mark true, and otherwise.
    fn shown(self, weight: i64, matches: i64) -> [i64; 2] {
        match (self, matches > 0) {
            (Presence::Padded | Presence::Anti, true) | (Presence::Semi, false) => [0, 0],
            (Presence::Padded | Presence::Anti | Presence::Mark, false) => [0, weight],
            (Presence::Semi | Presence::Mark, true) => [weight, 0],
        }
    }
}

impl Join {
    pub(crate) fn new(node: &Node, context: &BuildContext<'_>) -> Result<Self> {
        let Op::Join { join_type, on, filter, filter_schema, null_equals_null, null_aware, keep, one_copy, lookup, state_ttl_micros } =
            &node.op
        else {
            return Err(DataflowError::internal("expected a join"));
        };
        let presence = match join_type {
            JoinType::Inner => [None, None],
            JoinType::Left => [Some(Presence::Padded), None],
            JoinType::Right => [None, Some(Presence::Padded)],
            JoinType::Full => [Some(Presence::Padded), Some(Presence::Padded)],
            JoinType::LeftSemi => [Some(Presence::Semi), None],
            JoinType::LeftAnti => [Some(Presence::Anti), None],
            JoinType::LeftMark => [Some(Presence::Mark), None],
            JoinType::RightSemi => [None, Some(Presence::Semi)],
            JoinType::RightAnti => [None, Some(Presence::Anti)],
            JoinType::RightMark => [None, Some(Presence::Mark)],
        };
        if *null_aware && (*join_type != JoinType::LeftAnti || on.len() != 1) {
            return Err(DataflowError::internal("only an anti join with one key is null-aware"));
        }
        if *one_copy && *join_type != JoinType::Inner {
            return Err(DataflowError::internal("only an inner join shares its rows between the sides"));
        }
        if *lookup && (!matches!(keep.as_ref(), [Keep::Never, Keep::Forever]) || presence[1].is_some() || *one_copy) {
            return Err(DataflowError::internal("a lookup keeps the right rows and hands out none by themselves"));
        }
        let keeps_all = matches!(keep.as_ref(), [Keep::Forever, Keep::Forever]) && !*one_copy && !*null_aware;
        let expires = state_ttl_micros.iter().any(Option::is_some);
        if expires && (!keeps_all || on.is_empty()) {
            return Err(DataflowError::internal("only keys whose rows are all kept expire"));
        }
        let inputs = [context.input(node, 0), context.input(node, 1)];
        let keys = JoinKeys::of_both(on, inputs[0], inputs[1], *null_equals_null, context.state)?;
        let residual = filter.as_ref().map(|filter| Residual::new(filter, filter_schema, inputs[0], inputs[1], context.state));
        let sides = if *one_copy { 1 } else { 2 };
        let arrangement = |side: usize| {
            let input = inputs[side];
            let kept = match &keep[side] {
                Keep::Forever => Kept::Forever,
                Keep::Never => Kept::Never,
                Keep::Unmatched => Kept::Unmatched,
                Keep::Until { value, bound } => {
                    let value = compile(value, &input.df_schema, context.state)?;
                    let data_type = value.data_type(&input.schema)?;
                    let column = BucketColumn::new(0, Arc::clone(bound), &data_type)?;
                    Kept::until(value, column, &data_type, !null_equals_null)
                }
            };
            let (retracting, counted) = (!input.properties.append_only, presence[side].is_some());
            Arrangement::new(&input.schema, &keys[side], (retracting, counted), kept, state_ttl_micros[side].map(Expiry::new))
        };
        let arrangements = (0..sides).map(arrangement).collect::<Result<Vec<_>>>()?;
        let shares = |side: usize| match presence[side] {
            None => Shares::new(node, side, keys[side].types(), context),
            Some(_) => Ok(Shares::default()),
        };
        let shares = [shares(0)?, shares(1)?];
        Ok(Self {
            schema: Arc::clone(&node.schema),
            schemas: inputs.map(|input| Arc::clone(&input.schema)),
            keys,
            same: same_columns(on, inputs[0], inputs[1]),
            residual: residual.transpose()?,
            null_aware: *null_aware,
            lookup: *lookup,
            hands_out_pairs: matches!(join_type, JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full),
            presence,
            arrangements,
            shares,
            expires,
            touched_keys: 0,
        })
    }

    fn arrangement(&self, side: usize) -> &Arrangement {
        &self.arrangements[side.min(self.arrangements.len() - 1)]
    }

    fn parts(&self, side: usize, delta: &[DeltaBatch]) -> Result<Vec<Part>> {
        let delta = self.arrangement(side).without_expired(consolidate(&self.schemas[side], delta)?)?;
        let parts = delta.into_iter().filter(|part| part.num_rows() > 0);
        parts.map(|part| self.arrangement(side).part(part, &self.keys[side])).collect()
    }

    /// Where the rows of a part of side `side` start among the rows of the other side.
    fn walk(&self, side: usize, part: &Part) -> Walk {
        let other = self.arrangement(1 - side);
        let mut walk = Walk::default();
        let null = if self.null_aware { other.ends_of_null() } else { None };
        let mut wide = vec![];
        for (row, ends) in other.ends_of_each(&part.encoded, part.delta.num_rows()).into_iter().enumerate() {
            match part.keys.is_null(row) {
                true if self.null_aware => wide.push(row as u32),
                true => {}
                false => [ends, null].into_iter().flatten().for_each(|ends| walk.start(row, ends)),
            }
        }
        if !wide.is_empty() {
            walk.start_wide(wide, other.slots());
        }
        walk
    }

    /// Finds the matches of a part of side `side` among the rows of the other side in slots below `end`: counts them, and hands them out if
    /// the join does.
    fn probe(&mut self, side: usize, part: &mut Part, end: u32, output: &mut Delta) -> Result<()> {
        let other = 1 - side;
        self.touched_keys += part.delta.num_rows() as u64;
        let mut walk = self.walk(side, part);
        let mut pairs = Pairs::default();
        while walk.fill(self.arrangement(other).links(), &mut pairs) {
            if end != NONE {
                pairs.keep_below(end);
            }
            self.filter(side, part, &mut pairs)?;
            if self.presence[side].is_some() {
                for (row, slot) in pairs.rows.iter().zip(&pairs.slots) {
                    let matches = &mut part.matches[*row as usize];
                    *matches = matches.checked_add(self.arrangement(other).weight(*slot)).ok_or_else(too_many)?;
                }
            }
            if self.presence[other].is_some() {
                for (row, slot) in pairs.rows.iter().zip(&pairs.slots) {
                    self.arrangements[other].add_matches(*slot, part.delta.weights.value(*row as usize))?;
                }
            }
            if self.hands_out_pairs && pairs.len() > 0 {
                if self.lookup {
                    self.spread(&mut pairs);
                }
                output.push(self.pairs(side, part, pairs.rows.clone(), &pairs.slots)?);
            }
        }
        Ok(())
    }

    /// Keeps the pairs that meet the residual condition.
    fn filter(&self, side: usize, part: &Part, pairs: &mut Pairs) -> Result<()> {
        let Some(residual) = &self.residual else { return Ok(()) };
        let rows = UInt32Array::from(pairs.rows.clone());
        let batch = &part.delta.batch;
        let own: Vec<ArrayRef> = residual.columns(side).iter().map(|column| Arc::clone(batch.column(*column))).collect();
        let own = take_columns(&own, &rows)?;
        let others = self.arrangement(1 - side).gather(&pairs.slots, residual.columns(1 - side).iter().copied())?;
        let (left, right) = if side == 0 { (own, others) } else { (others, own) };
        let mask = residual.mask(left, right, pairs.len())?;
        retain(&mut pairs.rows, &mask);
        retain(&mut pairs.slots, &mask);
        Ok(())
    }

    /// Names a pair as often as its right row is there: the result of a lookup is append-only, where every row counts once.
    fn spread(&self, pairs: &mut Pairs) {
        let right = self.arrangement(1);
        if right.are_ones(&pairs.slots) {
            return;
        }
        let times = |slot: &u32| right.weight(*slot).max(0) as usize;
        let rows = pairs.rows.iter().zip(&pairs.slots).flat_map(|(row, slot)| std::iter::repeat_n(*row, times(slot))).collect();
        pairs.slots = pairs.slots.iter().flat_map(|slot| std::iter::repeat_n(*slot, times(slot))).collect();
        pairs.rows = rows;
    }

    /// Pairs as rows of the result.
    fn pairs(&self, side: usize, part: &Part, rows: Vec<u32>, slots: &[u32]) -> Result<DeltaBatch> {
        let other = self.arrangement(1 - side);
        let weights = match &part.delta.weights {
            Weights::Ones if other.are_ones(slots) => Weights::Ones,
            // Spread: each pair counts once.
            Weights::Ones if self.lookup => Weights::Ones,
            weights => {
                let product =
                    |(row, slot): (&u32, &u32)| weights.value(*row as usize).checked_mul(other.weight(*slot)).ok_or_else(too_many);
                Weights::I64(rows.iter().zip(slots).map(product).collect::<Result<Vec<i64>>>()?.into())
            }
        };
        let count = slots.len();
        let own = take_columns(part.delta.batch.columns(), &UInt32Array::from(rows))?;
        let same = &self.same[1 - side];
        let mut gathered = other.gather(slots, (0..same.len()).filter(|column| same[*column].is_none()))?.into_iter();
        let others: Vec<ArrayRef> =
            same.iter().filter_map(|own_column| own_column.map_or_else(|| gathered.next(), |at| Some(Arc::clone(&own[at])))).collect();
        let (left, right) = if side == 0 { (own, others) } else { (others, own) };
        let batch = make_batch(&self.schema, left.into_iter().chain(right).collect(), count)?;
        Ok(DeltaBatch { batch, weights })
    }

    /// Brings the result up to date with changes of both sides, except for rows whose matches have changed. The rows of a side that is
    /// ahead have its change already.
    fn exchange(&mut self, left: Vec<Part>, right: Vec<Part>, output: &mut Delta) -> Result<[Vec<Part>; 2]> {
        let mut changes = [left, right];
        let ahead = [0, 1].map(|side| self.shares[side].ahead);
        // The first change meets rows without the second one, the second one rows with the first.
        let first = usize::from(ahead[1].is_some() && ahead[0].is_none());
        let common = self.common(ahead);
        for side in [first, 1 - first] {
            if !(self.lookup && side == 1) {
                for part in &mut changes[side] {
                    self.probe(side, part, common.end(side), output)?;
                }
            }
            if ahead[side].is_none() && side < self.arrangements.len() {
                for part in &changes[side] {
                    self.arrange(side, part, output)?;
                }
            }
        }
        if common == Common::TakenBack {
            self.take_back_common(&mut changes, output)?;
        }
        Ok(changes)
    }

    /// The change of the result, with the rows of both sides at hand.
    fn step_with(&mut self, [left, right]: [Vec<Part>; 2], context: &StepContext<'_>) -> Result<Delta> {
        let mut output = vec![];
        let changes = self.exchange(left, right, &mut output)?;
        if self.expires {
            self.expire(&changes, context.bounds.clock.0, &mut output)?;
        }
        for side in 0..2 {
            self.present(side, &mut output)?;
        }
        for arrangement in &mut self.arrangements {
            arrangement.settle(context.bounds)?;
        }
        Ok(output)
    }

    /// Takes back the rows of keys that nothing has touched for so long, as `changes` touch them.
    fn expire(&mut self, changes: &[Vec<Part>; 2], clock: i64, output: &mut Delta) -> Result<()> {
        for (side, part) in changes.iter().enumerate().flat_map(|(side, parts)| parts.iter().map(move |part| (side, part))) {
            for row in 0..part.delta.num_rows() {
                self.arrangements[side].touch_key(&part.encoded, row, clock);
                if !part.keys.is_null(row) {
                    self.arrangements[1 - side].touch_key(&part.encoded, row, clock);
                }
            }
        }
        let mut gone = [vec![], vec![]];
        for (side, gone) in gone.iter_mut().enumerate() {
            if let Some(rows) = self.arrangements[side].expired(clock)? {
                gone.push(self.arrangements[side].part(rows, &self.keys[side])?);
            }
        }
        let [left, right] = gone;
        self.exchange(left, right, output).map(drop)
    }

    /// Adds a part of a side's change to its rows. What stays out of the state gives its result at once.
    fn arrange(&mut self, side: usize, part: &Part, output: &mut Delta) -> Result<()> {
        // A row without a match is part of the result: where keys expire it has to be found again, even if its key is NULL.
        let nulls_stay = self.null_aware || self.arrangements[side].expires() && self.presence[side].is_some();
        let out = self.arrangements[side].apply(part, nulls_stay)?;
        let Some(presence) = self.presence[side] else { return Ok(()) };
        let mut entries = vec![];
        for row in out {
            let [marked, plain] = presence.shown(part.delta.weights.value(row as usize), part.matches[row as usize]);
            push_entries(&mut entries, row, marked, plain);
        }
        self.hand_out(side, &entries, output, |places| take_columns(part.delta.batch.columns(), &UInt32Array::from(places)))
    }

    /// Hands out what has changed for rows of a side whose weight or matches have.
    fn present(&self, side: usize, output: &mut Delta) -> Result<()> {
        let Some(presence) = self.presence[side] else { return Ok(()) };
        let arrangement = &self.arrangements[side];
        let mut entries = vec![];
        for Before { slot, weight, matches } in arrangement.touched() {
            let (new_weight, new_matches) = arrangement.now(*slot);
            let [old_marked, old_plain] = presence.shown(*weight, *matches);
            let [marked, plain] = presence.shown(new_weight, new_matches);
            push_entries(&mut entries, *slot, marked - old_marked, plain - old_plain);
        }
        let columns = self.schemas[side].fields().len();
        self.hand_out(side, &entries, output, |slots| arrangement.gather(&slots, 0..columns))
    }

    /// Hands out rows of a side, those that go first.
    fn hand_out(
        &self,
        side: usize,
        entries: &[Entry],
        output: &mut Delta,
        columns: impl Fn(Vec<u32>) -> Result<Vec<ArrayRef>>,
    ) -> Result<()> {
        let (going, coming): (Vec<Entry>, Vec<Entry>) = entries.iter().partition(|entry| entry.weight < 0);
        for entries in going.chunks(PAIRS).chain(coming.chunks(PAIRS)) {
            let mut columns = columns(entries.iter().map(|entry| entry.place).collect())?;
            match self.presence[side] {
                Some(Presence::Padded) => {
                    let nulls = self.schemas[1 - side].fields().iter();
                    let nulls: Vec<ArrayRef> = nulls.map(|field| new_null_array(field.data_type(), entries.len())).collect();
                    columns = if side == 0 { [columns, nulls].concat() } else { [nulls, columns].concat() };
                }
                Some(Presence::Mark) => columns.push(Arc::new(BooleanArray::from_iter(entries.iter().map(|entry| Some(entry.mark))))),
                Some(Presence::Semi | Presence::Anti) | None => {}
            }
            let batch = make_batch(&self.schema, columns, entries.len())?;
            let weights = match entries.iter().all(|entry| entry.weight == 1) {
                true => Weights::Ones,
                false => Weights::I64(Int64Array::from_iter_values(entries.iter().map(|entry| entry.weight))),
            };
            output.push(DeltaBatch { batch, weights });
        }
        Ok(())
    }
}

fn push_entries(entries: &mut Vec<Entry>, place: u32, marked: i64, plain: i64) {
    for (weight, mark) in [(plain, false), (marked, true)] {
        if weight != 0 {
            entries.push(Entry { place, weight, mark });
        }
    }
}

/// Names of the sides in a checkpoint.
pub(super) const SIDES: [&str; 2] = ["left", "right"];

#[async_trait]
impl Operator for Join {
    fn needs_step(&self, context: &StepContext<'_>) -> Result<bool> {
        for arrangement in &self.arrangements {
            if arrangement.any_passed(context.bounds)? || arrangement.any_expired(context.bounds.clock.0) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn step(&mut self, inputs: &[&[DeltaBatch]], context: &StepContext<'_>) -> Result<Delta> {
        let changes = [self.parts(0, inputs[0])?, self.parts(1, inputs[1])?];
        let taken = self.take_shared(&changes, context.bounds);
        let output = taken.and_then(|()| self.step_with(changes, context));
        self.put_shared_back()?;
        output
    }

    fn checkpoint(&mut self) -> Result<Option<Saved>> {
        let groups = (0..self.arrangements.len()).map(|side| Ok((SIDES[side].to_string(), self.saved_rows(side)?)));
        let groups = groups.collect::<Result<_>>()?;
        Ok(Some(Saved { format: FORMAT, groups, detail: self.saved_detail() }))
    }

    fn restore(&mut self, saved: &Saved) -> Result<()> {
        saved.expect_format(FORMAT)?;
        self.restore_sides(saved, [true; 2])
    }

    fn sharing(&mut self) -> Option<&mut dyn Sharing> {
        self.may_share().then_some(self)
    }

    fn stats(&self) -> StateStats {
        let sizes = self.shares.iter().map(Shares::size);
        StateStats {
            rows: self.arrangements.iter().map(Arrangement::len).sum(),
            bytes: self.arrangements.iter().map(Arrangement::bytes).sum(),
            shared: sizes.fold((0, 0), |sum, size| (sum.0 + size.0, sum.1 + size.1)),
            shared_with: self.shares.iter().map(Shares::others).max().unwrap_or(0),
            touched_keys: self.touched_keys,
            ..StateStats::default()
        }
    }
}
