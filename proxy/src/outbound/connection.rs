//! `Connection`: one connection by which calls come: of the application to an address, of a client
//! at a listener of the own Gateway, or of a peer proxy that hands a call over to this Gateway.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use http::Version;
use policy::egress::host_name;
use policy::reason::Reason;
use policy::route::edits::Scheme;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::config::snapshot::Destination;
use crate::config::snapshot::Snapshot;
use crate::failure::Failure;
use crate::http::head::ReportedHead;
use crate::http::refusal::{NO_REQUEST, NotHandled};
use crate::net::connect;
use crate::net::prefixed::Prefixed;
use crate::outbound::edge::Edge;
use crate::outbound::handed::Handed;
use crate::outbound::opened_to::{OpenedTo, until_gone, until_pod_gone};
use crate::outbound::outside::Outside;
use crate::outbound::shadow;
use crate::proxy::Proxy;
use crate::telemetry::call::{Call, CallKind};
use crate::telemetry::call_ends::CallEnds;
use crate::telemetry::labels::{ConnectionLabels, Direction, Security};

/// What a connection came to, which decides where its calls go.
pub(super) enum CameTo {
    /// What stands at the address that the application called.
    Opened(OpenedTo),
    /// A listener of the own Gateway. On the heap: a sidecar has none.
    Listener(Box<Edge>),
    /// The own Gateway, to which the caller's proxy has handed it over.
    Handed(Box<Handed>),
}

/// One connection by which calls come that leave the pod.
pub(crate) struct Connection {
    pub(super) proxy: Arc<Proxy>,
    /// The address that was called.
    pub(super) addr: SocketAddr,
    pub(super) came_to: CameTo,
    /// Where it was opened to nothing of the mesh.
    pub(super) outside: Option<Box<Outside>>,
    /// The application has had an answer on it.
    answered: AtomicBool,
    /// Another pod than the one that it was opened to answers, or none.
    broken: Notify,
}

impl Connection {
    pub(super) fn new(proxy: Arc<Proxy>, addr: SocketAddr, opened: OpenedTo) -> Self {
        Self {
            proxy,
            addr,
            came_to: CameTo::Opened(opened),
            outside: None,
            answered: AtomicBool::new(false),
            broken: Notify::new(),
        }
    }

    /// A connection of a client that came in at a listener.
    pub(super) fn at_listener(proxy: Arc<Proxy>, edge: Edge) -> Self {
        Self {
            proxy,
            addr: edge.addr,
            came_to: CameTo::Listener(Box::new(edge)),
            outside: None,
            answered: AtomicBool::new(false),
            broken: Notify::new(),
        }
    }

    /// What a proxy has handed over to the own Gateway.
    pub(super) fn handed_over(proxy: Arc<Proxy>, addr: SocketAddr, handed: Handed) -> Self {
        Self {
            proxy,
            addr,
            came_to: CameTo::Handed(Box::new(handed)),
            outside: None,
            answered: AtomicBool::new(false),
            broken: Notify::new(),
        }
    }

    /// What it was opened to, where the application has opened it.
    pub(super) const fn opened(&self) -> Option<&OpenedTo> {
        match &self.came_to {
            CameTo::Opened(opened) => Some(opened),
            CameTo::Listener(_) | CameTo::Handed(_) => None,
        }
    }

    /// The listener of the own Gateway at which it came in, if it did.
    pub(super) fn edge(&self) -> Option<&Edge> {
        match &self.came_to {
            CameTo::Opened(_) | CameTo::Handed(_) => None,
            CameTo::Listener(edge) => Some(edge),
        }
    }

    /// The call that a proxy has handed over by it to the own Gateway, if one has.
    pub(super) fn handed(&self) -> Option<&Handed> {
        match &self.came_to {
            CameTo::Opened(_) | CameTo::Listener(_) => None,
            CameTo::Handed(handed) => Some(handed),
        }
    }

    /// Of the URLs by which its requests were sent.
    pub(super) fn scheme(&self) -> Scheme {
        self.edge().map_or(Scheme::Http, Edge::scheme)
    }

    /// Whether it may carry opaque bytes.
    pub(super) fn may_open(&self, snapshot: &Snapshot) -> Result<(), Failure> {
        match self.opened() {
            Some(opened) => shadow::may_open(snapshot, &opened.destination),
            None => shadow::may_pass(snapshot),
        }
    }

    /// A connection to what is outside the mesh.
    pub(super) fn outside(
        proxy: Arc<Proxy>,
        addr: SocketAddr,
        opened: OpenedTo,
        outside: Outside,
    ) -> Self {
        Self {
            outside: Some(Box::new(outside)),
            ..Self::new(proxy, addr, opened)
        }
    }

    /// The application begins TLS with this server.
    pub(super) fn names_server(&mut self, name: &str) {
        if let (Some(outside), Some(name)) = (&mut self.outside, host_name(name)) {
            outside.server_name = Some(name.into());
        }
    }

