//! Divides shared rate limits into quota shares, on the replica with the Lease.
//!
//! Two replicas that did would exceed the limit, so a new Lease holder waits for the pods' reports
//! and uses a higher term number, by which the others know the valid shares.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, sleep};

use super::demand::demands;
use super::divide::Divider;
use super::registry::ShareRegistry;
use crate::latest_model::LatestModel;

/// Until every replica has sent a new holder what its pods hold.
const LISTEN: Duration = Duration::from_secs(3);
/// Between two looks at least: pods that come and go together are one change.
const PACE: Duration = Duration::from_millis(100);
/// Without any change: pods leave with time, and are offered this and then that.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Divides for as long as the Lease is held.
pub(crate) async fn lead(share_registry: ShareRegistry, mut latest: LatestModel) {
    sleep(LISTEN).await;
    let term = term(&share_registry);
    let mut changes = share_registry.in_use_changes();
    let mut divider = Divider::default();
    loop {
        changes.mark_unchanged();
        let compiled = latest.borrow_and_update().clone();
        if let Some(compiled) = compiled {
            let now = Instant::now();
            let demands = demands(&compiled.model.index);
            let mut messages = Vec::new();
            // No stream is opened to a pod that the model does not know, so none of those comes
            // back.
            for gone in share_registry.forget(now, |uid| compiled.pod_by_uid(uid).is_some()) {
                messages.extend(divider.remove_pod(&gone));
            }
            for (uid, of, number) in share_registry.taken_of(term) {
                messages.extend(divider.taken(&uid, &of, number));
            }
            let at = now.into_std();
            messages.extend(divider.update(at, &demands, &share_registry.pods()));
            messages.extend(divider.tick(at));
            if !messages.is_empty() {
                share_registry.give(term, messages);
            }
        }
        sleep(PACE).await;
        tokio::select! {
            changed = latest.changed() => if changed.is_err() { return },
            changed = changes.changed() => if changed.is_err() { return },
            () = sleep(LOOK_EVERY), if !divider.is_empty() => {}
        }
    }
}

/// Later than any that gave something before.
fn term(share_registry: &ShareRegistry) -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    now.max(share_registry.term().saturating_add(1))
}
