//! Backoff: waits between tries that grow up to a longest one, and are spread by jitter.

use std::time::Duration;

/// Exponential backoff without jitter: each wait after a failure is twice the one before, up to the
/// longest.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// Wait after the first failure.
    pub first: Duration,
    /// Longest wait before a try; the growth of the waits ends there.
    pub longest: Duration,
}

impl Backoff {
    /// Wait after this many failures in a row, counted from 1.
    pub fn after(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        self.first.saturating_mul(1 << doublings).min(self.longest)
    }
}

/// Retry policy of a route for a message that the broker refused for now, while it may accept
/// others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    /// Number of attempts in all before the event becomes a dead letter.
    pub attempts: u32,
    /// Wait after the first attempt at a message.
    pub delay: Duration,
    /// Growth of the waits between attempts at a message.
    pub growth: Growth,
    /// Part of each wait that is drawn at random: 0 gives the whole wait, 1 any wait from zero to
    /// the whole.
    pub jitter: f64,
    /// Longest wait before a try; the growth of the waits ends there.
    pub max_delay: Duration,
}

/// Growth of the waits between attempts at a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Growth {
    /// Each wait is longer than the one before by as much as the first wait lasts.
    Linear,
    /// Each wait is twice the one before.
    Exponential,
}

impl RetryPolicy {
    /// Wait after this many attempts, counted from 1. `draw` is the seed of the jitter: the same
    /// `draw` gives the same wait.
    pub fn wait(&self, attempts: u32, draw: u64) -> Duration {
        let whole = match self.growth {
            Growth::Linear => self.delay.saturating_mul(attempts.max(1)).min(self.max_delay),
            Growth::Exponential => {
                Backoff { first: self.delay, longest: self.max_delay }.after(attempts)
            }
        };
        whole.mul_f64(1.0 - self.jitter.clamp(0.0, 1.0) * share(draw ^ u64::from(attempts)))
    }

    /// Whether all attempts are used up.
    pub fn is_exhausted(&self, attempts: u32) -> bool {
        attempts >= self.attempts
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 20,
            delay: Duration::from_millis(100),
            growth: Growth::Exponential,
            jitter: 0.2,
            max_delay: Duration::from_mins(5),
        }
    }
}

/// Number from 0 to below 1 that depends on `draw` alone and appears random, by the splitmix64
/// function.
fn share(draw: u64) -> f64 {
    let mut z = draw.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    // A float holds 32 bits exactly, and 32 random bits are enough to spread waits.
    f64::from(u32::try_from((z ^ (z >> 31)) >> 32).unwrap_or(0)) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(policy: RetryPolicy) -> Vec<u128> {
        (1..=5).map(|attempts| policy.wait(attempts, 7).as_millis()).collect()
    }

    #[test]
    fn waits_grow_as_configured_up_to_the_longest() {
        let exact = RetryPolicy {
            jitter: 0.0,
            max_delay: Duration::from_secs(1),
            ..RetryPolicy::default()
        };
        assert_eq!(waits(exact), [100, 200, 400, 800, 1000]);
        let linear = RetryPolicy { growth: Growth::Linear, ..exact };
        assert_eq!(waits(linear), [100, 200, 300, 400, 500]);
    }

    #[test]
    fn jitter_spreads_the_waits_below_the_whole_one() {
        let policy = RetryPolicy { jitter: 0.5, ..RetryPolicy::default() };
        let drawn: Vec<u128> = (0..1000).map(|draw| policy.wait(1, draw).as_millis()).collect();
        let (least, most) = (drawn.iter().min().unwrap(), drawn.iter().max().unwrap());
        assert!((50..55).contains(least) && (95..=100).contains(most), "{least} to {most}");
    }
}
