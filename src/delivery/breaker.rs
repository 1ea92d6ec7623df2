//! The publishing gate before the stream: breaker closed, traffic flows; open, nothing; half-open,
//! one probe.

use std::time::{Duration, Instant};

use crate::delivery::{Closure, retry::Backoff};

/// The waits before a probe.
const PROBE: Backoff =
    Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(10) };

/// What may be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// Anything.
    Flow,
    /// One message, to see whether the trouble is over.
    Probe,
    /// Nothing, at least until then; `None` while a probe is on its way.
    No(Option<Instant>),
}

/// What changed, for the log and the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// Nothing.
    None,
    /// Traffic stopped, or the trouble is another one now.
    Opened,
    /// Traffic flows again.
    Closed,
    /// The stream gave a sequence that it had given before: it may have lost what it acknowledged.
    WentBack,
}

/// The breaker of one stream.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    failures: u32,
    cause: Option<(Closure, Instant)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Instant },
    HalfOpen,
}

impl Breaker {
    /// A breaker that lets traffic flow.
    pub fn new() -> Self {
        Self { state: State::Closed, failures: 0, cause: None }
    }

    /// Why nothing flows, and since when.
    pub fn cause(&self) -> Option<&(Closure, Instant)> {
        self.cause.as_ref()
    }

    /// The state's name in metrics.
    pub fn state_name(&self) -> &'static str {
        match self.state {
            State::Closed => "closed",
            State::Open { .. } => "open",
            State::HalfOpen => "half_open",
        }
    }

    /// What may be sent now. Whoever uses a [`Permit::Probe`] says so with [`Breaker::probing`].
    pub fn permit(&self, now: Instant) -> Permit {
        match self.state {
            State::Closed => Permit::Flow,
            State::Open { until } if until <= now => Permit::Probe,
            State::Open { until } => Permit::No(Some(until)),
            State::HalfOpen => Permit::No(None),
        }
    }

    /// The probe is on its way.
    pub fn probing(&mut self) {
        self.state = State::HalfOpen;
    }

    /// The stream answered for good: it takes messages.
    pub fn succeed(&mut self) -> Transition {
        match self.state {
            // While open, a late answer to what was sent before the trouble says nothing about now.
            State::Closed | State::Open { .. } => Transition::None,
            State::HalfOpen => {
                *self = Self::new();
                Transition::Closed
            }
        }
    }

    /// The trouble is known to be over.
    pub fn reset(&mut self) -> Transition {
        match std::mem::take(self).state {
            State::Closed => Transition::None,
            State::Open { .. } | State::HalfOpen => Transition::Closed,
        }
    }

    /// The probe got no answer; wait longer before the next.
    pub fn probe_unanswered(&mut self, now: Instant) {
        if self.state == State::HalfOpen {
            self.failures += 1;
            self.state = State::Open { until: now + PROBE.after(self.failures) };
        }
    }

    /// Everything is refused just now.
    pub fn fail(&mut self, closure: Closure, now: Instant) -> Transition {
        let same = self.cause.as_ref().is_some_and(|(known, _)| *known == closure);
        // Of a volley that fails together only the first counts.
        if !matches!(self.state, State::Open { .. }) {
            self.failures += 1;
            self.state = State::Open { until: now + PROBE.after(self.failures) };
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
