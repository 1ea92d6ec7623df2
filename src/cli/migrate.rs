//! `postrider migrate`: brings the schema to the version of this program.

use super::{
    Globals, block_on,
    exit::{Exit, Failure},
    print,
};
use crate::{
    config::{DatabaseConfig, error::Problem, load::Scope},
    pg::{connect::connect, migrate, migrating, schema::Schema, session::Sharing},
};

/// `postrider migrate`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print the SQL for an empty schema instead of running it
    #[arg(long)]
    print: bool,
    /// Print only what a schema of this version lacks; `postrider check` names the version
    #[arg(long, value_name = "VERSION", requires = "print", default_value_t = 0,
        value_parser = clap::value_parser!(i32).range(0..=i64::from(migrate::latest())))]
    after: i32,
}

/// Migrates the schema, or with `--print` prints the SQL for a DBA to run.
pub(super) fn run(globals: Globals, args: &Args) -> Result<Exit, Failure> {
    if args.print {
        let loaded = globals.load(Scope::Schema)?;
        let sql = migrate::print(&Schema::from(&loaded.config.database.schema), args.after)?;
        print::line(sql.trim_end())?;
        return Ok(Exit::Done);
    }
    let loaded = globals.load(Scope::Database)?;
    block_on(apply(&loaded.config.database))
}

async fn apply(database: &DatabaseConfig) -> Result<Exit, Failure> {
    let mut connection = connect(database, "migrate", &[]).await?;
    let schema = Schema::from(&database.schema);
    if connection.sharing() == Sharing::Shared {
        let problem = Problem::new(
            "could not migrate: database.url goes through a connection pooler, and a migration needs \
             a session of its own"
                .to_owned(),
        );
        let hint = "name the Postgres server itself: POSTRIDER__DATABASE__URL=… postrider migrate";
        let problem = Problem { hint: Some(hint.to_owned()), ..problem };
        return Err(Failure::new(Exit::Configuration, problem));
    }
    let report = migrating::migrate(&mut connection, &schema).await?;
    for name in &report.applied {
        print::line(&format!("applied {name}"))?;
    }
    if report.functions > 0 {
        print::line(&format!("replaced the {} functions", report.functions))?;
    }
    if !report.without_roles.is_empty() {
        print::line(&format!(
            "without the roles {}: the user of database.url may not create them, so the schema's owner alone has their rights",
            report.without_roles.join(", ")
        ))?;
    }
    if !report.powerless.is_empty() {
        print::to_stderr(&format!(
            "warning: the roles {} have no right in this schema, as after a restore into a cluster \
             without them\nhint: the roles exist now, so restore the dump once more; or grant what \
             `postrider check` names, and to the application what docs/sql.md lists",
            report.powerless.join(", ")
        ));
    }
    let what = if report.applied.is_empty() { "already at" } else { "now at" };
    print::line(&format!("schema {} is {what} version {}", schema.as_str(), report.version))?;
    Ok(Exit::Done)
}
