//! Ejection of endpoints that fail.
//!
//! Claims: calls-2, calls-24, calls-39, calls-67

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use policy::traffic::EffectivePolicy;
use policy::traffic::call::Timeouts;
use policy::traffic::endpoint::Ejection;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use wire::v1::Protocol;

use super::answers::{
    App, OK, SILENCE, SLOW, TRUNCATED, UNAVAILABLE, ask, limited, policy_of, retries, served_by,
    sum, whole,
};
use crate::support::{Pod, endpoint, endpoints, pair, vip};

const EJECTIONS: &str = "weft_ejections_total";
const RESTING: &str = "weft_ejected_endpoints";

/// Three applications, of which the first answers 503.
async fn one_of_three() -> (Pod, Pod, [App; 3]) {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let apps = [
        App::new(server.ip, UNAVAILABLE).await,
        App::new(server.ip, OK).await,
        App::new(server.ip, OK).await,
    ];
    let [bad, one, other] = &apps;
    served_by(&client, &server, &[bad, one, other]);
    (client, server, apps)
}

#[tokio::test]
async fn endpoint_answering_503_is_ejected_without_resent_posts() {
    let (client, server, apps) = one_of_three().await;
    let [bad, one, other] = &apps;
    // As many responses as a comparison needs, before the bad one gets a call.
    served_by(&client, &server, &[one, other]);
    let mut posts = 0;
    while posts < 20 {
        assert_eq!(ask(&client, "POST", "", "{}").await.0, 200);
        posts += 1;
    }
    served_by(&client, &server, &[bad, one, other]);
    while sum(&client, EJECTIONS, &[]) == 0.0 {
        ask(&client, "POST", "", "{}").await;
        posts += 1;
        // An endpoint with a slow first response gets calls again once that measurement has
        // decayed.
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(posts < 500, "it must rest: {}", client.metrics());
    }
    let labels = ["service=\"shop/api\"", "cause=\"failures\""];
    assert_eq!(sum(&client, EJECTIONS, &labels), 1.0);
    assert_eq!(sum(&client, RESTING, &[]), 1.0);
    assert_eq!(bad.request_count(), 5, "and not once more");
    for _ in 0..50 {
        assert_eq!(ask(&client, "POST", "", "{}").await.0, 200);
        posts += 1;
    }
    assert_eq!(bad.request_count(), 5, "nothing, while it rests");
    assert_eq!(apps.iter().map(App::request_count).sum::<usize>(), posts);
}

/// Their heads look as good as those of the others.
#[tokio::test]
async fn the_one_of_three_that_truncates_its_answers_rests() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let bad = App::new(server.ip, TRUNCATED).await;
    let others = [App::new(server.ip, OK).await, App::new(server.ip, OK).await];
    served_by(&client, &server, &[&bad, &others[0], &others[1]]);
    let mut gets = 0;
    while sum(&client, EJECTIONS, &["cause=\"failures\""]) == 0.0 {
        ask(&client, "GET", "", "").await;
        gets += 1;
        // An endpoint with a slow first response gets calls again once that measurement has
        // decayed.
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(gets < 500, "it must rest: {}", client.metrics());
    }
    let before = bad.request_count();
    for _ in 0..50 {
        let (status, answer) = ask(&client, "GET", "", "").await;
        assert!(status == 200 && answer.ends_with("ok"), "{answer}");
    }
    assert_eq!(bad.request_count(), before, "nothing, while it rests");
}

/// The only attempt of a POST goes on for as long as the call may take, but each attempt without a
/// response after `backendRequest` counts as a failure.
#[tokio::test]
async fn silent_endpoint_is_ejected_while_its_posts_wait() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let silent = App::new(server.ip, SILENCE).await;
    let others = [
        App::new(server.ip, SLOW).await,
        App::new(server.ip, SLOW).await,
    ];
    served_by(&client, &server, &[&silent, &others[0], &others[1]]);
    client.set(vec![policy_of(&EffectivePolicy {
        timeouts: limited(Timeouts {
            request: Some(Duration::from_secs(2)),
            backend_request: Some(Duration::from_millis(200)),
            ..Timeouts::DEFAULT
        }),
        ..EffectivePolicy::default()
    })]);
    let posts = join_all((0..60).map(|_| ask(&client, "POST", "", "{}")));
    let rests = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        sum(&client, EJECTIONS, &["cause=\"failures\""])
    };
    let (posts, rests) = tokio::join!(posts, rests);
    let waited = posts.iter().filter(|(status, _)| *status == 504).count();
    assert_eq!(rests, 1.0, "{waited} wait: {}", client.metrics());
    assert!(waited >= 5, "{waited}");
    assert_eq!(silent.request_count(), waited);
    let request_count = others.iter().map(App::request_count).sum::<usize>();
    assert_eq!(request_count + waited, 60, "none was sent twice");
    for (status, answer) in join_all((0..10).map(|_| ask(&client, "POST", "", "{}"))).await {
        assert_eq!(status, 200, "{answer}");
    }
    assert_eq!(silent.request_count(), waited, "nothing, while it rests");
}

