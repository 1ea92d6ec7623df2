//! Faults R1 to R3, H1 and H2: a program with three routes, and three instances that share the four
//! shards of a route.

use std::{
    fs,
    time::{Duration, Instant},
};

use async_nats::jetstream::stream::Config;
use postrider::dev::{
    checker::{Ledger, Order, check},
    workload::Options,
};
use serde_json::json;

use crate::{
    fault::{Fault, Set, Tally},
    scene::{daemon, pause, pause_exponential, steady, under_load},
    support::{
        DEADLINE, Fixture,
        audit::work_during,
        daemon::{Daemon, DaemonBuilder, WATCHDOG},
        eventually, let_pass,
    },
};

pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        id: "R1",
        what: "three routes to three streams: SIGKILL at random, as K1",
        pr: 10,
        nightly: 300,
        set: 50,
        inflict: |set| Box::pin(kill(set)),
    },
    Fault {
        id: "R2",
        what: "three routes to three streams: SIGKILL of nats-server, as N1",
        pr: 5,
        nightly: 100,
        set: 25,
        inflict: |set| Box::pin(kill_the_broker(set)),
    },
    Fault {
        id: "R3",
        what: "three routes: one stream deleted, one full or without its subject, one healthy, and kills",
        pr: 4,
        nightly: 60,
        set: 12,
        inflict: |set| Box::pin(break_streams(set)),
    },
    Fault {
        id: "H1",
        what: "four shards over three instances, one of them killed at random, as K1",
        pr: 8,
        nightly: 300,
        set: 50,
        inflict: |set| Box::pin(kill_shards(set)),
    },
    Fault {
        id: "H2",
        what: "four shards over three instances, one of them frozen past its lease, as K4",
        pr: 2,
        nightly: 60,
        set: 6,
        inflict: |set| Box::pin(freeze_shards(set)),
    },
];

/// Names of the routes. The first route has no filter, and the filters of the others take every
/// event too.
const ROUTES: [&str; 3] = ["default", "second", "third"];

/// Lease, which is the shortest possible, so that a frozen instance is replaced soon.
const LEASE: &str = "3s";

/// Time after which a frozen instance has been replaced: the lease, and the takeover.
const REPLACED: Duration = Duration::from_millis(5_500);

const SHARDS: u32 = 4;

/// Deadline from the end of the last fault to the last settlement.
const DRAIN_DEADLINE: Duration = Duration::from_mins(1);

fn stream(fixture: &Fixture, route: &str) -> String {
    format!("{}_{route}", fixture.stream)
}

/// Prefix of the subjects of a route.
fn prefix(fixture: &Fixture, route: &str) -> String {
    format!("{}{route}.", fixture.prefix)
}

/// The program with three routes, which notices within about a second that a server is silent.
fn three_routes(fixture: &Fixture) -> DaemonBuilder {
    let filters = [("types", json!([])), ("types", json!(["*"])), ("except_types", json!(["x.*"]))];
    daemon(fixture)
        .set("nats.ack_timeout", "1s")
        .set("nats.ping_interval", "1s")
        // A stream that was deleted is published to again, and the program logs the loss as an
        // error.
        .allow_log("the broker has lost events")
        // When the program starts, one route's stream may be unusable.
        .allow_log("the route failed")
        .config(|toml| {
            let toml = toml.unset("stream.name").unset("stream.subjects");
            ROUTES.iter().zip(filters).fold(toml, |toml, (route, filter)| {
                toml.route([
                    ("name", json!(route)),
                    filter,
                    ("stream", json!(stream(fixture, route))),
                    ("subjects", json!([format!("{}>", prefix(fixture, route))])),
                    ("subject", json!(format!("{}{{event_type}}", prefix(fixture, route)))),
                ])
            })
        })
}

/// Compares each of the three streams with everything that was written. Returns the sum of the
/// figures.
async fn conclude(fixture: &Fixture, ledger: &Ledger, set: &Set) -> Tally {
    let mut sum = Tally { strikes: set.strikes, ..Tally::default() };
    for route in ROUTES {
        let began = Instant::now();
        let is_drained = fixture.wait_drained_by(route, DRAIN_DEADLINE).await;
        let recovery = began.elapsed();
        let (theirs, as_written) = (prefix(fixture, route), format!("{}.", fixture.prefix));
        let stream = stream(fixture, route);
        let observed = fixture.observe_in(&stream, (&theirs, &as_written)).await;
        let report = check(ledger, &observed, Order::Serial);
        let mut tally = Tally { recovery, ..Tally::of(0, &report, 0) };
        tally.complain((!is_drained).then(|| format!("route {route} is not drained")));
        tally.complain((report.committed == 0).then(|| "nothing was committed".to_owned()));
        sum.absorb(tally);
    }
    sum
}

async fn kill(mut set: Set) -> Tally {
    let fixture = Fixture::new().await;
    let mut daemon = three_routes(&fixture).start();
    let options = steady(&set);
    let strikes = async {
        for strike in 0..set.strikes {
            if strike % 2 == 0 {
                daemon.wait_log("relaying", DEADLINE).await;
            }
            pause_exponential(&mut set, Duration::from_millis(300)).await;
            daemon.kill9();
            daemon.start_again();
        }
    };
    let (ledger, ()) = under_load(&fixture, options, strikes).await;
    conclude(&fixture, &ledger, &set).await
}

