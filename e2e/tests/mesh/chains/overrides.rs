//! A request that chooses another Service further down the chain: with which rights, through
//! which services, and what they see of it.

use anyhow::{Context as _, bail, ensure};
use e2e::{
    echo::load::Summary,
    harness::{Api, Cluster, Load, Namespace, Outcome, Pod, eventually},
};
use serde_json::{Value, json};

use super::super::{SOON, url};
use super::links::{CALLS, calls_on, link, log, requests};

const ROUTE: &str = "weft-route:catalog=catalog-staging";
/// Requests of each kind that has a right, and of each of three without one.
const GRANTED: u64 = 200;
const REFUSED: u64 = 334;
/// Requests that come past a workload that is no forwarder.
const STRANGE: u64 = 1000;
/// How often what found no endpoint is sent again, at most.
const ROUNDS: usize = 3;
/// Those whose applications have proxies.
const MESHED: [&str; 7] = [
    "qa",
    "web",
    "cart",
    "api",
    "stranger",
    "catalog",
    "catalog-staging",
];

/// Requests of one kind.
struct Case<'a> {
    from: &'a Pod,
    first: &'a str,
    path: &'a str,
    /// Headers beside the wish.
    shown: &'a [&'a str],
    granted: bool,
    requests: u64,
}

impl<'a> Case<'a> {
    /// Without any right.
    const fn new(from: &'a Pod, first: &'a str, path: &'a str) -> Self {
        Self {
            from,
            first,
            path,
            shown: &[],
            granted: false,
            requests: REFUSED,
        }
    }
}

/// `web`, `cart` and `api` pass on their requests, each to the next, and the last one to
/// `catalog`. So does `stranger`, which no policy names, to `cart`.
fn town(token: &Value) -> anyhow::Result<Namespace> {
    let ns = Namespace::meshed("chain-overrides")?;
    ns.annotate("weft.dev/access-log", Some("json"))?;
    for app in [
        link("qa"),
        link("outside").label("weft.dev/inject", "disabled"),
        calls_on("web", "cart", "context"),
        calls_on("stranger", "cart", "context"),
        calls_on("cart", "api", "context"),
        calls_on("api", "catalog", "context"),
        link("catalog"),
        link("catalog-staging"),
    ] {
        ns.apply_all(&app.objects())?;
    }
    let account = |name: &str| {
        let namespace = &ns.name;
        json!({"kind": "ServiceAccount", "name": name, "namespace": namespace})
    };
    let forwarders: Vec<Value> = ["web", "cart", "api"].into_iter().map(account).collect();
    let sources = [account("qa")];
    ns.apply_all(&[json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "TrafficPolicy",
        "metadata": {"name": "try-staging"},
        "spec": {
            "targetRef": {"kind": "Service", "name": "catalog"},
            "overrides": [{
                "to": ["catalog-staging"],
                "sources": sources,
                "forwarders": forwarders,
                "tokens": [token],
            }],
        },
    })])?;
    ns.await_condition("tp/try-staging", "Accepted", "True")?;
    ns.ready(&MESHED)?;
    ns.ready(&["outside"])?;
    Ok(ns)
}

impl Case<'_> {
    /// Sends so many of them, and does not wait.
    fn begin(&self, requests: u64) -> anyhow::Result<Load> {
        let number = requests.to_string();
        let mut args = vec!["-n", number.as_str(), "-c", "4"];
        args.extend(["--rate", "50", "-H", ROUTE]);
        for header in self.shown {
            args.extend(["-H", *header]);
        }
        if self.path == CALLS {
            args.push("--grpc");
        }
        self.from
            .start_load(&url(self.first, 8080, self.path), &args)
    }

    /// The successful calls, and those that were answered as if there were no endpoint: no
    /// other result is allowed.
    fn split(&self, seen: &Summary) -> anyhow::Result<(u64, u64)> {
        let (answers, well, unavailable) = match self.path {
            CALLS => (&seen.by_grpc_status, "0", "14"),
            _ => (&seen.by_status, "200", "503"),
        };
        let of = |status: &str| answers.get(status).copied().unwrap_or_default();
        // A Service without endpoints refuses the connections of who has no proxy.
        let refused = if self.from.init_containers().is_empty() {
            seen.errors.get("connect").copied().unwrap_or_default()
        } else {
            0
        };
        let (good, unserved) = (of(well), of(unavailable));
        let all = good + unserved + refused;
        ensure!(all == seen.planned, "{}: {seen:?}", self.path);
        Ok((good, unserved))
    }
}

