//! What the API server accepts of the aggregated APIs.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::authority::secret::{API_CRT, API_KEY};
use crate::metrics_api::SERVED;

const API_SERVICE: &str =
    "/apis/apiregistration.k8s.io/v1/apiservices/v1alpha1.metrics.smi-spec.io";
const NAME: &str = "weft-metrics.weft-system.svc";

/// The certificate that the API server sees, kept for an authority.
fn served(api: &FakeApi, authority: &Authority) -> ServingHandle {
    let front = ServingHandle::empty();
    tokio::spawn(certificate::keep_serving(
        vec![SERVED],
        authority.clone(),
        api.client(),
        "weft-system".to_owned(),
        front.clone(),
        Clock::system(),
    ));
    front
}

/// Whether an API server that holds these roots completes a handshake.
async fn accepted(front: &ServingHandle, bundle: &str) -> bool {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let acceptor = TlsAcceptor::from(identity::tls::webhook_server_config(front));
    let (caller, called) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from(NAME).unwrap();
    let connected = TlsConnector::from(Arc::new(config)).connect(name, caller);
    let (connected, _) = tokio::join!(connected, acceptor.accept(called));
    connected.is_ok()
}

fn with_bundle(api: &FakeApi, bundle: &str) {
    let bundle = ByteString(bundle.as_bytes().to_vec());
    let service = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": "v1alpha1.metrics.smi-spec.io"},
        "spec": {"group": SERVED.group, "version": "v1alpha1", "groupPriorityMinimum": 100,
            "versionPriority": 100, "caBundle": bundle,
            "service": {"name": SERVED.service, "namespace": "weft-system"}},
    });
    api.put(API_SERVICE, service);
}

/// The bundle that the Lease holder writes, and the roots that one of a former version does.
fn bundles(authority: &Authority) -> (String, String) {
    let bundle = authority.api_bundle().borrow().to_string();
    let roots = authority.roots_pem().borrow().to_string();
    (bundle, roots)
}

/// Puts an issuer into the Secret that may name pods alone, below the same root.
fn constrain(api: &FakeApi) {
    let mut secret = api.read(PATH).unwrap();
    let pem = |name: &str| {
        let bytes: ByteString = serde_json::from_value(secret["data"][name].clone()).unwrap();
        String::from_utf8(bytes.0).unwrap()
    };
    let root = Root::from_pem(&pem(ROOT_CRT), &pem(ROOT_KEY)).unwrap();
    let root_key = KeyPair::from_pem(&root.key_pem()).unwrap();
    let signer = rcgen::Issuer::from_ca_cert_der(root.certificate(), root_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    let now = SystemTime::now();
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + ISSUER_LIFE).into();
    params.distinguished_name.push(DnType::CommonName, "pods");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.name_constraints = Some(rcgen::NameConstraints {
        permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName("pod.weft".to_owned())],
        excluded_subtrees: Vec::new(),
    });
    let issuer = params.signed_by(&key, &signer).unwrap();
    secret["data"][ISSUER_CRT] = json!(ByteString(issuer.pem().into_bytes()));
    secret["data"][ISSUER_KEY] = json!(ByteString(key.serialize_pem().into_bytes()));
    api.put(PATH, secret);
}

#[tokio::test(start_paused = true)]
async fn name_constraints_do_not_stop_the_aggregated_apis() {
    let (api, now) = (FakeApi::default(), SystemTime::now());
    let holder = reconciler(&api, true);
    holder.step(now).await.unwrap();
    constrain(&api);
    holder.step(now).await.unwrap();
    assert!(can_sign(&holder, now), "pods get their certificates");
    let by_issuer = holder.authority.serving(&[NAME], now, certificate::LIFE);
    assert!(by_issuer.is_err(), "the issuer may not name a Service");

    // The Lease holder has not written what it holds yet.
    let (bundle, roots) = bundles(&holder.authority);
    with_bundle(&api, &roots);
    let front = served(&api, &holder.authority);
    sleep(2 * certificate::LOOK).await;
    assert!(accepted(&front, &bundle).await);
}

