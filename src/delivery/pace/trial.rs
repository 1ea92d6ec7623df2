//! Trial: measures whether atomic batches are faster than the other way, and keeps the faster one.
//!
//! Two things make single messages slow: a few hot keys, of which each event waits for the one
//! before, and a broker that syncs before it acknowledges. Otherwise single messages are faster
//! than atomic batches. No setting says which is the case, so the relay measures it under full
//! load. When the rate is low, it tries atomic batches for a moment, and keeps them if they are
//! clearly faster. The other way is single messages, or fast batches where the log supports them.

use std::time::{Duration, Instant};

/// Length of a measurement of the rate. A warm-up of the same length comes before it, in which
/// earlier messages in flight are answered.
const PERIOD: Duration = Duration::from_millis(250);

/// Rate in events a second, inclusive, from which atomic batches are not tried, because events are
/// fast enough without them.
const FAST_RATE: f64 = 50_000.0;

/// Factor by which atomic batches have to be faster than other messages. A smaller difference may
/// be chance.
const CLEARLY: f64 = 1.25;

/// Time after which a trial's result no longer counts, because the hot keys or the speed of the
/// disks may have changed.
const REMEASURE_AFTER: Duration = Duration::from_mins(1);

/// Result of a trial, with the measured rates: events a second with atomic batches and without
/// them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TrialResult {
    /// Atomic batches are clearly faster, and are kept.
    BatchesFaster {
        /// Events a second in atomic batches.
        batched: f64,
        /// Events a second without atomic batches.
        otherwise: f64,
    },
    /// Atomic batches were tried and are not clearly faster.
    NotFaster {
        /// Events a second in atomic batches.
        batched: f64,
        /// Events a second without atomic batches.
        otherwise: f64,
    },
    /// The last result is too old: events go without atomic batches until the rate is measured
    /// anew.
    Restarted,
}

/// Load of the broker. Only under full load does the rate of acknowledgements show how much the
/// broker can do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::delivery) enum Load {
    /// So many events wait in memory that the broker limits the rate.
    Full,
    #[default]
    Light,
}

/// Measurement of the broker's rate, and the choice whether events go in atomic batches now.
#[derive(Debug, Default)]
pub(in crate::delivery) struct Trial {
    state: TrialState,
    period: Option<Period>,
}

#[derive(Debug, Clone, Copy)]
enum TrialState {
    /// The rate without atomic batches is measured, once the atomic batches in flight have ended.
    Measuring { is_warm: bool },
    /// No atomic batches are sent until this time.
    OffUntil(Instant),
    /// Atomic batches are tried, once other messages in flight have ended. Their rate is compared
    /// with the rate `otherwise`.
    Trying { otherwise: f64, is_warm: bool },
    /// Atomic batches are sent until this time.
    OnUntil(Instant),
}

impl Default for TrialState {
    fn default() -> Self {
        Self::Measuring { is_warm: true }
    }
}

#[derive(Debug, Clone, Copy)]
struct Period {
    since: Instant,
    acked: u64,
}

impl Trial {
    /// Whether events go in atomic batches.
    pub(in crate::delivery) fn is_batched(&self) -> bool {
        matches!(self.state, TrialState::Trying { .. } | TrialState::OnUntil(_))
    }

    /// Measures how many events a second the broker acknowledges, from the total `acked`.
    pub(in crate::delivery) fn measure(
        &mut self,
        acked: u64,
        load: Load,
        now: Instant,
    ) -> Option<TrialResult> {
        if load == Load::Light {
            self.interrupt();
            return self.relax(now);
        }
        let period = *self.period.get_or_insert(Period { since: now, acked });
        let took = now.saturating_duration_since(period.since);
        // A rate needs at least one acknowledgement, so a period without any goes on until one
        // comes.
        if took < PERIOD || acked == period.acked {
            return None;
        }
        self.period = Some(Period { since: now, acked });
        let events = u32::try_from(acked.saturating_sub(period.acked)).unwrap_or(u32::MAX);
        self.judge(f64::from(events) / took.as_secs_f64(), now)
    }

    /// Discards the measurement in progress, because its rate says nothing about the broker.
    pub(in crate::delivery) fn interrupt(&mut self) {
        self.period = None;
    }

    /// Ends a running trial, and a result that is too old. No rate can be measured under light
    /// load.
    fn relax(&mut self, now: Instant) -> Option<TrialResult> {
        match self.state {
            TrialState::Trying { .. } => self.state = TrialState::default(),
            TrialState::OnUntil(then) if then <= now => {
                self.state = TrialState::Measuring { is_warm: false };
                return Some(TrialResult::Restarted);
            }
            TrialState::Measuring { .. } | TrialState::OffUntil(_) | TrialState::OnUntil(_) => {}
        }
        None
    }

