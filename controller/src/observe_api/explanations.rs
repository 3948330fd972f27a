//! Handles requests for explanations why a call passes or not, within the rights of the user.
//!
//! A user who may create explanations in the called side's namespace is shown everything. One who
//! may only in the caller's is shown what calling would reveal: the verdict, its reason, and whose
//! the called side is. One who may only in the called side's is shown nothing of the caller beyond
//! the request's own text, so there a caller can only be named by its account. A Service may lead
//! to pods of another namespace than its own: without the right there the user is shown what its
//! own callers would find out, and of others nothing. In all cases callers beside the requested one
//! are named only to a user who may create explanations in their namespaces.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use crds::observe::{
    API_VERSION, Explanation, ExplanationSpec, ExplanationStatus, ExplanationVerdict, NodeKind,
    Programmed, Resource,
};
use http::StatusCode;
use model::PodId;
use model::compiled::Compiled;
use model::explain::{
    BadQuestion, CallerView, CountedPort, Explained, SeenCallers, UNKNOWN_HOST, of_seen_calls,
};
use model::world::ObjectKey;
use policy::name::{Kind, ObjectRef};

use super::context::ObserveContext;
use super::query::{ObservePath, may};
use super::worker_pool::WorkerPool;
use crate::aggregated::access::AccessDecision;
use crate::aggregated::front_proxy::User;
use crate::aggregated::refusal::Refusal;
use crate::graph::follow::UNREAD;
use crate::graph::key::NodeKey;
use crate::inventory::kind::MetricsKind;

/// Max bytes of one request.
pub(super) const MAX_BODY: usize = 64 * 1024;

/// Max namespaces of callers that one explanation checks with the API server.
const MAX_CHECKED: usize = 16;

/// In whose namespaces the user may create explanations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rights {
    caller: bool,
    called: bool,
}

/// The user, and what a response is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueryContext<'a> {
    pub(super) context: &'a ObserveContext,
    pub(super) workers: &'a WorkerPool,
    pub(super) user: &'a User,
    pub(super) compiled: &'a Arc<Compiled>,
}

impl QueryContext<'_> {
    /// The request with its explanation.
    ///
    /// # Errors
    /// When it cannot be read, or the user may explain at neither end.
    pub(super) async fn answer(
        self,
        path: &ObservePath,
        body: &[u8],
    ) -> Result<Explanation, Refusal> {
        answer(self, path, body).await
    }

    /// Explains, on a thread that no connection waits for.
    async fn explain(
        self,
        spec: &ExplanationSpec,
        rights: Rights,
        known: &ReadableNamespaces,
    ) -> Result<ExplainedCall, Refusal> {
        let (context, compiled) = (self.context.clone(), Arc::clone(self.compiled));
        let (spec, known) = (spec.clone(), known.clone());
        let explained = move || explain(&context, &compiled, &spec, rights, &known);
        self.workers.run(explained).await?
    }
}

async fn answer(
    querying: QueryContext<'_>,
    path: &ObservePath,
    body: &[u8],
) -> Result<Explanation, Refusal> {
    let QueryContext { context, user, .. } = querying;
    let requested: Explanation = serde_json::from_slice(body)
        .map_err(|error| Refusal::bad(format!("the Explanation cannot be read: {error}")))?;
    if !requested.api_version.is_empty() && requested.api_version != API_VERSION {
        return Err(Refusal::bad(format!("apiVersion must be {API_VERSION}")));
    }
    let (from, to) = (&requested.spec.from.namespace, &requested.spec.to.namespace);
    if let Some(here) = &path.namespace
        && here != from
        && here != to
    {
        let message = format!("neither spec.from nor spec.to is in namespace {here:?}");
        return Err(Refusal::bad(message));
    }
    let rights = Rights {
        // A caller without a namespace is no namespace's secret.
        caller: requested.spec.from.outside || allowed(context, user, from).await?,
        called: to.is_empty() || allowed(context, user, to).await?,
    };
    let hidden = requested.spec.from.outside && !rights.called;
    if hidden || (!rights.caller && !rights.called) {
        let message = format!(
            "user {:?} can create explanations neither in namespace {from:?} nor in {to:?}",
            user.name
        );
        return Err(Refusal::new(StatusCode::FORBIDDEN, "Forbidden", message));
    }
    let to = &requested.spec.to;
    let status = if !rights.caller && requested.spec.from.kind != "ServiceAccount" {
        hidden_caller(from)
    } else if !rights.called && (to.kind != "Service" || to.port.is_none()) {
        // Before anything is looked up: which ports there are is a response too.
        hidden_called()
    } else {
        let known = ReadableNamespaces::at_the_ends(&requested.spec, rights);
        explain_in_full(querying, &requested.spec, rights, known).await?
    };
    Ok(Explanation {
        api_version: API_VERSION.to_owned(),
        kind: Resource::Explanations.kind().to_owned(),
        spec: requested.spec,
        status: Some(status),
    })
}

