//! `postrider reconcile`: publishes again what the stream has lost.

use serde_json::{Value, json};

use super::{
    Globals, block_on,
    compare::{self, Compared},
    dlq,
    exit::{Exit, Failure},
    print::{self, number},
    print_each,
};
use crate::{
    config::{
        Config, SinkKind,
        load::{OneRoute, Scope},
    },
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
    let mut loaded = globals.load(Scope::Everything)?;
    // The others are in no stream.
    let is_nats = |route: &OneRoute| route.config.route.sink == SinkKind::Nats;
    if loaded.routes.iter().any(is_nats) {
        loaded.routes.retain(is_nats);
    }
    let reconcile_each = async {
        let mut done = Vec::new();
        for config in loaded.configs() {
            done.push(reconcile(&config, args).await?);
        }
        Ok(done)
    };
    let done = block_on(reconcile_each)?;
    let json = |index: usize| done.get(index).map(Reconciled::json).unwrap_or_default();
    let text = |index: usize| done.get(index).map(Reconciled::text).unwrap_or_default();
    print_each(&loaded, (args.json, json, text))?;
    // A rehearsal tells a script whether there is something to do.
    let is_missing = done.iter().any(|it| !it.compared.missing.is_empty());
    Ok(if args.dry_run && is_missing { Exit::Failed } else { Exit::Done })
}

/// What became of one route.
struct Reconciled {
    relay: String,
    compared: Compared,
    /// How many events are published again; `None` in a rehearsal.
    again: Option<u64>,
    losses: Losses,
}

impl Reconciled {
    fn json(&self) -> Value {
        json!({
            "relay": self.relay,
            "expected": self.compared.expected,
            "held": self.compared.held,
            "dropped": self.compared.dropped,
            "missing": self.compared.missing.len(),
            "published_again": self.again.unwrap_or_default(),
            "lost": self.losses.events,
        })
    }

    fn text(&self) -> String {
        let lost = self.losses.text().map(|lost| format!("\n{lost}")).unwrap_or_default();
        format!("{}{lost}", told(&self.compared, self.again))
    }
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

async fn reconcile(config: &Config, args: &Args) -> Result<Reconciled, Failure> {
    let relay = config.relay.name.as_str().to_owned();
    let losses = losses(config).await?;
    let settled = compare::settled(config, "reconcile").await?;
    let compared = compare::compare(config, &settled).await?;
    if args.dry_run {
        return Ok(Reconciled { relay, compared, again: None, losses });
    }
    let actor = dlq::actor(args.actor.as_deref());
    let again = publish_again(&settled, &compared.missing, &actor).await?;
    // A relay with `heal = "manual"` waits for this; another one does not look at it.
    settled.ask_to_heal(&actor).await?;
    Ok(Reconciled { relay, compared, again: Some(again), losses })
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
