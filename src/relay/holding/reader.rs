//! Reader of the outbox: it reads at once while there is more, often while there is work, and
//! sleeps behind the wake-up gate when there is none.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::try_join;

use crate::{
    delivery::Backoff,
    event::{Position, Seq, Snapshot},
    outbox::{Outbox, Page, PageLimits},
    pg::error::QueryError,
};

/// Time without any rows after which the reader prepares to sleep.
const QUIET: Duration = Duration::from_millis(100);

/// Time for which the wake-up gate stays open beyond the next slow poll, so that a late poll finds
/// it open.
const GATE_SLACK: Duration = Duration::from_secs(10);

/// Waits between polls while a writer that may have missed the open wake-up gate has not committed.
const DROWSY: Backoff =
    Backoff { first: Duration::from_millis(20), longest: Duration::from_millis(250) };

/// Granularity of the runtime's timers, which round up.
const TIMER_TICK: Duration = Duration::from_millis(1);

/// Number of rows of a poll, inclusive, up to which the pause after it is `poll_interval`. With
/// more rows the pause grows, so that a poll costs little beside its rows.
const PLENTY: u32 = 16;

/// Longest pause between polls that return many rows, unless `poll_interval` is longer.
const LONGEST_POLL: Duration = Duration::from_millis(5);

/// Pause between polls of an idle relay without notifications, as a multiple of `poll_interval`.
const UNNOTIFIED_FACTOR: u32 = 25;

/// Intervals at which the reader polls.
#[derive(Debug, Clone, Copy)]
pub(in crate::relay) struct PollIntervals {
    /// Pause between polls while there is work.
    pub(in crate::relay) poll_interval: Duration,
    /// Pause between polls while asleep.
    pub(in crate::relay) idle_interval: Duration,
    /// Whether a transaction that inserts notifies a sleeping relay.
    pub(in crate::relay) notified: bool,
}

/// Reader of the outbox: it decides when to read next, and how.
#[derive(Debug)]
pub(in crate::relay) struct OutboxReader {
    pace: PollIntervals,
    state: ReaderState,
    next: Instant,
    /// When the last reading began.
    began: Instant,
    /// When rows came last, or a notification about some.
    last_work: Instant,
    /// Number of consecutive readings that found a writer who may have missed the open wake-up
    /// gate.
    drowsy: u32,
    /// Whether a notification came since the last reading began. The reading may have missed its
    /// rows.
    woken: bool,
    /// Late transactions whose rows are being read, once the database has named them.
    late: Late,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReaderState {
    Awake,
    /// The wake-up gate is open, and a writer that may not have seen it open has not committed yet.
    Drowsy,
    /// The wake-up gate is open, and every writer will notify.
    Asleep,
}

/// Result of one reading of the outbox.
pub(in crate::relay) struct Reading {
    /// New target with its floor; `None` when there is no new one, for instance because the rows up
    /// to the previous target are not all read.
    begin: Option<(Snapshot, Seq)>,
    late: Late,
    page: Option<Page>,
    gate: Gate,
}

/// Start of a reading.
pub(in crate::relay) struct Start {
    /// Position from which the reading goes on. Rows up to it have been read already.
    pub(in crate::relay) cursor: Position,
    /// Exclusive lower bound for the `seq` of rows whose transaction begins from now on.
    pub(in crate::relay) fence: Seq,
}

/// State in which a reading left the wake-up gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    /// The gate is closed.
    Closed,
    /// The gate is open, and every writer will see it open.
    Open,
    /// The gate is open, and a writer that may have seen it closed has not committed yet.
    OpenTooLate,
}

/// Late transactions: they were open in the settled snapshot and have ended since, so their rows
/// are read with the newer ones.
#[derive(Debug, Clone)]
enum Late {
    Known(Option<String>),
    Unknown,
}

/// Absorbed reading, as the holding admits it.
pub(in crate::relay) struct ReadResult {
    /// New target with its floor; `None` when there is no new one, for instance because the rows up
    /// to the previous target are not all read.
    pub(in crate::relay) begin: Option<(Snapshot, Seq)>,
    /// Rows; `None` when there was no reason to read any.
    pub(in crate::relay) page: Option<Page>,
}

