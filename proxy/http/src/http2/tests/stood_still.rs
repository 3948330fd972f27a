//! What came while this process stalled, as on a CPU that others have.
//!
//! Claims: attack-28, attack-29

use std::pin::Pin;
use std::task::Poll;

use tokio::time::sleep;

use super::*;

/// Looks once, and whether it goes on.
async fn goes_on(mut serving: Pin<&mut impl Future>) -> bool {
    poll_fn(|cx| Poll::Ready(serving.as_mut().poll(cx).is_pending())).await
}

#[tokio::test(start_paused = true)]
async fn peer_with_unread_sign_of_life_is_not_dead() {
    let (near, far) = duplex(1 << 20);
    let limits = limits(PROFILE, Permit::unlisted());
    let close = pin!(pending::<()>());
    let handler = |_| pending::<Response<Body>>();
    let mut serving = pin!(server::serve(far, limits, close, handler));
    let (mut sender, connection) = h2::client::handshake(near).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://s/").body(()).unwrap();
    let _asked = sender.send_request(request, true).unwrap();
    for _ in 0..5 {
        sleep(Duration::from_millis(1)).await;
        assert!(goes_on(serving.as_mut()).await);
    }
    // At the second look it is pinged, and answers at once.
    for _ in 0..2 {
        sleep(Duration::from_millis(2510)).await;
        assert!(goes_on(serving.as_mut()).await);
    }
    sleep(Duration::from_secs(8)).await;
    for _ in 0..100 {
        assert!(goes_on(serving.as_mut()).await, "it was taken for dead");
        sleep(Duration::from_millis(100)).await;
    }
}

/// The other one had no CPU either, and answers two seconds after this one goes on.
#[tokio::test(start_paused = true)]
async fn peer_is_not_dead_while_this_process_stood_still() {
    let (near, far) = duplex(1 << 20);
    let limits = limits(PROFILE, Permit::unlisted());
    let close = pin!(pending::<()>());
    let handler = |_| pending::<Response<Body>>();
    let mut serving = pin!(server::serve(far, limits, close, handler));
    let shaking = h2::client::handshake(near);
    let (mut sender, connection) = shaking.await.unwrap();
    let mut connection = pin!(connection);
    let request = Request::get("http://s/").body(()).unwrap();
    let _asked = sender.send_request(request, true).unwrap();
    for _ in 0..5 {
        sleep(Duration::from_millis(1)).await;
        assert!(goes_on(connection.as_mut()).await);
        assert!(goes_on(serving.as_mut()).await);
    }
    // At the second look it is pinged, and stalls by then.
    for _ in 0..2 {
        sleep(Duration::from_millis(2510)).await;
        assert!(goes_on(serving.as_mut()).await);
    }
    sleep(Duration::from_secs(12)).await;
    for _ in 0..20 {
        assert!(goes_on(serving.as_mut()).await, "it was taken for dead");
        sleep(Duration::from_millis(100)).await;
    }
    for _ in 0..100 {
        assert!(goes_on(connection.as_mut()).await);
        assert!(goes_on(serving.as_mut()).await, "it has answered");
        sleep(Duration::from_millis(100)).await;
    }
    // Control: it is silent while this process runs.
    let mut looks = 0;
    while goes_on(serving.as_mut()).await {
        looks += 1;
        assert!(looks < 150, "it waits for ever");
        sleep(Duration::from_millis(100)).await;
    }
}
