//! Which values the chart's schema takes, beside those below `monitoring`, and what its templates
//! make of them.

use std::fs;

use anyhow::Context as _;
use e2e::harness::{Outcome, cluster::root, mesh};
use serde_json::{Value, json};

use crate::programs::{folder, output, rendered};

const DIGEST: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";

/// The Deployment of this name, as these settings make it.
fn deployment(name: &str, settings: &[&str]) -> anyhow::Result<Value> {
    deployment_in(rendered(&mesh::chart(), settings, &[])?, name)
}

fn deployment_in(objects: Vec<Value>, name: &str) -> anyhow::Result<Value> {
    let mut named = objects
        .into_iter()
        .filter(|one| one["kind"] == "Deployment" && one["metadata"]["name"] == name);
    named
        .next()
        .with_context(|| format!("no Deployment {name}"))
}

fn container(deployment: &Value) -> &Value {
    &deployment["spec"]["template"]["spec"]["containers"][0]
}

/// The value of a variable of the injector.
fn injector_env(name: &str, settings: &[&str]) -> anyhow::Result<Value> {
    let injector = deployment("weft-injector", settings)?;
    let env = container(&injector)["env"].as_array().cloned();
    let mut env = env.unwrap_or_default().into_iter();
    let one = env.find(|one| one["name"] == name);
    Ok(one.with_context(|| format!("no {name}"))?["value"].clone())
}

#[test]
fn image_digest_wins_over_tag() -> Outcome {
    let proxy = format!("image.digests.proxy={DIGEST}");
    let controller = format!("image.digests.controller={DIGEST}");
    let settings = ["image.registry=r", "image.tag=mine", &proxy, &controller];
    let image = |name: &str| -> anyhow::Result<Value> {
        Ok(container(&deployment(name, &settings)?)["image"].clone())
    };
    assert_eq!(
        image("weft-controller")?,
        format!("r/weft/controller@{DIGEST}")
    );
    // The control: a part without a digest.
    assert_eq!(image("weft-injector")?, "r/weft/injector:mine");
    let image = injector_env("WEFT_PROXY_IMAGE", &settings)?;
    assert_eq!(image, format!("r/weft/proxy@{DIGEST}"));
    // The digest is of the chart's own version.
    let version = injector_env("WEFT_VERSION", &settings)?;
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    assert_eq!(injector_env("WEFT_VERSION", &["image.tag=mine"])?, "mine");
    Ok(())
}

/// The archive of a release with this digest of the proxy's and the injector's image, built for
/// these processors, as its script packs it.
fn packed_chart(name: &str, architectures: &[&str]) -> anyhow::Result<String> {
    let folder = folder(name)?;
    let digests = folder.join("digests");
    fs::write(&digests, format!("injector {DIGEST}\nproxy {DIGEST}\n"))?;
    let (digests, out) = (digests.to_string_lossy(), folder.to_string_lossy());
    let (script, chart) = (root().join("e2e/release/chart"), mesh::chart());
    let mut args = vec![
        "--chart",
        &chart,
        "--digests",
        &digests,
        "--epoch",
        "1",
        "--out",
        &out,
        "--architectures",
    ];
    args.extend(architectures);
    let archive = output(&script.to_string_lossy(), &args)?;
    Ok(archive.trim().to_owned())
}

#[test]
fn packed_chart_renders_as_its_folder_with_digests() -> Outcome {
    let packed = rendered(&packed_chart("packed", &["amd64"])?, &[], &[])?;
    let digest = |part: &str| format!("image.digests.{part}={DIGEST}");
    let settings = [digest("injector"), digest("proxy")];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    assert_eq!(packed, rendered(&mesh::chart(), &settings, &[])?);
    // The control: digests of the archive are there, and its other image has the tag.
    let image = |name: &str| -> anyhow::Result<Value> {
        Ok(container(&deployment_in(packed.clone(), name)?)["image"].clone())
    };
    assert_eq!(image("weft-injector")?, format!("weft/injector@{DIGEST}"));
    let tagged = concat!("weft/controller:", env!("CARGO_PKG_VERSION"));
    assert_eq!(image("weft-controller")?, tagged);
    Ok(())
}

