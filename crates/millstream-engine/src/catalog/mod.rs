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

/// All objects of an engine, in the order they were made. Cloned on change, shared by readers.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    objects: Vec<Arc<Object>>,
    /// Users and privileges.
    pub access: Arc<Access>,
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
