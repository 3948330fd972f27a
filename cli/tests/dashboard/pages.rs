//! What a person does with it.
//!
//! Claims: observe-39, observe-40, observe-66

use crate::Shown;
use crate::shop;

#[tokio::test]
async fn search_opens_workload_with_its_neighbours_only() {
    let Shown {
        mut browser,
        weft,
        mesh,
    } = Shown::of(&shop::shop(60)).await;
    assert_eq!(browser.count(".node").await, 7);
    assert!(
        !browser
            .eval("location.href")
            .await
            .as_str()
            .unwrap()
            .contains("key="),
        "the key left the address"
    );
    browser.click("#search").await;
    browser.write("pay").await;
    browser
        .wait("document.querySelector('.found').textContent === '1 of 7'")
        .await;
    assert_eq!(browser.count(".node.faint").await, 6);
    browser.key("Enter").await;
    let focused = browser.focused().await;
    assert!(focused.contains("Deployment payments in shop"), "{focused}");
    assert!(
        focused.contains("37 refused") && focused.contains("1 of 2 pods"),
        "{focused}"
    );
    browser.key("Enter").await;
    browser.see("deploy/payments in shop").await;
    // Its calls, and what refused them.
    browser.see("37 not-allowed: explain").await;
    browser
        .wait("document.querySelector('.spark').getAttribute('aria-label').includes('30 minutes')")
        .await;
    browser.eval("(() => { const s = document.querySelector('#hops'); s.value = '1'; s.dispatchEvent(new Event('change')); })()").await;
    browser
        .wait("document.querySelectorAll('.node').length === 4")
        .await;
    browser.click("button[aria-pressed=false]").await;
    browser
        .wait("document.querySelectorAll('.graph > .table tbody tr').length > 0")
        .await;
    // What is shown stands in the address, and comes back with it.
    browser.call("Page.reload", serde_json::json!({})).await;
    browser
        .wait("document.querySelector('#hops')?.value === '1'")
        .await;
    browser.see("deploy/payments in shop").await;
    assert_eq!(
        browser.text("footer code").await,
        "weft edges deploy/payments -n shop"
    );
    assert_eq!(browser.faults().await, [""; 0]);
    let origin = weft.origin().to_owned();
    let requested = browser.requested();
    assert!(
        requested.len() > 5
            && requested
                .iter()
                .all(|url| url.starts_with(&origin) || url == "about:blank"),
        "{requested:?}"
    );
    assert!(mesh.writes().is_empty(), "{:?}", mesh.writes());
}

#[tokio::test]
async fn unknown_minutes_are_reported_beside_drawn_ones() {
    let mut shown = Shown::of(&shop::shop(60)).await;
    let open = "location.hash = '/graph?ns=shop&node=' + \
                encodeURIComponent('shop/Deployment/cart')";
    shown.browser.eval(open).await;
    shown.browser.see("deploy/cart in shop").await;
    let words = "document.querySelector('.panel .words').textContent";
    assert_eq!(shown.browser.eval(words).await, "", "the control");
    let mut new_mesh = shop::shop(60);
    new_mesh["metadata"]["historySince"] = serde_json::json!("2026-11-02T08:48:00Z");
    shown.mesh.graph(&new_mesh);
    let since = "new Date('2026-11-02T08:48:00Z').toTimeString().slice(0, 8)";
    let condition = format!("{words}.startsWith(`Minutes before ${{{since}}} are not known`)");
    shown.browser.wait(&condition).await;
    // What is drawn begins half an hour before 09:00, and all of that is known.
    new_mesh["metadata"]["historySince"] = serde_json::json!("2026-11-02T08:30:00Z");
    shown.mesh.graph(&new_mesh);
    shown.browser.wait(&format!("{words} === ''")).await;
    let full = &mut new_mesh["edges"][0];
    full["history"] = serde_json::json!([]);
    full["historyLeftOut"] = serde_json::json!(true);
    shown.mesh.graph(&new_mesh);
    let condition = format!("{words}.startsWith('Minutes of 1 of its 1 edges are missing')");
    shown.browser.wait(&condition).await;
    assert_eq!(shown.browser.faults().await, [""; 0]);
}

