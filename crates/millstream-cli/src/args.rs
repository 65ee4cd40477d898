//! The command line.

use crate::output::Format;
use arrow::compute::kernels::cast_utils::string_to_datetime;
use clap::{Args, Parser, Subcommand, ValueEnum};
use millstream_types::EventTime;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

const AFTER_HELP: &str = "\
Without a command: the shell on a terminal, else the statements of -c, -f or standard input.

Settings come from, each overriding the one before: defaults; the configuration file (--config,
else ./millstream.toml, else ~/.config/millstream/config.toml); the environment
(MILLSTREAM__SECTION__KEY); flags; SET in SQL. Only SET is stored in the state directory,
everything else holds for this start.

Exit codes: 0 done, 1 a query or the pipeline failed, 2 wrong usage or configuration, 3 a script
failed part-way, 130 interrupted, 143 terminated. A service that is stopped ends with 0.";

/// SQL over micro-batches: streams in, answers kept up to date, results in rolling files.
#[derive(Debug, Parser)]
#[command(name = "millstream", version, long_version = crate::version::long(), after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// What to do; without it, the shell.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// Statements to execute.
    #[command(flatten)]
    pub(crate) script: ScriptArgs,
    /// Options of every command.
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
}

/// Options that every command understands.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct GlobalArgs {
    /// Read settings from this file.
    #[arg(long, value_name = "FILE", global = true, env = "MILLSTREAM_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// How rows are written; a box on a terminal and CSV elsewhere unless given.
    #[arg(long, value_enum, value_name = "FORMAT", global = true)]
    pub(crate) format: Option<Format>,
    /// What the program logs to standard error, for instance `info` or `millstream_engine=debug`.
    #[arg(long, value_name = "FILTER", global = true)]
    pub(crate) log: Option<String>,
    /// How the log is written.
    #[arg(long, value_enum, value_name = "FORMAT", global = true)]
    pub(crate) log_format: Option<LogFormat>,
    /// Print nothing but results and errors.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// A line of text per event.
    Text,
    /// A JSON object per event.
    Json,
}

/// Statements from the command line, a file or standard input.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ScriptArgs {
    /// Execute these statements, then exit. May be given several times.
    #[arg(short = 'c', long = "command", value_name = "SQL", conflicts_with = "file")]
    pub(crate) sql: Vec<String>,
    /// Execute this file, then exit; `-` is standard input.
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Keep state in this directory; in memory without it. The clock of a pipeline that is there already starts.
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Take over the state directory from an instance that still runs there, which then fails at its next commit.
    #[arg(long, requires = "state_dir")]
    pub(crate) takeover: bool,
    /// Carry statements out at a server: `flight://[user@]host[:port]`, or `flight+tls://..`. The password is asked for, or comes from
    /// MILLSTREAM_PASSWORD; a token from MILLSTREAM_TOKEN.
    #[arg(long, value_name = "URL", conflicts_with_all = ["state_dir", "takeover"])]
    pub(crate) connect: Option<String>,
    /// Set a variable that statements use as `:name` or `:'name'`.
    #[arg(short = 'v', long = "variable", value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub(crate) variables: Vec<(String, String)>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a pipeline file until it is stopped or its streams end; starting it again continues where it stopped.
    Run(RunArgs),
    /// Run a pipeline, and let clients talk to it over the PostgreSQL protocol, Arrow Flight SQL and HTTP, until it is stopped.
    Serve(ServeArgs),
    /// Print an entry of the users file of `serve`, with a new token; the password comes from standard input.
    User(UserArgs),
    /// Run a pipeline file over history. Its sinks write where the file says, unless `--set` points them elsewhere.
    Replay(ReplayArgs),
    /// Parse and plan a file and show how each query is kept up to date; no rows are read, but the places of files must exist.
    Check(CheckArgs),
    /// Run the queries of pipeline files incrementally and as one batch over the same bounded input, and compare.
    Verify(VerifyArgs),
    /// Look into a state directory.
    State(StateArgs),
    /// Measure this machine.
    Bench(BenchArgs),
    /// Show settings: where each comes from, and whether they are right.
    Config(ConfigArgs),
    /// Print the completion script of a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page (roff).
    Man,
}

