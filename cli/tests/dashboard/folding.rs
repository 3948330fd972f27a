//! How much of a graph is shown at once, and by which signs.
//!
//! Claims: observe-145, observe-69

use serde_json::json;

use crate::Shown;
use crate::shop;

/// The node whose text begins so, as an expression of the page.
fn node(words: &str) -> String {
    format!(
        "[...document.querySelectorAll('.node')].find((node) => node.querySelector('title').textContent.startsWith({}))",
        json!(words)
    )
}

fn nodes(count: usize) -> String {
    format!("document.querySelectorAll('.node').length === {count}")
}

async fn press(shown: &mut Shown, words: &str) {
    let press = format!(
        "{}.dispatchEvent(new MouseEvent('click', {{bubbles: true}}))",
        node(words)
    );
    shown.browser.eval(&press).await;
}

async fn search(shown: &mut Shown, text: &str) {
    shown.browser.click("#search").await;
    shown.browser.write(text).await;
}

#[tokio::test]
async fn graph_starts_with_namespaces_and_folds_neighbours_of_opened() {
    let mut shown = Shown::with_arguments(&shop::neighbours(), &[]).await;
    let browser = &mut shown.browser;
    // Two namespaces, a caller outside and a host outside.
    browser.wait(&nodes(4)).await;
    assert_eq!(browser.count(".way").await, 3);
    assert_eq!(browser.text("footer code").await, "weft edges -A");
    // Calls within a namespace are its own, and it is as well as its worst workload.
    let shop = "Namespace shop; some calls fail; 26.7 calls per second";
    browser.wait(&node(shop)).await;
    press(&mut shown, "Namespace shop").await;
    let browser = &mut shown.browser;
    browser.wait(&nodes(8)).await;
    assert_eq!(browser.text("footer code").await, "weft edges -n shop");
    browser.wait(&node("Deployment web in shop")).await;
    browser.wait(&node("Namespace bank")).await;
    assert_eq!(browser.count(".way").await, 8);
    // What is looked for stands by itself.
    search(&mut shown, "teller-1").await;
    let browser = &mut shown.browser;
    browser.wait(&nodes(9)).await;
    assert_eq!(browser.text(".found").await, "1 of 10");
    browser.key("Enter").await;
    let focused = browser.focused().await;
    assert!(focused.contains("Deployment teller-1 in bank"), "{focused}");
    // And without folds everything.
    browser.click("#fold").await;
    browser.wait(&nodes(10)).await;
    assert_eq!(browser.count(".way").await, 10);
    assert_eq!(browser.faults().await, [""; 0]);
}

#[tokio::test]
async fn footer_command_matches_opened_node_and_its_namespace() {
    let mut shown = Shown::with_arguments(&shop::neighbours(), &[]).await;
    let browser = &mut shown.browser;
    browser.wait(&nodes(4)).await;
    for (opened, line) in [
        (
            "ns=shop&node=bank/Deployment/teller-1",
            "weft edges deploy/teller-1 -n bank",
        ),
        (
            "ns=shop&node=External/bank.example",
            "weft edges external/bank.example -n shop",
        ),
        (
            "ns=*&node=shop/Deployment/web&quiet=1",
            "weft edges deploy/web -n shop --since 30d",
        ),
        // Controls: callers outside have no name in `weft`, and nothing is open.
        ("ns=*&node=Outside/10.0.0.9", "weft edges -A"),
        ("ns=shop", "weft edges -n shop"),
    ] {
        let address = json!(format!("/graph?{opened}"));
        browser.eval(&format!("location.hash = {address}")).await;
        let line = json!(line);
        browser
            .wait(&format!(
                "document.querySelector('footer code').textContent === {line}"
            ))
            .await;
    }
    assert_eq!(browser.faults().await, [""; 0]);
}