#[tokio::test]
async fn refused_call_links_to_reason_and_allowing_objects() {
    let mut shown = Shown::of(&shop::shop(60)).await;
    let mut refusal = shop::refusal();
    let nacks = ["shop/payments-1: too long"];
    refusal["programmed"] = serde_json::json!({"proxies": 1, "of": 2, "nacks": nacks});
    shown.mesh.set_explanation(&refusal).await;
    shown.page("Policy").await;
    shown.browser.see("shop/cart-to-payments").await;
    shown.browser.click("td.bad button").await;
    let browser = &mut shown.browser;
    // The refused requests are not counted by method and path, so the form waits for it.
    browser.see("set method and path").await;
    assert!(shown.mesh.explained().await.is_empty());
    let line = browser.text("footer code").await;
    assert_eq!(
        line,
        "weft explain deploy/web svc/payments:80 METHOD PATH -n shop"
    );
    browser.click("button[type=submit]").await;
    browser.wait("document.querySelector('.outcome h2')").await;
    assert_eq!(
        browser.text(".outcome h2").await,
        "Refused 403 not-allowed, by the proxies of payments"
    );
    let reason = browser.text(".outcome").await;
    assert!(
        reason.contains("source web is none of its sources (cart)"),
        "{reason}"
    );
    assert!(reason.contains("185 refused not-allowed"), "{reason}");
    assert!(reason.contains("1 of 2 proxies have"), "{reason}");
    assert!(reason.contains("judge by the version before"), "{reason}");
    assert!(reason.contains("shop/payments-1: too long"), "{reason}");
    let yaml = browser.text(".yaml").await;
    assert!(
        yaml.contains("kind: TrafficTarget") && yaml.contains("pathRegex: ^/pay$"),
        "{yaml}"
    );
    let objects = serde_yaml_ng::Deserializer::from_str(&yaml).count();
    assert_eq!(objects, 2, "kubectl takes it as it stands: {yaml}");
    let line = browser.text("footer code").await;
    assert_eq!(
        line,
        "weft explain deploy/web svc/payments:80 GET / -n shop"
    );
    // And another call, typed, which one pod decides otherwise, by rules that both have.
    let of_pods = |share: f64, verdict: &str, pod: &str| {
        serde_json::json!({"service": "shop/payments", "share": share, "verdict": verdict,
            "ready": 2, "endpoints": 2, "judged": 1, "pods": [pod]})
    };
    refusal["verdict"] = "Mixed".into();
    refusal["programmed"] = serde_json::json!({"proxies": 2, "of": 2});
    refusal["backends"] = serde_json::json!([
        of_pods(0.5, "Allowed", "shop/payments-1"),
        of_pods(0.5, "Refused", "shop/payments-2"),
    ]);
    shown.mesh.set_explanation(&refusal).await;
    let browser = &mut shown.browser;
    browser
        .eval("document.querySelector('#method').value = 'POST'")
        .await;
    browser.click("#path").await;
    browser.key("End").await;
    browser.write("pay").await;
    browser.key("Enter").await;
    browser
        .wait("document.querySelector('footer code').textContent.includes('POST /pay')")
        .await;
    let mut explained = shown.mesh.explained().await;
    for _ in 0..100 {
        if explained.len() > 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        explained = shown.mesh.explained().await;
    }
    shown.browser.see("so at payments-2").await;
    let reason = shown.browser.text(".outcome").await;
    for words in [
        "some calls refused by the proxies of payments",
        "50.00 % of the calls, Refused, 2 of 2 endpoints ready; so at payments-2",
        "2 of 2 proxies have what this says.",
    ] {
        assert!(reason.contains(words), "no {words:?} in {reason}");
    }
    let spec = &explained.last().unwrap().spec;
    assert_eq!(
        (spec.from.name.as_str(), spec.to.name.as_str(), spec.to.port),
        ("web", "payments", Some(80))
    );
    assert_eq!(
        (spec.method.as_deref(), spec.path.as_deref()),
        (Some("POST"), Some("/pay"))
    );
    assert_eq!(shown.browser.faults().await, [""; 0]);
}

