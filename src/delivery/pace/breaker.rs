//! Breaker: it decides whether events may flow to the log. A closed one lets all through, an open
//! one none until a probe is due, a half-open one none until the probe is answered.

use std::time::{Duration, Instant};

use crate::delivery::{Backoff, Closure};

/// Wait before the next probe; it grows with the number of failures in a row.
const PROBE: Backoff =
    Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(10) };

/// Permit of the breaker: the events that may be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// Every event may be sent.
    Flow,
    /// A single message may be sent, as a probe whether the failure is over.
    Probe,
    /// No event may be sent before this time; `None` while a probe is in flight.
    No(Option<Instant>),
}

/// Transition of the publishing gate, for the log and the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// The gate stays as it was, and for the same reason.
    None,
    /// The breaker opened, or its cause changed.
    Opened,
    /// The breaker closed, so that events flow again.
    Closed,
    /// The log gave a sequence for the second time: it may have lost acknowledged messages.
    WentBack,
}

/// Breaker of one log: it keeps the closure, and says when a probe may be sent.
#[derive(Debug)]
pub struct Breaker {
    state: BreakerState,
    failures: u32,
    cause: Option<(Closure, Instant)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BreakerState {
    Closed,
    Open { until: Instant },
    HalfOpen,
}

impl Breaker {
    /// A breaker that lets traffic flow.
    pub fn new() -> Self {
        Self { state: BreakerState::Closed, failures: 0, cause: None }
    }

    /// Latest closure, and the time of the first one since events last flowed; `None` while events
    /// flow.
    pub fn cause(&self) -> Option<&(Closure, Instant)> {
        self.cause.as_ref()
    }

    /// Name that the breaker's state has in metrics.
    pub fn state_name(&self) -> &'static str {
        match self.state {
            BreakerState::Closed => "closed",
            BreakerState::Open { .. } => "open",
            BreakerState::HalfOpen => "half_open",
        }
    }

    /// Events that may be sent now. The caller reports a sent probe with [`Breaker::probing`].
    pub fn permit(&self, now: Instant) -> Permit {
        match self.state {
            BreakerState::Closed => Permit::Flow,
            BreakerState::Open { until } if until <= now => Permit::Probe,
            BreakerState::Open { until } => Permit::No(Some(until)),
            BreakerState::HalfOpen => Permit::No(None),
        }
    }

    /// Notes that the probe is in flight.
    pub fn probing(&mut self) {
        self.state = BreakerState::HalfOpen;
    }

    /// Notes an acknowledgement: the log accepts messages.
    pub fn succeed(&mut self) -> Transition {
        match self.state {
            // While open, a late answer to an earlier message proves nothing about the present.
            BreakerState::Closed | BreakerState::Open { .. } => Transition::None,
            BreakerState::HalfOpen => {
                *self = Self::new();
                Transition::Closed
            }
        }
    }

    /// Closes the breaker, because the failure is known to be over.
    pub fn reset(&mut self) -> Transition {
        match std::mem::take(self).state {
            BreakerState::Closed => Transition::None,
            BreakerState::Open { .. } | BreakerState::HalfOpen => Transition::Closed,
        }
    }

    /// Notes that the probe got no answer, so that the next one waits longer.
    pub fn probe_unanswered(&mut self, now: Instant) {
        if self.state == BreakerState::HalfOpen {
            self.failures += 1;
            self.state = BreakerState::Open { until: now + PROBE.after(self.failures) };
        }
    }

    /// Opens the breaker, because every message is refused just now.
    pub fn fail(&mut self, closure: Closure, now: Instant) -> Transition {
        let same = self.cause.as_ref().is_some_and(|(known, _)| *known == closure);
        // Many messages may fail together; only the failure that opens the breaker counts.
        if !matches!(self.state, BreakerState::Open { .. }) {
            self.failures += 1;
            self.state = BreakerState::Open { until: now + PROBE.after(self.failures) };
        }
        if same {
            return Transition::None;
        }
        let since = self.cause.as_ref().map_or(now, |(_, since)| *since);
        self.cause = Some((closure, since));
        Transition::Opened
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::ClosureKind;

    fn full() -> Closure {
        Closure::new(ClosureKind::StreamUnavailable, "full".into())
    }

    #[test]
    fn a_volley_of_failures_waits_once_and_each_failed_probe_waits_longer() {
        let now = Instant::now();
        let mut breaker = Breaker::new();
        assert_eq!(breaker.fail(full(), now), Transition::Opened);
        for _ in 0..1000 {
            assert_eq!(breaker.fail(full(), now), Transition::None);
        }
        let first = now + Duration::from_millis(100);
        assert_eq!(breaker.permit(now), Permit::No(Some(first)));
        assert_eq!(breaker.permit(first), Permit::Probe);
        breaker.probing();
        assert_eq!(breaker.permit(first), Permit::No(None));
        breaker.fail(full(), first);
        assert_eq!(breaker.permit(first), Permit::No(Some(first + Duration::from_millis(200))));
    }

    #[test]
    fn only_an_answer_to_the_probe_closes_it() {
        let now = Instant::now();
        let mut breaker = Breaker::new();
        breaker.fail(full(), now);
        assert_eq!(breaker.succeed(), Transition::None);
        breaker.probing();
        assert_eq!(breaker.succeed(), Transition::Closed);
        assert_eq!(breaker.permit(now), Permit::Flow);
        assert_eq!(breaker.cause(), None);
    }
}
