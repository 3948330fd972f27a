//! What the service graph costs while every proxy reports, and how long one waits for it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::api::Api;
use crate::bench::Bench;
use crate::figures::{Delays, seconds};
use crate::fleet::Fleet;
use crate::process::metric;

/// Seconds of a slot; slots begin at multiples of it.
const INTERVAL: u64 = 5;
/// From the end of a slot to the reports of it, as proxies do it in the middle.
const LAG: Duration = Duration::from_millis(600);
/// Windows that are asked for, in seconds: an answer that was made for one of them is not
/// shared by another.
const WINDOWS: [u64; 9] = [20, 25, 30, 35, 40, 45, 50, 55, 60];
/// Where the controller serves its APIs, and the name in its certificate.
const SERVES: &str = "127.0.0.1:8444";
const NAME: &str = "weft-observe.weft-system.svc";
const PATH: &str = "/apis/observe.weft.dev/v1alpha1/graphs/live";
const API_SERVICE: &str = "/apis/apiregistration.k8s.io/v1/apiservices/v1alpha1.observe.weft.dev";
/// The Lease holder writes the authority within seconds.
const TRUSTED_WITHIN: Duration = Duration::from_secs(60);

/// The figures of one size.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    pub(crate) edges: usize,
    /// Share of a core that folding takes.
    pub(crate) percent: f64,
    /// MiB of what is counted.
    pub(crate) graph_mib: f64,
    /// From the connection to the last byte.
    pub(crate) answers: Delays,
    /// MiB of an answer.
    pub(crate) answer: f64,
}

/// Lets every proxy report for so long, then reads.
pub(crate) async fn measure(bench: &Bench, fleet: &Fleet, time: Duration) -> Result<Figures> {
    const FOLDED: &str = "weft_controller_graph_fold_seconds_total";
    bench.log_progress("reporting calls");
    let reader = GraphClient::new(&bench.api, &bench.pki).await?;
    let intervals = time.as_secs() / INTERVAL;
    let before = metric(FOLDED).await?;
    for _ in 0..intervals {
        fleet.report(ended_interval().await)?;
    }
    // What came last is folded with the next look.
    sleep(Duration::from_secs(INTERVAL)).await;
    let folded = metric(FOLDED).await? - before;
    let (mut took, mut last) = (Vec::new(), Bytes::new());
    for window in WINDOWS {
        let started = Instant::now();
        last = reader.read(&format!("{PATH}?window={window}s")).await?;
        took.push(seconds(started.elapsed()));
    }
    let graph: Value = serde_json::from_slice(&last)?;
    let edges = graph["edges"].as_array().context("no edges")?.len();
    let graph_bytes = metric("weft_controller_graph_bytes").await?;
    // Nothing would meet every bound.
    ensure!(
        edges > 0 && folded > 0.0 && graph_bytes > 0.0,
        "{edges} edges, {graph_bytes} bytes, folded in {folded} s"
    );
    let mib = 1024.0 * 1024.0;
    Ok(Figures {
        edges,
        percent: folded * 100.0 / (intervals * INTERVAL) as f64,
        graph_mib: graph_bytes / mib,
        answers: Delays::of_seconds(took),
        answer: last.len() as f64 / mib,
    })
}

/// Waits until a slot has ended and its reports are due: when it began.
async fn ended_interval() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default();
    let end = (now.as_secs() / INTERVAL + 1) * INTERVAL;
    sleep(Duration::from_secs(end).saturating_sub(now) + LAG).await;
    end - INTERVAL
}

/// A client that queries as the API server does.
struct GraphClient {
    tls: TlsConnector,
}

impl GraphClient {
    /// Trusts what the APIService makes the API server trust.
    async fn new(api: &Api, pki: &Path) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(&authority(api).await?) {
            roots.add(root?)?;
        }
        let file = |end: &str| {
            let path = pki.join(format!("front-proxy.{end}"));
            std::fs::read(&path).with_context(|| path.display().to_string())
        };
        let chain = CertificateDer::pem_slice_iter(&file("crt")?).collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(&file("key")?)?;
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        Ok(Self {
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    async fn read(&self, path: &str) -> Result<Bytes> {
        let socket = TcpStream::connect(SERVES).await?;
        let stream = self
            .tls
            .connect(ServerName::try_from(NAME)?, socket)
            .await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = http::Request::get(path)
            .header("host", NAME)
            .header("x-remote-user", "bench")
            .header("x-remote-group", "system:masters")
            .body(Empty::<Bytes>::new())?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        ensure!(
            status == 200,
            "{path} answered {status}: {}",
            String::from_utf8_lossy(&body)
        );
        Ok(body)
    }
}

/// The authority of the API's certificate, once it is written.
async fn authority(api: &Api) -> Result<Vec<u8>> {
    let started = Instant::now();
    loop {
        let service = api.get(API_SERVICE).await?;
        if let Some(bundle) = service["spec"]["caBundle"].as_str() {
            return Ok(base64::engine::general_purpose::STANDARD.decode(bundle)?);
        }
        ensure!(started.elapsed() < TRUSTED_WITHIN, "no caBundle: {service}");
        sleep(Duration::from_millis(200)).await;
    }
}