/// Images of one's own need no more than their tag.
#[test]
fn packed_digests_yield_to_tag_and_digests_of_values() -> Outcome {
    let chart = packed_chart("packed-and-set", &["amd64"])?;
    let other = DIGEST.replace('1', "2");
    let digest = format!("image.digests.injector={other}");
    let version = env!("CARGO_PKG_VERSION");
    let tagged = format!("weft/proxy:{version}");
    let tag = format!("image.tag={version}");
    for (settings, injector, proxy) in [
        (
            vec!["image.tag=mine"],
            "weft/injector:mine".to_owned(),
            "weft/proxy:mine",
        ),
        // Also where it is the chart's own version.
        (
            vec![tag.as_str()],
            format!("weft/injector:{version}"),
            tagged.as_str(),
        ),
        (
            vec!["image.tag=mine", digest.as_str()],
            format!("weft/injector@{other}"),
            "weft/proxy:mine",
        ),
    ] {
        let made = deployment_in(rendered(&chart, &settings, &[])?, "weft-injector")?;
        assert_eq!(container(&made)["image"], injector, "{settings:?}");
        let env = container(&made)["env"].as_array();
        let value = |name: &str| {
            let mut found = env.into_iter().flatten().filter(|one| one["name"] == name);
            found.next().map(|one| one["value"].clone())
        };
        assert_eq!(
            value("WEFT_PROXY_IMAGE"),
            Some(json!(proxy)),
            "{settings:?}"
        );
        let tag = proxy.rsplit_once(':').map(|(_, tag)| json!(tag));
        assert_eq!(value("WEFT_VERSION"), tag, "{settings:?}");
    }
    Ok(())
}

#[test]
fn packed_architectures_reach_every_pod_and_the_injector() -> Outcome {
    let chart = packed_chart("packed-for-both", &["arm64", "amd64"])?;
    let both = json!({
        "key": "kubernetes.io/arch", "operator": "In", "values": ["amd64", "arm64"],
    });
    let disk = json!({"key": "disk", "operator": "Exists"});
    let name = "requiredDuringSchedulingIgnoredDuringExecution";
    let required = |expressions: Value| {
        let terms = json!([{"matchExpressions": expressions}]);
        json!({"nodeAffinity": {name: {"nodeSelectorTerms": terms}}})
    };
    let first =
        format!("controller.affinity.nodeAffinity.{name}.nodeSelectorTerms[0].matchExpressions[0]");
    let (key, operator) = (
        format!("{first}.key=disk"),
        format!("{first}.operator=Exists"),
    );
    let settings = [
        key.as_str(),
        operator.as_str(),
        "injector.nodeSelector.pool=infra",
    ];
    let objects = rendered(&chart, &settings, &[])?;
    let pod = |name: &str| -> anyhow::Result<Value> {
        Ok(deployment_in(objects.clone(), name)?["spec"]["template"]["spec"].clone())
    };
    let controller = pod("weft-controller")?;
    assert_eq!(controller["affinity"], required(json!([disk, both])));
    let injector = pod("weft-injector")?;
    assert_eq!(injector["affinity"], required(json!([both])));
    let selector = json!({"kubernetes.io/os": "linux", "pool": "infra"});
    assert_eq!(injector["nodeSelector"], selector);
    let env = &injector["containers"][0]["env"];
    assert_eq!(architectures(env), "amd64,arm64");
    Ok(())
}

fn architectures(env: &Value) -> Value {
    let mut env = env.as_array().into_iter().flatten();
    let found = env.find(|one| one["name"] == "WEFT_PROXY_ARCHITECTURES");
    found.map(|one| one["value"].clone()).unwrap_or_default()
}

/// What a release packs is about its own images.
#[test]
fn architectures_of_other_images_are_those_of_values() -> Outcome {
    let chart = packed_chart("packed-for-others", &["arm64", "amd64"])?;
    let digest = format!("image.digests.proxy={DIGEST}");
    let arch = |settings: &[&str]| -> anyhow::Result<[Value; 3]> {
        let injector = deployment_in(rendered(&chart, settings, &[])?, "weft-injector")?;
        let pod = &injector["spec"]["template"]["spec"];
        Ok([
            pod["nodeSelector"]["kubernetes.io/arch"].clone(),
            architectures(&pod["containers"][0]["env"]),
            pod["affinity"].clone(),
        ])
    };
    let one = |name: &str| [json!(name), json!(name), Value::Null];
    assert_eq!(arch(&["image.tag=mine"])?, one("amd64"));
    assert_eq!(arch(&[digest.as_str()])?, one("amd64"));
    let own = "image.architectures={arm64}";
    assert_eq!(arch(&["image.tag=mine", own])?, one("arm64"));
    assert_eq!(arch(&[own])?, one("arm64"));
    // A selector of the values is the operator's choice.
    let selected = arch(&["injector.nodeSelector.kubernetes\\.io/arch=arm64"])?;
    assert_eq!(
        selected,
        [json!("arm64"), json!("amd64,arm64"), Value::Null]
    );
    Ok(())
}

