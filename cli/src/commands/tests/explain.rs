//! Output of `weft explain`: which proxies refuse, how many have the deciding configuration, and
//! how each part of the calls ends.
//!
//! Claims: observe-39

use super::*;

/// Code and lines of the result for `svc/cart` in namespace `shop`.
async fn explained(status: &Value) -> (u8, Vec<String>) {
    let answer = json!({"spec": {"to": {"kind": "Service", "name": "cart"}}, "status": status});
    let line = "weft explain deploy/web svc/cart:80 DELETE /items/7";
    let (code, out, _) = run(explaining(vec![("shop", 201, answer)]), line).await;
    (code, out.lines().map(str::to_owned).collect())
}

fn has(lines: &[String], line: &str) {
    let found = lines.iter().filter(|one| *one == line).count();
    assert_eq!(found, 1, "{line:?} in {lines:#?}");
}

#[tokio::test]
async fn the_first_line_says_whose_proxies_refuse() {
    let mut status = refused()["status"].clone();
    for (by, end) in [
        ("", ""),
        ("Deployment shop/cart", ", by the proxies of cart"),
        (
            "Deployment shop/cart-v1,Deployment shop/cart-v2",
            ", by the proxies of cart-v1 and cart-v2",
        ),
        // Of another namespace than what is called.
        ("Deployment bank/web", ", by the proxies of bank/web"),
        (
            "Job shop/f,Job shop/e,Job shop/d,Job shop/c,Job shop/b,Job shop/a",
            ", by the proxies of a, b, c, d and 2 more",
        ),
    ] {
        let by: Vec<&str> = by.split(',').filter(|one| !one.is_empty()).collect();
        status["refusedBy"] = json!(by);
        let (code, lines) = explained(&status).await;
        assert_eq!(code, 1);
        assert_eq!(lines[0], format!("REFUSED 403 not-allowed{end}"));
    }
}

#[tokio::test]
async fn programmed_proxy_count_is_shown_even_when_complete() {
    let mut status = refused()["status"].clone();
    status["programmed"] = json!({"proxies": 4, "of": 4});
    let (_, lines) = explained(&status).await;
    has(&lines, " access  auto, closed (4 of 4 proxies have it)");
    let waits = |lines: &[String]| lines.iter().any(|line| line.starts_with(" waiting "));
    assert!(!waits(&lines), "{lines:#?}");
    status["programmed"] = json!({"proxies": 3, "of": 4});
    let (_, lines) = explained(&status).await;
    has(&lines, " access  auto, closed (3 of 4 proxies have it)");
    assert!(waits(&lines), "{lines:#?}");
    // Several lines about access, of which none is the one to stand beside.
    let access = |text: &str| json!({"step": "access", "text": text});
    status["steps"] = json!([access("shop/a: open"), access("shop/b: closed")]);
    status["programmed"] = json!({"proxies": 4, "of": 4});
    let (_, lines) = explained(&status).await;
    has(&lines, " access  shop/a: open");
    has(&lines, " access  4 of 4 proxies have it");
}

#[tokio::test]
async fn differing_pods_of_backend_show_share_and_reason() {
    let part = |share: f64, verdict: &str, reason: &str, pods: Value| {
        let judged = pods.as_array().unwrap().len();
        json!({"service": "shop/cart", "share": share, "verdict": verdict, "reason": reason,
            "ready": 4, "endpoints": 5, "judged": judged, "pods": pods})
    };
    let mut status = json!({"verdict": "Mixed", "owner": "shop",
    "steps": [{"step": "who", "text": "shop/web, 3 pods, meshed"}],
    "refusedBy": ["Deployment shop/cart"],
    "backends": [
        part(0.75, "Allowed", "", json!(["shop/cart-1", "shop/cart-2", "bank/cart-3"])),
        part(0.25, "Refused", "not-allowed", json!(["shop/cart-4"])),
    ]});
    let (code, lines) = explained(&status).await;
    assert_eq!(code, 1);
    let first = "MIXED, some calls refused by the proxies of cart";
    assert_eq!(lines[0], first);
    let allowed = " backend shop/cart  75.00%  Allowed  4 of 5 endpoints ready; so at cart-1, \
                   cart-2 and bank/cart-3";
    has(&lines, allowed);
    let refused = " backend shop/cart  25.00%  Refused not-allowed  4 of 5 endpoints ready; so at \
                   cart-4";
    has(&lines, refused);
    // More than are named.
    status["backends"][1]["judged"] = json!(9);
    let (_, lines) = explained(&status).await;
    has(&lines, &format!("{refused} and 8 more"));
    // If a backend has one part, its pods add nothing.
    status["backends"][0]["service"] = json!("shop/other");
    let (_, lines) = explained(&status).await;
    assert!(
        !lines.iter().any(|line| line.contains("so at")),
        "{lines:#?}"
    );
}

#[tokio::test]
async fn gateway_answer_names_listener_and_who_refuses() {
    let status = json!({"verdict": "Refused", "reason": "misdirected", "httpStatus": 421,
        "owner": "shop", "refusedBy": ["Gateway shop/edge"],
        "steps": [{"step": "gateway", "text": "listener a (HTTPS 443): another host"}]});
    let answer = json!({"spec": {"to": {"kind": "Gateway", "name": "edge"}}, "status": status});
    let line = "weft explain outside gateway/edge GET https://a.example/ -n shop";
    let (code, out, err) = run(explaining(vec![("shop", 201, answer)]), line).await;
    assert_eq!((code, err.as_str()), (1, ""));
    let lines: Vec<&str> = out.lines().collect();
    let expected = [
        "REFUSED 421 misdirected, by the proxies of edge",
        " gateway listener a (HTTPS 443): another host",
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn calls_that_no_gateway_client_makes_name_the_form() {
    for (ends, words) in [
        (
            "deploy/web gateway/edge GET https://a.example/",
            "say outside in place of deploy/web",
        ),
        (
            "outside gateway/edge:443 GET https://a.example/",
            "the URL has the port",
        ),
        ("outside gateway/edge GET /a", "GET https://HOST/PATH"),
        ("outside gateway/edge", "GET https://HOST/PATH"),
    ] {
        let line = format!("weft explain {ends}");
        let (code, _, err) = run(explaining(Vec::new()), &line).await;
        assert_eq!(code, 2, "{ends}: {err}");
        assert!(err.contains(words), "{ends}: {err}");
    }
}
