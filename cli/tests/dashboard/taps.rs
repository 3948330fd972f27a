//! The page that shows requests as they end.
//!
//! Claims: observe-70

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::Shown;
use crate::safety::harmless;
use crate::shop::{self, HOSTILE};

/// Looks at the requests to the mesh, and the time between two of them.
const LOOKS: usize = 200;
const EACH: Duration = Duration::from_millis(50);

pub(super) fn request(path: &str) -> Value {
    json!({"request": {"time": "2026-11-02T09:00:00.123Z", "direction": "outbound",
        "pod": "shop/web-5d8", "peer": "shop/cart-77c", "service": "shop/cart", "port": 8080,
        "mtls": true, "protocol": "http1", "method": "GET", "host": "cart", "path": path,
        "status": 503, "reason": "overload", "ms": 12.0, "bytes": 81}})
}

pub(super) fn counts(matched: u64, shown: u64, last: bool) -> Value {
    json!({"metadata": {"proxies": 3, "takingPart": 2, "matched": matched, "shown": shown,
        "dropped": 3, "last": last}})
}

/// Chooses what is offered by this name.
async fn choose(shown: &mut Shown, selector: &str, name: &str) {
    let choose = format!(
        "(() => {{ const s = document.querySelector({}); \
         s.selectedIndex = [...s.options].findIndex((o) => o.textContent === {}); \
         return s.selectedIndex; }})()",
        json!(selector),
        json!(name)
    );
    let chosen = shown.browser.eval(&choose).await;
    assert!(
        chosen.as_i64().is_some_and(|at| at >= 0),
        "{selector} does not offer {name}"
    );
}

/// Chooses the object whose requests are watched, and starts.
pub(super) async fn start(shown: &mut Shown, of: &str) {
    choose(shown, "#tap-of", of).await;
    shown.browser.click("form button[type=submit]").await;
}

/// The queries of the taps, once there were so many.
pub(super) async fn tap_requests(shown: &Shown, count: usize) -> Vec<String> {
    for _ in 0..LOOKS {
        let taps = shown.mesh.taps().await;
        if taps.len() >= count {
            return taps;
        }
        sleep(EACH).await;
    }
    panic!("no tap number {count}");
}

/// Until the last tap has no reader.
async fn row_is_gone(shown: &Shown) {
    for _ in 0..LOOKS {
        if !shown.mesh.is_tapped().await {
            return;
        }
        sleep(EACH).await;
    }
    panic!("the tap goes on");
}

#[tokio::test]
async fn matching_requests_are_shown_until_tap_is_stopped() {
    let mut shown = Shown::of(&shop::shop(60)).await;
    shown.page("Tap").await;
    let browser = &mut shown.browser;
    browser
        .eval("document.querySelector('#tap-method').value = 'GET'")
        .await;
    browser.click("#tap-path").await;
    browser.write("/items").await;
    browser.click("#tap-status").await;
    browser.write("5xx").await;
    start(&mut shown, "deploy/web").await;
    assert_eq!(
        tap_requests(&shown, 1).await,
        ["watch=true&of=Deployment%2Fweb&method=GET&path=%2Fitems&status=5xx"]
    );
    let line = "weft tap deploy/web --method GET --path /items --status 5xx -n shop";
    let wanted = format!("document.querySelector('footer code').textContent === {line:?}");
    shown.browser.wait(&wanted).await;
    for number in 0..205 {
        let path = format!("/items/{number}");
        shown.mesh.show(&request(&path)).await;
    }
    shown.mesh.show(&counts(900, 205, false)).await;
    shown
        .browser
        .see("205 of 900 matching requests shown, 3 dropped for want of room; 2 of 3 proxies report; the newest 200 are listed.")
        .await;
    assert_eq!(shown.browser.count("tbody tr").await, 200);
    let first = shown.browser.text("tbody tr:first-child").await;
    for text in [
        "shop/web-5d8",
        "shop/cart-77c:8080",
        "cart/items/204",
        "503",
        "12 ms",
        "overload",
        "mTLS",
    ] {
        assert!(first.contains(text), "{text}: {first}");
    }
    let oldest = "document.querySelector('tbody tr:last-child').cells[5].textContent";
    assert_eq!(shown.browser.eval(oldest).await, "cart/items/5");
    assert!(shown.mesh.is_tapped().await, "the control");
    shown.browser.click("form button[type=button]").await;
    shown.browser.see("Stopped.").await;
    row_is_gone(&shown).await;
    assert_eq!(shown.browser.count("tbody tr").await, 200, "they stay");
    assert!(shown.mesh.writes().is_empty());
    assert_eq!(shown.browser.faults().await, [""; 0]);
}

#[tokio::test]
async fn tap_page_has_every_filter_of_command_line() {
    let mut shown = Shown::of(&shop::neighbours()).await;
    shown.page("Tap").await;
    choose(&mut shown, "#tap-to", "svc/cart").await;
    choose(&mut shown, "#tap-from", "ns/bank").await;
    for (id, text) in [
        ("#tap-route", "cart/read"),
        ("#tap-slower", "200ms"),
        ("#tap-max-rps", "7"),
    ] {
        shown.browser.click(id).await;
        shown.browser.write(text).await;
    }
    // Two responses of the graph later they stand there still.
    sleep(Duration::from_secs(5)).await;
    start(&mut shown, "deploy/cart").await;
    assert_eq!(
        tap_requests(&shown, 1).await,
        [
            "watch=true&of=Deployment%2Fcart&to=Service%2Fcart&from=Namespace%2Fbank\
            &route=cart%2Fread&slower=200ms&maxRps=7"
        ]
    );
    let line = "weft tap deploy/cart --to svc/cart --from ns/bank --route cart/read \
                --slower 200ms --max-rps 7 -n shop";
    let wanted = format!("document.querySelector('footer code').textContent === {line:?}");
    shown.browser.wait(&wanted).await;
    // The object of an address is chosen, also one that the graph does not have.
    let link =
        json!({"kind": "Deployment", "name": "web", "to": "Service/elsewhere", "maxRps": "50"});
    let open = format!(
        "location.hash = '/tap?ns=shop&tap=' + encodeURIComponent({})",
        json!(link.to_string())
    );
    shown.browser.eval(&open).await;
    for (id, text) in [("#tap-to", "svc/elsewhere"), ("#tap-from", "any")] {
        let chosen =
            format!("document.querySelector('{id}').selectedOptions[0].textContent === '{text}'");
        shown.browser.wait(&chosen).await;
    }
    let most = "document.querySelector('#tap-max-rps').value";
    assert_eq!(shown.browser.eval(most).await, "50");
    assert_eq!(shown.browser.faults().await, [""; 0]);
}

