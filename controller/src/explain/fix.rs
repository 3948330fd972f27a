//! What would let a refused call pass, and nothing beside it.
//!
//! Objects are added and none is changed: an HTTPRouteGroup with exactly this method and
//! path, a TCPRoute with exactly this port, and a TrafficTarget from exactly this account
//! to the account of the pods that refuse. Where no object helps there are commands.
//!
//! A TrafficTarget closes what it protects. Where pods of the same account are open so far
//! because none did, the callers that they had are let in by an object of their own, and a
//! warning says so: what was never seen is closed out all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use crds::observe::Fix;
use http::header::COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};
use policy::http_match::{MAX_REGEX_LEN, any_of, exactly};
use policy::mode::{AccessMode, Enforcement};
use policy::reason::Reason;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::judge::{Judged, Ruling};
use super::outcome::{Outcome, Question};
use super::question::{Callers, SeenCallers};
use crate::model::{Index, Model, PodId, modes};
use crate::world::ObjectKey;

const ACCESS: &str = "access.smi-spec.io/v1alpha4";
const SPECS: &str = "specs.smi-spec.io/v1alpha4";
/// Headers that one match may name.
const MAX_HEADERS: usize = 32;

/// What would help.
pub(super) fn of(
    model: &Model,
    question: &Question<'_>,
    outcomes: &[Outcome<'_>],
    callers: Callers<'_>,
) -> Fix {
    let mut fix = Fix::default();
    let mut wanted: BTreeMap<Wanted, BTreeSet<u16>> = BTreeMap::new();
    for outcome in outcomes {
        if let Some(reason) = outcome.way.refused
            && !outcome.way.is_answered()
        {
            fix.commands.extend(look_at(outcome, reason));
        }
        for one in &outcome.judged {
            let Ruling::Refused(reason) = one.ruling else {
                continue;
            };
            match (reason, account_of(&model.index, one)) {
                (Reason::NotAllowed | Reason::NoIdentity, Some(account)) => {
                    match source(&model.index, outcome, one) {
                        Ok(source) => {
                            let bytes = question.request.tcp || one.protocol.is_opaque();
                            let this = Wanted {
                                source,
                                account,
                                bytes,
                            };
                            let ports = wanted.entry(this).or_default();
                            ports.insert(one.endpoint.port);
                        }
                        Err(advice) => {
                            fix.commands.push(advice.command);
                            fix.warnings.extend(advice.warning);
                        }
                    }
                }
                _ => fix.warnings.push(nothing_helps(reason)),
            }
        }
    }
    for (this, ports) in wanted {
        let named = stand_for_themselves(&model.index, &this.account, &ports);
        if this.bytes && !named {
            fix.warnings.push(undeclared(&ports));
            continue;
        }
        let bytes_pass = !this.bytes && carries_bytes(&model.index, &this.account, &ports);
        let narrow = named && !bytes_pass;
        match allow(question, &this, &ports, narrow) {
            Ok(objects) => {
                fix.objects.extend(objects);
                fix.warnings
                    .extend(this.lets_in_more(question, &ports, narrow));
                keep_open(&model.index, &this.account, callers, &mut fix);
            }
            Err(warning) => fix.warnings.push(warning),
        }
    }
    for list in [&mut fix.commands, &mut fix.warnings] {
        list.sort();
        list.dedup();
    }
    fix
}

/// Whom to let in to whom, and as what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Wanted {
    source: Source,
    account: ObjectKey,
    /// The port carries bytes, so nobody looks at requests.
    bytes: bool,
}

impl Wanted {
    /// What passes besides, where that cannot be helped.
    fn lets_in_more(
        &self,
        question: &Question<'_>,
        ports: &BTreeSet<u16>,
        narrow: bool,
    ) -> Option<String> {
        let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
        let ports = ports.join(", ");
        if self.bytes && !question.request.tcp {
            return Some(format!(
                "port {ports} is declared to carry no HTTP: whatever this caller sends there \
                 passes"
            ));
        }
        (!narrow).then(|| {
            format!(
                "the same request passes on other ports too: on some pods of account {} port \
                 {ports} is declared to carry no HTTP or not declared at all, so that a rule for \
                 the port would let more pass",
                self.account
            )
        })
    }
}

