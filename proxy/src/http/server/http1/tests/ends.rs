//! How a connection ends on request: nobody loses the request that is on its way.

use super::*;

const LAST: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\n/one";

#[tokio::test(start_paused = true)]
async fn a_client_in_whose_hand_a_request_is_learns_from_its_answer_that_the_connection_ends() {
    // In use, and so long ago that it rests.
    for before in [Duration::from_millis(10), LONG] {
        let mut served = Served::to_client(path);
        served.send(GET).await;
        served.expect_read(&response_to("/one")).await;
        sleep(before).await;
        served.close.take().unwrap().send(()).unwrap();
        sleep(LAST_REQUEST_WITHIN * 9 / 10).await;
        served.send(GET).await;
        served.expect_read(LAST).await;
        let ended = timeout(Duration::from_millis(1), &mut served.ended).await;
        ended.expect("it ends with that answer").unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_in_flight_is_answered_with_the_end_of_its_connection() {
    let mut served = Served::to_client(|request| async {
        sleep(LONG).await;
        path(request).await
    });
    served.send(GET).await;
    sleep(LONG / 2).await;
    served.close.take().unwrap().send(()).unwrap();
    served.expect_read(LAST).await;
    let ended = timeout(Duration::from_millis(1), &mut served.ended).await;
    ended.expect("it ends with that answer").unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_asks_nothing_more_keeps_no_connection_open() {
    let mut served = Served::to_client(path);
    served.send(GET).await;
    served.expect_read(&response_to("/one")).await;
    served.close.take().unwrap().send(()).unwrap();
    let closed = Instant::now();
    let ended = timeout(LONG, &mut served.ended).await;
    ended.expect("it ends").unwrap().unwrap();
    assert_eq!(closed.elapsed(), LAST_REQUEST_WITHIN);
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_another_protocol_last_gets_it() {
    let mut served = Served::to_client(|mut request: Request<Incoming>| async move {
        if !request.headers().contains_key(header::UPGRADE) {
            return path(request).await;
        }
        echoes(&mut request)
    });
    served.send(GET).await;
    served.expect_read(&response_to("/one")).await;
    served.close.take().unwrap().send(()).unwrap();
    sleep(LAST_REQUEST_WITHIN / 2).await;
    served.send(SWITCH).await;
    served.expect_read(SWITCHED).await;
    sleep(LONG).await;
    served.send(b"hello").await;
    served.expect_read("hello").await;
}
