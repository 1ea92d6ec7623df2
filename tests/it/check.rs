//! Tests of `postrider check`: it reports what keeps events from being published, and what would
//! make a start fail.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy};
use postrider::dev::servers::{NatsOptions, PostgresOptions};

use super::support::{
    DEADLINE, Fixture, app,
    daemon::{self, Finished},
    eventually,
};

async fn check(fixture: &Fixture) -> Finished {
    daemon::run(&fixture.toml(), &["check"]).await
}

async fn create_stream(fixture: &Fixture, config: Config) {
    let config = Config {
        name: fixture.stream.clone(),
        subjects: vec![format!("{}.>", fixture.prefix)],
        duplicate_window: match config.duplicate_window {
            Duration::ZERO => Duration::from_mins(10),
            window => window,
        },
        ..config
    };
    drop(fixture.jetstream().await.create_stream(config).await.unwrap());
}

/// Former defect: `postrider why` advised to run `check`, and `check` found nothing wrong.
#[tokio::test]
async fn a_full_stream_is_refused_with_its_figures() {
    let fixture = Fixture::new().await;
    let config = Config { max_messages: 3, discard: DiscardPolicy::New, ..Config::default() };
    create_stream(&fixture, config).await;
    let client = fixture.connect().await;
    let finished = check(&fixture).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let mut daemon = fixture.daemon().allow_log("nothing can be published just now").start();
    app::insert_backlog(&client, 5, 5).await;
    daemon.wait_log("nothing can be published just now", DEADLINE).await;
    let finished = eventually("a refusal of both", DEADLINE, async || {
        let finished = check(&fixture).await;
        let is_reported = finished.stdout.contains("default reports stream_unavailable: ");
        (finished.code == Some(69) && is_reported).then_some(finished)
    })
    .await;
    let full = format!("{} is full: 3 of 3 messages", fixture.stream);
    assert!(finished.stdout.contains(&full), "{finished:?}");
    assert_eq!(fixture.read_stream().await.len(), 3, "a check stores nothing");
}

/// The stream drops a repeated message only while it remembers the message's id. A leader that was
/// frozen may repeat messages after its lease is over, so the duplicate window has to be longer
/// than the lease.
#[tokio::test]
async fn a_window_that_is_no_longer_than_the_lease_is_warned_of() {
    let fixture = Fixture::new().await;
    let window = Duration::from_secs(20);
    create_stream(&fixture, Config { duplicate_window: window, ..Config::default() }).await;
    let check = async |lease: &str| {
        daemon::run(&fixture.toml().set("relay.lease", lease), &["check"]).await.stdout
    };
    let text = "longer than relay.lease";
    let (long, short) = (check("20s").await, check("19s").await);
    assert!(long.contains(text), "{long}");
    assert!(!short.contains(text), "{short}");
}

#[tokio::test]
async fn a_subject_that_is_forbidden_is_named_without_storing_anything() {
    let extra = "authorization { users: [
        { user: everyone, password: everything }
        { user: relay, password: secret, permissions { publish: [\"$JS.API.>\"] } }
        ] }\nno_auth_user: everyone\n";
    let options = NatsOptions { extra: extra.to_owned(), ..NatsOptions::default() };
    let fixture = Fixture::with(None, Some(options)).await;
    create_stream(&fixture, Config::default()).await;
    let toml = fixture.toml();
    let finished = daemon::run(&toml, &["check"]).await;
    assert!(!finished.stdout.contains("forbidden"), "{finished:?}");
    let toml = toml.set("nats.user", "relay").set("nats.password", "secret");
    let finished = daemon::run(&toml, &["check"]).await;
    let subject = fixture.subject("x");
    let named = format!("a publish to {subject} is forbidden: ");
    assert!(finished.stdout.contains(&named), "{finished:?}");
    assert!(fixture.read_stream().await.is_empty());
}

#[tokio::test]
async fn a_stream_that_counts_is_refused() {
    let fixture = Fixture::new().await;
    let counter = Config { allow_message_counter: true, allow_direct: true, ..Config::default() };
    create_stream(&fixture, counter).await;
    let finished = check(&fixture).await;
    assert_eq!(finished.code, Some(78), "{finished:?}");
    assert!(finished.stdout.contains("is a counter (allow_msg_counter)"), "{finished:?}");
}

/// A relay under a new name begins at the first row. The position of the old name then keeps
/// retention from removing any row.
#[tokio::test]
async fn a_position_that_is_left_behind_is_named_before_the_new_name_starts() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    app::insert_backlog(&client, 5, 5).await;
    let old = r#"INSERT INTO "postrider".position (relay, term, holder, system_id)
        VALUES ('old', 3, 'pid 1', 0)"#;
    client.batch_execute(old).await.unwrap();
    let finished = check(&fixture).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stdout.contains("warn   relay         nobody runs old"), "{finished:?}");
    assert!(finished.stdout.contains("is relay.name right?"), "{finished:?}");
}

