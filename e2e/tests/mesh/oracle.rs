//! Two thousand requests through real proxies, each decided as the objects say.
//!
//! Random SMI objects in random versions are applied in rounds, through the API
//! server with its conversion and validation; what comes of them is compared with
//! the naive evaluator, which reads the text that was applied.

use std::{collections::BTreeMap, thread, time::Duration};

use anyhow::{Context as _, ensure};
use e2e::{
    echo::call::{Order, Outcome as Answer},
    harness::{Api, App, Namespace, Outcome, Pod},
};
use http::{Method, Uri};
use oracle::{
    Call, Caller, Chart, Traffic, World,
    generate::{Place, policies},
    random::Random,
};
use serde_json::{Value, json};

const ROUNDS: usize = 20;
const REQUESTS: usize = 100;
/// A change takes effect within 2 s of the API server having it; the rest is for a
/// busy machine.
const SETTLED: Duration = Duration::from_secs(4);
/// The application's interface for orders; the pods skip the port.
const BYPASS: u16 = 9092;
/// Of the objects of all rounds so many may be refused by validation: none is meant
/// to be, and without objects there is nothing to compare.
const MOST_REFUSED: usize = ROUNDS;

#[test]
fn two_thousand_requests_through_real_proxies_are_decided_as_the_objects_say() -> Outcome {
    let ns = Namespace::meshed("oracle")?;
    ns.annotate("weft.dev/access", Some("deny"))?;
    let accounts = ["api", "web", "job"];
    for (account, tier) in accounts.into_iter().zip(["front", "back", "front"]) {
        let app = App::new(account)
            .label("tier", tier)
            .annotation("weft.dev/skip-inbound-ports", &BYPASS.to_string())
            .readiness(json!({"httpGet": {"path": "/metrics", "port": 9091}, "periodSeconds": 1}));
        ns.apply_all(&app.objects())?;
    }
    ns.ready(&accounts)?;
    let pods: Vec<Pod> = accounts
        .iter()
        .map(|app| ns.pod(app))
        .collect::<Result<_, _>>()?;
    let api = Api::open(&ns.cluster)?;
    let surroundings = surroundings(&ns)?;
    let home: &'static str = Box::leak(ns.name.clone().into_boxed_str());
    let place = Place {
        namespaces: Box::leak(Box::new([home])),
        accounts: &["api", "web", "job"],
        ports: &[8080, 9091],
        services: &["api"],
        mistakes: false,
    };

    let (mut sent, mut allowed, mut refused_objects) = (0, 0, 0);
    for round in 0..ROUNDS {
        let mut random = Random::new(round as u64 + 1);
        let mut world = World {
            objects: surroundings.clone(),
            chart: Chart::default(),
        };
        let mut applied = Vec::new();
        for object in policies(&mut random, &place) {
            if object["kind"] == "TrafficSplit" {
                continue;
            }
            match ns.apply_all(std::slice::from_ref(&object)) {
                Ok(()) => applied.push(object),
                Err(error) => {
                    eprintln!("refused: {error:#}\n{object}");
                    refused_objects += 1;
                }
            }
        }
        world.objects.extend(applied.clone());
        thread::sleep(SETTLED);
        for _ in 0..REQUESTS {
            let (call, answer) = loop {
                let call = world.random_call(&mut random, &place);
                if let Some(order) = order(&pods, call)? {
                    break send(&api, &pods, order)?;
                }
            };
            let said = world.allows(&call);
            let reason = answer.headers.get("weft-reason");
            assert!(
                answer.status != 0,
                "no answer to {call:?}: {}",
                answer.error
            );
            assert!(
                said == reason.is_none(),
                "round {round}: the objects say {said}, the answer was {} {reason:?}\n{call:?}\n{}",
                answer.status,
                Value::from(applied)
            );
            sent += 1;
            allowed += usize::from(said);
        }
        for object in &applied {
            let (kind, name) = (&object["kind"], &object["metadata"]["name"]);
            let kind = kind.as_str().context("a kind")?.to_lowercase();
            ns.kubectl(&["delete", &kind, name.as_str().context("a name")?])?;
        }
    }
    println!("{sent} requests, {allowed} allowed, {refused_objects} objects refused");
    assert!(sent == ROUNDS * REQUESTS, "{sent} were sent");
    assert!(
        (sent / 10..sent * 9 / 10).contains(&allowed),
        "{allowed} of {sent} allowed"
    );
    assert!(
        refused_objects <= MOST_REFUSED,
        "{refused_objects} objects were refused"
    );
    Ok(())
}

/// Namespace, pods and Services as the API server has them.
fn surroundings(ns: &Namespace) -> anyhow::Result<Vec<Value>> {
    let mut objects = vec![ns.cluster.json(&["get", "namespace", &ns.name])?];
    for (kind, plural) in [("Pod", "pods"), ("Service", "services")] {
        let list = ns.json(&["get", plural])?;
        for item in list["items"].as_array().context("a list")? {
            let mut item = item.clone();
            item["kind"] = json!(kind);
            objects.push(item);
        }
    }
    Ok(objects)
}

/// The order for a call and the call as it will be on the wire; `None` if the test
/// application cannot send it.
fn order(pods: &[Pod], mut call: Call) -> anyhow::Result<Option<(Call, String, Order)>> {
    let Caller::Pod { name: from, .. } = call.caller.clone() else {
        return Ok(None);
    };
    let Traffic::Http(request) = &mut call.traffic else {
        return Ok(None);
    };
    let to = pods.iter().find(|pod| pod.name == call.pod);
    let to = to.context("a call goes to one of the pods")?;
    let url = format!("http://{}:{}{}", to.ip, call.port, request.path);
    if url.parse::<Uri>().is_err() || request.path.contains('#') || from == to.name {
        return Ok(None);
    }
    // One line for each header, in text: the order is JSON.
    let mut headers = BTreeMap::new();
    for (name, value) in &request.headers {
        if let Ok(value) = std::str::from_utf8(value) {
            headers.insert(name.to_lowercase(), value.to_owned());
        }
    }
    headers.remove("host");
    request.headers = headers
        .iter()
        .map(|(name, value)| (name.clone(), value.clone().into_bytes()))
        .collect();
    let host = format!("{}:{}", to.ip, call.port);
    request.headers.push(("host".into(), host.into_bytes()));
    let order = Order {
        url,
        method: request.method.clone(),
        body: String::new(),
        headers: Some(headers),
    };
    Ok(Some((call, from, order)))
}

fn send(
    api: &Api,
    pods: &[Pod],
    (call, from, order): (Call, String, Order),
) -> anyhow::Result<(Call, Answer)> {
    let pod = pods.iter().find(|pod| pod.name == from);
    let pod = pod.context("the caller is one of the pods")?;
    let body = serde_json::to_string(&order)?;
    let (status, text) = api.ask_pod(pod, BYPASS, &Method::POST, "/proxy", &body)?;
    ensure!(status == 200, "{from} answered {status} to {body}: {text}");
    Ok((call, serde_json::from_str(&text)?))
}
