//! The demo's failure: one instance is broken on purpose for a while, and the mesh ejects it.
//!
//! Its application answers 503 to the calls of the shop, and to no probe, so Kubernetes keeps
//! it ready. The proxies of its callers detect the failure by themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::{
    kept::{Promise, percent},
    ledger::Ledger,
    names::NAMESPACE,
};
use crate::harness::Cluster;

/// Which version one instance of is broken, behind the root Service of the split.
pub const VERSION: &str = "v1";
const SERVICE: &str = "shop/catalog";
const BACKEND: &str = "shop/catalog-v1";
/// The page on which a caller's proxy lists the backend's ejected endpoints, to its own pod alone.
pub const PAGE: &str = "/traffic/shop/catalog-v1";
/// The port of that page.
pub const PAGE_PORT: u16 = 15190;
/// How long it is broken. It rests within two seconds, is probed some five later in vain,
/// rests twice as long, and is back before the demo ends.
pub const BROKEN_FOR: Duration = Duration::from_secs(12);
/// From breaking it to the last look.
pub const WATCHED_FOR: Duration = Duration::from_secs(30);
/// What holds without any TrafficPolicy, see docs/resilience.md.
const BUDGET_SHARE: f64 = 0.2;
const BUDGET_SECONDS: f64 = 5.0;

/// Pods that rested, and their addresses.
pub type Rested = BTreeMap<String, String>;

/// Who rests, as page [`PAGE`] of a caller's proxy says.
pub fn resting(page: &Value) -> Rested {
    let services = page["services"].as_object().into_iter().flatten();
    let endpoints = services.flat_map(|(_, service)| service["endpoints"].as_array());
    let rests = |endpoint: &&Value| {
        // `ProbeDue`: the ejection is over, and no probe has run yet.
        endpoint["state"] == "Resting" || endpoint["state"] == "ProbeDue"
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rested = endpoints.flatten().filter(rests).map(|endpoint| {
        let pod = text(&endpoint["pod"]);
        let pod = pod.rsplit('/').next().unwrap_or_default().to_owned();
        (pod, text(&endpoint["address"]))
    });
    rested.collect()
}

/// What was counted since one instance was broken.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Breakage {
    /// The pod.
    pub pod: String,
    /// Since it was broken.
    pub seconds: f64,
    /// 503 that its proxy passed on, and good answers of the same pod.
    pub failed: f64,
    pub served: f64,
    /// Times that an endpoint of its backend began to rest.
    pub rests: f64,
    /// Pods of its backend that were seen resting, and their addresses.
    pub rested: Rested,
    /// Calls that were tried again, with and without success, and those for which the
    /// budget had nothing left.
    pub retried_well: f64,
    pub retried_badly: f64,
    pub unpaid: f64,
    /// Calls to the backend, and those of all to the Service that failed.
    pub calls: f64,
    pub lost: f64,
}

impl Breakage {
    /// What the accounts say of the pod that is broken since `seconds`, and its callers of
    /// who rested.
    pub fn read(ledger: &Ledger, pod: &str, seconds: f64, rested: &Rested) -> Self {
        let at = |status: &[(&str, &str)]| {
            let inbound = [("direction", "inbound")];
            ledger.sum_of_pod(pod, "weft_requests_total", &[&inbound[..], status].concat())
        };
        let of = |name: &str, more: &[(&str, &str)]| {
            let edge = [("service", SERVICE), ("backend", BACKEND)];
            ledger.sum("web", name, &[&edge[..], more].concat())
        };
        let retried = |outcome| of("weft_retries_total", &[("outcome", outcome)]);
        let outbound = [("direction", "outbound"), ("service", SERVICE)];
        let failed = [&outbound[..], &[("success", "false")]].concat();
        Self {
            pod: pod.into(),
            seconds,
            failed: at(&[("status", "503")]),
            served: at(&[("status", "200")]),
            rests: of("weft_ejections_total", &[]),
            rested: rested.clone(),
            retried_well: retried("success"),
            retried_badly: retried("failure"),
            unpaid: retried("budget"),
            calls: of("weft_requests_total", &[("direction", "outbound")]),
            lost: ledger.sum("web", "weft_requests_total", &failed),
        }
    }

    /// Whether it is broken still.
    pub fn lasts(&self) -> bool {
        self.seconds < BROKEN_FOR.as_secs_f64()
    }

    /// Whether it was ejected, and no other endpoint.
    fn it_alone_rested(&self) -> bool {
        self.rests > 0.0 && self.rested.keys().eq([&self.pod])
    }

    fn who_rested(&self) -> String {
        let rested = self.rested.iter();
        let rested: Vec<String> = rested.map(|(pod, at)| format!("{pod} at {at}")).collect();
        if rested.is_empty() {
            "no endpoint".to_owned()
        } else {
            rested.join(" and ")
        }
    }

    /// What budgets allow at most meanwhile: what was saved before, and since.
    fn budget(&self) -> f64 {
        let rate = self.calls / self.seconds.max(1.0);
        let saved = BUDGET_SHARE * (self.calls + rate * BUDGET_SECONDS);
        saved + self.seconds + 1.0
    }

    /// The promises: no caller notices the failing instance, and retries stay within the budget.
    pub fn promises(&self) -> Vec<Promise> {
        let Self { pod, .. } = self;
        let retried = self.retried_well + self.retried_badly;
        let state = if self.lasts() { "fails now" } else { "failed" };
        vec![
            Promise {
                what: "rest",
                seen: format!(
                    "{pod} {state}, with 503 to {} of {} calls; {} rested, {} times",
                    self.failed,
                    self.failed + self.served,
                    self.who_rested(),
                    self.rests
                ),
                // Before the first failures no caller has ejected it.
                kept: self.lasts() || (self.failed > 0.0 && self.it_alone_rested()),
            },
            Promise {
                what: "retries",
                seen: format!(
                    "{retried} of {} calls tried again ({}), {} of them well; the budget, a fifth of what succeeds and one a second, allowed {:.0} and refused {}",
                    self.calls,
                    percent(retried, self.calls),
                    self.retried_well,
                    self.budget().floor(),
                    self.unpaid
                ),
                kept: retried <= self.budget() && (self.lasts() || retried > 0.0),
            },
            Promise {
                what: "callers",
                seen: format!("saw {} failures of catalog", self.lost),
                kept: self.lost == 0.0,
            },
        ]
    }
}

/// Breaks the instance for [`BROKEN_FOR`], after which it is well by itself.
pub fn make(cluster: &Cluster, pod: &str) -> anyhow::Result<()> {
    let fault = format!(
        r#"{{"status": 503, "only": "/products", "for": "{}s"}}"#,
        BROKEN_FOR.as_secs()
    );
    // Within the pod, past its proxy: no TrafficTarget allows it to another caller.
    let words = ["exec", pod, "-c", "app", "--", "/weft-echo", "get"];
    let url = [
        "http://127.0.0.1:8080/fault",
        "-X",
        "POST",
        "--body",
        &fault,
    ];
    let checked = ["--expect", "fault set"];
    cluster.kubectl(&[&["-n", NAMESPACE][..], &words, &url, &checked].concat())?;
    Ok(())
}
