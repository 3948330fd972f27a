//! Object `weft` of kind CertificateAuthority: what users request of the authority, and its status.
//!
//! The Lease holder makes it, anew when it was deleted, and writes its status when that changes.
//! Nothing is decided by a status: it can be edited or lost.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crds::weft::{
    AUTHORITY, AuthorityProxies, CertificateAuthority, CertificateAuthoritySpec,
    CertificateAuthorityStatus, EXPIRING, IssuerStatus, ROTATING, RootStatus, RotationStatus,
    USABLE, time_left,
};
use identity::authority::BACKDATE;
use identity::rotation::{
    Move, Phase, Progress, Reason, Request, Scope, Seen, Source, State, Step, Trigger, Waiting,
    progress,
};
use identity::verify::AuthorityId;
use identity::{rotate, verify};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use tracing::{info, warn};

use super::secret::{SECRET, clock_difference, date, named};
use super::source::Held;
use super::{Loaded, Undone};

/// Issuers, and names of what is waited for, in the status.
const MAX_NAMED: usize = 8;
/// A phase that waits for longer says so.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// What the status says, beside what was there before.
pub(super) struct Report<'a> {
    pub(super) loaded: &'a Loaded,
    pub(super) seen: &'a Seen,
    pub(super) step: &'a Step,
    pub(super) held: &'a Held,
    /// What the replicas' own folders sign with.
    pub(super) others: &'a [CertificateDer<'static>],
    /// What is wrong with the Secret, while another content is served.
    pub(super) unusable: Option<Undone>,
    /// Why the step could not be made.
    pub(super) failed: Option<String>,
    pub(super) now: SystemTime,
}

/// The object; it is made where there is none. None where it cannot be read or made, such as before
/// its definition is there.
pub(super) async fn object(client: &Client) -> Option<CertificateAuthority> {
    let api: Api<CertificateAuthority> = Api::all(client.clone());
    let found = match api.get_opt(AUTHORITY).await {
        Ok(Some(object)) => return Some(object),
        Ok(None) => {
            let object = CertificateAuthority::new(AUTHORITY, CertificateAuthoritySpec::default());
            api.create(&PostParams::default(), &object).await
        }
        Err(error) => Err(error),
    };
    match found {
        Ok(object) => {
            info!("CertificateAuthority {AUTHORITY} made");
            Some(object)
        }
        Err(error) => {
            warn!(%error, "CertificateAuthority {AUTHORITY} cannot be read or made");
            None
        }
    }
}

/// What it requests. A word that is not known is the gentler one.
pub(super) fn request(object: &CertificateAuthority) -> Option<Request> {
    let wanted = object.spec.rotation.as_ref()?;
    Some(Request {
        id: wanted.id.clone(),
        scope: match wanted.scope.as_deref() {
            Some("Issuer") => Scope::Issuer,
            _ => Scope::Root,
        },
        reason: match wanted.reason.as_deref() {
            Some("Compromise") => Reason::Compromise,
            _ => Reason::Planned,
        },
    })
    .filter(|request| !request.id.is_empty())
}

/// Writes the status if it is another one. Returns by how many seconds the API server's clock
/// differs, where that shows.
pub(super) async fn write(
    client: &Client,
    mut object: CertificateAuthority,
    report: &Report<'_>,
) -> Result<Option<u64>, kube::Error> {
    let status = report.status(&object);
    if object.status.as_ref() == Some(&status) {
        return Ok(None);
    }
    object.status = Some(status);
    let api: Api<CertificateAuthority> = Api::all(client.clone());
    let params = PostParams::default();
    let written = api.replace_status(AUTHORITY, &params, &object).await?;
    Ok(clock_difference(&written.metadata, report.now))
}

