//! Pods with requests and limits of their own, beside those of their containers.
//!
//! Claims: attack-116

use super::*;

fn with_resources(resources: Value) -> Value {
    let mut pod = one_container(json!({}));
    pod["spec"]["resources"] = resources;
    pod
}

fn share_of(pod: &Value) -> Option<&Value> {
    let env = proxy_of(pod)["env"].as_array().unwrap();
    env.iter().find(|entry| entry["name"] == "WEFT_POD_SHARE")
}

/// The API server refuses a pod whose containers ask for more than the pod does.
#[test]
fn pod_resources_include_proxy_share_once_until_removal() {
    let pod = with_resources(json!({
        "requests": { "cpu": "100m", "memory": "128Mi", "hugepages-2Mi": "2Mi" },
        "limits": { "cpu": 1, "memory": "1Gi", "hugepages-2Mi": "2Mi" },
    }));
    let first = injected(&pod).pod;
    assert_eq!(
        first["spec"]["resources"],
        json!({
            "requests": { "cpu": "110m", "memory": "148Mi", "hugepages-2Mi": "2Mi" },
            "limits": { "cpu": "1010m", "memory": "1044Mi", "hugepages-2Mi": "2Mi" },
        })
    );
    assert_eq!(injected(&first).patch, Patch(vec![]));
    let mut stored = first.clone();
    stored["spec"]["resources"]["limits"]["cpu"] = "1.01".into();
    assert_eq!(injected(&stored).patch, Patch(vec![]));

    // Another share takes the place of the first one.
    let mut reinjected = first.clone();
    reinjected["metadata"]["annotations"][labels::PROXY_CPU_REQUEST] = "30m".into();
    reinjected["metadata"]["annotations"][labels::PROXY_CPU_LIMIT] = "200m".into();
    let again = injected(&reinjected).pod["spec"]["resources"].clone();
    assert_eq!(again["requests"]["cpu"], "130m");
    assert_eq!(again["limits"]["cpu"], "1200m");

    let without = remove(&first).unwrap().unwrap();
    assert_eq!(
        without["spec"]["resources"],
        json!({
            "requests": { "cpu": "100m", "memory": "128Mi", "hugepages-2Mi": "2Mi" },
            "limits": { "cpu": "1", "memory": "1024Mi", "hugepages-2Mi": "2Mi" },
        })
    );
}

#[test]
fn what_the_pod_says_nothing_of_is_not_added() {
    for resources in [
        json!({ "requests": { "hugepages-2Mi": "2Mi" } }),
        json!({ "requests": null, "limits": {} }),
        json!({ "limits": { "cpu": "lots" } }),
        Value::Null,
    ] {
        let pod = with_resources(resources.clone());
        let with = injected(&pod).pod;
        assert_eq!(with["spec"]["resources"], resources);
        assert_eq!(share_of(&with), None, "{resources}");
    }
    let named = with_resources(json!({ "requests": { "memory": "0" } }));
    let with = injected(&named).pod;
    assert_eq!(with["spec"]["resources"]["requests"]["memory"], "20Mi");
    assert!(share_of(&with).is_some());
}
