//! Postgres: reachable and writable, migrated, and ours to use.

use super::{CheckResult, Finding, standing};
use crate::{
    cli::exit::Exit,
    config::Config,
    outbox::{Broken, ForeignPosition, Inspection, Remedy, SESSION_SETTINGS},
    pg::{
        connect::{Connection, connect},
        error::{Class, QueryError},
        migrate::{self, MigrateError, SchemaVersion},
        schema::Schema,
        session::Sharing,
    },
    relay::RelayError,
};

const POSTGRES: &str = "postgres";

/// What a pooler costs.
const POOLED: &str = "through a connection pooler: the relay polls every 25 poll_intervals while idle, plans \
                      each statement anew, and a crashed leader is replaced when its lease is over";

const SCHEMA: &str = "schema";
const PRIVILEGES: &str = "privileges";
const RELAY: &str = "relay";
const CONTRACT: &str = "contract";

/// What there is to say; it ends with the first refusal, because the rest would follow from it.
pub(super) async fn findings(config: &Config) -> Vec<Finding> {
    let connection = match connect(&config.database, "check", &SESSION_SETTINGS).await {
        Ok(connection) => connection,
        Err(error) => {
            let finding = Finding::refused(POSTGRES, error.class().into(), error.to_string());
            return vec![Finding { hint: error.hint().map(str::to_owned), ..finding }];
        }
    };
    let schema = Schema::from(&config.database.schema);
    let mut findings = Vec::new();
    findings.push(match server(&connection).await {
        Ok(text) => Finding::fine(POSTGRES, text),
        Err(error) => refused(POSTGRES, &error),
    });
    if connection.sharing() == Sharing::Shared {
        findings.push(Finding::fine(POSTGRES, POOLED).hint(
            "name the server itself for a database.url whose events come sooner and cost less",
        ));
    }
    let version = version(&connection.client, &schema).await;
    let is_denied = version.result == CheckResult::Refused(Exit::NoPermission);
    findings.push(version);
    if is_denied {
        findings.push(privileges(&Inspection::new(connection, schema)).await);
        return findings;
    }
    if findings.iter().all(|finding| finding.result == CheckResult::Fine) {
        let inspection = Inspection::new(connection, schema);
        findings.push(privileges(&inspection).await);
        let relay = config.relay.name.as_str();
        findings.extend(cluster(&inspection, relay).await);
        findings.extend(contract(&inspection, relay).await);
        findings.push(holder(&inspection, relay).await);
        findings.extend(match standing::findings(&inspection, relay).await {
            Ok(found) => found,
            Err(error) => vec![refused(RELAY, &error)],
        });
    }
    findings
}

async fn server(connection: &Connection) -> Result<String, QueryError> {
    let statement = "SELECT current_setting('server_version'), current_database(), current_user";
    let rows = connection.query(statement, &[]).await?;
    let row = rows.first().ok_or(QueryError::NoRow)?;
    let (version, database, user): (String, String, String) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    Ok(format!("version {version}, a primary; database {database} as {user}"))
}

async fn version(client: &tokio_postgres::Client, schema: &Schema) -> Finding {
    let name = schema.as_str();
    match migrate::version(client, schema).await {
        Ok(SchemaVersion::Current(version)) => {
            Finding::fine(SCHEMA, format!("{name} has version {version}"))
        }
        Ok(SchemaVersion::Missing) => {
            Finding::refused(SCHEMA, Exit::Configuration, format!("{name} was never migrated"))
                .hint(migrate_hint(client, schema).await)
        }
        Ok(SchemaVersion::Behind { have, know }) => {
            let text = format!("{name} has version {have}, this program needs {know}");
            Finding::refused(SCHEMA, Exit::Configuration, text)
                .hint(migrate_hint(client, schema).await)
        }
        Ok(SchemaVersion::Newer { have, know }) => {
            let text = format!("{name} has version {have}, this program knows {know}");
            Finding::refused(SCHEMA, Exit::Configuration, text).hint("install the newer postrider")
        }
        Err(error) => {
            let finding = Finding::refused(SCHEMA, error.class().into(), error.to_string());
            let is_old = matches!(error, MigrateError::OldServer { .. });
            let hint = if is_old { error.hint() } else { error.class().hint() };
            Finding { hint: hint.map(str::to_owned), ..finding }
        }
    }
}

