//! The HTTP listener: health, metrics and state. No event passes through it, and no request changes
//! anything.
//!
//! | path | answer |
//! |---|---|
//! | `/livez` | 200 while the loop of every relay turns; asks neither Postgres nor NATS |
//! | `/readyz`, `/healthz` | 200 while events can flow, else 503 with the findings; `?verbose` as JSON |
//! | `/metrics` | all of [`crate::metrics`] |
//! | `/api/v1/status` | the state of every route and their sum as JSON; `?route=NAME` shows one |

mod guard;
mod health;
mod listener;
mod problem;
mod view;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::{ConnectInfo, RawQuery, State, connect_info::Connected},
    http::{Uri, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
    serve::IncomingStream,
};
use tokio_util::sync::CancellationToken;

pub use listener::{AdminError, Listener, bind};
use problem::ProblemDetails;

use crate::{
    metrics::{CONTENT_TYPE, ProgramMetrics},
    relay::report::flows::Flows,
};

/// The wait between two attempts to bind the address of the HTTP listener.
const BIND_AGAIN: Duration = Duration::from_secs(1);

/// Interval between two warnings that the address of the HTTP listener cannot be bound.
const REMIND: Duration = Duration::from_mins(1);

/// The state that the pages show.
#[derive(Clone)]
struct Shown {
    flows: Flows,
    program: Arc<ProgramMetrics>,
}

/// The client that asks for a page, by its place. Host names and error texts of servers are shown
/// to clients on this machine only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Audience {
    Local,
    Remote,
}

impl Connected<IncomingStream<'_, Listener>> for Audience {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        if stream.remote_addr().ip().to_canonical().is_loopback() {
            Self::Local
        } else {
            Self::Remote
        }
    }
}

/// Answers requests until `shutdown`, then finishes the answers that it has begun. An address that
/// cannot be bound is tried again and logged as a warning, because events flow without it.
pub async fn serve(
    mut bound: Result<Listener, AdminError>,
    address: SocketAddr,
    hosts: Vec<String>,
    (flows, program): (Flows, Arc<ProgramMetrics>),
    shutdown: CancellationToken,
) {
    let mut warned: Option<Instant> = None;
    let listener = loop {
        let error = match bound {
            Ok(listener) => break listener,
            Err(error) => error,
        };
        if warned.is_none_or(|at| at.elapsed() >= REMIND) {
            warned = Some(Instant::now());
            tracing::warn!(
                "the admin listener cannot listen, so health and metrics are not served; trying again, while relaying goes on: {error}"
            );
        }
        tokio::select! {
            () = tokio::time::sleep(BIND_AGAIN) => {}
            () = shutdown.cancelled() => return,
        }
        bound = bind(address).await;
    };
    tracing::info!(address = %listener.address(), "the admin listener serves health and metrics");
    let names = guard::HostNames::of(listener.address(), &hosts);
    let service =
        router(names, Shown { flows, program }).into_make_service_with_connect_info::<Audience>();
    let server = axum::serve(listener, service).with_graceful_shutdown(shutdown.cancelled_owned());
    // The HTTP server never fails, because its listener retries. But its return type has an error,
    // which would be logged.
    if let Err(error) = server.await {
        tracing::error!(%error, "the admin listener ended; health and metrics are not served any more, while relaying goes on");
    }
}

fn router(names: guard::HostNames, shown: Shown) -> Router {
    Router::new()
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/healthz", get(health::readyz))
        .route("/metrics", get(metrics))
        .route("/api/v1/status", get(status))
        .fallback(not_found)
        .method_not_allowed_fallback(|| async { ProblemDetails::method_not_allowed() })
        .layer(middleware::from_fn_with_state(names, guard::check))
        .with_state(shown)
}

async fn metrics(State(shown): State<Shown>) -> Response {
    let now = Instant::now();
    for flow in &shown.flows.0 {
        let findings = flow.status.borrow().findings(now);
        let codes: Vec<_> = findings.iter().map(|finding| finding.code).collect();
        flow.metrics.chores.found(&codes);
    }
    let page = shown.program.encode(shown.flows.0.iter().map(|flow| flow.metrics.as_ref()));
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], page).into_response()
}

/// Answers with the state of every route, or with `?route=NAME` of that route.
async fn status(
    State(shown): State<Shown>,
    ConnectInfo(audience): ConnectInfo<Audience>,
    RawQuery(query): RawQuery,
) -> Result<Json<view::StatusView>, ProblemDetails> {
    let mut seen = shown.flows.seen();
    let mut asked = query.as_deref().unwrap_or_default().split('&');
    if let Some(name) = asked.find_map(|pair| pair.strip_prefix("route=")) {
        seen.0.retain(|(route, _)| route == name);
        if seen.0.is_empty() {
            return Err(ProblemDetails::unknown_route(name));
        }
    }
    Ok(Json(view::StatusView::of(&seen, Instant::now(), audience)))
}

async fn not_found(uri: Uri) -> ProblemDetails {
    ProblemDetails::not_found(uri.path())
}

#[cfg(test)]
mod tests;
