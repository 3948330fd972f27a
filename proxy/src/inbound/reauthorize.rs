//! Ends requests and connections that a change of the policy no longer allows.
//!
//! Claims: attack-29

use std::future::Future;
use std::time::{Duration, Instant};

use policy::reason::Reason;

use crate::config::snapshot::Snapshot;
use crate::failure::Failure;
use crate::inbound::authorize::{REVOKED, evaluate_request, needs_identity, refuses_bytes};
use crate::inbound::connection::Connection;
use crate::inbound::path::EvaluatedPath;

/// A request in flight that a change no longer allows may go on for this long.
const IN_FLIGHT_GRACE: Duration = Duration::from_secs(30);

/// A call that a change has taken the right to go on away from.
pub(super) fn no_longer_allowed(connection: &Connection) -> Failure {
    let proxy = &connection.proxy;
    let peer = connection.peer.as_ref();
    if peer.is_some_and(|peer| proxy.config.ends(peer)) {
        proxy.telemetry.metrics.revoked_refusals.inc();
        return Failure::refused(Reason::Revoked, REVOKED);
    }
    Failure::refused(Reason::NotAllowed, "the call is no longer allowed")
}

/// What `work` comes to, if it does before it is `over` and may no longer go on.
pub(super) async fn unless_over<T>(
    work: impl Future<Output = T>,
    over: impl Future<Output = ()>,
) -> Option<T> {
    tokio::select! {
        // An answer that came in time is one, however late that is seen.
        biased;
        done = work => Some(done),
        () = over => None,
    }
}

/// A request that was allowed.
#[derive(Debug)]
pub(crate) struct Allowed {
    pub(super) parts: http::request::Parts,
    /// By the policy of this revision.
    pub(super) policy_revision: u64,
    /// When it is over.
    pub(super) ends: Option<Instant>,
    /// Its caller's proxy may send it to another endpoint instead.
    pub(super) replaceable: bool,
}

/// Returns when this plaintext connection is no longer wanted. One that was never wanted
/// stays, so that each of its requests gets the reason.
pub(super) async fn plaintext_forbidden(connection: &Connection) {
    let mut changes = connection.proxy.config.policy_changes();
    let config = &connection.proxy.config;
    if needs_identity(connection, &config.snapshot()) {
        std::future::pending::<()>().await;
    }
    while !needs_identity(connection, &config.snapshot()) {
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Returns when a change of the policy after the revision `policy_revision` takes away what
/// that allowed. It may have come while the way to the application was being opened.
pub(super) async fn revoked(connection: &Connection, policy_revision: u64) -> Failure {
    let config = &connection.proxy.config;
    let mut changes = config.policy_changes_since(policy_revision);
    loop {
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        let snapshot = config.snapshot();
        if let Err(distrusted) = connection.vouched_for(&snapshot) {
            return Failure::refused(Reason::NotAllowed, distrusted.to_string());
        }
        if let Err(failure) = refuses_bytes(connection, &snapshot) {
            return failure;
        }
    }
}

/// Returns when a request that was allowed may go on no longer: a while after it would be refused,
/// or at once when the certificate of its caller is revoked.
pub(super) async fn over(connection: &Connection, allowed: &Allowed) {
    revoked_request(connection, allowed).await;
    // On the heap: hardly any request comes to this.
    Box::pin(async {
        tokio::select! {
            () = tokio::time::sleep(IN_FLIGHT_GRACE) => {}
            () = certificate_revoked(connection) => {}
        }
    })
    .await;
}

/// Returns when the certificate of the caller is revoked for good.
async fn certificate_revoked(connection: &Connection) {
    let config = &connection.proxy.config;
    let not_revoked = |now: &Snapshot| match connection.revoked_for_good(now) {
        None => Ok(()),
        Some(_) => Err(()),
    };
    config.until_refused(not_revoked).await
}

/// Returns when a request that was allowed would be refused by now. Rules that came
/// since see the same form of its path as those that allowed it, and where its slashes can
/// be read in several ways they have to let it pass as it was sent on.
pub(super) async fn revoked_request(connection: &Connection, allowed: &Allowed) {
    let (config, parts) = (&connection.proxy.config, &allowed.parts);
    let mut changes = config.policy_changes_since(allowed.policy_revision);
    loop {
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        let path = EvaluatedPath::of(parts);
        let snapshot = config.snapshot();
        let passes = evaluate_request(connection, &snapshot, parts, &path).is_ok_and(|evaluated| {
            let stays = evaluated.replaced.is_none() || !path.forms().has_odd_slashes();
            evaluated.verdict.is_allowed() && stays
        });
        if !passes {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::sleep;

    use super::{IN_FLIGHT_GRACE, unless_over};

    /// As where the process stood still: both are there when it is looked.
    #[tokio::test(start_paused = true)]
    async fn response_in_time_is_forwarded_even_if_noticed_late() {
        for _ in 0..64 {
            let done = unless_over(sleep(IN_FLIGHT_GRACE), sleep(IN_FLIGHT_GRACE)).await;
            assert_eq!(done, Some(()));
        }
        let long = || sleep(IN_FLIGHT_GRACE * 2);
        assert_eq!(unless_over(long(), sleep(IN_FLIGHT_GRACE)).await, None);
        assert_eq!(unless_over(long(), pending()).await, Some(()));
    }
}