#[tokio::test]
async fn shares_follow_split_weights_while_page_is_open() {
    let mut shown = Shown::of(&shop::shop(60)).await;
    shown.page("Splits").await;
    let row = "[...document.querySelectorAll('tbody tr')].find((row) => row.cells[2].textContent === 'catalog-v2')";
    let cells = format!("[3, 4, 5].map((at) => {row}?.cells[at].textContent.trim()).join(' | ')");
    shown
        .browser
        .wait(&format!("{cells} === '10 | 10.00 % | 10.00 %'"))
        .await;
    shown.browser.eval(&format!("{row}.id = 'the-same'")).await;
    shown
        .mesh
        .split("catalog", &[("catalog-v1", 50), ("catalog-v2", 50)]);
    shown
        .browser
        .wait(&format!("{cells} === '50 | 50.00 % | 10.00 %'"))
        .await;
    shown.mesh.graph(&shop::shop(270));
    shown
        .browser
        .wait(&format!("{cells} === '50 | 50.00 % | 45.00 %'"))
        .await;
    assert_eq!(
        shown.browser.count("#the-same").await,
        1,
        "the row is not made anew"
    );
}

#[tokio::test]
async fn lost_controller_is_reported_while_known_graph_stays() {
    let mut shown = Shown::of(&shop::shop(60)).await;
    shown.mesh.lose(true).await;
    let browser = &mut shown.browser;
    browser
        .wait("document.querySelector('#alert').textContent.startsWith('Stale since')")
        .await;
    let alert = browser.text("#alert").await;
    assert!(
        alert.contains("no controller") && alert.contains("weft check"),
        "{alert}"
    );
    assert_eq!(browser.count(".node").await, 7, "what was known stays");
    assert_eq!(
        browser
            .eval("document.querySelector('#alert').getAttribute('role')")
            .await,
        "alert"
    );
    shown.page("Health").await;
    shown.browser.see("since").await;
    shown
        .browser
        .wait("document.querySelector('tbody td.bad')")
        .await;
    shown.mesh.graph(&shop::shop(300));
    shown.mesh.lose(false).await;
    shown
        .browser
        .wait("document.querySelector('#alert').textContent === ''")
        .await;
    shown.browser.see("The controller answers again.").await;
    // Its end is reported too, and by another text.
    shown.weft.stop().await;
    shown
        .browser
        .wait("document.querySelector('#alert').textContent.includes('was it stopped?')")
        .await;
}

#[tokio::test]
async fn overloaded_controller_is_distinguished_from_lost_permission() {
    let mut shown = Shown::of(&shop::shop(60)).await;
    shown.mesh.crowd(true).await;
    let browser = &mut shown.browser;
    browser
        .wait("document.querySelector('#alert').textContent.startsWith('Stale since')")
        .await;
    let alert = browser.text("#alert").await;
    assert!(alert.contains("too much to answer"), "{alert}");
    assert!(alert.contains("no room beside the others"), "{alert}");
    let class = "document.querySelector('#alert').className";
    assert_eq!(browser.eval(class).await, "lost");
    shown.mesh.crowd(false).await;
    browser
        .wait("document.querySelector('#alert').textContent === ''")
        .await;
    // Control: a right that ended has its own message.
    shown.mesh.forbid("shop").await;
    browser
        .wait("document.querySelector('#alert').className === 'refused'")
        .await;
    let alert = browser.text("#alert").await;
    assert!(
        alert.contains("no answer is given to this reader"),
        "{alert}"
    );
}

