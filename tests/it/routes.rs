//! Tests of several routes in one program: filters, failures that stay within their route, and
//! events that no route takes.

use std::time::Duration;

use postrider::event::{AggregateKey, Event, EventId, Filter, Pattern, Payload, Rules, Seq, Shard};
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::support::{
    DEADLINE, Fixture, app,
    daemon::{self, Daemon, DaemonBuilder},
    eventually, let_pass, letters,
    stopwatch::Stopwatch,
    toml::Toml,
    wait_for_other_sessions_to_end,
};

/// Name of the stream of a route of this test.
fn stream(fixture: &Fixture, route: &str) -> String {
    format!("{}_{route}", fixture.stream)
}

/// Adds a route that takes the types `ROUTE.*` into a stream of its own, where `ROUTE` is the
/// route's name.
fn with_route(fixture: &Fixture, toml: Toml, route: &str) -> Toml {
    let subject = format!("{}.{route}.{{event_type}}", fixture.prefix);
    toml.route([
        ("name", json!(route)),
        ("types", json!([format!("{route}.*")])),
        ("stream", json!(stream(fixture, route))),
        ("subjects", json!([format!("{}.{route}.>", fixture.prefix)])),
        ("subject", json!(subject)),
    ])
}

/// Configuration with these routes.
fn routes(fixture: &Fixture, names: &[&str]) -> Toml {
    let toml = fixture.toml().unset("stream.name").unset("stream.subjects");
    names.iter().fold(toml, |toml, route| with_route(fixture, toml, route))
}

fn relay(toml: Toml) -> DaemonBuilder {
    DaemonBuilder::new(toml).admin().allow_log("the stream has one replica")
}

/// Inserts events of these types, one after the other, each with a key of its own.
async fn emit(client: &Client, types: &[&str]) {
    for (number, event_type) in types.iter().enumerate() {
        let id = number.to_string();
        app::emit(client, event_type, Some(("load", &id)), "{}").await;
    }
}

/// Event types in the stream of a route, in the order of the stream.
async fn held(fixture: &Fixture, route: &str, count: u64) -> Vec<String> {
    let (url, stream) = (fixture.nats.url(), stream(fixture, route));
    app::wait_stored(&url, &stream, count, DEADLINE).await;
    let messages = app::read_stream(&url, &stream).await;
    messages.iter().filter_map(|it| it.header("ce-type").map(ToOwned::to_owned)).collect()
}

async fn status(daemon: &Daemon) -> Value {
    serde_json::from_str(&daemon.get("/api/v1/status").await.unwrap().body).unwrap()
}

/// Part of the status that describes a route.
fn of_route<'a>(status: &'a Value, route: &str) -> &'a Value {
    let routes = status["routes"].as_array().unwrap();
    routes.iter().find(|it| it["route"] == route).unwrap_or_else(|| panic!("{route}: {status}"))
}

async fn published(daemon: &Daemon, route: &str) -> f64 {
    daemon.metric(&format!("postrider_messages_published_total{{route=\"{route}\"}}")).await
}

#[tokio::test]
async fn each_route_takes_its_types_and_what_no_route_takes_is_counted() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let toml = routes(&fixture, &["order", "invoice"]);
    emit(&client, &["order.placed", "invoice.sent", "order.paid", "user.left"]).await;
    let mut daemon = relay(toml).allow_log("no route takes events of this type").start();
    assert_eq!(held(&fixture, "order", 2).await, ["order.placed", "order.paid"]);
    assert_eq!(held(&fixture, "invoice", 1).await, ["invoice.sent"]);
    daemon.wait_log("no route takes events of this type", DEADLINE).await;
    // The same holds for events that arrive while the program runs.
    emit(&client, &["user.left", "order.sent", "user.left", "invoice.paid"]).await;
    assert_eq!(held(&fixture, "order", 3).await.last().unwrap(), "order.sent");
    assert_eq!(held(&fixture, "invoice", 2).await.last().unwrap(), "invoice.paid");
    eventually("three unrouted events", DEADLINE, async || {
        (published(&daemon, "unrouted").await - 3.0).abs() < 0.1
    })
    .await;
    eventually("the routes' own figures", DEADLINE, async || {
        let seen = status(&daemon).await;
        let figures = ["order", "invoice", "unrouted"]
            .map(|route| of_route(&seen, route)["published_total"].clone());
        figures == [json!(3), json!(2), json!(3)]
    })
    .await;
    let seen = status(&daemon).await;
    let codes: Vec<_> = seen["findings"].as_array().unwrap().iter().map(|it| &it["code"]).collect();
    assert_eq!(codes, ["unrouted"], "{seen}");
    assert_eq!(daemon.get("/readyz").await.unwrap().status, 200);
}

