//! Requests that are refused for their form, whichever caller sends them, and ports of a pod at
//! which no rule is evaluated.
//!
//! Claims: observe-60

use policy::mode::{AccessMode, MtlsMode};
use policy::path::MAX_TARGET;

use super::*;

fn with_hosts(mut query: ExplanationSpec, hosts: &[&str]) -> ExplanationSpec {
    query.headers.extend(hosts.iter().map(|host| Header {
        name: "Host".to_owned(),
        value: (*host).to_owned(),
    }));
    query
}

fn ending(status: &ExplanationStatus) -> (ExplanationVerdict, &str, Option<u16>) {
    (status.verdict, status.reason.as_str(), status.http_status)
}

const BAD: (ExplanationVerdict, &str, Option<u16>) =
    (ExplanationVerdict::Refused, "bad-request", Some(400));

#[test]
fn invalid_host_is_refused_for_every_call() {
    let inside = || spec("Pod/client", "Service/api", "GET", "/items");
    let queries = [
        inside(),
        spec("Pod/client", "External/api.example.com", "GET", "/"),
        outside("Service/api"),
    ];
    for query in queries {
        for hosts in [
            &["a@b"][..],
            &["u:p@s1"],
            &["a b"],
            &["a/b"],
            &["exämple"],
            &["a", "a"],
        ] {
            let status = explain(&shop(), &with_hosts(query.clone(), hosts));
            assert_eq!(ending(&status), BAD, "{hosts:?}: {status:?}");
            let fix = status.fix.unwrap();
            assert!(fix.warnings[0].contains("no object helps"), "{fix:?}");
        }
        for hosts in [&["cart.shop:80"][..], &["[fd00::1]"], &[""], &[]] {
            let status = explain(&shop(), &with_hosts(query.clone(), hosts));
            assert_eq!(status.verdict, ExplanationVerdict::Allowed, "{hosts:?}");
        }
    }
    // Which proxy refuses, and why.
    let status = explain(&shop(), &with_hosts(inside(), &["a@b"]));
    assert_eq!(status.refused_by, ["Pod shop/client"]);
    assert_eq!(
        texts(&status, "route"),
        ["shop/api: the caller's own proxy refuses the request; Host is no host"]
    );
    let status = explain(&shop(), &with_hosts(outside("Service/api"), &["a", "b"]));
    assert_eq!(status.refused_by, ["Deployment shop/api"]);
    let access = texts(&status, "access");
    let why = "8080: refused, bad-request (more than one Host header)";
    assert!(access[0].ends_with(why), "{access:?}");
}

#[test]
fn connect_is_refused_wherever_requests_are_read() {
    let call = |to: &str| spec("Pod/client", to, "CONNECT", "/");
    let from_outside = ExplanationSpec {
        method: Some("CONNECT".to_owned()),
        ..outside("Service/api")
    };
    for query in [
        call("Service/api"),
        call("External/api.example.com"),
        from_outside,
    ] {
        let status = explain(&shop(), &query);
        assert_eq!(ending(&status), BAD, "{status:?}");
        let mut texts = status.steps.iter().map(|step| &step.text);
        assert!(
            texts.any(|text| text.contains("name the port of the Service tcp-...")),
            "{status:?}"
        );
    }
    let bytes = annotate(
        pod("api-1", "10.0.0.11", "api"),
        "weft.dev/opaque-ports",
        "8080",
    );
    let status = explain(&shop().with(bytes), &call("Pod/api-1"));
    assert_eq!(status.verdict, ExplanationVerdict::Allowed, "{status:?}");
}

#[test]
fn host_is_not_read_from_opaque_bytes() {
    let bytes = annotate(
        pod("api-1", "10.0.0.11", "api"),
        "weft.dev/opaque-ports",
        "8080",
    );
    for query in [
        spec("Pod/client", "Pod/api-1", "GET", "/"),
        outside("Pod/api-1"),
    ] {
        let query = with_hosts(query, &["a@b"]);
        let status = explain(&shop().with(bytes.clone()), &query);
        assert_eq!(status.verdict, ExplanationVerdict::Allowed, "{status:?}");
        assert_eq!(ending(&explain(&shop(), &query)), BAD, "control");
    }
}

