//! Tests of the tools that check the relay: workload, stream reader and checker, on real servers.
//! The tools must accept an intact stream, and report each way in which a stream is tampered with.

use std::time::Duration;

use async_nats::{HeaderMap, jetstream::Context};
use futures_util::future::try_join_all;
use postrider::dev::{
    checker::{CheckerReport, Ledger, Observed, Order, check},
    stream_reader::read_stream,
    workload::{Options, Workload},
};
use tokio_util::sync::CancellationToken;

use super::support::{DEADLINE, Fixture, eventually, nats};

/// A database filled by the workload, and a stream that the test itself has filled from the
/// database's rows.
struct Filled {
    fixture: Fixture,
    jetstream: Context,
    ledger: Ledger,
}

impl Filled {
    async fn new(options: Options) -> Self {
        Self::on(Fixture::new().await, options).await
    }

    async fn on(fixture: Fixture, options: Options) -> Self {
        let jetstream = fixture.jetstream().await;
        nats::create_stream(&jetstream, &fixture.stream, &format!("{}.>", fixture.prefix)).await;
        let work = workload(&fixture, options);
        let ledger = work.run(&CancellationToken::new()).await.unwrap();
        let filled = Self { fixture, jetstream, ledger };
        filled.copy().await;
        filled
    }

    /// Publishes all committed rows in the order of their `seq`, after the workload has ended.
    async fn copy(&self) {
        let client = self.fixture.connect().await;
        let rows = client.query(COPY, &[]).await.unwrap();
        let publish = async |row: &tokio_postgres::Row| {
            let mut headers = HeaderMap::new();
            let pairs: Vec<&str> = row.get("headers");
            for pair in pairs.chunks(2) {
                headers.insert(pair[0], pair[1]);
            }
            let subject = self.fixture.subject(row.get("event_type"));
            let payload: &str = row.get("payload");
            let payload = payload.to_owned().into();
            self.jetstream.publish_with_headers(subject, headers, payload).await
        };
        for page in rows.chunks(256) {
            let mut acks = Vec::new();
            for row in page {
                acks.push(publish(row).await.unwrap());
            }
            try_join_all(acks.into_iter().map(IntoFuture::into_future)).await.unwrap();
        }
    }

    async fn report(&self, order: Order) -> CheckerReport {
        let stream = read_stream(&self.fixture.nats.url(), &self.fixture.stream).await.unwrap();
        check(&self.ledger, &Observed { stream, ..Observed::default() }, order)
    }
}

/// Query that makes the message of each row. It percent-encodes only the characters that the
/// workload's keys contain.
const COPY: &str = r#"
    WITH encoded AS (
        SELECT *, replace(replace(replace(aggregate_id, '%', '%25'), ' ', '%20'), 'ü', '%C3%BC')
            AS id_text
        FROM "postrider".outbox
    )
    SELECT event_type, coalesce(payload::text, '') AS payload,
        ARRAY['Nats-Msg-Id', event_id::text, 'ce-id', event_id::text, 'ce-specversion', '1.0',
              'ce-source', 'postrider', 'ce-type', event_type,
              'ce-time', to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
              'ce-datacontenttype', content_type, 'ce-kind', kind,
              'ce-eventversion', event_version::text,
              'ce-sequence', lpad(seq::text, 20, '0'), 'ce-correlationid', correlation_id]
        || CASE WHEN aggregate_id IS NOT NULL THEN
            ARRAY['ce-subject', id_text, 'ce-aggregatetype', aggregate_type,
                  'ce-aggregateversion', aggregate_version::text,
                  'ce-partitionkey', aggregate_type || '/' || id_text] ELSE '{}' END
        || CASE WHEN actor IS NOT NULL THEN
            ARRAY['ce-authid', 'Zo%C3%AB%20%22Z%22%20Q'] ELSE '{}' END
        || CASE WHEN payload IS NULL THEN ARRAY['Postrider-Null', 'true'] ELSE '{}' END
        || (SELECT coalesce(array_agg(part), '{}') FROM jsonb_each_text(headers) AS h,
            unnest(ARRAY[h.key, h.value]) AS part) AS headers
    FROM encoded ORDER BY seq"#;

fn workload(fixture: &Fixture, options: Options) -> Workload {
    Workload::new(Options {
        url: fixture.database_url(),
        subject_prefix: format!("{}.", fixture.prefix),
        ..options
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_faithful_copy_of_the_workload_is_accepted() {
    let filled = Filled::new(Options { events: 5_000, ..Options::default() }).await;
    let report = filled.report(Order::Serial).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.committed, report.stored), (5_000, 5_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_faithful_copy_of_overlapping_transactions_is_accepted() {
    let options = Options {
        events: 5_000,
        order: Order::Overlap,
        keys: 10,
        held_open_percent: 2,
        prepared_percent: 3,
        hold_max: Duration::from_millis(20),
        ..Options::default()
    };
    let filled = Filled::on(Fixture::two_phase_commit().await, options).await;
    let report = filled.report(Order::Overlap).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.committed, report.stored), (5_000, 5_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tampered_stream_is_noticed() {
    let filled = Filled::new(Options { events: 500, ..Options::default() }).await;
    let stream = filled.jetstream.get_stream(&filled.fixture.stream).await.unwrap();

    // The copy of a message gets an id of its own, and the original is deleted.
    let original = stream.get_raw_message(100).await.unwrap();
    let mut headers = original.headers.clone();
    headers.insert("Nats-Msg-Id", uuid::Uuid::new_v4().to_string());
    let publish = async |headers: HeaderMap, payload: bytes::Bytes| {
        let subject = original.subject.clone();
        filled.jetstream.publish_with_headers(subject, headers, payload).await.unwrap().await
    };
    publish(headers, original.payload.clone()).await.unwrap();
    stream.delete_message(100).await.unwrap();
    let report = filled.report(Order::Serial).await;
    assert_eq!((report.lost.middle.count, report.phantom.count), (1, 1), "{report}");
    assert_eq!((report.lost.count(), report.duplicates.count), (1, 0), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn terminated_connections_leave_the_ledger_certain() {
    let fixture = Fixture::new().await;
    let jetstream = fixture.jetstream().await;
    nats::create_stream(&jetstream, &fixture.stream, &format!("{}.>", fixture.prefix)).await;
    let work = workload(&fixture, Options { events: 5_000, ..Options::default() });
    let progress = work.progress();
    let terminate = async {
        let client = fixture.connect().await;
        let statement = "SELECT pg_terminate_backend(pid) FROM \
             (SELECT pid FROM pg_stat_activity \
              WHERE datname = current_database() AND pid <> pg_backend_pid() \
              ORDER BY random() LIMIT 1) AS victim";
        for kill in 0..100 {
            let due = async || progress.committed() >= kill * 40;
            eventually("more events", DEADLINE, due).await;
            client.query(statement, &[]).await.unwrap();
        }
    };
    let stop = CancellationToken::new();
    let ((), ledger) = tokio::join!(terminate, work.run(&stop));
    let ledger = ledger.unwrap();
    let filled = Filled { fixture, jetstream, ledger };
    filled.copy().await;
    let report = filled.report(Order::Serial).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.committed, report.stored, report.limbo), (5_000, 5_000, 0));
}
