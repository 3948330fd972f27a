//! Trusted roots: the mounted file until there is a certificate, then what the controller sends.
//!
//! A proxy that missed the replacement of the roots cannot receive the new ones; then one
//! connection, which requests a certificate, trusts the mounted bundle as the first one of all
//! did.

use std::time::Duration;

use identity::Roots;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::control::Control;
use crate::control::leaving::{Contact, Facts, Leaving};

/// How often the trust bundle's file is read again.
pub(crate) const BUNDLE_EVERY: Duration = Duration::from_secs(2);

impl Control {
    /// The roots of the mounted bundle, where they are not those that are trusted
    /// anyway.
    pub(super) async fn mounted_roots(&self) -> Option<Roots> {
        let path = &self.controller.trust_bundle;
        let read = tokio::fs::read_to_string(path).await;
        let read = read.map_err(|error| error.to_string()).and_then(|bundle| {
            let roots = Roots::from_pem(&self.identity, &bundle);
            roots.map_err(|error| error.to_string())
        });
        match read {
            Ok(roots) if roots.certificates() == self.roots.certificates() => None,
            Ok(roots) => {
                tracing::warn!(
                    bundle = %path.display(),
                    "the controller's authority is unknown, asking for a certificate with the mounted trust bundle"
                );
                Some(roots)
            }
            Err(error) => {
                tracing::warn!(bundle = %path.display(), error, "the mounted trust bundle cannot be used");
                None
            }
        }
    }

    /// Takes the roots of a bundle, and within which time the own certificate is to be under the
    /// first of them.
    pub(super) fn trust(&self, roots: Vec<Vec<u8>>, renew_within: Duration) {
        if roots.is_empty() {
            return;
        }
        if let Err(error) = self
            .roots
            .replace(roots.into_iter().map(CertificateDer::from).collect())
        {
            tracing::warn!(%error, "the controller sent roots that cannot be used, keeping those before");
        }
        self.must_be_vouched_for();
        self.renew_within.send_replace(renew_within);
    }

    /// Until the first certificate the mounted file has the trusted roots; it also carries the
    /// mark that the mesh is going away.
    pub(super) async fn watch_bundle(
        &self,
        leaving: watch::Sender<Leaving>,
        mut contact: watch::Receiver<Contact>,
    ) {
        let mark = self.controller.trust_bundle.with_file_name("leaving");
        let mut last = String::new();
        loop {
            let marked = tokio::fs::read_to_string(&mark)
                .await
                .is_ok_and(|mark| mark.trim() == "true");
            let facts = Facts {
                marked,
                contact: *contact.borrow_and_update(),
                configured: self.config.snapshot().is_complete(),
                certificate_until: self.certs.not_after(),
            };
            let evaluated = facts.evaluate(self.clock.now());
            leaving.send_if_modified(|leaving| std::mem::replace(leaving, evaluated) != evaluated);
            if self.certs.current().is_none()
                && let Ok(bundle) = tokio::fs::read_to_string(&self.controller.trust_bundle).await
                && bundle != last
            {
                if let Err(error) = self.roots.replace_pem(&bundle) {
                    tracing::warn!(%error, "the trust bundle cannot be used");
                }
                last = bundle;
            }
            tokio::select! {
                () = sleep(BUNDLE_EVERY) => {}
                // A controller that answers outweighs the mark at once.
                Ok(()) = contact.changed() => {}
            }
        }
    }
}
