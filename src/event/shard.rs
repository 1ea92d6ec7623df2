//! Shards: the part of the keys that one of several flows of a route takes.
//!
//! The hash is `hashtextextended`, by which Postgres spreads texts over partitions. A statement
//! computes it in a few nanoseconds for each row. This module computes the same hash, for a program
//! that needs the shard of a key without a database.

use super::{AggregateKey, Seq};

/// A shard of a route: one of `count` parts of its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Number of this shard, from 0 to `count` - 1.
    pub index: u32,
    /// Number of shards that share the route.
    pub count: u32,
}

impl Shard {
    /// Name of the shard's relay.
    pub fn relay(self, route: &str) -> String {
        let Self { index, count } = self;
        format!("{route}.{index}-of-{count}")
    }

    /// Whether the name of a relay is that of a shard.
    pub fn is_name(relay: &str) -> bool {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let last = relay.rsplit_once('.').and_then(|(_, last)| last.split_once("-of-"));
        last.is_some_and(|(index, count)| is_number(index) && is_number(count))
    }

    /// Whether the shard takes an event with this key and this `seq`. Events without a key have no
    /// order, so their `seq` spreads them over the shards.
    pub fn takes(self, key: Option<&AggregateKey>, seq: Seq) -> bool {
        let number = match key {
            Some(key) => {
                let seed = hash(key.aggregate_type().as_bytes(), 0);
                hash(key.aggregate_id().as_bytes(), seed)
            }
            None => seq.0.cast_unsigned(),
        };
        // The condition of [`Shard::sql`] clears the sign bit in the same way.
        let positive = number & i64::MAX.cast_unsigned();
        positive % u64::from(self.count.max(1)) == u64::from(self.index)
    }

    /// The shard as an SQL condition on a row that has the alias `row`. The condition is true or
    /// false, and never null.
    pub(super) fn sql(self, row: &str) -> String {
        let Self { index, count } = self;
        format!(
            "(CASE WHEN {row}.aggregate_id IS NULL AND {row}.aggregate_type IS NULL THEN {row}.seq \
             ELSE pg_catalog.hashtextextended(coalesce({row}.aggregate_id, ''), \
             pg_catalog.hashtextextended(coalesce({row}.aggregate_type, ''), 0)) END \
             & 9223372036854775807) % {count} = {index}"
        )
    }
}

/// `hashtextextended` of Postgres: Bob Jenkins' lookup3 with a seed, over the bytes of a text in
/// UTF-8 on a machine of little endian.
fn hash(bytes: &[u8], seed: u64) -> u64 {
    const GOLDEN: u32 = 0x9e37_79b9;
    const ARBITRARY: u32 = 3_923_095;
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let start = GOLDEN.wrapping_add(length).wrapping_add(ARBITRARY);
    let (mut a, mut b, mut c) = (start, start, start);
    if seed != 0 {
        let [high, low] = halves(seed);
        a = a.wrapping_add(high);
        b = b.wrapping_add(low);
        mix(&mut a, &mut b, &mut c);
    }
    let mut blocks = bytes.chunks_exact(12);
    for block in &mut blocks {
        a = a.wrapping_add(word(block, 0));
        b = b.wrapping_add(word(block, 4));
        c = c.wrapping_add(word(block, 8));
        mix(&mut a, &mut b, &mut c);
    }
    let rest = blocks.remainder();
    a = a.wrapping_add(word(rest, 0));
    b = b.wrapping_add(word(rest, 4));
    // The lowest byte of `c` is reserved for the length.
    c = c.wrapping_add(word(rest, 8) << 8);
    finish(&mut a, &mut b, &mut c);
    u64::from(b) << 32 | u64::from(c)
}

fn halves(number: u64) -> [u32; 2] {
    let low = u32::try_from(number & u64::from(u32::MAX)).unwrap_or_default();
    [u32::try_from(number >> 32).unwrap_or_default(), low]
}

/// The four bytes from the index `from` on, as a little-endian number. Missing bytes count as 0.
fn word(bytes: &[u8], from: usize) -> u32 {
    let mut word = [0; 4];
    for (to, byte) in word.iter_mut().zip(bytes.iter().skip(from)) {
        *to = *byte;
    }
    u32::from_le_bytes(word)
}

fn mix(a: &mut u32, b: &mut u32, c: &mut u32) {
    let step = |x: &mut u32, y: &mut u32, z: &mut u32, bits: u32| {
        *x = x.wrapping_sub(*z) ^ z.rotate_left(bits);
        *z = z.wrapping_add(*y);
    };
    step(a, b, c, 4);
    step(b, c, a, 6);
    step(c, a, b, 8);
    step(a, b, c, 16);
    step(b, c, a, 19);
    step(c, a, b, 4);
}

fn finish(a: &mut u32, b: &mut u32, c: &mut u32) {
    let step = |x: &mut u32, y: &u32, bits: u32| *x = (*x ^ *y).wrapping_sub(y.rotate_left(bits));
    step(c, b, 14);
    step(a, c, 11);
    step(b, a, 25);
    step(c, b, 16);
    step(a, c, 4);
    step(b, a, 14);
    step(c, b, 24);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_the_keys_among_them_evenly() {
        let mut counts = [0_u32; 4];
        for number in 0..10_000 {
            let key = AggregateKey::new("order", &number.to_string());
            let shard = |index| Shard { index, count: 4 };
            let taken: Vec<_> =
                (0..4).filter(|index| shard(*index).takes(Some(&key), Seq(7))).collect();
            assert_eq!(taken.len(), 1, "{number}");
            counts[usize::try_from(taken[0]).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (2_300..2_700).contains(count)), "{counts:?}");
    }

    #[test]
    fn events_without_a_key_are_spread_by_their_place() {
        let taken =
            |seq| (0..3).find(|index| Shard { index: *index, count: 3 }.takes(None, Seq(seq)));
        assert_eq!((taken(0), taken(1), taken(5)), (Some(0), Some(1), Some(2)));
    }
}
