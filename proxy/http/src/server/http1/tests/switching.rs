//! Callers that ask for another protocol, while they wait for the answer and afterwards.
//!
//! Claims: calls-16

use super::*;

#[tokio::test(start_paused = true)]
async fn caller_closing_before_upgrade_response_is_gone() {
    // Others may only have finished sending.
    for (request, leaves) in [(SWITCH, true), (GET, false)] {
        let served_by = Arc::new(());
        let permit = Arc::clone(&served_by);
        let mut served = Served::new(4096, None, move |_| {
            let permit = Arc::clone(&permit);
            async move {
                let _held = permit;
                pending::<Response<Body>>().await
            }
        });
        served.send(request).await;
        sleep(LONG).await;
        assert!(!served.ended.is_finished(), "it stays");
        served.client.shutdown().await.unwrap();
        sleep(Duration::from_millis(10)).await;
        assert_eq!(served.ended.is_finished(), leaves);
        assert_eq!(Arc::strong_count(&served_by) == 1, leaves);
    }
}

#[tokio::test(start_paused = true)]
async fn data_before_upgrade_response_and_later_end_are_kept() {
    let mut served = Served::new(4096, None, |mut request: Request<Incoming>| async move {
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgraded.await.unwrap());
            let mut read = [0; 10];
            stream.read_exact(&mut read).await.unwrap();
            stream.write_all(&read).await.unwrap();
            assert_eq!(stream.read(&mut read).await.unwrap(), 0);
            for part in ["e", "nd"] {
                stream.write_all(part.as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
            }
            sleep(LONG).await;
        });
        sleep(LONG).await;
        switched()
    });
    served.send(&[SWITCH, b"early"].concat()).await;
    sleep(LONG / 2).await;
    served.send(b"later").await;
    served.expect_read(SWITCHED).await;
    served.expect_read("earlylater").await;
    served.client.shutdown().await.unwrap();
    served.expect_read("end").await;
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_works_after_a_rest() {
    let mut served = Served::new(4096, None, |mut request: Request<Incoming>| async move {
        if !request.headers().contains_key(header::UPGRADE) {
            return path(request).await;
        }
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgraded.await.unwrap());
            let mut read = [0; 5];
            stream.read_exact(&mut read).await.unwrap();
            stream.write_all(&read).await.unwrap();
            sleep(LONG).await;
        });
        switched()
    });
    served.send(GET).await;
    served.expect_read(&response_to("/one")).await;
    sleep(LONG).await;
    assert!(served.rests());
    served.send(SWITCH).await;
    served.expect_read(SWITCHED).await;
    served.send(b"hello").await;
    served.expect_read("hello").await;
}
