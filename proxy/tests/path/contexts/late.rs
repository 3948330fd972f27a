//! Calls that end at their own deadline.
//!
//! Claims: calls-46

use std::sync::atomic::Ordering::Relaxed;

use http::HeaderValue;

use super::*;
use crate::path::shown::{self, Does, grpc, serve};

/// The one that is late is the first attempt or, where each has a limit, the second.
#[tokio::test]
async fn call_unanswered_at_deadline_causes_no_upstream_retry() {
    for (backend_request, attempts) in [(None, 1), (Some(Duration::from_millis(100)), 2)] {
        let chain = Chain::new().await;
        let next = chain.asks([SILENCE, SILENCE]).await;
        chain.api.set(vec![policy_of(&EffectivePolicy {
            timeouts: limited(Timeouts {
                request: Some(Duration::from_millis(300)),
                backend_request,
                ..Timeouts::DEFAULT
            }),
            ..EffectivePolicy::default()
        })]);
        let call = chain.called("GET", PARENT).await;
        let request = chain.request().await;
        let (status, answer) = ask(&chain.api, "GET", PARENT, "").await;
        assert_eq!(status, 504, "{answer}");
        assert!(answer.contains("weft-reason: deadline"), "{answer}");
        assert_eq!(next.iter().map(App::request_count).sum::<usize>(), attempts);
        request.answer(UNAVAILABLE).await;
        assert!(chain.is_quiet().await, "no retry");
        assert_eq!(call.await.unwrap().0, 503);
        assert_eq!(retries(&chain.web, "spent"), 1.0, "{}", chain.web.metrics());
    }
}

/// The head of a gRPC answer and two bytes.
const ENDLESS: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\n\
                       transfer-encoding: chunked\r\ntrailer: grpc-status\r\n\r\n2\r\nab\r\n";

/// A caller that leaves for a reason of its own has seen nothing of the time.
#[tokio::test]
async fn grpc_response_unfinished_at_deadline_causes_no_upstream_retry() {
    let leaves = Duration::from_secs(1);
    for (time, patience, late) in [("900m", SOON, true), ("60S", leaves, false)] {
        let chain = Chain::new().await;
        let next = chain.asks([ENDLESS]).await;
        let call = chain.called("GET", PARENT).await;
        let request = chain.request().await;
        let mut stream = chain.api.call(vip()).await;
        let asks = format!(
            "POST / HTTP/1.1\r\nHost: web.shop\r\nConnection: close\r\nContent-Length: 4\r\n\
             content-type: application/grpc\r\nte: trailers\r\ngrpc-timeout: {time}\r\n\
             {PARENT}\r\ncall"
        );
        let answer = raw(&mut stream, asks.as_bytes(), patience).await;
        crash(stream);
        let started = answer.starts_with("HTTP/1.1 200") && answer.contains("ab");
        assert!(started, "{answer}");
        if late {
            broken_off(&next[0]).await;
        } else {
            sleep(Duration::from_millis(300)).await;
        }
        request.answer(UNAVAILABLE).await;
        if late {
            assert_eq!(call.await.unwrap().0, 503, "no retry");
            assert_eq!(retries(&chain.web, "spent"), 1.0, "{}", chain.web.metrics());
        } else {
            chain.request().await.answer(OK).await;
            assert_eq!(call.await.unwrap().0, 200, "{time} marks nothing");
        }
        assert_eq!(next[0].request_count(), 1);
    }
}

/// Waits while the clock is paused, which it is as long as a task has work.
async fn at_once(done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < SOON, "it never came");
        tokio::task::yield_now().await;
    }
}

/// A client of gRPC counts the time that it gives a call, and leaves a moment before its proxy
/// would say that it is over.
#[tokio::test]
async fn grpc_call_cancelled_at_deadline_causes_no_upstream_retry() {
    for (waits, late) in [(899, true), (500, false)] {
        let chain = Chain::new().await;
        let listener = TcpListener::bind((chain.next.ip, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let there = endpoint(chain.next.ip, port, Some("api"));
        chain.api.set(vec![endpoints("api", vec![there])]);
        let request_count = serve(listener, Does::Hangs);
        let call = chain.called("GET", PARENT).await;
        let request = chain.request().await;
        let outbound = ["direction=\"outbound\""];
        let left = || sum(&chain.api, "weft_requests_cancelled_total", &outbound);
        let mut sender = grpc(&chain.api).await;
        // All connections are open before the clock is paused: some need time.
        let first = tokio::spawn(sender.send_request(shown::call()));
        at_once(|| request_count.load(Relaxed) == 1).await;
        first.abort();
        at_once(|| left() == 1.0).await;
        let mut asks = shown::call();
        let map = asks.headers_mut();
        map.insert("grpc-timeout", HeaderValue::from_static("900m"));
        let parent = PARENT.trim_end().trim_start_matches("traceparent: ");
        map.insert("traceparent", HeaderValue::from_static(parent));
        tokio::time::pause();
        let answer = tokio::spawn(sender.send_request(asks));
        at_once(|| request_count.load(Relaxed) == 2).await;
        tokio::time::advance(Duration::from_millis(waits)).await;
        answer.abort();
        at_once(|| left() == 2.0).await;
        tokio::time::resume();
        request.answer(UNAVAILABLE).await;
        if late {
            assert_eq!(call.await.unwrap().0, 503, "no retry");
            assert_eq!(retries(&chain.web, "spent"), 1.0, "{}", chain.web.metrics());
        } else {
            chain.request().await.answer(OK).await;
            assert_eq!(call.await.unwrap().0, 200, "after {waits} ms");
        }
        assert_eq!(request_count.load(Relaxed), 2);
    }
}
