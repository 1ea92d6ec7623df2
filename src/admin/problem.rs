//! Errors of the API as RFC 9457 problem documents.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// The JSON body of an error answer, a problem document of RFC 9457.
#[derive(Debug, Serialize)]
pub(super) struct ProblemDetails {
    title: &'static str,
    status: u16,
    detail: String,
}

impl ProblemDetails {
    pub(super) fn not_found(path: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not found",
            format!("there is no {path}; see /livez, /readyz, /metrics and /api/v1/status"),
        )
    }

    pub(super) fn unknown_route(name: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "no such route",
            format!("there is no route {}; /api/v1/status lists them", name.escape_debug()),
        )
    }

    pub(super) fn method_not_allowed() -> Self {
        let detail = "this address only answers GET and HEAD".to_owned();
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed", detail)
    }

    pub(super) fn foreign_host() -> Self {
        let detail = "the Host header names neither localhost, the address of admin.listen nor one of admin.hosts";
        Self::new(StatusCode::MISDIRECTED_REQUEST, "not our name", detail.to_owned())
    }

    fn new(status: StatusCode, title: &'static str, detail: String) -> Self {
        Self { title, status: status.as_u16(), detail }
    }
}

impl IntoResponse for ProblemDetails {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or_default();
        let mut response = (status, Json(self)).into_response();
        let media_type = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, media_type);
        response
    }
}
