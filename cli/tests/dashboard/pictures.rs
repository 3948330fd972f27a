//! The pictures of the docs, of the real page. They are drawn in every run, and written by `make
//! dashboard`.

use std::path::Path;

use serde_json::json;

use crate::Shown;
use crate::shop;
use crate::taps;

/// Large enough to be read in a page, small enough for a repository.
const MOST_BYTES: usize = 120 << 10;
/// An empty page is smaller.
const LEAST_BYTES: usize = 8 << 10;

#[tokio::test]
async fn pictures_of_the_docs_show_the_real_page() {
    let mut shown = Shown::of(&shop::shop(60)).await;
    let size = json!({"width": 1180, "height": 560, "deviceScaleFactor": 1, "mobile": false});
    shown
        .browser
        .call("Emulation.setDeviceMetricsOverride", size)
        .await;
    shown.browser.call("Page.reload", json!({})).await;
    shown
        .browser
        .wait("document.querySelectorAll('.node').length === 7")
        .await;
    write(&mut shown, "graph").await;
    shown.page("Overview").await;
    shown
        .browser
        .wait("document.querySelectorAll('.overview canvas').length === 3")
        .await;
    write(&mut shown, "overview").await;
    shown.page("Splits").await;
    shown.browser.see("90.00 %").await;
    write(&mut shown, "splits").await;
    shown.page("Policy").await;
    shown
        .browser
        .wait("document.querySelector('td.bad button')")
        .await;
    shown.browser.click("td.bad button").await;
    shown.browser.see("set method and path").await;
    for (field, value) in [("method", "POST"), ("path", "/pay")] {
        let fill = format!("document.querySelector('#{field}').value = '{value}'");
        shown.browser.eval(&fill).await;
    }
    shown.browser.click("button[type=submit]").await;
    shown.browser.wait("document.querySelector('.yaml')").await;
    shown
        .browser
        .eval("document.querySelector('main').focus()")
        .await;
    write(&mut shown, "explain").await;
    tap(&mut shown).await;
    write(&mut shown, "tap").await;
    shown.page("Graph").await;
    shown
        .browser
        .wait("document.querySelectorAll('.node').length === 7")
        .await;
    shown.mesh.lose(true).await;
    shown.browser.see("Stale since").await;
    write(&mut shown, "lost").await;
}

/// The page that shows requests, with some of web's.
async fn tap(shown: &mut Shown) {
    shown.page("Tap").await;
    taps::start(shown, "deploy/web").await;
    taps::tap_requests(shown, 1).await;
    for (path, status, reason) in [
        ("/items", 200, ""),
        ("/items/7", 200, ""),
        ("/items/9", 503, "overload"),
        ("/items/12", 404, ""),
        ("/items", 200, ""),
    ] {
        let mut request = taps::request(path);
        request["request"]["status"] = json!(status);
        request["request"]["reason"] = json!(reason);
        shown.mesh.show(&request).await;
    }
    shown.mesh.show(&taps::counts(5, 5, false)).await;
    shown.browser.see("5 of 5 matching requests shown").await;
    shown
        .browser
        .eval("document.querySelector('main').focus()")
        .await;
}

async fn write(shown: &mut Shown, name: &str) {
    // Two frames, so that what was last changed is drawn.
    let drawn =
        "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))";
    shown.browser.eval(drawn).await;
    let picture = shown.browser.picture().await;
    assert!(
        (LEAST_BYTES..MOST_BYTES).contains(&picture.len()),
        "{name}: {} bytes",
        picture.len()
    );
    if std::env::var_os("WEFT_WRITE_GENERATED").is_some() {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/dashboard"));
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join(format!("{name}.png")), picture).unwrap();
    }
}