/// The route takes one event in a thousand. The others must not be sent from the database to the
/// program.
#[tokio::test]
async fn a_route_that_takes_few_events_reads_no_others() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let insert = r#"INSERT INTO "postrider".outbox (event_type, payload)
        SELECT CASE WHEN n % 1000 = 0 THEN 'rare.made' ELSE 'load.made' END, '{}'
        FROM generate_series(1, 120000) AS n"#;
    client.execute(insert, &[]).await.unwrap();
    let toml = with_route(&fixture, routes(&fixture, &["rare"]), "other");
    let daemon = relay(toml).allow_log("no route takes").start();
    assert_eq!(held(&fixture, "rare", 120).await.len(), 120);
    eventually("everything is read", DEADLINE, async || {
        let settled = r#"SELECT count(*) FROM "postrider".position AS p
            WHERE relay IN ('rare', 'other') AND NOT EXISTS (
                SELECT FROM "postrider".outbox AS o
                WHERE NOT pg_visible_in_snapshot(o.tx, p.snapshot))"#;
        client.query_one(settled, &[]).await.unwrap().get::<_, i64>(0) == 2
    })
    .await;
    let fetched = r#"postrider_rows_fetched_total{route="rare",table="outbox"}"#;
    assert!((daemon.metric(fetched).await - 120.0).abs() < 0.1, "{}", daemon.metric(fetched).await);
    let fetched = r#"postrider_rows_fetched_total{route="other",table="outbox"}"#;
    assert!(daemon.metric(fetched).await < 0.1);
}

/// A missing stream closes the publishing gate of its route, and of no other.
#[tokio::test]
async fn a_route_whose_stream_is_gone_holds_no_other_up() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let toml = routes(&fixture, &["order", "invoice"]).set("stream.create", false);
    let jetstream = fixture.jetstream().await;
    let (name, subjects) = (stream(&fixture, "order"), format!("{}.order.>", fixture.prefix));
    crate::support::nats::create_stream(&jetstream, &name, &subjects).await;
    let mut daemon = relay(toml)
        .allow_log("nothing can be published just now")
        .allow_log("no route takes events")
        .start();
    daemon.wait_log("does not exist", DEADLINE).await;
    emit(&client, &["order.placed", "invoice.sent"]).await;
    assert_eq!(held(&fixture, "order", 1).await, ["order.placed"]);
    let ready = daemon.get("/readyz").await.unwrap();
    assert_eq!(ready.status, 503, "{}", ready.body);
    let seen = status(&daemon).await;
    assert_eq!(of_route(&seen, "order")["gate"], Value::Null, "{seen}");
    assert_eq!(of_route(&seen, "invoice")["gate"]["kind"], "misconfigured", "{seen}");
    let only = daemon.get("/api/v1/status?route=order").await.unwrap();
    let only: Value = serde_json::from_str(&only.body).unwrap();
    assert_eq!(only["findings"], json!([]), "{only}");
    assert_eq!(daemon.get("/api/v1/status?route=none").await.unwrap().status, 404);
    let (name, subjects) = (stream(&fixture, "invoice"), format!("{}.invoice.>", fixture.prefix));
    crate::support::nats::create_stream(&jetstream, &name, &subjects).await;
    assert_eq!(held(&fixture, "invoice", 1).await, ["invoice.sent"]);
    daemon.wait_ready().await;
}

/// A failure that would end a program with one route must not end a program with several.
#[tokio::test]
async fn a_route_that_fails_is_started_again_and_the_others_go_on() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let jetstream = fixture.jetstream().await;
    let unusable = async_nats::jetstream::stream::Config {
        name: stream(&fixture, "invoice"),
        subjects: vec![format!("{}.invoice.>", fixture.prefix)],
        no_ack: true,
        ..Default::default()
    };
    jetstream.create_stream(unusable.clone()).await.unwrap();
    let mut daemon = relay(routes(&fixture, &["order", "invoice"]))
        .allow_log("the route failed; the others go on")
        .start();
    daemon.wait_log("the route failed; the others go on", DEADLINE).await;
    emit(&client, &["order.placed", "invoice.sent"]).await;
    assert_eq!(held(&fixture, "order", 1).await, ["order.placed"]);
    let seen = status(&daemon).await;
    assert_eq!(of_route(&seen, "invoice")["findings"][0]["code"], "route_failed", "{seen}");
    assert_eq!(daemon.get("/readyz").await.unwrap().status, 503);
    assert_eq!(daemon.get("/livez").await.unwrap().status, 200);
    let usable = async_nats::jetstream::stream::Config { no_ack: false, ..unusable };
    jetstream.update_stream(usable).await.unwrap();
    assert_eq!(held(&fixture, "invoice", 1).await, ["invoice.sent"]);
    daemon.terminate();
    assert_eq!(daemon.wait_exit(Duration::from_secs(20)).await, Some(0), "{}", daemon.log());
}

