//! Letters that are tried again: which of a key may go, and what is to be recorded of them.
//!
//! They share the lanes with the events of the fast path, so one of a key is on its way at a time,
//! whichever way it came. A run is the letters of one key that are in memory, in order.

use std::collections::{HashSet, VecDeque};

use rustc_hash::FxHashMap;

use super::{Retry, lanes::Ticket, outcome::Rejection};
use crate::event::{AggregateKey, Event};

/// The number of a letter in its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LetterId(pub i64);

/// Letters in memory from which on no others are loaded until these are decided. One load may go
/// beyond it by its own bounds.
pub const LETTERS_MAX: usize = 512;

/// One unresolved letter of a key, as it was read.
#[derive(Debug, Clone)]
pub struct StoredLetter {
    /// Which one.
    pub id: LetterId,
    /// What it is.
    pub standing: Standing,
    /// How often it was tried.
    pub attempts: u32,
    /// Whether the later events of its key wait for it.
    pub holds: bool,
    /// What it carries.
    pub event: Box<Event>,
}

/// Whether a letter may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Once nothing stands before it.
    May,
    /// Not before its time.
    NotYet,
    /// Not before an operator says so.
    Dead,
}

/// A letter whose time it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Which one.
    pub id: LetterId,
    /// Its time as the table has it, in microseconds since 2000; `None` for one that only we touch.
    pub at: Option<i64>,
}

/// The unresolved letters of one key, as loaded.
#[derive(Debug, Clone)]
pub struct KeyLetters {
    /// The marks that were due. Resolved letters are among them. Never empty.
    pub marks: Vec<Mark>,
    /// The key; a letter without one is loaded alone.
    pub key: Option<AggregateKey>,
    /// Its unresolved letters, the first of them, in order.
    pub letters: Vec<StoredLetter>,
}

/// What is to be written about a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Which one.
    pub id: LetterId,
    /// What became of it.
    pub change: Change,
    /// Whether its key is to be loaded again at once.
    pub load: bool,
}

/// What became of a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is in the stream; the sequence is 0 when it was found there without being told.
    Published {
        /// Where.
        stream_seq: u64,
    },
    /// It is set aside.
    Dead {
        /// Why.
        reason: Rejection,
        /// How often it was tried.
        attempts: u32,
        /// Whether the later events of its key wait for it.
        holds: bool,
    },
    /// It is tried again later.
    Retrying(Retry),
    /// It waits behind another of its key.
    Held,
    /// Nothing; it was only seen. An operator may have given it a new time since.
    Seen {
        /// The time that we saw; `None`: whatever it is.
        at: Option<i64>,
    },
}

/// Runs that ended with a batch of records: once it is committed they may be loaded again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Records {
    /// What is to be written.
    pub records: Vec<Record>,
    ended: Vec<Subject>,
    /// What of them is in the stream is stored above this.
    stream_floor: Option<u64>,
}

/// What a run is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Subject {
    Key(AggregateKey),
    Letter(LetterId),
}

/// The letters in memory.
#[derive(Debug, Default)]
pub(super) struct Letters {
    runs: FxHashMap<u64, Run>,
    tried: FxHashMap<Ticket, Tried>,
    /// Keys and letters in memory, or decided and not yet recorded: not to be loaded again.
    active: HashSet<Subject>,
    next: u64,
    records: Records,
    /// The floor of the records that are being written.
    written_floor: Option<u64>,
}

#[derive(Debug)]
struct Run {
    subject: Subject,
    /// Marks that were due and are not recorded yet: while it stands, nothing of the key is
    /// forgotten.
    marks: Vec<Mark>,
    tickets: VecDeque<Ticket>,
    stream_floor: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Tried {
    run: u64,
    id: LetterId,
    pub(super) holds: bool,
}

/// The loaded letters sorted: those that may go, and what all of them say about the key.
enum Sorted {
    /// Nothing of the key is left that anything would wait for.
    Free,
    /// These may go.
    May(Vec<StoredLetter>),
    /// Something that has to wait stands before everything else.
    Blocked,
}

impl Letters {
    /// How many are in memory.
    pub(super) fn len(&self) -> usize {
        self.tried.len()
    }

