//! A scripted mesh behind an API server, and the real `weft dashboard` before it. All its responses
//! go through the types of the read API.

use std::convert::Infallible;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use crds::observe::{Explanation, ExplanationStatus, Graph, Proxy, Scope, TapLine};
use fake_api::FakeApi;
use futures::stream;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::client::Body;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, mpsc};

const OBSERVE: &str = "/apis/observe.weft.dev/v1alpha1";
/// Lines of a tap that wait for their reader.
const LINES: usize = 1024;

type FakeResponse = Response<UnsyncBoxBody<bytes::Bytes, Infallible>>;

#[derive(Default)]
struct Script {
    /// No controller responds.
    lost: bool,
    /// The controller has no capacity for another response.
    crowded: bool,
    /// The explanation of any call.
    explanation: ExplanationStatus,
    /// The queries for explanations.
    explained: Vec<Explanation>,
    /// Namespace that may not be read.
    forbidden: Option<String>,
    /// Kind whose list fails.
    broken: Option<String>,
    /// No user has the right to tap.
    no_tap: bool,
    /// No tap finds a place now; the seconds after which to retry, 0 if they are not known.
    full: Option<u32>,
    /// The queries of taps, and the sender of the last one's lines.
    taps: Vec<String>,
    tap: Option<mpsc::Sender<bytes::Bytes>>,
}

#[derive(Clone)]
pub(super) struct Mesh {
    api: FakeApi,
    script: Arc<Mutex<Script>>,
    folder: Arc<TempDir>,
}

/// The program, and the address that it printed.
pub(super) struct Weft {
    pub(super) url: String,
    process: Child,
}

impl Weft {
    pub(super) async fn stop(mut self) {
        self.process.kill().await.unwrap();
    }

    /// Scheme, host and port.
    pub(super) fn origin(&self) -> &str {
        self.url.split_once("/#").unwrap().0
    }
}