#[tokio::test]
async fn tap_survives_stream_end_but_stops_on_page_change() {
    let mut shown = Shown::of(&shop::shop(60)).await;
    shown.page("Tap").await;
    start(&mut shown, "svc/cart").await;
    tap_requests(&shown, 1).await;
    shown.mesh.show(&request("/first")).await;
    shown.mesh.show(&counts(20, 1, true)).await;
    shown.mesh.end_tap().await;
    let taps = tap_requests(&shown, 2).await;
    assert_eq!(taps, ["watch=true&of=Service%2Fcart"; 2]);
    shown.mesh.show(&request("/second")).await;
    shown.mesh.show(&counts(5, 1, false)).await;
    let browser = &mut shown.browser;
    browser
        .see("2 of 25 matching requests shown, 6 dropped for want of room")
        .await;
    assert_eq!(browser.count("tbody tr").await, 2);
    assert!(shown.mesh.is_tapped().await, "the control");
    shown.page("Proxies").await;
    row_is_gone(&shown).await;
    shown.page("Tap").await;
    shown.browser.see("Stopped.").await;
    start(&mut shown, "svc/cart").await;
    tap_requests(&shown, 3).await;
    shown.mesh.show(&request("/third")).await;
    shown.browser.see("/third").await;
    let browser = &mut shown.browser;
    assert_eq!(
        browser.count("tbody tr").await,
        1,
        "what was asked before is gone"
    );
    browser.eval("location.hash = '/tap?ns=weft-system'").await;
    browser
        .wait("!document.body.textContent.includes('/third')")
        .await;
    row_is_gone(&shown).await;
    assert_eq!(shown.mesh.taps().await.len(), 3);
}

#[tokio::test]
async fn forbidden_tap_names_role_and_link_starts_no_tap() {
    let mut shown = Shown::of(&shop::shop(60)).await;
    shown.mesh.forbid_taps(true).await;
    shown.page("Tap").await;
    start(&mut shown, "ns/shop").await;
    shown.browser.see("ClusterRole weft-tap grants this").await;
    shown.mesh.forbid_taps(false).await;
    let link = json!({"kind": "Deployment", "name": "cart", "path": "/pay"}).to_string();
    let open = format!(
        "location.hash = '/tap?ns=shop&tap=' + encodeURIComponent({})",
        json!(link)
    );
    let browser = &mut shown.browser;
    browser.eval(&open).await;
    browser
        .wait("document.querySelector('#tap-path').value === '/pay'")
        .await;
    let chosen = "document.querySelector('#tap-of').selectedOptions[0].textContent";
    assert_eq!(browser.eval(chosen).await, "deploy/cart");
    // Two responses of the graph later no tap has started.
    sleep(Duration::from_secs(5)).await;
    assert!(shown.mesh.taps().await.is_empty());
    shown.browser.click("form button[type=submit]").await;
    assert_eq!(
        tap_requests(&shown, 1).await,
        ["watch=true&of=Deployment%2Fcart&path=%2Fpay"]
    );
    // Texts that callers choose are shown as text.
    let mut hostile = request(HOSTILE);
    for field in ["pod", "peer", "method", "host", "reason", "route"] {
        hostile["request"][field] = json!(HOSTILE);
    }
    shown.mesh.show(&hostile).await;
    shown.browser.see("<img src=x").await;
    harmless(&mut shown).await;
}

#[tokio::test]
async fn full_tap_is_retried_only_with_retry_after() {
    let mut shown = Shown::of(&shop::shop(60)).await;
    shown.page("Tap").await;
    shown.mesh.fill_taps(Some(1)).await;
    start(&mut shown, "svc/cart").await;
    let waits = "Asking again, for a minute at most: taps of shop: no place for one more";
    shown.browser.see(waits).await;
    shown.mesh.fill_taps(None).await;
    tap_requests(&shown, 1).await;
    shown.mesh.show(&counts(1, 1, false)).await;
    shown.browser.see("Watching svc/cart.").await;
    // While the tap is requested again, the user need not wait for the end.
    shown.mesh.fill_taps(Some(1)).await;
    start(&mut shown, "deploy/web").await;
    shown.browser.see(waits).await;
    shown.browser.click("form button[type=button]").await;
    shown.browser.see("Stopped.").await;
    // Control: without a time the place may be held without limit.
    shown.mesh.fill_taps(Some(0)).await;
    start(&mut shown, "deploy/cart").await;
    let ended = "document.querySelector('.outcome').textContent === \
                 'taps of shop: no place for one more'";
    shown.browser.wait(ended).await;
    shown.mesh.fill_taps(None).await;
    sleep(Duration::from_secs(7)).await;
    assert_eq!(shown.mesh.taps().await.len(), 1, "no further request");
    assert_eq!(shown.browser.faults().await, [""; 0]);
}
