use super::*;
use crate::fake_api::FakeApi;
use crate::own_certificate::keep_serving;
use identity::verify::peer_identity;
use identity::{CertHandle, LeafKey};
use policy::name::SpiffeId;
use prometheus_client::metrics::counter::Counter;
use serde_json::{Value, json};

const PATH: &str = "/api/v1/namespaces/mesh/secrets/weft-ca";

fn keeper(api: &FakeApi, leads: bool) -> Keeper {
    let (events, _writer) = Events::new(api.client(), "me", Counter::default());
    Keeper {
        authority: Authority::default(),
        client: api.client(),
        namespace: "mesh".to_owned(),
        leadership: Leadership::fixed(leads),
        metrics: AuthorityMetrics::default(),
        events,
    }
}

fn key(api: &FakeApi, name: &str) -> Value {
    api.read(PATH).unwrap()["data"][name].clone()
}

fn can_sign(keeper: &Keeper, now: SystemTime) -> bool {
    let spiffe = SpiffeId::of("cluster.local", "shop", "web").unwrap();
    let csr = LeafKey::generate().unwrap().csr().unwrap();
    let names = LeafNames {
        spiffe: spiffe.clone(),
        pod_dns: None,
    };
    let issued = keeper
        .authority
        .issue(&csr, &names, now, Duration::from_secs(60));
    issued.is_ok_and(|issued| peer_identity(&issued.chain).is_ok_and(|peer| peer.spiffe == spiffe))
}

#[tokio::test]
async fn first_controller_makes_the_authority_and_the_second_uses_the_same() {
    let api = FakeApi::default();
    let now = SystemTime::now();
    let (a, b) = (keeper(&api, true), keeper(&api, false));
    a.step(now).await.unwrap();
    b.step(now).await.unwrap();
    assert!(can_sign(&a, now) && can_sign(&b, now));
    assert_eq!(a.authority.roots_der(), b.authority.roots_der());
    assert_eq!(api.writes().len(), 1);
}

#[tokio::test]
async fn loser_of_the_race_to_create_reads_what_the_winner_wrote() {
    let api = FakeApi::default();
    let now = SystemTime::now();
    let (a, b) = (keeper(&api, true), keeper(&api, false));
    a.step(now).await.unwrap();
    b.make(now).await.unwrap();
    assert_eq!(a.authority.roots_der(), b.authority.roots_der());
}

#[tokio::test]
async fn issuer_is_replaced_at_two_thirds_of_its_life_by_the_lease_holder_only() {
    let api = FakeApi::default();
    let start = SystemTime::now();
    let (holder, other) = (keeper(&api, true), keeper(&api, false));
    holder.step(start).await.unwrap();
    other.step(start).await.unwrap();
    let first = key(&api, ISSUER_CRT);

    let early = start + ISSUER_LIFE / 3 * 2 - DAY;
    holder.step(early).await.unwrap();
    assert_eq!(key(&api, ISSUER_CRT), first);

    let due = start + ISSUER_LIFE / 3 * 2 + DAY;
    other.step(due).await.unwrap();
    assert_eq!(key(&api, ISSUER_CRT), first, "not its task");
    holder.step(due).await.unwrap();
    assert_ne!(key(&api, ISSUER_CRT), first);

    other.step(due).await.unwrap();
    let after_the_first = start + ISSUER_LIFE + DAY;
    assert!(
        can_sign(&other, after_the_first),
        "the other replica has reloaded"
    );
}

#[tokio::test]
async fn broken_secret_does_not_replace_an_authority_that_works() {
    let api = FakeApi::default();
    let now = SystemTime::now();
    let keeper = keeper(&api, false);
    keeper.step(now).await.unwrap();
    let mut broken = api.read(PATH).unwrap();
    broken["data"][ISSUER_CRT] = json!("bm90IGEgY2VydGlmaWNhdGU=");
    api.put(PATH, broken);
    assert!(keeper.step(now).await.is_err());
    assert!(can_sign(&keeper, now));
}

#[tokio::test]
async fn broken_secret_at_the_start_means_no_signing_and_no_end_of_the_process() {
    let api = FakeApi::default();
    api.put(
        PATH,
        json!({"metadata": {"name": SECRET, "namespace": "mesh"}, "data": {}}),
    );
    let now = SystemTime::now();
    let keeper = keeper(&api, true);
    assert!(keeper.step(now).await.is_err());
    assert!(!can_sign(&keeper, now));
}

#[tokio::test]
async fn secret_that_was_deleted_under_a_running_mesh_comes_back_with_the_same_root() {
    let api = FakeApi::default();
    let now = SystemTime::now();
    let keeper = keeper(&api, true);
    keeper.step(now).await.unwrap();
    let root = key(&api, ROOT_CRT);
    api.remove(PATH);
    keeper.step(now).await.unwrap();
    assert_eq!(key(&api, ROOT_CRT), root);
}

#[tokio::test]
async fn own_certificate_carries_the_controllers_identity() {
    let authority = Authority::in_memory();
    let identity = SpiffeId::of("cluster.local", "weft-system", "weft-controller").unwrap();
    let handle = CertHandle::empty();
    let kept = tokio::spawn(keep_serving(
        authority,
        identity.clone(),
        Duration::from_secs(60),
        handle.clone(),
        AuthorityMetrics::default(),
    ));
    while handle.current().is_none() {
        tokio::task::yield_now().await;
    }
    kept.abort();
    assert_eq!(handle.current().unwrap().identity().spiffe, identity);
}
