//! What the page of the mesh's health says of a mesh that is well, and of one that is not.

use serde_json::json;

use crate::Shown;
use crate::shop;

/// Until the row of this name has this result.
async fn told(shown: &mut Shown, name: &str, result: &str) {
    let row = format!(
        "[...document.querySelectorAll('tbody tr')].find((row) => row.cells[0].textContent === '{name}')"
    );
    let wanted = format!("{row}?.cells[1].textContent.trim() === '{result}'");
    shown.browser.wait(&wanted).await;
}

#[tokio::test]
async fn a_window_that_ends_now_is_well_and_one_of_which_some_was_lost_is_not() {
    let mut shown = Shown::of(&shop::shop(60)).await;
    shown.page("Health").await;
    told(&mut shown, "Numbers are complete", "✓ well").await;
    let known = shown.browser.text("footer").await;
    assert!(
        known.contains("Known at") && !known.contains("not complete"),
        "{known}"
    );
    let mut graph = shop::shop(60);
    graph["metadata"]["unsettled"] = json!(false);
    graph["metadata"]["incomplete"] = json!("some of what was counted had no room");
    shown.mesh.graph(&graph);
    told(&mut shown, "Numbers are complete", "✗ look").await;
    shown.browser.see("had no room").await;
    let known = shown.browser.text("footer").await;
    assert!(known.contains("; not complete"), "{known}");
    // An older controller tells it by these words alone.
    graph["metadata"]["incomplete"] = json!("reports of the last seconds may still come");
    shown.mesh.graph(&graph);
    told(&mut shown, "Numbers are complete", "✓ well").await;
}
