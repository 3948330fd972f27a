//! What helm makes of the chart, without installing it.
//!
//! Claims: attack-100

use std::collections::BTreeSet;

use anyhow::Context as _;
use e2e::harness::{Cluster, Outcome, mesh};
use serde::Deserialize as _;
use serde_json::{Value, json};

mod automation;
mod egress;
mod gateways;
mod hooks;
mod overridden;
mod pod_security;
mod uninstall;

const GROUP: &str = "metrics.smi-spec.io";

/// The chart's objects with these settings, hooks included.
fn rendered(settings: &[&str]) -> anyhow::Result<Vec<Value>> {
    let set = settings.iter().flat_map(|set| ["--set", *set]);
    rendered_by(&set.collect::<Vec<_>>())
}

/// The same with these arguments of helm, which looks into the cluster as it does when it
/// installs: without one it renders no hook.
fn rendered_by(values: &[&str]) -> anyhow::Result<Vec<Value>> {
    template_output(&[&["--dry-run=server"][..], values].concat())
}

fn template_output(values: &[&str]) -> anyhow::Result<Vec<Value>> {
    let chart = mesh::chart();
    let mut args = vec!["template", "weft", &chart, "-n", mesh::NAMESPACE];
    // Helm was not built for a Kubernetes of its own, and a template takes no kind from a cluster.
    args.extend(["--kube-version", "1.34"]);
    args.extend([
        "--api-versions",
        "gateway.networking.k8s.io/v1/GatewayClass",
    ]);
    args.extend(values);
    let text = Cluster::connect()?.helm(&args)?;
    serde_yaml_ng::Deserializer::from_str(&text)
        .map(|document| {
            // Of a repeated key JSON's maps take one, and these none.
            let read = serde_yaml_ng::Value::deserialize(document);
            let object = read.context("helm wrote no YAML")?;
            serde_yaml_ng::from_value::<Value>(object).context("helm wrote no object")
        })
        .filter(|object| !matches!(object, Ok(Value::Null)))
        .collect()
}

/// What helm says to settings that it must not take.
fn refused(settings: &[&str]) -> anyhow::Result<String> {
    match rendered(settings) {
        Ok(_) => anyhow::bail!("{settings:?} was taken"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    let objects = objects.iter();
    objects.filter(|object| object["kind"] == kind).collect()
}

fn hook<'a>(object: &'a Value, of: &str) -> Option<&'a str> {
    object["metadata"]["annotations"][of].as_str()
}

#[test]
fn disabled_metrics_api_leaves_no_trace_in_chart() -> Outcome {
    let on = rendered(&[])?;
    let off = rendered(&["metricsApi.enabled=false", "observe.enabled=false"])?;
    // The read API needs some of the same rights.
    let observed = rendered(&["metricsApi.enabled=false"])?;
    let switch = |objects: &[Value]| {
        let deployments = of_kind(objects, "Deployment");
        let env = deployments.iter().find_map(|one| {
            let containers = one["spec"]["template"]["spec"]["containers"].as_array()?;
            let env = containers.iter().filter_map(|c| c["env"].as_array());
            env.flatten()
                .find(|variable| variable["name"] == "WEFT_METRICS_API")
        });
        env.map(|variable| variable["value"].clone())
    };
    // Control: what is looked for is there when the value is on.
    assert!(of_kind(&on, "APIService").len() == 3, "no APIService");
    assert!(switch(&on) == Some("true".into()), "{:?}", switch(&on));
    let names = |word: &str, objects: &[Value]| -> Vec<String> {
        let named = objects.iter().filter(|object| {
            let text = object["metadata"]["name"].to_string();
            text.contains(word) || object["rules"].to_string().contains(word)
        });
        named.map(|object| object["metadata"].to_string()).collect()
    };
    for word in ["metrics", GROUP, "subjectaccessreviews", "apiservices"] {
        assert!(!names(word, &on).is_empty(), "nothing names {word}");
        let left = names(word, &off);
        assert!(left.is_empty(), "{word} is left in {left:?}");
    }
    for word in ["metrics", GROUP] {
        let left = names(word, &observed);
        assert!(left.is_empty(), "{word} is left in {left:?}");
    }
    assert!(of_kind(&off, "APIService").is_empty(), "an APIService");
    assert!(switch(&off) == Some("false".into()), "{:?}", switch(&off));
    Ok(())
}

