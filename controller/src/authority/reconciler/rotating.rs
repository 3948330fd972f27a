//! Advances a rotation of the root: one step at a time on the Lease holder, and on every replica
//! what proxies are sent meanwhile.

use std::time::{Duration, SystemTime};

use crds::weft::{AUTHORITY, CertificateAuthority, GROUP, VERSION};
use identity::Roots;
use identity::rotation::{
    self, Announced, Begin, Move, Offered, Phase, Reason, Rotation, Source, State, Step, Trigger,
    announced,
};
use identity::verify::AuthorityId;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::PostParams;
use runtime::clock::LOOK_EVERY;
use tracing::{info, warn};
use wire::v1;

use super::Reconciler;
use crate::apiserver::events::{About, Event, EventType};
use crate::authority::Loaded;
use crate::authority::own_issuers::OwnIssuers;
use crate::authority::rotation::Making;
use crate::authority::secret::{
    CaError, NEXT_ROOT_CRT, ROOT_CRT, ROTATION, SECRET, field, named, stored, text,
};
use crate::authority::source::{Held, SourceReader};
use crate::authority::status::{self, Report, knows_root};
use crate::settings::authority::IssuerSource;

/// Between two steps of a rotation that goes on, so that a Compromise loses no second.
const SOON: Duration = Duration::from_millis(500);
/// The same where proxies have been waited for, and for a Secret that another tool writes.
const LATER: Duration = Duration::from_secs(5);
/// A phase that lasts longer waits for something.
const QUICK: Duration = Duration::from_secs(120);
/// A replica that starts waits so long for one that knows better.
const UNKNOWN: Duration = Duration::from_secs(60);

impl Reconciler {
    /// How long until the next look.
    pub(super) fn pause(&self, now: SystemTime) -> Duration {
        let loaded = self
            .authority
            .loaded()
            .filter(|_| self.leadership.is_held());
        let rotation = loaded
            .as_ref()
            .and_then(|loaded| loaded.state.rotation.as_ref());
        let Some(rotation) = rotation else {
            return match self.watched.settings.source {
                IssuerSource::Generated if self.watched.settings.directory.is_none() => LOOK_EVERY,
                IssuerSource::Generated | IssuerSource::Secret { .. } | IssuerSource::Files => {
                    LATER
                }
            };
        };
        let lasts = now.duration_since(rotation.phase_since).unwrap_or_default();
        match rotation.reason == Reason::Compromise || lasts < QUICK {
            true => SOON,
            false => LATER,
        }
    }

    /// Why a replica that starts does not take this content, or not yet: its first root is none that
    /// the status names, as after a restore, and a running replica may write its own back.
    pub(super) async fn refused_at_start(&self, secret: &Secret) -> Option<CaError> {
        let may_wait = self.watched.started.elapsed() < UNKNOWN;
        let objects: Api<CertificateAuthority> = Api::all(self.client.clone());
        let object = match objects.get_opt(AUTHORITY).await {
            Ok(object) => object?,
            // As while a chart is upgraded.
            Err(kube::Error::Api(status)) if status.is_forbidden() => return None,
            Err(error) => return may_wait.then(|| error.into()),
        };
        self.note_uid(&object);
        let pem = text(secret.data.as_ref()?, ROOT_CRT).ok()?;
        let roots = Roots::from_pem(&self.authority.inner.own, pem).ok()?;
        let first = roots.certificates().into_iter().next()?;
        if status::has_retired(&object, *roots.ids().first()?) {
            return Some(CaError::RootRetired);
        }
        (may_wait && !knows_root(&object, &first)).then_some(CaError::Restored)
    }