/// What a pipeline file is run with.
#[derive(Debug, Clone, Args)]
pub(crate) struct PipelineArgs {
    /// The pipeline file.
    #[arg(value_name = "FILE.sql")]
    pub(crate) file: PathBuf,
    /// Keep state in this directory. Without it: `.millstream/<file stem>` beside the file, `.millstream/<file stem>.replay` of a replay,
    /// and nowhere with `--order log`.
    #[arg(long, value_name = "DIR", conflicts_with = "in_memory")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Keep nothing: a stop loses all state.
    #[arg(long)]
    pub(crate) in_memory: bool,
    /// Take over the state directory from an instance that still runs there, which then fails at its next commit.
    #[arg(long, conflicts_with = "in_memory")]
    pub(crate) takeover: bool,
    /// Set a variable that statements use as `:name` or `:'name'`.
    #[arg(short = 'v', long = "variable", value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub(crate) variables: Vec<(String, String)>,
    /// Set an option of a stream or sink in place of what the file says, for this start.
    #[arg(long = "set", value_name = "STREAM.OPTION=VALUE", value_parser = object_option)]
    pub(crate) set: Vec<(String, String, String)>,
    /// Write counts, times and sizes of the run to this file (JSON) at its end, also when it fails.
    #[arg(long, value_name = "FILE.json")]
    pub(crate) report: Option<PathBuf>,
    /// Show progress on standard error: a bar on a terminal, else a line every few seconds.
    #[arg(long, overrides_with = "no_progress")]
    pub(crate) progress: bool,
    /// Show no progress.
    #[arg(long)]
    pub(crate) no_progress: bool,
}

/// `millstream run`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunArgs {
    /// The pipeline.
    #[command(flatten)]
    pub(crate) pipeline: PipelineArgs,
    /// When epochs start: an interval such as `100ms`, `available` (what is there now, then stop) or `once` (the same as one epoch). For
    /// this start only; `SET trigger` in SQL overrules it.
    #[arg(long, value_name = "INTERVAL | available | once")]
    pub(crate) trigger: Option<String>,
}

/// `millstream serve`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServeArgs {
    /// A pipeline file that is set up first; later starts continue where the pipeline stopped.
    #[arg(value_name = "FILE.sql")]
    pub(crate) file: Option<PathBuf>,
    /// Keep state in this directory; `.millstream/<file stem>` beside the file without it.
    #[arg(long, value_name = "DIR", conflicts_with = "in_memory", required_unless_present_any = ["in_memory", "file"])]
    pub(crate) state_dir: Option<PathBuf>,
    /// Keep nothing: a stop loses all state.
    #[arg(long)]
    pub(crate) in_memory: bool,
    /// Take over the state directory from an instance that still runs there.
    #[arg(long, conflicts_with = "in_memory")]
    pub(crate) takeover: bool,
    /// Set a variable that statements of the file use as `:name` or `:'name'`.
    #[arg(short = 'v', long = "variable", value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub(crate) variables: Vec<(String, String)>,
    /// Set an option of a stream or sink in place of what the file says.
    #[arg(long = "set", value_name = "STREAM.OPTION=VALUE", value_parser = object_option)]
    pub(crate) set: Vec<(String, String, String)>,
    /// Where the PostgreSQL protocol is spoken, or `none`; 127.0.0.1:6543 unless told.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub(crate) pg: Option<ListenAt>,
    /// Where HTTP is spoken, or `none`; 127.0.0.1:8080 unless told.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub(crate) http: Option<ListenAt>,
    /// Where Arrow Flight SQL is spoken, or `none`; 127.0.0.1:8081 unless told.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub(crate) flight: Option<ListenAt>,
    /// Who may connect and what they may do (TOML; `millstream user` makes entries). Without it everybody may do everything.
    #[arg(long, value_name = "FILE")]
    pub(crate) users: Option<PathBuf>,
    /// The server's certificate and those that signed it (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// A directory (or file) that statements may name, again for each; without it that of the pipeline file. What the pipeline file names
    /// is always allowed.
    #[arg(long, value_name = "DIR")]
    pub(crate) allow_path: Vec<PathBuf>,
    /// A host that statements may name, again for each: example.org, *.example.org, 10.0.0.1:9000, s3://bucket.
    #[arg(long, value_name = "HOST")]
    pub(crate) allow_host: Vec<String>,
    /// Listen on an address that others reach without users or without TLS.
    #[arg(long)]
    pub(crate) insecure: bool,
}

