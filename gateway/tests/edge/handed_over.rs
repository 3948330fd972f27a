//! Calls that leave the mesh by a Gateway: proxies hand them over, and the Gateway lets out what the
//! ExternalService gives to the account that calls.

use std::net::SocketAddr;
use std::sync::Arc;

use http::request::Parts;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use weft_proxy::{AppHttp, AppPort, MESH_PORT, PeerRequest, Replay, empty_body};
use wire::v1;
use wire::v1::egress::Mode;
use wire::v1::external_port::Protocol;
use wire::v1::resource::Content;

use super::harness::{ACCOUNT, Certificate, EVERY_VERSION, Edge, SOON, pod_of_gateway};
use crate::answers::sum;
use crate::support::{
    Pod, egress, endpoint, external, external_object, get, id, raw, resolved, resource, service,
    vip,
};

const HOST: &str = "api.pay.example";
/// As the object names the Gateway.
const GATEWAY: &str = "shop/edge";

/// A client, a Gateway, the server of [`HOST`], and what stands at the address that the client dials.
struct Scene {
    edge: Edge,
    client: Pod,
    /// All bytes that the server got.
    got: Arc<Mutex<Vec<u8>>>,
    server: SocketAddr,
    dialled: TcpListener,
}

impl Scene {
    /// The object admits these callers, as the Gateway has it.
    async fn new(protocol: Protocol, callers: &[&str]) -> Self {
        let edge = Edge::believing(0).await;
        let client = Pod::new(&edge.authority, "web").await;
        let dialled = TcpListener::bind((edge.server.ip, 0)).await.unwrap();
        let (server, got) = recorder(&edge.server).await;
        let scene = Self {
            edge,
            client,
            got,
            server,
            dialled,
        };
        let object = scene.object(protocol);
        scene.lets_out(v1::ExternalObject {
            callers: callers.iter().map(|one| (*one).to_owned()).collect(),
            ..object.clone()
        });
        let pods = vec![endpoint(scene.edge.pod.ip, MESH_PORT, Some(ACCOUNT))];
        let by_gateway = v1::ExternalObject {
            gateway: GATEWAY.to_owned(),
            ..object
        };
        scene.client.set(vec![
            external(scene.address()),
            // Whatever no object gives passes.
            egress(Mode::Allow, vec![by_gateway]),
            pods_of_gateway(pods),
        ]);
        scene
    }

    fn address(&self) -> SocketAddr {
        self.dialled.local_addr().unwrap()
    }

    fn object(&self, protocol: Protocol) -> v1::ExternalObject {
        let port = v1::ExternalPort {
            port: self.address().port().into(),
            protocol: protocol.into(),
            target_port: self.server.port().into(),
            tls: None,
        };
        external_object(&[HOST], &[], port)
    }

    /// What the Gateway has from now on.
    fn lets_out(&self, object: v1::ExternalObject) {
        self.edge.pod.set(vec![
            egress(Mode::Deny, vec![object]),
            resolved(HOST, self.server.port(), &[self.server.ip()]),
        ]);
    }

    /// The answer to a request of the client's application for the host.
    async fn get(&self) -> String {
        let mut stream = self.client.call(self.address()).await;
        let request = format!(
            "GET /a HTTP/1.1\r\nHost: {HOST}\r\nweft-external: shop/forged\r\n\
             weft-external-to: forged.example\r\nweft-forged: 1\r\nConnection: close\r\n\r\n"
        );
        raw(&mut stream, request.as_bytes(), SOON).await
    }

    /// Status of what the Gateway answers to a peer that writes these headers itself.
    async fn forge(&self, headers: &[(&str, &str)]) -> u16 {
        let mut request = http::Request::builder().uri(format!("http://{HOST}/forged"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let request: PeerRequest<&Parts> = PeerRequest::Http {
            port: AppPort::new(self.address().port()).unwrap(),
            speak: AppHttp::Http1,
            parts: &parts,
        };
        let peers = &self.client.proxy.peers;
        let peer = peers.mesh(self.edge.pod.ip, &id(ACCOUNT), &Arc::default());
        let answer = peer.send(&request, &Replay::new(empty_body())).await;
        // What is proven not to be sent is no answer.
        answer.map_or(503, |answer| answer.response.status().as_u16())
    }

    async fn nothing_went_directly(&self) {
        let moment = std::time::Duration::from_millis(20);
        assert!(timeout(moment, self.dialled.accept()).await.is_err());
    }
}

/// The pods of the Gateway, as the client has them.
fn pods_of_gateway(pods: Vec<v1::Endpoint>) -> v1::Resource {
    let content = Content::Endpoints(v1::Endpoints {
        endpoints: pods,
        ..v1::Endpoints::default()
    });
    resource(&wire::names::handing_over(GATEWAY), content)
}

/// A server that records all bytes, and answers heads of requests.
async fn recorder(pod: &Pod) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind((pod.ip, 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    let got = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&got);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    log.lock().extend_from_slice(&buffer[..read]);
                    if buffer[..read].ends_with(b"\r\n\r\n") {
                        let answer =
                            b"HTTP/1.1 200 OK\r\nweft-reason: limit\r\ncontent-length: 2\r\n\r\nok";
                        stream.write_all(answer).await.unwrap();
                    }
                }
            });
        }
    });
    (at, got)
}

