//! Checks Postgres: whether it is reachable, writable and migrated, and whether the relay has the
//! privileges that it needs.

use std::borrow::Cow;

use super::{CheckItem, CheckResult, leadership};
use crate::{
    cli::exit::Exit,
    config::{Config, SinkKind},
    findings::{Severity, grantor},
    outbox::{
        Broken, ForeignPosition, Inspection, RelayProgress, Remedy, Rival, SESSION_SETTINGS,
        SessionLimit,
    },
    pg::{
        connect::{Connection, connect},
        error::{Class, QueryError},
        migrate::{ChangedFunction, FunctionChange, MigrateError, SchemaVersion},
        migrating,
        schema::Schema,
        session::Sharing,
    },
    relay::{RelayError, report::producers},
};

const POSTGRES: &str = "postgres";

/// The text of the finding that the relay connects through a connection pooler, with the drawbacks.
const POOLED: &str = "through a connection pooler: the relay polls every 25 poll_intervals while idle, plans \
                      each statement anew, and a crashed leader is replaced when its lease is over";

const SCHEMA: &str = "schema";
const SESSIONS: &str = "sessions";
const PRIVILEGES: &str = "privileges";
const RELAY: &str = "relay";
const CONTRACT: &str = "contract";
const FUNCTIONS: &str = "functions";

/// The findings about the database, and the progress of the relay when it could be read. The checks
/// end at a refusal that would make later ones fail too.
pub(super) async fn findings(config: &Config) -> (Vec<CheckItem>, Option<RelayProgress>) {
    let connection = match connect(&config.database, "check", &SESSION_SETTINGS).await {
        Ok(connection) => connection,
        Err(error) => {
            let finding = CheckItem::refused(POSTGRES, error.class().into(), error.to_string());
            return (vec![CheckItem { hint: error.hint().map(str::to_owned), ..finding }], None);
        }
    };
    let schema = Schema::from(&config.database.schema);
    let mut findings = Vec::new();
    findings.push(match server(&connection).await {
        Ok(text) => CheckItem::fine(POSTGRES, text),
        Err(error) => refused(POSTGRES, &error),
    });
    if connection.sharing() == Sharing::Shared {
        findings.push(CheckItem::fine(POSTGRES, POOLED).hint(
            "write the server's own address in database.url: then events arrive sooner and cost less",
        ));
    }
    let version = version(&connection, &schema).await;
    let is_denied = version.result == CheckResult::Refused(Exit::NoPermission);
    findings.push(version);
    if is_denied {
        findings.push(privileges(&Inspection::new(connection, schema)).await);
        return (findings, None);
    }
    if findings.iter().any(|finding| finding.result != CheckResult::Fine) {
        return (findings, None);
    }
    findings.extend(functions(&connection, &schema).await);
    // Behind a pooler the sessions are the pooler's, with limits of their own.
    let is_shared = connection.sharing() == Sharing::Shared;
    let (inspection, relay) = (Inspection::new(connection, schema), config.relay.name.as_str());
    findings.push(privileges(&inspection).await);
    if !is_shared {
        findings.extend(sessions(&inspection, config).await);
    }
    // When a statement has waited too long for a lock, further statements would wait too.
    let progress = match inspection.progress(relay).await {
        Ok(progress) => progress,
        Err(error) => {
            findings.push(refused(RELAY, &error));
            return (findings, None);
        }
    };
    findings.extend(cluster(&inspection, relay).await);
    findings.extend(contract(&inspection, relay).await);
    findings.push(holder(&inspection, relay).await);
    findings.extend(route(&inspection, config).await);
    findings.extend(match leadership::findings(&inspection, config).await {
        Ok(found) => found,
        Err(error) => vec![refused(RELAY, &error)],
    });
    (findings, progress)
}

async fn server(connection: &Connection) -> Result<String, QueryError> {
    let statement = "SELECT current_setting('server_version'), current_database(), current_user";
    let rows = connection.query(statement, &[]).await?;
    let row = rows.first().ok_or(QueryError::NoRow)?;
    let (version, database, user): (String, String, String) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    Ok(format!("version {version}, a primary; database {database} as {user}"))
}

