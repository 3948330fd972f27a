//! `weft proxy-config`: shows the configuration that a proxy holds, as the proxy reports it.
//!
//! Claims: observe-106

use std::time::SystemTime;

use clap::Args;
use crds::observe::{Proxy, Resource};
use policy::well_known::ADMIN_PORT;
use serde_json::Value;

use super::ClusterCommand;
use crate::cluster::names::{Named, ResourceKind};
use crate::cluster::{Cluster, existing, forward};
use crate::console::Console;
use crate::failure::{Conclusion, Failure};
use crate::global::Global;
use crate::output::table::Table;
use crate::output::{self, Format, NARROW};

/// Arguments of `weft proxy-config`.
#[derive(Args, Debug)]
#[command(
    about = "Show what the proxy of a pod holds, as the proxy itself reports it",
    long_about = "Shows identity, modes and the names and versions of all that the proxy of a pod \
                  holds. If no controller reports it, the proxy itself is queried, by port-forward; \
                  with --direct at once. The proxy itself also shows the steps of its start. With \
                  --traffic it reports by port-forward what its calls go by: sections of policies, \
                  retry budgets, breakers and endpoints.",
    after_help = "Example:\n  weft proxy-config web-5d8 --direct"
)]
pub(crate) struct ProxyConfig {
    /// The pod
    #[arg(value_name = "POD")]
    pod: String,
    /// By port-forward, without a controller
    #[arg(long)]
    direct: bool,
    /// What it goes by where its application calls Services
    #[arg(long)]
    traffic: bool,
}

/// Why `-A` is refused where a pod is named.
pub(super) const IN_ONE: &str = "a pod is in one namespace";

/// `web-1` or `pod/web-1`.
pub(super) fn pod(text: &str) -> Result<String, Failure> {
    let why = "a proxy is that of the whole pod";
    Named::read_of(text, ResourceKind::Pod, why)
}

impl ClusterCommand for ProxyConfig {
    const FORMATS: &'static [Format] = NARROW;

    fn must_be_readable(&self, global: &Global) -> Result<(), Failure> {
        global.in_one_namespace(IN_ONE)?;
        pod(&self.pod).map(drop)
    }

    /// Prints what the proxy in this cluster holds.
    async fn print(
        &self,
        cluster: &Cluster,
        format: Format,
        _: SystemTime,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        let pod = pod(&self.pod)?;
        let page = if self.traffic {
            direct(cluster, &pod, "/traffic").await?
        } else {
            self.config(cluster, &pod).await?
        };
        if output::data(console, format, &page)? {
            return Ok(Conclusion::Yes);
        }
        if self.traffic {
            print_traffic(&page, console)?;
        } else {
            print(&page, console)?;
        }
        Ok(Conclusion::Yes)
    }
}

impl ProxyConfig {
    async fn config(&self, cluster: &Cluster, pod: &str) -> Result<Value, Failure> {
        let reported = if self.direct {
            None
        } else {
            reported(cluster, pod).await?
        };
        match reported {
            Some(config) => Ok(config),
            None => direct(cluster, pod, "/config").await,
        }
    }
}

async fn direct(cluster: &Cluster, pod: &str, path: &str) -> Result<Value, Failure> {
    let page = forward::page(cluster, cluster.namespace(), pod, ADMIN_PORT, path).await?;
    serde_json::from_str(&page)
        .map_err(|error| Failure::unknown(format!("the proxy of {pod} answers no JSON: {error}")))
}

/// A controller's report of it, if any.
async fn reported(cluster: &Cluster, pod: &str) -> Result<Option<Value>, Failure> {
    let namespace = Some(cluster.namespace());
    let reported =
        cluster.try_observe::<Proxy>(Resource::Proxies, namespace, Some(pod), "config=1");
    match reported.await {
        Ok(proxy) => Ok(proxy.status.config),
        Err(refusal) => Err(existing::or_absent(cluster, (ResourceKind::Pod, pod), refusal).await),
    }
}

fn print(config: &Value, console: &mut Console<'_>) -> Result<(), Failure> {
    let mut table = Table::new(&["NAME", "VERSION"]);
    for (name, value) in config.as_object().into_iter().flatten() {
        match value {
            Value::Object(resources) => {
                for (name, version) in resources {
                    table.row(vec![name.clone().into(), text(version).into()]);
                }
            }
            value => {
                let value = match value {
                    Value::Array(steps) => started(steps),
                    value => text(value),
                };
                console.line(&crate::escape::plain(&format!("{name:<12} {value}")))?;
            }
        }
    }
    table.write(console.out, console.color)?;
    Ok(())
}

/// The steps of the proxy's start, as it reports them itself.
fn started(steps: &[Value]) -> String {
    let steps = steps
        .iter()
        .map(|step| format!("{} {} ms", text(&step["step"]), text(&step["milliseconds"])));
    steps.collect::<Vec<_>>().join(", ")
}

