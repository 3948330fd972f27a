//! What helm makes of the chart, without installing it.

use anyhow::Context as _;
use e2e::harness::{Cluster, Outcome, mesh};
use serde::Deserialize as _;
use serde_json::Value;

const GROUP: &str = "metrics.smi-spec.io";

/// The chart's objects with these settings, hooks included.
fn rendered(settings: &[&str]) -> anyhow::Result<Vec<Value>> {
    let chart = mesh::chart();
    let mut args = vec!["template", "weft", &chart, "-n", mesh::NAMESPACE];
    // Helm was not built for a Kubernetes of its own.
    args.extend(["--kube-version", "1.34"]);
    args.extend(settings.iter().flat_map(|set| ["--set", set]));
    let text = Cluster::connect()?.helm(&args)?;
    serde_yaml_ng::Deserializer::from_str(&text)
        .map(|document| Value::deserialize(document).context("helm wrote no YAML"))
        .filter(|object| !matches!(object, Ok(Value::Null)))
        .collect()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    let objects = objects.iter();
    objects.filter(|object| object["kind"] == kind).collect()
}

fn hook<'a>(object: &'a Value, of: &str) -> Option<&'a str> {
    object["metadata"]["annotations"][of].as_str()
}

#[test]
fn metrics_api_that_is_switched_off_leaves_no_trace_in_the_chart() -> Outcome {
    let on = rendered(&[])?;
    let off = rendered(&["metricsApi.enabled=false"])?;
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
    assert!(of_kind(&on, "APIService").len() == 2, "no APIService");
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
    assert!(of_kind(&off, "APIService").is_empty(), "an APIService");
    assert!(switch(&off) == Some("false".into()), "{:?}", switch(&off));
    Ok(())
}

/// An APIService that nobody serves holds up the deletion of every namespace.
#[test]
fn api_service_goes_before_whoever_serves_it() -> Outcome {
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
    let api_services: Vec<Value> = of_kind(&objects, "APIService")
        .iter()
        .map(|service| service["metadata"]["name"].clone())
        .collect();
    let may_delete = |role: &&&Value| {
        let rules = role["rules"].as_array().into_iter().flatten();
        let mut deleting = rules.filter(|rule| {
            rule["resources"] == Value::from(vec!["apiservices"])
                && rule["verbs"].to_string().contains("\"delete\"")
        });
        deleting.any(|rule| rule["resourceNames"] == Value::from(api_services.clone()))
    };
    let role = hooks.iter().find(may_delete);
    let role = role.context("nobody may delete the APIServices at the end")?;
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
