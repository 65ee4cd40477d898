//! `millstream config`: what is set, and by whom.

use crate::args::ConfigAction;
use crate::engine_setup;
use crate::failure::DONE;
use crate::settings::{KNOWN, Settings, default_files};
use std::io::Write;

/// Runs `config show` or `config check`. Reading the settings has checked their names and values already.
///
/// # Errors
/// When a pipeline option is wrong, or the output cannot be written.
pub(crate) async fn run(action: ConfigAction, settings: &Settings) -> anyhow::Result<u8> {
    let engine = engine_setup::build(engine_setup::builder(settings)).await?;
    let mut text = String::new();
    match action {
        ConfigAction::Check => text.push_str(&format!("{} settings are right\n", settings.entries.len())),
        ConfigAction::Show => {
            let files: Vec<String> = default_files().iter().map(|file| file.display().to_string()).collect();
            text.push_str(&format!("# read from --config, else the first of {}\n", files.join(", ")));
            for (name, about) in KNOWN {
                match settings.entries.iter().find(|entry| entry.name == name) {
                    Some(entry) => text.push_str(&format!("{name} = '{}'  # {about}; from {}\n", entry.value, entry.origin)),
                    None => text.push_str(&format!("# {name}: {about}\n")),
                }
            }
            for setting in engine.session().settings() {
                let origin = settings.entries.iter().find(|entry| entry.name == format!("pipeline.{}", setting.name));
                let from = origin.map_or("default".to_string(), |entry| format!("from {}", entry.origin));
                text.push_str(&format!("pipeline.{} = '{}'  # {} {from}\n", setting.name, setting.value, setting.doc));
            }
        }
    }
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(DONE)
}