impl Mesh {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": format!("http://127.0.0.1:{port}")}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "shop"}}],
            "users": [{"name": "test", "user": {"token": "of-the-user"}}],
        });
        std::fs::write(folder.path().join("kubeconfig"), config.to_string()).unwrap();
        let mesh = Self {
            api: FakeApi::default(),
            script: Arc::default(),
            folder,
        };
        tokio::spawn(serve(listener, mesh.clone()));
        let shop = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
        mesh.api.put("/api/v1/namespaces/shop", shop);
        mesh.scope(true, &["shop", "weft-system"]);
        mesh
    }

    /// Runs `weft dashboard` with a kubeconfig for it, and with these arguments.
    pub(super) async fn dashboard(&self, arguments: &[&str]) -> Weft {
        let mut process = Command::new(env!("CARGO_BIN_EXE_weft"))
            .args(["dashboard", "--request-timeout", "3s"])
            .args(arguments)
            .env("KUBECONFIG", self.folder.path().join("kubeconfig"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let url = lines.next_line().await.unwrap().unwrap();
        Weft { url, process }
    }

    pub(super) fn graph(&self, graph: &Value) {
        self.graph_of("shop", graph);
        self.api
            .put(&format!("{OBSERVE}/graphs/live"), typed::<Graph>(graph));
    }

    /// The graph of one namespace alone.
    pub(super) fn graph_of(&self, namespace: &str, graph: &Value) {
        let path = format!("{OBSERVE}/namespaces/{namespace}/graphs/live");
        self.api.put(&path, typed::<Graph>(graph));
    }

    pub(super) fn scope(&self, cluster: bool, namespaces: &[&str]) {
        let scope = typed::<Scope>(&json!({"cluster": cluster, "namespaces": namespaces}));
        self.api.put(&format!("{OBSERVE}/scopes/live"), scope);
    }

    pub(super) fn proxy(&self, proxy: &Value) {
        let proxy = typed::<Proxy>(proxy);
        let name = proxy["metadata"]["name"].as_str().unwrap();
        self.api.put(
            &format!("{OBSERVE}/namespaces/shop/proxies/{name}"),
            proxy.clone(),
        );
    }

    pub(super) fn split(&self, name: &str, backends: &[(&str, u32)]) {
        let backends: Vec<Value> = backends
            .iter()
            .map(|(service, weight)| json!({"service": service, "weight": weight}))
            .collect();
        let split = json!({"metadata": {"name": name, "namespace": "shop"}, "spec": {"service": "catalog", "backends": backends}});
        self.api.put(
            &format!("/apis/split.smi-spec.io/v1alpha4/namespaces/shop/trafficsplits/{name}"),
            split,
        );
    }

    /// A CanaryRelease or a FaultExperiment, by the name of its kind in paths.
    pub(super) fn automation(&self, plural: &str, name: &str, object: &Value) {
        let mut object = object.clone();
        object["metadata"] = json!({"name": name, "namespace": "shop"});
        let path = format!("/apis/weft.dev/v1alpha1/namespaces/shop/{plural}/{name}");
        self.api.put(&path, object);
    }

    pub(super) fn target(&self, name: &str, spec: &Value) {
        let target = json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec});
        self.api.put(
            &format!("/apis/access.smi-spec.io/v1alpha4/namespaces/shop/traffictargets/{name}"),
            target,
        );
    }

    pub(super) async fn set_explanation(&self, explanation: &Value) {
        self.script.lock().await.explanation = serde_json::from_value(explanation.clone()).unwrap();
    }

    pub(super) async fn explained(&self) -> Vec<Explanation> {
        self.script.lock().await.explained.clone()
    }

    pub(super) async fn lose(&self, lost: bool) {
        self.script.lock().await.lost = lost;
    }

    pub(super) async fn crowd(&self, crowded: bool) {
        self.script.lock().await.crowded = crowded;
    }

    pub(super) async fn forbid(&self, namespace: &str) {
        self.script.lock().await.forbidden = Some(namespace.to_owned());
    }

    /// All may be read again.
    pub(super) async fn allow(&self) {
        self.script.lock().await.forbidden = None;
    }

    pub(super) async fn break_list(&self, kind: &str) {
        self.script.lock().await.broken = Some(kind.to_owned());
    }

    pub(super) async fn forbid_taps(&self, forbidden: bool) {
        self.script.lock().await.no_tap = forbidden;
    }

    /// Refuses taps for want of a place from now on, with these seconds after which to retry, or
    /// takes them.
    pub(super) async fn fill_taps(&self, again_in: Option<u32>) {
        self.script.lock().await.full = again_in;
    }

    /// The queries of all taps.
    pub(super) async fn taps(&self) -> Vec<String> {
        self.script.lock().await.taps.clone()
    }

    /// A line of the last tap.
    pub(super) async fn show(&self, line: &Value) {
        let script = self.script.lock().await;
        let line = format!("{}\n", typed::<TapLine>(line));
        script.tap.as_ref().unwrap().try_send(line.into()).unwrap();
    }

    /// The stream of the last tap ends.
    pub(super) async fn end_tap(&self) {
        self.script.lock().await.tap = None;
    }

    /// Whether the last tap has a reader.
    pub(super) async fn is_tapped(&self) -> bool {
        let script = self.script.lock().await;
        script.tap.as_ref().is_some_and(|tap| !tap.is_closed())
    }

    /// Writes through the API server other than queries: there must be none.
    pub(super) fn writes(&self) -> Vec<(Method, String)> {
        self.api.writes()
    }

    async fn answer(&self, request: Request<Incoming>) -> FakeResponse {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let path = parts.uri.path().to_owned();
        let known = parts
            .headers
            .get("authorization")
            .is_some_and(|header| header == "Bearer of-the-user");
        assert!(known, "{path} came without the user's credentials");
        let mut script = self.script.lock().await;
        if script.lost && path.starts_with(OBSERVE) {
            return status(
                503,
                "no endpoints available for service \"weft-controller\"",
            );
        }
        if script.crowded && path.starts_with(OBSERVE) {
            return status(429, "this answer has no room beside the others; ask again");
        }
        if let Some(namespace) = &script.forbidden
            && path.contains(&format!("/namespaces/{namespace}/"))
        {
            return status(
                403,
                &format!(
                    "graphs.observe.weft.dev \"live\" is forbidden: User \"eve\" cannot get resource \"graphs\" in API group \"observe.weft.dev\" in the namespace \"{namespace}\""
                ),
            );
        }
        if script
            .broken
            .as_ref()
            .is_some_and(|kind| path.ends_with(kind))
        {
            return status(500, "the list is broken");
        }
        if parts.method == Method::POST && path.ends_with("/explanations") {
            let mut explained: Explanation = serde_json::from_slice(&body).unwrap();
            script.explained.push(explained.clone());
            explained.status = Some(script.explanation.clone());
            return Response::new(whole(serde_json::to_vec(&explained).unwrap().into()));
        }
        if path.ends_with("/taps/live") {
            return script.tap(parts.uri.query().unwrap_or_default());
        }
        drop(script);
        let query = parts.uri.query().unwrap_or_default();
        let hides_quiet = path.ends_with("/graphs/live") && !query.contains("quiet=1");
        let request = Request::from_parts(parts, Body::from(body.to_vec()));
        let (parts, body) = self.api.client().send(request).await.unwrap().into_parts();
        let body_bytes = body.collect_bytes().await.unwrap();
        let body_bytes = if hides_quiet {
            without_quiet(&body_bytes)
        } else {
            body_bytes
        };
        Response::from_parts(parts, whole(body_bytes))
    }
}