/// Where a protocol is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListenAt {
    /// At this address.
    Address(SocketAddr),
    /// Nowhere.
    Nowhere,
}

/// `millstream user`.
#[derive(Debug, Clone, Args)]
pub(crate) struct UserArgs {
    /// The user's name.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// What the user may do.
    #[arg(long, value_enum)]
    pub(crate) role: UserRole,
    /// The user has no password, and so connects with a token only: over HTTP and Arrow Flight SQL.
    #[arg(long)]
    pub(crate) no_password: bool,
}

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum UserRole {
    /// Read relations.
    Reader,
    /// Change tables and push rows into streams.
    Writer,
    /// Everything.
    Admin,
}

/// `millstream replay`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReplayArgs {
    /// The pipeline.
    #[command(flatten)]
    pub(crate) pipeline: PipelineArgs,
    /// The first event time that counts, for instance `2024-05-01` or `2024-05-01T12:00:00Z`.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) from: Option<EventTime>,
    /// The first event time that no longer counts.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) to: Option<EventTime>,
    /// How fast event time passes: `max`, or a factor of real time such as `60x`.
    #[arg(long, value_name = "max | Nx", default_value = "max", value_parser = speed)]
    pub(crate) speed: Speed,
    /// How history is cut into epochs; `event-time` where every stream has a column for it, else `arrival`.
    #[arg(long, value_enum)]
    pub(crate) order: Option<ReplayOrder>,
    /// How much event time an epoch of `--order event-time` takes, of every stream the same.
    #[arg(long, value_name = "DURATION", default_value = "1 minute", value_parser = slice)]
    pub(crate) slice: Duration,
    /// The state directory whose epochs `--order log` runs again.
    #[arg(long, value_name = "STATE_DIR", required_if_eq("order", "log"), conflicts_with_all = ["from", "to", "close_windows", "speed"])]
    pub(crate) log_of: Option<PathBuf>,
    /// Close the windows that are still open at the end.
    #[arg(long)]
    pub(crate) close_windows: bool,
}

/// How a replay cuts history into epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReplayOrder {
    /// Sorted by event time and cut into slices, the same for all streams; nothing is late.
    EventTime,
    /// Files in the source's order, cut by the limits of each stream; late rows are late as configured.
    Arrival,
    /// The epochs of another state directory (`--log-of`), exactly as they were.
    Log,
}

/// How fast a replay runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Speed {
    /// As fast as it goes.
    Max,
    /// This many times real time.
    Factor(f64),
}

/// `millstream check`.
#[derive(Debug, Clone, Args)]
pub(crate) struct CheckArgs {
    /// The pipeline file.
    #[arg(value_name = "FILE.sql")]
    pub(crate) file: PathBuf,
    /// Set a variable that statements use as `:name` or `:'name'`.
    #[arg(short = 'v', long = "variable", value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub(crate) variables: Vec<(String, String)>,
    /// Set an option of a stream or sink in place of what the file says.
    #[arg(long = "set", value_name = "STREAM.OPTION=VALUE", value_parser = object_option)]
    pub(crate) set: Vec<(String, String, String)>,
}

/// `millstream verify`.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct VerifyArgs {
    /// Queries of a benchmark in place of files.
    #[command(subcommand)]
    pub(crate) suite: Option<Suite>,
    /// The pipeline files.
    #[arg(value_name = "FILE.sql", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Compare these views and sinks only.
    #[arg(long = "query", value_name = "NAME,...", value_delimiter = ',')]
    pub(crate) queries: Vec<String>,
    /// Set a variable that statements use as `:name` or `:'name'`.
    #[arg(short = 'v', long = "variable", value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub(crate) variables: Vec<(String, String)>,
    /// Set an option of a stream in place of what the file says.
    #[arg(long = "set", value_name = "STREAM.OPTION=VALUE", value_parser = object_option)]
    pub(crate) set: Vec<(String, String, String)>,
    /// What is done with the input.
    #[command(flatten)]
    pub(crate) feeding: FeedingArgs,
}

