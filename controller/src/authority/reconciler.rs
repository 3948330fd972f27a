//! Reconciles this replica's authority with its Secret: loads it, creates it where there is none,
//! and on the Lease holder replaces the issuer in time and puts back roots that another client
//! removed. The root of the aggregated APIs is renewed alike.

use std::pin::pin;
use std::time::{Duration, SystemTime};

use crds::weft::{AUTHORITY, CertificateAuthority};
use futures::stream::select;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use identity::authority::{BACKDATE, BadAuthority, ISSUER_LIFE};
use identity::rotation::{Source, State};
use identity::{Issuer, Root, Roots, rotate};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher;
use kube::{Api, Client};
use policy::name::SpiffeId;
use runtime::clock::{Clock, LOOK_EVERY};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{error, info, warn};

use super::{
    Authority, Undone,
    rotation::Watched,
    secret::{
        self, CaError, ISSUER_CRT, ISSUER_KEY, OutsideLife, REVERTED, ROOT_CRT, ROTATION, SECRET,
        TRUST_DOMAIN, clock_difference, date, fresh, fresh_api_root, last_manager, put_issuer,
        root_with_key, text,
    },
    source::Held,
};
use crate::apiserver::client::WATCH_SECONDS;
use crate::apiserver::events::{About, Event, EventRecorder, EventType};
use crate::apiserver::lease::Leadership;
use crate::metrics::AuthorityMetrics;

mod lives;
mod rotating;

/// A content that is refused for so long is written back by any replica.
const HOLDER_HAS: Duration = Duration::from_secs(15);
/// Pause after a failed load or write.
const RETRY: Duration = Duration::from_secs(2);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Waits until the API server has shown that the mesh, if there is one, has the trust domain of
/// `own`. A controller that is configured with another must not take the Lease.
///
/// # Errors
/// When it has another one.
pub(crate) async fn same_trust_domain(
    client: &Client,
    namespace: &str,
    own: &SpiffeId,
) -> Result<(), CaError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    loop {
        match secrets.get_opt(SECRET).await {
            Ok(None) => return Ok(()),
            Ok(Some(secret)) => {
                let data = secret.data.unwrap_or_default();
                return Authority::new(own).must_be_ours(&data, namespace);
            }
            Err(error) => warn!(%error, "Secret {SECRET} could not be read"),
        }
        sleep(RETRY).await;
    }
}

/// A new issuer below `root`, if peers would trust what it signs.
fn successor(root: &Root, roots: &Roots, now: SystemTime) -> Result<Issuer, CaError> {
    if now >= root.not_after() {
        let ended = date(root.not_after());
        return Err(CaError::RootEnded { ended });
    }
    let issuer = root.issuer(now, ISSUER_LIFE)?;
    issuer.prove(roots, now)?;
    Ok(issuer)
}

/// Keeps the authority of this replica in step with the Secret.
pub(crate) struct Reconciler {
    /// What is kept.
    pub authority: Authority,
    /// API server.
    pub client: Client,
    /// Namespace of the Secret.
    pub namespace: String,
    /// Which replica may replace the issuer.
    pub leadership: Leadership,
    /// Remaining lives.
    pub metrics: AuthorityMetrics,
    /// Where a coming end is reported.
    pub events: EventRecorder,
    /// What lives are measured by.
    pub clock: Clock,
    /// What rotations are decided by.
    pub watched: Watched,
}

opaque_debug!(Reconciler);

