//! Suggests the smallest change that would let a refused call pass.
//!
//! Objects are added and none is changed: an HTTPRouteGroup with exactly this method and
//! path, a TCPRoute with exactly this port, and a TrafficTarget from exactly this account
//! to the account of the pods that refuse. Where no object helps there are commands.
//!
//! A TrafficTarget names accounts and closes what it protects. So the call is allowed on whatever
//! else runs under the called account, and to whatever else runs under the caller's, of which
//! warnings report. Pods of the called account that are open now stay so where labels distinguish
//! them from those that refuse: then the target is for an IdentityBinding with these labels. Where
//! none does they are closed to the callers that they had, and a warning names these: a target that
//! lets these callers stay would let them in on the pods that refuse too.

use std::collections::{BTreeMap, BTreeSet};

use crds::observe::Fix;
use http::header::COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};
use policy::http_match::{MAX_REGEX_LEN, any_of, exactly};
use policy::path::{BadPath, PathForms};
use policy::reason::Reason;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use self::account::Protected;
use self::plaintext::Advice;
use super::call::Request;
use super::evaluate::{EvaluatedEndpoint, Ruling};
use super::external;
use super::outcome::{BackendOutcome, Question};
use super::question::{Callers, Owner};
use crate::model::revoked::EndedBy;
use crate::model::{Index, Model, PodId};
use crate::world::ObjectKey;

mod account;
mod plaintext;

const ACCESS: &str = "access.smi-spec.io/v1alpha4";
const SPECS: &str = "specs.smi-spec.io/v1alpha4";
/// Names that are tried for the objects of one call.
const MOST_NAMES: usize = 64;
/// Headers that one match may name.
const MAX_HEADERS: usize = 32;

/// What would help.
pub(super) fn of(
    model: &Model,
    question: &Question<'_>,
    outcomes: &[BackendOutcome<'_>],
    owner: Owner<'_>,
    callers: Callers<'_>,
) -> Fix {
    let index = &*model.index;
    let mut fix = Fix::default();
    let wanted = wanted(index, question, outcomes, &mut fix);
    for (this, Refusing { ports, pods, sent }) in wanted {
        let named = account::stand_for_themselves(index, &this.account, &ports);
        if this.bytes && !named {
            fix.warnings.push(undeclared(&ports));
            continue;
        }
        let bytes_pass = !this.bytes && account::carries_bytes(index, &this.account, &ports);
        let narrow = named && !bytes_pass;
        let whom = account::protected(index, &this.account, &pods, owner);
        let request = sent.unwrap_or(&question.request);
        match allow((index, request), &this, &ports, narrow, &whom) {
            Ok(objects) => {
                fix.objects.extend(objects);
                fix.warnings
                    .extend(this.lets_in_more(question, &ports, narrow));
                if let Source::Account(caller) = &this.source {
                    let others = account::lets_in_other_callers(index, caller, question, owner);
                    fix.warnings.extend(others);
                }
                fix.warnings.extend(match &whom {
                    Protected::Labelled(labels) => vec![account::by_labels(&this.account, labels)],
                    Protected::Account => {
                        let account = &this.account;
                        let elsewhere = account::lets_in_elsewhere(index, account, outcomes, owner);
                        let mut warnings = account::closes_out(index, account, callers);
                        warnings.extend(elsewhere);
                        warnings
                    }
                });
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

/// Which callers to let in to which pods, and on which ports. What no object repairs goes into the
/// fix as words.
fn wanted<'a>(
    index: &Index,
    question: &Question<'_>,
    outcomes: &'a [BackendOutcome<'_>],
    fix: &mut Fix,
) -> BTreeMap<MissingGrant, Refusing<'a>> {
    let mut wanted: BTreeMap<MissingGrant, Refusing<'a>> = BTreeMap::new();
    for outcome in outcomes {
        if let Some(reason) = outcome.backend_route.refused
            && !outcome.backend_route.is_answered()
        {
            add_look_at(outcome, reason, fix);
            if reason == Reason::BadRequest {
                fix.warnings.push(nothing_helps(reason, &question.request));
            }
            if reason == Reason::EgressDenied && outcome.backend_route.split.is_none() {
                let (to, request) = (&question.to, &question.request);
                let object = external::missing(to, outcome.caller, request);
                let new = object.filter(|one| !fix.objects.contains(one));
                fix.objects.extend(new);
            }
        }
        for one in &outcome.evaluated {
            let Ruling::Refused(reason) = one.ruling else {
                continue;
            };
            if let Some(by) = &one.revoked {
                add_revoked(by, fix);
                continue;
            }
            match (reason, account_of(index, one)) {
                (Reason::NotAllowed | Reason::NoIdentity, Some(account)) => {
                    match source(index, outcomes, (outcome, one)) {
                        Ok(source) => {
                            let bytes = question.request.tcp || one.protocol.is_opaque();
                            let this = MissingGrant {
                                source,
                                account,
                                bytes,
                            };
                            let refusing = wanted.entry(this).or_default();
                            let sent = outcome.backend_route.sent.as_ref();
                            refusing.sent = refusing.sent.or(sent);
                            refusing.ports.insert(one.endpoint.port);
                            refusing
                                .pods
                                .extend(one.by.iter().map(|(pod, _)| pod.clone()));
                        }
                        Err(advice) => {
                            fix.commands.push(advice.command);
                            fix.warnings.extend(advice.warning);
                        }
                    }
                }
                _ => fix.warnings.push(nothing_helps(reason, &question.request)),
            }
        }
    }
    wanted
}

/// Where a call is refused for want of the same grant.
#[derive(Debug, Default)]
struct Refusing<'a> {
    ports: BTreeSet<u16>,
    pods: BTreeSet<PodId>,
    /// The request as it arrives there, where a route changes it.
    sent: Option<&'a Request>,
}

/// Which callers to let in to which pods, and as what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct MissingGrant {
    source: Source,
    account: ObjectKey,
    /// The port carries bytes, so no proxy looks at requests.
    bytes: bool,
}

