//! Tests of refused ExternalServices: a mistake names its field, and nothing slips through that the
//! controller would not take.

use oracle::{random::Random, seeds::seeds};
use serde_json::{Value, json};

use super::{agreement, *};

/// Objects that both ways evaluate.
const OBJECTS: u64 = 1_500;

/// A spec that says everything.
fn everything() -> Value {
    json!({
        "hosts": ["api.pay.example", "*.pay.example"],
        "addresses": ["203.0.113.0/24", "2001:db8::7"],
        "ports": [
            {"port": 443, "protocol": "TLS"},
            {"port": 80, "protocol": "HTTP", "targetPort": 443,
                "tls": {"serverName": "api.pay.example", "caRef": {"name": "pay-ca"}}},
            {"port": 5432, "protocol": "TCP"},
        ],
        "sources": [{"kind": "ServiceAccount", "name": "web"}],
        "gateway": {"name": "out", "namespace": "edge"},
    })
}

fn response_to(namespace: &str, spec: &Value) -> AdmissionResponse {
    let request = json!({
        "uid": "u", "kind": {"group": "weft.dev", "version": "v1alpha1", "kind": "ExternalService"},
        "namespace": namespace, "name": "pay", "operation": "CREATE",
        "object": {"metadata": {"name": "pay"}, "spec": spec}, "oldObject": null,
    });
    validate(
        &serde_json::from_value(request).unwrap(),
        &Cluster::default(),
    )
}

#[test]
fn wrong_external_service_is_refused_with_its_field() {
    assert_eq!(
        response_to("shop", &everything()),
        AdmissionResponse::allow()
    );
    for (pointer, value, field) in [
        ("/hosts/0", json!("203.0.113.7"), "spec.hosts[0]"),
        ("/hosts/1", json!("*"), "spec.hosts[1]"),
        (
            "/addresses/0",
            json!("::ffff:10.0.0.1"),
            "spec.addresses[0]",
        ),
        ("/ports/2/port", json!(443), "spec.ports[2].port"),
        (
            "/ports/0/protocol",
            json!("HTTPS"),
            "spec.ports[0].protocol",
        ),
        ("/ports/1/protocol", json!("TLS"), "spec.ports[1].tls"),
        ("/sources/0/kind", json!("Group"), "spec.sources[0].kind"),
        ("/gateway/name", json!("Out"), "spec.gateway.name"),
    ] {
        let mut spec = everything();
        *spec.pointer_mut(pointer).unwrap() = value;
        let refusal = response_to("shop", &spec).refusal.unwrap();
        assert!(
            refusal.starts_with("ExternalService shop/pay is invalid: "),
            "{refusal}"
        );
        assert!(refusal.contains(&format!("{field}: ")), "{refusal}");
    }
}

#[test]
fn foreign_accounts_are_admitted_only_by_mesh_namespace() {
    let mut spec = everything();
    spec["sources"][0]["namespace"] = json!("bank");
    let refusal = response_to("shop", &spec).refusal.unwrap();
    assert!(refusal.contains("spec.sources[0].namespace: "), "{refusal}");
    assert_eq!(
        response_to("weft-system", &spec),
        AdmissionResponse::allow()
    );
}

#[test]
fn webhook_refuses_exactly_objects_that_controller_rejects() {
    let (mut refused, mut taken) = (0, 0);
    for seed in seeds(OBJECTS) {
        let mut object = json!({
            "apiVersion": "weft.dev/v1alpha1", "kind": "ExternalService",
            "metadata": {"name": "x", "namespace": "shop", "generation": 1}, "spec": everything(),
        });
        agreement::alter(&mut Random::new(seed), &mut object);
        if let Some(difference) = agreement::difference(&object) {
            panic!("seed {seed}: {difference}\n{object}");
        }
        match agreement::reviewed(&object).refusal {
            Some(_) => refused += 1,
            None => taken += 1,
        }
    }
    assert!(
        refused > 300 && taken > 100,
        "{refused} refused, {taken} taken"
    );
}
