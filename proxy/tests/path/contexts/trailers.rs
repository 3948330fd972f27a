//! gRPC calls whose status comes in the trailers.
//!
//! Claims: calls-46

use policy::traffic::set::{GrpcCode, GrpcCodes};

use super::*;

/// What ends with this status after two bytes.
macro_rules! ending {
    ($code:literal) => {
        concat!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n",
            "trailer: grpc-status\r\n\r\n2\r\nab\r\n0\r\ngrpc-status: ",
            $code,
            "\r\n\r\n"
        )
    };
}

/// A response that ends after two bytes without a status, which is `Unknown`.
const SILENT: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";

#[tokio::test]
async fn listed_grpc_trailer_code_causes_no_upstream_retry() {
    for (ends, says, listed) in [
        (ending!("14"), "grpc-status: 14", true),
        (ending!("8"), "grpc-status: 8", false),
        (ending!("0"), "grpc-status: 0", false),
        (SILENT, "ab", true),
    ] {
        let chain = Chain::new().await;
        let next = chain.asks([ends, ends]).await;
        chain.api.set(vec![policy_of(&EffectivePolicy {
            retry: limited(Retry {
                grpc_codes: GrpcCodes::of(&[GrpcCode::Unavailable, GrpcCode::Unknown]),
                ..Retry::DEFAULT
            }),
            ..EffectivePolicy::default()
        })]);
        let call = chain.called("GET", PARENT).await;
        let request = chain.request().await;
        let headers = format!("content-type: application/grpc\r\nte: trailers\r\n{PARENT}");
        let (status, answer) = ask(&chain.api, "POST", &headers, "call").await;
        assert_eq!(status, 200, "{answer}");
        assert!(answer.contains(says), "{answer}");
        let request_count = next.iter().map(App::request_count).sum::<usize>();
        assert_eq!(request_count, 1, "a started response is not retried");
        request.answer(UNAVAILABLE).await;
        if listed {
            assert_eq!(call.await.unwrap().0, 503, "no retry");
            assert_eq!(retries(&chain.web, "spent"), 1.0, "{}", chain.web.metrics());
        } else {
            chain.request().await.answer(OK).await;
            assert_eq!(call.await.unwrap().0, 200, "{says} marks nothing");
        }
    }
}
