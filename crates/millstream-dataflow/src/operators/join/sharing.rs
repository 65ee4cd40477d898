//! What a join does to share the rows of a side with joins of other queries.

use super::arrangement::{Arrangement, Part};
use super::shared::{Ahead, RowsKey, SharedArrangements, SharedRows};
use super::{FORMAT, Join, SIDES};
use crate::bucket::Floor;
use crate::chains::NONE;
use crate::error::{DataflowError, Result};
use crate::operator::{Operator, Saved, Sharing};
use crate::operators::registry::{BuildContext, Shard};
use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use millstream_plan::bound::BoundContext;
use millstream_plan::graph::Node;
use millstream_plan::sharing::rows_of_side;
use millstream_types::delta::Delta;
use millstream_types::row_key::{RowKeyEncoder, types_of};
use std::collections::{BTreeMap, BTreeSet};

/// Version of a checkpoint that names rows by the number they are shared under.
const SHARED_FORMAT: u32 = FORMAT + 1;

/// A side, as far as it shares its rows.
#[derive(Default)]
pub(super) struct Shares {
    /// What it keeps, if that may be shared.
    key: Option<RowsKey>,
    /// The rows, since they are.
    rows: Option<SharedRows>,
    /// They are in the join's hands, as it steps.
    taken: bool,
    /// They have the change of the epoch already.
    pub(super) ahead: Option<Ahead>,
}

/// What is done about pairs of a row of the left change and a row of the right change, where both sides have these rows already.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Common {
    /// They come once.
    Once,
    /// This side's change does not meet rows of the other side from this slot on, which are those of its change.
    Without { side: usize, first: u32 },
    /// They come twice, and are taken back once.
    TakenBack,
}

impl Common {
    /// Where the rows end that the change of a side meets.
    pub(super) fn end(self, side: usize) -> u32 {
        match self {
            Common::Without { side: own, first } if own == side => first,
            Common::Without { .. } | Common::Once | Common::TakenBack => NONE,
        }
    }
}

impl Shares {
    pub(super) fn new(node: &Node, side: usize, key_types: &[DataType], context: &BuildContext<'_>) -> Result<Self> {
        let input = context.input(node, side);
        let column_types = types_of(input.schema.fields());
        // Contents are compared by the encoding of rows, which not all types have.
        let rows = match RowKeyEncoder::new(column_types.clone()) {
            Ok(_) => rows_of_side(context.graph, node, side)?,
            Err(_) => None,
        };
        let retracting = !input.properties.append_only;
        let shard = context.shard.map(|Shard { place, count }| (place, count));
        let key = |rows| RowsKey { rows, key_types: key_types.to_vec(), column_types, retracting, shard };
        Ok(Self { key: rows.map(key), ..Self::default() })
    }

    /// Rows and bytes, unless another side counts them.
    pub(super) fn size(&self) -> (usize, usize) {
        self.rows.as_ref().map_or((0, 0), SharedRows::size)
    }

    /// How many other sides share the rows.
    pub(super) fn others(&self) -> usize {
        self.rows.as_ref().map_or(0, SharedRows::others)
    }
}

impl Join {
    /// Whether some side may share its rows.
    pub(super) fn may_share(&self) -> bool {
        self.shares.iter().any(|shares| shares.key.is_some())
    }

    /// Takes shared rows for a step.
    pub(super) fn take_shared(&mut self, changes: &[Vec<Part>; 2], bounds: &BoundContext) -> Result<()> {
        for (side, shares) in self.shares.iter_mut().enumerate() {
            if let Some(rows) = &shares.rows {
                shares.ahead = rows.take(&mut self.arrangements[side], &changes[side], bounds)?;
                shares.taken = true;
            }
        }
        Ok(())
    }

    /// Gives back what [`take_shared`](Self::take_shared) took.
    pub(super) fn put_shared_back(&mut self) -> Result<()> {
        let mut result = Ok(());
        for (side, shares) in self.shares.iter_mut().enumerate() {
            shares.ahead = None;
            if let (Some(rows), true) = (&shares.rows, std::mem::take(&mut shares.taken)) {
                result = result.and(rows.put_back(&mut self.arrangements[side]));
            }
        }
        result
    }

    /// What is done about pairs of two changes.
    pub(super) fn common(&self, ahead: [Option<Ahead>; 2]) -> Common {
        match ahead {
            [_, Some(Ahead { first_new })] if ahead[0].is_some() && first_new != NONE => Common::Without { side: 0, first: first_new },
            [Some(Ahead { first_new }), Some(_)] if first_new != NONE => Common::Without { side: 1, first: first_new },
            [Some(_), Some(_)] => Common::TakenBack,
            _ => Common::Once,
        }
    }

