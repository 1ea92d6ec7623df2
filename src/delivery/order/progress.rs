//! Progress: the fetched rows, and the position up to which all of them are settled.

use std::collections::VecDeque;

use crate::{
    delivery::{Fate, NewLetter, PartEnd, Settlement, StreamMark, Ticket, Verdict},
    event::{Position, Seq, Snapshot},
};

/// Most letters of one settlement. Each copies an event. A settlement that still cannot be written
/// within the deadline of a statement is [divided](Settlement::divide).
const LETTERS_MAX: usize = 256;

/// Fetched rows that are not settled in the database, in the order of fetching.
///
/// Rows come in spans. A span is the rows that became visible between two snapshots, in `seq`
/// order. Several spans may follow each other, so that a span is fetched before the events of the
/// span before it are answered. A settlement writes the first unfinished span, and the row up to
/// which it is decided.
#[derive(Debug)]
pub struct Progress {
    position: Position,
    spans: VecDeque<Span>,
    slots: VecDeque<FetchedRow>,
    /// Ticket of the first row in `slots`.
    first: u64,
    letters: Vec<NewLetter>,
    settled: usize,
    /// Number of published events among those that the next settlement settles.
    published: usize,
    moved: bool,
}

#[derive(Debug)]
struct Span {
    target: Snapshot,
    /// Exclusive lower bound for the `seq` of rows whose transaction began after the target.
    floor: Seq,
    /// Highest `seq` up to which the span's rows are fetched.
    fetched: Seq,
    /// Ticket after that of the span's last row; `None` until all rows of the span are fetched.
    end: Option<u64>,
}

#[derive(Debug)]
struct FetchedRow {
    seq: Seq,
    /// Highest stream sequence that was known when the row was fetched.
    stream_floor: u64,
    verdict: Option<Verdict>,
}

impl Progress {
    /// Resumes from the position that the database has; `first` is the ticket of the next row.
    pub fn resume(position: Position, first: Ticket) -> Self {
        let mut spans = VecDeque::new();
        if !position.is_complete() {
            spans.push_back(Span {
                target: position.target.clone(),
                floor: position.target_floor,
                fetched: position.bookmark,
                end: None,
            });
        }
        Self {
            position,
            spans,
            slots: VecDeque::new(),
            first: first.0,
            letters: Vec::new(),
            settled: 0,
            published: 0,
            moved: false,
        }
    }

    /// Position at which the next page begins, as if everything fetched so far were settled.
    ///
    /// If [`Position::is_complete`] holds for that position, [`Progress::begin`] has to give a new
    /// target first.
    pub fn cursor(&self) -> Position {
        let mut cursor = self.position.clone();
        for span in &self.spans {
            cursor.target = span.target.clone();
            cursor.target_floor = span.floor;
            cursor.bookmark = span.fetched;
            if span.end.is_some() {
                cursor.settled = span.target.clone();
                cursor.floor = span.floor;
                cursor.bookmark = Seq(0);
            }
        }
        cursor
    }

    /// Number of fetched rows that are not settled.
    pub fn unsettled(&self) -> usize {
        self.slots.len()
    }

    /// Ticket of the next admitted row.
    pub fn next_ticket(&self) -> Ticket {
        Ticket(self.first + self.slots.len() as u64)
    }

    /// Begins a span: the rows that became visible since the last target.
    pub fn begin(&mut self, target: Snapshot, floor: Seq) {
        self.spans.push_back(Span { target, floor, fetched: Seq(0), end: None });
    }

    /// Exclusive lower bound for the stream sequences of unsettled rows; `None` without such rows.
    pub fn stream_floor(&self) -> Option<u64> {
        // The bound never falls from row to row, so the oldest row has the lowest.
        self.slots.front().map(|slot| slot.stream_floor)
    }

    /// Admits a fetched row. Its message has or will have a stream sequence above `stream_floor`.
    pub fn admit(&mut self, seq: Seq, stream_floor: u64) -> Ticket {
        let ticket = self.next_ticket();
        if let Some(span) = self.spans.back_mut() {
            debug_assert!(seq > span.fetched, "rows of one span come in seq order");
            span.fetched = seq;
        }
        self.slots.push_back(FetchedRow { seq, stream_floor, verdict: None });
        ticket
    }

