//! Sections of FaultExperiments, as the tests of policies on the wire make them.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use policy::fault::{Abort, Fault, HarmedPods, InjectedFailure, Selection};
use policy::share::Share;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

prop_compose! {
    pub(super) fn a_selection()(seed in any::<u64>(), share in 100u32..=1_000_000) -> Selection {
        Selection { seed, share: Share::of_millionths(share).unwrap() }
    }
}

fn an_injected_failure() -> impl Strategy<Value = InjectedFailure> {
    let abort = (400u16..600, option::of(1u8..=16)).prop_map(|(status, grpc_status)| Abort {
        http_status: StatusCode::from_u16(status).unwrap(),
        grpc_status,
    });
    prop_oneof![
        abort.prop_map(InjectedFailure::Abort),
        Just(InjectedFailure::Refuse),
        Just(InjectedFailure::Reset),
    ]
}

prop_compose! {
    pub(super) fn a_fault()(selection in a_selection(), wait in 1u64..=30_000,
        effects in (any::<bool>(), option::of(an_injected_failure())),
        pods in option::of(vec("[a-z]{1,9}", 0..3))) -> Arc<Fault> {
        let (delays, failure) = effects;
        let delay = (delays || failure.is_none()).then_some(Duration::from_millis(wait));
        let pods = pods.map(|uids| HarmedPods::new(uids.into_iter().map(Arc::from)));
        Arc::new(Fault { selection, delay, failure, pods })
    }
}
