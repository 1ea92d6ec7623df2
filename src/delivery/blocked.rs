//! Blocked keys: which events have to wait behind a letter of their key, in bounded memory.
//!
//! The first keys are kept as they are. Beyond a bound only a fingerprint of 64 bits stays of a
//! key, and beyond a second bound every key counts as blocked. So a key may be *suspected* without
//! being blocked. That costs time and never order: a suspected event becomes a held letter with a
//! mark, and the mark makes the relay load the letters of that key. When nothing stands before the
//! event, it is published at once as a letter.

mod fingerprints;

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
};

use super::lanes::Ticket;
use crate::event::{AggregateKey, Event};
use fingerprints::Fingerprints;

/// Bounds of the memory that blocked keys take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockedBounds {
    /// Keys that are kept as they are, at most.
    pub keys: usize,
    /// Suspected keys whose events are waited for, at most.
    pub suspects: usize,
    /// Bytes of the texts of either kind, at most.
    pub key_bytes: usize,
    /// Fingerprints of further keys, at most. Each takes 8 bytes and an eighth more.
    pub fingerprints: usize,
}

impl Default for BlockedBounds {
    fn default() -> Self {
        Self { keys: 16_384, suspects: 4_096, key_bytes: 2 << 20, fingerprints: 4 << 20 }
    }
}

/// How certain it is that an event has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// A letter of its key stands before it, and that one is dead or has a mark.
    Known,
    /// A letter of its key may stand before it, so that the event needs a mark of its own.
    Suspected,
}

/// The blocked keys.
#[derive(Debug)]
pub(super) struct Blocked {
    bounds: BlockedBounds,
    /// Keys kept as they are, each with its last event that was held in this holding.
    listed: Keys<Option<Ticket>>,
    /// Keys of suspected events, until the last of these events is settled or the key is released.
    suspects: Keys<Ticket>,
    /// Fingerprints of the blocked keys that are not listed, one for each time a key was counted.
    fingerprints: Fingerprints,
    hasher: RandomState,
    /// Whether there were more keys than fingerprints may be kept: every key is suspected.
    is_overflown: bool,
    /// The last event that was held and whose key could not be kept.
    last_unlisted: Option<Ticket>,
    /// Up to where events were settled when suspects were last forgotten.
    swept: Option<Ticket>,
    reload: Reload,
}

/// Whether the keys are to be loaded anew. What was released and is not recorded would come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reload {
    No,
    OnceRecorded,
    Due,
}

impl Blocked {
    /// No blocked key.
    pub(super) fn new(bounds: BlockedBounds) -> Self {
        Self {
            bounds,
            listed: Keys::default(),
            suspects: Keys::default(),
            fingerprints: Fingerprints::default(),
            hasher: RandomState::new(),
            is_overflown: false,
            last_unlisted: None,
            swept: None,
            reload: Reload::No,
        }
    }

    /// How many keys are blocked. A key with several dead letters may count more than once.
    pub(super) fn len(&self) -> usize {
        self.listed.map.len() + self.fingerprints.len()
    }