impl MissingGrant {
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

fn undeclared(ports: &BTreeSet<u16>) -> String {
    let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
    format!(
        "no object helps: no container declares port {}, and in a TCPRoute that number stands \
         for the port behind a Service; declare it as containerPort",
        ports.join(", ")
    )
}

/// The caller that is let in.
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

/// The caller to let in, or what to do about one that no object can name.
fn source(
    index: &Index,
    outcomes: &[BackendOutcome<'_>],
    (outcome, one): (&BackendOutcome<'_>, &EvaluatedEndpoint),
) -> Result<Source, Advice> {
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
        Some((pod, _)) if one.strict => {
            let at = (pod, one.endpoint.port);
            Err(plaintext::permit(index, outcomes, at))
        }
        _ => Ok(Source::Outside),
    }
}

fn account_of(index: &Index, one: &EvaluatedEndpoint) -> Option<ObjectKey> {
    let (pod, _) = one.by.as_ref()?;
    let facts = index.world.pods.get(pod)?;
    Some(ObjectKey {
        namespace: pod.namespace.clone(),
        name: facts.service_account.clone(),
    })
}

/// Where to look: at the Revocations, where these take pods of the backend out.
fn add_look_at(outcome: &BackendOutcome<'_>, reason: Reason, fix: &mut Fix) {
    let revoked = &outcome.backend_route.revoked;
    if revoked.is_empty() {
        fix.commands.extend(look_at(outcome, reason));
    }
    for by in revoked {
        add_revoked(by, fix);
    }
}

fn look_at(outcome: &BackendOutcome<'_>, reason: Reason) -> Option<String> {
    let (namespace, name) = outcome.backend_route.label.split_once('/')?;
    // The set of a release follows the name, and its endpoints are among the Service's.
    let name = name.split_once(' ').map_or(name, |(service, _)| service);
    match (reason, &outcome.backend_route.split) {
        (
            Reason::NoBackend | Reason::NoRoute | Reason::InvalidRoute | Reason::InvalidBackend,
            Some(split),
        ) => Some(format!(
            "kubectl -n {} edit {} {}",
            split.namespace(),
            split.kind().to_lowercase(),
            split.name()
        )),
        (Reason::NoEndpoint, _) => Some(format!(
            "kubectl -n {namespace} get endpointslices -l kubernetes.io/service-name={name}"
        )),
        _ => None,
    }
}

/// A Revocation is lifted by its author alone: a command that deletes it is no suggestion.
fn add_revoked(by: &EndedBy, fix: &mut Fix) {
    let name = by.by.name();
    fix.commands.push(format!("kubectl describe rev {name}"));
    fix.warnings.push(format!(
        "no object helps: {by} until it is deleted (kubectl delete rev {name}), which is safe once \
         no stolen certificate is left, after identity.leafTtl"
    ));
}

fn nothing_helps(reason: Reason, request: &Request) -> String {
    let path = PathForms::of(&request.path).error();
    match (reason, path) {
        (Reason::BadRequest, Some(path)) if request.malformed.is_none() => not_written(path),
        (Reason::BadRequest, _) => {
            "no object helps: the call has no form that rules could evaluate".to_owned()
        }
        (other, _) => format!("no object helps against {other}"),
    }
}

/// An object that allows such a path would allow others beside it.
fn not_written(path: BadPath) -> String {
    format!("no object is written for this: {}", path.refusal())
}

/// A target that allows this call on these pods, with its routes; `narrow`: on these ports only.
fn allow(
    (index, request): (&Index, &Request),
    this: &MissingGrant,
    ports: &BTreeSet<u16>,
    narrow: bool,
    whom: &Protected,
) -> Result<Vec<Value>, String> {
    let path = policy::path::normalise(&request.path);
    let path = path.map_err(|error| {
        let exact = PathForms::of(&request.path).error();
        not_written(exact.unwrap_or(error))
    })?;
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
    let mut text = format!("{this:?} {ports:?} {narrow} {described}");
    if let Protected::Labelled(labels) = whom {
        text.push_str(&format!(" {labels:?}"));
    }
    let name = free_name(index, &account.namespace, &text);
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
    let spec = json!({"sources": [this.source.json()], "rules": rules});
    objects.extend(target(&meta, spec, account, whom));
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

/// A target, after the IdentityBinding that it is for where it is for no account.
fn target(meta: &Value, mut spec: Value, account: &ObjectKey, whom: &Protected) -> Vec<Value> {
    let mut objects = Vec::new();
    spec["destination"] = match whom {
        Protected::Account => json!({"kind": "ServiceAccount", "name": &*account.name}),
        Protected::Labelled(labels) => {
            objects.push(json!({
                "apiVersion": ACCESS, "kind": "IdentityBinding", "metadata": meta,
                "spec": {"schemes": {"podLabelSelector": {"matchLabels": labels}}},
            }));
            json!({"kind": "IdentityBinding", "name": meta["name"]})
        }
    };
    objects.push(json!({
        "apiVersion": ACCESS, "kind": "TrafficTarget", "metadata": meta, "spec": spec,
    }));
    objects
}

/// The first name for a call that no object has: one that has it may be a user's by now.
fn free_name(index: &Index, namespace: &str, text: &str) -> String {
    let world = &index.world;
    let is_taken = |name: &str| {
        let key = ObjectKey::new(namespace, name);
        world.targets.contains_key(&key)
            || world.groups.contains_key(&key)
            || world.tcp_routes.contains_key(&key)
            || world.bindings.contains_key(&key)
    };
    let mut name = name_of(text);
    for number in 2..=MOST_NAMES {
        if !is_taken(&name) {
            break;
        }
        name = name_of(&format!("{text} {number}"));
    }
    name
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