#[tokio::test]
async fn unrouted_events_are_dead_letters_where_that_is_asked_for() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let toml = routes(&fixture, &["order"]).set("relay.unrouted", "dead");
    let _daemon = relay(toml).allow_log("dead letter").start();
    emit(&client, &["user.left", "order.placed"]).await;
    assert_eq!(held(&fixture, "order", 1).await, ["order.placed"]);
    let letters = r#"SELECT count(*) FROM "postrider".letter
        WHERE relay = 'unrouted' AND error_code = 'unrouted' AND event_type = 'user.left'"#;
    eventually("a dead letter", DEADLINE, async || {
        client.query_one(letters, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
}

/// An event that two routes take is published to both streams, and each stream keeps the order of
/// the keys.
#[tokio::test]
async fn an_event_that_two_routes_take_goes_to_both() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let all = fixture.toml().route([
        ("name", json!("all")),
        ("stream", json!(stream(&fixture, "all"))),
        ("subjects", json!([format!("{}.all.>", fixture.prefix)])),
        ("subject", json!(format!("{}.all.{{event_type}}", fixture.prefix))),
    ]);
    let _daemon = relay(with_route(&fixture, all, "order")).start();
    emit(&client, &["order.placed", "user.left", "order.paid"]).await;
    assert_eq!(held(&fixture, "order", 2).await, ["order.placed", "order.paid"]);
    assert_eq!(held(&fixture, "all", 3).await, ["order.placed", "user.left", "order.paid"]);
}

#[tokio::test]
async fn routes_that_cannot_work_together_are_refused_by_name() {
    let fixture = Fixture::new().await;
    let check = async |toml: &Toml| daemon::run(toml, &["config", "show"]).await;
    let twice = routes(&fixture, &["order", "order"]);
    let unnamed = fixture.toml().route([("types", json!(["a"]))]);
    let reserved = routes(&fixture, &["unrouted"]);
    let subject = json!(fixture.subject("{event_type}"));
    let of_a_shard =
        fixture.toml().route([("name", json!("order.0-of-4")), ("subject", subject.clone())]);
    let pattern = fixture.toml().route([("name", json!("a")), ("types", json!(["a*b"]))]);
    let unknown = fixture.toml().route([("name", json!("a")), ("typs", json!(["a"]))]);
    let shared = ["one", "two"].iter().fold(fixture.toml(), |toml, name| {
        toml.route([("name", json!(name)), ("subject", subject.clone())])
    });
    for (toml, text) in [
        (twice, "two routes are called order"),
        (unnamed, "a [[route]] has no name"),
        (reserved, "no route may be called unrouted"),
        (of_a_shard, "the name order.0-of-4 is that of a shard"),
        (pattern, "route.types contains \"a*b\", which is not a pattern"),
        (unknown, "did you mean route.types?"),
        (shared, "routes one and two may take the same event into"),
        (
            fixture.toml().route([("name", json!("a")), ("types", json!(["a.{shard}"]))]),
            "a filter may not contain {shard}",
        ),
        (
            fixture.toml().route([
                ("name", json!("a")),
                ("types", json!(["a.b"])),
                ("except_types", json!(["a.*"])),
            ]),
            "the route takes nothing",
        ),
    ] {
        let finished = check(&toml).await;
        assert_eq!(finished.code, Some(78), "{text}: {finished:?}");
        assert!(finished.stderr.contains(text), "{text}: {finished:?}");
        assert!(finished.stderr.contains("postrider.toml:"), "{text}: {finished:?}");
    }
}

/// Commands report on every route, or on the one that `--route` names.
#[tokio::test]
async fn commands_speak_of_each_route_and_the_books_of_each_add_up() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let toml = routes(&fixture, &["order", "invoice"]);
    let mut daemon = relay(toml.clone()).allow_log("no route takes events").start();
    emit(&client, &["order.placed", "invoice.sent", "order.paid", "user.left"]).await;
    held(&fixture, "order", 2).await;
    held(&fixture, "invoice", 1).await;
    eventually("an unrouted event", DEADLINE, async || published(&daemon, "unrouted").await > 0.0)
        .await;
    daemon.terminate();
    assert_eq!(daemon.wait_exit(Duration::from_secs(20)).await, Some(0));
    let audits = letters::json(&toml, &["audit"]).await;
    let books = |index: usize, name: &str| audits[index][name].clone();
    for (index, relay, published, filtered) in
        [(0, "order", 2, 2), (1, "invoice", 1, 3), (2, "unrouted", 1, 3)]
    {
        assert_eq!(books(index, "relay"), relay, "{audits}");
        assert_eq!(books(index, "committed"), 4, "{audits}");
        assert_eq!(books(index, "published"), published, "{audits}");
        assert_eq!(books(index, "filtered"), filtered, "{audits}");
        assert_eq!(books(index, "pending"), 0, "{audits}");
        assert_eq!(books(index, "fine"), true, "{audits}");
    }
    let only = letters::json(&toml, &["audit", "--route", "order"]).await;
    assert_eq!((&only["relay"], &only["filtered"]), (&json!("order"), &json!(2)));
    let statuses = letters::json(&toml, &["status"]).await;
    assert_eq!(statuses[1]["relay"], "invoice", "{statuses}");
    assert_eq!(statuses[1]["backlog"], 0, "{statuses}");
    let finished = daemon::run(&toml, &["status", "--route", "nowhere"]).await;
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.stderr.contains("the routes are order, invoice, unrouted"), "{finished:?}");
    let finished = daemon::run(&toml, &["status", "--check"]).await;
    assert_eq!(finished.code, Some(2), "nobody runs: {finished:?}");
    let reconciled = letters::json(&toml, &["reconcile", "--dry-run"]).await;
    let missing: Vec<_> =
        reconciled.as_array().unwrap().iter().map(|it| (&it["relay"], &it["missing"])).collect();
    let zero = json!(0);
    assert_eq!(missing, [(&json!("order"), &zero), (&json!("invoice"), &zero)]);
    let finished = daemon::run(&toml, &["check"]).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_eq!(finished.stdout.matches(" postgres ").count(), 1, "{}", finished.stdout);
}