#[tokio::test]
async fn unreadable_namespace_is_named_with_granting_role() {
    let mut shown = Shown::of(&shop::shop(60)).await;
    shown.mesh.scope(false, &["shop"]);
    shown.mesh.forbid("other").await;
    let browser = &mut shown.browser;
    browser.call("Page.reload", serde_json::json!({})).await;
    browser
        .wait("document.querySelectorAll('.node').length === 7")
        .await;
    let offered =
        "[...document.querySelectorAll('#place option')].map((option) => option.value).join()";
    assert_eq!(
        browser.eval(offered).await,
        "shop",
        "nothing is offered that cannot be shown"
    );
    browser.eval("location.hash = '/graph?ns=other'").await;
    browser
        .wait(
            "document.querySelector('#alert').textContent.includes('ClusterRole view grants this')",
        )
        .await;
    assert_eq!(
        browser
            .eval("document.querySelector('#alert').className")
            .await,
        "refused"
    );
}

#[tokio::test]
async fn graph_is_never_shown_under_other_namespace() {
    let mut shown = Shown::of(&shop::shop(60)).await;
    shown.mesh.forbid("other").await;
    let browser = &mut shown.browser;
    browser.eval("location.hash = '/graph?ns=other'").await;
    browser
        .wait("document.querySelector('#alert').className === 'refused'")
        .await;
    assert_eq!(browser.count(".node").await, 0);
    assert!(
        !browser.text("footer").await.contains("Known at"),
        "nothing is"
    );
    browser.eval("location.hash = '/health?ns=other'").await;
    browser.see("Nothing is known of this place.").await;
    // A query can be sent all the same.
    browser.eval("location.hash = '/explain?ns=other'").await;
    browser.wait("document.querySelector('#method')").await;
    browser.eval("location.hash = '/graph?ns=shop'").await;
    browser
        .wait("document.querySelectorAll('.node').length === 7")
        .await;
    assert_eq!(browser.text("#alert").await, "");
    // Rights that end leave what was known, with its age.
    shown.mesh.forbid("shop").await;
    let browser = &mut shown.browser;
    browser
        .wait("document.querySelector('#alert').textContent.startsWith('Stale since')")
        .await;
    assert_eq!(browser.count("main.stale").await, 1);
    assert_eq!(browser.count(".node").await, 7);
}

#[tokio::test]
async fn unreported_values_are_not_shown_as_well() {
    let mut shown = Shown::of(&shop::shop(60)).await;
    shown.page("Health").await;
    let of = |name: &str| {
        format!(
            "[...document.querySelectorAll('tbody tr')].find((row) => row.cells[0].textContent === '{name}')?.cells[1].textContent.trim()"
        )
    };
    for (name, result) in [
        ("Proxies are connected", "✓ well"),
        ("Certificates last", "✓ well"),
        ("Clocks agree", "? not known"),
    ] {
        let wanted = format!("{} === '{result}'", of(name));
        shown.browser.wait(&wanted).await;
    }
    shown.mesh.break_list("proxies").await;
    let wanted = format!("{} === '? not known'", of("Proxies are connected"));
    shown.browser.wait(&wanted).await;
    // The graph was received, so that is all that is missing.
    assert_eq!(shown.browser.text("#alert").await, "");
    shown.browser.see("the list is broken").await;
}

#[tokio::test]
async fn every_page_shows_what_it_is_for() {
    let mut shown = Shown::of(&shop::shop(60)).await;
    shown.mesh.proxy(&shop::proxy("gone-1", false));
    for (title, texts) in [
        ("Workloads", ["deploy/catalog-v1", "99.34 %", "1 of 2"]),
        ("Proxies", ["shop/web-5d8", "9.5 Mi", "gone-1"]),
        (
            "Health",
            [
                "Proxies are connected",
                "✗ problem",
                "shop/payments: 1 of 2 pods",
            ],
        ),
    ] {
        shown.page(title).await;
        for text in texts {
            shown.browser.see(text).await;
        }
        assert!(
            shown.browser.text("footer code").await.starts_with("weft "),
            "{title}"
        );
    }
    // A table is sorted by its heads.
    shown.page("Workloads").await;
    shown.browser.click("thead th:nth-child(5) button").await;
    shown.browser.click("thead th:nth-child(5) button").await;
    let first = "document.querySelector('tbody th').textContent";
    assert_eq!(
        shown.browser.eval(first).await,
        "deploy/cart",
        "the busiest one"
    );
    assert_eq!(shown.browser.faults().await, [""; 0]);
}