async fn allowed(context: &ObserveContext, user: &User, namespace: &str) -> Result<bool, Refusal> {
    let requested = may("create", Resource::Explanations, Some(namespace));
    match context.gate.admits(user, &requested).await {
        Ok(decision) => Ok(decision == AccessDecision::Allowed),
        Err(message) => Err(Refusal::unavailable(message)),
    }
}

/// The same whether there is such a caller or not.
fn hidden_caller(namespace: &str) -> ExplanationStatus {
    ExplanationStatus {
        verdict: ExplanationVerdict::Unknown,
        reason: format!(
            "of callers in namespace {namespace:?} you may ask by kind ServiceAccount only; who \
             may create explanations there may ask by any"
        ),
        ..ExplanationStatus::default()
    }
}

/// The same whatever is not there, or may not be known.
fn hidden_called() -> ExplanationStatus {
    ExplanationStatus {
        verdict: ExplanationVerdict::Unknown,
        reason: "there is no such thing, or you may not know of it; where you may not create \
                 explanations, only a Service with its port can be asked about"
            .to_owned(),
        ..ExplanationStatus::default()
    }
}

/// The same whatever a Gateway's route of another namespace leads to.
fn hidden_behind() -> ExplanationStatus {
    ExplanationStatus {
        reason:
            "a route or a Service of a namespace decides in which you may not create explanations"
                .to_owned(),
        ..ExplanationStatus::default()
    }
}

/// Namespaces whose accounts a response may name.
#[derive(Clone, Debug, Default)]
struct ReadableNamespaces {
    all: bool,
    namespaces: BTreeSet<String>,
}

impl ReadableNamespaces {
    fn at_the_ends(spec: &ExplanationSpec, rights: Rights) -> Self {
        let caller = rights.caller && !spec.from.outside;
        let caller = caller.then(|| spec.from.namespace.clone());
        let called = rights.called.then(|| spec.to.namespace.clone());
        Self {
            all: false,
            namespaces: caller.into_iter().chain(called).collect(),
        }
    }

    fn has(&self, namespace: &str) -> bool {
        self.all || self.namespaces.contains(namespace)
    }

    /// Adds those of `more` where the user may create explanations; false: none.
    async fn learn(
        &mut self,
        context: &ObserveContext,
        user: &User,
        more: BTreeSet<String>,
    ) -> Result<bool, Refusal> {
        let everywhere = may("create", Resource::Explanations, None);
        let verdict = context.gate.admits(user, &everywhere).await;
        self.all = verdict.map_err(Refusal::unavailable)? == AccessDecision::Allowed;
        if self.all {
            return Ok(true);
        }
        let before = self.namespaces.len();
        for namespace in more.into_iter().take(MAX_CHECKED) {
            if allowed(context, user, &namespace).await? {
                self.namespaces.insert(namespace);
            }
        }
        Ok(self.namespaces.len() > before)
    }
}

/// Explains, and a second time where that names callers which the user may know.
async fn explain_in_full(
    querying: QueryContext<'_>,
    spec: &ExplanationSpec,
    rights: Rights,
    mut known: ReadableNamespaces,
) -> Result<ExplanationStatus, Refusal> {
    let QueryContext { context, user, .. } = querying;
    let explained = querying.explain(spec, rights, &known).await?;
    if !may_in_each(context, user, &explained.elsewhere).await? {
        // What others find out by calling is not for this user to know either.
        return Ok(if rights.caller && !spec.from.outside {
            for_the_caller(explained.status, spec)
        } else if spec.to.kind == Kind::Gateway.word() {
            hidden_behind()
        } else {
            hidden_called()
        });
    }
    if explained.unnamed.is_empty() || !known.learn(context, user, explained.unnamed).await? {
        return Ok(explained.status);
    }
    Ok(querying.explain(spec, rights, &known).await?.status)
}

