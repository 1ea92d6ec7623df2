//! The part of `postrider dev` that stays: servers, a relay, a small shop, and lines to copy.

use std::time::Duration;

use tokio::{sync::mpsc, time::interval};

use super::super::{
    exit::{Exit, Failure},
    print,
};
use crate::{
    config::error::Problem,
    dev::{
        demo::{self, DemoError},
        stage::Stage,
    },
    shutdown::Shutdown,
};

/// How often the relay is looked at.
const WATCH: Duration = Duration::from_millis(200);

/// Shows the demo until a signal asks to stop.
pub(super) async fn play(stage: &mut Stage) -> Result<Exit, Failure> {
    let shutdown = Shutdown::new();
    let signals = shutdown.obey_signals().map_err(|error| {
        Failure::new(Exit::Failed, Problem::new(format!("could not register for signals: {error}")))
    })?;
    let (database, nats) = (stage.database_url(), stage.nats_url());
    demo::prepare(&database).await?;
    print::line(&introduction(stage))?;
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
    tokio::select! {
        result = printing => result?,
        Err(error) = demo::produce(&database, &lines) => return Err(error.into()),
        Err(error) = demo::consume(&database, &nats, &lines) => return Err(error.into()),
        () = signals => {}
        () = shutdown.stopping() => {}
    }
    print::to_stderr("\nstopping, and removing everything …");
    match stage.relay.stop().await {
        Ok(Some(0)) => Ok(Exit::Done),
        Ok(_) | Err(_) => Err(ended(stage)),
    }
}

fn introduction(stage: &Stage) -> String {
    let (database, nats, admin) = (stage.database_url(), stage.nats_url(), stage.admin_url());
    let log = stage.relay.log_path();
    format!(
        "
Everything runs until Ctrl-C, and is removed then.

  Postgres   psql {database}
  NATS       nats --server {nats} subscribe 'events.>'
  metrics    curl -s {admin}/metrics
  health     curl -s '{admin}/readyz?verbose'
  relay log  tail -f {log}

Emit an event in a transaction of yours (paste into psql):

  BEGIN;
  INSERT INTO orders (total) VALUES (42);
  SELECT postrider.emit('order.placed', '{{\"total\": 42}}',
                        aggregate_type => 'order', aggregate_id => 'mine');
  COMMIT;

Or with nothing but SQL's own words:

  INSERT INTO postrider.outbox (event_type, aggregate_type, aggregate_id, payload)
  VALUES ('order.noted', 'order', 'mine', '{{\"note\": \"by hand\"}}');

What arrives in the stream:
",
        log = log.display()
    )
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
