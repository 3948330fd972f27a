//! Request targets, authorities, methods and headers against HTTP rules: the proxy evaluates
//! exactly what arrives, and no request arrives that no rule allows.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use wire::v1::{Enforcement, Protocol};

use super::two_pods::{ENTRY_POINTS, SPEAKERS, TwoPods, answers, for_everybody, rest, status};

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n")
}

#[tokio::test]
async fn no_path_spelling_escapes_allowed_path() {
    let pods = TwoPods::new(Protocol::Http1).await;
    pods.allow(Protocol::Http1, &["/public"]);
    for path in [
        "/public/../private",
        "/public/./../private",
        "/public/%2e%2e/private",
        "/public/%2E/%2E%2E/private",
        "/public/.%2e/private",
        "/public/%2e./private",
        "/public\\..\\private",
        "/public/..\\private",
        "/public/..;/private",
        "/public/..;x=1/private",
        "/public/..%3b/private",
        "/public/%2e%2e%2fprivate",
        "/public%2f..%2fprivate",
        "/public/..%5cprivate",
        "/public/..%00/private",
        "/public/%c0%ae%c0%ae/private",
        "/public/%c0%af../private",
        "/public//../../private",
        "/public/a/../../private",
        "//private",
        "/private/",
        "/private;x=1",
        "/PRIVATE",
        "/private%20",
        "/private%09",
        "/private.",
        "/x?/public",
        "/x?a=/public",
        "/PUBLIC",
        "/Public",
        "/%70rivate",
        "/publi",
        "/",
        "/..",
        "/../private",
        "/./private",
        "\\private",
        "/public#/../private",
        "/private#/public",
        "/public/%",
        "/public/%zz",
        "/public/%2",
        "/public/%u002e%u002e/private",
    ] {
        for from in SPEAKERS {
            let answer = pods.send(from, get(path)).await;
            let got = pods.recorded(path);
            match status(&answer) {
                400 | 403 => assert!(got.is_empty(), "{path}, {from:?}: {got:?}"),
                // Where it does pass, the application sees the allowed path.
                200 => {
                    let target = got[0].line().split(' ').nth(1).unwrap().to_owned();
                    assert!(
                        target.starts_with("/public") && !target.contains("private"),
                        "{path}, {from:?}: {target}"
                    );
                }
                _ => panic!("{path}, {from:?}: {answer}"),
            }
        }
    }
    pods.works_at("/public", "paths").await;
}

/// Decoding twice would turn harmless text into dots.
#[tokio::test]
async fn text_resembling_dot_segment_stays_unchanged() {
    let pods = TwoPods::new(Protocol::Http1).await;
    pods.allow(Protocol::Http1, &["/"]);
    for path in [
        "/%252e%252e/private",
        "/%25c0%25ae",
        "/0x2e0x2e",
        "/...",
        "/;/",
        "/admin;a=b",
        "/ADMIN",
        "/a%20b",
        "/%E2%82%AC",
        "/a?x=%2e%2e/y&z=//",
        "/a/.b/..c/d..",
    ] {
        for from in SPEAKERS {
            let answer = pods.send(from, get(path)).await;
            assert_eq!(status(&answer), 200, "{path}, {from:?}: {answer}");
            let got = pods.recorded(path);
            assert_eq!(got[0].line(), format!("GET {path} HTTP/1.1"), "{from:?}");
        }
    }
}

#[tokio::test]
async fn query_passes_and_does_not_affect_decision() {
    let pods = TwoPods::new(Protocol::Http1).await;
    pods.allow(Protocol::Http1, &["/public"]);
    for from in SPEAKERS {
        let answer = pods.send(from, get("/public?next=/private&x=/../")).await;
        assert_eq!(status(&answer), 200, "{from:?}: {answer}");
        let got = pods.recorded("query");
        assert_eq!(got[0].line(), "GET /public?next=/private&x=/../ HTTP/1.1");
    }
}

