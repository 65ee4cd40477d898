//! The `millstream` program: shell, script runner, pipeline runner, benchmark.
//!
//! | file | for |
//! | --- | --- |
//! | `args.rs`, `settings.rs` | the command line; configuration file and environment |
//! | `script.rs`, `shell/` | statements from `-c`, files and standard input; the interactive shell |
//! | `connect.rs`, `connection/` | `--connect`: the same against a server |
//! | `serve.rs`, `user.rs`, `users_file.rs`, `reach.rs`, `notify.rs` | the query service: its users, what statements reach, what the service manager is told |
//! | `run.rs`, `replay/`, `check.rs`, `verify/`, `pipeline_file.rs`, `repoint.rs` | pipeline files |
//! | `present.rs`, `output/`, `live/` | results: formats, and views that follow changes |
//! | `progress.rs`, `message.rs`, `logging.rs`, `failure.rs` | standard error and exit codes |
//! | `telemetry.rs` | spans and metrics for a collector |
//! | `state.rs`, `bench/`, `canonical.rs`, `config_command.rs` | tools; rows made comparable |
//!
//! Nothing here knows how a query is executed: that is `millstream-engine`.

mod args;
mod bench;
mod canonical;
mod check;
mod config_command;
mod connect;
mod connection;
mod engine_setup;
mod failure;
mod huge_pages;
mod interrupt;
mod live;
mod logging;
mod memory;
mod message;
mod notify;
mod numbers;
mod output;
mod pipeline_file;
mod present;
mod progress;
mod reach;
mod readers;
mod replay;
mod repoint;
mod run;
mod script;
mod serve;
mod settings;
mod shell;
mod state;
mod telemetry;
mod terminal;
mod user;
mod users_file;
mod verify;
mod version;

use args::{Benchmark, Cli, Command, LogFormat, ScriptArgs};
use clap::{CommandFactory, Parser};
use connection::Connection;
use failure::{DONE, Failure};
use millstream_engine::Trigger;
use present::Presenter;
use script::Script;
use settings::Settings;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Stack of each thread. A statement may be [`millstream_sql::depth::DEPTH_MAX`] levels deep, and planning it takes some tens of KB for
/// each in a debug build. Only what is used takes memory.
const STACK_SIZE: usize = 64 * 1024 * 1024;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match std::thread::Builder::new().name("main".into()).stack_size(STACK_SIZE).spawn(move || program(cli)) {
        Ok(program) => program.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        Err(error) => ExitCode::from(failure::report(&error.into())),
    }
}

fn program(cli: Cli) -> ExitCode {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = match builder.worker_threads(workers()).thread_stack_size(STACK_SIZE).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return ExitCode::from(failure::report(&error.into())),
    };
    let code = match runtime.block_on(dispatch(cli)) {
        Ok(code) => code,
        Err(error) => failure::report(&error),
    };
    // Readers of sockets and terminals may be blocked in a system call; nobody waits for them.
    runtime.shutdown_background();
    ExitCode::from(code)
}

/// Threads that run tasks. Two at least: a statement that computes without a pause must not keep signals from being seen.
fn workers() -> usize {
    millstream_types::cores().max(2)
}

async fn dispatch(cli: Cli) -> anyhow::Result<u8> {
    // For crash tests, which run the very program that users run.
    millstream_state::failpoint::init_from_env()?;
    huge_pages::only_when_large();
    let settings = settings::load(cli.global.config.as_deref())?;
    // A service logs what is worth a look; everything else tells its user directly.
    let is_service = matches!(cli.command, Some(Command::Run(_) | Command::Replay(_) | Command::Serve(_)));
    let default = if is_service { "warn" } else { "off" };
    let filter = cli.global.log.clone().or_else(|| settings.log_filter.clone()).unwrap_or_else(|| default.into());
    // Commands that end by themselves at once have nothing to tell a collector.
    let spans = if is_service { telemetry::start(&settings)? } else { None };
    logging::start(&filter, cli.global.log_format.or(settings.log_format).unwrap_or(LogFormat::Text), spans)?;
    let done = command(cli, &settings).await;
    // Who has asked twice for the end does not wait for a collector.
    if !matches!(&done, Err(error) if error.downcast_ref::<Failure>().is_some_and(|failure| failure.message.is_empty())) {
        telemetry::stop().await;
    }
    done
}

/// Carries out the command.
async fn command(cli: Cli, settings: &Settings) -> anyhow::Result<u8> {
    let global = cli.global;
    let Some(command) = cli.command else { return statements(cli.script, &global, settings).await };
    if !cli.script.sql.is_empty() || cli.script.file.is_some() {
        return Err(Failure::usage("-c and -f go without a command\nhint: millstream run FILE.sql runs a pipeline file.").into());
    }
    match command {
        Command::Run(args) => run::run(args, &global, settings).await,
        Command::Serve(args) => serve::serve(args, &global, settings).await,
        Command::User(args) => user::user(&args),
        Command::Replay(args) => replay::replay(args, &global, settings).await,
        Command::Check(args) => check::check(args, &global, settings).await,
        Command::Verify(args) => verify::verify(args, &global, settings).await,
        Command::State(args) => state::state(&args.action),
        Command::Bench(args) => match args.benchmark {
            Benchmark::Nexmark(args) => bench::nexmark::nexmark(args, settings).await,
            Benchmark::Epoch(args) => bench::epoch(args, settings).await,
            Benchmark::State(args) => bench::state(args, settings).await,
        },
        Command::Config(args) => config_command::run(args.action, settings).await,
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "millstream", &mut text);
            std::io::stdout().lock().write_all(&text)?;
            Ok(DONE)
        }
        Command::Man => {
            let mut text = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut text)?;
            std::io::stdout().lock().write_all(&text)?;
            Ok(DONE)
        }
    }
}

/// Whether an object of this kind is kept up to date.
fn is_query(kind: &str) -> bool {
    matches!(kind, "materialized view" | "sink")
}

/// Without a command: the shell on a terminal, else a script.
async fn statements(args: ScriptArgs, global: &args::GlobalArgs, settings: &Settings) -> anyhow::Result<u8> {
    let script = if let Some(file) = &args.file {
        Some(Script::read(file)?)
    } else if !args.sql.is_empty() {
        Some(Script { text: args.sql.join(";\n"), name: None })
    } else if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        None
    } else {
        Some(Script::read(Path::new("-"))?)
    };
    let variables: std::collections::BTreeMap<String, String> = args.variables.into_iter().collect();
    let script = script.map(|script| Script { text: millstream_sql::variables::substitute(&script.text, &variables), ..script });
    let mut presenter = Presenter::new(settings, global.format, global.quiet, script.is_none());
    if let Some(address) = &args.connect {
        let connection = Connection::Remote(connect::connect(address).await?);
        return match script {
            None => shell::run(connection, presenter, settings, variables).await,
            Some(script) => script::run_at(&connection, &mut presenter, &script).await,
        };
    }
    let mut builder = engine_setup::builder(settings).takeover(args.takeover);
    if let Some(dir) = &args.state_dir {
        builder = builder.state_dir(dir);
    }
    let engine = engine_setup::build(builder).await?;
    if matches!(script::trigger(&engine), Some(Trigger::Interval(_))) && engine.catalog().iter().any(|entry| is_query(entry.kind)) {
        // What an earlier run has defined goes on.
        engine.start().await?;
    }
    match script {
        None => shell::run(Connection::Local(engine.session()), presenter, settings, variables).await,
        Some(script) => script::run(&engine, &mut presenter, &script).await,
    }
}
