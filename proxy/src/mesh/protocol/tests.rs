//! Messages between two proxies keep their form, and what has none is refused.
//!
//! Claims: attack-55, attack-82

mod copies;
mod forms;
mod posts;
mod random;

use http::{Request, Response};
use oracle::seeds::seeds;

use self::random::{OF_ANSWERS, OF_REQUESTS, Random, by_get};
use super::*;
use crate::http::headers::without_http;
use crate::http::received::host_of;

fn fields(map: &HeaderMap, ordered: bool) -> String {
    let field = |(name, value): (&HeaderName, &HeaderValue)| {
        format!("{name}: {}", value.as_bytes().escape_ascii())
    };
    let mut fields: Vec<String> = map.iter().map(field).collect();
    if !ordered {
        fields.retain(|field| !field.starts_with("host: "));
        // By name only: values of one name have an order.
        fields.sort_by(|one, other| one.split(':').next().cmp(&other.split(':').next()));
    }
    fields.join(" | ")
}

/// The head as it is written: method, target, version, then the headers in order.
fn wire(parts: &Parts) -> String {
    let fields = fields(&parts.headers, true);
    format!(
        "{} {} {:?} | {fields}",
        parts.method, parts.uri, parts.version
    )
}

/// The request for the application, however it is written.
fn meaning(request: &PeerRequest) -> String {
    let asks = |parts: &Parts| {
        let target = parts.uri.path_and_query();
        let fields = fields(&parts.headers, false);
        let host = host_of(parts);
        format!("{} {target:?} {host:?} | {fields}", parts.method)
    };
    match request {
        PeerRequest::Http { port, speak, parts } => format!("{port:?} {speak:?} {}", asks(parts)),
        PeerRequest::ReadOnlyCopy { port, speak, parts } => {
            format!("{port:?} copy {speak:?} {}", asks(parts))
        }
        PeerRequest::Upgrade {
            port, to, parts, ..
        } => format!("{port:?} to {to:?} {}", asks(parts)),
        PeerRequest::Tcp {
            port,
            authority,
            external,
        } => format!("{port:?} bytes {authority} {external:?}"),
    }
}

fn answer(response: &PeerResponse) -> String {
    let head = |parts: &response::Parts| {
        let mut map = parts.headers.clone();
        map.remove(UNSENT);
        format!("{} {}", parts.status, fields(&map, true))
    };
    match response {
        PeerResponse::Answered(parts) => format!("answered {}", head(parts)),
        PeerResponse::Switched { to, parts } => format!("switched {to:?} {}", head(parts)),
        PeerResponse::NotSent { reason, parts } => format!("not sent {reason:?} {}", head(parts)),
    }
}

const TRANSPORTS: [Transport; 2] = [Transport::Http2, Transport::Http1];

/// Counts which of these names a message has.
fn count(map: &HeaderMap, names: &[HeaderName], times: &mut [usize]) {
    for (name, times) in names.iter().zip(times) {
        *times += usize::from(map.contains_key(name));
    }
}

#[test]
fn ten_thousand_peer_requests_round_trip_unchanged() {
    let mut seeds = seeds(1);
    let seed = seeds.next().unwrap();
    for transport in TRANSPORTS {
        let mut random = Random(seed + 1);
        let mut counts = vec![0; OF_REQUESTS.len()];
        for round in 0..10_000 {
            let request = random.request(transport);
            let sent = request.encode(transport).unwrap();
            count(&sent.headers, &OF_REQUESTS, &mut counts);
            let came = PeerRequest::decode(sent.clone(), transport).unwrap();
            assert_eq!(meaning(&came), meaning(&request), "{transport:?} {round}");
            let again = came.encode(transport).unwrap();
            assert_eq!(wire(&again), wire(&sent), "{transport:?} {round}");
        }
        assert!(counts.iter().all(|times| *times > 1000), "{counts:?}");
    }
}

#[test]
fn ten_thousand_peer_responses_round_trip_unchanged() {
    let mut seeds = seeds(1);
    let seed = seeds.next().unwrap();
    for kind in [RequestKind::Http, RequestKind::Upgrade, RequestKind::Tcp] {
        let mut random = Random(seed + 2);
        let mut counts = [0; 3];
        for round in 0..10_000 {
            let response = random.response(kind);
            let expected = answer(&response);
            let sent = response.encode(kind);
            count(&sent.headers, &OF_ANSWERS, &mut counts);
            let came = PeerResponse::decode(sent, kind).unwrap();
            assert_eq!(answer(&came), expected, "{kind:?} {round}");
        }
        assert!(counts.iter().all(|times| *times > 1000), "{counts:?}");
    }
}

