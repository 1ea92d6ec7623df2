//! The admin listener, asked over real connections.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
};

use super::*;
use crate::{
    metrics::{Depth, Measured},
    relay::report::{
        flows::{FlowStatuses, ObservedFlow},
        heartbeat::Heartbeat,
        status::{GateStatus, LinkStatus, Phase, Status},
    },
    tasks,
};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

struct Server {
    address: SocketAddr,
    status: watch::Sender<Status>,
    shutdown: CancellationToken,
}

struct HttpAnswer {
    code: u16,
    head: String,
    body: String,
}

impl HttpAnswer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

impl Server {
    async fn start(status: Status) -> Self {
        let listener = bind(ANY).await.unwrap();
        let address = listener.address();
        let (status, seen) = watch::channel(status);
        let shutdown = CancellationToken::new();
        let program = Arc::new(ProgramMetrics::new());
        let metrics = Arc::new(program.flow("default"));
        let flow = ObservedFlow { route: "default".to_owned(), status: seen, metrics };
        let shown = (Flows(vec![flow]), program);
        let hosts = vec!["relay.internal".to_owned()];
        tasks::drive(serve(Ok(listener), address, hosts, shown, shutdown.clone()));
        Self { address, status, shutdown }
    }

    async fn get(&self, path: &str) -> HttpAnswer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await
    }

    async fn ask(&self, request: &str) -> HttpAnswer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let code = head.split_whitespace().nth(1).unwrap().parse().unwrap();
        HttpAnswer { code, head: head.to_owned(), body: body.to_owned() }
    }
}

fn relaying() -> Status {
    Status {
        phase: Phase::Relaying,
        postgres: LinkStatus::Up,
        nats: LinkStatus::Up,
        ..Status::starting()
    }
}

fn gate() -> GateStatus {
    GateStatus {
        kind: "misconfigured",
        text: "stream \"EVENTS\" is sealed".to_owned(),
        hint: "unseal it".to_owned(),
        since: Instant::now(),
    }
}

#[tokio::test]
async fn lives_while_the_loop_turns_whatever_the_dependencies_do() {
    let server = Server::start(Status::starting()).await;
    let answer = server.get("/livez").await;
    assert_eq!((answer.code, answer.body.as_str()), (200, "ok\n"));

    let long_ago = Instant::now().checked_sub(Duration::from_secs(17)).unwrap();
    server.status.send_modify(|status| status.last_turn = Heartbeat::start_at(long_ago));
    let answer = server.get("/livez").await;
    assert_eq!(
        (answer.code, answer.body.as_str()),
        (503, "the relay's loop last turned 17 s ago\n")
    );

    server.status.borrow().last_turn.turn(Instant::now());
    assert_eq!(server.get("/livez").await.code, 200);
}

#[tokio::test]
async fn readiness_names_what_keeps_events_from_flowing() {
    let server = Server::start(Status::starting()).await;
    let answer = server.get("/readyz").await;
    assert_eq!(answer.code, 503);
    assert_eq!(answer.body, "not ready: postgres_down, nats_down\n");

    server.status.send_replace(relaying());
    let answer = server.get("/healthz").await;
    assert_eq!((answer.code, answer.body.as_str()), (200, "ready\n"));

    let down =
        LinkStatus::Down { detail: "127.0.0.1:4222: connection refused".to_owned(), hint: None };
    server.status.send_replace(Status { nats: down.clone(), ..relaying() });
    assert_eq!(server.get("/readyz").await.body, "not ready: nats_down\n");

    server.status.send_replace(Status { phase: Phase::Standby, nats: down, ..relaying() });
    let answer = server.get("/readyz").await;
    assert_eq!(answer.code, 200);
    assert_eq!(answer.body, "ready: standby; see also: nats_down\n");

    server.status.send_replace(Status { gate: Some(gate()), ..relaying() });
    assert_eq!(server.get("/readyz").await.body, "not ready: misconfigured\n");

    server.status.send_replace(Status { phase: Phase::Stopping, ..relaying() });
    assert_eq!(server.get("/readyz").await.body, "not ready: stopping\n");
}

