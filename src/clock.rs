//! The clock for deadlines and leases: it never goes back, and counts the time in which the machine
//! sleeps.

use std::{
    sync::OnceLock,
    time::{Duration, Instant, SystemTime},
};

/// Most by which the time of day and [`now`] may advance differently between two readings. A larger
/// difference is a jump: the machine may have stood still while [`now`] did not count.
const JUMP: Duration = Duration::from_secs(10);

/// The present time: the system's monotonic clock plus the time that the machine has slept.
pub fn now() -> Instant {
    let now = Instant::now();
    now.checked_add(slept()).unwrap_or(now)
}

/// Waits until [`now`] has reached `at`, or for somewhat longer when the machine sleeps meanwhile.
///
/// # Cancel safety
/// Dropping the future loses nothing.
pub async fn sleep_until(at: Instant) {
    let at = at.checked_sub(slept()).unwrap_or(at);
    tokio::time::sleep_until(at.into()).await;
}

/// How long the machine has slept since this function was first called.
fn slept() -> Duration {
    static BEFORE: OnceLock<Duration> = OnceLock::new();
    let ahead = boottime_ahead();
    let slept = ahead.saturating_sub(*BEFORE.get_or_init(|| ahead));
    slept + crate::failpoint::slept()
}

/// How far `CLOCK_BOOTTIME`, which counts sleep, is ahead of `CLOCK_MONOTONIC`, which does not.
#[cfg(target_os = "linux")]
fn boottime_ahead() -> Duration {
    use rustix::time::{ClockId, Timespec, clock_gettime};
    let duration = |Timespec { tv_sec, tv_nsec }: Timespec| {
        let seconds = u64::try_from(tv_sec).unwrap_or_default();
        Duration::new(seconds, u32::try_from(tv_nsec).unwrap_or_default())
    };
    let monotonic = duration(clock_gettime(ClockId::Monotonic));
    let ahead = duration(clock_gettime(ClockId::Boottime)).saturating_sub(monotonic);
    // The clocks are read one after the other, so differences below 100 ms are no sleep.
    Duration::from_millis(u64::try_from(ahead.as_millis()).unwrap_or(u64::MAX) / 100 * 100)
}

/// Zero on systems other than Linux: [`now`] is their monotonic clock, whether or not that counts
/// sleep.
#[cfg(not(target_os = "linux"))]
fn boottime_ahead() -> Duration {
    Duration::ZERO
}

/// Notices when the time of day jumps.
#[derive(Debug)]
pub struct WallClock {
    seen: (Instant, SystemTime),
}

impl WallClock {
    /// Starts at the present time of day.
    pub fn start() -> Self {
        Self { seen: (now(), SystemTime::now()) }
    }

    /// Whether the time of day has jumped since the last call, by more than some seconds.
    pub fn has_jumped(&mut self) -> bool {
        let (at, wall) = (now(), SystemTime::now());
        let passed = at.saturating_duration_since(self.seen.0);
        let shown = wall.duration_since(self.seen.1);
        self.seen = (at, wall);
        shown.map_or(true, |shown| shown.abs_diff(passed) > JUMP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_and_the_time_of_day_does_not_jump_by_itself() {
        let mut wall = WallClock::start();
        let before = now();
        assert!(now() >= before);
        assert!(!wall.has_jumped());
        wall.seen.1 -= JUMP * 2;
        assert!(wall.has_jumped(), "forward");
        wall.seen.1 += JUMP * 2;
        assert!(wall.has_jumped(), "back");
    }
}
