//! Faults L: the broker refuses some messages for a while, each for a reason of its own.

use postrider::dev::servers::NatsOptions;

use crate::{
    fault::{Fault, Set, Tally},
    scene::{conclude, daemon, look_at_resources, pause, steady},
    support::{Fixture, audit::work_during},
};

pub(crate) const FAULTS: &[Fault] = &[Fault {
    id: "L1",
    what: "one subject of five denied and granted again, the program killed while its events wait",
    pr: 4,
    nightly: 100,
    set: 10,
    inflict: |set| Box::pin(deny(set)),
}];

const GRANTED: &str = "publish: [\">\"], subscribe: [\">\"]";

/// Permissions that deny the third of the workload's five event types, below the prefix of any
/// test.
const DENIED: &str = "publish: { deny: [\"*.order.line.added\"] }, subscribe: [\">\"]";

/// Configuration of a NATS server with two users: one for the tests, who may do everything, and one
/// for the program.
fn accounts(permissions: &str) -> String {
    format!(
        "authorization {{ users: [\n\
         {{ user: everyone, password: everything }}\n\
         {{ user: relay, password: secret, permissions {{ {permissions} }} }}\n\
         ] }}\nno_auth_user: everyone\n"
    )
}

async fn deny(mut set: Set) -> Tally {
    let options = NatsOptions { extra: accounts(GRANTED), ..NatsOptions::default() };
    let mut fixture = Fixture::with(None, Some(options)).await;
    let mut daemon = daemon(&fixture)
        .set("nats.user", "relay")
        .set("nats.password", "secret")
        .set("nats.ack_timeout", "500ms")
        .set("route.on_denied", "retry")
        .set("route.attempts", 1_000)
        .set("route.max_delay", "1s")
        .start();
    let workload = fixture.workload(steady(&set));
    let nats = fixture.nats.own();
    let strikes = async {
        for _ in 0..set.strikes {
            pause(&mut set, 500..=1_000).await;
            nats.options_mut().extra = accounts(DENIED);
            nats.reload().await.unwrap();
            pause(&mut set, 500..=2_000).await;
            if set.random.percent(50) {
                daemon.kill9();
                daemon.start_again();
                pause(&mut set, 0..=1_000).await;
            }
            nats.options_mut().extra = accounts(GRANTED);
            nats.reload().await.unwrap();
        }
    };
    let (ledger, ()) = work_during(workload, strikes).await;
    let mut tally = conclude(&fixture, &ledger, &set).await;
    look_at_resources(&daemon, &mut tally);
    tally
}
