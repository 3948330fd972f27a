//! Every query of the chart's rules, alerts and dashboards has a result in a real
//! Prometheus, after calls of every kind; exemplars lead to traces; and the
//! Prometheus Operator's definitions accept the chart's objects.

use std::{collections::BTreeSet, fs, path::Path, thread, time::Duration};

use anyhow::{Context as _, bail, ensure};
use e2e::{
    eyes::Record,
    harness::{Api, App, Cluster, Namespace, Outcome, Prometheus, cluster::root, eventually, mesh},
};
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::{
    SOON,
    altered::{Altered, own_ready},
    collector::Collector,
    sources, thresholds, url,
};

/// Where `make eyes` names the folder of the operator's module.
const OPERATOR: &str = "PROMETHEUS_OPERATOR_SOURCE";
const DEFINITIONS: &str = "example/prometheus-operator-crd";
/// Kinds of the operator, and the chart's object of each.
const KINDS: [(&str, &str); 3] = [
    ("podmonitors", "weft-proxies"),
    ("servicemonitors", "weft-control-plane"),
    ("prometheusrules", "weft"),
];

/// What has no answer while nothing is wrong, by what its query holds, and why
/// (docs/decisions/0038).
static WITHOUT_A_FAULT: [(&str, &str); 8] = [
    ("weft_tls_failures_total", "every certificate is right"),
    ("reason=\"overload\"", "no proxy is short of memory"),
    ("weft_limit_reached_total", "no proxy reaches a bound"),
    ("weft_controller_limit_reached_total", "no controller does"),
    ("weft_injector_limit_reached_total", "no injector does"),
    (
        "weft_controller_objects_skipped_total",
        "every object can be read",
    ),
    (
        "weft_injector_reviews_total{outcome=\"failed\"",
        "every call of the webhooks is answered",
    ),
    // A panel shows who got one too.
    (
        "weft_controller_certify_answers_total{outcome!~",
        "no proxy is refused a certificate",
    ),
];

/// What Grafana puts in place of these; the workload both calls and is called, by a route.
const WORKLOAD: &str = "web";
const ROUTE: &str = "site/all";
const RANGE: &str = "5m";
/// Who is called, and how they are not like others.
const APPS: [(&str, &str, &str); 5] = [
    ("client", "", ""),
    (WORKLOAD, "", ""),
    ("cart", "", ""),
    ("guarded", "weft.dev/access", "deny"),
    ("limited", "weft.dev/skip-inbound-ports", "9092"),
];
/// One third of the endpoints rests at most.
const FLAKY: u32 = 3;
/// Between two looks at all queries.
const LOOK: Duration = Duration::from_secs(3);

// Claims: observability-16
#[test]
fn chart_prometheus_queries_return_data_after_load() -> Outcome {
    let dashboards = Record::begin("dashboards")?;
    let mut alerts = Record::begin("alerts")?;
    let exemplars = Record::begin("exemplars")?;
    let operator = Record::begin("operator")?;

    let altered = Altered::begin()?;
    let ns = Namespace::meshed("eyes-monitoring")?;
    let collector = Collector::start(&ns)?;
    define(&ns.cluster)?;
    let endpoint = format!("tracing.endpoint={}", collector.endpoint());
    mesh::install(&[
        &endpoint,
        "tracing.sampling=100",
        "monitoring.podMonitor=true",
        "monitoring.serviceMonitor=true",
        "monitoring.prometheusRule=true",
        "monitoring.grafanaDashboards=true",
        "monitoring.serviceGraph=true",
    ])?;
    own_ready(&ns.cluster)?;
    accepted(&ns.cluster, operator)?;

    let prometheus = Prometheus::watching(&ns)?;
    eventually(SOON, "the control plane is scraped", || {
        let up = prometheus.values("up{job=\"weft-control-plane\"}")?;
        ensure!(up.len() >= 4 && up.iter().all(|one| *one == 1.0), "{up:?}");
        Ok(())
    })?;
    some_of_everything(&ns)?;
    let (panels, rules) = (asked_by_dashboards(&ns)?, asked_by_rules()?);
    for (part, _) in &WITHOUT_A_FAULT {
        let mut queries = panels.iter().chain(&rules);
        assert!(queries.any(|query| query.contains(part)), "stale: {part}");
    }
    answered(&prometheus, &panels, dashboards)?;
    healthy(&prometheus, &mut alerts)?;
    answered(&prometheus, &rules, alerts)?;
    traced(&prometheus, &collector, &ns, exemplars)?;

    altered.restore()?;
    for (kind, _) in KINDS {
        let definition = format!("{kind}.monitoring.coreos.com");
        ns.cluster.kubectl(&["delete", "crd", &definition])?;
    }
    Ok(())
}

