//! The demo's verdicts, over invented counters.

use serde_json::json;

use super::{
    breakage::{Breakage, Rested, resting},
    call::{Call, protected, quantile},
    canary::Released,
    kept::percent,
    ledger::{Ledger, Proxy},
    promise::View,
    table,
};
use crate::harness::metrics::Samples;

const WEB: &str = r#"
weft_requests_total{direction="outbound",service="shop/catalog",port="80",backend="shop/catalog-v1",peer="shop/a",security="mtls",status="200",success="true",reason=""} 360
weft_requests_total{direction="outbound",service="shop/catalog",port="80",backend="shop/catalog-v2",peer="shop/b",security="mtls",status="200",success="true",reason=""} 40
weft_requests_total{direction="outbound",service="shop/payments",port="80",backend="shop/payments",peer="shop/p",security="mtls",status="403",success="false",reason="not-allowed"} 20
weft_request_duration_seconds_bucket{le="0.001",direction="outbound",service="shop/catalog",port="80",backend="shop/catalog-v1"} 100
weft_request_duration_seconds_bucket{le="0.002",direction="outbound",service="shop/catalog",port="80",backend="shop/catalog-v1"} 360
weft_request_duration_seconds_bucket{le="+Inf",direction="outbound",service="shop/catalog",port="80",backend="shop/catalog-v1"} 360
"#;
const PAYMENTS: &str = r#"
weft_requests_total{direction="inbound",service="",port="8080",backend="",peer="shop/web",security="mtls",status="403",success="false",reason="not-allowed"} 20
weft_requests_total{direction="inbound",service="",port="8080",backend="",peer="shop/cart",security="mtls",status="200",success="true",reason=""} 200
"#;

fn proxy(pod: &str, restarts: u64) -> Proxy {
    Proxy {
        pod: pod.into(),
        restarts,
    }
}

fn view(web: &str, payments: &str) -> View {
    let mut ledger = Ledger::default();
    ledger.note(proxy("w", 0), "web", Samples::parse(web));
    ledger.note(proxy("p", 0), "payments", Samples::parse(payments));
    View {
        seconds: 20.0,
        allowed: vec![Call::read(&ledger, "web", "catalog")],
        refused: Call::read(&ledger, "web", "payments"),
        protected: protected(&ledger),
        weights: vec![("catalog-v1".into(), 90.0), ("catalog-v2".into(), 10.0)],
        broken: None,
        unread: Vec::new(),
    }
}

/// The calling proxy's counts, and the broken instance's own.
const WEB_BROKEN: &str = r#"
weft_requests_total{direction="outbound",service="shop/catalog",port="80",backend="shop/catalog-v1",peer="shop/a",security="mtls",status="200",success="true",reason=""} 540
weft_retries_total{service="shop/catalog",backend="shop/catalog-v1",outcome="success"} 12
weft_ejections_total{service="shop/catalog",backend="shop/catalog-v1",cause="failures"} 2
"#;
const BROKEN: &str = r#"
weft_requests_total{direction="inbound",service="",port="8080",backend="",peer="shop/web",security="mtls",status="503",success="false",reason=""} 12
weft_requests_total{direction="inbound",service="",port="8080",backend="",peer="shop/web",security="mtls",status="200",success="true",reason=""} 60
"#;

/// Page `/traffic` of the caller while this pod rests.
fn rested(pod: &str) -> Rested {
    let endpoint = |name: &str, address: &str| {
        let state = if name == pod { "Resting" } else { "Working" };
        json!({ "address": address, "pod": format!("shop/{name}"), "state": state })
    };
    let endpoints = [
        endpoint("v1-a", "10.0.0.1:8080"),
        endpoint("v1-b", "10.0.0.2:8080"),
    ];
    let service = json!({ "sections": {}, "endpoints": endpoints });
    resting(&json!({ "services": { "shop/catalog-v1:80": service }, "servicesLeftOut": 0 }))
}

fn broken_for(seconds: f64, web: &str) -> View {
    broken_while(seconds, web, &rested("v1-a"))
}

