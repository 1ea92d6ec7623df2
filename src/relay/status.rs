//! What the relay says about itself: a plain snapshot for health pages, `status` and systemd.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::metrics::Measured;

/// One snapshot, published through a `tokio::sync::watch` channel.
#[derive(Debug, Clone)]
pub struct Status {
    /// What the relay is doing.
    pub phase: Phase,
    /// The connection to Postgres.
    pub postgres: Link,
    /// The connection to NATS.
    pub nats: Link,
    /// Why nothing is published just now, when a gate is closed.
    pub gate: Option<GateStatus>,
    /// Messages sent and not yet answered.
    pub in_flight: usize,
    /// Events in memory that wait for their turn.
    pub waiting: usize,
    /// What waits to be published, as last measured.
    pub measured: Measured,
    /// The fencing number of the present holding of the relay's lock; 0 before the first.
    pub term: i64,
    /// Messages that the stream has confirmed since the program started.
    pub published_total: u64,
    /// When the loop last turned.
    pub last_turn: Heartbeat,
}

impl Status {
    /// The state before anything was tried.
    pub fn starting() -> Self {
        let connecting = || Link::Connecting { detail: "not tried yet".to_owned() };
        Self {
            phase: Phase::Starting,
            postgres: connecting(),
            nats: connecting(),
            gate: None,
            in_flight: 0,
            waiting: 0,
            measured: Measured::never(Instant::now()),
            term: 0,
            published_total: 0,
            last_turn: Heartbeat::start(),
        }
    }
}

/// What the relay is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not connected to everything yet.
    Starting,
    /// Another instance holds the relay's lock; this one waits for it.
    Standby,
    /// Events flow.
    Relaying,
    /// No new work; what is in flight is being settled.
    Stopping,
    /// Done.
    Stopped,
}

impl Phase {
    /// The name in JSON and in texts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Standby => "standby",
            Self::Relaying => "relaying",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }
}

/// One connection's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// Being connected; the detail says what is waited for.
    Connecting {
        /// What is waited for, free of secrets.
        detail: String,
    },
    /// Working.
    Up,
    /// Lost or refused; the detail says why.
    Down {
        /// Why, free of secrets.
        detail: String,
    },
}

/// Why nothing is published just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateStatus {
    /// `stream_unavailable`, `misconfigured`, `permission_denied`, `broker_stalled` or
    /// `broker_regressed`.
    pub kind: &'static str,
    /// What is wrong, free of secrets.
    pub text: String,
    /// What to do about it.
    pub hint: String,
    /// When the gate closed.
    pub since: Instant,
}

/// When the loop last turned: written on every turn without waking anyone who watches the status.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    started: Instant,
    turned_ms: Arc<AtomicU64>,
}

impl Heartbeat {
    /// A heartbeat whose last turn is now.
    pub fn start() -> Self {
        Self::start_at(Instant::now())
    }

    /// A heartbeat whose last turn was at `then`.
    pub fn start_at(then: Instant) -> Self {
        Self { started: then, turned_ms: Arc::new(AtomicU64::new(0)) }
    }

    /// Notes that the loop turned at `now`.
    pub fn turn(&self, now: Instant) {
        let since_start = now.saturating_duration_since(self.started).as_millis();
        self.turned_ms.store(u64::try_from(since_start).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How long ago the loop last turned, as seen at `now`.
    pub fn age(&self, now: Instant) -> Duration {
        let turned = Duration::from_millis(self.turned_ms.load(Ordering::Relaxed));
        now.saturating_duration_since(self.started).saturating_sub(turned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeat_ages_from_the_last_turn_in_every_clone() {
        let heartbeat = Heartbeat::start();
        let start = heartbeat.started;
        let seen_elsewhere = heartbeat.clone();
        assert_eq!(seen_elsewhere.age(start + Duration::from_secs(9)), Duration::from_secs(9));
        heartbeat.turn(start + Duration::from_secs(8));
        assert_eq!(seen_elsewhere.age(start + Duration::from_secs(9)), Duration::from_secs(1));
        assert_eq!(seen_elsewhere.age(start), Duration::ZERO);
    }
}