impl Reconciler {
    /// Loads or makes the authority, then follows the Secret for ever.
    ///
    /// # Errors
    /// When the mesh turns out to have another trust domain before anything was loaded.
    pub(crate) async fn run(self) -> Result<(), CaError> {
        let mut changes = pin!(self.changes());
        let mut due = Instant::now();
        loop {
            tokio::select! {
                () = sleep_until(due) => {}
                change = changes.next() => match change {
                    Some(Ok(_)) => {}
                    // What is due stays due, however often this happens.
                    Some(Err(error)) => {
                        warn!(%error, "watching the authority's objects failed");
                        continue;
                    }
                    None => return Ok(()),
                }
            }
            self.bring(self.clock.now()).await;
            let mut outcome = self.step(self.clock.now()).await;
            // What is served goes on beside a content that cannot be used.
            if outcome.is_ok() || self.authority.beside_unusable().is_some() {
                let rotated = self.rotate(self.clock.now()).await;
                outcome = outcome.and(rotated);
            }
            let pause = match outcome {
                Ok(()) => self.pause(self.clock.now()),
                Err(error @ CaError::TrustDomain { .. }) => {
                    // What is loaded stays in use: a user is changing it on purpose.
                    if self.authority.loaded().is_none() {
                        return Err(error);
                    }
                    error!(%error, "the trust domain in the Secret is another one now");
                    LOOK_EVERY
                }
                Err(error) => {
                    error!(%error, "the certificate authority is not usable");
                    RETRY
                }
            };
            due = Instant::now() + pause;
            self.measure(self.clock.now());
        }
    }

    /// Changes of the Secret, and of the object that users request rotations by. What they are is
    /// read anew.
    fn changes(&self) -> impl Stream<Item = Result<(), watcher::Error>> + use<> {
        let named = |name: &str| {
            let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
            config.timeout(WATCH_SECONDS)
        };
        let objects: Api<CertificateAuthority> = Api::all(self.client.clone());
        let secrets = watcher::watcher(self.api(), named(SECRET)).default_backoff();
        let objects = watcher::watcher(objects, named(AUTHORITY)).default_backoff();
        select(secrets.map_ok(|_| ()), objects.map_ok(|_| ()))
    }

