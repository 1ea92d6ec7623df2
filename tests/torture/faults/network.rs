//! Faults P4, N10, N11 and X2: the network delays, drops, holds or cuts the program's connections.

use std::time::Duration;

use crate::{
    fault::{Fault, Set, Tally},
    scene::{conclude, daemon, look_at_resources, pause, steady, under_load},
    support::{
        DEADLINE, Fixture,
        audit::work_during,
        daemon::DaemonBuilder,
        eventually, let_pass,
        proxy::{Mode, Modes, Proxy},
    },
};

pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        id: "P4",
        what: "a black hole between the program and Postgres, both ways or one way",
        pr: 3,
        nightly: 30,
        set: 6,
        inflict: |set| Box::pin(hole_to_postgres(set)),
    },
    Fault {
        id: "N10",
        what: "acknowledgements lost on the way, for 1 ms to beyond the wait for one",
        pr: 5,
        nightly: 300,
        set: 30,
        inflict: |set| Box::pin(lost_answers(set)),
    },
    Fault {
        id: "N11",
        what: "publishes that arrive after the program gave up, or was replaced, or never",
        pr: 5,
        nightly: 300,
        set: 30,
        inflict: |set| Box::pin(late_publishes(set)),
    },
    Fault {
        id: "T3",
        what: "a stream that forgets ids after 2 s, and answers, programs and servers away for longer",
        pr: 4,
        nightly: 50,
        set: 8,
        inflict: |set| Box::pin(short_memory(set)),
    },
    Fault {
        id: "X2",
        what: "connections delayed, narrowed, sliced, reset and cut in the middle of a message",
        pr: 8,
        nightly: 60,
        set: 12,
        inflict: |set| Box::pin(bad_line(set)),
    },
];

/// The program, which reaches NATS through the proxy and soon gives up waiting for answers.
pub(crate) fn behind_nats(fixture: &Fixture, proxy: &Proxy) -> DaemonBuilder {
    daemon(fixture)
        .set("nats.url", format!("nats://127.0.0.1:{}", proxy.port()))
        .set("nats.ack_timeout", "500ms")
        .set("nats.ping_interval", "1s")
}

/// The program, which reaches Postgres through the proxy and soon gives up waiting for answers.
pub(crate) fn behind_postgres(
    builder: DaemonBuilder,
    fixture: &Fixture,
    proxy: &Proxy,
) -> DaemonBuilder {
    let port = |port: u16| format!(":{port}/");
    let through =
        fixture.database_url().replace(&port(fixture.postgres.port()), &port(proxy.port()));
    builder.set("database.url", through).set("database.query_timeout", "1s")
}

async fn hole_to_postgres(mut set: Set) -> Tally {
    let fixture = Fixture::new().await;
    let proxy = Proxy::start(fixture.postgres.port()).await.unwrap();
    let daemon = behind_postgres(daemon(&fixture), &fixture, &proxy).start();
    let options = steady(&set);
    let strikes = async {
        for strike in 0..set.strikes {
            pause(&mut set, 300..=1_000).await;
            proxy.set(match strike % 3 {
                0 => Modes::both(Mode::Hole),
                1 => Modes::to_server(Mode::Hole),
                _ => Modes::to_client(Mode::Hole),
            });
            // The time is from less to more than the second that a statement may take.
            pause(&mut set, 500..=4_000).await;
            proxy.set(Modes::PASS);
        }
    };
    let (ledger, ()) = under_load(&fixture, options, strikes).await;
    let mut tally = conclude(&fixture, &ledger, &set).await;
    look_at_resources(&daemon, &mut tally);
    tally
}

async fn lost_answers(mut set: Set) -> Tally {
    let fixture = Fixture::new().await;
    let proxy = Proxy::start(fixture.nats.port()).await.unwrap();
    let daemon = behind_nats(&fixture, &proxy).start();
    let options = steady(&set);
    let strikes = async {
        for strike in 0..set.strikes {
            pause(&mut set, 200..=600).await;
            proxy.set(Modes::to_client(Mode::Hole));
            // The time is from less than a round trip to more than twice the wait for an
            // acknowledgement.
            match strike % 3 {
                0 => pause(&mut set, 1..=50).await,
                1 => pause(&mut set, 300..=1_500).await,
                _ => pause(&mut set, 2_000..=4_000).await,
            }
            if set.random.percent(50) {
                proxy.cut();
            }
            proxy.set(Modes::PASS);
        }
    };
    let (ledger, ()) = under_load(&fixture, options, strikes).await;
    let mut tally = conclude(&fixture, &ledger, &set).await;
    look_at_resources(&daemon, &mut tally);
    tally
}