/// Whether these ports, written in a TCPRoute, mean these ports on every pod of an account.
/// A number that nobody declares and that is a Service's own stands for the port behind it.
fn stand_for_themselves(index: &Index, account: &ObjectKey, ports: &BTreeSet<u16>) -> bool {
    let mut pods = index.world.pods.iter().filter(|(pod, facts)| {
        pod.namespace == account.namespace && facts.service_account == account.name
    });
    let of_a_service = |port: u16| {
        let mut services = index.services.iter();
        services.any(|(key, entry)| {
            key.namespace == account.namespace && entry.ports.contains_key(&port)
        })
    };
    pods.all(|(pod, facts)| {
        let serves = index.pods.get(pod).map_or(&[][..], |entry| &entry.serves);
        ports.iter().all(|port| {
            let declared = facts.ports.contains_key(port);
            declared || serves.iter().any(|(_, _, own)| own == port) || !of_a_service(*port)
        })
    })
}

fn undeclared(ports: &BTreeSet<u16>) -> String {
    let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
    format!(
        "no object helps: no container declares port {}, and in a TCPRoute that number stands \
         for the port behind a Service; declare it as containerPort",
        ports.join(", ")
    )
}

/// Whether on some pod of an account one of these ports carries bytes. There a rule for the
/// port lets anything pass, whatever it says of requests.
fn carries_bytes(index: &Index, account: &ObjectKey, ports: &BTreeSet<u16>) -> bool {
    let mut pods = index.world.pods.iter().filter(|(pod, facts)| {
        pod.namespace == account.namespace && facts.service_account == account.name
    });
    pods.any(|(pod, facts)| {
        let protocols = index.pod_protocols(pod, facts);
        ports.iter().any(|port| protocols.lookup(*port).is_opaque())
    })
}

/// Who is let in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Account(ObjectKey),
    Outside,
}

impl Source {
    fn json(&self) -> Value {
        match self {
            Self::Account(account) => json!({
                "kind": "ServiceAccount", "name": &*account.name, "namespace": &*account.namespace,
            }),
            Self::Outside => json!({"kind": "Group", "name": "system:unauthenticated"}),
        }
    }
}

/// What to do where no object helps.
struct Advice {
    /// For a shell, or a comment for a person.
    command: String,
    /// What it does besides.
    warning: Option<String>,
}

impl Advice {
    fn comment(text: impl Display) -> Self {
        Self {
            command: format!("# {text}"),
            warning: None,
        }
    }
}

/// Whom to let in, or what to do about a caller that no object can name.
fn source(index: &Index, outcome: &Outcome<'_>, one: &Judged) -> Result<Source, Advice> {
    if let Some(id) = &outcome.caller.identity {
        let account = id.namespace().zip(id.service_account());
        let account = account.map(|(namespace, name)| ObjectKey::new(namespace, name));
        return account
            .map(Source::Account)
            .ok_or_else(|| Advice::comment(format_args!("{} is no service account", id.as_str())));
    }
    if let Some(pod) = &outcome.caller.example {
        let namespace = &pod.namespace;
        if outcome.caller.past {
            return Err(Advice::comment(format_args!(
                "{pod} leaves this call out of traffic capture: take weft.dev/skip-outbound-ports \
                 or weft.dev/skip-outbound-cidrs from its pod template"
            )));
        }
        return Err(Advice {
            command: format!("kubectl label namespace {namespace} weft.dev/inject=enabled"),
            warning: Some(format!(
                "the label gives every new pod of namespace {namespace} a proxy; {pod} is to be \
                 replaced after it, as by kubectl rollout restart of what owns it"
            )),
        });
    }
    match &one.by {
        Some((pod, _)) if one.strict => Err(permit_plaintext(index, pod)),
        _ => Ok(Source::Outside),
    }
}

