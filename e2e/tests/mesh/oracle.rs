//! Two thousand requests through real proxies, each decided as the objects say, and
//! hundreds of them as `explain` says.
//!
//! Random SMI objects in random versions are applied in rounds, through the API
//! server with its conversion and validation; what comes of them is compared with
//! the naive evaluator, which reads the text that was applied, and with the read API's
//! own explanation of the same call. Calls go from pod to pod, to the Service in front of the
//! pod, and from a pod without a proxy. Of bytes, which have no `weft-reason`, a few are sent
//! beside them, and what becomes of these is compared with the explanation alone.
//!
//! Claims: smi-4

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
/// So many requests of a round are explained as well, one after another: six hundred in
/// all, at some tens of milliseconds each.
const EXPLAINED: usize = 30;
/// Of so many requests one goes to the Service in front of the pod, the others to its address.
const BY_SERVICE: usize = 3;
/// At least so many of the explained requests go to a Service, and so many come from outside
/// the mesh.
const LEAST_OF_A_KIND: usize = 20;
/// The API of explanations.
const OBSERVE: &str = "observe.weft.dev/v1alpha1";
/// A change takes effect within 2 s of the API server having it; the rest is for a
/// busy machine.
const SETTLED: Duration = Duration::from_secs(4);
/// The application's interface for orders; the pods skip the port.
const BYPASS: u16 = 9092;
/// The application without a proxy.
const PLAIN: &str = "plain";
/// The application's port that gives bytes back.
const BYTES: u16 = 9000;
/// Of the objects of all rounds so many may be refused by validation: none is meant
/// to be, and without objects there is nothing to compare.
const MOST_REFUSED: usize = ROUNDS;

