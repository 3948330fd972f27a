//! Breaks on one side reach the other side as breaks: a reset, a lost server or a cut connection
//! between two proxies never looks like a regular end.
//!
//! Claims: attack-30

use std::future::{pending, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, timeout, timeout_at};
use weft_proxy::MESH_PORT;
use wire::v1::Protocol;

use super::stalls::crash;
use super::two_pods::{ENTRY_POINTS, EntryPoint, TwoPods, serving};
use crate::support::{Pod, endpoint, endpoints, external};

const SOON: Duration = Duration::from_secs(5);
/// Ten seconds, which `http2/tests.rs` and `http2/tests/silent.rs` hold either end to by a clock of
/// their own, and a moment for a test that shares its machine.
const ABANDONED_WITHIN: Duration = Duration::from_secs(12);

/// How a connection between two proxies is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// Without a TLS message, as the kernel closes the connections of a killed process.
    Close,
    Reset,
    /// No packet passes either way, and neither end gets an error, as when a node is lost.
    Silence,
}

const CUTS: [Cut; 3] = [Cut::Close, Cut::Reset, Cut::Silence];

impl Cut {
    /// Both ends of what went by the connection know by then.
    fn is_known_by(self) -> Instant {
        let within = match self {
            Self::Close | Self::Reset => SOON,
            Self::Silence => ABANDONED_WITHIN,
        };
        Instant::now() + within
    }
}

/// What two proxies speak by, as it is between them: it can be cut.
struct Cable {
    cuts: broadcast::Sender<Cut>,
    silent: watch::Sender<bool>,
}

impl Cable {
    /// From now on calls go this way, to this port of the server.
    async fn between(pods: &TwoPods, port: u16) -> Self {
        let real = pods.server.ip;
        let IpAddr::V4(ip) = real else {
            unreachable!("pods of these tests have IPv4");
        };
        // Beside the server, whose own port is taken.
        let [first, second, _, last] = ip.octets();
        let ip = IpAddr::from([first, second, 255, last]);
        let listener = TcpListener::bind((ip, MESH_PORT)).await.unwrap();
        let (cuts, _) = broadcast::channel(1);
        let (silent, _) = watch::channel(false);
        let (cutter, silences) = (cuts.clone(), silent.clone());
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (mut cut, mut silent) = (cutter.subscribe(), silences.subscribe());
                tokio::spawn(async move {
                    if silent.wait_for(|silent| !*silent).await.is_err() {
                        return;
                    }
                    let mut far = TcpStream::connect((real, MESH_PORT)).await.unwrap();
                    let cut = tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => return,
                        cut = cut.recv() => cut,
                    };
                    match cut {
                        Ok(Cut::Reset) => {
                            crash(near);
                            crash(far);
                        }
                        // Both stay open.
                        Ok(Cut::Silence) => pending().await,
                        Ok(Cut::Close) | Err(_) => {}
                    }
                });
            }
        });
        let there = endpoint(ip, port, Some("api"));
        pods.client.set(vec![endpoints("api", vec![there])]);
        Self { cuts, silent }
    }

    /// Whatever goes by it is lost. What comes later finds a new one, by a silent one not
    /// before that is over.
    fn cut(&self, how: Cut) {
        self.silent.send_replace(how == Cut::Silence);
        self.cuts.send(how).expect("a connection must pass it");
    }

    /// Ends its silence for what comes later.
    fn mend(&self) {
        self.silent.send_replace(false);
    }
}

/// An application that answers one byte with one byte. A caller that sends 1 is reset after more
/// bytes, a caller that sends 3 gets a regular close. For all others the application reports how
/// many further bytes came, and whether a reset was their end.
async fn teller(pod: &Pod) -> (u16, UnboundedReceiver<(usize, bool)>) {
    let (tx, rx) = unbounded_channel();
    let port = serving(pod, move |mut stream: TcpStream| {
        let tx = tx.clone();
        async move {
            let Ok(first) = stream.read_u8().await else {
                return;
            };
            let _ = stream.write_all(&[7]).await;
            if first == 1 || first == 3 {
                let _ = stream.write_all(&[7; 1000]).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
                if first == 1 {
                    crash(stream);
                }
                return;
            }
            let mut rest = Vec::new();
            let outcome = stream.read_to_end(&mut rest).await;
            let _ = tx.send((rest.len(), outcome.is_err()));
        }
    })
    .await;
    (port, rx)
}

