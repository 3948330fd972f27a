//! How many questions one user, and all of them, can make the API server answer.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join_all;
use http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

/// What an API server was asked.
#[derive(Debug, Default)]
struct Asked {
    reviews: AtomicUsize,
    under_way: AtomicUsize,
    at_most: AtomicUsize,
}

/// Takes a millisecond for each answer, and lets nobody read anything but `n7`.
fn gate(asked: &Arc<Asked>) -> Gate {
    let asked = Arc::clone(asked);
    let service = tower::service_fn(move |request: Request<Body>| {
        let asked = Arc::clone(&asked);
        async move {
            asked.reviews.fetch_add(1, Ordering::SeqCst);
            let now = asked.under_way.fetch_add(1, Ordering::SeqCst) + 1;
            asked.at_most.fetch_max(now, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(1)).await;
            asked.under_way.fetch_sub(1, Ordering::SeqCst);
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
async fn calls_of_one_user_at_one_time_are_one_question() {
    let asked = Arc::default();
    let (gate, scopes) = (gate(&asked), Scopes::default());
    // Each with a token of its own, which says nothing about rights.
    let users: Vec<User> = (0..16).map(|number| user("one", number)).collect();
    let calls = users
        .iter()
        .map(|user| scopes.of(user, &gate, namespaces(200)));
    for scope in join_all(calls).await {
        assert_eq!(scope.unwrap().namespaces, ["n7"]);
    }
    assert_eq!(asked.reviews.load(Ordering::SeqCst), 201);
}

#[tokio::test(start_paused = true)]
async fn many_users_at_one_time_are_asked_about_a_few_at_a_time() {
    let asked = Arc::default();
    let (gate, scopes) = (gate(&asked), Scopes::default());
    let users: Vec<User> = (0..20)
        .map(|number| user(&format!("u{number}"), 0))
        .collect();
    let calls = users
        .iter()
        .map(|user| scopes.of(user, &gate, namespaces(200)));
    for scope in join_all(calls).await {
        assert_eq!(scope.unwrap().namespaces, ["n7"]);
    }
    assert_eq!(asked.reviews.load(Ordering::SeqCst), 20 * 201);
    let at_most = asked.at_most.load(Ordering::SeqCst);
    assert!(at_most <= 2 * AT_ONCE, "{at_most} at one time");
}

#[tokio::test(start_paused = true)]
async fn scopes_take_no_place_of_what_the_gate_remembers() {
    let asked = Arc::default();
    let (gate, scopes) = (gate(&asked), Scopes::default());
    scopes
        .of(&user("one", 0), &gate, namespaces(MAX_NAMESPACES))
        .await
        .unwrap();
    let before = asked.reviews.load(Ordering::SeqCst);
    for _ in 0..2 {
        let reader = gate.admits(&user("reader", 0), &graph_of(Some("n7"))).await;
        assert_eq!(reader, Ok(AccessDecision::Allowed));
    }
    assert_eq!(asked.reviews.load(Ordering::SeqCst), before + 1);
}
