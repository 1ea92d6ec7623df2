//! Writes the text of each finding: one cause, one next command.

use super::{Blocker, Chore, Closed, Code, Depth, Finding, Severity, Unready, code_named};

fn critical(code: Code, cause: impl Into<String>, next: impl Into<String>) -> Finding {
    Finding { code, severity: Severity::Critical, cause: cause.into(), next: next.into() }
}

fn warning(code: Code, cause: impl Into<String>, next: impl Into<String>) -> Finding {
    Finding { severity: Severity::Warning, ..critical(code, cause, next) }
}

/// The next step when an instance runs and does not lead.
const ITS_LOG: &str = "read the cause in the log of that instance; then postrider check";

/// Parts of next steps that name `postrider check`, and the text that replaces them in its own
/// output.
const WITHIN_CHECK: [(&str, &str); 8] = [
    ("; then postrider check", ""),
    (", then run `postrider check`", ""),
    ("postrider check; then the logs", "the logs"),
    ("; postrider check", ""),
    (
        "postrider check, and see whether the server runs",
        "see whether the server runs, and reach it \
     from the leader's machine",
    ),
    ("more: postrider check", "more: the line on privileges has them"),
    ("; if it does not: postrider check", "; if it does not, read the relay's log"),
    ("postrider check", "the other lines here"),
];

/// The next step as `postrider check` itself shows it: without the advice to run `postrider check`.
pub fn within_check(next: &str) -> String {
    WITHIN_CHECK.iter().fold(next.to_owned(), |text, (here, there)| text.replace(here, there))
}

pub(super) fn never_started(relay: &str, instances: &[String]) -> Finding {
    let (cause, next) = match instances.first() {
        None => (
            format!("relay {relay} has never run; every event waits in the outbox"),
            "postrider run",
        ),
        Some(session) => (
            format!(
                "relay {relay} has never led, although an instance is connected ({session}); every \
                 event waits in the outbox"
            ),
            ITS_LOG,
        ),
    };
    critical(Code::NeverStarted, cause, next)
}

pub(super) fn no_leader(relay: &str, instances: &[String]) -> Finding {
    let (cause, next) = match instances.first() {
        None => (
            format!("no instance leads relay {relay}; events wait in the outbox"),
            "start it: postrider run",
        ),
        Some(session) => (
            format!(
                "no instance leads relay {relay}, although one is connected ({session}); events wait \
                 in the outbox"
            ),
            ITS_LOG,
        ),
    };
    critical(Code::NoLeader, cause, next)
}

pub(super) fn begins(by: &str) -> Finding {
    critical(
        Code::Starting,
        format!("{by} has taken the lease and has not begun to publish"),
        "wait some seconds; if it stays so, read the log of that process; then postrider check",
    )
}

pub(super) fn lease_not_taken(relay: &str) -> Finding {
    critical(
        Code::NoLeader,
        format!(
            "no instance leads relay {relay}, and this standby cannot take the lease over; events \
             wait in the outbox"
        ),
        "read the cause in this instance's log; then postrider check",
    )
}

pub(super) fn leader_silent(by: &str, seconds: f64) -> Finding {
    critical(
        Code::LeaderSilent,
        format!("{by} leads and has not reported for {}", span(seconds)),
        "read the log of that process; if it hangs, end it, and another instance takes over",
    )
}

pub(super) fn starting() -> Finding {
    critical(
        Code::Starting,
        "the relay takes its position and has not begun to publish",
        "wait some seconds; if it stays so, read the relay's log",
    )
}

pub(super) fn failed(why: &str) -> Finding {
    critical(
        Code::RouteFailed,
        format!("the route has stopped: {why}"),
        "remove the cause; the route starts again by itself within a minute, and the others go on",
    )
}

pub(super) fn stopping() -> Finding {
    critical(
        Code::Stopping,
        "the relay was asked to stop and settles what is in flight",
        "nothing; it ends within shutdown.grace",
    )
}

pub(super) fn postgres_down(detail: &str, hint: Option<&str>) -> Finding {
    critical(
        Code::PostgresDown,
        format!("no session with Postgres: {detail}"),
        hint.unwrap_or("postrider check, and see whether the server runs; the relay keeps trying"),
    )
}

pub(super) fn grants(statements: &[String]) -> Option<Finding> {
    let first = statements.first()?;
    let cause = match statements.len() {
        1 => "Postgres is up, and the relay's user lacks one grant".to_owned(),
        count => format!("Postgres is up, and the relay's user lacks {count} grants"),
    };
    Some(critical(Code::PermissionMissing, cause, granting(first, statements.len())))
}

/// Text with the first of `count` granting statements. When there are more, it names the command
/// that prints the others.
fn granting(first: &str, count: usize) -> String {
    let who = grantor(first);
    match count {
        1 => format!("{who}: {first}"),
        count => format!("{who}: {first} … and {} more: postrider check", count - 1),
    }
}

