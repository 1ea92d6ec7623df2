//! Faults A: two keys have so many events that they go in batches, while program, brokers and
//! network fail.

use std::time::Duration;

use postrider::dev::{servers::NatsOptions, workload::Options};

use super::network::behind_nats;
use crate::{
    cluster::{Cluster, client, step_down},
    fault::{Fault, Set, Tally},
    scene::{conclude, look_at_resources, pause, steady},
    support::{
        DEADLINE, Fixture,
        audit::work_during,
        daemon::Daemon,
        let_pass,
        proxy::{Mode, Modes, Proxy},
    },
};

pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        id: "A1",
        what: "two hot keys, in atomic batches: the program and the server killed, the line cut, held, \
               deaf and late; every other set on a stream that takes no batches",
        pr: 24,
        nightly: 900,
        set: 12,
        inflict: |set| Box::pin(struck(set, "always")),
    },
    Fault {
        id: "A2",
        what: "two hot keys, in atomic batches, on three servers: the leader steps down each 0.5 s, a \
               random one is killed each 2 s",
        pr: 12,
        nightly: 600,
        set: 60,
        inflict: |set| Box::pin(unrest(set, "always")),
    },
    Fault {
        id: "A3",
        what: "as A1, in fast batches",
        pr: 24,
        nightly: 900,
        set: 12,
        inflict: |set| Box::pin(struck(set, "fast")),
    },
    Fault {
        id: "A4",
        what: "as A2, in fast batches",
        pr: 12,
        nightly: 600,
        set: 60,
        inflict: |set| Box::pin(unrest(set, "fast")),
    },
];

/// Load that two keys cannot publish one event at a time. Events that are committed together, or
/// during an outage, have to go in batches.
fn hot(set: &Set) -> Options {
    Options { events_per_second: Some(1_500), keys: 2, keyless_percent: 0, ..steady(set) }
}

/// Creates the test's stream without support for batches.
async fn create_without_batches(fixture: &Fixture) {
    let config = fixture.stream_config();
    fixture.jetstream().await.create_stream(config).await.expect("a stream");
}

/// Number of messages in the stream that came in atomic batches.
async fn batched(fixture: &Fixture) -> usize {
    let stored = fixture.read_stream().await;
    stored.iter().filter(|message| message.header("Nats-Batch-Id").is_some()).count()
}

/// Number of batches that the running program has seen stored as a whole.
async fn committed(daemon: &Daemon) -> f64 {
    let series = r#"postrider_publish_batches_total{route="default",result="committed"}"#;
    daemon.metric_if_up(series).await.unwrap_or_default()
}

async fn struck(mut set: Set, batches: &'static str) -> Tally {
    let mut fixture = Fixture::with(None, Some(NatsOptions::default())).await;
    let are_taken = set.number.is_multiple_of(2);
    if !are_taken {
        create_without_batches(&fixture).await;
    }
    let proxy = Proxy::start(fixture.nats.port()).await.unwrap();
    let mut daemon = behind_nats(&fixture, &proxy).admin().set("stream.batches", batches).start();
    daemon.wait_log("stream verified", DEADLINE).await;
    let workload = fixture.workload(hot(&set));
    let nats = fixture.nats.own();
    let mut together = 0.0;
    let strikes = async {
        for strike in 0..set.strikes {
            pause(&mut set, 300..=1_200).await;
            together += committed(&daemon).await;
            match strike % 6 {
                0 => {
                    daemon.kill9();
                    daemon.start_again();
                }
                1 => {
                    nats.kill9().unwrap();
                    pause(&mut set, 0..=500).await;
                    nats.start_again().await.unwrap();
                }
                // The connection is cut after a random number of bytes, in the middle of a batch.
                2 => {
                    let bytes = u64::from(set.random.between(1_000, 200_000));
                    proxy.set_present(Modes::to_server(Mode::CutAfter(bytes)));
                }
                // Messages are stored, but no acknowledgement reaches the program.
                3 => {
                    proxy.set(Modes::to_client(Mode::Hole));
                    pause(&mut set, 100..=1_500).await;
                    proxy.cut();
                }
                // The held messages arrive when their events have been published again over another
                // connection.
                4 => {
                    proxy.set_present(Modes::to_server(Mode::Hold));
                    pause(&mut set, 100..=400).await;
                    if set.random.percent(50) {
                        daemon.kill9();
                        daemon.start_again();
                    }
                    pause(&mut set, 500..=2_500).await;
                    proxy.set_present(Modes::PASS);
                }
                _ => proxy.cut(),
            }
            proxy.set(Modes::PASS);
        }
    };
    let (ledger, ()) = work_during(workload, strikes).await;
    let mut tally = conclude(&fixture, &ledger, &set).await;
    look_at_resources(&daemon, &mut tally);
    let is_wrong = are_taken != (together > 0.0);
    tally.complain(is_wrong.then(|| format!("{together} batches were stored")));
    let count = batched(&fixture).await;
    let is_wrong = (are_taken && batches == "always") != (count > 0);
    tally.complain(is_wrong.then(|| format!("{count} messages came in atomic batches")));
    tally
}

async fn unrest(mut set: Set, batches: &'static str) -> Tally {
    let mut cluster = Cluster::start().await;
    let mut daemon = cluster.daemon().admin().set("stream.batches", batches).start();
    daemon.wait_log("stream verified", DEADLINE).await;
    let workload = cluster.fixture.workload(hot(&set));
    let strikes = async {
        let admin = client(&cluster.urls()).await;
        for strike in 0..set.strikes {
            let_pass(Duration::from_millis(500)).await;
            step_down(&admin, &cluster.fixture.stream).await;
            if strike % 4 == 3 {
                cluster.any(&mut set.random).kill9().unwrap();
                pause(&mut set, 100..=500).await;
                // The killed server is started again. The others are running already.
                for number in 0..3 {
                    cluster.node(number).start_again().await.unwrap();
                }
            }
        }
    };
    let (ledger, ()) = Box::pin(work_during(workload, strikes)).await;
    cluster.wait_healed().await;
    let mut tally = conclude(&cluster.fixture, &ledger, &set).await;
    let together = committed(&daemon).await;
    tally.complain((together <= 0.0).then(|| "no batch was stored".to_owned()));
    let count = batched(&cluster.fixture).await;
    let is_wrong = (batches == "always") != (count > 0);
    tally.complain(is_wrong.then(|| format!("{count} messages came in atomic batches")));
    tally
}
