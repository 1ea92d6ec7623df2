//! Turns of the loop, and whether they come in time. After a stand-still of the process a turn is
//! late.

use std::time::{Duration, Instant};

use crate::clock::WallClock;

/// Lateness of a turn of the loop, inclusive, from which no message is given to the broker before
/// the database has confirmed the lease. A shorter delay is safe, because a standby waits at least
/// this long after our session with Postgres has ended.
const LATE: Duration = Duration::from_millis(250);

/// Lateness of a turn, inclusive, from which the connection to the broker is given up, because the
/// messages in the client's queue are too old.
const STOOD_STILL: Duration = Duration::from_millis(2500);

/// Interval at which the time of day is read.
const WALL_INTERVAL: Duration = Duration::from_secs(1);

/// Plan of the next turn.
#[derive(Debug)]
pub(in crate::relay) struct Turns {
    planned: Instant,
    wall: WallClock,
    wall_at: Instant,
}

/// Time between two turns, compared with the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::relay) enum Passed {
    /// The turn comes as planned.
    AsPlanned,
    /// The turn is a little late: the machine is busy, or the process was stopped.
    Late,
    /// The process or the machine stood still for this time.
    StoodStill(Duration),
    /// The time of day jumped. A virtual machine may have been paused, and its other clocks too.
    Jumped,
}

impl Turns {
    /// Plans the first turn for now.
    pub(in crate::relay) fn start(now: Instant) -> Self {
        Self { planned: now, wall: WallClock::start(), wall_at: now + WALL_INTERVAL }
    }

    /// Begins a turn. Returns how late it is.
    pub(in crate::relay) fn begin(&mut self, now: Instant) -> Passed {
        let late = now.saturating_duration_since(self.planned);
        if late >= STOOD_STILL {
            return Passed::StoodStill(late);
        }
        if now >= self.wall_at {
            self.wall_at = now + WALL_INTERVAL;
            if self.wall.has_jumped() {
                return Passed::Jumped;
            }
        }
        if late >= LATE { Passed::Late } else { Passed::AsPlanned }
    }

    /// Plans the next turn for `at`, at the latest.
    pub(in crate::relay) fn plan(&mut self, at: Instant) {
        self.planned = at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_late_by_what_it_comes_after_its_plan() {
        let now = Instant::now();
        let mut turns = Turns::start(now);
        turns.plan(now + Duration::from_secs(1));
        let at = |millis| now + Duration::from_millis(millis);
        assert_eq!(turns.begin(at(10)), Passed::AsPlanned);
        turns.wall_at = at(60_000);
        assert_eq!(turns.begin(at(1_249)), Passed::AsPlanned);
        assert_eq!(turns.begin(at(1_250)), Passed::Late);
        assert_eq!(turns.begin(at(5_000)), Passed::StoodStill(Duration::from_secs(4)));
    }
}
