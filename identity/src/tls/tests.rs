//! Handshakes in process: which peers get through, and which do not.

use std::io;
use std::time::Duration;

use rustls::{AlertDescription, ClientConnection, HandshakeKind, NamedGroup, ServerConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::*;
use crate::authority::{ROOT_LIFE, Root};
use crate::fixtures::{Authority, HOUR, account, names, uri};

mod revoked;

type Client = client::TlsStream<DuplexStream>;
type Server = server::TlsStream<DuplexStream>;

async fn shake(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
) -> (io::Result<Client>, io::Result<Server>) {
    let (near, far) = duplex(64 * 1024);
    let connect = async {
        let mut stream = TlsConnector::from(client)
            .connect(peer_name(), near)
            .await?;
        // In TLS 1.3 a client learns only by reading that it was refused.
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        Ok(stream)
    };
    let accept = async {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        stream.write_all(b"!").await?;
        stream.flush().await?;
        Ok(stream)
    };
    tokio::join!(connect, accept)
}

struct Pair {
    authority: Authority,
    roots: Roots,
    client: CertHandle,
    server: CertHandle,
}

impl Pair {
    fn new() -> Self {
        let authority = Authority::new();
        Self {
            roots: authority.roots(),
            client: authority.handle("client"),
            server: authority.handle("server"),
            authority,
        }
    }

    fn client(&self) -> Arc<ClientConfig> {
        self.client_expecting("server")
    }

    fn client_expecting(&self, name: &str) -> Arc<ClientConfig> {
        mesh_client_config(&self.roots, &self.client, account(name), &[MESH_ALPN])
    }

    fn server(&self, auth: ClientAuth) -> Arc<ServerConfig> {
        mesh_server_config(&self.roots, &self.server, &[MESH_ALPN], auth)
    }
}

fn identity_error<T>(result: io::Result<T>) -> IdentityError {
    let error = result.err().expect("the handshake must fail");
    IdentityError::from_io(&error).unwrap_or_else(|| panic!("no identity error: {error}"))
}

fn alert<T>(result: io::Result<T>) -> AlertDescription {
    let error = result.err().expect("the handshake must fail");
    match error.get_ref().and_then(|e| e.downcast_ref()) {
        Some(rustls::Error::AlertReceived(alert)) => *alert,
        _ => panic!("no alert: {error}"),
    }
}

#[tokio::test]
async fn peers_authenticate_mutually_over_tls13_with_post_quantum_exchange() {
    let pair = Pair::new();
    let (client, server) = shake(pair.client(), pair.server(ClientAuth::Required)).await;
    let (client, server) = (client.unwrap(), server.unwrap());

    let (_, near) = client.get_ref();
    let (_, far) = server.get_ref();
    let seen = crate::verify::peer_identity(far.peer_certificates().unwrap()).unwrap();
    assert_eq!(seen.spiffe, account("client"));
    let seen = crate::verify::peer_identity(near.peer_certificates().unwrap()).unwrap();
    assert_eq!(seen.spiffe, account("server"));
    assert_eq!(near.alpn_protocol(), Some(MESH_ALPN));
    assert_eq!(
        near.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3)
    );
    let group = near.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
    let suite = near.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
}

#[tokio::test]
async fn server_with_another_identity_is_refused_by_name() {
    let pair = Pair::new();
    let (client, server) = shake(
        pair.client_expecting("database"),
        pair.server(ClientAuth::Required),
    )
    .await;
    assert_eq!(
        identity_error(client),
        IdentityError::WrongIdentity {
            expected: account("database"),
            presented: account("server"),
        }
    );
    assert!(
        server.is_err(),
        "the server must not think that this worked"
    );
}

#[tokio::test]
async fn client_without_certificate_is_refused_where_one_is_required() {
    let pair = Pair::new();
    let bare = bootstrap_client_config(&pair.roots, account("server"), &[MESH_ALPN]);
    let (client, server) = shake(Arc::clone(&bare), pair.server(ClientAuth::Required)).await;
    assert_eq!(identity_error(server), IdentityError::NoCertificate);
    assert_eq!(alert(client), AlertDescription::CertificateRequired);

    let (client, server) = shake(bare, pair.server(ClientAuth::Optional)).await;
    assert!(client.is_ok());
    assert!(server.unwrap().get_ref().1.peer_certificates().is_none());
}

#[tokio::test]
async fn optional_certificate_is_checked_all_the_same() {
    let pair = Pair::new();
    let foreign = Authority::new().handle("client");
    let config = mesh_client_config(&pair.roots, &foreign, account("server"), &[MESH_ALPN]);
    let (client, server) = shake(config, pair.server(ClientAuth::Optional)).await;
    assert_eq!(identity_error(server), IdentityError::UnknownAuthority);
    assert_eq!(alert(client), AlertDescription::UnknownCA);
}