/// Applies the operator's definitions.
fn define(cluster: &Cluster) -> anyhow::Result<()> {
    let source = std::env::var(OPERATOR)
        .with_context(|| format!("{OPERATOR} is not set: run `make eyes`"))?;
    for (kind, _) in KINDS {
        let name = format!("monitoring.coreos.com_{kind}.yaml");
        let file = Path::new(&source).join(DEFINITIONS).join(name);
        let file = file.to_string_lossy().into_owned();
        // Their schemas are too long for the annotation of a client-side apply.
        let apply = ["apply", "--server-side", "--force-conflicts"];
        cluster.kubectl(&[&apply[..], &["-f", &file]].concat())?;
        let definition = format!("crd/{kind}.monitoring.coreos.com");
        let wait = ["wait", "--for=condition=Established", "--timeout=30s"];
        cluster.kubectl(&[&wait[..], &[definition.as_str()]].concat())?;
    }
    Ok(())
}

/// The chart's objects are stored, and hold no field that the definitions do not know.
fn accepted(cluster: &Cluster, mut record: Record) -> anyhow::Result<()> {
    let manifest = cluster.helm(&["get", "manifest", "weft", "-n", mesh::NAMESPACE])?;
    let mut objects = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(&manifest) {
        let object = Value::deserialize(document)?;
        if object["apiVersion"] == "monitoring.coreos.com/v1" {
            objects.push(object);
        }
    }
    ensure!(objects.len() == KINDS.len(), "{objects:#?}");
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let file = root().join("target/collector/operator.json");
    fs::write(&file, list.to_string())?;
    let file = file.to_string_lossy().into_owned();
    let judge = ["apply", "--dry-run=server", "--validate=strict"];
    cluster.kubectl(&[&judge[..], &["-f", &file]].concat())?;
    for (kind, name) in KINDS {
        let kind = format!("{kind}.monitoring.coreos.com");
        cluster.json(&["-n", mesh::NAMESPACE, "get", &kind, name])?;
        record.saw(format!("{kind}/{name}"));
    }
    record.holds()
}

/// Calls that succeed, fail, are refused, limited, cancelled, retried and not, as requests and
/// as bytes; and queries of users of the mesh.
fn some_of_everything(ns: &Namespace) -> anyhow::Result<()> {
    applications(ns)?;
    let (client, web) = (ns.pod("client")?, ns.pod(WORKLOAD)?);
    // Beside all the rest.
    let always = ["--rate", "10", "--duration", "2m"];
    let served = client.start_load(&url(WORKLOAD, 8080, "/"), &always)?;
    let called = web.start_load(&url("cart", 8080, "/"), &always)?;
    client.get(&url("guarded", 8080, "/"), &["-n", "10"])?;
    let refused = client.exec(&["tcp", "guarded:9000"]);
    ensure!(refused.is_err(), "bytes came back: {refused:?}");
    client.get(&url("limited", 8080, "/"), &["-n", "100", "-c", "4"])?;
    let left = ["--http2", "--timeout", "300ms", "-n", "5"];
    for slow in ["cart", WORKLOAD] {
        client.get(&url(slow, 8080, "/?delay=2s"), &left)?;
    }
    web.exec(&["tcp", "cart:9000", "-c", "5", "--duration", "1s"])?;
    flaky(ns)?;
    let name = &ns.name;
    for path in [
        format!("/apis/metrics.smi-spec.io/v1alpha1/namespaces/{name}?t=1m"),
        format!("/apis/observe.weft.dev/v1alpha1/namespaces/{name}/graphs/live"),
    ] {
        eventually(SOON, "the API answers", || {
            ns.cluster.kubectl(&["get", "--raw", &path])
        })?;
    }
    for load in [served, called] {
        let seen = load.end()?;
        ensure!(seen.answered > 0, "{seen:?}");
    }
    Ok(())
}