#[tokio::test]
async fn namespace_with_one_failing_workload_is_shown_failing() {
    // 10 000 calls of one are well, and all 20 of another fail.
    let mut graph = shop::neighbours();
    for (at, requests, failure) in [(0_usize, 10_000, 0), (2, 20, 20)] {
        let edge = &mut graph["edges"][at];
        edge["requests"] = json!(requests);
        edge["success"] = json!(requests - failure);
        edge["failure"] = json!(failure);
    }
    let mut shown = Shown::with_arguments(&graph, &[]).await;
    let browser = &mut shown.browser;
    let failing = node("Namespace shop; many calls fail");
    browser.wait(&failing).await;
    browser.wait(&node("Namespace bank; well")).await;
    assert_eq!(browser.faults().await, [""; 0]);
}

#[tokio::test]
async fn table_lists_calls_within_folds_up_to_bound() {
    let rows = |count: usize| {
        format!("document.querySelectorAll('.graph > .table tbody tr').length === {count}")
    };
    let mut shown = Shown::with_arguments(&shop::neighbours(), &[]).await;
    shown.browser.wait(&nodes(4)).await;
    shown.browser.click(".bar button:nth-of-type(2)").await;
    shown.browser.wait(&rows(10)).await;
    // Of 2000 calls within one namespace.
    shown.mesh.graph(&shop::wide(100, 100, 20));
    let browser = &mut shown.browser;
    browser.wait(&rows(1000)).await;
    browser.see("1000 more calls are not listed").await;
    browser.click("#fold").await;
    browser.wait(&rows(2000)).await;
    assert_eq!(browser.faults().await, [""; 0]);
}

#[tokio::test]
async fn user_without_cluster_access_starts_in_own_namespace() {
    let mut shown = Shown::with_arguments(&shop::neighbours(), &[]).await;
    shown.browser.wait(&nodes(4)).await;
    shown.mesh.scope(false, &["shop"]);
    shown.browser.call("Page.reload", json!({})).await;
    shown.browser.wait(&nodes(8)).await;
    assert_eq!(
        shown.browser.text("footer code").await,
        "weft edges -n shop"
    );
}

#[tokio::test]
async fn oversized_graph_is_folded_and_search_finds_folded_nodes() {
    // 500 workloads; the first calls all others.
    let mut shown = Shown::of(&shop::wide(500, 1, 499)).await;
    shown.browser.wait(&nodes(297)).await;
    shown.browser.wait(&node("204 more workloads")).await;
    // A failing workload is never among them, nor the one with the most neighbours.
    for workload in ["service-450", "service-000"] {
        let wanted = node(&format!("Deployment {workload} in shop"));
        shown.browser.wait(&wanted).await;
    }
    let hidden = format!("!{}", node("Deployment service-499"));
    assert_eq!(shown.browser.eval(&hidden).await, true);
    press(&mut shown, "204 more workloads").await;
    shown.browser.see("a search finds each").await;
    search(&mut shown, "service-499").await;
    let browser = &mut shown.browser;
    browser
        .wait("document.querySelector('.found').textContent === '1 of 500'")
        .await;
    browser.key("Enter").await;
    let focused = browser.focused().await;
    assert!(
        focused.contains("Deployment service-499 in shop"),
        "{focused}"
    );
    assert_eq!(browser.count(".node").await, 297, "another made room");
    // Few nodes with 2000 lines between them.
    browser
        .eval("document.querySelector('#search').value = ''")
        .await;
    shown.mesh.graph(&shop::wide(100, 100, 20));
    let browser = &mut shown.browser;
    browser.wait(&node("26 more workloads")).await;
    assert_eq!(browser.count(".node").await, 75);
    assert_eq!(browser.count(".way").await, 1310);
    browser.click("#fold").await;
    browser.wait(&nodes(100)).await;
    assert_eq!(browser.count(".way").await, 2000);
    assert_eq!(browser.faults().await, [""; 0]);
}