#[tokio::test]
async fn server_of_another_root_is_refused() {
    let pair = Pair::new();
    pair.server.store(Authority::new().leaf("server"));
    let (client, server) = shake(pair.client(), pair.server(ClientAuth::Required)).await;
    assert_eq!(identity_error(client), IdentityError::UnknownAuthority);
    assert_eq!(alert(server), AlertDescription::UnknownCA);
}

// Claims: A4
#[tokio::test]
async fn both_sides_refuse_other_domain_under_same_root() {
    let pair = Pair::new();
    let elsewhere = SpiffeId::of("other.example", "shop", "server").unwrap();
    let (chain, key) = pair
        .authority
        .forge(|params| params.subject_alt_names = vec![uri(elsewhere.as_str())]);
    let abroad = CertHandle::empty();
    abroad.store(Leaf::new(chain, &key).unwrap());

    let config = mesh_client_config(&pair.roots, &abroad, account("server"), &[MESH_ALPN]);
    for auth in [ClientAuth::Required, ClientAuth::Optional] {
        let (client, server) = shake(Arc::clone(&config), pair.server(auth)).await;
        assert_eq!(identity_error(server).label(), "unknown-trust-domain");
        assert!(client.is_err());
    }
    // Not even where exactly that identity is expected.
    let server = mesh_server_config(&pair.roots, &abroad, &[MESH_ALPN], ClientAuth::Required);
    let expecting = mesh_client_config(&pair.roots, &pair.client, elsewhere, &[MESH_ALPN]);
    let (client, server) = shake(expecting, server).await;
    assert_eq!(identity_error(client).label(), "unknown-trust-domain");
    assert!(server.is_err());

    let (client, server) = shake(pair.client(), pair.server(ClientAuth::Required)).await;
    assert!(client.is_ok() && server.is_ok(), "ours are served");
}

#[tokio::test]
async fn expired_and_future_leaves_are_refused_on_either_side() {
    let pair = Pair::new();
    let now = SystemTime::now();
    let expired = pair
        .authority
        .forge(|params| params.not_after = (now - HOUR / 2).into());
    let future = pair
        .authority
        .forge(|params| params.not_before = (now + HOUR / 2).into());
    for ((chain, key), label) in [(expired, "expired"), (future, "not-yet-valid")] {
        let handle = CertHandle::empty();
        handle.store(Leaf::new(chain, &key).unwrap());

        let config = mesh_client_config(&pair.roots, &handle, account("server"), &[MESH_ALPN]);
        let (client, server) = shake(config, pair.server(ClientAuth::Required)).await;
        assert_eq!(identity_error(server).label(), label);
        // TLS has one alert for both.
        assert_eq!(alert(client), AlertDescription::CertificateExpired);

        let config = mesh_server_config(&pair.roots, &handle, &[MESH_ALPN], ClientAuth::Required);
        let (client, _) = shake(pair.client_expecting("web"), config).await;
        assert_eq!(identity_error(client).label(), label);
    }
}

#[tokio::test]
async fn other_alpn_is_refused() {
    let pair = Pair::new();
    let config = mesh_client_config(&pair.roots, &pair.client, account("server"), &[H2_ALPN]);
    let (client, server) = shake(config, pair.server(ClientAuth::Required)).await;
    assert!(server.is_err());
    assert_eq!(alert(client), AlertDescription::NoApplicationProtocol);
}

#[tokio::test]
async fn renewed_certificate_serves_new_connections_and_closes_none() {
    let pair = Pair::new();
    let (client_config, server_config) = (pair.client(), pair.server(ClientAuth::Required));
    let (old_client, old_server) =
        shake(Arc::clone(&client_config), Arc::clone(&server_config)).await;
    let (mut old_client, mut old_server) = (old_client.unwrap(), old_server.unwrap());
    let old_leaf = pair.server.current().unwrap();

    pair.server.store(pair.authority.leaf("server"));
    pair.client.store(pair.authority.leaf("client"));

    let (new_client, new_server) = shake(client_config, server_config).await;
    let (new_client, new_server) = (new_client.unwrap(), new_server.unwrap());
    let server_seen = new_client.get_ref().1.peer_certificates().unwrap()[0].clone();
    assert_ne!(server_seen, old_leaf.chain()[0]);
    assert_eq!(server_seen, pair.server.current().unwrap().chain()[0]);
    let client_seen = new_server.get_ref().1.peer_certificates().unwrap()[0].clone();
    assert_eq!(client_seen, pair.client.current().unwrap().chain()[0]);

    for round in 0..3u8 {
        old_client.write_all(&[round]).await.unwrap();
        old_client.flush().await.unwrap();
        let mut byte = [0];
        old_server.read_exact(&mut byte).await.unwrap();
        assert_eq!(byte, [round]);
    }
}