/// Says this, and waits until the first byte was answered.
async fn begin(stream: &mut TcpStream, first_bytes: &[u8]) {
    stream.write_all(first_bytes).await.unwrap();
    let answer = timeout(SOON, stream.read_u8()).await.unwrap();
    assert_eq!(answer.unwrap(), 7);
}

/// Each end of connections to a [`teller`] arrives as what it was.
async fn ends_arrive<F: Future<Output = TcpStream>>(
    case: &str,
    open: impl Fn() -> F,
    rx: &mut UnboundedReceiver<(usize, bool)>,
) {
    for (kind, resets) in [(1, true), (3, false)] {
        let mut caller = open().await;
        begin(&mut caller, &[kind]).await;
        let mut got = Vec::new();
        let outcome = timeout(SOON, caller.read_to_end(&mut got)).await.unwrap();
        let end = outcome.map_err(|error| error.kind());
        if resets {
            let reset = Err(std::io::ErrorKind::ConnectionReset);
            assert_eq!(end, reset, "{case}: after {} bytes", got.len());
        } else {
            assert_eq!(end, Ok(1000), "{case}: a good end");
        }
    }

    let mut caller = open().await;
    begin(&mut caller, &[2; 1000]).await;
    crash(caller);
    let (size, reset) = timeout(SOON, rx.recv()).await.unwrap().unwrap();
    assert!(reset, "{case}: an end after {size} bytes");

    // The control: a good end is a good end.
    let mut caller = open().await;
    begin(&mut caller, &[2; 1000]).await;
    caller.shutdown().await.unwrap();
    let ended = timeout(SOON, rx.recv()).await.unwrap().unwrap();
    assert_eq!(ended, (999, false), "{case}");
}

// Claims: R4
#[tokio::test]
async fn a_reset_arrives_as_a_reset_in_both_directions() {
    for protocol in [Protocol::Opaque, Protocol::Detect] {
        let mut pods = TwoPods::new(protocol).await;
        let (port, mut rx) = teller(&pods.server).await;
        pods.port = port;
        pods.deliver_to(port);
        for entry in ENTRY_POINTS {
            let case = format!("{protocol:?} {entry:?}");
            ends_arrive(&case, || pods.open(entry), &mut rx).await;
        }
    }
}

// Claims: R4
#[tokio::test]
async fn reset_passes_to_and_from_address_outside_mesh() {
    let pods = TwoPods::new(Protocol::Opaque).await;
    let (port, mut rx) = teller(&pods.server).await;
    let outside = SocketAddr::new(pods.server.ip, port);
    pods.client.set(vec![external(outside)]);
    ends_arrive("outside", || pods.client.call(outside), &mut rx).await;
}

// Claims: R4
#[tokio::test]
async fn tunnel_broken_between_proxies_resets_both_ends() {
    for protocol in [Protocol::Opaque, Protocol::Detect] {
        let pods = TwoPods::new(protocol).await;
        let (port, mut rx) = teller(&pods.server).await;
        let cable = Cable::between(&pods, port).await;
        for cut in CUTS {
            let case = format!("{protocol:?} {cut:?}");
            let mut caller = pods.open(EntryPoint::Outbound).await;
            begin(&mut caller, &[2; 1000]).await;
            cable.cut(cut);
            let by = cut.is_known_by();
            let end = timeout_at(by, caller.read_u8()).await.unwrap();
            let end = end.map_err(|error| error.kind());
            let reset = Err(std::io::ErrorKind::ConnectionReset);
            assert_eq!(end, reset, "{case}: the caller");
            let (size, reset) = timeout_at(by, rx.recv()).await.unwrap().unwrap();
            assert!(reset, "{case}: the application, after {size} bytes");
            cable.mend();
            // The control, by a new connection between them.
            ends_arrive(&case, || pods.open(EntryPoint::Outbound), &mut rx).await;
        }
    }
}

