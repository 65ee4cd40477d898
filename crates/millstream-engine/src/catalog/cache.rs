//! What was found out about statements, to be used again while the objects it depends on stay as they are.

use super::Catalog;
use super::object::Object;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// Values by key. Of more than it holds, the least recently used goes.
#[derive(Debug)]
pub struct CatalogCache<K, V> {
    most: usize,
    inner: Mutex<Inner<K, V>>,
}

#[derive(Debug)]
struct Inner<K, V> {
    entries: HashMap<K, Entry<V>>,
    uses: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    /// The objects it depends on.
    objects: Vec<Arc<Object>>,
    last_use: u64,
}

impl<K: Eq + Hash + Clone, V: Clone> CatalogCache<K, V> {
    /// A cache of this many values.
    pub fn new(most: usize) -> Self {
        Self { most, inner: Mutex::new(Inner { entries: HashMap::new(), uses: 0 }) }
    }

    /// The value of a key, if it is right for this catalog.
    pub fn get(&self, catalog: &Catalog, key: &K) -> Option<V> {
        let mut inner = self.inner.lock();
        inner.uses += 1;
        let uses = inner.uses;
        let entry = inner.entries.get_mut(key)?;
        let is_same = |object: &Arc<Object>| catalog.get(&object.name).is_some_and(|now| Arc::ptr_eq(now, object));
        if !entry.objects.iter().all(is_same) {
            return None;
        }
        entry.last_use = uses;
        Some(entry.value.clone())
    }

    /// Keeps a value that depends on these objects.
    pub fn put(&self, key: K, value: V, objects: Vec<Arc<Object>>) {
        let mut inner = self.inner.lock();
        if inner.entries.len() >= self.most && !inner.entries.contains_key(&key) {
            let oldest = inner.entries.iter().min_by_key(|(_, entry)| entry.last_use).map(|(key, _)| key.clone());
            oldest.map(|oldest| inner.entries.remove(&oldest));
        }
        inner.uses += 1;
        let last_use = inner.uses;
        inner.entries.insert(key, Entry { value, objects, last_use });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::object::{ObjectKind, ViewDef};

    fn view(name: &str) -> Object {
        let query = millstream_sql::parse_query("SELECT 1").unwrap();
        Object {
            name: name.into(),
            sql: String::new(),
            kind: ObjectKind::View(Arc::new(ViewDef { name: name.into(), columns: vec![], query })),
        }
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let (cache, catalog) = (CatalogCache::new(2), Catalog::default());
        cache.put("a", 1, Vec::new());
        cache.put("b", 2, Vec::new());
        assert_eq!(cache.get(&catalog, &"a"), Some(1));
        cache.put("c", 3, Vec::new());
        assert_eq!([cache.get(&catalog, &"a"), cache.get(&catalog, &"b"), cache.get(&catalog, &"c")], [Some(1), None, Some(3)]);
    }

    #[test]
    fn what_depends_on_another_object_is_of_no_use() {
        let (cache, mut catalog) = (CatalogCache::new(2), Catalog::default());
        catalog.put(view("v"));
        let needed = Arc::clone(catalog.get("v").unwrap());
        cache.put("a", 1, vec![needed]);
        catalog.put(view("w"));
        assert_eq!(cache.get(&catalog, &"a"), Some(1));
        catalog.put(view("v"));
        assert_eq!(cache.get(&catalog, &"a"), None);
        catalog.remove("v");
        assert_eq!(cache.get(&catalog, &"a"), None);
    }
}
