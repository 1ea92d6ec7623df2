//! Tests of the commands: their output and their exit codes.

use postrider::dev::servers::NatsOptions;
use serde_json::{Value, json};

use crate::support::{
    DEADLINE, Fixture, app,
    daemon::{self, Finished},
    eventually,
    sandbox::Sandbox,
    toml::Toml,
};

const MINIMAL: &str = include_str!("../../config/minimal.toml");

async fn json_of(toml: &Toml, args: &[&str]) -> Value {
    let finished = daemon::run(toml, args).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    serde_json::from_str(&finished.stdout).unwrap()
}

#[test]
fn help_of_every_command_is_stable() {
    let commands: [&[&str]; 18] = [
        &[],
        &["run"],
        &["migrate"],
        &["relay"],
        &["relay", "list"],
        &["relay", "forget"],
        &["check"],
        &["status"],
        &["dlq"],
        &["dlq", "list"],
        &["dlq", "show"],
        &["dlq", "redrive"],
        &["dlq", "discard"],
        &["dlq", "edit"],
        &["why"],
        &["dev"],
        &["config"],
        &["config", "show"],
    ];
    for command in commands {
        let finished = Sandbox::new().run(&[command, &["--help"]].concat());
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{command:?}");
        insta::assert_snapshot!([&["help"], command].concat().join("_"), finished.stdout);
    }
}

#[test]
fn wrong_command_line_exits_with_2() {
    let wrong: [&[&str]; 15] = [
        &[],
        &["rnu"],
        &["run", "--rescann"],
        &["dlq", "list", "--limit", "0"],
        &["dlq", "list", "--after", "x"],
        &["status", "--json", "--check"],
        &["dlq", "list", "--since", "yesterday"],
        &["dlq", "list", "--state", "lost"],
        &["dlq", "redrive"],
        &["dlq", "redrive", "1", "--all"],
        &["dlq", "discard", "1"],
        &["dlq", "discard", "1", "--reason", " "],
        &["dlq", "edit", "1", "--reason", "x"],
        &["dlq", "edit", "1", "--header", "x", "--reason", "x"],
        &["why", "order"],
    ];
    for args in wrong {
        let finished = Sandbox::new().run(args);
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(2), ""), "{args:?}");
        assert!(finished.stderr.contains("--help"), "{}", finished.stderr);
    }
    let suggestion = Sandbox::new().run(&["migrat"]).stderr;
    assert!(suggestion.contains("a similar subcommand exists: 'migrate'"), "{suggestion}");
}

#[test]
fn wrong_configuration_exits_with_78_whatever_the_command() {
    let sandbox = Sandbox::new().file("postrider.toml", &format!("{MINIMAL}[relay]\nx = 1\n"));
    let commands: [&[&str]; 5] =
        [&["run"], &["migrate"], &["check"], &["status"], &["dlq", "list"]];
    for command in commands {
        let finished = sandbox.run(command);
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(78), ""), "{command:?}");
        assert!(finished.stderr.starts_with("error: unknown key relay.x"), "{}", finished.stderr);
    }
}

#[test]
fn commands_that_need_only_the_database_ask_for_no_broker() {
    let sandbox = Sandbox::new().variable("DATABASE_URL", "postgresql://app@127.0.0.1:1/app");
    let commands: [&[&str]; 3] = [&["migrate"], &["status"], &["dlq", "list"]];
    for command in commands {
        let finished = sandbox.run(command);
        assert_eq!(finished.code, Some(69), "{command:?}: {finished:?}");
        assert!(finished.stderr.starts_with("error: could not connect to postgres: 127.0.0.1:1"));
    }
    let printed = Sandbox::new().run(&["migrate", "--print", "--set", "database.schema=events"]);
    assert_eq!(printed.code, Some(0));
    assert!(printed.stdout.contains("CREATE SCHEMA IF NOT EXISTS \"events\""));
    assert!(!printed.stdout.contains("\"postrider\""));
}

