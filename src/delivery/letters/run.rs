//! Runs of letters: the letters of a key that may be published, and the records about them.
//!
//! Letters share the lanes with the events of the fast path, so one of a key is in flight at a
//! time, whichever way it came. A run is the letters of one key that are in memory, in order.

use std::collections::{HashSet, VecDeque};

use rustc_hash::FxHashMap;

use crate::{
    delivery::{Rejection, Retry, Ticket},
    event::{AggregateKey, Event},
};

/// Number of a letter in its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LetterId(pub i64);

/// Number of letters in memory, inclusive, from which on no more letters are loaded. A load that
/// starts below this number may exceed it by the letters that it brings.
pub const LETTERS_MAX: usize = 512;

/// Unresolved letter of a key, as it was read.
#[derive(Debug, Clone)]
pub struct StoredLetter {
    /// Number of the letter in its table.
    pub id: LetterId,
    /// Whether the letter may be published.
    pub readiness: LetterReadiness,
    /// Number of attempts to publish that the letter has used up.
    pub attempts: u32,
    /// Whether the later events of its key wait behind the letter.
    pub holds: bool,
    /// Event that the letter records.
    pub event: Box<Event>,
}

/// Readiness of a letter: whether it may be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LetterReadiness {
    /// Ready once no letter of its key stands before it.
    Ready,
    /// Not due: the letter's mark, the time of its next attempt, is in the future.
    NotDue,
    /// Dead: an operator has to decide.
    Dead,
}

/// Mark of a letter that was due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Number of the letter in its table.
    pub id: LetterId,
    /// Time of the mark as it was read, in microseconds since 2000. `None` for the mark of a
    /// published letter: only the relay changes that one, so it is cleared whatever its time is.
    pub at: Option<i64>,
}

/// First unresolved letters of one key, as loaded.
#[derive(Debug, Clone)]
pub struct KeyLetters {
    /// Marks that were due, those of resolved letters included; at least one.
    pub marks: Vec<Mark>,
    /// Key of the letters; a letter without a key is loaded alone.
    pub key: Option<AggregateKey>,
    /// First unresolved letters of the key, in the order of its events.
    pub letters: Vec<StoredLetter>,
}

/// Record: a change of a letter that the relay is to write to the table of letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Number of the letter in its table.
    pub id: LetterId,
    /// Change of the letter that is to be written.
    pub change: LetterChange,
    /// Whether the letter gets a mark that makes the relay load the letters of its key again at
    /// once.
    pub load: bool,
}

/// Change of a letter: what has become of it while it was in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LetterChange {
    /// The letter is published.
    Published {
        /// Stream sequence of the message; 0 if a scan has found it.
        stream_seq: u64,
    },
    /// The letter is dead.
    Dead {
        /// Reason for which the broker, or the relay itself, refused the letter last.
        reason: Rejection,
        /// Number of attempts to publish that the letter has used up.
        attempts: u32,
        /// Whether the later events of its key wait behind the letter.
        holds: bool,
    },
    /// The letter is tried again later.
    Retrying(Retry),
    /// The letter waits behind another letter of its key, without a mark of its own.
    Held,
    /// The letter was loaded and does not change. Its mark is cleared, unless an operator has
    /// changed the mark since.
    Seen {
        /// Time of the mark that was seen; `None` clears any mark.
        at: Option<i64>,
    },
}

/// Records that are written together or in parts, and the runs that ended with them.
///
/// The order of the records makes parts safe: the marks of a run are cleared after its other
/// records. So a crash between two parts leaves a mark for each run that is written in part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Records {
    /// Records that are not committed, in order. A published letter may have a second one, which
    /// clears its mark.
    unwritten: VecDeque<Record>,
    /// Keys, or letters without a key, whose run has ended. Their letters may be loaded again once
    /// all records are committed.
    ended: Vec<RunScope>,
    /// Exclusive lower bound for the stream sequences of the published letters among the records.
    stream_floor: Option<u64>,
}

/// Records that one statement writes, one for each letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordsPart {
    /// Records that the statement writes.
    pub records: Vec<Record>,
    /// Number of unwritten records that the part covers. It may exceed the number of `records`,
    /// because those of one letter are merged.
    covers: usize,
}

impl RecordsPart {
    /// Number of records that the part covers; those of one letter are merged.
    pub fn covers(&self) -> usize {
        self.covers
    }
}

impl Records {
    /// The next part to write, of at most `count` records, and at least one.
    pub fn part(&self, count: usize) -> RecordsPart {
        let covers = count.max(1).min(self.unwritten.len());
        let mut records: Vec<Record> = Vec::with_capacity(covers);
        let mut places: FxHashMap<LetterId, usize> = FxHashMap::default();
        for record in self.unwritten.iter().take(covers) {
            let place = places.get(&record.id).and_then(|place| records.get_mut(*place));
            // The second record of a letter clears the letter's mark, so the first record must not
            // set that mark.
            if let Some(first) = place {
                first.load = false;
            } else {
                places.insert(record.id, records.len());
                records.push(record.clone());
            }
        }
        RecordsPart { records, covers }
    }