/// curl and others send some bytes as they are that belong percent-encoded. The proxy encodes them
/// before it evaluates rules, and the encoded target arrives.
#[tokio::test]
async fn unencoded_target_is_evaluated_and_forwarded_in_one_form() {
    let pods = TwoPods::new(Protocol::Http1).await;
    pods.allow(Protocol::Http1, &["/public.*"]);
    for (target, arrives) in [
        (
            &b"/public?query=up{job=\"x\"}"[..],
            "/public?query=up{job=%22x%22}",
        ),
        (b"/public?a=<b>", "/public?a=%3Cb%3E"),
        (b"/public/<b>", "/public/%3Cb%3E"),
        (b"/public/`x`?`<", "/public/%60x%60?`%3C"),
        (b"/public/\xe4", "/public/%E4"),
    ] {
        for from in SPEAKERS {
            let case = String::from_utf8_lossy(target);
            let request = [
                b"GET ",
                target,
                b" HTTP/1.1\r\nHost: s\r\nX: <`\">\r\nConnection: close\r\n\r\n",
            ]
            .concat();
            let answer = pods.send(from, request).await;
            assert_eq!(status(&answer), 200, "{case}, {from:?}: {answer}");
            let got = pods.recorded(&case);
            assert_eq!(got[0].line(), format!("GET {arrives} HTTP/1.1"), "{from:?}");
            assert_eq!(got[0].values("x"), ["<`\">"], "{from:?}");
        }
    }
    pods.allow(Protocol::Http1, &["/public$", "/public<x$", "/pub`lic$"]);
    for target in [
        &b"/private?a=<b>"[..],
        b"/private?\"/public",
        b"/private#</public",
        b"/private<",
        b"/private`/public",
        b"/public<",
        b"/public<x",
        b"/pub`lic",
        b"/public/../private?\"",
        b"/public/<../private",
        b"/public/../<private",
        b"/public/%2e%2e/private?<",
        b"/public/..%2fprivate`",
        b"/public\xff",
        b"/private\xc3<",
        b"/\xc0\xae\xc0\xae/public`",
        b"<//public",
        b"http://s</public",
        b"http://s/private?<",
    ] {
        for from in SPEAKERS {
            let case = String::from_utf8_lossy(target);
            let request = [
                b"GET ",
                target,
                b" HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n",
            ]
            .concat();
            let answer = pods.send(from, request).await;
            assert!(
                [400, 403].contains(&status(&answer)),
                "{case}, {from:?}: {answer}"
            );
            let got = pods.recorded(&case);
            assert!(got.is_empty(), "{case}, {from:?}: {got:?}");
        }
    }
    pods.works_at("/public", "unencoded targets").await;
}

