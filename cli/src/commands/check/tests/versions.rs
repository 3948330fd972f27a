//! Which proxies are too old.
//!
//! Claims: observe-155

use super::*;

/// An image may have any tag, and the injector notes that.
#[tokio::test]
async fn reported_proxy_version_takes_precedence_over_image_tag() {
    let planted = |noted: &str, reported: Value| {
        let api = healthy();
        let mut controller = controller(true, true);
        controller["metadata"]["labels"]["app.kubernetes.io/version"] = json!("0.4.0");
        api.put(&format!("{WEFT}/weft-controller"), controller);
        let mut pod = pod();
        pod["metadata"]["annotations"]["weft.dev/proxy-version"] = json!(noted);
        api.put(POD, pod);
        let mut proxy = proxy();
        proxy["status"]["version"] = reported;
        api.put(PROXY, proxy);
        api
    };
    for (noted, reported, result) in [
        ("main", json!("0.1.0"), "warning"),
        ("main", json!("0.2.0"), "ok"),
        ("0.1.0", json!("0.3.0"), "ok"),
        ("0.1.0", Value::Null, "warning"),
    ] {
        let (_, report, _) = checked(&planted(noted, reported), WELL, &[]).await;
        let checks = report["checks"].as_array().unwrap();
        let own = checks.iter().find(|check| check["id"] == "old-proxies");
        let own = own.unwrap();
        assert_eq!(own["result"], result, "{noted}: {own}");
    }
}
