//! Several instances of one relay, each with proxies of its own to Postgres and NATS. The tests
//! follow which of them leads.

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

/// Promised time from a leader's stop to the first publish of another instance
/// (`docs/deployment.md`).
pub(crate) const HANDED_OVER_WITHIN: Duration = Duration::from_millis(900);

/// Promised time from a leader's crash to the first publish of another instance
/// (`docs/deployment.md`).
pub(crate) const REPLACED_WITHIN: Duration = Duration::from_secs(2);

/// Promised time from a leader's last sign of life to the first publish of another instance
/// (`docs/deployment.md`).
pub(crate) const LEASE_OVER_WITHIN: Duration = LEASE.saturating_add(REPLACED_WITHIN);

/// Time that a takeover may last longer in this suite, because four faults with their servers and
/// writers share the machine.
const SLACK: Duration = Duration::from_secs(2);

/// Log line of an instance that waits for the leader's lease to end.
const STANDS_BY: &str = "another instance leads this relay";

/// Instances of one relay, with a witness of their publishes.
pub(crate) struct Crowd {
    pub(crate) instances: Vec<Instance>,
    witness: Witness,
    client: Client,
    takeovers: Vec<Takeover>,
    complaints: Vec<String>,
}

/// An instance, with its proxies to Postgres and NATS.
pub(crate) struct Instance {
    pub(crate) daemon: Daemon,
    pub(crate) postgres: Proxy,
    pub(crate) nats: Proxy,
    state: State,
    /// Log of all starts but the last.
    past: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Up,
    Down,
    Frozen { since: Instant, led: bool },
}

/// A way to end a leader's work, and the promised time until another instance publishes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strike {
    pub(crate) name: &'static str,
    pub(crate) bound: Duration,
}

impl Crowd {
    /// Starts `count` instances, and waits until one leads. They connect to Postgres through this
    /// port.
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

    /// Waits until an instance leads. Returns its place in `instances`.
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

    /// Removes the leader's process from the position, as if it ran on another machine where nobody
    /// can see it.
    pub(crate) async fn hide_process(&self) {
        let hide = r#"UPDATE "postrider".position SET process = NULL"#;
        self.client.execute(hide, &[]).await.unwrap();
    }

    /// Place of a running instance, chosen at random.
    pub(crate) fn any_up(&self, random: &mut Random) -> usize {
        let up = self.places(|state| state == State::Up);
        let drawn = random.below(u32::try_from(up.len()).unwrap_or(0)) as usize;
        *up.get(drawn).expect("an instance that runs")
    }

    fn places(&self, wanted: impl Fn(State) -> bool) -> Vec<usize> {
        let found = self.instances.iter().enumerate().filter(|(_, one)| wanted(one.state));
        found.map(|(place, _)| place).collect()
    }

    /// Starts or thaws instances that are down or frozen, in random order, until `count` instances
    /// run.
    pub(crate) async fn revive(&mut self, count: usize, random: &mut Random) {
        loop {
            let fallen = self.places(|state| state != State::Up);
            let up = self.instances.len() - fallen.len();
            let drawn = random.below(u32::try_from(fallen.len()).unwrap_or(0)) as usize;
            let Some(place) = fallen.get(drawn).filter(|_| up < count) else { return };
            self.instances[*place].revive().await;
        }
    }

    /// Waits until an instance other than `struck` publishes after the moment `at`. Returns the
    /// time of that publish.
    pub(crate) async fn wait_replaced(&self, struck: usize, at: Instant) -> Instant {
        let line = &self.instances[struck].nats;
        eventually("a publish of another instance than the leader", DEADLINE, async || {
            self.witness.first_since(at, |inbox| !line.knows_inbox(inbox))
        })
        .await
    }

    /// Waits until any instance publishes after the moment `at`. Returns the time of that publish.
    pub(crate) async fn wait_published(&self, at: Instant) -> Instant {
        eventually("a publish", DEADLINE, async || self.witness.first_since(at, |_| true)).await
    }

    /// Time of an instance's last publish.
    pub(crate) fn last_publish(&self, place: usize) -> Instant {
        let line = &self.instances[place].nats;
        self.witness.last(|inbox| line.knows_inbox(inbox)).expect("a leader that has published")
    }

    /// Records how long a takeover took. Complains when it took longer than the bound and the
    /// slack.
    pub(crate) fn note(&mut self, Strike { name, bound }: Strike, took: Duration) {
        self.takeovers.push(Takeover { name, took, bound });
        if took > bound + SLACK {
            let text =
                format!("{name}: published again after {took:?}, at most {bound:?} + {SLACK:?}");
            self.complaints.push(text);
        }
    }

    /// Records a complaint, if there is one.
    pub(crate) fn complain(&mut self, complaint: Option<String>) {
        self.complaints.extend(complaint);
    }

    /// Adds the takeovers and complaints to the tally. At most `late_max` publishes may have come
    /// from an instance whose term was over.
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

    /// Number of publishes so far that came after a later leader had begun to publish.
    pub(crate) fn late(&self) -> u64 {
        self.out_of_turn().0
    }

    /// Number of publishes that came after a later leader had begun to publish. The text is a
    /// complaint when they could not be counted.
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

    /// Kills the program with SIGKILL.
    pub(crate) fn kill9(&mut self) {
        self.daemon.kill9();
        self.state = State::Down;
    }

    /// Freezes a standby with SIGSTOP, until it is revived.
    pub(crate) fn freeze(&mut self) {
        self.daemon.freeze();
        self.state = State::Frozen { since: Instant::now(), led: false };
    }

    /// Freezes the leader with SIGSTOP. When it is thawed, its watchdog may end it.
    pub(crate) fn freeze_leader(&mut self) {
        self.daemon.freeze();
        self.state = State::Frozen { since: Instant::now(), led: true };
    }

    /// Waits until a program has ended that was asked to stop. Complains when its exit code is not
    /// 0.
    pub(crate) async fn stopped(&mut self) -> Option<String> {
        let code = self.daemon.wait_exit(DEADLINE).await;
        self.state = State::Down;
        (code != Some(0)).then(|| format!("SIGTERM ended in {code:?}"))
    }

    /// Starts a program that is down. A frozen one is thawed, once it was frozen for longer than a
    /// lease.
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
                    // The watchdog has ended the program, which was then started again.
                    self.past += &log;
                }
            }
        }
        self.state = State::Up;
    }

    /// Number of log lines since the last start that say that the instance stands by.
    pub(crate) fn standbys(&self) -> usize {
        self.daemon.log().matches(STANDS_BY).count()
    }

    /// Waits until the log has more lines than `before` that say that the instance stands by.
    pub(crate) async fn wait_stands_by(&self, before: usize) {
        eventually("an instance that stands by", DEADLINE, async || self.standbys() > before).await;
    }

    /// Terms that the instance has had as the leader, from its log.
    fn terms(&self) -> Vec<u64> {
        let log = self.past.clone() + &self.daemon.log();
        let term = |line: &str| {
            let (_, rest) = line.split_once("relaying term=")?;
            rest.split(' ').next()?.parse().ok()
        };
        log.lines().filter_map(term).collect()
    }
}