    /// Whether what goes out of the mesh on it may still go there, and what came in at a listener
    /// still come.
    pub(super) fn may_go_on(&self, snapshot: &Snapshot) -> Result<(), Failure> {
        if let Some(outside) = &self.outside {
            return outside.may_go_on(snapshot, self.addr);
        }
        match &self.came_to {
            CameTo::Opened(_) => Ok(()),
            CameTo::Listener(edge) => edge.may_go_on(snapshot),
            CameTo::Handed(handed) => handed.may_go_on(snapshot),
        }
    }

    /// What a call out of the mesh is counted by that no object gives: the name that it has, else
    /// its address.
    pub(super) fn remote(&self, name: Option<&str>) -> Arc<str> {
        let address = || self.addr.ip().to_canonical().to_string();
        let remote = name.map_or_else(address, str::to_owned);
        let remotes = &self.proxy.telemetry.remotes;
        remotes.admit(Direction::outbound, &remote)
    }

    /// The application gets a response on it now, of whatever kind.
    pub(super) fn note_answer(&self) {
        self.answered.store(true, Relaxed);
    }

    pub(super) fn has_answered(&self) -> bool {
        self.answered.load(Relaxed)
    }

    /// It is to end behind what is in flight: without a mesh it would not exist.
    pub(super) fn breaks(&self) {
        self.broken.notify_one();
    }

    /// Returns when its target has left its address, or it breaks.
    pub(super) async fn over(&self) {
        let gone = async {
            match self.opened() {
                Some(opened) => until_gone(&self.proxy.config, opened).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = gone => {}
            () = self.broken.notified() => {}
        }
    }

    /// The failure of what it carries, once the pod that it was opened to has left its address.
    pub(super) async fn pod_gone(&self) -> Failure {
        match self.opened() {
            Some(opened) => until_pod_gone(&self.proxy.config, opened).await,
            None => std::future::pending().await,
        }
    }

    pub(super) fn count(&self, http1: &'static str, http2: &'static str, version: Version) {
        let protocol = if version == Version::HTTP_2 {
            http2
        } else {
            http1
        };
        let labels = ConnectionLabels {
            direction: Direction::outbound,
            protocol,
            security: Security::plaintext,
        };
        self.proxy.telemetry.metrics.connections.at(&labels).inc();
    }

    pub(super) fn failed_tcp(&self, failure: &Failure, abort: impl FnOnce()) {
        tracing::debug!(addr = %self.addr, %failure, "could not serve a connection");
        self.call(CallKind::Bytes).reset(failure, abort);
    }

    /// Resets a connection on which no request can begin, to a port that carries requests.
    pub(super) fn reset_no_request(&self, stream: &Prefixed<TcpStream>) {
        let failure = Failure::refused(Reason::BadRequest, NO_REQUEST);
        tracing::debug!(addr = %self.addr, %failure, "reset a connection");
        let mut call = self.call(CallKind::Bytes);
        if let Some(opened) = self.opened()
            && let Destination::Pod(pod) = &*opened.destination
        {
            // The controller declares what this port carries, so it may be a label.
            let (telemetry, port) = (&self.proxy.telemetry, self.addr.port());
            let _ = telemetry.port_label(Direction::outbound, "", port, true);
            // By the pod the controller finds the Service that declares the port.
            call.set_ends(CallEnds::Outbound {
                service: Arc::default(),
                port,
                backend: Arc::default(),
                rule: None,
                pod: Arc::clone(&pod.endpoint.pod),
                security: Security::of(pod.endpoint.meshed()),
            });
        }
        if stream.begins_as_tls() {
            call.carries_tls();
        }
        call.reset(&failure, || connect::reset(&stream.inner));
    }

    /// Counts a request that was refused before it was read.
    pub(super) fn turned_away(&self, how: NotHandled, head: ReportedHead<'_>) {
        self.call(CallKind::Request).turned_away(how, head);
    }

    /// A call begins of which nothing else is known.
    pub(super) fn call(&self, kind: CallKind) -> Call {
        let call_ends = self.proxy.config.inspect(|now| self.call_ends(now));
        Call::begin(&self.proxy.telemetry, kind, call_ends)
    }

    /// The ends of a request that goes nowhere. `host`: as it names it.
    pub(super) fn unrouted(&self, snapshot: &Snapshot, host: Option<&str>) -> CallEnds {
        if self.outside.is_none() {
            return self.call_ends(snapshot);
        }
        let name = host.and_then(host_name);
        CallEnds::External {
            port: self.addr.port(),
            remote: self.remote(name.as_deref()),
            security: Security::plaintext,
        }
    }

    /// The Service port that was called, or what is outside the mesh, as far as it is known.
    pub(super) fn call_ends(&self, snapshot: &Snapshot) -> CallEnds {
        if let Some(outside) = &self.outside {
            return CallEnds::External {
                port: self.addr.port(),
                remote: self.remote(outside.server_name.as_deref()),
                security: Security::plaintext,
            };
        }
        if let Some(opened) = self.opened()
            && let Destination::Service(name) = &*opened.destination
            && let Some(service) = snapshot.services.get(name)
        {
            return CallEnds::to_service(Arc::clone(&service.label), service.port);
        }
        CallEnds::to_service(Arc::default(), self.addr.port())
    }
}