#[tokio::test(start_paused = true)]
async fn replica_serves_by_a_root_that_the_apiservices_hold() {
    let (api, now) = (FakeApi::default(), SystemTime::now());
    let holder = reconciler(&api, true);
    holder.step(now).await.unwrap();
    let (bundle, roots) = bundles(&holder.authority);
    let api_root = holder.authority.api_root().unwrap();
    // The leader is of a former version, then of this one, and after a rollback of that again.
    with_bundle(&api, &roots);
    let front = served(&api, &holder.authority);
    for (held, by_api_root) in [(&roots, false), (&bundle, true), (&roots, false)] {
        with_bundle(&api, held);
        sleep(2 * certificate::LOOK).await;
        assert!(accepted(&front, held).await, "{by_api_root}");
        assert!(accepted(&front, &bundle).await, "{by_api_root}");
        assert_eq!(accepted(&front, &api_root).await, by_api_root);
    }
}

// Claims: trust-1a
#[tokio::test]
async fn lease_holder_adds_api_root_to_a_former_secret() {
    let (api, now) = (FakeApi::default(), SystemTime::now());
    reconciler(&api, true).step(now).await.unwrap();
    let mut former = api.read(PATH).unwrap();
    for name in [API_CRT, API_KEY] {
        former["data"].as_object_mut().unwrap().remove(name);
    }
    api.put(PATH, former);
    let (holder, other) = (reconciler(&api, true), reconciler(&api, false));
    other.step(now).await.unwrap();
    assert_eq!(key(&api, API_CRT), Value::Null, "not its task");
    let (bundle, roots) = bundles(&other.authority);
    assert_eq!(bundle, roots);
    holder.step(now).await.unwrap();
    other.step(now).await.unwrap();
    let (bundle, roots) = bundles(&other.authority);
    assert!(bundle.contains(&other.authority.api_root().unwrap()));
    assert!(bundle.ends_with(roots.as_str()));
    let writes = api.writes().len();
    holder.step(now).await.unwrap();
    assert_eq!(api.writes().len(), writes, "once");
}

#[tokio::test]
async fn api_root_is_renewed_beside_the_former_one() {
    let (api, start) = (FakeApi::default(), SystemTime::now());
    let holder = reconciler(&api, true);
    holder.step(start).await.unwrap();
    let first = holder.authority.api_root().unwrap();
    holder.step(start + ROOT_LIFE / 3 * 2 - DAY).await.unwrap();
    assert_eq!(holder.authority.api_root().unwrap(), first);
    for part in [2_u32, 3] {
        let now = start + ROOT_LIFE / 3 * 2 + part * DAY;
        holder.step(now).await.unwrap();
        let next = holder.authority.api_root().unwrap();
        let (bundle, roots) = bundles(&holder.authority);
        assert_ne!(next, first);
        assert!(bundle.contains(&next) && bundle.contains(&first));
        let count = |text: &str| text.matches("BEGIN CERTIFICATE").count();
        assert_eq!(count(&bundle), count(&roots) + 2, "renewed once");
    }
}

#[tokio::test]
async fn unusable_api_root_is_replaced_and_stops_no_certificate() {
    let (api, now) = (FakeApi::default(), SystemTime::now());
    reconciler(&api, true).step(now).await.unwrap();
    let mut broken = api.read(PATH).unwrap();
    broken["data"][API_KEY] = json!(ByteString(b"no key".to_vec()));
    api.put(PATH, broken);
    let (holder, other) = (reconciler(&api, true), reconciler(&api, false));
    other.step(now).await.unwrap();
    assert!(can_sign(&other, now));
    assert!(other.authority.api_root().is_none());
    holder.step(now).await.unwrap();
    assert!(
        holder
            .authority
            .api_serving(&[NAME], now, certificate::LIFE)
            .is_ok()
    );
}
