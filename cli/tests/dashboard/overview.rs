//! What is seen first, and whether all of it can be read: of 1, of 12 and of 300 workloads, in a
//! wide window and in a narrow one.
//!
//! Claims: observe-68

use serde_json::{Value, json};

use crate::Shown;
use crate::browser::Browser;
use crate::mesh::Mesh;
use crate::shop;

const SIZES: [u64; 3] = [1, 12, 300];
/// CSS pixels of a window at which nothing may be scrolled to the side.
const NARROW: u32 = 320;
const PAGES: [&str; 9] = [
    "Overview",
    "Graph",
    "Workloads",
    "Splits",
    "Policy",
    "Explain",
    "Tap",
    "Proxies",
    "Health",
];

/// Texts of the picture that overlap each other, overlap a node, or exceed their own box.
const OVERLAPPING: &str = "(() => { \
    const box = (e) => { const r = e.getBoundingClientRect(); return {e, l: r.left, t: r.top, r: r.right, b: r.bottom}; }; \
    const named = ({e}) => e.textContent || e.getAttribute('class'); \
    const meet = (a, b) => a.l < b.r - 1 && b.l < a.r - 1 && a.t < b.b - 1 && b.t < a.b - 1; \
    const nodes = [...document.querySelectorAll('.node')].map((e) => box(e.querySelector('rect'))); \
    const words = [...document.querySelectorAll('.signs text')].filter((e) => e.textContent !== '').map(box); \
    const found = []; \
    words.forEach((one, at) => { \
        for (const other of words.slice(at + 1)) if (meet(one, other)) found.push(`${named(one)} / ${named(other)}`); \
        for (const node of nodes) if (meet(one, node)) found.push(`${named(one)} in a node`); }); \
    nodes.forEach((one, at) => nodes.slice(at + 1).forEach((other) => { if (meet(one, other)) found.push('two nodes'); })); \
    for (const group of document.querySelectorAll('.node')) { \
        const whole = box(group.querySelector('rect')); \
        for (const text of [...group.querySelectorAll('text')].map(box)) \
            if (text.e.textContent !== '' && (text.l < whole.l || text.r > whole.r || text.t < whole.t || text.b > whole.b)) found.push(`${named(text)} leaves its node`); } \
    return found; })()";

async fn size(browser: &mut Browser, width: u32) {
    let size = json!({"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": false});
    browser
        .call("Emulation.setDeviceMetricsOverride", size)
        .await;
}

/// The list that an expression of the page is.
async fn list(browser: &mut Browser, expression: &str) -> Vec<String> {
    let found: Value = browser.eval(expression).await;
    serde_json::from_value(found).unwrap()
}

#[tokio::test]
async fn page_opens_with_an_overview_worst_first() {
    for (workloads, rows, idle) in [(1, 0, 1), (12, 8, 4), (300, 50, 100)] {
        let mesh = Mesh::start().await;
        mesh.graph(&shop::tiers(workloads));
        let weft = mesh.dashboard(&["-n", "shop"]).await;
        let mut browser = Browser::start().await;
        browser.open(&weft.url).await;
        let without = format!("{idle} without a call in the last minute");
        browser.see(&without).await;
        assert_eq!(browser.text("nav a[aria-current]").await, "Overview");
        assert_eq!(browser.count(".overview tbody tr").await, rows);
        // A line of half an hour for success, rate and latency of each.
        let lines = "[...document.querySelectorAll('.overview .line polyline')].filter((line) => line.getAttribute('points').split(' ').length === 30).length";
        assert_eq!(browser.eval(lines).await, rows * 3, "{workloads}");
        let states = "[...document.querySelectorAll('.overview tbody tr')].map((row) => row.cells[2].textContent.slice(0, 1))";
        let states = list(&mut browser, states).await;
        let rank = |state: &String| ["◆", "▲", "●"].iter().position(|one| state == one);
        assert!(states.iter().all(|state| rank(state).is_some()));
        assert!(states.is_sorted_by_key(rank), "{states:?}");
        assert_eq!(
            states.first().map(String::as_str),
            (rows > 0).then_some("◆")
        );
        if workloads == 300 {
            let all = "[...document.querySelectorAll('.overview > button')].find((button) => button.textContent === 'Show all 200').click()";
            browser.eval(all).await;
            assert_eq!(browser.count(".overview tbody tr").await, 200);
            browser.click("#filter").await;
            browser.write("service-199").await;
            browser
                .wait("document.querySelectorAll('.overview tbody tr').length === 1")
                .await;
        }
        assert_eq!(browser.faults().await, [""; 0]);
    }
}

#[tokio::test]
async fn overview_of_services_has_the_calls_to_each() {
    let mut shown = Shown::of(&shop::shop(60)).await;
    shown.page("Overview").await;
    let browser = &mut shown.browser;
    browser
        .wait("document.querySelectorAll('.overview canvas').length === 3")
        .await;
    let rate = "document.querySelector('.overview .spark').getAttribute('aria-label')";
    let rate = browser.eval(rate).await;
    assert!(rate.as_str().unwrap().contains("30 minutes"), "{rate}");
    browser.click(".bar button:nth-of-type(2)").await;
    // Both versions of the catalog are one Service.
    let row = "[...document.querySelectorAll('.overview tbody tr')].find((row) => row.cells[0].textContent === 'svc/catalog')";
    let calls = format!("{row}?.cells[4].textContent === '10.0'");
    browser.wait(&calls).await;
    assert_eq!(browser.text("footer code").await, "weft stat svc -n shop");
    // It stands in the address, and a row leads to the called side.
    browser.call("Page.reload", json!({})).await;
    browser.wait(&calls).await;
    browser
        .eval(&format!("{row}.querySelector('button').click()"))
        .await;
    browser.see("deploy/catalog-v1 in shop").await;
    assert_eq!(browser.faults().await, [""; 0]);
}

