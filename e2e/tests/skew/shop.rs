//! The applications: two that serve behind one Service, one that may call it, and one that may
//! not.

use anyhow::{Context as _, ensure};
use e2e::{
    echo::load::Summary,
    harness::{Load, Namespace, Pod, app, eventually},
};
use serde_json::{Value, json};

use super::{SOON, url};

/// Longer than any of these tests has a load.
const LOAD: &str = "600s";
/// By its whole name: short ones of a definition that comes and goes are cached.
const POLICY: &str = "trafficpolicies.weft.dev/calls";
/// Of the proxies that its message names before.
const TOO_OLD: &str = " are too old for retry: restart these pods";
/// Calls of one look at where they go.
const CALLS: u64 = 20;

#[derive(Debug)]
pub(crate) struct Shop {
    pub(crate) ns: Namespace,
}

/// A Deployment whose new pod is beside the one of this name.
#[derive(Debug)]
pub(crate) struct Renewal<'a> {
    deployment: &'a str,
    before: String,
}

fn root() -> String {
    url("shop", 8080, "/")
}

impl Shop {
    /// With proxies of the version that is installed.
    pub(crate) fn open(claim: &str) -> anyhow::Result<Self> {
        let shop = Self {
            ns: Namespace::meshed(claim)?,
        };
        shop.ns.run(&["client", "stranger", "first", "second"])?;
        let service = app::service("shop", &json!({"app": "first"}));
        shop.ns.apply_all(&[service])?;
        shop.ns.annotate("weft.dev/access", Some("deny"))?;
        shop.ns.apply(ROUTES)?;
        shop.admit(&["client"])?;
        let (client, stranger) = (shop.ns.pod("client")?, shop.ns.pod("stranger")?);
        eventually(SOON, "the targets admit whom they name", || {
            client.report(&root(), &[])?;
            stranger.refused(&root(), &[], 403, "not-allowed")
        })?;
        Ok(shop)
    }

    /// These accounts may call both servers, and no others.
    pub(crate) fn admit(&self, accounts: &[&str]) -> anyhow::Result<()> {
        let ns = &self.ns.name;
        let account =
            |name: &&str| json!({"kind": "ServiceAccount", "name": name, "namespace": ns});
        let sources: Vec<Value> = accounts.iter().map(account).collect();
        let targets = ["first", "second"].map(|server| {
            json!({"apiVersion": "access.smi-spec.io/v1alpha3", "kind": "TrafficTarget",
                "metadata": {"name": server}, "spec": {
                    "destination": {"kind": "ServiceAccount", "name": server, "namespace": ns},
                    "rules": [{"kind": "HTTPRouteGroup", "name": "all"}], "sources": sources}})
        });
        self.ns.apply_all(&targets)
    }

    pub(crate) fn split(&self, [first, second]: [u32; 2]) -> anyhow::Result<()> {
        self.ns.apply_all(&[
            json!({"apiVersion": "split.smi-spec.io/v1alpha4", "kind": "TrafficSplit",
            "metadata": {"name": "shop"}, "spec": {"service": "shop", "backends": [
                {"service": "first", "weight": first}, {"service": "second", "weight": second}]}}),
        ])
    }

    /// A split that changes is followed to either side, the caller has its identity there, and
    /// the stranger is refused. Ends with both sides serving.
    pub(crate) fn works(&self, caller: &Pod, stranger: &Pod) -> anyhow::Result<()> {
        let account = caller.object["spec"]["serviceAccountName"].as_str();
        let account = account.context("a pod without an account")?;
        let identity = format!("spiffe://cluster.local/ns/{}/sa/{account}", self.ns.name);
        for (server, weights) in [("first", [1, 0]), ("second", [0, 1])] {
            self.split(weights)?;
            let what = format!("{} calls {server} and no other", caller.name);
            eventually(SOON, &what, || {
                let seen = caller.get(&root(), &["-n", &CALLS.to_string()])?;
                let there = seen.by_version.get(server) == Some(&CALLS);
                ensure!(there, "{seen:?}");
                Ok(())
            })?;
            let report = caller.report(&root(), &[])?;
            let proven = report.client_id.as_ref() == Some(&identity);
            ensure!(
                proven,
                "{server} was called by another identity than {identity}: {report:?}"
            );
            stranger.refused(&root(), &[], 403, "not-allowed")?;
        }
        self.split([1, 1])
    }

