//! Holding: the session, the term, and the events in memory of one time as the leader.

pub(super) mod letters;
pub(super) mod reader;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::warn;

use self::{
    letters::Loading,
    reader::{ReadResult, Reader, Reading, Start},
};
use crate::{
    config,
    delivery::{Delivery, Lease, Records, RecordsPart, Settlement},
    event::Seq,
    failpoint,
    outbox::{
        Authority, DeadLetter, HealWhen, Healed, Outbox, PageLimits, REPAIR_SETTINGS, Repair,
        SettleError, Written,
    },
    pg::{
        connect::{ConnectError, connect},
        error::{Class, QueryError},
        schema::Schema,
    },
    relay::{
        operation::Operation,
        report::dead_letters::{Answers, LINES_MAX},
    },
};

/// How long decided events may wait to be settled: a crash sends them again under the same ids.
const SETTLE_INTERVAL: Duration = Duration::from_millis(100);

/// How long a position may move over nothing but other tables' commits before it is written.
const MOVE_INTERVAL: Duration = Duration::from_secs(10);

/// The wait before a failed settlement or reading is tried again on the same session.
pub(in crate::relay) const RETRY: Duration = Duration::from_secs(1);

/// Holding: one time of being the leader.
pub(in crate::relay) struct Holding {
    pub(in crate::relay) outbox: Arc<Outbox>,
    pub(in crate::relay) authority: Authority,
    pub(in crate::relay) lease: Lease,
    pub(in crate::relay) renewing: Operation<(Renewal, Result<(), SettleError>)>,
    pub(in crate::relay) delivery: Delivery,
    pub(in crate::relay) reader: Reader,
    pub(in crate::relay) fetching: Operation<Result<Reading, QueryError>>,
    pub(in crate::relay) settling: Operation<(Settlement, Result<Written, SettleError>)>,
    pub(in crate::relay) letters: letters::LetterSchedule,
    pub(in crate::relay) loading: Operation<Loading>,
    pub(in crate::relay) recording:
        Operation<(Records, RecordsPart, Result<Vec<DeadLetter>, SettleError>)>,
    pub(in crate::relay) healing: Operation<Result<Option<Healed>, String>>,
    place: OutboxPlace,
    /// Exclusive lower bound for the `seq` of rows whose transaction begins from now on.
    pub(in crate::relay) fence: Seq,
    /// When the settlement on its way was sent.
    settle_asked: Instant,
    /// Whether anything was settled or recorded.
    pub(in crate::relay) has_settled: bool,
    /// The parts of a settlement that are to be written still, in order.
    unwritten: VecDeque<Settlement>,
    /// The answers to what was written so far.
    pub(in crate::relay) answers: Answers,
    settle_at: Instant,
    last_settled: Instant,
    final_poll: FinalPoll,
}

/// A renewal of the lease.
#[derive(Debug, Clone, Copy)]
pub(in crate::relay) struct Renewal {
    /// When it was sent.
    asked: Instant,
    /// The bound that it writes down.
    sent_to: Seq,
}

/// Place of the outbox, for a session besides the relay's own.
#[derive(Debug, Clone)]
pub(in crate::relay) struct OutboxPlace {
    pub(in crate::relay) database: config::Database,
    pub(in crate::relay) schema: Schema,
    pub(in crate::relay) relay: String,
}

impl OutboxPlace {
    /// Opens a session for a repair, which may take as long as there are rows.
    pub(in crate::relay) async fn repair(&self) -> Result<Repair, ConnectError> {
        let connection = connect(&self.database, "repair", &REPAIR_SETTINGS).await?;
        Ok(Repair::new(connection, self.schema.clone(), self.relay.clone()))
    }
}

/// State of the last poll for committed rows, in a stopping relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FinalPoll {
    NotStopping,
    /// Rows that were committed before the stop are still to be polled for.
    Wanted,
    /// The last poll was made; its rows are being read.
    Reading,
    Done,
}

