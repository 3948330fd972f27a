//! Hostile text, hostile pages, and a page that differs from its sources.
//!
//! Claims: observe-78

use std::process::Command;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::Shown;
use crate::mesh::sources;
use crate::shop::{self, HOSTILE};

/// What `weft` carries of the page at most.
const MOST_BYTES: usize = 900_000;

// Claims: observability-9
#[tokio::test]
async fn text_of_the_cluster_is_text_on_every_page() {
    let mut shown = Shown::of(&shop::hostile()).await;
    shown
        .mesh
        .split("catalog", &[(HOSTILE, 90), ("catalog-v2", 10)]);
    shown.mesh.target(
        "evil",
        &json!({"destination": {"kind": HOSTILE, "name": HOSTILE}, "sources": [{"kind": HOSTILE, "name": HOSTILE}],
            "rules": [{"kind": HOSTILE, "name": HOSTILE, "matches": [HOSTILE]}]}),
    );
    let mut proxy = shop::proxy("evil-1", true);
    proxy["status"]["nacks"] = json!([{"object": HOSTILE, "reason": HOSTILE}]);
    proxy["status"]["version"] = json!(HOSTILE);
    shown.mesh.proxy(&proxy);
    let mut explanation = shop::refusal();
    explanation["reason"] = json!(HOSTILE);
    explanation["refusedBy"] = json!([HOSTILE]);
    explanation["steps"][0]["text"] = json!(HOSTILE);
    explanation["fix"]["objects"][0]["metadata"]["name"] = json!(HOSTILE);
    explanation["fix"]["commands"] = json!([HOSTILE]);
    explanation["fix"]["warnings"] = json!([HOSTILE]);
    explanation["programmed"]["nacks"] = json!([HOSTILE]);
    shown.mesh.set_explanation(&explanation).await;
    for title in [
        "Overview",
        "Graph",
        "Workloads",
        "Splits",
        "Policy",
        "Proxies",
        "Health",
    ] {
        shown.page(title).await;
        shown.browser.see("<img src=x").await;
        harmless(&mut shown).await;
    }
    shown.page("Graph").await;
    shown.browser.click(".bar button:nth-of-type(2)").await;
    shown.browser.see("<img src=x").await;
    harmless(&mut shown).await;
    shown.browser.click(".graph > .table tbody button").await;
    shown
        .browser
        .wait("!document.querySelector('.panel').hidden")
        .await;
    harmless(&mut shown).await;
    shown.page("Policy").await;
    shown.browser.click("td.bad button").await;
    shown.browser.see("set method and path").await;
    shown.browser.click("button[type=submit]").await;
    shown.browser.see("Warning: <img").await;
    harmless(&mut shown).await;
    // `make eyes` reads this count. Their targets are checked when the browser is dropped.
    let requests = shown.browser.requested().len();
    assert!(requests > 0, "no request was sent");
    println!("measured: {requests} requests looked at, no report of its policy");
}

pub(super) async fn harmless(shown: &mut Shown) {
    let browser = &mut shown.browser;
    assert_eq!(browser.eval("window.hit === undefined").await, true);
    assert_eq!(browser.count("img, iframe, body script").await, 0);
    let raw = browser
        .eval("/[\\u0000-\\u0008\\u000e-\\u001f\\u202e]/.test(document.documentElement.outerHTML)");
    assert_eq!(
        raw.await,
        false,
        "what a terminal acts upon is an escape, also in a copy"
    );
    assert!(browser.text("body").await.contains("\\u{1b}[2J"));
    assert_eq!(browser.faults().await, [""; 0]);
}