/// A name that stands twice in a map is refused by the API server, and by `rendered`.
#[test]
fn common_labels_reach_every_object_and_yield_to_others() -> Outcome {
    let settings = [
        "commonLabels.team=a",
        "commonLabels.grafana_dashboard=x",
        "controller.podLabels.team=b",
        "monitoring.podMonitor=true",
        "monitoring.grafanaDashboards=true",
        "monitoring.labels.team=kps",
        "networkPolicy.enabled=true",
    ];
    for object in rendered(&mesh::chart(), &settings, &[])? {
        let metadata = &object["metadata"];
        let labels = &metadata["labels"];
        let name = metadata["name"].as_str().unwrap_or_default();
        match object["kind"].as_str() {
            Some("CustomResourceDefinition") => continue,
            Some("PodMonitor") => assert_eq!(labels["team"], "kps", "{metadata}"),
            _ => assert_eq!(labels["team"], "a", "{metadata}"),
        }
        if name.starts_with("weft-dashboard-") {
            assert_eq!(labels["grafana_dashboard"], "1", "{metadata}");
        }
    }
    let pods = &deployment("weft-controller", &settings)?["spec"]["template"]["metadata"]["labels"];
    assert_eq!(pods["team"], "b");
    assert_eq!(pods["app.kubernetes.io/component"], "controller");
    Ok(())
}

#[test]
fn extra_volumes_are_mounted_in_their_part_alone() -> Outcome {
    let settings = [
        "controller.extraVolumes[0].name=issuer",
        "controller.extraVolumes[0].secret.secretName=issuer",
        "controller.extraVolumeMounts[0].name=issuer",
        "controller.extraVolumeMounts[0].mountPath=/issuer",
    ];
    let controller = deployment("weft-controller", &settings)?;
    let volumes = json!([{"name": "issuer", "secret": {"secretName": "issuer"}}]);
    assert_eq!(controller["spec"]["template"]["spec"]["volumes"], volumes);
    let mounts = json!([{"name": "issuer", "mountPath": "/issuer"}]);
    assert_eq!(container(&controller)["volumeMounts"], mounts);
    let injector = deployment("weft-injector", &settings)?;
    assert_eq!(injector["spec"]["template"]["spec"]["volumes"], Value::Null);
    assert_eq!(container(&injector)["volumeMounts"], Value::Null);
    Ok(())
}

#[test]
fn spread_constraints_replace_defaults_and_count_own_pods() -> Outcome {
    let spread = |settings: &[&str]| -> anyhow::Result<Value> {
        let injector = deployment("weft-injector", settings)?;
        Ok(injector["spec"]["template"]["spec"]["topologySpreadConstraints"].clone())
    };
    let keys: Vec<Value> = spread(&[])?
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| one["topologyKey"].clone())
        .collect();
    assert_eq!(
        keys,
        ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    );
    let one = "injector.topologySpreadConstraints[0]";
    let settings = [
        format!("{one}.topologyKey=rack"),
        format!("{one}.maxSkew=2"),
        format!("{one}.whenUnsatisfiable=DoNotSchedule"),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let own = json!({"matchLabels": {
        "app.kubernetes.io/name": "weft",
        "app.kubernetes.io/instance": "weft",
        "app.kubernetes.io/component": "injector",
    }});
    let wanted = json!([{
        "topologyKey": "rack", "maxSkew": 2, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": own,
    }]);
    assert_eq!(spread(&settings)?, wanted);
    let selector = format!("{one}.labelSelector.matchLabels.a=b");
    let given = spread(&[settings, vec![selector.as_str()]].concat())?;
    assert_eq!(
        given[0]["labelSelector"],
        json!({"matchLabels": {"a": "b"}})
    );
    Ok(())
}

/// Two replicas on one node would want the same ports, also during a rollout.
#[test]
fn injector_on_host_network_makes_room_before_rollout() -> Outcome {
    let injector = deployment("weft-injector", &["injector.hostNetwork=true"])?;
    let spec = &injector["spec"];
    assert_eq!(spec["template"]["spec"]["hostNetwork"], true);
    assert_eq!(
        spec["template"]["spec"]["dnsPolicy"],
        "ClusterFirstWithHostNet"
    );
    let rollout = json!({"maxUnavailable": 1, "maxSurge": 0});
    assert_eq!(spec["strategy"]["rollingUpdate"], rollout);
    let spec = &deployment("weft-injector", &[])?["spec"];
    assert_eq!(spec["template"]["spec"]["hostNetwork"], Value::Null);
    let rollout = json!({"maxUnavailable": 0, "maxSurge": 1});
    assert_eq!(spec["strategy"]["rollingUpdate"], rollout);
    Ok(())
}

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
        ("image.digests.proxy=sha256:1", "digests"),
        ("image.digests.prxoy=", "prxoy"),
        ("image.architectures={x86_64}", "architectures"),
        ("image.architectures={arm64,arm64}", "architectures"),
        ("commonLabels.helm\\.sh/chart=x", "commonLabels"),
        (
            "controller.podLabels.weft\\.dev/inject=enabled",
            "weft.dev/inject",
        ),
        ("injector.extraVolumeMounts[0].name=a", "extraVolumeMounts"),
        (
            "controller.topologySpreadConstraints[0].maxSkew=1",
            "topologySpreadConstraints",
        ),
        ("controller.hostNetwork=true", "controller"),
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
