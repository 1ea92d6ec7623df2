//! Letters of a holding: when they are loaded, tried again and recorded.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::{debug, info, warn};

use super::{Ended, Holding, RETRY, reader, survive};
use crate::{
    clock,
    delivery::{KeyLetters, LetterId, Mark, Records, RecordsPart, Ticket},
    event::AggregateKey,
    outbox::{BlockedKeys, DeadLetter, DueLetter, DueLetters, PageLimits, SettleError},
    pg::error::QueryError,
    relay::report::{
        Reporter,
        dead_letters::{self, Answers, LINES_MAX},
    },
};

/// The wait before a key is loaded again whose letters are not all recorded yet.
const RELOAD: Duration = Duration::from_millis(50);

/// How often letters are loaded when nothing announces that there is a reason to.
const UNNOTIFIED: Duration = Duration::from_secs(1);

/// How long records may wait for others: a crash sends these letters again under the same ids.
const RECORD_INTERVAL: Duration = Duration::from_millis(20);

/// Result of one load of letters.
pub(in crate::relay) enum Loading {
    /// Some of the keys that are blocked.
    Blocked(Result<BlockedKeys, QueryError>),
    /// Letters that are due.
    Due(Result<DueLetters, QueryError>),
    /// Letters of these keys, as of the time when everything below the ticket was settled.
    Keys(Result<Vec<KeyLetters>, QueryError>, Ticket),
}

/// Schedule of the loads of letters.
#[derive(Debug)]
pub(in crate::relay) struct LetterSchedule {
    /// The letter after which the next page of blocked keys begins, until all of them are loaded.
    load_after: Option<LetterId>,
    load_at: Instant,
    /// The longest time between two loads.
    interval: Duration,
    /// The longest wait of the policy: a time further away is a mistake of some clock.
    wait_max: Duration,
    record_at: Instant,
    /// Keys that were due and are loaded next.
    keys: Vec<(Option<AggregateKey>, Vec<Mark>)>,
    /// Records that are not written yet, or only the first ones of them.
    unwritten: Option<Records>,
}

impl LetterSchedule {
    pub(in crate::relay) fn new(
        reader: reader::PollIntervals,
        wait_max: Duration,
        now: Instant,
    ) -> Self {
        let interval = if reader.notified { reader.idle_interval } else { UNNOTIFIED };
        let load_after = Some(LetterId(0));
        let (keys, unwritten) = (Vec::new(), None);
        Self { load_after, load_at: now, interval, wait_max, record_at: now, keys, unwritten }
    }

    /// Whether the keys that are blocked are known: before that, no event may go.
    pub(in crate::relay) fn knows_blocked_keys(&self) -> bool {
        self.load_after.is_none()
    }
}

impl Holding {
    /// Wakes the reader after a notification of events or letters.
    pub(in crate::relay) fn notified(&mut self, now: Instant) {
        self.reader.wake(now);
        self.letters.load_at = now;
    }

    /// Starts loading letters when it is time to and there is room.
    pub(in crate::relay) fn load_letters(&mut self, limits: PageLimits, now: Instant) {
        if !self.loading.is_idle() || !self.may_load() {
            return;
        }
        let room = self.delivery.room();
        let limits = PageLimits {
            events: limits.events.min(room.events),
            bytes: limits.bytes.min(room.bytes),
            ..limits
        };
        let outbox = Arc::clone(&self.outbox);
        if let Some(after) = self.letters.load_after {
            if self.letters.load_at <= now {
                self.loading
                    .start(async move { Loading::Blocked(outbox.blocked_keys(after).await) });
            }
            return;
        }
        let keys = std::mem::take(&mut self.letters.keys);
        if !keys.is_empty() {
            let (recorded, wait_max) = (self.delivery.settled_up_to(), self.letters.wait_max);
            self.loading.start(async move {
                Loading::Keys(outbox.load_letters(keys, limits, wait_max).await, recorded)
            });
        } else if self.letters.load_at <= now {
            self.letters.load_at = now + self.letters.interval;
            let wait_max = self.letters.wait_max;
            self.loading.start(async move { Loading::Due(outbox.due_letters(wait_max).await) });
        }
    }

    fn may_load(&self) -> bool {
        // Also while stopping: the last rows are read once it is known which of them have to wait.
        !self.letters.knows_blocked_keys()
            || !self.is_stopping() && self.delivery.has_room_for_letters()
    }

    /// When letters are loaded next, if nothing but time is waited for.
    pub(in crate::relay) fn load_due(&self) -> Option<Instant> {
        (self.loading.is_idle() && self.may_load()).then_some(self.letters.load_at)
    }

