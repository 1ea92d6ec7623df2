//! Tests of the programs in `examples/`, against real servers and the real relay. The programs are
//! killed while they run.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use async_nats::jetstream::consumer::{Info, PullConsumer};
use postrider::dev::servers::{Signal, send_signal};
use tokio_postgres::Client;

use super::support::{DEADLINE, Fixture, eventually};

const ORDERS: i64 = 400;

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Path of the Python that has the packages of the examples.
fn python() -> PathBuf {
    let python = project(".tools/venv/bin/python");
    let has_packages = Command::new(&python)
        .args(["-c", "import psycopg, nats"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    assert!(
        has_packages,
        "no Python with psycopg and nats-py in .tools/venv: run deploy/dev/install-services.sh examples"
    );
    python
}

/// A running example program. Dropping the value kills it.
struct Example {
    name: &'static str,
    child: Child,
}

impl Example {
    fn start(name: &'static str, args: &[&str]) -> Self {
        let script = project("examples/python").join(name);
        let child = Command::new(python()).arg("-u").arg(script).args(args).spawn().unwrap();
        Self { name, child }
    }

    fn signal(&mut self, signal: Signal) {
        let ended = self.child.try_wait().unwrap();
        assert_eq!(ended, None, "{} ended by itself", self.name);
        send_signal(self.child.id(), signal).unwrap();
    }

    fn kill9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

struct Shop {
    fixture: Fixture,
    client: Client,
}

impl Shop {
    async fn open() -> Self {
        let fixture = Fixture::new().await;
        let client = fixture.connect().await;
        let tables = std::fs::read_to_string(project("examples/shop.sql")).unwrap();
        client.batch_execute(&tables).await.unwrap();
        Self { fixture, client }
    }

    fn producer(&self) -> Example {
        let (database, orders) = (self.fixture.database_url(), ORDERS.to_string());
        Example::start("producer.py", &["--database", &database, "--orders", &orders])
    }

    fn consumer(&self) -> Example {
        let (database, nats) = (self.fixture.database_url(), self.fixture.nats.url());
        let subject = self.fixture.subject("shop.order.placed");
        let args = ["--database", &database, "--nats", &nats, "--stream", &self.fixture.stream];
        // The short wait makes the broker redeliver soon what a killed consumer had fetched.
        let more = ["--subject", &subject, "--ack-wait", "1"];
        Example::start("consumer.py", &[args.as_slice(), &more].concat())
    }

    async fn number(&self, query: &str) -> i64 {
        self.client.query_one(query, &[]).await.unwrap().get(0)
    }

    async fn applied(&self) -> i64 {
        self.number("SELECT coalesce(sum(orders), 0)::int8 FROM shop.spending").await
    }

    async fn consumer_info(&self) -> Info {
        let stream = self.fixture.jetstream().await.get_stream(&self.fixture.stream).await.unwrap();
        let consumer: PullConsumer = stream.get_consumer("spending").await.unwrap();
        consumer.cached_info().clone()
    }
}

impl Shop {
    /// Tries to kill the consumer between its commit and the broker's receipt of its
    /// acknowledgement. Returns whether it was killed at that point.
    async fn kill_before_ack(&self, consumer: &mut Example) -> bool {
        for _ in 0..100 {
            consumer.signal(Signal::Stop);
            let info = self.consumer_info().await;
            // The stream has no messages for other consumers, so its last sequence is the number of
            // delivered messages.
            let acked = info.delivered.stream_sequence - info.num_ack_pending as u64;
            let is_caught = self.applied().await.unsigned_abs() > acked;
            if is_caught {
                consumer.kill9();
                return true;
            }
            consumer.signal(Signal::Continue);
        }
        consumer.kill9();
        false
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_order_counts_once_though_consumer_and_relay_are_killed_in_mid_run() {
    let shop = Shop::open().await;
    let mut relay = shop.fixture.daemon().start();
    let mut producer = shop.producer();
    shop.fixture.wait_stored(1, DEADLINE).await;
    let mut consumer = shop.consumer();
    let mut caught = 0;
    for kill in 1..=6 {
        let due = kill * ORDERS / 8;
        let is_due = async || shop.applied().await >= due;
        eventually(format!("{due} orders applied"), DEADLINE, is_due).await;
        caught += u32::from(shop.kill_before_ack(&mut consumer).await);
        if kill % 3 == 0 {
            relay.kill9();
            relay.start_again();
        }
        consumer = shop.consumer();
    }
    let placed = async || producer.child.try_wait().unwrap();
    let status = eventually("the end of the producer", DEADLINE, placed).await;
    assert!(status.success(), "{status}");
    let at_rest = async || {
        let info = shop.consumer_info().await;
        shop.applied().await >= ORDERS && info.num_pending == 0 && info.num_ack_pending == 0
    };
    eventually("all orders applied and acknowledged", DEADLINE * 2, at_rest).await;

    assert_eq!(shop.number("SELECT count(*) FROM shop.orders").await, ORDERS);
    assert_eq!(shop.applied().await, ORDERS);
    let wrong = "SELECT count(*) FROM shop.spending AS s WHERE (s.orders, s.total) IS DISTINCT FROM
        (SELECT (count(*), sum(o.total)) FROM shop.orders AS o WHERE o.customer = s.customer)";
    assert_eq!(shop.number(wrong).await, 0);
    // If no kill came at that point, the test would have shown nothing.
    assert!(caught > 0, "the consumer was never killed between its commit and its acknowledgement");
}