/// No object lets plaintext in where mutual TLS is asked for.
fn permit_plaintext(index: &Index, pod: &PodId) -> Advice {
    let facts = index.world.pods.get(pod);
    let own = facts.is_some_and(|facts| facts.appearance.mtls.is_some());
    let namespace = &pod.namespace;
    if own {
        return Advice::comment(format_args!(
            "{pod} asks for mutual TLS itself: give the caller a proxy, or write weft.dev/mtls: \
             permissive into the pod template, by which plaintext reaches its rules"
        ));
    }
    Advice {
        command: format!(
            "kubectl annotate namespace {namespace} weft.dev/mtls=permissive --overwrite"
        ),
        warning: Some(format!(
            "the annotation lets plaintext of anybody reach the rules of all pods of namespace \
             {namespace}; a caller with a proxy needs none of that"
        )),
    }
}

fn account_of(index: &Index, one: &Judged) -> Option<ObjectKey> {
    let (pod, _) = one.by.as_ref()?;
    let facts = index.world.pods.get(pod)?;
    Some(ObjectKey {
        namespace: pod.namespace.clone(),
        name: facts.service_account.clone(),
    })
}

fn look_at(outcome: &Outcome<'_>, reason: Reason) -> Option<String> {
    let (namespace, name) = outcome.way.label.split_once('/')?;
    match (reason, outcome.way.split) {
        (Reason::NoBackend, Some(split)) => Some(format!(
            "kubectl -n {} edit trafficsplit {}",
            split.namespace, split.name
        )),
        (Reason::NoEndpoint, _) => Some(format!(
            "kubectl -n {namespace} get endpointslices -l kubernetes.io/service-name={name}"
        )),
        _ => None,
    }
}

fn nothing_helps(reason: Reason) -> String {
    match reason {
        Reason::BadRequest => {
            "no object helps: the call has no form that rules could judge".to_owned()
        }
        other => format!("no object helps against {other}"),
    }
}

/// A target that allows this call, with its routes; `narrow`: on these ports only.
fn allow(
    question: &Question<'_>,
    this: &Wanted,
    ports: &BTreeSet<u16>,
    narrow: bool,
) -> Result<Vec<Value>, String> {
    let request = &question.request;
    let path = policy::path::normalise(&request.path);
    let path = path.map_err(|error| format!("no object helps: the path {error}"))?;
    let pattern = exactly(&path);
    if pattern.len() > MAX_REGEX_LEN {
        return Err("no object helps: the path is longer than an expression may be".to_owned());
    }
    let headers = header_patterns(&request.headers)?;
    let described = if this.bytes {
        String::new()
    } else if headers.is_empty() {
        format!("{} {pattern}", request.method)
    } else {
        format!("{} {pattern} {headers:?}", request.method)
    };
    let account = &this.account;
    let name = name_of(&format!("{this:?} {ports:?} {narrow} {described}"));
    let meta = json!({"name": name, "namespace": &*account.namespace});
    let (mut rules, mut objects) = (Vec::new(), Vec::new());
    if narrow {
        rules.push(json!({"kind": "TCPRoute", "name": name}));
        objects.push(json!({
            "apiVersion": SPECS, "kind": "TCPRoute", "metadata": meta,
            "spec": {"matches": {"ports": ports}},
        }));
    }
    if !this.bytes {
        rules.push(json!({"kind": "HTTPRouteGroup", "name": name, "matches": ["call"]}));
        let mut call =
            json!({"name": "call", "pathRegex": pattern, "methods": [request.method.as_str()]});
        if !headers.is_empty() {
            call["headers"] = json!(headers);
        }
        objects.push(json!({
            "apiVersion": SPECS, "kind": "HTTPRouteGroup", "metadata": meta,
            "spec": {"matches": [call]},
        }));
    }
    objects.push(target(&name, account, &[this.source.json()], &rules));
    Ok(objects)
}