/// Events of a type that gets its route later can still be published from the outbox. The change of
/// the filter is a row of the audit.
#[tokio::test]
async fn a_filter_that_changes_is_audited_and_what_went_by_can_be_published() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let toml = routes(&fixture, &["order"]);
    let mut daemon = relay(toml).allow_log("no route takes events").start();
    emit(&client, &["order.placed", "user.left"]).await;
    held(&fixture, "order", 1).await;
    eventually("an unrouted event", DEADLINE, async || published(&daemon, "unrouted").await > 0.0)
        .await;
    daemon.terminate();
    assert_eq!(daemon.wait_exit(Duration::from_secs(20)).await, Some(0));
    let subject = format!("{}.order.{{event_type}}", fixture.prefix);
    let wider = fixture.toml().unset("stream.name").unset("stream.subjects").route([
        ("name", json!("order")),
        ("types", json!(["order.*", "user.*"])),
        ("stream", json!(stream(&fixture, "order"))),
        ("subjects", json!([format!("{}.order.>", fixture.prefix)])),
        ("subject", json!(subject)),
    ]);
    let mut daemon = relay(wider.clone()).start();
    daemon.wait_log("the filter of the route has changed", DEADLINE).await;
    let audited = r#"SELECT before -> 'filter' ->> 'types', after -> 'filter' ->> 'types'
        FROM "postrider".audit WHERE action = 'filter' AND relay = 'order'"#;
    eventually("a row of the audit", DEADLINE, async || {
        client.query_opt(audited, &[]).await.unwrap().is_some()
    })
    .await;
    let row = client.query_one(audited, &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), r#"["order.*"]"#);
    assert_eq!(row.get::<_, &str>(1), r#"["order.*", "user.*"]"#);
    let finished = daemon::run(&wider, &["reconcile", "--route", "order", "--actor", "test"]).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_eq!(held(&fixture, "order", 2).await, ["order.placed", "user.left"]);
}

/// When a filter takes fewer types than before, the events that wait for the route are counted, by
/// `check` and at the start.
#[tokio::test]
async fn a_filter_that_takes_less_says_how_many_events_it_passes_over() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let types = |types: Value| {
        fixture.toml().unset("stream.name").unset("stream.subjects").route([
            ("name", json!("order")),
            ("types", types),
            ("stream", json!(stream(&fixture, "order"))),
            ("subjects", json!([format!("{}.order.>", fixture.prefix)])),
            ("subject", json!(format!("{}.order.{{event_type}}", fixture.prefix))),
        ])
    };
    let mut daemon = relay(types(json!(["order.*"]))).allow_log("no route takes").start();
    emit(&client, &["order.placed"]).await;
    held(&fixture, "order", 1).await;
    daemon.kill9();
    emit(&client, &["order.paid", "order.placed", "order.paid", "user.left"]).await;

    let narrower = types(json!(["order.placed"]));
    let checked = daemon::run(&narrower, &["check"]).await;
    let mut daemon = relay(narrower.clone())
        .allow_log("passes over 2 events that wait")
        .allow_log("no route takes")
        .start();
    daemon.wait_log("passes over 2 events that wait", DEADLINE).await;

    assert!(checked.stdout.contains("2 events that wait, would be passed over"), "{checked:?}");
    assert_eq!(held(&fixture, "order", 2).await, ["order.placed", "order.placed"]);
    let audited = r#"SELECT after ->> 'passed_over' FROM "postrider".audit
        WHERE action = 'filter' AND relay = 'order'"#;
    let row = client.query_one(audited, &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "2");
    let checked = daemon::run(&narrower, &["check"]).await;
    assert!(!checked.stdout.contains("passed over"), "{checked:?}");
}

