//! The content of a materialized view: the sum of all changes of a query's result.
//!
//! ```text
//!   Dataflow::step ─▶ delta ─▶ ViewStore::apply      snapshot() ─▶ Arc<Vec<RecordBatch>> for readers
//! ```
//! A snapshot is immutable and shares its columns with the store. Applying a change costs time proportional to the change; the next
//! snapshot copies the chunks (of at most 16384 rows) that lost rows since the one before. Append-only views copy nothing.

use crate::error::{DataflowError, Result};
use crate::zset::ZSet;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use millstream_types::delta::DeltaBatch;
use std::sync::Arc;

/// A view's rows with their weights.
#[derive(Debug)]
pub struct ViewStore {
    name: String,
    rows: ZSet,
    /// What it has taken from a memory pool.
    memory: Option<MemoryReservation>,
}

impl ViewStore {
    /// An empty view. `append_only`: no row is ever taken back. `key`: columns whose values identify a row; the store then finds rows by
    /// these alone.
    ///
    /// # Errors
    /// When a column has a type that rows cannot be compared by.
    pub fn new(name: impl Into<String>, schema: SchemaRef, append_only: bool, key: Option<Vec<usize>>) -> Result<Self> {
        let name = name.into();
        let key = key.filter(|key| !key.is_empty());
        let rows = ZSet::new(schema, append_only, key).map_err(|error| error.at(&name))?;
        Ok(Self { name, rows, memory: None })
    }

    /// Takes the memory of the rows from this pool.
    #[must_use]
    pub fn charged_to(mut self, pool: &Arc<dyn MemoryPool>) -> Self {
        self.memory = Some(MemoryConsumer::new(&self.name).register(pool));
        self
    }

    fn charge(&self) -> Result<()> {
        let Some(memory) = &self.memory else { return Ok(()) };
        let bytes = self.bytes();
        memory.try_resize(bytes).map_err(|source| DataflowError::Memory { operator: self.name.clone(), bytes, source: Box::new(source) })
    }

    /// Columns of the view.
    pub fn schema(&self) -> &SchemaRef {
        self.rows.schema()
    }

    /// Adds the change of an epoch.
    ///
    /// # Errors
    /// [`DataflowError::NegativeWeight`] when a row is taken back that is not there, [`DataflowError::Memory`] when the pool has no
    /// room; the
    /// view is then undefined.
    pub fn apply(&mut self, delta: &[DeltaBatch]) -> Result<()> {
        self.rows.apply(delta).map_err(|error| error.at(&self.name))?;
        self.charge()
    }

    /// Whether all rows that a change takes away are there as they are in it.
    ///
    /// # Errors
    /// When the change has other columns.
    pub fn holds_retracted(&self, delta: &[DeltaBatch]) -> Result<bool> {
        self.rows.holds_retracted(delta).map_err(|error| error.at(&self.name))
    }

    /// A row of a change whose key would then be there more than once, by part and row of the change; always `None` without a key.
    ///
    /// # Errors
    /// When the change has other columns.
    pub fn duplicate(&self, delta: &[DeltaBatch]) -> Result<Option<(usize, usize)>> {
        self.rows.duplicate(delta).map_err(|error| error.at(&self.name))
    }

    /// The rows, each as often as it is in the view, in a deterministic order: by insertion. Readers may keep it as long as they like.
    ///
    /// # Errors
    /// When columns cannot be copied, for want of memory or offsets of strings.
    pub fn snapshot(&mut self) -> Result<Arc<Vec<RecordBatch>>> {
        self.rows.snapshot().map_err(|error| error.at(&self.name))
    }

    /// Number of different rows (of an append-only view: of rows).
    pub fn rows(&self) -> usize {
        self.rows.rows()
    }

    /// Memory in bytes, without what only readers still hold.
    pub fn bytes(&self) -> usize {
        self.rows.bytes()
    }

    /// The content for a checkpoint: the view's columns, then `__weight: Int64`.
    ///
    /// # Errors
    /// As [`snapshot`](Self::snapshot).
    pub fn checkpoint(&self) -> Result<Vec<RecordBatch>> {
        self.rows.checkpoint().map_err(|error| error.at(&self.name))
    }

