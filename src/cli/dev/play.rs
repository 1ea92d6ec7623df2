//! `postrider dev` without `--once`: runs servers, a relay and a small shop until Ctrl-C, prints
//! lines to copy, and ends with a summary.

use std::{
    convert::Infallible,
    env,
    future::pending,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{interval, sleep},
};

use super::super::{
    exit::{Exit, Failure},
    print,
};
use crate::{
    config::error::Problem,
    dev::{
        demo::{self, DemoError, Summary},
        stage::Stage,
    },
    shutdown::Shutdown,
};

/// The wait before the shop tries again what a server has refused.
const SHOP_RETRY: Duration = Duration::from_secs(1);

/// Interval at which the demo checks that its relay still runs.
const WATCH: Duration = Duration::from_millis(200);

/// The small shop of the demo, which places orders and shows their events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shop {
    Open,
    Closed,
}

/// Runs servers and relay, and perhaps the shop, until a signal asks to stop.
pub(super) async fn play(stage: &mut Stage, shop: Shop) -> Result<Exit, Failure> {
    let shutdown = Shutdown::new();
    let signals = shutdown.obey_signals().map_err(|error| {
        Failure::new(Exit::Failed, Problem::new(format!("could not register for signals: {error}")))
    })?;
    let (database, nats) = (stage.database_url(), stage.nats_url());
    if shop == Shop::Open {
        demo::prepare(&database).await?;
    }
    print::line(&introduction(stage, shop))?;
    let (lines, mut shown) = mpsc::channel::<String>(64);
    let mut watch = interval(WATCH);
    let printing = async {
        loop {
            tokio::select! {
                Some(line) = shown.recv() => print::line(&line)?,
                _ = watch.tick() => {
                    if stage.relay.has_ended() {
                        return Err::<(), Failure>(ended(stage));
                    }
                }
            }
        }
    };
    let trade = async {
        if shop == Shop::Closed {
            pending::<()>().await;
        }
        tokio::join!(
            go_on("shop", async || demo::produce(&database, &lines).await),
            go_on("consumer", async || demo::consume(&database, &nats, &lines).await)
        );
    };
    tokio::select! {
        result = printing => result?,
        () = trade => {}
        () = go_on("letters", async || demo::watch_letters(&database, &lines).await) => {}
        () = signals => {}
        () = shutdown.stopping() => {}
    }
    print::to_stderr("\nstopping, and removing everything …");
    let Ok(Some(0)) = stage.relay.stop().await else { return Err(ended(stage)) };
    print::line(&total(&demo::summary(&database, &nats).await?))?;
    Ok(Exit::Done)
}

/// Does a part of the demo, and begins it again after each failure, such as a server that is away.
async fn go_on(part: &str, work: impl AsyncFn() -> Result<Infallible, DemoError>) {
    let mut said = String::new();
    loop {
        let Err(error) = work().await;
        let text = format!("{part}: could not {error}; trying again");
        if text != said {
            print::to_stderr(&text);
            said = text;
        }
        sleep(SHOP_RETRY).await;
    }
}

/// The summary that the demo prints at its end, as text.
fn total(summary: &Summary) -> String {
    let Summary { events, messages, dead, retrying, held } = summary;
    format!(
        "{events} events were committed, {messages} messages are in the stream; \
         letters: {dead} dead, {retrying} retrying, {held} held"
    )
}

fn introduction(stage: &Stage, shop: Shop) -> String {
    let (database, nats, admin) = (stage.database_url(), stage.nats_url(), stage.admin_url());
    let (config, log) = (stage.config_path(), stage.relay.log_path());
    let paste = if shop == Shop::Open { PASTE } else { "" };
    format!(
        r#"
Everything runs until Ctrl-C, and is removed then. In another terminal:

  export DATABASE_URL={database}
  export NATS_URL={nats}
  export POSTRIDER_CONFIG={config}
  export PATH="{program}:$PATH"

  Postgres   psql {database}
  NATS       nats --server {nats} subscribe 'events.>'   (the nats CLI)
  relay      postrider status, postrider check, postrider dlq list
  metrics    curl -s {admin}/metrics
  health     curl -s '{admin}/readyz?verbose'
  log        tail -f {log}
{paste}"#,
        config = config.display(),
        program = program_directory().display(),
        log = log.display()
    )
}

const PASTE: &str = "
Emit an event in a transaction of yours (paste into psql):

  BEGIN;
  INSERT INTO orders (total) VALUES (42);
  SELECT postrider.emit('order.placed', '{\"total\": 42}',
                        aggregate_type => 'order', aggregate_id => 'mine');
  COMMIT;

Or with nothing but SQL's own words:

  INSERT INTO postrider.outbox (event_type, aggregate_type, aggregate_id, payload)
  VALUES ('order.noted', 'order', 'mine', '{\"note\": \"by hand\"}');

What arrives in the stream:
";

/// The directory of this program. The printed lines put it on PATH, so that `postrider` runs this
/// program.
fn program_directory() -> PathBuf {
    let program = env::current_exe().ok();
    program.and_then(|program| program.parent().map(Path::to_owned)).unwrap_or_default()
}

fn ended(stage: &Stage) -> Failure {
    let text = format!("the relay ended; the end of its log:\n{}", stage.relay.log_tail());
    Failure::new(Exit::Failed, Problem::new(text))
}

impl From<DemoError> for Failure {
    fn from(error: DemoError) -> Self {
        Self::new(Exit::Failed, Problem::new(format!("could not {error}")))
    }
}
