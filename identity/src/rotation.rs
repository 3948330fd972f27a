//! Decides when a rotation of the mesh's root goes on, and names what it waits for.
//!
//! A root is trusted before it signs, and forgotten when nothing needs it. In Preparing the next
//! root is brought to every replica, trust bundle and proxy while the former one signs. In
//! Activating the next one signs and proxies renew their certificates. In Retiring the former roots
//! leave the bundle.
//!
//! By acknowledgement and not by time: a planned rotation goes on when all have done so, however
//! long that takes. What counts is every connected proxy, and of the others those whose pods may
//! have got something older, for as long as a certificate of theirs may live. A Compromise goes on
//! after seconds, since the key may be in other hands; then a proxy that was slow returns by its
//! mounted bundle.
//!
//! Invariant: time is an argument, and nothing is remembered besides [`State`]. So any replica may
//! decide the next step, and one that decides by an old state fails to write it.

mod seen;
mod state;

use std::time::{Duration, SystemTime};

use crate::verify::AuthorityId;

pub use seen::{
    Bundles, Loaded, Offered, Proxy, ProxyStream, Replica, Request, Scope, Seen, Waiting,
};
pub use state::{Begin, Phase, Reason, RetiredRoot, Rotation, Source, State, Trigger};

/// A proxy without a stream counts for the life of a leaf and this, within which it renews and
/// clocks differ.
pub const GRACE: Duration = Duration::from_secs(5 * 60);
/// Planned rotations begin this far apart.
const APART: Duration = Duration::from_secs(10 * 60);
/// By how much the times of pods may differ from the controller's clock.
const CLOCK_MARGIN: Duration = Duration::from_secs(60);
/// Within this, proxies renew their certificates where there are few.
const SPREAD: Duration = Duration::from_secs(10);
/// The roots of a rotation that a Compromise has taken over.
const MAX_ROOTS: usize = 3;
/// A Compromise prepares for this long at most.
const HASTE: Duration = Duration::from_secs(10);
/// Retiring ends after this at the latest: nothing is signed by the former roots any more.
const RETIRING: Duration = Duration::from_secs(60);
/// Within this, connections by the former roots end in a Compromise.
const CONNECTIONS_END: Duration = Duration::from_secs(5);

/// What the Lease holder does now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Rest,
    /// For these, which are never none.
    Wait(Vec<Waiting>),
    Go(Move),
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// With another root, which is made or offered.
    Begin(Begin),
    /// The rotation that runs becomes a Compromise, by the request of this id.
    Hasten(String),
    Activate,
    Retire,
    Finish,
    /// The issuer that is offered, below the same root.
    TakeIssuer,
    /// Replicas sign by these, which their folders hold, below the same root.
    KnowIssuers(Vec<AuthorityId>),
    /// A new issuer below the same root, by the request of this id.
    ReplaceIssuer(String),
    /// The owner of the source alone can carry out the request of this id. It never runs later, when
    /// its author may expect something else of the source.
    Decline(String),
}

/// How far the counted proxies are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub total: usize,
    pub trusting: usize,
    pub renewed: usize,
}

/// The next step of the authority.
#[must_use]
pub fn step(state: &State, seen: &Seen, now: SystemTime) -> Step {
    if let Some(taken) = take_issuer(state, seen) {
        return taken;
    }
    let request = seen.request.as_ref();
    let request = request.filter(|request| !state.ids.contains(&request.id));
    let Some(rotation) = &state.rotation else {
        return steady(state, seen, request, now);
    };
    let compromise = request
        .filter(|request| request.scope == Scope::Root && request.reason == Reason::Compromise);
    let taken_over = compromise.and_then(|request| take_over(state, rotation, seen, request));
    if let Some(taken_over) = taken_over {
        return Step::Go(taken_over);
    }
    let waits = waits(state, rotation, seen, now);
    if !waits.is_empty() && !is_over(rotation, seen, now) {
        return Step::Wait(waits);
    }
    Step::Go(match rotation.phase {
        Phase::Preparing => Move::Activate,
        Phase::Activating => Move::Retire,
        Phase::Retiring => Move::Finish,
    })
}