/// Reason for which a holding ended.
#[derive(Debug)]
pub(in crate::relay) enum Ended {
    /// We were asked to stop, and did.
    Stopped,
    /// Memory is out of date: the rows are to be read again, from another position or with
    /// larger payloads.
    Again,
    /// The session is gone; another one may be had.
    Lost(String),
    /// A statement fails for a reason that stays: it is tried again with another session, later.
    Failed(String),
    /// Another instance leads.
    Deposed(String),
    /// Another instance shall lead: it leads fewer shards than this one.
    Yielded,
}

impl Holding {
    /// A holding that has read nothing yet.
    pub(in crate::relay) fn new(
        (outbox, place): (Arc<Outbox>, OutboxPlace),
        (authority, lease): (Authority, Lease),
        delivery: Delivery,
        (reader, letters): (Reader, letters::LetterSchedule),
        fence: Seq,
    ) -> Self {
        let now = reader.next();
        Self {
            outbox,
            authority,
            lease,
            renewing: Operation::new(),
            delivery,
            reader,
            fetching: Operation::new(),
            settling: Operation::new(),
            letters,
            loading: Operation::new(),
            recording: Operation::new(),
            healing: Operation::new(),
            place,
            fence,
            settle_asked: now,
            has_settled: false,
            unwritten: VecDeque::new(),
            answers: Answers::Complete,
            settle_at: now,
            last_settled: now,
            final_poll: FinalPoll::NotStopping,
        }
    }

    /// Asks for one last poll for what was committed before now.
    pub(in crate::relay) fn stop(&mut self, now: Instant) {
        if self.final_poll == FinalPoll::NotStopping {
            self.final_poll = FinalPoll::Wanted;
            self.reader.wake(now);
        }
    }

    /// Whether nothing new is begun.
    pub(in crate::relay) fn is_stopping(&self) -> bool {
        self.final_poll != FinalPoll::NotStopping
    }

    /// Puts the position back to where the stream still had everything.
    ///
    /// What is being written is written first, and nothing after it: it would move the position on.
    pub(in crate::relay) fn heal(&mut self, created: Option<i64>, last_seq: u64, when: HealWhen) {
        if self.is_healing() || !self.settling.is_idle() || !self.recording.is_idle() {
            return;
        }
        let (place, authority) = (self.place.clone(), self.authority.clone());
        self.healing.start(async move {
            let repair = place.repair().await.map_err(|error| error.to_string())?;
            let healed = repair.heal(&authority, created, last_seq, when).await;
            healed.map_err(|error| error.to_string())
        });
    }

    pub(in crate::relay) fn is_healing(&self) -> bool {
        !self.healing.is_idle()
    }

    /// Gives up the last poll, because its time is over.
    pub(in crate::relay) fn stop_sweeping(&mut self) {
        self.final_poll = FinalPoll::Done;
    }

    /// Starts reading when it is time to and there is room.
    pub(in crate::relay) fn fetch(&mut self, limits: PageLimits, now: Instant) {
        if !self.can_fetch() || !self.reader.is_due(now) {
            return;
        }
        let room = self.delivery.room();
        let limits = PageLimits {
            events: limits.events.min(room.events),
            bytes: limits.bytes.min(room.bytes),
            ..limits
        };
        let cursor = self.delivery.cursor();
        if self.final_poll == FinalPoll::Wanted && cursor.is_complete() {
            self.final_poll = FinalPoll::Reading;
        }
        let outbox = Arc::clone(&self.outbox);
        self.fetching.start(self.reader.read(
            outbox,
            Start { cursor, fence: self.fence },
            limits,
            now,
        ));
    }

    /// Whether reading waits for nothing but its time.
    fn can_fetch(&self) -> bool {
        let knows_keys = self.letters.knows_blocked_keys();
        knows_keys
            && self.fetching.is_idle()
            && self.final_poll != FinalPoll::Done
            && self.delivery.room().events > 0
    }