fn parts(line: (&str, &str, Version), headers: &[(&'static str, &'static str)]) -> Parts {
    let (method, uri, version) = line;
    let mut request = Request::builder().method(method).uri(uri).version(version);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

const ONE: Version = Version::HTTP_11;
const TWO: Version = Version::HTTP_2;

fn written(parts: Parts, upgrade: Option<&'static str>, transport: Transport) -> String {
    let port = AppPort::new(8080).unwrap();
    let speak = AppHttp::of(parts.version);
    let request = match upgrade {
        None => PeerRequest::Http { port, speak, parts },
        Some(to) => by_get(port, HeaderValue::from_static(to), parts),
    };
    wire(&request.encode(transport).unwrap())
}

#[test]
fn requests_to_a_peer_are_written_as_ever() {
    let get = || {
        parts(
            ("GET", "/a?b", ONE),
            &[("x", "1"), ("host", "h:1"), ("y", "2"), ("z", "3")],
        )
    };
    let absolute = || parts(("POST", "https://h/a", ONE), &[("host", "h"), ("x", "1")]);
    let grpc = || {
        parts(
            ("POST", "http://h/S/M", TWO),
            &[("te", "trailers"), ("host", "h")],
        )
    };
    let bare = || parts(("OPTIONS", "*", Version::HTTP_10), &[("x", "1")]);
    // A request without a host is for the address that was called.
    let named = |mut parts: Parts| {
        let mut uri = parts.uri.into_parts();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(Authority::from_static("10.0.0.1:80"));
        parts.uri = Uri::from_parts(uri).unwrap();
        parts
    };
    for (case, expected) in [
        (
            written(get(), None, Transport::Http2),
            "GET http://h:1/a?b HTTP/2.0 | x: 1 | z: 3 | y: 2 | weft-port: 8080 | weft-protocol: http1",
        ),
        (
            written(absolute(), None, Transport::Http2),
            "POST http://h/a HTTP/2.0 | x: 1 | weft-port: 8080 | weft-protocol: http1",
        ),
        (
            written(grpc(), None, Transport::Http2),
            "POST http://h/S/M HTTP/2.0 | te: trailers | weft-port: 8080 | weft-protocol: http2",
        ),
        (
            written(named(bare()), None, Transport::Http2),
            "OPTIONS http://10.0.0.1:80* HTTP/2.0 | x: 1 | weft-port: 8080 | weft-protocol: http1",
        ),
        (
            written(get(), Some("websocket"), Transport::Http2),
            "CONNECT h:1 HTTP/2.0 | x: 1 | z: 3 | y: 2 | weft-port: 8080 | weft-protocol: http1 \
             | weft-upgrade: websocket | weft-target: /a?b",
        ),
        (
            written(get(), None, Transport::Http1),
            "GET /a?b HTTP/1.1 | x: 1 | host: h:1 | y: 2 | z: 3 | weft-port: 8080 | weft-protocol: http1",
        ),
        (
            written(absolute(), None, Transport::Http1),
            "POST /a HTTP/1.1 | host: h | x: 1 | content-length: 0 | weft-port: 8080 | weft-protocol: http1",
        ),
    ] {
        assert_eq!(case, expected);
    }
}

#[test]
fn bytes_are_asked_for_as_ever() {
    let request = PeerRequest::<Parts>::Tcp {
        port: AppPort::new(5432).unwrap(),
        authority: Authority::from_static("10.0.0.7:5432"),
        external: None,
    };
    assert_eq!(
        wire(&request.encode(Transport::Http2).unwrap()),
        "POST http://10.0.0.7:5432/ HTTP/1.1 | weft-port: 5432 | weft-protocol: tcp"
    );
    assert_eq!(request.encode(Transport::Http1).unwrap_err(), TUNNEL);
}

#[test]
fn answers_to_a_peer_are_written_as_ever() {
    let head = |status: u16| {
        let response = Response::builder().status(status).header("x", "1");
        response.body(()).unwrap().into_parts().0
    };
    let shown = |parts: &response::Parts| {
        let fields = fields(&parts.headers, true);
        format!("{} | {fields}", parts.status.as_u16())
    };
    let failure = Failure::not_sent(Reason::ConnectFailed, "x");
    let proof = not_sent(&failure, failure.response(false), RequestKind::Http);
    let to = Some(HeaderValue::from_static("websocket"));
    let parts = head(101);
    for (given, written) in [
        (
            PeerResponse::Answered(head(404)).encode(RequestKind::Http),
            "404 | x: 1",
        ),
        (
            PeerResponse::Answered(head(404)).encode(RequestKind::Upgrade),
            "421 | x: 1 | weft-status: 404",
        ),
        (
            PeerResponse::Switched { to, parts }.encode(RequestKind::Upgrade),
            "200 | x: 1 | weft-status: 101 | weft-upgrade: websocket",
        ),
        (
            proof.into_parts().0,
            "503 | content-type: text/plain; charset=utf-8 | weft-reason: connect-failed \
             | weft-unsent: 1",
        ),
    ] {
        assert_eq!(shown(&given), written);
    }
}

/// Which port, and what for, a request was served at before it had a type: the rules as
/// they were written then.
fn served_before(parts: &Parts, transport: Transport) -> Option<(u16, &'static str)> {
    if acceptable(parts).is_err() {
        return None;
    }
    let map = &parts.headers;
    let port = map.get(PORT)?.to_str().ok()?.parse::<u16>().ok()?;
    if port == 0 || PROXY_PORTS.contains(&port) {
        return None;
    }
    let protocol = map.get(PROTOCOL).map(HeaderValue::as_bytes);
    let (tcp, connect) = (protocol == Some(b"tcp"), parts.method == Method::CONNECT);
    if transport == Transport::Http1 && (tcp || connect) {
        return None;
    }
    if tcp {
        return Some((port, "bytes"));
    }
    if connect {
        without_http(map.get_all(UPGRADE_TO))?;
        PathAndQuery::try_from(map.get(TARGET)?.as_bytes()).ok()?;
        return Some((port, "upgrade"));
    }
    let http2 = protocol == Some(b"http2");
    Some((port, if http2 { "http2" } else { "http1" }))
}

fn served(request: &PeerRequest) -> (u16, &'static str) {
    match request {
        PeerRequest::Tcp { port, .. } => (port.get(), "bytes"),
        PeerRequest::Upgrade { port, .. } => (port.get(), "upgrade"),
        PeerRequest::Http { port, speak, .. } | PeerRequest::ReadOnlyCopy { port, speak, .. } => {
            match speak {
                AppHttp::Http1 => (port.get(), "http1"),
                AppHttp::Http2 => (port.get(), "http2"),
            }
        }
    }
}

#[test]
fn no_head_is_served_that_was_refused_before() {
    let names = [
        PORT,
        PROTOCOL,
        UPGRADE_TO,
        TARGET,
        STATUS,
        UNSENT,
        header::HOST,
    ];
    let values = [
        "",
        "0",
        "80",
        "080",
        "+80",
        "8080",
        "15106",
        "70000",
        "http1",
        "http2",
        "HTTP1",
        "tcp",
        "websocket",
        "h2c",
        "h2c, foo",
        "/",
        "/a?b",
        "h",
        "a@h",
        "x y",
        "101",
    ];
    let mut taken = [0; 2];
    let mut seeds = seeds(1);
    let mut random = Random(seeds.next().unwrap() + 3);
    for round in 0..10_000 {
        let transport = random.one(&TRANSPORTS);
        let mut head = random.request(transport).encode(transport).unwrap();
        for _ in 0..=random.below(2) {
            let name = random.one(&[0, 1, 2, 3, 4, 5, 6]);
            let value = HeaderValue::from_static(random.one(&values));
            match random.below(3) {
                0 => drop(head.headers.remove(&names[name])),
                1 => drop(head.headers.insert(names[name].clone(), value)),
                _ => drop(head.headers.append(names[name].clone(), value)),
            }
        }
        if random.below(8) == 0 {
            head.method = random.one(&[&Method::GET, &Method::POST]).clone();
        }
        let shown = wire(&head);
        let before = served_before(&head, transport);
        // What is no valid request of HTTP is refused behind this, as all requests are.
        let valid = acceptable(&head).is_ok();
        match PeerRequest::decode(head, transport) {
            Ok(request) if valid => {
                taken[0] += 1;
                assert_eq!(Some(served(&request)), before, "{round}: {shown}");
            }
            Ok(request) => assert!(matches!(request, PeerRequest::Http { .. }), "{shown}"),
            Err(_) => taken[1] += 1,
        }
    }
    assert!(taken.iter().all(|count| *count > 1000), "{taken:?}");
}

#[test]
fn missing_duplicate_or_misplaced_peer_headers_are_malformed() {
    let http = [("weft-port", "80"), ("weft-protocol", "http1")];
    let upgrade = [
        http[0],
        http[1],
        ("weft-upgrade", "foo"),
        ("weft-target", "/"),
    ];
    let tcp = [http[0], ("weft-protocol", "tcp")];
    let get = ("GET", "http://h/", TWO);
    let connect = ("CONNECT", "h", TWO);
    let post = ("POST", "http://h/", TWO);
    let good = [(get, &http[..]), (connect, &upgrade), (post, &tcp)];
    for (line, headers) in good {
        let head = || parts(line, headers);
        PeerRequest::decode(head(), Transport::Http2).unwrap();
        let by_http1 = PeerRequest::decode(head(), Transport::Http1);
        assert_eq!(by_http1.is_ok(), line == get, "{line:?}");
        for (at, (name, value)) in headers.iter().enumerate() {
            let mut missing = headers.to_vec();
            missing.remove(at);
            let mut twice = headers.to_vec();
            twice.push((name, value));
            for (case, changed) in [("without", missing), ("twice", twice)] {
                for transport in TRANSPORTS {
                    let got = PeerRequest::decode(parts(line, &changed), transport);
                    assert!(got.is_err(), "{line:?} {case} {name}: {got:?}");
                }
            }
        }
    }
    let port = |value| [("weft-port", value), http[1]];
    let protocol = |value| [http[0], ("weft-protocol", value)];
    let ports = [
        "0", "15101", "15106", "15108", "15190", "70000", "-1", "+80", "8 0", "", "x", "80,80",
    ];
    let mut cases: Vec<_> = ports.map(|value| (get, port(value).to_vec())).into();
    let protocols = ["", "HTTP1", "http1 ", "http3", "http1, http2", "tcp1"];
    cases.extend(protocols.map(|value| (get, protocol(value).to_vec())));
    cases.extend(["http2", "tcp"].map(|value| {
        let mut headers = upgrade.to_vec();
        headers[1] = ("weft-protocol", value);
        (connect, headers)
    }));
    for to in ["", "h2c", "h2, TLS/1.2", "foo bar", "HTTP/1.1"] {
        let mut headers = upgrade.to_vec();
        headers[2] = ("weft-upgrade", to);
        cases.push((connect, headers));
    }
    for target in ["a b", "\t"] {
        let mut headers = upgrade.to_vec();
        headers[3] = ("weft-target", target);
        cases.push((connect, headers));
    }
    // Headers of another kind of request, another method, and two hosts.
    cases.push((get, upgrade.to_vec()));
    cases.push((get, tcp.to_vec()));
    cases.push((get, [&http[..], &upgrade[3..]].concat()));
    cases.push((connect, [&upgrade[..], &[("host", "other")]].concat()));
    // What comes behind such a head is no body, whatever its length header.
    let length = |value| [&upgrade[..], &[("content-length", value)]].concat();
    let none = PeerRequest::decode(parts(connect, &length("0")), Transport::Http2);
    assert!(none.is_ok(), "{none:?}");
    cases.extend(["5", "00", ""].map(|value| (connect, length(value))));
    cases.push((post, [&tcp[..], &[("host", "h"), ("host", "h")]].concat()));
    for (line, headers) in cases {
        for transport in TRANSPORTS {
            let got = PeerRequest::decode(parts(line, &headers), transport);
            assert!(got.is_err(), "{line:?} {headers:?}: {got:?}");
        }
    }
}

#[test]
fn a_malformed_answer_switches_to_nothing_and_proves_nothing() {
    let head = |status: u16, headers: &[(&'static str, &'static str)]| {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        response.body(()).unwrap().into_parts().0
    };
    let (yes, to) = (("weft-status", "101"), ("weft-upgrade", "foo"));
    for (status, headers) in [
        (200, vec![yes, yes]),
        (200, vec![("weft-status", "")]),
        (200, vec![("weft-status", "99")]),
        (200, vec![("weft-status", "x")]),
        (200, vec![("weft-status", "404")]),
        (421, vec![yes, to]),
        (404, vec![yes, to]),
        (200, vec![yes, to, to]),
    ] {
        let got = PeerResponse::decode(head(status, &headers), RequestKind::Upgrade);
        assert!(got.is_err(), "{status} {headers:?}: {got:?}");
    }
    // For a request without an upgrade it means nothing.
    for kind in [RequestKind::Http, RequestKind::Tcp] {
        let got = PeerResponse::decode(head(200, &[yes, to]), kind).unwrap();
        assert!(matches!(got, PeerResponse::Answered(parts) if parts.status == 200));
    }
    // A peer proxy's own refusal of an upgrade has a status of its own.
    let got = PeerResponse::decode(head(403, &[]), RequestKind::Upgrade).unwrap();
    assert!(matches!(got, PeerResponse::Answered(parts) if parts.status == 403));
    let unsent = head(503, &[("weft-unsent", "1"), ("weft-reason", "no such")]);
    let got = PeerResponse::decode(unsent, RequestKind::Http).unwrap();
    assert!(matches!(
        got,
        PeerResponse::NotSent {
            reason: Reason::ConnectFailed,
            ..
        }
    ));
}
