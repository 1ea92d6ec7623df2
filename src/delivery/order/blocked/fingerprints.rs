//! A multiset of 64-bit numbers that takes little more memory than the numbers themselves.

/// Number of shards, the parts of the multiset. A change moves the numbers of one shard, which are
/// few even among millions.
const SHARDS: usize = 4_096;

/// Spare capacity of a shard, so that not every insertion reallocates it.
const SPARE: usize = 8;

/// Sorted shards of numbers, by their highest bits.
#[derive(Debug, Default)]
pub(super) struct Fingerprints {
    /// Shards, each a sorted list of numbers; no shard exists before the first insertion.
    shards: Vec<Vec<u64>>,
    len: usize,
}

impl Fingerprints {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that the numbers take, spare capacity included.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let numbers: usize = self.shards.iter().map(Vec::capacity).sum();
        numbers * size_of::<u64>() + self.shards.capacity() * size_of::<Vec<u64>>()
    }

    pub(super) fn insert(&mut self, number: u64) {
        if self.shards.is_empty() {
            self.shards.resize_with(SHARDS, Vec::new);
        }
        let Some(shard) = self.shards.get_mut(shard_of(number)) else { return };
        if shard.len() == shard.capacity() {
            shard.reserve_exact(shard.len() / 8 + SPARE);
        }
        let at = shard.partition_point(|other| *other < number);
        shard.insert(at, number);
        self.len += 1;
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        let shard = self.shards.get(shard_of(number));
        shard.is_some_and(|shard| shard.binary_search(&number).is_ok())
    }

    /// Removes one copy of a number; its other copies stay.
    pub(super) fn remove(&mut self, number: u64) {
        let Some(shard) = self.shards.get_mut(shard_of(number)) else { return };
        let Ok(at) = shard.binary_search(&number) else { return };
        shard.remove(at);
        self.len -= 1;
        if self.len == 0 {
            self.shards = Vec::new();
        } else if shard.len() < shard.capacity() / 2 {
            shard.shrink_to(shard.len() + SPARE);
        }
    }
}

fn shard_of(number: u64) -> usize {
    // The highest bits of a number are the index of its shard.
    usize::try_from(number >> (u64::BITS - SHARDS.trailing_zeros())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stays_as_often_as_it_was_put_in() {
        let mut numbers = Fingerprints::default();
        assert!(!numbers.contains(7));
        numbers.remove(7);
        for number in [7, u64::MAX, 7, 0] {
            numbers.insert(number);
        }
        assert_eq!(numbers.len(), 4);
        numbers.remove(7);
        assert!(numbers.contains(7) && numbers.contains(0) && numbers.contains(u64::MAX));
        numbers.remove(7);
        assert!(!numbers.contains(7));
        numbers.remove(0);
        numbers.remove(u64::MAX);
        assert!(numbers.is_empty() && numbers.shards.is_empty());
    }
}
