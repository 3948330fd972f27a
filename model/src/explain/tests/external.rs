//! Calls that leave the mesh, by what ExternalServices give.

use super::*;
use crate::model::Model;
use crate::world::collect::Collector;

const HOST: &str = "External/api.pay.example";

fn object(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "ExternalService",
        "metadata": {"name": name, "namespace": "shop"}, "spec": spec,
    })
}

fn call(to: &str, port: u16) -> ExplanationSpec {
    let mut query = spec("Pod/client", to, "GET", "/");
    query.to.namespace = String::new();
    query.to.port = Some(port);
    query
}

fn denying() -> Cluster {
    let closed = annotate(namespace("shop"), "weft.dev/egress", "deny");
    shop().with(closed)
}

fn with_pay(sources: &Value) -> Cluster {
    let spec = json!({
        "hosts": ["api.pay.example", "*.cdn.example"], "addresses": ["203.0.113.0/24"],
        "ports": [{"port": 443, "protocol": "TLS"}], "sources": sources,
    });
    denying().with(object("pay", &spec))
}

#[test]
fn ungiven_call_is_refused_with_object_that_gives_it() {
    let status = explain(&denying(), &call(HOST, 443));
    assert_eq!(status.verdict, ExplanationVerdict::Refused, "{status:?}");
    assert_eq!(status.reason, "egress-denied");
    assert_eq!(status.http_status, Some(403));
    assert_eq!(status.refused_by, ["Pod shop/client"]);
    let fix = status.fix.unwrap();
    assert_eq!(fix.objects.len(), 1, "{fix:?}");
    let given = explain(&denying().with(fix.objects[0].clone()), &call(HOST, 443));
    assert_eq!(given.verdict, ExplanationVerdict::Allowed, "{given:?}");
    let object = explain(&denying(), &call("External/203.0.113.7", 5432));
    let object = &object.fix.unwrap().objects[0];
    assert_eq!(object["spec"]["addresses"], json!(["203.0.113.7/32"]));
}

#[test]
fn given_call_names_object_and_what_recognised_it() {
    let cluster = with_pay(&Value::Null);
    for (to, by) in [
        (HOST, "by host api.pay.example, which is not resolved yet"),
        ("External/a.b.cdn.example", "by host a.b.cdn.example"),
        ("External/203.0.113.7", "by its address"),
    ] {
        let status = explain(&cluster, &call(to, 443));
        assert_eq!(status.verdict, ExplanationVerdict::Allowed, "{status:?}");
        let route = &texts(&status, "route")[0];
        assert!(
            route.starts_with("ExternalService shop/pay gives"),
            "{route}"
        );
        assert!(route.contains(by), "{route}");
    }
    for (to, port) in [(HOST, 8443), ("External/pay.example", 443)] {
        let status = explain(&cluster, &call(to, port));
        assert_eq!(
            status.verdict,
            ExplanationVerdict::Refused,
            "{to}: {status:?}"
        );
    }
}

#[test]
fn call_by_gateway_without_pod_is_refused_with_its_name() {
    let spec = json!({
        "addresses": ["203.0.113.0/24"], "ports": [{"port": 443, "protocol": "TLS"}],
        "gateway": {"name": "out", "namespace": "edge"},
    });
    let cluster = shop().with(object("pay", &spec));
    let status = explain(&cluster, &call("External/203.0.113.7", 443));
    assert_eq!(status.verdict, ExplanationVerdict::Refused, "{status:?}");
    assert_eq!(status.reason, "no-endpoint");
    let route = &texts(&status, "route")[0];
    assert!(
        route.contains("leaves by Gateway edge/out alone"),
        "{route}"
    );
}

#[test]
fn call_of_account_that_is_not_admitted_is_refused() {
    let other = json!([{"kind": "ServiceAccount", "name": "other"}]);
    let status = explain(&with_pay(&other), &call(HOST, 443));
    assert_eq!(status.verdict, ExplanationVerdict::Refused, "{status:?}");
    let own = json!([{"kind": "ServiceAccount", "name": "web"}]);
    let status = explain(&with_pay(&own), &call(HOST, 443));
    assert_eq!(status.verdict, ExplanationVerdict::Allowed, "{status:?}");
}