#[tokio::test]
async fn root_is_rotated_under_running_configurations() {
    let pair = Pair::new();
    let next = Authority::new();
    let (client, server) = (pair.client(), pair.server(ClientAuth::Required));
    let works = async || {
        let (near, far) = shake(Arc::clone(&client), Arc::clone(&server)).await;
        near.is_ok() && far.is_ok()
    };
    assert!(works().await);

    let both = [pair.authority.root.cert_pem(), next.root.cert_pem()].concat();
    pair.roots.replace_pem(&both).unwrap();
    assert!(works().await, "both old leaves");
    pair.server.store(next.leaf("server"));
    assert!(works().await, "new server, old client");
    pair.client.store(next.leaf("client"));
    assert!(works().await, "both new leaves");
    pair.roots.replace_pem(next.root.cert_pem()).unwrap();
    assert!(works().await, "old root gone");

    pair.client.store(pair.authority.leaf("client"));
    assert!(!works().await, "a leaf of the removed root must be refused");
}

#[tokio::test]
async fn handle_without_certificate_fails_the_handshake() {
    let pair = Pair::new();
    let empty = CertHandle::empty();
    assert!(empty.current().is_none() && empty.not_after().is_none());
    let server = mesh_server_config(&pair.roots, &empty, &[MESH_ALPN], ClientAuth::Required);
    let (client, server) = shake(pair.client(), server).await;
    assert!(client.is_err() && server.is_err());

    let client = mesh_client_config(&pair.roots, &empty, account("server"), &[MESH_ALPN]);
    let (_, server) = shake(client, pair.server(ClientAuth::Required)).await;
    assert_eq!(identity_error(server), IdentityError::NoCertificate);
}

#[tokio::test]
async fn every_connection_is_a_full_handshake() {
    let pair = Pair::new();
    let (client, server) = (pair.client(), pair.server(ClientAuth::Required));
    for _ in 0..3 {
        let (near, far) = shake(Arc::clone(&client), Arc::clone(&server)).await;
        assert_eq!(
            near.unwrap().get_ref().1.handshake_kind(),
            Some(HandshakeKind::Full)
        );
        assert_eq!(
            far.unwrap().get_ref().1.handshake_kind(),
            Some(HandshakeKind::Full)
        );
    }
}

/// A client that would resume if it were given anything to resume with.
#[test]
fn server_sends_no_ticket_to_client_wanting_resumption() {
    let pair = Pair::new();
    let mut eager = Arc::unwrap_or_clone(pair.client());
    eager.resumption = Resumption::in_memory_sessions(8);
    let eager = Arc::new(eager);
    let server = pair.server(ClientAuth::Required);
    for _ in 0..2 {
        let mut near = ClientConnection::new(Arc::clone(&eager), peer_name()).unwrap();
        let mut far = ServerConnection::new(Arc::clone(&server)).unwrap();
        for _ in 0..10 {
            let mut flight = Vec::new();
            while near.wants_write() {
                near.write_tls(&mut flight).unwrap();
            }
            far.read_tls(&mut flight.as_slice()).unwrap();
            far.process_new_packets().unwrap();
            let mut flight = Vec::new();
            while far.wants_write() {
                far.write_tls(&mut flight).unwrap();
            }
            near.read_tls(&mut flight.as_slice()).unwrap();
            near.process_new_packets().unwrap();
        }
        assert!(!near.is_handshaking() && !far.is_handshaking());
        assert_eq!(near.tls13_tickets_received(), 0);
        assert_eq!(near.handshake_kind(), Some(HandshakeKind::Full));
    }
}

/// A ClientHello of TLS 1.2 as clients without 1.3 send it.
fn hello_of_tls_12() -> Vec<u8> {
    let mut body = vec![0x03, 0x03];
    body.extend([7; 32]);
    body.push(0);
    // ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, and no compression.
    body.extend([0, 2, 0xc0, 0x2b, 1, 0]);
    let extensions: &[u8] = &[
        0, 10, 0, 4, 0, 2, 0, 0x17, // group: P-256
        0, 11, 0, 2, 1, 0, // points: uncompressed
        0, 13, 0, 4, 0, 2, 4, 3, // signature: ECDSA P-256 SHA-256
    ];
    body.extend([0, u8::try_from(extensions.len()).unwrap()]);
    body.extend(extensions);
    let length = u8::try_from(body.len()).unwrap();
    let mut record = vec![0x16, 0x03, 0x01, 0, length + 4, 1, 0, 0, length];
    record.extend(body);
    record
}

