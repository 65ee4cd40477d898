//! The catalog: names and what they stand for. Changes are part of commit records; see `pipeline::commit`.

pub mod cache;
pub mod object;
pub mod resolve;

use crate::access::{Access, Scope};
use crate::error::{EngineError, Result};
use millstream_types::suggest::nearest;
use object::{Object, ObjectKind, StreamDef};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The first position that stands for no place in a file: an insert with a key is noted at this plus the epoch it came in.
pub const KEYED: u64 = 1 << 63;
/// Keys that are remembered.
const KEYS_MAX: usize = 100_000;

/// All objects of an engine, in the order they were made. Cloned on change, shared by readers.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    objects: Vec<Arc<Object>>,
    /// Users and privileges.
    pub access: Arc<Access>,
    /// `INSERT ... VALUES` of pipeline files that have been carried out: position in the file and hash of the text.
    pub applied_inserts: std::collections::BTreeSet<(u64, u64)>,
}

impl Catalog {
    /// The object with this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Object>> {
        self.objects.iter().find(|object| object.name == name)
    }

    /// The object with this name.
    ///
    /// # Errors
    /// When there is none; suggests the nearest name.
    pub fn require(&self, name: &str) -> Result<&Arc<Object>> {
        self.get(name).ok_or_else(|| self.unknown(name))
    }

    /// The object a name in a query stands for: exactly, or the only one that differs in case.
    ///
    /// # Errors
    /// When there is none.
    pub fn lookup(&self, name: &str) -> Result<&Arc<Object>> {
        if let Some(object) = self.get(name) {
            return Ok(object);
        }
        let mut folded = self.objects.iter().filter(|object| object.name.eq_ignore_ascii_case(name));
        match (folded.next(), folded.next()) {
            (Some(object), None) => Ok(object),
            _ => Err(self.unknown(name)),
        }
    }

    /// The error for a name that does not exist.
    pub fn unknown(&self, name: &str) -> EngineError {
        let hint = match nearest(name, self.objects.iter().map(|object| object.name.as_str())) {
            Some(near) => format!("Did you mean \"{near}\"?"),
            None if self.objects.is_empty() => "Nothing has been created yet; CREATE STREAM makes a stream.".to_string(),
            None => {
                let names: Vec<String> = self.objects.iter().map(|object| format!("\"{}\"", object.name)).collect();
                format!("Known relations: {}.", names.join(", "))
            }
        };
        EngineError::invalid(format!("relation \"{name}\" does not exist"), hint)
    }

    /// The stream with this name.
    ///
    /// # Errors
    /// When there is none, or it is something else.
    pub fn stream(&self, name: &str) -> Result<&Arc<StreamDef>> {
        match &self.require(name)?.kind {
            ObjectKind::Stream(def) => Ok(def),
            other => Err(EngineError::invalid(format!("\"{name}\" is a {}, not a stream", other.word()), "")),
        }
    }

    /// Whether rows with this key have been inserted into a relation.
    pub fn has_key(&self, hash: u64) -> bool {
        self.applied_inserts.range((KEYED, 0)..).any(|(_, other)| *other == hash)
    }

    /// Remembers that an insert was carried out. Of keys, which go on coming, the oldest are forgotten.
    pub fn note_insert(&mut self, position: u64, hash: u64) {
        self.applied_inserts.insert((position, hash));
        if position >= KEYED && self.applied_inserts.range((KEYED, 0)..).count() > KEYS_MAX {
            let oldest = self.applied_inserts.range((KEYED, 0)..).next().copied();
            oldest.map(|oldest| self.applied_inserts.remove(&oldest));
        }
    }

    /// All objects, oldest first.
    pub fn objects(&self) -> &[Arc<Object>] {
        &self.objects
    }

    /// Adds an object, or replaces one of the same name in place.
    pub fn put(&mut self, object: Object) {
        match self.objects.iter_mut().find(|existing| existing.name == object.name) {
            Some(existing) => *existing = Arc::new(object),
            None => self.objects.push(Arc::new(object)),
        }
    }

    /// Removes an object, and what was granted on it.
    pub fn remove(&mut self, name: &str) {
        self.objects.retain(|object| object.name != name);
        if self.access.is_granted(&Scope::Object(name.to_string())) {
            Arc::make_mut(&mut self.access).forget_object(name);
        }
    }

    /// Names of the objects that read `name`, directly.
    pub fn readers_of(&self, name: &str, reads: &BTreeMap<String, Vec<String>>) -> Vec<String> {
        reads
            .iter()
            .filter(|(reader, inputs)| reader.as_str() != name && inputs.iter().any(|input| input == name))
            .map(|(reader, _)| reader.clone())
            .collect()
    }
}
