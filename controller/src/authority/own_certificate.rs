//! The controller's own serving certificate, issued by the mesh's authority and kept in memory
//! only.

use std::pin::pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use identity::authority::LeafNames;
use identity::{CertHandle, Leaf, LeafKey, Roots, rotate};
use policy::name::SpiffeId;
use runtime::clock::{Clock, LOOK_EVERY};
use tokio::time::sleep;
use tracing::warn;

use crate::authority::{Authority, remaining};
use crate::metrics::AuthorityMetrics;

/// Pause after a failed renewal.
const RETRY: Duration = Duration::from_secs(2);
/// Least time between two renewals.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// Keeps the certificate that this replica serves with, and shows to its peers.
/// Renewed as a proxy's is, and at once when the clock is set back before its begin, or when the
/// roots or the issuer change: a former issuer may be revoked, and proxies would refuse all that
/// it has signed.
pub(crate) async fn keep_serving(
    authority: Authority,
    identity: SpiffeId,
    ttl: Duration,
    handle: CertHandle,
    metrics: AuthorityMetrics,
    clock: Clock,
) {
    let trusted = authority.ready().await;
    let (mut roots, mut signing) = (authority.roots_pem(), authority.signing());
    loop {
        let now = clock.now();
        let (renew, since) = match own_leaf(&authority, &trusted, &identity, ttl, now) {
            Ok(leaf) => {
                let renew = rotate::renew_at(now, leaf.not_after(), rand::random());
                let since = leaf.not_before();
                handle.store(leaf);
                (renew, since)
            }
            Err(reason) => {
                warn!(reason, "own certificate not renewed");
                (now + RETRY, UNIX_EPOCH)
            }
        };
        // A life of no length would be renewed without a pause.
        let renew = renew.max(now + SHORTEST_PAUSE);
        let mut due = pin!(clock.sleep_until(renew));
        loop {
            if let Some(end) = handle.not_after() {
                metrics.serving_seconds.set(remaining(end, clock.now()));
            }
            tokio::select! {
                () = &mut due => break,
                () = clock.back_before(since) => break,
                () = sleep(LOOK_EVERY) => {}
                changed = roots.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                changed = signing.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
            }
        }
    }
}

fn own_leaf(
    authority: &Authority,
    roots: &Roots,
    identity: &SpiffeId,
    ttl: Duration,
    now: SystemTime,
) -> Result<Leaf, String> {
    let key = LeafKey::generate().map_err(|error| error.to_string())?;
    let csr = key.csr().map_err(|error| error.to_string())?;
    let names = LeafNames {
        spiffe: identity.clone(),
        pod_dns: None,
    };
    let issued = authority
        .issue(&csr, &names, now, ttl)
        .map_err(|refusal| refusal.to_string())?;
    Leaf::verified(issued.chain, &key, roots, identity, now).map_err(|error| error.to_string())
}
