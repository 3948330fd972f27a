//! The reasons why the controller ends the control stream of a proxy.
//!
//! One of these reasons is that the certificate by which it was opened is revoked. Its proxy is
//! first sent what is revoked, so that it reports why, and requests another certificate where that
//! helps.

use std::time::Duration;

use identity::PeerIdentity;
use model::compiled::Compiled;
use policy::origin::Origin;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

use crate::latest_model::LatestModel;

/// From when a certificate is known to be revoked until the streams that it opened end.
const REVOKED: Duration = Duration::from_secs(1);

/// Why a stream ends without the proxy's doing.
pub(super) enum StreamEnd {
    /// In order; the proxy opens another.
    Over,
    Refused(Status),
}

impl From<Status> for StreamEnd {
    fn from(refusal: Status) -> Self {
        Self::Refused(refusal)
    }
}

impl From<watch::error::RecvError> for StreamEnd {
    /// What the stream follows ends with the process.
    fn from(_: watch::error::RecvError) -> Self {
        Self::Over
    }
}

/// The status of a stream that another one of its pod replaces.
pub(super) fn taken_over() -> Status {
    Status::aborted("newer streams of this pod have taken over")
}

/// The status of a stream whose proxy has a certificate that is revoked; `None` if it is not.
pub(super) fn revoked(compiled: &Compiled, identity: &PeerIdentity) -> Option<Status> {
    let revocations = &compiled.model.index.revocations;
    revocations.revoked(&identity.facts()).map(status)
}

fn status(by: &Origin) -> Status {
    Status::permission_denied(format!("the certificate is revoked by {by}"))
}

/// The peer of a stream, and when its stream ends because its certificate is revoked.
#[derive(Debug)]
pub(super) struct RevokedPeer<'a> {
    identity: &'a PeerIdentity,
    ends: Option<(Instant, Origin)>,
}

impl<'a> RevokedPeer<'a> {
    pub(super) fn new(identity: &'a PeerIdentity) -> Self {
        Self {
            identity,
            ends: None,
        }
    }

    /// Follows the newest model.
    pub(super) fn look(&mut self, latest: &LatestModel, now: Instant) {
        let latest = latest.borrow();
        let revocations = latest.as_ref().map(|one| &one.model.index.revocations);
        let by = revocations.and_then(|all| all.revoked(&self.identity.facts()));
        let ends = self.ends.take().map_or(now + REVOKED, |(at, _)| at);
        self.ends = by.map(|by| (ends, by.clone()));
    }

    /// When the stream ends, if its certificate is revoked.
    pub(super) fn ends_at(&self) -> Option<Instant> {
        self.ends.as_ref().map(|(at, _)| *at)
    }

    /// # Errors
    /// Once the stream has to end.
    pub(super) fn must_go_on(&self, now: Instant) -> Result<(), Status> {
        match &self.ends {
            Some((at, by)) if now >= *at => Err(status(by)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use identity::verify::{AuthorityId, PeerCertificate};
    use model::Model;
    use model::fixtures::{Cluster, revocation, shop};
    use model::world::World;
    use policy::name::SpiffeId;
    use serde_json::json;

    use super::*;

    fn of(cluster: &Cluster) -> LatestModel {
        let world: World = cluster.world();
        let (model, problems) = Model::compile(&world, &model::Defaults::default());
        let compiled = Compiled::new(Arc::new(world), model, problems);
        watch::channel(Some(Arc::new(compiled))).1
    }

    fn identity(account: &str) -> PeerIdentity {
        let now = SystemTime::now();
        PeerIdentity {
            spiffe: SpiffeId::of("cluster.local", "shop", account).unwrap(),
            pod_dns: None,
            certificate: Arc::new(PeerCertificate {
                authority: AuthorityId::from([7; 16]),
                serial: [1].into(),
                issued: now,
                not_after: now,
            }),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn stream_of_revoked_certificate_ends_after_a_moment() {
        let spec = json!({"reason": "test", "subjects": [
            {"serviceAccount": {"namespace": "shop", "name": "web"}}]});
        let latest = of(&shop().with(revocation("leak", spec)));
        let (web, api, now) = (identity("web"), identity("api"), Instant::now());
        let mut other = RevokedPeer::new(&api);
        other.look(&latest, now);
        assert_eq!(other.ends_at(), None);
        let mut peer = RevokedPeer::new(&web);
        peer.look(&latest, now);
        let ends = now + REVOKED;
        // A look later puts nothing off.
        peer.look(&latest, now + REVOKED / 2);
        assert_eq!(peer.ends_at(), Some(ends));
        assert!(peer.must_go_on(now).is_ok());
        let refused = peer.must_go_on(ends).unwrap_err();
        assert_eq!(
            refused.message(),
            "the certificate is revoked by Revocation leak"
        );
        peer.look(&of(&shop()), ends);
        assert!(peer.must_go_on(ends).is_ok(), "it was deleted");
    }
}
