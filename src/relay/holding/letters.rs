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

/// Wait before a key is loaded again while some of its letters are not recorded yet.
const RELOAD: Duration = Duration::from_millis(50);

/// Interval of the loads when notifications cannot arrive.
const UNNOTIFIED: Duration = Duration::from_secs(1);

/// Time for which records wait for more records. A crash before the write sends these letters again
/// under the same ids.
const RECORD_INTERVAL: Duration = Duration::from_millis(20);

/// Result of one load of letters.
pub(in crate::relay) enum Loading {
    /// Page of blocked keys.
    Blocked(Result<BlockedKeys, QueryError>),
    /// Marks that are due.
    Due(Result<DueLetters, QueryError>),
    /// Letters of the keys that were due. When the load began, every event with a ticket (its
    /// number in memory) below this one was settled.
    Keys(Result<Vec<KeyLetters>, QueryError>, Ticket),
}

/// Schedule of the loads of letters.
#[derive(Debug)]
pub(in crate::relay) struct LetterSchedule {
    /// Letter after which the next page of blocked keys begins; `None` once every page is loaded.
    load_after: Option<LetterId>,
    load_at: Instant,
    /// Longest time between two loads.
    interval: Duration,
    /// Longest wait of the retry policy. A mark further in the future than this was set by a wrong
    /// clock.
    wait_max: Duration,
    record_at: Instant,
    /// Keys that were due and are loaded next.
    keys: Vec<(Option<AggregateKey>, Vec<Mark>)>,
    /// Records that are not written yet, or only in part.
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

    /// Whether every blocked key is loaded. No event is read or published before that.
    pub(in crate::relay) fn has_loaded_blocked_keys(&self) -> bool {
        self.load_after.is_none()
    }
}

impl Holding {
    /// Wakes the reader, and loads letters, after a notification.
    pub(in crate::relay) fn notified(&mut self, now: Instant) {
        self.reader.wake(now);
        self.letters.load_at = now;
    }

    /// Starts a load of letters when it is due and there is room.
    pub(in crate::relay) fn load_letters(&mut self, limits: PageLimits, now: Instant) {
        if !self.loading.is_idle() || !self.may_load() {
            return;
        }
        let limits = self.within_room(limits);
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
        // Blocked keys are loaded also while stopping, because the last rows are read after them.
        !self.letters.has_loaded_blocked_keys()
            || !self.is_stopping() && self.delivery.has_room_for_letters()
    }

    /// Time of the next load of letters; `None` while no load may start, for instance because
    /// memory is full.
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
            info!(keys, "loaded the blocked keys: new events of these keys wait behind letters");
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
        // All due letters count as read when no key is left to load: each is in memory, or its
        // record is unwritten.
        if self.letters.keys.is_empty() {
            self.delivery.letters_read();
        }
    }

    /// Starts writing records when they are due.
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
            let result = outbox.record_letters(&part, &authority, LINES_MAX).await;
            (records, part, result)
        });
    }

    /// Time of the next write of records; `None` while there is nothing to write.
    pub(in crate::relay) fn record_due(&self) -> Option<Instant> {
        let wanted = self.letters.unwritten.is_some() || self.delivery.has_records();
        let may = self.recording.is_idle() && !self.is_healing();
        (wanted && may).then_some(self.letters.record_at)
    }

    /// Absorbs the result of a write of records of letters: of all that wait, or of a part.
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
                debug!(records = part.records.len(), "wrote the results of loaded letters");
                records.part_written(part);
                self.has_written = true;
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
                    info!(
                        "the number of blocked keys is below its limit again; the relay stops leading for a moment to load them"
                    );
                    return Err(Ended::Again);
                }
                Ok(())
            }
            Err(SettleError::Query(error)) => {
                self.answers = Answers::Missing;
                survive("record the results of letters", error)?;
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
