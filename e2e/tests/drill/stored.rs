//! The Secret of the authority is restored from a backup, and certificates end while no controller
//! is there.
//!
//! Claims: trust-11

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use e2e::harness::{
    Cluster, Outcome,
    authority::{self, install_rotatable, without_controllers},
    eventually, mesh,
};

use super::{
    ENDED, SETTLE,
    altered::{Altered, own_ready, scale},
    sound::{data_of, is_sound},
    town::{BACK, Town},
};

const SECRET: &str = "/api/v1/namespaces/weft-system/secrets/weft-ca";
/// Life of a certificate, and until all of them have ended.
const LIFE: &str = "identity.leafTtl=30s";
const LIVED: Duration = Duration::from_secs(120);

#[test]
fn restored_secret_is_written_back_without_a_lost_request() -> Outcome {
    let altered = Altered::begin()?;
    let town = Town::open("drill-restored")?;
    let cluster = town.cluster();
    install_rotatable(cluster, &[SETTLE])?;
    let former = authority::root(cluster)?;
    let backup = data_of(cluster, "weft-ca")?;
    cluster.weft(&["identity", "rotate"])?.with_status(0)?;
    let root = authority::ended(cluster, ENDED, "Generated", &former)?;
    let now = data_of(cluster, "weft-ca")?;
    let loads = town.begin()?;
    let mut object = town.api.read(SECRET)?;
    object["data"] = backup;
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("resourceVersion");
    }
    town.api.replace(SECRET, &object)?;
    let restored = Instant::now();
    eventually(BACK, "the controllers have written theirs back", || {
        let data = data_of(cluster, "weft-ca")?;
        ensure!(data["root.crt"] == now["root.crt"], "root.crt is another");
        ensure!(data["root.key"] == now["root.key"], "root.key is another");
        Ok(())
    })?;
    println!("written back within {:?}", restored.elapsed());
    eventually(BACK, "an Event says so", || is_reported(cluster))?;
    let kept = authority::root(cluster)?;
    assert_eq!(kept, root, "another root signs");
    town.nothing_lost("a backup of weft-ca was restored", loads)?;
    is_sound(&town)?;
    altered.restore()?;
    Ok(())
}

fn is_reported(cluster: &Cluster) -> anyhow::Result<()> {
    let events = ["get", "events", "-A", "--field-selector"];
    let words = [&events[..], &["reason=AuthorityReverted"]].concat();
    let found = cluster.json(&words)?;
    let events = found["items"].as_array().context("no list")?;
    let event = events.first().context("there is none")?;
    println!("AuthorityReverted: {}", event["message"]);
    Ok(())
}

/// Without a certificate no call is made, in plaintext neither.
#[test]
fn ended_certificates_are_renewed_within_30_s_of_controllers() -> Outcome {
    let altered = Altered::begin()?;
    mesh::install(&[LIFE])?;
    let town = Town::open("drill-ended")?;
    let cluster = town.cluster();
    without_controllers(cluster)?;
    eventually(LIVED, "no call is answered", || town.none_is_served())?;
    scale(cluster, &["deployment/weft-controller"], 2)?;
    own_ready(cluster)?;
    let back = Instant::now();
    town.is_back("all certificates had ended", back)?;
    town.serves("the proxy aside", back, &town.aside)?;
    let loads = town.begin()?;
    std::thread::sleep(Duration::from_secs(10));
    town.nothing_lost("after the return of the controllers", loads)?;
    is_sound(&town)?;
    altered.restore()?;
    Ok(())
}