/// What changes below the root that signs, whatever rotates.
fn take_issuer(state: &State, seen: &Seen) -> Option<Step> {
    let offered = seen
        .offered
        .filter(|offered| seen.source != Source::Generated && state.active() == Some(offered.root));
    if let Some(offered) = offered {
        // The same root, of which the keys are kept elsewhere from now on.
        let moves = state.rotation.is_none()
            && seen.source != state.source
            && [seen.source, state.source].contains(&Source::Files);
        let lacking = &seen.without_issuer;
        if moves && seen.source == Source::Files && !lacking.is_empty() {
            let lacking = lacking.iter().cloned().map(Waiting::NoIssuer);
            return Some(Step::Wait(lacking.collect()));
        }
        // Until then the content has an issuer, which all replicas sign with.
        let is_taken =
            offered.signs || (seen.source == Source::Files && state.source != Source::Files);
        if moves || !is_taken {
            return Some(Step::Go(Move::TakeIssuer));
        }
    }
    let own = seen.issuers.iter().take(state::MAX_ISSUERS);
    let own = own.filter(|issuer| !state.issuers.contains(issuer));
    let own: Vec<AuthorityId> = own.copied().collect();
    let is_news = state.source == Source::Files && !own.is_empty();
    is_news.then_some(Step::Go(Move::KnowIssuers(own)))
}

/// What the bundle says beside its roots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// Within which time a proxy renews a leaf that is not below the first root. None: it does not.
    pub renew_within: Option<Duration>,
    /// Connections by other issuers end than those of the state, its former ones included.
    pub end_others: bool,
}

/// The times are powers of two of a second: each change of them is sent to all proxies.
#[must_use]
pub fn announced(state: &State, seen: &Seen, now: SystemTime) -> Announced {
    // Fifty a second, which a replica signs beside its other work; more where there is haste.
    let planned = Duration::from_secs((proxies(seen) / 50).next_power_of_two()).max(SPREAD);
    let Some(rotation) = &state.rotation else {
        // A proxy that was away returns with what it had, and keeps what it had opened before.
        let last = state.retired.last();
        return Announced {
            renew_within: Some(planned),
            end_others: last.is_some_and(|last| now < last.at + lives(seen)),
        };
    };
    let is_planned = rotation.reason == Reason::Planned;
    let renew_within = match rotation.phase {
        Phase::Preparing => None,
        Phase::Activating | Phase::Retiring if is_planned => Some(planned),
        Phase::Activating | Phase::Retiring => Some(hasty_spread(seen)),
    };
    Announced {
        renew_within,
        end_others: rotation.phase == Phase::Retiring && !is_planned,
    }
}

/// How far the proxies are that count at this moment.
#[must_use]
pub fn progress(state: &State, seen: &Seen, now: SystemTime) -> Progress {
    let mut progress = Progress::default();
    let wanted = state.next().or(state.active());
    for proxy in counted(state, seen, now) {
        let trusts = wanted.is_some_and(|root| proxy.trusts.contains(&root));
        let renewed = |issuer| state.issuers.contains(&issuer);
        progress.total += 1;
        progress.trusting += usize::from(trusts);
        let has_renewed = state.next().is_none() && proxy.authority.is_some_and(renewed);
        progress.renewed += usize::from(has_renewed);
    }
    progress
}

/// While nothing rotates.
fn steady(state: &State, seen: &Seen, request: Option<&Request>, now: SystemTime) -> Step {
    let ours = seen.source == Source::Generated && seen.has_root_key;
    let of_issuer = request.filter(|request| request.scope == Scope::Issuer);
    if let Some(request) = of_issuer.filter(|_| ours) {
        return Step::Go(Move::ReplaceIssuer(request.id.clone()));
    }
    let of_root = request.filter(|request| request.scope == Scope::Root);
    match wish(state, seen, of_root, now) {
        Some(begin) if begin.reason == Reason::Compromise => Step::Go(Move::Begin(begin)),
        Some(begin) => {
            let mut waits = unsafe_now(seen);
            let left = state.began.map(|began| left_until(began + APART, now));
            // More is left where the clock was ahead that it began by.
            let left = left.filter(|left| !left.is_zero() && *left <= APART);
            waits.extend(left.map(Waiting::Recent));
            match waits.is_empty() {
                true => Step::Go(Move::Begin(begin)),
                false => Step::Wait(waits),
            }
        }
        None => request.map_or(Step::Rest, |request| {
            Step::Go(Move::Decline(request.id.clone()))
        }),
    }
}

