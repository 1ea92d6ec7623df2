//! Blocked keys: which events have to wait behind a letter of their key, in bounded memory.
//!
//! The first keys are kept as texts. Beyond a bound only a fingerprint of 64 bits is kept of a key,
//! and beyond a second bound every key counts as blocked. So a key may be *suspected* without being
//! blocked. That costs time and never order: a suspected event becomes a held letter with a mark,
//! and the mark makes the relay load the letters of that key. If no letter stands before the event,
//! it is published at once as a letter.

mod fingerprints;

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
};

use crate::{
    delivery::Ticket,
    event::{AggregateKey, Event},
};
use fingerprints::Fingerprints;

/// Bounds of the memory that blocked keys take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockedBounds {
    /// Most blocked keys that are kept as texts.
    pub keys: usize,
    /// Most suspected keys that are kept as texts.
    pub suspects: usize,
    /// Most bytes of the texts of blocked keys. The same bound applies to those of suspected keys.
    pub key_bytes: usize,
    /// Most blocked keys that are kept as fingerprints, beyond those kept as texts. A fingerprint
    /// takes about 9 bytes.
    pub fingerprints: usize,
}

impl Default for BlockedBounds {
    fn default() -> Self {
        Self { keys: 16_384, suspects: 4_096, key_bytes: 2 << 20, fingerprints: 4 << 20 }
    }
}

/// Certainty with which an event is blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certainty {
    /// A letter of its key stands before the event, and that letter is dead or has a mark.
    Known,
    /// A letter of its key may stand before the event, so that the event needs a mark of its own.
    Suspected,
}

/// Set of blocked and suspected keys.
#[derive(Debug)]
pub(in crate::delivery) struct Blocked {
    bounds: BlockedBounds,
    /// Keys kept as texts, each with its last event that became a held letter in this holding.
    listed: Keys<Option<Ticket>>,
    /// Keys of suspected events, until the last of these events is settled or the key is released.
    suspects: Keys<Ticket>,
    /// Fingerprints of the blocked keys that are not kept as texts. A key that was blocked twice
    /// has two.
    fingerprints: Fingerprints,
    hasher: RandomState,
    /// Whether more keys were blocked than memory may keep, so that every key is suspected of
    /// having a letter.
    is_overflown: bool,
    /// Latest event that became a held letter while its key could not be kept as a text.
    last_unlisted: Option<Ticket>,
    /// Ticket below which all events were settled when suspected keys were last removed; `None`
    /// before that.
    swept: Option<Ticket>,
    reload: Reload,
}

/// State of a reload of the blocked keys from the database. The reload waits until the database has
/// recorded all releases, because an earlier one would block released keys again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reload {
    No,
    OnceRecorded,
    Due,
}