    /// Makes the next step, if this replica is the holder, and says what proxies are sent.
    pub(super) async fn rotate(&self, now: SystemTime) -> Result<(), CaError> {
        let Some(loaded) = self.authority.loaded() else {
            return Ok(());
        };
        self.say_step(&loaded, now);
        if !self.leadership.is_held() {
            let own = self.own_issuers(&loaded, None, now);
            self.authority.others_sign(&own.ids());
            let seen = self.watched.seen(&loaded, None, None, &own, now);
            self.authority
                .announce(announced(&loaded.state, &seen, now));
            return Ok(());
        }
        let object = status::object(&self.client).await;
        if let Some(object) = &object {
            self.note_uid(object);
        }
        let signs_until = loaded.issuer.not_after();
        let held = self.held(&loaded.state, Some(signs_until), now).await;
        let offered = held.candidate().map(|candidate| Offered {
            root: candidate.root_id,
            signs: match self.watched.settings.source {
                // Its owner may have renewed the root with its key.
                IssuerSource::Files => loaded.roots_pem.contains(candidate.root_pem.trim()),
                _ => candidate.issuer.cert_pem() == loaded.issuer.cert_pem(),
            },
        });
        let own = self.own_issuers(&loaded, offered, now);
        self.authority.others_sign(&own.ids());
        // Of a source that is half written it is not known yet whether its owner swaps the root.
        let may_decide = loaded.state.rotation.is_some() || !matches!(held, Held::Unknown);
        let request = object.as_ref().and_then(status::request);
        let request = request.filter(|_| may_decide);
        let seen = self.watched.seen(&loaded, request, offered, &own, now);
        let step = rotation::step(&loaded.state, &seen, now);
        let outcome = match &step {
            Step::Go(next) => self.go(next, &loaded, &held, now).await,
            Step::Rest | Step::Wait(_) => Ok(()),
        };
        let loaded = self.authority.loaded().unwrap_or(loaded);
        self.say_step(&loaded, now);
        let announced: Announced = announced(&loaded.state, &seen, now);
        self.authority.announce(announced);
        let report = Report {
            loaded: &loaded,
            seen: &seen,
            step: &step,
            held: &held,
            others: &own.certificates,
            unusable: self.authority.beside_unusable(),
            // Calls that fail are made again.
            failed: match &outcome {
                Ok(()) | Err(CaError::Api(_)) => None,
                Err(error) => Some(error.to_string()),
            },
            now,
        };
        self.report(&report);
        if let Some(object) = object {
            match status::write(&self.client, object, &report).await {
                Ok(difference) => self.watched.note_clock(difference),
                Err(error) => warn!(%error, "status of CertificateAuthority not written"),
            }
        }
        outcome
    }

    fn note_uid(&self, object: &CertificateAuthority) {
        *self.watched.object_uid.lock() = object.metadata.uid.clone().unwrap_or_default();
    }

    /// For the other replicas.
    fn say_step(&self, loaded: &Loaded, now: SystemTime) {
        self.watched.observed.serves(self.served(loaded, now));
    }

    fn served(&self, loaded: &Loaded, now: SystemTime) -> v1::AuthorityStep {
        let bytes = |roots: Vec<AuthorityId>| -> Vec<Vec<u8>> {
            let roots = roots.iter().map(|root| root.as_bytes().to_vec());
            roots.collect()
        };
        let roots = self.authority.inner.roots.get();
        let issuer = loaded.own_issuer().map(|issuer| issuer.to_vec());
        v1::AuthorityStep {
            step: loaded.state.step,
            roots: bytes(roots.map(Roots::ids).unwrap_or_default()),
            issuer: issuer.unwrap_or_default(),
            signs_below: bytes(self.authority.inner.brought.lock().roots(now)),
        }
    }

    /// What the replicas' folders hold.
    fn own_issuers(
        &self,
        loaded: &Loaded,
        offered: Option<Offered>,
        now: SystemTime,
    ) -> OwnIssuers {
        let served = self.served(loaded, now);
        let offered = offered.map(|offered| offered.root);
        let wanted = loaded.state.next().or(offered);
        let own = (self.watched.pod_name.as_str(), &served);
        OwnIssuers::of(own, &self.watched.observed, wanted)
    }

