//! A Gateway with its resources, and clients of it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use policy::gateway::{Gateway as Served, HostRoutes, Listener, ListenerProtocol, target_port};
use policy::http_match::{Description, HttpMatch, PathMatch};
use policy::name::ServiceId;
use policy::origin::Origin;
use policy::reason::Reason;
use policy::route::edits::Actions;
use policy::route::{Backend, Forward, Match, Rule, Table};
use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use weft_gateway::Gateway;
use weft_proxy::Budget;
use wire::v1::resource::Content;
use wire::v1::{self, Protocol};

use crate::support::{
    Authority, Pod, SeenRequests, endpoint, endpoints, http_app, resource, service, vip, workload,
};

/// Changes of the configuration are carried out within this time.
pub(super) const SOON: Duration = Duration::from_secs(5);
/// The account of the Gateway.
pub(super) const ACCOUNT: &str = "edge-weft";
pub(super) const EVERY_VERSION: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// A Gateway, and a pod of the mesh behind it.
pub(super) struct Edge {
    pub(super) authority: Authority,
    pub(super) pod: Pod,
    pub(super) gateway: Gateway,
    /// With an application behind its proxy, the Service `api`.
    pub(super) server: Pod,
    /// Of that application.
    pub(super) app_port: u16,
    /// What that application saw.
    pub(super) seen: SeenRequests,
}

/// A certificate with its key.
pub(super) struct Certificate {
    pub(super) der: Vec<u8>,
    pub(super) key: Vec<u8>,
}

/// A pod of a Gateway that serves nothing yet, and believes so many proxies before it.
pub(super) fn pod_of_gateway(authority: &Authority, trusted_hops: u8) -> (Pod, Gateway) {
    let budget = Budget::new(64 * 1024 * 1024);
    let certs = || {
        let hour = Duration::from_secs(3600);
        authority.leaf(ACCOUNT, hour, SystemTime::now())
    };
    let unserved = Pod::unserved(&budget, authority.roots(), certs(), ACCOUNT);
    let own = unserved.proxy.own.clone().of_gateway();
    let pod = Pod::made(own, &budget, authority.roots(), certs());
    let open = (v1::Enforcement::Open, v1::MtlsMode::Permissive);
    pod.set(vec![workload(ACCOUNT, open.0, open.1)]);
    let gateway = Gateway::start(Arc::clone(&pod.proxy), vec![pod.ip], trusted_hops);
    (pod, gateway)
}

impl Edge {
    /// One that serves nothing yet, and believes so many proxies before it.
    pub(super) async fn believing(trusted_hops: u8) -> Self {
        let authority = Authority::new();
        let (pod, gateway) = pod_of_gateway(&authority, trusted_hops);
        let server = Pod::new(&authority, "api").await;
        let (app_port, seen) = http_app(&server, "api").await;
        let edge = Self {
            authority,
            pod,
            gateway,
            server,
            app_port,
            seen,
        };
        edge.backend("api", Protocol::Detect, app_port);
        edge
    }

    /// One with these listeners.
    pub(super) async fn with(listeners: Vec<Listener>) -> Self {
        let edge = Self::believing(0).await;
        edge.listen(listeners);
        edge
    }

    /// One with a listener of HTTP at port 80 that has these rules for every host.
    pub(super) async fn ruled(rules: Vec<Rule<Forward>>) -> Self {
        Self::with(vec![http("http", None, vec![routes(None, rules)])]).await
    }

    /// It has these listeners from now on.
    pub(super) fn listen(&self, listeners: Vec<Listener>) {
        self.pod.set(vec![served(listeners)]);
    }

    /// This Service is served at this port of the pod behind the Gateway from now on.
    pub(super) fn backend(&self, name: &str, protocol: Protocol, app_port: u16) {
        let mut resources = service(name, vip().ip(), protocol, Vec::new());
        // Of the address a Gateway gets nothing.
        resources.retain(|one| matches!(one.content, Some(Content::Service(_))));
        let there = endpoint(self.server.ip, app_port, Some("api"));
        resources.push(endpoints(name, vec![there]));
        self.pod.set(resources);
    }