/// With it go the service, every right that it alone needs, and the graph.
// Claims: observability-17
#[test]
fn disabled_read_api_leaves_no_trace_in_chart() -> Outcome {
    const GROUP: &str = "observe.weft.dev";
    let named = |objects: &[Value], word: &str| -> Vec<String> {
        let named = objects.iter().filter(|object| {
            object["metadata"]["name"].to_string().contains(word)
                || object["rules"].to_string().contains(word)
        });
        named.map(|object| object["metadata"].to_string()).collect()
    };
    let (on, off) = (rendered(&[])?, rendered(&["observe.enabled=false"])?);
    for word in [GROUP, "weft-observe", "weft-graph"] {
        assert!(!named(&on, word).is_empty(), "nothing names {word}");
        let left = named(&off, word);
        assert!(left.is_empty(), "{word} is left in {left:?}");
    }
    assert_eq!(of_kind(&off, "APIService").len(), 2);
    Ok(())
}

/// The controller writes the graph down under this owner or not at all. To set an owner,
/// one must be allowed to delete.
#[test]
fn graph_owner_role_is_readable_and_permits_ownership() -> Outcome {
    let objects = rendered(&[])?;
    let roles = of_kind(&objects, "Role");
    let mut roles = roles.iter();
    let role = roles.find(|role| role["metadata"]["name"] == "weft-observe");
    let role = role.context("no role owns the graph")?;
    let rules = role["rules"].as_array().context("no rules")?;
    let verbs = |resource: &str, name: &str| {
        let mut rules = rules.iter();
        let rule = rules.find(|rule| {
            let names = rule["resourceNames"].as_array();
            rule["resources"] == json!([resource])
                && names.is_some_and(|names| names.contains(&json!(name)))
        });
        rule.map_or(Value::Null, |rule| rule["verbs"].clone())
    };
    assert_eq!(verbs("roles", "weft-observe"), json!(["get"]));
    let written = json!(["get", "update", "delete"]);
    for name in ["weft-graph-0", "weft-graph-7", "weft-graph-broken-7"] {
        assert_eq!(verbs("configmaps", name), written, "{name}");
    }
    assert_eq!(verbs("configmaps", "weft-graph-8"), Value::Null);
    Ok(())
}

/// What view gives, by verb: nothing of it lists everywhere or deletes.
#[test]
fn viewers_may_read_graphs_and_proxies_and_ask_why() -> Outcome {
    let objects = rendered(&[])?;
    let roles = of_kind(&objects, "ClusterRole");
    let role = |name: &str| roles.iter().find(|role| role["metadata"]["name"] == name);
    let view = role("weft-observe-view").context("no role for viewers")?;
    let labels = &view["metadata"]["labels"];
    assert!(
        labels["rbac.authorization.k8s.io/aggregate-to-view"] == "true",
        "{labels}"
    );
    let rules = view["rules"].as_array().context("no rules")?;
    let listed: Vec<String> = rules
        .iter()
        .map(|rule| format!("{} {}", rule["resources"], rule["verbs"]))
        .collect();
    assert_eq!(
        listed,
        [
            r#"["graphs","routetables"] ["get"]"#,
            r#"["proxies"] ["get","list"]"#,
            r#"["explanations"] ["create"]"#,
        ]
    );
    let edit = role("weft-observe-edit").context("no role for editors")?;
    assert_eq!(edit["rules"][0]["resources"], json!(["dryruns"]));
    let labels = &edit["metadata"]["labels"];
    assert_eq!(
        labels["rbac.authorization.k8s.io/aggregate-to-edit"],
        "true"
    );
    // No default role includes the right to watch requests; it is granted explicitly.
    let tap = role("weft-tap").context("no role grants the right to tap")?;
    assert_eq!(tap["rules"][0]["verbs"], json!(["get", "create"]));
    let labels = tap["metadata"]["labels"].to_string();
    assert!(!labels.contains("aggregate-to"), "{labels}");
    let bound = of_kind(&objects, "ClusterRoleBinding").into_iter();
    let mut bound = bound.chain(of_kind(&objects, "RoleBinding"));
    assert!(bound.all(|binding| binding["roleRef"]["name"] != "weft-tap"));
    let scopes = role("weft-observe-scopes").context("no role grants queries of scopes")?;
    assert_eq!(scopes["rules"].to_string().matches("scopes").count(), 1);
    Ok(())
}

