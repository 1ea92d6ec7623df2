//! Whether events go in atomic batches: measured, and the faster way is kept.
//!
//! Two things make single messages slow: a few hot keys, of which each event waits for the one before,
//! and a broker that syncs before it acknowledges. Everywhere else they are faster than atomic
//! batches. Nobody tells which it is, so it is measured while there is more to do than may be on its
//! way: when the rate is low, batches are tried for a moment, and kept if they are clearly faster than
//! what goes otherwise: single messages, or fast batches where the stream takes them.

use std::time::{Duration, Instant};

/// For so long each way is measured, and as long before is left for what is on its way to end.
const PERIOD: Duration = Duration::from_millis(250);

/// This rate is fast enough: batches are not tried.
const FAST: f64 = 50_000.0;

/// Batches have to be faster by this factor to be kept: less may be chance.
const CLEARLY: f64 = 1.25;

/// After so long it is measured again: keys cool down, and disks have good days and bad ones.
const AGAIN: Duration = Duration::from_mins(1);

/// What was found faster, with the events a second of each way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Switch {
    /// Batches are kept.
    Batches {
        /// In batches.
        batched: f64,
        /// Otherwise.
        otherwise: f64,
    },
    /// Batches were tried, and are not.
    Tried {
        /// In batches.
        batched: f64,
        /// Otherwise.
        otherwise: f64,
    },
    /// Otherwise again, to be measured.
    Other,
}

/// Whether the rate of acknowledgements says something about the broker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Load {
    /// There is more to do than may be on its way: the broker is what limits the rate.
    Full,
    #[default]
    Light,
}

/// How fast events go, and how they go at present.
#[derive(Debug, Default)]
pub(super) struct Pace {
    way: Way,
    period: Option<Period>,
}

#[derive(Debug, Clone, Copy)]
enum Way {
    /// Otherwise; what that gives is not known yet. What goes in batches has to end first.
    Other { is_warm: bool },
    /// Otherwise, until then.
    OtherUntil(Instant),
    /// They are tried against this rate. What goes otherwise has to end first.
    Trying { otherwise: f64, is_warm: bool },
    /// Batches, until then.
    BatchesUntil(Instant),
}

impl Default for Way {
    fn default() -> Self {
        Self::Other { is_warm: true }
    }
}

#[derive(Debug, Clone, Copy)]
struct Period {
    since: Instant,
    acked: u64,
}

impl Pace {
    /// Whether events go in atomic batches.
    pub(super) fn is_batched(&self) -> bool {
        matches!(self.way, Way::Trying { .. } | Way::BatchesUntil(_))
    }

    /// Takes note of how many events were ever acknowledged.
    pub(super) fn measure(&mut self, acked: u64, load: Load, now: Instant) -> Option<Switch> {
        if load == Load::Light {
            self.interrupt();
            return self.relax(now);
        }
        let period = *self.period.get_or_insert(Period { since: now, acked });
        let took = now.saturating_duration_since(period.since);
        // A period without an acknowledgement says nothing: it lasts until there is one.
        if took < PERIOD || acked == period.acked {
            return None;
        }
        self.period = Some(Period { since: now, acked });
        let events = u32::try_from(acked.saturating_sub(period.acked)).unwrap_or(u32::MAX);
        self.judge(f64::from(events) / took.as_secs_f64(), now)
    }

    /// What was going on says nothing about the broker.
    pub(super) fn interrupt(&mut self) {
        self.period = None;
    }

    /// There is little to do: nothing can be measured, and nothing is kept for ever.
    fn relax(&mut self, now: Instant) -> Option<Switch> {
        match self.way {
            Way::Trying { .. } => self.way = Way::default(),
            Way::BatchesUntil(then) if then <= now => {
                self.way = Way::Other { is_warm: false };
                return Some(Switch::Other);
            }
            Way::Other { .. } | Way::OtherUntil(_) | Way::BatchesUntil(_) => {}
        }
        None
    }

