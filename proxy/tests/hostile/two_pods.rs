//! Two pods, and an application that records what it receives and parses it strictly.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::tls::{self, DEDICATED_ALPN};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use weft_proxy::MESH_PORT;
use wire::v1::{self, Enforcement, MtlsMode, Protocol};

use super::healthy::answers_soon;
use crate::support::{Authority, Pod, endpoint, endpoints, id, resource, service, vip};

/// An answer that is to come comes within this time.
const PATIENCE: Duration = Duration::from_secs(5);
/// So long a caller stays that keeps its connection.
const STAY: Duration = Duration::from_millis(500);
/// An answer by a dedicated connection begins within this time, or there is none.
const SILENT: Duration = Duration::from_secs(2);
/// How long the test waits for more bytes where no end is announced.
const LINGER: Duration = Duration::from_millis(150);

/// One complete request, as it stood in the application's socket.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: String,
}

impl Recorded {
    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// Every value of a header, in any case of letters.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .filter(|(given, _)| given.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect()
    }
}

pub(crate) type Log = Arc<Mutex<Vec<Recorded>>>;

/// Ways into the mesh for a caller that speaks HTTP itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryPoint {
    /// As an application in the mesh: through two proxies.
    Outbound,
    /// From outside the mesh, in plaintext.
    Inbound,
}

pub(crate) const ENTRY_POINTS: [EntryPoint; 2] = [EntryPoint::Outbound, EntryPoint::Inbound];

/// A sender of bytes that are to be read as HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaker {
    Caller(EntryPoint),
    /// A peer that holds a certificate of the mesh, by a dedicated connection.
    Peer,
}

pub(crate) const SPEAKERS: [Speaker; 3] = [
    Speaker::Caller(EntryPoint::Outbound),
    Speaker::Caller(EntryPoint::Inbound),
    Speaker::Peer,
];

impl From<EntryPoint> for Speaker {
    fn from(entry: EntryPoint) -> Self {
        Self::Caller(entry)
    }
}

pub(crate) struct TwoPods {
    pub(crate) authority: Authority,
    pub(crate) client: Pod,
    pub(crate) server: Pod,
    pub(crate) port: u16,
    pub(crate) log: Log,
}

impl TwoPods {
    /// The port is declared as `protocol` on both sides.
    pub(crate) async fn new(protocol: Protocol) -> Self {
        let authority = Authority::new();
        let client = Pod::new(&authority, "web").await;
        let server = Pod::new(&authority, "api").await;
        let (port, log) = recorder(&server).await;
        client.set(service("api", vip().ip(), protocol, Vec::new()));
        let pods = Self {
            authority,
            client,
            server,
            port,
            log,
        };
        pods.deliver_to(port);
        pods.workload(protocol, Enforcement::Open);
        pods
    }

    /// Both ways lead to this port of the server from now on.
    pub(crate) fn deliver_to(&self, port: u16) {
        let there = endpoint(self.server.ip, port, Some("api"));
        self.client.set(vec![endpoints("api", vec![there])]);
    }

    pub(crate) fn workload(&self, protocol: Protocol, enforcement: Enforcement) {
        self.workload_in(protocol, enforcement, MtlsMode::Permissive);
    }

    pub(crate) fn workload_in(&self, protocol: Protocol, enforcement: Enforcement, mtls: MtlsMode) {
        let workload = v1::Workload {
            identity: id("api").as_str().to_owned(),
            enforcement: enforcement as i32,
            mtls: mtls as i32,
            ports: vec![v1::PortProtocol {
                first: 1,
                last: 65_535,
                protocol: protocol as i32,
            }],
            ..v1::Workload::default()
        };
        self.server.set(vec![resource(
            wire::names::WORKLOAD,
            v1::resource::Content::Workload(workload),
        )]);
    }

    /// From now on only `paths` are allowed, to callers of either way.
    pub(crate) fn allow(&self, protocol: Protocol, paths: &[&str]) {
        self.workload(protocol, Enforcement::Enforce);
        self.server.set(vec![for_everybody(paths, &[])]);
    }

    pub(crate) async fn open(&self, entry: EntryPoint) -> TcpStream {
        match entry {
            EntryPoint::Outbound => self.client.call(vip()).await,
            EntryPoint::Inbound => self.server.plain(self.port).await,
        }
    }

