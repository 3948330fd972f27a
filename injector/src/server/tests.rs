//! The server as the API server meets it.
//!
//! Claims: attack-14

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use crds::inject;
use fake_api::FakeApi;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioExecutor;
use identity::Root;
use identity::tls::{ServingHandle, webhook_server_config};
use prometheus_client::registry::Registry;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

use super::*;

mod floods;
mod garbage;
mod gates;

const NAME: &str = "weft-injector.weft-system.svc";

struct Harness {
    address: std::net::SocketAddr,
    root: Root,
    api: FakeApi,
    registry: Registry,
    webhooks: Arc<Webhooks>,
    stop: Option<oneshot::Sender<()>>,
    running: tokio::task::JoinHandle<()>,
}

impl Harness {
    async fn start() -> Self {
        let root = Root::generate(SystemTime::now(), Duration::from_secs(3600)).unwrap();
        let serving = ServingHandle::empty();
        let leaf = root
            .serving(&[NAME], SystemTime::now(), Duration::from_secs(600))
            .unwrap();
        serving.store(&leaf).unwrap();
        let api = FakeApi::default();
        api.put(
            "/api/v1/namespaces/shop",
            json!({ "metadata": { "name": "shop", "labels": { "weft.dev/inject": "enabled" } } }),
        );
        let settings = inject::Settings {
            proxy_image: "proxy:1".into(),
            proxy_pull_policy: "IfNotPresent".into(),
            architectures: inject::Architectures::default(),
            controller_address: "weft-controller.weft-system.svc:8443".into(),
            controller_namespace: "weft-system".into(),
            trust_domain: "cluster.local".into(),
            version: "1".into(),
            compatibility_series: String::new(),
            guaranteed_cpu: inject::Settings::GUARANTEED_CPU.into(),
            guaranteed_memory: inject::Settings::GUARANTEED_MEMORY.into(),
            limits: inject::DefaultLimits::default(),
            capture: inject::CaptureMode::Init,
        };
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let mutator = Mutator::new(api.client(), settings).gating(true);
        let webhooks = Arc::new(Webhooks::new(mutator, Cluster::default(), metrics));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(serve(
            listener,
            webhook_server_config(&serving),
            Arc::clone(&webhooks),
            async { drop(stopped.await) },
            Duration::from_secs(2),
        ));
        Self {
            address,
            root,
            api,
            registry,
            webhooks,
            stop: Some(stop),
            running,
        }
    }

    async fn connect(&self, alpn: &[u8]) -> tokio_rustls::client::TlsStream<TcpStream> {
        self.connect_from([127, 0, 0, 1], alpn).await
    }

    /// From one of loopback's many addresses.
    async fn connect_from(
        &self,
        from: [u8; 4],
        alpn: &[u8],
    ) -> tokio_rustls::client::TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.certificate().clone()).unwrap();
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        // What is not read must not fit into what the kernel would take of it by itself.
        socket.set_recv_buffer_size(64 * 1024).unwrap();
        socket.bind(SocketAddr::from((from, 0))).unwrap();
        let stream = socket.connect(self.address).await.unwrap();
        let name = ServerName::try_from(NAME).unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .unwrap()
    }

    /// Status and body of one call over HTTP/2, as the API server makes it.
    async fn call(&self, path: &str, body: impl Into<Bytes>) -> (StatusCode, Bytes) {
        let stream = TokioIo::new(self.connect(b"h2").await);
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream)
            .await
            .unwrap();
        tokio::spawn(connection);
        let request = Request::post(format!("https://{NAME}{path}?timeout=10s"))
            .body(Full::new(body.into()))
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status();
        (
            status,
            response.into_body().collect().await.unwrap().to_bytes(),
        )
    }

    async fn review(&self, path: &str, request: Value) -> Value {
        let body = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request,
        });
        let (status, body) = self.call(path, body.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{body:?}");
        serde_json::from_slice(&body).unwrap()
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "keeps the tests' json! plain"
)]
fn pod(spec: Value) -> Value {
    json!({
        "uid": "u1",
        "kind": { "group": "", "version": "v1", "kind": "Pod" },
        "namespace": "shop",
        "operation": "CREATE",
        "object": { "metadata": { "generateName": "web-" }, "spec": spec },
    })
}

