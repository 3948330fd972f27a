//! What helm makes of the values below `monitoring`.
//!
//! Claims: observe-85, observe-87

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, ensure};
use e2e::harness::{Outcome, mesh};
use serde_json::{Value, json};

use crate::programs::{A_CLUSTER, folder, output, rendered, write};
use crate::sources;

/// The values, and the objects that each makes.
const VALUES: [(&str, &[&str]); 4] = [
    ("podMonitor", &["PodMonitor weft-proxies"]),
    ("serviceMonitor", &["ServiceMonitor weft-control-plane"]),
    ("prometheusRule", &["PrometheusRule weft"]),
    (
        "grafanaDashboards",
        &[
            "ConfigMap weft-dashboard-control-plane",
            "ConfigMap weft-dashboard-mesh",
            "ConfigMap weft-dashboard-namespace",
            "ConfigMap weft-dashboard-route",
            "ConfigMap weft-dashboard-workload",
        ],
    ),
];
/// Kinds of the Prometheus Operator, by the value that asks for one.
const OPERATOR: [(&str, &str); 3] = [
    ("podMonitor", "PodMonitor"),
    ("serviceMonitor", "ServiceMonitor"),
    ("prometheusRule", "PrometheusRule"),
];

fn plain(settings: &[&str]) -> anyhow::Result<Vec<Value>> {
    rendered(&mesh::chart(), settings, &[])
}

fn on(value: &str) -> String {
    format!("monitoring.{value}=true")
}

fn names(objects: &[Value]) -> BTreeSet<String> {
    let name = |object: &Value| {
        let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
        format!(
            "{} {}",
            text(&object["kind"]),
            text(&object["metadata"]["name"])
        )
    };
    objects.iter().map(name).collect()
}

fn only<'a>(objects: &'a [Value], kind: &str) -> anyhow::Result<&'a Value> {
    let mut of_kind = objects.iter().filter(|object| object["kind"] == kind);
    of_kind.next().with_context(|| format!("no {kind}"))
}

#[test]
fn each_monitoring_value_adds_only_its_objects_on_request() -> Outcome {
    let without = names(&plain(&[])?);
    for (value, objects) in VALUES {
        let with = names(&plain(&[&on(value)])?);
        let made: Vec<&str> = with.difference(&without).map(String::as_str).collect();
        assert_eq!(made, objects, "{value}");
        assert!(without.is_subset(&with), "{value} takes something away");
    }
    Ok(())
}

#[test]
fn node_agents_have_a_monitor_where_they_run() -> Outcome {
    let without = names(&plain(&[&on("podMonitor")])?);
    let with = names(&plain(&[&on("podMonitor"), "capture.mode=node"])?);
    let monitor = "PodMonitor weft-node";
    assert!(with.contains(monitor) && !without.contains(monitor));
    Ok(())
}

#[test]
fn labels_and_interval_are_those_of_the_values() -> Outcome {
    let mut settings: Vec<String> = VALUES.iter().map(|(value, _)| on(value)).collect();
    settings.extend(
        [
            "labels.release=kps",
            "dashboardLabels.team=a",
            "interval=15s",
        ]
        .map(|set| format!("monitoring.{set}")),
    );
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let objects = plain(&settings)?;
    for (_, kind) in OPERATOR {
        let labels = &only(&objects, kind)?["metadata"]["labels"];
        assert_eq!(labels["release"], "kps", "{kind}");
        assert_eq!(labels["app.kubernetes.io/name"], "weft", "{kind}");
    }
    let boards = objects.iter().filter(|object| {
        let name = object["metadata"]["name"].as_str();
        name.is_some_and(|name| name.starts_with("weft-dashboard-"))
    });
    for board in boards {
        let labels = &board["metadata"]["labels"];
        assert_eq!(labels["grafana_dashboard"], "1", "{labels}");
        assert_eq!(labels["team"], "a", "{labels}");
        assert_eq!(labels["release"], Value::Null, "{labels}");
    }
    let pods = &only(&objects, "PodMonitor")?["spec"];
    assert_eq!(pods["podMetricsEndpoints"][0]["interval"], "15s");
    let services = &only(&objects, "ServiceMonitor")?["spec"];
    assert_eq!(services["endpoints"][0]["interval"], "15s");
    Ok(())
}

