//! Why an installation was not ready in time: the states of its pods and of the nodes.

use serde_json::Value;

use super::Cluster;

/// Lines in all: hundreds of evicted pods say no more than some of them.
const LINES: usize = 40;
/// Characters of one.
const WIDTH: usize = 300;

/// The same error; if helm's time ran out, behind what is wrong with the nodes and with the
/// pods of `namespace`.
pub(super) fn explained(error: anyhow::Error, cluster: &Cluster, namespace: &str) -> anyhow::Error {
    if !ran_out_of_time(&format!("{error:#}")) {
        return error;
    }
    let limit = "--request-timeout=20s";
    let nodes = cluster.json(&["get", "nodes", limit]);
    let pods = cluster.json(&["-n", namespace, "get", "pods", limit]);
    error.context(state(&nodes, &pods, namespace))
}

/// What helm says of it: about what it waits for with `--wait`, and about a hook.
fn ran_out_of_time(error: &str) -> bool {
    ["context deadline exceeded", "timed out waiting"]
        .iter()
        .any(|message| error.contains(message))
}

/// Nodes first: what is wrong with one of them explains all of its pods.
fn state(nodes: &anyhow::Result<Value>, pods: &anyhow::Result<Value>, namespace: &str) -> String {
    let mut lines = Vec::new();
    match nodes {
        Ok(list) => lines.extend(items(list).filter_map(node)),
        Err(error) => lines.push(format!("the nodes cannot be read: {error:#}")),
    }
    if lines.is_empty() {
        lines.push("every node is as it should be".into());
    }
    match pods {
        Ok(list) => lines.extend(items(list).map(pod)),
        Err(error) => lines.push(format!("the pods cannot be read: {error:#}")),
    }
    let more = lines.len().saturating_sub(LINES);
    lines.truncate(LINES);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    let lines: Vec<String> = lines.iter().map(|line| on_one_line(line)).collect();
    format!(
        "the time of helm ran out; nodes, and pods in {namespace}:\n{}\n",
        lines.join("\n")
    )
}

/// Nothing if all its conditions are as they should be.
fn node(object: &Value) -> Option<String> {
    let wrong = conditions(
        object,
        |kind| if kind == "Ready" { "True" } else { "False" },
    );
    (!wrong.is_empty()).then(|| format!("node {}: {}", name(object), wrong.join("; ")))
}

fn pod(object: &Value) -> String {
    let status = &object["status"];
    let mut parts = vec![format!("{}{}", text(&status["phase"]), reason(status))];
    parts.extend(conditions(object, |_| "True"));
    for list in ["initContainerStatuses", "containerStatuses"] {
        for container in status[list].as_array().into_iter().flatten() {
            let waiting = &container["state"]["waiting"];
            if !waiting.is_null() {
                parts.push(format!(
                    "{} waits{}",
                    text(&container["name"]),
                    reason(waiting)
                ));
            }
        }
    }
    format!("pod {}: {}", name(object), parts.join("; "))
}

/// Those whose status is not what it should be for their type.
fn conditions(object: &Value, should: impl Fn(&str) -> &'static str) -> Vec<String> {
    let all = object["status"]["conditions"].as_array();
    all.into_iter()
        .flatten()
        .filter(|condition| condition["status"] != should(text(&condition["type"])))
        .map(|condition| {
            format!(
                "{}={}{}",
                text(&condition["type"]),
                text(&condition["status"]),
                reason(condition)
            )
        })
        .collect()
}

/// ` (reason: message)`, as far as there are such.
fn reason(of: &Value) -> String {
    let parts = [text(&of["reason"]), text(&of["message"])];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    if parts.is_empty() {
        return String::new();
    }
    format!(" ({})", parts.join(": "))
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

fn name(object: &Value) -> &str {
    text(&object["metadata"]["name"])
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn on_one_line(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    words.join(" ").chars().take(WIDTH).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn full_disk_is_reported_by_node_and_pods() {
        let pressed = json!({"metadata": {"name": "node1"}, "status": {"conditions": [
            {"type": "DiskPressure", "status": "True", "reason": "KubeletHasDiskPressure",
             "message": "kubelet has disk pressure"},
            {"type": "Ready", "status": "True", "reason": "KubeletReady"}]}});
        let honest = json!({"metadata": {"name": "node2"}, "status": {"conditions": [
            {"type": "DiskPressure", "status": "False"}, {"type": "Ready", "status": "True"}]}});
        let pending = json!({"metadata": {"name": "weft-controller-1"}, "status": {
            "phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": "0/3 nodes are\n available"}]}});
        let evicted = json!({"metadata": {"name": "weft-controller-2"}, "status": {
            "phase": "Failed", "reason": "Evicted", "message": "low on ephemeral-storage"}});
        let waiting = json!({"metadata": {"name": "weft-injector-1"}, "status": {
            "phase": "Running", "conditions": [{"type": "Initialized", "status": "True"}],
            "containerStatuses": [
                {"name": "injector", "state": {"waiting": {"reason": "ErrImageNeverPull"}}},
                {"name": "other", "state": {"running": {}}}]}});
        let nodes = Ok(json!({"items": [pressed, honest]}));
        let pods = Ok(json!({"items": [pending, evicted, waiting]}));
        assert_eq!(
            state(&nodes, &pods, "weft-system"),
            "the time of helm ran out; nodes, and pods in weft-system:\n\
             node node1: DiskPressure=True (KubeletHasDiskPressure: kubelet has disk pressure)\n\
             pod weft-controller-1: Pending; PodScheduled=False (Unschedulable: 0/3 nodes are available)\n\
             pod weft-controller-2: Failed (Evicted: low on ephemeral-storage)\n\
             pod weft-injector-1: Running; injector waits (ErrImageNeverPull)\n"
        );
    }

    #[test]
    fn unready_report_is_bounded_and_names_unreadable_parts() {
        let evicted = json!({"metadata": {"name": "x"}, "status": {
            "phase": "Failed", "message": "m".repeat(10 * WIDTH)}});
        let pods = Ok(json!({"items": vec![evicted; 500]}));
        let printed = state(&Err(anyhow::anyhow!("no way")), &pods, "weft-system");
        let lines: Vec<&str> = printed.lines().skip(1).collect();
        assert_eq!(lines.len(), LINES + 1);
        assert_eq!(lines.first(), Some(&"the nodes cannot be read: no way"));
        assert_eq!(lines.last(), Some(&"and 461 more"));
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH));
    }

    #[test]
    fn only_an_end_of_time_is_explained() {
        for late in [
            "Error: UPGRADE FAILED: context deadline exceeded",
            "Error: failed pre-install: 1 error occurred:\n\t* timed out waiting for the condition",
        ] {
            assert!(ran_out_of_time(late), "{late}");
        }
        assert!(!ran_out_of_time("Error: UPGRADE FAILED: another operation"));
    }
}