/// What to run, and as whom when it may not be this user.
async fn migrate_hint(client: &tokio_postgres::Client, schema: &Schema) -> String {
    match migrate::rightful(client, schema).await {
        Ok(Some(who)) => format!("run `postrider migrate` as {who}: this user may not"),
        Ok(None) | Err(_) => "run `postrider migrate`".to_owned(),
    }
}

async fn privileges(inspection: &Inspection) -> Finding {
    let missing = match inspection.missing_privileges().await {
        Ok(missing) => missing,
        Err(error) => return refused(PRIVILEGES, &error),
    };
    if missing.is_empty() {
        return Finding::fine(PRIVILEGES, "the relay may do what it needs");
    }
    let list: Vec<String> =
        missing.iter().map(|it| format!("{} on {}", it.privilege, it.object)).collect();
    let mut statements: Vec<String> = missing.into_iter().map(|it| it.statement).collect();
    statements.dedup();
    Finding::refused(PRIVILEGES, Exit::NoPermission, format!("missing: {}", list.join(", ")))
        .hint(format!("as the schema's owner: {}", statements.join("; ")))
}

/// Whether a start would refuse the relay's position, because it was made in another cluster.
async fn cluster(inspection: &Inspection, relay: &str) -> Option<Finding> {
    match inspection.foreign_position(relay).await {
        Ok(None) => None,
        Ok(Some(ForeignPosition::Upgraded)) => Some(Finding::fine(
            RELAY,
            "Postgres was upgraded by pg_upgrade: the relay goes on where it was",
        )),
        Ok(Some(ForeignPosition::Restored)) => {
            let text = RelayError::ForeignCluster.to_string();
            Some(Finding::refused(RELAY, Exit::Configuration, text))
        }
        Err(error) => Some(refused(RELAY, &error)),
    }
}

/// What the reader rests on, and who may not insert although it looks so.
async fn contract(inspection: &Inspection, relay: &str) -> Vec<Finding> {
    let broken = match inspection.broken_contract(relay).await {
        Ok(broken) => broken,
        Err(error) => return vec![refused(CONTRACT, &error)],
    };
    let finding = |it: Broken| match it.remedy {
        Remedy::Refuse => Finding::refused(CONTRACT, Exit::Configuration, it.problem).hint(it.fix),
        Remedy::Warn => Finding::risky(CONTRACT, it.problem).hint(it.fix),
        Remedy::Repair | Remedy::Restore => {
            let hint = format!("`postrider run` repairs it when it starts; by hand: {}", it.fix);
            Finding::risky(CONTRACT, it.problem).hint(hint)
        }
    };
    let mut findings: Vec<_> = broken.into_iter().map(finding).collect();
    match inspection.hindered_producers().await {
        Ok(roles) => findings.extend(roles.into_iter().map(|role| {
            let text = format!("{role} may insert into the outbox, and is refused when it does");
            Finding::risky(CONTRACT, text).hint(format!("GRANT postrider_producer TO {role}"))
        })),
        Err(error) => findings.push(refused(CONTRACT, &error)),
    }
    if findings.is_empty() {
        findings.push(Finding::fine(CONTRACT, "the tables are as the relay needs them"));
    }
    findings
}

async fn holder(inspection: &Inspection, relay: &str) -> Finding {
    match inspection.leader(relay).await {
        Ok(None) => Finding::fine(RELAY, format!("{relay} is not running")),
        Ok(Some(leader)) => {
            let name = leader.holder;
            let text = format!("{relay} runs as {name}; a second one would stand by");
            Finding::fine(RELAY, text)
        }
        Err(error) => refused(RELAY, &error),
    }
}

fn refused(subject: &'static str, error: &QueryError) -> Finding {
    let class: Class = error.class();
    let finding = Finding::refused(subject, class.into(), error.to_string());
    Finding { hint: class.hint().map(str::to_owned), ..finding }
}
