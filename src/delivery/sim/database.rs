//! The simulated database: rows that become visible out of order, the position, the letters.

use std::{
    collections::{BTreeMap, HashSet},
    sync::OnceLock,
    time::Instant,
};

use bytes::Bytes;
use uuid::Uuid;

use super::SimulationRandom;
use crate::{
    delivery::{
        Certainty, Delivery, DeliveryRules, EarlierRun, Fate, KeyLetters, LetterChange, LetterId,
        LetterReadiness, Mark, OnDead, Record, Resume, Retry, RetryPolicy, Settlement,
        StoredLetter, StreamMark, WindowLimits,
    },
    event::{AggregateKey, Event, EventId, Payload, Position, Seq, Snapshot},
};

/// Row of the simulated outbox. `commit` is the number of the commit that made it visible.
#[derive(Clone, Copy)]
pub(super) struct OutboxRow {
    pub(super) seq: i64,
    commit: u64,
    pub(super) key: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LetterRowState {
    Retrying,
    Held,
    Dead,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Resolution {
    Published,
    Discarded,
}

/// A letter; its number is the `seq` of its row.
#[derive(Clone, Debug)]
pub(super) struct LetterRow {
    pub(super) state: LetterRowState,
    pub(super) holds: bool,
    attempts: u32,
    next: Option<Instant>,
    pub(super) resolution: Option<Resolution>,
    pub(super) deaths: u32,
}

/// Rows, the settled position and the letters. A snapshot is a commit number.
pub(super) struct SimulatedDatabase {
    pub(super) rows: Vec<OutboxRow>,
    commits: u64,
    position: Position,
    mark: StreamMark,
    sent_to: Seq,
    pub(super) letters: BTreeMap<i64, LetterRow>,
}

fn snapshot(commit: u64) -> Snapshot {
    Snapshot::new(commit.to_string())
}

fn commit_of(snapshot: &Snapshot) -> u64 {
    snapshot.as_str().parse().unwrap()
}

pub(in crate::delivery) fn aggregate(key: u64) -> AggregateKey {
    AggregateKey::new("k", &key.to_string())
}

impl SimulatedDatabase {
    pub(super) fn new() -> Self {
        let nothing = snapshot(0);
        let position = Position {
            settled: nothing.clone(),
            target: nothing,
            bookmark: Seq(0),
            floor: Seq(0),
            target_floor: Seq(0),
        };
        let mark = StreamMark::default();
        let sent_to = Seq(0);
        Self { rows: Vec::new(), commits: 0, position, mark, sent_to, letters: BTreeMap::new() }
    }

    /// Inserts the rows of two transactions that overlap. The one that drew the lower sequence
    /// numbers commits last, so its rows become visible with the next write.
    pub(super) fn write(&mut self, random: &mut SimulationRandom) {
        let first = i64::try_from(self.rows.len()).unwrap() + 1;
        let count = 1 + random.below(4);
        let late = random.below(count + 1);
        let keys = 1 + random.below(6);
        for offset in 0..count {
            // The late transaction has keys of its own: in an application a lock on the aggregate
            // keeps two open transactions from inserting for one key.
            let late_one = offset < late;
            let commit = self.commits + if late_one { 2 } else { 1 };
            let key = (!random.chance(15)).then(|| random.below(keys) + u64::from(late_one) * 100);
            self.rows.push(OutboxRow { seq: first + i64::try_from(offset).unwrap(), commit, key });
        }
        self.commits += 1;
    }

    /// Commits all open transactions.
    pub(super) fn commit_all(&mut self) {
        self.commits += 2;
    }

    pub(super) fn target(&self) -> Snapshot {
        snapshot(self.commits)
    }

    pub(super) fn row(&self, seq: i64) -> OutboxRow {
        self.rows[usize::try_from(seq).unwrap() - 1]
    }

    pub(super) fn page(&self, cursor: &Position, limit: usize) -> Vec<Event> {
        let (low, high) = (commit_of(&cursor.settled), commit_of(&cursor.target));
        let new = |row: &&OutboxRow| {
            row.commit > low && row.commit <= high && row.seq > cursor.bookmark.0
        };
        self.rows.iter().filter(new).take(limit).map(|row| event(row.seq, row.key)).collect()
    }

    /// Whether the position says that the row is settled.
    pub(super) fn is_settled(position: &Position, row: OutboxRow) -> bool {
        row.commit <= commit_of(&position.settled)
            || (row.seq <= position.bookmark.0 && row.commit <= commit_of(&position.target))
    }

    pub(super) fn settle(&mut self, settlement: &Settlement, on_dead: OnDead, now: Instant) {
        self.position = settlement.position.clone();
        self.mark = settlement.stream;
        for letter in &settlement.letters {
            let (state, attempts, next) = match &letter.fate {
                Fate::Dead { attempts, .. } => (LetterRowState::Dead, *attempts, None),
                Fate::Retrying(Retry { attempts, wait, .. }) => {
                    (LetterRowState::Retrying, *attempts, Some(now + *wait))
                }
                Fate::Held(Certainty::Known) => (LetterRowState::Held, 0, None),
                Fate::Held(Certainty::Suspected) => (LetterRowState::Held, 0, Some(now)),
            };
            let new = LetterRow {
                state,
                holds: state != LetterRowState::Dead || on_dead == OnDead::Hold,
                attempts,
                next,
                resolution: None,
                deaths: u32::from(state == LetterRowState::Dead),
            };
            let before = self.letters.insert(letter.seq.0, new);
            assert!(before.is_none(), "row {} became a letter twice", letter.seq);
        }
    }

    /// Records the bound up to which a leader may send.
    pub(super) fn renew(&mut self, sent_to: Seq) {
        self.sent_to = self.sent_to.max(sent_to);
    }

    /// Records a higher bound if sending waits for one. Returns whether it did.
    pub(super) fn confirms_bound(&mut self, delivery: &mut Delivery, now: Instant) -> bool {
        if !delivery.is_beyond_sent_to() {
            return false;
        }
        assert!(delivery.next(now).is_none());
        self.renew(delivery.next_sent_to());
        delivery.bound_recorded(self.sent_to);
        true
    }

    pub(super) fn resume(&self) -> Resume {
        Resume {
            position: self.position.clone(),
            lettered: HashSet::new(),
            stream: self.mark,
            earlier: EarlierRun::Some { sent_to: self.sent_to },
            sent_to: self.sent_to,
        }
    }

    /// Blocked keys, as `load_blocked_keys.sql` returns them. Any letter with a mark blocks its
    /// key, because other letters may wait behind it. So does a dead letter that holds.
    pub(super) fn blocked_keys(&self) -> impl Iterator<Item = AggregateKey> {
        let blocks = |letter: &LetterRow| {
            letter.next.is_some()
                || letter.resolution.is_none()
                    && letter.state == LetterRowState::Dead
                    && letter.holds
        };
        let blocked = self.letters.iter().filter(move |(_, letter)| blocks(letter));
        blocked.filter_map(|(seq, _)| self.row(*seq).key).map(aggregate)
    }

    /// The keys whose letters are due, each with its marks.
    pub(super) fn due(&self, now: Instant) -> Vec<(Option<u64>, Vec<Mark>)> {
        let mut keys: Vec<(Option<u64>, Vec<Mark>)> = Vec::new();
        for (seq, letter) in &self.letters {
            if letter.next.is_none_or(|next| next > now) {
                continue;
            }
            let mark = Mark { id: LetterId(*seq), at: letter.next.map(microseconds) };
            let key = self.row(*seq).key;
            match keys.iter_mut().find(|(other, _)| key.is_some() && *other == key) {
                Some((_, marks)) => marks.push(mark),
                None => keys.push((key, vec![mark])),
            }
        }
        keys
    }

    pub(super) fn load_letters(
        &self,
        key: Option<u64>,
        marks: Vec<Mark>,
        now: Instant,
    ) -> KeyLetters {
        let first = marks.first().unwrap().id.0;
        let of_key = |seq: i64| match key {
            None => seq == first,
            Some(_) => self.row(seq).key == key,
        };
        let unresolved = self.letters.iter().filter(|(seq, letter)| {
            let waits = letter.holds || letter.state != LetterRowState::Dead;
            of_key(**seq) && letter.resolution.is_none() && waits
        });
        let letters = unresolved.take(4).map(|(seq, letter)| StoredLetter {
            id: LetterId(*seq),
            readiness: match letter.state {
                LetterRowState::Dead => LetterReadiness::Dead,
                LetterRowState::Retrying if letter.next.is_some_and(|next| next > now) => {
                    LetterReadiness::NotDue
                }
                LetterRowState::Retrying | LetterRowState::Held => LetterReadiness::Ready,
            },
            attempts: letter.attempts,
            holds: letter.holds,
            event: Box::new(event(*seq, self.row(*seq).key)),
        });
        KeyLetters { marks, key: key.map(aggregate), letters: letters.collect() }
    }

    pub(super) fn record(&mut self, records: &[Record], now: Instant) {
        for Record { id: LetterId(seq), change, load } in records {
            let letter = self.letters.get_mut(seq).unwrap();
            let seen = matches!(change, LetterChange::Seen { .. });
            if letter.resolution.is_some() && !seen {
                continue;
            }
            if let LetterChange::Seen { at: Some(at) } = change
                && letter.next.map(microseconds) != Some(*at)
            {
                continue;
            }
            letter.next = load.then_some(now);
            match change {
                LetterChange::Published { .. } => letter.resolution = Some(Resolution::Published),
                LetterChange::Dead { attempts, holds, .. } => {
                    letter.state = LetterRowState::Dead;
                    letter.attempts = *attempts;
                    letter.holds = *holds;
                    letter.deaths += 1;
                }
                LetterChange::Retrying(Retry { attempts, wait, .. }) => {
                    letter.state = LetterRowState::Retrying;
                    letter.attempts = *attempts;
                    letter.next = Some(now + *wait);
                }
                LetterChange::Held => letter.state = LetterRowState::Held,
                LetterChange::Seen { .. } => {}
            }
        }
    }

    /// Number of letters of the same key with a lower `seq`.
    pub(super) fn letters_of_same_key(&self, seq: i64) -> usize {
        let key = self.row(seq).key;
        self.letters.range(..seq).filter(|(other, _)| self.row(**other).key == key).count()
    }

    /// Dead letters, the oldest first.
    pub(super) fn dead(&self) -> Vec<i64> {
        let dead = |letter: &LetterRow| {
            letter.state == LetterRowState::Dead && letter.resolution.is_none()
        };
        self.letters.iter().filter(|(_, letter)| dead(letter)).map(|(seq, _)| *seq).collect()
    }

    pub(super) fn redrive(&mut self, seq: i64, now: Instant) {
        let letter = self.letters.get_mut(&seq).unwrap();
        letter.state = LetterRowState::Retrying;
        letter.attempts = 0;
        letter.next = Some(now);
    }

    pub(super) fn discard(&mut self, seq: i64, now: Instant) {
        let letter = self.letters.get_mut(&seq).unwrap();
        letter.resolution = Some(Resolution::Discarded);
        letter.next = Some(now);
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.letters.values().filter_map(|letter| letter.next).min()
    }
}

fn microseconds(at: Instant) -> i64 {
    // An `Instant` has no number of its own, so this one is counted from the first that was asked
    // for.
    static START: OnceLock<Instant> = OnceLock::new();
    i64::try_from(at.duration_since(*START.get_or_init(|| at)).as_micros()).unwrap()
}

/// Event of a row.
pub(crate) fn event(seq: i64, key: Option<u64>) -> Event {
    Event {
        seq: Seq(seq),
        id: EventId(Uuid::from_u128(u128::try_from(seq).unwrap())),
        occurred_at: None,
        event_type: "t".into(),
        event_version: 1,
        kind: "domain".into(),
        key: key.map(aggregate),
        aggregate_version: None,
        source: None,
        subject: None,
        content_type: "".into(),
        payload: Payload::Bytes(Bytes::from_static(b"x")),
        headers: None,
        correlation_id: None,
        causation_id: None,
        actor: None,
    }
}

/// A run with nothing settled, for tests that need no simulated database.
pub(in crate::delivery) fn resumed_with(
    limits: WindowLimits,
    earlier: EarlierRun,
    now: Instant,
) -> Delivery {
    let snapshot = Snapshot::new("3:3:".to_owned());
    let position = Position {
        settled: snapshot.clone(),
        target: snapshot,
        bookmark: Seq(0),
        floor: Seq(0),
        target_floor: Seq(0),
    };
    let (stream, sent_to) = (StreamMark::default(), Seq(i64::MAX));
    let resume = Resume { position, lettered: HashSet::new(), stream, earlier, sent_to };
    let rules = DeliveryRules { on_dead: OnDead::Hold, retry: RetryPolicy::default() };
    Delivery::resume(resume, limits, rules, now)
}
