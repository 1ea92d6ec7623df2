//! Reads the description of a stream from its server, into types of our own.
//!
//! The time of creation is the identity of a stream. The database keeps it for years, so its form
//! must not depend on a client library: it is a number of nanoseconds since the Unix epoch.

use std::time::Duration;

use async_nats::jetstream::{
    Context, ErrorCode,
    context::RequestErrorKind,
    response::Response,
    stream::{Config, State},
};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::time::timeout;

use super::fault::{Fault, missing, unavailable};
use crate::broker::BrokerError;

/// Time that JetStream has for an answer to a request.
pub(super) const API_TIMEOUT: Duration = Duration::from_secs(5);

/// Answer to `STREAM.INFO`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct StreamInfo {
    pub(super) config: Config,
    pub(super) state: State,
    #[serde(default)]
    created: Option<String>,
    /// The JetStream domain of the server that has the stream.
    #[serde(default)]
    pub(super) domain: Option<String>,
}

impl StreamInfo {
    /// Time of the stream's creation, in nanoseconds since the Unix epoch. `None` when the server
    /// gives no time that can be read: the stream's identity is then unknown.
    pub(super) fn created_ns(&self) -> Option<i64> {
        nanoseconds(self.created.as_deref()?)
    }
}

fn nanoseconds(rfc3339: &str) -> Option<i64> {
    let created: Timestamp = rfc3339.parse().ok()?;
    i64::try_from(created.as_nanosecond()).ok()
}

/// Reads the description of a stream.
pub(super) async fn find(jetstream: &Context, name: &str) -> Result<StreamInfo, BrokerError> {
    let unavailable = |fault, reason| unavailable(name, fault, reason);
    let request = jetstream.request(format!("STREAM.INFO.{name}"), &());
    let response: Response<StreamInfo> = match timeout(API_TIMEOUT, request).await {
        Err(_) => {
            return Err(unavailable(Fault::Silent, format!("no answer within {API_TIMEOUT:?}")));
        }
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            return Err(match error.kind() {
                RequestErrorKind::NoResponders => unavailable(
                    Fault::NoJetStream,
                    "no server answers requests to JetStream".to_owned(),
                ),
                RequestErrorKind::TimedOut => {
                    unavailable(Fault::Silent, format!("no answer within {API_TIMEOUT:?}"))
                }
                RequestErrorKind::InvalidSubject | RequestErrorKind::Other => {
                    unavailable(Fault::Silent, error.to_string())
                }
            });
        }
    };
    match response {
        Response::Ok(info) => Ok(info),
        Response::Err { error } if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
            Err(missing(name))
        }
        Response::Err { error } => {
            let fault = match error.error_code() {
                ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
                    Fault::NoJetStream
                }
                _ => Fault::Answered,
            };
            Err(unavailable(fault, error.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_to_the_nanosecond_and_what_is_no_time_is_unknown() {
        let ns = nanoseconds("2026-11-26T22:55:51.123456789Z");
        assert_eq!(ns, Some(1_795_733_751_123_456_789));
        assert_eq!(nanoseconds("2026-11-27T00:55:51.123456789+02:00"), ns);
        for text in ["", "yesterday", "2026-11-26 22:55:51.123456789 +00:00:00"] {
            assert_eq!(nanoseconds(text), None, "{text}");
        }
    }
}
