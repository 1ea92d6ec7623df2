//! Faults I3, I4 and P13: leaders are killed, frozen, stopped, cut off from the network, or behind
//! a pooler. Measures the time until another instance publishes.

use std::time::{Duration, Instant};

use postrider::dev::servers::{Pgbouncer, PgbouncerOptions, ServerError};

use super::daemon::quick_or_slow;
use crate::{
    crowd::{Crowd, HANDED_OVER_WITHIN, Instance, LEASE_OVER_WITHIN, REPLACED_WITHIN, Strike},
    fault::{Fault, Set, Tally},
    scene::{conclude, pause, steady, under_load},
    support::{
        Fixture,
        proxy::{Mode, Modes},
    },
};

pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        id: "I3",
        what: "five instances at once, one of them killed, frozen or stopped at a time",
        pr: 8,
        nightly: 300,
        set: 30,
        inflict: |set| Box::pin(crowd(set)),
    },
    Fault {
        id: "I4",
        what: "the network of the leader drops everything without a word, and comes back",
        pr: 2,
        nightly: 100,
        set: 12,
        inflict: |set| Box::pin(dropped(set)),
    },
    Fault {
        id: "P13",
        what: "three instances behind PgBouncer: it reconnects, kills, pauses, freezes, dies; so does the leader",
        pr: 6,
        nightly: 102,
        set: 24,
        inflict: |set| Box::pin(pooled(set)),
    },
];

/// Largest number of messages in flight to NATS: `relay.in_flight_events`.
const ON_ITS_WAY_MAX: u64 = 1024;

/// Number of instances of fault I3.
const CROWD: usize = 5;

const KILLED: Strike = Strike { name: "kill -9", bound: REPLACED_WITHIN };
/// The other instances cannot see the killed process, only that its session has ended.
const KILLED_ELSEWHERE: Strike = Strike { name: "kill -9, on another machine", ..KILLED };
const FROZEN: Strike = Strike { name: "SIGSTOP", bound: LEASE_OVER_WITHIN };
const STOPPED: Strike =
    Strike { name: "SIGTERM, from its last publish", bound: HANDED_OVER_WITHIN };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Killed,
    KilledElsewhere,
    Frozen,
    Stopped,
}

/// Ways in which a leader ends, in the order in which they are used.
const ENDS: [End; 4] = [End::Frozen, End::Killed, End::Stopped, End::KilledElsewhere];

impl End {
    fn strike(self) -> Strike {
        match self {
            Self::Killed => KILLED,
            Self::KilledElsewhere => KILLED_ELSEWHERE,
            Self::Frozen => FROZEN,
            Self::Stopped => STOPPED,
        }
    }
}

async fn crowd(mut set: Set) -> Tally {
    let fixture = Fixture::new().await;
    let mut crowd = Crowd::start(&fixture, CROWD, fixture.postgres.port()).await;
    let options = steady(&set);
    let strikes = async {
        let mut led = set.random.below(4) as usize;
        for _ in 0..set.strikes {
            // At least three of the instances run, and sometimes all of them.
            crowd.revive(set.random.between(3, 5) as usize, &mut set.random).await;
            for instance in &crowd.instances {
                instance.nats.set(quick_or_slow(&mut set));
            }
            pause(&mut set, 300..=1_000).await;
            let leader = crowd.wait_leader().await;
            // Six of ten strikes hit the leader, in each of the four ways in turn. The others hit a
            // random instance.
            let struck =
                if set.random.percent(60) { leader } else { crowd.any_up(&mut set.random) };
            if struck == leader {
                let end = ENDS[led % ENDS.len()];
                led += 1;
                end_leader(&mut crowd, leader, end).await;
            } else {
                let end = ENDS[set.random.below(4) as usize];
                end_standby(&mut crowd, struck, end).await;
            }
        }
        crowd.revive(CROWD, &mut set.random).await;
        crowd.wait_leader().await;
    };
    let (ledger, ()) = under_load(&fixture, options, strikes).await;
    let mut tally = conclude(&fixture, &ledger, &set).await;
    crowd.testify(0, &mut tally);
    tally
}

