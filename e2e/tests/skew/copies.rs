//! Copies of requests, for a Service whose proxies are of the version before.

use anyhow::ensure;
use e2e::harness::{Pod, eventually};
use serde_json::json;

use super::{SOON, previous::Previous, shop::Shop, url};

/// Requests of one look.
const REQUESTS: u64 = 20;

/// The application of `receiver` gets no copy for a request of its own: its older proxy refuses
/// what it does not know, before its application, and `caller` counts that. A version that knows
/// copies in this form serves those, and nothing else.
pub(crate) fn are_no_requests(
    shop: &Shop,
    previous: &Previous,
    caller: &Pod,
    receiver: &Pod,
) -> anyhow::Result<()> {
    let ns = &shop.ns;
    let account = |pod: &Pod| {
        let name = &pod.object["spec"]["serviceAccountName"];
        json!({"kind": "ServiceAccount", "name": name, "namespace": ns.name})
    };
    ns.apply_all(&[
        json!({"apiVersion": "access.smi-spec.io/v1alpha3", "kind": "TrafficTarget",
            "metadata": {"name": "rehearsal"}, "spec": {
                "destination": account(receiver), "sources": [account(caller)],
                "rules": [{"kind": "HTTPRouteGroup", "name": "all"}]}}),
        json!({"apiVersion": "weft.dev/v1alpha1", "kind": "TrafficPolicy",
            "metadata": {"name": "rehearsal"}, "spec": {
                "targetRef": {"kind": "Service", "name": "shop"},
                "mirror": [{"service": "next", "percent": 100}]}}),
    ])?;
    let copies = |outcome: &str| {
        let samples = caller.proxy_metrics()?;
        anyhow::Ok(samples.sum("weft_mirrored_total", &[("outcome", outcome)]))
    };
    let answered = || {
        let labels = [
            ("direction", "inbound"),
            ("security", "mtls"),
            ("status", "200"),
        ];
        anyhow::Ok(
            receiver
                .proxy_metrics()?
                .sum("weft_requests_total", &labels),
        )
    };
    eventually(
        SOON,
        "copies are made, and refused or served as such",
        || {
            let seen = caller.get(&url("shop", 8080, "/"), &["-n", &REQUESTS.to_string()])?;
            ensure!(seen.by_status.get("200") == Some(&REQUESTS), "{seen:?}");
            let (refused, served) = (copies("proxy-too-old")?, copies("success")?);
            ensure!(refused + served > 0.0, "there are none");
            Ok(())
        },
    )?;
    // No caller waits for copies, so the last ones may still be under way.
    let (served, came) = eventually(SOON, "all copies have ended", || {
        let (served, came) = (copies("success")?, answered()?);
        ensure!(served == came, "{served} were served, and {came} came");
        Ok((served, came))
    })?;
    println!("{came} copies came to {}, all as copies", receiver.name);
    ensure!(
        previous.knows_policies || served == 0.0,
        "{served} copies were served by a proxy that knows of none"
    );
    ns.kubectl(&["delete", "trafficpolicies.weft.dev", "rehearsal"])?;
    Ok(())
}
