//! The CA bundles by which the API server verifies the injector.

use super::*;

/// Definitions trust as the webhooks do, and a certificate that ends late is no proof of its
/// issuer.
#[tokio::test]
async fn foreign_ca_bundle_is_found_in_webhooks_and_definitions() {
    const INJECTOR: &str = "/api/v1/namespaces/weft-system/secrets/weft-injector-ca";
    let (ours, theirs) = (root(2999), root(2999));
    let webhook =
        |pem: &str| json!({"webhooks": [{"name": "a", "clientConfig": {"caBundle": secret(pem)}}]});
    let planted = |mutating: &str, validating: &str, converting: &str, readable: bool| {
        let api = healthy();
        api.put(MUTATING, webhook(mutating));
        api.put(VALIDATING, webhook(validating));
        let (path, mut definition) = definition(crds::smi::SmiKind::TcpRoute, true);
        definition["spec"]["conversion"]["webhook"]["clientConfig"] = json!({
            "caBundle": secret(converting),
            "service": {"name": "weft-injector", "namespace": "weft-system"},
        });
        api.put(&path, definition);
        if readable {
            api.put(INJECTOR, json!({"data": {"ca.crt": secret(&ours)}}));
        }
        api
    };
    let trusted = format!("{theirs}{ours}");
    for (api, words) in [
        (planted(&ours, &ours, &ours, true), None),
        (planted(&trusted, &trusted, &trusted, true), None),
        (
            planted(&theirs, &ours, &ours, true),
            Some("webhook a does not hold"),
        ),
        (
            planted(&ours, &theirs, &ours, true),
            Some("webhook a does not hold"),
        ),
        (
            planted(&ours, &ours, &theirs, true),
            Some("definition tcproutes.specs.smi-spec.io does"),
        ),
        (
            planted(&ours, &ours, &theirs, false),
            Some("another one than that of webhook a"),
        ),
    ] {
        let (_, report, _) = checked(&api, WELL, &[]).await;
        let checks = report["checks"].as_array().unwrap();
        let own = checks.iter().find(|check| check["id"] == "ca-bundles");
        let own = own.unwrap();
        let message = own["message"].as_str().unwrap();
        match words {
            None => assert_eq!(own["result"], "ok", "{own}"),
            Some(words) => {
                assert_eq!(own["result"], "error", "{own}");
                assert!(message.contains(words), "{own}");
            }
        }
    }
}
