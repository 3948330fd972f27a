//! A connection that has a request is in use, and stays where others are taken.

use std::net::IpAddr;

use runtime::occupancy::{Bounds, Occupancy};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::super::recv::RecvBody;
use super::*;

/// Who was asked to go and did not has gone by then.
const GONE: Duration = Duration::from_secs(5);

/// Its task has no turn between the head and the answer.
#[tokio::test(start_paused = true)]
async fn connection_whose_only_request_has_just_begun_is_not_taken_for_another_one() {
    let bounds = Bounds {
        permits: 1,
        per_holder: usize::MAX,
        shared: true,
        head_within: Duration::MAX,
        idle_within: Duration::MAX,
    };
    let occupancy = Occupancy::new(bounds, |_| {});
    let from = |last| IpAddr::from([10, 0, 0, last]).into();
    let permit = occupancy.try_admit(&from(1)).unwrap().unwrap();
    let (mut sender, far) = client().await;
    let answers = Arc::new(Notify::new());
    let told = Arc::clone(&answers);
    let handler = move |_: Request<RecvBody>| {
        let told = Arc::clone(&told);
        async move {
            told.notified().await;
            Response::new(body::empty())
        }
    };
    tokio::spawn(async move {
        let close = pin!(pending::<()>());
        let serving = async {
            let _ = server::serve(far, limits(PROFILE, Arc::clone(&permit)), close, handler).await;
        };
        permit.keep(serving).await;
    });
    sleep(GONE).await;
    let request = Request::get("http://s/").body(body::empty()).unwrap();
    let asking = tokio::spawn(async move { sender.send(request).await });
    sleep(Duration::from_millis(1)).await;
    for _ in 0..3 {
        assert!(
            matches!(occupancy.try_admit(&from(2)), Ok(None)),
            "there is no other"
        );
        sleep(GONE).await;
    }
    answers.notify_one();
    assert_eq!(asking.await.unwrap().unwrap().status(), 200);
}
