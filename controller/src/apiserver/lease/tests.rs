//! Which replica holds the Lease, and for how long.

use serde_json::json;

use super::*;
use crate::testing::api_server::FakeApi;

const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/mesh/leases/one";

fn elector(api: &FakeApi, me: &str) -> (LeaderElector, Leadership) {
    LeaderElector::new(api.client(), "mesh", "one", me)
}

#[tokio::test(start_paused = true)]
async fn first_candidate_holds_and_second_waits() {
    let api = FakeApi::default();
    let (mut a, a_leads) = elector(&api, "a");
    let (mut b, b_leads) = elector(&api, "b");
    a.step().await;
    b.step().await;
    assert!(a_leads.is_held());
    assert!(!b_leads.is_held());
}

#[tokio::test(start_paused = true)]
async fn stalled_lease_is_taken_over_after_its_duration() {
    let api = FakeApi::default();
    let (mut a, _a) = elector(&api, "a");
    let (mut b, b_leads) = elector(&api, "b");
    a.step().await;
    b.step().await;
    tokio::time::advance(DURATION - Duration::from_secs(1)).await;
    b.step().await;
    assert!(!b_leads.is_held(), "one second early");
    tokio::time::advance(Duration::from_secs(1)).await;
    b.step().await;
    assert!(b_leads.is_held());
    let record = api.read(PATH).unwrap();
    assert_eq!(record["spec"]["holderIdentity"], json!("b"));
    assert_eq!(record["spec"]["leaseTransitions"], json!(2));
}

#[tokio::test(start_paused = true)]
async fn lease_carries_holder_annotations_and_keeps_foreign_ones() {
    let api = FakeApi::default();
    let (a, _a) = elector(&api, "a");
    let (b, _b) = elector(&api, "b");
    let (mut a, mut b) = (a.annotated("domain", "old"), b.annotated("domain", "new"));
    let annotations = || api.read(PATH).unwrap()["metadata"]["annotations"].clone();
    a.step().await;
    b.step().await;
    assert_eq!(annotations(), json!({"domain": "old"}));
    let mut record = api.read(PATH).unwrap();
    record["metadata"]["annotations"]["owner"] = json!("another");
    api.put(PATH, record);
    a.release().await;
    b.step().await;
    assert_eq!(annotations(), json!({"domain": "new", "owner": "another"}));
}

#[tokio::test(start_paused = true)]
async fn renewal_by_the_holder_restarts_the_wait() {
    let api = FakeApi::default();
    let (mut a, _a) = elector(&api, "a");
    let (mut b, b_leads) = elector(&api, "b");
    a.step().await;
    b.step().await;
    tokio::time::advance(Duration::from_secs(8)).await;
    a.step().await;
    b.step().await;
    tokio::time::advance(Duration::from_secs(8)).await;
    b.step().await;
    assert!(!b_leads.is_held());
}

#[tokio::test(start_paused = true)]
async fn holder_whose_record_was_taken_stops_writing() {
    let api = FakeApi::default();
    let (mut a, a_leads) = elector(&api, "a");
    a.step().await;
    let mut record = api.read(PATH).unwrap();
    record["spec"]["holderIdentity"] = json!("b");
    api.put(PATH, record);
    a.step().await;
    assert!(!a_leads.is_held());
}

#[tokio::test(start_paused = true)]
async fn release_lets_the_next_candidate_in_at_once() {
    let api = FakeApi::default();
    let (mut a, a_leads) = elector(&api, "a");
    let (mut b, b_leads) = elector(&api, "b");
    a.step().await;
    b.step().await;
    a.release().await;
    assert!(!a_leads.is_held());
    b.step().await;
    assert!(b_leads.is_held());
}