    /// Notes that the transaction with this part of the records has committed.
    pub fn part_written(&mut self, part: &RecordsPart) {
        self.unwritten.drain(..part.covers.min(self.unwritten.len()));
    }

    /// Whether all records are committed.
    pub fn are_written(&self) -> bool {
        self.unwritten.is_empty()
    }
}

/// Scope of a run, the letters that one run can have: those of a key, or a single letter without a
/// key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum RunScope {
    Key(AggregateKey),
    Letter(LetterId),
}

/// Runs of letters in memory, and the records about them.
#[derive(Debug, Default)]
pub(in crate::delivery) struct LetterRuns {
    runs: FxHashMap<u64, Run>,
    loaded_letters: FxHashMap<Ticket, LoadedLetter>,
    /// Keys, or letters without a key, that have letters in memory or unwritten records. Their
    /// letters are not loaded again before that ends.
    active: HashSet<RunScope>,
    next: u64,
    records: Records,
    /// Exclusive lower bound for the stream sequences of the published letters whose records are
    /// being written.
    written_floor: Option<u64>,
}

#[derive(Debug)]
struct Run {
    scope: RunScope,
    /// Marks that were due and are not cleared yet. After a crash a mark that still stands makes
    /// the relay load the key again.
    marks: Vec<Mark>,
    tickets: VecDeque<Ticket>,
    stream_floor: u64,
}

#[derive(Debug, Clone, Copy)]
pub(in crate::delivery) struct LoadedLetter {
    run: u64,
    id: LetterId,
    pub(in crate::delivery) holds: bool,
}

/// State of a key, as its loaded letters show it.
enum KeyState {
    /// No unresolved letter of the key is left.
    Free,
    /// The first letters of the key, which may be published.
    Ready(Vec<StoredLetter>),
    /// The first letter of the key has to wait, and all others wait behind it.
    Blocked,
}

impl LetterRuns {
    /// Number of letters in memory.
    pub(in crate::delivery) fn len(&self) -> usize {
        self.loaded_letters.len()
    }

    /// Whether letters of this key are in memory or have unwritten records, so that loading them
    /// would be in vain. Without a key, the same about the letter `id`.
    pub(in crate::delivery) fn is_active(&self, key: Option<&AggregateKey>, id: LetterId) -> bool {
        self.active.contains(&scope(key, id))
    }

    /// Loaded letter that has this ticket.
    pub(in crate::delivery) fn loaded(&self, ticket: Ticket) -> Option<LoadedLetter> {
        self.loaded_letters.get(&ticket).copied()
    }

    /// Exclusive lower bound for the stream sequences of the letters in memory, and of published
    /// letters whose record is not written. `None` without such letters.
    pub(in crate::delivery) fn stream_floor(&self) -> Option<u64> {
        // A record that is not written is lost in a crash, so its letter counts too.
        let unrecorded = [self.records.stream_floor, self.written_floor].into_iter().flatten();
        self.runs.values().map(|run| run.stream_floor).chain(unrecorded).min()
    }

    /// Takes the loaded letters of one key, and returns those that may be published, with their
    /// tickets. `free` decides whether a key that has no letter left may be released.
    pub(in crate::delivery) fn take(
        &mut self,
        loaded: KeyLetters,
        stream_floor: u64,
        free: impl FnOnce(&AggregateKey) -> bool,
    ) -> Vec<(Ticket, StoredLetter)> {
        let KeyLetters { marks, key, letters } = loaded;
        let Some(first) = marks.first() else { return Vec::new() };
        let scope = scope(key.as_ref(), first.id);
        if self.active.contains(&scope) {
            return Vec::new();
        }
        // Ready letters may stand behind a letter that blocks the key. A letter that was put off
        // after its mark was read blocks the key too, and keeps its mark.
        let due = letters.iter().filter(|letter| letter.readiness == LetterReadiness::Ready);
        let behind: Vec<LetterId> = due.map(|letter| letter.id).collect();
        match sort_letters(letters) {
            KeyState::Free => {
                if key.as_ref().is_none_or(free) {
                    self.end(scope, marks, &[]);
                }
                Vec::new()
            }
            KeyState::Blocked => {
                self.end(scope, marks, &behind);
                Vec::new()
            }
            KeyState::Ready(letters) => self.start(scope, marks, letters, stream_floor),
        }
    }

    fn start(
        &mut self,
        scope: RunScope,
        marks: Vec<Mark>,
        letters: Vec<StoredLetter>,
        stream_floor: u64,
    ) -> Vec<(Ticket, StoredLetter)> {
        self.active.insert(scope.clone());
        let number = self.next;
        let mut tickets = VecDeque::with_capacity(letters.len());
        let mut admitted = Vec::with_capacity(letters.len());
        for letter in letters {
            let ticket = Ticket::letter(self.next);
            self.next += 1;
            let entry = LoadedLetter { run: number, id: letter.id, holds: letter.holds };
            self.loaded_letters.insert(ticket, entry);
            tickets.push_back(ticket);
            admitted.push((ticket, letter));
        }
        self.runs.insert(number, Run { scope, marks, tickets, stream_floor });
        admitted
    }