/// Who calls and is called, with what limits that and names its routes.
fn applications(ns: &Namespace) -> anyhow::Result<()> {
    ns.annotate("weft.dev/access", Some("audit"))?;
    let mut objects = App::new("flaky").replicas(FLAKY).objects();
    let mut names = vec!["flaky"];
    for (name, key, value) in APPS {
        let app = App::new(name);
        let app = if key.is_empty() {
            app
        } else {
            app.annotation(key, value)
        };
        objects.extend(app.objects());
        names.push(name);
    }
    objects.push(
        json!({"apiVersion": "weft.dev/v1alpha1", "kind": "TrafficPolicy",
        "metadata": {"name": "limited"}, "spec": {
            "targetRef": {"kind": "Service", "name": "limited"},
            "rateLimits": [{"name": "all", "requests": 2, "scope": "Instance"}]}}),
    );
    let everything = json!({"name": "all", "pathRegex": "/", "methods": ["*"]});
    objects.push(
        json!({"apiVersion": "specs.smi-spec.io/v1alpha4", "kind": "HTTPRouteGroup",
        "metadata": {"name": "site"}, "spec": {"matches": [everything]}}),
    );
    ns.apply_all(&objects)?;
    ns.kubectl(&["annotate", "service", WORKLOAD, "weft.dev/routes=site"])?;
    ns.ready(&names)
}

/// One of three fails until it rests; then all do, until the budget for retries is used up.
fn flaky(ns: &Namespace) -> anyhow::Result<()> {
    let (api, web) = (Api::open(&ns.cluster)?, ns.pod(WORKLOAD)?);
    let wrong = json!({"status": 503, "only": "/items"});
    let pods = ns.pods("flaky")?;
    let load = ["--rate", "40", "--duration", "10s", "-c", "8"];
    let (first, others) = pods.split_first().context("no pod")?;
    api.set_fault(first, &wrong)?;
    web.get(&url("flaky", 8080, "/items"), &load)?;
    for pod in others {
        api.set_fault(pod, &wrong)?;
    }
    web.get(&url("flaky", 8080, "/items"), &load)?;
    Ok(())
}

/// Every query of a panel or a variable, as Grafana sends it.
fn asked_by_dashboards(ns: &Namespace) -> anyhow::Result<BTreeSet<String>> {
    let mut queries = BTreeSet::new();
    for (name, board) in sources::dashboards()? {
        queries.extend(sources::panels(&board).flat_map(sources::queries));
        let variables = board["templating"]["list"].as_array();
        for variable in variables.into_iter().flatten() {
            if variable["type"] != "query" {
                continue;
            }
            let query = variable["query"]["query"].as_str();
            let query = query.and_then(values);
            queries.insert(query.with_context(|| format!("{name}: {variable}"))?);
        }
    }
    let queries = queries.iter().map(|query| {
        query
            .replace("$__rate_interval", RANGE)
            .replace("$namespace", &ns.name)
            .replace("$workload", WORKLOAD)
            .replace("$route", ROUTE)
    });
    Ok(queries.collect())
}

