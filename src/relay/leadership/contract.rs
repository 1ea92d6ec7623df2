//! Contract with the outbox: conditions that the reader rests on, verified at each start and each
//! minute. A broken condition is repaired, or the relay refuses to run and names it.
//!
//! The conditions concern the sequence of `outbox.seq`, the defaults and partitions of the table,
//! its triggers and indexes; `docs/guarantees.md` lists them. When one breaks while the relay runs,
//! `watch` ends the holding. The next holding finds it broken again, and `verify` deals with it.

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

/// Interval at which a running relay verifies the contract.
const INTERVAL: Duration = Duration::from_mins(1);

/// Verdict of a verification.
pub(in crate::relay) enum ContractVerdict {
    /// Every condition is met, or the broken ones need no action.
    Sound,
    /// A condition was repaired, which ended the term: the lease is acquired again over another
    /// session.
    Repaired,
    /// An operator has to act. The text has the problem and the fix.
    Refused(String),
}

/// Finding about a broken condition.
pub fn finding(broken: &Broken) -> Finding {
    let severity = match broken.remedy {
        Remedy::Restore => Severity::Warning,
        Remedy::Repair | Remedy::Warn | Remedy::Refuse => Severity::Critical,
    };
    findings::contract(severity, &broken.problem, &broken.fix)
}

/// Notes in the status the broken conditions that the relay does not repair.
fn note(status: &watch::Sender<Status>, broken: &[Broken]) {
    let is_left = |it: &&Broken| matches!(it.remedy, Remedy::Warn | Remedy::Refuse);
    let findings: Vec<_> = broken.iter().filter(is_left).map(finding).collect();
    status.send_if_modified(|status| {
        let is_news = status.broken != findings;
        status.broken = findings;
        is_news
    });
}

/// Verifies the contract before anything is read, and repairs what can be repaired.
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
            "accepted rows of another Postgres cluster, as --rescan asks: they got transaction numbers of this cluster, and are published unless the stream has them"
        );
        return Ok(ContractVerdict::Repaired);
    }
    for warning in texts(&broken, Remedy::Warn) {
        warn!("{warning}");
    }
    if !broken.iter().any(|it| it.remedy == Remedy::Repair) {
        if broken.iter().any(|it| it.remedy == Remedy::Restore) {
            outbox.restore_wake().await?;
            log_restored(&broken);
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
            "{problem}: repaired; rows that were inserted since the last check of the tables are read again, and the stream recognises those that it has",
            problem = it.problem
        );
    }
    if !uncertain.is_empty() {
        warn!(
            relays = ?uncertain,
            hint = "run `postrider audit`; `postrider reconcile` publishes what the stream lacks",
            "events that were inserted since the last check of the tables may have been passed over: the named relays will not find them by themselves"
        );
    }
    Ok(ContractVerdict::Repaired)
}

fn log_restored(broken: &[Broken]) {
    for it in broken.iter().filter(|it| it.remedy == Remedy::Restore) {
        warn!(code = it.code, "{problem}: repaired", problem = it.problem);
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
    /// Warnings that were logged already.
    warned: Vec<String>,
}

impl Watched {
    /// A flow that was not verified yet.
    pub fn new(settings: RelaySettings, status: Arc<watch::Sender<Status>>) -> Self {
        Self { settings, status, warned: Vec::new() }
    }
}

/// Verifies the contract of each running flow every minute, over a short session. Wakes
/// [`RelaySettings::recheck`] of a flow with a broken condition.
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
            // A failure of Postgres is reported by the relay's own session, so this check logs it
            // for debugging only.
            Err(error) => {
                debug!(%error, "could not check the outbox's tables; they are checked again in a minute");
                continue;
            }
        };
        for flow in running {
            match broken_now(&inspection, flow).await {
                Ok(problems) if problems.is_empty() => {}
                Ok(problems) => {
                    warn!(
                        "{problems}; the relay stops leading for a moment and repairs this first",
                        problems = problems.join("; ")
                    );
                    flow.settings.recheck.notify_one();
                }
                Err(error) => {
                    debug!(%error, "could not check the outbox's tables; they are checked again in a minute");
                }
            }
        }
        if let Err(error) = shards::spread(&inspection, &flows).await {
            debug!(%error, "could not read which instances lead the shards");
        }
    }
}

/// Returns the problems that need a new holding. A missing trigger is restored here at once, and
/// each warning is logged once.
async fn broken_now(
    inspection: &Inspection,
    flow: &mut Watched,
) -> Result<Vec<String>, QueryError> {
    let broken = inspection.verify_contract(&flow.settings.relay).await?;
    note(&flow.status, &broken);
    if broken.iter().any(|it| it.remedy == Remedy::Restore) {
        inspection.restore_wake().await?;
        log_restored(&broken);
    }
    let warnings = texts(&broken, Remedy::Warn);
    for warning in warnings.iter().filter(|it| !flow.warned.contains(it)) {
        warn!("{warning}");
    }
    flow.warned = warnings;
    let is_ours = |it: &&Broken| matches!(it.remedy, Remedy::Repair | Remedy::Refuse);
    Ok(broken.iter().filter(is_ours).map(|it| it.problem.clone()).collect())
}
