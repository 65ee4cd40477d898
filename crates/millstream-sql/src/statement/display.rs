//! The canonical text of statements.

use std::fmt::{self, Display, Formatter};

use super::*;
use crate::literal::WindowLength;

/// `'text'` with its quotes doubled.
struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.0.replace('\'', "''"))
    }
}

/// An option's key: plain where it reads as a word, else quoted.
struct Key<'a>(&'a str);

impl Display for Key<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let is_word = |part: &str| {
            part.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        if self.0.split('.').all(is_word) { f.write_str(self.0) } else { Quoted(self.0).fmt(f) }
    }
}

pub(super) fn separated<T: Display>(f: &mut Formatter<'_>, items: &[T]) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            f.write_str(", ")?;
        }
        item.fmt(f)?;
    }
    Ok(())
}

fn in_parentheses<T: Display>(f: &mut Formatter<'_>, before: &str, items: &[T]) -> fmt::Result {
    if items.is_empty() {
        return Ok(());
    }
    write!(f, "{before}(")?;
    separated(f, items)?;
    f.write_str(")")
}

pub(super) fn option_list(f: &mut Formatter<'_>, options: &OptionList) -> fmt::Result {
    f.write_str("(")?;
    for (index, (key, value)) in options.iter().enumerate() {
        write!(f, "{}{} = {}", if index > 0 { ", " } else { "" }, Key(key), Quoted(value))?;
    }
    f.write_str(")")
}

fn with_options(f: &mut Formatter<'_>, options: &OptionList) -> fmt::Result {
    if options.is_empty() {
        return Ok(());
    }
    f.write_str(" WITH ")?;
    option_list(f, options)
}

fn create(f: &mut Formatter<'_>, or_replace: bool, kind: &str, if_not_exists: bool, name: &ObjectName) -> fmt::Result {
    let replace = if or_replace { "OR REPLACE " } else { "" };
    let exists = if if_not_exists { "IF NOT EXISTS " } else { "" };
    write!(f, "CREATE {replace}{kind} {exists}{name}")
}

impl Display for Statement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Statement::CreateStream(statement) => statement.fmt(f),
            Statement::CreateTable(statement) => statement.fmt(f),
            Statement::CreateExternalTable(statement) => statement.fmt(f),
            Statement::CreateView(statement) => statement.fmt(f),
            Statement::CreateMaterializedView(statement) => statement.fmt(f),
            Statement::CreateSink(statement) => statement.fmt(f),
            Statement::CreateFunction(statement) => statement.fmt(f),
            Statement::InsertInto(statement) => statement.fmt(f),
            Statement::Drop(statement) => statement.fmt(f),
            Statement::Show(statement) => statement.fmt(f),
            Statement::Describe(name) => write!(f, "DESCRIBE {name}"),
            Statement::ShowCreate(name) => write!(f, "SHOW CREATE {name}"),
            Statement::Set(statement) => write!(f, "SET {} = {}", Key(&statement.name), Quoted(&statement.value)),
            Statement::Reset(Some(name)) => write!(f, "RESET {}", Key(name)),
            Statement::Reset(None) => f.write_str("RESET ALL"),
            Statement::Explain(statement) => statement.fmt(f),
            Statement::Query(statement) => write!(f, "{}{}", statement.query, statement.emit),
            Statement::Subscribe(statement) => statement.fmt(f),
            Statement::Copy(statement) => statement.fmt(f),
            Statement::CopyFrom(statement) => statement.fmt(f),
            Statement::DeclareCursor(statement) => statement.fmt(f),
            Statement::Fetch(statement) => statement.fmt(f),
            Statement::Prepare(statement) => statement.fmt(f),
            Statement::CloseCursor(Some(name)) => write!(f, "CLOSE {name}"),
            Statement::CloseCursor(None) => f.write_str("CLOSE ALL"),
            Statement::Checkpoint => f.write_str("CHECKPOINT"),
            Statement::Pipeline(action) => write!(f, "{action} PIPELINE"),
            Statement::Alter(statement) => statement.fmt(f),
            Statement::CreateUser(statement) => statement.fmt(f),
            Statement::AlterUser(statement) => statement.fmt(f),
            Statement::DropUser(statement) => statement.fmt(f),
            Statement::Grant(statement) => statement.fmt(f),
            Statement::RefreshTable(name) => write!(f, "REFRESH TABLE {name}"),
            Statement::CancelQuery(id) => write!(f, "CANCEL QUERY {}", Quoted(id)),
            Statement::Begin => f.write_str("BEGIN"),
            Statement::Commit => f.write_str("COMMIT"),
            Statement::Rollback => f.write_str("ROLLBACK"),
            Statement::Update(statement)
            | Statement::Delete(statement)
            | Statement::Truncate(statement)
            | Statement::Execute(statement)
            | Statement::Deallocate(statement) => statement.fmt(f),
            Statement::Other(statement) => statement.fmt(f),
        }
    }
}