/// What the headers of the call must be, for each name; a name may have several values.
fn header_patterns(headers: &HeaderMap) -> Result<BTreeMap<&str, String>, String> {
    if headers.keys_len() > MAX_HEADERS {
        return Err(format!(
            "no object helps: a match names at most {MAX_HEADERS} headers"
        ));
    }
    let of = |name: &HeaderName| {
        let values = headers.get_all(name).iter();
        let values: Result<Vec<&str>, _> = values.map(HeaderValue::to_str).collect();
        let values = values.map_err(|_| format!("no object helps: header {name} is no text"))?;
        let pattern = if name == COOKIE {
            exactly(&values.join("; "))
        } else {
            let each: BTreeSet<&str> = values.into_iter().collect();
            any_of(each)
        };
        if pattern.len() > MAX_REGEX_LEN {
            return Err(format!(
                "no object helps: header {name} is longer than an expression may be"
            ));
        }
        Ok(pattern)
    };
    let names = headers.keys();
    names.map(|name| Ok((name.as_str(), of(name)?))).collect()
}

fn target(name: &str, account: &ObjectKey, sources: &[Value], rules: &[Value]) -> Value {
    json!({
        "apiVersion": ACCESS, "kind": "TrafficTarget",
        "metadata": {"name": name, "namespace": &*account.namespace},
        "spec": {
            "destination": {"kind": "ServiceAccount", "name": &*account.name},
            "sources": sources, "rules": rules,
        },
    })
}

/// The same for the same call, and no name that exists by chance.
fn name_of(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let digits: String = digest
        .iter()
        .take(5)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("allow-{digits}")
}

/// Pods of an account that are open now and that a target would close.
fn closed_by_a_target(index: &Index, account: &ObjectKey) -> BTreeSet<PodId> {
    let pods = index.world.pods.iter().filter(|(pod, facts)| {
        let here = pod.namespace == account.namespace && facts.service_account == account.name;
        let namespace = index.world.namespace(&pod.namespace);
        let targets: Vec<_> = index.targets.of(pod, facts).collect();
        here && facts.proxy.is_some()
            && !facts.ended
            && modes::access(&index.defaults, namespace, &facts.appearance) == AccessMode::Auto
            && index.enforcement(pod, facts, &targets) == Enforcement::Open
    });
    pods.map(|(pod, _)| pod.clone()).collect()
}

/// Lets in whoever called those pods of the account that a target would close.
fn keep_open(index: &Index, account: &ObjectKey, callers: Callers<'_>, fix: &mut Fix) {
    let closed = closed_by_a_target(index, account);
    if closed.is_empty() {
        return;
    }
    // Whom it names may be somebody's secret; that it closes is not.
    let SeenCallers {
        accounts: seen,
        unnamed,
        unknown,
    } = callers(&closed);
    let names: Vec<String> = seen.iter().map(ToString::to_string).collect();
    let pods = match closed.len() {
        1 => "1 pod".to_owned(),
        count => format!("{count} pods"),
    };
    let told = match &*names {
        [] => "none".to_owned(),
        names => names.join(", "),
    };
    fix.warnings.push(format!(
        "{pods} of account {account} are open now and would be closed by this; callers that were \
         seen stay allowed ({told}), others not",
    ));
    if unnamed > 0 {
        fix.warnings.push(format!(
            "{unnamed} more accounts called {pods} of account {account} and would be refused from \
             then on: they are of namespaces where you may not create explanations; let somebody \
             ask who may, to have them named and let in",
        ));
    }
    if unknown > 0 {
        fix.warnings.push(format!(
            "{unknown} more callers of {pods} of account {account} were seen and would be refused \
             from then on: they have no pod now, or no proxy, so nobody knows their account; weft \
             edges shows them",
        ));
    }
    if seen.is_empty() {
        return;
    }
    let name = name_of(&format!("seen {account} {names:?}"));
    let sources: Vec<Value> = seen
        .into_iter()
        .map(|one| Source::Account(one).json())
        .collect();
    fix.objects.push(json!({
        "apiVersion": SPECS, "kind": "TCPRoute",
        "metadata": {"name": name, "namespace": &*account.namespace}, "spec": {},
    }));
    let rules = [json!({"kind": "TCPRoute", "name": name})];
    fix.objects.push(target(&name, account, &sources, &rules));
}