#[tokio::test]
async fn verbose_readiness_has_a_line_for_each_dependency_and_the_gates_hint() {
    let nats = LinkStatus::Down { detail: "connection refused".to_owned(), hint: None };
    let server = Server::start(Status { nats, gate: Some(gate()), ..relaying() }).await;
    let answer = server.get("/readyz?verbose").await;
    assert_eq!(answer.code, 503);
    let mut json = answer.json();
    assert!(json["gate"]["seconds"].as_f64().unwrap() < 60.0);
    json["gate"]["seconds"] = json!("s");
    assert_eq!(
        json,
        json!({
            "ready": false,
            "obstacles": ["nats_down", "misconfigured"],
            "findings": [
                {
                    "code": "nats_down",
                    "severity": "critical",
                    "cause": "no connection to NATS: connection refused",
                    "next": "postrider check, and see whether the server runs; the relay keeps trying",
                },
                {
                    "code": "misconfigured",
                    "severity": "critical",
                    "cause": "stream \"EVENTS\" is sealed",
                    "next": "unseal it",
                },
            ],
            "phase": "relaying",
            "leader": null,
            "dependencies": [
                {"name": "postgres", "state": "up"},
                {"name": "nats", "state": "down", "detail": "connection refused"},
            ],
            "gate": {
                "kind": "misconfigured",
                "text": "stream \"EVENTS\" is sealed",
                "hint": "unseal it",
                "seconds": "s",
            },
        })
    );
}

#[test]
fn who_asks_from_another_machine_sees_no_details() {
    let nats = LinkStatus::Down { detail: "db.internal".to_owned(), hint: None };
    let status = Status { nats, gate: Some(gate()), ..relaying() };
    let view = view::StatusView::of(
        &FlowStatuses(vec![("default".to_owned(), status)]),
        Instant::now(),
        Audience::Remote,
    );
    let text = serde_json::to_string(&view).unwrap();
    assert!(!text.contains("internal") && !text.contains("EVENTS"), "{text}");
    assert!(text.contains("misconfigured"), "{text}");
}

#[tokio::test]
async fn status_is_the_relays_state_as_json() {
    let depth = Depth { unsettled: 4, retrying: 2, held: 1, ..Depth::default() };
    let measured = Measured { at: Instant::now(), depth };
    let server = Server::start(Status { measured, term: 3, ..relaying() }).await;
    let json = server.get("/api/v1/status").await.json();
    assert_eq!(json["phase"], "relaying");
    assert_eq!((&json["backlog"], &json["term"]), (&json!(7), &json!(3)));
    assert_eq!(json["dependencies"][0], json!({"name": "postgres", "state": "up"}));
    assert!(json["last_turn_seconds"].as_f64().is_some());
}

#[tokio::test]
async fn metrics_say_what_format_they_are_in() {
    let server = Server::start(relaying()).await;
    let answer = server.get("/metrics").await;
    assert!(answer.head.contains("content-type: application/openmetrics-text; version=1.0.0"));
    assert!(answer.body.contains("postrider_build_info{"), "{}", answer.body);
    assert!(answer.body.ends_with("# EOF\n"));
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_document() {
    let server = Server::start(relaying()).await;
    for (request, code) in [
        ("GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        ("POST /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 405),
        ("GET /metrics HTTP/1.1\r\nHost: evil.example:8085\r\n\r\n", 421),
    ] {
        let answer = server.ask(request).await;
        assert_eq!(answer.code, code, "{request}");
        assert!(answer.head.contains("content-type: application/problem+json"), "{}", answer.head);
        assert!(answer.head.contains("x-content-type-options: nosniff"), "{}", answer.head);
        assert_eq!(answer.json()["status"], code);
    }
    assert_eq!(server.ask("GET /livez HTTP/1.0\r\n\r\n").await.code, 200);
}

#[tokio::test]
async fn client_that_never_finishes_its_headers_is_cut_off() {
    let server = Server::start(relaying()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: loc").await.unwrap();
    let mut answer = Vec::new();
    let cut = tokio::time::timeout(Duration::from_mins(1), stream.read_to_end(&mut answer));
    cut.await.unwrap().ok();
    assert!(answer.is_empty(), "{answer:?}");
}

#[tokio::test]
async fn port_in_use_is_an_error_that_names_the_key() {
    let taken = bind(ANY).await.unwrap();
    let error = bind(taken.address()).await.err().unwrap().to_string();
    assert!(error.starts_with(&format!("admin.listen {}: ", taken.address())), "{error}");
    assert!(error.contains("set admin.listen to a free address"), "{error}");
}

// Regression: 64 clients that connected and sent nothing kept every health check out for five
// seconds.
#[tokio::test]
async fn silent_connections_keep_no_probe_out() {
    let server = Server::start(relaying()).await;
    let began = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    assert_eq!(server.get("/livez").await.code, 200);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    // The last connection is still open.
    let open = silent.last_mut().unwrap();
    open.write_all(b"GET /livez HTTP/1.1\r\nHost: relay.internal\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    open.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn stops_listening_when_it_is_told_to() {
    let server = Server::start(relaying()).await;
    assert_eq!(server.get("/livez").await.code, 200);
    server.shutdown.cancel();
    let refused = async {
        while TcpStream::connect(server.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), refused).await.unwrap();
}