/// How `millstream verify` hands the input out.
#[derive(Debug, Clone, Args)]
pub(crate) struct FeedingArgs {
    /// How the input is cut into epochs.
    #[arg(long, value_enum, value_name = "CUT,...", value_delimiter = ',', default_value = "one,row,random")]
    pub(crate) cuts: Vec<Cut>,
    /// What the random cut and the choice of deleted rows begin with.
    #[arg(long, value_name = "N", default_value = "0")]
    pub(crate) seed: u64,
    /// Take the first rows of each stream only; without it, the row cut takes 2,000 and the others everything.
    #[arg(long, value_name = "N", value_parser = count)]
    pub(crate) rows_max: Option<u64>,
    /// Delete earlier rows: so many for each row that comes, for instance 0.1.
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = share)]
    pub(crate) deletions: f64,
    /// Leaves a row out of every incremental result, so that tests see differences found.
    #[arg(long, hide = true)]
    pub(crate) plant_difference: bool,
}

/// How the input is cut into epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cut {
    /// Everything in one epoch.
    One,
    /// One row per epoch, the streams by turns.
    Row,
    /// Epochs of random sizes, often without rows of some streams.
    Random,
}

/// Queries that `millstream verify` brings along with their data.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Suite {
    /// The 22 queries of TPC-H.
    Tpch(VerifyTpchArgs),
    /// The queries of Nexmark.
    Nexmark(VerifyNexmarkArgs),
}

/// `millstream verify tpch`.
#[derive(Debug, Clone, Args)]
pub(crate) struct VerifyTpchArgs {
    /// The queries, for instance `q1,q5`; all of them without it.
    #[arg(long, value_name = "q1,q5,...", value_delimiter = ',')]
    pub(crate) queries: Vec<String>,
    /// The scale factor of the data; 0.01 is 60,000 lines of orders, and the least at which most queries find rows.
    #[arg(long, value_name = "FACTOR", default_value = "0.01", value_parser = scale)]
    pub(crate) scale: f64,
    /// What is done with the input.
    #[command(flatten)]
    pub(crate) feeding: FeedingArgs,
}

/// `millstream verify nexmark`.
#[derive(Debug, Clone, Args)]
pub(crate) struct VerifyNexmarkArgs {
    /// The queries, for instance `q0,q7`; all of them without it.
    #[arg(long, value_name = "q0,q7,...", value_delimiter = ',')]
    pub(crate) queries: Vec<String>,
    /// Events to generate: persons, auctions and bids together.
    #[arg(long, value_name = "N", default_value = "10000", value_parser = count)]
    pub(crate) events: u64,
    /// What is done with the input.
    #[command(flatten)]
    pub(crate) feeding: FeedingArgs,
}

/// `millstream state`.
#[derive(Debug, Clone, Args)]
pub(crate) struct StateArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) action: StateAction,
}

/// What `millstream state` does.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum StateAction {
    /// List the files of a state directory with their sizes.
    Ls {
        /// The state directory.
        dir: PathBuf,
    },
    /// Show the newest epochs, the checkpoint and the catalog.
    Show {
        /// The state directory.
        dir: PathBuf,
    },
    /// Read everything and check it.
    Verify {
        /// The state directory.
        dir: PathBuf,
    },
}

/// `millstream config`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConfigArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) action: ConfigAction,
}

/// What `millstream config` does.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum ConfigAction {
    /// Print every setting, its value and where the value comes from.
    Show,
    /// Report unknown or wrong settings.
    Check,
}

/// `millstream bench`.
#[derive(Debug, Clone, Args)]
pub(crate) struct BenchArgs {
    /// The benchmark.
    #[command(subcommand)]
    pub(crate) benchmark: Benchmark,
}

/// The benchmarks.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Benchmark {
    /// Each Nexmark query incrementally and as one batch over the same Parquet files.
    Nexmark(NexmarkArgs),
    /// What an epoch of one row costs, in memory and durable, at the beginning and after many epochs.
    Epoch(EpochArgs),
    /// What an epoch costs that touches 1,000 keys, with few and with many keys in the state.
    State(StateBenchArgs),
}

/// `millstream bench state`.
#[derive(Debug, Clone, Args)]
pub(crate) struct StateBenchArgs {
    /// Only these queries. One alone is measured best: memory that an earlier one has given back lies in small pieces.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub(crate) queries: Vec<String>,
    /// Keys in the state; each query runs with each number.
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "10000,10000000", value_parser = count)]
    pub(crate) keys: Vec<u64>,
    /// Epochs that are measured.
    #[arg(long, value_name = "N", default_value = "100", value_parser = count)]
    pub(crate) epochs: u64,
    /// Commit every epoch to a state directory under this one, as `run` does; in memory unless given.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// `millstream bench epoch`.