#[tokio::test]
async fn every_edge_shows_mutual_tls_state_as_lock() {
    let mut graph = shop::shop(60);
    graph["edges"][0]["mtls"] = json!(null);
    let mut shown = Shown::of(&graph).await;
    let browser = &mut shown.browser;
    browser
        .wait("document.querySelectorAll('.way').length === 7")
        .await;
    // One has no report; a caller outside has none, and a host outside is called over the
    // application's own TLS.
    assert_eq!(browser.count(".scroller .lock.closed").await, 4);
    assert_eq!(browser.count(".scroller .lock.open").await, 1);
    let wide = "[...document.querySelectorAll('.scroller .lock')].every((lock) => lock.getBBox().width > 5)";
    assert_eq!(browser.eval(wide).await, true);
    // A line with a text keeps both apart.
    let apart = "[...document.querySelectorAll('.scroller .lock')].every((lock) => { const [a, b] = [lock, lock.previousElementSibling].map((one) => one.getBoundingClientRect()); return b.width === 0 || a.top >= b.bottom - 3; })";
    assert_eq!(browser.eval(apart).await, true);
    assert_eq!(browser.count(".legend .lock").await, 2);
    // Calls on one port of the same two workloads have no security report.
    let mut silent = graph["edges"][1].clone();
    silent["id"] = json!("e2-silent");
    silent["port"] = json!(81);
    silent["mtls"] = json!(null);
    graph["edges"].as_array_mut().unwrap().push(silent);
    shown.mesh.graph(&graph);
    let browser = &mut shown.browser;
    browser
        .wait("document.querySelectorAll('.scroller .lock.closed').length === 3")
        .await;
    assert_eq!(browser.count(".scroller .lock.open").await, 1);
    assert_eq!(browser.count(".way").await, 7);
    // Control: the same host, called in plaintext.
    graph["edges"][6]["protocol"] = json!("tcp");
    shown.mesh.graph(&graph);
    let browser = &mut shown.browser;
    browser
        .wait("document.querySelectorAll('.scroller .lock.open').length === 2")
        .await;
    // Of what the caller's own proxy refused nothing was sent, so there was nothing to secure.
    let refused = &mut graph["edges"][6];
    refused["attempts"] = json!(0);
    refused["success"] = json!(0);
    refused["failure"] = json!(60);
    shown.mesh.graph(&graph);
    let browser = &mut shown.browser;
    browser
        .wait("document.querySelectorAll('.scroller .lock.open').length === 1")
        .await;
    browser.click(".bar button:nth-of-type(2)").await;
    for (from, secured) in [("payments", "-"), ("10.0.0.9", "plaintext")] {
        let row = format!(
            "[...document.querySelectorAll('.graph > .table tbody tr')].some((row) => row.cells[0].textContent.includes('{from}') && row.cells[4].textContent === '{secured}')"
        );
        browser.wait(&row).await;
    }
}

#[tokio::test]
async fn earlier_calls_are_queried_only_on_demand() {
    let mut shown = Shown::of(&shop::persisted()).await;
    let browser = &mut shown.browser;
    browser
        .wait("document.querySelectorAll('.way').length === 7")
        .await;
    let quiet = |urls: &[String]| urls.iter().any(|url| url.contains("quiet=1"));
    assert!(!quiet(&browser.requested()));
    browser.click("#quiet").await;
    browser
        .wait("document.querySelectorAll('.way.quiet').length === 1")
        .await;
    assert_eq!(browser.count(".way").await, 8);
    assert!(quiet(&browser.requested()));
    assert_eq!(
        browser.text("footer code").await,
        "weft edges -n shop --since 30d"
    );
    browser.click(".bar button:nth-of-type(2)").await;
    browser.see("3 h ago").await;
    // It stands in the address.
    browser.call("Page.reload", json!({})).await;
    browser
        .wait("document.querySelector('#quiet')?.checked")
        .await;
    browser.see("3 h ago").await;
    browser.click("#quiet").await;
    browser
        .wait("!document.body.textContent.includes('3 h ago')")
        .await;
    assert_eq!(browser.faults().await, [""; 0]);
}
