//! Acquisition of a holding: a session, a schema that fits, the lease, the position.

use std::{
    borrow::Cow,
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use thiserror::Error;
use tokio::time::sleep;
use tracing::{info, warn};
use uuid::Uuid;

use super::{
    RELEASE_MAX, Relay, RelayError, Settings, chores, contract,
    holding::{Holding, OutboxPlace},
    letters, process,
    reader::{PollIntervals, Reader},
    status::{Heartbeat, Link, Phase, blocker_of},
};
use crate::{
    clock,
    config::{Wake, routes::UNROUTED},
    delivery::{Backoff, Delivery, EarlierRun, HEARD_WITHIN, LEASE_MAX, Lease, Resume, StreamMark},
    event::{Position, Seq},
    failpoint,
    metrics::Dependency,
    outbox::{
        Acquired, Authority, Course, FilterChange, Leader, LeaderSession, LeaseEnd, Outbox,
        PassedOver, PositionOrigin, Rival, SESSION_SETTINGS,
    },
    pg::{
        connect::{ConnectError, connect},
        error::{Class, QueryError},
        migrate::{MigrateError, SchemaVersion},
        migrating::version_within,
        session::Sharing,
    },
};

/// The waits between attempts to get a session.
const CONNECT: Backoff =
    Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(2) };

/// How often an instance that stands by asks who leads. With what it measures that is less than one
/// statement a second, over one session.
const STANDBY: Duration = Duration::from_millis(1100);

/// How long after its session was seen to have ended a leader that lives hands nothing over any
/// more: it has to be heard of within less, and a turn that comes late counts as nothing heard.
const NOTICES_WITHIN: Duration = HEARD_WITHIN.saturating_add(Duration::from_millis(100));

/// Interval at which the same failure is logged again.
const REMIND: Duration = Duration::from_secs(30);

