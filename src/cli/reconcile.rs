//! `postrider reconcile`: publishes again what the stream has lost.

use super::{
    Globals, ask_each, block_on, dlq,
    exit::{Exit, Failure},
    print::{self, number},
    print_routes,
};
use crate::{
    config::load::{OneRoute, Scope},
    operate::reconcile::{self, Reconciliation},
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
    /// Your name, for the audit [default: the user of the system]
    #[arg(long, value_name = "NAME", value_parser = dlq::name)]
    actor: Option<String>,
}

/// Compares the outbox with the stream, and has the events that the stream lacks published again.
pub(super) fn run(globals: Globals, args: &Args) -> Result<Exit, Failure> {
    let mut loaded = globals.load(Scope::Everything)?;
    // A route that does not publish to a stream has nothing to compare.
    let is_in_stream = |route: &OneRoute| reconcile::is_in_stream(&route.config);
    if loaded.routes.iter().any(is_in_stream) {
        loaded.routes.retain(is_in_stream);
    }
    let actor = dlq::actor(args.actor.as_deref());
    let done = block_on(ask_each(&loaded, async |config| {
        if args.dry_run {
            reconcile::rehearse(config, &mut print::step).await
        } else {
            reconcile::reconcile(config, &actor, &mut print::step).await
        }
    }))?;
    print_routes(&loaded, (args.json, &done, text))?;
    // The exit code of `--dry-run` shows a script whether events are missing.
    let is_missing = done.iter().any(|it| it.missing > 0);
    Ok(if args.dry_run && is_missing { Exit::Failed } else { Exit::Done })
}

fn text(done: &Reconciliation) -> String {
    let found = format!(
        "{} events were published, the stream contains {} of them and dropped {} by its own limits",
        number(done.expected),
        number(done.held),
        number(done.dropped)
    );
    let missing = number(done.missing);
    let found = if done.missing == 0 {
        format!("{found}; nothing is missing")
    } else if done.is_rehearsal {
        format!(
            "{found}; {missing} are missing, and would be published again in order and under the same \
             ids"
        )
    } else {
        format!(
            "{found}; {missing} were missing, and {} are letters now that the relay publishes, in order \
             and under the same ids: see `postrider dlq list --state retrying`",
            number(done.published_again)
        )
    };
    let lost = done.losses.text().map(|lost| format!("\n{lost}")).unwrap_or_default();
    format!("{found}{lost}")
}
