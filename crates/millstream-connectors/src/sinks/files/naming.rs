//! Names of files: deterministic, so that a replay writes the same ones.

use millstream_types::{Epoch, EventTime};

/// A template such as `prefix-{time_ms}.{ext}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NameTemplate {
    pieces: Vec<Piece>,
    /// Whether it is the default one, whose names can be taken apart again.
    pub(crate) is_default: bool,
    extension: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Sink,
    Pipeline,
    FirstEpoch,
    LastEpoch,
    Part,
    TimeMs,
    Extension,
}

/// What a name is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NameParts<'a> {
    pub(crate) sink: &'a str,
    pub(crate) pipeline: &'a str,
    pub(crate) first_epoch: Epoch,
    pub(crate) last_epoch: Epoch,
    /// The clock of the epoch that commits the file.
    pub(crate) clock: EventTime,
    pub(crate) part: usize,
}

const PLACEHOLDERS: &str = "{sink}, {pipeline}, {first_epoch}, {last_epoch}, {part}, {time_ms}, {ext}";

impl NameTemplate {
    /// `<sink>-<pipeline>-<first epoch>-<last epoch>-<part>.<extension>`.
    pub(crate) fn default_for(extension: String) -> NameTemplate {
        let dash = || Piece::Text("-".into());
        let pieces = vec![
            Piece::Sink,
            dash(),
            Piece::Pipeline,
            dash(),
            Piece::FirstEpoch,
            dash(),
            Piece::LastEpoch,
            dash(),
            Piece::Part,
            Piece::Text(".".into()),
            Piece::Extension,
        ];
        NameTemplate { pieces, is_default: true, extension }
    }

    /// Reads the option `file_name`; the error says what it should be. The extension is set later.
    pub(crate) fn parse(text: &str) -> std::result::Result<NameTemplate, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((name, after)) = after.split_once('}') else { return Err("a name with closed braces".into()) };
            if !before.is_empty() {
                pieces.push(Piece::Text(before.into()));
            }
            pieces.push(match name {
                "sink" => Piece::Sink,
                "pipeline" => Piece::Pipeline,
                "first_epoch" => Piece::FirstEpoch,
                "last_epoch" => Piece::LastEpoch,
                "part" => Piece::Part,
                "time_ms" => Piece::TimeMs,
                "ext" => Piece::Extension,
                _ => return Err(format!("a name made of text and {PLACEHOLDERS}")),
            });
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.into()));
        }
        if text.contains('/') || text.starts_with(['.', '_']) {
            return Err("a name without directories that does not start with '.' or '_'".into());
        }
        // Both grow with every file of a partition: names never repeat.
        if !pieces.iter().any(|piece| matches!(piece, Piece::FirstEpoch | Piece::LastEpoch | Piece::TimeMs)) {
            return Err("a name with {time_ms}, {first_epoch} or {last_epoch}, which tell files apart".into());
        }
        if !pieces.contains(&Piece::Extension) && !text.rsplit('}').next().unwrap_or(text).contains('.') {
            return Err("a name that ends in an extension, for example '.{ext}'".into());
        }
        Ok(NameTemplate { pieces, is_default: false, extension: String::new() })
    }

    /// Sets what `{ext}` stands for.
    pub(crate) fn with_extension(mut self, extension: String) -> NameTemplate {
        self.extension = extension;
        self
    }

    /// The name of a file. A later part of one roll gets its number even where the template has no place for it.
    pub(crate) fn name(&self, parts: NameParts<'_>) -> String {
        let mut name = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => name.push_str(text),
                Piece::Sink => name.push_str(&file_safe(parts.sink)),
                Piece::Pipeline => name.push_str(parts.pipeline),
                Piece::FirstEpoch => name.push_str(&parts.first_epoch.to_string()),
                Piece::LastEpoch => name.push_str(&parts.last_epoch.to_string()),
                Piece::Part => name.push_str(&parts.part.to_string()),
                Piece::TimeMs => name.push_str(&parts.clock.0.div_euclid(1000).to_string()),
                Piece::Extension => name.push_str(&self.extension),
            }
        }
        if parts.part > 0 && !self.pieces.contains(&Piece::Part) {
            let at = name.find('.').unwrap_or(name.len());
            name.insert_str(at, &format!("-{}", parts.part));
        }
        name
    }

    /// The ending that data files of this sink have, with its dot: `.csv.gz`.
    pub(crate) fn ending(&self) -> String {
        let last = match self.pieces.last() {
            Some(Piece::Extension) => return format!(".{}", self.extension),
            Some(Piece::Text(text)) => text,
            _ => return String::new(),
        };
        last.find('.').map(|at| last[at..].to_string()).unwrap_or_default()
    }

    /// First and last epoch of a default name of this sink.
    pub(crate) fn epochs_of(&self, name: &str, sink: &str, pipeline: &str) -> Option<(Epoch, Epoch)> {
        if !self.is_default {
            return None;
        }
        let numbers = name.strip_prefix(&prefix(sink, pipeline))?.strip_suffix(&self.ending())?;
        let mut numbers = numbers.split('-').map(|number| number.parse::<u64>().ok());
        let (first, last, _) = (numbers.next()??, numbers.next()??, numbers.next()??);
        numbers.next().is_none().then_some((Epoch(first), Epoch(last)))
    }
}