// Claims: observability-9
#[tokio::test]
async fn other_page_in_browser_can_neither_read_nor_change() {
    let mut shown = Shown::of(&shop::shop(60)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let evil = format!(
        "http://127.0.0.1:{}/",
        listener.local_addr().unwrap().port()
    );
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            let page = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 13\r\nconnection: close\r\n\r\n<p>evil</p>\r\n";
            let _ = stream.write_all(page.as_bytes()).await;
        }
    });
    let origin = shown.weft.origin().to_owned();
    let key = shown.weft.url.split_once("key=").unwrap().1.to_owned();
    let graph = format!("{origin}/apis/observe.weft.dev/v1alpha1/graphs/live");
    let browser = &mut shown.browser;
    // The control: the page itself reads it with the key, and without it does not.
    let read = |key: &str| {
        format!(
            "fetch({graph:?}, {{headers: {{'weft-dashboard': {key:?}}}}}).then((a) => a.status, () => 'nothing')"
        )
    };
    assert_eq!(browser.eval(&read(&key)).await, 200);
    assert_eq!(browser.eval(&read("")).await, 403);
    browser.open(&evil).await;
    assert_eq!(
        browser.eval(&read(&key)).await,
        "nothing",
        "even with the key"
    );
    let mut tried = vec!["the API with the key".to_owned()];
    for address in [
        graph.clone(),
        format!("{origin}/"),
        format!("{origin}/dashboard.js"),
    ] {
        let sent =
            format!("fetch({address:?}, {{mode: 'no-cors'}}).then((a) => a.type, () => 'nothing')");
        assert_eq!(browser.eval(&sent).await, "nothing", "{address}");
        tried.push(address.replacen(&origin, "", 1));
    }
    let framed = format!(
        "new Promise((done) => {{ const f = document.createElement('iframe'); f.src = {origin:?}; f.onload = () => done(f.contentDocument === null); document.body.append(f); }})"
    );
    assert_eq!(browser.eval(&framed).await, true, "no frame shows it");
    tried.push("a frame".to_owned());
    // A name that resolves to loopback: the letters of the host are not ours.
    browser
        .open(&origin.replace("127.0.0.1", "a.localhost"))
        .await;
    let text = browser.text("body").await;
    assert!(text.contains("not the dashboard's"), "{text}");
    tried.push("another host's name".to_owned());
    // Without its key the page names what is missing.
    browser.eval("0").await;
    browser
        .open(&format!("{}/", origin.replace("127.0.0.1", "localhost")))
        .await;
    browser.see("the key of this start is missing").await;
    // `make eyes` takes it up.
    println!(
        "measured: its own page with the key 200, without 403; nothing by {}",
        tried.join(", ")
    );
}

#[tokio::test]
async fn wrong_key_in_link_keeps_good_one() {
    let mut shown = Shown::of(&shop::shop(60)).await;
    let origin = shown.weft.origin().to_owned();
    let good = shown.weft.url.split_once("key=").unwrap().1.to_owned();
    let browser = &mut shown.browser;
    let wrong = "0".repeat(good.len());
    browser.open(&format!("{origin}/#key={wrong}")).await;
    browser
        .wait("document.querySelector('#words')?.textContent.includes('is not of this start')")
        .await;
    browser
        .wait("document.querySelectorAll('.overview tbody tr').length > 0")
        .await;
    let held = "sessionStorage.getItem('weft-dashboard')";
    assert_eq!(browser.eval(held).await, good);
    let address = browser.eval("location.href").await;
    assert!(!address.as_str().unwrap().contains("key="), "{address}");
    // Control: a good one takes the place of a wrong one.
    browser
        .eval(&format!(
            "sessionStorage.setItem('weft-dashboard', '{wrong}')"
        ))
        .await;
    browser.open(&format!("{origin}/#key={good}")).await;
    browser.wait(&format!("{held} === '{good}'")).await;
}

#[test]
fn bundled_dashboard_matches_build_of_its_sources() {
    let sources = sources();
    let run = |program: &str, arguments: &[&str]| {
        let ended = Command::new(program)
            .args(arguments)
            .current_dir(sources)
            .output();
        let ended = ended
            .unwrap_or_else(|error| panic!("{program}: {error}; e2e/run dashboard installs it"));
        let words = String::from_utf8_lossy(&ended.stdout).into_owned()
            + &String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{program} {arguments:?}: {words}");
    };
    run("node", &["node_modules/typescript/bin/tsc", "--noEmit"]);
    let made = tempfile::tempdir().unwrap();
    run("node", &["build.mjs", made.path().to_str().unwrap()]);
    let mut whole = 0;
    for file in ["index.html", "dashboard.js", "dashboard.css"] {
        let wanted = std::fs::read(made.path().join(file)).unwrap();
        let committed = std::fs::read(sources.join("dist").join(file)).unwrap();
        assert!(
            committed == wanted,
            "dashboard/dist/{file} is old: make dashboard writes it"
        );
        whole += committed.len();
    }
    // `make eyes` takes it up.
    println!("measured: {whole} bytes");
    assert!(whole <= MOST_BYTES, "{whole} bytes");
}