    /// Whether no event has to wait.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0 && self.suspects.map.is_empty() && !self.is_overflown
    }

    /// Whether every key is suspected.
    pub(super) fn is_overflown(&self) -> bool {
        self.is_overflown
    }

    /// Whether every key is suspected although half of the room would do for the keys that are
    /// left, and the database knows that too. Loading them anew ends that.
    pub(super) fn wants_reload(&self) -> bool {
        self.reload == Reload::Due
    }

    /// What became of letters is about to be written, the releases up to now included.
    pub(super) fn being_recorded(&mut self) {
        if self.is_overflown && self.fingerprints.len() <= self.bounds.fingerprints / 2 {
            self.reload = self.reload.max(Reload::OnceRecorded);
        }
    }

    /// That is written.
    pub(super) fn recorded(&mut self) {
        if self.reload == Reload::OnceRecorded {
            self.reload = Reload::Due;
        }
    }

    /// Blocks a key. `last` is the last event of the key that is held, when there is one.
    pub(super) fn block(&mut self, key: AggregateKey, last: Option<Ticket>) {
        if let Some(listed) = self.listed.map.get_mut(&key) {
            *listed = last.max(*listed);
        } else if self.listed.has_room(&key, self.bounds.keys, self.bounds.key_bytes) {
            self.listed.insert(key, last);
        } else {
            self.last_unlisted = last.max(self.last_unlisted);
            if self.fingerprints.len() < self.bounds.fingerprints {
                self.fingerprints.insert(self.fingerprint(&key));
            } else {
                self.is_overflown = true;
            }
        }
    }

    /// Whether the event has to wait behind a letter of its key; notes that it does.
    ///
    /// Every event below `recorded` is settled in the database.
    pub(super) fn hold(&mut self, ticket: Ticket, event: &Event, recorded: Ticket) -> Option<Hold> {
        if self.is_empty() {
            return None;
        }
        let key = event.lane()?;
        if let Some(last) = self.listed.map.get_mut(key) {
            *last = Some(ticket);
            return Some(Hold::Known);
        }
        // The mark of the first suspected event makes the relay load the key: no other is needed.
        if let Some(last) = self.suspects.map.get_mut(key) {
            *last = ticket;
            return Some(Hold::Known);
        }
        if !self.is_suspected(key) {
            return None;
        }
        if self.has_room_for_suspect(key, recorded) {
            self.suspects.insert(key.clone(), ticket);
        } else {
            self.last_unlisted = Some(ticket);
        }
        Some(Hold::Suspected)
    }

    /// No letter of the key is left among those that were recorded before `recorded`: its later
    /// events may go, unless some were held since. Returns whether they may.
    pub(super) fn release(&mut self, key: &AggregateKey, recorded: Ticket) -> bool {
        let last = match (self.listed.map.get(key), self.suspects.map.get(key)) {
            (None, None) if self.is_suspected(key) => self.last_unlisted,
            (listed, suspect) => listed.copied().flatten().max(suspect.copied()),
        };
        if last.is_some_and(|last| last >= recorded) {
            return false;
        }
        self.suspects.remove(key);
        // A key that was never counted may share the fingerprint of one that is. Among a million
        // blocked keys that happens once in 10^13 times; the order of the other key is then lost.
        if !self.listed.remove(key) && !self.fingerprints.is_empty() {
            self.fingerprints.remove(self.fingerprint(key));
        }
        true
    }

    /// Has a key suspected without reason.
    #[cfg(test)]
    pub(super) fn suspect(&mut self, key: &AggregateKey) {
        self.fingerprints.insert(self.fingerprint(key));
    }

    /// These keys within other bounds.
    #[cfg(test)]
    pub(super) fn for_a_history(
        bounds: BlockedBounds,
        keys: impl IntoIterator<Item = AggregateKey>,
    ) -> Self {
        let mut blocked = Self::new(bounds);
        for key in keys {
            blocked.block(key, None);
        }
        blocked
    }

    /// Keys that are kept as they are.
    #[cfg(test)]
    pub(super) fn listed(&self) -> usize {
        self.listed.map.len()
    }

    /// Whether the key is kept as it is, blocked or suspected.
    #[cfg(test)]
    pub(super) fn is_kept(&self, key: &AggregateKey) -> bool {
        self.listed.map.contains_key(key) || self.suspects.map.contains_key(key)
    }

    fn is_suspected(&self, key: &AggregateKey) -> bool {
        let is_counted =
            !self.fingerprints.is_empty() && self.fingerprints.contains(self.fingerprint(key));
        is_counted || self.is_overflown
    }

    /// Whether one more suspect can be kept. When there is no room, those whose events are settled
    /// are forgotten: their next event has a mark again.
    fn has_room_for_suspect(&mut self, key: &AggregateKey, recorded: Ticket) -> bool {
        let BlockedBounds { suspects, key_bytes, .. } = self.bounds;
        if self.suspects.has_room(key, suspects, key_bytes) {
            return true;
        }
        if self.swept.is_none_or(|swept| swept < recorded) {
            self.swept = Some(recorded);
            self.suspects.retain(|last| *last >= recorded);
        }
        self.suspects.has_room(key, suspects, key_bytes)
    }

    /// The fingerprint is keyed at random, so that nobody can choose keys that share one.
    fn fingerprint(&self, key: &AggregateKey) -> u64 {
        self.hasher.hash_one(key)
    }
}

/// Keys as they are, and how many bytes their texts have.
#[derive(Debug)]
struct Keys<T> {
    map: HashMap<AggregateKey, T>,
    bytes: usize,
}

impl<T> Default for Keys<T> {
    fn default() -> Self {
        Self { map: HashMap::new(), bytes: 0 }
    }
}

impl<T> Keys<T> {
    fn has_room(&self, key: &AggregateKey, keys: usize, bytes: usize) -> bool {
        self.map.len() < keys && self.bytes + key.as_str().len() <= bytes
    }

    fn insert(&mut self, key: AggregateKey, value: T) {
        self.bytes += key.as_str().len();
        self.map.insert(key, value);
    }