/// Ports by name or number are those that pods have, and Services carry the labels that
/// are selected: a monitor that selects nothing looks like a mesh without traffic.
#[test]
fn monitors_select_what_the_chart_and_the_injector_make() -> Outcome {
    let objects = plain(&[&on("podMonitor"), &on("serviceMonitor")])?;
    let monitor = &only(&objects, "ServiceMonitor")?["spec"];
    let port = &monitor["endpoints"][0]["targetPort"];
    let wanted = monitor["selector"]["matchLabels"]
        .as_object()
        .context("no labels")?;
    let parts = &monitor["selector"]["matchExpressions"][0];
    let component = "app.kubernetes.io/component";
    assert_eq!(
        (&parts["key"], &parts["operator"]),
        (&json!(component), &json!("In"))
    );
    let selected = objects.iter().filter(|object| {
        let labels = &object["metadata"]["labels"];
        object["kind"] == "Service"
            && wanted.iter().all(|(key, value)| labels[key] == *value)
            && parts["values"]
                .as_array()
                .is_some_and(|all| all.contains(&labels[component]))
    });
    let selected: Vec<&Value> = selected.collect();
    let listed: Vec<&Value> = selected
        .iter()
        .map(|one| &one["metadata"]["name"])
        .collect();
    assert_eq!(listed, ["weft-controller", "weft-injector"]);
    for service in selected {
        // Its pods have the port.
        let pods = objects.iter().filter(|object| {
            object["kind"] == "Deployment"
                && object["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]
        });
        let ports: Vec<&Value> = pods
            .map(|pods| &pods["spec"]["template"]["spec"]["containers"][0]["ports"])
            .collect();
        assert_eq!(ports.len(), 1, "{service}");
        assert!(
            ports[0]
                .as_array()
                .is_some_and(|all| all.iter().any(|one| one["name"] == *port))
        );
    }
    let pods = &only(&objects, "PodMonitor")?["spec"];
    assert_eq!(pods["namespaceSelector"]["any"], true);
    let proxy = sources::read("crds/src/inject/containers.rs")?;
    let port = pods["podMetricsEndpoints"][0]["port"].to_string();
    assert!(
        proxy.contains(&format!("\"ports\": [{{ \"name\": {port}")),
        "{port}"
    );
    Ok(())
}

#[test]
fn cluster_without_operator_is_refused_naming_value() -> Outcome {
    for (value, kind) in OPERATOR {
        let offered = format!("monitoring.coreos.com/v1/{kind}");
        let refused = rendered(&mesh::chart(), &[&on(value)], &[A_CLUSTER]);
        let error = refused.err().context("it was taken")?.to_string();
        for word in [
            &format!("monitoring.{value} is true"),
            kind,
            "docs/monitoring.md",
        ] {
            assert!(error.contains(word), "{value}: {error}");
        }
        // Controls: with the kind, and without a cluster, as for GitOps.
        rendered(&mesh::chart(), &[&on(value)], &[A_CLUSTER, &offered])?;
        plain(&[&on(value)])?;
    }
    // No value asks for it.
    rendered(&mesh::chart(), &[&on("grafanaDashboards")], &[A_CLUSTER])?;
    Ok(())
}

/// The value makes no object: it sets the controller's environment.
#[test]
fn service_graph_value_sets_controller_and_requires_read_api() -> Outcome {
    let service_graph = |settings: &[&str]| -> anyhow::Result<Value> {
        let objects = plain(settings)?;
        let mut controllers = objects.iter().filter(|object| {
            object["kind"] == "Deployment" && object["metadata"]["name"] == "weft-controller"
        });
        let controller = controllers.next().context("no controller")?;
        let env = &controller["spec"]["template"]["spec"]["containers"][0]["env"];
        let mut env = env.as_array().into_iter().flatten();
        let one = env.find(|one| one["name"] == "WEFT_SERVICE_GRAPH");
        Ok(one.context("the controller has no such variable")?["value"].clone())
    };
    assert_eq!(service_graph(&[])?, "false");
    assert_eq!(service_graph(&[&on("serviceGraph")])?, "true");
    let setting = on("serviceGraph");
    let error = plain(&[&setting, "observe.enabled=false"])
        .err()
        .context("it was taken")?
        .to_string();
    assert!(error.contains("observe.enabled"), "{error}");
    Ok(())
}

#[test]
fn values_that_cannot_work_are_refused_with_the_field() -> Outcome {
    for (setting, field) in [
        ("interval=3m", "interval"),
        ("interval=0s", "interval"),
        ("interval=121s", "interval"),
        ("podMonitor=maybe", "podMonitor"),
        ("prometheusRule=1", "prometheusRule"),
        ("labels.release=a b", "release"),
        (
            "labels.app\\.kubernetes\\.io/name=x",
            "app.kubernetes.io/name",
        ),
        ("dashboardLabels.x=7", "dashboardLabels"),
        ("serviceGraph=maybe", "serviceGraph"),
        ("graph=true", "graph"),
    ] {
        let refused = plain(&[&format!("monitoring.{setting}")]).err();
        let error = refused
            .with_context(|| format!("{setting} was taken"))?
            .to_string();
        assert!(error.contains(field), "{setting}: {error}");
    }
    for taken in [
        "interval=1s",
        "interval=120s",
        "interval=2m",
        "labels.release=kps-1",
    ] {
        plain(&[&format!("monitoring.{taken}")])?;
    }
    Ok(())
}

/// The operator hands Prometheus what the chart's file says, and Prometheus takes it.
#[test]
fn prometheus_takes_the_rules_and_refuses_broken_ones() -> Outcome {
    let objects = plain(&[&on("prometheusRule")])?;
    let spec = &only(&objects, "PrometheusRule")?["spec"];
    let file: Value =
        serde_yaml_ng::from_str(&sources::read("charts/weft/monitoring/rules.yaml")?)?;
    assert_eq!(*spec, file);
    let folder = folder("rules")?;
    output(
        "promtool",
        &["check", "rules", &write(&folder, "rules.json", spec)?],
    )?;
    // Controls: a query, and a template, that Prometheus cannot read.
    for (field, broken) in [
        ("expr", "sum(rate(a[5m])"),
        ("annotations", "{{ $labels. }}"),
    ] {
        let mut broken_spec = spec.clone();
        let rule = &mut broken_spec["groups"][1]["rules"][0];
        rule[field] = match field {
            "expr" => json!(broken),
            _ => json!({"summary": broken}),
        };
        let path = write(&folder, "broken.json", &broken_spec)?;
        let taken = output("promtool", &["check", "rules", &path]);
        assert!(taken.is_err(), "{broken} was taken");
    }
    Ok(())
}

#[test]
fn dashboards_arrive_in_grafana_as_the_files_say() -> Outcome {
    let objects = plain(&[&on("grafanaDashboards")])?;
    for (name, board) in sources::dashboards()? {
        let named = format!("weft-dashboard-{name}");
        let map = objects
            .iter()
            .find(|object| object["metadata"]["name"] == named);
        let data = &map.context("no ConfigMap")?["data"];
        let text = data[format!("weft-{name}.json")]
            .as_str()
            .context("no file in it")?;
        let dashboard: Value = serde_json::from_str(text)?;
        assert_eq!(dashboard, board, "{name}");
    }
    Ok(())
}

/// What helm says after the installation. NOTES are no manifest, so a copy of the chart
/// puts them into one.
fn notes(test: &str, settings: &[&str]) -> anyhow::Result<String> {
    let folder = folder(&format!("notes-{test}"))?;
    let copied = Command::new("cp")
        .args(["-r", &mesh::chart(), "."])
        .current_dir(&folder)
        .status()?;
    ensure!(copied.success(), "the chart cannot be copied");
    let chart = folder.join("weft");
    fs::write(
        chart.join("templates/notes.yaml"),
        "apiVersion: v1\nkind: Notes\ntext: {{ include (print .Template.BasePath \"/NOTES.txt\") . | toJson }}\n",
    )?;
    let objects = rendered(&chart.to_string_lossy(), settings, &[])?;
    let text = only(&objects, "Notes")?["text"].as_str();
    Ok(text.context("no text")?.to_owned())
}

#[test]
fn notes_list_created_objects_and_warn_without_scraping() -> Outcome {
    let quiet = notes("quiet", &[])?;
    assert!(
        quiet.contains("is being installed") && !quiet.contains("Prometheus"),
        "{quiet}"
    );
    let alone = notes("alone", &["monitoring.prometheusRule=true"])?;
    assert!(alone.contains("PrometheusRule weft\n"), "{alone}");
    assert!(
        alone.contains("WARNING: the alerts see only what is scraped"),
        "{alone}"
    );
    let both = notes(
        "both",
        &[
            "monitoring.prometheusRule=true",
            "monitoring.podMonitor=true",
            "monitoring.serviceMonitor=true",
        ],
    )?;
    assert!(
        both.contains(" PodMonitor weft-proxies ServiceMonitor weft-control-plane"),
        "{both}"
    );
    assert!(!both.contains("WARNING: the alerts"), "{both}");
    Ok(())
}

#[test]
fn notes_name_every_definition_that_stays_behind() -> Outcome {
    let objects = plain(&[])?;
    let stays: BTreeSet<&str> = objects
        .iter()
        .filter(|object| object["kind"] == "CustomResourceDefinition")
        .filter_map(|object| object["metadata"]["name"].as_str())
        .collect();
    assert!(
        stays.contains("trafficsplits.split.smi-spec.io"),
        "{stays:?}"
    );
    let text = notes("definitions", &[])?;
    let mut lines = text.lines().map(str::trim);
    let named = lines.find_map(|line| line.strip_prefix("kubectl delete crd "));
    let named = named.context("no line that deletes them")?;
    let named: BTreeSet<&str> = named.split_whitespace().collect();
    assert_eq!(named, stays);
    Ok(())
}