/// Ports of the pods of one part that a NetworkPolicy opens, with whom it opens them to.
fn opened(objects: &[Value], part: &str) -> Vec<(u64, Value)> {
    let policies = of_kind(objects, "NetworkPolicy").into_iter();
    let of_part = policies.filter(|policy| {
        let labels = &policy["spec"]["podSelector"]["matchLabels"];
        labels["app.kubernetes.io/component"] == part
    });
    let mut opened = Vec::new();
    for rule in
        of_part.flat_map(|policy| policy["spec"]["ingress"].as_array().into_iter().flatten())
    {
        for port in rule["ports"].as_array().into_iter().flatten() {
            opened.push((port["port"].as_u64().unwrap_or(0), rule["from"].clone()));
        }
    }
    opened.sort_by_key(|(port, _)| *port);
    opened
}

// Claims: B5
#[test]
fn control_plane_network_policies_open_every_served_port() -> Outcome {
    assert!(
        of_kind(&rendered(&[])?, "NetworkPolicy").is_empty(),
        "off by default"
    );
    let ports =
        |opened: &[(u64, Value)]| -> Vec<u64> { opened.iter().map(|(port, _)| *port).collect() };
    let open = rendered(&["networkPolicy.enabled=true"])?;
    let (controller, injector) = (opened(&open, "controller"), opened(&open, "injector"));
    assert_eq!(ports(&controller), [8080, 8443, 8444]);
    assert_eq!(ports(&injector), [8080, 8443]);
    let everybody = controller
        .iter()
        .chain(&injector)
        .all(|(_, from)| from.is_null());
    assert!(everybody, "{controller:?} {injector:?}");

    let closed = rendered(&[
        "networkPolicy.enabled=true",
        "networkPolicy.apiServers={10.0.0.1/32,fd00::1/128}",
    ])?;
    let servers = serde_json::json!([
        {"ipBlock": {"cidr": "10.0.0.1/32"}}, {"ipBlock": {"cidr": "fd00::1/128"}},
    ]);
    // Webhooks and metrics API are theirs alone; proxies and probes come from anywhere.
    for (part, port, alone) in [
        ("controller", 8080, false),
        ("controller", 8443, false),
        ("controller", 8444, true),
        ("injector", 8080, false),
        ("injector", 8443, true),
    ] {
        let all = opened(&closed, part);
        let (_, from) = all
            .iter()
            .find(|(other, _)| *other == port)
            .with_context(|| format!("{part} {port} is closed"))?;
        let expected = if alone { servers.clone() } else { Value::Null };
        assert_eq!(*from, expected, "{part} {port}");
    }
    let without = rendered(&[
        "networkPolicy.enabled=true",
        "metricsApi.enabled=false",
        "observe.enabled=false",
    ])?;
    assert_eq!(ports(&opened(&without, "controller")), [8080, 8443]);
    for left in ["metricsApi", "observe"] {
        let off = format!("{left}.enabled=false");
        let one = rendered(&["networkPolicy.enabled=true", &off])?;
        assert_eq!(
            ports(&opened(&one, "controller")),
            [8080, 8443, 8444],
            "{off}"
        );
    }
    Ok(())
}

