//! Follows a kind that another project defines, in the newest version that the API server serves.
//!
//! A version that is not served is answered with 404, as is one of a group that nothing defines.
//! An API server that still loads its definitions answers 503 instead, so where every version is
//! answered with 404 the kind is empty at once. Its objects are kept for a while when that happens
//! later: definitions are replaced by deleting and creating them, too.

use std::time::Duration;

use crds::item::Item;
use kube::{
    Api, Client,
    api::ListParams,
    core::{ApiResource, DynamicObject},
};
use model::{translate::Unusable, world::Fact};
use tokio::time::{Instant, sleep};
use tracing::info;

use super::reading::{Ended, Followed, Reading};

/// Between two tries of a kind of which no version is served. A user who installs the definitions
/// waits as long, and four kinds make about one call in two seconds.
pub(super) const AGAIN: Duration = Duration::from_secs(10);
/// Between two tries of the versions that are newer than the one that is followed.
pub(super) const NEWER: Duration = Duration::from_secs(60);

/// Follows the kind in one of these versions, of which the first is the newest, until nothing
/// collects any more.
pub(super) async fn follow_served<T, F>(
    client: Client,
    versions: &[ApiResource],
    reading: &Reading<T, F>,
) where
    T: Fact,
    F: Fn(DynamicObject) -> Result<T, Unusable> + Send + Sync,
{
    let mut followed = Followed::new(&reading.kind, &reading.outages);
    followed.has_versions = true;
    let mut at = 0;
    loop {
        let Some(version) = versions.get(at) else {
            // None is served.
            if let Some(step) = followed.absent(Duration::ZERO)
                && !reading.take(step).await
            {
                return;
            }
            sleep(AGAIN).await;
            at = 0;
            continue;
        };
        let api = Api::all_with(client.clone(), version);
        let ended = tokio::select! {
            ended = reading.follow(api, &mut followed) => ended,
            newer = newer_served(&client, &versions[..at]) => {
                let (kind, version) = (&reading.kind, &versions[newer].version);
                info!(%kind, %version, "a newer version of this kind is served now");
                at = newer;
                continue;
            }
        };
        match ended {
            Ended::Uncollected => return,
            // It was served until now: its definition may have got a newer version instead.
            Ended::NotServed if followed.absent_since.is_none() => {
                followed.absent_since = Some(Instant::now());
                at = 0;
            }
            Ended::NotServed => at += 1,
        }
    }
}

/// Returns when one of these versions is served, and which; never if there are none.
async fn newer_served(client: &Client, versions: &[ApiResource]) -> usize {
    if versions.is_empty() {
        std::future::pending::<()>().await;
    }
    loop {
        sleep(NEWER).await;
        for (at, version) in versions.iter().enumerate() {
            let api: Api<Item<DynamicObject>> = Api::all_with(client.clone(), version);
            if api.list(&ListParams::default().limit(1)).await.is_ok() {
                return at;
            }
        }
    }
}