#[tokio::test]
async fn all_that_fail_alike_are_left_in_peace() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let mut apps = Vec::new();
    for _ in 0..3 {
        apps.push(App::new(server.ip, UNAVAILABLE).await);
    }
    served_by(&client, &server, &apps.iter().collect::<Vec<_>>());
    // Some at a time, so that the one with the slowest first response gets calls as well.
    for _ in 0..25 {
        join_all((0..6).map(|_| ask(&client, "POST", "", "{}"))).await;
    }
    assert_eq!(sum(&client, EJECTIONS, &[]), 0.0, "{}", client.metrics());
    assert!(apps.iter().all(|app| app.request_count() > 10));
}

#[tokio::test]
async fn a_policy_switches_ejection_off() {
    let (client, _server, apps) = one_of_three().await;
    client.set(vec![policy_of(&EffectivePolicy {
        ejection: whole(Ejection {
            consecutive_failures: 0,
            ..Ejection::DEFAULT
        }),
        ..EffectivePolicy::default()
    })]);
    let mut posts = 0;
    while apps[0].request_count() <= 20 {
        ask(&client, "POST", "", "{}").await;
        posts += 1;
        // An endpoint with a slow first response gets calls again once that measurement has
        // decayed.
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(posts < 1000, "{} of {posts}", apps[0].request_count());
    }
    assert_eq!(sum(&client, EJECTIONS, &[]), 0.0, "{}", client.metrics());
}

/// One of two is down, and is ejected. The other one's response is all that its callers can get.
#[tokio::test]
async fn response_is_not_abandoned_for_ejected_endpoint() {
    let Rests {
        client,
        server,
        app,
        unreachable,
    } = one_of_two_rests(Protocol::Http1, UNAVAILABLE, Duration::from_secs(60)).await;
    let there = |port| endpoint(server.ip, port, Some("api"));
    for _ in 0..3 {
        let (status, answer) = ask(&client, "GET", "", "").await;
        assert_eq!(status, 503, "{answer}");
        assert!(answer.ends_with("no"), "the application's own: {answer}");
    }
    assert_eq!(sum(&client, "weft_retries_total", &[]), 0.0);
    // A working endpoint takes the retry.
    let good = App::new(server.ip, OK).await;
    let all = vec![there(unreachable.port()), there(app.port), there(good.port)];
    client.set(vec![endpoints("api", all)]);
    let mut gets = 0;
    while retries(&client, "success") == 0.0 {
        assert_eq!(ask(&client, "GET", "", "").await.0, 200);
        gets += 1;
        assert!(gets < 300, "the failing one must be asked");
    }
}

