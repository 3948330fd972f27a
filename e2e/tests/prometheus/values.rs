//! Which values the chart's schema takes, beside those below `monitoring`.

use anyhow::Context as _;
use e2e::harness::{Outcome, mesh};

use crate::programs::rendered;

/// Each of these would give objects that the API server refuses, images that cannot be
/// pulled, or a mesh that does not start.
#[test]
fn unusable_values_are_refused_by_schema() -> Outcome {
    let long = format!("image.tag={}", "a".repeat(129));
    for (setting, field) in [
        ("image.tag=a b", "tag"),
        ("image.tag=-a", "tag"),
        (long.as_str(), "tag"),
        ("image.registry=r/", "registry"),
        ("controller.log=(((", "log"),
        ("injector.log=(((", "log"),
        ("controller.log=info=loud", "log"),
        ("injector.log=a=info=debug", "log"),
        ("controller.resources.limits.memory=0", "memory"),
        ("injector.resources.limits.memory=0Mi", "memory"),
        ("injector.resources.limits.memory=0.0Gi", "memory"),
        ("networkPolicy.apiServers={10.0.0.0/99}", "apiServers"),
        ("networkPolicy.apiServers={300.0.0.0/8}", "apiServers"),
        ("networkPolicy.apiServers={10.0.0/8}", "apiServers"),
        ("networkPolicy.apiServers={fd00::/129}", "apiServers"),
        ("networkPolicy.apiServers={1::2::3/64}", "apiServers"),
        ("proxy.guaranteed.cpu=199m", "cpu"),
        ("proxy.guaranteed.memory=127Mi", "memory"),
        ("tracing.endpoint=http://x:99999", "endpoint"),
        ("tracing.endpoint=http://x:65536", "endpoint"),
        ("tracing.endpoint=http://x:0", "endpoint"),
    ] {
        let refused = rendered(&mesh::chart(), &[setting], &[]).err();
        let error = refused
            .with_context(|| format!("{setting} was taken"))?
            .to_string();
        // What stands before is the command, which has the field as well.
        let complaint = error.split_once("specifications of the schema");
        let (_, complaint) = complaint.with_context(|| format!("{setting}: {error}"))?;
        assert!(complaint.contains(field), "{setting}: {complaint}");
    }
    Ok(())
}

#[test]
fn boundary_values_are_accepted_by_schema() -> Outcome {
    let long = format!("image.tag={}", "a".repeat(128));
    for setting in [
        "image.tag=_1.0-rc",
        long.as_str(),
        "image.registry=r",
        "image.registry=localhost:5000/a",
        "controller.log=weft_controller::serve=debug\\,info",
        "injector.log=WARN",
        "controller.resources.limits.memory=1",
        "controller.resources.limits.memory=0.5Gi",
        "controller.resources.limits.cpu=0",
        "networkPolicy.apiServers={0.0.0.0/0,255.255.255.255/32}",
        "networkPolicy.apiServers={::/0,fd00::1/128,1:2:3:4:5:6:7:8/64}",
        "proxy.guaranteed.cpu=200m",
        "proxy.guaranteed.cpu=1",
        "proxy.guaranteed.memory=1Gi",
        "tracing.endpoint=http://x:1",
        "tracing.endpoint=http://[fd00::9]:65535/v1/traces",
    ] {
        rendered(&mesh::chart(), &[setting], &[]).with_context(|| setting.to_owned())?;
    }
    Ok(())
}