/// `label_values(SELECTOR, LABEL)` is Grafana's own; this asks Prometheus for the same.
fn values(query: &str) -> Option<String> {
    let inner = query.strip_prefix("label_values(")?.strip_suffix(')')?;
    let (selector, label) = inner.rsplit_once(',')?;
    Some(format!("count by ({}) ({selector})", label.trim()))
}

/// Every query of a record, and those of an alert without its thresholds.
fn asked_by_rules() -> anyhow::Result<BTreeSet<String>> {
    let mut queries = BTreeSet::new();
    for rule in sources::rules()? {
        let expr = rule.whole["expr"].as_str();
        let expr = expr.with_context(|| format!("{} asks for nothing", rule.name))?;
        if rule.is_alert() {
            queries.extend(thresholds::without_thresholds(expr));
        } else {
            queries.insert(expr.to_owned());
        }
    }
    Ok(queries)
}

/// Waits until each query has an answer that is a number, but for those that are right to
/// have none.
fn answered(
    prometheus: &Prometheus,
    queries: &BTreeSet<String>,
    mut record: Record,
) -> anyhow::Result<()> {
    let reason = |query: &str| {
        let mut known = WITHOUT_A_FAULT.iter();
        known.find(|(part, _)| query.contains(part))
    };
    let silent = eventually(SOON, "each query has an answer", || {
        let mut silent = Vec::new();
        for query in queries {
            let values = prometheus.values(query)?;
            if !values.iter().any(|value| value.is_finite()) {
                silent.push(query);
            }
        }
        let missing: Vec<_> = silent.iter().filter(|one| reason(one).is_none()).collect();
        if missing.is_empty() {
            return Ok(silent);
        }
        thread::sleep(LOOK);
        bail!("no answer to {missing:#?}")
    })?;
    let number = queries.len() - silent.len();
    record.saw(format!("{number} of {} have an answer", queries.len()));
    for query in silent {
        let (_, why) = reason(query).context("a reason")?;
        record.saw(format!("none: `{query}`, because {why}"));
    }
    record.holds()
}

/// Prometheus evaluates all rules of the chart, and none of them fails on what there is.
fn healthy(prometheus: &Prometheus, record: &mut Record) -> anyhow::Result<()> {
    let all = sources::rules()?.len();
    eventually(SOON, "each rule was evaluated", || {
        let answer = prometheus.read("rules")?;
        let groups = answer["data"]["groups"].as_array().into_iter().flatten();
        let rules = groups.filter_map(|group| group["rules"].as_array());
        let rules: Vec<&Value> = rules.flatten().collect();
        ensure!(rules.len() == all, "{} of {all} are there", rules.len());
        let ill = rules.iter().find(|rule| rule["health"] != "ok");
        ensure!(ill.is_none(), "{ill:#?}");
        Ok(())
    })?;
    record.saw(format!("{all} rules and alerts are healthy"));
    Ok(())
}

/// An exemplar names a trace that stands at the collector.
fn traced(
    prometheus: &Prometheus,
    collector: &Collector,
    ns: &Namespace,
    mut record: Record,
) -> anyhow::Result<()> {
    let series = format!(
        "weft_request_duration_seconds_bucket{{namespace=\"{}\"}}",
        ns.name
    );
    let (all, known) = eventually(SOON, "exemplars lead to traces", || {
        let exemplars = prometheus.exemplars(&series)?;
        let named: BTreeSet<&str> = exemplars
            .iter()
            .map(|one| one["labels"]["trace_id"].as_str())
            .collect::<Option<_>>()
            .context("an exemplar names no trace")?;
        let spans = collector.spans(ns)?;
        let there: BTreeSet<&str> = spans.iter().map(|span| span.trace.as_str()).collect();
        let known = named.intersection(&there).count();
        ensure!(known > 0, "{} traces, none is known", named.len());
        Ok((named.len(), known))
    })?;
    record.saw(format!(
        "{all} traces named, {known} of them at the collector"
    ));
    record.holds()
}