    /// Loads a [`checkpoint`](Self::checkpoint) into a view without rows.
    ///
    /// # Errors
    /// [`DataflowError::StateMismatch`] when the batches are of another view, [`DataflowError::Memory`] when the pool has no room.
    pub fn restore(&mut self, batches: &[RecordBatch]) -> Result<()> {
        if self.rows.rows() > 0 {
            return Err(DataflowError::internal("a view with rows is not restored").at(&self.name));
        }
        self.rows.restore(batches).map_err(|error| error.at(&self.name))?;
        self.charge()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::{Bag, Row, add, bag, batch, random_delta, rng, rows, schema};
    use arrow::datatypes::DataType;
    use rand::Rng;

    fn view(append_only: bool, key: Option<Vec<usize>>) -> ViewStore {
        ViewStore::new("v", schema(&[("k", DataType::Int64), ("name", DataType::Utf8View)]), append_only, key).unwrap()
    }

    fn listed(batches: &[RecordBatch]) -> Vec<Row> {
        batches.iter().flat_map(rows).collect()
    }

    #[test]
    fn views_add_changes_up_and_old_snapshots_stay() {
        for append_only in [true, false] {
            let mut rng = rng(17);
            let (mut store, mut copy) = (view(append_only, None), None::<ViewStore>);
            let mut content = Bag::new();
            let mut kept = Vec::new();
            for _ in 0..300 {
                let delta = random_delta(&mut rng, store.schema(), &content, !append_only, |rng| {
                    vec![(!rng.random_bool(0.1)).then(|| rng.random_range(0..300)), Some(rng.random_range(0..3))]
                });
                add(&mut content, &delta);
                store.apply(&delta).unwrap();
                let snapshot = store.snapshot().unwrap();
                let now = listed(&snapshot);
                assert_eq!(bag(now.clone()), content);
                if let Some(copy) = &mut copy {
                    copy.apply(&delta).unwrap();
                    assert_eq!(copy.snapshot().unwrap(), snapshot);
                }
                if rng.random_bool(0.1) {
                    kept.push((snapshot, now));
                    let mut restored = view(append_only, None);
                    restored.restore(&store.checkpoint().unwrap()).unwrap();
                    copy = Some(restored);
                }
            }
            for (snapshot, then) in kept {
                assert_eq!(listed(&snapshot), then);
            }
        }
    }

    #[test]
    fn keyed_views_replace_rows_by_key() {
        let mut store = view(false, Some(vec![0]));
        let part = |rows: &[(i64, i64)]| {
            batch(
                &schema(&[("k", DataType::Int64), ("name", DataType::Utf8View)]),
                &rows.iter().map(|(k, n)| vec![Some(*k), Some(*n)]).collect::<Vec<_>>(),
            )
        };
        store.apply(&[DeltaBatch::insertions(part(&[(1, 1), (2, 2)]))]).unwrap();
        // Insertions may come before the retractions they replace.
        store.apply(&[DeltaBatch::insertions(part(&[(1, 5)])), DeltaBatch::insertions(part(&[(1, 1)])).negated()]).unwrap();
        assert_eq!(bag(listed(&store.snapshot().unwrap())), bag([vec![Some(1), Some(5)], vec![Some(2), Some(2)]]));
        let error = store.apply(&[DeltaBatch::insertions(part(&[(2, 7)]))]).unwrap_err();
        assert_eq!(error.to_string(), "operator \"v\": the key of the row (k = 2, name = the name of number 7) is there already");
    }

    #[test]
    fn a_change_is_judged_before_it_is_made() {
        let mut store = view(false, Some(vec![0]));
        let part = |rows: &[(i64, i64)]| {
            let rows: Vec<Row> = rows.iter().map(|(k, n)| vec![Some(*k), Some(*n)]).collect();
            DeltaBatch::insertions(batch(&schema(&[("k", DataType::Int64), ("name", DataType::Utf8View)]), &rows))
        };
        store.apply(&[part(&[(1, 1), (2, 2)])]).unwrap();
        assert_eq!(store.duplicate(&[part(&[(3, 3)])]).unwrap(), None);
        assert_eq!(store.duplicate(&[part(&[(3, 3), (2, 5)])]).unwrap(), Some((0, 1)));
        assert_eq!(store.duplicate(&[part(&[(3, 3), (3, 4)])]).unwrap(), Some((0, 1)));
        assert_eq!(store.duplicate(&[part(&[(2, 2)]).negated(), part(&[(2, 5)])]).unwrap(), None, "replaced");
        assert_eq!(store.duplicate(&[part(&[(2, 5)]), part(&[(2, 2)]).negated()]).unwrap(), None, "in any order");

        assert!(store.holds_retracted(&[part(&[(1, 1), (2, 2)]).negated(), part(&[(2, 3)])]).unwrap());
        assert!(!store.holds_retracted(&[part(&[(1, 4)]).negated()]).unwrap(), "has another value");
        assert!(!store.holds_retracted(&[part(&[(3, 3)]).negated()]).unwrap(), "is not there");
        let mut bag = view(false, None);
        bag.apply(&[part(&[(1, 1), (1, 1)])]).unwrap();
        assert!(bag.holds_retracted(&[part(&[(1, 1), (1, 1)]).negated()]).unwrap());
        assert!(!bag.holds_retracted(&[part(&[(1, 1), (1, 1), (1, 1)]).negated()]).unwrap(), "is there twice");
        assert_eq!(bag.duplicate(&[part(&[(1, 1)])]).unwrap(), None, "has no key");
    }

    #[test]
    fn rows_that_are_not_there_cannot_be_taken_back() {
        let row = batch(&schema(&[("k", DataType::Int64), ("name", DataType::Utf8View)]), &[vec![Some(1), None]]);
        for append_only in [true, false] {
            let error = view(append_only, None).apply(&[DeltaBatch::insertions(row.clone()).negated()]).unwrap_err();
            assert_eq!(error.to_string(), "relation \"v\" would hold the row (k = 1, name = NULL) -1 times");
        }
    }

    #[test]
    fn state_of_another_view_is_refused() {
        let mut other = ViewStore::new("w", schema(&[("k", DataType::Int64)]), true, None).unwrap();
        other.apply(&[DeltaBatch::insertions(batch(other.schema(), &[vec![Some(1)]]))]).unwrap();
        let error = view(false, None).restore(&other.checkpoint().unwrap()).unwrap_err();
        assert!(matches!(error, DataflowError::StateMismatch { .. }), "{error}");
    }
}
