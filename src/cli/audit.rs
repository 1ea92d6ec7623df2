//! `postrider audit`: counts where every committed event is, and so proves that none is lost.

use super::{
    Globals, ask_each, block_on, dlq,
    exit::{Exit, Failure},
    print::{self, number},
    print_routes,
};
use crate::{
    config::{SinkKind, load::Scope},
    operate::audit::{self, Audit, Extent},
};

/// `postrider audit`
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Compare within the database only: do not read the stream
    #[arg(long)]
    database_only: bool,
    /// Acknowledge the published events that are gone for good: the alarm ends
    #[arg(long, requires = "reason")]
    acknowledge_loss: bool,
    /// Why that is accepted, or where the events were restored from
    #[arg(long, value_name = "TEXT", requires = "acknowledge_loss")]
    reason: Option<String>,
    /// Your name, for the audit [default: the user of the system]
    #[arg(long, value_name = "NAME", requires = "acknowledge_loss", value_parser = dlq::name)]
    actor: Option<String>,
}

/// Prints what has become of the committed events. Exits with 1 when their numbers do not add up,
/// or when an event is lost.
pub(super) fn run(globals: Globals, args: &Args) -> Result<Exit, Failure> {
    if let (true, Some(reason)) = (args.acknowledge_loss, &args.reason) {
        let (loaded, actor) = (globals.load(Scope::Database)?, dlq::actor(args.actor.as_deref()));
        let acknowledged = block_on(ask_each(&loaded, async |config| {
            audit::acknowledge_loss(config, &actor, reason).await
        }))?;
        print::line(&match acknowledged.iter().map(|it| it.losses).sum() {
            0 => "there is no loss to acknowledge".to_owned(),
            losses => format!("acknowledged {}, with a row of the audit each", number(losses)),
        })?;
        return Ok(Exit::Done);
    }
    let (scope, extent) = if args.database_only {
        (Scope::Database, Extent::Database)
    } else {
        (Scope::Everything, Extent::Stream)
    };
    let loaded = globals.load(scope)?;
    let audits = block_on(ask_each(&loaded, async |config| {
        audit::audit(config, extent, &mut print::step).await
    }))?;
    print_routes(&loaded, (args.json, &audits, text))?;
    Ok(if audits.iter().all(|audit| audit.fine) { Exit::Done } else { Exit::Failed })
}

fn text(audit: &Audit) -> String {
    let row = |name: &str, figure: u64, meaning: &str| {
        [name.to_owned(), format!("{:>12}", number(figure)), meaning.to_owned()]
    };
    let mut rows = vec![
        row("committed", audit.committed, "rows that the outbox retains, of which are:"),
        match audit.sink {
            SinkKind::Nats | SinkKind::Stdout => {
                row("published", audit.published, "settled with an acknowledgement")
            }
            SinkKind::Unrouted => {
                row("unrouted", audit.published, "taken by no route of now: they went nowhere")
            }
        },
        row("pending", audit.pending, "to be published, letters that wait among them"),
        row("dead", audit.dead, "waiting for an operator: postrider dlq list"),
        row("discarded", audit.discarded, "given up by an operator"),
    ];
    if audit.filtered > 0 {
        rows.push(row("filtered", audit.filtered, "left out by the filter of the route"));
    }
    if let Some(stream) = &audit.stream {
        rows.push(row("in stream", stream.held, "of the published, found in the stream"));
        rows.push(row(
            "dropped",
            stream.dropped,
            "of the published, dropped by the stream's limits",
        ));
        let missing = stream.missing.len() as u64;
        rows.push(row("missing", missing, "of the published, nowhere: postrider reconcile"));
    }
    if audit.payloads_lost > 0 {
        rows.push(row("payloads lost", audit.payloads_lost, "letters whose row is gone"));
    }
    if audit.strangers > 0 {
        rows.push(row("strangers", audit.strangers, "letters of another event than their row"));
    }
    if audit.losses.losses > 0 {
        let meaning = "published, and gone from the stream and the outbox (at most)";
        rows.push(row("lost", audit.lost, meaning));
    }
    let verdict = if audit.fine { "everything adds up" } else { "this does not add up" };
    let lost = audit.losses.text().map(|text| format!("{text}\n")).unwrap_or_default();
    format!("{}\n{lost}{verdict}", print::columns(&rows))
}
