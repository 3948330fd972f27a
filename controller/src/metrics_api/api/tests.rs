//! Which clients may use the metrics API, and how much.
//!
//! Claims: attack-80, observe-17

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use kube::client::Body;
use model::world::ObjectKey;
use runtime::limit::Reached;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use super::*;
use crate::aggregated::server::{Apis, serve};
use crate::observe::reports::{INTERVAL, Reports, interval_of};
use crate::testing::front_proxy::Ca;
use crate::testing::topology::{call, inventory, reports, seen_by_server};

#[path = "tests/floods.rs"]
mod floods;
#[path = "tests/hoarders.rs"]
mod hoarders;
#[path = "tests/lists.rs"]
mod lists;
#[path = "tests/owners.rs"]
mod owners;

const NAME: &str = "weft-metrics.weft-system.svc";

/// The API on loopback, the cluster's authority, and one that no client trusts.
struct Bench {
    addr: SocketAddr,
    ca: Ca,
    roots: RootCertStore,
    reviews: Arc<std::sync::atomic::AtomicUsize>,
    reports: Reports,
    answers: AnswerBudget,
    metrics: ApiMetrics,
    _stop: watch::Sender<bool>,
}

/// An API server that lets `reader` read everything but pods.
fn judge(reviews: Arc<std::sync::atomic::AtomicUsize>) -> kube::Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let reviews = Arc::clone(&reviews);
        async move {
            assert_eq!(
                request.uri().path(),
                "/apis/authorization.k8s.io/v1/subjectaccessreviews"
            );
            reviews.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let body = request.into_body().collect_bytes().await.unwrap();
            let mut review: Value = serde_json::from_slice(&body).unwrap();
            let spec = &review["spec"];
            let attributes = &spec["resourceAttributes"];
            assert_eq!(attributes["group"], GROUP);
            let allowed = spec["user"] == "reader"
                && spec["groups"] == json!(["readers", "all"])
                && attributes["resource"] != "pods";
            review["status"] = json!({"allowed": allowed, "reason": "by the test"});
            Ok::<_, Infallible>(Response::new(Body::from(review.to_string().into_bytes())))
        }
    });
    kube::Client::new(service, "default")
}

impl Bench {
    async fn start() -> Self {
        let followed = Followed::default();
        *followed.inventory.write() = inventory();
        Self::about(followed).await
    }

    async fn about(followed: Followed) -> Self {
        Self::telling(followed, reports()).await
    }

