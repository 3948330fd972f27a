//! Without a mouse and without eyes.
//!
//! Claims: observe-77

use serde_json::{Value, json};

use crate::Shown;
use crate::mesh::sources;
use crate::shop;

// Claims: observability-9
#[tokio::test]
async fn the_keyboard_alone_reaches_every_node_and_every_page() {
    let mut shown = Shown::of(&shop::shop(60)).await;
    let browser = &mut shown.browser;
    // A page that is opened by its address begins at the top. `Shown` has opened this one from
    // another, whose reader goes on at the new page.
    browser.call("Page.reload", json!({})).await;
    browser
        .wait("document.querySelectorAll('.node').length > 0")
        .await;
    let mut stops = Vec::new();
    while !stops.iter().any(|stop: &String| stop.starts_with("g ")) {
        browser.key("Tab").await;
        stops.push(browser.focused().await);
        assert!(stops.len() < 40, "{stops:?}");
    }
    assert!(
        stops[0].starts_with("a ") && stops[0].contains("Skip"),
        "{stops:?}"
    );
    for title in [
        "Overview",
        "Graph",
        "Workloads",
        "Splits",
        "Policy",
        "Explain",
        "Tap",
        "Proxies",
        "Health",
    ] {
        assert!(
            stops
                .iter()
                .any(|stop| stop.starts_with("a ") && stop.ends_with(title)),
            "{title}: {stops:?}"
        );
    }
    assert!(
        stops.iter().any(|stop| stop.contains("search")),
        "{stops:?}"
    );
    // Arrows go from node to node; the graph is one stop.
    browser.key("Home").await;
    let mut met = std::collections::BTreeSet::from([browser.focused().await]);
    for key in [
        "ArrowRight",
        "ArrowRight",
        "ArrowDown",
        "ArrowDown",
        "ArrowUp",
        "ArrowRight",
        "ArrowUp",
        "ArrowRight",
        "ArrowDown",
        "ArrowLeft",
        "ArrowUp",
        "ArrowUp",
        "ArrowLeft",
    ] {
        browser.key(key).await;
        met.insert(browser.focused().await);
    }
    assert!(
        met.len() >= 6 && met.iter().all(|name| name.starts_with("g ")),
        "{met:?}"
    );
    browser.key("End").await;
    browser.key("Enter").await;
    browser
        .wait("!document.querySelector('.panel').hidden")
        .await;
    browser.key("Escape").await;
    browser
        .wait("document.querySelector('.panel').hidden")
        .await;
    browser.key("/").await;
    browser.wait("document.activeElement.id === 'search'").await;
    // A page is opened by its link.
    browser
        .eval("document.querySelectorAll('nav a')[3].focus()")
        .await;
    browser.key("Enter").await;
    browser
        .wait("document.querySelector('h1').textContent === 'Splits'")
        .await;
    assert_eq!(
        browser.eval("document.activeElement.id").await,
        "main",
        "the reader goes on at the new page"
    );
    assert_eq!(browser.faults().await, [""; 0]);
}

#[tokio::test]
async fn keyboard_focus_stays_in_page_after_opening_namespace() {
    let mut shown = Shown::with_arguments(&shop::neighbours(), &[]).await;
    let browser = &mut shown.browser;
    browser
        .wait("document.querySelectorAll('.node').length === 4")
        .await;
    browser
        .eval("document.querySelector('.node[tabindex=\"0\"]').focus()")
        .await;
    for key in ["Home", "ArrowRight"] {
        browser.key(key).await;
    }
    let focused = browser.focused().await;
    assert!(focused.contains("Namespace shop"), "{focused}");
    browser.key("Enter").await;
    browser
        .wait("document.querySelectorAll('.node').length === 8")
        .await;
    let focused = browser.focused().await;
    assert!(focused.starts_with("main "), "{focused}");
    browser.key("Tab").await;
    let next = browser.focused().await;
    assert!(next.contains("search"), "{next}");
}

// Claims: observability-9
#[tokio::test]
async fn axe_finds_no_fault_in_light_or_dark_mode() {
    let axe = std::fs::read_to_string(sources().join("node_modules/axe-core/axe.min.js"));
    let axe = axe.expect("e2e/run dashboard installs axe-core");
    let mut shown = Shown::of(&shop::shop(60)).await;
    shown.browser.eval("document.querySelector('.node').dispatchEvent(new MouseEvent('click', {bubbles: true}))").await;
    shown
        .browser
        .wait("!document.querySelector('.panel').hidden")
        .await;
    shown.browser.eval(&format!("{axe}; true")).await;
    // What it can find is found: a control without a name. Beside `main`, which is drawn anew at
    // each response.
    shown.browser.eval("(() => { const b = document.createElement('button'); b.id = 'planted'; document.body.append(b); })()").await;
    let planted = violations(&mut shown).await;
    assert!(
        planted.iter().any(|id| id.starts_with("button-name")),
        "{planted:?}"
    );
    shown
        .browser
        .eval("document.querySelector('#planted').remove()")
        .await;
    let mut looked_at = 0;
    for scheme in ["light", "dark"] {
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        shown
            .browser
            .call("Emulation.setEmulatedMedia", media)
            .await;
        for title in [
            "Overview",
            "Graph",
            "Workloads",
            "Splits",
            "Policy",
            "Explain",
            "Tap",
            "Proxies",
            "Health",
        ] {
            shown.page(title).await;
            let found = violations(&mut shown).await;
            assert!(found.is_empty(), "{title}, {scheme}: {found:#?}");
            looked_at += 1;
        }
        shown.page("Graph").await;
        shown.browser.click(".bar button:nth-of-type(2)").await;
        let found = violations(&mut shown).await;
        assert!(found.is_empty(), "table, {scheme}: {found:#?}");
        looked_at += 1;
        shown.browser.click(".bar button:nth-of-type(1)").await;
    }
    // `make eyes` takes it up.
    println!("measured: none on {looked_at} pages and tables, by day and by night together");
}

async fn violations(shown: &mut Shown) -> Vec<String> {
    let run = "axe.run(document, {resultTypes: ['violations']}).then((result) => result.violations.map((one) => \
               `${one.id}: ${one.nodes.map((node) => node.html + ' ' + node.failureSummary).slice(0, 3).join(' ; ')}`))";
    let found: Value = shown.browser.eval(run).await;
    serde_json::from_value(found).unwrap()
}