impl Script {
    fn tap(&mut self, query: &str) -> FakeResponse {
        if self.no_tap {
            return status(
                403,
                "taps.observe.weft.dev is forbidden: user \"eve\" cannot create resource \"taps\" in API group \"observe.weft.dev\" in the namespace \"shop\"",
            );
        }
        if let Some(seconds) = self.full {
            let details = json!({"retryAfterSeconds": seconds});
            return status_with(429, "no place for one more", &details);
        }
        let (lines, received) = mpsc::channel(LINES);
        self.taps.push(query.to_owned());
        self.tap = Some(lines);
        let frames = stream::unfold(received, |mut received| async move {
            let line: bytes::Bytes = received.recv().await?;
            Some((Ok::<_, Infallible>(Frame::data(line)), received))
        });
        Response::new(StreamBody::new(frames).boxed_unsync())
    }
}

fn whole(bytes: bytes::Bytes) -> UnsyncBoxBody<bytes::Bytes, Infallible> {
    Full::new(bytes).boxed_unsync()
}

/// The graph as it is sent if quiet edges are not requested.
fn without_quiet(body_bytes: &[u8]) -> bytes::Bytes {
    let mut graph: Value = serde_json::from_slice(body_bytes).unwrap();
    if let Some(edges) = graph["edges"].as_array_mut() {
        edges.retain(|edge| edge["quiet"] != true);
    }
    graph.to_string().into()
}

/// What the type keeps of it; a field that the read API has not would be missed.
fn typed<T: DeserializeOwned + Serialize>(value: &Value) -> Value {
    serde_json::to_value(serde_json::from_value::<T>(value.clone()).unwrap()).unwrap()
}

fn status(code: u16, message: &str) -> FakeResponse {
    status_with(code, message, &json!({}))
}

fn status_with(code: u16, message: &str, details: &Value) -> FakeResponse {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "details": details, "code": code});
    let mut response = Response::new(whole(status.to_string().into()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

async fn serve(listener: TcpListener, mesh: Mesh) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let mesh = mesh.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let mesh = mesh.clone();
                async move { Ok::<_, Infallible>(mesh.answer(request).await) }
            });
            let serving = hyper::server::conn::http1::Builder::new();
            let _ = serving
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// The folder of the page's sources.
pub(super) fn sources() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../dashboard"))
}
