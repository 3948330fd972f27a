//! What a dry run says of an edge is what becomes of the calls over it, as the second reader
//! of the objects says of the world before a change and of the one after.
//!
//! Claims: observe-120

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use model::{
    PodId,
    explain::{CallerSet, Calls, ModelComparison},
};
use oracle::generate::{SHOP, policies, request};
use oracle::random::Random;
use oracle::seeds::seeds;
use oracle::{Call, Caller, Traffic, World};
use policy::access::passes::Effect;
use serde_json::{Value, json};

use super::mesh::Mesh;
use super::{more, show};

/// Worlds that are changed once, edges of each, and calls over each of these.
const WORLDS: u64 = 300;
const EDGES: usize = 8;
const CALLS: usize = 12;
/// Kinds that say which accounts may call which.
const ACCESS: [&str; 4] = [
    "TrafficTarget",
    "HTTPRouteGroup",
    "TCPRoute",
    "IdentityBinding",
];

// Claims: observability-15
#[test]
fn dry_run_predicts_call_outcome_of_each_edge() {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut otherwise = 0;
    for seed in seeds(WORLDS * more() as u64) {
        let mut random = Random::new(seed + 7_000_000);
        let before = World::random(&mut random);
        let after = changed(&mut random, &before);
        let (first, second) = (Mesh::new(&before), Mesh::new(&after));
        let until = Instant::now() + Duration::from_secs(600);
        let mut comparison = ModelComparison::new(first.model(), second.model(), until);
        for at in 0..EDGES {
            let world = if at % 2 == 0 { &before } else { &after };
            let call = world.random_call(&mut random, &SHOP);
            // Such bytes are never served, so there is no such edge.
            if call.traffic == Traffic::Bytes && first.carries_http(&call) {
                continue;
            }
            let meaning = comparison.of(&edge_of(&call)).unwrap();
            *seen.entry(format!("{:?}", meaning.effect)).or_default() += 1;
            for call in calls(&mut random, &call) {
                let (was, is) = (before.allows(&call), after.allows(&call));
                otherwise += usize::from(was != is);
                assert!(
                    agrees(meaning.effect, was, is),
                    "seed {seed}: the dry run says {meaning:?}, and {call:?} passed {was} and \
                     passes {is}; before:\n{}\nafter:\n{}",
                    show(&before),
                    show(&after)
                );
            }
        }
    }
    for (effect, least) in [
        ("Kept", 100),
        ("Allowed", 10),
        ("Depends", 10),
        ("Refused", 10),
    ] {
        let times = seen.get(effect).copied().unwrap_or_default();
        assert!(times >= least, "{effect}: {seen:?}");
    }
    assert!(otherwise >= 100, "{otherwise} calls");
}

/// Whether that may become of a call over an edge of which this is said.
fn agrees(effect: Effect, was: bool, is: bool) -> bool {
    match effect {
        Effect::Kept => was == is,
        Effect::Allowed => is,
        Effect::Refused => !is,
        Effect::Depends => true,
    }
}

/// The two ends of a call.
fn edge_of(call: &Call) -> Calls {
    let from = match &call.caller {
        Caller::Outside => CallerSet::Outside,
        Caller::Pod { namespace, name } => CallerSet::Pods(vec![PodId::new(namespace, name)]),
    };
    Calls {
        from,
        service: None,
        port: call.port,
        to: vec![PodId::new(&call.namespace, &call.pod)],
        http: call.traffic != Traffic::Bytes,
    }
}

/// Calls between the same ends. Paths without a normal form are skipped: whether these pass depends
/// on whether any proxy looks at paths.
fn calls(random: &mut Random, like: &Call) -> Vec<Call> {
    if like.traffic == Traffic::Bytes {
        return vec![like.clone()];
    }
    let mut calls = vec![like.clone()];
    calls.extend((0..CALLS).map(|_| Call {
        traffic: Traffic::Http(request(random)),
        ..like.clone()
    }));
    calls.retain(|call| match &call.traffic {
        Traffic::Http(request) => policy::path::normalise(&request.path).is_ok(),
        Traffic::Bytes => false,
    });
    calls
}

fn is_of_access(object: &Value) -> bool {
    ACCESS.iter().any(|kind| object["kind"] == *kind)
}

/// The world after a likely change: another mode, an object less, or some more.
fn changed(random: &mut Random, world: &World) -> World {
    let mut after = world.clone();
    match random.below(3) {
        0 => {
            let mode = random.pick(&["deny", "auto", "open", "audit"]);
            let namespace = random.pick(SHOP.namespaces);
            for object in &mut after.objects {
                if object["kind"] == "Namespace" && object["metadata"]["name"] == namespace {
                    object["metadata"]["annotations"]["weft.dev/access"] = json!(mode);
                }
            }
        }
        1 => {
            let objects = after.objects.iter().enumerate();
            let indexes = objects.filter(|(_, object)| is_of_access(object));
            let indexes: Vec<usize> = indexes.map(|(index, _)| index).collect();
            if !indexes.is_empty() {
                after.objects.remove(indexes[random.below(indexes.len())]);
            }
        }
        _ => {
            let more = policies(random, &SHOP).into_iter();
            for object in more.filter(is_of_access) {
                let names = |one: &Value| {
                    let metadata = &one["metadata"];
                    (
                        one["kind"].clone(),
                        metadata["namespace"].clone(),
                        metadata["name"].clone(),
                    )
                };
                after
                    .objects
                    .retain(|existing| names(existing) != names(&object));
                after.objects.push(object);
            }
        }
    }
    after
}
