//! The certificate that this replica serves with. Issued by the mesh's own
//! authority, and kept in memory only.

use std::time::{Duration, SystemTime};

use identity::authority::LeafNames;
use identity::{CertHandle, Leaf, LeafKey, Roots, rotate};
use policy::name::SpiffeId;
use tokio::time::sleep;
use tracing::warn;

use crate::authority::{Authority, remaining};
use crate::metrics::AuthorityMetrics;

/// How often its remaining life is looked at.
const TICK: Duration = Duration::from_secs(60);
/// Pause after a failed renewal.
const RETRY: Duration = Duration::from_secs(2);

/// Keeps the certificate that this replica serves with, and shows to its peers.
/// Renewed as a proxy's is, and at once when the roots change.
pub async fn keep_serving(
    authority: Authority,
    identity: SpiffeId,
    ttl: Duration,
    handle: CertHandle,
    metrics: AuthorityMetrics,
) {
    let trusted = authority.ready().await;
    let mut roots = authority.roots_pem();
    let mut renew = SystemTime::now();
    loop {
        let now = SystemTime::now();
        if now >= renew {
            match own_leaf(&authority, &trusted, &identity, ttl, now) {
                Ok(leaf) => {
                    renew = rotate::renew_at(now, leaf.not_after(), rand::random());
                    handle.store(leaf);
                }
                Err(reason) => {
                    warn!(reason, "own certificate not renewed");
                    renew = now + RETRY;
                }
            }
        }
        if let Some(end) = handle.not_after() {
            metrics.serving_seconds.set(remaining(end, now));
        }
        let pause = renew.duration_since(now).unwrap_or_default();
        tokio::select! {
            () = sleep(pause.clamp(Duration::from_secs(1), TICK)) => {}
            changed = roots.changed() => match changed {
                Ok(()) => renew = SystemTime::now(),
                Err(_) => return,
            },
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
