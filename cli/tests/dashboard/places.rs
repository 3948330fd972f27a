//! The namespaces that are offered, of a mesh in which they come and go.
//!
//! Claims: observe-67, observe-75

use crate::Shown;
use crate::browser::Browser;
use crate::mesh::Mesh;
use crate::shop;

/// Whether this namespace is offered.
fn offered(namespace: &str) -> String {
    format!(
        "[...document.querySelectorAll('#place option')].some((option) => option.value === '{namespace}')"
    )
}

#[tokio::test]
async fn namespaces_are_offered_once_absent_controller_responds() {
    let mesh = Mesh::start().await;
    mesh.graph(&shop::shop(60));
    mesh.lose(true).await;
    let weft = mesh.dashboard(&["-n", "shop"]).await;
    let mut browser = Browser::start().await;
    browser.open(&weft.url).await;
    browser
        .wait("document.querySelector('#alert').className === 'lost'")
        .await;
    assert_eq!(browser.eval(&offered("weft-system")).await, false);
    mesh.lose(false).await;
    browser.wait(&offered("weft-system")).await;
    browser.wait(&offered("*")).await;
}

#[tokio::test]
async fn new_namespace_is_offered_when_controller_returns() {
    let mut shown = Shown::of(&shop::shop(60)).await;
    shown.browser.wait(&offered("weft-system")).await;
    shown.mesh.scope(true, &["bank", "shop", "weft-system"]);
    shown.mesh.lose(true).await;
    shown
        .browser
        .wait("document.querySelector('#alert').className === 'lost'")
        .await;
    assert_eq!(shown.browser.eval(&offered("bank")).await, false);
    shown.mesh.lose(false).await;
    shown.browser.wait(&offered("bank")).await;
}

// Claims: observe-15
#[tokio::test]
async fn page_opened_before_controller_still_starts_with_all_namespaces() {
    let mesh = Mesh::start().await;
    mesh.graph(&shop::shop(60));
    mesh.lose(true).await;
    let weft = mesh.dashboard(&[]).await;
    let mut browser = Browser::start().await;
    browser.open(&weft.url).await;
    browser
        .wait("document.querySelector('#alert').className === 'lost'")
        .await;
    mesh.lose(false).await;
    let place = "document.querySelector('#place')?.value";
    browser.wait(&format!("{place} === '*'")).await;
    browser
        .wait("document.querySelector('#alert').textContent === ''")
        .await;
    // Control: a user without the right to read all of them begins in one.
    mesh.scope(false, &["shop"]);
    let other = mesh.dashboard(&[]).await;
    browser.open(&other.url).await;
    browser.wait(&format!("{place} === 'shop'")).await;
}

#[tokio::test]
async fn page_starts_in_first_readable_namespace_if_own_forbidden() {
    let mesh = Mesh::start().await;
    mesh.graph_of("bank", &shop::shop(60));
    mesh.scope(false, &["bank", "mint"]);
    mesh.forbid("shop").await;
    let weft = mesh.dashboard(&[]).await;
    let mut browser = Browser::start().await;
    browser.open(&weft.url).await;
    let place = "document.querySelector('#place')?.value";
    browser.wait(&format!("{place} === 'bank'")).await;
    browser
        .wait("document.querySelectorAll('.overview tbody tr').length > 0")
        .await;
    assert_eq!(browser.text("#alert").await, "");
    browser.wait(&format!("!{}", offered("shop"))).await;
    // Control: one that was named is queried.
    let named = mesh.dashboard(&["-n", "shop"]).await;
    browser.open(&named.url).await;
    browser.wait(&format!("{place} === 'shop'")).await;
    browser
        .wait("document.querySelector('#alert').className === 'refused'")
        .await;
}

#[tokio::test]
async fn unknown_namespace_is_reported_and_not_kept_as_choice() {
    let mut shown = Shown::of(&shop::shop(60)).await;
    let mut empty = shop::shop(60);
    for list in ["nodes", "edges"] {
        empty[list] = serde_json::json!([]);
    }
    shown.mesh.graph_of("shpo", &empty);
    shown.mesh.graph_of("weft-system", &empty);
    let browser = &mut shown.browser;
    browser.eval("location.hash = '/graph?ns=shpo'").await;
    browser.see("There is no namespace shpo").await;
    assert_eq!(browser.eval(&offered("shpo")).await, true);
    // Control: one that is there and has no workload.
    browser
        .eval("location.hash = '/graph?ns=weft-system'")
        .await;
    browser.see("The mesh knows no workload here.").await;
    assert_eq!(browser.text("#alert").await, "");
    assert_eq!(browser.eval(&offered("shpo")).await, false);
    // One that was made since is there.
    shown.mesh.scope(true, &["shop", "shpo", "weft-system"]);
    browser.eval("location.hash = '/graph?ns=shpo'").await;
    browser
        .wait("document.querySelector('main .graph .empty')?.textContent.startsWith('The mesh')")
        .await;
    browser
        .wait("document.querySelector('#alert').textContent === ''")
        .await;
    assert_eq!(browser.faults().await, [""; 0]);
}