    /// Notes that the rows of the span up to `seq`, inclusive, are admitted or filtered.
    pub fn filtered_to(&mut self, seq: Seq) {
        if let Some(span) = self.spans.back_mut() {
            span.fetched = span.fetched.max(seq);
        }
        self.advance();
    }

    /// Notes that the last page of the span was fetched.
    pub fn exhausted(&mut self) {
        let end = self.next_ticket().0;
        let Some(last) = self.spans.pop_back() else { return };
        let begin = self.spans.back().map_or(Some(self.first), |span| span.end);
        // A span without rows only moves the target of the span before it. So no spans pile up
        // while other programs write to the database.
        match self.spans.back_mut() {
            Some(previous) if begin == Some(end) => {
                previous.target = last.target;
                previous.floor = last.floor;
            }
            _ => self.spans.push_back(Span { end: Some(end), ..last }),
        }
        self.advance();
    }

    /// Notes the verdict about a row.
    pub fn resolve(&mut self, ticket: Ticket, verdict: Verdict) {
        let slot = ticket.0.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        if let Some(slot) = slot.and_then(|index| self.slots.get_mut(index)) {
            slot.verdict = Some(verdict);
        }
        self.advance();
    }

    /// Number of rows that the next settlement would settle.
    pub fn settleable(&self) -> usize {
        self.settled
    }

    /// Whether the position moved since the last settlement was taken.
    pub fn has_moved(&self) -> bool {
        self.moved
    }

    /// Whether the next settlement has as many letters as one may have.
    pub fn is_full(&self) -> bool {
        self.letters.len() >= LETTERS_MAX
    }

    /// Next settlement, if the position moved. The caller keeps it until it is committed.
    pub fn take_settlement(&mut self, stream: StreamMark) -> Option<Settlement> {
        if !self.moved {
            return None;
        }
        self.moved = false;
        let settlement = Settlement {
            position: self.position.clone(),
            letters: std::mem::take(&mut self.letters),
            stream,
            events: std::mem::take(&mut self.settled),
            published: std::mem::take(&mut self.published),
            up_to: Ticket(self.first),
        };
        self.advance();
        Some(settlement)
    }

    /// Moves the position up to the first row that is not decided, or until the settlement has as
    /// many letters as it may have.
    fn advance(&mut self) {
        while !self.is_full() {
            if self.spans.front().is_some_and(|span| span.end == Some(self.first)) {
                if let Some(span) = self.spans.pop_front() {
                    let next = self.spans.front().unwrap_or(&span);
                    self.position = Position {
                        settled: span.target.clone(),
                        floor: span.floor,
                        target: next.target.clone(),
                        target_floor: next.floor,
                        bookmark: Seq(0),
                    };
                    self.moved = true;
                }
                continue;
            }
            match self.slots.pop_front() {
                Some(FetchedRow { seq, stream_floor, verdict: Some(verdict) }) => {
                    self.settle(seq, stream_floor, verdict);
                }
                Some(undecided) => {
                    self.slots.push_front(undecided);
                    return;
                }
                None => return self.pass_over(),
            }
        }
    }

    /// Moves the position over rows that were read and left out by the filter.
    fn pass_over(&mut self) {
        if let [span] = self.spans.make_contiguous()
            && span.end.is_none()
            && span.fetched > self.position.bookmark
        {
            self.position.target = span.target.clone();
            self.position.target_floor = span.floor;
            self.position.bookmark = span.fetched;
            self.moved = true;
        }
    }

    fn settle(&mut self, seq: Seq, stream_floor: u64, verdict: Verdict) {
        self.first += 1;
        self.settled += 1;
        self.moved = true;
        if let Some(span) = self.spans.front() {
            self.position.target = span.target.clone();
            self.position.target_floor = span.floor;
        }
        self.position.bookmark = seq;
        let fate = match verdict {
            Verdict::Published => {
                self.published += 1;
                return;
            }
            Verdict::Lettered => return,
            Verdict::Dead { reason, attempts } => Fate::Dead { reason, attempts },
            Verdict::Retrying(retry) => Fate::Retrying(retry),
            Verdict::Held(hold) => Fate::Held(hold),
        };
        let end = PartEnd {
            position: self.position.clone(),
            stream_floor,
            events: self.settled,
            published: self.published,
            up_to: Ticket(self.first),
        };
        self.letters.push(NewLetter { seq, fate, end });
    }
}
