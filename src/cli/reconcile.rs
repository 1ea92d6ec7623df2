//! `postrider reconcile`: publishes again what the stream has lost.

use serde_json::json;

use super::{
    Globals, block_on,
    compare::{self, Compared},
    dlq,
    exit::{Exit, Failure},
    print::{self, number},
};
use crate::{
    config::{Config, load::Scope},
    outbox::{Inspection, Losses, RECONCILE_BATCH, SESSION_SETTINGS, Settled},
    pg::{connect::connect, schema::Schema},
};

/// `postrider reconcile`
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct Args {
    /// Say what is missing, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Who you are, for the audit [default: the user of the system]
    #[arg(long, value_name = "NAME", value_parser = dlq::name)]
    actor: Option<String>,
}

/// Compares, and has what is missing published again.
pub(super) fn run(globals: Globals, args: &Args) -> Result<Exit, Failure> {
    let loaded = globals.load(Scope::Everything)?;
    let (compared, again, losses) = block_on(reconcile(&loaded.config, args))?;
    let missing = compared.missing.len() as u64;
    if args.json {
        print::json(&json!({
            "expected": compared.expected,
            "held": compared.held,
            "dropped": compared.dropped,
            "missing": missing,
            "published_again": again,
            "lost": losses.events,
        }))?;
    } else {
        print::line(&told(&compared, (!args.dry_run).then_some(again)))?;
        if let Some(lost) = losses.text() {
            print::line(&lost)?;
        }
    }
    // A rehearsal tells a script whether there is something to do.
    Ok(if args.dry_run && missing > 0 { Exit::Failed } else { Exit::Done })
}

/// What was found, and how much is published again; `None` in a rehearsal.
fn told(compared: &Compared, again: Option<u64>) -> String {
    let missing = compared.missing.len() as u64;
    let found = format!(
        "{} events were published, the stream holds {} of them and dropped {} by its own limits",
        number(compared.expected),
        number(compared.held),
        number(compared.dropped)
    );
    match (missing, again) {
        (0, _) => format!("{found}; nothing is missing"),
        (_, None) => format!(
            "{found}; {} are missing, and would be published again in order and under the same ids",
            number(missing)
        ),
        (_, Some(again)) => format!(
            "{found}; {} were missing, and {} are letters now that the relay publishes, in order and \
             under the same ids: see `postrider dlq list --state retrying`",
            number(missing),
            number(again)
        ),
    }
}

async fn reconcile(config: &Config, args: &Args) -> Result<(Compared, u64, Losses), Failure> {
    let losses = losses(config).await?;
    let settled = compare::settled(config, "reconcile").await?;
    let compared = compare::compare(config, &settled).await?;
    if args.dry_run {
        return Ok((compared, 0, losses));
    }
    let actor = dlq::actor(args.actor.as_deref());
    let again = publish_again(&settled, &compared.missing, &actor).await?;
    // A relay with `heal = "manual"` waits for this; another one does not look at it.
    settled.ask_to_heal(&actor).await?;
    Ok((compared, again, losses))
}

/// What no reconciliation brings back.
async fn losses(config: &Config) -> Result<Losses, Failure> {
    let connection = connect(&config.database, "reconcile", &SESSION_SETTINGS).await?;
    let inspection = Inspection::new(connection, Schema::from(&config.database.schema));
    Ok(inspection.losses(config.relay.name.as_str()).await?)
}

async fn publish_again(settled: &Settled, missing: &[i64], actor: &str) -> Result<u64, Failure> {
    let (mut again, mut done) = (0, 0);
    for batch in missing.chunks(RECONCILE_BATCH) {
        again += settled.publish_again(batch, actor).await?;
        done += batch.len() as u64;
        let of = number(missing.len() as u64);
        print::to_stderr(&format!("publishing again {} of {of}", number(done)));
    }
    Ok(again)
}