    /// Calls that no proxy of any version sends twice once they may have been seen.
    pub(crate) fn load(&self, caller: &Pod) -> anyhow::Result<Load> {
        let post = ["-X", "POST", "--body", "x"];
        let pace = ["--rate", "50", "-c", "8", "--duration", LOAD];
        caller.start_load(&root(), &[&post[..], &pace].concat())
    }

    /// Puts another pod in the place of the one of this Deployment.
    pub(crate) fn renew(&self, deployment: &str) -> anyhow::Result<Pod> {
        let renewal = self.begin_renewal(deployment)?;
        self.end_renewal(renewal)
    }

    /// Returns when the new pod is ready, beside the one before.
    pub(crate) fn begin_renewal<'a>(&self, deployment: &'a str) -> anyhow::Result<Renewal<'a>> {
        let before = self.ns.pod(deployment)?.name;
        let object = format!("deployment/{deployment}");
        self.ns.kubectl(&["rollout", "restart", &object])?;
        self.ns.ready(&[deployment])?;
        Ok(Renewal { deployment, before })
    }

    /// The new pod, once it is the only one.
    pub(crate) fn end_renewal(&self, renewal: Renewal<'_>) -> anyhow::Result<Pod> {
        let Renewal { deployment, before } = renewal;
        eventually(SOON, "only the new pod is left", || {
            let mut pods = self.ns.pods(deployment)?;
            let names: Vec<&str> = pods.iter().map(|pod| pod.name.as_str()).collect();
            ensure!(
                names.len() == 1 && names[0] != before,
                "there are {names:?}"
            );
            Ok(pods.remove(0))
        })
    }

    /// A policy about the calls to the shop, of which only callers need to know.
    pub(crate) fn policy(&self) -> anyhow::Result<()> {
        self.ns.apply_all(&[
            json!({"apiVersion": "weft.dev/v1alpha1", "kind": "TrafficPolicy",
            "metadata": {"name": "calls"}, "spec": {
                "targetRef": {"kind": "Service", "name": "shop"}, "retry": {"attempts": 1}}}),
        ])
    }

    /// Waits until the policy's `Programmed` has this reason, and says of the proxies of these
    /// pods, and not of those, that they are too old.
    pub(crate) fn programmed(
        &self,
        reason: &str,
        older: &[&Pod],
        newer: &[&Pod],
    ) -> anyhow::Result<()> {
        let what = format!("the policy says {reason}");
        let status = eventually(SOON, &what, || {
            let condition = self.ns.condition(POLICY, "Programmed")?;
            let message = condition["message"].as_str();
            let message = message.context("it says nothing")?;
            let named = |pod: &&Pod| message.contains(&pod.name);
            ensure!(
                condition["reason"] == reason
                    && message.contains(TOO_OLD) != older.is_empty()
                    && older.iter().all(named)
                    && !newer.iter().any(named),
                "it is {condition}"
            );
            Ok(message.to_owned())
        })?;
        println!("{reason}: {status}");
        Ok(())
    }
}

/// Of a load that has been ended. Both servers must have been called, or a part of the claim
/// was not tried.
pub(crate) fn nothing_lost(seen: &Summary) -> anyhow::Result<()> {
    println!(
        "{} planned, {} sent, {:?}, by version {:?}, latency {:?}",
        seen.planned, seen.sent, seen.by_status, seen.by_version, seen.latency_ms
    );
    ensure!(
        seen.planned == seen.sent && seen.by_status.get("200") == Some(&seen.planned),
        "requests were lost: {seen:?}"
    );
    ensure!(
        ["first", "second"].map(|server| seen.by_version.contains_key(server)) == [true; 2],
        "only a part was called: {seen:?}"
    );
    Ok(())
}

const ROUTES: &str = r"
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: all}
spec:
  matches: [{name: all, pathRegex: '.*', methods: ['*']}]
";