    fn judge(&mut self, rate: f64, now: Instant) -> Option<Switch> {
        match self.way {
            Way::Other { is_warm: false } => self.way = Way::default(),
            Way::Other { .. } if rate < FAST => {
                self.way = Way::Trying { otherwise: rate, is_warm: false };
            }
            Way::OtherUntil(then) if then <= now => self.way = Way::default(),
            Way::Trying { otherwise, is_warm: false } => {
                self.way = Way::Trying { otherwise, is_warm: true };
            }
            Way::Trying { otherwise, .. } if rate >= otherwise * CLEARLY => {
                self.way = Way::BatchesUntil(now + AGAIN);
                return Some(Switch::Batches { batched: rate, otherwise });
            }
            Way::Trying { otherwise, .. } => {
                self.way = Way::OtherUntil(now + AGAIN);
                return Some(Switch::Tried { batched: rate, otherwise });
            }
            Way::Other { .. } => self.way = Way::OtherUntil(now + AGAIN),
            Way::BatchesUntil(then) if then <= now => {
                self.way = Way::Other { is_warm: false };
                return Some(Switch::Other);
            }
            Way::OtherUntil(_) | Way::BatchesUntil(_) => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A broker that takes so many events a second in each way.
    struct Broker {
        single: u64,
        batched: u64,
        acked: u64,
        now: Instant,
        pace: Pace,
    }

    impl Broker {
        fn new(single: u64, batched: u64) -> Self {
            Self { single, batched, acked: 0, now: Instant::now(), pace: Pace::default() }
        }

        /// Works for so long. Returns the share of the time in which everything went in batches.
        fn work(&mut self, time: Duration, load: Load) -> f64 {
            const TURN: Duration = Duration::from_millis(10);
            let (mut turns, mut batched) = (0.0, 0.0);
            let end = self.now + time;
            while self.now < end {
                self.now += TURN;
                turns += 1.0;
                let rate = if self.pace.is_batched() { self.batched } else { self.single };
                batched += if self.pace.is_batched() { 1.0 } else { 0.0 };
                self.acked += rate / 100;
                self.pace.measure(self.acked, load, self.now);
            }
            batched / turns
        }
    }

    #[test]
    fn a_broker_that_syncs_each_message_gets_batches_within_a_second() {
        let mut broker = Broker::new(4_800, 90_000);
        broker.work(Duration::from_secs(1), Load::Full);
        assert!(broker.work(Duration::from_secs(10), Load::Full) > 0.99);
        assert!(
            broker.work(Duration::from_mins(10), Load::Full) > 0.98,
            "measured again too often"
        );
    }

    #[test]
    fn a_fast_broker_never_gets_any() {
        let mut broker = Broker::new(120_000, 200_000);
        assert!(broker.work(Duration::from_mins(10), Load::Full) == 0.0);
    }

    #[test]
    fn a_slow_broker_that_gains_nothing_is_left_alone() {
        let mut broker = Broker::new(8_000, 9_000);
        let share = broker.work(Duration::from_mins(10), Load::Full);
        assert!(share > 0.0 && share < 0.02, "{share}");
    }

    #[test]
    fn a_broker_that_became_fast_gets_single_messages_again() {
        let mut broker = Broker::new(4_800, 90_000);
        broker.work(Duration::from_secs(2), Load::Full);
        broker.single = 130_000;
        broker.work(AGAIN, Load::Full);
        assert!(broker.work(Duration::from_mins(5), Load::Full) == 0.0);
    }

    #[test]
    fn a_lack_of_events_says_nothing_about_the_broker() {
        let mut broker = Broker::new(4_800, 90_000);
        assert!(broker.work(Duration::from_mins(10), Load::Light) == 0.0);
    }

    #[test]
    fn a_trial_ends_with_the_backlog() {
        let mut broker = Broker::new(4_800, 90_000);
        broker.work(PERIOD * 2, Load::Full);
        assert!(broker.pace.is_batched());
        assert!(broker.work(Duration::from_secs(1), Load::Light) < 0.1);
        broker.work(Duration::from_secs(2), Load::Full);
        assert!(broker.work(AGAIN / 2, Load::Light) > 0.9, "measured: kept for a while");
        broker.work(AGAIN, Load::Light);
        assert!(broker.work(AGAIN, Load::Light) == 0.0, "but not for ever");
    }

    /// One batch of a hot key in each round trip, and the last one ends when nothing else may go: what
    /// arrives then must not be taken for the rate of single messages.
    #[test]
    fn a_long_round_trip_does_not_spoil_the_measure() {
        const ROUND_TRIP: Duration = Duration::from_millis(240);
        let (mut pace, mut acked, mut now) = (Pace::default(), 0, Instant::now());
        let (mut batched, mut rounds) = (0, 0);
        while rounds < 4_000 {
            let is_batch = pace.is_batched();
            for _ in 0..24 {
                now += ROUND_TRIP / 24;
                pace.measure(acked, Load::Full, now);
            }
            acked += if is_batch { 1_000 } else { 1 };
            pace.measure(acked, Load::Full, now);
            batched += u32::from(is_batch);
            rounds += 1;
        }
        assert!(batched > rounds * 9 / 10, "{batched} of {rounds} round trips");
    }

    #[test]
    fn silence_is_no_rate() {
        let mut broker = Broker::new(0, 0);
        assert!(broker.work(Duration::from_mins(1), Load::Full) == 0.0);
    }
}
