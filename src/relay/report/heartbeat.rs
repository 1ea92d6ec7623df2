//! Heartbeat of the loop: when it last turned.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Heartbeat: when the loop last turned. A turn does not wake those who watch the status.
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
