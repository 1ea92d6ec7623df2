//! `kill -9` in the middle of a backlog, and how soon the next new event is stored.

use std::collections::HashSet;

use anyhow::{Result, ensure};
use postrider::dev::stream_reader::read_stream;

use crate::{
    measure::{Measure, float},
    options::Options,
    stage::{Stage, insert_backlog},
    stream, table,
};

const DATABASE: &str = "resume";
const STREAM: &str = "RESUME";

pub(crate) async fn run(stage: &Stage, options: &Options) -> Result<Vec<Measure>> {
    let count = options.resume_events();
    let client = stage.database(DATABASE).await?;
    insert_backlog(&client, count).await?;
    stage.checkpoint().await?;
    let mut daemon = stage.relay(DATABASE, STREAM)?;
    let (mut seconds, mut resident) = (Vec::new(), Vec::new());
    // Each kill hits another part of the same backlog.
    let kills = u64::from(options.rounds);
    for kill in 1..=kills {
        let at = count * kill / (kills + 1);
        stream::wait_for_count(&stage.jetstream, STREAM, at, &mut daemon).await?;
        resident.push(daemon.resident_peak()?);
        daemon.kill()?;
        // What the broker had received is stored still.
        let stored = stream::settled_count(&stage.jetstream, STREAM).await?;
        ensure!(stored < count, "the backlog was drained before the kill");
        daemon.start_again()?;
        stream::wait_for_count(&stage.jetstream, STREAM, stored + 1, &mut daemon).await?;
        let next = stream::stored_at(&stage.jetstream, STREAM, stored + 1).await?;
        seconds.push(next.duration_since(daemon.started)?.as_secs_f64());
        table::note(&format!("resume: killed at {stored}, resumed after {seconds:.3?} s"));
    }
    stream::wait_for_count(&stage.jetstream, STREAM, count, &mut daemon).await?;
    resident.push(daemon.resident_peak()?);
    daemon.stop().await?;
    stream::settled_count(&stage.jetstream, STREAM).await?;
    let stored = read_stream(&stage.nats.url(), STREAM).await?;
    let ids: HashSet<_> = stored.iter().filter_map(|message| message.id).collect();
    let duplicates = stored.len() - ids.len();
    let lost = float(count) - float(ids.len() as u64);
    Ok(vec![
        Measure::new("resume after kill -9", "s", seconds).at_most(2.0),
        Measure::new("resume: duplicates", "", vec![float(duplicates as u64)]).at_most(0.0),
        Measure::new("resume: lost", "", vec![lost]).at_most(0.0),
        Measure::new("resume: relay RSS peak", "MiB", resident).at_most(48.0),
    ])
}
