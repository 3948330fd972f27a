//! Clients that have gone silent.
//!
//! Claims: attack-30

use tokio::time::sleep;

use super::floods::{GET, PREFACE, WHOLE, frame};
use super::*;

// Claims: R9
#[tokio::test(start_paused = true)]
async fn silent_client_is_closed_within_ten_seconds() {
    // Wherever that is between two looks.
    for quiet in [0, 600, 1300, 2400].map(Duration::from_millis) {
        let (mut near, far) = duplex(1 << 20);
        let serving = tokio::spawn(async move {
            let close = pin!(pending::<()>());
            let handler = |_| pending::<Response<Body>>();
            server::serve(far, limits(PROFILE, Permit::unlisted()), close, handler).await
        });
        near.write_all(PREFACE).await.unwrap();
        sleep(quiet).await;
        let request = frame(HEADERS, WHOLE, 1, &GET);
        near.write_all(&request).await.unwrap();
        let last = Instant::now();
        let ended = timeout(Duration::from_secs(60), serving).await;
        let took = last.elapsed();
        assert!(ended.expect("it waits for ever").unwrap().is_err());
        let expected = Duration::from_secs(7)..=Duration::from_millis(10_100);
        assert!(expected.contains(&took), "{took:?} after {quiet:?}");
    }
}
