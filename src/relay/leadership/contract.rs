//! Contract of the reader with the outbox: verified at each start and each minute, and repaired or
//! refused by name.
//!
//! The sequence of `outbox.seq`, the defaults and the partitions of the table, its triggers and
//! indexes: `docs/guarantees.md` lists them. When one breaks while the relay runs, `watch` ends
//! the holding, and the next one finds the same thing broken and deals with it in `verify`.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::sleep};
use tracing::{debug, warn};

use super::{acquire::NotYet, shards};
use crate::{
    findings::{self, Finding, Severity},
    outbox::{Broken, Inspection, Outbox, Remedy, Repaired, SESSION_SETTINGS},
    pg::{connect::connect, error::QueryError},
    relay::{
        RelaySettings,
        holding::OutboxPlace,
        report::status::{Phase, Status},
    },
    shutdown::Shutdown,
};

/// How often a running relay verifies what it rests on.
const INTERVAL: Duration = Duration::from_mins(1);

/// Verdict of a verification.
pub(in crate::relay) enum ContractVerdict {
    /// Every condition holds, or none that matters is broken.
    Sound,
    /// Something was repaired and the term is gone: acquire again, with another session.
    Repaired,
    /// An operator has to act; the text says what is wrong and what to do.
    Refused(String),
}

/// A condition that does not hold, as a finding.
pub fn finding(broken: &Broken) -> Finding {
    let severity = match broken.remedy {
        Remedy::Restore => Severity::Warning,
        Remedy::Repair | Remedy::Warn | Remedy::Refuse => Severity::Critical,
    };
    findings::contract(severity, &broken.problem, &broken.fix)
}

/// Shows in the status what the relay does not repair itself.
fn note(status: &watch::Sender<Status>, broken: &[Broken]) {
    let is_left = |it: &&Broken| matches!(it.remedy, Remedy::Warn | Remedy::Refuse);
    let findings: Vec<_> = broken.iter().filter(is_left).map(finding).collect();
    status.send_if_modified(|status| {
        let is_news = status.broken != findings;
        status.broken = findings;
        is_news
    });
}

/// Verifies the conditions before anything is read, and repairs what can be repaired.
pub(in crate::relay) async fn verify(
    outbox: &Outbox,
    outside: &OutboxPlace,
    settings: &RelaySettings,
    status: &watch::Sender<Status>,
) -> Result<ContractVerdict, NotYet> {
    let broken = outbox.verify_contract().await?;
    note(status, &broken);
    let refused = texts(&broken, Remedy::Refuse);
    if !refused.is_empty() {
        return Ok(ContractVerdict::Refused(refused.join("; ")));
    }
    if settings.rescan && broken.iter().any(|it| it.code == Broken::FOREIGN_ROWS) {
        let adopted = outside.repair().await?.adopt_rows().await?;
        warn!(
            rows = adopted,
            "gave rows of another cluster numbers of this one; they are published"
        );
        return Ok(ContractVerdict::Repaired);
    }
    for warning in texts(&broken, Remedy::Warn) {
        warn!("{warning}");
    }
    if !broken.iter().any(|it| it.remedy == Remedy::Repair) {
        if broken.iter().any(|it| it.remedy == Remedy::Restore) {
            outbox.restore_wake().await?;
            tell_restored(&broken);
        }
        return Ok(ContractVerdict::Sound);
    }
    let Repaired { renumbered, put_back, uncertain } =
        outside.repair().await?.repair_contract().await?;
    for it in broken.iter().filter(|it| it.remedy == Remedy::Repair) {
        warn!(
            code = it.code,
            renumbered,
            read_again = ?put_back,
            "{}: repaired, and what was inserted since the last verification is read again",
            it.problem
        );
    }
    if !uncertain.is_empty() {
        warn!(
            relays = ?uncertain,
            hint = "run `postrider audit`; `postrider reconcile` publishes what the stream lacks",
            "events that were inserted while that was so may have been passed over"
        );
    }
    Ok(ContractVerdict::Repaired)
}

fn tell_restored(broken: &[Broken]) {
    for it in broken.iter().filter(|it| it.remedy == Remedy::Restore) {
        warn!(code = it.code, "{}: repaired", it.problem);
    }
}

fn texts(broken: &[Broken], remedy: Remedy) -> Vec<String> {
    let text = |it: &Broken| format!("{}; fix: {}", it.problem, it.fix);
    broken.iter().filter(|it| it.remedy == remedy).map(text).collect()
}

/// A flow whose conditions are verified while it runs.
#[derive(Debug)]
pub struct Watched {
    /// Settings of the flow.
    pub settings: RelaySettings,
    /// Status of the flow.
    pub status: Arc<watch::Sender<Status>>,
    /// Conditions that were warned of.
    warned: Vec<String>,
}

impl Watched {
    /// A flow of which nothing was found out yet.
    pub fn new(settings: RelaySettings, status: Arc<watch::Sender<Status>>) -> Self {
        Self { settings, status, warned: Vec::new() }
    }
}

/// Verifies the conditions each minute while a flow runs, in a session of a moment's life, and
/// wakes [`RelaySettings::recheck`] of the flow for which one is broken.
pub async fn watch(mut flows: Vec<Watched>, shutdown: Shutdown) {
    loop {
        tokio::select! {
            () = sleep(INTERVAL) => {}
            () = shutdown.stopping() => return,
        }
        let runs = |flow: &&mut Watched| flow.status.borrow().phase == Phase::Relaying;
        let mut running = flows.iter_mut().filter(runs).peekable();
        let Some(first) = running.peek() else { continue };
        let RelaySettings { database, schema, .. } = &first.settings;
        let inspection = match connect(database, "contract", &SESSION_SETTINGS).await {
            Ok(connection) => Inspection::new(connection, schema.clone()),
            // The relay's own session shows what is the matter with Postgres.
            Err(error) => {
                debug!(%error, "could not verify what the relay rests on");
                continue;
            }
        };
        for flow in running {
            match broken_now(&inspection, flow).await {
                Ok(problems) if problems.is_empty() => {}
                Ok(problems) => {
                    warn!("{}; the relay starts anew to deal with it", problems.join("; "));
                    flow.settings.recheck.notify_one();
                }
                Err(error) => debug!(%error, "could not verify what the relay rests on"),
            }
        }
        if let Err(error) = shards::spread(&inspection, &flows).await {
            debug!(%error, "could not find out who leads the shards");
        }
    }
}

/// Conditions that the relay has to treat itself. A trigger is restored here, and each warning is
/// given once.
async fn broken_now(
    inspection: &Inspection,
    flow: &mut Watched,
) -> Result<Vec<String>, QueryError> {
    let broken = inspection.verify_contract(&flow.settings.relay).await?;
    note(&flow.status, &broken);
    if broken.iter().any(|it| it.remedy == Remedy::Restore) {
        inspection.restore_wake().await?;
        tell_restored(&broken);
    }
    let warnings = texts(&broken, Remedy::Warn);
    for warning in warnings.iter().filter(|it| !flow.warned.contains(it)) {
        warn!("{warning}");
    }
    flow.warned = warnings;
    let is_ours = |it: &&Broken| matches!(it.remedy, Remedy::Repair | Remedy::Refuse);
    Ok(broken.iter().filter(is_ours).map(|it| it.problem.clone()).collect())
}
