//! The steps of a start that need a controller.

use super::*;
use crate::telemetry::startup::StartupStep;

#[tokio::test]
async fn start_shows_its_steps_up_to_the_first_configuration() {
    let bench = Bench::start(&Ca::new()).await;
    let startup = bench.control.config.telemetry.metrics.startup.clone();
    let steps = || -> Vec<StartupStep> {
        let steps = startup.steps().into_iter();
        steps.map(|(step, _)| step).collect()
    };
    let connected = [
        StartupStep::Connection,
        StartupStep::Certificate,
        StartupStep::Stream,
    ];
    bench.until(|_| steps() == connected).await;

    let own = v1::Workload {
        identity: id("shop", "web").as_str().to_owned(),
        enforcement: v1::Enforcement::Enforce.into(),
        mtls: v1::MtlsMode::Strict.into(),
        ..v1::Workload::default()
    };
    let own = wire::version::stamp(v1::Resource {
        name: wire::names::WORKLOAD.to_owned(),
        version: String::new(),
        content: Some(v1::resource::Content::Workload(own)),
    });
    let batch = v1::Batch {
        id: 1,
        full: true,
        set: vec![own],
        ..v1::Batch::default()
    };
    bench
        .send_message(v1::to_proxy::Message::Batch(batch))
        .await;
    bench
        .until(|_| steps().last() == Some(&StartupStep::Configuration))
        .await;
    assert_eq!(steps().len(), 4);
}
