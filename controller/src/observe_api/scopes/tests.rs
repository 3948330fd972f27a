//! How many queries one user, and all of them, can cause at the API server.
//!
//! Claims: observe-21

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join_all;
use http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

/// The queries that an API server received.
#[derive(Debug, Default)]
struct Asked {
    reviews: AtomicUsize,
    under_way: AtomicUsize,
    at_most: AtomicUsize,
}

/// Takes a millisecond for each response, and permits reads of nothing but `n7`.
fn gate(review_log: &Arc<Asked>) -> Gate {
    slow_gate(review_log, Duration::from_millis(1))
}

/// The same with another time for each response.
fn slow_gate(review_log: &Arc<Asked>, each: Duration) -> Gate {
    let review_log = Arc::clone(review_log);
    let service = tower::service_fn(move |request: Request<Body>| {
        let review_log = Arc::clone(&review_log);
        async move {
            review_log.reviews.fetch_add(1, Ordering::SeqCst);
            let now = review_log.under_way.fetch_add(1, Ordering::SeqCst) + 1;
            review_log.at_most.fetch_max(now, Ordering::SeqCst);
            tokio::time::sleep(each).await;
            review_log.under_way.fetch_sub(1, Ordering::SeqCst);
            let body = request.into_body().collect_bytes().await.unwrap();
            let mut review: Value = serde_json::from_slice(&body).unwrap();
            let allowed = review["spec"]["resourceAttributes"]["namespace"] == "n7";
            review["status"] = json!({"allowed": allowed});
            let body = review.to_string().into_bytes();
            Ok::<_, Infallible>(Response::new(Body::from(body)))
        }
    });
    Gate::new(kube::Client::new(service, "default"))
}

fn user(name: &str, credential: usize) -> User {
    let id = vec![format!("JTI={credential}")];
    User {
        name: name.to_owned(),
        groups: vec!["system:authenticated".to_owned()],
        extra: [("authentication.kubernetes.io/credential-id".to_owned(), id)].into(),
        ..User::default()
    }
}

fn namespaces(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("n{number}")).collect()
}

#[tokio::test(start_paused = true)]
async fn concurrent_scope_calls_of_user_share_reviews() {
    let review_log = Arc::default();
    let (gate, scopes) = (gate(&review_log), Scopes::default());
    // Each with a token of its own, which changes no rights.
    let users: Vec<User> = (0..16).map(|number| user("one", number)).collect();
    let calls = users
        .iter()
        .map(|user| scopes.of(user, &gate, namespaces(200)));
    for scope in join_all(calls).await {
        assert_eq!(scope.unwrap().namespaces, ["n7"]);
    }
    assert_eq!(review_log.reviews.load(Ordering::SeqCst), 201);
}

#[tokio::test(start_paused = true)]
async fn scope_reviews_of_many_users_are_concurrency_limited() {
    let review_log = Arc::default();
    let (gate, scopes) = (gate(&review_log), Scopes::default());
    let users: Vec<User> = (0..20)
        .map(|number| user(&format!("u{number}"), 0))
        .collect();
    let calls = users
        .iter()
        .map(|user| scopes.of(user, &gate, namespaces(200)));
    for scope in join_all(calls).await {
        assert_eq!(scope.unwrap().namespaces, ["n7"]);
    }
    assert_eq!(review_log.reviews.load(Ordering::SeqCst), 20 * 201);
    let at_most = review_log.at_most.load(Ordering::SeqCst);
    assert!(at_most <= AT_ONCE, "{at_most} at one time");
}

#[tokio::test(start_paused = true)]
async fn scopes_take_no_place_of_what_the_gate_remembers() {
    let review_log = Arc::default();
    let (gate, scopes) = (gate(&review_log), Scopes::default());
    scopes
        .of(&user("one", 0), &gate, namespaces(MAX_NAMESPACES))
        .await
        .unwrap();
    let before = review_log.reviews.load(Ordering::SeqCst);
    for _ in 0..2 {
        let reader = gate.admits(&user("reader", 0), &graph_of(Some("n7"))).await;
        assert_eq!(reader, Ok(AccessDecision::Allowed));
    }
    assert_eq!(review_log.reviews.load(Ordering::SeqCst), before + 1);
}

#[tokio::test(start_paused = true)]
async fn partial_scope_reviews_are_kept_after_timeout() {
    let review_log = Arc::default();
    // 2000 namespaces take 20 s.
    let gate = slow_gate(&review_log, Duration::from_millis(80));
    let scopes = Scopes::default();
    let one = user("one", 0);
    let mut calls = 0;
    let whole = loop {
        let started = Instant::now();
        let scope = scopes.of(&one, &gate, namespaces(2000)).await.unwrap();
        assert!(started.elapsed() <= PATIENCE, "{:?}", started.elapsed());
        calls += 1;
        if !scope.incomplete {
            break scope;
        }
        assert!(calls < 10, "{scope:?}");
    };
    assert_eq!(
        (&*whole.namespaces, whole.truncated),
        (&["n7".to_owned()][..], false)
    );
    assert!((5..=7).contains(&calls), "{calls} calls");
    // What was under way when a call ended is queried again, and nothing else.
    let reviews = review_log.reviews.load(Ordering::SeqCst);
    assert!(reviews <= 2001 + calls * USER_AT_ONCE, "{reviews}");
    // It is kept from its end on, and then learned anew.
    scopes.of(&one, &gate, namespaces(2000)).await.unwrap();
    assert_eq!(review_log.reviews.load(Ordering::SeqCst), reviews);
    tokio::time::advance(CACHED_FOR).await;
    let anew = scopes.of(&one, &gate, namespaces(2000)).await.unwrap();
    assert!(anew.incomplete, "{anew:?}");
}

#[tokio::test(start_paused = true)]
async fn user_with_many_namespaces_delays_no_other_user() {
    let review_log = Arc::default();
    let gate = slow_gate(&review_log, Duration::from_millis(100));
    let scopes = Scopes::default();
    let heavy = ["a", "b", "c", "d"].map(|name| user(name, 0));
    let heavy = heavy
        .iter()
        .map(|user| scopes.of(user, &gate, namespaces(2000)));
    let light = user("light", 0);
    let light = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let started = Instant::now();
        let scope = scopes.of(&light, &gate, namespaces(8)).await.unwrap();
        assert!(!scope.incomplete, "{scope:?}");
        started.elapsed()
    };
    let (heavy, took) = futures::future::join(join_all(heavy), light).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(heavy.iter().all(|scope| scope.as_ref().unwrap().incomplete));
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_says_nothing_is_no_answer() {
    let review_log = Arc::default();
    let gate = slow_gate(&review_log, Duration::from_secs(3600));
    let scopes = Scopes::default();
    let scope = scopes.of(&user("one", 0), &gate, namespaces(3)).await;
    assert!(scope.unwrap_err().contains("try again"));
}
