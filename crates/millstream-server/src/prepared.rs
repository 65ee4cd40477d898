//! Prepared statements that a session has by their names: `PREPARE p AS ..`, `EXECUTE p(..)`, `DEALLOCATE p`.
//!
//! Every protocol that has sessions has them here. PostgreSQL's extended protocol names its statements among them, and has more to keep
//! with each; the handles of Arrow Flight SQL are its own.

use crate::error::{RequestError, codes};
use crate::pg::Parsed;
use arrow::datatypes::DataType;
use millstream_engine::catalog::resolve::{fold, object_name};
use millstream_engine::{Described, EngineError};
use millstream_sql::Statement;
use parking_lot::Mutex;
use sqlparser::ast::{self, Expr};
use std::collections::HashMap;
use std::sync::Arc;

/// A prepared statement, with what its protocol keeps with it.
#[derive(Debug)]
pub(crate) struct Prepared<W> {
    pub(crate) text: String,
    pub(crate) parsed: Parsed,
    /// What it takes and gives.
    pub(crate) described: Described,
    pub(crate) wire: W,
}

/// What an EXECUTE names, and the values that it gives.
struct Executed<'a, W> {
    name: String,
    prepared: Arc<Prepared<W>>,
    values: &'a [Expr],
}

/// The prepared statements of a session.
pub(crate) struct Statements<W> {
    by_name: Mutex<HashMap<String, Arc<Prepared<W>>>>,
    most: usize,
}

impl<W> Statements<W> {
    /// None yet, and so many at most.
    pub(crate) fn new(most: usize) -> Self {
        Self { by_name: Mutex::default(), most }
    }

    /// Refuses a name that is taken.
    ///
    /// # Errors
    /// When it is.
    pub(crate) fn check_new(&self, name: &str) -> Result<(), RequestError> {
        if !self.by_name.lock().contains_key(name) {
            return Ok(());
        }
        let message = format!("prepared statement \"{name}\" exists already");
        Err(RequestError::new(codes::DUPLICATE_STATEMENT, message, "DEALLOCATE it first."))
    }

    /// Keeps a statement in place of one of the same name.
    ///
    /// # Errors
    /// When there are as many as there may be.
    pub(crate) fn keep(&self, name: String, prepared: Prepared<W>) -> Result<(), RequestError> {
        let mut by_name = self.by_name.lock();
        if by_name.len() >= self.most && !by_name.contains_key(&name) {
            let message = format!("the session has {} prepared statements already", self.most);
            return Err(RequestError::new(codes::TOO_LARGE, message, "DEALLOCATE those that are not used any more."));
        }
        by_name.insert(name, Arc::new(prepared));
        Ok(())
    }

    /// The statement of a name.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn get(&self, name: &str) -> Result<Arc<Prepared<W>>, RequestError> {
        self.by_name.lock().get(name).cloned().ok_or_else(|| no_statement(name))
    }

    /// Forgets one, and says whether there was one.
    pub(crate) fn remove(&self, name: &str) -> bool {
        self.by_name.lock().remove(name).is_some()
    }

    /// Forgets all.
    pub(crate) fn clear(&self) {
        self.by_name.lock().clear();
    }

    /// `DEALLOCATE`: one, or all. Gives what says that it is done.
    ///
    /// # Errors
    /// When there is none of this name.
    pub(crate) fn deallocate(&self, statement: &ast::Statement) -> Result<&'static str, RequestError> {
        let ast::Statement::Deallocate { name, .. } = statement else {
            return Err(EngineError::Internal("a DEALLOCATE that is none".into()).into());
        };
        let name = fold(name);
        if name == "all" {
            self.clear();
            return Ok("DEALLOCATE ALL");
        }
        match self.remove(&name) {
            true => Ok("DEALLOCATE"),
            false => Err(no_statement(&name)),
        }
    }

    /// Looks up what an EXECUTE names.
    fn executed<'a>(&self, execute: &'a ast::Statement) -> Result<Executed<'a, W>, RequestError> {
        let ast::Statement::Execute { name: Some(name), parameters, .. } = execute else {
            return Err(RequestError::new(codes::SYNTAX, "EXECUTE names a prepared statement", ""));
        };
        let name = object_name(name);
        let prepared = self.get(&name)?;
        let wanted = prepared.described.parameters.len();
        if parameters.len() != wanted {
            let message = format!("prepared statement \"{name}\" takes {wanted} parameters, not {}", parameters.len());
            return Err(RequestError::new(codes::SYNTAX, message, ""));
        }
        Ok(Executed { name, prepared, values: parameters })
    }

    /// What an EXECUTE takes and gives, and the statement that it names. Parameters of its own have the types of those they stand for.
    ///
    /// # Errors
    /// When there is no such statement, or it takes another number of values.
    pub(crate) fn describe(&self, execute: &ast::Statement) -> Result<(Described, Arc<Prepared<W>>), RequestError> {
        let Executed { prepared, values, .. } = self.executed(execute)?;
        let count = Statement::Execute(Box::new(execute.clone())).parameter_count()?;
        let mut parameters = vec![DataType::Utf8; count];
        for (value, data_type) in values.iter().zip(&prepared.described.parameters) {
            let Expr::Value(ast::ValueWithSpan { value: ast::Value::Placeholder(name), .. }) = value else { continue };
            if let Some(slot) = millstream_sql::parameters::index(name).and_then(|index| parameters.get_mut(index)) {
                *slot = data_type.clone();
            }
        }
        Ok((Described { parameters, columns: prepared.described.columns.clone() }, prepared))
    }

    /// The statement that an EXECUTE carries out, with its values.
    ///
    /// # Errors
    /// As [`Statements::describe`].
    pub(crate) fn execute(&self, execute: &ast::Statement) -> Result<Parsed, RequestError> {
        let Executed { name, prepared, values } = self.executed(execute)?;
        if let Parsed::Engine(statement) = &prepared.parsed
            && matches!(statement.as_ref(), Statement::Execute(_))
        {
            // One of the extended protocol, which could name itself.
            let message = format!("prepared statement \"{name}\" is an EXECUTE itself");
            return Err(RequestError::new(codes::NOT_SUPPORTED, message, "EXECUTE what it names."));
        }
        bound(&prepared.parsed, values)
    }
}

/// A statement with values in place of its parameters.
pub(crate) fn bound(parsed: &Parsed, values: &[Expr]) -> Result<Parsed, RequestError> {
    Ok(match parsed {
        Parsed::Empty => Parsed::Empty,
        Parsed::Catalog(query) => Parsed::Catalog(Box::new(query.bound(values)?)),
        Parsed::Engine(statement) => {
            let mut statement = statement.clone();
            statement.replace_parameters(&mut |index| values.get(index).cloned())?;
            Parsed::Engine(statement)
        }
    })
}

fn no_statement(name: &str) -> RequestError {
    RequestError::new(codes::NO_STATEMENT, format!("prepared statement \"{name}\" does not exist"), "")
}