#[tokio::test]
async fn migrating_twice_does_nothing_the_second_time() {
    let fixture = Fixture::new().await;
    let toml = fixture.toml().set("database.schema", "second");
    let first = daemon::run(&toml, &["migrate"]).await;
    assert_eq!(first.code, Some(0), "{first:?}");
    assert!(first.stdout.contains("applied 0001 outbox\n"), "{}", first.stdout);
    assert!(first.stdout.contains("schema second is now at version "), "{}", first.stdout);
    let second = daemon::run(&toml, &["migrate"]).await;
    assert_eq!(
        second.stdout,
        first.stdout.lines().last().unwrap().replace("now", "already") + "\n"
    );
}

#[tokio::test]
async fn status_follows_the_relay_from_before_its_start_to_after_its_end() {
    let fixture = Fixture::new().await;
    let toml = fixture.toml();
    let client = fixture.connect().await;
    app::insert_backlog(&client, 3, 1).await;

    let before = json_of(&toml, &["status", "--json"]).await;
    assert_eq!((&before["state"], &before["term"]), (&json!("never_started"), &Value::Null));
    let check = daemon::run(&toml, &["status", "--check"]).await;
    assert_eq!(check.code, Some(2), "{check:?}");
    assert!(check.stdout.starts_with("POSTRIDER CRITICAL - relay default is never started"));

    let mut daemon = fixture.daemon().allow_log("one replica").start();
    eventually("a settled backlog", DEADLINE, async || {
        let status = json_of(&toml, &["status", "--json"]).await;
        status["state"] == "running" && status["backlog"] == 0 && status["stream_seq"] == 3
    })
    .await;
    let status = json_of(&toml, &["status", "--json"]).await;
    assert_eq!(status["term"], 1);
    assert_eq!(status["stream"], fixture.stream);
    assert_eq!((&status["dead_letters"], &status["note"]), (&json!(0), &Value::Null));
    let check = daemon::run(&toml, &["status", "--check"]).await;
    assert_eq!(check.code, Some(0), "{check:?}");
    assert!(check.stdout.starts_with("POSTRIDER OK - relay default is running, backlog 0"));
    let text = daemon::run(&toml, &["status"]).await.stdout;
    assert!(text.starts_with("relay         default, running\nled by        "), "{text}");

    daemon.kill9();
    let after = eventually("a lock that is free", DEADLINE, async || {
        let status = json_of(&toml, &["status", "--json"]).await;
        (status["state"] == "not_running").then_some(status)
    })
    .await;
    assert_eq!((&after["backlog"], &after["term"]), (&json!(0), &json!(1)));
    let text = daemon::run(&toml, &["status"]).await.stdout;
    assert!(text.ends_with("  next        start it: postrider run\n"), "{text}");
}

#[tokio::test]
async fn status_without_a_database_is_unknown_to_monitoring() {
    let toml = Toml::default().set("database.url", "postgresql://app@127.0.0.1:1/app");
    let check = daemon::run(&toml, &["status", "--check"]).await;
    assert_eq!((check.code, check.stderr.as_str()), (Some(3), ""), "{check:?}");
    assert!(check.stdout.starts_with("POSTRIDER UNKNOWN - could not connect to postgres"));
    assert!(check.stdout.contains("; next: "), "{check:?}");
    assert_eq!(check.stdout.lines().count(), 1, "{check:?}");
}