#[tokio::test]
async fn pod_of_a_meshed_namespace_gets_a_patch() {
    let harness = Harness::start().await;
    let request = pod(json!({ "containers": [{ "name": "app" }] }));
    let review = harness.review("/mutate", request.clone()).await;
    assert_eq!(review["response"]["uid"], "u1");
    assert_eq!(review["response"]["allowed"], true);
    let patch = STANDARD
        .decode(review["response"]["patch"].as_str().unwrap())
        .unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
    let mut changed = request["object"].clone();
    json_patch::patch(&mut changed, &patch).unwrap();
    assert_eq!(changed["spec"]["initContainers"][1]["name"], "weft-proxy");
    let metrics = harness.metrics();
    let line = r#"reviews_total{path="mutate",outcome="injected",reason=""} 1"#;
    assert!(metrics.contains(line), "{metrics}");
}

/// No client needs credentials to call this port, and the injector may read what they may not.
// Claims: A8
#[tokio::test]
async fn namespace_with_path_reads_and_leaks_nothing() {
    let harness = Harness::start().await;
    harness.api.put(
        "/api/v1/namespaces/shop/secrets/password",
        json!({ "metadata": {
            "name": "password",
            "labels": { "weft.dev/inject": "enabled" },
            "annotations": { "weft.dev/log-level": "secret-word" },
        } }),
    );
    let call = |namespace: &str| {
        let mut request = pod(json!({ "containers": [{ "name": "app" }] }));
        request["namespace"] = namespace.into();
        json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request,
        })
        .to_string()
    };
    let (status, body) = harness.call("/mutate", call("shop/secrets/password")).await;
    let body = String::from_utf8(body.to_vec()).unwrap();
    assert!(!body.contains("secret-word"), "{body}");
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");

    let (status, body) = harness.call("/mutate", call("unknown")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let body = String::from_utf8(body.to_vec()).unwrap();
    assert!(!body.contains("NotFound") && body.len() < 100, "{body}");

    // Control: a namespace is read.
    let review = harness
        .review("/mutate", pod(json!({ "containers": [{ "name": "app" }] })))
        .await;
    assert!(review["response"]["patch"].is_string(), "{review}");
}

// Claims: A7
#[tokio::test]
async fn debuggers_and_misspelled_labels_have_paths_of_their_own() {
    let harness = Harness::start().await;
    let debugged = json!({
        "uid": "u1", "kind": { "group": "", "kind": "Pod" }, "namespace": "shop", "name": "web",
        "operation": "UPDATE", "subResource": "ephemeralcontainers",
        "object": { "spec": {
            "initContainers": [{ "name": "weft-proxy" }],
            "ephemeralContainers": [{ "name": "d", "securityContext": { "runAsGroup": 15190 } }],
        } },
    });
    let review = harness.review("/ephemeral", debugged).await;
    assert_eq!(review["response"]["allowed"], false, "{review}");
    let namespace = json!({
        "uid": "u1", "kind": { "group": "", "kind": "Namespace" }, "name": "shop",
        "namespace": "shop", "operation": "UPDATE",
        "object": { "metadata": { "labels": { "weft.dev/inject": "true" } } },
    });
    let review = harness.review("/spelling", namespace).await;
    assert_eq!(review["response"]["allowed"], true);
    let warning = review["response"]["warnings"][0].as_str().unwrap();
    assert!(
        warning.contains("write weft.dev/inject=enabled"),
        "{warning}"
    );
}