    fn api(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// One look at the Secret, with what follows from it.
    async fn step(&self, now: SystemTime) -> Result<(), CaError> {
        let secret = match self.api().get_opt(SECRET).await? {
            Some(secret) => {
                if self.authority.loaded().is_none()
                    && let Some(refused) = self.refused_at_start(&secret).await
                {
                    return Err(refused);
                }
                secret
            }
            None => self.make(now).await?,
        };
        *self.watched.secret_uid.lock() = secret.metadata.uid.clone().unwrap_or_default();
        self.take(secret, now).await
    }

    /// Takes the content of the Secret into use, unless it lacks a root that is in use.
    async fn take(&self, mut secret: Secret, now: SystemTime) -> Result<(), CaError> {
        let is_holder = self.leadership.is_held();
        self.authority.note_unusable(None);
        if let Some(undone) = self.authority.undone(&secret, is_holder, now) {
            self.undo(secret, &undone, now).await?;
            return Ok(());
        }
        match self.authority.load(&secret, now) {
            Ok(true) => info!("certificate authority loaded"),
            Ok(false) => {}
            Err(CaError::OutsideLife(outside)) if is_holder => {
                return self.revive(secret, outside, now).await;
            }
            Err(refused @ CaError::NoOwnIssuer { .. }) => {
                self.introduce(secret, now).await?;
                return Err(refused);
            }
            Err(error) => return self.go_on_beside(secret, error, now).await,
        }
        if !is_holder {
            return Ok(());
        }
        let renewed = self.renew(&mut secret, now).await;
        self.renew_api_root(&mut secret, now).await?;
        renewed
    }

    /// Goes on with what is served where the content of the Secret failed to load, and writes that
    /// back. Without anything to serve, or until then, the content stays an error.
    async fn go_on_beside(
        &self,
        secret: Secret,
        error: CaError,
        now: SystemTime,
    ) -> Result<(), CaError> {
        let Some(unusable) = self.authority.unusable(&secret, &error) else {
            return Err(error);
        };
        self.authority.note_unusable(Some(unusable.clone()));
        if !self.authority.may_replace(&secret, now) || !self.undo(secret, &unusable, now).await? {
            return Err(error);
        }
        self.authority.note_unusable(None);
        Ok(())
    }

    /// Reports a content that is not taken, and writes what is served over it where that is due.
    /// Returns whether it did.
    async fn undo(
        &self,
        secret: Secret,
        undone: &Undone,
        now: SystemTime,
    ) -> Result<bool, CaError> {
        let refused = self.authority.refused_for(&secret);
        if refused.is_none() {
            self.report_reverted(&secret, undone);
        }
        // A holder that started from this content is content with it: by a write of another
        // replica it learns of the difference, and decides.
        let is_due = self.leadership.is_held() || refused.is_some_and(|since| since >= HOLDER_HAS);
        if !is_due || !self.authority.may_write_back() {
            return Ok(false);
        }
        self.write_back(secret, undone, now).await?;
        Ok(true)
    }

    /// Creates the Secret: with what is loaded, when it was deleted under a running mesh, else with
    /// a new authority.
    async fn make(&self, now: SystemTime) -> Result<Secret, CaError> {
        let data = match self.authority.loaded() {
            Some(loaded) => loaded.data.clone(),
            None => fresh(
                &self.authority.inner.own,
                self.watched.settings.root_life,
                now,
            )?,
        };
        let secret = secret::holding(data);
        match self.api().create(&PostParams::default(), &secret).await {
            Ok(secret) => {
                info!("certificate authority written");
                Ok(secret)
            }
            // Another replica was quicker: its authority is the one.
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                Ok(self.api().get(SECRET).await?)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Writes what is in use over a content that is not taken, and names the roots of one that a
    /// replica may have started from.
    async fn write_back(
        &self,
        mut secret: Secret,
        undone: &Undone,
        now: SystemTime,
    ) -> Result<(), CaError> {
        let Some(loaded) = self.authority.loaded() else {
            return Ok(());
        };
        let mut found = secret.data.take().unwrap_or_default();
        let reverted = State {
            step: secret::step(&found),
            ..State::default()
        };
        let mut data = loaded.data.clone();
        let roots = match undone {
            Undone::Earlier(_) | Undone::Lacks(_) => found.remove(ROOT_CRT),
            Undone::Unusable(..) => None,
        };
        data.extend(roots.map(|roots| (REVERTED.to_owned(), roots)));
        secret.data = Some(data);
        let state = loaded.state.written_over(&reverted);
        self.write(&mut secret, &state, now).await?;
        info!("certificate authority written back");
        Ok(())
    }

    /// Replaces the issuer when two thirds of its life are over or the clock is before it,
    /// and adds the trust domain to a Secret of a version that did not write it.
    async fn renew(&self, secret: &mut Secret, now: SystemTime) -> Result<(), CaError> {
        let (Some(loaded), Some(roots)) =
            (self.authority.loaded(), self.authority.inner.roots.get())
        else {
            return Ok(());
        };
        let outside = OutsideLife::of(&loaded.issuer, now);
        let issued = loaded.issuer.not_before() + BACKDATE;
        let due = rotate::renew_issuer_at(issued, loaded.issuer.not_after());
        if outside.is_none() && now < due {
            if loaded.data.contains_key(TRUST_DOMAIN) {
                return Ok(());
            }
            self.write(secret, &loaded.state.stepped(), now).await?;
            info!("trust domain written into the authority's Secret");
            return Ok(());
        }
        let Some(root) = &loaded.root else {
            // The owner of a source renews it, which `Expiring` waits for.
            if loaded.state.source == Source::Generated {
                warn!("the issuer should be replaced, and the root's key is not here to do it");
            }
            return Ok(());
        };
        let issuer = successor(root, roots, now)?;
        self.replace(secret, &loaded.state, &issuer, outside, now)
            .await
    }

    /// Makes the root of the aggregated APIs where there is none, and the next one when two thirds of
    /// its life are over or the clock is before it.
    async fn renew_api_root(&self, secret: &mut Secret, now: SystemTime) -> Result<(), CaError> {
        let Some(loaded) = self.authority.loaded() else {
            return Ok(());
        };
        let root = loaded.api.as_ref().map(|api| &api.root);
        let alive = root.filter(|root| root.not_before() <= now && now < root.not_after());
        if alive.is_some_and(|root| {
            now < rotate::renew_issuer_at(root.not_before() + BACKDATE, root.not_after())
        }) {
            return Ok(());
        }
        let renewed = fresh_api_root(alive.map(Root::cert_pem), now)?;
        secret.data.get_or_insert_default().extend(renewed);
        self.write(secret, &loaded.state.stepped(), now).await?;
        info!("root of the aggregated APIs written");
        Ok(())
    }

    /// Replaces an issuer that cannot be loaded, since it is outside its life.
    async fn revive(
        &self,
        mut secret: Secret,
        outside: OutsideLife,
        now: SystemTime,
    ) -> Result<(), CaError> {
        let data = secret.data.get_or_insert_default();
        let roots_pem = text(data, ROOT_CRT)?;
        let roots = Roots::from_pem(&self.authority.inner.own, roots_pem)?;
        let root = root_with_key(data, roots_pem)?;
        let former = Issuer::from_pem(text(data, ISSUER_CRT)?, text(data, ISSUER_KEY)?)?;
        let state = secret::state(data, &roots.ids(), &former).ok_or(BadAuthority::Certificate)?;
        let issuer = match root {
            Some(root) => successor(&root, &roots, now)?,
            // Its owner may have renewed it meanwhile. What a folder holds is written nowhere.
            None if self.watched.source() == Source::Files => {
                return Err(CaError::NoRootKey(outside));
            }
            None => match self.held(&state, Some(former.not_after()), now).await {
                Held::Usable(found) if roots.ids().contains(&found.root_id) => found.issuer,
                _ => return Err(CaError::NoRootKey(outside)),
            },
        };
        self.replace(&mut secret, &state, &issuer, Some(outside), now)
            .await
    }

    /// Writes `issuer` and takes it into use. `outside`: why the one before it signed
    /// nothing, if that is so.
    async fn replace(
        &self,
        secret: &mut Secret,
        state: &State,
        issuer: &Issuer,
        outside: Option<OutsideLife>,
        now: SystemTime,
    ) -> Result<(), CaError> {
        let data = secret.data.get_or_insert_default();
        // Read by all replicas long ago.
        data.remove(REVERTED);
        put_issuer(issuer, data);
        let id = issuer.id().ok_or(BadAuthority::Certificate)?;
        self.write(secret, &state.with_issuer(id, None), now)
            .await?;
        let Some(outside) = outside else {
            info!("issuer replaced");
            return Ok(());
        };
        let until = date(issuer.not_after());
        warn!(%outside, until, "the issuer could not sign; it was replaced");
        self.warn(
            outside.reason(),
            &format!(
                "the issuer of the mesh's certificates {outside}: nothing was signed meanwhile. \
                 A new one signs until {until}"
            ),
        );
        Ok(())
    }

    /// Writes the Secret with this state and takes it into use; `secret` is then as it was written.
    /// Fails on a conflict, because the resource version that was read is in it.
    async fn write(
        &self,
        secret: &mut Secret,
        state: &State,
        now: SystemTime,
    ) -> Result<(), CaError> {
        let trust_domain = self.authority.inner.own.trust_domain();
        let data = secret.data.get_or_insert_default();
        data.insert(ROTATION.to_owned(), ByteString(serde_json::to_vec(state)?));
        data.entry(TRUST_DOMAIN.to_owned())
            .or_insert_with(|| ByteString(trust_domain.as_bytes().to_vec()));
        let api = self.api();
        let written = api.replace(SECRET, &PostParams::default(), secret).await?;
        self.watched
            .note_clock(clock_difference(&written.metadata, now));
        self.authority.load(&written, now)?;
        *secret = written;
        Ok(())
    }

    fn report_reverted(&self, secret: &Secret, undone: &Undone) {
        self.metrics.reverts.inc();
        let manager = last_manager(secret);
        error!(target: "audit", why = %undone, manager, "the authority's Secret is not taken");
        self.warn(
            "AuthorityReverted",
            &format!(
                "field manager {manager} wrote a content that {undone} over the one of step {}, so the \
                 controllers keep that. The holder of the Lease writes it back. {}",
                self.authority.served_step(),
                undone.way_out()
            ),
        );
    }

    fn warn(&self, reason: &'static str, text: &str) {
        self.events.record(Event {
            about: About {
                api_version: "v1".to_owned(),
                kind: "Secret".to_owned(),
                namespace: self.namespace.clone(),
                name: SECRET.to_owned(),
                uid: self.watched.secret_uid.lock().clone(),
            },
            event_type: EventType::Warning,
            reason,
            action: "Watch",
            text: text.to_owned(),
        });
    }
}

#[cfg(test)]
mod tests;
