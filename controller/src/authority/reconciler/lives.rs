//! Reports how long the root and the issuer of the authority still last: as metrics, and as an
//! Event where one ends soon that should have been replaced.

use std::time::{Duration, SystemTime};

use super::{DAY, Reconciler};
use crate::authority::{remaining, seconds};

/// An Event warns when a root has less than this.
const ROOT_WARNING: Duration = DAY.saturating_mul(180);
/// An Event warns when the issuer has less than this: ten days after it should
/// have been replaced.
const ISSUER_WARNING: Duration = DAY.saturating_mul(20);

impl Reconciler {
    pub(super) fn measure(&self, now: SystemTime) {
        let Some(loaded) = self.authority.loaded() else {
            self.metrics.issuer_seconds.set(0);
            return;
        };
        let issuer = remaining(loaded.issuer.not_after(), now);
        self.metrics.issuer_seconds.set(issuer);
        let root = loaded
            .root
            .as_ref()
            .map(|root| remaining(root.not_after(), now));
        if let Some(root) = root {
            self.metrics.root_seconds.set(root);
        }
        if !self.leadership.is_held() {
            return;
        }
        // Of a short life the end is always near.
        let soon = |most: Duration, begins: SystemTime, ends: SystemTime| {
            let life = ends.duration_since(begins).unwrap_or_default();
            seconds(most.min(life / 9 * 2))
        };
        let of_issuer = &loaded.issuer;
        if issuer
            < soon(
                ISSUER_WARNING,
                of_issuer.not_before(),
                of_issuer.not_after(),
            )
        {
            self.warn(
                "IssuerEnds",
                "the issuer of the mesh's certificates ends soon and has not been replaced",
            );
        }
        let of_root = loaded.root.as_ref().filter(|of_root| {
            let soon = soon(ROOT_WARNING, of_root.not_before(), of_root.not_after());
            root.is_some_and(|root| root < soon)
        });
        if of_root.is_some() {
            self.warn(
                "RootEnds",
                "the root of the mesh's certificates ends soon and has not been replaced: see what \
                 CertificateAuthority weft waits for",
            );
        }
    }
}