#[derive(Debug, Clone, Args)]
pub(crate) struct EpochArgs {
    /// Epochs of each pipeline.
    #[arg(long, value_name = "N", default_value = "10000", value_parser = count)]
    pub(crate) epochs: u64,
    /// Keep state and files under this directory while it runs, to measure the disk it is on.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// `millstream bench nexmark`.
#[derive(Debug, Clone, Args)]
pub(crate) struct NexmarkArgs {
    /// The queries, for instance `q0,q1,q7`; all of them without it.
    #[arg(long, value_name = "q0,q1,...", value_delimiter = ',')]
    pub(crate) queries: Vec<String>,
    /// Events to generate: persons, auctions and bids together.
    #[arg(long, value_name = "N", default_value = "1000000", value_parser = count)]
    pub(crate) events: u64,
    /// Generate the Parquet files here and keep them; files of an earlier run with the same numbers are used again.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Events per epoch, which is one file of each stream.
    #[arg(long, value_name = "N", default_value = "100000", value_parser = count)]
    pub(crate) epoch_rows: u64,
    /// Print one JSON object per query in place of the table.
    #[arg(long)]
    pub(crate) json: bool,
    /// Do not compare the two results.
    #[arg(long)]
    pub(crate) no_compare: bool,
    /// Run each query so often both ways and print medians. They take turns: whoever is first in a process pays for its memory.
    #[arg(long, value_name = "N", default_value = "1", value_parser = count)]
    pub(crate) repeat: u64,
}

/// An address that is listened on: `127.0.0.1:6543`, or `none`.
pub(crate) fn address(text: &str) -> Result<ListenAt, String> {
    match text {
        "none" => Ok(ListenAt::Nowhere),
        text => text.parse().map(ListenAt::Address).map_err(|_| "write an address and a port such as 127.0.0.1:6543, or none".to_string()),
    }
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    let valid = name.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_') && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    if !valid {
        return Err(format!("\"{name}\" is not a variable name: letters, digits and _ only"));
    }
    // The lines of error messages stay those of the file.
    if value.contains(['\n', '\r']) {
        return Err(format!("the value of \"{name}\" holds a line break"));
    }
    Ok((name.into(), value.into()))
}

fn object_option(text: &str) -> Result<(String, String, String), String> {
    let expected = "expected STREAM.OPTION=VALUE";
    let (path, value) = text.split_once('=').ok_or(expected)?;
    let (object, option) = path.rsplit_once('.').ok_or(expected)?;
    if object.is_empty() || option.is_empty() {
        return Err(expected.into());
    }
    Ok((object.into(), option.into(), value.into()))
}

/// A duration above zero.
fn slice(text: &str) -> Result<Duration, String> {
    let slice = millstream_types::options::parse_duration(text).ok_or("expected a duration such as '1 minute'")?;
    if slice.is_zero() { Err("the slice must be longer than nothing".into()) } else { Ok(slice) }
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "expected a share such as 0.1".to_string())?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("the share must be between 0 and 1".into()) }
}

/// A scale factor that leaves rows in every table and fits into memory.
fn scale(text: &str) -> Result<f64, String> {
    let scale: f64 = text.parse().map_err(|_| "expected a factor such as 0.001".to_string())?;
    if (0.001..=1.0).contains(&scale) { Ok(scale) } else { Err("the scale must be between 0.001 and 1".into()) }
}

fn speed(text: &str) -> Result<Speed, String> {
    if text.eq_ignore_ascii_case("max") {
        return Ok(Speed::Max);
    }
    let factor: f64 = text.trim_end_matches(['x', 'X']).parse().map_err(|_| "expected max, or a factor such as 60x".to_string())?;
    if factor.is_finite() && factor > 0.0 { Ok(Speed::Factor(factor)) } else { Err("the factor must be above zero".into()) }
}

/// A point in time in ISO 8601; UTC unless it says otherwise.
fn time(text: &str) -> Result<EventTime, String> {
    let utc = string_to_datetime(&chrono::Utc, text.trim())
        .map_err(|_| "expected a time such as 2024-05-01 or 2024-05-01T12:00:00Z".to_string())?;
    Ok(EventTime(utc.timestamp_micros()))
}

