//! Tests of every case with its texts, in a table.

use std::{collections::HashSet, fmt::Write as _};

use super::*;
use crate::delivery::ClosureKind;

fn leading() -> RelayFacts {
    RelayFacts {
        relay: "default".to_owned(),
        role: Role::Leading,
        postgres: LinkState::Up,
        nats: LinkState::Up,
        depth: Some(Depth::default()),
        measured_seconds_ago: Some(3.0),
        unconfirmed_seconds: Some(1.0),
        ..RelayFacts::default()
    }
}

fn down(detail: &str) -> LinkState {
    LinkState::Down { detail: detail.to_owned(), hint: None }
}

fn gate(kind: ClosureKind, text: &str) -> RelayFacts {
    let hint = kind.hint().to_owned();
    let closed = Closed { kind: kind.as_str().to_owned(), text: text.to_owned(), hint };
    RelayFacts { gate: Some(closed), ..leading() }
}

fn waits(unsettled: u64, retrying: u64, held: u64, oldest: f64) -> RelayFacts {
    let depth =
        Depth { unsettled, retrying, held, oldest_seconds: Some(oldest), ..Depth::default() };
    RelayFacts { depth: Some(depth), oldest_seconds: oldest, ..leading() }
}

fn led(silent_seconds: f64) -> Role {
    let (by, silent_seconds) = ("postrider/relay".to_owned(), Some(silent_seconds));
    Role::Led { by, silent_seconds, has_reported: true }
}

fn blocker() -> Blocker {
    Blocker {
        session:
            "session 4711 (user app, application \"alembic\", at work since 2026-11-21T08:46:48Z)"
                .to_owned(),
        next: "wait for its end, or end it: SELECT pg_terminate_backend(4711)".to_owned(),
    }
}

fn connected() -> Vec<String> {
    vec!["session 4712, postrider/relay/default".to_owned()]
}

fn of_the_database() -> Vec<(&'static str, RelayFacts)> {
    let grant =
        |table: &str| format!("GRANT SELECT ON TABLE \"postrider\".{table} TO postrider_relay");
    vec![
        (
            "Postgres does not run",
            RelayFacts { postgres: down("127.0.0.1:5432: connection refused"), ..leading() },
        ),
        (
            "the password was changed",
            RelayFacts {
                postgres: LinkState::Down {
                    detail: "db:5432: password authentication failed (28P01)".to_owned(),
                    hint: Some("check database.url".to_owned()),
                },
                ..leading()
            },
        ),
        (
            "a grant was revoked",
            RelayFacts {
                postgres: down("permission denied for table outbox (42501)"),
                missing_grants: vec![grant("outbox")],
                ..leading()
            },
        ),
        (
            "several grants were revoked",
            RelayFacts { missing_grants: vec![grant("outbox"), grant("letter")], ..leading() },
        ),
        (
            "a function of Postgres was revoked from everybody",
            RelayFacts {
                missing_grants: vec![
                    "GRANT EXECUTE ON FUNCTION pg_catalog.pg_notify(text, text) TO postrider_relay"
                        .to_owned(),
                ],
                ..leading()
            },
        ),
        ("LOCK TABLE by somebody else", RelayFacts { blocker: Some(blocker()), ..leading() }),
        ("a lock behind a pooler", RelayFacts { blocker: Some(Blocker::unnamed()), ..leading() }),
        (
            "nothing measured for a while",
            RelayFacts { measured_seconds_ago: Some(40.0), ..leading() },
        ),
        (
            "nothing measured for long",
            RelayFacts { measured_seconds_ago: Some(400.0), ..leading() },
        ),
        ("retention fails", RelayFacts { failing: vec![(Chore::Retention, 4)], ..leading() }),
        (
            "the outbox lost a partition",
            RelayFacts {
                alarms: vec![contract(
                    Severity::Critical,
                    "outbox has no partition for slot 6",
                    "ALTER TABLE \"postrider\".outbox ATTACH PARTITION it again, FOR VALUES IN (its slot)",
                )],
                ..leading()
            },
        ),
        (
            "a position of an old name is left",
            RelayFacts { abandoned: vec![("old".to_owned(), 3.5 * 86_400.0)], ..leading() },
        ),
    ]
}

