//! Readiness: whether messages may be handed over now. It is decided here and nowhere else.

use std::time::Instant;

use crate::{
    findings::Code,
    relay::{holding::Holding, log::BrokerLog},
};

/// Readiness to hand messages over, or the first condition that keeps all of them back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Messages may be handed over.
    Ready,
    /// No connection to the broker.
    Disconnected,
    /// The log has not been verified since the connection was made.
    Unverified,
    /// The log is scanned for events that may have been published before.
    Scanning,
    /// The session with Postgres has ended; another one is being opened.
    SessionEnded,
    /// The lease is valid, and the database has not been heard from for a while: it is asked before
    /// the next message goes. An idle leader is in this state most of the time.
    LeaseUnheard,
    /// The trust in the lease has ended, so another instance may lead.
    LeaseUnconfirmed,
    /// The publishing gate is closed. Only single messages are sent, as probes.
    GateClosed,
}

impl Readiness {
    /// Readiness at `now`.
    ///
    /// The end of the session or of the trust comes before the conditions of the broker. A lost
    /// connection to the broker shows elsewhere too; that Postgres is silent shows only here.
    pub(in crate::relay) fn of(log: &BrokerLog, holding: &Holding, now: Instant) -> Self {
        if holding.outbox.is_closed() {
            Self::SessionEnded
        } else if now >= holding.lease.trusted_until() {
            Self::LeaseUnconfirmed
        } else if let Some(obstacle) = log.obstacle() {
            obstacle
        } else if !holding.lease.is_trusted(now) {
            Self::LeaseUnheard
        } else if holding.delivery.breaker().cause().is_some() {
            Self::GateClosed
        } else {
            Self::Ready
        }
    }

    /// Name of the condition in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Disconnected => "disconnected",
            Self::Unverified => "unverified",
            Self::Scanning => "scanning",
            Self::SessionEnded => "session_ended",
            Self::LeaseUnheard => "lease_unheard",
            Self::LeaseUnconfirmed => "lease_unconfirmed",
            Self::GateClosed => "gate_closed",
        }
    }

    /// Code and cause of the finding for a condition that lasts and that no other finding explains;
    /// `None` when messages may go.
    pub fn finding(self) -> Option<(Code, &'static str)> {
        match self {
            Self::Ready | Self::LeaseUnheard => None,
            Self::Disconnected => Some((Code::NatsDown, "no connection to the broker")),
            Self::Unverified => Some((
                Code::StreamUnavailable,
                "the broker has not answered what its stream is like",
            )),
            Self::Scanning => {
                Some((Code::Scanning, "the stream is scanned for what was published before"))
            }
            Self::SessionEnded => Some((Code::PostgresDown, "the session with Postgres has ended")),
            Self::LeaseUnconfirmed => {
                Some((Code::PostgresDown, "Postgres has not confirmed the lease in time"))
            }
            Self::GateClosed => Some((Code::Other, "the publishing gate is closed")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::{self, Closed, LinkState, RelayFacts, Role, UNREADY_SECONDS, Unready};

    const ALL: [Readiness; 8] = [
        Readiness::Ready,
        Readiness::Disconnected,
        Readiness::Unverified,
        Readiness::Scanning,
        Readiness::SessionEnded,
        Readiness::LeaseUnheard,
        Readiness::LeaseUnconfirmed,
        Readiness::GateClosed,
    ];

    /// Facts about a leader that hands nothing over, without any other fault.
    fn facts(readiness: Readiness, seconds: f64) -> RelayFacts {
        let unready = readiness.finding().map(|(code, cause)| Unready { code, cause, seconds });
        let (postgres, nats) = (LinkState::Up, LinkState::Up);
        RelayFacts { role: Role::Leading, postgres, nats, unready, ..RelayFacts::default() }
    }

    #[test]
    fn a_condition_that_lasts_makes_an_instance_unready_whatever_else_is_known() {
        for readiness in ALL {
            let found = findings::of(&facts(readiness, UNREADY_SECONDS));
            let code = readiness.finding().map(|(code, _)| code);
            assert_eq!(found.first().map(|it| it.code), code, "{readiness:?}");
            assert_eq!(findings::is_ready(&found), code.is_none(), "{readiness:?}");
            assert_eq!(findings::of(&facts(readiness, UNREADY_SECONDS - 0.1)), [], "{readiness:?}");
        }
    }

    #[test]
    fn a_finding_that_says_more_stands_alone() {
        let (kind, text) = ("store_stalled".to_owned(), "publishes stay unanswered".to_owned());
        let gate = Some(Closed { kind, text, hint: "check the disk".to_owned() });
        let found = findings::of(&RelayFacts { gate, ..facts(Readiness::GateClosed, 60.0) });
        assert_eq!(found.iter().map(|it| it.code).collect::<Vec<_>>(), [Code::StoreStalled]);
    }
}