/// First and last epoch of a default name of a sink, whatever its ending is.
pub(crate) fn epochs_in(name: &str, sink: &str, pipeline: &str) -> Option<(Epoch, Epoch)> {
    let (numbers, _) = name.strip_prefix(&prefix(sink, pipeline))?.split_once('.')?;
    let mut numbers = numbers.split('-').map(|number| number.parse().ok());
    let (first, last, _) = (numbers.next()??, numbers.next()??, numbers.next()??);
    numbers.next().is_none().then_some((Epoch(first), Epoch(last)))
}

/// What default names of a sink start with.
pub(crate) fn prefix(sink: &str, pipeline: &str) -> String {
    format!("{}-{pipeline}-", file_safe(sink))
}

/// The hidden name a file has until it is committed. It tells sink and pipeline, whatever the template says.
pub(crate) fn temporary(name: &str, sink: &str, pipeline: &str, writer: u64) -> String {
    let prefix = prefix(sink, pipeline);
    match name.starts_with(&prefix) {
        true => format!(".{name}.{writer}.tmp"),
        false => format!(".{prefix}{name}.{writer}.tmp"),
    }
}

/// The writer in a temporary name of this sink.
pub(crate) fn writer_of_temporary(name: &str, sink: &str, pipeline: &str) -> Option<u64> {
    let inner = name.strip_prefix('.')?.strip_suffix(".tmp")?;
    if !inner.starts_with(&prefix(sink, pipeline)) {
        return None;
    }
    inner.rsplit_once('.')?.1.parse().ok()
}

fn file_safe(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() || matches!(c, '_' | '.') { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(part: usize) -> NameParts<'static> {
        NameParts {
            sink: "my sink",
            pipeline: "00c0ffee",
            first_epoch: Epoch(3),
            last_epoch: Epoch(12),
            clock: EventTime(1_700_000_000_123_456),
            part,
        }
    }

    #[test]
    fn default_names_can_be_taken_apart() {
        let template = NameTemplate::default_for("csv.gz".into());
        let name = template.name(parts(1));
        assert_eq!(name, "my_sink-00c0ffee-3-12-1.csv.gz");
        assert_eq!(template.epochs_of(&name, "my sink", "00c0ffee"), Some((Epoch(3), Epoch(12))));
        assert_eq!(template.epochs_of("my_sink-00c0ffee-3-x-1.csv.gz", "my sink", "00c0ffee"), None);
        assert_eq!(epochs_in(&name, "my sink", "00c0ffee"), Some((Epoch(3), Epoch(12))));
        assert_eq!(epochs_in(&name, "my", "00c0ffee"), None);
        let hidden = temporary(&name, "my sink", "00c0ffee", 7);
        assert_eq!(hidden, ".my_sink-00c0ffee-3-12-1.csv.gz.7.tmp");
        assert_eq!(writer_of_temporary(&hidden, "my sink", "00c0ffee"), Some(7));
        assert_eq!(writer_of_temporary(&hidden, "other", "00c0ffee"), None);
    }

    #[test]
    fn templates_name_files_as_spark_does() {
        let template = NameTemplate::parse("counts-{time_ms}.{ext}").unwrap().with_extension("txt".into());
        assert_eq!(template.name(parts(0)), "counts-1700000000123.txt");
        assert_eq!(template.name(parts(2)), "counts-1700000000123-2.txt");
        assert_eq!(template.ending(), ".txt");
        let hidden = temporary("counts-1.txt", "k", "00c0ffee", 7);
        assert_eq!(writer_of_temporary(&hidden, "k", "00c0ffee"), Some(7));
        assert_eq!(NameTemplate::parse("a-{last_epoch}.dat").unwrap().ending(), ".dat");
        for wrong in ["a.{ext}", "{nope}.x", "a/{time_ms}.x", "{time_ms", "_{time_ms}.x", "{time_ms}"] {
            assert!(NameTemplate::parse(wrong).is_err(), "{wrong}");
        }
    }
}