/// A NATS server with a user for the program, who has these permissions. The test's own user may do
/// everything.
fn relay_user(permissions: &str) -> NatsOptions {
    let extra = format!(
        "authorization {{ users: [
        {{ user: everyone, password: everything }}
        {{ user: relay, password: secret, permissions {{ {permissions} }} }}
        ] }}\nno_auth_user: everyone\n"
    );
    NatsOptions { extra, ..NatsOptions::default() }
}

async fn check_as_relay(fixture: &Fixture) -> Finished {
    let toml = fixture.toml().set("nats.user", "relay").set("nats.password", "secret");
    daemon::run(&toml, &["check"]).await
}

/// Former defect: `check` said that `postrider run` creates the stream, and `run` was then refused.
#[tokio::test]
async fn a_user_who_may_not_create_the_missing_stream_is_refused_with_the_permission() {
    let permissions = "publish: { deny: [\"$JS.API.STREAM.CREATE.>\"] }";
    let fixture = Fixture::with(None, Some(relay_user(permissions))).await;
    let finished = check_as_relay(&fixture).await;
    assert_eq!(finished.code, Some(77), "{finished:?}");
    let named = format!("let the user publish to $JS.API.STREAM.CREATE.{}", fixture.stream);
    assert!(finished.stdout.contains(&named), "{finished:?}");
    assert!(!finished.stdout.contains("`postrider run` creates it"), "{finished:?}");
}

/// For each JetStream request of a start: whether the start fails when the user may not send it.
#[tokio::test]
async fn a_user_who_may_not_scan_is_refused_and_one_who_may_not_compare_is_warned_of() {
    for (denied, below, code) in [
        ("STREAM.INFO", ">", 77),
        ("CONSUMER.CREATE", ">", 77),
        // With a consumer name in the subject, as when an interrupted scan creates its consumer
        // again.
        ("CONSUMER.CREATE", "*.>", 0),
        ("CONSUMER.MSG.NEXT", ">", 77),
        ("CONSUMER.DELETE", ">", 0),
        ("STREAM.MSG.GET", ">", 0),
    ] {
        let permissions = format!("publish: {{ deny: [\"$JS.API.{denied}.{below}\"] }}");
        let fixture = Fixture::with(None, Some(relay_user(&permissions))).await;
        create_stream(&fixture, Config::default()).await;
        let finished = check_as_relay(&fixture).await;
        assert_eq!(finished.code, Some(code), "{denied}: {finished:?}");
        let named = format!("let the user publish to $JS.API.{denied}.{}", fixture.stream);
        assert!(finished.stdout.contains(&named), "{denied}: {finished:?}");
        let mut stream = fixture.jetstream().await.get_stream(&fixture.stream).await.unwrap();
        assert_eq!(stream.info().await.unwrap().state.consumer_count, 0, "{denied}");
    }
}

#[tokio::test]
async fn a_user_without_an_inbox_gets_the_reason_at_once() {
    let permissions = "publish: [\">\"], subscribe: [\"nothing\"]";
    let fixture = Fixture::with(None, Some(relay_user(permissions))).await;
    let finished = check_as_relay(&fixture).await;
    assert_eq!(finished.code, Some(77), "{finished:?}");
    assert!(finished.stdout.contains("let the user subscribe to _INBOX.>"), "{finished:?}");
}

/// Former defect: JetStream refuses a stream whose subjects overlap another stream's, but `check`
/// said that `run` creates it.
#[tokio::test]
async fn a_missing_stream_whose_subjects_another_one_has_is_refused() {
    for others in [".>", ".order.placed"] {
        let fixture = Fixture::new().await;
        let other = Config {
            name: format!("{}_other", fixture.stream),
            subjects: vec![format!("{}{others}", fixture.prefix)],
            ..Config::default()
        };
        let jetstream = fixture.jetstream().await;
        drop(jetstream.create_stream(other).await.unwrap());
        let finished = check(&fixture).await;
        assert_eq!(finished.code, Some(78), "{others}: {finished:?}");
        let overlaps = format!("overlaps one of stream {}_other", fixture.stream);
        assert!(finished.stdout.contains(&overlaps), "{others}: {finished:?}");
        assert!(!finished.stdout.contains("`postrider run` creates it"), "{finished:?}");
        assert!(jetstream.get_stream(&fixture.stream).await.is_err(), "a check creates nothing");
    }
}

