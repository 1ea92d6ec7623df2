//! The plan of one transaction of the workload, drawn from the seed before anything is sent.

use std::{fmt::Write as _, time::Duration};

use uuid::Uuid;

use super::Options;
use crate::dev::random::Random;

/// Number of hot keys, which take a fifth of the writes together.
const HOT_KEYS: u32 = 3;

const PAD: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+-";

const EVENT_TYPES: [&str; 5] =
    ["order.placed", "order.paid", "order.line.added", "order.shipped", "invoice.sent"];

/// The plan of a transaction.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// The rows to insert, in this order.
    pub(super) rows: Vec<PlannedRow>,
    /// Rows that are inserted before `rows`, after a savepoint, and rolled back to that savepoint.
    pub(super) taken_back: Vec<PlannedRow>,
    /// Way in which the rows are inserted.
    pub(super) way: Way,
    /// End of the transaction.
    pub(super) ending: Ending,
    /// The pause between drawing the transaction's id and its first insert.
    pub(super) wait_before_insert: Option<Duration>,
}

/// Way in which the rows of a transaction get into the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// A call of `emit` for each row.
    Emit,
    /// A single call of `emit_many` for all rows.
    EmitMany,
    /// A plain INSERT into the outbox.
    Insert,
}

/// End of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// COMMIT right after the inserts.
    Commit,
    /// COMMIT after the transaction has stayed open for this time.
    CommitLate(Duration),
    /// PREPARE TRANSACTION, and COMMIT PREPARED after this time.
    Prepare(Duration),
    /// ROLLBACK by the application.
    Rollback,
    /// A statement fails, and the COMMIT that follows rolls back.
    Fail,
}

impl Ending {
    /// Whether the plan is to commit the rows.
    pub(super) fn commits(self) -> bool {
        match self {
            Self::Commit | Self::CommitLate(_) | Self::Prepare(_) => true,
            Self::Rollback | Self::Fail => false,
        }
    }
}

/// The plan of a row. The row gets its number within its key later, under the key's lock.
#[derive(Debug, Clone)]
pub(super) struct PlannedRow {
    pub(super) id: Uuid,
    /// Number of the key among those of the workload; `None` for an event without a key.
    pub(super) key: Option<u32>,
    pub(super) event_type: &'static str,
    pub(super) event_version: i32,
    /// JSON text; `None` for an event without a payload.
    pub(super) payload: Option<String>,
    /// The custom headers as name and value; values are strings.
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) actor: Option<&'static str>,
}

impl Plan {
    /// Draws a transaction; one that commits has at most `events_max` rows.
    pub(super) fn draw(random: &mut Random, options: &Options, events_max: u32) -> Self {
        let ending = draw_ending(random, options);
        let mut size = draw_size(random);
        if ending.commits() {
            size = size.min(events_max);
        }
        let way = draw_way(random, size);
        let keys = draw_keys(random, options, size);
        let has_savepoint = ending.commits() && random.percent(options.savepoint_percent);
        let count_back = if has_savepoint { random.between(1, 5) } else { 0 };
        let mut draw_rows = |count: u32| -> Vec<PlannedRow> {
            (0..count).map(|_| PlannedRow::draw(random, options, &keys, way)).collect()
        };
        let (rows, taken_back) = (draw_rows(size), draw_rows(count_back));
        let waits = random.percent(options.early_xid_percent);
        let wait_before_insert = waits.then(|| draw_hold(random, options));
        Self { rows, taken_back, way, ending, wait_before_insert }
    }

