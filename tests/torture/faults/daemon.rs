//! Faults K and I: the program is killed, stopped or frozen, alone or beside other instances.

use std::time::Duration;

use postrider::dev::stream_reader::count_messages;

use super::network::behind_postgres;
use crate::{
    fault::{Fault, Set, Tally},
    scene::{conclude, daemon, look_at_resources, pause, pause_exponential, steady, under_load},
    support::{
        DEADLINE, Fixture,
        daemon::Daemon,
        eventually, let_pass,
        proxy::{Mode, Modes, Proxy},
    },
};

pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        id: "K1",
        what: "SIGKILL at random under load, started again at once",
        pr: 30,
        nightly: 1_000,
        set: 100,
        inflict: |set| Box::pin(kill(set)),
    },
    Fault {
        id: "K3",
        what: "SIGTERM under load: exit 0, and all that was acknowledged is settled",
        pr: 5,
        nightly: 100,
        set: 25,
        inflict: |set| Box::pin(terminate(set)),
    },
    Fault {
        id: "K4",
        what: "SIGSTOP for 1 s, past its lease and beyond the loss of its session, with a second instance",
        pr: 3,
        nightly: 60,
        set: 6,
        inflict: |set| Box::pin(freeze(set)),
    },
    Fault {
        id: "I1",
        what: "three instances at once, one of them killed or started each second",
        pr: 5,
        nightly: 300,
        set: 50,
        inflict: |set| Box::pin(crowd(set)),
    },
    Fault {
        id: "I2",
        what: "the one that relays cut off from Postgres and not from NATS, another takes over",
        pr: 3,
        nightly: 60,
        set: 6,
        inflict: |set| Box::pin(partition(set)),
    },
];

async fn kill(mut set: Set) -> Tally {
    let fixture = Fixture::new().await;
    let proxy = Proxy::start(fixture.nats.port()).await.unwrap();
    let url = format!("nats://127.0.0.1:{}", proxy.port());
    let mut daemon = daemon(&fixture).set("nats.url", url).start();
    let options = steady(&set);
    let strikes = async {
        let mut at_work = 0;
        for strike in 0..set.strikes {
            proxy.set(quick_or_slow(&mut set));
            // Before half of the kills the relay has begun to publish, however slow the machine is.
            if strike % 2 == 0 {
                daemon.wait_log("relaying", DEADLINE).await;
            }
            pause_exponential(&mut set, Duration::from_millis(300)).await;
            at_work += u32::from(daemon.log().contains("relaying"));
            daemon.kill9();
            daemon.start_again();
        }
        at_work
    };
    let (ledger, at_work) = under_load(&fixture, options, strikes).await;
    let mut tally = conclude(&fixture, &ledger, &set).await;
    let few = at_work * 3 < set.strikes;
    tally.complain(few.then(|| format!("only {at_work} kills hit a relay at work")));
    look_at_resources(&daemon, &mut tally);
    tally
}

/// Network without delay, or one with a delay of 2 to 10 ms. With a delay many messages are in
/// flight when the program dies, and more wait. With a longer one the hot keys would never catch
/// up, because each has one message in flight.
pub(super) fn quick_or_slow(set: &mut Set) -> Modes {
    if set.random.percent(50) {
        return Modes::PASS;
    }
    let delay = Duration::from_millis(set.random.between(2, 10).into());
    Modes::both(Mode::Delay(delay, delay / 4))
}

async fn terminate(mut set: Set) -> Tally {
    let fixture = Fixture::new().await;
    let mut daemon = daemon(&fixture).start();
    let jetstream = fixture.jetstream().await;
    let client = fixture.connect().await;
    let options = steady(&set);
    let strikes = async {
        let mut complaints = Vec::new();
        for _ in 0..set.strikes {
            daemon.wait_log("relaying", DEADLINE).await;
            pause(&mut set, 100..=1_500).await;
            daemon.terminate();
            let code = daemon.wait_exit(DEADLINE).await;
            if code != Some(0) {
                complaints.push(format!("SIGTERM ended in {code:?}"));
            }
            // The program has stopped, so the position must contain everything that the stream
            // contains.
            let stored = count_messages(&jetstream, &fixture.stream).await.unwrap();
            let statement = r#"SELECT stream_seq FROM "postrider".position"#;
            let settled: i64 = client.query_one(statement, &[]).await.unwrap().get(0);
            if settled.unsigned_abs() != stored {
                complaints.push(format!("{stored} stored at the stop, settled up to {settled}"));
            }
            daemon.start_again();
        }
        complaints
    };
    let (ledger, complaints) = under_load(&fixture, options, strikes).await;
    let mut tally = conclude(&fixture, &ledger, &set).await;
    tally.complaints.extend(complaints);
    tally
}