// Claims: R4
#[tokio::test]
async fn close_delimited_response_looks_incomplete_when_server_breaks() {
    let mut pods = TwoPods::new(Protocol::Http1).await;
    pods.port = serving(&pods.server, |mut stream: TcpStream| async move {
        let mut head = vec![0; 1024];
        let _ = stream.read(&mut head).await;
        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhalf").await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        crash(stream);
    })
    .await;
    pods.deliver_to(pods.port);
    for entry in ENTRY_POINTS {
        let mut caller = pods.open(entry).await;
        caller
            .write_all(b"GET / HTTP/1.0\r\nHost: s\r\n\r\n")
            .await
            .unwrap();
        let mut got = Vec::new();
        let outcome = timeout(SOON, caller.read_to_end(&mut got)).await.unwrap();
        assert!(
            outcome.is_err(),
            "{entry:?}: {}",
            String::from_utf8_lossy(&got)
        );
    }
}

/// The same where the proxies lose each other.
// Claims: R4
#[tokio::test]
async fn close_delimited_response_looks_incomplete_when_proxies_disconnect() {
    let pods = TwoPods::new(Protocol::Http1).await;
    let (tx, mut rx) = unbounded_channel();
    let port = serving(&pods.server, move |mut stream: TcpStream| {
        let tx = tx.clone();
        async move {
            let mut head = vec![0; 1024];
            let count = stream.read(&mut head).await.unwrap_or(0);
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhalf").await;
            if head[..count].starts_with(b"GET /half ") {
                // Until the proxy goes.
                let more = stream.read(&mut head).await;
                let _ = tx.send(more.unwrap_or(0));
            }
        }
    })
    .await;
    let cable = Cable::between(&pods, port).await;
    for (path, cut) in [
        ("/half", Some(Cut::Close)),
        ("/half", Some(Cut::Reset)),
        ("/half", Some(Cut::Silence)),
        // The control.
        ("/whole", None),
    ] {
        let mut caller = pods.open(EntryPoint::Outbound).await;
        let request = format!("GET {path} HTTP/1.0\r\nHost: s\r\n\r\n");
        caller.write_all(request.as_bytes()).await.unwrap();
        let mut got = Vec::new();
        while !got.ends_with(b"half") {
            let byte = timeout(SOON, caller.read_u8()).await.unwrap();
            got.push(byte.unwrap());
        }
        if let Some(cut) = cut {
            cable.cut(cut);
        }
        let by = cut.unwrap_or(Cut::Close).is_known_by();
        let mut more = Vec::new();
        let end = timeout_at(by, caller.read_to_end(&mut more)).await;
        let end = end.unwrap_or_else(|_| panic!("{path} {cut:?}: the caller waits"));
        let reset = end.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset);
        assert_eq!((reset, more.len()), (cut.is_some(), 0), "{path} {cut:?}");
        if cut.is_some() {
            // Its connection ends.
            let ended = timeout_at(by, rx.recv()).await;
            assert_eq!(ended, Ok(Some(0)), "{path} {cut:?}: the application");
        }
        cable.mend();
    }
}

/// Begins a stream of gRPC that goes on for as long as this is kept.
fn one_message(respond: &mut SendResponse<Bytes>) -> SendStream<Bytes> {
    let head = Response::builder()
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let mut send = respond.send_response(head, false).unwrap();
    send.send_data(Bytes::from_static(b"\0\0\0\0\x01x"), false)
        .unwrap();
    send
}