/// Why there is no holding yet.
#[derive(Debug, Error)]
pub(super) enum NotYet {
    #[error("{0}")]
    Connect(#[from] ConnectError),
    #[error("{0}")]
    Query(#[from] QueryError),
    #[error("{0}")]
    Migrate(#[from] MigrateError),
    #[error("the schema \"{schema}\" is {state}; run `postrider migrate`")]
    Schema { schema: String, state: &'static str },
}

impl Relay {
    /// Waits for the right to run this relay. `None` when asked to stop while waiting.
    pub(super) async fn hold(&mut self) -> Result<Option<Holding>, RelayError> {
        let mut failures = 0;
        let mut reminded: Option<(String, Instant)> = None;
        loop {
            let shutdown = self.shutdown.clone();
            let heartbeat = self.heartbeat.clone();
            let attempt = tokio::select! {
                attempt = self.try_hold() => attempt?,
                never = keep_turning(&heartbeat) => never,
                () = shutdown.stopping() => return Ok(None),
            };
            let error = match attempt {
                Ok(holding) => {
                    self.status.send_modify(|status| status.held_up = None);
                    return Ok(Some(holding));
                }
                Err(error) => error,
            };
            failures += 1;
            let text = error.to_string();
            let now = clock::now();
            self.heartbeat.turn(now);
            let hint = hint(&error);
            if reminded.as_ref().is_none_or(|(said, at)| *said != text || *at + REMIND <= now) {
                warn!(error = %text, hint = hint.as_deref(), "waiting for Postgres");
                reminded = Some((text.clone(), now));
            }
            self.metrics.dependencies.lost(Dependency::Postgres);
            let held_up = match &error {
                NotYet::Query(error) => blocker_of(error),
                NotYet::Connect(_) | NotYet::Migrate(_) | NotYet::Schema { .. } => None,
            };
            self.status.send_modify(|status| {
                let hint = hint.map(Cow::into_owned);
                status.postgres = Link::Down { detail: text, hint };
                status.held_up = held_up;
            });
            tokio::select! {
                () = sleep(CONNECT.after(failures)) => {}
                () = shutdown.stopping() => return Ok(None),
            }
        }
    }

    async fn try_hold(&mut self) -> Result<Result<Holding, NotYet>, RelayError> {
        let outbox = match self.open().await? {
            Ok(outbox) => outbox,
            Err(error) => return Ok(Err(error)),
        };
        self.metrics.dependencies.connected(Dependency::Postgres);
        self.status.send_modify(|status| status.postgres = Link::Up);
        let (acquired, asked) = match self.wait_for_lease(&outbox).await {
            Ok(acquired) => acquired,
            Err(error) => return Ok(Err(error.into())),
        };
        let (term, taken_by) = (acquired.term, Arc::clone(&outbox));
        let taken = self.take(outbox, acquired, asked).await;
        if matches!(taken, Ok(TakenPosition::Foreign | TakenPosition::Refused(_)) | Err(_)) {
            // It ends by itself otherwise.
            drop(tokio::time::timeout(RELEASE_MAX, taken_by.release(term)).await);
        }
        match taken {
            Ok(TakenPosition::Holding(holding)) => Ok(Ok(*holding)),
            Ok(TakenPosition::Foreign) => Err(RelayError::ForeignCluster),
            Ok(TakenPosition::Refused(text)) => Err(RelayError::Contract(text)),
            Ok(TakenPosition::Rescanned) => Box::pin(self.try_hold()).await,
            Err(error) => Ok(Err(error)),
        }
    }

    /// Opens a session whose schema fits this binary.
    async fn open(&self) -> Result<Result<Arc<Outbox>, NotYet>, RelayError> {
        let settings = &self.settings;
        // The server gives a session up that is cut off, but not before the leader has stopped
        // trusting its lease: a standby takes over when it sees the session gone.
        let silent = format!("{}s", settings.candidate.length.as_secs().max(10));
        let own = [("tcp_user_timeout", silent.as_str()), ("tcp_keepalives_idle", silent.as_str())];
        let session = [&SESSION_SETTINGS[..], &own].concat();
        let purpose = format!("relay/{}", settings.relay);
        let connection = match connect(&settings.database, &purpose, &session).await {
            Ok(connection) => connection.measured(self.metrics.outbox.queries()),
            Err(error) => return Ok(Err(error.into())),
        };
        let schema = settings.schema.as_str().to_owned();
        let after = settings.database.query_timeout.0;
        let asked = version_within(&connection, &settings.schema, after).await;
        let Some(asked) = asked else { return Ok(Err(QueryError::Timeout { after }.into())) };
        match asked {
            Ok(SchemaVersion::Current(_)) => {}
            Ok(SchemaVersion::Missing) => {
                return Ok(Err(NotYet::Schema { schema, state: "not there" }));
            }
            Ok(SchemaVersion::Behind { .. }) => {
                return Ok(Err(NotYet::Schema { schema, state: "older than this program" }));
            }
            Ok(SchemaVersion::OtherFunctions) => {
                let state = "without the functions of this program";
                return Ok(Err(NotYet::Schema { schema, state }));
            }
            Ok(SchemaVersion::NewerFunctions { program }) => {
                return Err(RelayError::NewerFunctions { schema, program });
            }
            Ok(SchemaVersion::Newer { have, supported }) => {
                return Err(RelayError::NewerSchema { schema, have, supported });
            }
            Err(error @ MigrateError::OldServer { .. }) => {
                return Err(RelayError::OldServer(error));
            }
            Err(error) => return Ok(Err(error.into())),
        }
        let of = (settings.relay.clone(), settings.filter.clone());
        let limits = Arc::clone(&self.row_limits);
        let outbox = Outbox::open(connection, settings.schema.clone(), of, limits).await;
        Ok(outbox.map_err(NotYet::from))
    }

    /// Waits until the lease is ours. Returns the position with it, and the time of the statement.
    ///
    /// The protocol is in `docs/leadership.md`.
    async fn wait_for_lease(&mut self, outbox: &Outbox) -> Result<(Acquired, Instant), QueryError> {
        outbox.listen_for_lease().await?;
        let instance = self.settings.candidate.instance;
        let mut seen_gone: Option<EndedSession> = None;
        let mut figures = chores::Standby::default();
        loop {
            let leader = outbox.leader().await?;
            let gone =
                seen_gone.as_ref().and_then(|gone: &EndedSession| gone.is_certain(clock::now()));
            let claim = claim(leader.as_ref(), instance, gone);
            let wait = match claim {
                Claim::Free { ended } => {
                    let asked = clock::now();
                    match self.acquire(outbox, ended).await? {
                        Ok(acquired) => {
                            self.metrics.dependencies.leading();
                            return Ok((acquired, asked));
                        }
                        Err(wait) => wait,
                    }
                }
                Claim::Doubtful { term } => {
                    let seen_gone = EndedSession::of(&mut seen_gone, term);
                    (seen_gone + NOTICES_WITHIN).saturating_duration_since(clock::now())
                }
                Claim::Led { left } => left.map_or(STANDBY, |left| left.min(STANDBY)),
            };
            if leader.as_ref().is_some_and(|leader| leader.end == LeaseEnd::TooLate)
                && outbox.shorten_lease().await?
            {
                warn_of_overlong_lease();
            }
            if let Some(leader) = leader.filter(Leader::leads) {
                self.stands_by(&leader.holder);
            }
            if self.status.borrow().phase == Phase::Standby {
                figures.measure(outbox, &self.status, &self.metrics).await?;
            }
            tokio::select! {
                () = sleep(wait) => {}
                () = outbox.notified() => {}
            }
        }
    }

    /// Takes the lease, unless another instance was faster, or the route is led with another number
    /// of shards; then it tells how long to wait.
    ///
    /// Whoever has taken a lease asks for rivals once more: of two that took theirs at the same
    /// time neither had seen the other. Before that it ends the terms of those that are late.
    async fn acquire(
        &self,
        outbox: &Outbox,
        ended: Option<i64>,
    ) -> Result<Result<Acquired, Duration>, QueryError> {
        let Settings { route, filter, candidate, .. } = &self.settings;
        let route = (route.as_str(), filter.shards());
        // Two that let go of what keeps the other back do so at times of their own.
        let [draw, ..] = candidate.instance.into_bytes();
        let wait = STANDBY + STANDBY * u32::from(draw) / 256;
        if let Some(rival) = outbox.rival(route).await? {
            if outbox.shorten_rivals(route).await? {
                warn_of_overlong_lease();
            }
            self.stands_by_for(&rival);
            return Ok(Err(wait));
        }
        let Some(acquired) = outbox.acquire(candidate, ended).await? else {
            return Ok(Err(STANDBY));
        };
        let rival = match outbox.fence_rivals(route).await {
            Ok(()) => outbox.rival(route).await,
            Err(error) => Err(error),
        };
        match rival {
            Ok(None) => Ok(Ok(acquired)),
            Ok(Some(rival)) => {
                outbox.release(acquired.term).await?;
                self.stands_by_for(&rival);
                Ok(Err(wait))
            }
            Err(error) => {
                // The other number of shards would wait for the lease to end.
                drop(outbox.release(acquired.term).await);
                Err(error)
            }
        }
    }

    /// The earlier run, with the events that another number of shards may have published above its
    /// bound.
    async fn with_rivals(
        &self,
        earlier: EarlierRun,
        outbox: &Outbox,
    ) -> Result<EarlierRun, QueryError> {
        let route = (self.settings.route.as_str(), self.settings.filter.shards());
        match earlier {
            EarlierRun::Some { sent_to } if outbox.has_rivals(route).await? => {
                Ok(EarlierRun::AnyRow { sent_to })
            }
            EarlierRun::None
            | EarlierRun::Some { .. }
            | EarlierRun::OtherRelays
            | EarlierRun::AnyRow { .. } => Ok(earlier),
        }
    }

    /// Another instance leads the route, with another number of shards.
    fn stands_by_for(&self, Rival { relay, holder }: &Rival) {
        let by = format!("{holder}, as {relay}");
        if self.becomes_standby(&by) {
            warn!(
                relay,
                leader = holder,
                hint =
                    "stop every instance that has the other number of shards, see docs/scaling.md",
                "the route is led with another number of shards; standing by until that ends"
            );
        }
    }

    /// Another instance leads.
    fn stands_by(&self, leader: &str) {
        if self.becomes_standby(leader) {
            info!(leader, "another instance leads this relay; standing by");
        }
    }

    /// Whether that is news.
    fn becomes_standby(&self, leader: &str) -> bool {
        self.metrics.dependencies.standing_by();
        self.status.send_if_modified(|status| {
            let is_news =
                status.phase != Phase::Standby || status.leader.as_deref() != Some(leader);
            status.phase = Phase::Standby;
            status.leader = Some(leader.to_owned());
            status.led_at = clock::now();
            status.lease = self.settings.candidate.length;
            is_news
        })
    }

    async fn take(
        &mut self,
        outbox: Arc<Outbox>,
        acquired: Acquired,
        asked: Instant,
    ) -> Result<TakenPosition, NotYet> {
        let settings = &self.settings;
        let outside = OutboxPlace {
            database: settings.database.clone(),
            schema: settings.schema.clone(),
            relay: settings.relay.clone(),
        };
        failpoint::pass("held");
        if acquired.origin == PositionOrigin::AnotherCluster {
            return from_elsewhere(&outbox, &outside, acquired.term, settings).await;
        }
        match contract::verify(&outbox, &outside, settings, &self.status).await? {
            contract::ContractVerdict::Sound => {}
            contract::ContractVerdict::Repaired => return Ok(TakenPosition::Rescanned),
            contract::ContractVerdict::Refused(text) => return Ok(TakenPosition::Refused(text)),
        }
        if let Some(FilterChange { passed_over }) = outbox.note_filter(acquired.term).await? {
            report_filter(passed_over, &self.settings.route);
        }
        // Behind a pooler nobody can be notified.
        let may_sleep = settings.wake == Wake::Gated && outbox.sharing() == Sharing::Own;
        let notified = may_sleep && acquired.notifies;
        if notified {
            outbox.listen().await?;
        }
        let Acquired { term, position, fence, sent_to, stream, stream_identity, course, .. } =
            acquired;
        let published = acquired.published;
        let lettered = match course {
            Course::Onward => HashSet::new(),
            Course::Again => outbox.lettered().await?,
        };
        // What is known of another stream says nothing about this one.
        let ours = stream_identity.filter(|(name, _)| *name == settings.stream.name);
        let stream = if ours.is_some() { stream } else { StreamMark::default() };
        info!(term, stream_seq = stream.acked, "relaying");
        let now = clock::now();
        let created = ours.and_then(|(_, created)| created);
        let earlier = earlier(term, &position, course, (fence, sent_to));
        let earlier = self.with_rivals(earlier, &outbox).await?;
        let scan_above = (earlier != EarlierRun::None).then_some(stream.floor);
        self.broker.begin(created, scan_above, now);
        let pace = PollIntervals {
            poll_interval: settings.poll_interval,
            idle_interval: settings.idle_interval,
            notified,
        };
        let letters = letters::LetterSchedule::new(pace, settings.rules.retry.max_delay, now);
        let resume = Resume { position, lettered, stream, earlier, sent_to };
        let delivery = Delivery::resume(resume, settings.limits, settings.rules, now);
        let authority = Authority {
            term,
            stream: settings.stream.name.clone(),
            stream_created: self.broker.identity(),
            published,
            on_dead: settings.rules.on_dead,
            letter_bytes_max: settings.letter_bytes_max,
            lease: settings.candidate.length,
        };
        self.status.send_modify(|status| {
            status.phase = Phase::Relaying;
            status.failed = None;
            status.leader = None;
            status.term = term;
        });
        let reader = Reader::new(pace, now);
        let lease = Lease::taken(settings.candidate.length, asked, now);
        let holding =
            Holding::new((outbox, outside), (authority, lease), delivery, (reader, letters), fence);
        Ok(TakenPosition::Holding(Box::new(holding)))
    }
}

fn warn_of_overlong_lease() {
    warn!(
        hint = "has somebody changed the position by hand, or was the server's clock ahead?",
        "the lease was longer than any instance takes one for; it ends in {} now",
        humantime::format_duration(LEASE_MAX)
    );
}

/// Says that the route takes other events than before.
///
/// What the events without a route gave up, a route has taken.
fn report_filter(passed_over: Option<PassedOver>, route: &str) {
    if passed_over.is_some_and(PassedOver::is_none) || route == UNROUTED {
        info!("the route takes other events from here on; the audit has what it took before");
        return;
    }
    let count = passed_over.map_or_else(
        || "what waited of the others, which could not be counted in time".to_owned(),
        |passed_over| passed_over.to_string(),
    );
    warn!(
        hint = "an event that no other route takes is published by nobody: to publish these, take \
                their types again, then `postrider reconcile --route NAME`",
        "the route takes other events from here on, and passes over {count}; the audit has what it \
         took before"
    );
}

/// Handles a position that was made in another cluster.
async fn from_elsewhere(
    outbox: &Outbox,
    outside: &OutboxPlace,
    term: i64,
    settings: &Settings,
) -> Result<TakenPosition, NotYet> {
    if outbox.take_over_upgrade(term).await? {
        info!("Postgres was upgraded by pg_upgrade: the relay goes on where it was");
        return Ok(TakenPosition::Rescanned);
    }
    if !settings.rescan {
        return Ok(TakenPosition::Foreign);
    }
    let pending = outside.repair().await?.rescan(term).await?;
    warn!(pending, "accepted a restored database: what was not settled is published");
    Ok(TakenPosition::Rescanned)
}

/// The options that an instance has about the lease.
#[derive(Debug, PartialEq, Eq)]
enum Claim {
    /// No instance leads, or this very process did before; or the session of that term has ended.
    Free { ended: Option<i64> },
    /// The leader's session has ended, and the leader may not have noticed yet.
    Doubtful { term: i64 },
    /// Another instance leads.
    Led { left: Option<Duration> },
}

/// A session of a leader that was seen to have ended.
struct EndedSession {
    term: i64,
    seen: Instant,
}

impl EndedSession {
    /// When the session of this term was seen to have ended first.
    fn of(seen: &mut Option<Self>, term: i64) -> Instant {
        let known = seen.take().filter(|gone| gone.term == term);
        seen.insert(known.unwrap_or_else(|| Self { term, seen: clock::now() })).seen
    }

    /// The term, once a leader that lives has noticed too. A notification changes nothing about
    /// that.
    fn is_certain(&self, now: Instant) -> Option<i64> {
        (now >= self.seen + NOTICES_WITHIN).then_some(self.term)
    }
}

/// The option of `instance`; `seen_gone` is the term whose session has certainly ended.
fn claim(leader: Option<&Leader>, instance: Uuid, seen_gone: Option<i64>) -> Claim {
    let Some(leader) = leader.filter(|leader| leader.leads()) else {
        return Claim::Free { ended: None };
    };
    if leader.instance == Some(instance) {
        return Claim::Free { ended: None };
    }
    if leader.process.as_deref().is_some_and(process::has_ended) {
        return Claim::Free { ended: Some(leader.term) };
    }
    match leader.session {
        LeaderSession::Gone if seen_gone == Some(leader.term) => {
            Claim::Free { ended: Some(leader.term) }
        }
        LeaderSession::Gone => Claim::Doubtful { term: leader.term },
        LeaderSession::Alive | LeaderSession::Unknown => Claim::Led { left: leader.left },
    }
}

/// Waiting is a way of being alive.
async fn keep_turning<T>(heartbeat: &Heartbeat) -> T {
    loop {
        heartbeat.turn(clock::now());
        sleep(STANDBY).await;
    }
}

/// Earlier run whose events may be in the log without our knowing. In its first pass a relay
/// may meet any row that another name has published, and a healing meets all that it publishes
/// again.
fn earlier(
    term: i64,
    position: &Position,
    course: Course,
    (drawn, sent_to): (Seq, Seq),
) -> EarlierRun {
    if term == 1 {
        return if drawn == Seq(0) { EarlierRun::None } else { EarlierRun::OtherRelays };
    }
    if position.is_first_pass() || course == Course::Again {
        return EarlierRun::AnyRow { sent_to };
    }
    EarlierRun::Some { sent_to }
}

/// Result of taking the position.
enum TakenPosition {
    Holding(Box<Holding>),
    /// The position was made in another cluster, and no `--rescan` accepts that.
    Foreign,
    /// A condition of the contract is broken, and an operator has to act.
    Refused(String),
    /// The position was accepted or repaired; acquire again, with another session.
    Rescanned,
}

fn hint(error: &NotYet) -> Option<Cow<'static, str>> {
    match error {
        NotYet::Connect(error) => error.hint().map(Cow::Borrowed),
        NotYet::Query(error) => error.hint(),
        NotYet::Migrate(error) => error.class().hint().map(Cow::Borrowed),
        NotYet::Schema { .. } => Class::Schema.hint().map(Cow::Borrowed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leader(session: LeaderSession, left: Option<u64>) -> Leader {
        Leader {
            term: 7,
            holder: "host, process 1".to_owned(),
            instance: Some(Uuid::from_u128(1)),
            process: None,
            left: left.map(Duration::from_secs),
            backend_pid: Some(1),
            session,
            is_locked: false,
            end: LeaseEnd::Plausible,
        }
    }

    /// A notification, which anybody may send, let a standby take over at once.
    #[test]
    fn a_session_is_certainly_gone_only_after_its_leader_has_noticed() {
        let mut seen = None;
        let first = EndedSession::of(&mut seen, 7);
        let gone = seen.as_ref().unwrap();
        assert_eq!(gone.is_certain(first + NOTICES_WITHIN / 2), None);
        assert_eq!(gone.is_certain(first + NOTICES_WITHIN), Some(7));
        assert_eq!(EndedSession::of(&mut seen, 7), first, "it was seen again");
        assert!(EndedSession::of(&mut seen, 8) >= first);
        assert_eq!(seen.unwrap().term, 8);
    }

    #[test]
    fn a_lease_is_free_when_it_is_over_or_ours_or_its_session_was_seen_gone_twice() {
        let other = Uuid::from_u128(2);
        let free = Claim::Free { ended: None };
        assert_eq!(claim(None, other, None), free);
        assert_eq!(claim(Some(&leader(LeaderSession::Alive, None)), other, None), free);
        assert_eq!(
            claim(Some(&leader(LeaderSession::Alive, Some(5))), Uuid::from_u128(1), None),
            free
        );
        for session in [LeaderSession::Alive, LeaderSession::Unknown] {
            let led = Claim::Led { left: Some(Duration::from_secs(5)) };
            assert_eq!(claim(Some(&leader(session, Some(5))), other, Some(7)), led);
        }
        let gone = leader(LeaderSession::Gone, Some(5));
        assert_eq!(claim(Some(&gone), other, None), Claim::Doubtful { term: 7 });
        assert_eq!(claim(Some(&gone), other, Some(6)), Claim::Doubtful { term: 7 });
        assert_eq!(claim(Some(&gone), other, Some(7)), Claim::Free { ended: Some(7) });
        let locked = Leader { is_locked: true, ..leader(LeaderSession::Unknown, None) };
        assert_eq!(claim(Some(&locked), other, None), Claim::Led { left: None });
    }
}
