//! Tests of the torture suite's witness, which sees over which connection a message was published,
//! and whether that instance was the leader.

#[path = "../torture/witness.rs"]
mod torture_witness;

use std::time::Instant;

use self::torture_witness::{Witness, least_out_of_turn};
use super::support::{self, DEADLINE, Fixture, eventually};

#[tokio::test]
async fn a_witness_distinguishes_connections_and_when_each_began_to_publish() {
    let fixture = Fixture::new().await;
    let witness = Witness::start(&fixture).await;
    let client = async_nats::connect(fixture.nats.url()).await.unwrap();
    let publish = async |inbox: &str, count: u32| {
        for number in 0..count {
            let reply = format!("_INBOX.{inbox}.{number}");
            client.publish_with_reply(fixture.subject("made"), reply, "{}".into()).await.unwrap();
        }
        client.flush().await.unwrap();
    };
    let began = Instant::now();
    publish("one", 3).await;
    let first = eventually("a publish", DEADLINE, async || {
        witness.first_since(began, |inbox| inbox == "one")
    })
    .await;
    assert!(first >= began);
    assert_eq!(witness.first_since(began, |inbox| inbox != "one"), None);
    publish("two", 2).await;
    publish("one", 1).await;
    let turns = ["one", "two", "one"].map(str::to_owned).into_iter().zip([3, 2, 1]);
    let turns: Vec<_> = turns.collect();
    eventually("six publishes", DEADLINE, async || witness.turns() == turns).await;
    let second = witness.first_since(began, |inbox| inbox == "two").unwrap();
    assert!(first <= second && second <= witness.last(|inbox| inbox == "one").unwrap());
}

#[test]
fn the_fewest_publishes_are_out_of_turn_that_keep_instances_from_following_their_terms() {
    // Instances 0 and 1 publish only during their terms, any number of times.
    assert_eq!(least_out_of_turn(&[], &[0]), 0);
    assert_eq!(least_out_of_turn(&[(0, 9), (1, 9)], &[0, 1]), 0);
    assert_eq!(least_out_of_turn(&[(0, 9), (1, 9), (0, 9)], &[0, 1, 0]), 0);
    // An instance may have a term in which it publishes nothing.
    assert_eq!(least_out_of_turn(&[(0, 9), (0, 9)], &[0, 1, 0]), 0);
    // Instance 0 publishes twice more after instance 1 has begun, without leading again.
    assert_eq!(least_out_of_turn(&[(0, 9), (1, 5), (0, 2), (1, 7)], &[0, 1]), 2);
    // Instance 1 publishes once before its term.
    assert_eq!(least_out_of_turn(&[(0, 9), (1, 1), (0, 9), (1, 7)], &[0, 1]), 1);
    // Instance 2 publishes four times, and never led.
    assert_eq!(least_out_of_turn(&[(0, 9), (2, 4)], &[0, 1]), 4);
}
