//! Gets a certificate, and renews it well before its end by the wall clock, and at once
//! where that is set back before its begin. A failed renewal keeps the one that is held.

use std::time::{Duration, UNIX_EPOCH};

use identity::tls::{self, BadLeaf, H2_ALPN, Leaf};
use identity::{IdentityError, LeafKey, Roots};
use runtime::backoff::Backoff;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use wire::v1;
use wire::v1::control_client::ControlClient;

use crate::control::leaving::Contact;
use crate::control::{BACKOFF_FIRST, BACKOFF_LONGEST, BoxError, Control, UnknownAuthorityFlag};
use crate::telemetry::startup::StartupStep;

/// One request for a certificate.
const CERTIFY_WITHIN: Duration = Duration::from_secs(10);

/// How long a fresh certificate is not dropped for a controller of an unknown authority: of two
/// that disagree each would send us to the other.
pub(crate) const FRESH_FOR: Duration = Duration::from_secs(30);

impl Control {
    pub(super) async fn keep_certified(
        &self,
        certified: watch::Sender<bool>,
        contact: &watch::Sender<Contact>,
        unknown_authority: &UnknownAuthorityFlag,
    ) {
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_LONGEST);
        loop {
            match self.certify(contact, unknown_authority).await {
                Ok(leaf) => {
                    let issued = self.clock.now();
                    let (since, end) = (leaf.not_before(), leaf.not_after());
                    self.certs.store(leaf);
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

    pub(super) async fn certify(
        &self,
        contact: &watch::Sender<Contact>,
        unknown_authority: &UnknownAuthorityFlag,
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
        let channel = self.channel(config, contact, unknown_authority).await?;
        self.reached(StartupStep::Connection);
        let request = v1::CertifyRequest {
            token: token.trim().to_owned(),
            csr,
        };
        let answer = timeout(CERTIFY_WITHIN, ControlClient::new(channel).certify(request))
            .await
            .map_err(|_| "the controller took too long to issue a certificate")?
            .map_err(|status| {
                format!("the controller refused a certificate: {}", status.message())
            })?
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
