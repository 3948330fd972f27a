//! Values that stand in place of what the chart says by itself.

use anyhow::Context as _;
use e2e::harness::Outcome;
use serde_json::{Value, json};

use super::{of_kind, rendered_by};

/// Each of them was written twice where the template put the value behind its own, which
/// some readers refuse, and of which others take the first.
// Claims: attack-98
#[test]
fn value_that_overrides_a_default_stands_in_its_place() -> Outcome {
    let mut args = Vec::new();
    for part in ["controller", "injector"] {
        let annotations = json!({"prometheus.io/scrape": "false", "example.com/team": "mesh"});
        let nodes = json!({"kubernetes.io/arch": "arm64", "pool": "infra"});
        let limits = json!({"limits": {"memory": "1Gi"}});
        args.push(format!("{part}.podAnnotations={annotations}"));
        args.push(format!("{part}.nodeSelector={nodes}"));
        args.push(format!("{part}.resources={limits}"));
    }
    let monitoring = json!({
        "podMonitor": true, "serviceMonitor": true, "prometheusRule": true,
        "grafanaDashboards": true, "labels": {"release": "prometheus"},
        "dashboardLabels": {"grafana_dashboard": "shown"},
    });
    args.push(format!("monitoring={monitoring}"));
    let args = args.iter().flat_map(|set| ["--set-json", set.as_str()]);
    let objects = rendered_by(&args.collect::<Vec<_>>())?;
    for part in ["weft-controller", "weft-injector"] {
        let deployments = of_kind(&objects, "Deployment").into_iter();
        let mut deployments = deployments.filter(|one| one["metadata"]["name"] == part);
        let pod = &deployments.next().context(part)?["spec"]["template"];
        let expected = json!({
            "prometheus.io/scrape": "false", "prometheus.io/port": "8080",
            "example.com/team": "mesh",
        });
        assert_eq!(pod["metadata"]["annotations"], expected, "{part}");
        let expected = json!({
            "kubernetes.io/os": "linux", "kubernetes.io/arch": "arm64", "pool": "infra",
        });
        assert_eq!(pod["spec"]["nodeSelector"], expected, "{part}");
    }
    let labels = |kind: &str, name: &str| -> Value {
        let found = of_kind(&objects, kind).into_iter();
        let mut found = found.filter(|one| one["metadata"]["name"] == name);
        let found = found.next().map(|one| one["metadata"]["labels"].clone());
        found.unwrap_or_default()
    };
    let monitor = labels("PodMonitor", "weft-proxies");
    assert_eq!(monitor["release"], "prometheus", "{monitor}");
    let dashboard = labels("ConfigMap", "weft-dashboard-mesh");
    assert_eq!(dashboard["grafana_dashboard"], "shown", "{dashboard}");
    Ok(())
}