    async fn telling(followed: Followed, reports: Reports) -> Self {
        let ca = Ca::new();
        let (trusted, roots) = ca.trusted(NAME);
        let trusted = Arc::new(trusted);
        let (publish, front) = watch::channel(Some(trusted));
        let (models, latest) = watch::channel(None);
        let reviews = Arc::default();
        let answers = AnswerBudget::new(&Reached::default());
        let metrics = ApiMetrics::default();
        let api = Api {
            sources: Sources {
                inventory: Arc::clone(&followed.inventory),
                reports: reports.clone(),
                latest,
            },
            followed,
            gate: Gate::new(judge(Arc::clone(&reviews))),
            answers: answers.clone(),
            metrics: metrics.clone(),
        };
        let apis = Apis {
            turned_away: api.metrics.turned_away.clone(),
            handlers: vec![Arc::new(api)],
            front,
            answers: answers.clone(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(async move {
            let _held = (publish, models);
            serve(listener, apis, &Reached::default(), stopping).await;
        });
        Self {
            addr,
            ca,
            roots,
            reviews,
            reports,
            answers,
            metrics,
            _stop: stop,
        }
    }

    async fn try_ask(
        &self,
        certificate: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<(u16, Value), Box<dyn std::error::Error>> {
        let answer = self.send(certificate, method, path, headers).await?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await?.to_bytes();
        Ok((status, serde_json::from_slice(&body)?))
    }

    async fn send(
        &self,
        certificate: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Response<Incoming>, Box<dyn std::error::Error>> {
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots.clone());
        let config = match certificate {
            Some((chain, key)) => config.with_client_auth_cert(vec![chain], key)?,
            None => config.with_no_client_auth(),
        };
        let socket = TcpStream::connect(self.addr).await?;
        let name = ServerName::try_from(NAME)?;
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, socket)
            .await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", NAME);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Ok(sender
            .send_request(request.body(Empty::<Bytes>::new())?)
            .await?)
    }

    /// What a proxy of `shop` reports now, in an interval that is still open; read when it has
    /// settled.
    fn store_report(&self, uid: &str, pod: &str, edge: wire::v1::Edge) {
        let reporter = crate::observe::reports::Reporter {
            uid: uid.into(),
            pod: ObjectKey::new("shop", pod),
            account: None,
        };
        let interval = interval_of(SystemTime::now()) - 2;
        let report = wire::v1::Report {
            process: 1,
            slot: interval * INTERVAL,
            edges: vec![edge],
            ..wire::v1::Report::default()
        };
        self.reports
            .take(&reporter, report, true, SystemTime::now());
    }

    /// As the API server on behalf of `user`.
    async fn fetch(&self, user: &str, path: &str) -> (u16, Value) {
        let headers = [
            ("x-remote-user", user),
            ("x-remote-group", "readers"),
            ("x-remote-group", "all"),
        ];
        let certificate = Some(self.ca.client("front-proxy"));
        self.try_ask(certificate, Method::GET, path, &headers)
            .await
            .unwrap()
    }
}

const DEPLOYMENTS: &str = "/apis/metrics.smi-spec.io/v1alpha1/namespaces/shop/deployments";
const MIGHTY: [(&str, &str); 2] = [
    ("x-remote-user", "reader"),
    ("x-remote-group", "system:masters"),
];

#[tokio::test]
async fn identity_headers_are_rejected_without_api_server_certificate() {
    let bench = Bench::start().await;
    for certificate in [None, Some(bench.ca.client("another-client"))] {
        let answer = bench
            .try_ask(certificate, Method::GET, DEPLOYMENTS, &MIGHTY)
            .await;
        let (status, body) = answer.unwrap();
        assert_eq!(
            (status, &body["reason"]),
            (401, &json!("Unauthorized")),
            "{body}"
        );
    }
    // A certificate of another authority ends the connection, whatever its name.
    let forged = Some(Ca::new().client("front-proxy"));
    let answer = bench
        .try_ask(forged, Method::GET, DEPLOYMENTS, &MIGHTY)
        .await;
    assert!(answer.is_err(), "{answer:?}");
    // The API server itself, on no user's behalf.
    let own = Some(bench.ca.client("front-proxy"));
    let answer = bench.try_ask(own, Method::GET, DEPLOYMENTS, &[]).await;
    assert_eq!(answer.unwrap().0, 401);
    assert_eq!(bench.reviews.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test]
async fn user_reads_what_review_allows_and_is_reviewed_once() {
    let bench = Bench::start().await;
    for _ in 0..3 {
        let (status, body) = bench.fetch("reader", DEPLOYMENTS).await;
        assert_eq!(
            (status, body["items"].as_array().unwrap().len()),
            (200, 2),
            "{body}"
        );
    }
    assert_eq!(bench.reviews.load(std::sync::atomic::Ordering::Relaxed), 1);
    let (status, body) = bench.fetch("outsider", DEPLOYMENTS).await;
    assert_eq!(
        (status, &body["reason"], &body["kind"]),
        (403, &json!("Forbidden"), &json!("Status"))
    );
    let message = body["message"].as_str().unwrap();
    assert!(
        message.contains("user \"outsider\" cannot list resource \"deployments\""),
        "{message}"
    );
    let pods = DEPLOYMENTS.replace("deployments", "pods");
    assert_eq!(bench.fetch("reader", &pods).await.0, 403);
}

#[tokio::test]
async fn object_has_the_shape_that_clients_know() {
    let bench = Bench::start().await;
    bench.store_report("shop-api", "api-1", seen_by_server("bank/web", 8, 2));
    let (status, body) = bench.fetch("reader", &format!("{DEPLOYMENTS}/api")).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["kind"], "TrafficMetrics");
    assert_eq!(body["apiVersion"], "metrics.smi-spec.io/v1alpha1");
    assert_eq!(
        body["resource"],
        json!({"kind": "Deployment", "namespace": "shop", "name": "api"})
    );
    assert_eq!(
        body["edge"],
        json!({"direction": "from", "side": "server", "resource": {}})
    );
    assert_eq!(body["window"], "30s");
    let names: Vec<&Value> = body["metrics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| &m["name"])
        .collect();
    assert_eq!(
        names,
        [
            "p99_response_latency",
            "p90_response_latency",
            "p50_response_latency",
            "success_count",
            "failure_count"
        ]
    );
    assert_eq!(
        body["metrics"][3],
        json!({"name": "success_count", "value": "8"})
    );
    assert_eq!(
        body["metrics"][4],
        json!({"name": "failure_count", "value": "2"})
    );
    // Half way through the bucket from 8.8 ms to 14 ms.
    assert_eq!(
        body["metrics"][2],
        json!({"name": "p50_response_latency", "unit": "ms", "value": "11400m"})
    );
}

#[tokio::test]
async fn idle_object_reports_zeros_and_missing_one_404() {
    let bench = Bench::start().await;
    let (status, body) = bench.fetch("reader", &format!("{DEPLOYMENTS}/web")).await;
    assert_eq!(status, 200);
    for metric in body["metrics"].as_array().unwrap() {
        assert_eq!(metric["value"], "0", "{metric}");
    }
    let (status, body) = bench
        .fetch("reader", &format!("{DEPLOYMENTS}/web/edges"))
        .await;
    assert_eq!((status, &body["items"]), (200, &json!([])));
    let (status, body) = bench
        .fetch("reader", &format!("{DEPLOYMENTS}/absent"))
        .await;
    assert_eq!((status, &body["reason"]), (404, &json!("NotFound")));
    assert_eq!(body["details"]["name"], "absent");
}

/// One edge in each of the last three intervals that may be queried, in a store for `most`. The window
/// of the answer, and the header that warns.
async fn window_and_warning(most: usize) -> (String, Option<String>) {
    let followed = Followed::default();
    *followed.inventory.write() = inventory();
    let reports = Reports::with_capacity(crate::metrics::ReportMetrics::default(), most);
    let reporter = crate::observe::reports::Reporter {
        uid: "shop-api".into(),
        pod: ObjectKey::new("shop", "api-1"),
        account: None,
    };
    for ago in [4, 3, 2] {
        let report = wire::v1::Report {
            process: 1,
            slot: (interval_of(SystemTime::now()) - ago) * INTERVAL,
            edges: vec![seen_by_server("shop/web", 1, 0)],
            ..wire::v1::Report::default()
        };
        reports.take(&reporter, report, true, SystemTime::now());
    }
    let bench = Bench::telling(followed, reports).await;
    let certificate = Some(bench.ca.client("front-proxy"));
    let path = format!("{DEPLOYMENTS}/api");
    let headers = [
        ("x-remote-user", "reader"),
        ("x-remote-group", "readers"),
        ("x-remote-group", "all"),
    ];
    let answer = bench
        .send(certificate, Method::GET, &path, &headers)
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let warning = answer.headers().get(header::WARNING);
    let warning = warning.map(|warning| warning.to_str().unwrap().to_owned());
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap();
    (body["window"].as_str().unwrap().to_owned(), warning)
}

// Claims: C5, attack-110
#[tokio::test]
async fn window_shortened_by_memory_limit_warns_with_actual_length() {
    assert_eq!(window_and_warning(3).await, ("30s".to_owned(), None));
    let (window, warning) = window_and_warning(2).await;
    let warning = warning.unwrap();
    assert!(["10s", "15s"].contains(&&*window), "{window}");
    let expected_warning = format!("299 - \"only the last {window} of the window are shown: ");
    assert!(warning.starts_with(&expected_warning), "{warning}");
    assert!(warning.contains("memory limit"), "the way out: {warning}");
}

#[tokio::test]
async fn misspelt_parameter_suggests_nearest_and_client_parameters_are_accepted() {
    let bench = Bench::start().await;
    let asked = async |query: &str| {
        bench
            .fetch("reader", &format!("{DEPLOYMENTS}{query}"))
            .await
    };
    let (status, body) = asked("?windw=5m").await;
    assert_eq!(status, 400, "{body}");
    let message = body["message"].as_str().unwrap();
    assert!(message.starts_with("parameter windw: "), "{message}");
    assert!(message.ends_with("you may mean window"), "{message}");
    let (status, body) = asked("?resourceVersion=0&timeout=32s&limit=500&watch=false").await;
    assert_eq!(status, 200, "{body}");
}

#[tokio::test]
async fn invalid_metrics_queries_get_matching_status_code() {
    let bench = Bench::start().await;
    for (query, code) in [
        ("?t=soon", 400),
        ("?t=6m", 400),
        ("?t=1m&t=5m", 400),
        ("?colour=blue&colour=red", 400),
        ("?windw=5m", 400),
        ("?watch=true", 405),
        ("?labelSelector=a(", 400),
    ] {
        let (status, body) = bench
            .fetch("reader", &format!("{DEPLOYMENTS}{query}"))
            .await;
        assert_eq!(
            (status, &body["kind"], &body["code"]),
            (code, &json!("Status"), &json!(code)),
            "{query}"
        );
    }
    let own = Some(bench.ca.client("front-proxy"));
    let answer = bench
        .try_ask(own, Method::DELETE, DEPLOYMENTS, &MIGHTY)
        .await
        .unwrap();
    assert_eq!(answer.0, 405);
    assert_eq!(
        bench
            .fetch(
                "reader",
                "/apis/metrics.smi-spec.io/v1alpha1/namespaces/shop/secrets"
            )
            .await
            .0,
        404
    );
}
