//! Asks one replica of the controller itself, as the API server does.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use e2e::harness::{Cluster, Forward, Pod};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Whose certificate is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum As {
    /// The one that the API server calls with.
    ApiServer,
    /// None, with the headers of a mighty user all the same.
    Anonymous,
    /// One of the same authority, for another name.
    Administrator,
}

pub(crate) struct Caller {
    cluster: Cluster,
    roots: RootCertStore,
    runtime: tokio::runtime::Runtime,
}

impl Caller {
    /// Trusts what the APIService says that the API server trusts.
    pub(crate) fn new(cluster: &Cluster) -> anyhow::Result<Self> {
        let service = cluster.json(&["get", "apiservice", "v1alpha1.metrics.smi-spec.io"])?;
        let bundle = service["spec"]["caBundle"]
            .as_str()
            .context("no caBundle")?;
        let pem = base64::engine::general_purpose::STANDARD.decode(bundle)?;
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(&pem) {
            roots.add(root?)?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Self {
            cluster: cluster.clone(),
            roots,
            runtime,
        })
    }

    /// Status and body of the answer of one replica.
    pub(crate) fn ask(&mut self, pod: &Pod, path: &str, who: As) -> anyhow::Result<(u16, Value)> {
        let forward = Forward::open(&self.cluster, &pod.namespace, &pod.name, 8444)?;
        let address = forward.address().to_owned();
        let tls = self.tls(who)?;
        self.runtime.block_on(exchange(address, tls, path))
    }

    fn tls(&self, who: As) -> anyhow::Result<Arc<ClientConfig>> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots.clone());
        let name = match who {
            As::Anonymous => return Ok(Arc::new(config.with_no_client_auth())),
            As::ApiServer => "front-proxy",
            As::Administrator => "admin",
        };
        let pki = self
            .cluster
            .folder()
            .context("the kubeconfig has no folder")?
            .join("pki");
        let file = |end: &str| {
            let path = pki.join(format!("{name}.{end}"));
            std::fs::read(&path).with_context(|| path.display().to_string())
        };
        let chain = CertificateDer::pem_slice_iter(&file("crt")?).collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(&file("key")?)?;
        Ok(Arc::new(config.with_client_auth_cert(chain, key)?))
    }
}

async fn exchange(
    address: String,
    tls: Arc<ClientConfig>,
    path: &str,
) -> anyhow::Result<(u16, Value)> {
    let socket = TcpStream::connect(&address).await?;
    let name = ServerName::try_from("weft-metrics.weft-system.svc")?;
    let stream = TlsConnector::from(tls).connect(name, socket).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = http::Request::get(path)
        .header("host", "weft-metrics.weft-system.svc")
        .header("x-remote-user", "test")
        .header("x-remote-group", "system:masters")
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await?.to_bytes();
    ensure!(!body.is_empty(), "{status} without a body");
    Ok((status, serde_json::from_slice(&body)?))
}