/// The filter in SQL and the filter in Rust must decide alike.
#[tokio::test]
async fn the_filter_in_sql_decides_as_the_one_in_the_program() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let patterns = |texts: &[&str]| texts.iter().filter_map(|text| Pattern::parse(text)).collect();
    let names = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    let rules = [
        Rules { types: patterns(&["a.*", "it's"]), ..Rules::default() },
        Rules { except_types: patterns(&["a.b", "%"]), ..Rules::default() },
        Rules { kinds: names(&["command"]), ..Rules::default() },
        Rules { types: patterns(&["*"]), aggregates: names(&["order", "a_b"]), ..Rules::default() },
        Rules { types: patterns(&["a_*"]), kinds: names(&["domain"]), ..Rules::default() },
    ];
    let shards = (0..3).map(|index| Some(Shard { index, count: 3 }));
    let mut filters: Vec<_> = rules.iter().cloned().map(Filter::Rules).collect();
    filters.extend(shards.map(|shard| Filter::Rules(Rules { shard, ..Rules::default() })));
    filters.push(Filter::NoneOf(rules[..1].to_vec()));
    filters.push(Filter::NoneOf(rules[2..].to_vec()));
    let mut decided = [0, 0];
    for event_type in ["a.b", "a.", "a", "it's", "axb", "a_b", "%", "Ä.b"] {
        for kind in ["domain", "command"] {
            for key in [None, Some("order"), Some("a_b"), Some("axb")] {
                for filter in &filters {
                    // Some keys are null, and the ids have every length that the hash handles
                    // differently.
                    let id = key.map(|key| format!("{event_type}{}", key.repeat(decided[0] % 7)));
                    let seq = i64::try_from(decided[1]).unwrap();
                    let event = event(event_type, kind, key.zip(id.as_deref()), seq);
                    let statement = format!(
                        r#"SELECT {}, "postrider".takes($4::text::jsonb, event_type, kind,
                            aggregate_type, aggregate_id, seq) FROM (SELECT $1::text AS event_type,
                            $2::text AS kind, $3::text AS aggregate_type, $5::text AS aggregate_id,
                            $6::bigint AS seq) AS r"#,
                        filter.sql("r")
                    );
                    let json = filter.json().map(|json| json.to_string());
                    let row = client
                        .query_one(&statement, &[&event_type, &kind, &key, &json, &id, &seq])
                        .await
                        .unwrap();
                    let takes = filter.takes(&event);
                    let case = format!("{filter:?}: {event_type} {kind} {key:?}");
                    assert_eq!(row.get::<_, Option<bool>>(0), Some(takes), "{case}");
                    assert_eq!(row.get::<_, Option<bool>>(1), Some(takes), "{case}");
                    decided[usize::from(takes)] += 1;
                }
            }
        }
    }
    assert!(decided.iter().all(|count| *count > 20), "{decided:?}");
}

/// An event with the columns that a filter reads.
fn event(event_type: &str, kind: &'static str, aggregate: Option<(&str, &str)>, seq: i64) -> Event {
    Event {
        seq: Seq(seq),
        id: EventId(uuid::Uuid::nil()),
        occurred_at: None,
        event_type: event_type.to_owned(),
        event_version: 1,
        kind: kind.into(),
        key: aggregate.map(|(aggregate, id)| AggregateKey::new(aggregate, id)),
        aggregate_version: None,
        source: None,
        subject: None,
        content_type: "application/json".into(),
        payload: Payload::Null,
        headers: None,
        correlation_id: None,
        causation_id: None,
        actor: None,
    }
}

/// Inserts events of 50 keys, each with its number in the payload.
async fn insert_numbered(client: &Client, from: i32, to: i32) {
    let insert = r#"INSERT INTO "postrider".outbox
            (event_type, aggregate_type, aggregate_id, payload)
        SELECT 'load.made', 'load', (n % 50)::text, json_build_object('n', n)
        FROM generate_series($1::integer, $2::integer - 1) AS n"#;
    client.execute(insert, &[&from, &to]).await.unwrap();
}

/// Asserts that the stream has each number once, and the numbers of each key in order.
async fn assert_each_once_in_order(fixture: &Fixture, count: i32) {
    let messages = fixture.wait_stored(u64::try_from(count).unwrap(), DEADLINE).await;
    let mut last = std::collections::HashMap::new();
    let mut numbers = std::collections::HashSet::new();
    for message in &messages {
        let number = message.json()["n"].as_i64().unwrap();
        assert!(numbers.insert(number), "{number} came twice");
        let before = last.insert(number % 50, number);
        assert!(before.is_none_or(|before| before < number), "{number} after {before:?}");
    }
    assert_eq!(numbers.len(), usize::try_from(count).unwrap());
}

/// Warning of an instance that meets leaders with another number of shards.
const OTHER_NUMBER: &str = "leads this route with another number of shards";

fn sharded(fixture: &Fixture) -> DaemonBuilder {
    fixture
        .daemon()
        .admin()
        .set("route.shards", 4)
        .set("relay.lease", "3s")
        .allow_log("one replica")
}

/// Number of shards that an instance leads.
async fn leads(daemon: &Daemon) -> usize {
    let Some(page) = daemon.get("/metrics").await else { return 0 };
    page.body
        .lines()
        .filter(|line| line.starts_with("postrider_leader{") && line.ends_with(" 1"))
        .count()
}

#[tokio::test]
async fn the_shards_of_a_route_share_its_keys_and_keep_their_order() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    insert_numbered(&client, 0, 2_000).await;
    let daemon = sharded(&fixture).start();
    assert_each_once_in_order(&fixture, 2_000).await;
    insert_numbered(&client, 2_000, 3_000).await;
    assert_each_once_in_order(&fixture, 3_000).await;
    let seen = status(&daemon).await;
    let names: Vec<_> =
        seen["routes"].as_array().unwrap().iter().map(|it| it["route"].clone()).collect();
    assert_eq!(names, ["default.0-of-4", "default.1-of-4", "default.2-of-4", "default.3-of-4"]);
    eventually("each has its part", DEADLINE, async || {
        let seen = status(&daemon).await;
        let routes = seen["routes"].as_array().unwrap().iter();
        let shares = routes.map(|route| route["published_total"].as_u64().unwrap());
        shares.clone().sum::<u64>() == 3_000 && shares.min() > Some(300)
    })
    .await;
}