impl Display for ColumnDef {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)?;
        if let Some(data_type) = &self.data_type {
            write!(f, " {data_type}")?;
        }
        match &self.kind {
            ColumnKind::Physical => {}
            ColumnKind::Computed(expr) => write!(f, " AS {expr}")?,
            ColumnKind::Metadata(key) => write!(f, " METADATA FROM {}", Quoted(key))?,
        }
        if self.not_null { f.write_str(" NOT NULL") } else { Ok(()) }
    }
}

impl Display for Watermark {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "WATERMARK FOR {} AS {}", self.column, self.column)?;
        if self.delay.is_zero() { Ok(()) } else { write!(f, " - {}", duration_sql(self.delay)) }
    }
}

/// `INTERVAL '5 seconds'`.
fn duration_sql(duration: Duration) -> String {
    // Every duration here was read from an interval, which counts microseconds in 64 bits.
    let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    WindowLength { micros, ..WindowLength::default() }.to_sql()
}

/// Columns, watermark, key and the append-only mark as one list of table elements.
fn elements(columns: &[ColumnDef], watermark: Option<&Watermark>, primary_key: &[Ident], append_only: bool) -> Vec<String> {
    let mut elements: Vec<String> = columns.iter().map(ToString::to_string).collect();
    elements.extend(watermark.map(ToString::to_string));
    if !primary_key.is_empty() {
        elements.push(format!("PRIMARY KEY ({})", primary_key.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")));
    }
    if append_only {
        elements.push("APPEND ONLY".to_owned());
    }
    elements
}

impl Display for CreateStream {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        create(f, self.or_replace, "STREAM", self.if_not_exists, &self.name)?;
        in_parentheses(f, " ", &elements(&self.columns, self.watermark.as_ref(), &self.primary_key, self.append_only))?;
        with_options(f, &self.options)?;
        self.as_select.as_ref().map_or(Ok(()), |query| write!(f, " AS {query}"))
    }
}

impl Display for CreateTable {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        create(f, self.or_replace, "TABLE", self.if_not_exists, &self.name)?;
        in_parentheses(f, " ", &elements(&self.columns, None, &self.primary_key, false))?;
        with_options(f, &self.options)?;
        self.as_select.as_ref().map_or(Ok(()), |query| write!(f, " AS {query}"))
    }
}

impl Display for CreateExternalTable {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let definition = &self.definition;
        create(f, definition.or_replace, "EXTERNAL TABLE", definition.if_not_exists, &definition.name)?;
        // DataFusion appends partition columns that were given with a type to the columns.
        let mut items: Vec<String> = definition.columns.iter().map(ToString::to_string).collect();
        items.extend(definition.constraints.iter().map(ToString::to_string));
        in_parentheses(f, " ", &items)?;
        write!(f, " STORED AS {}", definition.file_type)?;
        in_parentheses(f, " PARTITIONED BY ", &definition.table_partition_cols)?;
        for order in &definition.order_exprs {
            in_parentheses(f, " WITH ORDER ", order)?;
        }
        match definition.locations.as_slice() {
            [location] => write!(f, " LOCATION {}", Quoted(location))?,
            locations => in_parentheses(f, " LOCATION ", &locations.iter().map(|l| Quoted(l)).collect::<Vec<_>>())?,
        }
        if self.options.is_empty() {
            return Ok(());
        }
        f.write_str(" OPTIONS ")?;
        option_list(f, &self.options)
    }
}

