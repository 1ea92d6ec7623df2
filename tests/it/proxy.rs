//! Tests of the TCP proxy that other tests use: what each of its modes does to the bytes between
//! two sockets.

use std::{io::ErrorKind, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};

use super::support::{
    DEADLINE, eventually, let_pass,
    proxy::{Mode, Modes, Proxy},
};

/// Time in which bytes that nothing delays surely arrive on the loopback interface.
const A_WHILE: Duration = Duration::from_millis(200);

/// A proxy, and both ends of a connection through it.
async fn conversation() -> (Proxy, TcpStream, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap().port()).await.unwrap();
    let client = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    assert_eq!(proxy.accepted(), 1);
    (proxy, client, server)
}

async fn read(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    timeout(DEADLINE, stream.read_exact(&mut bytes)).await.expect("bytes in time").unwrap();
    bytes
}

async fn is_silent(stream: &mut TcpStream) -> bool {
    timeout(A_WHILE, stream.read(&mut [0; 64])).await.is_err()
}

#[tokio::test]
async fn bytes_and_the_end_pass_both_ways() {
    let (proxy, mut client, mut server) = conversation().await;
    client.write_all(b"question").await.unwrap();
    assert_eq!(read(&mut server, 8).await, b"question");
    server.write_all(b"answer").await.unwrap();
    assert_eq!(read(&mut client, 6).await, b"answer");
    assert_eq!(proxy.clients(), 1);
    client.shutdown().await.unwrap();
    assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(proxy.clients(), 0);
    server.write_all(b"late").await.unwrap();
    assert_eq!(read(&mut client, 4).await, b"late");
}

#[tokio::test]
async fn a_delay_keeps_the_order_and_not_the_sender() {
    let (proxy, mut client, mut server) = conversation().await;
    proxy.set(Modes::to_server(Mode::Delay(A_WHILE, A_WHILE)));
    let began = Instant::now();
    for number in 0..50_u8 {
        client.write_all(&[number]).await.unwrap();
    }
    assert!(began.elapsed() < A_WHILE, "the sender waited");
    assert_eq!(read(&mut server, 50).await, (0..50).collect::<Vec<u8>>());
    assert!(began.elapsed() >= A_WHILE);
    server.write_all(b"x").await.unwrap();
    read(&mut client, 1).await;
}

#[tokio::test]
async fn slices_are_put_together_again_by_who_reads() {
    let (proxy, mut client, mut server) = conversation().await;
    proxy.set(Modes::both(Mode::Slice(3)));
    client.write_all(b"0123456789").await.unwrap();
    assert_eq!(read(&mut server, 10).await, b"0123456789");
}

#[tokio::test]
async fn a_hole_lets_nothing_through_in_its_direction_and_everything_afterwards() {
    let (proxy, mut client, mut server) = conversation().await;
    proxy.set(Modes::to_client(Mode::Hole));
    client.write_all(b"ping").await.unwrap();
    assert_eq!(read(&mut server, 4).await, b"ping");
    server.write_all(b"pong").await.unwrap();
    assert!(is_silent(&mut client).await);
    proxy.set(Modes::PASS);
    assert_eq!(read(&mut client, 4).await, b"pong");

    proxy.set(Modes::both(Mode::Hole));
    client.write_all(b"ping").await.unwrap();
    drop(client);
    // The end of the connection does not arrive either.
    assert!(is_silent(&mut server).await);
    proxy.set(Modes::PASS);
    assert_eq!(read(&mut server, 4).await, b"ping");
}

#[tokio::test]
async fn what_was_held_arrives_after_its_sender_has_gone() {
    let (proxy, mut client, mut server) = conversation().await;
    proxy.set_present(Modes::to_server(Mode::Hold));
    client.write_all(b"ghost").await.unwrap();
    eventually("bytes that are held", DEADLINE, async || proxy.held_bytes() == 5).await;
    // The client has unread bytes when it closes, so the kernel sends a reset in place of an
    // orderly end.
    server.write_all(b"unread").await.unwrap();
    let_pass(A_WHILE).await;
    drop(client);
    assert!(is_silent(&mut server).await);
    // A new connection is not affected by the mode.
    TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();

    proxy.set_present(Modes::PASS);
    assert_eq!(read(&mut server, 5).await, b"ghost");
    assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(proxy.held_bytes(), 0);
}

#[tokio::test]
async fn messages_are_held_and_the_other_frames_of_a_server_pass_them() {
    let (proxy, mut client, mut server) = conversation().await;
    proxy.set(Modes::to_client(Mode::Frames));
    server.write_all(b"MSG a 1 4\r\none\n\r\nPING\r\nHMSG a 1 ").await.unwrap();
    let passed = b"MSG a 1 4\r\none\n\r\nPING\r\n";
    assert_eq!(read(&mut client, passed.len()).await, passed);
    assert!(is_silent(&mut client).await, "half a frame");

    proxy.set(Modes::to_client(Mode::HoldMessages));
    server.write_all(b"2 6\r\nMSG \r\n\r\n-ERR 'no'\r\n").await.unwrap();
    assert_eq!(read(&mut client, 11).await, b"-ERR 'no'\r\n");
    assert!(is_silent(&mut client).await, "a message that is held");

    proxy.set(Modes::to_client(Mode::Frames));
    let held = b"HMSG a 1 2 6\r\nMSG \r\n\r\n";
    assert_eq!(read(&mut client, held.len()).await, held);
    eventually("nothing is held", DEADLINE, async || proxy.held_bytes() == 0).await;
}

#[tokio::test]
async fn a_cut_is_a_reset_for_both_sides() {
    let (proxy, mut client, mut server) = conversation().await;
    client.write_all(b"before").await.unwrap();
    read(&mut server, 6).await;
    proxy.cut();
    for stream in [&mut client, &mut server] {
        let read = timeout(DEADLINE, stream.read(&mut [0; 8])).await.unwrap();
        assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn a_cut_after_so_many_bytes_lets_just_those_pass() {
    let (proxy, mut client, mut server) = conversation().await;
    proxy.set(Modes::to_server(Mode::CutAfter(4)));
    client.write_all(b"0123456789").await.unwrap();
    let mut got = Vec::new();
    let end = timeout(DEADLINE, server.read_to_end(&mut got)).await.unwrap();
    // The reset may arrive before the bytes are read, so fewer than four may be seen.
    assert!(b"0123".starts_with(&got), "{got:?}");
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_server_that_is_gone_resets_the_client() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap().port()).await.unwrap();
    drop(listener);
    let mut client = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
    let read = timeout(DEADLINE, client.read(&mut [0; 8])).await.unwrap();
    assert!(read.is_err(), "{read:?}");
}

#[tokio::test]
async fn an_inbox_is_known_once_a_client_has_subscribed_to_it() {
    let (proxy, mut client, mut server) = conversation().await;
    let sent = b"PING\r\nSUB orders.> 1\r\nSUB _INBOX.abc123.> 2\r\nPUB _INBOX.def456.1 0\r\n\r\n";
    client.write_all(sent).await.unwrap();
    assert_eq!(read(&mut server, sent.len()).await, sent);
    assert!(proxy.knows_inbox("abc123"));
    assert!(!proxy.knows_inbox("def456") && !proxy.knows_inbox("orders"));
}