/// The account may have one stream, and already has it.
#[tokio::test]
async fn a_missing_stream_that_the_account_has_no_room_for_is_refused() {
    let extra =
        "accounts { A: { jetstream: { max_streams: 1 }, users: [{ user: a, password: a }] } }
        no_auth_user: a\n";
    let options = NatsOptions { extra: extra.to_owned(), ..NatsOptions::default() };
    let fixture = Fixture::with(None, Some(options)).await;
    let finished = check(&fixture).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let other = Config {
        name: format!("{}_other", fixture.stream),
        subjects: vec!["elsewhere".to_owned()],
        ..Config::default()
    };
    drop(fixture.jetstream().await.create_stream(other).await.unwrap());
    let finished = check(&fixture).await;
    assert_eq!(finished.code, Some(78), "{finished:?}");
    assert!(finished.stdout.contains("the account has 1 of 1 streams"), "{finished:?}");
}

/// Former defect: all of these causes were reported as "does not answer within 5s".
#[tokio::test]
async fn each_cause_of_no_connection_has_its_own_words_and_next_step() {
    let fixture = Fixture::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("nats://{}", listener.local_addr().unwrap());
    for (url, text, hint) in [
        ("nats://127.0.0.1:1", "nothing listens there", "start nats-server"),
        ("nats://nowhere.invalid:4222", "the host is unknown", "correct the host in nats.url"),
        (silent.as_str(), "no answer within nats.connect_timeout", "a firewall"),
    ] {
        let toml = fixture.toml().set("nats.url", url).set("nats.connect_timeout", "1s");
        let finished = daemon::run(&toml, &["check"]).await;
        assert_eq!(finished.code, Some(69), "{url}: {finished:?}");
        let named = format!("no connection to {url}: {text}");
        assert!(finished.stdout.contains(&named), "{url}: {finished:?}");
        assert!(finished.stdout.contains(hint), "{url}: {finished:?}");
        for command in [&["audit"][..], &["reconcile", "--dry-run"]] {
            let finished = daemon::run(&toml, command).await;
            assert_eq!(finished.code, Some(69), "{command:?} {url}: {finished:?}");
            let says_both = finished.stderr.contains(&named) && finished.stderr.contains(hint);
            assert!(says_both, "{command:?} {url}: {finished:?}");
        }
    }
}

/// Former defect: `check` passed, and `run` waited for sessions that the limit never allowed.
#[tokio::test]
async fn a_limit_of_sessions_that_leaves_too_few_is_named() {
    let fixture = Fixture::new().await;
    let admin = fixture.connect().await;
    let role = format!("{}_relay", fixture.database);
    let create = format!("CREATE ROLE {role} LOGIN IN ROLE postrider_relay CONNECTION LIMIT 2");
    admin.batch_execute(&create).await.unwrap();
    let url = fixture.database_url().replace("postgres@", &format!("{role}@"));
    let toml = fixture.toml().set("database.url", url);
    let finished = daemon::run(&toml, &["check"]).await;
    assert_eq!(finished.code, Some(78), "{finished:?}");
    let named = format!("CONNECTION LIMIT of role {role} is 2, and a start needs 3 sessions");
    assert!(finished.stdout.contains(&named), "{finished:?}");
    admin.batch_execute(&format!("ALTER ROLE {role} CONNECTION LIMIT 3")).await.unwrap();
    let finished = daemon::run(&toml, &["check"]).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(!finished.stdout.contains("CONNECTION LIMIT"), "{finished:?}");
}