// Claims: observability-6
#[test]
fn two_thousand_requests_are_decided_and_explained_as_defined() -> Outcome {
    let ns = Namespace::meshed("oracle")?;
    let shop = Shop::open(&ns)?;
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
    let (mut to_service, mut from_outside, mut bytes) = (0, 0, BTreeMap::new());
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
        *bytes.entry(shop.bytes_agree(round)?).or_insert(0) += 1;
        for at in 0..REQUESTS {
            let by_service = at.is_multiple_of(BY_SERVICE);
            let (call, sender, answer) = loop {
                let call = world.random_call(&mut random, &vocabulary);
                if let Some(order) = shop.order(call, by_service)? {
                    break shop.send(order)?;
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
                let reason = shop
                    .agreed((&call, sender.as_str(), by_service), &answer)
                    .with_context(|| format!("round {round}: {}", Value::from(applied.clone())))?;
                explained += 1;
                to_service += usize::from(by_service);
                from_outside += usize::from(call.caller == Caller::Outside);
                *reasons.entry(reason).or_insert(0) += 1;
            }
        }
        delete(&ns, &applied)?;
    }
    println!("{sent} requests, {allowed} allowed, {refused_objects} objects refused");
    println!("{explained} explained, by reason: {reasons:?}");
    println!("{to_service} to a Service, {from_outside} from outside; of bytes passed: {bytes:?}");
    assert!(explained >= 500, "{explained} were explained");
    for (kind, count) in [("to a Service", to_service), ("from outside", from_outside)] {
        assert!(count >= LEAST_OF_A_KIND, "{count} {kind} were explained");
    }
    for passed in [true, false] {
        assert!(bytes.contains_key(&passed), "all bytes alike: {bytes:?}");
    }
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

/// Who takes part.
struct Shop {
    api: Api,
    /// With a proxy, each alone behind the Service of its name.
    pods: Vec<(&'static str, Pod)>,
    /// Without one.
    plain: Pod,
}

/// A call as it will be on the wire, the name of the pod that sends it, and the order to that.
type Ordered = (Call, String, Order);

impl Shop {
    fn open(ns: &Namespace) -> anyhow::Result<Self> {
        ns.annotate("weft.dev/access", Some("deny"))?;
        let accounts = ["api", "web", "job"];
        let probe = json!({"httpGet": {"path": "/metrics", "port": 9091}, "periodSeconds": 1});
        for (account, tier) in accounts.into_iter().zip(["front", "back", "front"]) {
            let app = App::new(account)
                .label("tier", tier)
                .annotation("weft.dev/skip-inbound-ports", &BYPASS.to_string())
                .readiness(probe.clone());
            ns.apply_all(&app.objects())?;
        }
        let plain = App::new(PLAIN).label("weft.dev/inject", "disabled");
        ns.apply_all(&plain.objects())?;
        // About no port that a request goes to.
        ns.apply(
            "apiVersion: specs.smi-spec.io/v1alpha4\nkind: TCPRoute\n\
             metadata: {name: only-bytes}\nspec: {matches: {ports: [9000]}}\n---\n\
             apiVersion: access.smi-spec.io/v1alpha4\nkind: TrafficTarget\n\
             metadata: {name: only-bytes}\nspec:\n  \
             destination: {kind: ServiceAccount, name: api, namespace: $NS}\n  \
             rules: [{kind: TCPRoute, name: only-bytes}]\n  \
             sources: [{kind: ServiceAccount, name: web, namespace: $NS}]\n",
        )?;
        ns.ready(&["api", "web", "job", PLAIN])?;
        let pods = accounts
            .into_iter()
            .map(|app| anyhow::Ok((app, ns.pod(app)?)));
        Ok(Self {
            api: Api::open(&ns.cluster)?,
            pods: pods.collect::<anyhow::Result<_>>()?,
            plain: ns.pod(PLAIN)?,
        })
    }

    /// The pod of this name with a proxy, after the Service in front of it.
    fn meshed(&self, name: &str) -> anyhow::Result<(&'static str, &Pod)> {
        let found = self.pods.iter().find(|(_, pod)| pod.name == name);
        let (service, pod) = found.with_context(|| format!("{name} is none of the pods"))?;
        Ok((*service, pod))
    }

    /// The order for a call; `None` if the test application cannot send it.
    fn order(&self, mut call: Call, by_service: bool) -> anyhow::Result<Option<Ordered>> {
        let from = match &call.caller {
            Caller::Pod { name, .. } => name.clone(),
            Caller::Outside => self.plain.name.clone(),
        };
        let Traffic::Http(request) = &mut call.traffic else {
            return Ok(None);
        };
        let (service, to) = self.meshed(&call.pod)?;
        let place = if by_service { service } else { &*to.ip };
        let host = format!("{place}:{}", call.port);
        let url = format!("http://{host}{}", request.path);
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
        request.headers.push(("host".into(), host.into_bytes()));
        let order = Order {
            url,
            method: request.method.clone(),
            body: String::new(),
            headers: Some(headers),
        };
        Ok(Some((call, from, order)))
    }

    /// The call, who sent it, and what came back.
    fn send(&self, (call, from, order): Ordered) -> anyhow::Result<(Call, String, ProxyResponse)> {
        let pod = if from == self.plain.name {
            &self.plain
        } else {
            self.meshed(&from)?.1
        };
        let (post, body) = (&Method::POST, serde_json::to_string(&order)?);
        let asked = self.api.ask_pod(pod, BYPASS, post, "/proxy", &body);
        let (status, text) = asked?;
        ensure!(status == 200, "{from} answered {status} to {body}: {text}");
        Ok((call, from, serde_json::from_str(&text)?))
    }

    /// Asks what becomes of a call that was made, and fails where the answer is not what became
    /// of it. The reason of both; empty where the call passed.
    fn agreed(
        &self,
        (call, from, by_service): (&Call, &str, bool),
        answer: &ProxyResponse,
    ) -> anyhow::Result<String> {
        let Traffic::Http(request) = &call.traffic else {
            bail!("no request: {call:?}");
        };
        let headers: Vec<Value> = request
            .headers
            .iter()
            .map(|(name, value)| json!({"name": name, "value": String::from_utf8_lossy(value)}))
            .collect();
        let (service, to) = self.meshed(&call.pod)?;
        let about = json!({"method": request.method, "path": request.path, "headers": headers});
        let to = called(by_service, (service, to), call.port);
        let status = self.explanation(from, &to, about)?;
        let real = answer.headers.get("weft-reason").map_or("", String::as_str);
        let reason = status["reason"].as_str().unwrap_or_default();
        let alike = match status["verdict"].as_str() {
            Some("Allowed") => real.is_empty(),
            Some("Refused") => reason == real && status["httpStatus"] == answer.status,
            _ => false,
        };
        ensure!(
            alike,
            "{from} to {to}: the answer was {} {real:?}\n{call:?}\n{status:#}",
            answer.status
        );
        Ok(real.to_owned())
    }

    /// Sends bytes, asks what becomes of them, and fails where that differs. Whether they passed.
    fn bytes_agree(&self, round: usize) -> anyhow::Result<bool> {
        let [api, web, job] = &*self.pods else {
            bail!("{} pods", self.pods.len());
        };
        let by_service = round.is_multiple_of(2);
        let (from, to) = match round / 2 % 4 {
            0 => (&web.1, api),
            1 => (&job.1, api),
            2 => (&self.plain, api),
            _ => (&web.1, job),
        };
        let place = if by_service { to.0 } else { &*to.1.ip };
        let sent = from.exec(&["tcp", &format!("{place}:{BYTES}")]);
        let to = called(by_service, (to.0, &to.1), BYTES);
        let status = self.explanation(&from.name, &to, json!({"tcp": true}))?;
        let verdict = if sent.is_ok() { "Allowed" } else { "Refused" };
        ensure!(
            status["verdict"] == verdict,
            "round {round}, bytes of {} to {to}: {sent:?}\n{status:#}",
            from.name
        );
        Ok(sent.is_ok())
    }

    /// What the read API says of a call of the pod `from`.
    fn explanation(&self, from: &str, to: &Value, about: Value) -> anyhow::Result<Value> {
        let namespace = &self.plain.namespace;
        let mut spec = about;
        spec["from"] = json!({"kind": "Pod", "namespace": namespace, "name": from});
        spec["to"] = to.clone();
        spec["to"]["namespace"] = json!(namespace);
        let question = json!({"apiVersion": OBSERVE, "kind": "Explanation", "spec": spec});
        let path = format!("/apis/{OBSERVE}/namespaces/{namespace}/explanations");
        let mut explanation = self.api.create(&path, &question)?;
        Ok(explanation["status"].take())
    }
}

/// The end of a question that is called.
fn called(by_service: bool, (service, pod): (&str, &Pod), port: u16) -> Value {
    let (kind, name) = if by_service {
        ("Service", service)
    } else {
        ("Pod", &*pod.name)
    };
    json!({"kind": kind, "name": name, "port": port})
}

/// Namespace, pods and Services as the API server has them; without the pod that has no proxy,
/// which no pod calls and whose calls are those of any unmeshed client.
fn surroundings(ns: &Namespace) -> anyhow::Result<Vec<Value>> {
    let mut objects = vec![ns.cluster.json(&["get", "namespace", &ns.name])?];
    for (kind, plural) in [("Pod", "pods"), ("Service", "services")] {
        let list = ns.json(&["get", plural])?;
        for item in list["items"].as_array().context("a list")? {
            let [name, app] = [
                &item["metadata"]["name"],
                &item["metadata"]["labels"]["app"],
            ];
            if name == PLAIN || app == PLAIN {
                continue;
            }
            let mut item = item.clone();
            item["kind"] = json!(kind);
            objects.push(item);
        }
    }
    Ok(objects)
}