fn of_the_producers() -> Vec<(&'static str, RelayFacts)> {
    vec![
        (
            "LOCK TABLE by somebody else, and applications wait",
            RelayFacts { alarms: vec![queued(&blocker(), Some("outbox"), 12)], ..leading() },
        ),
        (
            "an application lost a grant",
            RelayFacts {
                alarms: vec![refused(
                    Some("shop"),
                    &["SELECT on sequence gate".to_owned()],
                    &["GRANT postrider_producer TO shop".to_owned()],
                )],
                ..leading()
            },
        ),
        (
            "every application lost a grant",
            RelayFacts {
                alarms: vec![refused(
                    None,
                    &["EXECUTE on function pg_notify(text,text) of Postgres".to_owned()],
                    &["GRANT EXECUTE ON FUNCTION pg_catalog.pg_notify(text,text) TO shop_owner"
                        .to_owned()],
                )],
                ..leading()
            },
        ),
    ]
}

fn of_the_broker() -> Vec<(&'static str, RelayFacts)> {
    vec![
        (
            "nats-server does not run",
            RelayFacts {
                nats: down("no connection to nats://127.0.0.1:4222: connection refused"),
                ..leading()
            },
        ),
        (
            "nats-server does not run, on a standby",
            RelayFacts {
                role: Role::Standby { leader: Some("postrider/relay".to_owned()) },
                nats: down("connection refused"),
                ..leading()
            },
        ),
        (
            "the stream is full",
            gate(ClosureKind::StreamUnavailable, "maximum bytes exceeded (JetStream code 10077)"),
        ),
        (
            "the stream is missing",
            gate(ClosureKind::Misconfigured, "stream \"EVENTS\" does not exist"),
        ),
        (
            "a subject is forbidden",
            gate(
                ClosureKind::PermissionDenied,
                "Permissions Violation for Publish to \"events.order\"",
            ),
        ),
        (
            "the broker lost events",
            gate(
                ClosureKind::BrokerRegressed,
                "stream \"EVENTS\" went back to sequence 7; it had acknowledged 12",
            ),
        ),
        (
            "a kind that this program has no name for",
            RelayFacts {
                gate: Some(Closed {
                    kind: "frozen".to_owned(),
                    text: "the stream is frozen".to_owned(),
                    hint: "thaw it".to_owned(),
                }),
                ..leading()
            },
        ),
    ]
}

fn of_the_store() -> Vec<(&'static str, RelayFacts)> {
    vec![
        ("the broker is frozen", gate(ClosureKind::BrokerStalled, "nothing is answered for 5 s")),
        (
            "the broker's disk is full",
            gate(
                ClosureKind::StoreStalled,
                "the broker answers requests about stream \"EVENTS\", and has confirmed no publish for 10s",
            ),
        ),
        (
            "a long scan",
            RelayFacts {
                gate: Some(Closed {
                    kind: "scanning".to_owned(),
                    text: "scanning the stream: read 1000000 of 7000000 messages".to_owned(),
                    hint: "nothing: events flow as soon as the scan is done".to_owned(),
                }),
                ..leading()
            },
        ),
        (
            "events are gone for good",
            RelayFacts {
                alarms: lost(8_970, Some("2026-11-26T22:55:51Z")).into_iter().collect(),
                ..leading()
            },
        ),
    ]
}

fn of_what_waits() -> Vec<(&'static str, RelayFacts)> {
    let silent = |facts| RelayFacts { unconfirmed_seconds: Some(200.0), ..facts };
    let dead = Depth { dead: 2, ..Depth::default() };
    vec![
        ("a healthy burst", waits(50_000, 0, 0, 4.0)),
        ("a backlog that is being worked off", waits(50_000, 0, 0, 70.0)),
        ("events wait and nothing explains it", silent(waits(1_201, 0, 0, 190.0))),
        ("on_denied = retry: all are letters", waits(0, 1_200, 1, 130.0)),
        ("one event is tried again", waits(0, 1, 0, 8.0)),
        ("dead letters", RelayFacts { depth: Some(dead), ..leading() }),
        (
            "a dead letter blocks a key",
            RelayFacts {
                depth: Some(Depth { dead: 1, ..waits(0, 0, 3, 300.0).depth.unwrap() }),
                ..waits(0, 0, 3, 300.0)
            },
        ),
    ]
}

