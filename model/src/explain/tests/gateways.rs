//! Calls of clients to a Gateway.
//!
//! Claims: gateways-7

use super::*;
use crate::model::Model;
use crate::world::collect::Collector;

/// Gateway `edge` with these listeners and one pod, before `api` and `v2`.
fn cluster(listeners: Value) -> Cluster {
    shop()
        .with(service("v2", "10.96.0.12", &[("http", 80)]))
        .with(slice(
            "v2-x",
            "v2",
            &[("http", 8080)],
            &[endpoint("api-2", "10.0.0.12")],
        ))
        .with(gateway_class())
        .with(gateway("edge", listeners))
        .with(gateway_pod("edge-1", "10.0.0.91", "edge"))
}

fn plain() -> Cluster {
    cluster(json!([listener("http", 80, "HTTP", "")]))
}

/// An HTTPRoute of the Gateway, for these hosts if there are any.
fn routed(name: &str, hosts: &[&str], rules: Value) -> Value {
    let route = to_gateway(http_route(name, "", rules), "edge");
    match hosts {
        [] => route,
        hosts => set(route, "/spec/hostnames", json!(hosts)),
    }
}

fn call(url: &str) -> ExplanationSpec {
    ExplanationSpec {
        path: Some(url.to_owned()),
        ..outside("Gateway/edge")
    }
}

/// What is said where a controller has read the Secret `edge`, or has not.
fn said(cluster: &Cluster, spec: &ExplanationSpec, is_read: bool) -> ExplanationStatus {
    let mut collector = Collector::default();
    for object in cluster.objects() {
        apply(&mut collector, object);
    }
    if is_read {
        read_certificate(&mut collector, ("shop", "edge"), Some("a"));
    }
    let (model, problems) = Model::compile(&collector.world(), &with_gateways());
    let seen = |_: &BTreeSet<PodId>| SeenCallers::default();
    let explained = model.explain_at_gateway(spec, (&problems, &|_| true), &owner, &seen);
    explained.unwrap().status
}

fn get(cluster: &Cluster, url: &str) -> ExplanationStatus {
    said(cluster, &call(url), true)
}

fn ending(status: &ExplanationStatus) -> (ExplanationVerdict, &str, Option<u16>) {
    (status.verdict, status.reason.as_str(), status.http_status)
}

const CLOSED: (ExplanationVerdict, &str, Option<u16>) =
    (ExplanationVerdict::Refused, "connection-lost", None);

#[test]
fn gateway_explanation_names_listener_rule_and_earlier_rules() {
    let rules = json!([rule_below("/a/b", "api"), rule_below("/a", "v2")]);
    let cluster = plain().with(routed("web", &[], rules));
    let status = get(&cluster, "http://web.example//a/%78?y=1");
    assert_eq!(ending(&status), (ExplanationVerdict::Allowed, "", None));
    let entered = texts(&status, "gateway");
    let expected = "listener http (HTTP 80) takes the request, as of path /a/x";
    assert_eq!(entered, [expected]);
    let rule = status.rule.as_ref().unwrap();
    assert_eq!(
        (&*rule.object, rule.rule),
        ("HTTPRoute shop/web", Some(1)),
        "{rule:?}"
    );
    let earlier: Vec<_> = rule
        .earlier
        .iter()
        .map(|one| (one.rule, &*one.wants, &*one.fails))
        .collect();
    assert_eq!(earlier, [(0, "path below /a/b", "the path does not fit")]);
    let services: Vec<&str> = status.backends.iter().map(|one| &*one.service).collect();
    assert_eq!(services, ["shop/v2"]);
    let who = texts(&status, "who");
    assert!(who[0].contains("/ns/shop/sa/edge-weft"), "{who:?}");
}

#[test]
fn split_behind_gateway_route_shares_its_calls_out() {
    let cluster = plain()
        .with(routed(
            "web",
            &[],
            json!([rule_over(&[("api", 3), ("v2", 1)])]),
        ))
        .with(split("s", "api", &[("api", 1), ("v2", 1)]))
        // For callers inside.
        .with(http_route(
            "inside",
            "api",
            json!([rule_below("/none", "api")]),
        ));
    let status = get(&cluster, "http://web.example/");
    let shares = status.backends.iter().map(|one| (&*one.service, one.share));
    let shares: Vec<_> = shares.collect();
    assert_eq!(shares, [("shop/api", 0.375), ("shop/v2", 0.625)]);
    let routes = texts(&status, "route").join("\n");
    assert!(
        routes.contains("TrafficSplit shop/s gives shop/api"),
        "{routes}"
    );
    assert!(
        routes.contains("HTTPRoute shop/web gives shop/v2"),
        "{routes}"
    );
}

#[test]
fn access_behind_gateway_is_decided_for_its_account() {
    let read = json!([{"name": "read", "pathRegex": "/items", "methods": ["GET"]}]);
    let rules = json!([{"kind": "HTTPRouteGroup", "name": "routes"}]);
    let closed = plain()
        .with(routed("web", &[], json!([rule_below("/", "api")])))
        .with(group("routes", read))
        .with(target("read", "api", &["web"], rules.clone()));
    let status = get(&closed, "http://web.example/items");
    let refused = (ExplanationVerdict::Refused, "not-allowed", Some(403));
    assert_eq!(ending(&status), refused, "{status:?}");
    let fix = json!(status.fix.unwrap().objects).to_string();
    assert!(fix.contains("edge-weft"), "{fix}");
    let opened = closed.with(target("edge", "api", &["edge-weft"], rules));
    let status = get(&opened, "http://web.example/items");
    assert_eq!(status.verdict, ExplanationVerdict::Allowed, "{status:?}");
}