    fn remove(&mut self, key: &AggregateKey) -> bool {
        let is_there = self.map.remove(key).is_some();
        if is_there {
            self.bytes -= key.as_str().len();
        }
        is_there
    }

    fn retain(&mut self, stays: impl Fn(&T) -> bool) {
        self.map.retain(|_, value| stays(value));
        self.bytes = self.map.keys().map(|key| key.as_str().len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::sim::{aggregate, event};

    const TIGHT: BlockedBounds =
        BlockedBounds { keys: 2, suspects: 1, key_bytes: 1 << 10, fingerprints: 3 };

    fn blocked(keys: std::ops::Range<u64>) -> Blocked {
        let mut blocked = Blocked::new(TIGHT);
        for key in keys {
            blocked.block(aggregate(key), None);
        }
        blocked
    }

    fn hold(blocked: &mut Blocked, ticket: u64, key: u64) -> Option<Hold> {
        blocked.hold(Ticket(ticket), &event(1, Some(key)), Ticket(0))
    }

    #[test]
    fn a_key_beyond_the_first_is_suspected_once_and_known_until_it_is_settled() {
        let mut blocked = blocked(0..4);
        assert_eq!(hold(&mut blocked, 1, 0), Some(Hold::Known));
        assert_eq!(hold(&mut blocked, 2, 3), Some(Hold::Suspected));
        assert_eq!(hold(&mut blocked, 3, 3), Some(Hold::Known));
        assert_eq!(hold(&mut blocked, 4, 9), None);
        // No room to keep a second suspect: each of its events has a mark.
        assert_eq!(hold(&mut blocked, 5, 2), Some(Hold::Suspected));
        assert_eq!(hold(&mut blocked, 6, 2), Some(Hold::Suspected));
        let later = blocked.hold(Ticket(7), &event(1, Some(2)), Ticket(7));
        assert_eq!(later, Some(Hold::Suspected), "the other is settled, so this one is kept");
        assert_eq!(hold(&mut blocked, 8, 2), Some(Hold::Known));
    }

    #[test]
    fn a_key_is_released_once_every_held_event_is_recorded_however_it_is_kept() {
        let mut blocked = blocked(0..5);
        for (ticket, key) in [(1, 0), (2, 2), (3, 3)] {
            assert!(hold(&mut blocked, ticket, key).is_some());
            assert!(!blocked.release(&aggregate(key), Ticket(ticket)), "key {key}");
            assert!(blocked.release(&aggregate(key), Ticket(ticket + 1)), "key {key}");
            assert_eq!(hold(&mut blocked, 9, key), None, "key {key}");
        }
        assert_eq!(blocked.len(), 2);
    }

    #[test]
    fn a_key_counted_twice_is_suspected_until_it_was_released_twice() {
        let mut blocked = blocked(0..3);
        blocked.block(aggregate(2), None);
        assert!(blocked.release(&aggregate(2), Ticket(1)));
        assert_eq!(hold(&mut blocked, 1, 2), Some(Hold::Suspected));
        assert!(blocked.release(&aggregate(2), Ticket(2)));
        assert_eq!(hold(&mut blocked, 2, 2), None);
    }

    #[test]
    fn beyond_all_bounds_every_key_is_suspected_until_half_of_them_are_released() {
        let mut blocked = blocked(0..6);
        blocked.being_recorded();
        blocked.recorded();
        assert!(blocked.is_overflown() && !blocked.wants_reload());
        assert_eq!(hold(&mut blocked, 1, 99), Some(Hold::Suspected));
        for key in 2..4 {
            assert!(blocked.release(&aggregate(key), Ticket(9)));
        }
        blocked.recorded();
        assert!(!blocked.wants_reload(), "the database does not know yet");
        blocked.being_recorded();
        blocked.recorded();
        assert!(blocked.wants_reload());
    }

    #[test]
    fn a_million_keys_take_sixteen_megabytes_at_most() {
        let mut blocked = Blocked::new(BlockedBounds::default());
        for key in 0..1_000_000 {
            blocked.block(aggregate(key), None);
        }
        assert!(!blocked.is_overflown());
        assert_eq!(blocked.len(), 1_000_000);
        assert!(blocked.fingerprints.bytes() < 12 << 20, "{}", blocked.fingerprints.bytes());
        assert!(blocked.listed.bytes <= 2 << 20);
        assert_eq!(hold(&mut blocked, 1, 999_999), Some(Hold::Suspected));
        assert_eq!(hold(&mut blocked, 2, 1_000_000), None);
    }
}
