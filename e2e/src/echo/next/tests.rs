//! Chains of instances over loopback.
//!
//! Claims: calls-79

use std::{collections::BTreeSet, net::SocketAddr, time::Instant};

use http::Method;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::echo::{
    client::Failure,
    fault, grpc,
    load::Plan,
    reply::Report,
    request_log::{self, LogSnapshot, Record, RequestState},
    serve::Bound,
    settings::Settings,
};

/// One instance of a chain.
struct Link {
    http: SocketAddr,
    call: SocketAddr,
}

async fn link(pod: &str, change: impl FnOnce(&mut Settings)) -> Link {
    let mut settings = Settings {
        pod: pod.into(),
        ..Settings::on_free_ports()
    };
    change(&mut settings);
    let bound = Bound::bind(settings).await.unwrap();
    let addresses = bound.addresses().unwrap();
    tokio::spawn(bound.serve(std::future::pending()));
    Link {
        http: addresses[0],
        call: addresses[3],
    }
}

/// The last of a chain.
async fn last() -> Link {
    link("c", |_| {}).await
}

async fn calls_on(pod: &str, next: SocketAddr, propagate: Propagate) -> Link {
    let url = format!("http://{next}");
    let change = |settings: &mut Settings| {
        settings.next = Some(url);
        settings.propagate = propagate;
    };
    link(pod, change).await
}

impl Link {
    fn ask(&self, path: &str) -> Ask {
        Ask::get(&format!("http://{}{path}", self.http)).unwrap()
    }

    /// What reached it below `path`.
    async fn got(&self, path: &str) -> Vec<Record> {
        let url = format!("http://{}{}?only={path}", self.call, request_log::PATH);
        let answer = Client::new(Ask::get(&url).unwrap()).send().await.unwrap();
        let response: LogSnapshot = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(response.lost, 0);
        response.records
    }

    async fn forget(&self) {
        let url = format!("http://{}{}", self.call, request_log::PATH);
        let mut ask = Ask::get(&url).unwrap();
        ask.method = Method::DELETE;
        let answer = Client::new(ask).send().await.unwrap();
        assert_eq!(answer.status.as_u16(), 200);
    }

