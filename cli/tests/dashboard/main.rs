//! `weft dashboard` as a person uses it: the program, a real browser, keys and clicks.
//!
//! A ring of its own, because it needs Chromium and Node.js; `e2e/run dashboard` brings both.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that fails, fails"
)]

mod browser;
mod clock;
mod cost;
mod folding;
mod health;
mod losses;
mod mesh;
mod overview;
mod pages;
mod pictures;
mod places;
mod reach;
mod releases;
mod safety;
mod shares;
mod shop;
mod taps;

use browser::Browser;
use mesh::{Mesh, Weft};

/// The shop, the program and a browser that shows it.
struct Shown {
    mesh: Mesh,
    weft: Weft,
    browser: Browser,
}

impl Shown {
    /// The graph of namespace `shop`.
    async fn of(graph: &serde_json::Value) -> Self {
        Self::with_arguments(graph, &["-n", "shop"]).await
    }

    /// The graph of the place in which `weft dashboard` with these arguments begins.
    async fn with_arguments(graph: &serde_json::Value, arguments: &[&str]) -> Self {
        let mesh = Mesh::start().await;
        mesh.graph(graph);
        mesh.split("catalog", &[("catalog-v1", 90), ("catalog-v2", 10)]);
        mesh.target(
            "cart-to-payments",
            &serde_json::json!({"destination": {"kind": "ServiceAccount", "name": "payments", "namespace": "shop"},
                "sources": [{"kind": "ServiceAccount", "name": "cart", "namespace": "shop"}],
                "rules": [{"kind": "HTTPRouteGroup", "name": "routes", "matches": ["pay"]}]}),
        );
        mesh.proxy(&shop::proxy("web-5d8", true));
        mesh.proxy(&shop::proxy("cart-77c", true));
        mesh.set_explanation(&shop::refusal()).await;
        let weft = mesh.dashboard(arguments).await;
        let mut browser = Browser::start().await;
        browser.open(&weft.url).await;
        browser.wait("document.querySelector('nav a')").await;
        browser.eval("location.hash = '/graph'").await;
        browser
            .wait("document.querySelectorAll('.node').length > 0")
            .await;
        Self {
            mesh,
            weft,
            browser,
        }
    }

    /// Opens a page by its link.
    async fn page(&mut self, title: &str) {
        let found = format!(
            "(() => {{ const a = [...document.querySelectorAll('nav a')].find((a) => a.textContent === {title:?}); a.id = 'wanted'; }})()"
        );
        self.browser.eval(&found).await;
        self.browser.click("#wanted").await;
        self.browser
            .eval("document.querySelector('#wanted').removeAttribute('id')")
            .await;
        let shown =
            format!("document.querySelector('nav a[aria-current]').textContent === {title:?}");
        self.browser.wait(&shown).await;
    }
}
