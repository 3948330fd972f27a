//! Copies to receivers whose proxies have a version without mirroring.
//!
//! Claims: calls-53

use http::{HeaderMap, Response, response};
use policy::traffic::call::Downstream;

use super::answers::{OK, ask, sum};
use super::mirrors::{MIRRORED, Shop, mirror};
use super::patience::stand_in;
use crate::support::{Authority, endpoint, endpoints};

/// As a proxy did from before there were copies: what it knows of `weft-protocol` it serves,
/// and drops headers of ours that it does not know; all else is no message to it.
pub(super) fn earlier(headers: &HeaderMap) -> response::Builder {
    match headers["weft-protocol"].as_bytes() {
        b"http1" | b"http2" => Response::builder(),
        _ => Response::builder()
            .status(400)
            .header("weft-reason", "bad-request"),
    }
}

#[tokio::test]
async fn read_only_mirror_stops_at_older_proxy() {
    let authority = Authority::new();
    let shop = Shop::of(&authority, OK).await;
    let (ip, request_count) = stand_in(&authority, earlier).await;
    let older = endpoint(ip, 8080, Some("api"));
    shop.client.set(vec![endpoints("next", vec![older])]);
    assert_eq!(ask(&shop.client, "GET", "", "").await.0, 200);
    shop.until("proxy-too-old", 1.0).await;
    assert_eq!(sum(&shop.client, MIRRORED, &[]), 1.0);
    assert_eq!(request_count.load(std::sync::atomic::Ordering::Relaxed), 1);
    // A policy whose copies may change things sends them also to proxies that do not mark copies.
    let mut any = mirror();
    any.downstream = Downstream::Any;
    shop.mirrors(vec![any]);
    assert_eq!(ask(&shop.client, "GET", "", "").await.0, 200);
    shop.until("success", 1.0).await;
}