    fn judge(&mut self, rate: f64, now: Instant) -> Option<TrialResult> {
        match self.state {
            TrialState::Measuring { is_warm: false } => self.state = TrialState::default(),
            TrialState::Measuring { .. } if rate < FAST_RATE => {
                self.state = TrialState::Trying { otherwise: rate, is_warm: false };
            }
            TrialState::OffUntil(then) if then <= now => self.state = TrialState::default(),
            TrialState::Trying { otherwise, is_warm: false } => {
                self.state = TrialState::Trying { otherwise, is_warm: true };
            }
            TrialState::Trying { otherwise, .. } if rate >= otherwise * CLEARLY => {
                self.state = TrialState::OnUntil(now + REMEASURE_AFTER);
                return Some(TrialResult::BatchesFaster { batched: rate, otherwise });
            }
            TrialState::Trying { otherwise, .. } => {
                self.state = TrialState::OffUntil(now + REMEASURE_AFTER);
                return Some(TrialResult::NotFaster { batched: rate, otherwise });
            }
            TrialState::Measuring { .. } => {
                self.state = TrialState::OffUntil(now + REMEASURE_AFTER);
            }
            TrialState::OnUntil(then) if then <= now => {
                self.state = TrialState::Measuring { is_warm: false };
                return Some(TrialResult::Restarted);
            }
            TrialState::OffUntil(_) | TrialState::OnUntil(_) => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Simulated broker that acknowledges `single` events a second without atomic batches, and
    /// `batched` events a second with them.
    struct SimulatedBroker {
        single: u64,
        batched: u64,
        acked: u64,
        now: Instant,
        trial: Trial,
    }

    impl SimulatedBroker {
        fn new(single: u64, batched: u64) -> Self {
            Self { single, batched, acked: 0, now: Instant::now(), trial: Trial::default() }
        }

        /// Runs for `time`. Returns the share of the time in which events went in atomic batches.
        fn work(&mut self, time: Duration, load: Load) -> f64 {
            const TURN: Duration = Duration::from_millis(10);
            let (mut turns, mut batched) = (0.0, 0.0);
            let end = self.now + time;
            while self.now < end {
                self.now += TURN;
                turns += 1.0;
                let rate = if self.trial.is_batched() { self.batched } else { self.single };
                batched += if self.trial.is_batched() { 1.0 } else { 0.0 };
                self.acked += rate / 100;
                self.trial.measure(self.acked, load, self.now);
            }
            batched / turns
        }
    }

    #[test]
    fn a_broker_that_syncs_each_message_gets_batches_within_a_second() {
        let mut broker = SimulatedBroker::new(4_800, 90_000);
        broker.work(Duration::from_secs(1), Load::Full);
        assert!(broker.work(Duration::from_secs(10), Load::Full) > 0.99);
        assert!(
            broker.work(Duration::from_mins(10), Load::Full) > 0.98,
            "measured again too often"
        );
    }

    #[test]
    fn a_fast_broker_never_gets_any() {
        let mut broker = SimulatedBroker::new(120_000, 200_000);
        assert!(broker.work(Duration::from_mins(10), Load::Full) == 0.0);
    }

    #[test]
    fn a_slow_broker_that_gains_nothing_is_left_alone() {
        let mut broker = SimulatedBroker::new(8_000, 9_000);
        let share = broker.work(Duration::from_mins(10), Load::Full);
        assert!(share > 0.0 && share < 0.02, "{share}");
    }

    #[test]
    fn a_broker_that_became_fast_gets_single_messages_again() {
        let mut broker = SimulatedBroker::new(4_800, 90_000);
        broker.work(Duration::from_secs(2), Load::Full);
        broker.single = 130_000;
        broker.work(REMEASURE_AFTER, Load::Full);
        assert!(broker.work(Duration::from_mins(5), Load::Full) == 0.0);
    }

    #[test]
    fn a_lack_of_events_says_nothing_about_the_broker() {
        let mut broker = SimulatedBroker::new(4_800, 90_000);
        assert!(broker.work(Duration::from_mins(10), Load::Light) == 0.0);
    }

    #[test]
    fn a_trial_ends_with_the_backlog() {
        let mut broker = SimulatedBroker::new(4_800, 90_000);
        broker.work(PERIOD * 2, Load::Full);
        assert!(broker.trial.is_batched());
        assert!(broker.work(Duration::from_secs(1), Load::Light) < 0.1);
        broker.work(Duration::from_secs(2), Load::Full);
        assert!(broker.work(REMEASURE_AFTER / 2, Load::Light) > 0.9, "measured: kept for a while");
        broker.work(REMEASURE_AFTER, Load::Light);
        assert!(broker.work(REMEASURE_AFTER, Load::Light) == 0.0, "but not for ever");
    }

    /// With one hot key, one batch or one message is answered in each round trip. The last batch is
    /// answered after the switch to single messages. Its events must not count for the rate of
    /// single messages.
    #[test]
    fn a_long_round_trip_does_not_spoil_the_measure() {
        const ROUND_TRIP: Duration = Duration::from_millis(240);
        let (mut trial, mut acked, mut now) = (Trial::default(), 0, Instant::now());
        let (mut batched, mut rounds) = (0, 0);
        while rounds < 4_000 {
            let is_batch = trial.is_batched();
            for _ in 0..24 {
                now += ROUND_TRIP / 24;
                trial.measure(acked, Load::Full, now);
            }
            acked += if is_batch { 1_000 } else { 1 };
            trial.measure(acked, Load::Full, now);
            batched += u32::from(is_batch);
            rounds += 1;
        }
        assert!(batched > rounds * 9 / 10, "{batched} of {rounds} round trips");
    }

    #[test]
    fn silence_is_no_rate() {
        let mut broker = SimulatedBroker::new(0, 0);
        assert!(broker.work(Duration::from_mins(1), Load::Full) == 0.0);
    }
}