/// A second instance takes over half of the shards within about a minute. It leads all of them when
/// the first is lost.
#[tokio::test]
async fn the_shards_spread_over_two_instances_and_move_when_one_is_lost() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let mut first = sharded(&fixture).start();
    eventually("one instance leads all", DEADLINE, async || leads(&first).await == 4).await;
    let second = sharded(&fixture).start();
    insert_numbered(&client, 0, 500).await;
    eventually("each leads two", Duration::from_mins(3), async || {
        leads(&first).await == 2 && leads(&second).await == 2
    })
    .await;
    // A shard that has just been taken over counts as starting for a moment.
    eventually("the second instance is ready", DEADLINE, async || {
        second.get("/readyz").await.is_some_and(|answer| answer.status == 200)
    })
    .await;
    insert_numbered(&client, 500, 1_000).await;
    assert_each_once_in_order(&fixture, 1_000).await;
    first.kill9();
    insert_numbered(&client, 1_000, 1_500).await;
    eventually("the other one leads all", DEADLINE, async || leads(&second).await == 4).await;
    assert_each_once_in_order(&fixture, 1_500).await;
}

/// `{shard}` stands for the shard's number, so that each shard may have a stream of its own.
#[tokio::test]
async fn each_shard_may_have_a_stream_of_its_own() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let toml = fixture
        .toml()
        .set("stream.name", format!("{}_{{shard}}", fixture.stream))
        .set("stream.subjects", json!([format!("{}.{{shard}}.>", fixture.prefix)]))
        .set("route.subject", format!("{}.{{shard}}.{{event_type}}", fixture.prefix))
        .set("route.shards", 2);
    let _daemon = relay(toml).start();
    insert_numbered(&client, 0, 200).await;
    let url = fixture.nats.url();
    let mut keys = Vec::new();
    eventually("200 events in two streams", DEADLINE, async || {
        keys.clear();
        for shard in 0..2 {
            let stream = format!("{}_{shard}", fixture.stream);
            app::wait_stored(&url, &stream, 1, DEADLINE).await;
            for message in app::read_stream(&url, &stream).await {
                let key = message.json()["n"].as_i64().unwrap() % 50;
                keys.push((key, shard));
            }
        }
        keys.len() == 200
    })
    .await;
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 50, "no key is in two streams");
}

/// Former defect: one route was idle while another one was busy, and the timer of the idle route
/// fired late and ended the program.
#[tokio::test]
async fn a_route_at_rest_ends_no_program_whose_other_route_is_busy() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let toml = routes(&fixture, &["order", "invoice"]).set("relay.lease", "3s");
    let mut daemon = relay(toml).start();
    daemon
        .wait_log(
            "route{name=\"invoice\"}: postrider::relay::leadership::resume: relaying",
            DEADLINE,
        )
        .await;
    // Publishing this backlog takes longer than a lease is trusted for.
    let insert = r#"INSERT INTO "postrider".outbox (event_type, payload)
        SELECT 'invoice.sent', '{}' FROM generate_series(1, 150000)"#;
    client.execute(insert, &[]).await.unwrap();
    emit(&client, &["order.placed"]).await;
    held(&fixture, "order", 1).await;
    let began = tokio::time::Instant::now();
    let (url, invoices) = (fixture.nats.url(), stream(&fixture, "invoice"));
    app::wait_stored(&url, &invoices, 150_000, DEADLINE).await;
    assert!(began.elapsed() > Duration::from_millis(2_500), "it was not busy for long enough");
    assert_eq!(published(&daemon, "order").await.to_bits(), 1.0_f64.to_bits());
    daemon.terminate();
    assert_eq!(daemon.wait_exit(Duration::from_secs(20)).await, Some(0), "{}", daemon.log());
}

/// Follows the procedure of docs/scaling.md for changing the number of shards.
#[tokio::test]
async fn the_number_of_shards_can_be_changed_and_nothing_comes_twice() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    insert_numbered(&client, 0, 600).await;
    let mut daemon = sharded(&fixture).start();
    assert_each_once_in_order(&fixture, 600).await;
    daemon.terminate();
    assert_eq!(daemon.wait_exit(Duration::from_secs(20)).await, Some(0), "{}", daemon.log());
    insert_numbered(&client, 600, 800).await;
    let mut daemon = sharded(&fixture).set("route.shards", 3).start();
    assert_each_once_in_order(&fixture, 800).await;
    let toml = fixture.toml().set("route.shards", 3);
    for shard in 0..4 {
        let old = format!("default.{shard}-of-4");
        letters::done(&toml, &["relay", "forget", &old, "--yes"]).await;
    }
    insert_numbered(&client, 800, 1_000).await;
    assert_each_once_in_order(&fixture, 1_000).await;
    let relays = letters::json(&toml, &["relay", "list"]).await;
    assert_eq!(relays["relays"].as_array().unwrap().len(), 3, "{relays}");
    daemon.terminate();
    assert_eq!(daemon.wait_exit(Duration::from_secs(20)).await, Some(0), "{}", daemon.log());
    let audits = letters::json(&toml, &["audit"]).await;
    let fine: Vec<_> = audits.as_array().unwrap().iter().map(|it| &it["fine"]).collect();
    assert_eq!(fine, [&json!(true); 3], "{audits}");
}