    /// The keys that the transaction touches, each once, in the order in which they are locked.
    pub(super) fn keys(&self) -> Vec<u32> {
        let rows = self.rows.iter().chain(&self.taken_back);
        let mut keys: Vec<u32> = rows.filter_map(|row| row.key).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}

impl PlannedRow {
    fn draw(random: &mut Random, options: &Options, keys: &[Option<u32>], way: Way) -> Self {
        let place = random.below(u32::try_from(keys.len()).unwrap_or(1)) as usize;
        let event_type =
            EVENT_TYPES.get(random.below(5) as usize).copied().unwrap_or("order.placed");
        // A JSON null inside the array of `emit_many` is a payload, and not the absence of one.
        let is_null = random.percent(options.null_percent) && way != Way::EmitMany;
        let mut headers = Vec::new();
        if random.percent(50) {
            headers.push(("Tenant", format!("t-{}", random.below(20))));
        }
        if random.percent(20) {
            let (trace, span) = (random.draw(), random.draw());
            let traceparent = format!("00-{trace:016x}{span:016x}-{span:016x}-01");
            headers.push(("traceparent", traceparent));
        }
        Self {
            id: Uuid::now_v7(),
            key: keys.get(place).copied().flatten(),
            event_type,
            event_version: if random.percent(90) { 1 } else { 2 },
            payload: Some(draw_payload(random, options, way)).filter(|_| !is_null),
            headers,
            // The name contains characters that the message's header has to percent-encode: a
            // letter outside ASCII, spaces and quotes.
            actor: random.percent(25).then_some("Zoë \"Z\" Q"),
        }
    }
}

/// Draws the number of rows: one in 70 % of transactions, 2 to 20 in 25 %, 100 to 200 in 5 %.
fn draw_size(random: &mut Random) -> u32 {
    match random.below(100) {
        0..70 => 1,
        70..95 => random.between(2, 20),
        _ => random.between(100, 200),
    }
}

/// Draws how the rows are inserted: for fewer than 5 rows each way in a third of the cases. Most
/// larger transactions use INSERT, as applications do, because `emit` costs five times as much.
fn draw_way(random: &mut Random, size: u32) -> Way {
    match random.below(if size < 5 { 3 } else { 10 }) {
        0 => Way::Emit,
        1 => Way::EmitMany,
        _ => Way::Insert,
    }
}

/// Draws the keys of a transaction, six at most, which its rows share: a real transaction touches
/// few aggregates.
fn draw_keys(random: &mut Random, options: &Options, size: u32) -> Vec<Option<u32>> {
    let count = random.between(1, size.clamp(1, 6));
    let mut draw_key = || {
        if random.percent(options.keyless_percent) {
            None
        } else if random.percent(20) {
            Some(random.below(HOT_KEYS.min(options.keys)))
        } else {
            Some(random.below(options.keys))
        }
    };
    (0..count).map(|_| draw_key()).collect()
}

fn draw_ending(random: &mut Random, options: &Options) -> Ending {
    let drawn = random.below(100);
    let rolled_back = options.rolled_back_percent;
    let held = rolled_back + options.held_open_percent;
    let prepared = held + options.prepared_percent;
    if drawn < rolled_back {
        if random.percent(50) { Ending::Rollback } else { Ending::Fail }
    } else if drawn < held {
        Ending::CommitLate(draw_hold(random, options))
    } else if drawn < prepared {
        Ending::Prepare(draw_hold(random, options))
    } else {
        Ending::Commit
    }
}

fn draw_hold(random: &mut Random, options: &Options) -> Duration {
    let max = u32::try_from(options.hold_max.as_millis()).unwrap_or(u32::MAX);
    Duration::from_millis(random.between(1, max).into())
}

/// Draws a payload: a JSON text of about the wanted size.
///
/// `emit_many` takes its events as `jsonb`, so its text is written as `jsonb` would print it. The
/// other ways keep every byte. Their text has a form that a JSON library would change, so that a
/// parsed and rewritten payload is noticed.
fn draw_payload(random: &mut Random, options: &Options, way: Way) -> String {
    let (low, high) = (options.payload_bytes.start(), options.payload_bytes.end());
    let size = random.between(*low, *high) as usize;
    let number = random.below(1_000_000);
    let mut payload = String::with_capacity(size + 64);
    let start = match way {
        Way::EmitMany => write!(payload, r#"{{"n": {number}, "pad": "é"#),
        Way::Emit | Way::Insert => write!(payload, r#"{{ "n":1.0e2,"n" : {number},"pad":"\u00e9"#),
    };
    debug_assert!(start.is_ok(), "writing to a String cannot fail");
    while payload.len() + PAD.len() + 2 <= size {
        payload.push_str(PAD);
    }
    payload.extend(PAD.chars().cycle().take(size.saturating_sub(payload.len() + 2)));
    payload.push_str("\"}");
    payload
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_plans() {
        let options = Options { seed: 5, ..Options::default() };
        let sizes = |seed| {
            let mut random = Random::new(seed);
            let plans = (0..100).map(|_| Plan::draw(&mut random, &options, 1_000));
            plans
                .map(|plan| (plan.rows.len(), plan.ending, plan.way, plan.keys()))
                .collect::<Vec<_>>()
        };
        assert_eq!(sizes(5), sizes(5));
        assert_ne!(sizes(5), sizes(6));
    }

    #[test]
    fn the_mixture_is_as_promised() {
        let options = Options::default();
        let mut random = Random::new(3);
        let plans: Vec<Plan> =
            (0..5_000).map(|_| Plan::draw(&mut random, &options, 1_000)).collect();
        let share = |wanted: &dyn Fn(&Plan) -> bool| {
            plans.iter().filter(|plan| wanted(plan)).count() * 100 / plans.len()
        };
        assert!((67..74).contains(&share(&|plan| plan.rows.len() == 1)));
        assert!((3..7).contains(&share(&|plan| plan.rows.len() >= 100)));
        assert!((13..18).contains(&share(&|plan| !plan.ending.commits())));
        let rows: Vec<&PlannedRow> = plans.iter().flat_map(|plan| &plan.rows).collect();
        let hot = rows.iter().filter(|row| row.key.is_some_and(|key| key < HOT_KEYS)).count();
        assert!((14..26).contains(&(hot * 100 / rows.len())), "{hot} of {}", rows.len());
    }

    #[test]
    fn payloads_are_json_of_about_the_wanted_size() {
        let options = Options { payload_bytes: 300..=300, ..Options::default() };
        for way in [Way::Emit, Way::EmitMany] {
            let payload = draw_payload(&mut Random::new(1), &options, way);
            assert!((298..302).contains(&payload.len()), "{}", payload.len());
            assert!(serde_json::from_str::<serde_json::Value>(&payload).is_ok(), "{payload}");
        }
    }

    #[test]
    fn a_plan_keeps_to_what_is_left_to_commit() {
        let mut random = Random::new(9);
        let options = Options { rolled_back_percent: 0, ..Options::default() };
        for _ in 0..200 {
            assert!(Plan::draw(&mut random, &options, 3).rows.len() <= 3);
        }
    }
}