/// The role that may run a statement which grants something: objects of Postgres itself belong to
/// superusers.
pub fn grantor(statement: &str) -> &'static str {
    if statement.contains(" pg_catalog.") { "as a superuser" } else { "as the schema's owner" }
}

pub(super) fn locked(blocker: &Blocker) -> Finding {
    let Blocker { session, next } = blocker;
    critical(
        Code::PostgresLocked,
        format!("{session} holds a lock that the relay's statements wait for"),
        next.clone(),
    )
}

/// Maximum number of privileges that a finding names.
const LACKS_MAX: usize = 3;

/// Finding about a role that should be able to insert events and lacks a privilege. `None` stands
/// for every role: the owner of the trigger function lacks the privilege.
pub fn refused(role: Option<&str>, lacks: &[String], statements: &[String]) -> Finding {
    let first = statements.first().map_or("", String::as_str);
    let next = granting(first, statements.len());
    let (named, others) = (lacks.iter().take(LACKS_MAX), lacks.len().saturating_sub(LACKS_MAX));
    let others = if others > 0 { format!(" and {others} more") } else { String::new() };
    let lacks = format!("{}{others}", named.cloned().collect::<Vec<_>>().join(", "));
    let Some(role) = role else {
        let cause = format!(
            "every insert into the outbox is refused while the relay sleeps: the owner of the \
             function wake() lacks {lacks}"
        );
        return critical(Code::ProducersHindered, cause, next);
    };
    let cause =
        format!("{role} may insert into the outbox, and is refused when it does: it lacks {lacks}");
    // Another role may never insert an event, so its missing grants are only a warning.
    let severity =
        if role == "postrider_producer" { Severity::Critical } else { Severity::Warning };
    Finding { severity, ..critical(Code::ProducersHindered, cause, next) }
}

/// Finding about sessions of applications that wait for a lock on the tables.
pub fn queued(blocker: &Blocker, object: Option<&str>, sessions: u64) -> Finding {
    let waits = if sessions == 1 {
        "session of an application waits"
    } else {
        "sessions of applications wait"
    };
    let object = object.map(|name| format!(" on {name}")).unwrap_or_default();
    critical(
        Code::ProducersHindered,
        format!("{} holds a lock{object} that {sessions} {waits} for", blocker.session),
        blocker.next.clone(),
    )
}

pub(super) fn nats_down(detail: &str, hint: Option<&str>) -> Finding {
    critical(
        Code::NatsDown,
        // While the first connection fails, the detail already begins with these words, so they are
        // not repeated.
        match detail.strip_prefix("no connection to ") {
            Some(rest) => format!("no connection to NATS at {rest}"),
            None => format!("no connection to NATS: {detail}"),
        },
        hint.unwrap_or("postrider check, and see whether the server runs; the relay keeps trying"),
    )
}

pub(super) fn unready(unready: Unready) -> Finding {
    let cause = format!("nothing was published for {}: {}", span(unready.seconds), unready.cause);
    critical(unready.code, cause, "postrider check; then the logs of the relay and of nats-server")
}

pub(super) fn closed(closed: &Closed) -> Finding {
    let code = code_named(&closed.kind).unwrap_or(Code::Other);
    critical(code, closed.text.clone(), closed.hint.clone())
}

/// Finding about a violated condition of the outbox, or about rows of another cluster that wait.
/// `severity` is a warning when the relay repairs the condition by itself and no event can be
/// passed over.
pub fn contract(severity: Severity, problem: &str, fix: &str) -> Finding {
    Finding { severity, ..critical(Code::ContractBroken, problem, fix) }
}

/// Finding about published events that no healing brings back; `None` when there are none.
pub fn lost(events: u64, since: Option<&str>) -> Option<Finding> {
    let since = since.map(|since| format!(", noticed at {since}")).unwrap_or_default();
    (events > 0).then(|| {
        critical(
            Code::EventsLost,
            format!(
                "at most {events} published events are gone from the stream and from the outbox{since}"
            ),
            "restore them from a backup or accept it, then: postrider audit --acknowledge-loss --reason …",
        )
    })
}

pub(super) fn stalled(depth: &Depth, oldest: f64, silent: f64) -> Finding {
    critical(
        Code::Stalled,
        format!(
            "{}, and the stream has confirmed nothing for {}",
            backlog(depth, oldest),
            span(silent)
        ),
        "postrider check; then the logs of the relay and of nats-server",
    )
}

