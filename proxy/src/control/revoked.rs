//! Reacts to a Revocation of the own certificate: requests another one where that helps, and keeps
//! the pod unready while peers refuse the one in use.

use std::sync::Arc;
use std::time::Duration;

use identity::tls::Leaf;
use policy::origin::Origin;
use runtime::ready::Ready;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status};

use crate::config::store::Store;
use crate::control::Control;
use crate::control::certificate::RenewalPace;

/// A certificate is replaced within this, at a time by chance: all pods of an account may have to
/// do so, and a Revocation is announced only seconds before it is in force.
const RENEW_WITHIN: Duration = Duration::from_secs(1);

/// What the pod waits for, as `/ready` shows it.
const NOT_REVOKED: &str = "a certificate that is not revoked";

/// What a controller's refusal of a stream begins with, whose proxy has a certificate that is
/// revoked.
const REVOKED: &str = "the certificate is revoked";
/// What stands between the Revocation and the pod where a controller refuses a certificate for it.
const REVOKES: &str = " revokes pod ";

impl Control {
    /// What the controller did, and why. Where that is a Revocation that did not reach this proxy,
    /// since its stream was down, another certificate may do than the one that was `shown`. Where
    /// none is issued, the one in use counts as revoked, as if that had reached this proxy.
    pub(super) fn refusal(&self, did: &str, status: &Status, shown: Option<&Leaf>) -> String {
        let message = status.message();
        let is_revoked = status.code() == Code::PermissionDenied && message.starts_with(REVOKED);
        let current = self.certs.current();
        let is_in_use = current.as_deref().map(Leaf::serial) == shown.map(Leaf::serial);
        if is_revoked && is_in_use && self.config.own_revoked().is_none() {
            match shown.filter(|_| self.denied.take()) {
                Some(leaf) => self.config.revoke_own(leaf, revocation_in(message)),
                None => self.refused.raise(),
            }
        }
        format!("the controller {did}: {message}")
    }

    /// Notes why the controller issues no certificate.
    pub(super) fn denial(&self, status: &Status) -> String {
        let message = status.message();
        if status.code() == Code::PermissionDenied && message.contains(REVOKES) {
            self.denied.raise();
        }
        format!("the controller refused a certificate: {message}")
    }

    /// Returns when the certificate in use is to be replaced, as it is or will be revoked and one
    /// that is issued now is not.
    pub(super) async fn must_be_newer(&self, pace: &mut RenewalPace) {
        let mut changes = self.config.policy_changes();
        let mut due: Option<Instant> = None;
        loop {
            due = if self.config.own_is_outdated() {
                // Changes that come one after the other put nothing off.
                let anew = pace.due(RENEW_WITHIN);
                Some(due.map_or(anew, |due| due.min(anew)))
            } else {
                pace.reset();
                None
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
}

/// The object that a refusal names last.
fn revocation_in(message: &str) -> Origin {
    let name = message.rsplit(' ').next().unwrap_or_default();
    Origin::new("Revocation", "", name)
}

/// Keeps the pod unready while its certificate is revoked: peers refuse it, as caller and called.
pub(crate) async fn follow_revocation(
    ready: Ready,
    config: Arc<Store>,
    mut certified: watch::Receiver<bool>,
) {
    let mut changes = config.policy_changes();
    let mut hold = None;
    loop {
        match config.own_revoked() {
            Some(by) if hold.is_none() => {
                let revocation = by.name();
                tracing::warn!(%revocation, "the certificate of this pod is revoked");
                hold = Some(ready.hold(NOT_REVOKED));
            }
            None if hold.is_some() => {
                tracing::info!("the certificate of this pod is not revoked any more");
                hold = None;
            }
            _ => {}
        }
        let changed = tokio::select! {
            changed = changes.changed() => changed,
            changed = certified.changed() => changed,
        };
        if changed.is_err() {
            // The sender has ended; what was true last stays.
            std::future::pending::<()>().await;
        }
    }
}