#[tokio::test]
async fn call_leaves_by_gateway_without_headers_of_mesh() {
    let scene = Scene::new(Protocol::Http, &["shop/web"]).await;
    let answer = scene.get().await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
    assert!(!answer.contains("weft-"), "{answer}");
    let got = String::from_utf8(scene.got.lock().clone()).unwrap();
    assert!(got.starts_with("GET /a HTTP/1.1\r\n"), "{got}");
    let lines: Vec<String> = got.lines().map(str::to_ascii_lowercase).collect();
    assert!(lines.contains(&format!("host: {HOST}")), "{got}");
    assert!(!got.to_ascii_lowercase().contains("weft"), "{got}");
    scene.nothing_went_directly().await;
}

#[tokio::test]
async fn application_in_tls_leaves_by_its_server_name() {
    let scene = Scene::new(Protocol::Tls, &["shop/*"]).await;
    let config = Certificate::of(&[HOST]).client(EVERY_VERSION, &[]);
    let stream = scene.client.call(scene.address()).await;
    let name = ServerName::try_from(HOST).unwrap();
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let came = async {
        while scene.got.lock().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let both = async { tokio::join!(connecting, came) };
    // The server answers nothing, so the handshake does not end.
    let _ = timeout(std::time::Duration::from_secs(1), both).await;
    let got = scene.got.lock().clone();
    assert_eq!(got.first(), Some(&0x16), "a record of a handshake");
    let text = String::from_utf8_lossy(&got).into_owned();
    assert!(text.contains(HOST), "{text}");
    scene.nothing_went_directly().await;
}

#[tokio::test]
async fn outside_server_away_ejects_no_pod_of_gateway() {
    let scene = Scene::new(Protocol::Tls, &["shop/*"]).await;
    // Nothing listens there.
    let away = TcpListener::bind((scene.server.ip(), 0)).await.unwrap();
    let port = away.local_addr().unwrap().port();
    drop(away);
    let mut object = scene.object(Protocol::Tls);
    object.callers.push("shop/*".to_owned());
    object.ports[0].target_port = port.into();
    let let_out = || {
        vec![
            egress(Mode::Deny, vec![object.clone()]),
            resolved(HOST, port, &[scene.server.ip()]),
        ]
    };
    // With one pod more, either may be ejected.
    let (second, _gateway) = pod_of_gateway(&scene.edge.authority, 0);
    let both = [&scene.edge.pod, &second].map(|pod| {
        pod.set(let_out());
        endpoint(pod.ip, MESH_PORT, Some(ACCOUNT))
    });
    scene.client.set(vec![pods_of_gateway(both.to_vec())]);
    let config = Arc::new(Certificate::of(&[HOST]).client(EVERY_VERSION, &[]));
    for _ in 0..10 {
        let stream = scene.client.call(scene.address()).await;
        let name = ServerName::try_from(HOST).unwrap();
        let connecting = TlsConnector::from(Arc::clone(&config)).connect(name, stream);
        let ended = timeout(SOON, connecting).await.unwrap();
        assert!(ended.is_err());
    }
    let metrics = scene.client.metrics();
    let refused = sum(
        &scene.client,
        "weft_tcp_connections_total",
        &["reason=\"connect-failed\""],
    );
    assert_eq!(refused, 10.0, "{metrics}");
    assert_eq!(
        sum(&scene.client, "weft_ejections_total", &[]),
        0.0,
        "{metrics}"
    );
}

#[tokio::test]
async fn account_that_object_does_not_admit_is_refused() {
    let scene = Scene::new(Protocol::Http, &["shop/api", "bank/*"]).await;
    let answer = scene.get().await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(answer.contains("egress-denied"), "{answer}");
    assert_eq!(scene.got.lock().len(), 0);
    scene.nothing_went_directly().await;
}

#[tokio::test]
async fn caller_learns_reason_of_gateway_by_header_and_metric() {
    let scene = Scene::new(Protocol::Http, &["shop/api"]).await;
    let answer = scene.get().await.to_ascii_lowercase();
    assert!(
        answer.contains("\r\nweft-reason: egress-denied\r\n"),
        "{answer}"
    );
    let labels = [
        "weft_requests_total{",
        "direction=\"outbound\"",
        "security=\"mtls\"",
        "success=\"false\"",
        "reason=\"egress-denied\"",
    ];
    let is_counted = |line: &str| labels.iter().all(|label| line.contains(label));
    let counted = async {
        while !scene.client.metrics().lines().any(is_counted) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let counted = timeout(SOON, counted).await;
    assert!(counted.is_ok(), "{}", scene.client.metrics());
}

#[tokio::test]
async fn object_of_another_gateway_is_refused() {
    let scene = Scene::new(Protocol::Http, &["shop/web"]).await;
    scene.lets_out(v1::ExternalObject {
        gateway: "shop/other".to_owned(),
        callers: vec!["shop/web".to_owned()],
        ..scene.object(Protocol::Http)
    });
    let answer = scene.get().await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert_eq!(scene.got.lock().len(), 0);
    scene.nothing_went_directly().await;
}

#[tokio::test]
async fn without_pod_of_gateway_nothing_leaves() {
    let scene = Scene::new(Protocol::Http, &["shop/web"]).await;
    scene.client.set(vec![pods_of_gateway(Vec::new())]);
    let answer = scene.get().await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("no-endpoint"), "{answer}");
    // Nor to a pod that proves nothing.
    let plain = endpoint(scene.server.ip(), scene.server.port(), None);
    scene.client.set(vec![pods_of_gateway(vec![plain])]);
    let answer = scene.get().await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert_eq!(scene.got.lock().len(), 0);
    scene.nothing_went_directly().await;
}

#[tokio::test]
async fn peer_that_forges_headers_gets_nothing_else() {
    const OBJECT: (&str, &str) = ("weft-external", "shop/pay");
    let scene = Scene::new(Protocol::Http, &["shop/web"]).await;
    let to = |to| ("weft-external-to", to);
    let mut object = scene.object(Protocol::Http);
    object.callers.push("shop/web".to_owned());
    for network in ["127.0.0.0/8", "169.254.0.0/16"] {
        object.addresses.push(network.to_owned());
    }
    scene.lets_out(object);
    for (headers, status) in [
        (&[][..], 503),
        (&[OBJECT], 400),
        (&[OBJECT, to(HOST), to(HOST)], 400),
        (&[("weft-external", "shop/other"), to(HOST)], 403),
        (&[OBJECT, to("evil.example")], 403),
        // The object lists these, and a Gateway reaches itself and its machine by them.
        (&[OBJECT, to("127.0.0.1")], 403),
        (&[OBJECT, to("::ffff:127.0.0.1")], 403),
        (&[OBJECT, to("169.254.169.254")], 403),
        (&[OBJECT, to("not a host")], 400),
    ] {
        assert_eq!(scene.forge(headers).await, status, "{headers:?}");
    }
    assert_eq!(scene.got.lock().len(), 0);
    // Control: what the object gives.
    assert_eq!(scene.forge(&[OBJECT, to(HOST)]).await, 200);
    // Another host than the one that it was let through by.
    let mut object = scene.object(Protocol::Http);
    object.hosts.push("b.pay.example".to_owned());
    object.callers.push("shop/web".to_owned());
    scene.lets_out(object);
    assert_eq!(scene.forge(&[OBJECT, to("b.pay.example")]).await, 400);
}

/// Port 80 of Service `shop/pay` stands for [`HOST`], by these endpoints.
fn standing(endpoints: Vec<v1::Endpoint>) -> v1::Resource {
    let external = v1::ExternalTarget {
        object: Some(v1::ObjectRef {
            kind: "ExternalService".to_owned(),
            namespace: "shop".to_owned(),
            name: "pay".to_owned(),
        }),
        host: HOST.to_owned(),
        tls: None,
        denied: false,
        gateway: GATEWAY.to_owned(),
    };
    let content = Content::Endpoints(v1::Endpoints {
        endpoints,
        external: Some(external),
        ..v1::Endpoints::default()
    });
    resource(&wire::names::endpoints("shop", "pay", 80), content)
}

#[tokio::test]
async fn service_for_host_leaves_by_gateway_with_its_host() {
    let scene = Scene::new(Protocol::Http, &["shop/web"]).await;
    let mut object = scene.object(Protocol::Http);
    object.ports[0].port = 80;
    object.callers.push("shop/web".to_owned());
    scene.lets_out(object);
    let client = &scene.client;
    client.set(service("pay", vip().ip(), v1::Protocol::Http1, Vec::new()));
    let pod = endpoint(scene.edge.pod.ip, MESH_PORT, Some(ACCOUNT));
    client.set(vec![standing(vec![pod])]);
    let (status, answer) = get(client.call(vip()).await, "/a", "").await;
    assert_eq!(status, 200, "{answer}");
    let got = String::from_utf8(scene.got.lock().clone()).unwrap();
    let got = got.to_ascii_lowercase();
    assert!(got.contains(&format!("host: {HOST}\r\n")), "{got}");
    assert!(!got.contains("weft"), "{got}");
    // What proves nothing is no pod of a Gateway.
    let plain = endpoint(scene.server.ip(), scene.server.port(), None);
    client.set(vec![standing(vec![plain])]);
    let (status, answer) = get(client.call(vip()).await, "/a", "").await;
    assert_eq!(status, 503, "{answer}");
}