// Claims: attack-115
#[tokio::test]
async fn pod_with_misspelt_annotations_is_injected_with_warnings() {
    let harness = Harness::start().await;
    let annotated = |annotations: Value| {
        let mut request = pod(json!({ "containers": [{ "name": "app" }] }));
        request["object"]["metadata"]["annotations"] = annotations;
        request
    };
    let request = annotated(json!({ "weft.dev/acess": "deny" }));
    let review = harness.review("/mutate", request.clone()).await;
    assert_eq!(review["response"]["allowed"], true, "{review}");
    let warning = "weft: metadata.annotations[weft.dev/acess]: is no annotation of Weft; \
                   you may mean weft.dev/access";
    assert_eq!(review["response"]["warnings"], json!([warning]));

    let many: serde_json::Map<String, Value> = (0..40)
        .map(|i| (format!("weft.dev/x-{i}"), json!("")))
        .collect();
    let review = harness.review("/mutate", annotated(many.into())).await;
    assert_eq!(review["response"]["allowed"], true, "{review}");
    let warnings = review["response"]["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 6, "bounded: {warnings:?}");

    // Control: the right name, and what injection itself writes, sent again as for what other
    // webhooks changed.
    let mut right = annotated(json!({ "weft.dev/access": "deny" }));
    for sent in ["once", "again"] {
        let review = harness.review("/mutate", right.clone()).await;
        assert_eq!(review["response"].get("warnings"), None, "{sent}");
        let Some(patch) = review["response"]["patch"].as_str() else {
            assert_eq!(sent, "again", "{review}");
            continue;
        };
        let patch = STANDARD.decode(patch).unwrap();
        let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
        json_patch::patch(&mut right["object"], &patch).unwrap();
    }
    let annotations = &right["object"]["metadata"]["annotations"];
    assert!(annotations["weft.dev/proxy-version"].is_string());
}

#[tokio::test]
async fn refusal_names_pod_field_and_reason_and_is_counted() {
    let harness = Harness::start().await;
    let spec = json!({ "containers": [{ "name": "a", "ports": [{ "containerPort": 15108 }] }] });
    let review = harness.review("/mutate", pod(spec)).await;
    assert_eq!(review["response"]["allowed"], false);
    let message = review["response"]["status"]["message"].as_str().unwrap();
    assert!(
        message.contains("pod shop/web-: spec.containers[0].ports[0]"),
        "{message}"
    );
    let metrics = harness.metrics();
    assert!(
        metrics.contains(r#"outcome="refused",reason="proxy-port"} 1"#),
        "{metrics}"
    );
}

#[tokio::test]
async fn host_network_pod_is_admitted_uninjected_with_warning() {
    let harness = Harness::start().await;
    let review = harness
        .review(
            "/mutate",
            pod(json!({ "hostNetwork": true, "containers": [] })),
        )
        .await;
    assert_eq!(review["response"]["allowed"], true);
    assert!(review["response"].get("patch").is_none());
    assert!(
        review["response"]["warnings"][0]
            .as_str()
            .unwrap()
            .contains("hostNetwork")
    );
}

#[tokio::test]
async fn smi_object_is_judged_on_the_other_path() {
    let harness = Harness::start().await;
    let review = harness
        .review(
            "/validate",
            json!({
                "uid": "u2",
                "kind": { "group": "split.smi-spec.io", "version": "v1alpha4", "kind": "TrafficSplit" },
                "namespace": "shop", "name": "web", "operation": "CREATE",
                "object": { "spec": {
                    "service": "web", "backends": [{ "service": "a", "weight": -1 }],
                }},
            }),
        )
        .await;
    assert_eq!(review["response"]["allowed"], false);
    let message = review["response"]["status"]["message"].as_str().unwrap();
    assert!(message.starts_with("TrafficSplit shop/web is invalid: spec.backends[0].weight"));
}

fn conversion(objects: &Value) -> String {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "request": {
        "uid": "u3", "desiredAPIVersion": "access.smi-spec.io/v1alpha4", "objects": objects,
    }})
    .to_string()
}