    /// Absorbs a reading, and returns its number of rows.
    pub(in crate::relay) fn fetched(
        &mut self,
        reading: Result<Reading, QueryError>,
        now: Instant,
    ) -> Result<usize, Ended> {
        let reading = match reading {
            Ok(reading) => reading,
            Err(error) => {
                survive("read the outbox", &error)?;
                self.reader.retry_at(now + RETRY);
                return Ok(0);
            }
        };
        self.lease.heard(self.reader.began(), now);
        let ReadResult { begin, page } = self.reader.absorb(reading, now);
        if let Some((target, floor)) = begin {
            self.delivery.begin(target, floor);
        }
        let mut complete = true;
        let mut rows = 0;
        if let Some(page) = page {
            rows = page.events.len();
            complete = page.complete;
            self.delivery.admit(page.events);
            if rows > 0 {
                failpoint::pass("fetched");
            }
            if let Some(to) = page.read_to {
                self.delivery.filtered_to(to);
            }
            if complete {
                self.delivery.exhausted();
            }
        }
        if complete && self.final_poll == FinalPoll::Reading {
            self.final_poll = FinalPoll::Done;
        }
        Ok(rows)
    }

    /// Starts the writes that are due.
    pub(in crate::relay) fn write(&mut self, now: Instant) {
        self.settle(now);
        self.renew(now);
        self.record_letters(now);
    }

    /// The next settlement, or the next part of one that cannot be written at once.
    fn next_settlement(&mut self) -> Option<Settlement> {
        let next = self.unwritten.pop_front().or_else(|| self.delivery.take_settlement())?;
        let (part, rest) = next.divide(self.outbox.letters_max());
        if let Some(rest) = rest {
            self.unwritten.push_front(rest);
        }
        Some(part)
    }

    /// Starts writing back what was decided, when it is time to.
    fn settle(&mut self, now: Instant) {
        if self.settle_due().is_none_or(|due| due > now) {
            return;
        }
        let Some(settlement) = self.next_settlement() else { return };
        self.settle_asked = now;
        let (outbox, authority) = (Arc::clone(&self.outbox), self.authority.clone());
        self.settling.start(async move {
            let (before, after) = if settlement.letters.is_empty() {
                ("settle", "settled")
            } else {
                ("settle-letters", "settled-letters")
            };
            failpoint::pass(before);
            let result = outbox.settle(&settlement, &authority, LINES_MAX).await;
            failpoint::pass(after);
            (settlement, result)
        });
    }

    /// When the next settlement is due.
    pub(in crate::relay) fn settle_due(&self) -> Option<Instant> {
        if !self.settling.is_idle() || self.is_healing() {
            return None;
        }
        if !self.unwritten.is_empty() {
            return Some(self.settle_at);
        }
        if !self.delivery.has_moved() {
            return None;
        }
        if self.final_poll != FinalPoll::NotStopping || self.delivery.is_full() {
            return Some(self.last_settled);
        }
        let wait = if self.delivery.settleable() > 0 { SETTLE_INTERVAL } else { MOVE_INTERVAL };
        Some(self.last_settled + wait)
    }

    /// Absorbs the result of a settlement. Returns the settlement once it is committed.
    pub(in crate::relay) fn settled(
        &mut self,
        settlement: Settlement,
        result: &Result<Written, SettleError>,
        now: Instant,
    ) -> Result<Option<Settlement>, Ended> {
        self.last_settled = now;
        match result {
            Ok(Written { fence: Some(fence), .. }) if *fence < self.fence => {
                let (now, before) = (fence.0, self.fence.0);
                warn!(now, before, "the sequence of outbox.seq went back; starting anew");
                Err(Ended::Again)
            }
            Ok(Written { fence, .. }) => {
                self.fence = fence.unwrap_or(self.fence);
                self.lease.confirmed(self.settle_asked, now);
                self.has_settled = true;
                self.authority.published = self.authority.published_with(&settlement);
                self.delivery.settled(&settlement);
                Ok(Some(settlement))
            }
            Err(SettleError::Query(error)) => {
                self.answers = Answers::Missing;
                survive("settle", error)?;
                self.unwritten.push_front(settlement);
                self.settle_at = now + RETRY;
                Ok(None)
            }
            Err(lost @ SettleError::TermLost { .. }) => Err(Ended::Deposed(lost.to_string())),
        }
    }

