//! `millstream serve`: a pipeline that clients talk to over the PostgreSQL protocol, Arrow Flight SQL and HTTP, until it is stopped.
//!
//! The pipeline file is set up as `run` does it; without one, the pipeline is what the state directory holds, or nothing yet. A query that
//! fails costs only itself (`on_query_failure = 'isolate'` unless the settings say otherwise). The first SIGINT or SIGTERM ends the
//! service in good order: no new connections, some seconds for what runs, then a checkpoint; a second one ends the process at once.

use crate::args::{GlobalArgs, ListenAt, PipelineArgs, ServeArgs};
use crate::engine_setup;
use crate::failure::{DONE, Failure};
use crate::interrupt::Interrupts;
use crate::message;
use crate::notify::Notify;
use crate::pipeline_file;
use crate::present::Presenter;
use crate::reach;
use crate::readers::Readers;
use crate::script;
use crate::settings::Settings;
use crate::telemetry;
use crate::users_file::UsersFile;
use millstream_engine::{Engine, EngineError, Stop, Trigger};
use millstream_server::{Config, Limits, Server, ServerError, TlsFiles, UserEntry};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Serves.
///
/// # Errors
/// A usage error for a configuration that is not safe or not right, a script failure for the file, or the error that stopped the pipeline.
pub(crate) async fn serve(args: ServeArgs, global: &GlobalArgs, settings: &Settings) -> anyhow::Result<u8> {
    let users_file = args.users.as_ref().or(settings.serve.users.as_ref());
    let (mut followed, users) = match users_file {
        Some(path) => UsersFile::read(path).map(|(file, users)| (Some(file), users))?,
        None => (None, Vec::new()),
    };
    let config = config(&args, settings, users)?;
    let pipeline = PipelineArgs {
        file: args.file.clone().unwrap_or_default(),
        state_dir: args.state_dir,
        in_memory: args.in_memory,
        takeover: args.takeover,
        variables: args.variables,
        set: args.set,
        report: None,
        progress: false,
        no_progress: true,
    };
    let script = match &args.file {
        Some(file) => Some(pipeline_file::read(file, &pipeline.variables, &pipeline.set)?),
        None => None,
    };
    let default_dir = args.file.as_deref().map(pipeline_file::default_state_dir);
    let mut builder = pipeline_file::builder(&pipeline, settings, default_dir, global.quiet);
    if !settings.pipeline.contains_key("on_query_failure") {
        builder = builder.option("on_query_failure", "isolate");
    }
    let key = args.tls_key.as_ref().or(settings.serve.tls_key.as_ref());
    let flags = (!args.allow_path.is_empty()).then(|| args.allow_path.clone());
    let given = reach::Given {
        paths: flags.or_else(|| settings.serve.allow_path.clone()),
        hosts: match args.allow_host.is_empty() {
            false => args.allow_host.clone(),
            true => settings.serve.allow_host.clone().unwrap_or_default(),
        },
        file: args.file.as_deref().zip(script.as_ref()),
        state_dir: pipeline.state_dir.as_deref(),
        closed: users_file.into_iter().chain(key).map(PathBuf::as_path).collect(),
    };
    builder = builder.reach(reach::reach(given)?);
    let readers = Readers::start(crate::workers())?;
    if let Some(runtime) = readers.handle() {
        builder = builder.readers(runtime);
    }
    let notify = Notify::from_env();
    let mut interrupts = Interrupts::watch()?;
    let engine = engine_setup::build(builder).await?;
    if let Some(script) = &script {
        let presenter = Presenter::new(settings, global.format, global.quiet, false);
        let file = pipeline_file::apply_shared(&engine, script, &presenter).await?;
        if let Some((position, _)) = file.queries.first()
            && !global.quiet
        {
            message::line(&format!(
                "notice: the query on line {} of the file is not run; clients of the server run queries",
                position.line
            ));
        }
    }
    let work = tokio::spawn(start(engine.clone()));
    let tls = config.tls.is_some();
    let server = Server::start(engine.clone(), config).await.map_err(|error| usage(&error))?;
    telemetry::observe(&engine, Some(server.metrics())).await;
    if !global.quiet {
        announce(&server, tls);
    }
    notify.ready(&status(&server));
    let outcome = tokio::select! {
        stopped = watch(&engine) => Err(stopped),
        _ = interrupts.next() => Ok(()),
        never = follow(&mut followed, &server) => match never {},
    };
    work.abort();
    notify.stopping();
    if outcome.is_ok() && !global.quiet {
        message::line("stopping: what runs is finished (again: at once)");
    }
    let ended = async {
        server.stop().await;
        match outcome {
            Ok(()) => script::stop(&engine).await,
            Err(error) => Err(Failure::failed(engine_setup::with_hint(&error)).into()),
        }
    };
    tokio::select! {
        ended = ended => ended.map(|()| DONE),
        interrupt = interrupts.next() => {
            // The caller leaves the process right after; nothing is waited for.
            let _ = tokio::time::timeout(Duration::from_millis(100), engine.stop(Stop::Now)).await;
            Err(Failure::silent(interrupt.code()).into())
        }
    }
}