/// Instances are replaced one after the other, so old and new numbers of shards exist at the same
/// time.
#[tokio::test]
async fn two_numbers_of_shards_never_publish_at_once() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    insert_numbered(&client, 0, 200).await;
    let old = sharded(&fixture).start();
    assert_each_once_in_order(&fixture, 200).await;

    let mut new = sharded(&fixture).set("route.shards", 3).allow_log(OTHER_NUMBER).start();
    new.wait_log(OTHER_NUMBER, DEADLINE).await;
    let checked = daemon::run(&fixture.toml().set("route.shards", 3), &["check"]).await;
    insert_numbered(&client, 200, 400).await;
    assert_each_once_in_order(&fixture, 400).await;
    assert!(!new.log().contains("relaying"), "{}", new.log());
    assert!(checked.stdout.contains("another number of shards of the same route"), "{checked:?}");
    assert_ne!(checked.code, Some(0), "{checked:?}");
    assert_eq!(new.get("/readyz").await.unwrap().status, 200);

    old.terminate();
    insert_numbered(&client, 400, 600).await;
    assert_each_once_in_order(&fixture, 600).await;
    eventually("the new instance leads", DEADLINE, async || leads(&new).await == 3).await;
}

/// A frozen leader of the old number of shards keeps its position, which the new leaders do not
/// use. Only its term keeps it from going on when it wakes.
#[tokio::test]
async fn a_frozen_leader_of_another_number_of_shards_does_not_go_on() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    insert_numbered(&client, 0, 200).await;
    let mut old = sharded(&fixture)
        .set("route.shards", 2)
        .allow_log(OTHER_NUMBER)
        .allow_log("the relay stopped leading")
        .allow_log("waiting for NATS")
        .start();
    assert_each_once_in_order(&fixture, 200).await;
    old.freeze();
    let new = sharded(&fixture).set("route.shards", 3).allow_log(OTHER_NUMBER).start();
    insert_numbered(&client, 200, 600).await;
    assert_each_once_in_order(&fixture, 600).await;

    old.thaw_at_work(OTHER_NUMBER, DEADLINE).await;
    insert_numbered(&client, 600, 1_000).await;
    assert_each_once_in_order(&fixture, 1_000).await;
    old.wait_log(OTHER_NUMBER, DEADLINE).await;
    assert_eq!((leads(&old).await, leads(&new).await), (0, 3));
}

/// A number of shards that was used before still has its positions. They contain nothing of the
/// events that other numbers have published since.
#[tokio::test]
async fn going_back_to_an_earlier_number_of_shards_repeats_nothing() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let shards = |count: i64| {
        sharded(&fixture)
            .set("route.shards", count)
            .set("stream.duplicate_window", "2s")
            .set("nats.ack_timeout", "500ms")
    };
    let insert = "INSERT INTO postrider.outbox (event_type, aggregate_type, aggregate_id)
        SELECT 'load.made', 'order', n FROM generate_series(1, 100) AS n";
    let mut daemon = shards(4).start();
    client.batch_execute(insert).await.unwrap();
    fixture.wait_stored(100, DEADLINE).await;
    daemon.terminate();
    assert_eq!(daemon.wait_exit(DEADLINE).await, Some(0), "{}", daemon.log());
    let mut daemon = shards(3).start();
    daemon.wait_log("relaying", DEADLINE).await;
    for round in 2..=4 {
        // The sequence jumps beyond the sent bound of the positions of the first number of shards.
        let far = "SELECT setval('postrider.outbox_seq_seq',
            (SELECT last_value + 150000 FROM postrider.outbox_seq_seq))";
        client.batch_execute(far).await.unwrap();
        client.batch_execute(insert).await.unwrap();
        fixture.wait_stored(round * 100, DEADLINE).await;
    }
    daemon.terminate();
    assert_eq!(daemon.wait_exit(DEADLINE).await, Some(0), "{}", daemon.log());
    // After this time the stream has forgotten the ids.
    let_pass(Duration::from_secs(4)).await;

    let _daemon = shards(4).start();
    for shard in 0..4 {
        let relay = format!("default.{shard}-of-4");
        eventually("everything settled", DEADLINE, async || {
            fixture.unsettled_of(&client, &relay).await == Some(0)
        })
        .await;
    }
    assert_eq!(fixture.read_stream().await.len(), 400);
}

