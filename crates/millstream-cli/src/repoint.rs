//! `--set stream.option=value`: the options of a pipeline file's streams and sinks, replaced from outside.
//!
//! A replaced `connector` takes nothing over from the old one: its host, port and format mean nothing to the new one. Only
//! the options that the engine itself reads stay. Everything else replaces one option and keeps the rest.

use crate::failure::Failure;
use crate::script::Script;
use millstream_engine::statements::stream_options::ENGINE_OPTIONS;
use millstream_sql::Statement;
use millstream_types::suggest::nearest;

/// An option from outside: object, option, value.
pub(crate) type SetOption = (String, String, String);

/// The script in which objects with a replaced connector have its options only. Lines keep their numbers.
///
/// # Errors
/// A usage error for an object that the script does not define.
pub(crate) fn repointed(script: &Script, set: &[SetOption]) -> Result<String, Failure> {
    let mut text = String::with_capacity(script.text.len());
    let mut copied = 0;
    let mut defined = Vec::new();
    for parsed in millstream_sql::parse_script(&script.text) {
        // A mistake is reported when the script is applied, with its place; what follows it is not known.
        let Ok(parsed) = parsed else { return Ok(script.text.clone()) };
        let mut statement = parsed.statement;
        let name = match &statement {
            Statement::CreateStream(stream) => stream.name.to_string(),
            Statement::CreateSink(sink) => sink.name.to_string(),
            _ => continue,
        };
        if set.iter().any(|(object, option, _)| *object == name && option == "connector") {
            let Some(options) = statement.options_mut() else { continue };
            // What does not belong to the connector stays.
            options.retain(|(option, _)| option == "mode" || ENGINE_OPTIONS.contains(&option.as_str()));
            for (_, option, value) in set.iter().filter(|(object, _, _)| *object == name) {
                options.retain(|(existing, _)| existing != option);
                options.push((option.clone(), value.clone()));
            }
            text.push_str(&script.text[copied..parsed.offset]);
            text.push_str(&statement.to_string());
            text.push_str(&"\n".repeat(parsed.text.matches('\n').count()));
            copied = parsed.offset + parsed.text.len();
        }
        defined.push(name);
    }
    if let Some((unknown, option, _)) = set.iter().find(|(object, _, _)| !defined.contains(object)) {
        let hint = match nearest(unknown, defined.iter().map(String::as_str)) {
            Some(near) => format!("Did you mean \"{near}.{option}\"?"),
            None => format!("It defines {}.", defined.join(", ")),
        };
        return Err(Failure::usage(format!("--set {unknown}.{option}: the file defines no stream or sink \"{unknown}\"\nhint: {hint}")));
    }
    text.push_str(&script.text[copied..]);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(object: &str, option: &str, value: &str) -> SetOption {
        (object.into(), option.into(), value.into())
    }

    fn script() -> Script {
        let text = "CREATE STREAM s (a INT)\nWITH (connector = 'socket', host = 'h', port = '1', on_late = 'fail');\n\
                    CREATE SINK k FROM s WITH (connector = 'console');";
        Script { text: text.into(), name: None }
    }

    #[test]
    fn a_new_connector_drops_the_options_of_the_old_one() {
        let text = repointed(&script(), &[set("s", "connector", "files"), set("s", "path", "dir")]).unwrap();
        assert!(!text.contains("host") && text.contains("on_late") && text.contains("'dir'") && text.contains("console"), "{text}");
        assert_eq!(text.matches('\n').count(), 2);
        assert_eq!(millstream_sql::parse_script(&text).count(), 2);
    }

    #[test]
    fn other_options_change_nothing_here_and_names_are_checked() {
        assert_eq!(repointed(&script(), &[set("s", "port", "2")]).unwrap(), script().text);
        let error = repointed(&script(), &[set("ss", "port", "2")]).unwrap_err();
        assert!(error.message.contains("Did you mean \"s.port\"?"), "{}", error.message);
    }
}
