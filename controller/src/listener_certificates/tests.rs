//! Secrets that Gateways name are read, and no others; what they hold reaches no World.

use fake_api::FakeApi;
use k8s_openapi::ByteString;
use model::Defaults;
use runtime::ready::Ready;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::*;
use crate::metrics::WorldMetrics;
use crate::reread::EVERY;
use crate::settings::gateways::GatewayApi;

const API: &str = "/apis/gateway.networking.k8s.io/v1";
const SECRET: &str = "/api/v1/namespaces/edge/secrets/shop-tls-a";
const FOREIGN: &str = "/api/v1/namespaces/shop/secrets/theirs-a";

fn class() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
        "metadata": {"name": "weft-a", "uid": "class", "generation": 1},
        "spec": {"controllerName": "weft.dev/gateway"},
    })
}

fn gateway(certificate: &Value) -> Value {
    let one = json!([certificate]);
    let all = if certificate.is_array() {
        certificate
    } else {
        &one
    };
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "web", "namespace": "edge", "uid": "web", "generation": 1},
        "spec": {"gatewayClassName": "weft-a", "listeners": [{
            "name": "https", "port": 443, "protocol": "HTTPS",
            "tls": {"certificateRefs": all},
        }]},
    })
}

fn grant() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "ReferenceGrant",
        "metadata": {"name": "tls", "namespace": "shop", "uid": "grant", "generation": 1},
        "spec": {
            "from": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "edge"}],
            "to": [{"group": "", "kind": "Secret"}],
        },
    })
}

fn secret() -> Value {
    secret_until(4000)
}

