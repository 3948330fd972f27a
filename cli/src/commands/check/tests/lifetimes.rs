//! Certificates that live for a quarter of an hour, as the chart may have it.
//!
//! Claims: observe-74

use k8s_openapi::jiff::Timestamp;

use super::*;

/// So many seconds from now.
fn at(seconds: i64) -> String {
    let at = Timestamp::from_second(Timestamp::now().as_second() + seconds);
    at.unwrap().to_string()
}

#[tokio::test]
async fn short_lived_certificate_passes_until_renewal_is_missed() {
    let (none, late): (&[&str], &[&str]) = (&[], &["certificates"]);
    for (reports_issue, left, found) in [
        (true, 360, none),
        (false, 360, none),
        (true, 170, late),
        (false, 170, late),
    ] {
        let api = healthy();
        let mut controller = controller(true, true);
        let env = &mut controller["spec"]["template"]["spec"]["containers"][0]["env"];
        let ttl = json!({"name": "WEFT_LEAF_TTL", "value": "15m"});
        env.as_array_mut().unwrap().push(ttl);
        api.put(&format!("{WEFT}/weft-controller"), controller);
        let mut certificate = json!({"notAfter": at(left)});
        if reports_issue {
            certificate["issued"] = json!(at(left - 900));
        }
        plant_proxy(&api, "certificate", certificate);
        let (ended, report, _) = checked(&api, WELL, &[]).await;
        assert_eq!(with(&report, &["warning", "error"]), found, "{report:#}");
        let expected = match found {
            [] => Conclusion::Yes,
            _ => Conclusion::No,
        };
        assert_eq!(ended.unwrap(), expected, "{report:#}");
    }
}
