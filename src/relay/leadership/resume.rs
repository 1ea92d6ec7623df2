//! Resumption: from a lease that was just taken to a holding that begins at the stored position.

use std::{collections::HashSet, sync::Arc, time::Instant};

use tracing::{info, warn};

use super::{acquire::NotYet, contract};
use crate::{
    clock,
    config::{Wake, routes::UNROUTED},
    delivery::{Delivery, EarlierRun, Lease, Resume, StreamMark},
    event::{Position, Seq},
    failpoint,
    outbox::{Acquired, Authority, Course, FilterChange, Outbox, PassedOver, PositionOrigin},
    pg::{error::QueryError, session::Sharing},
    relay::{
        RelaySettings,
        holding::{
            Holding, OutboxPlace, letters,
            reader::{OutboxReader, PollIntervals},
        },
        log::BrokerLog,
        report::Reporter,
    },
};

/// Result of resuming.
pub(super) enum Resumed {
    Holding(Box<Holding>),
    /// The position was made in another cluster, and `--rescan` was not given.
    Foreign,
    /// A condition of the contract is broken, and an operator has to act.
    Refused(String),
    /// The position was accepted or repaired. The lease is acquired again, over another session.
    Rescanned,
}

/// Resumes at the position that came with the lease. `asked` is when the lease was asked for.
pub(super) async fn resume(
    (settings, report): (&RelaySettings, &Reporter),
    log: &mut BrokerLog,
    outbox: Arc<Outbox>,
    (acquired, asked): (Acquired, Instant),
) -> Result<Resumed, NotYet> {
    let outside = OutboxPlace {
        database: settings.database.clone(),
        schema: settings.schema.clone(),
        relay: settings.relay.clone(),
    };
    failpoint::pass("held");
    if acquired.origin == PositionOrigin::AnotherCluster {
        return from_elsewhere(&outbox, &outside, acquired.term, settings).await;
    }
    match contract::verify(&outbox, &outside, settings, &report.status).await? {
        contract::ContractVerdict::Sound => {}
        contract::ContractVerdict::Repaired => return Ok(Resumed::Rescanned),
        contract::ContractVerdict::Refused(text) => return Ok(Resumed::Refused(text)),
    }
    if let Some(FilterChange { passed_over }) = outbox.note_filter(acquired.term).await? {
        report_filter(passed_over, &settings.route);
    }
    // Behind a pooler no notification arrives.
    let may_sleep = settings.wake == Wake::Gated && outbox.sharing() == Sharing::Own;
    let notified = may_sleep && acquired.notifies;
    if notified {
        outbox.listen().await?;
    }
    let Acquired { term, position, fence, sent_to, stream, stream_identity, course, .. } = acquired;
    let published = acquired.published;
    let lettered = match course {
        Course::Onward => HashSet::new(),
        Course::Again => outbox.lettered().await?,
    };
    // The stored sequences count only for the stream that they were stored for. With another stream
    // the relay begins without any.
    let ours = stream_identity.filter(|(name, _)| *name == settings.stream.name);
    let stream = if ours.is_some() { stream } else { StreamMark::default() };
    info!(term, stream_seq = stream.acked, "relaying");
    let now = clock::now();
    let created = ours.and_then(|(_, created)| created);
    let earlier = earlier(term, &position, course, (fence, sent_to));
    let earlier = with_rivals(earlier, &outbox, settings).await?;
    let scan_above = (earlier != EarlierRun::None).then_some(stream.floor);
    log.begin(created, scan_above, now);
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
        stream_created: log.identity(),
        published,
        on_dead: settings.rules.on_dead,
        letter_bytes_max: settings.letter_bytes_max,
        lease: settings.candidate.length,
    };
    report.leads(term);
    let reader = OutboxReader::new(pace, now);
    let lease = Lease::taken(settings.candidate.length, asked, now);
    let holding =
        Holding::new((outbox, outside), (authority, lease), delivery, (reader, letters), fence);
    Ok(Resumed::Holding(Box::new(holding)))
}

/// Extends the earlier run to any row when the route has rivals, which are relays with another
/// number of shards. A rival may have published events above this relay's sent bound.
async fn with_rivals(
    earlier: EarlierRun,
    outbox: &Outbox,
    settings: &RelaySettings,
) -> Result<EarlierRun, QueryError> {
    let route = (settings.route.as_str(), settings.filter.shards());
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

/// Logs that the route takes other events than before.
///
/// The flow of the unrouted events passes over the events that a new route takes. That is wanted,
/// so it is logged without a warning.
fn report_filter(passed_over: Option<PassedOver>, route: &str) {
    if passed_over.is_some_and(PassedOver::is_none) || route == UNROUTED {
        info!(
            "the filter of the route has changed; the new one applies from here on, and the table audit has the old one"
        );
        return;
    }
    let count = passed_over.map_or_else(
        || "waiting events of the other types, which could not be counted in time".to_owned(),
        |passed_over| passed_over.to_string(),
    );
    warn!(
        hint = "an event that no other route takes is published by nobody: to publish these, take \
                their types again, then `postrider reconcile --route NAME`",
        "the filter of the route has changed, so that it passes over {count}; the table audit has \
         the old filter"
    );
}

/// Handles a position that was made in another cluster.
async fn from_elsewhere(
    outbox: &Outbox,
    outside: &OutboxPlace,
    term: i64,
    settings: &RelaySettings,
) -> Result<Resumed, NotYet> {
    if outbox.take_over_upgrade(term).await? {
        info!("Postgres was upgraded by pg_upgrade; the relay goes on from its position");
        return Ok(Resumed::Rescanned);
    }
    if !settings.rescan {
        return Ok(Resumed::Foreign);
    }
    let pending = outside.repair().await?.rescan(term).await?;
    warn!(
        pending,
        "accepted a restored database, as --rescan asks; the events that it has not settled are published unless the stream has them"
    );
    Ok(Resumed::Rescanned)
}

/// Earlier run whose events the log may contain without our knowing. In its first pass a relay may
/// read rows that a relay of another name has published. After a healing it reads again rows that
/// it has published itself.
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
