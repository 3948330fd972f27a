//! How soon every proxy has what a Revocation ends: one resource that is the same for all.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tokio::time::{sleep, timeout};
use wire::names::REVOCATIONS;
use wire::v1;
use wire::v1::resource::Content;

use crate::bench::Bench;
use crate::change_tracker::Change;
use crate::cluster::{self, Size};
use crate::figures::Delays;
use crate::fleet::Fleet;

const PATH: &str = "/apis/weft.dev/v1alpha1/revocations";
/// Objects, one after another.
const OBJECTS: usize = 20;
/// A pod of each Service whose proxy does not stream: no proxy of the fleet loses its own.
const REPLICA: usize = 1;
/// What has not arrived by then is lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// From one that is lifted to the next one.
const PAUSE: Duration = Duration::from_millis(500);

/// The figures of one size.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    pub(crate) objects: usize,
    pub(crate) lost: usize,
    /// From the write's return to each proxy's acknowledgement.
    pub(crate) each: Delays,
    /// From before the write to the last proxy's acknowledgement.
    pub(crate) last: Delays,
}

/// Revokes one pod after another, each for as long as it takes to reach every proxy.
pub(crate) async fn measure(bench: &Bench, fleet: &Fleet, size: &Size) -> Result<Figures> {
    bench.log_progress("revoking pods");
    let everyone: BTreeSet<usize> = (0..fleet.len()).collect();
    let change_tracker = fleet.change_tracker();
    for turn in 0..OBJECTS {
        let service = (turn * 7919) % size.services;
        let name = format!("bench-{turn}");
        let object = json!({"apiVersion": "weft.dev/v1alpha1", "kind": "Revocation",
        "metadata": {"name": name}, "spec": {
            "reason": "a measurement",
            "subjects": [{"pod": {
                "namespace": cluster::namespace_of(service),
                "name": cluster::pod_name(service, REPLICA),
            }}],
        }});
        let shown = name.clone();
        let shows = move |resource: &v1::Resource| shows(resource, &shown);
        change_tracker.expect(REVOCATIONS, everyone.clone(), Box::new(shows));
        bench.api.post(PATH, &object).await?;
        change_tracker.written(REVOCATIONS);
        let _ = timeout(PATIENCE, change_tracker.all_seen()).await;
        bench.api.delete(&format!("{PATH}/{name}")).await?;
        sleep(PAUSE).await;
    }
    let changes = change_tracker.take();
    Ok(Figures {
        objects: changes.len(),
        lost: changes.iter().map(Change::missed).sum(),
        each: Delays::of_seconds(changes.iter().flat_map(Change::delays)),
        last: Delays::of_seconds(changes.iter().filter_map(Change::whole)),
    })
}

/// Whether the resource has a subject of the Revocation of this name.
fn shows(resource: &v1::Resource, name: &str) -> bool {
    let Some(Content::Revocations(all)) = &resource.content else {
        return false;
    };
    all.revocations.iter().any(|one| {
        let by = one.origin.as_ref().is_some_and(|by| by.name == name);
        by && !one.subjects.is_empty()
    })
}
