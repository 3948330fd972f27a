//! Shares of limits that all pods of a Service keep together, as they come on the stream.
//!
//! Claims: calls-66

use std::collections::BTreeMap;

use policy::access::Caller;
use policy::origin::Origin;
use policy::path::PathReadings;
use policy::route::{Match, Rule, Table};
use policy::traffic::guard::{LimitKey, LimitMode, LimitScope, RateLimit};
use policy::traffic::pod::{GuardPort, PodGuard};
use policy::traffic::{Scoped, Sources};
use wire::v1::to_proxy::Message;

use super::*;
use crate::config::guard::Arrival;

const MINUTE: Duration = Duration::from_secs(60);

const OUTSIDE: Arrival<'static> = Arrival {
    caller: Caller::Outside,
    client: None,
    request: None,
    path: PathReadings::One,
};

/// One limit of 100 a minute, as the controller sends it.
fn guard() -> v1::Resource {
    let limit = RateLimit {
        name: "all".into(),
        requests: 100,
        per: MINUTE,
        burst: 100,
        key: LimitKey::None,
        scope: LimitScope::Service,
        mode: LimitMode::Enforce,
    };
    let rule = Rule {
        origin: Origin::new("TrafficPolicy", "shop", "p").rule("all"),
        when: Match::Always,
        then: Some(Scoped {
            sources: Sources::Everyone,
            section: Arc::new(limit),
        }),
    };
    let port = GuardPort {
        rate_limits: Table {
            rules: vec![rule],
            otherwise: None,
        },
        ..GuardPort::default()
    };
    let guard = PodGuard {
        ports: BTreeMap::from([(80, port)]),
        read_only: None,
    };
    wire::version::stamp(v1::Resource {
        name: wire::names::GUARD.to_owned(),
        version: String::new(),
        content: Some(v1::resource::Content::Guard(v1::Guard::from(&guard))),
    })
}

fn share(thousandths: u64, number: u64) -> v1::Share {
    v1::Share {
        of: Some(v1::ShareOf {
            port: 80,
            origin: Some(v1::ObjectRef {
                kind: "TrafficPolicy".to_owned(),
                namespace: "shop".to_owned(),
                name: "p".to_owned(),
            }),
            limit: "all".to_owned(),
        }),
        thousandths,
        term: 7,
        number,
    }
}

/// How many requests pass at once.
fn passed(bench: &Bench) -> usize {
    let snapshot = bench.control.config.snapshot();
    let port = Arc::clone(snapshot.guard.as_ref().unwrap().port(80).unwrap());
    let now = tokio::time::Instant::now().into_std();
    let admitted = |_: &usize| port.admit(now, &OUTSIDE, |_| {}).is_ok();
    (0..200).filter(admitted).count()
}

/// Sends these shares, and waits for the response: of each share its number.
async fn send_shares(bench: &Bench, shares: Vec<v1::Share>, forget: bool) -> Vec<u64> {
    let before = bench.stand_in.taken.lock().len();
    bench
        .send_message(Message::Shares(v1::Shares { shares, forget }))
        .await;
    bench
        .until(|bench| bench.stand_in.taken.lock().len() > before)
        .await;
    let taken = bench.stand_in.taken.lock().last().cloned().unwrap();
    taken.taken.iter().map(|one| one.number).collect()
}

/// The reported load.
fn loads(bench: &Bench) -> Vec<v1::OfferedLoad> {
    let messages = bench.stand_in.messages.lock();
    let loads = messages
        .iter()
        .filter_map(|message| match &message.message {
            Some(v1::from_proxy::Message::OfferedLoads(loads)) => Some(loads.loads.clone()),
            _ => None,
        });
    loads.flatten().collect()
}

#[tokio::test]
async fn what_is_offered_is_said_anew_on_each_stream() {
    let bench = Bench::start(&Ca::new()).await;
    let nacks = bench.control.config.apply(v1::Batch {
        set: vec![guard()],
        ..v1::Batch::default()
    });
    assert!(nacks.is_empty(), "{nacks:?}");
    send_shares(&bench, vec![share(20_000, 3)], false).await;
    assert_eq!(passed(&bench), 20, "of two hundred");
    bench.until(|bench| !loads(bench).is_empty()).await;
    let [first] = &loads(&bench)[..] else {
        panic!("not one")
    };
    assert_eq!(first.of, share(0, 0).of);
    assert!(first.refused && first.thousandths >= 200_000, "{first:?}");
    let streams = bench.streams();
    bench.connections.lock().abort_all();
    bench.until(|bench| bench.streams() > streams).await;
    bench.until(|bench| loads(bench).len() > 1).await;
}

#[tokio::test]
async fn limit_share_outlasts_controllers_until_reassigned() {
    let bench = Bench::start(&Ca::new()).await;
    let nacks = bench.control.config.apply(v1::Batch {
        set: vec![guard()],
        ..v1::Batch::default()
    });
    assert!(nacks.is_empty(), "{nacks:?}");
    assert_eq!(passed(&bench), 1, "none was sent yet");
    assert_eq!(
        send_shares(&bench, vec![share(20_000, 3)], false).await,
        [3]
    );
    assert_eq!(passed(&bench), 19, "one has passed");

    let streams = bench.streams();
    bench.connections.lock().abort_all();
    pass(MINUTE).await;
    assert_eq!(passed(&bench), 20);
    bench.until(|bench| bench.streams() > streams).await;
    pass(MINUTE).await;
    assert_eq!(passed(&bench), 20, "it is still the pod's");

    pass(MINUTE).await;
    assert!(send_shares(&bench, Vec::new(), true).await.is_empty());
    assert_eq!(passed(&bench), 1);
    // With the next one comes nothing back that was used up.
    assert_eq!(send_shares(&bench, vec![share(10_000, 4)], true).await, [4]);
    assert_eq!(passed(&bench), 0);
    pass(MINUTE).await;
    assert_eq!(passed(&bench), 10);
}