#[test]
fn tls12_client_gets_protocol_version_alert() {
    let pair = Pair::new();
    let mut server = ServerConnection::new(pair.server(ClientAuth::Required)).unwrap();
    server.read_tls(&mut hello_of_tls_12().as_slice()).unwrap();
    let error = server.process_new_packets().unwrap_err();
    assert!(
        matches!(error, rustls::Error::PeerIncompatible(_)),
        "{error}"
    );
    let mut answer = Vec::new();
    server.write_tls(&mut answer).unwrap();
    // A fatal alert, number 70: protocol_version.
    assert_eq!((answer[0], &answer[5..]), (0x15, [2, 70].as_slice()));
}

#[test]
fn hello_names_neither_host_nor_old_versions() {
    let pair = Pair::new();
    let mut client = ClientConnection::new(pair.client(), peer_name()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    // The extension supported_versions with TLS 1.3 as its only entry.
    let only_13 = [0x00, 0x2b, 0x00, 0x03, 0x02, 0x03, 0x04];
    assert!(hello.windows(7).any(|w| w == only_13));
    assert!(!hello.windows(6).any(|w| w == b"0.0.0."));
}

#[test]
fn leaf_with_other_key_account_or_time_is_refused() {
    let pair = Pair::new();
    let now = SystemTime::now();
    let key = LeafKey::generate().unwrap();
    let issue = |name: &str, at: SystemTime| {
        let csr = key.csr().unwrap();
        pair.authority
            .issuer
            .issue(&csr, &names(name), at, HOUR)
            .unwrap()
            .chain
    };
    let take = |chain, key: &LeafKey, roots: &Roots| {
        Leaf::verified(chain, key, roots, &account("web"), now)
    };
    assert!(take(issue("web", now), &key, &pair.roots).is_ok());

    let other_key = LeafKey::generate().unwrap();
    let taken = take(issue("web", now), &other_key, &pair.roots);
    assert!(matches!(taken, Err(BadLeaf::KeyMismatch(_))), "{taken:?}");
    let taken = take(issue("admin", now), &key, &pair.roots);
    assert!(
        matches!(
            taken,
            Err(BadLeaf::Refused(IdentityError::WrongIdentity { .. }))
        ),
        "{taken:?}"
    );
    let later = pair.authority.issuer.not_before() + 24 * HOUR;
    let taken = Leaf::verified(issue("web", now), &key, &pair.roots, &account("web"), later);
    assert!(
        matches!(taken, Err(BadLeaf::Refused(IdentityError::Expired { .. }))),
        "{taken:?}"
    );
    let elsewhere = Authority::new().roots();
    let taken = take(issue("web", now), &key, &elsewhere);
    assert!(
        matches!(
            taken,
            Err(BadLeaf::Refused(IdentityError::UnknownAuthority))
        ),
        "{taken:?}"
    );
}

#[tokio::test]
async fn webhook_serves_client_trusting_its_authority_and_name() {
    let root = Root::generate(SystemTime::now(), ROOT_LIFE).unwrap();
    let name = "weft-injector.weft-system.svc";
    let handle = ServingHandle::empty();
    handle
        .store(&root.serving(&[name], SystemTime::now(), HOUR).unwrap())
        .unwrap();
    let server = webhook_server_config(&handle);

    // The API server: an ordinary client that checks names.
    let mut trusted = rustls::RootCertStore::empty();
    trusted.add(root.certificate().clone()).unwrap();
    let mut api_server = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(trusted)
        .with_no_client_auth();
    api_server.alpn_protocols = owned(&[H2_ALPN, HTTP1_ALPN]);
    let api_server = Arc::new(api_server);

    for (server_name, works) in [(name, true), ("other.weft-system.svc", false)] {
        let (near, far) = duplex(64 * 1024);
        let server_name = ServerName::try_from(server_name.to_owned()).unwrap();
        let connect = TlsConnector::from(Arc::clone(&api_server)).connect(server_name, near);
        let accept = TlsAcceptor::from(Arc::clone(&server)).accept(far);
        let (near, _) = tokio::join!(connect, accept);
        assert_eq!(near.is_ok(), works);
    }
}

#[test]
fn client_configuration_for_one_more_identity_is_cheap() {
    let pair = Pair::new();
    let start = std::time::Instant::now();
    for _ in 0..1_000 {
        std::hint::black_box(pair.client());
    }
    let each = start.elapsed() / 1_000;
    // About 2 us on a small machine; the bound only catches a change of kind.
    assert!(each < Duration::from_micros(200), "{each:?}");
}