async fn version(connection: &Connection, schema: &Schema) -> CheckItem {
    let name = schema.as_str();
    match migrating::version(connection, schema).await {
        Ok(SchemaVersion::Current(version)) => {
            CheckItem::fine(SCHEMA, format!("{name} has version {version}"))
        }
        Ok(SchemaVersion::Missing) => {
            CheckItem::refused(SCHEMA, Exit::Configuration, format!("{name} was never migrated"))
                .hint(migrate_hint(connection, schema).await)
        }
        Ok(SchemaVersion::Behind { have, supported }) => {
            let text = format!("{name} has version {have}, this program needs {supported}");
            CheckItem::refused(SCHEMA, Exit::Configuration, text)
                .hint(migrate_hint(connection, schema).await)
        }
        Ok(SchemaVersion::OtherFunctions) => {
            let text = format!("{name} does not have the functions of this program");
            CheckItem::refused(SCHEMA, Exit::Configuration, text)
                .hint(migrate_hint(connection, schema).await)
        }
        Ok(SchemaVersion::NewerFunctions { program }) => {
            let text = format!("{name} has the functions of postrider {program}");
            CheckItem::refused(SCHEMA, Exit::Configuration, text)
                .hint("install the newer postrider")
        }
        Ok(SchemaVersion::Newer { have, supported }) => {
            let text =
                format!("{name} has version {have}, this program supports up to {supported}");
            CheckItem::refused(SCHEMA, Exit::Configuration, text)
                .hint("install the newer postrider")
        }
        Err(error) => {
            let finding = CheckItem::refused(SCHEMA, error.class().into(), error.to_string());
            let is_old = matches!(error, MigrateError::OldServer { .. });
            let hint = if is_old { error.hint() } else { error.class().hint() };
            CheckItem { hint: hint.map(str::to_owned), ..finding }
        }
    }
}

/// Functions that are not as `postrider migrate` has installed them.
async fn functions(connection: &Connection, schema: &Schema) -> Vec<CheckItem> {
    let changed = match migrating::changed_functions(connection, schema).await {
        Ok(changed) => changed,
        Err(error) => {
            let finding = CheckItem::refused(FUNCTIONS, error.class().into(), error.to_string());
            return vec![CheckItem { hint: error.hint().map(str::to_owned), ..finding }];
        }
    };
    let hint = migrate_hint(connection, schema).await;
    let mut ungranted = 0;
    let mut findings = Vec::new();
    for ChangedFunction { signature, change } in changed {
        let what = match change {
            FunctionChange::Missing => "was dropped",
            FunctionChange::Altered => "was changed by hand",
            FunctionChange::Ungranted => {
                ungranted += 1;
                continue;
            }
        };
        let text = format!("{}.{signature} {what} since it was installed", schema.as_str());
        let hint = format!("{hint}: it installs the function again");
        findings.push(CheckItem::risky(FUNCTIONS, text).hint(hint));
    }
    if ungranted > 0 {
        let text = format!("grants of {ungranted} functions are missing, as after a restore");
        let hint = format!("{hint}: it grants them again");
        findings.push(CheckItem::risky(FUNCTIONS, text).hint(hint));
    }
    findings
}

/// The hint to migrate. It names the user to migrate as when the connected user may not.
async fn migrate_hint(connection: &Connection, schema: &Schema) -> String {
    match migrating::rightful(connection, schema).await {
        Ok(Some(who)) => format!("run `postrider migrate` as {who}: this user may not"),
        Ok(None) | Err(_) => "run `postrider migrate`".to_owned(),
    }
}

async fn privileges(inspection: &Inspection) -> CheckItem {
    let missing = match inspection.missing_privileges().await {
        Ok(missing) => missing,
        Err(error) => return refused(PRIVILEGES, &error),
    };
    if missing.is_empty() {
        return CheckItem::fine(PRIVILEGES, "the relay may do what it needs");
    }
    let list: Vec<String> =
        missing.iter().map(|it| format!("{} on {}", it.privilege, it.object)).collect();
    let mut statements: Vec<String> = missing.into_iter().map(|it| it.statement).collect();
    statements.dedup();
    CheckItem::refused(PRIVILEGES, Exit::NoPermission, format!("missing: {}", list.join(", ")))
        .hint(granting(&statements))
}

/// The findings about limits that leave too few sessions for a start. A start needs one session for
/// each route, one for the chores, and one for occasional work such as verifying the tables.
async fn sessions(inspection: &Inspection, config: &Config) -> Vec<CheckItem> {
    let limits = match inspection.session_limits().await {
        Ok(limits) => limits,
        Err(error) => return vec![refused(SESSIONS, &error)],
    };
    let needed = i64::try_from(config.relay.siblings.len()).unwrap_or(i64::MAX).saturating_add(2);
    let finding = |limit: SessionLimit| {
        let SessionLimit { what, max, now } = limit;
        let hint = format!("a start needs {needed} sessions: raise the limit, or give up others");
        if max < needed {
            let text = format!("{what} is {max}, and a start needs {needed} sessions");
            return Some(CheckItem::refused(SESSIONS, Exit::Configuration, text).hint(hint));
        }
        // The check's own session is among the open ones, and will be free again afterwards.
        let free = max - (now - 1);
        let text = format!("{what} is {max}, and {now} sessions are open");
        (free < needed).then(|| CheckItem::risky(SESSIONS, text).hint(hint))
    };
    limits.into_iter().filter_map(finding).collect()
}

/// The hint to run `GRANT` statements, with the role to run them as.
fn granting(statements: &[String]) -> String {
    let who = statements.first().map_or("", |first| grantor(first));
    format!("{who}: {}", statements.join("; "))
}

