//! Calls that leave by a Gateway: what its pods get, what callers get, and what older proxies get.

use policy::egress::{Egress, EgressMode};
use wire::names::handing_over;

use super::*;
use crate::problem::{ConditionType, Reason};

/// What a controller knows that has read these, where the hosts are resolved.
fn compiled(objects: &[Value]) -> (Model, Problems) {
    let mut collector = Collector::default();
    let cluster = plain();
    for object in cluster.objects().iter().chain(&ready_pod()).chain(objects) {
        apply(&mut collector, object);
    }
    resolve_host(&mut collector, "pay.example", &["203.0.113.1"]);
    Model::compile(&collector.world(), &with_gateways())
}

/// The Service of Gateway `edge`, and its one pod.
fn ready_pod() -> [Value; 2] {
    let pod = endpoint("edge-1", "10.0.0.40");
    [
        service("edge-weft", "10.96.0.50", &[("http", 80)]),
        slice("edge-weft-x", "edge-weft", &[("http", 20_080)], &[pod]),
    ]
}

/// `pay.example` for calls in TLS, by this Gateway.
fn pay(gateway: Option<&str>) -> Value {
    let mut spec = json!({
        "hosts": ["pay.example"],
        "ports": [{"port": 443, "protocol": "TLS"}],
        "sources": [{"kind": "ServiceAccount", "name": "web"}],
    });
    if let Some(name) = gateway {
        spec["gateway"] = json!({"name": name});
    }
    external_service("pay", spec)
}

fn sent_to(model: &Model, pod: &str, without: &[&str]) -> Resolved {
    let mut capabilities = Capabilities::of_everything();
    capabilities.retain(|one| !without.contains(&one.as_str()));
    let capabilities = Capabilities::named(&capabilities);
    let set = model.resolve(&PodId::new("shop", pod), &BTreeSet::new(), &capabilities);
    Resolved(set.unwrap().resources)
}

fn egress(model: &Model, pod: &str) -> Egress {
    sent_to(model, pod, &[]).egress()
}

#[test]
fn caller_gets_gateway_and_gateway_gets_callers() {
    let (model, problems) = compiled(&[pay(Some("edge"))]);
    let caller = egress(&model, "client");
    assert_eq!(caller.objects[0].gateway.as_deref(), Some("shop/edge"));
    assert!(caller.objects[0].callers.is_empty());
    let sent = sent_to(&model, "client", &[]);
    assert!(!sent.0.contains_key("external/pay.example:443"));
    let pods = sent.endpoints(&handing_over("shop/edge")).endpoints;
    assert_eq!(pods.len(), 1);
    assert_eq!((&*pods[0].ip, pods[0].port), ("10.0.0.40", 15_108));
    assert_eq!(
        pods[0].identity,
        "spiffe://cluster.local/ns/shop/sa/edge-weft"
    );

    let gateway = egress(&model, "edge-1");
    assert_eq!(gateway.objects[0].gateway, None);
    let callers = gateway.objects[0].callers.iter();
    let callers: Vec<String> = callers.map(ToString::to_string).collect();
    assert_eq!(callers, ["shop/web"]);
    let resources = sent_to(&model, "edge-1", &[]).0;
    assert!(resources.contains_key("external/pay.example:443"));
    assert!(
        report(&problems, "ExternalService pay")
            .resolved_refs
            .status
    );
}

#[test]
fn gateway_gets_no_object_that_names_another_or_none() {
    for named in [None, Some("other")] {
        let (model, _) = compiled(&[pay(named)]);
        let sent = sent_to(&model, "edge-1", &[]).0;
        assert!(!sent.contains_key("egress"), "{named:?}");
    }
}

#[test]
fn gateway_that_is_not_served_is_reported_and_has_no_pod() {
    let (model, problems) = compiled(&[pay(Some("other"))]);
    let sent = sent_to(&model, "client", &[]);
    assert_eq!(sent.addresses(&handing_over("shop/other")), [""; 0]);
    let caller = sent.egress();
    assert_eq!(caller.objects[0].gateway.as_deref(), Some("shop/other"));
    let missing = (Reason::RefNotFound, "spec.gateway.name");
    let found = super::super::failures(&problems, ConditionType::ResolvedRefs);
    assert_eq!(found, [missing]);
}

/// One that would not read the field would go there directly.
#[test]
fn older_proxy_gets_nothing_of_port_and_mode_deny() {
    let wide = json!({
        "addresses": ["203.0.113.0/24"],
        "ports": [{"port": 443, "protocol": "TCP"}, {"port": 80, "protocol": "TCP"}],
    });
    let (model, _) = compiled(&[pay(Some("edge")), external_service("wide", wide)]);
    let older = sent_to(&model, "client", &["egress-gateways"]);
    assert!(!older.0.contains_key(&handing_over("shop/edge")));
    let older = older.egress();
    assert_eq!(older.mode, EgressMode::Deny);
    let ports = older.objects.iter().flat_map(|object| &object.ports);
    let ports: Vec<u16> = ports.map(|port| port.port).collect();
    assert_eq!(ports, [80]);
    assert_eq!(egress(&model, "client").mode, EgressMode::Allow);
    // Where no object names a Gateway, an older proxy gets what it got.
    let (model, _) = compiled(&[pay(None)]);
    let older = sent_to(&model, "client", &["egress-gateways"]);
    assert_eq!(older.egress(), egress(&model, "client"));
}