    /// Sends the bytes, ends the sending side, and returns all that comes back.
    pub(crate) async fn send(
        &self,
        speaker: impl Into<Speaker>,
        bytes: impl AsRef<[u8]>,
    ) -> String {
        let Speaker::Caller(entry) = speaker.into() else {
            return self.send_by_dedicated(bytes.as_ref(), LINGER).await;
        };
        let mut stream = self.open(entry).await;
        let _ = stream.write_all(bytes.as_ref()).await;
        let _ = stream.shutdown().await;
        rest(&mut stream, PATIENCE).await
    }

    /// Sends the bytes and stays, as a caller that keeps its connection does.
    pub(crate) async fn send_and_stay(
        &self,
        speaker: impl Into<Speaker>,
        bytes: impl AsRef<[u8]>,
    ) -> String {
        let Speaker::Caller(entry) = speaker.into() else {
            return self.send_by_dedicated(bytes.as_ref(), STAY).await;
        };
        let mut stream = self.open(entry).await;
        let _ = stream.write_all(bytes.as_ref()).await;
        rest(&mut stream, STAY).await
    }

    /// What a peer proxy says first in a head is put into the first one; a request
    /// behind it has none and is refused. A peer that ends its side takes its request
    /// back, so this one stays until nothing more came for as long as `linger`.
    async fn send_by_dedicated(&self, bytes: &[u8], linger: Duration) -> String {
        let alpn = [DEDICATED_ALPN];
        let certs = self
            .authority
            .leaf("web", Duration::from_secs(600), SystemTime::now());
        let config = tls::mesh_client_config(&self.authority.roots(), &certs, id("api"), &alpn);
        let stream = TcpStream::connect((self.server.ip, MESH_PORT))
            .await
            .unwrap();
        let mut dedicated = tokio_rustls::TlsConnector::from(config)
            .connect(tls::peer_name(), stream)
            .await
            .unwrap();
        let begin = bytes
            .iter()
            .take_while(|byte| b"\r\n".contains(byte))
            .count();
        let own = format!("weft-port: {}\r\nweft-protocol: http1\r\n", self.port);
        let at = find(&bytes[begin..], b"\r\n").map_or(bytes.len(), |at| begin + at + 2);
        let _ = dedicated.write_all(&bytes[..at]).await;
        let _ = dedicated.write_all(own.as_bytes()).await;
        let _ = dedicated.write_all(&bytes[at..]).await;
        let _ = dedicated.flush().await;
        let (mut answer, mut more) = (Vec::new(), vec![0; 4096]);
        let mut patience = SILENT;
        while let Ok(Ok(count @ 1..)) = timeout(patience, dedicated.read(&mut more)).await {
            answer.extend_from_slice(&more[..count]);
            patience = linger;
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// What the application got since the last call. Whatever happened before,
    /// it must not have been a message that its parser could not make out.
    pub(crate) fn recorded(&self, case: &str) -> Vec<Recorded> {
        let all = std::mem::take(&mut *self.log.lock());
        for one in &all {
            assert!(!one.head.starts_with("BROKEN"), "{case}: {one:?}");
        }
        all
    }

    /// The control: an ordinary request on a new connection from everybody.
    pub(crate) async fn works(&self, case: &str) {
        self.works_at("/ok", case).await;
    }

    pub(crate) async fn works_at(&self, path: &str, case: &str) {
        let before = self.log.lock().len();
        for from in SPEAKERS {
            let case = format!("{case}, {from:?}");
            let request = format!("GET {path} HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n");
            answers_soon(&case, async || {
                let answer = self.send(from, &request).await;
                assert_eq!(status(&answer), 200, "after {case}: {answer}");
            })
            .await;
        }
        self.log.lock().truncate(before);
    }
}

/// A rule that admits the client pod and callers outside the mesh.
pub(crate) fn for_everybody(paths: &[&str], methods: &[&str]) -> v1::Resource {
    let rule = v1::Rule {
        origin: Some(v1::ObjectRef {
            kind: "TrafficTarget".into(),
            namespace: "shop".into(),
            name: "everybody".into(),
        }),
        sources: vec![
            v1::Source {
                who: Some(v1::source::Who::SpiffeId(id("web").as_str().to_owned())),
            },
            v1::Source {
                who: Some(v1::source::Who::Unauthenticated(true)),
            },
        ],
        ports: None,
        http: Some(v1::HttpMatches {
            matches: paths
                .iter()
                .map(|path| v1::HttpMatch {
                    name: "m".into(),
                    path_regex: Some((*path).to_owned()),
                    methods: methods.iter().map(|method| (*method).to_owned()).collect(),
                    ..v1::HttpMatch::default()
                })
                .collect(),
        }),
        limit: None,
    };
    resource(
        &wire::names::rule("shop", "everybody"),
        v1::resource::Content::Rule(rule),
    )
}

/// Everything up to the end of the connection, or what came within the time.
pub(crate) async fn rest(stream: &mut TcpStream, patience: Duration) -> String {
    let mut answer = Vec::new();
    let _ = timeout(patience, stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Status of the first answer; 0 when there is none.
pub(crate) fn status(answer: &str) -> u16 {
    answer
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..5))
        .and_then(|status| status.parse().ok())
        .unwrap_or(0)
}

/// Answers in one text.
pub(crate) fn answers(answer: &str) -> usize {
    answer.matches("HTTP/1.1 ").count()
}

/// A server whose every connection is handled by `serve`.
pub(crate) async fn serving<F>(pod: &Pod, serve: impl Fn(TcpStream) -> F + Send + 'static) -> u16
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((pod.ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    port
}

/// An application that keeps what it got, to the byte.
pub(crate) async fn recorder(pod: &Pod) -> (u16, Log) {
    let log = Log::default();
    let kept = Arc::clone(&log);
    let port = serving(pod, move |stream| record(stream, Arc::clone(&kept))).await;
    (port, log)
}

async fn record(mut stream: TcpStream, log: Log) {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match parse(&bytes) {
            Ok(Some((request, used))) => {
                bytes.drain(..used);
                let target = request.line().split(' ').nth(1).unwrap_or_default();
                let body = format!("{target} body={}", request.body.len());
                log.lock().push(request);
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
                continue;
            }
            Ok(None) => {}
            Err(why) => {
                let head = format!("BROKEN ({why}): {:?}", String::from_utf8_lossy(&bytes));
                log.lock().push(Recorded {
                    head,
                    body: Vec::new(),
                    trailers: String::new(),
                });
                return;
            }
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

/// One request and its length; `None` when more bytes are needed. Reads only
/// what has one meaning.
fn parse(bytes: &[u8]) -> Result<Option<(Recorded, usize)>, &'static str> {
    let Some(end) = find(bytes, b"\r\n\r\n") else {
        // Not even the beginning of a head may hold what lenient parsers accept.
        let lone = bytes
            .windows(2)
            .any(|pair| pair[1] == b'\n' && pair[0] != b'\r');
        return if lone { Err("bare LF") } else { Ok(None) };
    };
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| "head is not UTF-8")?;
    if head.replace("\r\n", "").contains(['\r', '\n', '\0']) {
        return Err("control character");
    }
    let mut lines = head.split("\r\n");
    let words: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    if words.len() != 3 || words[2] != "HTTP/1.1" || words[0].is_empty() || words[1].is_empty() {
        return Err("request line");
    }
    for line in lines {
        let Some((name, _)) = line.split_once(':') else {
            return Err("header without colon");
        };
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("header name");
        }
    }
    let mut request = Recorded {
        head: head.to_owned(),
        body: Vec::new(),
        trailers: String::new(),
    };
    if request.values("host").len() != 1 {
        return Err("not one Host");
    }
    let mut at = end + 4;
    let lengths = request.values("content-length");
    match (request.values("transfer-encoding").as_slice(), &lengths[..]) {
        ([], []) => {}
        ([], [length]) => {
            let length: usize = length.parse().map_err(|_| "length")?;
            let Some(body) = bytes.get(at..at + length) else {
                return Ok(None);
            };
            request.body = body.to_vec();
            at += length;
        }
        (["chunked"], []) => loop {
            let Some(line) = find(&bytes[at..], b"\r\n") else {
                return Ok(None);
            };
            let size = std::str::from_utf8(&bytes[at..at + line]).map_err(|_| "chunk")?;
            let size = usize::from_str_radix(size, 16).map_err(|_| "chunk size")?;
            at += line + 2;
            if size == 0 {
                let Some(end) = find(&bytes[at - 2..], b"\r\n\r\n") else {
                    return Ok(None);
                };
                let trailers = bytes.get(at..at - 2 + end).unwrap_or_default();
                request.trailers = String::from_utf8_lossy(trailers).into_owned();
                at += end + 2;
                break;
            }
            let Some(data) = bytes.get(at..at + size + 2) else {
                return Ok(None);
            };
            if !data.ends_with(b"\r\n") {
                return Err("chunk end");
            }
            request.body.extend_from_slice(&data[..size]);
            at += size + 2;
        },
        _ => return Err("two framings"),
    }
    Ok(Some((request, at)))
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|part| part == what)
}
