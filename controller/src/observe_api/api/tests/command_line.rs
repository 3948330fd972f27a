//! `weft` against the served API: over TLS, through an API server that names the user of each
//! request.
//!
//! Claims: observe-105, observe-5

use std::ffi::OsString;
use std::io::Write as _;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use model::world::ObjectKey;
use prometheus_client::metrics::counter::Counter;
use runtime::limit::Reached;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use weft_cli::console::Console;
use weft_cli::failure::status;
use wire::v1;

use super::*;
use crate::aggregated::server::{Apis, serve};
use crate::observe::reports::Reporter;
use crate::testing::front_proxy::Ca;
use crate::testing::topology::seen_by_server;

mod dry_runs;
mod taps;

const NAME: &str = "weft-observe.weft-system.svc";

/// The API on loopback, and an API server in front of it that believes `--as`.
struct Town {
    bench: Bench,
    kubeconfig: tempfile::NamedTempFile,
    _stop: watch::Sender<bool>,
}

/// What an API server does with a call for one of our groups.
#[derive(Clone)]
struct ApiServer {
    port: std::net::SocketAddr,
    tls: TlsConnector,
}

/// Body of the API server's responses.
type ResponseBody = http_body_util::combinators::BoxBody<Bytes, hyper::Error>;

/// What the API server holds itself: Service `api` of `shop` and where it leads, and names.
fn own_objects(path: &str) -> Option<Value> {
    let list = |kind: &str, version: &str, item: Value| {
        Some(json!({"kind": kind, "apiVersion": version, "metadata": {}, "items": [item]}))
    };
    let named = |name: &str| json!({"metadata": {"namespace": "shop", "name": name}});
    let mut service = named("api");
    service["spec"] = json!({"ports": [{"name": "http", "port": 80}]});
    match path {
        "/api/v1/namespaces/shop/services" => list("ServiceList", "v1", service),
        "/api/v1/namespaces/shop/services/api" => Some(service),
        "/api/v1/namespaces/shop/pods" => list("PodList", "v1", named("client")),
        "/api/v1/namespaces/shop/pods/api-1" => Some(named("api-1")),
        "/api/v1/namespaces/shop/serviceaccounts/web" => Some(named("web")),
        "/apis/apps/v1/namespaces/shop/deployments" => {
            list("DeploymentList", "apps/v1", named("api"))
        }
        "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices" => {
            let labels = json!({"kubernetes.io/service-name": "api"});
            let metadata = json!({"namespace": "shop", "name": "api-x", "labels": labels});
            let ports = json!([{"name": "http", "port": 8080}]);
            let slice = json!({"metadata": metadata, "addressType": "IPv4", "endpoints": [],
                "ports": ports});
            list("EndpointSliceList", "discovery.k8s.io/v1", slice)
        }
        _ => None,
    }
}

impl ApiServer {
    fn new(port: std::net::SocketAddr, ca: &Ca, roots: RootCertStore) -> Self {
        let (chain, key) = ca.client("front-proxy");
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![chain], key)
            .unwrap();
        let tls = TlsConnector::from(Arc::new(config));
        Self { port, tls }
    }

    async fn pass_on(self, mut request: Request<Incoming>) -> Response<ResponseBody> {
        if let Some(list) = own_objects(request.uri().path()) {
            let list = Full::new(Bytes::from(list.to_string()));
            return Response::new(list.map_err(|never| match never {}).boxed());
        }
        let headers = request.headers_mut();
        let user = headers.remove("impersonate-user").unwrap();
        headers.insert("x-remote-user", user);
        headers.insert(header::HOST, NAME.parse().unwrap());
        let socket = TcpStream::connect(self.port).await.unwrap();
        let name = ServerName::try_from(NAME).unwrap();
        let stream = self.tls.connect(name, socket).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let answer = sender.send_request(request).await.unwrap();
        answer.map(BodyExt::boxed)
    }

    /// Serves and returns where.
    async fn start(self) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let server = self.clone();
                let service = hyper::service::service_fn(move |request| {
                    let server = server.clone();
                    async move { Ok::<_, Infallible>(server.pass_on(request).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), service);
                tokio::spawn(connection);
            }
        });
        addr
    }
}