async fn late_publishes(mut set: Set) -> Tally {
    let fixture = Fixture::new().await;
    let proxy = Proxy::start(fixture.nats.port()).await.unwrap();
    let mut daemon = behind_nats(&fixture, &proxy).start();
    let options = steady(&set);
    let strikes = async {
        for strike in 0..set.strikes {
            daemon.wait_log("stream verified", DEADLINE).await;
            pause(&mut set, 200..=600).await;
            // Only the open connections are held, so that the next one works.
            proxy.set_present(Modes::to_server(Mode::Hold));
            eventually("publishes that are late", DEADLINE, async || proxy.held_bytes() > 1_000)
                .await;
            let before = proxy.accepted();
            match strike % 3 {
                0 => {
                    daemon.kill9();
                    daemon.start_again();
                }
                1 => {}
                // The held messages never arrive, and the program that sent them is killed.
                _ => {
                    // This time is longer than it takes to settle acknowledged events.
                    pause(&mut set, 200..=600).await;
                    daemon.kill9();
                    proxy.cut();
                    daemon.start_again();
                }
            }
            eventually("another connection", DEADLINE, async || proxy.accepted() > before).await;
            // By now the program has published the same events over its new connection, and more.
            pause(&mut set, 200..=2_000).await;
            proxy.set_present(Modes::PASS);
        }
    };
    let (ledger, ()) = under_load(&fixture, options, strikes).await;
    conclude(&fixture, &ledger, &set).await
}

/// Has the effect of a jump of the broker's clock: the broker has forgotten every id when the
/// program connects again.
async fn short_memory(mut set: Set) -> Tally {
    let mut fixture = Fixture::own_nats().await;
    let proxy = Proxy::start(fixture.nats.port()).await.unwrap();
    let builder = behind_nats(&fixture, &proxy).set("stream.duplicate_window", "2s");
    let mut daemon = builder.start();
    let workload = fixture.workload(steady(&set));
    let nats = fixture.nats.own();
    let strikes = async {
        for strike in 0..set.strikes {
            pause(&mut set, 300..=800).await;
            match strike % 4 {
                // Messages are stored, but no acknowledgement reaches the program.
                0 => {
                    proxy.set(Modes::to_client(Mode::Hole));
                    pause(&mut set, 3_000..=5_000).await;
                    proxy.cut();
                }
                1 => {
                    proxy.set(Modes::to_client(Mode::Hole));
                    pause(&mut set, 100..=300).await;
                    daemon.kill9();
                    proxy.cut();
                    pause(&mut set, 2_500..=4_000).await;
                    daemon.start_again();
                }
                2 => {
                    nats.kill9().unwrap();
                    pause(&mut set, 2_500..=4_000).await;
                    nats.start_again().await.unwrap();
                }
                _ => {
                    daemon.freeze();
                    pause(&mut set, 3_000..=5_000).await;
                    daemon.thaw();
                }
            }
            proxy.set(Modes::PASS);
        }
    };
    let (ledger, ()) = work_during(workload, strikes).await;
    let mut tally = conclude(&fixture, &ledger, &set).await;
    look_at_resources(&daemon, &mut tally);
    tally
}

async fn bad_line(mut set: Set) -> Tally {
    let fixture = Fixture::new().await;
    let nats = Proxy::start(fixture.nats.port()).await.unwrap();
    let postgres = Proxy::start(fixture.postgres.port()).await.unwrap();
    let daemon = behind_postgres(behind_nats(&fixture, &nats), &fixture, &postgres);
    let daemon = daemon.set("nats.ack_timeout", "2s").set("database.query_timeout", "5s").start();
    let options = steady(&set);
    let strikes = async {
        for strike in 0..set.strikes {
            let proxy = if set.random.percent(50) { &nats } else { &postgres };
            let millis = |count: u32| Duration::from_millis(count.into());
            match strike % 5 {
                0 => {
                    let delay = millis(set.random.between(20, 300));
                    proxy.set(Modes::both(Mode::Delay(delay, delay)));
                    pause(&mut set, 1_000..=2_000).await;
                }
                1 => {
                    let size = set.random.between(1, 7) as usize;
                    proxy.set(Modes::both(Mode::Slice(size)));
                    pause(&mut set, 500..=1_500).await;
                }
                2 => {
                    let bytes = u64::from(set.random.between(1_000, 50_000));
                    proxy.set_present(Modes::to_server(Mode::CutAfter(bytes)));
                    pause(&mut set, 200..=800).await;
                }
                3 => {
                    let rate = set.random.between(20_000, 200_000);
                    proxy.set(Modes::both(Mode::Narrow(rate)));
                    pause(&mut set, 1_000..=2_000).await;
                }
                _ => {
                    proxy.cut();
                    let_pass(millis(set.random.between(100, 400))).await;
                }
            }
            proxy.set(Modes::PASS);
        }
    };
    let (ledger, ()) = under_load(&fixture, options, strikes).await;
    let mut tally = conclude(&fixture, &ledger, &set).await;
    look_at_resources(&daemon, &mut tally);
    tally
}