/// Ends the leader's work in this way, and waits until another instance publishes.
async fn end_leader(crowd: &mut Crowd, leader: usize, end: End) {
    if end == End::KilledElsewhere {
        crowd.hide_process().await;
    }
    let at = Instant::now();
    inflict(crowd, (leader, true), end);
    let published = crowd.wait_replaced(leader, at).await;
    let since = if end == End::Stopped {
        let complaint = crowd.instances[leader].stopped().await;
        crowd.complain(complaint);
        // A leader that stops still publishes what it has read, so the time counts from its last
        // publish.
        crowd.last_publish(leader)
    } else {
        at
    };
    crowd.note(end.strike(), published.saturating_duration_since(since));
}

async fn end_standby(crowd: &mut Crowd, struck: usize, end: End) {
    inflict(crowd, (struck, false), end);
    if end == End::Stopped {
        let complaint = crowd.instances[struck].stopped().await;
        crowd.complain(complaint);
    }
}

fn inflict(crowd: &mut Crowd, (struck, leads): (usize, bool), end: End) {
    let instance = &mut crowd.instances[struck];
    match end {
        End::Killed | End::KilledElsewhere => instance.kill9(),
        End::Frozen if leads => instance.freeze_leader(),
        End::Frozen => instance.freeze(),
        End::Stopped => instance.daemon.terminate(),
    }
}

/// Parts of the leader's network that drop everything: these directions of the line to Postgres,
/// and whether the line to NATS too.
const DROPPED: [(&str, Modes, bool); 4] = [
    ("Postgres dropped", Modes::both(Mode::Hole), false),
    ("Postgres and NATS dropped", Modes::both(Mode::Hole), true),
    ("answers of Postgres dropped", Modes::to_client(Mode::Hole), false),
    ("questions to Postgres dropped", Modes::to_server(Mode::Hole), false),
];

async fn dropped(mut set: Set) -> Tally {
    let fixture = Fixture::new().await;
    let mut crowd = Crowd::start(&fixture, 2, fixture.postgres.port()).await;
    let options = steady(&set);
    let strikes = async {
        let (mut both, mut late) = (0, 0);
        for strike in 0..set.strikes {
            let leader = crowd.wait_leader().await;
            let (name, modes, with_nats) = DROPPED[strike as usize % DROPPED.len()];
            // Over a slow line the events of the hot keys wait in the leader's memory. It then has
            // something to publish for as long as it may.
            let slow = Duration::from_millis(set.random.between(50, 150).into());
            let Instance { postgres, nats, .. } = &crowd.instances[leader];
            nats.set(Modes::both(Mode::Delay(slow, slow / 4)));
            pause(&mut set, 1_000..=2_000).await;
            let before = crowd.instances[leader].standbys();
            let at = Instant::now();
            postgres.set(modes);
            if with_nats {
                both += 1;
                nats.set(Modes::both(Mode::Hole));
            }
            let published = crowd.wait_replaced(leader, at).await;
            crowd.note(Strike { name, bound: LEASE_OVER_WITHIN }, published - at);
            // The time is from less to more than a statement may take.
            pause(&mut set, 500..=4_000).await;
            let Instance { daemon: _, postgres, nats, .. } = &crowd.instances[leader];
            postgres.set(Modes::PASS);
            nats.set(Modes::PASS);
            crowd.instances[leader].wait_stands_by(before).await;
            // Messages that were in flight when the line to NATS was dropped arrive once it works
            // again.
            let most = if with_nats { ON_ITS_WAY_MAX } else { 0 };
            let before = std::mem::replace(&mut late, crowd.late());
            let more = late.saturating_sub(before);
            crowd.complain(
                (more > most).then(|| format!("{name}: {more} late publishes, at most {most}")),
            );
        }
        both
    };
    let (ledger, both) = under_load(&fixture, options, strikes).await;
    let mut tally = conclude(&fixture, &ledger, &set).await;
    crowd.testify(both * ON_ITS_WAY_MAX, &mut tally);
    tally
}

