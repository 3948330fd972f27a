//! Answers that do not hold all that there is.

use serde_json::json;

use crate::Shown;
use crate::shop;

#[tokio::test]
async fn namespaces_that_are_told_later_are_offered_then() {
    let mut shown = Shown::of(&shop::shop(60)).await;
    shown.mesh.part_of_scope(&["shop"]);
    let browser = &mut shown.browser;
    browser.call("Page.reload", json!({})).await;
    browser
        .wait("document.querySelectorAll('.node').length === 7")
        .await;
    let offered =
        "[...document.querySelectorAll('#place option')].map((option) => option.value).join()";
    assert_eq!(browser.eval(offered).await, "shop");
    shown.mesh.scope(false, &["bank", "shop"]);
    browser.wait(&format!("{offered} === 'shop,bank'")).await;
}

#[tokio::test]
async fn proxies_that_one_answer_has_no_place_for_are_told() {
    let mut shown = Shown::of(&shop::shop(60)).await;
    shown.page("Proxies").await;
    shown.browser.see("shop/cart-77c").await;
    let words = shown.browser.text(".words").await;
    assert!(!words.contains("more proxies"), "{words}");
    shown
        .mesh
        .part_of_proxies(&[shop::proxy("web-5d8", true)], 1234);
    for title in ["Proxies", "Health"] {
        shown.page(title).await;
        shown.browser.see("1234 more proxies are not shown").await;
    }
    assert_eq!(shown.browser.faults().await, [""; 0]);
}
