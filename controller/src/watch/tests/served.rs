//! Kinds of the Gateway API are read in the newest version that is served, if any is.

use http::Uri;
use parking_lot::Mutex;

use super::*;
use crate::{
    testing::warnings::Warnings,
    watch::reading::{ABSENT_AT_START, ABSENT_LATER},
};

const ROUTES: &str = "/tcproutes";

/// An API server with empty lists that serves some versions of the Gateway API's TCPRoute, each
/// with one object of the version's name, and no other kind of its group.
#[derive(Clone, Default)]
struct Server {
    versions: Arc<Mutex<Vec<&'static str>>>,
    /// Calls about the group.
    calls: Arc<AtomicUsize>,
}

impl Server {
    fn serve(&self, versions: &[&'static str]) {
        *self.versions.lock() = versions.to_vec();
    }

    fn start(&self, gateway_api: GatewayApi) -> Worlds {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let (server, uri) = (server.clone(), request.uri().clone());
            async move { Ok::<_, std::convert::Infallible>(server.answer(&uri).await) }
        });
        let client = Client::new(service, "default");
        let (metrics, ready) = (WorldMetrics::default(), Ready::new());
        start(client, Arc::default(), gateway_api, metrics, ready).0
    }

    async fn answer(&self, uri: &Uri) -> Response<Body> {
        let items = match uri.path().strip_prefix("/apis/gateway.networking.k8s.io/") {
            None => Vec::new(),
            Some(rest) => {
                self.calls.fetch_add(1, Ordering::Relaxed);
                let served = self.versions.lock().clone();
                let version = rest.strip_suffix(ROUTES);
                let Some(version) = version.filter(|version| served.contains(version)) else {
                    let mut response = Response::new(Body::from(b"404 page not found".to_vec()));
                    *response.status_mut() = StatusCode::NOT_FOUND;
                    return response;
                };
                vec![route(version)]
            }
        };
        if uri.query().unwrap_or_default().contains("watch=") {
            // The watch is opened anew, which is how it is noticed that the version is gone.
            tokio::time::sleep(Duration::from_secs(1)).await;
            return Response::new(Body::empty());
        }
        let meta = json!({"resourceVersion": "1"});
        let list = json!({"kind": "List", "metadata": meta, "items": items});
        Response::new(Body::from(list.to_string().into_bytes()))
    }
}

fn route(version: &str) -> Value {
    json!({
        "apiVersion": format!("gateway.networking.k8s.io/{version}"),
        "kind": "TCPRoute",
        "metadata": {"name": version, "namespace": "shop"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "api"}],
            "rules": [{"backendRefs": [{"name": "api", "port": 80}]}],
        },
    })
}

/// Waits until these are the routes that there are.
async fn routes_become(worlds: &mut Worlds, names: &[&str], within: Duration) {
    let known = |world: &Option<Arc<World>>| {
        world.as_ref().is_some_and(|world| {
            let keys = world.gateway_tcp_routes.keys();
            keys.map(|key| &*key.name).eq(names.iter().copied())
        })
    };
    let become_so = timeout(within, worlds.wait_for(known)).await;
    assert!(
        become_so.is_ok(),
        "{names:?} are not there after {within:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn group_that_is_not_served_is_empty_immediately() {
    let (warnings, _counting) = Warnings::counted();
    let begin = Instant::now();
    let mut worlds = Server::default().start(GatewayApi::Gateways);
    let world = first_world(&mut worlds).await;
    assert!(begin.elapsed() < ABSENT_AT_START, "{:?}", begin.elapsed());
    assert!(world.gateway_tcp_routes.is_empty() && world.http_routes.is_empty());
    assert_eq!(warnings.count(), 0, "most clusters have no such kinds");
}

#[tokio::test(start_paused = true)]
async fn kind_served_later_is_read_in_newest_version() {
    let server = Server::default();
    let mut worlds = server.start(GatewayApi::Gateways);
    first_world(&mut worlds).await;
    let soon = 3 * versions::AGAIN;
    server.serve(&["v1alpha2"]);
    routes_become(&mut worlds, &["v1alpha2"], soon).await;
    server.serve(&["v1", "v1alpha2"]);
    routes_become(&mut worlds, &["v1"], 3 * versions::NEWER).await;
    // A definition without the version that is followed.
    server.serve(&["v1alpha2"]);
    routes_become(&mut worlds, &["v1alpha2"], soon).await;
}

#[tokio::test(start_paused = true)]
async fn routes_outlive_a_definition_that_is_replaced() {
    let server = Server::default();
    server.serve(&["v1"]);
    let mut worlds = server.start(GatewayApi::Gateways);
    routes_become(&mut worlds, &["v1"], Duration::from_secs(20)).await;
    server.serve(&[]);
    tokio::time::sleep(ABSENT_LATER / 2).await;
    server.serve(&["v1"]);
    tokio::time::sleep(2 * ABSENT_LATER).await;
    routes_become(&mut worlds, &["v1"], Duration::ZERO).await;

    server.serve(&[]);
    routes_become(&mut worlds, &[], 2 * ABSENT_LATER).await;
}

#[tokio::test(start_paused = true)]
async fn disabled_gateway_api_is_never_called() {
    let server = Server::default();
    server.serve(&["v1"]);
    let mut worlds = server.start(GatewayApi::Off);
    let world = first_world(&mut worlds).await;
    assert!(world.gateway_tcp_routes.is_empty());
    no_world(&mut worlds, Duration::from_secs(120)).await;
    assert_eq!(server.calls.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn kinds_of_gateways_are_read_only_where_gateways_are() {
    const OF_GATEWAYS: [Kind; 3] = [Kind::Gateway, Kind::GatewayClass, Kind::TlsRoute];
    for kind in Kind::GATEWAY_ROUTES.into_iter().chain(OF_GATEWAYS) {
        let of_gateways = OF_GATEWAYS.contains(&kind);
        let read = [GatewayApi::Off, GatewayApi::Routes, GatewayApi::Gateways]
            .map(|gateway_api| is_read(gateway_api, Some(kind)));
        assert_eq!(read, [false, !of_gateways, true], "{kind}");
    }
}