/// The rotation that is to begin, if one is.
fn wish(state: &State, seen: &Seen, request: Option<&Request>, now: SystemTime) -> Option<Begin> {
    let offered = seen.offered.filter(|offered| {
        seen.source != Source::Generated
            && state.active() != Some(offered.root)
            && !state.is_retired(offered.root)
    });
    let begin = |id: String, trigger: Trigger, reason: Reason| Begin {
        id,
        trigger,
        reason,
        source: seen.source,
    };
    let can_replace = seen.source == Source::Generated || offered.is_some();
    if let Some(request) = request.filter(|_| can_replace) {
        return Some(begin(request.id.clone(), Trigger::Request, request.reason));
    }
    // What was another owner's is replaced by a root of our own.
    let taken_back = seen.source == Source::Generated && state.source != Source::Generated;
    if offered.is_some() || taken_back {
        return Some(begin(
            made_up("source", now),
            Trigger::Source,
            Reason::Planned,
        ));
    }
    let is_due = seen.root_is_due && seen.source == Source::Generated;
    is_due.then(|| begin(made_up("life", now), Trigger::Life, Reason::Planned))
}

/// The id of a rotation that no user asked for.
#[must_use]
pub fn made_up(word: &str, now: SystemTime) -> String {
    let since = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    format!("{word}-{}", since.as_secs())
}

/// What a Compromise makes of a rotation that runs; nothing where it has to end first.
fn take_over(state: &State, rotation: &Rotation, seen: &Seen, request: &Request) -> Option<Move> {
    if seen.source != Source::Generated {
        let swaps = rotation.source != Source::Generated && rotation.reason == Reason::Planned;
        return swaps.then(|| Move::Hasten(request.id.clone()));
    }
    // The next root's key lay beside the former one's: another root is made.
    (state.roots.len() < MAX_ROOTS).then(|| {
        Move::Begin(Begin {
            id: request.id.clone(),
            trigger: Trigger::Request,
            reason: Reason::Compromise,
            source: Source::Generated,
        })
    })
}

/// Whether the phase ends, whatever is waited for. A planned one that brings or uses a root has no
/// such end.
fn is_over(rotation: &Rotation, seen: &Seen, now: SystemTime) -> bool {
    let longest = match (rotation.phase, rotation.reason) {
        (Phase::Retiring, _) => RETIRING,
        (Phase::Preparing, Reason::Compromise) => HASTE,
        (Phase::Activating, Reason::Compromise) => hasty_spread(seen) + HASTE,
        (Phase::Preparing | Phase::Activating, Reason::Planned) => NEVER,
    };
    match now.duration_since(rotation.phase_since) {
        Ok(lasts) => lasts >= longest,
        // By a clock that was far ahead: a Compromise waits for no clock.
        Err(ahead) => ahead.duration() > longest,
    }
}

/// Longer than any cluster lives.
const NEVER: Duration = Duration::from_secs(1_000 * 365 * 24 * 3_600);

fn waits(state: &State, rotation: &Rotation, seen: &Seen, now: SystemTime) -> Vec<Waiting> {
    let is_planned = rotation.reason == Reason::Planned;
    let mut waits = match is_planned {
        true => unsafe_now(seen),
        false => Vec::new(),
    };
    let lags = |replica: &&Replica| match &replica.loaded {
        // A later step than this one's says that this one is not the newest.
        Loaded::Step { step, roots, .. } => {
            *step != state.step || state.roots.iter().any(|root| !roots.contains(root))
        }
        // Named already.
        Loaded::Former => !is_planned,
        Loaded::Unheard => true,
    };
    let lagging = seen.replicas.iter().filter(lags);
    waits.extend(lagging.cloned().map(Waiting::Replica));
    if rotation.phase == Phase::Preparing && rotation.source == Source::Files {
        waits.extend(seen.without_issuer.iter().cloned().map(Waiting::NoIssuer));
    }
    if rotation.phase == Phase::Preparing && is_planned {
        match &seen.bundles {
            Bundles::Behind(namespaces) => {
                waits.extend(namespaces.iter().cloned().map(Waiting::Bundle));
            }
            Bundles::Unknown => waits.push(Waiting::Bundles),
            Bundles::Complete(since) => {
                let left = left_until(*since + seen.settle, now);
                waits.extend((!left.is_zero()).then_some(Waiting::Settle(left)));
            }
        }
    }
    if rotation.phase == Phase::Retiring && !is_planned {
        let left = left_until(rotation.phase_since + CONNECTIONS_END, now);
        waits.extend((!left.is_zero()).then_some(Waiting::Connections(left)));
    }
    if seen.proxies.is_none() {
        waits.push(Waiting::Pods);
    }
    waits.extend(
        counted(state, seen, now).filter_map(|proxy| lacks(state, rotation, seen, proxy, now)),
    );
    waits
}

