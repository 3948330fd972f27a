//! The conformance suite of HTTP/2 against both listeners, with an application
//! behind them that answers with small bodies.
//!
//! The suite is built from its public source by `e2e/cluster/h2spec`, which
//! keeps the result; Go is needed the first time.

#[path = "path/harness.rs"]
#[allow(dead_code, reason = "shared with tests that use the rest of it")]
mod harness;

use std::collections::BTreeSet;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, OnceLock};

use harness::{Pod, pair, vip};
use tokio::net::{TcpListener, TcpStream};
use weft_proxy::app::Proxy;
use weft_proxy::{inbound, outbound};
use wire::v1::Protocol;

/// Cases that fail, and why they may. A case that fails and is not here fails
/// the test, and so does one that is here and no longer fails.
const EXPLAINED: &[(&str, &str)] = &[];

/// Cases of the suite, strict ones left out: fewer would mean that a part of
/// it was not run.
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
    let report = std::fs::read_to_string(report).unwrap();
    eprintln!("{report}\n{}", String::from_utf8_lossy(&output.stdout));
}

#[tokio::test]
async fn the_outbound_listener_conforms_to_http2() {
    let (client, _server, _, _) = pair(Protocol::Http2).await;
    let addr = listen(&client, |proxy, stream| {
        outbound::serve(proxy, stream, vip())
    })
    .await;
    conforms("outbound", addr).await;
}

#[tokio::test]
async fn the_inbound_listener_conforms_to_http2() {
    let (_client, server, port, _) = pair(Protocol::Http2).await;
    let original = SocketAddr::new(server.ip, port);
    let addr = listen(&server, move |proxy, stream| {
        inbound::serve_plain(proxy, stream, original)
    })
    .await;
    conforms("inbound", addr).await;
}
