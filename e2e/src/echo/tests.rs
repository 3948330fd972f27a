//! The application against its own clients over loopback.

use std::{net::SocketAddr, time::Duration};

use http::StatusCode;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
};

use super::{
    call::{Order, ProxyResponse},
    client::{Ask, Client, Failure},
    duration,
    reply::Report,
    seen::EchoMetrics,
    serve::Bound,
    settings::Settings,
    talk, tls,
};

mod load;

struct Running {
    http: SocketAddr,
    tcp: SocketAddr,
    banner: SocketAddr,
    call: SocketAddr,
    tls: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    ended: JoinHandle<()>,
}

async fn running(pod: &str) -> Running {
    slowed(pod, Duration::ZERO).await
}

async fn slowed(pod: &str, delay: Duration) -> Running {
    altered(pod, |settings| settings.delay = delay).await
}

async fn altered(pod: &str, change: impl FnOnce(&mut Settings)) -> Running {
    let mut settings = Settings {
        pod: pod.into(),
        version: "v7".into(),
        service: pod.into(),
        tls_port: Some(0),
        ..Settings::on_free_ports()
    };
    change(&mut settings);
    let bound = Bound::bind(settings).await.unwrap();
    let [http, tcp, banner, call, _, tls] = bound.addresses().unwrap()[..] else {
        panic!("six ports")
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let ended = tokio::spawn(bound.serve(async move {
        let _ = stopped.await;
    }));
    Running {
        http,
        tcp,
        banner,
        call,
        tls,
        stop: Some(stop),
        ended,
    }
}

fn ask(address: SocketAddr, path: &str) -> Ask {
    Ask::get(&format!("http://{address}{path}")).unwrap()
}

#[tokio::test]
async fn report_counts_arrivals_over_http1_and_http2() {
    let app = running("pod-a").await;
    for http2 in [false, true] {
        let mut ask = ask(app.http, "/some/path?a=b");
        ask.http2 = http2;
        ask.headers.insert(
            "weft-client-id",
            "spiffe://cluster.local/ns/x/sa/y".parse().unwrap(),
        );
        ask.body = "hello".into();
        let answer = Client::new(ask).send().await.unwrap();
        let report: Report = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(
            (report.pod.as_str(), report.version.as_str()),
            ("pod-a", "v7")
        );
        assert_eq!(
            (report.path.as_str(), report.query.as_str()),
            ("/some/path", "a=b")
        );
        assert_eq!(
            report.client_id.as_deref(),
            Some("spiffe://cluster.local/ns/x/sa/y")
        );
        assert_eq!(report.body_bytes, 5);
        assert_eq!(report.protocol, if http2 { "HTTP/2.0" } else { "HTTP/1.1" });
        assert_eq!(answer.headers["echo-pod"], "pod-a");
    }
}

#[tokio::test]
async fn https_url_is_requested_over_tls_by_each_protocol() {
    let app = running("pod-a").await;
    for http2 in [false, true] {
        let mut ask = Ask::get(&format!("https://{}/within", app.tls)).unwrap();
        ask.http2 = http2;
        let answer = Client::new(ask).send().await.unwrap();
        let report: Report = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(report.path, "/within");
        assert_eq!(report.protocol, if http2 { "HTTP/2.0" } else { "HTTP/1.1" });
    }
    // The same in plaintext is no answer of HTTP.
    let plain = Client::new(ask(app.tls, "/within")).send().await;
    assert!(plain.is_err(), "{plain:?}");
}

#[tokio::test]
async fn answer_bends_to_status_size_delay_and_header() {
    let app = running("pod-a").await;
    let start = std::time::Instant::now();
    let path = "/?delay=120ms&status=503&size=100000&header=x-asked:yes";
    let answer = Client::new(ask(app.http, path)).send().await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(120));
    assert_eq!((answer.status.as_u16(), answer.body_bytes), (503, 100_000));
    assert_eq!(answer.headers["x-asked"], "yes");
    let answer = Client::new(ask(app.http, "/?status=banana"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status.as_u16(), 400);
}

#[tokio::test]
async fn instance_with_a_delay_is_slow_for_everybody() {
    let app = slowed("pod-a", Duration::from_millis(120)).await;
    let start = std::time::Instant::now();
    let answer = Client::new(ask(app.http, "/")).send().await.unwrap();
    assert_eq!(answer.status.as_u16(), 200);
    assert!(start.elapsed() >= Duration::from_millis(120));
}

#[tokio::test]
async fn request_in_flight_is_finished_after_the_listener_closed() {
    let mut app = running("pod-a").await;
    let slow = tokio::spawn(Client::new(ask(app.http, "/?delay=400ms")).send_owned());
    tokio::time::sleep(Duration::from_millis(100)).await;
    app.stop.take().unwrap().send(()).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;

    let refused = Client::new(ask(app.http, "/")).send().await.unwrap_err();
    assert_eq!(refused.failure, Failure::Connect);
    assert_eq!(slow.await.unwrap().unwrap().status.as_u16(), 200);
    tokio::time::timeout(Duration::from_secs(2), app.ended)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn open_bytes_do_not_hold_up_the_end() {
    let mut app = running("pod-a").await;
    let _idle = tokio::net::TcpStream::connect(app.tcp).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    app.stop.take().unwrap().send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(2), app.ended)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn bytes_come_back_and_the_banner_comes_first() {
    let app = running("pod-a").await;
    assert_eq!(
        talk::tcp(&app.tcp.to_string(), "good day").await.unwrap(),
        "good day"
    );
    assert_eq!(
        talk::tcp(&app.tcp.to_string(), "who").await.unwrap(),
        "pod-a v7"
    );
    let (line, after) = talk::banner(&app.banner.to_string()).await.unwrap();
    assert_eq!(line, "220 pod-a v7 ready");
    assert!(after < Duration::from_secs(1));
}

#[tokio::test]
async fn websocket_gives_every_text_back() {
    let app = running("pod-a").await;
    let url = format!("ws://{}/ws", app.http);
    assert_eq!(talk::websocket(&url, 20, Duration::ZERO).await.unwrap(), 20);
}

#[tokio::test]
async fn handshake_answers_the_example_of_rfc_6455() {
    let app = running("pod-a").await;
    let mut stream = TcpStream::connect(app.http).await.unwrap();
    let request = "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    let accept = "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    assert!(answer.contains(accept), "{answer}");
}

#[tokio::test]
async fn grpc_streams_both_ways_and_ends_with_trailers() {
    let app = running("pod-a").await;
    let seen = talk::grpc(&app.http.to_string(), Duration::from_millis(300), 100.0)
        .await
        .unwrap();
    assert_eq!(
        (seen.status, seen.sent, seen.received, seen.trailers),
        (200, 30, 30, true)
    );
    assert_eq!(seen.grpc_status.as_deref(), Some("0"));
    let unary = talk::grpc(&app.http.to_string(), Duration::ZERO, 1.0)
        .await
        .unwrap();
    assert_eq!((unary.sent, unary.received, unary.trailers), (1, 1, true));
}

#[tokio::test]
async fn idle_connections_are_used_again() {
    let app = running("pod-a").await;
    let alive = talk::hold(
        &format!("http://{}/", app.http),
        50,
        Duration::from_millis(100),
    )
    .await
    .unwrap();
    assert_eq!(alive, 50);
}

async fn post(address: SocketAddr, path: &str, order: &Order) -> super::client::WholeResponse {
    let mut ask = ask(address, path);
    ask.method = http::Method::POST;
    ask.body = serde_json::to_vec(order).unwrap().into();
    Client::new(ask).send().await.unwrap()
}

async fn seen(address: SocketAddr) -> EchoMetrics {
    serde_json::from_slice(
        &Client::new(ask(address, "/metrics"))
            .send()
            .await
            .unwrap()
            .body,
    )
    .unwrap()
}

#[tokio::test]
async fn call_is_recorded_by_caller_and_callee() {
    let (a, b) = (running("app-a").await, running("app-b").await);
    let order = |url: String| Order {
        url,
        method: "GET".into(),
        body: String::new(),
        headers: None,
    };
    let good = order(format!("http://{}/echo", b.call));
    let bad = order(format!("http://{}/missing", b.call));
    let dead = order("http://127.0.0.1:1/echo".into());

    let answer = post(a.call, "/call", &good).await;
    assert_eq!(answer.status.as_u16(), 200);
    assert!(String::from_utf8_lossy(&answer.body).contains("servicename: app-a"));
    assert_eq!(
        post(a.call, "/call", &bad).await.status.as_u16(),
        200,
        "the original answers 200 to its harness"
    );
    assert_eq!(post(a.call, "/call", &dead).await.status.as_u16(), 500);

    let (caller, callee) = (seen(a.call).await, seen(b.call).await);
    assert_eq!(caller.req_received, ["Unidentified"; 3]);
    assert_eq!(caller.resp_succeeded.len(), 1);
    assert_eq!(caller.resp_succeeded[0].url, good.url);
    assert_eq!(caller.resp_failed[0].url, bad.url);
    assert_eq!(caller.transport_errors[0].url, dead.url);
    assert_eq!(callee.req_received, ["app-a"]);

    let mut reset = ask(a.call, "/metrics");
    reset.method = http::Method::DELETE;
    Client::new(reset).send().await.unwrap();
    assert_eq!(seen(a.call).await, EchoMetrics::default());
}

#[tokio::test]
async fn proxy_returns_status_headers_and_body() {
    let (a, b) = (running("app-a").await, running("app-b").await);
    let url = format!("http://{}/?status=418&header=x-asked:yes", b.http);
    let order = Order {
        url,
        method: "GET".into(),
        body: String::new(),
        headers: None,
    };
    let outcome: ProxyResponse =
        serde_json::from_slice(&post(a.call, "/proxy", &order).await.body).unwrap();
    assert_eq!(outcome.status, 418);
    assert_eq!(outcome.headers["x-asked"], "yes");
    assert!(outcome.body.contains("app-b"));
}

#[tokio::test]
async fn every_second_response_fails_when_configured() {
    let app = altered("pod-a", |settings| settings.fail_every = 2).await;
    let mut statuses = Vec::new();
    for _ in 0..6 {
        let answer = Client::new(ask(app.http, "/")).send().await.unwrap();
        statuses.push(answer.status.as_u16());
    }
    assert_eq!(statuses, [200, 500, 200, 500, 200, 500]);
    let app = altered("pod-a", |settings| {
        settings.fail_every = 1;
        settings.fail_status = StatusCode::SERVICE_UNAVAILABLE;
    })
    .await;
    let answer = Client::new(ask(app.http, "/")).send().await.unwrap();
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn tls_port_answers_over_tls_and_nothing_else() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let app = running("pod-a").await;
    assert!(Client::new(ask(app.tls, "/")).send().await.is_err());
    let stream = tokio::net::TcpStream::connect(app.tls).await.unwrap();
    let mut stream = tls::shake_hands(stream, "pod-a", &[]).await.unwrap();
    let request = b"GET /x HTTP/1.1\r\nhost: pod-a\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    // The server ends without close_notify; what came before counts.
    let _ = stream.read_to_string(&mut answer).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let shown = talk::certificate(&app.tls.to_string(), "pod-a").await;
    let shown = shown.unwrap();
    assert!(shown.contains("pod-a"), "{shown}");
}

#[test]
fn durations_need_a_number_and_a_unit() {
    assert_eq!(
        duration::parse("200ms").unwrap(),
        Duration::from_millis(200)
    );
    assert_eq!(duration::parse("2m").unwrap(), Duration::from_secs(120));
    for bad in ["", "5", "s", "5h", "-1s", "99999999999999999999s"] {
        assert!(duration::parse(bad).is_err(), "{bad}");
    }
}

impl Client {
    async fn send_owned(mut self) -> Result<super::client::WholeResponse, super::client::NoAnswer> {
        self.send().await
    }
}
