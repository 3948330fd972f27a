//! Two thousand requests through real proxies, each decided as the objects say, and
//! hundreds of them as `explain` says.
//!
//! Random SMI objects in random versions are applied in rounds, through the API
//! server with its conversion and validation; what comes of them is compared with
//! the naive evaluator, which reads the text that was applied, and with the read API's
//! own explanation of the same call.

use std::{collections::BTreeMap, thread, time::Duration};

use anyhow::{Context as _, bail, ensure};
use e2e::{
    echo::call::{Order, ProxyResponse},
    harness::{Api, App, Namespace, Outcome, Pod},
};
use http::{Method, Uri};
use oracle::{
    Call, Caller, Chart, Traffic, World,
    generate::{Vocabulary, policies},
    random::Random,
};
use serde_json::{Value, json};

const ROUNDS: usize = 20;
const REQUESTS: usize = 100;
/// Of the requests of a round so many are asked about as well, one after another: six
/// hundred in all, at some tens of milliseconds each.
const EXPLAINED: usize = 30;
/// Where explanations are asked for.
const OBSERVE: &str = "observe.weft.dev/v1alpha1";
/// A change takes effect within 2 s of the API server having it; the rest is for a
/// busy machine.
const SETTLED: Duration = Duration::from_secs(4);
/// The application's interface for orders; the pods skip the port.
const BYPASS: u16 = 9092;
/// Of the objects of all rounds so many may be refused by validation: none is meant
/// to be, and without objects there is nothing to compare.
const MOST_REFUSED: usize = ROUNDS;

#[test]
fn two_thousand_real_requests_are_decided_as_the_objects_say_and_explained_so() -> Outcome {
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
    let vocabulary = Vocabulary {
        namespaces: Box::leak(Box::new([home])),
        accounts: &["api", "web", "job"],
        ports: &[8080, 9091],
        services: &["api"],
        mistakes: false,
    };

    let (mut sent, mut allowed, mut refused_objects) = (0, 0, 0);
    let (mut explained, mut reasons) = (0, BTreeMap::new());
    for round in 0..ROUNDS {
        let mut random = Random::new(round as u64 + 1);
        let mut world = World {
            objects: surroundings.clone(),
            chart: Chart::default(),
        };
        let (applied, refused) = apply(&ns, policies(&mut random, &vocabulary));
        refused_objects += refused;
        world.objects.extend(applied.clone());
        thread::sleep(SETTLED);
        for at in 0..REQUESTS {
            let (call, answer) = loop {
                let call = world.random_call(&mut random, &vocabulary);
                if let Some(order) = order(&pods, call)? {
                    break send(&api, &pods, order)?;
                }
            };
            let expected = world.allows(&call);
            let reason = answer.headers.get("weft-reason");
            assert!(
                answer.status != 0,
                "no answer to {call:?}: {}",
                answer.error
            );
            assert!(
                expected == reason.is_none(),
                "round {round}: the objects say {expected}, the answer was {} {reason:?}\n{call:?}\n{}",
                answer.status,
                Value::from(applied)
            );
            sent += 1;
            allowed += usize::from(expected);
            if at < EXPLAINED {
                let reason = agreed(&api, &call, &answer)
                    .with_context(|| format!("round {round}: {}", Value::from(applied.clone())))?;
                explained += 1;
                *reasons.entry(reason).or_insert(0) += 1;
            }
        }
        delete(&ns, &applied)?;
    }
    println!("{sent} requests, {allowed} allowed, {refused_objects} objects refused");
    println!("{explained} explained, by reason: {reasons:?}");
    assert!(explained >= 500, "{explained} were explained");
    // One answer for all of them would prove little.
    for reason in ["", "not-allowed"] {
        assert!(reasons.contains_key(reason), "no {reason:?}: {reasons:?}");
    }
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

/// Applies these objects one by one: what is there then, and how many were refused.
fn apply(ns: &Namespace, objects: Vec<Value>) -> (Vec<Value>, usize) {
    let (mut applied, mut refused) = (Vec::new(), 0);
    for object in objects {
        if object["kind"] == "TrafficSplit" {
            continue;
        }
        match ns.apply_all(std::slice::from_ref(&object)) {
            Ok(()) => applied.push(object),
            Err(error) => {
                eprintln!("refused: {error:#}\n{object}");
                refused += 1;
            }
        }
    }
    (applied, refused)
}

fn delete(ns: &Namespace, objects: &[Value]) -> anyhow::Result<()> {
    for object in objects {
        let (kind, name) = (&object["kind"], &object["metadata"]["name"]);
        let kind = kind.as_str().context("a kind")?.to_lowercase();
        ns.kubectl(&["delete", &kind, name.as_str().context("a name")?])?;
    }
    Ok(())
}

/// Asks what becomes of a call that was made, and fails where the answer is not what became of
/// it. The reason of both; empty where the call passed.
fn agreed(api: &Api, call: &Call, answer: &ProxyResponse) -> anyhow::Result<String> {
    let (Caller::Pod { name: from, .. }, Traffic::Http(request)) = (&call.caller, &call.traffic)
    else {
        bail!("no pod's request: {call:?}");
    };
    let headers: Vec<Value> = request
        .headers
        .iter()
        .map(|(name, value)| json!({"name": name, "value": String::from_utf8_lossy(value)}))
        .collect();
    let namespace = &call.namespace;
    let question = json!({"apiVersion": OBSERVE, "kind": "Explanation", "spec": {
        "from": {"kind": "Pod", "namespace": namespace, "name": from},
        "to": {"kind": "Pod", "namespace": namespace, "name": call.pod, "port": call.port},
        "method": request.method, "path": request.path, "headers": headers,
    }});
    let path = format!("/apis/{OBSERVE}/namespaces/{namespace}/explanations");
    let explanation = api.create(&path, &question)?;
    let status = &explanation["status"];
    let real = answer.headers.get("weft-reason").map_or("", String::as_str);
    let reason = status["reason"].as_str().unwrap_or_default();
    let alike = match status["verdict"].as_str() {
        Some("Allowed") => real.is_empty(),
        Some("Refused") => reason == real && status["httpStatus"] == answer.status,
        _ => false,
    };
    ensure!(
        alike,
        "the answer was {} {real:?}\n{call:?}\n{explanation:#}",
        answer.status
    );
    Ok(real.to_owned())
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
) -> anyhow::Result<(Call, ProxyResponse)> {
    let pod = pods.iter().find(|pod| pod.name == from);
    let pod = pod.context("the caller is one of the pods")?;
    let body = serde_json::to_string(&order)?;
    let (status, text) = api.ask_pod(pod, BYPASS, &Method::POST, "/proxy", &body)?;
    ensure!(status == 200, "{from} answered {status} to {body}: {text}");
    Ok((call, serde_json::from_str(&text)?))
}
