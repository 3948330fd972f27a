//! Request targets in absolute form, as forward proxies get them: rules are evaluated on the
//! target that arrives, and no header of the mesh is added to it.
//!
//! Claims: attack-103

use wire::v1::{self, Enforcement, Protocol};

use super::two_pods::{
    ENTRY_POINTS, EntryPoint, SPEAKERS, Speaker, TwoPods, for_everybody, status,
};
use crate::support::{id, resource};

fn get(target: &str, host: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

/// The request line that the application receives for `/ok` at this address. A peer proxy marks in
/// a header of Weft that its caller wrote an absolute target, and this one marks nothing.
fn line(address: &str, from: Speaker) -> String {
    let address = if from == Speaker::Peer { "" } else { address };
    format!("GET {address}/ok HTTP/1.1")
}

#[tokio::test]
async fn absolute_target_authority_overrides_host_header() {
    let pods = TwoPods::new(Protocol::Http1).await;
    pods.allow(Protocol::Http1, &["/ok"]);
    for from in SPEAKERS {
        let denied = "GET http://t/private HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n";
        let answer = pods.send(from, denied).await;
        assert!([400, 403].contains(&status(&answer)), "{from:?}: {answer}");
        assert!(pods.recorded("absolute").is_empty());
        let allowed = "GET http://t/ok HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n";
        let answer = pods.send(from, allowed).await;
        let got = pods.recorded("absolute");
        if status(&answer) == 200 {
            assert_eq!(got[0].values("host"), ["t"], "{from:?}: {got:?}");
            assert_eq!(got[0].line(), line("http://t", from));
        } else {
            assert_eq!((status(&answer), got.len()), (400, 0), "{from:?}: {answer}");
        }
        for target in [
            "test",
            "*",
            "http://",
            "http:///ok",
            "ftp://x/ok",
            "//",
            "?ok",
        ] {
            let bytes = format!("GET {target} HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n");
            let answer = pods.send(from, bytes).await;
            let got = pods.recorded(target);
            // The scheme does not affect the rules of the path.
            if target == "ftp://x/ok" && status(&answer) == 200 {
                assert_eq!(got[0].line(), line("ftp://x", from));
                continue;
            }
            assert!(
                [0, 400, 403].contains(&status(&answer)),
                "{target}, {from:?}: {answer}"
            );
            assert!(got.is_empty(), "{target}, {from:?}: {got:?}");
        }
    }
    pods.works("absolute targets").await;
}

#[tokio::test]
async fn whole_address_arrives_as_it_was_written() {
    let pods = TwoPods::new(Protocol::Http1).await;
    for entry in ENTRY_POINTS {
        // Some by HTTP/2, and some by the dedicated connection.
        for (target, host) in [
            ("http://t/ok", "t"),
            ("http://t:8080/ok?a=b", "t:8080"),
            ("https://t/ok", "t"),
            ("ftp://x/ok", "x"),
            ("http://[fd00::1]:80/ok", "[fd00::1]:80"),
            ("http://t/a%2Fb", "t"),
        ] {
            let answer = pods.send(entry, get(target, "s")).await;
            assert_eq!(status(&answer), 200, "{target}, {entry:?}: {answer}");
            let got = pods.recorded(target);
            assert_eq!(got[0].line(), format!("GET {target} HTTP/1.1"), "{entry:?}");
            assert_eq!(got[0].values("host"), [host], "{target}, {entry:?}");
        }
        // For the whole server, which servers answer as their first page.
        let options = "OPTIONS http://t HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n";
        let answer = pods.send(entry, options).await;
        assert_eq!(status(&answer), 200, "{entry:?}: {answer}");
        assert_eq!(
            pods.recorded("OPTIONS")[0].line(),
            "OPTIONS http://t/ HTTP/1.1"
        );
    }
    pods.works("whole addresses").await;
}

#[tokio::test]
async fn forward_proxy_gets_no_header_of_the_mesh() {
    let pods = TwoPods::new(Protocol::Http1).await;
    for _ in 0..4 {
        let answer = pods
            .send(EntryPoint::Outbound, get("http://t/ok", "s"))
            .await;
        assert_eq!(status(&answer), 200, "{answer}");
        let head = pods.recorded("address").remove(0).head.to_lowercase();
        assert!(
            !head.contains("weft") && !head.contains("traceparent"),
            "{head}"
        );
    }
    // Control: who is asked for a path learns who calls.
    let answer = pods.send(EntryPoint::Outbound, get("/ok", "s")).await;
    assert_eq!(status(&answer), 200, "{answer}");
    let caller = id("web").as_str().to_owned();
    assert_eq!(pods.recorded("path")[0].values("weft-client-id"), [caller]);
}

/// A proxy writes into the state of a trace whether a request is a copy.
#[tokio::test]
async fn forward_proxy_learns_nothing_of_copies() {
    const TRACE: &str = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let pods = TwoPods::new(Protocol::Http1).await;
    for (form, line) in [
        ("weft-scheme: http\r\n", "GET http://t/ok HTTP/1.1"),
        // Control.
        ("", "GET /ok HTTP/1.1"),
    ] {
        let request = format!(
            "GET /ok HTTP/1.1\r\nHost: t\r\n{form}weft-shadow: true\r\n{TRACE}\r\nConnection: close\r\n\r\n"
        );
        let answer = pods.send(Speaker::Peer, request).await;
        assert_eq!(status(&answer), 200, "{line}: {answer}");
        let got = pods.recorded(line).remove(0);
        assert_eq!(got.line(), line);
        assert_eq!(got.values("traceparent").len(), 1, "{got:?}");
        let names_weft = got.head.to_lowercase().contains("weft");
        assert_eq!(names_weft, form.is_empty(), "{got:?}");
        let marked = got.values("tracestate") == ["weft=copy"];
        assert_eq!(marked, form.is_empty(), "{got:?}");
    }
}

#[tokio::test]
async fn address_with_a_user_is_refused() {
    let pods = TwoPods::new(Protocol::Http1).await;
    pods.allow(Protocol::Http1, &["/ok"]);
    for target in [
        "http://u@t/ok",
        "http://u:p@t/ok",
        "http://@t/ok",
        "http://s@t:80/ok",
    ] {
        for from in SPEAKERS {
            let answer = pods.send(from, get(target, "s")).await;
            assert!(
                [0, 400].contains(&status(&answer)),
                "{target}, {from:?}: {answer}"
            );
            assert!(pods.recorded(target).is_empty(), "{target}, {from:?}");
        }
    }
    pods.works("users").await;
}

#[tokio::test]
async fn path_behind_an_address_is_judged_as_it_arrives() {
    let pods = TwoPods::new(Protocol::Http1).await;
    pods.allow(Protocol::Http1, &["/ok"]);
    for entry in ENTRY_POINTS {
        for target in [
            "http://t",
            "http://t/private",
            "http://ok/private",
            "http://t/private?http://t/ok",
            "http://t/ok/../private",
            "http://t/ok/%2e%2e/private",
            "http://t/private/http://t/ok",
        ] {
            let answer = pods.send(entry, get(target, "s")).await;
            assert!(
                [400, 403].contains(&status(&answer)),
                "{target}, {entry:?}: {answer}"
            );
            assert!(pods.recorded(target).is_empty(), "{target}, {entry:?}");
        }
        for target in ["http://t/ok", "http://t/./ok", "http://t/private/../ok"] {
            let answer = pods.send(entry, get(target, "s")).await;
            assert_eq!(status(&answer), 200, "{target}, {entry:?}: {answer}");
            let got = pods.recorded(target);
            assert_eq!(got[0].line(), line("http://t", entry.into()), "{target}");
        }
    }
}

/// A rule about `Host` decides on the host that the application is to reach.
#[tokio::test]
async fn rule_about_the_host_judges_the_address() {
    let pods = TwoPods::new(Protocol::Http1).await;
    pods.workload(Protocol::Http1, Enforcement::Enforce);
    let v1::Resource { name, content, .. } = for_everybody(&["/ok"], &[]);
    let mut content = content.unwrap();
    if let v1::resource::Content::Rule(rule) = &mut content {
        for one in rule.http.iter_mut().flat_map(|http| &mut http.matches) {
            one.headers.push(v1::HeaderMatch {
                name: "host".into(),
                regex: "good".into(),
                ..v1::HeaderMatch::default()
            });
        }
    }
    pods.server.set(vec![resource(&name, content)]);
    for entry in ENTRY_POINTS {
        for (target, host, expected) in [
            ("http://good/ok", "evil", 200),
            ("http://evil/ok", "good", 403),
            ("http://evil:80/ok", "good", 403),
            ("/ok", "good", 200),
            ("/ok", "evil", 403),
        ] {
            let answer = pods.send(entry, get(target, host)).await;
            assert_eq!(status(&answer), expected, "{target}, {entry:?}: {answer}");
            let got = pods.recorded(target);
            assert_eq!(
                got.len(),
                usize::from(expected == 200),
                "{target}, {entry:?}"
            );
            assert!(
                got.iter().all(|one| one.values("host") == ["good"]),
                "{got:?}"
            );
        }
    }
}

#[tokio::test]
async fn connect_is_refused_with_the_way_out() {
    let pods = TwoPods::new(Protocol::Detect).await;
    for entry in ENTRY_POINTS {
        let connect = "CONNECT t:443 HTTP/1.1\r\nHost: t:443\r\n\r\n";
        let answer = pods.send_and_stay(entry, connect).await;
        assert_eq!(status(&answer), 400, "{entry:?}: {answer}");
        assert!(
            answer.contains("tcp-") && answer.contains("appProtocol"),
            "{answer}"
        );
        assert!(pods.recorded("CONNECT").is_empty());
    }
}
