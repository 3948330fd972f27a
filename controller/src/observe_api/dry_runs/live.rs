//! Dry runs on live calls: the proxies of the called pods evaluate calls by the current rules and
//! by those of the change, for as long as a client watches.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crds::observe::{DryRunSpec, Resource, Scope, Trial};
use futures::stream;
use model::PodId;
use model::explain::candidates::{Candidates, DryRunCandidate, MAX_PODS, MAX_SETS};
use model::world::ObjectKey;
use parking_lot::RwLock;
use policy::access::Access;
use policy::well_known::SECRET_HEADERS;
use prost::Message as _;
use tokio::time::{Instant, Interval, interval, sleep_until};
use tracing::info;
use wire::v1::ask::What;

use super::seen::{LiveTally, MAX_EXAMPLES, Rights, by_address, reads};
use super::{LiveDryRunPermit, QueryContext};
use crate::aggregated::access::AccessDecision;
use crate::aggregated::refusal::Refusal;
use crate::aggregated::server::ApiResponse;
use crate::apiserver::events::{About, Event, EventType};
use crate::inventory::Inventory;
use crate::inventory::kind::MetricsKind;
use crate::observe::live_queries::{self, Answers};
use crate::observe_api::query::may;
use crate::observe_api::stream::{LIFE, StreamPermits, line, line_stream};

/// More time for proxies than that: they end by themselves should no message end them.
const GRACE: Duration = Duration::from_secs(10);
/// Between two lines.
const LINE_EVERY: Duration = Duration::from_secs(1);
/// Max bytes of the query to each proxy: beside the uids of those that are queried together it has
/// to fit into one message to another replica, of 32 KiB.
const MAX_QUERY_BYTES: usize = 20 * 1024;
/// Proxies that are queried together: each responds once a second, and half as many more responses
/// find room.
const TOGETHER: usize = 128;

/// The query, and the proxies that it goes to.
#[derive(Default)]
struct QueriedProxies {
    answers: Vec<Answers>,
    pods: BTreeMap<Arc<str>, PodId>,
    /// That rules look at.
    headers: BTreeSet<String>,
    /// Why not all.
    reasons: Vec<String>,
}

/// Starts to stream which live calls there are, and what the change would mean for them.
///
/// # Errors
/// When the request cannot be read, the user may not make the change, or too much is tried
/// already.
pub(in crate::observe_api) async fn watch(
    query: &QueryContext<'_>,
    spec: &DryRunSpec,
    permits: StreamPermits,
) -> Result<ApiResponse, Refusal> {
    let started = Instant::now();
    let long = Duration::from_secs(spec.watch_seconds.into());
    if long > LIFE {
        let most = LIFE.as_secs();
        let why = format!("spec.watchSeconds: {} is more than {most}", long.as_secs());
        return Err(Refusal::bad(why));
    }
    let change = query.change(spec).await?;
    let (what, own) = (change.words(), change.namespaces());
    let scope = query.scope().await?;
    let live_dry_run = query.working.live_dry_run(query.user)?;
    let turn = query.working.turn().await?;
    let readable = Arc::clone(&scope);
    let found = query.compare(turn, change.change, move |models, until| {
        let may_query = |namespace: &str| own.contains(namespace) || reads(&readable, namespace);
        Candidates::of(models, may_query, until)
    });
    let found = found.await?;
    let mut tapped = tapped(query, &found.sets).await?;
    let queried = query_proxies(query, &found.sets, &tapped, long + GRACE)?;
    let (user, proxies) = (&query.user.name, found.pods);
    let (headers, pods) = (&queried.headers, queried.pods.len());
    info!(
        ?user,
        what,
        ?headers,
        proxies,
        asked = pods,
        "live dry run started"
    );
    tapped.retain(|namespace| {
        let mut pods = queried.pods.values();
        pods.any(|pod| pod.namespace == *namespace)
    });
    record_user(query, &tapped);
    let rights = rights(query, scope, tapped);
    // Of pods elsewhere the response shows that there are some, or it would be yes for
    // them, and not how many.
    let mut seen = LiveTally::new(rights, queried.pods, proxies - found.foreign);
    for why in &queried.reasons {
        seen.because(why);
    }
    if found.foreign > 0 {
        seen.because(
            "some pods are in namespaces of which the change has no object, and whose graphs \
             you may not read",
        );
    }
    if found.truncated {
        seen.because(&format!(
            "the change gives more than {MAX_PODS} pods or {MAX_SETS} sets of rules to try"
        ));
    }
    if found.late {
        seen.because("not every pod was looked at in the time that there is");
    }
    let now = Instant::now();
    let until = (now + long).min(started + LIFE);
    let reader = LiveDryRunStream {
        until: if queried.answers.is_empty() {
            now
        } else {
            until
        },
        answers: queried.answers,
        turn: 0,
        seen,
        inventory: Arc::clone(&query.context.followed.inventory),
        last_sent: None,
        lines: interval(LINE_EVERY),
        ended: false,
        _permits: permits,
        _live_dry_run: live_dry_run,
    };
    Ok(streamed(reader))
}

