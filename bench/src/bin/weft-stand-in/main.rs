//! `weft-stand-in FILE` is a controller for two proxies without a cluster: it
//! speaks the real protocol over the real TLS and tells what FILE says. Harnesses
//! that start proxies in network namespaces use it (e2e/interop).
//!
//! FILE is JSON, see [`cluster::Cluster`]. Every call of Certify is answered,
//! because the token is the pod's name. It says `ready` once it listens, and every
//! refusal of a proxy on standard error as `refused NAME: REASON`.

mod cluster;
#[path = "../../standing_in.rs"]
mod standing_in;

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming, async_trait};
use wire::names::Name;
use wire::v1;
use wire::v1::control_server::{Control, ControlServer};

use crate::cluster::{Cluster, NAMESPACE, Pod, TRUST_DOMAIN};
use crate::standing_in::Authority;

/// Batches that wait for a proxy; a proxy subscribes one at a time.
const QUEUE: usize = 64;
const MESSAGE_LIMIT: usize = 4 * 1024 * 1024;

fn main() -> Result<()> {
    let path = std::env::args()
        .nth(1)
        .context("usage: weft-stand-in FILE")?;
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let cluster = Cluster::read(&text).with_context(|| path.clone())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(cluster))
}

async fn serve(cluster: Cluster) -> Result<()> {
    let authority = Authority::new()?;
    std::fs::write(&cluster.root, authority.root.cert_pem())?;
    let listener = TcpListener::bind(cluster.listen).await?;
    let tls = authority.tls(TRUST_DOMAIN)?;
    println!("ready");
    io::stdout().flush()?;
    let accepted = standing_in::accepted(listener, tls, NAMESPACE);
    let control = StandIn {
        cluster: Arc::new(cluster),
        authority,
    };
    Server::builder()
        .add_service(ControlServer::new(control).max_decoding_message_size(MESSAGE_LIMIT))
        .serve_with_incoming(accepted)
        .await
        .context("gRPC")
}

struct StandIn {
    cluster: Arc<Cluster>,
    authority: Authority,
}

#[async_trait]
impl Control for StandIn {
    async fn certify(
        &self,
        request: Request<v1::CertifyRequest>,
    ) -> Result<Response<v1::CertifyResponse>, Status> {
        let request = request.into_inner();
        let pod = self
            .cluster
            .pod(&request.token)
            .ok_or_else(|| Status::unauthenticated("no pod of this name"))?;
        let internal = |error: anyhow::Error| Status::internal(error.to_string());
        let spiffe = pod.identity().map_err(internal)?;
        let issued = self
            .authority
            .issue(&request.csr, spiffe)
            .map_err(internal)?;
        Ok(Response::new(v1::CertifyResponse {
            chain: issued.chain.iter().map(|one| one.to_vec()).collect(),
            roots: vec![self.authority.root.certificate().to_vec()],
        }))
    }

    type StreamStream = ReceiverStream<Result<v1::ToProxy, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<v1::FromProxy>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let pod = standing_in::account(&request)
            .and_then(|account| self.cluster.pod(account).cloned())
            .ok_or_else(|| Status::unauthenticated("a stream needs a certificate of a pod"))?;
        let (outbox, batches) = mpsc::channel(QUEUE);
        let bundle = v1::Bundle {
            roots: vec![self.authority.root.certificate().to_vec()],
        };
        let bundle = cluster::resource(wire::names::BUNDLE, v1::resource::Content::Bundle(bundle));
        let cluster = Arc::clone(&self.cluster);
        tokio::spawn(async move {
            // The proxy has gone; it comes back by itself.
            let _ = talk(&cluster, &pod, bundle, request.into_inner(), outbox).await;
        });
        Ok(Response::new(ReceiverStream::new(batches)))
    }

    async fn answer(
        &self,
        _: Request<Streaming<v1::Answered>>,
    ) -> Result<Response<v1::AnswerEnd>, Status> {
        Err(Status::unimplemented("nobody asks here"))
    }
}

async fn talk(
    cluster: &Cluster,
    pod: &Pod,
    bundle: v1::Resource,
    mut messages: Streaming<v1::FromProxy>,
    outbox: mpsc::Sender<Result<v1::ToProxy, Status>>,
) -> Result<()> {
    let mut id = 0;
    while let Some(message) = messages.message().await? {
        let (full, set) = match message.message {
            Some(v1::from_proxy::Message::Hello(hello)) => {
                let own = std::iter::once(bundle.clone()).chain(cluster.own(pod)?);
                let asked = described(cluster, pod, &hello.destinations)?;
                (true, own.chain(asked).collect())
            }
            Some(v1::from_proxy::Message::Subscribe(change)) => {
                (false, described(cluster, pod, &change.add)?)
            }
            Some(v1::from_proxy::Message::Ack(ack)) => {
                for nack in ack.nacks {
                    eprintln!("refused {}: {}", nack.name, nack.reason);
                }
                continue;
            }
            Some(v1::from_proxy::Message::Report(_) | v1::from_proxy::Message::Status(_))
            | None => continue,
        };
        id += 1;
        let batch = v1::Batch {
            id,
            full,
            set,
            ..v1::Batch::default()
        };
        let message = v1::ToProxy {
            message: Some(v1::to_proxy::Message::Batch(batch)),
        };
        outbox.send(Ok(message)).await?;
    }
    Ok(())
}

fn described(cluster: &Cluster, pod: &Pod, names: &[String]) -> Result<Vec<v1::Resource>> {
    let mut all = Vec::new();
    for name in names {
        if let Some(Name::Destination { ip, port }) = wire::names::parse(name) {
            all.extend(cluster.destination(pod, SocketAddr::new(ip, port))?);
        }
    }
    Ok(all)
}