impl Town {
    async fn start() -> Self {
        let bench = Bench::new();
        calls(&bench).await;
        Self::before(bench).await
    }

    /// The requests to a bench, behind an API server.
    async fn before(bench: Bench) -> Self {
        let ca = Ca::new();
        let (trusted, roots) = ca.trusted(NAME);
        let (publish, front) = watch::channel(Some(Arc::new(trusted)));
        let apis = Apis {
            handlers: vec![Arc::clone(&bench.api) as Arc<dyn Handler>],
            front,
            answers: bench.api.context.answers.clone(),
            turned_away: Counter::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = ApiServer::new(listener.local_addr().unwrap(), &ca, roots);
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(async move {
            let _held = publish;
            serve(listener, apis, &Reached::default(), stopping).await;
        });
        let at = server.start().await;
        let mut kubeconfig = tempfile::NamedTempFile::new().unwrap();
        let named = |kind: &str, value: Value| json!([{"name": "test", kind: value}]);
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": named("cluster", json!({"server": format!("http://{at}")})),
            "users": named("user", json!({})),
            "contexts": named("context", json!({"cluster": "test", "user": "test"})),
        });
        write!(kubeconfig, "{config}").unwrap();
        Self {
            bench,
            kubeconfig,
            _stop: stop,
        }
    }

    fn arguments(&self, user: &str, line: &str) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["weft".into()];
        arguments.extend(line.split(' ').map(OsString::from));
        arguments.extend(["--as", user, "--kubeconfig"].map(OsString::from));
        arguments.push(self.kubeconfig.path().into());
        arguments
    }

    /// Exit status, output and messages of a command line.
    async fn weft(&self, user: &str, line: &str) -> (u8, String, String) {
        let arguments = self.arguments(user, line);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let ended = {
            let mut console = Console {
                input: &mut std::io::empty(),
                out: &mut out,
                err: &mut err,
                color: false,
            };
            let ended = weft_cli::run(arguments, &mut console).await;
            if let Err(failure) = &ended {
                console.word(&failure.to_string()).unwrap();
            }
            ended
        };
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status(&ended), text(out), text(err))
    }
}

/// `web` called `api` four times, once in vain, and both proxies reported it.
async fn calls(bench: &Bench) {
    let now = SystemTime::now();
    let store = |pod: &str, uid: &str, edge: v1::Edge| {
        let reporter = Reporter {
            uid: uid.into(),
            pod: ObjectKey::new("shop", pod),
            account: None,
        };
        let report = v1::Report {
            process: 1,
            slot: (interval_of(now) - 1) * INTERVAL,
            edges: vec![edge],
            ..v1::Report::default()
        };
        bench.reports.take(&reporter, report, true, now);
    };
    let refused = v1::ReasonCalls {
        reason: "not-allowed".to_owned(),
        calls: 1,
    };
    let called = v1::Edge {
        security: v1::Security::Mtls.into(),
        protocol: v1::Protocol::Http1.into(),
        attempts: Some(5),
        reasons: vec![refused],
        ..seen_by_client("shop/api", 3, 1)
    };
    store("web-1", "shop-web", called);
    let served = v1::Edge {
        rules: vec!["shop/read".to_owned()],
        ..seen_by_server("shop/web", 3, 1)
    };
    store("api-1", "shop-api", served);
    bench.api.context.graph.look(now, true).await;
}

/// The cells of the rows below the head.
fn rows(table: &str) -> Vec<Vec<&str>> {
    let rows = table.lines().skip(1);
    rows.map(|row| row.split_whitespace().collect()).collect()
}