/// With a certificate that ends in this year.
fn secret_until(year: i32) -> Value {
    let mut params = rcgen::CertificateParams::new(["shop.example".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let text = |text: String| json!(ByteString(text.into_bytes()));
    json!({
        "metadata": {},
        "data": {
            "tls.crt": text(certificate.pem()),
            "tls.key": text(key.serialize_pem()),
        },
    })
}

struct Bench {
    api: FakeApi,
    latest: LatestModel,
    certificates: ListenerCertificates,
    ready: Ready,
}

impl Bench {
    /// A controller that runs Gateways in `edge`, with one that names this certificate, or these.
    fn start(certificate: &Value) -> Self {
        let (api, ready) = (FakeApi::default(), Ready::new());
        api.put(&format!("{API}/gatewayclasses/weft-a"), class());
        api.put(
            &format!("{API}/namespaces/edge/gateways/web"),
            gateway(certificate),
        );
        let namespaces: Arc<BTreeSet<String>> = Arc::new(BTreeSet::from(["edge".to_owned()]));
        let (worlds, feed) = crate::watch::start(
            api.client(),
            Arc::default(),
            GatewayApi::Gateways,
            WorldMetrics::default(),
            Ready::new(),
        );
        let (publish, latest) = watch::channel(None);
        let defaults = Defaults {
            gateway_namespaces: Some(Arc::clone(&namespaces)),
            ..Defaults::default()
        };
        let (_, signing) = watch::channel(BTreeSet::new());
        tokio::spawn(crate::latest_model::run(worlds, publish, defaults, signing));
        let certificates = ListenerCertificates::default();
        let follower = Follower {
            client: api.client(),
            latest: latest.clone(),
            feed,
            namespaces,
            certificates: certificates.clone(),
            metrics: CertificateMetrics::default(),
        };
        tokio::spawn(follower.follow(ready.hold("certificates")));
        Self {
            api,
            latest,
            certificates,
            ready,
        }
    }

    /// Waits until the World says so of the Secret.
    async fn becomes(
        &mut self,
        secret: &ObjectKey,
        is_so: impl Fn(Option<&ListenerCertificateFacts>) -> bool,
    ) {
        let found = self.latest.wait_for(|compiled| {
            compiled.as_ref().is_some_and(|compiled| {
                let facts = compiled.world.listener_certificates.get(secret);
                is_so(facts.map(Arc::as_ref))
            })
        });
        let found = timeout(Duration::from_secs(60), found).await;
        assert!(found.is_ok(), "{secret}");
    }
}

fn is_usable(facts: Option<&ListenerCertificateFacts>) -> bool {
    matches!(facts, Some(ListenerCertificateFacts::Usable { .. }))
}

fn is_ended(facts: Option<&ListenerCertificateFacts>) -> bool {
    match facts {
        Some(ListenerCertificateFacts::Unusable(why)) => why.contains("ended on 2020-01-01"),
        _ => false,
    }
}

fn is_unusable(facts: Option<&ListenerCertificateFacts>) -> bool {
    matches!(facts, Some(ListenerCertificateFacts::Unusable(_)))
}

#[tokio::test(start_paused = true)]
async fn named_certificate_follows_its_secret_and_no_other() {
    let key = ObjectKey::new("edge", "shop-tls-a");
    let mut bench = Bench::start(&json!({"name": "shop-tls-a"}));
    bench
        .api
        .put(&SECRET.replace("shop-tls", "other"), secret());
    bench.becomes(&key, is_unusable).await;
    assert!(bench.certificates.get(&key).is_none());

    bench.api.put(SECRET, secret());
    bench.becomes(&key, is_usable).await;
    let first = bench.certificates.get(&key).unwrap();
    assert_eq!(first.resource.name, "certificate/edge/shop-tls-a");
    assert!(bench.ready.is_ready());

    bench.api.put(SECRET, secret());
    let version = first.resource.version.clone();
    sleep(2 * EVERY).await;
    let second = bench.certificates.get(&key).unwrap();
    assert_ne!(second.resource.version, version, "it was renewed");

    bench.api.remove(SECRET);
    bench.becomes(&key, is_unusable).await;
    assert!(bench.certificates.get(&key).is_none());
    assert_eq!(
        bench.api.whole_reads(&SECRET.replace("shop-tls", "other")),
        0
    );
}

#[tokio::test(start_paused = true)]
async fn ended_certificate_is_not_served_and_its_date_named() {
    let key = ObjectKey::new("edge", "shop-tls-a");
    let mut bench = Bench::start(&json!({"name": "shop-tls-a"}));
    bench.api.put(SECRET, secret());
    bench.becomes(&key, is_usable).await;
    bench.api.put(SECRET, secret_until(2020));
    bench.becomes(&key, is_ended).await;
    assert!(bench.certificates.get(&key).is_none());
}

#[tokio::test(start_paused = true)]
async fn certificate_stays_while_api_server_fails() {
    let key = ObjectKey::new("edge", "shop-tls-a");
    let mut bench = Bench::start(&json!({"name": "shop-tls-a"}));
    bench.api.put(SECRET, secret());
    bench.becomes(&key, is_usable).await;
    bench.api.break_down();
    sleep(3 * EVERY).await;
    assert!(bench.certificates.get(&key).is_some());
    bench.becomes(&key, is_usable).await;
}

/// Pods that come to it would lose those that it has not read.
#[tokio::test(start_paused = true)]
async fn replica_is_ready_with_hundreds_of_certificates_read() {
    const MANY: usize = 1000;
    let named = (0..MANY).map(|n| json!({"name": format!("tls-{n}-a")}));
    let bench = Bench::start(&named.collect());
    bench.ready.wait().await;
    let compiled: Arc<Compiled> = bench.latest.borrow().clone().unwrap();
    assert_eq!(compiled.world.listener_certificates.len(), MANY);
}

#[tokio::test(start_paused = true)]
async fn withdrawn_grant_takes_certificate_within_two_seconds() {
    let key = ObjectKey::new("shop", "theirs-a");
    let mut bench = Bench::start(&json!({"name": "theirs-a", "namespace": "shop"}));
    bench.api.put(FOREIGN, secret());
    sleep(3 * EVERY).await;
    assert_eq!(bench.api.whole_reads(FOREIGN), 0, "nothing permits it");

    let grants = format!("{API}/referencegrants");
    let changed = |kind: &str, version: &str| {
        let mut object = grant();
        object["metadata"]["resourceVersion"] = json!(version);
        json!({"type": kind, "object": object})
    };
    bench.api.put_lines(&grants, &[changed("ADDED", "8")]);
    bench.becomes(&key, is_usable).await;
    bench.api.put_lines(&grants, &[changed("DELETED", "9")]);
    let start = Instant::now();
    bench.becomes(&key, |facts| facts.is_none()).await;
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    assert!(bench.certificates.get(&key).is_none());
    let reads = bench.api.whole_reads(FOREIGN);
    sleep(3 * EVERY).await;
    assert_eq!(bench.api.whole_reads(FOREIGN), reads, "it is read no more");
}

/// Whatever is printed of a World, of a store or of a resource.
#[tokio::test(start_paused = true)]
async fn key_is_in_nothing_that_is_shown() {
    let key = ObjectKey::new("edge", "shop-tls-a");
    let mut bench = Bench::start(&json!({"name": "shop-tls-a"}));
    bench.api.put(SECRET, secret());
    bench.becomes(&key, is_usable).await;
    let resource = bench.certificates.get(&key).unwrap();
    let Some(v1::resource::Content::ListenerCertificate(held)) = &resource.resource.content else {
        panic!("no certificate");
    };
    let compiled: Arc<Compiled> = bench.latest.borrow().clone().unwrap();
    let printed = format!(
        "{:?} {resource:?} {:?} {:?}",
        bench.certificates, compiled.world, compiled.problems
    );
    // As bytes are printed, and as text.
    let bytes = format!("{:?}", held.key);
    let bytes = bytes.trim_matches(['[', ']']);
    assert!(bytes.len() > 100, "the control: there is a key");
    assert!(!printed.contains(bytes));
    let text = json!(ByteString(held.key.clone())).to_string();
    assert!(!printed.contains(text.trim_matches('"')));
    assert!(!printed.contains("PRIVATE KEY"));
}