/// A server's clock that was ahead leaves a lease that lasts for a day, and nobody uses it.
#[tokio::test]
async fn an_overlong_lease_of_another_number_of_shards_is_shortened() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let mut old = fixture.daemon().start();
    old.wait_log("relaying", DEADLINE).await;
    old.kill9();
    wait_for_other_sessions_to_end(&client).await;
    let ahead = "UPDATE postrider.position SET reported_at = clock_timestamp() + interval '23 h',
        lease_until = clock_timestamp() + interval '1 day'";
    client.batch_execute(ahead).await.unwrap();
    let mut daemon = sharded(&fixture)
        .set("route.shards", 2)
        .allow_log("longer than any instance takes it")
        .allow_log(OTHER_NUMBER)
        .start();
    let lease = "SELECT lease_until < clock_timestamp() + interval '6 minutes'
        FROM postrider.position WHERE relay = 'default'";
    eventually("a shorter lease", DEADLINE, async || {
        client.query_one(lease, &[]).await.unwrap().get::<_, bool>(0)
    })
    .await;
    daemon.wait_log("longer than any instance takes it", DEADLINE).await;
    // The standby measures its backlog every twelve seconds, so the test waits for longer than
    // that.
    let_pass(Duration::from_secs(14)).await;
    eventually("a fresh measurement", DEADLINE, async || {
        let seen = status(&daemon).await;
        let age = of_route(&seen, "default.0-of-2")["measured_seconds_ago"].as_f64();
        age.is_some_and(|seconds| seconds < 9.0)
    })
    .await;
}

/// A sequence that was set back does not tell the highest `seq` of the rows.
#[tokio::test]
async fn rows_above_a_sequence_that_was_set_back_are_not_passed_over() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let daemon =
        relay(routes(&fixture, &["order"])).allow_log("no route takes").allow_log("WARN").start();
    emit(&client, &["order.placed"]).await;
    held(&fixture, "order", 1).await;
    daemon.freeze();
    // The rows are more than one poll reads, so that the relay reads them page by page.
    let insert = r#"INSERT INTO "postrider".outbox (event_type, payload)
        SELECT 'order.paid', '{}' FROM generate_series(1, 3000)"#;
    client.execute(insert, &[]).await.unwrap();
    client.execute(r#"SELECT setval('"postrider".outbox_seq_seq', 2)"#, &[]).await.unwrap();
    daemon.thaw();
    // The rows must be published before the relay verifies the sequence again, which it does once a
    // minute.
    let thawed = Stopwatch::start();
    assert_eq!(held(&fixture, "order", 3_001).await.len(), 3_001);
    let took = thawed.stop();
    assert!(took < Duration::from_secs(10), "{took:?}");
}

/// `run --route NAME` runs only that route, and refuses a name that is not configured.
#[tokio::test]
async fn one_route_can_be_run_alone() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let toml = routes(&fixture, &["order", "invoice"]);
    emit(&client, &["order.placed", "invoice.sent"]).await;
    let daemon = relay(toml.clone()).arg("--route").arg("invoice").start();
    assert_eq!(held(&fixture, "invoice", 1).await, ["invoice.sent"]);
    let seen = status(&daemon).await;
    assert_eq!(seen["routes"].as_array().unwrap().len(), 1, "{seen}");
    let finished = daemon::run(&toml, &["run", "--route", "none"]).await;
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.stderr.contains("the routes are order, invoice, unrouted"), "{finished:?}");
}

/// A route has to find its events by the index, even where sequence numbers begin high or have a
/// large gap.
#[tokio::test]
async fn a_gap_of_numbers_is_not_crawled_through() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let insert = r#"INSERT INTO "postrider".outbox (event_type, payload)
        SELECT 'order.paid', '{}' FROM generate_series(1, 2000)"#;
    let jump = |to: i64| format!(r#"SELECT setval('"postrider".outbox_seq_seq', {to})"#);
    client.batch_execute(&jump(20_000_000_000)).await.unwrap();
    client.execute(insert, &[]).await.unwrap();
    let began = tokio::time::Instant::now();
    let _daemon = relay(routes(&fixture, &["order"])).allow_log("WARN").start();
    held(&fixture, "order", 2_000).await;
    client.batch_execute(&jump(1_000_000_000_000)).await.unwrap();
    client.execute(insert, &[]).await.unwrap();
    assert_eq!(held(&fixture, "order", 4_000).await.len(), 4_000);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

/// Former defect: ten thousand rows of other routes hid a route's own events from the measurement.
/// Backlog and lag were 0, and no problem was reported.
#[tokio::test]
async fn a_backlog_behind_many_rows_of_other_routes_is_seen() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let mut daemon = relay(routes(&fixture, &["order"])).allow_log("WARN").start();
    emit(&client, &["order.placed"]).await;
    held(&fixture, "order", 1).await;
    daemon.kill9();
    let insert = r#"INSERT INTO "postrider".outbox (event_type, payload)
        SELECT 'user.left', '{}' FROM generate_series(1, 12000)"#;
    client.execute(insert, &[]).await.unwrap();
    emit(&client, &["order.paid"]).await;
    let toml = routes(&fixture, &["order"]);
    let status = letters::json(&toml, &["status", "--route", "order"]).await;
    assert!(status["backlog"].as_i64().unwrap() >= 1, "{status}");
    assert!(status["lag_seconds"].as_f64().unwrap() > 0.0, "{status}");
}
