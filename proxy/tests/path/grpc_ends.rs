//! Ends of gRPC calls, in trailers alone or behind messages: what they show of the endpoint, and
//! what the caller gets.
//!
//! Claims: calls-2

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::SendRequest;
use parking_lot::Mutex;
use policy::traffic::EffectivePolicy;
use policy::traffic::call::{Retry, Timeouts};
use policy::traffic::endpoint::Breaker;
use policy::traffic::set::{GrpcCode, GrpcCodes, Percent};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use wire::v1::Protocol;

use super::answers::{limited, policy_of, retries, sum, whole};
use super::shown::{call, grpc};
use crate::support::{Pod, endpoint, endpoints, pair};

const STATUS: &str = "grpc-status";
const OK: &str = "0";
const UNAVAILABLE: &str = "14";
const EJECTIONS: &str = "weft_ejections_total";
const RESTING: &str = "weft_ejected_endpoints";
/// Answers of each endpoint before one of them fails: those of two are enough to compare with,
/// and all together save enough for the retries.
const WARM: usize = 20;
/// Calls while it is ejected, which are over long before that is.
const WATCHED: usize = 40;
/// So many failures in a row make an endpoint rest.
const ROW: usize = 5;

/// What an application answers.
#[derive(Clone, Copy)]
struct Reply {
    status: &'static str,
    /// Nothing stands before the status, not even a head.
    trailers_only: bool,
    after: Duration,
}

/// A gRPC application that answers every call alike.
struct App {
    port: u16,
    request_count: Arc<AtomicUsize>,
    reply: Arc<Mutex<Reply>>,
}

impl App {
    async fn new(pod: &Pod, reply: Reply) -> Self {
        let listener = TcpListener::bind((pod.ip, 0)).await.unwrap();
        let app = Self {
            port: listener.local_addr().unwrap().port(),
            request_count: Arc::default(),
            reply: Arc::new(Mutex::new(reply)),
        };
        let (request_count, reply) = (Arc::clone(&app.request_count), Arc::clone(&app.reply));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(
                    stream,
                    Arc::clone(&request_count),
                    Arc::clone(&reply),
                ));
            }
        });
        app
    }

    fn request_count(&self) -> usize {
        self.request_count.load(Relaxed)
    }
}

async fn serve(
    stream: TcpStream,
    request_count: Arc<AtomicUsize>,
    reply: Arc<Mutex<Reply>>,
) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(request) = connection.accept().await {
        let (_, respond) = request?;
        request_count.fetch_add(1, Relaxed);
        let reply = *reply.lock();
        tokio::spawn(answer(respond, reply));
    }
    Ok(())
}

async fn answer(mut respond: SendResponse<Bytes>, reply: Reply) -> Result<(), h2::Error> {
    sleep(reply.after).await;
    let status = HeaderValue::from_static(reply.status);
    let head = Response::builder().header("content-type", "application/grpc");
    if reply.trailers_only {
        let head = head.header(STATUS, status).body(()).unwrap();
        respond.send_response(head, true)?;
        return Ok(());
    }
    let mut stream = respond.send_response(head.body(()).unwrap(), false)?;
    stream.send_data(Bytes::from_static(b"\0\0\0\0\0"), false)?;
    let trailers = [(HeaderName::from_static(STATUS), status)];
    stream.send_trailers(HeaderMap::from_iter(trailers))
}

/// From now on calls of `api` go to these applications of `server`.
fn served_by(client: &Pod, server: &Pod, apps: &[App]) {
    let all = apps
        .iter()
        .map(|app| endpoint(server.ip, app.port, Some("api")));
    client.set(vec![endpoints("api", all.collect())]);
}

/// How a call ended, and which of the mesh's reasons its answer gives.
async fn made(mut sender: SendRequest<Empty<Bytes>>) -> (String, Option<String>) {
    let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
    let (head, body) = sender.send_request(call()).await.unwrap().into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().and_then(|trailers| trailers.get(STATUS));
    let status = head.headers.get(STATUS).or(trailers);
    let status = status.map_or_else(String::new, text);
    (status, head.headers.get("weft-reason").map(text))
}

/// One of three ends with UNAVAILABLE so, and calls may be retried for it or not.
#[derive(Clone, Copy, Debug)]
struct Outage {
    trailers_only: bool,
    listed: bool,
}

impl Outage {
    /// Whether a call that fails there is one more try away from an answer.
    const fn is_hidden(self) -> bool {
        self.trailers_only && self.listed
    }

