//! The HTTP listener: health, metrics and state. Off the data path, and without effects.
//!
//! | path | answer |
//! |---|---|
//! | `/livez` | 200 while the relay's loop turns; asks neither Postgres nor NATS |
//! | `/readyz`, `/healthz` | 200 while events can flow, else 503 with the findings; `?verbose` as JSON |
//! | `/metrics` | all of [`crate::metrics`] |
//! | `/api/v1/status` | the relay's state as JSON |

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
    extract::{ConnectInfo, State, connect_info::Connected},
    http::{Uri, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
    serve::IncomingStream,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use listener::{AdminError, Listener, bind};
use problem::Problem;

use crate::{
    metrics::{CONTENT_TYPE, Metrics},
    relay::status::Status,
};

/// The wait between attempts to bind the address.
const BIND_AGAIN: Duration = Duration::from_secs(1);

/// How often it is said again that the address cannot be bound.
const REMIND: Duration = Duration::from_mins(1);

/// What the pages show.
#[derive(Clone)]
struct Shown {
    status: watch::Receiver<Status>,
    metrics: Arc<Metrics>,
}

/// Who asks. Names of hosts and the words of servers are for people on this machine.
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

/// Answers until `shutdown`, then ends what is being answered. An address that cannot be bound is
/// tried again and warned of: events flow without it.
pub async fn serve(
    mut bound: Result<Listener, AdminError>,
    address: SocketAddr,
    hosts: Vec<String>,
    (status, metrics): (watch::Receiver<Status>, Arc<Metrics>),
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
            tracing::warn!("no health and metrics; trying again, and relaying goes on: {error}");
        }
        tokio::select! {
            () = tokio::time::sleep(BIND_AGAIN) => {}
            () = shutdown.cancelled() => return,
        }
        bound = bind(address).await;
    };
    tracing::info!(address = %listener.address(), "admin listener");
    let names = guard::Names::of(listener.address(), &hosts);
    let service =
        router(names, Shown { status, metrics }).into_make_service_with_connect_info::<Audience>();
    let server = axum::serve(listener, service).with_graceful_shutdown(shutdown.cancelled_owned());
    // Its type has an error for the sake of others; the listener retries and this never fails.
    if let Err(error) = server.await {
        tracing::error!(%error, "the admin listener ended");
    }
}

fn router(names: guard::Names, shown: Shown) -> Router {
    Router::new()
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/healthz", get(health::readyz))
        .route("/metrics", get(metrics))
        .route("/api/v1/status", get(status))
        .fallback(not_found)
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(middleware::from_fn_with_state(names, guard::check))
        .with_state(shown)
}

async fn metrics(State(shown): State<Shown>) -> Response {
    let findings = shown.status.borrow().findings(Instant::now());
    let codes: Vec<_> = findings.iter().map(|finding| finding.code).collect();
    shown.metrics.chores.found(&codes);
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], shown.metrics.encode()).into_response()
}

async fn status(
    State(shown): State<Shown>,
    ConnectInfo(audience): ConnectInfo<Audience>,
) -> Json<view::StatusView> {
    Json(view::StatusView::of(&shown.status.borrow(), Instant::now(), audience))
}

async fn not_found(uri: Uri) -> Problem {
    Problem::not_found(uri.path())
}

#[cfg(test)]
mod tests;