fn of_who_runs() -> Vec<(&'static str, RelayFacts)> {
    let role = |role| RelayFacts { role, ..leading() };
    let reported = Finding {
        code: Code::NatsDown,
        severity: Severity::Critical,
        cause: "no connection to NATS: connection refused".to_owned(),
        next: "postrider check".to_owned(),
    };
    vec![
        ("all is well", leading()),
        ("it has never run", role(Role::NeverStarted)),
        ("nobody runs it", role(Role::NotRunning)),
        ("it starts", role(Role::Starting)),
        (
            "it starts again and again, because a grant was revoked",
            RelayFacts {
                missing_grants: vec![
                    "GRANT SELECT ON TABLE \"postrider\".outbox TO app".to_owned(),
                ],
                ..role(Role::Starting)
            },
        ),
        ("it stops", role(Role::Stopping)),
        (
            "the route failed",
            RelayFacts {
                failed: Some("stream INVOICES has retention by interest".to_owned()),
                ..role(Role::Starting)
            },
        ),
        (
            "events that no route takes",
            RelayFacts { unrouted: Some(3), depth: Some(Depth::default()), ..role(Role::Leading) },
        ),
        ("a standby", role(Role::Standby { leader: Some("postrider/relay".to_owned()) })),
        ("a standby that cannot take over", role(Role::Standby { leader: None })),
        ("seen from the database, all is well", role(led(2.0))),
        ("the leader is frozen", role(led(47.0))),
        (
            "seen from the database, the leader reported something",
            RelayFacts { reported: vec![reported], ..role(led(2.0)) },
        ),
    ]
}

fn of_who_cannot_lead() -> Vec<(&'static str, RelayFacts)> {
    let role = |role| RelayFacts { role, ..leading() };
    vec![
        (
            "it has never led, and an instance runs",
            RelayFacts { instances: connected(), ..role(Role::NeverStarted) },
        ),
        (
            "nobody leads, and an instance runs",
            RelayFacts { instances: connected(), ..role(Role::NotRunning) },
        ),
        (
            "nobody leads, and an instance waits for a lock",
            RelayFacts {
                instances: connected(),
                blocker: Some(blocker()),
                ..role(Role::NotRunning)
            },
        ),
        (
            "an instance has just taken the lease",
            role(Role::Led {
                by: "postrider/relay".to_owned(),
                silent_seconds: Some(0.4),
                has_reported: false,
            }),
        ),
        (
            "a lock keeps the reader from knowing who runs it",
            RelayFacts { blocker: Some(blocker()), ..role(Role::Unknown) },
        ),
    ]
}

fn cases() -> Vec<(&'static str, RelayFacts)> {
    [
        of_who_runs(),
        of_who_cannot_lead(),
        of_the_database(),
        of_the_producers(),
        of_the_broker(),
        of_the_store(),
        of_what_waits(),
    ]
    .concat()
}

#[test]
fn every_case_reads_as_one_cause_and_one_next_command() {
    let mut text = String::new();
    for (case, facts) in cases() {
        let findings = of(&facts);
        let readiness = if is_ready(&findings) { "ready" } else { "not ready" };
        writeln!(text, "{case}: {readiness}").unwrap();
        for Finding { code, severity, cause, next } in findings {
            writeln!(text, "  {} {}: {cause}", severity.as_str(), code.as_str()).unwrap();
            writeln!(text, "    next: {next}").unwrap();
        }
    }
    insta::assert_snapshot!("cases", text);
}

/// Regression: the status was backlog 0, lag 0, OK and ready, while 1,201 events were stuck.
#[test]
fn no_case_in_which_events_do_not_flow_is_without_a_critical_finding() {
    let fine =
        ["all is well", "a standby", "seen from the database, all is well", "a healthy burst"];
    for (case, facts) in cases() {
        assert_eq!(of(&facts).is_empty(), fine.contains(&case), "{case}");
    }
    let worst = |facts: &RelayFacts| of(facts).first().map(|finding| finding.severity);
    assert_eq!(worst(&waits(0, 1_200, 1, 130.0)), Some(Severity::Critical));
    let silent = RelayFacts { unconfirmed_seconds: Some(200.0), ..waits(1_201, 0, 0, 190.0) };
    assert!(!is_ready(&of(&silent)));
}

#[test]
fn every_code_has_a_case_and_a_section_for_who_is_on_call() {
    let shown: HashSet<_> =
        cases().iter().flat_map(|(_, facts)| of(facts)).map(|finding| finding.code).collect();
    let manual = include_str!("../../docs/operations.md");
    for code in Code::ALL {
        assert!(shown.contains(code), "no case shows {}", code.as_str());
        let section = format!("\n### `{}`\n", code.as_str());
        assert!(manual.contains(&section), "docs/operations.md has no section {}", section.trim());
    }
}

/// Regression: a hint in the output of `postrider check` was to run `postrider check`.
#[test]
fn no_next_step_within_check_is_check_itself() {
    for (name, facts) in cases() {
        for finding in of(&facts) {
            let next = within_check(&finding.next);
            assert!(!next.contains("postrider check"), "{name}: {next}");
            assert!(!next.trim().is_empty(), "{name}: {}", finding.next);
        }
    }
}
