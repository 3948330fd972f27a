//! Requests the proxy's certificate and renews it: well before its end by the wall clock, and at
//! once where that clock is set back before its begin, where the roots in use do not vouch for it
//! any more, where it is revoked, and where a controller refuses it. A failed renewal keeps the
//! current one.

use std::time::{Duration, UNIX_EPOCH};

use identity::tls::{self, BadLeaf, H2_ALPN, Leaf};
use identity::{IdentityError, LeafKey, Roots};
use runtime::backoff::Backoff;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use wire::v1;
use wire::v1::control_client::ControlClient;

use crate::control::leaving::Contact;
use crate::control::refusal::Flag;
use crate::control::{BACKOFF_FIRST, BACKOFF_LONGEST, BoxError, Control};
use crate::telemetry::startup::StartupStep;

/// One request for a certificate.
const CERTIFY_WITHIN: Duration = Duration::from_secs(10);

/// How long a fresh certificate is not dropped for a controller of an unknown authority: of two
/// that disagree each would send us to the other. One that is refused is replaced at once, and
/// again not before this.
pub(crate) const FRESH_FOR: Duration = Duration::from_secs(30);

/// A replica may be this much later than another one to load what the authority has become.
const REPLICA_LAG: Duration = Duration::from_secs(1);

/// How soon a certificate is replaced that is not under the first root, or is revoked.
#[derive(Debug)]
pub(super) struct RenewalPace {
    /// After requests that brought no better one, as of a replica that lags. Where no replica has
    /// the first root's issuer, the mesh must not request certificates for ever.
    lag: Backoff,
    /// The end of the last such wait.
    not_before: Option<Instant>,
}

impl RenewalPace {
    const fn new() -> Self {
        Self {
            lag: Backoff::new(REPLICA_LAG, FRESH_FOR),
            not_before: None,
        }
    }

    /// The certificate is as it is to be.
    pub(super) fn reset(&mut self) {
        self.lag.reset();
        self.not_before = None;
    }

    /// A time by chance within this one.
    pub(super) fn due(&self, within: Duration) -> Instant {
        let due = Instant::now() + within.mul_f64(rand::random());
        self.not_before.map_or(due, |soonest| due.max(soonest))
    }

    /// Another one is requested now.
    fn requested(&mut self) {
        self.not_before = Some(Instant::now() + self.lag.next_delay());
    }
}