/// What no planned step is made in.
fn unsafe_now(seen: &Seen) -> Vec<Waiting> {
    let former = |replica: &&Replica| replica.loaded == Loaded::Former;
    let former = seen.replicas.iter().filter(former);
    let mut waits: Vec<Waiting> = former.cloned().map(Waiting::Replica).collect();
    if seen.clock_is_off {
        waits.push(Waiting::Clock);
    }
    waits
}

/// The proxies that count. Of those without a stream none does in a Compromise, and in Retiring.
fn counted<'a>(
    state: &'a State,
    seen: &'a Seen,
    now: SystemTime,
) -> impl Iterator<Item = &'a Proxy> {
    let rotation = state.rotation.as_ref();
    let patient = rotation.is_none_or(|rotation| {
        rotation.reason == Reason::Planned && rotation.phase != Phase::Retiring
    });
    let older_than = rotation.map_or(now, |rotation| given_older_until(rotation, seen, now));
    seen.proxies
        .iter()
        .flatten()
        .filter(move |proxy| match proxy.stream {
            ProxyStream::Open | ProxyStream::Returning => true,
            ProxyStream::None(since) => {
                let from = rotation.map_or(since, |rotation| since.max(rotation.phase_since));
                patient && proxy.created <= older_than + CLOCK_MARGIN && now < from + lives(seen)
            }
        })
}

/// Until when a pod may have been given something older than this phase: a mounted bundle, or a
/// certificate of a replica that had not loaded the step.
fn given_older_until(rotation: &Rotation, seen: &Seen, now: SystemTime) -> SystemTime {
    if rotation.phase == Phase::Preparing {
        return match seen.bundles {
            Bundles::Complete(since) => since + seen.settle,
            Bundles::Behind(_) | Bundles::Unknown => now,
        };
    }
    let loaded = seen.replicas.iter().map(|replica| match &replica.loaded {
        Loaded::Step { since, .. } => *since,
        Loaded::Former | Loaded::Unheard => now,
    });
    loaded.fold(rotation.phase_since, SystemTime::max)
}

/// Why a proxy holds this phase up, if it does.
fn lacks(
    state: &State,
    rotation: &Rotation,
    seen: &Seen,
    proxy: &Proxy,
    now: SystemTime,
) -> Option<Waiting> {
    let pod = || proxy.pod.clone();
    let done = match rotation.phase {
        Phase::Preparing => state.next().is_none_or(|next| proxy.trusts.contains(&next)),
        Phase::Activating => {
            let renewed = |issuer| state.issuers.contains(&issuer);
            proxy.authority.is_some_and(renewed)
        }
        Phase::Retiring => !rotation
            .dropped
            .iter()
            .any(|root| proxy.trusts.contains(root)),
    };
    if done {
        return None;
    }
    match proxy.stream {
        ProxyStream::None(since) => {
            let lasts = now.duration_since(since).unwrap_or_default();
            return Some(Waiting::NoStream { pod: pod(), lasts });
        }
        // What it has is not known, however long the phase lasts.
        ProxyStream::Returning => return Some(Waiting::Returning(pod())),
        ProxyStream::Open => {}
    }
    let reports = match rotation.phase {
        Phase::Preparing | Phase::Retiring => !proxy.trusts.is_empty(),
        Phase::Activating => proxy.authority.is_some(),
    };
    if !reports {
        // A replica that loads the step late issues below the former root until then.
        let since = match rotation.phase {
            Phase::Preparing => rotation.phase_since,
            Phase::Activating | Phase::Retiring => given_older_until(rotation, seen, now),
        };
        let left = left_until(since + lives(seen), now);
        return (!left.is_zero()).then(|| Waiting::Silent { pod: pod(), left });
    }
    Some(match rotation.phase {
        Phase::Preparing => Waiting::NotTrusting(pod()),
        Phase::Activating => Waiting::NotRenewed(pod()),
        Phase::Retiring => Waiting::StillTrusting(pod()),
    })
}

/// The longest that a certificate is in use which was issued now.
fn lives(seen: &Seen) -> Duration {
    seen.leaf_ttl.saturating_add(GRACE)
}

fn proxies(seen: &Seen) -> u64 {
    let count = seen.proxies.as_ref().map_or(0, Vec::len);
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn hasty_spread(seen: &Seen) -> Duration {
    Duration::from_secs((proxies(seen) / 100).next_power_of_two().clamp(1, 60))
}

fn left_until(at: SystemTime, now: SystemTime) -> Duration {
    at.duration_since(now).unwrap_or_default()
}

#[cfg(test)]
mod tests;