    /// Ends a run of which nothing is published. A due letter behind the one that blocks the key is
    /// recorded as held; the mark of any other letter is recorded as seen.
    fn end(&mut self, scope: RunScope, marks: Vec<Mark>, behind: &[LetterId]) {
        let record = |Mark { id, at }| {
            let waits = behind.contains(&id);
            let change = if waits { LetterChange::Held } else { LetterChange::Seen { at } };
            Record { id, change, load: false }
        };
        self.records.unwritten.extend(marks.into_iter().map(record));
        self.active.insert(scope.clone());
        self.records.ended.push(scope);
    }

    /// Notes that a letter is published. Its lane makes the next letter of the run ready.
    pub(in crate::delivery) fn published(&mut self, ticket: Ticket, stream_seq: u64) {
        let Some(LoadedLetter { run: number, id, .. }) = self.loaded_letters.remove(&ticket) else {
            return;
        };
        let Some(run) = self.runs.get_mut(&number) else { return };
        run.tickets.retain(|other| *other != ticket);
        let floor =
            self.records.stream_floor.map_or(run.stream_floor, |other| other.min(run.stream_floor));
        self.records.stream_floor = Some(floor);
        let is_last = run.tickets.is_empty();
        // A due mark stays until the run has ended, or a crash would forget the letters behind it.
        // A further load of the key finds letters that were added meanwhile.
        let mut load = is_last;
        for mark in run.marks.iter_mut().filter(|mark| mark.id == id) {
            mark.at = None;
            load = true;
        }
        if is_last {
            run.marks.retain(|mark| mark.id != id);
        }
        let load = load && matches!(run.scope, RunScope::Key(_));
        self.records.unwritten.push_back(Record {
            id,
            change: LetterChange::Published { stream_seq },
            load,
        });
        if is_last {
            self.finish(number);
        }
    }

    /// Removes the letter from memory, records this change for its table, and ends its run. Returns
    /// the tickets of the run's other letters.
    pub(in crate::delivery) fn set_back(
        &mut self,
        ticket: Ticket,
        change: LetterChange,
    ) -> Vec<Ticket> {
        let Some(LoadedLetter { run: number, id, .. }) = self.loaded_letters.remove(&ticket) else {
            return Vec::new();
        };
        let Some(run) = self.runs.get_mut(&number) else { return Vec::new() };
        run.marks.retain(|mark| mark.id != id);
        let left: Vec<Ticket> = run.tickets.drain(..).filter(|other| *other != ticket).collect();
        // The letters of the key are loaded again if this letter does not block the key, or only
        // waits behind an event that became a letter.
        let load = matches!(change, LetterChange::Dead { holds: false, .. } | LetterChange::Held)
            && matches!(run.scope, RunScope::Key(_));
        self.records.unwritten.push_back(Record { id, change, load });
        for other in &left {
            // The other letters of the run now wait behind this one. Their due marks would be found
            // again at once, so they become held letters, without a mark.
            if let Some(LoadedLetter { id, .. }) = self.loaded_letters.remove(other)
                && let Some(at) = run.marks.iter().position(|mark| mark.id == id)
            {
                run.marks.swap_remove(at);
                self.records.unwritten.push_back(Record {
                    id,
                    change: LetterChange::Held,
                    load: false,
                });
            }
        }
        self.finish(number);
        left
    }

    fn finish(&mut self, number: u64) {
        let Some(Run { scope, marks, .. }) = self.runs.remove(&number) else { return };
        let seen = |Mark { id, at }| {
            let change = LetterChange::Seen { at };
            Record { id, change, load: false }
        };
        self.records.unwritten.extend(marks.into_iter().map(seen));
        self.records.ended.push(scope);
    }

    /// Whether there are records to write.
    pub(in crate::delivery) fn has_records(&self) -> bool {
        !self.records.unwritten.is_empty()
    }

    /// Takes the records to write. The caller keeps them until all are committed.
    pub(in crate::delivery) fn take_records(&mut self) -> Records {
        self.written_floor = self.records.stream_floor;
        std::mem::take(&mut self.records)
    }

    /// Notes that these records are committed.
    pub(in crate::delivery) fn recorded(&mut self, records: &Records) {
        self.written_floor = None;
        for scope in &records.ended {
            self.active.remove(scope);
        }
    }
}

fn scope(key: Option<&AggregateKey>, id: LetterId) -> RunScope {
    key.map_or(RunScope::Letter(id), |key| RunScope::Key(key.clone()))
}

/// Sorts the letters of a key: the first ones may be published, up to one that has to wait. (A dead
/// letter that does not block its key is not read at all.)
fn sort_letters(letters: Vec<StoredLetter>) -> KeyState {
    let mut may = Vec::new();
    let mut blocked = false;
    for letter in letters {
        match letter.readiness {
            LetterReadiness::Ready => may.push(letter),
            LetterReadiness::Dead | LetterReadiness::NotDue => {
                blocked = true;
                break;
            }
        }
    }
    match (may.is_empty(), blocked) {
        (false, _) => KeyState::Ready(may),
        (true, true) => KeyState::Blocked,
        (true, false) => KeyState::Free,
    }
}
