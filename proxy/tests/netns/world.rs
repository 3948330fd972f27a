//! Hosts outside the mesh, which note all that comes to them, and what an application says to
//! them by way of its proxy.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::fleet::Inside;
use super::testbed::Namespace;

/// The end of every answer of these hosts.
pub(crate) const RECEIVED: &str = "received\n";
/// After which what is no request is answered.
const QUIET: Duration = Duration::from_millis(300);
/// After an answer, for another one.
const ANOTHER: Duration = Duration::from_secs(1);
/// A proxy waits a second for a handshake, and another one for what an address is.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections in their order: where, and all that came on each.
type Log = Arc<Mutex<Vec<(SocketAddr, Vec<u8>)>>>;

pub(crate) struct World {
    log: Log,
    _serving: Inside,
}

impl World {
    /// Serves at these addresses of a namespace.
    pub(crate) fn new(namespace: &Namespace, addresses: Vec<SocketAddr>) -> Self {
        let log = Log::default();
        let noted = Arc::clone(&log);
        let ((), serving) = Inside::begin(namespace, move || async move {
            for at in addresses {
                let listener = TcpListener::bind(at).await.unwrap();
                tokio::spawn(serve(listener, at, Arc::clone(&noted)));
            }
        });
        Self {
            log,
            _serving: serving,
        }
    }

    /// How many connections came to a host, at whichever port.
    pub(crate) fn connections(&self, host: IpAddr) -> usize {
        let log = self.log.lock();
        log.iter().filter(|(at, _)| at.ip() == host).count()
    }

    /// The hosts to which this text came.
    pub(crate) fn hosts_of(&self, text: &str) -> Vec<IpAddr> {
        let log = self.log.lock();
        let came = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(text);
        let with = log.iter().filter(|(_, bytes)| came(bytes));
        with.map(|(at, _)| at.ip()).collect()
    }
}

async fn serve(listener: TcpListener, at: SocketAddr, log: Log) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let nth = {
            let mut log = log.lock();
            log.push((at, Vec::new()));
            log.len() - 1
        };
        tokio::spawn(answer(stream, nth, Arc::clone(&log)));
    }
}

/// Answers each request when its head is there, and all else after a while.
async fn answer(mut stream: TcpStream, nth: usize, log: Log) {
    let mut unanswered = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match timeout(QUIET, stream.read(&mut chunk)).await {
            Ok(Ok(read @ 1..)) => {
                log.lock()[nth].1.extend_from_slice(&chunk[..read]);
                unanswered.extend_from_slice(&chunk[..read]);
            }
            Ok(_) => return,
            Err(_) if unanswered.is_empty() => continue,
            Err(_) => {
                unanswered.clear();
                if stream.write_all(RECEIVED.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
        if unanswered.ends_with(b"\r\n\r\n") {
            unanswered.clear();
            let length = RECEIVED.len();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
            let answer = [head.as_bytes(), RECEIVED.as_bytes()].concat();
            if stream.write_all(&answer).await.is_err() {
                return;
            }
        }
    }
}

/// What came of a connection of the application.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    /// All that was answered.
    pub(crate) answer: String,
    /// Whether the proxy ended it.
    pub(crate) ended: bool,
}

/// Sends the parts one after another, each in a packet of its own if the kernel likes.
pub(crate) async fn say(to: SocketAddr, parts: &[Vec<u8>], pause: Duration) -> Said {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for part in parts {
        // It may be refused by now, which the answer shows.
        let _ = stream.write_all(part).await;
        tokio::task::yield_now().await;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    let ended = loop {
        let received = answer.ends_with(RECEIVED.as_bytes());
        let wait = if received { ANOTHER } else { PATIENCE };
        match timeout(wait, stream.read(&mut chunk)).await {
            Ok(Ok(read @ 1..)) => answer.extend_from_slice(&chunk[..read]),
            Ok(_) => break true,
            Err(_) => break false,
        }
    };
    Said {
        answer: String::from_utf8_lossy(&answer).into_owned(),
        ended,
    }
}

/// Status of a request over HTTP/2.
pub(crate) async fn by_http2(to: SocketAddr, url: &str) -> u16 {
    let stream = TcpStream::connect(to).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::builder().uri(url).body(()).unwrap();
    let mut sender = sender.ready().await.unwrap();
    let (response, _) = sender.send_request(request, true).unwrap();
    let response = timeout(PATIENCE, response).await.expect("an answer");
    response.unwrap().status().as_u16()
}

/// The first message of a TLS client that asks for `name`, in one record if it fits. An address
/// is sent under no name.
pub(crate) fn hello(name: &str, protocols: Vec<Vec<u8>>) -> Vec<u8> {
    // Small, so that byte by byte it takes no time that counts.
    let provider = CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = protocols;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut sent = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut sent).unwrap();
    }
    sent
}

/// The same message in two records.
pub(crate) fn in_two_records(hello: &[u8]) -> Vec<u8> {
    const HEADER: usize = 5;
    // Before any name.
    const FIRST: usize = 20;
    let (header, message) = hello.split_at(HEADER);
    let (first, second) = message.split_at(FIRST);
    let record = |part: &[u8]| {
        let length = u16::try_from(part.len()).unwrap().to_be_bytes();
        [&header[..3], &length[..], part].concat()
    };
    [record(first), record(second)].concat()
}
