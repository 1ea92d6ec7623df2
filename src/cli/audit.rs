//! `postrider audit`: proves that every committed event is somewhere.

use serde_json::json;

use super::{
    Globals, block_on, compare, dlq,
    exit::{Exit, Failure},
    print::{self, number},
    print_each,
};
use crate::{
    config::{Config, SinkKind, load::Scope},
    outbox::{ACCOUNTING_SETTINGS, Accounting, Inspection, Losses, SESSION_SETTINGS},
    pg::{connect::connect, schema::Schema},
};

/// `postrider audit`
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Look at the database only: do not read the stream
    #[arg(long)]
    database_only: bool,
    /// Say that you know of the published events that are gone for good: the alarm ends
    #[arg(long, requires = "reason")]
    acknowledge_loss: bool,
    /// Why that is accepted, or where the events were restored from
    #[arg(long, value_name = "TEXT", requires = "acknowledge_loss")]
    reason: Option<String>,
    /// Who you are, for the audit [default: the user of the system]
    #[arg(long, value_name = "NAME", requires = "acknowledge_loss", value_parser = dlq::name)]
    actor: Option<String>,
}

/// The books, and the stream beside them.
struct Audit {
    relay: String,
    sink: SinkKind,
    accounting: Accounting,
    losses: Losses,
    stream: Option<compare::Compared>,
}

/// Prints where every committed event is; ends with 1 when one is nowhere.
pub(super) fn run(globals: Globals, args: &Args) -> Result<Exit, Failure> {
    if let (true, Some(reason)) = (args.acknowledge_loss, &args.reason) {
        let loaded = globals.load(Scope::Database)?;
        let acknowledge_each = async {
            let mut losses = 0;
            for config in loaded.configs() {
                losses += acknowledge(&config, args.actor.as_deref(), reason).await?;
            }
            Ok(losses)
        };
        let losses = block_on(acknowledge_each)?;
        print::line(&match losses {
            0 => "there is no loss to acknowledge".to_owned(),
            losses => format!("acknowledged {}, with a row of the audit each", number(losses)),
        })?;
        return Ok(Exit::Done);
    }
    let scope = if args.database_only { Scope::Database } else { Scope::Everything };
    let loaded = globals.load(scope)?;
    let look_at_each = async {
        let mut audits = Vec::new();
        for config in loaded.configs() {
            audits.push(look(&config, args).await?);
        }
        Ok(audits)
    };
    let audits = block_on(look_at_each)?;
    let json = |index: usize| audits.get(index).map(Audit::json).unwrap_or_default();
    let text = |index: usize| audits.get(index).map(Audit::text).unwrap_or_default();
    print_each(&loaded, (args.json, json, text))?;
    Ok(if audits.iter().all(Audit::is_fine) { Exit::Done } else { Exit::Failed })
}

async fn acknowledge(config: &Config, actor: Option<&str>, reason: &str) -> Result<u64, Failure> {
    let connection = connect(&config.database, "audit", &SESSION_SETTINGS).await?;
    let inspection = Inspection::new(connection, Schema::from(&config.database.schema));
    let relay = config.relay.name.as_str();
    Ok(inspection.acknowledge_loss(relay, &dlq::actor(actor), reason).await?)
}

async fn look(config: &Config, args: &Args) -> Result<Audit, Failure> {
    let connection = connect(&config.database, "audit", &ACCOUNTING_SETTINGS).await?;
    let inspection = Inspection::new(connection, Schema::from(&config.database.schema));
    let accounting = inspection.accounting(config.relay.name.as_str()).await?;
    let losses = inspection.losses(config.relay.name.as_str()).await?;
    let (relay, sink) = (config.relay.name.as_str().to_owned(), config.route.sink);
    let is_one_of_several = config.relay.siblings.len() > 1;
    let stream = if args.database_only
        || sink == SinkKind::Unrouted
        || sink == SinkKind::Stdout && is_one_of_several
    {
        None
    } else {
        let settled = compare::settled(config, "audit").await?;
        Some(compare::compare(config, &settled).await?)
    };
    Ok(Audit { relay, sink, accounting, losses, stream })
}

impl Audit {
    fn is_fine(&self) -> bool {
        let is_complete = self.stream.as_ref().is_none_or(|stream| stream.missing.is_empty());
        self.accounting.is_balanced() && self.losses.losses == 0 && is_complete
    }

    fn json(&self) -> serde_json::Value {
        let accounting = &self.accounting;
        let stream = self.stream.as_ref().map(|stream| {
            json!({
                "messages": stream.messages,
                "expected": stream.expected,
                "held": stream.held,
                "dropped": stream.dropped,
                "missing": stream.missing.len(),
            })
        });
        json!({
            "relay": self.relay,
            "fine": self.is_fine(),
            "committed": accounting.committed(),
            "published": accounting.published(),
            "pending": accounting.pending(),
            "dead": accounting.dead(),
            "discarded": accounting.discarded(),
            "filtered": accounting.filtered(),
            "payloads_lost": accounting.payloads_lost,
            "strangers": accounting.strangers,
            "lost": self.losses.events,
            "stream": stream,
        })
    }

    fn text(&self) -> String {
        let accounting = &self.accounting;
        let row = |name: &str, figure: u64, meaning: &str| {
            [name.to_owned(), format!("{:>12}", number(figure)), meaning.to_owned()]
        };
        let mut rows = vec![
            row("committed", accounting.committed(), "rows that the outbox retains, of which are:"),
            match self.sink {
                SinkKind::Nats | SinkKind::Stdout => {
                    row("published", accounting.published(), "settled with an acknowledgement")
                }
                SinkKind::Unrouted => row(
                    "unrouted",
                    accounting.published(),
                    "taken by no route of now: they went nowhere",
                ),
            },
            row("pending", accounting.pending(), "to be published, letters that wait among them"),
            row("dead", accounting.dead(), "waiting for an operator: postrider dlq list"),
            row("discarded", accounting.discarded(), "given up by an operator"),
        ];
        if accounting.filtered() > 0 {
            rows.push(row(
                "filtered",
                accounting.filtered(),
                "left out by the filter of the route",
            ));
        }
        if let Some(stream) = &self.stream {
            rows.push(row("in stream", stream.held, "of the published, found in the stream"));
            rows.push(row(
                "dropped",
                stream.dropped,
                "of the published, dropped by the stream's limits",
            ));
            let missing = stream.missing.len() as u64;
            rows.push(row("missing", missing, "of the published, nowhere: postrider reconcile"));
        }
        if accounting.payloads_lost > 0 {
            rows.push(row("payloads lost", accounting.payloads_lost, "letters whose row is gone"));
        }
        if accounting.strangers > 0 {
            rows.push(row(
                "strangers",
                accounting.strangers,
                "letters of another event than their row",
            ));
        }
        if self.losses.losses > 0 {
            let meaning = "published, and gone from the stream and the outbox (at most)";
            rows.push(row("lost", self.losses.events, meaning));
        }
        let verdict = if self.is_fine() { "everything adds up" } else { "this does not add up" };
        let lost = self.losses.text().map(|text| format!("{text}\n")).unwrap_or_default();
        format!("{}\n{lost}{verdict}", print::columns(&rows))
    }
}
