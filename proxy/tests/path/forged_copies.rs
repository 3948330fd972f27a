//! Peers that mark their requests as copies, which the proxy cannot verify: they gain nothing by
//! it, and the metrics name the sender.
//!
//! Claims: calls-56

use std::time::{Duration, Instant, SystemTime};

use http::{Method, Request};
use http_body_util::{BodyExt, Empty};
use policy::traffic::guard::{Overload, Priority};
use policy::traffic::pod::GuardPort;
use wire::v1::{Enforcement, MtlsMode, Protocol};

use super::answers::{App, OK, SILENCE, served_by, sum, whole};
use super::limits::{guard, guarded, limit, rule};
use super::mesh_port::{Sender, peer};
use super::overload::calls_in_flight;
use crate::support::{Authority, Pod, service, vip};

const SHADOWS: &str = "weft_shadow_requests_total";

/// A hand-made peer of this account.
async fn forger(authority: &Authority, server: &Pod) -> Sender {
    let certs = authority.leaf("web", Duration::from_secs(60), SystemTime::now());
    peer(authority, &certs, server).await.unwrap()
}

/// The status of a request with this mark.
async fn calls(sender: &mut Sender, app: &App, value: &str) -> u16 {
    let request = Request::builder()
        .method(Method::GET)
        .uri("http://web.shop/")
        .header("weft-port", app.port.to_string())
        .header("weft-protocol", "http1")
        .header("weft-priority", "Critical")
        .header("weft-shadow", value)
        .body(Empty::new())
        .unwrap();
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    body.collect().await.unwrap();
    head.status.as_u16()
}

async fn comes_to(server: &Pod, name: &str, labels: &[&str], count: f64) {
    let started = Instant::now();
    while sum(server, name, labels) < count && started.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(sum(server, name, labels), count, "{}", server.metrics());
}

#[tokio::test]
async fn claimed_mirror_request_is_limited_and_counted_normally() {
    let authority = Authority::new();
    let server = Pod::new(&authority, "api").await;
    let app = App::new(server.ip, OK).await;
    server.set(vec![guard(app.port, vec![rule(limit("all", 3))])]);
    let mut sender = forger(&authority, &server).await;
    for (value, status) in [
        ("true", 200),
        ("600", 200),
        // Its pod is held to nothing.
        ("read-only", 403),
        ("true", 200),
        ("true", 429),
    ] {
        assert_eq!(calls(&mut sender, &app, value).await, status, "{value}");
    }
    assert_eq!(app.request_count(), 3);
    let labels = ["direction=\"inbound\"", "peer=\"shop/web\""];
    comes_to(&server, "weft_requests_total", &labels, 5.0).await;
    for (value, count) in [("said=\"copy\"", 2.0), ("said=\"perhaps\"", 1.0)] {
        comes_to(&server, SHADOWS, &["peer=\"shop/web\"", value], count).await;
    }
    comes_to(&server, "weft_rate_limited_total", &[], 1.0).await;
}

/// A rejected request costs no token, and reveals nothing of the pod's mirror restrictions.
#[tokio::test]
async fn claimed_mirror_request_needs_admission_like_others() {
    let authority = Authority::new();
    let server = Pod::new(&authority, "api").await;
    let app = App::new(server.ip, OK).await;
    server.set(vec![guard(app.port, vec![rule(limit("all", 1))])]);
    server.mode("api", Enforcement::Enforce, MtlsMode::Permissive);
    let mut sender = forger(&authority, &server).await;
    for value in ["read-only", "true", "read-only"] {
        assert_eq!(calls(&mut sender, &app, value).await, 403, "{value}");
    }
    let refused = ["peer=\"shop/web\"", "reason=\"not-allowed\""];
    comes_to(&server, "weft_requests_total", &refused, 3.0).await;
    assert_eq!(sum(&server, "weft_rate_limited_total", &[]), 0.0);
    assert_eq!(sum(&server, SHADOWS, &[]), 0.0);
    assert_eq!(app.request_count(), 0);
}

#[tokio::test]
async fn claimed_mirror_request_goes_last_whatever_its_class() {
    let authority = Authority::new();
    let client = Pod::new(&authority, "web").await;
    client.set(service("api", vip().ip(), Protocol::Http1, Vec::new()));
    let server = Pod::new(&authority, "api").await;
    let app = App::new(server.ip, SILENCE).await;
    served_by(&client, &server, &[&app]);
    let port_guard = GuardPort {
        overload: whole(Overload {
            max_concurrency: Some(1),
            ..Overload::DEFAULT
        }),
        ..GuardPort::default()
    };
    server.set(vec![guarded(app.port, port_guard)]);
    let _held = calls_in_flight(&client, &app, "", 1).await;
    let mut sender = forger(&authority, &server).await;
    for (value, class, shed) in [
        ("true", Priority::Sheddable, 1.0),
        // What may be made for a copy is as good as any other.
        ("600", Priority::Normal, 1.0),
    ] {
        assert_eq!(calls(&mut sender, &app, value).await, 503, "{value}");
        let class = format!("priority=\"{}\"", class.as_str());
        comes_to(&server, "weft_shed_total", &[&class], shed).await;
    }
}
