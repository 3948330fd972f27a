//! Field values that begin or end with a blank, and a length of nothing.
//!
//! Claims: attack-16

use http::{HeaderValue, StatusCode, header};

use super::*;
use crate::http2::trim_values;

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

#[test]
fn field_value_loses_only_surrounding_blanks() {
    for (came, left) in [
        ("a", "a"),
        (" a", "a"),
        ("a ", "a"),
        ("\ta", "a"),
        ("a\t", "a"),
        (" \t a\t b \t ", "a\t b"),
        (" ", ""),
        ("\t", ""),
        ("", ""),
    ] {
        let mut map = HeaderMap::new();
        for name in ["x", "y"] {
            map.append(name, HeaderValue::from_static("1"));
            map.append(name, HeaderValue::from_static(came));
        }
        trim_values(&mut map);
        for name in ["x", "y"] {
            let values: Vec<&HeaderValue> = map.get_all(name).iter().collect();
            assert_eq!(values, ["1", left], "{came:?}");
        }
    }
    let mut map = HeaderMap::new();
    let mut secret = HeaderValue::from_bytes(b" \xffa ").unwrap();
    secret.set_sensitive(true);
    map.insert("x", secret);
    trim_values(&mut map);
    assert_eq!(map["x"].as_bytes(), b"\xffa");
    assert!(map["x"].is_sensitive());
}