impl Blocked {
    /// Makes a set without blocked keys.
    pub(in crate::delivery) fn new(bounds: BlockedBounds) -> Self {
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

    /// Number of blocked keys. A key with several dead letters may count more than once.
    pub(in crate::delivery) fn len(&self) -> usize {
        self.listed.map.len() + self.fingerprints.len()
    }

    /// Whether the set is empty: no key is blocked or suspected.
    pub(in crate::delivery) fn is_empty(&self) -> bool {
        self.len() == 0 && self.suspects.map.is_empty() && !self.is_overflown
    }

    /// Whether every key is suspected of having a letter, because the bounds of memory were
    /// exceeded.
    pub(in crate::delivery) fn is_overflown(&self) -> bool {
        self.is_overflown
    }

    /// Whether the blocked keys should be loaded again: every key is suspected, but those still
    /// blocked need at most half of the memory, and all releases are recorded.
    pub(in crate::delivery) fn wants_reload(&self) -> bool {
        self.reload == Reload::Due
    }

    /// Notes that records of letters are about to be written. They include the release of every key
    /// that was released until now.
    pub(in crate::delivery) fn being_recorded(&mut self) {
        if self.is_overflown && self.fingerprints.len() <= self.bounds.fingerprints / 2 {
            self.reload = self.reload.max(Reload::OnceRecorded);
        }
    }

    /// Notes that the records of letters are written.
    pub(in crate::delivery) fn recorded(&mut self) {
        if self.reload == Reload::OnceRecorded {
            self.reload = Reload::Due;
        }
    }

    /// Blocks a key: its later events become held letters. `last` is the last such event in memory,
    /// if any; the key stays blocked until that event is settled.
    pub(in crate::delivery) fn block(&mut self, key: AggregateKey, last: Option<Ticket>) {
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

    /// Checks whether the event has to wait behind a letter of its key, and notes the event if so.
    ///
    /// `settled_up_to` is the exclusive upper bound of the tickets settled in the database.
    pub(in crate::delivery) fn check_event(
        &mut self,
        ticket: Ticket,
        event: &Event,
        settled_up_to: Ticket,
    ) -> Option<Certainty> {
        if self.is_empty() {
            return None;
        }
        let key = event.lane()?;
        if let Some(last) = self.listed.map.get_mut(key) {
            *last = Some(ticket);
            return Some(Certainty::Known);
        }
        // An earlier suspected event of this key has a mark already, which makes the relay load the
        // key. So this event needs none.
        if let Some(last) = self.suspects.map.get_mut(key) {
            *last = ticket;
            return Some(Certainty::Known);
        }
        if !self.is_suspected(key) {
            return None;
        }
        if self.has_room_for_suspect(key, settled_up_to) {
            self.suspects.insert(key.clone(), ticket);
        } else {
            self.last_unlisted = Some(ticket);
        }
        Some(Certainty::Suspected)
    }

    /// Releases a key that has no letter left among the events settled before `settled_up_to`. If
    /// an event of the key became a held letter since, the key stays blocked. Returns whether it
    /// was released.
    pub(in crate::delivery) fn release(
        &mut self,
        key: &AggregateKey,
        settled_up_to: Ticket,
    ) -> bool {
        let last = match (self.listed.map.get(key), self.suspects.map.get(key)) {
            (None, None) if self.is_suspected(key) => self.last_unlisted,
            (listed, suspect) => listed.copied().flatten().max(suspect.copied()),
        };
        if last.is_some_and(|last| last >= settled_up_to) {
            return false;
        }
        self.suspects.remove(key);
        // A key that was never blocked may share the fingerprint of a blocked one. Its release then
        // takes the fingerprint of the blocked key, whose order is lost. Among a million blocked
        // keys that happens once in 10^13 times.
        if !self.listed.remove(key) && !self.fingerprints.is_empty() {
            self.fingerprints.remove(self.fingerprint(key));
        }
        true
    }

    /// Makes a key suspected, whether it has a letter or not.
    #[cfg(test)]
    pub(in crate::delivery) fn suspect(&mut self, key: &AggregateKey) {
        self.fingerprints.insert(self.fingerprint(key));
    }

    /// Makes a set of these blocked keys for the simulation, with its bounds of memory.
    #[cfg(test)]
    pub(in crate::delivery) fn for_a_history(
        bounds: BlockedBounds,
        keys: impl IntoIterator<Item = AggregateKey>,
    ) -> Self {
        let mut blocked = Self::new(bounds);
        for key in keys {
            blocked.block(key, None);
        }
        blocked
    }

    /// Number of keys that are kept as texts.
    #[cfg(test)]
    pub(in crate::delivery) fn listed(&self) -> usize {
        self.listed.map.len()
    }

    /// Whether the key is kept as a text, blocked or suspected.
    #[cfg(test)]
    pub(in crate::delivery) fn is_kept(&self, key: &AggregateKey) -> bool {
        self.listed.map.contains_key(key) || self.suspects.map.contains_key(key)
    }

    fn is_suspected(&self, key: &AggregateKey) -> bool {
        let is_counted =
            !self.fingerprints.is_empty() && self.fingerprints.contains(self.fingerprint(key));
        is_counted || self.is_overflown
    }

    /// Whether one more suspected key can be kept as a text. At the bound, suspected keys whose
    /// events are settled are removed first. The next event of such a key has a mark of its own
    /// again.
    fn has_room_for_suspect(&mut self, key: &AggregateKey, settled_up_to: Ticket) -> bool {
        let BlockedBounds { suspects, key_bytes, .. } = self.bounds;
        if self.suspects.has_room(key, suspects, key_bytes) {
            return true;
        }
        if self.swept.is_none_or(|swept| swept < settled_up_to) {
            self.swept = Some(settled_up_to);
            self.suspects.retain(|last| *last >= settled_up_to);
        }
        self.suspects.has_room(key, suspects, key_bytes)
    }

    /// Fingerprint of a key. The hash is keyed at random, so that no one can choose colliding keys.
    fn fingerprint(&self, key: &AggregateKey) -> u64 {
        self.hasher.hash_one(key)
    }
}

/// Keys as texts, and the bytes of these texts.
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

    fn check(blocked: &mut Blocked, ticket: u64, key: u64) -> Option<Certainty> {
        blocked.check_event(Ticket(ticket), &event(1, Some(key)), Ticket(0))
    }

    #[test]
    fn a_key_beyond_the_first_is_suspected_once_and_known_until_it_is_settled() {
        let mut blocked = blocked(0..4);
        assert_eq!(check(&mut blocked, 1, 0), Some(Certainty::Known));
        assert_eq!(check(&mut blocked, 2, 3), Some(Certainty::Suspected));
        assert_eq!(check(&mut blocked, 3, 3), Some(Certainty::Known));
        assert_eq!(check(&mut blocked, 4, 9), None);
        // There is no room to keep a second suspected key, so each event of that key has a mark.
        assert_eq!(check(&mut blocked, 5, 2), Some(Certainty::Suspected));
        assert_eq!(check(&mut blocked, 6, 2), Some(Certainty::Suspected));
        let later = blocked.check_event(Ticket(7), &event(1, Some(2)), Ticket(7));
        assert_eq!(later, Some(Certainty::Suspected), "the other is settled, so this one is kept");
        assert_eq!(check(&mut blocked, 8, 2), Some(Certainty::Known));
    }

    #[test]
    fn a_key_is_released_once_every_held_event_is_recorded_however_it_is_kept() {
        let mut blocked = blocked(0..5);
        for (ticket, key) in [(1, 0), (2, 2), (3, 3)] {
            assert!(check(&mut blocked, ticket, key).is_some());
            assert!(!blocked.release(&aggregate(key), Ticket(ticket)), "key {key}");
            assert!(blocked.release(&aggregate(key), Ticket(ticket + 1)), "key {key}");
            assert_eq!(check(&mut blocked, 9, key), None, "key {key}");
        }
        assert_eq!(blocked.len(), 2);
    }

    #[test]
    fn a_key_counted_twice_is_suspected_until_it_was_released_twice() {
        let mut blocked = blocked(0..3);
        blocked.block(aggregate(2), None);
        assert!(blocked.release(&aggregate(2), Ticket(1)));
        assert_eq!(check(&mut blocked, 1, 2), Some(Certainty::Suspected));
        assert!(blocked.release(&aggregate(2), Ticket(2)));
        assert_eq!(check(&mut blocked, 2, 2), None);
    }

    #[test]
    fn beyond_all_bounds_every_key_is_suspected_until_half_of_them_are_released() {
        let mut blocked = blocked(0..6);
        blocked.being_recorded();
        blocked.recorded();
        assert!(blocked.is_overflown() && !blocked.wants_reload());
        assert_eq!(check(&mut blocked, 1, 99), Some(Certainty::Suspected));
        for key in 2..4 {
            assert!(blocked.release(&aggregate(key), Ticket(9)));
        }
        blocked.recorded();
        assert!(!blocked.wants_reload(), "the database does not have the releases yet");
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
        assert_eq!(check(&mut blocked, 1, 999_999), Some(Certainty::Suspected));
        assert_eq!(check(&mut blocked, 2, 1_000_000), None);
    }
}