/// Other users' sessions fill the limit of the database. Postgres hides from the relay's user what
/// those sessions are.
#[tokio::test]
async fn a_limit_that_sessions_of_others_fill_is_warned_of() {
    let fixture = Fixture::new().await;
    let admin = fixture.connect().await;
    let database = &fixture.database;
    let role = format!("{database}_relay");
    let create = format!("CREATE ROLE {role} LOGIN IN ROLE postrider_relay");
    admin.batch_execute(&create).await.unwrap();
    let other = format!("{database}_other");
    admin.batch_execute(&format!("CREATE ROLE {other} LOGIN")).await.unwrap();
    let url = |user: &str| fixture.database_url().replace("postgres@", &format!("{user}@"));
    let toml = fixture.toml().set("database.url", url(&role));
    let _others = [
        super::support::postgres::connect(&url(&other)).await,
        super::support::postgres::connect(&url(&other)).await,
    ];
    // Four sessions are open: the test's own, two of another user, and that of `check`. The last
    // one ends, so of 6 places 3 are free for a start.
    for (limit, is_named) in [(6, false), (5, true)] {
        let set = format!("ALTER DATABASE {database} CONNECTION LIMIT {limit}");
        admin.batch_execute(&set).await.unwrap();
        let finished = daemon::run(&toml, &["check"]).await;
        assert_eq!(finished.code, Some(0), "{finished:?}");
        let named = format!("CONNECTION LIMIT of database {database} is {limit}, and 4 sessions");
        assert_eq!(finished.stdout.contains(&named), is_named, "{limit}: {finished:?}");
    }
}

/// Postgres reserves three of the server's sessions for superusers.
#[tokio::test]
async fn a_server_with_too_few_sessions_is_named_without_those_that_are_reserved() {
    for (max_connections, code) in [(6, 0), (5, 78)] {
        let options = PostgresOptions { max_connections, ..PostgresOptions::default() };
        let fixture = Fixture::with(Some(options), None).await;
        let admin = fixture.connect().await;
        let create = "CREATE ROLE scarce_relay LOGIN IN ROLE postrider_relay";
        admin.batch_execute(create).await.unwrap();
        let url = fixture.database_url().replace("postgres@", "scarce_relay@");
        let finished = daemon::run(&fixture.toml().set("database.url", url), &["check"]).await;
        assert_eq!(finished.code, Some(code), "{finished:?}");
        let left = max_connections - 3;
        let named = format!("max_connections of the server, less what is reserved is {left}");
        assert!(finished.stdout.contains(&named), "{finished:?}");
    }
}

/// No request that `check` sends may change a stream, a consumer or a message.
#[tokio::test]
async fn a_check_changes_nothing_in_the_stream() {
    // The NATS server is the test's own, so that the account's figures contain no streams of other
    // tests.
    let fixture = Fixture::own_nats().await;
    create_stream(&fixture, Config { allow_direct: true, ..Config::default() }).await;
    let jetstream = fixture.jetstream().await;
    jetstream.publish(fixture.subject("x"), "kept".into()).await.unwrap().await.unwrap();
    let consumer = async_nats::jetstream::consumer::pull::Config {
        durable_name: Some("theirs".to_owned()),
        ..Default::default()
    };
    let stream = jetstream.get_stream(&fixture.stream).await.unwrap();
    stream.create_consumer(consumer).await.unwrap();
    let observe = async || {
        let mut stream = jetstream.get_stream(&fixture.stream).await.unwrap();
        let info = stream.info().await.unwrap().clone();
        let mut consumer: async_nats::jetstream::consumer::PullConsumer =
            stream.get_consumer("theirs").await.unwrap();
        let theirs = consumer.info().await.unwrap();
        let delivered = (theirs.delivered.stream_sequence, theirs.num_waiting, theirs.num_pending);
        let account = jetstream.query_account().await.unwrap();
        let state = &info.state;
        (
            serde_json::to_value(&info.config).unwrap(),
            [state.messages, state.bytes, state.first_sequence, state.last_sequence],
            state.consumer_count,
            delivered,
            (account.streams, account.consumers),
        )
    };
    let before = observe().await;
    let finished = check(&fixture).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stdout.contains("takes every request of a start"), "{finished:?}");
    assert_eq!(observe().await, before);
}

/// Former defect: the log of `run` did not name the host and port that were wrong.
#[tokio::test]
async fn run_names_the_cause_and_the_next_step_as_check_does() {
    let fixture = Fixture::new().await;
    for (url, text, hint) in [
        ("nats://127.0.0.1:1", "nothing listens there", "start nats-server"),
        ("nats://nowhere.invalid:4222", "the host is unknown", "correct the host in nats.url"),
    ] {
        let mut daemon =
            fixture.daemon().admin().set("nats.url", url).allow_log("waiting for NATS").start();
        let line = daemon.wait_log("waiting for NATS", DEADLINE).await;
        assert!(line.contains(text) && line.contains(hint), "{line}");
        let answer = eventually("a finding with the next step", DEADLINE, async || {
            let answer = daemon.get("/readyz?verbose").await?;
            answer.body.contains(hint).then_some(answer.body)
        })
        .await;
        assert!(answer.contains("nats_down"), "{answer}");
        daemon.kill9();
    }
}
