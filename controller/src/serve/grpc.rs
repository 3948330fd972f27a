//! The gRPC methods for proxies and for other replicas, which identify their callers by
//! certificate.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use identity::PeerIdentity;
use runtime::pool::Share;
use tonic::{Request, Response, Status, Streaming, async_trait};
use tracing::info;
use wire::v1;
use wire::v1::control_server::Control;
use wire::v1::replica_server::Replica;

use super::framed::ToProxies;
use super::stream::Streams;
use super::{open, queries};
use crate::authority::certify::Certifier;
use crate::observe::exchange;
use crate::observe::live_queries::replicas::Passed;

/// The peer at the other end of a connection.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// Its address, which is not authenticated.
    pub(super) addr: SocketAddr,
    /// The identity in its certificate, if it presented one.
    pub(super) identity: Option<PeerIdentity>,
    /// Its permit, of those for unauthenticated peers.
    pub(super) permit: Option<Arc<Share<IpAddr>>>,
}

/// The peer that calls.
fn peer<T>(request: &Request<T>) -> Result<Peer, Status> {
    let peer = request.extensions().get::<Peer>();
    peer.cloned()
        .ok_or_else(|| Status::internal("the connection has no peer"))
}

/// Marks the permit of a connection as in use until dropped.
struct Busy<'a>(&'a Share<IpAddr>);

impl<'a> Busy<'a> {
    fn new(permit: &'a Share<IpAddr>) -> Self {
        permit.begin();
        Self(permit)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// What a proxy calls.
pub(super) struct ControlService {
    pub(super) certifier: Certifier,
    pub(super) streams: Streams,
}

#[async_trait]
impl Control for ControlService {
    async fn certify(
        &self,
        request: Request<v1::CertifyRequest>,
    ) -> Result<Response<v1::CertifyResponse>, Status> {
        let peer = peer(&request)?;
        let source = peer.addr.ip().to_canonical();
        // While the request is served, idle connections of the same address are evicted first.
        let _busy = peer.permit.as_deref().map(Busy::new);
        let answer = self.certifier.certify(request.into_inner(), source).await?;
        Ok(Response::new(answer))
    }

    type StreamStream = ToProxies;

    async fn stream(
        &self,
        request: Request<Streaming<v1::FromProxy>>,
    ) -> Result<Response<ToProxies>, Status> {
        let peer = peer(&request)?;
        let Some(identity) = peer.identity else {
            return Err(Status::unauthenticated(
                "a stream needs a client certificate: call Certify first",
            ));
        };
        let stream = open::open(&self.streams, identity, request.into_inner()).await?;
        info!(addr = %peer.addr, "stream opened");
        Ok(Response::new(stream))
    }

    async fn answer(
        &self,
        request: Request<Streaming<v1::Answered>>,
    ) -> Result<Response<v1::AnswerEnd>, Status> {
        let identity = peer(&request)?.identity;
        let uid = identity.as_ref().and_then(PeerIdentity::pod_uid);
        let uid = uid.ok_or_else(|| {
            Status::unauthenticated(
                "responses to live queries need the client certificate of a pod",
            )
        })?;
        let Streams {
            live_queries,
            limits,
            stop,
            ..
        } = &self.streams;
        queries::take_answers(
            live_queries,
            limits,
            stop.clone(),
            uid,
            request.into_inner(),
        )
        .await;
        Ok(Response::new(v1::AnswerEnd {}))
    }
}

#[async_trait]
impl Replica for exchange::Answerer {
    type ObserveStream = exchange::ObservedStream;

    async fn observe(
        &self,
        request: Request<v1::ObserveRequest>,
    ) -> Result<Response<exchange::ObservedStream>, Status> {
        let peer = peer(&request)?;
        Ok(Response::new(self.report(peer.identity.as_ref())?))
    }

    type ReportsStream = exchange::ReportStream;

    async fn reports(
        &self,
        request: Request<v1::ReportsRequest>,
    ) -> Result<Response<exchange::ReportStream>, Status> {
        let peer = peer(&request)?;
        let reports = Self::reports(self, peer.identity.as_ref())?;
        Ok(Response::new(reports))
    }

    type AskStream = Passed;

    async fn ask(
        &self,
        request: Request<Streaming<v1::ReplicaAsk>>,
    ) -> Result<Response<Passed>, Status> {
        let identity = peer(&request)?.identity;
        let passed = self.live_queries(identity.as_ref(), request.into_inner())?;
        Ok(Response::new(passed))
    }
}
