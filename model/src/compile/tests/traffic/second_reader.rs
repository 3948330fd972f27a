//! Which policy decides, read straight from the text of the objects.
//!
//! The naive reader below walks through all policies for every query, as JSON, and shares no code
//! with what it is compared with: validation, compiler, wire, and the table that a proxy reads.
//!
//! Claims: calls-35

use oracle::{random::Random, seeds::seeds};
use policy::{access::Caller, http_match::RequestFacts, name::SpiffeId};
use serde_json::{Value, json};

use super::*;

/// Worlds that are compared, each with every query.
const WORLDS: u64 = 400;
/// Policies of one world, at most.
const MOST: usize = 7;
const ACCOUNTS: [&str; 3] = ["web", "admin", "job"];
const METHODS: [&str; 2] = ["GET", "POST"];

/// A random policy: its own number of attempts identifies it.
fn random_policy(random: &mut Random, n: usize) -> Value {
    let target = match random.below(5) {
        0 => json!({"kind": "Service", "name": "api", "port": 80}),
        1 => json!({"kind": "Service", "name": "api"}),
        2 => json!({"kind": "Namespace"}),
        3 => json!({"kind": "Service", "name": "gone"}),
        _ => json!({"kind": "Mesh"}),
    };
    let mesh = target["kind"] == "Mesh";
    let mut spec = json!({"targetRef": target, "timeouts": {"request": format!("{}s", n + 1)}});
    if mesh && random.percent(40) {
        spec["enforce"] = json!(true);
    }
    if random.percent(40) {
        let name = random.pick(&["reads", "writes", "gone"]);
        spec["routes"] = json!([{"kind": "HTTPRouteGroup", "name": name}]);
    }
    if random.percent(40) {
        let name = random.pick(&ACCOUNTS);
        spec["sources"] = json!([{"kind": "ServiceAccount", "name": name, "namespace": "shop"}]);
    }
    if random.percent(10) {
        spec["timeouts"]["share"] = json!(0);
    }
    let made = cluster::traffic_policy(&format!("p{n}"), spec);
    let made = created(made, u8::try_from(random.below(3)).unwrap());
    if mesh && random.percent(90) {
        in_namespace(made, "weft-system")
    } else {
        made
    }
}

/// The request timeout in seconds for one call, by the documentation alone.
fn naive(policies: &[Value], account: &str, method: &str) -> Option<u64> {
    let mut best: Option<(Vec<i64>, String, u64)> = None;
    for policy in policies {
        let spec = &policy["spec"];
        let namespace = policy["metadata"]["namespace"].as_str().unwrap();
        let target = &spec["targetRef"];
        let distance = match target["kind"].as_str().unwrap() {
            "Service" if target["name"] != "api" => continue,
            "Service" if target.get("port").is_some() => 0,
            "Service" => 1,
            "Namespace" => 2,
            _ if namespace != "weft-system" => continue,
            _ => 3,
        };
        // A section with a validation error decides nothing.
        if spec["timeouts"]["share"] == 0 {
            continue;
        }
        // Groups are looked up in the policy's own namespace; here they stand in `shop`.
        let routed = spec["routes"][0]["name"].as_str();
        let fits = match routed {
            None => true,
            Some(_) if namespace != "shop" => false,
            Some("reads") => method == "GET",
            Some("writes") => method == "POST",
            Some(_) => false,
        };
        let sourced = spec["sources"][0]["name"].as_str();
        if !fits || sourced.is_some_and(|name| name != account) {
            continue;
        }
        let width = match (routed.is_some(), sourced.is_some()) {
            (true, true) => 0,
            (true, false) => 1,
            (false, true) => 2,
            (false, false) => 3,
        };
        let enforced = i64::from(spec["enforce"] != true);
        let text = policy["metadata"]["creationTimestamp"].as_str().unwrap();
        let age: i64 = text[17..19].parse().unwrap();
        let rank = vec![enforced, distance, width, age];
        let name = format!(
            "{namespace}/{}",
            policy["metadata"]["name"].as_str().unwrap()
        );
        let seconds = spec["timeouts"]["request"].as_str().unwrap();
        let seconds = seconds.trim_end_matches('s').parse().unwrap();
        if best
            .as_ref()
            .is_none_or(|(r, n, _)| (&rank, &name) < (r, n))
        {
            best = Some((rank, name, seconds));
        }
    }
    best.map(|(_, _, seconds)| seconds)
}

#[test]
fn proxy_policy_matches_naive_evaluation_of_objects() {
    let groups = [("reads", "GET"), ("writes", "POST")];
    let (mut compared, mut decided, mut without) = (0, 0, 0);
    for seed in seeds(WORLDS) {
        let mut random = Random::new(seed);
        let policies: Vec<Value> = (0..=random.below(MOST))
            .map(|n| random_policy(&mut random, n))
            .collect();
        let mut cluster = shop();
        for (name, method) in groups {
            cluster = cluster.with(group(name, json!([{"name": "m", "methods": [method]}])));
        }
        for one in &policies {
            cluster = cluster.with(one.clone());
        }
        let (model, _) = cluster.compile();
        let got = resolve_newest(&model, "client", &["10.96.0.1:80"]);
        let sent = got
            .0
            .contains_key("policy/shop/api:80")
            .then(|| got.policy("shop/api:80"));
        for account in ACCOUNTS {
            let id = SpiffeId::of("cluster.local", "shop", account).unwrap();
            let seen = sent.as_ref().map(|sent| sent.seen_by(Caller::mesh(&id)));
            for method in METHODS {
                let headers = http::HeaderMap::new();
                let method_name: http::Method = method.parse().unwrap();
                let facts = RequestFacts {
                    method: &method_name,
                    path: "/",
                    query: None,
                    headers: &headers,
                };
                let done = seen.as_ref().and_then(|seen| {
                    let (timeouts, _) = seen.timeouts.decide(Some(&facts));
                    timeouts
                        .and_then(|one| one.request)
                        .map(|time| time.as_secs())
                });
                let meant = naive(&policies, account, method);
                assert_eq!(
                    done, meant,
                    "seed {seed}, {account} {method}: {policies:#?}"
                );
                compared += 1;
                decided += usize::from(meant.is_some());
                without += usize::from(meant.is_none());
            }
        }
    }
    assert!(
        compared >= 2000 && decided > 1000 && without > 100,
        "{compared} {decided} {without}"
    );
}