    /// A connection to this port of its Service, once that is open.
    pub(super) async fn connect(&self, port: u16) -> TcpStream {
        let started = Instant::now();
        loop {
            match self.try_connect(port).await {
                Ok(stream) => return stream,
                Err(error) => assert!(started.elapsed() < SOON, "port {port}: {error}"),
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    pub(super) async fn try_connect(&self, port: u16) -> io::Result<TcpStream> {
        let at = SocketAddr::new(self.pod.ip, target_port(port).unwrap());
        TcpStream::connect(at).await
    }

    /// The status and the whole answer to a GET at port 80.
    pub(super) async fn get(&self, host: &str, path: &str) -> (u16, String) {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n"))
            .await
    }

    /// The same to a head that lacks nothing but its end.
    pub(super) async fn ask(&self, head: &str) -> (u16, String) {
        let stream = self.connect(80).await;
        answer(stream, head).await
    }

    /// A connection in TLS to this server at this port.
    pub(super) async fn tls(
        &self,
        port: u16,
        server: &str,
        certificate: &Certificate,
    ) -> io::Result<TlsStream<TcpStream>> {
        let config = certificate.client(EVERY_VERSION, &[]);
        self.tls_by(port, server, config).await
    }

    pub(super) async fn tls_by(
        &self,
        port: u16,
        server: &str,
        config: ClientConfig,
    ) -> io::Result<TlsStream<TcpStream>> {
        let stream = self.connect(port).await;
        let name = ServerName::try_from(server.to_owned()).unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let shaken = timeout(SOON, connector.connect(name, stream)).await;
        shaken.expect("the handshake must end")
    }

    /// What the application saw last.
    pub(super) fn last_seen(&self) -> String {
        self.seen.lock().last().cloned().unwrap_or_default()
    }
}

impl Certificate {
    pub(super) fn of(hosts: &[&str]) -> Self {
        let params = CertificateParams::new(owned(hosts)).unwrap();
        Self::signed(&params)
    }

    pub(super) fn until(host: &str, ends: SystemTime) -> Self {
        let mut params = CertificateParams::new(owned(&[host])).unwrap();
        params.not_after = ends.into();
        Self::signed(&params)
    }

    fn signed(params: &CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self {
            der: certificate.der().to_vec(),
            key: key.serialize_der(),
        }
    }

    /// As the resource of the Secret of this name.
    pub(super) fn resource(&self, name: &str) -> v1::Resource {
        let content = v1::ListenerCertificate {
            chain: vec![self.der.clone()],
            key: self.key.clone(),
        };
        let name = wire::names::certificate("shop", name);
        resource(&name, Content::ListenerCertificate(content))
    }

    /// A client that trusts nothing else.
    pub(super) fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&str],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.der.clone())).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|one| one.as_bytes().to_vec()).collect();
        config
    }
}

fn owned(hosts: &[&str]) -> Vec<String> {
    hosts.iter().map(|host| (*host).to_owned()).collect()
}

/// The status and the whole answer to a head that lacks nothing but its end.
pub(super) async fn answer<S>(mut stream: S, head: &str) -> (u16, String)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = format!("{head}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.get(9..12).and_then(|status| status.parse().ok());
    (status.unwrap_or(0), answer)
}

/// What a Gateway serves with these listeners.
pub(super) fn served(listeners: Vec<Listener>) -> v1::Resource {
    let served = Served {
        origin: Origin::new("Gateway", "shop", "edge"),
        listeners,
    };
    resource(wire::names::GATEWAY, Content::Gateway((&served).into()))
}

/// A listener at the port that its protocol has, for every host unless one is given.
pub(super) fn listener(
    name: &str,
    (port, protocol): (u16, ListenerProtocol),
    hostname: Option<&str>,
    routes: Vec<HostRoutes>,
) -> Listener {
    Listener {
        name: name.into(),
        port,
        target_port: target_port(port).unwrap(),
        protocol,
        hostname: hostname.map(|hostname| hostname.parse().unwrap()),
        certificates: Vec::new(),
        routes,
    }
}

pub(super) fn http(name: &str, hostname: Option<&str>, routes: Vec<HostRoutes>) -> Listener {
    listener(name, (80, ListenerProtocol::Http), hostname, routes)
}

/// The same in TLS, with the certificate of the Secret of this name.
pub(super) fn https(
    name: &str,
    hostname: Option<&str>,
    certificate: &str,
    routes: Vec<HostRoutes>,
) -> Listener {
    let certificate = wire::names::certificate("shop", certificate);
    Listener {
        certificates: vec![certificate.into()],
        ..listener(name, (443, ListenerProtocol::Https), hostname, routes)
    }
}

pub(super) fn routes(hostname: Option<&str>, rules: Vec<Rule<Forward>>) -> HostRoutes {
    HostRoutes {
        hostname: hostname.map(|hostname| hostname.parse().unwrap()),
        table: Arc::new(Table {
            rules,
            otherwise: Forward::Refuse(Reason::NoRoute),
        }),
    }
}

/// A rule for requests below this path.
pub(super) fn below(path: &str, then: Forward) -> Rule<Forward> {
    let described = Description {
        path: Some(PathMatch::Prefix(path.to_owned())),
        ..Description::default()
    };
    Rule {
        origin: Origin::new("HTTPRoute", "shop", "web").rule(path),
        when: Match::AnyOf(vec![HttpMatch::as_described("", described)]),
        then,
    }
}

/// A rule for whole connections.
pub(super) fn always(then: Forward) -> Rule<Forward> {
    Rule {
        origin: Origin::new("TCPRoute", "shop", "db"),
        when: Match::Always,
        then,
    }
}

/// To this Service.
pub(super) fn to(name: &str) -> Forward {
    to_with(name, None)
}

/// The same with these actions.
pub(super) fn to_with(name: &str, actions: Option<Actions>) -> Forward {
    let endpoints = wire::names::endpoints("shop", name, 80);
    let backend = Backend::new(ServiceId::new("shop", name), 80, 1, endpoints);
    Forward::split(vec![backend.with_actions(actions.map(Arc::new))])
}

/// All requests to `api`.
pub(super) fn all() -> Vec<Rule<Forward>> {
    vec![below("/", to("api"))]
}