impl Control {
    pub(super) async fn keep_certified(
        &self,
        certified: watch::Sender<bool>,
        contact: &watch::Sender<Contact>,
        unknown_authority: &Flag,
    ) {
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_LONGEST);
        let (mut last_refused, mut pace) = (None, RenewalPace::new());
        let mut newer = RenewalPace::new();
        loop {
            match self.certify(contact, unknown_authority).await {
                Ok(leaf) => {
                    let issued = self.clock.now();
                    let (since, end) = (leaf.not_before(), leaf.not_after());
                    self.certs.store(leaf);
                    // What was refused was the former one.
                    self.refused.take();
                    self.denied.take();
                    self.must_be_vouched_for();
                    self.reached(StartupStep::Certificate);
                    backoff.reset();
                    certified.send_replace(true);
                    let unix = end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                    self.config
                        .telemetry
                        .metrics
                        .certificate_expiry
                        .set(i64::try_from(unix).unwrap_or(i64::MAX));
                    let renew = identity::rotate::renew_at(issued, end, rand::random());
                    let renew = renew.max(issued + BACKOFF_FIRST);
                    let wait = renew.duration_since(issued).unwrap_or_default();
                    tracing::info!(
                        seconds = wait.as_secs(),
                        "certificate received, renewal planned"
                    );
                    let wait_for_unknown_authority = async {
                        sleep(FRESH_FOR).await;
                        unknown_authority.raised().await;
                    };
                    tokio::select! {
                        () = self.clock.sleep_until(renew) => {}
                        // Peers that know the time refuse it until then.
                        () = self.clock.back_before(since) => {}
                        () = wait_for_unknown_authority => {}
                        () = self.is_refused(last_refused) => {
                            last_refused = Some(Instant::now());
                            tracing::warn!("peers refuse the certificate, requesting another");
                        }
                        () = self.must_be_under_first_root(&mut pace) => {
                            pace.requested();
                            tracing::info!("the root is replaced, requesting another certificate");
                        }
                        () = self.must_be_newer(&mut newer) => {
                            newer.requested();
                            tracing::info!("the certificate is revoked or will be, requesting another");
                        }
                    }
                }
                Err(error) => {
                    self.config.telemetry.metrics.certificate_failures.inc();
                    tracing::warn!(%error, "no certificate from the controller, trying again");
                    sleep(backoff.next_delay()).await;
                }
            }
        }
    }

    /// Returns when the certificate in use is refused; not soon after `last`, when that happened
    /// before.
    async fn is_refused(&self, last: Option<Instant>) {
        if let Some(last) = last {
            sleep_until(last + FRESH_FOR).await;
            // It may be about the certificate before this one. If not, it comes again.
            self.refused.take();
            self.must_be_vouched_for();
        }
        self.refused.raised().await;
    }

    /// Returns when the certificate in use is to be replaced because it is not under the first root,
    /// at a time by chance within the one that the bundle has for this.
    async fn must_be_under_first_root(&self, pace: &mut RenewalPace) {
        let mut changes = self.renew_within.subscribe();
        let mut due: Option<Instant> = None;
        loop {
            let within = *changes.borrow_and_update();
            let is_under = self.is_under_first_root();
            if is_under {
                pace.reset();
            }
            due = match is_under || within.is_zero() {
                true => None,
                // Bundles that come one after the other put nothing off.
                false => {
                    let anew = pace.due(within);
                    Some(due.map_or(anew, |due| due.min(anew)))
                }
            };
            let changed = match due {
                None => changes.changed().await,
                Some(due) => match timeout_at(due, changes.changed()).await {
                    Ok(changed) => changed,
                    Err(_) => return,
                },
            };
            if changed.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Whether the first root alone vouches for the certificate in use.
    fn is_under_first_root(&self) -> bool {
        let (Some(leaf), Some(first)) = (
            self.certs.current(),
            self.roots.certificates().into_iter().next(),
        ) else {
            return true;
        };
        let first = Roots::new(&self.identity, vec![first]);
        let refused = first.map(|first| leaf.accepted_by(&first, self.clock.now()));
        !matches!(refused, Ok(Err(IdentityError::UnknownAuthority)))
    }

    /// Notes when peers with the same roots would refuse the certificate in use. One that is revoked
    /// is replaced where that helps.
    pub(super) fn must_be_vouched_for(&self) {
        let Some(leaf) = self.certs.current() else {
            return;
        };
        if let Err(error) = leaf.accepted_by(&self.roots, self.clock.now())
            && !matches!(error, IdentityError::Revoked { .. })
        {
            tracing::warn!(%error, "the roots in use do not vouch for the certificate");
            self.refused.raise();
        }
    }

    pub(super) async fn certify(
        &self,
        contact: &watch::Sender<Contact>,
        unknown_authority: &Flag,
    ) -> Result<Leaf, BoxError> {
        let token = tokio::fs::read_to_string(&self.controller.token_file)
            .await
            .map_err(|error| format!("{}: {error}", self.controller.token_file.display()))?;
        let key = LeafKey::generate()?;
        let csr = key.csr()?;
        let mounted = match unknown_authority.take() {
            true => self.mounted_roots().await,
            false => None,
        };
        let config = tls::bootstrap_client_config(
            mounted.as_ref().unwrap_or(&self.roots),
            self.controller.identity.clone(),
            &[H2_ALPN],
        );
        // A mounted bundle that is wrong must not be what is tried next time.
        let unknown_authority = Some(unknown_authority).filter(|_| mounted.is_none());
        let (channel, _) = self
            .channel(config, contact, unknown_authority, None)
            .await?;
        self.reached(StartupStep::Connection);
        let request = v1::CertifyRequest {
            token: token.trim().to_owned(),
            csr,
        };
        let answer = timeout(CERTIFY_WITHIN, ControlClient::new(channel).certify(request))
            .await
            .map_err(|_| "the controller took too long to issue a certificate")?
            .map_err(|status| self.denial(&status))?
            .into_inner();
        self.leaf(answer, &key)
    }

    /// The certificate of an answer. The roots in use judge it first: the stream brings their
    /// changes, and the replica that answers may lag behind the one that streams. Its own roots are
    /// taken only where its certificate needs them, and has no fault by them.
    fn leaf(&self, answer: v1::CertifyResponse, key: &LeafKey) -> Result<Leaf, BoxError> {
        let der = |all: Vec<Vec<u8>>| -> Vec<CertificateDer<'static>> {
            all.into_iter().map(CertificateDer::from).collect()
        };
        let chain = der(answer.chain);
        let by = |roots: &Roots| {
            let now = self.clock.now();
            Leaf::verified(chain.clone(), key, roots, &self.identity, now)
        };
        let refused = match by(&self.roots) {
            Err(refused @ BadLeaf::Refused(IdentityError::UnknownAuthority)) => refused,
            judged => return Ok(judged?),
        };
        let Ok(sent) = Roots::new(&self.identity, der(answer.roots)) else {
            return Err(refused.into());
        };
        let leaf = by(&sent)?;
        self.roots.replace(sent.certificates())?;
        Ok(leaf)
    }
}
