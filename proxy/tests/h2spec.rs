//! The conformance suite of HTTP/2 against both listeners, with an application
//! behind them that answers with small bodies.
//!
//! The suite is built from its public source by `e2e/cluster/h2spec`, which
//! keeps the result; Go is needed the first time.
//!
//! Claims: mesh-16

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends with the first surprise"
)]

#[path = "support/pod.rs"]
#[allow(dead_code, reason = "shared with tests that use the rest of it")]
mod support;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, OnceLock};

use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use runtime::occupancy::Permit;
use tokio::net::{TcpListener, TcpStream};
use weft_proxy::Proxy;
use weft_proxy::{serve_outbound, serve_plain};
use wire::v1::{self, Protocol};

use support::{Pod, endpoint, endpoints, id, pair, resource, vip};

/// Cases that fail, and why they may. A case that fails and is not here fails
/// the test, and so does one that is here and no longer fails.
const EXPLAINED: &[(&str, &str, &str, &str)] = &[(
    "inbound",
    "http2/3.5",
    "Sends invalid connection preface",
    "both versions of HTTP are served on one port, so what is no preface is \
     HTTP/1.1, and is refused with a 400 of that version before the close",
)];

/// Cases of the suite, without strict ones: fewer would mean that a part of it did not run.
const CASES: usize = 140;

fn h2spec() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../e2e/cluster/h2spec");
        let built = Command::new(script).output().unwrap();
        assert!(
            built.status.success(),
            "h2spec cannot be built: {}",
            String::from_utf8_lossy(&built.stderr)
        );
        PathBuf::from(String::from_utf8(built.stdout).unwrap().trim())
    })
}

/// Accepts on the pod's address for as long as the test runs.
async fn listen<F>(
    pod: &Pod,
    serve: impl Fn(Arc<Proxy>, TcpStream) -> F + Send + 'static,
) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((pod.ip, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let proxy = Arc::clone(&pod.proxy);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(Arc::clone(&proxy), stream));
        }
    });
    addr
}

async fn conforms(listener: &str, addr: SocketAddr) {
    let report = std::env::temp_dir().join(format!("h2spec-{}-{listener}.xml", std::process::id()));
    let path = report.clone();
    let output = tokio::task::spawn_blocking(move || {
        Command::new(h2spec())
            .args(["generic", "http2", "hpack"])
            .args(["--host", &addr.ip().to_string()])
            .args(["--port", &addr.port().to_string()])
            .args(["--timeout", "2"])
            .arg("--junit-report")
            .arg(&path)
            .output()
            .unwrap()
    })
    .await
    .unwrap();
    let text = std::fs::read_to_string(&report).unwrap();
    let _ = std::fs::remove_file(&report);
    let cases = cases(&text);
    assert!(
        cases.len() >= CASES,
        "only {} cases were run: {}",
        cases.len(),
        String::from_utf8_lossy(&output.stderr)
    );
    let failed: BTreeSet<(&str, &str)> = cases
        .iter()
        .filter(|case| case.failure.is_some())
        .map(|case| (case.section, case.title))
        .collect();
    let explained: BTreeSet<(&str, &str)> = EXPLAINED
        .iter()
        .filter(|(on, ..)| *on == listener)
        .map(|(_, section, title, _)| (*section, *title))
        .collect();
    assert_eq!(failed, explained, "{text}");
}

struct Case<'a> {
    section: &'a str,
    title: &'a str,
    failure: Option<&'a str>,
}

/// The cases of a JUnit report.
fn cases(report: &str) -> Vec<Case<'_>> {
    report
        .split("<testcase ")
        .skip(1)
        .map(|case| {
            let case = case.split("</testcase>").next().unwrap_or_default();
            let attribute = |name: &str| {
                case.split_once(&format!("{name}=\""))
                    .and_then(|(_, rest)| rest.split('"').next())
                    .unwrap_or_default()
            };
            Case {
                section: attribute("package"),
                title: attribute("classname"),
                failure: case
                    .split_once('>')
                    .map(|(_, inner)| inner.trim())
                    .filter(|inner| inner.contains("<failure") || inner.contains("<error")),
            }
        })
        .collect()
}

/// The pod's own ports, declared: otherwise what is no preface would be bytes
/// that the application answers and not the proxy.
fn declared_http2() -> v1::Resource {
    let workload = v1::Workload {
        identity: id("api").as_str().to_owned(),
        enforcement: v1::Enforcement::Open as i32,
        mtls: v1::MtlsMode::Permissive as i32,
        ports: vec![v1::PortProtocol {
            first: 1,
            last: 65_535,
            protocol: Protocol::Http2 as i32,
        }],
        ..v1::Workload::default()
    };
    resource(
        wire::names::WORKLOAD,
        v1::resource::Content::Workload(workload),
    )
}

/// Answers every request with a few bytes, and HEAD without them.
async fn application(pod: &Pod) -> u16 {
    let listener = TcpListener::bind((pod.ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(|request: Request<Incoming>| async move {
                let head = request.method() == Method::HEAD;
                let _ = request.into_body().collect().await;
                let body = if head { "" } else { "a small body" };
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(body)))
            });
            tokio::spawn(async move {
                let _ = http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    port
}

#[tokio::test]
async fn the_outbound_listener_conforms_to_http2() {
    let (client, server, _, _) = pair(Protocol::Http2).await;
    let port = application(&server).await;
    client.set(vec![endpoints(
        "api",
        vec![endpoint(server.ip, port, Some("api"))],
    )]);
    let addr = listen(&client, |proxy, stream| {
        serve_outbound(proxy, stream, vip(), Permit::unlisted())
    })
    .await;
    conforms("outbound", addr).await;
}

#[tokio::test]
async fn the_inbound_listener_conforms_to_http2() {
    let (_client, server, _, _) = pair(Protocol::Http2).await;
    let port = application(&server).await;
    server.set(vec![declared_http2()]);
    let original = SocketAddr::new(server.ip, port);
    let addr = listen(&server, move |proxy, stream| {
        serve_plain(proxy, stream, original, Permit::unlisted())
    })
    .await;
    conforms("inbound", addr).await;
}
