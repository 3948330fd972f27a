//! Breakers of the whole mesh: what a proxy reports of its calls, and what it receives.
//!
//! Claims: calls-68

use policy::breaker::own::Admit;
use policy::traffic::endpoint::Breaker;

use super::*;
use crate::endpoints::circuit::{Circuits, DecidedBy};
use crate::endpoints::learned::now;

/// What is known of calls to `shop/api:80`.
fn circuits(bench: &Bench) -> Arc<Circuits> {
    let name = wire::names::endpoints("shop", "api", 80);
    let endpoints = v1::resource::Content::Endpoints(v1::Endpoints::default());
    let nacks = bench.control.config.apply(v1::Batch {
        set: vec![v1::Resource {
            name: name.clone(),
            version: "1".to_owned(),
            content: Some(endpoints),
        }],
        ..v1::Batch::default()
    });
    assert!(nacks.is_empty(), "{nacks:?}");
    bench
        .control
        .config
        .registry
        .existing_circuits(&name)
        .unwrap()
}

#[tokio::test]
async fn proxy_reports_failures_and_obeys_fleet_state_until_expiry() {
    const SETTINGS: Breaker = Breaker::DEFAULT;
    let bench = Bench::start(&Ca::new()).await;
    let circuits = circuits(&bench);
    let by = DecidedBy {
        service: "shop/api".into(),
        port: 80,
    };
    assert_eq!(circuits.admit(&by, &SETTINGS).0, Admit::Pass);
    // Too few to decide alone.
    circuits.record(&by, &SETTINGS, now(), true);
    let breaker_reports = || bench.stand_in.breaker_reports.lock().clone();
    bench.until(|_| !breaker_reports().is_empty()).await;
    let first = breaker_reports()[0].clone();
    assert_eq!((first.sent, first.failed), (1, 1));
    let circuit = first.circuit.unwrap();
    assert_eq!(
        (&*circuit.service, &*circuit.backend, circuit.port),
        ("shop/api", "shop/api", 80)
    );
    let refuses = || circuits.admit(&by, &SETTINGS).0 == Admit::Refuse;
    bench.until(|_| refuses()).await;
    bench
        .until(|_| breaker_reports().iter().any(|one| one.refused > 0))
        .await;
    // The controllers that come afterwards know nothing of it.
    let streams = bench.streams();
    bench.connections.lock().abort_all();
    bench.until(|bench| bench.streams() > streams).await;
    pass(Duration::from_secs(10)).await;
    assert!(refuses());
    pass(Duration::from_secs(6)).await;
    assert!(!refuses());
}