/// Sends the requests of all kinds at once, until each has been answered well as often as it
/// should be. What found no endpoint on its way, since a pod of the chain was not ready, says
/// nothing of overrides and is sent again; that it was so the proxies of the chain must say.
fn send(ns: &Namespace, api: &Api, cases: &[Case<'_>]) -> anyhow::Result<()> {
    let mut left: Vec<u64> = cases.iter().map(|case| case.requests).collect();
    for _ in 0..ROUNDS {
        ns.ready(&MESHED)?;
        let before = without_endpoint(ns, api)?;
        let mut loads = Vec::new();
        for (at, case) in cases.iter().enumerate().filter(|(at, _)| left[*at] > 0) {
            loads.push((at, case, case.begin(left[at])?));
        }
        let mut unavailable = 0;
        for (at, case, load) in loads {
            let seen = load.finish()?;
            let (good, unserved) = case.split(&seen)?;
            left[at] -= good;
            unavailable += unserved;
        }
        let refused = without_endpoint(ns, api)? - before;
        println!("{left:?} are left, {refused} calls had no endpoint");
        ensure!(
            unavailable as f64 <= refused,
            "{unavailable} were answered as without an endpoint, and {refused} had none"
        );
        if left.iter().all(|left| *left == 0) {
            return Ok(());
        }
    }
    bail!("some pod of the chain was not ready in each of {ROUNDS} rounds: {left:?} are left")
}

/// Calls that the proxies of the chain have ended so far because the Service had no endpoint.
fn without_endpoint(ns: &Namespace, api: &Api) -> anyhow::Result<f64> {
    let mut pods = Vec::new();
    for app in MESHED {
        pods.push(ns.pod(app)?);
    }
    let labels = [("direction", "outbound"), ("reason", "no-endpoint")];
    let calls = api.sums(&pods, "weft_requests_total", &labels)?;
    Ok(calls.iter().sum())
}

/// No application and no log of a proxy has seen the token, nor the wish or its proof.
fn nothing_shows(ns: &Namespace, api: &Api, token: &str) -> anyhow::Result<()> {
    for app in MESHED {
        let pod = ns.pod(app)?;
        let seen = log(api, &pod, "/")?;
        ensure!(seen.ends_with("\"lost\":0}"), "{app} lost requests");
        for hidden in [token, "weft-route", "weft-proof"] {
            ensure!(!seen.contains(hidden), "{app} got {hidden}");
        }
        let logs = ns.kubectl(&["logs", &pod.name, "--all-containers"])?;
        ensure!(!logs.contains(token), "the log of {app} shows the token");
        if app == "web" {
            ensure!(seen.contains("x-mark"), "control: no header is there");
            ensure!(logs.contains("/by-token"), "control: no call is there");
        }
    }
    Ok(())
}

// Claims: calls-78
#[test]
fn only_authorized_request_overrides_route_behind_three_forwarders() -> Outcome {
    // No cluster is queried for it.
    let made = Cluster::connect()?.weft(&["token", "--expires", "1h", "-o", "json"])?;
    let made = made.with_status(0)?.json()?;
    let token = made["token"].as_str().context("no token")?;
    let ns = town(&made["entry"])?;
    let api = Api::open(&ns.cluster)?;
    let (qa, outside, stranger) = (ns.pod("qa")?, ns.pod("outside")?, ns.pod("stranger")?);
    eventually(SOON, "the policy is in force", || {
        let report = qa.report(&url("web", 8080, "/warm"), &["-H", ROUTE])?;
        let last = report.hops.last().map_or("", String::as_str);
        let staging = report.hops.len() == 3 && last.starts_with("catalog-staging-");
        ensure!(staging, "{report:?}");
        Ok(())
    })?;

    let shown = format!("weft-route-token:{token}");
    let by_token = [shown.as_str(), "x-mark:seen"];
    let wrong = ["weft-route-token:wrong"];
    let cases = [
        Case {
            granted: true,
            requests: GRANTED,
            ..Case::new(&qa, "web", "/by-identity")
        },
        Case {
            granted: true,
            requests: GRANTED,
            ..Case::new(&qa, "web", CALLS)
        },
        Case {
            granted: true,
            requests: GRANTED,
            shown: &by_token,
            ..Case::new(&outside, "web", "/by-token")
        },
        Case::new(&stranger, "web", "/no-right"),
        Case::new(&outside, "web", "/no-token"),
        Case {
            shown: &wrong,
            ..Case::new(&outside, "web", "/wrong")
        },
        Case {
            requests: STRANGE,
            ..Case::new(&qa, "stranger", "/past-stranger")
        },
    ];
    send(&ns, &api, &cases)?;
    let (catalog, staging) = (ns.pod("catalog")?, ns.pod("catalog-staging")?);
    for case in &cases {
        let at_staging = requests(&api, &staging, case.path)?.len() as u64;
        let at_catalog = requests(&api, &catalog, case.path)?.len() as u64;
        println!("{}: {at_staging} at staging", case.path);
        let chosen = if case.granted { case.requests } else { 0 };
        assert_eq!(at_staging, chosen, "{}", case.path);
        assert_eq!(at_catalog, case.requests - chosen, "{}", case.path);
    }
    nothing_shows(&ns, &api, token)?;
    Ok(())
}
