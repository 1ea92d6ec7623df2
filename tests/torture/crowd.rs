//! Several instances of one relay, each with lines of its own to both servers, and who leads them.

use std::time::{Duration, Instant};

use postrider::dev::random::Random;
use tokio_postgres::Client;

use super::{
    fault::{Takeover, Tally},
    scene::{daemon, look_at_resources},
    support::{DEADLINE, Fixture, daemon::Daemon, eventually, let_pass, proxy::Proxy},
    witness::{Witness, least_out_of_turn},
};

/// The shortest lease that may be configured.
pub(crate) const LEASE: Duration = Duration::from_secs(3);

/// How soon another instance publishes when the leader stops: `docs/deployment.md`.
pub(crate) const HANDED_OVER_WITHIN: Duration = Duration::from_millis(900);

/// How soon another instance publishes when the leader crashes: `docs/deployment.md`.
pub(crate) const REPLACED_WITHIN: Duration = Duration::from_secs(2);

/// How soon another instance publishes when the leader falls silent: `docs/deployment.md`.
pub(crate) const LEASE_OVER_WITHIN: Duration = LEASE.saturating_add(REPLACED_WITHIN);

/// How much longer a takeover may last here: four faults, their servers and their writers share the
/// machine.
const SLACK: Duration = Duration::from_secs(2);

/// A standby says so in its log.
const STANDS_BY: &str = "another instance leads this relay";

/// Instances of one relay.
pub(crate) struct Crowd {
    pub(crate) instances: Vec<Instance>,
    witness: Witness,
    client: Client,
    takeovers: Vec<Takeover>,
    complaints: Vec<String>,
}

/// One instance, and its lines to both servers.
pub(crate) struct Instance {
    pub(crate) daemon: Daemon,
    pub(crate) postgres: Proxy,
    pub(crate) nats: Proxy,
    state: State,
    /// The log of its starts before the last one.
    past: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Up,
    Down,
    Frozen { since: Instant, led: bool },
}

/// A way to end a leader's work, and the time after which another instance has to publish.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strike {
    pub(crate) name: &'static str,
    pub(crate) bound: Duration,
}

impl Crowd {
    /// So many instances, one of which leads. They reach Postgres through this port of loopback.
    pub(crate) async fn start(fixture: &Fixture, count: usize, postgres_port: u16) -> Self {
        let witness = Witness::start(fixture).await;
        let client = fixture.connect().await;
        let mut instances = Vec::new();
        for _ in 0..count {
            instances.push(Instance::start(fixture, postgres_port).await);
        }
        let (takeovers, complaints) = (Vec::new(), Vec::new());
        let crowd = Self { instances, witness, client, takeovers, complaints };
        crowd.wait_leader().await;
        crowd
    }

    /// Waits until one of the instances leads.
    pub(crate) async fn wait_leader(&self) -> usize {
        eventually("an instance that leads", DEADLINE, async || self.leader().await).await
    }

    async fn leader(&self) -> Option<usize> {
        let asked = r#"SELECT holder FROM "postrider".position
            WHERE lease_until > clock_timestamp()"#;
        let row = self.client.query_opt(asked, &[]).await.unwrap()?;
        let holder: String = row.get(0);
        let leads = |instance: &Instance| {
            instance.state == State::Up
                && holder.ends_with(&format!(", process {}", instance.daemon.pid()))
        };
        self.instances.iter().position(leads)
    }

    /// Hides the leader's process, as if it ran on another machine.
    pub(crate) async fn hide_process(&self) {
        let hide = r#"UPDATE "postrider".position SET process = NULL"#;
        self.client.execute(hide, &[]).await.unwrap();
    }

    /// An instance that runs, at random.
    pub(crate) fn any_up(&self, random: &mut Random) -> usize {
        let up = self.places(|state| state == State::Up);
        let drawn = random.below(u32::try_from(up.len()).unwrap_or(0)) as usize;
        *up.get(drawn).expect("an instance that runs")
    }

    fn places(&self, wanted: impl Fn(State) -> bool) -> Vec<usize> {
        let found = self.instances.iter().enumerate().filter(|(_, one)| wanted(one.state));
        found.map(|(place, _)| place).collect()
    }

    /// Brings back instances that are down or frozen, at random, until so many run.
    pub(crate) async fn revive(&mut self, count: usize, random: &mut Random) {
        loop {
            let fallen = self.places(|state| state != State::Up);
            let up = self.instances.len() - fallen.len();
            let drawn = random.below(u32::try_from(fallen.len()).unwrap_or(0)) as usize;
            let Some(place) = fallen.get(drawn).filter(|_| up < count) else { return };
            self.instances[*place].revive().await;
        }
    }

    /// Waits until another instance publishes than the one that was struck at `at`. Returns when.
    pub(crate) async fn wait_replaced(&self, struck: usize, at: Instant) -> Instant {
        let line = &self.instances[struck].nats;
        eventually("a publish of another instance than the leader", DEADLINE, async || {
            self.witness.first_since(at, |inbox| !line.knows_inbox(inbox))
        })
        .await
    }

    /// Waits until any instance publishes after a moment. Returns when.
    pub(crate) async fn wait_published(&self, at: Instant) -> Instant {
        eventually("a publish", DEADLINE, async || self.witness.first_since(at, |_| true)).await
    }

    /// When an instance published last.
    pub(crate) fn last_publish(&self, place: usize) -> Instant {
        let line = &self.instances[place].nats;
        self.witness.last(|inbox| line.knows_inbox(inbox)).expect("a leader that has published")
    }