pub(super) fn lagging(depth: &Depth, oldest: f64) -> Finding {
    let next = if depth.retrying > 0 {
        "postrider dlq list --state retrying"
    } else if depth.held > 0 && depth.unsettled == 0 {
        "postrider dlq list"
    } else {
        "watch whether it falls: postrider status; if it does not: postrider check"
    };
    let severity =
        if oldest >= super::LAG_CRITICAL_SECONDS { Severity::Critical } else { Severity::Warning };
    Finding { severity, ..warning(Code::Lagging, backlog(depth, oldest), next) }
}

pub(super) fn retrying(depth: &Depth, oldest: f64) -> Finding {
    let held = match depth.held {
        0 => String::new(),
        count => format!(", and {} behind them or behind dead ones", events(count)),
    };
    let waits = if depth.retrying == 1 { "waits" } else { "wait" };
    let severity =
        if oldest >= super::LAG_CRITICAL_SECONDS { Severity::Critical } else { Severity::Warning };
    let finding = warning(
        Code::LettersRetrying,
        format!("{} {waits} for another try{held}", events(depth.retrying)),
        "postrider dlq list --state retrying shows why; the relay keeps trying by itself",
    );
    Finding { severity, ..finding }
}

pub(super) fn dead(count: u64) -> Finding {
    let (letters, wait) =
        if count == 1 { ("dead letter", "waits") } else { ("dead letters", "wait") };
    warning(
        Code::DeadLetters,
        format!("{count} {letters} {wait} for a decision; the later events of such keys are held"),
        "postrider dlq list",
    )
}

/// Finding about letters of a relay that nobody runs and that is not configured, as after its name
/// was changed.
pub fn stranded(relay: &str, letters: i64) -> Finding {
    let letters = match letters {
        1 => "1 letter belongs".to_owned(),
        count => format!("{count} letters belong"),
    };
    warning(
        Code::DeadLetters,
        format!("{letters} to relay {relay}, which nobody runs: no other relay publishes them"),
        format!(
            "postrider dlq list --route {relay}; a relay of another name publishes what the outbox still \
             has of them; then give them up: postrider relay forget {relay} --discard-letters"
        ),
    )
}

pub(super) fn unrouted(count: u64) -> Finding {
    let events = if count == 1 { "1 event was".to_owned() } else { format!("{count} events were") };
    warning(
        Code::Unrouted,
        format!("{events} taken by no route, and went nowhere"),
        "read their types in the log; give them a [[route]], then postrider reconcile --route NAME",
    )
}

pub(super) fn unmeasured(age: f64) -> Finding {
    let cause = format!("backlog and age were last measured {} ago", span(age));
    let next = "read the cause in the relay's log: a chore fails, or Postgres does not answer";
    if age >= super::MEASURED_CRITICAL_SECONDS {
        critical(Code::Unmeasured, cause, next)
    } else {
        warning(Code::Unmeasured, cause, next)
    }
}

/// Effect of a chore that keeps failing, as text.
pub fn chore_consequence(chore: Chore) -> &'static str {
    match chore {
        Chore::Depth => "backlog and age are not measured",
        Chore::Note => "`postrider status` does not see what the relay sees",
        Chore::Checkpoint => "after a loss at the broker more events are published again",
        Chore::Retention => "published rows stay and the outbox grows",
        Chore::ConsumerKeys => "the table of consumers' keys grows",
        Chore::Letters => "resolved letters and the audit grow",
        Chore::Grants => "a missing grant is not reported",
        Chore::Producers => "an application that cannot insert events is not reported",
        Chore::Positions => "an abandoned position is not reported",
    }
}

pub(super) fn chore(chore: Chore, failures: u32) -> Finding {
    let costs = chore_consequence(chore);
    warning(
        Code::ChoreFailing,
        format!("the chore {} failed {failures} times in a row: {costs}", chore.as_str()),
        "the relay's log has the error; postrider check",
    )
}

pub(super) fn abandoned(relay: &str, seconds: f64) -> Finding {
    warning(
        Code::PositionAbandoned,
        format!(
            "nobody has run relay {relay} for {}, and its position keeps published rows in the outbox",
            span(seconds)
        ),
        format!("start it, or give it up: postrider relay forget {relay}"),
    )
}

fn backlog(depth: &Depth, oldest: f64) -> String {
    let waits = if depth.backlog() == 1 { "waits" } else { "wait" };
    format!("{} {waits} to be published, the oldest for {}", events(depth.backlog()), span(oldest))
}

fn events(count: u64) -> String {
    if count == 1 { "1 event".to_owned() } else { format!("{count} events") }
}

/// A duration as text in one unit: the largest unit of which it has at least two.
fn span(seconds: f64) -> String {
    match seconds {
        _ if seconds < 120.0 => format!("{seconds:.0} s"),
        _ if seconds < 7200.0 => format!("{:.0} min", seconds / 60.0),
        _ if seconds < 172_800.0 => format!("{:.0} h", seconds / 3600.0),
        _ => format!("{:.0} days", seconds / 86_400.0),
    }
}