// Claims: attack-65
#[tokio::test]
async fn unforwardable_head_is_refused_with_reason_and_counted() {
    let pods = TwoPods::new(Protocol::Http1).await;
    let refused = [
        (
            &b"GET /\x7f HTTP/1.1\r\nHost: s\r\n\r\n"[..],
            "0x7f in the request target",
        ),
        (b"GET /a b HTTP/1.1\r\nHost: s\r\n\r\n", "the request line"),
        (
            b"GET /ok HTTP/1.1\r\nHost: s\r\nX y: 1\r\n\r\n",
            "0x20 in the name",
        ),
        (
            b"GET /ok HTTP/1.1\r\nHost: s\r\nX: \x01\r\n\r\n",
            "0x01 in the value",
        ),
        (
            b"GET /ok HTTP/1.1\r\nHost: s\r\nX: 1\r\n folded\r\n\r\n",
            "folded",
        ),
        (
            b"GET /<\\ /ok HTTP/1.1\r\nHost: s\r\n\r\n",
            "the request line",
        ),
        (
            b"GET /ok HTTP/1.1\r\nHost: s\r\nContent-Length: x\r\n\r\n",
            "length of the body",
        ),
        (
            b"GET /ok HTTP/1.1\r\nHost: a\xc3\xa4@b\r\n\r\n",
            "Host is no host",
        ),
    ];
    let good = b"GET /ok HTTP/1.1\r\nHost: s\r\n\r\n";
    for entry in ENTRY_POINTS {
        for (head, reason) in refused {
            let behind = [&good[..], head].concat();
            for (bytes, before) in [(head, 0), (&behind[..], 1)] {
                let answer = pods.send_and_stay(entry, bytes).await;
                let got = pods.recorded(reason);
                assert_eq!(got.len(), before, "{reason}, {entry:?}: {got:?}");
                let at = answer.find("HTTP/1.1 400 ").unwrap_or(answer.len());
                assert_eq!(
                    answers(&answer[..at]),
                    before,
                    "{reason}, {entry:?}: {answer}"
                );
                let answer = &answer[at..];
                assert!(
                    answer.contains("weft-reason: bad-request"),
                    "{reason}, {entry:?}: {answer}"
                );
                assert!(answer.contains(reason), "{reason}, {entry:?}: {answer}");
            }
            // A head that comes after a rest, and in two parts.
            let mut stream = pods.open(entry).await;
            stream.write_all(good).await.unwrap();
            tokio::time::sleep(Duration::from_millis(250)).await;
            let (first, then) = head.split_at(6);
            stream.write_all(first).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            let _ = stream.write_all(then).await;
            let answer = rest(&mut stream, Duration::from_secs(1)).await;
            assert!(answer.contains(reason), "{reason}, {entry:?}: {answer}");
            pods.recorded(reason);
        }
        let pod = match entry {
            super::two_pods::EntryPoint::Outbound => &pods.client,
            super::two_pods::EntryPoint::Inbound => &pods.server,
        };
        let metrics = pod.metrics();
        let counted: u64 = metrics
            .lines()
            .filter(|line| {
                line.starts_with("weft_requests_total{") && line.contains("reason=\"bad-request\"")
            })
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum();
        assert!(counted >= 3 * refused.len() as u64, "{entry:?}: {counted}");
    }
    pods.works("refused heads").await;
}

#[tokio::test]
async fn methods_are_compared_as_they_are() {
    let pods = TwoPods::new(Protocol::Http1).await;
    pods.workload(Protocol::Http1, Enforcement::Enforce);
    pods.server.set(vec![for_everybody(&["/"], &["GET"])]);
    let long = "A".repeat(10 * 1024);
    for method in [
        "get",
        "Get",
        "GETX",
        "TRACE",
        "CONNECT",
        "POST",
        "GE",
        long.as_str(),
        "G\0T",
        "GET\x01",
    ] {
        let case = &method[..method.len().min(10)];
        for entry in ENTRY_POINTS {
            let bytes = format!("{method} /ok HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n");
            let answer = pods.send(entry, bytes).await;
            assert!(
                answer.is_empty() || (400..500).contains(&status(&answer)),
                "{case}, {entry:?}: {answer}"
            );
            let got = pods.recorded(case);
            assert!(got.is_empty(), "{case}, {entry:?}: {got:?}");
        }
    }
    pods.works("methods").await;
}

/// A denied handshake stays HTTP: rules apply to what follows as requests.
#[tokio::test]
async fn websocket_to_denied_path_is_refused_without_upgrade() {
    let pods = TwoPods::new(Protocol::Http1).await;
    pods.allow(Protocol::Http1, &["/ok"]);
    for entry in ENTRY_POINTS {
        let bytes = "GET /ws HTTP/1.1\r\nHost: s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nGET /private HTTP/1.1\r\nHost: s\r\n\r\n";
        let answer = pods.send_and_stay(entry, bytes).await;
        assert_eq!(status(&answer), 403, "{entry:?}: {answer}");
        assert!(!answer.contains(" 101 "), "{entry:?}: {answer}");
        assert!(pods.recorded("websocket").is_empty());
    }
    pods.works("websocket").await;
}