/// A row for each rule of a section, with its author, each breaker and each endpoint.
fn print_traffic(page: &Value, console: &mut Console<'_>) -> Result<(), Failure> {
    let mut table = Table::new(&["SERVICE", "WHAT", "SAYS"]);
    for (name, service) in page["services"].as_object().into_iter().flatten() {
        let mut row = |what: &str, says: String| {
            table.row(vec![name.clone().into(), what.into(), says.into()]);
        };
        for (section, rules) in service["sections"].as_object().into_iter().flatten() {
            for rule in each(rules) {
                row(section, text(&rule["from"]));
            }
        }
        if let Some(saved) = service["budget"]["saved"].as_u64() {
            row("budget", format!("{saved} retries saved"));
        }
        for one in each(&service["breakers"]) {
            let [failed, of] = ["failures", "requests"].map(|field| text(&one[field]));
            let state = text(&one["state"]);
            row("breaker", format!("{state}, {failed} of {of} failed"));
        }
        for (class, percent) in service["throttledPercent"]
            .as_object()
            .into_iter()
            .flatten()
        {
            if let Some(percent @ 1..) = percent.as_u64() {
                row(
                    "throttle",
                    format!("{percent} % of {class} calls held back"),
                );
            }
        }
        for one in each(&service["endpoints"]) {
            let what = format!("{} {}", text(&one["address"]), text(&one["pod"]));
            let [failed, of] = ["failures", "answers"].map(|field| text(&one[field]));
            let [state, load] = ["state", "load"].map(|field| text(&one[field]));
            let says = format!("{state}, {failed} of {of} failed, load {load} %");
            row(what.trim_end(), says);
        }
        if let Some(more @ 1..) = service["endpointsLeftOut"].as_u64() {
            // The proxy lists the endpoints with the smallest share first.
            row(
                "endpoints",
                format!("{more} more, none with a smaller share"),
            );
        }
    }
    table.write(console.out, console.color)?;
    if let Some(more @ 1..) = page["servicesLeftOut"].as_u64() {
        console.word(&format!(
            "{more} more: port {ADMIN_PORT} of the pod answers /traffic/NAMESPACE/SERVICE"
        ))?;
    }
    Ok(())
}

fn each(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::console::Streams;

    #[test]
    fn steps_of_the_start_stand_in_one_line() {
        let page = json!({
            "identity": "spiffe://x",
            "startup": [
                { "step": "settings", "milliseconds": 3 },
                { "step": "certificate\u{1b}[2J", "milliseconds": 41 },
            ],
            "resources": { "workload": "00ff" },
        });
        let mut streams = Streams::default();
        print(&page, &mut streams.console()).unwrap();
        let (out, _) = streams.texts();
        let line = out.lines().find(|line| line.starts_with("startup "));
        let line = line.unwrap();
        assert!(line.contains("settings 3 ms, certificate"), "{out}");
        assert!(line.ends_with("41 ms") && !line.contains('\x1b'), "{out:?}");
    }

    #[test]
    fn traffic_page_lists_section_sources_and_ejected_endpoints() {
        let page = json!({
            "services": { "shop/api:80": {
                "sections": { "retry": [
                    { "from": "TrafficPolicy shop/calls", "someRequestsOnly": true, "says": {} },
                    { "from": "without any policy", "someRequestsOnly": false, "says": {} },
                ] },
                "budget": { "saved": 2 },
                "breakers": [{ "state": "Open", "requests": 50, "failures": 49 }],
                "throttledPercent": { "Critical": 0, "Normal": 63 },
                "endpoints": [{
                    "address": "10.0.0.2:80", "pod": "shop/api-2\u{1b}[2J", "state": "Resting",
                    "answers": 7, "failures": 5, "load": 30,
                }],
                "endpointsLeftOut": 50,
            } },
            "servicesLeftOut": 3,
        });
        let mut streams = Streams::default();
        let mut console = streams.console();
        print_traffic(&page, &mut console).unwrap();
        let (out, err) = streams.texts();
        let rows: Vec<&str> = out.lines().collect();
        assert_eq!(rows.len(), 8, "{out}");
        let shows = |at: usize, words: [&str; 2]| {
            let row = rows[at];
            let all = words.into_iter().all(|word| row.contains(word));
            assert!(all && row.starts_with("shop/api:80 "), "{at}: {out}");
        };
        shows(1, ["retry", "TrafficPolicy shop/calls"]);
        shows(2, ["retry", "without any policy"]);
        shows(3, ["budget", "2 retries saved"]);
        shows(4, ["breaker", "Open, 49 of 50 failed"]);
        let says = "Resting, 5 of 7 failed, load 30 %";
        shows(5, ["throttle", "63 % of Normal calls held back"]);
        shows(6, ["10.0.0.2:80 shop/api-2", says]);
        shows(7, ["endpoints", "50 more"]);
        assert!(!out.contains('\x1b'), "{out:?}");
        assert!(err.starts_with("3 more"), "{err:?}");
    }
}
