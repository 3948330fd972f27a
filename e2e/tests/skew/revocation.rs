//! A Revocation beside proxies of the version before, and a rollback while it is there.
//!
//! Claims: trust-12b

use anyhow::{Context as _, ensure};
use e2e::harness::{Cluster, Outcome, Pod, eventually, mesh};

use super::{
    SOON,
    altered::Altered,
    previous::Previous,
    shop::{Shop, nothing_lost},
    url,
};

const REVOKED: &str = "skew-revocation";

/// Takes the Revocation away with the test.
struct Lifted<'a>(&'a Cluster);

impl Drop for Lifted<'_> {
    fn drop(&mut self) {
        let delete = ["delete", "revocations.weft.dev", REVOKED];
        let words = [&delete[..], &["--ignore-not-found"]].concat();
        if let Err(error) = self.0.kubectl(&words) {
            eprintln!("Revocation {REVOKED} stays: {error:#}");
        }
    }
}

#[test]
fn older_proxies_beside_revocation_lose_nothing_and_are_named() -> Outcome {
    let previous = Previous::prepared()?;
    let altered = Altered::begin()?;
    let cluster = Cluster::connect()?;
    previous.install(&cluster)?;
    let shop = Shop::open(REVOKED)?;
    let (client, stranger) = (shop.ns.pod("client")?, shop.ns.pod("stranger")?);
    let load = shop.load(&client)?;
    mesh::install(&[])?;
    previous.is_gone(&cluster)?;
    // A newer server beside an older one, and a newer caller.
    let second = shop.renew("second")?;
    shop.ns.run(&["newcomer"])?;
    let newcomer = shop.ns.pod("newcomer")?;
    shop.admit(&["client", "newcomer"])?;
    shop.works(&newcomer, &stranger)?;

    let lifted = Lifted(&cluster);
    let revoke = ["identity", "revoke", "sa/newcomer", "-n", &shop.ns.name];
    let named = ["--reason", "a test", "--id", REVOKED];
    let revoke = [&revoke[..], &named].concat();
    cluster.weft(&revoke)?.with_status(0)?;
    is_refused(&newcomer)?;
    is_programmed(&previous, &cluster, &client, &second)?;
    shop.works(&client, &stranger)?;

    if !previous.knows_revocations {
        // Controllers without this kind send none: it holds no longer, and again later.
        previous.roll_back(&cluster)?;
        is_served(&newcomer)?;
        shop.works(&client, &stranger)?;
        mesh::install(&[])?;
        previous.is_gone(&cluster)?;
        is_refused(&newcomer)?;
    }
    drop(lifted);
    is_served(&newcomer)?;
    nothing_lost(&load.end()?)?;
    altered.restore()?;
    Ok(())
}

/// By a server of each version, since the caller's own proxy refuses first.
fn is_refused(newcomer: &Pod) -> anyhow::Result<()> {
    for server in ["first", "second"] {
        let target = url(server, 8080, "/");
        eventually(SOON, "the revoked account is refused", || {
            newcomer.refused(&target, &[], 403, "revoked")
        })?;
    }
    Ok(())
}

fn is_served(newcomer: &Pod) -> anyhow::Result<()> {
    eventually(SOON, "the account is served", || {
        newcomer.report(&url("shop", 8080, "/"), &[]).map(drop)
    })
}

/// The object says of the older proxy, and not of the newer one, that it is too old.
fn is_programmed(
    previous: &Previous,
    cluster: &Cluster,
    older: &Pod,
    newer: &Pod,
) -> anyhow::Result<()> {
    let message = eventually(SOON, "the Revocation names the older proxy", || {
        let found = cluster.json(&["get", "revocations.weft.dev", REVOKED])?;
        let conditions = found["status"]["conditions"].as_array();
        let conditions = conditions.context("no conditions")?;
        let programmed = conditions.iter().find(|one| one["type"] == "Programmed");
        let programmed = programmed.context("no Programmed")?;
        let message = programmed["message"].as_str().unwrap_or_default();
        let reason = match previous.knows_revocations {
            true => "Programmed",
            false => "ProxyTooOld",
        };
        ensure!(
            programmed["reason"] == reason
                && message.contains(&older.name) != previous.knows_revocations
                && !message.contains(&newer.name),
            "it is {programmed}"
        );
        Ok(message.to_owned())
    })?;
    println!("Revocation: {message}");
    Ok(())
}
