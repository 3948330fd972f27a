//! What nobody tells, or nobody can be asked.

use serde_json::Value;

use super::{WELL, Webhooks, checked, healthy, plant_proxy, with};
use crate::failure::Verdict;

#[tokio::test]
async fn what_is_told_of_no_proxy_is_skipped_and_not_called_well() {
    for (field, id) in [
        ("certificate", "certificates"),
        ("clockAheadMs", "proxy-clocks"),
    ] {
        let api = healthy();
        plant_proxy(&api, field, Value::Null);
        let (ended, report, _) = checked(&api, WELL, &[]).await;
        assert_eq!(ended.unwrap(), Verdict::Yes, "{report:#}");
        assert_eq!(with(&report, &["skipped"]), [id], "{report:#}");
    }
}

#[tokio::test]
async fn api_that_is_called_available_and_answers_nobody_is_not_well() {
    let webhooks = Webhooks {
        observes: false,
        ..WELL
    };
    let (ended, report, _) = checked(&healthy(), webhooks, &[]).await;
    assert_eq!(ended.unwrap(), Verdict::No, "{report:#}");
    assert_eq!(with(&report, &["error"]), ["api-services"], "{report:#}");
}