impl Report<'_> {
    /// How far the proxies are.
    pub(super) fn progress(&self) -> Progress {
        progress(&self.loaded.state, self.seen, self.now)
    }

    fn status(&self, object: &CertificateAuthority) -> CertificateAuthorityStatus {
        let state = &self.loaded.state;
        let before = object.status.clone().unwrap_or_default();
        let progress = self.progress();
        let roots = self.roots();
        let of_total = |count: usize| Some(format!("{count}/{}", progress.total));
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let left = |end: SystemTime| time_left(end.duration_since(self.now).unwrap_or_default());
        let active = self.root_end();
        let ids = state.retired.iter().rev();
        CertificateAuthorityStatus {
            phase: Some(phase(state).to_owned()),
            source: Some(state.source.as_str().to_owned()),
            summary: self.summary(),
            rotation: rotation(state)
                .or_else(|| self.replaced())
                .or_else(|| before.rotation.clone()),
            roots,
            issuers: self.issuers(),
            retired: ids.map(|one| named(one.root)).collect(),
            proxies: Some(AuthorityProxies {
                total: count(progress.total),
                trusting: count(progress.trusting),
                renewed: count(progress.renewed),
                waiting_for: self
                    .waits()
                    .iter()
                    .take(MAX_NAMED)
                    .map(|waiting| self.named(waiting))
                    .collect(),
            }),
            root_ends: active.map(left),
            issuer_ends: Some(left(self.issuer_end())),
            trusting: of_total(progress.trusting),
            renewed: of_total(progress.renewed),
            conditions: self.conditions(object, &before),
        }
    }

    /// An issuer that was replaced on request, which needs no phases.
    fn replaced(&self) -> Option<RotationStatus> {
        let Step::Go(Move::ReplaceIssuer(id)) = self.step else {
            return None;
        };
        let is_done = self.loaded.state.ids.contains(id);
        is_done.then(|| RotationStatus {
            id: Some(id.clone()),
            trigger: Trigger::Request.as_str().to_owned(),
            reason: Some("Planned".to_owned()),
            since: Some(date(self.now)),
            phase_since: None,
        })
    }

    /// What a phase waits for longer than it should: the first of them, by name alone, so that the
    /// Event of it is one.
    pub(super) fn waits_long(&self) -> Option<String> {
        let rotation = self.loaded.state.rotation.as_ref()?;
        let lasts = self
            .now
            .duration_since(rotation.phase_since)
            .unwrap_or_default();
        let first = self.waits().first().filter(|_| lasts > PATIENCE)?;
        let first = first.to_string();
        let name = first.split(": ").next().unwrap_or_default();
        let (id, phase) = (&rotation.id, rotation.phase.as_str());
        Some(format!("rotation {id} in phase {phase} waits for {name}"))
    }

    /// As the status has it. The clock is compared at a write, so the time in it makes one a minute.
    fn named(&self, waiting: &Waiting) -> String {
        if *waiting != Waiting::Clock {
            return waiting.to_string();
        }
        let shown = self.now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let minute = Duration::from_secs(shown.as_secs() / 60 * 60);
        format!("{waiting}: it shows {}", date(UNIX_EPOCH + minute))
    }

    fn waits(&self) -> &[Waiting] {
        match self.step {
            Step::Wait(waits) => waits,
            Step::Rest | Step::Go(_) => &[],
        }
    }

    fn summary(&self) -> Option<String> {
        if let Some(why) = self.beside_unusable() {
            return Some(why);
        }
        if let Held::Rejected(why) = self.held {
            return Some(why.clone());
        }
        if let Some(why) = &self.failed {
            return Some(why.clone());
        }
        match self.step {
            Step::Wait(waits) => {
                let first = waits.first()?;
                let others = waits.len() - 1;
                Some(match others {
                    0 => format!("waits for {first}"),
                    _ => format!("waits for {first}, and {others} more"),
                })
            }
            Step::Rest | Step::Go(_) => self.declined(),
        }
    }

    /// Why the request that the object has was not carried out, if it was declined.
    fn declined(&self) -> Option<String> {
        let request = self.seen.request.as_ref()?;
        let state = &self.loaded.state;
        let declined = state.declined.as_ref().filter(|_| state.rotation.is_none());
        let id = declined.filter(|id| **id == request.id)?;
        let has_own_root = state.source == Source::Generated && self.seen.has_root_key;
        Some(match (has_own_root, self.seen.source) {
            (true, Source::Generated) => format!(
                "request {id} was not carried out, since another source was configured then: give it again \
                 with another id, or take it out of spec.rotation"
            ),
            (true, Source::Secret | Source::Files) => format!(
                "request {id} was not carried out: the root is Weft's own, and the configured source offers no \
                 other one (see condition {USABLE}). Mend the source, which begins a swap, or set \
                 identity.issuer.source=generated; then give it again with another id"
            ),
            (false, _) => format!(
                "request {id} was not carried out: the root is its owner's. Put another issuer into its source, \
                 and the mesh follows it; to speed that, give the request again with another id"
            ),
        })
    }

    fn beside_unusable(&self) -> Option<String> {
        let unusable = self.unusable.as_ref()?;
        Some(format!(
            "the content of Secret {SECRET} {unusable}: the controllers sign by the one of before, write that \
             back and rotate nothing until then. If this stays, delete the Secret, and they write it anew"
        ))
    }

    fn roots(&self) -> Vec<RootStatus> {
        let state = &self.loaded.state;
        let word = |id: Option<AuthorityId>| match id {
            Some(_) if id == state.active() => "Active",
            Some(_) if id == state.next() => "Next",
            _ => "Old",
        };
        let roots = self.loaded.roots_der.iter();
        let roots = roots.map(|der| {
            let certificate = CertificateDer::from(der.as_slice());
            let id = AuthorityId::of_der(&certificate);
            RootStatus {
                fingerprint: fingerprint(der),
                authority: id.map(named),
                not_after: verify::not_after(&certificate).map(date),
                state: word(id).to_owned(),
            }
        });
        roots.collect()
    }

    fn root_end(&self) -> Option<SystemTime> {
        let root = self.loaded.roots_der.first()?;
        verify::not_after(&CertificateDer::from(root.as_slice()))
    }

    /// The one of this replica first.
    fn issuers(&self) -> Vec<IssuerStatus> {
        let own = self.loaded.issuer.certificate();
        let others = self.others.iter().filter(|other| *other != own);
        let others = others.map(|other| IssuerStatus {
            fingerprint: fingerprint(other),
            authority: AuthorityId::of_der(other).map(named),
            not_after: verify::not_after(other).map(date),
            renews_at: None,
        });
        let all = std::iter::once(self.issuer()).chain(others);
        all.take(MAX_NAMED).collect()
    }

    /// The end of the one that ends first.
    fn issuer_end(&self) -> SystemTime {
        let others = self.others.iter().filter_map(verify::not_after);
        others.fold(self.loaded.issuer.not_after(), SystemTime::min)
    }

    fn issuer(&self) -> IssuerStatus {
        let issuer = &self.loaded.issuer;
        let (begins, ends) = (issuer.not_before() + BACKDATE, issuer.not_after());
        let is_ours = self.loaded.root.is_some();
        IssuerStatus {
            fingerprint: fingerprint(issuer.certificate()),
            authority: issuer.id().map(named),
            not_after: Some(date(ends)),
            renews_at: is_ours.then(|| date(rotate::renew_issuer_at(begins, ends))),
        }
    }

    fn conditions(
        &self,
        object: &CertificateAuthority,
        before: &CertificateAuthorityStatus,
    ) -> Vec<Condition> {
        let generation = object.metadata.generation;
        let known = |name: &str| before.conditions.iter().find(|one| one.type_ == name);
        let request = request(object);
        let is_taken = request.is_none_or(|request| self.loaded.state.ids.contains(&request.id));
        let condition =
            |name: &str, (status, reason, message): (bool, &str, String), taken: bool| {
                let status = if status { "True" } else { "False" };
                let known = known(name);
                let same = known.filter(|one| one.status == status);
                Condition {
                    type_: name.to_owned(),
                    status: status.to_owned(),
                    reason: reason.to_owned(),
                    message,
                    observed_generation: match taken {
                        true => generation,
                        false => known.and_then(|one| one.observed_generation),
                    },
                    last_transition_time: same.map_or_else(
                        || Time(Timestamp::now()),
                        |one| one.last_transition_time.clone(),
                    ),
                }
            };
        vec![
            condition(USABLE, self.usable(), true),
            condition(ROTATING, self.rotating(), is_taken),
            condition(EXPIRING, self.expiring(), true),
        ]
    }

    fn usable(&self) -> (bool, &'static str, String) {
        if let Some(why) = self.beside_unusable() {
            return (false, "SecretUnusable", why);
        }
        match self.held {
            Held::Rejected(why) => (
                false,
                "IssuerRejected",
                format!("{why}; the former one signs on"),
            ),
            Held::Nothing | Held::Usable(_) | Held::Unknown => (true, "Issues", String::new()),
        }
    }

    fn rotating(&self) -> (bool, &'static str, String) {
        let state = &self.loaded.state;
        let message = self.summary().unwrap_or_default();
        if let Some(rotation) = &state.rotation {
            let lasts = self
                .now
                .duration_since(rotation.phase_since)
                .unwrap_or_default();
            let waits = !self.waits().is_empty() && lasts > PATIENCE;
            let reason = if waits {
                "Waiting"
            } else {
                rotation.phase.as_str()
            };
            return (true, reason, message);
        }
        match self.step {
            Step::Wait(_) => (true, "Waiting", message),
            Step::Rest | Step::Go(_) => match self.declined() {
                Some(why) => (false, "RootIsExternal", why),
                None if state.began.is_none() && state.ids.is_empty() => {
                    (false, "NeverRotated", String::new())
                }
                None => (false, "Done", String::new()),
            },
        }
    }

    /// Renewal is due at two thirds of a life; two ninths before the end it should have been.
    fn expiring(&self) -> (bool, &'static str, String) {
        let ends_soon = |begins: SystemTime, ends: SystemTime| {
            let life = ends.duration_since(begins).unwrap_or_default();
            ends <= self.now + life / 9 * 2
        };
        let issuer = &self.loaded.issuer;
        if ends_soon(issuer.not_before(), issuer.not_after()) {
            let until = date(issuer.not_after());
            let message = format!(
                "the issuer ends at {until}: see the controller's log, or renew it in its Secret or folder"
            );
            return (true, "IssuerEnds", message);
        }
        let root = self.loaded.root.as_ref();
        if let Some(root) = root.filter(|root| ends_soon(root.not_before(), root.not_after())) {
            let until = date(root.not_after());
            let message = format!("the root ends at {until}: see what the rotation waits for");
            return (true, "RootEnds", message);
        }
        (false, "NotSoon", String::new())
    }
}

