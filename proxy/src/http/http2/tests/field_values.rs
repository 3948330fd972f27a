//! Field values that begin or end with a blank, and a length of nothing.
//!
//! Claims: attack-16

use http::{HeaderValue, StatusCode, header};

use super::*;

fn blanks() -> HeaderValue {
    HeaderValue::from_static("\t a ")
}

fn with_trailers() -> Body {
    let trailers = HeaderMap::from_iter([("x".parse().unwrap(), blanks())]);
    later([data("hello"), Ok(Frame::trailers(trailers))]).1
}

#[tokio::test]
async fn heads_and_trailers_are_passed_without_surrounding_blanks() {
    let mut sender = pair(
        |request: Request<super::super::recv::RecvBody>| async move {
            assert_eq!(request.headers()["x"], "a");
            let end = request.into_body().collect().await.unwrap();
            assert_eq!(end.trailers().unwrap()["x"], "a");
            let mut answer = Response::new(with_trailers());
            answer.headers_mut().insert("x", blanks());
            answer
        },
    )
    .await;
    let mut request = post(with_trailers());
    request.headers_mut().insert("x", blanks());
    let answer = sender.send(request).await.unwrap();
    assert_eq!(answer.headers()["x"], "a");
    let end = answer.into_body().collect().await.unwrap();
    assert_eq!(end.trailers().unwrap()["x"], "a");
}

#[tokio::test]
async fn response_without_content_by_status_has_no_length() {
    let mut sender = pair(|_| async {
        let mut answer = Response::new(body::empty());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        let length = HeaderValue::from_static("5");
        answer.headers_mut().insert(header::CONTENT_LENGTH, length);
        answer
    })
    .await;
    let answer = sender.send(post(body::empty())).await.unwrap();
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    assert!(!answer.headers().contains_key(header::CONTENT_LENGTH));
}
