//! Status of a relay: its progress and its findings, read from the database, whether or not it
//! runs.

use serde::Serialize;

use super::{
    DatabaseError, contract, inspect,
    leadership::{Leadership, RelayState},
};
use crate::{
    config::Config,
    findings::{self, Finding, RelayFacts},
    outbox::{Inspection, Losses, RelayProgress, SESSION_SETTINGS},
    pg::error::QueryError,
    relay::report::{
        producers,
        status::{blocker, blocker_of},
    },
};

/// Progress of one relay. A figure that could not be measured is `None`.
#[derive(Debug, Serialize)]
pub struct RelayStatus {
    /// The relay's name.
    pub relay: String,
    /// State of the relay.
    pub state: RelayState,
    /// The instance that leads.
    pub leader: Option<StatusLeader>,
    /// The fencing number of the last holding.
    pub term: Option<i64>,
    /// Start of the last holding, as ISO 8601.
    pub acquired_at: Option<String>,
    /// Time at which the position was last written, as ISO 8601.
    pub settled_at: Option<String>,
    /// The stream that the last acknowledgement came from.
    pub stream: Option<String>,
    /// Stream sequence of the last acknowledgement.
    pub stream_seq: Option<i64>,
    /// Number of events that are still to be published.
    pub backlog: Option<u64>,
    /// Age of the oldest event that is still to be published, in seconds; 0 when there is no such
    /// event.
    pub lag_seconds: Option<f64>,
    /// Number of letters that are tried again.
    pub retrying: Option<u64>,
    /// Number of letters that wait for an operator.
    pub dead_letters: Option<u64>,
    /// Number of letters that wait behind another letter of their key.
    pub held: Option<u64>,
    /// Upper bound of the published events that are gone from the stream and the outbox.
    pub lost: u64,
    /// Reason why the relay publishes nothing, in the words of its leader.
    pub note: Option<String>,
    /// Seconds since the leader reported under its term.
    pub reported_seconds_ago: Option<f64>,
    /// Everything that is wrong, the worst first.
    pub findings: Vec<Finding>,
    /// Position of the relay, as read for this status; `None` when the relay has never run.
    #[serde(skip)]
    pub progress: Option<RelayProgress>,
    /// Age of the oldest event that is still to be published, in seconds; `None` when there is no
    /// such event.
    #[serde(skip)]
    pub oldest_seconds: Option<f64>,
}

/// The instance that leads.
#[derive(Debug, Serialize)]
pub struct StatusLeader {
    /// Host and process of the leader.
    pub name: String,
    /// The server process of the leader's session; `None` behind a pooler.
    pub backend_pid: Option<i32>,
}

/// The answers of the database that have come so far.
struct Asked {
    leadership: Leadership,
    losses: Losses,
    facts: RelayFacts,
}

/// Progress of the configured relay.
///
/// # Errors
/// The errors of the session. A wait for the lock of another session is no error, but a finding.
pub async fn status(config: &Config) -> Result<RelayStatus, DatabaseError> {
    let inspection = inspect(config, "status", &SESSION_SETTINGS).await?;
    let leadership = Leadership::unknown(config.relay.name.as_str());
    let (losses, facts) = (Losses::default(), RelayFacts::default());
    let mut asked = Asked { leadership, losses, facts };
    if let Err(error) = asked.ask(&inspection, config).await {
        // Further statements would wait for the same lock, so the status ends here.
        let Some(blocker) = blocker_of(&error) else { return Err(error.into()) };
        asked.facts.blocker = Some(blocker);
    }
    Ok(asked.status())
}

impl Asked {
    /// Asks the database for everything. The query for blocking locks comes first, because it needs
    /// no lock itself.
    async fn ask(&mut self, inspection: &Inspection, config: &Config) -> Result<(), QueryError> {
        let relay = config.relay.name.as_str();
        let queue = inspection.queue(relay).await?;
        let facts = &mut self.facts;
        facts.blocker =
            queue.as_ref().filter(|queue| queue.ours > 0).map(|queue| blocker(&queue.by));
        facts.alarms = producers::findings(&[], queue.as_ref());
        self.leadership = Leadership::ask(inspection, relay).await?;
        facts.depth = inspection.depth(relay).await?;
        self.losses = inspection.losses(relay).await?;
        let hindrances = inspection.hindered_producers().await?;
        facts.alarms.extend(producers::findings(&hindrances, None));
        facts.alarms.extend(contract::broken(inspection, relay).await?);
        let retention = config.relay.retention.0.as_secs_f64();
        let relays = inspection.relays().await?;
        let ours = &config.relay.siblings;
        let stranded = relays.iter().filter(|row| row.has_stranded_letters(ours));
        facts.alarms.extend(stranded.map(|row| findings::stranded(&row.relay, row.letters)));
        facts.abandoned = relays
            .into_iter()
            .filter(|row| row.is_abandoned(ours, retention))
            .map(|row| (row.relay, row.idle_seconds))
            .collect();
        Ok(())
    }

    fn status(self) -> RelayStatus {
        let Self { leadership, losses, facts } = self;
        let (depth, oldest_seconds) =
            (facts.depth, facts.depth.and_then(|depth| depth.oldest_seconds));
        let lost = findings::lost(losses.events, losses.noticed_at.as_deref());
        let findings = findings::of(&RelayFacts {
            alarms: facts.alarms.into_iter().chain(lost).collect(),
            depth,
            oldest_seconds: oldest_seconds.unwrap_or_default(),
            blocker: facts.blocker,
            abandoned: facts.abandoned,
            ..leadership.facts()
        });
        let (state, note) = (leadership.state(), leadership.note().map(str::to_owned));
        let Leadership { relay, leader, progress, .. } = leadership;
        let position = progress.as_ref();
        let reported = position.filter(|position| position.report.is_some());
        RelayStatus {
            relay,
            state,
            leader: leader.map(|it| StatusLeader { name: it.holder, backend_pid: it.backend_pid }),
            term: position.map(|position| position.term),
            acquired_at: position.map(|position| position.acquired_at.clone()),
            settled_at: position.map(|position| position.updated_at.clone()),
            stream: position.and_then(|position| position.stream.clone()),
            stream_seq: position.map(|position| position.stream_seq),
            backlog: depth.map(|depth| depth.backlog()),
            lag_seconds: depth.map(|_| oldest_seconds.unwrap_or_default()),
            retrying: depth.map(|depth| depth.retrying),
            dead_letters: depth.map(|depth| depth.dead),
            held: depth.map(|depth| depth.held),
            lost: losses.events,
            note,
            reported_seconds_ago: reported.map(|position| position.silent_seconds),
            findings,
            progress,
            oldest_seconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_status_of_a_relay_that_nobody_could_ask_about_has_every_key() {
        let finding = findings::stranded("old", 1);
        let facts = RelayFacts { alarms: vec![finding.clone()], ..RelayFacts::default() };
        let expected = json!({
            "relay": "default",
            "state": "unknown",
            "leader": null,
            "term": null,
            "acquired_at": null,
            "settled_at": null,
            "stream": null,
            "stream_seq": null,
            "backlog": null,
            "lag_seconds": null,
            "retrying": null,
            "dead_letters": null,
            "held": null,
            "lost": 0,
            "note": null,
            "reported_seconds_ago": null,
            "findings": [{
                "code": "dead_letters",
                "severity": "warning",
                "cause": finding.cause,
                "next": finding.next,
            }],
        });
        let (leadership, losses) = (Leadership::unknown("default"), Losses::default());
        let status = Asked { leadership, losses, facts }.status();
        assert_eq!(serde_json::to_value(status).unwrap(), expected);
    }
}
