//! Tests of a long outage of the broker: no event dies, none is stored twice, and memory stays
//! constant.

use std::time::Duration;

use super::support::{DEADLINE, Fixture, app, eventually, let_pass};

/// Deadline for a hundred thousand rows on a machine that is busy with other work.
const LONG_DEADLINE: Duration = Duration::from_mins(8);

/// Duration of the outage: 8 s, or the value of `OUTAGE_SECONDS`. `OUTAGE_SECONDS=600` gives the
/// ten minutes of the promise.
fn outage() -> Duration {
    let seconds = std::env::var("OUTAGE_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(8))
}

/// Resident memory of the program, in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Samples the program's memory for this time. Returns the medians of the second and of the last
/// quarter, in KiB.
async fn watch_memory(pid: u32, time: Duration) -> (u64, u64) {
    let mut samples = Vec::new();
    let end = tokio::time::Instant::now() + time;
    while tokio::time::Instant::now() < end {
        samples.push(resident(pid));
        let_pass(time / 80).await;
    }
    let median = |part: &[u64]| {
        let mut part = part.to_vec();
        part.sort_unstable();
        part[part.len() / 2]
    };
    let quarter = samples.len() / 4;
    (median(&samples[quarter..2 * quarter]), median(&samples[3 * quarter..]))
}

/// The broker forgets ids after three seconds and is away for longer. Messages that were in flight
/// cannot be sent again without a scan of the stream.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_longer_than_the_brokers_memory_repeats_and_kills_nothing() {
    let mut fixture = Fixture::own_nats().await;
    let client = fixture.connect().await;
    client.batch_execute("SET synchronous_commit = off").await.unwrap();
    let daemon = fixture
        .daemon()
        .set("nats.ack_timeout", "1s")
        .set("stream.duplicate_window", "3s")
        .allow_log("lost the connection to NATS")
        .allow_log("waiting for NATS")
        .allow_log("nothing can be published just now")
        .start();
    app::insert_backlog(&client, 20_000, 1_000).await;
    let jetstream = fixture.jetstream().await;
    let (url, stream) = (fixture.nats.url(), fixture.stream.clone());
    drop(jetstream);
    app::wait_stored(&url, &stream, 2_000, LONG_DEADLINE).await;
    // The broker is killed in the middle of a drain, with hundreds of messages in flight.
    fixture.nats.own().kill9().unwrap();
    let arriving = async {
        for _ in 0..40 {
            app::insert_backlog(&client, 2_000, 1_000).await;
            let_pass(outage() / 50).await;
        }
    };
    let (memory, ()) = tokio::join!(watch_memory(daemon.pid(), outage()), arriving);
    fixture.nats.own().start_again().await.unwrap();
    let messages = fixture.wait_stored(100_000, LONG_DEADLINE).await;
    assert!(fixture.wait_drained(LONG_DEADLINE).await);

    let mut places: Vec<u64> = Vec::with_capacity(messages.len());
    let mut last_of_key = std::collections::HashMap::new();
    for message in &messages {
        let place: u64 = message.header("ce-sequence").unwrap().parse().unwrap();
        let key = message.header("ce-subject").unwrap().to_owned();
        let before = last_of_key.insert(key, place).unwrap_or(0);
        assert!(before < place, "{place} follows {before}");
        places.push(place);
    }
    places.sort_unstable();
    places.dedup();
    assert_eq!((messages.len(), places.len()), (100_000, 100_000), "stored, different");
    let dead = r#"SELECT count(*) FROM "postrider".letter"#;
    assert_eq!(client.query_one(dead, &[]).await.unwrap().get::<_, i64>(0), 0);
    let (early, late) = memory;
    println!("memory in the second and last quarter of the outage: {early} and {late} KiB");
    assert!(late < early + early / 20 + 512, "{early} KiB, then {late} KiB");
}

/// Every answer is lost, and the messages that are sent again and again must not use up memory.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_thousand_unanswered_publishes_leave_nothing_behind() {
    const WANTED: f64 = 50_000.0;
    let mut fixture = Fixture::own_nats().await;
    let client = fixture.connect().await;
    let daemon = fixture
        .daemon()
        .set("nats.ack_timeout", "100ms")
        .set("nats.ping_interval", "120s")
        .set("stream.duplicate_window", "10m")
        .allow_log("nothing can be published just now")
        .allow_log("lost the connection to NATS")
        .allow_log("waiting for NATS")
        .admin()
        .start();
    app::insert_backlog(&client, 10, 10).await;
    fixture.wait_stored(10, DEADLINE).await;
    // The frozen server takes messages and answers none. Each freeze is too short to end the
    // connection.
    let unconfirmed = async || {
        let body = daemon.get("/metrics").await.map(|answer| answer.body).unwrap_or_default();
        let line = body.lines().find(|line| {
            line.starts_with("postrider_publish_failures_total") && line.contains("unconfirmed")
        });
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or(0.0)
    };
    app::insert_backlog(&client, 30_000, 30_000).await;
    let (mut first, mut last) = (0, 0);
    let end = tokio::time::Instant::now() + LONG_DEADLINE;
    while unconfirmed().await < WANTED && tokio::time::Instant::now() < end {
        fixture.nats.own().freeze().unwrap();
        let_pass(Duration::from_millis(400)).await;
        fixture.nats.own().thaw().unwrap();
        let_pass(Duration::from_millis(20)).await;
        app::insert_backlog(&client, 2_000, 30_000).await;
        last = resident(daemon.pid());
        if first == 0 && unconfirmed().await >= WANTED / 4.0 {
            first = last;
        }
    }
    let count = unconfirmed().await;
    println!("{count} unanswered publishes: {first} KiB after a quarter, {last} KiB at the end");
    assert!(count >= WANTED, "only {count} publishes stayed unanswered");
    assert!(last < first + first / 5 + 1024, "{first} KiB, then {last} KiB");
    assert!(fixture.wait_drained(LONG_DEADLINE).await);
    eventually("nothing is on its way", DEADLINE, async || {
        let body = daemon.get("/metrics").await.unwrap().body;
        body.contains("postrider_in_flight_messages{route=\"default\"} 0")
    })
    .await;
}