/// An APIService without a server holds up the deletion of every namespace.
#[test]
fn api_service_goes_before_its_server() -> Outcome {
    let objects = rendered(&[])?;
    let leaves = |object: &&Value| hook(object, "helm.sh/hook") == Some("pre-delete");
    let weight = |object: &Value| -> anyhow::Result<i64> {
        let weight = hook(object, "helm.sh/hook-weight").context("a hook without a weight")?;
        Ok(weight.parse()?)
    };
    let hooks: Vec<&Value> = objects.iter().filter(leaves).collect();
    let jobs: Vec<&&Value> = hooks.iter().filter(|hook| hook["kind"] == "Job").collect();
    assert_eq!(jobs.len(), 1, "Jobs that run before the chart goes");
    let job = jobs[0];
    let pod = &job["spec"]["template"]["spec"];
    // The controller's own tests prove that `leave` withdraws the API.
    assert!(
        pod["containers"][0]["args"] == Value::from(vec!["leave"]),
        "{pod}"
    );
    // Helm waits for a hook before it goes on to the next weight, and for all of them
    // before it deletes the Deployments: whatever serves is no hook.
    for kind in ["Deployment", "APIService", "Service"] {
        let early = hooks.iter().find(|hook| hook["kind"] == kind);
        assert!(early.is_none(), "{early:?} goes with the hooks");
    }
    let names = |names: Vec<&Value>| -> BTreeSet<String> {
        names.into_iter().map(ToString::to_string).collect()
    };
    let api_services = of_kind(&objects, "APIService").into_iter();
    let api_services = names(api_services.map(|one| &one["metadata"]["name"]).collect());
    let may_delete = |role: &&&Value| {
        let rules = role["rules"].as_array().into_iter().flatten();
        let mut deleting = rules.filter(|rule| {
            rule["resources"] == Value::from(vec!["apiservices"])
                && rule["verbs"].to_string().contains("\"delete\"")
        });
        deleting.any(|rule| {
            let named = rule["resourceNames"].as_array().into_iter().flatten();
            names(named.collect()) == api_services
        })
    };
    let role = hooks.iter().find(may_delete);
    let role = role.context("no hook may delete the APIServices at the end")?;
    let binding = hooks
        .iter()
        .find(|hook| {
            hook["roleRef"]["name"] == role["metadata"]["name"]
                && hook["subjects"][0]["name"] == pod["serviceAccountName"]
        })
        .context("the Job is not given the right")?;
    for right in [role, binding] {
        assert!(weight(right)? < weight(job)?, "{right} comes too late");
    }
    Ok(())
}

/// Each of these would give a mesh that does not start, or stops at once.
// Claims: C6
#[test]
fn values_that_cannot_work_are_refused_with_the_field() -> Outcome {
    for (setting, field) in [
        ("tracing.endpoint=https://collector:4317", "endpoint"),
        ("tracing.sampling=101", "sampling"),
        ("tracing.inject={jaeger}", "inject"),
        ("tracing.maxSpansPerSecond=0", "maxSpansPerSecond"),
        ("observe.rememberFor=30m", "rememberFor"),
        ("observe.rememberFor=0h", "rememberFor"),
        ("observe.rememberFor=8761h", "rememberFor"),
        ("observe.tapHeaders={accept,cookie}", "tapHeaders"),
        ("observe.tapHeaders={Authorization}", "tapHeaders"),
        ("observe.tapHeaders={weft-route-token}", "tapHeaders"),
        ("identity.leafTtl=1s", "leafTtl"),
        ("identity.leafTtl=29s", "leafTtl"),
        ("identity.leafTtl=169h", "leafTtl"),
        ("identity.leafTtl=604801s", "leafTtl"),
        ("identity.leafTtl=10081m", "leafTtl"),
        ("identity.trustDomain=..", "trustDomain"),
        ("identity.trustDomain=.a", "trustDomain"),
        ("clusterDomain=null", "clusterDomain"),
        ("clusterDomain=a..b", "clusterDomain"),
        ("controller.replicas=0", "replicas"),
        ("injector.replicas=0", "replicas"),
        ("controller.resources.limits.memory=abc", "memory"),
        ("injector.resources.requests.cpu=-1", "cpu"),
        ("controller.resources.limit.memory=1Gi", "limit"),
        ("controller.failurePolicy=Fail", "controller"),
        ("controller.nodeSelector.disk=7", "disk"),
        ("injector.tolerations[0].keys=x", "keys"),
        ("platform=openshif", "platform"),
        ("nonsense=1", "nonsense"),
        ("controller.nonsense=1", "nonsense"),
    ] {
        let error = refused(&[setting])?;
        assert!(error.contains(field), "{setting}: {error}");
    }
    // Control: what is at the edge of each range is taken.
    for setting in [
        "identity.leafTtl=30s",
        "identity.leafTtl=604800s",
        "identity.leafTtl=10080m",
        "identity.leafTtl=168h",
        "identity.trustDomain=mesh_1.example.org",
        "clusterDomain=cluster.example",
        "controller.replicas=1",
        "controller.resources.limits.memory=1.5Gi",
        "controller.resources.limits.cpu=2",
        "priorityClassName=",
        "controller.tolerations[0].operator=Exists",
        "global.anything=1",
    ] {
        rendered(&[setting])?;
    }
    Ok(())
}