    /// Starts renewing the lease when it is time to, or when rows were read beyond its bound.
    pub(in crate::relay) fn renew(&mut self, now: Instant) {
        if self.renew_due().is_none_or(|due| due > now) {
            return;
        }
        let renewal = Renewal { asked: now, sent_to: self.delivery.next_sent_to() };
        let (outbox, authority) = (Arc::clone(&self.outbox), self.authority.clone());
        self.renewing
            .start(async move { (renewal, outbox.renew(&authority, renewal.sent_to).await) });
    }

    /// When the lease is renewed next, unless a settlement does it before.
    pub(in crate::relay) fn renew_due(&self) -> Option<Instant> {
        // A healing keeps the row, and nothing is published while it runs.
        if !self.renewing.is_idle() || self.is_healing() {
            return None;
        }
        let at_once = self.delivery.is_bound_near();
        Some(if at_once {
            self.lease.not_before(self.reader.began())
        } else {
            self.lease.renew_due()
        })
    }

    /// Absorbs the result of a renewal.
    pub(in crate::relay) fn renewed(
        &mut self,
        renewal: Renewal,
        result: Result<(), SettleError>,
        now: Instant,
    ) -> Result<(), Ended> {
        match result {
            Ok(()) => {
                self.lease.confirmed(renewal.asked, now);
                self.delivery.bound_recorded(renewal.sent_to);
                Ok(())
            }
            Err(SettleError::Query(error)) => {
                survive("renew the lease", &error)?;
                self.lease.retry_at(now + RETRY);
                Ok(())
            }
            Err(lost @ SettleError::TermLost { .. }) => Err(Ended::Deposed(lost.to_string())),
        }
    }

    /// The answers to everything that was written, also to what is on its way.
    pub(in crate::relay) fn answers(&self) -> Answers {
        let is_idle = self.settling.is_idle() && self.recording.is_idle();
        if is_idle { self.answers } else { Answers::Missing }
    }

    /// Whether a stopping relay has nothing left to do.
    pub(in crate::relay) fn is_drained(&self) -> bool {
        let swept = self.final_poll == FinalPoll::Done && self.fetching.is_idle();
        swept && self.delivery.events() == 0 && self.is_settled()
    }

    /// Whether a stopping relay has nothing left to do while no acknowledgement can come.
    pub(in crate::relay) fn is_stranded(&self) -> bool {
        self.delivery.in_flight() == 0 && self.is_settled()
    }

    fn is_settled(&self) -> bool {
        let position = self.settling.is_idle() && self.unwritten.is_empty();
        position && !self.delivery.has_moved() && self.is_recorded()
    }

    /// When the outbox is read next, if nothing but time is waited for.
    pub(in crate::relay) fn read_due(&self) -> Option<Instant> {
        self.can_fetch().then(|| self.reader.next())
    }
}

/// Whether the session may still be used after a failure.
pub(in crate::relay) fn survive(what: &str, error: &QueryError) -> Result<(), Ended> {
    match error.class() {
        Class::Transient => {
            warn!(%error, "could not {what}, trying again");
            Ok(())
        }
        Class::SessionLost => Err(Ended::Lost(format!("could not {what}: {error}"))),
        class @ (Class::Permission | Class::Schema | Class::Configuration | Class::Unexpected) => {
            let hint = class.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
            Err(Ended::Failed(format!("could not {what}: {error}{hint}")))
        }
    }
}
