//! Faults N with three servers: stream leaders step down, and servers die, one, two or all at a
//! time.

use std::time::Duration;

use postrider::dev::random::Random;

use crate::{
    cluster::{Cluster, client, step_down},
    fault::{Fault, Set, Tally},
    scene::{conclude, pause, steady},
    support::{DEADLINE, audit::work_during, let_pass},
};

use postrider::dev::checker::Ledger;

pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        id: "N2",
        what: "three servers: the leader steps down each 0.7 s, a random one is killed each 2.5 s",
        pr: 20,
        nightly: 1_000,
        set: 100,
        inflict: |set| Box::pin(unrest(set)),
    },
    Fault {
        id: "N3",
        what: "three servers killed together",
        pr: 1,
        nightly: 20,
        set: 4,
        inflict: |set| Box::pin(all_killed(set)),
    },
    Fault {
        id: "N4",
        what: "two of three servers down for 1 s to 10 s",
        pr: 2,
        nightly: 20,
        set: 4,
        inflict: |set| Box::pin(minority(set)),
    },
    Fault {
        id: "N9",
        what: "three servers stopped and started one after the other",
        pr: 3,
        nightly: 30,
        set: 6,
        inflict: |set| Box::pin(rolling(set)),
    },
];

/// Runs a workload while `strikes` controls the servers of the cluster.
async fn with_cluster(
    cluster: &mut Cluster,
    set: &mut Set,
    strikes: impl AsyncFnOnce(&mut Cluster, &mut Set),
) -> Ledger {
    let workload = cluster.fixture.workload(steady(set));
    work_during(workload, Box::pin(strikes(cluster, set))).await.0
}

async fn finish(cluster: &Cluster, ledger: &Ledger, set: &Set) -> Tally {
    cluster.wait_healed().await;
    conclude(&cluster.fixture, ledger, set).await
}

async fn unrest(mut set: Set) -> Tally {
    let mut cluster = Cluster::start().await;
    let mut daemon = cluster.daemon().start();
    daemon.wait_log("stream verified", DEADLINE).await;
    let ledger = with_cluster(&mut cluster, &mut set, async |cluster, set| {
        let admin = client(&cluster.urls()).await;
        for strike in 0..set.strikes {
            let_pass(Duration::from_millis(700)).await;
            step_down(&admin, &cluster.fixture.stream).await;
            // A server is killed after each third or fourth step-down, so every 2.5 s on average.
            if strike % 7 == 3 || strike % 7 == 6 {
                let victim = cluster.any(&mut set.random);
                victim.kill9().unwrap();
                pause(set, 100..=500).await;
                // The killed server is started again. The others are running already.
                for number in 0..3 {
                    cluster.node(number).start_again().await.unwrap();
                }
            }
        }
    })
    .await;
    finish(&cluster, &ledger, &set).await
}

async fn all_killed(mut set: Set) -> Tally {
    let mut cluster = Cluster::start().await;
    let mut daemon = cluster.daemon().start();
    daemon.wait_log("stream verified", DEADLINE).await;
    let ledger = with_cluster(&mut cluster, &mut set, async |cluster, set| {
        for _ in 0..set.strikes {
            pause(set, 1_000..=2_000).await;
            for number in 0..3 {
                cluster.node(number).kill9().unwrap();
            }
            pause(set, 500..=2_000).await;
            for number in 0..3 {
                cluster.node(number).start_again().await.unwrap();
            }
            cluster.wait_healed().await;
        }
    })
    .await;
    finish(&cluster, &ledger, &set).await
}

async fn minority(mut set: Set) -> Tally {
    let mut cluster = Cluster::start().await;
    let mut daemon = cluster.daemon().set("nats.ack_timeout", "1s").start();
    daemon.wait_log("stream verified", DEADLINE).await;
    let ledger = with_cluster(&mut cluster, &mut set, async |cluster, set| {
        for strike in 0..set.strikes {
            pause(set, 1_000..=2_000).await;
            let left = set.random.below(3) as usize;
            for number in (0..3).filter(|number| *number != left) {
                cluster.node(number).kill9().unwrap();
            }
            let seconds = if strike % 2 == 0 { 1 } else { set.random.between(3, 10) };
            let_pass(Duration::from_secs(seconds.into())).await;
            for number in 0..3 {
                cluster.node(number).start_again().await.unwrap();
            }
            cluster.wait_healed().await;
        }
    })
    .await;
    finish(&cluster, &ledger, &set).await
}

async fn rolling(mut set: Set) -> Tally {
    let mut cluster = Cluster::start().await;
    let mut daemon = cluster.daemon().start();
    daemon.wait_log("stream verified", DEADLINE).await;
    let first = Random::new(set.seed).below(3);
    let ledger = with_cluster(&mut cluster, &mut set, async |cluster, set| {
        for strike in 0..set.strikes {
            pause(set, 300..=1_000).await;
            let node = cluster.node(((first + strike) % 3) as usize);
            node.stop().await.unwrap();
            node.start_again().await.unwrap();
            cluster.wait_healed().await;
        }
    })
    .await;
    finish(&cluster, &ledger, &set).await
}