/// Faults of the pooler.
#[derive(Debug, Clone, Copy)]
enum Pooled {
    Reconnects,
    Kills,
    Pauses,
    Freezes,
    Dies,
}

/// All faults of the pooler. After them a strike kills the leader.
const POOLED: [Pooled; 5] =
    [Pooled::Reconnects, Pooled::Kills, Pooled::Pauses, Pooled::Freezes, Pooled::Dies];

async fn pooled(mut set: Set) -> Tally {
    let fixture = Fixture::new().await;
    let settings = vec![("server_login_retry".to_owned(), "1".to_owned())];
    let options = PgbouncerOptions { pool_size: 3, settings, ..PgbouncerOptions::default() };
    let mut pooler = match Pgbouncer::start(fixture.postgres.port(), options).await {
        Ok(pooler) => pooler,
        Err(missing @ ServerError::Missing { .. }) => {
            return Tally::skipped(missing.to_string());
        }
        Err(error) => return Tally::failed(set.strikes, error.to_string()),
    };
    let mut crowd = Crowd::start(&fixture, 3, pooler.port()).await;
    let options = steady(&set);
    let strikes = async {
        for strike in 0..set.strikes {
            pause(&mut set, 300..=1_000).await;
            let Some(how) = POOLED.get(strike as usize % (POOLED.len() + 1)) else {
                let leader = crowd.wait_leader().await;
                // Behind a pooler another instance cannot tell that the leader's session has ended.
                let end = if set.random.percent(75) { KILLED_ELSEWHERE } else { KILLED };
                if end.name == KILLED_ELSEWHERE.name {
                    crowd.hide_process().await;
                }
                let at = Instant::now();
                crowd.instances[leader].kill9();
                let published = crowd.wait_replaced(leader, at).await;
                crowd.note(Strike { bound: LEASE_OVER_WITHIN, ..end }, published - at);
                crowd.revive(3, &mut set.random).await;
                continue;
            };
            let name = disturb(*how, &mut pooler, &fixture.database, &mut set).await;
            let over = Instant::now();
            let published = crowd.wait_published(over).await;
            crowd.note(Strike { name, bound: LEASE_OVER_WITHIN }, published - over);
        }
    };
    let (ledger, ()) = under_load(&fixture, options, strikes).await;
    let mut tally = conclude(&fixture, &ledger, &set).await;
    crowd.testify(0, &mut tally);
    tally
}

/// Inflicts a fault of the pooler and ends it. Returns the fault's name for the table.
async fn disturb(
    how: Pooled,
    pooler: &mut Pgbouncer,
    database: &str,
    set: &mut Set,
) -> &'static str {
    match how {
        Pooled::Reconnects => {
            pooler.reconnect().await.unwrap();
            "after RECONNECT"
        }
        Pooled::Kills => {
            pooler.kill_sessions(database).await.unwrap();
            pause(set, 1..=500).await;
            pooler.resume(database).await.unwrap();
            "after KILL, RESUME"
        }
        Pooled::Pauses => {
            pooler.pause(database).await.unwrap();
            // The pause is from less than the time that a leader may go without an answer to more
            // than a lease.
            pause(set, 100..=4_000).await;
            pooler.resume(database).await.unwrap();
            "after PAUSE, RESUME"
        }
        Pooled::Freezes => {
            pooler.freeze().unwrap();
            pause(set, 100..=4_000).await;
            pooler.thaw().unwrap();
            "after SIGSTOP of the pooler"
        }
        Pooled::Dies => {
            pooler.kill9().unwrap();
            pause(set, 1..=1_500).await;
            pooler.start_again().await.unwrap();
            "after kill -9 of the pooler"
        }
    }
}
