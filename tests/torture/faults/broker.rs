//! Faults N with one server: NATS is killed, frozen, full, reconfigured, or set back to an older
//! store.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, Stream};
use postrider::dev::{
    checker::Stored,
    servers::{Nats, NatsOptions},
    stream_reader,
};

use crate::{
    fault::{Fault, Set, Tally},
    scene::{conclude, conclude_with_purged, daemon, look_at_resources, pause, steady, under_load},
    support::{
        DEADLINE, Fixture, audit::work_during, daemon::DaemonBuilder, disk::SmallDisk, eventually,
        let_pass, store::StoreCopy,
    },
};

pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        id: "N1",
        what: "SIGKILL of nats-server, started again",
        pr: 10,
        nightly: 300,
        set: 30,
        inflict: |set| Box::pin(kill(set)),
    },
    Fault {
        id: "N5",
        what: "SIGSTOP of nats-server for up to 5 s",
        pr: 2,
        nightly: 30,
        set: 4,
        inflict: |set| Box::pin(freeze(set)),
    },
    Fault {
        id: "N6",
        what: "no room left in JetStream, then room again",
        pr: 1,
        nightly: 10,
        set: 1,
        inflict: |set| Box::pin(fill_up(set)),
    },
    Fault {
        id: "N12",
        what: "the broker's disk full, then room again and a restart",
        pr: 1,
        nightly: 20,
        set: 1,
        inflict: |set| Box::pin(fill_the_disk(set)),
    },
    Fault {
        id: "N7",
        what: "the stream full, without its subject or its window, sealed, deleted, purged, put right again",
        pr: 6,
        nightly: 60,
        set: 12,
        inflict: |set| Box::pin(reconfigure(set)),
    },
    Fault {
        id: "N8",
        what: "nats-server comes back with an older copy of its store",
        pr: 3,
        nightly: 60,
        set: 1,
        inflict: |set| Box::pin(set_back(set)),
    },
];

/// The program, which notices within about a second that the server is silent.
fn alert(fixture: &Fixture) -> DaemonBuilder {
    daemon(fixture).set("nats.ack_timeout", "1s").set("nats.ping_interval", "1s")
}

/// Runs a workload while `strikes` controls the fixture's own server.
async fn with_server<T>(
    fixture: &mut Fixture,
    set: &Set,
    strikes: impl AsyncFnOnce(&mut Nats) -> T,
) -> (postrider::dev::checker::Ledger, T) {
    let workload = fixture.workload(steady(set));
    work_during(workload, Box::pin(strikes(fixture.nats.own()))).await
}

async fn kill(mut set: Set) -> Tally {
    let mut fixture = Fixture::own_nats().await;
    let daemon = alert(&fixture).start();
    let load = set.clone();
    let (ledger, ()) = with_server(&mut fixture, &load, async |nats| {
        for _ in 0..set.strikes {
            pause(&mut set, 200..=800).await;
            nats.kill9().unwrap();
            pause(&mut set, 0..=300).await;
            nats.start_again().await.unwrap();
        }
    })
    .await;
    let mut tally = conclude(&fixture, &ledger, &set).await;
    look_at_resources(&daemon, &mut tally);
    tally
}

async fn freeze(mut set: Set) -> Tally {
    let fixture = Fixture::own_nats().await;
    let daemon = alert(&fixture).start();
    let options = steady(&set);
    let strikes = async {
        for strike in 0..set.strikes {
            pause(&mut set, 300..=800).await;
            fixture.nats.freeze().unwrap();
            let_pass(Duration::from_secs(if strike % 2 == 0 { 5 } else { 1 })).await;
            fixture.nats.thaw().unwrap();
        }
    };
    let (ledger, ()) = under_load(&fixture, options, strikes).await;
    let mut tally = conclude(&fixture, &ledger, &set).await;
    look_at_resources(&daemon, &mut tally);
    tally
}

async fn fill_up(set: Set) -> Tally {
    let small = "max_file_store: 400KB".to_owned();
    let options = NatsOptions { jetstream: small, ..NatsOptions::default() };
    let mut fixture = Fixture::with(None, Some(options)).await;
    let mut daemon = alert(&fixture).start();
    let (ledger, ()) = with_server(&mut fixture, &set, async |nats| {
        daemon.wait_log("nothing can be published just now", DEADLINE).await;
        // In this time the program tries again in vain.
        let_pass(Duration::from_secs(2)).await;
        nats.options_mut().jetstream = String::new();
        nats.stop().await.unwrap();
        nats.start_again().await.unwrap();
    })
    .await;
    let mut tally = conclude(&fixture, &ledger, &set).await;
    look_at_resources(&daemon, &mut tally);
    tally
}

