//! Removes names and addresses of the mesh from responses to clients outside it: of most refusals
//! they get the reason alone. The details stand in the access log, and `weft explain` prints them.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use policy::reason::Reason;

use crate::http::body::{Body, BoxError};
use crate::http::grpc::is_grpc;
use crate::http::headers::{DEGRADED, FAULT, FIXED_RESPONSE, ROUTED_TO};
use crate::http::refusal::reason_in;

/// In [`DEGRADED`]: a Service answered in place of the one that was called, whichever.
const A_SERVICE: &str = "service";

/// A body of one text in place of another one, which still comes to its end: whatever counts it
/// takes anything else for a client that left.
struct InPlaceOf {
    detailed: Body,
    /// Empty: it is sent.
    text: Bytes,
}

/// The answer to a client outside. What is no refusal stays as it is, and so do refusals that say
/// what is wrong with the request itself.
pub(super) fn without_detail(mut answer: Response<Body>) -> Response<Body> {
    name_nothing(answer.headers_mut());
    let map = answer.headers();
    let reason = reason_in(map).filter(|_| !map.contains_key(DEGRADED) && !is_grpc(map));
    let of_request = [Reason::BadRequest, Reason::NoRoute, Reason::Misdirected];
    let reason = reason.filter(|reason| !of_request.contains(reason));
    let (Some(reason), false) = (reason, answer.body().is_end_stream()) else {
        return answer;
    };
    let text = Bytes::from(format!("weft: {}\n", reason.as_str()));
    let (mut parts, detailed) = answer.into_parts();
    let length = HeaderValue::from(text.len());
    parts.headers.insert(CONTENT_LENGTH, length);
    Response::from_parts(parts, InPlaceOf { detailed, text }.boxed_unsync())
}

/// Objects of the mesh are named to callers inside alone.
fn name_nothing(map: &mut HeaderMap) {
    map.remove(FAULT);
    map.remove(ROUTED_TO);
    if let Some(degraded) = map.get_mut(DEGRADED)
        && degraded != FIXED_RESPONSE
    {
        *degraded = HeaderValue::from_static(A_SERVICE);
    }
}

impl HttpBody for InPlaceOf {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        while !self.text.is_empty() {
            match ready!(Pin::new(&mut self.detailed).poll_frame(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    let text = std::mem::take(&mut self.text);
                    return Poll::Ready(Some(Ok(Frame::data(text))));
                }
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.text.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.text.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::text;
    use crate::http::headers::REASON;
    use crate::http::refusal::refusal;

    const DETAIL: &str = "10.0.0.7:8080 refuses connections";

    async fn learnt(answer: Response<Body>) -> String {
        let answer = without_detail(answer);
        let length = answer.headers().get(CONTENT_LENGTH).cloned();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        if let Some(length) = length {
            assert_eq!(length, body.len().to_string());
        }
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn client_outside_learns_no_detail_but_of_its_request() {
        for reason in Reason::ALL {
            let read = learnt(refusal(reason, DETAIL, false)).await;
            let of_request = [Reason::BadRequest, Reason::NoRoute, Reason::Misdirected];
            assert_eq!(
                read.contains(DETAIL),
                of_request.contains(&reason),
                "{read}"
            );
            assert!(
                read.starts_with(&format!("weft: {}", reason.as_str())),
                "{read}"
            );
            assert_eq!(
                learnt(refusal(reason, DETAIL, true)).await,
                "",
                "gRPC has no body"
            );
        }
    }

    #[tokio::test]
    async fn answers_of_applications_and_policies_stay_as_they_are() {
        assert_eq!(learnt(Response::new(text("hello"))).await, "hello");
        let mut fixed = Response::new(text("come back later"));
        let map = fixed.headers_mut();
        map.insert(REASON, HeaderValue::from_static("no-endpoint"));
        map.insert(DEGRADED, HeaderValue::from_static("fixed-response"));
        assert_eq!(learnt(fixed).await, "come back later");
    }

    #[test]
    fn headers_name_no_object_to_clients_outside() {
        for (degraded, learnt) in [("shop/static", "service"), ("response", "response")] {
            let mut answer = Response::new(text("hello"));
            let map = answer.headers_mut();
            map.insert(FAULT, HeaderValue::from_static("shop/slow"));
            map.insert(ROUTED_TO, HeaderValue::from_static("shop/next"));
            map.insert(DEGRADED, HeaderValue::from_static(degraded));
            let answer = without_detail(answer);
            let map = answer.headers();
            assert_eq!(map.len(), 1, "{map:?}");
            assert_eq!(map[DEGRADED], learnt);
        }
    }
}