    /// Whether loading this would only find what is in memory.
    pub(super) fn is_active(&self, key: Option<&AggregateKey>, id: LetterId) -> bool {
        self.active.contains(&subject(key, id))
    }

    /// The letter of a ticket.
    pub(super) fn tried(&self, ticket: Ticket) -> Option<Tried> {
        self.tried.get(&ticket).copied()
    }

    /// The stream sequence above which everything of these is stored that is.
    pub(super) fn stream_floor(&self) -> Option<u64> {
        // What is decided and not recorded is forgotten by a crash, too.
        let unrecorded = [self.records.stream_floor, self.written_floor].into_iter().flatten();
        self.runs.values().map(|run| run.stream_floor).chain(unrecorded).min()
    }

    /// Takes in loaded letters. Returns those that may go, with their tickets; `free` is asked
    /// whether a key of which nothing is left may be released.
    pub(super) fn take(
        &mut self,
        loaded: KeyLetters,
        stream_floor: u64,
        free: impl FnOnce(&AggregateKey) -> bool,
    ) -> Vec<(Ticket, StoredLetter)> {
        let KeyLetters { marks, key, letters } = loaded;
        let Some(first) = marks.first() else { return Vec::new() };
        let subject = subject(key.as_ref(), first.id);
        if self.active.contains(&subject) {
            return Vec::new();
        }
        // Those whose time has come stand behind what blocks them. One whose time was put off since its
        // mark was read blocks, and has its own.
        let due = letters.iter().filter(|letter| letter.standing == Standing::May);
        let behind: Vec<LetterId> = due.map(|letter| letter.id).collect();
        match sort(letters) {
            Sorted::Free => {
                if key.as_ref().is_none_or(free) {
                    self.end(subject, marks, &[]);
                }
                Vec::new()
            }
            Sorted::Blocked => {
                self.end(subject, marks, &behind);
                Vec::new()
            }
            Sorted::May(letters) => self.start(subject, marks, letters, stream_floor),
        }
    }

    fn start(
        &mut self,
        subject: Subject,
        marks: Vec<Mark>,
        letters: Vec<StoredLetter>,
        stream_floor: u64,
    ) -> Vec<(Ticket, StoredLetter)> {
        self.active.insert(subject.clone());
        let number = self.next;
        let mut tickets = VecDeque::with_capacity(letters.len());
        let mut admitted = Vec::with_capacity(letters.len());
        for letter in letters {
            let ticket = Ticket::letter(self.next);
            self.next += 1;
            let tried = Tried { run: number, id: letter.id, holds: letter.holds };
            self.tried.insert(ticket, tried);
            tickets.push_back(ticket);
            admitted.push((ticket, letter));
        }
        self.runs.insert(number, Run { subject, marks, tickets, stream_floor });
        admitted
    }

    /// Ends a run of which nothing was tried: its mark is seen, or has to wait behind what blocks
    /// its key.
    fn end(&mut self, subject: Subject, marks: Vec<Mark>, behind: &[LetterId]) {
        let record = |Mark { id, at }| {
            let waits = behind.contains(&id);
            let change = if waits { Change::Held } else { Change::Seen { at } };
            Record { id, change, load: false }
        };
        self.records.records.extend(marks.into_iter().map(record));
        self.active.insert(subject.clone());
        self.records.ended.push(subject);
    }