// Claims: C4
#[tokio::test(start_paused = true)]
async fn uninstallation_releases_lease_and_cancelled_one_reacquires_it() {
    let api = FakeApi::default();
    let (mut a, leads) = elector(&api, "a");
    a.step().await;
    assert!(leads.is_held());
    let (stage, uninstallation) = watch::channel(Stage::Preparing);
    let running = tokio::spawn(a.run(std::future::pending(), uninstallation));
    sleep(Duration::from_secs(1)).await;
    assert!(leads.is_held(), "the job still needs the leader's work");
    stage.send_replace(Stage::Going);
    sleep(Duration::from_secs(1)).await;
    assert!(!leads.is_held());
    let (mut next, next_leads) = elector(&api, "next");
    next.step().await;
    assert!(next_leads.is_held(), "without a wait");
    next.release().await;
    stage.send_replace(Stage::Stayed);
    sleep(Duration::from_secs(1)).await;
    assert!(leads.is_held());
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn holder_without_renewal_stops_before_successor_may_start() {
    let api = FakeApi::default();
    let (mut a, a_leads) = elector(&api, "a");
    a.step().await;
    a.api = Api::namespaced(unreachable(), "mesh");
    let start = Instant::now();
    while a_leads.is_held() && start.elapsed() < DURATION {
        tokio::time::advance(Duration::from_secs(1)).await;
        a.step().await;
    }
    assert!(start.elapsed() <= RENEW_DEADLINE, "{:?}", start.elapsed());
}

/// Calls the API server again and again, as a loop of the holder does.
async fn work(client: Client) {
    let api: Api<LeaseObject> = Api::namespaced(client, "mesh");
    loop {
        let _ = api.get_opt("two").await;
        sleep(Duration::from_secs(2)).await;
    }
}

// Claims: B9
#[tokio::test(start_paused = true)]
async fn holder_with_unanswered_work_yields_lease_to_working_replica() {
    let (api, silent) = (FakeApi::default(), FakeApi::default());
    let (a, mut a_leads) = elector(&api, "a");
    let running = tokio::spawn(a.run(std::future::pending(), watch::channel(Stage::Stays).1));
    a_leads.acquired().await;
    let (b, mut b_leads) = elector(&api, "b");
    let b_running = tokio::spawn(b.run(std::future::pending(), watch::channel(Stage::Stays).1));
    let client = a_leads.client("status", &silent.client());
    tokio::spawn(a_leads.clone().while_leading(move || work(client.clone())));

    sleep(Duration::from_secs(300)).await;
    assert!(a_leads.is_held(), "work that is answered stalls nothing");
    silent.vanish(true);
    let start = Instant::now();
    timeout(Duration::from_secs(120), a_leads.lost())
        .await
        .expect("a stalled loop gives the lease up");
    timeout(Duration::from_secs(5), b_leads.acquired())
        .await
        .unwrap();
    assert_eq!(
        api.read(PATH).unwrap()["spec"]["holderIdentity"],
        json!("b")
    );
    assert!(
        start.elapsed() > Duration::from_secs(45),
        "one slow call is no stall"
    );

    // The holder of the lease keeps it now.
    silent.vanish(false);
    sleep(STAND_BACK * 2).await;
    assert!(!a_leads.is_held() && b_leads.is_held());
    running.abort();
    b_running.abort();
}

#[tokio::test(start_paused = true)]
async fn single_replica_reacquires_lease_and_restarts_work() {
    let (api, silent) = (FakeApi::default(), FakeApi::default());
    let (a, mut a_leads) = elector(&api, "a");
    tokio::spawn(a.run(std::future::pending(), watch::channel(Stage::Stays).1));
    let client = a_leads.client("status", &silent.client());
    tokio::spawn(a_leads.clone().while_leading(move || work(client.clone())));
    a_leads.acquired().await;
    silent.vanish(true);
    a_leads.lost().await;
    silent.vanish(false);
    timeout(STAND_BACK + LOOK_EVERY, a_leads.acquired())
        .await
        .unwrap();
    let reads = silent.reads("/apis/coordination.k8s.io/v1/namespaces/mesh/leases/two");
    sleep(Duration::from_secs(120)).await;
    assert!(a_leads.is_held());
    let more = silent.reads("/apis/coordination.k8s.io/v1/namespaces/mesh/leases/two");
    assert!(more > reads + 50, "{reads} then {more}");
}

fn unreachable() -> Client {
    Client::new(
        tower::service_fn(|_request: http::Request<kube::client::Body>| async {
            Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("away"))
        }),
        "default",
    )
}
