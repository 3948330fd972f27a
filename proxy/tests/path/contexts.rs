//! Calls that an application makes while it serves a request: their deadline, their end when the
//! request's caller has left, and retries by one layer only.
//!
//! Claims: calls-43, calls-45, calls-46

use std::time::{Duration, Instant};

use policy::traffic::EffectivePolicy;
use policy::traffic::call::{Retry, Timeouts};
use policy::traffic::endpoint::{Breaker, BreakerState};
use policy::traffic::set::Percent;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use wire::v1::Protocol;

use super::answers::{
    App, OK, SILENCE, UNAVAILABLE, ask, limited, policy_of, retries, served_by, sum, whole,
};
use super::deadlines::{PARTIAL_RESPONSE, SWITCHED, broken_off};
use crate::support::{Authority, Pod, endpoint, endpoints, raw, service, vip};

mod abandoned;
mod late;
mod spare;
mod trailers;

const SOON: Duration = Duration::from_secs(5);
const PARENT: &str = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";
const OTHER: &str = "traceparent: 00-00000000000000000000000000000001-00f067aa0ba902b7-01\r\n";

/// `web` calls `api`, whose application calls the next one.
struct Chain {
    web: Pod,
    api: Pod,
    /// Where the next one runs.
    next: Pod,
    /// Two applications of `api`, by hand.
    listeners: [TcpListener; 2],
}

/// A request, as an application has it.
struct Request {
    head: String,
    stream: TcpStream,
}

impl Chain {
    async fn new() -> Self {
        let authority = Authority::new();
        let web = Pod::new(&authority, "web").await;
        let api = Pod::new(&authority, "api").await;
        let next = Pod::new(&authority, "api").await;
        let listen = || TcpListener::bind((api.ip, 0));
        let listeners = [listen().await.unwrap(), listen().await.unwrap()];
        for caller in [&web, &api] {
            caller.set(service("api", vip().ip(), Protocol::Http1, Vec::new()));
        }
        let ports = listeners.each_ref().map(|one| one.local_addr().unwrap());
        let all = ports.map(|addr| endpoint(api.ip, addr.port(), Some("api")));
        web.set(vec![endpoints("api", all.to_vec())]);
        Self {
            web,
            api,
            next,
            listeners,
        }
    }

