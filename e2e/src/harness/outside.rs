//! Servers outside the cluster: the host, at addresses that are no pod's, Service's or node's,
//! under names that the local cluster's DNS has for them (e2e/cluster/coredns.yaml).

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio_rustls::rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};

/// The host, as hosts of the world beyond the cluster.
pub const ADDRESSES: [&str; 2] = ["203.0.113.1", "203.0.113.2"];
/// Of a connection on which nothing comes.
const IDLE: Duration = Duration::from_secs(60);
/// What the first byte of a TLS connection is.
const HANDSHAKE: u8 = 0x16;
/// Of one line of a request.
const LONGEST: u64 = 64 * 1024;

/// A name that resolves to this address in the local cluster; `first` may have several labels.
pub fn name(first: &str, ip: &str) -> String {
    format!("{first}.{}.outside.test", ip.replace('.', "-"))
}

/// A server's certificate, by an authority of its own.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate of the authority, as PEM.
    pub authority: String,
    config: Arc<ServerConfig>,
}

impl Certificate {
    /// For these names, made now.
    pub fn of(names: &[&str]) -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let name = &mut params.distinguished_name;
        name.push(DnType::CommonName, "authority of a test");
        let key = KeyPair::generate()?;
        let authority = params.self_signed(&key)?;
        let issuer = Issuer::new(params, key);
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(names)?.signed_by(&key, &issuer)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        Ok(Self {
            authority: authority.pem(),
            config: Arc::new(config),
        })
    }
}

/// What arrived: a request, or a line of anything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// Of the TLS handshake, if it came within TLS.
    pub server_name: Option<String>,
    /// Of a request; else empty.
    pub host: String,
    /// The target of a request; else the line.
    pub text: String,
}

/// A server at an address outside, which speaks HTTP/1.1 and lines, each also within TLS. It ends
/// when this is dropped.
#[derive(Debug)]
pub struct Outside {
    /// Where it listens.
    pub address: SocketAddr,
    serving: Serving,
    stopped: Arc<AtomicBool>,
}

#[derive(Clone, Debug)]
struct Serving {
    version: String,
    tls: Arc<ServerConfig>,
    connections: Arc<AtomicUsize>,
    arrived: Arc<Mutex<Vec<Arrived>>>,
}

impl Outside {
    /// Serves at this address; 0 is a free port. Answers name this version, as those of the test
    /// application do.
    pub fn start(
        ip: &str,
        port: u16,
        version: &str,
        certificate: &Certificate,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((ip, port)).with_context(|| {
            format!("no server at {ip}:{port}: is the local cluster up, by this checkout?")
        })?;
        let address = listener.local_addr()?;
        let serving = Serving {
            version: version.to_owned(),
            tls: certificate.config.clone(),
            connections: Arc::default(),
            arrived: Arc::default(),
        };
        let stopped = Arc::new(AtomicBool::new(false));
        let (server, over) = (serving.clone(), stopped.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                server.connections.fetch_add(1, Relaxed);
                let server = server.clone();
                // A caller that leaves early is no error here.
                thread::spawn(move || server.serve(stream).is_ok());
            }
        });
        Ok(Self {
            address,
            serving,
            stopped,
        })
    }

    /// Connections so far, whatever came on them.
    pub fn connections(&self) -> usize {
        self.serving.connections.load(Relaxed)
    }

    /// All that arrived so far.
    pub fn arrived(&self) -> Vec<Arrived> {
        let arrived = self.serving.arrived.lock();
        arrived.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.stopped.store(true, Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

impl Serving {
    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(IDLE))?;
        let mut first = [0];
        if stream.peek(&mut first)? == 0 {
            return Ok(());
        }
        if first != [HANDSHAKE] {
            return self.answer(stream, None);
        }
        let session = ServerConnection::new(self.tls.clone()).map_err(io::Error::other)?;
        let mut secured = StreamOwned::new(session, stream);
        secured.conn.complete_io(&mut secured.sock)?;
        let server_name = secured.conn.server_name().map(str::to_owned);
        self.answer(secured, server_name.as_deref())
    }

    /// Answers each request, and each line that begins none, until the caller's end.
    fn answer(&self, stream: impl Read + Write, server_name: Option<&str>) -> io::Result<()> {
        let mut reader = BufReader::new(stream);
        while let Some(first) = line(&mut reader)? {
            let request = first.strip_suffix(" HTTP/1.1");
            let target = request.and_then(|request| request.split(' ').nth(1));
            let mut arrived = Arrived {
                server_name: server_name.map(str::to_owned),
                host: String::new(),
                text: target.unwrap_or(&first).to_owned(),
            };
            let answer = if target.is_some() {
                arrived.host = host(&mut reader)?;
                let version = &self.version;
                format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\necho-version: {version}\r\n\r\n")
            } else {
                format!("{}\n", self.version)
            };
            let mut log = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
            log.push(arrived);
            drop(log);
            reader.get_mut().write_all(answer.as_bytes())?;
            reader.get_mut().flush()?;
        }
        Ok(())
    }
}

/// Reads the head to its end, and returns its Host.
fn host(reader: &mut impl BufRead) -> io::Result<String> {
    let mut host = String::new();
    while let Some(field) = line(reader)?.filter(|field| !field.is_empty()) {
        let value = field
            .split_once(':')
            .filter(|(name, _)| name.eq_ignore_ascii_case("host"));
        if let Some((_, value)) = value {
            host = value.trim().to_owned();
        }
    }
    Ok(host)
}

/// `None` at the end.
fn line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    let read = reader.take(LONGEST).read_line(&mut line)?;
    Ok((read > 0).then(|| line.trim_end().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_lines_of_one_connection_are_answered() -> anyhow::Result<()> {
        let certificate = Certificate::of(&["pay.example"])?;
        let server = Outside::start("127.0.0.1", 0, "v1", &certificate)?;
        let mut stream = TcpStream::connect(server.address)?;
        stream.write_all(b"GET /a HTTP/1.1\r\nhost: pay.example\r\n\r\nwho\n")?;
        let mut reader = BufReader::new(stream);
        let mut lines = Vec::new();
        while lines.last().is_none_or(|last| last != "v1") {
            lines.push(line(&mut reader)?.context("the server ended it")?);
        }
        assert_eq!(lines[0], "HTTP/1.1 200 OK");
        let arrived = |host: &str, text: &str| Arrived {
            server_name: None,
            host: host.into(),
            text: text.into(),
        };
        assert_eq!(
            server.arrived(),
            [arrived("pay.example", "/a"), arrived("", "who")]
        );
        assert_eq!(server.connections(), 1);
        Ok(())
    }
}