impl OutboxReader {
    /// A reader that reads at once.
    pub(in crate::relay) fn new(pace: PollIntervals, now: Instant) -> Self {
        Self {
            pace,
            state: ReaderState::Awake,
            next: now,
            began: now,
            last_work: now,
            drowsy: 0,
            woken: false,
            late: Late::Unknown,
        }
    }

    /// Whether the next reading is due.
    pub(in crate::relay) fn is_due(&self, now: Instant) -> bool {
        self.next <= now
    }

    /// When the last reading began.
    pub(in crate::relay) fn began(&self) -> Instant {
        self.began
    }

    /// Time of the next reading.
    pub(in crate::relay) fn next(&self) -> Instant {
        self.next
    }

    /// Makes a reading due at once, after a notification or when the relay stops.
    pub(in crate::relay) fn wake(&mut self, now: Instant) {
        self.next = now;
        self.last_work = now;
        self.woken = true;
    }

    /// Makes a reading due at `at`, because the last reading failed.
    pub(in crate::relay) fn retry_at(&mut self, at: Instant) {
        self.next = at;
        self.late = Late::Unknown;
    }

    /// Pause before the next poll. It is measured from the begin of the last poll, so a slow poll
    /// does not change the rate; but polls take at most half of the time. The pause ends half a
    /// tick of the timer early, because timers are late by that on average.
    ///
    /// After a poll with many rows the pause grows in proportion to them. At such a rate the
    /// processors are the bottleneck, and a row costs least in a large poll.
    fn until_next_poll(&self, rows: usize, now: Instant) -> Duration {
        let interval = self.pace.poll_interval.saturating_sub(TIMER_TICK / 2);
        let longest = interval.max(LONGEST_POLL);
        let rows = u32::try_from(rows).unwrap_or(u32::MAX);
        let interval = (interval.saturating_mul(rows) / PLENTY).clamp(interval, longest);
        (self.began + interval).saturating_duration_since(now).max(interval / 2)
    }

    /// Starts the I/O of one reading.
    pub(in crate::relay) fn read(
        &mut self,
        outbox: Arc<Outbox>,
        start: Start,
        limits: PageLimits,
        now: Instant,
    ) -> impl Future<Output = Result<Reading, QueryError>> + Send + 'static {
        let quiet = now.duration_since(self.last_work) >= QUIET;
        let sleepy = self.pace.notified && quiet && start.cursor.is_complete();
        let open_for = self.pace.idle_interval + GATE_SLACK;
        let was_open = self.state != ReaderState::Awake;
        self.woken = false;
        self.began = now;
        let late = self.late.clone();
        async move {
            if sleepy {
                outbox.open_wake_up_gate(open_for).await?;
                let writers = outbox.has_open_writers().await?;
                let gate = if writers { Gate::OpenTooLate } else { Gate::Open };
                let reading = read_page(&outbox, start, late, limits).await?;
                return Ok(Reading { gate, ..reading });
            }
            let close = async { if was_open { outbox.close_wake_up_gate().await } else { Ok(()) } };
            let ((), reading) = try_join(close, read_page(&outbox, start, late, limits)).await?;
            Ok(reading)
        }
    }

    /// Absorbs a reading, and decides when to read next.
    pub(in crate::relay) fn absorb(&mut self, reading: Reading, now: Instant) -> ReadResult {
        let Reading { begin, late, page, gate } = reading;
        let (rows, complete) =
            page.as_ref().map_or((0, true), |page| (page.events.len(), page.complete));
        self.late = if complete { Late::Unknown } else { late };
        if rows > 0 {
            self.last_work = now;
        }
        self.state = match gate {
            Gate::Closed => ReaderState::Awake,
            Gate::Open if rows == 0 => ReaderState::Asleep,
            Gate::Open | Gate::OpenTooLate => ReaderState::Drowsy,
        };
        self.drowsy = if self.state == ReaderState::Drowsy { self.drowsy + 1 } else { 0 };
        let quiet = now.duration_since(self.last_work) >= QUIET;
        self.next = now
            + match self.state {
                _ if self.woken || !complete => Duration::ZERO,
                ReaderState::Asleep => self.pace.idle_interval,
                ReaderState::Drowsy if quiet => DROWSY.after(self.drowsy),
                ReaderState::Awake if quiet && !self.pace.notified => {
                    self.pace.poll_interval * UNNOTIFIED_FACTOR
                }
                ReaderState::Awake | ReaderState::Drowsy => self.until_next_poll(rows, now),
            };
        ReadResult { begin, page }
    }
}

