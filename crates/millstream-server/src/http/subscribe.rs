//! `GET /api/v1/subscribe?query=..`: the changes of a query as server-sent events.
//!
//! ```text
//!   event: change          one event per row: {"epoch":12,"op":"+I", the columns ..}
//!   event: progress        id: 12        everything of epoch 12 has been sent
//!   event: reset           forget what you have: the rows that follow are all there are
//! ```
//! A client that comes back names the last epoch it has in full (`Last-Event-ID`, which browsers send by themselves). If nothing has been
//! committed since, or the query reads materialized views that still have their history since, it goes on from there; otherwise it gets
//! `reset` and the rows the query has now. Ids are on `progress` alone, so that a connection that breaks within an epoch does not lose the
//! rest of it. A client that reads too slowly, or whose user may not read this any more, is cut off with `error`.

use super::body::json_lines;
use super::counted;
use super::failure::{ErrorBody, Failure};
use crate::admission::UserConnection;
use crate::aside::aside;
use crate::error::{RequestError, codes};
use crate::service::Service;
use crate::users::User;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::Stream;
use millstream_engine::{Change, EngineError, Output, Subscription};
use millstream_sql::Statement;
use millstream_sql::statement::{Emit, Subscribe, SubscribeSource};
use serde::Deserialize;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use utoipa::IntoParams;

/// How often a comment keeps the connection open where nothing happens.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What is followed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameters {
    /// A query, or a SUBSCRIBE statement.
    query: String,
    /// Begin with the rows the query has now; true unless told.
    #[serde(default = "yes")]
    snapshot: bool,
    /// The last epoch the client has in full, for clients that cannot set `Last-Event-ID`.
    last_event_id: Option<u64>,
}

fn yes() -> bool {
    true
}

/// Follows a query.
#[utoipa::path(
    get,
    path = "/api/v1/subscribe",
    params(Parameters),
    responses(
        (status = 200, description = "events `change`, `progress`, `reset`, `error`", content_type = "text/event-stream", body = String),
        (status = 400, description = "the query is wrong", body = ErrorBody),
        (status = 401, description = "no user", body = ErrorBody),
        (status = 429, description = "the user has as many connections as they may", body = ErrorBody),
    ),
    security(("token" = []), ("password" = []))
)]
pub(super) async fn subscribe(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    Query(parameters): Query<Parameters>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Failure> {
    let (user, counted) = counted(&service, &headers)?;
    let statement = following(&parameters)?;
    let header = headers.get("last-event-id").and_then(|id| id.to_str().ok()).and_then(|id| id.trim().parse().ok());
    let last: Option<u64> = header.or(parameters.last_event_id);
    let resumed = match last.and_then(|last| from_epoch(&statement, last)) {
        // What has no history, or none that goes back so far, begins anew.
        Some(resuming) => started(&service, &user, resuming).await.ok(),
        None => None,
    };
    let mut waiting = Vec::new();
    let (subscription, skips_snapshot) = match resumed {
        Some(subscription) => (subscription, true),
        None => {
            let subscription = started(&service, &user, statement).await?;
            let goes_on = last == Some(subscription.epoch().0);
            if last.is_some() && !goes_on {
                waiting.push(Event::default().event("reset").data("{}"));
            }
            (subscription, goes_on)
        }
    };
    let state = Following { service, subscription: Some(subscription), waiting, skips_snapshot, _counted: counted };
    Ok(Sse::new(futures::stream::unfold(state, |mut state| async move {
        let event = state.next().await?;
        Some((Ok(event), state))
    }))
    .keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// Begins to follow.
async fn started(service: &Arc<Service>, user: &User, statement: Statement) -> Result<Subscription, Failure> {
    let session = service.session(user);
    let result = aside(async move { session.execute_parsed(statement).await }).await.map_err(RequestError::from)?;
    match result.output {
        Output::Changes(subscription) => Ok(subscription),
        _ => Err(EngineError::Internal("a subscription without changes".into()).into()),
    }
}

/// The same subscription from what came after an epoch, unless it says itself where it begins.
fn from_epoch(statement: &Statement, epoch: u64) -> Option<Statement> {
    match statement {
        Statement::Subscribe(subscribe) if subscribe.as_of.is_none() => {
            Some(Statement::Subscribe(Subscribe { as_of: Some(epoch), snapshot: false, ..subscribe.clone() }))
        }
        _ => None,
    }
}

/// The statement that follows what the parameters say.
fn following(parameters: &Parameters) -> Result<Statement, RequestError> {
    match millstream_sql::parse_statement(&parameters.query)? {
        Statement::Query(query) if query.emit == Emit::None => {
            let source = SubscribeSource::Query(query.query);
            Ok(Statement::Subscribe(Subscribe { source, snapshot: parameters.snapshot, progress: true, as_of: None, up_to: None }))
        }
        Statement::Subscribe(subscribe) => {
            Ok(Statement::Subscribe(Subscribe { snapshot: subscribe.snapshot && parameters.snapshot, progress: true, ..subscribe }))
        }
        Statement::Query(query) => Ok(Statement::Query(query)),
        _ => Err(RequestError::new(
            codes::NOT_SUPPORTED,
            "a query or a SUBSCRIBE statement is followed",
            "Statements go to POST /api/v1/sql.",
        )),
    }
}

/// A subscription on its way to a client.
struct Following {
    service: Arc<Service>,
    subscription: Option<Subscription>,
    /// Events that come next, the last one first.
    waiting: Vec<Event>,
    skips_snapshot: bool,
    _counted: UserConnection,
}

impl Following {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.waiting.pop() {
                return Some(event);
            }
            let subscription = self.subscription.as_mut()?;
            let change = tokio::select! {
                change = subscription.next() => change?,
                () = self.service.stopping.cancelled() => return None,
            };
            match change.and_then(|change| Ok(self.events(&change)?)) {
                Ok(events) => self.waiting = events,
                Err(error) => {
                    self.subscription = None;
                    let body = serde_json::to_string(&ErrorBody::from(RequestError::from(error))).unwrap_or_default();
                    return Some(Event::default().event("error").data(body));
                }
            }
        }
    }

    /// The events of a change, the last one first.
    fn events(&self, change: &Change) -> Result<Vec<Event>, arrow::error::ArrowError> {
        if change.progress {
            let id = change.epoch.0.to_string();
            return Ok(vec![Event::default().event("progress").data(format!("{{\"epoch\":{id}}}")).id(id)]);
        }
        if change.snapshot && self.skips_snapshot {
            return Ok(Vec::new());
        }
        let lines = json_lines(&change.log_rows()?)?;
        let text = String::from_utf8_lossy(&lines);
        Ok(text.lines().rev().map(|line| Event::default().event("change").data(line)).collect())
    }
}
