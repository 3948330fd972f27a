//! A machine whose clock is wrong: the page uses the controller's time.
//!
//! Claims: observe-72

use serde_json::json;

use crate::Shown;
use crate::shop;

/// The page's clock, ten years ahead.
const WRONG: &str = "Date = class extends Date { \
    constructor(...given) { super(...(given.length > 0 ? given : [Date.now()])); } \
    static now() { return super.now() + 3652 * 86_400_000; } };";

#[tokio::test]
async fn wrong_browser_clock_changes_no_displayed_time() {
    let mut shown = Shown::of(&shop::shop(60)).await;
    // The graph's window ends at 09:00 of that day.
    let mut proxy = shop::proxy("web-5d8", true);
    proxy["status"]["certificate"]["notAfter"] = json!("2026-11-02T10:30:00Z");
    shown.mesh.proxy(&proxy);
    let browser = &mut shown.browser;
    for (method, params) in [
        (
            "Emulation.setTimezoneOverride",
            json!({"timezoneId": "Etc/UTC"}),
        ),
        (
            "Page.addScriptToEvaluateOnNewDocument",
            json!({"source": WRONG}),
        ),
        ("Page.reload", json!({})),
    ] {
        browser.call(method, params).await;
    }
    browser
        .wait("document.querySelectorAll('.node').length > 0 && new Date().getFullYear() > 2035")
        .await;
    let known = browser.text("footer").await;
    assert!(known.contains("Known at 09:00:00"), "{known}");
    shown.page("Proxies").await;
    shown.browser.see("90 min").await;
    shown.page("Health").await;
    shown.browser.see("at 09:00:00").await;
    shown.browser.see("none is about to end").await;
    shown.mesh.lose(true).await;
    shown.browser.see("Stale since 09:00:00").await;
    // What went by since then is measured, and added.
    shown.browser.see("since 09:0").await;
    let shown_rows = shown.browser.text("tbody").await;
    assert!(shown_rows.contains("since 09:0"), "{shown_rows}");
    assert_eq!(shown.browser.faults().await, [""; 0]);
}