/// The end of a gRPC stream when this has happened after its first message; `happens` returns the
/// deadline of that end.
async fn trailers_after(stream: TcpStream, happens: impl FnOnce() -> Instant) -> HeaderMap {
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("http://s/a.b/C")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (response, _keep) = sender.send_request(request, false).unwrap();
    let mut body = timeout(SOON, response).await.unwrap().unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap().len(), 6);
    let by = happens();
    let end = timeout_at(by, body.data()).await.unwrap();
    assert!(end.is_none(), "{end:?}");
    body.trailers().await.unwrap().unwrap_or_default()
}

// Claims: R9
#[tokio::test]
async fn a_grpc_stream_whose_server_goes_away_says_unavailable() {
    let mut pods = TwoPods::new(Protocol::Grpc).await;
    pods.port = serving(&pods.server, |stream: TcpStream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        let _send = one_message(&mut respond);
        let serving = async { while connection.accept().await.is_some() {} };
        let _ = timeout(Duration::from_millis(300), serving).await;
    })
    .await;
    pods.deliver_to(pods.port);
    for entry in ENTRY_POINTS {
        let soon = || Instant::now() + SOON;
        let trailers = trailers_after(pods.open(entry).await, soon).await;
        assert_eq!(trailers["grpc-status"], "14", "{entry:?}: {trailers:?}");
    }
}

// Claims: R9
#[tokio::test]
async fn grpc_stream_ends_unavailable_when_servers_proxy_disappears() {
    let pods = TwoPods::new(Protocol::Grpc).await;
    let (tx, mut rx) = unbounded_channel();
    let port = serving(&pods.server, move |stream: TcpStream| {
        let tx = tx.clone();
        async move {
            let Ok(mut connection) = h2::server::handshake(stream).await else {
                return;
            };
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let tx = tx.clone();
                tokio::spawn(async move {
                    let mut send = one_message(&mut respond);
                    let _ = poll_fn(|cx| send.poll_reset(cx)).await;
                    let _ = tx.send(());
                });
            }
        }
    })
    .await;
    let cable = Cable::between(&pods, port).await;
    for cut in CUTS {
        let stream = pods.open(EntryPoint::Outbound).await;
        let mut by = Instant::now();
        let cuts = || {
            cable.cut(cut);
            by = cut.is_known_by();
            by
        };
        let trailers = trailers_after(stream, cuts).await;
        assert_eq!(trailers["grpc-status"], "14", "{cut:?}: {trailers:?}");
        let ended = timeout_at(by, rx.recv()).await;
        assert!(ended.is_ok(), "{cut:?}: the application's goes on");
        cable.mend();
    }
}

#[tokio::test]
async fn data_sent_before_stream_reset_arrives_then_error() {
    let mut pods = TwoPods::new(Protocol::Http2).await;
    pods.port = serving(&pods.server, |stream: TcpStream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            tokio::spawn(async move {
                let mut send = respond.send_response(Response::new(()), false).unwrap();
                send.send_data(Bytes::from_static(b"half"), false).unwrap();
                tokio::task::yield_now().await;
                send.send_reset(h2::Reason::INTERNAL_ERROR);
            });
        }
    })
    .await;
    pods.deliver_to(pods.port);
    for entry in ENTRY_POINTS {
        let (mut sender, connection) = h2::client::handshake(pods.open(entry).await).await.unwrap();
        tokio::spawn(connection);
        for at in 0..20 {
            let request = Request::get("http://s/").body(()).unwrap();
            let (response, _) = sender.send_request(request, true).unwrap();
            let answer = timeout(SOON, response).await.unwrap().unwrap();
            assert_eq!(answer.status(), 200, "{entry:?} {at}");
            assert!(!answer.headers().contains_key("content-length"));
            let mut body = answer.into_body();
            assert_eq!(
                body.data().await.unwrap().unwrap(),
                "half",
                "{entry:?} {at}"
            );
            let end = timeout(SOON, body.data()).await.unwrap();
            assert!(matches!(end, Some(Err(_))), "{entry:?} {at}: {end:?}");
        }
    }
}
