//! Tests in which the program is killed: no event is lost, repeated or reordered, and publishing
//! resumes soon.

use std::time::Duration;

use postrider::dev::{random::Random, servers::NatsOptions, stream_reader::count_messages};

use super::support::{
    DEADLINE, Fixture, audit::awkward, eventually, let_pass, postgres::without_two_phase_commit,
    stopwatch::Stopwatch,
};

/// Deadline for a million rows on a machine that is busy with other work.
const LONG_DEADLINE: Duration = Duration::from_mins(8);

#[tokio::test(flavor = "multi_thread")]
async fn thirty_kills_under_load_lose_repeat_and_reorder_nothing() {
    let mut fixture = Fixture::new().await;
    let mut daemon = fixture.daemon().start();

    let kills = async |_: &mut Fixture| {
        let mut random = Random::new(30);
        let mut published = 0;
        for kill in 0..30 {
            // Before every other kill the relay has begun to publish, however slow the machine is.
            if kill % 2 == 0 {
                daemon.wait_log("relaying", DEADLINE).await;
            }
            let_pass(Duration::from_millis(random.between(100, 500).into())).await;
            published += u32::from(daemon.log().contains("relaying"));
            daemon.kill9();
            daemon.start_again();
        }
        published
    };
    let (report, published) = fixture.under_load(awkward(2_000, 200), kills).await;

    assert!(report.committed > 5_000, "{report}");
    assert!(published >= 15, "only {published} of 30 kills hit a relay at work");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_killed_at_random_costs_nothing() {
    let servers = (without_two_phase_commit(), NatsOptions::default());
    let mut fixture = Fixture::with(Some(servers.0), Some(servers.1)).await;
    let mut daemon = fixture
        .daemon()
        .allow_log("the relay stopped leading")
        .allow_log("waiting for")
        .allow_log("trying again")
        .allow_log("nothing can be published just now")
        .allow_log("lost the connection to NATS")
        .start();

    let kills = async |fixture: &mut Fixture| {
        let (postgres, nats) = (fixture.postgres.own(), fixture.nats.own());
        let mut random = Random::new(4);
        for _ in 0..12 {
            let_pass(Duration::from_millis(random.between(100, 700).into())).await;
            // Each bit of `victims` stands for one program to kill, so that up to three die at
            // once.
            let victims = random.between(1, 7);
            if victims & 1 != 0 {
                daemon.kill9();
            }
            if victims & 2 != 0 {
                nats.kill9().unwrap();
            }
            if victims & 4 != 0 {
                postgres.kill9().unwrap();
            }
            let_pass(Duration::from_millis(random.between(0, 300).into())).await;
            if victims & 1 != 0 {
                daemon.start_again();
            }
            if victims & 2 != 0 {
                nats.start_again().await.unwrap();
            }
            if victims & 4 != 0 {
                postgres.start_again().await.unwrap();
            }
        }
    };
    let (report, ()) = fixture.under_load(awkward(1_000, 100), kills).await;

    assert!(report.committed > 500, "{report}");
}

/// Acceptance: the relay resumes within 2 s after the kill, stores no event twice, and loses none.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_while_a_million_rows_drain_repeats_none_of_them() {
    const ROWS: i64 = 1_000_000;
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    client.batch_execute("SET synchronous_commit = off").await.unwrap();
    client
        .execute(
            r#"INSERT INTO "postrider".outbox (event_type, aggregate_type, aggregate_id, payload)
            SELECT 'load.made', 'load', (n % 10000)::text,
                json_build_object('n', n, 'pad', repeat('x', 80))
            FROM generate_series(0, $1::bigint - 1) AS n"#,
            &[&ROWS],
        )
        .await
        .unwrap();
    let jetstream = fixture.jetstream().await;
    let count = async || count_messages(&jetstream, &fixture.stream).await.unwrap();
    let mut daemon = fixture.daemon().start();
    let half = ROWS.unsigned_abs() / 2;
    eventually("half of the rows", LONG_DEADLINE, async || count().await >= half).await;

    daemon.kill9();
    let at_kill = count().await;
    let watch = Stopwatch::start();
    daemon.start_again();
    eventually("the first new row", DEADLINE, async || count().await > at_kill).await;
    let resumed = watch.stop();

    assert!(fixture.wait_drained(LONG_DEADLINE).await, "{} stored", count().await);
    assert!(at_kill < ROWS.unsigned_abs(), "the kill came too late");
    assert!(resumed <= Duration::from_secs(2), "resumed after {resumed:?}");
    check_backlog(&fixture, ROWS).await;
}

/// Asserts that the stream has every row once, and those of a key in order. For so many rows this
/// is cheaper than the workload's ledger.
async fn check_backlog(fixture: &Fixture, rows: i64) {
    let messages = fixture.read_stream().await;
    let mut arrived = vec![false; usize::try_from(rows).unwrap()];
    let mut newest = vec![0; 10_000];
    let (mut duplicates, mut inversions) = (0, 0);
    for message in &messages {
        let number = message.json()["n"].as_u64().unwrap();
        let index = usize::try_from(number).unwrap();
        let before = &mut newest[index % 10_000];
        inversions += u32::from(*before > number);
        *before = number;
        duplicates += u32::from(std::mem::replace(&mut arrived[index], true));
    }
    let lost = arrived.iter().filter(|came| !**came).count();
    assert_eq!((lost, duplicates, inversions), (0, 0, 0), "lost, duplicates, inversions");
}