async fn read_page(
    outbox: &Outbox,
    start: Start,
    late: Late,
    limits: PageLimits,
) -> Result<Reading, QueryError> {
    let Start { mut cursor, fence } = start;
    let nothing = Reading { begin: None, late: Late::Unknown, page: None, gate: Gate::Closed };
    let mut begin = None;
    if cursor.is_complete() {
        let (target, page) = outbox.poll(&cursor.settled, limits).await?;
        if target == cursor.settled {
            return Ok(nothing);
        }
        begin = Some((target.clone(), fence));
        if page.is_some() {
            return Ok(Reading { begin, page, ..nothing });
        }
        cursor.target = target;
        cursor.target_floor = fence;
    }
    let late = match late {
        Late::Known(late) => late,
        // The database has not named the late transactions yet: a poll has found too many rows, or
        // the reading goes on in the middle of the rows up to the target.
        Late::Unknown => outbox.late(&cursor.settled).await?,
    };
    let page = outbox.page(&cursor, late.as_deref(), limits).await?;
    Ok(Reading { begin, late: Late::Known(late), page: Some(page), ..nothing })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::sim::event;

    /// Defect of an earlier version: a notification between the snapshot and the end of a reading
    /// was forgotten. The relay slept on a committed event until the next slow poll.
    #[test]
    fn a_wake_up_during_a_reading_is_not_forgotten_by_what_the_reading_gave() {
        let pace = PollIntervals {
            poll_interval: Duration::from_millis(2),
            idle_interval: Duration::from_secs(5),
            notified: true,
        };
        let now = Instant::now();
        let mut reader = OutboxReader::new(pace, now);
        let nothing = || Reading { begin: None, late: Late::Unknown, page: None, gate: Gate::Open };
        reader.absorb(nothing(), now);
        assert_eq!(reader.next(), now + pace.idle_interval);
        reader.wake(now);
        reader.absorb(nothing(), now);
        assert_eq!(reader.next(), now);
    }

    #[test]
    fn polls_keep_their_pace_and_pause_for_half_of_it_at_least() {
        let (poll, ms) = (Duration::from_millis(4), Duration::from_millis);
        let pace = PollIntervals { poll_interval: poll, idle_interval: ms(5000), notified: true };
        let began = Instant::now();
        for (took, next) in [(ms(0), 3500), (ms(1), 3500), (ms(3), 4750), (ms(9), 10_750)] {
            let mut reader = OutboxReader::new(pace, began);
            let nothing =
                Reading { begin: None, late: Late::Unknown, page: None, gate: Gate::Closed };
            reader.absorb(nothing, began + took);
            assert_eq!(reader.next(), began + Duration::from_micros(next), "it took {took:?}");
        }
    }

    #[test]
    fn polls_that_bring_plenty_come_less_often_up_to_a_bound() {
        let (poll, ms) = (Duration::from_millis(2), Duration::from_millis);
        let pace = PollIntervals { poll_interval: poll, idle_interval: ms(5000), notified: true };
        let began = Instant::now();
        for (rows, next) in [(0, 1500), (16, 1500), (32, 3000), (54, 5000), (1000, 5000)] {
            let mut reader = OutboxReader::new(pace, began);
            let events = (0..rows).map(|seq| Box::new(event(seq, None))).collect();
            let nothing =
                Reading { begin: None, late: Late::Unknown, page: None, gate: Gate::Closed };
            let plenty =
                Reading { page: Some(Page { events, complete: true, read_to: None }), ..nothing };
            reader.absorb(plenty, began);
            assert_eq!(reader.next(), began + Duration::from_micros(next), "{rows} rows");
        }
        // A reader with a longer `poll_interval` keeps it.
        let slow = OutboxReader::new(PollIntervals { poll_interval: ms(100), ..pace }, began);
        assert_eq!(slow.until_next_poll(1000, began), Duration::from_micros(99_500));
    }
}