/// The finding about a position that another Postgres cluster made. A start refuses such a position
/// after a restore, but not after `pg_upgrade`.
async fn cluster(inspection: &Inspection, relay: &str) -> Option<CheckItem> {
    match inspection.foreign_position(relay).await {
        Ok(None) => None,
        Ok(Some(ForeignPosition::Upgraded)) => Some(CheckItem::fine(
            RELAY,
            "Postgres was upgraded by pg_upgrade: the relay goes on from its position",
        )),
        Ok(Some(ForeignPosition::Restored)) => {
            let text = RelayError::ForeignCluster.to_string();
            Some(CheckItem::refused(RELAY, Exit::Configuration, text))
        }
        Err(error) => Some(refused(RELAY, &error)),
    }
}

/// The findings about the tables: conditions that reading the outbox depends on, producers that
/// cannot insert events, and sessions that wait for locks.
async fn contract(inspection: &Inspection, relay: &str) -> Vec<CheckItem> {
    let broken = match inspection.broken_contract(relay).await {
        Ok(broken) => broken,
        Err(error) => return vec![refused(CONTRACT, &error)],
    };
    let finding = |it: Broken| match it.remedy {
        Remedy::Refuse => {
            CheckItem::refused(CONTRACT, Exit::Configuration, it.problem).hint(it.fix)
        }
        Remedy::Warn => CheckItem::risky(CONTRACT, it.problem).hint(it.fix),
        Remedy::Repair | Remedy::Restore => {
            let hint = format!("`postrider run` repairs it when it starts; by hand: {}", it.fix);
            CheckItem::risky(CONTRACT, it.problem).hint(hint)
        }
    };
    let mut findings: Vec<_> = broken.into_iter().map(finding).collect();
    match (inspection.hindered_producers().await, inspection.queue(relay).await) {
        (Ok(hindrances), Ok(queue)) => {
            let refused = producers::findings(&hindrances, None);
            findings.extend(refused.into_iter().zip(&hindrances).map(|(it, hindrance)| {
                let said = match it.severity {
                    Severity::Critical => {
                        CheckItem::refused(CONTRACT, Exit::NoPermission, it.cause)
                    }
                    Severity::Warning => CheckItem::risky(CONTRACT, it.cause),
                };
                said.hint(granting(&hindrance.statements))
            }));
            let waiting = producers::findings(&[], queue.as_ref());
            findings.extend(
                waiting.into_iter().map(|it| {
                    CheckItem::refused(CONTRACT, Exit::Unavailable, it.cause).hint(it.next)
                }),
            );
        }
        (Err(error), _) | (_, Err(error)) => findings.push(refused(CONTRACT, &error)),
    }
    if findings.is_empty() {
        findings.push(CheckItem::fine(CONTRACT, "the tables are as the relay needs them"));
    }
    findings
}

async fn holder(inspection: &Inspection, relay: &str) -> CheckItem {
    match inspection.leader(relay).await {
        Ok(None) => CheckItem::fine(RELAY, format!("nobody leads {relay}")),
        Ok(Some(leader)) => {
            let name = leader.holder;
            let text = format!("{relay} runs as {name}; a second one would stand by");
            CheckItem::fine(RELAY, text)
        }
        Err(error) => refused(RELAY, &error),
    }
}

/// The findings about a route that still runs with another number of shards, or whose filter takes
/// less than at the last run.
async fn route(inspection: &Inspection, config: &Config) -> Vec<CheckItem> {
    let (name, filter) = (&config.route.name, &config.route.filter);
    let mut findings = Vec::new();
    match inspection.rival((name, filter.shards())).await {
        Ok(Some(Rival { relay, holder })) => findings.push(
            CheckItem::refused(
                RELAY,
                Exit::Unavailable,
                format!("{relay} runs as {holder}: another number of shards of the same route"),
            )
            .hint("`postrider run` stands by until it stops; docs/scaling.md says how to change shards"),
        ),
        Ok(None) => {}
        Err(error) => findings.push(refused(RELAY, &error)),
    }
    // Unrouted events are only counted and never published, so a change of this filter costs no
    // event.
    if config.route.sink == SinkKind::Unrouted {
        return findings;
    }
    match inspection.passed_over(config.relay.name.as_str(), filter).await {
        Ok(Some(passed_over)) if !passed_over.is_none() => {
            let text = format!(
                "the filter takes less than at the last run: {passed_over}, would be passed over"
            );
            findings.push(CheckItem::risky(RELAY, text).hint(
                "an event that no other route takes is published by nobody: keep the types until \
                 nothing waits, or publish them later with `postrider reconcile --route NAME`",
            ));
        }
        Ok(_) => {}
        Err(error) => findings.push(refused(RELAY, &error)),
    }
    findings
}

fn refused(subject: &'static str, error: &QueryError) -> CheckItem {
    let class: Class = error.class();
    let finding = CheckItem::refused(subject, class.into(), error.to_string());
    CheckItem { hint: error.hint().map(Cow::into_owned), ..finding }
}