#[test]
fn audited_call_passes_and_names_the_count() {
    let audited = annotate(namespace("shop"), "weft.dev/egress", "audit");
    let status = explain(&shop().with(audited), &call(HOST, 443));
    assert_eq!(status.verdict, ExplanationVerdict::Allowed, "{status:?}");
    assert!(texts(&status, "route")[0].contains("weft.dev/egress=audit counts"));
}

#[test]
fn account_without_pods_is_explained_by_its_namespace() {
    let mut query = call(HOST, 443);
    query.from.kind = "ServiceAccount".to_owned();
    query.from.name = "newcomer".to_owned();
    let status = explain(&denying(), &query);
    assert_eq!(status.verdict, ExplanationVerdict::Refused, "{status:?}");
    let status = explain(&with_pay(&Value::Null), &query);
    assert_eq!(status.verdict, ExplanationVerdict::Allowed, "{status:?}");
}

/// Bytes have no name, so the addresses of the host decide, as at a proxy.
#[test]
fn bytes_of_account_without_pods_go_by_resolved_addresses() {
    let spec = json!({"hosts": ["db.example"], "ports": [{"port": 5432, "protocol": "TCP"}]});
    let mut collector = Collector::default();
    for one in denying().with(object("db", &spec)).objects() {
        apply(&mut collector, one);
    }
    resolve_host(&mut collector, "db.example", &["203.0.113.7"]);
    let (model, _) = Model::compile(&collector.world(), &Defaults::default());
    let mut query = call("External/db.example", 5432);
    for (kind, name) in [("Pod", "client"), ("ServiceAccount", "newcomer")] {
        query.from.kind = kind.to_owned();
        query.from.name = name.to_owned();
        let none = |_: &BTreeSet<PodId>| SeenCallers::default();
        let explained = model.explain(&query, CallerView::Known, &owner, &none);
        let status = explained.unwrap().status;
        assert_eq!(status.verdict, ExplanationVerdict::Allowed, "{status:?}");
    }
}

#[test]
fn service_for_host_says_what_its_proxy_changes() {
    let port = json!({"port": 80, "protocol": "HTTP", "targetPort": 443, "tls": {}});
    let pay = object("pay", &json!({"hosts": ["pay.example"], "ports": [port]}));
    let mut stand_in = service("pay", "10.96.0.7", &[("", 80)]);
    stand_in["spec"].as_object_mut().unwrap().remove("selector");
    let mut collector = Collector::default();
    for one in shop().with(pay).with(stand_in).objects() {
        apply(&mut collector, one);
    }
    resolve_host(&mut collector, "pay.example", &["203.0.113.7"]);
    let (model, _) = Model::compile(&collector.world(), &Defaults::default());
    let query = spec("Pod/client", "Service/pay", "GET", "/");
    let none = |_: &BTreeSet<PodId>| SeenCallers::default();
    let explained = model.explain(&query, CallerView::Known, &owner, &none);
    let route = &texts(&explained.unwrap().status, "route")[0];
    let says = "pay.example, which requests name, in TLS that the caller's proxy begins";
    assert!(route.contains(says), "{route}");
    assert!(!route.contains("as it is"), "{route}");
}

#[test]
fn users_without_rights_at_caller_see_no_object() {
    let mut query = call(HOST, 443);
    query.from.kind = "ServiceAccount".to_owned();
    query.from.name = "web".to_owned();
    for cluster in [denying(), with_pay(&Value::Null)] {
        let (model, _) = cluster.compile();
        let none = |_: &BTreeSet<PodId>| SeenCallers::default();
        let explained = model.explain(&query, CallerView::AccountOnly, &owner, &none);
        let status = explained.unwrap().status;
        assert_eq!(status.verdict, ExplanationVerdict::Unknown, "{status:?}");
        assert!(!format!("{status:?}").contains("shop/pay"), "{status:?}");
    }
}