    /// The next one answers so.
    async fn asks<const N: usize>(&self, answers: [&'static str; N]) -> Vec<App> {
        let mut apps = Vec::new();
        for answer in answers {
            apps.push(App::new(self.next.ip, answer).await);
        }
        served_by(&self.api, &self.next, &apps.iter().collect::<Vec<_>>());
        apps
    }

    /// A request of `web` with these headers: the status, and all that came.
    async fn called(&self, method: &str, headers: &str) -> JoinHandle<(u16, String)> {
        let mut client = self.web.call(vip()).await;
        let request =
            format!("{method} / HTTP/1.1\r\nHost: web.shop\r\nConnection: close\r\n{headers}\r\n");
        tokio::spawn(async move {
            let answer = raw(&mut client, request.as_bytes(), SOON * 2).await;
            let status = answer.get(9..12).and_then(|status| status.parse().ok());
            (status.unwrap_or(0), answer)
        })
    }

    /// The next request that one of the applications of `api` gets.
    async fn request(&self) -> Request {
        let [one, other] = &self.listeners;
        let accepted = async {
            tokio::select! {
                accepted = one.accept() => accepted,
                accepted = other.accept() => accepted,
            }
        };
        let (mut stream, _) = timeout(SOON, accepted).await.unwrap().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = timeout(SOON, stream.read_u8()).await.unwrap().unwrap();
            head.push(byte);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        Request { head, stream }
    }

    /// Whether no application of `api` gets a request for a while.
    async fn is_quiet(&self) -> bool {
        let [one, other] = &self.listeners;
        let no_request = async {
            tokio::select! {
                _ = one.accept() => {}
                _ = other.accept() => {}
            }
        };
        let asked = timeout(Duration::from_millis(300), no_request).await;
        asked.is_err()
    }
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// What its application passes on by name.
    fn context(&self) -> String {
        let name = self.header("weft-context").expect("it has a name");
        assert_eq!(name.len(), 16, "{name}");
        format!("weft-context: {name}\r\n")
    }

    async fn answer(mut self, answer: &str) {
        self.stream.write_all(answer.as_bytes()).await.unwrap();
        // Kept until it is read.
        tokio::spawn(async move { self.stream.read_u8().await });
    }
}

fn millis(value: &str) -> u64 {
    value.strip_suffix("ms").unwrap().parse().unwrap()
}

fn left_at(app: &App) -> u64 {
    let head = app.heads().last().cloned().unwrap();
    let mut lines = head.lines();
    millis(
        lines
            .find_map(|line| line.strip_prefix("weft-timeout: "))
            .unwrap(),
    )
}

async fn until_asked(app: &App) {
    let started = Instant::now();
    while app.request_count() == 0 {
        assert!(started.elapsed() < SOON, "it was never asked");
        sleep(Duration::from_millis(2)).await;
    }
}

fn of_context(pod: &Pod, how: &str) -> f64 {
    sum(pod, "weft_context_total", &[&format!("how=\"{how}\"")])
}

#[tokio::test]
async fn call_inherits_remaining_time_by_context_or_trace() {
    for by_name in [true, false] {
        let chain = Chain::new().await;
        let next = chain.asks([SILENCE]).await;
        let call = chain
            .called("GET", &format!("weft-timeout: 900ms\r\n{PARENT}"))
            .await;
        let request = chain.request().await;
        let left_ms = millis(request.header("weft-timeout").unwrap());
        assert!((500..=900).contains(&left_ms), "{left_ms}");
        let started = Instant::now();
        sleep(Duration::from_millis(300)).await;
        let passed_on = if by_name {
            request.context()
        } else {
            PARENT.to_owned()
        };
        let (status, answer) = ask(&chain.api, "GET", &passed_on, "").await;
        let took = started.elapsed();
        assert_eq!(status, 504, "{answer}");
        assert!(answer.contains("weft-reason: deadline"), "{answer}");
        assert!((500..1500).contains(&took.as_millis()), "{took:?}");
        let left = left_at(&next[0]);
        assert!((100..=600).contains(&left), "it shrinks on the way: {left}");
        let head = &next[0].heads()[0];
        assert!(!head.contains("weft-rest"), "{head}");
        assert!(head.contains("weft-context"), "it has an end too: {head}");
        broken_off(&next[0]).await;
        assert_eq!(call.await.unwrap().0, 504);
        let how = if by_name { "context" } else { "trace" };
        assert_eq!(of_context(&chain.api, how), 1.0, "{}", chain.api.metrics());
    }
}

#[tokio::test]
async fn call_gets_policy_share_of_remaining_time() {
    let chain = Chain::new().await;
    let next = chain.asks([SILENCE]).await;
    chain.api.set(vec![policy_of(&EffectivePolicy {
        timeouts: limited(Timeouts {
            share: Percent::at_most(20),
            ..Timeouts::DEFAULT
        }),
        ..EffectivePolicy::default()
    })]);
    let _call = chain.called("GET", "weft-timeout: 4000ms\r\n").await;
    let request = chain.request().await;
    let started = Instant::now();
    let (status, answer) = ask(&chain.api, "GET", &request.context(), "").await;
    assert_eq!(status, 504, "{answer}");
    let took = started.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    let left = left_at(&next[0]);
    assert!((400..=800).contains(&left), "{left}");
}

#[tokio::test]
async fn call_without_known_context_or_trace_is_independent() {
    let chain = Chain::new().await;
    let next = chain.asks([OK]).await;
    let call = chain
        .called("GET", &format!("weft-timeout: 400ms\r\n{PARENT}"))
        .await;
    let _request = chain.request().await;
    assert_eq!(call.await.unwrap().0, 504);
    for headers in [
        "",
        OTHER,
        PARENT,
        "weft-context: 0123456789abcdef\r\n",
        "weft-context: x\r\n",
    ] {
        let (status, answer) = ask(&chain.api, "GET", headers, "").await;
        assert_eq!(status, 200, "{headers}: {answer}");
    }
    for head in next[0].heads() {
        assert!(
            !head.contains("weft-timeout") && !head.contains("weft-context"),
            "{head}"
        );
    }
    assert_eq!(of_context(&chain.api, "none"), 5.0);
}

#[tokio::test]
async fn write_outlives_parent_deadline_but_nothing_new_starts() {
    let chain = Chain::new().await;
    let next = chain.asks([SILENCE]).await;
    let call = chain
        .called("GET", &format!("weft-timeout: 500ms\r\n{PARENT}"))
        .await;
    let request = chain.request().await;
    let context = request.context();
    let writer = {
        let head = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n{context}\r\n");
        let mut stream = chain.api.call(vip()).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    };
    until_asked(&next[0]).await;
    assert_eq!(call.await.unwrap().0, 504);
    sleep(Duration::from_millis(300)).await;
    assert_eq!(next[0].ended(), 0, "half of it may be done");
    for method in ["GET", "POST"] {
        let (status, answer) = ask(&chain.api, method, &context, "").await;
        assert_eq!(status, 504, "{method}: {answer}");
        assert!(answer.contains("weft-reason: deadline"), "{answer}");
    }
    assert_eq!(next[0].request_count(), 1, "no further request");
    assert_eq!(of_context(&chain.api, "over"), 2.0);
    drop(writer);
}

#[tokio::test]
async fn calls_for_upgraded_connection_outlive_its_request_deadline() {
    let chain = Chain::new().await;
    let next = chain.asks([OK]).await;
    let mut caller = chain.web.call(vip()).await;
    let head = format!(
        "GET / HTTP/1.1\r\nHost: web.shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         weft-timeout: 400ms\r\n{PARENT}\r\n"
    );
    caller.write_all(head.as_bytes()).await.unwrap();
    let mut request = chain.request().await;
    request.stream.write_all(SWITCHED.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    timeout(SOON, caller.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
    sleep(Duration::from_millis(700)).await;
    for headers in [PARENT, &request.context()] {
        for method in ["GET", "POST"] {
            let (status, answer) = ask(&chain.api, method, headers, "").await;
            assert_eq!(status, 200, "{method} {headers}: {answer}");
        }
    }
    assert_eq!(next[0].request_count(), 4);
}

#[tokio::test]
async fn unbounded_request_prevails_among_two_of_same_trace() {
    let chain = Chain::new().await;
    let next = chain.asks([SILENCE]).await;
    let first = chain
        .called("GET", &format!("weft-timeout: 600ms\r\n{PARENT}"))
        .await;
    let _first = chain.request().await;
    let _second = chain.called("GET", PARENT).await;
    let second = chain.request().await;
    assert_eq!(second.header("weft-context"), None, "it has no end");
    let mut call = chain.api.call(vip()).await;
    let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{PARENT}\r\n");
    call.write_all(head.as_bytes()).await.unwrap();
    until_asked(&next[0]).await;
    assert_eq!(first.await.unwrap().0, 504);
    sleep(Duration::from_millis(300)).await;
    assert_eq!(next[0].ended(), 0, "its caller may wait");
    assert!(!next[0].heads()[0].contains("weft-timeout"));
}

/// Drops the connection so that the other end gets a reset.
fn crash(stream: TcpStream) {
    let linger = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    linger.unwrap();
    drop(stream);
}

#[tokio::test]
async fn departed_caller_cancels_reads_but_not_writes() {
    for (answer, method, ends) in [
        (SILENCE, "GET", true),
        (PARTIAL_RESPONSE, "GET", true),
        (SILENCE, "POST", false),
    ] {
        let chain = Chain::new().await;
        let next = chain.asks([answer]).await;
        let mut caller = chain.web.call(vip()).await;
        let head = b"GET / HTTP/1.1\r\nHost: h\r\nweft-timeout: 60000ms\r\n\r\n";
        caller.write_all(head).await.unwrap();
        let request = chain.request().await;
        let mut call = chain.api.call(vip()).await;
        let context = request.context();
        let head = format!("{method} / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n{context}\r\n");
        call.write_all(head.as_bytes()).await.unwrap();
        until_asked(&next[0]).await;
        if answer == PARTIAL_RESPONSE {
            call.read_u8().await.unwrap();
        }
        assert_eq!(next[0].ended(), 0);
        crash(caller);
        if ends {
            broken_off(&next[0]).await;
        } else {
            sleep(Duration::from_millis(500)).await;
            assert_eq!(next[0].ended(), 0, "half of it may be done");
        }
        let (status, answer) = ask(&chain.api, method, &context, "").await;
        assert_eq!(status, 504, "nothing begins: {answer}");
        assert_eq!(next[0].request_count(), 1);
    }
}

fn trying_again(attempts: u8) -> EffectivePolicy {
    let mut retry = Retry {
        attempts,
        ..Retry::DEFAULT
    };
    retry.budget.min_per_second = 1000;
    EffectivePolicy {
        retry: limited(retry),
        ..EffectivePolicy::default()
    }
}

#[tokio::test]
async fn call_retried_downstream_is_not_retried_upstream() {
    for headers in ["weft-timeout: 9000ms\r\n", PARENT, ""] {
        let chain = Chain::new().await;
        let next = chain.asks([UNAVAILABLE, UNAVAILABLE]).await;
        let call = chain.called("GET", headers).await;
        let request = chain.request().await;
        let passed_on = if headers.starts_with("weft") {
            request.context()
        } else {
            headers.to_owned()
        };
        assert_eq!(ask(&chain.api, "GET", &passed_on, "").await.0, 503);
        assert_eq!(next.iter().map(App::request_count).sum::<usize>(), 2);
        request.answer(UNAVAILABLE).await;
        if headers.is_empty() {
            // No header names the request that caused the call.
            chain.request().await.answer(OK).await;
            assert_eq!(call.await.unwrap().0, 200);
            continue;
        }
        assert!(chain.is_quiet().await, "{headers}");
        let (status, answer) = call.await.unwrap();
        assert_eq!(status, 503, "{answer}");
        assert!(!answer.contains("weft-spent"), "{answer}");
        assert_eq!(retries(&chain.web, "spent"), 1.0, "{}", chain.web.metrics());
    }
}

#[tokio::test]
async fn open_breaker_refusal_is_not_retried_upstream() {
    let chain = Chain::new().await;
    let next = chain.asks([OK]).await;
    let open = Breaker {
        state: BreakerState::Open,
        ..Breaker::DEFAULT
    };
    chain.api.set(vec![policy_of(&EffectivePolicy {
        breaker: whole(open),
        ..EffectivePolicy::default()
    })]);
    let call = chain.called("GET", PARENT).await;
    let request = chain.request().await;
    assert_eq!(ask(&chain.api, "GET", PARENT, "").await.0, 503);
    request.answer(UNAVAILABLE).await;
    assert_eq!(call.await.unwrap().0, 503, "no retry");
    assert_eq!(retries(&chain.web, "spent"), 1.0, "{}", chain.web.metrics());
    assert_eq!(next[0].request_count(), 0);
}

#[tokio::test]
async fn subcall_success_or_own_failure_allows_retry() {
    for (answer, fails) in [(OK, false), (UNAVAILABLE, true)] {
        let chain = Chain::new().await;
        let next = chain.asks([answer]).await;
        let call = chain.called("GET", PARENT).await;
        let request = chain.request().await;
        if !fails {
            assert_eq!(ask(&chain.api, "GET", PARENT, "").await.0, 200);
        }
        request.answer(UNAVAILABLE).await;
        chain.request().await.answer(OK).await;
        assert_eq!(call.await.unwrap().0, 200);
        assert_eq!(retries(&chain.web, "success"), 1.0);
        drop(next);
    }
}

#[tokio::test]
async fn calls_made_for_retry_are_not_retried() {
    for by_name in [true, false] {
        let chain = Chain::new().await;
        let next = chain.asks([UNAVAILABLE, UNAVAILABLE, UNAVAILABLE]).await;
        chain.api.set(vec![policy_of(&trying_again(1))]);
        let call = chain.called("GET", "").await;
        let first = chain.request().await;
        assert_eq!(first.header("weft-context"), None);
        first.answer(UNAVAILABLE).await;
        let second = chain.request().await;
        let passed_on = if by_name {
            second.context()
        } else {
            String::new()
        };
        assert_eq!(ask(&chain.api, "GET", &passed_on, "").await.0, 503);
        let request_count = next.iter().map(App::request_count).sum::<usize>();
        assert_eq!(request_count, if by_name { 1 } else { 2 });
        let spent = f64::from(u8::from(by_name));
        assert_eq!(retries(&chain.api, "spent"), spent);
        second.answer(OK).await;
        assert_eq!(call.await.unwrap().0, 200);
    }
}
