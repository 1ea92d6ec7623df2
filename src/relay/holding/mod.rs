//! Holding: the session, the term, and the events in memory of one time as the leader.

mod fetching;
pub(super) mod letters;
pub(super) mod reader;
mod renewal;
mod settling;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::warn;

use self::{
    letters::Loading,
    reader::{OutboxReader, Reading},
    renewal::Renewal,
};
use crate::{
    config,
    delivery::{Delivery, Lease, Records, RecordsPart, Settlement},
    event::Seq,
    outbox::{
        Authority, DeadLetter, HealWhen, Healed, Outbox, PageLimits, REPAIR_SETTINGS, Repair,
        SettleError, Written,
    },
    pg::{
        connect::{ConnectError, connect},
        error::{Class, QueryError},
        schema::Schema,
    },
    relay::{operation::Operation, report::dead_letters::Answers},
};

/// Wait before a failed settlement or reading is tried again over the same session.
pub(in crate::relay) const RETRY: Duration = Duration::from_secs(1);

/// Holding: one time of being the leader.
pub(in crate::relay) struct Holding {
    pub(in crate::relay) outbox: Arc<Outbox>,
    pub(in crate::relay) authority: Authority,
    pub(in crate::relay) lease: Lease,
    pub(in crate::relay) renewing: Operation<(Renewal, Result<(), SettleError>)>,
    pub(in crate::relay) delivery: Delivery,
    pub(in crate::relay) reader: OutboxReader,
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
    /// Time at which the last settlement was sent.
    settle_asked: Instant,
    /// Whether a settlement or a record of this holding was written.
    pub(in crate::relay) has_written: bool,
    /// Parts of a settlement that are still to be written, in order.
    unwritten: VecDeque<Settlement>,
    /// Whether every write so far was answered.
    pub(in crate::relay) answers: Answers,
    settle_at: Instant,
    last_settled: Instant,
    final_poll: FinalPoll,
}

/// Address of the outbox (database, schema and relay), for sessions besides the relay's own.
#[derive(Debug, Clone)]
pub(in crate::relay) struct OutboxPlace {
    pub(in crate::relay) database: config::DatabaseConfig,
    pub(in crate::relay) schema: Schema,
    pub(in crate::relay) relay: String,
}

impl OutboxPlace {
    /// Opens a session for a repair, which may take time in proportion to the rows.
    pub(in crate::relay) async fn repair(&self) -> Result<Repair, ConnectError> {
        let connection = connect(&self.database, "repair", &REPAIR_SETTINGS).await?;
        Ok(Repair::new(connection, self.schema.clone(), self.relay.clone()))
    }
}

/// State of the last poll for committed rows, in a stopping relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FinalPoll {
    NotStopping,
    /// A poll for rows that were committed before the stop is still to come.
    Wanted,
    /// The last poll was made, and its rows are being read.
    Reading,
    Done,
}

/// Reason for which a holding ended.
#[derive(Debug)]
pub(in crate::relay) enum Ended {
    /// The relay was asked to stop, and is done.
    Stopped,
    /// The events in memory are out of date: rows are read again, from another position or with
    /// larger payloads.
    Again,
    /// The session is lost; another one is opened.
    Lost(String),
    /// A statement fails for a lasting reason. It is tried again later, over another session.
    Failed(String),
    /// Another instance leads.
    Deposed(String),
    /// Another instance, which leads fewer shards, is to take over the lease.
    Yielded,
}

impl Holding {
    /// The limits of a page, lowered to what the memory budget has left.
    fn within_room(&self, limits: PageLimits) -> PageLimits {
        let room = self.delivery.room();
        PageLimits {
            events: limits.events.min(room.events),
            bytes: limits.bytes.min(room.bytes),
            ..limits
        }
    }

    /// A holding that has read nothing yet.
    pub(in crate::relay) fn new(
        (outbox, place): (Arc<Outbox>, OutboxPlace),
        (authority, lease): (Authority, Lease),
        delivery: Delivery,
        (reader, letters): (OutboxReader, letters::LetterSchedule),
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
            has_written: false,
            unwritten: VecDeque::new(),
            answers: Answers::Complete,
            settle_at: now,
            last_settled: now,
            final_poll: FinalPoll::NotStopping,
        }
    }

    /// Asks for one last poll for the rows that are committed by now.
    pub(in crate::relay) fn stop(&mut self, now: Instant) {
        if self.final_poll == FinalPoll::NotStopping {
            self.final_poll = FinalPoll::Wanted;
            self.reader.wake(now);
        }
    }

    /// Whether the relay is stopping, so that it starts nothing new.
    pub(in crate::relay) fn is_stopping(&self) -> bool {
        self.final_poll != FinalPoll::NotStopping
    }

    /// Heals: puts the position back to a checkpoint at which the stream contained everything.
    ///
    /// Writes in progress end first, and no write follows: it would move the position on.
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
    pub(in crate::relay) fn end_final_poll(&mut self) {
        self.final_poll = FinalPoll::Done;
    }

    /// Starts the writes that are due.
    pub(in crate::relay) fn write(&mut self, now: Instant) {
        self.settle(now);
        self.renew(now);
        self.record_letters(now);
    }

    /// Whether every write was answered. A write in progress counts as not answered.
    pub(in crate::relay) fn answers(&self) -> Answers {
        let is_idle = self.settling.is_idle() && self.recording.is_idle();
        if is_idle { self.answers } else { Answers::Missing }
    }

    /// Whether a stopping relay has nothing left to do.
    pub(in crate::relay) fn is_drained(&self) -> bool {
        let polled = self.final_poll == FinalPoll::Done && self.fetching.is_idle();
        polled && self.delivery.events() == 0 && self.is_settled()
    }

    /// Whether a stopping relay has nothing left to do while no event can be published: nothing is
    /// in flight, and every decision is written.
    pub(in crate::relay) fn is_stranded(&self) -> bool {
        self.delivery.in_flight() == 0 && self.is_settled()
    }

    fn is_settled(&self) -> bool {
        let position = self.settling.is_idle() && self.unwritten.is_empty();
        position && !self.delivery.has_moved() && self.is_recorded()
    }
}

/// Logs a failure after which the session is still usable. For any other failure, returns how the
/// holding ends.
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
