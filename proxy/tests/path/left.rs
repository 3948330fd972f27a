//! Applications learn that a caller has left, whether or not its call had a deadline.
//!
//! Claims: calls-44

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use wire::v1::Protocol;

use super::answers::{App, SILENCE, served_by};
use super::deadlines::broken_off;
use crate::support::{pair, vip};

#[tokio::test]
async fn application_sees_call_end_soon_after_caller_reset() {
    for meshed in [true, false] {
        let (client, server, _, _) = pair(Protocol::Http1).await;
        let app = App::new(server.ip, SILENCE).await;
        served_by(&client, &server, &[&app]);
        let mut caller = if meshed {
            client.call(vip()).await
        } else {
            server.plain(app.port).await
        };
        let head = b"GET / HTTP/1.1\r\nHost: web.shop\r\n\r\n";
        caller.write_all(head).await.unwrap();
        let started = Instant::now();
        while app.request_count() == 0 {
            assert!(started.elapsed() < Duration::from_secs(5), "it is asked");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(app.ended(), 0, "it is waited for: {meshed}");
        let linger = socket2::SockRef::from(&caller).set_linger(Some(Duration::ZERO));
        linger.unwrap();
        drop(caller);
        // Within two seconds.
        broken_off(&app).await;
    }
}