/// Time after which a frozen leader has been replaced: its lease of 10 s, and two seconds.
const REPLACED: Duration = Duration::from_secs(12);

/// Query for the process id of the Postgres backend of the leader's session.
const HOLDER: &str = r#"SELECT backend_pid FROM "postrider".position"#;

async fn freeze(set: Set) -> Tally {
    let fixture = Fixture::new().await;
    let mut first = daemon(&fixture).start();
    first.wait_log("relaying", DEADLINE).await;
    let mut second = daemon(&fixture).start();
    second.wait_log("another instance leads this relay", DEADLINE).await;
    let strikes = async {
        let client = fixture.connect().await;
        for strike in 0..set.strikes {
            let_pass(Duration::from_millis(500)).await;
            first.freeze();
            match strike % 3 {
                // The frozen leader's session stays open, and it keeps its lease.
                0 => let_pass(Duration::from_secs(1)).await,
                // Postgres ends the session, as it does when a machine is gone.
                1 => {
                    let pid: i32 = client.query_one(HOLDER, &[]).await.unwrap().get(0);
                    client.query_one("SELECT pg_terminate_backend($1)", &[&pid]).await.unwrap();
                    second.wait_log("relaying", DEADLINE).await;
                    let_pass(Duration::from_secs(1)).await;
                    std::mem::swap(&mut first, &mut second);
                    second.thaw();
                    continue;
                }
                // The other instance leads by now, and the watchdog ends the frozen one.
                _ => {
                    let_pass(REPLACED).await;
                    first.thaw_at_work("another instance leads", DEADLINE).await;
                    std::mem::swap(&mut first, &mut second);
                    continue;
                }
            }
            first.thaw();
        }
    };
    let (ledger, ()) = under_load(&fixture, steady(&set), strikes).await;
    conclude(&fixture, &ledger, &set).await
}

async fn crowd(mut set: Set) -> Tally {
    let fixture = Fixture::new().await;
    let mut crowd: Vec<(Daemon, bool)> = (0..3).map(|_| (daemon(&fixture).start(), true)).collect();
    let options = steady(&set);
    let strikes = async {
        for _ in 0..set.strikes {
            pause(&mut set, 500..=1_500).await;
            let (daemon, runs) = &mut crowd[set.random.below(3) as usize];
            if *runs {
                daemon.kill9();
            } else {
                daemon.start_again();
            }
            *runs = !*runs;
        }
        for (daemon, runs) in &mut crowd {
            if !*runs {
                daemon.start_again();
            }
        }
        eventually("one that relays", DEADLINE, async || {
            crowd.iter().any(|(daemon, _)| daemon.log().contains("relaying"))
        })
        .await;
    };
    let (ledger, ()) = under_load(&fixture, options, strikes).await;
    conclude(&fixture, &ledger, &set).await
}

/// An instance of two, with its proxy to Postgres.
struct Instance {
    daemon: Daemon,
    line: Proxy,
}

impl Instance {
    async fn start(fixture: &Fixture) -> Self {
        let line = Proxy::start(fixture.postgres.port()).await.unwrap();
        let daemon = behind_postgres(daemon(fixture), fixture, &line).start();
        Self { daemon, line }
    }
}

async fn partition(mut set: Set) -> Tally {
    let fixture = Fixture::new().await;
    let mut first = Instance::start(&fixture).await;
    first.daemon.wait_log("relaying", DEADLINE).await;
    let mut second = Instance::start(&fixture).await;
    let options = steady(&set);
    let strikes = async {
        let client = fixture.connect().await;
        for _ in 0..set.strikes {
            second.daemon.wait_log("another instance leads this relay", DEADLINE).await;
            pause(&mut set, 300..=1_000).await;
            first.line.set(Modes::both(Mode::Hole));
            // Postgres ends the session of a client that does not answer. The client has not
            // noticed yet, and goes on publishing what it has read.
            let pid: i32 = client.query_one(HOLDER, &[]).await.unwrap().get(0);
            client.query_one("SELECT pg_terminate_backend($1)", &[&pid]).await.unwrap();
            second.daemon.wait_log("relaying", DEADLINE).await;
            pause(&mut set, 500..=2_000).await;
            first.line.set(Modes::PASS);
            // The program is restarted, because `log()` contains only lines since its last start.
            first.daemon.kill9();
            first.daemon.start_again();
            std::mem::swap(&mut first, &mut second);
        }
    };
    let (ledger, ()) = under_load(&fixture, options, strikes).await;
    conclude(&fixture, &ledger, &set).await
}
