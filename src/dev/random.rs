//! A small random number generator with a seed, so that a run can be repeated from its printed
//! seed.

/// `SplitMix64`: eight bytes of state, good enough to mix workloads, of no use for secrets.
///
/// The algorithm is ten lines, so it is written here. A crate could change its numbers with an
/// update.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator that always yields the same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// An independent generator for one of several writers that share a seed; `user` is the
    /// writer's number.
    pub fn fork(seed: u64, user: u64) -> Self {
        let mut random = Self(seed ^ Self(user).draw());
        random.draw();
        random
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A random number below `bound`; 0 when the bound is 0. The bias is below `bound` / 2^64.
    pub fn below(&mut self, bound: u32) -> u32 {
        let drawn = self.draw().checked_rem(u64::from(bound)).unwrap_or(0);
        u32::try_from(drawn).unwrap_or(0)
    }

    /// A random number from `low` to `high`, both included.
    pub fn between(&mut self, low: u32, high: u32) -> u32 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// Draws `true` in `share` of a hundred cases.
    pub fn percent(&mut self, share: u32) -> bool {
        self.below(100) < share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_its_users_differ() {
        let draw = |mut random: Random| [random.draw(), random.draw()];
        assert_eq!(draw(Random::new(7)), draw(Random::new(7)));
        assert_ne!(draw(Random::fork(7, 0)), draw(Random::fork(7, 1)));
        assert_ne!(draw(Random::fork(7, 0)), draw(Random::fork(8, 0)));
    }

    #[test]
    fn shares_come_out_about_right() {
        let mut random = Random::new(1);
        let hits = (0..10_000).filter(|_| random.percent(20)).count();
        assert!((1_900..2_100).contains(&hits), "{hits}");
        assert!((0..1_000).all(|_| (3..=5).contains(&random.between(3, 5))));
    }
}