/// Starts the clock where there is something to run. What is made later starts it by itself.
async fn start(engine: Engine) -> Result<(), EngineError> {
    if !engine.catalog().iter().any(|entry| matches!(entry.kind, "materialized view" | "sink")) {
        return Ok(());
    }
    match script::trigger(&engine).unwrap_or_default() {
        Trigger::Available => engine.drain().await,
        Trigger::Once => engine.drain_once().await,
        Trigger::Interval(_) => engine.start().await,
    }
}

/// Returns when the pipeline has failed. One that someone stopped is served on: what it holds can be read.
async fn watch(engine: &Engine) -> EngineError {
    match engine.await_stop().await {
        Err(error) => error,
        Ok(()) => std::future::pending().await,
    }
}

/// Keeps the users of a server as the users file has them.
async fn follow(file: &mut Option<UsersFile>, server: &Server) -> Infallible {
    match file {
        Some(file) => file.follow(server).await,
        None => std::future::pending().await,
    }
}

/// What is served where, for the service manager.
fn status(server: &Server) -> String {
    let pg = server.pg_address().map(|address| format!("PostgreSQL at {address}"));
    let http = server.http_address().map(|address| format!("HTTP at {address}"));
    let flight = server.flight_address().map(|address| format!("Arrow Flight SQL at {address}"));
    pg.into_iter().chain(flight).chain(http).collect::<Vec<_>>().join(", ")
}

fn announce(server: &Server, tls: bool) {
    if let Some(address) = server.pg_address() {
        message::line(&format!("serving PostgreSQL at {address}: psql \"host={} port={}\"", address.ip(), address.port()));
    }
    if let Some(address) = server.http_address() {
        message::line(&format!("serving HTTP at http://{address}"));
    }
    if let Some(address) = server.flight_address() {
        let scheme = if tls { "grpc+tls" } else { "grpc" };
        message::line(&format!("serving Arrow Flight SQL at {scheme}://{address}"));
    }
}

/// The configuration: flags, then settings, then defaults.
fn config(args: &ServeArgs, settings: &Settings, users: Vec<UserEntry>) -> Result<Config, Failure> {
    let serve = &settings.serve;
    let at = |flag: Option<ListenAt>, setting: Option<ListenAt>, port: u16| match flag.or(setting) {
        Some(ListenAt::Nowhere) => None,
        Some(ListenAt::Address(address)) => Some(address),
        None => Some(SocketAddr::from(([127, 0, 0, 1], port))),
    };
    let certificate = args.tls_cert.clone().or_else(|| serve.tls_cert.clone());
    let key = args.tls_key.clone().or_else(|| serve.tls_key.clone());
    let tls = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key }),
        (None, None) => None,
        _ => return Err(Failure::usage("a certificate and its key belong together\nhint: Give both serve.tls_cert and serve.tls_key.")),
    };
    let defaults = Limits::default();
    let message_bytes = serve.message_bytes.unwrap_or(defaults.message_bytes);
    let limits = Limits {
        connections: serve.connections.unwrap_or(defaults.connections),
        message_bytes,
        memory: serve.memory,
        rows: serve.rows,
        body_bytes: serve.message_bytes.unwrap_or(defaults.body_bytes),
        statement_timeout: serve.statement_timeout.unwrap_or(defaults.statement_timeout),
        grace: serve.stop_timeout.unwrap_or(defaults.grace),
        ..defaults
    };
    Ok(Config {
        pg: at(args.pg, serve.pg, 6543),
        http: at(args.http, serve.http, 8080),
        flight: at(args.flight, serve.flight, 8081),
        users,
        tls,
        insecure: args.insecure || serve.insecure.unwrap_or(false),
        limits,
    })
}

fn usage(error: &ServerError) -> Failure {
    let hint = error.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
    let message = format!("{error}{hint}");
    match error {
        ServerError::Listen { .. } => Failure::failed(message),
        ServerError::Configuration { .. } => Failure::usage(message),
    }
}