    /// The letter is in the stream. The next of its run goes on by itself.
    pub(super) fn published(&mut self, ticket: Ticket, stream_seq: u64) {
        let Some(Tried { run: number, id, .. }) = self.tried.remove(&ticket) else { return };
        let Some(run) = self.runs.get_mut(&number) else { return };
        run.tickets.retain(|other| *other != ticket);
        let floor =
            self.records.stream_floor.map_or(run.stream_floor, |other| other.min(run.stream_floor));
        self.records.stream_floor = Some(floor);
        let is_last = run.tickets.is_empty();
        // The mark stays until the run has ended, or a crash would forget what is behind it. And
        // whatever came behind the run is found by one more load.
        let mut load = is_last;
        for mark in run.marks.iter_mut().filter(|mark| mark.id == id) {
            mark.at = None;
            load = true;
        }
        if is_last {
            run.marks.retain(|mark| mark.id != id);
        }
        let load = load && matches!(run.subject, Subject::Key(_));
        self.records.records.push(Record { id, change: Change::Published { stream_seq }, load });
        if is_last {
            self.finish(number);
        }
    }

    /// The letter goes back to the table and ends its run. Returns what else leaves memory.
    pub(super) fn set_back(&mut self, ticket: Ticket, change: Change) -> Vec<Ticket> {
        let Some(Tried { run: number, id, .. }) = self.tried.remove(&ticket) else {
            return Vec::new();
        };
        let Some(run) = self.runs.get_mut(&number) else { return Vec::new() };
        run.marks.retain(|mark| mark.id != id);
        let left: Vec<Ticket> = run.tickets.drain(..).filter(|other| *other != ticket).collect();
        // A letter that is not in its own way any more, or is older than the one it gave way to, is
        // loaded again.
        let load = matches!(change, Change::Dead { holds: false, .. } | Change::Held)
            && matches!(run.subject, Subject::Key(_));
        self.records.records.push(Record { id, change, load });
        for other in &left {
            // Its own time would come at once and find it behind this one: let it wait instead.
            if let Some(Tried { id, .. }) = self.tried.remove(other)
                && let Some(at) = run.marks.iter().position(|mark| mark.id == id)
            {
                run.marks.swap_remove(at);
                self.records.records.push(Record { id, change: Change::Held, load: false });
            }
        }
        self.finish(number);
        left
    }

    fn finish(&mut self, number: u64) {
        let Some(Run { subject, marks, .. }) = self.runs.remove(&number) else { return };
        for Mark { id, at } in marks {
            // One record a letter: its publishing, if that is still to be written, also ends its mark.
            let written = self.records.records.iter_mut().find(|record| record.id == id);
            if let Some(record) = written {
                record.load = false;
            } else {
                let change = Change::Seen { at };
                self.records.records.push(Record { id, change, load: false });
            }
        }
        self.records.ended.push(subject);
    }

    /// Whether anything is to be recorded.
    pub(super) fn has_records(&self) -> bool {
        !self.records.records.is_empty()
    }

    /// What is to be recorded. The caller keeps it until it is committed.
    pub(super) fn take_records(&mut self) -> Records {
        self.written_floor = self.records.stream_floor;
        std::mem::take(&mut self.records)
    }

    /// These records are committed.
    pub(super) fn recorded(&mut self, records: &Records) {
        self.written_floor = None;
        for subject in &records.ended {
            self.active.remove(subject);
        }
    }
}

fn subject(key: Option<&AggregateKey>, id: LetterId) -> Subject {
    key.map_or(Subject::Letter(id), |key| Subject::Key(key.clone()))
}

/// Which letters of a key may go: the first ones, up to one that has to wait. (A dead one that holds
/// nothing is not read at all.)
fn sort(letters: Vec<StoredLetter>) -> Sorted {
    let mut may = Vec::new();
    let mut blocked = false;
    for letter in letters {
        match letter.standing {
            Standing::May => may.push(letter),
            Standing::Dead | Standing::NotYet => {
                blocked = true;
                break;
            }
        }
    }
    match (may.is_empty(), blocked) {
        (false, _) => Sorted::May(may),
        (true, true) => Sorted::Blocked,
        (true, false) => Sorted::Free,
    }
}