async fn kill_the_broker(mut set: Set) -> Tally {
    let mut fixture = Fixture::own_nats().await;
    let daemon = three_routes(&fixture).start();
    let workload = fixture.workload(steady(&set));
    let nats = fixture.nats.own();
    let strikes = async {
        for _ in 0..set.strikes {
            pause(&mut set, 200..=800).await;
            nats.kill9().unwrap();
            pause(&mut set, 0..=300).await;
            nats.start_again().await.unwrap();
        }
    };
    let (ledger, ()) = work_during(workload, strikes).await;
    let tally = conclude(&fixture, &ledger, &set).await;
    drop(daemon);
    tally
}

async fn break_streams(mut set: Set) -> Tally {
    let fixture = Fixture::new().await;
    let mut daemon = three_routes(&fixture).start();
    let jetstream = fixture.jetstream().await;
    for route in ROUTES {
        let name = stream(&fixture, route);
        eventually(&name, DEADLINE, async || jetstream.get_stream(&name).await.is_ok()).await;
    }
    let options = Options { events_per_second: Some(200), ..steady(&set) };
    let (deleted, hindered) = (stream(&fixture, "second"), stream(&fixture, "third"));
    let strikes = async {
        for strike in 0..set.strikes {
            pause(&mut set, 500..=1_000).await;
            let mut third = jetstream.get_stream(&hindered).await.unwrap();
            let info = third.info().await.unwrap();
            let (sound, messages) = (info.config.clone(), info.state.messages);
            let full = i64::try_from(messages).unwrap() + 20;
            let elsewhere = vec![format!("{}_ELSEWHERE.>", sound.name)];
            let worse = match strike % 2 {
                0 => Config { max_messages: full, ..sound.clone() },
                _ => Config { subjects: elsewhere, ..sound.clone() },
            };
            jetstream.update_stream(worse).await.unwrap();
            let second = jetstream.get_stream(&deleted).await.unwrap().cached_info().config.clone();
            jetstream.delete_stream(&deleted).await.unwrap();
            pause(&mut set, 500..=1_500).await;
            daemon.kill9();
            daemon.start_again();
            pause(&mut set, 500..=1_500).await;
            jetstream.update_stream(sound).await.unwrap();
            // The program may have created the stream already.
            Box::pin(jetstream.get_or_create_stream(second)).await.unwrap();
        }
    };
    let (ledger, ()) = Box::pin(under_load(&fixture, options, strikes)).await;
    conclude(&fixture, &ledger, &set).await
}

/// Starts three instances of a route with four shards and one stream.
fn instances(fixture: &Fixture) -> Vec<Daemon> {
    let start = |_| daemon(fixture).set("relay.lease", LEASE).set("route.shards", SHARDS).start();
    (0..3).map(start).collect()
}

async fn conclude_shards(fixture: &Fixture, ledger: &Ledger, set: &Set) -> Tally {
    let began = Instant::now();
    let mut is_drained = true;
    for shard in 0..SHARDS {
        let relay = format!("default.{shard}-of-{SHARDS}");
        is_drained &= fixture.wait_drained_by(&relay, DRAIN_DEADLINE).await;
    }
    let recovery = began.elapsed();
    let report = check(ledger, &fixture.observe().await, Order::Serial);
    let mut tally = Tally { recovery, ..Tally::of(set.strikes, &report, 0) };
    tally.complain((!is_drained).then(|| "a shard is not drained".to_owned()));
    tally.complain((report.committed == 0).then(|| "nothing was committed".to_owned()));
    tally
}

async fn kill_shards(mut set: Set) -> Tally {
    let fixture = Fixture::new().await;
    let mut instances = instances(&fixture);
    let options = steady(&set);
    let strikes = async {
        for _ in 0..set.strikes {
            pause_exponential(&mut set, Duration::from_millis(500)).await;
            let instance = &mut instances[set.random.below(3) as usize];
            instance.kill9();
            pause(&mut set, 0..=500).await;
            instance.start_again();
        }
    };
    let (ledger, ()) = under_load(&fixture, options, strikes).await;
    conclude_shards(&fixture, &ledger, &set).await
}

/// Whether a child process of the tests ends within this time.
async fn has_ended(pid: u32, within: Duration) -> bool {
    let end = Instant::now() + within;
    while Instant::now() < end {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        if status.lines().any(|line| line.starts_with("State:") && line.contains('Z')) {
            return true;
        }
        let_pass(Duration::from_millis(20)).await;
    }
    false
}

async fn freeze_shards(mut set: Set) -> Tally {
    let fixture = Fixture::new().await;
    let mut instances = instances(&fixture);
    let options = steady(&set);
    let strikes = async {
        for _ in 0..set.strikes {
            pause(&mut set, 500..=1_500).await;
            let instance = &mut instances[set.random.below(3) as usize];
            instance.freeze();
            let_pass(REPLACED).await;
            // The thawed instance goes on as a standby, or its watchdog ends it.
            instance.thaw();
            if has_ended(instance.pid(), Duration::from_secs(1)).await {
                assert_eq!(
                    instance.wait_exit(DEADLINE).await,
                    Some(WATCHDOG),
                    "{}",
                    instance.log()
                );
                instance.start_again();
            }
        }
    };
    let (ledger, ()) = under_load(&fixture, options, strikes).await;
    conclude_shards(&fixture, &ledger, &set).await
}