/// Whether the user may create explanations in all of these.
async fn may_in_each(
    context: &ObserveContext,
    user: &User,
    namespaces: &BTreeSet<String>,
) -> Result<bool, Refusal> {
    if namespaces.len() > MAX_CHECKED {
        return Ok(false);
    }
    for namespace in namespaces {
        if !allowed(context, user, namespace).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// An explanation, and whose it is.
struct ExplainedCall {
    status: ExplanationStatus,
    /// Namespaces of callers that it does not name.
    unnamed: BTreeSet<String>,
    /// Namespaces whose pods it shows, beside the called one.
    elsewhere: BTreeSet<String>,
}

fn explain(
    context: &ObserveContext,
    compiled: &Compiled,
    spec: &ExplanationSpec,
    rights: Rights,
    known: &ReadableNamespaces,
) -> Result<ExplainedCall, Refusal> {
    // Read for a moment each time: others write it, and the graph is waited for.
    let topmost = |pod: &PodId| context.followed.inventory.read().topmost(pod, "");
    let owner = |pod: &PodId| {
        let (kind, key) = topmost(pod);
        (kind.name().to_owned(), key)
    };
    let unknown = RefCell::new(BTreeSet::new());
    // What would close out callers that are not known yet is no fix.
    let loaded = Cell::new(Ok(()));
    let lacks = Cell::new(false);
    let callers = |pods: &BTreeSet<PodId>| {
        loaded.set(context.must_not_await_load());
        lacks.set(context.graph.startup().lacks_loaded());
        let nodes = pods.iter().map(|pod| NodeKey::of_workload(topmost(pod)));
        let (seen, unknown_to_all) = context.graph.callers_of(&nodes.collect(), compiled);
        let (accounts, others): (BTreeSet<_>, BTreeSet<_>) =
            seen.into_iter().partition(|one| known.has(&one.namespace));
        let namespaces = others.iter().map(|one| one.namespace.to_string());
        unknown.borrow_mut().extend(namespaces);
        SeenCallers {
            accounts,
            unnamed: others.len(),
            unknown: unknown_to_all,
        }
    };
    let view = if rights.caller {
        CallerView::Known
    } else {
        CallerView::AccountOnly
    };
    let shows = |namespace: &str| {
        let may_know = known.has(namespace);
        if !may_know {
            unknown.borrow_mut().insert(namespace.to_owned());
        }
        may_know
    };
    let model = &compiled.model;
    let explained = if spec.to.kind == Kind::Gateway.word() {
        model.explain_at_gateway(spec, (&*compiled.problems, &shows), &owner, &callers)
    } else {
        model.explain(spec, view, &owner, &callers)
    };
    let mut explained = explained
        .map_err(|BadQuestion { field, reason }| Refusal::bad(format!("spec.{field}: {reason}")))?;
    if !rights.called {
        return Ok(ExplainedCall {
            status: for_the_caller(explained.status, spec),
            unnamed: BTreeSet::new(),
            elsewhere: BTreeSet::new(),
        });
    }
    loaded.into_inner()?;
    if lacks.get() {
        warn_of_unread(&mut explained.status);
    }
    let mut elsewhere: BTreeSet<String> = explained
        .namespaces
        .iter()
        .map(ToString::to_string)
        .collect();
    elsewhere.remove(&spec.to.namespace);
    explained.status.programmed = programmed(context, &explained);
    if rights.caller {
        explained.status.seen = seen(context, spec, &explained);
        let met = explained.status.seen.as_ref().map(of_seen_calls);
        explained.status.steps.extend(met.unwrap_or_default());
    }
    Ok(ExplainedCall {
        status: explained.status,
        unnamed: unknown.into_inner(),
        elsewhere,
    })
}

/// Reports that the fix may close out callers that it does not name.
fn warn_of_unread(status: &mut ExplanationStatus) {
    if let Some(fix) = &mut status.fix {
        let warning = format!("more callers than these may be closed out: {UNREAD}");
        fix.warnings.push(warning);
    }
}

/// What a caller would find out by calling.
fn for_the_caller(status: ExplanationStatus, spec: &ExplanationSpec) -> ExplanationStatus {
    if status.verdict == ExplanationVerdict::Unknown && status.reason != UNKNOWN_HOST {
        return hidden_called();
    }
    ExplanationStatus {
        verdict: status.verdict,
        reason: status.reason,
        http_status: status.http_status,
        owner: spec.to.namespace.clone(),
        ..ExplanationStatus::default()
    }
}

/// Whether the proxies that evaluate have what was evaluated here.
fn programmed(context: &ObserveContext, explained: &Explained) -> Option<Programmed> {
    if explained.deciding_pods.is_empty() {
        return None;
    }
    let mut programmed = Programmed {
        of: u32::try_from(explained.deciding_pods.len()).unwrap_or(u32::MAX),
        ..Programmed::default()
    };
    for pod in &explained.deciding_pods {
        let Some((_, state)) = context.observed.proxy(pod) else {
            continue;
        };
        let current = |object: &ObjectRef| {
            state.objects.iter().find(|current| {
                current.object.as_ref().is_some_and(|current| {
                    current.kind == object.kind.as_str()
                        && *current.namespace == *object.namespace
                        && *current.name == *object.name
                })
            })
        };
        let origins = || {
            explained
                .origins
                .iter()
                .filter_map(|(object, generation)| Some((object, *generation, current(object)?)))
        };
        let has_all = origins()
            .all(|(_, generation, current)| current.acknowledged && current.needed >= generation);
        if has_all {
            programmed.proxies += 1;
        }
        let nacks = origins().filter(|(_, _, current)| !current.nack.is_empty());
        programmed.nacks.extend(nacks.map(|(object, _, current)| {
            format!(
                "{pod}: {} {}/{}: {}",
                object.kind, object.namespace, object.name, current.nack
            )
        }));
    }
    programmed.nacks.sort();
    Some(programmed)
}

/// What was counted, where edges distinguish these two from others: they begin and end at what owns
/// the pods, or end at a known name outside the mesh.
fn seen(
    context: &ObserveContext,
    spec: &ExplanationSpec,
    explained: &Explained,
) -> Option<crds::observe::RecentCalls> {
    let key = |kind: &str, namespace: &str, name: &str| {
        NodeKey::parse(&format!("{namespace}/{kind}/{name}"))
    };
    let apart = |kind: &str, namespace: &str, name: &str| match kind {
        // Its clients are in no mesh, and its own calls go to Services.
        "ServiceAccount" | "Gateway" => false,
        "Pod" => {
            let inventory = context.followed.inventory.read();
            inventory.topmost(&ObjectKey::new(namespace, name), "").0 == MetricsKind::Pod
        }
        _ => true,
    };
    let (from, to) = (&spec.from, &spec.to);
    if !apart(&from.kind, &from.namespace, &from.name) || !apart(&to.kind, &to.namespace, &to.name)
    {
        return None;
    }
    let outside = explained.counted_outside.as_ref();
    if outside.is_some_and(BTreeSet::is_empty) {
        return None;
    }
    let caller = if from.outside {
        None
    } else {
        Some(key(&from.kind, &from.namespace, &from.name)?)
    };
    let called = ObjectKey::new(&to.namespace, &to.name);
    let workload = key(&to.kind, &to.namespace, &to.name);
    let now = SystemTime::now();
    Some(context.graph.between(now, |edge| {
        let by = match &caller {
            Some(caller) => edge.from == *caller,
            None => edge.from.kind == NodeKind::Outside,
        };
        let port = match explained.counted_at {
            CountedPort::AsAsked => to.port.is_none_or(|port| port == edge.port),
            CountedPort::Of(port) => port == edge.port,
            CountedPort::Past => false,
        };
        let through = to.kind == "Service" && edge.service.as_ref() == Some(&called) && port;
        let left = edge.to.kind == NodeKind::External
            && outside.is_some_and(|names| names.contains(&*edge.to.object.name))
            && port;
        by && (through || left || workload.as_ref() == Some(&edge.to))
    }))
}