    /// Takes back the pairs of two changes once. The left change is of no use afterwards.
    pub(super) fn take_back_common(&mut self, [left, right]: &mut [Vec<Part>; 2], output: &mut Delta) -> Result<()> {
        if left.is_empty() || right.is_empty() {
            return Ok(());
        }
        let change = self.arrangements[1].of_change(right, &self.keys[1])?;
        let rows = std::mem::replace(&mut self.arrangements[1], change);
        let mut result = Ok(());
        for part in left {
            part.delta = part.delta.negated();
            result = result.and_then(|()| self.probe(0, part, NONE, output));
        }
        self.arrangements[1] = rows;
        result
    }

    /// The rows of a side for a checkpoint.
    pub(super) fn saved_rows(&mut self, side: usize) -> Result<Vec<RecordBatch>> {
        match &self.shares[side].rows {
            Some(rows) => rows.checkpoint(),
            None => self.arrangements[side].checkpoint(),
        }
    }

    /// What a checkpoint says beside rows.
    pub(super) fn saved_detail(&self) -> serde_json::Value {
        let floors = self.arrangements.iter().zip(SIDES).map(|(rows, name)| (name.to_string(), serde_json::json!(rows.floor())));
        serde_json::json!({ "floors": floors.collect::<serde_json::Map<_, _>>() })
    }

    /// Loads the rows of the sides that are to be loaded.
    pub(super) fn restore_sides(&mut self, saved: &Saved, load: [bool; 2]) -> Result<()> {
        let mut floors: BTreeMap<String, Floor> = saved.detail("floors")?;
        for (side, rows) in self.arrangements.iter_mut().enumerate() {
            let floor = floors.remove(SIDES[side]).ok_or_else(|| DataflowError::mismatch("a floor is missing"))?;
            if load[side] {
                rows.restore(saved.group(SIDES[side]), floor, &self.keys[side])?;
            }
        }
        Ok(())
    }

    /// The rows of a side that is to share them; none are left.
    fn give_up_rows(&mut self, side: usize) -> Result<Arrangement> {
        let none = self.arrangements[side].emptied(&self.keys[side])?;
        Ok(std::mem::replace(&mut self.arrangements[side], none))
    }
}

impl Sharing for Join {
    fn share(&mut self, arrangements: &SharedArrangements) -> Result<()> {
        for side in 0..2 {
            if let (Some(key), None) = (self.shares[side].key.clone(), &self.shares[side].rows) {
                let rows = self.give_up_rows(side)?;
                self.shares[side].rows = Some(arrangements.share(&key, rows)?);
            }
        }
        Ok(())
    }

    fn part(&mut self) -> Result<bool> {
        for side in 0..2 {
            if let Some(rows) = self.shares[side].rows.take() {
                match rows.before_epoch(&self.keys[side])? {
                    Some(rows) => self.arrangements[side] = rows,
                    None => return Ok(false),
                }
            }
        }
        Ok(true)
    }

    fn let_go(&mut self) {
        self.shares.iter_mut().for_each(|shares| shares.rows = None);
    }

    fn checkpoint(&mut self, written: &mut BTreeSet<u64>) -> Result<(Saved, BTreeMap<String, u64>)> {
        let (mut groups, mut numbers) = (vec![], BTreeMap::new());
        for (side, name) in SIDES.iter().enumerate().take(self.arrangements.len()) {
            let number = self.shares[side].rows.as_ref().map(SharedRows::number);
            numbers.extend(number.map(|number| (name.to_string(), number)));
            if number.is_none_or(|number| written.insert(number)) {
                groups.push((name.to_string(), self.saved_rows(side)?));
            }
        }
        let format = if numbers.is_empty() { FORMAT } else { SHARED_FORMAT };
        Ok((Saved { format, groups, detail: self.saved_detail() }, numbers))
    }

    fn restore(&mut self, saved: &Saved, numbers: &BTreeMap<String, u64>, arrangements: &SharedArrangements) -> Result<()> {
        if numbers.is_empty() {
            return Operator::restore(self, saved);
        }
        saved.expect_format(SHARED_FORMAT)?;
        let mut found = [None, None];
        for (side, name) in SIDES.iter().enumerate() {
            let Some(number) = numbers.get(*name) else { continue };
            let Some(key) = self.shares[side].key.clone() else {
                return Err(DataflowError::mismatch(format!("the {name} rows of the query are not shared")));
            };
            found[side] = Some((*number, arrangements.restored(*number, &key)?, key));
        }
        let load = [0, 1].map(|side: usize| !matches!(found[side], Some((_, Some(_), _))));
        self.restore_sides(saved, load)?;
        for (side, found) in found.into_iter().enumerate() {
            self.shares[side].rows = match found {
                Some((number, None, key)) => {
                    let rows = self.give_up_rows(side)?;
                    Some(arrangements.put(number, &key, rows)?)
                }
                Some((_, rows, _)) => rows,
                None => None,
            };
        }
        Ok(())
    }
}