#[test]
fn request_fitting_no_route_names_detached_routes() {
    let cluster = cluster(json!([listener("http", 80, "HTTP", "*.example")]))
        .with(routed(
            "web",
            &["web.example"],
            json!([rule_below("/a", "api")]),
        ))
        .with(routed(
            "lost",
            &["web.test"],
            json!([rule_below("/", "api")]),
        ));
    let no_route = (ExplanationVerdict::Refused, "no-route", Some(404));
    let status = get(&cluster, "http://web.example/b");
    assert_eq!(ending(&status), no_route);
    let rule = status.rule.as_ref().unwrap();
    assert_eq!((rule.rule, rule.earlier.len()), (None, 1), "{rule:?}");
    let entered = texts(&status, "gateway").join("\n");
    let lost = "HTTPRoute shop/lost is not accepted: NoMatchingListenerHostname";
    assert!(entered.contains(lost), "{entered}");
    let status = get(&cluster, "http://web.test/");
    assert_eq!(ending(&status), no_route);
    let entered = texts(&status, "gateway").join("\n");
    assert!(entered.contains("no listener at this port"), "{entered}");
}

#[test]
fn host_of_another_listener_is_explained_as_misdirected() {
    let cluster = cluster(json!([
        listener("a", 443, "HTTPS", "a.example"),
        listener("b", 443, "HTTPS", "b.example"),
    ]))
    .with(routed("web", &[], json!([rule_below("/", "api")])));
    let mut spec = call("https://a.example/");
    assert_eq!(
        said(&cluster, &spec, true).verdict,
        ExplanationVerdict::Allowed
    );
    spec.headers.push(Header {
        name: "Host".to_owned(),
        value: "b.example".to_owned(),
    });
    let status = said(&cluster, &spec, true);
    let expected = (ExplanationVerdict::Refused, "misdirected", Some(421));
    assert_eq!(ending(&status), expected, "{status:?}");
    assert_eq!(status.refused_by, ["Gateway shop/edge"]);
}

#[test]
fn connections_that_no_listener_takes_say_why() {
    let cluster = cluster(json!([
        listener("http", 80, "HTTP", ""),
        listener("https", 443, "HTTPS", "a.example"),
    ]))
    .with(routed("web", &[], json!([rule_below("/", "api")])));
    for (url, is_read, why) in [
        (
            "http://a.example:8080/",
            true,
            "no listener is served at port 8080",
        ),
        ("https://a.example:80/", true, "must begin with http://"),
        ("http://a.example:443/", true, "must begin with https://"),
        ("https://b.example/", true, "the server name (b.example)"),
        ("https://192.0.2.1/", true, "none, as of an address"),
        ("https://a.example/", false, "InvalidCertificateRef"),
    ] {
        let status = said(&cluster, &call(url), is_read);
        assert_eq!(ending(&status), CLOSED, "{url}: {status:?}");
        let entered = texts(&status, "gateway").join("\n");
        assert!(entered.contains(why), "{url}: {entered}");
    }
}

#[test]
fn path_with_two_readings_is_explained_as_bad_request() {
    let cluster = plain().with(routed("web", &[], json!([rule_below("/", "api")])));
    let status = get(&cluster, "http://web.example/a%2fb");
    let expected = (ExplanationVerdict::Refused, "bad-request", Some(400));
    assert_eq!(ending(&status), expected);
    let entered = texts(&status, "gateway");
    assert!(entered[0].contains("escaped slash"), "{entered:?}");
}

#[test]
fn relayed_connection_follows_route_of_its_server_name() {
    let route = tls_route("db", "db.example", json!([rule_over(&[("api", 1)])]));
    let cluster =
        cluster(json!([listener("tls", 6443, "TLS", "")])).with(to_gateway(route, "edge"));
    let status = get(&cluster, "https://db.example:6443/");
    let rule = status.rule.as_ref().unwrap();
    assert_eq!((&*rule.object, rule.rule), ("TLSRoute shop/db", Some(0)));
    let status = get(&cluster, "https://other.example:6443/");
    assert_eq!(ending(&status), CLOSED, "{status:?}");
}

#[test]
fn gateway_that_is_not_served_gets_its_reason() {
    let cluster = plain();
    let mut spec = call("http://web.example/");
    for (name, why) in [
        ("edgy", "there is no Gateway shop/edgy"),
        ("edg", "you may mean edge"),
    ] {
        spec.to.name = name.to_owned();
        let status = said(&cluster, &spec, true);
        assert_eq!(status.verdict, ExplanationVerdict::Unknown);
        assert!(status.reason.contains(why), "{status:?}");
    }
    let other = set(
        gateway("other", json!([listener("http", 80, "HTTP", "")])),
        "/spec/gatewayClassName",
        json!("other"),
    );
    spec.to.name = "other".to_owned();
    let status = said(&cluster.with(other), &spec, true);
    assert!(status.reason.contains("of class other"), "{status:?}");
}

#[test]
fn gateway_query_without_url_names_field_and_form() {
    let refused = |spec: &ExplanationSpec| {
        let (model, problems) = plain().compile_with(&with_gateways());
        let seen = |_: &BTreeSet<PodId>| SeenCallers::default();
        let answer = model.explain_at_gateway(spec, (&problems, &|_| true), &owner, &seen);
        answer.unwrap_err()
    };
    for url in [
        "/items",
        "ftp://a.example/",
        "http://a.example:0/",
        "https:///",
    ] {
        let wrong = refused(&call(url));
        assert_eq!(wrong.field, "path", "{url}");
        assert!(wrong.reason.contains("https://HOST/PATH"), "{wrong}");
    }
    let inside = spec("Pod/client", "Gateway/edge", "GET", "https://a.example/");
    assert_eq!(refused(&inside).field, "from");
}
