//! Tests of validation with hostile objects: it does not panic, takes bounded time, and returns a
//! readable message.
//!
//! Claims: smi-7

use std::time::{Duration, Instant};

use oracle::{
    generate::{SHOP, hostile},
    random::Random,
    seeds::seeds,
};
use serde_json::json;

use super::*;

/// Objects to be judged.
const OBJECTS: u64 = 1_500;
/// For one object, without optimisation on a busy machine. The API server waits ten
/// seconds for a webhook.
const LONGEST: Duration = Duration::from_secs(5);

#[test]
fn any_object_is_validated_quickly_with_short_message() {
    let (mut refused, mut slowest) = (0, Duration::ZERO);
    for seed in seeds(OBJECTS) {
        let object = hostile(&mut Random::new(seed), &SHOP);
        let api_version = object["apiVersion"].as_str().unwrap();
        let (group, version) = api_version.split_once('/').unwrap();
        let request: Request = serde_json::from_value(json!({
            "uid": "u",
            "kind": {"group": group, "version": version, "kind": object["kind"]},
            "namespace": "shop", "name": "x", "operation": "CREATE",
            "object": object, "oldObject": null,
        }))
        .unwrap();
        let started = Instant::now();
        let answer = validate(&request, &Cluster::default());
        let took = started.elapsed();
        assert!(took < LONGEST, "seed {seed} took {took:?}");
        slowest = slowest.max(took);
        if let Some(message) = answer.refusal {
            refused += 1;
            assert!(
                message.len() < 20_000,
                "seed {seed}: {} bytes",
                message.len()
            );
        }
    }
    println!("{refused} of {OBJECTS} refused, slowest {slowest:?}");
    assert!((OBJECTS / 5..OBJECTS).contains(&refused), "{refused}");
}
