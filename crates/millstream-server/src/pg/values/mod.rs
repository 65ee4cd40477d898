//! Values of PostgreSQL: which type an Arrow type is, values written as text and binary, parameters read.

pub(crate) mod encode;
pub(crate) mod numeric;
pub(crate) mod parameter;
pub(crate) mod text;
pub(crate) mod types;
