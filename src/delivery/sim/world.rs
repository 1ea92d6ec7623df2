//! World of one history: a process with its memory, a database, a log and an operator.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use super::{
    SimulationRandom, Sometimes,
    database::{LetterRowState, Resolution, SimulatedDatabase, aggregate},
    in_flight::{InFlight, InFlightBatch},
    stream::{LATE_MAX, LogKind, SimulatedStream, rejected},
    zombie::Zombie,
};
use crate::{
    delivery::{
        Attempt, BatchKind, BlockedBounds, Certainty, Closure, ClosureKind, Delivery,
        DeliveryRules, Fate, Grouping, Growth, LetterId, LetterReadiness, OnDead, Outcome, Records,
        Rejection, RetryPolicy, Settlement, StoredLetter, Ticket, WindowLimits,
        order::blocked::Blocked,
    },
    event::Seq,
};

const LIMITS: WindowLimits = WindowLimits {
    in_flight_events: 5,
    in_flight_bytes: 4,
    memory_events: 12,
    memory_bytes: 1 << 20,
};

/// Retry policy of the histories, each of which has its own first wait. Short waits are spent in
/// memory, longer ones as a letter.
const RETRY: RetryPolicy = RetryPolicy {
    attempts: 3,
    delay: Duration::from_millis(350),
    growth: Growth::Exponential,
    jitter: 0.2,
    max_delay: Duration::from_secs(2),
};

/// Rounds after the last step in which the broker is still busy for some events, and the process is
/// still killed.
const TOUGH_ROUNDS: usize = 60;

#[expect(
    clippy::struct_excessive_bools,
    reason = "two facts that have nothing to do with each other"
)]
pub(super) struct World {
    pub(super) random: SimulationRandom,
    pub(super) database: SimulatedDatabase,
    pub(super) stream: SimulatedStream,
    pub(super) delivery: Delivery,
    pub(super) in_flight: Vec<InFlight>,
    pub(super) batches: Vec<InFlightBatch>,
    pub(super) takes_batches: bool,
    /// Instance before this one, which has not noticed that its lease is over.
    pub(super) zombie: Option<Zombie>,
    pub(super) settling: Option<Settlement>,
    pub(super) recording: Option<Records>,
    pub(super) now: Instant,
    pub(super) rules: DeliveryRules,
    pub(super) bounds: BlockedBounds,
    /// The kind of the simulated log.
    pub(super) kind: LogKind,
    /// Events that a log which cannot be read back may store more than once: a publish of them had
    /// no answer, or was not settled when the process died.
    pub(super) may_repeat: HashSet<i64>,
    /// Percent of answers that are bad. Each history has its own.
    pub(super) failure_percent: u64,
    /// Events that the broker refuses for good.
    pub(super) poison: HashSet<i64>,
    /// Events for which the broker is busy most of the time.
    pub(super) tough: HashSet<i64>,
    /// Events that became dead letters at any time. After a crash before that was recorded they are
    /// sent again.
    died: HashSet<i64>,
    /// Exclusive lower bound, a stream sequence, of the scan that has to come before anything is
    /// sent. `None` when no scan is needed.
    pub(super) scan_above: Option<u64>,
    pub(super) is_start: bool,
    pub(super) sometimes: Sometimes,
}

/// Run that resumes from the last settlement. It knows the capabilities of the log, as a relay does
/// before it sends anything.
pub(super) fn resumed(
    database: &SimulatedDatabase,
    (rules, bounds, kind): (DeliveryRules, BlockedBounds, LogKind),
    now: Instant,
) -> Delivery {
    let mut delivery = Delivery::resume(database.resume(), LIMITS, rules, now);
    delivery.blocked = Blocked::for_a_history(bounds, database.blocked_keys());
    delivery.set_capabilities(kind.capabilities());
    delivery
}