/// What of the results may be shown, by what is remembered now.
fn rights(query: &QueryContext<'_>, scope: Arc<Scope>, tapped: BTreeSet<Arc<str>>) -> Rights {
    let by_address = query.context.graph.with_memory(|memory, _| {
        let edges = memory.iter().map(|(edge, _)| edge.key());
        by_address(edges, &scope)
    });
    Rights {
        scope,
        tapped,
        by_address,
    }
}

/// Of these namespaces, those whose requests the user may see one by one.
async fn tapped(
    query: &QueryContext<'_>,
    sets: &[DryRunCandidate],
) -> Result<BTreeSet<Arc<str>>, Refusal> {
    let mut tapped = BTreeSet::new();
    let namespaces: BTreeSet<&Arc<str>> = sets.iter().map(|set| &set.namespace).collect();
    for namespace in namespaces {
        if may_tap(query, namespace).await? {
            tapped.insert(Arc::clone(namespace));
        }
    }
    Ok(tapped)
}

/// Both rights that a tap takes.
async fn may_tap(query: &QueryContext<'_>, namespace: &str) -> Result<bool, Refusal> {
    for verb in ["get", "create"] {
        let tap = may(verb, Resource::Taps, Some(namespace));
        let decision = query.context.gate.admits(query.user, &tap).await;
        if decision.map_err(Refusal::unavailable)? != AccessDecision::Allowed {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Queries the proxies of these pods.
fn query_proxies(
    query: &QueryContext<'_>,
    sets: &[DryRunCandidate],
    tapped: &BTreeSet<Arc<str>>,
    lasts: Duration,
) -> Result<QueriedProxies, Refusal> {
    let mut all = QueriedProxies::default();
    let world = &query.compiled.world;
    for set in sets {
        let may_tap = tapped.contains(&set.namespace);
        if let Some(why) = header_objection(&set.access, may_tap, &query.context.tap_headers) {
            all.reasons.push(why);
            continue;
        }
        let examples = if may_tap { MAX_EXAMPLES } else { 0 };
        let rules = match wire::convert::dry_run_query(&set.access, examples) {
            Ok(rules) if rules.encoded_len() <= MAX_QUERY_BYTES => rules,
            Ok(_) => {
                let why = format!("their rules take more than {} KiB", MAX_QUERY_BYTES / 1024);
                all.reasons.push(why);
                continue;
            }
            Err(bad) => {
                all.reasons.push(format!("their {bad}"));
                continue;
            }
        };
        let facts = |pod: &PodId| Some((Arc::clone(&world.pods.get(pod)?.uid), pod.clone()));
        let pods: Vec<(Arc<str>, PodId)> = set.pods.iter().filter_map(facts).collect();
        let uids: Vec<Arc<str>> = pods.iter().map(|(uid, _)| Arc::clone(uid)).collect();
        for together in uids.chunks(TOGETHER) {
            let question = What::Trial(rules.clone());
            let answers = query.context.live_queries.query(question, together, lasts);
            let answers = answers.map_err(|full| Refusal::held(full.to_string()))?;
            all.answers.push(answers);
        }
        all.headers.extend(set.access.header_names());
        all.pods.extend(pods);
    }
    Ok(all)
}

/// An Event names the user who sees requests where they are, as it does for taps.
fn record_user(query: &QueryContext<'_>, tapped: &BTreeSet<Arc<str>>) {
    let inventory = query.context.followed.inventory.read();
    for namespace in tapped {
        let thing = inventory.get(MetricsKind::Namespace, &ObjectKey::new("", namespace));
        let about = About {
            api_version: MetricsKind::Namespace.api_version().to_owned(),
            kind: MetricsKind::Namespace.name().to_owned(),
            namespace: namespace.to_string(),
            name: namespace.to_string(),
            uid: thing.map(|thing| thing.uid.to_string()).unwrap_or_default(),
        };
        query.context.events.record_action(Event {
            about,
            event_type: EventType::Normal,
            reason: "TapStarted",
            action: "Tap",
            text: format!(
                "{:?} tries a change, and sees requests of Namespace {namespace} that it \
                 would come to another verdict",
                query.user.name
            ),
        });
    }
}

/// What one reader receives, and until when.
struct LiveDryRunStream {
    answers: Vec<Answers>,
    /// Whose result is looked for first.
    turn: usize,
    seen: LiveTally,
    inventory: Arc<RwLock<Inventory>>,
    /// What was sent last.
    last_sent: Option<Trial>,
    lines: Interval,
    until: Instant,
    ended: bool,
    _permits: StreamPermits,
    _live_dry_run: LiveDryRunPermit,
}

impl LiveDryRunStream {
    /// The next line; `None` after the last. The first comes at once.
    async fn next(&mut self) -> Option<Trial> {
        if self.ended {
            return None;
        }
        loop {
            tokio::select! {
                _ = self.lines.tick() => {
                    let now = self.seen.live_dry_run();
                    if self.last_sent.as_ref() != Some(&now) {
                        self.last_sent = Some(now.clone());
                        return Some(now);
                    }
                }
                answer = any(&mut self.answers, self.turn) => {
                    self.turn = self.turn.wrapping_add(1);
                    self.seen.take(&self.inventory.read(), answer);
                }
                () = sleep_until(self.until) => {
                    self.ended = true;
                    return Some(Trial { last: true, ..self.seen.live_dry_run() });
                }
            }
        }
    }
}

/// The next result of any of these queries; never where none has more.
async fn any(all: &mut [Answers], first: usize) -> live_queries::ProxyAnswer {
    poll_fn(|cx| {
        for turn in 0..all.len() {
            let at = first.wrapping_add(turn) % all.len();
            if let Poll::Ready(Some(answer)) = all[at].poll_next(cx) {
                return Poll::Ready(answer);
            }
        }
        Poll::Pending
    })
    .await
}

fn streamed(reader: LiveDryRunStream) -> ApiResponse {
    line_stream(stream::unfold(reader, |mut reader| async move {
        let message = reader.next().await?;
        Some((line(&message), reader))
    }))
}

/// Why these rules are not tried for a user who may see requests one by one, or may not;
/// `shown`: headers that a tap may show.
///
/// The results of rules that are only tried reveal whether a pattern fits a header's value, so a
/// few dry runs would read the value out. No other user sees anything of that, unlike rules that
/// are applied.
fn header_objection(access: &Access, may_tap: bool, shown: &BTreeSet<String>) -> Option<String> {
    let names = access.header_names();
    let mut secret = names.iter().filter(|name| is_secret(name));
    if let Some(name) = secret.next() {
        return Some(format!(
            "their rules look at header {name}, which proves the identity of a caller"
        ));
    }
    let mut others = names.iter().filter(|name| !shown.contains(*name));
    let other = others.next().filter(|_| !may_tap)?;
    Some(format!(
        "their rules look at header {other}, which takes the right to get and create taps there"
    ))
}

fn is_secret(name: &str) -> bool {
    SECRET_HEADERS.contains(&name)
}