/// A gRPC application with this status in trailers; its number of requests.
pub(super) async fn grpc_app(
    pod: &Pod,
    metadata: &[(&'static str, &'static str)],
) -> (u16, Arc<AtomicUsize>) {
    let mut trailers = HeaderMap::new();
    for (name, value) in metadata {
        trailers.insert(*name, HeaderValue::from_static(value));
    }
    let listener = TcpListener::bind((pod.ip, 0)).await.unwrap();
    let (port, request_count) = (
        listener.local_addr().unwrap().port(),
        Arc::new(AtomicUsize::new(0)),
    );
    let log = Arc::clone(&request_count);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (log, trailers) = (Arc::clone(&log), trailers.clone());
            let service = hyper::service::service_fn(move |_: Request<_>| {
                log.fetch_add(1, Relaxed);
                let frames = [
                    Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"\0\0\0\0\0"))),
                    Ok(Frame::trailers(trailers.clone())),
                ];
                let body = StreamBody::new(tokio_stream::iter(frames));
                let response = Response::builder().header("content-type", "application/grpc");
                async move { response.body(body) }
            });
            tokio::spawn(async move {
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = builder
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    (port, request_count)
}

#[tokio::test]
async fn failed_status_in_grpc_trailers_ejects_endpoint() {
    one_of_three_rests(&[("grpc-status", "14")]).await;
}

#[tokio::test]
async fn grpc_endpoint_without_a_status_rests() {
    one_of_three_rests(&[]).await;
}

/// Of three gRPC applications one ends its answers with these trailers.
async fn one_of_three_rests(bad: &[(&'static str, &'static str)]) {
    let (client, server, _, _) = pair(Protocol::Http2).await;
    let mut apps = Vec::new();
    let good: &[(&'static str, &'static str)] = &[("grpc-status", "0")];
    for trailers in [bad, good, good] {
        apps.push(grpc_app(&server, trailers).await);
    }
    let all = apps
        .iter()
        .map(|(port, _)| endpoint(server.ip, *port, Some("api")));
    client.set(vec![endpoints("api", all.collect())]);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(
        TokioExecutor::new(),
        TokioIo::new(client.call(vip()).await),
    )
    .await
    .unwrap();
    let _connection = tokio::spawn(connection);
    let mut calls = 0;
    while sum(&client, EJECTIONS, &["cause=\"failures\""]) == 0.0 {
        let request = Request::post("http://web.shop/a.B/C")
            .header("content-type", "application/grpc")
            .body(Empty::<Bytes>::new())
            .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        answer.into_body().collect().await.unwrap();
        calls += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(calls < 500, "it must rest: {}", client.metrics());
    }
    let request_count = apps
        .iter()
        .map(|(_, request_count)| request_count.load(Relaxed));
    assert_eq!(request_count.sum::<usize>(), calls, "none was sent twice");
}

/// One of two applications is down, and its endpoint is ejected.
struct Rests {
    client: Pod,
    server: Pod,
    /// The one that is there.
    app: App,
    /// Where the other one was.
    unreachable: SocketAddr,
}

async fn one_of_two_rests(protocol: Protocol, answer: &'static str, base_time: Duration) -> Rests {
    let (client, server, _, _) = pair(protocol).await;
    let closed = TcpListener::bind((server.ip, 0)).await.unwrap();
    let unreachable = closed.local_addr().unwrap();
    drop(closed);
    let app = App::new(server.ip, answer).await;
    let all = [unreachable.port(), app.port].map(|port| endpoint(server.ip, port, Some("api")));
    client.set(vec![endpoints("api", all.to_vec())]);
    client.set(vec![policy_of(&EffectivePolicy {
        ejection: whole(Ejection {
            consecutive_failures: 1,
            base_time,
            ..Ejection::DEFAULT
        }),
        ..EffectivePolicy::default()
    })]);
    let mut posts = 0;
    while sum(&client, EJECTIONS, &["cause=\"unreachable\""]) == 0.0 {
        ask(&client, "POST", "", "{}").await;
        posts += 1;
        assert!(posts < 300, "it must rest: {}", client.metrics());
    }
    Rests {
        client,
        server,
        app,
        unreachable,
    }
}

/// A connection that probes the endpoint, at its application, which is back. No bytes pass on it,
/// nor on the `silent` ones, which stay open.
async fn silent_probe(
    client: &Pod,
    back: &TcpListener,
    silent: &mut Vec<TcpStream>,
) -> io::Result<TcpStream> {
    loop {
        silent.push(client.call(vip()).await);
        let accepted = tokio::time::timeout(Duration::from_millis(200), back.accept());
        if let Ok(accepted) = accepted.await {
            return accepted.map(|(stream, _)| stream);
        }
        assert!(silent.len() < 100, "its rest is over: {}", client.metrics());
    }
}

#[tokio::test]
async fn silent_connection_is_no_successful_ejection_probe() -> io::Result<()> {
    let rests = one_of_two_rests(Protocol::Detect, OK, Duration::from_secs(1)).await;
    let (client, unreachable) = (&rests.client, rests.unreachable);
    let back = TcpListener::bind(unreachable).await?;
    let mut silent = Vec::new();
    let probed = silent_probe(client, &back, &mut silent).await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(sum(client, RESTING, &[]), 1.0, "{}", client.metrics());
    drop(probed);
    Ok(())
}

/// Its client may keep such a connection for hours. Each of them would keep the next probe off
/// for ten seconds, so that 100 connections, a fifth of a second apart, were not enough for five.
#[tokio::test]
async fn silently_closed_probe_makes_room_for_next_one() -> io::Result<()> {
    let rests = one_of_two_rests(Protocol::Detect, OK, Duration::from_secs(1)).await;
    let (client, unreachable) = (&rests.client, rests.unreachable);
    let back = TcpListener::bind(unreachable).await?;
    let (mut silent, mut ended) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let mut probed = silent_probe(client, &back, &mut silent).await?;
        probed.shutdown().await?;
        ended.push(probed);
    }
    assert_eq!(sum(client, RESTING, &[]), 1.0, "{}", client.metrics());
    Ok(())
}
