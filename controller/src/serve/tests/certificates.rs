//! Certificates of a Gateway's listeners go to its own pods, and are taken back at once.

use std::collections::BTreeMap;

use model::world::{ListenerCertificateFacts, ObjectKey};
use serde_json::{Value, json};
use wire::capability::Capabilities;

use super::*;

const CERTIFICATE: &str = "certificate/shop/edge-tls";

fn object(kind: &str, name: &str, namespace: Option<&str>, spec: &Value) -> Value {
    let mut metadata = json!({"name": name, "uid": format!("uid-{name}"), "generation": 1});
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace);
    }
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": metadata,
        "spec": spec,
    })
}

/// A pod of the Gateway `edge`, or another pod of its account.
fn pod(name: &str, ip: &str, label: &str) -> Value {
    let pod = cluster::plain_pod(name, ip, "edge-weft");
    let pod = cluster::annotate(pod, "weft.dev/proxy-version", "0.1.0");
    let labels = json!({"gateway.networking.k8s.io/gateway-name": label});
    let pod = cluster::set(pod, "/metadata/labels", labels);
    let running = json!([{"name": "weft-gateway", "state": {"running": {}},
        "ready": true, "restartCount": 0, "image": "", "imageID": ""}]);
    cluster::set(
        cluster::set(pod, "/spec/containers", json!([{"name": "weft-gateway"}])),
        "/status/containerStatuses",
        running,
    )
}

fn cluster_with_gateway() -> Cluster {
    let class = json!({"controllerName": "weft.dev/gateway"});
    let listener = json!({
        "name": "https", "port": 443, "protocol": "HTTPS",
        "tls": {"certificateRefs": [{"name": "edge-tls"}]},
    });
    let gateway = json!({"gatewayClassName": "weft", "listeners": [listener]});
    cluster::shop()
        .with(object("GatewayClass", "weft", None, &class))
        .with(object("Gateway", "edge", Some("shop"), &gateway))
        .with(pod("edge-1", "10.0.0.91", "edge"))
        .with(pod("edge-2", "10.0.0.92", "another"))
}

fn secret() -> ObjectKey {
    ObjectKey::new("shop", "edge-tls")
}

/// The model, where the Secret is as this says.
fn with_secret(fact: Option<ListenerCertificateFacts>) -> Arc<Compiled> {
    let mut world = cluster_with_gateway().world();
    let facts = fact.map(|fact| (secret(), Arc::new(fact)));
    world.listener_certificates = Arc::new(facts.into_iter().collect::<BTreeMap<_, _>>());
    let world = Arc::new(world);
    let defaults = Defaults {
        gateway_namespaces: Some(Arc::new(["shop".to_owned()].into())),
        ..Defaults::default()
    };
    let (model, problems) = Model::compile(&world, &defaults);
    Arc::new(Compiled::new(world, model, problems))
}

fn usable(fingerprint: &str) -> Option<ListenerCertificateFacts> {
    Some(ListenerCertificateFacts::Usable {
        not_after: 4_000_000_000,
        fingerprint: fingerprint.into(),
    })
}

fn certificate(key: &str) -> v1::ListenerCertificate {
    v1::ListenerCertificate {
        chain: vec![b"chain".to_vec()],
        key: key.as_bytes().to_vec(),
    }
}

async fn gateway_pod(bench: &Bench, uid: &str) -> Proxy {
    let hello = v1::Hello {
        capabilities: Capabilities::of_gateways(),
        ..hello_for(&[])
    };
    let account = account("shop", "edge-weft");
    Proxy::open(bench.mesh_channel(&account, Some(uid)).await, hello).await
}

#[tokio::test]
async fn certificate_goes_to_pods_of_its_gateway_alone() {
    let bench = Bench::start(&cluster::shop()).await;
    bench.certificates.insert(&secret(), certificate("first"));
    bench.models.send_replace(Some(with_secret(usable("1"))));

    let mut own = gateway_pod(&bench, "uid-edge-1").await;
    let batch = own.batch().await;
    assert!(names(&batch).contains(&"gateway"), "{:?}", names(&batch));
    assert!(names(&batch).contains(&CERTIFICATE), "{:?}", names(&batch));
    own.ack(&batch).await;

    // Another pod of the same account, and one of an application.
    let mut other = gateway_pod(&bench, "uid-edge-2").await;
    let batch = other.batch().await;
    assert!(!names(&batch).contains(&CERTIFICATE), "{:?}", names(&batch));
    let hello = v1::Hello {
        capabilities: Capabilities::of_gateways(),
        ..hello_for(&[API])
    };
    let mut application = bench.client(hello).await;
    let batch = application.batch().await;
    assert!(!names(&batch).contains(&CERTIFICATE), "{:?}", names(&batch));

    // It is renewed, and withdrawn.
    bench.certificates.insert(&secret(), certificate("second"));
    bench.models.send_replace(Some(with_secret(usable("2"))));
    let batch = own.batch().await;
    assert!(names(&batch).contains(&CERTIFICATE), "{:?}", names(&batch));
    own.ack(&batch).await;
    let gone = ListenerCertificateFacts::Unusable("it is gone".into());
    bench.models.send_replace(Some(with_secret(Some(gone))));
    let batch = own.batch().await;
    assert_eq!(batch.remove, [CERTIFICATE]);
}

/// A replica that has not read the Secret has nothing to send.
#[tokio::test]
async fn unread_certificate_is_not_sent() {
    let bench = Bench::start(&cluster::shop()).await;
    bench.models.send_replace(Some(with_secret(usable("1"))));
    let mut own = gateway_pod(&bench, "uid-edge-1").await;
    let batch = own.batch().await;
    assert!(names(&batch).contains(&"gateway"), "{:?}", names(&batch));
    assert!(!names(&batch).contains(&CERTIFICATE), "{:?}", names(&batch));
}
