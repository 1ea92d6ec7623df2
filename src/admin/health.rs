//! The pages for health checks: `/livez`, whether the program lives, and `/readyz`, whether events
//! can flow.

use std::time::{Duration, Instant};

use axum::{
    Json,
    extract::{ConnectInfo, RawQuery, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};

use super::{Audience, Shown, view::ReadinessView};
use crate::{
    findings::{self, Finding},
    relay::report::status::{Phase, Status},
};

/// Longest time since the last turn of a relay's loop, exclusive. From then on `/livez` answers
/// 503. A loop turns at least every `idle_interval` (5 s), also while Postgres or NATS is down. So
/// only a loop that hangs gets the program restarted.
const TURN_MAX: Duration = Duration::from_secs(15);

/// `GET /livez`: whether the loop of every relay turns.
pub(super) async fn livez(State(shown): State<Shown>) -> Response {
    let silent = shown.flows.seen().sum().last_turn.age(Instant::now());
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
    let now = Instant::now();
    let seen = shown.flows.seen();
    let (status, findings) = (seen.sum(), seen.findings(now));
    let is_ready = findings::is_ready(&findings);
    let code = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut asked = query.as_deref().unwrap_or_default().split('&');
    if asked.any(|parameter| parameter == "verbose" || parameter.starts_with("verbose=")) {
        let view = ReadinessView::of(&status, &findings, now, audience);
        return (code, Json(view)).into_response();
    }
    (code, line(&status, &findings)).into_response()
}

/// Makes a line that says whether the instance is ready, and the code of each finding about its
/// state. It contains no host names.
fn line(status: &Status, findings: &[Finding]) -> String {
    let names = |is_obstacle: bool| {
        let codes = findings
            .iter()
            .filter(|finding| findings::is_obstacle(finding) == is_obstacle)
            .map(|finding| finding.code.as_str());
        codes.collect::<Vec<_>>().join(", ")
    };
    let (obstacles, others) = (names(true), names(false));
    let mut text = match (obstacles.is_empty(), status.phase) {
        (false, _) => format!("not ready: {obstacles}"),
        (true, Phase::Standby) => "ready: standby".to_owned(),
        (true, _) => "ready".to_owned(),
    };
    if !others.is_empty() {
        text.push_str("; see also: ");
        text.push_str(&others);
    }
    text.push('\n');
    text
}