    fn source(&self) -> SourceReader<'_> {
        SourceReader {
            client: &self.client,
            namespace: &self.namespace,
            settings: &self.watched.settings,
            own: &self.authority.inner.own,
            looks: &self.watched.looks,
        }
    }

    /// Reads this replica's own folder, if it has one: before the Secret, which may need it.
    pub(super) async fn bring(&self, now: SystemTime) {
        let settings = &self.watched.settings;
        let loaded = self.authority.loaded();
        // While nothing signs, one that ends soon is better than none.
        let signs_until = loaded.map_or(now, |loaded| loaded.issuer.not_after());
        match self.source().folder(now, Some(signs_until)).await {
            Ok(Held::Usable(candidate)) => {
                let (issuer, root) = (candidate.issuer_id, candidate.root_id);
                if self.authority.bring(*candidate, settings.settle) {
                    info!(target: "audit", %issuer, %root, "issuer of the folder imported");
                }
            }
            // The holder's stands in the status too.
            Ok(Held::Rejected(why)) => {
                self.watched.looks.log_rejected(&why);
                let text = format!("controller {}: {why}", self.watched.pod_name);
                self.event(EventType::Warning, "IssuerRejected", text);
            }
            Ok(Held::Nothing | Held::Unknown) => {}
            Err(error) => warn!(%error, "the roots of the issuer cannot be read"),
        }
    }

    /// Writes the root of this replica's folder behind those that are trusted, where it has no other
    /// way to take part: its folder holds nothing below the root that signs, as after another volume
    /// was mounted. The holder of the Lease goes on with that rotation.
    pub(super) async fn introduce(
        &self,
        mut secret: Secret,
        now: SystemTime,
    ) -> Result<(), CaError> {
        let settings = &self.watched.settings;
        let may_wait = self.watched.started.elapsed() < settings.settle;
        let newest = self.authority.inner.brought.lock().newest();
        let Some(newest) = newest.filter(|_| settings.source == IssuerSource::Files && !may_wait)
        else {
            return Ok(());
        };
        let data = secret.data.get_or_insert_default();
        let roots_pem = text(data, ROOT_CRT)?.to_owned();
        let known = Roots::from_pem(&self.authority.inner.own, &roots_pem)?.ids();
        let root = newest.root_id;
        let state = stored(data).filter(|state| {
            self.authority.loaded().is_none()
                && state.rotation.is_none()
                && !state.is_retired(root)
                && !known.contains(&root)
        });
        let Some(state) = state else {
            return Ok(());
        };
        let begin = Begin {
            id: rotation::made_up("source", now),
            trigger: Trigger::Source,
            reason: Reason::Planned,
            source: Source::Files,
        };
        let state = state.started(&begin, root, now);
        data.extend([
            field(
                ROOT_CRT,
                format!("{}\n{}", roots_pem.trim_end(), newest.root_pem),
            ),
            field(NEXT_ROOT_CRT, newest.root_pem.as_str()),
            field(ROTATION, serde_json::to_vec(&state)?),
        ]);
        let params = PostParams::default();
        self.api().replace(SECRET, &params, &secret).await?;
        info!(target: "audit", step = state.step, %root, "root of the folder imported");
        self.report_move(&Move::Begin(begin), state.rotation.as_ref(), &state);
        Ok(())
    }

    /// What the configured source holds. `signs_until`: the end of the issuer in use.
    pub(super) async fn held(
        &self,
        state: &State,
        signs_until: Option<SystemTime>,
        now: SystemTime,
    ) -> Held {
        let held = match self.source().read(now, signs_until).await {
            Ok(held) => held,
            Err(error) => {
                warn!(%error, "the source of the issuer cannot be read");
                return Held::Unknown;
            }
        };
        let root = held.candidate().map(|candidate| candidate.root_id);
        match root.filter(|root| state.is_retired(*root)) {
            Some(root) => Held::Rejected(format!(
                "RootRetired: root {} was taken out by a Compromise, since its key is known: make a \
                 new root",
                named(root)
            )),
            None => held,
        }
    }

    /// Writes the content of the next step.
    async fn go(
        &self,
        next: &Move,
        loaded: &Loaded,
        held: &Held,
        now: SystemTime,
    ) -> Result<(), CaError> {
        let Some(mut secret) = self.api().get_opt(SECRET).await? else {
            return Ok(());
        };
        let data = secret.data.get_or_insert_default();
        // Another content is taken first, or refused.
        if *data != loaded.data {
            return Ok(());
        }
        // The folder may hold another one meanwhile.
        let rotation = loaded.state.rotation.as_ref();
        let of_files = rotation.is_some_and(|rotation| rotation.source == Source::Files);
        let root = loaded.state.next();
        let root = root.filter(|_| of_files && *next == Move::Activate);
        let kept = root.and_then(|root| self.authority.inner.brought.lock().below(root, now));
        let making = Making {
            own: &self.authority.inner.own,
            loaded,
            candidate: kept.as_deref().or(held.candidate()),
            source: self.watched.source(),
            root_life: self.watched.settings.root_life,
            now,
        };
        let state = making.carry_out(next, data)?;
        // What no replica could load is not written.
        data.extend([field(ROTATION, serde_json::to_vec(&state)?)]);
        self.authority.must_load(data, now)?;
        self.write(&mut secret, &state, now).await?;
        // Of the one that has ended there, too.
        let rotation = state.rotation.as_ref().or(rotation);
        self.report_move(next, rotation, &state);
        Ok(())
    }

    fn report_move(&self, next: &Move, rotation: Option<&Rotation>, state: &State) {
        let id = rotation.map_or("", |rotation| rotation.id.as_str());
        let word = rotation.map_or("", |rotation| rotation.reason.as_str());
        let phase = status::phase(state);
        info!(target: "audit", step = state.step, id, phase, ?next, "certificate authority stepped");
        // Each names what it is about: the same Event is written once an hour.
        let (reason, text) = match next {
            // Of a replica that has started, and what condition `Rotating` says.
            Move::KnowIssuers(_) | Move::Decline(_) => return,
            Move::Begin(_) => (
                "RotationStarted",
                format!("rotation {id} ({word}) of the root started"),
            ),
            Move::Hasten(_) | Move::Activate | Move::Retire => (
                "RotationPhase",
                format!("rotation {id} ({word}) is in phase {phase}"),
            ),
            Move::Finish => (
                "RotationDone",
                format!("rotation {id} ({word}) has ended: one root is left, and signs"),
            ),
            Move::TakeIssuer | Move::ReplaceIssuer(_) => {
                let issuer = state.issuers.last().copied().map(named);
                let issuer = issuer.unwrap_or_default();
                let text = format!("another issuer signs, below the same root: {issuer}");
                ("RotationDone", text)
            }
        };
        self.event(EventType::Normal, reason, text);
    }

    /// Metrics and Events of what is waited for.
    fn report(&self, report: &Report<'_>) {
        let phase = match report.loaded.state.phase() {
            None => 0,
            Some(Phase::Preparing) => 1,
            Some(Phase::Activating) => 2,
            Some(Phase::Retiring) => 3,
        };
        self.metrics.rotation_phase.set(phase);
        let trusting = i64::try_from(report.progress().trusting).unwrap_or(i64::MAX);
        self.metrics.proxies_trust.set(trusting);
        if let Held::Rejected(why) = report.held {
            self.watched.looks.log_rejected(why);
            self.event(EventType::Warning, "IssuerRejected", why.clone());
        }
        if let Some(waits) = report.waits_long() {
            self.event(EventType::Warning, "RotationWaits", waits);
        }
    }

    fn event(&self, event_type: EventType, reason: &'static str, text: String) {
        self.events.record(Event {
            about: About {
                api_version: format!("{GROUP}/{VERSION}"),
                kind: "CertificateAuthority".to_owned(),
                namespace: String::new(),
                name: AUTHORITY.to_owned(),
                uid: self.watched.object_uid.lock().clone(),
            },
            event_type,
            reason,
            action: "Rotate",
            text,
        });
    }
}
