//! Pushes the graph's metrics by OTLP to the collector of spans, for tools that draw a service
//! graph and scrape no controller.
//!
//! Counters are cumulative since the Lease holder started to export them, so the next message
//! makes up for a lost one: nothing is queued or retried.

use std::pin::pin;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use policy::trace::{Collector, Otlp};
use prost::Message as _;
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tower::BoxError;
use tracing::{debug, info, warn};

use super::otlp;
use crate::metrics::service_graph::ServiceGraphMetrics;

const EVERY: Duration = Duration::from_secs(15);
/// Finding the collector, and one message.
const WITHIN: Duration = Duration::from_secs(10);
/// Max bytes of a response that are read; a longer one counts as none.
const ANSWER: usize = 64 * 1024;
/// Characters of a collector's message about points that it rejected.
const REASON: usize = 256;

/// See the module header.
#[derive(Clone, Debug)]
pub(crate) struct Push {
    /// Where it goes.
    pub collector: Collector,
    /// What is sent.
    pub pairs: ServiceGraphMetrics,
    /// Whose numbers they are, by names of OpenTelemetry.
    pub resource: Vec<(&'static str, String)>,
}

impl Push {
    /// Sends what there is for ever.
    pub(crate) async fn keep(self) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (collector, mut failing) = (&self.collector, false);
        loop {
            ticks.tick().await;
            let pairs = self.pairs.all();
            if pairs.is_empty() {
                continue;
            }
            let message = otlp::message(&self.resource, &pairs, SystemTime::now());
            let sent = timeout(WITHIN, send(collector, message)).await;
            let late = "the collector did not answer in time";
            match sent.unwrap_or_else(|_| Err(late.into())) {
                Ok(()) => {
                    if std::mem::take(&mut failing) {
                        info!(%collector, "the collector takes the service graph again");
                    }
                }
                // Some take spans only: that is logged once.
                Err(error) if failing => debug!(%collector, %error, "service graph not sent"),
                Err(error) => {
                    failing = true;
                    warn!(%collector, %error, "service graph not sent");
                }
            }
        }
    }
}

async fn send(collector: &Collector, message: ExportMetricsServiceRequest) -> Result<(), BoxError> {
    let answer = match collector.protocol() {
        Otlp::Grpc => {
            let to = format!("http://{}", collector.authority());
            let client = MetricsServiceClient::connect(to).await;
            let client = client.map_err(|error| cause(&error))?;
            let mut client = client.max_decoding_message_size(ANSWER);
            client.export(message).await?.into_inner()
        }
        Otlp::Http => post(collector, message.encode_to_vec()).await?,
    };
    match answer.partial_success {
        Some(partial) if partial.rejected_data_points > 0 => {
            let reason: String = partial.error_message.chars().take(REASON).collect();
            let points = partial.rejected_data_points;
            Err(format!("the collector rejected {points} data points: {reason}").into())
        }
        _ => Ok(()),
    }
}

/// The innermost cause of an error: those around it add nothing to it.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.last().map_or_else(String::new, ToString::to_string)
}

/// Posts a message over a connection of its own.
async fn post(
    collector: &Collector,
    message: Vec<u8>,
) -> Result<ExportMetricsServiceResponse, BoxError> {
    let request = Request::post(&*collector.path_of("metrics"))
        .header(header::HOST, collector.authority())
        .header(header::CONTENT_TYPE, "application/x-protobuf")
        .body(Full::new(Bytes::from(message)))?;
    let stream = TcpStream::connect((collector.host(), collector.port())).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut connection = pin!(connection);
    let exchange = async { read(sender.send_request(request).await?).await };
    let mut exchange = pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        ended = &mut connection => {
            ended?;
            // It may have ended with the response.
            exchange.await
        }
    }
}

async fn read(answer: Response<Incoming>) -> Result<ExportMetricsServiceResponse, BoxError> {
    let status = answer.status();
    if !status.is_success() {
        return Err(format!("the collector answered {status}").into());
    }
    let body = Limited::new(answer.into_body(), ANSWER).collect().await?;
    // A response that cannot be read means at least that all was taken.
    Ok(ExportMetricsServiceResponse::decode(body.to_bytes()).unwrap_or_default())
}

#[cfg(test)]
mod tests;