    /// Notes how long it took until the relay published again.
    pub(crate) fn note(&mut self, Strike { name, bound }: Strike, took: Duration) {
        self.takeovers.push(Takeover { name, took, bound });
        if took > bound + SLACK {
            let text =
                format!("{name}: published again after {took:?}, at most {bound:?} + {SLACK:?}");
            self.complaints.push(text);
        }
    }

    /// Notes what is wrong.
    pub(crate) fn complain(&mut self, complaint: Option<String>) {
        self.complaints.extend(complaint);
    }

    /// Reports what there was to see. So many publishes may be out of turn at most.
    pub(crate) fn testify(self, late_max: u64, tally: &mut Tally) {
        let (late, complaint) = self.out_of_turn();
        let too_many = late > late_max;
        tally.complain(complaint);
        tally.complain(
            too_many.then(|| {
                format!("{late} publishes after another instance led, at most {late_max}")
            }),
        );
        tally.complain(self.takeovers.is_empty().then(|| "nobody took over".to_owned()));
        for instance in self.instances.iter().filter(|one| one.state == State::Up) {
            look_at_resources(&instance.daemon, tally);
        }
        tally.late += late;
        tally.takeovers.extend(self.takeovers);
        tally.complaints.extend(self.complaints);
    }

    /// Publishes so far that came after a later leader's.
    pub(crate) fn late(&self) -> u64 {
        self.out_of_turn().0
    }

    /// Publishes that came after a later leader's, and what is wrong with the counting of them.
    fn out_of_turn(&self) -> (u64, Option<String>) {
        let owner = |inbox: &str| self.instances.iter().position(|one| one.nats.knows_inbox(inbox));
        let mut runs = Vec::new();
        for (inbox, count) in self.witness.turns() {
            let Some(owner) = owner(&inbox) else {
                return (0, Some(format!("{count} publishes of nobody, inbox {inbox}")));
            };
            runs.push((owner, count));
        }
        let mut terms: Vec<(u64, usize)> = Vec::new();
        for (place, instance) in self.instances.iter().enumerate() {
            terms.extend(instance.terms().into_iter().map(|term| (term, place)));
        }
        terms.sort_unstable();
        let twice = terms.windows(2).find(|pair| pair[0].0 == pair[1].0);
        let complaint = twice.map(|pair| format!("two instances had term {}", pair[0].0));
        let leaders: Vec<usize> = terms.into_iter().map(|(_, place)| place).collect();
        (least_out_of_turn(&runs, &leaders), complaint)
    }
}

impl Instance {
    async fn start(fixture: &Fixture, postgres_port: u16) -> Self {
        let postgres = Proxy::start(postgres_port).await.unwrap();
        let nats = Proxy::start(fixture.nats.port()).await.unwrap();
        let port = |port: u16| format!(":{port}/");
        let url = fixture.database_url();
        let daemon = daemon(fixture)
            .set("relay.lease", format!("{}s", LEASE.as_secs()))
            .set(
                "database.url",
                url.replace(&port(fixture.postgres.port()), &port(postgres.port())),
            )
            .set("nats.url", format!("nats://127.0.0.1:{}", nats.port()))
            .start();
        Self { daemon, postgres, nats, state: State::Up, past: String::new() }
    }

    /// `kill -9`.
    pub(crate) fn kill9(&mut self) {
        self.daemon.kill9();
        self.state = State::Down;
    }

    /// SIGSTOP of one that stands by, until it is revived.
    pub(crate) fn freeze(&mut self) {
        self.daemon.freeze();
        self.state = State::Frozen { since: Instant::now(), led: false };
    }

    /// SIGSTOP of the leader: its watchdog may end it when it is revived.
    pub(crate) fn freeze_leader(&mut self) {
        self.daemon.freeze();
        self.state = State::Frozen { since: Instant::now(), led: true };
    }

    /// Waits for the end of a program that was asked to stop. Complains when it did not end well.
    pub(crate) async fn stopped(&mut self) -> Option<String> {
        let code = self.daemon.wait_exit(DEADLINE).await;
        self.state = State::Down;
        (code != Some(0)).then(|| format!("SIGTERM ended in {code:?}"))
    }

    /// Starts it again, or lets it go on once it was frozen for longer than a lease.
    async fn revive(&mut self) {
        match self.state {
            State::Up => return,
            State::Down => {
                self.past += &self.daemon.log();
                self.daemon.start_again();
            }
            State::Frozen { since, led } => {
                let frozen_for = LEASE + Duration::from_millis(500);
                let_pass(frozen_for.saturating_sub(since.elapsed())).await;
                let log = self.daemon.log();
                if !led {
                    self.daemon.thaw();
                } else if self.daemon.thaw_at_work(STANDS_BY, DEADLINE).await {
                    // Its watchdog has ended it, and it was started again.
                    self.past += &log;
                }
            }
        }
        self.state = State::Up;
    }

    /// How often it has said that it stands by since its last start.
    pub(crate) fn standbys(&self) -> usize {
        self.daemon.log().matches(STANDS_BY).count()
    }

    /// Waits until it has said once more that it stands by.
    pub(crate) async fn wait_stands_by(&self, before: usize) {
        eventually("an instance that stands by", DEADLINE, async || self.standbys() > before).await;
    }

    /// The terms that it had.
    fn terms(&self) -> Vec<u64> {
        let log = self.past.clone() + &self.daemon.log();
        let term = |line: &str| {
            let (_, rest) = line.split_once("relaying term=")?;
            rest.split(' ').next()?.parse().ok()
        };
        log.lines().filter_map(term).collect()
    }
}
