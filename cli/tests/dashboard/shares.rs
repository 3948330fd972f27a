//! The share of calls that succeeded: one number on the whole page, the one of `weft stat`.
//!
//! Claims: observe-67

use serde_json::{Value, json};

use crate::Shown;
use crate::shop;

/// The text of the node of a workload, for a screen reader and in the picture.
async fn node(shown: &mut Shown, name: &str) -> [Value; 2] {
    let node = format!(
        "[...document.querySelectorAll('.node')].find((node) => node.querySelector('title').textContent.startsWith('Deployment {name} '))"
    );
    shown.browser.wait(&node).await;
    let text = |of: &str| format!("{node}.querySelector('{of}').textContent");
    [
        shown.browser.eval(&text("title")).await,
        shown.browser.eval(&text(".below")).await,
    ]
}

#[tokio::test]
async fn success_share_is_consistent_and_ignores_cancelled_calls() {
    let mut graph = shop::shop(60);
    // Of payments: 164 succeed, 11 are refused and 5 cancelled. Of cart all are cancelled.
    for (at, success, refused, cancelled) in [(0_usize, 0, 0, 20), (3, 0, 11, 5), (4, 164, 0, 0)] {
        let edge = &mut graph["edges"][at];
        edge["requests"] = json!(success + refused + cancelled);
        edge["success"] = json!(success);
        edge["failure"] = json!(refused);
        edge["cancelled"] = json!(cancelled);
        edge["refused"] = json!({"not-allowed": refused});
    }
    let mut shown = Shown::of(&graph).await;
    assert_eq!(
        node(&mut shown, "payments").await,
        [
            "Deployment payments in shop; well; 3.00 calls per second, 93.71 % succeed; \
             11 refused; 1 of 2 pods in the mesh",
            "3.00/s · 93.71 % · ⊘ 11"
        ]
    );
    assert_eq!(
        node(&mut shown, "cart").await,
        [
            "Deployment cart in shop; well; 0.33 calls per second; 2 of 2 pods in the mesh",
            "0.33/s"
        ]
    );
    // Control: failures that are no refusals are what they were.
    let web = node(&mut shown, "web").await;
    assert_eq!(web[1], "1.00/s · 100 %");
    let open = "location.hash = '/graph?ns=shop&node=shop/Deployment/payments'";
    shown.browser.eval(open).await;
    let calls = "document.querySelector('.panel dl').textContent";
    let condition = format!("{calls}.includes('3.00/s, 93.71 % succeed')");
    shown.browser.wait(&condition).await;
    shown.page("Workloads").await;
    for (name, share) in [("payments", "93.71 %"), ("cart", ""), ("web", "100 %")] {
        let row = format!(
            "[...document.querySelectorAll('tbody tr')].find((row) => row.cells[0].textContent === 'deploy/{name}')"
        );
        let condition = format!("{row}?.cells[3].textContent === '{share}'");
        shown.browser.wait(&condition).await;
    }
    assert_eq!(shown.browser.faults().await, [""; 0]);
}
