//! `--from` and `--to`: each stream with event time becomes a derived stream over its history.
//!
//! ```sql
//! CREATE STREAM bids (...) WITH (connector = 'files', ...);                       -- without its WATERMARK, as bids__history
//! CREATE STREAM bids (WATERMARK FOR ts AS ts - INTERVAL '5 seconds')
//!     AS SELECT * FROM bids__history WHERE ts >= TIMESTAMP '...' AND ts < TIMESTAMP '...';
//! ```
//! Event time is declared on the derived stream only, so that rows outside the bounds neither count as late nor move the
//! watermark. Streams without event time are read whole.

use crate::failure::Failure;
use crate::script::Script;
use millstream_sql::Statement;
use millstream_sql::statement::CreateStream;
use millstream_types::EventTime;

/// Options that belong to event time, and so to the derived stream.
const EVENT_TIME_OPTIONS: [&str; 4] = ["idle_timeout", "max_future", "on_future", "on_late"];

/// The script with its streams bounded; replaced options follow their stream to its new name. Lines keep their numbers.
///
/// # Errors
/// A usage error when no stream has event time, or one cannot be bounded.
pub(crate) fn bounded_script(
    script: &Script,
    from: Option<EventTime>,
    to: Option<EventTime>,
    set: &mut [(String, String, String)],
) -> Result<String, Failure> {
    let mut text = String::with_capacity(script.text.len() * 2);
    let mut copied = 0;
    let mut bounded = 0;
    for parsed in millstream_sql::parse_script(&script.text) {
        // A mistake is reported when the script is applied, with its place.
        let Ok(parsed) = parsed else { break };
        let Statement::CreateStream(stream) = &parsed.statement else { continue };
        if stream.watermark.is_none() || stream.as_select.is_some() {
            continue;
        }
        if !stream.primary_key.is_empty() || stream.options.iter().any(|(option, _)| option == "op_column") {
            return Err(Failure::usage(format!(
                "--from and --to cannot bound stream \"{}\", whose rows change earlier ones\nhint: Replay its whole history.",
                stream.name
            )));
        }
        let history = format!("{}__history", stream.name);
        for (object, option, _) in set.iter_mut() {
            if *object == stream.name.to_string() && !EVENT_TIME_OPTIONS.contains(&option.as_str()) {
                object.clone_from(&history);
            }
        }
        text.push_str(&script.text[copied..parsed.offset]);
        let (base, derived) = split(stream, &history, from, to)?;
        text.push_str(&format!("{base}; {derived}"));
        text.push_str(&"\n".repeat(parsed.text.matches('\n').count()));
        copied = parsed.offset + parsed.text.len();
        bounded += 1;
    }
    if bounded == 0 {
        return Err(Failure::usage("--from and --to need a stream with event time\nhint: Declare it with WATERMARK FOR."));
    }
    text.push_str(&script.text[copied..]);
    Ok(text)
}

/// The stream without event time under its new name, and the derived stream in its place.
fn split(stream: &CreateStream, history: &str, from: Option<EventTime>, to: Option<EventTime>) -> Result<(String, String), Failure> {
    let unparsable = |error: millstream_sql::SqlError| Failure::usage(format!("stream \"{}\" cannot be bounded: {error}", stream.name));
    let Some(watermark) = &stream.watermark else { return Err(Failure::usage(format!("stream \"{}\" has no event time", stream.name))) };
    let column = &watermark.column;
    let has_zone = stream.columns.iter().any(|declared| {
        let data_type = declared.data_type.as_ref().map(ToString::to_string).unwrap_or_default().to_uppercase();
        declared.name == *column && (data_type.contains("TIMESTAMPTZ") || data_type.contains("WITH TIME ZONE"))
    });
    let literal = |time: EventTime| {
        let text = time.to_string().replace('T', " ");
        if has_zone { format!("TIMESTAMPTZ '{text}'") } else { format!("TIMESTAMP '{}'", text.trim_end_matches('Z')) }
    };
    let conditions: Vec<String> =
        [from.map(|time| format!("{column} >= {}", literal(time))), to.map(|time| format!("{column} < {}", literal(time)))]
            .into_iter()
            .flatten()
            .collect();
    let options: Vec<String> = stream
        .options
        .iter()
        .filter(|(option, _)| EVENT_TIME_OPTIONS.contains(&option.as_str()))
        .map(|(option, value)| format!("{option} = '{}'", value.replace('\'', "''")))
        .collect();
    let with = if options.is_empty() { String::new() } else { format!(" WITH ({})", options.join(", ")) };
    let delay = format!("INTERVAL '{} microseconds'", watermark.delay.as_micros());
    let derived = format!(
        "CREATE STREAM {} (WATERMARK FOR {column} AS {column} - {delay}){with} AS SELECT * FROM {history} WHERE {}",
        stream.name,
        conditions.join(" AND ")
    );
    let parsed = millstream_sql::parse_statement(&format!("CREATE STREAM {history} (x INT)")).map_err(unparsable)?;
    let Statement::CreateStream(named) = parsed else { return Err(Failure::usage("internal error: not a stream")) };
    let mut base = stream.clone();
    base.name = named.name;
    base.watermark = None;
    base.options.retain(|(option, _)| !EVENT_TIME_OPTIONS.contains(&option.as_str()));
    Ok((Statement::CreateStream(base).to_string(), derived))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_with_event_time_are_bounded_and_lines_stay() {
        let text = "CREATE STREAM s (a INT, ts TIMESTAMP,\n WATERMARK FOR ts AS ts - INTERVAL '5 seconds')\n\
                    WITH (connector = 'files', path = 'x', format = 'csv', on_late = 'fail');\nSELECT 1;";
        let script = Script { text: text.into(), name: None };
        let mut set = vec![("s".to_string(), "path".to_string(), "y".to_string())];
        let bounded = bounded_script(&script, Some(EventTime(0)), Some(EventTime(1_500_000)), &mut set).unwrap();
        assert_eq!(set[0].0, "s__history");
        assert_eq!(bounded.matches('\n').count(), text.matches('\n').count());
        assert!(bounded.contains("WHERE ts >= TIMESTAMP '1970-01-01 00:00:00' AND ts < TIMESTAMP '1970-01-01 00:00:01.500'"), "{bounded}");
        let statements: Vec<_> = millstream_sql::parse_script(&bounded).collect::<Result<_, _>>().unwrap();
        assert_eq!(statements.len(), 3);
        let Statement::CreateStream(base) = &statements[0].statement else { panic!("no stream") };
        assert!(base.watermark.is_none() && base.options.iter().all(|(option, _)| option != "on_late"));
    }

    #[test]
    fn streams_without_event_time_cannot_be_bounded() {
        let script = Script { text: "CREATE STREAM s (a INT) WITH (connector = 'files')".into(), name: None };
        assert!(bounded_script(&script, Some(EventTime(0)), None, &mut []).is_err());
    }
}