/// Fills the file system of the server. The server does not report that, as it reports its own
/// limit: it goes on to answer requests, and acknowledges no message.
async fn fill_the_disk(set: Set) -> Tally {
    let disk = match SmallDisk::mount("48m") {
        Ok(disk) => disk,
        Err(why) => return Tally::skipped(why),
    };
    let options = NatsOptions { parent: Some(disk.path().to_owned()), ..NatsOptions::default() };
    let mut fixture = Fixture::with(None, Some(options)).await;
    // Messages that were acknowledged but not written to disk are lost, and the program publishes
    // them again.
    let mut daemon = alert(&fixture).allow_log("the broker has lost events").start();
    let (ledger, ()) = with_server(&mut fixture, &set, async |nats| {
        daemon.wait_log("stream verified", DEADLINE).await;
        let_pass(Duration::from_secs(1)).await;
        let filler = disk.fill();
        daemon.wait_log("store_stalled", DEADLINE).await;
        // In this time the program tries again in vain.
        let_pass(Duration::from_secs(2)).await;
        std::fs::remove_file(filler).unwrap();
        nats.kill9().unwrap();
        nats.start_again().await.unwrap();
    })
    .await;
    let mut tally = conclude(&fixture, &ledger, &set).await;
    look_at_resources(&daemon, &mut tally);
    drop(daemon);
    drop(fixture);
    tally
}

async fn reconfigure(mut set: Set) -> Tally {
    let fixture = Fixture::new().await;
    let mut daemon = alert(&fixture).allow_log("the broker has lost events").start();
    daemon.wait_log("stream verified", DEADLINE).await;
    let jetstream = fixture.jetstream().await;
    let options = steady(&set);
    let strikes = async {
        let (mut purged, mut most) = (Vec::new(), 0);
        for strike in 0..set.strikes {
            pause(&mut set, 500..=1_000).await;
            let mut stream = jetstream.get_stream(&fixture.stream).await.unwrap();
            let info = stream.info().await.unwrap();
            let (sound, messages) = (info.config.clone(), info.state.messages);
            most = most.max(messages);
            // Each set ends with a purge, so that the purged messages are not published again
            // before the comparison.
            if strike % 6 == 5 {
                purged.extend(Box::pin(purge(&fixture, stream, most)).await);
                most = 0;
                continue;
            }
            let elsewhere = vec![format!("{}_ELSEWHERE.>", sound.name)];
            let full = i64::try_from(messages).unwrap() + 50;
            let worse = match strike % 6 {
                0 => Config { max_messages: full, ..sound.clone() },
                1 => Config { subjects: elsewhere, ..sound.clone() },
                2 => Config { duplicate_window: Duration::from_secs(5), ..sound.clone() },
                _ => Config { sealed: true, ..sound.clone() },
            };
            if strike % 6 != 4 {
                jetstream.update_stream(worse).await.unwrap();
                pause(&mut set, 500..=1_500).await;
            }
            if strike % 6 < 3 {
                jetstream.update_stream(sound).await.unwrap();
                continue;
            }
            // A sealed stream cannot be unsealed, so it is deleted and created anew.
            jetstream.delete_stream(&sound.name).await.unwrap();
            pause(&mut set, 500..=1_500).await;
            // The program may have created the stream already.
            Box::pin(jetstream.get_or_create_stream(sound)).await.unwrap();
            // The program publishes everything again that the outbox still has, and so the purged
            // messages too.
            purged.clear();
        }
        purged
    };
    let (ledger, purged) = Box::pin(under_load(&fixture, options, strikes)).await;
    conclude_with_purged(&fixture, &ledger, &set, purged).await
}

/// Waits until the stream has `messages` messages, reads them, and purges exactly the ones read.
/// Messages that arrive meanwhile stay. Returns the purged messages.
async fn purge(fixture: &Fixture, mut stream: Stream, messages: u64) -> Vec<Stored> {
    eventually(format!("{messages} messages"), DEADLINE, async || {
        stream.info().await.unwrap().state.messages >= messages
    })
    .await;
    let read = stream_reader::read_stream(&fixture.nats.url(), &fixture.stream).await.unwrap();
    let last = read.last().expect("a stream that has been filled");
    let purged = stream.purge().sequence(last.seq + 1).await.unwrap();
    assert_eq!(purged.purged, read.len() as u64, "another number was purged than was read");
    read
}

async fn set_back(mut set: Set) -> Tally {
    let mut fixture = Fixture::own_nats().await;
    let builder = alert(&fixture).allow_log("the broker has lost events");
    let dies = cfg!(feature = "failpoints") && set.number % 3 == 2;
    let builder = if dies { builder.env("FP", "healed:1") } else { builder };
    let mut daemon = builder.start();
    let load = set.clone();
    let (ledger, ()) = with_server(&mut fixture, &load, async |nats| {
        daemon.wait_log("stream verified", DEADLINE).await;
        pause(&mut set, 800..=1_500).await;
        nats.freeze().unwrap();
        let copy = StoreCopy::take(nats);
        nats.thaw().unwrap();
        pause(&mut set, 800..=1_500).await;
        nats.kill9().unwrap();
        copy.put_back();
        nats.start_again().await.unwrap();
        match set.number % 3 {
            0 => {}
            // The program aborts at the moment when it puts the position back.
            2 if dies => {
                assert_eq!(daemon.wait_exit(DEADLINE).await, None, "not aborted while healing");
                daemon.start_again();
            }
            _ => {
                for _ in 0..3 {
                    pause(&mut set, 0..=700).await;
                    daemon.kill9();
                    daemon.start_again();
                }
            }
        }
        pause(&mut set, 800..=1_500).await;
    })
    .await;
    let mut tally = conclude(&fixture, &ledger, &set).await;
    look_at_resources(&daemon, &mut tally);
    tally
}