// Claims: R5
#[tokio::test]
async fn denied_expect_100_request_gets_403_without_body() {
    let pods = TwoPods::new(Protocol::Http1).await;
    pods.allow(Protocol::Http1, &["/ok"]);
    // The inbound side decides before it requests a body.
    let mut stream = pods.open(super::two_pods::EntryPoint::Inbound).await;
    let head = "POST /denied HTTP/1.1\r\nHost: s\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = rest(&mut stream, Duration::from_millis(500)).await;
    assert_eq!(status(&answer), 403, "{answer}");
    assert!(!answer.contains(" 100 "), "{answer}");
    // Through two proxies the first one requests the body, once: an interim response of the second
    // could not come back to it. The verdict still comes without the body.
    let mut stream = pods.open(super::two_pods::EntryPoint::Outbound).await;
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = rest(&mut stream, Duration::from_millis(500)).await;
    assert!(answer.matches(" 100 ").count() <= 1, "{answer}");
    assert!(answer.contains("HTTP/1.1 403 "), "{answer}");
    assert!(pods.recorded("expect").is_empty());
    pods.works("expect").await;
}

/// On a port with HTTP rules slowness and disguise open nothing.
#[tokio::test]
async fn guarded_undeclared_port_never_becomes_opaque() {
    let pods = TwoPods::new(Protocol::Detect).await;
    pods.allow(Protocol::Detect, &["/ok"]);
    for (case, first, then) in [
        (
            "late",
            &b""[..],
            &b"GET /private HTTP/1.1\r\nHost: s\r\n\r\n"[..],
        ),
        ("dribbled", b"G", b"ET /private HTTP/1.1\r\nHost: s\r\n\r\n"),
        (
            "TLS record first",
            b"\x16\x03\x01\x00\x01\x00",
            b"GET /private HTTP/1.1\r\nHost: s\r\n\r\n",
        ),
        (
            "NUL first",
            b"\0",
            b"GET /private HTTP/1.1\r\nHost: s\r\n\r\n",
        ),
        (
            "blank first",
            b" ",
            b"GET /private HTTP/1.1\r\nHost: s\r\n\r\n",
        ),
        (
            "preface dribbled",
            b"PRI * HT",
            b"TP/1.1\r\nGET /private HTTP/1.1\r\nHost: s\r\n\r\n",
        ),
        (
            "lower case",
            b"get /private",
            b" HTTP/1.1\r\nHost: s\r\n\r\n",
        ),
        (
            "CONNECT",
            b"CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n",
            b"GET /private HTTP/1.1\r\nHost: s\r\n\r\n",
        ),
    ] {
        for entry in ENTRY_POINTS {
            let mut stream = pods.open(entry).await;
            let _ = stream.write_all(first).await;
            tokio::time::sleep(Duration::from_millis(1200)).await;
            let _ = stream.write_all(then).await;
            let _ = stream.shutdown().await;
            let answer = rest(&mut stream, Duration::from_secs(2)).await;
            assert_ne!(status(&answer), 200, "{case}, {entry:?}: {answer}");
            // Not even a broken beginning may have got there.
            assert!(
                pods.log.lock().is_empty(),
                "{case}, {entry:?}: {:?}",
                pods.log.lock()
            );
        }
    }
    pods.works("guarded port").await;
}

/// Names that callers choose must not become series of a metric.
#[tokio::test]
async fn a_thousand_hosts_and_paths_make_no_new_metrics() {
    let pods = TwoPods::new(Protocol::Http1).await;
    pods.works("warm-up").await;
    let before = pods.server.metrics().lines().count() + pods.client.metrics().lines().count();
    for entry in ENTRY_POINTS {
        let bytes: String = (0..1000)
            .map(|at| {
                format!(
                    "M{at} /p{at}?%0a\x1b HTTP/1.1\r\nHost: h{at}.evil\r\nUser-Agent: u{at}\r\n\r\n"
                )
            })
            .collect::<String>()
            .replace('\x1b', "");
        let answer = pods.send(entry, bytes).await;
        assert_eq!(answers(&answer), 1000, "{entry:?}");
    }
    let after = pods.server.metrics().lines().count() + pods.client.metrics().lines().count();
    assert!(after <= before + 4, "{before} -> {after}");
    pods.recorded("metrics");
}
