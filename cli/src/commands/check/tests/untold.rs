//! What nobody tells.

use serde_json::Value;

use super::{WELL, checked, healthy, plant_proxy, with};
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