#[tokio::test]
async fn dead_letters_are_listed_page_by_page_without_control_characters() {
    let fixture = Fixture::new().await;
    let toml = fixture.toml();
    let empty = daemon::run(&toml, &["dlq", "list"]).await;
    assert_eq!((empty.code, empty.stdout.as_str()), (Some(0), "no dead letters\n"), "{empty:?}");

    let client = fixture.connect().await;
    let insert = r#"INSERT INTO "postrider".outbox (event_type, aggregate_type, aggregate_id, payload, subject)
        SELECT E'evil\x1b[31m\n' || n, 'order', n::text, '{}', 'no subject' FROM generate_series(1, 5) AS n"#;
    client.execute(insert, &[]).await.unwrap();
    let mut daemon =
        fixture.daemon().allow_log("one replica").allow_log("became a dead letter").start();
    eventually("five dead letters", DEADLINE, async || {
        json_of(&toml, &["status", "--json"]).await["dead_letters"] == 5
    })
    .await;
    let check = daemon::run(&toml, &["status", "--check"]).await;
    assert_eq!(check.code, Some(1), "{check:?}");
    daemon.kill9();

    let first = json_of(&toml, &["dlq", "list", "--json", "--limit", "3"]).await;
    let second_args = ["dlq", "list", "--json", "--after", &first["next"].to_string()];
    let second = json_of(&toml, &second_args).await;
    assert_eq!(second["next"], Value::Null);
    let letters = [first, second].map(|page| page["letters"].as_array().unwrap().clone());
    assert_eq!((letters[0].len(), letters[1].len()), (3, 2));
    let seqs: Vec<_> = letters.concat().iter().map(|it| it["seq"].as_i64().unwrap()).collect();
    let mut distinct = seqs.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct, [1, 2, 3, 4, 5], "{seqs:?}");

    let table = daemon::run(&toml, &["dlq", "list", "--limit", "2"]).await.stdout;
    assert!(table.contains("evil\\u{1b}[31m\\n"), "{table}");
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(!table.contains('\u{1b}'), "{table}");
    let unknown = daemon::run(&toml, &["dlq", "list", "--after", "99"]).await;
    assert_eq!(unknown.code, Some(1));
    assert_eq!(
        unknown.stderr,
        "error: no dead letter has the id 99\n hint: begin without --after\n"
    );
}

/// Exit code of `postrider check`, and the line about one subject with its hint.
async fn check(toml: &Toml, subject: &str) -> (Option<i32>, String) {
    let Finished { code, stdout, stderr } = daemon::run(toml, &["check"]).await;
    assert_eq!(stderr, "", "{stdout}");
    let about = |line: &&str| line.split_whitespace().nth(1) == Some(subject);
    let mut lines = stdout.lines().skip_while(|line| !about(line));
    let mut text = lines.next().unwrap_or_else(|| panic!("{subject} in\n{stdout}")).to_owned();
    if let Some(hint) = lines.next().filter(|line| line.starts_with(' ')) {
        text = format!("{text} | {}", hint.trim());
    }
    (code, text)
}

