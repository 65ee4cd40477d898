//! Builds engines from flags and settings.

use crate::failure::{FAILED, Failure, USAGE};
use crate::settings::Settings;
use millstream_engine::{Engine, EngineBuilder, EngineError};
use millstream_types::{Classified, ErrorKind};

/// A builder with the pipeline options of the settings, and the environment for `${NAME}`.
pub(crate) fn builder(settings: &Settings) -> EngineBuilder {
    let mut builder = Engine::builder().environment(|name| std::env::var(name).ok());
    for (name, value) in &settings.pipeline {
        builder = builder.option(name, value);
    }
    builder
}

/// Builds the engine.
///
/// # Errors
/// A usage error for illegal options, a failure for a state directory that cannot be used.
pub(crate) async fn build(builder: EngineBuilder) -> Result<Engine, Failure> {
    builder.build().await.map_err(|error| {
        let code = if error.kind() == ErrorKind::Invalid { USAGE } else { FAILED };
        Failure { code, message: with_hint(&error) }
    })
}

/// An error outside any statement, with its hint.
pub(crate) fn with_hint(error: &EngineError) -> String {
    error.render("", None, 1)
}
