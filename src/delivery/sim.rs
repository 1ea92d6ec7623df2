//! A simulated outbox and broker that drive the decisions through random histories.
//!
//! Each history is a seed. The simulated application commits events out of order; the simulated
//! broker acks, loses acks, is busy, is down, refuses for good, forgets connections; the simulated
//! process is killed and resumes from the last committed settlement. In the end everything heals,
//! and what must hold is checked.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

use bytes::Bytes;
use proptest::prelude::*;
use uuid::Uuid;

use super::{
    Closure, ClosureKind, Delivery, Limits, OnDead, Outcome, Rejection, Settlement, Ticket,
};
use crate::event::{AggregateKey, Event, EventId, Payload, Position, Seq, Snapshot};

/// A small generator, so that a seed is all there is to a history.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// A row: which commit made it visible, which key it has and whether it is poison.
#[derive(Clone, Copy)]
struct Row {
    seq: i64,
    commit: u64,
    key: Option<u64>,
    poison: bool,
}

/// The database: rows, the settled position and the letters. A snapshot is a commit number.
struct Outbox {
    rows: Vec<Row>,
    commits: u64,
    position: Position,
    letters: BTreeMap<i64, bool>,
}

fn snapshot(commit: u64) -> Snapshot {
    Snapshot::new(commit.to_string())
}

fn commit_of(snapshot: &Snapshot) -> u64 {
    snapshot.as_str().parse().unwrap()
}

impl Outbox {
    /// One transaction draws sequence numbers, another overtakes it, then both commit.
    fn write(&mut self, random: &mut Random) {
        let first = self.rows.iter().map(|row| row.seq).max().unwrap_or(0) + 1;
        let count = 1 + random.below(4);
        let late = random.below(count + 1);
        let keys = 1 + random.below(6);
        for offset in 0..count {
            // Keys of the late transaction are its own: a lock on the aggregate would see to it.
            let late_one = offset < late;
            let commit = self.commits + if late_one { 2 } else { 1 };
            let key = (!random.chance(15)).then(|| random.below(keys) + u64::from(late_one) * 100);
            let poison = random.chance(5);
            self.rows.push(Row {
                seq: first + i64::try_from(offset).unwrap(),
                commit,
                key,
                poison,
            });
        }
        self.commits += 1;
    }

    fn page(&self, cursor: &Position, limit: usize) -> Vec<Row> {
        let (low, high) = (commit_of(&cursor.settled), commit_of(&cursor.target));
        let mut rows: Vec<Row> = self
            .rows
            .iter()
            .filter(|row| row.commit > low && row.commit <= high && row.seq > cursor.bookmark.0)
            .copied()
            .collect();
        rows.sort_by_key(|row| row.seq);
        rows.truncate(limit);
        rows
    }

    fn commit(&mut self, settlement: &Settlement) {
        self.position = settlement.position.clone();
        for letter in &settlement.letters {
            self.letters.insert(letter.seq.0, letter.rejection.is_some());
        }
    }

    fn held_keys(&self) -> Vec<AggregateKey> {
        let lettered = |row: &&Row| self.letters.contains_key(&row.seq);
        self.rows.iter().filter(lettered).filter_map(|row| row.key).map(aggregate).collect()
    }
}

fn aggregate(key: u64) -> AggregateKey {
    AggregateKey::new("k", &key.to_string())
}

