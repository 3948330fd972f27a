//! Calls that end by their own time.

use super::*;

/// The one that is late is the first attempt or, where each has a limit, the second.
#[tokio::test]
async fn what_had_no_answer_in_its_own_time_is_not_asked_for_again_above() {
    for (backend_request, attempts) in [(None, 1), (Some(Duration::from_millis(100)), 2)] {
        let chain = Chain::new().await;
        let next = chain.asks([SILENCE, SILENCE]).await;
        chain.api.set(vec![said(&Traffic {
            timeouts: limited(Timeouts {
                request: Some(Duration::from_millis(300)),
                backend_request,
                ..Timeouts::DEFAULT
            }),
            ..Traffic::default()
        })]);
        let call = chain.called("GET", PARENT).await;
        let request = chain.request().await;
        let (status, answer) = ask(&chain.api, "GET", PARENT, "").await;
        assert_eq!(status, 504, "{answer}");
        assert!(answer.contains("weft-reason: deadline"), "{answer}");
        assert_eq!(next.iter().map(App::asked).sum::<usize>(), attempts);
        request.answer(UNAVAILABLE).await;
        assert!(chain.is_quiet().await, "nobody is asked again");
        assert_eq!(call.await.unwrap().0, 503);
        assert_eq!(retries(&chain.web, "spent"), 1.0, "{}", chain.web.metrics());
    }
}