#[tokio::test]
async fn words_of_the_graph_never_cover_each_other() {
    let mut shown = Shown::of(&shop::tiers(12)).await;
    let browser = &mut shown.browser;
    for (workloads, nodes) in [(1, 1), (12, 9), (300, 201)] {
        shown.mesh.graph(&shop::tiers(workloads));
        let drawn = format!("document.querySelectorAll('.node').length === {nodes}");
        browser.wait(&drawn).await;
        let found = list(browser, OVERLAPPING).await;
        assert!(found.is_empty(), "{workloads}: {found:#?}");
    }
    // What is idle stands for itself, and each again where nothing is folded.
    browser.see("100 idle workloads").await;
    browser.click("#fold").await;
    browser
        .wait("document.querySelectorAll('.node').length === 300")
        .await;
    let found = list(browser, OVERLAPPING).await;
    assert!(found.is_empty(), "unfolded: {found:#?}");
    // The control: texts that are moved onto others are found.
    let moved = "(() => { const text = document.querySelector('.node .name'); text.setAttribute('x', '-40'); })()";
    browser.eval(moved).await;
    assert!(!list(browser, OVERLAPPING).await.is_empty());
    assert_eq!(browser.faults().await, [""; 0]);
}

#[tokio::test]
async fn size_of_the_picture_is_that_of_its_namespace() {
    let mut shown = Shown::of(&shop::shop(60)).await;
    let other = shop::tiers(12).to_string().replace("shop", "weft-system");
    let other: Value = serde_json::from_str(&other).unwrap();
    shown.mesh.graph_of("weft-system", &other);
    let browser = &mut shown.browser;
    let zoom = "(() => { const svg = document.querySelector('.scroller svg'); return svg.getAttribute('width') / svg.viewBox.baseVal.width; })()";
    for _ in 0..6 {
        browser.click("[aria-label=Smaller]").await;
    }
    assert!(browser.eval(zoom).await.as_f64().unwrap() < 0.4);
    browser
        .eval("location.hash = '/graph?ns=weft-system'")
        .await;
    browser
        .wait("document.querySelectorAll('.node').length === 9")
        .await;
    assert!(browser.eval(zoom).await.as_f64().unwrap() >= 0.65);
}

#[tokio::test]
async fn no_page_is_scrolled_sideways_in_a_narrow_window() {
    let mut shown = Shown::of(&shop::tiers(12)).await;
    size(&mut shown.browser, NARROW).await;
    for workloads in SIZES {
        shown.mesh.graph(&shop::tiers(workloads));
        for title in PAGES {
            shown.page(title).await;
            shown
                .browser
                .wait("document.querySelector('main > section')")
                .await;
            // The picture of the graph is a map, and has its own.
            let wide = "[document.documentElement, ...document.querySelectorAll('main, .table')].filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.outerHTML.slice(0, 80))";
            let wide = list(&mut shown.browser, wide).await;
            assert!(wide.is_empty(), "{title}, {workloads}: {wide:#?}");
        }
    }
    // The control.
    let browser = &mut shown.browser;
    browser
        .eval("document.querySelector('h1').style.width = '400px'")
        .await;
    let main = "(() => { const main = document.querySelector('main'); return main.scrollWidth > main.clientWidth; })()";
    assert_eq!(browser.eval(main).await, true);
}

#[tokio::test]
async fn workload_edge_and_split_have_charts() {
    let mut shown = Shown::of(&shop::shop(60)).await;
    let browser = &mut shown.browser;
    browser
        .eval("location.hash = '/graph?ns=shop&node=shop/Deployment/payments'")
        .await;
    browser
        .wait("document.querySelectorAll('.panel canvas').length === 3")
        .await;
    let label = "document.querySelector('.panel .spark').getAttribute('aria-label')";
    let most = |calls: u32| format!("{label}.includes('30 minutes, at most {calls} calls in one')");
    // Of web 37 and of cart 120, each with up to 28 more.
    browser.wait(&most(213)).await;
    let choose = "(() => { const choice = document.querySelector('#charted'); \
        choice.selectedIndex = [...choice.options].findIndex((option) => option.textContent === 'calls from deploy/cart by shop/payments:80 (http1)'); \
        choice.dispatchEvent(new Event('change')); return choice.selectedIndex; })()";
    assert!(browser.eval(choose).await.as_i64().unwrap() >= 0);
    browser.wait(&most(148)).await;
    shown.page("Splits").await;
    let browser = &mut shown.browser;
    browser
        .wait("document.querySelectorAll('.split canvas').length === 4")
        .await;
    let shares = "document.querySelector('.split .chart').getAttribute('aria-label')";
    let shares = browser.eval(shares).await;
    let shares = shares.as_str().unwrap();
    assert!(
        shares.contains("catalog-v1 ") && shares.contains("catalog-v2 "),
        "{shares}"
    );
    assert_eq!(browser.faults().await, [""; 0]);
}
