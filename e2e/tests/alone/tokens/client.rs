//! A client of the controller's port, made by hand: it sends what no proxy would.

use std::{net::SocketAddr, sync::Mutex, time::Duration};

use anyhow::Context as _;
use e2e::harness::{Cluster, mesh, metrics::Samples};
use hyper_util::rt::TokioIo;
use identity::{
    PeerIdentity, Roots,
    tls::{self, H2_ALPN},
    verify,
};
use policy::name::SpiffeId;
use tokio::{
    net::TcpStream,
    runtime::Runtime,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsConnector, rustls::pki_types::CertificateDer};
use tonic::{Status, transport::Endpoint};
use wire::v1::{self, control_client::ControlClient};

/// Port of the controller for proxies.
const PORT: u16 = 8443;
/// One call with its handshake.
const LIMIT: Duration = Duration::from_secs(10);
/// Long enough for an answer to a stream that should not have been opened.
const STREAM_LIMIT: Duration = Duration::from_secs(3);

/// One replica of the controller, reached at its pod's address.
#[derive(Debug)]
pub(super) struct Controller {
    cluster: Cluster,
    pod: String,
    address: SocketAddr,
    roots: Roots,
    runtime: Runtime,
}

/// What a certificate turned out to say.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) identity: PeerIdentity,
    /// Whether it may sign others.
    pub(super) is_ca: bool,
    /// Its public key, DER.
    pub(super) public_key: Vec<u8>,
}

impl Controller {
    /// Trusts the roots of `namespace`'s bundle, as a proxy there does.
    pub(super) fn any(cluster: &Cluster, namespace: &str) -> anyhow::Result<Self> {
        let pods = cluster.json(&[
            "-n",
            mesh::NAMESPACE,
            "get",
            "pods",
            "-l",
            "app.kubernetes.io/component=controller",
            "--field-selector=status.phase=Running",
        ])?;
        let pod = &pods["items"][0];
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        let bundle = cluster.json(&["-n", namespace, "get", "configmap", "weft-trust-bundle"])?;
        let roots = text(&bundle["data"]["ca.crt"]).context("the bundle holds no roots")?;
        let ip = text(&pod["status"]["podIP"]).context("no controller runs")?;
        Ok(Self {
            cluster: cluster.clone(),
            pod: text(&pod["metadata"]["name"]).unwrap_or_default(),
            address: SocketAddr::new(ip.parse()?, PORT),
            roots: Roots::from_pem(
                &SpiffeId::of("cluster.local", mesh::NAMESPACE, "weft-controller")?,
                &roots,
            )?,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?,
        })
    }

    /// Asks for a certificate. A refusal is the inner error.
    pub(super) fn certify(
        &self,
        token: &str,
        csr: Vec<u8>,
    ) -> anyhow::Result<Result<Leaf, Status>> {
        let request = v1::CertifyRequest {
            token: token.into(),
            csr,
        };
        let answer = self.runtime.block_on(async {
            let mut client = self.connect().await?;
            anyhow::Ok(timeout(LIMIT, client.certify(request)).await?)
        })?;
        match answer {
            Ok(response) => self.read(response.into_inner()).map(Ok),
            Err(status) => Ok(Err(status)),
        }
    }

    /// Opens a stream without a certificate; what ends it.
    pub(super) fn stream(&self) -> anyhow::Result<Option<Status>> {
        self.runtime.block_on(async {
            let mut client = self.connect().await?;
            let silence = futures::stream::once(async {
                sleep(LIMIT).await;
                v1::FromProxy::default()
            });
            let opened = match timeout(STREAM_LIMIT, client.stream(silence)).await? {
                Ok(opened) => opened,
                Err(status) => return Ok(Some(status)),
            };
            Ok(timeout(STREAM_LIMIT, opened.into_inner().message())
                .await?
                .err())
        })
    }

    /// Answers with this outcome that the replica has counted.
    pub(super) fn counted(&self, outcome: &str) -> anyhow::Result<f64> {
        let path = format!(
            "/api/v1/namespaces/{}/pods/{}:8080/proxy/metrics",
            mesh::NAMESPACE,
            self.pod
        );
        let samples = Samples::parse(&self.cluster.kubectl(&["get", "--raw", &path])?);
        Ok(samples.sum(
            "weft_controller_certify_answers_total",
            &[("outcome", outcome)],
        ))
    }

    async fn connect(&self) -> anyhow::Result<ControlClient<tonic::transport::Channel>> {
        let expected = SpiffeId::of("cluster.local", mesh::NAMESPACE, "weft-controller")?;
        let config = tls::bootstrap_client_config(&self.roots, expected, &[H2_ALPN]);
        let socket = timeout(LIMIT, TcpStream::connect(self.address)).await??;
        let secured = TlsConnector::from(config)
            .connect(tls::peer_name(), socket)
            .await?;
        let io = Mutex::new(Some(TokioIo::new(secured)));
        // One connection, made already.
        let connector = tower::service_fn(move |_| {
            let io = io.lock().ok().and_then(|mut io| io.take());
            std::future::ready(io.ok_or_else(|| std::io::Error::other("the connection has ended")))
        });
        let channel = Endpoint::from_static("http://weft-controller")
            .connect_with_connector(connector)
            .await?;
        Ok(ControlClient::new(channel))
    }

    /// Checks the chain as a peer would.
    fn read(&self, response: v1::CertifyResponse) -> anyhow::Result<Leaf> {
        let chain: Vec<CertificateDer<'static>> = response
            .chain
            .into_iter()
            .map(CertificateDer::from)
            .collect();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let now = tokio_rustls::rustls::pki_types::UnixTime::since_unix_epoch(now);
        verify::verify_chain(&self.roots, &chain, now, verify::Purpose::Client)?;
        let first = chain.first().context("the chain is empty")?;
        let (_, parsed) = x509_parser::parse_x509_certificate(first)?;
        Ok(Leaf {
            identity: verify::peer_identity(&chain)?,
            is_ca: parsed.is_ca(),
            public_key: parsed.public_key().raw.to_vec(),
        })
    }
}