impl Display for CreateView {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        create(f, self.or_replace, "VIEW", self.if_not_exists, &self.name)?;
        in_parentheses(f, " ", &self.columns)?;
        write!(f, " AS {}", self.query)
    }
}

impl Display for CreateMaterializedView {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        create(f, self.or_replace, "MATERIALIZED VIEW", self.if_not_exists, &self.name)?;
        in_parentheses(f, " ", &self.columns)?;
        with_options(f, &self.options)?;
        write!(f, " AS {}{}", self.query, self.emit)
    }
}

impl Display for CreateSink {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        create(f, self.or_replace, "SINK", self.if_not_exists, &self.name)?;
        in_parentheses(f, " ", &self.columns)?;
        match &self.source {
            Some(SinkSource::From { name, emit }) => write!(f, " FROM {name}{emit}")?,
            Some(SinkSource::Query { query, emit }) => write!(f, " AS {query}{emit}")?,
            None => {}
        }
        in_parentheses(f, " PRIMARY KEY ", &self.primary_key)?;
        in_parentheses(f, " PARTITIONED BY ", &self.partition_by)?;
        if !self.order_by.is_empty() {
            f.write_str(" ORDER BY ")?;
            separated(f, &self.order_by)?;
        }
        with_options(f, &self.options)
    }
}

impl Display for CreateFunction {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        create(f, self.or_replace, "FUNCTION", self.if_not_exists, &self.name)?;
        f.write_str("(")?;
        separated(f, &self.arguments.iter().map(|(name, data_type)| format!("{name} {data_type}")).collect::<Vec<_>>())?;
        write!(f, ") RETURNS {} RETURN {}", self.returns, self.body)
    }
}

impl Display for InsertInto {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "INSERT INTO {}", self.target)?;
        if let Some(name) = &self.query_name {
            write!(f, " AS {name}")?;
        }
        in_parentheses(f, " ", &self.columns)?;
        write!(f, " {}{}", self.source, self.emit)
    }
}

impl Display for Emit {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Emit::None => Ok(()),
            Emit::OnWindowClose => f.write_str(" EMIT ON WINDOW CLOSE"),
            Emit::Changes { limit: None } => f.write_str(" EMIT CHANGES"),
            Emit::Changes { limit: Some(limit) } => write!(f, " EMIT CHANGES LIMIT {limit}"),
            Emit::Periodic(period) => write!(f, " EMIT PERIODIC {}", duration_sql(*period)),
        }
    }
}

impl Display for Drop {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "DROP {} {}", self.kind.sql(), if self.if_exists { "IF EXISTS " } else { "" })?;
        separated(f, &self.names)?;
        if self.cascade { f.write_str(" CASCADE") } else { Ok(()) }
    }
}

impl Display for Show {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("SHOW ")?;
        match &self.what {
            ShowWhat::Streams => f.write_str("STREAMS"),
            ShowWhat::Tables => f.write_str("TABLES"),
            ShowWhat::Views => f.write_str("VIEWS"),
            ShowWhat::MaterializedViews => f.write_str("MATERIALIZED VIEWS"),
            ShowWhat::Sinks => f.write_str("SINKS"),
            ShowWhat::Queries => f.write_str("QUERIES"),
            ShowWhat::Functions => f.write_str("FUNCTIONS"),
            ShowWhat::Connectors => f.write_str("CONNECTORS"),
            ShowWhat::Users => f.write_str("USERS"),
            ShowWhat::Grants(None) => f.write_str("GRANTS"),
            ShowWhat::Grants(Some(user)) => write!(f, "GRANTS FOR {user}"),
            ShowWhat::All => f.write_str("ALL"),
            ShowWhat::Columns(name) => write!(f, "COLUMNS FROM {name}"),
            ShowWhat::Variable(name) => Key(name).fmt(f),
        }?;
        self.like.as_ref().map_or(Ok(()), |pattern| write!(f, " LIKE {}", Quoted(pattern)))
    }
}