#[tokio::test]
async fn cli_shows_graph_edges_as_api_returns_them() {
    let town = Town::start().await;
    let (code, out, err) = town.weft("viewer", "edges -n shop -o wide").await;
    assert_eq!(code, 0, "{err}");
    let edges = rows(&out);
    let [edge] = edges.as_slice() else {
        panic!("{out}")
    };
    assert_eq!(
        edge[..9],
        [
            "deploy/web",
            "deploy/api",
            "80",
            "http1",
            "mtls",
            "75.00%",
            "0.1",
            "14ms",
            "0"
        ],
        "{out}"
    );
    assert_eq!(
        edge[10..],
        [
            "shop/api",
            "shop/api",
            "-",
            "not-allowed=1",
            "-",
            "shop/read"
        ],
        "{out}"
    );
    // A window that ends now is not settled yet, which is not reported.
    assert!(!err.contains("not complete"), "{err}");
    for (line, name, meshed) in [
        ("stat deploy -n shop -o wide", "api", "1/1"),
        // With the pod that no Deployment has.
        ("stat svc/api -n shop -o wide", "api", "2/2"),
        ("stat deploy --to svc/api:80 -n shop -o wide", "web", "-"),
    ] {
        let (code, out, err) = town.weft("viewer", line).await;
        assert_eq!(code, 0, "{err}");
        let found = rows(&out);
        assert_eq!(found.len(), 1, "{line}: {out}");
        let row = &found[0];
        assert_eq!(row[..4], [name, meshed, "75.00%", "0.1"], "{line}: {out}");
        assert_eq!(row[7..], ["0", "1", "0", "4", "1", "5"], "{line}: {out}");
    }
    // As JSON it is the API's own response.
    let (_, out, _) = town.weft("viewer", "edges -n shop -o json").await;
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(answer["edges"][0]["server"]["requests"], 4);
    let (_, body) = town
        .bench
        .get("viewer", "namespaces/shop/graphs/live")
        .await;
    assert_eq!(answer["edges"], body["edges"]);
    assert_eq!(answer["nodes"], body["nodes"]);
}

#[tokio::test]
async fn cli_lists_proxies_and_marks_disconnected_ones() {
    let town = Town::start().await;
    let (code, out, _) = town.weft("viewer", "proxies -n shop").await;
    assert_eq!(code, 1, "none is connected");
    let names: Vec<&str> = rows(&out).iter().map(|row| row[0]).collect();
    assert_eq!(names, ["api-1", "api-2", "client"]);
    assert_eq!(
        rows(&out)[0][..4],
        ["api-1", "Deployment/api", "0.1.0", "no"]
    );
    let (code, _, err) = town.weft("viewer", "proxies -A").await;
    assert_eq!(code, 3);
    assert!(
        err.contains("cannot list resource \"proxies\"") && err.contains("ClusterRole view"),
        "{err}"
    );
    // No controller reports what a proxy holds, so the proxy itself is queried.
    let (code, _, err) = town.weft("viewer", "proxy-config api-1 -n shop").await;
    assert_eq!(code, 3);
    assert!(err.contains("port 15190 of Pod shop/api-1"), "{err}");
    // One that streams is queried by its controller, without the right to forward ports.
    let _asked = super::proxies::answering(&town.bench, "uid-client");
    let context = &town.bench.api.context;
    context.observed.note(1, super::proxies::client(&[]));
    let (code, out, err) = town.weft("viewer", "proxy-config client -n shop").await;
    assert_eq!(code, 0, "{err}");
    assert!(
        out.contains("audit") && out.contains("workload   00ff"),
        "{out}"
    );
}

