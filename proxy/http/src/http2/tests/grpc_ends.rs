//! How a gRPC caller sees that the body of an answer broke off.
//!
//! Claims: calls-17

use http::header::CONTENT_TYPE;
use policy::reason::Reason;

use super::*;
use crate::deadline::{self, StopConditions};
use crate::ending_body::EndingBody;
use crate::failure::Failure;

fn breaks(error: impl Into<BoxError>) -> Body {
    let part: Result<Frame<Bytes>, BoxError> = Err(error.into());
    StreamBody::new(tokio_stream::once(part)).boxed_unsync()
}

/// Its time is over, and its head has no place for that.
fn late() -> Body {
    let parts = tokio_stream::pending::<Result<Frame<Bytes>, BoxError>>();
    let ends = StopConditions::at(Some(deadline::now()));
    EndingBody::new(StreamBody::new(parts), ends, &HeaderMap::new()).boxed_unsync()
}

/// Clients read a head that is not gRPC by its HTTP status. What follows must not differ from what
/// the mesh sends everywhere for the same reason.
#[tokio::test(start_paused = true)]
async fn response_closed_by_mesh_has_grpc_status_of_reason() {
    let mut sender = pair(|request: Request<_>| {
        let body = match request.uri().path() {
            "/late" => late(),
            "/forbidden" => breaks(Failure::refused(Reason::NotAllowed, "by now")),
            _ => breaks("the server is gone"),
        };
        async move { Response::new(body) }
    })
    .await;
    for (path, status, message) in [
        ("/late", "4", "weft: deadline"),
        ("/forbidden", "7", "weft: not-allowed"),
        (
            "/gone",
            "14",
            "weft: connection-lost: the server ended the stream early",
        ),
    ] {
        let request = Request::post(format!("http://s{path}"))
            .header(CONTENT_TYPE, "application/grpc")
            .body(body::empty())
            .unwrap();
        let answer = sender.send(request).await.unwrap();
        let end = answer.into_body().collect().await.unwrap();
        let trailers = end.trailers().unwrap();
        assert_eq!(trailers["grpc-status"], status, "{path}");
        assert_eq!(trailers["grpc-message"], message, "{path}");
    }
}