impl World {
    pub(super) fn new(mut random: SimulationRandom, on_dead: OnDead, kind: LogKind) -> Self {
        let database = SimulatedDatabase::new();
        let delay = [50, 350, 600, 1_000].map(Duration::from_millis);
        let delay = delay[usize::try_from(random.below(4)).unwrap()];
        let rules = DeliveryRules { on_dead, retry: RetryPolicy { delay, ..RETRY } };
        let now = Instant::now();
        // Some histories keep only few keys as texts and few fingerprints; others have room for all
        // keys.
        let mut bound = |most: u64| usize::try_from(random.below(most)).unwrap();
        let bounds = BlockedBounds {
            keys: [0, 1, 3, 100][bound(4)],
            suspects: bound(3),
            key_bytes: 1_000,
            fingerprints: [1, 4, 100][bound(3)],
        };
        Self {
            delivery: resumed(&database, (rules, bounds, kind), now),
            failure_percent: random.below(70),
            // Only a log with a memory for ids takes batches.
            takes_batches: random.chance(70) && kind == LogKind::Remembers,
            random,
            database,
            stream: SimulatedStream::new(kind),
            in_flight: Vec::new(),
            batches: Vec::new(),
            zombie: None,
            settling: None,
            recording: None,
            now,
            rules,
            bounds,
            kind,
            may_repeat: HashSet::new(),
            poison: HashSet::new(),
            tough: HashSet::new(),
            died: HashSet::new(),
            scan_above: Some(0),
            is_start: true,
            sometimes: Sometimes::default(),
        }
    }

    pub(super) fn step(&mut self) {
        if self.random.chance(30) {
            self.go_on_beside();
        }
        match self.random.below(100) {
            0..13 => self.write(),
            13..28 => self.fetch(),
            28..45 => self.dispatch(),
            45..63 => self.answer(),
            63..71 => self.settle(),
            71..78 => self.load_letters(),
            78..82 => self.record(),
            82..86 => self.scan(),
            86..90 => self.operate(),
            90 => self.suspect(),
            91..97 => self.pass(Duration::from_millis(self.random.0 % 300)),
            97 => self.pass(Duration::from_millis(self.random.0 % 3000)),
            _ => self.kill(),
        }
    }