/// A count such as `1000000`, `1_000_000`, `10k`, `5m`.
fn count(text: &str) -> Result<u64, String> {
    let digits = text.replace('_', "").to_lowercase();
    let (digits, factor) = match digits.strip_suffix(['k', 'm']) {
        Some(rest) if digits.ends_with('k') => (rest, 1_000),
        Some(rest) => (rest, 1_000_000),
        None => (digits.as_str(), 1),
    };
    let number: u64 = digits.parse().map_err(|_| "expected a count such as 1000000, 100k or 10m".to_string())?;
    match number.checked_mul(factor) {
        Some(0) => Err("must be at least 1".into()),
        Some(count) => Ok(count),
        None => Err("the count is too large".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("millstream").chain(args.iter().copied()))
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn bare_is_the_shell() {
        let cli = parse(&[]).unwrap();
        assert!(cli.command.is_none() && cli.script.sql.is_empty() && cli.script.file.is_none());
    }

    #[test]
    fn statements_may_be_given_several_times() {
        let cli = parse(&["-c", "SELECT 1", "-c", "SELECT 2", "--format", "json", "-v", "n=a=b"]).unwrap();
        assert_eq!(cli.script.sql, ["SELECT 1", "SELECT 2"]);
        assert_eq!(cli.global.format, Some(Format::Json));
        assert_eq!(cli.script.variables, [("n".to_string(), "a=b".to_string())]);
        assert!(parse(&["-c", "SELECT 1", "-f", "x.sql"]).is_err());
    }

    #[test]
    fn run_takes_options_of_streams() {
        let cli = parse(&["run", "p.sql", "--set", "bids.path=/x=y", "--trigger", "available", "--report", "r.json"]).unwrap();
        let Some(Command::Run(run)) = cli.command else { panic!("not run") };
        assert_eq!(run.pipeline.set, [("bids".to_string(), "path".to_string(), "/x=y".to_string())]);
        assert_eq!(run.trigger.as_deref(), Some("available"));
        assert!(parse(&["run", "p.sql", "--set", "path=/x"]).is_err());
        assert!(parse(&["run", "p.sql", "--in-memory", "--state-dir", "d"]).is_err());
    }

    #[test]
    fn verify_takes_files_or_a_suite() {
        let cli = parse(&["verify", "a.sql", "b.sql", "--cuts", "row,random", "--deletions", "0.2"]).unwrap();
        let Some(Command::Verify(verify)) = cli.command else { panic!("not verify") };
        assert_eq!((verify.files.len(), verify.feeding.cuts), (2, vec![Cut::Row, Cut::Random]));
        let cli = parse(&["verify", "tpch", "--scale", "0.01", "--rows-max", "1k"]).unwrap();
        let Some(Command::Verify(VerifyArgs { suite: Some(Suite::Tpch(tpch)), .. })) = cli.command else { panic!("not tpch") };
        assert_eq!((tpch.scale, tpch.feeding.rows_max, tpch.feeding.cuts.len()), (0.01, Some(1_000), 3));
        for wrong in [&["verify"][..], &["verify", "a.sql", "--cuts", "two"], &["verify", "tpch", "--scale", "0"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(parse(&["verify", "a.sql", "--deletions", "2"]).is_err());
    }

    #[test]
    fn times_are_utc_unless_they_say_otherwise() {
        assert_eq!(time("1970-01-02"), Ok(EventTime(86_400_000_000)));
        assert_eq!(time("1970-01-01T01:00:00+01:00"), Ok(EventTime(0)));
        assert!(time("yesterday").is_err());
    }

    #[test]
    fn speeds_and_counts() {
        assert_eq!(speed("max"), Ok(Speed::Max));
        assert_eq!(speed("60x"), Ok(Speed::Factor(60.0)));
        assert!(speed("0x").is_err() && speed("fast").is_err() && speed("NaN").is_err());
        assert_eq!(count("10m"), Ok(10_000_000));
        assert_eq!(count("100_000"), Ok(100_000));
        assert_eq!(count("5k"), Ok(5_000));
        assert!(count("0").is_err() && count("x").is_err() && count("999999999999999999m").is_err());
    }
}
