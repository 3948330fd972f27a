//! Proxies of the version before with this controller: an upgrade, after which running pods
//! keep the proxies that they have until they are restarted.
//!
//! Claims: calls-38

use anyhow::ensure;
use e2e::harness::{Cluster, Outcome, Pod, mesh};

use super::{
    altered::Altered,
    copies,
    previous::Previous,
    reported, routes,
    shop::{Shop, nothing_lost},
    url,
};

#[test]
fn upgrade_keeps_older_proxies_working_and_reports_unsupported_parts() -> Outcome {
    let previous = Previous::prepared()?;
    let altered = Altered::begin()?;
    let cluster = Cluster::connect()?;
    previous.install(&cluster)?;
    let shop = Shop::open("skew-upgrade")?;
    shop.ns.run(&["next", "keeper"])?;
    let (next, keeper) = (shop.ns.pod("next")?, shop.ns.pod("keeper")?);
    let (client, stranger) = (shop.ns.pod("client")?, shop.ns.pod("stranger")?);
    shop.works(&client, &stranger)?;
    let load = shop.load(&client)?;

    mesh::install(&[])?;
    previous.is_gone(&cluster)?;
    shop.works(&client, &stranger)?;
    let servers = [shop.ns.pod("first")?, shop.ns.pod("second")?];
    let older = [&client, &stranger, &servers[0], &servers[1]];
    reported::versions(&shop.ns, &previous, &older, &[])?;
    reported::checks_hold(&shop.ns)?;
    shop.policy()?;
    let callers = [&client, &stranger];
    shop.programmed(previous.reason(), previous.too_old(&callers), &[])?;

    // An older caller with a server of each version, then a newer caller with both.
    let first = shop.renew("first")?;
    shop.works(&client, &stranger)?;
    shop.ns.run(&["newcomer"])?;
    let newcomer = shop.ns.pod("newcomer")?;
    newcomer.refused(&url("shop", 8080, "/"), &[], 403, "not-allowed")?;
    shop.admit(&["client", "newcomer"])?;
    shop.works(&newcomer, &stranger)?;
    let older = [&client, &stranger, &servers[1]];
    reported::versions(&shop.ns, &previous, &older, &[&first, &newcomer])?;
    let too_old = previous.too_old(&callers);
    shop.programmed(previous.reason(), too_old, &[&newcomer])?;
    copies::are_no_requests(&shop, &previous, &newcomer, &next)?;
    shop.admit(&["client", "newcomer", "keeper"])?;
    routes::leave_older_callers_their_split(&shop, &previous, &keeper, &newcomer)?;
    shop.ns.kubectl(&["delete", "deployment", "keeper"])?;
    nothing_lost(&load.end()?)?;
    untouched(&shop, callers)?;

    let (client, stranger) = (shop.renew("client")?, shop.renew("stranger")?);
    shop.works(&client, &stranger)?;
    shop.programmed("Programmed", &[], &[])?;
    reported::versions(&shop.ns, &previous, &[], &[&client, &stranger, &newcomer])?;
    altered.restore()?;
    Ok(())
}

/// These pods are still those that the older version made.
fn untouched(shop: &Shop, pods: [&Pod; 2]) -> anyhow::Result<()> {
    for (pod, name) in pods.into_iter().zip(["client", "stranger"]) {
        let now = shop.ns.pod(name)?;
        ensure!(
            (now.name.as_str(), now.restarts()) == (pod.name.as_str(), 0),
            "{} is {} now, with {} restarts",
            pod.name,
            now.name,
            now.restarts()
        );
    }
    Ok(())
}
