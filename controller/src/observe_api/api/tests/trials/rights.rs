//! What of live requests who may have tried, and at whose proxies.

use super::*;

/// Route `read` with a pattern for this header.
fn by_header(name: &str) -> Value {
    let headers = json!({name: "Bearer eyJ[a-m].*"});
    let read = json!([{"name": "read", "pathRegex": "/items", "headers": headers}]);
    json!({"objects": [group("routes", read)], "watchSeconds": 20})
}

#[tokio::test]
async fn headers_that_a_tap_may_not_show_are_not_read_out_by_trials() {
    let bench = Bench::new();
    let mut proxy = Proxy::of(&bench, "uid-api-1");
    for (user, header) in [
        ("owner", "Authorization"),
        ("owner", "cookie"),
        ("router", "authorization"),
        ("router", "x-account"),
    ] {
        let mut answer = watch(&bench, user, by_header(header)).await;
        let told = until(&mut answer, |told| told["last"] == true).await;
        let took_part = (&told["proxies"], &told["takingPart"]);
        assert_eq!(took_part, (&json!(2), &json!(0)), "{user} {header}");
        let reason = told["reasons"][0].as_str().unwrap_or_default();
        let words = format!("header {}", header.to_ascii_lowercase());
        assert!(reason.contains(&words), "{user} {header}: {told}");
        assert!(proxy.orders.try_recv().is_err(), "{user} {header}: asked");
    }
    assert!(bench.recorded.lock().is_empty(), "nobody is shown anything");
    // Who may tap there may try all others, and everybody those that are shown.
    for (user, header) in [("owner", "x-account"), ("router", "User-Agent")] {
        let _answer = watch(&bench, user, by_header(header)).await;
        asked(&mut proxy).await;
    }
}
