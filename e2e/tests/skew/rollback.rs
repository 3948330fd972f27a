//! This version's proxies with the controller of the version before: an upgrade that was taken
//! back, after which running pods keep the proxies that they have.
//!
//! Claims: calls-38

use e2e::harness::{Cluster, Outcome, mesh};

use super::{
    altered::Altered,
    previous::Previous,
    shop::{Shop, nothing_lost},
};

#[test]
fn rollback_keeps_newer_proxies_working_with_previous_controllers() -> Outcome {
    let previous = Previous::prepared()?;
    let altered = Altered::begin()?;
    let cluster = Cluster::connect()?;
    previous.install(&cluster)?;
    mesh::install(&[])?;
    previous.is_gone(&cluster)?;
    let shop = Shop::open("skew-rollback")?;
    let (client, stranger) = (shop.ns.pod("client")?, shop.ns.pod("stranger")?);
    shop.works(&client, &stranger)?;
    shop.policy()?;
    shop.programmed("Programmed", &[], &[])?;
    let load = shop.load(&client)?;

    previous.roll_back(&cluster)?;
    shop.works(&client, &stranger)?;
    // Pods that are made now have older proxies: a server under a newer caller, and a caller.
    shop.renew("second")?;
    shop.works(&client, &stranger)?;
    shop.ns.run(&["newcomer"])?;
    let newcomer = shop.ns.pod("newcomer")?;
    let noted = &newcomer.object["metadata"]["annotations"]["weft.dev/proxy-version"];
    assert_eq!(*noted, previous.number);
    shop.admit(&["client", "newcomer"])?;
    shop.works(&newcomer, &stranger)?;

    // What is said by a kind that the older version may not have is still there, and counts
    // again.
    mesh::install(&[])?;
    previous.is_gone(&cluster)?;
    let too_old = [&newcomer];
    let too_old = previous.too_old(&too_old);
    shop.programmed(previous.reason(), too_old, &[&client, &stranger])?;
    shop.works(&client, &stranger)?;
    nothing_lost(&load.end()?)?;
    shop.ns.kubectl(&["delete", "deployment", "newcomer"])?;
    shop.programmed("Programmed", &[], &[])?;
    altered.restore()?;
    Ok(())
}
