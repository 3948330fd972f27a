//! Releases and experiments on the page of splits, as their objects have them.

use serde_json::json;

use crate::Shown;
use crate::shop;

#[tokio::test]
async fn splits_page_lists_releases_and_opens_their_checks() {
    let mut shown = Shown::of(&shop::shop(60)).await;
    shown.page("Splits").await;
    let lists = "[...document.querySelectorAll('caption')].map((caption) => caption.checkVisibility() && caption.textContent)";
    let has = |list: &str| format!("{lists}.includes('{list}')");
    shown.browser.see("catalog-v1").await;
    assert_eq!(shown.browser.eval(&has("CanaryReleases")).await, false);
    let counts = |bad: u32, requests: u32| json!({"requests": requests, "bad": bad});
    let release = json!({
        "spec": {"service": "web", "deployment": "web", "steps": [{"weight": 20, "duration": "2m"}, {"weight": 50}]},
        "status": {
            "phase": "Progressing", "summary": "step 1 of 2: 20 %",
            "stable": {"revision": "5d4", "pods": 3}, "candidate": {"revision": "75f", "pods": 1},
            "run": {"number": 7, "step": 1, "weight": 20, "stepStartedAt": "2026-11-02T08:58:41Z"},
            "checks": [{"name": "errorRate", "verdict": "unsuspicious", "evidence": "0.4 of 400",
                "stable": counts(11, 9120), "candidate": counts(1, 480)}],
            "history": [{"number": 6, "revision": "6c9", "result": "RolledBack", "by": "weft",
                "reason": "latency: 37 of 401 bad", "requests": 401, "bad": 37}],
        },
    });
    shown.mesh.automation("canaryreleases", "web", &release);
    let experiment = json!({
        "spec": {"targetRef": {"kind": "Service", "name": "payments", "port": 8080}, "share": "10%"},
        "status": {"phase": "Finished", "verdict": "Harmful", "calls": {"total": 4098, "harmed": 401},
            "checks": [{"name": "checkout errorRate", "verdict": "worse"}]},
    });
    shown
        .mesh
        .automation("faultexperiments", "slow", &experiment);
    for text in [
        "shop/web",
        "20 % (cap 25 %)",
        "0.12 % / 0.21 %",
        "0.4 of 400",
        "41 s",
        "payments:8080",
        "401 of 4098",
        "Harmful",
    ] {
        shown.browser.see(text).await;
    }
    assert_eq!(shown.browser.eval(&has("Last runs")).await, false);
    shown.browser.click("tbody button").await;
    for text in ["11/9120", "latency: 37 of 401 bad", "RolledBack", "1 (now)"] {
        shown.browser.see(text).await;
    }
    assert!(shown.mesh.writes().is_empty());
    assert_eq!(shown.browser.faults().await, [""; 0]);
}