/// As the status writes it.
pub(super) fn phase(state: &State) -> &'static str {
    state.phase().map_or("Steady", Phase::as_str)
}

fn rotation(state: &State) -> Option<RotationStatus> {
    let rotation = state.rotation.as_ref()?;
    Some(RotationStatus {
        id: state
            .ids
            .contains(&rotation.id)
            .then(|| rotation.id.clone()),
        trigger: rotation.trigger.as_str().to_owned(),
        reason: Some(rotation.reason.as_str().to_owned()),
        since: Some(date(rotation.since)),
        phase_since: Some(date(rotation.phase_since)),
    })
}

fn fingerprint(der: &[u8]) -> String {
    let digest = Sha256::digest(der);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Whether the status says that this root was taken out by a Compromise.
pub(super) fn has_retired(object: &CertificateAuthority, root: AuthorityId) -> bool {
    let status = object.status.as_ref();
    status.is_some_and(|status| status.retired.contains(&named(root)))
}

/// Whether the status of before knows the first root of a content that a replica starts with.
pub(super) fn knows_root(object: &CertificateAuthority, first: &[u8]) -> bool {
    let status = object.status.as_ref();
    let roots = status
        .map(|status| status.roots.as_slice())
        .unwrap_or_default();
    let first = fingerprint(first);
    roots.is_empty() || roots.iter().any(|root| root.fingerprint == first)
}