    /// Absorbs the result of a load.
    pub(in crate::relay) fn loaded(&mut self, loading: Loading, now: Instant) -> Result<(), Ended> {
        let error = match loading {
            Loading::Blocked(Ok(BlockedKeys { keys, next })) => {
                self.delivery.block_keys(keys);
                self.letters.load_after = next;
                if next.is_none() {
                    self.report_blocked_keys();
                }
                return Ok(());
            }
            Loading::Due(Ok(due)) => {
                self.take_due(due, now);
                return Ok(());
            }
            Loading::Keys(Ok(keys), recorded) => {
                for letters in keys {
                    self.delivery.take_letters(letters, recorded);
                }
                self.letters.load_at = self.letters.load_at.min(now + RELOAD);
                return Ok(());
            }
            Loading::Blocked(Err(error))
            | Loading::Due(Err(error))
            | Loading::Keys(Err(error), _) => error,
        };
        survive("load letters", &error)?;
        self.letters.load_at = now + RETRY;
        Ok(())
    }

    fn report_blocked_keys(&self) {
        let keys = self.delivery.blocked_keys();
        if self.delivery.blocks_every_key() {
            warn!(
                keys,
                "more keys are blocked than memory may hold: every event with a key goes by way of \
                 the letters, in order and slowly, until there are half as many; redrive or \
                 discard dead letters"
            );
        } else if keys > 0 {
            info!(keys, "loaded the blocked keys");
        }
    }

    fn take_due(&mut self, DueLetters { due, next_in }: DueLetters, now: Instant) {
        let found = !due.is_empty();
        for DueLetter { mark, key } in due {
            if self.delivery.is_active(key.as_ref(), mark.id) {
                continue;
            }
            let same = |(other, _): &&mut (Option<AggregateKey>, Vec<Mark>)| {
                key.is_some() && *other == key
            };
            match self.letters.keys.iter_mut().find(same) {
                Some((_, marks)) => marks.push(mark),
                None => self.letters.keys.push((key, vec![mark])),
            }
        }
        let wait = if found { Some(RELOAD) } else { next_in };
        let wait = wait.map_or(self.letters.interval, |wait| wait.min(self.letters.interval));
        self.letters.load_at = self.letters.load_at.min(now + wait);
        // What is due and active is in memory, or on its way into the table.
        if self.letters.keys.is_empty() {
            self.delivery.letters_read();
        }
    }

    /// Starts writing the records of letters when they are due.
    pub(in crate::relay) fn record_letters(&mut self, now: Instant) {
        if self.record_due().is_none_or(|due| due > now) {
            return;
        }
        let waiting = self.letters.unwritten.take();
        let records = waiting.unwrap_or_else(|| self.delivery.take_records());
        let part = records.part(self.outbox.records_max());
        self.letters.record_at = now + RECORD_INTERVAL;
        let (outbox, authority) = (Arc::clone(&self.outbox), self.authority.clone());
        self.recording.start(async move {
            let result = outbox.record_letters(&part.records, &authority, LINES_MAX).await;
            (records, part, result)
        });
    }

    /// When records are written next.
    pub(in crate::relay) fn record_due(&self) -> Option<Instant> {
        let wanted = self.letters.unwritten.is_some() || self.delivery.has_records();
        let may = self.recording.is_idle() && !self.is_healing();
        (wanted && may).then_some(self.letters.record_at)
    }

    /// Absorbs the result of writing a part of records.
    pub(in crate::relay) fn recorded(
        &mut self,
        mut records: Records,
        part: &RecordsPart,
        result: &Result<Vec<DeadLetter>, SettleError>,
        report: &mut Reporter,
    ) -> Result<(), Ended> {
        let now = clock::now();
        match result {
            Ok(dead) => {
                let codes = dead_letters::of_records(&part.records);
                report.dead_letters.written(codes, dead, now);
                debug!(records = part.records.len(), "recorded what became of letters");
                records.part_written(part);
                if part.records.iter().any(|record| record.load) {
                    self.letters.load_at = now;
                }
                if !records.are_written() {
                    self.letters.unwritten = Some(records);
                    self.letters.record_at = now;
                    return Ok(());
                }
                self.delivery.letters_recorded(&records);
                if self.delivery.wants_blocked_keys() {
                    info!("few enough keys are blocked again: loading them anew");
                    return Err(Ended::Again);
                }
                Ok(())
            }
            Err(SettleError::Query(error)) => {
                self.answers = Answers::Missing;
                survive("record what became of letters", error)?;
                self.letters.unwritten = Some(records);
                self.letters.record_at = now + RETRY;
                Ok(())
            }
            Err(lost @ SettleError::TermLost { .. }) => Err(Ended::Deposed(lost.to_string())),
        }
    }

    /// Whether all records of letters are written.
    pub(in crate::relay) fn is_recorded(&self) -> bool {
        self.recording.is_idle() && self.letters.unwritten.is_none() && !self.delivery.has_records()
    }
}