    fn write(&mut self) {
        let before = self.database.rows.len();
        self.database.write(&mut self.random);
        for row in self.database.rows.get(before..).unwrap() {
            match self.random.below(100) {
                0..4 => drop(self.poison.insert(row.seq)),
                4..12 => drop(self.tough.insert(row.seq)),
                _ => {}
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.zombie.take_if(|zombie| zombie.is_over(self.now));
        let late_max = Duration::from_millis(LATE_MAX);
        for sent in &mut self.in_flight {
            if sent.given_up || self.now.duration_since(sent.at) < late_max {
                continue;
            }
            sent.given_up = true;
            if !self.poison.contains(&sent.seq) && self.random.chance(50) {
                let late = Duration::from_millis(self.random.below(LATE_MAX));
                self.stream.delay(BatchKind::Fast, vec![sent.seq], sent.at + late);
            }
        }
        self.give_up_batches();
        let arrived = self.stream.arrive(self.now);
        self.sometimes.stored_late += arrived;
        self.sometimes.refused_late += std::mem::take(&mut self.stream.refused_late);
    }

    fn fetch(&mut self) {
        let mut cursor = self.delivery.cursor();
        let room = self.delivery.room();
        // As in the relay, the outbox is not read before a scan has found what the stream contains.
        if room.events == 0 || (self.is_start && self.scan_above.is_some()) {
            return;
        }
        if cursor.is_complete() {
            self.delivery.begin(self.database.target(), Seq(0));
            cursor = self.delivery.cursor();
        }
        let limit = room.events.min(3);
        let events = self.database.page(&cursor, limit);
        let complete = events.len() < limit;
        self.delivery.admit(events);
        if complete {
            self.delivery.exhausted();
        }
    }

    fn dispatch(&mut self) {
        if self.scan_above.is_some() {
            return;
        }
        if self.database.confirms_bound(&mut self.delivery, self.now) {
            self.sometimes.waited_for_bound += 1;
        }
        while let Some(ticket) = self.delivery.next(self.now) {
            if self.delivery.is_stale(ticket, self.now) {
                self.assert_worth_a_scan(ticket);
                self.delivery.give_back(ticket);
                self.scan_above = Some(self.delivery.scan_above());
                self.sometimes.stale += 1;
                return;
            }
            match self.choose_grouping(ticket) {
                Grouping::Single => {}
                Grouping::Batch(kind, batch) => {
                    self.send_batch(kind, &batch);
                    continue;
                }
                Grouping::Wait => return,
            }
            let seq = self.delivery.event(ticket).unwrap().0.seq.0;
            self.assert_alone(seq);
            self.delivery.sent(ticket, self.now);
            self.in_flight.push(InFlight { ticket, seq, at: self.now, given_up: false });
            self.assert_within_window(LIMITS.in_flight_events);
        }
    }

    /// Asserts that a log which recognises no ids is scanned only when the scan is conclusive.
    fn assert_worth_a_scan(&self, ticket: Ticket) {
        let late_max = Duration::from_millis(LATE_MAX);
        let at = self.delivery.lanes.conclusive_at(ticket, late_max);
        let is_certain = at.is_none_or(|at| at <= self.now);
        assert!(
            self.kind == LogKind::Remembers || is_certain,
            "a scan that cannot be conclusive yet"
        );
    }

    /// Answers one message in flight, well or badly.
    fn answer(&mut self) {
        if self.answer_batch() || self.in_flight.is_empty() {
            return;
        }
        let index = usize::try_from(self.random.below(self.in_flight.len() as u64)).unwrap();
        let InFlight { ticket, seq, given_up, .. } = self.in_flight.swap_remove(index);
        let outcome = if given_up {
            Outcome::Unconfirmed
        } else if self.random.chance(self.failure_percent) {
            self.bad_outcome(seq)
        } else if self.poison.contains(&seq) {
            rejected()
        } else if self.tough.contains(&seq) && self.random.chance(80) {
            busy()
        } else {
            self.store(ticket, seq)
        };
        if outcome == Outcome::Unconfirmed {
            self.may_repeat.insert(seq);
        }
        self.delivery.resolve(ticket, outcome, self.now);
        self.count_deaths();
    }

    fn count_deaths(&mut self) {
        for death in self.delivery.take_dead_events() {
            self.died.insert(death.seq.0);
            self.sometimes.dead += 1;
            self.sometimes.exhausted += u64::from(death.reason.code == "busy");
        }
    }

    fn bad_outcome(&mut self, seq: i64) -> Outcome {
        let is_good = self.may_arrive_late(seq);
        match self.random.below(5) {
            0 => Outcome::Unavailable(Closure::new(ClosureKind::StreamUnavailable, "down".into())),
            1 => busy(),
            2 => Outcome::Unconfirmed,
            3 if is_good => {
                self.stream.store(seq, self.now);
                Outcome::Unconfirmed
            }
            _ if is_good => {
                let late = Duration::from_millis(self.random.below(LATE_MAX));
                self.stream.delay(BatchKind::Fast, vec![seq], self.now + late);
                Outcome::Unconfirmed
            }
            _ => Outcome::Unconfirmed,
        }
    }

    /// Whether a late message may be stored; one that the broker refuses never is.
    pub(super) fn may_arrive_late(&self, seq: i64) -> bool {
        !self.poison.contains(&seq)
    }

    fn store(&mut self, ticket: Ticket, seq: i64) -> Outcome {
        let (stream_seq, duplicate) = self.stream.store(seq, self.now);
        let explained = self.delivery.explains_duplicate(ticket);
        self.sometimes.duplicate_on_retry += u64::from(duplicate && explained);
        self.sometimes.stored += u64::from(!duplicate);
        Outcome::Acked { stream_seq, duplicate }
    }

    /// Makes the scan that has to come before an uncertain event is sent again. Sometimes it fails,
    /// and a later step makes it.
    fn scan(&mut self) {
        let Some(above) = self.scan_above else {
            if self.delivery.scan_again_at().is_some_and(|at| at <= self.now) {
                self.scan_above = Some(self.delivery.scan_above());
                self.sometimes.scanned_again += 1;
            }
            return;
        };
        if self.random.chance(self.failure_percent / 2) {
            return;
        }
        // A message that was sent before the scan has arrived by then, or the log recognises its id
        // later.
        let (found, last) = self.stream.scan(above);
        let found_some = u64::from(!found.is_empty());
        if self.is_start {
            self.sometimes.found_at_start += found_some;
        } else {
            self.sometimes.found_when_stale += found_some;
        }
        self.delivery.take_scan_result(found, last, self.now);
        self.count_deaths();
        self.scan_above = None;
        self.is_start = false;
    }

    fn settle(&mut self) {
        if self.settling.is_none() {
            self.settling = self.delivery.take_settlement();
        }
        if self.random.chance(self.failure_percent) {
            return;
        }
        let Some(settlement) = self.settling.take() else { return };
        // Sometimes a settlement is written in parts, as after one that could not be written whole.
        let (settlement, rest) = if self.random.chance(50) {
            let letters = self.random.below(4);
            settlement.divide(usize::try_from(letters).unwrap_or(1))
        } else {
            (settlement, None)
        };
        self.sometimes.divided += u64::from(rest.is_some());
        self.settling = rest;
        for row in &self.database.rows {
            self.assert_decided(&settlement, row.seq);
        }
        self.assert_known(&settlement.stream);
        self.database.settle(&settlement, self.rules.on_dead, self.now);
        for letter in &settlement.letters {
            let suspected = letter.fate == Fate::Held(Certainty::Suspected);
            self.sometimes.suspected += u64::from(suspected);
            let state = self.database.letters[&letter.seq.0].state;
            self.sometimes.retrying += u64::from(state == LetterRowState::Retrying);
            self.sometimes.held += u64::from(state == LetterRowState::Held);
        }
        self.delivery.settled(&settlement);
    }

    /// Asserts invariants 1 and 2 of `src/lib.rs`: a settled row is in the log, or is a letter.
    fn assert_decided(&self, settlement: &Settlement, seq: i64) {
        let decided = self.stream.contains(seq)
            || self.database.letters.contains_key(&seq)
            || settlement.letters.iter().any(|letter| letter.seq.0 == seq);
        let row = self.database.row(seq);
        let undecided = !decided && SimulatedDatabase::is_settled(&settlement.position, row);
        assert!(!undecided, "row {seq} was settled without an answer");
    }

    fn load_letters(&mut self) {
        if self.scan_above.is_some() && self.is_start {
            return;
        }
        let recorded = self.delivery.settled_up_to();
        let due = self.database.due(self.now);
        let all = due.is_empty();
        for (key, marks) in due {
            let first = marks.first().unwrap().id;
            if self.delivery.is_active(key.map(aggregate).as_ref(), first) {
                continue;
            }
            let before = self.delivery.letters();
            let loaded = self.database.load_letters(key, marks, self.now);
            let free = loaded.letters.is_empty() && key.is_some();
            let may = |letter: &&StoredLetter| letter.readiness == LetterReadiness::Ready;
            let may = loaded.letters.iter().take_while(may).count();
            let suspected = key.is_some_and(|_| self.is_suspected_in_vain(&loaded.letters));
            self.delivery.take_letters(loaded, recorded);
            let admitted = self.delivery.letters() - before;
            self.sometimes.letter_found_at_start += u64::from(admitted < may);
            let is_kept = key.is_some_and(|key| self.delivery.blocked.is_kept(&aggregate(key)));
            self.sometimes.released_late += u64::from(free && is_kept);
            self.sometimes.suspected_in_vain += u64::from(suspected);
        }
        if all {
            self.delivery.letters_read();
        }
    }

    /// Whether the first letter of a key is held although no letter of the key stands before it.
    fn is_suspected_in_vain(&self, letters: &[StoredLetter]) -> bool {
        let first = letters.first().map(|letter| self.database.letters[&letter.id.0].state);
        first == Some(LetterRowState::Held)
            && self.database.letters_of_same_key(letters[0].id.0) == 0
    }

    fn record(&mut self) {
        if self.recording.is_none() && self.delivery.has_records() {
            self.recording = Some(self.delivery.take_records());
        }
        if self.random.chance(self.failure_percent) {
            return;
        }
        let Some(mut records) = self.recording.take() else { return };
        // Sometimes records are written in parts, as after records that could not be written whole.
        let count = if self.random.chance(50) { self.random.below(4) } else { u64::MAX };
        let part = records.part(usize::try_from(count).unwrap());
        for record in &part.records {
            let LetterId(seq) = record.id;
            let is_published =
                matches!(record.change, crate::delivery::LetterChange::Published { .. });
            let held = self.database.letters[&seq].state == LetterRowState::Held;
            assert!(!is_published || self.stream.contains(seq), "letter {seq} is nowhere");
            self.sometimes.held_and_published += u64::from(is_published && held);
        }
        self.database.record(&part.records, self.now);
        records.part_written(&part);
        if !records.are_written() {
            self.sometimes.recorded_in_parts += 1;
            self.recording = Some(records);
            return;
        }
        self.delivery.letters_recorded(&records);
        // As in the relay, a new holding loads the blocked keys anew.
        if self.delivery.wants_blocked_keys() {
            self.sometimes.loaded_anew += 1;
            self.kill();
        }
    }

    /// Stops all faults, lets the operator resolve every dead letter, and lets time pass until
    /// nothing is left to do.
    pub(super) fn heal(&mut self) {
        self.failure_percent = 0;
        self.database.commit_all();
        for round in 0..self.database.rows.len() * 20 + 200 {
            // The broker stays busy for as long as the process is killed, so that kills interrupt
            // retries too.
            if round == TOUGH_ROUNDS {
                self.tough.clear();
            }
            self.pass(Duration::from_millis(700));
            if round < TOUGH_ROUNDS && self.random.chance(10) {
                self.kill();
            }
            self.scan();
            self.fetch();
            self.load_letters();
            self.dispatch();
            while !self.in_flight.is_empty() || !self.batches.is_empty() {
                self.answer();
                self.dispatch();
            }
            self.settle();
            self.record();
            if self.is_quiet() {
                if self.database.dead().is_empty() {
                    return;
                }
                self.operate();
            }
        }
    }

    fn is_quiet(&self) -> bool {
        self.delivery.events() == 0
            && self.scan_above.is_none()
            && self.settling.is_none()
            && !self.delivery.has_records()
            && self.database.next_due().is_none()
            && self.delivery.cursor().is_complete()
            && self.delivery.cursor().target == self.database.target()
    }

    pub(super) fn check(&mut self) {
        assert_eq!(self.delivery.events(), 0, "events stay in memory after the healing");
        assert_eq!(
            self.delivery.blocked.listed(),
            0,
            "keys stay blocked after everything was resolved"
        );
        let mut copies: HashMap<i64, u32> = HashMap::new();
        let mut last_of_key: HashMap<u64, i64> = HashMap::new();
        for seq in &self.stream.stored {
            let count = copies.entry(*seq).or_default();
            *count += 1;
            if *count > 1 && self.kind == LogKind::OutOfReach {
                // Only the first copy of each event has to be in order.
                continue;
            }
            let Some(key) = self.database.row(*seq).key else { continue };
            if self.rules.on_dead == OnDead::Skip && self.died.contains(seq) {
                continue;
            }
            let before = last_of_key.insert(key, *seq);
            assert!(before < Some(*seq), "key {key}: {seq} follows {before:?}");
        }
        for row in &self.database.rows {
            let seq = row.seq;
            let count = copies.get(&seq).copied().unwrap_or(0);
            let letter = self.database.letters.get(&seq);
            let least = match letter.map(|letter| letter.resolution) {
                Some(Some(Resolution::Discarded)) => 0,
                Some(None) => panic!("letter {seq} is not resolved: {letter:?}"),
                Some(Some(Resolution::Published)) | None => 1,
            };
            let repeats = self.kind == LogKind::OutOfReach && self.may_repeat.contains(&seq);
            let is_right = count == least || repeats && count > least;
            assert!(is_right, "row {seq} is stored {count} times: {letter:?}");
            self.sometimes.repeated += u64::from(count > least);
            let skipped = letter.is_some_and(|letter| letter.deaths > 0 && !letter.holds);
            self.sometimes.skipped += u64::from(skipped && row.key.is_some());
        }
    }
}

fn busy() -> Outcome {
    let reason = Rejection { code: "busy", text: "later".into() };
    Outcome::Busy { reason, attempt: Attempt::Counts }
}