    async fn passes(self) {
        let (client, server, _, _) = pair(Protocol::Http2).await;
        let reply = |status| Reply {
            status,
            trailers_only: self.trailers_only,
            after: Duration::ZERO,
        };
        let apps = [
            App::new(&server, reply(OK)).await,
            App::new(&server, reply(OK)).await,
            App::new(&server, reply(OK)).await,
        ];
        served_by(&client, &server, &apps);
        if self.listed {
            client.set(vec![policy_of(&EffectivePolicy {
                retry: limited(Retry {
                    grpc_codes: GrpcCodes::of(&[GrpcCode::Unavailable]),
                    ..Retry::DEFAULT
                }),
                ..EffectivePolicy::default()
            })]);
        }
        let mut calls = Calls::of(grpc(&client).await);
        while apps.iter().any(|app| app.request_count() < WARM) {
            calls.make(self, &client).await;
        }
        assert_eq!(calls.failed, 0, "{self:?}: all is well");

        let bad = &apps[0];
        let before = bad.request_count();
        *bad.reply.lock() = reply(UNAVAILABLE);
        while sum(&client, EJECTIONS, &["cause=\"failures\""]) == 0.0 {
            calls.make(self, &client).await;
        }
        assert_eq!(sum(&client, RESTING, &[]), 1.0, "{}", client.metrics());
        for _ in 0..WATCHED {
            calls.make(self, &client).await;
        }
        let at_bad = bad.request_count() - before;
        assert_eq!(at_bad, ROW, "{self:?}: nothing while it rests");
        let (failed, again) = if self.is_hidden() { (0, ROW) } else { (ROW, 0) };
        assert_eq!(calls.failed, failed, "{self:?}");
        assert_eq!(retries(&client, "success"), again as f64, "{self:?}");
        let request_count = apps.iter().map(App::request_count).sum::<usize>();
        assert_eq!(
            request_count,
            calls.made + again,
            "{self:?}: no other came twice"
        );
    }
}

/// Calls one after the other.
struct Calls {
    sender: SendRequest<Empty<Bytes>>,
    made: usize,
    failed: usize,
}

impl Calls {
    const fn of(sender: SendRequest<Empty<Bytes>>) -> Self {
        Self {
            sender,
            made: 0,
            failed: 0,
        }
    }

    async fn make(&mut self, outage: Outage, client: &Pod) {
        let (status, _) = made(self.sender.clone()).await;
        self.made += 1;
        self.failed += usize::from(status != OK);
        assert!([OK, UNAVAILABLE].contains(&&*status), "{status}");
        // An endpoint with a slow first response gets calls again once that measurement has
        // decayed.
        sleep(Duration::from_millis(10)).await;
        assert!(self.made < 1500, "{outage:?}: {}", client.metrics());
    }
}

/// The same as of those that answer 503. What begins with a head, or is not listed, is seen by
/// one application alone.
#[tokio::test]
async fn five_unavailable_grpc_responses_eject_endpoint_retried_where_listed() {
    let outages = [(true, true), (true, false), (false, true), (false, false)];
    let outages = outages.map(|(trailers_only, listed)| Outage {
        trailers_only,
        listed,
    });
    join_all(outages.map(Outage::passes)).await;
}

/// An answer that takes longer than an attempt may, in a call that goes on since it is the last.
async fn late(reply: Reply) {
    let (client, server, _, _) = pair(Protocol::Http2).await;
    let apps = [App::new(&server, reply).await];
    served_by(&client, &server, &apps);
    client.set(vec![policy_of(&EffectivePolicy {
        timeouts: limited(Timeouts {
            request: Some(Duration::from_secs(5)),
            backend_request: Some(Duration::from_millis(200)),
            ..Timeouts::DEFAULT
        }),
        breaker: whole(Breaker {
            failure_percent: Percent::at_most(100),
            min_requests: 10,
            open_time: Duration::from_secs(60),
            ..Breaker::DEFAULT
        }),
        ..EffectivePolicy::default()
    })]);
    let sender = grpc(&client).await;
    let case = format!(
        "{} in trailers alone: {}",
        reply.status, reply.trailers_only
    );
    for calls in [9, 1] {
        let answers = join_all((0..calls).map(|_| made(sender.clone()))).await;
        let expected = (reply.status.to_owned(), None);
        assert!(
            answers.iter().all(|answer| *answer == expected),
            "{case}: {answers:?}"
        );
    }
    assert_eq!(apps[0].request_count(), 10, "{case}: nine did not open it");
    let refused = (UNAVAILABLE.to_owned(), Some("circuit-open".to_owned()));
    assert_eq!(made(sender).await, refused, "{case}");
    assert_eq!(apps[0].request_count(), 10, "{case}");
}

/// Counted twice nine of them would open it, and as successes in the end ten would not.
#[tokio::test]
async fn overlong_grpc_call_is_one_failure_despite_trailers() {
    let mut cases = Vec::new();
    for status in [OK, UNAVAILABLE] {
        for trailers_only in [true, false] {
            cases.push(late(Reply {
                status,
                trailers_only,
                after: Duration::from_millis(800),
            }));
        }
    }
    join_all(cases).await;
}