#[tokio::test]
async fn cli_explains_call_and_how_to_allow_it() {
    let town = Town::start().await;
    let line = "explain pod/client svc/api:80 DELETE /items/7 -n shop";
    let (code, out, err) = town.weft("viewer", line).await;
    assert_eq!(code, 1, "{err}");
    let first = "REFUSED 403 not-allowed, by the proxies of api and api-2\n";
    assert!(out.starts_with(first), "{out}");
    assert!(out.contains("shop/read") && out.contains("-o fix"), "{out}");
    assert!(out.contains("0 of 2 proxies"), "{out}");
    let (code, out, _) = town.weft("viewer", &format!("{line} -o fix")).await;
    assert_eq!(code, 0);
    assert!(out.contains("kind: TrafficTarget"), "{out}");
    assert!(out.contains("^/items/7$"), "{out}");
    let allowed = "explain sa/web svc/api GET /items -n shop";
    let (code, out, _) = town.weft("viewer", allowed).await;
    assert_eq!(code, 0, "{out}");
    assert!(out.starts_with("ALLOWED\n"), "{out}");
    assert!(
        !out.contains("calls on this edge"),
        "edges tell owners of pods, not accounts: {out}"
    );
    // With rights in the caller's namespace only, the user is shown what calling would reveal.
    let foreign = "explain sa/web svc/api:80 GET /items -n shop --from-namespace bank";
    let (code, out, err) = town.weft("neighbour", foreign).await;
    assert_eq!(code, 1, "{err}");
    assert_eq!(
        out,
        "REFUSED 403 not-allowed, by namespace shop; its owners may see why\n"
    );
    let (code, out, err) = town.weft("neighbour", &format!("{foreign} -o fix")).await;
    assert_eq!((code, &*out), (1, ""), "{err}");
    assert!(
        err.contains("by namespace shop; its owners may see why"),
        "{err}"
    );
    let (code, _, err) = town.weft("stranger", foreign).await;
    assert_eq!(code, 3);
    assert!(err.contains("ClusterRole view"), "{err}");
    // What is not there is bad input, and an error in a query arrives with the API's message.
    for (rest, words) in [
        ("pod/clint svc/api:80 GET /", "; you may mean po/client"),
        ("deploy/apii svc/api:80 GET /", "; you may mean deploy/api"),
        ("sa/web svc/api:81", "has no TCP port 81; it has 80 (http)"),
        ("sa/web svc/api:htpp", "; you may mean http"),
        ("sa/web svc/api GET / -H a(b:c", "spec.headers:"),
    ] {
        let line = format!("explain {rest} -n shop");
        let (code, out, err) = town.weft("viewer", &line).await;
        assert_eq!((code, out.as_str()), (2, ""), "{line}: {err}");
        assert!(err.contains(words), "{line}: {err}");
    }
}

// Claims: observability-15
#[tokio::test]
async fn call_proven_by_mtls_within_hour_is_suggested() {
    let bench = Bench::new();
    let now = SystemTime::now();
    let then = now - Duration::from_secs(600);
    // The first half of a minute, with nothing in the second.
    let interval = interval_of(then) / 12 * 12;
    let reporter = Reporter {
        uid: "uid-client".into(),
        pod: ObjectKey::new("shop", "client"),
        account: None,
    };
    let edge = |security: v1::Security, port| v1::Edge {
        security: security.into(),
        protocol: v1::Protocol::Http1.into(),
        port,
        ..seen_by_client("shop/api", 3, 0)
    };
    let report = v1::Report {
        process: 1,
        slot: interval * INTERVAL,
        edges: vec![
            edge(v1::Security::Mtls, 80),
            edge(v1::Security::Plaintext, 81),
        ],
        ..v1::Report::default()
    };
    bench.reports.take(&reporter, report, true, then);
    // The caller's report alone is no proof.
    let called = Reporter {
        uid: "shop-api".into(),
        pod: ObjectKey::new("shop", "api-1"),
        account: None,
    };
    let served = v1::Edge {
        caller: "uid-client".to_owned(),
        security: v1::Security::Mtls.into(),
        protocol: v1::Protocol::Http1.into(),
        ..seen_by_server("shop/web", 3, 0)
    };
    let report = v1::Report {
        process: 1,
        slot: interval * INTERVAL,
        edges: vec![served],
        ..v1::Report::default()
    };
    bench.reports.take(&called, report, true, then);
    bench.api.context.graph.look(then, true).await;
    bench.api.context.graph.tidy(now);
    let town = Town::before(bench).await;
    let (code, out, err) = town.weft("viewer", "suggest -n shop").await;
    assert_eq!(code, 0, "{err}");
    let targets = out.matches("kind: TrafficTarget").count();
    assert_eq!(targets, 1, "{out}{err}");
    assert!(out.contains("- 8080") && out.contains("name: web"), "{out}");
    // What came in plaintext is no proof, and the reason names that.
    let left: Vec<&str> = out
        .lines()
        .filter(|line| line.contains("left out"))
        .collect();
    assert!(
        left.len() == 1 && left[0].contains("port 81") && left[0].contains("no mutual TLS"),
        "{left:?}"
    );
    // It ends with its dry run, which takes the right to write these objects.
    assert!(
        err.contains("not tried") && err.contains("ClusterRole edit"),
        "{err}"
    );
    let (code, same, err) = town.weft("author", "suggest -n shop").await;
    assert_eq!(
        (code, same),
        (0, out),
        "words are no part of what is applied: {err}"
    );
    assert!(
        err.contains("dry run") && err.contains("edges stay as they are"),
        "{err}"
    );
}