impl Display for Explain {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            ExplainMode::Logical => "",
            ExplainMode::Incremental => "INCREMENTAL ",
            ExplainMode::Analyze => "ANALYZE ",
            ExplainMode::Verbose => "VERBOSE ",
        };
        write!(f, "EXPLAIN {mode}{}", self.statement)
    }
}

impl Display for Subscribe {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.source {
            SubscribeSource::Name(name) => write!(f, "SUBSCRIBE TO {name}")?,
            SubscribeSource::Query(query) => write!(f, "SUBSCRIBE TO ({query})")?,
        }
        let mut options = OptionList::new();
        if !self.snapshot {
            options.push(("snapshot".to_owned(), "false".to_owned()));
        }
        if self.progress {
            options.push(("progress".to_owned(), "true".to_owned()));
        }
        with_options(f, &options)?;
        if let Some(epoch) = self.as_of {
            write!(f, " AS OF EPOCH {epoch}")?;
        }
        self.up_to.map_or(Ok(()), |epoch| write!(f, " UP TO EPOCH {epoch}"))
    }
}

impl Display for CopyFrom {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "COPY {}", self.target)?;
        in_parentheses(f, " ", &self.columns)?;
        f.write_str(" FROM STDIN")?;
        with_options(f, &self.options)
    }
}

impl Display for DeclareCursor {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "DECLARE {} CURSOR {}FOR {}", self.name, if self.hold { "WITH HOLD " } else { "" }, self.statement)
    }
}

impl Display for Fetch {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let word = if self.moves { "MOVE" } else { "FETCH" };
        match self.count {
            Some(count) => write!(f, "{word} {count} FROM {}", self.cursor)?,
            None => write!(f, "{word} ALL FROM {}", self.cursor)?,
        }
        match self.timeout {
            Some(timeout) => write!(f, " WITH (timeout = '{}')", humantime::format_duration(timeout)),
            None => Ok(()),
        }
    }
}

impl Display for Prepare {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "PREPARE {} AS {}", self.name, self.statement)
    }
}

impl Display for Copy {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.source {
            CopySource::Relation(name) => write!(f, "COPY {name} TO ")?,
            CopySource::Query(query) => write!(f, "COPY ({query}) TO ")?,
            CopySource::Subscribe(subscribe) => write!(f, "COPY ({subscribe}) TO ")?,
        }
        match &self.target {
            CopyTarget::File(file) => Quoted(file).fmt(f)?,
            CopyTarget::Stdout => f.write_str("STDOUT")?,
        }
        if let Some(format) = &self.format {
            write!(f, " STORED AS {format}")?;
        }
        in_parentheses(f, " PARTITIONED BY ", &self.partitioned_by)?;
        if self.options.is_empty() {
            return Ok(());
        }
        f.write_str(" OPTIONS ")?;
        option_list(f, &self.options)
    }
}

impl Display for PipelineAction {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PipelineAction::Start => "START",
            PipelineAction::Stop => "STOP",
            PipelineAction::Pause => "PAUSE",
            PipelineAction::Resume => "RESUME",
        })
    }
}

impl Display for Alter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "ALTER {} ", self.kind.sql())?;
        if let Some(name) = &self.name {
            write!(f, "{name} ")?;
        }
        match &self.action {
            AlterAction::Pause => f.write_str("PAUSE"),
            AlterAction::Resume => f.write_str("RESUME"),
            AlterAction::Set(options) => {
                f.write_str("SET ")?;
                option_list(f, options)
            }
            AlterAction::Reset(keys) => in_parentheses(f, "RESET ", &keys.iter().map(|key| Key(key)).collect::<Vec<_>>()),
            AlterAction::Rename(name) => write!(f, "RENAME TO {name}"),
        }
    }
}