#[tokio::test]
async fn check_of_a_sound_setup_says_ok_and_changes_nothing() {
    let fixture = Fixture::new().await;
    let finished = daemon::run(&fixture.toml(), &["check"]).await;
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{finished:?}");
    assert!(finished.stdout.lines().all(|line| line.starts_with("ok ")), "{}", finished.stdout);
    let line = format!("{} does not exist; `postrider run` creates it", fixture.stream);
    assert!(finished.stdout.contains(&line), "{}", finished.stdout);
    assert!(fixture.jetstream().await.get_stream(&fixture.stream).await.is_err());

    let findings = json_of(&fixture.toml(), &["check", "--json"]).await;
    let names: Vec<_> =
        findings.as_array().unwrap().iter().map(|it| it["check"].as_str().unwrap()).collect();
    let expected = [
        "configuration",
        "postgres",
        "schema",
        "privileges",
        "contract",
        "relay",
        "nats",
        "permissions",
        "stream",
    ];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn check_refuses_with_the_exit_code_of_what_is_wrong() {
    let fixture = Fixture::new().await;
    let missing = fixture.toml().set("database.schema", "nowhere");
    let (code, text) = check(&missing, "schema").await;
    assert_eq!(code, Some(78));
    assert!(text.ends_with("nowhere was never migrated | hint: run `postrider migrate`"), "{text}");

    let no_stream = fixture.toml().set("stream.create", false);
    let (code, text) = check(&no_stream, "stream").await;
    assert_eq!(code, Some(78), "{text}");
    assert!(text.contains("does not exist | hint: create it, or let postrider do so"), "{text}");

    let no_broker = fixture
        .toml()
        .set("nats.url", "nats://me:canary@127.0.0.1:1")
        .set("nats.connect_timeout", "200ms");
    let (code, text) = check(&no_broker, "nats").await;
    assert_eq!(code, Some(69), "{text}");
    assert!(
        text.contains("no connection to nats://***@127.0.0.1:1: nothing listens there"),
        "{text}"
    );

    let no_database = fixture.toml().set("database.url", "postgresql://app:canary@127.0.0.1:1/app");
    let (code, text) = check(&no_database, "postgres").await;
    assert_eq!(code, Some(69), "{text}");
    assert!(!text.contains("canary"), "{text}");
}

#[tokio::test]
async fn check_names_the_privileges_that_are_missing() {
    let fixture = Fixture::new().await;
    let role = format!("stranger_{}", fixture.database);
    let create = format!("CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA postrider TO {role}");
    let client = fixture.connect().await;
    client.batch_execute(&create).await.unwrap();
    let grant = format!(r#"GRANT SELECT ON "postrider".migration TO {role}"#);
    client.batch_execute(&grant).await.unwrap();
    let url = fixture.database_url();
    let (_, place) = url.split_once('@').unwrap();
    let toml = fixture.toml().set("database.url", format!("postgresql://{role}@{place}"));
    let (code, text) = check(&toml, "privileges").await;
    assert_eq!(code, Some(77), "{text}");
    assert!(text.contains("missing: SELECT on \"postrider\".outbox, "), "{text}");
    client.batch_execute(&format!("GRANT postrider_relay TO {role}")).await.unwrap();
    let (_, text) = check(&toml, "privileges").await;
    assert!(text.starts_with("ok "), "{text}");
}

#[tokio::test]
async fn check_distinguishes_a_login_that_nats_refuses_from_a_server_that_is_down() {
    let extra = "authorization { user: me, password: right }".to_owned();
    let options = NatsOptions { extra, ..NatsOptions::default() };
    let fixture = Fixture::with(None, Some(options)).await;
    let login =
        |password: &str| fixture.toml().set("nats.user", "me").set("nats.password", password);
    let (code, text) = check(&login("wrong").set("nats.connect_timeout", "1s"), "nats").await;
    assert_eq!(code, Some(77), "{text}");
    assert!(text.contains("hint: check nats.user, password"), "{text}");
    let (code, text) = check(&login("right"), "nats").await;
    assert_eq!(code, Some(0), "{text}");
}

#[tokio::test]
async fn the_text_of_an_upgrade_begins_after_a_version_that_this_program_knows() {
    let fixture = Fixture::new().await;
    for after in ["99", "-1"] {
        let after = format!("--after={after}");
        let finished = daemon::run(&fixture.toml(), &["migrate", "--print", &after]).await;
        assert_eq!(finished.code, Some(2), "{finished:?}");
        assert!(finished.stderr.contains("is not in 0..="), "{finished:?}");
    }
    let without = daemon::run(&fixture.toml(), &["migrate", "--after", "9"]).await;
    assert_eq!(without.code, Some(2), "an upgrade that only prints: {without:?}");
    let printed = daemon::run(&fixture.toml(), &["migrate", "--print", "--after", "9"]).await;
    assert!(printed.stdout.contains("For a schema of version 9"), "{printed:?}");
    assert!(!printed.stdout.contains("VALUES (9,"), "{printed:?}");
    assert!(printed.stdout.contains("VALUES (10,"), "{printed:?}");
}
