//! Whether the program lives, and whether events can flow.

use std::time::{Duration, Instant};

use axum::{
    Json,
    extract::{ConnectInfo, RawQuery, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};

use super::{Audience, Shown, view::ReadinessView};
use crate::relay::status::{Link, Phase, Status};

/// How long the loop may be silent. It turns at least every `idle_interval` (5 s), whatever
/// Postgres and NATS do, so that a restart on this helps only when nothing else will.
const TURN_MAX: Duration = Duration::from_secs(15);

/// `GET /livez`: whether the loop turns.
pub(super) async fn livez(State(shown): State<Shown>) -> Response {
    let silent = shown.status.borrow().last_turn.age(Instant::now());
    if silent < TURN_MAX {
        "ok\n".into_response()
    } else {
        let text = format!("the relay's loop last turned {} s ago\n", silent.as_secs());
        (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
    }
}

/// `GET /readyz` and `/healthz`: whether events can flow; with `?verbose` in detail.
pub(super) async fn readyz(
    State(shown): State<Shown>,
    ConnectInfo(audience): ConnectInfo<Audience>,
    RawQuery(query): RawQuery,
) -> Response {
    let status = shown.status.borrow().clone();
    let obstacles = obstacles(&status);
    let code = if obstacles.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut asked = query.as_deref().unwrap_or_default().split('&');
    if asked.any(|parameter| parameter == "verbose" || parameter.starts_with("verbose=")) {
        let view = ReadinessView::of(&status, obstacles, Instant::now(), audience);
        return (code, Json(view)).into_response();
    }
    let text = if obstacles.is_empty() {
        "ready\n".to_owned()
    } else {
        format!("not ready: {}\n", obstacles.join(", "))
    };
    (code, text).into_response()
}

/// What keeps events from flowing, in words that name no host. A standby is ready: it would relay
/// if it were let, and its connection to NATS is made when it takes over.
fn obstacles(status: &Status) -> Vec<&'static str> {
    let mut found = Vec::new();
    match status.phase {
        Phase::Starting if status.postgres == Link::Up && status.nats == Link::Up => {
            found.push("starting");
        }
        Phase::Starting | Phase::Standby | Phase::Relaying => {}
        Phase::Stopping | Phase::Stopped => found.push("stopping"),
    }
    match &status.postgres {
        Link::Up => {}
        Link::Connecting { .. } => found.push("postgres connecting"),
        Link::Down { .. } => found.push("postgres down"),
    }
    match &status.nats {
        _ if status.phase == Phase::Standby => {}
        Link::Up => {}
        Link::Connecting { .. } => found.push("nats connecting"),
        Link::Down { .. } => found.push("nats down"),
    }
    found.extend(status.gate.as_ref().map(|gate| gate.kind));
    found
}