    /// The one request for `path`, once it has ended.
    async fn ended(&self, path: &str) -> Record {
        let started = Instant::now();
        loop {
            let got = self.got(path).await;
            assert!(got.len() <= 1, "{got:?}");
            match got.into_iter().next() {
                Some(record) if record.how != RequestState::Open => return record,
                seen => assert!(started.elapsed() < Duration::from_secs(2), "{seen:?}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn ask_next(ask: Ask) -> (u16, Report) {
    let answer = Client::new(ask).send().await.unwrap();
    let report = serde_json::from_slice(&answer.body).unwrap();
    (answer.status.as_u16(), report)
}

#[tokio::test]
async fn forwarded_call_keeps_request_and_returns_status_and_hops() {
    let c = last().await;
    let b = calls_on("b", c.http, Propagate::Nothing).await;
    let a = calls_on("a", b.http, Propagate::Nothing).await;
    let mut ask = a.ask("/write/7?status=418");
    ask.method = Method::POST;
    ask.body = "hello".into();
    // The second goes by kept connections.
    for at in 0..2 {
        let (status, report) = ask_next(ask.clone()).await;
        assert_eq!(status, 418);
        assert_eq!((report.pod.as_str(), report.body_bytes), ("a", 5));
        assert_eq!(report.hops, ["b", "c"]);
        let got = c.got("/write").await;
        assert_eq!(got.len(), at + 1);
        let record = &got[at];
        assert_eq!(record.method, "POST");
        assert_eq!(record.path, "/write/7?status=418");
        assert_eq!(record.headers["content-length"], "5");
        assert_eq!(
            (record.how, record.status),
            (RequestState::Answered, Some(418))
        );
        assert!(record.ended.is_some_and(|ended| ended >= record.began));
    }
    let (status, report) = ask_next(c.ask("/")).await;
    assert_eq!(
        (status, report.hops.len()),
        (200, 0),
        "the last one calls no other"
    );
}

#[tokio::test]
async fn forwarder_propagates_exactly_the_configured_headers() {
    let sent = [
        (
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
        ("weft-context", "0123456789abcdef"),
        ("x-other", "1"),
    ];
    for (propagate, along) in [
        ("none", vec![]),
        ("trace", vec!["traceparent"]),
        ("context", vec!["traceparent", "weft-context"]),
    ] {
        let c = last().await;
        let b = calls_on("b", c.http, Propagate::parse(propagate).unwrap()).await;
        let mut ask = b.ask("/");
        for (name, value) in sent {
            ask.headers.insert(name, HeaderValue::from_static(value));
        }
        assert_eq!(ask_next(ask).await.0, 200);
        let record = c.ended("/").await;
        let mut came = Vec::new();
        for (name, value) in sent {
            if record.headers.get(name).map(String::as_str) == Some(value) {
                came.push(name);
            }
        }
        assert_eq!(came, along, "{propagate}: {record:?}");
    }
    assert!(Propagate::parse("all").is_err());
}

#[tokio::test]
async fn caller_cancellation_cancels_all_downstream_calls() {
    let c = link("c", |settings| settings.delay = Duration::from_secs(20)).await;
    let b = calls_on("b", c.http, Propagate::Nothing).await;
    let a = calls_on("a", b.http, Propagate::Nothing).await;
    for (path, http2) in [("/one", false), ("/two", true)] {
        let mut ask = a.ask(path);
        ask.http2 = http2;
        ask.timeout = Duration::from_millis(300);
        let started = Instant::now();
        let none = Client::new(ask).send().await.unwrap_err();
        assert_eq!(none.failure, Failure::Timeout);
        for link in [&a, &b, &c] {
            let record = link.ended(path).await;
            assert_eq!((record.how, record.status), (RequestState::Cancelled, None));
        }
        assert!(started.elapsed() < Duration::from_secs(2));
    }
}

#[tokio::test]
async fn abandoned_call_is_reset_and_not_only_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let a = calls_on("a", listener.local_addr().unwrap(), Propagate::Nothing).await;
    let mut ask = a.ask("/");
    ask.timeout = Duration::from_millis(300);
    let left = async { Client::new(ask).send().await.unwrap_err() };
    let (none, accepted) = tokio::join!(left, listener.accept());
    assert_eq!(none.failure, Failure::Timeout);
    let (mut stream, _) = accepted.unwrap();
    let mut chunk = [0; 1024];
    loop {
        let read = tokio::time::timeout(Duration::from_secs(2), stream.read(&mut chunk));
        match read.await.expect("the call ends") {
            Ok(1..) => {}
            Ok(0) | Err(_) => break,
        }
    }
    // After a reset the kernel forgets who was at the other end; of an end alone it does not.
    let started = Instant::now();
    while stream.peer_addr().is_ok() {
        assert!(
            started.elapsed() < Duration::from_secs(1),
            "closed, not reset"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn body_above_limit_is_not_forwarded() {
    let c = last().await;
    let b = calls_on("b", c.http, Propagate::Nothing).await;
    for (long, status) in [(LONGEST, 200), (LONGEST + 1, 413)] {
        let mut ask = b.ask("/long");
        ask.method = Method::POST;
        ask.body = vec![b'x'; long].into();
        let answer = Client::new(ask).send().await.unwrap();
        assert_eq!(answer.status.as_u16(), status);
    }
    let got = c.got("/long").await;
    assert_eq!(got.len(), 1, "{got:?}");
    assert_eq!(got[0].headers["content-length"], LONGEST.to_string());
}

fn unary(link: &Link, status: &'static str) -> Ask {
    let mut ask = link.ask("/weft.echo.Echo/Unary");
    ask.method = Method::POST;
    ask.http2 = true;
    ask.body = grpc::message(b"hello");
    for (name, value) in [
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        (GRPC_STATUS_WISH, status),
    ] {
        ask.headers.insert(name, HeaderValue::from_static(value));
    }
    ask
}

#[tokio::test]
async fn grpc_status_is_that_of_last_service() {
    let c = last().await;
    let b = calls_on("b", c.http, Propagate::Nothing).await;
    let a = calls_on("a", b.http, Propagate::Nothing).await;
    for status in ["0", "14"] {
        c.forget().await;
        let answer = Client::new(unary(&a, status)).send().await.unwrap();
        assert_eq!(answer.trailers["grpc-status"], status);
        assert_eq!(answer.body, grpc::message(b"hello"));
        assert_eq!(c.ended("/weft.echo").await.status, Some(200));
    }
}

#[tokio::test]
async fn fault_at_last_service_yields_trailers_only_or_delay() {
    let c = last().await;
    let b = calls_on("b", c.http, Propagate::Nothing).await;
    let delay = Duration::from_millis(300);
    for (fault, status, takes) in [
        (r#"{"delay": "300ms"}"#, "0", delay),
        (
            r#"{"status": 503, "only": "/weft.echo"}"#,
            "14",
            Duration::ZERO,
        ),
        (
            r#"{"status": 503, "only": "/products"}"#,
            "0",
            Duration::ZERO,
        ),
    ] {
        let mut order = c.ask(fault::PATH);
        order.method = Method::POST;
        order.body = fault.into();
        assert_eq!(Client::new(order).send().await.unwrap().status, 200);
        let started = Instant::now();
        let answer = Client::new(unary(&b, "0")).send().await.unwrap();
        assert!(started.elapsed() >= takes, "{fault}");
        let alone = status != "0";
        assert_eq!(answer.headers.contains_key("grpc-status"), alone, "{fault}");
        let expected = if alone {
            &answer.headers
        } else {
            &answer.trailers
        };
        assert_eq!(expected["grpc-status"], status, "{fault}");
    }
}

#[tokio::test]
async fn unreachable_next_service_is_reported() {
    let unreachable: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let b = calls_on("b", unreachable, Propagate::Nothing).await;
    let answer = Client::new(b.ask("/")).send().await.unwrap();
    assert_eq!(answer.status.as_u16(), 502);
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(
        text.contains("NEXT") && text.contains("127.0.0.1:1"),
        "{text}"
    );
    let answer = Client::new(unary(&b, "0")).send().await.unwrap();
    assert_eq!(answer.headers["grpc-status"], "14");
    for bad in ["ftp://c:8080", "http://c:8080/path", "http://c/?a=b", "c"] {
        let error = Next::new(bad, Propagate::Nothing).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("NEXT") && text.contains(bad), "{text}");
    }
}

#[tokio::test]
async fn witness_is_notified_once_request_head_arrives() {
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let set_witness = |settings: &mut Settings, witness: SocketAddr| {
        settings.witness = Some(format!("http://{witness}"));
    };
    let c = last().await;
    let a = link("a", |settings| set_witness(settings, c.http)).await;
    let mut stream = TcpStream::connect(a.http).await.unwrap();
    let unfinished = format!(
        "POST /half HTTP/1.1\r\nhost: a\r\ntraceparent: {TRACE}\r\ncontent-length: 9\r\n\r\nabc"
    );
    stream.write_all(unfinished.as_bytes()).await.unwrap();
    let record = c.ended("/half").await;
    assert_eq!(record.method, "POST");
    assert_eq!(record.headers["traceparent"], TRACE);
    let (status, report) = ask_next(a.ask("/whole")).await;
    assert_eq!((status, report.hops.len()), (200, 0), "it is no NEXT");
    assert_eq!(c.ended("/whole").await.status, Some(200));

    // A request that the witness did not receive is not served.
    let unreachable: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let b = link("b", |settings| set_witness(settings, unreachable)).await;
    let answer = Client::new(b.ask("/")).send().await.unwrap();
    assert_eq!(answer.status.as_u16(), 502);
}

#[tokio::test]
async fn traced_load_starts_one_trace_per_request() {
    let c = last().await;
    for (path, traced, traces) in [("/own", true, 20), ("/none", false, 0)] {
        let mut ask = c.ask(path);
        ask.traced = traced;
        let plan = Plan {
            ask,
            requests: 20,
            connections: 2,
            rate: None,
            duration: None,
        };
        assert_eq!(plan.run().await.answered, 20);
        let got = c.got(path).await;
        assert_eq!(got.len(), 20);
        let headers = got.iter().filter_map(|one| one.headers.get("traceparent"));
        let ids = headers.filter_map(|parent| parent.split('-').nth(1));
        let ids: BTreeSet<&str> = ids.filter(|id| id.len() == 32).collect();
        assert_eq!(ids.len(), traces, "{got:?}");
    }
}
