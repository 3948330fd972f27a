//! The gRPC health protocol, `grpc.health.v1.Health/Check`, over plaintext.

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use http_body_util::Full;
use prost::Message;

use super::exchange::{self, ProbeResult};
use super::http_get::{USER_AGENT, authority};
use super::target::Grpc;

#[derive(Clone, PartialEq, Message)]
pub(super) struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    pub(super) service: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    pub(super) status: i32,
}

pub(super) const SERVING: i32 = 1;

/// A message's prefix: not compressed, and its length.
const PREFIX: usize = 5;

pub(super) async fn check(health: &Grpc, pod_ip: IpAddr) -> ProbeResult {
    let question = HealthCheckRequest {
        service: health.service.clone().unwrap_or_default(),
    };
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!(
            "http://{}/grpc.health.v1.Health/Check",
            authority(&pod_ip.to_string(), health.port)
        ))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, USER_AGENT)
        .body(Full::new(framed(&question)))
        .map_err(|error| error.to_string())?;

    let stream = exchange::connect(None, health.port, pod_ip).await?;
    let answer = exchange::http2(Box::new(stream), request).await?;
    // An answer without a message carries its status among the headers.
    let status = answer
        .trailers
        .get("grpc-status")
        .or_else(|| answer.head.headers.get("grpc-status"));
    match status.map(HeaderValue::as_bytes) {
        Some(b"0") => {}
        Some(b"12") => return Err("the server does not implement grpc.health.v1.Health".into()),
        Some(b"5") => {
            return Err(format!(
                "the server does not know the service {:?}",
                question.service
            ));
        }
        Some(code) => return Err(format!("gRPC status {}", String::from_utf8_lossy(code))),
        None => {
            return Err(format!(
                "no gRPC answer, but HTTP status {}",
                answer.head.status
            ));
        }
    }
    let message = answer.body.get(PREFIX..).unwrap_or_default();
    match HealthCheckResponse::decode(message) {
        Ok(HealthCheckResponse { status: SERVING }) => Ok("SERVING".into()),
        Ok(HealthCheckResponse { status }) => Err(match status {
            2 => "NOT_SERVING".into(),
            3 => "SERVICE_UNKNOWN".into(),
            other => format!("health status {other}"),
        }),
        Err(error) => Err(format!("no health answer: {error}")),
    }
}

pub(super) fn framed(message: &impl Message) -> Bytes {
    let length = u32::try_from(message.encoded_len()).unwrap_or(u32::MAX);
    let mut bytes = vec![0];
    bytes.extend(length.to_be_bytes());
    bytes.extend(message.encode_to_vec());
    bytes.into()
}