fn event(row: Row) -> Event {
    Event {
        seq: Seq(row.seq),
        id: EventId(Uuid::from_u128(u128::try_from(row.seq).unwrap())),
        occurred_at: None,
        event_type: "t".into(),
        event_version: 1,
        kind: "domain".into(),
        key: row.key.map(aggregate),
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

/// One process with its memory, and the broker.
struct World {
    random: Random,
    outbox: Outbox,
    stream: Vec<i64>,
    stored: HashSet<i64>,
    poison: HashSet<i64>,
    delivery: Delivery,
    in_flight: Vec<(Ticket, i64)>,
    settling: Option<Settlement>,
    now: Instant,
    on_dead: OnDead,
}

impl World {
    fn new(seed: u64, on_dead: OnDead) -> Self {
        let position = Position {
            settled: snapshot(0),
            target: snapshot(0),
            bookmark: Seq(0),
            floor: Seq(0),
            target_floor: Seq(0),
        };
        let outbox = Outbox {
            rows: Vec::new(),
            commits: 0,
            position: position.clone(),
            letters: BTreeMap::new(),
        };
        Self {
            random: Random(seed),
            outbox,
            stream: Vec::new(),
            stored: HashSet::new(),
            poison: HashSet::new(),
            delivery: Delivery::resume(position, [], LIMITS, on_dead),
            in_flight: Vec::new(),
            settling: None,
            now: Instant::now(),
            on_dead,
        }
    }

    fn fetch(&mut self) {
        let mut cursor = self.delivery.cursor();
        let room = self.delivery.room();
        if room.events == 0 {
            return;
        }
        if cursor.is_complete() {
            self.delivery.begin(snapshot(self.outbox.commits), Seq(0));
            cursor = self.delivery.cursor();
        }
        let limit = room.events.min(3);
        let rows = self.outbox.page(&cursor, limit);
        let complete = rows.len() < limit;
        self.poison.extend(rows.iter().filter(|row| row.poison).map(|row| row.seq));
        self.delivery.admit(rows.into_iter().map(event));
        if complete {
            self.delivery.exhausted();
        }
    }

    fn dispatch(&mut self) {
        while let Some(ticket) = self.delivery.next(self.now) {
            let seq = self.delivery.event(ticket).unwrap().0.seq.0;
            let key = |seq: i64| self.outbox.rows.iter().find(|row| row.seq == seq).unwrap().key;
            let same = self.in_flight.iter().any(|(_, other)| key(*other) == key(seq));
            assert!(key(seq).is_none() || !same, "two of a key on their way");
            self.delivery.sent(ticket, self.now);
            self.in_flight.push((ticket, seq));
            assert!(self.in_flight.len() <= LIMITS.in_flight_events, "window exceeded");
        }
    }

    /// Answers one message on its way, well or badly.
    fn answer(&mut self, trouble: u64) {
        if self.in_flight.is_empty() {
            return;
        }
        let index = usize::try_from(self.random.below(self.in_flight.len() as u64)).unwrap();
        let (ticket, seq) = self.in_flight.swap_remove(index);
        let outcome = if self.random.chance(trouble) {
            match self.random.below(4) {
                0 => Outcome::Unavailable(Closure {
                    kind: ClosureKind::StreamUnavailable,
                    text: "down".into(),
                }),
                1 => Outcome::Busy { text: "busy".into() },
                2 => Outcome::Unconfirmed,
                _ => {
                    if !self.poison.contains(&seq) {
                        self.store(seq);
                    }
                    Outcome::Unconfirmed
                }
            }
        } else if self.poison.contains(&seq) {
            Outcome::Rejected(Rejection { code: "rejected", text: "poison".into() })
        } else {
            self.store(seq)
        };
        self.delivery.resolve(ticket, outcome, self.now);
    }

    fn store(&mut self, seq: i64) -> Outcome {
        let duplicate = !self.stored.insert(seq);
        if !duplicate {
            self.stream.push(seq);
        }
        Outcome::Acked { stream_seq: self.stream.len() as u64, duplicate }
    }

    fn settle(&mut self, trouble: u64) {
        if self.settling.is_none() {
            self.settling = self.delivery.take_settlement();
        }
        if self.random.chance(trouble) {
            return;
        }
        if let Some(settlement) = self.settling.take() {
            for seq in 1..=settlement.position.bookmark.0 {
                self.assert_decided(&settlement, seq);
            }
            self.outbox.commit(&settlement);
        }
    }

    /// Invariants 1 and 2: nothing is settled that is neither in the stream nor a letter.
    fn assert_decided(&self, settlement: &Settlement, seq: i64) {
        let (settled, target) =
            (commit_of(&settlement.position.settled), commit_of(&settlement.position.target));
        let row = self.outbox.rows.iter().find(|row| row.seq == seq).unwrap();
        let passed = row.commit <= settled
            || (row.commit <= target && row.seq <= settlement.position.bookmark.0);
        let decided = self.stored.contains(&seq)
            || self.outbox.letters.contains_key(&seq)
            || settlement.letters.iter().any(|letter| letter.seq.0 == seq);
        assert!(!passed || decided, "row {seq} was settled without an answer");
    }

    fn kill(&mut self) {
        self.in_flight.clear();
        self.settling = None;
        let held = self.outbox.held_keys();
        let held = if self.on_dead == OnDead::Hold { held } else { Vec::new() };
        self.delivery = Delivery::resume(self.outbox.position.clone(), held, LIMITS, self.on_dead);
    }

    fn step(&mut self, trouble: u64) {
        match self.random.below(100) {
            0..25 => self.outbox.write(&mut self.random),
            25..45 => self.fetch(),
            45..65 => self.dispatch(),
            65..85 => self.answer(trouble),
            85..95 => self.settle(trouble),
            95..99 => self.now += Duration::from_millis(self.random.below(300)),
            _ => self.kill(),
        }
    }

    fn heal(&mut self) {
        self.outbox.commits += 2;
        for _ in 0..self.outbox.rows.len() * 20 + 1000 {
            self.now += Duration::from_secs(1);
            self.fetch();
            self.dispatch();
            while !self.in_flight.is_empty() {
                self.answer(0);
            }
            self.settle(0);
        }
    }

    fn check(&self) {
        assert_eq!(self.delivery.events(), 0, "events stay in memory after the healing");
        let mut last_of_key: HashMap<u64, i64> = HashMap::new();
        let key_of: HashMap<i64, Option<u64>> =
            self.outbox.rows.iter().map(|row| (row.seq, row.key)).collect();
        for seq in &self.stream {
            if let Some(key) = key_of[seq] {
                let before = last_of_key.insert(key, *seq);
                assert!(before < Some(*seq), "key {key}: {seq} follows {before:?}");
            }
        }
        for row in &self.outbox.rows {
            let lettered = self.outbox.letters.get(&row.seq);
            let stored = self.stored.contains(&row.seq);
            assert!(stored ^ lettered.is_some(), "row {} is lost or told twice", row.seq);
            match lettered {
                Some(true) => assert!(row.poison, "row {} is dead without a reason", row.seq),
                Some(false) => assert!(self.waits_behind_a_dead_one(row), "row {}", row.seq),
                None => assert!(!row.poison, "row {} is poison and was stored", row.seq),
            }
        }
    }

    fn waits_behind_a_dead_one(&self, row: &Row) -> bool {
        let dead = |other: &&Row| self.outbox.letters.get(&other.seq) == Some(&true);
        let mut dead_ones = self.outbox.rows.iter().filter(dead);
        self.on_dead == OnDead::Hold && dead_ones.any(|other| other.key == row.key)
    }
}

const LIMITS: Limits =
    Limits { in_flight_events: 5, in_flight_bytes: 4, memory_events: 12, memory_bytes: 1 << 20 };

fn run(seed: u64, trouble: u64, on_dead: OnDead, steps: usize) -> World {
    let mut world = World::new(seed, on_dead);
    for _ in 0..steps {
        world.step(trouble);
    }
    world.heal();
    world.check();
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_histories_end_with_every_event_once_and_in_order(
        seed in any::<u64>(), trouble in 0u64..70, hold in any::<bool>(), steps in 50usize..600,
    ) {
        run(seed, trouble, if hold { OnDead::Hold } else { OnDead::Skip }, steps);
    }
}

#[test]
fn the_histories_reach_the_states_that_matter() {
    let (mut letters, mut held, mut stored) = (0, 0, 0);
    for seed in 0..200 {
        let world = run(seed, 40, OnDead::Hold, 400);
        letters += world.outbox.letters.values().filter(|dead| **dead).count();
        held += world.outbox.letters.values().filter(|dead| !**dead).count();
        stored += world.stream.len();
    }
    assert!(letters > 100 && held > 100 && stored > 1000, "{letters} {held} {stored}");
}