fn broken_while(seconds: f64, web: &str, rested: &Rested) -> View {
    let mut ledger = Ledger::default();
    ledger.note(proxy("w", 0), "web", Samples::parse(web));
    ledger.note(proxy("v1-a", 0), "catalog", Samples::parse(BROKEN));
    let healthy = BROKEN.replace("503", "200");
    ledger.note(proxy("v1-b", 0), "catalog", Samples::parse(&healthy));
    View {
        broken: Some(Breakage::read(&ledger, "v1-a", seconds, rested)),
        ..view(WEB, PAYMENTS)
    }
}

fn broken(view: &View) -> Vec<&'static str> {
    let promises = view.promises().into_iter();
    promises
        .filter(|promise| !promise.kept)
        .map(|promise| promise.what)
        .collect()
}

#[test]
fn a_healthy_shop_keeps_every_promise() {
    let view = view(WEB, PAYMENTS);
    assert_eq!(broken(&view), [] as [&str; 0], "{:?}", view.promises());
    let text = table::render(&view);
    for part in [
        "web -> catalog",
        "400   20.0/s    100 %",
        "catalog-v1 90.0 %, asked 90.0 %",
        "20 of 20 with 403",
        "640 of 640",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

#[test]
fn each_promise_is_broken_by_what_it_forbids() {
    let changed = |from: &str, to: &str| {
        assert!(WEB.contains(from), "{from}");
        broken(&view(&WEB.replace(from, to), PAYMENTS))
    };
    assert_eq!(changed(r#"reason=""} 40"#, r#"reason=""} 80"#), ["split"]);
    assert_eq!(changed("shop/catalog-v2", "shop/catalog"), ["split"]);
    assert_eq!(
        changed(
            r#"status="200",success="true",reason=""} 40"#,
            r#"status="503",success="false",reason="no-endpoint"} 40"#
        ),
        ["success"]
    );
    // An answer below 500 counts as good, but not when the mesh made it.
    assert_eq!(
        changed(
            r#"status="200",success="true",reason=""} 40"#,
            r#"status="403",success="false",reason="not-allowed"} 40"#
        ),
        ["success"]
    );
    assert_eq!(
        changed(
            r#"peer="shop/b",security="mtls""#,
            r#"peer="shop/b",security="plaintext""#
        ),
        ["mTLS"]
    );
    assert_eq!(
        changed(
            r#"status="403",success="false",reason="not-allowed""#,
            r#"status="503",success="false",reason="no-endpoint""#
        ),
        ["refused"]
    );
    // The application saw one of them.
    let reached = PAYMENTS.replace("shop/cart", "shop/web");
    assert_eq!(broken(&view(WEB, &reached)), ["refused"]);
    // A plaintext caller shows on the server's side only.
    let plain = PAYMENTS.replace(
        r#"peer="shop/cart",security="mtls""#,
        r#"peer="",security="plaintext""#,
    );
    assert_eq!(broken(&view(WEB, &plain)), ["mTLS"]);
}

// Claims: calls-40
#[test]
fn broken_instance_is_ejected_without_failed_calls() {
    let seen = broken_for(30.0, WEB_BROKEN);
    assert_eq!(broken(&seen), [] as [&str; 0], "{:?}", seen.promises());
    let text = table::render(&seen);
    for part in [
        "v1-a failed, with 503 to 12 of 72 calls; v1-a at 10.0.0.1:8080 rested, 2 times",
        "12 of 540 calls tried again (2.2 %), 12 of them well",
        "saw 0 failures of catalog",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

// Claims: calls-40
#[test]
fn visible_or_costly_break_fails_the_promise() {
    let changed = |from: &str, to: &str| {
        assert!(WEB_BROKEN.contains(from), "{from}");
        broken(&broken_for(30.0, &WEB_BROKEN.replace(from, to)))
    };
    assert_eq!(
        changed(r#"cause="failures"} 2"#, r#"cause="failures"} 0"#),
        ["rest"]
    );
    // 540 calls in 30 s save 108 tokens, 18 more were saved before, and 31 are free.
    assert_eq!(changed("} 12", "} 157"), [] as [&str; 0]);
    assert_eq!(changed("} 12", "} 158"), ["retries"]);
    let seen = r#"status="503",success="false""#;
    let lost = changed(r#"status="200",success="true""#, seen);
    assert_eq!(lost, ["callers"]);
    // Before the first failures no caller has ejected it.
    let at_once = broken_while(1.0, "", &Rested::new());
    assert_eq!(broken(&at_once), [] as [&str; 0]);
}

/// Ejections are counted for the backend, whichever of its instances rests.
// Claims: calls-40
#[test]
fn another_one_that_rests_is_not_the_broken_one() {
    let other = rested("v1-b");
    let both = rested("v1-a").into_iter().chain(other.clone()).collect();
    for (rested, expected) in [
        (other, "v1-b at 10.0.0.2:8080 rested, 2 times"),
        (
            both,
            "v1-a at 10.0.0.1:8080 and v1-b at 10.0.0.2:8080 rested",
        ),
        (rested("none"), "no endpoint rested"),
    ] {
        let seen = broken_while(30.0, WEB_BROKEN, &rested);
        assert_eq!(broken(&seen), ["rest"], "{rested:?}");
        let text = table::render(&seen);
        assert!(text.contains(expected), "no {expected:?} in\n{text}");
    }
}

#[test]
fn nothing_seen_is_nothing_kept() {
    assert_eq!(
        broken(&view("", "")),
        ["split", "success", "mTLS", "refused"]
    );
    let mut blind = view(WEB, PAYMENTS);
    blind.unread.push("cart-1: it has no proxy".into());
    assert_eq!(broken(&blind), ["all read"]);
}

#[test]
fn ledger_counts_from_base_and_restarts_with_proxy() {
    let count = |n: u32| Samples::parse(&format!("x{{a=\"1\"}} {n}\n"));
    let mut ledger = Ledger::default();
    ledger.note(proxy("w", 0), "web", count(100));
    ledger.rebase();
    assert_eq!(ledger.sum("web", "x", &[]), 0.0);
    ledger.note(proxy("w", 0), "web", count(130));
    ledger.note(proxy("w", 1), "web", count(5));
    assert_eq!(ledger.sum("web", "x", &[]), 35.0);
    assert_eq!(ledger.sum("cart", "x", &[]), 0.0);
}

#[test]
fn quantiles_are_linear_within_a_bucket() {
    let at_most = [(0.001, 100.0), (0.002, 300.0), (f64::INFINITY, 400.0)];
    assert_eq!(quantile(&at_most, 0.5), Some(0.0015));
    assert_eq!(
        quantile(&at_most, 0.99),
        Some(0.002),
        "the last finite bound"
    );
    assert_eq!(quantile(&[(0.001, 0.0), (f64::INFINITY, 0.0)], 0.5), None);
    assert_eq!(quantile(&[], 0.5), None);
}

#[test]
fn a_hundred_percent_means_all() {
    assert_eq!(percent(9999.0, 10000.0), "99.9 %");
    assert_eq!(percent(10000.0, 10000.0), "100 %");
    assert_eq!(percent(0.0, 0.0), "- %");
}

#[test]
fn release_promise_requires_rollback_in_time_with_ready_stable() {
    let seconds = std::time::Duration::from_secs_f64;
    let good = Released {
        calls: 27,
        failed: 14,
        after: seconds(5.14),
        stable_ready: true,
        shown: true,
    };
    let promise = good.promise();
    assert!(promise.kept, "{promise:?}");
    let text = "v2 failed 14 of 27 calls, rolled back after 5.1 s; v1 stayed ready";
    assert_eq!(promise.seen, text);
    for broken in [
        Released {
            failed: 0,
            ..good.clone()
        },
        Released {
            after: seconds(31.0),
            ..good.clone()
        },
        Released {
            stable_ready: false,
            ..good.clone()
        },
        Released {
            shown: false,
            ..good
        },
    ] {
        assert!(!broken.promise().kept, "{broken:?}");
    }
}