#[test]
fn malformed_request_is_refused_before_caller_identity_check() {
    let strict = Defaults {
        mtls: MtlsMode::Strict,
        ..Defaults::default()
    };
    let call = |path: &str| ExplanationSpec {
        path: Some(path.to_owned()),
        ..outside("Service/api")
    };
    let unauthenticated = (ExplanationVerdict::Refused, "no-identity", Some(403));
    let status = ask_with(&read_only(), &call("/items/..%2fx"), &strict);
    assert_eq!(ending(&status), BAD, "{status:?}");
    let access = texts(&status, "access");
    let why = "bad-request (the path holds an escaped slash beside a dot segment";
    assert!(access[0].contains(why), "{access:?}");
    // Without a fault, and where no rule is about requests, the caller decides.
    let status = ask_with(&read_only(), &call("/items/x"), &strict);
    assert_eq!(ending(&status), unauthenticated, "{status:?}");
    let status = ask_with(&shop(), &call("/items/..%2fx"), &strict);
    assert_eq!(ending(&status), unauthenticated, "{status:?}");
    // Bytes for a port that is declared to carry HTTP.
    let bytes = ExplanationSpec {
        method: None,
        path: None,
        tcp: true,
        ..outside("Service/api")
    };
    let status = ask_with(&shop(), &bytes, &strict);
    assert_eq!(
        (status.reason.as_str(), status.http_status),
        ("bad-request", None)
    );
}

#[test]
fn ports_of_proxy_itself_evaluate_no_rules() {
    let closed = Defaults {
        access: AccessMode::Deny,
        mtls: MtlsMode::Strict,
        ..Defaults::default()
    };
    let at = |query: &ExplanationSpec, port: u16| {
        let mut query = query.clone();
        query.to.port = Some(port);
        ask_with(&shop(), &query, &closed)
    };
    let client = spec("Pod/client", "Deployment/api", "GET", "/metrics");
    let unauthenticated = outside("Deployment/api");
    for query in [&client, &unauthenticated] {
        let status = at(query, 15190);
        assert_eq!(status.verdict, ExplanationVerdict::Allowed, "{status:?}");
        assert_eq!(status.fix, None);
        assert_eq!(
            texts(&status, "wire"),
            [
                "plaintext: the port is the proxy's own, which traffic capture leaves alone, so \
                 no proxy evaluates rules; HTTP/1.1 on port 15190"
            ]
        );
        let status = at(query, 8080);
        assert_eq!(status.verdict, ExplanationVerdict::Refused, "control");
    }
    for port in [15101, 15106, 15108] {
        assert_eq!(ending(&at(&client, port)), BAD, "{port}");
        let ended = (ExplanationVerdict::Refused, "connection-lost", None);
        let status = at(&unauthenticated, port);
        assert_eq!(ending(&status), ended, "{port}");
        let wire = texts(&status, "wire");
        assert!(wire[0].starts_with("no application's: "), "{wire:?}");
    }
}

#[test]
fn overlong_path_error_states_bound_and_response_status() {
    let long = |bytes: usize| {
        let path = format!("/{}", "y".repeat(bytes - 1));
        let query = spec("Pod/client", "Service/api", "GET", &path);
        try_explain(&shop(), &query, &Defaults::default())
    };
    assert_eq!(
        long(MAX_TARGET + 1).unwrap_err().to_string(),
        "spec.path: has 8193 bytes, and 8192 are the most: a call with a longer one, its query \
         counted, is answered 414"
    );
    let longest = long(MAX_TARGET).unwrap();
    assert_eq!(longest.verdict, ExplanationVerdict::Allowed);
    let query = spec("Pod/client", "Service/api", "GET", "items");
    let error = try_explain(&shop(), &query, &Defaults::default()).unwrap_err();
    assert_eq!(error.to_string(), "spec.path: must begin with a slash");
}

#[test]
fn slashes_pass_by_that_callers_match_without_a_path() {
    let any = json!([{"name": "any", "methods": ["GET"]}]);
    let rules = json!([{"kind": "HTTPRouteGroup", "name": "any"}]);
    let open_to = |account: &str| {
        let target = target("any", "api", &[account], rules.clone());
        read_only().with(group("any", any.clone())).with(target)
    };
    let call = |path: &str| spec("Pod/client", "Service/api", "GET", path);
    for path in ["/a%2Fb", "//private"] {
        let status = explain(&open_to("web"), &call(path));
        assert_eq!(status.verdict, ExplanationVerdict::Allowed, "{status:?}");
        let status = explain(&open_to("other"), &call(path));
        assert_eq!(status.verdict, ExplanationVerdict::Refused, "{status:?}");
    }
    assert_eq!(ending(&explain(&open_to("web"), &call("/a%5Cb"))), BAD);
    let by_host = json!([{"name": "any", "headers": [{"host": "api"}]}]);
    let cluster = open_to("web").with(group("any", by_host));
    let status = explain(&cluster, &call("/a%2Fb"));
    assert_eq!(status.verdict, ExplanationVerdict::Unknown, "{status:?}");
    let status = explain(&cluster, &with_hosts(call("/a%2Fb"), &["api"]));
    assert_eq!(status.verdict, ExplanationVerdict::Allowed, "{status:?}");
}
