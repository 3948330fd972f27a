//! The Pod Security labels and settings that the chart must render.

use anyhow::Context as _;
use e2e::harness::Outcome;

use super::{hook, of_kind, rendered};

/// An API server may enforce `baseline` where no level is set, and then refuses uid 0
/// with `NET_ADMIN`.
// Claims: attack-99
#[test]
fn helm_test_namespace_admits_meshed_init_container() -> Outcome {
    let objects = rendered(&[])?;
    let namespaces = of_kind(&objects, "Namespace").into_iter();
    let mut namespaces = namespaces.filter(|one| one["metadata"]["name"] == "weft-test");
    let namespace = namespaces.next().context("no namespace for the test")?;
    let labels = &namespace["metadata"]["labels"];
    assert_eq!(
        labels["pod-security.kubernetes.io/enforce"], "privileged",
        "{labels}"
    );
    // Control: it is still made by the test, with the labels of everything else.
    assert_eq!(hook(namespace, "helm.sh/hook"), Some("test"));
    assert_eq!(labels["app.kubernetes.io/component"], "test", "{labels}");
    Ok(())
}
