//! Connections end that were opened with certificates of a root which is replaced after a theft.

use std::time::{Duration, SystemTime};

use identity::Roots;
use identity::tls::CertHandle;
use identity::verify::AuthorityId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use wire::v1;
use wire::v1::Protocol;

use super::answers::sum;
use super::dedicated::{dedicated, warm};
use super::tcp::echo;
use crate::support::{Authority, Pod, get, http_app, id, resource, service, vip};

const PATIENCE: Duration = Duration::from_secs(10);

/// Two authorities that are trusted together.
struct Rotation {
    old: Authority,
    new: Authority,
}

impl Rotation {
    fn begin() -> Self {
        Self {
            old: Authority::new(),
            new: Authority::new(),
        }
    }

    fn roots(&self) -> Roots {
        let [old, new] = [&self.old, &self.new].map(|one| one.roots().certificates());
        Roots::new(&id("web"), [new, old].concat()).unwrap()
    }

    /// Pods with these certificates, the one calling the other's application at a port of its own.
    async fn pods(&self, client: &CertHandle, server: &CertHandle, protocol: Protocol) -> [Pod; 2] {
        let client = Pod::with(self.roots(), client.clone(), "web").await;
        let server = Pod::with(self.roots(), server.clone(), "api").await;
        client.set(service("api", vip().ip(), protocol, Vec::new()));
        let port = match protocol {
            Protocol::Opaque => echo(&server, "").await,
            _ => http_app(&server, "api").await.0,
        };
        client.reaches(&server, port);
        [client, server]
    }
}

fn leaf(authority: &Authority, account: &str) -> CertHandle {
    authority.leaf(account, Duration::from_secs(3600), SystemTime::now())
}

fn signer(certs: &CertHandle) -> AuthorityId {
    certs.current().unwrap().authority()
}

/// A bundle that leaves open what certificates of these authorities proved.
fn bundle(roots: &Roots, issuers: &[AuthorityId]) -> v1::Resource {
    let roots = roots.certificates();
    let bundle = v1::Bundle {
        roots: roots.iter().map(|root| root.to_vec()).collect(),
        end_others: true,
        issuers: issuers.iter().map(|one| one.as_bytes().to_vec()).collect(),
        ..v1::Bundle::default()
    };
    resource(wire::names::BUNDLE, v1::resource::Content::Bundle(bundle))
}

/// Whether bytes still come back.
pub(super) async fn echoes(stream: &mut TcpStream) -> bool {
    let mut back = [0; 4];
    let moved = async {
        stream.write_all(b"\x00abc").await?;
        stream.read_exact(&mut back).await
    };
    timeout(PATIENCE, moved).await.unwrap().is_ok()
}

/// The application's own end of its connection.
pub(super) async fn ends(stream: &mut TcpStream) -> bool {
    let read = timeout(PATIENCE, stream.read_u8()).await;
    read.is_ok_and(|read| read.is_err())
}

#[tokio::test]
async fn bytes_of_other_authorities_callers_end_at_once() {
    let rotation = Rotation::begin();
    let (of_old, of_new) = (leaf(&rotation.old, "web"), leaf(&rotation.new, "api"));
    let [client, server] = rotation.pods(&of_old, &of_new, Protocol::Opaque).await;
    let mut stream = client.call(vip()).await;
    assert!(echoes(&mut stream).await);
    let both = [signer(&of_new), signer(&of_old)];
    server.set(vec![bundle(&rotation.roots(), &both)]);
    assert!(echoes(&mut stream).await, "its authority is one of them");

    server.set(vec![bundle(&rotation.roots(), &both[..1])]);
    assert!(ends(&mut stream).await);
}

#[tokio::test]
async fn connections_to_other_authorities_end_by_the_second_look() {
    let rotation = Rotation::begin();
    let certs = leaf(&rotation.old, "api");
    let old = signer(&certs);
    let of_new = leaf(&rotation.new, "web");
    let [client, server] = rotation.pods(&of_new, &certs, Protocol::Opaque).await;
    let look = || {
        let peers = &client.proxy.peers;
        peers.end_unless(|peer| peer.certificate.authority != old);
    };
    let connections = || {
        let parts = ["protocol=\"http2\"", "security=\"mtls\""];
        sum(&server, "weft_connections_total", &parts)
    };
    let mut under_way = client.call(vip()).await;
    assert!(echoes(&mut under_way).await);
    certs.store((*leaf(&rotation.new, "api").current().unwrap()).clone());

    look();
    assert!(echoes(&mut under_way).await, "what is under way goes on");
    assert_eq!(connections(), 1.0);
    let mut next = client.call(vip()).await;
    assert!(echoes(&mut next).await);
    assert_eq!(connections(), 2.0, "nothing begins on the former one");

    look();
    assert!(ends(&mut under_way).await);
    assert!(echoes(&mut next).await, "that of the new authority stays");
}

#[tokio::test]
async fn dedicated_connection_of_other_authority_takes_no_request() {
    let rotation = Rotation::begin();
    let certs = leaf(&rotation.old, "api");
    let old = signer(&certs);
    let of_new = leaf(&rotation.new, "web");
    let [client, server] = rotation.pods(&of_new, &certs, Protocol::Http1).await;
    let kept = dedicated(&client, &server);
    warm(&client, &kept).await;
    certs.store((*leaf(&rotation.new, "api").current().unwrap()).clone());

    let peers = &client.proxy.peers;
    peers.end_unless(|peer| peer.certificate.authority != old);
    // What the last request has left of it may be given back a moment later.
    let closed = async {
        while kept.used().0 > 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, closed).await.unwrap();
    peers.end_unless(|peer| peer.certificate.authority != old);
    let (status, answer) = get(client.call(vip()).await, "/", "").await;
    assert_eq!(status, 200, "{answer}");
    warm(&client, &kept).await;
    peers.end_unless(|peer| peer.certificate.authority != old);
    assert_eq!(kept.used().0, 1, "that of the new authority stays");
}
