//! Fault X1: program, servers and network fail in random order, also several at once.

use postrider::dev::{
    random::Random,
    servers::{Nats, NatsOptions, Postgres},
};

use super::network::{behind_nats, behind_postgres};
use crate::{
    fault::{Fault, Set, Tally},
    scene::{conclude, look_at_resources, pause, steady},
    support::{
        Fixture,
        audit::work_during,
        daemon::Daemon,
        postgres::without_two_phase_commit,
        proxy::{Mode, Modes, Proxy},
    },
};

use std::time::Duration;

pub(crate) const FAULTS: &[Fault] = &[Fault {
    id: "X1",
    what: "both servers behind bad lines, all of them killed, frozen and cut at random for 60 s",
    pr: 40,
    nightly: 1_200,
    set: 40,
    inflict: |set| Box::pin(chaos(set)),
}];

/// Program, servers and proxies that a strike may hit.
struct Victims<'a> {
    daemon: &'a mut Daemon,
    postgres: &'a mut Postgres,
    nats: &'a mut Nats,
    to_postgres: &'a Proxy,
    to_nats: &'a Proxy,
}

async fn chaos(mut set: Set) -> Tally {
    let mut fixture =
        Fixture::with(Some(without_two_phase_commit()), Some(NatsOptions::default())).await;
    let to_nats = Proxy::start(fixture.nats.port()).await.unwrap();
    let to_postgres = Proxy::start(fixture.postgres.port()).await.unwrap();
    let builder = behind_postgres(behind_nats(&fixture, &to_nats), &fixture, &to_postgres);
    let mut daemon = builder.start();
    let workload = fixture.workload(steady(&set));
    let mut victims = Victims {
        daemon: &mut daemon,
        postgres: fixture.postgres.own(),
        nats: fixture.nats.own(),
        to_postgres: &to_postgres,
        to_nats: &to_nats,
    };
    let strikes = async {
        for _ in 0..set.strikes {
            pause(&mut set, 200..=1_500).await;
            victims.strike(&mut set).await;
        }
        to_nats.set(Modes::PASS);
        to_postgres.set(Modes::PASS);
    };
    let (ledger, ()) = work_during(workload, strikes).await;
    let mut tally = conclude(&fixture, &ledger, &set).await;
    look_at_resources(&daemon, &mut tally);
    tally
}

impl Victims<'_> {
    /// Inflicts one random fault. A killed or frozen program or server works again when this
    /// returns; a proxy may keep its mode.
    async fn strike(&mut self, set: &mut Set) {
        match set.random.below(10) {
            0 => {
                self.daemon.kill9();
                pause(set, 0..=500).await;
                self.daemon.start_again();
            }
            1 => {
                self.nats.kill9().unwrap();
                pause(set, 0..=1_000).await;
                self.nats.start_again().await.unwrap();
            }
            2 => {
                self.postgres.kill9().unwrap();
                pause(set, 0..=1_000).await;
                self.postgres.start_again().await.unwrap();
            }
            3 => {
                self.nats.freeze().unwrap();
                pause(set, 100..=2_500).await;
                self.nats.thaw().unwrap();
            }
            4 => {
                self.daemon.freeze();
                pause(set, 100..=2_500).await;
                self.daemon.thaw();
            }
            5 => self.to_nats.cut(),
            6 => self.to_postgres.cut(),
            7 => self.to_nats.set(draw_modes(&mut set.random)),
            8 => self.to_postgres.set(draw_modes(&mut set.random)),
            _ => {
                self.to_nats.set(Modes::PASS);
                self.to_postgres.set(Modes::PASS);
            }
        }
    }
}

fn draw_modes(random: &mut Random) -> Modes {
    let mode = match random.below(7) {
        0 => Mode::Pass,
        1 => {
            let delay = Duration::from_millis(random.between(1, 200).into());
            Mode::Delay(delay, delay)
        }
        2 => Mode::Slice(random.between(1, 100) as usize),
        3 => Mode::Hole,
        4 => Mode::Hold,
        5 => Mode::Narrow(random.between(20_000, 500_000)),
        _ => Mode::CutAfter(random.between(100, 100_000).into()),
    };
    match random.below(3) {
        0 => Modes::both(mode),
        1 => Modes::to_server(mode),
        _ => Modes::to_client(mode),
    }
}
