//! Services that stand for a host outside.

use policy::egress::ExternalTarget;
use wire::v1;

use super::*;
use crate::fixtures::{service, split};

const ENDPOINTS: &str = "endpoints/shop/pay:80";

/// Service `pay`, which leads nowhere by itself.
fn stand_in() -> Value {
    let mut service = service("pay", "10.96.0.7", &[("", 80)]);
    service["spec"].as_object_mut().unwrap().remove("selector");
    service
}

/// Requests leave in TLS.
fn originated() -> Value {
    let port = json!({"port": 80, "protocol": "HTTP", "targetPort": 443, "tls": {}});
    external_service(
        "pay",
        json!({"hosts": ["*.pay.example", "pay.example"], "ports": [port]}),
    )
}

const NAMES: &[(&str, &[&str])] = &[("pay.example", &["203.0.113.1", "10.0.0.11"])];
const CALLED: &[&str] = &["destination/10.96.0.7:80"];

fn target(endpoints: &v1::Endpoints) -> ExternalTarget {
    wire::convert::external_target(endpoints.external.as_ref().unwrap()).unwrap()
}

#[test]
fn service_without_selector_leads_to_the_first_exact_host() {
    let (model, problems) = compiled(&[originated(), stand_in()], NAMES);
    let sent = sent(&model, "client", CALLED);
    assert_eq!(sent.addresses(ENDPOINTS), ["203.0.113.1:443"]);
    let target = target(&sent.endpoints(ENDPOINTS));
    assert_eq!(target.object.to_string(), "ExternalService shop/pay");
    assert_eq!((&*target.host, target.denied), ("pay.example", false));
    let tls = target.tls.unwrap();
    assert_eq!(tls.server_name.as_deref(), Some("pay.example"));
    assert_eq!(tls.roots, Roots::Public);
    assert!(report(&problems, "ExternalService pay").accepted.status);
}

#[test]
fn service_for_host_is_refused_to_callers_not_admitted() {
    let api = json!([{"kind": "ServiceAccount", "name": "api"}]);
    let (model, _) = compiled(&[with_sources(originated(), api), stand_in()], NAMES);
    let refused = sent(&model, "client", CALLED);
    assert_eq!(refused.addresses(ENDPOINTS), [""; 0]);
    let target_of_client = target(&refused.endpoints(ENDPOINTS));
    assert!(target_of_client.denied && target_of_client.tls.is_none());
    let admitted = sent(&model, "api-1", CALLED);
    assert_eq!(admitted.addresses(ENDPOINTS), ["203.0.113.1:443"]);
    assert!(!target(&admitted.endpoints(ENDPOINTS)).denied);
}

/// An older proxy would send the host of the caller, in plaintext.
#[test]
fn older_proxy_gets_no_endpoint_of_a_service_outside() {
    let (model, _) = compiled(&[originated(), stand_in()], NAMES);
    let client = PodId::new("shop", "client");
    let names = BTreeSet::from([CALLED[0].to_owned()]);
    let older = model.resolve(&client, &names, &Capabilities::default());
    let older = Resolved(older.unwrap().resources);
    assert_eq!(older.endpoints(ENDPOINTS), v1::Endpoints::default());
}

#[test]
fn split_shares_calls_out_to_a_service_outside() {
    let shares = split("cloud", "api", &[("api", 90), ("pay", 10)]);
    let (model, _) = compiled(&[originated(), stand_in(), shares], NAMES);
    let sent = sent(&model, "client", &["destination/10.96.0.1:80"]);
    let backends = &sent.service("service/shop/api:80").splits[0].backends;
    let to: Vec<&str> = backends.iter().map(|one| one.endpoints.as_str()).collect();
    assert_eq!(to, ["endpoints/shop/api:80", ENDPOINTS]);
    assert_eq!(sent.addresses(ENDPOINTS), ["203.0.113.1:443"]);
    assert_eq!(&*target(&sent.endpoints(ENDPOINTS)).host, "pay.example");
}

#[test]
fn service_with_selector_keeps_its_pods() {
    let with_pods = service("pay", "10.96.0.7", &[("", 80)]);
    let (model, problems) = compiled(&[originated(), with_pods], NAMES);
    let sent = sent(&model, "client", CALLED);
    assert_eq!(sent.endpoints(ENDPOINTS).external, None);
    let accepted = &report(&problems, "ExternalService pay").accepted;
    assert_eq!((accepted.status, accepted.reason), (true, "FieldIgnored"));
    assert!(accepted.message.contains("has a selector"), "{accepted:?}");
}

#[test]
fn object_says_what_is_spoken_at_undeclared_ports() {
    let of = |protocol: &str, app: Option<&str>| {
        let port = json!({"port": 80, "protocol": protocol});
        let object = external_service("pay", json!({"hosts": ["pay.example"], "ports": [port]}));
        let mut service = stand_in();
        if let Some(app) = app {
            service["spec"]["ports"][0]["appProtocol"] = json!(app);
        }
        let (model, _) = compiled(&[object, service], NAMES);
        sent(&model, "client", CALLED)
            .service("service/shop/pay:80")
            .protocol()
    };
    assert_eq!(of("TLS", None), v1::Protocol::Tls);
    assert_eq!(of("TCP", None), v1::Protocol::Opaque);
    assert_eq!(of("HTTP", None), v1::Protocol::Detect);
    assert_eq!(of("HTTP", Some("grpc")), v1::Protocol::Grpc);
    assert_eq!(of("TCP", Some("http")), v1::Protocol::Http1);
}