fn target(name: &str, sources: usize) -> Value {
    let source = json!({"kind": "ServiceAccount", "name": "prometheus", "namespace": "x"});
    json!({"apiVersion": "access.smi-spec.io/v1alpha1", "kind": "TrafficTarget",
        "metadata": {"name": name, "namespace": "shop"},
        "destination": {"kind": "ServiceAccount", "name": "web", "port": 8080},
        "sources": vec![source; sources], "specs": []})
}

#[tokio::test]
async fn object_is_converted_and_counted() {
    let harness = Harness::start().await;
    let (status, body) = harness
        .call("/convert", conversion(&json!([target("a", 1)])))
        .await;
    assert_eq!(status, StatusCode::OK);
    let review: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(review["response"]["uid"], "u3");
    assert_eq!(review["response"]["result"]["status"], "Success");
    let object = &review["response"]["convertedObjects"][0];
    assert_eq!(object["apiVersion"], "access.smi-spec.io/v1alpha4");
    assert_eq!(object["spec"]["destination"]["port"], 8080);
    let line = r#"reviews_total{path="convert",outcome="converted",reason=""} 1"#;
    assert!(harness.metrics().contains(line), "{}", harness.metrics());
}

#[tokio::test]
async fn failed_conversion_is_an_answer_that_names_the_object() {
    let harness = Harness::start().await;
    let objects = json!([target("a", 1), {"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "shop"}}]);
    let (status, body) = harness.call("/convert", conversion(&objects)).await;
    assert_eq!(status, StatusCode::OK);
    let review: Value = serde_json::from_slice(&body).unwrap();
    let message = review["response"]["result"]["message"].as_str().unwrap();
    assert!(message.starts_with("Pod shop/p: "), "{message}");
    let line = r#"path="convert",outcome="refused",reason=""} 1"#;
    assert!(harness.metrics().contains(line), "{}", harness.metrics());
}

#[tokio::test]
async fn conversion_list_may_exceed_admission_limit_within_own() {
    let harness = Harness::start().await;
    let many: Vec<Value> = (0..250).map(|i| target(&format!("t{i}"), 200)).collect();
    let body = conversion(&many.into());
    assert!(body.len() > MAX_BODY, "{}", body.len());
    let (status, body) = harness.call("/convert", body).await;
    assert_eq!(status, StatusCode::OK);
    let review: Value = serde_json::from_slice(&body).unwrap();
    let objects = review["response"]["convertedObjects"].as_array().unwrap();
    assert_eq!(objects.len(), 250);
    let (status, _) = harness
        .call("/convert", vec![b' '; MAX_CONVERSION + 1])
        .await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn unreadable_namespace_returns_503_so_failure_policy_decides() {
    let harness = Harness::start().await;
    harness.api.break_down();
    let body = json!({
        "apiVersion": "admission.k8s.io/v1",
        "request": pod(json!({ "containers": [{ "name": "app" }] })),
    });
    let (status, _) = harness.call("/mutate", body.to_string()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn wrong_account_label_is_refused_on_own_path() {
    let harness = Harness::start().await;
    let mut request = pod(json!({ "containers": [{ "name": "app" }] }));
    let label = crds::labels::account_hash("shop", "default");
    request["object"]["metadata"]["labels"] = json!({ "weft.dev/account": label });
    let review = harness.review("/account", request.clone()).await;
    assert_eq!(review["response"]["allowed"], true, "{review}");
    request["object"]["metadata"]["labels"] = json!({ "weft.dev/account": "0123456789abcdef" });
    let review = harness.review("/account", request).await;
    assert_eq!(review["response"]["allowed"], false, "{review}");
    let line = r#"reviews_total{path="account",outcome="invalid",reason=""} 1"#;
    assert!(harness.metrics().contains(line), "{}", harness.metrics());
}

#[tokio::test]
async fn server_ends_when_asked_though_a_connection_is_open() {
    let mut harness = Harness::start().await;
    let _open = harness.connect(b"h2").await;
    harness.stop.take().unwrap().send(()).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(4), &mut harness.running).await;
    ended.expect("must end within its grace").unwrap();
}
