//! Log lines about dead letters: one each, and a summary when very many die within seconds.

use std::{
    collections::BTreeMap,
    mem,
    time::{Duration, Instant},
};

use tracing::{error, warn};

use crate::{
    clock,
    delivery::{Fate, LetterChange, LetterId, Record, Settlement},
    outbox::DeadLetter,
};

/// Dead letters with a line of their own within [`WINDOW`], at most. Further ones are counted by
/// code, and one line at the end of the window has the counts.
pub(in crate::relay) const LINES_MAX: usize = 20;

/// Length of the window in which at most [`LINES_MAX`] lines are logged. The window begins with the
/// first line.
const WINDOW: Duration = Duration::from_secs(10);

/// Number of events by error code. The program has few codes, so the map stays small.
type Counts = BTreeMap<String, u64>;

/// Completeness of the answers to a holding's writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::relay) enum Answers {
    /// Every write was answered.
    Complete,
    /// A write was not answered, so the server may have carried it out.
    Missing,
}

/// Log of dead letters. It counts the dead letters without a log line of their own, and those that
/// the database has not confirmed as written.
#[derive(Debug, Default)]
pub(in crate::relay) struct DeadLetterLog {
    /// Events that are to become dead letters, and that the database has not confirmed as written.
    decided: Counts,
    window_began: Option<Instant>,
    lines: usize,
    /// Dead letters of this window without a line of their own.
    unnamed: Counts,
}

impl DeadLetterLog {
    /// Counts an event that becomes a dead letter with the next write.
    pub(in crate::relay) fn decided(&mut self, code: &str) {
        add(&mut self.decided, code, 1);
    }

    /// Logs dead letters that are written. `codes` has the code of each, `named` the first ones in
    /// full.
    pub(in crate::relay) fn written<'a>(
        &mut self,
        codes: impl Iterator<Item = &'a str>,
        named: &[DeadLetter],
        now: Instant,
    ) {
        let mut rest = Counts::new();
        for code in codes {
            add(&mut rest, code, 1);
            subtract(&mut self.decided, code);
        }
        if rest.is_empty() {
            return;
        }
        self.sum_up(now);
        let room = LINES_MAX.saturating_sub(self.lines);
        for letter in named.iter().take(room) {
            log_letter(letter);
            subtract(&mut rest, &letter.code);
            self.lines += 1;
            self.window_began.get_or_insert(now);
        }
        for (code, count) in rest {
            add(&mut self.unnamed, &code, count);
            self.window_began.get_or_insert(now);
        }
    }

    /// Logs the counts of a window that is over.
    pub(in crate::relay) fn sum_up(&mut self, now: Instant) {
        if let Some((count, codes)) = self.close(now) {
            error!(
                count,
                codes,
                "{count} more events each became a dead letter; list them with `postrider dlq list`"
            );
        }
    }

    /// Ends a window that is over. Returns the number of dead letters without a line, and their
    /// codes.
    fn close(&mut self, now: Instant) -> Option<(u64, String)> {
        self.window_began.filter(|began| now.saturating_duration_since(*began) >= WINDOW)?;
        (self.window_began, self.lines) = (None, 0);
        summary(&mem::take(&mut self.unnamed))
    }

    /// Notes the end of a holding, after which no more answers about its writes come.
    pub(in crate::relay) fn holding_ended(&mut self, answers: Answers) {
        // The window ends early, so that each dead letter is logged before a stop.
        self.sum_up(self.window_began.map_or_else(clock::now, |began| began + WINDOW));
        let decided = summary(&mem::take(&mut self.decided));
        if let Some((count, codes)) = decided.filter(|_| answers == Answers::Missing) {
            warn!(
                count,
                codes,
                "the session ended while so many events were written as dead letters: those that are \
                 not written are tried again; `postrider dlq list` has the others"
            );
        }
    }
}

/// Codes of the dead letters in a settlement.
pub(in crate::relay) fn of_settlement(settlement: &Settlement) -> impl Iterator<Item = &str> {
    settlement.letters.iter().filter_map(|letter| match &letter.fate {
        Fate::Dead { reason, .. } => Some(reason.code),
        Fate::Retrying(_) | Fate::Held(_) => None,
    })
}

/// Codes of the letters in these records that are dead again.
pub(in crate::relay) fn of_records(records: &[Record]) -> impl Iterator<Item = &str> {
    records.iter().filter_map(|record| match &record.change {
        LetterChange::Dead { reason, .. } => Some(reason.code),
        LetterChange::Published { .. }
        | LetterChange::Retrying(_)
        | LetterChange::Held
        | LetterChange::Seen { .. } => None,
    })
}

fn log_letter(letter: &DeadLetter) {
    let DeadLetter { id: LetterId(id), event_id, event_type, key, code, error } = letter;
    // A row may contain control characters of a terminal. The error is escaped already.
    let event_type = event_type.escape_debug().to_string();
    let key = key.as_deref().unwrap_or("-").escape_debug().to_string();
    error!(
        letter = id, code, event_type, key, %event_id, error,
        "an event became a dead letter; look at it with `postrider dlq show {id}`, then redrive, edit or discard it"
    );
}

fn add(counts: &mut Counts, code: &str, more: u64) {
    *counts.entry(code.to_owned()).or_default() += more;
}

fn subtract(counts: &mut Counts, code: &str) {
    if let Some(count) = counts.get_mut(code) {
        *count -= 1;
        if *count == 0 {
            counts.remove(code);
        }
    }
}

/// Total, and the count of each code, the most frequent first; `None` when nothing is counted.
fn summary(counts: &Counts) -> Option<(u64, String)> {
    let mut codes: Vec<_> = counts.iter().collect();
    codes.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let texts: Vec<_> = codes.iter().map(|(code, count)| format!("{code}: {count}")).collect();
    let count = counts.values().sum();
    (count > 0).then(|| (count, texts.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(id: i64) -> DeadLetter {
        DeadLetter {
            id: LetterId(id),
            event_id: uuid::Uuid::nil(),
            event_type: "order.placed".to_owned(),
            key: None,
            code: "busy".to_owned(),
            error: "the queue is full".to_owned(),
        }
    }

    fn die(log: &mut DeadLetterLog, codes: &[&str], named: usize, now: Instant) {
        for code in codes {
            log.decided(code);
        }
        let named: Vec<_> = (0_i64..).take(named).map(letter).collect();
        log.written(codes.iter().copied(), &named, now);
    }

    #[test]
    fn each_dead_letter_has_a_line_or_is_counted_in_the_summary_of_its_window() {
        let (mut log, start) = (DeadLetterLog::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in 0..3 {
            die(&mut log, &["busy"; 10], LINES_MAX.min(10), at(second));
        }
        die(&mut log, &["rejected", "busy"], 1, at(9));
        assert_eq!(log.lines, LINES_MAX);
        assert_eq!(log.close(at(9)), None);
        assert_eq!(log.close(at(10)), Some((12, "busy: 11, rejected: 1".to_owned())));
        assert_eq!(log.close(at(60)), None);
        die(&mut log, &["busy"], 1, at(61));
        assert_eq!((log.lines, log.unnamed.len(), log.decided.len()), (1, 0, 0));
    }

    /// The statement that writes dead letters does not return a letter whose row was gone before.
    /// The log has no line of its own for that letter.
    #[test]
    fn what_the_statement_does_not_name_is_counted() {
        let (mut log, start) = (DeadLetterLog::default(), Instant::now());
        die(&mut log, &["busy", "busy"], 0, start);
        assert_eq!(log.close(start + WINDOW), Some((2, "busy: 2".to_owned())));
    }
}