/// Every pod that the chart makes: of Deployments and Jobs, hooks and tests included.
fn pods(objects: &[Value]) -> Vec<(String, Value)> {
    let workloads = objects.iter().filter(|object| {
        ["Deployment", "Job"].contains(&object["kind"].as_str().unwrap_or_default())
    });
    workloads
        .map(|object| {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            (name.to_owned(), object["spec"]["template"]["spec"].clone())
        })
        .collect()
}

// Claims: C4, C9
#[test]
fn every_chart_pod_follows_values_to_compatible_nodes() -> Outcome {
    let plain = pods(&rendered(&[])?);
    let names: Vec<&str> = plain.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names.len(), 5, "{names:?}");
    for (name, pod) in &plain {
        let nodes = &pod["nodeSelector"];
        assert_eq!(
            (&nodes["kubernetes.io/os"], &nodes["kubernetes.io/arch"]),
            (&"linux".into(), &"amd64".into()),
            "{name}"
        );
        assert_eq!(pod["securityContext"]["runAsUser"], 65532, "{name}");
    }
    let placed = rendered(&[
        "imagePullSecrets[0].name=pull",
        "controller.nodeSelector.pool=infra",
        "controller.tolerations[0].key=infra",
        "injector.nodeSelector.pool=infra",
        "injector.tolerations[0].key=infra",
        "platform=openshift",
    ])?;
    for (name, pod) in pods(&placed) {
        assert_eq!(pod["imagePullSecrets"][0]["name"], "pull", "{name}");
        assert_eq!(pod["nodeSelector"]["pool"], "infra", "{name}");
        assert_eq!(pod["nodeSelector"]["kubernetes.io/arch"], "amd64", "{name}");
        assert_eq!(pod["tolerations"][0]["key"], "infra", "{name}");
        // The platform chooses the ids; the rest of the profile stays.
        assert_eq!(pod["securityContext"]["runAsUser"], Value::Null, "{name}");
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
    }
    Ok(())
}

// Claims: C8, attack-93
#[test]
fn no_chart_role_has_wildcard_permissions() -> Outcome {
    let objects = rendered(&["access.udpNetworkPolicies=true"])?;
    let roles = [of_kind(&objects, "ClusterRole"), of_kind(&objects, "Role")].concat();
    assert!(roles.len() > 8, "{}", roles.len());
    for role in &roles {
        let rules = role["rules"].to_string();
        assert!(
            !rules.contains("\"*\""),
            "{}: {rules}",
            role["metadata"]["name"]
        );
    }
    let view = roles
        .iter()
        .find(|role| role["metadata"]["name"] == "weft-metrics-view")
        .context("no role to view metrics")?;
    let resources = view["rules"][0]["resources"].to_string();
    for resource in ["\"pods\"", "\"trafficsplits\"", "\"deployments/edges\""] {
        assert!(resources.contains(resource), "{resources}");
    }
    Ok(())
}
