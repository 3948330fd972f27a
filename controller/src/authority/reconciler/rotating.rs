//! Lets the root rotate: one step at a time on the Lease holder, and on every replica what proxies are
//! sent meanwhile.

use std::time::{Duration, SystemTime};

use crds::weft::{AUTHORITY, CertificateAuthority, GROUP, VERSION};
use identity::Roots;
use identity::rotation::{self, Announced, Move, Offered, Phase, Reason, State, Step, announced};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use runtime::clock::LOOK_EVERY;
use tracing::{info, warn};
use wire::v1;

use super::Reconciler;
use crate::apiserver::events::{About, Event, EventType};
use crate::authority::Loaded;
use crate::authority::rotation::Making;
use crate::authority::secret::{CaError, ROOT_CRT, SECRET, text};
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
                IssuerSource::Generated => LOOK_EVERY,
                IssuerSource::Secret { .. } => LATER,
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
        self.say_step(&loaded);
        if !self.leadership.is_held() {
            let seen = self.watched.seen(&loaded, None, None, now);
            self.authority
                .announce(announced(&loaded.state, &seen, now));
            return Ok(());
        }
        let object = status::object(&self.client).await;
        let signs_until = loaded.issuer.not_after();
        let held = self.held(&loaded.state, signs_until, now).await;
        let offered = held.candidate().map(|candidate| Offered {
            root: candidate.root_id,
            signs: candidate.issuer.cert_pem() == loaded.issuer.cert_pem(),
        });
        let request = object.as_ref().and_then(status::request);
        let seen = self.watched.seen(&loaded, request, offered, now);
        let step = rotation::step(&loaded.state, &seen, now);
        let outcome = match &step {
            Step::Go(next) => self.go(next, &loaded, &held, now).await,
            Step::Rest | Step::Wait(_) | Step::RootIsExternal => Ok(()),
        };
        let loaded = self.authority.loaded().unwrap_or(loaded);
        self.say_step(&loaded);
        let announced: Announced = announced(&loaded.state, &seen, now);
        self.authority.announce(announced);
        let report = Report {
            loaded: &loaded,
            seen: &seen,
            step: &step,
            held: &held,
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

    /// For the other replicas.
    fn say_step(&self, loaded: &Loaded) {
        let roots = self.authority.inner.roots.get();
        let roots = roots.map(Roots::ids).unwrap_or_default();
        self.watched.observed.serves(v1::AuthorityStep {
            step: loaded.state.step,
            roots: roots.iter().map(|root| root.as_bytes().to_vec()).collect(),
        });
    }

    /// What the configured Secret holds. `signs_until`: the end of the issuer in use.
    pub(super) async fn held(
        &self,
        state: &State,
        signs_until: SystemTime,
        now: SystemTime,
    ) -> Held {
        let reader = SourceReader {
            client: &self.client,
            namespace: &self.namespace,
            source: &self.watched.settings.source,
            own: &self.authority.inner.own,
            mismatched: &self.watched.mismatched,
        };
        let held = match reader.read(now, signs_until).await {
            Ok(held) => held,
            Err(error) => {
                warn!(%error, "the Secret of the issuer cannot be read");
                return Held::Unknown;
            }
        };
        let root = held.candidate().map(|candidate| candidate.root_id);
        match root.filter(|root| state.is_retired(*root)) {
            Some(root) => Held::Rejected(format!(
                "RootRetired: root {root} was taken out by a Compromise, since its key is known: make a \
                 new root"
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
        let making = Making {
            own: &self.authority.inner.own,
            loaded,
            candidate: held.candidate(),
            root_life: self.watched.settings.root_life,
            now,
        };
        let state = making.carry_out(next, data)?;
        // What no replica could load is not written.
        Loaded::from_data(data.clone(), &self.authority.inner.own, now)?;
        self.write(&mut secret, &state, now).await?;
        self.report_move(next, &state);
        Ok(())
    }

    fn report_move(&self, next: &Move, state: &State) {
        let id = state.rotation.as_ref().map(|rotation| rotation.id.as_str());
        let (id, phase) = (id.unwrap_or_default(), status::phase(state));
        info!(target: "audit", step = state.step, id, phase, ?next, "certificate authority stepped");
        let (reason, text) = match next {
            Move::Begin(_) => (
                "RotationStarted",
                format!("rotation {id} of the root started"),
            ),
            Move::Hasten(_) | Move::Activate | Move::Retire => (
                "RotationPhase",
                format!("rotation {id} is in phase {phase}"),
            ),
            Move::Finish => ("RotationDone", "one root is left, and signs".to_owned()),
            Move::TakeIssuer | Move::ReplaceIssuer(_) => (
                "RotationDone",
                "another issuer signs, below the same root".to_owned(),
            ),
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
                uid: String::new(),
            },
            event_type,
            reason,
            action: "Rotate",
            text,
        });
    }
}
