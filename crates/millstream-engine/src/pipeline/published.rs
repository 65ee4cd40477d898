//! What readers get without asking the pipeline's task: the content that relations have after the newest epoch.
//!
//! ```text
//!   end of an epoch ──► publish: relations that were read since the epoch before
//!   a reader ──► find ──► all there: a consistent snapshot, at once
//!                  └────► something missing: Command::Snapshot, whose content is added for the next reader
//! ```
//! Taking the content of a view costs in proportion to what changed in it, so it is taken for an epoch only if somebody asked for it in
//! the epoch before. Who waits for a commit reads what it committed: an epoch is published before anybody hears of it.
//! **State**: one snapshot, of relations that hold rows (tables, materialized views, tracked tables). **Dropped**: with the next epoch.

use super::snapshot::{Content, Snapshot};
use crate::catalog::Catalog;
use crate::catalog::object::{Object, ObjectKind, Refresh};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The newest epoch, as far as readers have asked for it.
#[derive(Debug, Default)]
pub struct Published {
    current: Mutex<Current>,
}

#[derive(Debug, Default)]
struct Current {
    snapshot: Arc<Snapshot>,
    /// The objects whose content it has, by name.
    objects: BTreeMap<String, Arc<Object>>,
    /// Relations that were read since the snapshot was published.
    read: BTreeSet<String>,
}

impl Published {
    /// A snapshot with the content of all these objects of a catalog, if it is there.
    pub fn find(&self, catalog: &Catalog, names: &BTreeSet<String>) -> Option<Arc<Snapshot>> {
        let mut current = self.current.lock();
        let mut read = Vec::new();
        for name in names {
            let object = catalog.get(name)?;
            match content_of(&object.kind) {
                ContentOf::Rows if current.objects.get(name).is_some_and(|known| Arc::ptr_eq(known, object)) => read.push(name),
                ContentOf::Nothing => {}
                ContentOf::Rows | ContentOf::Other => return None,
            }
        }
        for name in read {
            if !current.read.contains(name) {
                current.read.insert(name.clone());
            }
        }
        Some(Arc::clone(&current.snapshot))
    }

    /// Adds what was taken of the newest epoch, of objects of this catalog.
    pub(super) fn add(&self, catalog: &Catalog, taken: &Snapshot) {
        let mut current = self.current.lock();
        if current.snapshot.epoch != taken.epoch {
            let empty = Snapshot { epoch: taken.epoch, clock: taken.clock, ..Snapshot::default() };
            *current = Current { snapshot: Arc::new(empty), ..Current::default() };
        }
        let Current { snapshot, objects, read } = &mut *current;
        for (name, content) in &taken.relations {
            if let (Content::Rows(..), Some(object)) = (content, catalog.get(name)) {
                read.insert(name.clone());
                if !objects.get(name).is_some_and(|known| Arc::ptr_eq(known, object)) {
                    objects.insert(name.clone(), Arc::clone(object));
                    Arc::make_mut(snapshot).relations.insert(name.clone(), content.clone());
                }
            }
        }
    }

    /// The relations that the next epoch is to be published with.
    pub(super) fn wanted(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.current.lock().read)
    }

    /// Replaces what is there by the content of an epoch, of objects of this catalog.
    pub(super) fn publish(&self, catalog: &Catalog, snapshot: Snapshot) {
        let names = snapshot.relations.keys();
        let objects = names.filter_map(|name| Some((name.clone(), Arc::clone(catalog.get(name)?)))).collect();
        *self.current.lock() = Current { objects, snapshot: Arc::new(snapshot), read: BTreeSet::new() };
    }
}

/// What reading an object takes.
enum ContentOf {
    /// Rows that are kept.
    Rows,
    /// Nothing of its own.
    Nothing,
    /// What only the pipeline's task can say.
    Other,
}

fn content_of(kind: &ObjectKind) -> ContentOf {
    match kind {
        ObjectKind::Table(_) | ObjectKind::MaterializedView(_) => ContentOf::Rows,
        ObjectKind::ExternalTable(def) if def.refresh == Refresh::Track => ContentOf::Rows,
        ObjectKind::View(_) | ObjectKind::ExternalTable(_) => ContentOf::Nothing,
        ObjectKind::Stream(_) | ObjectKind::Sink(_) => ContentOf::Other,
    }
}
