//! Clients that close their direction while they wait for an answer.
//!
//! Claims: calls-44

use super::*;

const POST: &[u8] = b"POST /one HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nok";
/// Less than such a client is waited for.
const IN_TIME: Duration = Duration::from_millis(1900);

/// What a client gets that sends no more after this, and when its connection has ended.
async fn half_closed<F>(
    request: &[u8],
    handler: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static,
) -> (String, Duration)
where
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let mut served = Served::to_client(handler);
    served.send(request).await;
    served.client.shutdown().await.unwrap();
    let closed = Instant::now();
    let mut answer = String::new();
    let read = timeout(LONG * 20, served.client.read_to_string(&mut answer)).await;
    read.expect("it is kept").unwrap();
    (answer, closed.elapsed())
}

async fn in_time(request: Request<Incoming>) -> Response<Body> {
    sleep(IN_TIME).await;
    path(request).await
}

#[tokio::test(start_paused = true)]
async fn half_closed_client_gets_response_started_in_time() {
    for request in [GET, POST] {
        let (answer, _) = half_closed(request, in_time).await;
        assert_eq!(answer, response_to("/one"));
    }
    // However long the rest of it takes.
    let (answer, _) = half_closed(GET, |_| async {
        let part = futures::stream::once(async {
            sleep(LONG * 5).await;
            Ok::<_, body::BoxError>(Frame::data(Bytes::from_static(b"late")))
        });
        Response::new(StreamBody::new(part).boxed_unsync())
    })
    .await;
    assert!(answer.ends_with("4\r\nlate\r\n0\r\n\r\n"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn half_closed_client_without_head_is_abandoned() {
    for request in [GET, POST] {
        let served_by = Arc::new(());
        let held = Arc::clone(&served_by);
        let (answer, took) = half_closed(request, move |_| {
            let held = Arc::clone(&held);
            async move {
                let _held = held;
                pending::<Response<Body>>().await
            }
        })
        .await;
        assert_eq!(answer, "");
        let expected = LONG..LONG + Duration::from_millis(500);
        assert!(expected.contains(&took), "{took:?}");
        assert_eq!(Arc::strong_count(&served_by), 1, "no work goes on for it");
    }
}

/// Each of its requests has as long.
#[tokio::test(start_paused = true)]
async fn half_closed_client_gets_responses_to_all_requests() {
    let (answer, _) = half_closed(&[GET, GET].concat(), in_time).await;
    assert_eq!(answer, response_to("/one").repeat(2));
}
